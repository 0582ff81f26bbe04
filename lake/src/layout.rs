//! Slices of rows: which directory each row belongs to, and the schemas that follow.
//!
//! A column that is a level is not in the file: pyarrow refuses to read it from both, Hive cannot declare it twice, Spark
//! and DuckDB would take the directory's.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Int32Array, Int64Array, PrimitiveArray, RecordBatch,
    StringArray, UInt32Array,
};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::row::{OwnedRow, RowConverter, SortField};

use crate::config::SliceColumn;
use crate::error::{LakeError, Result};
use crate::slice::{Level, Value, civil};
use crate::text_views::{plain_type, with_views};

const DAY_MS: i64 = 86_400_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Date,
    Year,
    Month,
    Day,
}

#[derive(Clone, Debug)]
enum From {
    EventTime(Part),
    Column(usize),
}

/// How a table's rows are sliced. Holds: the levels and the schemas they lead to.
#[derive(Clone, Debug)]
pub struct Layout {
    levels: Vec<(Field, From)>,
    event_time: Option<usize>,
    rows: SchemaRef,
    file: SchemaRef,
    table: SchemaRef,
    viewed: SchemaRef,
}

/// Rows of one slice.
pub struct Sliced {
    /// Where they belong.
    pub levels: Vec<Level>,
    /// The rows, in their order, without the columns that are levels.
    pub rows: RecordBatch,
    /// Smallest and largest event time, in ms since 1970; none when all are null.
    pub event_ms: Option<(i64, i64)>,
}

impl Layout {
    /// The layout of rows of schema `rows` with `event_time` as event time.
    ///
    /// # Errors
    /// `Config` for a column that is not there, is named twice or has a type that no directory can stand for.
    pub fn new(rows: SchemaRef, event_time: &str, slice: &[SliceColumn]) -> Result<Self> {
        let event_time = rows
            .index_of(event_time)
            .ok()
            .filter(|index| matches!(rows.field(*index).data_type(), DataType::Timestamp(_, _)))
            .ok_or_else(|| {
                LakeError::config(format!(
                    "event time {event_time} is not a TIMESTAMP column: declare it in the stream"
                ))
            })?;
        Self::build(rows, Some(event_time), slice)
    }

    /// The layout of rows that have no event time: every level is one of their columns.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn of_columns(rows: SchemaRef, slice: &[SliceColumn]) -> Result<Self> {
        Self::build(rows, None, slice)
    }

    fn build(rows: SchemaRef, event_time: Option<usize>, slice: &[SliceColumn]) -> Result<Self> {
        let mut levels: Vec<(Field, From)> = Vec::new();
        for column in slice {
            for level in levels_of(&rows, column)? {
                if levels.iter().any(|(field, _)| field.name() == level.0.name()) {
                    return Err(LakeError::config(format!(
                        "slice column {} is named twice: name it once",
                        level.0.name()
                    )));
                }
                levels.push(level);
            }
        }
        let derived = levels.iter().find(|(_, from)| matches!(from, From::EventTime(_)));
        if let (Some((field, _)), None) = (derived, event_time) {
            let name = field.name();
            return Err(LakeError::config(format!("slice column {name} is not in the result: select it AS {name}")));
        }
        let is_level = |name: &str| levels.iter().any(|(field, _)| field.name() == name);
        let in_file = rows.fields().iter().filter(|field| !is_level(field.name()));
        let file = Arc::new(Schema::new(in_file.map(|field| file_field(field)).collect::<Vec<_>>()));
        let derived =
            levels.iter().filter(|(_, from)| matches!(from, From::EventTime(_))).map(|(field, _)| field.clone());
        let table = rows.fields().iter().map(|field| file_field(field)).chain(derived);
        let table = Arc::new(Schema::new(table.collect::<Vec<_>>()));
        let viewed = with_views(&table);
        Ok(Self { levels, event_time, rows, file, table, viewed })
    }

    /// What is split: the rows' columns.
    pub fn row_schema(&self) -> &SchemaRef {
        &self.rows
    }

    /// What the files hold: the rows' columns but the levels.
    pub fn file_schema(&self) -> &SchemaRef {
        &self.file
    }

    /// What SQL sees: the rows' columns, then the levels that are parts of the event time.
    pub fn table_schema(&self) -> &SchemaRef {
        &self.table
    }

    /// The same as a query reads them: text and bytes as views, or as they are declared.
    pub fn read_schema(&self, views: bool) -> &SchemaRef {
        if views { &self.viewed } else { &self.table }
    }

    /// Name of the event-time column; empty without one.
    pub fn event_time(&self) -> &str {
        self.event_time.map_or("", |at| self.rows.field(at).name())
    }

    /// Names of the columns that are levels, outermost first.
    pub fn level_names(&self) -> Vec<&str> {
        self.levels.iter().map(|(field, _)| field.name().as_str()).collect()
    }

    /// The columns that are levels, with the types their directories have.
    pub fn level_fields(&self) -> impl Iterator<Item = &Field> {
        self.levels.iter().map(|(field, _)| field)
    }

    /// Whether a column of the table is a part of the event time and not declared.
    pub fn is_derived(&self, column: &str) -> bool {
        self.part(column).is_some()
    }

    /// Splits rows by slice; slices come in the order in which they appear.
    ///
    /// # Errors
    /// `Bug` when the rows are not of this layout's schema.
    pub fn split(&self, rows: &RecordBatch) -> Result<Vec<Sliced>> {
        if rows.schema().fields() != self.rows.fields() {
            return Err(LakeError::bug(format!("rows have the schema {:?} instead of {:?}", rows.schema(), self.rows)));
        }
        let event_ms = match self.event_time {
            Some(at) => event_ms(rows.column(at)).map_err(arrow_bug)?,
            None => PrimitiveArray::new_null(rows.num_rows()),
        };
        let keys: Vec<ArrayRef> = self
            .levels
            .iter()
            .map(|(field, from)| match from {
                From::EventTime(part) => Ok(derive(&event_ms, *part)),
                From::Column(index) => cast(rows.column(*index), field.data_type()).map_err(arrow_bug),
            })
            .collect::<Result<_>>()?;
        let mut slices = Vec::new();
        for indices in groups(&keys, rows.num_rows())? {
            let first = usize::try_from(indices[0]).expect("a row number fits");
            let level = |((field, from), key): (&(Field, From), &ArrayRef)| Level {
                column: field.name().clone(),
                derived: matches!(from, From::EventTime(_)),
                value: value_at(key, first),
            };
            let levels = self.levels.iter().zip(&keys).map(level).collect();
            let valid = indices.iter().filter_map(|at| usize::try_from(*at).ok()).filter(|at| event_ms.is_valid(*at));
            let range = valid.map(|at| event_ms.value(at)).fold(None, widen);
            let rows = if indices.len() == rows.num_rows() {
                rows.clone()
            } else {
                take_record_batch(rows, &UInt32Array::from(indices)).map_err(arrow_bug)?
            };
            slices.push(Sliced { levels, rows: self.to_file(&rows)?, event_ms: range });
        }
        Ok(slices)
    }

    /// Rows as the files hold them.
    fn to_file(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        project_to(rows, &self.file).map_err(arrow_bug)
    }

    /// Rows with any columns of the table, in the table's order and with text as views; parts of the event time are made anew.
    ///
    /// # Errors
    /// `Bug` when a declared column is missing.
    pub fn complete(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let times = rows.column_by_name(self.event_time()).ok_or_else(|| LakeError::bug("rows without event time"))?;
        let event_ms = event_ms(times).map_err(arrow_bug)?;
        let column = |field: &Arc<Field>| match self.part(field.name()) {
            Some(part) => Ok(derive(&event_ms, part)),
            None => {
                let column = rows.column_by_name(field.name());
                let column = column.ok_or_else(|| LakeError::bug(format!("rows without {}", field.name())))?;
                cast(column, field.data_type()).map_err(arrow_bug)
            }
        };
        let columns = self.viewed.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.viewed.clone(), columns).map_err(arrow_bug)
    }

    /// The part of the event time that a column of the table is, if it is one.
    fn part(&self, column: &str) -> Option<Part> {
        self.levels.iter().find(|(field, _)| field.name() == column).and_then(|(_, from)| match from {
            From::EventTime(part) => Some(*part),
            From::Column(_) => None,
        })
    }
}

fn levels_of(rows: &Schema, column: &SliceColumn) -> Result<Vec<(Field, From)>> {
    let declared = |name: &str| -> Result<Option<(Field, From)>> {
        let Ok(index) = rows.index_of(name) else { return Ok(None) };
        let key = key_type(rows.field(index).data_type()).ok_or_else(|| {
            LakeError::config(format!(
                "slice column {name} is {}: only text, whole numbers, booleans and dates can be directories",
                rows.field(index).data_type()
            ))
        })?;
        Ok(Some((Field::new(name, key, true), From::Column(index))))
    };
    let part = |name: &str, part: Part| -> Result<(Field, From)> {
        let key = if part == Part::Date { DataType::Date32 } else { DataType::Int32 };
        Ok(declared(name)?.unwrap_or_else(|| (Field::new(name, key, true), From::EventTime(part))))
    };
    match column {
        SliceColumn::Date => Ok(vec![part("date", Part::Date)?]),
        SliceColumn::YearMonthDay => {
            Ok(vec![part("year", Part::Year)?, part("month", Part::Month)?, part("day", Part::Day)?])
        }
        SliceColumn::Column(name) => declared(name)?.map(|level| vec![level]).ok_or_else(|| {
            let names: Vec<_> = rows.fields().iter().map(|field| field.name().as_str()).collect();
            LakeError::config(format!(
                "slice column {name} is not declared: name date, year/month/day or one of {}",
                names.join(", ")
            ))
        }),
    }
}

/// The type by which a column's values are told apart and named.
fn key_type(column: &DataType) -> Option<DataType> {
    match column {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
        DataType::Dictionary(_, value) => key_type(value),
        DataType::Boolean => Some(DataType::Boolean),
        DataType::Date32 => Some(DataType::Date32),
        DataType::UInt64 => None,
        whole if whole.is_integer() => Some(DataType::Int64),
        _ => None,
    }
}

/// Types as every reader of Parquet knows them.
pub fn file_type(column: &DataType) -> DataType {
    match column {
        DataType::LargeUtf8 => DataType::Utf8,
        DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => file_type(value),
        other => plain_type(other),
    }
}

/// Columns are nullable in files and tables: what is required today may be optional tomorrow.
fn file_field(field: &Field) -> Field {
    Field::new(field.name(), file_type(field.data_type()), true)
}

fn project_to(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let column = rows.column(rows.schema().index_of(field.name())?);
        if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// Event times in ms since 1970, finer units rounded down, before 1970 too.
fn event_ms(column: &ArrayRef) -> Result<PrimitiveArray<TimestampMillisecondType>, arrow::error::ArrowError> {
    let whole = cast(column, &DataType::Int64)?;
    let whole = whole.as_primitive::<Int64Type>();
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => whole.unary(|at| at.saturating_mul(1_000)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => whole.unary(|at| at.div_euclid(1_000)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => whole.unary(|at| at.div_euclid(1_000_000)),
        _ => whole.unary(|at| at),
    })
}

fn derive(event_ms: &PrimitiveArray<TimestampMillisecondType>, part: Part) -> ArrayRef {
    let day = |at: i64| i32::try_from(at.div_euclid(DAY_MS)).ok();
    if part == Part::Date {
        let days: Date32Array = event_ms.iter().map(|at| at.and_then(day)).collect();
        return Arc::new(days);
    }
    let pick = |days: i32| {
        let (year, month, day) = civil(days);
        match part {
            Part::Year => year,
            Part::Month => month,
            _ => day,
        }
    };
    let parts: Int32Array = event_ms.iter().map(|at| at.and_then(day).map(pick)).collect();
    Arc::new(parts)
}

/// Row numbers by equal keys, in the order of their first rows.
fn groups(keys: &[ArrayRef], rows: usize) -> Result<Vec<Vec<u32>>> {
    let count = u32::try_from(rows).map_err(|_| LakeError::bug(format!("{rows} rows at once")))?;
    if rows == 0 {
        return Ok(Vec::new());
    }
    if keys.is_empty() {
        return Ok(vec![(0..count).collect()]);
    }
    let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(arrow_bug)?;
    let encoded = converter.convert_columns(keys).map_err(arrow_bug)?;
    let mut known: HashMap<OwnedRow, usize> = HashMap::new();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    let mut last: Option<(usize, usize)> = None;
    for (at, row) in (0..count).zip(encoded.iter()) {
        let index = usize::try_from(at).expect("a row number fits");
        // neighbours often share their slice: spare them the look-up
        let group = match last {
            Some((before, group)) if encoded.row(before) == row => group,
            _ => *known.entry(row.owned()).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            }),
        };
        groups[group].push(at);
        last = Some((index, group));
    }
    Ok(groups)
}

fn widen(range: Option<(i64, i64)>, at: i64) -> Option<(i64, i64)> {
    Some(range.map_or((at, at), |(least, most)| (least.min(at), most.max(at))))
}

fn value_at(keys: &ArrayRef, at: usize) -> Value {
    if keys.is_null(at) {
        return Value::Null;
    }
    let any = keys.as_any();
    if let Some(text) = any.downcast_ref::<StringArray>() {
        Value::Text(text.value(at).to_owned())
    } else if let Some(days) = any.downcast_ref::<PrimitiveArray<Date32Type>>() {
        Value::Date(days.value(at))
    } else if let Some(flags) = any.downcast_ref::<BooleanArray>() {
        Value::Bool(flags.value(at))
    } else if let Some(whole) = any.downcast_ref::<Int32Array>() {
        Value::Int(whole.value(at).into())
    } else if let Some(whole) = any.downcast_ref::<Int64Array>() {
        Value::Int(whole.value(at))
    } else {
        Value::Null
    }
}

fn arrow_bug(error: arrow::error::ArrowError) -> LakeError {
    LakeError::bug(format!("rows cannot be sliced: {error}"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, TimestampMillisecondArray};

    use super::*;
    use crate::slice::{directory, empty_levels};

    fn rows(times: Vec<Option<i64>>, genres: Vec<Option<&str>>) -> RecordBatch {
        let count = times.len();
        let schema = Arc::new(Schema::new(vec![
            Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
            Field::new("genre", DataType::Utf8, true),
            Field::new("price", DataType::Float64, true),
            Field::new("_offset", DataType::Int64, false),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC")),
            Arc::new(StringArray::from(genres)),
            Arc::new(Float64Array::from(vec![1.5; count])),
            Arc::new(Int64Array::from_iter_values(0..count as i64)),
        ];
        RecordBatch::try_new(schema, columns).unwrap()
    }

    #[test]
    fn rows_are_split_by_slice_and_lose_the_sliced_columns() {
        let rows = rows(
            vec![Some(0), Some(-1), Some(86_399_999), None, Some(5)],
            vec![Some("jazz"), Some("jazz"), Some("jazz"), None, Some("")],
        );
        let slice = [SliceColumn::Date, SliceColumn::Column("genre".into())];
        let layout = Layout::new(rows.schema(), "ts", &slice).unwrap();
        let split = layout.split(&rows).unwrap();
        let told: Vec<_> = split
            .iter()
            .map(|s| (directory(&s.levels), empty_levels(&s.levels), s.rows.num_rows(), s.event_ms))
            .collect();
        let null = "date=__HIVE_DEFAULT_PARTITION__/genre=__HIVE_DEFAULT_PARTITION__".to_owned();
        assert_eq!(
            told,
            [
                ("date=1970-01-01/genre=jazz".to_owned(), 0, 2, Some((0, 86_399_999))),
                ("date=1969-12-31/genre=jazz".to_owned(), 0, 1, Some((-1, -1))),
                (null, 0, 1, None),
                ("date=1970-01-01/genre=__HIVE_DEFAULT_PARTITION__".to_owned(), 2, 1, Some((5, 5))),
            ]
        );
        let names = |schema: &Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
        assert_eq!(names(&split[0].rows.schema()), ["ts", "price", "_offset"]);
        assert_eq!(names(layout.table_schema()), ["ts", "genre", "price", "_offset", "date"]);
        let table = layout.complete(&rows).unwrap();
        assert_eq!(table.column(4).as_primitive::<Date32Type>().value(1), -1);
        assert!(table.column(4).is_null(3));
    }

    #[test]
    fn year_month_day_have_no_leading_zeros() {
        let rows = rows(vec![Some(1_767_323_045_000)], vec![None]);
        let layout = Layout::new(rows.schema(), "ts", &[SliceColumn::YearMonthDay]).unwrap();
        assert_eq!(directory(&layout.split(&rows).unwrap()[0].levels), "year=2026/month=1/day=2");
    }

    #[test]
    fn wrong_slice_columns_are_refused_with_the_way_out() {
        let schema = rows(vec![], vec![]).schema();
        let refused = |slice: &[SliceColumn]| Layout::new(schema.clone(), "ts", slice).unwrap_err().message;
        assert!(refused(&[SliceColumn::Column("price".into())]).contains("only text, whole numbers"));
        assert!(refused(&[SliceColumn::Column("gnre".into())]).contains("one of ts, genre"));
        assert!(refused(&[SliceColumn::Date, SliceColumn::Date]).contains("named twice"));
        assert!(Layout::new(schema.clone(), "genre", &[]).unwrap_err().message.contains("not a TIMESTAMP"));
    }
}
