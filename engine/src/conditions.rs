//! Declared checks, compiled: which rows they refuse, and which they only warn about.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::PhysicalExpr;

use crate::config::{CheckAction, CheckConfig};
use crate::error::Result;
use crate::sql;
use crate::stream::RULES;

/// The checks of a stream. Never changes after it is made.
#[derive(Default)]
pub(crate) struct Conditions {
    checks: Vec<Check>,
}

struct Check {
    name: Arc<str>,
    sql: String,
    warns: bool,
    condition: Arc<dyn PhysicalExpr>,
}

/// A row at fault: its index, the rule, and why.
pub(crate) type Fault = (usize, Arc<str>, String);

/// What the checks say of rows.
pub(crate) struct Judged {
    /// The rows that no check refuses.
    pub(crate) rows: RecordBatch,
    /// Refused rows by their index among all, ascending, each once.
    pub(crate) refused: Vec<Fault>,
    /// Rows of `rows` that a check warns about, and its name.
    pub(crate) warned: Vec<(usize, Arc<str>)>,
}

impl Conditions {
    /// Compiles checks over rows of this schema; mistakes are noted.
    pub(crate) fn compile(
        configs: &[CheckConfig],
        stream: &str,
        schema: &SchemaRef,
        mistakes: &mut Vec<String>,
    ) -> Conditions {
        let mut checks: Vec<Check> = Vec::new();
        for check in configs {
            if check.name.is_empty() || check.name.len() > 200 || RULES.contains(&check.name.as_str()) {
                mistakes.push(format!(
                    "check '{}': the name is empty, too long or a built-in rule's, rename it",
                    check.name
                ));
            }
            if configs.iter().filter(|other| other.name == check.name).count() > 1 {
                mistakes.push(format!("check '{}' is declared twice, rename one", check.name));
            }
            match sql::compile_condition(&check.sql, stream, schema) {
                Ok(condition) => checks.push(Check {
                    name: check.name.as_str().into(),
                    sql: check.sql.clone(),
                    warns: check.action == CheckAction::Warn,
                    condition,
                }),
                Err(mistake) => mistakes.push(format!("check '{}': {mistake}", check.name)),
            }
        }
        Conditions { checks }
    }

    /// Whether a check looks at the column of this index.
    pub(crate) fn uses(&self, index: usize) -> bool {
        self.checks.iter().any(|check| collect_columns(&check.condition).iter().any(|column| column.index() == index))
    }

    /// Splits rows into those that no check refuses and the refused ones, and says which the others warn about.
    pub(crate) fn judge(&self, rows: RecordBatch) -> Result<Judged> {
        let mut refused: Vec<Fault> = Vec::new();
        let mut good = vec![true; rows.num_rows()];
        for check in self.checks.iter().filter(|check| !check.warns) {
            check.mark(&rows, &mut good, &mut refused);
        }
        let rows = match refused.is_empty() {
            true => rows,
            false => filter_record_batch(&rows, &BooleanArray::from(good))?,
        };
        refused.sort_by_key(|(row, ..)| *row);
        let mut warned = Vec::new();
        for check in self.checks.iter().filter(|check| check.warns) {
            let mut faults = Vec::new();
            check.mark(&rows, &mut vec![true; rows.num_rows()], &mut faults);
            warned.extend(faults.into_iter().map(|(row, ..)| (row, check.name.clone())));
        }
        Ok(Judged { rows, refused, warned })
    }
}

/// The good ones of rows, each with the row of its step that it came from.
pub(crate) fn keep(
    (rows, origin): (RecordBatch, Vec<usize>),
    good: Vec<bool>,
) -> std::result::Result<(RecordBatch, Vec<usize>), ArrowError> {
    if good.iter().all(|good| *good) {
        return Ok((rows, origin));
    }
    let origin = origin.into_iter().zip(&good).filter(|(_, good)| **good).map(|(row, _)| row).collect();
    Ok((filter_record_batch(&rows, &BooleanArray::from(good))?, origin))
}

impl Check {
    /// Marks the rows that are still good and do not meet the check.
    fn mark(&self, rows: &RecordBatch, good: &mut [bool], faults: &mut Vec<Fault>) {
        match sql::condition(&self.condition, rows) {
            Ok(met) => self.mark_all(&met, good, faults),
            Err(_) => self.mark_one_by_one(rows, good, faults),
        }
    }

    fn mark_all(&self, met: &BooleanArray, good: &mut [bool], faults: &mut Vec<Fault>) {
        if met.true_count() == met.len() {
            return;
        }
        for (row, good) in good.iter_mut().enumerate().take(met.len()) {
            let is_true = met.is_valid(row) && met.value(row);
            if !is_true && *good {
                *good = false;
                let outcome = if met.is_valid(row) { "false" } else { "null" };
                faults.push((row, self.name.clone(), format!("check {} is {outcome}: {}", self.name, self.sql)));
            }
        }
    }

    /// An expression can fail on one row (a division by zero, say): then each row is looked at alone.
    fn mark_one_by_one(&self, rows: &RecordBatch, good: &mut [bool], faults: &mut Vec<Fault>) {
        for (row, good) in good.iter_mut().enumerate().take(rows.num_rows()) {
            if !*good {
                continue;
            }
            match sql::condition(&self.condition, &rows.slice(row, 1)) {
                Ok(met) if met.is_valid(0) && met.value(0) => {}
                Ok(_) => {
                    *good = false;
                    faults.push((row, self.name.clone(), format!("check {} is not true: {}", self.name, self.sql)));
                }
                Err(error) => {
                    *good = false;
                    faults.push((row, "check_failed".into(), format!("check {} failed: {error}", self.name)));
                }
            }
        }
    }
}
