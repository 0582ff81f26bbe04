//! Streams joined to streams, declared over HTTP, under kill -9 while a client writes both: each pair comes out once, each order that
//! nobody paid comes out alone once its time is over, and what comes too late is recorded.

use crate::support::http::rows;
use crate::support::reader::committed;
use crate::support::server::Server;
use crate::support::writer::{patient, write_over_kills};
use crate::support::{Scratch, beside_others, eventually, kills, seed};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

const KILLS: u32 = 6;
const ORDERS: (&str, i32) = ("orders", 3);
const PAYMENTS: (&str, i32) = ("payments", 2);
/// How many orders later a payment is written.
const BEHIND: i64 = 200;
/// Half a day ago: no event is ahead of the broker's clock.
static BASE_MS: LazyLock<i64> = LazyLock::new(|| UNIX_EPOCH.elapsed().unwrap().as_millis() as i64 - 12 * 3_600_000);
const CONFIG: &str = r#"
[[topics]]
name = "orders"
partitions = 3

[[topics]]
name = "payments"
partitions = 2
"#;
const SCRIPT: &str = "
CREATE STREAM orders (id BIGINT NOT NULL, amount BIGINT, ts TIMESTAMP) WITH (event_time = 'ts');
CREATE STREAM payments (order_id BIGINT NOT NULL, paid BIGINT, ts TIMESTAMP) WITH (event_time = 'ts');
CREATE STREAM settled WITH (key = 'id', lateness = '30 seconds', idle_timeout = '1 hour') AS
  SELECT o.id, o.amount, p.paid, o.ts FROM orders o LEFT JOIN payments p WITHIN 10 SECONDS ON o.id = p.order_id;
CREATE STREAM quick WITH (lateness = '30 seconds', idle_timeout = '1 hour') AS
  SELECT o.id, p.paid - o.amount AS more, p.ts FROM orders o
  JOIN payments p ON o.id = p.order_id AND p.ts BETWEEN o.ts AND o.ts + INTERVAL '3' SECOND;
CREATE MATERIALIZED VIEW unpaid AS SELECT count(*) AS orders FROM settled WHERE paid IS NULL;
CREATE MATERIALIZED VIEW by_minute AS SELECT count(*) AS orders FROM settled GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)";

fn ordered_at(id: i64) -> i64 {
    *BASE_MS + id * 2
}

/// How long after its order a payment is made; one in five never is.
fn paid_after(id: i64) -> Option<i64> {
    (id % 5 != 0).then_some(id % 7 * 1_000)
}

#[test]
fn streams_are_joined_over_kill_9() {
    let _beside = beside_others();
    let scratch = Scratch::for_kills("joins", kills(KILLS));
    let mut random = StdRng::seed_from_u64(seed("joins"));
    let mut server = Server::with_config(&scratch, CONFIG);
    server.http.post("/v1/sql", &json!({ "sql": SCRIPT }));
    let sent = write_over_kills(&mut server, (kills(KILLS), &mut random), write_until);
    check(&server, sent);
    server.kill9();
    server.start_again();
    check(&server, sent);
    too_late(&server);
    dropped(&server);
    assert!(server.stop().success());
}

fn send(producer: &BaseProducer, topic: &str, key: i64, value: &Value) {
    let (key, value) = (key.to_string(), value.to_string());
    loop {
        match producer.send(BaseRecord::to(topic).key(&key).payload(&value)) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
}

/// Writes orders, and payments after them, until told to stop; then what moves event time on in all partitions. Gives how many orders.
fn write_until(address: &str, stop: &AtomicBool) -> i64 {
    let producer: BaseProducer = patient(address).create().unwrap();
    let pay = |id: i64| {
        if let Some(after) = paid_after(id) {
            send(&producer, PAYMENTS.0, id, &json!({ "order_id": id, "paid": id * 3, "ts": ordered_at(id) + after }));
        }
    };
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            send(&producer, ORDERS.0, next, &json!({ "id": next, "amount": id_amount(next), "ts": ordered_at(next) }));
            if next >= BEHIND {
                pay(next - BEHIND);
            }
            next += 1;
        }
        producer.poll(Duration::from_millis(8));
    }
    ((next - BEHIND).max(0)..next).for_each(pay);
    producer.flush(Duration::from_secs(120)).unwrap();
    let end_ms = *BASE_MS + 11 * 3_600_000;
    for partition in 0..ORDERS.1 {
        let value = json!({ "id": -1 - partition, "ts": end_ms }).to_string();
        producer.send(BaseRecord::<str, str>::to(ORDERS.0).partition(partition).payload(&value)).unwrap();
    }
    for partition in 0..PAYMENTS.1 {
        let value = json!({ "order_id": -11 - partition, "ts": end_ms }).to_string();
        producer.send(BaseRecord::<str, str>::to(PAYMENTS.0).partition(partition).payload(&value)).unwrap();
    }
    producer.flush(Duration::from_secs(120)).unwrap();
    next
}

fn id_amount(id: i64) -> i64 {
    id * 2
}

fn values(server: &Server, topic: &str) -> Vec<Value> {
    let records = committed(&server.kafka, topic);
    records.iter().map(|(_, value)| serde_json::from_slice(value).unwrap()).collect()
}

fn check(server: &Server, sent: i64) {
    let unpaid = (0..sent).filter(|id| paid_after(*id).is_none()).count() as u64;
    eventually("orders that nobody paid", Duration::from_secs(60), || {
        let view = server.http.get("/v1/views/unpaid?wait=30s");
        let shown = rows(&view).first().and_then(|row| row[0].as_u64());
        if shown == Some(unpaid) { Ok(()) } else { Err(format!("{shown:?} of {unpaid}")) }
    });
    let mut settled: BTreeMap<i64, Value> = BTreeMap::new();
    for value in values(server, "settled") {
        let id = value["id"].as_i64().unwrap();
        assert!(settled.insert(id, value).is_none(), "order {id} came out twice");
    }
    eprintln!("joins: {sent} orders, {unpaid} not paid");
    assert!(sent > 1_000, "{sent} orders are no load");
    assert_eq!(settled.len() as i64, sent);
    for id in 0..sent {
        let paid = paid_after(id).map(|_| id * 3);
        let value = &settled[&id];
        assert_eq!((value["amount"].as_i64(), value["paid"].as_i64()), (Some(id_amount(id)), paid), "{value}");
    }
    let mut quick: Vec<(i64, i64)> = values(server, "quick")
        .iter()
        .map(|value| (value["id"].as_i64().unwrap(), value["more"].as_i64().unwrap()))
        .collect();
    quick.sort_unstable();
    let wanted: Vec<(i64, i64)> = (0..sent)
        .filter(|id| paid_after(*id).is_some_and(|after| after <= 3_000))
        .map(|id| (id, id * 3 - id_amount(id)))
        .collect();
    assert_eq!(quick.len(), wanted.len());
    assert!(quick == wanted, "the pairs are others");
    for topic in ["settled.late", "quick.late", "settled.rejected", "quick.rejected"] {
        assert!(committed(&server.kafka, topic).is_empty(), "{topic} is not empty");
    }
    let by_minute = server.http.get("/v1/views/by_minute?wait=30s");
    let counted: u64 = rows(&by_minute).iter().map(|row| row[2].as_u64().unwrap()).sum();
    assert_eq!(counted as i64, sent);
}

/// An order of long ago: recorded, counted, and not joined.
fn too_late(server: &Server) {
    let producer: BaseProducer = patient(&server.kafka).create().unwrap();
    send(&producer, ORDERS.0, 1, &json!({ "id": 1, "amount": 7, "ts": ordered_at(1) }));
    producer.flush(Duration::from_secs(60)).unwrap();
    let late = eventually("the late order", Duration::from_secs(30), || {
        let late = values(server, "settled.late");
        if late.is_empty() { Err("none".to_owned()) } else { Ok(late) }
    });
    assert_eq!((late.len(), &late[0]["amount"]), (1, &json!(7)));
    let streams = server.http.get("/v1/streams");
    let stream = streams["streams"].as_array().unwrap().iter().find(|stream| stream["name"] == "settled").unwrap();
    let derived = &stream["derived"];
    assert_eq!(derived["sources"], json!(["orders", "payments"]));
    assert_eq!(derived["late"], json!(1), "{derived}");
}

/// What reads a stream keeps it; then it goes with all that was its own.
fn dropped(server: &Server) {
    let (status, text) = server.http.try_post("/v1/sql", &json!({ "sql": "DROP STREAM payments" })).unwrap();
    assert!(status == 400 && text.contains("stream settled") && text.contains("stream quick"), "{status} {text}");
    let script = "DROP MATERIALIZED VIEW unpaid; DROP MATERIALIZED VIEW by_minute; DROP STREAM settled; DROP STREAM quick; \
                  DROP STREAM payments";
    server.http.post("/v1/sql", &json!({ "sql": script }));
    let topics = server.http.get("/v1/topics").to_string();
    assert!(topics.contains("\"payments\"") && !topics.contains("settled") && !topics.contains("quick"), "{topics}");
}
