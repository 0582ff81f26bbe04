//! The loop of one stream: read → decode → windows → aggregate → one commit.
//!
//! All views of a stream that stand at the same positions share one pipeline, and so one reading and one decoding. A
//! new or rebuilt view, or a new derived stream, begins at the log's start, or before it with what has left the log (`fill`), in a pipeline of its own
//! and joins the others at the next start of the engine. A member that is dropped or paused leaves between two steps; the pipeline ends with its last one. Exactly one pipeline per stream records the stream's refused records.
//!
//! A pipeline has a thread to itself, so that its CPU time can be told and nothing else waits for its work; far behind its log, it has the
//! step after the one under way read and decoded beside it (`next_step`). A step ends
//! in one commit of the lane: changed groups, progress, counters, rows for derived streams, `<view>`, `<view>.late` and
//! `<stream>.rejected`. What is held in memory follows only after the commit succeeded; after a failed one the pipeline stops and says so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;
use broker::{Ack, Broker, Change, Family, LogId, PartitionIndex, TimestampMs};

use crate::check::LATE_SUFFIX;
use crate::decode::{Sources, rejected};
use crate::derive::{DerivedMember, DerivedStep};
use crate::emit::{LateOf, Outbox, push_groups, push_late, refused_changes, state_headers, unfinished};
use crate::error::Result;
use crate::fill::Fill;
use crate::follow::Follower;
use crate::member::{ViewMember, ViewStep};
use crate::next_step::NextStep;
use crate::quality::{self, ACCEPTED, Counters, FAILED, QualityAction, Tally};
use crate::shared::{PipelineShared, Published, SharedHold, Who};
use crate::source::Source;
use crate::state::{self, Position, Progress};
use crate::stream::{Decoded, Rejected, Stream};
use crate::succession::Role;
use crate::watermark::event_watermark;
use crate::window::closed_until;

/// Longest wait at the start for the tables that derived streams join.
pub(crate) const TABLES_WAIT_MS: u64 = 60_000;
/// Longest wait before idle partitions and new topics are looked at again.
const TICK_MS_MAX: u64 = 1_000;

/// A stream's refused records, in the pipeline that records them.
pub(crate) struct StreamMember {
    pub(crate) progress: Progress,
    pub(crate) published: Arc<Published>,
    pub(crate) counters: Counters,
}

/// A view in the pipeline, and what others see of it.
pub(crate) struct PipelineView {
    pub(crate) member: ViewMember,
    pub(crate) published: Arc<Published>,
    pub(crate) counters: Counters,
    pub(crate) role: Role,
}

/// One stream's loop. Only its own thread changes it.
pub(crate) struct Pipeline {
    pub(crate) number: usize,
    pub(crate) broker: Arc<Broker>,
    pub(crate) stream: Arc<Stream>,
    pub(crate) source: Source,
    pub(crate) stream_member: Option<StreamMember>,
    pub(crate) views: Vec<PipelineView>,
    /// Streams that are computed from this one.
    pub(crate) derived: Vec<DerivedMember>,
    /// The tables that they join: at the start they are read first.
    pub(crate) tables: Vec<Follower>,
    /// Reads what has left the log; not where the stream's refused records are recorded.
    pub(crate) fill: Option<Fill>,
    /// The step after the one under way.
    pub(crate) next: NextStep,
    pub(crate) event_watermark: Option<TimestampMs>,
    pub(crate) shared: Arc<PipelineShared>,
    pub(crate) hold: Arc<SharedHold>,
}

/// What a step has worked out, before its commit.
struct Step {
    positions: BTreeMap<PartitionIndex, Position>,
    views: Vec<ViewStep>,
    derived: Vec<DerivedStep>,
    records: u64,
}

impl Step {
    /// The log that a partition of the step is.
    fn log_of(&self, partition: PartitionIndex) -> Option<LogId> {
        self.positions.get(&partition).map(|position| position.log)
    }
}

/// What a step has read: rows, refusals, and where each row was written.
struct StepRows {
    decoded: Decoded,
    sources: Sources,
    /// The day that each row counts for.
    days: Vec<i32>,
    now_ms: TimestampMs,
}

impl Pipeline {
    /// Runs until it is stopped or fails.
    pub(crate) async fn run(mut self) {
        let mut cpu = ThreadCpu::new();
        let failed = self.run_steps(&mut cpu).await.err();
        if let Some(error) = &failed {
            tracing::error!(stream = self.stream.name(), %error, "a pipeline has stopped, fix the cause and start again");
        }
        self.next.give_up().await;
        if let Some(fill) = &mut self.fill {
            fill.give_up().await;
        }
        self.tell_busy(&mut cpu);
        self.shared.show_end(failed.map(|error| error.message), &self.published());
    }

    /// What others see of the members.
    pub(crate) fn published(&self) -> Vec<Arc<Published>> {
        let views = self.views.iter().map(|view| view.published.clone());
        let derived = self.derived.iter().map(|derived| derived.published.clone());
        views.chain(derived).chain(self.stream_member.iter().map(|member| member.published.clone())).collect()
    }

    /// CPU time of its own thread, and of those beside it.
    fn tell_busy(&self, cpu: &mut ThreadCpu) {
        let beside_ns = self.next.busy_ns + self.fill.as_ref().map_or(0, |fill| fill.busy_ns);
        self.shared.busy_ns.store(cpu.busy_ns() + beside_ns, Ordering::Relaxed);
    }

    async fn run_steps(&mut self, cpu: &mut ThreadCpu) -> Result<()> {
        self.source.follow_topic();
        self.hold_positions(&self.source.positions(&BTreeMap::new()));
        self.wait_for_tables().await;
        // A crash may have come between a step and this.
        self.tell_closed().await?;
        while !self.shared.is_stopping() {
            if !self.let_go() {
                return Ok(());
            }
            self.source.follow_topic();
            if self.source.is_replaced() {
                self.begin_again().await?;
            }
            let has_more_to_tell = self.succeed().await?;
            if self.fill().await? {
                self.tell_busy(cpu);
                continue;
            }
            if !self.next.is_under_way() {
                self.source.read_ahead().await?;
            }
            if self.next.is_under_way() || self.source.has_work() {
                self.step().await?;
                self.tell_busy(cpu);
                continue;
            }
            self.close_idle().await?;
            self.tell_busy(cpu);
            if has_more_to_tell {
                continue;
            }
            let tick = tick(self.stream.config().idle_timeout_ms);
            let _ = tokio::time::timeout(tick, self.source.waiter().woken()).await;
        }
        Ok(())
    }

    /// Lets members go that are dropped or paused: what they have committed is all they did. Whether any is left.
    fn let_go(&mut self) -> bool {
        for leave in self.shared.take_leaves() {
            match &leave.who {
                Who::Reading => self.stream_member = None,
                Who::Derived(name) => self.derived.retain(|member| member.plan.stream.name() != name),
                Who::View(name) => self.views.retain(|view| *view.member.plan.name != **name),
            }
            if !self.has_members() {
                self.hold.release(self.number);
            }
        }
        self.has_members()
    }

    fn has_members(&self) -> bool {
        self.stream_member.is_some() || !self.views.is_empty() || !self.derived.is_empty()
    }

    /// What is in the tables' topics at the start is in the tables before the first row is joined to them.
    async fn wait_for_tables(&mut self) {
        for table in &self.tables.clone() {
            if self.shared.is_stopping() || !self.let_go() {
                return;
            }
            if let Err(error) = table.wait(&self.broker, TABLES_WAIT_MS).await {
                let stream = self.stream.name();
                tracing::warn!(stream, %error, "derived streams go on before a table they join was read");
            }
        }
    }

    /// A step over these rows, which end at these positions.
    pub(crate) async fn take(
        &mut self,
        (decoded, sources): (Decoded, Sources),
        mut positions: BTreeMap<PartitionIndex, Position>,
    ) -> Result<()> {
        let (stream, broker) = (self.stream.clone(), self.broker.clone());
        let now_ms = broker.clock().now_ms();
        advance_event_times(&stream, &decoded.rows, &mut positions, now_ms);
        let mut views: Vec<ViewStep> = Vec::new();
        for view in &mut self.views {
            views.push(view.member.apply(&decoded.rows, broker.store()).await?);
        }
        let mut derived: Vec<DerivedStep> = Vec::new();
        for member in &mut self.derived {
            derived.push(member.apply(&decoded.rows, &broker).await?);
        }
        let refused: u64 = decoded.rejected.iter().map(|rejected| rejected.records.unsigned_abs()).sum();
        let mut step = Step { positions, views, derived, records: decoded.rows.num_rows() as u64 + refused };
        let days = quality::days(&decoded.rows, now_ms);
        let read = StepRows { decoded, sources, days, now_ms };
        self.advance(&step.positions, now_ms);
        let mut changes: Vec<Change> = Vec::new();
        self.emit_views(&step, &read, &mut changes)?;
        self.emit_rejected(&step, &read, &mut changes)?;
        for (view, view_step) in self.views.iter_mut().zip(&step.views) {
            changes.extend(view.member.changes(view_step, &broker)?);
        }
        for (member, derived_step) in self.derived.iter_mut().zip(&mut step.derived) {
            changes.extend(member.changes(derived_step, &read.decoded.rows, &read.sources, &broker)?);
        }
        changes.extend(self.count(&step, &read)?);
        self.commit(changes, step).await
    }

    /// Data quality: what the stream accepted, refused and warned about, and what came too late for a view.
    fn count(&mut self, step: &Step, read: &StepRows) -> Result<Vec<Change>> {
        let store = self.broker.store();
        let mut changes = Vec::new();
        for (view, view_step) in self.views.iter_mut().zip(&step.views) {
            let mut tally = Tally::default();
            tally.add_view(&read.days, &view_step.late, &view_step.failed);
            let unfinished = view_step.unfinished.len() as u64;
            tally.add(quality::day_of(None, read.now_ms), QualityAction::Failed, &FAILED.into(), unfinished);
            changes.extend(view.counters.changes(tally, store)?);
        }
        if let Some(member) = &mut self.stream_member {
            let mut tally = Tally::default();
            // What a derived stream accepted was counted when it was written.
            if self.stream.config().sql.is_none() {
                tally.add_days(read.days.iter().copied(), QualityAction::Accept, &ACCEPTED.into());
            }
            for (row, rule) in &read.decoded.warned {
                tally.add(read.days[*row], QualityAction::Warn, rule, 1);
            }
            tally.add_rejected(&read.decoded.rejected, read.now_ms);
            changes.extend(member.counters.changes(tally, store)?);
        }
        Ok(changes)
    }

    /// Moves positions, watermark and closing of all members; what was late in this step was judged before.
    fn advance(&mut self, changed: &BTreeMap<PartitionIndex, Position>, now_ms: TimestampMs) {
        let config = self.stream.config();
        let times = self.source.times(changed);
        self.event_watermark = event_watermark(self.event_watermark, &times, now_ms, config.idle_timeout_ms);
        let positions = self.source.positions(changed);
        let lost = self.source.take_lost();
        let derived = self.derived.iter_mut().map(|derived| &mut derived.progress);
        let members = self.views.iter_mut().map(|view| &mut view.member.progress).chain(derived);
        for progress in members.chain(self.stream_member.as_mut().map(|member| &mut member.progress)) {
            progress.positions.clone_from(&positions);
            progress.event_watermark = self.event_watermark;
            progress.closed_until = closed_until(progress.closed_until, self.event_watermark, config.lateness_ms);
            progress.lost += lost;
            progress.updated_at = now_ms;
        }
    }

    fn emit_views(&self, step: &Step, read: &StepRows, changes: &mut Vec<Change>) -> Result<()> {
        let now_ms = read.now_ms;
        for (view, view_step) in self.views.iter().zip(&step.views) {
            let plan = &view.member.plan;
            if let Some(shown) = view_step.shown.as_ref().filter(|_| !view.member.is_silent) {
                let mut outbox = Outbox::to(&self.broker, &plan.name)?;
                view.member.push_gone(&mut outbox, &view_step.absorbed, &self.broker)?;
                push_groups(&mut outbox, plan, shown, now_ms)?;
                changes.extend(outbox.finish());
            }
            if !view_step.late.is_empty() {
                let mut outbox = Outbox::to(&self.broker, &format!("{}{LATE_SUFFIX}", plan.name))?;
                let rows: Vec<usize> = view_step.late.iter().map(|late| late.row).collect();
                let mut late = view_step.late.iter();
                let view_id = view.member.view_id;
                read.sources.visit(&rows, |_, partition, record| match late.next() {
                    Some(late) => {
                        let of = LateOf { plan, view_id, log: step.log_of(partition), partition };
                        push_late(&mut outbox, &of, record, late, now_ms)
                    }
                    None => Ok(()),
                })?;
                changes.extend(outbox.finish());
            }
        }
        Ok(())
    }

    /// Records the stream refused, and rows that a view could not evaluate.
    fn emit_rejected(&mut self, step: &Step, read: &StepRows, changes: &mut Vec<Change>) -> Result<()> {
        let refused = &read.decoded.rejected;
        let mut records: Vec<Rejected> = Vec::new();
        for (view, view_step) in self.views.iter().zip(&step.views) {
            let rows: Vec<usize> = view_step.failed.iter().map(|(row, _)| *row).collect();
            let mut reasons = view_step.failed.iter().map(|(_, reason)| reason.clone());
            read.sources.visit(&rows, |_, partition, record| {
                let rule = format!("view:{}", view.member.plan.name).into();
                let mut refused = rejected(partition, record, rule, reasons.next().unwrap_or_default());
                refused.headers.extend(state_headers(view.member.view_id, step.log_of(partition)));
                records.push(refused);
                Ok(())
            })?;
            if let (Some(shown), false) = (&view_step.shown, view_step.unfinished.is_empty()) {
                records.extend(unfinished(&view.member.plan, shown, &view_step.unfinished, read.now_ms)?);
            }
        }
        if let Some(member) = &mut self.stream_member {
            for rejected in refused {
                member.progress.count_refused(&rejected.rule, rejected.records.unsigned_abs());
            }
            let key = state::stream_progress_key(self.stream.name());
            changes.push(Change::Put(Family::State, key, member.progress.encode()));
            records.extend_from_slice(refused);
        }
        changes.extend(refused_changes(&self.broker, self.stream.name(), &records, read.now_ms)?);
        Ok(())
    }

    /// The one commit of a step, then what it makes true in memory.
    async fn commit(&mut self, changes: Vec<Change>, step: Step) -> Result<()> {
        let records = usize::try_from(step.records).unwrap_or(usize::MAX);
        self.next.has_written(records, changes.iter().map(Change::bytes).sum());
        self.broker.lane().commit(changes, self.shared.ack()).await?;
        self.source.committed(&step.positions);
        self.hold_positions(&step.positions);
        self.shared.records.fetch_add(step.records, Ordering::Relaxed);
        self.tell_closed().await?;
        for (view, view_step) in self.views.iter_mut().zip(step.views) {
            let rows_changed = !view_step.groups.is_empty();
            view.member.committed(view_step);
            let (groups, bytes) = view.member.hot_size();
            view.published.hot_groups.store(groups as u64, Ordering::Relaxed);
            view.published.hot_bytes.store(bytes as u64, Ordering::Relaxed);
            view.published.publish(&view.member.progress, rows_changed);
        }
        for (member, derived_step) in self.derived.iter_mut().zip(step.derived) {
            member.committed(derived_step);
        }
        if let Some(member) = &self.stream_member {
            member.published.publish(&member.progress, false);
        }
        Ok(())
    }

    /// Windows that are closed are told to the topics of views whose windows overlap, before anybody hears of the step.
    pub(crate) async fn tell_closed(&mut self) -> Result<()> {
        for view in &mut self.views {
            while let Some(changes) = view.member.tell_closed(&self.broker)? {
                self.broker.lane().commit(changes, self.shared.ack()).await?;
            }
        }
        Ok(())
    }

    /// On a quiet stream: windows that the idle timeout lets close are closed, as a commit of its own.
    async fn close_idle(&mut self) -> Result<()> {
        let now_ms = self.broker.clock().now_ms();
        let times = self.source.times(&BTreeMap::new());
        let moved = event_watermark(self.event_watermark, &times, now_ms, self.stream.config().idle_timeout_ms);
        if moved == self.event_watermark {
            return Ok(());
        }
        self.advance(&BTreeMap::new(), now_ms);
        let changes = self.progress_changes()?;
        let views = self.views.iter().map(|_| ViewStep::default()).collect();
        let derived = self.derived.iter().map(|_| DerivedStep::default()).collect();
        self.commit(changes, Step { positions: BTreeMap::new(), views, derived, records: 0 }).await
    }

    /// The topic was deleted and made again: nothing of the former one stays in the views, nor newest in their topics.
    /// Until the last commit the positions are those of the former, so that a crash only begins this once more.
    async fn begin_again(&mut self) -> Result<()> {
        tracing::info!(
            stream = self.stream.name(),
            "the topic is another one now, its views are computed from it anew"
        );
        for view in &mut self.views {
            while let Some(changes) = view.member.begin_again(&self.broker)? {
                self.broker.lane().commit(changes, Ack::Written).await?;
            }
            let forget = quality::forget(view.writer(), &view.member.plan.name);
            self.broker.lane().commit(vec![forget], Ack::Written).await?;
            view.counters = Counters::new(view.writer(), &view.member.plan.name);
        }
        self.derived.iter_mut().for_each(DerivedMember::begin_again);
        if let Some(member) = &mut self.stream_member {
            (member.progress.event_watermark, member.progress.closed_until) = (None, None);
        }
        self.event_watermark = None;
        self.advance(&BTreeMap::new(), self.broker.clock().now_ms());
        let changes = self.progress_changes()?;
        self.broker.lane().commit(changes, self.shared.ack()).await?;
        self.source.begun_again();
        self.hold_positions(&self.source.positions(&BTreeMap::new()));
        self.views.iter().for_each(|view| view.published.publish(&view.member.progress, true));
        self.derived.iter().for_each(|derived| derived.published.publish(&derived.progress, false));
        self.stream_member.iter().for_each(|member| member.published.publish(&member.progress, false));
        Ok(())
    }

    /// What writes the progress of all members.
    fn progress_changes(&mut self) -> Result<Vec<Change>> {
        let mut changes: Vec<Change> = Vec::new();
        let nothing = ViewStep::default();
        for view in &mut self.views {
            changes.extend(view.member.changes(&nothing, &self.broker)?);
        }
        if let Some(member) = &self.stream_member {
            let key = state::stream_progress_key(self.stream.name());
            changes.push(Change::Put(Family::State, key, member.progress.encode()));
        }
        changes.extend(self.derived.iter().map(DerivedMember::progress_change));
        Ok(changes)
    }

    fn hold_positions(&self, positions: &BTreeMap<PartitionIndex, Position>) {
        self.hold.set_all(self.number, positions);
    }
}

/// How long to wait before idle partitions and new topics are looked at again.
pub(crate) fn tick(idle_timeout_ms: i64) -> Duration {
    let idle_ms = u64::try_from(idle_timeout_ms / 4).unwrap_or(0);
    Duration::from_millis(if idle_ms == 0 { TICK_MS_MAX } else { idle_ms.clamp(10, TICK_MS_MAX) })
}

/// The largest event time accepted of each partition, of those that can be by now: a mistyped year must not close all windows
/// up to it. `max_ahead` has compared each with its record's timestamp, which may be missing, or mistyped as well.
pub(crate) fn advance_event_times(
    stream: &Stream,
    rows: &RecordBatch,
    positions: &mut BTreeMap<PartitionIndex, Position>,
    now_ms: TimestampMs,
) {
    let latest_ms = now_ms.saturating_add(stream.config().max_ahead_ms);
    let (partitions, _) = Stream::places(rows);
    for (partition, event_time) in partitions.iter().zip(stream.event_times(rows).values()) {
        if let Some(position) = positions.get_mut(partition).filter(|_| *event_time <= latest_ms) {
            position.max_event_ms = position.max_event_ms.max(Some(*event_time));
        }
    }
}

/// CPU time of the calling thread, from the kernel's scheduler statistics.
pub(crate) struct ThreadCpu {
    file: Option<File>,
}

impl ThreadCpu {
    pub(crate) fn new() -> ThreadCpu {
        ThreadCpu { file: File::open("/proc/thread-self/schedstat").ok() }
    }

    /// Nanoseconds on a CPU since the thread began; 0 where the kernel does not say.
    pub(crate) fn busy_ns(&mut self) -> u64 {
        let mut text = String::new();
        let Some(file) = &mut self.file else { return 0 };
        if file.rewind().is_err() || file.read_to_string(&mut text).is_err() {
            return 0;
        }
        text.split_ascii_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
    }
}
