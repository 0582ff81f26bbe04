//! What a user of these cases asks of the broker. A connection that is gone is an answer; an error that nothing explains is a failure.

use crate::support::raw::{Client, fetch_request};
use crate::transactions::checker::committed;
use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};

/// The server is gone, and nobody knows what it did.
#[derive(Debug)]
pub struct Lost;

pub type Answer<T> = Result<T, Lost>;

/// KAFKA_STORAGE_ERROR.
pub const STORAGE: i16 = 56;

/// OFFSET_OUT_OF_RANGE.
const OUT_OF_RANGE: i16 = 1;
/// COORDINATOR_NOT_AVAILABLE, with which coordinators say that the store failed.
const NO_COORDINATOR: i16 = 15;

/// What is not acknowledged because the disk failed is as good as unanswered; another error is a failure of the case.
fn answered(what: &str, code: i16) -> Answer<()> {
    match code {
        0 => Ok(()),
        STORAGE | NO_COORDINATOR => Err(Lost),
        code => panic!("{what}: error {code}"),
    }
}

/// Identity of a producer: id and epoch.
pub type ProducerOf = (i64, i16);

/// Offsets and values.
pub type Records = Vec<(i64, String)>;

pub struct Caller(Client);

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

/// Version of Produce requests.
const PRODUCE: i16 = 11;

fn produce_request_of(place: (&str, i32), records: Bytes, transaction: Option<&str>) -> ProduceRequest {
    let data = produce_request::PartitionProduceData::default().with_index(place.1).with_records(Some(records));
    let data = produce_request::TopicProduceData::default().with_name(topic(place.0)).with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_transactional_id(transaction.map(|id| TransactionalId(text(id))))
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![data])
}

/// Error code and base offset of its one partition.
fn outcome(answer: &ProduceResponse) -> (i16, i64) {
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

impl Caller {
    pub fn connect(address: &str) -> Answer<Caller> {
        Client::try_connect(address).map(Caller).map_err(|_| Lost)
    }

    fn ask<R: Request>(&mut self, request: &R, version: i16) -> Answer<R::Response> {
        self.0.call(request, version).map_err(|_| Lost)
    }

    /// The base offset.
    pub fn produce(&mut self, place: (&str, i32), records: Bytes, transaction: Option<&str>) -> Answer<i64> {
        let (code, base) = self.try_produce(place, records, transaction)?;
        answered(&format!("Produce to {place:?}"), code)?;
        Ok(base)
    }

    /// Error code and base offset.
    pub fn try_produce(&mut self, place: (&str, i32), records: Bytes, transaction: Option<&str>) -> Answer<(i16, i64)> {
        Ok(outcome(&self.ask(&produce_request_of(place, records, transaction), PRODUCE)?))
    }

    /// Sends one more request before the answers to those that were sent so.
    pub fn send_produce(&mut self, place: (&str, i32), records: Bytes) -> Answer<()> {
        self.0.send(&produce_request_of(place, records, None), PRODUCE).map_err(|_| Lost)
    }

    /// The base offset that the next answer tells, behind which so many are still due.
    pub fn produced(&mut self, behind: usize) -> Answer<i64> {
        let answer = self.0.receive::<ProduceRequest>(PRODUCE, behind as i32).map_err(|_| Lost)?;
        let (code, base) = outcome(&answer);
        answered("Produce", code)?;
        Ok(base)
    }

    /// A producer's identity; a transaction that its predecessor left open is aborted.
    pub fn identity(&mut self, transaction: Option<&str>) -> Answer<ProducerOf> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(transaction.map(|id| TransactionalId(text(id))))
            .with_transaction_timeout_ms(60_000);
        loop {
            let answer = self.ask(&request, 4)?;
            match answer.error_code {
                51 => std::thread::sleep(std::time::Duration::from_millis(5)),
                code => {
                    answered("InitProducerId", code)?;
                    return Ok((answer.producer_id.0, answer.producer_epoch));
                }
            }
        }
    }

    /// The two partitions of `name`, and the group's offsets, belong to the transaction.
    pub fn begin(&mut self, id: &str, (producer, epoch): ProducerOf, (name, of): (&str, &str)) -> Answer<()> {
        let id = TransactionalId(text(id));
        let topics = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![0, 1]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id.clone())
            .with_v3_and_below_producer_id(ProducerId(producer))
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(vec![topics]);
        let answer = self.ask(&request, 3)?;
        let results = answer.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
        for one in results {
            answered("AddPartitionsToTxn", one.partition_error_code)?;
        }
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(id)
            .with_producer_id(ProducerId(producer))
            .with_producer_epoch(epoch)
            .with_group_id(group(of));
        let answer = self.ask(&request, 3)?;
        answered("AddOffsetsToTxn", answer.error_code)
    }

    /// An offset of `name`'s partition 0, that counts once the transaction is committed.
    pub fn offset_in(
        &mut self,
        id: &str,
        (producer, epoch): ProducerOf,
        (name, of): (&str, &str),
        at: i64,
    ) -> Answer<()> {
        let wanted = txn_offset_commit_request::TxnOffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(at);
        let wanted = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![wanted]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(producer))
            .with_producer_epoch(epoch)
            .with_group_id(group(of))
            .with_generation_id(-1)
            .with_topics(vec![wanted]);
        let answer = self.ask(&request, 3)?;
        answered("TxnOffsetCommit", answer.topics[0].partitions[0].error_code)
    }

    pub fn end(&mut self, id: &str, (producer, epoch): ProducerOf, commits: bool) -> Answer<()> {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(producer))
            .with_producer_epoch(epoch)
            .with_committed(commits);
        let answer = self.ask(&request, 3)?;
        answered("EndTxn", answer.error_code)
    }

    /// Commits an offset of `name`'s partition 0 for a group without members.
    pub fn commit_offset(&mut self, (name, of): (&str, &str), at: i64) -> Answer<()> {
        let wanted = offset_commit_request::OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(at);
        let wanted = offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![wanted]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group(of))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![wanted]);
        let answer = self.ask(&request, 7)?;
        answered("OffsetCommit", answer.topics[0].partitions[0].error_code)
    }

    /// What the group committed of `name`'s partition 0; -1 for nothing.
    pub fn offset_of(&mut self, (name, of): (&str, &str)) -> Answer<i64> {
        let wanted = offset_fetch_request::OffsetFetchRequestTopic::default()
            .with_name(topic(name))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default().with_group_id(group(of)).with_topics(Some(vec![wanted]));
        let answer = self.ask(&request, 5)?;
        let partition = &answer.topics[0].partitions[0];
        answered("OffsetFetch", answer.error_code)?;
        answered("OffsetFetch", partition.error_code)?;
        Ok(partition.committed_offset)
    }

    /// Deletes the records of partition 0 before `before`; the low watermark that the answer tells.
    pub fn delete_records(&mut self, name: &str, before: i64) -> Answer<i64> {
        let wanted =
            delete_records_request::DeleteRecordsPartition::default().with_partition_index(0).with_offset(before);
        let wanted =
            delete_records_request::DeleteRecordsTopic::default().with_name(topic(name)).with_partitions(vec![wanted]);
        let request = DeleteRecordsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
        let answer = self.ask(&request, 2)?;
        let partition = &answer.topics[0].partitions[0];
        answered("DeleteRecords", partition.error_code)?;
        Ok(partition.low_watermark)
    }

    /// One fetch.
    pub fn fetch(&mut self, place: (&str, i32), from: i64, stable: bool) -> Answer<fetch_response::PartitionData> {
        Ok(self.ask(&fetch_request(place, from, stable), 12)?.responses.remove(0).partitions.remove(0))
    }

    /// Where the log begins.
    fn earliest(&mut self, place: (&str, i32)) -> Answer<i64> {
        let wanted = list_offsets_request::ListOffsetsPartition::default()
            .with_partition_index(place.1)
            .with_current_leader_epoch(-1)
            .with_timestamp(-2);
        let wanted =
            list_offsets_request::ListOffsetsTopic::default().with_name(topic(place.0)).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
        let answer = self.ask(&request, 5)?;
        let partition = &answer.topics[0].partitions[0];
        answered("ListOffsets", partition.error_code)?;
        Ok(partition.offset)
    }

    /// All records, from where the log begins to its end: where that is, and they.
    pub fn read(&mut self, place: (&str, i32), stable: bool) -> Answer<(i64, Records)> {
        let mut start = self.earliest(place)?;
        let (mut next, mut records) = (start, Records::new());
        loop {
            let data = self.fetch(place, next, stable)?;
            if data.error_code == OUT_OF_RANGE && self.earliest(place)? > next {
                // retention took it meanwhile
                (next, records) = (self.earliest(place)?, Records::new());
                start = next;
                continue;
            }
            assert_eq!(data.error_code, 0, "{place:?} at {next}: {data:?}");
            assert!(next <= data.high_watermark, "{place:?}: {next} is beyond {}", data.high_watermark);
            let (found, at) = committed(&data, next);
            records.extend(found);
            if at == next {
                assert_eq!(at, data.high_watermark, "{place:?} is read to its end");
                return Ok((start, records));
            }
            next = at;
        }
    }
}
