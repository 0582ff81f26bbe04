//! Records without a prefix, decoded by the schema that the stream declares.

use super::avro::{decode, framed, rules};
use super::protobuf::{shown, unhex};
use super::{BASE_MS, column};
use crate::{OwnSchema, Stream, StreamConfig, StreamFormat};

const AVRO: &str = r#"{"type":"record","name":"Reading","namespace":"n","fields":[
    {"name":"id","type":"long"},{"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"]}},
    {"name":"place","type":["null",{"type":"record","name":"Place","fields":[{"name":"city","type":"string"}]}],"default":null},
    {"name":"tags","type":{"type":"array","items":"string"}},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

/// The message imports its parts, and is not alone in its file.
const PROTO: &str = r#"syntax = "proto3"; package n; import "google/protobuf/timestamp.proto"; import "parts/kinds.proto";
    message Place { string city = 1; }
    message Reading { sint64 id = 1; parts.Kind kind = 2; Place place = 3; repeated string tags = 4; google.protobuf.Timestamp ts = 5; }"#;
const KINDS: &str = r#"syntax = "proto3"; package parts; enum Kind { A = 0; B = 1; }"#;

/// What fastavro 1.13.1 (`schemaless_writer`) and protobuf 7.36.2 for Python wrote of the same two readings. The first of
/// Avro begins with a zero, which is its id.
const GOLDEN: [(StreamFormat, [&str; 2]); 2] = [
    (StreamFormat::Avro, ["000202084265726e040278000080b4b086bf68", "0d00000082b4b086bf68"]),
    (StreamFormat::Protobuf, ["10011a060a044265726e22017822002a0608a0b480d806", "080d2a0a08a0b480d80610c0843d"]),
];

fn config(format: StreamFormat) -> StreamConfig {
    let schema = match format {
        StreamFormat::Avro => OwnSchema { text: AVRO.into(), ..OwnSchema::default() },
        _ => OwnSchema {
            text: PROTO.into(),
            imports: vec![("parts/kinds.proto".into(), KINDS.into())],
            message: Some("n.Reading".into()),
        },
    };
    let mut city = column("city", "VARCHAR", false);
    city.from = Some("place.city".into());
    StreamConfig {
        name: "s".into(),
        topic: "events".into(),
        format,
        schema: Some(schema),
        columns: vec![
            column("id", "BIGINT", true),
            column("kind", "VARCHAR", true),
            city,
            column("tags", "VARCHAR[]", true),
            column("ts", "TIMESTAMP", true),
        ],
        event_time: "ts".into(),
        ..StreamConfig::default()
    }
}

#[test]
fn what_other_writers_wrote_without_a_prefix_is_read() {
    for (format, values) in GOLDEN {
        let stream = Stream::new(&config(format)).unwrap();
        let values = values.map(unhex);
        let decoded = decode(&stream, &values);
        assert_eq!(rules(&decoded), [], "{format:?}: {:?}", decoded.rejected);
        let wanted =
            [["0", "B", "Bern", "[x, ]", "2026-11-20T10:00:00Z"], ["-7", "A", "∅", "[]", "2026-11-20T10:00:00.001Z"]];
        assert_eq!(shown(&decoded), wanted, "{format:?}");
        // JSON that comes over HTTP is written as they write it.
        let json = r#"{"id": -7, "kind": "A", "place": null, "tags": [], "ts": "2026-11-20T10:00:00.001Z"}"#;
        assert_eq!(stream.encode(json).unwrap(), values[1], "{format:?}");
        let error = stream.encode(r#"{"id": 1, "more": 2}"#).unwrap_err();
        assert!(error.contains("'more' is not in the schema: take it away, or add it"), "{error}");
    }
}

#[test]
fn what_is_written_otherwise_is_refused_and_the_reason_says_what_it_may_be() {
    for (format, values) in GOLDEN {
        let stream = Stream::new(&config(format)).unwrap();
        let good = unhex(values[0]);
        let rule = if format == StreamFormat::Avro { "avro" } else { "protobuf" };
        let long = [&good[..], &[0]].concat();
        // Of Protobuf a path of one zero stands behind the id.
        let of_registry = if format == StreamFormat::Avro { good.clone() } else { [&[0][..], &good].concat() };
        let values = [good[..good.len() - 1].to_vec(), long, framed(7, &of_registry), br#"{"id": 1}"#.to_vec(), good];
        let decoded = decode(&stream, &values);
        assert_eq!(rules(&decoded), [(0, rule), (1, rule), (2, rule), (3, rule)], "{:#?}", decoded.rejected);
        assert_eq!(decoded.rows.num_rows(), 1, "{format:?}");
        let hint = "if serializers of the registry write this topic";
        for (rejected, value) in decoded.rejected.iter().zip(&values) {
            assert_eq!(rejected.reason.contains(hint), value[0] == 0, "{}", rejected.reason);
        }
    }
}

/// A record that breaks its types is told as one of any other format.
#[test]
fn times_that_are_too_far_ahead_are_refused_too() {
    let mut config = config(StreamFormat::Avro);
    config.max_ahead_ms = 0;
    let decoded = decode(&Stream::new(&config).unwrap(), &GOLDEN[0].1.map(unhex));
    assert_eq!(rules(&decoded), [(1, "max_ahead")]);
    assert!(decoded.rejected[0].reason.contains(&format!("event time {}", BASE_MS + 1)));
}

#[test]
fn what_cannot_be_is_said_at_the_declaration() {
    let with = |format, change: &dyn Fn(&mut StreamConfig, &mut OwnSchema)| {
        let mut config = config(format);
        let mut schema = config.schema.take().unwrap();
        change(&mut config, &mut schema);
        Stream::new(&StreamConfig { schema: Some(schema), ..config }).err().unwrap_or_default().join("\n")
    };
    type Change = fn(&mut StreamConfig, &mut OwnSchema);
    let avro: [(Change, &str); 6] = [
        (|_, schema| schema.text.push('}'), "stream s: the schema cannot be used: the schema is not JSON"),
        (|_, schema| schema.text = "\"long\"".into(), "the schema is not a record"),
        (|_, schema| schema.text = schema.text.replace("\"string\"", "\"strin\""), "the type 'strin' is not defined"),
        (
            |config, _| config.columns[1].name = "kin".into(),
            "column 'kin': the schema has no field 'kin', did you mean 'kind'?",
        ),
        (|config, _| config.columns[2].from = Some("tags.city".into()), "the schema has no field 'tags.city'"),
        (|config, _| config.format = StreamFormat::Csv, "it goes with the formats avro and protobuf"),
    ];
    for (change, part) in avro {
        let mistakes = with(StreamFormat::Avro, &change);
        assert!(mistakes.contains(part), "wanted {part:?}: {mistakes}");
    }
    let protobuf: [(Change, &str); 6] = [
        (|_, schema| schema.text.push('}'), "the schema cannot be used: "),
        (|_, schema| schema.imports.clear(), "parts/kinds.proto"),
        (|_, schema| schema.message = None, "several messages, name one in message: Place, Reading"),
        (|_, schema| schema.message = Some("n.Readin".into()), "no message 'n.Readin', did you mean 'n.Reading'?"),
        (|_, schema| schema.text = KINDS.into(), "no message 'n.Reading'"),
        (|config, _| config.columns[2].from = Some("place.cit".into()), "the schema has no field 'place.cit'"),
    ];
    for (change, part) in protobuf {
        let mistakes = with(StreamFormat::Protobuf, &change);
        assert!(mistakes.contains(part), "wanted {part:?}: {mistakes}");
    }
    // The name may leave the package out, and where there is one message no name is needed.
    let short: Change = |_, schema| schema.message = Some("Reading".into());
    let only: Change = |_, schema| {
        schema.text = schema
            .text
            .replace("message Place { string city = 1; }", "")
            .replace("id = 1;", "id = 1; message Place { string city = 1; }");
        schema.message = None;
    };
    for change in [short, only] {
        assert_eq!(with(StreamFormat::Protobuf, &change), "");
    }
}

/// Views over another schema are other views.
#[test]
fn the_schema_is_part_of_the_definition() {
    let definition = |change: fn(&mut OwnSchema)| {
        let mut config = config(StreamFormat::Protobuf);
        change(config.schema.as_mut().unwrap());
        Stream::new(&config).unwrap().definition(&|_| true)
    };
    let all = [
        definition(|_| {}),
        definition(|schema| schema.text = schema.text.replace("sint64 id", "int64 id")),
        definition(|schema| schema.imports[0].1 = KINDS.replace("B = 1", "C = 1")),
        definition(|schema| schema.message = Some("Reading".into())),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{one}");
    }
}
