//! A view at work in a pipeline: rows in, changed groups, late rows and failed rows out. Changes nothing that others
//! see until the pipeline's commit has succeeded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, TimestampMillisecondArray};
use arrow::compute::{concat_batches, filter_record_batch};
use broker::{Broker, Change, Family, Store};
use datafusion::common::{DataFusionError, Result as DfResult};

use crate::emit::{Outbox, push_gone};
use crate::error::{EngineError, Result};
use crate::finish::Finished;
use crate::keyed::{DISTINCT_MAX, HotStates, StateCodec};
use crate::state::{self, Progress};
use crate::view::ViewPlan;
use crate::window::{Finder, is_late};

/// Memory for the recently touched groups of one view.
const HOT_BYTES_MAX: usize = 64 << 20;
/// Groups that cannot be finished and of which that was told already.
const UNFINISHED_MAX: usize = 10_000;
/// Groups that one commit takes out.
const TAKEN_OUT_MAX: usize = 10_000;

/// A view in its pipeline. Holds: the compiled view, its progress with the step under way, its hot groups. Only its
/// pipeline changes it; a crash loses nothing but the hot groups.
pub(crate) struct ViewMember {
    pub(crate) plan: Arc<ViewPlan>,
    pub(crate) view_id: u32,
    pub(crate) progress: Progress,
    codec: StateCodec,
    hot: HotStates,
    /// Groups that could not be finished when they were last touched; a restart forgets them.
    unfinished: HashSet<Vec<u8>>,
    retired_until: i64,
}

/// What one step does to a view.
#[derive(Default)]
pub(crate) struct ViewStep {
    /// Key and value of each changed group.
    pub(crate) groups: Vec<(Vec<u8>, Vec<u8>)>,
    /// The changed groups as readers see them.
    pub(crate) shown: Option<Finished>,
    /// Rows of `shown` that cannot be finished, but could before, and why.
    pub(crate) unfinished: Vec<(usize, String)>,
    /// Rows (indexes into the step's) whose window is closed.
    pub(crate) late: Vec<(usize, i64)>,
    /// Rows that the view's expressions cannot evaluate, and why.
    pub(crate) failed: Vec<(usize, String)>,
}

/// What became of rows that were evaluated together.
#[derive(Default)]
struct Counted {
    late: Vec<(usize, i64)>,
    failed: Vec<(usize, String)>,
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
struct Gone {
    changes: Vec<Change>,
    /// Whether they are all that had to.
    is_all: bool,
}

impl ViewMember {
    pub(crate) fn new(plan: Arc<ViewPlan>, view_id: u32, progress: Progress) -> Result<ViewMember> {
        let codec = StateCodec::new(&plan, view_id)?;
        let (hot, unfinished) = (HotStates::new(HOT_BYTES_MAX), HashSet::new());
        Ok(ViewMember { plan, view_id, progress, codec, hot, unfinished, retired_until: i64::MIN })
    }

    /// Applies rows to the groups they belong to and counts them in `progress`.
    pub(crate) async fn apply(&mut self, rows: &RecordBatch, store: &Store) -> Result<ViewStep> {
        let mut step = ViewStep::default();
        if rows.num_rows() == 0 {
            return Ok(step);
        }
        // Groups that are full: their rows are left out, and everything is evaluated once more without them.
        let mut full: HashSet<Vec<u8>> = HashSet::new();
        let merged = loop {
            let (partial, evaluated) = self.evaluate_all(rows, &full).await?;
            let merged = if partial.num_rows() > 0 { Some(self.merge(partial, store).await?) } else { None };
            let overfull = merged.as_ref().map(|merged| self.codec.overfull(merged)).transpose()?.unwrap_or_default();
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
        self.progress.late += step.late.len() as u64;
        self.progress.failed += step.failed.len() as u64;
        if let Some(merged) = merged {
            step.groups = self.codec.keys(&merged)?.into_iter().zip(self.codec.values(&merged)?).collect();
            let finished = self.plan.finish(merged).await?;
            step.unfinished = self.newly_unfinished(&step.groups, &finished);
            step.shown = Some(finished);
        }
        Ok(step)
    }

    /// Of the groups that cannot be finished those that could before: of each it is told once, until it can be again.
    fn newly_unfinished(&mut self, groups: &[(Vec<u8>, Vec<u8>)], finished: &Finished) -> Vec<(usize, String)> {
        if self.unfinished.len() > UNFINISHED_MAX {
            self.unfinished.clear();
        }
        if finished.failed.is_empty() && self.unfinished.is_empty() {
            return Vec::new();
        }
        let mut failed = finished.failed.iter().peekable();
        let mut newly = Vec::new();
        for (row, (key, _)) in groups.iter().enumerate() {
            match failed.next_if(|(of, _)| *of == row) {
                Some((_, reason)) if self.unfinished.insert(key.clone()) => newly.push((row, reason.clone())),
                Some(_) => {}
                None => drop(self.unfinished.remove(key)),
            }
        }
        newly
    }

    /// Evaluates all rows together; when that fails, in halves, until the rows at fault stand alone.
    async fn evaluate_all(&self, rows: &RecordBatch, full: &HashSet<Vec<u8>>) -> Result<(RecordBatch, Counted)> {
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
        Ok((self.codec.normalize(concat_batches(self.codec.schema(), &states)?)?, counted))
    }

    async fn evaluate(
        &self,
        rows: &RecordBatch,
        (from, count): (usize, usize),
        full: &HashSet<Vec<u8>>,
    ) -> DfResult<(RecordBatch, Counted)> {
        let (input, kept) = self.plan.select(&rows.slice(from, count))?;
        let mut counted = Counted { filtered: (count - input.num_rows()) as u64, ..Counted::default() };
        let origin: Vec<usize> = match &kept {
            Some(kept) => kept.values().set_indices().map(|row| from + row).collect(),
            None => (from..from + count).collect(),
        };
        let (input, origin) = self.split_late(input, origin, &mut counted)?;
        let input = self.split_full(input, origin, full, &mut counted)?;
        counted.applied = input.num_rows() as u64;
        Ok((self.plan.aggregation.partial(input).await?, counted))
    }

    /// Takes out the rows whose window is closed. `origin` is the row of the step that each row is.
    fn split_late(
        &self,
        input: RecordBatch,
        origin: Vec<usize>,
        counted: &mut Counted,
    ) -> DfResult<(RecordBatch, Vec<usize>)> {
        let Some(window) = self.plan.window else { return Ok((input, origin)) };
        let starts = input.column(input.num_columns() - 1).as_any().downcast_ref::<TimestampMillisecondArray>();
        let starts = starts.expect("select puts window_start last");
        let closed_until = self.progress.closed_until;
        let mut finder = Finder::new(window);
        let mut is_on_time = |start: &i64| !is_late(finder.bounds(*start).1, closed_until);
        let on_time: Vec<bool> = starts.values().iter().map(&mut is_on_time).collect();
        if on_time.iter().all(|on_time| *on_time) {
            return Ok((input, origin));
        }
        let late_rows = (0..on_time.len()).filter(|row| !on_time[*row]);
        counted.late = late_rows.map(|row| (origin[row], starts.value(row))).collect();
        let origin = origin.into_iter().zip(&on_time).filter(|(_, on_time)| **on_time).map(|(row, _)| row).collect();
        Ok((filter_record_batch(&input, &BooleanArray::from(on_time))?, origin))
    }

    /// Takes out the rows of groups that can take no more distinct values.
    fn split_full(
        &self,
        input: RecordBatch,
        origin: Vec<usize>,
        full: &HashSet<Vec<u8>>,
        counted: &mut Counted,
    ) -> DfResult<RecordBatch> {
        if full.is_empty() {
            return Ok(input);
        }
        let external = |error: EngineError| DataFusionError::External(Box::new(error));
        let groups = self.codec.normalize(self.plan.aggregation.groups_of(&input)?).map_err(external)?;
        let keys = self.codec.keys(&groups).map_err(external)?;
        let good: Vec<bool> = keys.iter().map(|key| !full.contains(key)).collect();
        let reason = format!("its group has {DISTINCT_MAX} distinct values, which is the limit of count(DISTINCT …)");
        let refused = origin.into_iter().zip(&good).filter(|(_, good)| !**good);
        counted.failed.extend(refused.map(|(row, _)| (row, reason.clone())));
        Ok(filter_record_batch(&input, &BooleanArray::from(good))?)
    }

    /// Merges this step's states with the stored ones of just the groups it touches.
    async fn merge(&self, partial: RecordBatch, store: &Store) -> Result<RecordBatch> {
        let mut stored: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let mut missing: Vec<Vec<u8>> = Vec::new();
        for key in self.codec.keys(&partial)? {
            match self.hot.get(&key) {
                Some(value) => drop(stored.insert(key, value.to_vec())),
                None => missing.push(key),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        let found = store.get_many(Family::State, &missing)?;
        let known = missing.into_iter().zip(found).filter_map(|(key, value)| value.map(|value| (key, value)));
        stored.extend(known);
        let before = self.codec.decode(stored.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))?;
        let states = concat_batches(self.codec.schema(), [&before, &partial])?;
        Ok(self.plan.aggregation.reduce(states).await?)
    }

    /// What the step writes for this view, and windows whose retention is over.
    pub(crate) fn changes(&mut self, step: &ViewStep, broker: &Broker) -> Result<Vec<Change>> {
        let mut changes: Vec<Change> = Vec::with_capacity(step.groups.len() + 2);
        for (key, value) in &step.groups {
            changes.push(Change::Put(Family::State, key.clone(), value.clone()));
        }
        if let Some(cutoff) = self.retire_cutoff() {
            let gone = self.take_out(&state::state_bound(self.view_id, cutoff), broker)?;
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
    fn take_out(&self, until: &[u8], broker: &Broker) -> Result<Gone> {
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
        let groups = self.codec.decode_keys(keys.iter().map(Vec::as_slice))?;
        push_gone(&mut outbox, &self.plan, &self.plan.keys_alone(&groups)?, broker.clock().now_ms())?;
        let mut changes = outbox.finish();
        changes.push(Change::DeleteRange(Family::State, from, to));
        Ok(Gone { changes, is_all })
    }

    /// Empties the view and its topic, a part at a time: what each commit writes. When nothing is left, it begins anew.
    pub(crate) fn begin_again(&mut self, broker: &Broker) -> Result<Option<Vec<Change>>> {
        let (_, to) = state::state_range(self.view_id);
        if self.progress != Progress::default() {
            let gone = self.take_out(&to, broker)?;
            if gone.is_all {
                (self.hot, self.unfinished) = (HotStates::new(HOT_BYTES_MAX), HashSet::new());
                (self.progress, self.retired_until) = (Progress::default(), i64::MIN);
            }
            return Ok(Some(gone.changes));
        }
        Ok(None)
    }

    /// Windows that end before this are to be forgotten: only closed ones, and not at every step.
    fn retire_cutoff(&self) -> Option<i64> {
        let retention_ms = self.plan.retention_ms?;
        let width_ms = self.plan.window?.nominal_ms();
        let cutoff = self.progress.event_watermark?.saturating_sub(retention_ms).min(self.progress.closed_until?);
        let step_ms = width_ms.max(retention_ms / 32);
        (cutoff.saturating_sub(self.retired_until) >= step_ms).then_some(cutoff)
    }

    /// After the commit: the step's groups are the hot ones.
    pub(crate) fn committed(&mut self, step: ViewStep) {
        for (key, value) in step.groups {
            self.hot.put(key, value);
        }
    }

    /// Groups and bytes held in memory.
    pub(crate) fn hot_size(&self) -> (usize, usize) {
        (self.hot.len(), self.hot.bytes())
    }
}
