//! A derived stream under kill -9: each event that was acknowledged is in it once, joined to its tables, duplicates are refused
//! and counted, and the lake holds the same.

use crate::support::http::rows;
use crate::support::server::Server;
use crate::support::writer::{patient, write_over_kills};
use crate::support::{Scratch, beside_others, kills, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

const KILLS: u32 = 10;
const PARTITIONS: i32 = 3;
const USERS: u64 = 60;
const CONFIG: &str = r#"
[[topics]]
name = "raw"
partitions = 3

[[streams]]
name = "raw"
topic = "raw"
event_time = "ts"
columns = [
    { name = "id", type = "BIGINT", required = true },
    { name = "user_id", type = "BIGINT", required = true },
    { name = "country", type = "VARCHAR", from = "place.country" },
    { name = "ts", type = "TIMESTAMP", required = true },
]
checks = [{ name = "country_there", sql = "country IS NOT NULL", action = "warn" }]

[[tables]]
name = "users"
topic = "users"
key = "user_id"
columns = [{ name = "user_id", type = "BIGINT" }, { name = "segment", type = "VARCHAR" }]

[[tables]]
name = "countries"
key = "country"
columns = [{ name = "country", type = "VARCHAR" }, { name = "region", type = "VARCHAR" }]
rows = [["FR", "Europe"], ["JP", "Asia"]]

[[streams]]
sql = """
CREATE STREAM enriched AS
SELECT l.*, u.segment, c.region, lower(l.country) AS land
FROM raw l LEFT JOIN users u ON l.user_id = u.user_id LEFT JOIN countries c ON l.country = c.country
WHERE l.id % 10 <> 3
"""
key = "user_id"
deduplicate = { by = ["id"], within = "1d" }
checks = [{ name = "not_five", sql = "id % 10 <> 5" }]

[[views]]
sql = "CREATE MATERIALIZED VIEW by_segment AS SELECT segment, count(*) AS events FROM enriched GROUP BY segment"

[[lake.tables]]
topic = "enriched"
slice = ["date", "region"]
flush_age = "1s"
"#;

/// What was sent: how often each id was, and its user.
type Sent = BTreeMap<u64, (u64, u64)>;

#[test]
fn a_derived_stream_survives_kill_9() {
    let _beside = beside_others();
    let scratch = Scratch::for_kills("derived", kills(KILLS));
    let seed = seed("derived");
    let mut server = Server::with_config(&scratch, CONFIG);
    fill_users(&server.kafka);
    let mut random = StdRng::seed_from_u64(seed ^ 1);
    let write = move |address: &str, stop: &AtomicBool| write_until(address, seed, stop);
    let sent = write_over_kills(&mut server, (kills(KILLS), &mut random), write);
    check(&server, &sent);
    server.kill9();
    server.start_again();
    check(&server, &sent);
    assert!(server.stop().success());
}

fn segment(user: u64) -> String {
    format!("segment-{}", user % 7)
}

fn country(id: u64) -> Option<&'static str> {
    [Some("FR"), Some("JP"), Some("XX"), None][(id % 4) as usize]
}

/// The table is there before the first event and does not change: a restart must not join to an empty one.
fn fill_users(address: &str) {
    let producer: BaseProducer = patient(address).create().unwrap();
    for user in 0..USERS {
        for value in ["old".to_owned(), segment(user)] {
            let value = json!({ "segment": value }).to_string();
            let key = user.to_string();
            producer.send(BaseRecord::to("users").key(&key).payload(&value)).unwrap();
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Writes events, a third of them again, until told to stop; then until all are acknowledged.
fn write_until(address: &str, seed: u64, stop: &AtomicBool) -> Sent {
    let producer: BaseProducer = patient(address).create().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let began_ms = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let mut sent = Sent::new();
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..50 {
            let again = next > 0 && random.random_bool(0.33);
            let id = if again { random.random_range(0..next) } else { next };
            let user = id % USERS;
            let mut event = json!({ "id": id, "user_id": user, "ts": began_ms + id % 1_000, "other": "x" });
            if let Some(country) = country(id) {
                event["place"] = json!({ "country": country });
            }
            let (key, value) = (user.to_string(), event.to_string());
            let record = BaseRecord::to("raw").key(&key).payload(&value);
            match producer.send(record) {
                Ok(()) => {
                    sent.entry(id).or_insert((user, 0)).1 += 1;
                    next = next.max(id + 1);
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => panic!("{error}"),
            }
        }
        producer.poll(Duration::from_millis(10));
    }
    producer.flush(Duration::from_secs(120)).unwrap();
    sent
}

fn check(server: &Server, sent: &Sent) {
    let total: u64 = sent.values().map(|(_, times)| times).sum();
    let kept: BTreeMap<u64, u64> =
        sent.iter().filter(|(id, _)| *id % 10 != 3 && *id % 10 != 5).map(|(id, (user, _))| (*id, *user)).collect();
    let fives: u64 = sent.iter().filter(|(id, _)| *id % 10 == 5).map(|(_, (_, times))| times).sum();
    let duplicates: u64 = sent.iter().filter(|(id, _)| kept.contains_key(id)).map(|(_, (_, times))| times - 1).sum();
    eprintln!("derived: {total} events, {} kept, {duplicates} duplicates", kept.len());
    assert!(total > 1_000 && duplicates > 100, "{total} events are no load");

    let quality = server.http.get("/v1/quality?wait=30s");
    let count = |stream: &str, rule: &str| -> u64 {
        let all = quality["quality"].as_array().unwrap().iter();
        all.filter(|row| row["stream"] == stream && row["rule"] == rule)
            .map(|row| row["records"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(count("raw", "accepted"), total, "{quality}");
    assert_eq!(count("enriched", "accepted"), kept.len() as u64, "{quality}");
    assert_eq!(count("enriched", "duplicate"), duplicates, "{quality}");
    assert_eq!(count("enriched", "not_five"), fives, "{quality}");
    let nowhere: u64 = sent.iter().filter(|(id, _)| country(**id).is_none()).map(|(_, (_, times))| times).sum();
    assert_eq!(count("raw", "country_there"), nowhere, "{quality}");

    let mut found: BTreeMap<u64, Value> = BTreeMap::new();
    for value in read(&server.kafka, "enriched") {
        let id = value["id"].as_u64().unwrap();
        assert!(found.insert(id, value).is_none(), "{id} is there twice");
    }
    assert_eq!(found.len(), kept.len());
    for (id, user) in &kept {
        let value = &found[id];
        let region =
            country(*id).and_then(|country| [("FR", "Europe"), ("JP", "Asia")].into_iter().find(|c| c.0 == country));
        let expected =
            json!([user, segment(*user), region.map(|region| region.1), country(*id).map(str::to_lowercase)]);
        assert_eq!(json!([value["user_id"], value["segment"], value["region"], value["land"]]), expected, "{value}");
    }
    assert_eq!(read(&server.kafka, "enriched.rejected").len() as u64, duplicates + fives);
    check_sql(server, kept.len() as u64);
}

fn check_sql(server: &Server, kept: u64) {
    let view = server.http.get("/v1/views/by_segment?wait=30s");
    let events: u64 = rows(&view).iter().map(|row| row[1].as_u64().unwrap()).sum();
    assert_eq!(events, kept);
    let users = server.http.sql("SELECT count(*), count(DISTINCT segment) FROM users");
    assert_eq!(users, [[json!(USERS), json!(7)]]);
    server.http.post("/v1/lake/enriched/flush", &Value::Null);
    let sql = "SELECT count(*), count(DISTINCT id), count(region) FROM enriched";
    let settled = server.http.sql(sql);
    assert_eq!((settled[0][0].as_u64(), settled[0][1].as_u64()), (Some(kept), Some(kept)));
    let joined =
        "SELECT c.region, count(*) FROM enriched e JOIN countries c ON e.country = c.country GROUP BY 1 ORDER BY 1";
    let by_region: u64 = server.http.sql(joined).iter().map(|row| row[1].as_u64().unwrap()).sum();
    assert_eq!(Some(by_region), settled[0][2].as_u64());
    let quality =
        server.http.sql("SELECT sum(records) FROM data_quality WHERE stream = 'enriched' AND action = 'accept'");
    assert_eq!(quality[0][0].to_string().trim_matches('"').parse::<u64>(), Ok(kept));
    let lake = server.http.get("/v1/lake");
    let table = lake["tables"].as_array().unwrap().iter().find(|table| table["topic"] == "enriched").unwrap();
    assert_eq!(table["rows"].as_u64(), Some(kept), "{table}");
}

/// The values of all records of a topic.
fn read(address: &str, topic: &str) -> Vec<Value> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", address).set("group.id", "derived").create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    assert!(partitions.len() as i32 == PARTITIONS || topic.ends_with(".rejected"), "{topic} has {partitions:?}");
    let mut list = TopicPartitionList::new();
    let mut left: i64 = 0;
    for partition in partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        left += consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap().1;
    }
    consumer.assign(&list).unwrap();
    let mut values = Vec::new();
    let started = Instant::now();
    while (values.len() as i64) < left {
        assert!(started.elapsed() < Duration::from_secs(60), "{topic}: {} of {left} records", values.len());
        let Some(message) = consumer.poll(Duration::from_millis(500)) else { continue };
        values.push(serde_json::from_slice(message.unwrap().payload().unwrap()).unwrap());
    }
    values
}
