//! `count(*) FILTER (WHERE c)` counts the rows for which `c` is true, not those for which it is unknown (SQL:2003, 4.15.4).
//!
//! DataFusion 53 looks at the bits of the condition and not at what is null, in some of its aggregates: a row whose `c` is null
//! was counted or not, as it happened (apache/datafusion#22067). With `c IS TRUE` instead there are no nulls.

use datafusion::common::Result as DfResult;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

/// Makes the condition of each FILTER one that is true or false.
#[derive(Debug)]
pub struct FilterIsTrue;

impl AnalyzerRule for FilterIsTrue {
    fn name(&self) -> &str {
        "filter_is_true"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(rewritten)?.data)
    }
}

fn rewritten(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    if !matches!(plan, LogicalPlan::Aggregate(_)) {
        return Ok(Transformed::no(plan));
    }
    // what stands above knows the columns by the text that was written
    let names = NamePreserver::new(&plan);
    let changed = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(expr.transform_up(|expr| Ok(is_true(expr)))?.update_data(|expr| name.restore(expr)))
    })?;
    changed.map_data(LogicalPlan::recompute_schema)
}

fn is_true(expr: Expr) -> Transformed<Expr> {
    let Expr::AggregateFunction(AggregateFunction { func, mut params }) = expr else { return Transformed::no(expr) };
    let changes = params.filter.as_deref().is_some_and(|filter| !matches!(filter, Expr::IsTrue(_)));
    params.filter = params.filter.map(|filter| match *filter {
        known @ Expr::IsTrue(_) => Box::new(known),
        unknown => Box::new(Expr::IsTrue(Box::new(unknown))),
    });
    let expr = Expr::AggregateFunction(AggregateFunction { func, params });
    if changes { Transformed::yes(expr) } else { Transformed::no(expr) }
}
