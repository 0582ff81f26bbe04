//! OffsetCommit (8) 2 to 9, OffsetFetch (9) 1 to 9, OffsetDelete (47) 0: where groups stand.
//!
//! - OffsetCommit is answered when the offsets are durable. Unknown topics and partitions are UNKNOWN_TOPIC_OR_PARTITION,
//!   metadata above 4096 bytes is OFFSET_METADATA_TOO_LARGE, each for its partition alone. An error of the group (member,
//!   generation, epoch) is given for every partition that is there and allowed; without any the group is
//!   not asked. `retention_time_ms` (versions 2 to 4) is honoured.
//! - Offsets belong to a topic's id: a topic that was created again begins without them.
//! - OffsetFetch: one group up to version 7, many from version 8 on; null topics are all topics that have offsets. What is
//!   not committed is offset -1 without an error. From version 9 on a member of the consumer protocol says its epoch:
//!   UNKNOWN_MEMBER_ID or STALE_MEMBER_EPOCH for its group. With `require_stable`
//!   (version 7 on) what an open transaction may still move is UNSTABLE_OFFSET_COMMIT (KIP-447).
//! - OffsetDelete: topics that a live group of consumers reads are GROUP_SUBSCRIBED_TO_TOPIC.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::list_reply::{ListReply, Shape};
use super::{Context, Reply, text};
use crate::catalog::Topic;
use crate::error::{Error, Kind, Result};
use crate::group::offsets::{Committed, METADATA_BYTES_MAX};
use crate::group::state::Group;
use crate::group::{Caller, CommittedOffset};
use crate::security::acl::{Operation, Resource};
use crate::types::{PartitionIndex, TimestampMs, TopicId};

/// First version of OffsetCommit and OffsetFetch with member epochs (KIP-848).
const MEMBER_EPOCHS_SINCE: i16 = 9;

/// Whether the coordinator is not asked for a partition with this code; it stays, whatever is said of the others.
fn is_of_topic(code: i16) -> bool {
    [Kind::TopicAuthorizationFailed, Kind::UnknownTopicOrPartition].iter().any(|kind| kind.code() == code)
}

/// Answers OffsetCommit. The offsets are submitted when this returns.
pub(crate) fn offset_commit(context: &Context, version: i16, request: OffsetCommitRequest) -> Reply {
    let broker = &context.broker;
    let now = broker.clock().now_ms();
    let retention = if version <= 4 { request.retention_time_ms } else { -1 };
    let expires_at = (retention >= 0).then(|| now.saturating_add(retention));
    let mut commits = Vec::new();
    let mut answers: Vec<(TopicName, Vec<(PartitionIndex, i16)>)> = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = broker.catalog().topic(&asked.name);
        let denied = context.authorize(Operation::Read, Resource::Topic(&asked.name)).err();
        let mut codes = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let (index, note) = (partition.partition_index, partition.committed_metadata.as_ref());
            let checked =
                denied.as_ref().map_or_else(|| check_commit(topic.as_deref(), index, note), |error| Err(error.kind));
            if let Ok(id) = checked {
                commits.push((id, partition.partition_index, committed(partition_of(&partition), now, expires_at)));
            }
            codes.push((partition.partition_index, checked.map_or_else(Kind::code, |_| 0)));
        }
        answers.push((asked.name, codes));
    }
    let who = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let allowed = context.authorize(Operation::Read, Resource::Group(&request.group_id));
    let of_group = allowed.is_err();
    let is_asked = answers.iter().flat_map(|(_, codes)| codes).any(|(_, code)| !is_of_topic(*code));
    let submitted = match allowed {
        Ok(()) if is_asked => check_version(context, version, &request.group_id, &who)
            .and_then(|()| broker.groups().commit(&request.group_id, &who, commits))
            .map(Some),
        other => other.map(|()| None),
    };
    Reply::later(async move {
        let done = match submitted {
            Ok(Some(stored)) => stored.await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        let failed = done.err().map(|error| match error.kind {
            // what clients from before KIP-848 understand
            Kind::GroupIdNotFound if version < MEMBER_EPOCHS_SINCE => Kind::IllegalGeneration.code(),
            kind => kind.code(),
        });
        let topics = answers.into_iter().map(|(name, codes)| {
            let partitions = codes.into_iter().map(|(index, code)| {
                let own = is_of_topic(code) && !of_group;
                let code = if own { code } else { failed.unwrap_or(code) };
                OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
            });
            OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.collect())
        });
        Reply::message(version, &OffsetCommitResponse::default().with_topics(topics.collect()))
    })
}

/// Members of the consumer protocol commit by versions that know member epochs.
fn check_version(context: &Context, version: i16, group: &str, who: &Caller<'_>) -> Result<()> {
    let needs_epochs = |group: &Group| {
        let member = group.consumers().and_then(|consumers| consumers.members().get(who.member_id));
        member.is_some_and(|member| member.classic.is_none())
    };
    if version >= MEMBER_EPOCHS_SINCE || !context.broker.groups().read(group, needs_epochs).unwrap_or(false) {
        return Ok(());
    }
    let message = format!("members of the consumer protocol commit with version {MEMBER_EPOCHS_SINCE} or later");
    Err(Error::new(Kind::UnsupportedVersion, message))
}

/// Whether an offset with this note can be committed there; the topic's id if so.
pub(super) fn check_commit(
    topic: Option<&Topic>,
    partition: PartitionIndex,
    note: Option<&StrBytes>,
) -> Result<TopicId, Kind> {
    let topic = topic.ok_or(Kind::UnknownTopicOrPartition)?;
    topic.partition(partition).ok_or(Kind::UnknownTopicOrPartition)?;
    if note.is_some_and(|note| note.len() > METADATA_BYTES_MAX) {
        return Err(Kind::OffsetMetadataTooLarge);
    }
    Ok(topic.id())
}

/// Offset, leader epoch and note.
type Position<'a> = (i64, i32, &'a str);

fn partition_of(asked: &OffsetCommitRequestPartition) -> Position<'_> {
    let note = asked.committed_metadata.as_deref().unwrap_or_default();
    (asked.committed_offset, asked.committed_leader_epoch, note)
}

fn committed(
    (offset, leader_epoch, note): Position<'_>,
    committed_at: TimestampMs,
    expires_at: Option<TimestampMs>,
) -> Committed {
    Committed { offset, leader_epoch, metadata: note.into(), committed_at, expires_at, number: 0 }
}

/// What is asked for: topics by name with their partitions; all when `None`.
type Wanted = Option<Vec<(TopicName, Vec<PartitionIndex>)>>;

/// What there is: offset, leader epoch and note of a partition; without a commit -1, -1 and nothing.
struct Found {
    partition: PartitionIndex,
    code: i16,
    offset: i64,
    leader_epoch: i32,
    note: Arc<str>,
}

impl Found {
    /// In place of an offset that an open transaction may still move.
    fn unstable(partition: PartitionIndex) -> Found {
        let code = Kind::UnstableOffsetCommit.code();
        Found { partition, offset: -1, leader_epoch: -1, note: "".into(), code }
    }
}

/// Answers OffsetFetch.
pub(crate) fn offset_fetch(context: &Context, version: i16, request: OffsetFetchRequest) -> Reply {
    let stable = version >= 7 && request.require_stable;
    if version >= 8 {
        let context = context.clone();
        return Reply::later(async move {
            let mut groups = ListReply::new(&context, Shape { version, throttled: true, flexible: true });
            for asked in request.groups {
                let caller = (asked.member_id.as_deref(), asked.member_epoch);
                let allowed = context
                    .authorize(Operation::Describe, Resource::Group(&asked.group_id))
                    .and_then(|()| groups.room())
                    .and_then(|()| context.broker.groups().check_fetch(&asked.group_id, caller));
                let group = match allowed {
                    Ok(()) => group_fetched(&context, asked, stable),
                    Err(error) => OffsetFetchResponseGroup::default()
                        .with_group_id(asked.group_id)
                        .with_error_code(error.kind.code()),
                };
                groups.push(&group).await;
            }
            groups.finish()
        });
    }
    if let Err(error) = context.authorize(Operation::Describe, Resource::Group(&request.group_id)) {
        return Reply::message(version, &group_denied(version, request, error.kind.code()));
    }
    // the list can be null from version 2 on
    let wanted = request.topics.map(|all| once(all.into_iter().map(|t| (t.name, t.partition_indexes))));
    let topics = find(context, &request.group_id, wanted, stable).into_iter().map(|(name, found)| {
        let partitions = found.into_iter().map(|found| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(found.partition)
                .with_error_code(found.code)
                .with_committed_offset(found.offset)
                .with_committed_leader_epoch(if version >= 5 { found.leader_epoch } else { -1 })
                .with_metadata(Some(text(&found.note)))
        });
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    Reply::message(version, &OffsetFetchResponse::default().with_topics(topics.collect()))
}

/// One group of a request from version 8 on.
fn group_fetched(context: &Context, asked: OffsetFetchRequestGroup, stable: bool) -> OffsetFetchResponseGroup {
    let wanted = asked.topics.map(|all| once(all.into_iter().map(|t| (t.name, t.partition_indexes))));
    let topics = find(context, &asked.group_id, wanted, stable).into_iter().map(|(name, found)| {
        let partitions = found.into_iter().map(|found| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(found.partition)
                .with_error_code(found.code)
                .with_committed_offset(found.offset)
                .with_committed_leader_epoch(found.leader_epoch)
                .with_metadata(Some(text(&found.note)))
        });
        OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
    });
    OffsetFetchResponseGroup::default().with_group_id(asked.group_id).with_topics(topics.collect())
}

/// Each partition once: its note may be long, and a request may name it many times.
fn once(topics: impl Iterator<Item = (TopicName, Vec<PartitionIndex>)>) -> Vec<(TopicName, Vec<PartitionIndex>)> {
    let mut seen = HashSet::new();
    let mut kept: Vec<(TopicName, Vec<PartitionIndex>)> = Vec::new();
    for (name, mut partitions) in topics {
        let none = partitions.is_empty();
        partitions.retain(|partition| seen.insert((name.clone(), *partition)));
        if none || !partitions.is_empty() {
            kept.push((name, partitions));
        }
    }
    kept
}

/// An error of the group has a place of its own from version 2 on.
fn group_denied(version: i16, request: OffsetFetchRequest, code: i16) -> OffsetFetchResponse {
    if version >= 2 {
        return OffsetFetchResponse::default().with_error_code(code);
    }
    let topics = request.topics.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partition_indexes.into_iter().map(|index| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
                .with_committed_offset(-1)
                .with_metadata(Some(text("")))
        });
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

fn find(context: &Context, group: &str, wanted: Wanted, stable: bool) -> Vec<(TopicName, Vec<Found>)> {
    let (groups, catalog) = (context.broker.groups(), context.broker.catalog());
    let Some(wanted) = wanted else {
        let mut all: BTreeMap<TopicId, Vec<Found>> = BTreeMap::new();
        for CommittedOffset { topic, partition, offset, leader_epoch, metadata, .. } in
            groups.offsets(group).unwrap_or_default()
        {
            let is_open = |group: &Group| group.undecided().has(topic, partition);
            let found = if stable && groups.read(group, is_open).unwrap_or(false) {
                Found::unstable(partition)
            } else {
                Found { partition, offset, leader_epoch, note: metadata, code: 0 }
            };
            all.entry(topic).or_default().push(found);
        }
        let named = all.into_iter().filter_map(|(id, found)| Some((catalog.topic_by_id(id)?.name().clone(), found)));
        let named = named.filter(|(name, _)| context.may(Operation::Describe, Resource::Topic(name)));
        return named.map(|(name, found)| (TopicName(text(&name)), found)).collect();
    };
    let find_in = |group: Option<&Group>| {
        let of_topic = |(name, partitions): &(TopicName, Vec<PartitionIndex>)| {
            let denied = context.authorize(Operation::Describe, Resource::Topic(name)).err();
            let code = denied.map_or(0, |error| error.kind.code());
            let id = catalog.topic(name).map(|topic| topic.id()).filter(|_| code == 0);
            let found = partitions.iter().map(|&partition| {
                let is_open = |id| group.is_some_and(|group| group.undecided().has(id, partition));
                if stable && id.is_some_and(is_open) {
                    return Found::unstable(partition);
                }
                let committed = id.and_then(|id| group?.offsets().get(id, partition));
                Found {
                    partition,
                    code,
                    offset: committed.map_or(-1, |committed| committed.offset),
                    leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
                    note: committed.map_or_else(|| "".into(), |committed| committed.metadata.clone()),
                }
            });
            (name.clone(), found.collect())
        };
        wanted.iter().map(of_topic).collect()
    };
    groups.read(group, |group| find_in(Some(group))).unwrap_or_else(|| find_in(None))
}

/// Answers OffsetDelete. The deletions are submitted when this returns.
pub(crate) fn offset_delete(context: &Context, version: i16, request: OffsetDeleteRequest) -> Reply {
    if let Err(error) = context.authorize(Operation::Delete, Resource::Group(&request.group_id)) {
        return Reply::message(version, &OffsetDeleteResponse::default().with_error_code(error.kind.code()));
    }
    if request.group_id.is_empty() {
        let code = Kind::InvalidGroupId.code();
        return Reply::message(version, &OffsetDeleteResponse::default().with_error_code(code));
    }
    let catalog = context.broker.catalog();
    let mut known = Vec::new();
    let mut asked = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let denied = context.authorize(Operation::Read, Resource::Topic(&topic.name)).err();
        let found = catalog.topic(&topic.name).filter(|_| denied.is_none());
        let partitions: Vec<PartitionIndex> = topic.partitions.iter().map(|p| p.partition_index).collect();
        if let Some(found) = &found {
            known.extend(partitions.iter().map(|partition| (found.id(), found.name().clone(), *partition)));
        }
        let absent = denied.map_or(Kind::UnknownTopicOrPartition, |error| error.kind);
        asked.push((topic.name, found.ok_or(absent), partitions));
    }
    let (in_use, deleted) = match context.broker.groups().delete_offsets(&request.group_id, &known) {
        Ok(started) => started,
        Err(error) => {
            return Reply::message(version, &OffsetDeleteResponse::default().with_error_code(error.kind.code()));
        }
    };
    Reply::later(async move {
        let done = deleted.await.map_or_else(|error| error.kind.code(), |()| 0);
        let topics = asked.into_iter().map(|(name, topic, partitions)| {
            let code = |index| match &topic {
                Ok(topic) if in_use.contains(&topic.id()) => Kind::GroupSubscribedToTopic.code(),
                Ok(topic) if topic.partition(index).is_some() => done,
                Ok(_) => Kind::UnknownTopicOrPartition.code(),
                Err(kind) => kind.code(),
            };
            let partitions = partitions.into_iter().map(|index| {
                OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code(index))
            });
            OffsetDeleteResponseTopic::default().with_name(name).with_partitions(partitions.collect())
        });
        Reply::message(version, &OffsetDeleteResponse::default().with_topics(topics.collect()))
    })
}
