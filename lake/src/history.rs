//! What has left the log, for the engine: settled rows of a partition in the order of their offsets, a window of offsets at a time.
//!
//! Each read takes the files that the manifest has now and holds them until it ends; between two reads they may be merged, moved
//! or deleted. So nothing stays open, and where a fill goes on depends on its offset alone. One file is open at a time, and rows
//! of several slices are put in order in memory; a window that would be too large ends earlier.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{can_cast_types, cast, concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{Field, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use broker::Offset;
use engine::{EngineError, ErrorKind, Found, History, Wanted};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use crate::error::{LakeError, Result};
use crate::manifest::Manifest;
use crate::manifest_bytes::FileEntry;
use crate::objects::{Destination, Objects};
use crate::slice::Level;
use crate::tables::{Tables, offsets};
use crate::writer::{OFFSET_COLUMN, memory_bytes};

/// Rows that are read at a time.
const CHUNK_ROWS: usize = 8_192;
/// Memory of a row, at least, and how often larger than in its file: a window is as wide as this says, until it is read.
const ROW_BYTES_MIN: u64 = 64;
const UNFOLDS: u64 = 4;

/// Settled rows as the engine reads them. Holds: the way to manifest and files.
pub struct SettledRows {
    /// The tables that there are.
    pub tables: Arc<Tables>,
    /// What is published.
    pub manifest: Arc<Manifest>,
    /// Where the files are.
    pub destination: Arc<Destination>,
}

/// Rows of one read. Always true: of the offsets below `end` all rows of the files that were taken are here.
struct Window<'a> {
    wanted: &'a Wanted,
    end: Offset,
    parts: Vec<RecordBatch>,
    bytes: usize,
}

impl History for SettledRows {
    fn read(&self, wanted: Wanted) -> BoxFuture<'_, engine::Result<Found>> {
        Box::pin(async move {
            let found = self.find(&wanted).await;
            found.map_err(|error| EngineError::new(ErrorKind::Storage, error.message))
        })
    }
}

impl SettledRows {
    async fn find(&self, wanted: &Wanted) -> Result<Found> {
        let tables = self.tables.now();
        let Some(table) = tables.iter().find(|table| table.name == wanted.stream) else { return Ok(Found::NotYet) };
        // as long as these are held, the files can be read
        let files = self.manifest.settled(wanted.partition.id()).files;
        // the files of a topic have the columns of the stream that settles, and no other reads them
        if table.settles.is_none() || files.is_empty() {
            return Ok(Found::Nothing);
        }
        let (from, to) = wanted.range;
        let (reach, following) = reach(&files, from);
        if reach == from {
            return Ok(Found::Gap { next: following.map_or(to, |first| first.min(to)) });
        }
        let to = reach.min(to);
        let end = to.min(from.saturating_add(width(&files, (from, to), wanted.bytes_max)));
        let objects = self.destination.get().await?;
        let mut window = Window { wanted, end, parts: Vec::new(), bytes: 0 };
        for file in files.iter().filter(|file| file.last >= from) {
            window.take(&objects, file).await?;
        }
        window.finish()
    }
}

impl Window<'_> {
    /// Takes the rows that a file has of the window.
    async fn take(&mut self, objects: &Objects, file: &FileEntry) -> Result<()> {
        if file.first >= self.end {
            return Ok(());
        }
        let is_first = self.parts.is_empty();
        let mut rows = open(objects, file, &self.wanted.schema, (self.wanted.range.0, self.end)).await?;
        while let Some(read) = rows.try_next().await.map_err(|e| unreadable(file, &e))? {
            let last = self.keep(conform(&read, &self.wanted.schema, &file.levels)?, is_first)?;
            if last.is_some_and(|last| last + 1 >= self.end) {
                break;
            }
        }
        Ok(())
    }

    /// Keeps rows, or only those of fewer offsets when they are too many; gives the last offset that was read.
    fn keep(&mut self, rows: RecordBatch, is_first: bool) -> Result<Option<Offset>> {
        let from = self.wanted.range.0;
        let Some(last) = offsets(&rows)?.last().copied() else { return Ok(None) };
        self.bytes += memory_bytes(&rows);
        self.parts.push(rows);
        if self.bytes > self.wanted.bytes_max && is_first {
            // nothing but this file was read: no row below its last one is missing
            self.end = self.end.min(last + 1);
        }
        while self.bytes > self.wanted.bytes_max && self.end - from > 1 && !is_first {
            self.cut(from + (self.end - from) / 2)?;
        }
        Ok(Some(last))
    }

    /// Ends the window earlier.
    fn cut(&mut self, end: Offset) -> Result<()> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            let count = offsets(&part)?.partition_point(|offset| *offset < end);
            parts.extend((count > 0).then(|| part.slice(0, count)));
        }
        self.bytes = parts.iter().map(memory_bytes).sum();
        (self.end, self.parts) = (end, parts);
        Ok(())
    }

    /// All rows of the window in the order of their offsets.
    fn finish(self) -> Result<Found> {
        let rows = concat_batches(&self.wanted.schema, &self.parts).map_err(|e| arrow_bug(&e))?;
        let ascend = |rows: &RecordBatch| -> Result<bool> { Ok(offsets(rows)?.is_sorted_by(|one, next| one < next)) };
        if ascend(&rows)? {
            return Ok(Found::Rows { rows, next: self.end });
        }
        let order = sort_to_indices(rows.column(rows.num_columns() - 1), None, None);
        let rows = order.and_then(|order| take_record_batch(&rows, &order)).map_err(|e| arrow_bug(&e))?;
        if !ascend(&rows)? {
            let Wanted { partition, range, .. } = self.wanted;
            return Err(LakeError::destination(format!(
                "rows of {}-{} are in the files twice between {} and {}: run verify",
                partition.topic(),
                partition.index(),
                range.0,
                self.end
            )));
        }
        Ok(Found::Rows { rows, next: self.end })
    }
}

/// The end of the offsets from `from` on that files have, without a gap, and where the next file behind them begins. The
/// files come in the order of their first offsets.
fn reach(files: &[Arc<FileEntry>], from: Offset) -> (Offset, Option<Offset>) {
    let mut end = from;
    for file in files {
        if file.first > end {
            return (end, Some(file.first));
        }
        end = end.max(file.last + 1);
    }
    (end, None)
}

/// As many offsets as should have rows of about so many bytes.
fn width(files: &[Arc<FileEntry>], (from, to): (Offset, Offset), bytes_max: usize) -> Offset {
    let among = files.iter().filter(|file| file.first < to && file.last >= from);
    let (rows, bytes) = among.fold((0, 0), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
    let row_bytes = (bytes.saturating_mul(UNFOLDS) / rows.max(1)).max(ROW_BYTES_MIN);
    Offset::try_from((bytes_max as u64 / row_bytes).max(1)).unwrap_or(Offset::MAX)
}

/// Reads the rows of a file with offsets in `from..end`.
async fn open(
    objects: &Objects,
    file: &FileEntry,
    schema: &SchemaRef,
    (from, end): (Offset, Offset),
) -> Result<ParquetRecordBatchStream<ParquetObjectReader>> {
    let reader = objects.reader(&file.path, file.bytes)?;
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| unreadable(file, &e))?;
    let place = |name: &str| builder.schema().index_of(name).ok();
    let wanted: Vec<usize> = schema.fields().iter().filter_map(|field| place(field.name())).collect();
    let columns = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let offset_column = ProjectionMask::roots(builder.parquet_schema(), place(OFFSET_COLUMN));
    let groups = groups_within(builder.metadata(), (from, end));
    let builder = builder.with_projection(columns).with_row_groups(groups).with_batch_size(CHUNK_ROWS);
    let is_inside = file.first >= from && file.last < end;
    let builder = if is_inside {
        builder
    } else {
        let within = ArrowPredicateFn::new(offset_column, move |rows| within(&rows, (from, end)));
        builder.with_row_filter(RowFilter::new(vec![Box::new(within)]))
    };
    builder.build().map_err(|e| unreadable(file, &e))
}

/// The row groups that may have rows with these offsets.
fn groups_within(metadata: &ParquetMetaData, (from, end): (Offset, Offset)) -> Vec<usize> {
    let may_have = |group: &RowGroupMetaData| {
        let column = group.columns().iter().find(|column| column.column_path().string() == OFFSET_COLUMN);
        match column.and_then(|column| column.statistics()) {
            Some(Statistics::Int64(range)) => {
                range.min_opt().is_none_or(|least| *least < end) && range.max_opt().is_none_or(|most| *most >= from)
            }
            _ => true,
        }
    };
    (0..metadata.num_row_groups()).filter(|at| may_have(metadata.row_group(*at))).collect()
}

fn within(rows: &RecordBatch, (from, end): (Offset, Offset)) -> std::result::Result<BooleanArray, ArrowError> {
    let offsets = rows.columns().first().and_then(|column| column.as_primitive_opt::<Int64Type>());
    let offsets = offsets.ok_or_else(|| ArrowError::SchemaError(format!("{OFFSET_COLUMN} is not a whole number")))?;
    Ok(offsets.values().iter().map(|offset| (from..end).contains(offset)).collect::<Vec<bool>>().into())
}

/// Rows of a file with the wanted columns: from the file or from its directory; null where it was written without one.
fn conform(rows: &RecordBatch, schema: &SchemaRef, levels: &[Level]) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef> {
        let (kind, count) = (field.data_type(), rows.num_rows());
        let level = levels.iter().find(|level| !level.derived && level.column == *field.name());
        match (rows.column_by_name(field.name()), level) {
            (Some(column), _) if column.data_type() == kind => Ok(column.clone()),
            (Some(column), _) if can_cast_types(column.data_type(), kind) => {
                cast(column, kind).map_err(|e| arrow_bug(&e))
            }
            (None, Some(level)) => {
                let value = level.value.scalar(kind).to_array_of_size(count);
                value.map_err(|e| LakeError::bug(format!("column {}: {e}", field.name())))
            }
            _ => Ok(new_null_array(kind, count)),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| arrow_bug(&e))
}

fn arrow_bug(error: &ArrowError) -> LakeError {
    LakeError::bug(format!("rows that were kept cannot be put together: {error}"))
}

fn unreadable(file: &FileEntry, error: &dyn std::fmt::Display) -> LakeError {
    LakeError::destination(format!("{} cannot be read: {error}", file.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: Offset, last: Offset, rows: u64) -> Arc<FileEntry> {
        Arc::new(FileEntry {
            first,
            last,
            ordinal: 0,
            rows,
            bytes: rows * 100,
            event_ms: None,
            published_ms: 0,
            path: String::new(),
            levels: Vec::new(),
        })
    }

    #[test]
    fn a_gap_is_where_no_file_has_an_offset() {
        let files = [file(0, 9, 5), file(0, 4, 3), file(10, 19, 10), file(30, 39, 10), file(35, 59, 9)];
        assert_eq!(reach(&files, 0), (20, Some(30)));
        assert_eq!(reach(&files, 12), (20, Some(30)));
        assert_eq!(reach(&files, 20), (20, Some(30)), "nothing until 30");
        assert_eq!(reach(&files, 37), (60, None));
        assert_eq!(reach(&files, 60), (60, None), "nothing any more");
        assert_eq!(reach(&files[2..], 3), (3, Some(10)), "what is settled first begins later");
        assert_eq!(reach(&[], 3), (3, None));
    }

    #[test]
    fn a_window_is_as_wide_as_its_rows_allow() {
        let files = [file(0, 9_999, 10_000), file(10_000, 10_000, 1)];
        assert_eq!(width(&files, (0, 10_000), 400_000), 1_000, "100 bytes a row, 400 unfolded");
        assert_eq!(width(&files, (0, 10_000), 1), 1, "at least one");
        assert_eq!(width(&[], (0, 10_000), 6_400), 100);
    }
}
