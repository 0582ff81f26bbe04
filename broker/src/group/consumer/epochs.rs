//! Since when a member has its partitions, and which epochs of its own it may say for that (KIP-1251). Pure.
//!
//! A commit may be older than the answer that moved its member to a newer epoch. As no partition has two readers, it is still
//! the only one for what the member had all along: it counts if its epoch is not older than the member's hold on each partition.

use std::collections::BTreeMap;

use super::heartbeat::unknown;
use super::{ConsumerMember, Partitions, each};
use crate::error::{Error, Kind, Result};
use crate::types::{PartitionIndex, TopicId};

impl ConsumerMember {
    /// The epoch in which it got a partition that it has or gives up.
    fn has_since(&self, topic: TopicId, partition: PartitionIndex) -> Option<i32> {
        let has = holds(&self.assigned, topic, partition) || holds(&self.revoking, topic, partition);
        has.then(|| self.since.get(&(topic, partition)).copied().unwrap_or(self.epoch))
    }

    /// This member, as it comes from `old`: what it keeps it has since then, what it gets since `epoch`.
    pub(super) fn dated(self, old: &ConsumerMember, epoch: i32) -> ConsumerMember {
        if self == *old {
            return self;
        }
        let kept = |topic, partition, was_given_up: bool| {
            let had =
                holds(&old.assigned, topic, partition) || (was_given_up && holds(&old.revoking, topic, partition));
            if had { old.has_since(topic, partition) } else { None }
        };
        let mut since = BTreeMap::new();
        for (partitions, given_up) in [(&self.assigned, false), (&self.revoking, true)] {
            let dates = each(partitions)
                .map(|(topic, partition)| ((topic, partition), kept(topic, partition, given_up).unwrap_or(epoch)));
            since.extend(dates);
        }
        ConsumerMember { since, ..self }
    }
}

fn holds(partitions: &Partitions, topic: TopicId, partition: PartitionIndex) -> bool {
    partitions.get(&topic).is_some_and(|partitions| partitions.contains(&partition))
}

/// Whether a member says its own epoch, which OffsetFetch asks.
///
/// # Errors
/// `UnknownMemberId`, `StaleMemberEpoch`, `IllegalGeneration`.
pub(super) fn check_epoch(member: Option<&ConsumerMember>, epoch: i32) -> Result<()> {
    let member = member.ok_or_else(unknown)?;
    if member.epoch == epoch {
        return Ok(());
    }
    let message = format!("epoch {epoch} is not the member's, {}; send a heartbeat and try again", member.epoch);
    Err(stale(member, message))
}

/// Whether a member may commit offsets of these partitions with the epoch that it says.
///
/// # Errors
/// `UnknownMemberId`, `StaleMemberEpoch`, `IllegalGeneration`.
pub(in crate::group) fn check_commit(
    member: Option<&ConsumerMember>,
    epoch: i32,
    mut partitions: impl Iterator<Item = (TopicId, PartitionIndex)>,
) -> Result<()> {
    let member = member.ok_or_else(unknown)?;
    if epoch >= member.epoch {
        return check_epoch(Some(member), epoch);
    }
    let too_old = |(topic, partition)| match member.has_since(topic, partition) {
        None => Some(format!("partition {partition} of topic {topic} is not the member's; commit what it has")),
        Some(since) if epoch < since => {
            Some(format!("the member has partition {partition} of topic {topic} since epoch {since}, not {epoch}"))
        }
        Some(_) => None,
    };
    partitions.find_map(too_old).map_or(Ok(()), |message| Err(stale(member, message)))
}

fn stale(member: &ConsumerMember, message: String) -> Error {
    let kind = if member.classic.is_some() { Kind::IllegalGeneration } else { Kind::StaleMemberEpoch };
    Error::new(kind, message)
}

#[cfg(test)]
mod tests {
    use super::super::MemberState;
    use super::*;

    fn parts(partitions: &[i32]) -> Partitions {
        let set = partitions.iter().copied().collect();
        if partitions.is_empty() { Partitions::new() } else { [(topic(), set)].into() }
    }

    fn topic() -> TopicId {
        TopicId::from_u128(1)
    }

    fn member(epoch: i32, assigned: &[i32], revoking: &[i32]) -> ConsumerMember {
        let (assigned, revoking) = (parts(assigned), parts(revoking));
        let state = if revoking.is_empty() { MemberState::Stable } else { MemberState::Revoking };
        ConsumerMember { epoch, state, assigned, revoking, ..ConsumerMember::new("m".into()) }
    }

    fn commits(member: &ConsumerMember, epoch: i32, partitions: &[i32]) -> Result<(), Kind> {
        let partitions = partitions.iter().map(|partition| (topic(), *partition));
        check_commit(Some(member), epoch, partitions).map_err(|error| error.kind)
    }

    #[test]
    fn what_is_kept_keeps_its_epoch() {
        let first = member(5, &[0, 1], &[]).dated(&ConsumerMember::new("m".into()), 5);
        let revoking = member(5, &[0], &[1]).dated(&first, 6);
        let moved = member(6, &[0, 3], &[]).dated(&revoking, 6);
        let again = member(7, &[0, 1, 3], &[]).dated(&moved, 7);
        let dates = |member: &ConsumerMember| member.since.iter().map(|((_, p), e)| (*p, *e)).collect::<Vec<_>>();
        assert_eq!(dates(&first), [(0, 5), (1, 5)]);
        assert_eq!(dates(&revoking), [(0, 5), (1, 5)]);
        assert_eq!(dates(&moved), [(0, 5), (3, 6)]);
        assert_eq!(dates(&again), [(0, 5), (1, 7), (3, 6)]);
        let back = member(6, &[0, 1], &[]).dated(&revoking, 6);
        assert_eq!(dates(&back), [(0, 5), (1, 6)], "given up and got back");
    }

    #[test]
    fn older_epochs_commit_what_the_member_has_since_then() {
        let moved = member(6, &[0, 3], &[]).dated(&member(5, &[0], &[1]), 6);
        for (epoch, partitions, expected) in [
            (6, &[0, 3, 9][..], Ok(())),
            (5, &[0], Ok(())),
            (4, &[0], Err(Kind::StaleMemberEpoch)),
            (5, &[0, 3], Err(Kind::StaleMemberEpoch)),
            (5, &[1], Err(Kind::StaleMemberEpoch)),
            (7, &[0], Err(Kind::StaleMemberEpoch)),
            (5, &[], Ok(())),
            (-1, &[0], Err(Kind::StaleMemberEpoch)),
        ] {
            assert_eq!(commits(&moved, epoch, partitions), expected, "{epoch} {partitions:?}");
        }
        let giving_up = member(6, &[0], &[2]).dated(&member(5, &[0, 2], &[]), 6);
        assert_eq!(commits(&giving_up, 5, &[0, 2]), Ok(()), "what it gives up it may still commit");
        let undated = member(6, &[0], &[]);
        assert_eq!(commits(&undated, 5, &[0]), Err(Kind::StaleMemberEpoch), "stored before there were dates");
        let unknown = check_commit(None, 5, std::iter::empty()).map_err(|error| error.kind);
        assert_eq!(unknown, Err(Kind::UnknownMemberId));
    }
}
