//! What a group of the consumer protocol is. [`Consumers::apply`] alone changes what is stored of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{ConsumerMember, Deadlines, Epochs, Fact, MemberState, Partitions};
use crate::group::state::{MemberId, SteadyMs};
use crate::types::{PartitionIndex, TopicId};

/// A group of the consumer protocol. Holds: members, their targets, what regular expressions stand for, and deadlines.
/// Facts change it, deadlines apart. Always true: a partition is assigned to or being revoked from at most one member;
/// each static name belongs to one member. A crash keeps all but the deadlines.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    epochs: Epochs,
    members: BTreeMap<MemberId, ConsumerMember>,
    static_members: HashMap<Arc<str>, MemberId>,
    targets: BTreeMap<MemberId, Partitions>,
    owners: HashMap<(TopicId, PartitionIndex), MemberId>,
    regexes: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    deadlines: HashMap<MemberId, Deadlines>,
    /// The state of the topics when the group last looked at them; see `Topics::changes`. Not stored.
    pub(super) topics_seen: Option<u64>,
    /// When the target was last computed. Not stored.
    pub(super) assigned_at: Option<SteadyMs>,
    /// How its regular expressions are kept up to date. Not stored.
    pub(super) lookups: Lookups,
}

/// What is known of looking up regular expressions.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// Whether it is being done.
    pub(super) is_running: bool,
    /// When it was last done, and on which state of the topics.
    pub(super) last: Option<(SteadyMs, u64)>,
}

impl Consumers {
    /// A group that has just begun to use the protocol.
    pub(crate) fn new(epochs: Epochs) -> Self {
        Self { epochs, ..Self::default() }
    }

    /// The only way to change what is stored. `Began` and `Ended` are the group's affair.
    pub(crate) fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Epochs(epochs) => self.epochs = epochs,
            Fact::Member(member) => self.put(*member),
            Fact::Gone(id) => {
                self.take(&id);
                self.targets.remove(&id);
                self.deadlines.remove(&id);
            }
            Fact::Target(id, partitions) => drop(self.targets.insert(id, partitions)),
            Fact::Resolved(regex, resolved) => drop(self.regexes.insert(regex, resolved)),
            Fact::Unused(regex) => drop(self.regexes.remove(&regex)),
            Fact::Began(_) | Fact::Ended(_) => {}
        }
    }

    fn put(&mut self, member: ConsumerMember) {
        self.take(&member.id);
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), member.id.clone());
        }
        for (topic, partitions) in member.assigned.iter().chain(&member.revoking) {
            for partition in partitions {
                self.owners.insert((*topic, *partition), member.id.clone());
            }
        }
        self.members.insert(member.id.clone(), member);
    }

    fn take(&mut self, id: &str) {
        let Some(old) = self.members.remove(id) else { return };
        if let Some(instance) = &old.instance_id
            && self.static_members.get(instance).is_some_and(|owner| **owner == *id)
        {
            self.static_members.remove(instance);
        }
        for (topic, partitions) in old.assigned.iter().chain(&old.revoking) {
            for partition in partitions {
                self.owners.remove(&(*topic, *partition));
            }
        }
    }

    /// Where the group stands.
    pub(crate) fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// Its members by id.
    pub(crate) fn members(&self) -> &BTreeMap<MemberId, ConsumerMember> {
        &self.members
    }

    /// Who has this static name.
    pub(crate) fn static_member(&self, instance: &str) -> Option<&ConsumerMember> {
        self.members.get(self.static_members.get(instance)?)
    }

    /// What a member is to have.
    pub(crate) fn target(&self, id: &str) -> Option<&Partitions> {
        self.targets.get(id)
    }

    /// Who reads a partition or has to give it up.
    pub(crate) fn owner(&self, topic: TopicId, partition: PartitionIndex) -> Option<&MemberId> {
        self.owners.get(&(topic, partition))
    }

    /// What the regular expressions stand for.
    pub(crate) fn regexes(&self) -> &BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        &self.regexes
    }

    /// The regular expressions that members subscribe by, each with the number of members.
    pub(crate) fn wanted_regexes(&self) -> BTreeMap<Arc<str>, usize> {
        let mut wanted = BTreeMap::new();
        for member in self.members.values().filter(|member| !member.regex.is_empty()) {
            *wanted.entry(member.regex.clone()).or_insert(0) += 1;
        }
        wanted
    }

    /// All topics that a member subscribes to, by name and by what is known of its regular expression.
    pub(crate) fn subscription(&self, member: &ConsumerMember) -> BTreeSet<Arc<str>> {
        let resolved = self.regexes.get(&member.regex);
        member.topics.iter().chain(resolved.into_iter().flatten()).cloned().collect()
    }

    /// All topics that somebody subscribes to.
    pub(crate) fn subscribed_topics(&self) -> BTreeSet<Arc<str>> {
        let mut topics: BTreeSet<Arc<str>> = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(member.topics.iter().cloned());
        }
        let wanted = self.wanted_regexes();
        let resolved = self.regexes.iter().filter(|(regex, _)| wanted.contains_key(*regex));
        topics.extend(resolved.flat_map(|(_, topics)| topics.iter().cloned()));
        topics
    }

    /// Kafka's word for where the group stands.
    pub(crate) fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epochs.group > self.epochs.target {
            "Assigning"
        } else if self.members.values().all(|member| member.is_reconciled_to(self.epochs.target)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Whether a waiting member waits for partitions that others still have.
    pub(crate) fn waits_for_others(&self, member: &ConsumerMember) -> bool {
        let target = self.targets.get(&member.id);
        let owned_by_others = |topic: TopicId, partition: PartitionIndex| {
            self.owner(topic, partition).is_some_and(|owner| *owner != member.id)
        };
        member.state == MemberState::Waiting
            && target.is_some_and(|target| {
                let mut all = target.iter().flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)));
                all.any(|(topic, partition)| owned_by_others(topic, partition))
            })
    }

    /// A member was heard: its session lasts until then. Its other deadlines stay.
    pub(crate) fn heard(&mut self, id: &MemberId, until: SteadyMs) {
        let fresh = Deadlines { session: until, revoking: None, join: None, sync: None };
        self.deadlines.entry(id.clone()).or_insert(fresh).session = until;
    }

    /// Changes the deadlines of a member that was heard before.
    pub(crate) fn set_deadlines(&mut self, id: &str, change: impl FnOnce(&mut Deadlines)) {
        if let Some(deadlines) = self.deadlines.get_mut(id) {
            change(deadlines);
        }
    }

    /// After a start of the broker: every session begins anew, and so does the time to give up partitions.
    pub(crate) fn restart_deadlines(&mut self, now: SteadyMs, session_timeout_ms: i32) {
        let timed = self.members.values().map(|member| {
            let own = member.classic.as_ref().map_or(session_timeout_ms, |classic| classic.session_timeout_ms);
            let revoking = (member.state == MemberState::Revoking && member.classic.is_none())
                .then(|| now.saturating_add(i64::from(member.rebalance_timeout_ms)));
            let session = now.saturating_add(i64::from(own));
            (member.id.clone(), Deadlines { session, revoking, join: None, sync: None })
        });
        self.deadlines = timed.collect();
    }

    /// Members for whom something is due, and what.
    pub(crate) fn overdue(&self, now: SteadyMs) -> Vec<(MemberId, &'static str)> {
        let late = |at: Option<SteadyMs>| at.is_some_and(|at| at <= now);
        let due = |(id, deadlines): (&MemberId, &Deadlines)| {
            let reason = if late(Some(deadlines.session)) {
                "it was silent for its session timeout"
            } else if late(deadlines.revoking) {
                "it did not give up its partitions in time"
            } else if late(deadlines.join) {
                "it did not join again in time"
            } else if late(deadlines.sync) {
                "it did not ask for its assignment in time"
            } else {
                return None;
            };
            Some((id.clone(), reason))
        };
        let mut overdue: Vec<_> = self.deadlines.iter().filter_map(due).collect();
        overdue.sort();
        overdue
    }

    /// When something is due although nobody asks.
    pub(crate) fn next_deadline(&self) -> Option<SteadyMs> {
        self.deadlines.values().map(Deadlines::next).min()
    }
}
