use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Ack, Append, BatchBuilder, Broker, BrokerConfig, Change, Clock, Durability, NewTopic, Origin};
use engine::{
    ColumnConfig, Command, Engine, EngineConfig, HistorySlot, StreamConfig, Surroundings, ViewConfig, command,
};
use serde_json::json;

use super::support::{lines, sql, table};
use crate::config::{LakeConfig, SliceColumn, SqlLimits, TableConfig};
use crate::error::LakeErrorKind;
use crate::lake::Lake;

fn column(name: &str, sql_type: &str) -> ColumnConfig {
    ColumnConfig { name: name.into(), sql_type: sql_type.into(), required: false, ..ColumnConfig::default() }
}

pub(super) fn pipeline() -> EngineConfig {
    let stream = StreamConfig {
        name: "plays".into(),
        topic: "music.plays".into(),
        columns: vec![
            column("ts", "TIMESTAMP"),
            column("genre", "VARCHAR"),
            column("user_id", "BIGINT"),
            column("paid", "BOOLEAN"),
            column("price", "DECIMAL(10,2)"),
            column("released", "DATE"),
            column("score", "DOUBLE"),
        ],
        event_time: "ts".into(),
        lateness_ms: 0,
        idle_timeout_ms: 1_000,
        max_ahead_ms: 86_400_000,
        ..StreamConfig::default()
    };
    let by_genre =
        "CREATE MATERIALIZED VIEW plays_by_genre AS SELECT genre, count(*) AS plays FROM plays GROUP BY genre";
    EngineConfig {
        streams: vec![stream],
        views: vec![ViewConfig { sql: by_genre.into(), source: "test:1".into(), retention_ms: None }],
        ..EngineConfig::default()
    }
}

pub(super) struct Running {
    pub(super) _dir: tempfile::TempDir,
    pub(super) broker: Arc<Broker>,
    pub(super) engine: Arc<Engine>,
}

async fn running() -> Running {
    running_with(pipeline()).await
}

pub(super) async fn running_with(pipeline: EngineConfig) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let config =
        BrokerConfig { data_dir: dir.path().join("data"), durability: Durability::Os, ..BrokerConfig::default() };
    let broker = Broker::open(config, Clock::system()).await.unwrap();
    let new = NewTopic { name: "music.plays".into(), partitions: 1, config: BTreeMap::new() };
    broker.catalog().ensure(new).await.unwrap();
    let engine = Engine::start(broker.clone(), pipeline).await.unwrap();
    Running { _dir: dir, broker, engine }
}

pub(super) async fn produce(broker: &Broker, values: &[String]) {
    let mut batch = BatchBuilder::new();
    let now = broker.clock().now_ms();
    values.iter().for_each(|value| batch.push(now, None, Some(value.as_bytes()), &[]));
    let partition = broker.catalog().topic("music.plays").unwrap().partition(0).unwrap();
    let append = Append { partition, batch: batch.build().unwrap(), origin: Origin::Internal };
    broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
}

pub(super) fn play(genre: &str, user: i64) -> String {
    json!({"ts": "2026-11-20T10:00:00Z", "genre": genre, "user_id": user, "paid": user % 2 == 0, "price": "1.25",
        "released": "1999-12-31", "score": 0.5})
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_views_are_tables() {
    let Running { _dir, broker, engine } = running().await;
    let levels = ["date", "genre", "paid", "released", "user_id"].map(SliceColumn::parse).to_vec();
    let settles = TableConfig { slice: levels, ..TableConfig::of("music.plays") };
    let config = LakeConfig { tables: vec![settles], ..LakeConfig::default() };
    let lake = Lake::start(broker.clone(), engine.clone(), config).await.unwrap();
    produce(&broker, &[play("jazz", 1), play("jazz", 2), "oops".into(), play("pop", 3)]).await;
    assert_eq!(lake.flush("music.plays").await.unwrap().rows, 3);
    let path = broker
        .config()
        .data_dir
        .join("lake/music.plays/date=2026-11-20/genre=jazz/paid=false/released=1999-12-31/user_id=1");
    assert!(path.join("music.plays-0-0-3.parquet").exists());
    produce(&broker, &[play("jazz", 4)]).await;
    let all = "SELECT genre, user_id, paid, price, released, score FROM plays ORDER BY user_id";
    assert_eq!(
        table(&lake, all).await,
        [
            "jazz|1|false|1.25|1999-12-31|0.5",
            "jazz|2|true|1.25|1999-12-31|0.5",
            "pop|3|false|1.25|1999-12-31|0.5",
            "jazz|4|true|1.25|1999-12-31|0.5",
        ]
    );
    assert_eq!(table(&lake, "SELECT count(*) FROM plays WHERE user_id < 3 AND paid").await, ["1"]);
    for round in 0..50 {
        produce(&broker, &[play("rock", 100 + round)]).await;
        let joined = "SELECT v.plays, count(*) FROM plays_by_genre v JOIN plays p ON v.genre = p.genre WHERE p.genre = $1 GROUP BY v.plays";
        let answer = sql(&lake, joined, vec![json!("rock")]).await.unwrap();
        assert_eq!(lines(&answer), [format!("{0}|{0}", round + 1)]);
        assert_eq!(answer.offsets["music.plays"][&0], 6 + round);
    }
    let error = sql(&lake, "SELECT * FROM play", vec![]).await.unwrap_err();
    assert_eq!(error.message, "no table or view play: there are plays, plays_by_genre, data_quality");
    let tables =
        table(&lake, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1").await;
    let about = ["cost_estimate", "data_quality", "plays", "plays_by_genre", "query_log", "stored_bytes"];
    assert_eq!(tables, about);
    assert!(lake.verify("music.plays").await.unwrap().is_sound());
    lake.stop().await.unwrap();
    engine.stop().await;
    broker.stop().await.unwrap();
}

async fn declare(engine: &Arc<Engine>, text: &str) {
    let Ok(Some(Command::Change(script))) = command(text) else { panic!("{text}") };
    let turn = engine.turn().await;
    let change = turn.decide(&script, &Surroundings { taken: &|_| None, readers: &|_| Vec::new() });
    change.unwrap_or_else(|wrong| panic!("{wrong:?}")).apply().await.unwrap();
}

/// What a view over all plays has, and the same from files and log.
const VIEWED: &str = "SELECT genre, n, users, dear, since FROM by_genre ORDER BY genre";
const RECOMPUTED: &str =
    "SELECT genre, count(*), sum(user_id), max(price), min(released) FROM plays GROUP BY genre ORDER BY genre";
const BY_GENRE: &str = "CREATE MATERIALIZED VIEW by_genre AS SELECT genre, count(*) AS n, sum(user_id) AS users, \
                        max(price) AS dear, min(released) AS since FROM plays GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), genre";

/// Declared while producers go on, and in the configuration of the next start: each time most of what it counts is in files alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_declared_later_equals_a_computation_over_files_and_log() {
    let Running { _dir, broker, engine } = running().await;
    let levels = ["date", "genre", "released"].map(SliceColumn::parse).to_vec();
    let config = LakeConfig {
        tables: vec![TableConfig { slice: levels, ..TableConfig::of("music.plays") }],
        ..LakeConfig::default()
    };
    let lake = Lake::start(broker.clone(), engine.clone(), config.clone()).await.unwrap();
    let some = |from: i64| {
        let genre = |n: i64| ["jazz", "pop", "", "rock & roll"][n as usize % 4];
        let one = |n: i64| if n % 11 == 0 { "oops".to_owned() } else { play(genre(n), n) };
        (from..from + 100).map(one).collect::<Vec<_>>()
    };
    for round in 0..12 {
        produce(&broker, &some(round * 100)).await;
        if round % 2 == 0 {
            lake.flush("music.plays").await.unwrap();
        }
    }
    lake.merge("music.plays").await.unwrap();
    let partition = broker.catalog().topic("music.plays").unwrap().partition(0).unwrap();
    let trim = async |to: i64| {
        broker.lane().commit(vec![Change::LogStart(partition.clone(), to)], Ack::Durable).await.unwrap();
    };
    trim(1_033).await;
    let going_on = async {
        for round in 12..20 {
            produce(&broker, &some(round * 100)).await;
        }
    };
    tokio::join!(declare(&engine, BY_GENRE), going_on);
    let expected = table(&lake, RECOMPUTED).await;
    assert_eq!((expected.len(), table(&lake, "SELECT count(*) FROM plays").await[0].as_str()), (4, "1818"));
    assert_eq!(table(&lake, VIEWED).await, expected);
    let status = engine.status().into_iter().find(|status| status.view == "by_genre").unwrap();
    assert_eq!((status.lost, status.rows_applied, status.late), (0, 1_818, 0));
    declare(&engine, "DROP MATERIALIZED VIEW by_genre").await;
    lake.flush("music.plays").await.unwrap();
    trim(2_000).await;
    produce(&broker, &some(2_000)).await;
    lake.stop().await.unwrap();
    engine.stop().await;

    let mut again = pipeline();
    again.views.push(ViewConfig { sql: BY_GENRE.into(), ..ViewConfig::default() });
    let engine = Engine::start_with(broker.clone(), again, HistorySlot::awaited()).await.unwrap();
    let lake = Lake::start(broker.clone(), engine.clone(), config).await.unwrap();
    assert_eq!(table(&lake, VIEWED).await, table(&lake, RECOMPUTED).await);
    assert_eq!(table(&lake, "SELECT sum(n) FROM by_genre").await, ["1909"]);
    lake.stop().await.unwrap();
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_read_within_the_memory_of_queries() {
    let Running { _dir, broker, engine } = running().await;
    for part in 0..12 {
        let rows: Vec<_> = (0..1_000).map(|n| play(&format!("{part}-{n}-{}", "x".repeat(120)), n)).collect();
        produce(&broker, &rows).await;
    }
    let sum = "SELECT max(plays) FROM plays_by_genre";
    for (memory_bytes, fits) in [(1 << 20, false), (64 << 20, true)] {
        let limits = SqlLimits { memory_bytes, ..SqlLimits::default() };
        let config = LakeConfig { sql: limits, ..LakeConfig::default() };
        let lake = Lake::start(broker.clone(), engine.clone(), config).await.unwrap();
        match sql(&lake, sum, vec![]).await {
            Ok(answer) => assert!(fits && lines(&answer) == ["1"]),
            Err(error) => {
                assert!(!fits && error.kind == LakeErrorKind::MemoryLimit, "{error}");
                assert!(error.message.contains("plays_by_genre needs more memory"), "{error}");
            }
        }
        for _ in 0..40 {
            // what was taken is given back
            assert_eq!(sql(&lake, sum, vec![]).await.is_ok(), fits);
        }
        lake.stop().await.unwrap();
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_over_a_topic_have_one_that_makes_the_files() {
    let Running { _dir, broker, engine } = running().await;
    engine.stop().await;
    let mut two = pipeline();
    let narrow = vec![column("ts", "TIMESTAMP"), column("genre", "VARCHAR"), column("title", "VARCHAR")];
    two.streams.push(StreamConfig { name: "titles".into(), columns: narrow, ..two.streams[0].clone() });
    let engine = Engine::start(broker.clone(), two).await.unwrap();
    let start = async |stream: Option<&str>| {
        let table = TableConfig { stream: stream.map(str::to_owned), ..TableConfig::of("music.plays") };
        Lake::start(broker.clone(), engine.clone(), LakeConfig { tables: vec![table], ..LakeConfig::default() }).await
    };
    let error = start(None).await.err().unwrap();
    assert_eq!(error.kind, LakeErrorKind::Config);
    assert!(error.message.contains("plays, titles are over it") && error.message.contains("set stream"), "{error}");
    assert!(start(Some("absent")).await.err().unwrap().message.contains("no stream absent"));
    let lake = start(Some("plays")).await.unwrap();
    let play = |n: i64| {
        let mut value: serde_json::Value = serde_json::from_str(&play("jazz", n)).unwrap();
        value["title"] = json!("So What");
        value.to_string()
    };
    produce(&broker, &[play(1), play(2)]).await;
    assert_eq!(lake.flush("music.plays").await.unwrap().rows, 2);
    produce(&broker, &[play(3)]).await;
    assert_eq!(table(&lake, "SELECT count(*), count(title) FROM titles").await, ["3|3"]);
    assert_eq!(table(&lake, "SELECT count(*), sum(user_id) FROM plays").await, ["3|6"]);
    assert_eq!(lake.flush("music.plays").await.unwrap().rows, 1);
    assert_eq!(table(&lake, "SELECT count(*), count(title) FROM titles").await, ["3|3"]);
    assert_eq!(lake.status().tables.len(), 1);
    lake.stop().await.unwrap();
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_mistakes_of_the_configuration_are_told_at_once() {
    let Running { _dir, broker, engine } = running().await;
    let wrong =
        |topic: &str, column: &str| TableConfig { slice: vec![SliceColumn::parse(column)], ..TableConfig::of(topic) };
    let tables = vec![
        wrong("nowhere", "date"),
        wrong("music.plays", "score"),
        TableConfig { flush_rows: 0, ..TableConfig::of("music.plays") },
    ];
    let error = Lake::start(broker, engine, LakeConfig { tables, ..LakeConfig::default() }).await.err().unwrap();
    assert_eq!(error.kind, LakeErrorKind::Config);
    for says in [
        "declare a stream over the topic nowhere",
        "slice column score is Float64",
        "declared twice",
        "must be above 0",
    ] {
        assert!(error.message.contains(says), "{says}: {error}");
    }
}
