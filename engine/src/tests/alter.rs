//! What SQL has declared is altered while it runs.

use std::sync::atomic::{AtomicBool, Ordering};

use super::definitions::{done, start, stop, wrong};
use super::derived::values;
use super::fill::{Kept, produce, trim};
use super::*;
use crate::{HistorySlot, Kind};

const CLICKS: &str = "CREATE STREAM clicks (uid BIGINT NOT NULL, amount BIGINT, ts TIMESTAMP NOT NULL) \
     WITH (topic = 'events', event_time = 'ts', lateness = '10 seconds', idle_timeout = '0 ms')";
const OVER_IT: &str = "CREATE STREAM big AS SELECT uid, amount, ts FROM clicks WHERE amount > 4; \
     CREATE MATERIALIZED VIEW by_user AS SELECT uid, count(*) AS n, sum(amount) AS total FROM clicks GROUP BY uid; \
     CREATE MATERIALIZED VIEW by_minute AS SELECT uid, count(*) AS n FROM big GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), uid";

fn id_of(engine: &Engine, view: &str) -> u32 {
    engine.running().view(view).unwrap().view_id
}

fn columns(engine: &Engine, stream: &str) -> Vec<String> {
    let stream = engine.streams().into_iter().find(|known| known.name() == stream).unwrap();
    stream.schema().fields().iter().map(|field| field.name().clone()).filter(|name| !name.starts_with('_')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_added_and_nothing_is_counted_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), config(&[])).await;
    done(&engine, &format!("{CLICKS}; {OVER_IT}")).await;
    append(&broker, "events", 0, &[event(1, "jazz", 5, 0), event(2, "pop", 3, 1), event(1, "pop", 9, 2)]).await;
    assert_eq!(read(&engine, "by_user").await, [["1", "2", "14"], ["2", "1", "3"]]);
    read(&engine, "by_minute").await;
    let names: Vec<String> = engine.streams().iter().map(|stream| stream.name().to_string()).collect();
    let ids = ["by_user", "by_minute"].map(|view| id_of(&engine, view));
    let alter = "ALTER STREAM clicks ADD COLUMN genre VARCHAR, ADD cost DOUBLE FROM 'price'";
    assert_eq!(done(&engine, alter).await, ["altered"]);
    assert_eq!(columns(&engine, "clicks"), ["uid", "amount", "ts", "genre", "cost"]);
    assert_eq!(columns(&engine, "big"), ["uid", "amount", "ts"]);
    let after: Vec<String> = engine.streams().iter().map(|stream| stream.name().to_string()).collect();
    assert_eq!(after, names, "in the order of before");
    assert_eq!(read(&engine, "by_user").await, [["1", "2", "14"], ["2", "1", "3"]]);
    append(&broker, "events", 0, &[event(2, "jazz", 7, 3)]).await;
    assert_eq!(read(&engine, "by_user").await, [["1", "2", "14"], ["2", "2", "10"]]);
    // What uses the new columns has them of the whole log.
    let by_genre = "CREATE MATERIALIZED VIEW by_genre AS SELECT genre, count(*) AS n, sum(cost) AS cost FROM clicks GROUP BY genre";
    done(&engine, by_genre).await;
    let genres = [["jazz", "2", "1.0"], ["pop", "2", "1.0"]];
    assert_eq!(read(&engine, "by_genre").await, genres);
    let minutes = read(&engine, "by_minute").await;
    assert_eq!(minutes.iter().map(|row| row[3].as_str()).collect::<Vec<_>>(), ["2", "1"]);
    assert_eq!(values(&broker, "big").await.len(), 3, "each row once");
    let genre_id = id_of(&engine, "by_genre");
    assert_eq!(done(&engine, "ALTER STREAM clicks ADD (place VARCHAR, floor BIGINT)").await, ["altered"]);
    assert_eq!(id_of(&engine, "by_genre"), genre_id, "a column that it does not use");
    assert_eq!(["by_user", "by_minute"].map(|view| id_of(&engine, view)), ids, "their state goes on");
    stop(broker, engine).await;

    let (broker, engine) = start(dir.path(), config(&[])).await;
    assert_eq!(["by_user", "by_minute"].map(|view| id_of(&engine, view)), ids, "after a start as well");
    assert_eq!(columns(&engine, "clicks"), ["uid", "amount", "ts", "genre", "cost", "place", "floor"]);
    append(&broker, "events", 0, &[event(1, "jazz", 6, 4)]).await;
    assert_eq!(read(&engine, "by_user").await, [["1", "3", "20"], ["2", "2", "10"]]);
    assert_eq!(read(&engine, "by_genre").await, [["jazz", "3", "1.5"], ["pop", "2", "1.0"]]);
    let text = engine.declared_by_sql(Kind::Stream, "clicks").unwrap();
    assert!(text.contains(r#", "genre" VARCHAR ADDED, "cost" DOUBLE FROM 'price' ADDED"#), "{text}");
    done(&engine, "DROP MATERIALIZED VIEW by_genre; DROP MATERIALIZED VIEW by_user; DROP MATERIALIZED VIEW by_minute")
        .await;
    done(&engine, "DROP STREAM big; DROP STREAM clicks").await;
    stop(broker, engine).await;
}

/// A reader never sees less than before, and never waits for what has gone, while settings change under a writer.
#[tokio::test(flavor = "multi_thread")]
async fn settings_are_altered_under_writers_and_readers() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), config(&[])).await;
    done(&engine, &format!("{CLICKS}; {OVER_IT}")).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (engine, is_over) = (engine.clone(), is_over.clone());
        async move {
            let (mut last, mut reads) = (0, 0);
            while !is_over.load(Ordering::SeqCst) {
                let counts = |rows: Vec<Vec<String>>, at: usize| -> i64 {
                    rows.iter().map(|row| row[at].parse::<i64>().unwrap()).sum()
                };
                let now = counts(read(&engine, "by_user").await, 1);
                assert!(now >= last, "{now} after {last}");
                counts(read(&engine, "by_minute").await, 3);
                engine.wait_fresh("big", 20_000).await.unwrap();
                (last, reads) = (now, reads + 1);
            }
            reads
        }
    });
    for round in 0..40_i64 {
        append(&broker, "events", 0, &(0..20).map(|n| event(n % 5, "jazz", n % 9, round * 100)).collect::<Vec<_>>())
            .await;
        if round % 2 == 0 {
            let stream = if round % 4 == 0 { "clicks" } else { "big" };
            let alter =
                format!("ALTER STREAM {stream} SET (lateness = '{} seconds', idle_timeout = '0 ms')", 10 + round);
            assert_eq!(done(&engine, &alter).await, ["altered"]);
            let lateness =
                |name: &str| engine.streams().iter().find(|known| known.name() == name).unwrap().config().lateness_ms;
            assert_eq!(lateness(stream), (10 + round) * 1_000);
        }
    }
    let total = |rows: Vec<Vec<String>>, at: usize| rows.iter().map(|row| row[at].parse::<i64>().unwrap()).sum::<i64>();
    assert_eq!(total(read(&engine, "by_user").await, 1), 800);
    let big = 40 * (0..20).filter(|n| n % 9 > 4).count() as i64;
    assert_eq!(total(read(&engine, "by_minute").await, 3), big);
    assert_eq!(values(&broker, "big").await.len() as i64, big);
    is_over.store(true, Ordering::SeqCst);
    assert!(reader.await.unwrap() > 0);
    // The new lateness holds: what is closed by the former one stays closed, what comes now is judged by the new one.
    done(&engine, "ALTER STREAM big SET (lateness = '1 second')").await;
    append(&broker, "events", 0, &[event(9, "jazz", 8, 600_000)]).await;
    read(&engine, "by_minute").await;
    done(&engine, "ALTER STREAM big SET (lateness = '1 hour')").await;
    for at_ms in [700_000, 610_000, 3] {
        append(&broker, "events", 0, &[event(9, "jazz", 8, at_ms)]).await;
        read(&engine, "by_minute").await;
    }
    let rows = read(&engine, "by_minute").await;
    let of_nine: Vec<&str> = rows.iter().filter(|row| row[2] == "9").map(|row| row[3].as_str()).collect();
    assert_eq!((of_nine, records(&broker, "by_minute.late").await.len()), (vec!["2", "1"], 1), "{rows:?}");
    stop(broker, engine).await;
}

/// Who waits for a derived stream, or for a view over it, goes on with what takes their places.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_stays_with_what_is_altered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    let engine = Engine::start_with(broker.clone(), config(&[]), HistorySlot::awaited()).await.unwrap();
    done(&engine, CLICKS).await;
    produce(&broker, 0..200).await;
    let kept = Kept::of(&broker, &engine, "clicks").await;
    trim(&broker, 0, 2_000).await;
    trim(&broker, 1, 2_000).await;
    let over_it = "CREATE STREAM big AS SELECT uid, amount, ts FROM clicks WHERE amount > 4; \
                   CREATE MATERIALIZED VIEW by_user AS SELECT uid, count(*) AS n FROM big GROUP BY uid";
    done(&engine, over_it).await;
    let waiting = ["big", "by_user"].map(|name| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.wait_fresh(name, 20_000).await })
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "they wait for the lake");
    assert_eq!(done(&engine, "ALTER STREAM clicks ADD COLUMN genre VARCHAR").await, ["altered"]);
    engine.set_history(Arc::new(kept));
    for waited in waiting {
        waited.await.unwrap().unwrap();
    }
    let counted: i64 = read(&engine, "by_user").await.iter().map(|row| row[1].parse::<i64>().unwrap()).sum();
    // See `produce`: of each batch nine of ten events are good, the amount is that of the batch and their number.
    let good = (0..200_i64).flat_map(|batch| (0..10).filter(|n| *n != 7).map(move |n| batch + n));
    assert_eq!(counted, 2 * good.filter(|amount| *amount > 4).count() as i64);
    assert_eq!(values(&broker, "big").await.len() as i64, counted);
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_altered_as_if_it_was_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), config(&[])).await;
    let view = "CREATE MATERIALIZED VIEW v WITH (retention = '1 hour') AS SELECT genre, count(*) AS n FROM s \
                GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre";
    done(&engine, view).await;
    append(&broker, "events", 0, &[event(1, "jazz", 5, 0), event(2, "pop", 3, 1)]).await;
    assert_eq!(read(&engine, "v").await.len(), 2);
    let id = id_of(&engine, "v");
    assert_eq!(done(&engine, "ALTER MATERIALIZED VIEW v SET (retention = '7 days')").await, ["altered"]);
    assert_eq!((engine.running().view("v").unwrap().plan.retention_ms, id_of(&engine, "v")), (Some(604_800_000), id));
    assert_eq!(read(&engine, "v").await.len(), 2);
    assert_eq!(
        done(&engine, "ALTER MATERIALIZED VIEW v SET (retention = '7 d')").await,
        ["has this definition already"]
    );
    let alter = "ALTER MATERIALIZED VIEW v AS SELECT uid, max(amount) AS most FROM s\nGROUP BY TUMBLE(ts, INTERVAL '1' HOUR), uid EMIT FINAL";
    assert_eq!(done(&engine, alter).await, ["altered"]);
    settled(&engine).await;
    let rows: Vec<_> = read(&engine, "v").await.into_iter().map(|row| row[2..].to_vec()).collect();
    assert_eq!(rows, [["1", "5"], ["2", "3"]]);
    stop(broker, engine).await;
    let (broker, engine) = start(dir.path(), config(&[])).await;
    let rows: Vec<_> = read(&engine, "v").await.into_iter().map(|row| row[2..].to_vec()).collect();
    assert_eq!(rows, [["1", "5"], ["2", "3"]]);
    let text = engine.declared_by_sql(Kind::View, "v").unwrap();
    assert!(
        text.starts_with("CREATE MATERIALIZED VIEW v WITH (retention = '7 days') AS SELECT uid")
            && text.ends_with("EMIT FINAL"),
        "{text}"
    );
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_altered_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), config(&["held AS SELECT count(*) AS n FROM s"])).await;
    let script = format!(
        "{CLICKS}; {OVER_IT}; CREATE STREAM every AS SELECT * FROM clicks; CREATE TABLE t (uid BIGINT PRIMARY KEY); \
         CREATE STREAM once WITH (deduplicate_by = 'uid', deduplicate_within = '1 s') AS SELECT uid, ts FROM s; \
         CREATE STREAM plays (uid BIGINT NOT NULL, ts TIMESTAMP) WITH (topic = 'plays', event_time = 'ts'); \
         CREATE STREAM pairs AS SELECT a.uid, b.uid AS other, a.ts FROM plays a JOIN s b WITHIN 1 MINUTE ON a.uid = b.uid"
    );
    done(&engine, &script).await;
    let cases = [
        ("ALTER STREAM s ADD COLUMN x BIGINT", 14, "is declared in the configuration"),
        ("ALTER STREAM click ADD COLUMN x BIGINT", 14, "did you mean 'clicks'"),
        ("ALTER STREAM by_user ADD COLUMN x BIGINT", 14, "write ALTER MATERIALIZED VIEW by_user"),
        ("ALTER STREAM clicks ADD COLUMN x BIGINT", 1, "stream 'every' takes all columns"),
        ("ALTER STREAM big ADD COLUMN x BIGINT", 14, "the columns of its SELECT"),
        ("ALTER STREAM plays ADD COLUMN x BIGINT", 1, "stream 'pairs' joins it"),
        ("ALTER STREAM clicks ADD COLUMN uid BIGINT", 32, "uid"),
        ("ALTER STREAM plays ADD COLUMN x BIGINT NOT NULL", 44, "may be null"),
        ("ALTER STREAM clicks ADD COLUMN x BIGNIT", 32, "BIGNIT"),
        ("ALTER STREAM plays ADD x BIGINT, y BIGINT", 34, "ADD"),
        ("ALTER STREAM plays\n  RENAME TO p", 3, "CREATE another one"),
        ("ALTER STREAM plays DROP COLUMN uid", 20, "not changed or taken away"),
        ("ALTER STREAM big AS SELECT 1", 18, "cannot be altered"),
        ("ALTER STREAM plays SET (latenes = '1 s')", 25, "did you mean 'lateness'"),
        ("ALTER STREAM plays SET (topic = 'x')", 25, "DROP it, then CREATE it"),
        ("ALTER STREAM plays SET (lateness = 'soon')", 36, "not a length of time"),
        ("ALTER STREAM plays SET ()", 20, "no settings"),
        ("ALTER STREAM once SET (lateness = '1 s')", 14, "deduplicate_by"),
        ("ALTER TABLE t SET (topic = 'x')", 20, "DROP it"),
        ("ALTER TABLE t ADD COLUMN x BIGINT", 15, "DROP TABLE"),
        ("ALTER MATERIALIZED VIEW by_user SET (retention = '1 d')", 1, "needs a window"),
        ("ALTER MATERIALIZED VIEW by_user ADD COLUMN x BIGINT", 33, "AS SELECT"),
        ("ALTER MATERIALIZED VIEW by_user AS SELECT uid, count(*) AS n FROM clix GROUP BY uid", 67, "no stream 'clix'"),
        ("ALTER MATERIALIZED VIEW held AS SELECT 1", 25, "is declared in the configuration"),
        ("ALTER VIEW by_user AS SELECT 1", 7, "MATERIALIZED VIEW"),
    ];
    let mut otherwise = Vec::new();
    for (text, column, expected) in cases {
        let found = wrong(&engine, text).await;
        let is_it = found.iter().any(|mistake| mistake.message.contains(expected) && mistake.column == column);
        otherwise.extend((!is_it).then(|| format!("{text}: {column} {expected}: {found:?}")));
    }
    assert!(otherwise.is_empty(), "{otherwise:#?}");
    assert_eq!(done(&engine, "ALTER STREAM IF EXISTS absent SET (lateness = '1 s')").await, ["does not exist"]);
    // Nothing of a script is done when something in it is wrong.
    let half = "ALTER STREAM plays SET (lateness = '3 hours'); ALTER STREAM big SET (lateness = 'soon')";
    assert_eq!(wrong(&engine, half).await.len(), 1);
    assert!(engine.streams().iter().all(|stream| stream.config().lateness_ms != 10_800_000));
    done(&engine, "PAUSE MATERIALIZED VIEW by_minute").await;
    let found = wrong(&engine, "ALTER STREAM clicks SET (lateness = '1 s')").await;
    assert!(found[0].message.contains("RESUME it first"), "{found:?}");
    stop(broker, engine).await;
}
