//! Members of the consumer protocol leave or are given up. Pure, like the rest of [`Turn`].

use super::heartbeat::{Beat, Beaten, check_instance, no_consumer_group, unknown};
use super::{AWAY_EPOCH, ConsumerMember, Fact, Partitions};
use crate::error::Result;
use crate::group::classic::Turn;
use crate::group::state::MemberId;

impl Turn<'_> {
    /// A member leaves; a static one may say that it will be back, then it keeps its place until its session ends.
    pub(super) fn leave_consumers(&mut self, beat: &Beat) -> Result<Beaten> {
        let group = self.group.consumers().ok_or_else(|| no_consumer_group(self.group.id()))?;
        let member = match &beat.instance_id {
            None => group.members().get(&beat.member_id).ok_or_else(unknown)?,
            Some(instance) => check_instance(group, instance, &beat.member_id)?,
        };
        let left =
            Beaten { member_id: member.id.clone(), epoch: beat.epoch, heartbeat_interval_ms: 0, assignment: None };
        if beat.epoch == AWAY_EPOCH {
            let away = ConsumerMember { epoch: AWAY_EPOCH, revoking: Partitions::new(), ..member.clone() };
            let away = away.dated(member, member.epoch);
            let id = away.id.clone();
            self.record_fact(Fact::Member(Box::new(away)));
            if let Some(group) = self.group.consumers_mut() {
                group.set_deadlines(&id, |deadlines| deadlines.revoking = None);
            }
        } else {
            let id = member.id.clone();
            self.fence(&[id]);
        }
        Ok(left)
    }

    /// Gives up members for whom something is overdue.
    pub(in crate::group) fn expire_consumers(&mut self) {
        let Some(group) = self.group.consumers() else { return };
        let overdue = group.overdue(self.now);
        for (id, reason) in &overdue {
            tracing::info!(group = %self.group.id(), member = %id, "member is given up: {reason}");
        }
        let ids: Vec<MemberId> = overdue.into_iter().map(|(id, _)| id).collect();
        self.fence(&ids);
    }

    /// Members are gone: the group's epoch goes up, or the group goes back to the classic protocol if only members of that
    /// are left.
    pub(super) fn fence(&mut self, ids: &[MemberId]) {
        if ids.is_empty() {
            return;
        }
        if self.can_downgrade_without(ids) {
            self.downgrade(ids);
            return;
        }
        for id in ids {
            self.record_fact(Fact::Gone(id.clone()));
        }
        self.forget_unused_regexes();
        self.bump_epoch();
    }
}
