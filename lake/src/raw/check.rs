//! Comparing files of whole records with the log they came from: both are read side by side, in the order of their offsets, and
//! records are compared by their checksums. Where the log has let go, the sum in the manifest says whether a file still has what was
//! published.

use std::collections::VecDeque;
use std::sync::Arc;

use broker::{Batch, Offset, Partition};
use futures::TryStreamExt;

use super::bytes::RawFile;
use super::reader::{Columns, RawReader, open, unreadable};
use super::sums::{as_kept, record_sum};
use crate::error::Result;
use crate::verify::VerifyReport;

/// Bytes of the log that are read at one time.
const READ_BYTES: usize = 1 << 20;

/// Compares the files of one partition, which are in their order; gives those that are as they should be.
///
/// # Errors
/// `Destination` or `Broker` when something cannot be read.
pub async fn check(
    reader: &RawReader,
    partition: &Arc<Partition>,
    files: &[Arc<RawFile>],
    report: &mut VerifyReport,
) -> Result<Vec<Arc<RawFile>>> {
    let index = partition.index();
    let mut log = Logged { partition, at: 0, records: VecDeque::new() };
    let (mut end, mut sound) = (Offset::MIN, Vec::with_capacity(files.len()));
    for file in files {
        let before = report.differences;
        if file.first < end {
            report.differ(|| format!("partition {index}: offset {} is in two files of whole records", file.first));
        }
        end = file.last + 1;
        if reader.objects.size(&file.path).await? != Some(file.bytes) {
            report.differ(|| format!("partition {index}: {} is not there as it was published", file.path));
            continue;
        }
        log.skip_to(file.first);
        check_file(reader, &mut log, file, report).await?;
        if report.differences == before {
            sound.push(file.clone());
        }
    }
    Ok(sound)
}

async fn check_file(reader: &RawReader, log: &mut Logged<'_>, file: &RawFile, report: &mut VerifyReport) -> Result<()> {
    let (mut seen, before) = (Seen::default(), report.differences);
    let mut stream = open(reader, file, |_| true, &[]).await?;
    while let Some(rows) = stream.try_next().await.map_err(|e| unreadable(file, &e))? {
        let columns = Columns::of(&rows).ok_or_else(|| unreadable(file, &"it has other columns"))?;
        for at in 0..rows.num_rows() {
            let record = columns.record(at);
            let found = (record.offset, record_sum(&record));
            if seen.take(file, found) {
                compare(log, file, found, report).await?;
            }
        }
    }
    while let Some((offset, _)) = log.next_to(file.last).await? {
        missing(log, offset, report);
    }
    report.raw_records += seen.records;
    let (index, path) = (log.partition.index(), &file.path);
    if seen.records != file.records {
        let (found, said) = (seen.records, file.records);
        report.differ(|| format!("partition {index}: {path} has {found} records, the manifest says {said}"));
    }
    if seen.astray {
        let (first, last) = (file.first, file.last);
        report.differ(|| format!("partition {index}: {path} has records outside {first}..={last} or not in order"));
    }
    // what differs is named already, where the log has it
    if report.differences == before && file.sum.is_some_and(|sum| sum != seen.sum) {
        report.differ(|| format!("partition {index}: {path} has other records than when it was published"));
    }
    Ok(())
}

/// A record of a file against those of the log up to it.
async fn compare(
    log: &mut Logged<'_>,
    file: &RawFile,
    (offset, sum): (Offset, u32),
    report: &mut VerifyReport,
) -> Result<()> {
    let (index, path) = (log.partition.index(), &file.path);
    while let Some((logged, logged_sum)) = log.next_to(offset).await? {
        if logged < offset {
            missing(log, logged, report);
            continue;
        }
        report.raw_checked += 1;
        if logged_sum != sum {
            report.differ(|| format!("partition {index}: offset {offset} is another record in {path} than in the log"));
        }
        return Ok(());
    }
    // where the log is not whole, after retention or compaction, the file alone knows
    if offset >= log.partition.log_start().max(log.partition.compacted_to()) {
        report.differ(|| format!("partition {index}: offset {offset} is in {path} and not in the log"));
    }
    Ok(())
}

fn missing(log: &Logged<'_>, offset: Offset, report: &mut VerifyReport) {
    let index = log.partition.index();
    report.differ(|| format!("partition {index}: offset {offset} is settled and in no file of whole records"));
}

/// What a file was found to have.
#[derive(Default)]
struct Seen {
    records: u64,
    sum: u64,
    last: Option<Offset>,
    astray: bool,
}

impl Seen {
    /// Counts a record; whether it belongs to the file and comes in its turn.
    fn take(&mut self, file: &RawFile, (offset, sum): (Offset, u32)) -> bool {
        self.records += 1;
        self.sum = self.sum.wrapping_add(sum.into());
        let fits = self.last.is_none_or(|last| offset > last) && (file.first..=file.last).contains(&offset);
        match fits {
            true => self.last = Some(offset),
            false => self.astray = true,
        }
        fits
    }
}

/// The committed records of the log, each with its checksum. Holds: those that were read and not given out.
struct Logged<'a> {
    partition: &'a Arc<Partition>,
    at: Offset,
    records: VecDeque<(Offset, u32)>,
}

impl Logged<'_> {
    /// Passes over what lies before an offset.
    fn skip_to(&mut self, offset: Offset) {
        while self.records.front().is_some_and(|(front, _)| *front < offset) {
            self.records.pop_front();
        }
        if self.records.is_empty() {
            self.at = self.at.max(offset);
        }
    }

    /// The next record, if its offset is not above `last`.
    async fn next_to(&mut self, last: Offset) -> Result<Option<(Offset, u32)>> {
        while self.records.is_empty() {
            self.at = self.at.max(self.partition.log_start());
            if self.at > last {
                return Ok(None);
            }
            let batches = self.partition.read_committed(self.at, READ_BYTES).await?;
            let Some(next) = batches.last().map(Batch::next_offset) else { return Ok(None) };
            batches.iter().for_each(|batch| self.keep(batch));
            self.at = next;
        }
        Ok(self.records.pop_front_if(|(offset, _)| *offset <= last))
    }

    /// Keeps what can be read of a batch: what cannot is in no file either.
    fn keep(&mut self, batch: &Batch) {
        let Ok(mut records) = batch.records() else { return };
        while let Some(Ok(record)) = records.next_ref() {
            if record.offset >= self.at {
                self.records.push_back((record.offset, record_sum(&as_kept(&record, batch.is_log_append_time()))));
            }
        }
    }
}
