//! Views declared over HTTP when most of what they count has left the log, with kill -9 in the middle of filling while a client
//! writes: each equals SQL over files and log.

use crate::clients::create_topic;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const TOPIC: &str = "raw_sales";
const PARTITIONS: i32 = 3;
const SETTLED: u64 = 240_000;
const KILLS: u32 = 4;
const STREAM: &str = "CREATE STREAM sales (id BIGINT NOT NULL, item VARCHAR, cents BIGINT, note VARCHAR, ts TIMESTAMP,
    CONSTRAINT paid CHECK (cents >= 0)) WITH (topic = 'raw_sales', event_time = 'ts', lateness = '3 days')";
const BY_ITEM: &str =
    "CREATE MATERIALIZED VIEW by_item AS SELECT item, count(*) AS n, sum(cents) AS cents FROM sales GROUP BY item";
const BY_HOUR: &str = "CREATE MATERIALIZED VIEW by_hour AS SELECT item, count(*) AS n, max(cents) AS cents FROM sales
    WHERE id % 3 <> 0 GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), item";
/// What each view has, and the same from files and log.
const COMPARED: [(&str, &str); 2] = [
    (
        "SELECT item, n, cents FROM by_item ORDER BY item",
        "SELECT item, count(*), sum(cents) FROM sales GROUP BY item ORDER BY item",
    ),
    (
        "SELECT date_trunc('hour', window_start) AS h, item, n, cents FROM by_hour ORDER BY h, item",
        "SELECT date_trunc('hour', ts) AS h, item, count(*), max(cents) FROM sales WHERE id % 3 <> 0 GROUP BY h, item
         ORDER BY h, item",
    ),
];
const BEGAN_MS: u64 = 1_795_168_800_000;

#[test]
fn views_count_what_has_left_the_log_through_kill_9() {
    let _beside = beside_others();
    let scratch = Scratch::new("fill");
    let mut random = StdRng::seed_from_u64(seed("fill"));
    let mut server = Server::start(&scratch);
    create_topic(&server.kafka, TOPIC, PARTITIONS);
    declare(&server, STREAM);
    for part in 0..3 {
        write(&server.kafka, part * SETTLED / 3, |next| next >= (part + 1) * SETTLED / 3);
        server.http.post(&format!("/v1/lake/{TOPIC}/flush"), &Value::Null);
    }
    server.http.post(&format!("/v1/lake/{TOPIC}/merge"), &Value::Null);
    // Dropped, so that stream and views come in one script: the lake knows the files before it knows the stream.
    declare(&server, "DROP STREAM sales");
    let marks = delete_most(&server);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (address, stop) = (server.kafka.clone(), stop.clone());
        move || write(&address, SETTLED, |_| stop.load(Ordering::Relaxed))
    });
    declare(&server, &format!("{STREAM}; {BY_ITEM}; {BY_HOUR}"));
    let mut filling = 0;
    for _ in 0..KILLS {
        let status = eventually("a step is done", Duration::from_secs(60), || {
            let status = view(&server, "by_hour")["status"].clone();
            let is_begun = status["rows_applied"].as_u64() > Some(0) || status["state"] == "live";
            if is_begun { Ok(status) } else { Err(status.to_string()) }
        });
        filling += u32::from(status["state"] == "filling");
        thread::sleep(Duration::from_millis(random.random_range(0..40)));
        server.kill9();
        server.start_again();
    }
    stop.store(true, Ordering::Relaxed);
    let sent = writer.join().unwrap();
    eprintln!(
        "fill: {sent} events, {marks:?} had left the log, {filling} of {KILLS} kills came while rows were counted"
    );
    for name in ["by_item", "by_hour"] {
        eventually(name, Duration::from_secs(60), || {
            let status = view(&server, name)["status"].clone();
            if status["state"] == "live" { Ok(()) } else { Err(status.to_string()) }
        });
        let status = view(&server, name)["status"].clone();
        assert_eq!(
            (&status["lost"], &status["late"], &status["fill"]),
            (&json!(0), &json!(0), &Value::Null),
            "{status}"
        );
    }
    for (viewed, computed) in COMPARED {
        assert_eq!(answer(&server, viewed), answer(&server, computed), "{viewed}");
    }
    let counted = server.http.sql("SELECT sum(n) FROM by_item")[0][0].to_string();
    let good = (0..sent).filter(|id| is_good(*id)).count();
    assert_eq!(counted.trim_matches('"'), good.to_string());
    // Another definition begins with the files as well.
    declare(&server, &BY_ITEM.replace("CREATE", "CREATE OR REPLACE").replace("sum(cents)", "min(cents)"));
    let computed = COMPARED[0].1.replace("sum(cents)", "min(cents)");
    eventually("the other definition", Duration::from_secs(60), || {
        let status = view(&server, "by_item")["status"].clone();
        if status["state"] == "live" { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(answer(&server, COMPARED[0].0), answer(&server, &computed));
    assert!(server.stop().success());
}

fn declare(server: &Server, text: &str) -> Value {
    server.http.post("/v1/sql", &json!({ "sql": text }))
}

/// Rows as text: a sum of a view is a decimal number, which JSON has as text.
fn answer(server: &Server, sql: &str) -> Vec<String> {
    let rows = server.http.sql(sql);
    rows.iter().map(|row| Value::from(row.clone()).to_string().replace('"', "")).collect()
}

fn view(server: &Server, name: &str) -> Value {
    let views = server.http.get("/v1/views");
    views["views"].as_array().unwrap().iter().find(|view| view["name"] == name).unwrap().clone()
}

fn is_good(id: u64) -> bool {
    id % 50 != 0
}

/// All follows from the number: two days, seven items, and now and then a price below 0.
fn event(id: u64) -> String {
    let cents = if is_good(id) { i64::try_from(id * 31 % 1_009).unwrap() } else { -1 };
    let ts = BEGAN_MS + id % 2 * 86_400_000 + id * 7 % 10_000_000;
    json!({"id": id, "item": format!("item {}", id % 7), "cents": cents, "note": "no view reads it", "ts": ts})
        .to_string()
}

/// Writes events from a number on until all are; then until they are acknowledged. Gives the number of the next.
fn write(address: &str, from: u64, is_all: impl Fn(u64) -> bool) -> u64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("enable.idempotence", "true").set("acks", "all");
    config.set("linger.ms", "5").set("message.timeout.ms", "600000");
    config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
    let producer: BaseProducer = config.create().unwrap();
    let is_paced = from >= SETTLED;
    let mut next = from;
    while !is_all(next) {
        match producer.send(BaseRecord::to(TOPIC).key(&(next % 100).to_string()).payload(&event(next))) {
            Ok(()) => next += 1,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => panic!("{error}"),
        }
        if is_paced && next % 50 == 0 {
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(Duration::from_secs(120)).unwrap();
    next
}

/// Deletes what has settled, and of the last partition half of that. Gives where each log begins.
fn delete_most(server: &Server) -> Vec<i64> {
    let table = server.http.get("/v1/lake")["tables"].as_array().unwrap().clone();
    assert!(table.is_empty(), "the stream was dropped: {table:?}");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &server.kafka).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let to = if partition == PARTITIONS - 1 { Offset::Offset(1_000) } else { Offset::End };
        offsets.add_partition_offset(TOPIC, partition, to).unwrap();
    }
    let deleted = futures::executor::block_on(admin.delete_records(&offsets, &AdminOptions::new())).unwrap();
    let starts = deleted.elements().into_iter().map(|of| {
        of.error().unwrap();
        of.offset().to_raw().unwrap()
    });
    let starts: Vec<i64> = starts.collect();
    assert!(starts.iter().all(|start| *start >= 1_000), "{starts:?}");
    starts
}
