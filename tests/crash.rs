//! kill -9 in the middle of load, 20 times in a row, while the lake's files are merged: nothing acknowledged is lost, nothing is
//! doubled, views and lake agree with the log.

use crate::clients::create_topic;
use crate::oracle::{lake, merging, music, oracle, report, settle};
use crate::support::ledger::{Acknowledged, Writes};
use crate::support::process::Process;
use crate::support::server::{Options, Server, millpond};
use crate::support::{Scratch, alone, eventually, kills, seed};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FetchRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const KILLS: u32 = 20;
const PARTITIONS: i32 = 4;
const LEDGER: &str = "ledger";

#[test]
fn kill_9_twenty_times_under_load() {
    let _alone = alone();
    let kills = kills(KILLS);
    let scratch = Scratch::for_kills("crash", kills);
    let mut random = StdRng::seed_from_u64(seed("crash"));
    let system = music(&scratch);
    let mut server = Server::start_with(&scratch, Options { configs: vec![system.clone()], ..Default::default() });
    create_topic(&server.kafka, LEDGER, PARTITIONS);
    let mut simulator = simulate(&scratch, &server);
    let acknowledged = Arc::new(Acknowledged::default());
    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
        let value = |sequence: u64| format!("{sequence:012} {}", "x".repeat((sequence % 90) as usize));
        // About 20,000 records a second: load enough, and room for the broker on two cores.
        let pace = Duration::from_micros(200);
        let writes = Writes { address: server.kafka.clone(), topic: LEDGER, partitions: PARTITIONS, value, pace };
        move || writes.run(&acknowledged, &stop)
    });
    let mut before = 0;
    for kill in 1..=kills {
        // Some kills come while the server recovers or the first requests arrive, most in the middle of load.
        let load = Duration::from_millis(if kill % 5 == 0 {
            random.random_range(0..80)
        } else {
            random.random_range(150..1200)
        });
        let merges = merging(&server, "listens");
        thread::sleep(load);
        server.kill9();
        merges.join().unwrap();
        if std::env::var_os("MILLPOND_SABOTAGE").is_some() && kill == kills {
            lose_what_was_not_flushed(&server);
        }
        server.start_again();
        assert!(simulator.exited().is_none(), "the simulator gave up after kill {kill}:\n{}", simulator.tail());
        if kill % 5 == 0 {
            eventually("the producer goes on", Duration::from_secs(60), || {
                let now = acknowledged.count.load(Ordering::Relaxed);
                if now > before { Ok(()) } else { Err(format!("{now} acknowledged")) }
            });
        }
        before = acknowledged.count.load(Ordering::Relaxed);
    }
    thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let sent = writer.join().unwrap();
    simulator.signal(libc::SIGTERM);
    simulator.wait(Duration::from_secs(120));
    assert_ledger(&server, &acknowledged, sent);
    eprintln!("crash: {kills} kills");

    let found = report("oracle", oracle(&server, &system).arg("--sent").arg(scratch.path("sent.jsonl")));
    assert!(found["rejected"].as_u64().unwrap() > 0, "{found}");
    server.http.post("/v1/lake/listens/merge", &serde_json::Value::Null);
    report("lake", &mut lake(&server, &system));
    settle(&server, "listens");
    let found = report("lake, flushed and merged", lake(&server, &system).arg("--whole"));
    let slices = server.http.sql("SELECT count(*) FROM (SELECT DISTINCT _partition, date, genre FROM listens)");
    assert_eq!(found["files"], slices[0][0], "one file per partition and slice");
    assert!(server.stop().success());
}

/// Takes the write-ahead log away, as a store that did not write it would. By hand, to see this test fail.
fn lose_what_was_not_flushed(server: &Server) {
    for entry in std::fs::read_dir(server.data_dir().join("store")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "log") {
            std::fs::write(path, "").unwrap();
        }
    }
}

/// KIP-951: who fetches with the epoch of before the crash is told the new one and where its leader is.
#[test]
fn a_reader_from_before_a_crash_is_told_who_leads() {
    let scratch = Scratch::new("leads");
    let mut server = Server::start(&scratch);
    create_topic(&server.kafka, LEDGER, 1);
    let mut client = server.connect();
    let asked = vec![MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(LEDGER))))];
    let request = MetadataRequest::default().with_topics(Some(asked));
    let before = client.call(&request, 12).unwrap();
    let (id, partition) = (before.topics[0].topic_id, &before.topics[0].partitions[0]);
    server.kill9();
    server.start_again();
    let mut client = server.connect();
    let after = client.call(&request, 12).unwrap().topics.remove(0).partitions.remove(0);
    assert!(after.leader_epoch > partition.leader_epoch, "a crash begins an epoch: {after:?}");
    let partition = FetchPartition::default().with_current_leader_epoch(partition.leader_epoch);
    let topic = FetchTopic::default().with_topic_id(id).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_topics(vec![topic]).with_max_wait_ms(60_000);
    for version in [15, 16, 17] {
        let answer = client.call(&request, version).unwrap();
        let told = &answer.responses[0].partitions[0];
        assert_eq!(told.error_code, 74, "{told:?}");
        let hinted = (told.current_leader.leader_id.0, told.current_leader.leader_epoch);
        let reached: Vec<String> = answer
            .node_endpoints
            .iter()
            .map(|node| format!("{}={}:{}", node.node_id.0, &*node.host, node.port))
            .collect();
        if version < 16 {
            assert_eq!((hinted, reached.len()), ((-1, -1), 0), "version {version}");
        } else {
            assert_eq!(hinted, (after.leader_id.0, after.leader_epoch), "version {version}");
            assert_eq!(reached, [format!("{}={}", after.leader_id.0, server.kafka)], "version {version}");
        }
    }
}

fn simulate(scratch: &Scratch, server: &Server) -> Process {
    let mut command = millpond();
    command.args([
        "simulate",
        "music:simulator",
        "--bootstrap",
        &server.kafka,
        "--rate",
        "3000",
        "--dirty",
        "0.03",
        "--late",
        "0.03",
        "--duplicates",
        "0.01",
    ]);
    // Acknowledgements are lost with the broker; the producer must try again, for as long as this test lasts.
    command.args(["--property", "message.timeout.ms=600000", "--property", "reconnect.backoff.max.ms=200"]);
    command.arg("--record").arg(scratch.path("sent.jsonl"));
    Process::start(command, &scratch.path("simulate"))
}

/// Each record exactly once and in the order of sending, by the log's own offsets; all acknowledged, each once.
fn assert_ledger(server: &Server, acknowledged: &Acknowledged, sent: Vec<u64>) {
    let failures = acknowledged.failures.lock().unwrap();
    assert!(failures.is_empty(), "{} not acknowledged: {:?}", failures.len(), &failures[..failures.len().min(5)]);
    let mut by_partition = acknowledged.by_partition.lock().unwrap();
    for (partition, sent) in (0..).zip(&sent) {
        let sequences = by_partition.entry(partition).or_default();
        sequences.sort_unstable();
        let wrong = (0_u64..).zip(sequences.iter()).find(|(expected, found)| expected != *found);
        assert_eq!(wrong, None, "partition {partition}: not acknowledged, or twice");
        assert_eq!(sequences.len() as u64, *sent, "acknowledgements of partition {partition}");
    }
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &server.kafka)
        .set("group.id", "ledger")
        .set("check.crcs", "true")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(LEDGER, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let total: u64 = sent.iter().sum();
    assert!(total > 5_000, "only {total} records: no load");
    let mut next = vec![0u64; PARTITIONS as usize];
    // many kills leave more than is read in a minute
    let mut moved = Instant::now();
    while next.iter().sum::<u64>() < total {
        assert!(
            moved.elapsed() < Duration::from_secs(60),
            "acknowledged records are missing: read {next:?} of {sent:?}"
        );
        let Some(message) = consumer.poll(Duration::from_millis(500)) else { continue };
        let message = message.unwrap();
        moved = Instant::now();
        let expected = &mut next[message.partition() as usize];
        let found: u64 = std::str::from_utf8(&message.payload().unwrap()[..12]).unwrap().parse().unwrap();
        let at = (message.offset(), found);
        assert_eq!(
            at,
            (*expected as i64, *expected),
            "partition {}: lost, doubled or out of order",
            message.partition()
        );
        *expected += 1;
    }
    assert_eq!(next, sent);
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(LEDGER, partition, Duration::from_secs(10)).unwrap();
        assert_eq!((low, high), (0, sent[partition as usize] as i64), "records nobody sent in partition {partition}");
    }
    eprintln!("crash: {total} records");
}
