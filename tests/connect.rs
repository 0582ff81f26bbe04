//! Kafka's own Connect worker (distributed mode) and MirrorMaker 2 on Millpond.

use crate::clients::create_topic;
use crate::support::http::Http;
use crate::support::kafka::{ApacheKafka, connect_java, free_port};
use crate::support::process::Process;
use crate::support::reader::committed;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, eventually};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_connect_worker_moves_files_and_goes_on_after_kills() {
    let _beside = beside_others();
    let scratch = Scratch::new("connect");
    let mut server = Server::start(&scratch);
    let (source, sink) = (scratch.path("source.txt"), scratch.path("sink.txt"));
    append(&source, 0..500);

    let (mut worker, rest) = start_worker(&scratch, &server, 1);
    put(&rest, "read", &source_settings(&source));
    put(&rest, "write", &sink_settings(&sink));
    eventually("the first lines are copied", PATIENCE, || lines_of(&sink, 500));

    worker.kill9();
    append(&source, 500..800);
    let (mut worker, rest) = start_worker(&scratch, &server, 2);
    eventually("what came meanwhile is copied", PATIENCE, || lines_of(&sink, 800));

    server.kill9();
    server.start_again();
    append(&source, 800..1000);
    eventually("the rest is copied", PATIENCE, || lines_of(&sink, 1000));
    for name in ["read", "write"] {
        let status = rest.get(&format!("/connectors/{name}/status"));
        assert_eq!(status["connector"]["state"], "RUNNING", "{status}");
        assert_eq!(status["tasks"][0]["state"], "RUNNING", "{status}");
    }
    let expected: Vec<String> = (0..1000).map(|i| format!("line {i}")).collect();
    assert_eq!(values(&server.kafka, "lines"), expected, "the exactly-once source wrote each line once, in order");
    assert!(worker.terminate(PATIENCE).code().is_some(), "{}", worker.tail());
}

#[test]
fn mirror_maker_copies_from_apache_kafka_and_back() {
    let _beside = beside_others();
    let scratch = Scratch::new("mirror");
    let apache = ApacheKafka::start(&scratch);
    let server = Server::start(&scratch);
    create_topic(&apache.kafka, "there", 2);
    create_topic(&server.kafka, "here", 2);
    produce(&apache.kafka, "there", 0..1000);
    produce(&server.kafka, "here", 0..700);
    let properties = scratch.write("mirror.properties", &mirror_settings(&apache.kafka, &server.kafka));
    let mut command = connect_java("org.apache.kafka.connect.mirror.MirrorMaker");
    command.arg(&properties);
    let mirror = Process::start(command, &scratch.path("mirror"));
    for (address, topic, count) in [(&server.kafka, "apache.there", 1000), (&apache.kafka, "millpond.here", 700)] {
        eventually(&format!("{topic} is copied"), PATIENCE, || match committed(address, topic).len() {
            n if n >= count => Ok(()),
            n => Err(format!("{n} records\n{}", mirror.tail())),
        });
        let mut copied = values(address, topic);
        copied.sort();
        let mut expected: Vec<String> = (0..count).map(|i| format!("record {i}")).collect();
        expected.sort();
        assert_eq!(copied, expected, "{topic}");
    }
}

fn start_worker(scratch: &Scratch, server: &Server, number: u32) -> (Process, Http) {
    let port = free_port();
    let properties = format!(
        "bootstrap.servers={}\ngroup.id=connect-cluster\nlisteners=http://127.0.0.1:{port}\n\
         key.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.storage.StringConverter\n\
         config.storage.topic=connect-configs\noffset.storage.topic=connect-offsets\nstatus.storage.topic=connect-status\n\
         config.storage.replication.factor=1\noffset.storage.replication.factor=1\nstatus.storage.replication.factor=1\n\
         offset.flush.interval.ms=500\nexactly.once.source.support=enabled\nscheduled.rebalance.max.delay.ms=1000\n\
         session.timeout.ms=6000\nheartbeat.interval.ms=1000\n",
        server.kafka
    );
    let path = scratch.write(&format!("worker-{number}.properties"), &properties);
    let mut command = connect_java("org.apache.kafka.connect.cli.ConnectDistributed");
    command.arg(path);
    let mut worker = Process::start(command, &scratch.path(&format!("worker-{number}")));
    let rest = Http::new(&format!("127.0.0.1:{port}"));
    eventually("the worker answers", PATIENCE, || {
        if let Some(status) = worker.exited() {
            panic!("the worker ended: {status}\n{}", worker.tail());
        }
        match rest.try_get("/connectors")? {
            (200, _) => Ok(()),
            (_, text) => Err(text),
        }
    });
    (worker, rest)
}

fn source_settings(file: &Path) -> serde_json::Value {
    json!({
        "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
        "tasks.max": "1", "file": file, "topic": "lines",
        "topic.creation.default.partitions": "1", "topic.creation.default.replication.factor": "1",
    })
}

fn sink_settings(file: &Path) -> serde_json::Value {
    json!({
        "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
        "tasks.max": "1", "file": file, "topics": "lines",
        "consumer.override.isolation.level": "read_committed",
    })
}

/// The worker answers 409 or 500 while it rebalances; whoever uses it asks again.
fn put(rest: &Http, name: &str, settings: &serde_json::Value) {
    eventually(&format!("connector {name} is taken"), PATIENCE, || {
        let (status, text) = rest.try_put(&format!("/connectors/{name}/config"), settings)?;
        if status < 300 { Ok(()) } else { Err(text) }
    });
}

fn append(file: &Path, lines: std::ops::Range<i64>) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    let text: String = lines.map(|i| format!("line {i}\n")).collect();
    file.write_all(text.as_bytes()).unwrap();
}

/// Ok when the sink's file has every line up to `count`; a killed sink may write some again.
fn lines_of(file: &Path, count: usize) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|e| e.to_string())?;
    let different: std::collections::BTreeSet<&str> = text.lines().collect();
    if different.len() >= count { Ok(()) } else { Err(format!("{} lines", different.len())) }
}

fn mirror_settings(apache: &str, millpond: &str) -> String {
    format!(
        "clusters=apache,millpond\napache.bootstrap.servers={apache}\nmillpond.bootstrap.servers={millpond}\n\
         apache->millpond.enabled=true\napache->millpond.topics=there\n\
         millpond->apache.enabled=true\nmillpond->apache.topics=here\n\
         replication.factor=1\nrefresh.topics.interval.seconds=2\nsync.topic.configs.interval.seconds=2\n\
         checkpoints.topic.replication.factor=1\nheartbeats.topic.replication.factor=1\noffset-syncs.topic.replication.factor=1\n\
         offset.storage.replication.factor=1\nstatus.storage.replication.factor=1\nconfig.storage.replication.factor=1\n\
         emit.heartbeats.interval.seconds=1\nemit.checkpoints.interval.seconds=1\nsync.group.offsets.enabled=true\n\
         consumer.auto.offset.reset=earliest\n"
    )
}

fn produce(address: &str, topic: &str, numbers: std::ops::Range<i64>) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", address).create().unwrap();
    for i in numbers {
        let (key, value) = (i.to_string(), format!("record {i}"));
        producer.send(BaseRecord::to(topic).key(&key).payload(&value)).unwrap_or_else(|(e, _)| panic!("{e}"));
    }
    producer.flush(PATIENCE).unwrap();
}

/// What a read_committed consumer sees, partition by partition.
fn values(address: &str, topic: &str) -> Vec<String> {
    committed(address, topic).into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect()
}
