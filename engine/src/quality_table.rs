//! The counters of data quality as a table of SQL: `data_quality`.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use broker::Broker;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::quality::{self, QualityCount};
use crate::shared::RunningView;

/// Its name in SQL.
pub(crate) const QUALITY_TABLE: &str = "data_quality";

/// Counters that SQL can select from.
pub(crate) struct QualityTable {
    broker: Arc<Broker>,
    views: Vec<Arc<RunningView>>,
    schema: SchemaRef,
}

impl std::fmt::Debug for QualityTable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("QualityTable")
    }
}

impl QualityTable {
    pub(crate) fn new(broker: Arc<Broker>, views: Vec<Arc<RunningView>>) -> QualityTable {
        let field = |name, data_type| Field::new(name, data_type, false);
        let schema = Schema::new(vec![
            field("stream", DataType::Utf8),
            field("rule", DataType::Utf8),
            field("day", DataType::Date32),
            field("records", DataType::Int64),
            field("action", DataType::Utf8),
        ]);
        QualityTable { broker, views, schema: Arc::new(schema) }
    }
}

/// All counters. Blocks.
pub(crate) fn read_counts(broker: &Broker, views: &[Arc<RunningView>]) -> crate::Result<Vec<QualityCount>> {
    quality::read(broker, |name| {
        let view = views.iter().find(|view| *view.plan.name == *name);
        view.map(|view| view.plan.stream.name().to_string())
    })
}

fn batch(counts: &[QualityCount], schema: &SchemaRef) -> DfResult<RecordBatch> {
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

impl TableProvider for QualityTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    // What `#[async_trait]` makes of `async fn scan`, written out.
    fn scan<'this, 'session, 'columns, 'filters, 'call>(
        &'this self,
        _state: &'session dyn Session,
        projection: Option<&'columns Vec<usize>>,
        _filters: &'filters [Expr],
        _limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'call>>
    where
        'this: 'call,
        'session: 'call,
        'columns: 'call,
        'filters: 'call,
        Self: 'call,
    {
        let (broker, views, projection) = (self.broker.clone(), self.views.clone(), projection.cloned());
        let schema = self.schema.clone();
        Box::pin(async move {
            let counts = tokio::task::spawn_blocking(move || read_counts(&broker, &views)).await;
            let counts = counts
                .map_err(|error| DataFusionError::Execution(format!("reading counters was broken off: {error}")))?
                .map_err(|error| DataFusionError::External(Box::new(error)))?;
            let rows = batch(&counts, &schema)?;
            let plan = MemorySourceConfig::try_new_exec(&[vec![rows]], schema, projection)?;
            Ok(plan as Arc<dyn ExecutionPlan>)
        })
    }
}
