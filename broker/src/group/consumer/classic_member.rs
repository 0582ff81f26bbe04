//! Members of the classic protocol in a group of the consumer protocol: they join, sync and send heartbeats as they always
//! do, and the broker plays the leader. An epoch is their generation; to learn of a newer one they are told to join again.
//! Pure, like the rest of [`Turn`].

use bytes::Bytes;

use super::embedded::{CONSUMER, Subscription, by_id, version_of, write_assignment};
use super::heartbeat::{check_instance, unknown};
use super::migration::first_protocol;
use super::{ClassicSide, ConsumerMember, MemberState};
use crate::error::{Error, Kind, Result};
use crate::group::Caller;
use crate::group::classic::{Join, Joined, Synced, Turn, rebalancing};
use crate::group::state::MemberId;

impl Turn<'_> {
    /// A classic member joins. It is answered at once, without anybody's waiting for anybody.
    ///
    /// # Errors
    /// `GroupMaxSizeReached`, `InconsistentGroupProtocol`, `MemberIdRequired`, `UnknownMemberId`, `FencedInstanceId`.
    pub(in crate::group) fn join_consumers(&mut self, join: &Join) -> Result<Joined> {
        let subscription = self.check_join_consumers(join)?;
        let replaced = self.replaced_by(join)?;
        let id = if join.member_id.is_empty() { join.new_id.clone() } else { join.member_id.clone() };
        let ends_protocol = replaced.as_ref().is_some_and(|old| self.is_last_of_protocol(old));
        let old = match &replaced {
            Some(previous) => self.replace_consumer(previous, id.clone()),
            None => self.consumer(&id).unwrap_or_else(|| ConsumerMember::new(id.clone())),
        };
        let new = joined_member(&old, join, &subscription);
        let has_new_subscription = self.put_member(&old, &new);
        self.hear_consumer(&new);
        let owned = by_id(&subscription.owned, self.topics);
        if ends_protocol {
            if has_new_subscription {
                self.bump_epoch();
            } else {
                self.reconcile(&id, false, Some(&owned));
            }
            let joined = self.joined_consumers(&id);
            // nobody would tell those that are on their way what else they get
            let is_settled = self.group.state_name() == "Stable";
            self.become_classic(&[]);
            if has_new_subscription || !is_settled {
                self.rebalance_or_complete();
            }
            return joined;
        }
        self.refresh_target(has_new_subscription);
        self.reconcile(&id, has_new_subscription, Some(&owned));
        let sync_until = self.now.saturating_add(i64::from(join.rebalance_timeout_ms.max(0)));
        if let Some(group) = self.group.consumers_mut() {
            group.set_deadlines(&id, |deadlines| (deadlines.join, deadlines.sync) = (None, Some(sync_until)));
        }
        self.joined_consumers(&id)
    }

    fn check_join_consumers(&self, join: &Join) -> Result<Subscription> {
        let group = self.group.consumers().ok_or_else(unknown)?;
        let limit = self.limits.consumer.members_max;
        if group.members().len() >= limit && !group.members().contains_key(&join.member_id) {
            let message = format!("the group has all the members it may have, {limit}");
            return Err(Error::new(Kind::GroupMaxSizeReached, message));
        }
        let is_shared = |name: &str| {
            let mut others = group.members().values().filter_map(|member| member.classic.as_ref());
            others.all(|other| other.protocols.iter().any(|own| &*own.name == name))
        };
        let fits = *join.protocol_type == *CONSUMER && join.protocols.iter().any(|own| is_shared(&own.name));
        let subscription = join.protocols.first().and_then(|protocol| Subscription::read(&protocol.metadata));
        let Some(subscription) = subscription.filter(|_| fits) else {
            let message = format!(
                "protocol type '{}' with its {} protocols does not fit the group's other members, or its subscription cannot \
                 be read",
                join.protocol_type,
                join.protocols.len()
            );
            return Err(Error::new(Kind::InconsistentGroupProtocol, message));
        };
        if join.needs_id_first && join.member_id.is_empty() && join.instance_id.is_none() {
            return Err(Error::new(Kind::MemberIdRequired, "join again with the member id of this answer"));
        }
        Ok(subscription)
    }

    /// The static member whose place the caller takes.
    fn replaced_by(&self, join: &Join) -> Result<Option<MemberId>> {
        let (Some(group), Some(instance)) = (self.group.consumers(), &join.instance_id) else { return Ok(None) };
        if join.member_id.is_empty() {
            return Ok(group.static_member(instance).map(|member| member.id.clone()));
        }
        check_instance(group, instance, &join.member_id).map(|_| None)
    }

    /// Whether a member is the only one of the consumer protocol, and the group may be a classic one without it.
    fn is_last_of_protocol(&self, id: &MemberId) -> bool {
        let Some(group) = self.group.consumers() else { return false };
        group.members().get(id).is_some_and(|member| member.classic.is_none())
            && group.members().values().all(|member| member.id == *id || member.classic.is_some())
            && self.limits.consumer.migration.downgrades()
            && group.members().len() <= self.limits.members_max
    }

    fn joined_consumers(&self, id: &str) -> Result<Joined> {
        let member = self.consumer(id).ok_or_else(unknown)?;
        let protocol = first_protocol(&member).map(|(name, _)| name);
        Ok(Joined {
            generation: member.epoch,
            protocol_type: Some(CONSUMER.into()),
            protocol,
            leader: "".into(),
            member_id: member.id,
            skip_assignment: false,
            members: Vec::new(),
        })
    }

    /// A classic member asks for its assignment.
    ///
    /// # Errors
    /// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`, `InconsistentGroupProtocol`, `RebalanceInProgress`.
    pub(in crate::group) fn sync_consumers(
        &mut self,
        who: &Caller<'_>,
        (protocol_type, protocol): (Option<&str>, Option<&str>),
    ) -> Result<Synced> {
        let member = self.check_classic(who)?;
        let (name, metadata) = first_protocol(&member).unwrap_or_else(|| ("".into(), Bytes::new()));
        if protocol_type.is_some_and(|kind| kind != CONSUMER) || protocol.is_some_and(|asked| *asked != *name) {
            let message = "protocol type and name must be those of the answer to JoinGroup";
            return Err(Error::new(Kind::InconsistentGroupProtocol, message));
        }
        let is_behind = self.group.consumers().is_some_and(|group| group.epochs().group > member.epoch);
        if is_behind && member.state != MemberState::Revoking {
            self.expect_join(&member);
            return Err(rebalancing());
        }
        if let Some(group) = self.group.consumers_mut() {
            group.set_deadlines(&member.id, |deadlines| deadlines.sync = None);
        }
        self.hear_consumer(&member);
        Ok(Synced {
            protocol_type: protocol_type.map(Into::into),
            protocol: protocol.map(Into::into),
            assignment: write_assignment(version_of(&metadata), &member.assigned, self.topics),
        })
    }

    /// A classic member shows that it lives.
    ///
    /// # Errors
    /// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`; `RebalanceInProgress` when it has to join again: the
    /// group has a newer epoch, it has partitions to give up, or those that it waits for are free.
    pub(in crate::group) fn heartbeat_consumers(&mut self, who: &Caller<'_>) -> Result<()> {
        let member = self.check_classic(who)?;
        self.hear_consumer(&member);
        let Some(group) = self.group.consumers() else { return Err(unknown()) };
        let shall_join = member.epoch < group.epochs().group
            || member.state == MemberState::Revoking
            || (member.state == MemberState::Waiting && !group.waits_for_others(&member));
        if !shall_join {
            return Ok(());
        }
        self.expect_join(&member);
        Err(rebalancing())
    }

    /// It was told to join again, and has its rebalance timeout to do so.
    fn expect_join(&mut self, member: &ConsumerMember) {
        let until = self.now.saturating_add(i64::from(member.rebalance_timeout_ms.max(0)));
        if let Some(group) = self.group.consumers_mut() {
            group.set_deadlines(&member.id, |deadlines| deadlines.join = deadlines.join.or(Some(until)));
        }
    }

    fn check_classic(&self, who: &Caller<'_>) -> Result<ConsumerMember> {
        let group = self.group.consumers().ok_or_else(unknown)?;
        let member = match who.instance_id {
            None => group.members().get(who.member_id).ok_or_else(unknown)?,
            Some(instance) => check_instance(group, instance, who.member_id)?,
        };
        if member.classic.is_none() {
            return Err(Error::new(Kind::UnknownMemberId, "the member uses the consumer protocol"));
        }
        if member.epoch != who.generation {
            let message =
                format!("generation {} is not the member's epoch, {}; join again", who.generation, member.epoch);
            return Err(Error::new(Kind::IllegalGeneration, message));
        }
        Ok(member.clone())
    }

    /// Members leave by LeaveGroup; an administrator may name static ones without their id.
    pub(in crate::group) fn leave_by_name(&mut self, leaving: &[Caller<'_>]) -> Vec<Result<()>> {
        let mut ids: Vec<MemberId> = Vec::new();
        let mut results = Vec::new();
        for who in leaving {
            let found = self.group.consumers().ok_or_else(unknown).and_then(|group| match who.instance_id {
                None => group.members().get(who.member_id).ok_or_else(unknown),
                Some(instance) if who.member_id.is_empty() => group.static_member(instance).ok_or_else(unknown),
                Some(instance) => check_instance(group, instance, who.member_id),
            });
            let id = found.map(|member| member.id.clone());
            results.push(id.as_ref().map(|_| ()).map_err(Clone::clone));
            ids.extend(id.ok().filter(|id| !ids.contains(id)));
        }
        self.fence(&ids);
        results
    }
}

fn joined_member(old: &ConsumerMember, join: &Join, subscription: &Subscription) -> ConsumerMember {
    ConsumerMember {
        instance_id: join.instance_id.clone().or_else(|| old.instance_id.clone()),
        rack_id: subscription.rack.clone().or_else(|| old.rack_id.clone()),
        client_id: join.client_id.clone(),
        client_host: join.client_host.clone(),
        rebalance_timeout_ms: join.rebalance_timeout_ms,
        topics: subscription.topics.clone(),
        regex: "".into(),
        assignor: old.assignor.clone(),
        classic: Some(ClassicSide { session_timeout_ms: join.session_timeout_ms, protocols: join.protocols.clone() }),
        ..old.clone()
    }
}
