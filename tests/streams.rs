//! Kafka Streams on Millpond: a word count, at least once and exactly once, whose application and broker are killed and whose state
//! is restored from the changelog.

use crate::clients::create_topic;
use crate::support::kafka::connect_java;
use crate::support::process::Process;
use crate::support::reader::committed;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, eventually, source};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::BTreeMap;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);
const WORDS: [&str; 6] = ["mill", "pond", "wheel", "stone", "reed", "frog"];
/// Lines of each of the three rounds.
const ROUND: usize = 2000;

#[test]
fn word_counts_survive_kills_and_are_restored() {
    let _beside = beside_others();
    for guarantee in ["at_least_once", "exactly_once_v2"] {
        counts(guarantee);
    }
}

fn counts(guarantee: &str) {
    let scratch = Scratch::new(&format!("streams-{guarantee}"));
    let mut server = Server::start(&scratch);
    let output = format!("counts-{guarantee}");
    create_topic(&server.kafka, "lines", 2);
    create_topic(&server.kafka, &output, 2);

    let mut application = start(&scratch, &server, guarantee, 1);
    produce(&server.kafka, 0);
    eventually("the first counts", PATIENCE, || match total(&server.kafka, &output) {
        0 => Err("none yet".into()),
        _ => Ok(()),
    });
    application.kill9();

    // another machine's application: no state of its own, all comes from the changelog
    let mut application = start(&scratch, &server, guarantee, 2);
    produce(&server.kafka, 1);
    eventually("more than one round", PATIENCE, || match total(&server.kafka, &output) {
        count if count > ROUND as i64 * 3 => Ok(()),
        count => Err(format!("{count} words")),
    });
    server.kill9();
    server.start_again();
    produce(&server.kafka, 2);

    let expected = expected(3);
    let complete = |counts: &BTreeMap<String, Vec<i64>>| {
        expected.iter().all(|(word, count)| counts.get(word).is_some_and(|seen| seen.iter().max() >= Some(count)))
    };
    let counts = eventually("every word is counted", PATIENCE, || {
        let counts = read(&server.kafka, &output);
        if complete(&counts) { Ok(counts) } else { Err(format!("{:?}", newest(&counts))) }
    });
    if guarantee == "exactly_once_v2" {
        for (word, count) in &expected {
            assert_eq!(counts[word], (1..=*count).collect::<Vec<_>>(), "{word}: each count once, in order");
        }
    }
    application.tell("stop");
    assert!(application.wait(PATIENCE).success(), "{}", application.tail());
    assert_eq!(newest(&read(&server.kafka, &output)).len(), WORDS.len());
}

fn start(scratch: &Scratch, server: &Server, guarantee: &str, number: u32) -> Process {
    let mut command = connect_java(&source("clients/WordCount.java").display().to_string());
    command.arg(&server.kafka).arg(guarantee).arg(scratch.path(&format!("state-{number}")));
    let mut process = Process::start(command, &scratch.path(&format!("application-{number}")));
    process.wait_for_line(|line| line == "running", PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    process
}

fn line(i: usize) -> String {
    format!("{} {} {}", WORDS[i % 6], WORDS[(i / 2) % 6], WORDS[(i * i) % 6])
}

fn expected(rounds: usize) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for i in 0..rounds * ROUND {
        for word in line(i).split(' ') {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    counts
}

fn produce(address: &str, round: usize) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", address).set("enable.idempotence", "true").create().unwrap();
    for i in round * ROUND..(round + 1) * ROUND {
        let text = line(i);
        producer.send(BaseRecord::<str, str>::to("lines").payload(&text)).unwrap_or_else(|(e, _)| panic!("{e}"));
    }
    producer.flush(PATIENCE).unwrap();
}

/// All committed counts of each word, in the order of its partition.
fn read(address: &str, topic: &str) -> BTreeMap<String, Vec<i64>> {
    let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (word, count) in committed(address, topic) {
        let count = i64::from_be_bytes(count.try_into().unwrap());
        counts.entry(String::from_utf8(word).unwrap()).or_default().push(count);
    }
    counts
}

fn newest(counts: &BTreeMap<String, Vec<i64>>) -> BTreeMap<&str, i64> {
    counts.iter().map(|(word, seen)| (word.as_str(), seen.iter().copied().max().unwrap_or(0))).collect()
}

/// Words counted so far.
fn total(address: &str, topic: &str) -> i64 {
    newest(&read(address, topic)).values().sum()
}
