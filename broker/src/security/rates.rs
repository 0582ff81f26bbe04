//! What clients use, measured as Kafka measures it: eleven samples of a second, and the time a client has to be still until
//! its rate over them is its limit again.

use std::collections::VecDeque;

use super::clients::Clients;
use super::quota::{Limit, Quota};
use crate::types::TimestampMs;

/// Length of a sample.
const SAMPLE_MS: i64 = 1_000;
/// Samples that count (`quota.window.num`).
const SAMPLES: i64 = 11;
/// Longest stillness for requests (Kafka: one sample), so that a slow request does not lock its client out.
const REQUEST_THROTTLE_MS_MAX: i64 = SAMPLE_MS;

/// Use over the last samples: when each began, and what was used in it.
#[derive(Debug, Default)]
struct Meter {
    samples: VecDeque<(TimestampMs, f64)>,
}

impl Meter {
    fn is_still(&mut self, now: TimestampMs) -> bool {
        self.forget(now);
        self.samples.is_empty()
    }

    fn forget(&mut self, now: TimestampMs) {
        while self.samples.front().is_some_and(|(start, _)| now - start >= SAMPLES * SAMPLE_MS) {
            self.samples.pop_front();
        }
    }

    fn record(&mut self, now: TimestampMs, amount: f64) {
        self.forget(now);
        match self.samples.back_mut() {
            Some((start, used)) if now - *start < SAMPLE_MS => *used += amount,
            _ => self.samples.push_back((now, amount)),
        }
    }

    /// Milliseconds that the samples stand for: at least all but one of them, so that a beginning is no peak.
    fn window_ms(&self, now: TimestampMs) -> i64 {
        let elapsed = self.samples.front().map_or(0, |(start, _)| now - start);
        let missing = (SAMPLES - 1 - elapsed / SAMPLE_MS).max(0);
        elapsed + missing * SAMPLE_MS
    }

    /// How long to be still until the use is the limit again.
    fn throttle_ms(&mut self, now: TimestampMs, bound: f64) -> i64 {
        self.forget(now);
        let window_ms = self.window_ms(now) as f64;
        let used: f64 = self.samples.iter().map(|(_, used)| used).sum();
        let rate = used / (window_ms / 1_000.0);
        if rate <= bound { 0 } else { ((rate - bound) / bound * window_ms).round() as i64 }
    }
}

/// All meters. Holds: use of the last seconds of those who have limits. A crash forgets it.
#[derive(Debug, Default)]
pub(super) struct Rates {
    meters: Clients<Meter>,
}

impl Rates {
    /// Counts `amount` and says for how many milliseconds the client must be still.
    pub(super) fn record(&mut self, quota: Quota, limit: Limit, amount: f64, now: TimestampMs) -> i64 {
        let bound = limit.bound;
        let meter = self.meter(quota, limit, now);
        meter.record(now, amount);
        let throttle = meter.throttle_ms(now, bound);
        let most = if quota == Quota::RequestPercentage { REQUEST_THROTTLE_MS_MAX } else { i64::from(i32::MAX) };
        throttle.min(most)
    }

    /// Takes back what was counted for an answer that is not sent.
    pub(super) fn take_back(&mut self, quota: Quota, limit: Limit, amount: f64, now: TimestampMs) {
        self.meter(quota, limit, now).record(now, -amount);
    }

    fn meter(&mut self, quota: Quota, limit: Limit, now: TimestampMs) -> &mut Meter {
        self.meters.count((quota, limit), |meter| meter.is_still(now), Meter::default)
    }
}

/// Bytes that one answer may have under a limit: ten seconds of it.
pub(super) fn answer_bytes_max(bound: f64) -> usize {
    let seconds = (SAMPLES - 1) as f64;
    (bound * seconds).min(i32::MAX.into()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::clients::CLIENTS_MAX;

    fn limit(bound: f64) -> Limit {
        Limit { bound, user: Some("ann".into()), client_id: None }
    }

    /// Kafka's arithmetic: 20 kB at a limit of 1 kB/s stand for 2 kB/s over ten seconds, so be still for ten seconds.
    #[test]
    fn throttle_times_are_kafkas() {
        let mut rates = Rates::default();
        let mut used = |amount, now| rates.record(Quota::ProducerByteRate, limit(1_000.0), amount, now);
        assert_eq!(used(10_000.0, 50_000), 0, "ten seconds' worth at once is allowed");
        assert_eq!(used(10_000.0, 50_000), 10_000);
        assert_eq!(used(0.0, 55_000), 10_000, "the window does not grow before it is full");
        assert_eq!(used(0.0, 60_500), 9_500, "20 kB over 10.5 s");
        assert_eq!(used(0.0, 61_000), 0, "eleven seconds later the sample is gone");
        let mut rates = Rates::default();
        let mut busy = |amount| rates.record(Quota::RequestPercentage, limit(1.0), amount, 0);
        assert_eq!(busy(1_000.0), 1_000, "requests: a second at most");
    }

    #[test]
    fn what_is_taken_back_does_not_count() {
        let mut rates = Rates::default();
        assert!(rates.record(Quota::ConsumerByteRate, limit(10.0), 1_000.0, 0) > 0);
        rates.take_back(Quota::ConsumerByteRate, limit(10.0), 1_000.0, 0);
        assert_eq!(rates.record(Quota::ConsumerByteRate, limit(10.0), 0.0, 0), 0);
        assert_eq!(answer_bytes_max(10.0), 100);
        assert_eq!(answer_bytes_max(f64::MAX), i32::MAX as usize);
    }

    #[test]
    fn meters_are_bounded() {
        let mut rates = Rates::default();
        for client in 0..CLIENTS_MAX + 10 {
            let limit = Limit { bound: 1.0, user: None, client_id: Some(client.to_string()) };
            rates.record(Quota::ProducerByteRate, limit, 1.0, 0);
        }
        assert_eq!(rates.meters.len(), CLIENTS_MAX + 1);
        rates.record(Quota::ProducerByteRate, limit(1.0), 1.0, 20_000);
        assert_eq!(rates.meters.len(), 1, "who was still for long is forgotten");
    }
}
