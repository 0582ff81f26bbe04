//! How a classic group is put together: when a rebalance begins, when its joining is complete, who is given up, and
//! which protocol the members agree on. Pure, like the rest of [`Turn`].

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::classic::{Answer, Record, Turn, rebalancing, supports, unknown_member};
use super::records::GroupRecord;
use super::state::{Begun, Event, Group, Member, MemberId, Phase, Protocol, SteadyMs};

impl Turn<'_> {
    /// Does what is due although nobody asks.
    pub(crate) fn tick(&mut self) {
        let late = |deadline: SteadyMs| deadline <= self.now;
        let given_up: Vec<_> = self.group.pending().iter().filter(|(_, until)| late(**until)).collect();
        let given_up: Vec<MemberId> = given_up.into_iter().map(|(id, _)| id.clone()).collect();
        let silent = self.group.members().values().filter(|member| member.can_expire() && late(member.deadline));
        let silent: Vec<MemberId> = silent.map(|member| member.id.clone()).collect();
        let lost = !given_up.is_empty() || !silent.is_empty();
        for id in given_up {
            self.group.apply(Event::IdDropped(id));
        }
        for id in silent {
            tracing::info!(group = %self.group.id(), member = %id, "member was silent for its session timeout");
            self.drop_member(&id);
        }
        if lost {
            self.rebalance_or_complete_after_loss();
        }
        self.expire_unsynced();
        self.expire_joining();
        self.expire_consumers();
    }

    /// Members that joined this generation and never asked for their assignment are gone.
    fn expire_unsynced(&mut self) {
        let waiting = matches!(self.group.phase(), Phase::CompletingRebalance | Phase::Stable);
        if !waiting || self.group.sync_until() > self.now {
            return;
        }
        let unsynced = self.group.members().values().filter(|member| !member.synced);
        let unsynced: Vec<MemberId> = unsynced.map(|member| member.id.clone()).collect();
        for id in &unsynced {
            tracing::info!(group = %self.group.id(), member = %id, "member did not ask for its assignment");
            self.drop_member(id);
        }
        if !unsynced.is_empty() {
            self.rebalance_or_complete_after_loss();
        }
    }

    fn expire_joining(&mut self) {
        let Phase::PreparingRebalance { until, initial } = self.group.phase() else { return };
        if until > self.now {
            return;
        }
        match initial {
            Some(left) if left > 0 && self.group.has_newcomer() => {
                let more = left.min(self.limits.initial_delay_ms);
                self.group.apply(Event::Rebalancing(self.now + more, Some(left - more)));
            }
            _ => self.complete_join(),
        }
    }

    pub(super) fn drop_member(&mut self, id: &MemberId) {
        self.answer(id, Answer::Join(Err(unknown_member())));
        self.answer(id, Answer::Sync(Err(unknown_member())));
        self.group.apply(Event::Left(id.clone()));
    }

    pub(super) fn rebalance_or_complete_after_loss(&mut self) {
        if self.group.phase() != Phase::Empty {
            self.rebalance_or_complete();
        }
    }

    /// Somebody came, changed or left: a rebalance begins, or the one under way may be complete.
    pub(super) fn rebalance_or_complete(&mut self) {
        let wait = self.group.rebalance_timeout_ms();
        match self.group.phase() {
            Phase::PreparingRebalance { .. } => {}
            Phase::Empty => {
                let delay = self.limits.initial_delay_ms.min(wait);
                self.group.apply(Event::Rebalancing(self.now + delay, Some(wait - delay)));
                // Kafka asks for newcomers since the delay began, so the first one does not count
                return;
            }
            Phase::CompletingRebalance => {
                let waiting = self.group.members().values().filter(|member| member.syncing);
                let waiting: Vec<MemberId> = waiting.map(|member| member.id.clone()).collect();
                for id in waiting {
                    self.heard(&id);
                    self.answer(&id, Answer::Sync(Err(rebalancing())));
                }
                self.group.apply(Event::SyncCancelled);
                self.group.apply(Event::Rebalancing(self.now + wait, None));
            }
            Phase::Stable => self.group.apply(Event::Rebalancing(self.now + wait, None)),
        }
        let all_joined = self.group.pending().is_empty() && self.group.members().values().all(|member| member.joining);
        let is_initial = matches!(self.group.phase(), Phase::PreparingRebalance { initial: Some(_), .. });
        if all_joined && (!is_initial || self.group.members().is_empty()) {
            self.complete_join();
        }
    }

    /// The joining ends: who did not come is out (static members stay), the rest is a generation.
    fn complete_join(&mut self) {
        let absent = self.group.members().values().filter(|member| !member.joining && member.instance_id.is_none());
        let absent: Vec<MemberId> = absent.map(|member| member.id.clone()).collect();
        for id in absent {
            tracing::info!(group = %self.group.id(), member = %id, "member did not join the rebalance in time");
            self.group.apply(Event::Left(id));
        }
        let joining = || self.group.members().values().filter(|member| member.joining);
        let present = self.group.leader().filter(|leader| self.group.members().get(*leader).is_some_and(|m| m.joining));
        let leader = present.or_else(|| joining().min_by_key(|member| member.order).map(|member| &member.id)).cloned();
        let answered: Vec<MemberId> = joining().map(|member| member.id.clone()).collect();
        if leader.is_none() && !self.group.members().is_empty() {
            // only static members, and none of them came: wait for their sessions or their return
            let until = self.now + self.group.rebalance_timeout_ms().max(1);
            self.group.apply(Event::Rebalancing(until, None));
            return;
        }
        let protocol = select_protocol(self.group);
        let begun = Begun { protocol, leader, now: self.now, since: self.wall };
        self.group.apply(Event::Begun(Box::new(begun)));
        if self.group.phase() == Phase::Empty {
            self.records.push(Record::Emptied(self.record()));
        }
        for id in answered {
            let joined = self.joined(&id);
            self.answer(&id, Answer::Join(Ok(joined)));
        }
    }

    /// The group as it is, to be recorded.
    pub(super) fn record(&self) -> GroupRecord {
        let group = &self.group;
        let protocol = group.protocol().cloned();
        let mut members: Vec<&Member> = group.members().values().collect();
        members.sort_by_key(|member| member.order);
        let recorded = |member: &Member| member.record(protocol.as_deref().unwrap_or_default());
        GroupRecord {
            generation: group.generation(),
            since: group.since(),
            protocol_type: group.protocol_type().cloned(),
            leader: group.leader().cloned(),
            members: members.into_iter().map(recorded).collect(),
            protocol,
        }
    }

    /// The group with the leader's assignment; who got none has an empty one.
    pub(super) fn assigned(&self, assignments: Vec<(MemberId, Bytes)>) -> GroupRecord {
        let mut record = self.record();
        let mut assignments: HashMap<MemberId, Bytes> = assignments.into_iter().collect();
        for member in &mut record.members {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
        }
        record
    }
}

/// The vote: each member is for the first protocol of its list that everybody supports; with equal votes it is the one
/// that comes first with the eldest member.
pub(super) fn select_protocol(group: &Group) -> Option<Arc<str>> {
    let mut members: Vec<&Member> = group.members().values().collect();
    members.sort_by_key(|member| member.order);
    select_protocol_of(&members)
}

/// The vote of these members, eldest first.
pub(super) fn select_protocol_of(members: &[&Member]) -> Option<Arc<str>> {
    let shared = |own: &&Protocol| members.iter().all(|member| supports(member, &own.name));
    let candidates: Vec<&Protocol> = members.first()?.protocols.iter().filter(shared).collect();
    let vote = |member: &&Member| {
        let mut own = member.protocols.iter();
        own.find_map(|own| candidates.iter().position(|candidate| candidate.name == own.name))
    };
    let mut votes = vec![0_usize; candidates.len()];
    members.iter().filter_map(vote).for_each(|candidate| votes[candidate] += 1);
    let most = votes.iter().max()?;
    let winner = votes.iter().position(|count| count == most)?;
    Some(candidates[winner].name.clone())
}
