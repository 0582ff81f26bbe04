//! What the engine tells about its views and streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::SchemaRef;
use broker::{Broker, TimestampMs};

use crate::Offsets;
use crate::check::LATE_SUFFIX;
use crate::follow::{Follower, lag};
use crate::shared::{RunningDerived, RunningTable, RunningView};
use crate::state::Progress;
use crate::stream::Stream;
use crate::takeover::behind;

/// How a view stands, as of its last commit.
#[derive(Debug, Clone)]
pub struct ViewStatus {
    /// The view.
    pub view: String,
    /// The stream it reads.
    pub stream: String,
    /// The next offset to be applied.
    pub positions: Offsets,
    /// Where the log ends now.
    pub high_watermarks: Offsets,
    /// Offsets between the two.
    pub lag_records: i64,
    /// Zero when nothing is left to apply, else the time since the last commit.
    pub lag_ms: i64,
    /// How far event time has come, epoch milliseconds.
    pub event_watermark: Option<TimestampMs>,
    /// Windows that end at or before this are closed, epoch milliseconds.
    pub closed_until: Option<TimestampMs>,
    /// Rows counted in the view.
    pub rows_applied: u64,
    /// Rows left out by WHERE.
    pub rows_filtered: u64,
    /// Rows whose window was closed; they are in `<view>.late`.
    pub late: u64,
    /// Rows that the view's expressions could not evaluate; they are in `<stream>.rejected` under the rule `view:<name>`.
    pub failed: u64,
    /// Offsets that were deleted from the log before the view read them.
    pub lost: u64,
    /// Groups held in memory.
    pub hot_groups: u64,
    /// Bytes of groups held in memory.
    pub hot_bytes: u64,
    /// CPU time of the view's pipeline (shared with other views of the stream) since the start, in milliseconds.
    pub engine_cpu_ms: u64,
    /// Offsets up to the log's end when the view began to be filled that are not applied yet; None once it is filled.
    pub fill_left: Option<i64>,
    /// How the filling goes, while it goes.
    pub fill: Option<FillStatus>,
    /// The version that is filled beside this one, and will take over.
    pub successor: Option<SuccessorStatus>,
    /// Whether it stands still by order.
    pub paused: bool,
    /// Why the view does not advance, when it does not and is not paused.
    pub error: Option<String>,
}

/// How a version of a view stands that is filled beside the one that is served.
#[derive(Debug, Clone)]
pub struct SuccessorStatus {
    /// Its text.
    pub sql: String,
    /// Offsets that it has to read before it takes over.
    pub left: i64,
    /// Rows counted in it.
    pub rows_applied: u64,
    /// How the filling goes.
    pub fill: FillStatus,
    /// Why it does not advance, when it does not.
    pub error: Option<String>,
}

/// How a view or a derived stream is being filled.
#[derive(Debug, Clone, Default)]
pub struct FillStatus {
    /// Where the log ended when it began: there it is filled.
    pub to: Offsets,
    /// Rows a second since it began.
    pub rows_per_s: u64,
    /// Why rows that have left the log cannot be read yet, if they cannot.
    pub waits_for: Option<String>,
}

/// How a stream stands: its refused records, and for a derived one how far it is.
#[derive(Debug, Clone)]
pub struct StreamStatus {
    /// The stream.
    pub stream: String,
    /// The topic it reads.
    pub topic: String,
    /// Refused records in `<stream>.rejected`.
    pub rejected: u64,
    /// The same per rule.
    pub rejected_by_rule: BTreeMap<String, u64>,
    /// How far event time has come, epoch milliseconds.
    pub event_watermark: Option<TimestampMs>,
    /// Offsets that were deleted from the log before they were read.
    pub lost: u64,
    /// How a derived stream is computed.
    pub derived: Option<DerivedStatus>,
}

/// How far a derived stream is in its sources.
#[derive(Debug, Clone, Default)]
pub struct DerivedStatus {
    /// Its text.
    pub sql: String,
    /// The streams it reads: several with UNION ALL, and where streams are joined.
    pub sources: Vec<String>,
    /// The tables it joins.
    pub tables: Vec<String>,
    /// The next offset to be applied of the sources' topics.
    pub positions: Offsets,
    /// Offsets from there to the end of the sources' topics.
    pub lag_records: i64,
    /// Zero when nothing is left to apply, else the time since the last commit.
    pub lag_ms: i64,
    /// Rows written.
    pub written: u64,
    /// Rows of the sources that gave none, by WHERE, JOIN or an empty list; where streams are joined, rows that met.
    pub filtered: u64,
    /// Where rows are that came too late to be joined; None where no streams are joined.
    pub late_topic: Option<String>,
    /// Such rows.
    pub late: u64,
    /// Offsets up to the ends of the topics when it began to be filled that are not applied yet; None once it is filled.
    pub fill_left: Option<i64>,
    /// How the filling goes, while it goes.
    pub fill: Option<FillStatus>,
    /// Why it does not advance, when it does not.
    pub error: Option<String>,
}

/// How a table stands.
#[derive(Debug, Clone)]
pub struct TableStatus {
    /// The table.
    pub table: String,
    /// The topic it follows; none when its rows are written out in the configuration.
    pub topic: Option<String>,
    /// The column that rows are found by.
    pub key: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows now.
    pub rows: u64,
    /// Refused records in `<table>.rejected`, per rule.
    pub rejected_by_rule: BTreeMap<String, u64>,
    /// The next offset to be applied.
    pub positions: Offsets,
    /// Offsets from there to the end of the topic.
    pub lag_records: i64,
    /// Zero when nothing is left to apply, else the time since the last commit.
    pub lag_ms: i64,
    /// Why it does not advance, when it does not.
    pub error: Option<String>,
}

pub(crate) fn view_status(
    broker: &Arc<Broker>,
    view: &RunningView,
    successor: Option<&Arc<RunningView>>,
) -> ViewStatus {
    let follower = &view.follower;
    let stands = stands(broker, follower);
    let Stands { progress, positions, lag_records, lag_ms } = stands;
    let fill_to = Offsets::from([(follower.topic.clone(), view.fill_to.clone())]);
    let fill_left = lag_in_all(&positions, &fill_to);
    let fill = (fill_left > 0).then(|| fill_status(broker, (follower, view.began_ms), fill_to));
    let error = follower.pipeline.failure.lock().clone();
    ViewStatus {
        view: view.plan.name.to_string(),
        stream: view.plan.stream.name().to_string(),
        lag_records,
        lag_ms,
        positions,
        high_watermarks: follower.high_watermarks(broker),
        event_watermark: progress.event_watermark,
        closed_until: progress.closed_until,
        rows_applied: progress.applied,
        rows_filtered: progress.filtered,
        late: progress.late,
        failed: progress.failed,
        lost: progress.lost,
        hot_groups: follower.published.hot_groups.load(Ordering::Relaxed),
        hot_bytes: follower.published.hot_bytes.load(Ordering::Relaxed),
        engine_cpu_ms: follower.pipeline.busy_ns.load(Ordering::Relaxed) / 1_000_000,
        fill_left: (fill_left > 0).then_some(fill_left),
        fill,
        successor: successor.map(|successor| successor_status(broker, view, successor)),
        paused: view.paused.is_some(),
        error: error.filter(|_| view.paused.is_none()),
    }
}

pub(crate) fn successor_status(broker: &Arc<Broker>, view: &RunningView, successor: &RunningView) -> SuccessorStatus {
    let follower = &successor.follower;
    let to = Offsets::from([(follower.topic.clone(), successor.fill_to.clone())]);
    SuccessorStatus {
        sql: successor.plan.sql.clone(),
        left: behind(broker, view, successor),
        rows_applied: follower.published.progress.lock().applied,
        fill: fill_status(broker, (follower, successor.began_ms), to),
        error: follower.pipeline.failure.lock().clone(),
    }
}

fn fill_status(broker: &Broker, (follower, began_ms): (&Follower, i64), to: Offsets) -> FillStatus {
    let pipeline = &follower.pipeline;
    let took_ms = broker.clock().steady_ms().saturating_sub(began_ms).max(1).unsigned_abs();
    let rows_per_s = pipeline.records.load(Ordering::Relaxed).saturating_mul(1_000) / took_ms;
    FillStatus { to, rows_per_s, waits_for: pipeline.waits_for.lock().clone() }
}

/// How far a follower is.
struct Stands {
    progress: Progress,
    positions: Offsets,
    lag_records: i64,
    lag_ms: i64,
}

fn stands(broker: &Broker, follower: &Follower) -> Stands {
    let progress = follower.published.progress.lock().clone();
    let positions = follower.offsets_at(broker, &progress);
    let lag_records = lag_in_all(&positions, &follower.high_watermarks(broker));
    let since = broker.clock().now_ms().saturating_sub(progress.updated_at).max(0);
    let lag_ms = if lag_records == 0 { 0 } else { since };
    Stands { progress, positions, lag_records, lag_ms }
}

/// The lag in all topics together.
fn lag_in_all(positions: &Offsets, high_watermarks: &Offsets) -> i64 {
    let nothing = BTreeMap::new();
    high_watermarks.iter().map(|(topic, ends)| lag(positions.get(topic).unwrap_or(&nothing), ends)).sum()
}

pub(crate) fn stream_status(
    broker: &Broker,
    stream: &Stream,
    reading: &Follower,
    derived: &[&RunningDerived],
) -> StreamStatus {
    let progress = reading.published.progress.lock().clone();
    let mut rejected_by_rule = progress.rejected;
    let derived = derived_status(broker, derived, &mut rejected_by_rule);
    StreamStatus {
        stream: stream.name().to_string(),
        topic: stream.topic().to_string(),
        rejected: rejected_by_rule.values().sum(),
        rejected_by_rule,
        event_watermark: progress.event_watermark,
        lost: progress.lost,
        derived,
    }
}

/// What the SELECTs of a derived stream are together; None where there is none.
fn derived_status(
    broker: &Broker,
    derived: &[&RunningDerived],
    rejected_by_rule: &mut BTreeMap<String, u64>,
) -> Option<DerivedStatus> {
    let mut whole = DerivedStatus { sql: derived.first()?.plan.sql.clone(), ..DerivedStatus::default() };
    for running in derived {
        let mut fill_left = 0;
        for follower in running.followers() {
            let stands = stands(broker, follower);
            let to = running.fill_to.get(&follower.topic).cloned().unwrap_or_default();
            fill_left += lag_in_all(&stands.positions, &Offsets::from([(follower.topic.clone(), to)]));
            whole.add(stands, rejected_by_rule);
        }
        if fill_left > 0 {
            let of = (&running.follower, running.began_ms);
            whole.add_fill(fill_left, fill_status(broker, of, running.fill_to.clone()));
        }
        running.plan.sources().for_each(|source| add_once(&mut whole.sources, source.name()));
        running.plan.tables.iter().for_each(|table| add_once(&mut whole.tables, table.name()));
        if running.plan.join.is_some() {
            whole.late_topic = Some(format!("{}{LATE_SUFFIX}", running.plan.stream.name()));
        }
        whole.error = whole.error.take().or_else(|| running.follower.pipeline.failure.lock().clone());
    }
    Some(whole)
}

impl DerivedStatus {
    fn add(&mut self, stands: Stands, rejected_by_rule: &mut BTreeMap<String, u64>) {
        let Stands { progress, positions, lag_records, lag_ms } = stands;
        for (rule, records) in progress.rejected {
            *rejected_by_rule.entry(rule).or_default() += records;
        }
        // Two that read one topic: it is applied as far as both are.
        for (topic, next) in positions {
            let known = self.positions.entry(topic).or_default();
            for (partition, offset) in next {
                known.entry(partition).and_modify(|known| *known = offset.min(*known)).or_insert(offset);
            }
        }
        self.lag_records += lag_records;
        self.lag_ms = self.lag_ms.max(lag_ms);
        self.written += progress.applied;
        self.filtered += progress.filtered;
        self.late += progress.late;
    }

    /// Adds how one of its SELECTs is filled.
    fn add_fill(&mut self, left: i64, of_one: FillStatus) {
        *self.fill_left.get_or_insert_default() += left;
        let fill = self.fill.get_or_insert_default();
        for (topic, ends) in of_one.to {
            let known = fill.to.entry(topic).or_default();
            for (partition, end) in ends {
                known.entry(partition).and_modify(|known| *known = end.max(*known)).or_insert(end);
            }
        }
        fill.rows_per_s += of_one.rows_per_s;
        fill.waits_for = fill.waits_for.take().or(of_one.waits_for);
    }
}

fn add_once(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_string());
    }
}

pub(crate) fn table_status(broker: &Broker, running: &RunningTable) -> TableStatus {
    let table = &running.table;
    let stands = running.follower.as_ref().map(|follower| stands(broker, follower));
    let (lag_records, lag_ms) = stands.as_ref().map_or((0, 0), |stands| (stands.lag_records, stands.lag_ms));
    TableStatus {
        table: table.name().to_string(),
        topic: table.topic().map(ToString::to_string),
        key: table.config().key.clone(),
        schema: table.schema().clone(),
        rows: stands.as_ref().map_or(table.inline_rows() as u64, |stands| stands.progress.applied),
        rejected_by_rule: stands.as_ref().map(|stands| stands.progress.rejected.clone()).unwrap_or_default(),
        positions: stands.map(|stands| stands.positions).unwrap_or_default(),
        lag_records,
        lag_ms,
        error: running.follower.as_ref().and_then(|follower| follower.pipeline.failure.lock().clone()),
    }
}
