//! What is declared keeps its topics from clients, from its declaration on until it is dropped.

use super::definitions::{done, start, stop};
use super::derived::{derived, with};
use super::*;

/// What a client is told who deletes a topic that is claimed.
async fn refused(broker: &Broker, topic: &str) -> String {
    let refusal = broker.catalog().delete_unclaimed(topic).await.unwrap_err();
    assert_eq!(refusal.kind, broker::Kind::TopicDeletionDisabled);
    assert!(broker.catalog().topic(topic).is_some());
    refusal.message
}

/// Whether a client may write to the topic, and give it partitions.
fn rights(broker: &Broker, topic: &str) -> (bool, bool) {
    let catalog = broker.catalog();
    (catalog.claims().check_write(topic).is_ok(), catalog.check_grow(topic, 9).is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_files_declare_keeps_its_topics() {
    let dir = tempfile::tempdir().unwrap();
    let join = "j AS SELECT s.uid, s.ts FROM s JOIN d WITHIN 10 SECONDS ON s.genre = d.genre";
    let streams =
        vec![derived("d AS SELECT genre, amount, ts FROM s"), StreamConfig { idle_timeout_ms: 1_000, ..derived(join) }];
    let mut declared = with(streams, &["v AS SELECT count(*) AS n FROM d"]);
    declared.streams[0].source = "music.toml:3".into();
    let (broker, engine) = start(dir.path(), declared).await;
    let own = ["s.rejected", "users.rejected", "d", "d.rejected", "j", "j.rejected", "j.late", "v", "v.late"];
    for topic in ["events", "people"].into_iter().chain(own) {
        refused(&broker, topic).await;
        let is_own = own.contains(&topic);
        assert_eq!(rights(&broker, topic), (!is_own, topic != "v"), "{topic}");
    }
    assert_eq!(
        refused(&broker, "events").await,
        "topic events cannot be deleted: stream s reads it (first take it out of music.toml:3 and start again)"
    );
    create(&broker, "other", 1).await;
    assert_eq!(rights(&broker, "other"), (true, true));
    broker.catalog().delete_unclaimed("other").await.unwrap();
    stop(broker, engine).await;

    // What is taken out of the configuration is free at the next start.
    let (broker, engine) = start(dir.path(), config(&["v AS SELECT count(*) AS n FROM s"])).await;
    assert_eq!(rights(&broker, "d"), (true, true));
    for topic in ["people", "users.rejected", "d", "d.rejected"] {
        broker.catalog().delete_unclaimed(topic).await.unwrap();
    }
    refused(&broker, "v").await;
    stop(broker, engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sql_declares_keeps_its_topics_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, engine) = start(dir.path(), EngineConfig::default()).await;
    create(&broker, "raw", 2).await;
    create(&broker, "v", 1).await;
    broker.catalog().delete_unclaimed("v").await.unwrap();
    let declared = "CREATE STREAM plays (n BIGINT, ts TIMESTAMP) WITH (topic = 'raw', event_time = 'ts');
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM plays;
        CREATE STREAM counted (n BIGINT, ts TIMESTAMP) WITH (topic = 'v', event_time = 'ts')";
    assert_eq!(done(&engine, declared).await, ["created"; 3]);
    let of_v = "topic v cannot be deleted: stream counted reads it (first DROP STREAM counted), \
                view v writes it (first DROP MATERIALIZED VIEW v)";
    assert_eq!(refused(&broker, "v").await, of_v);
    assert_eq!(rights(&broker, "v"), (false, false));
    assert_eq!((rights(&broker, "raw"), rights(&broker, "v.late")), ((true, true), (false, true)));
    assert_eq!(done(&engine, "DROP STREAM counted; PAUSE MATERIALIZED VIEW v").await, ["dropped", "paused"]);
    let of_view = "topic v cannot be deleted: view v writes it (first DROP MATERIALIZED VIEW v)";
    assert_eq!(refused(&broker, "v").await, of_view);
    let other = "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT max(n) AS n FROM plays";
    assert_eq!(done(&engine, other).await, ["replaced"]);
    stop(broker, engine).await;

    let (broker, engine) = start(dir.path(), EngineConfig::default()).await;
    assert_eq!(refused(&broker, "v").await, of_view);
    assert_eq!(done(&engine, "DROP MATERIALIZED VIEW v").await, ["dropped"]);
    create(&broker, "v", 1).await;
    assert_eq!(rights(&broker, "v"), (true, true));
    broker.catalog().delete_unclaimed("v").await.unwrap();
    let of_raw = "topic raw cannot be deleted: stream plays reads it (first DROP STREAM plays)";
    assert_eq!(refused(&broker, "raw").await, of_raw);
    assert_eq!(done(&engine, "DROP STREAM plays").await, ["dropped"]);
    broker.catalog().delete_unclaimed("raw").await.unwrap();
    stop(broker, engine).await;
}
