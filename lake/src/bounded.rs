//! Functions of SQL whose result can be far larger than their arguments, or whose work is. What a call would need is computed
//! from its arguments first: memory that cannot be had ends the process, and a call does not look at the clock.
//!
//! A call is done in pieces of rows that need little; a single row that needs more than a piece may is refused. The calls of
//! a statement share the memory, since their results may stand beside one another. `||` and `[…]` of SQL's own come through
//! [`operators`].

mod needs;
mod operators;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::{Expr, ScalarFunction};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::error::{LakeError, LakeErrorKind};
use needs::{Column, Need, RULES, Rule};
use operators::{BoundedOperators, Joined};

/// What part of its share one piece of a call may need.
const PIECE_PART: u64 = 4;
/// Aggregates whose result is as large as what they read.
const GROWING: &[&str] = &["array_agg", "string_agg"];
/// Most steps of one call; about a second.
const STEPS_MAX: u64 = 1 << 30;

/// Most calls in one statement.
const CALLS_MAX: u64 = 256;
/// Least share of a call.
const SHARE_BYTES_MIN: u64 = 1 << 20;

/// A function that is asked what it needs before it runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: ScalarUDF,
    rule: Rule,
    /// What the result of one batch may have.
    share_bytes: u64,
}

/// Puts bounds on the functions and operators of a session.
///
/// # Errors
/// DataFusion's, when the session takes no functions.
pub fn register(mut state: SessionState, memory_bytes: usize) -> Result<SessionState> {
    for (name, rule) in RULES {
        let Some(inner) = state.scalar_functions().get(*name).map(|function| (**function).clone()) else { continue };
        let bounded = Bounded { inner, rule: *rule, share_bytes: memory_bytes as u64 };
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(bounded)))?;
    }
    // the first planner that knows an operator has it
    let mut planners = state.expr_planners().to_vec();
    planners.insert(0, Arc::new(BoundedOperators::new(&state, memory_bytes)));
    Ok(SessionStateBuilder::new_from_existing(state).with_expr_planners(planners).build())
}

/// Gives the calls of a statement their shares of SQL's memory.
///
/// # Errors
/// `Refused` for more calls than there are shares for.
pub fn share(plan: LogicalPlan, memory_bytes: usize) -> Result<LogicalPlan> {
    let mut calls = 0;
    each_expression(&plan, |expr| {
        calls += u64::from(with_share(expr, 0).is_some());
        Ok(())
    })?;
    if calls > CALLS_MAX {
        let message = format!("the statement joins or repeats values in {calls} places: {CALLS_MAX} are the most");
        return Err(refused(LakeErrorKind::Refused, message));
    }
    if calls < 2 {
        return Ok(plan);
    }
    let share_bytes = (memory_bytes as u64 / calls).max(SHARE_BYTES_MIN);
    let shared = plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform_up(|expr| {
                Ok(with_share(&expr, share_bytes).map_or_else(|| Transformed::no(expr), Transformed::yes))
            })
        })
    })?;
    Ok(shared.data)
}

/// Looks at the expressions of a plan and of its subqueries, and at the parts of them.
fn each_expression(plan: &LogicalPlan, mut look: impl FnMut(&Expr) -> Result<()>) -> Result<()> {
    let mut whole = |expr: &Expr| expr.apply(|part| look(part).map(|()| TreeNodeRecursion::Continue));
    plan.apply_with_subqueries(|node| node.apply_expressions(&mut whole)).map(|_| ())
}

/// A call with another share; none for what is no call of a bounded function.
fn with_share(expr: &Expr, share_bytes: u64) -> Option<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let function = func.inner().as_any();
    let func = match (function.downcast_ref::<Bounded>(), function.downcast_ref::<Joined>()) {
        (Some(bounded), _) => ScalarUDF::new_from_impl(Bounded { share_bytes, ..bounded.clone() }),
        (_, Some(joined)) => ScalarUDF::new_from_impl(joined.with_share(share_bytes)),
        (None, None) => return None,
    };
    Some(Expr::ScalarFunction(ScalarFunction { func: Arc::new(func), args: args.clone() }))
}

/// How many rows of a plan's largest constant may stand in memory together.
///
/// # Errors
/// `Refused` for a list that would be kept once for each row: its length times the rows.
pub fn batch_rows(plan: &LogicalPlan, memory_bytes: usize) -> Result<usize> {
    let mut largest = 1;
    each_expression(plan, |expr| match expr {
        Expr::Literal(value, _) => {
            largest = largest.max(value.size());
            Ok(())
        }
        Expr::WindowFunction(window) if GROWING.contains(&window.fun.name()) => {
            let name = window.fun.name();
            let message = format!("{name} over a window would keep a list per row: use {name} with GROUP BY");
            Err(refused(LakeErrorKind::Refused, message))
        }
        _ => Ok(()),
    })?;
    Ok((memory_bytes / PIECE_PART as usize / largest).max(1))
}

impl Bounded {
    /// The pieces of rows that a call is done in.
    fn pieces(&self, columns: &[Column], rows: usize) -> Result<Vec<Range<usize>>> {
        let piece_bytes = self.share_bytes / PIECE_PART;
        let (mut pieces, mut start, mut bytes, mut steps) = (Vec::new(), 0, 0_u64, 0_u64);
        for row in 0..rows {
            let need = self.rule.need(columns, row).map_err(|message| refused(LakeErrorKind::Refused, message))?;
            steps = steps.saturating_add(need.steps);
            if steps > STEPS_MAX {
                return Err(self.too_slow(&need));
            }
            if need.bytes > piece_bytes {
                return Err(self.too_large(need.bytes));
            }
            if bytes + need.bytes > piece_bytes {
                pieces.push(start..row);
                (start, bytes) = (row, 0);
            }
            bytes += need.bytes;
        }
        pieces.push(start..rows);
        Ok(pieces)
    }

    fn piece(&self, args: &ScalarFunctionArgs, rows: Range<usize>) -> Result<ArrayRef> {
        let cut = |arg: &ColumnarValue| match arg {
            ColumnarValue::Array(values) => ColumnarValue::Array(values.slice(rows.start, rows.len())),
            constant => constant.clone(),
        };
        let piece = ScalarFunctionArgs {
            args: args.args.iter().map(cut).collect(),
            arg_fields: args.arg_fields.clone(),
            number_rows: rows.len(),
            return_field: args.return_field.clone(),
            config_options: args.config_options.clone(),
        };
        self.inner.invoke_with_args(piece)?.into_array(rows.len())
    }

    fn too_large(&self, bytes: u64) -> DataFusionError {
        too_large(self.inner.name(), bytes, self.share_bytes)
    }

    fn too_slow(&self, need: &Need) -> DataFusionError {
        let message = format!(
            "{} would take more than {STEPS_MAX} steps for one batch of rows, {} of them for one row: give it shorter values",
            self.inner.name(),
            need.steps
        );
        refused(LakeErrorKind::TimeLimit, message)
    }
}

fn too_large(name: &str, bytes: u64, share_bytes: u64) -> DataFusionError {
    let message = format!(
        "{name} needs {bytes} bytes, and its share of what all queries have is {share_bytes}: ask for less, or raise \
         lake.sql_memory_bytes_max"
    );
    refused(LakeErrorKind::MemoryLimit, message)
}

fn refused(kind: LakeErrorKind, message: String) -> DataFusionError {
    DataFusionError::External(Box::new(LakeError::new(kind, message)))
}

impl ScalarUDFImpl for Bounded {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    // `simplify` is not passed on: it may put the function without bounds in the place of this one.

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = args.args.iter().map(Column::of).collect::<Result<Vec<_>>>()?;
        let rows = if columns.iter().all(|column| column.constant) { 1 } else { args.number_rows };
        let pieces = self.pieces(&columns, rows)?;
        if pieces.len() == 1 {
            return self.inner.invoke_with_args(args);
        }
        let (mut done, mut bytes) = (Vec::with_capacity(pieces.len()), 0);
        for rows in pieces {
            let piece = self.piece(&args, rows)?;
            bytes += piece.get_array_memory_size() as u64;
            if bytes > self.share_bytes {
                return Err(self.too_large(bytes));
            }
            done.push(piece);
        }
        let done: Vec<&dyn Array> = done.iter().map(|piece| &**piece).collect();
        Ok(ColumnarValue::Array(concat(&done)?))
    }
}
