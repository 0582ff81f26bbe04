//! Whether a column of a view can be combined over windows and keys, read from the view's own SQL.

use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, Query, Select, SelectItem, SetExpr, Statement,
};

use crate::parse_emit::parse_with_emit;

/// How two rows of a view become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Counts and sums: by adding.
    Sum,
    /// Least values: the lesser.
    Min,
    /// Largest values: the larger.
    Max,
    /// Averages, distinct counts and whatever is computed from several aggregates: never.
    Never,
}

/// How column `name` of the view that `sql` declares is combined; `Never` if that cannot be told.
pub fn combine_of(sql: &str, name: &str) -> Combine {
    let Ok((statements, _)) = parse_with_emit(sql) else { return Combine::Never };
    let select = statements.iter().find_map(|statement| match statement {
        Statement::CreateView(view) => select_of(&view.query),
        Statement::Query(query) => select_of(query),
        _ => None,
    });
    let Some(select) = select else { return Combine::Never };
    let item = select.projection.iter().find_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if same(&alias.value, name) => Some(expr),
        SelectItem::UnnamedExpr(expr) if same(&expr.to_string(), name) => Some(expr),
        _ => None,
    });
    item.map_or(Combine::Never, combine_of_expr)
}

fn select_of(query: &Query) -> Option<&Select> {
    match query.body.as_ref() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn combine_of_expr(expr: &Expr) -> Combine {
    match expr {
        Expr::Nested(inner) => combine_of_expr(inner),
        Expr::Function(function) => combine_of_function(function),
        _ => Combine::Never,
    }
}

fn combine_of_function(function: &Function) -> Combine {
    let distinct = match &function.args {
        FunctionArguments::List(list) => list.duplicate_treatment == Some(DuplicateTreatment::Distinct),
        _ => false,
    };
    match function.name.to_string().to_ascii_lowercase().as_str() {
        "count" | "sum" if !distinct => Combine::Sum,
        "min" => Combine::Min,
        "max" => Combine::Max,
        _ => Combine::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counts_sums_and_extremes_are_combined() {
        let sql = "CREATE MATERIALIZED VIEW v AS SELECT genre, count(*) AS plays, count(*) FILTER (WHERE event = 'like') AS likes, \
                   sum(duration_ms) AS total, min(a) AS least, max(a) AS most, avg(duration_ms) AS mean, \
                   count(DISTINCT user_id) AS listeners, sum(a) / count(*) AS ratio, CAST(sum(a) AS DOUBLE) AS d \
                   FROM listens WHERE event = 'listen' GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), genre";
        let expected = [
            ("plays", Combine::Sum),
            ("likes", Combine::Sum),
            ("total", Combine::Sum),
            ("least", Combine::Min),
            ("most", Combine::Max),
            ("mean", Combine::Never),
            ("listeners", Combine::Never),
            ("ratio", Combine::Never),
            ("d", Combine::Never),
            ("genre", Combine::Never),
            ("absent", Combine::Never),
        ];
        for (name, combine) in expected {
            assert_eq!(combine_of(sql, name), combine, "{name}");
        }
        assert_eq!(combine_of(&format!("{sql} EMIT FINAL"), "plays"), Combine::Sum);
        assert_eq!(combine_of("not sql", "plays"), Combine::Never);
        assert_eq!(combine_of("CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM t", "count(*)"), Combine::Sum);
    }
}
