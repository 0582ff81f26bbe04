//! The coordinator of transactions. Each request takes one turn under the coordinator's lock: rules decide (`rules.rs`),
//! records go into the commit lane (`records.rs`), what they say is applied (`state.rs`). The lane takes commits in the order
//! of their submission and fails only when the broker stops, so a decision is applied when it is submitted: the next one is
//! made upon it, and nobody is answered before it is stored.
//!
//! The end of a transaction is one commit: its markers in all partitions, its groups' offsets, and its new state. So there is
//! no prepared transaction, and nothing to complete after a crash.

pub(crate) mod records;
mod rules;
mod state;
mod timers;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use rules::{Init, TransactionVersion};
pub(crate) use state::{Identity, NO_EPOCH, NO_ID, Phase, Place, Txn};
pub(crate) use timers::run as run_timers;

use crate::Broker;
use crate::builder::transaction_marker;
use crate::catalog::Catalog;
use crate::error::{Error, Kind, Result};
use crate::group::{Caller, Commit, Later, NAME_BYTES_MAX};
use crate::lane::{Ack, Append, Change, Lane, Marker, Origin};
use crate::log::Partition;
use crate::store::{Family, Store};
use crate::types::ProducerId;
use rules::{End, Ended, Initialised};
use state::{Event, State};

/// Most transactional ids; more are refused until some expire.
const IDS_MAX: usize = 100_000;
/// The coordinator's epoch in markers: it is never replaced by another one.
pub(crate) const COORDINATOR_EPOCH: i32 = 0;

/// The coordinator. Holds: all transactional ids. It alone changes them, under its lock, which is taken before a group's
/// and before a partition's. A crash keeps all of it.
pub(crate) struct Transactions {
    lane: Arc<Lane>,
    state: Mutex<State>,
}

/// What a producer says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Producer<'a> {
    /// Its transactional id.
    pub(crate) id: &'a str,
    /// Its producer id and epoch.
    pub(crate) who: Identity,
}

impl Transactions {
    /// Reads what is stored, and tells partitions of the open transactions that they belong to. Blocks.
    ///
    /// # Errors
    /// `Storage` when it is damaged.
    pub(crate) fn recover(store: &Store, lane: Arc<Lane>, catalog: &Catalog) -> Result<Self> {
        let mut state = State::default();
        let (from, to) = records::RANGE;
        for entry in store.scan(Family::Txns, &from, &to) {
            let (key, value) = entry?;
            let txn = records::decode(&value)?;
            for partition in partitions(catalog, &txn) {
                partition.writer.lock().open.admit(txn.producer_id, txn.epoch, false);
            }
            state.apply(Event::Set(records::decode_key(&key)?, Box::new(txn)));
        }
        Ok(Self { lane, state: Mutex::new(state) })
    }

    /// Gives a producer its identity (InitProducerId).
    ///
    /// # Errors
    /// `InvalidTransactionTimeout`, `ProducerFenced`; `ConcurrentTransactions` when an open transaction was aborted for it:
    /// the producer asks again.
    pub(crate) async fn init(&self, broker: &Broker, id: &str, ask: Init) -> Result<Identity> {
        if id.is_empty() || id.len() > NAME_BYTES_MAX {
            let message = format!("a transactional id must have 1 to {NAME_BYTES_MAX} bytes, not {}", id.len());
            return Err(Error::new(Kind::InvalidRequest, message));
        }
        let max = broker.config().transaction_max_timeout_ms;
        if ask.timeout_ms <= 0 || ask.timeout_ms > max {
            let message = format!("transaction timeout {} ms must be from 1 to {max}", ask.timeout_ms);
            return Err(Error::new(Kind::InvalidTransactionTimeout, message));
        }
        let mut fresh = None;
        loop {
            match self.start(broker, id, ask, fresh)? {
                Started::Stored(identity, stored) => return stored.await.map(|()| identity),
                Started::Fencing(stored) => {
                    stored.await?;
                    let message = "the transaction that was open is aborted now; ask again";
                    return Err(Error::new(Kind::ConcurrentTransactions, message));
                }
                Started::NeedsId => fresh = Some(broker.producer_ids().next().await?),
            }
        }
    }

    fn start(&self, broker: &Broker, id: &str, ask: Init, fresh: Option<ProducerId>) -> Result<Started> {
        let mut state = self.state.lock();
        let now = broker.clock().now_ms();
        let current = state.get(id);
        if current.is_none() && state.len() >= IDS_MAX {
            let message = format!("the broker has {IDS_MAX} transactional ids, let some expire first");
            tracing::warn!(transactional_id = id, "{message}");
            return Err(Error::new(Kind::CoordinatorNotAvailable, message));
        }
        match (rules::init(current, ask, fresh, now)?, current) {
            (Initialised::Given(next), _) => {
                let identity = next.identity();
                Ok(Started::Stored(identity, self.set(&mut state, id, next, (vec![], Ack::Durable))))
            }
            (Initialised::Fences, Some(txn)) => {
                let end = rules::fence(txn, now);
                Ok(Started::Fencing(self.finish(&mut state, broker, id, end)))
            }
            (Initialised::NeedsId | Initialised::Fences, _) => Ok(Started::NeedsId),
        }
    }

    /// Adds partitions to the producer's transaction (AddPartitionsToTxn, and Produce from version 12 on); with `strict` a
    /// producer that is new to a partition must begin with sequence 0 there. The order among other commits is fixed when this
    /// returns.
    ///
    /// # Errors
    /// `InvalidProducerIdMapping`, `ProducerFenced`.
    pub(crate) fn add_partitions(
        &self,
        broker: &Broker,
        producer: Producer<'_>,
        added: &[(Place, Arc<Partition>)],
        strict: bool,
    ) -> Result<Later<()>> {
        check_id(producer.id)?;
        let mut state = self.state.lock();
        let places: Vec<Place> = added.iter().map(|(place, _)| *place).collect();
        let current = state.get(producer.id);
        let Some(next) = rules::add(current, producer.who, (&places, &[]), broker.clock().now_ms())? else {
            return Ok(nothing());
        };
        let known = |place: &Place| current.is_some_and(|txn| txn.places.contains(place));
        let admit = |(_, partition): &(Place, Arc<Partition>)| Change::Admit(partition.clone(), producer.who, strict);
        let changes = added.iter().filter(|(place, _)| !known(place)).map(admit).collect();
        Ok(self.set(&mut state, producer.id, next, (changes, Ack::Written)))
    }

    /// Whether the producer may write into a partition that was added before (Produce up to version 11).
    ///
    /// # Errors
    /// `InvalidProducerIdMapping`, `ProducerFenced`, `TransactionAbortable`.
    pub(crate) fn verify(&self, producer: Producer<'_>, place: Place) -> Result<()> {
        check_id(producer.id)?;
        rules::verify(self.state.lock().get(producer.id), producer.who, |txn| txn.places.contains(&place))
    }

    /// Adds a group to the producer's transaction (AddOffsetsToTxn).
    ///
    /// # Errors
    /// `InvalidProducerIdMapping`, `ProducerFenced`.
    pub(crate) fn add_group(&self, broker: &Broker, producer: Producer<'_>, group: &str) -> Result<Later<()>> {
        check_id(producer.id)?;
        if group.len() > NAME_BYTES_MAX {
            return Err(Error::new(Kind::InvalidGroupId, "the group id is too long"));
        }
        let mut state = self.state.lock();
        let now = broker.clock().now_ms();
        match rules::add(state.get(producer.id), producer.who, (&[], &[group.into()]), now)? {
            Some(next) => Ok(self.set(&mut state, producer.id, next, (vec![], Ack::Written))),
            None => Ok(nothing()),
        }
    }

    /// Keeps offsets of a group until the producer's transaction ends (TxnOffsetCommit); with `implicit` the group need not
    /// have been added before (version 2).
    ///
    /// # Errors
    /// `InvalidProducerIdMapping`, `ProducerFenced`, `TransactionAbortable`, and those of `Groups::keep_pending`.
    pub(crate) fn commit_offsets(
        &self,
        broker: &Broker,
        producer: Producer<'_>,
        (group, member): (&str, &Caller<'_>),
        (commits, implicit): (Vec<Commit>, bool),
    ) -> Result<Later<()>> {
        if implicit {
            // its commit lies before the offsets' one in the lane, so nobody has to wait for it
            drop(self.add_group(broker, producer, group)?);
        }
        check_id(producer.id)?;
        let state = self.state.lock();
        rules::verify(state.get(producer.id), producer.who, |txn| txn.groups.contains(group))?;
        broker.groups().keep_pending(group, member, producer.who.0, commits)
    }

    /// Ends the producer's transaction (EndTxn), and gives the identity it has from then on. The order among other commits is
    /// fixed when this returns, unless a fresh producer id is needed.
    pub(crate) fn end(
        self: &Arc<Self>,
        broker: &Arc<Broker>,
        producer: Producer<'_>,
        committed: bool,
        version: TransactionVersion,
    ) -> Later<Identity> {
        let end = Ending { id: producer.id.into(), who: producer.who, committed, version };
        let first = self.try_end(broker, &end, None);
        let (this, broker) = (self.clone(), broker.clone());
        Box::pin(async move {
            let mut tried = first?;
            loop {
                match tried {
                    Tried::Stored(identity, stored) => return stored.await.map(|()| identity),
                    Tried::NeedsId => {
                        let fresh = broker.producer_ids().next().await?;
                        tried = this.try_end(&broker, &end, Some(fresh))?;
                    }
                }
            }
        })
    }

    fn try_end(&self, broker: &Broker, end: &Ending, fresh: Option<ProducerId>) -> Result<Tried> {
        check_id(&end.id)?;
        let mut state = self.state.lock();
        let (current, now) = (state.get(&end.id), broker.clock().now_ms());
        let ended = match end.version {
            TransactionVersion::One => rules::end(current, end.who, end.committed, now)?,
            TransactionVersion::Two => rules::end_and_bump(current, end.who, end.committed, (fresh, now))?,
        };
        Ok(match ended {
            // its commit may still be on the way to the disk: one behind it is answered when that is there
            Ended::Already(identity) => Tried::Stored(identity, later(self.lane.commit(vec![], Ack::Durable))),
            Ended::NeedsId => Tried::NeedsId,
            Ended::Ends(ends) => {
                let identity = ends.next.identity();
                Tried::Stored(identity, self.finish(&mut state, broker, &end.id, ends))
            }
        })
    }

    /// Submits the end of a transaction: markers, offsets and state in one commit.
    fn finish(&self, state: &mut State, broker: &Broker, id: &str, end: End) -> Later<()> {
        let marker = Marker { committed: end.committed, coordinator_epoch: COORDINATOR_EPOCH, by_admin: false };
        let batch = transaction_marker(end.marker, end.committed, COORDINATOR_EPOCH, broker.clock().now_ms());
        let mut changes = vec![Change::Put(Family::Txns, records::key(id), records::encode(&end.next))];
        for partition in partitions(broker.catalog(), &end.ended) {
            let append = Append { partition, batch: batch.clone(), origin: Origin::Marker(marker) };
            changes.push(Change::Append(append));
        }
        let (producer, groups) = (end.ended.producer_id, end.ended.groups.into_iter());
        let stored = broker.groups().end_transaction(producer, end.committed, groups, |more| {
            changes.extend(more);
            self.lane.commit(changes, Ack::Durable)
        });
        state.apply(Event::Set(id.into(), end.next));
        stored
    }

    fn set(&self, state: &mut State, id: &str, next: Box<Txn>, (mut changes, ack): (Vec<Change>, Ack)) -> Later<()> {
        changes.push(Change::Put(Family::Txns, records::key(id), records::encode(&next)));
        let stored = self.lane.commit(changes, ack);
        state.apply(Event::Set(id.into(), next));
        later(stored)
    }

    /// Aborts the transactions that have taken too long. Gives how many.
    ///
    /// # Errors
    /// `CoordinatorNotAvailable` when the store failed.
    pub(crate) async fn abort_overdue(&self, broker: &Broker) -> Result<usize> {
        let ended: Vec<Later<()>> = {
            let mut state = self.state.lock();
            let now = broker.clock().now_ms();
            let overdue = |(id, txn): (&Arc<str>, &Txn)| rules::is_overdue(txn, now).then(|| (id.clone(), txn.clone()));
            let overdue: Vec<(Arc<str>, Txn)> = state.all().filter_map(overdue).collect();
            let abort = |(id, txn): (Arc<str>, Txn)| {
                tracing::info!(
                    transactional_id = &*id,
                    timeout_ms = txn.timeout_ms,
                    "a transaction took too long and is aborted"
                );
                let end = rules::fence(&txn, now);
                self.finish(&mut state, broker, &id, end)
            };
            overdue.into_iter().map(abort).collect()
        };
        let count = ended.len();
        for stored in ended {
            stored.await?;
        }
        Ok(count)
    }

    /// Forgets the transactional ids that were unused for long.
    ///
    /// # Errors
    /// `CoordinatorNotAvailable` when the store failed.
    pub(crate) async fn forget_expired(&self, broker: &Broker) -> Result<()> {
        let stored = {
            let mut state = self.state.lock();
            let (now, after) = (broker.clock().now_ms(), broker.config().transactional_id_expiration_ms);
            let expired = state.all().filter(|(_, txn)| rules::is_expired(txn, now, after));
            let expired: Vec<Arc<str>> = expired.map(|(id, _)| id.clone()).collect();
            let delete = |id: &Arc<str>| Change::Delete(Family::Txns, records::key(id));
            let stored = self.lane.commit(expired.iter().map(delete).collect(), Ack::Written);
            expired.into_iter().for_each(|id| state.apply(Event::Gone(id)));
            stored
        };
        later(stored).await
    }

    /// Reads all transactional ids, or looks one up.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock())
    }
}

/// What InitProducerId comes to.
enum Started {
    Stored(Identity, Later<()>),
    Fencing(Later<()>),
    NeedsId,
}

/// What EndTxn comes to.
enum Tried {
    Stored(Identity, Later<()>),
    NeedsId,
}

/// What EndTxn asks for.
struct Ending {
    id: Arc<str>,
    who: Identity,
    committed: bool,
    version: TransactionVersion,
}

/// The partitions of a transaction that are still there.
fn partitions(catalog: &Catalog, txn: &Txn) -> Vec<Arc<Partition>> {
    let find = |(topic, index): &Place| catalog.topic_by_id(*topic)?.partition(*index);
    txn.places.iter().filter_map(find).collect()
}

fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::new(Kind::InvalidRequest, "the transactional id is empty"));
    }
    Ok(())
}

fn nothing() -> Later<()> {
    Box::pin(std::future::ready(Ok(())))
}

/// A store that failed cannot coordinate: clients look for the coordinator again, and find it after a restart.
fn later<T>(stored: impl Future<Output = Result<T>> + Send + 'static) -> Later<()> {
    Box::pin(async move {
        let done = stored.await.map(drop);
        done.map_err(|error| Error::new(Kind::CoordinatorNotAvailable, error.message))
    })
}
