//! `forecast(time, value, horizon [, season_length])`: an aggregate that continues a series.
//!
//! It gives a list with one element per step ahead, each with `time`, `value`, `lower` and `upper` (95 % of the values lie
//! between, when the model is right). With one row per element:
//! ```sql
//! SELECT f['time'] AS month, f['value'] AS revenue, f['lower'] AS lower, f['upper'] AS upper
//! FROM (SELECT unnest(forecast(month, revenue, 3)) AS f FROM revenue_by_month)
//! ```
//! and per group with `SELECT skill, unnest(forecast(month, revenue, 3)) AS f … GROUP BY skill`. Values of one time are
//! added up, so `forecast(date_trunc('month', date), amount, 3)` needs no grouping before it. Rows with a null time, or a
//! value that is null or not finite, are left out. Fewer than two times give an empty list. How it is computed: `series`.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, StructArray, TimestampMillisecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, Int64Type, TimestampMillisecondType};
use datafusion::common::{exec_datafusion_err, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use super::arguments::{constant, number};
use super::series::{self, Ahead, HORIZON_MAX, POINTS_MAX, SEASON_MAX};
use crate::columns::timestamp_type;

const NAME: &str = "forecast";

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Forecast {
    signature: Signature,
}

impl Forecast {
    pub(super) fn new() -> Forecast {
        Forecast { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Forecast {
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
        let (time, rest) = match types {
            [time, value, horizon] => (time, vec![value, horizon]),
            [time, value, horizon, season] => (time, vec![value, horizon, season]),
            _ => return plan_err!("{NAME} takes (time, value, horizon) or (time, value, horizon, season_length)"),
        };
        if !time.is_temporal() && !time.is_null() {
            return plan_err!("{NAME}: argument 1 must be a TIMESTAMP or DATE, not {time}");
        }
        let mut wanted = vec![timestamp_type(), number(NAME, 2, rest[0])?];
        for (at, given) in rest.iter().enumerate().skip(1) {
            number(NAME, at + 2, given)?;
            wanted.push(DataType::Int64);
        }
        Ok(wanted)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(list_of(Arc::new(Field::new_list_field(DataType::Struct(fields()), true))))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return exec_err!("{NAME} takes no DISTINCT: group before it");
        }
        let horizon = constant(NAME, "the horizon", &args.exprs[2])?;
        if !(1..=HORIZON_MAX).contains(&horizon) {
            return exec_err!("{NAME}: the horizon must be 1 to {HORIZON_MAX} steps, not {horizon}");
        }
        let season = args.exprs.get(3).map(|expr| constant(NAME, "the season length", expr)).transpose()?;
        if let Some(season) = season.filter(|season| !(1..=SEASON_MAX).contains(season)) {
            return exec_err!("{NAME}: the season length must be 1 (none) to {SEASON_MAX} steps, not {season}");
        }
        let season = season.and_then(|season| usize::try_from(season).ok());
        let horizon = usize::try_from(horizon).unwrap_or(1);
        Ok(Box::new(Points { horizon, season, values: BTreeMap::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |part, kind| {
            let element = Arc::new(Field::new_list_field(kind, true));
            Arc::new(Field::new(format_state_name(args.name, part), list_of(element), true))
        };
        Ok(vec![field("times", DataType::Int64), field("values", DataType::Float64)])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The points of one group. Holds at most [`POINTS_MAX`] times; lives as long as the query.
#[derive(Debug)]
struct Points {
    horizon: usize,
    season: Option<usize>,
    values: BTreeMap<i64, f64>,
}

impl Points {
    fn add(&mut self, time_ms: i64, value: f64) -> Result<()> {
        *self.values.entry(time_ms).or_insert(0.0) += value;
        if self.values.len() > POINTS_MAX {
            return exec_err!(
                "{NAME}: more than {POINTS_MAX} different times: round them, as in date_trunc('day', time)"
            );
        }
        Ok(())
    }
}

impl Accumulator for Points {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (times, values) =
            (values[0].as_primitive::<TimestampMillisecondType>(), values[1].as_primitive::<Float64Type>());
        for (time, value) in times.iter().zip(values) {
            if let (Some(time), Some(value)) = (time, value.filter(|value| value.is_finite())) {
                self.add(time, value)?;
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (times, values) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            let (times, values) = (times.value(row), values.value(row));
            let pairs =
                times.as_primitive::<Int64Type>().values().iter().zip(values.as_primitive::<Float64Type>().values());
            for (time, value) in pairs {
                self.add(*time, *value)?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let times = Int64Array::from_iter_values(self.values.keys().copied());
        let values = Float64Array::from_iter_values(self.values.values().copied());
        Ok(vec![one_list(Arc::new(times))?, one_list(Arc::new(values))?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let ahead = series::forecast(&self.values, self.horizon, self.season)
            .map_err(|uneven| exec_datafusion_err!("{uneven}"))?;
        one_list(Arc::new(rows(&ahead)?))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.len() * 2 * size_of::<(i64, f64)>()
    }
}

fn list_of(element: FieldRef) -> DataType {
    DataType::List(element)
}

fn fields() -> Fields {
    let value = |name| Field::new(name, DataType::Float64, true);
    Fields::from(vec![Field::new("time", timestamp_type(), true), value("value"), value("lower"), value("upper")])
}

fn rows(ahead: &[Ahead]) -> Result<StructArray> {
    let times = TimestampMillisecondArray::from_iter_values(ahead.iter().map(|step| step.time_ms));
    let column = |of: fn(&Ahead) -> f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(ahead.iter().map(of))) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_data_type(timestamp_type())),
        column(|step| step.value),
        column(|step| step.lower),
        column(|step| step.upper),
    ];
    Ok(StructArray::try_new(fields(), columns, None)?)
}

/// A list value whose elements are the array's.
fn one_list(elements: ArrayRef) -> Result<ScalarValue> {
    let element = Arc::new(Field::new_list_field(elements.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([elements.len()]);
    Ok(ScalarValue::List(Arc::new(ListArray::try_new(element, offsets, elements, None)?)))
}
