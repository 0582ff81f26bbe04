//! How long a peer may take to send a request or to read a reply: it must go on at a least rate, so that a byte now and
//! then does not hold memory for ever.

use std::time::Duration;

use tokio::time::Instant;

/// What a peer must send or read in a second.
const BYTES_A_SECOND: u64 = 64 * 1024;

/// A deadline that moves when enough bytes did.
pub(super) struct Pace {
    patience: Duration,
    /// When the bytes since which it counts had moved.
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// Begins now; what `patience` asks for at the least rate must move within it, and then again.
    pub(super) fn begin(patience: Duration) -> Pace {
        Pace { patience, since: Instant::now(), bytes: 0 }
    }

    /// Bytes moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let least = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX).saturating_mul(BYTES_A_SECOND) / 1000;
        if self.bytes >= least {
            *self = Pace::begin(self.patience);
        }
    }

    /// When patience ends.
    pub(super) fn until(&self) -> Instant {
        self.since + self.patience
    }

    /// When another patience, counted from the same moment, would end.
    pub(super) fn until_after(&self, patience: Duration) -> Instant {
        self.since + patience
    }
}
