//! `/v1/lag`: how far each stage is behind: produced → durable → in views, derived streams, tables → in Parquet; in records and
//! in seconds since the oldest record that the stage still lacks was stamped.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use broker::{Offset, Partition, PartitionIndex, TimestampMs, Topic};
use serde_json::{Map, Value, json};

use crate::access::Caller;
use crate::app::App;
use crate::error::Answer;
use crate::output::time_text;
use crate::params::Params;
use crate::routes::{Doc, Routes};

/// Bytes read to find the time of one record; a batch is read whole at least.
const LOOK_BYTES: usize = 1;

const QUERY: &[(&str, &str)] = &[("topic", "only this topic")];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes.get("/v1/lag", Doc::new("Lag of every stage, from the producer to Parquet").query(QUERY), lag)
}

async fn lag(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    let mut params = Params::of(&uri)?;
    let only = params.take("topic")?;
    params.finish()?;
    let mut topics = match only {
        Some(name) => vec![crate::topics::find(&app, &name)?],
        None => app.broker.catalog().topics(),
    };
    topics.retain(|topic| caller.names(topic.name()));
    Ok(Json(of_topics(&app, topics).await?))
}

/// The positions of one stage in one topic.
struct Stage {
    stage: &'static str,
    name: Option<String>,
    positions: BTreeMap<PartitionIndex, Offset>,
}

/// The lag of `topics`, for this route and the page.
pub async fn of_topics(app: &App, topics: Vec<Arc<Topic>>) -> Answer<Value> {
    let now = app.clock().now_ms();
    let views = app.engine.status();
    let streams = app.engine.stream_status();
    let tables = app.engine.tables();
    let lake = app.lake.status();
    let mut answer = Vec::new();
    for topic in topics {
        let name = topic.name();
        let mut stages = vec![Stage {
            stage: "durable",
            name: None,
            positions: topic.partitions().iter().map(|p| (p.index(), p.high_watermark())).collect(),
        }];
        for view in &views {
            if let Some(positions) = view.positions.get(name) {
                stages.push(Stage { stage: "view", name: Some(view.view.clone()), positions: positions.clone() });
            }
        }
        for stream in &streams {
            let positions = stream.derived.as_ref().and_then(|derived| derived.positions.get(name));
            if let Some(positions) = positions {
                let positions = positions.clone();
                stages.push(Stage { stage: "derived", name: Some(stream.stream.clone()), positions });
            }
        }
        for table in &tables {
            if let Some(positions) = table.positions.get(name) {
                stages.push(Stage { stage: "table", name: Some(table.table.clone()), positions: positions.clone() });
            }
        }
        if let Some(table) = lake.tables.iter().find(|table| *table.topic == **name) {
            stages.push(Stage { stage: "lake", name: None, positions: table.marks.clone() });
        }
        answer.push(topic_json(&topic, &stages, now).await?);
    }
    Ok(json!({"now": time_text(now), "topics": answer}))
}

async fn topic_json(topic: &Topic, stages: &[Stage], now: TimestampMs) -> Answer<Value> {
    let partitions = topic.partitions();
    let mut list = Vec::new();
    for stage in stages {
        let (mut records, mut age_ms) = (0, 0);
        for partition in partitions.iter() {
            // A stage that has not begun with a partition has all of it before it.
            let position = stage.positions.get(&partition.index()).copied().unwrap_or(0).max(partition.log_start());
            records += (partition.log_end() - position).max(0);
            age_ms = age_ms.max(age_of(partition, position, now).await?);
        }
        list.push(
            json!({"stage": stage.stage, "name": stage.name, "records": records, "seconds": age_ms as f64 / 1000.0}),
        );
    }
    let offsets: Vec<Value> = partitions.iter().map(|partition| partition_json(partition, stages)).collect();
    Ok(json!({"topic": &**topic.name(), "stages": list, "partitions": offsets}))
}

fn partition_json(partition: &Partition, stages: &[Stage]) -> Value {
    let mut views = Map::new();
    let mut lake = Value::Null;
    for stage in stages {
        let position = json!(stage.positions.get(&partition.index()));
        match (stage.stage, &stage.name) {
            ("view", Some(name)) => {
                views.insert(name.clone(), position);
            }
            ("lake", _) => lake = position,
            _ => {}
        }
    }
    json!({
        "partition": partition.index(),
        "log_start": partition.log_start(),
        "produced": partition.log_end(),
        "durable": partition.high_watermark(),
        "views": views,
        "lake": lake,
    })
}

/// How long ago the record at `position` was stamped, in ms; 0 at the end of the log, or if its stamp lies ahead.
pub async fn age_of(partition: &Arc<Partition>, position: Offset, now: TimestampMs) -> Answer<i64> {
    let end = partition.high_watermark();
    if position >= end {
        let undurable = partition.log_end() > end;
        return Ok(if undurable { (now - partition.newest_append()).max(0) } else { 0 });
    }
    let batches = match partition.read(position.max(partition.log_start()), LOOK_BYTES).await {
        Ok(batches) => batches,
        // Retention moved on between the look at its start and this one.
        Err(error) if error.kind == broker::Kind::OffsetOutOfRange => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let Some(batch) = batches.first() else { return Ok(0) };
    Ok((now - batch.base_timestamp()).max(0))
}
