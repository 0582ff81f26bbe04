//! Every client writes with every codec it has; every client reads all of it back: keys, values, headers and timestamps equal.

use crate::support::kafka::{self, ApacheKafka, run, run_with_input};
use crate::support::plan::{self, Send};
use crate::support::raw::{Client, fetch_request};
use crate::support::scripts::{SCRIPTS, Script};
use crate::support::server::Server;
use crate::support::{Scratch, beside_others};
use bytes::Bytes;
use kafka_protocol::messages::{CreateTopicsRequest, TopicName, create_topics_request};
use kafka_protocol::protocol::StrBytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const CODECS: [(&str, i16); 5] = [("none", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)];
const PARTITIONS: i32 = 2;
const PATIENCE: Duration = Duration::from_secs(60);

/// The tested broker; `MILLPOND_TEST_BROKER=apache` runs the same against Apache Kafka, which proves the test itself.
pub enum Broker {
    Millpond(Box<Server>),
    Apache(ApacheKafka),
}

impl Broker {
    pub fn start(scratch: &Scratch) -> Broker {
        match std::env::var("MILLPOND_TEST_BROKER").as_deref() {
            Ok("apache") => Broker::Apache(ApacheKafka::start(scratch)),
            _ => Broker::Millpond(Box::new(Server::start(scratch))),
        }
    }

    pub fn address(&self) -> &str {
        match self {
            Broker::Millpond(server) => &server.kafka,
            Broker::Apache(kafka) => &kafka.kafka,
        }
    }

    /// kill -9 and a new start on the same ports; Apache Kafka is left alone.
    pub fn kill9_and_start_again(&mut self) {
        if let Broker::Millpond(server) = self {
            server.kill9();
            server.start_again();
        }
    }
}

pub fn create_topic(address: &str, name: &str, partitions: i32) {
    create_topic_with(address, name, partitions, &[]);
}

pub fn create_topic_with(address: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let text = |value: &str| StrBytes::from_string(value.to_owned());
    let settings = settings.iter().map(|(name, value)| {
        create_topics_request::CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    });
    let topic = create_topics_request::CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_string(name.to_owned())))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(settings.collect());
    let answer = Client::connect(address)
        .call(&CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000), 5)
        .unwrap();
    assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
}

#[test]
fn every_client_reads_what_every_client_wrote() {
    let _beside = beside_others();
    let scratch = Scratch::new("clients");
    let broker = Broker::start(&scratch);
    let address = broker.address().to_owned();
    let mut sends = Vec::new();
    for client in SCRIPTS.iter().map(|script| script.name()).chain(["rdkafka"]) {
        for (codec, _) in CODECS {
            let topic = format!("from-{client}-{codec}");
            create_topic(&address, &topic, PARTITIONS);
            for partition in 0..PARTITIONS {
                let records = plan::records((sends.len() + 1) as u64, 60);
                sends.push(Send { topic: topic.clone(), partition, codec: codec.to_owned(), records });
            }
        }
    }
    for script in SCRIPTS {
        write_with(script, &address, &scratch, &sends);
    }
    write_with_rdkafka(&address, &sends);
    assert_codecs(&address, &sends);

    let topics: BTreeSet<&str> = sends.iter().map(|send| send.topic.as_str()).collect();
    let topics: Vec<Value> = topics
        .iter()
        .map(|topic| json!({ "topic": topic, "partitions": PARTITIONS, "count": 60 * PARTITIONS }))
        .collect();
    let plan = scratch.write("consume.json", &json!({ "topics": topics }).to_string());
    let mut mistakes = Vec::new();
    for script in SCRIPTS {
        mistakes.extend(plan::mistakes(&script.report("consume", &address, &plan), &sends));
    }
    mistakes.extend(plan::mistakes(&read_with_rdkafka(&address, &sends), &sends));
    mistakes.extend(plan::mistakes(&read_with_kcat(&address, &sends), &sends));
    assert!(mistakes.is_empty(), "{} mistakes:\n{}", mistakes.len(), mistakes.join("\n"));
}

fn write_with(script: Script, address: &str, scratch: &Scratch, sends: &[Send]) {
    let prefix = format!("from-{}-", script.name());
    let own: Vec<&Send> = sends.iter().filter(|send| send.topic.starts_with(&prefix)).collect();
    assert!(!own.is_empty());
    let plan = scratch.write(&format!("produce-{}.json", script.name()), &json!({ "sends": own }).to_string());
    let report = script.report("produce", address, &plan);
    let sent = report["sent"].as_array().unwrap();
    assert_eq!(sent.len(), own.len(), "{report}");
    for (sent, send) in sent.iter().zip(own) {
        let offsets: Vec<i64> =
            sent["offsets"].as_array().unwrap().iter().map(|offset| offset.as_i64().unwrap()).collect();
        assert_eq!(
            offsets,
            (0..send.records.len() as i64).collect::<Vec<_>>(),
            "offsets told to {} for {}",
            script.name(),
            send.topic
        );
    }
}

fn write_with_rdkafka(address: &str, sends: &[Send]) {
    for send in sends.iter().filter(|send| send.topic.starts_with("from-rdkafka-")) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("compression.type", &send.codec)
            .set("enable.idempotence", "true")
            .set("linger.ms", "50")
            .create()
            .unwrap();
        for record in &send.records {
            let (key, value) = (record.key.as_deref().map(plan::unhex), record.value.as_deref().map(plan::unhex));
            let mut headers = OwnedHeaders::new();
            for (name, value) in &record.headers {
                let value = value.as_deref().map(plan::unhex);
                headers = headers.insert(Header { key: name, value: value.as_ref() });
            }
            let mut message = BaseRecord::<[u8], [u8]>::to(&send.topic)
                .partition(send.partition)
                .timestamp(record.timestamp)
                .headers(headers);
            message.key = key.as_deref();
            message.payload = value.as_deref();
            producer.send(message).unwrap_or_else(|(e, _)| panic!("{e}"));
        }
        producer.flush(PATIENCE).unwrap();
        assert_eq!(producer.in_flight_count(), 0);
    }
}

fn read_with_rdkafka(address: &str, sends: &[Send]) -> Value {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "rdkafka-reader")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for send in sends {
        partitions.add_partition_offset(&send.topic, send.partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let wanted: usize = sends.iter().map(|send| send.records.len()).sum();
    let mut records: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let started = Instant::now();
    for _ in 0..wanted {
        let message = loop {
            assert!(
                started.elapsed() < PATIENCE,
                "rdkafka read only {} of {wanted}",
                records.values().map(Vec::len).sum::<usize>()
            );
            if let Some(message) = consumer.poll(Duration::from_millis(500)) {
                break message.unwrap();
            }
        };
        let headers: Vec<(String, Option<String>)> = message
            .headers()
            .map(|headers| headers.iter().map(|header| (header.key.to_owned(), header.value.map(plan::hex))).collect())
            .unwrap_or_default();
        records.entry(message.topic().to_owned()).or_default().push(json!([
            message.partition(),
            message.offset(),
            message.timestamp().to_millis().unwrap(),
            message.key().map(plan::hex),
            message.payload().map(plan::hex),
            headers
        ]));
    }
    json!({ "client": "rdkafka", "records": records })
}

/// kcat prints lengths and bytes, so binary comes through; its headers are text and are compared where they are.
fn read_with_kcat(address: &str, sends: &[Send]) -> Value {
    let mut records: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for send in sends {
        let output = Command::new("timeout")
            .args([
                "30",
                "kcat",
                "-C",
                "-b",
                address,
                "-t",
                &send.topic,
                "-p",
                &send.partition.to_string(),
                "-o",
                "beginning",
                "-q",
            ])
            .args(["-c", &send.records.len().to_string()])
            .args(["-X", "check.crcs=true", "-f", "%o %T %K %S\n%k%s\n"])
            .output()
            .unwrap();
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "kcat {}-{}: {output:?}",
            send.topic,
            send.partition
        );
        let mut rest = &output.stdout[..];
        let mut planned = send.records.iter();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let numbers: Vec<i64> =
                std::str::from_utf8(&rest[..end]).unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
            rest = &rest[end + 1..];
            let mut take = |length: i64| {
                let (bytes, after) = rest.split_at(length.max(0) as usize);
                rest = after;
                (length >= 0).then(|| plan::hex(bytes))
            };
            let planned = planned.next();
            let key = take(numbers[2]);
            let value = take(numbers[3]);
            rest = &rest[1..];
            let headers = planned.map(|p| p.headers.clone()).unwrap_or_default();
            records.entry(send.topic.clone()).or_default().push(json!([
                send.partition,
                numbers[0],
                numbers[1],
                key,
                value,
                headers
            ]));
        }
    }
    json!({ "client": "kcat", "records": records })
}

/// The stored batches carry the codec the client was told to use: librdkafka silently sends uncompressed where the broker's
/// version ranges mislead it.
fn assert_codecs(address: &str, sends: &[Send]) {
    let mut client = Client::connect(address);
    for send in sends {
        let stored = codecs_of(&mut client, &send.topic, send.partition);
        let wanted = CODECS.iter().find(|(name, _)| *name == send.codec).unwrap().1;
        // A client may leave a batch as it is when compressing does not make it smaller.
        assert!(
            stored.contains(&wanted) && stored.iter().all(|codec| *codec == wanted || *codec == 0),
            "codecs {stored:?} in {}",
            send.topic
        );
    }
}

/// The codec bits of each stored batch.
fn codecs_of(client: &mut Client, topic: &str, partition: i32) -> BTreeSet<i16> {
    let answer = client.call(&fetch_request((topic, partition), 0, false), 12).unwrap();
    let mut batches: Bytes = answer.responses[0].partitions[0].records.clone().expect("a batch");
    let mut codecs = BTreeSet::new();
    while batches.len() > 23 {
        codecs.insert(i16::from_be_bytes(batches[21..23].try_into().unwrap()) & 7);
        let length = i32::from_be_bytes(batches[8..12].try_into().unwrap()) as usize + 12;
        batches = batches.split_off(length.min(batches.len()));
    }
    codecs
}

#[test]
fn kcat_writes_with_every_codec() {
    let scratch = Scratch::new("kcat");
    let broker = Broker::start(&scratch);
    let address = broker.address();
    for (codec, bits) in CODECS {
        let topic = format!("kcat-{codec}");
        create_topic(address, &topic, 1);
        let lines: Vec<String> = (0..200).map(|i| format!("key {i}\tvalue {i} {}", "again ".repeat(i % 9))).collect();
        let input = scratch.write("lines", &(lines.join("\n") + "\n"));
        let codec = if codec == "none" { "none" } else { codec };
        run_with_input(
            Command::new("kcat").args([
                "-P",
                "-b",
                address,
                "-t",
                &topic,
                "-p",
                "0",
                "-z",
                codec,
                "-K",
                "\t",
                "-H",
                "from=kcat",
            ]),
            &input,
        );
        assert!(codecs_of(&mut Client::connect(address), &topic, 0).contains(&bits), "{codec}");
        let read =
            run(Command::new("kcat").args(["-C", "-b", address, "-t", &topic, "-e", "-q", "-f", "%k\t%s\t%h\n"]));
        let wanted: Vec<String> = lines.iter().map(|line| format!("{line}\tfrom=kcat")).collect();
        assert_eq!(read.lines().collect::<Vec<_>>(), wanted, "{codec}");
    }
}

#[test]
fn java_console_and_perf_tools_write_and_read() {
    let _beside = beside_others();
    let scratch = Scratch::new("java");
    let broker = Broker::start(&scratch);
    let address = broker.address();
    thread::scope(|scope| {
        let scratch = &scratch;
        for pair in CODECS.chunks(2) {
            let running: Vec<_> =
                pair.iter().map(|(codec, bits)| scope.spawn(move || console(address, codec, *bits, scratch))).collect();
            running.into_iter().for_each(|thread| thread.join().unwrap());
        }
    });
    perf(address, &scratch);
}

fn console(address: &str, codec: &str, bits: i16, scratch: &Scratch) {
    let topic = format!("console-{codec}");
    create_topic(address, &topic, 1);
    let lines: Vec<String> =
        (0..100).map(|i| format!("trace:t{i},kind:test\tkey {i}\tvalue {i} {}", "more ".repeat(i % 11))).collect();
    let input = scratch.write(&format!("console-{codec}"), &(lines.join("\n") + "\n"));
    let mut producer = kafka::java("org.apache.kafka.tools.ConsoleProducer");
    producer.args([
        "--bootstrap-server",
        address,
        "--topic",
        &topic,
        "--compression-codec",
        codec,
        "--reader-property",
        "parse.key=true",
    ]);
    run_with_input(producer.args(["--reader-property", "parse.headers=true"]), &input);
    assert!(codecs_of(&mut Client::connect(address), &topic, 0).contains(&bits), "{codec}");
    let read = kafka::tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--bootstrap-server",
            address,
            "--topic",
            &topic,
            "--from-beginning",
            "--max-messages",
            "100",
            "--timeout-ms",
            "30000",
            "--formatter-property",
            "print.key=true",
            "--formatter-property",
            "print.headers=true",
            "--formatter-property",
            "print.offset=true",
        ],
    );
    let wanted: Vec<String> = lines.iter().enumerate().map(|(i, line)| format!("Offset:{i}\t{line}")).collect();
    assert_eq!(read.lines().collect::<Vec<_>>(), wanted, "{codec}");
}

fn perf(address: &str, scratch: &Scratch) {
    create_topic(address, "perf", 3);
    let properties = scratch.write(
        "perf.properties",
        &format!("bootstrap.servers={address}\nacks=all\ncompression.type=lz4\nlinger.ms=5\n"),
    );
    let properties = properties.to_string_lossy();
    let args = [
        "--topic",
        "perf",
        "--num-records",
        "50000",
        "--record-size",
        "500",
        "--throughput",
        "-1",
        "--command-config",
        &properties,
    ];
    let said = kafka::tool("org.apache.kafka.tools.ProducerPerformance", &args);
    assert!(said.lines().last().unwrap_or_default().starts_with("50000 records sent"), "{said}");
    let args = ["--bootstrap-server", address, "--topic", "perf", "--num-records", "50000", "--timeout", "30000"];
    let said = kafka::tool("org.apache.kafka.tools.ConsumerPerformance", &args);
    let fields: Vec<&str> = said.lines().last().unwrap_or_default().split(',').map(str::trim).collect();
    assert_eq!(fields.get(4), Some(&"50000"), "{said}");
    let ends = kafka::tool(
        "org.apache.kafka.tools.GetOffsetShell",
        &["--bootstrap-server", address, "--topic", "perf", "--time", "latest"],
    );
    let total: i64 = ends.lines().map(|line| line.rsplit(':').next().unwrap().parse::<i64>().unwrap()).sum();
    assert_eq!(total, 50_000, "{ends}");
    assert_eq!(fs::read_to_string(&*properties).unwrap().lines().count(), 4);
}

#[test]
fn java_admin_tools_see_and_change_topics_and_groups() {
    let _beside = beside_others();
    let scratch = Scratch::new("java-admin");
    let broker = Broker::start(&scratch);
    let address = broker.address();
    let topics = |args: &[&str]| {
        kafka::tool("org.apache.kafka.tools.TopicCommand", &[&["--bootstrap-server", address], args].concat())
    };
    topics(&[
        "--create",
        "--topic",
        "admin",
        "--partitions",
        "2",
        "--replication-factor",
        "1",
        "--config",
        "retention.ms=3600000",
    ]);
    topics(&["--alter", "--topic", "admin", "--partitions", "4"]);
    let described = topics(&["--describe", "--topic", "admin"]);
    assert!(described.contains("PartitionCount: 4") && described.contains("retention.ms=3600000"), "{described}");
    assert!(topics(&["--list"]).lines().any(|line| line == "admin"));

    let configs = |args: &[&str]| {
        kafka::tool(
            "kafka.admin.ConfigCommand",
            &[&["--bootstrap-server", address, "--entity-type", "topics", "--entity-name", "admin"], args].concat(),
        )
    };
    configs(&["--alter", "--add-config", "max.message.bytes=2000000"]);
    let described = configs(&["--describe"]);
    assert!(
        described.contains("max.message.bytes=2000000") && described.contains("DYNAMIC_TOPIC_CONFIG"),
        "{described}"
    );
    configs(&["--alter", "--delete-config", "max.message.bytes"]);
    assert!(!configs(&["--describe"]).contains("max.message.bytes"));

    let input = scratch.write("five", "1\n2\n3\n4\n5\n");
    run_with_input(
        kafka::java("org.apache.kafka.tools.ConsoleProducer").args(["--bootstrap-server", address, "--topic", "admin"]),
        &input,
    );
    let read = [
        "--bootstrap-server",
        address,
        "--topic",
        "admin",
        "--group",
        "admin-group",
        "--from-beginning",
        "--max-messages",
        "5",
        "--timeout-ms",
        "30000",
    ];
    assert_eq!(kafka::tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &read).lines().count(), 5);
    let groups = |args: &[&str]| {
        kafka::tool(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            &[&["--bootstrap-server", address], args].concat(),
        )
    };
    assert!(groups(&["--list"]).lines().any(|line| line == "admin-group"));
    let described = groups(&["--describe", "--group", "admin-group"]);
    let lags: i64 = described
        .lines()
        .filter(|line| line.starts_with("admin-group"))
        .map(|line| line.split_whitespace().nth(5).unwrap().parse::<i64>().unwrap_or(0))
        .sum();
    assert_eq!(lags, 0, "{described}");
    groups(&["--reset-offsets", "--group", "admin-group", "--topic", "admin", "--to-earliest", "--execute"]);
    assert_eq!(kafka::tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &read).lines().count(), 5);
    groups(&["--delete", "--group", "admin-group"]);
    topics(&["--delete", "--topic", "admin"]);
    assert!(!topics(&["--list"]).lines().any(|line| line == "admin"));
}
