//! `/v1/sources`: files that are read into topics: how each stands, its runs, and the orders to start, pause and resume.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use engine::sources::{Progress, RunReport, SourceStatus};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Answer;
use crate::output::time_text;
use crate::params::Params;
use crate::routes::{Doc, Routes};

/// Runs that are listed where all sources are.
const RUNS_LISTED: usize = 10;

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .get("/v1/sources", Doc::new("Sources: state, counts, progress, and the last ten runs of each"), list)
        .get("/v1/sources/{source}", Doc::new("One source and its last hundred runs"), one)
        .post("/v1/sources/{source}/run", Doc::new("Starts a source now; 409 when it runs already or is paused"), run)
        .post("/v1/sources/{source}/pause", Doc::new("Stops a source at its next batch, until it is resumed"), pause)
        .post("/v1/sources/{source}/resume", Doc::new("Lets a paused source go on"), resume)
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    Ok(Json(sources_json(&app)?))
}

/// How every source stands, for this route and the page.
pub fn sources_json(app: &App) -> Answer<Value> {
    let sources = app.sources.status()?;
    Ok(json!({"sources": sources.iter().map(|source| source_json(source, RUNS_LISTED)).collect::<Vec<_>>()}))
}

async fn one(State(app): State<Arc<App>>, Path(name): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    Ok(Json(source_json(&app.sources.status_of(&name)?, usize::MAX)))
}

async fn run(State(app): State<Arc<App>>, Path(name): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let started = app.sources.begin(&name).await?;
    Ok(Json(json!({"source": name, "run": started.run})))
}

async fn pause(State(app): State<Arc<App>>, Path(name): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    app.sources.pause(&name, true).await?;
    Ok(Json(source_json(&app.sources.status_of(&name)?, RUNS_LISTED)))
}

async fn resume(State(app): State<Arc<App>>, Path(name): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    app.sources.pause(&name, false).await?;
    Ok(Json(source_json(&app.sources.status_of(&name)?, RUNS_LISTED)))
}

fn source_json(source: &SourceStatus, runs: usize) -> Value {
    json!({
        "name": source.name,
        "topic": source.topic,
        "rejected_topic": format!("{}.rejected", source.name),
        "path": source.path,
        "format": source.format,
        "when": source.when,
        "state": source.state,
        "error": source.error,
        "next": source.next_ms.map(time_text),
        "rows": source.rows,
        "published": source.published,
        "skipped": source.skipped,
        "rejected": source.rejected,
        "rejected_by_rule": source.rejected_by_rule,
        "progress": source.progress.as_ref().map(progress_json),
        "runs": source.runs.iter().take(runs).map(run_json).collect::<Vec<_>>(),
    })
}

fn progress_json(progress: &Progress) -> Value {
    json!({
        "file": progress.file,
        "files": progress.files,
        "bytes": progress.bytes,
        "bytes_done": progress.bytes_done,
        "rows_per_s": progress.rows_per_s,
        "remaining_s": progress.remaining_s,
    })
}

fn run_json(run: &RunReport) -> Value {
    let seconds = (run.ended_ms - run.started_ms).max(0) as f64 / 1_000.0;
    json!({
        "run": run.run,
        "trigger": run.trigger,
        "state": run.state,
        "started": time_text(run.started_ms),
        "ended": (run.ended_ms > 0).then(|| time_text(run.ended_ms)),
        "seconds": seconds,
        "files": run.files,
        "files_known": run.files_known,
        "rows": run.rows,
        "published": run.published,
        "skipped": run.skipped,
        "rejected": run.rejected,
        "rejected_by_rule": run.rejected_by_rule,
        "retries": run.retries,
        "error": run.error,
    })
}
