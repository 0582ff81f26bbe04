//! Reading a partition from the store: batches by offset, records by time. The index is asked first, always.

use std::sync::Arc;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::log::Partition;
use crate::log::keys::{self, IndexEntry};
use crate::log::partition::blocking;
use crate::store::Family;
use crate::types::{Offset, TimestampMs};

/// Mean batch size from which reading batches one by one is cheaper than walking over them.
const LOOK_UP_BYTES_MIN: usize = 8 << 10;
/// So many batches are read one by one whatever their size: a walk must first find its place in every run of files.
const LOOK_UPS_MAX: usize = 2;
/// How often a read looks into the index again because compaction or retention took a batch away meanwhile.
const READ_TRIES_MAX: usize = 100;

impl Partition {
    /// Reads batches that begin below `end`, if memory has what is asked for, or there is nothing; none where the store must be asked.
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start or above the high watermark.
    pub(crate) fn read_memory(&self, (offset, end): (Offset, Offset), max_bytes: usize) -> Result<Option<Vec<Batch>>> {
        self.check_range(offset, self.high_watermark())?;
        let mut batches = Vec::new();
        let known = offset >= end || self.read_tail(&mut batches, (offset, end), max_bytes);
        Ok(known.then_some(batches))
    }

    /// Reads batches that begin below `end`: from the store as far as memory does not have them, and on from there. Blocks.
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start or above the high watermark; `Storage`; `Damaged`.
    pub(crate) fn read_anywhere(&self, (offset, end): (Offset, Offset), max_bytes: usize) -> Result<Vec<Batch>> {
        if let Some(batches) = self.read_memory((offset, end), max_bytes)? {
            return Ok(batches);
        }
        let seam = self.tail_start().unwrap_or(end).min(end);
        let mut batches = self.read_store(offset, seam, max_bytes)?;
        // else a limit, damage or compaction ended it before the seam: the next read goes on there
        let reaches = batches.last().is_none_or(|last| last.next_offset() == seam);
        if reaches && seam < end && !self.read_tail(&mut batches, (seam, end), max_bytes) && batches.is_empty() {
            return self.read_store(offset, end, max_bytes); // memory gave the seam up meanwhile
        }
        Ok(batches)
    }

    /// Reads from the database; blocks. The index says which batches, and in which family they lie: an iterator that seeks
    /// in `log` itself would read one batch of every run of files just to place itself. Ends before a batch that is damaged.
    pub(crate) fn read_store(&self, offset: Offset, end: Offset, max_bytes: usize) -> Result<Vec<Batch>> {
        for _ in 0..READ_TRIES_MAX {
            let mut due = Vec::new();
            let mut size = 0;
            for entry in self.entries(offset) {
                let (base, entry) = entry?;
                size += entry.size as usize;
                if base >= end || (size > max_bytes && !due.is_empty()) {
                    break;
                }
                due.push((base, entry));
            }
            let batches = self.load(&due)?;
            // retention may have deleted what the range check still saw
            self.check_range(offset, self.high_watermark())?;
            if let Some(batches) = batches {
                return Ok(batches);
            }
        }
        Err(self.names_absent_batches())
    }

    fn names_absent_batches(&self) -> Error {
        Error::storage(format!("the index of {}-{} names batches that are not there", self.topic(), self.index()))
    }

    /// The batches of these entries, all in their order, or all before one that is damaged; none when one of them was moved or
    /// removed since.
    fn load(&self, due: &[(Offset, IndexEntry)]) -> Result<Option<Vec<Batch>>> {
        let mut batches = Vec::with_capacity(due.len());
        let loaded = self.load_into(&mut batches, due);
        let wanted = if loaded.is_ok() { due.len() } else { batches.len() };
        if !batches.iter().map(Batch::base_offset).eq(due.iter().take(wanted).map(|(base, _)| *base)) {
            return Ok(None);
        }
        match (loaded, due.first()) {
            (Err(cause), Some((base, _))) if batches.is_empty() => Err(self.damaged(*base, &cause)),
            _ => Ok(Some(batches)),
        }
    }

    fn load_into(&self, batches: &mut Vec<Batch>, due: &[(Offset, IndexEntry)]) -> Result<()> {
        for run in due.chunk_by(|(_, one), (_, next)| one.family() == next.family()) {
            let size: usize = run.iter().map(|(_, entry)| entry.size as usize).sum();
            let (Some((first, entry)), Some((last, _))) = (run.first(), run.last()) else { continue };
            if run.len() <= LOOK_UPS_MAX || size / run.len() >= LOOK_UP_BYTES_MIN {
                for (base, entry) in run {
                    batches.extend(self.stored(*base, entry)?);
                }
                continue;
            }
            let (from, to) = (keys::batch_key(self.id(), *first), keys::batch_key(self.id(), last + 1));
            let mut scan = self.store().scan(entry.family(), &from, &to);
            let mut due = run.iter().peekable();
            while let Some(entry) = scan.next_ref() {
                let (key, value) = entry?;
                let base = keys::base_offset_of(key)?;
                // a bucket keeps copies of what was moved out of it or removed
                if due.next_if(|(named, _)| *named == base).is_some() {
                    batches.push(Batch::parse(bytes::Bytes::copy_from_slice(value))?);
                }
            }
        }
        Ok(())
    }

    /// The batch of an index entry; none when it was moved or removed since.
    pub(crate) fn stored(&self, base: Offset, entry: &IndexEntry) -> Result<Option<Batch>> {
        let value = self.store().get(entry.family(), &keys::batch_key(self.id(), base))?;
        value.map(|value| Batch::parse(value.into())).transpose()
    }

    /// The batch of an index entry that may be old: looked for where the index says now; none when it is gone.
    fn stored_now(&self, base: Offset, mut entry: IndexEntry) -> Result<Option<Batch>> {
        for _ in 0..READ_TRIES_MAX {
            if let Some(batch) = self.stored(base, &entry)? {
                return Ok(Some(batch));
            }
            let Some(now) = self.indexed(base)? else { return Ok(None) };
            entry = now;
        }
        Err(self.names_absent_batches())
    }

    /// The index's entry of a batch; none when the batch was deleted.
    pub(crate) fn indexed(&self, base: Offset) -> Result<Option<IndexEntry>> {
        let stored = self.store().get(Family::Index, &keys::batch_key(self.id(), base))?;
        stored.map(|entry| IndexEntry::decode(&entry)).transpose()
    }

    /// The first record with a timestamp of at least `target`: its offset and timestamp.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub async fn offset_for_timestamp(self: &Arc<Self>, target: TimestampMs) -> Result<Option<(Offset, TimestampMs)>> {
        let this = self.clone();
        blocking(move || this.find_timestamp(target)).await
    }

    /// The first record that has the largest timestamp of all: its offset and timestamp.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub async fn max_timestamp_offset(self: &Arc<Self>) -> Result<Option<(Offset, TimestampMs)>> {
        let this = self.clone();
        blocking(move || this.largest_timestamp()?.map_or(Ok(None), |largest| this.find_timestamp(largest))).await
    }

    fn largest_timestamp(&self) -> Result<Option<TimestampMs>> {
        let (from, to) = (keys::log_range(self.id()).0, keys::batch_key(self.id(), self.high_watermark()));
        let Some((_, newest)) = self.store().last_in(Family::Index, &from, &to)? else { return Ok(None) };
        let running = IndexEntry::decode(&newest)?.running_timestamp;
        let reached = self.first_entry_where(|entry| entry.running_timestamp >= running)?;
        if reached.is_some_and(|(_, entry)| entry.max_timestamp == running) {
            return Ok(Some(running));
        }
        // the batch that had it is gone, so it is among all that are left
        self.entries(self.log_start()).try_fold(None, |largest: Option<i64>, entry| {
            let (_, entry) = entry?;
            Ok(Some(largest.map_or(entry.max_timestamp, |so_far| so_far.max(entry.max_timestamp))))
        })
    }

    fn find_timestamp(&self, target: TimestampMs) -> Result<Option<(Offset, TimestampMs)>> {
        let candidate = self.first_entry_where(|entry| entry.running_timestamp >= target)?;
        let Some((base, _)) = candidate else { return Ok(None) };
        self.first_record_in(self.entries(base), target)
    }

    /// The first record of these batches with a timestamp of at least `target`. The entries may be older than the batches.
    pub(super) fn first_record_in(
        &self,
        entries: impl Iterator<Item = Result<(Offset, IndexEntry)>>,
        target: TimestampMs,
    ) -> Result<Option<(Offset, TimestampMs)>> {
        let start = self.log_start();
        for entry in entries {
            let (base, entry) = entry?;
            if entry.max_timestamp < target {
                continue; // the running figure still knows a deleted batch
            }
            let Some(batch) = self.stored_now(base, entry)? else { continue };
            let mut records = batch.records()?;
            while let Some(record) = records.next_ref() {
                let record = record?;
                if record.timestamp >= target && record.offset >= start {
                    return Ok(Some((record.offset, record.timestamp)));
                }
            }
        }
        Ok(None)
    }

    /// The first index entry for which `reached` holds; it must hold for all that follow. Binary over offsets.
    pub(crate) fn first_entry_where(
        &self,
        reached: impl Fn(&IndexEntry) -> bool,
    ) -> Result<Option<(Offset, IndexEntry)>> {
        let (mut low, mut high) = (self.log_start(), self.high_watermark());
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entries(middle).next().transpose()? {
                Some((base, entry)) if !reached(&entry) => low = base + i64::from(entry.last_offset_delta) + 1,
                Some((base, entry)) => {
                    found = Some((base, entry));
                    high = base.min(middle);
                }
                None => high = middle,
            }
        }
        Ok(found)
    }
}
