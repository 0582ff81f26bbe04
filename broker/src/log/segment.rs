//! Segments: where the log is sealed. There are no files to roll here, so a segment is two figures: where the active one
//! began, and what was before it. Sealing happens at an append, by Kafka's rule (`segment.bytes`, `segment.ms`,
//! `segment.jitter.ms`): what is sealed may be compacted, the active segment never is, so the newest batch always stays.
//!
//! ```text
//! 0 1 version, 1   1 8 base offset   9 8 largest timestamp of its first batch   17 8 begun at   25 8 bytes of the log before it
//! ```

use crate::error::Result;
use crate::log::keys::{self, IndexEntry};
use crate::store::{Family, Store};
use crate::topic_config::TopicConfig;
use crate::types::{LogId, Offset, TimestampMs};

const VERSION: u8 = 1;
const STORED_BYTES: usize = 33;
/// Offsets of one segment span less than this, as in Kafka, where they are stored as differences of 32 bits.
const SPAN_MAX: i64 = i32::MAX as i64;

/// The active segment. The commit lane alone replaces it, in the commit of the append that seals the one before. A crash
/// keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Its first offset.
    pub(crate) base: Offset,
    /// Largest timestamp of its first batch, -1 when that has none.
    pub(crate) first_timestamp: TimestampMs,
    /// The broker's clock at its first append.
    pub(crate) begun_at: TimestampMs,
    /// The log's running bytes before it.
    pub(crate) bytes_before: i64,
}

/// A batch on its way into the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming {
    /// Its base offset.
    pub(crate) base: Offset,
    /// Its last offset.
    pub(crate) last: Offset,
    /// Its size.
    pub(crate) bytes: i64,
    /// Its largest timestamp.
    pub(crate) max_timestamp: TimestampMs,
    /// The broker's clock.
    pub(crate) now: TimestampMs,
}

impl Segment {
    /// The active segment of a log: as it was stored, or all of a log that was written before segments were. A log without
    /// a batch has none: its running bytes begin anew, so a segment of before would never be full.
    pub(crate) fn recover(store: &Store, id: LogId, first: Option<(Offset, IndexEntry)>) -> Result<Option<Self>> {
        let Some((base, entry)) = first else { return Ok(None) };
        if let Some(stored) = store.get(Family::Meta, &keys::segment_key(id))? {
            return Self::decode(&stored).map(Some);
        }
        Ok(Some(Self {
            base,
            first_timestamp: entry.max_timestamp,
            begun_at: entry.appended_at,
            bytes_before: entry.bytes_before(),
        }))
    }

    /// The segment that begins with a batch.
    pub(crate) fn begin(incoming: &Incoming, running_bytes: i64) -> Self {
        Self {
            base: incoming.base,
            first_timestamp: incoming.max_timestamp,
            begun_at: incoming.now,
            bytes_before: running_bytes,
        }
    }

    /// Whether the segment is sealed before this batch. `running_bytes` are the log's so far.
    pub(crate) fn is_sealed_by(
        &self,
        incoming: &Incoming,
        running_bytes: i64,
        config: &TopicConfig,
        log: LogId,
    ) -> bool {
        let size = running_bytes - self.bytes_before;
        if size <= 0 {
            return false;
        }
        let age = if self.first_timestamp >= 0 {
            incoming.max_timestamp.saturating_sub(self.first_timestamp)
        } else {
            incoming.now.saturating_sub(self.begun_at)
        };
        let mut age_max = config.segment_ms();
        if config.compacts() {
            age_max = age_max.min(config.max_compaction_lag_ms());
        }
        size.saturating_add(incoming.bytes) > config.segment_bytes().cast_signed()
            || age > age_max - self.jitter(config, log)
            || incoming.last - self.base > SPAN_MAX
    }

    /// By how much this segment's time is shortened: drawn from its place, so that a restart draws the same.
    fn jitter(&self, config: &TopicConfig, log: LogId) -> i64 {
        let most = config.segment_jitter_ms().min(config.segment_ms());
        if most <= 0 {
            return 0;
        }
        let mut bits = (u64::from(log.0) << 32) ^ self.base.unsigned_abs();
        for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
            bits = (bits ^ (bits >> 30)).wrapping_mul(multiplier);
        }
        i64::try_from((bits ^ (bits >> 31)) % most.unsigned_abs()).unwrap_or(0)
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> [u8; STORED_BYTES] {
        let mut out = [VERSION; STORED_BYTES];
        out[1..9].copy_from_slice(&self.base.to_be_bytes());
        out[9..17].copy_from_slice(&self.first_timestamp.to_be_bytes());
        out[17..25].copy_from_slice(&self.begun_at.to_be_bytes());
        out[25..33].copy_from_slice(&self.bytes_before.to_be_bytes());
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Storage` when it is not one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = || keys::damaged("segment", bytes);
        let bytes: &[u8; STORED_BYTES] = bytes.try_into().map_err(|_| wrong())?;
        if bytes[0] != VERSION {
            return Err(wrong());
        }
        let part = |at: usize| *bytes[at..].first_chunk::<8>().expect("the fields add up to the stored size");
        Ok(Self {
            base: i64::from_be_bytes(part(1)),
            first_timestamp: i64::from_be_bytes(part(9)),
            begun_at: i64::from_be_bytes(part(17)),
            bytes_before: i64::from_be_bytes(part(25)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> TopicConfig {
        TopicConfig::parse(&settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()).unwrap()
    }

    const SEGMENT: Segment = Segment { base: 10, first_timestamp: 1_000, begun_at: 50_000, bytes_before: 100 };
    const INCOMING: Incoming = Incoming { base: 20, last: 29, bytes: 500, max_timestamp: 1_000, now: 60_000 };

    #[test]
    fn sealing_follows_kafkas_rule() {
        let small = config(&[("segment.bytes", "1048576"), ("segment.ms", "5000")]);
        let sealed =
            |segment: Segment, incoming: Incoming, running| segment.is_sealed_by(&incoming, running, &small, LogId(1));
        let late = |by: i64| Incoming { max_timestamp: 1_000 + by, ..INCOMING };
        assert!(!sealed(SEGMENT, late(99_999), 100), "an empty segment is never sealed");
        assert!(!sealed(SEGMENT, INCOMING, 100 + 1_048_076), "just full");
        assert!(sealed(SEGMENT, INCOMING, 101 + 1_048_076));
        assert!(!sealed(SEGMENT, late(5_000), 200));
        assert!(sealed(SEGMENT, late(5_001), 200));
        assert!(!sealed(SEGMENT, Incoming { now: 900_000, ..INCOMING }, 200), "records' time counts, not the clock");
        let untimed = Segment { first_timestamp: -1, ..SEGMENT };
        assert!(!sealed(untimed, Incoming { now: 55_000, ..INCOMING }, 200));
        assert!(sealed(untimed, Incoming { now: 55_001, ..INCOMING }, 200));
        assert!(sealed(SEGMENT, Incoming { last: 11 + SPAN_MAX, ..INCOMING }, 200));
    }

    #[test]
    fn a_compacted_log_is_sealed_within_its_longest_lag() {
        let settings = [("max.compaction.lag.ms", "2000"), ("cleanup.policy", "compact")];
        let late = Incoming { max_timestamp: 3_001, ..INCOMING };
        assert!(SEGMENT.is_sealed_by(&late, 200, &config(&settings), LogId(1)));
        assert!(!SEGMENT.is_sealed_by(&late, 200, &config(&settings[..1]), LogId(1)));
    }

    #[test]
    fn jitter_shortens_and_is_the_same_each_time() {
        let config = config(&[("segment.ms", "5000"), ("segment.jitter.ms", "4000")]);
        let draws: Vec<i64> = (0..50).map(|base| Segment { base, ..SEGMENT }.jitter(&config, LogId(3))).collect();
        assert!(draws.iter().all(|draw| (0..4_000).contains(draw)));
        assert!(draws.iter().collect::<std::collections::BTreeSet<_>>().len() > 40, "{draws:?}");
        assert_eq!(draws[7], Segment { base: 7, ..SEGMENT }.jitter(&config, LogId(3)));
    }

    #[test]
    fn stored_bytes_are_as_drawn() {
        let hex: String = SEGMENT.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "01000000000000000a00000000000003e8000000000000c3500000000000000064");
        assert_eq!(Segment::decode(&SEGMENT.encode()).unwrap(), SEGMENT);
        assert!(Segment::decode(&[2; 33]).is_err());
        assert!(Segment::decode(&[1; 32]).is_err());
    }
}
