//! What a statement and its parameters may be: SQL here only reads.

use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Ast;

use crate::error::{LakeError, LakeErrorKind, Result};

/// The value of a parameter.
///
/// # Errors
/// `Refused` for what is no single value.
pub fn param(at: usize, value: &serde_json::Value) -> Result<ScalarValue> {
    use serde_json::Value;
    match value {
        Value::Null => Ok(ScalarValue::Null),
        Value::Bool(flag) => Ok(ScalarValue::from(*flag)),
        Value::String(text) => Ok(ScalarValue::from(text.as_str())),
        Value::Number(number) => number
            .as_i64()
            .map(ScalarValue::from)
            .or_else(|| number.as_u64().map(ScalarValue::from))
            .or_else(|| number.as_f64().map(ScalarValue::from))
            .ok_or_else(|| LakeError::new(LakeErrorKind::Refused, format!("parameter ${} is not a number", at + 1))),
        Value::Array(_) | Value::Object(_) => {
            let message =
                format!("parameter ${} is an array or object: give null, a boolean, a number or a string", at + 1);
            Err(LakeError::new(LakeErrorKind::Refused, message))
        }
    }
}

/// Whether a limit may stand above the plan; what tells about plans must be outermost.
pub fn takes_limit(plan: &LogicalPlan) -> bool {
    !matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_))
}

/// Whether a statement tells of a table's columns and reads none of its rows.
pub fn only_tells(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(ast) if matches!(**ast, Ast::ExplainTable { .. } | Ast::ShowColumns { .. }))
}

/// Lets through what only reads.
///
/// # Errors
/// `Refused`.
pub fn refuse_writes(statement: &Statement) -> Result<()> {
    let name = match statement {
        Statement::Explain(explained) => return refuse_writes(&explained.statement),
        Statement::CreateExternalTable(_) => "CREATE EXTERNAL TABLE".to_owned(),
        Statement::CopyTo(_) => "COPY".to_owned(),
        Statement::Reset(_) => "RESET".to_owned(),
        Statement::Statement(ast) => match &**ast {
            Ast::Query(_) | Ast::ExplainTable { .. } | Ast::ShowTables { .. } | Ast::ShowColumns { .. } => {
                return Ok(());
            }
            Ast::ShowVariable { .. } | Ast::ShowFunctions { .. } => return Ok(()),
            Ast::Explain { statement, .. } => return refuse_writes(&Statement::Statement(statement.clone())),
            other => other.to_string().split_whitespace().take(2).collect::<Vec<_>>().join(" "),
        },
    };
    Err(refused_write(&name))
}

/// A plan tells of rows and files that a filter hides: who reads by a filter is not told it.
///
/// # Errors
/// `Forbidden`.
pub fn refuse_explain(statement: &Statement) -> Result<()> {
    let explains = match statement {
        Statement::Explain(_) => true,
        Statement::Statement(ast) => matches!(&**ast, Ast::Explain { .. }),
        _ => false,
    };
    if !explains {
        return Ok(());
    }
    let message = "EXPLAIN would tell of rows that the token's filters hide: use a token without filters";
    Err(LakeError::new(LakeErrorKind::Forbidden, message))
}

/// The refusal of a statement that writes.
pub fn refused_write(what: &str) -> LakeError {
    let message = format!(
        "{what} is refused, SQL here only reads: use SELECT, SHOW, DESCRIBE or EXPLAIN; write to a topic, and declare \
         streams and views in the configuration"
    );
    LakeError::new(LakeErrorKind::Refused, message)
}
