//! Streams over Protobuf, by confluent-kafka's own serializer and with a schema that evolves, and over CSV, by Python's own
//! writer: views, SQL, rejected records and the lake's files, with a kill -9 in between. Then over Protobuf and Avro of producers
//! without a registry, by schemas that the streams have.

use crate::support::scripts::{json_of, python};
use crate::support::server::{Server, millpond};
use crate::support::{Scratch, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const CONFIG: &str = r#"
topics = [{ name = "logs", partitions = 2 }, { name = "lines", partitions = 2 }]

[[streams]]
name = "logs"
topic = "logs"
format = "protobuf"
event_time = "at"
lateness = "1d"
columns = [
  { name = "id", type = "BIGINT", required = true },
  { name = "level", type = "VARCHAR", required = true },
  { name = "tags", type = "VARCHAR[]" },
  { name = "labels", type = "VARCHAR" },
  { name = "city", type = "VARCHAR", from = "place.city" },
  { name = "retries", type = "BIGINT", required = true },
  { name = "price", type = "DOUBLE" },
  { name = "team", type = "VARCHAR" },
  { name = "shard", type = "BIGINT" },
  { name = "at", type = "TIMESTAMP", required = true },
]

[[views]]
sql = "CREATE MATERIALIZED VIEW by_level AS SELECT level, count(*) AS n, count(team) AS teams, sum(retries) AS retries, sum(price) AS price, count(shard) AS shards FROM logs GROUP BY level"
"#;

/// The stream of lines is declared while the server runs, and one of both.
const LINES: &str = "CREATE STREAM lines (id BIGINT NOT NULL, note VARCHAR, price DECIMAL(10,2), at TIMESTAMP NOT NULL)
    WITH (format = 'csv', delimiter = '|', null_text = '\\N', event_time = 'at', lateness = '1 day');
    CREATE MATERIALIZED VIEW by_note AS SELECT note, count(*) AS n, count(price) AS priced, sum(price) AS price FROM lines GROUP BY note;
    CREATE STREAM everything AS SELECT id, 'log' AS origin, at FROM logs UNION ALL SELECT id, 'line' AS origin, at FROM lines;
    CREATE MATERIALIZED VIEW by_origin AS SELECT origin, count(*) AS n, sum(id) AS ids FROM everything GROUP BY origin";

fn client(server: &Server, mode: &str, numbers: &[i64]) -> Value {
    let mut command = python("clients/formats.py");
    let registry = server.http.url("/registry");
    json_of(command.args([mode, &server.kafka, &registry]).args(numbers.iter().map(i64::to_string)))
}

fn assert_views(server: &Server, count: i64) {
    let of = |rest: i64, by: i64| (0..count).filter(move |number| number % by == rest);
    let is_second = |number: &i64| *number >= 60 && (number % 2 == 1 || *number >= 120);
    let mut wanted = Vec::new();
    for (level, rest) in [("ERROR", 2), ("INFO", 0), ("WARN", 1)] {
        let teams = of(rest, 3).filter(|number| is_second(number) && number % 3 != 0).count();
        let retries: i64 = of(rest, 3).map(|number| number % 4).sum();
        let price: f64 = of(rest, 3).filter(|number| number % 5 != 0).map(|number| number as f64 / 4.0).sum();
        let shards = of(rest, 3).filter(is_second).count();
        wanted.push(json!([level, of(rest, 3).count(), teams, retries.to_string(), price, shards]));
    }
    assert_eq!(server.http.get("/v1/views/by_level?order=level&wait=20s")["rows"], json!(wanted));
    let mut wanted = Vec::new();
    for (note, rest) in [("", 3), ("pipe|inside", 2), ("plain", 0), ("two\nlines", 4), ("with \"quotes\"", 1)] {
        let priced: Vec<i64> = of(rest, 5).filter(|number| number % 7 != 0).collect();
        let cents: i64 = priced.iter().sum();
        let price = format!("{}.{:02}", cents / 100, cents % 100);
        wanted.push(json!([note, of(rest, 5).count(), priced.len(), price]));
    }
    assert_eq!(server.http.get("/v1/views/by_note?order=note&wait=20s")["rows"], json!(wanted));
    let ids = (count * (count - 1) / 2).to_string();
    let wanted = json!([["line", count, ids], ["log", count, ids]]);
    assert_eq!(server.http.get("/v1/views/by_origin?order=origin&wait=20s")["rows"], wanted);
}

#[test]
fn protobuf_and_csv_become_rows() {
    let scratch = Scratch::new("formats");
    let mut server = Server::with_config(&scratch, CONFIG);
    server.http.post("/v1/sql", &json!({ "sql": LINES }));
    let first = client(&server, "write", &[0, 60]);
    assert_eq!(first, json!({"versions": [1], "type": "PROTOBUF"}));
    assert_views(&server, 60);
    server.kill9();
    server.start_again();
    // Fields arrive mid-stream, in records between those of the first version.
    let second = client(&server, "write", &[60, 60]);
    assert_eq!(second["versions"], json!([1, 2]));
    assert_views(&server, 120);
    let rows = server.http.sql(
        "SELECT id, level, tags, labels, city, retries, price, team, shard FROM logs WHERE id IN (0, 61) ORDER BY id",
    );
    let wanted = json!([
        [0, "INFO", [], "{}", null, 0, null, null, null],
        [61, "WARN", ["t1", "all"], "{\"b\":61,\"z\":0}", "Bern", 1, 15.25, "team 1", 0]
    ]);
    assert_eq!(json!(rows), wanted);
    let tagged = server.http.sql("SELECT count(*) FROM logs WHERE array_has(tags, 't1')");
    assert_eq!(tagged, [vec![json!(48)]]);
    bad_records(&server);
    over_http(&server);
    for topic in ["logs", "lines"] {
        server.http.post(&format!("/v1/lake/{topic}/flush"), &Value::Null);
    }
    let mut lake = python("clients/formats.py");
    let lake = json_of(lake.arg("lake").arg(server.lake_dir()).args(["-", "121"]));
    assert_eq!(lake, json!({"mistakes": [], "logs": 121, "lines": 121}));
    for what in [&["view", "--all"][..], &["lake"]] {
        let verified = millpond().arg("verify").args(what).args(["--http", server.http.address()]).output().unwrap();
        assert!(verified.status.success(), "{verified:?}");
    }
    assert!(server.stop().success());
}

/// What no serializer wrote is kept with the reason.
fn bad_records(server: &Server) {
    let sent = client(server, "raw", &[]);
    for topic in ["logs", "lines"] {
        eventually(&format!("bad records of {topic} are rejected"), Duration::from_secs(20), || {
            let rejected = server.http.get(&format!("/v1/topics/{topic}.rejected"))["records"].clone();
            if rejected == sent[topic] { Ok(()) } else { Err(format!("{rejected} rejected")) }
        });
    }
    let text = server.http.text("/v1/topics/logs.rejected/records?limit=10");
    for part in ["schema_prefix", "use.deprecated.format", "within a number", "is not in the registry"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = server.http.text("/v1/topics/lines.rejected/records?limit=10");
    for part in ["the record has 2 fields, the stream 4 columns", "wanted an integer", "the closing quote is missing"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// JSON over HTTP becomes a record in the stream's own format: the 121st event.
fn over_http(server: &Server) {
    let event = json!({
        "id": 120, "level": "INFO", "labels": {}, "at": "2026-11-20T10:02:00.120Z", "tags": []
    });
    let line = json!({"id": 120, "note": "plain", "price": 1.2, "at": "2026-11-20T10:02:00.120Z"});
    for (topic, value) in [("logs", event), ("lines", line)] {
        let records = json!({"records": [{"key": "120", "value": value}]});
        let answer = server.http.post(&format!("/v1/topics/{topic}/records"), &records);
        assert_eq!(answer["accepted"], 1, "{answer}");
    }
    let (status, text) =
        server.http.try_post("/v1/topics/logs/records", &json!({"value": {"id": 121, "level": "LOUD"}})).unwrap();
    assert!(status == 422 && text.contains("one of INFO, WARN, ERROR"), "{status} {text}");
    assert_views(server, 121);
}

/// Producers without a registry: the schema is in files that import each other, or in SQL.
const PLAIN: &str = r#"
topics = [{ name = "logs", partitions = 2 }, { name = "readings", partitions = 2 }]

[[streams]]
name = "logs"
topic = "logs"
format = "protobuf"
schema_file = "protos/org/log.proto"
message = "org.example.Log"
event_time = "at"
lateness = "1d"
columns = [
  { name = "id", type = "BIGINT", required = true },
  { name = "level", type = "VARCHAR", required = true },
  { name = "city", type = "VARCHAR", from = "place.city" },
  { name = "price", type = "DOUBLE" },
  { name = "at", type = "TIMESTAMP", required = true },
]

[[views]]
sql = "CREATE MATERIALIZED VIEW by_level AS SELECT level, count(*) AS n, count(city) AS cities, sum(price) AS price FROM logs GROUP BY level"
"#;

const LOG: &str = r#"syntax = "proto3"; package org.example;
import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto"; import "org/level.proto";
message Other {}
message Log {
  message Place { string city = 1; }
  int64 id = 1; Level level = 2; repeated string tags = 3; map<string, int64> labels = 4; Place place = 5; int32 retries = 6;
  google.protobuf.DoubleValue price = 7; google.protobuf.Timestamp at = 8;
}"#;
/// The last symbol comes later.
const LEVELS: [&str; 2] = ["INFO = 0; WARN = 1;", "INFO = 0; WARN = 1; ERROR = 2;"];

const READING: &str = r#"{"type": "record", "name": "Reading", "namespace": "org.example", "fields": [
  {"name": "id", "type": "long"}, {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["INFO", "WARN", "ERROR"]}},
  {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}], "default": null},
  {"name": "place", "type": ["null", {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]}], "default": null},
  {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;

fn readings(name: &str, id: &str) -> String {
    format!(
        "CREATE STREAM {name} ({id} BIGINT NOT NULL, kind VARCHAR NOT NULL, price DECIMAL(10,2), city VARCHAR FROM 'place.city', tags VARCHAR[], at TIMESTAMP NOT NULL)
         WITH (topic = 'readings', format = 'avro', schema = '{READING}', event_time = 'at', lateness = '1 day')"
    )
}

fn write_levels(scratch: &Scratch, levels: &str) {
    let text = format!("syntax = \"proto3\"; package org.example; enum Level {{ {levels} }}");
    scratch.write("protos/org/level.proto", &text);
}

/// What both views are of the events 0 to `count`; `last` is the level that has a name only later.
fn assert_plain(server: &Server, count: i64, last: &str) {
    let of = |rest: i64| (0..count).filter(move |number| number % 3 == rest);
    let mut levels = [("INFO", 0), ("WARN", 1), (last, 2)];
    levels.sort_unstable();
    let wanted = levels.map(|(level, rest)| {
        let cities = of(rest).filter(|number| number % 6 != 0).count();
        let price: f64 = of(rest).filter(|number| number % 5 != 0).map(|number| number as f64 / 4.0).sum();
        json!([level, of(rest).count(), cities, price])
    });
    assert_eq!(server.http.get("/v1/views/by_level?order=level&wait=20s")["rows"], json!(wanted));
    let wanted = [("ERROR", 2), ("INFO", 0), ("WARN", 1)].map(|(kind, rest)| {
        let cities = of(rest).filter(|number| number % 4 != 0).count();
        let cents: i64 = of(rest).filter(|number| number % 7 != 0).sum();
        json!([kind, of(rest).count(), cities, format!("{}.{:02}", cents / 100, cents % 100)])
    });
    assert_eq!(server.http.get("/v1/views/by_kind?order=kind&wait=20s")["rows"], json!(wanted));
}

#[test]
fn records_without_a_registry_are_read_by_the_schema_of_their_stream() {
    let scratch = Scratch::new("plain-formats");
    scratch.write("protos/org/log.proto", LOG);
    write_levels(&scratch, LEVELS[0]);
    let mut server = Server::with_config(&scratch, PLAIN);
    let view = "CREATE MATERIALIZED VIEW by_kind AS SELECT kind, count(*) AS n, count(city) AS cities, sum(price) AS price FROM readings GROUP BY kind";
    server.http.post("/v1/sql", &json!({ "sql": format!("{}; {view}", readings("readings", "id")) }));
    let produce = |server: &Server, first: i64, count: i64| {
        let mut command = python("clients/formats.py");
        let command = command.args(["plain", &server.kafka, READING, &first.to_string(), &count.to_string()]);
        assert_eq!(json_of(command), json!({ "sent": count }));
    };
    produce(&server, 0, 60);
    assert_plain(&server, 60, "2");
    server.kill9();
    // With another schema it is another stream: what was counted before is counted again.
    write_levels(&scratch, LEVELS[1]);
    server.start_again();
    assert_plain(&server, 60, "ERROR");
    produce(&server, 60, 60);
    assert_plain(&server, 120, "ERROR");
    assert_eq!(server.http.get("/registry/subjects"), json!([]));
    plain_mistakes(&server);
    let log = json!({"id": 120, "level": "INFO", "at": "2026-11-20T10:02:00.120Z"});
    let reading = json!({"id": 120, "kind": "INFO", "price": "1.20", "at": "2026-11-20T10:02:00.120Z"});
    for (topic, value) in [("logs", log), ("readings", reading)] {
        let records = json!({"records": [{"key": "120", "value": value}]});
        let answer = server.http.post(&format!("/v1/topics/{topic}/records"), &records);
        assert_eq!(answer["accepted"], 1, "{answer}");
    }
    assert_plain(&server, 121, "ERROR");
    for topic in ["logs", "readings"] {
        server.http.post(&format!("/v1/lake/{topic}/flush"), &Value::Null);
    }
    for what in [&["view", "--all"][..], &["lake"]] {
        let verified = millpond().arg("verify").args(what).args(["--http", server.http.address()]).output().unwrap();
        assert!(verified.status.success(), "{verified:?}");
    }
    assert!(server.stop().success());
}

/// A record as a registry's serializer writes it, and declarations that cannot be.
fn plain_mistakes(server: &Server) {
    assert_eq!(client(server, "framed", &[]), json!({"left": 0}));
    let hint = "if serializers of the registry write this topic";
    for topic in ["logs", "readings"] {
        eventually(&format!("a framed record of {topic} is rejected"), Duration::from_secs(20), || {
            let text = server.http.text(&format!("/v1/topics/{topic}.rejected/records?limit=10"));
            if text.contains(hint) { Ok(()) } else { Err(text) }
        });
        let framed = json!({"records": [{"key": "x", "value_base64": "AAAAAAcAEAE="}]});
        let (status, text) = server.http.try_post(&format!("/v1/topics/{topic}/records"), &framed).unwrap();
        assert!(status == 422 && text.contains(hint), "{status} {text}");
    }
    let described = server.http.sql("DESCRIBE readings");
    assert!(described.contains(&vec![json!("property"), json!("schema"), json!(READING)]), "{described:?}");
    let (_, text) = server.http.try_post("/v1/sql", &json!({ "sql": readings("more", "idd") })).unwrap();
    assert!(text.contains("column 'idd': the schema has no field 'idd', did you mean 'id'?"), "{text}");
    let (_, text) = server
        .http
        .try_post("/v1/sql", &json!({ "sql": readings("more", "id").replace("format = 'avro', ", "") }))
        .unwrap();
    assert!(text.contains("schema goes with format = 'avro' or 'protobuf'"), "{text}");
}
