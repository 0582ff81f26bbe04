//! Wall-clock time is handed in, so that retention, timestamps and expiry replay in tests.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::types::TimestampMs;

/// Tells the time: the system's, or one that a test moves by hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `now` until it is advanced; clones share it.
    pub fn manual(now: TimestampMs) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now))))
    }

    /// Milliseconds since the epoch.
    #[allow(clippy::disallowed_methods, reason = "the one place that may ask the system")]
    pub fn now_ms(&self) -> TimestampMs {
        match &self.0 {
            Source::Manual(now) => now.load(Ordering::SeqCst),
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
        }
    }

    /// Milliseconds since some fixed moment, for timeouts: they pass evenly even when the system's wall clock is set.
    #[allow(clippy::disallowed_methods, reason = "the one place that may ask the system")]
    pub fn steady_ms(&self) -> i64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match &self.0 {
            Source::Manual(now) => now.load(Ordering::SeqCst),
            Source::System => i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Moves a manual clock forward; the system's clock is left alone.
    pub fn advance(&self, by_ms: i64) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(by_ms, Ordering::SeqCst);
        }
    }
}
