//! `/v1/sinks`: how sinks stand, and a file on demand.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};

use crate::access::Need;
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::params::Params;
use crate::routes::{Doc, Routes};

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .get("/v1/sinks", Doc::new("Sinks: where rows go, how far each is, what it refused").need(Need::ReadAll), list)
        .post("/v1/sinks/{sink}/export", Doc::new("Lets a sink of kind file write its file now"), export)
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    Ok(Json(json!({"sinks": app.work.sinks().list()})))
}

async fn export(State(app): State<Arc<App>>, Path(sink): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    if !app.work.sinks().has_file(&sink) {
        return Err(Problem::not_found(format!("no sink {sink} of kind file: GET /v1/sinks lists them")));
    }
    let done = app.work.sinks().export(&sink).await.map_err(|detail| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "export-failed", "the file could not be written", detail)
    })?;
    Ok(Json(json!({"sink": sink, "done": done})))
}
