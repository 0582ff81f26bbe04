//! Samples of the requests of administrators, for the tests; `samples` has the others.

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::create_delegation_token_request::CreatableRenewers;
use kafka_protocol::messages::describe_delegation_token_request::DescribeDelegationTokenOwner;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::*;

use super::samples::{encoded, text, topic};

/// The body of a request of `key` in `version`.
pub(super) fn sample(key: ApiKey, v: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::AlterReplicaLogDirs => {
            let topic = AlterReplicaLogDirTopic::default().with_name(topic()).with_partitions(vec![0, 9]);
            let dir = AlterReplicaLogDir::default().with_path(text("/nowhere")).with_topics(vec![topic]);
            encoded(v, &AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]))
        }
        ApiKey::CreateDelegationToken => {
            let renewer = CreatableRenewers::default().with_principal_type(text("User"));
            let request = CreateDelegationTokenRequest::default()
                .with_renewers(vec![renewer.with_principal_name(text("bob"))])
                .with_max_lifetime_ms(1000);
            let owned = request.clone().with_owner_principal_type(Some(text("User")));
            encoded(v, &if v >= 3 { owned.with_owner_principal_name(Some(text("ann"))) } else { request })
        }
        ApiKey::RenewDelegationToken => {
            let request = RenewDelegationTokenRequest::default().with_hmac(Bytes::from_static(b"hmac"));
            encoded(v, &request.with_renew_period_ms(1000))
        }
        ApiKey::ExpireDelegationToken => {
            let request = ExpireDelegationTokenRequest::default().with_hmac(Bytes::from_static(b"hmac"));
            encoded(v, &request.with_expiry_time_period_ms(-1))
        }
        ApiKey::DescribeDelegationToken => {
            let owner = DescribeDelegationTokenOwner::default().with_principal_type(text("User"));
            let owners = vec![owner.with_principal_name(text("ann"))];
            encoded(v, &DescribeDelegationTokenRequest::default().with_owners(Some(owners)))
        }
        ApiKey::ElectLeaders => {
            let topic = TopicPartitions::default().with_topic(topic()).with_partitions(vec![0, 9]);
            let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic])).with_timeout_ms(1000);
            encoded(v, &request)
        }
        ApiKey::AlterPartitionReassignments => {
            let stay = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1)]));
            let cancel = ReassignablePartition::default().with_partition_index(1).with_replicas(None);
            let topic = ReassignableTopic::default().with_name(topic()).with_partitions(vec![stay, cancel]);
            let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000);
            encoded(v, &request.with_allow_replication_factor_change(v < 1))
        }
        ApiKey::ListPartitionReassignments => {
            let topic = ListPartitionReassignmentsTopics::default().with_name(topic()).with_partition_indexes(vec![0]);
            encoded(v, &ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic])))
        }
        ApiKey::DescribeQuorum => {
            let partition = describe_quorum_request::PartitionData::default();
            let topic = describe_quorum_request::TopicData::default()
                .with_topic_name(TopicName(text("__cluster_metadata")))
                .with_partitions(vec![partition]);
            encoded(v, &DescribeQuorumRequest::default().with_topics(vec![topic]))
        }
        ApiKey::ListConfigResources => {
            let types = if v >= 1 { vec![2, 4] } else { vec![] };
            encoded(v, &ListConfigResourcesRequest::default().with_resource_types(types))
        }
        ApiKey::DescribeTopicPartitions => {
            let cursor = Cursor::default().with_topic_name(topic()).with_partition_index(1);
            let request = DescribeTopicPartitionsRequest::default()
                .with_topics(vec![TopicRequest::default().with_name(topic())])
                .with_response_partition_limit(2000);
            encoded(v, &request.with_cursor(Some(cursor)))
        }
        _ => return None,
    })
}
