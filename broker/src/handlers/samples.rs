//! One request of every API in every version, for the tests: with something in every list and every field that the
//! version has, so that whatever reads them is tried on all of it.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_configs_request as alter;
use kafka_protocol::messages::consumer_group_heartbeat_request as heartbeat_request;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request as offset_delete;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::samples_admin;
use super::samples_txn;
use crate::types::TopicId;

/// The topic that the samples name; by its id where the version does that.
pub(crate) const TOPIC: &str = "sample";
/// The group that the samples name.
pub(crate) const GROUP: &str = "sample-group";

pub(super) fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

pub(super) fn group() -> GroupId {
    GroupId(text(GROUP))
}

pub(super) fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

pub(super) fn encoded<R: Encodable>(version: i16, request: &R) -> Bytes {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    body.freeze()
}

/// The body of a request of `key` in `version`, about the topic `id` where topics have ids, with `records` to produce.
pub(crate) fn sample(key: ApiKey, version: i16, id: TopicId, records: &Bytes) -> Bytes {
    let v = version;
    match key {
        ApiKey::Produce => encoded(v, &produce(v, id, records)),
        ApiKey::Fetch => encoded(v, &fetch(v, id)),
        ApiKey::ListOffsets => encoded(v, &list_offsets(v)),
        ApiKey::Metadata => encoded(v, &metadata(v, id)),
        ApiKey::OffsetCommit => encoded(v, &offset_commit(v)),
        ApiKey::OffsetFetch => encoded(v, &offset_fetch(v)),
        ApiKey::FindCoordinator => encoded(v, &find_coordinator(v)),
        ApiKey::JoinGroup => encoded(v, &join_group(v)),
        ApiKey::Heartbeat => encoded(v, &heartbeat(v)),
        ApiKey::LeaveGroup => encoded(v, &leave_group(v)),
        ApiKey::SyncGroup => encoded(v, &sync_group(v)),
        ApiKey::DescribeGroups => {
            let request = DescribeGroupsRequest::default().with_groups(vec![group(), GroupId(text("another"))]);
            encoded(v, &request.with_include_authorized_operations(v >= 3))
        }
        ApiKey::ListGroups => {
            let states = if v >= 4 { vec![text("Stable"), text("Empty")] } else { vec![] };
            let types = if v >= 5 { vec![text("classic")] } else { vec![] };
            encoded(v, &ListGroupsRequest::default().with_states_filter(states).with_types_filter(types))
        }
        ApiKey::ApiVersions => {
            let named = ApiVersionsRequest::default()
                .with_client_software_name(text("sample"))
                .with_client_software_version(text("1.0"));
            encoded(v, &if v >= 3 { named } else { ApiVersionsRequest::default() })
        }
        ApiKey::SaslHandshake => encoded(v, &SaslHandshakeRequest::default().with_mechanism(text("PLAIN"))),
        ApiKey::SaslAuthenticate => {
            encoded(v, &SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0ann\0secret")))
        }
        ApiKey::DeleteTopics => encoded(v, &delete_topics(v)),
        ApiKey::InitProducerId => {
            let request =
                InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
            encoded(v, &request)
        }
        ApiKey::OffsetForLeaderEpoch => encoded(v, &offset_for_leader_epoch(v)),
        ApiKey::DescribeCluster => {
            let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
            encoded(v, &request.with_endpoint_type(1))
        }
        _ => admin_sample(key, v),
    }
}

fn acl_sample(key: ApiKey, v: i16) -> Bytes {
    let (principal, host) = (text("User:ann"), text("*"));
    match key {
        ApiKey::DescribeAcls => {
            let named = DescribeAclsRequest::default().with_resource_type_filter(2).with_pattern_type_filter(3);
            let named = named.with_resource_name_filter(Some(text(TOPIC))).with_principal_filter(Some(principal));
            encoded(v, &named.with_host_filter(Some(host)).with_operation(3).with_permission_type(3))
        }
        ApiKey::CreateAcls => {
            let rule = create_acls_request::AclCreation::default().with_resource_type(2).with_resource_pattern_type(3);
            let rule = rule.with_resource_name(text(TOPIC)).with_principal(principal).with_host(host);
            let rule = rule.with_operation(3).with_permission_type(3);
            encoded(v, &CreateAclsRequest::default().with_creations(vec![rule]))
        }
        _ => {
            let filter = delete_acls_request::DeleteAclsFilter::default().with_resource_type_filter(2);
            let filter = filter.with_pattern_type_filter(3).with_resource_name_filter(Some(text(TOPIC)));
            let filter = filter.with_principal_filter(Some(principal)).with_host_filter(None);
            let filter = filter.with_operation(3).with_permission_type(3);
            encoded(v, &DeleteAclsRequest::default().with_filters(vec![filter]))
        }
    }
}

fn quota_sample(key: ApiKey, v: i16) -> Bytes {
    if key == ApiKey::DescribeClientQuotas {
        let component = describe_client_quotas_request::ComponentData::default().with_entity_type(text("user"));
        let component = component.with_match_type(0).with_match(Some(text("ann")));
        return encoded(v, &DescribeClientQuotasRequest::default().with_components(vec![component]).with_strict(true));
    }
    use alter_client_quotas_request::{EntityData, EntryData, OpData};
    let entity = EntityData::default().with_entity_type(text("user")).with_entity_name(Some(text("ann")));
    let limit = OpData::default().with_key(text("producer_byte_rate")).with_value(1e12);
    let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![limit]);
    encoded(v, &AlterClientQuotasRequest::default().with_entries(vec![entry]).with_validate_only(true))
}

fn user_sample(key: ApiKey, v: i16) -> Bytes {
    if key == ApiKey::DescribeUserScramCredentials {
        let user = describe_user_scram_credentials_request::UserName::default().with_name(text("ann"));
        return encoded(v, &DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user])));
    }
    use alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion};
    let gone = ScramCredentialDeletion::default().with_name(text("bob")).with_mechanism(1);
    let set = ScramCredentialUpsertion::default().with_name(text("ann")).with_mechanism(1).with_iterations(4096);
    let set = set.with_salt(Bytes::from_static(b"salt")).with_salted_password(Bytes::from_static(&[7; 32]));
    encoded(v, &AlterUserScramCredentialsRequest::default().with_deletions(vec![gone]).with_upsertions(vec![set]))
}

fn admin_sample(key: ApiKey, v: i16) -> Bytes {
    match key {
        ApiKey::DescribeAcls | ApiKey::CreateAcls | ApiKey::DeleteAcls => acl_sample(key, v),
        ApiKey::DescribeClientQuotas | ApiKey::AlterClientQuotas => quota_sample(key, v),
        ApiKey::DescribeUserScramCredentials | ApiKey::AlterUserScramCredentials => user_sample(key, v),
        ApiKey::CreateTopics => encoded(v, &create_topics()),
        ApiKey::DeleteRecords => {
            let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(-1);
            let topic = DeleteRecordsTopic::default().with_name(topic()).with_partitions(vec![partition]);
            encoded(v, &DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000))
        }
        ApiKey::DescribeConfigs => {
            let topic = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text(TOPIC));
            let broker = DescribeConfigsResource::default()
                .with_resource_type(4)
                .with_resource_name(text("1"))
                .with_configuration_keys(Some(vec![text("log.dirs"), text("num.partitions")]));
            let request =
                DescribeConfigsRequest::default().with_resources(vec![topic.with_configuration_keys(None), broker]);
            encoded(v, &request.with_include_synonyms(true).with_include_documentation(v >= 3))
        }
        ApiKey::AlterConfigs => {
            let config =
                alter::AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1000000")));
            let resource = alter::AlterConfigsResource::default().with_resource_type(2).with_resource_name(text(TOPIC));
            let request = AlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![config])]);
            encoded(v, &request.with_validate_only(true))
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = incremental::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("1000000")));
            let resource =
                incremental::AlterConfigsResource::default().with_resource_type(2).with_resource_name(text(TOPIC));
            let request =
                IncrementalAlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![config])]);
            encoded(v, &request.with_validate_only(true))
        }
        ApiKey::DescribeLogDirs => {
            let topic = DescribableLogDirTopic::default().with_topic(topic()).with_partitions(vec![0, 1]);
            encoded(v, &DescribeLogDirsRequest::default().with_topics(Some(vec![topic])))
        }
        ApiKey::CreatePartitions => {
            let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let topic = CreatePartitionsTopic::default().with_name(topic()).with_count(3);
            let topic = topic.with_assignments(Some(vec![assignment]));
            let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000);
            encoded(v, &request.with_validate_only(true))
        }
        ApiKey::DeleteGroups => {
            encoded(v, &DeleteGroupsRequest::default().with_groups_names(vec![group(), GroupId(text("another"))]))
        }
        ApiKey::OffsetDelete => {
            let partition = offset_delete::OffsetDeleteRequestPartition::default();
            let topic = offset_delete::OffsetDeleteRequestTopic::default().with_name(topic());
            let topics = vec![topic.with_partitions(vec![partition])];
            encoded(v, &OffsetDeleteRequest::default().with_group_id(group()).with_topics(topics))
        }
        ApiKey::ConsumerGroupHeartbeat => encoded(v, &consumer_group_heartbeat(v)),
        ApiKey::ConsumerGroupDescribe => {
            let groups = vec![group(), GroupId(text("another"))];
            let request = ConsumerGroupDescribeRequest::default().with_group_ids(groups);
            encoded(v, &request.with_include_authorized_operations(true))
        }
        other => samples_admin::sample(other, v).unwrap_or_else(|| samples_txn::sample(other, v)),
    }
}

fn consumer_group_heartbeat(v: i16) -> ConsumerGroupHeartbeatRequest {
    let owned = heartbeat_request::TopicPartitions::default().with_partitions(vec![0, 1]);
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text("member"))
        .with_member_epoch(3)
        .with_instance_id(Some(text("instance")))
        .with_rack_id(Some(text("rack")))
        .with_rebalance_timeout_ms(1000)
        .with_subscribed_topic_names(Some(vec![topic(), TopicName(text("another"))]))
        .with_server_assignor(Some(text("uniform")))
        .with_topic_partitions(Some(vec![owned]));
    if v >= 1 { request.with_subscribed_topic_regex(Some(text("samp.*"))) } else { request }
}

fn produce(v: i16, id: TopicId, records: &Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(records.clone()));
    let data = TopicProduceData::default().with_partition_data(vec![partition]);
    let data = if v >= 13 { data.with_topic_id(id) } else { data.with_name(topic()) };
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![data])
}

fn fetch(v: i16, id: TopicId) -> FetchRequest {
    let mut partition =
        FetchPartition::default().with_partition(0).with_fetch_offset(0).with_partition_max_bytes(1 << 20);
    if v >= 9 {
        partition = partition.with_current_leader_epoch(-1);
    }
    if v >= 17 {
        partition = partition.with_replica_directory_id(id);
    }
    let asked = FetchTopic::default().with_partitions(vec![partition]);
    let asked = if v >= 13 { asked.with_topic_id(id) } else { asked.with_topic(topic()) };
    let mut request = FetchRequest::default().with_max_wait_ms(10).with_min_bytes(1).with_topics(vec![asked]);
    if v >= 7 {
        let forgotten = ForgottenTopic::default().with_partitions(vec![3, 4]);
        let forgotten = if v >= 13 { forgotten.with_topic_id(id) } else { forgotten.with_topic(topic()) };
        request = request.with_forgotten_topics_data(vec![forgotten]);
    }
    if v >= 11 {
        request = request.with_rack_id(text("rack"));
    }
    if v >= 12 {
        request =
            request.with_cluster_id(Some(text("cluster"))).with_unknown_tagged_field(9, Bytes::from_static(b"tag"));
    }
    if v >= 15 {
        request = request.with_replica_state(ReplicaState::default().with_replica_epoch(5));
    }
    request
}

fn list_offsets(v: i16) -> ListOffsetsRequest {
    let partition = |timestamp| {
        let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(timestamp);
        if v >= 4 { partition.with_current_leader_epoch(-1) } else { partition }
    };
    let asked = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition(-1), partition(0)]);
    let request = ListOffsetsRequest::default().with_topics(vec![asked]);
    if v >= 2 { request.with_isolation_level(1) } else { request }
}

fn metadata(v: i16, id: TopicId) -> MetadataRequest {
    let mut topics = vec![MetadataRequestTopic::default().with_name(Some(topic()))];
    topics.push(MetadataRequestTopic::default().with_name(Some(TopicName(text("not there")))));
    if v >= 10 {
        topics.push(MetadataRequestTopic::default().with_name(None).with_topic_id(id));
        topics.push(MetadataRequestTopic::default().with_name(None).with_topic_id(TopicId::from_u128(77)));
    }
    let request = MetadataRequest::default().with_topics(Some(topics));
    let request =
        if (8..=10).contains(&v) { request.with_include_cluster_authorized_operations(true) } else { request };
    if v >= 8 { request.with_include_topic_authorized_operations(true) } else { request }
}

fn offset_commit(v: i16) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("note")));
    let partition = if v >= 6 { partition.with_committed_leader_epoch(0) } else { partition };
    let topic = OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default().with_group_id(group()).with_topics(vec![topic]);
    let request = request.with_generation_id_or_member_epoch(-1);
    if v >= 7 { request.with_group_instance_id(None) } else { request }
}

fn offset_fetch(v: i16) -> OffsetFetchRequest {
    let request = OffsetFetchRequest::default();
    let request = if v >= 7 { request.with_require_stable(true) } else { request };
    if v < 8 {
        let topic = OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![0, 1]);
        return request.with_group_id(group()).with_topics(Some(vec![topic]));
    }
    let asked = OffsetFetchRequestTopics::default().with_name(topic()).with_partition_indexes(vec![0, 1]);
    let one = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![asked]));
    let one = if v >= 9 { one.with_member_id(None).with_member_epoch(-1) } else { one };
    let all = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("another"))).with_topics(None);
    request.with_groups(vec![one, all])
}

fn find_coordinator(v: i16) -> FindCoordinatorRequest {
    let request = FindCoordinatorRequest::default();
    if v >= 4 { request.with_coordinator_keys(vec![text(GROUP), text("b")]) } else { request.with_key(text(GROUP)) }
}

fn join_group(v: i16) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"\0\x01"));
    // a group of its own: a second member would wait for the first to join again
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(format!("join-{v}"))))
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let request = if v >= 1 { request.with_rebalance_timeout_ms(10_000) } else { request };
    let request = if v >= 5 { request.with_group_instance_id(Some(text("instance"))) } else { request };
    if v >= 8 { request.with_reason(Some(text("for the test"))) } else { request }
}

fn heartbeat(v: i16) -> HeartbeatRequest {
    let request =
        HeartbeatRequest::default().with_group_id(group()).with_generation_id(1).with_member_id(text("nobody"));
    if v >= 3 { request.with_group_instance_id(Some(text("nothing"))) } else { request }
}

fn leave_group(v: i16) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(group());
    if v < 3 {
        return request.with_member_id(text("nobody"));
    }
    let member = MemberIdentity::default().with_member_id(text("nobody")).with_group_instance_id(None);
    let member = if v >= 5 { member.with_reason(Some(text("done"))) } else { member };
    request.with_members(vec![member])
}

fn sync_group(v: i16) -> SyncGroupRequest {
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text("nobody"))
        .with_assignment(Bytes::from_static(b"\0\x01"));
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(1)
        .with_member_id(text("nobody"))
        .with_assignments(vec![assignment]);
    let request = if v >= 3 { request.with_group_instance_id(None) } else { request };
    let protocol = |name| if v >= 5 { Some(text(name)) } else { None };
    request.with_protocol_type(protocol("consumer")).with_protocol_name(protocol("range"))
}

fn create_topics() -> CreateTopicsRequest {
    let plain = CreatableTopic::default()
        .with_name(TopicName(text("created")))
        .with_num_partitions(2)
        .with_replication_factor(1);
    let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1000000")));
    let assignment = CreatableReplicaAssignment::default().with_partition_index(0).with_broker_ids(vec![BrokerId(1)]);
    let assigned = CreatableTopic::default().with_name(TopicName(text("assigned"))).with_num_partitions(-1);
    let assigned = assigned.with_replication_factor(-1).with_assignments(vec![assignment]);
    CreateTopicsRequest::default()
        .with_topics(vec![plain.with_configs(vec![config]), assigned])
        .with_timeout_ms(1000)
        .with_validate_only(true)
}

fn delete_topics(v: i16) -> DeleteTopicsRequest {
    let request = DeleteTopicsRequest::default().with_timeout_ms(1000);
    let absent = TopicName(text("not-there"));
    if v < 6 {
        return request.with_topic_names(vec![absent]);
    }
    let by_name = DeleteTopicState::default().with_name(Some(absent));
    let by_id = DeleteTopicState::default().with_name(None).with_topic_id(TopicId::from_u128(77));
    request.with_topics(vec![by_name, by_id])
}

fn offset_for_leader_epoch(v: i16) -> OffsetForLeaderEpochRequest {
    let partition =
        OffsetForLeaderPartition::default().with_partition(0).with_current_leader_epoch(-1).with_leader_epoch(0);
    let topic = OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    if v >= 3 { request.with_replica_id(BrokerId(-1)) } else { request }
}

fn again<M: Decodable + Encodable>(version: i16, body: &mut Bytes) -> Result<Bytes, String> {
    let message = M::decode(body, version).map_err(|e| e.to_string())?;
    let mut out = BytesMut::new();
    message.encode(&mut out, version).map_err(|e| e.to_string())?;
    if body.is_empty() { Ok(out.freeze()) } else { Err(format!("{} bytes are left over", body.len())) }
}

macro_rules! messages {
    ($($key:ident $request:ident $response:ident,)*) => {
        /// Decodes a request with the crate, for its errors and what it costs.
        pub(crate) fn decode_request(key: ApiKey, version: i16, body: &mut Bytes) -> Result<(), String> {
            match key {
                $(ApiKey::$key => $request::decode(body, version).map(drop).map_err(|e| e.to_string()),)*
                other => panic!("{other:?} is not listed here"),
            }
        }

        /// Decodes a request with the crate and encodes it again; what is left of the body is an error.
        pub(crate) fn request_again(key: ApiKey, version: i16, body: &mut Bytes) -> Result<Bytes, String> {
            match key {
                $(ApiKey::$key => again::<$request>(version, body),)*
                other => panic!("{other:?} is not listed here"),
            }
        }

        /// The same for the body of a reply.
        pub(crate) fn response_again(key: ApiKey, version: i16, body: &mut Bytes) -> Result<Bytes, String> {
            match key {
                $(ApiKey::$key => again::<$response>(version, body),)*
                other => panic!("{other:?} is not listed here"),
            }
        }

        /// Decodes the body of a reply with the crate and shows it.
        pub(crate) fn decode_response(key: ApiKey, version: i16, body: &mut Bytes) -> Result<String, String> {
            match key {
                $(ApiKey::$key => $response::decode(body, version).map(|r| format!("{r:?}")).map_err(|e| e.to_string()),)*
                other => panic!("{other:?} is not listed here"),
            }
        }
    };
}

messages! {
    Produce ProduceRequest ProduceResponse,
    Fetch FetchRequest FetchResponse,
    ListOffsets ListOffsetsRequest ListOffsetsResponse,
    Metadata MetadataRequest MetadataResponse,
    OffsetCommit OffsetCommitRequest OffsetCommitResponse,
    OffsetFetch OffsetFetchRequest OffsetFetchResponse,
    FindCoordinator FindCoordinatorRequest FindCoordinatorResponse,
    JoinGroup JoinGroupRequest JoinGroupResponse,
    Heartbeat HeartbeatRequest HeartbeatResponse,
    LeaveGroup LeaveGroupRequest LeaveGroupResponse,
    SyncGroup SyncGroupRequest SyncGroupResponse,
    DescribeGroups DescribeGroupsRequest DescribeGroupsResponse,
    ListGroups ListGroupsRequest ListGroupsResponse,
    SaslHandshake SaslHandshakeRequest SaslHandshakeResponse,
    ApiVersions ApiVersionsRequest ApiVersionsResponse,
    CreateTopics CreateTopicsRequest CreateTopicsResponse,
    DeleteTopics DeleteTopicsRequest DeleteTopicsResponse,
    DeleteRecords DeleteRecordsRequest DeleteRecordsResponse,
    InitProducerId InitProducerIdRequest InitProducerIdResponse,
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
    DescribeAcls DescribeAclsRequest DescribeAclsResponse,
    CreateAcls CreateAclsRequest CreateAclsResponse,
    DeleteAcls DeleteAclsRequest DeleteAclsResponse,
    SaslAuthenticate SaslAuthenticateRequest SaslAuthenticateResponse,
    DescribeClientQuotas DescribeClientQuotasRequest DescribeClientQuotasResponse,
    AlterClientQuotas AlterClientQuotasRequest AlterClientQuotasResponse,
    DescribeUserScramCredentials DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse,
    AlterUserScramCredentials AlterUserScramCredentialsRequest AlterUserScramCredentialsResponse,
    CreateDelegationToken CreateDelegationTokenRequest CreateDelegationTokenResponse,
    RenewDelegationToken RenewDelegationTokenRequest RenewDelegationTokenResponse,
    ExpireDelegationToken ExpireDelegationTokenRequest ExpireDelegationTokenResponse,
    DescribeDelegationToken DescribeDelegationTokenRequest DescribeDelegationTokenResponse,
    DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse,
    AlterConfigs AlterConfigsRequest AlterConfigsResponse,
    DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse,
    CreatePartitions CreatePartitionsRequest CreatePartitionsResponse,
    DeleteGroups DeleteGroupsRequest DeleteGroupsResponse,
    IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
    OffsetDelete OffsetDeleteRequest OffsetDeleteResponse,
    DescribeCluster DescribeClusterRequest DescribeClusterResponse,
    AddPartitionsToTxn AddPartitionsToTxnRequest AddPartitionsToTxnResponse,
    AddOffsetsToTxn AddOffsetsToTxnRequest AddOffsetsToTxnResponse,
    EndTxn EndTxnRequest EndTxnResponse,
    WriteTxnMarkers WriteTxnMarkersRequest WriteTxnMarkersResponse,
    TxnOffsetCommit TxnOffsetCommitRequest TxnOffsetCommitResponse,
    UpdateFeatures UpdateFeaturesRequest UpdateFeaturesResponse,
    DescribeProducers DescribeProducersRequest DescribeProducersResponse,
    DescribeTransactions DescribeTransactionsRequest DescribeTransactionsResponse,
    ListTransactions ListTransactionsRequest ListTransactionsResponse,
    AlterReplicaLogDirs AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse,
    ElectLeaders ElectLeadersRequest ElectLeadersResponse,
    AlterPartitionReassignments AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse,
    ListPartitionReassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
    DescribeQuorum DescribeQuorumRequest DescribeQuorumResponse,
    ListConfigResources ListConfigResourcesRequest ListConfigResourcesResponse,
    DescribeTopicPartitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse,
    ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
    ConsumerGroupDescribe ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse,
}
