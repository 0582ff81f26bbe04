//! Views declared over HTTP when most of what they count has left the log, with kill -9 in the middle of filling while a client
//! writes: each equals SQL over files and log. So does a derived stream, whose topic has each row once. The same for new versions of a
//! view, while the former one is served.

use crate::clients::create_topic;
use crate::support::http::rows;
use crate::support::reader::committed;
use crate::support::server::Server;
use crate::support::writer::patient;
use crate::support::{Scratch, beside_others, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

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
/// Mostly from what has left the log.
const TENTH: &str =
    "CREATE STREAM tenth WITH (key = 'item') AS SELECT id, item, cents, ts FROM sales WHERE id % 10 = 3";
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
    declare(&server, &format!("{STREAM}; {BY_ITEM}; {BY_HOUR}; {TENTH}"));
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
    check_tenth(&server, sent);
    let counted = server.http.sql("SELECT sum(n) FROM by_item")[0][0].to_string();
    let good = (0..sent).filter(|id| is_good(*id)).count();
    assert_eq!(counted.trim_matches('"'), good.to_string());
    let sent = other_versions(&mut server, &mut random, sent);
    assert!(sent > SETTLED);
    assert!(server.stop().success());
}

/// The derived stream is filled, and a consumer of its topic finds each row once.
fn check_tenth(server: &Server, sent: u64) {
    eventually("the derived stream is filled", Duration::from_secs(60), || {
        let streams = server.http.get("/v1/streams")["streams"].clone();
        let tenth = streams.as_array().unwrap().iter().find(|stream| stream["name"] == "tenth").unwrap();
        let derived = &tenth["derived"];
        let is_live = (&derived["state"], &derived["lag_records"], &derived["fill"]);
        if is_live == (&json!("live"), &json!(0), &Value::Null) { Ok(()) } else { Err(derived.to_string()) }
    });
    let mut ids: Vec<u64> = Vec::new();
    for (key, value) in committed(&server.kafka, "tenth") {
        let row: Value = serde_json::from_slice(&value).unwrap();
        let id = row["id"].as_u64().unwrap();
        assert_eq!(String::from_utf8(key).unwrap(), format!("item {}", id % 7), "{row}");
        ids.push(id);
    }
    ids.sort_unstable();
    let wanted: Vec<u64> = (0..sent).filter(|id| id % 10 == 3 && is_good(*id)).collect();
    assert_eq!(ids.len(), wanted.len());
    assert!(ids == wanted, "each row once");
}

/// Other definitions begin with the files as well, while the former ones are served: a reader who looks all the time sees one or the
/// other, whole and never older than before, through kill -9; then the view and its topic are those of the new one.
fn other_versions(server: &mut Server, random: &mut StdRng, sent: u64) -> u64 {
    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (address, stop) = (server.kafka.clone(), stop.clone());
        move || write(&address, sent, |_| stop.load(Ordering::Relaxed))
    });
    let (seen, next_answers) = mpsc::channel();
    let reader = thread::spawn({
        let (http, stop) = (server.http.clone(), stop.clone());
        move || {
            let mut answers: Vec<Value> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                // Nobody answers while the server is away.
                let Ok((status, body)) = http.try_get("/v1/views/by_item?wait=20s") else { continue };
                assert_eq!(status, 200, "{body}");
                let answer: Value = serde_json::from_str(&body).unwrap();
                let _ = seen.send(version(&answer));
                answers.push(answer);
                thread::sleep(Duration::from_millis(5));
            }
            answers
        }
    });
    // a busy reader could miss a version that another replaces at once
    let mut read = VersionsRead { last: String::new(), next: next_answers };
    read.wait_for_another();
    let (mut query, mut filling) = (COMPARED[0].1.to_owned(), 0);
    for (column, condition) in [("low", "id % 2 = 0"), ("cents", "id % 3 = 1"), ("most", "item <> 'item 3'")] {
        let what = if column == "most" { "max(cents)" } else { "min(cents)" };
        query = format!("SELECT item, count(*) AS n, {what} AS {column} FROM sales WHERE {condition} GROUP BY item");
        declare(server, &format!("CREATE OR REPLACE MATERIALIZED VIEW by_item AS {query}"));
        thread::sleep(Duration::from_millis(random.random_range(0..400)));
        filling += u32::from(view(server, "by_item")["status"]["successor"].is_object());
        server.kill9();
        server.start_again();
        eventually("the new version takes over", Duration::from_secs(60), || {
            let view = view(server, "by_item");
            let is_over = view["status"]["successor"].is_null() && view["sql"].to_string().contains(condition);
            if is_over { Ok(()) } else { Err(view.to_string()) }
        });
        read.wait_for_another();
    }
    stop.store(true, Ordering::Relaxed);
    let (sent, answers) = (writer.join().unwrap(), reader.join().unwrap());
    eprintln!("fill: {} answers, {filling} of 3 kills came while another version was filled", answers.len());
    check_answers(server, &answers);
    assert_eq!(
        answer(server, "SELECT * FROM by_item ORDER BY item"),
        answer(server, &format!("{query} ORDER BY item"))
    );
    let mut told = BTreeMap::new();
    for (key, value) in committed(&server.kafka, "by_item") {
        told.insert(key, value);
    }
    let told: Vec<Value> =
        told.values().filter(|value| !value.is_empty()).map(|value| serde_json::from_slice(value).unwrap()).collect();
    let told: Vec<String> =
        told.iter().map(|row| json!([row["item"], row["n"], row["most"]]).to_string().replace('"', "")).collect();
    assert_eq!(told, answer(server, "SELECT item, n, most FROM by_item ORDER BY item"), "what a consumer ends with");
    sent
}

/// The version that an answer is of, by its third column.
fn version(answer: &Value) -> String {
    answer["columns"][2]["name"].as_str().unwrap().to_owned() + answer["columns"][2]["type"].as_str().unwrap()
}

/// What the reader sees, as far as it was looked at.
struct VersionsRead {
    last: String,
    next: mpsc::Receiver<String>,
}

impl VersionsRead {
    /// Waits until the reader has seen another version than before.
    fn wait_for_another(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let version = self.next.recv_timeout(left).expect("the reader sees another version");
            if version != self.last {
                self.last = version;
                return;
            }
        }
    }
}

/// Offsets never go back, a version never comes back, and those around each change equal SQL below their offsets.
fn check_answers(server: &Server, answers: &[Value]) {
    let next = |answer: &Value, partition: i32| answer["offsets"][TOPIC][partition.to_string()].as_i64().unwrap();
    let mut versions = vec![version(&answers[0])];
    for (before, after) in answers.iter().zip(&answers[1..]) {
        assert!((0..PARTITIONS).all(|of| next(before, of) <= next(after, of)), "{before} {after}");
        if version(before) == version(after) {
            continue;
        }
        assert!(!versions.contains(&version(after)), "{versions:?} {after}");
        versions.push(version(after));
        for answer in [before, after] {
            let below: Vec<String> =
                (0..PARTITIONS).map(|of| format!("_partition = {of} AND _offset < {}", next(answer, of))).collect();
            let condition = match (version(answer).as_str(), versions.len()) {
                (version, _) if version.starts_with("low") => "id % 2 = 0",
                (version, _) if version.starts_with("most") => "item <> 'item 3'",
                (version, _) if *version == *versions[0] => "true",
                _ => "id % 3 = 1",
            };
            let counted = format!(
                "SELECT item, count(*) FROM sales WHERE ({}) AND {condition} GROUP BY item ORDER BY item",
                below.join(" OR ")
            );
            let rows = rows(answer);
            let seen = rows.iter().map(|row| json!([row[0], row[1]]).to_string().replace('"', ""));
            assert_eq!(seen.collect::<Vec<_>>(), self::answer(server, &counted), "{condition} {answer}");
        }
    }
    assert_eq!(versions.len(), 4, "{versions:?}");
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
    !id.is_multiple_of(50)
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
    let producer: BaseProducer = patient(address).set("linger.ms", "5").create().unwrap();
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
        if is_paced && next.is_multiple_of(50) {
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
