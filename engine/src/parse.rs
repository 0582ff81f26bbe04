//! The text of `CREATE MATERIALIZED VIEW`: name, stream, window, and the query with the window made a plain column.
//!
//! `TUMBLE(ts, INTERVAL '1' MINUTE)` becomes the column `window_start`, which the engine computes for each row before it
//! plans anything, and `window_end` becomes `window_start` plus the interval. A view without a window is grouped by a
//! constant `window_start` that is never shown, so both kinds take the same way through the engine.

use std::ops::ControlFlow;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::IntervalMonthDayNano;
use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Interval, Query, Select,
    SelectItem, SetExpr, Statement, TableFactor, Value, Visit, visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::names::{is_topic_name, normalized, single_name};
use crate::window::Window;

/// The column of a window's start, inclusive.
pub(crate) const WINDOW_START: &str = "window_start";
/// The column of a window's end, exclusive.
pub(crate) const WINDOW_END: &str = "window_end";

/// A tumbling window: each row belongs to exactly one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tumble {
    pub(crate) column: String,
    pub(crate) window: Window,
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
    match tumble.window {
        Window::Fixed(width_ms) => replace_window_end(select, &format!("{width_ms} milliseconds")),
        Window::Months(months, Tz::UTC) => replace_window_end(select, &format!("{months} months")),
        Window::Days(..) | Window::Months(..) if mentions_window_end(select) => {
            return Err(
                "the window_end of a window in a time zone cannot stand in an expression, use window_start".into()
            );
        }
        Window::Days(..) | Window::Months(..) => {}
    }
    Ok(Some(tumble))
}

fn mentions_window<N: Visit>(node: &N) -> bool {
    mentions(node, &[WINDOW_START, WINDOW_END])
}

fn mentions_window_end<N: Visit>(node: &N) -> bool {
    mentions(node, &[WINDOW_END])
}

fn mentions<N: Visit>(node: &N, names: &[&str]) -> bool {
    let is_window = |expr: &Expr| ident(expr).is_some_and(|name| names.contains(&name.as_str()));
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

fn replace_window_end(select: &mut Select, width: &str) {
    let _ = visit_expressions_mut(select, |expr| {
        if ident(expr).is_some_and(|column| column == WINDOW_END) {
            let width = Value::SingleQuotedString(width.to_owned());
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
    const FORM: &str = "write TUMBLE(ts, INTERVAL '1' MINUTE), or TUMBLE(ts, INTERVAL '1' MONTH, 'Europe/Paris'), with the stream's event-time column";
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
    let zone = match (arguments.len(), arguments.get(2).and_then(plain)) {
        (2, _) => None,
        (3, Some(Expr::Value(value))) => Some(value.value.into_string().ok_or(FORM)?),
        _ => return Err(FORM.into()),
    };
    Ok(Tumble { column, window: window_of(&interval_text(&interval)?, zone.as_deref())? })
}

/// The text of an interval with its unit.
fn interval_text(interval: &Interval) -> Result<String, String> {
    let value = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            Value::Number(text, _) => text.to_string(),
            other => return Err(format!("'{other}' is not an interval, write INTERVAL '1' MINUTE")),
        },
        other => return Err(format!("'{other}' is not an interval, write INTERVAL '1' MINUTE")),
    };
    let unit = interval.leading_field.as_ref().map(|field| format!(" {field}")).unwrap_or_default();
    Ok(format!("{value}{unit}").to_lowercase())
}

/// The window of an interval: a fixed width, or whole days or months of a time zone (UTC for months without one).
fn window_of(text: &str, zone: Option<&str>) -> Result<Window, String> {
    let parsed = parse_interval_month_day_nano(text).map_err(|error| format!("interval '{text}': {error}"))?;
    let named = zone.map(|name| {
        name.parse::<Tz>().map_err(|_| format!("'{name}' is not a time zone, use a name like Europe/Paris"))
    });
    let window = window_of_interval(parsed, named.transpose()?);
    window.map_err(|mistake| format!("interval '{text}' cannot be a window: {mistake}"))
}

/// As SQL's `TUMBLE(ts, interval, zone)` means it; Err says what to use instead.
pub(crate) fn window_of_interval(interval: IntervalMonthDayNano, zone: Option<Tz>) -> Result<Window, String> {
    let nanoseconds = i128::from(interval.days) * 86_400_000_000_000 + i128::from(interval.nanoseconds);
    if interval.months != 0 {
        let months = u32::try_from(interval.months).ok().filter(|months| *months <= MONTHS_MAX && nanoseconds == 0);
        let months = months.ok_or("use months and years without days, up to ten years")?;
        return Ok(Window::Months(months, zone.unwrap_or(Tz::UTC)));
    }
    let width_ms = i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX);
    if nanoseconds % 1_000_000 != 0 || width_ms <= 0 || width_ms > WIDTH_MS_MAX {
        return Err("use a whole number of milliseconds up to 3660 days, or of months".into());
    }
    match zone {
        None => Ok(Window::Fixed(width_ms)),
        Some(zone) if width_ms % 86_400_000 == 0 => {
            Ok(Window::Days(u32::try_from(width_ms / 86_400_000).unwrap_or(1), zone))
        }
        Some(_) => Err("in a time zone, use whole days or months".into()),
    }
}

/// Ten years and some: wide enough for any report, narrow enough that a window's end is always a printable time.
const WIDTH_MS_MAX: i64 = 3_660 * 86_400_000;
/// The same in months.
const MONTHS_MAX: u32 = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<ParsedView, String> {
        parse_view(&format!("CREATE MATERIALIZED VIEW v AS {query}"))
    }

    #[test]
    fn windows() {
        let cases = [
            ("INTERVAL '1' MINUTE", Some(Window::Fixed(60_000))),
            ("INTERVAL '90 seconds'", Some(Window::Fixed(90_000))),
            ("INTERVAL '1 hour 30 minutes'", Some(Window::Fixed(5_400_000))),
            ("INTERVAL 2 DAY", Some(Window::Fixed(172_800_000))),
            ("INTERVAL '250' MILLISECOND", Some(Window::Fixed(250))),
            ("INTERVAL '1' MONTH", Some(Window::Months(1, Tz::UTC))),
            ("INTERVAL '1 year 6 months'", Some(Window::Months(18, Tz::UTC))),
            ("INTERVAL '1' MONTH, 'Europe/Paris'", Some(Window::Months(1, chrono_tz::Europe::Paris))),
            ("INTERVAL '2' DAY, 'Europe/Paris'", Some(Window::Days(2, chrono_tz::Europe::Paris))),
            ("INTERVAL '1' HOUR, 'Europe/Paris'", None),
            ("INTERVAL '1' DAY, 'Europe/Pari'", None),
            ("INTERVAL '1 month 1 day'", None),
            ("INTERVAL '0' SECOND", None),
            ("INTERVAL '-1' SECOND", None),
            ("INTERVAL '1' MICROSECOND", None),
            ("'1 minute'", None),
        ];
        for (interval, expected) in cases {
            let sql = format!("SELECT g, count(*) AS n FROM s GROUP BY TUMBLE(ts, {interval}), g");
            let window = parse(&sql).ok().and_then(|view| view.tumble).map(|tumble| tumble.window);
            assert_eq!(window, expected, "{interval}: {:?}", parse(&sql).err());
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
