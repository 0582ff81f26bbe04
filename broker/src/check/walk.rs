//! Walking over one log's entries in one family, past what cannot be read.
//!
//! A scan ends at a block whose checksum is wrong. Offsets are numbers, so the first one behind it from which reading goes on is
//! looked for in steps that double, and then halved: a bad block costs some fifty looks, however large it is.

use crate::error::Error;
use crate::log::keys;
use crate::store::{Family, Scan, Store};
use crate::types::{LogId, Offset};

/// Offsets of which nothing can be read.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    /// The first offset behind the last entry that was read.
    pub(super) from: Offset,
    /// Where reading goes on.
    pub(super) to: Offset,
    /// What RocksDB says.
    pub(super) error: String,
}

impl Gap {
    /// Whether an entry that begins at `base` may lie in it.
    pub(super) fn covers(&self, base: Offset) -> bool {
        (self.from..self.to).contains(&base)
    }
}

/// The walk. Holds: the entry that comes next, and what could not be read so far.
pub(super) struct Walk<'s> {
    store: &'s Store,
    family: Family,
    /// Families to go on in, behind the end of that one.
    further: std::vec::IntoIter<Family>,
    log: LogId,
    scan: Scan<'s>,
    head: Option<(Offset, Vec<u8>)>,
    /// The first offset that was not looked at.
    reached: Offset,
    /// What could not be read, ascending.
    pub(super) gaps: Vec<Gap>,
    /// Keys that are none of a batch's.
    pub(super) foreign: u64,
}

impl<'s> Walk<'s> {
    /// Begins before the first entry.
    pub(super) fn new(store: &'s Store, family: Family, log: LogId) -> Self {
        Self::through(store, (family, Vec::new()), log)
    }

    /// Goes through families that have one part of the log each, in its order.
    pub(super) fn through(store: &'s Store, (family, further): (Family, Vec<Family>), log: LogId) -> Self {
        let (from, to) = keys::log_range(log);
        let scan = store.scan(family, &from, &to);
        let further = further.into_iter();
        let mut walk = Self { store, family, further, log, scan, head: None, reached: 0, gaps: Vec::new(), foreign: 0 };
        walk.advance();
        walk
    }

    /// The family that the next entry is in.
    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// Where the next entry is.
    pub(super) fn next_base(&self) -> Option<Offset> {
        self.head.as_ref().map(|(base, _)| *base)
    }

    /// The next entry's value, if it is at `base`.
    pub(super) fn take(&mut self, base: Offset) -> Option<Vec<u8>> {
        let (_, value) = self.head.take_if(|(head, _)| *head == base)?;
        self.advance();
        Some(value)
    }

    /// Whether an entry at `base` may be there that could not be read.
    pub(super) fn misses(&self, base: Offset) -> Option<&Gap> {
        self.gaps.iter().rev().find(|gap| gap.covers(base))
    }

    fn advance(&mut self) {
        loop {
            match self.scan.next_ref() {
                Some(Ok((key, value))) => match keys::base_offset_of(key) {
                    Ok(base) if key.len() == 12 && base >= 0 => {
                        self.head = Some((base, value.to_vec()));
                        self.reached = base.saturating_add(1);
                        return;
                    }
                    _ => self.foreign += 1,
                },
                None => {
                    let Some(family) = self.further.next() else { return };
                    let (from, to) = keys::log_range(self.log);
                    (self.family, self.scan) = (family, self.store.scan(family, &from, &to));
                    self.reached = 0;
                }
                Some(Err(error)) if self.reached == Offset::MAX => return self.give_up(&error),
                Some(Err(error)) => self.pass_over(&error),
            }
        }
    }

    /// Goes on behind what cannot be read.
    fn pass_over(&mut self, error: &Error) {
        let (from, mut step) = (self.reached, 1);
        let mut unread = from;
        let mut readable = loop {
            let at = from.saturating_add(step);
            if self.reads_from(at) {
                break at;
            }
            if at == Offset::MAX {
                return self.give_up(error);
            }
            (unread, step) = (at, step.saturating_mul(2));
        };
        while readable - unread > 1 {
            let middle = unread + (readable - unread) / 2;
            if self.reads_from(middle) { readable = middle } else { unread = middle }
        }
        self.gaps.push(Gap { from, to: readable, error: error.message.clone() });
        let (_, to) = keys::log_range(self.log);
        self.scan = self.store.scan(self.family, &keys::batch_key(self.log, readable), &to);
        self.reached = readable;
    }

    fn give_up(&mut self, error: &Error) {
        self.gaps.push(Gap { from: self.reached, to: Offset::MAX, error: error.message.clone() });
        let (_, to) = keys::log_range(self.log);
        self.scan = self.store.scan(self.family, &to, &to);
        self.reached = Offset::MAX;
    }

    /// Whether the next entry from `at` on can be read, or there is none.
    fn reads_from(&self, at: Offset) -> bool {
        let (_, to) = keys::log_range(self.log);
        let mut scan = self.store.scan(self.family, &keys::batch_key(self.log, at), &to);
        !matches!(scan.next_ref(), Some(Err(_)))
    }
}
