//! A view at work in a pipeline: rows in, changed groups, late rows and failed rows out. Changes nothing that others
//! see until the pipeline's commit has succeeded.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMillisecondArray, UInt64Array};
use arrow::compute::{concat_batches, take_arrays};
use broker::{Broker, Change, Entries, Family, Packed, Store};
use datafusion::common::{DataFusionError, Result as DfResult};

use crate::aggregate::Part;
use crate::conditions::keep;
use crate::emit::{Outbox, push_gone};
use crate::error::{EngineError, Result};
use crate::finish::Finished;
use crate::hot::HotStates;
use crate::keyed::{Groups, StateCodec, full_group};
use crate::numbered::Numbered;
use crate::parse_emit::Emit;
use crate::state::{self, Mark, Progress};
use crate::view::ViewPlan;
use crate::windows::{Judge, Lateness, Windows};

/// Memory for the recently touched groups of one view.
const HOT_BYTES_MAX: usize = 64 << 20;
/// Groups that cannot be finished and of which that was told already.
const UNFINISHED_MAX: usize = 10_000;
/// Groups that one commit takes out.
pub(crate) const TAKEN_OUT_MAX: usize = 10_000;

/// A view in its pipeline. Holds: the compiled view, its progress with the step under way, its hot groups. Only its
/// pipeline changes it; a crash loses nothing but the hot groups.
pub(crate) struct ViewMember {
    pub(crate) plan: Arc<ViewPlan>,
    pub(crate) view_id: u32,
    pub(crate) progress: Progress,
    pub(crate) codec: StateCodec,
    pub(crate) hot: HotStates,
    /// Groups that could not be finished when they were last touched; a restart forgets them.
    unfinished: HashSet<Vec<u8>>,
    pub(crate) retired_until: i64,
    /// How far windows that overlap have come.
    pub(crate) mark: Mark,
    /// Of other windows that are told when they are closed: what lies before this key is told. See `finals`.
    pub(crate) told: Vec<u8>,
    /// Whether its topic hears nothing of it: another version of the view is told there.
    pub(crate) is_silent: bool,
}

/// What one step does to a view.
#[derive(Default)]
pub(crate) struct ViewStep {
    /// Key and value of each changed group.
    pub(crate) groups: Arc<Entries>,
    /// Sessions that have become one with others: their keys.
    pub(crate) absorbed: Vec<Vec<u8>>,
    /// Where the changed sessions are found by their groups: the start of the one that is, None where none is any more.
    pub(crate) found: Vec<(Vec<u8>, Option<i64>)>,
    /// The changed groups as readers see them; not of windows that are told when they are closed.
    pub(crate) shown: Option<Finished>,
    /// Rows of `shown` that cannot be finished, but could before, and why.
    pub(crate) unfinished: Vec<(usize, String)>,
    /// Rows that came when a window of theirs was closed.
    pub(crate) late: Vec<LateRow>,
    /// Rows that the view's expressions cannot evaluate, and why.
    pub(crate) failed: Vec<(usize, String)>,
}

/// A row of a step (by its index) that came when a window of its was closed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LateRow {
    pub(crate) row: usize,
    /// The start of the first window that it missed.
    pub(crate) window_start: i64,
    /// The start of the first window that it counts in all the same.
    pub(crate) counted_from: Option<i64>,
}

/// What became of rows that were evaluated together.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) late: Vec<LateRow>,
    pub(crate) failed: Vec<(usize, String)>,
    applied: u64,
    filtered: u64,
}

impl Counted {
    fn add(&mut self, other: Counted) {
        self.late.extend(other.late);
        self.failed.extend(other.failed);
        self.applied += other.applied;
        self.filtered += other.filtered;
    }
}

/// Groups that go.
pub(crate) struct Gone {
    pub(crate) changes: Vec<Change>,
    /// Whether they are all that had to.
    pub(crate) is_all: bool,
}

impl ViewMember {
    pub(crate) fn new(plan: Arc<ViewPlan>, view_id: u32, progress: Progress, store: &Store) -> Result<ViewMember> {
        let codec = StateCodec::new(&plan, view_id)?;
        let (hot, unfinished) = (hot_states(view_id, store)?, HashSet::new());
        let stored = store.get(Family::State, &state::mark_key(view_id))?;
        let (mark, told) = match plan.windows {
            Some(Windows::Hop(_)) => (Mark::decode(stored.as_deref())?, Vec::new()),
            _ => (Mark::NONE, stored.unwrap_or_default()),
        };
        let (retired_until, is_silent) = (i64::MIN, false);
        Ok(ViewMember { plan, view_id, progress, codec, hot, unfinished, retired_until, mark, told, is_silent })
    }

    /// Applies rows to the groups they belong to and counts them in `progress`.
    pub(crate) async fn apply(&mut self, rows: &RecordBatch, store: &Store) -> Result<ViewStep> {
        let mut step = ViewStep::default();
        if rows.num_rows() == 0 {
            return Ok(step);
        }
        if let Some(Windows::Session(gap_ms)) = self.plan.windows {
            return self.apply_sessions(rows, gap_ms, store).await;
        }
        // Groups that are full: their rows are left out, and everything is evaluated once more without them.
        let mut full: HashSet<Vec<u8>> = HashSet::new();
        let merged = loop {
            let (partial, evaluated) = self.evaluate_all(rows, &full).await?;
            let merged = if partial.num_rows() > 0 { Some(self.merge(partial, store)?) } else { None };
            let overfull = merged.as_ref().map(|(states, _)| self.codec.overfull(states)).transpose()?;
            let overfull = overfull.unwrap_or_default();
            if overfull.is_empty() {
                self.progress.applied += evaluated.applied;
                self.progress.filtered += evaluated.filtered;
                (step.late, step.failed) = (evaluated.late, evaluated.failed);
                // Sources are visited in the order of rows.
                step.failed.sort_by_key(|(row, _)| *row);
                break merged;
            }
            full.extend(overfull);
        };
        self.progress.late += step.late.iter().filter(|late| late.counted_from.is_none()).count() as u64;
        self.progress.failed += step.failed.len() as u64;
        if let Some((states, keys)) = merged {
            self.take_in(Groups { states, ends: None }, keys, &mut step)?;
        }
        Ok(step)
    }

    /// The changed groups, which have these keys, are the step's.
    pub(crate) fn take_in(&mut self, groups: Groups, keys: Packed, step: &mut ViewStep) -> Result<()> {
        step.groups = Arc::new(Entries::new(keys, self.codec.values(&groups)?));
        if self.plan.emit == Emit::Final {
            return Ok(());
        }
        let finished = self.plan.finish(groups)?;
        step.unfinished = self.newly_unfinished(&step.groups, &finished);
        step.shown = Some(finished);
        Ok(())
    }

    /// Of the groups that cannot be finished those that could before: of each it is told once, until it can be again.
    fn newly_unfinished(&mut self, groups: &Entries, finished: &Finished) -> Vec<(usize, String)> {
        if self.unfinished.len() > UNFINISHED_MAX {
            self.unfinished.clear();
        }
        if finished.failed.is_empty() && self.unfinished.is_empty() {
            return Vec::new();
        }
        let mut failed = finished.failed.iter().peekable();
        let mut newly = Vec::new();
        for (row, key) in groups.keys().enumerate() {
            match failed.next_if(|(of, _)| *of == row) {
                Some((_, reason)) if self.unfinished.insert(key.to_vec()) => newly.push((row, reason.clone())),
                Some(_) => {}
                None => drop(self.unfinished.remove(key)),
            }
        }
        newly
    }

    /// Evaluates all rows together; when that fails, in halves, until the rows at fault stand alone.
    pub(crate) async fn evaluate_all(
        &self,
        rows: &RecordBatch,
        full: &HashSet<Vec<u8>>,
    ) -> Result<(RecordBatch, Counted)> {
        let mut states: Vec<RecordBatch> = Vec::new();
        let mut counted = Counted::default();
        let mut parts = vec![(0, rows.num_rows())];
        while let Some((from, count)) = parts.pop() {
            match self.evaluate(rows, (from, count), full).await {
                Ok((part, of_part)) => {
                    counted.add(of_part);
                    states.push(part);
                }
                Err(error) if count == 1 => counted.failed.push((from, error.strip_backtrace())),
                Err(_) => {
                    let half = count / 2;
                    parts.push((from + half, count - half));
                    parts.push((from, half));
                }
            }
        }
        let states = match states.as_slice() {
            [whole] => whole.clone(),
            parts => concat_batches(self.codec.schema(), parts)?,
        };
        Ok((self.codec.normalize(states)?, counted))
    }

    async fn evaluate(
        &self,
        rows: &RecordBatch,
        (from, count): (usize, usize),
        full: &HashSet<Vec<u8>>,
    ) -> DfResult<(RecordBatch, Counted)> {
        let (input, mut origin) = self.plan.select(&rows.slice(from, count), self.progress.closed_until)?;
        origin.iter_mut().for_each(|row| *row += from);
        let mut counted = Counted { filtered: (count - different(&origin)) as u64, ..Counted::default() };
        let (input, origin) = self.split_late(input, origin, &mut counted)?;
        let (input, origin) = self.split_full(input, origin, full, &mut counted)?;
        counted.applied = different(&origin) as u64;
        Ok((self.plan.aggregation.partial(input).await?, counted))
    }

    /// Takes out the rows whose windows are closed. `origin` is the row of the step that each row is.
    fn split_late(
        &self,
        input: RecordBatch,
        origin: Vec<usize>,
        counted: &mut Counted,
    ) -> DfResult<(RecordBatch, Vec<usize>)> {
        let Some(windows) = self.plan.windows else { return Ok((input, origin)) };
        let labels = input.column(input.num_columns() - 1).as_any().downcast_ref::<TimestampMillisecondArray>();
        let labels = labels.expect("select puts window_start last");
        let mut judge = Judge::new(windows, self.progress.closed_until);
        let mut counts = Vec::with_capacity(labels.len());
        for (row, label) in labels.values().iter().enumerate() {
            let row = origin[row];
            let (window_start, counted_from) = match judge.lateness(*label) {
                Lateness::OnTime => {
                    counts.push(true);
                    continue;
                }
                Lateness::Late { window_start } => (window_start, None),
                Lateness::Partly { window_start, counted_from } => (window_start, Some(counted_from)),
            };
            counts.push(counted_from.is_some());
            // The items of a row are in the same windows.
            if counted.late.last().is_none_or(|late| late.row != row) {
                counted.late.push(LateRow { row, window_start, counted_from });
            }
        }
        Ok(keep((input, origin), counts)?)
    }

    /// Takes out the rows of groups that can take no more values.
    fn split_full(
        &self,
        input: RecordBatch,
        origin: Vec<usize>,
        full: &HashSet<Vec<u8>>,
        counted: &mut Counted,
    ) -> DfResult<(RecordBatch, Vec<usize>)> {
        if full.is_empty() {
            return Ok((input, origin));
        }
        let external = |error: EngineError| DataFusionError::External(Box::new(error));
        let groups = self.codec.normalize(self.plan.aggregation.groups_of(&input)?).map_err(external)?;
        let keys = self.codec.keys(&groups).map_err(external)?;
        // A row counts with all its items, or not at all.
        let mut refused: Vec<usize> =
            origin.iter().zip(keys.iter()).filter(|(_, key)| full.contains(*key)).map(|(row, _)| *row).collect();
        refused.dedup();
        let good: Vec<bool> = origin.iter().map(|row| refused.binary_search(row).is_err()).collect();
        counted.failed.extend(refused.into_iter().map(|row| (row, full_group())));
        Ok(keep((input, origin), good)?)
    }

    /// Merges this step's states with the stored ones of just the groups it touches. Gives the keys of the groups as well.
    fn merge(&self, partial: RecordBatch, store: &Store) -> Result<(RecordBatch, Packed)> {
        let keys = self.codec.keys(&partial)?;
        // Parts that were evaluated one by one have groups in common.
        let numbered = Numbered::new(&keys);
        let Numbered { groups, firsts } = &numbered;
        let (touched, before): (Vec<usize>, Vec<_>) = self.stored(&keys, firsts, store)?.into_iter().unzip();
        let before = self.codec.decode_values(before.iter().map(AsRef::as_ref))?;
        let (group_columns, states) = partial.columns().split_at(self.plan.aggregation.group_count());
        let (all, some) = (Part { states, groups }, Part { states: &before, groups: &touched });
        let merged = self.plan.aggregation.merge(&all, &some, firsts.len())?;
        let (mut columns, keys) = match numbered.are_different() {
            true => (group_columns.to_vec(), keys),
            false => {
                let rows = UInt64Array::from_iter_values(firsts.iter().map(|row| *row as u64));
                let mut own = Packed::with_room(firsts.len(), keys.bytes());
                firsts.iter().for_each(|row| own.push(&[keys.get(*row)]));
                (take_arrays(group_columns, &rows, None)?, own)
            }
        };
        columns.extend(merged);
        Ok((RecordBatch::try_new(self.codec.schema().clone(), columns)?, keys))
    }

    /// What is stored under these of the keys, each with its place among them.
    pub(crate) fn stored<'a>(
        &'a self,
        keys: &Packed,
        rows: &[usize],
        store: &Store,
    ) -> Result<Vec<(usize, Cow<'a, [u8]>)>> {
        let mut stored: Vec<(usize, Cow<'a, [u8]>)> = Vec::with_capacity(rows.len());
        let mut missing: Vec<usize> = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let key = keys.get(*row);
            match self.hot.get(key) {
                Some(value) => stored.push((at, Cow::Borrowed(value))),
                None if self.hot.may_be_stored(key) => missing.push(at),
                None => {}
            }
        }
        if missing.is_empty() {
            return Ok(stored);
        }
        missing.sort_unstable_by_key(|at| keys.get(rows[*at]));
        let wanted: Vec<&[u8]> = missing.iter().map(|at| keys.get(rows[*at])).collect();
        let found = store.get_many(Family::State, &wanted)?;
        let known = missing.into_iter().zip(found).filter_map(|(at, value)| Some((at, Cow::Owned(value?))));
        stored.extend(known);
        Ok(stored)
    }

    /// What the step writes for this view, and windows whose retention is over.
    pub(crate) fn changes(&mut self, step: &ViewStep, broker: &Broker) -> Result<Vec<Change>> {
        let mut changes = vec![Change::PutAll(Family::State, step.groups.clone())];
        changes.extend(step.absorbed.iter().map(|key| Change::Delete(Family::State, key.clone())));
        changes.extend(step.found.iter().map(|(key, start_ms)| match start_ms {
            Some(start_ms) => Change::Put(Family::State, key.clone(), start_ms.to_be_bytes().to_vec()),
            None => Change::Delete(Family::State, key.clone()),
        }));
        if self.plan.emit == Emit::Final {
            changes.extend(state::list_untold(&step.found)?);
        }
        // Windows that are told when they are closed go after that, in commits of their own.
        let cutoff = self.retire_cutoff().filter(|_| self.plan.emit == Emit::Changes);
        if let Some(cutoff) = cutoff {
            let gone = match self.plan.windows {
                Some(Windows::Session(_)) => self.take_out_sessions(cutoff, step, broker)?,
                _ => self.take_out(&state::state_bound(self.view_id, cutoff), broker)?,
            };
            changes.extend(gone.changes);
            if gone.is_all {
                self.retired_until = cutoff;
            }
        }
        let key = state::view_progress_key(self.view_id);
        changes.push(Change::Put(Family::State, key, self.progress.encode()));
        Ok(changes)
    }

    /// Takes groups below a key out of the view and of its topic, as many as one commit should.
    pub(crate) fn take_out(&self, until: &[u8], broker: &Broker) -> Result<Gone> {
        let (from, _) = state::state_range(self.view_id);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut to = until.to_vec();
        for entry in broker.store().scan(Family::State, &from, until) {
            let (key, _) = entry?;
            if keys.len() == TAKEN_OUT_MAX {
                to = key.to_vec();
                break;
            }
            keys.push(key.to_vec());
        }
        let is_all = to == until;
        let mut outbox = Outbox::to(broker, &self.plan.name)?;
        self.push_gone(&mut outbox, &keys, broker)?;
        let mut changes = outbox.finish();
        changes.push(Change::DeleteRange(Family::State, from, to));
        Ok(Gone { changes, is_all })
    }

    /// A tombstone for each of these groups.
    pub(crate) fn push_gone(&self, outbox: &mut Outbox, keys: &[Vec<u8>], broker: &Broker) -> Result<()> {
        if self.is_silent {
            return Ok(());
        }
        let groups = self.codec.decode_keys(keys.iter().map(Vec::as_slice))?;
        push_gone(outbox, &self.plan, &self.plan.keys_alone(&groups)?, broker.clock().now_ms())
    }

    /// Empties the view and its topic, a part at a time: what each commit writes. When nothing is left, it begins anew.
    pub(crate) fn begin_again(&mut self, broker: &Broker) -> Result<Option<Vec<Change>>> {
        if self.progress == Progress::default() {
            return Ok(None);
        }
        let (_, to) = state::state_range(self.view_id);
        let mut gone = match self.plan.windows {
            Some(Windows::Hop(hop)) => self.take_out_windows(hop, self.mark.told, broker)?,
            _ => self.take_out(&to, broker)?,
        };
        if gone.is_all {
            gone.changes.extend(state::forget(self.view_id));
            let nothing_from = state::state_range(self.view_id).0;
            (self.hot, self.unfinished) = (HotStates::whole_from(HOT_BYTES_MAX, nothing_from), HashSet::new());
            (self.progress, self.retired_until, self.mark) = (Progress::default(), i64::MIN, Mark::NONE);
            self.told = Vec::new();
        }
        Ok(Some(gone.changes))
    }

    /// Windows that end before this are to be forgotten: only closed ones, and not at every step.
    pub(crate) fn retire_cutoff(&self) -> Option<i64> {
        let retention_ms = self.plan.retention_ms?;
        let width_ms = self.plan.windows?.nominal_ms();
        let cutoff = self.progress.event_watermark?.saturating_sub(retention_ms).min(self.progress.closed_until?);
        let step_ms = width_ms.max(retention_ms / 32);
        (cutoff.saturating_sub(self.retired_until) >= step_ms).then_some(cutoff)
    }

    /// After the commit: the step's groups are the hot ones.
    pub(crate) fn committed(&mut self, step: ViewStep) {
        step.absorbed.iter().for_each(|key| self.hot.remove(key));
        step.groups.iter().for_each(|(key, value)| self.hot.put(key, value));
    }

    /// Groups and bytes held in memory.
    pub(crate) fn hot_size(&self) -> (usize, usize) {
        (self.hot.len(), self.hot.bytes())
    }
}

/// The states of a view in memory at the start: none, but behind the last one that is stored there is nothing.
fn hot_states(view_id: u32, store: &Store) -> Result<HotStates> {
    let (from, to) = state::state_range(view_id);
    let last = store.last_in(Family::State, &from, &to)?;
    let nothing_from = last.map_or(from, |(key, _)| [&key[..], &[0]].concat());
    Ok(HotStates::whole_from(HOT_BYTES_MAX, nothing_from))
}

/// How many rows there are among ascending ones.
pub(crate) fn different(rows: &[usize]) -> usize {
    rows.chunk_by(|one, other| one == other).count()
}
