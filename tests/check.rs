//! `millpond check`: a store that a crash left is found sound, whatever was in it; what is damaged is named; a running server is
//! left alone.

use crate::clients::create_topic_with;
use crate::support::raw::Client;
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, beside_others, eventually};
use kafka_protocol::messages::DeleteTopicsRequest;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::protocol::StrBytes;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SYSTEM: &str = r#"
[kafka]
"log.retention.check.interval.ms" = 200
"log.cleaner.backoff.ms" = 100
[[streams]]
name = "ticks"
topic = "ticks"
event_time = "ts"
columns = [{ name = "id", type = "BIGINT", required = true }, { name = "ts", type = "TIMESTAMP", required = true }]
[[streams]]
sql = "CREATE STREAM even AS SELECT id, ts FROM ticks WHERE id % 2 = 0"
[[lake.tables]]
topic = "ticks"
flush_age = "1s"
flush_rows = 200
[[views]]
sql = "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM ticks GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)"
[[views]]
sql = "CREATE MATERIALIZED VIEW visits AS SELECT count(*) AS n FROM ticks GROUP BY SESSION(ts, INTERVAL '1' SECOND), id EMIT FINAL"
"#;
const WAIT: Duration = Duration::from_secs(30);

fn producer(address: &str, id: Option<&str>) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("enable.idempotence", "true").set("linger.ms", "0");
    if let Some(id) = id {
        config.set("transactional.id", id);
    }
    config.create().unwrap()
}

fn send(producer: &BaseProducer, topic: &str, count: usize, value: &str) {
    for number in 0..count {
        let (key, value) = (format!("key {}", number % 7), format!("{value} {number}"));
        producer.send(BaseRecord::to(topic).partition(0).key(&key).payload(&value)).map_err(|(e, _)| e).unwrap();
        producer.flush(WAIT).unwrap();
    }
}

/// Transactions that are committed, aborted and left open.
fn transact(address: &str) -> BaseProducer {
    let producer = producer(address, Some("writer"));
    producer.init_transactions(WAIT).unwrap();
    for number in 0..6 {
        producer.begin_transaction().unwrap();
        for topic in ["plain", "compacted", "transactions"] {
            send(&producer, topic, 2, "in a transaction");
        }
        match number % 2 {
            0 => producer.commit_transaction(WAIT).unwrap(),
            _ => producer.abort_transaction(WAIT).unwrap(),
        }
    }
    producer.begin_transaction().unwrap();
    send(&producer, "transactions", 3, "never ended");
    producer
}

fn commit_offsets(address: &str) {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", address).set("group.id", "readers").create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("plain", 0, Offset::Offset(5)).unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
}

fn delete_topic(address: &str, name: &str) {
    let topic = DeleteTopicState::default().with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    assert_eq!(Client::connect(address).call(&request, 6).unwrap().responses[0].error_code, 0);
}

/// One of everything, and enough of it that retention and compaction have work.
fn fill(server: &Server) -> BaseProducer {
    let address = &server.kafka;
    create_topic_with(address, "plain", 2, &[]);
    create_topic_with(address, "aged", 1, &[("retention.bytes", "2000")]);
    create_topic_with(address, "transactions", 1, &[]);
    create_topic_with(address, "gone", 3, &[]);
    let eager = [("cleanup.policy", "compact"), ("segment.ms", "50"), ("min.cleanable.dirty.ratio", "0.01")];
    create_topic_with(address, "compacted", 1, &[&eager[..], &[("delete.retention.ms", "100")]].concat());
    let writer = producer(address, None);
    for topic in ["plain", "aged", "gone", "compacted"] {
        send(&writer, topic, 60, topic);
    }
    delete_topic(address, "gone");
    let open = transact(address);
    commit_offsets(address);
    for from in (0..1_000).step_by(100) {
        let tick = |id: i64| json!({"value": {"id": id % 40, "ts": format!("2026-11-20T12:{:02}:00Z", id / 20)}});
        let records: Vec<Value> = (from..from + 100).map(tick).collect();
        assert_eq!(server.http.post("/v1/topics/ticks/records", &json!({"records": records}))["accepted"], 100);
    }
    send(&writer, "compacted", 20, "newer");
    eventually("retention, compaction and the lake did something", Duration::from_secs(60), || {
        let start = |topic: &str| {
            server.http.get(&format!("/v1/topics/{topic}"))["partition_list"][0]["log_start"].as_i64().unwrap()
        };
        let rows = server.http.get("/v1/lake")["tables"][0]["rows"].as_i64().unwrap();
        let held = server.http.get("/v1/topics/compacted")["partition_list"][0]["bytes"].as_i64().unwrap();
        if start("aged") > 0 && rows == 1_000 && held < 6_000 {
            return Ok(());
        }
        Err(format!("aged begins at {}, {rows} rows settled, {held} bytes are compacted", start("aged")))
    });
    open
}

/// Exit code and report of a check.
fn check(data_dir: &Path) -> (Option<i32>, Value, String) {
    let mut command = millpond();
    command.args(["check", "--json", "--data-dir"]).arg(data_dir);
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), error)
}

/// Flips a byte in the file of the store that has `text`.
fn damage(store: &Path, text: &str) {
    let files = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|end| end == "sst")) {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|part| part == text.as_bytes()) {
            bytes[at] ^= 1;
            return std::fs::write(&path, bytes).unwrap();
        }
    }
    panic!("no file of {} has {text}", store.display());
}

#[test]
fn a_store_is_sound_after_a_crash_and_damage_is_named() {
    let _beside = beside_others();
    let scratch = Scratch::new("check");
    let config = scratch.write("check.toml", SYSTEM);
    let mut server = Server::start_with(&scratch, Options { configs: vec![config], ..Default::default() });
    let data_dir = server.data_dir();
    let open = fill(&server);
    let (code, _, error) = check(&data_dir);
    assert!(code == Some(2) && error.contains("a server holds data directory"), "{code:?}: {error}");
    let sound = |server: &Server| assert!(server.check().contains("\"findings\":[]"), "{}", server.check());
    server.kill9();
    sound(&server);
    server.start_again();
    // what the start wrote, and whatever it goes on with
    server.kill9();
    sound(&server);
    server.start_again();
    assert!(server.stop().success());
    sound(&server);
    drop(open);
    // the starts wrote all that was in the log of writes into files
    let text = "plain 41";
    damage(&data_dir.join("store"), text);
    let (code, report, error) = check(&data_dir);
    assert_eq!(code, Some(1), "{error}");
    let found = report["findings"].as_array().unwrap();
    let wrong: Vec<&Value> = found.iter().filter(|one| one["wrong"] == true).collect();
    let named = |one: &&Value| {
        one["kind"] == "batch unreadable"
            && one["topic"] == "plain"
            && one["partition"] == 0
            && one["first_offset"].as_i64() <= Some(41)
            && one["last_offset"].as_i64() >= Some(41)
            && one["remedy"].as_str().unwrap().contains("DeleteRecords")
    };
    assert!(wrong.iter().any(named), "{report}");
    assert!(report["checked"]["batches"].as_i64().unwrap() > 100, "{report}");
    let missing = check(&scratch.path("nothing"));
    assert!(missing.0 == Some(2) && missing.2.contains("is no data directory of millpond"), "{missing:?}");
}
