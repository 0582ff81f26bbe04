//! `/v1/fork`: another data directory of this moment, for a second server.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{Answer, Problem};
use crate::output::time_text;
use crate::params::Params;
use crate::routes::{self, Doc, Routes};

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let fork =
        Doc::new("Makes another data directory of this moment, in which the same files lie, for a second server")
            .body(r#"{"data_dir": "/srv/millpond-fork"}"#);
    routes.post("/v1/fork", fork, self::fork)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkBody {
    data_dir: PathBuf,
}

async fn fork(State(app): State<Arc<App>>, uri: Uri, body: Result<Bytes, BytesRejection>) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let body = routes::body(body, &app)?;
    let ForkBody { data_dir } = serde_json::from_slice(&body).map_err(|e| {
        Problem::bad_request(format!(
            "the body is not as it should be: {e}: send {{\"data_dir\": \"/srv/millpond-fork\"}}"
        ))
    })?;
    // who asked may go away: it is ended all the same
    let forking = data_dir.clone();
    let report = tokio::spawn(async move {
        let forked = app.lake.fork(&forking).await;
        forked.inspect_err(|error| tracing::warn!(data_dir = %forking.display(), %error, "no fork was made"))
    });
    let report = report.await.map_err(|e| Problem::internal(format!("the fork ended early: {e}")))??;
    Ok(Json(json!({
        "data_dir": report.data_dir,
        "lake_url": report.data_dir.join("lake"),
        "cluster_id": report.cluster_id,
        "at": time_text(report.at_ms),
        "files": report.files,
        "bytes": report.bytes,
        "shared_bytes": report.shared_bytes,
    })))
}
