//! Reading files of whole records: by offset, and by time. One row group is in memory at a time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use broker::{Batch, ColdRead, ColdRecord, Offset, Rebuild, TimestampMs};
use futures::TryStreamExt;
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::bytes::RawFile;
use crate::error::{LakeError, Result};
use crate::objects::Objects;

/// Records that are decoded at a time.
const CHUNK_RECORDS: usize = 1_024;
/// Footers that are kept; those of large files take a MiB each.
const FOOTERS_MAX: usize = 16;
/// Where the columns stand in every file.
const OFFSET_AT: usize = 0;
const TIMESTAMP_AT: usize = 1;

/// What files are read with. Holds: the way to them, and the footers of some that were read, by their paths, which no other file
/// ever gets.
#[derive(Clone)]
pub struct RawReader {
    /// The destination.
    pub objects: Arc<Objects>,
    /// What is kept of footers.
    pub footers: Footers,
}

/// Footers by path.
pub type Footers = Arc<Mutex<HashMap<String, ArrowReaderMetadata>>>;

/// Batches of the records from `wanted.from` on in these files, each of which begins where the one before it ended.
///
/// # Errors
/// `Destination` when a file cannot be read or is not one of ours.
pub async fn batches(reader: &RawReader, files: &[Arc<RawFile>], wanted: ColdRead) -> Result<Vec<Batch>> {
    let (mut rebuild, mut covered) = (Rebuild::new(wanted), wanted.from);
    for file in files {
        covered = file.last + 1;
        if !take(reader, file, wanted, &mut rebuild).await? || covered >= wanted.end {
            break;
        }
    }
    Ok(rebuild.finish(covered))
}

/// Takes the records of a file; whether more can be taken.
async fn take(reader: &RawReader, file: &RawFile, wanted: ColdRead, rebuild: &mut Rebuild) -> Result<bool> {
    let reaches = |group: &RowGroupMetaData| largest(group, OFFSET_AT).is_none_or(|last| last >= wanted.from);
    let mut stream = open(reader, file, reaches, &[]).await?;
    while let Some(rows) = stream.try_next().await.map_err(|e| unreadable(file, &e))? {
        let columns = Columns::of(&rows).ok_or_else(|| unreadable(file, &"it has other columns"))?;
        if !(0..rows.num_rows()).all(|at| rebuild.offer(&columns.record(at))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The first record of a file at or after `from`, below `end`, with a timestamp of at least `target`.
///
/// # Errors
/// As [`batches`].
pub async fn first_at(
    reader: &RawReader,
    file: &RawFile,
    target: TimestampMs,
    (from, end): (Offset, Offset),
) -> Result<Option<(Offset, TimestampMs)>> {
    let reaches = |group: &RowGroupMetaData| {
        largest(group, OFFSET_AT).is_none_or(|last| last >= from)
            && largest(group, TIMESTAMP_AT).is_none_or(|largest| largest >= target)
    };
    let mut stream = open(reader, file, reaches, &["_offset", "_timestamp"]).await?;
    while let Some(rows) = stream.try_next().await.map_err(|e| unreadable(file, &e))? {
        let wrong = || unreadable(file, &"it has other columns");
        let offsets = whole(&rows, "_offset").ok_or_else(wrong)?;
        let timestamps = whole(&rows, "_timestamp").ok_or_else(wrong)?;
        let mut pairs = offsets.values().iter().copied().zip(timestamps.values().iter().copied());
        if let Some(found) = pairs.find(|(offset, time)| (from..end).contains(offset) && *time >= target) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The records of the row groups that are wanted; all columns, or these.
///
/// # Errors
/// As [`batches`].
pub async fn open(
    reader: &RawReader,
    file: &RawFile,
    wanted: impl Fn(&RowGroupMetaData) -> bool,
    columns: &[&str],
) -> Result<ParquetRecordBatchStream<ParquetObjectReader>> {
    let mut input = reader.objects.reader(&file.path, file.bytes)?;
    let known = reader.footers.lock().get(&file.path).cloned();
    let footer = match known {
        Some(footer) => footer,
        None => {
            let read = ArrowReaderMetadata::load_async(&mut input, ArrowReaderOptions::default()).await;
            let footer = read.map_err(|e| unreadable(file, &e))?;
            let mut footers = reader.footers.lock();
            if footers.len() >= FOOTERS_MAX {
                footers.clear();
            }
            footers.insert(file.path.clone(), footer.clone());
            footer
        }
    };
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(input, footer);
    let groups = builder.metadata().row_groups().iter().enumerate();
    let groups = groups.filter(|(_, group)| wanted(group)).map(|(at, _)| at).collect();
    let mask = match columns {
        [] => ProjectionMask::all(),
        some => ProjectionMask::columns(builder.parquet_schema(), some.iter().copied()),
    };
    let builder = builder.with_row_groups(groups).with_projection(mask).with_batch_size(CHUNK_RECORDS);
    builder.build().map_err(|e| unreadable(file, &e))
}

/// The largest value of a column of whole numbers in a row group, if the file says so.
fn largest(group: &RowGroupMetaData, column: usize) -> Option<i64> {
    match group.columns().get(column)?.statistics()? {
        Statistics::Int64(values) => values.max_opt().copied(),
        _ => None,
    }
}

/// The columns of some records.
pub struct Columns<'a> {
    offsets: &'a Int64Array,
    timestamps: &'a Int64Array,
    append_times: &'a BooleanArray,
    keys: &'a BinaryArray,
    values: &'a BinaryArray,
    headers: &'a BinaryArray,
}

impl<'a> Columns<'a> {
    /// Those of these rows; none when they are others.
    pub fn of(rows: &'a RecordBatch) -> Option<Self> {
        let binary = |name: &str| rows.column_by_name(name)?.as_binary_opt::<i32>();
        Some(Self {
            offsets: whole(rows, "_offset")?,
            timestamps: whole(rows, "_timestamp")?,
            append_times: rows.column_by_name("_append_time")?.as_boolean_opt()?,
            keys: binary("_key")?,
            values: binary("_value")?,
            headers: binary("_headers")?,
        })
    }

    /// One record.
    pub fn record(&self, at: usize) -> ColdRecord<'a> {
        let bytes = |column: &'a BinaryArray| (!column.is_null(at)).then(|| column.value(at));
        ColdRecord {
            offset: self.offsets.value(at),
            timestamp: self.timestamps.value(at),
            append_time: self.append_times.value(at),
            key: bytes(self.keys),
            value: bytes(self.values),
            headers: self.headers.value(at),
        }
    }
}

fn whole<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a Int64Array> {
    rows.column_by_name(name)?.as_primitive_opt::<Int64Type>()
}

/// An error of reading, in words.
pub fn unreadable(file: &RawFile, why: &dyn std::fmt::Display) -> LakeError {
    LakeError::destination(format!("{} cannot be read: {why}", file.path))
}
