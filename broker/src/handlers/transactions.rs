//! AddPartitionsToTxn (24) 0 to 3, AddOffsetsToTxn (25) 0 to 4, EndTxn (26) 0 to 5, TxnOffsetCommit (28) 0 to 5: a producer's
//! transaction, from its first partition to its end (KIP-98, KIP-447, KIP-890).
//!
//! - AddPartitionsToTxn: all partitions or none. Unknown ones are UNKNOWN_TOPIC_OR_PARTITION, the others then
//!   OPERATION_NOT_ATTEMPTED. Versions 4 and 5 are between Kafka's brokers and not offered.
//! - EndTxn: markers, offsets and the end are one commit, so what follows an answer follows the end. From version 5 on the
//!   producer gets a new epoch with each end (transactions version 2), and may abort what it has not begun.
//! - TxnOffsetCommit: offsets count when the transaction is committed. Up to version 4 the group must have been added; from
//!   version 3 on a member's generation is checked.
//! - PRODUCER_FENCED is INVALID_PRODUCER_EPOCH for versions that do not know it.

use std::sync::Arc;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestPartition;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse, ProducerId, TopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::group_offsets::check_commit;
use super::producer_ids::told;
use super::{Context, Reply};
use crate::catalog::Topic;
use crate::error::{Kind, Result};
use crate::group::offsets::Committed;
use crate::group::{Caller, Commit, Later};
use crate::log::Partition;
use crate::security::acl::{Operation, Resource};
use crate::txn::{NO_EPOCH, NO_ID, Place, Producer, TransactionVersion};
use crate::types::{PartitionIndex, TimestampMs, TopicId};

/// First version of these requests in which a fenced producer is told so.
const FENCED: i16 = 2;
/// First version of TxnOffsetCommit in which a producer is told to abort its transaction.
const ABORTABLE: i16 = 4;
/// First version of EndTxn and TxnOffsetCommit of transactions version 2.
const VERSION_TWO: i16 = 5;

/// Partitions, and why each cannot be part of the transaction.
type Verdicts = Vec<(PartitionIndex, Option<Kind>)>;

/// Answers AddPartitionsToTxn. The partitions belong to the transaction when this returns.
pub(crate) fn add_partitions_to_txn(context: &Context, version: i16, request: AddPartitionsToTxnRequest) -> Reply {
    let mut found: Vec<(Place, Arc<Partition>)> = Vec::new();
    let mut asked: Vec<(TopicName, Verdicts)> = Vec::new();
    let denied_id = denied_id(context, &request.v3_and_below_transactional_id);
    for AddPartitionsToTxnTopic { name, partitions, .. } in request.v3_and_below_topics {
        let denied = context.authorize(Operation::Write, Resource::Topic(&name)).err().map(|error| error.kind);
        let topic = context.broker.catalog().topic(&name).filter(|topic| !topic.is_internal());
        let mut known = Vec::with_capacity(partitions.len());
        for index in partitions {
            let partition = topic.as_ref().and_then(|topic| Some((topic.id(), topic.partition(index)?)));
            let absent = partition.is_none().then_some(Kind::UnknownTopicOrPartition);
            known.push((index, denied_id.or(denied).or(absent)));
            found.extend(partition.map(|(id, partition)| ((id, index), partition)));
        }
        asked.push((name, known));
    }
    let all_known = asked.iter().flat_map(|(_, known)| known).all(|(_, fault)| fault.is_none());
    let producer = Producer {
        id: &request.v3_and_below_transactional_id,
        who: (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch),
    };
    let added =
        all_known.then(|| context.broker.transactions().add_partitions(&context.broker, producer, &found, false));
    Reply::later(async move {
        let code = match added {
            None => Kind::OperationNotAttempted.code(),
            Some(added) => outcome(added, version).await,
        };
        let topics = asked.into_iter().map(|(name, known)| {
            let results = known.into_iter().map(|(index, fault)| {
                let code = fault.map_or(code, Kind::code);
                AddPartitionsToTxnPartitionResult::default().with_partition_index(index).with_partition_error_code(code)
            });
            AddPartitionsToTxnTopicResult::default().with_name(name).with_results_by_partition(results.collect())
        });
        let response = AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics.collect());
        Reply::message(version, &response)
    })
}

/// What a client is told that may not use a transactional id.
fn denied_id(context: &Context, id: &str) -> Option<Kind> {
    context.authorize(Operation::Write, Resource::TransactionalId(id)).err().map(|error| error.kind)
}

/// The code of what was started, once it is stored.
async fn outcome(started: Result<Later<()>>, version: i16) -> i16 {
    let done = match started {
        Ok(stored) => stored.await,
        Err(error) => Err(error),
    };
    done.map_or_else(|error| told(error.kind, version, FENCED).code(), |()| 0)
}

/// Answers AddOffsetsToTxn. The group belongs to the transaction when this returns.
pub(crate) fn add_offsets_to_txn(context: &Context, version: i16, request: AddOffsetsToTxnRequest) -> Reply {
    let producer = Producer { id: &request.transactional_id, who: (request.producer_id.0, request.producer_epoch) };
    let allowed = context
        .authorize(Operation::Write, Resource::TransactionalId(&request.transactional_id))
        .and_then(|()| context.authorize(Operation::Read, Resource::Group(&request.group_id)));
    let added =
        allowed.and_then(|()| context.broker.transactions().add_group(&context.broker, producer, &request.group_id));
    Reply::later(async move {
        let code = outcome(added, version).await;
        Reply::message(version, &AddOffsetsToTxnResponse::default().with_error_code(code))
    })
}

/// Answers EndTxn. The transaction has ended when this returns, unless its producer needs a fresh id.
pub(crate) fn end_txn(context: &Context, version: i16, request: EndTxnRequest) -> Reply {
    if let Some(denied) = denied_id(context, &request.transactional_id) {
        let mut response = EndTxnResponse::default().with_error_code(denied.code());
        if version >= VERSION_TWO {
            response = response.with_producer_id(ProducerId(NO_ID)).with_producer_epoch(NO_EPOCH);
        }
        return Reply::message(version, &response);
    }
    let producer = Producer { id: &request.transactional_id, who: (request.producer_id.0, request.producer_epoch) };
    let protocol = if version >= VERSION_TWO { TransactionVersion::Two } else { TransactionVersion::One };
    let ended = context.broker.transactions().end(&context.broker, producer, request.committed, protocol);
    Reply::later(async move {
        let (code, (id, epoch)) = match ended.await {
            Ok(identity) => (0, identity),
            Err(error) => (told(error.kind, version, FENCED).code(), (NO_ID, NO_EPOCH)),
        };
        let mut response = EndTxnResponse::default().with_error_code(code);
        if version >= VERSION_TWO {
            response = response.with_producer_id(ProducerId(id)).with_producer_epoch(epoch);
        }
        Reply::message(version, &response)
    })
}

/// Answers TxnOffsetCommit. The offsets are submitted when this returns.
pub(crate) fn txn_offset_commit(context: &Context, version: i16, request: TxnOffsetCommitRequest) -> Reply {
    let broker = &context.broker;
    let now = broker.clock().now_ms();
    let mut commits: Vec<Commit> = Vec::new();
    let mut answers: Vec<(TopicName, Vec<(PartitionIndex, i16)>)> = Vec::with_capacity(request.topics.len());
    let group = Resource::Group(&request.group_id);
    let denied_all = denied_id(context, &request.transactional_id)
        .or_else(|| context.authorize(Operation::Read, group).err().map(|error| error.kind))
        .or_else(|| request.group_id.is_empty().then_some(Kind::InvalidGroupId));
    for asked in request.topics {
        let topic = broker.catalog().topic(&asked.name);
        let denied = denied_all
            .or_else(|| context.authorize(Operation::Read, Resource::Topic(&asked.name)).err().map(|error| error.kind));
        let mut codes = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let checked = denied.map_or_else(|| check_partition(topic.as_deref(), &partition), Err);
            if let Ok(id) = checked {
                commits.push((id, partition.partition_index, committed(&partition, now)));
            }
            codes.push((partition.partition_index, checked.map_or_else(Kind::code, |_| 0)));
        }
        answers.push((asked.name, codes));
    }
    let producer = Producer { id: &request.transactional_id, who: (request.producer_id.0, request.producer_epoch) };
    let member = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let implicit = version >= VERSION_TWO;
    let kept = (!commits.is_empty()).then(|| {
        broker.transactions().commit_offsets(broker, producer, (&request.group_id, &member), (commits, implicit))
    });
    Reply::later(async move {
        let done = match kept {
            Some(Ok(stored)) => stored.await,
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        let failed = done.err().map(|error| refused(error.kind, version).code());
        let topics = answers.into_iter().map(|(name, codes)| {
            let partitions = codes.into_iter().map(|(index, code)| {
                let code = if code == 0 { failed.unwrap_or(0) } else { code };
                TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
            });
            TxnOffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.collect())
        });
        Reply::message(version, &TxnOffsetCommitResponse::default().with_topics(topics.collect()))
    })
}

fn check_partition(topic: Option<&Topic>, asked: &TxnOffsetCommitRequestPartition) -> Result<TopicId, Kind> {
    check_commit(topic, asked.partition_index, asked.committed_metadata.as_ref())
}

fn committed(asked: &TxnOffsetCommitRequestPartition, committed_at: TimestampMs) -> Committed {
    Committed {
        offset: asked.committed_offset,
        leader_epoch: asked.committed_leader_epoch,
        metadata: asked.committed_metadata.as_deref().unwrap_or_default().into(),
        committed_at,
        expires_at: None,
        number: 0,
    }
}

/// Kafka's group coordinator writes offsets as a producer does, and so answers as Produce does.
fn refused(kind: Kind, version: i16) -> Kind {
    match kind {
        Kind::ProducerFenced => Kind::InvalidProducerEpoch,
        Kind::TransactionAbortable if version < ABORTABLE => Kind::InvalidTxnState,
        other => other,
    }
}
