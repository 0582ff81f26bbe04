//! What a transactional id is, and the one function that changes all of them: [`State::apply`], live and in recovery alike.
//! The rules that decide what it becomes are in `rules.rs`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::types::{PartitionIndex, ProducerId, TimestampMs, TopicId};

/// No producer id.
pub(crate) const NO_ID: ProducerId = -1;
/// No producer epoch.
pub(crate) const NO_EPOCH: i16 = -1;

/// Where a transactional id stands. Kafka's states between "prepared" and "complete" do not exist here: markers, offsets and
/// the end of the transaction are one commit of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A producer was initialised and has begun nothing.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// The last transaction was committed.
    CompleteCommit,
    /// The last transaction was aborted.
    CompleteAbort,
}

impl Phase {
    /// All of them.
    pub(crate) const ALL: [Phase; 4] = [Phase::Empty, Phase::Ongoing, Phase::CompleteCommit, Phase::CompleteAbort];

    /// Kafka's word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }
}

/// A producer as it names itself: id and epoch.
pub(crate) type Identity = (ProducerId, i16);

/// A partition of a transaction. By the topic's id: a topic that was made again is another one.
pub(crate) type Place = (TopicId, PartitionIndex);

/// One transactional id. Holds: who may write under it, and what its open transaction reached. Only `rules.rs` makes new
/// ones. Always true: `places` and `groups` are empty unless a transaction is open. A crash keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Txn {
    /// Where it stands.
    pub(crate) phase: Phase,
    /// The producer's id.
    pub(crate) producer_id: ProducerId,
    /// The id before the last change; [`NO_ID`] at first.
    pub(crate) previous_id: ProducerId,
    /// The producer's epoch: who writes with a lower one is fenced.
    pub(crate) epoch: i16,
    /// The epoch before this one, if its producer may ask for this one by naming that (KIP-360); else [`NO_EPOCH`].
    pub(crate) last_epoch: i16,
    /// After how long an open transaction is aborted.
    pub(crate) timeout_ms: i32,
    /// When the open or last transaction began; -1 if there was none.
    pub(crate) started_at: TimestampMs,
    /// When anything last changed.
    pub(crate) updated_at: TimestampMs,
    /// Partitions that the open transaction writes to.
    pub(crate) places: BTreeSet<Place>,
    /// Groups whose offsets it commits.
    pub(crate) groups: BTreeSet<Arc<str>>,
}

impl Txn {
    /// A new transactional id, before a producer got an epoch.
    pub(crate) fn new(producer_id: ProducerId, now: TimestampMs) -> Self {
        Self {
            phase: Phase::Empty,
            producer_id,
            previous_id: NO_ID,
            epoch: NO_EPOCH,
            last_epoch: NO_EPOCH,
            timeout_ms: 0,
            started_at: -1,
            updated_at: now,
            places: BTreeSet::new(),
            groups: BTreeSet::new(),
        }
    }

    /// Who may write.
    pub(crate) fn identity(&self) -> Identity {
        (self.producer_id, self.epoch)
    }

    /// Whether a transaction is open.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Ongoing
    }
}

/// What can happen to a transactional id.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// It is now so.
    Set(Arc<str>, Box<Txn>),
    /// It expired.
    Gone(Arc<str>),
}

/// All transactional ids. [`State::apply`] alone changes it.
#[derive(Debug, Default)]
pub(crate) struct State {
    ids: HashMap<Arc<str>, Txn>,
}

impl State {
    /// The only way to change it.
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::Set(id, txn) => drop(self.ids.insert(id, *txn)),
            Event::Gone(id) => drop(self.ids.remove(&id)),
        }
    }

    /// One of them.
    pub(crate) fn get(&self, id: &str) -> Option<&Txn> {
        self.ids.get(id)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Txn)> {
        self.ids.iter()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}
