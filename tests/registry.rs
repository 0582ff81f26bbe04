//! The schema registry with confluent-kafka's own serializers and with the calls of kafka-ui; streams in Avro and JSON
//! Schema whose views count right while the schema evolves and the server is killed and stopped in between.

use crate::support::kafka::free_port;
use crate::support::scripts::{json_of, python};
use crate::support::server::{Options, Server};
use crate::support::{Scratch, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const CONFIG: &str = r#"
topics = [{ name = "events", partitions = 2 }, { name = "metrics", partitions = 2 }, { name = "logs", partitions = 2 }]

[[streams]]
name = "events"
topic = "events"
format = "avro"
event_time = "ts"
max_ahead = "365d"
columns = [
  { name = "id", type = "BIGINT", required = true },
  { name = "kind", type = "VARCHAR", required = true },
  { name = "team", type = "VARCHAR" },
  { name = "price", type = "DECIMAL(10,2)" },
  { name = "ts", type = "TIMESTAMP", required = true },
]

[[streams]]
name = "metrics"
topic = "metrics"
format = "json_schema"
event_time = "ts"
max_ahead = "365d"
columns = [{ name = "id", type = "BIGINT", required = true }, { name = "ts", type = "TIMESTAMP", required = true }]

[[views]]
sql = "CREATE MATERIALIZED VIEW by_kind AS SELECT kind, count(*) AS events, count(team) AS teams, sum(price) AS price FROM events GROUP BY kind"

[[views]]
sql = "CREATE MATERIALIZED VIEW metrics_all AS SELECT count(*) AS n, sum(id) AS ids FROM metrics GROUP BY TUMBLE(ts, INTERVAL '1' DAY)"

[[schemas]]
subject = "declared-value"
compatibility = "FULL"
schema = '{"type": "record", "name": "D", "fields": [{"name": "x", "type": "long"}]}'
"#;

struct Registry {
    server: Server,
    url: String,
}

impl Registry {
    fn script(&self, mode: &str, numbers: &[i64]) -> Value {
        let mut command = python("clients/registry.py");
        command.args([mode, &self.server.kafka, &self.url]).args(numbers.iter().map(i64::to_string));
        json_of(&mut command)
    }

    /// What the views must say about the events 0 to `count`, of which `teams` (per kind) have a team.
    fn assert_views(&self, count: i64, has_team: impl Fn(i64) -> bool) {
        let rows = self.server.http.get("/v1/views/by_kind?order=kind&wait=20s")["rows"].clone();
        let mut wanted = Vec::new();
        for (kind, rest) in [("like", 1), ("play", 0), ("share", 2)] {
            let own: Vec<i64> = (0..count).filter(|number| number % 3 == rest).collect();
            let cents: i64 = own.iter().filter(|number| *number % 5 != 0).sum();
            let teams = own.iter().filter(|number| has_team(**number)).count();
            wanted.push(json!([kind, own.len(), teams, format!("{}.{:02}", cents / 100, cents % 100)]));
        }
        assert_eq!(rows, json!(wanted));
        let rows = self.server.http.get("/v1/views/metrics_all?wait=20s")["rows"].clone();
        let sum = (count * (count - 1) / 2).to_string();
        assert_eq!((&rows[0][2], &rows[0][3]), (&json!(count), &json!(sum)), "{rows}");
    }
}

#[test]
fn serializers_register_evolve_and_are_read_back() {
    let scratch = Scratch::new("registry");
    let config = scratch.write("registry.toml", CONFIG);
    let address = format!("127.0.0.1:{}", free_port());
    let options =
        Options { configs: vec![config], args: vec!["--registry".into(), address.clone()], ..Options::default() };
    let mut registry = Registry { server: Server::start_with(&scratch, options), url: format!("http://{address}") };
    let first = registry.script("write", &[1, 0, 60]);
    assert_eq!(first["subjects"], json!(["declared-value", "events-value", "logs-value", "metrics-value"]), "{first}");
    registry.assert_views(60, |_| false);
    registry.server.kill9();
    registry.server.start_again();
    // The optional field arrives mid-stream, in records between those of the first version.
    let second = registry.script("write", &[0, 60, 60]);
    assert_eq!(second["versions"], json!([1, 2]), "{second}");
    let has_team = |number: i64| number >= 60 && number % 2 == 1 && number % 4 != 0;
    registry.assert_views(120, has_team);
    let refused = registry.script("refuse", &[]);
    let wanted = json!({
        "required field fits": false, "required field": [409, 409], "other type fits": false, "other type": [409, 409],
        "not a schema": [422, 42201], "other language": [409, 409], "absent": [404, 40401], "level": "BACKWARD"
    });
    assert_eq!(refused, wanted);
    assert!(registry.server.stop().success());
    registry.server.start_again();
    // The same schemas again keep their ids, now through the HTTP port.
    registry.url = registry.server.http.url("/registry");
    let third = registry.script("write", &[2, 120, 30]);
    assert_eq!((&third["versions"], &third["id"]), (&second["versions"], &second["id"]), "{third}");
    let has_team = move |number: i64| has_team(number) && number < 120 || number >= 120 && number % 4 != 0;
    registry.assert_views(150, has_team);
    let read = registry.script("read", &[150]);
    assert_eq!(read["mistakes"], json!([]), "{read}");
    assert_eq!(read["teams"], json!((0..150).filter(|number| has_team(*number)).count()), "{read}");
    bad_records_and_http(&registry);
}

/// What no serializer wrote is kept with the reason; JSON over HTTP becomes a record that deserializers read.
fn bad_records_and_http(registry: &Registry) {
    let http = &registry.server.http;
    registry.script("raw", &[]);
    let rejected = eventually("the three bad records are rejected", Duration::from_secs(20), || {
        let rejected = http.get("/v1/topics/events.rejected")["records"].as_i64().unwrap_or(0);
        if rejected == 3 { Ok(rejected) } else { Err(format!("{rejected} rejected")) }
    });
    assert_eq!(rejected, 3);
    let value = json!({"id": 150, "kind": "play", "ts": "2026-11-20T12:00:00Z", "price": "1.50", "team": "http"});
    let answer = http.post("/v1/topics/events/records", &json!({"records": [{"key": "150", "value": value}]}));
    assert_eq!(answer["accepted"], 1, "{answer}");
    let (status, text) =
        http.try_post("/v1/topics/events/records", &json!({"value": {"id": 151, "kind": "dance", "ts": 0}})).unwrap();
    assert!(status == 422 && text.contains("one of play, like, share"), "{status} {text}");
    let rows = http.sql("SELECT id, team, price FROM events WHERE id = 150");
    assert_eq!(rows, [vec![json!(150), json!("http"), json!("1.50")]]);
    let read = registry.script("read", &[150]);
    assert_eq!((&read["mistakes"], read["unreadable"].as_i64()), (&json!([]), Some(3)), "{read}");
    let bytes = http.sql("SELECT count(*) FROM events");
    assert_eq!(bytes, [vec![json!(151)]]);
}

/// The calls of kafka-ui's panel, and of its compatibility and deletion buttons.
#[test]
fn kafka_ui_finds_what_it_asks_for() {
    let scratch = Scratch::new("registry-ui");
    let server = Server::with_config(&scratch, CONFIG);
    let http = &server.http;
    assert_eq!(http.get("/registry/subjects"), json!(["declared-value"]));
    let latest = http.get("/registry/subjects/declared-value/versions/latest");
    assert_eq!(
        (&latest["id"], &latest["version"], &latest["subject"]),
        (&json!(1), &json!(1), &json!("declared-value"))
    );
    assert_eq!(latest.get("schemaType"), None, "left out for Avro");
    assert_eq!(http.get("/registry/subjects/declared-value/versions"), json!([1]));
    assert_eq!(http.get("/registry/config"), json!({"compatibilityLevel": "BACKWARD"}));
    assert_eq!(http.get("/registry/config/declared-value"), json!({"compatibilityLevel": "FULL"}));
    assert_eq!(http.try_get("/registry/config/absent").unwrap().0, 404);
    let new =
        json!({"schema": "{\"type\":\"record\",\"name\":\"D\",\"fields\":[]}", "schemaType": "AVRO", "references": []});
    let path = "/registry/compatibility/subjects/declared-value/versions/latest?verbose=true";
    let answer = http.post(path, &new);
    assert_eq!(answer["is_compatible"], false, "{answer}");
    assert!(answer["messages"].to_string().contains("READER_FIELD_MISSING_DEFAULT_VALUE"), "{answer}");
    let (status, text) = http.try_post("/registry/subjects/declared-value/versions", &new).unwrap();
    assert!(status == 409 && text.contains("incompatible with an earlier schema"), "{status} {text}");
    assert_eq!(http.try_get("/registry/no/such/call").unwrap().0, 404);
}
