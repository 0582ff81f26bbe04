//! Transactions that are open in one partition (KIP-98): who may write into it as part of a transaction, and from which
//! offset on the log is not stable yet.
//!
//! ```text
//! txns  03 ++ log id u32 ++ producer id u64   → 0 1 version, 1 · 1 2 producer epoch · 3 8 first offset    11 bytes
//! ```
//! The entry is there from a transaction's first batch in the partition up to its marker. That a partition belongs to a
//! transaction into which nothing was written yet is the coordinator's to remember (txn/records.rs).

use std::collections::{BTreeSet, HashMap};

use crate::batch::Batch;
use crate::error::Result;
use crate::lane::Origin;
use crate::log::aborted::{self, Aborted};
use crate::log::{Stability, keys};
use crate::store::{Family, Store, Writes};
use crate::types::{LogId, Offset, ProducerId};

pub(crate) const KIND: u8 = 3;
const VERSION: u8 = 1;
const VALUE_BYTES: usize = 11;

/// A transaction in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Epoch of the producer that writes it.
    pub(crate) epoch: i16,
    /// Its first record here, if there is one.
    pub(crate) first: Option<Offset>,
    /// Whether a producer that is new here must begin with sequence 0 (transactions version 2, KIP-890).
    pub(crate) strict: bool,
}

/// The open transactions of one partition. Holds: one per producer. The commit lane alone changes it. Always true:
/// `firsts` are the first offsets of all that have one. A crash keeps those that wrote something; the coordinator brings
/// the others back.
#[derive(Debug, Default)]
pub(crate) struct OpenTransactions {
    by_producer: HashMap<ProducerId, Open>,
    firsts: BTreeSet<Offset>,
}

impl OpenTransactions {
    /// Reads what is stored. Blocks.
    ///
    /// # Errors
    /// `Storage` when it is damaged.
    pub(crate) fn recover(store: &Store, log: LogId) -> Result<Self> {
        let (from, to) = range(log);
        let mut recovered = Self::default();
        for entry in store.scan(Family::Txns, &from, &to) {
            let (key, value) = entry?;
            let producer = keys::base_offset_of(&key[1..])?;
            let (epoch, first) = decode(&value)?;
            recovered.by_producer.insert(producer, Open { epoch, first: Some(first), strict: false });
            recovered.firsts.insert(first);
        }
        Ok(recovered)
    }

    /// The producer's transaction.
    pub(crate) fn get(&self, producer: ProducerId) -> Option<&Open> {
        self.by_producer.get(&producer)
    }

    /// The partition belongs to the producer's transaction from now on.
    pub(crate) fn admit(&mut self, producer: ProducerId, epoch: i16, strict: bool) {
        let open = self.by_producer.entry(producer).or_insert(Open { epoch, first: None, strict });
        open.epoch = epoch;
        open.strict = strict;
    }

    /// A transactional batch of the producer goes to `offset`. Whether it is the transaction's first here.
    pub(crate) fn write(&mut self, producer: ProducerId, epoch: i16, offset: Offset) -> bool {
        let open = self.by_producer.entry(producer).or_insert(Open { epoch, first: None, strict: false });
        let is_first = open.first.is_none();
        if is_first {
            open.first = Some(offset);
            self.firsts.insert(offset);
        }
        is_first
    }

    /// The transaction ends; with `stays` the coordinator has not ended it and the producer may go on. Gives its first
    /// offset here.
    pub(crate) fn end(&mut self, producer: ProducerId, stays: bool) -> Option<Offset> {
        let first = match self.by_producer.get_mut(&producer) {
            Some(open) if stays => open.first.take(),
            _ => self.by_producer.remove(&producer).and_then(|open| open.first),
        };
        if let Some(first) = first {
            self.firsts.remove(&first);
        }
        first
    }

    /// Follows a batch that was given its place: begins or ends the transaction it belongs to. Gives how far the log is
    /// stable then.
    pub(crate) fn follow(&mut self, log: LogId, batch: &Batch, origin: Origin, writes: &mut Writes<'_>) -> Stability {
        let (producer, epoch, offset) = (batch.producer_id(), batch.producer_epoch(), batch.base_offset());
        let mut taken_back = None;
        match origin {
            Origin::Client if batch.is_transactional() => {
                let begins = self.write(producer, epoch, offset);
                if begins {
                    writes.put(Family::Txns, &key(log, producer), &encode(epoch, offset));
                }
            }
            Origin::Marker(marker) => {
                let first = self.end(producer, marker.by_admin);
                if first.is_some() {
                    writes.delete(Family::Txns, &key(log, producer));
                }
                taken_back = first.filter(|_| !marker.committed);
            }
            _ => {}
        }
        let unstable_from = self.first_unstable();
        if let Some(first) = taken_back {
            let stable_after = unstable_from.unwrap_or(batch.next_offset());
            let entry = Aborted { producer_id: producer, first, marker: offset, stable_after };
            writes.put(Family::Txns, &aborted::key(log, offset), &entry.encode());
        }
        Stability { unstable_from, aborted: taken_back.map(|_| offset) }
    }

    /// The first offset that may still be aborted.
    pub(crate) fn first_unstable(&self) -> Option<Offset> {
        self.firsts.first().copied()
    }
}

/// Key of a producer's open transaction.
pub(crate) fn key(log: LogId, producer: ProducerId) -> Vec<u8> {
    [&[KIND], &keys::producer_key(log, producer)[..]].concat()
}

/// The range of one log's keys.
pub(crate) fn range(log: LogId) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = keys::log_range(log);
    ([&[KIND], &from[..]].concat(), [&[KIND], &to[..]].concat())
}

/// The stored form.
pub(crate) fn encode(epoch: i16, first: Offset) -> Vec<u8> {
    let mut out = Vec::with_capacity(VALUE_BYTES);
    out.push(VERSION);
    out.extend(epoch.to_be_bytes());
    out.extend(first.to_be_bytes());
    out
}

/// Reads the stored form: producer epoch and first offset.
///
/// # Errors
/// `Storage` when it is not one.
pub(crate) fn decode(bytes: &[u8]) -> Result<(i16, Offset)> {
    let wrong = || keys::damaged("open transaction", bytes);
    let bytes: &[u8; VALUE_BYTES] = bytes.try_into().map_err(|_| wrong())?;
    let (head, first) = bytes.split_first_chunk::<3>().ok_or_else(wrong)?;
    if head[0] != VERSION {
        return Err(wrong());
    }
    Ok((i16::from_be_bytes([head[1], head[2]]), keys::offset_of(first)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_are_as_drawn() {
        assert_eq!(encode(258, 0x0102_0304), [1, 1, 2, 0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(decode(&encode(258, 77)).unwrap(), (258, 77));
        assert!(decode(&[1; 10]).is_err() && decode(&[2; 11]).is_err());
        assert_eq!(key(LogId(7), 9), [3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
        let (from, to) = range(LogId(7));
        assert!(from < key(LogId(7), 9) && key(LogId(7), i64::MAX) < to);
    }

    #[test]
    fn the_log_is_stable_up_to_the_oldest_open_transaction() {
        let mut open = OpenTransactions::default();
        open.admit(1, 0, false);
        assert_eq!(open.first_unstable(), None, "nothing is written yet");
        assert!(open.write(1, 0, 10));
        assert!(!open.write(1, 0, 12));
        assert!(open.write(2, 3, 11));
        assert_eq!(open.first_unstable(), Some(10));
        assert_eq!(open.end(1, false), Some(10));
        assert_eq!((open.first_unstable(), open.get(1)), (Some(11), None));
        assert_eq!(open.end(2, true), Some(11));
        assert_eq!(open.get(2), Some(&Open { epoch: 3, first: None, strict: false }), "the coordinator's is still on");
        assert_eq!((open.end(3, false), open.first_unstable()), (None, None));
    }
}
