//! The transactions of one log: those that are open and those that were aborted, against batches and markers.

use std::collections::HashMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::Check;
use super::finding::{Kind, Place, Remedy};
use super::line::{Breach, Stated};
use crate::batch::Batch;
use crate::builder::is_committed;
use crate::log::{Aborted, aborted, keys, open};
use crate::store::Family;
use crate::types::{LogId, Offset, ProducerId};

const TRANSACTION_DAMAGED: Kind = Kind::wrong("transaction damaged", Remedy::Restore);
const OPEN_WRONG: Kind = Kind::wrong("open transaction differs from log", Remedy::Restore);
const ABORTED_WRONG: Kind = Kind::wrong("aborted transaction differs from log", Remedy::Restore);
/// Aborted transactions of one log that are compared with their markers; more are only read.
const COMPARED_MAX: usize = 1_000_000;

/// The transactions of one log. Holds: what is stored of them, and what the walk met.
pub(super) struct Transactions {
    open: HashMap<ProducerId, Offset>,
    aborted: Peekable<IntoIter<Aborted>>,
    /// Markers above it are not compared.
    compared_to: Offset,
    /// Where the transactions began that are open where the walk is.
    begun: HashMap<ProducerId, Offset>,
    unmarked: Vec<Aborted>,
}

impl Transactions {
    /// Reads what is stored of a log's transactions.
    pub(super) fn read(check: &mut Check<'_>, id: LogId, place: &Place) -> Self {
        let (mut open, mut aborted) = (HashMap::new(), Vec::new());
        let mut compared_to = Offset::MAX;
        let damaged = |check: &mut Check<'_>, message| check.add(TRANSACTION_DAMAGED, place.clone(), message);
        let (from, to) = open::range(id);
        check.each(Family::Txns, (&from, &to), |check, key, value| {
            match (keys::base_offset_of(&key[1..]), open::decode(value)) {
                (Ok(producer), Ok((_, first))) => drop(open.insert(producer, first)),
                (Err(error), _) | (_, Err(error)) => damaged(check, error.message),
            }
        });
        let (from, to) = aborted::range(id);
        check.each(Family::Txns, (&from, &to), |check, key, value| {
            let marker = keys::base_offset_of(&key[1..]);
            match marker.and_then(|marker| Aborted::decode(marker, value)) {
                Ok(one) if aborted.len() < COMPARED_MAX => aborted.push(one),
                Ok(one) => compared_to = compared_to.min(one.marker),
                Err(error) => damaged(check, error.message),
            }
        });
        let aborted = aborted.into_iter().peekable();
        Self { open, aborted, compared_to, begun: HashMap::new(), unmarked: Vec::new() }
    }

    /// Follows a batch.
    pub(super) fn meet(&mut self, batch: &Batch, log: &Stated) -> Option<Breach> {
        let (producer, base) = (batch.producer_id(), batch.base_offset());
        if !batch.is_control() {
            if batch.is_transactional() {
                self.begun.entry(producer).or_insert(base);
            }
            return None;
        }
        while let Some(one) = self.aborted.next_if(|one| one.marker < base) {
            self.unmarked.push(one);
        }
        let listed = self.aborted.next_if(|one| one.marker == base);
        let begun = self.begun.remove(&producer);
        if base >= self.compared_to {
            return None;
        }
        let what = match (listed, is_committed(batch)?) {
            (Some(_), true) => "the index of aborted transactions has one that was committed".to_owned(),
            (None, false) if begun.is_some() => {
                "an aborted transaction is not in their index: its records would be read as committed".to_owned()
            }
            (Some(listed), false) => wrongly_listed(&listed, (producer, begun), log)?,
            (None, _) => return None,
        };
        Some((ABORTED_WRONG, (base, base), what))
    }

    /// What is wrong once all batches were met.
    pub(super) fn finish(
        &mut self,
        (log, end): (&Stated, Offset),
        unread: impl Fn(Offset, Offset) -> bool,
    ) -> Vec<Breach> {
        let mut breaches = Vec::new();
        for one in self.unmarked.drain(..).chain(self.aborted.by_ref()) {
            if !unread(one.marker, one.marker + 1) {
                let what = format!("an aborted transaction of producer {} has no marker here", one.producer_id);
                breaches.push((ABORTED_WRONG, (one.marker, one.marker), what));
            }
        }
        for (producer, first) in &self.open {
            let fits = match self.begun.get(producer) {
                Some(begun) => begun == first || *first < log.start && begun > first,
                None => *first < log.start,
            };
            if !fits && !unread(*first, end) {
                let what = format!(
                    "producer {producer} is known to have begun a transaction here that is not open in the log"
                );
                breaches.push((OPEN_WRONG, (*first, *first), what));
            }
        }
        for (producer, begun) in &self.begun {
            if !self.open.contains_key(producer) && !unread(*begun, end) {
                let what = format!(
                    "no marker ends the transaction that producer {producer} began here, and it is not known to be open"
                );
                breaches.push((OPEN_WRONG, (*begun, *begun), what));
            }
        }
        breaches
    }
}

fn wrongly_listed(listed: &Aborted, (producer, begun): (ProducerId, Option<Offset>), log: &Stated) -> Option<String> {
    let begins = match begun {
        Some(begun) if begun >= log.clean.touched_to && listed.first >= log.start => listed.first == begun,
        Some(begun) => listed.first <= begun,
        None => true,
    };
    let fits = listed.producer_id == producer && begins && listed.stable_after <= listed.marker + 1;
    (!fits).then(|| {
        format!(
            "the index of aborted transactions has one of producer {} from {} to here, the log one of producer {producer} from {}",
            listed.producer_id,
            listed.first,
            begun.unwrap_or(-1)
        )
    })
}
