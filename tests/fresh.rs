//! Read your write: after acks=all the view read over HTTP contains the event, 1,000 times out of 1,000; so does each that
//! stands behind it.

use crate::support::http::rows;
use crate::support::server::Server;
use crate::support::{Scratch, alone};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::time::Duration;

const EVENTS: i64 = 1_000;

const SYSTEM: &str = r#"
[[topics]]
name = "orders"
partitions = 3
[[streams]]
name = "orders"
topic = "orders"
event_time = "ts"
columns = [
    { name = "id", type = "VARCHAR", required = true },
    { name = "ts", type = "TIMESTAMP", required = true },
    { name = "amount", type = "BIGINT", required = true },
]
[[views]]
sql = "CREATE MATERIALIZED VIEW by_id AS SELECT id, count(*) AS orders, sum(amount) AS total FROM orders GROUP BY id"
[[views]]
sql = "CREATE MATERIALIZED VIEW by_minute AS SELECT count(*) AS orders, sum(amount) AS total FROM orders GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)"

# What stands behind what the engine writes: a derived stream, its view, and a view of that view's topic.
[[streams]]
sql = "CREATE STREAM doubled AS SELECT id, ts, 2 * amount AS twice FROM orders"
[[views]]
sql = "CREATE MATERIALIZED VIEW twice_by_id AS SELECT id, count(*) AS orders, max(ts) AS at FROM doubled GROUP BY id"
[[streams]]
name = "steps"
topic = "twice_by_id"
event_time = "at"
columns = [{ name = "id", type = "VARCHAR", required = true }, { name = "at", type = "TIMESTAMP", required = true }]
[[views]]
sql = "CREATE MATERIALIZED VIEW all_steps AS SELECT count(*) AS steps, max(id) AS most FROM steps"
"#;

#[test]
fn an_acknowledged_event_is_in_the_view() {
    let _alone = alone();
    let scratch = Scratch::new("fresh");
    let server = Server::with_config(&scratch, SYSTEM);
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &server.kafka)
        .set("acks", "all")
        .set("linger.ms", "0")
        .create()
        .unwrap();
    let mut missed = Vec::new();
    for i in 0..EVENTS {
        let id = format!("order-{i}");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let value = format!(r#"{{"id":"{id}","ts":{now},"amount":{i}}}"#);
        let sent = producer.send(FutureRecord::to("orders").key(&id).payload(&value), Duration::from_secs(30));
        let delivery = futures::executor::block_on(sent).map_err(|(e, _)| e).unwrap();
        let answer = server.http.get(&format!("/v1/views/by_id?id={id}"));
        let row = rows(&answer);
        let offset = answer["offsets"]["orders"][delivery.partition.to_string()].as_i64();
        // The sum of a BIGINT is an exact decimal, which JSON carries as text.
        if row != [[serde_json::json!(id), 1.into(), i.to_string().into()]]
            || answer["stale"] != false
            || offset.is_none_or(|offset| offset <= delivery.offset)
        {
            missed.push(format!("{id} at {}/{}: {answer}", delivery.partition, delivery.offset));
        }
        for (path, wanted) in
            [(format!("twice_by_id?id={id}"), serde_json::json!(1)), ("all_steps".to_owned(), serde_json::json!(i + 1))]
        {
            let answer = server.http.get(&format!("/v1/views/{path}"));
            if rows(&answer).iter().flatten().all(|cell| *cell != wanted) || answer["stale"] != false {
                missed.push(format!("{id} in {path}: {answer}"));
            }
        }
        let sql = format!("SELECT count(*) AS n FROM doubled WHERE id = '{id}'");
        let counted = server.http.sql(&sql);
        if counted != [[serde_json::json!(1)]] {
            missed.push(format!("{id} in SQL over the derived stream: {counted:?}"));
        }
        if i % 10 == 0 {
            let counts: i64 =
                rows(&server.http.get("/v1/views/by_minute")).iter().map(|row| row[2].as_i64().unwrap()).sum();
            if counts != i + 1 {
                missed.push(format!("{counts} orders by minute instead of {}", i + 1));
            }
        }
    }
    assert!(missed.is_empty(), "{} of {EVENTS} missed:\n{}", missed.len(), missed[..missed.len().min(10)].join("\n"));
}
