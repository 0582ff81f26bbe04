//! One member's way to its target: it first gives up what it may not keep, then takes what is free. Pure.
//!
//! A member stays in its epoch until it said that it gave up everything it had to; so no partition has two readers. What
//! others still have is left out of its assignment and added when they gave it up.

use std::collections::BTreeSet;

use super::{ConsumerMember, MemberState, Partitions, overlap, without};
use crate::types::{PartitionIndex, TopicId};

/// What the next step of a member depends on.
pub(super) struct Step<'a> {
    /// The member as it is.
    pub(super) member: &'a ConsumerMember,
    /// The epoch of its target.
    pub(super) target_epoch: i32,
    /// What it is to have.
    pub(super) target: &'a Partitions,
    /// Topics that it subscribes to now; the target may be older.
    pub(super) subscribed: &'a BTreeSet<TopicId>,
    /// Whether its subscription changed with this request.
    pub(super) has_new_subscription: bool,
    /// What it says that it has, if it says so.
    pub(super) owned: Option<&'a Partitions>,
    /// Whether nobody else has a partition.
    pub(super) is_free: &'a dyn Fn(TopicId, PartitionIndex) -> bool,
}

impl Step<'_> {
    /// The member after the step; the same if it has to stay where it is.
    pub(super) fn next(&self) -> ConsumerMember {
        self.moved().dated(self.member, self.target_epoch)
    }

    fn moved(&self) -> ConsumerMember {
        let member = self.member;
        match member.state {
            MemberState::Stable if member.epoch != self.target_epoch => self.towards_target(member.epoch),
            MemberState::Stable if self.has_new_subscription => self.within_subscription(),
            MemberState::Stable => member.clone(),
            MemberState::Revoking if self.still_owns(&member.revoking) => {
                if self.has_new_subscription {
                    self.within_subscription()
                } else {
                    member.clone()
                }
            }
            // a changed subscription may have begun the giving up before there was a newer target
            MemberState::Revoking => self.towards_target(member.epoch.saturating_add(1).min(self.target_epoch)),
            MemberState::Waiting => self.towards_target(member.epoch),
        }
    }

    fn still_owns(&self, partitions: &Partitions) -> bool {
        self.owned.is_none_or(|owned| overlap(owned, partitions))
    }

    /// Topics that it does not subscribe to any more go at once, before a new target is computed.
    fn within_subscription(&self) -> ConsumerMember {
        let member = self.member;
        let stray = member.assigned.iter().filter(|(topic, _)| !self.subscribed.contains(topic));
        let stray: Partitions = stray.map(|(topic, partitions)| (*topic, partitions.clone())).collect();
        if stray.is_empty() {
            return member.clone();
        }
        let assigned = without(&member.assigned, &stray);
        let mut revoking = member.revoking.clone();
        for (topic, partitions) in stray {
            revoking.entry(topic).or_default().extend(partitions);
        }
        if self.still_owns(&revoking) {
            ConsumerMember { state: MemberState::Revoking, assigned, revoking, ..member.clone() }
        } else {
            ConsumerMember { assigned, ..member.clone() }
        }
    }

    fn towards_target(&self, epoch: i32) -> ConsumerMember {
        let member = self.member;
        let target = self.target.iter().filter(|(topic, _)| self.subscribed.contains(topic));
        let target: Partitions = target.map(|(topic, partitions)| (*topic, partitions.clone())).collect();
        let revoking = without(&member.assigned, &target);
        let mut assigned = without(&member.assigned, &revoking);
        if !revoking.is_empty() && self.still_owns(&revoking) {
            let previous_epoch = member.epoch;
            return ConsumerMember {
                state: MemberState::Revoking,
                epoch,
                previous_epoch,
                assigned,
                revoking,
                ..member.clone()
            };
        }
        let mut waits = false;
        for (topic, wanted) in without(&target, &assigned) {
            let own = member.revoking.get(&topic);
            for partition in wanted {
                // what it is giving up itself is nobody else's
                if (self.is_free)(topic, partition) || own.is_some_and(|own| own.contains(&partition)) {
                    assigned.entry(topic).or_default().insert(partition);
                } else {
                    waits = true;
                }
            }
        }
        ConsumerMember {
            state: if waits { MemberState::Waiting } else { MemberState::Stable },
            epoch: self.target_epoch,
            previous_epoch: member.epoch,
            assigned,
            revoking: Partitions::new(),
            ..member.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: u128) -> TopicId {
        TopicId::from_u128(number)
    }

    /// Partitions of topic 1, then of topic 2.
    fn parts(first: &[i32], second: &[i32]) -> Partitions {
        let all = [(topic(1), first), (topic(2), second)];
        let all = all.into_iter().filter(|(_, partitions)| !partitions.is_empty());
        all.map(|(topic, partitions)| (topic, partitions.iter().copied().collect())).collect()
    }

    struct Case {
        name: &'static str,
        from: (MemberState, i32, Partitions, Partitions),
        target: (i32, Partitions),
        subscribed: &'static [u128],
        changed: bool,
        owned: Option<Partitions>,
        taken: &'static [i32],
        to: (MemberState, i32, Partitions, Partitions),
    }

    fn none() -> Partitions {
        Partitions::new()
    }

    #[test]
    #[rustfmt::skip]
    fn members_step_towards_their_target() {
        use MemberState::{Revoking, Stable, Waiting};
        let p = parts;
        let both: &[u128] = &[1, 2];
        let cases = [
            Case { name: "nothing to do", from: (Stable, 5, p(&[0], &[]), none()), target: (5, p(&[0], &[])), subscribed: both, changed: false, owned: None, taken: &[0], to: (Stable, 5, p(&[0], &[]), none()) },
            Case { name: "takes what is free", from: (Stable, 0, none(), none()), target: (5, p(&[0, 1], &[])), subscribed: both, changed: true, owned: Some(none()), taken: &[], to: (Stable, 5, p(&[0, 1], &[]), none()) },
            Case { name: "leaves what others have", from: (Stable, 0, none(), none()), target: (5, p(&[0, 1], &[])), subscribed: both, changed: true, owned: Some(none()), taken: &[1], to: (Waiting, 5, p(&[0], &[]), none()) },
            Case { name: "waits with nothing", from: (Stable, 0, none(), none()), target: (5, p(&[1], &[])), subscribed: both, changed: true, owned: Some(none()), taken: &[1], to: (Waiting, 5, none(), none()) },
            Case { name: "takes it when it is free", from: (Waiting, 5, p(&[0], &[]), none()), target: (5, p(&[0, 1], &[])), subscribed: both, changed: false, owned: None, taken: &[0], to: (Stable, 5, p(&[0, 1], &[]), none()) },
            Case { name: "gives up first", from: (Stable, 5, p(&[0, 1], &[]), none()), target: (6, p(&[0], &[3])), subscribed: both, changed: false, owned: None, taken: &[0, 1], to: (Revoking, 5, p(&[0], &[]), p(&[1], &[])) },
            Case { name: "stays while it still has it", from: (Revoking, 5, p(&[0], &[]), p(&[1], &[])), target: (6, p(&[0], &[3])), subscribed: both, changed: false, owned: Some(p(&[0, 1], &[])), taken: &[0, 1], to: (Revoking, 5, p(&[0], &[]), p(&[1], &[])) },
            Case { name: "stays while it does not say", from: (Revoking, 5, p(&[0], &[]), p(&[1], &[])), target: (6, p(&[0], &[3])), subscribed: both, changed: false, owned: None, taken: &[0, 1], to: (Revoking, 5, p(&[0], &[]), p(&[1], &[])) },
            Case { name: "goes on when it gave up", from: (Revoking, 5, p(&[0], &[]), p(&[1], &[])), target: (6, p(&[0], &[3])), subscribed: both, changed: false, owned: Some(p(&[0], &[])), taken: &[0, 1], to: (Stable, 6, p(&[0], &[3]), none()) },
            Case { name: "a newer target takes more", from: (Revoking, 5, p(&[0, 2], &[]), p(&[1], &[])), target: (8, p(&[0], &[])), subscribed: both, changed: false, owned: Some(p(&[0, 2], &[])), taken: &[0, 1, 2], to: (Revoking, 6, p(&[0], &[]), p(&[2], &[])) },
            Case { name: "a newer target gives it back", from: (Revoking, 5, p(&[0], &[]), p(&[1], &[])), target: (7, p(&[0, 1], &[])), subscribed: both, changed: false, owned: Some(p(&[0], &[])), taken: &[0, 1], to: (Stable, 7, p(&[0, 1], &[]), none()) },
            Case { name: "what it does not have needs no giving up", from: (Stable, 5, p(&[0, 1], &[]), none()), target: (6, p(&[0], &[])), subscribed: both, changed: false, owned: Some(p(&[0], &[])), taken: &[0, 1], to: (Stable, 6, p(&[0], &[]), none()) },
            Case { name: "a topic left goes before the target is new", from: (Stable, 5, p(&[0], &[3]), none()), target: (5, p(&[0], &[3])), subscribed: &[1], changed: true, owned: None, taken: &[], to: (Revoking, 5, p(&[0], &[]), p(&[], &[3])) },
            Case { name: "and its epoch does not pass the target's", from: (Revoking, 5, p(&[0], &[]), p(&[], &[3])), target: (5, p(&[0], &[3])), subscribed: &[1], changed: false, owned: Some(p(&[0], &[])), taken: &[0], to: (Stable, 5, p(&[0], &[]), none()) },
            Case { name: "more topics left while giving up", from: (Revoking, 5, p(&[0], &[3]), p(&[1], &[])), target: (6, p(&[0], &[3])), subscribed: &[1], changed: true, owned: Some(p(&[0, 1], &[3])), taken: &[], to: (Revoking, 5, p(&[0], &[]), p(&[1], &[3])) },
            Case { name: "old targets of topics left count for nothing", from: (Waiting, 5, none(), none()), target: (6, p(&[], &[3])), subscribed: &[1], changed: true, owned: None, taken: &[], to: (Stable, 6, none(), none()) },
        ];
        for case in cases {
            let (state, epoch, assigned, revoking) = case.from;
            let member = ConsumerMember { state, epoch, assigned, revoking, ..ConsumerMember::new("m".into()) };
            let subscribed = case.subscribed.iter().map(|number| topic(*number)).collect();
            let step = Step {
                member: &member,
                target_epoch: case.target.0,
                target: &case.target.1,
                subscribed: &subscribed,
                has_new_subscription: case.changed,
                owned: case.owned.as_ref(),
                is_free: &|of, partition| of != topic(1) || !case.taken.contains(&partition),
            };
            let next = step.next();
            assert_eq!((next.state, next.epoch, next.assigned, next.revoking), case.to, "{}", case.name);
        }
    }
}
