//! Joined streams in the store's `State` family, drawn byte by byte. All integers are big-endian.
//!
//! ```text
//! key                                                                    value
//! 0a ++ join                                                             fingerprint u64 ++ progress in the stream on the right
//! 15 ++ join ++ side u8 ++ bucket i64 ^ sign ++ key columns ++ place     01 ++ columns of a row that waits
//! 16 ++ join ++ side u8 ++ place                                         01 ++ columns of a row that has met none
//!
//! join: stream name (UTF-8) ++ 00 ++ number u8 of the SELECT
//! side: 0 left, 1 right
//! place: event time i64 ^ sign ++ partition i32 ++ offset i64 of the row
//! ```
//! Key columns and columns are in the Arrow row format; a bucket is a span of event time, see `interval`. The fingerprint covers the
//! definitions of both streams and what joins them: rows that another one wrote are never read, they are forgotten. Only rows of a side
//! that keeps all are listed as having met none. The progress in the stream on the left stands where that of any derived stream does.

use broker::{Change, Family, Offset, PartitionIndex, Store};

use super::interval::Side;
use super::plan::DerivedPlan;
use crate::error::{EngineError, ErrorKind, Result};
use crate::state::{Progress, after, delete_below, encode_table_progress};

/// What the keys of progress in a stream on the right begin with.
pub(crate) const JOIN_PROGRESS: u8 = 0x0a;
/// What the keys of rows that wait begin with.
pub(crate) const WAITING: u8 = 0x15;
/// What the keys of rows that have met none begin with.
pub(crate) const LONELY: u8 = 0x16;
/// Version of a row's value.
const FORMAT: u8 = 1;
/// Bytes of a row's place.
const PLACE_BYTES: usize = 20;
const FINGERPRINT_BYTES: usize = 8;

/// The keys of one join. Never changes.
pub(super) struct JoinKeys {
    join: Vec<u8>,
}

impl JoinKeys {
    pub(super) fn new(plan: &DerivedPlan) -> JoinKeys {
        JoinKeys::of(plan.stream.name(), plan.branch)
    }

    fn of(stream: &str, branch: u8) -> JoinKeys {
        // Names hold no zero byte.
        JoinKeys { join: [stream.as_bytes(), &[0, branch]].concat() }
    }

    fn key(&self, kind: u8, rest: &[u8]) -> Vec<u8> {
        [&[kind], &self.join[..], rest].concat()
    }

    pub(super) fn progress(&self) -> Vec<u8> {
        self.key(JOIN_PROGRESS, &[])
    }

    /// What the keys of one bucket of a side begin with: also the exclusive end of all earlier buckets.
    pub(super) fn bucket(&self, side: Side, bucket: i64) -> Vec<u8> {
        let mut key = self.key(WAITING, &[side as u8]);
        key.extend_from_slice(&(bucket ^ i64::MIN).to_be_bytes());
        key
    }

    /// The key of a row that has met none. With a bound in the place of a place it is the end of all before that.
    pub(super) fn lonely(&self, side: Side, place: &[u8]) -> Vec<u8> {
        let mut key = self.key(LONELY, &[side as u8]);
        key.extend_from_slice(place);
        key
    }

    /// The range of all rows that wait on a side.
    pub(super) fn waiting(&self, side: Side) -> (Vec<u8>, Vec<u8>) {
        let from = self.key(WAITING, &[side as u8]);
        let to = after(&from);
        (from, to)
    }

    /// The range of all rows that have met none, of both sides.
    pub(super) fn all_lonely(&self) -> (Vec<u8>, Vec<u8>) {
        let from = self.key(LONELY, &[]);
        let to = after(&from);
        (from, to)
    }

    /// What deletes all rows that wait on a side.
    pub(super) fn forget(&self, side: Side) -> Vec<Change> {
        [WAITING, LONELY].map(|kind| delete_below(self.key(kind, &[side as u8]))).into()
    }
}

pub(super) fn encode_progress(fingerprint: u64, progress: &Progress) -> Vec<u8> {
    encode_table_progress(fingerprint, progress)
}

/// The progress, and whether rows of this fingerprint wait.
pub(super) fn decode_progress(fingerprint: u64, bytes: &[u8]) -> Result<(Progress, bool)> {
    let (stored, progress) = bytes.split_at_checked(FINGERPRINT_BYTES).ok_or_else(damaged)?;
    Ok((Progress::decode(progress)?, stored == fingerprint.to_be_bytes()))
}

/// Where a row stands: what its keys end with.
pub(super) fn place(event_time: i64, partition: PartitionIndex, offset: Offset) -> [u8; PLACE_BYTES] {
    let mut place = [0; PLACE_BYTES];
    place[..8].copy_from_slice(&(event_time ^ i64::MIN).to_be_bytes());
    place[8..12].copy_from_slice(&partition.to_be_bytes());
    place[12..].copy_from_slice(&offset.to_be_bytes());
    place
}

/// The place that a row's key ends with.
pub(super) fn place_of(key: &[u8]) -> Result<[u8; PLACE_BYTES]> {
    key.last_chunk().copied().ok_or_else(damaged)
}

/// The first bytes of the places of all rows of an event time.
pub(super) fn place_bound(event_time: i64) -> [u8; 8] {
    (event_time ^ i64::MIN).to_be_bytes()
}

pub(super) fn encode_row(columns: &[u8]) -> Vec<u8> {
    [&[FORMAT], columns].concat()
}

/// The columns of a stored row.
pub(super) fn decode_row(value: &[u8]) -> Result<&[u8]> {
    match value.split_first() {
        Some((&FORMAT, columns)) => Ok(columns),
        _ => Err(damaged()),
    }
}

/// Whether a row that waits, or has met none, can be read.
pub(crate) fn check_joined(key: &[u8], value: &[u8]) -> Result<()> {
    place_of(key)?;
    decode_row(value).map(|_| ())
}

/// Whether a derived stream has joined streams, by what it has stored.
pub(crate) fn has_joined(store: &Store, stream: &str) -> Result<bool> {
    let from = of_stream(JOIN_PROGRESS, stream);
    Ok(store.scan(Family::State, &from, &after(&from)).next().transpose()?.is_some())
}

/// What deletes all that is stored of a derived stream's joins but the progresses that every derived stream has.
pub(crate) fn forget_joined(stream: &str) -> Vec<Change> {
    [JOIN_PROGRESS, WAITING, LONELY].map(|kind| delete_below(of_stream(kind, stream))).into()
}

/// What the keys of all joins of a derived stream begin with.
fn of_stream(kind: u8, stream: &str) -> Vec<u8> {
    [&[kind], stream.as_bytes(), &[0]].concat()
}

fn damaged() -> EngineError {
    let message =
        "a stored row of a joined stream is not what this version writes; restore a backup or drop the stream";
    EngineError::new(ErrorKind::Storage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes() {
        let keys = JoinKeys::of("j", 3);
        assert_eq!(hex(&keys.progress()), "0a6a0003");
        assert_eq!(hex(&keys.bucket(Side::Right, 3)), "156a0003018000000000000003");
        let row = place(-1, 2, 41);
        assert_eq!(hex(&row), "7fffffffffffffff000000020000000000000029");
        let lonely = keys.lonely(Side::Left, &row);
        assert_eq!(hex(&lonely), "166a0003007fffffffffffffff000000020000000000000029");
        assert_eq!(place_of(&lonely).unwrap(), row);
        let zero = keys.lonely(Side::Left, &place_bound(0));
        assert!(lonely < zero && keys.lonely(Side::Left, &place(0, 0, 0)) > zero);
        let is_in = |key: &[u8], (from, to): (Vec<u8>, Vec<u8>)| (from..to).contains(&key.to_vec());
        assert!(is_in(&lonely, keys.all_lonely()) && lonely.starts_with(&of_stream(LONELY, "j")));
        assert!(is_in(&keys.bucket(Side::Right, -1), keys.waiting(Side::Right)));
        assert!(!is_in(&keys.bucket(Side::Right, -1), keys.waiting(Side::Left)));
        assert!(!is_in(&JoinKeys::of("j", 4).progress(), keys.all_lonely()));
        assert_eq!(hex(&encode_row(b"xy")), "017879");
        assert_eq!(decode_row(&encode_row(b"xy")).unwrap(), b"xy");
        decode_row(b"\x02xy").unwrap_err();
        let progress = Progress { late: 3, ..Progress::default() };
        let bytes = encode_progress(9, &progress);
        assert_eq!(decode_progress(9, &bytes).unwrap(), (progress.clone(), true));
        assert_eq!(decode_progress(8, &bytes).unwrap(), (progress, false));
        decode_progress(8, &bytes[..7]).unwrap_err();
    }
}
