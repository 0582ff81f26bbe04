//! The rules of transactions, as Kafka's coordinator has them: what a request makes of a transactional id. Pure. Errors
//! come in Kafka's order of precedence.
//!
//! `TransactionVersion::Two` (KIP-890) bumps the epoch at the end of each transaction, so that what a producer sent late can
//! never count for its next one.

use std::sync::Arc;

use super::state::{Identity, NO_EPOCH, Phase, Place, Txn};
use crate::error::{Error, Kind, Result};
use crate::types::{ProducerId, TimestampMs};

/// The protocol of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TransactionVersion {
    /// The producer's epoch stays when a transaction ends (KIP-98).
    One,
    /// The epoch is bumped at each end (KIP-890).
    Two,
}

/// What InitProducerId asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Init {
    /// The timeout of its transactions.
    pub(crate) timeout_ms: i32,
    /// Who the producer is, if it goes on after an error (KIP-360).
    pub(crate) expected: Option<Identity>,
}

/// What InitProducerId leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Initialised {
    /// The producer gets the identity of this.
    Given(Box<Txn>),
    /// An open transaction has to be aborted first, under an epoch that nobody was given; the producer asks again.
    Fences,
    /// A fresh producer id is needed: ask again with one.
    NeedsId,
}

/// How a transaction ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Whether it is committed.
    pub(crate) committed: bool,
    /// Who its markers name.
    pub(crate) marker: Identity,
    /// What it reached, and which groups.
    pub(crate) ended: Box<Txn>,
    /// What the transactional id is afterwards.
    pub(crate) next: Box<Txn>,
}

/// What EndTxn leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It ends.
    Ends(End),
    /// It was ended before, in the same way; the producer did not hear of it.
    Already(Identity),
    /// A fresh producer id is needed: ask again with one.
    NeedsId,
}

/// Largest epoch that is given to producers; the one above it is the coordinator's own, for fencing.
const EPOCH_MAX: i16 = i16::MAX - 1;

/// Most groups of one transaction; applications have one.
const GROUPS_MAX: usize = 1_000;

/// Whether no higher epoch may be given out under the same producer id.
fn is_exhausted(epoch: i16) -> bool {
    epoch >= EPOCH_MAX
}

/// A producer comes, or comes back.
///
/// # Errors
/// `ProducerFenced` when a newer one has the transactional id.
pub(crate) fn init(
    current: Option<&Txn>,
    ask: Init,
    fresh: Option<ProducerId>,
    now: TimestampMs,
) -> Result<Initialised> {
    let new;
    let txn = match (current, fresh) {
        (Some(txn), _) => txn,
        (None, None) => return Ok(Initialised::NeedsId),
        (None, Some(id)) => {
            new = Txn::new(id, now);
            &new
        }
    };
    let knows = |(id, epoch): Identity| {
        txn.epoch == NO_EPOCH || id == txn.producer_id || (id == txn.previous_id && is_exhausted(epoch))
    };
    if !ask.expected.is_none_or(knows) {
        return Err(fenced("another producer has taken over the transactional id"));
    }
    if txn.is_open() {
        return Ok(Initialised::Fences);
    }
    let believes = ask.expected.map(|(_, epoch)| epoch);
    let mut next = Txn {
        phase: Phase::Empty,
        previous_id: txn.producer_id,
        timeout_ms: ask.timeout_ms,
        started_at: -1,
        updated_at: now,
        ..txn.clone()
    };
    if is_exhausted(txn.epoch) && believes.is_none_or(|epoch| epoch == txn.epoch) {
        let Some(id) = fresh else { return Ok(Initialised::NeedsId) };
        next.producer_id = id;
        next.epoch = 0;
        next.last_epoch = believes.map_or(NO_EPOCH, |_| txn.epoch);
        return Ok(Initialised::Given(Box::new(next)));
    }
    match believes {
        None => (next.epoch, next.last_epoch) = (txn.epoch + 1, NO_EPOCH),
        Some(epoch) if txn.epoch == NO_EPOCH || epoch == txn.epoch => {
            (next.epoch, next.last_epoch) = (txn.epoch + 1, txn.epoch);
        }
        // a retry of a request that went well
        Some(epoch) if epoch == txn.last_epoch => {}
        Some(epoch) => {
            return Err(fenced(format!("the producer believes in epoch {epoch}, the current one is {}", txn.epoch)));
        }
    }
    Ok(Initialised::Given(Box::new(next)))
}

/// Partitions and groups become part of the transaction; it begins if none is open. None when they are part of it already.
///
/// # Errors
/// `InvalidProducerIdMapping`, `ProducerFenced`; `InvalidRequest` for too many groups.
pub(crate) fn add(
    current: Option<&Txn>,
    who: Identity,
    (places, groups): (&[Place], &[Arc<str>]),
    now: TimestampMs,
) -> Result<Option<Box<Txn>>> {
    let txn = check(current, who)?;
    let known =
        places.iter().all(|place| txn.places.contains(place)) && groups.iter().all(|group| txn.groups.contains(group));
    if txn.is_open() && known {
        return Ok(None);
    }
    let mut next = Txn { phase: Phase::Ongoing, previous_id: txn.producer_id, updated_at: now, ..txn.clone() };
    if !txn.is_open() {
        next.started_at = now;
    }
    next.places.extend(places);
    next.groups.extend(groups.iter().cloned());
    if next.groups.len() > GROUPS_MAX {
        let message = format!("a transaction commits offsets of at most {GROUPS_MAX} groups");
        return Err(Error::new(Kind::InvalidRequest, message));
    }
    Ok(Some(Box::new(next)))
}

/// Whether something belongs to the producer's open transaction.
///
/// # Errors
/// `InvalidProducerIdMapping`, `ProducerFenced`, `TransactionAbortable`.
pub(crate) fn verify(current: Option<&Txn>, who: Identity, belongs: impl Fn(&Txn) -> bool) -> Result<()> {
    let txn = check(current, who)?;
    if txn.is_open() && belongs(txn) {
        return Ok(());
    }
    Err(Error::new(Kind::TransactionAbortable, "it was not added to the transaction; abort the transaction"))
}

fn check(current: Option<&Txn>, (id, epoch): Identity) -> Result<&Txn> {
    let txn = current.filter(|txn| txn.producer_id == id);
    let txn = txn.ok_or_else(|| {
        Error::new(Kind::InvalidProducerIdMapping, format!("the transactional id does not have the producer id {id}"))
    })?;
    if txn.epoch != epoch {
        return Err(fenced(format!("the producer has epoch {epoch}, the current one is {}", txn.epoch)));
    }
    Ok(txn)
}

/// A producer ends its transaction under version 1.
///
/// # Errors
/// `InvalidProducerIdMapping`, `ProducerFenced`, `InvalidTxnState`.
pub(crate) fn end(current: Option<&Txn>, who: Identity, committed: bool, now: TimestampMs) -> Result<Ended> {
    let txn = check(current, who)?;
    match (txn.phase, committed) {
        (Phase::Ongoing, _) => Ok(Ended::Ends(ends(txn, committed, txn.identity(), now))),
        (Phase::CompleteCommit, true) | (Phase::CompleteAbort, false) => Ok(Ended::Already(txn.identity())),
        (phase, _) => Err(wrong_state(phase, committed)),
    }
}

/// A producer ends its transaction under version 2: its epoch is bumped, and when epochs are used up it gets a fresh id.
///
/// # Errors
/// `InvalidProducerIdMapping`, `ProducerFenced`, `InvalidTxnState`.
pub(crate) fn end_and_bump(
    current: Option<&Txn>,
    (id, epoch): Identity,
    committed: bool,
    (fresh, now): (Option<ProducerId>, TimestampMs),
) -> Result<Ended> {
    // the end that used up the epochs gave a fresh id, and the producer did not hear of it
    let missed_id = |txn: &&Txn| txn.previous_id == id && epoch == EPOCH_MAX && txn.epoch == 0;
    let txn = current.filter(|txn| txn.producer_id == id || missed_id(txn)).ok_or_else(|| {
        Error::new(Kind::InvalidProducerIdMapping, format!("the transactional id does not have the producer id {id}"))
    })?;
    let is_complete = matches!(txn.phase, Phase::CompleteCommit | Phase::CompleteAbort);
    let is_retry =
        is_complete && (missed_id(&txn) || (id == txn.producer_id && epoch.checked_add(1) == Some(txn.epoch)));
    if !is_retry && (epoch != txn.epoch || id != txn.producer_id) {
        return Err(fenced(format!("the producer has epoch {epoch}, the current one is {}", txn.epoch)));
    }
    let ended_so = if committed { Phase::CompleteCommit } else { Phase::CompleteAbort };
    match (txn.phase, committed) {
        (phase, _) if is_retry && phase == ended_so => return Ok(Ended::Already(txn.identity())),
        (Phase::Ongoing, _) => {}
        // it may abort what it has not begun: its records may not have arrived
        (_, false) if !is_retry => {}
        (phase, _) => return Err(wrong_state(phase, committed)),
    }
    let mut end = ends(txn, committed, (id, epoch.saturating_add(1)), now);
    end.next.last_epoch = epoch;
    if !txn.is_open() {
        end.next.started_at = now;
    }
    if is_exhausted(epoch) {
        let Some(fresh) = fresh else { return Ok(Ended::NeedsId) };
        (end.next.producer_id, end.next.epoch) = (fresh, 0);
    }
    Ok(Ended::Ends(end))
}

/// The broker aborts an open transaction: its time is over, or its producer was replaced. The producer is fenced.
pub(crate) fn fence(txn: &Txn, now: TimestampMs) -> End {
    let mut end = ends(txn, false, (txn.producer_id, txn.epoch.saturating_add(1)), now);
    // if nobody has taken over, it may come back by naming itself
    end.next.last_epoch = txn.epoch;
    end
}

fn ends(txn: &Txn, committed: bool, marker: Identity, now: TimestampMs) -> End {
    let next = Txn {
        phase: if committed { Phase::CompleteCommit } else { Phase::CompleteAbort },
        previous_id: txn.producer_id,
        epoch: marker.1,
        updated_at: now,
        places: Default::default(),
        groups: Default::default(),
        ..txn.clone()
    };
    End { committed, marker, ended: Box::new(txn.clone()), next: Box::new(next) }
}

/// Whether an open transaction has taken longer than it may.
pub(crate) fn is_overdue(txn: &Txn, now: TimestampMs) -> bool {
    txn.is_open() && txn.started_at.saturating_add(i64::from(txn.timeout_ms)) < now
}

/// Whether a transactional id was unused for so long that it is forgotten (`transactional.id.expiration.ms`).
pub(crate) fn is_expired(txn: &Txn, now: TimestampMs, after_ms: i64) -> bool {
    !txn.is_open() && now.saturating_sub(txn.updated_at) >= after_ms
}

fn fenced(message: impl Into<String>) -> Error {
    Error::new(Kind::ProducerFenced, message)
}

fn wrong_state(phase: Phase, committed: bool) -> Error {
    let act = if committed { "commit" } else { "abort" };
    Error::new(
        Kind::InvalidTxnState,
        format!("there is nothing to {act}: the transaction is in state {}", phase.name()),
    )
}
