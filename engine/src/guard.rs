//! What one reader sees of a table: the rows that meet a condition, and some columns only as null.
//!
//! A guard is applied to rows after they were read and before anything else is computed from them, so no expression of a
//! query is ever evaluated on a row that its reader may not see.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_plan::PhysicalExpr;

use crate::error::{EngineError, Result};
use crate::sql;

/// A condition and masked columns, compiled for the columns of one table. Never changes after it is made.
#[derive(Clone, Debug)]
pub struct Guard {
    full: SchemaRef,
    condition: Option<(Expr, Arc<dyn PhysicalExpr>)>,
    masked: BTreeSet<usize>,
}

impl Guard {
    /// Compiles a guard over the columns of a table; Err says what is wrong with it.
    pub fn new(schema: &SchemaRef, condition: Option<&str>, masked: &[String]) -> std::result::Result<Guard, String> {
        let condition = match condition {
            None => None,
            Some(text) => {
                let compiled = sql::compile_condition(text, "rows", schema)?;
                let rows = RecordBatch::new_empty(schema.clone());
                sql::condition(&compiled, &rows).map_err(|error| sql::message(&error))?;
                Some((sql::plan_expression(text, schema)?, compiled))
            }
        };
        let index = |name: &String| schema.index_of(name).map_err(|_| format!("there is no column {name} to mask"));
        let masked = masked.iter().map(index).collect::<std::result::Result<_, _>>()?;
        Ok(Guard { full: schema.clone(), condition, masked })
    }

    /// Whether it was compiled for these columns.
    pub fn is_for(&self, schema: &SchemaRef) -> bool {
        self.full == *schema
    }

    /// The table's columns as the reader sees them: masked ones may be null.
    pub fn schema(&self) -> SchemaRef {
        let seen = |(at, field): (usize, &Arc<Field>)| match self.masked.contains(&at) {
            true => Arc::new(field.as_ref().clone().with_nullable(true)),
            false => field.clone(),
        };
        let fields: Vec<Arc<Field>> = self.full.fields().iter().enumerate().map(seen).collect();
        Arc::new(Schema::new_with_metadata(fields, self.full.metadata().clone()))
    }

    /// The condition as DataFusion's planner takes it, to leave out files that have no such rows.
    pub fn condition(&self) -> Option<&Expr> {
        self.condition.as_ref().map(|(expr, _)| expr)
    }

    /// Whether a column is masked.
    pub fn masks(&self, column: &str) -> bool {
        self.full.index_of(column).is_ok_and(|at| self.masked.contains(&at))
    }

    /// The columns that must be read when `wanted` are asked for: those, and what the condition looks at. Ascending.
    pub fn needs(&self, wanted: &[usize]) -> Vec<usize> {
        let looked_at = self.condition.iter().flat_map(|(_, condition)| collect_columns(condition));
        let looked_at = looked_at.map(|column| column.index());
        wanted.iter().copied().chain(looked_at).collect::<BTreeSet<usize>>().into_iter().collect()
    }

    /// The rows that the reader sees, with the columns `wanted` of the table, of rows that have the columns
    /// [`needs`](Self::needs) of it.
    ///
    /// # Errors
    /// `BadRequest` when the condition cannot be computed for a row, `Bug`.
    pub fn apply(&self, rows: &RecordBatch, wanted: &[usize]) -> Result<RecordBatch> {
        let read = self.needs(wanted);
        let rows = match &self.condition {
            None => rows.clone(),
            Some((_, condition)) => {
                let condition = reassign_expr_columns(condition.clone(), &rows.schema())?;
                // Which value it was must not be told: the row is not the reader's.
                let met = sql::condition(&condition, rows).map_err(|_| {
                    EngineError::bad_request(
                        "the row filter of the token cannot be computed for a row: mend the filter",
                    )
                })?;
                filter_record_batch(rows, &sql::mask(met))?
            }
        };
        let seen = self.schema();
        let column = |at: &usize| -> Result<ArrayRef> {
            if self.masked.contains(at) {
                return Ok(new_null_array(seen.field(*at).data_type(), rows.num_rows()));
            }
            let place = read.iter().position(|known| known == at);
            place.map(|place| rows.column(place).clone()).ok_or_else(|| EngineError::bug("a column was not read"))
        };
        let columns = wanted.iter().map(column).collect::<Result<Vec<ArrayRef>>>()?;
        let schema = Arc::new(seen.project(wanted)?);
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }

    /// The rows that the reader sees, of rows with all columns of the table.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_whole(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let all: Vec<usize> = (0..self.full.fields().len()).collect();
        self.apply(rows, &all)
    }
}

/// Whether an expression only compares a column with a value, so that nothing in it can fail and so tell of a row.
pub fn only_compares(expr: &Expr) -> Option<&str> {
    let Expr::BinaryExpr(binary) = expr else { return None };
    if !matches!(
        binary.op,
        Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
    ) {
        return None;
    }
    match (binary.left.as_ref(), binary.right.as_ref()) {
        (Expr::Column(column), Expr::Literal(..)) | (Expr::Literal(..), Expr::Column(column)) => Some(&column.name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Int64Type};

    use super::*;

    fn rows() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("country", DataType::Utf8, false),
            Field::new("email", DataType::Utf8, false),
            Field::new("ms", DataType::Int64, true),
        ]);
        let countries = StringArray::from(vec!["FR", "DE", "FR"]);
        let emails = StringArray::from(vec!["a@x", "b@x", "c@x"]);
        let ms = Int64Array::from(vec![Some(0), Some(2), None]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(countries), Arc::new(emails), Arc::new(ms)]).unwrap()
    }

    #[test]
    fn rows_are_left_out_and_columns_masked() {
        let rows = rows();
        let guard = Guard::new(&rows.schema(), Some("country = 'FR'"), &["email".to_owned()]).unwrap();
        let seen = guard.apply_whole(&rows).unwrap();
        assert_eq!(seen.num_rows(), 2);
        assert_eq!(seen.column(1).null_count(), 2);
        assert!(seen.schema().field(1).is_nullable() && !seen.schema().field(0).is_nullable());
        assert!(guard.masks("email") && !guard.masks("ms"));
    }

    #[test]
    fn a_part_of_the_columns_is_enough() {
        let rows = rows();
        let guard = Guard::new(&rows.schema(), Some("country = 'FR'"), &["email".to_owned()]).unwrap();
        assert_eq!(guard.needs(&[2]), [0, 2]);
        let seen = guard.apply(&rows.project(&[0, 2]).unwrap(), &[2]).unwrap();
        assert_eq!(seen.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(0), None]);
        let none = guard.apply(&rows.project(&[0]).unwrap(), &[]).unwrap();
        assert_eq!((none.num_rows(), none.num_columns()), (2, 0));
    }

    #[test]
    fn what_does_not_fit_is_told_and_null_is_not_met() {
        let rows = rows();
        let schema = rows.schema();
        let wrong = |condition: &str| Guard::new(&schema, Some(condition), &[]).unwrap_err();
        assert!(wrong("land = 'FR'").contains("land"), "{}", wrong("land = 'FR'"));
        assert!(wrong("country").contains("BOOLEAN"));
        assert!(wrong("ms IN (SELECT 1)").contains("subqueries"));
        assert!(Guard::new(&schema, None, &["mail".to_owned()]).unwrap_err().contains("mail"));
        let guard = Guard::new(&schema, Some("ms >= 0"), &[]).unwrap();
        assert_eq!(guard.apply_whole(&rows).unwrap().num_rows(), 2);
        let failing = Guard::new(&schema, Some("10 / ms > 1"), &[]).unwrap();
        let message = failing.apply_whole(&rows).unwrap_err().message;
        assert!(message.contains("row filter") && !message.to_lowercase().contains("zero"), "{message}");
    }

    #[test]
    fn only_comparisons_are_handed_down() {
        use datafusion::logical_expr::{col, lit};
        assert_eq!(only_compares(&col("ms").gt(lit(3))), Some("ms"));
        assert_eq!(only_compares(&lit(3).eq(col("ms"))), Some("ms"));
        assert_eq!(only_compares(&(lit(3) / col("ms")).eq(lit(1))), None);
        assert_eq!(only_compares(&col("ms").is_null()), None);
    }
}
