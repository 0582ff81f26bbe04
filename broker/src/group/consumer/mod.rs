//! Groups of the consumer protocol (KIP-848): the broker assigns, members learn of it by heartbeats, and each moves to a
//! new assignment at its own pace. Members that still use the classic protocol can be among them (`classic_member.rs`),
//! so a group changes from one protocol to the other while it works (`migration.rs`).
//!
//! Three numbers say where a group stands: its epoch goes up when members, subscriptions or topics change; the target's
//! epoch says for which of these the assignment was computed; a member's epoch says which target it has reached.
//!
//! decide → record → apply: the rules are pure and give [`Fact`]s; [`Consumers::apply`] alone changes the state, live and
//! in recovery. A member keeps its epoch and its partitions over a crash of the broker; what is not stored are deadlines,
//! which start anew.

pub(crate) mod assignor;
mod beats;
mod classic_member;
pub(crate) mod embedded;
mod epochs;
mod fencing;
pub(crate) mod heartbeat;
mod migration;
mod range;
mod reconcile;
pub(crate) mod records;
pub(crate) mod regex;
pub(crate) mod settings;
mod state;
mod subscription;
mod uniform;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use beats::ConsumerGroupDescription;
pub(in crate::group) use epochs::check_commit;
pub(crate) use state::Consumers;
pub(in crate::group) use subscription::preferred;

use super::records::GroupRecord;
use super::state::{MemberId, Protocol, SteadyMs};
use crate::types::{PartitionIndex, TopicId};

/// A member's epoch when it joins.
pub(crate) const JOIN_EPOCH: i32 = 0;
/// Instead of an epoch: the member leaves.
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// Instead of an epoch: the static member leaves and will be back; its epoch while it is away.
pub(crate) const AWAY_EPOCH: i32 = -2;

/// Partitions by topic; no topic has an empty set.
pub(crate) type Partitions = BTreeMap<TopicId, BTreeSet<PartitionIndex>>;

/// How far a member is on its way to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has what its epoch gives it.
    Stable,
    /// It has to give up partitions first.
    Revoking,
    /// It waits for partitions that others have to give up.
    Waiting,
}

/// What a member has that uses the classic protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassicSide {
    /// How long it may be silent; members of the consumer protocol have the group's.
    pub(crate) session_timeout_ms: i32,
    /// The protocols it supports, best first; all carry the same subscription.
    pub(crate) protocols: Vec<Protocol>,
}

/// One member. Only [`Consumers::apply`] puts it in place of what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerMember {
    /// Its identity.
    pub(crate) id: MemberId,
    /// Name that it keeps over restarts, if it is static.
    pub(crate) instance_id: Option<Arc<str>>,
    /// Where it runs.
    pub(crate) rack_id: Option<Arc<str>>,
    /// Client id of its last request.
    pub(crate) client_id: Arc<str>,
    /// Address it came from, as Kafka shows it.
    pub(crate) client_host: Arc<str>,
    /// How long it may take to give up partitions; -1 until it said so.
    pub(crate) rebalance_timeout_ms: i32,
    /// Topics it subscribes to by name.
    pub(crate) topics: BTreeSet<Arc<str>>,
    /// Topics it subscribes to by a regular expression; empty for none.
    pub(crate) regex: Arc<str>,
    /// The assignor it wishes for.
    pub(crate) assignor: Option<Arc<str>>,
    /// What it has if it uses the classic protocol.
    pub(crate) classic: Option<ClassicSide>,
    /// The epoch that it has reached.
    pub(crate) epoch: i32,
    /// The one before: an answer with the present one may have been lost.
    pub(crate) previous_epoch: i32,
    /// How far it is on its way.
    pub(crate) state: MemberState,
    /// What it may read.
    pub(crate) assigned: Partitions,
    /// What it must give up and may still have.
    pub(crate) revoking: Partitions,
    /// The epoch in which it got each of these; where it is not said, its own.
    pub(crate) since: BTreeMap<(TopicId, PartitionIndex), i32>,
}

impl ConsumerMember {
    /// One that nothing is known of yet.
    pub(crate) fn new(id: MemberId) -> Self {
        Self {
            id,
            instance_id: None,
            rack_id: None,
            client_id: "".into(),
            client_host: "".into(),
            rebalance_timeout_ms: -1,
            topics: BTreeSet::new(),
            regex: "".into(),
            assignor: None,
            classic: None,
            epoch: JOIN_EPOCH,
            previous_epoch: JOIN_EPOCH,
            state: MemberState::Stable,
            assigned: Partitions::new(),
            revoking: Partitions::new(),
            since: BTreeMap::new(),
        }
    }

    /// Whether it has all of the target of this epoch.
    pub(crate) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// Bytes that a client made us keep for it, its assignment apart.
    pub(crate) fn bytes(&self) -> usize {
        let classic = self.classic.iter().flat_map(|classic| &classic.protocols);
        let classic: usize = classic.map(|protocol| protocol.name.len() + protocol.metadata.len()).sum();
        self.topics.iter().map(|topic| topic.len()).sum::<usize>() + self.regex.len() + classic
    }
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    /// Goes up with each change of members, subscriptions or topics.
    pub(crate) group: i32,
    /// The group's epoch for which the target was computed.
    pub(crate) target: i32,
    /// Digest of the topics that the group subscribes to: tells whether they changed.
    pub(crate) topics_digest: u64,
}

/// What is recorded of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// It uses the consumer protocol from now on, with these epochs; what it had of the classic one is gone.
    Began(Epochs),
    /// Its epochs.
    Epochs(Epochs),
    /// A member as it is now.
    Member(Box<ConsumerMember>),
    /// A member is gone, with its target.
    Gone(MemberId),
    /// What a member is to have.
    Target(MemberId, Partitions),
    /// Names of the topics that a regular expression stands for.
    Resolved(Arc<str>, BTreeSet<Arc<str>>),
    /// Nobody subscribes by it any more.
    Unused(Arc<str>),
    /// It uses the classic protocol from now on, with this generation; without one it is empty.
    Ended(Option<Box<GroupRecord>>),
}

/// When something is due for a member although it does not ask. Not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// It counts as gone unless it is heard.
    pub(crate) session: SteadyMs,
    /// It must have given up its partitions.
    pub(crate) revoking: Option<SteadyMs>,
    /// It must have joined again (classic).
    pub(crate) join: Option<SteadyMs>,
    /// It must have asked for its assignment (classic).
    pub(crate) sync: Option<SteadyMs>,
}

impl Deadlines {
    /// The earliest.
    pub(crate) fn next(&self) -> SteadyMs {
        let others = [self.revoking, self.join, self.sync];
        others.into_iter().flatten().fold(self.session, SteadyMs::min)
    }
}

/// The topics as the rules see them.
pub(crate) trait Topics {
    /// Id and number of partitions of a topic.
    fn find(&self, name: &str) -> Option<(TopicId, i32)>;
    /// Name of a topic.
    fn name(&self, id: TopicId) -> Option<Arc<str>>;
    /// Names of all topics.
    fn names(&self) -> Vec<Arc<str>>;
    /// Goes up with each change of topics.
    fn changes(&self) -> u64;
}

/// The topics of `from` without those of `other`.
pub(crate) fn without(from: &Partitions, other: &Partitions) -> Partitions {
    let left = from.iter().map(|(topic, partitions)| {
        let gone = other.get(topic);
        let left = partitions.iter().filter(|partition| gone.is_none_or(|gone| !gone.contains(partition)));
        (*topic, left.copied().collect::<BTreeSet<_>>())
    });
    left.filter(|(_, partitions)| !partitions.is_empty()).collect()
}

/// The partitions one by one.
pub(crate) fn each(partitions: &Partitions) -> impl Iterator<Item = (TopicId, PartitionIndex)> {
    partitions.iter().flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
}

/// Whether any partition is in both.
pub(crate) fn overlap(one: &Partitions, other: &Partitions) -> bool {
    one.iter().any(|(topic, partitions)| other.get(topic).is_some_and(|others| !others.is_disjoint(partitions)))
}

/// Whether all partitions of `inner` are in `outer`.
pub(crate) fn contains(outer: &Partitions, inner: &Partitions) -> bool {
    let within = |(topic, partitions): (&TopicId, &BTreeSet<PartitionIndex>)| {
        partitions.is_empty() || outer.get(topic).is_some_and(|others| others.is_superset(partitions))
    };
    inner.iter().all(within)
}
