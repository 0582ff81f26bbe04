//! Produce (0), versions 3 to 13 (advertised from 0, see `APIS`).
//!
//! - Exactly one batch of format 2 per partition; message sets are INVALID_RECORD, as in Kafka since version 3.
//! - Refused per partition: wrong CRC (2), too large (10), zstd below version 7 (76), control records, counts and offsets
//!   that do not agree, a missing key in a compacted topic (87), timestamps outside the topic's bounds (32). The records
//!   are walked once for that, unfolded if need be; what is stored are the bytes that the client sent.
//! - acks = 0 is answered by nothing, or by closing the connection; acks = 1 and acks = all after the sync
//!   that `durability` asks for: what was acknowledged can be read at once, as in Kafka, and only what is durable is read. The order of appends is the order of requests in every case.
//! - Unknown topics are not created here: Metadata does that.
//! - Transactional batches: the partition must have been added to the producer's transaction; from version 12 on writing adds it
//!   (KIP-890). Else INVALID_TXN_STATE, from version 11 on TRANSACTION_ABORTABLE; a fenced producer gets
//!   INVALID_PRODUCER_EPOCH. Without a transactional id in the request: TRANSACTIONAL_ID_AUTHORIZATION_FAILED, as in Kafka.
//! - Left out: leader hints (KIP-951: one broker leads all).

use std::sync::Arc;

use bytes::Bytes;
use futures::TryFutureExt;
use futures::future::BoxFuture;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};

use super::{Context, Reply, text};
use crate::batch::{Batch, batches_in};
use crate::catalog::Topic;
use crate::codec::Compression;
use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Append, Appended, Change, Origin};
use crate::log::Partition;
use crate::security::acl::{Operation, Resource};
use crate::topic_config::TopicConfig;
use crate::txn::Producer;
use crate::types::{Offset, PartitionIndex, TimestampMs, TopicId};

/// Records that one answer names as wrong, at most.
const RECORD_ERRORS_MAX: usize = 100;

/// Why a partition's records were refused, and which of them are at fault (if it was single ones).
struct Refused {
    error: Error,
    records: Vec<(i32, String)>,
    /// Where the log begins, when the records came as far as the log; else -1.
    log_start: Offset,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused { error, records: Vec::new(), log_start: -1 }
    }
}

impl Refused {
    /// Kafka tells the log start when the log itself refused the records, but for these errors.
    fn by_log(self, log_start: Offset) -> Refused {
        match self.error.kind {
            Kind::MessageTooLarge | Kind::CorruptMessage | Kind::UnknownTopicOrPartition | Kind::Storage => self,
            _ => Refused { log_start, ..self },
        }
    }
}

/// What becomes of the records of one partition.
type Outcome = std::result::Result<BoxFuture<'static, std::result::Result<Vec<Appended>, Refused>>, Refused>;

struct TopicOutcome {
    name: TopicName,
    id: TopicId,
    partitions: Vec<(PartitionIndex, Outcome)>,
}

/// What a request says for all of its batches.
struct Terms<'a> {
    version: i16,
    acks: i16,
    transactional_id: Option<&'a str>,
}

/// First version in which a producer is told to abort its transaction.
const ABORTABLE: i16 = 11;
/// First version in which writing adds the partition to the transaction.
const IMPLICIT: i16 = 12;

/// Answers Produce. All appends are submitted when this returns.
pub(crate) fn produce(context: &Context, version: i16, request: ProduceRequest) -> Reply {
    let acks = request.acks;
    let terms = Terms { version, acks, transactional_id: request.transactional_id.as_ref().map(|id| id.as_str()) };
    let topics: Vec<TopicOutcome> =
        request.topic_data.into_iter().map(|topic| append_topic(context, &terms, topic)).collect();
    Reply::later(async move {
        let mut response = ProduceResponse::default();
        let mut failed = None;
        for TopicOutcome { name, id, partitions } in topics {
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, outcome) in partitions {
                let appended = match outcome {
                    Ok(appended) => appended.await,
                    Err(refused) => Err(refused),
                };
                if let Err(refused) = &appended {
                    failed.get_or_insert_with(|| format!("{}-{index}: {}", name.0, refused.error));
                }
                answers.push(answer(version, index, appended));
            }
            let topic = TopicProduceResponse::default().with_partition_responses(answers);
            response.responses.push(if version >= 13 { topic.with_topic_id(id) } else { topic.with_name(name) });
        }
        match (acks, failed) {
            (0, None) => Reply::Silent,
            (0, Some(reason)) => Reply::Close(format!("a produce with acks=0 failed: {reason}")),
            _ => Reply::message(version, &response),
        }
    })
}

fn append_topic(context: &Context, terms: &Terms<'_>, data: TopicProduceData) -> TopicOutcome {
    let catalog = context.broker.catalog();
    let TopicProduceData { name, topic_id: id, partition_data, .. } = data;
    let (topic, absent) = if terms.version >= 13 {
        (catalog.topic_by_id(id), Kind::UnknownTopicId)
    } else {
        (catalog.topic(&name), Kind::UnknownTopicOrPartition)
    };
    let known_as = topic.as_ref().map_or(&*name.0, |topic| &**topic.name());
    // an id that is not there tells nothing
    let denied = if topic.is_none() && terms.version >= 13 {
        None
    } else {
        context.authorize(Operation::Write, Resource::Topic(known_as)).err()
    };
    let append = |data: PartitionProduceData| {
        let outcome = match (&denied, &topic) {
            (Some(denied), _) => Err(denied.clone().into()),
            (None, None) => Err(Error::new(absent, "this server does not host this topic").into()),
            (None, Some(topic)) => append(context, terms, (topic, data.index, data.records)),
        };
        (data.index, outcome)
    };
    let partitions = partition_data.into_iter().map(append).collect();
    TopicOutcome { name, id, partitions }
}

fn append(
    context: &Context,
    terms: &Terms<'_>,
    (topic, index, records): (&Topic, PartitionIndex, Option<Bytes>),
) -> Outcome {
    let ack = match terms.acks {
        -1 | 1 => Ack::Durable,
        0 => Ack::Written,
        other => {
            let message = format!("acks is {other}; it must be -1, 0 or 1");
            return Err(Error::new(Kind::InvalidRequiredAcks, message).into());
        }
    };
    if topic.is_internal() {
        let message = format!("topic {} is written by the broker alone", topic.name());
        return Err(Error::new(Kind::InvalidTopic, message).into());
    }
    let partition = topic.partition(index).ok_or_else(|| {
        let message = format!("topic {} has no partition {index}", topic.name());
        Error::new(Kind::UnknownTopicOrPartition, message)
    })?;
    let batch = the_batch(terms.version, records.unwrap_or_default())?;
    if batch.is_transactional() {
        let Some(id) = terms.transactional_id else {
            let message = "a transactional batch needs the transactional id in the request";
            return Err(Error::new(Kind::TransactionalIdAuthorizationFailed, message).into());
        };
        context.authorize(Operation::Write, Resource::TransactionalId(id))?;
    }
    let log_start = partition.log_start();
    check(&partition, &batch, context.broker.clock().now_ms()).map_err(|refused| refused.by_log(log_start))?;
    let version = terms.version;
    if batch.is_transactional() {
        admit(context, terms, (topic, &partition), &batch).map_err(|error| refused_write(version, error))?;
    }
    let append = Append { partition, batch, origin: Origin::Client };
    let appended = context.broker.lane().commit(vec![Change::Append(append)], ack);
    Ok(Box::pin(appended.map_err(move |error| Refused::from(refused_write(version, error)).by_log(log_start))))
}

/// Sees to it that the partition belongs to the producer's transaction. Whether it still does when the batch gets there, the
/// lane decides.
fn admit(
    context: &Context,
    terms: &Terms<'_>,
    (topic, partition): (&Topic, &Arc<Partition>),
    batch: &Batch,
) -> Result<()> {
    let id = terms.transactional_id.unwrap_or_default();
    let who = (batch.producer_id(), batch.producer_epoch());
    if partition.has_open_transaction(who) {
        return Ok(());
    }
    let (transactions, producer) = (context.broker.transactions(), Producer { id, who });
    let place = (topic.id(), partition.index());
    if terms.version < IMPLICIT {
        return transactions.verify(producer, place);
    }
    // its commit lies before the batch's in the lane, so nobody has to wait for it
    transactions.add_partitions(&context.broker, producer, &[(place, partition.clone())], true).map(drop)
}

/// What a producer understands: a fenced one has an old epoch, and older ones know nothing of aborting.
fn refused_write(version: i16, error: Error) -> Error {
    let kind = match error.kind {
        Kind::ProducerFenced => Kind::InvalidProducerEpoch,
        Kind::TransactionAbortable if version < ABORTABLE => Kind::InvalidTxnState,
        other => other,
    };
    Error { kind, ..error }
}

/// The one batch that a records field may hold.
fn the_batch(version: i16, records: Bytes) -> Result<Batch> {
    let mut batches = batches_in(records).map_err(|error| match error.kind {
        Kind::UnsupportedForMessageFormat => Error::new(Kind::InvalidRecord, error.message),
        _ => error,
    })?;
    let (Some(batch), true) = (batches.pop(), batches.is_empty()) else {
        return Err(invalid("a produce request must have exactly one record batch per partition"));
    };
    if batch.compression() == Compression::Zstd && version < 7 {
        let message = format!("zstd needs version 7 of Produce, the client uses {version}; upgrade the client");
        return Err(Error::new(Kind::UnsupportedCompressionType, message));
    }
    Ok(batch)
}

/// Everything that Kafka checks before it appends a client's batch, in its order where the client can see it.
fn check(partition: &Arc<Partition>, batch: &Batch, now: TimestampMs) -> std::result::Result<(), Refused> {
    let config = partition.config();
    check_header(&config, batch)?;
    batch.check_crc()?;
    let window = Window::of(&config, now);
    let mut faults = Vec::new();
    let mut fault_kind = Kind::InvalidRecord;
    let mut records = batch.records()?;
    let mut position = -1;
    while let Some(record) = records.next_ref() {
        let record = record?;
        position += 1; // at most the header's count of records, so an i32 holds it
        if record.offset.wrapping_sub(batch.base_offset()) != i64::from(position) {
            return Err(invalid(format!("record {position} has another offset than its place in the batch")).into());
        }
        if record.key.is_none() && config.compacts() {
            faults.push((position, "compacted topic cannot accept message without key".to_owned()));
        } else if let Some(fault) = window.fault(record.timestamp) {
            fault_kind = Kind::InvalidTimestamp;
            faults.push((position, fault));
        }
        if faults.len() >= RECORD_ERRORS_MAX {
            break;
        }
    }
    if !faults.is_empty() {
        let message = format!("one or more records have been rejected: {}", faults[0].1);
        return Err(Refused { error: Error::new(fault_kind, message), records: faults, log_start: -1 });
    }
    if !records.is_exhausted() {
        return Err(invalid("the batch has more bytes than its records").into());
    }
    Ok(())
}

fn check_header(config: &TopicConfig, batch: &Batch) -> Result<()> {
    let size = batch.bytes().len();
    let size_max = config.max_message_bytes();
    if size > size_max {
        let message =
            format!("a batch of {size} bytes is larger than max.message.bytes, {size_max}; send smaller batches");
        return Err(Error::new(Kind::MessageTooLarge, message));
    }
    if batch.is_control() {
        return Err(invalid("clients are not allowed to write control records"));
    }
    if batch.record_count() < 1 || i64::from(batch.record_count()) != i64::from(batch.last_offset_delta()) + 1 {
        let (count, last) = (batch.record_count(), batch.last_offset_delta());
        return Err(invalid(format!("a batch claims {count} records, its last offset delta is {last}")));
    }
    if batch.producer_id() >= 0 && (batch.base_sequence() < 0 || batch.producer_epoch() < 0) {
        return Err(invalid("an idempotent batch needs a sequence number and a producer epoch"));
    }
    if batch.is_transactional() && batch.producer_id() < 0 {
        return Err(invalid("a transactional batch needs a producer id"));
    }
    Ok(())
}

/// Bounds of the timestamps that a topic takes (KIP-937).
struct Window {
    now: TimestampMs,
    oldest: TimestampMs,
    newest: TimestampMs,
}

impl Window {
    fn of(config: &TopicConfig, now: TimestampMs) -> Window {
        if config.is_log_append_time() {
            return Window { now, oldest: i64::MIN, newest: i64::MAX };
        }
        Window {
            now,
            oldest: now.saturating_sub(config.timestamp_before_max_ms()),
            newest: now.saturating_add(config.timestamp_after_max_ms()),
        }
    }

    fn fault(&self, timestamp: TimestampMs) -> Option<String> {
        let inside = timestamp == -1 || (self.oldest..=self.newest).contains(&timestamp);
        let Window { now, oldest, newest } = self;
        (!inside).then(|| format!("timestamp {timestamp} is outside {oldest} to {newest}, the clock says {now}"))
    }
}

fn answer(
    version: i16,
    index: PartitionIndex,
    appended: std::result::Result<Vec<Appended>, Refused>,
) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    let refused = match appended {
        Ok(appended) => match appended.first() {
            Some(appended) => {
                let start = if version >= 5 { appended.log_start } else { -1 };
                return response
                    .with_base_offset(appended.base_offset)
                    .with_log_append_time_ms(appended.log_append_time)
                    .with_log_start_offset(start);
            }
            None => Error::new(Kind::Bug, "the append gave no offset").into(),
        },
        Err(refused) => refused,
    };
    let Refused { error, records, log_start } = refused;
    let response = response
        .with_error_code(error.kind.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(if version >= 5 { log_start } else { -1 });
    if version < 8 {
        return response;
    }
    let records = records.into_iter().map(|(index, fault)| {
        BatchIndexAndErrorMessage::default().with_batch_index(index).with_batch_index_error_message(Some(text(&fault)))
    });
    response.with_error_message(Some(text(&error.message))).with_record_errors(records.collect())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidRecord, message)
}
