//! `/v1/transforms`: the tables of the lake that SQL writes, and the order to run one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use lake::TransformInfo;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::Caller;
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::output::{columns, offsets_json, time_text};
use crate::params::Params;
use crate::routes::{self, Doc, Routes};

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let run = Doc::new("Runs a transform: its result takes its place in the table, in one commit")
        .body(r#"{"parameters": {"day": "2026-11-20"}}"#);
    routes.get("/v1/transforms", Doc::new("Tables of the lake that SQL writes, with what they read"), list).post(
        "/v1/transforms/{name}/run",
        run,
        run_one,
    )
}

async fn list(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let transforms = app.lake.transforms();
    let seen = transforms.iter().filter(|info| caller.sees(&info.config.name));
    Ok(Json(json!({"transforms": seen.map(transform_json).collect::<Vec<_>>()})))
}

fn transform_json(info: &TransformInfo) -> Value {
    let config = &info.config;
    json!({
        "name": config.name,
        "zone": config.zone,
        "mode": config.mode.word(),
        "slice": config.slice.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "sort": config.sort,
        "key": config.key,
        "sql": config.sql,
        "parameters": info.parameters,
        "sources": info.sources,
        "columns": info.columns.as_ref().map(|schema| columns(schema)),
        "files": info.files,
        "rows": info.rows,
        "bytes": info.bytes,
        "published": info.published_ms.map(time_text),
        "error": info.error,
    })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunBody {
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

async fn run_one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let body = routes::body(body, &app)?;
    let body = if body.is_empty() || &body[..] == b"null" { b"{}".as_slice().into() } else { body };
    let body: RunBody = serde_json::from_slice(&body).map_err(|e| {
        Problem::bad_request(format!(
            "the body is not as it should be: {e}: send {{\"parameters\": {{\"day\": \"2026-11-20\"}}}}"
        ))
    })?;
    let report = app.lake.transform(&name, &body.parameters).await?;
    Ok(Json(json!({
        "transform": name,
        "rows": report.rows,
        "files": report.files,
        "bytes": report.bytes,
        "slices": report.slices,
        "milliseconds": report.milliseconds,
        "offsets": offsets_json(&report.offsets),
    })))
}
