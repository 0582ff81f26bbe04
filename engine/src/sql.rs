//! SQL text → DataFusion expressions: the session all views share, conditions of checks, and the exact sum.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result as DfResult, SchemaError, plan_err};
use datafusion::execution::context::SessionContext;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, GroupsAccumulator, LogicalPlan, ReversedUDAF, Signature,
    Volatility,
};
use datafusion::optimizer::simplify_expressions::{ExprSimplifier, SimplifyExpressions};
use datafusion::optimizer::{Optimizer, OptimizerContext};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionConfig;

use crate::filter_is_true::FilterIsTrue;
use crate::names::closest;
use crate::normalise::normalisers;
use crate::top_k::top_k;

/// Rows per batch inside the engine's plans: one step's partial states come out as one batch.
pub(crate) const PLAN_BATCH_ROWS: usize = 65_536;

/// A session that views and checks are planned in: one partition, no physical optimizer, exact sums. Each has its own
/// catalog, so that tables of one view are not seen by another.
pub(crate) fn session() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(PLAN_BATCH_ROWS);
    let options = config.options_mut();
    // One string type everywhere, so that stored state does not depend on how a cast was written.
    options.sql_parser.map_string_types_to_utf8view = false;
    // A partial aggregate always groups: each group must come out once per step.
    options.execution.skip_partial_aggregation_probe_ratio_threshold = 2.0;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_analyzer_rule(Arc::new(FilterIsTrue))
        .with_physical_optimizer_rules(Vec::new())
        .build();
    let context = SessionContext::new_with_state(state);
    context.register_udaf(exact_sum());
    context.register_udaf(top_k());
    normalisers().into_iter().for_each(|function| context.register_udf(function));
    context
}

/// `sum` as DataFusion has it, except that integers are summed as DECIMAL with up to 38 digits: DataFusion's own sum of
/// BIGINT wraps around silently. The result is DECIMAL(29,0) (30 for unsigned); ten billion extreme values fit.
pub fn exact_sum() -> AggregateUDF {
    AggregateUDF::from(ExactSum { inner: sum_udaf(), signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

impl AggregateUDFImpl for ExactSum {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [DataType::UInt64] => Ok(vec![DataType::Decimal128(20, 0)]),
            [kind] if kind.is_integer() => Ok(vec![DataType::Decimal128(19, 0)]),
            [kind @ (DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Float64)] => {
                Ok(vec![kind.clone()])
            }
            [DataType::Float32 | DataType::Null] => Ok(vec![DataType::Float64]),
            _ => plan_err!("sum takes one number, got {types:?}"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// Compiles an expression over a stream's or source's columns; Err says what is wrong with it.
pub(crate) fn compile_expression(
    text: &str,
    relation: &str,
    schema: &SchemaRef,
) -> Result<(Arc<dyn PhysicalExpr>, DataType), String> {
    let df_schema = DFSchema::try_from_qualified_schema(relation, schema).map_err(|error| message(&error))?;
    let context = session();
    let expr = simplified(&context, text, &df_schema)?;
    let compiled = context.create_physical_expr(expr, &df_schema).map_err(|error| message(&error))?;
    let kind = compiled.data_type(schema).map_err(|error| message(&error))?;
    Ok((compiled, kind))
}

/// Compiles a boolean expression over a stream's columns; Err says what is wrong with it.
pub(crate) fn compile_condition(text: &str, stream: &str, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>, String> {
    match compile_expression(text, stream, schema)? {
        (condition, DataType::Boolean) => Ok(condition),
        (_, other) => Err(format!("'{text}' is of type {other}, a condition must be BOOLEAN")),
    }
}

/// An expression as planners take it, over columns without a relation; Err says what is wrong with it.
pub(crate) fn plan_expression(text: &str, schema: &SchemaRef) -> Result<Expr, String> {
    let df_schema = DFSchema::try_from(schema.as_ref().clone()).map_err(|error| message(&error))?;
    simplified(&session(), text, &df_schema)
}

fn simplified(context: &SessionContext, text: &str, df_schema: &DFSchema) -> Result<Expr, String> {
    let expr = context.parse_sql_expr(text, df_schema).map_err(|error| message(&error))?;
    refuse_unstable(&expr)?;
    // Some functions (coalesce, for one) exist only until they are simplified.
    let simplify = SimplifyContext::default()
        .with_schema(Arc::new(df_schema.clone()))
        .with_config_options(context.state().config_options().clone());
    let simplifier = ExprSimplifier::new(simplify);
    let expr = simplifier.coerce(expr, df_schema).and_then(|expr| simplifier.simplify(expr));
    expr.map_err(|error| message(&error))
}

/// Evaluates a compiled condition for each row.
pub(crate) fn condition(condition: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> DfResult<BooleanArray> {
    let values = condition.evaluate(rows)?.into_array(rows.num_rows())?;
    let booleans = values.as_any().downcast_ref::<BooleanArray>().cloned();
    booleans.ok_or_else(|| DataFusionError::Internal("a condition gave another type than BOOLEAN".into()))
}

/// Which rows meet a condition: null counts as not met.
pub(crate) fn mask(met: BooleanArray) -> BooleanArray {
    if met.null_count() > 0 { prep_null_mask_filter(&met) } else { met }
}

/// Views are recomputed from the log: what gives another value each time, or at each time, cannot be in one.
pub(crate) fn refuse_unstable(expr: &Expr) -> Result<(), String> {
    let mut found = None;
    let walked = expr.apply(|node| {
        match node {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                found = Some(format!(
                    "{}() gives another value at another time, so the result could not be recomputed; use a column",
                    call.func.name()
                ));
            }
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                found = Some("subqueries are not supported here, use columns of the stream".into());
            }
            Expr::WindowFunction(_) => {
                found = Some("OVER (…) is not supported in a view, group by TUMBLE(…) instead".into());
            }
            Expr::Placeholder(_) => found = Some("parameters are not supported in a view, write the value".into()),
            _ => {}
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match (found, walked) {
        (Some(mistake), _) => Err(mistake),
        (None, Err(error)) => Err(message(&error)),
        (None, Ok(_)) => Ok(()),
    }
}

/// The same for all expressions of a plan.
pub(crate) fn refuse_unstable_plan(plan: &LogicalPlan) -> Result<(), String> {
    for expr in plan.expressions() {
        refuse_unstable(&expr)?;
    }
    plan.inputs().into_iter().try_for_each(refuse_unstable_plan)
}

/// A plan with its expressions simplified, as some functions exist only in that form. No other rule runs: it could move what the
/// engine cuts the plan at.
pub(crate) fn simplified_plan(plan: LogicalPlan) -> Result<LogicalPlan, String> {
    let simplify = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]);
    simplify.optimize(plan, &OptimizerContext::new(), |_, _| {}).map_err(|error| message(&error))
}

/// DataFusion's message on one line, without its category and backtrace.
pub(crate) fn message(error: &DataFusionError) -> String {
    if let DataFusionError::SchemaError(schema_error, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, valid_fields } = schema_error.as_ref()
    {
        return format!("no column '{}'{}", field.name, closest(&field.name, valid_fields.iter().map(Column::name)));
    }
    if let DataFusionError::SchemaError(schema_error, _) = error.find_root()
        && let SchemaError::DuplicateUnqualifiedField { name } = schema_error.as_ref()
    {
        // DataFusion names a cast like what it casts.
        return format!("two expressions are both '{name}' but for a CAST, change one so that it differs, say by + 0");
    }
    let text = error.strip_backtrace();
    let text = ["Schema error: ", "Error during planning: ", "SQL error: ", "type_coercion\ncaused by\n"]
        .iter()
        .fold(text, |text, category| text.replace(category, ""));
    text.replace('\n', " ").trim_end_matches(['.', ' ']).to_string()
}
