//! What was sent, what came of it, and how long it took.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

/// Buckets per doubling of the latency: the error of a quantile is below 1/16.
const STEPS: usize = 16;
const BUCKETS: usize = 40 * STEPS;

/// Counts of latencies, in microseconds, by size class.
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: vec![0; BUCKETS], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, micros: u64) {
        let bucket = ((micros.max(1) as f64).log2() * STEPS as f64) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// The latency in milliseconds that a share of the counted ones does not pass.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let above = 2f64.powf((bucket + 1) as f64 / STEPS as f64);
                return above.min(self.max as f64) / 1_000.0;
            }
        }
        0.0
    }
}

/// Counts, filled in by the delivery reports.
#[derive(Default)]
pub struct Counts {
    /// Handed to the producer.
    pub sent: u64,
    /// Acknowledged by every replica.
    pub acked: u64,
    /// Bytes of keys and values acknowledged.
    pub acked_bytes: u64,
    /// Given up.
    pub failed: u64,
    /// Requests' worth of messages that the producer sent again.
    pub retried: u64,
    /// Acknowledged by kind, by its number.
    pub kinds: Vec<u64>,
    /// Reasons of those given up.
    pub errors: BTreeMap<String, u64>,
    /// From handing over to acknowledgement.
    pub latency: Histogram,
}

/// What a run was.
pub struct Run {
    /// The system or file.
    pub system: String,
    /// The topic written to.
    pub topic: String,
    /// The seed of all draws.
    pub seed: u64,
    /// Names of kinds by number.
    pub kinds: Vec<String>,
    /// Wall time in seconds.
    pub seconds: f64,
}

impl Counts {
    /// The machine-readable report.
    pub fn to_json(&self, run: &Run) -> Value {
        let kinds: serde_json::Map<String, Value> =
            run.kinds.iter().zip(&self.kinds).map(|(name, count)| (name.clone(), json!(count))).collect();
        json!({
            "system": run.system,
            "topic": run.topic,
            "seed": run.seed,
            "sent": self.sent,
            "acked": self.acked,
            "failed": self.failed,
            "retried": self.retried,
            "kinds": kinds,
            "errors": self.errors,
            "bytes": self.acked_bytes,
            "seconds": run.seconds,
            "records_per_s": self.acked as f64 / run.seconds,
            "mib_per_s": self.acked_bytes as f64 / run.seconds / f64::from(1 << 20),
            "latency_ms": {
                "p50": self.latency.quantile_ms(0.5),
                "p99": self.latency.quantile_ms(0.99),
                "p999": self.latency.quantile_ms(0.999),
                "max": self.latency.max as f64 / 1_000.0,
            },
        })
    }

    /// One line about the run so far.
    pub fn line(&self, seconds: f64, rate: f64) -> String {
        format!(
            "{:>6.0} s  sent {}  acknowledged {}  failed {}  {:.0} records/s  p50 {:.1} ms  p99 {:.1} ms",
            seconds,
            self.sent,
            self.acked,
            self.failed,
            rate,
            self.latency.quantile_ms(0.5),
            self.latency.quantile_ms(0.99)
        )
    }

    /// The report for people.
    pub fn text(&self, run: &Run) -> String {
        let mut out = String::new();
        // writing to a String cannot fail
        let _ = writeln!(
            out,
            "{} to topic {}, seed {}: sent {}, acknowledged {}, failed {}, sent again by the producer {}",
            run.system, run.topic, run.seed, self.sent, self.acked, self.failed, self.retried
        );
        let _ = writeln!(
            out,
            "{:.2} s, {:.0} records/s, {:.2} MiB/s; latency p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
            run.seconds,
            self.acked as f64 / run.seconds,
            self.acked_bytes as f64 / run.seconds / f64::from(1 << 20),
            self.latency.quantile_ms(0.5),
            self.latency.quantile_ms(0.99),
            self.latency.quantile_ms(0.999),
            self.latency.max as f64 / 1_000.0
        );
        for (name, count) in run.kinds.iter().zip(&self.kinds) {
            let _ = writeln!(out, "  {name:<24} {count:>12}");
        }
        for (reason, count) in &self.errors {
            let _ = writeln!(out, "  failed: {reason}: {count}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|micros| histogram.add(micros * 10));
        for (share, ms) in [(0.5, 50.0), (0.99, 99.0), (0.999, 99.9), (1.0, 100.0)] {
            let found = histogram.quantile_ms(share);
            assert!((found / ms - 1.0).abs() < 0.07, "{share}: {found}");
        }
        assert_eq!(Histogram::default().quantile_ms(0.5), 0.0);
    }
}
