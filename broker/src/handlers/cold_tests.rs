//! A tiered topic over a cold log that a test makes up: what clients see of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::tests::{Node, node};
use crate::types::{LogId, Offset, TimestampMs};
use crate::{
    Ack, Append, Batch, BatchBuilder, Change, ColdLog, ColdRead, ColdRecord, Error, Kind, NewTopic, Origin, Partition,
    Rebuild, Result, batches_in,
};

const TIERED: &str = "tiered";
/// The clock at the start.
const NOW: TimestampMs = 1_700_000_000_000;

/// Records by offset, with the times they have.
#[derive(Default)]
struct Shelf {
    records: BTreeMap<Offset, TimestampMs>,
    away: AtomicBool,
}

impl ColdLog for Shelf {
    fn keeps(&self, topic: &str) -> bool {
        topic == TIERED
    }

    fn read(&self, _log: LogId, wanted: ColdRead) -> BoxFuture<'static, Result<Vec<Batch>>> {
        if self.away.load(Ordering::Acquire) {
            return async { Err(Error::new(Kind::ColdLogAway, "away")) }.boxed();
        }
        let mut rebuild = Rebuild::new(wanted);
        for (offset, timestamp) in &self.records {
            let value = format!("v{offset}");
            let record = ColdRecord {
                offset: *offset,
                timestamp: *timestamp,
                append_time: false,
                key: None,
                value: Some(value.as_bytes()),
                headers: &[0],
            };
            if !rebuild.offer(&record) {
                break;
            }
        }
        let batches = rebuild.finish(wanted.end);
        async move { Ok(batches) }.boxed()
    }

    fn first_at(
        &self,
        _log: LogId,
        target: TimestampMs,
        (from, end): (Offset, Offset),
    ) -> BoxFuture<'static, Result<Option<(Offset, TimestampMs)>>> {
        let found = self.records.range(from..end).find(|(_, time)| **time >= target).map(|(at, time)| (*at, *time));
        let away = self.away.load(Ordering::Acquire);
        async move { if away { Err(Error::new(Kind::ColdLogAway, "away")) } else { Ok(found) } }.boxed()
    }
}

struct Tiered {
    node: Node,
    partition: Arc<Partition>,
    shelf: Arc<Shelf>,
}

/// Ten records of their own batches in the log; all but 3 and 4, which were aborted, say, are on the shelf, which ends at 8.
async fn tiered() -> Tiered {
    let node = node().await;
    let records = (0..8).filter(|at| ![3, 4].contains(at)).map(|at| (at, NOW + at * 10)).collect();
    let shelf = Arc::new(Shelf { records, away: AtomicBool::new(false) });
    let broker = &node.context.broker;
    let cold: Arc<dyn ColdLog> = shelf.clone();
    broker.serve_cold(&cold);
    let config = [("remote.storage.enable", "true"), ("local.retention.ms", "0"), ("retention.ms", "-1")];
    let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let topic = broker.catalog().create(NewTopic { name: TIERED.into(), partitions: 1, config }).await.unwrap();
    let partition = topic.partition(0).unwrap();
    for at in 0..10 {
        let mut batch = BatchBuilder::new();
        batch.push(NOW + at * 10, None, Some(format!("v{at}").as_bytes()), &[]);
        let append = Append { partition: partition.clone(), batch: batch.build().unwrap(), origin: Origin::Internal };
        broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
    }
    node.context.broker.clock().advance(1_000_000);
    Tiered { node, partition, shelf }
}

impl Tiered {
    async fn fetch(&self, from: Offset, (max_bytes, isolation): (i32, i8)) -> PartitionData {
        let asked =
            FetchPartition::default().with_partition(0).with_fetch_offset(from).with_partition_max_bytes(max_bytes);
        let topic = FetchTopic::default().with_topic(name(TIERED)).with_partitions(vec![asked]);
        let request =
            FetchRequest::default().with_topics(vec![topic]).with_min_bytes(1).with_isolation_level(isolation);
        self.node.ask(12, &request).await.responses.remove(0).partitions.remove(0)
    }

    /// Offsets and values from the beginning that clients are told to the end.
    async fn read_all(&self, isolation: i8) -> Vec<(Offset, String)> {
        let (mut at, mut read) = (self.list(-2).await.1, Vec::new());
        while at < self.partition.high_watermark() {
            let data = self.fetch(at, (150, isolation)).await;
            assert_eq!((data.error_code, data.log_start_offset), (0, self.partition.earliest()));
            assert!(isolation == 0 || data.aborted_transactions.is_none_or(|aborted| aborted.is_empty()));
            for batch in batches_in(data.records.unwrap()).unwrap() {
                batch.check_crc().unwrap();
                let records =
                    batch.records().unwrap().map(|record| record.unwrap()).filter(|record| record.offset >= at);
                read.extend(
                    records.map(|record| (record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap())),
                );
                at = batch.next_offset();
            }
        }
        read
    }

    /// Code, offset and timestamp.
    async fn list(&self, timestamp: i64) -> (i16, Offset, TimestampMs) {
        let asked = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default().with_name(name(TIERED)).with_partitions(vec![asked]);
        let got = self.node.ask(10, &ListOffsetsRequest::default().with_topics(vec![topic])).await;
        let got = &got.topics[0].partitions[0];
        (got.error_code, got.offset, got.timestamp)
    }

    async fn sweep(&self) {
        self.node.context.broker.sweep_retention().await.unwrap();
    }
}

fn name(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_lets_go_only_what_the_cold_log_has_and_clients_read_on() {
    let tiered = tiered().await;
    let (partition, shelf) = (&tiered.partition, &tiered.shelf);
    tiered.sweep().await;
    assert_eq!((partition.log_start(), partition.earliest()), (0, 0), "the cold log has said nothing yet");
    assert_eq!((tiered.list(-4).await.1, tiered.list(-5).await.1), (0, -1));

    partition.set_cold([(0, 5), (6, 8)].into());
    for _ in 0..2 {
        tiered.sweep().await;
        assert_eq!((partition.log_start(), partition.earliest()), (5, 0), "the log keeps what is not cold");
    }
    partition.set_cold([(0, 8)].into());
    tiered.sweep().await;
    assert_eq!(partition.log_start(), 8);
    assert_eq!((tiered.list(-2).await, tiered.list(-4).await), ((0, 0, -1), (0, 8, -1)));
    assert_eq!(tiered.list(-5).await, (0, 7, -1));
    assert_eq!(tiered.list(NOW + 11).await, (0, 2, NOW + 20));
    assert_eq!(tiered.list(NOW + 25).await, (0, 5, NOW + 50), "over what is not there any more");
    assert_eq!(tiered.list(NOW + 75).await, (0, 8, NOW + 80), "in the log");
    let wanted: Vec<_> = (0..10).filter(|at| ![3, 4].contains(at)).map(|at| (at, format!("v{at}"))).collect();
    for isolation in [0, 1] {
        assert_eq!(tiered.read_all(isolation).await, wanted, "isolation {isolation}");
    }

    shelf.away.store(true, Ordering::Release);
    assert_eq!(tiered.fetch(2, (1_000, 0)).await.error_code, 56);
    assert_eq!(tiered.list(NOW).await.0, 56);
    assert_eq!(tiered.fetch(8, (1_000, 0)).await.error_code, 0, "the log is there");
    shelf.away.store(false, Ordering::Release);
    partition.set_cold([(1, 8)].into());
    assert_eq!(tiered.fetch(0, (1_000, 0)).await.error_code, 1, "too old for the cold log");
    assert_eq!(tiered.list(-2).await.1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_are_gone_from_both() {
    let tiered = tiered().await;
    let partition = &tiered.partition;
    partition.set_cold([(0, 8)].into());
    tiered.sweep().await;
    assert_eq!((partition.log_start(), partition.earliest()), (8, 0));
    let delete = async |before: Offset| {
        let asked = DeleteRecordsPartition::default().with_partition_index(0).with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(name(TIERED)).with_partitions(vec![asked]);
        let got = tiered.node.ask(2, &DeleteRecordsRequest::default().with_topics(vec![topic])).await;
        (got.topics[0].partitions[0].error_code, got.topics[0].partitions[0].low_watermark)
    };
    assert_eq!(delete(6).await, (0, 6));
    assert_eq!((partition.log_start(), tiered.list(-2).await.1), (8, 6));
    assert_eq!(tiered.fetch(5, (1_000, 0)).await.error_code, 1);
    assert_eq!(delete(3).await, (0, 6), "it never goes back");
    assert_eq!(delete(9).await, (0, 9));
    assert_eq!((partition.log_start(), partition.earliest(), partition.floor()), (9, 9, 9));
    assert_eq!(tiered.list(-5).await.1, -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_tier_comes_and_goes_as_in_kafka() {
    let tiered = tiered().await;
    let catalog = tiered.node.context.broker.catalog();
    let on = || BTreeMap::from([("remote.storage.enable".to_owned(), "true".to_owned())]);
    let error = catalog.create(NewTopic { name: "other".into(), partitions: 1, config: on() }).await.err().unwrap();
    assert!(error.kind == Kind::InvalidConfig && error.message.contains("raw = true"), "{error}");
    assert!(catalog.set_config("t", on()).await.unwrap_err().message.contains("raw = true"));
    let error = catalog.set_config(TIERED, BTreeMap::new()).await.unwrap_err();
    assert!(error.message.contains("remote.log.delete.on.disable=true"), "{error}");
    tiered.partition.set_cold([(0, 8)].into());
    tiered.sweep().await;
    let off = BTreeMap::from([("remote.log.delete.on.disable".to_owned(), "true".to_owned())]);
    catalog.set_config(TIERED, off).await.unwrap();
    assert_eq!((tiered.list(-2).await.1, tiered.list(-5).await.1), (8, -1));
    assert_eq!(tiered.fetch(2, (1_000, 0)).await.error_code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_for_the_topic_is_gone_from_both_and_stays_so() {
    let tiered = tiered().await;
    let broker = &tiered.node.context.broker;
    tiered.partition.set_cold([(0, 4)].into());
    tiered.sweep().await;
    assert_eq!((tiered.partition.log_start(), tiered.partition.earliest()), (4, 0));
    let config = [("remote.storage.enable", "true"), ("retention.ms", "999940")];
    let config = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    broker.catalog().set_config(TIERED, config).await.unwrap();
    tiered.sweep().await;
    assert_eq!((tiered.partition.log_start(), tiered.partition.earliest(), tiered.partition.floor()), (6, 6, 6));
    let again =
        Partition::recover(broker.store(), tiered.partition.id(), (TIERED.into(), 0), tiered.partition.config());
    let again = again.unwrap();
    again.set_cold([(0, 8)].into());
    assert_eq!((again.log_start(), again.earliest()), (6, 6), "after a restart too");
}
