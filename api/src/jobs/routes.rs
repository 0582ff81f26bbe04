//! `/v1/jobs`: what runs when, what ran, and a run on demand.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use chrono::NaiveDate;
use serde_json::{Value, json};

use crate::access::Need;
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::params::Params;
use crate::routes::{Doc, Routes};

const RUNS: &[(&str, &str)] =
    &[("day", "only runs for this day, as in 2026-11-19"), ("limit", "most runs, 50 without it")];
const RUN: &[(&str, &str)] =
    &[("day", "the day to run for, as in 2026-11-19; without it, yesterday in the job's zone")];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .get("/v1/jobs", Doc::new("Jobs: when they run next, and how the last runs went").need(Need::ReadAll), list)
        .get(
            "/v1/jobs/{job}/runs",
            Doc::new("The runs of a job with their steps, newest first").query(RUNS).need(Need::ReadAll),
            runs,
        )
        .post("/v1/jobs/{job}/run", Doc::new("Runs a job now, for yesterday or any past day").query(RUN), run)
        .post("/v1/jobs/{job}/cancel", Doc::new("Calls off the runs of a job that wait or are at work"), cancel)
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    Ok(Json(json!({"jobs": app.work.jobs().list().await})))
}

fn unknown(job: &str) -> Problem {
    Problem::not_found(format!("no job {job}: GET /v1/jobs lists them"))
}

fn day(params: &mut Params) -> Answer<Option<NaiveDate>> {
    let Some(text) = params.take("day")? else { return Ok(None) };
    let day = NaiveDate::parse_from_str(&text, "%Y-%m-%d");
    day.map(Some).map_err(|_| Problem::bad_request(format!("day={text}: write a day as in 2026-11-19")))
}

async fn runs(State(app): State<Arc<App>>, Path(job): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    let mut params = Params::of(&uri)?;
    let day = day(&mut params)?;
    let limit = params.take_number("limit", 1..=1_000)?.unwrap_or(50);
    params.finish()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let runs = app.work.jobs().runs(&job, day, limit).await.ok_or_else(|| unknown(&job))?;
    Ok(Json(json!({"job": job, "runs": runs})))
}

async fn run(State(app): State<Arc<App>>, Path(job): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    let mut params = Params::of(&uri)?;
    let day = day(&mut params)?;
    params.finish()?;
    let requested = app.work.jobs().request(&job, day).await.ok_or_else(|| unknown(&job))?;
    let (run, day) = requested.map_err(|detail| {
        Problem::new(StatusCode::CONFLICT, "too-many-runs", "the job has too many runs waiting", detail)
    })?;
    Ok(Json(json!({"job": job, "run": run, "day": day.to_string()})))
}

async fn cancel(State(app): State<Arc<App>>, Path(job): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let cancelled = app.work.jobs().cancel(&job).await.ok_or_else(|| unknown(&job))??;
    Ok(Json(json!({"job": job, "cancelled": cancelled})))
}
