//! A table of DataFusion whose rows are read from one snapshot when a scan of it is planned: views, joined tables, counters.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult, Statistics};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use crate::error::{EngineError, ErrorKind};

/// What went wrong in reading.
pub type ReadError = Box<dyn Error + Send + Sync>;
/// Asks the query's memory for so many more bytes.
pub type Grow<'a> = &'a dyn Fn(usize) -> Result<(), EngineError>;
/// Reads rows with all columns: those that meet the filters, and any others; at most so many, if that is told. Blocks.
pub type ReadRows = dyn Fn(&[Expr], Option<usize>, Grow<'_>) -> Result<Vec<RecordBatch>, ReadError> + Send + Sync;

/// A table that is read when it is planned. Never changes; what it reads may, between two scans.
pub struct ReadWhenPlanned {
    name: String,
    schema: SchemaRef,
    kind: TableType,
    read: Arc<ReadRows>,
}

impl ReadWhenPlanned {
    /// A table of these columns whose rows `read` gives.
    pub fn table(
        name: &str,
        schema: SchemaRef,
        kind: TableType,
        read: impl Fn(&[Expr], Option<usize>, Grow<'_>) -> Result<Vec<RecordBatch>, ReadError> + Send + Sync + 'static,
    ) -> Arc<dyn TableProvider> {
        Arc::new(Self { name: name.to_owned(), schema, kind, read: Arc::new(read) })
    }
}

impl fmt::Debug for ReadWhenPlanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadWhenPlanned({})", self.name)
    }
}

impl TableProvider for ReadWhenPlanned {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        self.kind
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // They may narrow what is read; DataFusion still applies every filter itself.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    // What `#[async_trait]` makes of `async fn scan`, written out.
    fn scan<'this, 'session, 'columns, 'filters, 'call>(
        &'this self,
        state: &'session dyn Session,
        projection: Option<&'columns Vec<usize>>,
        filters: &'filters [Expr],
        limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'call>>
    where
        'this: 'call,
        'session: 'call,
        'columns: 'call,
        'filters: 'call,
        Self: 'call,
    {
        let limit = limit.filter(|_| filters.is_empty());
        let (read, filters, projection) = (self.read.clone(), filters.to_vec(), projection.cloned());
        let memory = Arc::new(MemoryConsumer::new(&self.name).register(&state.runtime_env().memory_pool));
        let (growing, name) = (memory.clone(), self.name.clone());
        let grow = move |bytes| {
            growing.try_grow(bytes).map_err(|error| {
                let next = "narrow it by window_start, or raise lake.sql_memory_bytes_max";
                EngineError::new(
                    ErrorKind::TooLarge,
                    format!("{name} needs more memory than queries have: {next} ({error})"),
                )
            })
        };
        Box::pin(async move {
            let rows = tokio::task::spawn_blocking(move || read(&filters, limit, &grow)).await;
            let rows = rows
                .map_err(|error| DataFusionError::Execution(format!("reading {} was broken off: {error}", self.name)))?
                .map_err(DataFusionError::External)?;
            let rows = MemorySourceConfig::try_new_exec(&[rows], self.schema.clone(), projection)?;
            Ok(Arc::new(Held { rows, _memory: memory }) as Arc<dyn ExecutionPlan>)
        })
    }
}

/// Rows in memory, which the query's pool knows of as long as this lives.
#[derive(Debug)]
struct Held {
    rows: Arc<dyn ExecutionPlan>,
    _memory: Arc<MemoryReservation>,
}

impl DisplayAs for Held {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.fmt_as(kind, f)
    }
}

impl ExecutionPlan for Held {
    fn name(&self) -> &str {
        self.rows.name()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.rows.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        self.rows.execute(partition, context)
    }

    fn partition_statistics(&self, partition: Option<usize>) -> DfResult<Statistics> {
        self.rows.partition_statistics(partition)
    }
}
