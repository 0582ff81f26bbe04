//! Topics that streams and views live by: what Kafka's tools, librdkafka and the collector are told who would delete or write them.

use crate::clients::create_topic;
use crate::support::http::rows;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others};
use crate::tools::{TOPICS, assert_said, run};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use std::time::Duration;

const SYSTEM: &str = r#"
[[streams]]
name = "plays"
topic = "raw"
event_time = "ts"
columns = [{ name = "genre", type = "VARCHAR" }, { name = "ts", type = "TIMESTAMP", required = true }]
"#;
const VIEW: &str = "CREATE MATERIALIZED VIEW by_genre AS SELECT genre, count(*) AS n FROM plays GROUP BY genre";

#[test]
fn clients_leave_the_topics_of_streams_and_views_alone() {
    let _beside = beside_others();
    let scratch = Scratch::new("claims");
    let mut server = Server::with_config(&scratch, SYSTEM);
    let declare = |server: &Server, sql: &str| server.http.post("/v1/sql", &json!({ "sql": sql }));
    declare(&server, VIEW);
    tools(&scratch, &server);
    assert_eq!(written(&server, "by_genre"), Err(RDKafkaErrorCode::InvalidTopic));
    assert_eq!(written(&server, "plays.rejected"), Err(RDKafkaErrorCode::InvalidTopic));
    assert_eq!(written(&server, "raw"), Ok(()));
    let (status, told) =
        server.http.try_post("/v1/topics/by_genre/records", &json!({ "value": {"genre": "jazz"} })).unwrap();
    assert!(status == 403 && told.contains("written by view by_genre alone"), "{status} {told}");
    let view = server.http.get("/v1/views/by_genre?wait=30s");
    assert_eq!(rows(&view), [[json!("jazz"), json!(1)]]);

    server.kill9();
    server.start_again();
    for topic in ["by_genre", "by_genre.late", "raw"] {
        assert_eq!(deleted(&server, topic), Err(RDKafkaErrorCode::PolicyViolation), "{topic} after a restart");
    }
    declare(&server, "DROP MATERIALIZED VIEW by_genre");
    assert_eq!(deleted(&server, "by_genre"), Err(RDKafkaErrorCode::UnknownTopicOrPartition), "it went with the view");
    create_topic(&server.kafka, "by_genre", 2);
    assert_eq!(written(&server, "by_genre"), Ok(()));
    assert_eq!(deleted(&server, "by_genre"), Ok(()));
    assert!(server.stop().success());
}

#[rustfmt::skip]
fn tools(scratch: &Scratch, server: &Server) {
    let on = |rest: &str| format!("--bootstrap-server BROKER {rest}");
    let runs = [
        run(TOPICS, on("--delete --topic by_genre"), &["Error", "topic by_genre cannot be deleted: view by_genre writes it (first DROP MATERIALIZED VIEW by_genre)"]),
        run(TOPICS, on("--delete --topic raw"), &["Error", "topic raw cannot be deleted: stream plays reads it (first take it out of ", "test.toml:", " and start again)"]),
        run(TOPICS, on("--alter --topic by_genre --partitions 2"), &["Error", "topic by_genre keeps its partitions"]),
        run(TOPICS, on("--alter --topic raw --partitions 2"), &[]),
        run(TOPICS, on("--describe --topic by_genre"), &["PartitionCount: 1"]),
    ];
    assert_said(scratch, &server.kafka, &runs);
}

/// Whether librdkafka's producer brings a record into the topic.
fn written(server: &Server, topic: &str) -> Result<(), RDKafkaErrorCode> {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", &server.kafka).create().unwrap();
    let record = FutureRecord::<str, _>::to(topic).payload(r#"{"genre": "jazz", "ts": "2026-11-20T12:00:00Z"}"#);
    match futures::executor::block_on(producer.send(record, Duration::from_secs(30))) {
        Ok(_) => Ok(()),
        Err((KafkaError::MessageProduction(code), _)) => Err(code),
        Err((error, _)) => panic!("{error}"),
    }
}

fn deleted(server: &Server, topic: &str) -> Result<(), RDKafkaErrorCode> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &server.kafka).create().unwrap();
    let asked = futures::executor::block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
    asked.into_iter().next().unwrap().map(drop).map_err(|(_, code)| code)
}
