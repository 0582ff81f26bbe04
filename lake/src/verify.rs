//! Comparing what is settled with the log it came from.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Offset, Partition, PartitionIndex};
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;

use crate::error::{LakeError, Result};
use crate::manifest_bytes::FileEntry;
use crate::objects::Objects;
use crate::settle::Settler;
use crate::tables::{Table, offsets};
use crate::writer::OFFSET_COLUMN;

const READ_BYTES: usize = 1 << 20;
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

/// Compares all partitions of a table, range by range, so that memory does not grow with the table.
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
        let mut ranges: BTreeMap<Offset, Vec<Arc<FileEntry>>> = BTreeMap::new();
        for file in settled.files.iter() {
            ranges.entry(file.first).or_default().push(file.clone());
        }
        let mut at = partition.log_start();
        for (first, files) in ranges {
            let last = files.iter().map(|file| file.last).max().unwrap_or(first);
            // what lies between ranges was settled without a row
            let between = log_rows(table, partition, at, first).await?;
            between.iter().for_each(|offset| report.differ(|| missing(partition.index(), *offset)));
            let found = file_rows(&objects, (partition.index(), &files), &mut report).await?;
            let log = log_rows(table, partition, at.max(first), last + 1).await?;
            report.checked_rows += log.len() as u64;
            // compaction may have taken what the files keep
            let whole_from = partition.log_start().max(partition.compacted_to());
            compare(partition.index(), whole_from, (&log, &found), &mut report);
            at = at.max(last + 1);
        }
        let rest = log_rows(table, partition, at, mark).await?;
        rest.iter().for_each(|offset| report.differ(|| missing(partition.index(), *offset)));
        report.live_rows += live_rows(table, partition, at.max(mark)).await?;
    }
    Ok(report)
}

/// The offsets of rows in `from..to` that the log still has.
async fn log_rows(table: &Table, partition: &Arc<Partition>, from: Offset, to: Offset) -> Result<Vec<Offset>> {
    let mut at = from.max(partition.log_start());
    let mut found = Vec::new();
    while at < to {
        let batches = partition.read_committed(at, READ_BYTES).await?;
        let Some(last) = batches.last() else { break };
        let (rows, next) = table.rows(partition.index(), &batches, (at, last.next_offset().min(to)))?;
        found.extend_from_slice(offsets(&rows)?);
        at = next;
    }
    Ok(found)
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

/// The offsets in the files of one range, sorted; what is wrong with single files is reported.
async fn file_rows(
    objects: &Objects,
    (partition, files): (PartitionIndex, &[Arc<FileEntry>]),
    report: &mut VerifyReport,
) -> Result<Vec<Offset>> {
    let mut found = Vec::new();
    for file in files {
        if objects.size(&file.path).await? != Some(file.bytes) {
            report.differ(|| format!("partition {partition}: {} is not there as it was published", file.path));
            continue;
        }
        let unreadable =
            |e: parquet::errors::ParquetError| LakeError::destination(format!("{} cannot be read: {e}", file.path));
        let reader = objects.reader(&file.path)?;
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(unreadable)?;
        let columns = ProjectionMask::columns(builder.parquet_schema(), [OFFSET_COLUMN]);
        let mut rows = builder.with_projection(columns).build().map_err(unreadable)?;
        let before = found.len();
        while let Some(rows) = rows.try_next().await.map_err(unreadable)? {
            found.extend_from_slice(offsets(&rows)?);
        }
        let count = (found.len() - before) as u64;
        report.file_rows += count;
        if count != file.rows {
            report.differ(|| {
                format!("partition {partition}: {} has {count} rows, the manifest says {}", file.path, file.rows)
            });
        }
        if found[before..].iter().any(|offset| *offset < file.first || *offset > file.last) {
            report.differ(|| {
                format!("partition {partition}: {} has rows outside {}..={}", file.path, file.first, file.last)
            });
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn compare(
    partition: PartitionIndex,
    whole_from: Offset,
    (log, files): (&[Offset], &[Offset]),
    report: &mut VerifyReport,
) {
    for pair in files.windows(2).filter(|pair| pair[0] == pair[1]) {
        report.differ(|| format!("partition {partition}: offset {} is in the files twice", pair[0]));
    }
    for offset in log.iter().filter(|offset| files.binary_search(offset).is_err()) {
        report.differ(|| missing(partition, *offset));
    }
    // where the log is not whole the files alone know
    for offset in files.iter().filter(|offset| **offset >= whole_from && log.binary_search(offset).is_err()) {
        report.differ(|| format!("partition {partition}: offset {offset} is in a file and is no row of the log"));
    }
}

fn missing(partition: PartitionIndex, offset: Offset) -> String {
    format!("partition {partition}: offset {offset} is settled and in no file")
}
