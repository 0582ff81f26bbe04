//! Rates of the last minutes, for the page and for the names that kafka-ui reads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::{Broker, TimestampMs, TopicName};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Time between two looks at the counters.
const EVERY: Duration = Duration::from_secs(5);
/// Looks that are kept: fifteen minutes.
const SAMPLES_MAX: usize = 180;
/// Weight of a new look in a fifteen-minute mean, as Kafka's meters have it: 1 - e^(-5 s / 900 s).
const FIFTEEN_MINUTE_WEIGHT: f64 = 0.005_540_153_698_3;
/// Weight of a new look in the figure people look at, which follows within half a minute: 1 - e^(-5 s / 15 s).
const SHORT_WEIGHT: f64 = 0.283_468_689_4;

/// Rates of one topic, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Records appended per second, over the last half minute.
    pub records_per_s: f64,
    /// Bytes appended per second, over the last half minute.
    pub bytes_per_s: f64,
    /// Bytes appended per second, over the last fifteen minutes as Kafka's meters weigh them.
    pub bytes_per_s_15m: f64,
}

/// One look at the counters of the whole broker, as rates since the look before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When, in ms since 1970.
    pub at: TimestampMs,
    /// Records appended per second.
    pub records_in: f64,
    /// Bytes appended per second.
    pub bytes_in: f64,
    /// Bytes sent to consumers per second.
    pub bytes_out: f64,
}

/// What the looks have shown. One task writes it, requests read it; it starts empty with the process.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    topics: BTreeMap<TopicName, (Totals, Rate)>,
    all: Option<(TimestampMs, Totals)>,
    total_in: Rate,
    bytes_out_15m: f64,
    samples: VecDeque<Sample>,
}

/// Figures that only grow.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    records: u64,
    bytes: u64,
    bytes_out: u64,
}

impl Rates {
    /// Looks at the counters every five seconds until `stopping`.
    pub fn start(broker: Arc<Broker>, mut stopping: watch::Receiver<bool>) -> Arc<Rates> {
        let rates = Arc::new(Rates::default());
        let looking = rates.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    _ = ticks.tick() => looking.look(&broker),
                    _ = stopping.changed() => return,
                }
            }
        });
        rates
    }

    /// The rates of a topic; zero before the second look at it.
    pub fn topic(&self, name: &str) -> Rate {
        self.0.lock().topics.get(name).map(|(_, rate)| *rate).unwrap_or_default()
    }

    /// The rates of all topics together.
    pub fn total(&self) -> Rate {
        self.0.lock().total_in
    }

    /// Bytes sent to consumers per second, over the last fifteen minutes.
    pub fn bytes_out_15m(&self) -> f64 {
        self.0.lock().bytes_out_15m
    }

    /// The looks of the last fifteen minutes, oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.0.lock().samples.iter().copied().collect()
    }

    fn look(&self, broker: &Broker) {
        let counters = broker.counters();
        let totals = Totals {
            records: counters.records_in.load(Ordering::Relaxed),
            bytes: counters.bytes_in.load(Ordering::Relaxed),
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
        };
        let topics = broker.catalog().topics().into_iter().map(|topic| {
            let partitions = topic.partitions();
            let records: i64 = partitions.iter().map(|p| p.high_watermark()).sum();
            let bytes = partitions.iter().map(|p| p.bytes_total()).sum();
            (topic.name().clone(), Totals { records: records.unsigned_abs(), bytes, bytes_out: 0 })
        });
        self.take(broker.clock().now_ms(), totals, topics.collect());
    }

    fn take(&self, now: TimestampMs, totals: Totals, topics: Vec<(TopicName, Totals)>) {
        let mut inner = self.0.lock();
        let before = inner.all.replace((now, totals));
        let Some((then, before)) = before.filter(|(then, _)| *then < now) else {
            inner.topics = topics.into_iter().map(|(name, totals)| (name, (totals, Rate::default()))).collect();
            return;
        };
        let seconds = (now - then) as f64 / 1000.0;
        let sample = Sample {
            at: now,
            records_in: per_second(before.records, totals.records, seconds),
            bytes_in: per_second(before.bytes, totals.bytes, seconds),
            bytes_out: per_second(before.bytes_out, totals.bytes_out, seconds),
        };
        let mut total_in = inner.total_in;
        total_in.add(sample.records_in, sample.bytes_in);
        inner.total_in = total_in;
        inner.bytes_out_15m += (sample.bytes_out - inner.bytes_out_15m) * FIFTEEN_MINUTE_WEIGHT;
        inner.samples.push_back(sample);
        if inner.samples.len() > SAMPLES_MAX {
            inner.samples.pop_front();
        }
        let mut old = std::mem::take(&mut inner.topics);
        inner.topics = topics
            .into_iter()
            .map(|(name, totals)| {
                // A topic that is new since the last look started from nothing.
                let (before, mut rate) = old.remove(&name).unwrap_or_default();
                rate.add(
                    per_second(before.records, totals.records, seconds),
                    per_second(before.bytes, totals.bytes, seconds),
                );
                (name, (totals, rate))
            })
            .collect();
    }
}

impl Rate {
    fn add(&mut self, records: f64, bytes: f64) {
        self.records_per_s += (records - self.records_per_s) * SHORT_WEIGHT;
        self.bytes_per_s += (bytes - self.bytes_per_s) * SHORT_WEIGHT;
        self.bytes_per_s_15m += (bytes - self.bytes_per_s_15m) * FIFTEEN_MINUTE_WEIGHT;
    }
}

/// Growth per second; a topic that was made anew may show less than before.
fn per_second(before: u64, now: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_a_steady_load_and_fall_when_it_ends() {
        let rates = Rates::default();
        let topic: TopicName = "t".into();
        let mut total = 0;
        for look in 0..60 {
            let totals = Totals { records: total, bytes: total * 100, bytes_out: 0 };
            rates.take(look * 5_000, totals, vec![(topic.clone(), totals)]);
            total += 5_000;
        }
        let steady = rates.topic("t");
        assert!((steady.records_per_s - 1_000.0).abs() < 1.0, "{steady:?}");
        assert!((rates.total().bytes_per_s - 100_000.0).abs() < 100.0);
        assert!(steady.bytes_per_s_15m > 20_000.0 && steady.bytes_per_s_15m < 40_000.0, "{steady:?}");
        let totals = Totals { records: total - 5_000, bytes: (total - 5_000) * 100, bytes_out: 0 };
        for look in 60..90 {
            rates.take(look * 5_000, totals, vec![(topic.clone(), totals)]);
        }
        assert!(rates.topic("t").records_per_s < 1.0);
        assert_eq!(rates.samples().len(), 89);
        rates.take(90 * 5_000, totals, Vec::new());
        assert_eq!(rates.topic("t"), Rate::default(), "a deleted topic has no rate");
    }

    #[test]
    fn at_most_fifteen_minutes_are_kept() {
        let rates = Rates::default();
        for look in 0..400 {
            rates.take(look * 5_000, Totals::default(), Vec::new());
        }
        assert_eq!(rates.samples().len(), SAMPLES_MAX);
    }
}
