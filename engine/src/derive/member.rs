//! A derived stream at work in the pipeline of its source: rows in; rows to write, refused rows and counts out. Changes
//! nothing that others see until the pipeline's commit has succeeded.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, TimestampMillisecondArray};
use arrow::compute::concat_batches;
use broker::{Broker, Change, Family, Store, TimestampMs};

use super::deduplicate::{Finding, Seen};
use super::join::Failure;
use super::plan::{DerivedPlan, Evaluated};
use crate::conditions::{Fault, Judged, keep};
use crate::decode::{Sources, rejected};
use crate::emit::{Outbox, push_rows, refused_changes};
use crate::error::{EngineError, Result};
use crate::quality::{ACCEPTED, Counters, LATE, QualityAction, Tally, days, timestamps};
use crate::shared::Published;
use crate::state::{self, Progress};
use crate::stream::Rejected;

/// Rows evaluated together: bounds what an `unnest` makes of them at once.
const CHUNK_ROWS: usize = 8_192;

/// A derived stream in its source's pipeline. Holds: the compiled stream, its progress with the step under way, recently
/// accepted rows. Only its pipeline changes it; a crash loses nothing.
pub(crate) struct DerivedMember {
    pub(crate) plan: Arc<DerivedPlan>,
    pub(crate) progress: Progress,
    pub(crate) published: Arc<Published>,
    counters: Counters,
    seen: Seen,
}

/// What one step does to a derived stream.
#[derive(Default)]
pub(crate) struct DerivedStep {
    /// The rows to write, and the row of the step that each comes from.
    written: Option<(RecordBatch, Vec<usize>)>,
    /// Refused rows by the row of the step they come from.
    faults: Vec<Fault>,
    /// What is stored of accepted rows.
    accepted: Vec<(Vec<u8>, Vec<u8>)>,
    tally: Tally,
}

impl DerivedMember {
    pub(crate) fn new(plan: Arc<DerivedPlan>, progress: Progress, published: Arc<Published>) -> DerivedMember {
        let counters = Counters::of_branch(plan.stream.name(), plan.branch);
        DerivedMember { plan, progress, published, counters, seen: Seen::new() }
    }

    /// Computes what a step's rows become.
    pub(crate) async fn apply(&mut self, rows: &RecordBatch, broker: &Broker) -> Result<DerivedStep> {
        let mut step = DerivedStep::default();
        if rows.num_rows() == 0 {
            return Ok(step);
        }
        let evaluated = self.evaluate(rows, broker.store(), &mut step.faults).await?;
        let produced: std::collections::HashSet<usize> = evaluated.origin.iter().copied().collect();
        self.progress.filtered += (rows.num_rows() - produced.len() - step.faults.len()) as u64;
        let timed = self.check_event_times(evaluated, rows, &mut step.faults)?;
        let (checked, warned) = self.check(timed, &mut step.faults)?;
        let Evaluated { rows: written, origin } = self.deduplicate(checked, broker.store(), &mut step)?;
        step.faults.sort_by_key(|(row, ..)| *row);
        self.count(rows, &origin, &warned, &mut step, broker.clock().now_ms());
        step.written = Some((written, origin)).filter(|(rows, _)| rows.num_rows() > 0);
        Ok(step)
    }

    /// Runs the SELECT in chunks; a chunk that fails is halved until the rows at fault stand alone.
    async fn evaluate(&self, rows: &RecordBatch, store: &Store, faults: &mut Vec<Fault>) -> Result<Evaluated> {
        let total = rows.num_rows();
        let chunk = |from: usize| (from, CHUNK_ROWS.min(total - from));
        let mut parts: Vec<(usize, usize)> = (0..total).step_by(CHUNK_ROWS).map(chunk).rev().collect();
        let (mut batches, mut origin) = (Vec::new(), Vec::new());
        while let Some((from, count)) = parts.pop() {
            match self.plan.evaluate(rows, from, count, store).await {
                Ok(evaluated) => {
                    batches.push(evaluated.rows);
                    origin.extend(evaluated.origin);
                }
                Err(Failure::Engine(error)) => return Err(error),
                Err(Failure::Row(error)) if count == 1 => {
                    faults.push((from, "expression".into(), error.strip_backtrace()));
                }
                Err(Failure::Row(_)) => {
                    let half = count / 2;
                    parts.push((from + half, count - half));
                    parts.push((from, half));
                }
            }
        }
        Ok(Evaluated { rows: concat_batches(&self.plan.schema, &batches)?, origin })
    }

    /// The event time must be there, and not too far ahead of the record's timestamp.
    fn check_event_times(&self, rows: Evaluated, source: &RecordBatch, faults: &mut Vec<Fault>) -> Result<Evaluated> {
        let name = self.plan.stream.event_time();
        let max_ahead_ms = self.plan.stream.config().max_ahead_ms;
        let times = self.event_times(&rows.rows)?;
        let stamped = timestamps(source);
        let mut good = vec![true; rows.origin.len()];
        for (at, row) in rows.origin.iter().enumerate() {
            let timestamp = stamped.filter(|stamped| stamped.is_valid(*row)).map(|stamped| stamped.value(*row));
            let (rule, reason) = match (times.is_valid(at).then(|| times.value(at)), timestamp) {
                (None, _) => ("required", format!("the event time '{name}' is null")),
                (Some(time), Some(timestamp)) if time > timestamp.saturating_add(max_ahead_ms) => (
                    "max_ahead",
                    format!(
                        "event time {time} is after the record's timestamp {timestamp} by more than {max_ahead_ms} ms"
                    ),
                ),
                _ => continue,
            };
            good[at] = false;
            faults.push((*row, rule.into(), reason));
        }
        rows.keep(good)
    }

    /// The declared checks. Gives the rows that stay, and which of them are warned about.
    #[allow(clippy::type_complexity, reason = "rows and their warnings")]
    fn check(&self, rows: Evaluated, faults: &mut Vec<Fault>) -> Result<(Evaluated, Vec<(usize, Arc<str>)>)> {
        let origin = rows.origin;
        let Judged { rows, refused, warned } = self.plan.conditions.judge(rows.rows)?;
        let mut good = vec![true; origin.len()];
        for (at, rule, reason) in refused {
            good[at] = false;
            faults.push((origin[at], rule, reason));
        }
        let mut flags = good.iter();
        let origin: Vec<usize> = origin.into_iter().filter(|_| *flags.next().unwrap_or(&true)).collect();
        let warned = warned.into_iter().map(|(at, rule)| (origin[at], rule)).collect();
        Ok((Evaluated { rows, origin }, warned))
    }

    fn deduplicate(&mut self, rows: Evaluated, store: &Store, step: &mut DerivedStep) -> Result<Evaluated> {
        let Some(deduplicate) = &self.plan.deduplicate else { return Ok(rows) };
        let times = self.event_times(&rows.rows)?.clone();
        let known = (&self.seen, self.progress.event_watermark);
        let verdict = deduplicate.judge(&rows.rows, &times, known, store)?;
        step.accepted = verdict.accepted;
        for (at, finding) in verdict.findings.iter().enumerate() {
            let (rule, reason) = match finding {
                Finding::New => continue,
                Finding::Duplicate => {
                    ("duplicate", "a row with the same key columns was accepted before, within the time of deduplicate")
                }
                Finding::TooOld => (
                    "too_old",
                    "what was accepted at its event time is no longer known, raise lateness to take such rows",
                ),
            };
            step.faults.push((rows.origin[at], rule.into(), reason.into()));
        }
        rows.keep(verdict.findings.iter().map(|finding| *finding == Finding::New).collect())
    }

    fn event_times<'a>(&self, rows: &'a RecordBatch) -> Result<&'a TimestampMillisecondArray> {
        let times = rows.column(self.plan.stream.event_time_index()).as_any().downcast_ref();
        times.ok_or_else(|| EngineError::bug("the event time of a derived stream is not a timestamp"))
    }

    fn count(
        &mut self,
        source: &RecordBatch,
        origin: &[usize],
        warned: &[(usize, Arc<str>)],
        step: &mut DerivedStep,
        now_ms: TimestampMs,
    ) {
        let days = days(source, now_ms);
        self.progress.applied += origin.len() as u64;
        step.tally.add_days(origin.iter().map(|row| days[*row]), QualityAction::Accept, &ACCEPTED.into());
        for (row, rule) in warned {
            step.tally.add(days[*row], QualityAction::Warn, rule, 1);
        }
        self.count_refused(&mut step.tally, &step.faults, &days);
    }

    /// Counts rows that are not joined: those that came too late, and those at fault. `days` are those of the rows.
    pub(super) fn leave_out(&mut self, step: &mut DerivedStep, late: &[usize], faults: &[Fault], days: &[i32]) {
        step.tally.add_days(late.iter().map(|row| days[*row]), QualityAction::Late, &LATE.into());
        self.count_refused(&mut step.tally, faults, days);
    }

    fn count_refused(&mut self, tally: &mut Tally, faults: &[Fault], days: &[i32]) {
        for (row, rule, _) in faults {
            tally.add(days[*row], QualityAction::Reject, rule, 1);
            self.progress.count_refused(rule, 1);
        }
    }

    /// What the step writes for this stream: rows, refused rows, accepted keys, counts and progress.
    pub(crate) fn changes(
        &mut self,
        step: &mut DerivedStep,
        rows: &RecordBatch,
        sources: &Sources,
        broker: &Broker,
    ) -> Result<Vec<Change>> {
        let now_ms = broker.clock().now_ms();
        let mut changes = Vec::new();
        if let Some((written, origin)) = &step.written {
            let mut outbox = Outbox::to(broker, self.plan.stream.topic())?;
            push_rows(&mut outbox, (written, self.plan.key), (rows, origin), now_ms)?;
            changes.extend(outbox.finish());
        }
        changes.extend(self.refused_changes(&step.faults, sources, broker)?);
        for (key, value) in &step.accepted {
            changes.push(Change::Put(Family::State, key.clone(), value.clone()));
        }
        if let Some(deduplicate) = &self.plan.deduplicate {
            changes.extend(deduplicate.forget(&mut self.seen, self.progress.event_watermark));
        }
        changes.extend(self.counters.changes(std::mem::take(&mut step.tally), broker.store())?);
        changes.push(self.progress_change());
        Ok(changes)
    }

    /// The source's topic is another one now. What was written stays: this stream is a log.
    pub(crate) fn begin_again(&mut self) {
        (self.progress.event_watermark, self.progress.closed_until) = (None, None);
    }

    /// What writes the progress.
    pub(crate) fn progress_change(&self) -> Change {
        let key = state::branch_progress_key(self.plan.stream.name(), self.plan.branch);
        Change::Put(Family::State, key, self.progress.encode())
    }

    /// The source's records that did not become rows, each as often as it was refused.
    pub(super) fn refused_changes(&self, faults: &[Fault], sources: &Sources, broker: &Broker) -> Result<Vec<Change>> {
        if faults.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows: Vec<usize> = faults.iter().map(|(row, ..)| *row).collect();
        rows.dedup();
        let mut records: Vec<Rejected> = Vec::new();
        let mut faults = faults.iter().peekable();
        sources.visit(&rows, |row, partition, record| {
            while let Some((_, rule, reason)) = faults.next_if(|(of, ..)| *of == row) {
                records.push(rejected(partition, record, rule.clone(), reason.clone()));
            }
            Ok(())
        })?;
        refused_changes(broker, self.plan.stream.name(), &records, broker.clock().now_ms())
    }

    /// After the commit: accepted rows are known.
    pub(crate) fn committed(&mut self, step: DerivedStep) {
        self.seen.committed(step.accepted);
        self.published.publish(&self.progress, step.written.is_some());
    }
}

impl Evaluated {
    fn keep(self, good: Vec<bool>) -> Result<Evaluated> {
        let (rows, origin) = keep((self.rows, self.origin), good)?;
        Ok(Evaluated { rows, origin })
    }
}
