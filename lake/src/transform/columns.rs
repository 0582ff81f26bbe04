//! The columns of a result as its files have them: types that every reader of Parquet knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::{LakeError, Result};
use crate::layout::file_type;

/// The type of moments: Spark reads nanoseconds not at all, and moments without a zone as local time.
pub fn moment() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The columns of a result, all nullable.
///
/// # Errors
/// `Config` for a column without a type, with one that no file can hold, or with the name of another.
pub fn columns(result: &Schema) -> Result<SchemaRef> {
    let mut names = BTreeSet::new();
    let mut fields = Vec::with_capacity(result.fields().len());
    for field in result.fields() {
        let name = field.name();
        if !names.insert(name.to_lowercase()) {
            let message = format!("column {name} is twice in the result, in whatever case: name one otherwise with AS");
            return Err(LakeError::config(message));
        }
        let kind = column_type(field.data_type()).ok_or_else(|| {
            let kind = field.data_type();
            LakeError::config(format!("column {name} has the type {kind}, which no file holds: CAST it to another"))
        })?;
        fields.push(Field::new(name, kind, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn column_type(result: &DataType) -> Option<DataType> {
    Some(match file_type(result) {
        DataType::Null | DataType::Interval(_) | DataType::Duration(_) => return None,
        DataType::Timestamp(TimeUnit::Millisecond, _) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        DataType::Timestamp(_, _) => moment(),
        DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(precision, scale)
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_get_types_that_readers_know() {
        let of = |kind: DataType| columns(&Schema::new(vec![Field::new("c", kind, false)]));
        let kind = |kind: DataType| of(kind).unwrap().field(0).data_type().clone();
        assert_eq!(kind(DataType::Utf8View), DataType::Utf8);
        assert_eq!(kind(DataType::UInt64), DataType::Int64);
        assert_eq!(kind(DataType::Timestamp(TimeUnit::Nanosecond, None)), moment());
        assert!(of(DataType::Null).unwrap_err().message.contains("CAST it"));
        let twice = Schema::new(vec![Field::new("c", DataType::Utf8, true), Field::new("C", DataType::Utf8, true)]);
        assert!(columns(&twice).unwrap_err().message.contains("is twice"));
    }
}
