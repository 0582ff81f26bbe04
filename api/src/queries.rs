//! `/v1/queries`, `/v1/costs`: what SQL read last, and what storing and reading comes to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use lake::{Cost, QueryRecord, Scanned, Stored};
use serde_json::{Value, json};

use crate::access::Need;
use crate::app::App;
use crate::error::Answer;
use crate::metrics::Text;
use crate::output::time_text;
use crate::params::Params;
use crate::routes::{Doc, Routes};

/// Queries of an answer that does not say how many.
const QUERIES: i64 = 100;
const QUERY: &[(&str, &str)] = &[("limit", "most queries, up to 1000; default 100")];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let queries = Doc::new("The queries of SQL that ended last, with what each read, and the sums since the start");
    let costs = Doc::new("Bytes stored per zone and table, bytes read per kind of query, and what they come to");
    routes.get("/v1/queries", queries.query(QUERY).need(Need::ReadAll), list).get(
        "/v1/costs",
        costs.need(Need::ReadAll),
        self::costs,
    )
}

/// What a query read, as answers carry it.
pub fn scanned_json(scanned: Scanned) -> Value {
    json!({"bytes": scanned.bytes(), "parquet_bytes": scanned.parquet_bytes, "log_bytes": scanned.log_bytes})
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    let mut params = Params::of(&uri)?;
    let limit = params.take_number("limit", 1..=1_000)?.unwrap_or(QUERIES);
    params.finish()?;
    let log = app.lake.query_log();
    let recent = log.recent();
    let queries = recent.iter().take(usize::try_from(limit).unwrap_or(usize::MAX));
    let totals: Vec<Value> = log
        .totals()
        .iter()
        .map(|(kind, total)| {
            json!({"kind": kind.word(), "queries": total.queries, "scanned": scanned_json(total.scanned)})
        })
        .collect();
    Ok(Json(json!({"queries": queries.map(|query| query_json(query)).collect::<Vec<_>>(), "totals": totals})))
}

fn query_json(query: &QueryRecord) -> Value {
    json!({
        "at": time_text(query.at_ms),
        "kind": query.kind.word(),
        "token": query.reader,
        "ms": query.took_ms,
        "rows": query.rows,
        "scanned": scanned_json(query.scanned),
        "error": query.error,
        "sql": query.sql,
    })
}

async fn costs(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let lines = app.lake.costs();
    let sum = |item: &str| lines.iter().filter(|line| line.item == item).map(|line| line.cost).sum::<f64>();
    Ok(Json(json!({
        "currency": app.lake.prices().currency,
        "stored_per_month": sum("stored"),
        "scanned_since_start": sum("scanned"),
        "stored": app.lake.stored().iter().map(stored_json).collect::<Vec<_>>(),
        "lines": lines.iter().map(cost_json).collect::<Vec<_>>(),
    })))
}

fn stored_json(stored: &Stored) -> Value {
    json!({
        "kind": stored.kind,
        "zone": stored.zone,
        "name": stored.name,
        "files": stored.files,
        "rows": stored.rows,
        "bytes": stored.bytes,
    })
}

fn cost_json(cost: &Cost) -> Value {
    json!({
        "item": cost.item,
        "kind": cost.kind,
        "name": cost.name,
        "bytes": cost.bytes,
        "price_per_gib": cost.price,
        "cost": cost.cost,
        "per": cost.per,
    })
}

/// Figures for `/metrics`.
pub fn figures(app: &App, text: &mut Text) {
    let totals = app.lake.query_log().totals();
    text.family("millpond_sql_queries_total", "counter", "Queries of SQL that ended, by who asked.");
    for (kind, total) in &totals {
        text.value("millpond_sql_queries_total", &[("kind", kind.word())], total.queries as f64);
    }
    text.family("millpond_sql_scanned_bytes_total", "counter", "Bytes that queries of SQL read, by who asked.");
    for (kind, total) in &totals {
        for (source, bytes) in [("parquet", total.scanned.parquet_bytes), ("log", total.scanned.log_bytes)] {
            let labels = [("kind", kind.word()), ("source", source)];
            text.value("millpond_sql_scanned_bytes_total", &labels, bytes as f64);
        }
    }
    text.family("millpond_stored_bytes", "gauge", "Bytes that are stored, by zone and table.");
    for stored in app.lake.stored().iter().filter(|stored| stored.kind == "parquet") {
        text.value("millpond_stored_bytes", &[("zone", &stored.zone), ("table", &stored.name)], stored.bytes as f64);
    }
}
