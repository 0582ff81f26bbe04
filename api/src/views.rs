//! `/v1/views`: what views there are, and their rows by window, key and freshness.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use engine::{FillStatus, ReadRequest, SuccessorStatus, ViewInfo, ViewStatus};
use serde_json::{Value, json};

use crate::access::{Caller, read_view};
use crate::app::App;
use crate::at;
use crate::error::{Answer, Problem};
use crate::export;
use crate::output::{Format, Table, columns, offsets_json, time_text};
use crate::params::{Params, parse_order};
use crate::routes::{Doc, Routes};

/// Query parameters of a view; every other name is a key column.
const QUERY: &[(&str, &str)] = &[
    ("from", "first instant: windows that start at or after it; RFC 3339, a date or epoch milliseconds"),
    ("to", "end: windows that start before it"),
    ("order", "columns separated by commas, -column for descending; default: windows, then keys"),
    ("limit", "most rows; default and largest: http.rows_max"),
    (
        "wait",
        "how long to wait until everything appended before the request is applied: milliseconds or 2s; 0 takes what is there",
    ),
    ("at", "the offsets of an earlier answer, as JSON: the rows as they were then, computed again from log and lake"),
    ("format", "json, ndjson, csv or xlsx; else the Accept header decides"),
];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes.get("/v1/views", Doc::new("Views with their columns and how far they are"), list).get(
        "/v1/views/{view}",
        Doc::new("Rows of a view; further parameters filter key columns").query(QUERY).answers(export::FILE_TYPES),
        read,
    )
}

async fn list(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let statuses = app.engine.status();
    let views = app.engine.views();
    let views: Value = views
        .iter()
        .filter(|info| caller.sees(&info.name))
        .map(|info| {
            let mut view = describe(info, statuses.iter().find(|status| status.view == info.name));
            view["declared"] = json!(app.engine.declared_in(&info.name));
            view["verified"] = json!(app.verifications.of_view(&info.name));
            view
        })
        .collect();
    Ok(Json(json!({"views": views})))
}

fn describe(info: &ViewInfo, status: Option<&ViewStatus>) -> Value {
    json!({
        "name": info.name,
        "stream": info.stream,
        "sql": info.sql,
        "columns": columns(&info.schema),
        "keys": info.keys,
        "window_ms": info.windows.map(engine::Windows::nominal_ms),
        "emit": info.emit.word().to_lowercase(),
        "status": status.map(status_json),
    })
}

fn status_json(status: &ViewStatus) -> Value {
    json!({
        "offsets": offsets_json(&status.positions),
        "high_watermarks": offsets_json(&status.high_watermarks),
        "lag_records": status.lag_records,
        "lag_ms": status.lag_ms,
        "event_watermark": status.event_watermark.map(time_text),
        "closed_until": status.closed_until.map(time_text),
        "rows_applied": status.rows_applied,
        "rows_filtered": status.rows_filtered,
        "late": status.late,
        "failed": status.failed,
        "lost": status.lost,
        "hot_groups": status.hot_groups,
        "hot_bytes": status.hot_bytes,
        "engine_cpu_ms": status.engine_cpu_ms,
        "state": state_word(status),
        "fill_left": status.fill_left,
        "fill": status.fill.as_ref().map(fill_json),
        "successor": status.successor.as_ref().map(successor_json),
        "error": status.error,
    })
}

fn successor_json(successor: &SuccessorStatus) -> Value {
    json!({
        "sql": successor.sql,
        "left": successor.left,
        "rows_applied": successor.rows_applied,
        "fill": fill_json(&successor.fill),
        "error": successor.error,
    })
}

/// How a view or a derived stream is filled.
pub fn fill_json(fill: &FillStatus) -> Value {
    json!({ "to": offsets_json(&fill.to), "rows_per_s": fill.rows_per_s, "waits_for": fill.waits_for })
}

/// In a word: `filling` until all is applied that was in the log when it began, `live`, `paused` or `stopped`.
pub fn state_word(status: &ViewStatus) -> &'static str {
    match status {
        ViewStatus { paused: true, .. } => "paused",
        ViewStatus { error: Some(_), .. } => "stopped",
        ViewStatus { fill_left: Some(_), .. } => "filling",
        _ => "live",
    }
}

/// The view of that name, or the problem that lists those there are.
pub fn find(app: &App, name: &str) -> Answer<ViewInfo> {
    let views = app.engine.views();
    views.iter().find(|info| info.name == name).cloned().ok_or_else(|| {
        let known: Vec<String> = views.iter().map(|info| info.name.clone()).collect();
        Problem::not_found(format!("no view {name}: GET /v1/views lists them")).with("views", known)
    })
}

async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let info = find(&app, &name)?;
    let mut params = Params::of(&uri)?;
    let format = Format::choose(params.take("format")?.as_deref(), &headers)?;
    let limit = params.take_number("limit", 0..=app.http.rows_max as i64)?;
    let at = params.take("at")?.map(|text| at::parse(&text)).transpose()?;
    let request = ReadRequest {
        from: params.take_time("from")?,
        to: params.take_time("to")?,
        order: check_order(&info, params.take("order")?)?,
        // One more than fits tells a cut answer from a whole one.
        limit: Some(limit.map_or(app.http.rows_max + 1, |limit| limit as usize)),
        wait_ms: wait(&app, &mut params)?,
        keys: check_keys(&info, params.take_rest())?,
    };
    let (schema, mut rows, mut after) = match at {
        None => {
            let answer = read_view(&app.engine, &name, request, caller.reader().as_deref()).await?;
            let watermark = answer.event_watermark.map(time_text).into();
            let offsets = offsets_json(&answer.offsets);
            let after = vec![("offsets", offsets), ("event_watermark", watermark), ("stale", answer.stale.into())];
            (answer.schema, answer.rows, after)
        }
        Some(at) => {
            let answer = at::read(&app, &caller, (&info, &request), at).await?;
            let mut after = vec![("offsets", offsets_json(&answer.offsets))];
            after.extend(at::notes(&answer.notes));
            (answer.schema, answer.rows, after)
        }
    };
    if limit.is_none() && cut(&mut rows, app.http.rows_max) {
        after.push(("truncated", true.into()));
    }
    let table = Table { before: vec![("view", json!(name))], schema, rows, after };
    tokio::task::spawn_blocking(move || table.respond(format)).await.map_err(|e| Problem::internal(e.to_string()))?
}

/// `wait=`: milliseconds or a length of time such as `2s`, bounded.
pub fn wait(app: &App, params: &mut Params) -> Answer<u64> {
    let most = app.http.wait_ms_max;
    match params.take_duration("wait")?.map(i64::unsigned_abs) {
        None => Ok(app.http.wait_ms),
        Some(ms) if ms <= most => Ok(ms),
        Some(ms) => Err(Problem::bad_request(format!(
            "wait={ms} ms: at most {most} ms are waited: ask again instead, or raise http.wait_max"
        ))),
    }
}

/// Filters must be on key columns, each at most once.
pub fn check_keys(info: &ViewInfo, keys: Vec<(String, String)>) -> Answer<Vec<(String, String)>> {
    for (i, (name, _)) in keys.iter().enumerate() {
        if !info.keys.contains(name) {
            return Err(Problem::bad_request(format!(
                "unknown parameter {name}: view {} has the keys [{}] and takes from, to, order, limit, wait, at, format",
                info.name,
                info.keys.join(", ")
            )));
        }
        if keys[..i].iter().any(|(other, _)| other == name) {
            return Err(Problem::bad_request(format!(
                "{name} is given twice: ask once for each value, or use POST /v1/sql"
            )));
        }
    }
    Ok(keys)
}

fn check_order(info: &ViewInfo, order: Option<String>) -> Answer<Vec<(String, bool)>> {
    let order = order.as_deref().map_or(Ok(Vec::new()), parse_order)?;
    for (name, _) in &order {
        if info.schema.field_with_name(name).is_err() {
            let known: Vec<&str> = info.schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Problem::bad_request(format!(
                "order: view {} has no column {name}: it has {}",
                info.name,
                known.join(", ")
            )));
        }
    }
    Ok(order)
}

/// Keeps the first `max` rows; true if there were more.
pub fn cut(rows: &mut Vec<arrow::array::RecordBatch>, max: usize) -> bool {
    let mut left = max;
    for i in 0..rows.len() {
        let count = rows[i].num_rows();
        if count > left {
            rows[i] = rows[i].slice(0, left);
            rows.truncate(i + 1);
            return true;
        }
        left -= count;
    }
    false
}
