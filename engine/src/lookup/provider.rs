//! A joined table as a table of SQL: all its rows, read from one snapshot when the query is planned to run.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use broker::{Broker, Family};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::{Contents, LookupTable};
use crate::error::{EngineError, ErrorKind, Result};

/// Rows decoded at once.
const CHUNK_ROWS: usize = 16_384;
/// Most bytes of rows that one query reads of a table.
const BYTES_MAX: usize = 512 << 20;

/// A table that SQL can select from.
pub(crate) struct LookupProvider {
    pub(crate) broker: Arc<Broker>,
    pub(crate) table: Arc<LookupTable>,
}

impl std::fmt::Debug for LookupProvider {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "LookupProvider({})", self.table.name())
    }
}

impl LookupTable {
    /// All rows, by key. Blocks.
    pub(crate) fn read_all(&self, broker: &Broker, limit: Option<usize>) -> Result<Vec<RecordBatch>> {
        let rows = match &self.contents {
            Contents::Inline(rows) => return Ok(vec![rows.rows().clone()]),
            Contents::Stored(_, rows) => rows,
        };
        let (from, to) = rows.range();
        let snapshot = broker.store().snapshot();
        let mut scan = snapshot.scan(Family::State, &from, &to);
        let (mut batches, mut bytes, mut count) = (Vec::new(), 0, 0);
        let mut values: Vec<Vec<u8>> = Vec::new();
        while let Some(entry) = scan.next_ref() {
            let (_, value) = entry?;
            values.push(value.to_vec());
            if values.len() >= CHUNK_ROWS {
                let batch = rows.decode(values.iter().map(Vec::as_slice))?;
                values.clear();
                bytes += batch.get_array_memory_size();
                count += batch.num_rows();
                batches.push(batch);
                if bytes > BYTES_MAX {
                    let message = format!("table {} has more rows than one query takes", self.name());
                    return Err(EngineError::new(ErrorKind::TooLarge, message));
                }
                if limit.is_some_and(|limit| count >= limit) {
                    return Ok(batches);
                }
            }
        }
        batches.push(rows.decode(values.iter().map(Vec::as_slice))?);
        Ok(batches)
    }
}

impl TableProvider for LookupProvider {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.table.schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
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
        let (broker, table, projection) = (self.broker.clone(), self.table.clone(), projection.cloned());
        Box::pin(async move {
            let schema = table.schema().clone();
            let rows = tokio::task::spawn_blocking(move || table.read_all(&broker, limit)).await;
            let rows = rows
                .map_err(|error| DataFusionError::Execution(format!("reading a table was broken off: {error}")))?
                .map_err(|error| DataFusionError::External(Box::new(error)))?;
            let plan = MemorySourceConfig::try_new_exec(&[rows], schema, projection)?;
            Ok(plan as Arc<dyn ExecutionPlan>)
        })
    }
}
