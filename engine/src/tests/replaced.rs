//! Topics whose records go away under their readers: deleted on request, or with the whole topic.

use super::derived::{append_keyed, sql, users};
use super::fill::until;
use super::*;

async fn delete_records(broker: &Broker, topic: &str) {
    let partition = broker.catalog().topic(topic).unwrap().partition(0).unwrap();
    let end = partition.high_watermark();
    broker.lane().commit(vec![Change::LogStart(partition, end)], Ack::Durable).await.unwrap();
}

fn user(uid: i64) -> (String, Option<String>) {
    (uid.to_string(), Some(format!(r#"{{"uid":{uid},"segment":"s"}}"#)))
}

async fn append_user(broker: &Broker, uid: i64) {
    let (key, value) = user(uid);
    append_keyed(broker, "people", 0, &[(&key, value)]).await;
}

fn views_and_table() -> EngineConfig {
    let mut config = config(&[
        "v AS SELECT genre, count(*) AS n FROM s GROUP BY genre",
        "m AS SELECT genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre",
    ]);
    config.tables = vec![users()];
    config
}

/// What was deleted before it was read counts as lost, and nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_to_the_end_are_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    create(&broker, "people", 1).await;
    let engine = Engine::start(broker.clone(), views_and_table()).await.unwrap();
    append(&broker, "events", 0, &[event(1, "jazz", 1, 0)]).await;
    append_user(&broker, 1).await;
    assert_eq!(read(&engine, "v").await, [["jazz", "1"]]);
    engine.wait_fresh("users", 20_000).await.unwrap();
    engine.stop().await;
    append(&broker, "events", 0, &[event(1, "jazz", 1, 0), event(1, "jazz", 1, 0)]).await;
    append_user(&broker, 2).await;
    delete_records(&broker, "events").await;
    delete_records(&broker, "people").await;
    let engine = Engine::start(broker.clone(), views_and_table()).await.unwrap();
    let answer = engine.read("v", ReadRequest { wait_ms: 5_000, ..ReadRequest::default() }).await.unwrap();
    assert_eq!((text(&answer), answer.offsets["events"][&0]), (vec![vec!["jazz".into(), "1".into()]], 3));
    engine.wait_fresh("users", 5_000).await.unwrap();
    // a read that has nothing to wait for may come before the first look at the log
    until(|| engine.status()[0].lost == 2 && engine.stream_status()[0].lost == 2).await;
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// A topic of the same name is another one: nothing of the former is in tables and views, nor newest in the views' topics.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_leaves_nothing_of_the_former() {
    for running in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let broker = open_broker(dir.path()).await;
        create(&broker, "events", 2).await;
        create(&broker, "people", 2).await;
        let mut engine = Engine::start(broker.clone(), views_and_table()).await.unwrap();
        append(&broker, "events", 0, &[event(1, "jazz", 1, 600_000), event(1, "rock", 1, 600_000)]).await;
        append(&broker, "events", 1, &[event(1, "jazz", 1, 600_000)]).await;
        append_user(&broker, 1).await;
        assert_eq!(read(&engine, "v").await, [["jazz", "2"], ["rock", "1"]]);
        assert_eq!(sql(&engine, &["users"], "SELECT uid FROM users").await, [["1"]]);
        if !running {
            engine.stop().await;
        }
        for topic in ["events", "people"] {
            broker.catalog().delete(topic).await.unwrap();
            create(&broker, topic, 1).await;
        }
        if !running {
            engine = Engine::start(broker.clone(), views_and_table()).await.unwrap();
        }
        append(&broker, "events", 0, &[event(1, "pop", 1, 0)]).await;
        append_user(&broker, 2).await;
        assert_eq!(read(&engine, "v").await, [["pop", "1"]], "running {running}");
        assert_eq!(read(&engine, "m").await.len(), 1);
        assert_eq!(sql(&engine, &["users"], "SELECT uid FROM users").await, [["2"]], "running {running}");
        assert_eq!(engine.status()[0].rows_applied, 1);
        for view in ["v", "m"] {
            assert_eq!(newest(&broker, view).await.len(), 1, "{view}, running {running}");
        }
        // Once, and not again at the next start.
        engine.stop().await;
        let engine = Engine::start(broker.clone(), views_and_table()).await.unwrap();
        assert_eq!(read(&engine, "v").await, [["pop", "1"]]);
        engine.stop().await;
        broker.stop().await.unwrap();
    }
}

/// The keys of a compacted topic whose newest record has a value.
async fn newest(broker: &Broker, topic: &str) -> Vec<String> {
    let mut newest = BTreeMap::new();
    for (_, record) in records(broker, topic).await {
        newest.insert(record.key.clone(), record.value.is_some());
    }
    let live = newest.into_iter().filter(|(_, live)| *live);
    live.map(|(key, _)| String::from_utf8(key.unwrap().to_vec()).unwrap()).collect()
}

/// What leaves a view leaves its topic: by retention, and by another definition.
#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_a_view_leaves_its_topic() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(BASE_MS);
    let broker = open_broker_at(dir.path(), clock.clone()).await;
    create(&broker, "events", 1).await;
    let sql = "m AS SELECT genre, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre";
    let mut config = config(&[sql]);
    config.streams[0].max_ahead_ms = i64::MAX / 4;
    config.views[0].retention_ms = Some(600_000);
    let engine = Engine::start(broker.clone(), config.clone()).await.unwrap();
    for minute in 0..40 {
        let genres = ["jazz", "rock"].map(|genre| event(1, genre, 1, minute * 60_000));
        append(&broker, "events", 0, &genres).await;
        read(&engine, "m").await;
    }
    let rows = read(&engine, "m").await;
    assert!(rows.len() < 40, "{}", rows.len());
    assert_eq!(newest(&broker, "m").await.len(), rows.len());
    engine.stop().await;
    // No rock any more, and windows of five minutes.
    config.views[0].sql = "CREATE MATERIALIZED VIEW m AS SELECT genre, count(*) AS n FROM s WHERE genre = 'jazz' \
                           GROUP BY TUMBLE(ts, INTERVAL '5' MINUTE), genre"
        .into();
    config.views[0].retention_ms = None;
    let engine = Engine::start(broker.clone(), config).await.unwrap();
    settled(&engine).await;
    let rows = read(&engine, "m").await;
    assert_eq!(rows.len(), 8);
    assert_eq!(newest(&broker, "m").await.len(), rows.len());
    engine.stop().await;
    broker.stop().await.unwrap();
}
