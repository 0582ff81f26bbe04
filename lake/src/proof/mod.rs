//! `verify view`: what a view serves beside what a plain query over its stream's table gives, as of the same offsets.
//!
//! The view is read first; its rows and offsets are of one commit. Then its query runs in SQL, over the rows below those offsets
//! but those that the view has on record as late, or as not to be evaluated (`statement`, `starts`), and the two are laid side by side,
//! group by group (`compare`). Where records are gone from log and lake, windows that may have held them are not judged.

mod compare;
mod report;
mod starts;
mod statement;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMillisecondType};
use broker::PartitionIndex;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::prelude::DataFrame;
use engine::{Answer, DeclaredView, Engine, NotCounted, ReadRequest};
use futures::StreamExt;

use crate::config::TableConfig;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::hybrid::kept_from;
use crate::past::is_below;
use crate::prepare::Prepared;
use crate::query::Queries;

use compare::{Comparison, Judged};
use statement::{NOT_COUNTED_COLUMNS, Statement, earliest};

pub use report::{Difference, DifferenceKind, ViewReport};
pub use starts::moment;
pub use statement::{NOT_COUNTED, Scope, quoted, statement};

/// Which windows of a view are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewScope {
    /// Those that start at or after this time, in ms since 1970.
    pub from: Option<i64>,
    /// Those that start before this time.
    pub to: Option<i64>,
    /// How long to wait until the view has applied what was in the log before, in ms.
    pub wait_ms: u64,
}

/// A verification under way.
struct Proof<'a> {
    queries: &'a Queries,
    view: &'a DeclaredView,
    scope: Scope<'a>,
    not_counted: RecordBatch,
}

/// Compares a view with its recomputation.
///
/// # Errors
/// `NotFound` for a view that is not there, `NotFresh`, `TimeLimit`, `MemoryLimit`, `Destination`. A view that cannot be
/// recomputed is no error: the report says why.
pub async fn verify(
    queries: &Arc<Queries>,
    engine: &Arc<Engine>,
    (view, scope): (&str, ViewScope),
    time_max: Duration,
) -> Result<ViewReport> {
    let (queries, engine, view) = (queries.clone(), engine.clone(), view.to_owned());
    let this = queries.clone();
    let run = async move {
        match tokio::time::timeout(time_max, verify_now(&queries, &engine, &view, scope)).await {
            Ok(done) => done,
            Err(_) => {
                let message = format!(
                    "verifying {view} took longer than {} s: narrow it by from and to, or raise lake.transform_time_max",
                    time_max.as_secs()
                );
                Err(LakeError::new(LakeErrorKind::TimeLimit, message))
            }
        }
    };
    this.spawn(run)?.await.map_err(|e| LakeError::bug(format!("the verification ended early: {e}")))?
}

async fn verify_now(queries: &Arc<Queries>, engine: &Arc<Engine>, name: &str, asked: ViewScope) -> Result<ViewReport> {
    let ViewScope { from, to, wait_ms } = asked;
    let (view, answer) = loop {
        let view = engine.declared_view(name)?;
        let answer = engine.read(name, ReadRequest { from, to, wait_ms, ..ReadRequest::default() }).await?;
        // Else another version took over between the two.
        if engine.declared_view(name)?.view_id == view.view_id {
            break (view, answer);
        }
    };
    let (rows, is_whole) = engine.not_counted(&view).await?;
    let ends = answer.offsets.get(view.stream.topic()).cloned().unwrap_or_default();
    let rows: Vec<NotCounted> = rows.into_iter().filter(|row| is_below(&ends, row)).collect();
    let has_exceptions = !rows.is_empty();
    let mut report = ViewReport { view: name.to_owned(), offsets: answer.offsets.clone(), ..ViewReport::default() };
    report.not_counted = rows.len() as u64;
    if !is_whole {
        report.notes.push(format!(
            "the oldest records of {name}.late or {}.rejected are gone: rows that they told of are counted here",
            view.stream.name()
        ));
    }
    let lost = engine.status().iter().find(|status| status.view == name).map_or(0, |status| status.lost);
    if lost > 0 {
        report.notes.push(format!(
            "{lost} offsets were deleted before the view read them: what files have of them is counted here"
        ));
    }
    if answer.stale {
        report.notes.push("the view does not advance: it is compared as of where it stands".into());
    }
    let scope = Scope { ends: &ends, from, to, has_exceptions };
    let made = match statement(&view, &scope) {
        Ok(made) => made,
        Err(why) => return Ok(ViewReport { refused: Some(why), ..report }),
    };
    let proof = Proof { queries, view: &view, scope, not_counted: not_counted(&rows)? };
    match proof.run(&answer, made, &mut report.notes).await {
        Ok(found) => Ok(ViewReport {
            view: report.view,
            offsets: report.offsets,
            not_counted: report.not_counted,
            notes: report.notes,
            ..found
        }),
        // a statement that SQL refuses is what the view cannot be recomputed by
        Err(error) if error.kind == LakeErrorKind::Refused => Ok(ViewReport { refused: Some(error.message), ..report }),
        Err(error) => Err(error),
    }
}

impl Proof<'_> {
    async fn run(&self, answer: &Answer, made: Statement, notes: &mut Vec<String>) -> Result<ViewReport> {
        let judged = Judged { expired_until: self.expired_until(answer), from: self.judged_from(notes).await? };
        let is_windowed = self.view.windows.is_some();
        let keys = (self.view.keys.len(), is_windowed);
        let prepared = self.prepare(&made.sql).await?;
        let explain = |e| self.queries.explain(&e);
        let memory = MemoryConsumer::new("the view's rows").register(&prepared.state.runtime_env().memory_pool);
        let bytes: usize = answer.rows.iter().map(RecordBatch::get_array_memory_size).sum();
        // the rows once more in one piece, and their groups
        memory.try_grow(2 * bytes).map_err(explain)?;
        let mut comparison = Comparison::new((&answer.schema, &answer.rows), keys, made.agreements, judged)?;
        let frame = DataFrame::new(prepared.state.clone(), prepared.plan.clone());
        let mut rows = frame.execute_stream().await.map_err(explain)?;
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(explain)?;
            count += batch.num_rows() as u64;
            comparison.add(&batch)?;
        }
        prepared.running.end(Ok(count));
        Ok(comparison.finish())
    }

    async fn prepare(&self, sql: &str) -> Result<Prepared> {
        let table = MemTable::try_new(self.not_counted.schema(), vec![vec![self.not_counted.clone()]]);
        let table = table.map_err(|e| self.queries.explain(&e))?;
        self.queries.prepare_proof(sql, self.view.stream.name(), (NOT_COUNTED, Arc::new(table))).await
    }

    /// Up to which end windows may be gone from the view.
    fn expired_until(&self, answer: &Answer) -> Option<i64> {
        Some(answer.event_watermark?.saturating_sub(self.view.retention_ms?))
    }

    /// From which start on windows cannot have held records that are gone from log and lake; None when none are gone.
    async fn judged_from(&self, notes: &mut Vec<String>) -> Result<Option<i64>> {
        let source = self.queries.source();
        let topic = self.view.stream.topic();
        let tables = source.tables.now();
        let table = tables.iter().find(|table| table.name == self.view.stream.name());
        let settles = table.and_then(|table| table.settles.as_ref());
        let mut from = settles.and_then(|settles| self.expired_slices(settles, notes));
        let mut cut: Vec<PartitionIndex> = Vec::new();
        let partitions = source.broker.catalog().topic(topic).map(|topic| topic.partitions());
        for partition in partitions.iter().flat_map(|all| all.iter()) {
            let settled = settles.map(|_| source.manifest.settled(partition.id())).unwrap_or_default();
            let first = kept_from(partition, &settled);
            if first > 0 {
                cut.push(partition.index());
                notes.push(format!(
                    "{topic}-{}: records below offset {first} are gone from log and lake: windows that may have held them are \
                     not judged",
                    partition.index()
                ));
            }
        }
        if !cut.is_empty() {
            from = from.max(Some(self.after(&cut).await?));
        }
        Ok(from)
    }

    /// Slices that are deleted when they are old enough.
    fn expired_slices(&self, settles: &TableConfig, notes: &mut Vec<String>) -> Option<i64> {
        let after_ms = settles.expire_after_ms?;
        notes.push("old slices of the table are deleted (expire_after): windows before that are not judged".into());
        Some(self.queries.source().broker.clock().now_ms().saturating_sub(after_ms))
    }

    /// When windows began that can only have had rows that are left: a row that is gone was no further ahead of the first one
    /// that is left than its window and the lateness.
    async fn after(&self, cut: &[PartitionIndex]) -> Result<i64> {
        let Some(windows) = self.view.windows else { return Ok(i64::MAX) };
        let prepared = self.prepare(&earliest(self.view, &self.scope, cut)).await?;
        let explain = |e| self.queries.explain(&e);
        let frame = DataFrame::new(prepared.state.clone(), prepared.plan.clone());
        let mut rows = frame.execute_stream().await.map_err(explain)?;
        let (mut latest, mut left) = (i64::MIN, cut.len());
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(explain)?;
            let times = batch.column(1).as_primitive_opt::<TimestampMillisecondType>();
            let times = times.ok_or_else(|| LakeError::bug("an event time is not a TIMESTAMP"))?;
            left = left.saturating_sub(times.len());
            latest = latest.max(times.values().iter().copied().max().unwrap_or(i64::MIN));
        }
        prepared.running.end(Ok(0));
        // of a partition without rows nothing is known
        let reach_ms = starts::longest_ms(windows).saturating_add(self.view.stream.config().lateness_ms);
        Ok(if left > 0 { i64::MAX } else { latest.saturating_add(reach_ms) })
    }
}

/// Rows that were not counted, as a table.
pub fn not_counted(rows: &[NotCounted]) -> Result<RecordBatch> {
    let moment = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let [partition, offset, counted_from] = NOT_COUNTED_COLUMNS;
    let schema = Schema::new(vec![
        Field::new(partition, DataType::Int32, false),
        Field::new(offset, DataType::Int64, false),
        Field::new(counted_from, moment, true),
    ]);
    // each place once: a row may be on record twice
    let places: BTreeMap<_, _> = rows.iter().map(|row| ((row.partition, row.offset), row.counted_from)).collect();
    let partitions = Int32Array::from_iter_values(places.keys().map(|(partition, _)| *partition));
    let offsets = Int64Array::from_iter_values(places.keys().map(|(_, offset)| *offset));
    let from: TimestampMillisecondArray = places.values().copied().collect();
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(partitions), Arc::new(offsets), Arc::new(from.with_timezone("UTC"))];
    RecordBatch::try_new(Arc::new(schema), columns).map_err(|e| LakeError::bug(format!("late rows are no table: {e}")))
}
