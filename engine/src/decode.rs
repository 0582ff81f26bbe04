//! Records → rows: each record's value is read once, in the format of its stream, straight into columns. A record that does not fit
//! is refused with a rule and a reason and leaves no trace in the columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions};
use broker::{Batch, Offset, PartitionIndex, RecordRef, TimestampMs};
use bytes::Bytes;

use crate::columns::{ColumnBuffer, ColumnType, KeyBuffer};
use crate::conditions::Judged;
use crate::config::StreamFormat;
use crate::delimited;
use crate::error::{EngineError, ErrorKind, Result};
use crate::fields::{Fault, Refusal, refusal};
use crate::fill::visit_kept;
use crate::protobuf::LastMessage;
use crate::scalar::timestamp_in_range;
use crate::source::Decode;
use crate::stream::{Decoded, Rejected, Stream};
use crate::wire::LastProgram;

/// The batches that rows were decoded from, and each row's place in them, so that a row that is refused later (by a
/// check, or as late) can be handed on as it was written.
#[derive(Default)]
pub(crate) struct Sources {
    batches: Vec<(PartitionIndex, Batch)>,
    /// Per row: index into `batches` and ordinal of the record in the batch. Ascending.
    places: Vec<(u32, u32)>,
    /// Rows whose records have left the log, in the place of all batches.
    kept: Option<RecordBatch>,
}

impl Sources {
    /// Of rows that were kept: what is known of their records is in them.
    pub(crate) fn kept(rows: RecordBatch) -> Sources {
        Sources { kept: Some(rows), ..Sources::default() }
    }

    /// Reads the records of the given rows (ascending) again, each batch once.
    pub(crate) fn visit(
        &self,
        rows: &[usize],
        mut visit: impl FnMut(usize, PartitionIndex, &RecordRef<'_>) -> Result<()>,
    ) -> Result<()> {
        if let Some(kept) = &self.kept {
            return visit_kept(kept, rows, visit);
        }
        let mut rows = rows.iter().copied().peekable();
        while let Some(first) = rows.peek().copied() {
            let batch_index = self.places[first].0;
            let (partition, batch) = &self.batches[batch_index as usize];
            let mut records = batch.records()?;
            let mut ordinal = 0;
            while let Some(record) = records.next_ref() {
                let Some(row) = rows.peek().copied().filter(|row| self.places[*row].0 == batch_index) else { break };
                let record = record?;
                if self.places[row].1 == ordinal {
                    visit(row, *partition, &record)?;
                    rows.next();
                }
                ordinal += 1;
            }
            if rows.peek().is_some_and(|row| *row == first) {
                return Err(EngineError::bug("a record left its batch between two readings"));
            }
        }
        Ok(())
    }

    fn keep(&mut self, good: &[bool]) {
        let mut flags = good.iter();
        self.places.retain(|_| *flags.next().unwrap_or(&true));
    }
}

/// Rows under construction. All column buffers have `offsets.len()` entries between records.
pub(crate) struct Decoder<'s> {
    stream: &'s Stream,
    columns: Vec<ColumnBuffer>,
    keys: KeyBuffer,
    timestamps: ColumnBuffer,
    partitions: Vec<PartitionIndex>,
    offsets: Vec<Offset>,
    sources: Sources,
    rejected: Vec<Rejected>,
    bytes: usize,
    last_program: LastProgram,
    last_message: LastMessage,
}

impl<'s> Decoder<'s> {
    pub(crate) fn new(stream: &'s Stream) -> Decoder<'s> {
        Decoder {
            stream,
            columns: stream.fields().buffers(),
            keys: KeyBuffer::default(),
            timestamps: ColumnBuffer::new(ColumnType::Timestamp),
            partitions: Vec::new(),
            offsets: Vec::new(),
            sources: Sources::default(),
            rejected: Vec::new(),
            bytes: 0,
            last_program: None,
            last_message: None,
        }
    }

    /// Decodes one batch of a partition. Control batches are skipped.
    pub(crate) fn push(&mut self, partition: PartitionIndex, batch: &Batch) -> Result<()> {
        self.push_from(partition, batch, batch.base_offset())
    }

    fn record(&mut self, partition: PartitionIndex, record: &RecordRef<'_>, ordinal: u32) -> Result<()> {
        let rows = self.offsets.len();
        self.bytes += record.size();
        match self.fields(record) {
            Ok(()) => {
                if !self.keys.push(record.key) {
                    return Err(too_large("2 GiB of keys"));
                }
                match timestamp_in_range(record.timestamp).filter(|ms| *ms >= 0) {
                    Some(ms) => self.timestamps.push_int(ms),
                    None => self.timestamps.push_null(),
                }
                self.partitions.push(partition);
                self.offsets.push(record.offset);
                let batch = u32::try_from(self.sources.batches.len() - 1).map_err(|_| too_large("batches"))?;
                self.sources.places.push((batch, ordinal));
            }
            Err(refusal) => {
                for column in &mut self.columns {
                    column.truncate(rows);
                }
                self.rejected.push(rejected(partition, record, refusal.rule.into(), refusal.reason));
            }
        }
        Ok(())
    }

    fn fields(&mut self, record: &RecordRef<'_>) -> std::result::Result<(), Refusal> {
        let value = record.value.ok_or_else(|| refusal("null_value", "the record has no value"))?;
        let rows = self.offsets.len();
        match self.stream.config().format {
            StreamFormat::Json => self.stream.fields().read(value, &mut self.columns, rows)?,
            StreamFormat::JsonSchema => {
                let payload = self.stream.wire().json(value)?;
                self.stream.fields().read(payload, &mut self.columns, rows)?;
            }
            StreamFormat::Avro => self.avro_fields(value)?,
            StreamFormat::Protobuf => self.protobuf_fields(value)?,
            StreamFormat::Csv => delimited::read(self.stream, value, &mut self.columns, rows)?,
        }
        self.stream.fields().complete(&mut self.columns, rows)?;
        self.check_ahead(record.timestamp)
    }

    fn avro_fields(&mut self, value: &[u8]) -> std::result::Result<(), Refusal> {
        let (program, payload) = self.stream.wire().avro(value, self.stream.config(), &mut self.last_program)?;
        let read = program.read(payload, &mut self.columns);
        self.judge(("avro", value), read)
    }

    fn protobuf_fields(&mut self, value: &[u8]) -> std::result::Result<(), Refusal> {
        let rows = self.offsets.len();
        let (program, message) = self.stream.wire().protobuf(value, self.stream.config(), &mut self.last_message)?;
        let read = program.read(message, &mut self.columns, rows);
        self.judge(("protobuf", value), read)
    }

    /// What is wrong with a record that was read by its schema; `rule` is the one that broken bytes break.
    fn judge(
        &self,
        (rule, value): (&'static str, &[u8]),
        read: std::result::Result<(), Fault>,
    ) -> std::result::Result<(), Refusal> {
        let (fields, wire) = (self.stream.fields(), self.stream.wire());
        read.map_err(|fault| match fault {
            Fault::Broken(reason) => refusal(rule, format!("not a record of its schema: {reason}{}", wire.hint(value))),
            Fault::Type(index, shown) => fields.wrong_type(index, &shown),
        })?;
        fields.check_nulls(&self.columns, self.offsets.len())
    }

    fn check_ahead(&self, timestamp: TimestampMs) -> std::result::Result<(), Refusal> {
        let event_time = self.columns[self.stream.event_time_index()].last_int();
        let Some(event_time) = event_time else { return Ok(()) };
        let max_ahead_ms = self.stream.config().max_ahead_ms;
        if timestamp >= 0 && event_time > timestamp.saturating_add(max_ahead_ms) {
            let reason = format!(
                "event time {event_time} is {} ms after the record's timestamp {timestamp}, max_ahead is {max_ahead_ms} ms",
                event_time.saturating_sub(timestamp)
            );
            return Err(refusal("max_ahead", reason));
        }
        Ok(())
    }

    /// The rows that pass the checks, and all refusals.
    pub(crate) fn finish(self) -> Result<Decoded> {
        self.finish_with_sources().map(|(decoded, _)| decoded)
    }

    /// As [`finish`](Self::finish), with the place of each row in its batch.
    pub(crate) fn finish_with_sources(self) -> Result<(Decoded, Sources)> {
        let row_count = self.offsets.len();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for column in self.columns {
            arrays.push(column.finish()?);
        }
        arrays.push(self.keys.finish()?);
        arrays.push(self.timestamps.finish()?);
        arrays.push(Arc::new(Int32Array::from(self.partitions)));
        arrays.push(Arc::new(Int64Array::from(self.offsets)));
        let options = RecordBatchOptions::new().with_row_count(Some(row_count));
        let rows = RecordBatch::try_new_with_options(self.stream.schema(), arrays, &options)?;
        let Judged { rows, refused, warned } = self.stream.conditions().judge(rows)?;
        let (mut sources, mut all_rejected) = (self.sources, self.rejected);
        if !refused.is_empty() {
            let mut good = vec![true; row_count];
            let indices: Vec<usize> = refused.iter().map(|(row, ..)| *row).collect();
            let mut reasons = refused.into_iter();
            sources.visit(&indices, |row, partition, record| {
                good[row] = false;
                let Some((_, rule, reason)) = reasons.next() else { return Ok(()) };
                all_rejected.push(rejected(partition, record, rule, reason));
                Ok(())
            })?;
            sources.keep(&good);
            all_rejected.sort_by_key(|record| (record.partition, record.offset));
        }
        Ok((Decoded { rows, rejected: all_rejected, warned }, sources))
    }
}

impl Decode for Decoder<'_> {
    fn push_from(&mut self, partition: PartitionIndex, batch: &Batch, from: Offset) -> Result<()> {
        if batch.is_control() {
            return Ok(());
        }
        self.sources.batches.push((partition, batch.clone()));
        let visit = |record: &RecordRef<'_>, ordinal| self.record(partition, record, ordinal);
        let unreadable = visit_from((partition, batch), from, visit)?;
        self.rejected.extend(unreadable);
        Ok(())
    }

    fn records(&self) -> usize {
        self.offsets.len() + self.rejected.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Visits the records of a batch from an offset on, each with its ordinal in the batch. Gives the refusal of what cannot be read.
pub(crate) fn visit_from(
    (partition, batch): (PartitionIndex, &Batch),
    from: Offset,
    mut visit: impl FnMut(&RecordRef<'_>, u32) -> Result<()>,
) -> Result<Option<Rejected>> {
    let mut next_offset = from.max(batch.base_offset());
    let unreadable = |next_offset, error| Ok(Some(Rejected::rest(partition, batch, next_offset, &error)));
    let mut records = match batch.records() {
        Ok(records) => records,
        Err(error) => return unreadable(next_offset, error),
    };
    let mut ordinal = 0;
    while let Some(record) = records.next_ref() {
        match record {
            Ok(record) if record.offset < from => {}
            Ok(record) => {
                next_offset = record.offset.saturating_add(1);
                visit(&record, ordinal)?;
            }
            Err(error) => return unreadable(next_offset, error),
        }
        ordinal += 1;
    }
    Ok(None)
}

fn too_large(what: &str) -> EngineError {
    EngineError::new(ErrorKind::TooLarge, format!("more than {what} at once, decode fewer batches"))
}

pub(crate) fn rejected(partition: PartitionIndex, record: &RecordRef<'_>, rule: Arc<str>, reason: String) -> Rejected {
    let own = |part: &[u8]| Bytes::copy_from_slice(part);
    // Headers that cannot be read were accepted with the batch; the record is handed on without them.
    let headers = record.headers().unwrap_or_default();
    Rejected {
        partition,
        offset: record.offset,
        records: 1,
        rule,
        reason,
        key: record.key.map(own),
        value: record.value.map(own),
        timestamp: record.timestamp,
        headers: headers.into_iter().map(|(key, value)| (own(key), value.map(own))).collect(),
    }
}
