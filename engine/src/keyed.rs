//! State batches ↔ the store's keys and values, and the groups kept in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, RowParser, Rows, SortField};

use crate::error::{EngineError, Result};
use crate::state;
use crate::view::ViewPlan;
use crate::window::{NO_WINDOW_END, Window};

/// Distinct values that one group of a view may hold for `count(DISTINCT …)`: each step that touches the group rewrites them.
/// Rows beyond are refused, see `member.rs`; `approx_distinct` has no such bound.
pub(crate) const DISTINCT_MAX: usize = if cfg!(test) { 1_000 } else { 100_000 };

/// Encodes and decodes one view's groups. Never changes after it is made.
pub(crate) struct StateCodec {
    view_id: u32,
    fingerprint: u64,
    window: Option<Window>,
    schema: SchemaRef,
    /// None when the view has no keys.
    keys: Option<RowConverter>,
    /// None when the view has no aggregates.
    values: Option<RowConverter>,
    group_count: usize,
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
            window: plan.window,
            keys: converter(1, group_count)?,
            values: converter(group_count, schema.fields().len())?,
            schema: schema.clone(),
            group_count,
        })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The store's key of each group.
    pub(crate) fn keys(&self, states: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let starts = states.column(0).as_any().downcast_ref::<TimestampMillisecondArray>();
        let starts = starts.ok_or_else(|| EngineError::bug("the first group column is not window_start"))?;
        let groups = rows(self.keys.as_ref(), &states.columns()[1..self.group_count])?;
        let key = |row: usize| {
            let end = self.window.map_or(NO_WINDOW_END, |window| window.end_of(starts.value(row)));
            match &groups {
                Some(groups) => state::state_key(self.view_id, end, groups.row(row).data()),
                None => state::state_key(self.view_id, end, &[]),
            }
        };
        Ok((0..states.num_rows()).map(key).collect())
    }

    /// The keys of groups that hold more distinct values than a group may.
    pub(crate) fn overfull(&self, states: &RecordBatch) -> Result<HashSet<Vec<u8>>> {
        let mut overfull = vec![false; states.num_rows()];
        for column in &states.columns()[self.group_count..] {
            let Some(lists) = column.as_list_opt::<i32>() else { continue };
            for (row, length) in lists.offsets().lengths().enumerate() {
                overfull[row] |= length > DISTINCT_MAX;
            }
        }
        if !overfull.contains(&true) {
            return Ok(HashSet::new());
        }
        let keys = self.keys(states)?.into_iter().zip(overfull);
        Ok(keys.filter(|(_, overfull)| *overfull).map(|(key, _)| key).collect())
    }

    /// The store's value of each group.
    pub(crate) fn values(&self, states: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let columns = rows(self.values.as_ref(), &states.columns()[self.group_count..])?;
        let value = |row: usize| match &columns {
            Some(columns) => state::encode_state(self.fingerprint, columns.row(row).data()),
            None => state::encode_state(self.fingerprint, &[]),
        };
        Ok((0..states.num_rows()).map(value).collect())
    }

    /// Stored entries → a state batch, in their order.
    pub(crate) fn decode<'a>(&self, entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<RecordBatch> {
        let (keys, values): (Vec<&[u8]>, Vec<&[u8]>) = entries.unzip();
        let mut columns = RowReader::new(self.values.as_ref());
        for value in values {
            columns.push(state::decode_state(self.fingerprint, value)?);
        }
        let mut arrays = self.group_columns(keys.iter().copied())?;
        arrays.extend(columns.finish()?);
        Ok(RecordBatch::try_new(self.schema.clone(), arrays)?)
    }

    /// Stored keys → the group columns of a state batch, in their order.
    pub(crate) fn decode_keys<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let schema = Arc::new(Schema::new(self.schema.fields()[..self.group_count].to_vec()));
        Ok(RecordBatch::try_new(schema, self.group_columns(keys)?)?)
    }

    fn group_columns<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let mut starts: Vec<i64> = Vec::new();
        let mut groups = RowReader::new(self.keys.as_ref());
        for key in keys {
            let (end, group) = state::split_state_key(key)?;
            starts.push(self.window.map_or(0, |window| window.start_before(end)));
            groups.push(group);
        }
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(TimestampMillisecondArray::from(starts).with_timezone("UTC"))];
        arrays.extend(groups.finish()?);
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

fn rows(converter: Option<&RowConverter>, columns: &[ArrayRef]) -> Result<Option<Rows>> {
    converter.map(|converter| converter.convert_columns(columns)).transpose().map_err(EngineError::from)
}

/// Collects encoded rows of one converter.
struct RowReader<'c> {
    converter: Option<(&'c RowConverter, RowParser)>,
    rows: Vec<OwnedRow>,
}

impl<'c> RowReader<'c> {
    fn new(converter: Option<&'c RowConverter>) -> RowReader<'c> {
        RowReader { converter: converter.map(|converter| (converter, converter.parser())), rows: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some((_, parser)) = &self.converter {
            self.rows.push(parser.parse(bytes).owned());
        }
    }

    fn finish(self) -> Result<Vec<ArrayRef>> {
        match &self.converter {
            Some((converter, _)) => Ok(converter.convert_rows(self.rows.iter().map(OwnedRow::row))?),
            None => Ok(Vec::new()),
        }
    }
}

/// The states of recently touched groups, so that a busy group is not read from the store at each step.
///
/// Holds only what is committed. Two generations of bounded size: what is touched moves to the young one; when that is
/// full it becomes the old one and the old one is forgotten. Lost at a crash, which costs reads only.
pub(crate) struct HotStates {
    young: HashMap<Vec<u8>, Vec<u8>>,
    old: HashMap<Vec<u8>, Vec<u8>>,
    young_bytes: usize,
    old_bytes: usize,
    generation_bytes_max: usize,
}

/// What a map entry costs beside its bytes.
const ENTRY_BYTES: usize = 64;

impl HotStates {
    pub(crate) fn new(bytes_max: usize) -> HotStates {
        HotStates {
            young: HashMap::new(),
            old: HashMap::new(),
            young_bytes: 0,
            old_bytes: 0,
            generation_bytes_max: bytes_max / 2,
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.young.get(key).or_else(|| self.old.get(key)).map(Vec::as_slice)
    }

    /// Takes in what was just committed.
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let (key_bytes, value_bytes) = (key.len() + ENTRY_BYTES, value.len());
        self.young_bytes += value_bytes;
        match self.young.insert(key, value) {
            Some(before) => self.young_bytes -= before.len(),
            None => self.young_bytes += key_bytes,
        }
        if self.young_bytes > self.generation_bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
    }

    /// Bytes in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.young_bytes + self.old_bytes
    }

    /// Groups in memory; one that lies in both generations counts twice.
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_states_are_bounded_and_newest_wins() {
        let mut hot = HotStates::new(20_000);
        for round in 0..400_u32 {
            for key in 0..20_u32 {
                hot.put(key.to_be_bytes().to_vec(), round.to_be_bytes().to_vec());
            }
            hot.put((1_000 + round).to_be_bytes().to_vec(), vec![0; 100]);
            assert!(hot.bytes() <= 21_000, "{}", hot.bytes());
        }
        for key in 0..20_u32 {
            assert_eq!(hot.get(&key.to_be_bytes()), Some(&399_u32.to_be_bytes()[..]));
        }
        assert_eq!(hot.get(&1_000_u32.to_be_bytes()), None);
    }
}
