//! Rows of one range of one partition → one Parquet file per slice.
//!
//! Files are zstd 1 with statistics, sorted by offset, and say in their footers which records they hold. Memory is
//! bounded: rows wait in memory by slice; when they are too many, the largest slice is written down as a row group; when
//! that would open too many files, or the slices are too many, the range ends there ([`RangeWriter::is_full`]).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use broker::{Offset, PartitionIndex, TimestampMs, TopicName};
use parquet::arrow::AsyncArrowWriter;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::WriterProperties;

use crate::encodings;
use crate::error::{LakeError, Result};
use crate::layout::{Layout, Sliced};
use crate::manifest_bytes::FileEntry;
use crate::objects::{FileSink, Objects, TMP_DIR};
use crate::slice::{Level, directory, empty_levels};

/// Who wrote a file, as its footer says.
pub const CREATED_BY: &str = concat!("millpond version ", env!("CARGO_PKG_VERSION"));
/// Version of what the footers say and how files are named.
pub const FILE_FORMAT_VERSION: u32 = 1;
/// The column of every stream that names the record.
pub const OFFSET_COLUMN: &str = "_offset";
/// What a record batch costs beyond its buffers, about.
const BATCH_OVERHEAD_BYTES: usize = 2_048;

/// What one range may use while it is written.
#[derive(Clone, Copy, Debug)]
pub struct WriteLimits {
    /// Rows that wait in memory, in bytes.
    pub buffer_bytes_max: usize,
    /// Files that are open at one time.
    pub files_open_max: usize,
    /// Slices of one range; a few more when one chunk of rows brings them.
    pub slices_max: usize,
}

impl Default for WriteLimits {
    fn default() -> Self {
        Self { buffer_bytes_max: 64 << 20, files_open_max: 32, slices_max: 4_096 }
    }
}

/// Whose rows are written.
#[derive(Clone, Debug)]
pub struct Source {
    /// The topic, which names the files.
    pub topic: TopicName,
    /// The table's directory.
    pub dir: String,
    /// Its partition.
    pub partition: PartitionIndex,
    /// First offset of the range.
    pub first: Offset,
    /// Unique among all attempts at all ranges; names the hidden files.
    pub attempt: String,
}

/// A file that is written under its hidden name.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where it is now.
    pub hidden: String,
    /// What the manifest will say, with the path it gets.
    pub entry: FileEntry,
}

/// Writes one range. Holds: rows not yet written, and open files under hidden names. Dropped before
/// [`RangeWriter::finish`] it leaves hidden files, which the next start removes.
pub struct RangeWriter {
    objects: Arc<Objects>,
    layout: Arc<Layout>,
    source: Source,
    limits: WriteLimits,
    known: HashMap<Vec<Level>, usize>,
    slices: Vec<Slice>,
    buffered_bytes: usize,
    files_open: usize,
    full: bool,
}

struct Slice {
    levels: Vec<Level>,
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
    rows: u64,
    event_ms: Option<(TimestampMs, TimestampMs)>,
    file: Option<AsyncArrowWriter<FileSink>>,
}

impl RangeWriter {
    /// A writer of the range that begins at `source.first`.
    pub fn new(objects: Arc<Objects>, layout: Arc<Layout>, source: Source, limits: WriteLimits) -> Self {
        Self {
            objects,
            layout,
            source,
            limits,
            known: HashMap::new(),
            slices: Vec::new(),
            buffered_bytes: 0,
            files_open: 0,
            full: false,
        }
    }

    /// Takes rows, in the order of their offsets.
    ///
    /// # Errors
    /// `Destination` when they cannot be written, `Bug` when they are not of the layout's schema.
    pub async fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        for sliced in self.layout.split(rows)? {
            self.keep(sliced);
        }
        while self.buffered_bytes > self.limits.buffer_bytes_max && !self.full {
            self.write_largest().await?;
        }
        self.full |= self.slices.len() >= self.limits.slices_max;
        Ok(())
    }

    /// Whether the range has to end with what was pushed.
    pub fn is_full(&self) -> bool {
        self.full
    }

    fn keep(&mut self, sliced: Sliced) {
        let slices = &mut self.slices;
        let at = *self.known.entry(sliced.levels.clone()).or_insert_with(|| {
            slices.push(Slice::new(sliced.levels));
            slices.len() - 1
        });
        let slice = &mut slices[at];
        let bytes = memory_bytes(&sliced.rows);
        slice.rows += sliced.rows.num_rows() as u64;
        slice.event_ms = match (slice.event_ms, sliced.event_ms) {
            (Some((least, most)), Some((low, high))) => Some((least.min(low), most.max(high))),
            (known, new) => known.or(new),
        };
        slice.waiting.push(sliced.rows);
        slice.waiting_bytes += bytes;
        self.buffered_bytes += bytes;
    }

    async fn write_largest(&mut self) -> Result<()> {
        let largest = (0..self.slices.len()).max_by_key(|at| self.slices[*at].waiting_bytes);
        let Some(at) = largest else { return Ok(()) };
        if self.slices[at].file.is_none() {
            if self.files_open >= self.limits.files_open_max {
                self.full = true;
                return Ok(());
            }
            self.files_open += 1;
        }
        self.write_waiting(at).await?;
        match &mut self.slices[at].file {
            Some(file) => file.flush().await.map_err(|e| unwritten(&self.source, &e)),
            None => Ok(()),
        }
    }

    async fn write_waiting(&mut self, at: usize) -> Result<()> {
        let hidden = self.hidden(at);
        let slice = &mut self.slices[at];
        let waiting = std::mem::take(&mut slice.waiting);
        self.buffered_bytes -= std::mem::take(&mut slice.waiting_bytes);
        // many small pieces are slow to encode one by one
        let rows = concat_batches(self.layout.file_schema(), &waiting).map_err(|e| unwritten(&self.source, &e))?;
        drop(waiting);
        if slice.file.is_none() {
            slice.file = Some(begin(&self.objects, (&self.source, &hidden), &rows).await?);
        }
        let Some(file) = &mut slice.file else { return Ok(()) };
        file.write(&rows).await.map_err(|e| unwritten(&self.source, &e))
    }

    /// Writes what is left and closes the files; the range ends with `last`.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn finish(mut self, last: Offset, now: TimestampMs) -> Result<Vec<Written>> {
        let mut written = Vec::with_capacity(self.slices.len());
        for at in 0..self.slices.len() {
            self.write_waiting(at).await?;
            let slice = &mut self.slices[at];
            let mut file = slice.file.take().ok_or_else(|| LakeError::bug("a slice without a file"))?;
            for (key, value) in self.source.footer(last, slice.rows) {
                file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
            }
            file.finish().await.map_err(|e| unwritten(&self.source, &e))?;
            let ordinal = u32::try_from(at).map_err(|_| LakeError::bug("too many slices"))?;
            let entry = FileEntry {
                first: self.source.first,
                last,
                ordinal,
                rows: slice.rows,
                bytes: file.bytes_written() as u64,
                event_ms: slice.event_ms,
                published_ms: now,
                path: self.source.path(last, &slice.levels),
                levels: std::mem::take(&mut slice.levels),
            };
            written.push(Written { hidden: self.hidden(at), entry });
        }
        Ok(written)
    }

    fn hidden(&self, at: usize) -> String {
        let Source { topic, partition, first, attempt, .. } = &self.source;
        format!("{TMP_DIR}/{topic}-{partition}-{first}.{attempt}.{at}.tmp")
    }
}

impl Slice {
    fn new(levels: Vec<Level>) -> Self {
        Self { levels, waiting: Vec::new(), waiting_bytes: 0, rows: 0, event_ms: None, file: None }
    }
}

impl Source {
    /// What the footer of a file says that ends with `last`.
    pub fn footer(&self, last: Offset, rows: u64) -> [(&'static str, String); 6] {
        [
            ("millpond.format", FILE_FORMAT_VERSION.to_string()),
            ("millpond.topic", self.topic.to_string()),
            ("millpond.partition", self.partition.to_string()),
            ("millpond.first_offset", self.first.to_string()),
            ("millpond.last_offset", last.to_string()),
            ("millpond.rows", rows.to_string()),
        ]
    }

    /// `<dir>/<slice>/<topic>-<partition>-<first>-<last>.parquet`; with `-e<n>` for the slice that shares its
    /// directory with null.
    fn path(&self, last: Offset, levels: &[Level]) -> String {
        let (dir, name) = (&self.dir, self.name(last, levels));
        match directory(levels) {
            none if none.is_empty() => format!("{dir}/{name}"),
            slice => format!("{dir}/{slice}/{name}"),
        }
    }

    /// The name of a file that ends with `last`.
    pub fn name(&self, last: Offset, levels: &[Level]) -> String {
        let Self { topic, partition, first, .. } = self;
        let empty = match empty_levels(levels) {
            0 => String::new(),
            mask => format!("-e{mask}"),
        };
        format!("{topic}-{partition}-{first}-{last}{empty}.parquet")
    }
}

/// The partition and the range, with both ends in it, of a file name that [`RangeWriter`] gives to files of `topic`.
pub fn published_range(topic: &str, name: &str) -> Option<(PartitionIndex, Offset, Offset)> {
    let parts = name.strip_prefix(topic)?.strip_prefix('-')?.strip_suffix(".parquet")?;
    let parts: Vec<&str> = parts.split('-').collect();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = match parts.as_slice() {
        [numbers @ .., empty] if empty.strip_prefix('e').is_some_and(number) => numbers,
        numbers => numbers,
    };
    match numbers {
        [partition, first, last] if numbers.iter().all(|part| number(part)) => {
            Some((partition.parse().ok()?, first.parse().ok()?, last.parse().ok()?))
        }
        _ => None,
    }
}

/// The file under its hidden name that begins with these rows, in the order of their offsets.
///
/// # Errors
/// `Destination`.
pub async fn begin(
    objects: &Objects,
    (source, hidden): (&Source, &str),
    rows: &RecordBatch,
) -> Result<AsyncArrowWriter<FileSink>> {
    let properties = properties(rows)?;
    let sink = objects.create(hidden).await?;
    AsyncArrowWriter::try_new(sink, rows.schema(), Some(properties)).map_err(|e| unwritten(source, &e))
}

/// How a file is written that begins with these rows, in the order of their offsets.
///
/// # Errors
/// `Bug`.
pub fn properties(first: &RecordBatch) -> Result<WriterProperties> {
    let by_offset = first.schema().index_of(OFFSET_COLUMN).ok().and_then(|at| i32::try_from(at).ok());
    let sorting = by_offset.map(|column_idx| vec![SortingColumn { column_idx, descending: false, nulls_first: false }]);
    Ok(encodings::properties(first)?.set_sorting_columns(sorting).build())
}

/// What rows take in memory: the part of shared buffers that is theirs, so that no byte counts twice.
pub fn memory_bytes(rows: &RecordBatch) -> usize {
    let column_bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    rows.columns().iter().map(column_bytes).sum::<usize>() + BATCH_OVERHEAD_BYTES
}

/// An error of writing, in words.
pub fn unwritten(source: &Source, error: &dyn std::fmt::Display) -> LakeError {
    let Source { topic, partition, first, .. } = source;
    LakeError::destination(format!("records of {topic}-{partition} from offset {first} on cannot be written: {error}"))
}
