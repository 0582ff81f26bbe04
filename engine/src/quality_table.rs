//! The counters of data quality as a table of SQL: `data_quality`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use broker::Broker;
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::TableType;

use crate::quality::{self, QualityCount};
use crate::read_when_planned::{Grow, ReadError, ReadWhenPlanned};
use crate::shared::RunningView;

/// Its name in SQL.
pub(crate) const QUALITY_TABLE: &str = "data_quality";

/// Counters that SQL can select from.
pub(crate) fn quality_table(broker: Arc<Broker>, views: Vec<Arc<RunningView>>) -> Arc<dyn TableProvider> {
    let field = |name, data_type| Field::new(name, data_type, false);
    let schema = Arc::new(Schema::new(vec![
        field("stream", DataType::Utf8),
        field("rule", DataType::Utf8),
        field("day", DataType::Date32),
        field("records", DataType::Int64),
        field("action", DataType::Utf8),
    ]));
    let columns = schema.clone();
    let read = move |_: &[_], _: Option<usize>, grow: Grow<'_>| {
        let counts = read_counts(&broker, &views).map_err(|error| Box::new(error) as ReadError)?;
        let rows = batch(&counts, &columns)?;
        grow(rows.get_array_memory_size())?;
        Ok(vec![rows])
    };
    ReadWhenPlanned::table(QUALITY_TABLE, schema, TableType::View, read)
}

/// All counters. Blocks.
pub(crate) fn read_counts(broker: &Broker, views: &[Arc<RunningView>]) -> crate::Result<Vec<QualityCount>> {
    quality::read(broker, |name| {
        let view = views.iter().find(|view| *view.plan.name == *name);
        view.map(|view| view.plan.stream.name().to_string())
    })
}

fn batch(counts: &[QualityCount], schema: &SchemaRef) -> Result<RecordBatch, ReadError> {
    let texts =
        |of: fn(&QualityCount) -> &str| Arc::new(counts.iter().map(|count| Some(of(count))).collect::<StringArray>());
    let days: Date32Array = counts.iter().map(|count| Some(count.day)).collect();
    let records: Int64Array = counts.iter().map(|count| i64::try_from(count.records).ok()).collect();
    let arrays: Vec<ArrayRef> = vec![
        texts(|count| &count.stream),
        texts(|count| &count.rule),
        Arc::new(days),
        Arc::new(records),
        texts(|count| count.action.word()),
    ];
    Ok(RecordBatch::try_new(schema.clone(), arrays)?)
}
