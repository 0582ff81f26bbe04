//! The rules of ConsumerGroupHeartbeat. Pure, like the rest of [`Turn`]: first everything is checked, then what follows is
//! recorded.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assignor::Assignor;
use super::regex::{REGEXES_MAX, compile};
use super::{AWAY_EPOCH, ConsumerMember, Consumers, Epochs, Fact, JOIN_EPOCH, LEAVE_EPOCH, Partitions, contains};
use crate::error::{Error, Kind, Result};
use crate::group::classic::{GROUP_BYTES_MAX, Turn};
use crate::group::state::{MemberId, Phase};

/// First version whose members bring an id of their own.
const OWN_ID_SINCE: i16 = 1;
/// Epoch of a new group, before anybody subscribed to anything.
const FIRST_EPOCH: i32 = 1;

/// A heartbeat. What is `None` (or -1 for the timeout) did not change since the last one.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    /// The member's identity; empty for one that has none yet (version 0).
    pub(crate) member_id: MemberId,
    /// The epoch that it has reached, or `JOIN_EPOCH`, `LEAVE_EPOCH`, `AWAY_EPOCH`.
    pub(crate) epoch: i32,
    /// Static name.
    pub(crate) instance_id: Option<Arc<str>>,
    /// Where it runs.
    pub(crate) rack_id: Option<Arc<str>>,
    /// How long it may take to give up partitions.
    pub(crate) rebalance_timeout_ms: i32,
    /// Names of topics that it subscribes to.
    pub(crate) topics: Option<BTreeSet<Arc<str>>>,
    /// Regular expression that it subscribes by; empty for none any more.
    pub(crate) regex: Option<Arc<str>>,
    /// The assignor that it wishes for.
    pub(crate) assignor: Option<Arc<str>>,
    /// What it has.
    pub(crate) owned: Option<Partitions>,
    /// Client id of the request.
    pub(crate) client_id: Arc<str>,
    /// Address of the client, as Kafka shows it.
    pub(crate) client_host: Arc<str>,
}

/// Answer to a heartbeat that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beaten {
    /// Who is answered.
    pub(crate) member_id: MemberId,
    /// Its epoch now.
    pub(crate) epoch: i32,
    /// When it shall send the next one.
    pub(crate) heartbeat_interval_ms: i32,
    /// What it may read; `None` if that did not change.
    pub(crate) assignment: Option<Partitions>,
}

impl Beat {
    /// What can be said of it without looking at the group.
    ///
    /// # Errors
    /// `InvalidRequest`, `UnsupportedAssignor`.
    pub(crate) fn check(&self, group: &str, version: i16) -> Result<()> {
        let refused = |message: &str| Err(Error::new(Kind::InvalidRequest, message));
        let needs_id = version >= OWN_ID_SINCE || self.epoch > JOIN_EPOCH || self.epoch == LEAVE_EPOCH;
        let blank = |text: &Option<Arc<str>>| text.as_deref().is_some_and(|text| text.trim().is_empty());
        if needs_id && self.member_id.trim().is_empty() {
            return refused("member id can't be empty");
        }
        if group.trim().is_empty() || blank(&self.instance_id) || blank(&self.rack_id) {
            return refused("group id, instance id and rack id can't be empty");
        }
        if self.epoch == JOIN_EPOCH {
            if self.rebalance_timeout_ms == -1 {
                return refused("a member that joins says its rebalance timeout");
            }
            if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return refused("a member that joins has no partitions");
            }
            if self.topics.is_none() && self.regex.is_none() {
                return refused("a member that joins says what it subscribes to, by names or by a regular expression");
            }
        }
        if self.epoch == AWAY_EPOCH && self.instance_id.is_none() {
            return refused("only static members can be away");
        }
        if self.epoch < AWAY_EPOCH {
            return refused("a member epoch is 0 (joins), -1 (leaves), -2 (is away) or larger");
        }
        if let Some(name) = self.assignor.as_deref().filter(|name| Assignor::named(name).is_none()) {
            let names = Assignor::ALL.map(Assignor::name).join(", ");
            let message = format!("assignor '{}' is not here; there are {names}", name.escape_debug());
            return Err(Error::new(Kind::UnsupportedAssignor, message));
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let subscribes = self.topics.is_some() || self.regex.is_some();
        self.rebalance_timeout_ms != -1 && subscribes && self.owned.is_some()
    }

    /// The member with what the heartbeat says of it.
    fn updated(&self, old: &ConsumerMember) -> ConsumerMember {
        let kept = |new: &Option<Arc<str>>, old: &Option<Arc<str>>| new.clone().or_else(|| old.clone());
        let timeout =
            if self.rebalance_timeout_ms == -1 { old.rebalance_timeout_ms } else { self.rebalance_timeout_ms };
        ConsumerMember {
            instance_id: kept(&self.instance_id, &old.instance_id),
            rack_id: kept(&self.rack_id, &old.rack_id),
            rebalance_timeout_ms: timeout,
            topics: self.topics.clone().unwrap_or_else(|| old.topics.clone()),
            regex: self.regex.clone().unwrap_or_else(|| old.regex.clone()),
            assignor: kept(&self.assignor, &old.assignor),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            classic: None,
            ..old.clone()
        }
    }
}

impl Turn<'_> {
    /// A member of the consumer protocol shows that it lives, says what changed, and learns what it may read.
    ///
    /// # Errors
    /// `GroupIdNotFound`, `GroupMaxSizeReached`, `UnknownMemberId`, `FencedMemberEpoch`, `FencedInstanceId`,
    /// `UnreleasedInstanceId`, `InvalidRegularExpression`.
    pub(crate) fn beat(&mut self, beat: &Beat) -> Result<Beaten> {
        if matches!(beat.epoch, LEAVE_EPOCH | AWAY_EPOCH) {
            return self.leave_consumers(beat);
        }
        let upgrade = self.check_kind(beat.epoch == JOIN_EPOCH)?;
        self.check_room_for(beat)?;
        let replaced = self.check_beat(beat)?;
        self.check_regex(beat)?;
        // nothing is refused from here on
        if let Some(facts) = upgrade {
            self.upgrade(facts);
        }
        let old = match replaced {
            Some(previous) => self.replace_consumer(&previous, beat.member_id.clone()),
            None => self.consumer(&beat.member_id).unwrap_or_else(|| ConsumerMember::new(beat.member_id.clone())),
        };
        let new = beat.updated(&old);
        let needs_new_target = self.needs_new_target(&old, &new);
        let has_new_subscription = self.put_member(&old, &new);
        self.hear_consumer(&new);
        self.refresh_target(needs_new_target);
        let new = self.reconcile(&new.id, has_new_subscription, beat.owned.as_ref()).unwrap_or(new);
        self.look_up_regexes();
        let is_told = beat.epoch == JOIN_EPOCH || beat.is_full() || new.assigned != old.assigned;
        Ok(Beaten {
            member_id: new.id,
            epoch: new.epoch,
            heartbeat_interval_ms: self.timings.heartbeat_interval_ms,
            assignment: is_told.then_some(new.assigned),
        })
    }

    /// Whether the group is one of the consumer protocol, or becomes one by these facts.
    fn check_kind(&self, joins: bool) -> Result<Option<Vec<Fact>>> {
        if self.group.consumers().is_some() {
            Ok(None)
        } else if !joins {
            Err(no_consumer_group(self.group.id()))
        } else if self.group.phase() == Phase::Empty {
            Ok(Some(vec![Fact::Began(Epochs { group: FIRST_EPOCH, target: FIRST_EPOCH, topics_digest: 0 })]))
        } else {
            self.upgrade_facts().map(Some)
        }
    }

    fn check_room_for(&self, beat: &Beat) -> Result<()> {
        let limit = self.limits.consumer.members_max;
        let (count, is_known, kept) = match self.group.consumers() {
            None => (self.group.members().len(), self.group.members().contains_key(&beat.member_id), 0),
            Some(group) => {
                let others = group.members().values().filter(|member| member.id != beat.member_id);
                let kept: usize = others.map(ConsumerMember::bytes).sum();
                (group.members().len(), group.members().contains_key(&beat.member_id), kept)
            }
        };
        let new: usize = beat.topics.iter().flatten().map(|topic| topic.len()).sum();
        let changes = beat.topics.is_some() || beat.regex.is_some();
        let fits = !changes || kept.saturating_add(new) <= GROUP_BYTES_MAX;
        if fits && (count < limit || is_known) {
            return Ok(());
        }
        let message = format!("the group has all it may have, {limit} members or {GROUP_BYTES_MAX} bytes");
        Err(Error::new(Kind::GroupMaxSizeReached, message))
    }

    /// Whether the member is who it says. Gives the static member whose place it takes.
    fn check_beat(&self, beat: &Beat) -> Result<Option<MemberId>> {
        let joins = beat.epoch == JOIN_EPOCH;
        let Some(group) = self.group.consumers() else {
            // a group of the classic protocol that is to be upgraded
            return match &beat.instance_id {
                None => Ok(None),
                Some(instance) => Ok(self.group.static_member(instance).map(|member| member.id.clone())),
            };
        };
        let Some(instance) = &beat.instance_id else {
            return match group.members().get(&beat.member_id) {
                Some(member) => check_epoch(member, beat).map(|()| None),
                None if joins => Ok(None),
                None => Err(unknown()),
            };
        };
        if !joins {
            return check_epoch(check_instance(group, instance, &beat.member_id)?, beat).map(|()| None);
        }
        match group.static_member(instance) {
            Some(present) if present.classic.is_none() && present.epoch != AWAY_EPOCH => {
                let message =
                    format!("instance id '{instance}' belongs to member '{}', which has not left", present.id);
                Err(Error::new(Kind::UnreleasedInstanceId, message))
            }
            present => Ok(present.map(|present| present.id.clone())),
        }
    }

    fn check_regex(&self, beat: &Beat) -> Result<()> {
        let Some(regex) = beat.regex.as_ref().filter(|regex| !regex.is_empty()) else { return Ok(()) };
        let wanted = self.group.consumers().map(Consumers::wanted_regexes).unwrap_or_default();
        if wanted.contains_key(regex) {
            return Ok(());
        }
        if wanted.len() >= REGEXES_MAX {
            let message = format!("the group has {REGEXES_MAX} regular expressions, no more are looked up");
            return Err(Error::new(Kind::InvalidRegularExpression, message));
        }
        compile(regex).map(drop)
    }

    pub(super) fn consumer(&self, id: &str) -> Option<ConsumerMember> {
        self.group.consumers()?.members().get(id).cloned()
    }

    /// A static member comes back under a new id; it keeps assignment and target. Gives it as it is now.
    pub(super) fn replace_consumer(&mut self, previous: &str, id: MemberId) -> ConsumerMember {
        let target = self.group.consumers().and_then(|group| group.target(previous)).cloned().unwrap_or_default();
        let old = self.consumer(previous).unwrap_or_else(|| ConsumerMember::new(id.clone()));
        let new = ConsumerMember { id: id.clone(), epoch: JOIN_EPOCH, previous_epoch: JOIN_EPOCH, ..old };
        self.record_fact(Fact::Gone(previous.into()));
        self.record_fact(Fact::Member(Box::new(new.clone())));
        self.record_fact(Fact::Target(id, target));
        new
    }

    /// The member's session begins anew.
    pub(super) fn hear_consumer(&mut self, member: &ConsumerMember) {
        let own = member.classic.as_ref().map_or(self.timings.session_timeout_ms, |classic| classic.session_timeout_ms);
        let until = self.now.saturating_add(i64::from(own));
        if let Some(group) = self.group.consumers_mut() {
            group.heard(&member.id, until);
        }
    }
}

/// Whether a member's epoch is the one we know, or the one before if our answer may have been lost.
fn check_epoch(member: &ConsumerMember, beat: &Beat) -> Result<()> {
    if beat.epoch == JOIN_EPOCH {
        return Ok(()); // it was fenced, or lost what it knew, and begins anew
    }
    let lost_an_answer = beat.epoch < member.epoch
        && beat.epoch == member.previous_epoch
        && beat.owned.as_ref().is_some_and(|owned| contains(&member.assigned, owned));
    if beat.epoch == member.epoch || lost_an_answer { Ok(()) } else { Err(fenced(beat.epoch, member.epoch)) }
}

/// Who has a static name, if that is the caller.
pub(super) fn check_instance<'a>(group: &'a Consumers, instance: &str, id: &str) -> Result<&'a ConsumerMember> {
    let unknown = || Error::new(Kind::UnknownMemberId, format!("instance id '{instance}' is unknown; join again"));
    let member = group.static_member(instance).ok_or_else(unknown)?;
    if *member.id == *id {
        return Ok(member);
    }
    let message = format!("member '{}' joined with the same instance id '{instance}'", member.id);
    Err(Error::new(Kind::FencedInstanceId, message))
}

fn fenced(said: i32, known: i32) -> Error {
    let message = format!("member epoch {said} is not the known one, {known}; give up all partitions and join again");
    Error::new(Kind::FencedMemberEpoch, message)
}

pub(super) fn unknown() -> Error {
    Error::new(Kind::UnknownMemberId, "the group does not know this member; join again")
}

pub(in crate::group) fn no_consumer_group(id: &str) -> Error {
    Error::new(Kind::GroupIdNotFound, format!("group '{id}' is not a group of the consumer protocol"))
}
