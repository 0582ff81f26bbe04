//! Produce (0), versions 3 to 13 (advertised from 0, see `APIS`).
//!
//! - Exactly one batch of format 2 per partition; message sets are INVALID_RECORD, as in Kafka since version 3.
//! - Refused per partition: wrong CRC (2), too large (10), zstd below version 7 (76), control records, counts and offsets
//!   that do not agree, headers that cannot be read, a missing key in a compacted topic (87), timestamps outside the topic's bounds or of the broker's
//!   own type (32), more than a segment holds (18). The records are walked once for that, unfolded if need be. What is
//!   stored are the bytes that the client sent, unless `compression.type` wants another codec or the header's largest timestamp is wrong.
//! - While the disk is nearly full (`broker.disk_reserve_bytes`): KAFKA_STORAGE_ERROR (56), which the clients of Java and librdkafka
//!   try again, as long as their delivery timeout lets them.
//! - `min.insync.replicas` counts only as far as the topic has replicas, as in Kafka 4.3: one is enough here, whatever it says.
//! - acks = 0 is answered by nothing, or by closing the connection; acks = 1 and acks = all after the sync
//!   that `durability` asks for: what was acknowledged can be read at once, as in Kafka, and only what is durable is read. The order of appends is the order of requests in every case.
//! - Unknown topics are not created here: Metadata does that. Topics that views and streams write (`claims.rs`) are
//!   INVALID_TOPIC_EXCEPTION, like the broker's own.
//! - Transactional batches: the partition must have been added to the producer's transaction; from version 12 on writing adds it
//!   (KIP-890). Else INVALID_TXN_STATE, from version 11 on TRANSACTION_ABORTABLE; a fenced producer gets
//!   INVALID_PRODUCER_EPOCH. Without a transactional id in the request: TRANSACTIONAL_ID_AUTHORIZATION_FAILED, as in Kafka.
//! - Leader hints (KIP-951) go with NOT_LEADER_OR_FOLLOWER alone, which the only broker never says.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryFutureExt;
use futures::future::BoxFuture;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Reply, text};
use crate::batch::{BATCH_HEADER_BYTES, Batch, NewRecords, batches_in};
use crate::catalog::Topic;
use crate::codec::Compression;
use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Append, Appended, Change, Origin, RequestMemory};
use crate::log::Partition;
use crate::records::Records;
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
            Kind::MessageTooLarge
            | Kind::RecordListTooLarge
            | Kind::CorruptMessage
            | Kind::UnknownTopicOrPartition
            | Kind::Storage => self,
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
    let name = TopicName(StrBytes::from_string(name.to_string())); // a part of the request would keep all of it
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
        let allowed = context.authorize(Operation::Write, Resource::Topic(known_as));
        allowed.and_then(|()| catalog.claims().check_write(known_as)).err()
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
    let partition = topic.partition(index).ok_or_else(|| {
        let message = format!("topic {} has no partition {index}", topic.name());
        Error::new(Kind::UnknownTopicOrPartition, message)
    })?;
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
    context.broker.check_room(&partition)?;
    let batch = the_batch(terms.version, records.unwrap_or_default())?;
    if batch.is_transactional() {
        let Some(id) = terms.transactional_id else {
            let message = "a transactional batch needs the transactional id in the request";
            return Err(Error::new(Kind::TransactionalIdAuthorizationFailed, message).into());
        };
        context.authorize(Operation::Write, Resource::TransactionalId(id))?;
    }
    let log_start = partition.earliest();
    let checked = check(&partition.config(), batch, context.broker.clock().now_ms());
    let batch = checked.map_err(|refused| refused.by_log(log_start))?;
    let version = terms.version;
    if batch.is_transactional() {
        admit(context, terms, (topic, &partition), &batch).map_err(|error| refused_write(version, error))?;
    }
    let memory = context.share.clone().map(|share| RequestMemory::of(&batch, share));
    let append = Append { partition, batch, origin: Origin::Client };
    let appended = context.broker.lane().commit_of(memory, vec![Change::Append(append)], ack);
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

/// Everything that Kafka checks before it appends a client's batch, in its order where the client can see it. Gives the
/// batch as it is to be stored.
fn check(config: &TopicConfig, batch: Batch, now: TimestampMs) -> std::result::Result<Batch, Refused> {
    check_header(config, &batch)?;
    batch.check_crc()?;
    let window = Window::of(config, now);
    let claims_broker_time = batch.is_log_append_time();
    let mut faults = Vec::new();
    let mut fault_kind = Kind::InvalidRecord;
    let mut records = batch.records()?;
    let (mut position, mut newest) = (-1, -1);
    while let Some(record) = records.next_ref() {
        let record = record?;
        position += 1; // at most the header's count of records, so an i32 holds it
        if record.offset.wrapping_sub(batch.base_offset()) != i64::from(position) {
            return Err(invalid(format!("record {position} has another offset than its place in the batch")).into());
        }
        record.check_headers().map_err(|fault| invalid(format!("record {position}: {fault}")))?;
        newest = newest.max(record.timestamp);
        if record.key.is_none() && config.compacts() {
            faults.push((position, "compacted topic cannot accept message without key".to_owned()));
        } else if let Some(fault) = window.fault(record.timestamp, claims_broker_time) {
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
    let stored = as_stored(config, &batch, (records, newest))?;
    check_size(config, stored.as_ref().unwrap_or(&batch))?;
    Ok(stored.unwrap_or(batch))
}

/// The batch as the topic keeps it, where that is not as it came: with the topic's codec, and a true largest timestamp.
fn as_stored(config: &TopicConfig, batch: &Batch, (records, newest): (Records, TimestampMs)) -> Result<Option<Batch>> {
    let (sent, codec) = (batch.compression(), config.stored_codec(batch.compression()));
    let is_true = batch.max_timestamp() == newest && !batch.is_log_append_time();
    if sent == codec && (is_true || config.is_log_append_time()) {
        return Ok(None);
    }
    let folded = if sent == codec {
        batch.bytes().slice(BATCH_HEADER_BYTES..)
    } else {
        codec.compress(records.section().clone(), config.codec_level(codec))?
    };
    let count = batch.record_count();
    let new = NewRecords { codec, records: folded, count, max_timestamp: newest, append_time: false, horizon: None };
    Ok(Some(batch.with_records(&new)))
}

/// The sizes that a batch may have as it is stored.
fn check_size(config: &TopicConfig, batch: &Batch) -> Result<()> {
    let (size, size_max) = (batch.bytes().len(), config.max_message_bytes());
    if size > size_max {
        let message =
            format!("a batch of {size} bytes is larger than max.message.bytes, {size_max}; send smaller batches");
        return Err(Error::new(Kind::MessageTooLarge, message));
    }
    if size as u64 > config.segment_bytes() {
        let message = format!(
            "a batch of {size} bytes is larger than segment.bytes, {}; send smaller ones",
            config.segment_bytes()
        );
        return Err(Error::new(Kind::RecordListTooLarge, message));
    }
    Ok(())
}

fn check_header(config: &TopicConfig, batch: &Batch) -> Result<()> {
    if batch.base_offset() != 0 {
        return Err(invalid(format!("a client's batch begins at offset 0, not {}", batch.base_offset())));
    }
    if batch.bytes().len() > config.max_message_bytes() {
        return check_size(config, batch);
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
    append_time: bool,
}

impl Window {
    fn of(config: &TopicConfig, now: TimestampMs) -> Window {
        Window {
            now,
            oldest: now.saturating_sub(config.timestamp_before_max_ms()),
            newest: now.saturating_add(config.timestamp_after_max_ms()),
            append_time: config.is_log_append_time(),
        }
    }

    /// What is wrong with a record's time; `claims_broker_time` when its batch says that it is the broker's.
    fn fault(&self, timestamp: TimestampMs, claims_broker_time: bool) -> Option<String> {
        let Window { now, oldest, newest, append_time } = self;
        if !append_time && timestamp != -1 {
            let inside = (*oldest..=*newest).contains(&timestamp);
            return (!inside)
                .then(|| format!("timestamp {timestamp} is outside {oldest} to {newest}, the clock says {now}"));
        }
        claims_broker_time.then(|| "a producer may not say that its timestamps are the broker's (LogAppendTime)".into())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuilder;
    use crate::Record;

    const NOW: TimestampMs = 1_700_000_000_000;
    const CODECS: [(&str, Compression); 5] = [
        ("uncompressed", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];

    fn config(settings: &[(&str, &str)]) -> TopicConfig {
        TopicConfig::parse(&settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()).unwrap()
    }

    fn batch(records: &[(TimestampMs, Option<&str>, &str)]) -> Batch {
        let mut builder = BatchBuilder::new();
        for (time, key, value) in records {
            builder.push(*time, key.map(str::as_bytes), Some(value.as_bytes()), &[(b"h", None)]);
        }
        builder.build().unwrap()
    }

    fn sent_with(batch: &Batch, codec: Compression) -> Batch {
        let records = codec.compress(batch.bytes().slice(BATCH_HEADER_BYTES..), None).unwrap();
        let (count, max_timestamp) = (batch.record_count(), batch.max_timestamp());
        batch.with_records(&NewRecords { codec, records, count, max_timestamp, append_time: false, horizon: None })
    }

    fn changed(batch: &Batch, at: usize, bytes: &[u8]) -> Batch {
        let mut all = batch.bytes().to_vec();
        all[at..at + bytes.len()].copy_from_slice(bytes);
        crate::batch::write_crc(&mut all);
        Batch::parse(all.into()).unwrap()
    }

    fn refusal(config: &TopicConfig, batch: Batch) -> (i16, Vec<i32>) {
        let Err(refused) = check(config, batch, NOW) else { panic!("it was to be refused") };
        (refused.error.kind.code(), refused.records.iter().map(|(at, _)| *at).collect())
    }

    #[test]
    fn batches_are_stored_with_the_topics_codec() {
        let text = "again and again ".repeat(40);
        let plain = batch(&[(NOW, Some("k"), &text), (NOW - 5, None, "v"), (NOW + 7, Some("k"), &text)]);
        let plain = changed(&plain, 43, &[0, 0, 0, 0, 0, 0, 0, 9, 0, 3, 0, 0, 0, 4]);
        let records = |batch: &Batch| batch.records().unwrap().collect::<Result<Vec<Record>>>().unwrap();
        for (_, sent) in CODECS {
            let sent = sent_with(&plain, sent);
            let kept = check(&config(&[]), sent.clone(), NOW).ok().unwrap();
            assert_eq!(kept, sent, "'producer' keeps the bytes");
            for (name, codec) in CODECS {
                let settings =
                    [("compression.type", name), ("compression.gzip.level", "9"), ("compression.zstd.level", "-5")];
                let stored = check(&config(&settings), sent.clone(), NOW).ok().unwrap();
                stored.check_crc().unwrap();
                assert_eq!(stored.compression(), codec);
                assert_eq!(records(&stored), records(&plain));
                let identity = |b: &Batch| (b.producer_id(), b.producer_epoch(), b.base_sequence(), b.max_timestamp());
                assert_eq!(identity(&stored), (9, 3, 4, NOW + 7));
                assert!(sent.compression() != codec || stored == sent, "the same codec is not folded again");
            }
        }
    }

    #[test]
    fn sizes_count_as_sent_and_as_stored() {
        let long = "x".repeat(5_000);
        let folded = sent_with(&batch(&[(NOW, None, &long)]), Compression::Zstd);
        let size = folded.bytes().len().to_string();
        assert!(check(&config(&[("max.message.bytes", &size)]), folded.clone(), NOW).is_ok());
        let unfolds = config(&[("max.message.bytes", &size), ("compression.type", "uncompressed")]);
        assert_eq!(refusal(&unfolds, folded.clone()).0, 10);
        let small = (folded.bytes().len() - 1).to_string();
        assert_eq!(refusal(&config(&[("max.message.bytes", &small)]), folded).0, 10);
        let huge = "x".repeat(1_048_576);
        let segments = config(&[("max.message.bytes", "3000000"), ("segment.bytes", "1048576")]);
        assert_eq!(refusal(&segments, batch(&[(NOW, None, &huge)])).0, 18);
        assert!(check(&segments, batch(&[(NOW, None, &huge[..1_048_000])]), NOW).is_ok());
    }

    #[test]
    fn timestamps_keep_to_the_topics_bounds() {
        let bounds = config(&[("message.timestamp.before.max.ms", "1000"), ("message.timestamp.after.max.ms", "10")]);
        let times = |times: &[i64]| batch(&times.iter().map(|time| (*time, None, "v")).collect::<Vec<_>>());
        assert!(check(&bounds, times(&[NOW - 1_000, NOW + 10, -1]), NOW).is_ok());
        assert_eq!(refusal(&bounds, times(&[NOW, NOW - 1_001, NOW + 11])), (32, vec![1, 2]));
        let broker_time =
            config(&[("message.timestamp.type", "LogAppendTime"), ("message.timestamp.after.max.ms", "0")]);
        assert!(check(&broker_time, times(&[5, NOW + 99]), NOW).is_ok(), "the broker's time counts, not the client's");
        let claims = |times_: &[i64]| changed(&times(times_), 21, &[0, 1 << 3]);
        assert_eq!(refusal(&broker_time, claims(&[NOW])), (32, vec![0]));
        let stored = check(&bounds, claims(&[NOW]), NOW).ok().unwrap();
        assert!(!stored.is_log_append_time(), "the topic says whose time counts");
    }

    #[test]
    fn the_header_tells_the_true_newest_timestamp() {
        let truth = batch(&[(NOW - 9, None, "a"), (NOW, None, "b")]);
        let lie = changed(&truth, 35, &(NOW + 500).to_be_bytes());
        assert_eq!(check(&config(&[]), lie.clone(), NOW).ok().unwrap(), truth);
        let folded = changed(&sent_with(&truth, Compression::Lz4), 35, &1_i64.to_be_bytes());
        assert_eq!(check(&config(&[]), folded, NOW).ok().unwrap().max_timestamp(), NOW);
    }

    #[test]
    fn compacted_topics_want_keys_and_batches_begin_at_zero() {
        let compacted = config(&[("cleanup.policy", "compact,delete")]);
        let mixed = batch(&[(NOW, Some("k"), "1"), (NOW, None, "2"), (NOW, Some(""), "3"), (NOW, None, "4")]);
        assert_eq!(refusal(&compacted, mixed.clone()), (87, vec![1, 3]));
        assert!(check(&config(&[]), mixed.clone(), NOW).is_ok());
        let late = batch(&[(NOW, None, "1"), (NOW + 7_200_000, Some("k"), "2")]);
        assert_eq!(refusal(&compacted, late), (32, vec![0, 1]), "a wrong time names the error of all");
        assert_eq!(refusal(&config(&[]), changed(&mixed, 7, &[1])).0, 87);
    }

    /// A batch of one record with these stored headers.
    fn with_headers(headers: &[u8]) -> Batch {
        let plain = batch(&[(NOW, Some("k"), "v")]);
        let mut body = vec![0, 0, 0, 2, b'k', 2, b'v']; // no attributes, deltas of zero, lengths of one
        body.extend(headers);
        let mut section = vec![u8::try_from(body.len() * 2).unwrap()];
        section.extend(body);
        let (count, max_timestamp) = (plain.record_count(), plain.max_timestamp());
        let (codec, records) = (Compression::None, section.into());
        plain.with_records(&NewRecords { codec, records, count, max_timestamp, append_time: false, horizon: None })
    }

    #[test]
    fn records_with_broken_headers_are_refused() {
        let whole: [&[u8]; 3] = [&[0], &[2, 2, b'h', 1], &[4, 2, b'h', 2, b'x', 0, 0]];
        for headers in whole {
            assert!(check(&config(&[]), with_headers(headers), NOW).is_ok(), "{headers:?}");
        }
        let broken: [&[u8]; 8] = [
            &[],
            &[1],
            &[2],
            &[2, 1, 1],
            &[2, 2, b'h'],
            &[2, 2, b'h', 9, b'x'],
            &[0, 0],
            &[0x80, 0x80, 0x80, 0x80, 0x0f],
        ];
        for headers in broken {
            assert_eq!(refusal(&config(&[]), with_headers(headers)), (87, vec![]), "{headers:?}");
        }
    }

    /// Such records may lie in a log that was written before they were refused.
    #[tokio::test]
    async fn times_are_found_in_logs_that_hold_broken_headers() {
        use crate::{Broker, BrokerConfig, Clock, NewTopic};
        let dir = tempfile::tempdir().unwrap();
        let settings = BrokerConfig { data_dir: dir.path().to_owned(), ..BrokerConfig::default() };
        let broker = Broker::open(settings, Clock::manual(NOW)).await.unwrap();
        let new = NewTopic { name: "t".into(), partitions: 1, ..NewTopic::default() };
        let partition = broker.catalog().create(new).await.unwrap().partition(0).unwrap();
        let append = Append { partition: partition.clone(), batch: with_headers(&[2]), origin: Origin::Client };
        broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await.unwrap();
        assert_eq!(partition.offset_for_timestamp(NOW).await.unwrap(), Some((0, NOW)));
        assert_eq!(partition.max_timestamp_offset().await.unwrap(), Some((0, NOW)));
    }

    async fn context(dir: &std::path::Path, disk_reserve_bytes: Option<u64>) -> Context {
        use crate::{Broker, BrokerConfig, Clock, NewTopic};
        let settings = BrokerConfig { data_dir: dir.to_owned(), disk_reserve_bytes, ..BrokerConfig::default() };
        let broker = Broker::open(settings, Clock::manual(NOW)).await.unwrap();
        let new = NewTopic { name: "t".into(), partitions: 1, ..NewTopic::default() };
        broker.catalog().ensure(new).await.unwrap();
        super::super::tests::context(broker, tokio::sync::watch::channel(false).1)
    }

    #[tokio::test]
    async fn a_disk_that_is_nearly_full_takes_no_records_of_clients_in() {
        use kafka_protocol::protocol::Decodable;
        let dir = tempfile::tempdir().unwrap();
        for (reserve, code, end) in [(Some(0), 0, 1), (Some(u64::MAX), 56, 1), (None, 0, 3)] {
            let context = context(dir.path(), reserve).await;
            let sent = batch(&[(NOW, None, "v")]).bytes().clone();
            let data = PartitionProduceData::default().with_records(Some(sent));
            let topic = TopicProduceData::default().with_name(TopicName(StrBytes::from_static_str("t")));
            let topic = topic.with_partition_data(vec![data]);
            let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
            let Reply::Later(answer) = produce(&context, 9, request) else { panic!("answered at once") };
            let Reply::Now(chunks) = answer.await else { panic!("no reply") };
            let answer = ProduceResponse::decode(&mut Bytes::from(chunks.concat()), 9).unwrap();
            assert_eq!(answer.responses[0].partition_responses[0].error_code, code);
            let partition = context.broker.catalog().topic("t").unwrap().partition(0).unwrap();
            assert_eq!(partition.high_watermark(), end);
            if code != 0 {
                let append = Append { partition, batch: batch(&[(NOW, None, "own")]), origin: Origin::Internal };
                let own = context.broker.lane().commit(vec![Change::Append(append)], Ack::Durable).await;
                own.expect("what the broker writes itself goes on");
            }
            context.broker.stop().await.unwrap();
        }
    }
}
