//! Comparing what is settled with the log it came from: the offsets of a partition's files and those of its log are read side
//! by side, in their order, so that memory does not grow with the table.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use broker::{Offset, Partition, PartitionIndex};
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};

use crate::error::{LakeError, Result};
use crate::manifest_bytes::FileEntry;
use crate::objects::Objects;
use crate::settle::Settler;
use crate::tables::{Table, offsets};
use crate::writer::OFFSET_COLUMN;

const READ_BYTES: usize = 1 << 20;
/// Offsets of one file that are kept at a time.
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
    /// Rows in the log below the marks, which must be in files.
    pub checked_rows: u64,
    /// Number of differences.
    pub differences: u64,
    /// The first of them, in words.
    pub named: Vec<String>,
}

impl VerifyReport {
    /// Whether each row is in exactly one place.
    pub fn is_sound(&self) -> bool {
        self.differences == 0
    }

    fn differ(&mut self, what: impl FnOnce() -> String) {
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
            partition: partition.index(),
            ahead: settled.files.iter().cloned().collect(),
            open: Vec::new(),
            next: BinaryHeap::new(),
        };
        let log = InLog { table, partition, at: 0, to: mark, rows: VecDeque::new() };
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
            (logged, Some(offset)) if logged.is_none_or(|logged| logged >= offset) => {
                let is_logged = logged == Some(offset);
                // where the log is not whole, after retention or compaction, the files alone know
                if !is_logged && offset >= partition.log_start().max(partition.compacted_to()) {
                    report
                        .differ(|| format!("partition {index}: offset {offset} is in a file and is no row of the log"));
                }
                if is_logged {
                    report.checked_rows += 1;
                    in_log = log.next().await?;
                }
                in_files = files.next(report).await?;
                while in_files == Some(offset) {
                    report.differ(|| format!("partition {index}: offset {offset} is in the files twice"));
                    in_files = files.next(report).await?;
                }
            }
            (Some(offset), _) => {
                report.checked_rows += 1;
                report.differ(|| format!("partition {index}: offset {offset} is settled and in no file"));
                in_log = log.next().await?;
            }
            (None, _) => return Ok(()),
        }
    }
}

/// The offsets of rows below `to` that the log has.
struct InLog<'a> {
    table: &'a Table,
    partition: &'a Arc<Partition>,
    at: Offset,
    to: Offset,
    rows: VecDeque<Offset>,
}

impl InLog<'_> {
    async fn next(&mut self) -> Result<Option<Offset>> {
        while self.rows.is_empty() {
            self.at = self.at.max(self.partition.log_start());
            if self.at >= self.to {
                return Ok(None);
            }
            let batches = self.partition.read_committed(self.at, READ_BYTES).await?;
            let Some(next) = batches.last().map(|last| last.next_offset()) else { return Ok(None) };
            let (rows, next) = self.table.rows(self.partition.index(), &batches, (self.at, next.min(self.to)))?;
            self.rows.extend(offsets(&rows)?);
            self.at = next;
        }
        Ok(self.rows.pop_front())
    }
}

/// The offsets in all files of a partition, in their order. A file is open while the others are within its range.
struct InFiles<'a> {
    objects: &'a Objects,
    partition: PartitionIndex,
    /// By their first offsets.
    ahead: VecDeque<Arc<FileEntry>>,
    open: Vec<Option<OpenFile>>,
    next: BinaryHeap<Reverse<(Offset, usize)>>,
}

struct OpenFile {
    entry: Arc<FileEntry>,
    stream: ParquetRecordBatchStream<ParquetObjectReader>,
    rows: VecDeque<Offset>,
    count: u64,
    last: Offset,
    astray: bool,
}

impl InFiles<'_> {
    async fn next(&mut self, report: &mut VerifyReport) -> Result<Option<Offset>> {
        // whatever may hold a lower offset is opened first
        while let Some(file) = self.ahead.front() {
            if self.next.peek().is_some_and(|Reverse((least, _))| *least < file.first) {
                break;
            }
            if let Some(file) = self.ahead.pop_front() {
                self.begin(file, report).await?;
            }
        }
        let Some(Reverse((offset, at))) = self.next.pop() else { return Ok(None) };
        self.advance(at, report).await?;
        Ok(Some(offset))
    }

    async fn begin(&mut self, entry: Arc<FileEntry>, report: &mut VerifyReport) -> Result<()> {
        if self.objects.size(&entry.path).await? != Some(entry.bytes) {
            report.differ(|| format!("partition {}: {} is not there as it was published", self.partition, entry.path));
            return Ok(());
        }
        let reader = self.objects.reader(&entry.path, entry.bytes)?;
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| unreadable(&entry, &e))?;
        let columns = ProjectionMask::columns(builder.parquet_schema(), [OFFSET_COLUMN]);
        let builder = builder.with_projection(columns).with_batch_size(CHUNK_ROWS);
        let stream = builder.build().map_err(|e| unreadable(&entry, &e))?;
        let last = entry.first - 1;
        let file = OpenFile { entry, stream, rows: VecDeque::new(), count: 0, last, astray: false };
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
                Some(rows) => file.receive(offsets(&rows)?),
                None => {
                    file.close(self.partition, report);
                    self.open[at] = None;
                    return Ok(());
                }
            }
        }
        self.next.extend(file.rows.pop_front().map(|offset| Reverse((offset, at))));
        Ok(())
    }
}

impl OpenFile {
    /// Keeps the offsets that are in the file's range and in their order.
    fn receive(&mut self, found: &[Offset]) {
        for offset in found {
            self.count += 1;
            // the same offset again is for the comparison to tell
            if *offset < self.last || *offset < self.entry.first || *offset > self.entry.last {
                self.astray = true;
                continue;
            }
            self.last = *offset;
            self.rows.push_back(*offset);
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
