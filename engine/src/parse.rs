//! The text of `CREATE MATERIALIZED VIEW`: name, stream, window, and the query with the window made a plain column.
//!
//! `TUMBLE(ts, INTERVAL '1' MINUTE)` and its like become the column `window_start`, which the engine computes for each row before
//! it plans anything, and `window_end` becomes `window_start` plus the interval. A view without a window is grouped by a
//! constant `window_start` that is never shown, so all kinds take the same way through the engine.

use std::ops::ControlFlow;

use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Ident, Interval, Query, Select, SelectItem, SetExpr, Statement, TableFactor,
    Value, Visit, visit_expressions, visit_expressions_mut,
};

use crate::names::{is_topic_name, normalized, single_name};
use crate::parse_emit::{Emit, parse_with_emit};
use crate::parse_window::{Windowed, window_call};
use crate::unnest::{ParsedUnnest, take_unnest};
use crate::window::Window;
use crate::windows::Windows;

/// The column of a window's start, inclusive.
pub(crate) const WINDOW_START: &str = "window_start";
/// The column of a window's end, exclusive.
pub(crate) const WINDOW_END: &str = "window_end";

/// A view's text, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct ParsedView {
    pub(crate) name: String,
    pub(crate) stream: String,
    pub(crate) windowed: Option<Windowed>,
    pub(crate) emit: Emit,
    /// The list in FROM that is taken apart.
    pub(crate) unnest: Option<ParsedUnnest>,
    /// The query as it was written, in one spelling, and EMIT where it is not what holds anyway.
    pub(crate) canonical: String,
    /// The query with `window_start` as a column.
    pub(crate) query: Query,
}

const FORM: &str =
    "write CREATE MATERIALIZED VIEW name AS SELECT … FROM stream GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), key";

/// Takes a view's text apart; Err says what to write instead.
pub(crate) fn parse_view(sql: &str) -> Result<ParsedView, String> {
    let (statements, emit) = parse_with_emit(sql).map_err(|error| format!("{error}; {FORM}"))?;
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
    let mut canonical = query.to_string();
    let select = plain_select(&mut query)?;
    check_items(select)?;
    let unnest = take_unnest(select)?;
    let stream = stream_name(select)?;
    let windowed = take_windows(select)?;
    group_by_window(select, windowed.as_ref())?;
    let windows = windowed.as_ref().map(|windowed| windowed.windows);
    let by_default = Emit::by_default(windows);
    let emit = emit.map_or(Ok(by_default), |emit| emit.asked(windows))?;
    if emit != by_default {
        canonical.push_str(&format!(" EMIT {}", emit.word()));
    }
    Ok(ParsedView { name, stream, windowed, emit, unnest, canonical, query })
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
            SelectItem::UnnamedExpr(expr) if is_column(expr) || window_call(expr).is_some() => {}
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

/// Replaces every TUMBLE(…) and its like by `window_start` and every `window_end` by `window_start` plus the width.
fn take_windows(select: &mut Select) -> Result<Option<Windowed>, String> {
    let mut found: Option<Windowed> = None;
    let replaced = visit_expressions_mut(select, |expr| {
        let Some(call) = window_call(expr) else { return ControlFlow::Continue(()) };
        let windowed = match call.parse() {
            Ok(windowed) => windowed,
            Err(mistake) => return ControlFlow::Break(mistake),
        };
        if found.as_ref().is_some_and(|other| *other != windowed) {
            return ControlFlow::Break("all TUMBLE(…), HOP(…) and SESSION(…) of a view must be the same".to_string());
        }
        found = Some(windowed);
        *expr = Expr::Identifier(Ident::new(WINDOW_START));
        ControlFlow::Continue(())
    });
    if let ControlFlow::Break(mistake) = replaced {
        return Err(mistake);
    }
    let Some(windowed) = found else {
        return if mentions_window(select) {
            Err("window_start and window_end need GROUP BY TUMBLE(ts, INTERVAL '…'), HOP(…) or SESSION(…)".into())
        } else {
            Ok(None)
        };
    };
    if select.selection.as_ref().is_some_and(mentions_window) {
        return Err("window_start and window_end cannot stand in WHERE, use the event time there or HAVING".into());
    }
    check_window_items(select)?;
    let width = match windowed.windows {
        Windows::Tumble(window) => Some(window),
        Windows::Hop(hop) => Some(hop.size()),
        Windows::Session(_) => None,
    };
    match width {
        Some(Window::Fixed(width_ms)) => replace_window_end(select, &format!("{width_ms} milliseconds")),
        Some(Window::Months(months, Tz::UTC)) => replace_window_end(select, &format!("{months} months")),
        _ if !mentions_window_end(select) => {}
        None => {
            return Err("the window_end of a session cannot stand in an expression, use max of the event time".into());
        }
        Some(Window::Days(..) | Window::Months(..)) => {
            return Err(
                "the window_end of a window in a time zone cannot stand in an expression, use window_start".into()
            );
        }
    }
    Ok(Some(windowed))
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

/// What is said of a key that stands twice.
pub(crate) fn key_twice(key: &dyn std::fmt::Display) -> String {
    format!("'{key}' stands twice in GROUP BY, take one away")
}

fn group_by_window(select: &mut Select, windowed: Option<&Windowed>) -> Result<(), String> {
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
    if let Some(windowed) = windowed {
        let name = windowed.windows.name();
        match groups.iter().filter(|group| is_window(group)).count() {
            0 => return Err(format!("{name}(…) must stand in GROUP BY")),
            1 => {}
            _ => return Err(format!("{name}(…) stands twice in GROUP BY")),
        }
    }
    groups.retain(|group| !is_window(group));
    if let Some(twice) = (1..groups.len()).find(|at| groups[..*at].contains(&groups[*at])) {
        return Err(key_twice(&groups[twice]));
    }
    groups.insert(0, Expr::Identifier(Ident::new(WINDOW_START)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::Hop;

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
            let windows = parse(&sql).ok().and_then(|view| view.windowed).map(|windowed| windowed.windows);
            assert_eq!(windows, expected.map(Windows::Tumble), "{interval}: {:?}", parse(&sql).err());
        }
    }

    #[test]
    fn hops_and_sessions() {
        let hop = |slide, size| Some(Windows::Hop(Hop::new(slide, size).unwrap()));
        let days = |days| Window::Days(days, chrono_tz::Europe::Paris);
        let cases = [
            ("HOP(ts, INTERVAL '1' MINUTE, INTERVAL '1' HOUR)", hop(Window::Fixed(60_000), Window::Fixed(3_600_000))),
            ("hop(s.ts, INTERVAL '1' DAY, INTERVAL '7' DAY, 'Europe/Paris')", hop(days(1), days(7))),
            (
                "HOP(ts, INTERVAL '1' MONTH, INTERVAL '1' YEAR)",
                hop(Window::Months(1, Tz::UTC), Window::Months(12, Tz::UTC)),
            ),
            ("SESSION(ts, INTERVAL '30' MINUTE)", Some(Windows::Session(1_800_000))),
            ("HOP(ts, INTERVAL '1' HOUR, INTERVAL '1' MINUTE)", None),
            ("HOP(ts, INTERVAL '1' SECOND, INTERVAL '1' DAY)", None),
            ("HOP(ts, INTERVAL '1' HOUR)", None),
            ("HOP(ts, INTERVAL '1' HOUR, INTERVAL '2' HOUR, 'Europe/Paris')", None),
            ("HOP(ts, INTERVAL '1' DAY, INTERVAL '1' MONTH)", None),
            ("SESSION(ts, INTERVAL '1' MONTH)", None),
            ("SESSION(ts, INTERVAL '1' DAY, 'Europe/Paris')", None),
            ("SESSION(ts)", None),
        ];
        for (call, expected) in cases {
            let parsed = parse(&format!("SELECT g, count(*) AS n FROM s GROUP BY {call}, g"));
            let windows = parsed.as_ref().ok().and_then(|view| view.windowed.clone()).map(|windowed| windowed.windows);
            assert_eq!(windows, expected, "{call}: {:?}", parsed.err());
        }
        let ends = parse(
            "SELECT count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '2' MINUTE, INTERVAL '3' MINUTE) HAVING window_end > ts",
        );
        assert!(
            ends.unwrap().query.to_string().ends_with("HAVING (window_start + INTERVAL '180000 milliseconds') > ts")
        );
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
    fn emit_is_a_part_of_the_definition_where_it_says_something() {
        let tumble = "SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' DAY)";
        let hop = "SELECT count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' DAY, INTERVAL '2' DAY)";
        let session = "SELECT count(*) AS n FROM s GROUP BY SESSION(ts, INTERVAL '1' DAY)";
        let cases = [
            ("SELECT count(*) AS n FROM s", "emit changes", Emit::Changes, true),
            (tumble, "", Emit::Changes, true),
            (tumble, "EMIT CHANGES;", Emit::Changes, true),
            (tumble, "EMIT FINAL", Emit::Final, false),
            (tumble, "HAVING count(*) > 1 Emit -- once\n Final ;", Emit::Final, false),
            (hop, "", Emit::Final, true),
            (hop, "EMIT FINAL", Emit::Final, true),
            (session, "EMIT FINAL", Emit::Final, false),
        ];
        for (query, emit, expected, is_default) in cases {
            let view = parse(&format!("{query} {emit}")).unwrap();
            assert_eq!(view.emit, expected, "{query} {emit}");
            assert_eq!(!view.canonical.contains("EMIT"), is_default, "{}", view.canonical);
            assert!(!view.query.to_string().to_uppercase().contains("EMIT"), "{}", view.query);
        }
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
            ("SELECT count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' DAY)", "first the slide, then the size"),
            (
                "SELECT count(*) AS n FROM s GROUP BY SESSION(ts, INTERVAL '1' DAY) HAVING window_end > ts",
                "use max of the event time",
            ),
            ("SELECT count(*) AS n FROM s EMIT FINAL", "has none: write EMIT CHANGES"),
            (
                "SELECT count(*) AS n FROM s GROUP BY HOP(ts, INTERVAL '1' DAY, INTERVAL '2' DAY) EMIT CHANGES",
                "EMIT FINAL",
            ),
            ("SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' DAY) EMIT ALL", "EMIT"),
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
