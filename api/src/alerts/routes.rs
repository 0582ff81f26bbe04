//! `GET /v1/alerts`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

use super::{Alert, Seen};
use crate::access::Need;
use crate::app::App;
use crate::error::Answer;
use crate::output::time_text;
use crate::params::Params;
use crate::routes::{Doc, Routes};

/// Deliveries that an answer shows of each alert.
const DELIVERIES_SHOWN: usize = 20;

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes.get("/v1/alerts", Doc::new("Alerts: what fires since when, and where it was told").need(Need::ReadAll), list)
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let alerts: Vec<Value> = app
        .work
        .alerts()
        .list()
        .iter()
        .map(|(alert, seen)| {
            let deliveries = app.work.alerts().outbox().of("alert", &alert.config.name, DELIVERIES_SHOWN);
            shown(alert, seen, deliveries)
        })
        .collect();
    Ok(Json(json!({"alerts": alerts})))
}

fn shown(alert: &Alert, seen: &Seen, deliveries: Vec<Value>) -> Value {
    let config = &alert.config;
    let instances: Vec<Value> = seen
        .state
        .instances
        .values()
        .map(|instance| {
            json!({
                "state": instance.phase,
                "since": time_text(instance.since_ms),
                "fired": instance.fired_ms.map(time_text),
                "gone_since": instance.gone_ms.map(time_text),
                "labels": instance.labels,
                "values": instance.values,
                "message": alert.message(&instance.values),
            })
        })
        .collect();
    json!({
        "name": config.name,
        "state": seen.state.word(),
        "severity": config.severity,
        "since": seen.state.since_ms().map(time_text),
        "checked": seen.checked_ms.map(time_text),
        "error": seen.error,
        "waits_for": seen.waits_for,
        "every_seconds": config.every_ms as f64 / 1000.0,
        "for_seconds": config.for_ms as f64 / 1000.0,
        "clear_for_seconds": config.clear_for_ms as f64 / 1000.0,
        "sql": config.sql,
        "channels": {"topic": config.channels.topic, "webhook": config.channels.webhook, "email": config.channels.email},
        "instances": instances,
        "deliveries": deliveries,
    })
}
