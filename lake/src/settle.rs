//! Settling one range, exactly once across any crash:
//!
//! 1. the range is fixed in the store: a plan;
//! 2. its files are written under hidden names that are this attempt's alone, and synced;
//! 3. they are renamed, which replaces what an earlier attempt left, and the directories are synced;
//! 4. one commit publishes the files in the manifest, moves the mark and removes the plan.
//!
//! After a crash before 4 the plan is still there and the same range is done again; the start has removed what the
//! manifest does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker::{Broker, Offset, Partition};

use crate::clean::remove_hidden;
use crate::error::{LakeError, Result};
use crate::floors::Floors;
use crate::iceberg::Iceberg;
use crate::manifest::Manifest;
use crate::manifest_bytes::Plan;
use crate::objects::{Destination, Objects};
use crate::raw::{self, RawFiles, WrittenRaw};
use crate::tables::{Table, offsets};
use crate::writer::{RangeWriter, Source, WriteLimits, Written};

/// Bytes of the log that are turned into rows at one time.
const READ_BYTES: usize = 1 << 20;
/// Rows after which the bounds are looked at.
const CHUNK_ROWS: usize = 8_192;

/// Between which steps a test may end an attempt as a crash would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The range is fixed, nothing is written.
    Planned,
    /// Some rows are in hidden files.
    HalfWritten,
    /// The hidden files are whole and synced.
    Written,
    /// The files have their names, the manifest does not know them.
    Renamed,
    /// All is done, nobody has been told.
    Published,
    /// Of a merge: one more of the files that it replaced is out of its directory.
    Removed,
    /// Of an Iceberg table: its manifests are written, nothing reaches them.
    Listed,
    /// Of an Iceberg table: the metadata is there, its hint names the one before.
    Hinted,
}

/// Ends an attempt by an error; the attempt then leaves everything as a crash would.
pub type Fault = Arc<dyn Fn(Step) -> Result<()> + Send + Sync>;

/// What settling did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settling {
    /// Files published.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A range whose files are written under their hidden names.
struct Range {
    plan: Plan,
    files: Vec<Written>,
    raw: Option<WrittenRaw>,
}

/// Settles ranges. Holds: the way to log, destination and manifest. One range at a time is settled by it; the sealer
/// sees to that.
pub struct Settler {
    /// The log.
    pub broker: Arc<Broker>,
    /// Where files go.
    pub destination: Arc<Destination>,
    /// What is published.
    pub manifest: Arc<Manifest>,
    /// What retention keeps.
    pub floors: Floors,
    /// What is told of whole records that were published.
    pub raw: Arc<RawFiles>,
    /// What follows the manifest; none: nothing does.
    pub iceberg: Option<Arc<Iceberg>>,
    /// Bounds of one range.
    pub limits: WriteLimits,
    /// Only in tests.
    pub fault: Option<Fault>,
    /// Attempts so far under this epoch.
    pub attempts: AtomicU64,
}

impl Settler {
    /// Settles the planned or next range of a partition, below `end`. None when there is nothing to do.
    ///
    /// # Errors
    /// `Destination` when it is away, `Broker` when the log cannot be read; both may be tried again.
    pub async fn settle(&self, table: &Table, partition: &Arc<Partition>, end: Offset) -> Result<Option<Settling>> {
        let objects = self.destination.get().await?;
        objects.check_present().await?;
        let Some((first, last)) = self.next_range(table, partition, end).await? else { return Ok(None) };
        let plan = self.manifest.plan(partition.id(), first, last).await?;
        self.step(Step::Planned)?;
        let source = Source {
            topic: table.topic.clone(),
            dir: table.dir.clone(),
            partition: partition.index(),
            first,
            attempt: format!("{}-{}", self.manifest.epoch(), self.attempts.fetch_add(1, Ordering::Relaxed)),
        };
        let published = match self.write(table, partition, plan, (&objects, source)).await {
            Ok(range) => self.publish(partition, &objects, range).await,
            Err(error) => Err(error),
        };
        if published.is_err() && self.fault.is_none() {
            remove_hidden(&objects, &format!("{}-{}-{first}", table.topic, partition.index())).await;
        }
        published.map(Some)
    }

    /// The range that was fixed before, or else the next one.
    async fn next_range(&self, table: &Table, partition: &Partition, end: Offset) -> Result<Option<(Offset, Offset)>> {
        let settled = self.manifest.settled(partition.id());
        let start = partition.log_start();
        let mut first = settled.mark.map_or(start, |mark| mark.offset);
        let mut planned = settled.plan;
        if let (Some(plan), None) = (planned, settled.mark) {
            first = plan.first;
        }
        if first < start && (settled.mark.is_some() || planned.is_some()) {
            tracing::warn!(topic = %table.topic, partition = partition.index(), from = first, to = start,
                "records were deleted before they settled, the lake goes on after them");
            self.manifest.skip(partition.id(), start).await?;
            self.floors.set_mark(partition.id(), start);
            planned = None;
            first = start;
        }
        let rows_max = table.settles.as_ref().map_or(1, |table| table.flush_rows.max(1));
        let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let end = end.min(first.saturating_add(rows_max)).min(partition.last_stable_offset());
        let last = planned.map_or(end - 1, |plan| plan.last.min(partition.last_stable_offset() - 1));
        Ok((last >= first).then_some((first, last)))
    }

    /// Writes the planned range, or its beginning where the bounds demand it, and gives what was written.
    async fn write(
        &self,
        table: &Table,
        partition: &Arc<Partition>,
        plan: Plan,
        (objects, source): (&Arc<Objects>, Source),
    ) -> Result<Range> {
        let mut writer = RangeWriter::new(objects.clone(), table.layout.clone(), source.clone(), self.limits);
        let last = self.fill(table, partition, plan, &mut writer).await?;
        self.step(Step::HalfWritten)?;
        // the files' names say the range, so it is fixed anew before they get them
        let plan = if last < plan.last { self.manifest.plan(partition.id(), plan.first, last).await? } else { plan };
        let now = self.broker.clock().now_ms();
        let files = writer.finish(last, now).await?;
        let keeps_raw = table.settles.as_ref().is_some_and(|settles| settles.raw);
        let raw = if keeps_raw { Some(raw::write(objects, partition, &source, last, now).await?) } else { None };
        Ok(Range { plan, files, raw })
    }

    /// Reads rows into the writer; gives the last offset that is in.
    async fn fill(
        &self,
        table: &Table,
        partition: &Arc<Partition>,
        plan: Plan,
        writer: &mut RangeWriter,
    ) -> Result<Offset> {
        let bytes_max = table.settles.as_ref().map_or(u64::MAX, |table| table.flush_bytes);
        let (mut at, end, mut bytes) = (plan.first, plan.last + 1, 0_u64);
        while at < end {
            let batches = partition.read_committed(at, READ_BYTES).await?;
            let Some(last) = batches.last() else {
                return Err(LakeError::bug(format!(
                    "{}-{} ends at {at}, before its plan {plan:?}",
                    table.topic,
                    partition.index()
                )));
            };
            let (rows, next) = table.rows(partition.index(), &batches, (at, last.next_offset().min(end)))?;
            let taken = batches.iter().filter(|batch| batch.base_offset() < next);
            bytes += taken.map(|batch| batch.bytes().len() as u64).sum::<u64>();
            for start in (0..rows.num_rows()).step_by(CHUNK_ROWS) {
                let chunk = rows.slice(start, CHUNK_ROWS.min(rows.num_rows() - start));
                writer.push(&chunk).await?;
                if let (true, Some(last)) = (writer.is_full(), offsets(&chunk)?.last()) {
                    return Ok(*last);
                }
            }
            at = next;
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(at - 1)
    }

    async fn publish(&self, partition: &Partition, objects: &Objects, range: Range) -> Result<Settling> {
        let Range { plan, files: written, raw } = range;
        let mut renames: Vec<_> = written.iter().map(|file| (file.hidden.clone(), file.entry.path.clone())).collect();
        renames.extend(raw.iter().map(|raw| (raw.hidden.clone(), raw.file.path.clone())));
        objects.sync(&renames.iter().map(|(hidden, _)| hidden.clone()).collect::<Vec<_>>()).await?;
        self.step(Step::Written)?;
        objects.publish(&renames).await?;
        self.step(Step::Renamed)?;
        let done = Settling {
            files: written.len() as u64,
            rows: written.iter().map(|file| file.entry.rows).sum(),
            bytes: written.iter().map(|file| file.entry.bytes).sum(),
        };
        let files = written.into_iter().map(|file| file.entry).collect();
        self.manifest.publish(partition.id(), plan, files, raw.map(|raw| raw.file)).await?;
        self.step(Step::Published)?;
        self.raw.tell(partition);
        self.floors.set_mark(partition.id(), plan.last + 1);
        Ok(done)
    }

    /// Passes a step; a test may end the attempt here.
    ///
    /// # Errors
    /// What the test says.
    pub fn step(&self, step: Step) -> Result<()> {
        self.fault.as_ref().map_or(Ok(()), |fault| fault(step))
    }
}
