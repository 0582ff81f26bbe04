//! A published file as a manifest has it: where it is, its slice, and what its footer says of the columns.

use std::collections::HashMap;

use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, Literal, PartitionSpec, PrimitiveType, Schema,
    Struct,
};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::{LogicalType, TimeUnit};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;

use super::LakeFile;
use crate::error::{LakeError, Result};
use crate::objects::Objects;
use crate::slice::Value;

/// Longest bound of a text that is kept, in bytes: bounds are for skipping files.
const BOUND_BYTES_MAX: usize = 64;

/// Reads the footer at `at` and describes the file, which manifests name by `url`.
///
/// # Errors
/// `Destination` when the footer cannot be read, `Bug` when the slice does not fit the partitioning.
pub async fn describe(
    objects: &Objects,
    (file, at, url): (&LakeFile, &str, &str),
    (schema, spec): (&Schema, &PartitionSpec),
) -> Result<DataFile> {
    let mut reader = objects.reader(at, file.bytes)?;
    let footer = reader.get_metadata(None).await;
    let footer = footer.map_err(|e| LakeError::destination(format!("the footer of {at} cannot be read: {e}")))?;
    let columns = Columns::of(&footer, schema);
    let built = DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(url.to_owned())
        .file_format(DataFileFormat::Parquet)
        .partition(slice_of(file, schema, spec)?)
        .partition_spec_id(spec.spec_id())
        .record_count(file.rows)
        .file_size_in_bytes(file.bytes)
        .column_sizes(columns.sizes)
        .value_counts(columns.values)
        .null_value_counts(columns.nulls)
        .lower_bounds(columns.lower)
        .upper_bounds(columns.upper)
        .split_offsets(Some(row_groups(&footer)))
        .build();
    built.map_err(|e| LakeError::bug(format!("{url} in a manifest: {e}")))
}

/// Where the row groups begin: readers share a large file out by them.
fn row_groups(footer: &ParquetMetaData) -> Vec<i64> {
    let start = |column: &ColumnChunkMetaData| {
        column.dictionary_page_offset().map_or(column.data_page_offset(), |at| at.min(column.data_page_offset()))
    };
    let mut starts: Vec<i64> =
        footer.row_groups().iter().filter_map(|group| group.columns().iter().map(start).min()).collect();
    starts.sort_unstable();
    starts
}

/// The values of the columns that are not in the file.
fn slice_of(file: &LakeFile, schema: &Schema, spec: &PartitionSpec) -> Result<Struct> {
    let value = |source: i32| -> Result<Option<Literal>> {
        let misfit = || LakeError::bug(format!("the slice of {} does not fit its table: {:?}", file.path, file.levels));
        let field = schema.field_by_id(source).ok_or_else(misfit)?;
        let kind = field.field_type.as_primitive_type().ok_or_else(misfit)?;
        let level = file.levels.iter().find(|level| level.column == field.name).ok_or_else(misfit)?;
        Ok(Some(match (&level.value, kind) {
            (Value::Null, _) => return Ok(None),
            (Value::Text(text), PrimitiveType::String) => Literal::string(text),
            (Value::Int(whole), PrimitiveType::Int) => Literal::int(i32::try_from(*whole).map_err(|_| misfit())?),
            (Value::Int(whole), PrimitiveType::Long) => Literal::long(*whole),
            (Value::Bool(flag), PrimitiveType::Boolean) => Literal::bool(*flag),
            (Value::Date(days), PrimitiveType::Date) => Literal::date(*days),
            _ => return Err(misfit()),
        }))
    };
    spec.fields().iter().map(|field| value(field.source_id)).collect()
}

/// What the footer says, by the columns' ids.
#[derive(Debug, Default)]
struct Columns {
    sizes: HashMap<i32, u64>,
    values: HashMap<i32, u64>,
    nulls: HashMap<i32, u64>,
    lower: HashMap<i32, Datum>,
    upper: HashMap<i32, Datum>,
}

impl Columns {
    fn of(footer: &ParquetMetaData, schema: &Schema) -> Self {
        let mut found = Self::default();
        for (at, column) in footer.file_metadata().schema_descr().columns().iter().enumerate() {
            // what is inside lists and structs is found by reading
            let [name] = column.path().parts() else { continue };
            let Some(field) = schema.as_struct().fields().iter().find(|field| field.name == *name) else { continue };
            let Some(kind) = field.field_type.as_primitive_type() else { continue };
            let chunks: Vec<&ColumnChunkMetaData> = footer.row_groups().iter().map(|group| group.column(at)).collect();
            found.take(field.id, kind, &chunks);
        }
        found
    }

    fn take(&mut self, id: i32, kind: &PrimitiveType, chunks: &[&ColumnChunkMetaData]) {
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        self.sizes.insert(id, chunks.iter().map(|chunk| unsigned(chunk.compressed_size())).sum());
        self.values.insert(id, chunks.iter().map(|chunk| unsigned(chunk.num_values())).sum());
        let nulls: Option<Vec<u64>> =
            chunks.iter().map(|chunk| chunk.statistics().and_then(Statistics::null_count_opt)).collect();
        let Some(nulls) = nulls else { return };
        self.nulls.insert(id, nulls.iter().sum());
        // chunks without a value have no bounds
        let filled = chunks.iter().zip(&nulls).filter(|(chunk, nulls)| unsigned(chunk.num_values()) > **nulls);
        let filled: Vec<&ColumnChunkMetaData> = filled.map(|(chunk, _)| *chunk).collect();
        let bounds =
            |least: bool| -> Option<Vec<Datum>> { filled.iter().map(|chunk| bound(chunk, kind, least)).collect() };
        let (Some(lower), Some(upper)) = (bounds(true), bounds(false)) else { return };
        if let Some(least) = lower.into_iter().reduce(|one, other| if other < one { other } else { one }) {
            self.lower.insert(id, least);
        }
        if let Some(largest) = upper.into_iter().reduce(|one, other| if other > one { other } else { one }) {
            self.upper.insert(id, largest);
        }
    }
}

/// The least or largest value of a chunk, if it is known.
fn bound(chunk: &ColumnChunkMetaData, kind: &PrimitiveType, least: bool) -> Option<Datum> {
    fn pick<T: Copy>(least: bool, min: Option<&T>, max: Option<&T>) -> Option<T> {
        if least { min.copied() } else { max.copied() }
    }
    let statistics = chunk.statistics()?;
    let micros = match chunk.column_descr().logical_type_ref() {
        Some(LogicalType::Timestamp { unit, .. }) if *unit == TimeUnit::MILLIS => 1_000,
        _ => 1,
    };
    match (kind, statistics) {
        (PrimitiveType::Boolean, Statistics::Boolean(of)) => pick(least, of.min_opt(), of.max_opt()).map(Datum::bool),
        (PrimitiveType::Int, Statistics::Int32(of)) => pick(least, of.min_opt(), of.max_opt()).map(Datum::int),
        (PrimitiveType::Date, Statistics::Int32(of)) => pick(least, of.min_opt(), of.max_opt()).map(Datum::date),
        (PrimitiveType::Long, Statistics::Int32(of)) => pick(least, of.min_opt(), of.max_opt()).map(Datum::long),
        (PrimitiveType::Long, Statistics::Int64(of)) => pick(least, of.min_opt(), of.max_opt()).map(Datum::long),
        (PrimitiveType::Float, Statistics::Float(of)) => pick(least, of.min_opt(), of.max_opt()).map(Datum::float),
        (PrimitiveType::Double, Statistics::Float(of)) => pick(least, of.min_opt(), of.max_opt()).map(Datum::double),
        (PrimitiveType::Double, Statistics::Double(of)) => pick(least, of.min_opt(), of.max_opt()).map(Datum::double),
        (PrimitiveType::Timestamptz, Statistics::Int64(of)) => {
            pick(least, of.min_opt(), of.max_opt())?.checked_mul(micros).map(Datum::timestamptz_micros)
        }
        (PrimitiveType::Timestamp, Statistics::Int64(of)) => {
            pick(least, of.min_opt(), of.max_opt())?.checked_mul(micros).map(Datum::timestamp_micros)
        }
        (PrimitiveType::Decimal { .. }, Statistics::Int32(of)) => {
            whole(pick(least, of.min_opt(), of.max_opt())?.into(), kind)
        }
        (PrimitiveType::Decimal { .. }, Statistics::Int64(of)) => whole(pick(least, of.min_opt(), of.max_opt())?, kind),
        (PrimitiveType::String | PrimitiveType::Binary, Statistics::ByteArray(of)) => {
            let bytes = if least { of.min_opt() } else { of.max_opt() }?.data();
            (bytes.len() <= BOUND_BYTES_MAX).then(|| Datum::try_from_bytes(bytes, kind.clone()).ok()).flatten()
        }
        _ => None,
    }
}

/// A decimal by its digits.
fn whole(digits: i64, kind: &PrimitiveType) -> Option<Datum> {
    Datum::try_from_bytes(&digits.to_be_bytes(), kind.clone()).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampMillisecondArray,
    };
    use parquet::arrow::ArrowWriter;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::super::columns::schema_of;
    use super::*;
    use crate::writer::properties;

    #[test]
    fn bounds_and_counts_are_those_of_all_row_groups() {
        let moments = TimestampMillisecondArray::from(vec![Some(-5), None, Some(7), Some(1)]).with_timezone("UTC");
        let decimals = Decimal128Array::from(vec![Some(-250), Some(100), None, Some(1)]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("ts", Arc::new(moments)),
            ("n", Arc::new(Int64Array::from(vec![Some(3), Some(9), Some(-1), None]))),
            ("text", Arc::new(StringArray::from(vec![Some("b"), Some("ä"), Some("a"), None]))),
            ("day", Arc::new(Date32Array::from(vec![1, 2, 3, 0]))),
            ("flag", Arc::new(BooleanArray::from(vec![true, false, true, true]))),
            ("price", Arc::new(decimals.with_precision_and_scale(9, 2).unwrap())),
            ("x", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(f64::NAN), Some(-2.0)]))),
            ("none", Arc::new(Int64Array::from(vec![None::<i64>; 4]))),
        ];
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, of)| (name, of, true))).unwrap();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), Some(properties(&rows).unwrap())).unwrap();
        for at in [0, 2] {
            writer.write(&rows.slice(at, 2)).unwrap();
            writer.flush().unwrap();
        }
        writer.close().unwrap();
        let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
        let schema = schema_of(None, &rows.schema()).unwrap();
        let found = Columns::of(reader.metadata(), &schema);
        let id = |name: &str| schema.field_id_by_name(name).unwrap();
        let bounds = |name: &str| {
            let text = |of: &HashMap<i32, Datum>| of.get(&id(name)).map(|datum| datum.to_string());
            (text(&found.lower), text(&found.upper))
        };
        let some = |low: &str, high: &str| (Some(low.to_owned()), Some(high.to_owned()));
        assert_eq!(bounds("n"), some("-1", "9"));
        assert_eq!(bounds("text"), some("\"a\"", "\"ä\""));
        assert_eq!(bounds("day"), some("1970-01-01", "1970-01-04"));
        assert_eq!(bounds("flag"), some("false", "true"));
        assert_eq!(bounds("none"), (None, None));
        assert_eq!(found.lower[&id("ts")], Datum::timestamptz_micros(-5_000));
        assert_eq!(found.upper[&id("ts")], Datum::timestamptz_micros(7_000));
        let price = PrimitiveType::Decimal { precision: 9, scale: 2 };
        assert_eq!(found.lower[&id("price")], whole(-250, &price).unwrap());
        assert_eq!(found.upper[&id("price")], whole(100, &price).unwrap());
        assert_eq!(bounds("x"), some("-2", "1.5"), "a NaN bounds nothing");
        let counts = |of: &HashMap<i32, u64>, name: &str| of[&id(name)];
        assert_eq!((counts(&found.values, "n"), counts(&found.nulls, "n"), counts(&found.nulls, "none")), (4, 1, 4));
        assert!(counts(&found.sizes, "text") > 0);
        let starts = row_groups(reader.metadata());
        assert!(starts.len() == 2 && starts[0] == 4 && starts[1] > 4, "{starts:?}");
    }
}
