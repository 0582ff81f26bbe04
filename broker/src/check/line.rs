//! The rules that bind the batches of one log to one another and to their index: pure, batch by batch in the order of offsets.

use super::finding::{Kind, Remedy};
use crate::batch::Batch;
use crate::log::compaction::CleanState;
use crate::log::keys::IndexEntry;
use crate::log::segment::Segment;
use crate::types::{LeaderEpoch, Offset};

pub(super) const BATCH_DAMAGED: Kind = Kind::wrong("batch damaged", Remedy::GiveUp);
pub(super) const INDEX_DIFFERS: Kind = Kind::wrong("index differs from batch", Remedy::Restore);
pub(super) const OFFSETS_MISSING: Kind = Kind::wrong("offsets missing", Remedy::GiveUp);
pub(super) const OFFSETS_TWICE: Kind = Kind::wrong("offsets twice", Remedy::Restore);
pub(super) const EPOCH_WRONG: Kind = Kind::wrong("leader epoch wrong", Remedy::Restore);
pub(super) const FIGURES_WRONG: Kind = Kind::wrong("running figures wrong", Remedy::Restore);
pub(super) const SEGMENT_WRONG: Kind = Kind::wrong("segment wrong", Remedy::Restore);

/// A rule that does not hold: which, from which offset to which, and how.
pub(super) type Breach = (Kind, (Offset, Offset), String);

/// What is stored of a log beside its batches.
#[derive(Clone, Debug, Default)]
pub(super) struct Stated {
    /// Where it begins.
    pub(super) start: Offset,
    /// How far it is clean.
    pub(super) clean: CleanState,
    /// Where its leader epochs began, ascending.
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    /// Its active segment.
    pub(super) segment: Option<Segment>,
}

impl Stated {
    /// The leader epoch of what is appended at `offset`.
    fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        let after = self.epochs.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).and_then(|last| self.epochs.get(last)).map_or(0, |(epoch, _)| *epoch)
    }
}

/// Reads a batch that is stored at `base`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_batch(base: Offset, bytes: Vec<u8>) -> Result<Batch, String> {
    let batch = Batch::parse(bytes.into()).map_err(|error| error.message)?;
    batch.check_crc().map_err(|error| error.message)?;
    if batch.base_offset() == base { Ok(batch) } else { Err(format!("it says it begins at {}", batch.base_offset())) }
}

/// In what an index entry differs from its batch.
pub(super) fn differences(entry: &IndexEntry, batch: &Batch) -> Option<String> {
    let mut told = Vec::new();
    let mut tell = |name: &str, (indexed, found): (i64, i64)| {
        if indexed != found {
            told.push(format!("{name} {indexed}, not {found}"));
        }
    };
    tell("size", (entry.size.into(), i64::try_from(batch.bytes().len()).unwrap_or(i64::MAX)));
    tell("last offset delta", (entry.last_offset_delta.into(), batch.last_offset_delta().into()));
    tell("leader epoch", (entry.leader_epoch.into(), batch.leader_epoch().into()));
    let attributes = IndexEntry::attributes_in(entry.family(), batch.attributes());
    tell("attributes", (entry.attributes.into(), attributes.into()));
    // a batch that compaction emptied keeps its time for clients, and has none in the index
    if batch.record_count() > 0 || entry.max_timestamp >= 0 {
        tell("largest timestamp", (entry.max_timestamp, batch.max_timestamp()));
    }
    (!told.is_empty()).then(|| format!("the index has {}", told.join(", ")))
}

/// A batch as the rules see it: from its index entry, or where that is lost, from itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Its first offset.
    pub(super) base: Offset,
    /// Its last offset.
    pub(super) last: Offset,
    /// Its leader epoch.
    pub(super) epoch: LeaderEpoch,
    /// Its index entry.
    pub(super) entry: Option<IndexEntry>,
}

/// The line of a log's batches. Holds: the last one that was looked at.
#[derive(Debug, Default)]
pub(super) struct Line {
    before: Option<Link>,
    /// Whether the active segment's first batch was met.
    segment_met: bool,
}

impl Line {
    /// The offset that follows the last batch.
    pub(super) fn next(&self) -> Option<Offset> {
        self.before.map(|before| before.last.saturating_add(1))
    }

    /// Takes the next batch. `unread` says whether something in `[from, to)` could not be read, which is told elsewhere.
    pub(super) fn follow(&mut self, link: Link, log: &Stated, unread: impl Fn(Offset, Offset) -> bool) -> Vec<Breach> {
        let mut breaches = Vec::new();
        let expected = self.next().unwrap_or(log.start);
        let all = (link.base, link.last);
        let mut joined = link.base == expected;
        if link.base > expected {
            // compaction takes batches out below `touched_to`
            let compacted = link.base <= log.clean.touched_to;
            joined = compacted;
            if !compacted && !unread(expected, link.base) {
                let what = format!("no batch has these offsets, the next one begins at {}", link.base);
                breaches.push((OFFSETS_MISSING, (expected, link.base - 1), what));
            }
        } else if self.before.is_some() && link.base < expected {
            breaches.push((OFFSETS_TWICE, all, format!("the batch before ends at {}", expected - 1)));
        }
        self.check_epoch(&link, log, &mut breaches);
        self.segment_met |= log.segment.is_some_and(|segment| segment.base == link.base);
        let before = self.before.filter(|_| joined).and_then(|before| Some((before.base, before.entry?)));
        if let (Some(entry), before) = (link.entry, before) {
            let wrong = figures_wrong((link.base, &entry), before, log, expected);
            breaches.extend(wrong.map(|what| (FIGURES_WRONG, all, what)));
            breaches.extend(segment_breach(link.base, &entry, log).map(|what| (SEGMENT_WRONG, all, what)));
        }
        self.before = Some(link);
        breaches
    }

    fn check_epoch(&self, link: &Link, log: &Stated, breaches: &mut Vec<Breach>) {
        let (all, known) = ((link.base, link.last), log.epoch_at(link.base));
        if link.epoch != known {
            let what = format!("leader epoch {} where the log was in epoch {known}", link.epoch);
            breaches.push((EPOCH_WRONG, all, what));
        } else if let Some(before) = self.before.filter(|before| before.epoch > link.epoch) {
            let what = format!("leader epoch {} after a batch of epoch {}", link.epoch, before.epoch);
            breaches.push((EPOCH_WRONG, all, what));
        }
    }

    /// What is wrong once the last batch was taken; `end` is the log's.
    pub(super) fn finish(&self, end: Offset, log: &Stated, unread: impl Fn(Offset, Offset) -> bool) -> Vec<Breach> {
        let Some(segment) = log.segment else { return Vec::new() };
        let at = (segment.base, segment.base);
        let gone = segment.base < log.start || self.segment_met;
        if segment.base < 0 || segment.base >= end && end > log.start {
            return vec![(SEGMENT_WRONG, at, format!("the active segment begins behind the log's end {end}"))];
        }
        if gone || self.before.is_none() || unread(segment.base, segment.base.saturating_add(1)) {
            return Vec::new();
        }
        vec![(SEGMENT_WRONG, at, "the active segment begins where no batch does".to_owned())]
    }
}

fn segment_breach(base: Offset, entry: &IndexEntry, log: &Stated) -> Option<String> {
    let segment = log.segment.filter(|segment| segment.base == base)?;
    let stored = (segment.first_timestamp, segment.begun_at, segment.bytes_before);
    let indexed = (entry.max_timestamp, entry.appended_at, entry.bytes_before());
    let what = "the active segment begins here with another timestamp, time or number of bytes than its first batch";
    (stored != indexed).then(|| what.to_owned())
}

/// What is wrong with the running figures of an entry after the one before it; `expected` is the offset behind that.
fn figures_wrong(
    (base, entry): (Offset, &IndexEntry),
    before: Option<(Offset, IndexEntry)>,
    log: &Stated,
    expected: Offset,
) -> Option<String> {
    let whole = base >= log.clean.touched_to;
    let least = if whole { entry.aged_from() } else { entry.max_timestamp };
    let Some((before_base, before)) = before else {
        return (entry.running_timestamp < least)
            .then(|| format!("running timestamp {} below the batch's own {least}", entry.running_timestamp));
    };
    let running = before.running_timestamp.max(least);
    let exact = whole && base == expected;
    if entry.running_timestamp < running || exact && entry.running_timestamp != running {
        return Some(format!("running timestamp {} where {running} is due", entry.running_timestamp));
    }
    // a pass of compaction that was cut short left figures below its end to be put right
    if before_base < log.clean.pass_end {
        return (entry.running_bytes < before.running_bytes).then(|| "running bytes go back".to_owned());
    }
    let due = before.running_bytes.saturating_add(entry.size.into());
    (entry.running_bytes != due).then(|| format!("running bytes {} where {due} are due", entry.running_bytes))
}
