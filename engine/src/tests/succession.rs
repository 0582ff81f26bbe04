//! A changed view: the former version is served until the new one, filled beside it, takes over, through crashes, other statements and
//! all kinds of windows; then the view, and the newest values of its topic, are those of a view that was declared so from the beginning.

use std::time::Duration;

use broker::{Family, Offset};

use super::definitions::{done, start, stop};
use super::fill::{BY_MINUTE, Kept, produce, status, trim, until};
use super::windows::topic;
use super::*;
use crate::HistorySlot;

/// The values of the keys of a view's topic that have one.
async fn newest(broker: &Broker, view: &str) -> BTreeMap<String, String> {
    let newest: BTreeMap<String, Option<String>> = topic(broker, view).await.into_iter().collect();
    newest.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Ids of views that have state or progress.
fn ids(broker: &Broker) -> Vec<Vec<u8>> {
    let kept = |from: u8| {
        broker.store().scan(Family::State, &[from], &[from + 1]).map(|entry| entry.unwrap().0[1..5].to_vec())
    };
    let mut ids: Vec<Vec<u8>> = kept(0x03).chain(kept(0x10)).chain(kept(0x13)).chain(kept(0x14)).collect();
    ids.sort();
    ids.dedup();
    ids
}

fn replace(name: &str, query: &str) -> String {
    format!("CREATE OR REPLACE MATERIALIZED VIEW {name} {query}")
}

const JAZZ: &str = "AS SELECT genre, count(*) AS n, sum(amount) AS total FROM s WHERE genre <> 'rock' \
                    GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre";

/// A view `v`, of which the log has let most go, an engine that waits for the lake, and what the lake has.
async fn let_go(dir: &std::path::Path, views: &[&str]) -> (Arc<Broker>, Arc<Engine>, Arc<Kept>) {
    let broker = open_broker(dir).await;
    create(&broker, "events", 2).await;
    let engine = Engine::start_with(broker.clone(), config(views), HistorySlot::awaited()).await.unwrap();
    if views.is_empty() {
        done(&engine, &format!("CREATE MATERIALIZED VIEW v {BY_MINUTE}")).await;
    }
    produce(&broker, 0..200).await;
    read(&engine, "v").await;
    let kept = Arc::new(Kept::all(&broker, &engine).await.by(300));
    trim(&broker, 0, 1_234).await;
    trim(&broker, 1, 2_000).await;
    (broker, engine, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_former_version_is_served_until_the_new_one_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine, kept) = let_go(dir.path(), &[]).await;
    let before = read(&engine, "v").await;
    let former = engine.running().view("v").unwrap().follower.clone();
    let mut changes = engine.changes("v").unwrap();
    assert_eq!(done(&engine, &replace("v", JAZZ)).await, ["replaced"]);
    until(|| status(&engine, "v").successor.is_some_and(|beside| beside.fill.waits_for.is_some())).await;
    assert_eq!(read(&engine, "v").await, before);
    produce(&broker, 200..260).await;
    let grown = read(&engine, "v").await;
    assert!(grown.len() > before.len() && grown.iter().any(|row| row[2] == "rock"), "the former one goes on");
    let beside = status(&engine, "v").successor.unwrap();
    assert_eq!((beside.left, beside.rows_applied, beside.error), (5_200, 0, None));
    assert!(beside.sql.contains("<> 'rock'") && !engine.views()[0].sql.contains("<> 'rock'"));
    assert!(engine.declared_views()[0].sql.contains("<> 'rock'"));
    assert_eq!(newest(&broker, "v").await.len(), grown.len(), "the topic is the former one's");
    assert_eq!(done(&engine, &replace("v", JAZZ)).await, ["has this definition already"]);

    // A reader that looks all the time sees one or the other, whole, and never goes back.
    let watching = tokio::spawn({
        let engine = engine.clone();
        async move {
            let (mut last, mut seen) = (BTreeMap::new(), [0, 0]);
            while seen[1] < 20 {
                let answer = engine.read("v", ReadRequest { wait_ms: 5_000, ..ReadRequest::default() }).await.unwrap();
                assert!(!answer.stale);
                let rows = text(&answer);
                let sum: i64 = rows.iter().map(|row| row[3].parse::<i64>().unwrap()).sum();
                let is_new = rows.iter().all(|row| row[2] != "rock");
                // Of each ten of a batch nine are rows, of which two are rock; see `produce`.
                let offsets = answer.offsets["events"].clone();
                let all = offsets.values().sum::<i64>() / 10;
                assert_eq!(sum, all * if is_new { 7 } else { 9 }, "{offsets:?}");
                assert!(last.iter().all(|(partition, next)| offsets[partition] >= *next), "{last:?} {offsets:?}");
                assert!(is_new || seen[1] == 0, "a new one was there before");
                (last, seen[usize::from(is_new)]) = (offsets, seen[usize::from(is_new)] + 1);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            seen
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    engine.set_history(kept);
    for batch in 260..300 {
        produce(&broker, batch..batch + 1).await;
    }
    let seen = watching.await.unwrap();
    assert!(seen[0] > 0, "{seen:?}");
    assert!(
        former.stopped().is_some() && former.failed().is_none(),
        "who reads it when the other takes over is not told `stale`"
    );
    settled(&engine).await;
    done(&engine, &format!("CREATE MATERIALIZED VIEW w {JAZZ}")).await;
    assert_eq!(read(&engine, "v").await, read(&engine, "w").await);
    assert_eq!(newest(&broker, "v").await, newest(&broker, "w").await);
    assert_eq!(ids(&broker).len(), 2, "nothing is left of the former version");
    changes.mark_unchanged();
    produce(&broker, 300..301).await;
    read(&engine, "v").await;
    assert!(changes.has_changed().unwrap(), "who watches the view stays with it");
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_with_both_and_with_what_files_say() {
    let dir = tempfile::tempdir().unwrap();
    let live = format!("v {BY_MINUTE}");
    let (broker, engine, kept) = let_go(dir.path(), &[&live]).await;
    let before = read(&engine, "v").await;
    engine.stop().await;
    // Two starts with the changed file: the lake is away.
    let changed = format!("v {JAZZ}");
    for _ in 0..2 {
        let engine = Engine::start_with(broker.clone(), config(&[&changed]), HistorySlot::awaited()).await.unwrap();
        assert_eq!(read(&engine, "v").await, before);
        assert_eq!(status(&engine, "v").successor.unwrap().left, 4_000);
        assert_eq!(ids(&broker).len(), 1);
        engine.stop().await;
    }
    // As it was: nothing is filled.
    let engine = Engine::start_with(broker.clone(), config(&[&live]), HistorySlot::awaited()).await.unwrap();
    assert_eq!(read(&engine, "v").await, before);
    assert!(status(&engine, "v").successor.is_none());
    settled(&engine).await;
    engine.stop().await;
    // What is filled in parts goes on after a stop, and takes over.
    let mut starts = 0;
    loop {
        let engine = Engine::start_with(broker.clone(), config(&[&changed]), HistorySlot::awaited()).await.unwrap();
        starts += 1;
        engine.set_history(kept.clone());
        tokio::time::sleep(Duration::from_millis(5 * starts)).await;
        let seen = text(&engine.read("v", ReadRequest::default()).await.unwrap());
        let is_over = status(&engine, "v").successor.is_none();
        assert!(is_over || seen == before, "{seen:?}");
        engine.stop().await;
        if is_over {
            break;
        }
    }
    let engine = Engine::start(broker.clone(), config(&[&changed])).await.unwrap();
    settled(&engine).await;
    assert_eq!(read(&engine, "v").await.len(), 8);
    stop(broker, engine).await;
}

/// What a file may say of `v` after it said `BY_MINUTE`, and whether it has all columns that `v` had.
const OTHER_COLUMNS: [(&str, bool, &str); 7] = [
    (
        "a column more",
        true,
        "AS SELECT genre, count(*) AS n, sum(amount) AS total, max(price) AS dear FROM s \
         GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre",
    ),
    ("a column less", false, "AS SELECT genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre"),
    (
        "another name",
        false,
        "AS SELECT genre, count(*) AS n, sum(amount) AS most FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre",
    ),
    (
        "another type",
        true,
        "AS SELECT genre, count(*) AS n, avg(amount) AS total FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre",
    ),
    (
        "another key",
        true,
        "AS SELECT uid, genre, count(*) AS n, sum(amount) AS total FROM s \
         GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), uid, genre",
    ),
    ("no window", false, "AS SELECT genre, count(*) AS n, sum(amount) AS total FROM s GROUP BY genre"),
    (
        "other windows, told when they are closed",
        true,
        "AS SELECT genre, count(*) AS n, sum(amount) AS total FROM s \
         GROUP BY TUMBLE(ts, INTERVAL '30' SECOND), genre EMIT FINAL",
    ),
];

/// The former version is served with the columns that it had, until one commit makes the declared one the view.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_other_columns_serves_the_former_ones() {
    for (what, has_all, query) in OTHER_COLUMNS {
        let dir = tempfile::tempdir().unwrap();
        let live = format!("v {BY_MINUTE}");
        let (broker, engine, kept) = let_go(dir.path(), &[&live]).await;
        let (mut before, columns) = (read(&engine, "v").await, engine.views()[0].schema.clone());
        engine.stop().await;
        let changed = config(&[&format!("v {query}")]);
        for start in 0..2 {
            let engine = Engine::start_with(broker.clone(), changed.clone(), HistorySlot::awaited()).await.unwrap();
            assert_eq!((read(&engine, "v").await, &engine.views()[0].schema), (before, &columns), "{what}");
            assert!(engine.views()[0].sql.ends_with(BY_MINUTE) && engine.declared_views()[0].sql.ends_with(query));
            let filling = engine.filling("v").unwrap();
            assert_eq!(filling.view.schema, engine.declared_views()[0].schema, "{what}");
            assert!(filling.to_string().contains(&format!("{} offsets left", 4_000 + start * 200)), "{filling}");
            assert_eq!(filling.knows(&columns), has_all, "{what}");
            produce(&broker, 200 + start * 10..210 + start * 10).await;
            before = read(&engine, "v").await;
            assert_eq!(newest(&broker, "v").await.len(), before.len(), "{what}: the topic is the former one's");
            engine.stop().await;
        }
        let engine = Engine::start_with(broker.clone(), changed, HistorySlot::awaited()).await.unwrap();
        let mut changes = engine.changes("v").unwrap();
        changes.mark_unchanged();
        engine.set_history(kept);
        settled(&engine).await;
        assert!(engine.filling("v").is_none() && changes.has_changed().unwrap(), "{what}");
        done(&engine, &format!("CREATE MATERIALIZED VIEW w {query}")).await;
        assert_eq!(read(&engine, "v").await, read(&engine, "w").await, "{what}");
        assert_eq!(newest(&broker, "v").await, newest(&broker, "w").await, "{what}");
        assert_eq!(ids(&broker).len(), 2, "{what}: nothing is left of the former version");
        stop(broker, engine).await;
    }
}

type ChangesStream = fn(&mut StreamConfig);

/// What a file may say of the stream afterwards, and whether the view over it goes on without being computed anew.
const OTHER_STREAMS: [(&str, bool, ChangesStream); 6] = [
    ("a column more", true, |stream| stream.columns.push(column("more", "BIGINT", false))),
    ("two columns more", true, |stream| {
        stream.columns.extend([column("more", "BIGINT", false), column("most", "VARCHAR", false)]);
    }),
    ("one that is required", false, |stream| stream.columns.push(column("more", "BIGINT", true))),
    ("one before one that is required", false, |stream| {
        stream.columns.extend([column("more", "BIGINT", false), column("most", "VARCHAR", true)]);
    }),
    ("one among the others", false, |stream| stream.columns.insert(1, column("more", "BIGINT", false))),
    ("another check", false, |stream| stream.checks.clear()),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_columns_more_in_the_stream_goes_on_with_the_view() {
    for (what, goes_on, change) in OTHER_STREAMS {
        let dir = tempfile::tempdir().unwrap();
        let live = format!("v {BY_MINUTE}");
        let (broker, engine, kept) = let_go(dir.path(), &[&live]).await;
        let before = read(&engine, "v").await;
        engine.stop().await;
        let mut changed = config(&[&live]);
        change(&mut changed.streams[0]);
        for start in 0..2 {
            let engine = Engine::start_with(broker.clone(), changed.clone(), HistorySlot::awaited()).await.unwrap();
            assert!(engine.filling("v").is_none());
            let rows = engine.read("v", ReadRequest::default()).await.unwrap();
            assert_eq!(text(&rows) == before, goes_on, "{what} {start}");
            engine.stop().await;
        }
        if !goes_on {
            broker.stop().await.unwrap();
            continue;
        }
        // The view takes such a column as well: the former version is served until that is filled.
        let query = BY_MINUTE.replace("count(*) AS n", "count(*) AS n, max(more) AS more");
        let mut taken = config(&[&format!("v {query}")]);
        change(&mut taken.streams[0]);
        let engine = Engine::start_with(broker.clone(), taken, HistorySlot::awaited()).await.unwrap();
        assert_eq!(read(&engine, "v").await, before, "{what}");
        assert!(engine.filling("v").unwrap().view.schema.field_with_name("more").is_ok());
        append(&broker, "events", 0, &[event(1, "jazz", 1, 199_500).replace("\"uid\"", "\"more\":5,\"uid\"")]).await;
        assert_eq!(read(&engine, "v").await.len(), before.len());
        engine.set_history(kept);
        settled(&engine).await;
        done(&engine, &format!("CREATE MATERIALIZED VIEW w {query}")).await;
        let rows = read(&engine, "v").await;
        assert_eq!(rows, read(&engine, "w").await, "{what}");
        assert!(rows.iter().any(|row| row.contains(&"5".to_string())), "{what}: {rows:?}");
        assert_eq!(newest(&broker, "v").await, newest(&broker, "w").await, "{what}");
        stop(broker, engine).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_statements_while_one_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine, kept) = let_go(dir.path(), &[]).await;
    let before = read(&engine, "v").await;
    // Back to what is served: nothing is filled any more.
    done(&engine, &replace("v", JAZZ)).await;
    assert_eq!(ids(&broker).len(), 1);
    assert_eq!(done(&engine, &replace("v", BY_MINUTE)).await, ["replaced"]);
    assert!(status(&engine, "v").successor.is_none());
    settled(&engine).await;
    assert_eq!(read(&engine, "v").await, before);
    // A third definition takes the place of the second.
    done(&engine, &replace("v", JAZZ)).await;
    done(&engine, &replace("v", "AS SELECT genre, min(amount) AS least FROM s GROUP BY genre")).await;
    assert!(status(&engine, "v").successor.unwrap().sql.contains("min(amount)"));
    // The one that is served is paused: it stands still, and the other one waits.
    assert_eq!(done(&engine, "PAUSE MATERIALIZED VIEW v").await, ["paused"]);
    engine.set_history(kept);
    until(|| status(&engine, "v").successor.is_some_and(|beside| beside.left == 0)).await;
    produce(&broker, 200..210).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = engine.read("v", ReadRequest { wait_ms: 1_000, ..ReadRequest::default() }).await.unwrap();
    assert!(answer.stale && status(&engine, "v").paused);
    assert_eq!(text(&answer), before);
    assert_eq!(done(&engine, "RESUME MATERIALIZED VIEW v").await, ["resumed"]);
    settled(&engine).await;
    assert_eq!(read(&engine, "v").await, [["jazz", "0"], ["pop", "2"], ["rock", "1"]]);
    let keys: Vec<String> = newest(&broker, "v").await.into_keys().collect();
    assert_eq!(keys, [r#"{"genre":"jazz"}"#, r#"{"genre":"pop"}"#, r#"{"genre":"rock"}"#]);
    // Dropped while another one is filled: nothing is left.
    trim(&broker, 0, 2_050).await;
    done(&engine, &replace("v", JAZZ)).await;
    assert_eq!(done(&engine, "DROP MATERIALIZED VIEW v").await, ["dropped"]);
    assert!(ids(&broker).is_empty() && broker.catalog().topic("v").is_none());
    settled(&engine).await;
    stop(broker, engine).await;
}

const KINDS: [&str; 7] = [
    "AS SELECT genre, count(*) AS n FROM s GROUP BY genre",
    "AS SELECT uid, genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' SECOND), uid, genre",
    "AS SELECT uid, genre, max(amount) AS n FROM s WHERE uid % 3 <> 1 GROUP BY TUMBLE(ts, INTERVAL '1' SECOND), uid, genre \
     HAVING max(amount) % 2 = 0",
    "AS SELECT uid, genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' SECOND), uid, genre EMIT FINAL",
    "AS SELECT uid, count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '2' SECOND, INTERVAL '6' SECOND), uid",
    "AS SELECT genre, count(*) AS n FROM s GROUP BY SESSION(ts, INTERVAL '1' SECOND), genre",
    "AS SELECT uid, count(*) AS n FROM s GROUP BY SESSION(ts, INTERVAL '1' SECOND), uid EMIT FINAL",
];

/// From each kind to each other, with an end of the engine after any commit of the telling.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_takes_over_from_every_other_through_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, mut engine) = start(dir.path(), config(&[])).await;
    let mut batch = 0;
    for (number, query) in KINDS.iter().enumerate() {
        done(&engine, &format!("CREATE MATERIALIZED VIEW k{number} {query}")).await;
    }
    done(&engine, &format!("CREATE MATERIALIZED VIEW v {}", KINDS[0])).await;
    let mut at = 0;
    for turn in 0..KINDS.len() * 2 {
        let next = (at + 1 + turn % (KINDS.len() - 1)) % KINDS.len();
        let values: Vec<String> = (0..120)
            .map(|n| event(n % 40, ["a", "b", "c"][n as usize % 3], n + batch, (batch + n / 30) * 1_000))
            .collect();
        append(&broker, "events", 0, &values).await;
        batch += 4;
        read(&engine, "v").await;
        assert_eq!(done(&engine, &replace("v", KINDS[next])).await, ["replaced"], "{turn}");
        for pause in 0..2 {
            tokio::time::sleep(Duration::from_millis((turn as u64 * 7 + pause * 13) % 45)).await;
            engine.stop().await;
            engine = Engine::start(broker.clone(), config(&[])).await.unwrap();
        }
        settled(&engine).await;
        let (now, fresh) = (read(&engine, "v").await, format!("k{next}"));
        assert_eq!(now, read(&engine, &fresh).await, "{turn}: {at} to {next}");
        assert_eq!(newest(&broker, "v").await, newest(&broker, &fresh).await, "{turn}: {at} to {next}");
        assert_eq!(ids(&broker).len(), KINDS.len() + 1);
        at = next;
    }
    stop(broker, engine).await;
}

/// Where keys stay, no tombstone is written for them. No commit tells of more than a portion.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_stay_are_never_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), config(&[])).await;
    let values: Vec<String> = (0..300).map(|n| event(n, "a", n, 0)).collect();
    append(&broker, "events", 0, &values).await;
    done(&engine, "CREATE MATERIALIZED VIEW v AS SELECT uid, count(*) AS n FROM s GROUP BY uid").await;
    read(&engine, "v").await;
    let told = topic(&broker, "v").await.len();
    let partitions = broker.catalog().topic("v").unwrap().partitions();
    let ends: Vec<Offset> = partitions.iter().map(|partition| partition.high_watermark()).collect();
    done(&engine, &replace("v", "AS SELECT uid, sum(amount) AS n FROM s WHERE uid >= 100 GROUP BY uid")).await;
    settled(&engine).await;
    let after = topic(&broker, "v").await.split_off(told);
    let gone: Vec<&String> = after.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key).collect();
    assert_eq!((after.len(), gone.len()), (300, 100));
    assert!(gone.iter().all(|key| key.len() < r#"{"uid":100}"#.len()), "{gone:?}");
    let mut portions = Vec::new();
    for (partition, end) in partitions.iter().zip(ends) {
        let batches = partition.read(end, 1 << 20).await.unwrap();
        portions.extend(batches.iter().map(|batch| batch.record_count()));
    }
    assert!(portions.len() >= 6 && portions.iter().all(|records| *records <= 50), "{portions:?}");
    drop(partitions);
    stop(broker, engine).await;
}
