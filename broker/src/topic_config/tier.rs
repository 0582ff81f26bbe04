//! Tiered storage (KIP-405) among the settings of a topic: whether clients also read what the log let go, and how much of it
//! the log itself keeps. What of it contradicts itself is refused as in Kafka.

use super::TopicConfig;
use crate::error::{Error, Kind, Result};

/// "As the topic's retention says."
const AS_RETENTION: i64 = -2;

/// The second tier of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tier {
    /// `remote.storage.enable`.
    pub(super) on: bool,
    /// `remote.log.delete.on.disable`.
    pub(super) delete_on_disable: bool,
    /// `local.retention.ms`.
    pub(super) local_ms: i64,
    /// `local.retention.bytes`.
    pub(super) local_bytes: i64,
}

impl Tier {
    /// Whether this fits the rest of a topic's settings: retention in ms and bytes, and whether it is compacted.
    ///
    /// # Errors
    /// `InvalidConfig`.
    pub(super) fn check(&self, retention: (i64, i64), compacts: bool) -> Result<()> {
        if !self.on {
            return Ok(());
        }
        if compacts {
            let message =
                "remote.storage.enable is not served for compacted topics, leave compact out of cleanup.policy";
            return Err(Error::new(Kind::InvalidConfig, message));
        }
        within(("local.retention.ms", self.local_ms), ("retention.ms", retention.0))?;
        within(("local.retention.bytes", self.local_bytes), ("retention.bytes", retention.1))
    }

    /// For how many ms, and how many bytes, the log itself keeps records; -1 without bound.
    pub(super) fn local(&self, retention: (i64, i64)) -> (i64, i64) {
        let or = |own: i64, total: i64| if own == AS_RETENTION { total } else { own };
        (or(self.local_ms, retention.0), or(self.local_bytes, retention.1))
    }
}

impl TopicConfig {
    /// Whether clients are served from the cold log what the log let go (`remote.storage.enable`).
    pub fn is_tiered(&self) -> bool {
        self.tier.on
    }

    /// Whether what the cold log has goes when the topic is not tiered (`remote.log.delete.on.disable`).
    pub fn deletes_untiered(&self) -> bool {
        self.tier.delete_on_disable
    }

    /// For how many milliseconds, and how many bytes, the log of a tiered topic keeps records that the cold log has; -1 without
    /// bound.
    pub fn local_retention(&self) -> (i64, i64) {
        self.tier.local((self.retention_ms, self.retention_bytes))
    }
}

/// The log keeps no more than there is in all.
fn within((name, local): (&str, i64), (total_name, total): (&str, i64)) -> Result<()> {
    if total < 0 || local == AS_RETENTION || (0..=total).contains(&local) {
        return Ok(());
    }
    let message = format!("{name} ({local}) must not be larger than {total_name} ({total})");
    Err(Error::new(Kind::InvalidConfig, message))
}
