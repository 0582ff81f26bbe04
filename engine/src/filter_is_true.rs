//! `count(*) FILTER (WHERE c)` counts the rows for which `c` is true, not those for which it is unknown (SQL:2003, 4.15.4).
//!
//! DataFusion 53 looks at the bits of the condition and not at what is null, in some of its aggregates: a row whose `c` is null
//! was counted or not, as it happened (apache/datafusion#22067). `c AND c IS NOT NULL` is never null. (`c IS TRUE` will not do: its plan
//! says that it may be null, and DataFusion's own check of its plans refuses that.)

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
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
    let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
    let input = aggregate.input.schema().clone();
    // what stands above knows the columns by the text that was written
    let names = NamePreserver::new(&plan);
    let changed = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(expr.transform_up(|expr| known(expr, &input))?.update_data(|expr| name.restore(expr)))
    })?;
    changed.map_data(LogicalPlan::recompute_schema)
}

fn known(expr: Expr, input: &DFSchema) -> DfResult<Transformed<Expr>> {
    let Expr::AggregateFunction(AggregateFunction { func, mut params }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let condition = match params.filter.take() {
        Some(filter) if filter.nullable(input)? => filter,
        filter => {
            params.filter = filter;
            return Ok(Transformed::no(Expr::AggregateFunction(AggregateFunction { func, params })));
        }
    };
    let is_known = condition.clone().is_not_null();
    params.filter = Some(Box::new(condition.and(is_known)));
    Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params })))
}
