//! `/metrics` as Prometheus text, and the health of the process.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use lake::MergeReport;
use serde_json::{Value, json};

use crate::access::Need;
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::groups::Lag;
use crate::params::Params;
use crate::process;
use crate::queries;
use crate::routes::{Doc, Routes};

/// How long a write may take for the server to count as ready.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .get("/metrics", Doc::new("Figures as Prometheus text").answers(&["text/plain"]).need(Need::ReadAll), metrics)
        .get("/health/live", Doc::new("200 while the process answers").need(Need::Nothing), live)
        .get("/health/ready", Doc::new("200 when reads and writes are served").need(Need::Nothing), ready)
}

async fn live(uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    Ok(Json(json!({"status": "live"})))
}

async fn ready(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let not_ready = |detail: &str| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "the server cannot serve now", detail).retry_after(1)
    };
    if *app.stopping.borrow() {
        return Err(not_ready("the server is stopping: use another one, or start it again"));
    }
    if app.broker.writes_wait() {
        return Err(not_ready("the disk is full and writes wait: make room on it; what is stored can be read"));
    }
    // A commit of nothing goes through the lane: it fails once the store is poisoned, and waits as all do while the disk is full.
    let commit = app.broker.lane().commit(Vec::new(), broker::Ack::Written);
    match tokio::time::timeout(COMMIT_WAIT_MAX, commit).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            return Err(not_ready(&format!(
                "the store takes no writes: {error}: see the log, then start the server again"
            )));
        }
        Err(_) => {
            return Err(not_ready("a write waits for seconds: see the log, and whether the disk is full or busy"));
        }
    }
    Ok(Json(json!({"status": "ready"})))
}

async fn metrics(State(app): State<Arc<App>>, uri: Uri) -> Answer<Response> {
    Params::of(&uri)?.finish()?;
    let mut text = Text::default();
    process_figures(&app, &mut text);
    topic_figures(&app, &mut text);
    kafka_ui_figures(&app, &mut text);
    view_figures(&app, &mut text);
    stream_figures(&app, &mut text);
    source_figures(&app, &mut text)?;
    lake_figures(&app, &mut text);
    queries::figures(&app, &mut text);
    group_figures(&app, &mut text).await?;
    app.work.figures(&mut text).await;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0).into_response())
}

/// Prometheus text being written.
#[derive(Default)]
pub struct Text(String);

impl Text {
    /// Begins a metric.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.value(name, &[], value);
    }

    /// One value of it.
    pub fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a String takes every character");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn process_figures(app: &App, text: &mut Text) {
    let usage = process::usage();
    text.one("process_resident_memory_bytes", "gauge", "Resident memory.", usage.resident_bytes as f64);
    text.one("process_cpu_seconds_total", "counter", "User and system processor time.", usage.cpu_seconds);
    text.one("process_open_fds", "gauge", "Open file descriptors.", usage.open_files as f64);
    text.one("process_start_time_seconds", "gauge", "When the server became ready.", app.started_ms as f64 / 1000.0);
    let share = app.uptime.share(app.clock().now_ms());
    text.one("millpond_uptime_ratio", "gauge", "Share of the last thirty days in which the server was there.", share);
    if let Some((all, free)) = app.broker.disk_space() {
        text.one("millpond_disk_bytes", "gauge", "Size of the disk that holds the data.", all as f64);
        text.one("millpond_disk_free_bytes", "gauge", "What is left on the disk that holds the data.", free as f64);
    }
    let store = app.broker.store();
    let help = "Damaged files that keep parts of the store from being merged.";
    text.one("millpond_store_damaged_files", "gauge", help, store.damaged_files() as f64);
    let help = "Most runs of a part of the store that is not merged. At 400 it takes in no more.";
    text.one("millpond_store_unmerged_runs", "gauge", help, store.unmerged_runs() as f64);
    for (name, value) in app.broker.counters().read() {
        let gauge = name.ends_with("_open");
        let name = if gauge { format!("millpond_broker_{name}") } else { format!("millpond_broker_{name}_total") };
        text.one(&name, if gauge { "gauge" } else { "counter" }, "See broker/src/counters.rs.", value as f64);
    }
}

fn topic_figures(app: &App, text: &mut Text) {
    let topics = app.broker.catalog().topics();
    text.family("millpond_log_end_offset", "gauge", "End of what is durable and visible.");
    for topic in &topics {
        for p in topic.partitions().iter() {
            let labels = [("topic", &**topic.name()), ("partition", &p.index().to_string())];
            text.value("millpond_log_end_offset", &labels, p.high_watermark() as f64);
        }
    }
    text.family("millpond_log_start_offset", "gauge", "First offset that can be read.");
    for topic in &topics {
        for p in topic.partitions().iter() {
            let labels = [("topic", &**topic.name()), ("partition", &p.index().to_string())];
            text.value("millpond_log_start_offset", &labels, p.log_start() as f64);
        }
    }
    text.family("millpond_topic_bytes", "gauge", "Bytes of batches that can be read.");
    for topic in &topics {
        let bytes: u64 = topic.partitions().iter().map(|p| p.size_bytes()).sum();
        text.value("millpond_topic_bytes", &[("topic", &**topic.name())], bytes as f64);
    }
}

/// What consumer groups have not read yet.
async fn group_figures(app: &App, text: &mut Text) -> Answer<()> {
    let mut groups = Vec::new();
    for overview in app.broker.groups().list() {
        groups.push((overview.id.to_string(), Lag::of(app, &overview.id).await?));
    }
    text.family("millpond_group_lag_records", "gauge", "Records that the consumer group has not read.");
    for (group, lag) in &groups {
        for partition in &lag.partitions {
            let (topic, index) = (partition["topic"].as_str().unwrap_or_default(), partition["partition"].to_string());
            let labels = [("group", group.as_str()), ("topic", topic), ("partition", index.as_str())];
            text.value("millpond_group_lag_records", &labels, partition["lag"].as_f64().unwrap_or(0.0));
        }
    }
    text.family(
        "millpond_group_lag_seconds",
        "gauge",
        "Age of the oldest record that the consumer group has not read.",
    );
    for (group, lag) in &groups {
        text.value("millpond_group_lag_seconds", &[("group", group)], lag.age_ms as f64 / 1000.0);
    }
    Ok(())
}

/// The names that kafka-ui reads when a cluster's metrics are of type PROMETHEUS.
fn kafka_ui_figures(app: &App, text: &mut Text) {
    let name = "kafka_server_BrokerTopicMetrics_FifteenMinuteRate";
    text.family(name, "gauge", "Bytes per second, mean of fifteen minutes.");
    text.value(name, &[("name", "BytesInPerSec")], app.rates.total().bytes_per_s_15m);
    text.value(name, &[("name", "BytesOutPerSec")], app.rates.bytes_out_15m());
    for topic in app.broker.catalog().topics() {
        let rate = app.rates.topic(topic.name()).bytes_per_s_15m;
        text.value(name, &[("name", "BytesInPerSec"), ("topic", &**topic.name())], rate);
    }
}

fn view_figures(app: &App, text: &mut Text) {
    let views = app.engine.status();
    text.family("millpond_view_lag_records", "gauge", "Durable records that the view has not applied.");
    views.iter().for_each(|v| text.value("millpond_view_lag_records", &[("view", &v.view)], v.lag_records as f64));
    text.family("millpond_view_lag_seconds", "gauge", "Age of the oldest record that the view has not applied.");
    views.iter().for_each(|v| text.value("millpond_view_lag_seconds", &[("view", &v.view)], v.lag_ms as f64 / 1000.0));
    text.family("millpond_view_rows_applied_total", "counter", "Rows that went into the view.");
    views
        .iter()
        .for_each(|v| text.value("millpond_view_rows_applied_total", &[("view", &v.view)], v.rows_applied as f64));
    text.family("millpond_view_late_total", "counter", "Rows that came after their window closed.");
    views.iter().for_each(|v| text.value("millpond_view_late_total", &[("view", &v.view)], v.late as f64));
    text.family("millpond_view_failed_total", "counter", "Rows that the view's expressions could not evaluate.");
    views.iter().for_each(|v| text.value("millpond_view_failed_total", &[("view", &v.view)], v.failed as f64));
    text.family("millpond_view_lost_total", "counter", "Offsets that were deleted before the view read them.");
    views.iter().for_each(|v| text.value("millpond_view_lost_total", &[("view", &v.view)], v.lost as f64));
    text.family("millpond_view_stopped", "gauge", "1 while the view does not advance because of an error.");
    for view in &views {
        text.value("millpond_view_stopped", &[("view", &view.view)], if view.error.is_some() { 1.0 } else { 0.0 });
    }
    text.family("millpond_view_event_watermark_seconds", "gauge", "Event watermark of the view.");
    for view in &views {
        if let Some(ms) = view.event_watermark {
            text.value("millpond_view_event_watermark_seconds", &[("view", &view.view)], ms as f64 / 1000.0);
        }
    }
}

fn stream_figures(app: &App, text: &mut Text) {
    text.family(
        "millpond_stream_rejected_total",
        "counter",
        "Records that are no row of the stream, by the rule they broke.",
    );
    for stream in app.engine.stream_status() {
        for (rule, count) in &stream.rejected_by_rule {
            text.value("millpond_stream_rejected_total", &[("stream", &stream.stream), ("rule", rule)], *count as f64);
        }
    }
    let seconds = app.engine.busy_time().as_secs_f64();
    text.one("millpond_engine_cpu_seconds_total", "counter", "Processor time of all pipelines.", seconds);
    text.one(
        "millpond_engine_records_read_total",
        "counter",
        "Records that the pipelines have read.",
        app.engine.records_read() as f64,
    );
}

fn source_figures(app: &App, text: &mut Text) -> Answer<()> {
    let sources = app.sources.status()?;
    text.family("millpond_source_rows_total", "counter", "Rows of files, by what became of them.");
    for source in &sources {
        for (outcome, count) in [("published", source.published), ("skipped", source.skipped)] {
            let labels = [("source", source.name.as_str()), ("outcome", outcome)];
            text.value("millpond_source_rows_total", &labels, count as f64);
        }
        for (rule, count) in &source.rejected_by_rule {
            let labels = [("source", source.name.as_str()), ("outcome", "rejected"), ("rule", rule.as_str())];
            text.value("millpond_source_rows_total", &labels, *count as f64);
        }
    }
    text.family("millpond_source_failed", "gauge", "1 when the last run of the source failed.");
    for source in &sources {
        let failed = if source.error.is_some() { 1.0 } else { 0.0 };
        text.value("millpond_source_failed", &[("source", source.name.as_str())], failed);
    }
    Ok(())
}

/// A counter: its name, what it says, and where it is read.
type Counter<T> = (&'static str, &'static str, fn(&T) -> u64);

/// What merging did in the lake.
const MERGED: [Counter<MergeReport>; 3] = [
    ("millpond_lake_merges_total", "Parquet files made of smaller ones.", |merged| merged.merges),
    ("millpond_lake_merged_files_total", "Small Parquet files that were merged.", |merged| merged.files),
    ("millpond_lake_merged_bytes_total", "Bytes of Parquet files made of smaller ones.", |merged| merged.bytes),
];

fn lake_figures(app: &App, text: &mut Text) {
    let lake = app.lake.status();
    text.family("millpond_lake_files", "gauge", "Parquet files published.");
    lake.tables.iter().for_each(|t| text.value("millpond_lake_files", &[("topic", &*t.topic)], t.files as f64));
    text.family("millpond_lake_rows", "gauge", "Rows in Parquet.");
    lake.tables.iter().for_each(|t| text.value("millpond_lake_rows", &[("topic", &*t.topic)], t.rows as f64));
    text.family("millpond_lake_bytes", "gauge", "Bytes of Parquet.");
    lake.tables.iter().for_each(|t| text.value("millpond_lake_bytes", &[("topic", &*t.topic)], t.bytes as f64));
    text.family("millpond_lake_small_files", "gauge", "Parquet files below merge_below of their tables.");
    lake.tables
        .iter()
        .for_each(|t| text.value("millpond_lake_small_files", &[("topic", &*t.topic)], t.small_files as f64));
    for (name, help, pick) in MERGED {
        text.family(name, "counter", help);
        lake.tables.iter().for_each(|t| text.value(name, &[("topic", &*t.topic)], pick(&t.merged) as f64));
    }
    text.family("millpond_lake_failing", "gauge", "1 while the last attempt to write failed.");
    for table in &lake.tables {
        let failing = if table.error.is_some() { 1.0 } else { 0.0 };
        text.value("millpond_lake_failing", &[("topic", &*table.topic)], failing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_prometheus_reads() {
        let mut text = Text::default();
        text.one("a_total", "counter", "Help.", 3.0);
        text.value("b", &[("topic", "we\"ird\\n")], 0.5);
        assert_eq!(
            text.0,
            "# HELP a_total Help.\n# TYPE a_total counter\na_total 3\nb{topic=\"we\\\"ird\\\\n\"} 0.5\n"
        );
    }
}
