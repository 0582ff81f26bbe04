//! Compaction as its users meet it: kill -9 while the cleaner runs, librdkafka and Java read what is left, and Kafka's own
//! `LogCompactionTester` finds nothing missing.

use crate::clients::create_topic_with;
use crate::support::kafka::java;
use crate::support::process::Process;
use crate::support::raw::Client;
use crate::support::server::{Options, Server};
use crate::support::writer::patient;
use crate::support::{Scratch, beside_others, eventually, seed};
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, MetadataRequest, incremental_alter_configs_request};
use kafka_protocol::protocol::StrBytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const TOPIC: &str = "ledger";
const KEYS: u64 = 50;
const KILLS: u32 = 12;
/// Small and often, so that a kill falls into a pass.
const CLEANER: &str = "[kafka]\n\"log.cleaner.backoff.ms\" = 100\n";
const EAGER: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "100"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "500"),
];

/// The newest acknowledged value of each key: values count up.
#[derive(Clone, Default)]
struct Newest(Arc<Mutex<BTreeMap<u64, u64>>>);

impl ClientContext for Newest {
    fn error(&self, _: KafkaError, _: &str) {}
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}

impl ProducerContext for Newest {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        result.as_ref().unwrap_or_else(|(error, _)| panic!("{number} was not acknowledged: {error}"));
        // reports of one partition can be handed out in another order than that of the log
        let (mut newest, number) = (self.0.lock().unwrap(), *number);
        let known = newest.entry(number % KEYS).or_insert(number);
        *known = number.max(*known);
    }
}

fn producer(address: &str, newest: &Newest) -> ThreadedProducer<Newest> {
    patient(address)
        .set("linger.ms", "5")
        .set("batch.num.messages", "40")
        .set("compression.type", "lz4")
        .create_with_context(newest.clone())
        .unwrap()
}

fn send(producer: &ThreadedProducer<Newest>, number: u64, value: Option<&str>) {
    let key = format!("key {}", number % KEYS);
    loop {
        let mut record =
            BaseRecord::<str, str, Box<u64>>::with_opaque_to(TOPIC, Box::new(number)).partition(0).key(&key);
        record.payload = value;
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                thread::sleep(Duration::from_millis(5))
            }
            Err((e, _)) => panic!("{e}"),
        }
    }
}

/// What the topic holds up to the end it has now, while others may write on: offset, key, value. Offsets ascend.
fn read(address: &str) -> Vec<(i64, String, Option<String>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "compaction")
        .set("check.crcs", "true")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let (_, end) = consumer.fetch_watermarks(TOPIC, 0, Duration::from_secs(30)).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all: Vec<(i64, String, Option<String>)> = Vec::new();
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < Duration::from_secs(60), "read {} records and no end", all.len());
        match consumer.poll(Duration::from_millis(500)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return all,
            Some(message) => {
                let message = message.unwrap();
                assert!(all.last().is_none_or(|last| last.0 < message.offset()), "offset {}", message.offset());
                all.push((message.offset(), text(message.key().unwrap()), message.payload().map(text)));
                if message.offset() + 1 >= end {
                    return all;
                }
            }
        }
    }
}

#[test]
fn kill_9_while_the_cleaner_runs() {
    let _beside = beside_others();
    let scratch = Scratch::new("compaction");
    let mut random = StdRng::seed_from_u64(seed("compaction"));
    let mut server = Server::with_config(&scratch, CLEANER);
    create_topic_with(&server.kafka, TOPIC, 1, &EAGER);
    let (newest, stop) = (Newest::default(), Arc::new(AtomicBool::new(false)));
    let writer = thread::spawn({
        let (address, newest, stop) = (server.kafka.clone(), newest.clone(), stop.clone());
        move || {
            let producer = producer(&address, &newest);
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                send(&producer, number, Some(&format!("{number} {}", "x".repeat(100))));
                number += 1;
                if number % 40 == 0 {
                    thread::sleep(Duration::from_millis(10));
                }
            }
            producer.flush(Duration::from_secs(120)).unwrap();
            number
        }
    });
    for _ in 0..KILLS {
        thread::sleep(Duration::from_millis(random.random_range(200..900)));
        server.kill9();
        server.start_again();
        assert_newest(&read(&server.kafka), &BTreeMap::new());
    }
    stop.store(true, Ordering::Relaxed);
    let sent = writer.join().unwrap();
    let expected = newest.0.lock().unwrap().clone();
    assert_eq!(expected.len() as u64, KEYS);
    eventually("the cleaner is done", Duration::from_secs(60), || {
        let found = read(&server.kafka);
        assert_newest(&found, &expected);
        // the active segment is never compacted: what the last tenth of a second wrote
        if (found.len() as u64) < sent / 4 {
            Ok(())
        } else {
            Err(format!("{} of {sent} records are left", found.len()))
        }
    });
    tombstones(&server, &newest, sent);
    assert!(server.stop().success());
}

/// The newest record of each key has the expected value, and values only count up.
fn assert_newest(found: &[(i64, String, Option<String>)], expected: &BTreeMap<u64, u64>) {
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for (offset, key, value) in found {
        let number =
            value.as_deref().and_then(|value| value.split(' ').next()).map_or(0, |number| number.parse().unwrap());
        assert!(newest.insert(key, number).is_none_or(|before| before < number), "{key} goes back at {offset}");
    }
    for (key, number) in expected {
        assert_eq!(newest.get(format!("key {key}").as_str()), Some(number), "key {key}");
    }
}

/// Half of the keys are deleted: their tombstones can be read for their time, then nothing is left of them.
fn tombstones(server: &Server, newest: &Newest, sent: u64) {
    let producer = producer(&server.kafka, newest);
    let base = sent.next_multiple_of(KEYS);
    (0..KEYS / 2).for_each(|key| send(&producer, base + key, None));
    producer.flush(Duration::from_secs(30)).unwrap();
    let deleted: BTreeSet<String> = (0..KEYS / 2).map(|key| format!("key {key}")).collect();
    let found = read(&server.kafka);
    for key in &deleted {
        assert_eq!(found.iter().rfind(|record| record.1 == *key).map(|record| &record.2), Some(&None), "{key}");
    }
    let mut number = base + KEYS + KEYS / 2;
    eventually("the tombstones go", Duration::from_secs(60), || {
        // a pass needs something new, and something newer that seals it
        send(&producer, number, Some(&format!("{number} later")));
        producer.flush(Duration::from_secs(30)).unwrap();
        number += KEYS;
        thread::sleep(Duration::from_millis(300));
        let left = read(&server.kafka).into_iter().filter(|record| deleted.contains(&record.1)).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} records of deleted keys")) }
    });
    let kept: BTreeSet<String> = read(&server.kafka).into_iter().map(|record| record.1).collect();
    assert_eq!(kept.len() as u64, KEYS - KEYS / 2, "the other keys stay");
}

/// Kafka's own tester writes keys again and again, some deleted, waits, reads back and compares what it wrote with what it reads, newest
/// per key. Its topics get small segments as soon as they are there, so that the cleaner works on them meanwhile.
#[test]
fn kafkas_log_compaction_tester_passes() {
    let _beside = beside_others();
    let scratch = Scratch::new("compaction-tester");
    let path = scratch.write("test.toml", CLEANER);
    let server = Server::start_with(&scratch, Options { configs: vec![path], ..Options::default() });
    let mut command = java("org.apache.kafka.tools.LogCompactionTester");
    command.args(["--bootstrap-server", &server.kafka, "--messages", "150000", "--duplicates", "20", "--topics", "2"]);
    command.args(["--percent-deletes", "10", "--compression-type", "snappy", "--sleep", "8"]);
    let mut tester = Process::start(command, &scratch.path("tester"));
    let mut small = BTreeSet::new();
    eventually("the tester's topics", Duration::from_secs(60), || {
        let mut client = Client::connect(&server.kafka);
        let all = client.call(&MetadataRequest::default().with_topics(None), 9)?;
        for name in all.topics.iter().filter_map(|topic| topic.name.as_ref()).map(|name| name.0.to_string()) {
            if name.starts_with("log-cleaner-test") && small.insert(name.clone()) {
                make_small(&mut client, &name)?;
            }
        }
        if small.len() == 2 { Ok(()) } else { Err(format!("{small:?}, {}", tester.tail())) }
    });
    let status = tester.wait(Duration::from_secs(240));
    assert!(status.success(), "{}", tester.tail());
    let metrics = server.http.text("/metrics");
    let passes = metrics
        .lines()
        .find(|line| line.starts_with("millpond_broker_compactions_total"))
        .unwrap_or_default()
        .to_owned();
    assert!(!passes.is_empty() && !passes.ends_with(" 0"), "no pass was made: {passes}\n{}", tester.tail());
}

fn make_small(client: &mut Client, topic: &str) -> Result<(), String> {
    let text = |value: &str| StrBytes::from_string(value.to_owned());
    let settings = [("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")].map(|(name, value)| {
        incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(settings.to_vec());
    let answer = client.call(&IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), 1)?;
    if answer.responses[0].error_code == 0 { Ok(()) } else { Err(format!("{answer:?}")) }
}
