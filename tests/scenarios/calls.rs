//! The requests a scenario can make: one variant per API, fields named as Kafka names them.

use super::answers::tree;
use crate::support::raw::{Client, Identity, PlainRecord, batch, records_in};
use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    Metadata {
        version: i16,
        topics: Option<Vec<String>>,
        #[serde(default)]
        auto_create: bool,
    },
    CreateTopics {
        version: i16,
        topics: Vec<NewTopic>,
        #[serde(default)]
        validate_only: bool,
    },
    DeleteTopics {
        version: i16,
        topics: Vec<String>,
    },
    CreatePartitions {
        version: i16,
        topic: String,
        count: i32,
        #[serde(default)]
        validate_only: bool,
        #[serde(default, rename = "refused")]
        _refused: bool,
    },
    Produce {
        version: i16,
        topic: String,
        #[serde(default)]
        partition: i32,
        #[serde(default = "all")]
        acks: i16,
        records: Vec<PlainRecord>,
        producer_id: Option<i64>,
        #[serde(default)]
        producer_epoch: i16,
        #[serde(default)]
        sequence: i32,
        /// Damage done to the batch before it is sent: `crc`, `magic`, `cut`, `count`, `base`, `append_time`, `newest` or
        /// `control`.
        damage: Option<String>,
        /// With one, the batch belongs to a transaction.
        transactional_id: Option<String>,
        /// The batch belongs to a transaction although the request names none.
        #[serde(default)]
        transactional: bool,
        /// Codec that the batch is sent with.
        codec: Option<String>,
        /// Bytes of the first record's value, in place of what it says.
        fill: Option<usize>,
    },
    Fetch {
        version: i16,
        topic: String,
        #[serde(default)]
        partition: i32,
        offset: i64,
        #[serde(default = "minus_one")]
        leader_epoch: i32,
        #[serde(default)]
        wait_ms: i32,
        #[serde(default)]
        committed: bool,
        /// Of the partition; 1 gives one batch.
        #[serde(default = "a_mebibyte")]
        max_bytes: i32,
        /// Shows the batches too: base offset, last offset delta, attributes, record count, newest timestamp.
        #[serde(default)]
        batches: bool,
    },
    ListOffsets {
        version: i16,
        topic: String,
        #[serde(default)]
        partition: i32,
        timestamp: i64,
        #[serde(default = "minus_one")]
        leader_epoch: i32,
        #[serde(default)]
        committed: bool,
    },
    DeleteRecords {
        version: i16,
        topic: String,
        #[serde(default)]
        partition: i32,
        offset: i64,
    },
    OffsetForLeaderEpoch {
        version: i16,
        topic: String,
        #[serde(default)]
        partition: i32,
        leader_epoch: i32,
    },
    DescribeConfigs {
        version: i16,
        resource_type: i8,
        resource: String,
        keys: Option<Vec<String>>,
        #[serde(default)]
        synonyms: bool,
    },
    IncrementalAlterConfigs {
        version: i16,
        resource_type: i8,
        resource: String,
        configs: Vec<Change>,
        #[serde(default)]
        validate_only: bool,
    },
    AlterConfigs {
        version: i16,
        resource_type: i8,
        resource: String,
        configs: BTreeMap<String, String>,
    },
    FindCoordinator {
        version: i16,
        keys: Vec<String>,
        #[serde(default)]
        key_type: i8,
    },
    JoinGroup {
        version: i16,
        group: String,
        #[serde(default)]
        member_id: String,
        instance: Option<String>,
        #[serde(default = "session")]
        session_timeout_ms: i32,
        #[serde(default = "consumer")]
        protocol_type: String,
        protocols: Vec<String>,
    },
    SyncGroup {
        version: i16,
        group: String,
        member_id: String,
        generation: i32,
        protocol: Option<String>,
        #[serde(default)]
        assignments: BTreeMap<String, String>,
        assign_to: Option<String>,
    },
    Heartbeat {
        version: i16,
        group: String,
        member_id: String,
        generation: i32,
    },
    LeaveGroup {
        version: i16,
        group: String,
        member_id: String,
    },
    OffsetCommit {
        version: i16,
        group: String,
        #[serde(default)]
        member_id: String,
        #[serde(default = "minus_one")]
        generation: i32,
        topic: String,
        #[serde(default)]
        partition: i32,
        offset: i64,
        metadata: Option<String>,
    },
    OffsetFetch {
        version: i16,
        group: String,
        topic: Option<String>,
        #[serde(default)]
        partitions: Vec<i32>,
        #[serde(default)]
        stable: bool,
    },
    OffsetDelete {
        version: i16,
        group: String,
        topic: String,
        partitions: Vec<i32>,
    },
    ListGroups {
        version: i16,
        #[serde(default)]
        states: Vec<String>,
    },
    DescribeGroups {
        version: i16,
        groups: Vec<String>,
    },
    DeleteGroups {
        version: i16,
        groups: Vec<String>,
    },
    ApiVersions {
        version: i16,
        /// Name and version of the client.
        #[serde(default = "software")]
        software: (String, String),
    },
    DescribeCluster {
        version: i16,
    },
    DescribeLogDirs {
        version: i16,
        topic: String,
    },
    InitProducerId {
        version: i16,
        #[serde(default = "minus_one_64")]
        producer_id: i64,
        #[serde(default = "minus_one_16")]
        epoch: i16,
        transactional_id: Option<String>,
        #[serde(default = "a_minute")]
        timeout_ms: i32,
    },
    AddPartitionsToTxn {
        version: i16,
        transactional_id: String,
        producer_id: i64,
        epoch: i16,
        topics: BTreeMap<String, Vec<i32>>,
    },
    AddOffsetsToTxn {
        version: i16,
        transactional_id: String,
        producer_id: i64,
        epoch: i16,
        group: String,
    },
    EndTxn {
        version: i16,
        transactional_id: String,
        producer_id: i64,
        epoch: i16,
        commit: bool,
    },
    TxnOffsetCommit {
        version: i16,
        transactional_id: String,
        producer_id: i64,
        epoch: i16,
        group: String,
        #[serde(default)]
        member_id: String,
        #[serde(default = "minus_one")]
        generation: i32,
        topic: String,
        #[serde(default)]
        partition: i32,
        offset: i64,
        metadata: Option<String>,
    },
    WriteTxnMarkers {
        version: i16,
        producer_id: i64,
        epoch: i16,
        commit: bool,
        topics: BTreeMap<String, Vec<i32>>,
        #[serde(default)]
        coordinator_epoch: i32,
    },
    DescribeProducers {
        version: i16,
        topics: BTreeMap<String, Vec<i32>>,
    },
    DescribeTransactions {
        version: i16,
        transactional_ids: Vec<String>,
    },
    ListTransactions {
        version: i16,
        #[serde(default)]
        states: Vec<String>,
        #[serde(default)]
        producer_ids: Vec<i64>,
        #[serde(default = "minus_one_64")]
        duration_ms: i64,
        pattern: Option<String>,
    },
    UpdateFeatures {
        version: i16,
        feature: String,
        level: i16,
        #[serde(default)]
        upgrade_type: i8,
        #[serde(default)]
        allow_downgrade: bool,
        #[serde(default)]
        validate_only: bool,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTopic {
    name: String,
    #[serde(default = "one")]
    partitions: i32,
    #[serde(default = "one_16")]
    replication: i16,
    #[serde(default)]
    configs: BTreeMap<String, String>,
    /// Settings that are sent without a value.
    #[serde(default)]
    unset: Vec<String>,
    /// Never made: nobody waits for it.
    #[serde(default, rename = "refused")]
    _refused: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    name: String,
    operation: i8,
    value: Option<String>,
}

/// A consumer subscription, version 0, to `groups-a`.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x08groups-a\xff\xff\xff\xff";

fn all() -> i16 {
    -1
}
fn one() -> i32 {
    1
}
fn one_16() -> i16 {
    1
}
fn minus_one() -> i32 {
    -1
}
fn minus_one_16() -> i16 {
    -1
}
fn minus_one_64() -> i64 {
    -1
}
fn a_mebibyte() -> i32 {
    1 << 20
}
fn a_minute() -> i32 {
    60_000
}
fn software() -> (String, String) {
    ("tests".into(), "1".into())
}
fn session() -> i32 {
    30_000
}
fn consumer() -> String {
    "consumer".into()
}

pub(super) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}
pub(super) fn topic_name(value: &str) -> TopicName {
    TopicName(text(value))
}
pub(super) fn group_id(value: &str) -> GroupId {
    GroupId(text(value))
}

/// Which APIs a broker has is its own matter: what is compared are the error, and that the request's own key is offered.
fn api_versions(client: &mut Client, version: i16, (name, release): (String, String)) -> Result<Value, String> {
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request = request.with_client_software_name(text(&name)).with_client_software_version(text(&release));
    }
    let answer = client.call(&request, version)?;
    let own = answer.api_keys.iter().find(|key| key.api_key == 18).map(|key| (key.min_version, key.max_version));
    Ok(json!({ "error_code": answer.error_code, "own": own }))
}

/// Sends and gives the whole answer as a tree.
pub(super) fn ask<R: Request>(client: &mut Client, request: &R, version: i16) -> Result<Value, String>
where
    R::Response: std::fmt::Debug,
{
    client.call(request, version).map(|answer| tree(&format!("{answer:?}")))
}

impl Call {
    pub fn send(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::Metadata { .. }
            | Call::CreateTopics { .. }
            | Call::DeleteTopics { .. }
            | Call::CreatePartitions { .. } => self.topics(client),
            Call::Produce { .. } | Call::InitProducerId { .. } => self.write(client),
            Call::Fetch { .. }
            | Call::ListOffsets { .. }
            | Call::DeleteRecords { .. }
            | Call::OffsetForLeaderEpoch { .. } => self.read(client),
            Call::DescribeConfigs { .. } | Call::IncrementalAlterConfigs { .. } | Call::AlterConfigs { .. } => {
                self.configs(client)
            }
            Call::OffsetCommit { .. } | Call::OffsetFetch { .. } | Call::OffsetDelete { .. } => self.offsets(client),
            Call::JoinGroup { .. } | Call::SyncGroup { .. } | Call::Heartbeat { .. } | Call::LeaveGroup { .. } => {
                self.membership(client)
            }
            Call::AddPartitionsToTxn { .. }
            | Call::AddOffsetsToTxn { .. }
            | Call::EndTxn { .. }
            | Call::TxnOffsetCommit { .. }
            | Call::WriteTxnMarkers { .. } => self.transactions(client),
            Call::DescribeProducers { .. }
            | Call::DescribeTransactions { .. }
            | Call::ListTransactions { .. }
            | Call::UpdateFeatures { .. } => self.transaction_admin(client),
            _ => self.groups(client),
        }
    }

    fn topics(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::Metadata { version, topics, auto_create } => {
                let topics = topics.map(|names| {
                    names
                        .iter()
                        .map(|name| metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(name))))
                        .collect()
                });
                let mut request = MetadataRequest::default().with_topics(topics);
                if version >= 4 {
                    request.allow_auto_topic_creation = auto_create;
                }
                ask(client, &request, version)
            }
            Call::CreateTopics { version, topics, validate_only } => {
                let topics = topics.iter().map(|topic| {
                    let configs = topic.configs.iter().map(|(name, value)| {
                        create_topics_request::CreatableTopicConfig::default()
                            .with_name(text(name))
                            .with_value(Some(text(value)))
                    });
                    let unset = topic.unset.iter().map(|name| {
                        create_topics_request::CreatableTopicConfig::default().with_name(text(name)).with_value(None)
                    });
                    create_topics_request::CreatableTopic::default()
                        .with_name(topic_name(&topic.name))
                        .with_num_partitions(topic.partitions)
                        .with_replication_factor(topic.replication)
                        .with_configs(configs.chain(unset).collect())
                });
                ask(
                    client,
                    &CreateTopicsRequest::default()
                        .with_topics(topics.collect())
                        .with_timeout_ms(10_000)
                        .with_validate_only(validate_only),
                    version,
                )
            }
            Call::DeleteTopics { version, topics } => {
                let request = if version >= 6 {
                    let topics = topics.iter().map(|name| {
                        delete_topics_request::DeleteTopicState::default().with_name(Some(topic_name(name)))
                    });
                    DeleteTopicsRequest::default().with_topics(topics.collect())
                } else {
                    DeleteTopicsRequest::default()
                        .with_topic_names(topics.iter().map(|name| topic_name(name)).collect())
                };
                ask(client, &request.with_timeout_ms(10_000), version)
            }
            Call::CreatePartitions { version, topic, count, validate_only, .. } => {
                let topic = create_partitions_request::CreatePartitionsTopic::default()
                    .with_name(topic_name(&topic))
                    .with_count(count)
                    .with_assignments(None);
                ask(
                    client,
                    &CreatePartitionsRequest::default()
                        .with_topics(vec![topic])
                        .with_timeout_ms(10_000)
                        .with_validate_only(validate_only),
                    version,
                )
            }
            _ => unreachable!("not about topics"),
        }
    }

    fn write(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::Produce {
                version,
                topic,
                partition,
                acks,
                mut records,
                producer_id,
                producer_epoch,
                sequence,
                damage,
                transactional_id,
                transactional,
                codec,
                fill,
            } => {
                if let Some(length) = fill {
                    records[0].value = Some("x".repeat(length));
                }
                let identity = producer_id.map_or_else(Identity::default, |producer_id| Identity {
                    producer_id,
                    epoch: producer_epoch,
                    sequence,
                    transactional: transactional || transactional_id.is_some(),
                });
                let bytes = damaged(folded(batch(&records, identity), codec.as_deref()), damage.as_deref());
                let data =
                    produce_request::PartitionProduceData::default().with_index(partition).with_records(Some(bytes));
                let topic = produce_request::TopicProduceData::default()
                    .with_name(topic_name(&topic))
                    .with_partition_data(vec![data]);
                let request = ProduceRequest::default()
                    .with_transactional_id(transactional_id.as_deref().map(|id| TransactionalId(text(id))));
                ask(client, &request.with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic]), version)
            }
            Call::InitProducerId { version, producer_id, epoch, transactional_id, timeout_ms } => {
                let mut request = InitProducerIdRequest::default()
                    .with_transactional_id(transactional_id.as_deref().map(|id| TransactionalId(text(id))))
                    .with_transaction_timeout_ms(timeout_ms);
                if version >= 3 {
                    request = request.with_producer_id(ProducerId(producer_id)).with_producer_epoch(epoch);
                }
                ask(client, &request, version)
            }
            _ => unreachable!("not about writing"),
        }
    }

    fn read(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::Fetch { version, topic, partition, offset, leader_epoch, wait_ms, committed, max_bytes, batches } => {
                let mut wanted = fetch_request::FetchPartition::default()
                    .with_partition(partition)
                    .with_fetch_offset(offset)
                    .with_partition_max_bytes(max_bytes);
                if version >= 9 {
                    wanted.current_leader_epoch = leader_epoch;
                }
                let topic =
                    fetch_request::FetchTopic::default().with_topic(topic_name(&topic)).with_partitions(vec![wanted]);
                let mut request = FetchRequest::default()
                    .with_max_wait_ms(wait_ms)
                    .with_min_bytes(1)
                    .with_max_bytes(1 << 20)
                    .with_isolation_level(i8::from(committed))
                    .with_topics(vec![topic]);
                if version >= 7 {
                    request = request.with_session_id(0).with_session_epoch(-1);
                }
                fetched(client.call(&request, version)?, batches)
            }
            Call::ListOffsets { version, topic, partition, timestamp, leader_epoch, committed } => {
                let mut wanted = list_offsets_request::ListOffsetsPartition::default()
                    .with_partition_index(partition)
                    .with_timestamp(timestamp);
                if version >= 4 {
                    wanted.current_leader_epoch = leader_epoch;
                }
                let topic = list_offsets_request::ListOffsetsTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(vec![wanted]);
                let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
                ask(client, &request.with_isolation_level(i8::from(committed)), version)
            }
            Call::DeleteRecords { version, topic, partition, offset } => {
                let wanted = delete_records_request::DeleteRecordsPartition::default()
                    .with_partition_index(partition)
                    .with_offset(offset);
                let topic = delete_records_request::DeleteRecordsTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(vec![wanted]);
                ask(client, &DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000), version)
            }
            Call::OffsetForLeaderEpoch { version, topic, partition, leader_epoch } => {
                let wanted = offset_for_leader_epoch_request::OffsetForLeaderPartition::default()
                    .with_partition(partition)
                    .with_current_leader_epoch(-1)
                    .with_leader_epoch(leader_epoch);
                let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                    .with_topic(topic_name(&topic))
                    .with_partitions(vec![wanted]);
                let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
                if version >= 3 {
                    request.replica_id = BrokerId(-1);
                }
                ask(client, &request, version)
            }
            _ => unreachable!("not about reading"),
        }
    }

    fn configs(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::DescribeConfigs { version, resource_type, resource, keys, synonyms } => {
                let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect());
                let resource = describe_configs_request::DescribeConfigsResource::default()
                    .with_resource_type(resource_type)
                    .with_resource_name(text(&resource))
                    .with_configuration_keys(keys);
                ask(
                    client,
                    &DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(synonyms),
                    version,
                )
            }
            Call::IncrementalAlterConfigs { version, resource_type, resource, configs, validate_only } => {
                let configs = configs.iter().map(|change| {
                    incremental_alter_configs_request::AlterableConfig::default()
                        .with_name(text(&change.name))
                        .with_config_operation(change.operation)
                        .with_value(change.value.as_deref().map(text))
                });
                let resource = incremental_alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(resource_type)
                    .with_resource_name(text(&resource))
                    .with_configs(configs.collect());
                ask(
                    client,
                    &IncrementalAlterConfigsRequest::default()
                        .with_resources(vec![resource])
                        .with_validate_only(validate_only),
                    version,
                )
            }
            Call::AlterConfigs { version, resource_type, resource, configs } => {
                let configs = configs.iter().map(|(name, value)| {
                    alter_configs_request::AlterableConfig::default()
                        .with_name(text(name))
                        .with_value(Some(text(value)))
                });
                let resource = alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(resource_type)
                    .with_resource_name(text(&resource))
                    .with_configs(configs.collect());
                ask(client, &AlterConfigsRequest::default().with_resources(vec![resource]), version)
            }
            _ => unreachable!("not about configs"),
        }
    }

    fn membership(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::JoinGroup { version, group, member_id, instance, session_timeout_ms, protocol_type, protocols } => {
                let protocols = protocols.iter().map(|name| {
                    join_group_request::JoinGroupRequestProtocol::default()
                        .with_name(text(name))
                        .with_metadata(Bytes::from_static(SUBSCRIPTION))
                });
                let mut request = JoinGroupRequest::default()
                    .with_group_id(group_id(&group))
                    .with_session_timeout_ms(session_timeout_ms)
                    .with_member_id(text(&member_id))
                    .with_group_instance_id(instance.as_deref().map(text))
                    .with_protocol_type(text(&protocol_type))
                    .with_protocols(protocols.collect());
                if version >= 1 {
                    request.rebalance_timeout_ms = 10_000;
                }
                ask(client, &request, version)
            }
            Call::SyncGroup { version, group, member_id, generation, protocol, mut assignments, assign_to } => {
                if let Some(member) = assign_to {
                    assignments.insert(member, "assigned".into());
                }
                let assignments = assignments.iter().map(|(member, bytes)| {
                    sync_group_request::SyncGroupRequestAssignment::default()
                        .with_member_id(text(member))
                        .with_assignment(Bytes::from(bytes.clone()))
                });
                let mut request = SyncGroupRequest::default()
                    .with_group_id(group_id(&group))
                    .with_generation_id(generation)
                    .with_member_id(text(&member_id))
                    .with_assignments(assignments.collect());
                if version >= 5 {
                    request = request
                        .with_protocol_type(Some(text("consumer")))
                        .with_protocol_name(protocol.as_deref().map(text));
                }
                ask(client, &request, version)
            }
            Call::Heartbeat { version, group, member_id, generation } => ask(
                client,
                &HeartbeatRequest::default()
                    .with_group_id(group_id(&group))
                    .with_generation_id(generation)
                    .with_member_id(text(&member_id)),
                version,
            ),
            Call::LeaveGroup { version, group, member_id } => {
                let request = LeaveGroupRequest::default().with_group_id(group_id(&group));
                let request = if version >= 3 {
                    request.with_members(vec![
                        leave_group_request::MemberIdentity::default().with_member_id(text(&member_id)),
                    ])
                } else {
                    request.with_member_id(text(&member_id))
                };
                ask(client, &request, version)
            }
            _ => unreachable!("not about membership"),
        }
    }

    fn offsets(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::OffsetCommit { version, group, member_id, generation, topic, partition, offset, metadata } => {
                let wanted = offset_commit_request::OffsetCommitRequestPartition::default()
                    .with_partition_index(partition)
                    .with_committed_offset(offset)
                    .with_committed_metadata(metadata.as_deref().map(text));
                let topic = offset_commit_request::OffsetCommitRequestTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(vec![wanted]);
                let request = OffsetCommitRequest::default()
                    .with_group_id(group_id(&group))
                    .with_generation_id_or_member_epoch(generation)
                    .with_member_id(text(&member_id))
                    .with_topics(vec![topic]);
                ask(client, &request, version)
            }
            Call::OffsetFetch { version, group, topic, partitions, stable } => {
                let request = if version >= 8 {
                    let topics = topic.map(|topic| {
                        vec![
                            offset_fetch_request::OffsetFetchRequestTopics::default()
                                .with_name(topic_name(&topic))
                                .with_partition_indexes(partitions),
                        ]
                    });
                    let mut wanted = offset_fetch_request::OffsetFetchRequestGroup::default()
                        .with_group_id(group_id(&group))
                        .with_topics(topics);
                    if version >= 9 {
                        wanted.member_epoch = -1;
                    }
                    OffsetFetchRequest::default().with_groups(vec![wanted])
                } else {
                    let topics = topic.map(|topic| {
                        vec![
                            offset_fetch_request::OffsetFetchRequestTopic::default()
                                .with_name(topic_name(&topic))
                                .with_partition_indexes(partitions),
                        ]
                    });
                    OffsetFetchRequest::default().with_group_id(group_id(&group)).with_topics(topics)
                };
                ask(client, &request.with_require_stable(stable), version)
            }
            Call::OffsetDelete { version, group, topic, partitions } => {
                let partitions = partitions.iter().map(|index| {
                    offset_delete_request::OffsetDeleteRequestPartition::default().with_partition_index(*index)
                });
                let topic = offset_delete_request::OffsetDeleteRequestTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(partitions.collect());
                ask(
                    client,
                    &OffsetDeleteRequest::default().with_group_id(group_id(&group)).with_topics(vec![topic]),
                    version,
                )
            }
            _ => unreachable!("not about offsets"),
        }
    }

    fn groups(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::FindCoordinator { version, keys, key_type } => {
                let request = if version >= 4 {
                    FindCoordinatorRequest::default().with_coordinator_keys(keys.iter().map(|key| text(key)).collect())
                } else {
                    FindCoordinatorRequest::default().with_key(text(&keys[0]))
                };
                ask(client, &request.with_key_type(key_type), version)
            }
            Call::ListGroups { version, states } => ask(
                client,
                &ListGroupsRequest::default().with_states_filter(states.iter().map(|state| text(state)).collect()),
                version,
            ),
            Call::DescribeGroups { version, groups } => ask(
                client,
                &DescribeGroupsRequest::default().with_groups(groups.iter().map(|group| group_id(group)).collect()),
                version,
            ),
            Call::ApiVersions { version, software } => api_versions(client, version, software),
            Call::DescribeCluster { version } => ask(client, &DescribeClusterRequest::default(), version),
            Call::DescribeLogDirs { version, topic } => {
                let topic = describe_log_dirs_request::DescribableLogDirTopic::default()
                    .with_topic(topic_name(&topic))
                    .with_partitions(vec![0]);
                ask(client, &DescribeLogDirsRequest::default().with_topics(Some(vec![topic])), version)
            }
            Call::DeleteGroups { version, groups } => ask(
                client,
                &DeleteGroupsRequest::default().with_groups_names(groups.iter().map(|group| group_id(group)).collect()),
                version,
            ),
            _ => unreachable!("not about groups"),
        }
    }
}

/// (topic, last partition) of what a request makes; what it must not make says `refused = true`.
pub fn created(request: &toml::Value) -> Vec<(String, i32)> {
    let checked = request.get("validate_only").and_then(toml::Value::as_bool).unwrap_or(false);
    let integer = |value: Option<&toml::Value>| value.and_then(toml::Value::as_integer).unwrap_or(1).max(1) as i32;
    match request["call"].as_str() {
        Some("create_topics") if !checked => {
            let topics = request["topics"].as_array().into_iter().flatten();
            let made = topics.filter(|topic| topic.get("refused").is_none());
            made.map(|topic| (topic["name"].as_str().unwrap().to_owned(), integer(topic.get("partitions")) - 1))
                .collect()
        }
        Some("create_partitions") if !checked && request.get("refused").is_none() => {
            vec![(request["topic"].as_str().unwrap().to_owned(), integer(request.get("count")) - 1)]
        }
        _ => Vec::new(),
    }
}

/// A fetch answer with its records readable: the bytes themselves hold the leader epoch, which differs.
pub fn fetched(mut answer: FetchResponse, with_batches: bool) -> Result<Value, String> {
    let (mut lists, mut batches) = (Vec::new(), Vec::new());
    for partition in answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
        let bytes = partition.records.take().unwrap_or_default();
        batches.push(batch_headers(&bytes));
        let records = if with_batches { Vec::new() } else { records_in(bytes) };
        let shown = |bytes: Option<Bytes>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        lists.push(json!(
            records
                .into_iter()
                // a marker is stamped by the broker
                .map(|r| json!([r.offset, (!r.control).then_some(time(r.timestamp)), shown(r.key), shown(r.value)]))
                .collect::<Vec<_>>()
        ));
    }
    let mut shown = json!({ "answer": tree(&format!("{answer:?}")), "records": lists });
    if with_batches {
        shown["batches"] = json!(batches);
    }
    Ok(shown)
}

/// What the headers of batches say.
fn batch_headers(mut bytes: &[u8]) -> Value {
    let mut batches = Vec::new();
    while bytes.len() >= 61 {
        let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let attributes = i16::from_be_bytes([bytes[21], bytes[22]]);
        batches.push(json!([long(0), int(23), attributes, int(57), time(long(35))]));
        bytes = bytes.get(int(8) as usize + 12..).unwrap_or_default();
    }
    json!(batches)
}

/// The broker's own clock differs between two brokers.
fn time(timestamp: i64) -> Value {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    if (now - 600_000..=now).contains(&timestamp) { json!("now") } else { json!(timestamp) }
}

/// The batch with its records in the frame of a codec, written by hand: whole blocks, nothing made smaller.
fn folded(batch: Bytes, codec: Option<&str>) -> Bytes {
    if codec.is_none() {
        return batch;
    }
    let (head, records) = batch.split_at(61);
    let length = u16::try_from(records.len()).expect("a block of the scenarios is short").to_le_bytes();
    let (number, folded) = match codec {
        Some("gzip") => {
            let [low, high] = length;
            let size = u32::from(u16::from_le_bytes(length)).to_le_bytes();
            let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1, low, high, !low, !high];
            out.extend([records, &crc32(records).to_le_bytes(), &size].concat());
            (1, out)
        }
        Some("zstd") => {
            let block = (u32::from(u16::from_le_bytes(length)) << 3 | 1).to_le_bytes();
            let size = u32::from(u16::from_le_bytes(length)).to_le_bytes();
            (4, [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0], &size[..], &block[..3], records].concat())
        }
        other => panic!("unknown codec {other:?}"),
    };
    let mut bytes = [head, &folded].concat();
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] |= number;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// The CRC of gzip.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

pub(super) fn damaged(batch: Bytes, damage: Option<&str>) -> Bytes {
    let mut bytes = batch.to_vec();
    match damage {
        None => {}
        Some("crc") => *bytes.last_mut().unwrap() ^= 1,
        Some("magic") => bytes[16] = 9,
        Some("cut") => bytes.truncate(bytes.len() - 3),
        Some("empty") => bytes.clear(),
        Some("count") => bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes()),
        Some("base") => bytes[7] = 1,
        Some("append_time") => bytes[22] |= 1 << 3,
        Some("control") => bytes[22] |= 1 << 5,
        Some("newest") => bytes[35..43].copy_from_slice(&1_800_000_000_000_i64.to_be_bytes()),
        Some(other) => panic!("unknown damage {other}"),
    }
    if matches!(damage, Some("count" | "append_time" | "newest" | "control")) {
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    bytes.into()
}
