//! Aggregates to which the order of rows matters: in a view they go by event time, then partition and offset, which SQL is told.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArguments, Ident, ObjectName, OrderByExpr,
    Select, visit_expressions_mut,
};

/// Their names in a view, and those in SQL.
const ORDERED: [(&str, &str); 5] = [
    ("first", "first_value"),
    ("first_value", "first_value"),
    ("last", "last_value"),
    ("last_value", "last_value"),
    ("array_agg", "array_agg"),
];

/// The query with their order said.
pub fn ordered(mut select: Select, event_time: &str) -> Select {
    let _ = visit_expressions_mut(&mut select, |expr| {
        if let Expr::Function(call) = expr {
            order(call, event_time);
        }
        ControlFlow::<()>::Continue(())
    });
    select
}

fn order(call: &mut Function, event_time: &str) {
    let name = call.name.to_string().to_lowercase();
    let Some((_, function)) = ORDERED.iter().find(|(known, _)| *known == name) else { return };
    let FunctionArguments::List(list) = &mut call.args else { return };
    let is_distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    let is_order = |clause: &FunctionArgumentClause| matches!(clause, FunctionArgumentClause::OrderBy(_));
    if is_distinct || list.clauses.iter().any(is_order) {
        return;
    }
    let by = [event_time, "_partition", "_offset"].map(|column| OrderByExpr::from(Ident::with_quote('"', column)));
    list.clauses.push(FunctionArgumentClause::OrderBy(by.to_vec()));
    call.name = ObjectName::from(vec![Ident::new(*function)]);
    // a condition that is null is not met, which these functions do not see by themselves
    call.filter = call.filter.take().map(|filter| Box::new(Expr::IsTrue(Box::new(Expr::Nested(filter)))));
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::{SetExpr, Statement};
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn the_order_is_said_where_there_is_none() {
        let by = r#"ORDER BY "ts", "_partition", "_offset""#;
        let cases = [
            ("first(x) FILTER (WHERE y > 1)", format!("first_value(x {by}) FILTER (WHERE (y > 1) IS TRUE)")),
            ("last_value(x ORDER BY y)", "last_value(x ORDER BY y)".to_owned()),
            ("array_agg(DISTINCT x)", "array_agg(DISTINCT x)".to_owned()),
            ("max(x)", "max(x)".to_owned()),
        ];
        for (call, expected) in cases {
            let parsed = Parser::parse_sql(&GenericDialect {}, &format!("SELECT {call} FROM s")).unwrap();
            let [Statement::Query(query)] = parsed.as_slice() else { panic!("{parsed:?}") };
            let SetExpr::Select(select) = query.body.as_ref() else { panic!("{query}") };
            assert_eq!(ordered((**select).clone(), "ts").to_string(), format!("SELECT {expected} FROM s"));
        }
    }
}
