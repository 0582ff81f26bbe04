//! A group changes its protocol while it works. The first member of the consumer protocol turns a classic group into one
//! of the consumer protocol, with the old members in it; when the last such member leaves, the group is classic again. Pure,
//! like the rest of [`Turn`].

use std::sync::Arc;

use bytes::Bytes;

use super::embedded::{CONSUMER, Subscription, by_id, read_assignment, version_of, write_assignment};
use super::heartbeat::no_consumer_group;
use super::subscription::digest;
use super::{ClassicSide, ConsumerMember, Epochs, Fact, MemberState, Partitions};
use crate::error::Result;
use crate::group::classic::{Answer, Turn, rebalancing};
use crate::group::rebalance::select_protocol_of;
use crate::group::records::{GroupRecord, MemberRecord};
use crate::group::state::{Event, Member, MemberId};

impl Turn<'_> {
    /// What has to be recorded so that a classic group with members is one of the consumer protocol.
    ///
    /// # Errors
    /// `GroupIdNotFound` when it cannot become one, with the reason.
    pub(super) fn upgrade_facts(&self) -> Result<Vec<Fact>> {
        let refused = |reason: &str| {
            let mut error = no_consumer_group(self.group.id());
            error.message = format!("{} and cannot become one: {reason}", error.message);
            error
        };
        let group = &self.group;
        if !self.limits.consumer.migration.upgrades() {
            return Err(refused("the migration policy forbids it"));
        }
        if group.protocol_type().is_none_or(|kind| **kind != *CONSUMER) {
            return Err(refused("its members are not consumers"));
        }
        if group.members().len() > self.limits.consumer.members_max {
            return Err(refused("it has too many members"));
        }
        let unreadable = || refused("a member's metadata or assignment cannot be read");
        let read: Option<Vec<_>> = group.members().values().map(|member| self.upgraded(member)).collect();
        let members = with_claims(read.ok_or_else(unreadable)?);
        let topics = members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        let epoch = group.generation();
        let epochs = Epochs { group: epoch, target: epoch, topics_digest: digest(&topics, self.topics) };
        let mut facts = vec![Fact::Began(epochs)];
        for member in members {
            let member = member.dated(&ConsumerMember::new("".into()), epoch);
            facts.push(Fact::Target(member.id.clone(), member.assigned.clone()));
            facts.push(Fact::Member(Box::new(member)));
        }
        Ok(facts)
    }

    /// A classic member in the group of the consumer protocol, with what its leader gave it; and what it said that it had when
    /// it joined.
    fn upgraded(&self, member: &Member) -> Option<(ConsumerMember, Partitions)> {
        let chosen = self.group.protocol().map(|name| member.metadata(name)).filter(|metadata| !metadata.is_empty());
        let metadata = chosen.or_else(|| member.protocols.first().map(|protocol| protocol.metadata.clone()))?;
        let subscription = Subscription::read(&metadata)?;
        let claims = by_id(&subscription.owned, self.topics);
        let epoch = self.group.generation();
        let upgraded = ConsumerMember {
            instance_id: member.instance_id.clone(),
            rack_id: subscription.rack,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            topics: subscription.topics,
            classic: Some(ClassicSide {
                session_timeout_ms: member.session_timeout_ms,
                protocols: member.protocols.clone(),
            }),
            epoch,
            previous_epoch: epoch,
            state: MemberState::Stable,
            assigned: read_assignment(&member.assignment, self.topics)?,
            ..ConsumerMember::new(member.id.clone())
        };
        Some((upgraded, claims))
    }

    /// The group is one of the consumer protocol from now on; who waits for an answer shall join again.
    pub(super) fn upgrade(&mut self, facts: Vec<Fact>) {
        let waiting: Vec<MemberId> = self.group.members().keys().cloned().collect();
        for id in &waiting {
            self.answer(id, Answer::Join(Err(rebalancing())));
            self.answer(id, Answer::Sync(Err(rebalancing())));
        }
        for fact in facts {
            self.record_fact(fact);
        }
        if !waiting.is_empty() {
            tracing::info!(group = %self.group.id(), "classic group now uses the consumer protocol");
        }
        for id in waiting {
            if let Some(member) = self.consumer(&id) {
                self.hear_consumer(&member);
            }
        }
    }

    /// Whether the group becomes a classic one when these members are gone.
    pub(super) fn can_downgrade_without(&self, gone: &[MemberId]) -> bool {
        let Some(group) = self.group.consumers() else { return false };
        let left: Vec<&ConsumerMember> = group.members().values().filter(|member| !gone.contains(&member.id)).collect();
        !left.is_empty()
            && left.iter().all(|member| member.classic.is_some())
            && self.limits.consumer.migration.downgrades()
            && left.len() <= self.limits.members_max
    }

    /// The group is a classic one from now on, without these members; the others join again.
    pub(super) fn downgrade(&mut self, gone: &[MemberId]) {
        self.become_classic(gone);
        self.rebalance_or_complete();
    }

    /// The group is a classic one from now on, and stable: everybody's assignment is what it may still read. (Kafka takes the
    /// targets; then somebody who has not given up a partition yet and its next reader could both have it.)
    pub(super) fn become_classic(&mut self, gone: &[MemberId]) {
        let Some(group) = self.group.consumers() else { return };
        let left = group.members().values().filter(|member| !gone.contains(&member.id));
        let members: Vec<Member> = left.filter_map(|member| self.classic_again(member)).collect();
        let protocol = select_protocol_of(&members.iter().collect::<Vec<_>>());
        let named = protocol.as_deref().unwrap_or_default();
        let record = GroupRecord {
            generation: group.epochs().group,
            since: self.wall,
            protocol_type: Some(CONSUMER.into()),
            leader: members.first().map(|member| member.id.clone()),
            members: members.iter().map(|member| member.record(named)).collect(),
            protocol,
        };
        tracing::info!(group = %self.group.id(), "group of the consumer protocol is a classic group again");
        let stored = GroupRecord { members: [record.members.clone(), self.shadows(gone)].concat(), ..record.clone() };
        self.record_fact(Fact::Ended(Some(Box::new(stored))));
        self.group.apply(Event::Recorded(Box::new(record), self.now));
        for member in members {
            // with all its protocols, of which the record has only the chosen one
            self.group.apply(Event::Rejoined(Box::new(member)));
        }
    }

    /// Those that are gone, as a broker that starts again shall know them: it waits for them in vain, and so makes the others
    /// join again, which now happens at once.
    fn shadows(&self, gone: &[MemberId]) -> Vec<MemberRecord> {
        let shadow = |id: &MemberId| MemberRecord {
            id: id.clone(),
            instance_id: None,
            client_id: "".into(),
            client_host: "".into(),
            session_timeout_ms: self.limits.session_timeout_min_ms,
            rebalance_timeout_ms: 0,
            metadata: Bytes::new(),
            assignment: Bytes::new(),
        };
        gone.iter().map(shadow).collect()
    }

    fn classic_again(&self, member: &ConsumerMember) -> Option<Member> {
        let classic = member.classic.as_ref()?;
        let mut held = member.assigned.clone();
        for (topic, partitions) in &member.revoking {
            held.entry(*topic).or_default().extend(partitions);
        }
        let version = classic.protocols.first().map_or(0, |protocol| version_of(&protocol.metadata));
        Some(Member {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_timeout_ms: classic.session_timeout_ms,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            protocols: classic.protocols.clone(),
            assignment: write_assignment(version, &held, self.topics),
            order: 0,
            joining: false,
            syncing: false,
            synced: true,
            is_new: false,
            confirmed: true,
            deadline: self.now.saturating_add(i64::from(classic.session_timeout_ms)),
        })
    }

    /// A group of the consumer protocol without members is a classic one again as soon as one of those joins.
    pub(in crate::group) fn end_empty_consumers(&mut self) {
        if self.group.consumers().is_some_and(|group| group.members().is_empty()) {
            self.record_fact(Fact::Ended(None));
        }
    }
}

/// No partition has two readers: assignments come first, then what members still had when they joined. They may not have
/// given it up yet, and say so when they join again.
fn with_claims(read: Vec<(ConsumerMember, Partitions)>) -> Vec<ConsumerMember> {
    let mut taken = Partitions::new();
    let (mut members, claims): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    for member in &mut members {
        member.assigned = take_from(&mut taken, &member.assigned);
    }
    for (member, claims) in members.iter_mut().zip(claims) {
        for (topic, partitions) in take_from(&mut taken, &claims) {
            member.assigned.entry(topic).or_default().extend(partitions);
        }
    }
    members
}

/// What of `wanted` nobody has taken; now it is.
fn take_from(taken: &mut Partitions, wanted: &Partitions) -> Partitions {
    let free = super::without(wanted, taken);
    for (topic, partitions) in &free {
        taken.entry(*topic).or_default().extend(partitions);
    }
    free
}

/// The protocol's name and bytes as a classic member has them.
pub(super) fn first_protocol(member: &ConsumerMember) -> Option<(Arc<str>, Bytes)> {
    let first = member.classic.as_ref()?.protocols.first()?;
    Some((first.name.clone(), first.metadata.clone()))
}
