//! Rows that are kept in memory as a file has them: encoded column by column, a tenth of what they take as Arrow has them, and read by
//! the columns that a query asks for as fast as settled rows are.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{FieldRef, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::encodings::is_whole;
use crate::error::{LakeError, Result};

/// A dictionary that is larger is given up: the column has too many values for one to be shorter.
const DICTIONARY_BYTES_MAX: usize = 32 << 10;

/// Encoded rows of one schema.
#[derive(Clone, Debug)]
pub struct EncodedRows {
    file: Bytes,
    /// Read once: a query would take as long for it as for the rows.
    footer: ArrowReaderMetadata,
}

impl EncodedRows {
    /// Encodes rows, whose columns have types that files have ([`crate::layout::file_type`]) or views of them. Milliseconds for some thousand.
    ///
    /// # Errors
    /// `Bug` for a type that files have not.
    pub fn of(rows: &RecordBatch) -> Result<Self> {
        Self::encode(rows).map_err(|e| LakeError::bug(format!("live rows cannot be kept: {e}")))
    }

    fn encode(rows: &RecordBatch) -> Result<Self, ParquetError> {
        let schema = rows.schema();
        // the types are known, so that they need not be in each file
        let options = ArrowWriterOptions::new().with_properties(properties(&schema)?).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema.clone(), options)?;
        writer.write(rows)?;
        let file = Bytes::from(writer.into_inner()?.into_boxed_slice());
        let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new().with_schema(schema))?;
        Ok(Self { file, footer })
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        self.file.len() + self.footer.metadata().memory_size()
    }

    /// All rows, with these columns in this order.
    ///
    /// # Errors
    /// `Bug` when what was encoded cannot be read.
    pub fn read(&self, columns: &[usize]) -> Result<RecordBatch> {
        self.decode(columns).map_err(|e| LakeError::bug(format!("live rows that were kept cannot be read: {e}")))
    }

    fn decode(&self, columns: &[usize]) -> Result<RecordBatch, ParquetError> {
        // a reader gives columns as the file has them
        let mut in_file = columns.to_vec();
        in_file.sort_unstable();
        in_file.dedup();
        let footer = &self.footer;
        let count = usize::try_from(footer.metadata().file_metadata().num_rows()).unwrap_or(0);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), footer.clone())
            .with_projection(ProjectionMask::roots(footer.parquet_schema(), in_file.iter().copied()))
            .with_batch_size(count.max(1))
            .build()?;
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        let rows = concat_batches(&Arc::new(footer.schema().project(&in_file)?), &batches)?;
        let order: Vec<usize> = columns.iter().filter_map(|column| in_file.binary_search(column).ok()).collect();
        Ok(rows.project(&order)?)
    }
}

/// Whole numbers and times as differences, text by a dictionary where it is short, all under zstd 1.
fn properties(schema: &SchemaRef) -> Result<WriterProperties, ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    let whole = schema.fields().iter().filter(|field| is_whole(field.data_type()));
    let as_differences = |properties: WriterPropertiesBuilder, field: &FieldRef| {
        let path = ColumnPath::new(vec![field.name().clone()]);
        properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
    };
    Ok(whole.fold(properties, as_differences).build())
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Array, ArrayRef, BinaryViewArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray,
        StringArray, StringViewArray, StructArray,
    };
    use arrow::compute::cast;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};

    use super::*;

    const ROWS: i64 = 5_000;

    /// Values and nulls of each type that a column can have in memory; text that comes again, and text that does not.
    fn columns() -> Vec<ArrayRef> {
        let numbers: ArrayRef =
            Arc::new((0..ROWS).map(|at| (at % 7 != 0).then_some(at * at % 100)).collect::<Int64Array>());
        let zone = Some("+00:00".into());
        let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        let times = units.into_iter().flat_map(|unit| [None, zone.clone()].map(|zone| DataType::Timestamp(unit, zone)));
        let whole = [
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::UInt8,
            DataType::UInt16,
            DataType::UInt32,
            DataType::UInt64,
            DataType::Float32,
            DataType::Date64,
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Time64(TimeUnit::Nanosecond),
            DataType::Decimal128(18, 2),
            DataType::Decimal128(30, 4),
        ];
        let mut columns: Vec<ArrayRef> =
            whole.into_iter().chain(times).map(|kind| cast(&numbers, &kind).unwrap()).collect();
        let days = cast(&numbers, &DataType::Int32).unwrap();
        let narrow = [DataType::Date32, DataType::Time32(TimeUnit::Second), DataType::Time32(TimeUnit::Millisecond)];
        columns.extend(narrow.map(|kind| cast(&days, &kind).unwrap()));
        let text = |at: i64| (at % 5 != 0).then(|| format!("a text of many letters {}", at % 11));
        let parts = StructArray::from(vec![
            (Arc::new(Field::new("n", DataType::Int64, true)), numbers.clone()),
            (
                Arc::new(Field::new("t", DataType::Utf8, true)),
                Arc::new((0..ROWS).map(text).collect::<StringArray>()) as _,
            ),
        ]);
        let lists = (0..ROWS).map(|at| (at % 3 != 0).then(|| vec![Some(at), None]));
        columns.extend([
            Arc::new((0..ROWS).map(|at| (at % 2 == 0).then_some(at % 4 == 0)).collect::<BooleanArray>()) as ArrayRef,
            Arc::new((0..ROWS).map(|at| Some(at as f64 / 7.0)).collect::<Float64Array>()),
            Arc::new((0..ROWS).map(text).collect::<StringViewArray>()),
            Arc::new((0..ROWS).map(|at| Some(format!("{at} is said by itself"))).collect::<StringViewArray>()),
            Arc::new((0..ROWS).map(|at| text(at).map(String::into_bytes)).collect::<BinaryViewArray>()),
            Arc::new(StringViewArray::new_null(ROWS as usize)),
            Arc::new(
                Decimal128Array::from_iter_values((0..ROWS).map(i128::from)).with_precision_and_scale(38, 9).unwrap(),
            ),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)),
            Arc::new(parts),
        ]);
        columns
    }

    fn rows() -> RecordBatch {
        let columns = columns();
        let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("c{at}.x"), column.data_type().clone(), true);
        let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn rows_are_read_as_they_were() {
        let rows = rows();
        let all: Vec<usize> = (0..rows.num_columns()).collect();
        let encoded = EncodedRows::of(&rows).unwrap();
        assert_eq!(encoded.read(&all).unwrap(), rows);
        let slice = rows.slice(17, 100);
        assert_eq!(EncodedRows::of(&slice).unwrap().read(&all).unwrap(), slice);
        let none = rows.slice(0, 0);
        assert_eq!(EncodedRows::of(&none).unwrap().read(&all).unwrap(), none);
    }

    #[test]
    fn columns_come_in_the_order_they_are_asked_for() {
        let rows = rows();
        let encoded = EncodedRows::of(&rows).unwrap();
        for columns in [&[3][..], &[25, 2, 9], &[0, 7], &[]] {
            let read = encoded.read(columns).unwrap();
            assert_eq!((read.clone(), read.num_rows()), (rows.project(columns).unwrap(), ROWS as usize));
        }
    }

    #[test]
    fn they_take_a_part_of_their_memory() {
        let (rows, encoded) = (rows(), EncodedRows::of(&rows()).unwrap());
        assert!(
            encoded.bytes() * 5 < rows.get_array_memory_size(),
            "{} of {}",
            encoded.bytes(),
            rows.get_array_memory_size()
        );
    }
}
