//! Transactional ids, against the transactions that are open in partitions.

use std::collections::BTreeSet;

use super::finding::{Kind, Place, Remedy};
use super::{Check, Logs};
use crate::log::{keys, open};
use crate::store::Family;
use crate::txn::{Phase, records};
use crate::types::{LogId, ProducerId};

const ID_DAMAGED: Kind = Kind::wrong("transactional id damaged", Remedy::Restore);
const ID_WRONG: Kind = Kind::wrong("transactional id wrong", Remedy::Restore);
const NOBODY_ENDS: Kind = Kind::wrong("transaction that nobody ends", Remedy::Abort);

/// Checks every transactional id, and that each open transaction has one.
pub(super) fn check(check: &mut Check<'_>, logs: &Logs) {
    let mut ended: BTreeSet<(LogId, ProducerId)> = BTreeSet::new();
    let (from, to) = records::RANGE;
    check.each(Family::Txns, (&from, &to), |check, key, value| {
        let (id, txn) = match (records::decode_key(key), records::decode(value)) {
            (Ok(id), Ok(txn)) => (id, txn),
            (Err(error), _) | (_, Err(error)) => {
                return check.add(ID_DAMAGED, Place::named("a transactional id"), error.message);
            }
        };
        if txn.phase != Phase::Ongoing {
            if !txn.places.is_empty() || !txn.groups.is_empty() {
                let place = Place::named(format!("transactional id {id}"));
                check.add(ID_WRONG, place, "no transaction is open, and it has partitions or groups");
            }
            return;
        }
        for (topic, partition) in &txn.places {
            let log = logs.of_topic(*topic).and_then(|logs| logs.get(usize::try_from(*partition).ok()?));
            ended.extend(log.map(|log| (*log, txn.producer_id)));
        }
    });
    let open = [[open::KIND], [open::KIND + 1]];
    check.each(Family::Txns, (&open[0], &open[1]), |check, key, value| {
        let id = key.get(1..5).and_then(|id| id.first_chunk::<4>()).map(|id| LogId(u32::from_be_bytes(*id)));
        let producer = key.get(1..).and_then(|rest| keys::base_offset_of(rest).ok());
        // what cannot be read was found with its log
        let (Some(id), Some(producer), Ok((_, first))) = (id, producer, open::decode(value)) else { return };
        let Some(span) = logs.span(id) else { return };
        if !ended.contains(&(id, producer)) {
            let place = Place::offsets(&span.topic, span.partition, first, first);
            let what = format!("producer {producer} has a transaction open that no transactional id knows");
            check.add(NOBODY_ENDS, place, what);
        }
    });
}
