//! Whom rows meet. A row that comes is compared with the rows of the other side that wait, joined to those that are equal and near
//! enough, and waits itself until nobody can come any more whom it could meet. On a side that keeps all (the left of a LEFT JOIN) a row
//! that has met none by then is told alone. Changes nothing that others see until the pipeline's commit has succeeded.
//!
//! A step is of one side, so no two of its rows meet each other, and is done in parts, a commit each: what rows meet bounds a part.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, filter_record_batch};
use broker::{Broker, Change, Family, PartitionIndex, Store, TimestampMs};

use super::interval::Side;
use super::member::{DerivedMember, DerivedStep};
use super::plan::DerivedPlan;
use super::search::Search;
use super::stored::{JoinKeys, decode_progress, encode_progress, place, place_bound, place_of};
use super::stream_join::StreamJoin;
use crate::check::LATE_SUFFIX;
use crate::conditions::Fault;
use crate::decode::Sources;
use crate::emit::{Outbox, push_unjoined};
use crate::error::Result;
use crate::shared::Published;
use crate::state::{Position, Progress};
use crate::stream::Stream;

/// Rows of one part.
const PART_ROWS: usize = if cfg!(test) { 50 } else { 8_192 };
/// Rows that one commit tells alone.
const LONELY_MAX: usize = if cfg!(test) { 20 } else { 65_536 };
/// Bytes of the rows that one commit tells alone.
const LONELY_BYTES: usize = 32 << 20;

/// A joined stream at work. Holds: its progress in both streams with the part under way. Only its pipeline changes it; rows
/// that wait are in the store, so that a crash loses nothing.
pub(crate) struct JoinMember {
    /// What becomes of rows that met; its progress is that in the stream on the left.
    pub(crate) member: DerivedMember,
    /// The progress in the stream on the right.
    pub(crate) right: Progress,
    pub(crate) right_published: Arc<Published>,
    keys: JoinKeys,
    /// Buckets before these are forgotten.
    forgotten_until: [i64; 2],
    /// In the lists of rows that have met none all before these keys are told: what was deleted there is not read again.
    told_until: [Vec<u8>; 2],
}

/// The rows of a step from one on.
pub(crate) struct PartOf<'a> {
    pub(crate) side: Side,
    pub(crate) rows: &'a RecordBatch,
    pub(crate) from: usize,
}

type Entry = (Vec<u8>, Vec<u8>);
/// Rows in a list of those that have met none.
type Listed = BTreeMap<Vec<u8>, Vec<u8>>;

/// What some rows of a step do.
pub(crate) struct Part {
    side: Side,
    /// Which rows of the step they are.
    pub(crate) range: Range<usize>,
    /// Those that met, with whom.
    met: RecordBatch,
    /// Key and value of each that waits from now on.
    waiting: Vec<Entry>,
    /// Those that have met none, by their key in the list of such, where all of their side come out.
    lonely: Listed,
    /// Rows that waited on the other side and have met one now: their keys in its list.
    met_now: BTreeSet<Vec<u8>>,
    /// Rows of the step that came too late.
    late: Vec<usize>,
    /// Rows of the step that are refused.
    faults: Vec<Fault>,
}

/// Where both streams and event time stand after a part.
pub(crate) struct Reached {
    pub(crate) positions: [BTreeMap<PartitionIndex, Position>; 2],
    pub(crate) event_watermark: Option<i64>,
    pub(crate) closed_until: Option<i64>,
    /// Offsets that were gone before they were read.
    pub(crate) lost: [u64; 2],
    pub(crate) now_ms: TimestampMs,
}

/// Rows that are told alone.
struct Alone {
    rows: RecordBatch,
    /// Their keys in the list of those that have met none.
    listed: Vec<Vec<u8>>,
    /// Whether there are no more to be told by now.
    is_all: bool,
}

/// What a part is committed by.
pub(crate) struct Done {
    pub(crate) changes: Vec<Change>,
    pub(crate) step: DerivedStep,
    /// Whether all are told that are to be told alone.
    pub(crate) is_all: bool,
}

impl JoinMember {
    /// With the stored progress in the stream on the right, and what is to be committed before it runs: rows that wait by another
    /// definition cannot be read any more, and go.
    pub(crate) fn load(member: DerivedMember, store: &Store) -> Result<(JoinMember, Vec<Change>)> {
        let (keys, join) = (JoinKeys::new(&member.plan), member.plan.join.as_ref());
        let stored = store.get(Family::State, &keys.progress())?;
        let fingerprint = join.map_or(0, |join| join.fingerprint);
        let stored = stored.map(|bytes| decode_progress(fingerprint, &bytes)).transpose()?;
        let is_new = stored.is_none();
        let (right, is_same) = stored.unwrap_or_default();
        let right_published = Arc::new(Published::new(right.clone()));
        let (forgotten_until, told_until) = ([i64::MIN; 2], Default::default());
        let member = JoinMember { member, right, right_published, keys, forgotten_until, told_until };
        let mut changes = Vec::new();
        if !is_new && !is_same {
            let (from, to) = member.keys.all_lonely();
            let untold = store.scan(Family::State, &from, &to).count();
            tracing::warn!(
                stream = member.name(),
                untold,
                "the join or its streams have changed: rows that wait are forgotten, some before they were told alone"
            );
            changes.extend(Side::BOTH.into_iter().flat_map(|side| member.keys.forget(side)));
        }
        if !is_same {
            changes.push(member.right_change());
        }
        Ok((member, changes))
    }

    pub(crate) fn join(&self) -> &StreamJoin {
        join_of(&self.member.plan)
    }

    fn name(&self) -> &str {
        self.member.plan.stream.name()
    }

    /// No rows: what is left to tell alone is told all the same.
    pub(crate) fn nothing(&self) -> Part {
        Part {
            side: Side::Left,
            range: 0..0,
            met: self.join().none_met(),
            waiting: Vec::new(),
            lonely: Listed::new(),
            met_now: BTreeSet::new(),
            late: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Finds whom the next rows of a step meet.
    pub(crate) fn take(&self, PartOf { side, rows, from }: PartOf<'_>, store: &Store) -> Result<Part> {
        let join = self.join();
        let chunk = rows.slice(from, PART_ROWS.min(rows.num_rows() - from));
        let mut faults: Vec<Fault> = Vec::new();
        let keys = join.keys(side, &chunk, &mut faults)?;
        let closed_until = self.member.progress.closed_until;
        let search = Search { join, stored: &self.keys, side, closed_until };
        let mut sought = search.run((&chunk, &keys), store, &mut faults)?;
        let (taken, late) = (sought.taken, std::mem::take(&mut sought.late));
        faults.retain(|(row, ..)| *row < taken && late.binary_search(row).is_err());
        let chunk = chunk.slice(0, taken);
        let near = search.beside(&chunk, &sought)?;
        let holds = search.judge(&near, &sought.rows, &mut faults)?;
        let mut part =
            Part { side, range: from..from + taken, met: filter_record_batch(&near, &holds)?, ..self.nothing() };
        let mut lucky: HashSet<usize> = HashSet::new();
        let pairs = sought.rows.iter().zip(&sought.found).enumerate();
        for (_, (row, (key, _))) in pairs.filter(|(at, _)| holds.value(*at)) {
            lucky.insert(*row as usize);
            if join.keeps_all(side.other()) {
                part.met_now.insert(self.keys.lonely(side.other(), &place_of(key)?));
            }
        }
        let left_out: HashSet<usize> = faults.iter().map(|(row, ..)| *row).chain(late.iter().copied()).collect();
        self.let_wait(&mut part, &chunk, &keys, |row| (left_out.contains(&row), lucky.contains(&row)))?;
        part.late = late.into_iter().map(|row| from + row).collect();
        part.faults = faults.into_iter().map(|(row, rule, reason)| (from + row, rule, reason)).collect();
        part.faults.sort_by_key(|(row, ..)| *row);
        Ok(part)
    }

    /// Rows that are neither late nor at fault wait; of which that holds, and which have met one, `told` says.
    fn let_wait(
        &self,
        part: &mut Part,
        chunk: &RecordBatch,
        keys: &[Option<Vec<u8>>],
        told: impl Fn(usize) -> (bool, bool),
    ) -> Result<()> {
        let (join, side) = (self.join(), part.side);
        let times = join.stream(side).event_times(chunk).values();
        let (partitions, offsets) = Stream::places(chunk);
        for (row, value) in join.encode(side, chunk)?.into_iter().enumerate() {
            let (is_left_out, has_met) = told(row);
            if is_left_out {
                continue;
            }
            let place = place(times[row], partitions[row], offsets[row]);
            if join.keeps_all(side) && !has_met {
                part.lonely.insert(self.keys.lonely(side, &place), value.clone());
            }
            // What is null equals nothing.
            if let Some(key) = &keys[row] {
                let bucket = self.keys.bucket(side, join.interval.bucket(times[row]));
                part.waiting.push(([&bucket[..], key, &place].concat(), value));
            }
        }
        Ok(())
    }

    /// What a part is committed by: rows that met or are told alone, go on; late and refused ones are recorded. `read` is where the
    /// rows of its step were written, and the day of each.
    pub(crate) async fn finish(
        &mut self,
        mut part: Part,
        reached: Reached,
        read: Option<(&Sources, &[i32])>,
        broker: &Broker,
    ) -> Result<Done> {
        let mut changes = Vec::new();
        let (mut met, mut is_all) = (Vec::new(), true);
        for side in Side::BOTH {
            let alone = self.tell_alone(side, &mut part, reached.closed_until, broker.store())?;
            changes.extend(alone.listed.into_iter().map(|key| Change::Delete(Family::State, key)));
            met.push(alone.rows);
            is_all &= alone.is_all;
        }
        changes.extend(list(&mut part, broker.store())?);
        met.push(part.met.clone());
        let met = concat_batches(&part.met.schema(), &met)?;
        let mut step = self.member.apply(&met, broker).await?;
        if let Some((sources, days)) = read {
            self.member.leave_out(&mut step, &part.late, &part.faults, days);
            changes.extend(self.member.refused_changes(&part.faults, sources, broker)?);
            changes.extend(self.late_changes(&part, &reached, sources, broker)?);
        }
        changes.extend(
            std::mem::take(&mut part.waiting).into_iter().map(|(key, value)| Change::Put(Family::State, key, value)),
        );
        self.advance(&part, reached);
        changes.extend(self.forget());
        changes.extend(self.member.changes(&mut step, &met, &Sources::kept(met.clone()), broker)?);
        changes.push(self.right_change());
        Ok(Done { changes, step, is_all })
    }

    /// Rows of a side that keeps all, whom nobody can come for any more: as many as one commit should tell.
    fn tell_alone(&mut self, side: Side, part: &mut Part, closed_until: Option<i64>, store: &Store) -> Result<Alone> {
        let join = join_of(&self.member.plan);
        let nobody = Alone { rows: join.none_met(), listed: Vec::new(), is_all: true };
        let Some(closed_until) = closed_until.filter(|_| join.keeps_all(side)) else { return Ok(nobody) };
        let from = self.keys.lonely(side, &[]).max(self.told_until[side as usize].clone());
        let to = self.keys.lonely(side, &place_bound(join.interval.done_before(side, closed_until)));
        let (mut told, mut next, mut bytes) = (Listed::new(), None, 0);
        let mut scan = store.scan(Family::State, &from, &to);
        while let Some(entry) = scan.next_ref() {
            let (key, value) = entry?;
            if part.met_now.contains(key) {
                continue;
            }
            if told.len() >= LONELY_MAX || bytes >= LONELY_BYTES {
                next = Some(key.to_vec());
                break;
            }
            bytes += value.len();
            told.insert(key.to_vec(), value.to_vec());
        }
        let (listed, is_all) = (told.keys().cloned().collect(), next.is_none());
        if is_all && side == part.side {
            // Those of this part never were in the list.
            let later = part.lonely.split_off(&to);
            told.append(&mut std::mem::replace(&mut part.lonely, later));
        }
        // What is left of this part is listed with this commit, and may lie before the next.
        let first = part.lonely.keys().next().filter(|_| side == part.side);
        self.told_until[side as usize] = next.into_iter().chain(first.cloned()).fold(to, Ord::min);
        if told.is_empty() {
            return Ok(Alone { is_all, ..nobody });
        }
        let own = join.decode(side, told.values().map(Vec::as_slice))?;
        Ok(Alone { rows: join.alone(side, own, told.len())?, listed, is_all })
    }

    /// Moves both progresses.
    fn advance(&mut self, part: &Part, reached: Reached) {
        let Reached { positions: [left, right], event_watermark, closed_until, lost, now_ms } = reached;
        let mut of_side = [(&mut self.member.progress, left), (&mut self.right, right)];
        for ((progress, positions), lost) in of_side.iter_mut().zip(lost) {
            progress.positions = std::mem::take(positions);
            progress.event_watermark = event_watermark;
            progress.closed_until = closed_until;
            progress.lost += lost;
            progress.updated_at = now_ms;
        }
        of_side[part.side as usize].0.late += part.late.len() as u64;
    }

    /// Forgets the buckets of rows that meet nobody any more.
    fn forget(&mut self) -> Vec<Change> {
        let Some(closed_until) = self.member.progress.closed_until else { return Vec::new() };
        let (interval, mut changes) = (self.join().interval, Vec::new());
        for side in Side::BOTH {
            let bucket = interval.bucket(interval.done_before(side, closed_until));
            if bucket > self.forgotten_until[side as usize] {
                self.forgotten_until[side as usize] = bucket;
                let (from, to) = (self.keys.bucket(side, i64::MIN), self.keys.bucket(side, bucket));
                changes.push(Change::DeleteRange(Family::State, from, to));
            }
        }
        changes
    }

    /// Late rows as they were written.
    fn late_changes(&self, part: &Part, reached: &Reached, sources: &Sources, broker: &Broker) -> Result<Vec<Change>> {
        if part.late.is_empty() {
            return Ok(Vec::new());
        }
        let mut outbox = Outbox::to(broker, &format!("{}{LATE_SUFFIX}", self.name()))?;
        let (now_ms, stream) = (broker.clock().now_ms(), self.join().stream(part.side));
        let positions = &reached.positions[part.side as usize];
        sources.visit(&part.late, |_, partition, record| {
            let log = positions.get(&partition).map(|position| position.log);
            push_unjoined(&mut outbox, (stream.name(), partition, log), record, now_ms);
            Ok(())
        })?;
        Ok(outbox.finish())
    }

    /// The topic on a side is another one now: what waits of the former one goes. What was written stays: this stream is a log.
    pub(crate) fn begin_again(&mut self, side: Side, positions: BTreeMap<PartitionIndex, Position>) -> Vec<Change> {
        self.member.begin_again();
        (self.right.event_watermark, self.right.closed_until) = (None, None);
        match side {
            Side::Left => self.member.progress.positions = positions,
            Side::Right => self.right.positions = positions,
        }
        (self.forgotten_until, self.told_until) = ([i64::MIN; 2], Default::default());
        let mut changes = self.keys.forget(side);
        changes.extend([self.member.progress_change(), self.right_change()]);
        changes
    }

    fn right_change(&self) -> Change {
        let progress = encode_progress(self.join().fingerprint, &self.right);
        Change::Put(Family::State, self.keys.progress(), progress)
    }

    /// After the commit.
    pub(crate) fn committed(&mut self, step: DerivedStep) {
        self.right_published.publish(&self.right, false);
        self.member.committed(step);
    }

    /// Shows where it stands.
    pub(crate) fn publish(&self) {
        self.right_published.publish(&self.right, false);
        self.member.published.publish(&self.member.progress, false);
    }
}

/// What keeps the lists of those that have met none.
fn list(part: &mut Part, store: &Store) -> Result<Vec<Change>> {
    let lonely = std::mem::take(&mut part.lonely).into_iter();
    let mut changes: Vec<Change> = lonely.map(|(key, value)| Change::Put(Family::State, key, value)).collect();
    let met_now: Vec<Vec<u8>> = part.met_now.iter().cloned().collect();
    let listed = store.get_many(Family::State, &met_now)?;
    let gone = met_now.into_iter().zip(listed).filter(|(_, value)| value.is_some());
    changes.extend(gone.map(|(key, _)| Change::Delete(Family::State, key)));
    Ok(changes)
}

fn join_of(plan: &DerivedPlan) -> &StreamJoin {
    plan.join.as_ref().expect("a joined stream is made of a plan that has a join")
}
