//! `/v1/tables`, `/v1/quality`: the tables that streams are joined to, and how many records each rule let through, refused
//! or warned about per day.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use engine::TableStatus;
use serde_json::{Value, json};

use crate::access::Caller;
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::output::{columns, offsets_json};
use crate::params::Params;
use crate::routes::{Doc, Routes};

const QUALITY_QUERY: &[(&str, &str)] = &[
    ("stream", "only this stream or table"),
    ("rule", "only this rule: accepted, a built-in one, or a check"),
    ("from", "first day: RFC 3339, a date or epoch milliseconds"),
    ("to", "end: days before it"),
    (
        "wait",
        "how long to wait until all that was appended before the request is counted: milliseconds or 2s; default 0",
    ),
];
const DAY_MS: i64 = 86_400_000;

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .get("/v1/tables", Doc::new("Tables that streams are joined to, with their columns and how far they are"), list)
        .get(
            "/v1/quality",
            Doc::new("Data quality: records per stream, rule and day (UTC, of the records' timestamps)")
                .query(QUALITY_QUERY),
            quality,
        )
}

async fn list(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let tables = app.engine.tables();
    let seen = tables.iter().filter(|table| caller.sees(&table.table));
    Ok(Json(json!({"tables": seen.map(describe).collect::<Vec<_>>()})))
}

fn describe(table: &TableStatus) -> Value {
    json!({
        "name": table.table,
        "topic": table.topic,
        "key": table.key,
        "columns": columns(&table.schema),
        "rows": table.rows,
        "rejected_by_rule": table.rejected_by_rule,
        "offsets": offsets_json(&table.positions),
        "lag_records": table.lag_records,
        "lag_ms": table.lag_ms,
        "error": table.error,
    })
}

async fn quality(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    caller.check_whole("data_quality")?;
    let mut params = Params::of(&uri)?;
    let (stream, rule) = (params.take("stream")?, params.take("rule")?);
    let (from, to) = (params.take_time("from")?, params.take_time("to")?);
    let wait_ms = params.take_duration("wait")?.unwrap_or(0).unsigned_abs();
    params.finish()?;
    if wait_ms > app.http.wait_ms_max {
        let detail = format!("wait={wait_ms}ms is longer than http.wait_max ({} ms): send less", app.http.wait_ms_max);
        return Err(Problem::bad_request(detail));
    }
    if wait_ms > 0 {
        app.engine.wait_fresh("data_quality", wait_ms).await?;
    }
    let mut counts = app.engine.quality().await?;
    counts.retain(|count| {
        let begins = i64::from(count.day) * DAY_MS;
        stream.as_ref().is_none_or(|stream| *stream == count.stream)
            && rule.as_ref().is_none_or(|rule| *rule == count.rule)
            && from.is_none_or(|from| begins + DAY_MS > from)
            && to.is_none_or(|to| begins < to)
    });
    if counts.len() > app.http.rows_max {
        let detail = format!("{} counters, more than http.rows_max: narrow stream, rule, from or to", counts.len());
        return Err(Problem::bad_request(detail));
    }
    let day = |day: i32| {
        chrono::DateTime::from_timestamp_millis(i64::from(day) * DAY_MS).map(|at| at.date_naive().to_string())
    };
    let rows: Vec<Value> = counts
        .iter()
        .map(|count| {
            json!({
                "stream": count.stream,
                "rule": count.rule,
                "day": day(count.day),
                "records": count.records,
                "action": count.action.word(),
            })
        })
        .collect();
    Ok(Json(json!({"quality": rows})))
}
