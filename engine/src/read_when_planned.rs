//! A table of DataFusion whose rows are read from one snapshot when a scan of it is planned: views, joined tables, counters.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

/// What went wrong in reading.
pub type ReadError = Box<dyn Error + Send + Sync>;
/// Reads rows with all columns: those that meet the filters, and any others; at most so many, if that is told. Blocks.
pub type ReadRows = dyn Fn(&[Expr], Option<usize>) -> Result<Vec<RecordBatch>, ReadError> + Send + Sync;

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
        read: impl Fn(&[Expr], Option<usize>) -> Result<Vec<RecordBatch>, ReadError> + Send + Sync + 'static,
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
        _state: &'session dyn Session,
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
        Box::pin(async move {
            let rows = tokio::task::spawn_blocking(move || read(&filters, limit)).await;
            let rows = rows
                .map_err(|error| DataFusionError::Execution(format!("reading {} was broken off: {error}", self.name)))?
                .map_err(DataFusionError::External)?;
            let plan = MemorySourceConfig::try_new_exec(&[rows], self.schema.clone(), projection)?;
            Ok(plan as Arc<dyn ExecutionPlan>)
        })
    }
}
