//! Comparing what is settled with the log it came from: the rows of a partition's files and those of its log are read side
//! by side, in the order of their offsets, so that memory does not grow with the table. Values are compared by their checksums. So
//! are the files of whole records, where a topic has such (`raw::check`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use broker::{Batch, ColdRead, Offset, Partition, PartitionIndex};
use futures::TryStreamExt;
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};

use crate::error::{LakeError, Result};
use crate::manifest_bytes::FileEntry;
use crate::objects::Objects;
use crate::raw::{self, Footers, RawFile, RawReader};
use crate::row_sums::SummedColumns;
use crate::settle::Settler;
use crate::tables::{Table, offsets};

const READ_BYTES: usize = 1 << 20;
/// Rows of one file that are kept at a time.
const CHUNK_ROWS: usize = 1_024;
/// Most differences that are named one by one.
const DIFFERENCES_MAX: usize = 100;

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Rows in files.
    pub file_rows: u64,
    /// Rows in the log above the marks.
    pub live_rows: u64,
    /// Rows below the marks that were compared: those in the log, which must be in files, and those in files of whole records.
    pub checked_rows: u64,
    /// Records in files of whole records.
    pub raw_records: u64,
    /// Of these, the ones that the log has, too.
    pub raw_checked: u64,
    /// Number of differences.
    pub differences: u64,
    /// The first of them, in words.
    pub named: Vec<String>,
    /// What is not in the table, and is no difference: files that were put aside.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether each row, and each whole record that is kept, is in exactly one place.
    pub fn is_sound(&self) -> bool {
        self.differences == 0
    }

    /// Notes a difference.
    pub(crate) fn differ(&mut self, what: impl FnOnce() -> String) {
        self.differences += 1;
        if self.named.len() < DIFFERENCES_MAX {
            self.named.push(what());
        }
    }
}

/// Compares all partitions of a table.
///
/// # Errors
/// `Destination` or `Broker` when something cannot be read.
pub async fn verify(settler: &Settler, table: &Table) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let Some(topic) = settler.broker.catalog().topic(&table.topic) else { return Ok(report) };
    let objects = settler.destination.get().await?;
    for partition in topic.partitions().iter() {
        let _pin = settler.floors.pin(partition.id(), partition.log_start());
        let settled = settler.manifest.settled(partition.id());
        let mark = settled.mark.map_or(partition.log_start(), |mark| mark.offset);
        let files = InFiles {
            objects: &objects,
            table,
            partition: partition.index(),
            ahead: settled.files.iter().cloned().collect(),
            open: Vec::new(),
            next: BinaryHeap::new(),
        };
        let reader = RawReader { objects: objects.clone(), footers: Footers::default() };
        let raw = raw::check(&reader, partition, &settled.raw, &mut report).await?;
        let (kept, rows) = ((&reader, raw.as_slice()), VecDeque::new());
        let log = InLog { table, partition, kept, at: 0, to: mark, rows, read: None };
        compare(partition, log, files, &mut report).await?;
        report.live_rows += live_rows(table, partition, mark).await?;
    }
    Ok(report)
}

/// The number of rows from an offset on.
async fn live_rows(table: &Table, partition: &Arc<Partition>, from: Offset) -> Result<u64> {
    let (mut at, end, mut count) = (from.max(partition.log_start()), partition.last_stable_offset(), 0);
    while at < end {
        let batches = partition.read_committed(at, READ_BYTES).await?;
        let Some(last) = batches.last() else { break };
        let (rows, next) = table.rows(partition.index(), &batches, (at, last.next_offset().min(end)))?;
        count += rows.num_rows() as u64;
        at = next;
    }
    Ok(count)
}

/// Each row of the log must be in the files, once, and the files have no other rows where the log is whole.
async fn compare(
    partition: &Arc<Partition>,
    mut log: InLog<'_>,
    mut files: InFiles<'_>,
    report: &mut VerifyReport,
) -> Result<()> {
    let index = partition.index();
    let (mut in_log, mut in_files) = (log.next().await?, files.next(report).await?);
    loop {
        match (in_log, in_files) {
            (logged, Some(found)) if logged.is_none_or(|(logged, _)| logged >= found.offset) => {
                let offset = found.offset;
                let place = logged.filter(|(logged, _)| *logged == offset).map(|(_, place)| place);
                // where the log is not whole, after retention or compaction, the files alone know
                if place.is_none() && offset >= partition.log_start().max(partition.compacted_to()) {
                    report
                        .differ(|| format!("partition {index}: offset {offset} is in a file and is no row of the log"));
                }
                if let Some(place) = place {
                    report.checked_rows += 1;
                    let (sum, path) = (log.sum(place, &found.columns)?, &found.entry.path);
                    if sum != Some(found.sum) {
                        report.differ(|| other_values((index, offset), path));
                    }
                    in_log = log.next().await?;
                }
                in_files = files.next(report).await?;
                while in_files.as_ref().is_some_and(|next| next.offset == offset) {
                    report.differ(|| format!("partition {index}: offset {offset} is in the files twice"));
                    in_files = files.next(report).await?;
                }
            }
            (Some((offset, _)), found) => {
                in_files = found;
                // of what the log has let go rows of the table may have expired, or have been refused as the stream was then
                if offset >= partition.log_start() {
                    report.checked_rows += 1;
                    report.differ(|| format!("partition {index}: offset {offset} is settled and in no file"));
                }
                in_log = log.next().await?;
            }
            (None, _) => return Ok(()),
        }
    }
}

fn other_values((partition, offset): (PartitionIndex, Offset), path: &str) -> String {
    format!("partition {partition}: offset {offset} has other values in {path} than in the log")
}

/// The rows below `to` that the log has, and those before them that files of whole records have.
struct InLog<'a> {
    table: &'a Table,
    partition: &'a Arc<Partition>,
    /// The files of whole records, and how they are read.
    kept: (&'a RawReader, &'a [Arc<RawFile>]),
    at: Offset,
    to: Offset,
    /// Offsets that were not given out, and the places of their rows in what was read last.
    rows: VecDeque<(Offset, usize)>,
    read: Option<ReadRows>,
}

/// Rows that were read together, and their checksums over the columns that were asked for last.
struct ReadRows {
    rows: RecordBatch,
    sums: Option<(SummedColumns, Vec<u32>)>,
}

impl InLog<'_> {
    /// The next row's offset, and its place for `sum` until the next call.
    async fn next(&mut self) -> Result<Option<(Offset, usize)>> {
        while self.rows.is_empty() {
            let batches = self.batches().await?;
            let Some(next) = batches.last().map(Batch::next_offset) else { return Ok(None) };
            let (rows, next) = self.table.rows(self.partition.index(), &batches, (self.at, next.min(self.to)))?;
            self.rows.extend(offsets(&rows)?.iter().copied().zip(0..));
            self.read = Some(ReadRows { rows, sums: None });
            self.at = next;
        }
        Ok(self.rows.pop_front())
    }

    /// What is next of the log, or of what was kept when the log let go; nothing at the end.
    async fn batches(&mut self) -> Result<Vec<Batch>> {
        let (start, (reader, kept)) = (self.partition.log_start(), self.kept);
        let next = kept.get(kept.partition_point(|file| file.last < self.at));
        if let Some(file) = next.filter(|file| self.at.max(file.first) < start.min(self.to)) {
            self.at = self.at.max(file.first);
            let end = start.min(self.to).min(file.last + 1);
            let wanted = ColdRead { from: self.at, end, epoch: 0, bytes_max: READ_BYTES };
            return raw::batches(reader, std::slice::from_ref(file), wanted).await;
        }
        self.at = self.at.max(start);
        match self.at < self.to {
            true => Ok(self.partition.read_committed(self.at, READ_BYTES).await?),
            false => Ok(Vec::new()),
        }
    }

    /// The checksum of a row of those that were read last.
    fn sum(&mut self, place: usize, columns: &SummedColumns) -> Result<Option<u32>> {
        let Some(read) = &mut self.read else { return Ok(None) };
        if let Some((of, sums)) = &read.sums
            && of == columns
        {
            return Ok(sums.get(place).copied());
        }
        let sums = columns.of_rows(&read.rows)?;
        let sum = sums.get(place).copied();
        read.sums = Some((columns.clone(), sums));
        Ok(sum)
    }
}

/// The rows in all files of a partition, in the order of their offsets. A file is open while the others are within its range.
struct InFiles<'a> {
    objects: &'a Objects,
    table: &'a Table,
    partition: PartitionIndex,
    /// By their first offsets.
    ahead: VecDeque<Arc<FileEntry>>,
    open: Vec<Option<OpenFile>>,
    next: BinaryHeap<Reverse<(Offset, usize, u32)>>,
}

/// A row of a file.
struct FileRow {
    offset: Offset,
    sum: u32,
    columns: SummedColumns,
    entry: Arc<FileEntry>,
}

struct OpenFile {
    entry: Arc<FileEntry>,
    columns: SummedColumns,
    stream: ParquetRecordBatchStream<ParquetObjectReader>,
    rows: VecDeque<(Offset, u32)>,
    count: u64,
    last: Offset,
    astray: bool,
}

impl InFiles<'_> {
    async fn next(&mut self, report: &mut VerifyReport) -> Result<Option<FileRow>> {
        // whatever may hold a lower offset is opened first
        while let Some(file) = self.ahead.front() {
            if self.next.peek().is_some_and(|Reverse((least, ..))| *least < file.first) {
                break;
            }
            if let Some(file) = self.ahead.pop_front() {
                self.begin(file, report).await?;
            }
        }
        let Some(Reverse((offset, at, sum))) = self.next.pop() else { return Ok(None) };
        let of = |file: &OpenFile| FileRow { offset, sum, columns: file.columns.clone(), entry: file.entry.clone() };
        let row = self.open.get(at).and_then(Option::as_ref).map(of);
        self.advance(at, report).await?;
        Ok(row)
    }

    async fn begin(&mut self, entry: Arc<FileEntry>, report: &mut VerifyReport) -> Result<()> {
        if self.objects.size(&entry.path).await? != Some(entry.bytes) {
            report.differ(|| format!("partition {}: {} is not there as it was published", self.partition, entry.path));
            return Ok(());
        }
        let reader = self.objects.reader(&entry.path, entry.bytes)?;
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| unreadable(&entry, &e))?;
        let columns = SummedColumns::of(builder.schema(), &self.table.layout);
        let stream = builder.with_batch_size(CHUNK_ROWS).build().map_err(|e| unreadable(&entry, &e))?;
        let last = entry.first - 1;
        let file = OpenFile { entry, columns, stream, rows: VecDeque::new(), count: 0, last, astray: false };
        let at = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        match self.open.get_mut(at) {
            Some(free) => *free = Some(file),
            None => self.open.push(Some(file)),
        }
        self.advance(at, report).await
    }

    /// Puts the next offset of an open file in line; one that is at its end is closed.
    async fn advance(&mut self, at: usize, report: &mut VerifyReport) -> Result<()> {
        let Some(Some(file)) = self.open.get_mut(at) else { return Ok(()) };
        while file.rows.is_empty() {
            let read: Option<RecordBatch> = file.stream.try_next().await.map_err(|e| unreadable(&file.entry, &e))?;
            match read {
                Some(rows) => {
                    let sums = file.columns.of_rows(&rows)?;
                    file.receive(offsets(&rows)?, &sums);
                }
                None => {
                    file.close(self.partition, report);
                    self.open[at] = None;
                    return Ok(());
                }
            }
        }
        self.next.extend(file.rows.pop_front().map(|(offset, sum)| Reverse((offset, at, sum))));
        Ok(())
    }
}

impl OpenFile {
    /// Keeps the rows that are in the file's range and in their order.
    fn receive(&mut self, found: &[Offset], sums: &[u32]) {
        for (offset, sum) in found.iter().zip(sums) {
            self.count += 1;
            // the same offset again is for the comparison to tell
            if *offset < self.last || *offset < self.entry.first || *offset > self.entry.last {
                self.astray = true;
                continue;
            }
            self.last = *offset;
            self.rows.push_back((*offset, *sum));
        }
    }

    fn close(&self, partition: PartitionIndex, report: &mut VerifyReport) {
        let (path, count) = (&self.entry.path, self.count);
        report.file_rows += count;
        if count != self.entry.rows {
            report.differ(|| {
                format!("partition {partition}: {path} has {count} rows, the manifest says {}", self.entry.rows)
            });
        }
        if self.astray {
            let (first, last) = (self.entry.first, self.entry.last);
            report
                .differ(|| format!("partition {partition}: {path} has rows outside {first}..={last} or not in order"));
        }
    }
}

fn unreadable(entry: &FileEntry, error: &parquet::errors::ParquetError) -> LakeError {
    LakeError::destination(format!("{} cannot be read: {error}", entry.path))
}
