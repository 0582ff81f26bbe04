//! The index of aborted transactions: which records of a partition a reader of committed data must pass over.
//!
//! ```text
//! txns  02 ++ log id u32 ++ offset of the marker u64   → 25 bytes:
//!         0  1 version, 1      1  8 producer id      9  8 first offset      17  8 last stable offset after it
//! ```
//! Entries lie in the order in which transactions ended. One that ended after this one began at or above this one's
//! last stable offset, so a search may stop there.

use crate::batch::Batch;
use crate::error::Result;
use crate::log::keys;
use crate::store::{Family, Store};
use crate::types::{LogId, Offset, ProducerId};

const KIND: u8 = 2;
const VERSION: u8 = 1;
const VALUE_BYTES: usize = 25;

/// One aborted transaction in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Who wrote it.
    pub producer_id: ProducerId,
    /// Its first record.
    pub first: Offset,
    /// Its marker.
    pub marker: Offset,
    /// Up to where the log was stable when it had ended.
    pub stable_after: Offset,
}

impl Aborted {
    /// Whether the batch belongs to it.
    pub(crate) fn covers(&self, batch: &Batch) -> bool {
        batch.is_transactional()
            && batch.producer_id() == self.producer_id
            && (self.first..=self.marker).contains(&batch.base_offset())
    }

    /// The stored form of all but the marker's offset.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(VALUE_BYTES);
        out.push(VERSION);
        out.extend(self.producer_id.to_be_bytes());
        out.extend(self.first.to_be_bytes());
        out.extend(self.stable_after.to_be_bytes());
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Storage` when it is not one.
    pub(crate) fn decode(marker: Offset, bytes: &[u8]) -> Result<Self> {
        let wrong = || keys::damaged("aborted transaction", bytes);
        let whole: &[u8; VALUE_BYTES] = bytes.try_into().map_err(|_| wrong())?;
        if whole[0] != VERSION {
            return Err(wrong());
        }
        let producer_id = keys::offset_of(&whole[1..9])?;
        let (first, stable_after) = (keys::offset_of(&whole[9..17])?, keys::offset_of(&whole[17..])?);
        Ok(Self { producer_id, first, marker, stable_after })
    }
}

/// Key of the transaction that ended at `marker`.
pub(crate) fn key(log: LogId, marker: Offset) -> Vec<u8> {
    [&[KIND], &keys::batch_key(log, marker)[..]].concat()
}

/// The range of one log's keys.
pub(crate) fn range(log: LogId) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = keys::log_range(log);
    ([&[KIND], &from[..]].concat(), [&[KIND], &to[..]].concat())
}

/// Where the last aborted transaction of a log ended. Blocks.
///
/// # Errors
/// `Storage` when the database cannot read.
pub(crate) fn last_marker(store: &Store, log: LogId) -> Result<Option<Offset>> {
    let (from, to) = range(log);
    let last = store.last_in(Family::Txns, &from, &to)?;
    last.map(|(key, _)| keys::base_offset_of(&key[1..])).transpose()
}

/// Aborted transactions that have records in `[from, to)`, by their first offset. Blocks.
///
/// # Errors
/// `Storage` when the database cannot read, or is damaged.
pub(crate) fn between(store: &Store, log: LogId, from: Offset, to: Offset) -> Result<Vec<Aborted>> {
    let (_, end) = range(log);
    let mut found = Vec::new();
    for entry in store.scan(Family::Txns, &key(log, from), &end) {
        let (key, value) = entry?;
        let aborted = Aborted::decode(keys::base_offset_of(&key[1..])?, &value)?;
        if aborted.first < to {
            found.push(aborted);
        }
        if aborted.stable_after >= to {
            break;
        }
    }
    found.sort_by_key(|aborted| aborted.first);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_are_as_drawn() {
        let aborted = Aborted { producer_id: 1, first: 2, marker: 9, stable_after: 10 };
        let hex: String = aborted.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01000000000000000100000000000000020 00000000000000a".replace(' ', ""));
        assert_eq!(Aborted::decode(9, &aborted.encode()).unwrap(), aborted);
        assert!(Aborted::decode(9, &[1; 24]).is_err() && Aborted::decode(9, &[2; 25]).is_err());
        assert_eq!(key(LogId(7), 258), [2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
