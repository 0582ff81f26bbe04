//! One settled range of a partition → one file of whole records, in the order of their offsets:
//!
//! ```text
//! _raw/<topic>/<log id>/<topic>-<partition>-<first>-<last>.parquet
//! _offset INT64 · _timestamp INT64, ms · _append_time BOOLEAN, whether that is the broker's
//! _key BINARY or null · _value BINARY or null · _headers BINARY, as in a record: their count first
//! ```
//! A file of its own, because a consumer reads by offset what the table has by slice, and because records that the stream
//! refuses are no rows of the table. Row groups are small: whoever wants one record reads one of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, BooleanBuilder, Int64Builder, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use broker::{Batch, ColdRecord, Offset, Partition, TimestampMs};
use parquet::arrow::AsyncArrowWriter;
use parquet::file::metadata::KeyValue;

use super::RAW_DIR;
use super::bytes::RawFile;
use super::reader::Columns;
use super::sums::{as_kept, record_sum};
use crate::error::{LakeError, Result};
use crate::objects::{FileSink, Objects, TMP_DIR};
use crate::writer::{Source, begin, memory_bytes, unwritten};

/// Bytes of the log that are read at one time.
const READ_BYTES: usize = 1 << 20;
/// Bytes of keys, values and headers after which a row group ends.
const GROUP_BYTES: usize = 1 << 20;
/// Records after which a row group ends.
const GROUP_RECORDS: usize = 16_384;
/// What stands in a hidden name for the number of a slice.
const HIDDEN_AS: &str = "0-0";

/// A file that is written under its hidden name.
#[derive(Clone, Debug)]
pub struct WrittenRaw {
    /// Where it is now.
    pub hidden: String,
    /// What the manifest will say, with the path it gets.
    pub file: RawFile,
}

/// Writes the committed records of `source.first..=last`.
///
/// # Errors
/// `Destination` when they cannot be written, `Broker` when the log cannot be read.
pub async fn write(
    objects: &Objects,
    partition: &Arc<Partition>,
    source: &Source,
    last: Offset,
    now: TimestampMs,
) -> Result<WrittenRaw> {
    let mut writer = RawWriter::new(objects, source);
    let mut at = source.first;
    while at <= last {
        let batches = partition.read_committed(at, READ_BYTES).await?;
        let Some(end) = batches.last().map(Batch::next_offset) else {
            let (topic, index) = (&source.topic, source.partition);
            return Err(LakeError::bug(format!("{topic}-{index} ends at {at}, before {last}")));
        };
        for batch in &batches {
            writer.take(batch, (at, last)).await?;
        }
        at = end;
    }
    // a topic that is made again under its name never meets these files
    let dir = format!("{RAW_DIR}/{}/{}", source.topic, partition.id().0);
    writer.finish((&dir, last), now).await
}

/// The columns of the files.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", DataType::Int64, false),
        Field::new("_append_time", DataType::Boolean, false),
        Field::new("_key", DataType::Binary, true),
        Field::new("_value", DataType::Binary, true),
        Field::new("_headers", DataType::Binary, false),
    ]))
}

/// Writes one file. Holds: the file under its hidden name, and the records of its next row group. Dropped before
/// [`RawWriter::finish`] it leaves a hidden file.
pub struct RawWriter<'a> {
    objects: &'a Objects,
    source: &'a Source,
    hidden: String,
    schema: SchemaRef,
    file: Option<AsyncArrowWriter<FileSink>>,
    group: Group,
    records: u64,
    /// Of the checksums of all records so far.
    sum: u64,
    max_timestamp: TimestampMs,
    open_bytes: usize,
}

impl<'a> RawWriter<'a> {
    /// A file of records from `source.first` on.
    pub fn new(objects: &'a Objects, source: &'a Source) -> Self {
        let Source { topic, partition, first, attempt, .. } = source;
        let hidden = format!("{TMP_DIR}/{topic}-{partition}-{first}.{attempt}.{HIDDEN_AS}.tmp");
        let (group, records, sum, max_timestamp, open_bytes) = (Group::default(), 0, 0, -1, 0);
        Self { objects, source, hidden, schema: schema(), file: None, group, records, sum, max_timestamp, open_bytes }
    }

    /// Takes a batch's records from `at` to `last`. What of it cannot be read is left out, as nobody could read it in the log.
    async fn take(&mut self, batch: &Batch, (at, last): (Offset, Offset)) -> Result<()> {
        let Ok(mut records) = batch.records() else { return Ok(()) };
        while let Some(Ok(record)) = records.next_ref() {
            if record.offset < at || record.offset > last {
                continue;
            }
            let record = as_kept(&record, batch.is_log_append_time());
            self.max_timestamp = self.max_timestamp.max(record.timestamp);
            self.add(record_sum(&record));
            self.group.push(&record);
            if self.group.bytes >= GROUP_BYTES || self.group.records >= GROUP_RECORDS {
                self.write_group().await?;
            }
        }
        Ok(())
    }

    async fn write_group(&mut self) -> Result<()> {
        let group = std::mem::take(&mut self.group);
        if group.records == 0 {
            return Ok(());
        }
        let rows = group.finish(&self.schema).map_err(|e| unwritten(self.source, &e))?;
        self.write(&rows).await?;
        self.end_group().await
    }

    fn add(&mut self, sum: u32) {
        self.sum = self.sum.wrapping_add(sum.into());
    }

    /// The sum of the checksums of what was taken so far.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Takes rows of another such file, whose largest timestamp is this at most.
    ///
    /// # Errors
    /// `Destination`, also for rows of other columns.
    pub async fn copy(&mut self, rows: &RecordBatch, max_timestamp: TimestampMs) -> Result<()> {
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
        let other =
            || LakeError::destination(format!("a file of whole records of {} has other columns", self.source.topic));
        let columns = Columns::of(rows).ok_or_else(other)?;
        (0..rows.num_rows()).for_each(|at| self.add(record_sum(&columns.record(at))));
        // what the footer says of the other file would else be said of this one
        let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec());
        self.write(&rows.map_err(|e| unwritten(self.source, &e))?).await?;
        if self.open_bytes >= GROUP_BYTES { self.end_group().await } else { Ok(()) }
    }

    async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.records += rows.num_rows() as u64;
        self.open_bytes += memory_bytes(rows);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(begin(self.objects, (self.source, &self.hidden), rows).await?),
        };
        file.write(rows).await.map_err(|e| unwritten(self.source, &e))
    }

    async fn end_group(&mut self) -> Result<()> {
        self.open_bytes = 0;
        match &mut self.file {
            Some(file) => file.flush().await.map_err(|e| unwritten(self.source, &e)),
            None => Ok(()),
        }
    }

    /// Closes the file, which ends with `last` and gets its name in `dir`.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn finish(mut self, (dir, last): (&str, Offset), now: TimestampMs) -> Result<WrittenRaw> {
        self.write_group().await?;
        if self.file.is_none() {
            // a range without one record has a file, too
            self.write(&RecordBatch::new_empty(self.schema.clone())).await?;
        }
        let mut file = self.file.take().ok_or_else(|| LakeError::bug("whole records without a file"))?;
        for (key, value) in self.source.footer(last, self.records) {
            file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        file.finish().await.map_err(|e| unwritten(self.source, &e))?;
        let raw = RawFile {
            first: self.source.first,
            last,
            records: self.records,
            bytes: file.bytes_written() as u64,
            max_timestamp: self.max_timestamp,
            published_ms: now,
            path: format!("{dir}/{}", self.source.name(last, &[])),
            sum: Some(self.sum),
        };
        Ok(WrittenRaw { hidden: self.hidden, file: raw })
    }
}

/// Records that become a row group.
#[derive(Default)]
struct Group {
    records: usize,
    bytes: usize,
    offsets: Int64Builder,
    timestamps: Int64Builder,
    append_times: BooleanBuilder,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    headers: BinaryBuilder,
}

impl Group {
    fn push(&mut self, record: &ColdRecord<'_>) {
        let size = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        self.records += 1;
        self.bytes += size(record.key) + size(record.value) + record.headers.len();
        self.offsets.append_value(record.offset);
        self.timestamps.append_value(record.timestamp);
        self.append_times.append_value(record.append_time);
        self.keys.append_option(record.key);
        self.values.append_option(record.value);
        self.headers.append_value(record.headers);
    }

    fn finish(mut self, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.offsets.finish()),
            Arc::new(self.timestamps.finish()),
            Arc::new(self.append_times.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(self.values.finish()),
            Arc::new(self.headers.finish()),
        ];
        RecordBatch::try_new(schema.clone(), columns)
    }
}
