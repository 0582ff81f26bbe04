//! Tokens for partitions that are made and deleted (KIP-599): a bucket for each limit, filled at the limit's rate up to what
//! eleven seconds of it give. One request may take more than there is; then nobody takes any until the debt is paid.

use super::clients::Clients;
use super::quota::{Limit, Quota};
use crate::types::TimestampMs;

/// How many seconds' worth of its rate a bucket has room for (`controller.quota.window.num` of a second each).
const ROOM_SECONDS: f64 = 11.0;

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: TimestampMs,
    rate: f64,
}

impl Bucket {
    fn full(rate: f64, now: TimestampMs) -> Self {
        Self { tokens: ROOM_SECONDS * rate, filled_at: now, rate }
    }

    fn is_full(&mut self, now: TimestampMs) -> bool {
        self.fill(now);
        self.tokens >= ROOM_SECONDS * self.rate
    }

    fn fill(&mut self, now: TimestampMs) {
        let seconds = now.saturating_sub(self.filled_at) as f64 / 1_000.0;
        self.tokens = (self.tokens + seconds * self.rate).min(ROOM_SECONDS * self.rate);
        self.filled_at = now;
    }

    fn debt_ms(&self) -> i64 {
        if self.tokens < 0.0 { (-self.tokens / self.rate * 1_000.0).round() as i64 } else { 0 }
    }
}

/// All buckets. Holds: the tokens of those who have limits. A crash fills them.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    buckets: Clients<Bucket>,
}

impl Buckets {
    /// Takes `amount` tokens and gives for how many milliseconds the client must be still. A `strict` taker is not made to be
    /// still, but has nothing from a bucket in debt.
    ///
    /// # Errors
    /// For how many milliseconds the bucket is still in debt.
    pub(super) fn take(&mut self, limit: Limit, amount: f64, strict: bool, now: TimestampMs) -> Result<i64, i64> {
        let rate = limit.bound;
        let whose = (Quota::ControllerMutationRate, limit);
        let bucket = self.buckets.count(whose, |bucket| bucket.is_full(now), || Bucket::full(rate, now));
        bucket.fill(now);
        bucket.rate = rate;
        let debt_ms = bucket.debt_ms();
        if strict && debt_ms > 0 {
            return Err(debt_ms);
        }
        bucket.tokens -= amount;
        Ok(if strict { 0 } else { bucket.debt_ms() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::clients::CLIENTS_MAX;

    fn limit(bound: f64, user: &str) -> Limit {
        Limit { bound, user: Some(user.into()), client_id: None }
    }

    #[test]
    fn the_last_tokens_may_buy_more_than_they_are_worth() {
        let mut buckets = Buckets::default();
        let mut take = |amount, now| buckets.take(limit(2.0, "ann"), amount, true, now);
        assert_eq!(take(21.0, 0), Ok(0), "22 are in it");
        assert_eq!(take(9.0, 0), Ok(0));
        assert_eq!(take(1.0, 0), Err(4_000), "8 tokens in debt at 2 a second");
        assert_eq!(take(1.0, 3_999), Err(1));
        assert_eq!(take(1.0, 4_000), Ok(0), "paid");
        assert_eq!(take(1.0, 4_000), Err(500));
        assert_eq!(take(22.0, 60_000), Ok(0), "it is never fuller than at the beginning");
        assert_eq!(take(1.0, 60_000), Ok(0));
        assert_eq!(take(1.0, 60_000), Err(500));
    }

    #[test]
    fn who_knows_no_limits_is_served_and_made_to_be_still() {
        let mut buckets = Buckets::default();
        let mut take = |amount| buckets.take(limit(0.5, "bob"), amount, false, 7);
        assert_eq!(take(5.0), Ok(0));
        assert_eq!(take(1.0), Ok(1_000));
        assert_eq!(take(1.0), Ok(3_000));
        assert_eq!(buckets.take(limit(0.5, "ann"), 5.0, false, 7), Ok(0), "hers is another");
    }

    #[test]
    fn buckets_have_a_bound() {
        let mut buckets = Buckets::default();
        for user in 0..CLIENTS_MAX + 2 {
            assert_eq!(buckets.take(limit(1.0, &user.to_string()), 11.0, true, 0), Ok(0));
        }
        assert_eq!(buckets.buckets.len(), CLIENTS_MAX + 1, "those beyond share one");
        assert_eq!(buckets.take(limit(1.0, "new"), 1.0, true, 11_000), Ok(0));
        assert_eq!(buckets.buckets.len(), 2, "full ones are forgotten, the shared one is not full");
    }
}
