//! Whom rows meet. A row that comes is compared with the rows of the other side that wait, joined to those that are equal and near
//! enough, and waits itself until nobody can come any more whom it could meet. On the left of a LEFT JOIN a row that has met none
//! by then is told alone. Changes nothing that others see until the pipeline's commit has succeeded.
//!
//! A step is of one side, so no two of its rows meet each other, and is done in parts, a commit each: what rows meet bounds a part.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use broker::{Broker, Change, Family, PartitionIndex, Store, TimestampMs};

use super::interval::Side;
use super::member::{DerivedMember, DerivedStep};
use super::plan::DerivedPlan;
use super::search::Search;
use super::stored::{
    bucket_prefix, decode_progress, encode_progress, forget_side, forget_waiting, lonely_key, lonely_range, place,
    place_bound, place_of, progress_key,
};
use super::stream_join::StreamJoin;
use crate::check::LATE_SUFFIX;
use crate::conditions::Fault;
use crate::decode::Sources;
use crate::emit::{Outbox, push_unjoined};
use crate::error::Result;
use crate::shared::Published;
use crate::state::{Position, Progress};

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
    /// Buckets before these are forgotten.
    forgotten_until: [i64; 2],
    /// In the list of rows that have met none all before this key are told: what was deleted there is not read again.
    told_until: Vec<u8>,
}

/// The rows of a step from one on.
pub(crate) struct PartOf<'a> {
    pub(crate) side: Side,
    pub(crate) rows: &'a RecordBatch,
    pub(crate) from: usize,
}

type Entry = (Vec<u8>, Vec<u8>);

/// What some rows of a step do.
pub(crate) struct Part {
    side: Side,
    /// Which rows of the step they are.
    pub(crate) range: Range<usize>,
    /// Those that met, with whom.
    met: RecordBatch,
    /// Key and value of each that waits from now on.
    waiting: Vec<Entry>,
    /// Those on the left that have met none, by their key in the list of such.
    lonely: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Rows that waited on the left and have met one now: their keys in that list.
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
        let (name, join) = (member.plan.stream.name().to_string(), member.plan.join.as_ref());
        let stored = store.get(Family::State, &progress_key(&name))?;
        let fingerprint = join.map_or(0, |join| join.fingerprint);
        let stored = stored.map(|bytes| decode_progress(fingerprint, &bytes)).transpose()?;
        let is_new = stored.is_none();
        let (right, is_same) = stored.unwrap_or_default();
        let right_published = Arc::new(Published::new(right.clone()));
        let (forgotten_until, told_until) = ([i64::MIN; 2], Vec::new());
        let member = JoinMember { member, right, right_published, forgotten_until, told_until };
        let mut changes = Vec::new();
        if !is_new && !is_same {
            let (from, to) = lonely_range(&name);
            let untold = store.scan(Family::State, &from, &to).count();
            tracing::warn!(
                stream = name.as_str(),
                untold,
                "the join or its streams have changed: rows that wait are forgotten, some before they were told alone"
            );
            changes.extend(forget_waiting(&name));
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
            lonely: BTreeMap::new(),
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
        let search = Search { join, stream: self.name(), side, closed_until };
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
            if join.keeps_all && side == Side::Right {
                part.met_now.insert(lonely_key(self.name(), &place_of(key)?));
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
        let partitions = chunk.column(chunk.num_columns() - 2).as_primitive::<Int32Type>().values();
        let offsets = chunk.column(chunk.num_columns() - 1).as_primitive::<Int64Type>().values();
        for (row, value) in join.encode(side, chunk)?.into_iter().enumerate() {
            let (is_left_out, has_met) = told(row);
            if is_left_out {
                continue;
            }
            let place = place(times[row], partitions[row], offsets[row]);
            if join.keeps_all && side == Side::Left && !has_met {
                part.lonely.insert(lonely_key(self.name(), &place), value.clone());
            }
            // What is null equals nothing.
            if let Some(key) = &keys[row] {
                let bucket = bucket_prefix(self.name(), side, join.interval.bucket(times[row]));
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
        let (alone, is_all) = self.tell_alone(&mut part, reached.closed_until, broker.store(), &mut changes)?;
        let met = concat_batches(&part.met.schema(), [&alone, &part.met])?;
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

    /// Rows on the left that nobody can come for any more, as many as one commit should tell; and what keeps the list of the others.
    fn tell_alone(
        &mut self,
        part: &mut Part,
        closed_until: Option<i64>,
        store: &Store,
        changes: &mut Vec<Change>,
    ) -> Result<(RecordBatch, bool)> {
        let plan = self.member.plan.clone();
        let join = join_of(&plan);
        if !join.keeps_all {
            return Ok((join.none_met(), true));
        }
        let mut told: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut is_all = true;
        if let Some(closed_until) = closed_until {
            let from = lonely_key(self.name(), &[]).max(self.told_until.clone());
            let to = lonely_key(self.name(), &place_bound(join.interval.done_before(Side::Left, closed_until)));
            let (mut scan, mut bytes) = (store.scan(Family::State, &from, &to), 0);
            while let Some(entry) = scan.next_ref() {
                let (key, value) = entry?;
                if part.met_now.contains(key) {
                    continue;
                }
                if told.len() >= LONELY_MAX || bytes >= LONELY_BYTES {
                    is_all = false;
                    break;
                }
                bytes += value.len();
                told.insert(key.to_vec(), value.to_vec());
            }
            changes.extend(told.keys().map(|key| Change::Delete(Family::State, key.clone())));
            if is_all {
                // Those of this part never were in the list.
                let later = part.lonely.split_off(&to);
                told.append(&mut std::mem::replace(&mut part.lonely, later));
            }
            self.told_until = if is_all { to } else { Vec::new() };
        }
        let lonely = std::mem::take(&mut part.lonely).into_iter();
        changes.extend(lonely.map(|(key, value)| Change::Put(Family::State, key, value)));
        let met_now: Vec<Vec<u8>> = part.met_now.iter().cloned().collect();
        let listed = store.get_many(Family::State, &met_now)?;
        let gone = met_now.into_iter().zip(listed).filter(|(_, value)| value.is_some());
        changes.extend(gone.map(|(key, _)| Change::Delete(Family::State, key)));
        if told.is_empty() {
            return Ok((join.none_met(), is_all));
        }
        let left = join.decode(Side::Left, told.values().map(Vec::as_slice))?;
        Ok((join.meet(left, join.nothing(Side::Right, told.len()))?, is_all))
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
                let (from, to) = (bucket_prefix(self.name(), side, i64::MIN), bucket_prefix(self.name(), side, bucket));
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
        (self.forgotten_until, self.told_until) = ([i64::MIN; 2], Vec::new());
        let mut changes = forget_side(self.name(), side);
        changes.extend([self.member.progress_change(), self.right_change()]);
        changes
    }

    fn right_change(&self) -> Change {
        let progress = encode_progress(self.join().fingerprint, &self.right);
        Change::Put(Family::State, progress_key(self.name()), progress)
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

    /// How far behind the event watermark rows are still taken.
    pub(crate) fn grace_ms(&self) -> i64 {
        // What reads the stream allows for the join as well.
        self.member.plan.stream.config().lateness_ms.saturating_sub(self.join().delay_ms())
    }
}

fn join_of(plan: &DerivedPlan) -> &StreamJoin {
    plan.join.as_ref().expect("a joined stream is made of a plan that has a join")
}
