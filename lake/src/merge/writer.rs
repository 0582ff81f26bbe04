//! Several files of a slice, in the order of their offsets → one file, as the writer of ranges would have made it.
//!
//! Memory is bounded: one input is open at a time and read in pieces, and a row group ends when its rows are as many bytes
//! as a range may keep.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use broker::{Offset, TimestampMs};
use futures::TryStreamExt;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::file::metadata::KeyValue;

use crate::error::{LakeError, Result};
use crate::manifest_bytes::FileEntry;
use crate::objects::{FileSink, Objects};
use crate::tables::offsets;
use crate::writer::{Source, Written, begin, memory_bytes, unwritten};

/// Rows that are read at a time.
const CHUNK_ROWS: usize = 8_192;

/// Writes one merged file. Holds: the file under its hidden name, and rows that wait for a row group. Dropped before
/// [`Merging::finish`] it leaves a hidden file.
pub struct Merging {
    objects: Arc<Objects>,
    source: Source,
    hidden: String,
    group_bytes_max: usize,
    schema: Option<SchemaRef>,
    file: Option<AsyncArrowWriter<FileSink>>,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    group_bytes: usize,
    last: Offset,
    rows: u64,
}

impl Merging {
    /// A writer to `hidden` of rows from `source.first` on, with row groups of about `group_bytes_max` in memory.
    pub fn new(objects: Arc<Objects>, source: Source, hidden: String, group_bytes_max: usize) -> Self {
        let last = source.first - 1;
        Self {
            objects,
            source,
            hidden,
            group_bytes_max,
            schema: None,
            file: None,
            waiting: Vec::new(),
            waiting_rows: 0,
            group_bytes: 0,
            last,
            rows: 0,
        }
    }

    /// Takes the rows of a file, which follow those that it has; says whether it did: a file with other columns than the
    /// ones before is left alone.
    ///
    /// # Errors
    /// `Destination` when the file cannot be read, is not as it was published, or the merged one cannot be written.
    pub async fn take(&mut self, input: &FileEntry) -> Result<bool> {
        let before = self.rows;
        if !self.take_to(input, input.last).await? {
            return Ok(false);
        }
        let rows = self.rows - before;
        match rows == input.rows {
            true => Ok(true),
            false => Err(damaged(input, &format!("it has {rows} rows, the manifest says {}", input.rows))),
        }
    }

    /// Takes the rows of a file up to an offset, as [`Merging::take`] does; how many these are is for the caller to judge.
    ///
    /// # Errors
    /// As [`Merging::take`].
    pub async fn take_to(&mut self, input: &FileEntry, end: Offset) -> Result<bool> {
        let unreadable = |why: &dyn std::fmt::Display| damaged(input, why);
        let reader = self.objects.reader(&input.path, input.bytes)?;
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| unreadable(&e))?;
        // what the footer says of the file would else be said of the merged one, too
        let schema = Arc::new(Schema::new(builder.schema().fields().clone()));
        if self.schema.get_or_insert_with(|| schema.clone()) != &schema {
            return Ok(false);
        }
        let mut rows = builder.with_batch_size(CHUNK_ROWS).build().map_err(|e| unreadable(&e))?;
        while let Some(rows) = rows.try_next().await.map_err(|e| unreadable(&e))? {
            let offsets = offsets(&rows)?;
            let follow = offsets.is_sorted_by(|one, next| one < next);
            let inside = offsets.first().is_none_or(|first| *first > self.last && *first >= input.first)
                && offsets.last().is_none_or(|last| *last <= input.last);
            if !follow || !inside {
                return Err(unreadable(&"its rows are not in the order of their offsets"));
            }
            let wanted = offsets.partition_point(|offset| *offset <= end);
            self.last = offsets[..wanted].last().copied().unwrap_or(self.last);
            self.push(&schema, &rows.slice(0, wanted)).await?;
            if wanted < offsets.len() {
                break;
            }
        }
        Ok(true)
    }

    async fn push(&mut self, schema: &SchemaRef, rows: &RecordBatch) -> Result<()> {
        let rows = RecordBatch::try_new(schema.clone(), rows.columns().to_vec());
        let rows = rows.map_err(|e| unwritten(&self.source, &e))?;
        self.rows += rows.num_rows() as u64;
        self.waiting_rows += rows.num_rows();
        self.group_bytes += memory_bytes(&rows);
        self.waiting.push(rows);
        let full = self.group_bytes > self.group_bytes_max;
        // many small pieces are slow to encode one by one
        if full || self.waiting_rows >= CHUNK_ROWS {
            self.write_waiting(full).await?;
        }
        Ok(())
    }

    async fn write_waiting(&mut self, ends_group: bool) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_rows = 0;
        let Some(schema) = &self.schema else { return Ok(()) };
        let rows = concat_batches(schema, &waiting).map_err(|e| unwritten(&self.source, &e))?;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(begin(&self.objects, (&self.source, &self.hidden), &rows).await?),
        };
        file.write(&rows).await.map_err(|e| unwritten(&self.source, &e))?;
        if ends_group {
            self.group_bytes = 0;
            file.flush().await.map_err(|e| unwritten(&self.source, &e))?;
        }
        Ok(())
    }

    /// Closes the file, which has the rows of `inputs`.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn finish(mut self, inputs: &[Arc<FileEntry>], now: TimestampMs) -> Result<Written> {
        self.write_waiting(false).await?;
        let (Some(mut file), Some(first), Some(last)) = (self.file.take(), inputs.first(), inputs.last()) else {
            return Err(LakeError::bug("a merge of nothing"));
        };
        for (key, value) in self.source.footer(last.last, self.rows) {
            file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        file.finish().await.map_err(|e| unwritten(&self.source, &e))?;
        let entry = FileEntry {
            first: first.first,
            last: last.last,
            ordinal: first.ordinal,
            rows: self.rows,
            bytes: file.bytes_written() as u64,
            event_ms: FileEntry::times_of(inputs),
            published_ms: now,
            path: format!("{}/{}", self.source.dir, self.source.name(last.last, &first.levels)),
            levels: first.levels.clone(),
        };
        Ok(Written { hidden: self.hidden, entry })
    }
}

fn damaged(input: &FileEntry, why: &dyn std::fmt::Display) -> LakeError {
    LakeError::destination(format!("{} cannot be merged, run verify: {why}", input.path))
}
