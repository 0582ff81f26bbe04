//! Pipelines far behind their log, which have the next step read and decoded while they compute one.

use std::time::Duration;

use super::fill::{status, trim, until};
use super::*;

const PARTITIONS: i32 = 2;
const BATCHES: i64 = 25;
const BATCH: i64 = 20;
const ALL: i64 = PARTITIONS as i64 * BATCHES * BATCH;
const COUNT: &str = "v AS SELECT count(*) AS n, sum(amount) AS total FROM s";

/// Batches so large that each partition takes several reads.
async fn backlog(broker: &Broker) {
    create(broker, "events", PARTITIONS).await;
    let note = format!("{{\"note\":\"{}\",", "x".repeat(12_000));
    for batch in 0..BATCHES {
        for partition in 0..PARTITIONS {
            let at = |n: i64| event(n, "jazz", 1, batch * 1_000 + n).replacen('{', &note, 1);
            append(broker, "events", partition, &(0..BATCH).map(at).collect::<Vec<_>>()).await;
        }
    }
}

fn counted(rows: &[Vec<String>]) -> i64 {
    assert_eq!(rows[0][0], rows[0][1], "each counts 1");
    rows[0][0].parse().unwrap()
}

/// What is deleted from under the reader is counted as lost where it was not counted, and never twice.
#[tokio::test(flavor = "multi_thread")]
async fn each_record_counts_once_or_is_lost() {
    let mut lost = 0;
    for round in 0..8_u64 {
        let dir = tempfile::tempdir().unwrap();
        let broker = open_broker(dir.path()).await;
        backlog(&broker).await;
        let engine = Engine::start(broker.clone(), config(&[COUNT])).await.unwrap();
        // a view begins at the log's start as it is when its thread first looks: what is deleted after that counts
        let partitions = broker.catalog().topic("events").unwrap().partitions();
        while !partitions.iter().all(|partition| broker.holds().floor(partition.id()).is_some()) {
            tokio::task::yield_now().await; // without a pause, in which all would be read
        }
        tokio::time::sleep(Duration::from_millis(round * 4)).await;
        trim(&broker, 0, 150 + 40 * round as i64).await;
        trim(&broker, 1, 470).await;
        let rows = read(&engine, "v").await;
        let status = status(&engine, "v");
        lost += status.lost;
        assert_eq!(counted(&rows) + status.lost as i64, ALL, "round {round}: {status:?}");
        assert_eq!(status.rows_applied as i64, counted(&rows));
        engine.stop().await;
        broker.stop().await.unwrap();
    }
    assert!(lost > 0, "nothing was deleted before it was read");
}

/// The engine ends anywhere, and goes on from its last commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_on_after_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    backlog(&broker).await;
    let mut runs = 0;
    loop {
        let engine = Engine::start(broker.clone(), config(&[COUNT])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3 * runs)).await;
        engine.stop().await;
        runs += 1;
        if status(&engine, "v").lag_records == 0 {
            break;
        }
    }
    assert!(runs > 1, "all was read at once");
    let engine = Engine::start(broker.clone(), config(&[COUNT])).await.unwrap();
    assert_eq!(counted(&read(&engine, "v").await), ALL);
    assert_eq!(status(&engine, "v").lost, 0);
    engine.stop().await;
    broker.stop().await.unwrap();
}

/// The topic is deleted and made again while its backlog is read: nothing of the former one is counted in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_is_read_alone() {
    for round in 0..5_u64 {
        let dir = tempfile::tempdir().unwrap();
        let broker = open_broker(dir.path()).await;
        backlog(&broker).await;
        let engine = Engine::start(broker.clone(), config(&[COUNT])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(round * 5)).await;
        broker.catalog().delete("events").await.unwrap();
        create(&broker, "events", 1).await;
        append(&broker, "events", 0, &[event(1, "jazz", 1, 5)]).await;
        until(|| status(&engine, "v").positions["events"].get(&0) == Some(&1)).await;
        assert_eq!(counted(&read(&engine, "v").await), 1, "round {round}");
        engine.stop().await;
        broker.stop().await.unwrap();
    }
}
