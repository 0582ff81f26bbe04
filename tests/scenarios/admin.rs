//! The requests of administrators that a scenario can make, beside those of `calls`.

use super::answers::tree;
use super::calls::fetched;
use crate::support::raw::Client;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use serde::Deserialize;
use serde_json::{Value, json};

/// Names of the calls of this file.
const CALLS: [&str; 14] = [
    "alter_partition_reassignments",
    "alter_replica_log_dirs",
    "alter_resources",
    "assigned_partitions",
    "assigned_topic",
    "delete_topics_by_id",
    "describe_cluster_as",
    "describe_many_configs",
    "describe_quorum",
    "describe_topic_partitions",
    "elect_leaders",
    "fetch_in_session",
    "list_config_resources",
    "list_partition_reassignments",
];

#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminCall {
    AlterPartitionReassignments {
        version: i16,
        topic: String,
        #[serde(default)]
        partition: i32,
        replicas: Option<Vec<i32>>,
    },
    AlterReplicaLogDirs {
        version: i16,
        path: String,
        topic: String,
        #[serde(default)]
        partition: i32,
    },
    /// IncrementalAlterConfigs of several resources.
    AlterResources {
        version: i16,
        resources: Vec<Altered>,
        #[serde(default)]
        validate_only: bool,
    },
    /// CreatePartitions with replicas for each new partition.
    AssignedPartitions {
        version: i16,
        topic: String,
        count: i32,
        assignments: Vec<Vec<i32>>,
        #[serde(default)]
        validate_only: bool,
    },
    /// CreateTopics with replicas for each partition.
    AssignedTopic {
        version: i16,
        name: String,
        #[serde(default = "minus_one")]
        partitions: i32,
        #[serde(default = "minus_one_16")]
        replication: i16,
        #[serde(default)]
        assignments: Vec<Assigned>,
        #[serde(default)]
        validate_only: bool,
    },
    DeleteTopicsById {
        version: i16,
        ids: Vec<String>,
    },
    DescribeClusterAs {
        version: i16,
        endpoint_type: i8,
    },
    DescribeManyConfigs {
        version: i16,
        resources: Vec<(i8, String)>,
        keys: Vec<String>,
    },
    DescribeQuorum {
        version: i16,
        topic: String,
        partitions: Vec<i32>,
    },
    DescribeTopicPartitions {
        version: i16,
        topics: Vec<String>,
        #[serde(default = "page")]
        limit: i32,
        cursor: Option<(String, i32)>,
    },
    ElectLeaders {
        version: i16,
        #[serde(default)]
        election_type: i8,
        topic: Option<String>,
        #[serde(default)]
        partitions: Vec<i32>,
    },
    /// Fetch within a session (KIP-227); partitions are topic, number and offset.
    FetchInSession {
        version: i16,
        #[serde(default)]
        session_id: i32,
        epoch: i32,
        #[serde(default)]
        partitions: Vec<(String, i32, i64)>,
        #[serde(default)]
        forgotten: Vec<(String, i32)>,
    },
    ListConfigResources {
        version: i16,
        #[serde(default)]
        types: Vec<i8>,
    },
    ListPartitionReassignments {
        version: i16,
        topic: Option<String>,
        #[serde(default)]
        partitions: Vec<i32>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Altered {
    resource_type: i8,
    resource: String,
    configs: Vec<(String, i8, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assigned {
    partition: i32,
    replicas: Vec<i32>,
}

fn minus_one() -> i32 {
    -1
}
fn minus_one_16() -> i16 {
    -1
}
fn page() -> i32 {
    2000
}
fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}
fn topic_name(value: &str) -> TopicName {
    TopicName(text(value))
}
fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

/// Whether the request is one of this file.
pub fn is_here(request: &toml::Value) -> bool {
    request["call"].as_str().is_some_and(|call| CALLS.contains(&call))
}

fn ask<R: Request>(client: &mut Client, request: &R, version: i16) -> Result<Value, String>
where
    R::Response: std::fmt::Debug,
{
    client.call(request, version).map(|answer| tree(&format!("{answer:?}")))
}

impl AdminCall {
    pub fn send(self, client: &mut Client) -> Result<Value, String> {
        match self {
            AdminCall::AlterResources { .. }
            | AdminCall::DescribeManyConfigs { .. }
            | AdminCall::ListConfigResources { .. } => self.configs(client),
            AdminCall::AssignedPartitions { .. }
            | AdminCall::AssignedTopic { .. }
            | AdminCall::DeleteTopicsById { .. }
            | AdminCall::DescribeTopicPartitions { .. } => self.topics(client),
            AdminCall::FetchInSession { .. } => self.fetch(client),
            _ => self.replicas(client),
        }
    }

    fn configs(self, client: &mut Client) -> Result<Value, String> {
        match self {
            AdminCall::AlterResources { version, resources, validate_only } => {
                let resources = resources.iter().map(|one| {
                    let configs = one.configs.iter().map(|(name, operation, value)| {
                        let value = (value != "null").then(|| text(value));
                        incremental_alter_configs_request::AlterableConfig::default()
                            .with_name(text(name))
                            .with_config_operation(*operation)
                            .with_value(value)
                    });
                    incremental_alter_configs_request::AlterConfigsResource::default()
                        .with_resource_type(one.resource_type)
                        .with_resource_name(text(&one.resource))
                        .with_configs(configs.collect())
                });
                let request = IncrementalAlterConfigsRequest::default().with_resources(resources.collect());
                ask(client, &request.with_validate_only(validate_only), version)
            }
            AdminCall::DescribeManyConfigs { version, resources, keys } => {
                let resources = resources.iter().map(|(resource_type, name)| {
                    describe_configs_request::DescribeConfigsResource::default()
                        .with_resource_type(*resource_type)
                        .with_resource_name(text(name))
                        .with_configuration_keys(Some(keys.iter().map(|key| text(key)).collect()))
                });
                let request = DescribeConfigsRequest::default().with_resources(resources.collect());
                ask(client, &request.with_include_synonyms(true), version)
            }
            AdminCall::ListConfigResources { version, types } => {
                ask(client, &ListConfigResourcesRequest::default().with_resource_types(types), version)
            }
            _ => unreachable!("not about configs"),
        }
    }

    fn topics(self, client: &mut Client) -> Result<Value, String> {
        match self {
            AdminCall::AssignedPartitions { version, topic, count, assignments, validate_only } => {
                let assignments = assignments.iter().map(|replicas| {
                    create_partitions_request::CreatePartitionsAssignment::default().with_broker_ids(brokers(replicas))
                });
                let topic = create_partitions_request::CreatePartitionsTopic::default()
                    .with_name(topic_name(&topic))
                    .with_count(count)
                    .with_assignments(Some(assignments.collect()));
                let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
                ask(client, &request.with_validate_only(validate_only), version)
            }
            AdminCall::AssignedTopic { version, name, partitions, replication, assignments, validate_only } => {
                let assignments = assignments.iter().map(|one| {
                    create_topics_request::CreatableReplicaAssignment::default()
                        .with_partition_index(one.partition)
                        .with_broker_ids(brokers(&one.replicas))
                });
                let topic = create_topics_request::CreatableTopic::default()
                    .with_name(topic_name(&name))
                    .with_num_partitions(partitions)
                    .with_replication_factor(replication)
                    .with_assignments(assignments.collect());
                let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
                ask(client, &request.with_validate_only(validate_only), version)
            }
            AdminCall::DeleteTopicsById { version, ids } => {
                let topics = ids.iter().map(|id| {
                    delete_topics_request::DeleteTopicState::default()
                        .with_name(None)
                        .with_topic_id(id.parse().expect("a topic id is a uuid"))
                });
                ask(
                    client,
                    &DeleteTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(10_000),
                    version,
                )
            }
            AdminCall::DescribeTopicPartitions { version, topics, limit, cursor } => {
                let topics = topics
                    .iter()
                    .map(|name| describe_topic_partitions_request::TopicRequest::default().with_name(topic_name(name)));
                let cursor = cursor.map(|(topic, partition)| {
                    describe_topic_partitions_request::Cursor::default()
                        .with_topic_name(topic_name(&topic))
                        .with_partition_index(partition)
                });
                let request = DescribeTopicPartitionsRequest::default()
                    .with_topics(topics.collect())
                    .with_response_partition_limit(limit)
                    .with_cursor(cursor);
                ask(client, &request, version)
            }
            _ => unreachable!("not about topics"),
        }
    }

    fn fetch(self, client: &mut Client) -> Result<Value, String> {
        let AdminCall::FetchInSession { version, session_id, epoch, partitions, forgotten } = self else {
            unreachable!("not a fetch")
        };
        let mut topics: Vec<fetch_request::FetchTopic> = Vec::new();
        for (topic, index, offset) in &partitions {
            let wanted = fetch_request::FetchPartition::default()
                .with_partition(*index)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(1 << 20);
            match topics.last_mut().filter(|last| last.topic == topic_name(topic)) {
                Some(last) => last.partitions.push(wanted),
                None => topics.push(
                    fetch_request::FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![wanted]),
                ),
            }
        }
        let forgotten = forgotten.iter().map(|(topic, index)| {
            let topic = fetch_request::ForgottenTopic::default().with_topic(topic_name(topic));
            topic.with_partitions(vec![*index])
        });
        let request = FetchRequest::default()
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_id(session_id)
            .with_session_epoch(epoch)
            .with_topics(topics)
            .with_forgotten_topics_data(forgotten.collect());
        let answer = client.call(&request, version)?;
        let in_session = answer.session_id != 0;
        Ok(json!({ "in_session": in_session, "fetched": fetched(answer, false)? }))
    }

    fn replicas(self, client: &mut Client) -> Result<Value, String> {
        match self {
            AdminCall::AlterPartitionReassignments { version, topic, partition, replicas } => {
                let partition = alter_partition_reassignments_request::ReassignablePartition::default()
                    .with_partition_index(partition)
                    .with_replicas(replicas.as_deref().map(brokers));
                let topic = alter_partition_reassignments_request::ReassignableTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(vec![partition]);
                let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
                ask(client, &request.with_timeout_ms(10_000), version)
            }
            AdminCall::AlterReplicaLogDirs { version, path, topic, partition } => {
                let topic = alter_replica_log_dirs_request::AlterReplicaLogDirTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(vec![partition]);
                let dir = alter_replica_log_dirs_request::AlterReplicaLogDir::default()
                    .with_path(text(&path))
                    .with_topics(vec![topic]);
                ask(client, &AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]), version)
            }
            AdminCall::DescribeClusterAs { version, endpoint_type } => {
                ask(client, &DescribeClusterRequest::default().with_endpoint_type(endpoint_type), version)
            }
            AdminCall::DescribeQuorum { version, topic, partitions } => {
                let partitions = partitions
                    .iter()
                    .map(|index| describe_quorum_request::PartitionData::default().with_partition_index(*index));
                let topic = describe_quorum_request::TopicData::default()
                    .with_topic_name(topic_name(&topic))
                    .with_partitions(partitions.collect());
                ask(client, &DescribeQuorumRequest::default().with_topics(vec![topic]), version)
            }
            AdminCall::ElectLeaders { version, election_type, topic, partitions } => {
                let topics = topic.map(|topic| {
                    let one = elect_leaders_request::TopicPartitions::default().with_topic(topic_name(&topic));
                    vec![one.with_partitions(partitions)]
                });
                let mut request = ElectLeadersRequest::default().with_topic_partitions(topics).with_timeout_ms(10_000);
                if version >= 1 {
                    request.election_type = election_type;
                }
                ask(client, &request, version)
            }
            AdminCall::ListPartitionReassignments { version, topic, partitions } => {
                let topics = topic.map(|topic| {
                    let one = list_partition_reassignments_request::ListPartitionReassignmentsTopics::default();
                    vec![one.with_name(topic_name(&topic)).with_partition_indexes(partitions)]
                });
                ask(client, &ListPartitionReassignmentsRequest::default().with_topics(topics), version)
            }
            _ => unreachable!("not about replicas"),
        }
    }
}
