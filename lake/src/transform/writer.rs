//! Sorted rows → files of one table, one open at a time. The same rows give the same files under the same names: a name
//! is made of the table, the place in the slice, and a hash of the bytes. So a new content never takes the name of one
//! that queries still read, and a second run with the same result changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::WriterProperties;

use crate::encodings;
use crate::error::{LakeError, Result};
use crate::layout::{Layout, Sliced};
use crate::objects::{FileSink, Objects, TMP_DIR};
use crate::slice::{FNV_START, Level, directory, empty_levels, fnv1a_on};
use crate::text_views::cast_column;
use crate::writer::FILE_FORMAT_VERSION;

/// Rows of one row group: small enough that a filter on a sorted column skips most of a file.
const ROW_GROUP_ROWS: usize = 65_536;
/// Rows of one file.
const FILE_ROWS_MAX: u64 = 4 << 20;

/// Whose rows are written.
#[derive(Clone, Debug)]
pub struct Target {
    /// The table.
    pub name: String,
    /// Its directory.
    pub dir: String,
    /// What distinguishes the files of this run from those of others with the same rows; empty where it need not.
    pub run: String,
    /// Columns by which the rows are sorted.
    pub sort: Vec<String>,
    /// Unique among all attempts; names the hidden files.
    pub attempt: String,
}

/// A whole file under its hidden name.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Where it is now.
    pub hidden: String,
    /// Where it goes.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Its slice.
    pub levels: Vec<Level>,
}

/// Writes one result. Holds: the file that is open. Always true: slices come one after the other.
pub struct TableWriter {
    objects: Arc<Objects>,
    layout: Arc<Layout>,
    target: Target,
    open: Option<Open>,
    done: Vec<NewFile>,
    places: HashMap<Vec<Level>, u32>,
}

struct Open {
    levels: Vec<Level>,
    file: AsyncArrowWriter<Hashed>,
    hash: Arc<AtomicU64>,
    hidden: String,
    rows: u64,
}

/// A sink that hashes what goes through it.
struct Hashed {
    sink: FileSink,
    hash: Arc<AtomicU64>,
}

impl AsyncFileWriter for Hashed {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        // one writer at a time: the order is that of the bytes
        self.hash.store(fnv1a_on(self.hash.load(Ordering::Relaxed), &bytes), Ordering::Relaxed);
        self.sink.write(bytes)
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        self.sink.complete()
    }
}

impl TableWriter {
    /// A writer of a result with this layout.
    pub fn new(objects: Arc<Objects>, layout: Arc<Layout>, target: Target) -> Self {
        Self { objects, layout, target, open: None, done: Vec::new(), places: HashMap::new() }
    }

    /// Takes rows that are sorted by slice.
    ///
    /// # Errors
    /// `Refused` when a value does not fit its column's type, `Destination` when they cannot be written.
    pub async fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        let columns = self.layout.row_schema().fields().iter().zip(rows.columns());
        let columns =
            columns.map(|(field, column)| cast_column(column, field.data_type())).collect::<Result<Vec<_>, _>>();
        let rows = columns.and_then(|columns| RecordBatch::try_new(self.layout.row_schema().clone(), columns));
        let rows = rows.map_err(|e| {
            let message = format!("the result of {} does not fit its columns: {e}", self.target.name);
            LakeError::new(crate::LakeErrorKind::Refused, message)
        })?;
        for sliced in self.layout.split(&rows)? {
            self.take(sliced).await?;
        }
        Ok(())
    }

    async fn take(&mut self, sliced: Sliced) -> Result<()> {
        let fits = |open: &Open| open.levels == sliced.levels && open.rows < FILE_ROWS_MAX;
        if !self.open.as_ref().is_some_and(fits) {
            self.close().await?;
            self.open = Some(self.begin(&sliced).await?);
        }
        let Some(open) = &mut self.open else { return Err(LakeError::bug("no file is open")) };
        open.rows += sliced.rows.num_rows() as u64;
        let written = open.file.write(&sliced.rows).await;
        written.map_err(|e| unwritten(&self.target, &e))
    }

    // by unique reference: an open file can be sent to another thread but not shared with it
    async fn begin(&mut self, first: &Sliced) -> Result<Open> {
        let Target { name, attempt, run, .. } = &self.target;
        let hidden = format!("{TMP_DIR}/{name}.{attempt}.{}.tmp", self.done.len());
        let hash = Arc::new(AtomicU64::new(fnv1a_on(FNV_START, run.as_bytes())));
        let sink = Hashed { sink: self.objects.create(&hidden).await?, hash: hash.clone() };
        let properties = properties(&first.rows, &self.target.sort)?;
        let file = AsyncArrowWriter::try_new(sink, self.layout.file_schema().clone(), Some(properties));
        let file = file.map_err(|e| unwritten(&self.target, &e))?;
        Ok(Open { levels: first.levels.clone(), file, hash, hidden, rows: 0 })
    }

    async fn close(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let footer = [
            ("millpond.format", FILE_FORMAT_VERSION.to_string()),
            ("millpond.table", self.target.name.clone()),
            ("millpond.rows", open.rows.to_string()),
        ];
        for (key, value) in footer {
            open.file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        open.file.finish().await.map_err(|e| unwritten(&self.target, &e))?;
        let place = self.places.entry(open.levels.clone()).or_default();
        let path = self.target.path(&open.levels, *place, open.hash.load(Ordering::Relaxed));
        *place += 1;
        let (hidden, rows, bytes) = (open.hidden, open.rows, open.file.bytes_written() as u64);
        self.done.push(NewFile { hidden, path, rows, bytes, levels: open.levels });
        Ok(())
    }

    /// Closes the last file; gives all.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn finish(mut self) -> Result<Vec<NewFile>> {
        self.close().await?;
        Ok(self.done)
    }
}

impl Target {
    /// `<dir>/<slice>/<table>-<place>-<hash>.parquet`; with `-e<n>` before the hash for a slice that shares its directory
    /// with null.
    fn path(&self, levels: &[Level], place: u32, hash: u64) -> String {
        let empty = match empty_levels(levels) {
            0 => String::new(),
            mask => format!("e{mask}-"),
        };
        let name = format!("{}-{place}-{empty}{hash:016x}.parquet", self.name);
        match directory(levels) {
            none if none.is_empty() => format!("{}/{name}", self.dir),
            slice => format!("{}/{slice}/{name}", self.dir),
        }
    }
}

/// Whether a file name is one that [`TableWriter`] gives to files of `table`.
pub fn is_table_file(table: &str, name: &str) -> bool {
    let parts =
        name.strip_prefix(table).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.strip_suffix(".parquet"));
    let Some(parts) = parts else { return false };
    let parts: Vec<&str> = parts.split('-').collect();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let hash = |part: &str| part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match parts.as_slice() {
        [place, last] => number(place) && hash(last),
        [place, empty, last] => number(place) && empty.strip_prefix('e').is_some_and(number) && hash(last),
        _ => false,
    }
}

fn properties(first: &RecordBatch, sort: &[String]) -> Result<WriterProperties> {
    let schema = first.schema();
    let column = |name: &String| schema.index_of(name).ok().and_then(|at| i32::try_from(at).ok());
    let sorting = sort.iter().filter_map(column);
    let sorting = sorting.map(|column_idx| SortingColumn { column_idx, descending: false, nulls_first: false });
    let sorting = Some(sorting.collect::<Vec<_>>()).filter(|columns| !columns.is_empty());
    let properties = encodings::properties(first)?.set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    Ok(properties.set_sorting_columns(sorting).build())
}

fn unwritten(target: &Target, error: &dyn std::fmt::Display) -> LakeError {
    LakeError::destination(format!("rows of {} cannot be written: {error}", target.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_told_from_others() {
        let target = Target {
            name: "dim_users".into(),
            dir: "processed/dim_users".into(),
            run: String::new(),
            sort: Vec::new(),
            attempt: "1".into(),
        };
        let path = target.path(&[], 3, 255);
        assert_eq!(path, "processed/dim_users/dim_users-3-00000000000000ff.parquet");
        assert!(is_table_file("dim_users", "dim_users-3-00000000000000ff.parquet"));
        assert!(is_table_file("dim_users", "dim_users-3-e2-00000000000000ff.parquet"));
        for other in ["dim_users-3.parquet", "dim_users-x-00000000000000ff.parquet", "dim_users-3-ff.parquet", "a.txt"]
        {
            assert!(!is_table_file("dim_users", other), "{other}");
        }
    }
}
