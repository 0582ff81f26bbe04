//! Checksums of rows, by which the rows of files are compared with those of the log.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::row::{RowConverter, SortField};

use crate::error::{LakeError, Result};
use crate::layout::Layout;

/// The columns that checksums are over, by name, with the types that files have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummedColumns(Arc<[(String, DataType)]>);

impl SummedColumns {
    /// Those of a file that the table's rows have, too: what another declaration or another slicing wrote has others.
    pub fn of(file: &Schema, layout: &Layout) -> Self {
        let (rows, table) = (layout.row_schema(), layout.table_schema());
        let is_shared = |name: &str, kind: &DataType| {
            rows.column_with_name(name).is_some()
                && table.column_with_name(name).is_some_and(|(_, field)| field.data_type() == kind)
        };
        let shared = file.fields().iter().filter(|field| is_shared(field.name(), field.data_type()));
        Self(shared.map(|field| (field.name().clone(), field.data_type().clone())).collect())
    }

    /// The checksum of each row.
    ///
    /// # Errors
    /// `Bug` when the rows have not these columns.
    pub fn of_rows(&self, rows: &RecordBatch) -> Result<Vec<u32>> {
        if self.0.is_empty() {
            return Ok(vec![0; rows.num_rows()]);
        }
        let failed = |e: arrow::error::ArrowError| LakeError::bug(format!("rows cannot be summed up: {e}"));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.0.len());
        for (name, kind) in self.0.iter() {
            let column =
                rows.column_by_name(name).ok_or_else(|| LakeError::bug(format!("rows without the column {name}")))?;
            columns.push(if column.data_type() == kind {
                column.clone()
            } else {
                cast(column, kind).map_err(failed)?
            });
        }
        let fields = self.0.iter().map(|(_, kind)| SortField::new(kind.clone())).collect();
        let encoded =
            RowConverter::new(fields).and_then(|converter| converter.convert_columns(&columns)).map_err(failed)?;
        Ok(encoded.iter().map(|row| broker::checksum(0, row.as_ref())).collect())
    }
}
