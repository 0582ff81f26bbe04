//! What reads what the engine itself writes is as fresh as the first of the chain, and says so when the chain is broken.

use broker::Durability;

use super::derived::{derived, users, with};
use super::*;
use crate::{TableConfig, TableRows};

/// s → derived stream d → view v → stream counted over v's topic → view w, and table newest over d's topic.
fn chained() -> EngineConfig {
    let views = [
        "v AS SELECT genre, count(*) AS n, max(ts) AS at FROM d GROUP BY genre",
        "w AS SELECT count(*) AS steps, max(n) AS most FROM counted",
    ];
    let mut config = with(vec![derived("d AS SELECT genre, amount, ts FROM s")], &views);
    config.streams.push(StreamConfig {
        name: "counted".into(),
        topic: "v".into(),
        columns: vec![column("n", "BIGINT", true), column("at", "TIMESTAMP", true)],
        event_time: "at".into(),
        checks: Vec::new(),
        ..stream()
    });
    let newest = TableConfig {
        name: "newest".into(),
        key: "genre".into(),
        columns: vec![column("genre", "VARCHAR", false), column("amount", "BIGINT", false)],
        rows: TableRows::Topic("d".into()),
        source: String::new(),
    };
    config.tables = vec![users(), newest];
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_chain_is_as_fresh_as_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_durable(dir.path(), Clock::manual(BASE_MS)).await;
    create(&broker, "events", 2).await;
    let engine = Engine::start(broker.clone(), chained()).await.unwrap();
    let mut missed = Vec::new();
    for i in 1..=200 {
        append(&broker, "events", i % 2, &[event(1, "jazz", i64::from(i), 0)]).await;
        let (v, w) = match i % 4 {
            0 | 1 => (read(&engine, "v").await, read(&engine, "w").await),
            _ => {
                let w = read(&engine, "w").await;
                (read(&engine, "v").await, w)
            }
        };
        if v[0][1] != i.to_string() || w[0][1] != i.to_string() {
            missed.push(format!("event {i}: v {v:?}, w {w:?}"));
        }
    }
    assert!(missed.is_empty(), "{} of 200 missed: {:?}", missed.len(), &missed[..missed.len().min(5)]);
    let mut missed = Vec::new();
    for i in 1..=100 {
        append(&broker, "events", 0, &[event(1, "jazz", 1_000 + i, 0)]).await;
        let newest = super::derived::sql(&engine, &["newest"], "SELECT amount FROM newest").await;
        if newest != [[(1_000 + i).to_string()]] {
            missed.push(format!("event {i}: {newest:?}"));
        }
    }
    assert!(missed.is_empty(), "{} of 100 missed: {:?}", missed.len(), &missed[..missed.len().min(5)]);
    engine.stop().await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_behind_something_that_has_stopped_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    create(&broker, "events", 1).await;
    let engine = Engine::start(broker.clone(), chained()).await.unwrap();
    append(&broker, "events", 0, &[event(1, "jazz", 1, 0)]).await;
    let ask = |view: &'static str, wait_ms| {
        let engine = engine.clone();
        async move { engine.read(view, ReadRequest { wait_ms, ..ReadRequest::default() }).await.unwrap() }
    };
    assert!(!ask("w", 20_000).await.stale);
    // d's pipeline cannot write any more; those behind it run on.
    broker.catalog().delete("d.rejected").await.unwrap();
    append(&broker, "events", 0, &[event(1, "jazz", 1, 0)]).await;
    broker.catalog().delete("d").await.unwrap();
    append(&broker, "events", 0, &[event(1, "jazz", 1, 0)]).await;
    let status = || engine.stream_status().into_iter().find(|status| status.stream == "d").unwrap();
    while status().derived.unwrap().error.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for view in ["v", "w"] {
        assert!(ask(view, 20_000).await.stale, "{view}");
        assert!(ask(view, 0).await.stale, "{view} without waiting");
    }
    engine.stop().await;
    broker.stop().await.unwrap();
}

async fn open_durable(data_dir: &std::path::Path, clock: Clock) -> Arc<Broker> {
    let config = BrokerConfig {
        data_dir: data_dir.to_path_buf(),
        listeners: Vec::new(),
        durability: Durability::Fsync,
        ..BrokerConfig::default()
    };
    Broker::open(config, clock).await.unwrap()
}
