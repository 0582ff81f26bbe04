//! Some records of a topic: the newest and the oldest of every partition's log, in bounds of number, size and time.

use std::sync::Arc;

use broker::{Batch, Broker, Kind, Offset, Partition, PartitionIndex};
use bytes::Bytes;

use super::seen::Records;
use super::{Inference, Unreadable, infer, read};
use crate::config::{StreamConfig, StreamFormat};
use crate::decode::visit_from;
use crate::fields::{Refusal, refusal};
use crate::wire::split;

/// Most records that are read, shared by the partitions and by the two ends of each.
const RECORDS_MAX: usize = 10_000;
/// Least records that are wanted of each end, however many partitions there are.
const RECORDS_MIN: usize = 20;
/// Most bytes of values, shared in the same way. The record that reaches its share is the last one of it.
const BYTES_MAX: usize = 8 << 20;
/// Bytes of batches that are read at one time.
const READ_BYTES: usize = 256 << 10;
/// Time after which no more is read, in milliseconds.
const TIME_MAX_MS: i64 = 5_000;

/// Records as they were read.
pub(crate) struct Sample {
    topic: String,
    records: Vec<Sampled>,
    partitions: usize,
    bytes: usize,
}

/// The value of a record, and its place.
struct Sampled {
    partition: PartitionIndex,
    offset: Offset,
    value: Option<Bytes>,
}

/// Offsets of a partition that records are taken from.
struct Stretch {
    partition: Arc<Partition>,
    from: Offset,
    to: Offset,
}

/// Columns are inferred from values that are JSON.
///
/// # Errors
/// Those of the stream are not, with what to do.
pub(crate) fn check_format(config: &StreamConfig) -> Result<(), String> {
    let (format, why) = match config.format {
        StreamFormat::Json | StreamFormat::JsonSchema => return Ok(()),
        StreamFormat::Avro => ("avro", "they are fields of its schema"),
        StreamFormat::Protobuf => ("protobuf", "they are fields of its message"),
        StreamFormat::Csv => ("csv", "its fields have no names"),
    };
    Err(format!(
        "columns are inferred from JSON alone: with format = '{format}' write them out, as in CREATE STREAM s (column TYPE, …) \
         WITH (…); {why}"
    ))
}

impl Sample {
    /// Reads from a topic that has records.
    ///
    /// # Errors
    /// There are none, with what to do; or they cannot be read.
    pub(crate) async fn take(broker: &Broker, topic: &str) -> Result<Sample, String> {
        const OTHERWISE: &str = "and columns are inferred from records: send some first, or write the columns out";
        let Some(known) = broker.catalog().topic(topic) else {
            return Err(format!("topic '{topic}' does not exist, {OTHERWISE}"));
        };
        let partitions = known.partitions().len();
        let stretches = stretches(&known.partitions());
        let share = shares(partitions);
        let began_ms = broker.clock().steady_ms();
        let mut sample = Sample { topic: topic.to_string(), records: Vec::new(), partitions, bytes: 0 };
        for stretch in stretches {
            if sample.bytes >= BYTES_MAX || broker.clock().steady_ms() - began_ms > TIME_MAX_MS {
                break;
            }
            sample.extend(&stretch, share).await?;
        }
        if sample.records.is_empty() {
            return Err(format!("topic '{topic}' has no records in its log, {OTHERWISE}"));
        }
        Ok(sample)
    }

    /// Adds up to so many records, and so many bytes, of a stretch.
    async fn extend(&mut self, stretch: &Stretch, (records, bytes): (usize, usize)) -> Result<(), String> {
        let (records_end, bytes_end) = (self.records.len() + records, self.bytes + bytes);
        let mut at = stretch.from;
        while at < stretch.to && self.records.len() < records_end && self.bytes < bytes_end {
            let batches = match stretch.partition.read_committed(at, READ_BYTES).await {
                Ok(batches) => batches,
                // Retention has just taken them.
                Err(error) if error.kind == Kind::OffsetOutOfRange => return Ok(()),
                Err(error) => return Err(format!("topic '{}' cannot be read: {}", self.topic, error.message)),
            };
            let Some(last) = batches.last() else { return Ok(()) };
            let (index, from, next) = (stretch.partition.index(), at, last.next_offset());
            let bounds = (records_end - self.records.len(), bytes_end - self.bytes);
            // Batches may be compressed.
            let values = tokio::task::spawn_blocking(move || values((index, &batches), from, bounds)).await;
            let values = values.map_err(|error| format!("topic '{}' cannot be read: {error}", self.topic))?;
            self.bytes += values.iter().filter_map(|sampled| sampled.value.as_ref()).map(Bytes::len).sum::<usize>();
            self.records.extend(values);
            at = next.max(at + 1);
        }
        Ok(())
    }

    /// What its records give a stream.
    ///
    /// # Errors
    /// None is JSON, or they have no event time.
    pub(crate) fn infer(&self, config: &StreamConfig) -> Result<Inference, String> {
        let values = self.records.iter().map(|sampled| payload(config.format, sampled.value.as_deref()));
        let (records, unreadable) = read(values);
        if records.count() == 0 {
            return Err(self.nothing_readable(&unreadable));
        }
        let mut inference = infer(&records, &config.event_time)?;
        inference.notes.insert(0, self.told(&records));
        if let Some(first) = self.first(&unreadable) {
            let count = unreadable.count;
            let message =
                format!("values that are no JSON objects and tell nothing of columns: {count}; the first one: {first}");
            inference.notes.insert(1, message);
        }
        Ok(inference)
    }

    fn told(&self, records: &Records) -> String {
        let Sample { topic, partitions, .. } = self;
        format!("records of topic {topic} that were read: {}; partitions: {partitions}", records.count())
    }

    /// The first value that is no record.
    fn first(&self, unreadable: &Unreadable) -> Option<String> {
        let (at, reason) = unreadable.first.as_ref()?;
        let Sampled { partition, offset, .. } = self.records.get(*at)?;
        Some(format!("partition {partition}, offset {offset}: {reason}"))
    }

    fn nothing_readable(&self, unreadable: &Unreadable) -> String {
        let first = self.first(unreadable).unwrap_or_default();
        let begins_with_zero =
            |sampled: &Sampled| sampled.value.as_ref().is_some_and(|value| value.first() == Some(&0));
        let hint = match self.records.iter().any(begins_with_zero) {
            true => {
                "values that begin with byte 0 are those of a schema registry's serializers: write format = 'json_schema', 'avro' or 'protobuf'"
            }
            false => "write the format that they have, and the columns",
        };
        let count = self.records.len();
        format!("topic '{}': none of {count} sampled records is a JSON object ({first}): {hint}", self.topic)
    }
}

/// Most records, and most bytes, of each end of each partition.
fn shares(partitions: usize) -> (usize, usize) {
    let ends = 2 * partitions.max(1);
    ((RECORDS_MAX / ends).max(RECORDS_MIN), BYTES_MAX / ends)
}

/// The newest records of all partitions, then the oldest ones that are not among them. Of large records fewer are newest.
fn stretches(partitions: &[Arc<Partition>]) -> Vec<Stretch> {
    let (records, bytes) = shares(partitions.len());
    let (mut newest, mut oldest) = (Vec::new(), Vec::new());
    for partition in partitions {
        let (start, end) = (partition.log_start(), partition.last_stable_offset());
        let mean = usize::try_from(partition.size_bytes() / end.abs_diff(start).max(1)).unwrap_or(usize::MAX);
        let each = Offset::try_from(records.min(bytes / mean.max(1)).max(1)).unwrap_or(Offset::MAX);
        let seam = end.saturating_sub(each).max(start);
        newest.push(Stretch { partition: partition.clone(), from: seam, to: end });
        oldest.push(Stretch { partition: partition.clone(), from: start, to: seam });
    }
    newest.into_iter().chain(oldest).filter(|stretch| stretch.from < stretch.to).collect()
}

/// The values of batches from an offset on, up to so many and so many bytes.
fn values(
    (partition, batches): (PartitionIndex, &[Batch]),
    from: Offset,
    (count, bytes): (usize, usize),
) -> Vec<Sampled> {
    let (mut values, mut size) = (Vec::new(), 0);
    for batch in batches.iter().filter(|batch| !batch.is_control()) {
        // What cannot be read of a batch is no record to learn from.
        let _ = visit_from((partition, batch), from, |record, _| {
            if values.len() < count && size < bytes {
                size += record.value.map_or(0, <[u8]>::len);
                let value = record.value.map(Bytes::copy_from_slice);
                values.push(Sampled { partition, offset: record.offset, value });
            }
            Ok(())
        });
        if values.len() == count || size >= bytes {
            break;
        }
    }
    values
}

/// The JSON of a value.
fn payload(format: StreamFormat, value: Option<&[u8]>) -> Result<&[u8], Refusal> {
    let value = value.ok_or_else(|| refusal("null_value", "the record has no value"))?;
    match format {
        StreamFormat::JsonSchema => split(value, "'json'").map(|(_, payload)| payload),
        _ => Ok(value),
    }
}
