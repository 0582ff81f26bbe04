//! How the columns of a file are encoded, judged by its first rows.
//!
//! The Parquet library tries a dictionary everywhere and gives it up when its page is full, which in a file of 50,000 rows never
//! happens: each offset lay in a dictionary, with an index beside it. So a column has a dictionary only where that is shorter than the values
//! by themselves. By themselves whole numbers and times are differences (DELTA_BINARY_PACKED), all else is plain: what else there is
//! was not shorter under zstd, on the rows of the benches and of the demo's systems, and fewer readers know it.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::error::{LakeError, Result};
use crate::writer::CREATED_BY;

/// Rows that are looked at.
const SAMPLE_ROWS: usize = 4_096;
/// Differences that share a width, about: a block has 128 with four widths, or 256.
const BLOCK_VALUES: usize = 64;
/// Digits of a decimal that still lies in a file as a whole number of 64 bits.
const WHOLE_DIGITS_MAX: u8 = 18;

/// What all files of the lake have in common: zstd 1, statistics per page, and columns encoded as suits the file's first rows.
///
/// # Errors
/// `Bug`.
pub fn properties(first: &RecordBatch) -> Result<WriterPropertiesBuilder> {
    let level = ZstdLevel::try_new(1).map_err(|e| LakeError::bug(format!("zstd 1: {e}")))?;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(CREATED_BY.to_owned());
    let sample = first.slice(0, first.num_rows().min(SAMPLE_ROWS));
    for (field, column) in first.schema().fields().iter().zip(sample.columns()) {
        // the parts of these have paths of their own
        if field.data_type().is_nested() {
            continue;
        }
        let Encoded { dictionary, otherwise } =
            encoded(column).map_err(|e| LakeError::bug(format!("{} cannot be looked at: {e}", field.name())))?;
        let path = ColumnPath::new(vec![field.name().clone()]);
        properties = properties.set_column_dictionary_enabled(path.clone(), dictionary);
        if let Some(encoding) = otherwise {
            properties = properties.set_column_encoding(path, encoding);
        }
    }
    Ok(properties)
}

/// How a column is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Encoded {
    dictionary: bool,
    /// Without a dictionary, or when that is full; none: the library's own.
    otherwise: Option<Encoding>,
}

fn encoded(sample: &ArrayRef) -> Result<Encoded, ArrowError> {
    let values = sample.len() - sample.null_count();
    let (bits, distinct, otherwise) = match whole_numbers(sample)? {
        Some(numbers) => {
            let distinct = numbers.iter().collect::<HashSet<_>>().len();
            (difference_bits(&numbers), distinct, Some(Encoding::DELTA_BINARY_PACKED))
        }
        None => (plain_bits(sample, values), distinct_rows(sample)?, None),
    };
    Ok(Encoded { dictionary: values == 0 || is_shorter(bits, distinct, values), otherwise })
}

/// Whether a dictionary and an index per value are shorter than the values by themselves, which take so many bits each. What zstd
/// makes of them is left out: it treats a value in the dictionary as it treats one in the column.
fn is_shorter(bits: f64, distinct: usize, values: usize) -> bool {
    let index_bits = usize::BITS - distinct.saturating_sub(1).leading_zeros();
    f64::from(index_bits) + bits * distinct as f64 / (values as f64) < bits
}

/// Whether columns of a type lie in files as whole numbers of at most 64 bits.
pub fn is_whole(column: &DataType) -> bool {
    match column {
        DataType::Decimal128(digits, _) => *digits <= WHOLE_DIGITS_MAX,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => {
            true
        }
        other => other.is_integer(),
    }
}

/// The values of a column that lies in files as whole numbers, without null.
fn whole_numbers(column: &ArrayRef) -> Result<Option<Vec<i64>>, ArrowError> {
    if !is_whole(column.data_type()) {
        return Ok(None);
    }
    if let Some(decimals) = column.as_primitive_opt::<Decimal128Type>() {
        return Ok(Some(decimals.iter().flatten().filter_map(|at| i64::try_from(at).ok()).collect()));
    }
    Ok(Some(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().iter().flatten().collect()))
}

/// Bits of a value as DELTA_BINARY_PACKED has it: as many as the differences within a block are apart.
fn difference_bits(numbers: &[i64]) -> f64 {
    let differences: Vec<i64> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let width = |block: &[i64]| {
        let (least, most) =
            block.iter().fold((i64::MAX, i64::MIN), |(least, most), at| (least.min(*at), most.max(*at)));
        i64::BITS - most.wrapping_sub(least).leading_zeros()
    };
    let blocks = differences.chunks(BLOCK_VALUES);
    let bits: f64 = blocks.map(|block| f64::from(width(block)) * block.len() as f64).sum();
    bits / numbers.len().max(1) as f64
}

/// Bits of a value as PLAIN has it: texts with their lengths, as memory has them.
fn plain_bits(column: &ArrayRef, values: usize) -> f64 {
    let bytes = column.to_data().get_slice_memory_size().unwrap_or(0);
    8.0 * bytes as f64 / values.max(1) as f64
}

fn distinct_rows(column: &ArrayRef) -> Result<usize, ArrowError> {
    let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
    let rows = converter.convert_columns(std::slice::from_ref(column))?;
    Ok(rows.iter().collect::<HashSet<_>>().len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray,
        TimestampMillisecondArray,
    };

    use super::*;

    const ROWS: i64 = 4_096;

    /// Spread over all of `below`, the same in each run.
    fn spread(at: i64, below: i64) -> i64 {
        at.wrapping_mul(0x5851_f42d_4c95_7f2d).rotate_left(32).rem_euclid(below)
    }

    fn longs(of: impl Fn(i64) -> i64) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..ROWS).map(of)))
    }

    fn texts(of: impl Fn(i64) -> String) -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..ROWS).map(of)))
    }

    fn is_encoded(what: &str, column: &ArrayRef, dictionary: bool, differences: bool) {
        let otherwise = differences.then_some(Encoding::DELTA_BINARY_PACKED);
        assert_eq!(encoded(column).unwrap(), Encoded { dictionary, otherwise }, "{what}");
    }

    #[test]
    fn whole_numbers_and_times_are_differences_where_a_dictionary_is_no_shorter() {
        is_encoded("offsets", &longs(|at| at), false, true);
        is_encoded("one value", &longs(|_| 7), false, true);
        is_encoded("many values", &longs(|at| spread(at, 300_000)), false, true);
        is_encoded("few values", &longs(|at| [200, 404, 503][spread(at, 3) as usize]), true, true);
        is_encoded("rare jumps", &longs(|at| at + at / 500 * 1_000_000), false, true);
        is_encoded("as far apart as can be", &longs(|at| if at % 2 == 0 { i64::MIN } else { i64::MAX }), true, true);
        let times = (0..ROWS).map(|at| 1_793_491_200_000 + at * 432 + spread(at, 50));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC"));
        is_encoded("times", &times, false, true);
        let days: ArrayRef = Arc::new(Date32Array::from_iter_values((0..4_096).map(|at| 20_000 + at / 1_000)));
        is_encoded("days", &days, false, true);
        let prices = Decimal128Array::from_iter_values((0..ROWS).map(|at| i128::from(spread(at, 1_000_000))));
        let short: ArrayRef = Arc::new(prices.clone().with_precision_and_scale(18, 2).unwrap());
        is_encoded("short decimals", &short, false, true);
        let long: ArrayRef = Arc::new(prices.with_precision_and_scale(19, 2).unwrap());
        is_encoded("long decimals", &long, false, false);
        is_encoded("nothing", &longs(|at| at).slice(0, 0), true, true);
        is_encoded("null", &(Arc::new(Int32Array::new_null(100)) as ArrayRef), true, true);
    }

    #[test]
    fn all_else_is_plain_where_a_dictionary_is_no_shorter() {
        is_encoded("genres", &texts(|at| format!("genre {}", spread(at, 12))), true, false);
        is_encoded("tracks", &texts(|at| format!("track-{:06}", spread(at, 1_000_000))), false, false);
        is_encoded("names that come again", &texts(|at| format!("listener {}", spread(at, 2_000))), true, false);
        let floats = |below| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values((0..ROWS).map(|at| spread(at, below) as f64 / 7.0)))
        };
        is_encoded("few floats", &floats(900), true, false);
        is_encoded("many floats", &floats(1 << 40), false, false);
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]));
        assert_eq!(encoded(&flags).unwrap().otherwise, None);
    }
}
