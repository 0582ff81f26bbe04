//! DescribeQuorum (55) 0 to 2: what Kafka's tools and kafka-ui ask a controller.
//!
//! - There is no metadata log and no election; this broker is its own controller. It says so in the one shape that Java
//!   takes: topic `__cluster_metadata`, partition 0, itself as leader and only voter. Anything else that is asked for is
//!   UNKNOWN_TOPIC_OR_PARTITION, as in Kafka.
//! - Positions are the numbers of commits to the store, which is where topics and settings live.

use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Reply, text};
use crate::error::Kind;
use crate::security::acl::{Operation, Resource};

const METADATA_TOPIC: &str = "__cluster_metadata";
/// There has been one election.
const EPOCH: i32 = 1;

/// Answers DescribeQuorum.
pub(crate) fn describe_quorum(context: &Context, version: i16, request: DescribeQuorumRequest) -> Reply {
    let mut response = DescribeQuorumResponse::default();
    if let Err(denied) = context.authorize(Operation::Describe, Resource::Cluster) {
        response = response.with_error_code(denied.kind.code()).with_error_message(Some(text(&denied.message)));
        return Reply::message(version, &response);
    }
    let is_one = |topics: &[_]| topics.len() == 1;
    let known = is_one(&request.topics)
        && request.topics[0].topic_name.as_str() == METADATA_TOPIC
        && request.topics[0].partitions.len() == 1
        && request.topics[0].partitions[0].partition_index == 0;
    if !known {
        return Reply::message(version, &response.with_topics(unknown(request)));
    }
    let node = BrokerId(context.broker.config().node_id);
    let end = context.broker.commits();
    let mut own = ReplicaState::default().with_replica_id(node).with_log_end_offset(end);
    if version >= 1 {
        let now = context.broker.clock().now_ms();
        own = own.with_last_fetch_timestamp(now).with_last_caught_up_timestamp(now);
    }
    let partition = PartitionData::default()
        .with_leader_id(node)
        .with_leader_epoch(EPOCH)
        .with_high_watermark(end)
        .with_current_voters(vec![own]);
    response = response.with_topics(vec![metadata_topic(vec![partition])]);
    if version >= 2 {
        let listener = Listener::default()
            // Java takes no other
            .with_name(text(&context.listener.name.to_uppercase()))
            .with_host(text(&context.listener.host))
            .with_port(context.listener.port);
        response = response.with_nodes(vec![Node::default().with_node_id(node).with_listeners(vec![listener])]);
    }
    Reply::message(version, &response)
}

fn metadata_topic(partitions: Vec<PartitionData>) -> TopicData {
    let name = TopicName(StrBytes::from_static_str(METADATA_TOPIC));
    TopicData::default().with_topic_name(name).with_partitions(partitions)
}

/// Every partition that was asked for, as unknown.
fn unknown(request: DescribeQuorumRequest) -> Vec<TopicData> {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            PartitionData::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(Kind::UnknownTopicOrPartition.code())
                .with_error_message(Some(text(UNKNOWN)))
        });
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    });
    topics.collect()
}

const UNKNOWN: &str = "the one partition of the metadata is __cluster_metadata-0; ask for it alone";
