//! The text of `CREATE MATERIALIZED VIEW`: name, stream, window, and the query with the window made a plain column.
//!
//! `TUMBLE(ts, INTERVAL '1' MINUTE)` becomes the column `window_start`, which the engine computes for each row before it
//! plans anything, and `window_end` becomes `window_start` plus the interval. A view without a window is grouped by a
//! constant `window_start` that is never shown, so both kinds take the same way through the engine.

use std::ops::ControlFlow;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Interval, ObjectName,
    Query, Select, SelectItem, SetExpr, Statement, TableFactor, Value, visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::names::is_topic_name;

/// The column of a window's start, inclusive.
pub(crate) const WINDOW_START: &str = "window_start";
/// The column of a window's end, exclusive.
pub(crate) const WINDOW_END: &str = "window_end";

/// A tumbling window: each row belongs to exactly one window of this width, aligned to 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tumble {
    pub(crate) column: String,
    pub(crate) width_ms: i64,
}

/// A view's text, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct ParsedView {
    pub(crate) name: String,
    pub(crate) stream: String,
    pub(crate) tumble: Option<Tumble>,
    /// The query as it was written, in one spelling.
    pub(crate) canonical: String,
    /// The query with `window_start` as a column.
    pub(crate) query: Query,
}

const FORM: &str =
    "write CREATE MATERIALIZED VIEW name AS SELECT … FROM stream GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), key";

/// Takes a view's text apart; Err says what to write instead.
pub(crate) fn parse_view(sql: &str) -> Result<ParsedView, String> {
    let statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| format!("{error}; {FORM}"))?;
    let [Statement::CreateView(create)] = statements.as_slice() else {
        return Err(format!("not one CREATE MATERIALIZED VIEW statement, {FORM}"));
    };
    if !create.materialized {
        return Err(format!("a view must be MATERIALIZED, {FORM}"));
    }
    if !create.columns.is_empty() || create.temporary || create.to.is_some() {
        return Err("a column list, TEMPORARY and TO are not supported, name columns in the SELECT with AS".into());
    }
    let name = single_name(&create.name).ok_or("a view's name has one part, without dots outside quotes")?;
    if !is_topic_name(&name) {
        return Err(format!(
            "view name '{name}' must be 1 to 200 letters, digits, '.', '_' or '-', as it names a topic too"
        ));
    }
    let mut query = (*create.query).clone();
    let canonical = query.to_string();
    let select = plain_select(&mut query)?;
    check_items(select)?;
    let stream = stream_name(select)?;
    let tumble = take_tumble(select)?;
    group_by_window(select, tumble.as_ref())?;
    Ok(ParsedView { name, stream, tumble, canonical, query })
}

fn single_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(normalized),
        _ => None,
    }
}

/// SQL folds names without quotes to lower case.
fn normalized(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn plain_select(query: &mut Query) -> Result<&mut Select, String> {
    if query.with.is_some() {
        return Err("WITH is not supported in a view, write one SELECT over a stream".into());
    }
    if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return Err("ORDER BY and LIMIT do not belong in a view, give them when reading it".into());
    }
    match query.body.as_mut() {
        SetExpr::Select(select) if select.distinct.is_none() => Ok(select),
        SetExpr::Select(_) => Err("SELECT DISTINCT is not supported in a view, use GROUP BY".into()),
        _ => Err("UNION and the like are not supported in a view, write one SELECT over a stream".into()),
    }
}

/// Each item needs a name of its own: it becomes a column, a JSON field and a chart's label.
fn check_items(select: &Select) -> Result<(), String> {
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) if is_column(expr) || tumble_call(expr).is_some() => {}
            SelectItem::ExprWithAlias { .. } => {}
            SelectItem::UnnamedExpr(expr) => return Err(format!("'{expr}' needs a name, write {expr} AS some_name")),
            other => return Err(format!("'{other}' is not supported in a view, name the columns")),
        }
    }
    Ok(())
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

fn stream_name(select: &Select) -> Result<String, String> {
    let [from] = select.from.as_slice() else {
        return Err("a view reads FROM exactly one stream".into());
    };
    if !from.joins.is_empty() {
        return Err("joins are not supported in a view yet, read FROM one stream".into());
    }
    match &from.relation {
        TableFactor::Table { name, args: None, .. } => {
            single_name(name).ok_or_else(|| format!("'{name}' is not a stream's name, it has one part"))
        }
        other => Err(format!("'{other}' is not supported after FROM, name a stream")),
    }
}

/// Replaces every TUMBLE(…) by `window_start` and every `window_end` by `window_start` plus the width.
fn take_tumble(select: &mut Select) -> Result<Option<Tumble>, String> {
    let mut found: Option<Tumble> = None;
    let replaced = visit_expressions_mut(select, |expr| {
        let Some(arguments) = tumble_call(expr) else { return ControlFlow::Continue(()) };
        let tumble = match parse_tumble(arguments) {
            Ok(tumble) => tumble,
            Err(mistake) => return ControlFlow::Break(mistake),
        };
        if found.as_ref().is_some_and(|other| *other != tumble) {
            return ControlFlow::Break("all TUMBLE(…) of a view must be the same".to_string());
        }
        found = Some(tumble);
        *expr = Expr::Identifier(Ident::new(WINDOW_START));
        ControlFlow::Continue(())
    });
    if let ControlFlow::Break(mistake) = replaced {
        return Err(mistake);
    }
    let Some(tumble) = found else {
        return if mentions_window(select) {
            Err("window_start and window_end need GROUP BY TUMBLE(ts, INTERVAL '…')".into())
        } else {
            Ok(None)
        };
    };
    if select.selection.as_ref().is_some_and(mentions_window) {
        return Err("window_start and window_end cannot stand in WHERE, use the event time there or HAVING".into());
    }
    check_window_items(select)?;
    replace_window_end(select, tumble.width_ms);
    Ok(Some(tumble))
}

fn mentions_window<N: datafusion::sql::sqlparser::ast::Visit>(node: &N) -> bool {
    let is_window = |expr: &Expr| ident(expr).is_some_and(|name| name == WINDOW_START || name == WINDOW_END);
    let walked = visit_expressions(node, |expr| match is_window(expr) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    walked.is_break()
}

fn ident(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(normalized(ident)),
        _ => None,
    }
}

/// The window's columns keep their names: readers, charts and the lake look for them.
fn check_window_items(select: &mut Select) -> Result<(), String> {
    for item in &select.projection {
        if let SelectItem::ExprWithAlias { expr, alias } = item
            && let Some(column) = ident(expr)
            && (column == WINDOW_START || column == WINDOW_END)
            && normalized(alias) != column
        {
            return Err(format!(
                "the window is always shown as window_start and window_end, remove '{expr} AS {alias}'"
            ));
        }
    }
    // They are always in the result, so they need not stay in the list.
    select.projection.retain(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            ident(expr).is_none_or(|column| column != WINDOW_START && column != WINDOW_END)
        }
        _ => true,
    });
    Ok(())
}

fn replace_window_end(select: &mut Select, width_ms: i64) {
    let _ = visit_expressions_mut(select, |expr| {
        if ident(expr).is_some_and(|column| column == WINDOW_END) {
            let width = Value::SingleQuotedString(format!("{width_ms} milliseconds"));
            let interval = Interval {
                value: Box::new(Expr::Value(width.into())),
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            };
            *expr = Expr::Nested(Box::new(Expr::BinaryOp {
                left: Box::new(Expr::Identifier(Ident::new(WINDOW_START))),
                op: BinaryOperator::Plus,
                right: Box::new(Expr::Interval(interval)),
            }));
        }
        ControlFlow::<()>::Continue(())
    });
}

fn group_by_window(select: &mut Select, tumble: Option<&Tumble>) -> Result<(), String> {
    let GroupByExpr::Expressions(groups, modifiers) = &mut select.group_by else {
        return Err("GROUP BY ALL is not supported in a view, name the keys".into());
    };
    if !modifiers.is_empty() {
        return Err("GROUP BY with ROLLUP, CUBE or TOTALS is not supported in a view".into());
    }
    if groups.iter().any(|group| matches!(group, Expr::Value(_))) {
        return Err("GROUP BY by position is not supported in a view, name the keys".into());
    }
    let is_window = |group: &Expr| ident(group).is_some_and(|column| column == WINDOW_START);
    match (tumble, groups.iter().filter(|group| is_window(group)).count()) {
        (Some(_), 0) => return Err("TUMBLE(…) must stand in GROUP BY".into()),
        (Some(_), 1) => {}
        (Some(_), _) => return Err("TUMBLE(…) stands twice in GROUP BY".into()),
        (None, _) => {}
    }
    groups.retain(|group| !is_window(group));
    groups.insert(0, Expr::Identifier(Ident::new(WINDOW_START)));
    Ok(())
}

/// The arguments, if the expression is a call of TUMBLE.
fn tumble_call(expr: &Expr) -> Option<&[FunctionArg]> {
    let Expr::Function(call) = expr else { return None };
    let name = single_name(&call.name)?;
    match (&call.args, name.as_str()) {
        (FunctionArguments::List(list), "tumble") => Some(&list.args),
        _ => None,
    }
}

fn parse_tumble(arguments: &[FunctionArg]) -> Result<Tumble, String> {
    const FORM: &str = "write TUMBLE(ts, INTERVAL '1' MINUTE) with the stream's event-time column";
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    let [Some(column), Some(Expr::Interval(interval))] =
        [arguments.first(), arguments.get(1)].map(|argument| argument.and_then(plain))
    else {
        return Err(FORM.into());
    };
    let column = match &column {
        Expr::Identifier(ident) => normalized(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(normalized).ok_or(FORM)?,
        _ => return Err(FORM.into()),
    };
    if arguments.len() != 2 {
        return Err(FORM.into());
    }
    Ok(Tumble { column, width_ms: interval_ms(&interval)? })
}

/// A window's width; months and years have none.
fn interval_ms(interval: &Interval) -> Result<i64, String> {
    let value = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            Value::Number(text, _) => text.to_string(),
            other => return Err(format!("'{other}' is not an interval, write INTERVAL '1' MINUTE")),
        },
        other => return Err(format!("'{other}' is not an interval, write INTERVAL '1' MINUTE")),
    };
    let unit = interval.leading_field.as_ref().map(|field| format!(" {field}")).unwrap_or_default();
    let text = format!("{value}{unit}");
    let parsed =
        parse_interval_month_day_nano(&text.to_lowercase()).map_err(|error| format!("interval '{text}': {error}"))?;
    let nanoseconds = i128::from(parsed.days) * 86_400_000_000_000 + i128::from(parsed.nanoseconds);
    let width_ms = i64::try_from(nanoseconds / 1_000_000).map_err(|_| format!("interval '{text}' is too long"))?;
    if parsed.months != 0 || nanoseconds % 1_000_000 != 0 || width_ms <= 0 || width_ms > WIDTH_MS_MAX {
        return Err(format!(
            "interval '{text}' cannot be a window: use a whole number of milliseconds up to 3660 days (months and years differ in length)"
        ));
    }
    Ok(width_ms)
}

/// Ten years and some: wide enough for any report, narrow enough that a window's end is always a printable time.
const WIDTH_MS_MAX: i64 = 3_660 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<ParsedView, String> {
        parse_view(&format!("CREATE MATERIALIZED VIEW v AS {query}"))
    }

    #[test]
    fn windows() {
        let cases = [
            ("INTERVAL '1' MINUTE", Some(60_000)),
            ("INTERVAL '90 seconds'", Some(90_000)),
            ("INTERVAL '1 hour 30 minutes'", Some(5_400_000)),
            ("INTERVAL 2 DAY", Some(172_800_000)),
            ("INTERVAL '250' MILLISECOND", Some(250)),
            ("INTERVAL '1' MONTH", None),
            ("INTERVAL '0' SECOND", None),
            ("INTERVAL '-1' SECOND", None),
            ("INTERVAL '1' MICROSECOND", None),
            ("'1 minute'", None),
        ];
        for (interval, expected) in cases {
            let sql = format!("SELECT g, count(*) AS n FROM s GROUP BY TUMBLE(ts, {interval}), g");
            let width_ms = parse(&sql).ok().and_then(|view| view.tumble).map(|tumble| tumble.width_ms);
            assert_eq!(width_ms, expected, "{interval}: {:?}", parse(&sql).err());
        }
    }

    #[test]
    fn the_window_becomes_a_column() {
        let view = parse(
            "SELECT tumble(ts, INTERVAL '1' MINUTE), window_end, Genre, count(*) AS n FROM s \
             GROUP BY genre, TUMBLE(ts, INTERVAL '60' SECOND) HAVING window_end > window_start",
        );
        let view = view.unwrap();
        assert_eq!(view.stream, "s");
        assert_eq!(
            view.query.to_string(),
            "SELECT Genre, count(*) AS n FROM s GROUP BY window_start, genre \
             HAVING (window_start + INTERVAL '60000 milliseconds') > window_start"
        );
        let plain = parse("SELECT count(*) AS n FROM s").unwrap();
        assert_eq!(plain.query.to_string(), "SELECT count(*) AS n FROM s GROUP BY window_start");
    }

    #[test]
    fn what_is_refused_says_what_to_write() {
        let cases = [
            ("SELECT count(*) FROM s", "needs a name"),
            ("SELECT * FROM s", "name the columns"),
            ("SELECT count(*) AS n FROM s, t", "exactly one stream"),
            ("SELECT count(*) AS n FROM s JOIN t ON true", "joins"),
            ("SELECT count(*) AS n FROM (SELECT 1) AS x", "name a stream"),
            ("SELECT count(*) AS n FROM s ORDER BY 1", "ORDER BY"),
            ("SELECT count(*) AS n FROM s LIMIT 1", "LIMIT"),
            ("WITH t AS (SELECT 1) SELECT count(*) AS n FROM s", "WITH"),
            ("SELECT count(*) AS n FROM s UNION SELECT 1 AS n", "UNION"),
            ("SELECT DISTINCT g FROM s", "DISTINCT"),
            ("SELECT g, count(*) AS n FROM s GROUP BY 1", "by position"),
            ("SELECT window_start, count(*) AS n FROM s", "need GROUP BY TUMBLE"),
            ("SELECT count(*) AS n FROM s WHERE TUMBLE(ts, INTERVAL '1' MINUTE) > ts", "cannot stand in WHERE"),
            (
                "SELECT TUMBLE(ts, INTERVAL '1' DAY) AS w, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' DAY)",
                "remove",
            ),
            ("SELECT TUMBLE(ts, INTERVAL '1' DAY), count(*) AS n FROM s", "must stand in GROUP BY"),
            (
                "SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' DAY), TUMBLE(ts, INTERVAL '2' DAY)",
                "the same",
            ),
            ("SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts)", "write TUMBLE"),
        ];
        for (query, expected) in cases {
            let mistake = parse(query).expect_err(query);
            assert!(mistake.contains(expected), "{query}: {mistake}");
        }
        for sql in [
            "SELECT 1",
            "CREATE VIEW v AS SELECT 1 AS x FROM s",
            "nonsense",
            "",
            "CREATE MATERIALIZED VIEW a.b AS SELECT g FROM s",
        ] {
            parse_view(sql).expect_err(sql);
        }
    }
}
