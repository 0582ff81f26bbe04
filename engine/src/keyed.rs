//! State batches ↔ the store's keys and values.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray, RecordBatch, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use broker::Packed;
use datafusion::common::Result as DfResult;

use crate::aggregate::Aggregation;
use crate::error::{EngineError, Result};
use crate::state;
use crate::view::ViewPlan;
use crate::window::NO_WINDOW_END;
use crate::windows::{Place, Windows};

/// Values that one group of a view may hold for `count(DISTINCT …)`, `median` and their like: each step that touches the group
/// rewrites them. Rows beyond are refused, see `member.rs`; `approx_distinct` and `approx_median` have no such bound.
pub(crate) const DISTINCT_MAX: usize = if cfg!(test) { 1_000 } else { 100_000 };
/// The same for `array_agg`, whose values are in every row that is told, and lie there with what orders them.
pub(crate) const ARRAY_MAX: usize = if cfg!(test) { 1_000 } else { 10_000 };
/// Bytes of text in one of those lists.
pub(crate) const LIST_BYTES_MAX: usize = if cfg!(test) { 64 << 10 } else { 16 << 20 };

/// Room for a key and a value of a view with a few numbers; what is longer costs a move.
const KEY_BYTES: usize = 32;
const VALUE_BYTES: usize = 32;

/// States of groups, one row each.
#[derive(Clone)]
pub(crate) struct Groups {
    pub(crate) states: RecordBatch,
    /// Of sessions: where each ends, which does not follow from where it starts.
    pub(crate) ends: Option<TimestampMillisecondArray>,
}

impl Groups {
    pub(crate) fn slice(&self, from: usize, count: usize) -> Groups {
        let ends = self.ends.as_ref().map(|ends| ends.slice(from, count));
        Groups { states: self.states.slice(from, count), ends }
    }
}

/// Encodes and decodes one view's groups. Never changes after it is made.
pub(crate) struct StateCodec {
    view_id: u32,
    fingerprint: u64,
    windows: Option<Windows>,
    schema: SchemaRef,
    /// None when the view has no keys.
    keys: Option<RowConverter>,
    /// None when the view has no aggregates.
    values: Option<RowConverter>,
    group_count: usize,
    /// Of each state column, the most values of a list in it.
    list_limits: Vec<usize>,
}

impl StateCodec {
    pub(crate) fn new(plan: &ViewPlan, view_id: u32) -> Result<StateCodec> {
        let schema = plan.aggregation.state_schema().clone();
        let group_count = plan.aggregation.group_count();
        let converter = |from: usize, to: usize| -> Result<Option<RowConverter>> {
            if from == to {
                return Ok(None);
            }
            let fields = schema.fields()[from..to].iter().map(|field| SortField::new(field.data_type().clone()));
            Ok(Some(RowConverter::new(fields.collect())?))
        };
        Ok(StateCodec {
            view_id,
            fingerprint: plan.fingerprint,
            windows: plan.windows,
            keys: converter(1, group_count)?,
            values: converter(group_count, schema.fields().len())?,
            schema: schema.clone(),
            group_count,
            list_limits: list_limits(&plan.aggregation)?,
        })
    }

    pub(crate) fn view_id(&self) -> u32 {
        self.view_id
    }

    /// The value of the first group column of a stored key.
    pub(crate) fn label_of(&self, key: &[u8]) -> Result<i64> {
        Ok(self.split(key)?.0)
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The store's key of each group.
    pub(crate) fn keys(&self, states: &RecordBatch) -> Result<Packed> {
        let groups = self.groups(states)?;
        let mut keys = Packed::with_room(states.num_rows(), states.num_rows() * KEY_BYTES);
        let (mut last, mut place) = (None, Vec::new());
        for (row, label) in labels_of(states)?.values().iter().enumerate() {
            // Most groups of a step are in the window of the one before them.
            if last != Some(label) {
                place = self.place(*label);
                last = Some(label);
            }
            keys.push(&[&place, group_of(&groups, row)]);
        }
        Ok(keys)
    }

    /// The rows of the group columns that are no window; None when there are none.
    pub(crate) fn groups(&self, states: &RecordBatch) -> Result<Option<Rows>> {
        rows(self.keys.as_ref(), &states.columns()[1..self.group_count])
    }

    /// What the keys of all groups begin with that have this value in the first group column.
    fn place(&self, label: i64) -> Vec<u8> {
        match self.windows {
            None => state::state_bound(self.view_id, NO_WINDOW_END),
            Some(Windows::Tumble(window)) => state::state_bound(self.view_id, window.end_of(label)),
            Some(Windows::Session(_)) => state::state_bound(self.view_id, label),
            Some(Windows::Hop(hop)) => {
                let place = hop.place(label);
                // Panes have 1,440 windows at most.
                let missed = u16::try_from(place.missed).unwrap_or(u16::MAX);
                let mut key = state::state_bound(self.view_id, hop.pane_end(place.pane));
                key.extend_from_slice(&missed.to_be_bytes());
                key
            }
        }
    }

    /// The value of the first group column of a stored key, and the group key.
    fn split<'k>(&self, key: &'k [u8]) -> Result<(i64, &'k [u8])> {
        let (at, group) = state::split_state_key(key)?;
        Ok(match self.windows {
            None => (0, group),
            Some(Windows::Tumble(window)) => (window.start_before(at), group),
            Some(Windows::Session(_)) => (at, group),
            Some(Windows::Hop(hop)) => {
                let missed = group.first_chunk::<2>().ok_or_else(|| EngineError::bug("a pane's key is too short"))?;
                let place = Place { pane: hop.pane_ending(at), missed: i64::from(u16::from_be_bytes(*missed)) };
                (hop.label(place), &group[2..])
            }
        })
    }

    /// The keys of groups that hold more values than a group may.
    pub(crate) fn overfull(&self, states: &RecordBatch) -> Result<HashSet<Vec<u8>>> {
        let overfull = full_rows(states, &self.list_limits);
        if !overfull.contains(&true) {
            return Ok(HashSet::new());
        }
        let keys = self.keys(states)?;
        Ok(keys.iter().zip(overfull).filter(|(_, overfull)| *overfull).map(|(key, _)| key.to_vec()).collect())
    }

    /// The store's value of each group.
    pub(crate) fn values(&self, groups: &Groups) -> Result<Packed> {
        let columns = rows(self.values.as_ref(), &groups.states.columns()[self.group_count..])?;
        let count = groups.states.num_rows();
        let mut values = Packed::with_room(count, count * VALUE_BYTES);
        let header = state::state_header(self.fingerprint);
        for row in 0..count {
            match &groups.ends {
                None => values.push(&[&header, group_of(&columns, row)]),
                Some(ends) => values.push(&[&header, &ends.value(row).to_be_bytes(), group_of(&columns, row)]),
            }
        }
        Ok(values)
    }

    /// Where the session of a stored value ends.
    pub(crate) fn end_of(&self, value: &[u8]) -> Result<i64> {
        let columns = state::decode_state(self.fingerprint, value)?;
        let end = columns.first_chunk().ok_or_else(|| EngineError::bug("a session has no end"))?;
        Ok(i64::from_be_bytes(*end))
    }

    /// Stored entries → states, in their order.
    pub(crate) fn decode<'a>(&self, entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Groups> {
        let (keys, values): (Vec<&[u8]>, Vec<&[u8]>) = entries.unzip();
        let mut columns: Vec<&[u8]> = Vec::with_capacity(values.len());
        let mut ends: Option<Vec<i64>> = matches!(self.windows, Some(Windows::Session(_))).then(Vec::new);
        for value in values {
            let stored = state::decode_state(self.fingerprint, value)?;
            match &mut ends {
                None => columns.push(stored),
                Some(ends) => {
                    ends.push(self.end_of(value)?);
                    columns.push(&stored[8..]);
                }
            }
        }
        let mut arrays = self.group_columns(keys.iter().copied())?;
        arrays.extend(read_rows(self.values.as_ref(), columns)?);
        let states = RecordBatch::try_new(self.schema.clone(), arrays)?;
        Ok(Groups { states, ends: ends.map(|ends| TimestampMillisecondArray::from(ends).with_timezone("UTC")) })
    }

    /// Stored values → their state columns, in their order. Not of sessions.
    pub(crate) fn decode_values<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let columns = values.map(|value| state::decode_state(self.fingerprint, value)).collect::<Result<Vec<_>>>()?;
        read_rows(self.values.as_ref(), columns)
    }

    /// Stored keys → the group columns of a state batch, in their order.
    pub(crate) fn decode_keys<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let schema = Arc::new(Schema::new(self.schema.fields()[..self.group_count].to_vec()));
        Ok(RecordBatch::try_new(schema, self.group_columns(keys)?)?)
    }

    fn group_columns<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let (mut starts, mut groups): (Vec<i64>, Vec<&[u8]>) = (Vec::new(), Vec::new());
        for key in keys {
            let (start, group) = self.split(key)?;
            starts.push(start);
            groups.push(group);
        }
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(TimestampMillisecondArray::from(starts).with_timezone("UTC"))];
        arrays.extend(read_rows(self.keys.as_ref(), groups)?);
        Ok(arrays)
    }

    /// One spelling for each floating-point key: `-0.0` is `0.0`, and all NaN are one, as their bytes are the identity.
    pub(crate) fn normalize(&self, states: RecordBatch) -> Result<RecordBatch> {
        let is_float = |array: &ArrayRef| matches!(array.data_type(), DataType::Float64 | DataType::Float32);
        if !states.columns()[..self.group_count].iter().any(is_float) {
            return Ok(states);
        }
        let mut arrays = states.columns().to_vec();
        for array in &mut arrays[..self.group_count] {
            if let Some(floats) = array.as_any().downcast_ref::<Float64Array>() {
                let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
                *array = Arc::new(floats.unary::<_, arrow::datatypes::Float64Type>(one));
            } else if let Some(floats) = array.as_any().downcast_ref::<Float32Array>() {
                let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
                *array = Arc::new(floats.unary::<_, arrow::datatypes::Float32Type>(one));
            }
        }
        Ok(RecordBatch::try_new(states.schema(), arrays)?)
    }
}

/// Of each state column, the most values of a list in it.
pub(crate) fn list_limits(aggregation: &Aggregation) -> DfResult<Vec<usize>> {
    let limit = |column: (&str, bool)| match column {
        ("array_agg", false) => ARRAY_MAX,
        _ => DISTINCT_MAX,
    };
    Ok(aggregation.state_columns()?.into_iter().map(limit).collect())
}

/// Which states have a list that is longer than it may be.
pub(crate) fn full_rows(states: &RecordBatch, limits: &[usize]) -> Vec<bool> {
    let mut full = vec![false; states.num_rows()];
    for (column, limit) in states.columns().iter().rev().zip(limits.iter().rev()) {
        let Some(lists) = column.as_list_opt::<i32>() else { continue };
        for (row, length) in lists.offsets().lengths().enumerate() {
            full[row] |= length > *limit || text_bytes(lists, row) > LIST_BYTES_MAX;
        }
    }
    full
}

/// Why a row is refused, or a window of many panes is not shown.
pub(crate) fn full_group() -> String {
    format!(
        "its group is full: it may hold {DISTINCT_MAX} values for count(DISTINCT …) and median, {ARRAY_MAX} for array_agg, \
         and {LIST_BYTES_MAX} bytes of text in each"
    )
}

/// Bytes of the texts in a list; other values have a few each.
fn text_bytes(lists: &ListArray, row: usize) -> usize {
    let ends = lists.value_offsets();
    let place = |at: usize| usize::try_from(ends[at]).unwrap_or(0);
    let (from, to) = (place(row), place(row + 1));
    if let Some(texts) = lists.values().as_string_opt::<i32>() {
        let bytes = |at: usize| usize::try_from(texts.value_offsets()[at]).unwrap_or(0);
        return bytes(to) - bytes(from);
    }
    match lists.values().as_string_view_opt() {
        Some(texts) => (from..to).map(|at| texts.value(at).len()).sum(),
        None => 0,
    }
}

/// The first group column of states.
pub(crate) fn labels_of(states: &RecordBatch) -> Result<&TimestampMillisecondArray> {
    let labels = states.column(0).as_any().downcast_ref::<TimestampMillisecondArray>();
    labels.ok_or_else(|| EngineError::bug("the first group column is not window_start"))
}

/// The same states under other values in the first group column.
pub(crate) fn with_labels(states: &RecordBatch, labels: Vec<i64>) -> Result<RecordBatch> {
    let mut arrays = states.columns().to_vec();
    arrays[0] = Arc::new(TimestampMillisecondArray::from(labels).with_timezone("UTC"));
    Ok(RecordBatch::try_new(states.schema(), arrays)?)
}

/// The bytes of a row; nothing where there are no columns.
pub(crate) fn group_of(rows: &Option<Rows>, row: usize) -> &[u8] {
    rows.as_ref().map_or(&[], |rows| rows.row(row).data())
}

fn rows(converter: Option<&RowConverter>, columns: &[ArrayRef]) -> Result<Option<Rows>> {
    converter.map(|converter| converter.convert_columns(columns)).transpose().map_err(EngineError::from)
}

/// The columns of encoded rows; none where there is no converter.
fn read_rows(converter: Option<&RowConverter>, rows: Vec<&[u8]>) -> Result<Vec<ArrayRef>> {
    let Some(converter) = converter else { return Ok(Vec::new()) };
    let parser = converter.parser();
    Ok(converter.convert_rows(rows.into_iter().map(|row| parser.parse(row)))?)
}
