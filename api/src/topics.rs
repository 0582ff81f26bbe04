//! `/v1/topics`: what topics there are, one of them, and a look at its records.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use broker::{Catalog, Partition, Record, Topic};
use serde_json::{Value, json};

use crate::access::Caller;
use crate::app::App;
use crate::base64::base64;
use crate::error::{Answer, Problem};
use crate::output::time_text;
use crate::params::Params;
use crate::routes::{Doc, Routes};

/// Most records of one look.
const PEEK_RECORDS_MAX: i64 = 1_000;
/// Records of a look that does not say how many.
const PEEK_RECORDS: i64 = 20;
/// Bytes of batches that one look reads, at most (and at least one batch).
const PEEK_BYTES_MAX: usize = 8 << 20;

const PEEK: &[(&str, &str)] = &[
    ("partition", "partition to read; default 0"),
    ("offset", "first offset; negative counts from the end; default: the newest records"),
    ("limit", "most records, up to 1000; default 20"),
];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .get("/v1/topics", Doc::new("Topics with their sizes"), list)
        .get("/v1/topics/{topic}", Doc::new("One topic: partitions and settings"), one)
        .get(
            "/v1/topics/{topic}/records",
            Doc::new("A look at the records of a partition, those too that its log let go and the lake has")
                .query(PEEK),
            peek,
        )
}

async fn list(State(app): State<Arc<App>>, caller: Caller, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    let topics = app.broker.catalog().topics();
    let topics: Value =
        topics.iter().filter(|topic| caller.names(topic.name())).map(|topic| summary(&app, topic)).collect();
    Ok(Json(json!({"topics": topics})))
}

/// The figures of a topic.
pub fn summary(app: &App, topic: &Topic) -> Value {
    let partitions = topic.partitions();
    let records: i64 = partitions.iter().map(|p| p.high_watermark() - p.log_start()).sum();
    let bytes: u64 = partitions.iter().map(|p| p.size_bytes()).sum();
    let newest = partitions.iter().map(|p| p.newest_timestamp()).max().filter(|ms| *ms >= 0);
    let rate = app.rates.topic(topic.name());
    json!({
        "name": &**topic.name(),
        "id": topic.id().to_string(),
        "partitions": partitions.len(),
        "records": records,
        "bytes": bytes,
        "newest": newest.map(time_text),
        "records_per_s": rate.records_per_s,
        "bytes_per_s": rate.bytes_per_s,
        "internal": topic.is_internal(),
        "stream": app.engine.stream_of_topic(topic.name()).map(|stream| stream.name().to_owned()),
    })
}

/// The topic of that name, or the problem.
pub fn find(app: &App, name: &str) -> Answer<Arc<Topic>> {
    app.broker
        .catalog()
        .topic(name)
        .ok_or_else(|| Problem::not_found(format!("no topic {name}: GET /v1/topics lists them")))
}

async fn one(State(app): State<Arc<App>>, caller: Caller, Path(name): Path<String>, uri: Uri) -> Answer<Json<Value>> {
    Params::of(&uri)?.finish()?;
    caller.check_name(&name)?;
    let topic = find(&app, &name)?;
    let mut answer = summary(&app, &topic);
    answer["config"] = json!(topic.config().overrides());
    answer["partition_list"] = topic.partitions().iter().map(|p| partition_json(p)).collect();
    Ok(Json(answer))
}

fn partition_json(partition: &Partition) -> Value {
    json!({
        "partition": partition.index(),
        "log_start": partition.log_start(),
        "high_watermark": partition.high_watermark(),
        "leader_epoch": partition.leader_epoch(),
        "bytes": partition.size_bytes(),
        "newest": Some(partition.newest_timestamp()).filter(|ms| *ms >= 0).map(time_text),
    })
}

async fn peek(State(app): State<Arc<App>>, caller: Caller, Path(name): Path<String>, uri: Uri) -> Answer {
    caller.check_records(&name)?;
    let topic = find(&app, &name)?;
    let mut params = Params::of(&uri)?;
    let index = params.take_number("partition", 0..=i64::from(i32::MAX))?.unwrap_or(0);
    let offset = params.take_number("offset", i64::MIN..=i64::MAX)?;
    let limit = params.take_number("limit", 1..=PEEK_RECORDS_MAX)?.unwrap_or(PEEK_RECORDS);
    params.finish()?;
    let partition = i32::try_from(index).ok().and_then(|index| topic.partition(index)).ok_or_else(|| {
        Problem::not_found(format!(
            "topic {name} has no partition {index}: it has 0 to {}",
            topic.partitions().len() - 1
        ))
    })?;
    let (start, end) = (partition.log_start(), partition.high_watermark());
    let earliest = partition.earliest();
    let from = match offset {
        None => (end - limit).max(earliest),
        Some(back) if back < 0 => end.saturating_add(back).max(earliest),
        Some(offset) => offset,
    };
    let records = records_from(app.broker.catalog(), &partition, (from, limit as usize)).await?;
    let next = records.last().map_or(from, |record| record.offset + 1);
    let mut out = format!(
        "{{\"topic\":{},\"partition\":{index},\"earliest\":{earliest},\"log_start\":{start},\"high_watermark\":{end},\"next_offset\":{next},\"records\":[",
        json!(name)
    );
    for (i, record) in records.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        record_json(record, &mut out);
    }
    out.push_str("]}");
    Ok(json_text(out))
}

fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

/// Up to `limit` records from `from` on, of the log or of what it let go; control batches and what was aborted are skipped.
async fn records_from(
    catalog: &Catalog,
    partition: &Arc<Partition>,
    (from, limit): (i64, usize),
) -> Answer<Vec<Record>> {
    let mut records = Vec::new();
    let mut position = from;
    let mut bytes = 0;
    while records.len() < limit && bytes < PEEK_BYTES_MAX {
        let batches = catalog.read_committed(partition, position, 1 << 20).await?;
        let Some(last) = batches.last() else { break };
        position = last.next_offset();
        for batch in batches.iter().filter(|batch| !batch.is_control()) {
            bytes += batch.bytes().len();
            for record in batch.records()? {
                let record = record?;
                if record.offset >= from && records.len() < limit {
                    records.push(record);
                }
            }
        }
    }
    Ok(records)
}

/// Writes a record the way the collector takes it: `value` if the bytes are JSON, `value_text` if they are text, else
/// `value_base64`.
fn record_json(record: &Record, out: &mut String) {
    out.push_str(&format!("{{\"offset\":{},\"timestamp\":{}", record.offset, json!(time_text(record.timestamp))));
    match record.key.as_deref().map(std::str::from_utf8) {
        None => out.push_str(",\"key\":null"),
        Some(Ok(text)) => out.push_str(&format!(",\"key\":{}", json!(text))),
        Some(Err(_)) => {
            out.push_str(&format!(",\"key_base64\":{}", json!(base64(record.key.as_deref().unwrap_or_default()))))
        }
    }
    match record.value.as_deref().map(std::str::from_utf8) {
        None => out.push_str(",\"value\":null"),
        // The text itself, so that no digit changes on the way.
        Some(Ok(text)) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
            out.push_str(&format!(",\"value\":{text}"))
        }
        Some(Ok(text)) => out.push_str(&format!(",\"value_text\":{}", json!(text))),
        Some(Err(_)) => {
            out.push_str(&format!(",\"value_base64\":{}", json!(base64(record.value.as_deref().unwrap_or_default()))))
        }
    }
    let headers: Vec<Value> = record
        .headers
        .iter()
        .map(|(name, value)| json!([String::from_utf8_lossy(name), value.as_deref().map(String::from_utf8_lossy)]))
        .collect();
    out.push_str(&format!(",\"headers\":{}}}", Value::Array(headers)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_as_the_collector_takes_it() {
        let mut record = Record {
            offset: 7,
            timestamp: 1_795_176_000_000,
            key: Some("user-1".into()),
            value: Some(r#"{"price": 12345678901234567890.10}"#.into()),
            headers: vec![("a".into(), Some("b".into())), ("a".into(), None)],
        };
        let mut out = String::new();
        record_json(&record, &mut out);
        assert_eq!(
            out,
            r#"{"offset":7,"timestamp":"2026-11-20T12:00:00Z","key":"user-1","value":{"price": 12345678901234567890.10},"headers":[["a","b"],["a",null]]}"#
        );
        record.key = Some(vec![0xff].into());
        record.value = Some("hello".into());
        record.headers.clear();
        out.clear();
        record_json(&record, &mut out);
        assert_eq!(
            out,
            r#"{"offset":7,"timestamp":"2026-11-20T12:00:00Z","key_base64":"/w==","value_text":"hello","headers":[]}"#
        );
        record.value = None;
        out.clear();
        record_json(&record, &mut out);
        assert!(out.contains(r#""value":null"#));
    }
}
