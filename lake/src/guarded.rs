//! A table as a reader sees it who may see a part. The condition is applied within the scan, in a node that the optimizer
//! cannot look into, so no expression of the query meets a row that was not let through.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use engine::{Guard, only_compares};
use futures::StreamExt;

use crate::error::{LakeError, LakeErrorKind, Result};
use crate::reader::RowFilter;

/// A table that gives what a guard lets through.
pub struct GuardedTable {
    name: String,
    inner: Arc<dyn TableProvider>,
    guard: Arc<Guard>,
}

impl GuardedTable {
    /// A table seen through a filter.
    ///
    /// # Errors
    /// `Forbidden` when the filter does not fit the table: it is then not shown at all.
    pub fn new(name: &str, inner: Arc<dyn TableProvider>, filter: &RowFilter) -> Result<Self> {
        let guard = Guard::new(&inner.schema(), filter.condition.as_deref(), &filter.masked).map_err(|mistake| {
            let message = format!("the token's filter for {name} does not fit it: {mistake}: mend the filter");
            LakeError::new(LakeErrorKind::Forbidden, message)
        })?;
        Ok(Self { name: name.to_owned(), inner, guard: Arc::new(guard) })
    }

    /// The filters that may narrow what is read: those that only compare, and not what is masked.
    fn handed_down(&self, filter: &Expr) -> bool {
        only_compares(filter).is_some_and(|column| !self.guard.masks(column))
    }

    async fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.inner.schema().fields().len()).collect());
        let read = self.guard.needs(&wanted);
        let narrowing = self.guard.condition().into_iter().chain(filters.iter().filter(|f| self.handed_down(f)));
        let narrowing: Vec<Expr> = narrowing.cloned().collect();
        let inner = self.inner.scan(state, Some(&read), &narrowing, None).await?;
        let schema = Arc::new(self.guard.schema().project(&wanted)?);
        let part = |index| {
            let (table, guard) = (self.name.clone(), self.guard.clone());
            let (inner, schema, wanted) = (inner.clone(), schema.clone(), wanted.clone());
            Arc::new(LetThrough { table, inner, index, guard, wanted, schema }) as Arc<dyn PartitionStream>
        };
        let parts = (0..inner.output_partitioning().partition_count()).map(part).collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema.clone(), parts, None, [], false, None)?))
    }
}

/// Rows of one partition of the table that the guard lets through. Holds the scan below, which no rule of the optimizer
/// sees.
struct LetThrough {
    table: String,
    inner: Arc<dyn ExecutionPlan>,
    index: usize,
    guard: Arc<Guard>,
    wanted: Vec<usize>,
    schema: SchemaRef,
}

impl fmt::Debug for LetThrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LetThrough {}", self.table)
    }
}

impl PartitionStream for LetThrough {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (guard, wanted) = (self.guard.clone(), self.wanted.clone());
        let rows = match self.inner.execute(self.index, context) {
            Ok(rows) => rows
                .map(move |rows| guard.apply(&rows?, &wanted).map_err(|e| DataFusionError::External(Box::new(e))))
                .boxed(),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

impl fmt::Debug for GuardedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuardedTable {}", self.name)
    }
}

impl TableProvider for GuardedTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.guard.schema()
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    // What `#[async_trait]` makes of `async fn scan`, written out.
    fn scan<'this, 'session, 'columns, 'filters, 'call>(
        &'this self,
        state: &'session dyn Session,
        projection: Option<&'columns Vec<usize>>,
        filters: &'filters [Expr],
        _limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'call>>
    where
        'this: 'call,
        'session: 'call,
        'columns: 'call,
        'filters: 'call,
        Self: 'call,
    {
        Box::pin(self.plan(state, projection, filters))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.handed_down(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }
}
