//! A view as a table of DataFusion: live and closed windows, read from one snapshot when the query is planned to run.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use broker::Broker;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::parse::WINDOW_START;
use crate::read::{ReadRequest, read_now};
use crate::shared::RunningView;

/// A view that SQL can select from.
pub(crate) struct ViewTable {
    pub(crate) broker: Arc<Broker>,
    pub(crate) view: Arc<RunningView>,
}

impl std::fmt::Debug for ViewTable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "ViewTable({})", self.view.plan.name)
    }
}

impl TableProvider for ViewTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.view.plan.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // Bounds on window_start narrow what is read; DataFusion still applies every filter itself.
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
        let mut request = ReadRequest { limit: limit.filter(|_| filters.is_empty()), ..ReadRequest::default() };
        if self.view.plan.window.is_some() {
            filters.iter().for_each(|filter| narrow(&mut request, filter));
        }
        let (broker, view, projection) = (self.broker.clone(), self.view.clone(), projection.cloned());
        Box::pin(async move {
            let answer = tokio::task::spawn_blocking(move || read_now(&broker, &view, &request)).await;
            let answer = answer
                .map_err(|error| DataFusionError::Execution(format!("reading a view was broken off: {error}")))?
                .map_err(|error| DataFusionError::External(Box::new(error)))?;
            let plan = MemorySourceConfig::try_new_exec(&[answer.rows], answer.schema, projection)?;
            Ok(plan as Arc<dyn ExecutionPlan>)
        })
    }
}

/// Takes a bound on window_start out of a filter. Bounds only ever grow the range that is read.
fn narrow(request: &mut ReadRequest, filter: &Expr) {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return };
    if *op == Operator::And {
        narrow(request, left);
        narrow(request, right);
        return;
    }
    let (Expr::Column(column), Expr::Literal(value, _)) = (left.as_ref(), right.as_ref()) else { return };
    let Some(time_ms) = timestamp_ms(value).filter(|_| column.name == WINDOW_START) else { return };
    let raise = |bound: Option<i64>| Some(bound.map_or(time_ms, |bound| bound.max(time_ms)));
    let lower = |bound: Option<i64>, time_ms: i64| Some(bound.map_or(time_ms, |bound| bound.min(time_ms)));
    match op {
        Operator::Gt | Operator::GtEq => request.from = raise(request.from),
        Operator::Lt | Operator::LtEq => request.to = lower(request.to, time_ms.saturating_add(1)),
        Operator::Eq => {
            request.from = raise(request.from);
            request.to = lower(request.to, time_ms.saturating_add(1));
        }
        _ => {}
    }
}

/// A timestamp literal in milliseconds, rounded down.
fn timestamp_ms(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampSecond(Some(time), _) => time.checked_mul(1_000),
        ScalarValue::TimestampMillisecond(Some(time), _) => Some(*time),
        ScalarValue::TimestampMicrosecond(Some(time), _) => Some(time.div_euclid(1_000)),
        ScalarValue::TimestampNanosecond(Some(time), _) => Some(time.div_euclid(1_000_000)),
        _ => None,
    }
}
