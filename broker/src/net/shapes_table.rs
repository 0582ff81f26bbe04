//! The shapes of all requests that `handlers::APIS` lists, as data for `shapes.rs`.
//!
//! Field for field the request schemas of Apache Kafka 4.1. A test encodes a sample of every request in every
//! version with the kafka-protocol crate and walks it, so a slip here cannot stay unseen.

use kafka_protocol::messages::ApiKey;

use super::shapes::{Field, Shape};
use super::shapes_admin;
use super::shapes_txn;

pub(super) const BOOL: Field = Field::fixed(1);
pub(super) const INT8: Field = Field::fixed(1);
pub(super) const INT16: Field = Field::fixed(2);
pub(super) const INT32: Field = Field::fixed(4);
pub(super) const INT64: Field = Field::fixed(8);
const UUID: Field = Field::fixed(16);
pub(super) const TEXT: Field = Field::text();
const BLOB: Field = Field::blob();
pub(super) const INT32_LIST: Field = Field::fixed_list(4);
pub(super) const TEXT_LIST: Field = Field::text_list();

pub(super) const fn list(fields: &'static [Field]) -> Field {
    Field::list(fields)
}

pub(super) const fn shaped(flexible_from: i16, fields: &'static [Field]) -> Shape {
    Shape { flexible_from, fields }
}

/// The shape of the requests of `key`, if it is served.
pub(super) fn shape(key: i16) -> Option<&'static Shape> {
    Some(match ApiKey::try_from(key).ok()? {
        ApiKey::Produce => &PRODUCE,
        ApiKey::Fetch => &FETCH,
        ApiKey::ListOffsets => &LIST_OFFSETS,
        ApiKey::Metadata => &METADATA,
        ApiKey::OffsetCommit => &OFFSET_COMMIT,
        ApiKey::OffsetFetch => &OFFSET_FETCH,
        ApiKey::FindCoordinator => &FIND_COORDINATOR,
        ApiKey::JoinGroup => &JOIN_GROUP,
        ApiKey::Heartbeat => &HEARTBEAT,
        ApiKey::LeaveGroup => &LEAVE_GROUP,
        ApiKey::SyncGroup => &SYNC_GROUP,
        ApiKey::DescribeGroups => &DESCRIBE_GROUPS,
        ApiKey::ListGroups => &LIST_GROUPS,
        ApiKey::SaslHandshake => &SASL_HANDSHAKE,
        ApiKey::SaslAuthenticate => &SASL_AUTHENTICATE,
        ApiKey::ApiVersions => &API_VERSIONS,
        ApiKey::CreateTopics => &CREATE_TOPICS,
        ApiKey::DeleteTopics => &DELETE_TOPICS,
        ApiKey::DeleteRecords => &DELETE_RECORDS,
        ApiKey::InitProducerId => &INIT_PRODUCER_ID,
        ApiKey::AddPartitionsToTxn => &shapes_txn::ADD_PARTITIONS_TO_TXN,
        ApiKey::AddOffsetsToTxn => &shapes_txn::ADD_OFFSETS_TO_TXN,
        ApiKey::EndTxn => &shapes_txn::END_TXN,
        ApiKey::WriteTxnMarkers => &shapes_txn::WRITE_TXN_MARKERS,
        ApiKey::TxnOffsetCommit => &shapes_txn::TXN_OFFSET_COMMIT,
        ApiKey::UpdateFeatures => &shapes_txn::UPDATE_FEATURES,
        ApiKey::DescribeProducers => &shapes_txn::DESCRIBE_PRODUCERS,
        ApiKey::DescribeTransactions => &shapes_txn::DESCRIBE_TRANSACTIONS,
        ApiKey::ListTransactions => &shapes_txn::LIST_TRANSACTIONS,
        ApiKey::OffsetForLeaderEpoch => &OFFSET_FOR_LEADER_EPOCH,
        ApiKey::DescribeAcls => &DESCRIBE_ACLS,
        ApiKey::CreateAcls => &CREATE_ACLS,
        ApiKey::DeleteAcls => &DELETE_ACLS,
        ApiKey::DescribeClientQuotas => &DESCRIBE_CLIENT_QUOTAS,
        ApiKey::AlterClientQuotas => &ALTER_CLIENT_QUOTAS,
        ApiKey::DescribeUserScramCredentials => &DESCRIBE_USER_SCRAM_CREDENTIALS,
        ApiKey::AlterUserScramCredentials => &ALTER_USER_SCRAM_CREDENTIALS,
        ApiKey::DescribeConfigs => &DESCRIBE_CONFIGS,
        ApiKey::AlterConfigs => &ALTER_CONFIGS,
        ApiKey::DescribeLogDirs => &DESCRIBE_LOG_DIRS,
        ApiKey::CreatePartitions => &CREATE_PARTITIONS,
        ApiKey::DeleteGroups => &DELETE_GROUPS,
        ApiKey::IncrementalAlterConfigs => &INCREMENTAL_ALTER_CONFIGS,
        ApiKey::OffsetDelete => &OFFSET_DELETE,
        ApiKey::DescribeCluster => &DESCRIBE_CLUSTER,
        ApiKey::ConsumerGroupHeartbeat => &CONSUMER_GROUP_HEARTBEAT,
        ApiKey::ConsumerGroupDescribe => &CONSUMER_GROUP_DESCRIBE,
        other => return shapes_admin::shape(other),
    })
}

static PRODUCE: Shape = shaped(
    9,
    &[
        TEXT,  // transactional_id
        INT16, // acks
        INT32, // timeout_ms
        list(&[
            TEXT.until(12),       // name
            UUID.since(13),       // topic_id
            list(&[INT32, BLOB]), // index, records
        ]),
    ],
);

static FETCH: Shape = shaped(
    12,
    &[
        INT32.until(14), // replica_id
        INT32,           // max_wait_ms
        INT32,           // min_bytes
        INT32,           // max_bytes
        INT8,            // isolation_level
        INT32.since(7),  // session_id
        INT32.since(7),  // session_epoch
        list(&[
            TEXT.until(12), // topic
            UUID.since(13), // topic_id
            list(&[
                INT32,                     // partition
                INT32.since(9),            // current_leader_epoch
                INT64,                     // fetch_offset
                INT32.since(12),           // last_fetched_epoch
                INT64.since(5),            // log_start_offset
                INT32,                     // partition_max_bytes
                UUID.since(17).tagged(0),  // replica_directory_id
                INT64.since(18).tagged(1), // high_watermark
            ]),
        ]),
        list(&[
            TEXT.until(12), // topic
            UUID.since(13), // topic_id
            INT32_LIST,     // partitions
        ])
        .since(7), // forgotten_topics_data
        TEXT.since(11),           // rack_id
        TEXT.since(12).tagged(0), // cluster_id
        Field::structure(&[
            INT32, // replica_id
            INT64, // replica_epoch
        ])
        .since(15)
        .tagged(1), // replica_state
    ],
);

static LIST_OFFSETS: Shape = shaped(
    6,
    &[
        INT32,         // replica_id
        INT8.since(2), // isolation_level
        list(&[
            TEXT, // name
            list(&[
                INT32,          // partition_index
                INT32.since(4), // current_leader_epoch
                INT64,          // timestamp
            ]),
        ]),
        INT32.since(10), // timeout_ms
    ],
);

static METADATA: Shape = shaped(
    9,
    &[
        list(&[
            UUID.since(10), // topic_id
            TEXT,           // name
        ]),
        BOOL.since(4),           // allow_auto_topic_creation
        BOOL.since(8).until(10), // include_cluster_authorized_operations
        BOOL.since(8),           // include_topic_authorized_operations
    ],
);

static OFFSET_COMMIT: Shape = shaped(
    8,
    &[
        TEXT,                    // group_id
        INT32,                   // generation_id_or_member_epoch
        TEXT,                    // member_id
        TEXT.since(7),           // group_instance_id
        INT64.since(2).until(4), // retention_time_ms
        list(&[
            TEXT, // name
            list(&[
                INT32,          // partition_index
                INT64,          // committed_offset
                INT32.since(6), // committed_leader_epoch
                TEXT,           // committed_metadata
            ]),
        ]),
    ],
);

static OFFSET_FETCH: Shape = shaped(
    6,
    &[
        TEXT.until(7),                      // group_id
        list(&[TEXT, INT32_LIST]).until(7), // topics: name, partition_indexes
        list(&[
            TEXT,                      // group_id
            TEXT.since(9),             // member_id
            INT32.since(9),            // member_epoch
            list(&[TEXT, INT32_LIST]), // topics: name, partition_indexes
        ])
        .since(8), // groups
        BOOL.since(7),                      // require_stable
    ],
);

static FIND_COORDINATOR: Shape = shaped(
    3,
    &[
        TEXT.until(3),      // key
        INT8.since(1),      // key_type
        TEXT_LIST.since(4), // coordinator_keys
    ],
);

static JOIN_GROUP: Shape = shaped(
    6,
    &[
        TEXT,                // group_id
        INT32,               // session_timeout_ms
        INT32.since(1),      // rebalance_timeout_ms
        TEXT,                // member_id
        TEXT.since(5),       // group_instance_id
        TEXT,                // protocol_type
        list(&[TEXT, BLOB]), // protocols: name, metadata
        TEXT.since(8),       // reason
    ],
);

static HEARTBEAT: Shape = shaped(
    4,
    &[
        TEXT,          // group_id
        INT32,         // generation_id
        TEXT,          // member_id
        TEXT.since(3), // group_instance_id
    ],
);

static LEAVE_GROUP: Shape = shaped(
    4,
    &[
        TEXT,          // group_id
        TEXT.until(2), // member_id
        list(&[
            TEXT,          // member_id
            TEXT,          // group_instance_id
            TEXT.since(5), // reason
        ])
        .since(3), // members
    ],
);

static SYNC_GROUP: Shape = shaped(
    4,
    &[
        TEXT,                // group_id
        INT32,               // generation_id
        TEXT,                // member_id
        TEXT.since(3),       // group_instance_id
        TEXT.since(5),       // protocol_type
        TEXT.since(5),       // protocol_name
        list(&[TEXT, BLOB]), // assignments: member_id, assignment
    ],
);

static DESCRIBE_GROUPS: Shape = shaped(
    5,
    &[
        TEXT_LIST,     // groups
        BOOL.since(3), // include_authorized_operations
    ],
);

static LIST_GROUPS: Shape = shaped(
    3,
    &[
        TEXT_LIST.since(4), // states_filter
        TEXT_LIST.since(5), // types_filter
    ],
);

static SASL_HANDSHAKE: Shape = shaped(i16::MAX, &[TEXT]); // mechanism

static SASL_AUTHENTICATE: Shape = shaped(2, &[BLOB]); // auth_bytes

/// Type, name, pattern type, principal, host, operation and permission: of a filter or of a rule.
const ACL: &[Field] = &[INT8, TEXT, INT8, TEXT, TEXT, INT8, INT8];

static DESCRIBE_ACLS: Shape = shaped(2, ACL);

static CREATE_ACLS: Shape = shaped(2, &[list(ACL)]); // creations

static DELETE_ACLS: Shape = shaped(2, &[list(ACL)]); // filters

static DESCRIBE_CLIENT_QUOTAS: Shape = shaped(
    1,
    &[
        list(&[TEXT, INT8, TEXT]), // components: entity_type, match_type, match
        BOOL,                      // strict
    ],
);

static ALTER_CLIENT_QUOTAS: Shape = shaped(
    1,
    &[
        list(&[
            list(&[TEXT, TEXT]),        // entity: entity_type, entity_name
            list(&[TEXT, INT64, BOOL]), // ops: key, value, remove
        ]),
        BOOL, // validate_only
    ],
);

static DESCRIBE_USER_SCRAM_CREDENTIALS: Shape = shaped(0, &[list(&[TEXT])]); // users: name

static ALTER_USER_SCRAM_CREDENTIALS: Shape = shaped(
    0,
    &[
        list(&[TEXT, INT8]),                    // deletions: name, mechanism
        list(&[TEXT, INT8, INT32, BLOB, BLOB]), // upsertions: name, mechanism, iterations, salt, salted_password
    ],
);

static API_VERSIONS: Shape = shaped(
    3,
    &[
        TEXT.since(3), // client_software_name
        TEXT.since(3), // client_software_version
    ],
);

static CREATE_TOPICS: Shape = shaped(
    5,
    &[
        list(&[
            TEXT,                       // name
            INT32,                      // num_partitions
            INT16,                      // replication_factor
            list(&[INT32, INT32_LIST]), // assignments: partition_index, broker_ids
            list(&[TEXT, TEXT]),        // configs: name, value
        ]),
        INT32, // timeout_ms
        BOOL,  // validate_only
    ],
);

static DELETE_TOPICS: Shape = shaped(
    4,
    &[
        list(&[TEXT, UUID]).since(6), // topics: name, topic_id
        TEXT_LIST.until(5),           // topic_names
        INT32,                        // timeout_ms
    ],
);

static DELETE_RECORDS: Shape = shaped(
    2,
    &[
        list(&[
            TEXT,                  // name
            list(&[INT32, INT64]), // partitions: partition_index, offset
        ]),
        INT32, // timeout_ms
    ],
);

static INIT_PRODUCER_ID: Shape = shaped(
    2,
    &[
        TEXT,           // transactional_id
        INT32,          // transaction_timeout_ms
        INT64.since(3), // producer_id
        INT16.since(3), // producer_epoch
    ],
);

static OFFSET_FOR_LEADER_EPOCH: Shape = shaped(
    4,
    &[
        INT32.since(3), // replica_id
        list(&[
            TEXT,                         // topic
            list(&[INT32, INT32, INT32]), // partitions: partition, current_leader_epoch, leader_epoch
        ]),
    ],
);

static DESCRIBE_CONFIGS: Shape = shaped(
    4,
    &[
        list(&[INT8, TEXT, TEXT_LIST]), // resources: type, name, configuration_keys
        BOOL,                           // include_synonyms
        BOOL.since(3),                  // include_documentation
    ],
);

static ALTER_CONFIGS: Shape = shaped(
    2,
    &[
        list(&[
            INT8,                // resource_type
            TEXT,                // resource_name
            list(&[TEXT, TEXT]), // configs: name, value
        ]),
        BOOL, // validate_only
    ],
);

static DESCRIBE_LOG_DIRS: Shape = shaped(
    2,
    &[list(&[TEXT, INT32_LIST])], // topics: topic, partitions
);

static CREATE_PARTITIONS: Shape = shaped(
    2,
    &[
        list(&[
            TEXT,                // name
            INT32,               // count
            list(&[INT32_LIST]), // assignments: broker_ids
        ]),
        INT32, // timeout_ms
        BOOL,  // validate_only
    ],
);

static DELETE_GROUPS: Shape = shaped(2, &[TEXT_LIST]); // groups_names

static INCREMENTAL_ALTER_CONFIGS: Shape = shaped(
    1,
    &[
        list(&[
            INT8,                      // resource_type
            TEXT,                      // resource_name
            list(&[TEXT, INT8, TEXT]), // configs: name, config_operation, value
        ]),
        BOOL, // validate_only
    ],
);

static OFFSET_DELETE: Shape = shaped(
    i16::MAX,
    &[
        TEXT, // group_id
        list(&[
            TEXT,           // name
            list(&[INT32]), // partitions: partition_index
        ]),
    ],
);

static DESCRIBE_CLUSTER: Shape = shaped(
    0,
    &[
        BOOL,          // include_cluster_authorized_operations
        INT8.since(1), // endpoint_type
        BOOL.since(2), // include_fenced_brokers
    ],
);

static CONSUMER_GROUP_HEARTBEAT: Shape = shaped(
    0,
    &[
        TEXT,          // group_id
        TEXT,          // member_id
        INT32,         // member_epoch
        TEXT,          // instance_id
        TEXT,          // rack_id
        INT32,         // rebalance_timeout_ms
        TEXT_LIST,     // subscribed_topic_names
        TEXT.since(1), // subscribed_topic_regex
        TEXT,          // server_assignor
        list(&[
            UUID,                 // topic_id
            Field::fixed_list(4), // partitions
        ]),
    ],
);

static CONSUMER_GROUP_DESCRIBE: Shape = shaped(
    0,
    &[
        TEXT_LIST, // group_ids
        BOOL,      // include_authorized_operations
    ],
);
