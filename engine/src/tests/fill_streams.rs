//! Derived streams over what has left the log, from histories that keep what the logs had: each row is written once.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use serde_json::Value;

use super::definitions::done;
use super::derived::{derived, values, with};
use super::fill::{Kept, produce, trim, trim_topic, until};
use super::joins::{joined, joins, row};
use super::*;
use crate::{DeduplicateConfig, DerivedStatus, Found, History, HistorySlot, Result, Wanted};

const SELECT: &str = "AS SELECT l.uid, l.genre, l.amount, l.ts, g.mood, l._partition AS p, l._offset AS o FROM s l \
                      LEFT JOIN genres g ON l.genre = g.genre WHERE l.amount <> 7";

/// Rows of several streams.
struct Several(BTreeMap<String, Kept>);

impl History for Several {
    fn read(&self, wanted: Wanted) -> BoxFuture<'_, Result<Found>> {
        Box::pin(async move { self.0.get(&wanted.stream).map_or(Ok(Found::NotYet), |kept| kept.find(&wanted)) })
    }
}

async fn start(broker: &Arc<Broker>, config: &EngineConfig) -> Arc<Engine> {
    Engine::start_with(broker.clone(), config.clone(), HistorySlot::awaited()).await.unwrap()
}

fn status(engine: &Engine, stream: &str) -> DerivedStatus {
    let all = engine.stream_status();
    all.into_iter().find(|status| status.stream == stream).and_then(|status| status.derived).unwrap()
}

/// What a derived stream's topic has, in one order: a row that was written twice is there twice.
async fn sorted(broker: &Broker, topic: &str) -> Vec<String> {
    let mut all: Vec<String> = values(broker, topic).await.iter().map(Value::to_string).collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_derived_stream_equals_one_that_was_there_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let engine = start(&broker, &with(vec![derived(&format!("live {SELECT}"))], &[])).await;
    produce(&broker, 0..200).await;
    engine.wait_fresh("live", 20_000).await.unwrap();
    let kept = Kept::all(&broker, &engine).await.by(300);
    // In the middle of a batch, and to the end.
    trim(&broker, 0, 1_234).await;
    trim(&broker, 1, 2_000).await;
    let script = format!(
        "CREATE STREAM later {SELECT}; \
         CREATE MATERIALIZED VIEW moods AS SELECT mood, count(*) AS n FROM later GROUP BY mood"
    );
    assert_eq!(done(&engine, &script).await, ["created", "created"]);
    until(|| status(&engine, "later").fill.is_some_and(|fill| fill.waits_for.is_some())).await;
    let waiting = status(&engine, "later");
    assert_eq!((waiting.fill_left, waiting.positions["events"][&1], waiting.written), (Some(4_000), 0, 0));
    assert_eq!(waiting.fill.unwrap().to["events"], BTreeMap::from([(0, 2_000), (1, 2_000)]));
    engine.set_history(Arc::new(kept));
    engine.wait_fresh("later", 20_000).await.unwrap();
    let rows = sorted(&broker, "later").await;
    assert_eq!(rows, sorted(&broker, "live").await);
    assert_eq!(rows.len(), 3_600 - 14, "each good event but those with an amount of 7");
    produce(&broker, 200..230).await;
    let moods = read(&engine, "moods").await;
    engine.wait_fresh("live", 20_000).await.unwrap();
    let rows = sorted(&broker, "later").await;
    assert_eq!(rows, sorted(&broker, "live").await);
    let counted: usize = moods.iter().map(|row| row[1].parse::<usize>().unwrap()).sum();
    assert_eq!(counted, rows.len(), "what reads it is whole too");
    // A record keeps its key, its time and its partition.
    let places = |records: Vec<(i32, Record)>| {
        let place = |(partition, record): (i32, Record)| (partition, record.key, record.timestamp, record.value);
        let mut all: Vec<_> = records.into_iter().map(place).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(places(records(&broker, "later").await), places(records(&broker, "live").await));
    let later = status(&engine, "later");
    assert!(later.fill_left.is_none() && later.fill.is_none() && later.error.is_none(), "{later:?}");
    assert!(records(&broker, "later.rejected").await.is_empty());
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// The engine ends after any number of steps, and goes on where the last one ended: streams of two SELECTs, without duplicates, with rows
/// that are refused, and a view that is filled with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_fill_of_streams_goes_on_after_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let one = "SELECT uid, amount, genre, ts, _partition AS p, _offset AS o";
    let both = |name: &str| {
        derived(&format!(
            "{name} AS {one}, 'all' AS part FROM s UNION ALL {one}, 'jazz' AS part FROM s WHERE genre = 'jazz'"
        ))
    };
    let once = |name: &str| StreamConfig {
        deduplicate: Some(DeduplicateConfig { by: vec!["genre".into()], within_ms: 60_000 }),
        ..derived(&format!("{name} AS SELECT genre, 10 / (uid - 5) AS share, ts FROM s"))
    };
    let first = with(vec![both("live"), once("live_once")], &[]);
    let engine = start(&broker, &first).await;
    produce(&broker, 0..40).await;
    for stream in ["live", "live_once"] {
        engine.wait_fresh(stream, 20_000).await.unwrap();
    }
    let kept = Kept::all(&broker, &engine).await.by(25);
    engine.stop().await;
    trim(&broker, 0, 333).await;
    trim(&broker, 1, 390).await;
    let mut second = with(
        vec![both("live"), once("live_once"), both("later"), once("later_once")],
        &["n AS SELECT count(*) AS n FROM s"],
    );
    second.views[0].retention_ms = None;
    let mut runs = 0;
    loop {
        let engine = start(&broker, &second).await;
        let kept = Arc::new(kept.again(3 + runs % 5));
        engine.set_history(kept.clone());
        let is_filled = || ["later", "later_once"].iter().all(|stream| status(&engine, stream).lag_records == 0);
        until(|| kept.is_away() || is_filled()).await;
        let filled = is_filled();
        assert!(status(&engine, "later").error.is_none());
        if filled {
            assert_eq!(read(&engine, "n").await, [["720"]]);
        }
        engine.stop().await;
        runs += 1;
        if filled {
            break;
        }
    }
    assert!(runs > 3, "{runs} runs");
    let rows = sorted(&broker, "later").await;
    assert_eq!(rows.len(), 720 + 320, "four of each nine are jazz");
    assert_eq!(rows, sorted(&broker, "live").await);
    // Which of two equal rows comes first depends on the steps, how many there are does not.
    assert_eq!(values(&broker, "later_once").await.len(), values(&broker, "live_once").await.len());
    let refused = records(&broker, "later_once.rejected").await;
    let by_rule =
        |rule: &str, of: &[(i32, Record)]| of.iter().filter(|(_, record)| header(record, "rule") == rule).count();
    let live = records(&broker, "live_once.rejected").await;
    assert_eq!(by_rule("expression", &refused), by_rule("expression", &live));
    assert_eq!(refused.len(), live.len());
    let remade =
        refused.iter().filter(|(_, record)| record.headers.iter().any(|(name, _)| name.as_ref() == b"made_of"));
    assert!(remade.count() > 0, "what is refused of kept rows is made of their columns");
    engine_is_quiet(&broker, &second).await;
    broker.stop().await.unwrap();
}

/// Another start finds nothing to do.
async fn engine_is_quiet(broker: &Arc<Broker>, config: &EngineConfig) {
    let before = sorted(broker, "later").await.len();
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    engine.wait_fresh("later", 20_000).await.unwrap();
    assert_eq!(sorted(broker, "later").await.len(), before);
    assert!(status(&engine, "later").fill.is_none());
    engine.stop().await;
}

/// Both sides of a join have left the logs, of one partition not all; restarts in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_joined_stream_is_filled_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "orders", 2).await;
    create(&broker, "payments", 3).await;
    let pairs = |name: &str| {
        joined(&format!(
            "{name} AS SELECT o.id AS oid, p.id AS pid, o.ts, o.amount FROM orders o \
             LEFT JOIN payments p WITHIN 2 SECONDS ON o.k = p.k AND p.amount > 3"
        ))
    };
    let engine = start(&broker, &joins(vec![pairs("live")], &[])).await;
    for at in 0..60_i32 {
        let n = i64::from(at);
        let some = |id: i64, step: i64| -> Vec<String> {
            (0..10).map(|i| row(id + n * 10 + i, (n * 10 + i) * step % 37, (n + i) % 9, n * 1_000 + i * 100)).collect()
        };
        append(&broker, "orders", at % 2, &some(0, 1)).await;
        append(&broker, "payments", at % 3, &some(10_000, 5)).await;
    }
    for partition in 0..3 {
        append(&broker, "payments", partition, &[row(20_000, 900, 5, 100_000)]).await;
        if partition < 2 {
            append(&broker, "orders", partition, &[row(20_001, 901, 5, 100_000)]).await;
        }
    }
    engine.wait_fresh("live", 20_000).await.unwrap();
    let (orders, payments) =
        (Kept::of(&broker, &engine, "orders").await.by(40), Kept::of(&broker, &engine, "payments").await.by(40));
    engine.stop().await;
    for (topic, partitions) in [("orders", 2), ("payments", 3)] {
        for partition in 0..partitions {
            let to = if partition == 1 { 100 } else { 201 };
            trim_topic(&broker, topic, partition, to).await;
        }
    }
    let config = joins(vec![pairs("live"), pairs("later")], &[]);
    let runs = AtomicUsize::new(0);
    loop {
        let engine = start(&broker, &config).await;
        let reads_max = 4 + runs.fetch_add(1, Ordering::SeqCst) % 3;
        let kept = [("orders", &orders), ("payments", &payments)];
        let kept = kept.map(|(name, kept)| (name.to_string(), kept.again(reads_max)));
        let several = Arc::new(Several(BTreeMap::from(kept)));
        engine.set_history(several.clone());
        let is_filled = || status(&engine, "later").lag_records == 0;
        until(|| several.0.values().any(Kept::is_away) || is_filled()).await;
        let filled = is_filled();
        if filled {
            engine.wait_fresh("later", 20_000).await.unwrap();
        }
        engine.stop().await;
        if filled {
            break;
        }
    }
    assert!(runs.load(Ordering::SeqCst) > 2, "{runs:?} runs");
    let rows = sorted(&broker, "later").await;
    assert!(rows.iter().any(|row| row.contains(r#""pid":null"#)) && rows.len() > 600, "{}", rows.len());
    assert_eq!(rows, sorted(&broker, "live").await);
    assert!(records(&broker, "later.late").await.is_empty());
    broker.stop().await.unwrap();
}
