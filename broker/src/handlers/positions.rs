//! ListOffsets (2) 1 to 10, OffsetForLeaderEpoch (23) 2 to 4, DeleteRecords (21) 0 to 2: where a log begins and ends.
//!
//! - ListOffsets: -1 high watermark, -2 where clients can begin, -3 first record with the largest timestamp that the log has, -4
//!   where the log begins, -5 the last offset of the cold log (-1 without one), from 0 on the first record that is at least so
//!   young, in the cold log or in the log; none of them gives -1 and no error.
//!   A special value that the version does not know is UNSUPPORTED_VERSION, as in Kafka.
//! - For readers of committed data (version 2 on) the log ends at the last stable offset: -1 gives that, and what lies at or
//!   above it is not found.
//! - DeleteRecords: -1 deletes up to the high watermark, in the log and in the cold log. A topic without `delete` in its `cleanup.policy` is
//!   POLICY_VIOLATION. Left out: waiting for other replicas, of which there are none.

use std::sync::Arc;

use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, TopicName,
};

use super::topics::once;
use super::{Context, Reply};
use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Change};
use crate::log::Partition;
use crate::security::acl::{Operation, Resource};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs};

const LATEST: TimestampMs = -1;
const EARLIEST: TimestampMs = -2;
const MAX_TIMESTAMP: TimestampMs = -3;
const EARLIEST_LOCAL: TimestampMs = -4;
const LATEST_TIERED: TimestampMs = -5;

/// An offset that was looked for: offset, timestamp (-1 unless a record was found) and leader epoch.
type Found = (Offset, TimestampMs, LeaderEpoch);
const NOTHING: Found = (-1, -1, -1);

/// Answers ListOffsets.
pub(crate) fn list_offsets(context: &Context, version: i16, request: ListOffsetsRequest) -> Reply {
    if let Err(error) = known_isolation(request.isolation_level) {
        return not_listed(version, request, &error);
    }
    let context = context.clone();
    Reply::later(async move {
        let look = Look { version, committed_only: request.isolation_level != 0 };
        let all = request.topics.iter();
        let mut topics: Vec<_> =
            all.map(|topic| ListOffsetsTopicResponse::default().with_name(topic.name.clone())).collect();
        let all = request.topics.iter().enumerate();
        let all = all.flat_map(|(at, topic)| topic.partitions.iter().map(move |asked| (at, &topic.name, asked)));
        for ((at, topic, asked), twice) in once(all, |(_, topic, asked)| (*topic, asked.partition_index)) {
            let found = if twice {
                let twice = Error::new(Kind::InvalidRequest, "the partition is asked for twice");
                context.authorize(Operation::Describe, Resource::Topic(topic)).and(Err(twice))
            } else {
                find(&context, look, topic, asked).await
            };
            topics[at].partitions.push(listed(version, asked.partition_index, found));
        }
        Reply::message(version, &ListOffsetsResponse::default().with_topics(topics))
    })
}

fn not_listed(version: i16, request: ListOffsetsRequest, error: &Error) -> Reply {
    let topics = request.topics.into_iter().map(|topic| {
        let refused = |asked: &ListOffsetsPartition| listed(version, asked.partition_index, Err(error.clone()));
        let partitions = topic.partitions.iter().map(refused).collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    Reply::message(version, &ListOffsetsResponse::default().with_topics(topics.collect()))
}

/// Readers of everything (0) and of what is committed (1); Kafka has no better error for another than that of a failure.
pub(super) fn known_isolation(level: i8) -> Result<()> {
    if (0..=1).contains(&level) {
        return Ok(());
    }
    Err(Error::new(Kind::Bug, format!("there is no isolation level {level}; 0 reads everything, 1 what is committed")))
}

/// How a request looks at logs.
#[derive(Clone, Copy)]
struct Look {
    version: i16,
    committed_only: bool,
}

async fn find(context: &Context, look: Look, topic: &TopicName, asked: &ListOffsetsPartition) -> Result<Found> {
    let Look { version, committed_only } = look;
    context.authorize(Operation::Describe, Resource::Topic(topic))?;
    let partition = partition(context, topic, asked.partition_index)?;
    fence(&partition, asked.current_leader_epoch)?;
    let end = if committed_only { partition.last_stable_offset() } else { partition.high_watermark() };
    let below = |found: Option<(Offset, TimestampMs)>| found.filter(|(offset, _)| *offset < end);
    let at = |offset: Offset| (offset, -1, partition.epoch_at(offset));
    match asked.timestamp {
        LATEST => Ok((end, -1, partition.leader_epoch())),
        EARLIEST => Ok(at(partition.earliest())),
        EARLIEST_LOCAL if version >= 8 => Ok(at(partition.log_start())),
        LATEST_TIERED if version >= 9 => Ok(last_cold(&partition).map_or(NOTHING, at)),
        MAX_TIMESTAMP if version >= 7 => Ok(of_record(&partition, below(partition.max_timestamp_offset().await?))),
        time if time >= 0 => {
            let found = context.broker.catalog().cold().offset_for_timestamp(&partition, time).await?;
            Ok(of_record(&partition, below(found)))
        }
        other => Err(Error::new(
            Kind::UnsupportedVersion,
            format!("timestamp {other} has no meaning in version {version} of ListOffsets"),
        )),
    }
}

/// The last offset that clients could read in the cold log.
fn last_cold(partition: &Partition) -> Option<Offset> {
    let (_, end) = partition.cold_run()?;
    (end > partition.earliest()).then_some(end - 1)
}

fn of_record(partition: &Partition, found: Option<(Offset, TimestampMs)>) -> Found {
    found.map_or(NOTHING, |(offset, timestamp)| (offset, timestamp, partition.epoch_at(offset)))
}

fn listed(version: i16, index: PartitionIndex, found: Result<Found>) -> ListOffsetsPartitionResponse {
    let (code, (offset, timestamp, epoch)) = match found {
        Ok(found) => (0, found),
        Err(error) => (error.kind.code(), NOTHING),
    };
    ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(code)
        .with_offset(offset)
        .with_timestamp(timestamp)
        .with_leader_epoch(if version >= 4 { epoch } else { -1 })
}

/// Answers OffsetForLeaderEpoch (KIP-101, KIP-320).
pub(crate) fn offset_for_leader_epoch(context: &Context, version: i16, request: OffsetForLeaderEpochRequest) -> Reply {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let answer = |asked: &OffsetForLeaderPartition| {
            let end = epoch_end(context, &topic.topic, asked);
            let (code, (epoch, offset)) = end.map_or_else(|e| (e.kind.code(), (-1, -1)), |end| (0, end));
            EpochEndOffset::default()
                .with_partition(asked.partition)
                .with_error_code(code)
                .with_leader_epoch(epoch)
                .with_end_offset(offset)
        };
        let partitions = topic.partitions.iter().map(answer).collect();
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    Reply::message(version, &OffsetForLeaderEpochResponse::default().with_topics(topics))
}

fn epoch_end(context: &Context, topic: &TopicName, asked: &OffsetForLeaderPartition) -> Result<(LeaderEpoch, Offset)> {
    if !context.may(Operation::ClusterAction, Resource::Cluster) {
        context.authorize(Operation::Describe, Resource::Topic(topic))?;
    }
    let partition = partition(context, topic, asked.partition)?;
    fence(&partition, asked.current_leader_epoch)?;
    Ok(partition.end_offset_for_epoch(asked.leader_epoch))
}

/// Answers DeleteRecords. The order of the deletions among other writes is fixed when this returns.
pub(crate) fn delete_records(context: &Context, version: i16, request: DeleteRecordsRequest) -> Reply {
    let mut outcomes = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let started: Vec<_> = topic
            .partitions
            .iter()
            .map(|asked| {
                (asked.partition_index, start_deletion(context, &topic.name, asked.partition_index, asked.offset))
            })
            .collect();
        outcomes.push((topic.name, started));
    }
    Reply::later(async move {
        let mut topics = Vec::with_capacity(outcomes.len());
        for (name, started) in outcomes {
            let mut partitions = Vec::with_capacity(started.len());
            for (index, deletion) in started {
                let start = match deletion {
                    Err(error) => Err(error),
                    Ok((partition, done)) => done.await.map(|_| partition.earliest()),
                };
                let (code, low_watermark) = start.map_or_else(|e| (e.kind.code(), -1), |start| (0, start));
                partitions.push(
                    DeleteRecordsPartitionResult::default()
                        .with_partition_index(index)
                        .with_error_code(code)
                        .with_low_watermark(low_watermark),
                );
            }
            topics.push(DeleteRecordsTopicResult::default().with_name(name).with_partitions(partitions));
        }
        Reply::message(version, &DeleteRecordsResponse::default().with_topics(topics))
    })
}

type Deletion = (Arc<Partition>, futures::future::BoxFuture<'static, Result<()>>);

fn start_deletion(context: &Context, topic: &TopicName, index: PartitionIndex, before: Offset) -> Result<Deletion> {
    context.authorize(Operation::Delete, Resource::Topic(topic))?;
    let partition = partition(context, topic, index)?;
    if !partition.config().deletes() {
        let message = format!("the cleanup.policy of topic {} does not allow records to be deleted", topic.0);
        return Err(Error::new(Kind::PolicyViolation, message));
    }
    let end = partition.high_watermark();
    let before = if before == -1 { end } else { before };
    if before < 0 || before > end {
        let message = format!("cannot delete up to offset {before}, the log ends at {end}");
        return Err(Error::new(Kind::OffsetOutOfRange, message));
    }
    let change = Change::Earliest(partition.clone(), before);
    let done = context.broker.lane().commit(vec![change], Ack::Durable);
    Ok((partition, Box::pin(async move { done.await.map(drop) })))
}

/// The partition that a request names.
pub(super) fn partition(context: &Context, topic: &TopicName, index: PartitionIndex) -> Result<Arc<Partition>> {
    context.broker.catalog().topic(topic).and_then(|topic| topic.partition(index)).ok_or_else(|| {
        Error::new(Kind::UnknownTopicOrPartition, format!("there is no partition {index} of topic {}", topic.0))
    })
}

/// Compares the leader epoch that a client believes in; -1 is none (KIP-320).
pub(super) fn fence(partition: &Partition, believed: LeaderEpoch) -> Result<()> {
    let current = partition.leader_epoch();
    let kind = match believed {
        -1 => return Ok(()),
        believed if believed == current => return Ok(()),
        believed if believed < current => Kind::FencedLeaderEpoch,
        _ => Kind::UnknownLeaderEpoch,
    };
    Err(Error::new(kind, format!("the leader epoch is {current}, the client believes in {believed}")))
}
