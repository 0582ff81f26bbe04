//! A view's declaration → one plain query over its stream: windows as columns, overlapping ones by a join with the intervals
//! between them, sessions by what stands before each row, items of lists by SQL's own `unnest`. It shares the declaration with the engine, and no way of computing.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, FieldRef};
use broker::{Offset, PartitionIndex};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Select, SelectItem, SetExpr,
    TableFactor, visit_expressions,
};
use engine::{DeclaredView, DeclaredWindows};

use super::starts;

/// The table of the rows that the view did not count: their places, and from which window on they count all the same.
pub const NOT_COUNTED: &str = "__not_counted";
/// Its columns.
pub const NOT_COUNTED_COLUMNS: [&str; 3] = ["__partition", "__offset", "__counted_from"];
/// Relative difference that the order of additions may make.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// The same where values have 24 bits.
const FLOAT32_TOLERANCE: f64 = 1e-6;
/// Three standard errors of `approx_distinct`, whose 2^14 registers give one of 0.81 %.
const DISTINCT_TOLERANCE: f64 = 0.025;
/// By how much the rank of an approximate percentile may be off: what t-digest does with its 100 centroids.
const RANK_TOLERANCE: f64 = 0.02;
/// Of fewer values, one of them is more than that: an approximate percentile then lies between the least and the greatest.
const RANKED_MIN: u32 = 100;
/// Relative difference of expressions over sketches, whose error cannot be told.
const SKETCH_TOLERANCE: f64 = 0.05;

/// What is recomputed of a view.
pub struct Scope<'a> {
    /// The rows below these offsets of the stream's topic.
    pub ends: &'a BTreeMap<PartitionIndex, Offset>,
    /// Windows that start at or after this time, in ms since 1970.
    pub from: Option<i64>,
    /// Windows that start before this time.
    pub to: Option<i64>,
    /// Whether some rows were not counted.
    pub has_exceptions: bool,
}

/// When a served value agrees with the recomputed one.
#[derive(Clone, Debug, PartialEq)]
pub enum Agreement {
    /// They are the same.
    Exact,
    /// They differ by no more than this part of the larger one.
    Close(f64),
    /// It lies between the values of these columns of the recomputation.
    Between(String, String),
}

/// A query that recomputes a view.
pub struct Statement {
    /// Its text. Its columns have the names of the view's.
    pub sql: String,
    /// Per column of the view.
    pub agreements: Vec<Agreement>,
}

/// The query of a view; Err says why it cannot be recomputed.
pub fn statement(view: &DeclaredView, scope: &Scope<'_>) -> Result<Statement, String> {
    let SetExpr::Select(select) = view.query.body.as_ref() else {
        return Err("its query is not one SELECT".into());
    };
    let alias = alias_of(select, view.stream.name())?;
    let selection = select.selection.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return Err("its keys are not named".into());
    };
    let rows = match view.windows {
        Some(DeclaredWindows::Session(gap_ms)) => {
            let keys: Vec<String> = groups.iter().skip(1).map(ToString::to_string).collect();
            sessions((view, scope), (&alias, &selection), &keys, gap_ms)
        }
        _ => items(view, placed(view, scope), &alias),
    };
    let mut shown: Vec<String> = Vec::new();
    if let Some(windows) = view.windows {
        shown.push("window_start".into());
        shown.push(format!("{} AS window_end", window_end(view, windows)));
    }
    let named: Vec<String> =
        select.projection.iter().map(name_of).collect::<Option<_>>().ok_or("a column has no name")?;
    // a key that the SELECT does not name is a column
    let shown_key = |key: &String| match &view.unnest {
        Some(unnest) if unnest.name == *key => format!("{alias}.{} AS {}", quoted(unnest.item), quoted(key)),
        _ => quoted(key),
    };
    shown.extend(view.keys.iter().filter(|key| !named.contains(key)).map(shown_key));
    shown.extend(select.projection.iter().map(ToString::to_string));
    let (agreements, bounds) = agreements(view, select, &named);
    shown.extend(bounds);
    let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
    let having = select.having.as_ref().map(|condition| format!(" HAVING {condition}")).unwrap_or_default();
    let sql = format!(
        "SELECT {} FROM ({rows}) AS {alias}{selection} GROUP BY {}{having}",
        shown.join(", "),
        groups.join(", ")
    );
    Ok(Statement { sql, agreements })
}

/// The least event time of the rows that count, in each of these partitions.
pub fn earliest(view: &DeclaredView, scope: &Scope<'_>, partitions: &[PartitionIndex]) -> String {
    let time = quoted(view.stream.event_time());
    let list: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    let scope = Scope { from: None, to: None, ..*scope };
    format!(
        "SELECT _partition, min({time}) AS earliest FROM ({}) AS \"__rows\" WHERE _partition IN ({}) GROUP BY _partition",
        placed(view, &scope),
        list.join(", ")
    )
}

/// The name under which the query speaks of its stream.
fn alias_of(select: &Select, stream: &str) -> Result<String, String> {
    match select.from.as_slice() {
        [from] if from.joins.is_empty() => match &from.relation {
            TableFactor::Table { alias, .. } => {
                Ok(alias.as_ref().map_or_else(|| quoted(stream), |alias| alias.name.to_string()))
            }
            other => Err(format!("it reads {other}, which is not a stream")),
        },
        _ => Err("it reads more than one stream".into()),
    }
}

/// The rows that count, each with the start of its window, or once for each of its windows: of a session, with its own time.
fn placed(view: &DeclaredView, scope: &Scope<'_>) -> String {
    let (columns, time) = (columns_of(view), quoted(view.stream.event_time()));
    let (mut start, mut hops, mut conditions) = (starts::moment(0), String::new(), offsets_below(scope.ends));
    let mut kept: Vec<String> = Vec::new();
    match view.windows {
        None => {}
        Some(DeclaredWindows::Session(_)) => start.clone_from(&time),
        Some(DeclaredWindows::Tumble(window)) => start = starts::start(window, &time, None),
        Some(DeclaredWindows::Hop { slide, size }) => {
            start = starts::start(slide, &time, Some("\"__back\""));
            let backs: Vec<String> = starts::backs(slide, size).iter().map(|back| format!("({back})")).collect();
            hops = format!(" CROSS JOIN (VALUES {}) AS \"__hops\"(\"__back\")", backs.join(", "));
            kept.push(format!("{} > {time}", starts::end(size, "window_start")));
        }
    }
    if let Some(windows) = view.windows.filter(|windows| !matches!(windows, DeclaredWindows::Session(_))) {
        // what is far from the windows need not be read
        let longest_ms = starts::longest_ms(windows);
        let from = scope.from.map(|from| format!(" AND {time} >= {}", starts::moment(from)));
        let to = scope.to.map(|to| format!(" AND {time} < {}", starts::moment(to.saturating_add(longest_ms))));
        conditions.extend(from.into_iter().chain(to));
        kept.extend(range(scope));
    }
    let table = quoted(view.stream.name());
    let mut from = format!("{table}{hops}");
    let mut exceptions = String::new();
    if scope.has_exceptions {
        let [partition, offset, counted_from] = NOT_COUNTED_COLUMNS.map(quoted);
        // the smaller side, which is kept in memory, stands first
        from = format!(
            "{} RIGHT JOIN (SELECT * FROM {from} WHERE {conditions}) AS \"__all\" ON {partition} = _partition AND {offset} = \
             _offset",
            quoted(NOT_COUNTED)
        );
        exceptions = format!(", {offset}, {counted_from}");
        kept.push(format!("({offset} IS NULL OR window_start >= {counted_from})"));
        conditions = "TRUE".into();
    }
    let kept = if kept.is_empty() { "TRUE".into() } else { kept.join(" AND ") };
    format!(
        "SELECT {columns}, window_start FROM (SELECT {columns}{exceptions}, {start} AS window_start FROM {from} WHERE \
         {conditions}) AS \"__placed\" WHERE {kept}"
    )
}

/// A row for each item of a view's list, where it has one. A row without items, or without a list, has no part in it.
fn items(view: &DeclaredView, rows: String, alias: &str) -> String {
    let Some(unnest) = &view.unnest else { return rows };
    let (columns, list, item) = (columns_of(view), &unnest.list, quoted(unnest.item));
    format!("SELECT {columns}, window_start, unnest({list}) AS {item} FROM ({rows}) AS {alias}")
}

/// Rows with the starts of their sessions: one begins where a row of its key follows the one before by more than the gap.
fn sessions(
    (view, scope): (&DeclaredView, &Scope<'_>),
    (alias, selection): (&str, &str),
    keys: &[String],
    gap_ms: i64,
) -> String {
    let (columns, time) = (columns_of(view), quoted(view.stream.event_time()));
    let partition = |more: Option<&str>| {
        let all: Vec<&str> = keys.iter().map(String::as_str).chain(more).collect();
        if all.is_empty() { String::new() } else { format!("PARTITION BY {} ", all.join(", ")) }
    };
    let by_time = format!("{}ORDER BY {time}", partition(None));
    let gap = starts::milliseconds(gap_ms);
    let marked = format!(
        "SELECT *, CASE WHEN {time} <= lag({time}) OVER ({by_time}) + {gap} THEN NULL ELSE 1 END AS \"__begins\" FROM ({}) AS \
         {alias}{selection}",
        items(view, placed(view, scope), alias)
    );
    let item = view.unnest.as_ref().map(|unnest| format!("{}, ", quoted(unnest.item))).unwrap_or_default();
    let numbered =
        format!("SELECT *, count(\"__begins\") OVER ({by_time}) AS \"__session\" FROM ({marked}) AS {alias}");
    let session = partition(Some("\"__session\""));
    let started = format!(
        "SELECT {columns}, {item}min({time}) OVER ({}) AS window_start FROM ({numbered}) AS {alias}",
        session.trim_end()
    );
    let range = range(scope);
    if range.is_empty() {
        return started;
    }
    format!("SELECT * FROM ({started}) AS \"__sessions\" WHERE {}", range.join(" AND "))
}

fn window_end(view: &DeclaredView, windows: DeclaredWindows) -> String {
    match windows {
        DeclaredWindows::Tumble(window) => starts::end(window, "window_start"),
        DeclaredWindows::Hop { size, .. } => starts::end(size, "window_start"),
        DeclaredWindows::Session(gap_ms) => {
            format!("max({}) + {}", quoted(view.stream.event_time()), starts::milliseconds(gap_ms))
        }
    }
}

fn range(scope: &Scope<'_>) -> Vec<String> {
    let from = scope.from.map(|from| format!("window_start >= {}", starts::moment(from)));
    let to = scope.to.map(|to| format!("window_start < {}", starts::moment(to)));
    from.into_iter().chain(to).collect()
}

fn offsets_below(ends: &BTreeMap<PartitionIndex, Offset>) -> String {
    let below =
        |(partition, end): (&PartitionIndex, &Offset)| format!("(_partition = {partition} AND _offset < {end})");
    let all: Vec<String> = ends.iter().map(below).collect();
    if all.is_empty() { "FALSE".into() } else { format!("({})", all.join(" OR ")) }
}

fn columns_of(view: &DeclaredView) -> String {
    let schema = view.stream.schema();
    schema.fields().iter().map(|field| quoted(field.name())).collect::<Vec<_>>().join(", ")
}

/// Per column of the view when values agree, and the columns that the recomputation has for it beside them.
fn agreements(view: &DeclaredView, select: &Select, named: &[String]) -> (Vec<Agreement>, Vec<String>) {
    let mut bounds = Vec::new();
    let mut agreement = |(at, field): (usize, &FieldRef)| {
        let item = named.iter().position(|name| name == field.name()).map(|item| &select.projection[item]);
        let Some(SelectItem::ExprWithAlias { expr, .. }) = item else { return exact_or_close(field.data_type()) };
        let sketches = sketches_in(expr);
        if let Some((low, high)) = percentile_bounds(expr, field.data_type().is_integer()) {
            let names = (format!("__low_{at}"), format!("__high_{at}"));
            bounds.push(format!("{low} AS {}", quoted(&names.0)));
            bounds.push(format!("{high} AS {}", quoted(&names.1)));
            return Agreement::Between(names.0, names.1);
        }
        match sketches.as_slice() {
            [] => exact_or_close(field.data_type()),
            [one] if one == "approx_distinct" && matches!(expr, Expr::Function(_)) => {
                Agreement::Close(DISTINCT_TOLERANCE)
            }
            _ => Agreement::Close(SKETCH_TOLERANCE),
        }
    };
    let agreements = view.schema.fields().iter().enumerate().map(&mut agreement).collect();
    (agreements, bounds)
}

fn exact_or_close(kind: &DataType) -> Agreement {
    match kind {
        DataType::Float64 => Agreement::Close(FLOAT_TOLERANCE),
        DataType::Float32 | DataType::Float16 => Agreement::Close(FLOAT32_TOLERANCE),
        _ => Agreement::Exact,
    }
}

/// The approximate aggregates of an expression.
fn sketches_in(expr: &Expr) -> Vec<String> {
    let mut found = Vec::new();
    let _ = visit_expressions(expr, |part| {
        if let Expr::Function(call) = part {
            found.extend(Some(call.name.to_string().to_lowercase()).filter(|name| name.starts_with("approx_")));
        }
        ControlFlow::<()>::Continue(())
    });
    found
}

/// The exact percentiles a little below and above an approximate one, where it stands alone.
fn percentile_bounds(expr: &Expr, is_whole: bool) -> Option<(String, String)> {
    let Expr::Function(call) = expr else { return None };
    let (value, rank) = percentile_of(call)?;
    let filter = call.filter.as_ref().map(|filter| format!(" FILTER (WHERE {filter})")).unwrap_or_default();
    let value = format!("CAST({value} AS DOUBLE)");
    let bound = |least: &str, rank: f64, whole: &str| {
        let ranked = format!("percentile_cont({value}, {:.6}){filter}", rank.clamp(0.0, 1.0));
        let all = format!("{least}({value}){filter}");
        let bound = format!("CASE WHEN count({value}){filter} < {RANKED_MIN} THEN {all} ELSE {ranked} END");
        // what is served of whole numbers is rounded
        if is_whole { format!("{whole}({bound})") } else { bound }
    };
    Some((bound("min", rank - RANK_TOLERANCE, "floor"), bound("max", rank + RANK_TOLERANCE, "ceil")))
}

/// What an approximate percentile is taken of, and at which rank: `f(x, rank)` or `f(rank) WITHIN GROUP (ORDER BY x)`.
fn percentile_of(call: &Function) -> Option<(String, f64)> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let arguments: Vec<&Expr> = list.args.iter().map(plain).collect::<Option<_>>()?;
    match (call.name.to_string().to_lowercase().as_str(), arguments.as_slice(), call.within_group.as_slice()) {
        ("approx_median", [value], []) => Some((value.to_string(), 0.5)),
        ("approx_percentile_cont", [value, rank, ..], []) => Some((value.to_string(), number(rank)?)),
        ("approx_percentile_cont", [rank, ..], [order]) => {
            let rank = number(rank)?;
            let rank = if order.options.asc == Some(false) { 1.0 - rank } else { rank };
            Some((order.expr.to_string(), rank))
        }
        _ => None,
    }
}

fn number(expr: &Expr) -> Option<f64> {
    expr.to_string().parse().ok()
}

fn plain(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The name of a column of the SELECT.
fn name_of(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normalized(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(normalized(ident)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(normalized),
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

/// A name as SQL takes it, whatever it is.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use broker::{Broker, BrokerConfig, Clock, Durability};
    use datafusion::sql::sqlparser::ast::Statement as Parsed;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;
    use engine::{ColumnConfig, Engine, EngineConfig, StreamConfig, ViewConfig};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_recomputed_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let config =
            BrokerConfig { data_dir: dir.path().join("data"), durability: Durability::Os, ..BrokerConfig::default() };
        let broker = Broker::open(config, Clock::manual(0)).await.unwrap();
        let ts = ColumnConfig { name: "ts".into(), sql_type: "TIMESTAMP".into(), ..ColumnConfig::default() };
        let stream = StreamConfig {
            name: "s".into(),
            topic: "s".into(),
            event_time: "ts".into(),
            columns: vec![ts],
            ..StreamConfig::default()
        };
        let sql = "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s".into();
        let views = vec![ViewConfig { sql, ..ViewConfig::default() }];
        let config = EngineConfig { streams: vec![stream], views, ..EngineConfig::default() };
        let engine = Engine::start(broker.clone(), config).await.unwrap();
        let mut view = engine.declared_view("v").unwrap();
        let ends = BTreeMap::new();
        let scope = Scope { ends: &ends, from: None, to: None, has_exceptions: false };
        assert!(statement(&view, &scope).is_ok());
        for (query, part) in [
            ("SELECT 1 AS n UNION SELECT 2", "not one SELECT"),
            ("SELECT count(*) AS n FROM (SELECT 1) AS s GROUP BY 1", "which is not a stream"),
            ("SELECT count(*) AS n FROM s, t GROUP BY window_start", "more than one stream"),
            ("SELECT count(*) AS n FROM s GROUP BY ALL", "keys are not named"),
            ("SELECT count(*) FROM s GROUP BY window_start", "a column has no name"),
        ] {
            let parsed = Parser::parse_sql(&GenericDialect {}, query).unwrap().remove(0);
            let Parsed::Query(parsed) = parsed else { panic!("{query}") };
            view.query = *parsed;
            let why = statement(&view, &scope).err().unwrap_or_default();
            assert!(why.contains(part), "{query}: {why}");
        }
        engine.stop().await;
        broker.stop().await.unwrap();
    }
}
