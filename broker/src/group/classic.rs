//! The rules of classic groups: Join, Sync, Heartbeat and Leave (what follows from them is in `rebalance.rs`). Pure: a [`Turn`]
//! is handed the group, the time and the limits, and gives answers and what must be recorded.
//!
//! As Kafka 4.1 has them, with KIP-62 (rebalance timeout), KIP-134 (initial delay), KIP-345 (static members), KIP-394
//! (members join with an id that the broker gave them) and KIP-814 (a static leader that was replaced keeps its role).
//! Protocol types, names, metadata and assignments are the clients' own affair and never read.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::consumer::settings::Timings;
use super::consumer::{Fact, Topics};
use super::rebalance::select_protocol;
use super::records::GroupRecord;
use super::state::{Event, Group, Member, MemberId, Phase, Protocol, SteadyMs};
use super::{Caller, Limits};
use crate::error::{Error, Kind, Result};
use crate::types::TimestampMs;

/// How long a member that was never told its id may wait for the others: its client cannot send heartbeats, and a client
/// that went away cannot be told from one that waits.
const NEW_MEMBER_WAIT_MS: i64 = 5 * 60 * 1000;
/// Bytes of metadata that the members of one group may make us keep.
pub(super) const GROUP_BYTES_MAX: usize = 64 << 20;

/// A JoinGroup.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// The id that the client was given, or empty.
    pub(crate) member_id: MemberId,
    /// An id for it in case it has none.
    pub(crate) new_id: MemberId,
    /// Static name.
    pub(crate) instance_id: Option<Arc<str>>,
    /// Client id of the request.
    pub(crate) client_id: Arc<str>,
    /// Address of the client, as Kafka shows it.
    pub(crate) client_host: Arc<str>,
    /// How long it may be silent.
    pub(crate) session_timeout_ms: i32,
    /// How long a rebalance waits for it.
    pub(crate) rebalance_timeout_ms: i32,
    /// Kind of group.
    pub(crate) protocol_type: Arc<str>,
    /// The protocols it supports, best first.
    pub(crate) protocols: Vec<Protocol>,
    /// Whether it has to come back with the id it is given (version 4 on).
    pub(crate) needs_id_first: bool,
    /// Whether it understands that a leader need not assign (version 9 on).
    pub(crate) can_skip_assignment: bool,
}

/// Answer to a JoinGroup that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// Number of the generation.
    pub(crate) generation: i32,
    /// Kind of group.
    pub(crate) protocol_type: Option<Arc<str>>,
    /// Protocol of the vote.
    pub(crate) protocol: Option<Arc<str>>,
    /// Who assigns.
    pub(crate) leader: MemberId,
    /// Who is answered.
    pub(crate) member_id: MemberId,
    /// Whether the leader keeps the present assignment.
    pub(crate) skip_assignment: bool,
    /// For the leader: id, static name and metadata of every member.
    pub(crate) members: Vec<(MemberId, Option<Arc<str>>, Bytes)>,
}

/// Answer to a SyncGroup that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    /// Kind of group.
    pub(crate) protocol_type: Option<Arc<str>>,
    /// Protocol of the vote.
    pub(crate) protocol: Option<Arc<str>>,
    /// What the leader gave the member.
    pub(crate) assignment: Bytes,
}

/// An answer to somebody who waits.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a JoinGroup.
    Join(Result<Joined>),
    /// To a SyncGroup.
    Sync(Result<Synced>),
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    /// It is answered.
    Now(T),
    /// It waits, under this member's id.
    Waits(MemberId),
}

/// What must be recorded, and what follows when it is.
#[derive(Debug)]
pub(crate) enum Record {
    /// The group became empty; nobody waits for it.
    Emptied(GroupRecord),
    /// The leader's assignment; it takes effect when recorded.
    Assigned(GroupRecord),
    /// A static member was replaced; its JoinGroup is answered when recorded.
    Replaced(GroupRecord, Box<Joined>),
}

/// One step of a group: what it decides on, and what came of it.
pub(crate) struct Turn<'a> {
    /// The group.
    pub(crate) group: &'a mut Group,
    /// The steady clock, for timeouts.
    pub(crate) now: SteadyMs,
    /// The wall clock, for records.
    pub(crate) wall: TimestampMs,
    /// The broker's limits.
    pub(crate) limits: &'a Limits,
    /// Answers to those who waited.
    pub(crate) answers: Vec<(MemberId, Answer)>,
    /// What must be recorded, in this order.
    pub(crate) records: Vec<Record>,
    /// The topics.
    pub(crate) topics: &'a dyn Topics,
    /// What holds for members of the consumer protocol in this group.
    pub(crate) timings: Timings,
    /// What was recorded of the consumer protocol, in this order; it holds already and has to be stored.
    pub(crate) facts: Vec<Fact>,
    /// Regular expressions that have to be looked up.
    pub(crate) lookup: Option<BTreeSet<Arc<str>>>,
}

impl Turn<'_> {
    /// A client joins.
    ///
    /// # Errors
    /// As in Kafka; `MemberIdRequired` carries the id in the answer's place (see [`Join::new_id`]).
    pub(crate) fn join(&mut self, join: Join) -> Result<Outcome<Joined>> {
        self.limits.check_session_timeout(join.session_timeout_ms)?;
        self.end_empty_consumers();
        if self.group.consumers().is_some() {
            return self.join_consumers(&join).map(Outcome::Now);
        }
        self.check_room(&join)?;
        self.check_protocols(&join)?;
        if !join.member_id.is_empty() {
            return self.join_again(join);
        }
        if let Some(instance) = &join.instance_id
            && let Some(old) = self.group.static_member(instance)
        {
            let old = old.id.clone();
            return Ok(self.replace(&old, join));
        }
        if join.needs_id_first && join.instance_id.is_none() {
            let until = self.now + i64::from(join.session_timeout_ms);
            self.group.apply(Event::IdGiven(join.new_id.clone(), until));
            return Err(Error::new(Kind::MemberIdRequired, "join again with the member id of this answer"));
        }
        Ok(self.add(join.new_id.clone(), join))
    }

    fn check_room(&mut self, join: &Join) -> Result<()> {
        let limit = self.limits.members_max;
        let known = self.group.members().get(&join.member_id);
        let replaces = join.instance_id.as_ref().is_some_and(|name| self.group.static_member(name).is_some());
        let members = self.group.members().values();
        let has_room = match self.group.phase() {
            Phase::Empty => limit > 0,
            Phase::PreparingRebalance { .. } => {
                known.is_some_and(|member| member.joining) || members.filter(|member| member.joining).count() < limit
            }
            _ => known.is_some() || replaces || members.len() < limit,
        };
        let old_bytes = known.map_or(0, Member::bytes);
        let new_bytes: usize = join.protocols.iter().map(|own| own.name.len() + own.metadata.len()).sum();
        let all_bytes: usize = self.group.members().values().map(Member::bytes).sum();
        let fits = (all_bytes - old_bytes).saturating_add(new_bytes) <= GROUP_BYTES_MAX;
        let ids_max = limit.saturating_mul(2);
        let many_ids = join.member_id.is_empty() && self.group.pending().len() >= ids_max;
        if has_room && fits && !many_ids {
            return Ok(());
        }
        self.group.apply(Event::IdDropped(join.member_id.clone()));
        let message =
            format!("the group has all the members it may have, {limit} or {GROUP_BYTES_MAX} bytes of metadata");
        Err(Error::new(Kind::GroupMaxSizeReached, message))
    }

    /// A member must be of the group's kind and share at least one protocol with everybody.
    fn check_protocols(&self, join: &Join) -> Result<()> {
        let group = &self.group;
        let shared = |own: &Protocol| group.members().values().all(|member| supports(member, &own.name));
        let fits = if group.phase() == Phase::Empty {
            !join.protocol_type.is_empty() && !join.protocols.is_empty()
        } else {
            group.protocol_type().is_some_and(|kind| *kind == join.protocol_type) && join.protocols.iter().any(shared)
        };
        if fits {
            return Ok(());
        }
        let message = format!(
            "protocol type '{}' with its {} protocols does not fit the group's other members",
            join.protocol_type,
            join.protocols.len()
        );
        Err(Error::new(Kind::InconsistentGroupProtocol, message))
    }

    /// A client that has an id.
    fn join_again(&mut self, join: Join) -> Result<Outcome<Joined>> {
        if self.group.pending().contains_key(&join.member_id) {
            if join.instance_id.is_some() {
                return Err(Error::new(Kind::UnknownMemberId, "static members join with an empty member id first"));
            }
            return Ok(self.add(join.member_id.clone(), join));
        }
        let who = Caller { member_id: &join.member_id, instance_id: join.instance_id.as_deref(), generation: -1 };
        check_member(self.group, &who)?;
        let member = &self.group.members()[&join.member_id];
        let unchanged = member.protocols == join.protocols;
        let leads = self.group.leader() == Some(&join.member_id);
        match self.group.phase() {
            Phase::CompletingRebalance if unchanged => Ok(Outcome::Now(self.joined(&join.member_id))),
            Phase::Stable if unchanged && !leads => Ok(Outcome::Now(self.joined(&join.member_id))),
            _ => Ok(self.rejoin(join.member_id.clone(), join)),
        }
    }

    fn rejoin(&mut self, id: MemberId, join: Join) -> Outcome<Joined> {
        let member = self.member(id.clone(), join);
        self.group.apply(Event::Rejoined(Box::new(member)));
        self.rebalance_or_complete();
        Outcome::Waits(id)
    }

    fn add(&mut self, id: MemberId, join: Join) -> Outcome<Joined> {
        let protocol_type = join.protocol_type.clone();
        let member = self.member(id.clone(), join);
        self.group.apply(Event::Joined(Box::new(member), protocol_type));
        self.rebalance_or_complete();
        Outcome::Waits(id)
    }

    fn member(&self, id: MemberId, join: Join) -> Member {
        Member {
            id,
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms.max(0),
            protocols: join.protocols,
            assignment: Bytes::new(),
            order: 0,
            joining: true,
            syncing: false,
            synced: false,
            is_new: true,
            confirmed: true,
            deadline: self.now + NEW_MEMBER_WAIT_MS,
        }
    }

    /// A static member comes back without its id: it was started again. It takes the place of what it was.
    fn replace(&mut self, old: &MemberId, join: Join) -> Outcome<Joined> {
        let (id, can_skip) = (join.new_id.clone(), join.can_skip_assignment);
        let fenced = || Error::new(Kind::FencedInstanceId, "another member joined with the same group.instance.id");
        self.answer(old, Answer::Join(Err(fenced())));
        self.answer(old, Answer::Sync(Err(fenced())));
        let led_by = self.group.leader().cloned();
        let stable = self.group.phase() == Phase::Stable;
        let mut member = self.member(id.clone(), join);
        member.joining = !stable;
        if stable {
            member.deadline = self.now + i64::from(member.session_timeout_ms);
        }
        self.group.apply(Event::Replaced(old.clone(), id.clone()));
        self.group.apply(Event::Rejoined(Box::new(member.clone())));
        if stable && select_protocol(self.group) != self.group.protocol().cloned() {
            member.joining = true;
            self.group.apply(Event::Rejoined(Box::new(member)));
        } else if stable {
            let mut joined = self.joined(&id);
            if can_skip {
                joined.skip_assignment = joined.leader == id;
            } else {
                // one that does not know of skipping must not think that it leads: it would assign without need
                joined.leader = led_by.unwrap_or_default();
                joined.members = Vec::new();
            }
            self.records.push(Record::Replaced(self.record(), Box::new(joined)));
            return Outcome::Waits(id);
        }
        self.rebalance_or_complete();
        Outcome::Waits(id)
    }

    /// A member asks for its assignment; the leader brings all of them.
    ///
    /// # Errors
    /// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`, `InconsistentGroupProtocol`, `RebalanceInProgress`.
    pub(crate) fn sync(
        &mut self,
        who: &Caller<'_>,
        (protocol_type, protocol): (Option<&str>, Option<&str>),
        assignments: Vec<(MemberId, Bytes)>,
    ) -> Result<Outcome<Synced>> {
        if self.group.consumers().is_some() {
            return self.sync_consumers(who, (protocol_type, protocol)).map(Outcome::Now);
        }
        check_member(self.group, who)?;
        check_generation(self.group, who.generation)?;
        let differs = |asked: Option<&str>, ours: Option<&Arc<str>>| {
            asked.is_some_and(|asked| ours.is_none_or(|ours| **ours != *asked))
        };
        if differs(protocol_type, self.group.protocol_type()) || differs(protocol, self.group.protocol()) {
            let message = "protocol type and name must be those of the answer to JoinGroup";
            return Err(Error::new(Kind::InconsistentGroupProtocol, message));
        }
        let id: MemberId = who.member_id.into();
        match self.group.phase() {
            Phase::Empty => Err(unknown_member()),
            Phase::PreparingRebalance { .. } => Err(rebalancing()),
            Phase::CompletingRebalance => {
                self.group.apply(Event::SyncAsked(id.clone()));
                if self.group.leader() == Some(&id) {
                    let record = self.assigned(assignments);
                    self.records.push(Record::Assigned(record));
                }
                Ok(Outcome::Waits(id))
            }
            Phase::Stable => {
                self.heard(&id);
                self.group.apply(Event::SyncAsked(id.clone()));
                Ok(Outcome::Now(self.synced(&id)))
            }
        }
    }

    /// The leader's assignment was recorded. It takes effect unless somebody joined meanwhile.
    pub(crate) fn recorded(&mut self, record: GroupRecord) {
        if self.group.phase() != Phase::CompletingRebalance || self.group.generation() != record.generation {
            return;
        }
        let waiting = self.group.members().values().filter(|member| member.syncing);
        let waiting: Vec<MemberId> = waiting.map(|member| member.id.clone()).collect();
        self.group.apply(Event::Recorded(Box::new(record), self.now));
        for id in waiting {
            let answer = self.synced(&id);
            self.answer(&id, Answer::Sync(Ok(answer)));
        }
    }

    /// A member shows that it lives.
    ///
    /// # Errors
    /// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`, `RebalanceInProgress` (it lives, and should join).
    pub(crate) fn heartbeat(&mut self, who: &Caller<'_>) -> Result<()> {
        if self.group.consumers().is_some() {
            return self.heartbeat_consumers(who);
        }
        check_member(self.group, who)?;
        check_generation(self.group, who.generation)?;
        self.heard(&who.member_id.into());
        match self.group.phase() {
            Phase::Empty => Err(unknown_member()),
            Phase::PreparingRebalance { .. } => Err(rebalancing()),
            Phase::CompletingRebalance | Phase::Stable => Ok(()),
        }
    }

    /// Members leave; an administrator may name static ones without their id.
    pub(crate) fn leave(&mut self, leaving: &[Caller<'_>]) -> Vec<Result<()>> {
        if self.group.consumers().is_some() {
            return self.leave_by_name(leaving);
        }
        let mut left = false;
        let results = leaving
            .iter()
            .map(|who| {
                if self.group.pending().contains_key(who.member_id) {
                    self.group.apply(Event::IdDropped(who.member_id.into()));
                    left = true;
                    return Ok(());
                }
                let id = match (who.instance_id, who.member_id) {
                    (Some(instance), "") => self.group.static_member(instance).ok_or_else(unknown_member)?.id.clone(),
                    _ => {
                        check_member(self.group, who)?;
                        who.member_id.into()
                    }
                };
                self.drop_member(&id);
                left = true;
                Ok(())
            })
            .collect();
        if left {
            self.rebalance_or_complete_after_loss();
        }
        results
    }

    pub(super) fn answer(&mut self, id: &MemberId, answer: Answer) {
        self.answers.push((id.clone(), answer));
    }

    /// A member was heard: its session begins anew.
    pub(crate) fn heard(&mut self, id: &MemberId) {
        if let Some(member) = self.group.members().get(id) {
            let until = self.now + i64::from(member.session_timeout_ms);
            self.group.apply(Event::Heard(id.clone(), until));
        }
    }

    pub(super) fn joined(&self, id: &MemberId) -> Joined {
        let group = &self.group;
        let protocol = group.protocol().cloned();
        let all = || {
            let mut members: Vec<&Member> = group.members().values().collect();
            members.sort_by_key(|member| member.order);
            let metadata = |member: &Member| member.metadata(protocol.as_deref().unwrap_or_default());
            members.into_iter().map(|m| (m.id.clone(), m.instance_id.clone(), metadata(m))).collect()
        };
        Joined {
            generation: group.generation(),
            protocol_type: group.protocol_type().cloned(),
            leader: group.leader().cloned().unwrap_or_default(),
            member_id: id.clone(),
            skip_assignment: false,
            members: if group.leader() == Some(id) { all() } else { Vec::new() },
            protocol,
        }
    }

    pub(super) fn synced(&self, id: &MemberId) -> Synced {
        let assignment = self.group.members().get(id).map(|member| member.assignment.clone());
        Synced {
            protocol_type: self.group.protocol_type().cloned(),
            protocol: self.group.protocol().cloned(),
            assignment: assignment.unwrap_or_default(),
        }
    }
}

/// Whether the caller is who it says.
///
/// # Errors
/// `UnknownMemberId`; `FencedInstanceId` when another member has its static name.
pub(crate) fn check_member(group: &Group, who: &Caller<'_>) -> Result<()> {
    match who.instance_id {
        None => group.members().get(who.member_id).map(drop).ok_or_else(unknown_member),
        Some(instance) => match group.static_member(instance) {
            Some(member) if *member.id == *who.member_id => Ok(()),
            // what recovery restored may be the one that was replaced: have the client join, do not end it
            Some(member) if member.confirmed => {
                Err(Error::new(Kind::FencedInstanceId, "another member joined with the same group.instance.id"))
            }
            _ => Err(unknown_member()),
        },
    }
}

/// Whether the caller knows the present generation.
///
/// # Errors
/// `IllegalGeneration`.
pub(crate) fn check_generation(group: &Group, generation: i32) -> Result<()> {
    if generation == group.generation() {
        return Ok(());
    }
    let message = format!("generation {generation} is not the present one, {}; join again", group.generation());
    Err(Error::new(Kind::IllegalGeneration, message))
}

pub(super) fn supports(member: &Member, protocol: &str) -> bool {
    member.protocols.iter().any(|own| &*own.name == protocol)
}

pub(super) fn unknown_member() -> Error {
    Error::new(Kind::UnknownMemberId, "the group does not know this member; join again with an empty member id")
}

pub(super) fn rebalancing() -> Error {
    Error::new(Kind::RebalanceInProgress, "the group rebalances; join again")
}
