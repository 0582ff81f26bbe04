//! What one row of a call needs, computed from the values of its arguments. Never less than the truth; more only where
//! counting would be as much work as the call.

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int64Type, IntervalMonthDayNanoType, TimestampNanosecondType,
};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;

use crate::text_views::slice_bytes;

/// Shortest day of a time zone, and a day.
const DAY_NS_MIN: i128 = 23 * 3_600_000_000_000;
/// Days of the shortest month.
const MONTH_DAYS_MIN: i128 = 28;
/// Bytes of one value of a list that was not there before: itself at its smallest, and where it came from.
const ITEM_BYTES: u64 = 16;
/// Bytes that a text formatted by one character of a format can have.
const FORMATTED_BYTES: u64 = 32;

/// How a function's need grows with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The first argument as often as the second says.
    Times,
    /// As many characters as the second argument says.
    Pad,
    /// The first argument's list at the length that the second says.
    Resize,
    /// Values from, to, by.
    Series,
    /// The third argument in the place of each part of the first.
    Replace,
    /// A list in text, with the second argument between all values, or the third for those that are null.
    Joined,
    /// The first argument between all others.
    JoinedBy,
    /// The last-but-any argument in the place of each value of a list.
    ReplaceItems,
    /// All arguments.
    Sum,
    /// A format's text.
    Format,
    /// Each character of the first argument against each of the second.
    Pairs,
    /// Each value of the first list against each of the second.
    ItemPairs,
}

/// The functions that can need much; other names of them come along.
pub const RULES: &[(&str, Rule)] = &[
    ("repeat", Rule::Times),
    ("array_repeat", Rule::Times),
    ("lpad", Rule::Pad),
    ("rpad", Rule::Pad),
    ("array_resize", Rule::Resize),
    ("range", Rule::Series),
    ("generate_series", Rule::Series),
    ("replace", Rule::Replace),
    ("regexp_replace", Rule::Replace),
    ("array_to_string", Rule::Joined),
    ("concat_ws", Rule::JoinedBy),
    ("array_replace", Rule::ReplaceItems),
    ("array_replace_n", Rule::ReplaceItems),
    ("array_replace_all", Rule::ReplaceItems),
    ("concat", Rule::Sum),
    ("make_array", Rule::Sum),
    ("array_concat", Rule::Sum),
    ("array_append", Rule::Sum),
    ("array_prepend", Rule::Sum),
    ("arrays_zip", Rule::Sum),
    ("to_char", Rule::Format),
    ("levenshtein", Rule::Pairs),
    ("array_has_all", Rule::ItemPairs),
    ("array_has_any", Rule::ItemPairs),
];

/// What one row of a call needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Memory.
    pub bytes: u64,
    /// Time: comparisons.
    pub steps: u64,
}

/// An argument: a value per row, or one for all.
pub struct Column {
    values: ArrayRef,
    /// One for all rows.
    pub constant: bool,
}

impl Rule {
    /// What a row needs.
    ///
    /// # Errors
    /// A message, when the row would never end.
    pub fn need(self, args: &[Column], row: usize) -> Result<Need, String> {
        let bytes = |at: usize| args.get(at).map_or(0, |arg| arg.bytes(row));
        let items = |at: usize| args.get(at).map_or(0, |arg| arg.items(row));
        let count = |at: usize| args.get(at).and_then(|arg| arg.integer(row)).map_or(0, |n| n.max(0).unsigned_abs());
        // constants are spread over all rows
        let given = (0..args.len()).map(bytes).fold(0_u64, u64::saturating_add);
        let (mut more, mut steps) = (0_u64, 0_u64);
        match self {
            Rule::Times if args.first().is_some_and(Column::is_text) => more = bytes(0).saturating_mul(count(1)),
            Rule::Times => more = (bytes(0) + ITEM_BYTES).saturating_mul(count(1)),
            Rule::Pad => more = count(1).saturating_mul(if bytes(2) > 1 { 4 } else { 1 }),
            Rule::Resize => more = (bytes(2) + ITEM_BYTES).saturating_mul(count(1)),
            Rule::Series => more = series(args, row)?.saturating_mul(ITEM_BYTES),
            Rule::Replace => more = replaced(bytes(0), bytes(1), bytes(2), args.len() > 3),
            Rule::Joined => more = items(0).saturating_mul((bytes(1) + bytes(2)).saturating_add(FORMATTED_BYTES)),
            Rule::JoinedBy => more = bytes(0).saturating_mul(args.len() as u64),
            Rule::ReplaceItems => more = items(0).saturating_mul(bytes(2)),
            Rule::Sum => {}
            Rule::Format => more = bytes(1).saturating_mul(FORMATTED_BYTES),
            Rule::Pairs => steps = bytes(0).saturating_mul(bytes(1)),
            Rule::ItemPairs => steps = items(0).saturating_mul(items(1)),
        }
        Ok(Need { bytes: given.saturating_mul(2).saturating_add(more), steps })
    }
}

/// Bytes of a text of which parts are replaced. With flags the parts are a pattern's, which may be empty, and the
/// replacement may name what was found.
fn replaced(text: u64, from: u64, to: u64, all: bool) -> u64 {
    let found = text / from.max(1) + 1;
    let found = if all { text + 1 } else { found };
    let named = (to / 2).saturating_mul(text);
    found.saturating_mul(to).saturating_add(named.min(if all { named } else { u64::MAX }))
}

/// How many values a series has.
fn series(args: &[Column], row: usize) -> Result<u64, String> {
    let Some(first) = args.first() else { return Ok(0) };
    match (first.values.data_type(), args) {
        (DataType::Int64, [stop]) => Ok(length(0, stop.integer(row), Some(1))),
        (DataType::Int64, [start, stop, rest @ ..]) => {
            let step = rest.first().map_or(Some(1), |step| step.integer(row));
            Ok(start.integer(row).map_or(0, |start| length(start.into(), stop.integer(row), step)))
        }
        (_, [start, stop, step]) => {
            let Some(step) = step.value::<IntervalMonthDayNanoType>(row) else { return Ok(0) };
            let parts = [i64::from(step.months), i64::from(step.days), step.nanoseconds];
            if parts.iter().any(|part| *part < 0) && parts.iter().any(|part| *part > 0) {
                return Err("a series by an interval that goes forward and back may never end: give it one sign".into());
            }
            let days = i128::from(step.months) * MONTH_DAYS_MIN + i128::from(step.days);
            let by_ns = days * DAY_NS_MIN + i128::from(step.nanoseconds);
            let (Some(from), Some(to)) = (start.nanoseconds(row), stop.nanoseconds(row)) else { return Ok(0) };
            Ok(ratio(to - from, by_ns))
        }
        _ => Ok(0),
    }
}

fn length(start: i128, stop: Option<i64>, step: Option<i64>) -> u64 {
    let (Some(stop), Some(step)) = (stop, step) else { return 0 };
    ratio(i128::from(stop) - start, i128::from(step))
}

/// Steps over a way, both ends counted; none when they go the other way, or nowhere.
fn ratio(way: i128, step: i128) -> u64 {
    if step == 0 || (way != 0 && (way < 0) != (step < 0)) {
        return 0;
    }
    u64::try_from(way / step + 1).unwrap_or(u64::MAX)
}

impl Column {
    /// An argument.
    ///
    /// # Errors
    /// DataFusion's, for a value that cannot be in a column.
    pub fn of(arg: &ColumnarValue) -> Result<Self> {
        Ok(match arg {
            ColumnarValue::Array(values) => Self { values: values.clone(), constant: false },
            ColumnarValue::Scalar(value) => Self { values: value.to_array_of_size(1)?, constant: true },
        })
    }

    fn at(&self, row: usize) -> Option<usize> {
        let row = if self.constant { 0 } else { row };
        (row < self.values.len() && self.values.is_valid(row)).then_some(row)
    }

    fn is_text(&self) -> bool {
        matches!(self.values.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    }

    fn value<T: ArrowPrimitiveType>(&self, row: usize) -> Option<T::Native> {
        let at = self.at(row)?;
        self.values.as_primitive_opt::<T>().map(|values| values.value(at))
    }

    fn integer(&self, row: usize) -> Option<i64> {
        self.value::<Int64Type>(row)
    }

    /// A point in time.
    fn nanoseconds(&self, row: usize) -> Option<i128> {
        let at = self.at(row)?;
        let one = self.values.slice(at, 1);
        if let Some(days) = one.as_primitive_opt::<Date32Type>() {
            return Some(i128::from(days.value(0)) * 24 * 3_600_000_000_000);
        }
        let zone = match one.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let exact = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, zone);
        let exact = arrow::compute::cast(&one, &exact).ok()?;
        exact.as_primitive_opt::<TimestampNanosecondType>().map(|ns| i128::from(ns.value(0)))
    }

    /// Values of a list.
    fn items(&self, row: usize) -> u64 {
        let Some(at) = self.at(row) else { return 0 };
        match self.values.data_type() {
            DataType::List(_) => self.values.as_list::<i32>().value_length(at).unsigned_abs().into(),
            DataType::LargeList(_) => self.values.as_list::<i64>().value_length(at).unsigned_abs(),
            DataType::FixedSizeList(_, length) => length.unsigned_abs().into(),
            _ => 0,
        }
    }

    /// Memory of a value.
    fn bytes(&self, row: usize) -> u64 {
        let Some(at) = self.at(row) else { return 0 };
        let values = &self.values;
        match values.data_type() {
            DataType::Utf8 => values.as_string::<i32>().value_length(at).unsigned_abs().into(),
            DataType::LargeUtf8 => values.as_string::<i64>().value_length(at).unsigned_abs(),
            DataType::Utf8View => values.as_string_view().value(at).len() as u64,
            DataType::List(_) => list_bytes(values.as_list::<i32>(), at),
            other => match other.primitive_width() {
                Some(width) => width as u64,
                None => slice_bytes(&values.slice(at, 1)) as u64,
            },
        }
    }
}

fn list_bytes(lists: &ListArray, at: usize) -> u64 {
    slice_bytes(&lists.value(at)) as u64
}
