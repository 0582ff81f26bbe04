//! DescribeProducers (61) 0, DescribeTransactions (65) 0, ListTransactions (66) 0 to 2, WriteTxnMarkers (27) 1: what
//! kafka-transactions.sh and consoles look at, and how they abort a transaction that hangs (KIP-664, KIP-994, KIP-1152).
//!
//! - DescribeTransactions gives partitions of topics that the client may look at, and no place of Kafka's
//!   `__consumer_offsets`: offsets are not a topic here.
//! - ListTransactions filters by state, producer, age of the open transaction (version 1) and pattern of the id (version 2).
//! - WriteTxnMarkers ends a transaction in a partition without the coordinator: what the producer writes there later begins
//!   anew. Markers of an old producer or coordinator epoch are refused.

use std::sync::Arc;

use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, ListTransactionsRequest, ListTransactionsResponse,
    ProducerId, TopicName, TransactionalId, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use kafka_protocol::protocol::StrBytes;
use regex::Regex;

use super::list_reply::{ListReply, Shape};
use super::{Context, Reply, text};
use crate::builder::transaction_marker;
use crate::catalog::{Catalog, check_name};
use crate::error::{Error, Kind, Result};
use crate::group::Later;
use crate::group::consumer::regex::compile;
use crate::lane::{Ack, Append, Change, Marker, Origin};
use crate::log::Partition;
use crate::security::acl::{Operation, Resource};
use crate::txn::{NO_EPOCH, NO_ID, Phase, Txn};
use crate::types::{PartitionIndex, TimestampMs};

/// States of Kafka's coordinator that no transaction of ours is ever in, but that may be filtered for.
const OTHER_STATES: [&str; 4] = ["PrepareCommit", "PrepareAbort", "PrepareEpochFence", "Dead"];

/// The answers of DescribeProducers and DescribeTransactions.
const FLEXIBLE: Shape = Shape { version: 0, throttled: true, flexible: true };

/// Answers DescribeProducers.
pub(crate) fn describe_producers(context: &Context, _: i16, request: DescribeProducersRequest) -> Reply {
    let context = context.clone();
    Reply::later(async move {
        let mut topics = ListReply::new(&context, FLEXIBLE);
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for index in topic.partition_indexes {
                let partition = match topics.room() {
                    Ok(()) => producers(&context, &topic.name, index).await,
                    Err(error) => refused(PartitionResponse::default().with_partition_index(index), &error),
                };
                topics.reserve(&partition).await;
                partitions.push(partition);
            }
            topics.push(&TopicResponse::default().with_name(topic.name).with_partitions(partitions)).await;
        }
        topics.finish()
    })
}

async fn producers(context: &Context, topic: &TopicName, index: PartitionIndex) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index);
    let allowed = context.authorize(Operation::Read, Resource::Topic(topic));
    let found =
        match allowed.and_then(|()| check_name(topic)).and_then(|()| partition(context.broker.catalog(), topic, index))
        {
            Ok(partition) => partition.active_producers().await,
            Err(error) => Err(error),
        };
    match found {
        Ok(active) => response.with_active_producers(
            active
                .into_iter()
                .map(|one| {
                    ProducerState::default()
                        .with_producer_id(ProducerId(one.producer_id))
                        .with_producer_epoch(i32::from(one.epoch))
                        .with_last_sequence(one.last_sequence)
                        .with_last_timestamp(one.last_timestamp)
                        .with_coordinator_epoch(one.coordinator_epoch)
                        .with_current_txn_start_offset(one.open_from.unwrap_or(-1))
                })
                .collect(),
        ),
        Err(error) => refused(response, &error),
    }
}

fn refused(response: PartitionResponse, error: &Error) -> PartitionResponse {
    response.with_error_code(error.kind.code()).with_error_message(Some(text(&error.message)))
}

fn partition(catalog: &Catalog, topic: &TopicName, index: PartitionIndex) -> Result<Arc<Partition>> {
    catalog.topic(topic).and_then(|topic| topic.partition(index)).ok_or_else(|| {
        Error::new(Kind::UnknownTopicOrPartition, format!("there is no partition {index} of topic {}", topic.0))
    })
}

/// Answers DescribeTransactions.
pub(crate) fn describe_transactions(context: &Context, _: i16, request: DescribeTransactionsRequest) -> Reply {
    let context = context.clone();
    Reply::later(async move {
        let mut states = ListReply::new(&context, FLEXIBLE);
        for id in request.transactional_ids {
            let asked = Resource::TransactionalId(&id);
            let found = context.authorize(Operation::Describe, asked).and_then(|()| states.room()).and_then(|()| {
                let kind = if id.is_empty() { Kind::InvalidRequest } else { Kind::TransactionalIdNotFound };
                let found = context.broker.transactions().read(|state| state.get(&id).cloned());
                found.ok_or_else(|| Error::new(kind, "there is no such transactional id"))
            });
            let response = TransactionState::default().with_transactional_id(id);
            let response = match found {
                Ok(txn) => shown(response, &context, &txn),
                Err(error) => response.with_error_code(error.kind.code()),
            };
            states.push(&response).await;
        }
        states.finish()
    })
}

/// The transaction with those of its topics that the client may look at.
fn shown(response: TransactionState, context: &Context, txn: &Txn) -> TransactionState {
    let mut topics: Vec<TopicData> = Vec::new();
    for (topic, index) in &txn.places {
        let Some(topic) = context.broker.catalog().topic_by_id(*topic) else { continue };
        match topics.last_mut().filter(|last| *last.topic.0 == **topic.name()) {
            Some(last) => last.partitions.push(*index),
            None => {
                let name = TopicName(text(topic.name()));
                topics.push(TopicData::default().with_topic(name).with_partitions(vec![*index]));
            }
        }
    }
    topics.retain(|topic| context.may(Operation::Describe, Resource::Topic(&topic.topic)));
    response
        .with_transaction_state(StrBytes::from_static_str(txn.phase.name()))
        .with_transaction_timeout_ms(txn.timeout_ms)
        .with_transaction_start_time_ms(txn.started_at)
        .with_producer_id(ProducerId(txn.producer_id))
        .with_producer_epoch(txn.epoch)
        .with_topics(topics)
}

/// Answers ListTransactions.
pub(crate) fn list_transactions(context: &Context, version: i16, request: ListTransactionsRequest) -> Reply {
    let response = ListTransactionsResponse::default();
    let filter = match Filter::of(version, &request, context.broker.clock().now_ms()) {
        Ok(filter) => filter,
        Err(error) => return Reply::message(version, &response.with_error_code(error.kind.code())),
    };
    let known = |name: &StrBytes| {
        Phase::ALL.iter().any(|phase| phase.name() == name.as_str()) || OTHER_STATES.contains(&name.as_str())
    };
    let unknown = request.state_filters.iter().filter(|name| !known(name)).cloned().collect();
    let mut listed: Vec<ListedTransaction> = context.broker.transactions().read(|state| {
        let shown = state.all().filter(|(_, txn)| filter.takes(txn)).map(|(id, txn)| {
            ListedTransaction::default()
                .with_transactional_id(TransactionalId(text(id)))
                .with_producer_id(ProducerId(txn.producer_id))
                .with_transaction_state(StrBytes::from_static_str(txn.phase.name()))
        });
        shown.collect()
    });
    // patterns take their time, and nobody shall wait for the lock so long
    let allowed = |id: &str| context.may(Operation::Describe, Resource::TransactionalId(id));
    listed.retain(|one| filter.matches(&one.transactional_id) && allowed(&one.transactional_id));
    Reply::message(version, &response.with_unknown_state_filters(unknown).with_transaction_states(listed))
}

/// Which transactions are listed.
struct Filter<'a> {
    states: &'a [StrBytes],
    producers: &'a [ProducerId],
    /// When an open transaction must have begun.
    began_before: Option<TimestampMs>,
    pattern: Option<Regex>,
}

impl<'a> Filter<'a> {
    fn of(version: i16, request: &'a ListTransactionsRequest, now: TimestampMs) -> Result<Filter<'a>> {
        let pattern = request.transactional_id_pattern.as_deref().filter(|pattern| version >= 2 && !pattern.is_empty());
        Ok(Filter {
            states: &request.state_filters,
            producers: &request.producer_id_filters,
            began_before: (version >= 1 && request.duration_filter >= 0)
                .then(|| now.saturating_sub(request.duration_filter)),
            // Kafka's patterns match whole ids
            pattern: pattern.map(compile).transpose()?,
        })
    }

    fn takes(&self, txn: &Txn) -> bool {
        let by_state = self.states.is_empty() || self.states.iter().any(|name| name.as_str() == txn.phase.name());
        let by_producer = self.producers.is_empty() || self.producers.iter().any(|one| one.0 == txn.producer_id);
        let by_age = self.began_before.is_none_or(|before| txn.started_at >= 0 && txn.started_at < before);
        by_state && by_producer && by_age
    }

    fn matches(&self, id: &str) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
    }
}

/// Markers that are under way: per partition its index and what becomes of it.
type Writing = Vec<(PartitionIndex, Result<Later<()>>)>;

/// Answers WriteTxnMarkers. The order of the markers among other writes is fixed when this returns.
pub(crate) fn write_txn_markers(context: &Context, version: i16, request: WriteTxnMarkersRequest) -> Reply {
    let mut writing: Vec<(ProducerId, Vec<(TopicName, Writing)>)> = Vec::with_capacity(request.markers.len());
    let allowed = if context.may(Operation::Alter, Resource::Cluster) {
        Ok(())
    } else {
        context.authorize(Operation::ClusterAction, Resource::Cluster)
    };
    for marker in request.markers {
        let of_topic = |name: &TopicName, indexes: &[PartitionIndex]| {
            let write = |index| allowed.clone().and_then(|()| write(context, &marker, name, index));
            let started = indexes.iter().map(|index| (*index, write(*index)));
            (name.clone(), started.collect())
        };
        let topics = marker.topics.iter().map(|topic| of_topic(&topic.name, &topic.partition_indexes));
        writing.push((marker.producer_id, topics.collect()));
    }
    Reply::later(async move {
        let mut markers = Vec::with_capacity(writing.len());
        for (producer, topics) in writing {
            let mut results = Vec::with_capacity(topics.len());
            for (name, partitions) in topics {
                let topic = WritableTxnMarkerTopicResult::default().with_name(name);
                results.push(topic.with_partitions(written(partitions).await));
            }
            markers.push(WritableTxnMarkerResult::default().with_producer_id(producer).with_topics(results));
        }
        Reply::message(version, &WriteTxnMarkersResponse::default().with_markers(markers))
    })
}

async fn written(partitions: Writing) -> Vec<WritableTxnMarkerPartitionResult> {
    let mut results = Vec::with_capacity(partitions.len());
    for (index, started) in partitions {
        let done = match started {
            Ok(stored) => stored.await,
            Err(error) => Err(error),
        };
        let code = done.map_or_else(|error| error.kind.code(), |()| 0);
        results.push(WritableTxnMarkerPartitionResult::default().with_partition_index(index).with_error_code(code));
    }
    results
}

fn write(context: &Context, asked: &WritableTxnMarker, topic: &TopicName, index: PartitionIndex) -> Result<Later<()>> {
    let partition = partition(context.broker.catalog(), topic, index)?;
    let who = (asked.producer_id.0, asked.producer_epoch);
    if who.0 <= NO_ID || who.1 <= NO_EPOCH {
        return Err(Error::new(Kind::InvalidRequest, "a marker names a producer id and epoch"));
    }
    let (committed, coordinator_epoch) = (asked.transaction_result, asked.coordinator_epoch);
    let batch = transaction_marker(who, committed, coordinator_epoch, context.broker.clock().now_ms());
    let origin = Origin::Marker(Marker { committed, coordinator_epoch, by_admin: true });
    let append = Change::Append(Append { partition, batch, origin });
    let stored = context.broker.lane().commit(vec![append], Ack::Durable);
    Ok(Box::pin(async move { stored.await.map(drop) }))
}
