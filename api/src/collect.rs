//! `POST /v1/topics/{topic}/records`: events over HTTP, one or many.
//!
//! The rule for many: good records are kept, each bad one gets its problem in its place. The good ones of one request are
//! one commit: all of them are durable when the answer comes, or none is there. If the topic has a declared stream, a
//! record that the stream would reject is refused here and not appended. A key goes to the partition that Kafka's own
//! hash gives it; records without a key of one request stay together, and requests take the partitions in turn. A JSON
//! value is written in the stream's format, where that has schemas with the latest one of `<topic>-value`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use broker::{Ack, Append, Batch, BatchBuilder, Change, Origin, TimestampMs, Topic};
use engine::Stream;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::access::{Caller, Need};
use crate::app::App;
use crate::base64::unbase64;
use crate::error::{Answer, Problem};
use crate::output::time_text;
use crate::params::{Params, parse_time};
use crate::partitioner::partition_of_key;
use crate::routes::{self, Doc, Routes};

/// Most records of one request.
const RECORDS_MAX: usize = 100_000;
/// Latest timestamp that a record may carry: the end of the year 9999, in ms since 1970.
const TIMESTAMP_MAX: TimestampMs = 253_402_300_799_999;
/// Most headers of one record.
const HEADERS_MAX: usize = 1_000;
/// What a batch adds around its records, at most, in bytes; kept free below `max.message.bytes`.
const BATCH_MARGIN_BYTES: usize = 256;

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let doc = Doc::new("Appends one or many records; answered when they are durable").need(Need::Write).body(
        r#"{"records": [{"key": "user-1", "value": {"user_id": 1, "event": "listen"}, "headers": {"source": "web"}, "timestamp": "2026-11-20T12:00:00Z"}]}"#,
    );
    routes.post("/v1/topics/{topic}/records", doc, collect)
}

async fn collect(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    (uri, headers): (Uri, HeaderMap),
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    Params::of(&uri)?.finish()?;
    caller.check_name(&name)?;
    let topic = writable(&app, &name)?;
    let body = routes::body(body, &app)?;
    let lines = headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes().to_ascii_lowercase();
        kind.starts_with(b"application/x-ndjson") || kind.starts_with(b"application/jsonl")
    });
    let stream = app.engine.stream_of_topic(&name);
    let desk = Desk { now: app.clock().now_ms(), spread: app.next_spread(), topic, stream };
    // Parsing and checking a large body takes longer than a task may hold its thread.
    let mut work = tokio::task::spawn_blocking(move || desk.take_in(&body, lines))
        .await
        .map_err(|e| Problem::internal(e.to_string()))??;
    let appends: Vec<Change> = work.batches.iter().map(Sealed::append).collect();
    if !appends.is_empty() {
        work.batches.iter().try_for_each(|sealed| app.broker.check_room(&sealed.partition))?;
        let appended = app.broker.lane().commit(appends, Ack::Durable).await?;
        for (sealed, at) in work.batches.iter().zip(appended) {
            for (i, place) in (0i64..).zip(&sealed.places) {
                work.answers[*place] = Ok((sealed.partition.index(), at.base_offset + i));
            }
        }
    }
    Ok(report(work.answers))
}

/// The topic, if clients may write to it.
fn writable(app: &App, name: &str) -> Answer<Arc<Topic>> {
    let topic = app.broker.catalog().topic(name).ok_or_else(|| {
        Problem::not_found(format!("no topic {name}: create it with a Kafka client or in the configuration"))
    })?;
    if topic.is_internal() {
        let detail = format!("{name} is the broker's own topic: write to another one");
        return Err(not_for_clients(detail));
    }
    app.broker.catalog().claims().check_write(name).map_err(|error| not_for_clients(error.message))?;
    Ok(topic)
}

fn not_for_clients(detail: String) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "internal-topic", "the topic is not for clients", detail)
}

fn report(answers: Vec<Answer<(i32, i64)>>) -> Response {
    let rejected = answers.iter().filter(|answer| answer.is_err()).count();
    let accepted = answers.len() - rejected;
    let records: Vec<Value> = answers
        .into_iter()
        .map(|answer| match answer {
            Ok((partition, offset)) => json!({"partition": partition, "offset": offset}),
            Err(problem) => json!({"error": problem.to_json()}),
        })
        .collect();
    if accepted == 0 {
        let detail = format!("none of the {rejected} records was appended: see each one's error");
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "records-rejected", "no record is good", detail)
            .with("records", records)
            .with("accepted", accepted)
            .with("rejected", rejected)
            .into_response();
    }
    axum::Json(json!({"records": records, "accepted": accepted, "rejected": rejected})).into_response()
}

/// One record as it is sent. `value` is any JSON and is stored as its text, to the letter; `value_text` is stored as the
/// text itself, `value_base64` as bytes. A `key` that is JSON text is stored without its quotes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Incoming<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    key_base64: Option<String>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    value_text: Option<String>,
    value_base64: Option<String>,
    headers: Option<Value>,
    timestamp: Option<Value>,
    partition: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
}

/// Tells a body with many records from one record.
#[derive(Deserialize)]
struct Probe {
    records: Option<serde::de::IgnoredAny>,
}

/// One record, understood.
struct Prepared {
    place: usize,
    partition: i32,
    timestamp: TimestampMs,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A batch and which records of the request are in it.
struct Sealed {
    partition: Arc<broker::Partition>,
    batch: Batch,
    places: Vec<usize>,
}

impl Sealed {
    fn append(&self) -> Change {
        Change::Append(Append {
            partition: self.partition.clone(),
            batch: self.batch.clone(),
            origin: Origin::Internal,
        })
    }
}

/// What became of a request before the commit: `answers` holds the problems, and placeholders for the records in `batches`.
struct Work {
    answers: Vec<Answer<(i32, i64)>>,
    batches: Vec<Sealed>,
}

/// Where the records of one request are looked at.
struct Desk {
    now: TimestampMs,
    spread: u32,
    topic: Arc<Topic>,
    stream: Option<Arc<Stream>>,
}

impl Desk {
    fn take_in(&self, body: &[u8], lines: bool) -> Answer<Work> {
        let raws = split(body, lines)?;
        let mut answers: Vec<Answer<(i32, i64)>> = Vec::with_capacity(raws.len());
        let mut by_partition: BTreeMap<i32, Vec<Prepared>> = BTreeMap::new();
        for (place, raw) in raws.iter().enumerate() {
            match self.prepare(place, raw) {
                Ok(prepared) => {
                    by_partition.entry(prepared.partition).or_default().push(prepared);
                    answers.push(Ok((-1, -1)));
                }
                Err(problem) => answers.push(Err(problem)),
            }
        }
        let mut batches = Vec::new();
        for (index, records) in by_partition {
            let partition = self
                .topic
                .partition(index)
                .ok_or_else(|| Problem::internal("a partition vanished: send the request again"))?;
            let records = self.check(index, records, &mut answers)?;
            for (batch, places) in self.seal(&records) {
                batches.push(Sealed { partition: partition.clone(), batch, places });
            }
        }
        Ok(Work { answers, batches })
    }

    fn prepare(&self, place: usize, raw: &str) -> Answer<Prepared> {
        let incoming: Incoming<'_> = serde_json::from_str(raw).map_err(|e| {
            bad(format!("the record is not as it should be: {e}: send {{\"key\", \"value\", \"headers\", \"timestamp\", \"partition\"}}"))
        })?;
        let key = key_bytes(&incoming)?;
        let value = self.written(&incoming)?;
        let headers = incoming.headers.as_ref().map_or(Ok(Vec::new()), header_list)?;
        let size = key.as_ref().map_or(0, Vec::len)
            + value.as_ref().map_or(0, Vec::len)
            + headers.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len) + 20).sum::<usize>();
        let most = self.batch_bytes_max();
        if size > most {
            let detail = format!(
                "the record has {size} bytes and the topic takes {most}: send less, or raise max.message.bytes of the topic"
            );
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "record-too-large",
                "a record is too large",
                detail,
            ));
        }
        if key.is_none() && self.topic.config().compacts() {
            return Err(bad("the topic is compacted and the record has no key: send one".to_owned()));
        }
        let partition = self.partition(incoming.partition, key.as_deref())?;
        Ok(Prepared { place, partition, timestamp: self.timestamp(incoming.timestamp.as_ref())?, key, value, headers })
    }

    /// The value as the topic's stream is written: JSON becomes a record of the latest schema where the stream has one,
    /// text and bytes are left as they are.
    fn written(&self, incoming: &Incoming<'_>) -> Answer<Option<Vec<u8>>> {
        let value = value_bytes(incoming)?;
        match (&self.stream, incoming.value) {
            (Some(stream), Some(raw)) => stream.encode(raw.get()).map(Some).map_err(bad),
            _ => Ok(value),
        }
    }

    fn partition(&self, asked: Option<i32>, key: Option<&[u8]>) -> Answer<i32> {
        let count = i32::try_from(self.topic.partitions().len()).unwrap_or(i32::MAX);
        match (asked, key) {
            (Some(asked), _) if (0..count).contains(&asked) => Ok(asked),
            (Some(asked), _) => {
                Err(bad(format!("partition {asked}: topic {} has 0 to {}", self.topic.name(), count - 1)))
            }
            (None, Some(key)) => Ok(partition_of_key(key, count)),
            (None, None) => Ok(i32::try_from(self.spread % count.unsigned_abs().max(1)).unwrap_or(0)),
        }
    }

    fn timestamp(&self, given: Option<&Value>) -> Answer<TimestampMs> {
        let time = match given {
            None | Some(Value::Null) => Some(self.now),
            Some(Value::Number(ms)) => ms.as_i64(),
            Some(Value::String(text)) => parse_time(text),
            Some(_) => None,
        };
        let time = time.filter(|ms| (0..=TIMESTAMP_MAX).contains(ms)).ok_or_else(|| {
            bad("timestamp: send RFC 3339 text or milliseconds since 1970, up to the year 9999".to_owned())
        })?;
        let config = self.topic.config();
        let before = config.timestamp_before_max_ms();
        let after = config.timestamp_after_max_ms();
        if !config.is_log_append_time()
            && (self.now.saturating_sub(time) > before || time.saturating_sub(self.now) > after)
        {
            return Err(bad(format!(
                "timestamp {}: the topic takes {before} ms before to {after} ms after the server's time: see message.timestamp.before.max.ms",
                time_text(time)
            )));
        }
        Ok(time)
    }

    fn batch_bytes_max(&self) -> usize {
        self.topic.config().max_message_bytes().saturating_sub(BATCH_MARGIN_BYTES)
    }

    /// Takes out what the declared stream would reject.
    fn check(
        &self,
        partition: i32,
        records: Vec<Prepared>,
        answers: &mut [Answer<(i32, i64)>],
    ) -> Answer<Vec<Prepared>> {
        let Some(stream) = &self.stream else { return Ok(records) };
        let mut builder = BatchBuilder::new();
        for record in &records {
            record.push_to(&mut builder);
        }
        let Some(batch) = builder.build() else { return Ok(records) };
        let decoded = stream.decode(partition, &[batch])?;
        let mut bad = vec![false; records.len()];
        for rejected in decoded.rejected {
            let Some(record) = usize::try_from(rejected.offset).ok().and_then(|i| records.get(i)) else { continue };
            bad[usize::try_from(rejected.offset).unwrap_or(0)] = true;
            let detail = format!("{}: correct the record and send it again", rejected.reason);
            let problem = Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "record-rejected",
                "the stream does not take the record",
                detail,
            );
            answers[record.place] = Err(problem.with("stream", stream.name()).with("rule", rejected.rule.to_string()));
        }
        Ok(records.into_iter().zip(bad).filter(|(_, bad)| !bad).map(|(record, _)| record).collect())
    }

    /// Packs records into batches that the topic takes.
    fn seal(&self, records: &[Prepared]) -> Vec<(Batch, Vec<usize>)> {
        let most = self.batch_bytes_max();
        let mut sealed = Vec::new();
        let mut builder = BatchBuilder::new();
        let mut places = Vec::new();
        for record in records {
            if !builder.is_empty() && builder.size() + record.size() > most {
                let full = std::mem::take(&mut builder);
                sealed.extend(full.build().map(|batch| (batch, std::mem::take(&mut places))));
            }
            record.push_to(&mut builder);
            places.push(record.place);
        }
        sealed.extend(builder.build().map(|batch| (batch, places)));
        sealed
    }
}

impl Prepared {
    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len) + 20).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers + 40
    }

    fn push_to(&self, builder: &mut BatchBuilder) {
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            self.headers.iter().map(|(k, v)| (k.as_slice(), v.as_deref())).collect();
        builder.push(self.timestamp, self.key.as_deref(), self.value.as_deref(), &headers);
    }
}

/// The texts of the records in a body.
fn split(body: &[u8], lines: bool) -> Answer<Vec<&str>> {
    let text = std::str::from_utf8(body)
        .map_err(|e| Problem::bad_request(format!("the body is not UTF-8: {e}: send JSON in UTF-8")))?;
    let records: Vec<&str> = if lines {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
    } else {
        let whole: &RawValue = serde_json::from_str(text).map_err(|e| {
            Problem::bad_request(format!(
                "the body is not JSON: {e}: send {{\"records\": [{{\"key\": …, \"value\": …}}]}} or one record"
            ))
        })?;
        let many = serde_json::from_str::<Probe>(whole.get()).is_ok_and(|probe| probe.records.is_some());
        if many {
            let many: Many<'_> = serde_json::from_str(whole.get()).map_err(|e| {
                Problem::bad_request(format!(
                    "the body is not as it should be: {e}: send {{\"records\": [{{\"key\": …, \"value\": …}}]}}"
                ))
            })?;
            many.records.into_iter().map(RawValue::get).collect()
        } else {
            vec![whole.get()]
        }
    };
    if records.is_empty() || records.len() > RECORDS_MAX {
        return Err(Problem::bad_request(format!("the body has {} records: send 1 to {RECORDS_MAX}", records.len())));
    }
    Ok(records)
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "record-invalid", "the record is not valid", detail)
}

fn key_bytes(incoming: &Incoming<'_>) -> Answer<Option<Vec<u8>>> {
    match (incoming.key, &incoming.key_base64) {
        (Some(_), Some(_)) => Err(bad("key and key_base64 are both there: send one".to_owned())),
        (Some(raw), None) => Ok(Some(match serde_json::from_str::<String>(raw.get()) {
            Ok(text) => text.into_bytes(),
            Err(_) => raw.get().as_bytes().to_vec(),
        })),
        (None, Some(text)) => decode64("key_base64", text).map(Some),
        (None, None) => Ok(None),
    }
}

fn value_bytes(incoming: &Incoming<'_>) -> Answer<Option<Vec<u8>>> {
    match (incoming.value, &incoming.value_text, &incoming.value_base64) {
        (Some(raw), None, None) => Ok(Some(raw.get().as_bytes().to_vec())),
        (None, Some(text), None) => Ok(Some(text.as_bytes().to_vec())),
        (None, None, Some(text)) => decode64("value_base64", text).map(Some),
        (None, None, None) => Ok(None),
        _ => Err(bad("more than one of value, value_text and value_base64 is there: send one".to_owned())),
    }
}

fn decode64(name: &str, text: &str) -> Answer<Vec<u8>> {
    unbase64(text).ok_or_else(|| bad(format!("{name} is not base64: encode the bytes as RFC 4648 says")))
}

type HeaderList = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Headers as `{"name": "value"}`, or, where names repeat, as `[["name", "value"]]` or `[{"key", "value"}]`.
fn header_list(headers: &Value) -> Answer<HeaderList> {
    let wrong = || {
        bad("headers: send {\"name\": \"text\"} or [[\"name\", \"text\"]]; null is a header without a value".to_owned())
    };
    let text = |value: &Value| match value {
        Value::Null => Some(None),
        Value::String(text) => Some(Some(text.clone().into_bytes())),
        _ => None,
    };
    let one = |name: &str, value: &Value| Some((name.as_bytes().to_vec(), text(value)?));
    let list: Option<HeaderList> = match headers {
        Value::Null => Some(Vec::new()),
        Value::Object(map) => map.iter().map(|(name, value)| one(name, value)).collect(),
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| match pair {
                Value::Array(pair) if pair.len() == 2 => one(pair[0].as_str()?, &pair[1]),
                Value::Object(pair) if pair.len() <= 2 => {
                    one(pair.get("key")?.as_str()?, pair.get("value").unwrap_or(&Value::Null))
                }
                _ => None,
            })
            .collect(),
        _ => None,
    };
    list.filter(|list| list.len() <= HEADERS_MAX).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(text: &str) -> Incoming<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_body_is_one_record_many_or_lines() {
        assert_eq!(split(br#" {"value": 1} "#, false).unwrap(), [r#"{"value": 1}"#]);
        assert_eq!(split(br#"{"records": [{"value": 1}, 7]}"#, false).unwrap(), [r#"{"value": 1}"#, "7"]);
        assert_eq!(
            split(b"{\"value\": 1}\r\n\n{\"value\": 2}\n", true).unwrap(),
            [r#"{"value": 1}"#, r#"{"value": 2}"#]
        );
        for bad in [&b"{"[..], b"", b"{\"records\": 1}", b"{\"records\": []}", b"\xff"] {
            assert_eq!(split(bad, false).unwrap_err().status(), 400, "{bad:?}");
        }
    }

    #[test]
    fn a_value_is_stored_to_the_letter() {
        let record = incoming(r#"{"value": {"price": 12345678901234567890.10,  "a": "\u00e9"}}"#);
        assert_eq!(value_bytes(&record).unwrap().unwrap(), br#"{"price": 12345678901234567890.10,  "a": "\u00e9"}"#);
        assert_eq!(value_bytes(&incoming(r#"{"value": "text"}"#)).unwrap().unwrap(), b"\"text\"");
        assert_eq!(value_bytes(&incoming(r#"{"value_text": "text"}"#)).unwrap().unwrap(), b"text");
        assert_eq!(value_bytes(&incoming(r#"{"value_base64": "/wA="}"#)).unwrap().unwrap(), [255, 0]);
        assert_eq!(value_bytes(&incoming(r#"{"value": null}"#)).unwrap(), None);
        assert!(value_bytes(&incoming(r#"{"value": 1, "value_text": "x"}"#)).is_err());
        assert!(value_bytes(&incoming(r#"{"value_base64": "?"}"#)).is_err());
    }

    #[test]
    fn a_key_that_is_text_has_no_quotes() {
        assert_eq!(key_bytes(&incoming(r#"{"key": "user-\u00e9"}"#)).unwrap().unwrap(), "user-é".as_bytes());
        assert_eq!(key_bytes(&incoming(r#"{"key": 42}"#)).unwrap().unwrap(), b"42");
        assert_eq!(key_bytes(&incoming(r#"{"key": ""}"#)).unwrap().unwrap(), b"");
        assert_eq!(key_bytes(&incoming(r#"{"key": null}"#)).unwrap(), None);
        assert!(serde_json::from_str::<Incoming<'_>>(r#"{"keys": 1}"#).is_err());
    }

    #[test]
    fn headers_come_in_three_forms() {
        let pair = |name: &str, value: Option<&str>| (name.as_bytes().to_vec(), value.map(|v| v.as_bytes().to_vec()));
        let expected = vec![pair("a", Some("1")), pair("a", None)];
        assert_eq!(header_list(&json!([["a", "1"], ["a", null]])).unwrap(), expected);
        assert_eq!(header_list(&json!([{"key": "a", "value": "1"}, {"key": "a"}])).unwrap(), expected);
        assert_eq!(header_list(&json!({"a": "1"})).unwrap(), expected[..1]);
        for bad in [json!("a"), json!({"a": 1}), json!([["a"]]), json!([[1, "a"]])] {
            assert!(header_list(&bad).is_err(), "{bad}");
        }
    }
}
