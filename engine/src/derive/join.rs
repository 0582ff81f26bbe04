//! The joins of a FROM clause. One to a table looks up the table's row by key and appends its columns; that of two streams is in
//! `stream_join`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{and, filter_record_batch, not, nullif};
use arrow::datatypes::SchemaRef;
use broker::Store;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, JoinType};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator};
use datafusion::physical_plan::PhysicalExpr;

use super::stream_join::{JoinedStreams, StreamJoin};
use crate::error::EngineError;
use crate::lookup::LookupTable;
use crate::names::closest;
use crate::sql;

/// One compiled join. Never changes after it is made.
pub(super) struct LookupJoin {
    table: Arc<LookupTable>,
    /// The key, over the columns before the join.
    key: Arc<dyn PhysicalExpr>,
    /// What else ON says, over the columns after it.
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    /// LEFT: rows without a match stay.
    keeps_all: bool,
    schema: SchemaRef,
}

/// Why rows could not be evaluated.
#[derive(Debug)]
pub(super) enum Failure {
    /// Some row is at fault.
    Row(DataFusionError),
    /// The store, or the engine itself.
    Engine(EngineError),
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Failure {
        Failure::Row(error)
    }
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(error: arrow::error::ArrowError) -> Failure {
        Failure::Row(error.into())
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        Failure::Engine(error)
    }
}

/// The joins of a FROM clause.
#[derive(Default)]
pub(super) struct Joins {
    /// Of two streams; it is done first.
    pub(super) streams: Option<StreamJoin>,
    /// To tables, in the order in which they are done.
    pub(super) tables: Vec<LookupJoin>,
}

/// The joins of a FROM clause, which may join these streams. Err says what is not supported.
pub(super) fn joins_of(
    plan: &LogicalPlan,
    streams: Option<&JoinedStreams<'_>>,
    tables: &[Arc<LookupTable>],
    context: &SessionContext,
) -> Result<Joins, String> {
    match plan {
        LogicalPlan::TableScan(_) => Ok(Joins::default()),
        LogicalPlan::SubqueryAlias(alias) => joins_of(&alias.input, streams, tables, context),
        LogicalPlan::Join(join) => {
            let mut all = joins_of(&join.left, streams, tables, context)?;
            match streams.filter(|streams| streams.right.name() == table_name(&join.right)) {
                None => all.tables.push(LookupJoin::new(join, tables, context)?),
                Some(_) if !all.tables.is_empty() => return Err("join the streams first, then the tables".into()),
                Some(streams) => all.streams = Some(StreamJoin::new(join, streams, context)?),
            }
            Ok(all)
        }
        other => Err(format!("'{}' is not supported in FROM, name a stream and tables", other.display())),
    }
}

/// Whether rows without a match stay.
fn keeps_all(join: &Join) -> Result<bool, String> {
    match join.join_type {
        JoinType::Left => Ok(true),
        JoinType::Inner => Ok(false),
        other => {
            Err(format!("a {other} join of a table is not supported in a derived stream, write JOIN or LEFT JOIN"))
        }
    }
}

/// All that ON says.
pub(super) fn conditions_of(join: &Join) -> Vec<Expr> {
    let equal = join.on.iter().map(|(left, right)| Expr::eq(left.clone(), right.clone()));
    equal.chain(join.filter.iter().flat_map(split_conjunction).cloned()).collect()
}

impl LookupJoin {
    fn new(join: &Join, tables: &[Arc<LookupTable>], context: &SessionContext) -> Result<LookupJoin, String> {
        let name = table_name(&join.right);
        let table = tables.iter().find(|table| table.name() == name).cloned();
        let table = table
            .ok_or_else(|| format!("no table '{name}'{}", closest(&name, tables.iter().map(|table| table.name()))))?;
        let keeps_all = keeps_all(join)?;
        let (left, right) = (join.left.schema(), join.right.schema());
        let (mut key, mut rest) = (None, Vec::new());
        for condition in conditions_of(join) {
            match key_expr(&condition, right, &table).filter(|_| key.is_none()) {
                Some(found) => key = Some(found),
                None => rest.push(condition),
            }
        }
        let column = &table.config().key;
        let Some(key) = key else {
            return Err(format!(
                "table {name} is joined by its key: write ON <an expression of the stream> = {name}.{column}, of the same type"
            ));
        };
        let physical =
            |expr: Expr, schema: &DFSchema| context.create_physical_expr(expr, schema).map_err(|e| sql::message(&e));
        let key = physical(key, left)?;
        let wanted = table.schema().field(table.key_index()).data_type();
        let given = key.data_type(left.as_arrow()).map_err(|error| sql::message(&error))?;
        if given != *wanted {
            let sql_type = &table.config().columns[table.key_index()].sql_type;
            return Err(format!("the key of table {name} is {sql_type}, cast the stream's side of ON to it"));
        }
        let conditions = rest.into_iter().map(|expr| physical(expr, &join.schema)).collect::<Result<_, _>>()?;
        Ok(LookupJoin { table, key, conditions, keeps_all, schema: join.schema.inner().clone() })
    }

    /// Appends the table's columns, as of now.
    pub(super) fn apply(&self, rows: RecordBatch, store: &Store) -> Result<RecordBatch, Failure> {
        let keys = self.key.evaluate(&rows)?.into_array(rows.num_rows())?;
        let looked = self.table.look_up(&keys, store)?;
        let mut joined = self.append(&rows, looked.columns.clone())?;
        let mut matched = looked.found;
        for condition in &self.conditions {
            matched = and(&matched, &sql::mask(sql::condition(condition, &joined)?))?;
        }
        if matched.true_count() == matched.len() {
            return Ok(joined);
        }
        if !self.keeps_all {
            return Ok(filter_record_batch(&joined, &matched)?);
        }
        if !self.conditions.is_empty() {
            let unmatched = not(&matched)?;
            let columns = looked.columns.iter().map(|column| nullif(column, &unmatched));
            joined = self.append(&rows, columns.collect::<Result<_, _>>()?)?;
        }
        Ok(joined)
    }

    fn append(&self, rows: &RecordBatch, columns: Vec<ArrayRef>) -> Result<RecordBatch, Failure> {
        let arrays = rows.columns().iter().cloned().chain(columns).collect();
        Ok(RecordBatch::try_new(self.schema.clone(), arrays)?)
    }
}

fn table_name(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::TableScan(scan) => scan.table_name.table().to_string(),
        LogicalPlan::SubqueryAlias(alias) => table_name(&alias.input),
        other => other.display().to_string(),
    }
}

/// The side of an equation that a table's key must equal, when the condition is one.
fn key_expr(condition: &Expr, right: &DFSchema, table: &LookupTable) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left: one, op: Operator::Eq, right: other }) = condition else { return None };
    let is_key = |expr: &Expr| match expr {
        Expr::Column(column) => column.name == table.config().key && is_of(right, column),
        _ => false,
    };
    match (is_key(one), is_key(other)) {
        (false, true) if !mentions(one, right) => Some((**one).clone()),
        (true, false) if !mentions(other, right) => Some((**other).clone()),
        _ => None,
    }
}

fn is_of(schema: &DFSchema, column: &Column) -> bool {
    schema.has_column(column)
}

/// Whether an expression has a column of these.
pub(super) fn mentions(expr: &Expr, schema: &DFSchema) -> bool {
    let mut found = false;
    let walked = expr.apply(|node| {
        found |= matches!(node, Expr::Column(column) if is_of(schema, column));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || walked.is_err()
}
