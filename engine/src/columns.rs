//! Growing column buffers that can be cut back to the last good row, which Arrow's builders cannot.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray,
    StringArray, TimestampMillisecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::error::ArrowError;

use crate::json::{JsonScanner, JsonValue};
use crate::scalar::{parse_date_days, parse_decimal, parse_timestamp_ms, rescale, timestamp_in_range};

/// The column types a stream can declare.
///
/// TIMESTAMP is milliseconds in the zone UTC: an event time is an instant, Parquet then says `isAdjustedToUTC`, which
/// Spark reads as its ordinary TIMESTAMP and pyarrow as `timestamp[ms, tz=UTC]`; without a zone Spark would read
/// TIMESTAMP_NTZ and comparisons with `now` would depend on the reader's session zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Bigint,
    Double,
    Varchar,
    Boolean,
    Timestamp,
    Date,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// A list of texts: `VARCHAR[]`.
    Texts,
}

/// The Arrow type of TIMESTAMP columns.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// The items of `VARCHAR[]`.
fn text_item() -> Field {
    Field::new_list_field(DataType::Utf8, true)
}

impl ColumnType {
    /// Reads the SQL name; Err lists what there is.
    pub(crate) fn parse(sql_type: &str) -> Result<ColumnType, String> {
        let upper = sql_type.trim().to_ascii_uppercase();
        match upper.as_str() {
            "BIGINT" => Ok(ColumnType::Bigint),
            "DOUBLE" => Ok(ColumnType::Double),
            "VARCHAR" => Ok(ColumnType::Varchar),
            "BOOLEAN" => Ok(ColumnType::Boolean),
            "TIMESTAMP" => Ok(ColumnType::Timestamp),
            "DATE" => Ok(ColumnType::Date),
            "VARCHAR[]" => Ok(ColumnType::Texts),
            _ => ColumnType::parse_decimal_type(&upper).ok_or_else(|| {
                format!(
                    "unknown type '{sql_type}', use BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE, VARCHAR[] \
                     or DECIMAL(p,s) with p from 1 to 38 and s from 0 to p"
                )
            }),
        }
    }

    fn parse_decimal_type(upper: &str) -> Option<ColumnType> {
        let inner = upper.strip_prefix("DECIMAL")?.trim().strip_prefix('(')?.strip_suffix(')')?;
        let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
        let precision = precision.trim().parse::<u8>().ok()?;
        let scale = scale.trim().parse::<u8>().ok()?;
        ((1..=38).contains(&precision) && scale <= precision).then_some(ColumnType::Decimal { precision, scale })
    }

    /// The Arrow type.
    pub(crate) fn data_type(self) -> DataType {
        match self {
            ColumnType::Bigint => DataType::Int64,
            ColumnType::Double => DataType::Float64,
            ColumnType::Varchar => DataType::Utf8,
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Timestamp => timestamp_type(),
            ColumnType::Date => DataType::Date32,
            ColumnType::Decimal { precision, scale } => {
                DataType::Decimal128(precision, i8::try_from(scale).expect("a scale is at most 38"))
            }
            ColumnType::Texts => DataType::List(Arc::new(text_item())),
        }
    }

    /// The type of a computed column; None when a stream cannot hold it.
    pub(crate) fn of(data_type: &DataType) -> Option<ColumnType> {
        match data_type {
            DataType::Boolean => Some(ColumnType::Boolean),
            whole if whole.is_integer() => Some(ColumnType::Bigint),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Some(ColumnType::Double),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Some(ColumnType::Varchar),
            DataType::Timestamp(..) => Some(ColumnType::Timestamp),
            DataType::Date32 => Some(ColumnType::Date),
            DataType::Decimal128(precision, scale) => {
                let scale = u8::try_from(*scale).ok()?;
                Some(ColumnType::Decimal { precision: *precision, scale })
            }
            DataType::List(item) if ColumnType::of(item.data_type()) == Some(ColumnType::Varchar) => {
                Some(ColumnType::Texts)
            }
            _ => None,
        }
    }

    /// The SQL name that [`parse`](Self::parse) reads.
    pub(crate) fn sql_type(self) -> String {
        match self {
            ColumnType::Bigint => "BIGINT".into(),
            ColumnType::Double => "DOUBLE".into(),
            ColumnType::Varchar => "VARCHAR".into(),
            ColumnType::Boolean => "BOOLEAN".into(),
            ColumnType::Timestamp => "TIMESTAMP".into(),
            ColumnType::Date => "DATE".into(),
            ColumnType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
            ColumnType::Texts => "VARCHAR[]".into(),
        }
    }

    /// What a JSON value must be, for messages.
    pub(crate) fn wants(self) -> &'static str {
        match self {
            ColumnType::Bigint => "an integer of 64 bits",
            ColumnType::Double => "a number",
            ColumnType::Varchar => "a string",
            ColumnType::Boolean => "true or false",
            ColumnType::Timestamp => "an ISO 8601 time as string or integer epoch milliseconds, years 1 to 9999",
            ColumnType::Date => "a date as string, YYYY-MM-DD",
            ColumnType::Decimal { .. } => "a number, or a number as string, that fits precision and scale",
            ColumnType::Texts => "an array of strings",
        }
    }
}

/// A value that comes with its type, as Avro's do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    /// Days since 1970.
    Date(i64),
    /// Milliseconds since 1970.
    Instant(i64),
    Decimal {
        unscaled: i128,
        scale: u32,
    },
}

impl Scalar<'_> {
    /// What it is, for messages of bounded length.
    pub(crate) fn shown(&self) -> String {
        match self {
            Scalar::Null => "null".into(),
            Scalar::Bool(flag) => flag.to_string(),
            Scalar::Int(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
            Scalar::Text(text) => format!("'{}'", text.chars().take(40).collect::<String>()),
            Scalar::Date(days) => format!("the date of day {days} since 1970"),
            Scalar::Instant(ms) => format!("the time of {ms} ms since 1970"),
            Scalar::Decimal { unscaled, scale } => format!("the decimal {unscaled}e-{scale}"),
        }
    }
}

enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Date(Vec<i32>),
    Decimal(Vec<i128>),
    Text { bytes: Vec<u8>, ends: Vec<i32> },
    Texts(TextLists),
}

/// Lists of texts: all items one after another, which of them are not null, and where each list ends.
#[derive(Default)]
struct TextLists {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    valid: Vec<bool>,
    lists: Vec<i32>,
}

/// One column under construction. The number of entries in `values` and `valid` is always the same.
pub(crate) struct ColumnBuffer {
    kind: ColumnType,
    values: Values,
    valid: Vec<bool>,
}

impl ColumnBuffer {
    pub(crate) fn new(kind: ColumnType) -> ColumnBuffer {
        let values = match kind {
            ColumnType::Boolean => Values::Bool(Vec::new()),
            ColumnType::Bigint | ColumnType::Timestamp => Values::Int(Vec::new()),
            ColumnType::Double => Values::Float(Vec::new()),
            ColumnType::Date => Values::Date(Vec::new()),
            ColumnType::Decimal { .. } => Values::Decimal(Vec::new()),
            ColumnType::Varchar => Values::Text { bytes: Vec::new(), ends: Vec::new() },
            ColumnType::Texts => Values::Texts(TextLists::default()),
        };
        ColumnBuffer { kind, values, valid: Vec::new() }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.valid.len()
    }

    /// The entry just pushed, of a TIMESTAMP or BIGINT column.
    pub(crate) fn last_int(&self) -> Option<i64> {
        match &self.values {
            Values::Int(values) if self.valid.last() == Some(&true) => values.last().copied(),
            _ => None,
        }
    }

    /// Whether the entry just pushed is a value and not null.
    pub(crate) fn is_last_valid(&self) -> bool {
        self.valid.last() == Some(&true)
    }

    /// Adds a JSON value; false (and nothing added) when it is not of the column's type.
    pub(crate) fn push(&mut self, value: &JsonValue<'_>) -> bool {
        let pushed = match (&mut self.values, self.kind, value) {
            (_, _, JsonValue::Null) => {
                self.push_null();
                return true;
            }
            (Values::Bool(values), _, JsonValue::Bool(value)) => push_some(values, Some(*value)),
            (Values::Float(values), _, JsonValue::Number(text)) => {
                push_some(values, text.parse::<f64>().ok().filter(|value| value.is_finite()))
            }
            (Values::Int(values), ColumnType::Bigint, JsonValue::Number(text)) => push_some(values, parse_int(text)),
            (Values::Int(values), ColumnType::Timestamp, JsonValue::Number(text)) => {
                push_some(values, parse_int(text).and_then(timestamp_in_range))
            }
            (Values::Int(values), ColumnType::Timestamp, JsonValue::String(text)) => {
                push_some(values, parse_timestamp_ms(text))
            }
            (Values::Date(values), _, JsonValue::String(text)) => push_some(values, parse_date_days(text)),
            (Values::Decimal(values), ColumnType::Decimal { precision, scale }, JsonValue::Number(text)) => {
                push_some(values, parse_decimal(text, precision, scale))
            }
            (Values::Decimal(values), ColumnType::Decimal { precision, scale }, JsonValue::String(text)) => {
                push_some(values, parse_decimal(text, precision, scale))
            }
            (Values::Text { bytes, ends }, _, JsonValue::String(text)) => push_text(bytes, ends, text.as_bytes()),
            (Values::Texts(lists), _, JsonValue::Array(array)) => lists.push(array),
            _ => false,
        };
        if pushed {
            self.valid.push(true);
        }
        pushed
    }

    /// Adds a typed value; false (and nothing added) when it is not of the column's type. Whole numbers widen to DOUBLE and
    /// DECIMAL; what is text is read as in a JSON record.
    pub(crate) fn push_scalar(&mut self, value: &Scalar<'_>) -> bool {
        let pushed = match (&mut self.values, self.kind, *value) {
            (_, _, Scalar::Null) => {
                self.push_null();
                return true;
            }
            (_, _, Scalar::Text(text)) => return self.push(&JsonValue::String(text.into())),
            (_, _, Scalar::Bool(flag)) => return self.push(&JsonValue::Bool(flag)),
            (Values::Int(values), ColumnType::Bigint, Scalar::Int(number) | Scalar::Instant(number)) => {
                push_some(values, Some(number))
            }
            (Values::Int(values), ColumnType::Timestamp, Scalar::Int(ms) | Scalar::Instant(ms)) => {
                push_some(values, timestamp_in_range(ms))
            }
            (Values::Int(values), ColumnType::Timestamp, Scalar::Date(days)) => {
                push_some(values, days.checked_mul(86_400_000).and_then(timestamp_in_range))
            }
            (Values::Float(values), _, Scalar::Float(number)) => {
                push_some(values, Some(number).filter(|number| number.is_finite()))
            }
            (Values::Float(values), _, Scalar::Int(number)) => push_some(values, Some(number as f64)),
            (Values::Float(values), _, Scalar::Decimal { unscaled, scale }) => {
                push_some(values, format!("{unscaled}e-{scale}").parse().ok())
            }
            (Values::Date(values), _, Scalar::Date(days)) => push_some(values, i32::try_from(days).ok()),
            (Values::Decimal(values), ColumnType::Decimal { precision, scale }, Scalar::Int(number)) => {
                push_some(values, rescale((i128::from(number), 0), (precision, scale)))
            }
            (
                Values::Decimal(values),
                ColumnType::Decimal { precision, scale },
                Scalar::Decimal { unscaled, scale: from },
            ) => push_some(values, rescale((unscaled, from), (precision, scale))),
            _ => false,
        };
        if pushed {
            self.valid.push(true);
        }
        pushed
    }

    /// Whether it takes text of any kind.
    pub(crate) fn is_text(&self) -> bool {
        self.kind == ColumnType::Varchar
    }

    /// Adds a value written as text, as in a CSV file or a record's key; false (and nothing added) when it does not fit.
    pub(crate) fn push_text(&mut self, text: &str) -> bool {
        let trimmed = text.trim();
        match self.kind {
            ColumnType::Boolean if trimmed.eq_ignore_ascii_case("true") => self.push(&JsonValue::Bool(true)),
            ColumnType::Boolean if trimmed.eq_ignore_ascii_case("false") => self.push(&JsonValue::Bool(false)),
            ColumnType::Bigint | ColumnType::Double => self.push(&JsonValue::Number(trimmed)),
            ColumnType::Texts => self.push(&JsonValue::Array(trimmed)),
            ColumnType::Timestamp if !trimmed.contains(['-', ':']) => self.push(&JsonValue::Number(trimmed)),
            ColumnType::Varchar => self.push(&JsonValue::String(text.into())),
            _ => self.push(&JsonValue::String(trimmed.into())),
        }
    }

    /// Adds to a TIMESTAMP or BIGINT column.
    pub(crate) fn push_int(&mut self, value: i64) {
        if let Values::Int(values) = &mut self.values {
            values.push(value);
            self.valid.push(true);
        }
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.push(false),
            Values::Int(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Date(values) => values.push(0),
            Values::Decimal(values) => values.push(0),
            Values::Text { bytes, ends } => {
                ends.push(i32::try_from(bytes.len()).expect("push_text keeps the bytes within an i32"));
            }
            Values::Texts(lists) => {
                lists.close();
            }
        }
        self.valid.push(false);
    }

    /// Cuts back to the first `rows` entries.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::Int(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Date(values) => values.truncate(rows),
            Values::Decimal(values) => values.truncate(rows),
            Values::Text { bytes, ends } => {
                ends.truncate(rows);
                bytes.truncate(last_end(ends));
            }
            Values::Texts(lists) => lists.truncate(rows),
        }
        self.valid.truncate(rows);
    }

    /// The Arrow column.
    pub(crate) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let nulls = NullBuffer::from(self.valid);
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        Ok(match self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Values::Int(values) if self.kind == ColumnType::Timestamp => {
                Arc::new(TimestampMillisecondArray::new(values.into(), nulls).with_timezone("UTC"))
            }
            Values::Int(values) => Arc::new(Int64Array::new(values.into(), nulls)),
            Values::Float(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Date(values) => Arc::new(Date32Array::new(values.into(), nulls)),
            Values::Decimal(values) => {
                Arc::new(Decimal128Array::new(values.into(), nulls).with_data_type(self.kind.data_type()))
            }
            Values::Text { bytes, ends } => {
                Arc::new(StringArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?)
            }
            Values::Texts(lists) => lists.finish(nulls)?,
        })
    }
}

impl TextLists {
    /// Adds a list; false (and nothing added) when an item is neither a string nor null, or there is no room.
    fn push(&mut self, array: &str) -> bool {
        if !array.starts_with('[') {
            return false;
        }
        let items = JsonScanner::all_items(array, |item| {
            let pushed = match &item {
                JsonValue::String(text) => push_text(&mut self.bytes, &mut self.ends, text.as_bytes()),
                JsonValue::Null => push_text(&mut self.bytes, &mut self.ends, &[]),
                _ => false,
            };
            if pushed {
                self.valid.push(item != JsonValue::Null);
            }
            pushed
        });
        if items == Ok(true) && self.close() {
            return true;
        }
        self.truncate(self.lists.len());
        false
    }

    /// Ends a list at the last item; false when there are too many.
    fn close(&mut self) -> bool {
        let end = i32::try_from(self.ends.len());
        end.map(|end| self.lists.push(end)).is_ok()
    }

    fn truncate(&mut self, rows: usize) {
        self.lists.truncate(rows);
        let items = last_end(&self.lists);
        self.ends.truncate(items);
        self.valid.truncate(items);
        self.bytes.truncate(last_end(&self.ends));
    }

    fn finish(self, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        let valid = NullBuffer::from(self.valid);
        let valid = (valid.null_count() > 0).then_some(valid);
        let items = StringArray::try_new(offsets(self.ends), Buffer::from_vec(self.bytes), valid)?;
        Ok(Arc::new(ListArray::try_new(Arc::new(text_item()), offsets(self.lists), Arc::new(items), nulls)?))
    }
}

fn last_end(ends: &[i32]) -> usize {
    ends.last().map_or(0, |end| usize::try_from(*end).expect("an end is not negative"))
}

/// The keys of the records: bytes, or none.
#[derive(Default)]
pub(crate) struct KeyBuffer {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    valid: Vec<bool>,
}

impl KeyBuffer {
    /// Adds a key; false when the column is full.
    pub(crate) fn push(&mut self, key: Option<&[u8]>) -> bool {
        let pushed = push_text(&mut self.bytes, &mut self.ends, key.unwrap_or_default());
        if pushed {
            self.valid.push(key.is_some());
        }
        pushed
    }

    pub(crate) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let nulls = NullBuffer::from(self.valid);
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        Ok(Arc::new(BinaryArray::try_new(offsets(self.ends), Buffer::from_vec(self.bytes), nulls)?))
    }
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let mut all = Vec::with_capacity(ends.len() + 1);
    all.push(0);
    all.extend(ends);
    OffsetBuffer::new(ScalarBuffer::from(all))
}

fn push_some<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    value.map(|value| values.push(value)).is_some()
}

fn push_text(bytes: &mut Vec<u8>, ends: &mut Vec<i32>, text: &[u8]) -> bool {
    let Ok(end) = i32::try_from(bytes.len() + text.len()) else { return false };
    bytes.extend_from_slice(text);
    ends.push(end);
    true
}

/// An integer without fraction or exponent: `5.0` and `1e3` are numbers of another type.
pub(crate) fn parse_int(text: &str) -> Option<i64> {
    text.parse::<i64>().ok()
}
