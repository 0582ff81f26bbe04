//! Protobuf records, decoded by the id of their writer's schema and the path to their message.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use broker::{NewSchema, Reference, SchemaType};
use serde_json::json;

use super::avro::{check_refusals, decode, framed, register, register_with, rules, stream};
use super::{BASE_MS, open_broker};
use crate::protobuf::{encode, message_at, proto_file};
use crate::{Decoded, StreamFormat};

/// All declared columns as text, null as "∅".
pub(super) fn shown(decoded: &Decoded) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("∅");
    let declared = decoded.rows.num_columns() - crate::META_COLUMNS.len();
    let columns: Vec<_> = decoded.rows.columns()[..declared]
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
        .collect();
    (0..decoded.rows.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect())
        .collect()
}

/// A value of the first message of a schema as a serializer writes it.
fn proto(id: u32, text: &str, value: &serde_json::Value) -> Vec<u8> {
    let message = message_at(&proto_file(text, &[]).unwrap(), &[]).unwrap();
    framed(id, &[&[0][..], &encode(&message, value).unwrap()].concat())
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

const ALL: &str = r#"syntax = "proto3";
package n;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/duration.proto";
message All {
  bool flag = 1; sint32 small = 2; float ratio = 3; uint64 big = 4; fixed64 wide = 5; sfixed32 narrow = 6; Kind kind = 7;
  string name = 8; bytes raw = 9; User user = 10; repeated string tags = 11; repeated int32 numbers = 12;
  map<string, double> scores = 13; google.protobuf.Timestamp ts = 14; google.protobuf.Int64Value maybe = 15;
  optional int64 chance = 16; oneof pick { string text = 17; int64 number = 18; User owner = 19; }
  google.protobuf.Struct extra = 20; google.protobuf.Duration took = 21; repeated User users = 22; int64 id = 23;
  double score = 1000;
}
message User { int64 id = 1; User boss = 2; optional string mail = 3; }
enum Kind { UNKNOWN = 0; PLAY = 1; LIKE = 2; }"#;

/// What the package protobuf 7.36.2 for Python writes of an `All`: with everything in it; with nothing but a time; with a
/// symbol of a later version and another member of the oneof.
const GOLDEN: [&str; 3] = [
    "0801100d1d0000003f20ffffffffffffffffff0129000000000001000035fbffffff38024204c38422784a0300ff1052080809120408041a00\
     5a01785a0379227a5a00620d01ffffffffffffffffff01ac026a0c0a016111000000000000d0bf6a0c0a016211000000000000f83f720b08a0\
     b480d80610c0a9d33a7a00800100900100a2012a0a280a016b122332210a0911000000000000f03f0a0208000a0220010a0c2a0a0a080a017a\
     12031a0173aa011608ffffffffffffffffff011080b6ca91feffffffff01b201020801b20100b801f7ffffffffffffffff01c13e0000000000\
     0002c0",
    "720608a0b480d806",
    "3807720a08a0b480d80610c0843d9a01020803",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_another_writer_wrote_finds_its_columns() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let id = register(&broker, "events-value", SchemaType::Protobuf, ALL).await;
    // Column, type, and the three values.
    let table = [
        ("flag", "BOOLEAN", ["true", "false", "false"]),
        ("small", "BIGINT", ["-7", "0", "0"]),
        ("ratio", "DOUBLE", ["0.5", "0.0", "0.0"]),
        ("big", "DECIMAL(20,0)", ["18446744073709551615", "0", "0"]),
        ("wide", "BIGINT", ["1099511627776", "0", "0"]),
        ("narrow", "DECIMAL(5,2)", ["-5.00", "0.00", "0.00"]),
        ("kind", "VARCHAR", ["LIKE", "UNKNOWN", "7"]),
        ("name", "VARCHAR", ["Ä\"x", "", ""]),
        ("raw", "VARCHAR", ["AP8Q", "", ""]),
        ("user", "VARCHAR", [r#"{"id":9,"boss":{"id":4,"boss":null,"mail":""},"mail":null}"#, "∅", "∅"]),
        ("user.id", "BIGINT", ["9", "∅", "∅"]),
        ("user.boss.id", "BIGINT", ["4", "∅", "∅"]),
        ("user.mail", "VARCHAR", ["∅", "∅", "∅"]),
        ("tags", "VARCHAR[]", ["[x, y\"z, ]", "[]", "[]"]),
        ("numbers", "VARCHAR", ["[1,-1,300]", "[]", "[]"]),
        ("scores", "VARCHAR", [r#"{"a":-0.25,"b":1.5}"#, "{}", "{}"]),
        ("maybe", "BIGINT", ["0", "∅", "∅"]),
        ("chance", "BIGINT", ["0", "∅", "∅"]),
        ("text", "VARCHAR", ["∅", "∅", "∅"]),
        ("number", "BIGINT", ["0", "∅", "∅"]),
        ("owner.id", "BIGINT", ["∅", "∅", "3"]),
        ("extra", "VARCHAR", [r#"{"k":[1.0,null,true,{"z":"s"}]}"#, "∅", "∅"]),
        ("took", "VARCHAR", ["-1.5s", "∅", "∅"]),
        ("users", "VARCHAR", [r#"[{"id":1,"boss":null,"mail":null},{"id":0,"boss":null,"mail":null}]"#, "[]", "[]"]),
        ("id", "BIGINT", ["-9", "0", "0"]),
        ("score", "DOUBLE", ["-2.25", "0.0", "0.0"]),
        ("absent", "BIGINT", ["∅", "∅", "∅"]),
    ];
    let columns: Vec<(&str, &str)> = table.iter().map(|(name, sql_type, _)| (*name, *sql_type)).collect();
    let values: Vec<Vec<u8>> = GOLDEN.iter().map(|hex| framed(id, &[&[0][..], &unhex(hex)].concat())).collect();
    let decoded = decode(&stream(&broker, StreamFormat::Protobuf, &columns), &values);
    assert_eq!(rules(&decoded), [], "{:?}", decoded.rejected);
    let shown = shown(&decoded);
    for (row, time) in ["10:00:00.123Z", "10:00:00Z", "10:00:00.001Z"].into_iter().enumerate() {
        for (at, (name, _, wanted)) in table.iter().enumerate() {
            assert_eq!(shown[row][at], wanted[row], "{name} of row {row}");
        }
        assert_eq!(shown[row][table.len()], format!("2026-11-20T{time}"));
    }
    // A symbol is its number where a number is wanted.
    let decoded = decode(&stream(&broker, StreamFormat::Protobuf, &[("kind", "BIGINT")]), &values);
    assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[2, 0, 7]);
    // A default that is none for the column is null; what was written must fit.
    let decoded = decode(&stream(&broker, StreamFormat::Protobuf, &[("name", "DATE")]), &values);
    assert_eq!((rules(&decoded), decoded.rows.num_rows()), (vec![(0, "type")], 2));
    assert_eq!(decoded.rows.column(0).null_count(), 2);
    broker.stop().await.unwrap();
}

const FIRST: &str = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto";
    message Event { int64 id = 1; google.protobuf.Timestamp ts = 2; string note = 5; }"#;
/// Fields arrive, one is renamed, and another message stands before.
const SECOND: &str = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto";
    message Event { optional string team = 3; int64 id = 1; google.protobuf.Timestamp ts = 2; int32 plays = 4; string memo = 5;
        message Inner { int64 id = 1; google.protobuf.Timestamp ts = 2; } }
    message Other { int64 plays = 9; google.protobuf.Timestamp ts = 2; }"#;

#[tokio::test(flavor = "multi_thread")]
async fn records_of_versions_and_types_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let first = register(&broker, "events-value", SchemaType::Protobuf, FIRST).await;
    let second = register(&broker, "events-value", SchemaType::Protobuf, SECOND).await;
    let columns = [("id", "BIGINT"), ("team", "VARCHAR"), ("plays", "BIGINT"), ("note", "VARCHAR")];
    let stream = stream(&broker, StreamFormat::Protobuf, &columns);
    let file = proto_file(SECOND, &[]).unwrap();
    let of = |path: &[u32], prefix: &[u8], value| {
        let message = message_at(&file, path).unwrap();
        framed(second, &[prefix, &encode(&message, &value).unwrap()].concat())
    };
    let mut values = Vec::new();
    for _ in 0..20 {
        values.push(proto(first, FIRST, &json!({"id": 1, "ts": BASE_MS, "note": "n"})));
        values.push(proto(second, SECOND, &json!({"id": 2, "ts": BASE_MS, "team": "", "memo": "m"})));
        values.push(proto(second, SECOND, &json!({"ts": BASE_MS, "plays": 3})));
        values.push(of(&[1], &[2, 2], json!({"ts": BASE_MS, "plays": 4})));
        values.push(of(&[0, 0], &[4, 0, 0], json!({"ts": BASE_MS, "id": 5})));
    }
    let decoded = decode(&stream, &values);
    assert_eq!(rules(&decoded), [], "{:?}", decoded.rejected);
    let wanted =
        [["1", "∅", "∅", "n"], ["2", "", "0", "∅"], ["0", "∅", "3", "∅"], ["∅", "∅", "4", "∅"], ["5", "∅", "∅", "∅"]];
    for (row, shown) in shown(&decoded).into_iter().enumerate() {
        assert_eq!(shown[..4], wanted[row % 5], "row {row}");
    }
    broker.stop().await.unwrap();
}

/// One record each: the rule it breaks.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_of_its_schema_is_refused_with_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let id = register(&broker, "events-value", SchemaType::Protobuf, FIRST).await;
    let text = r#"syntax = "proto3"; message Event { string id = 1; string ts = 2; }"#;
    let other = register(&broker, "other-value", SchemaType::Protobuf, text).await;
    let json_id = register(&broker, "json-value", SchemaType::Json, r#"{"type":"object"}"#).await;
    let none = register(&broker, "none-value", SchemaType::Protobuf, r#"syntax = "proto3"; enum E { A = 0; }"#).await;
    let stream = stream(&broker, StreamFormat::Protobuf, &[("id", "BIGINT"), ("note", "VARCHAR")]);
    let good = proto(id, FIRST, &json!({"id": 1, "ts": BASE_MS}));
    let with = |bytes: &[u8]| [&good[..], bytes].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (good.clone(), ""),
        (br#"{"id": 1, "ts": 1795168800000}"#.to_vec(), "schema_prefix"),
        (vec![0, 0, 0, 0], "schema_prefix"),
        (framed(99, &good[5..]), "schema_id"),
        (framed(json_id, b"\0"), "schema_id"),
        (framed(none, b"\0"), "schema_id"),
        (framed(id, &[2, 2]), "schema_id"),
        (framed(id, &[]), "protobuf"),
        (framed(id, &[1, 0]), "protobuf"),
        (good[..good.len() - 1].to_vec(), "protobuf"),
        (with(&[0x0a, 1, b'x']), "protobuf"),
        (with(&[0x2a, 1, 0xff]), "protobuf"),
        (with(&[0x0f]), "protobuf"),
        (proto(other, text, &json!({"id": "x", "ts": "2026-11-20T10:00:00Z"})), "type"),
        (proto(other, text, &json!({"id": "7", "ts": "2026-11-20T10:00:00Z"})), "type"),
        (framed(id, &[0]), "required"),
        (proto(other, text, &json!({"id": ""})), "required"),
        (proto(id, FIRST, &json!({"ts": BASE_MS + 3_600_001})), "max_ahead"),
        (framed(id, &[0, 0x12, 10, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), "type"),
        (good.clone(), ""),
    ];
    assert_eq!(check_refusals(&stream, &cases).rows.num_rows(), 2);
    broker.stop().await.unwrap();
}

/// Bytes that no serializer wrote end in a refusal, soon and without much memory.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let id = register(&broker, "events-value", SchemaType::Protobuf, ALL).await;
    let mut deep = Vec::new();
    for _ in 0..2_000 {
        let mut outer = vec![0x12];
        let length = deep.len();
        outer.extend([length as u8 & 0x7f | 0x80, (length >> 7) as u8 & 0x7f | 0x80, (length >> 14) as u8]);
        outer.append(&mut deep);
        deep = outer;
    }
    let length = deep.len();
    let user = [&[0, 0x52, length as u8 & 0x7f | 0x80, (length >> 7) as u8][..], &deep].concat();
    let many = [&[0][..], &[0xb2, 0x01, 0x00].repeat(600_000)].concat();
    let large = [&[0][..], &[0xb2, 0x01, 0x00].repeat(1_500_000)].concat();
    let columns = [("user", "VARCHAR"), ("users", "VARCHAR"), ("user.boss.boss.id", "BIGINT")];
    let stream = stream(&broker, StreamFormat::Protobuf, &columns);
    let values: Vec<Vec<u8>> = [&user, &many, &large].iter().map(|bytes| framed(id, bytes)).collect();
    let decoded = decode(&stream, &values);
    assert_eq!(rules(&decoded), [(0, "protobuf"), (1, "protobuf"), (2, "protobuf")]);
    for (rejected, part) in decoded.rejected.iter().zip(["recursion", "as JSON", "more than"]) {
        assert!(rejected.reason.contains(part), "{}", rejected.reason);
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn json_over_http_is_written_with_the_latest_schema() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let columns = [("maybe", "BIGINT"), ("extra", "VARCHAR"), ("kind", "VARCHAR"), ("tags", "VARCHAR[]")];
    let stream = stream(&broker, StreamFormat::Protobuf, &columns);
    assert!(stream.encode("{}").unwrap_err().contains("events-value"));
    register(&broker, "events-value", SchemaType::Protobuf, FIRST).await;
    register(&broker, "events-value", SchemaType::Protobuf, ALL).await;
    let json = r#"{"ts": "2026-11-20T10:00:00.5Z", "maybe": "7", "extra": {"a": [null, 2]}, "kind": 1, "tags": ["x"]}"#;
    let decoded = decode(&stream, &[stream.encode(json).unwrap()]);
    assert_eq!(rules(&decoded), [], "{:?}", decoded.rejected);
    assert_eq!(shown(&decoded), [["7", r#"{"a":[null,2.0]}"#, "PLAY", "[x]", "2026-11-20T10:00:00.500Z"]]);
    for (value, part) in [(r#"{"kind": "NO"}"#, "one of UNKNOWN"), ("{", "not JSON"), (r#"{"ts": "soon"}"#, "ISO 8601")]
    {
        let error = stream.encode(value).unwrap_err();
        assert!(error.contains(part), "{value}: {error}");
    }
    broker.stop().await.unwrap();
}

/// Schemas that import others of the registry, and those that every registry has.
#[tokio::test(flavor = "multi_thread")]
async fn imports_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_broker(dir.path()).await;
    let user = r#"syntax = "proto3"; package p; message User { int64 id = 1; }"#;
    let text = r#"syntax = "proto3"; import "user.proto"; import "google/type/date.proto"; import "confluent/type/decimal.proto";
        message Event { p.User user = 1; google.type.Date day = 2; confluent.type.Decimal price = 3; int64 ts = 4; }"#;
    register(&broker, "user", SchemaType::Protobuf, user).await;
    let references = vec![Reference { name: "user.proto".into(), subject: "user".into(), version: 1 }];
    let schema = NewSchema { kind: SchemaType::Protobuf, text: text.into(), references };
    let id = register_with(&broker, "events-value", schema).await;
    let message = message_at(&proto_file(text, &[("user.proto", user)]).unwrap(), &[]).unwrap();
    let written = |value| framed(id, &[&[0][..], &encode(&message, &value).unwrap()].concat());
    let columns = [("user.id", "BIGINT"), ("day", "DATE"), ("price", "DECIMAL(10,2)")];
    let values = [
        written(json!({"user": {"id": 5}, "day": "2026-02-28", "price": "-12.5", "ts": BASE_MS})),
        written(json!({"user": {}, "ts": BASE_MS})),
    ];
    let decoded = decode(&stream(&broker, StreamFormat::Protobuf, &columns), &values);
    assert_eq!(rules(&decoded), [], "{:?}", decoded.rejected);
    let shown = shown(&decoded);
    assert_eq!(shown[0][..3], ["5", "2026-02-28", "-12.50"]);
    assert_eq!(shown[1][..3], ["0", "∅", "∅"]);
    broker.stop().await.unwrap();
}
