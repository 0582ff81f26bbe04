//! `FROM s CROSS JOIN UNNEST(s.items) AS u(x)`: a row of the stream becomes one for each item of a list of its own, and none when that
//! is empty or null.
//!
//! It is taken out of the query's text and done to the stream's rows before anything else, so for the query the item is one more column of
//! the stream. What becomes of the rows is told of the row that they come from.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::{Result as DfResult, exec_err};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, Select, SelectItem, TableAlias, TableFactor, Value,
    visit_expressions_mut,
};

use crate::declared::DeclaredUnnest;
use crate::names::{normalized, single_name};
use crate::sql;

const FORM: &str = "write FROM stream CROSS JOIN UNNEST(stream.items) AS u(item)";
/// The name of the items' column below the SELECT; no stream has such a one.
pub(crate) const ITEM: &str = "_item";
/// Most items of one row's list.
const ITEMS_MAX: usize = 10_000;

/// A list that a query takes apart.
#[derive(Debug, Clone)]
pub(crate) struct ParsedUnnest {
    /// The list, over the stream's columns.
    list: String,
    /// What the query calls its items.
    pub(crate) column: String,
    /// The name that the stream goes by.
    relation: String,
}

impl ParsedUnnest {
    /// As it is told to who computes the view another way.
    pub(crate) fn declared(self) -> DeclaredUnnest {
        DeclaredUnnest { list: self.list, item: ITEM, name: self.column }
    }
}

/// The same, compiled. Never changes after it is made.
pub(crate) struct Unnest {
    list: Arc<dyn PhysicalExpr>,
    /// The items.
    pub(crate) field: Field,
    /// As it was written.
    pub(crate) text: String,
}

/// What lists hold, in order.
pub(crate) struct Items {
    /// The row that each item is of, ascending.
    pub(crate) rows: UInt32Array,
    pub(crate) values: ArrayRef,
}

/// Takes `CROSS JOIN UNNEST(…) AS u(x)` out of a SELECT, where `x` and `u.x` become a column of its stream.
pub(crate) fn take_unnest(select: &mut Select) -> Result<Option<ParsedUnnest>, String> {
    let mut taken: Vec<TableFactor> = Vec::new();
    let mut wrong = None;
    for from in &mut select.from {
        from.joins.retain(|join| match &join.relation {
            TableFactor::UNNEST { .. } => {
                wrong = wrong.take().or_else(|| (!is_cross(join)).then(|| join.join_operator.clone()));
                taken.push(join.relation.clone());
                false
            }
            _ => true,
        });
    }
    if select.from.len() > 1 {
        select.from.retain(|from| match &from.relation {
            TableFactor::UNNEST { .. } if from.joins.is_empty() => {
                taken.push(from.relation.clone());
                false
            }
            _ => true,
        });
    }
    let unnest = match taken.as_slice() {
        [] => return Ok(None),
        [unnest] if wrong.is_none() => unnest,
        [_] => return Err(format!("UNNEST gives the items of each row's own list, {FORM}")),
        _ => return Err(format!("one list at a time is taken apart, {FORM}, and the other in a stream over this one")),
    };
    let relation = match select.from.first().map(|from| &from.relation) {
        Some(TableFactor::Table { name, alias, .. }) => {
            let name = single_name(name).ok_or_else(|| format!("'{name}' is not a name of one part"))?;
            alias.as_ref().map_or(name, |alias| normalized(&alias.name))
        }
        _ => return Err(FORM.into()),
    };
    let (list, of, column) = parts(unnest)?;
    let parsed = ParsedUnnest { list: list.to_string(), column, relation };
    name_items(select, &of, &parsed);
    Ok(Some(parsed))
}

fn is_cross(join: &Join) -> bool {
    match &join.join_operator {
        JoinOperator::CrossJoin(JoinConstraint::None) => true,
        JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on)) => {
            matches!(on, Expr::Value(value) if value.value == Value::Boolean(true))
        }
        _ => false,
    }
}

/// The list, and the names of its relation and column.
fn parts(unnest: &TableFactor) -> Result<(&Expr, String, String), String> {
    let TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality: false, .. } = unnest else {
        return Err(format!("WITH OFFSET and WITH ORDINALITY are not supported, {FORM}"));
    };
    match (array_exprs.as_slice(), alias) {
        ([list], Some(TableAlias { name, columns, .. })) => match columns.as_slice() {
            [] => Ok((list, normalized(name), normalized(name))),
            [column] => Ok((list, normalized(name), normalized(&column.name))),
            _ => Err(format!("a list has one column of items, {FORM}")),
        },
        _ => Err(format!("UNNEST takes one list, and needs a name, {FORM}")),
    }
}

/// What the query calls an item becomes a column of the stream; where it is one of the result, it keeps its name.
fn name_items(select: &mut Select, of: &str, parsed: &ParsedUnnest) {
    let own = |expr: &Expr| match expr {
        Expr::Identifier(ident) => normalized(ident) == parsed.column,
        Expr::CompoundIdentifier(names) => {
            matches!(names.as_slice(), [one, two] if normalized(one) == of && normalized(two) == parsed.column)
        }
        _ => false,
    };
    let item = || {
        let names = [parsed.relation.as_str(), ITEM];
        Expr::CompoundIdentifier(names.map(|name| Ident::with_quote('"', name)).to_vec())
    };
    for selected in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = selected
            && own(expr)
        {
            *selected =
                SelectItem::ExprWithAlias { expr: item(), alias: Ident::with_quote('"', parsed.column.as_str()) };
        }
    }
    let _ = visit_expressions_mut(select, |expr| {
        if own(expr) {
            *expr = item();
        }
        ControlFlow::<()>::Continue(())
    });
}

impl Unnest {
    /// Compiles it over the stream's columns; Err says what is wrong with it.
    pub(crate) fn new(parsed: &ParsedUnnest, schema: &SchemaRef) -> Result<Unnest, String> {
        let text = format!("UNNEST({})", parsed.list);
        let (list, kind) = sql::compile_expression(&parsed.list, &parsed.relation, schema)?;
        let DataType::List(item) = &kind else {
            return Err(format!("{text} is over {kind}, which is no list: {FORM}"));
        };
        if item.data_type().is_nested() {
            return Err(format!("{text} gives {}, only plain items are taken out", item.data_type()));
        }
        let column = &parsed.column;
        if schema.field_with_name(column).is_ok() || column.starts_with('_') {
            return Err(format!(
                "'{column}' is a column of the stream or a reserved name, call the items of {text} otherwise"
            ));
        }
        let field = Field::new(ITEM, item.data_type().clone(), true);
        Ok(Unnest { list, field, text })
    }

    /// Indexes of the stream's columns that the list is computed from.
    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        collect_columns(&self.list).into_iter().map(|column| column.index())
    }

    /// The items of rows; an error when one cannot be computed or has too many.
    pub(crate) fn items(&self, rows: &RecordBatch) -> DfResult<Items> {
        let lists = self.list.evaluate(rows)?.into_array(rows.num_rows())?;
        let lists = lists.as_list::<i32>();
        let (mut of, mut places) = (Vec::new(), Vec::new());
        for (row, ends) in lists.value_offsets().windows(2).enumerate() {
            if lists.is_null(row) {
                continue;
            }
            let places_of = ends[0].unsigned_abs()..ends[1].unsigned_abs();
            if places_of.len() > ITEMS_MAX {
                return exec_err!(
                    "{} has {} items, at most {ITEMS_MAX} are taken out of a row",
                    self.text,
                    places_of.len()
                );
            }
            let row = u32::try_from(row).expect("a step has far fewer than 2^32 rows");
            of.extend(places_of.clone().map(|_| row));
            places.extend(places_of);
        }
        let values = take(lists.values(), &UInt32Array::from(places), None)?;
        Ok(Items { rows: UInt32Array::from(of), values })
    }
}

impl Items {
    /// A column of the rows, for each item.
    pub(crate) fn spread(&self, column: &ArrayRef) -> DfResult<ArrayRef> {
        Ok(take(column, &self.rows, None)?)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::{SetExpr, Statement};
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn taken(sql: &str) -> Result<(String, Option<ParsedUnnest>), String> {
        let statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
        let [Statement::Query(query)] = statements.as_slice() else { panic!("{sql}") };
        let SetExpr::Select(select) = query.body.as_ref() else { panic!("{sql}") };
        let mut select = select.as_ref().clone();
        let unnest = take_unnest(&mut select)?;
        Ok((select.to_string(), unnest))
    }

    #[test]
    fn the_item_becomes_a_column_of_the_stream() {
        let cases = [
            "SELECT x, a FROM s CROSS JOIN UNNEST(s.items) AS u(x) WHERE u.x > 1",
            "SELECT u.x, a FROM s JOIN UNNEST(s.items) u (X) ON TRUE WHERE X > 1",
            "SELECT x, a FROM s, UNNEST(s.items) AS x WHERE x > 1",
        ];
        for sql in cases {
            let (query, unnest) = taken(sql).unwrap();
            assert_eq!(query, r#"SELECT "s"."_item" AS "x", a FROM s WHERE "s"."_item" > 1"#, "{sql}");
            assert_eq!(unnest.unwrap().list, "s.items");
        }
        let (query, unnest) =
            taken("SELECT l.*, max(u.x) AS m FROM s AS l JOIN t ON l.k = t.k CROSS JOIN UNNEST(l.a) AS u(x)").unwrap();
        assert_eq!(query, r#"SELECT l.*, max("l"."_item") AS m FROM s AS l JOIN t ON l.k = t.k"#);
        assert_eq!(unnest.unwrap().relation, "l");
        assert!(taken("SELECT a FROM s").unwrap().1.is_none());
    }

    #[test]
    fn what_is_refused_says_what_to_write() {
        for from in [
            "s LEFT JOIN UNNEST(s.a) AS u(x) ON TRUE",
            "s CROSS JOIN UNNEST(s.a)",
            "s CROSS JOIN UNNEST(s.a, s.b) AS u(x)",
            "s CROSS JOIN UNNEST(s.a) AS u(x, y)",
            "s CROSS JOIN UNNEST(s.a) AS u(x) CROSS JOIN UNNEST(s.b) AS v(y)",
            "s CROSS JOIN UNNEST(s.a) AS u(x) WITH OFFSET",
        ] {
            let mistake = taken(&format!("SELECT x FROM {from}")).unwrap_err();
            assert!(mistake.contains("CROSS JOIN UNNEST"), "{from}: {mistake}");
        }
    }
}
