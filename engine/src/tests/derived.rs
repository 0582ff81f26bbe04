use std::time::Duration;

use super::*;
use crate::{CheckAction, DeduplicateConfig, QualityAction, TableConfig, TableRows, check};

/// Table `users` over topic `people`: uid, segment, age.
pub(super) fn users() -> TableConfig {
    TableConfig {
        name: "users".into(),
        key: "uid".into(),
        columns: vec![
            column("uid", "BIGINT", false),
            column("segment", "VARCHAR", false),
            column("age", "BIGINT", false),
        ],
        rows: TableRows::Topic("people".into()),
        source: String::new(),
    }
}

pub(super) fn genres() -> TableConfig {
    let rows = [["jazz", "calm", "true"], ["rock", "loud", "true"], ["pop", "loud", "false"]];
    TableConfig {
        name: "genres".into(),
        key: "genre".into(),
        columns: vec![
            column("genre", "VARCHAR", false),
            column("mood", "VARCHAR", false),
            column("on", "BOOLEAN", false),
        ],
        rows: TableRows::Inline(rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect()),
        source: String::new(),
    }
}

pub(super) fn derived(sql: &str) -> StreamConfig {
    StreamConfig { sql: Some(format!("CREATE STREAM {sql}")), ..StreamConfig { columns: Vec::new(), ..stream_times() } }
}

/// No names, the times of the declared stream.
fn stream_times() -> StreamConfig {
    StreamConfig {
        name: String::new(),
        topic: String::new(),
        event_time: String::new(),
        checks: Vec::new(),
        ..stream()
    }
}

pub(super) fn with(derived: Vec<StreamConfig>, views: &[&str]) -> EngineConfig {
    let mut config = config(views);
    config.streams.extend(derived);
    config.tables = vec![users(), genres()];
    config
}

/// Appends records with keys; None deletes.
pub(super) async fn append_keyed(broker: &Broker, topic: &str, partition: i32, records: &[(&str, Option<String>)]) {
    let mut builder = BatchBuilder::new();
    for (key, value) in records {
        builder.push(BASE_MS, Some(key.as_bytes()), value.as_ref().map(String::as_bytes), &[]);
    }
    let partition = broker.catalog().topic(topic).unwrap().partition(partition).unwrap();
    let append = Append { partition, batch: builder.build().unwrap(), origin: Origin::Internal };
    broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
}

pub(super) async fn sql(engine: &Engine, tables: &[&str], sql: &str) -> Vec<Vec<String>> {
    let context = datafusion::prelude::SessionContext::new();
    for table in tables {
        engine.wait_fresh(table, 20_000).await.unwrap();
        context.register_table(*table, engine.sql_table(table).unwrap()).unwrap();
    }
    let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
    let answer = Answer {
        schema: rows[0].schema(),
        rows,
        offsets: Default::default(),
        event_watermark: None,
        stale: false,
        held: Default::default(),
    };
    text(&answer)
}

/// The values of a derived stream's topic, in order of partition and offset.
pub(super) async fn values(broker: &Broker, topic: &str) -> Vec<serde_json::Value> {
    let all = records(broker, topic).await;
    all.iter().map(|(_, record)| serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()).collect()
}

#[test]
fn mistakes_say_what_to_write() {
    let cases = [
        ("d AS SELECT uid, ts FROM streem", "no stream 'streem'"),
        ("d AS SELECT uid, ts FROM s JOIN user u ON s.uid = u.uid", "no table 'user', did you mean 'users'?"),
        ("d AS SELECT s.uid, s.ts FROM s JOIN s AS t ON s.uid = t.uid", "joined within a time"),
        ("d AS SELECT s.* FROM s JOIN users u ON s.uid = u.age", "joined by its key"),
        ("d AS SELECT s.* FROM s JOIN users u ON s.genre = u.uid", "joined by its key"),
        ("d AS SELECT s.* FROM s RIGHT JOIN users u ON s.uid = u.uid", "LEFT JOIN"),
        ("d AS SELECT s.* FROM s CROSS JOIN users u", "joined by its key"),
        ("d AS SELECT * FROM s JOIN users u ON s.uid = u.uid", "two columns are called 'uid'"),
        ("d AS SELECT uid FROM s", "event_time 'ts' is not a declared column"),
        ("d AS SELECT uid, genre AS ts FROM s", "declare it TIMESTAMP"),
        ("d AS SELECT ts, now() AS n FROM s", "now()"),
        ("d AS SELECT ts, count(*) AS n FROM s", "materialized view"),
        ("d AS SELECT ts, gerne FROM s", "did you mean 'genre'?"),
        ("d AS SELECT ts, struct(uid) AS x FROM s", "cast it"),
        ("d AS SELECT ts, uid AS _x FROM s", "reserved"),
        ("s AS SELECT * FROM s", "is declared twice"),
        ("users AS SELECT * FROM s", "has the name of"),
        ("data_quality AS SELECT * FROM s", "has the name of"),
    ];
    for (sql, expected) in cases {
        let mistakes = check(&with(vec![derived(sql)], &[]));
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{sql}: {expected}: {mistakes:#?}");
    }
    assert_eq!(check(&with(vec![derived("d AS SELECT * FROM s"), derived("e AS SELECT * FROM d")], &[])), [""; 0]);
    assert_eq!(check(&with(vec![derived("e AS SELECT * FROM d"), derived("d AS SELECT * FROM s")], &[])), [""; 0]);
    let spread = "d AS SELECT s.*, unnest(string_to_array(genre, ';')) AS one FROM s";
    assert_eq!(check(&with(vec![derived(spread)], &["v AS SELECT one, count(*) AS n FROM d GROUP BY one"])), [""; 0]);
    let circle = check(&with(vec![derived("e AS SELECT * FROM d"), derived("d AS SELECT * FROM e")], &[]));
    assert!(circle.iter().any(|mistake| mistake.contains("no stream")), "{circle:?}");
    let mut wrong = with(vec![derived("d AS SELECT * FROM s")], &["v AS SELECT count(*) AS n FROM d"]);
    wrong.streams[1].key = Some("uidd".into());
    wrong.streams[1].deduplicate = Some(DeduplicateConfig { by: vec!["id".into()], within_ms: 0 });
    wrong.streams[0].deduplicate = Some(DeduplicateConfig { by: vec!["uid".into()], within_ms: 1 });
    wrong.tables[0].key = "id".into();
    wrong.tables[1].rows = TableRows::Inline(vec![vec!["a".into()], vec!["a".into(), "b".into(), "maybe".into()]]);
    let mistakes = check(&wrong);
    for expected in [
        "key 'uidd'",
        "deduplicate.by 'id'",
        "within",
        "belong to a derived stream",
        "table users: key 'id'",
        "row 1 has 1",
        "'maybe'",
    ] {
        assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{expected}: {mistakes:#?}");
    }
    assert_eq!(mistakes.iter().filter(|mistake| mistake.contains("view v")).count(), 0, "{mistakes:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_joined_filtered_written_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 2).await;
    create(&broker, "people", 1).await;
    let user = |uid: i64, segment: &str, age: i64| format!(r#"{{"uid":{uid},"segment":"{segment}","age":{age}}}"#);
    append_keyed(&broker, "people", 0, &[("1", Some(user(1, "old", 20))), ("2", Some(user(2, "new", 30)))]).await;
    append_keyed(&broker, "people", 0, &[("1", Some(user(1, "gold", 21))), ("3", Some(user(3, "gone", 1)))]).await;
    append_keyed(&broker, "people", 0, &[("{\"uid\":3}", None), ("x", Some(user(4, "bad key", 1)))]).await;
    let mut enriched = derived(
        "enriched AS SELECT l.*, u.segment, g.mood, upper(trim(l.genre)) AS shout, l.amount / 10 AS tens, \
         CAST(l.ts AS DATE) AS day, CAST(l.price AS DECIMAL(10,2)) AS money, l._offset AS source_offset \
         FROM s l LEFT JOIN users u ON l.uid = u.uid AND u.age < 30 LEFT JOIN genres g ON g.genre = l.genre \
         WHERE l.amount IS NULL OR l.amount < 500",
    );
    enriched.key = Some("shout".into());
    let inner = derived(
        "loud AS SELECT e.uid, e.ts, e.shout FROM enriched e JOIN genres g ON lower(e.shout) = g.genre AND g.on",
    );
    let config =
        with(vec![inner, enriched], &["by_segment AS SELECT segment, count(*) AS n FROM enriched GROUP BY segment"]);
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    append(&broker, "events", 0, &[event(1, " Jazz", 15, 0), event(2, "rock", 25, 1), event(3, "pop", 501, 2)]).await;
    append(&broker, "events", 1, &[event(3, "pop", 35, 3), "x".into(), format!(r#"{{"uid":9,"ts":{BASE_MS}}}"#)]).await;
    append(&broker, "events", 1, &[event(1, "jazz", 5, 4)]).await;
    assert_eq!(
        read(&engine, "by_segment").await,
        [["∅", "3"], ["gold", "2"]],
        "the join takes the newest row, without those that ON leaves out"
    );
    let mut found = values(&broker, "enriched").await;
    found.sort_by_key(|value| value["ts"].to_string());
    let expected: serde_json::Value = serde_json::from_str(
        r#"[
        {"uid":1,"genre":" Jazz","amount":15,"price":0.5,"ts":"2026-11-20T10:00:00Z","segment":"gold","mood":null,"shout":"JAZZ","tens":1,"day":"2026-11-20","money":0.50,"source_offset":0},
        {"uid":9,"genre":null,"amount":null,"price":null,"ts":"2026-11-20T10:00:00Z","segment":null,"mood":null,"shout":null,"tens":null,"day":"2026-11-20","money":null,"source_offset":2},
        {"uid":2,"genre":"rock","amount":25,"price":0.5,"ts":"2026-11-20T10:00:00.001Z","segment":null,"mood":"loud","shout":"ROCK","tens":2,"day":"2026-11-20","money":0.50,"source_offset":1},
        {"uid":3,"genre":"pop","amount":35,"price":0.5,"ts":"2026-11-20T10:00:00.003Z","segment":null,"mood":"loud","shout":"POP","tens":3,"day":"2026-11-20","money":0.50,"source_offset":0},
        {"uid":1,"genre":"jazz","amount":5,"price":0.5,"ts":"2026-11-20T10:00:00.004Z","segment":"gold","mood":"calm","shout":"JAZZ","tens":0,"day":"2026-11-20","money":0.50,"source_offset":3}
        ]"#,
    )
    .unwrap();
    let mut expected = expected.as_array().unwrap().clone();
    expected.sort_by_key(|value| value["ts"].to_string());
    found.sort_by_key(|value| (value["ts"].to_string(), value["uid"].as_i64()));
    expected.sort_by_key(|value| (value["ts"].to_string(), value["uid"].as_i64()));
    assert_eq!(found, expected);
    let keys: Vec<_> = records(&broker, "enriched").await.into_iter().map(|(_, record)| record.key).collect();
    assert!(keys.contains(&Some("JAZZ".into())) && keys.contains(&None), "{keys:?}");
    assert_eq!(broker.catalog().topic("enriched").unwrap().partitions().len(), 2, "as many as its source has");
    engine.wait_fresh("loud", 20_000).await.unwrap();
    let mut loud: Vec<String> = values(&broker, "loud").await.iter().map(|value| value["shout"].to_string()).collect();
    loud.sort();
    assert_eq!(loud, ["\"JAZZ\"", "\"JAZZ\"", "\"ROCK\""]);
    assert_eq!(
        sql(&engine, &["users"], "SELECT * FROM users ORDER BY uid").await,
        [["1", "gold", "21"], ["2", "new", "30"]]
    );
    assert_eq!(sql(&engine, &["genres"], "SELECT count(*) FROM genres WHERE \"on\"").await, [["2"]]);
    let tables = engine.tables();
    assert_eq!((tables[0].rows, tables[1].rows, tables[0].lag_records), (2, 3, 0));
    assert_eq!(tables[0].rejected_by_rule, BTreeMap::from([("key".to_string(), 1)]));
    let status = engine.stream_status();
    let enriched = status.iter().find(|status| status.stream == "enriched").unwrap().derived.clone().unwrap();
    assert_eq!((enriched.written, enriched.filtered, enriched.lag_records), (5, 1, 0));
    engine.stop().await;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    append(&broker, "events", 0, &[event(1, "jazz", 1, 10)]).await;
    assert_eq!(read(&engine, "by_segment").await, [["∅", "3"], ["gold", "3"]]);
    assert_eq!(values(&broker, "enriched").await.len(), 6, "a restart writes nothing again");
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_spread_and_each_refused_row_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let mut spread =
        derived("spread AS SELECT uid, ts, unnest(string_to_array(genre, ';')) AS one, 100 / amount AS share FROM s");
    spread.checks = vec![
        CheckConfig { name: "one_known".into(), sql: "one <> ''".into(), ..CheckConfig::default() },
        CheckConfig { name: "share_small".into(), sql: "share < 50".into(), action: CheckAction::Warn },
    ];
    let engine = Engine::start(broker.clone(), with(vec![spread], &[])).await.unwrap();
    let good = [event(1, "a;b;c", 10, 0), event(2, "d;;e", 1, 1), event(3, "f", 0, 2), event(4, "", 4, 3)];
    append(&broker, "events", 0, &good).await;
    engine.wait_fresh("spread", 20_000).await.unwrap();
    let ones: Vec<String> =
        values(&broker, "spread").await.iter().map(|value| value["one"].as_str().unwrap().to_string()).collect();
    assert_eq!(ones, ["a", "b", "c", "d", "e"]);
    let refused: Vec<(String, String)> = records(&broker, "spread.rejected")
        .await
        .iter()
        .map(|(_, r)| (header(r, "rule"), header(r, "offset")))
        .collect();
    let expected: Vec<(String, String)> =
        [("one_known", "1"), ("expression", "2")].iter().map(|(rule, at)| (rule.to_string(), at.to_string())).collect();
    assert!(expected.iter().all(|pair| refused.contains(pair)), "{refused:?}");
    engine.wait_fresh("data_quality", 20_000).await.unwrap();
    let counts = engine.quality().await.unwrap();
    let count = |stream: &str, rule: &str, action| {
        let found = counts.iter().find(|c| c.stream == stream && c.rule == rule && c.action == action);
        found.map_or(0, |found| {
            assert_eq!(i64::from(found.day), BASE_MS / 86_400_000);
            found.records
        })
    };
    assert_eq!(count("s", "accepted", QualityAction::Accept), 4);
    assert_eq!(count("spread", "accepted", QualityAction::Accept), 5);
    assert_eq!(count("spread", "expression", QualityAction::Reject), 1);
    assert_eq!(count("spread", "share_small", QualityAction::Warn), 2);
    assert_eq!(
        sql(&engine, &["data_quality"], "SELECT sum(records) FROM data_quality WHERE action = 'accept'").await,
        [["9"]]
    );
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_refused_within_their_time_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let mut once = derived("once AS SELECT * FROM s");
    once.deduplicate = Some(DeduplicateConfig { by: vec!["uid".into(), "genre".into()], within_ms: 60_000 });
    let config = with(vec![once], &["n AS SELECT uid, count(*) AS n FROM once GROUP BY uid"]);
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    let no_genre = |uid: i64| format!(r#"{{"uid":{uid},"ts":{BASE_MS}}}"#);
    let first = [event(1, "a", 1, 0), event(1, "a", 2, 60_000), event(1, "b", 3, 0), no_genre(2), no_genre(2)];
    append(&broker, "events", 0, &first).await;
    append(&broker, "events", 0, &[event(1, "a", 4, -60_000), event(1, "a", 5, 60_001), event(1, "a", 6, -60_001)])
        .await;
    assert_eq!(read(&engine, "n").await, [["1", "4"], ["2", "2"]]);
    engine.stop().await;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    append(&broker, "events", 0, &[event(1, "a", 7, 60_000), event(1, "a", 8, 200_000), event(1, "a", 9, 199_999)])
        .await;
    assert_eq!(read(&engine, "n").await, [["1", "5"], ["2", "2"]]);
    let refused: Vec<String> =
        records(&broker, "once.rejected").await.iter().map(|(_, r)| header(r, "offset")).collect();
    assert_eq!(refused, ["1", "5", "8", "10"]);
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A table that is new or changed is read before its first join.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_comes_first_and_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    create(&broker, "people", 3).await;
    for uid in 0..3_000_i64 {
        let key = uid.to_string();
        append_keyed(&broker, "people", (uid % 3) as i32, &[(&key, Some(format!(r#"{{"segment":"s{uid}"}}"#)))]).await;
    }
    append(&broker, "events", 0, &(0..3_000).map(|uid| event(uid, "g", 1, uid)).collect::<Vec<_>>()).await;
    let mut config =
        with(vec![derived("d AS SELECT s.uid, s.ts, u.segment FROM s LEFT JOIN users u USING (uid)")], &[]);
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    engine.wait_fresh("d", 20_000).await.unwrap();
    for value in values(&broker, "d").await {
        assert_eq!(value["segment"].as_str().unwrap(), format!("s{}", value["uid"]), "{value}");
    }
    append_keyed(&broker, "people", 1, &[("7", Some(r#"{"segment":"changed"}"#.into())), ("10", None)]).await;
    engine.wait_fresh("users", 20_000).await.unwrap();
    append(&broker, "events", 0, &[event(7, "g", 1, 0), event(10, "g", 1, 0)]).await;
    engine.wait_fresh("d", 20_000).await.unwrap();
    let last = values(&broker, "d").await.split_off(3_000);
    assert_eq!((last[0]["segment"].as_str(), last[1]["segment"].as_str()), (Some("changed"), None));
    assert_eq!(engine.tables()[0].rows, 2_999);
    engine.stop().await;
    config.tables[0].columns[1].from = Some("segment".into());
    config.tables[0].columns.pop();
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    assert_eq!(
        sql(&engine, &["users"], "SELECT count(*), count(segment) FROM users").await,
        [["2999", "2999"]],
        "read again under the new declaration"
    );
    tokio::time::sleep(Duration::from_millis(1)).await;
    engine.stop().await;
    broker.stop().await.unwrap();
}
