//! The events that are counted: JSON as applications write it, and the stream over it.

use std::ops::Range;
use std::sync::Arc;

use broker::{Batch, BatchBuilder, Broker, Partition, Random};
use engine::{ColumnConfig, EngineConfig, StreamConfig, ViewConfig};

use crate::{Outcome, log};

/// The stream, and its topic.
pub const TOPIC: &str = "plays";

/// Which events there are. All follows from an event's number.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Distinct users; without a pattern, unless `in_turn`.
    pub users: u64,
    /// Whether users come one after the other.
    pub in_turn: bool,
    /// Event time of the first event.
    pub first_ms: i64,
    /// Event time that a million events spread over.
    pub million_ms: i64,
    /// Bytes of text that nobody groups by.
    pub note_bytes: usize,
}

impl Load {
    pub fn time_ms(&self, number: usize) -> i64 {
        self.first_ms + i64::try_from(number as u128 * self.million_ms.unsigned_abs() as u128 / 1_000_000).unwrap_or(0)
    }

    pub fn event(&self, number: usize) -> String {
        let mixed = Random::new(number as u64).next();
        let user = if self.in_turn { number as u64 % self.users } else { (mixed >> 20) % self.users };
        let mut event = format!(
            "{{\"event\":\"listen\",\"user_id\":{user},\"track_id\":\"track-{:06}\",\"genre\":\"{}\",\"duration_ms\":{},\
             \"country\":\"SE\",\"device\":\"phone\",\"ts\":{:013}",
            (mixed >> 20) % 1_000_000,
            ["jazz", "rock", "folk", "soul"][number % 4],
            30_000 + (mixed >> 33) % 300_000,
            self.time_ms(number),
        );
        if self.note_bytes > 0 {
            let text = format!("{mixed:016x}");
            event.push_str(",\"note\":\"");
            (0..self.note_bytes.div_ceil(text.len())).for_each(|_| event.push_str(&text));
            event.push('"');
        }
        event.push('}');
        event
    }

    /// Some events in a batch.
    pub fn batch(&self, numbers: Range<usize>) -> Outcome<Batch> {
        let mut batch = BatchBuilder::new();
        for number in numbers {
            batch.push(self.time_ms(number), None, Some(self.event(number).as_bytes()), &[]);
        }
        batch.build().ok_or_else(|| "a batch without records".into())
    }
}

/// Writes events in the order of their numbers, to the partitions batch by batch in turn.
pub async fn write(broker: &Broker, partitions: &[Arc<Partition>], load: &Load, numbers: Range<usize>) -> Outcome<()> {
    log::fill(broker, partitions, numbers, |numbers| load.batch(numbers)).await
}

/// The stream, and views over it.
pub fn config(views: Vec<String>) -> EngineConfig {
    let columns = [
        ("user_id", "BIGINT"),
        ("event", "VARCHAR"),
        ("genre", "VARCHAR"),
        ("duration_ms", "BIGINT"),
        ("note", "VARCHAR"),
        ("ts", "TIMESTAMP"),
    ];
    let column = |(name, sql_type): (&str, &str)| ColumnConfig {
        name: name.into(),
        sql_type: sql_type.into(),
        ..ColumnConfig::default()
    };
    let view = |sql| ViewConfig { sql, source: "benches/engine".into(), ..ViewConfig::default() };
    EngineConfig {
        streams: vec![StreamConfig {
            name: TOPIC.into(),
            topic: TOPIC.into(),
            columns: columns.map(column).to_vec(),
            event_time: "ts".into(),
            ..StreamConfig::default()
        }],
        views: views.into_iter().map(view).collect(),
        ..EngineConfig::default()
    }
}
