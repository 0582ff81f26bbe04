//! Every byte that the log stores. All integers are big endian, so that keys sort as numbers do.
//!
//! ```text
//! log, and its buckets (store/buckets.rs)
//!            log id u32 ++ base offset u64            → the record batch (batch.rs)
//! index      log id u32 ++ base offset u64            → IndexEntry, 50 bytes:
//!              0  8 largest timestamp of the batch     24  4 size of the batch
//!              8  8 largest timestamp up to it         28  4 last offset delta
//!             16  8 bytes of the log up to and with it 32  4 leader epoch
//!             36  2 attributes, and where it lies      38  8 broker's clock at the append
//!             46  4 number of the bucket where it lies, 0 outside of them
//! compacted  log id u32 ++ base offset u64            → a batch of a topic with `cleanup.policy=compact`, as in `log`
//! producers  log id u32 ++ producer id u64            → ProducerState (log/producers.rs)
//! meta       "start" ++ log id u32                    → log start offset u64
//! meta       "epoch" ++ log id u32 ++ epoch u32       → first offset of that leader epoch u64
//! meta       "segment" ++ log id u32                  → the active segment (log/segment.rs)
//! meta       "compaction" ++ log id u32               → how far the log is clean (log/compaction/state.rs)
//! ```
//! Bit 15 of the index's attributes, which Kafka does not use, says that the batch lies in `compacted`. Entries of version 1 end before the
//! bucket. Who finds a batch not where the index says looks into the index again: it was moved or removed. Along a log, batches in
//! `log` come before those in buckets, whose numbers ascend, and those in `compacted` are anywhere among them. Copies that the index does
//! not name are left in a bucket until it goes.
//! The two running figures make time and size searches binary: the first batch whose running timestamp reaches a
//! target is the first batch that holds such a record, and the size of any range is a difference.

use crate::error::{Error, Kind, Result};
use crate::store::Family;
use crate::types::{LeaderEpoch, LogId, Offset, ProducerId, TimestampMs};

const LIES_IN_COMPACTED: i16 = i16::MIN;
const CONTROL: i16 = 1 << 5;

const START: &[u8] = b"start";
const FLOOR: &[u8] = b"floor";
const SEGMENT: &[u8] = b"segment";
const COMPACTION: &[u8] = b"compaction";
const EPOCH: &[u8] = b"epoch";

/// What the keys in `meta` begin with of which a log has one each; its id follows.
pub(crate) const ONE_PER_LOG: [&[u8]; 4] = [START, FLOOR, SEGMENT, COMPACTION];
/// The families that have keys which begin with a log's id.
pub(crate) const BY_LOG: [Family; 4] = [Family::Log, Family::Compacted, Family::Index, Family::Producers];

/// Size of an [`IndexEntry`].
pub const INDEX_ENTRY_BYTES: usize = 50;
/// What it was in stores of version 1.
const BUCKET_AT: usize = 46;

/// What the index keeps of each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Largest timestamp of the batch.
    pub max_timestamp: TimestampMs,
    /// Largest timestamp of the log up to and with the batch.
    pub running_timestamp: TimestampMs,
    /// Bytes of the log up to and with the batch, also of batches deleted since; the log's first batches may stand below
    /// zero, because compaction makes a batch longer when it gives it a delete horizon.
    pub running_bytes: i64,
    /// Size of the batch.
    pub size: u32,
    /// Distance of its last offset from its base offset.
    pub last_offset_delta: i32,
    /// Leader epoch of the append.
    pub leader_epoch: LeaderEpoch,
    /// Attributes of the batch, and the bit that says where it lies.
    pub attributes: i16,
    /// The broker's clock at the append.
    pub appended_at: TimestampMs,
    /// Number of the bucket that the batch lies in, 0 when it is in none.
    pub bucket: u32,
}

impl IndexEntry {
    /// The same for a batch of these attributes that lies in `family`.
    #[must_use]
    pub fn placed(self, family: Family, attributes: i16) -> Self {
        let bucket = if let Family::Bucket(number) = family { number } else { 0 };
        Self { attributes: Self::attributes_in(family, attributes), bucket, ..self }
    }

    /// The attributes of a batch that lies in `family`.
    pub fn attributes_in(family: Family, attributes: i16) -> i16 {
        if family == Family::Compacted { attributes | LIES_IN_COMPACTED } else { attributes & !LIES_IN_COMPACTED }
    }

    /// The family that the batch lies in.
    pub fn family(&self) -> Family {
        match self.bucket {
            _ if self.attributes & LIES_IN_COMPACTED != 0 => Family::Compacted,
            0 => Family::Log,
            number => Family::Bucket(number),
        }
    }

    /// Whether the batch is a transaction marker.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Bytes of the log before the batch.
    pub fn bytes_before(&self) -> i64 {
        self.running_bytes - i64::from(self.size)
    }

    /// What the batch's age counts from: records without a time age from their append, as Kafka's do from the file's.
    pub fn aged_from(&self) -> TimestampMs {
        if self.max_timestamp < 0 { self.appended_at } else { self.max_timestamp }
    }

    /// The stored form.
    pub fn encode(&self) -> [u8; INDEX_ENTRY_BYTES] {
        let mut out = [0; INDEX_ENTRY_BYTES];
        out[0..8].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[8..16].copy_from_slice(&self.running_timestamp.to_be_bytes());
        out[16..24].copy_from_slice(&self.running_bytes.to_be_bytes());
        out[24..28].copy_from_slice(&self.size.to_be_bytes());
        out[28..32].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[32..36].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[36..38].copy_from_slice(&self.attributes.to_be_bytes());
        out[38..46].copy_from_slice(&self.appended_at.to_be_bytes());
        out[BUCKET_AT..].copy_from_slice(&self.bucket.to_be_bytes());
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Storage` when the size is another.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut whole = [0; INDEX_ENTRY_BYTES];
        match bytes.len() {
            INDEX_ENTRY_BYTES | BUCKET_AT => whole[..bytes.len()].copy_from_slice(bytes),
            _ => return Err(damaged("index entry", bytes)),
        }
        let bytes = &whole;
        Ok(Self {
            max_timestamp: i64::from_be_bytes(part(bytes, 0)),
            running_timestamp: i64::from_be_bytes(part(bytes, 8)),
            running_bytes: i64::from_be_bytes(part(bytes, 16)),
            size: u32::from_be_bytes(part(bytes, 24)),
            last_offset_delta: i32::from_be_bytes(part(bytes, 28)),
            leader_epoch: i32::from_be_bytes(part(bytes, 32)),
            attributes: i16::from_be_bytes(part(bytes, 36)),
            appended_at: i64::from_be_bytes(part(bytes, 38)),
            bucket: u32::from_be_bytes(part(bytes, BUCKET_AT)),
        })
    }
}

fn part<const N: usize>(bytes: &[u8; INDEX_ENTRY_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the table above adds up to the entry's size")
}

/// Key of a batch in `log` and `index`.
pub fn batch_key(log: LogId, base_offset: Offset) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&log.0.to_be_bytes());
    key[4..].copy_from_slice(&base_offset.to_be_bytes());
    key
}

/// Base offset in a key of `log` or `index`.
///
/// # Errors
/// `Storage` when it is not such a key.
pub fn base_offset_of(key: &[u8]) -> Result<Offset> {
    let offset = key.get(4..).and_then(|part| part.try_into().ok()).map(i64::from_be_bytes);
    offset.ok_or_else(|| damaged("log key", key))
}

/// The range of one log's keys in `log`, `index` and `producers`.
pub fn log_range(log: LogId) -> ([u8; 4], [u8; 4]) {
    (log.0.to_be_bytes(), log.0.saturating_add(1).to_be_bytes())
}

/// Key of a producer's sequence state.
pub fn producer_key(log: LogId, producer: ProducerId) -> [u8; 12] {
    batch_key(log, producer)
}

/// The key in `meta` that begins so and is a log's.
pub(crate) fn of_log(prefix: &[u8], log: LogId) -> Vec<u8> {
    [prefix, &log.0.to_be_bytes()[..]].concat()
}

/// Key of a log's start offset.
pub fn log_start_key(log: LogId) -> Vec<u8> {
    of_log(START, log)
}

/// Key of the offset below which nothing of a log is served, wherever it lies.
pub fn floor_key(log: LogId) -> Vec<u8> {
    of_log(FLOOR, log)
}

/// Key of a log's active segment.
pub fn segment_key(log: LogId) -> Vec<u8> {
    of_log(SEGMENT, log)
}

/// Key of what compaction knows of a log.
pub fn compaction_key(log: LogId) -> Vec<u8> {
    of_log(COMPACTION, log)
}

/// Key of the first offset of a leader epoch.
pub fn epoch_key(log: LogId, epoch: LeaderEpoch) -> Vec<u8> {
    [EPOCH, &log.0.to_be_bytes()[..], &epoch.to_be_bytes()[..]].concat()
}

/// The range of a log's leader epochs.
pub fn epoch_range(log: LogId) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = log_range(log);
    ([EPOCH, &from[..]].concat(), [EPOCH, &to[..]].concat())
}

/// Leader epoch in its key.
///
/// # Errors
/// `Storage` when it is not such a key.
pub fn epoch_of(key: &[u8]) -> Result<LeaderEpoch> {
    let epoch = key.get(9..).and_then(|part| part.try_into().ok()).map(i32::from_be_bytes);
    epoch.ok_or_else(|| damaged("leader epoch key", key))
}

/// A stored offset.
///
/// # Errors
/// `Storage` when it is not eight bytes.
pub fn offset_of(value: &[u8]) -> Result<Offset> {
    value.try_into().map(i64::from_be_bytes).map_err(|_| damaged("offset", value))
}

pub(crate) fn damaged(what: &str, bytes: &[u8]) -> Error {
    Error::new(
        Kind::Storage,
        format!("a stored {what} of {} bytes cannot be read: the data directory is damaged", bytes.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_are_as_drawn() {
        let entry = IndexEntry {
            max_timestamp: 1,
            running_timestamp: 2,
            running_bytes: 3,
            size: 4,
            last_offset_delta: 5,
            leader_epoch: 6,
            attributes: 7,
            appended_at: 8,
            bucket: 9,
        };
        let golden = "0000000000000001\
                      0000000000000002\
                      0000000000000003\
                      00000004\
                      00000005\
                      00000006\
                      0007\
                      0000000000000008\
                      00000009";
        let hex: String = entry.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(IndexEntry::decode(&entry.encode()).unwrap(), entry);
        let of_version_1 = IndexEntry::decode(&entry.encode()[..46]).unwrap();
        assert_eq!((of_version_1, of_version_1.family()), (IndexEntry { bucket: 0, ..entry }, Family::Log));
        assert!([0, 45, 47, 49, 51].iter().all(|length| IndexEntry::decode(&vec![0; *length]).is_err()));
        assert_eq!(batch_key(LogId(7), 258), [0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(base_offset_of(&batch_key(LogId(7), 258)).unwrap(), 258);
        assert_eq!(log_start_key(LogId(1)), b"start\0\0\0\x01");
        assert_eq!(floor_key(LogId(1)), b"floor\0\0\0\x01");
        assert_eq!(epoch_key(LogId(1), 2), b"epoch\0\0\0\x01\0\0\0\x02");
        assert_eq!(epoch_of(&epoch_key(LogId(1), 2)).unwrap(), 2);
        assert_eq!(segment_key(LogId(1)), b"segment\0\0\0\x01");
        assert_eq!(compaction_key(LogId(1)), b"compaction\0\0\0\x01");
        let moved = entry.placed(Family::Compacted, 7);
        assert_eq!((entry.family(), moved.family(), moved.attributes), (Family::Bucket(9), Family::Compacted, -0x7ff9));
        assert_eq!(moved.placed(Family::Log, 7), IndexEntry { bucket: 0, ..entry });
        assert_eq!(IndexEntry::attributes_in(Family::Log, moved.attributes), 7);
    }
}
