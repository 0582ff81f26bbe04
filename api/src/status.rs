//! `/v1/status`, `/v1/streams`, `/v1/lake`: the state of the whole, and the orders to flush a topic and to merge its files now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use engine::DerivedStatus;
use lake::{AsideRanges, IcebergStatus, MergeReport, PutAside, TableStatus};
use serde_json::{Map, Value, json};

use crate::access::Caller;
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::output::{columns, offsets_json, time_text};
use crate::params::Params;
use crate::process;
use crate::routes::{Doc, Routes};

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .get(
            "/v1/status",
            Doc::new("The server: version, figures of the process, rates of the last fifteen minutes"),
            status,
        )
        .get("/v1/streams", Doc::new("Declared streams with their columns"), streams)
        .get("/v1/lake", Doc::new("What lies in Parquet, per topic"), lake)
        .post("/v1/lake/{topic}/flush", Doc::new("Writes what a topic has to Parquet now"), flush)
        .post("/v1/lake/{topic}/merge", Doc::new("Makes one file of the small files of each slice now"), merge)
}

async fn status(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    Ok(Json(status_json(&app)))
}

/// The state of the server, for this route and the page.
pub fn status_json(app: &App) -> Value {
    let now = app.clock().now_ms();
    let total = app.rates.total();
    let usage = process::usage();
    let samples = app.rates.samples();
    let history =
        |pick: fn(&crate::rates::Sample) -> f64| -> Vec<f64> { samples.iter().map(|s| pick(s).round()).collect() };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cluster_id": app.broker.cluster_id(),
        "now": time_text(now),
        "started": time_text(app.started_ms),
        "uptime_s": (now - app.started_ms) / 1000,
        "availability": app.uptime.to_json(now),
        "durability": format!("{:?}", app.broker.config().durability).to_lowercase(),
        "replication": {
            "brokers": 1,
            "clamped": app.broker.config().clamp_replication,
            "asked": app.copies_asked,
        },
        "data_dir": app.broker.config().data_dir.display().to_string(),
        "dashboards": app.dashboards.keys().collect::<Vec<_>>(),
        "process": {
            "resident_bytes": usage.resident_bytes,
            "cpu_seconds": usage.cpu_seconds,
            "open_files": usage.open_files,
        },
        "disk": app.broker.disk_space().map(|(bytes, free)| json!({"bytes": bytes, "free_bytes": free})),
        "rates": {
            "records_in_per_s": total.records_per_s,
            "bytes_in_per_s": total.bytes_per_s,
            "history": {
                "every_s": 5,
                "until": samples.last().map(|s| time_text(s.at)),
                "records_in": history(|s| s.records_in),
                "bytes_in": history(|s| s.bytes_in),
                "bytes_out": history(|s| s.bytes_out),
            },
        },
        "counters": app.broker.counters().read().into_iter().map(|(name, n)| (name.to_owned(), json!(n))).collect::<Map<_, _>>(),
        "http": {
            "requests_free": app.requests.available_permits(),
            "streams_free": app.streams.available_permits(),
            "spread": app.spread.load(Ordering::Relaxed),
        },
    })
}

async fn streams(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let statuses = app.engine.stream_status();
    let streams: Vec<Value> = app
        .engine
        .streams()
        .iter()
        .filter(|stream| caller.sees(stream.name()))
        .map(|stream| {
            let status = statuses.iter().find(|status| status.stream == stream.name());
            json!({
                "name": stream.name(),
                "topic": stream.topic().to_string(),
                "event_time": stream.event_time(),
                "columns": columns(&stream.schema()),
                "event_watermark": status.and_then(|status| status.event_watermark).map(time_text),
                "rejected": status.map(|status| status.rejected),
                "rejected_by_rule": status.map(|status| &status.rejected_by_rule),
                "lost": status.map(|status| status.lost),
                "derived": status.and_then(|status| status.derived.as_ref()).map(derived_json),
            })
        })
        .collect();
    Ok(Json(json!({"streams": streams})))
}

/// How a derived stream is computed and how far it is.
fn derived_json(derived: &DerivedStatus) -> Value {
    json!({
        "sql": derived.sql,
        "sources": derived.sources,
        "tables": derived.tables,
        "offsets": offsets_json(&derived.positions),
        "lag_records": derived.lag_records,
        "lag_ms": derived.lag_ms,
        "written": derived.written,
        "filtered": derived.filtered,
        "late": derived.late,
        "state": derived_word(derived),
        "fill_left": derived.fill_left,
        "fill": derived.fill.as_ref().map(crate::views::fill_json),
        "error": derived.error,
    })
}

/// In a word: `filling` until all is applied that its sources had when it began, `live` or `stopped`.
pub fn derived_word(derived: &DerivedStatus) -> &'static str {
    match derived {
        DerivedStatus { error: Some(_), .. } => "stopped",
        DerivedStatus { fill_left: Some(_), .. } => "filling",
        _ => "live",
    }
}

async fn lake(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let status = app.lake.status();
    let tables = status.tables.iter().filter(|table| caller.sees(&table.table));
    let mut answer = json!({"url": status.url, "tables": tables.map(table_json).collect::<Vec<_>>()});
    if let Some(iceberg) = app.lake.iceberg() {
        let tables = iceberg.status().into_iter().filter(|table| caller.check_whole(&table.table).is_ok());
        answer["iceberg"] = tables.map(iceberg_json).collect();
    }
    Ok(Json(answer))
}

fn iceberg_json(table: IcebergStatus) -> Value {
    json!({
        "table": table.table,
        "metadata_location": table.metadata_location,
        "snapshot_id": table.snapshot_id,
        "snapshot_at": table.snapshot_ms.map(time_text),
        "snapshots": table.snapshots,
        "error": table.error,
    })
}

fn table_json(table: &TableStatus) -> Value {
    json!({
        "topic": table.topic.to_string(),
        "table": table.table,
        "files": table.files,
        "rows": table.rows,
        "bytes": table.bytes,
        "marks": by_partition(&table.marks),
        "high_watermarks": by_partition(&table.high_watermarks),
        "lag_records": table.lag_records,
        "lag_ms": table.lag_ms,
        "last_flush": table.last_flush_ms.map(time_text),
        "error": table.error,
        "small_files": table.small_files,
        "merged": merged_json(&table.merged),
        "merge_error": table.merge_error,
        "put_aside": table.put_aside.iter().map(put_aside_json).collect::<Vec<_>>(),
    })
}

fn put_aside_json(aside: &PutAside) -> Value {
    let of = |has: &AsideRanges| json!({"log_end": has.log_end, "ranges": has.ranges, "beyond_log": has.beyond_log(), "unread": has.unread});
    let partitions = aside.partitions.iter().map(|(partition, ranges)| (partition.to_string(), of(ranges)));
    json!({
        "dir": aside.dir,
        "at": time_text(aside.at_ms),
        "files": aside.files,
        "partitions": partitions.collect::<Map<_, _>>(),
        "told": aside.told(),
    })
}

fn merged_json(report: &MergeReport) -> Value {
    json!({"merges": report.merges, "files": report.files, "rows": report.rows, "bytes": report.bytes})
}

fn by_partition(offsets: &BTreeMap<i32, i64>) -> Map<String, Value> {
    offsets.iter().map(|(partition, offset)| (partition.to_string(), json!(offset))).collect()
}

async fn flush(State(app): State<Arc<App>>, Path(topic): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    settles(&app, &topic)?;
    let report = app.lake.flush(&topic).await?;
    Ok(Json(json!({
        "topic": topic,
        "files": report.files,
        "rows": report.rows,
        "bytes": report.bytes,
        "marks": by_partition(&report.marks),
    })))
}

async fn merge(State(app): State<Arc<App>>, Path(topic): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    settles(&app, &topic)?;
    let report = app.lake.merge(&topic).await?;
    let mut answer = merged_json(&report);
    answer["topic"] = topic.into();
    Ok(Json(answer))
}

/// The problem with a topic that does not settle.
pub fn settles(app: &App, topic: &str) -> Answer<()> {
    crate::topics::find(app, topic)?;
    if app.lake.status().tables.iter().any(|table| *table.topic == *topic) {
        return Ok(());
    }
    let detail = format!(
        "topic {topic} does not settle in the lake: add [[lake.tables]] with topic = \"{topic}\" to the configuration"
    );
    Err(Problem::not_found(detail))
}
