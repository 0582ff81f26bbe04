//! Records → rows: each record's JSON object or Avro record is read once, straight into columns. A record that does not fit
//! is refused with a rule and a reason and leaves no trace in the columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions};
use broker::{Batch, Offset, PartitionIndex, RecordRef, TimestampMs};
use bytes::Bytes;

use crate::avro::Fault;
use crate::columns::{ColumnBuffer, ColumnType, KeyBuffer};
use crate::config::StreamFormat;
use crate::error::{EngineError, ErrorKind, Result};
use crate::json::{JsonError, JsonScanner, JsonValue};
use crate::scalar::timestamp_in_range;
use crate::stream::{Decoded, Rejected, Stream};
use crate::wire::LastProgram;

/// The batches that rows were decoded from, and each row's place in them, so that a row that is refused later (by a
/// check, or as late) can be handed on as it was written.
#[derive(Default)]
pub(crate) struct Sources {
    batches: Vec<(PartitionIndex, Batch)>,
    /// Per row: index into `batches` and ordinal of the record in the batch. Ascending.
    places: Vec<(u32, u32)>,
}

impl Sources {
    /// Reads the records of the given rows (ascending) again, each batch once.
    pub(crate) fn visit(
        &self,
        rows: &[usize],
        mut visit: impl FnMut(usize, PartitionIndex, &RecordRef<'_>) -> Result<()>,
    ) -> Result<()> {
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
    required: Vec<bool>,
    keys: KeyBuffer,
    timestamps: ColumnBuffer,
    partitions: Vec<PartitionIndex>,
    offsets: Vec<Offset>,
    sources: Sources,
    rejected: Vec<Rejected>,
    bytes: usize,
    last_program: LastProgram,
}

/// Why one record is refused.
pub(crate) struct Refusal {
    pub(crate) rule: &'static str,
    pub(crate) reason: String,
}

impl<'s> Decoder<'s> {
    pub(crate) fn new(stream: &'s Stream) -> Decoder<'s> {
        let config = stream.config();
        let required = |name: &str, declared: bool| declared || name == config.event_time;
        Decoder {
            stream,
            columns: stream.column_types().iter().map(|kind| ColumnBuffer::new(*kind)).collect(),
            required: config.columns.iter().map(|column| required(&column.name, column.required)).collect(),
            keys: KeyBuffer::default(),
            timestamps: ColumnBuffer::new(ColumnType::Timestamp),
            partitions: Vec::new(),
            offsets: Vec::new(),
            sources: Sources::default(),
            rejected: Vec::new(),
            bytes: 0,
            last_program: None,
        }
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes of records decoded so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Decodes one batch of a partition. Control batches are skipped.
    pub(crate) fn push(&mut self, partition: PartitionIndex, batch: &Batch) -> Result<()> {
        self.push_from(partition, batch, batch.base_offset())
    }

    /// As [`push`](Self::push), without the batch's records below an offset: a log start may lie within a batch.
    pub(crate) fn push_from(&mut self, partition: PartitionIndex, batch: &Batch, from: Offset) -> Result<()> {
        if batch.is_control() {
            return Ok(());
        }
        self.sources.batches.push((partition, batch.clone()));
        let mut ordinal = 0;
        let mut next_offset = from.max(batch.base_offset());
        let mut records = match batch.records() {
            Ok(records) => records,
            Err(error) => {
                self.reject_rest(partition, batch, next_offset, &error);
                return Ok(());
            }
        };
        while let Some(record) = records.next_ref() {
            match record {
                Ok(record) if record.offset < from => ordinal += 1,
                Ok(record) => {
                    next_offset = record.offset.saturating_add(1);
                    self.record(partition, &record, ordinal)?;
                    ordinal += 1;
                }
                Err(error) => {
                    self.reject_rest(partition, batch, next_offset, &error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, partition: PartitionIndex, record: &RecordRef<'_>, ordinal: u32) -> Result<()> {
        let rows = self.rows();
        self.bytes += record.value.map_or(0, <[u8]>::len);
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
        match self.stream.config().format {
            StreamFormat::Json => self.json_fields(value)?,
            StreamFormat::JsonSchema => self.json_fields(self.stream.wire().json(value)?)?,
            StreamFormat::Avro => self.avro_fields(value)?,
        }
        self.fill_absent()?;
        self.check_ahead(record.timestamp)
    }

    fn json_fields(&mut self, value: &[u8]) -> std::result::Result<(), Refusal> {
        let rows = self.offsets.len();
        let text =
            std::str::from_utf8(value).map_err(|error| refusal("utf8", format!("the value is not UTF-8: {error}")))?;
        let mut scanner = JsonScanner::new(text);
        scanner.enter_object().map_err(json_refusal)?;
        let names = &self.stream.config().columns;
        let mut guess = 0;
        let mut first = true;
        while let Some((name, value)) = scanner.next_field(first).map_err(json_refusal)? {
            first = false;
            let is_guess = names.get(guess).is_some_and(|column| column.name == *name);
            let found = if is_guess { Some(guess) } else { names.iter().position(|column| column.name == *name) };
            let Some(index) = found else { continue };
            guess = index + 1;
            let column = &mut self.columns[index];
            if column.len() > rows {
                return Err(refusal("duplicate_field", format!("field '{name}' stands twice")));
            }
            if !column.push(&value) {
                return Err(wrong_type(&name, &value, self.stream.column_types()[index]));
            }
            if self.required[index] && value == JsonValue::Null {
                return Err(refusal("required", format!("field '{name}' is null but required")));
            }
        }
        Ok(())
    }

    fn avro_fields(&mut self, value: &[u8]) -> std::result::Result<(), Refusal> {
        let (rows, config) = (self.offsets.len(), self.stream.config());
        let (program, payload) = self.stream.wire().avro(value, config, &mut self.last_program)?;
        program.read(payload, &mut self.columns).map_err(|fault| match fault {
            Fault::Broken(reason) => refusal("avro", format!("not a record of its schema: {reason}")),
            Fault::Type(index, shown) => {
                let (name, kind) = (&config.columns[index].name, self.stream.column_types()[index]);
                refusal("type", format!("field '{name}' is {shown}, wanted {}", kind.wants()))
            }
        })?;
        let null = |index: &usize| self.columns[*index].len() > rows && self.columns[*index].last_is_null();
        match (0..self.columns.len()).filter(|index| self.required[*index]).find(null) {
            Some(index) => {
                Err(refusal("required", format!("field '{}' is null but required", config.columns[index].name)))
            }
            None => Ok(()),
        }
    }

    fn fill_absent(&mut self) -> std::result::Result<(), Refusal> {
        let rows = self.offsets.len();
        for (index, column) in self.columns.iter_mut().enumerate() {
            if column.len() == rows {
                if self.required[index] {
                    let name = &self.stream.config().columns[index].name;
                    return Err(refusal("required", format!("field '{name}' is missing but required")));
                }
                column.push_null();
            }
        }
        Ok(())
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

    /// What cannot be read is refused as one, so that one bad batch never holds up the stream.
    fn reject_rest(&mut self, partition: PartitionIndex, batch: &Batch, from: Offset, error: &broker::Error) {
        self.rejected.push(Rejected {
            partition,
            offset: from,
            records: batch.next_offset().saturating_sub(from).max(1),
            rule: "unreadable".into(),
            reason: format!("records from here to offset {} cannot be read: {error}", batch.last_offset()),
            key: None,
            value: None,
            timestamp: batch.max_timestamp(),
            headers: Vec::new(),
        });
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
        let (rows, refused) = self.stream.apply_checks(rows)?;
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
        Ok((Decoded { rows, rejected: all_rejected }, sources))
    }
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

pub(crate) fn refusal(rule: &'static str, reason: impl Into<String>) -> Refusal {
    Refusal { rule, reason: reason.into() }
}

fn json_refusal(error: JsonError) -> Refusal {
    match error {
        JsonError::NotAnObject => refusal("not_object", "the value is JSON but not an object"),
        JsonError::Syntax { at, expected } => {
            refusal("json", format!("not valid JSON at byte {at}: expected {expected}"))
        }
    }
}

fn wrong_type(name: &str, value: &JsonValue<'_>, kind: ColumnType) -> Refusal {
    let shown = match value {
        JsonValue::Number(text) => short(text),
        JsonValue::String(text) => format!("'{}'", short(text)),
        other => other.kind().to_string(),
    };
    refusal("type", format!("field '{name}' is {shown}, wanted {}", kind.wants()))
}

/// The first characters of a value, for a message of bounded length.
fn short(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
