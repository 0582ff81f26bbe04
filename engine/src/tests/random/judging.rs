//! What a view must show, by the definitions, and whether it does.

use std::cmp::Ordering as Order;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::Broker;
use serde_json::Value as Json;

use super::super::{header, read, records};
use super::Judged;
use super::events::{Log, Row};
use super::query::{Aggregate, Condition, Key, Query, What, Window};
use super::values::{Value, shown};
use crate::scalar::parse_timestamp_ms;
use crate::{Engine, ViewStatus};

type History = BTreeMap<String, Vec<Option<Json>>>;
/// A window, from inclusive to exclusive; and the keys as an answer shows them.
type Group = (i64, i64, Vec<String>);

pub async fn judge(query: &Query, log: &Log<'_>, (broker, engine): (&Arc<Broker>, &Arc<Engine>), judged: &Judged) {
    // waits until the view has all that is written
    let mut got = read(engine, &query.name).await;
    let late = late(query, log, broker).await;
    let groups = groups(query, log, &late);
    let mut wanted: Vec<Vec<String>> = Vec::new();
    for ((start, end, keys), rows) in &groups {
        if query.least_rows.is_none_or(|least| rows.len() as i64 >= least) {
            let mut shown = vec![start.to_string(), end.to_string()];
            shown.extend(keys.iter().cloned());
            shown.push(rows.len().to_string());
            shown.extend(query.aggregates.iter().map(|call| result(call, rows)));
            wanted.push(shown);
        }
    }
    let has_window = !matches!(query.window, Window::None);
    for row in &mut got {
        match has_window {
            true => row[..2].iter_mut().for_each(|at| *at = parse_timestamp_ms(at).unwrap().to_string()),
            false => drop(row.splice(0..0, ["0".to_string(), "0".to_string()])),
        }
    }
    got.sort();
    wanted.sort();
    let sql = || query.declaration("s").sql;
    let status = status_of(engine, query);
    let (more, missing) = (without(&got, &wanted), without(&wanted, &got));
    assert!(
        more.is_empty() && missing.is_empty(),
        "{}\n  shown: {more:?}\n wanted: {missing:?}\n{status:?}\n{:?}",
        sql(),
        log.kinds()
    );
    assert_eq!(got.len(), wanted.len(), "{}: a row twice", sql());
    let counted = status.rows_applied + status.rows_filtered + status.late + log.refused.len() as u64;
    assert_eq!(counted, log.written(), "{}: {status:?}", sql());
    let told = told(query, (broker, engine), &wanted).await;
    for (count, more) in [
        (&judged.rows, log.rows.len()),
        (&judged.late, late.len()),
        (&judged.groups, groups.len()),
        (&judged.refused, log.refused.len()),
        (&judged.told, told),
    ] {
        count.fetch_add(more as u64, Ordering::Relaxed);
    }
}

fn status_of(engine: &Engine, query: &Query) -> ViewStatus {
    engine.status().into_iter().find(|status| status.view == query.name).unwrap()
}

fn without<'r>(rows: &'r [Vec<String>], others: &[Vec<String>]) -> Vec<&'r Vec<String>> {
    rows.iter().filter(|row| others.binary_search(row).is_err()).take(5).collect()
}

/// Partition and offset of each late row, and from which window on it counts if in any. A row may be late only for a window that
/// ended before what any partition had reached.
async fn late(query: &Query, log: &Log<'_>, broker: &Broker) -> HashMap<(i32, i64), Option<i64>> {
    let mut late = HashMap::new();
    let topic = format!("{}.late", query.name);
    if broker.catalog().topic(&topic).is_none() {
        return late;
    }
    let newest = log.rows.iter().map(|row| row.ts).max().unwrap_or(i64::MIN);
    for (_, record) in records(broker, &topic).await {
        let number = |name: &str| header(&record, name).parse::<i64>().unwrap();
        let place = (number("partition") as i32, number("offset"));
        let counted_from = record.headers.iter().any(|(name, _)| name.as_ref() == b"counted_from");
        let row = log.rows.iter().find(|row| (row.partition, row.offset) == place).unwrap();
        let missed = number("window_start");
        let closed = match &query.window {
            Window::Fixed { size, .. } => missed + size,
            Window::Zoned { zone, unit, size, .. } => zone.start_ms(*unit, zone.number(*unit, missed) + size),
            _ => row.ts,
        };
        assert!(closed + log.lateness_ms() <= newest, "{} {place:?} was not late", query.name);
        let known = late.insert(place, counted_from.then(|| number("counted_from")));
        assert_eq!(known, None, "{} {place:?} is late twice", query.name);
    }
    late
}

fn groups<'l>(
    query: &Query,
    log: &'l Log<'_>,
    late: &HashMap<(i32, i64), Option<i64>>,
) -> BTreeMap<Group, Vec<&'l Row>> {
    let mut groups: BTreeMap<Group, Vec<&Row>> = BTreeMap::new();
    let mut by_keys: BTreeMap<Vec<String>, Vec<&Row>> = BTreeMap::new();
    for row in &log.rows {
        if query.filter.as_ref().is_some_and(|filter| holds(filter, row) != Some(true)) {
            continue;
        }
        let counts_from = match late.get(&(row.partition, row.offset)) {
            Some(None) => continue,
            Some(Some(from)) => *from,
            None => i64::MIN,
        };
        let keys: Vec<String> = query.keys.iter().map(|key| key_of(key, row)).collect();
        for (start, end) in windows(&query.window, row.ts) {
            if start >= counts_from {
                groups.entry((start, end, keys.clone())).or_default().push(row);
            }
        }
        if matches!(query.window, Window::Session { .. }) {
            by_keys.entry(keys).or_default().push(row);
        }
    }
    if let Window::Session { gap } = query.window {
        for (keys, mut rows) in by_keys {
            rows.sort_by_key(|row| row.ts);
            for session in rows.chunk_by(|a, b| b.ts - a.ts <= gap) {
                let (first, last) = (session[0], session[session.len() - 1]);
                groups.insert((first.ts, last.ts + gap, keys.clone()), session.to_vec());
            }
        }
    }
    groups.values_mut().for_each(|rows| rows.sort_by_key(|row| (row.ts, row.partition, row.offset)));
    groups
}

/// All windows but sessions that a time is in.
fn windows(window: &Window, ts: i64) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    match window {
        Window::None => all.push((0, 0)),
        Window::Session { .. } => {}
        Window::Fixed { slide, size } => {
            let mut start = ts - ts.rem_euclid(*slide);
            while start + size > ts {
                all.push((start, start + size));
                start -= slide;
            }
        }
        Window::Zoned { zone, unit, slide, size } => {
            let number = zone.number(*unit, ts);
            let mut first = number - number.rem_euclid(*slide);
            while first + size > number {
                all.push((zone.start_ms(*unit, first), zone.start_ms(*unit, first + size)));
                first -= slide;
            }
        }
    }
    all
}

fn key_of(key: &Key, row: &Row) -> String {
    match key {
        Key::Column(at) => shown(&row.cells[*at]),
        Key::Holds(condition) => if holds(condition, row) == Some(true) { "yes" } else { "no" }.to_string(),
    }
}

/// SQL's three values; None is unknown.
fn holds(condition: &Condition, row: &Row) -> Option<bool> {
    match condition {
        Condition::IsNull(at) => Some(row.cells[*at].is_none()),
        Condition::Not(inner) => holds(inner, row).map(|holds| !holds),
        Condition::And(left, right) => match (holds(left, row), holds(right, row)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
        Condition::Or(left, right) => match (holds(left, row), holds(right, row)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        Condition::Compared(at, comparison, value) => {
            let order = row.cells[*at].as_ref()?.cmp(value);
            Some(match *comparison {
                "=" => order == Order::Equal,
                "<>" => order != Order::Equal,
                "<" => order == Order::Less,
                "<=" => order != Order::Greater,
                ">" => order == Order::Greater,
                _ => order != Order::Less,
            })
        }
    }
}

/// What an aggregate shows of rows in the order of time, partition and offset.
fn result(aggregate: &Aggregate, rows: &[&Row]) -> String {
    let counts = |row: &&&Row| aggregate.filter.as_ref().is_none_or(|filter| holds(filter, row) == Some(true));
    let rows: Vec<&Row> = rows.iter().filter(counts).copied().collect();
    let cells = |at: usize| rows.iter().map(move |row| &row.cells[at]);
    let there = |at: usize| rows.iter().filter_map(move |row| row.cells[at].as_ref());
    let flags = |at: usize| there(at).map(|value| *value == Value::Flag(true));
    let none = || "∅".to_string();
    match aggregate.what {
        What::Rows => rows.len().to_string(),
        What::There(at) => there(at).count().to_string(),
        What::Different(at) => there(at).collect::<BTreeSet<_>>().len().to_string(),
        What::Sum(at) => sum(there(at)).map_or_else(none, |sum| sum.shown()),
        What::Mean(at) => match sum(there(at)) {
            Some(Value::Quarters(sum)) => format!("{:?}", sum as f64 / 4.0 / there(at).count() as f64),
            _ => none(),
        },
        What::Least(at) => there(at).min().map_or_else(none, Value::shown),
        What::Most(at) => there(at).max().map_or_else(none, Value::shown),
        What::Any(at) => flags(at).reduce(|a, b| a || b).map_or_else(none, |any| any.to_string()),
        What::Every(at) => flags(at).reduce(|a, b| a && b).map_or_else(none, |every| every.to_string()),
        What::First(at) => rows.first().map_or_else(none, |row| shown(&row.cells[at])),
        What::Last(at) => rows.last().map_or_else(none, |row| shown(&row.cells[at])),
        What::All(_) if rows.is_empty() => none(),
        What::All(at) => format!("[{}]", cells(at).map(shown).collect::<Vec<_>>().join(", ")),
    }
}

fn sum<'v>(values: impl Iterator<Item = &'v Value>) -> Option<Value> {
    values.cloned().reduce(|a, b| match (a, b) {
        (Value::Whole(a), Value::Whole(b)) => Value::Whole(a + b),
        (Value::Cents(a), Value::Cents(b)) => Value::Cents(a + b),
        (Value::Quarters(a), Value::Quarters(b)) => Value::Quarters(a + b),
        other => unreachable!("{other:?}"),
    })
}

/// The view's topic has each group as it is now, or with EMIT FINAL each one that is closed, told once; how many that were. An idle
/// partition may close some at any moment, which the topic shows before the view's status does.
async fn told(query: &Query, (broker, engine): (&Broker, &Engine), wanted: &[Vec<String>]) -> usize {
    for _ in 0..250 {
        let closed_until = status_of(engine, query).closed_until;
        let history = history(query, broker).await;
        if newest(query, &history) == due(query, (wanted, closed_until)) {
            let is_once = !query.is_final || history.values().all(|values| values.len() == 1);
            assert!(is_once, "{}: a closed window has changed", query.declaration("s").sql);
            return if query.is_final { history.len() } else { 0 };
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = status_of(engine, query);
    let (shown, due) = (newest(query, &history(query, broker).await), due(query, (wanted, status.closed_until)));
    panic!("{}\n  told: {shown:?}\n wanted: {due:?}\n{status:?}", query.declaration("s").sql)
}

/// Key → the values that the view's topic had for it, in order; None is a tombstone.
async fn history(query: &Query, broker: &Broker) -> History {
    let mut history = History::new();
    for (_, record) in records(broker, &query.name).await {
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        let value = record.value.map(|value| serde_json::from_slice(&value).unwrap());
        history.entry(key).or_default().push(value);
    }
    history
}

/// Bounds of the window and number of rows of each key that the topic has.
fn newest(query: &Query, history: &History) -> Vec<[String; 3]> {
    let text = |value: &Json, name: &str| parse_timestamp_ms(value[name].as_str().unwrap()).unwrap().to_string();
    let brief = |value: &Json| match query.window {
        Window::None => ["0".to_string(), "0".to_string(), value["n"].to_string()],
        _ => [text(value, "window_start"), text(value, "window_end"), value["n"].to_string()],
    };
    let mut all: Vec<_> = history.values().filter_map(|values| values.last().unwrap().as_ref()).map(brief).collect();
    all.sort();
    all
}

/// The same of the rows that are to be told.
fn due(query: &Query, (wanted, closed_until): (&[Vec<String>], Option<i64>)) -> Vec<[String; 3]> {
    let is_closed = |row: &&Vec<String>| closed_until.is_some_and(|until| row[1].parse::<i64>().unwrap() <= until);
    let n = 2 + query.keys.len();
    let rows = wanted.iter().filter(|row| !query.is_final || is_closed(row));
    let mut all: Vec<_> = rows.map(|row| [row[0].clone(), row[1].clone(), row[n].clone()]).collect();
    all.sort();
    all
}
