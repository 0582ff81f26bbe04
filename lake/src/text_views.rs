//! Text and bytes as queries read them: views of the pages that they were read from (Arrow's view types), as half of what a `GROUP BY` of text
//! took was copying each value out of its page. Files, answers and what tells of a table's columns have the plain types: no reader
//! outside sees a view, and nothing that is kept holds a page for the sake of a few values.
//!
//! A query reads views only if it goes over its rows once. One that keeps them (a join, a window) would have each batch counted with the whole
//! pages that its views hold, three times the memory and more, of which queries have little: it reads plain columns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;

/// Most bytes of text in one plain column of a batch: its offsets are 32-bit numbers.
const TEXT_BYTES_MAX: usize = i32::MAX as usize;

/// How one query reads text. As views, until its plan shows that it keeps rows; nothing is read before that.
#[derive(Debug)]
pub struct ReadAs(AtomicBool);

impl ReadAs {
    /// As views or not.
    pub fn new(views: bool) -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(views)))
    }

    /// Whether as views.
    pub fn is_views(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Not as views from now on: what was planned has to be planned again.
    pub fn set_plain(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Whether a plan keeps rows that it reads, beyond the first of an order and the groups of an aggregation. What is not known does.
pub fn keeps_rows(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut keeps = false;
    plan.apply_with_subqueries(|node| {
        let passes_on = matches!(
            node,
            LogicalPlan::TableScan(_)
                | LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::Aggregate(_)
                | LogicalPlan::Distinct(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Limit(_)
                | LogicalPlan::Union(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::Explain(_)
                | LogicalPlan::Analyze(_)
        );
        keeps |= !passes_on;
        Ok(if keeps { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(keeps)
}

/// Columns with text and bytes as views; what lists and the like are made of stays as it is.
pub fn with_views(columns: &Schema) -> SchemaRef {
    let viewed = |field: &FieldRef| match field.data_type() {
        DataType::Utf8 => retyped(field, DataType::Utf8View),
        DataType::Binary => retyped(field, DataType::BinaryView),
        _ => field.clone(),
    };
    Arc::new(Schema::new(columns.fields().iter().map(viewed).collect::<Vec<_>>()))
}

/// Columns without views, also within lists and the like, and without metadata.
pub fn plain_schema(columns: &Schema) -> SchemaRef {
    Arc::new(Schema::new(columns.fields().iter().map(plain_field).collect::<Vec<_>>()))
}

/// A type without views.
pub fn plain_type(column: &DataType) -> DataType {
    match column {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(plain_field(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        DataType::Dictionary(key, value) => DataType::Dictionary(key.clone(), Box::new(plain_type(value))),
        other => other.clone(),
    }
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let plain = plain_type(field.data_type());
    if plain == *field.data_type() { field.clone() } else { retyped(field, plain) }
}

fn retyped(field: &Field, kind: DataType) -> FieldRef {
    Arc::new(field.clone().with_data_type(kind))
}

/// Rows with the columns of their [`plain_schema`].
///
/// # Errors
/// Arrow's, as of [`cast_column`].
pub fn plain_rows(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let is_plain = |(field, column): (&FieldRef, &ArrayRef)| field.data_type() == column.data_type();
    if schema.fields().iter().zip(rows.columns()).all(is_plain) {
        return Ok(rows.clone());
    }
    let columns = schema.fields().iter().zip(rows.columns());
    let columns =
        columns.map(|(field, column)| cast_column(column, field.data_type())).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// A column with another type. Arrow panics where the text of views does not fit into a plain column.
///
/// # Errors
/// Arrow's, and one for more text than a column can have.
pub fn cast_column(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    if is_viewed(column.data_type()) && text_bytes(&column.to_data()) > TEXT_BYTES_MAX {
        let message =
            format!("a column has more than {TEXT_BYTES_MAX} bytes of text in a batch: take less of each value");
        return Err(ArrowError::ComputeError(message));
    }
    cast(column, to)
}

/// About what rows take when they are plain. Many views may be of the same text, which is there once only before.
pub fn plain_bytes(rows: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| match is_viewed(column.data_type()) {
        true => slice_bytes(column),
        false => column.get_array_memory_size(),
    };
    rows.columns().iter().map(bytes).sum()
}

/// Memory of the values of a column, without what else its buffers hold.
pub fn slice_bytes(column: &ArrayRef) -> usize {
    let data = column.to_data();
    let fixed = data.get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    fixed + if is_viewed(column.data_type()) { text_bytes(&data) } else { 0 }
}

fn is_viewed(kind: &DataType) -> bool {
    plain_type(kind) != *kind
}

/// The lengths of all values that are views: a view begins with its length.
fn text_bytes(data: &ArrayData) -> usize {
    match data.data_type() {
        DataType::Utf8View | DataType::BinaryView => {
            let views = data.buffer::<u128>(0);
            (0..data.len()).filter(|at| data.is_valid(*at)).map(|at| views[at] as u32 as usize).sum()
        }
        _ => data.child_data().iter().map(text_bytes).sum(),
    }
}
