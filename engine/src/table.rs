//! A view as a table of DataFusion: live and closed windows, read from one snapshot when the query is planned to run.

use std::sync::Arc;

use broker::Broker;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableType};

use crate::parse::WINDOW_START;
use crate::read::{ReadRequest, read_now};
use crate::read_when_planned::{Grow, ReadError, ReadWhenPlanned};
use crate::shared::RunningView;

/// A view that SQL can select from. Bounds on window_start narrow what is read.
pub(crate) fn view_table(broker: Arc<Broker>, view: Arc<RunningView>) -> Arc<dyn TableProvider> {
    let (name, schema) = (view.plan.name.to_string(), view.plan.schema.clone());
    let read = move |filters: &[Expr], limit: Option<usize>, grow: Grow<'_>| {
        let (from, to) = if view.plan.windows.is_some() { window_bounds(filters) } else { (None, None) };
        let request = ReadRequest { from, to, limit, ..ReadRequest::default() };
        let answer = read_now(&broker, &view, (&request, None), grow).map_err(|error| Box::new(error) as ReadError)?;
        Ok(answer.rows)
    };
    ReadWhenPlanned::table(&name, schema, TableType::View, read)
}

/// The windows that filters leave, in ms since 1970: those that start at or after the first time and before the second one. There may be
/// more of them than meet the filters, never fewer.
pub fn window_bounds(filters: &[Expr]) -> (Option<i64>, Option<i64>) {
    let mut request = ReadRequest::default();
    filters.iter().for_each(|filter| narrow(&mut request, filter));
    (request.from, request.to)
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
