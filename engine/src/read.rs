//! Reading a view: one snapshot of the store gives rows and offsets of the same commit.

use arrow::array::RecordBatch;
use arrow::compute::{
    SortColumn, SortOptions, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch,
};
use arrow::datatypes::SchemaRef;
use broker::{Broker, Family, Snapshot};
use datafusion::common::ScalarValue;

use crate::Offsets;
use crate::budget::Held;
use crate::error::{EngineError, ErrorKind, Result};
use crate::guard::Guard;
use crate::keyed::{Groups, StateCodec};
use crate::names::closest;
use crate::read_when_planned::Grow;
use crate::shared::RunningView;
use crate::spread::WindowScan;
use crate::sql;
use crate::state::{self, Mark, Progress};
use crate::view::ViewPlan;
use crate::windows::{Hop, Windows};

/// Groups finished at once.
const CHUNK_GROUPS: usize = 32_768;
/// Most groups that one read looks at.
const GROUPS_MAX: usize = 5_000_000;
/// Most bytes of rows that one read hands out.
const ANSWER_BYTES_MAX: usize = 512 << 20;

/// What to read of a view.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadRequest {
    /// Windows that start at or after this time (epoch milliseconds). Only for views with a window.
    pub from: Option<i64>,
    /// Windows that start before this time.
    pub to: Option<i64>,
    /// Columns (keys or values) that must equal a value, written as text.
    pub keys: Vec<(String, String)>,
    /// Columns to sort by, true = descending. Without it rows come by window, then key.
    pub order: Vec<(String, bool)>,
    /// Most rows.
    pub limit: Option<usize>,
    /// How long to wait until everything is applied that was in the log when the read began; 0 = answer at once.
    pub wait_ms: u64,
}

/// Rows of a view and the offsets they stand for: exactly the records below those offsets are in the rows.
#[derive(Debug, Clone)]
pub struct Answer {
    /// window_start, window_end, keys, values.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: Vec<RecordBatch>,
    /// The next offset to be applied, per topic and partition.
    pub offsets: Offsets,
    /// How far event time has come, epoch milliseconds.
    pub event_watermark: Option<i64>,
    /// The view's pipeline, or one before it in a chain, has stopped: the rows are right for `offsets`, but do not advance.
    pub stale: bool,
    /// The memory that the rows are counted in, as long as they are there.
    pub held: Held,
}

impl Answer {
    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Reads from a snapshot taken now, what `guard` shows of it. Blocks: call it where that is allowed.
pub(crate) fn read_now(
    broker: &Broker,
    view: &RunningView,
    (request, guard): (&ReadRequest, Option<&Guard>),
    grow: Grow<'_>,
) -> Result<Answer> {
    let plan = &view.plan;
    if let Some(guard) = guard {
        if !guard.is_for(&plan.schema) {
            return Err(taken_over(&plan.name));
        }
        refuse_masked(plan, request, guard)?;
    }
    let filters = Filters { keys: key_filters(plan, &request.keys)?, guard, grow };
    let order = order_columns(plan, &request.order)?;
    if plan.windows.is_none() && (request.from.is_some() || request.to.is_some()) {
        let message = format!("view {} has no window, leave out from and to", plan.name);
        return Err(EngineError::bad_request(message));
    }
    let snapshot = broker.store().snapshot();
    let progress = match snapshot.get(Family::State, &state::view_progress_key(view.view_id))? {
        Some(bytes) => Progress::decode(&bytes)?,
        None => {
            check_served(view, &snapshot)?;
            Progress::default()
        }
    };
    let enough = if order.is_empty() { request.limit } else { None };
    let mut rows = match plan.windows {
        Some(Windows::Hop(hop)) => scan_windows(view, &snapshot, (hop, request), &filters, enough)?,
        _ => scan(view, &snapshot, request, &filters, enough)?,
    };
    drop(snapshot);
    let schema = guard.map_or_else(|| plan.schema.clone(), Guard::schema);
    if !order.is_empty() {
        rows = sort(&schema, rows, &order, request.limit)?;
    }
    if let Some(limit) = request.limit {
        rows = truncate(rows, limit);
    }
    Ok(Answer {
        schema,
        rows,
        offsets: view.follower.offsets_at(broker, &progress),
        event_watermark: progress.event_watermark,
        stale: view.follower.failed().is_some(),
        held: Held::default(),
    })
}

/// A view without progress is new, or another version took over so long ago that this one is gone.
fn check_served(view: &RunningView, snapshot: &Snapshot<'_>) -> Result<()> {
    let stored = snapshot.get(Family::State, &state::definition_key(&view.plan.name))?;
    match stored.as_deref().and_then(state::Definition::decode) {
        Some(served) if served.view_id != view.view_id => Err(taken_over(&view.plan.name)),
        _ => Ok(()),
    }
}

fn taken_over(view: &str) -> EngineError {
    let message = format!("another version of view {view} has taken over meanwhile, ask again");
    EngineError::new(ErrorKind::Busy, message)
}

/// What rows must meet to be in an answer.
struct Filters<'a> {
    keys: Vec<(usize, ScalarValue)>,
    guard: Option<&'a Guard>,
    /// Asks for the memory of what meets them.
    grow: Grow<'a>,
}

/// To filter or sort by a masked column would tell what is in it.
fn refuse_masked(plan: &ViewPlan, request: &ReadRequest, guard: &Guard) -> Result<()> {
    let named = request.keys.iter().map(|(name, _)| name).chain(request.order.iter().map(|(name, _)| name));
    let masked: Vec<&String> = named.filter(|name| guard.masks(name)).collect();
    match masked.first() {
        None => Ok(()),
        Some(name) => {
            let message = format!("column {name} of {} is masked for this token: leave it out", plan.name);
            Err(EngineError::bad_request(message))
        }
    }
}

fn state_bounds(view: &RunningView, request: &ReadRequest) -> (Vec<u8>, Vec<u8>) {
    let (all_from, all_to) = state::state_range(view.view_id);
    let bound = |start: i64| match view.plan.windows {
        Some(Windows::Tumble(window)) => state::state_bound(view.view_id, window.end_from(start)),
        _ => state::state_bound(view.view_id, start),
    };
    let from = request.from.map_or(all_from, bound);
    let to = request.to.map_or(all_to, bound);
    // The store does not take a range that ends before it begins.
    if from <= to { (from, to) } else { (to.clone(), to) }
}

/// A column that rows are chosen or ordered by.
fn column_index(plan: &ViewPlan, name: &str) -> Result<usize> {
    let index = plan.schema.index_of(name).map_err(|_| {
        let hint = closest(name, plan.schema.fields().iter().map(|field| field.name().as_str()));
        EngineError::new(ErrorKind::BadRequest, format!("view {} has no column '{name}'{hint}", plan.name))
    })?;
    if plan.schema.field(index).data_type().is_nested() {
        let message = format!("column '{name}' of view {} is a list: choose and order by plain values", plan.name);
        return Err(EngineError::bad_request(message));
    }
    Ok(index)
}

fn key_filters(plan: &ViewPlan, keys: &[(String, String)]) -> Result<Vec<(usize, ScalarValue)>> {
    let mut filters = Vec::new();
    for (name, text) in keys {
        let index = column_index(plan, name)?;
        let kind = plan.schema.field(index).data_type();
        let value = ScalarValue::try_from_string(text.clone(), kind).map_err(|_| {
            EngineError::bad_request(format!("'{text}' is not a value of column '{name}', which is {kind}"))
        })?;
        filters.push((index, value));
    }
    Ok(filters)
}

fn order_columns(plan: &ViewPlan, order: &[(String, bool)]) -> Result<Vec<(usize, bool)>> {
    order.iter().map(|(name, descending)| Ok((column_index(plan, name)?, *descending))).collect()
}

/// Finishes the groups of a range chunk by chunk; stops early when `enough` rows are there.
fn scan(
    view: &RunningView,
    snapshot: &Snapshot<'_>,
    request: &ReadRequest,
    filters: &Filters<'_>,
    enough: Option<usize>,
) -> Result<Vec<RecordBatch>> {
    let plan = &view.plan;
    let codec = StateCodec::new(plan, view.view_id)?;
    let (from, to) = state_bounds(view, request);
    let mut answer = Collected { rows: Vec::new(), count: 0, bytes: 0 };
    let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut groups = 0;
    let chunk_groups = enough.map_or(CHUNK_GROUPS, |enough| enough.clamp(256, CHUNK_GROUPS));
    let mut scan = snapshot.scan(Family::State, &from, &to);
    while let Some(entry) = scan.next_ref() {
        let (key, value) = entry?;
        entries.push((key.to_vec(), value.to_vec()));
        if entries.len() >= chunk_groups {
            groups += entries.len();
            answer.add(finish(plan, decode(&codec, &entries)?, filters)?, plan, filters)?;
            entries.clear();
            if enough.is_some_and(|enough| answer.count >= enough) {
                return Ok(answer.rows);
            }
            if groups >= GROUPS_MAX {
                return Err(too_large(plan));
            }
        }
    }
    if !entries.is_empty() {
        answer.add(finish(plan, decode(&codec, &entries)?, filters)?, plan, filters)?;
    }
    Ok(answer.rows)
}

/// Puts windows together from their panes and finishes them, some at a time; stops early when `enough` rows are there.
fn scan_windows(
    view: &RunningView,
    snapshot: &Snapshot<'_>,
    (hop, request): (Hop, &ReadRequest),
    filters: &Filters<'_>,
    enough: Option<usize>,
) -> Result<Vec<RecordBatch>> {
    let plan = &view.plan;
    let codec = StateCodec::new(plan, view.view_id)?;
    let mark = Mark::decode(snapshot.get(Family::State, &state::mark_key(view.view_id))?.as_deref())?;
    let from = request.from.map_or(i64::MIN, |from| hop.first_from(from)).max(mark.gone);
    let to = request.to.map_or(i64::MAX, |to| hop.first_from(to));
    let mut windows = WindowScan::new((plan, &codec), hop, (from, to));
    let mut answer = Collected { rows: Vec::new(), count: 0, bytes: 0 };
    let mut groups = 0;
    while let Some(states) = windows.next(snapshot)? {
        groups += states.num_rows();
        answer.add(finish(plan, Groups { states, ends: None }, filters)?, plan, filters)?;
        if enough.is_some_and(|enough| answer.count >= enough) {
            break;
        }
        if groups >= GROUPS_MAX {
            return Err(too_large(plan));
        }
    }
    Ok(answer.rows)
}

struct Collected {
    rows: Vec<RecordBatch>,
    count: usize,
    bytes: usize,
}

impl Collected {
    fn add(&mut self, rows: RecordBatch, plan: &ViewPlan, filters: &Filters<'_>) -> Result<()> {
        (filters.grow)(rows.get_array_memory_size())?;
        self.count += rows.num_rows();
        self.bytes += rows.get_array_memory_size();
        if rows.num_rows() > 0 {
            self.rows.push(rows);
        }
        if self.bytes > ANSWER_BYTES_MAX { Err(too_large(plan)) } else { Ok(()) }
    }
}

fn too_large(plan: &ViewPlan) -> EngineError {
    let message = format!("view {} has more groups in this range than one read takes, narrow from and to", plan.name);
    EngineError::new(ErrorKind::TooLarge, message)
}

fn decode(codec: &StateCodec, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<Groups> {
    codec.decode(entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))
}

fn finish(plan: &ViewPlan, groups: Groups, filters: &Filters<'_>) -> Result<RecordBatch> {
    let mut rows = plan.finish(groups)?.into_shown()?;
    for (index, value) in &filters.keys {
        let equal = arrow::compute::kernels::cmp::eq(rows.column(*index), &value.to_scalar()?)?;
        rows = filter_record_batch(&rows, &sql::mask(equal))?;
    }
    match filters.guard {
        Some(guard) => guard.apply_whole(&rows),
        None => Ok(rows),
    }
}

fn sort(
    schema: &SchemaRef,
    rows: Vec<RecordBatch>,
    order: &[(usize, bool)],
    limit: Option<usize>,
) -> Result<Vec<RecordBatch>> {
    let all = concat_batches(schema, &rows)?;
    let columns: Vec<SortColumn> = order
        .iter()
        .map(|(index, descending)| SortColumn {
            values: all.column(*index).clone(),
            options: Some(SortOptions { descending: *descending, nulls_first: false }),
        })
        .collect();
    let indices = lexsort_to_indices(&columns, limit)?;
    Ok(vec![take_record_batch(&all, &indices)?])
}

fn truncate(rows: Vec<RecordBatch>, limit: usize) -> Vec<RecordBatch> {
    let mut left = limit;
    let mut kept = Vec::new();
    for batch in rows {
        let count = batch.num_rows().min(left);
        if count > 0 {
            kept.push(batch.slice(0, count));
        }
        left -= count;
    }
    kept
}
