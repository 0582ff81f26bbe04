//! What the transaction coordinator stores, byte by byte. All numbers are big endian; a text is a u16 length and UTF-8.
//!
//! ```text
//! txns  01 ++ transactional id UTF-8   → a transactional id
//!        0  1 version, 1                      1  1 phase, Kafka's numbers: 0 empty, 1 ongoing, 4 committed, 5 aborted
//!        2  8 producer id                    10  8 previous producer id, -1 for none
//!       18  2 producer epoch                 20  2 last producer epoch, -1 for none      22  4 timeout in milliseconds
//!       26  8 transaction began, milliseconds since 1970, -1 for never                   34  8 last change
//!       42  . u32 number of partitions, then per partition topic id 16 · i32 partition
//!             u32 number of groups, then per group text
//! ```
//! Kinds 02 and 03 of the same family are the log's (log/aborted.rs, log/open.rs).

use std::sync::Arc;

use super::state::{Phase, Txn};
use crate::error::{Error, Result};
use crate::types::TopicId;

const KIND: u8 = 1;
const VERSION: u8 = 1;
/// The range of all keys.
pub(crate) const RANGE: ([u8; 1], [u8; 1]) = ([KIND], [KIND + 1]);

/// The key of a transactional id.
pub(crate) fn key(id: &str) -> Vec<u8> {
    [&[KIND], id.as_bytes()].concat()
}

/// The transactional id in its key.
///
/// # Errors
/// `Storage` for a key that is none of ours.
pub(crate) fn decode_key(key: &[u8]) -> Result<Arc<str>> {
    let id = key.strip_prefix(&[KIND]).and_then(|id| std::str::from_utf8(id).ok());
    id.map(Into::into).ok_or_else(|| damaged(key))
}

/// As it is stored.
pub(crate) fn encode(txn: &Txn) -> Vec<u8> {
    let mut out = vec![VERSION, number(txn.phase)];
    out.extend_from_slice(&txn.producer_id.to_be_bytes());
    out.extend_from_slice(&txn.previous_id.to_be_bytes());
    out.extend_from_slice(&txn.epoch.to_be_bytes());
    out.extend_from_slice(&txn.last_epoch.to_be_bytes());
    out.extend_from_slice(&txn.timeout_ms.to_be_bytes());
    out.extend_from_slice(&txn.started_at.to_be_bytes());
    out.extend_from_slice(&txn.updated_at.to_be_bytes());
    put_count(&mut out, txn.places.len());
    for (topic, partition) in &txn.places {
        out.extend_from_slice(topic.as_bytes());
        out.extend_from_slice(&partition.to_be_bytes());
    }
    put_count(&mut out, txn.groups.len());
    for group in &txn.groups {
        let length = u16::try_from(group.len()).expect("group ids above NAME_BYTES_MAX are refused");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(group.as_bytes());
    }
    out
}

/// From what is stored.
///
/// # Errors
/// `Storage` for bytes that are damaged or of a version that is not known.
pub(crate) fn decode(value: &[u8]) -> Result<Txn> {
    let mut reader = Reader { rest: value };
    read(&mut reader).filter(|_| reader.rest.is_empty()).ok_or_else(|| damaged(value))
}

fn read(reader: &mut Reader<'_>) -> Option<Txn> {
    let [version, phase] = reader.array()?;
    let phase = Phase::ALL.into_iter().find(|known| number(*known) == phase).filter(|_| version == VERSION)?;
    let mut txn = Txn {
        phase,
        producer_id: i64::from_be_bytes(reader.array()?),
        previous_id: i64::from_be_bytes(reader.array()?),
        epoch: i16::from_be_bytes(reader.array()?),
        last_epoch: i16::from_be_bytes(reader.array()?),
        timeout_ms: i32::from_be_bytes(reader.array()?),
        started_at: i64::from_be_bytes(reader.array()?),
        updated_at: i64::from_be_bytes(reader.array()?),
        places: Default::default(),
        groups: Default::default(),
    };
    for _ in 0..u32::from_be_bytes(reader.array()?) {
        txn.places.insert((TopicId::from_bytes(reader.array()?), i32::from_be_bytes(reader.array()?)));
    }
    for _ in 0..u32::from_be_bytes(reader.array()?) {
        let length = u16::from_be_bytes(reader.array()?);
        txn.groups.insert(std::str::from_utf8(reader.take(usize::from(length))?).ok()?.into());
    }
    Some(txn)
}

fn number(phase: Phase) -> u8 {
    match phase {
        Phase::Empty => 0,
        Phase::Ongoing => 1,
        Phase::CompleteCommit => 4,
        Phase::CompleteAbort => 5,
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a transaction has fewer partitions than a broker");
    out.extend_from_slice(&count.to_be_bytes());
}

fn damaged(bytes: &[u8]) -> Error {
    let shown: String = bytes.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
    let what = "the stored transaction is damaged or of a newer millpond, restore a backup; it begins";
    Error::storage(format!("{what} {shown}"))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn() -> Txn {
        Txn {
            phase: Phase::Ongoing,
            producer_id: 7,
            previous_id: 6,
            epoch: 3,
            last_epoch: -1,
            timeout_ms: 60_000,
            started_at: 1_000,
            updated_at: 1_001,
            places: [(TopicId::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), 5)].into(),
            groups: ["g".into()].into(),
        }
    }

    #[test]
    fn transactions_have_golden_bytes() {
        let golden = concat!(
            "0101",
            "0000000000000007",
            "0000000000000006",
            "0003",
            "ffff",
            "0000ea60",
            "00000000000003e8",
            "00000000000003e9",
            "00000001",
            "00112233445566778899aabbccddeeff00000005",
            "00000001",
            "000167",
        );
        let hex: String = encode(&txn()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(decode(&encode(&txn())).unwrap(), txn());
        assert_eq!(key("t"), [1, b't']);
        assert_eq!(&*decode_key(&key("t")).unwrap(), "t");
        assert!(decode_key(&[2, b't']).is_err() && decode_key(&[]).is_err());
    }

    #[test]
    fn damage_is_refused_and_never_panics() {
        let whole = encode(&txn());
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).is_err());
        }
        for (at, byte) in [(0, 2), (1, 2), (42, 0xff)] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            assert!(decode(&damaged).is_err(), "byte {at}");
        }
    }
}
