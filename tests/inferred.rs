//! A stream whose columns Millpond finds in the topic's records: declared over HTTP without any, kept over restarts as it was.

use crate::clients::create_topic;
use crate::support::Scratch;
use crate::support::http::rows;
use crate::support::kafka::run;
use crate::support::server::{Server, millpond};
use crate::support::writer::idempotent;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::time::Duration;

const EVENTS: u64 = 3_000;
const CREATE: &str =
    "CREATE STREAM plays WITH (topic = 'raw_plays', event_time = 'at', lateness = '1 day', max_ahead = '36500 days')";
const DECLARED: &str = "CREATE STREAM plays (id BIGINT, \"trackId\" VARCHAR, price DOUBLE, at TIMESTAMP NOT NULL, day DATE, \
    skipped BOOLEAN, place_country VARCHAR FROM 'place.country', place_geo_lat DOUBLE FROM 'place.geo.lat', tags VARCHAR[], \
    key VARCHAR FROM '_key') WITH (topic = 'raw_plays', event_time = 'at', lateness = '1 day', max_ahead = '36500 days')";

fn event(number: u64) -> String {
    let country = ["FR", "JP", "PE"][(number % 3) as usize];
    json!({
        "id": number,
        "trackId": format!("t{}", number % 10),
        "price": if number.is_multiple_of(2) { json!(1) } else { json!(0.5) },
        "at": format!("2026-11-20T10:{:02}:{:02}.5Z", number / 60 % 60, number % 60),
        "day": "2026-11-20",
        "skipped": if number.is_multiple_of(7) { Value::Null } else { json!(number.is_multiple_of(2)) },
        "place": {"country": country, "geo": {"lat": 48.5}},
        "tags": ["a", "b"],
        "_key": "k",
        "scores": [1, 2],
        "nothing": null,
        "either": if number.is_multiple_of(2) { json!(1) } else { json!("one") },
    })
    .to_string()
}

fn produce(server: &Server, topic: &str, values: impl Iterator<Item = String>) {
    let producer: BaseProducer = idempotent(&server.kafka).create().unwrap();
    for (number, value) in values.enumerate() {
        let key = number.to_string();
        producer.send(BaseRecord::to(topic).key(&key).payload(&value)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

fn refused(server: &Server, sql: &str) -> String {
    let (status, text) = server.http.try_post("/v1/sql", &json!({ "sql": sql })).unwrap();
    assert_eq!(status, 400, "{sql}: {text}");
    text
}

/// What `DESCRIBE` says, but for what moves.
fn described(server: &Server) -> Vec<Vec<Value>> {
    server.http.sql("DESCRIBE plays")
}

fn check(server: &Server, sent: u64) {
    let countries = [("FR", 0), ("JP", 1), ("PE", 2)].map(|(country, rest)| {
        let of = (0..sent).filter(|number| number % 3 == rest);
        let price: f64 = of.clone().map(|number| if number % 2 == 0 { 1.0 } else { 0.5 }).sum();
        json!([country, of.count(), price])
    });
    let answer = server.http.get("/v1/views/by_country?order=country&wait=30s");
    assert_eq!(json!(rows(&answer)), json!(countries));
    let described = described(server);
    assert!(described.contains(&vec![json!("property"), json!("definition"), json!(DECLARED)]), "{described:?}");
    let counted = server.http.sql("SELECT count(*), count(skipped), min(\"trackId\"), max(key) FROM plays");
    let skipped = (0..sent).filter(|number| number % 7 != 0).count();
    assert_eq!(counted, [[json!(sent), json!(skipped), json!("t0"), json!("k")]]);
}

#[test]
fn a_stream_without_columns_is_declared_by_its_records() {
    let scratch = Scratch::new("inferred");
    let mut server = Server::start(&scratch);
    create_topic(&server.kafka, "raw_plays", 3);
    assert!(refused(&server, CREATE).contains("has no records in its log"));
    produce(&server, "raw_plays", (0..EVENTS).map(event));
    let explained = server.http.sql(&format!("EXPLAIN {CREATE}"));
    assert_eq!(explained[0], [json!("declaration"), json!(DECLARED)]);
    assert_eq!(server.http.get("/v1/streams")["streams"], json!([]));

    let view = "CREATE MATERIALIZED VIEW by_country AS SELECT place_country AS country, count(*) AS n, sum(price) AS price \
                FROM plays GROUP BY place_country";
    let mut command = millpond();
    let script = format!("{CREATE}; {view}");
    let told = run(command.args(["sql", "--output", "ndjson", "--http", &server.http.url(""), &script]));
    for line in [
        r#"{"kind":"column","name":"trackId","result":"VARCHAR"}"#,
        r#"{"kind":"column","name":"place_geo_lat","result":"DOUBLE FROM 'place.geo.lat'"}"#,
        r#"{"kind":"materialized view","name":"by_country","result":"created"}"#,
        r#""left out","name":"scores""#,
        r#""left out","name":"nothing""#,
        r#""left out","name":"either""#,
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    check(&server, EVENTS);
    let before = described(&server);

    // Records that have other fields, or other types, change nothing; those that do not fit are rejected, as ever.
    produce(&server, "raw_plays", ["{\"at\":1795168800000,\"id\":\"x\",\"new\":1}".to_owned()].into_iter());
    server.kill9();
    server.start_again();
    check(&server, EVENTS);
    assert_eq!(described(&server), before);
    assert_eq!(
        server.http.sql(&CREATE.replace("STREAM", "STREAM IF NOT EXISTS")),
        [["stream", "plays", "exists already"]]
    );
    produce(&server, "raw_plays", (EVENTS..2 * EVENTS).map(event));
    check(&server, 2 * EVENTS);

    assert!(refused(&server, "CREATE STREAM s WITH (topic = 'nowhere', event_time = 'at')").contains("does not exist"));
    let wrong = refused(&server, "CREATE STREAM s WITH (topic = 'raw_plays', event_time = 'att')");
    assert!(wrong.contains("did you mean 'at'") && wrong.contains("\"column\":57"), "{wrong}");
    produce(&server, "lines", ["a,b,c".to_owned()].into_iter());
    let wrong = refused(&server, "CREATE STREAM lines WITH (event_time = 'at')");
    assert!(wrong.contains("none of 1 sampled records is a JSON object"), "{wrong}");
    assert!(server.stop().success());

    let file = "[[streams]]\nname = \"s\"\ntopic = \"raw_plays\"\nevent_time = \"at\"\n";
    let path = scratch.write("without.toml", file);
    let refused =
        millpond().args(["serve", "--data-dir"]).arg(scratch.path("other")).arg("--config").arg(path).output();
    let text = String::from_utf8_lossy(&refused.unwrap().stderr).into_owned();
    assert!(text.contains("EXPLAIN CREATE STREAM"), "{text}");
}
