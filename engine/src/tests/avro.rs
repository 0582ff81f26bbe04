//! Avro and JSON Schema records, decoded by the id of their writer's schema.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMillisecondType};
use broker::{BatchBuilder, Broker, Deletion, NewSchema, Reference, Registration, SchemaFault, SchemaType};
use serde_json::json;

use super::{BASE_MS, column, open_broker};
use crate::avro::{AvroSchema, encode};
use crate::{Decoded, Stream, StreamConfig, StreamFormat};

fn fault(fault: SchemaFault) -> broker::Error {
    broker::Error::new(broker::Kind::Bug, format!("{fault:?}"))
}

pub(super) async fn register(broker: &Broker, subject: &str, kind: SchemaType, text: &str) -> u32 {
    register_with(broker, subject, NewSchema { kind, text: text.into(), references: Vec::new() }).await
}

pub(super) async fn register_with(broker: &Broker, subject: &str, schema: NewSchema) -> u32 {
    let at = Registration { subject: subject.into(), ..Registration::default() };
    broker.schemas().change(|state| state.register(&at, schema).map_err(fault)).await.unwrap().id
}

pub(super) fn stream(broker: &Broker, format: StreamFormat, columns: &[(&str, &str)]) -> Stream {
    let mut all: Vec<_> = columns.iter().map(|(name, sql_type)| column(name, sql_type, false)).collect();
    all.push(column("ts", "TIMESTAMP", true));
    let config = StreamConfig {
        name: "s".into(),
        topic: "events".into(),
        format,
        columns: all,
        event_time: "ts".into(),
        ..StreamConfig::default()
    };
    let stream = Stream::new(&config).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    stream.bind(broker.schemas().clone());
    stream
}

/// The prefix of an id and a payload.
pub(super) fn framed(id: u32, payload: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), payload].concat()
}

fn avro(id: u32, schema: &str, value: &serde_json::Value) -> Vec<u8> {
    framed(id, &encode(&AvroSchema::parse(schema, std::iter::empty()).unwrap(), value).unwrap())
}

pub(super) fn decode(stream: &Stream, values: &[Vec<u8>]) -> Decoded {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(BASE_MS, Some(b"k"), Some(value), &[]);
    }
    stream.decode(0, &[builder.build().unwrap()]).unwrap()
}

pub(super) fn rules(decoded: &Decoded) -> Vec<(i64, &str)> {
    decoded.rejected.iter().map(|rejected| (rejected.offset, &*rejected.rule)).collect()
}

/// Decodes values of which each breaks a rule, or none where that is empty; what was refused is told as it was written.
pub(super) fn check_refusals(stream: &Stream, cases: &[(Vec<u8>, &str)]) -> Decoded {
    let values: Vec<Vec<u8>> = cases.iter().map(|(value, _)| value.clone()).collect();
    let decoded = decode(stream, &values);
    let wanted: Vec<(i64, &str)> =
        (0..).zip(cases).filter(|(_, (_, rule))| !rule.is_empty()).map(|(offset, (_, rule))| (offset, *rule)).collect();
    assert_eq!(rules(&decoded), wanted, "{:#?}", decoded.rejected);
    for rejected in &decoded.rejected {
        assert_eq!(rejected.value.as_deref(), Some(cases[rejected.offset as usize].0.as_slice()));
    }
    decoded
}

const FIRST: &str = r#"{"type":"record","name":"Event","fields":[
    {"name":"id","type":"long"},{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
/// An optional field arrives, before others, so that positions differ.
const SECOND: &str = r#"{"type":"record","name":"Event","fields":[
    {"name":"team","type":["null","string"],"default":null},
    {"name":"id","type":"long"},{"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn records_of_two_versions_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let first = register(&broker, "events-value", SchemaType::Avro, FIRST).await;
    let second = register(&broker, "events-value", SchemaType::Avro, SECOND).await;
    let stream = stream(&broker, StreamFormat::Avro, &[("team", "VARCHAR"), ("id", "BIGINT")]);
    let values: Vec<Vec<u8>> = (0..100)
        .map(|i| match i % 3 {
            0 => avro(first, FIRST, &json!({"id": i, "ts": BASE_MS + i})),
            1 => avro(second, SECOND, &json!({"id": i, "ts": (BASE_MS + i) * 1000 + 999, "team": format!("t{i}")})),
            _ => avro(second, SECOND, &json!({"id": i, "ts": (BASE_MS + i) * 1000})),
        })
        .collect();
    let decoded = decode(&stream, &values);
    assert_eq!(rules(&decoded), []);
    let (teams, ids) = (decoded.rows.column(0).as_string::<i32>(), decoded.rows.column(1).as_primitive::<Int64Type>());
    let times = decoded.rows.column(2).as_primitive::<TimestampMillisecondType>();
    for row in 0..100 {
        let i = row as i64;
        assert_eq!((ids.value(row), times.value(row)), (i, BASE_MS + i));
        let team = teams.is_valid(row).then(|| teams.value(row).to_owned());
        assert_eq!(team, (row % 3 == 1).then(|| format!("t{row}")));
    }
    broker.stop().await.unwrap();
}

const ALL: &str = r#"{"type":"record","name":"All","namespace":"n","fields":[
    {"name":"skipped","type":{"type":"array","items":{"type":"map","values":["null","double"]}}},
    {"name":"flag","type":"boolean"},
    {"name":"small","type":"int"},
    {"name":"ratio","type":"float"},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
    {"name":"rate","type":{"type":"fixed","name":"Rate","size":6,"logicalType":"decimal","precision":10,"scale":4}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"uid","type":{"type":"string","logicalType":"uuid"}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"]}},
    {"name":"user","type":["null",{"type":"record","name":"User","fields":[
        {"name":"id","type":"long"},{"name":"boss","type":["null","User"],"default":null}]}],"default":null},
    {"name":"tags","type":{"type":"array","items":"string"}},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_type_finds_its_column() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let id = register(&broker, "events-value", SchemaType::Avro, ALL).await;
    let columns = [
        ("flag", "BOOLEAN"),
        ("small", "DOUBLE"),
        ("ratio", "DOUBLE"),
        ("price", "DECIMAL(12,2)"),
        ("rate", "DECIMAL(14,6)"),
        ("day", "DATE"),
        ("uid", "VARCHAR"),
        ("kind", "VARCHAR"),
        ("user", "VARCHAR"),
        ("user.id", "BIGINT"),
        ("user.boss.id", "BIGINT"),
        ("tags", "VARCHAR"),
        ("absent", "BIGINT"),
    ];
    let stream = stream(&broker, StreamFormat::Avro, &columns);
    let full = json!({
        "skipped": [{"a": 1.5, "b": null}, {}], "flag": true, "small": -7, "ratio": 0.5, "price": "-1234.50", "rate": "0.0625",
        "day": "2026-11-20", "uid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "kind": "B",
        "user": {"id": 9, "boss": {"id": 4, "boss": null}}, "tags": ["x", "y\"z"], "ts": "2026-11-20T10:00:00.123Z"
    });
    let mut empty = full.clone();
    (empty["user"], empty["tags"], empty["price"]) = (json!(null), json!([]), json!(0));
    let decoded = decode(&stream, &[avro(id, ALL, &full), avro(id, ALL, &empty)]);
    assert_eq!(rules(&decoded), [], "{:?}", decoded.rejected);
    let rows = &decoded.rows;
    let text = |index: usize, row: usize| rows.column(index).as_string::<i32>().value(row).to_owned();
    assert!(rows.column(0).as_boolean().value(0));
    assert_eq!(rows.column(1).as_primitive::<Float64Type>().value(0), -7.0);
    assert_eq!(rows.column(2).as_primitive::<Float64Type>().value(0), 0.5);
    assert_eq!(rows.column(3).as_primitive::<Decimal128Type>().values(), &[-123_450, 0]);
    assert_eq!(rows.column(4).as_primitive::<Decimal128Type>().value(0), 62_500);
    assert_eq!(rows.column(5).as_primitive::<Date32Type>().value(0), 20_777);
    assert_eq!((text(6, 0).as_str(), text(7, 0).as_str()), ("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "B"));
    assert_eq!(text(8, 0), r#"{"id":9,"boss":{"id":4,"boss":null}}"#);
    assert_eq!(rows.column(9).as_primitive::<Int64Type>().value(0), 9);
    assert_eq!(rows.column(10).as_primitive::<Int64Type>().value(0), 4);
    assert_eq!((text(11, 0).as_str(), text(11, 1).as_str()), (r#"["x","y\"z"]"#, "[]"));
    for index in [8, 9, 10, 12] {
        assert!(rows.column(index).is_null(1), "{index}");
    }
    assert_eq!(rows.column(13).as_primitive::<TimestampMillisecondType>().value(0), BASE_MS + 123);
    let lists = [("tags", "VARCHAR[]"), ("user", "VARCHAR")];
    let decoded = decode(&self::stream(&broker, StreamFormat::Avro, &lists), &[avro(id, ALL, &full)]);
    assert_eq!(decoded.rows.column(0).as_list::<i32>().value(0).as_string::<i32>().value(1), "y\"z");
    let decoded = decode(&self::stream(&broker, StreamFormat::Avro, &[("user", "VARCHAR[]")]), &[avro(id, ALL, &full)]);
    assert_eq!(rules(&decoded), [(0, "type")]);
    broker.stop().await.unwrap();
}

/// One record each: the rule it breaks.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_record_of_its_schema_is_refused_with_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let id = register(&broker, "events-value", SchemaType::Avro, FIRST).await;
    let text = r#"{"type":"record","name":"Event","fields":[{"name":"id","type":"string"},{"name":"ts","type":["null","long"]}]}"#;
    let other = register(&broker, "other-value", SchemaType::Avro, text).await;
    let json_id = register(&broker, "json-value", SchemaType::Json, r#"{"type":"object"}"#).await;
    let plain = register(&broker, "plain-value", SchemaType::Avro, "\"long\"").await;
    let stream = stream(&broker, StreamFormat::Avro, &[("id", "BIGINT")]);
    let good = avro(id, FIRST, &json!({"id": 1, "ts": BASE_MS}));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (good.clone(), ""),
        (br#"{"id": 1, "ts": 1795168800000}"#.to_vec(), "schema_prefix"),
        (Vec::new(), "schema_prefix"),
        (vec![0, 0, 0, 0], "schema_prefix"),
        (framed(99, &good[5..]), "schema_id"),
        (framed(json_id, b"{}"), "schema_id"),
        (framed(plain, &[2]), "schema_id"),
        (good[..good.len() - 1].to_vec(), "avro"),
        ([&good[..], &[0]].concat(), "avro"),
        (framed(id, &[0xff; 11]), "avro"),
        (avro(other, text, &json!({"id": "x", "ts": BASE_MS})), "type"),
        (avro(other, text, &json!({"id": "7", "ts": null})), "type"),
        (framed(other, &[0, 0]), "type"),
        (avro(id, FIRST, &json!({"id": 1, "ts": BASE_MS + 3_600_001})), "max_ahead"),
        (avro(id, FIRST, &json!({"id": 1, "ts": i64::MAX})), "type"),
        (good.clone(), ""),
    ];
    assert_eq!(check_refusals(&stream, &cases).rows.num_rows(), 2);
    let without_time = r#"{"type":"record","name":"E","fields":[{"name":"ts","type":["null","long"]}]}"#;
    let id = register(&broker, "time-value", SchemaType::Avro, without_time).await;
    assert_eq!(rules(&decode(&stream, &[avro(id, without_time, &json!({"ts": null}))])), [(0, "required")]);
    broker.stop().await.unwrap();
}

/// Bytes that no serializer wrote end in a refusal, soon and without much memory.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let text = r#"{"type":"record","name":"E","fields":[{"name":"nothing","type":{"type":"array","items":"null"}},
        {"name":"tree","type":["null","E"]},{"name":"ts","type":"long"}]}"#;
    let id = register(&broker, "events-value", SchemaType::Avro, text).await;
    let many = [&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &[0, 0, 0]].concat();
    let deep = [[0, 2]; 5_000].concat();
    let long = [&[1, 0xfe, 0xff, 0xff, 0xff, 0x0f][..], &[0; 5]].concat();
    for columns in [&[][..], &[("nothing", "VARCHAR"), ("tree", "VARCHAR")]] {
        let stream = stream(&broker, StreamFormat::Avro, columns);
        let values: Vec<Vec<u8>> = [&many, &deep, &long].iter().map(|bytes| framed(id, bytes)).collect();
        assert_eq!(rules(&decode(&stream, &values)), [(0, "avro"), (1, "avro"), (2, "avro")]);
        let mut random = 1u64;
        let noise: Vec<Vec<u8>> = (0..2_000)
            .map(|length| {
                let mut bytes = Vec::new();
                for _ in 0..length % 40 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    bytes.push((random >> 56) as u8);
                }
                framed(id, &bytes)
            })
            .collect();
        let decoded = decode(&stream, &noise);
        assert_eq!(decoded.rows.num_rows() + decoded.rejected.len(), 2_000);
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn json_with_a_prefix_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let id = register(&broker, "events-value", SchemaType::Json, r#"{"type":"object"}"#).await;
    let stream = stream(&broker, StreamFormat::JsonSchema, &[("id", "BIGINT")]);
    let text = format!(r#"{{"id": 5, "ts": {BASE_MS}}}"#);
    let values =
        [framed(id, text.as_bytes()), text.clone().into_bytes(), framed(77, text.as_bytes()), framed(id, b"{")];
    let decoded = decode(&stream, &values);
    assert_eq!(rules(&decoded), [(1, "schema_prefix"), (2, "schema_id"), (3, "json")]);
    assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[5]);
    assert_eq!(stream.encode(&text).unwrap(), values[0]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn json_over_http_is_written_with_the_latest_schema() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let stream = Arc::new(stream(&broker, StreamFormat::Avro, &[("id", "BIGINT"), ("team", "VARCHAR")]));
    assert!(stream.encode("{}").unwrap_err().contains("events-value"));
    register(&broker, "events-value", SchemaType::Avro, FIRST).await;
    register(&broker, "events-value", SchemaType::Avro, SECOND).await;
    let written = stream.encode(r#"{"id": 3, "ts": "2026-11-20T10:00:00Z", "team": "a"}"#).unwrap();
    let decoded = decode(&stream, &[written]);
    assert_eq!(decoded.rows.column(1).as_string::<i32>().value(0), "a");
    assert_eq!(decoded.rows.column(2).as_primitive::<TimestampMillisecondType>().value(0), BASE_MS);
    for (value, part) in [
        (r#"{"id": 3}"#, "'ts' is null"),
        (r#"{"id": "x", "ts": 0}"#, "'id' is \"x\""),
        (r#"{"id": 3, "ts": 0, "more": 1}"#, "'more' is not in the schema"),
        ("[1]", "wants an object"),
        ("{", "not JSON"),
    ] {
        let error = stream.encode(value).unwrap_err();
        assert!(error.contains(part), "{value}: {error}");
    }
    broker.stop().await.unwrap();
}

/// A schema may use others of the registry, and what was written with it stays readable when it is deleted for good.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_others_use_are_found_and_deleted_ones_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let user = r#"{"type":"record","name":"User","namespace":"n","fields":[{"name":"id","type":"long"}]}"#;
    let text = r#"{"type":"record","name":"Event","namespace":"n","fields":[
        {"name":"user","type":["null","User"]},{"name":"ts","type":"long"}]}"#;
    register(&broker, "user", SchemaType::Avro, user).await;
    let references = vec![Reference { name: "n.User".into(), subject: "user".into(), version: 1 }];
    let schema = NewSchema { kind: SchemaType::Avro, text: text.into(), references };
    let id = register_with(&broker, "events-value", schema).await;
    let parsed = AvroSchema::parse(text, [user].into_iter()).unwrap();
    let value = framed(id, &encode(&parsed, &json!({"user": {"id": 5}, "ts": BASE_MS})).unwrap());
    let columns = [("user.id", "BIGINT"), ("user", "VARCHAR")];
    let decoded = decode(&stream(&broker, StreamFormat::Avro, &columns), std::slice::from_ref(&value));
    assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[5]);
    for (subject, permanent) in [("events-value", false), ("events-value", true)] {
        let deletion = Deletion { version: None, permanent };
        broker.schemas().change(|state| state.delete(subject, deletion).map_err(fault)).await.unwrap();
    }
    let decoded = decode(&stream(&broker, StreamFormat::Avro, &columns), &[value]);
    assert_eq!((rules(&decoded), decoded.rows.num_rows()), (Vec::new(), 1));
    broker.stop().await.unwrap();
}
