//! Aggregates to which the order of rows matters. In a view they go by event time, then partition and offset, and not by the order in
//! which rows come: so what they give depends neither on steps and restarts nor on what is merged first.
//!
//! DataFusion's own `first_value`, `last_value` and `array_agg` keep with each value what it is ordered by, and merge by that, when
//! their call has ORDER BY. So a view's text gets it, where the stream is known.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, OrderByExpr, OrderByOptions, Query, visit_expressions_mut,
};

use crate::names::{normalized, single_name};
use crate::stream::META_COLUMNS;

/// Their names in a view, and the functions that they are.
const ORDERED: [(&str, &str); 5] = [
    ("first", "first_value"),
    ("first_value", "first_value"),
    ("last", "last_value"),
    ("last_value", "last_value"),
    ("array_agg", "array_agg"),
];

/// Whether an aggregate is one of them, by its name in DataFusion.
pub(crate) fn is_ordered(function: &str) -> bool {
    ORDERED.iter().any(|(_, known)| *known == function)
}

/// Gives the calls of such aggregates in a query the order of event time; Err says what to write instead.
pub(crate) fn order_by_event_time(query: &mut Query, event_time: &str) -> Result<(), String> {
    let walked = visit_expressions_mut(query, |expr| match expr {
        Expr::Function(call) => match order(call, event_time) {
            Ok(()) => ControlFlow::Continue(()),
            Err(mistake) => ControlFlow::Break(mistake),
        },
        _ => ControlFlow::Continue(()),
    });
    match walked {
        ControlFlow::Break(mistake) => Err(mistake),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn order(call: &mut Function, event_time: &str) -> Result<(), String> {
    let Some(name) = single_name(&call.name) else { return Ok(()) };
    let Some((_, function)) = ORDERED.iter().find(|(known, _)| *known == name) else { return Ok(()) };
    let FunctionArguments::List(list) = &mut call.args else { return Ok(()) };
    let given = take_order(list);
    let is_distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    let by = match (is_distinct, *function, list.args.as_slice()) {
        (false, ..) => [event_time, META_COLUMNS[2], META_COLUMNS[3]]
            .map(|column| OrderByExpr::from(Ident::with_quote('"', column)))
            .to_vec(),
        // The set of values has no order but their own.
        (true, "array_agg", [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))]) => {
            vec![OrderByExpr { expr: value.clone(), options: OrderByOptions::default(), with_fill: None }]
        }
        (true, ..) => return Err(format!("{name}(DISTINCT …) is the same as {name}(…): leave DISTINCT out")),
    };
    if given.len() > by.len() || given.iter().zip(&by).any(|(given, own)| !is_same(given, own)) {
        let own = if is_distinct { "the value" } else { "event time, partition and offset" };
        return Err(format!("{name} goes by {own} in a view: leave its ORDER BY out"));
    }
    list.clauses.push(FunctionArgumentClause::OrderBy(by));
    call.name = ObjectName::from(vec![Ident::new(*function)]);
    // DataFusion's fast way for these reads a condition that is null as whatever lies below the null.
    call.filter = call.filter.take().map(|filter| Box::new(Expr::IsTrue(Box::new(Expr::Nested(filter)))));
    Ok(())
}

/// Takes the ORDER BY out of a call.
fn take_order(list: &mut FunctionArgumentList) -> Vec<OrderByExpr> {
    let mut given = Vec::new();
    list.clauses.retain(|clause| match clause {
        FunctionArgumentClause::OrderBy(by) => {
            given.extend(by.iter().cloned());
            false
        }
        _ => true,
    });
    given
}

/// Whether what is written is, ascending, the order that there is.
fn is_same(given: &OrderByExpr, own: &OrderByExpr) -> bool {
    let is_plain = given.options.asc != Some(false) && given.options.nulls_first.is_none() && given.with_fill.is_none();
    is_plain && (given.expr == own.expr || column(&given.expr).is_some_and(|name| column(&own.expr) == Some(name)))
}

fn column(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(normalized(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(normalized),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_view;

    fn ordered(items: &str) -> Result<String, String> {
        let mut parsed = parse_view(&format!("CREATE MATERIALIZED VIEW v AS SELECT {items} FROM s")).unwrap();
        order_by_event_time(&mut parsed.query, "At").map(|()| parsed.query.to_string())
    }

    #[test]
    fn calls_get_the_order_of_event_time() {
        let by = r#"ORDER BY "At", "_partition", "_offset""#;
        let cases = [
            ("first(x) AS a", format!("first_value(x {by}) AS a")),
            ("LAST_VALUE(x ORDER BY s.\"At\") IGNORE NULLS AS a", format!("last_value(x {by}) IGNORE NULLS AS a")),
            (
                "array_agg(x) FILTER (WHERE y > 0) AS a",
                format!("array_agg(x {by}) FILTER (WHERE (y > 0) IS TRUE) AS a"),
            ),
            ("array_agg(DISTINCT x) AS a", "array_agg(DISTINCT x ORDER BY x) AS a".to_string()),
            ("count(*) AS a", "count(*) AS a".to_string()),
        ];
        for (items, expected) in cases {
            assert_eq!(ordered(items).unwrap(), format!("SELECT {expected} FROM s GROUP BY window_start"));
        }
        for items in ["first(x ORDER BY y)", "last(x ORDER BY \"At\" DESC)", "array_agg(DISTINCT x ORDER BY y)"] {
            let mistake = ordered(&format!("{items} AS a")).unwrap_err();
            assert!(mistake.contains("leave its ORDER BY out"), "{items}: {mistake}");
        }
        assert!(ordered("first(DISTINCT x) AS a").unwrap_err().contains("leave DISTINCT out"));
    }
}
