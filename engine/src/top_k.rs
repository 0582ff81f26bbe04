//! `top_k(value, 10)`: the most frequent values of a group, each with how often it was, from a summary of bounded size.
//!
//! The summary is the one of Misra and Gries (1982), merged as Agarwal and others (Mergeable summaries, 2012) do it; Space-Saving
//! (Metwally and others, 2005) keeps the same in another form. It has the counts of up to [`COUNTERS`] values. Where there would be more, the
//! largest count that has no room is taken off all of them, and what comes to nothing goes. So counts are exact as long as a group has no more
//! different values than that; beyond, each is too low by at most the group's rows / (`COUNTERS` + 1), in whatever order rows come
//! and states are merged.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use crate::model::constant;

/// The function's name.
pub(crate) const NAME: &str = "top_k";
/// Most values that it gives.
pub(crate) const VALUES_MAX: i64 = 100;
/// Values that a summary counts.
pub(crate) const COUNTERS: usize = if cfg!(test) { 40 } else { 1_000 };

/// The function, to be registered where views are planned, and where history is queried.
pub fn top_k() -> AggregateUDF {
    AggregateUDF::from(TopK { signature: Signature::user_defined(Volatility::Immutable) })
}

/// Whether a view can have so many values; Err says how many it can.
pub(crate) fn check_count(count: i64) -> std::result::Result<usize, String> {
    let known = usize::try_from(count).ok().filter(|_| (1..=VALUES_MAX).contains(&count));
    known.ok_or_else(|| format!("{NAME} gives 1 to {VALUES_MAX} values, not {count}"))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TopK {
    signature: Signature,
}

impl AggregateUDFImpl for TopK {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [value, count] if count.is_integer() && !value.is_nested() => {
                let value = if value.is_null() { DataType::Utf8 } else { value.clone() };
                Ok(vec![value, DataType::Int64])
            }
            _ => plan_err!(
                "{NAME} takes a plain value and how many there are to be, as in {NAME}(genre, 3), not {types:?}"
            ),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Struct(pair(&types[0]))))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return exec_err!("{NAME} takes no DISTINCT: each value would be there once");
        }
        match check_count(constant(NAME, "how many values", &args.exprs[1])?) {
            Ok(shown) => {
                let value = args.expr_fields[0].data_type().clone();
                Ok(Box::new(Summary { value, shown, counts: HashMap::new() }))
            }
            Err(mistake) => exec_err!("{mistake}"),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |part, kind| Arc::new(Field::new(format_state_name(args.name, part), list_of(kind), true));
        Ok(vec![field("values", args.input_fields[0].data_type().clone()), field("counts", DataType::Int64)])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// What is known of one group: the counts of at most [`COUNTERS`] values, between two batches of rows.
#[derive(Debug)]
struct Summary {
    value: DataType,
    /// How many values are given.
    shown: usize,
    counts: HashMap<ScalarValue, i64>,
}

impl Summary {
    fn add(&mut self, values: &ArrayRef, count: impl Fn(usize) -> i64) -> Result<()> {
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let value = ScalarValue::try_from_array(values, row)?.compacted();
            *self.counts.entry(value).or_insert(0) += count(row);
        }
        self.shrink();
        Ok(())
    }

    fn shrink(&mut self) {
        if self.counts.len() <= COUNTERS {
            return;
        }
        let mut all: Vec<i64> = self.counts.values().copied().collect();
        let no_room = *all.select_nth_unstable_by(COUNTERS, |one, other| other.cmp(one)).1;
        self.counts.retain(|_, count| {
            *count -= no_room;
            *count > 0
        });
    }

    /// The most frequent first, then by value.
    fn sorted(&self) -> Vec<(ScalarValue, i64)> {
        let mut sorted: Vec<(ScalarValue, i64)> =
            self.counts.iter().map(|(value, count)| (value.clone(), *count)).collect();
        sorted.sort_by(|(value, count), (other, others)| {
            others.cmp(count).then_with(|| value.partial_cmp(other).unwrap_or(Ordering::Equal))
        });
        sorted
    }

    fn columns(&self, sorted: Vec<(ScalarValue, i64)>) -> Result<(ArrayRef, ArrayRef)> {
        let (values, counts): (Vec<ScalarValue>, Vec<i64>) = sorted.into_iter().unzip();
        let values = match values.is_empty() {
            true => arrow::array::new_empty_array(&self.value),
            false => ScalarValue::iter_to_array(values)?,
        };
        Ok((values, Arc::new(Int64Array::from(counts))))
    }
}

impl Accumulator for Summary {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], |_| 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let counts = counts.value(row);
            let counts = counts.as_primitive::<Int64Type>();
            self.add(&values.value(row), |at| counts.value(at))?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (values, counts) = self.columns(self.sorted())?;
        Ok(vec![one_list(values)?, one_list(counts)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut sorted = self.sorted();
        if sorted.is_empty() {
            return ScalarValue::try_from(&list_of(DataType::Struct(pair(&self.value))));
        }
        sorted.truncate(self.shown);
        let (values, counts) = self.columns(sorted)?;
        one_list(Arc::new(StructArray::try_new(pair(&self.value), vec![values, counts], None)?))
    }

    fn size(&self) -> usize {
        let entries: usize = self.counts.keys().map(|value| value.size() + size_of::<i64>()).sum();
        size_of_val(self) + entries
    }
}

fn pair(value: &DataType) -> Fields {
    Fields::from(vec![Field::new("value", value.clone(), true), Field::new("count", DataType::Int64, true)])
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// A list value whose items are the array's.
fn one_list(items: ArrayRef) -> Result<ScalarValue> {
    let item = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([items.len()]);
    Ok(ScalarValue::List(Arc::new(ListArray::try_new(item, offsets, items, None)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary { value: DataType::Int64, shown: 3, counts: HashMap::new() }
    }

    fn add(summary: &mut Summary, values: &[i64]) {
        let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        summary.update_batch(&[values]).unwrap();
    }

    fn merge(into: &mut Summary, mut from: Summary) {
        let states = from.state().unwrap();
        let arrays: Vec<ArrayRef> = states.iter().map(|state| state.to_array_of_size(1).unwrap()).collect();
        into.merge_batch(&arrays).unwrap();
    }

    /// Many values more than there are counters, in many small summaries that are merged in a tree and in a row.
    #[test]
    fn counts_are_too_low_by_no_more_than_is_said() {
        let values: Vec<i64> = (0..20_000_i64).map(|at| if at % 3 == 0 { at % 7 } else { at * at % 997 }).collect();
        let mut truth: HashMap<i64, i64> = HashMap::new();
        values.iter().for_each(|value| *truth.entry(*value).or_default() += 1);
        let parts = || {
            values.chunks(61).map(|chunk| {
                let mut part = summary();
                add(&mut part, chunk);
                part
            })
        };
        let mut in_a_row = summary();
        parts().for_each(|part| merge(&mut in_a_row, part));
        let mut tree: Vec<Summary> = parts().collect();
        while tree.len() > 1 {
            let mut halves = tree.into_iter();
            let mut next = Vec::new();
            while let Some(mut one) = halves.next() {
                halves.next().into_iter().for_each(|other| merge(&mut one, other));
                next.push(one);
            }
            tree = next;
        }
        let most = 20_000 / (COUNTERS as i64 + 1);
        for summary in [&in_a_row, &tree[0]] {
            assert!(summary.counts.len() <= COUNTERS);
            for (value, count) in &truth {
                let found = summary.counts.get(&ScalarValue::Int64(Some(*value))).copied().unwrap_or(0);
                assert!((count - most..=*count).contains(&found), "{value}: {found} of {count}");
            }
        }
    }
}
