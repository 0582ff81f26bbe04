//! How much of the last thirty days the server was there, to be held against a target.
//!
//! ```text
//! meta  "uptime"  → JSON {"v":1,"first":ms,"seen":ms,"gaps":[[from ms, to ms], …]}
//! ```
//! `seen` is written every ten seconds and at a clean stop. From it to the next start is a gap, so that a crash counts for at most ten
//! seconds too much and never for too little.

use std::sync::Arc;
use std::time::Duration;

use broker::{Ack, Broker, Change, Family, TimestampMs};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::output::time_text;

/// The share of time that the server promises to be there.
const TARGET: f64 = 0.99;
/// What is looked back on.
const PERIOD_MS: i64 = 30 * 86_400_000;
/// Time between two marks.
const EVERY: Duration = Duration::from_secs(10);
/// Most gaps that are remembered apart; the two oldest then become one, with the time between them.
const GAPS_MAX: usize = 500;
const KEY: &[u8] = b"uptime";
const VERSION: u32 = 1;

/// When the server was there. One task writes it, requests read it; `seen` and the gaps survive a crash.
pub struct Uptime(Mutex<Record>);

/// What is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    v: u32,
    /// The first start.
    first: TimestampMs,
    /// When it was last there.
    seen: TimestampMs,
    /// From when to when it was not.
    gaps: Vec<(TimestampMs, TimestampMs)>,
}

impl Uptime {
    /// Reads what is known, notes the gap until now, and goes on marking until `stopping`; the task ends with a last mark.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn start(
        broker: &Arc<Broker>,
        mut stopping: watch::Receiver<bool>,
    ) -> broker::Result<(Arc<Uptime>, JoinHandle<()>)> {
        let stored = broker.store().get(Family::Meta, KEY)?;
        let known = stored.and_then(|value| serde_json::from_slice(&value).ok());
        let uptime = Arc::new(Uptime(Mutex::new(Record::begin(known, broker.clock().now_ms()))));
        uptime.mark(broker).await?;
        let (marking, broker) = (uptime.clone(), broker.clone());
        let task = tokio::spawn(async move {
            loop {
                let stop = tokio::select! {
                    () = tokio::time::sleep(EVERY) => false,
                    _ = stopping.wait_for(|stop| *stop) => true,
                };
                if let Err(error) = marking.mark(&broker).await {
                    tracing::warn!(%error, "that the server is there could not be written down");
                    return;
                }
                if stop {
                    return;
                }
            }
        });
        Ok((uptime, task))
    }

    async fn mark(&self, broker: &Broker) -> broker::Result<()> {
        let value = {
            let mut record = self.0.lock();
            record.see(broker.clock().now_ms());
            serde_json::to_vec(&*record)
        };
        let value = value.map_err(|error| broker::Error::new(broker::Kind::Bug, format!("uptime: {error}")))?;
        broker.lane().commit(vec![Change::Put(Family::Meta, KEY.to_vec(), value)], Ack::Written).await.map(drop)
    }

    /// The share of the period in which the server was there, 0 to 1.
    pub fn share(&self, now: TimestampMs) -> f64 {
        self.0.lock().share(now)
    }

    /// The state, for `/v1/status`.
    pub fn to_json(&self, now: TimestampMs) -> Value {
        let record = self.0.lock();
        let (start, share) = (record.start(now), record.share(now));
        json!({
            "share": share,
            "target": TARGET,
            "status": if share >= TARGET { "green" } else { "red" },
            "since": time_text(start),
            "down_s": record.down_ms(now) / 1_000,
            "interruptions": record.gaps.iter().filter(|gap| gap.1 > start).count(),
        })
    }
}

impl Record {
    /// What holds at a start.
    fn begin(known: Option<Record>, now: TimestampMs) -> Record {
        let mut record = match known {
            Some(record) if record.v == VERSION && record.seen <= now => record,
            // nothing, or a clock that was set back
            _ => return Record { v: VERSION, first: now, seen: now, gaps: Vec::new() },
        };
        if now > record.seen {
            record.gaps.push((record.seen, now));
        }
        if record.gaps.len() > GAPS_MAX {
            let oldest = record.gaps.remove(0);
            record.gaps[0].0 = oldest.0;
        }
        record.see(now);
        record
    }

    fn see(&mut self, now: TimestampMs) {
        self.seen = self.seen.max(now);
        let start = self.start(now);
        self.gaps.retain(|gap| gap.1 > start);
    }

    /// Since when is looked at.
    fn start(&self, now: TimestampMs) -> TimestampMs {
        self.first.max(now.saturating_sub(PERIOD_MS))
    }

    fn down_ms(&self, now: TimestampMs) -> i64 {
        let start = self.start(now);
        self.gaps.iter().map(|(from, to)| (to - (*from).max(start)).max(0)).sum()
    }

    fn share(&self, now: TimestampMs) -> f64 {
        let period = now - self.start(now);
        if period <= 0 { 1.0 } else { (1.0 - self.down_ms(now) as f64 / period as f64).clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn gaps_between_starts_count_for_thirty_days() {
        let mut record = Record::begin(None, 0);
        assert_eq!(record.share(0), 1.0);
        record.see(9 * DAY_MS);
        let mut record = Record::begin(Some(record), 10 * DAY_MS);
        assert_eq!((record.share(10 * DAY_MS), record.down_ms(10 * DAY_MS)), (0.9, DAY_MS));
        record.see(39 * DAY_MS);
        assert_eq!(record.down_ms(39 * DAY_MS + DAY_MS / 2), DAY_MS / 2, "what is older than thirty days is left out");
        record.see(41 * DAY_MS);
        assert!(record.gaps.is_empty() && record.share(41 * DAY_MS) == 1.0);
    }

    #[test]
    fn many_gaps_take_bounded_room_and_never_count_for_less() {
        let mut record = Record::begin(None, 0);
        for start in 1..=2 * GAPS_MAX as i64 {
            record.see(start * 1_000 - 500);
            record = Record::begin(Some(record), start * 1_000);
        }
        assert!(record.gaps.len() <= GAPS_MAX);
        assert!(record.down_ms(record.seen) >= GAPS_MAX as i64 * 1_000);
    }

    #[test]
    fn golden_bytes_and_a_clock_that_was_set_back() {
        let record = Record { v: 1, first: 1, seen: 9, gaps: vec![(2, 4)] };
        let text = r#"{"v":1,"first":1,"seen":9,"gaps":[[2,4]]}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<Record>(text).unwrap(), record);
        assert_eq!(Record::begin(Some(record), 5), Record { v: 1, first: 5, seen: 5, gaps: Vec::new() });
    }
}
