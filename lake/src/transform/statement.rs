//! The SQL of a transform: one query in which `$name` stands for the text of a parameter.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{Expr, Statement as Ast, Value, visit_expressions, visit_expressions_mut};

use crate::error::{LakeError, LakeErrorKind, Result};

/// A query with places for parameters.
#[derive(Clone, Debug)]
pub struct Template {
    query: Ast,
    parameters: BTreeSet<String>,
}

impl Template {
    /// Reads a statement.
    ///
    /// # Errors
    /// `Config` when it is not one query, or a parameter has no name.
    pub fn parse(sql: &str) -> Result<Self> {
        let read = DFParser::parse_sql(sql).map_err(|e| LakeError::config(e.strip_backtrace()))?;
        let query = match read.into_iter().collect::<Vec<_>>().as_mut_slice() {
            [Statement::Statement(query)] if matches!(**query, Ast::Query(_)) => (**query).clone(),
            _ => return Err(LakeError::config("sql must be one query: SELECT … or WITH … SELECT …")),
        };
        let mut parameters = BTreeSet::new();
        let unnamed = visit_expressions(&query, |expr| {
            let Some(name) = placeholder(expr) else { return ControlFlow::Continue(()) };
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                return ControlFlow::Break(name.to_owned());
            }
            parameters.insert(name.to_owned());
            ControlFlow::Continue(())
        });
        match unnamed {
            ControlFlow::Break(name) => {
                Err(LakeError::config(format!("parameter ${name} has no name: write a word, as in $day")))
            }
            ControlFlow::Continue(()) => Ok(Self { query, parameters }),
        }
    }

    /// The names of its parameters.
    pub fn parameters(&self) -> &BTreeSet<String> {
        &self.parameters
    }

    /// The query with the texts in their places.
    ///
    /// # Errors
    /// `Refused` when one is missing.
    pub fn fill(&self, given: &BTreeMap<String, String>) -> Result<Statement> {
        if let Some(missing) = self.parameters.iter().find(|name| !given.contains_key(*name)) {
            let names: Vec<_> = self.parameters.iter().map(String::as_str).collect();
            let message = format!("parameter {missing} is missing: this transform takes {}", names.join(", "));
            return Err(LakeError::new(LakeErrorKind::Refused, message));
        }
        Ok(self.filled(|name| given.get(name).map(|text| Value::SingleQuotedString(text.clone()))))
    }

    /// The query with empty texts in the places of parameters, to find out its columns.
    pub fn fill_with_blanks(&self) -> Statement {
        self.filled(|_| Some(Value::SingleQuotedString(String::new())))
    }

    fn filled(&self, text: impl Fn(&str) -> Option<Value>) -> Statement {
        let mut query = self.query.clone();
        let _: ControlFlow<()> = visit_expressions_mut(&mut query, |expr| {
            if let Some(value) = placeholder(expr).and_then(&text) {
                *expr = Expr::Value(value.into());
            }
            ControlFlow::Continue(())
        });
        Statement::Statement(Box::new(query))
    }
}

/// The name of the parameter that an expression is.
fn placeholder(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => Some(name.strip_prefix('$').unwrap_or("")),
            _ => None,
        },
        _ => None,
    }
}
