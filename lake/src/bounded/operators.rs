//! Operators of SQL that become functions of DataFusion's own, past the names of the session: `||`, `@>`, `[…]`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::functions_nested::planner::NestedFunctionPlanner;
use datafusion::logical_expr::expr::{Expr, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::too_large;

/// Plans the operators with the functions of a session.
#[derive(Debug)]
pub struct BoundedOperators {
    functions: HashMap<String, Arc<ScalarUDF>>,
    joined: Arc<ScalarUDF>,
}

impl BoundedOperators {
    /// With the functions of a session, which have their bounds.
    pub fn new(state: &SessionState, memory_bytes: usize) -> Self {
        let signature = Signature::any(1, Volatility::Immutable);
        let joined = Joined { signature, share_bytes: memory_bytes as u64 };
        Self { functions: state.scalar_functions().clone(), joined: Arc::new(ScalarUDF::new_from_impl(joined)) }
    }

    /// The session's functions in the place of DataFusion's own.
    fn named(&self, expr: Expr) -> Expr {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return expr };
        let func = self.functions.get(func.name()).cloned().unwrap_or(func);
        Expr::ScalarFunction(ScalarFunction { func, args })
    }
}

impl ExprPlanner for BoundedOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        Ok(match NestedFunctionPlanner.plan_binary_op(expr, schema)? {
            PlannerResult::Planned(expr) => PlannerResult::Planned(self.named(expr)),
            PlannerResult::Original(RawBinaryExpr { op: BinaryOperator::StringConcat, left, right }) => {
                let joined = BinaryExpr::new(Box::new(left), Operator::StringConcat, Box::new(right));
                PlannerResult::Planned(self.joined.call(vec![Expr::BinaryExpr(joined)]))
            }
            original => original,
        })
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, schema: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(match NestedFunctionPlanner.plan_array_literal(exprs, schema)? {
            PlannerResult::Planned(expr) => PlannerResult::Planned(self.named(expr)),
            original => original,
        })
    }

    fn plan_make_map(&self, exprs: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(match NestedFunctionPlanner.plan_make_map(exprs)? {
            PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction { func, args })) => {
                let args = args.into_iter().map(|arg| self.named(arg)).collect();
                PlannerResult::Planned(self.named(Expr::ScalarFunction(ScalarFunction { func, args })))
            }
            other => other,
        })
    }
}

/// Looks at what `||` made: joined texts, joined again, double each time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Joined {
    signature: Signature,
    /// What the texts of one batch may have.
    share_bytes: u64,
}

impl Joined {
    /// The same with another share.
    pub fn with_share(&self, share_bytes: u64) -> Self {
        Self { share_bytes, ..self.clone() }
    }
}

impl ScalarUDFImpl for Joined {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn name(&self) -> &str {
        "joined"
    }

    /// A column is called by what was joined.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [joined] = datafusion::common::utils::take_function_args(self.name(), args.args)?;
        let bytes = match &joined {
            ColumnarValue::Array(texts) => texts.get_array_memory_size(),
            ColumnarValue::Scalar(text) => text.size(),
        };
        if bytes as u64 > self.share_bytes {
            return Err(too_large("||", bytes as u64, self.share_bytes));
        }
        Ok(joined)
    }
}
