//! `CREATE STREAM s WITH (…)`: columns from the records of a topic, declared once and for all.

use super::definitions::{rows_of, start, stop};
use super::*;
use crate::{Command, Inferred, Mistake, Script, Surroundings, command};

const PLAYS: &str =
    "CREATE STREAM plays WITH (topic = 'raw', event_time = 'at', lateness = '1 day', idle_timeout = '0 s')";
const DECLARED: &str = "CREATE STREAM plays (\"userId\" BIGINT, genre VARCHAR, at TIMESTAMP NOT NULL, \
     place_country VARCHAR FROM 'place.country') WITH (topic = 'raw', event_time = 'at', lateness = '1 day', \
     idle_timeout = '0 s')";

fn play(user: &str, genre: &str) -> String {
    format!(r#"{{"userId":{user},"genre":"{genre}","at":{BASE_MS},"place":{{"country":"FR"}},"x":[1]}}"#)
}

fn script(text: &str) -> Script {
    match command(text) {
        Ok(Some(Command::Change(script) | Command::ExplainNew(script))) => script,
        other => panic!("{text}: {other:?}"),
    }
}

/// Infers, then applies.
async fn declare(engine: &Arc<Engine>, text: &str) -> Result<(Vec<Inferred>, Vec<&'static str>), Vec<Mistake>> {
    let (script, inferred) = engine.infer(script(text)).await?;
    let (taken, readers) = (|_: &str| None, |_: &str| Vec::new());
    let change = engine.turn().await.decide(&script, &Surroundings { taken: &taken, readers: &readers })?;
    let done = change.apply().await.unwrap();
    Ok((inferred, done.iter().map(|done| done.result).collect()))
}

fn lines(inferred: &Inferred) -> Vec<String> {
    inferred.lines().iter().map(|[kind, name, text]| format!("{kind}|{name}|{text}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_inferred_once_and_then_declared() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), EngineConfig::default()).await;
    create(&broker, "raw", 3).await;
    append(&broker, "raw", 2, &[play("1", "jazz"), "no JSON".into()]).await;
    append(&broker, "raw", 0, &[play("2", "pop")]).await;
    let steps = engine.infer(script(&format!("EXPLAIN {PLAYS}"))).await.unwrap().1[0].explain();
    assert_eq!(steps[0], ("declaration", DECLARED.to_string()));
    assert!(steps[1].1.contains(r#"{ name = "at", type = "TIMESTAMP", required = true }"#), "{steps:?}");
    assert!(engine.streams().is_empty() && rows_of(&broker, "plays") == 0);

    let view =
        "CREATE MATERIALIZED VIEW by_user AS SELECT \"userId\" AS uid, count(*) AS n FROM plays GROUP BY \"userId\"";
    let (inferred, done) = declare(&engine, &format!("{PLAYS}; {view}")).await.unwrap();
    assert_eq!(done, ["created", "created"]);
    let told = lines(&inferred[0]);
    assert_eq!(
        told[..5],
        [
            "column|userId|BIGINT",
            "column|genre|VARCHAR",
            "column|at|TIMESTAMP NOT NULL",
            "column|place_country|VARCHAR FROM 'place.country'",
            "left out|x|its lists are not of texts alone, and VARCHAR[] is the only type of lists",
        ]
    );
    assert!(told[5].contains("records of topic raw that were read: 2; partitions: 3"), "{told:?}");
    assert!(
        told[6].contains("no JSON objects and tell nothing of columns: 1; the first one: partition 2, offset 1: "),
        "{told:?}"
    );
    assert_eq!(engine.declared_by_sql(crate::Kind::Stream, "plays").unwrap(), DECLARED);
    assert_eq!(read(&engine, "by_user").await, [["1", "1"], ["2", "1"]]);

    // What comes later is judged by the declaration, and changes nothing of it.
    append(&broker, "raw", 1, &[play("\"three\"", "pop"), play("4", "pop")]).await;
    assert_eq!(read(&engine, "by_user").await, [["1", "1"], ["2", "1"], ["4", "1"]]);
    let again = PLAYS.replace("STREAM", "STREAM IF NOT EXISTS");
    let (inferred, done) = declare(&engine, &again).await.unwrap();
    assert!(inferred.is_empty() && done == ["exists already"], "{done:?}");
    let wrong = declare(&engine, PLAYS).await.unwrap_err();
    assert!(wrong[0].message.contains("exists already") && wrong[0].column == 15, "{wrong:?}");
    stop(broker, engine).await;

    let (broker, engine) = start(dir.path(), EngineConfig::default()).await;
    assert_eq!(engine.declared_by_sql(crate::Kind::Stream, "plays").unwrap(), DECLARED);
    append(&broker, "raw", 1, &[play("4", "pop")]).await;
    assert_eq!(read(&engine, "by_user").await, [["1", "1"], ["2", "1"], ["4", "2"]]);
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_inferred_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), EngineConfig::default()).await;
    for topic in ["empty", "text", "framed", "raw"] {
        create(&broker, topic, 1).await;
    }
    append(&broker, "text", 0, &["a,b".into(), "[1]".into()]).await;
    append(&broker, "framed", 0, &["\0\0\0\0\u{1}{\"at\":1795168800000}".into()]).await;
    append(&broker, "raw", 0, &[play("1", "jazz")]).await;
    let with = |topic: &str, more: &str| format!("CREATE STREAM s WITH (topic = '{topic}', event_time = 'at'{more})");
    let cases = [
        (with("nowhere", ""), 31, "topic 'nowhere' does not exist, and columns are inferred from records: send some"),
        (with("empty", ""), 31, "topic 'empty' has no records in its log"),
        (with("text", ""), 31, "none of 2 sampled records is a JSON object (partition 0, offset 0: not valid JSON"),
        (with("framed", ""), 31, "begin with byte 0 are those of a schema registry's"),
        (
            with("raw", ", format = 'avro'"),
            66,
            "columns are inferred from JSON alone: with format = 'avro' write them out",
        ),
        (with("raw", ", format = 'csv'"), 66, "its fields have no names"),
        (with("raw", "").replace("'at'", "'genre'"), 51, "'genre' gets no column: 1 of its 1 values are neither"),
        (with("raw", "").replace("'at'", "'att'"), 51, "did you mean 'at'"),
        ("CREATE STREAM s".into(), 15, "event_time is missing"),
        ("CREATE STREAM s WITH (event_time = 'at') AS".into(), 42, ""),
    ];
    for (text, column, expected) in cases {
        let wrong = match command(&text) {
            Ok(Some(Command::Change(script))) => engine.infer(script).await.unwrap_err(),
            Err(wrong) => wrong,
            other => panic!("{other:?}"),
        };
        assert!(wrong[0].message.contains(expected) && wrong[0].column == column, "{text}: {wrong:?}");
    }
    let inferred = engine.infer(script(&with("framed", ", format = 'json_schema'"))).await.unwrap().1;
    assert_eq!(lines(&inferred[0])[0], "column|at|TIMESTAMP NOT NULL");
    // Of several streams all mistakes are told.
    let two = format!("{};\n{}", with("nowhere", ""), with("empty", "").replace(" s ", " t "));
    let wrong = engine.infer(script(&two)).await.unwrap_err();
    assert_eq!(wrong.iter().map(|wrong| wrong.line).collect::<Vec<_>>(), [1, 2], "{wrong:?}");
    assert!(engine.streams().is_empty() && broker.catalog().topic("nowhere").is_none());
    stop(broker, engine).await;
}

/// A column that only the oldest records have, and one that only the newest have, of many in between; and none of one that neither has.
#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_a_log_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), EngineConfig::default()).await;
    create(&broker, "raw", 1).await;
    let record = |field: &str| format!(r#"{{"at":{BASE_MS},"{field}":1}}"#);
    for field in ["old", "middle", "new"] {
        for _ in 0..10 {
            append(&broker, "raw", 0, &vec![record(field); 1_000]).await;
        }
    }
    let inferred = engine.infer(script(PLAYS)).await.unwrap().1;
    assert_eq!(lines(&inferred[0])[..3], ["column|at|TIMESTAMP NOT NULL", "column|new|BIGINT", "column|old|BIGINT"]);
    assert!(lines(&inferred[0])[3].contains("were read: 10000;"), "{:?}", lines(&inferred[0]));

    // Of records so large that few fit into what may be read.
    create(&broker, "large", 2).await;
    let pad = "x".repeat(100_000);
    let record = |field: &str| format!(r#"{{"at":{BASE_MS},"{field}":1,"pad":"{pad}"}}"#);
    for (partition, field) in [(0, "a"), (0, "b"), (0, "c"), (1, "d"), (1, "e"), (1, "f")] {
        for _ in 0..10 {
            append(&broker, "large", partition, &vec![record(field); 5]).await;
        }
    }
    let inferred = engine.infer(script(&PLAYS.replace("'raw'", "'large'"))).await.unwrap().1;
    let names: Vec<String> = inferred[0].lines().into_iter().map(|[_, name, _]| name).collect();
    assert_eq!(names[..6], ["at", "c", "pad", "f", "a", "d"]);
    stop(broker, engine).await;
}
