//! Cold fetch: what the log let go consumers read from the lake, byte for byte as before, by librdkafka and Java, through
//! kill -9 and while the lake is away.

use crate::support::kafka;
use crate::support::plan;
use crate::support::raw::Client;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, eventually, seed};
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest, TopicName,
    delete_records_request, incremental_alter_configs_request, list_offsets_request,
};
use kafka_protocol::protocol::StrBytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use std::time::{Duration, Instant};

const TOPIC: &str = "orders";
const PATIENCE: Duration = Duration::from_secs(60);
/// Records that are committed by `write`.
const COMMITTED: usize = 340;
/// A topic whose whole records are kept in the lake.
const SYSTEM: &str = r#"
topics = [{ name = "orders", partitions = 1 }]
[kafka]
"log.retention.check.interval.ms" = 100
[[streams]]
name = "orders"
topic = "orders"
event_time = "ts"
columns = [{ name = "id", type = "BIGINT", required = true }, { name = "ts", type = "TIMESTAMP", required = true }]
[[lake.tables]]
topic = "orders"
flush_age = "1h"
flush_rows = 100
raw = true
"#;

/// Offset, timestamp, key, value, headers.
pub type Read = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn consumer(address: &str, isolation: &str, from: Offset) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "cold")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "error")
        // so that reading takes many fetches, some of which end amid a file
        .set("fetch.message.max.bytes", "20000")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(TOPIC, 0, from).unwrap();
    consumer.assign(&partitions).unwrap();
    consumer
}

/// All there is from an offset to the end.
fn read_from(address: &str, isolation: &str, from: Offset) -> Vec<Read> {
    to_end(&consumer(address, isolation, from))
}

/// All that it gives up to the end.
pub fn to_end(consumer: &BaseConsumer) -> Vec<Read> {
    let (started, mut all) = (Instant::now(), Vec::new());
    loop {
        assert!(started.elapsed() < PATIENCE, "read {} records and no end", all.len());
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return all,
            Some(message) => all.push(read(&message.unwrap())),
        }
    }
}

fn read(message: &rdkafka::message::BorrowedMessage<'_>) -> Read {
    let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key.to_owned(), own(header.value))).collect::<Vec<_>>());
    let timestamp = message.timestamp().to_millis().unwrap();
    (message.offset(), timestamp, own(message.key()), own(message.payload()), headers.unwrap_or_default())
}

fn producer(address: &str, transactional_id: Option<&str>) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("enable.idempotence", "true").set("compression.type", "lz4");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    config.create().unwrap()
}

fn send(producer: &BaseProducer, records: &[plan::Planned]) {
    for record in records {
        let (key, value) = (record.key.as_deref().map(plan::unhex), record.value.as_deref().map(plan::unhex));
        let mut headers = OwnedHeaders::new();
        for (name, value) in &record.headers {
            let value = value.as_deref().map(plan::unhex);
            headers = headers.insert(Header { key: name, value: value.as_ref() });
        }
        let mut message = BaseRecord::<[u8], [u8]>::to(TOPIC).partition(0).timestamp(record.timestamp).headers(headers);
        message.key = key.as_deref();
        message.payload = value.as_deref();
        producer.send(message).unwrap_or_else(|(e, _)| panic!("{e}"));
    }
    producer.flush(PATIENCE).unwrap();
}

/// Records of no transaction, then of some that were committed and some that were aborted, in turns.
fn write(address: &str, seed: u64) {
    send(&producer(address, None), &plan::records(seed, 220));
    let producer = producer(address, Some("cold"));
    producer.init_transactions(PATIENCE).unwrap();
    for (turn, aborted) in [false, true, false, true].into_iter().enumerate() {
        producer.begin_transaction().unwrap();
        send(&producer, &plan::records(seed + 1 + turn as u64, 60));
        let ended = if aborted { producer.abort_transaction(PATIENCE) } else { producer.commit_transaction(PATIENCE) };
        ended.unwrap();
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn alter(server: &Server, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(name, value)| {
        incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPIC))
        .with_configs(settings.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = server.connect().call(&request, 1).unwrap();
    assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
}

/// The offset that ListOffsets finds for a timestamp or a special value.
fn list(client: &mut Client, timestamp: i64) -> i64 {
    let asked =
        list_offsets_request::ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
    let topic = list_offsets_request::ListOffsetsTopic::default()
        .with_name(TopicName(text(TOPIC)))
        .with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = client.call(&request, 10).unwrap();
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0, "{answer:?}");
    partition.offset
}

/// What Java's console consumer prints of the committed records.
fn java(address: &str) -> String {
    let mut args = vec!["--bootstrap-server", address, "--topic", TOPIC, "--from-beginning", "--timeout-ms", "30000"];
    args.extend(["--isolation-level", "read_committed", "--max-messages", "340"]);
    for what in ["print.key=true", "print.headers=true", "print.offset=true", "print.timestamp=true"] {
        args.extend(["--formatter-property", what]);
    }
    args.extend(["--formatter-property", "null.literal=<null>"]);
    kafka::tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &args)
}

/// The topic's configuration, with small files that are merged.
pub fn merging() -> String {
    SYSTEM.replace("raw = true", "raw = true\nmerge_files = 2")
}

/// Writes, and gives what was committed, as it is read from the log.
pub fn fill(server: &Server, seed: u64) -> Vec<Read> {
    write(&server.kafka, seed);
    let committed = read_all(server);
    let uncommitted = read_from(&server.kafka, "read_uncommitted", Offset::Beginning);
    assert_eq!((committed.len(), uncommitted.len()), (COMMITTED, COMMITTED + 120));
    committed
}

/// What was committed, as it is read now.
pub fn read_all(server: &Server) -> Vec<Read> {
    read_from(&server.kafka, "read_committed", Offset::Beginning)
}

/// Has the log let go of all that was written.
pub fn let_go(server: &Server) {
    alter(server, &[("remote.storage.enable", "true"), ("retention.ms", "-1"), ("local.retention.ms", "1")]);
    let mut client = server.connect();
    std::thread::sleep(Duration::from_millis(500));
    assert!(list(&mut client, -4) <= 400, "the log keeps what is not in the lake");
    server.http.post("/v1/lake/orders/flush", &Value::Null);
    let end = list(&mut client, -1);
    eventually("the log lets go", PATIENCE, || match list(&mut client, -4) {
        start if start == end => Ok(()),
        start => Err(format!("it begins at {start}, its end is {end}")),
    });
    assert_eq!((list(&mut client, -2), list(&mut client, -5)), (0, end - 1));
}

/// What was committed is read from the lake as it was in the log, from wherever and by time; and the lake says the same.
pub fn reads_back(server: &Server, committed: &[Read]) {
    let (address, mut client) = (server.kafka.as_str(), server.connect());
    // what was aborted, and the markers, are not in the lake: both levels of isolation read what was committed
    for isolation in ["read_committed", "read_uncommitted"] {
        assert!(read_from(address, isolation, Offset::Beginning) == committed, "{isolation}");
    }
    for at in [0, 1, 117, 219, 250, 339] {
        let wanted = &committed[at..];
        assert!(read_from(address, "read_committed", Offset::Offset(wanted[0].0)) == wanted, "from {}", wanted[0].0);
        let first = committed.iter().find(|record| record.1 >= wanted[0].1).unwrap();
        assert_eq!(list(&mut client, wanted[0].1), first.0, "by time");
        let peeked = server.http.get(&format!("/v1/topics/orders/records?offset={}&limit=20", wanted[0].0));
        let offsets: Vec<i64> = wanted.iter().take(20).map(|record| record.0).collect();
        let peeked: Vec<i64> =
            peeked["records"].as_array().unwrap().iter().map(|record| record["offset"].as_i64().unwrap()).collect();
        assert_eq!(peeked, offsets, "by HTTP");
    }
    let report = server.http.post("/v1/lake/orders/verify", &Value::Null);
    assert_eq!((&report["sound"], &report["raw_records"]), (&Value::Bool(true), &Value::from(COMMITTED)), "{report}");
}

/// A consumer of all there is, while the lake is away: it waits, and is told nothing.
pub fn waiting(server: &Server) -> BaseConsumer {
    let waiting = consumer(&server.kafka, "read_committed", Offset::Beginning);
    for _ in 0..10 {
        let polled = waiting.poll(Duration::from_millis(200));
        assert!(polled.is_none(), "{polled:?}");
    }
    waiting
}

#[test]
fn consumers_read_on_where_the_log_let_go() {
    let _beside = beside_others();
    let scratch = Scratch::new("cold");
    let seed = seed("cold");
    let mut server = Server::with_config(&scratch, SYSTEM);
    let address = server.kafka.clone();
    let committed = fill(&server, seed);
    let said = java(&address);
    let_go(&server);
    reads_back(&server, &committed);

    server.kill9();
    server.start_again();
    assert!(read_all(&server) == committed, "after kill -9");
    assert_eq!(java(&address), said);

    let aside = server.lake_dir().with_extension("aside");
    std::fs::rename(server.lake_dir(), &aside).unwrap();
    let waiting = waiting(&server);
    std::fs::rename(&aside, server.lake_dir()).unwrap();
    assert!(to_end(&waiting) == committed, "after the lake came back");

    // reading goes on into the log, and what is deleted is gone from both
    send(&producer(&address, None), &plan::records(seed + 9, 20));
    let all = read_from(&address, "read_uncommitted", Offset::Beginning);
    assert!(all.len() == 360 && all[..340] == committed[..]);
    delete_before(&server, 117);
    assert_eq!(list(&mut server.connect(), -2), 117);
    assert!(read_from(&address, "read_committed", Offset::Beginning) == all[117..]);
    server.stop();
}

/// Records are acknowledged while others settle and leave the log; whenever it is killed, each is in one place or the other.
#[test]
fn kill_9_while_records_move_from_the_log_to_the_lake() {
    let _beside = beside_others();
    let scratch = Scratch::new("cold-crash");
    let seed = seed("cold-crash");
    let mut random = StdRng::seed_from_u64(seed);
    let quick = merging().replace("\"1h\"", "\"100ms\"");
    let mut server = Server::with_config(&scratch, &quick);
    alter(&server, &[("remote.storage.enable", "true"), ("retention.ms", "-1"), ("local.retention.ms", "1")]);
    let (address, mut written) = (server.kafka.clone(), Vec::new());
    for round in 0..6 {
        for part in 0..4 {
            let records = plan::records(seed + round * 10 + part, 60);
            send(&producer(&address, None), &records);
            written.extend(records);
            std::thread::sleep(Duration::from_millis(random.random_range(0..80)));
        }
        server.kill9();
        server.start_again();
        let read = read_from(&address, "read_uncommitted", Offset::Beginning);
        assert!(
            read.iter().map(|record| record.0).eq(0..written.len() as i64),
            "round {round}: {} records",
            read.len()
        );
        assert!(read.iter().map(planned).eq(written.iter().cloned()), "round {round}");
    }
    let mut client = server.connect();
    eventually("the log lets all go", PATIENCE, || match list(&mut client, -4) {
        start if start == written.len() as i64 => Ok(()),
        start => Err(format!("it begins at {start}")),
    });
    assert!(read_from(&address, "read_committed", Offset::Beginning).iter().map(planned).eq(written));
    server.stop();
}

/// What was sent to be read like this.
fn planned((_, timestamp, key, value, headers): &Read) -> plan::Planned {
    let hex = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(plan::hex);
    plan::Planned {
        key: hex(key),
        value: hex(value),
        headers: headers.iter().map(|(name, value)| (name.clone(), hex(value))).collect(),
        timestamp: *timestamp,
    }
}

fn delete_before(server: &Server, offset: i64) {
    let asked = delete_records_request::DeleteRecordsPartition::default().with_offset(offset);
    let topic = delete_records_request::DeleteRecordsTopic::default()
        .with_name(TopicName(text(TOPIC)))
        .with_partitions(vec![asked]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let answer = server.connect().call(&request, 2).unwrap();
    assert_eq!((answer.topics[0].partitions[0].error_code, answer.topics[0].partitions[0].low_watermark), (0, offset));
}
