//! What the models' functions take: checks of types at planning, and constants read from the query.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;

/// `Float64` for a number, a plan error that names function and place for anything else.
pub(super) fn number(function: &str, place: usize, given: &DataType) -> Result<DataType> {
    if given.is_numeric() || given.is_null() {
        return Ok(DataType::Float64);
    }
    plan_err!("{function}: argument {place} must be a number, not {given}: CAST it, or give another column")
}

/// A whole number that the query itself states.
pub(crate) fn constant(function: &str, name: &str, expr: &Arc<dyn PhysicalExpr>) -> Result<i64> {
    let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
    // a column cannot be evaluated over no columns
    let value = match expr.evaluate(&rows) {
        Ok(ColumnarValue::Scalar(value)) => value,
        _ => return exec_err!("{function}: {name} must be a number in the query itself, such as 3, not a column"),
    };
    match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(value)) => Ok(value),
        _ => exec_err!("{function}: {name} must be a whole number, not null"),
    }
}
