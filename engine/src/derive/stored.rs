//! Joined streams in the store's `State` family, drawn byte by byte. All integers are big-endian.
//!
//! ```text
//! key                                                                    value
//! 0a ++ stream name (UTF-8)                                              fingerprint u64 ++ progress in the stream on the right
//! 15 ++ stream name ++ 00 ++ side u8 ++ bucket i64 ^ sign ++ key columns ++ place   01 ++ columns of a row that waits
//! 16 ++ stream name ++ 00 ++ place                                       01 ++ columns of a row on the left that has met none
//!
//! side: 0 left, 1 right
//! place: event time i64 ^ sign ++ partition i32 ++ offset i64 of the row
//! ```
//! Key columns and columns are in the Arrow row format; a bucket is a span of event time, see `interval`. The fingerprint covers the
//! definitions of both streams and what joins them: rows that another one wrote are never read, they are forgotten. The progress
//! in the stream on the left stands where that of any derived stream does.

use broker::{Change, Family, Offset, PartitionIndex};

use super::interval::Side;
use crate::error::{EngineError, ErrorKind, Result};
use crate::state::{Progress, after, encode_table_progress};

const PROGRESS: u8 = 0x0a;
const WAITING: u8 = 0x15;
const LONELY: u8 = 0x16;
/// Version of a row's value.
const FORMAT: u8 = 1;
/// Bytes of a row's place.
const PLACE_BYTES: usize = 20;
const FINGERPRINT_BYTES: usize = 8;

pub(crate) fn progress_key(stream: &str) -> Vec<u8> {
    [&[PROGRESS], stream.as_bytes()].concat()
}

pub(super) fn encode_progress(fingerprint: u64, progress: &Progress) -> Vec<u8> {
    encode_table_progress(fingerprint, progress)
}

/// The progress, and whether rows of this fingerprint wait.
pub(super) fn decode_progress(fingerprint: u64, bytes: &[u8]) -> Result<(Progress, bool)> {
    let (stored, progress) = bytes.split_at_checked(FINGERPRINT_BYTES).ok_or_else(damaged)?;
    Ok((Progress::decode(progress)?, stored == fingerprint.to_be_bytes()))
}

/// What the keys of one bucket of a side begin with: also the exclusive end of all earlier buckets.
pub(super) fn bucket_prefix(stream: &str, side: Side, bucket: i64) -> Vec<u8> {
    let mut key = named(WAITING, stream);
    key.push(side as u8);
    key.extend_from_slice(&(bucket ^ i64::MIN).to_be_bytes());
    key
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

/// The key of a row on the left that has met none. With a bound in the place of a place it is the end of all before that.
pub(super) fn lonely_key(stream: &str, place: &[u8]) -> Vec<u8> {
    let mut key = named(LONELY, stream);
    key.extend_from_slice(place);
    key
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

/// The range of all rows that wait on a side.
pub(super) fn side_range(stream: &str, side: Side) -> (Vec<u8>, Vec<u8>) {
    let mut from = named(WAITING, stream);
    from.push(side as u8);
    let to = after(&from);
    (from, to)
}

/// The range of all rows on the left that have met none.
pub(super) fn lonely_range(stream: &str) -> (Vec<u8>, Vec<u8>) {
    let from = named(LONELY, stream);
    let to = after(&from);
    (from, to)
}

/// What deletes all rows that wait on a side.
pub(super) fn forget_side(stream: &str, side: Side) -> Vec<Change> {
    let (from, to) = side_range(stream, side);
    let mut changes = vec![Change::DeleteRange(Family::State, from, to)];
    if side == Side::Left {
        let (from, to) = lonely_range(stream);
        changes.push(Change::DeleteRange(Family::State, from, to));
    }
    changes
}

/// What deletes all rows that wait.
pub(super) fn forget_waiting(stream: &str) -> Vec<Change> {
    Side::BOTH.into_iter().flat_map(|side| forget_side(stream, side)).collect()
}

/// What deletes all that is stored of a joined stream but the progress that every derived stream has.
pub(crate) fn forget_joined(stream: &str) -> Vec<Change> {
    let mut changes = forget_waiting(stream);
    changes.push(Change::Delete(Family::State, progress_key(stream)));
    changes
}

/// Names hold no zero byte.
fn named(kind: u8, name: &str) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0]].concat()
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
        assert_eq!(hex(&progress_key("j")), "0a6a");
        assert_eq!(hex(&bucket_prefix("j", Side::Right, 3)), "156a00018000000000000003");
        let row = place(-1, 2, 41);
        assert_eq!(hex(&row), "7fffffffffffffff000000020000000000000029");
        assert_eq!(hex(&lonely_key("j", &row)), "166a007fffffffffffffff000000020000000000000029");
        assert_eq!(place_of(&lonely_key("j", &row)).unwrap(), row);
        assert!(lonely_key("j", &row) < lonely_key("j", &place_bound(0)));
        assert!(lonely_key("j", &place(0, 0, 0)) > lonely_key("j", &place_bound(0)));
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
