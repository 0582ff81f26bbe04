//! One log: its batches and their index side by side.

use super::finding::{Kind, Place, Remedy};
use super::line::{self, Breach, Line, Link, Stated};
use super::producers::Producers;
use super::transactions::Transactions;
use super::walk::Walk;
use super::{Check, Logs, Span};
use crate::batch::Batch;
use crate::error::Result;
use crate::log::bounds::Bounds;
use crate::log::compaction::CleanState;
use crate::log::keys::{self, IndexEntry};
use crate::log::segment::Segment;
use crate::store::{Family, Store};
use crate::types::{LogId, Offset};

const BATCH_UNREADABLE: Kind = Kind::wrong("batch unreadable", Remedy::GiveUp);
const BATCH_MISSING: Kind = Kind::wrong("batch missing", Remedy::GiveUp);
const BATCH_TWICE: Kind = Kind::note("batch in two families", Remedy::Nothing);
const BATCH_UNINDEXED: Kind = Kind::wrong("batch without index", Remedy::Restore);
const INDEX_UNREADABLE: Kind = Kind::wrong("index unreadable", Remedy::GiveUp);
const INDEX_DAMAGED: Kind = Kind::wrong("index entry damaged", Remedy::Restore);
const BUCKETS_MIXED: Kind = Kind::wrong("buckets out of order", Remedy::Restore);
const LEFT_BEHIND: Kind = Kind::note("left below the log start", Remedy::Nothing);
const BOUNDS_WRONG: Kind = Kind::wrong("bounds wrong", Remedy::Restore);
const BLOCK_UNREADABLE: Kind = Kind::wrong("block unreadable", Remedy::Restore);
const FOREIGN_KEYS: Kind = Kind::wrong("foreign keys", Remedy::Restore);

/// Checks every log and fills its bounds in.
pub(super) fn check_all(check: &mut Check<'_>, logs: &mut Logs) {
    let ids: Vec<LogId> = logs.spans.keys().copied().collect();
    for id in ids {
        let Some(span) = logs.spans.get_mut(&id) else { continue };
        check.figures.partitions += 1;
        let stated = match stated(check.store, id) {
            Ok((stated, floor)) => {
                if stated.start < 0 || floor > stated.start || !stated.epochs.is_sorted() {
                    let what = format!("log start {}, floor {floor}, epochs {:?}", stated.start, stated.epochs);
                    check.add(BOUNDS_WRONG, Place::partition(&span.topic, span.partition), what);
                }
                stated
            }
            Err(error) => {
                check.add(BOUNDS_WRONG, Place::partition(&span.topic, span.partition), error.message);
                Stated {
                    start: Walk::new(check.store, Family::Index, id).next_base().unwrap_or(0),
                    ..Stated::default()
                }
            }
        };
        span.start = stated.start;
        span.end = Pass::new(check, id, span, &stated).make();
    }
}

/// What `meta` says of a log, and its floor.
fn stated(store: &Store, id: LogId) -> Result<(Stated, Offset)> {
    let get = |key: Vec<u8>| store.get(Family::Meta, &key);
    let Bounds { start, floor, epochs } = Bounds::read(store, id)?;
    let clean = get(keys::compaction_key(id))?.map_or(Ok(CleanState::default()), |value| CleanState::decode(&value))?;
    let segment = get(keys::segment_key(id))?.map(|value| Segment::decode(&value)).transpose()?;
    Ok((Stated { start, clean, epochs, segment }, floor))
}

/// What is stored of a batch, by family.
type Stored = Vec<(Family, Vec<u8>)>;

/// A walk over one log. Holds: where it is in each family, and what it knows so far.
struct Pass<'c, 's> {
    check: &'c mut Check<'s>,
    id: LogId,
    span: &'c Span,
    stated: &'c Stated,
    index: Walk<'s>,
    batches: Vec<Walk<'s>>,
    /// The bucket of the last entry that lies in `log` or a bucket.
    bucket: u32,
    line: Line,
    producers: Producers,
    transactions: Transactions,
    /// Offsets whose batches are not known.
    unread: Vec<(Offset, Offset)>,
}

impl<'c, 's> Pass<'c, 's> {
    fn new(check: &'c mut Check<'s>, id: LogId, span: &'c Span, stated: &'c Stated) -> Self {
        let store = check.store;
        let place = Place::partition(&span.topic, span.partition);
        let producers = Producers::read(check, id, &place);
        let transactions = Transactions::read(check, id, &place);
        let mut buckets = store.buckets().all().into_iter();
        let in_buckets = buckets.next().map(|first| Walk::through(store, (first, buckets.collect()), id));
        let beside = [Family::Log, Family::Compacted].map(|family| Walk::new(store, family, id));
        Self {
            check,
            id,
            span,
            stated,
            index: Walk::new(store, Family::Index, id),
            batches: beside.into_iter().chain(in_buckets).collect(),
            bucket: 0,
            line: Line::default(),
            producers,
            transactions,
            unread: Vec::new(),
        }
    }

    /// Walks to the end; gives the log's end.
    fn make(mut self) -> Offset {
        loop {
            let heads = self.batches.iter().chain([&self.index]).filter_map(Walk::next_base);
            let Some(base) = heads.min() else { break };
            let indexed = self.index.take(base);
            let stored = self.batches.iter_mut().filter_map(|walk| Some((walk.family(), walk.take(base)?))).collect();
            self.look_at(base, indexed, stored);
        }
        self.finish()
    }

    fn look_at(&mut self, base: Offset, indexed: Option<Vec<u8>>, mut stored: Stored) {
        let values = stored.iter().map(|(_, value)| value).chain(&indexed);
        self.check.read(values.map(|value| value.len() + 12).sum());
        let Some(indexed) = indexed else { return self.look_at_unindexed(base, stored, true) };
        let entry = match IndexEntry::decode(&indexed) {
            Ok(entry) if entry.last_offset_delta >= 0 => entry,
            _ => {
                self.told(INDEX_DAMAGED, (base, base), "the index has an entry that cannot be read");
                return self.look_at_unindexed(base, stored, false);
            }
        };
        let last = base.saturating_add(entry.last_offset_delta.into());
        if last < self.stated.start {
            return self.told(LEFT_BEHIND, (base, last), "the index has batches that retention deleted");
        }
        if entry.family() != Family::Compacted {
            if entry.bucket < self.bucket {
                let what = format!("the index says bucket {}, and {} before it", entry.bucket, self.bucket);
                self.told(BUCKETS_MIXED, (base, last), &what);
            }
            self.bucket = entry.bucket;
        }
        let own = stored.extract_if(.., |(family, _)| *family == entry.family()).next().map(|(_, value)| value);
        // a bucket keeps copies of what was moved out of it
        if let Some((other, _)) = stored.iter().find(|(family, _)| !family.is_bucket()) {
            let what = format!("the index says {}, {} has it too", entry.family().name(), other.name());
            self.told(BATCH_TWICE, (base, last), &what);
        }
        let batch = self.batch_of(base, last, (&entry, own));
        self.follow(Link { base, last, epoch: entry.leader_epoch, entry: Some(entry) });
        if let Some(batch) = batch {
            self.meet(&batch);
        }
    }

    /// The batch of an index entry, if it is there and whole.
    fn batch_of(&mut self, base: Offset, last: Offset, (entry, own): (&IndexEntry, Option<Vec<u8>>)) -> Option<Batch> {
        let own = match own {
            Some(bytes) => bytes,
            // the walk went past it, which need not say that it cannot be read alone
            None => match self.check.store.get(entry.family(), &keys::batch_key(self.id, base)) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => {
                    let what = format!("the index names a batch that is not in {}", entry.family().name());
                    return self.lost(BATCH_MISSING, (base, last), &what);
                }
                Err(error) => return self.lost(BATCH_UNREADABLE, (base, last), &error.message),
            },
        };
        match line::read_batch(base, own) {
            Ok(batch) => {
                if let Some(what) = line::differences(entry, &batch) {
                    self.told(line::INDEX_DIFFERS, (base, last), &what);
                }
                Some(batch)
            }
            Err(what) => self.lost(line::BATCH_DAMAGED, (base, last), &what),
        }
    }

    /// A batch that no entry names: nobody reads it, unless the entry only could not be read.
    /// `tells` is false where that was told already.
    fn look_at_unindexed(&mut self, base: Offset, stored: Stored, tells: bool) {
        let Some((family, bytes)) = stored.into_iter().next() else { return };
        let is_below_start = base < self.stated.start && self.index.misses(base).is_none();
        // what retention or compaction took out of the log stays in its bucket until that goes
        if family.is_bucket() && (is_below_start || base < self.stated.clean.touched_to) {
            return;
        }
        if is_below_start {
            return self.told(LEFT_BEHIND, (base, base), "a batch that retention deleted is still stored");
        }
        match line::read_batch(base, bytes) {
            Ok(batch) => {
                let last = batch.last_offset();
                let what = "the index has no entry for it, so nobody reads it";
                if tells && self.index.misses(base).is_none() && last >= self.stated.start {
                    self.told(BATCH_UNINDEXED, (base, last), what);
                }
                self.follow(Link { base, last, epoch: batch.leader_epoch(), entry: None });
                self.meet(&batch);
            }
            Err(what) => drop(self.lost(line::BATCH_DAMAGED, (base, base), &what)),
        }
    }

    fn follow(&mut self, link: Link) {
        self.check.figures.batches += 1;
        let (index, unread) = (&self.index, &self.unread);
        let covered = |from: Offset, to: Offset| is_unread(index, unread, (from, to));
        let breaches = self.line.follow(link, self.stated, covered);
        self.tell_all(breaches);
    }

    fn meet(&mut self, batch: &Batch) {
        let mut breaches = self.producers.meet(batch);
        breaches.extend(self.transactions.meet(batch, self.stated));
        self.tell_all(breaches);
    }

    fn finish(mut self) -> Offset {
        let end = self.line.next().unwrap_or(0).max(self.stated.start);
        for gap in self.index.gaps.clone() {
            // behind the last entry there is no knowing how many there were
            let last = if gap.to == Offset::MAX { gap.from } else { gap.to - 1 };
            self.told(INDEX_UNREADABLE, (gap.from, last), &gap.error);
        }
        self.tell_dead_blocks();
        let foreign = self.index.foreign + self.batches.iter().map(|walk| walk.foreign).sum::<u64>();
        if foreign > 0 {
            let place = Place::partition(&self.span.topic, self.span.partition);
            self.check.add(FOREIGN_KEYS, place, format!("{foreign} keys that are none of a batch's"));
        }
        let (index, unread) = (&self.index, &self.unread);
        let covered = |from: Offset, to: Offset| is_unread(index, unread, (from, to));
        let mut breaches = self.line.finish(end, self.stated, covered);
        let CleanState { clean_to, pass_end, touched_to } = self.stated.clean;
        if clean_to > end || pass_end > end || touched_to > end {
            let what =
                format!("compaction has been up to {}, the log ends at {end}", touched_to.max(clean_to).max(pass_end));
            breaches.push((BOUNDS_WRONG, (end, end), what));
        }
        if let Some((epoch, start)) = self.stated.epochs.iter().find(|(_, start)| *start > end) {
            breaches.push((
                BOUNDS_WRONG,
                (end, end),
                format!("leader epoch {epoch} begins at {start}, behind the log's end {end}"),
            ));
        }
        let bounds = (self.stated, end);
        breaches.extend(self.producers.finish(bounds, covered));
        breaches.extend(self.transactions.finish(bounds, covered));
        self.tell_all(breaches);
        end
    }

    /// What cannot be read although no batch is lost with it: the store's merges would end at it.
    fn tell_dead_blocks(&mut self) {
        // buckets are not merged
        let merged = self.batches.iter().filter(|walk| !walk.family().is_bucket());
        let gaps: Vec<_> = merged.flat_map(|walk| walk.gaps.clone()).collect();
        for gap in gaps {
            let holds = |(first, _): &(Offset, Offset)| gap.covers(*first);
            if !self.unread.iter().any(holds) {
                self.told(BLOCK_UNREADABLE, (gap.from, gap.from), &gap.error);
            }
        }
    }

    fn tell_all(&mut self, breaches: Vec<Breach>) {
        for (kind, offsets, what) in breaches {
            self.told(kind, offsets, &what);
        }
    }

    fn lost(&mut self, kind: Kind, offsets: (Offset, Offset), what: &str) -> Option<Batch> {
        self.unread.push(offsets);
        self.told(kind, offsets, what);
        None
    }

    fn told(&mut self, kind: Kind, (first, last): (Offset, Offset), what: &str) {
        self.check.add(kind, Place::offsets(&self.span.topic, self.span.partition, first, last), what);
    }
}

/// Whether something in `[from, to)` could not be read.
fn is_unread(index: &Walk<'_>, unread: &[(Offset, Offset)], (from, to): (Offset, Offset)) -> bool {
    index.gaps.iter().any(|gap| gap.from < to && gap.to > from)
        || unread.iter().any(|(first, last)| *first < to && *last >= from)
}
