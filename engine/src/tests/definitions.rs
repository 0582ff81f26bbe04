//! What SQL declares while the engine runs.

use std::sync::Arc;

use broker::{Ack, Append, BatchBuilder, Broker, Change as StoreChange, Family, Origin};

use super::{BASE_MS, append, config, create, event, open_broker, read, settled};
use crate::definitions::{Definition, State};
use crate::{Command, Done, Engine, EngineConfig, ErrorKind, Mistake, ReadRequest, Surroundings, TableConfig, command};

/// Applies a script, as if nobody else were there but a panel that reads `watched`.
async fn run(engine: &Arc<Engine>, text: &str) -> Result<Vec<Done>, Vec<Mistake>> {
    let Some(Command::Change(script)) = command(text)? else { panic!("{text} changes nothing") };
    let turn = engine.turn().await;
    let change = {
        let taken = |name: &str| (name == "report").then(|| "the transform report".to_string());
        let readers = |name: &str| if name == "watched" { vec!["panel \"Plays\"".to_string()] } else { Vec::new() };
        turn.decide(&script, &Surroundings { taken: &taken, readers: &readers })?
    };
    Ok(change.apply().await.unwrap())
}

async fn explain(engine: &Arc<Engine>, text: &str) -> Result<Vec<(&'static str, String)>, Vec<Mistake>> {
    let Some(Command::ExplainNew(script)) = command(&format!("EXPLAIN {text}"))? else { panic!("{text} is no view") };
    let turn = engine.turn().await;
    let (taken, readers) = (|_: &str| None, |_: &str| Vec::new());
    turn.decide(&script, &Surroundings { taken: &taken, readers: &readers }).map(|change| change.explain())
}

pub(super) async fn done(engine: &Arc<Engine>, text: &str) -> Vec<&'static str> {
    run(engine, text).await.unwrap_or_else(|wrong| panic!("{text}: {wrong:?}")).iter().map(|done| done.result).collect()
}

/// What is wrong with a script, which is not applied.
pub(super) async fn wrong(engine: &Arc<Engine>, text: &str) -> Vec<Mistake> {
    run(engine, text).await.err().unwrap_or_else(|| panic!("{text} is taken"))
}

pub(super) async fn start(dir: &std::path::Path, config: EngineConfig) -> (Arc<Broker>, Arc<Engine>) {
    let broker = open_broker(dir).await;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    (broker, engine)
}

pub(super) async fn stop(broker: Arc<Broker>, engine: Arc<Engine>) {
    engine.stop().await;
    drop(engine);
    broker.stop().await.unwrap();
}

/// Keys of the engine that hold a name.
pub(super) fn rows_of(broker: &Broker, name: &str) -> usize {
    let snapshot = broker.store().snapshot();
    let mut scan = snapshot.scan(Family::State, &[], &[0xff]);
    let mut found = 0;
    while let Some(entry) = scan.next_ref() {
        let (key, _) = entry.unwrap();
        found += usize::from(key.windows(name.len()).any(|part| part == name.as_bytes()));
    }
    found
}

const BY_GENRE: &str =
    "CREATE MATERIALIZED VIEW by_genre AS SELECT genre, count(*) AS n, sum(amount) AS total FROM s GROUP BY genre";

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_filled_follows_survives_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), config(&["all_of_it AS SELECT count(*) AS n FROM s"])).await;
    append(&broker, "events", 0, &[event(1, "rock", 5, 0), event(2, "jazz", 7, 10)]).await;
    assert_eq!(read(&engine, "all_of_it").await, [["2"]]);
    assert_eq!(done(&engine, BY_GENRE).await, ["created"]);
    assert_eq!(read(&engine, "by_genre").await, [["jazz", "1", "7"], ["rock", "1", "5"]]);
    append(&broker, "events", 0, &[event(1, "rock", 1, 20)]).await;
    assert_eq!(read(&engine, "by_genre").await, [["jazz", "1", "7"], ["rock", "2", "6"]]);
    assert!(engine.declared_in("by_genre").unwrap().starts_with("SQL at 2026-11-20T10:00:00Z"));
    assert_eq!(done(&engine, &BY_GENRE.replace("VIEW", "VIEW IF NOT EXISTS")).await, ["exists already"]);
    stop(broker, engine).await;

    let (broker, engine) = start(dir.path(), config(&["all_of_it AS SELECT count(*) AS n FROM s"])).await;
    append(&broker, "events", 0, &[event(1, "rock", 1, 30)]).await;
    assert_eq!(read(&engine, "by_genre").await, [["jazz", "1", "7"], ["rock", "3", "7"]]);
    assert!(engine.sql_names().contains(&"by_genre".to_string()));
    // It shares the reading of the other one now, and leaves it alone.
    assert_eq!(done(&engine, "DROP MATERIALIZED VIEW by_genre").await, ["dropped"]);
    assert_eq!(engine.read("by_genre", ReadRequest::default()).await.unwrap_err().kind, ErrorKind::Unknown);
    assert_eq!(rows_of(&broker, "by_genre"), 0);
    assert!(broker.catalog().topic("by_genre").is_none() && broker.catalog().topic("by_genre.late").is_none());
    append(&broker, "events", 0, &[event(1, "rock", 1, 40)]).await;
    assert_eq!(read(&engine, "all_of_it").await, [["5"]]);
    assert_eq!(done(&engine, "DROP MATERIALIZED VIEW IF EXISTS by_genre").await, ["does not exist"]);
    assert_eq!(done(&engine, BY_GENRE).await, ["created"]);
    assert_eq!(read(&engine, "by_genre").await, [["jazz", "1", "7"], ["rock", "4", "8"]]);
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_view_is_filled_anew_and_a_paused_one_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), config(&[])).await;
    append(&broker, "events", 0, &[event(1, "rock", 5, 0), event(2, "jazz", 7, 10)]).await;
    assert_eq!(done(&engine, BY_GENRE).await, ["created"]);
    read(&engine, "by_genre").await;
    let other =
        "CREATE OR REPLACE MATERIALIZED VIEW by_genre AS SELECT genre, max(amount) AS most FROM s GROUP BY genre";
    assert_eq!(done(&engine, other).await, ["replaced"]);
    settled(&engine).await;
    assert_eq!(read(&engine, "by_genre").await, [["jazz", "7"], ["rock", "5"]]);
    assert_eq!(done(&engine, other).await, ["has this definition already"]);

    assert_eq!(done(&engine, "PAUSE MATERIALIZED VIEW by_genre").await, ["paused"]);
    append(&broker, "events", 0, &[event(1, "rock", 9, 20)]).await;
    let answer = engine.read("by_genre", ReadRequest { wait_ms: 20_000, ..ReadRequest::default() }).await.unwrap();
    assert!(answer.stale);
    assert_eq!(super::text(&answer), [["jazz", "7"], ["rock", "5"]]);
    let status = engine.status().remove(0);
    assert!(status.paused && status.error.is_none() && status.lag_records == 1, "{status:?}");
    let log = broker.catalog().topic("events").unwrap().partition(0).unwrap().id();
    assert_eq!(done(&engine, "PAUSE MATERIALIZED VIEW by_genre").await, ["is paused already"]);
    stop(broker, engine).await;

    let (broker, engine) = start(dir.path(), config(&[])).await;
    assert!(engine.status()[0].paused);
    // The stream itself has read all; what the view has not is held.
    engine.wait_fresh("data_quality", 20_000).await.unwrap();
    assert_eq!(broker.holds().floor(log), Some(2));
    assert_eq!(done(&engine, "RESUME MATERIALIZED VIEW by_genre").await, ["resumed"]);
    assert_eq!(read(&engine, "by_genre").await, [["jazz", "7"], ["rock", "9"]]);
    assert_eq!(broker.holds().floor(log), Some(3));
    assert_eq!(done(&engine, "PAUSE MATERIALIZED VIEW by_genre").await, ["paused"]);
    append(&broker, "events", 0, &[event(1, "rock", 11, 20)]).await;
    engine.wait_fresh("data_quality", 20_000).await.unwrap();
    assert_eq!(broker.holds().floor(log), Some(3));
    assert_eq!(done(&engine, "DROP MATERIALIZED VIEW by_genre").await, ["dropped"]);
    assert_eq!(broker.holds().floor(log), Some(4), "a dropped view keeps nothing");
    stop(broker, engine).await;
}

const SCRIPT: &str = "
    CREATE TABLE users (user_id BIGINT PRIMARY KEY, segment VARCHAR) WITH (topic = 'people');
    CREATE STREAM IF NOT EXISTS plays (user_id BIGINT NOT NULL, ms BIGINT FROM 'length.ms', ts TIMESTAMP,
        CONSTRAINT ms_positive CHECK (ms > 0)) WITH (topic = 'raw', event_time = 'ts', lateness = '5 seconds');
    CREATE STREAM enriched WITH (key = 'user_id') AS
        SELECT p.*, u.segment FROM plays p LEFT JOIN users u ON p.user_id = u.user_id;
    CREATE MATERIALIZED VIEW by_segment WITH (retention = '7 days') AS
        SELECT segment, sum(ms) AS ms FROM enriched GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), segment;";

fn play(user: i64, ms: i64) -> String {
    format!(r#"{{"user_id":{user},"length":{{"ms":{ms}}},"ts":{BASE_MS}}}"#)
}

/// Segments and their sums.
async fn lengths(engine: &Engine) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> =
        read(engine, "by_segment").await.into_iter().map(|row| (row[2].clone(), row[3].clone())).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_declares_a_chain_that_is_dropped_from_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), EngineConfig::default()).await;
    create(&broker, "people", 1).await;
    let mut person = BatchBuilder::new();
    person.push(BASE_MS, Some(b"1"), Some(br#"{"user_id":1,"segment":"gold"}"#), &[]);
    let partition = broker.catalog().topic("people").unwrap().partition(0).unwrap();
    let person = Append { partition, batch: person.build().unwrap(), origin: Origin::Internal };
    broker.lane().commit(vec![StoreChange::Append(person)], Ack::Durable).await.unwrap();
    assert_eq!(done(&engine, SCRIPT).await, ["created"; 4]);
    append(&broker, "raw", 0, &[play(1, 30), play(2, 4), play(1, -1)]).await;
    assert_eq!(lengths(&engine).await, [("gold".into(), "30".into()), ("∅".into(), "4".into())]);
    // What is counted is told a moment after the commit that the view has read.
    for _ in 0..500 {
        if engine.stream_status()[0].rejected > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(engine.stream_status()[0].rejected_by_rule["ms_positive"], 1);
    assert_eq!(engine.streams()[0].config().lateness_ms, 5_000);
    assert_eq!(engine.tables()[0].rows, 1);
    stop(broker, engine).await;

    let (broker, engine) = start(dir.path(), EngineConfig::default()).await;
    append(&broker, "raw", 0, &[play(1, 30)]).await;
    assert_eq!(lengths(&engine).await, [("gold".into(), "60".into()), ("∅".into(), "4".into())]);
    for (statement, reader) in [
        ("DROP STREAM plays", "stream enriched"),
        ("DROP TABLE users", "stream enriched"),
        ("DROP STREAM enriched", "view by_segment"),
    ] {
        let wrong = run(&engine, statement).await.unwrap_err();
        assert!(wrong[0].message.contains(&format!("read by {reader}")), "{wrong:?}");
    }
    let all = "DROP MATERIALIZED VIEW by_segment; DROP STREAM enriched; DROP STREAM plays; DROP TABLE users";
    assert_eq!(done(&engine, all).await, ["dropped"; 4]);
    assert!(engine.streams().is_empty() && engine.views().is_empty() && engine.tables().is_empty());
    for name in ["by_segment", "enriched", "plays", "users"] {
        assert_eq!(rows_of(&broker, name), 0, "{name}");
        assert!(broker.catalog().topic(name).is_none(), "{name}");
        assert!(broker.catalog().topic(&format!("{name}.rejected")).is_none(), "{name}");
    }
    assert!(broker.catalog().topic("raw").is_some() && broker.catalog().topic("people").is_some());
    let log = broker.catalog().topic("raw").unwrap().partition(0).unwrap().id();
    assert_eq!(broker.holds().floor(log), None);
    assert_eq!(done(&engine, SCRIPT).await, ["created"; 4]);
    assert_eq!(lengths(&engine).await[0].1, "60", "the log is still there");
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_at_once_and_nothing_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = config(&["of_file AS SELECT count(*) AS n FROM s"]);
    files.views[0].source = "music.toml:12".into();
    files.tables.push(TableConfig {
        name: "users".into(),
        key: "id".into(),
        columns: vec![super::column("id", "BIGINT", false)],
        source: "music.toml:20".into(),
        ..TableConfig::default()
    });
    let (broker, engine) = start(dir.path(), files).await;
    create(&broker, "foreign", 1).await;
    done(&engine, "CREATE MATERIALIZED VIEW watched AS SELECT count(*) AS n FROM s").await;
    let view = "CREATE MATERIALIZED VIEW v AS SELECT";
    let cases = [
        ("CREATE STREAM", "1:8 identifier"),
        ("CREATE STREAM a.b (ts TIMESTAMP) WITH (event_time = 'ts')", "1:15 one part"),
        ("CREATE STREAM x (ts TIMESTAMP)", "1:30 event_time is missing"),
        ("CREATE STREAM x (ts TIMESTAMP) WITH (event_time = 'tss')", "1:51 did you mean 'ts'"),
        ("CREATE STREAM x (ts TIMESTAMP) WITH (event_time = 'ts', latenes = '1 s')", "1:57 did you mean 'lateness'"),
        ("CREATE STREAM x (ts TIMESTAMP) WITH (event_time = 'ts', lateness = 'soon')", "1:57 '10 seconds'"),
        ("CREATE STREAM x (ts TIMESTAMP) WITH (event_time = 'ts', format = 'xml')", "1:57 json, avro, json_schema"),
        (
            "CREATE STREAM x (ts TIMESTAMP) WITH (event_time = 'ts', delimiter = '|')",
            "1:57 delimiter goes with format = 'csv'",
        ),
        (
            "CREATE STREAM x (ts TIMESTAMP) WITH (event_time = 'ts', format = 'csv', delimiter = '||')",
            "1:73 one character",
        ),
        ("CREATE STREAM x (ts TIMESTAMP FROM 'a') WITH (event_time = 'ts', format = 'csv')", "leave FROM out"),
        ("CREATE STREAM x (ts TIMESTAMP, n FLOAT) WITH (event_time = 'ts')", "1:32 unknown type 'FLOAT'"),
        ("CREATE STREAM x (ts TIMESTAMP PRIMARY KEY) WITH (event_time = 'ts')", "1:18 CREATE TABLE"),
        ("CREATE OR REPLACE STREAM x (ts TIMESTAMP) WITH (event_time = 'ts')", "1:8 DROP the stream"),
        ("CREATE STREAM x AS SELECT * FROM nowhere", "1:34 no stream 'nowhere'"),
        ("CREATE STREAM foreign AS SELECT * FROM s", "1:15 a topic 'foreign' exists"),
        ("CREATE STREAM s (ts TIMESTAMP) WITH (event_time = 'ts')", "1:15 stream 's' exists already"),
        ("CREATE STREAM data_quality (ts TIMESTAMP) WITH (event_time = 'ts')", "engine's own table"),
        ("CREATE TABLE t (id BIGINT)", "1:26 key is missing"),
        ("CREATE TABLE t (id DOUBLE PRIMARY KEY)", "1:17 does not compare exactly"),
        ("CREATE TABLE of_file (id BIGINT PRIMARY KEY)", "1:14 'of_file' is a view already"),
        ("CREATE VIEW v AS SELECT 1", "1:8 MATERIALIZED VIEW"),
        (&format!("{view} count(*) AS n FROM"), "1:"),
        (&format!("{view} count(*) AS n FROM lissens"), "1:57 no stream 'lissens'"),
        (&format!("{view} count(*) AS n\n FROM s WHERE gerne = 'x'"), "2:15 gerne"),
        (&format!("{view} count(*) AS n FROM s ORDER BY n"), "ORDER BY"),
        ("CREATE MATERIALIZED VIEW report AS SELECT count(*) AS n FROM s", "1:26 the transform report"),
        ("CREATE MATERIALIZED VIEW foreign AS SELECT count(*) AS n FROM s", "1:26 a topic 'foreign' exists"),
        ("CREATE MATERIALIZED VIEW watched AS SELECT count(*) AS n FROM s", "1:26 OR REPLACE"),
        ("CREATE MATERIALIZED VIEW of_file AS SELECT count(*) AS n FROM s", "1:26 declared in music.toml:12"),
        ("CREATE OR REPLACE MATERIALIZED VIEW of_file AS SELECT count(*) AS n FROM s", "1:37 music.toml:12"),
        ("DROP MATERIALIZED VIEW of_file", "1:24 music.toml:12"),
        ("DROP TABLE users", "1:12 music.toml:20"),
        ("DROP STREAM users", "1:13 write DROP TABLE users"),
        ("DROP MATERIALIZED VIEW wached", "1:24 did you mean 'watched'"),
        ("DROP MATERIALIZED VIEW watched", "1:24 panel \"Plays\""),
        ("PAUSE MATERIALIZED VIEW of_file", "1:25 cannot pause"),
        ("RESUME MATERIALIZED VIEW s", "1:26 only views"),
        ("DROP STREAM s; SELECT 1", "1:16 a script has nothing else"),
        ("DROP STREAM a b", "1:15 the end of the statement"),
    ];
    let mut differ = Vec::new();
    for (statement, expected) in cases {
        let wrong = run(&engine, statement).await.err().unwrap_or_default();
        let told: Vec<String> =
            wrong.iter().map(|wrong| format!("{}:{} {}", wrong.line, wrong.column, wrong.message)).collect();
        let (place, text) = expected.split_once(' ').filter(|(place, _)| place.contains(':')).unwrap_or(("", expected));
        let found = told.iter().any(|told| told.starts_with(place) && told.contains(text));
        if !found {
            differ.push(format!("{statement}: expected {expected}, got {told:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    let two = "CREATE STREAM good (ts TIMESTAMP) WITH (event_time = 'ts');\nDROP TABLE users;\nDROP STREAM nothing";
    let wrong = run(&engine, two).await.unwrap_err();
    assert_eq!(wrong.iter().map(|wrong| wrong.line).collect::<Vec<_>>(), [2, 3], "{wrong:?}");
    assert!(engine.streams().iter().all(|stream| stream.name() != "good"));
    assert_eq!(rows_of(&broker, "good"), 0);
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_explained_is_checked_and_not_declared() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), config(&[])).await;
    let steps = explain(&engine, BY_GENRE).await.unwrap();
    assert!(steps[0].1.contains("topic events as stream s, in a reading of its own"), "{steps:?}");
    let wrong = explain(&engine, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM lissens").await.unwrap_err();
    assert_eq!((wrong[0].column, wrong[0].message.contains("no stream 'lissens'")), (65, true), "{wrong:?}");
    assert!(engine.views().is_empty());
    assert_eq!(rows_of(&broker, "by_genre"), 0);
    assert!(broker.catalog().topic("by_genre").is_none());
    done(&engine, BY_GENRE).await;
    // It is computed as was said.
    assert_eq!(engine.explain("by_genre").unwrap()[1..], steps[1..]);
    let again = BY_GENRE.replace("VIEW", "VIEW IF NOT EXISTS");
    let nothing = [("nothing to do", "view by_genre exists already".to_string())];
    assert_eq!(explain(&engine, &again).await.unwrap(), nothing);
    let other = BY_GENRE.replace("CREATE", "CREATE OR REPLACE").replace("count(*)", "count(uid)");
    let steps = explain(&engine, &other).await.unwrap();
    assert!(steps.iter().any(|(step, what)| *step == "decode" && what.contains("uid")), "{steps:?}");
    let steps = engine.explain("by_genre").unwrap();
    assert!(!steps.iter().any(|(step, what)| *step == "decode" && what.contains("uid")), "{steps:?}");
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_ends_what_a_crash_left_and_refuses_a_name_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), config(&[])).await;
    append(&broker, "events", 0, &[event(1, "rock", 5, 0)]).await;
    done(&engine, BY_GENRE).await;
    read(&engine, "by_genre").await;
    let key = b"\x09\x02by_genre".to_vec();
    let stored = broker.store().get(Family::State, &key).unwrap().unwrap();
    stop(broker, engine).await;

    // The same name in a file.
    let both = config(&["by_genre AS SELECT count(*) AS n FROM s"]);
    let broker = open_broker(dir.path()).await;
    let error = Engine::start(broker.clone(), both).await.err().unwrap();
    assert!(error.message.contains("view by_genre was declared by SQL") && error.message.contains("DROP"), "{error}");
    // A drop that had only begun.
    let leaving = Definition { state: State::Leaving, ..Definition::decode(&stored).unwrap() };
    let change = StoreChange::Put(Family::State, key, leaving.encode());
    broker.lane().commit(vec![change], Ack::Durable).await.unwrap();
    broker.stop().await.unwrap();
    drop(broker);

    let (broker, engine) = start(dir.path(), config(&[])).await;
    assert!(engine.views().is_empty());
    assert_eq!(rows_of(&broker, "by_genre"), 0);
    assert!(broker.catalog().topic("by_genre").is_none());
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_a_views_topic_waits_for_the_view() {
    let dir = tempfile::tempdir().unwrap();
    let files = config(&["per_minute AS SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)"]);
    let (broker, engine) = start(dir.path(), files).await;
    append(&broker, "events", 0, &[event(1, "rock", 5, 0)]).await;
    let script = "CREATE STREAM minutes (begins TIMESTAMP FROM 'window_start', n BIGINT)
            WITH (topic = 'per_minute', event_time = 'begins', idle_timeout = '0 s');
        CREATE MATERIALIZED VIEW most AS SELECT max(n) AS n FROM minutes";
    assert_eq!(done(&engine, script).await, ["created", "created"]);
    for n in 2..20 {
        append(&broker, "events", 0, &[event(1, "rock", 5, n)]).await;
        assert_eq!(read(&engine, "most").await, [[n.to_string()]]);
    }
    let wrong = run(&engine, "CREATE STREAM per_minute (ts TIMESTAMP) WITH (event_time = 'ts')").await.unwrap_err();
    assert!(wrong[0].message.contains("is a view already"), "{wrong:?}");
    stop(broker, engine).await;
}
