//! Groups as administrators see them.

use std::sync::Arc;

use bytes::Bytes;

use super::Groups;
use super::consumer::embedded::{CONSUMER, write_assignment};
use super::consumer::{ConsumerMember, Consumers, preferred};
use super::state::{Group, Phase};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId};

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOverview {
    /// Its name.
    pub id: Arc<str>,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Stable`; with the consumer protocol `Assigning` and
    /// `Reconciling` instead of the middle ones.
    pub state: &'static str,
    /// `classic` or `consumer`: the protocol of its members.
    pub kind: &'static str,
    /// What kind of clients it is for, such as `consumer` or `connect`; empty if it only keeps offsets.
    pub protocol_type: Arc<str>,
}

/// A group with its members.
#[derive(Clone, Debug)]
pub struct GroupDescription {
    /// Name, state and kind.
    pub overview: GroupOverview,
    /// How its members assign, such as `range`; empty unless the group is stable.
    pub protocol: Arc<str>,
    /// How often its members were put together.
    pub generation: i32,
    /// Since when it has this generation.
    pub since: TimestampMs,
    /// Its members, eldest first.
    pub members: Vec<MemberDescription>,
}

/// One member.
#[derive(Clone, Debug)]
pub struct MemberDescription {
    /// Identity that the broker gave it.
    pub id: Arc<str>,
    /// Name that it keeps over restarts, if it is static.
    pub instance_id: Option<Arc<str>>,
    /// Client id.
    pub client_id: Arc<str>,
    /// Address, with a slash in front as Kafka shows it.
    pub client_host: Arc<str>,
    /// What it told the leader, in the words of its kind; empty unless the group is stable and classic.
    pub metadata: Bytes,
    /// What the leader gave it last, in the words of its kind, while a rebalance is under way, too. With the consumer protocol,
    /// what the broker gave it, in the words of classic consumers.
    pub assignment: Bytes,
}

/// One committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The next record that the group reads.
    pub offset: Offset,
    /// Epoch of the last record read; -1 if the client did not say.
    pub leader_epoch: LeaderEpoch,
    /// The client's own note.
    pub metadata: Arc<str>,
    /// When it was committed.
    pub committed_at: TimestampMs,
}

impl Groups {
    /// All groups by name.
    pub fn list(&self) -> Vec<GroupOverview> {
        let read = |cell: &Arc<parking_lot::Mutex<super::coordinator::Cell>>| {
            let cell = cell.lock();
            (!cell.dead).then(|| overview(&cell.group))
        };
        let mut all: Vec<GroupOverview> = self.all_cells().iter().filter_map(read).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// A group with its members; `None` if there is none of this name.
    pub fn describe(&self, id: &str) -> Option<GroupDescription> {
        self.read(id, |group| {
            if let Some(consumers) = group.consumers() {
                return self.of_consumers(group, consumers);
            }
            let stable = group.phase() == Phase::Stable;
            let protocol = group.protocol().filter(|_| stable).cloned().unwrap_or_default();
            let mut members: Vec<_> = group.members().values().collect();
            members.sort_by_key(|member| member.order);
            let described = |member: &super::state::Member| MemberDescription {
                id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                metadata: if stable { member.metadata(&protocol) } else { Bytes::new() },
                assignment: member.assignment.clone(),
            };
            GroupDescription {
                overview: overview(group),
                generation: group.generation(),
                since: group.since(),
                members: members.into_iter().map(described).collect(),
                protocol,
            }
        })
    }

    fn of_consumers(&self, group: &Group, consumers: &Consumers) -> GroupDescription {
        let member = |member: &ConsumerMember| MemberDescription {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: Bytes::new(),
            assignment: write_assignment(0, &member.assigned, &*self.catalog),
        };
        GroupDescription {
            overview: overview(group),
            generation: consumers.epochs().group,
            since: group.since(),
            members: consumers.members().values().map(member).collect(),
            protocol: preferred(consumers.members().values()).name().into(),
        }
    }

    /// The committed offsets of a group, by topic id and partition; `None` if there is no group of this name.
    pub fn offsets(&self, id: &str) -> Option<Vec<CommittedOffset>> {
        self.read(id, |group| {
            let all = group.offsets().all().map(|(topic, partition, committed)| CommittedOffset {
                topic,
                partition,
                offset: committed.offset,
                leader_epoch: committed.leader_epoch,
                metadata: committed.metadata.clone(),
                committed_at: committed.committed_at,
            });
            all.collect()
        })
    }
}

fn overview(group: &Group) -> GroupOverview {
    GroupOverview {
        id: group.id().clone(),
        state: group.state_name(),
        kind: if group.consumers().is_some() { "consumer" } else { "classic" },
        protocol_type: match group.consumers() {
            Some(_) => CONSUMER.into(),
            None => group.protocol_type().cloned().unwrap_or_default(),
        },
    }
}
