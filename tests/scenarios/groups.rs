//! The requests of groups that need more than `calls.rs` has: members of both protocols, with what they own.

use super::answers::tree;
use crate::support::raw::Client;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Partitions by the name of their topic.
type Owned = BTreeMap<String, Vec<i32>>;

#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum GroupCall {
    ConsumerGroupHeartbeat {
        #[serde(default = "one")]
        version: i16,
        group: String,
        member_id: String,
        epoch: i32,
        instance: Option<String>,
        rack: Option<String>,
        #[serde(default = "minus_one")]
        rebalance_timeout_ms: i32,
        topics: Option<Vec<String>>,
        regex: Option<String>,
        assignor: Option<String>,
        owned: Option<Owned>,
    },
    ConsumerGroupDescribe {
        #[serde(default = "one")]
        version: i16,
        groups: Vec<String>,
    },
    /// JoinGroup of a consumer that says what it subscribes to and what it has.
    ConsumerJoin {
        #[serde(default = "nine")]
        version: i16,
        group: String,
        #[serde(default)]
        member_id: String,
        instance: Option<String>,
        topics: Vec<String>,
        #[serde(default)]
        owned: Owned,
        #[serde(default = "ranges")]
        protocols: Vec<String>,
        #[serde(default = "consumer")]
        protocol_type: String,
        #[serde(default = "ten_seconds")]
        rebalance_timeout_ms: i32,
    },
    /// SyncGroup whose assignments are those of consumers.
    ConsumerSync {
        #[serde(default = "five")]
        version: i16,
        group: String,
        member_id: String,
        instance: Option<String>,
        generation: i32,
        #[serde(default = "consumer")]
        protocol_type: String,
        protocol: Option<String>,
        #[serde(default)]
        assignments: Vec<Given>,
    },
    /// Heartbeat of a member that may be static.
    MemberHeartbeat {
        #[serde(default = "four")]
        version: i16,
        group: String,
        member_id: String,
        instance: Option<String>,
        generation: i32,
    },
    /// LeaveGroup of many: (member id, static name or empty).
    LeaveMany { group: String, members: Vec<(String, String)> },
    /// OffsetCommit of one offset by somebody who says who it is.
    MemberCommit {
        #[serde(default = "nine")]
        version: i16,
        group: String,
        member_id: String,
        instance: Option<String>,
        epoch: i32,
        topic: String,
        #[serde(default)]
        partition: i32,
        offset: i64,
    },
    /// OffsetFetch of one topic by somebody who says who it is.
    MemberFetch {
        group: String,
        member_id: Option<String>,
        #[serde(default = "minus_one")]
        epoch: i32,
        topic: String,
        partitions: Vec<i32>,
        #[serde(default)]
        require_stable: bool,
    },
    /// ListGroups by states and types; only groups whose names begin so.
    ListSome {
        #[serde(default = "five")]
        version: i16,
        prefix: String,
        #[serde(default)]
        states: Vec<String>,
        #[serde(default)]
        types: Vec<String>,
    },
}

/// What a leader gives one member.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    member_id: String,
    partitions: Owned,
}

fn one() -> i16 {
    1
}
fn four() -> i16 {
    4
}
fn five() -> i16 {
    5
}
fn nine() -> i16 {
    9
}
fn minus_one() -> i32 {
    -1
}
fn ten_seconds() -> i32 {
    10_000
}
fn consumer() -> String {
    "consumer".into()
}
fn ranges() -> Vec<String> {
    vec!["range".into()]
}

/// Whether a step is one of these.
pub fn is_here(request: &toml::Value) -> bool {
    const NAMES: [&str; 9] = [
        "consumer_group_heartbeat",
        "consumer_group_describe",
        "consumer_join",
        "consumer_sync",
        "member_heartbeat",
        "leave_many",
        "member_commit",
        "member_fetch",
        "list_some",
    ];
    request.get("call").and_then(toml::Value::as_str).is_some_and(|call| NAMES.contains(&call))
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn group_id(value: &str) -> GroupId {
    GroupId(text(value))
}

fn topic_name(value: &str) -> TopicName {
    TopicName(text(value))
}

fn ask<R: Request>(client: &mut Client, request: &R, version: i16) -> Result<Value, String>
where
    R::Response: std::fmt::Debug,
{
    client.call(request, version).map(|answer| tree(&format!("{answer:?}")))
}

/// What this broker says of a topic: its id is its own.
pub(super) fn known(client: &mut Client, name: &str) -> Result<metadata_response::MetadataResponseTopic, String> {
    let wanted = metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
    Ok(client.call(&request, 12)?.topics.remove(0))
}

fn put_owned(out: &mut BytesMut, owned: &Owned) {
    out.put_i32(owned.len() as i32);
    for (topic, partitions) in owned {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
        out.put_i32(partitions.len() as i32);
        partitions.iter().for_each(|partition| out.put_i32(*partition));
    }
}

/// A consumer's subscription, version 1.
fn subscription(topics: &[String], owned: &Owned) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(1);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(-1);
    put_owned(&mut out, owned);
    out.freeze()
}

/// A consumer's assignment, version 1.
fn assignment(partitions: &Owned) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(1);
    put_owned(&mut out, partitions);
    out.put_i32(-1);
    out.freeze()
}

impl GroupCall {
    pub fn send(self, client: &mut Client) -> Result<Value, String> {
        match self {
            GroupCall::ConsumerGroupHeartbeat { .. } => self.beat(client),
            GroupCall::ConsumerJoin { .. } | GroupCall::ConsumerSync { .. } => self.rebalance(client),
            GroupCall::MemberCommit { .. } | GroupCall::MemberFetch { .. } => self.offsets(client),
            GroupCall::MemberHeartbeat { version, group, member_id, instance, generation } => {
                let request = HeartbeatRequest::default()
                    .with_group_id(group_id(&group))
                    .with_generation_id(generation)
                    .with_member_id(text(&member_id))
                    .with_group_instance_id(instance.as_deref().map(text));
                ask(client, &request, version)
            }
            GroupCall::LeaveMany { group, members } => {
                let members = members.iter().map(|(id, instance)| {
                    leave_group_request::MemberIdentity::default()
                        .with_member_id(text(id))
                        .with_group_instance_id((!instance.is_empty()).then(|| text(instance)))
                });
                let request = LeaveGroupRequest::default().with_group_id(group_id(&group));
                ask(client, &request.with_members(members.collect()), 5)
            }
            GroupCall::ConsumerGroupDescribe { version, groups } => {
                let groups = groups.iter().map(|group| group_id(group)).collect();
                ask(client, &ConsumerGroupDescribeRequest::default().with_group_ids(groups), version)
            }
            GroupCall::ListSome { version, prefix, states, types } => {
                let texts = |all: &[String]| all.iter().map(|one| text(one)).collect::<Vec<_>>();
                let mut request = ListGroupsRequest::default().with_states_filter(texts(&states));
                if version >= 5 {
                    request = request.with_types_filter(texts(&types));
                }
                let mut answer = client.call(&request, version)?;
                answer.groups.retain(|group| group.group_id.starts_with(&prefix));
                Ok(tree(&format!("{answer:?}")))
            }
        }
    }

    fn beat(self, client: &mut Client) -> Result<Value, String> {
        let GroupCall::ConsumerGroupHeartbeat {
            version,
            group,
            member_id,
            epoch,
            instance,
            rack,
            rebalance_timeout_ms,
            topics,
            regex,
            assignor,
            owned,
        } = self
        else {
            unreachable!("a heartbeat")
        };
        let mut partitions = Vec::new();
        for (topic, indexes) in owned.iter().flatten() {
            let id = known(client, topic)?.topic_id;
            let owned = consumer_group_heartbeat_request::TopicPartitions::default().with_topic_id(id);
            partitions.push(owned.with_partitions(indexes.clone()));
        }
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&group))
            .with_member_id(text(&member_id))
            .with_member_epoch(epoch)
            .with_instance_id(instance.as_deref().map(text))
            .with_rack_id(rack.as_deref().map(text))
            .with_rebalance_timeout_ms(rebalance_timeout_ms)
            .with_subscribed_topic_names(topics.map(|names| names.iter().map(|name| topic_name(name)).collect()))
            .with_server_assignor(assignor.as_deref().map(text))
            .with_topic_partitions(owned.map(|_| partitions));
        if version >= 1 {
            request = request.with_subscribed_topic_regex(regex.as_deref().map(text));
        }
        ask(client, &request, version)
    }

    fn rebalance(self, client: &mut Client) -> Result<Value, String> {
        match self {
            GroupCall::ConsumerJoin {
                version,
                group,
                member_id,
                instance,
                topics,
                owned,
                protocols,
                protocol_type,
                rebalance_timeout_ms,
            } => {
                let metadata = subscription(&topics, &owned);
                let protocols = protocols.iter().map(|name| {
                    join_group_request::JoinGroupRequestProtocol::default()
                        .with_name(text(name))
                        .with_metadata(metadata.clone())
                });
                let request = JoinGroupRequest::default()
                    .with_group_id(group_id(&group))
                    .with_session_timeout_ms(30_000)
                    .with_rebalance_timeout_ms(rebalance_timeout_ms)
                    .with_member_id(text(&member_id))
                    .with_group_instance_id(instance.as_deref().map(text))
                    .with_protocol_type(text(&protocol_type))
                    .with_protocols(protocols.collect());
                ask(client, &request, version)
            }
            GroupCall::ConsumerSync {
                version,
                group,
                member_id,
                instance,
                generation,
                protocol_type,
                protocol,
                assignments,
            } => {
                let assignments = assignments.iter().map(|given| {
                    sync_group_request::SyncGroupRequestAssignment::default()
                        .with_member_id(text(&given.member_id))
                        .with_assignment(assignment(&given.partitions))
                });
                let mut request = SyncGroupRequest::default()
                    .with_group_id(group_id(&group))
                    .with_generation_id(generation)
                    .with_member_id(text(&member_id))
                    .with_group_instance_id(instance.as_deref().map(text))
                    .with_assignments(assignments.collect());
                if version >= 5 {
                    request = request
                        .with_protocol_type(Some(text(&protocol_type)))
                        .with_protocol_name(protocol.as_deref().map(text));
                }
                ask(client, &request, version)
            }
            _ => unreachable!("not about rebalances"),
        }
    }

    fn offsets(self, client: &mut Client) -> Result<Value, String> {
        match self {
            GroupCall::MemberCommit { version, group, member_id, instance, epoch, topic, partition, offset } => {
                let wanted = offset_commit_request::OffsetCommitRequestPartition::default()
                    .with_partition_index(partition)
                    .with_committed_offset(offset);
                let topic = offset_commit_request::OffsetCommitRequestTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(vec![wanted]);
                let request = OffsetCommitRequest::default()
                    .with_group_id(group_id(&group))
                    .with_generation_id_or_member_epoch(epoch)
                    .with_member_id(text(&member_id))
                    .with_group_instance_id(instance.as_deref().map(text))
                    .with_topics(vec![topic]);
                ask(client, &request, version)
            }
            GroupCall::MemberFetch { group, member_id, epoch, topic, partitions, require_stable } => {
                let topic = offset_fetch_request::OffsetFetchRequestTopics::default()
                    .with_name(topic_name(&topic))
                    .with_partition_indexes(partitions);
                let wanted = offset_fetch_request::OffsetFetchRequestGroup::default()
                    .with_group_id(group_id(&group))
                    .with_member_id(member_id.as_deref().map(text))
                    .with_member_epoch(epoch)
                    .with_topics(Some(vec![topic]));
                let request = OffsetFetchRequest::default().with_groups(vec![wanted]);
                ask(client, &request.with_require_stable(require_stable), 9)
            }
            _ => unreachable!("not about offsets"),
        }
    }
}
