//! `/v1/groups`: consumer groups and how far each is behind.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use broker::TimestampMs;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{Answer, Problem};
use crate::lag::age_of;
use crate::output::time_text;
use crate::params::Params;
use crate::routes::{Doc, Routes};

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes.get("/v1/groups", Doc::new("Consumer groups with their lag"), list).get(
        "/v1/groups/{group}",
        Doc::new("One consumer group: members, committed offsets, lag per partition"),
        one,
    )
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let mut groups = Vec::new();
    for overview in app.broker.groups().list() {
        let lag = Lag::of(&app, &overview.id).await?;
        let members = app.broker.groups().describe(&overview.id).map_or(0, |group| group.members.len());
        groups.push(json!({
            "group": &*overview.id,
            "state": overview.state,
            "protocol_type": &*overview.protocol_type,
            "members": members,
            "lag": lag.records,
            "lag_seconds": lag.age_ms as f64 / 1000.0,
        }));
    }
    Ok(Json(json!({"groups": groups})))
}

async fn one(State(app): State<Arc<App>>, Path(id): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let unknown = || Problem::not_found(format!("no consumer group {id}: GET /v1/groups lists them"));
    let group = app.broker.groups().describe(&id).ok_or_else(unknown)?;
    let lag = Lag::of(&app, &id).await?;
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|member| {
            json!({
                "member": &*member.id,
                "instance": member.instance_id.as_deref(),
                "client": &*member.client_id,
                "host": &*member.client_host,
            })
        })
        .collect();
    Ok(Json(json!({
        "group": id,
        "state": group.overview.state,
        "protocol_type": &*group.overview.protocol_type,
        "protocol": &*group.protocol,
        "generation": group.generation,
        "members": members.len(),
        "member_list": members,
        "lag": lag.records,
        "lag_seconds": lag.age_ms as f64 / 1000.0,
        "offsets": lag.partitions,
    })))
}

/// What a group has not consumed of the partitions that it committed offsets for.
pub struct Lag {
    /// Of all partitions.
    pub records: i64,
    /// Of the oldest record that was not consumed, in milliseconds.
    pub age_ms: i64,
    /// Per partition, as the route answers it.
    pub partitions: Vec<Value>,
}

impl Lag {
    /// The lag of a group now.
    pub async fn of(app: &App, id: &str) -> Answer<Lag> {
        let now: TimestampMs = app.clock().now_ms();
        let mut lag = Lag { records: 0, age_ms: 0, partitions: Vec::new() };
        for committed in app.broker.groups().offsets(id).unwrap_or_default() {
            // Offsets of a deleted topic are no lag.
            let Some(topic) = app.broker.catalog().topic_by_id(committed.topic) else { continue };
            let Some(partition) = topic.partition(committed.partition) else { continue };
            let end = partition.high_watermark();
            let position = committed.offset.max(partition.earliest());
            let records = (end - position).max(0);
            let age_ms = if records == 0 { 0 } else { age_of(&partition, position, now).await? };
            lag.records += records;
            lag.age_ms = lag.age_ms.max(age_ms);
            lag.partitions.push(json!({
                "topic": &**topic.name(),
                "partition": committed.partition,
                "committed": committed.offset,
                "committed_at": time_text(committed.committed_at),
                "high_watermark": end,
                "lag": records,
                "lag_seconds": age_ms as f64 / 1000.0,
            }));
        }
        Ok(lag)
    }
}
