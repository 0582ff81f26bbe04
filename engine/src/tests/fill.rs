//! Views over what has left the log, from a history that keeps what the log had.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, new_null_array};
use arrow::datatypes::Int64Type;
use broker::Offset;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::definitions::done;
use super::*;
use crate::{EngineError, ErrorKind, Found, History, HistorySlot, Result, ViewStatus, Wanted};

pub(super) const BY_MINUTE: &str = "AS SELECT genre, count(*) AS n, sum(amount) AS total FROM s \
                         GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre";

/// Rows as the log had them.
#[derive(Default)]
pub(super) struct Kept {
    rows: BTreeMap<i32, RecordBatch>,
    /// Offsets of which it has nothing.
    gap: Range<Offset>,
    /// Rows of one answer.
    rows_max: usize,
    /// Answers before it fails.
    reads_max: usize,
    reads: AtomicUsize,
    /// What was asked for: partition and first offset.
    asked: Mutex<Vec<(i32, Offset)>>,
}

impl Kept {
    pub(super) async fn all(broker: &Broker, engine: &Engine) -> Kept {
        Kept::of(broker, engine, "s").await
    }

    /// What the log has of a stream's topic.
    pub(super) async fn of(broker: &Broker, engine: &Engine, stream: &str) -> Kept {
        let stream = engine.streams().into_iter().find(|known| known.name() == stream).unwrap();
        let mut rows = BTreeMap::new();
        for partition in broker.catalog().topic(stream.topic()).unwrap().partitions().iter() {
            let (mut at, mut batches) = (partition.log_start(), Vec::new());
            while at < partition.high_watermark() {
                batches.extend(partition.read(at, 1 << 20).await.unwrap());
                at = batches.last().unwrap().next_offset();
            }
            rows.insert(partition.index(), stream.decode(partition.index(), &batches).unwrap().rows);
        }
        Kept { rows, rows_max: usize::MAX, reads_max: usize::MAX, ..Kept::default() }
    }

    /// The same with so many rows in an answer.
    pub(super) fn by(self, rows_max: usize) -> Kept {
        Kept { rows_max, ..self }
    }

    /// The same for another run, which fails after so many answers.
    pub(super) fn again(&self, reads_max: usize) -> Kept {
        Kept { rows: self.rows.clone(), rows_max: self.rows_max, reads_max, ..Kept::default() }
    }

    /// Whether it has failed.
    pub(super) fn is_away(&self) -> bool {
        self.reads.load(Ordering::SeqCst) > self.reads_max
    }

    pub(super) fn find(&self, wanted: &Wanted) -> Result<Found> {
        if self.reads.fetch_add(1, Ordering::SeqCst) >= self.reads_max {
            return Err(EngineError::new(ErrorKind::Storage, "the lake is away"));
        }
        let ((from, to), index) = (wanted.range, wanted.partition.index());
        self.asked.lock().push((index, from));
        let Some(rows) = self.rows.get(&index) else { return Ok(Found::Nothing) };
        if self.gap.contains(&from) {
            return Ok(Found::Gap { next: self.gap.end });
        }
        let end = if from < self.gap.start { to.min(self.gap.start) } else { to };
        let offsets = rows.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().values();
        let first = offsets.partition_point(|offset| *offset < from);
        let there = offsets.partition_point(|offset| *offset < end) - first;
        let count = there.min(self.rows_max);
        let next = if count < there { offsets[first + count - 1] + 1 } else { end };
        let column = |field: &Arc<arrow::datatypes::Field>| match rows.column_by_name(field.name()) {
            Some(column) => column.slice(first, count),
            None => new_null_array(field.data_type(), count),
        };
        let columns = wanted.schema.fields().iter().map(column).collect();
        Ok(Found::Rows { rows: RecordBatch::try_new(wanted.schema.clone(), columns).unwrap(), next })
    }
}

impl History for Kept {
    fn read(&self, wanted: Wanted) -> BoxFuture<'_, Result<Found>> {
        Box::pin(async move { self.find(&wanted) })
    }
}

pub(super) async fn trim(broker: &Broker, partition: i32, to: Offset) {
    trim_topic(broker, "events", partition, to).await;
}

pub(super) async fn trim_topic(broker: &Broker, topic: &str, partition: i32, to: Offset) {
    let partition = broker.catalog().topic(topic).unwrap().partition(partition).unwrap();
    broker.lane().commit(vec![Change::LogStart(partition, to)], Ack::Durable).await.unwrap();
}

/// Two partitions of ten events a batch, one in ten refused; the time moves on by a second with each batch.
pub(super) async fn produce(broker: &Broker, batches: Range<i64>) {
    for batch in batches {
        for partition in 0..2 {
            let at = |n: i64| event(n, ["jazz", "rock", "pop"][n as usize % 3], batch + n, batch * 1_000 + n);
            let values: Vec<String> = (0..10).map(|n| if n == 7 { "oops".to_string() } else { at(n) }).collect();
            append(broker, "events", partition, &values).await;
        }
    }
}

pub(super) async fn start(broker: &Arc<Broker>, views: &[&str]) -> Arc<Engine> {
    Engine::start_with(broker.clone(), config(views), HistorySlot::awaited()).await.unwrap()
}

pub(super) fn status(engine: &Engine, view: &str) -> ViewStatus {
    engine.status().into_iter().find(|status| status.view == view).unwrap()
}

pub(super) async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_view_equals_one_that_was_there_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let engine = start(&broker, &[&format!("live {BY_MINUTE}")]).await;
    produce(&broker, 0..200).await;
    let before = read(&engine, "live").await;
    assert_eq!(before.len(), 12);
    let kept = Arc::new(Kept { rows_max: 300, ..Kept::all(&broker, &engine).await });
    // In the middle of a batch, and to the end.
    trim(&broker, 0, 1_234).await;
    trim(&broker, 1, 2_000).await;
    assert_eq!(done(&engine, &format!("CREATE MATERIALIZED VIEW later {BY_MINUTE}")).await, ["created"]);
    until(|| status(&engine, "later").fill.is_some_and(|fill| fill.waits_for.is_some())).await;
    let waiting = status(&engine, "later");
    assert_eq!((waiting.fill_left, waiting.positions["events"][&1], waiting.rows_applied), (Some(4_000), 0, 0));
    let late = engine.read("later", ReadRequest { wait_ms: 50, ..ReadRequest::default() }).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::Timeout, "nobody takes it for filled");
    engine.set_history(kept.clone());
    assert_eq!(read(&engine, "later").await, before);
    produce(&broker, 200..260).await;
    assert_eq!(read(&engine, "later").await, read(&engine, "live").await);
    let (later, live) = (status(&engine, "later"), status(&engine, "live"));
    assert_eq!((later.rows_applied, later.late, later.lost), (live.rows_applied, 0, 0));
    assert_eq!((later.event_watermark, later.closed_until), (live.event_watermark, live.closed_until));
    assert!(later.fill_left.is_none() && later.fill.is_none());
    let asked = kept.asked.lock().clone();
    for (partition, end) in [(0, 1_234), (1, 2_000)] {
        let of: Vec<Offset> = asked.iter().filter(|(index, _)| *index == partition).map(|(_, from)| *from).collect();
        assert!(of.is_sorted_by(|one, next| one < next) && of[0] == 0 && of.iter().all(|from| *from < end), "{of:?}");
        assert!(of.len() > 3, "in several steps: {of:?}");
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// The engine ends after any number of steps, and goes on where the last one ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_fill_goes_on_after_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let engine = start(&broker, &[&format!("live {BY_MINUTE}")]).await;
    produce(&broker, 0..40).await;
    let expected = read(&engine, "live").await;
    let kept = Kept::all(&broker, &engine).await;
    engine.stop().await;
    trim(&broker, 0, 333).await;
    trim(&broker, 1, 390).await;
    let views =
        [format!("live {BY_MINUTE}"), format!("later {BY_MINUTE}"), "all_of_it AS SELECT count(*) AS n FROM s".into()];
    let views: Vec<&str> = views.iter().map(String::as_str).collect();
    let mut runs = 0;
    loop {
        let engine = start(&broker, &views).await;
        // One read of each partition makes a step.
        let reads_max = 2 * (1 + runs % 3) + runs % 2;
        let kept = Arc::new(Kept { rows: kept.rows.clone(), rows_max: 25, reads_max, ..Kept::default() });
        engine.set_history(kept.clone());
        let is_filled = || ["later", "all_of_it"].iter().all(|view| status(&engine, view).lag_records == 0);
        until(|| kept.reads.load(Ordering::SeqCst) > reads_max || is_filled()).await;
        let filled = is_filled();
        if !filled {
            assert!(status(&engine, "later").error.is_none());
        }
        engine.stop().await;
        runs += 1;
        if filled {
            break;
        }
    }
    assert!(runs > 3, "{runs} runs");
    // Filled, they share a reading with the one that was there before.
    let engine = Engine::start(broker.clone(), config(&views)).await.unwrap();
    assert_eq!(read(&engine, "later").await, expected);
    assert_eq!(read(&engine, "all_of_it").await, [["720"]]);
    assert_eq!(status(&engine, "later").lost, 0);
    assert!(engine.explain("later").unwrap()[0].1.contains("in one reading with"), "{:?}", engine.explain("later"));
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nowhere_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let engine = start(&broker, &[]).await;
    produce(&broker, 0..10).await;
    engine.wait_fresh("data_quality", 20_000).await.unwrap();
    let mut kept = Kept::all(&broker, &engine).await;
    // Nothing is kept of the other partition: there the view begins with the log.
    kept.rows.remove(&1);
    kept.gap = 20..45;
    trim(&broker, 0, 60).await;
    trim(&broker, 1, 90).await;
    engine.set_history(Arc::new(kept));
    done(&engine, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s").await;
    // 18 and 13 from the history (one in ten is no row), 36 and 9 from the log.
    assert_eq!(read(&engine, "v").await, [["76"]]);
    let status = status(&engine, "v");
    assert_eq!((status.lost, status.rows_applied), (25, 76));
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// Late rows and rows that cannot be evaluated are handed on, made of the columns that were read.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_count_become_records_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let engine = start(&broker, &[]).await;
    let values =
        [event(1, "jazz", 5, 0), event(0, "rock", 6, 120_000), event(2, "pop", 7, 1_000), event(3, "pop", 8, 130_000)];
    append(&broker, "events", 0, &values).await;
    engine.wait_fresh("data_quality", 20_000).await.unwrap();
    let kept = Kept { rows_max: 2, ..Kept::all(&broker, &engine).await };
    trim(&broker, 0, 4).await;
    engine.set_history(Arc::new(kept));
    let view =
        "CREATE MATERIALIZED VIEW v AS SELECT sum(100 / uid) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)";
    done(&engine, view).await;
    let rows = read(&engine, "v").await;
    assert_eq!(rows.iter().map(|row| row[2].as_str()).collect::<Vec<_>>(), ["100", "33"], "{rows:?}");
    let status = status(&engine, "v");
    assert_eq!((status.late, status.failed, status.rows_applied), (1, 1, 2));
    let remade = |records: Vec<(i32, Record)>, rule: Option<&str>| {
        let is_it = |record: &Record| rule.is_none_or(|rule| header(record, "rule") == rule);
        let (_, record) = records.into_iter().find(|(_, record)| is_it(record)).unwrap();
        let value: serde_json::Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        assert_eq!((record.key.as_deref(), header(&record, "made_of")), (Some(&b"k"[..]), "columns".to_string()));
        (header(&record, "offset"), value)
    };
    let (offset, late) = remade(records(&broker, "v.late").await, None);
    assert_eq!((offset.as_str(), &late["uid"], &late["amount"]), ("2", &2.into(), &7.into()), "{late}");
    assert!(late["ts"].as_str().unwrap().starts_with("2026-11-20T10:00:01"), "{late}");
    assert!(late.get("price").is_none(), "nobody read it: {late}");
    let (offset, failed) = remade(records(&broker, "s.rejected").await, Some("view:v"));
    assert_eq!((offset.as_str(), &failed["uid"]), ("1", &0.into()), "{failed}");
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// Rows that passed the checks of then are checked again, and lack columns that are new.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_stream_fills_its_views_by_its_own_rules() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let view = "v AS SELECT count(*) AS n, count(place) AS places, max(amount) AS most FROM s";
    let engine = start(&broker, &["v AS SELECT count(*) AS n FROM s"]).await;
    let at = |n: i64| event(n, "jazz", n, n).replace('{', r#"{"place":"x","#);
    append(&broker, "events", 0, &(0..40).map(at).collect::<Vec<_>>()).await;
    assert_eq!(read(&engine, "v").await, [["40"]]);
    let kept = Kept::all(&broker, &engine).await;
    engine.stop().await;
    trim(&broker, 0, 30).await;
    let mut changed = config(&[view]);
    changed.streams[0].columns.push(column("place", "VARCHAR", false));
    let check = CheckConfig { name: "even".into(), sql: "amount % 2 = 0".into(), ..CheckConfig::default() };
    changed.streams[0].checks.push(check);
    let engine = Engine::start_with(broker.clone(), changed, HistorySlot::awaited()).await.unwrap();
    engine.set_history(Arc::new(kept));
    // The log still says where the last ten were.
    assert_eq!(read(&engine, "v").await, [["20", "5", "38"]]);
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// Says how often more was asked for before what had been given was counted.
struct Watched {
    kept: Kept,
    engine: std::sync::Weak<Engine>,
    early: AtomicUsize,
}

impl History for Watched {
    fn read(&self, wanted: Wanted) -> BoxFuture<'_, Result<Found>> {
        let engine = self.engine.upgrade().unwrap();
        // It may read before it is shown.
        let shown = engine.status().into_iter().find(|status| status.view == "later");
        let is_early =
            shown.is_some_and(|status| status.positions["events"][&wanted.partition.index()] < wanted.range.0);
        self.early.fetch_add(usize::from(is_early), Ordering::SeqCst);
        Box::pin(async move { self.kept.find(&wanted) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_after_is_read_while_steps_are_computed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let engine = start(&broker, &[&format!("live {BY_MINUTE}")]).await;
    produce(&broker, 0..100).await;
    let before = read(&engine, "live").await;
    let kept = Kept::all(&broker, &engine).await.by(20);
    for partition in 0..2 {
        trim(&broker, partition, 1_000).await;
    }
    let watched = Arc::new(Watched { kept, engine: Arc::downgrade(&engine), early: AtomicUsize::new(0) });
    engine.set_history(watched.clone());
    done(&engine, &format!("CREATE MATERIALIZED VIEW later {BY_MINUTE}")).await;
    assert_eq!(read(&engine, "later").await, before);
    // A thread may come too late, but not each time.
    let (early, asked) = (watched.early.load(Ordering::SeqCst), watched.kept.asked.lock().len());
    assert!(early > 0 && asked >= 90, "{early} of {asked}");
    let next: Vec<Offset> =
        watched.kept.asked.lock().iter().filter(|(index, _)| *index == 0).map(|(_, from)| *from).collect();
    assert!(next.is_sorted_by(|one, next| one < next), "nothing is read twice: {next:?}");
    engine.stop().await;
    broker.stop().await.unwrap();
}
