//! A stream of clicks, for cases that know every window of it.

use super::server::Server;
use super::writer::idempotent;
use rand::Rng;
use rand::rngs::StdRng;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// Its declaration.
pub const STREAM: &str = r#"
[[streams]]
name = "clicks"
topic = "clicks"
event_time = "ts"
lateness = "20s"
idle_timeout = "1h"
columns = [
    { name = "user_id", type = "BIGINT", required = true },
    { name = "price", type = "BIGINT", required = true },
    { name = "ts", type = "TIMESTAMP", required = true },
]
"#;

/// One of its events.
#[derive(Clone, Copy)]
pub struct Click {
    pub user: i64,
    pub price: i64,
    pub ts: i64,
}

impl Click {
    /// By some user, at some price.
    pub fn random(random: &mut StdRng, ts: i64) -> Click {
        Click { user: random.random_range(0..12), price: random.random_range(0..1_000), ts }
    }
}

/// Each click, acknowledged by all, once.
pub fn write(address: &str, clicks: &[Click]) {
    let producer: ThreadedProducer<_> = idempotent(address).create().unwrap();
    for click in clicks {
        let value = json!({ "user_id": click.user, "price": click.price, "ts": click.ts }).to_string();
        producer.send(BaseRecord::<str, str>::to("clicks").payload(&value)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Writes clicks in three parts, then kills the server, wherever its views are, and starts it again.
pub fn write_and_kill(server: &mut Server, clicks: &[Click], random: &mut StdRng) {
    for part in clicks.chunks(clicks.len().div_ceil(3)) {
        write(&server.kafka, part);
        thread::sleep(Duration::from_millis(random.random_range(0..60)));
    }
    server.kill9();
    server.start_again();
}

/// The clicks of each session: those of a user that follow one another within a gap.
pub fn sessions(clicks: &[Click], gap_ms: i64) -> Vec<Vec<Click>> {
    let mut sorted = clicks.to_vec();
    sorted.sort_by_key(|click| (click.user, click.ts));
    let together = |a: &Click, b: &Click| a.user == b.user && b.ts - a.ts <= gap_ms;
    sorted.chunk_by(together).map(<[Click]>::to_vec).collect()
}

/// A moment of an answer, in milliseconds.
pub fn ms(value: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap().timestamp_millis()
}
