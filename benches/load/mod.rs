//! The load: librdkafka over TCP, the same for every broker.

mod consume;
mod first;
mod open_loop;
mod produce;
mod reports;
mod topics;

use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

pub use consume::{consume, consumer_of, round_trips};
pub use first::first_record;
pub use open_loop::{Offered, open_loop};
pub use produce::{flat_out, produce, produce_delays, warm_up};
pub use reports::{Reports, all_reported, producing, send};
pub use topics::{create_topics, delete_topics, flush_each};

/// How long an answer may take before the run fails: Kafka takes long to open thousands of partitions.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// What is sent where.
#[derive(Clone, Debug)]
pub struct Target {
    /// `HOST:PORT`.
    pub bootstrap: String,
    /// Exists, with `partitions` partitions, and is empty.
    pub topic: String,
    /// Records go to them in turn.
    pub partitions: i32,
    /// Records that go to one partition before the next one's turn.
    pub run: usize,
    /// `1` or `all`.
    pub acks: &'static str,
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// Of so many keys records have one after the other; nothing where they have none.
    pub keys: Option<usize>,
}

impl Target {
    /// Records of 1 KiB without keys one by one to partitions in turn, `acks=all`.
    pub fn new(bootstrap: &str, topic: &str, partitions: i32) -> Self {
        let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
        Self { bootstrap, topic, partitions, run: 1, acks: "all", record_bytes: 1024, keys: None }
    }

    /// The partition of the record with this number.
    fn partition(&self, index: usize) -> i32 {
        let partition = index / self.run % self.partitions_usize();
        i32::try_from(partition).expect("below the number of partitions, which is an i32")
    }

    /// `partitions`, for counting.
    pub fn partitions_usize(&self) -> usize {
        self.partitions.unsigned_abs() as usize
    }
}

/// What a phase moved.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Records acknowledged or received.
    pub records: usize,
    /// How long it took.
    pub seconds: f64,
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("broker.address.family", "v4");
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// Bytes without a pattern, longer than a record, so that no two neighbours are equal.
fn noise(record_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(record_bytes + (1 << 20));
    while bytes.len() < record_bytes + (1 << 20) {
        // xorshift64: the same bytes in every run
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
