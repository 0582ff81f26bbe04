//! The shapes of the requests of administrators, as data for `shapes.rs`; `shapes_table.rs` has the others.

use kafka_protocol::messages::ApiKey;

use super::shapes::{Field, Shape};

const BOOL: Field = Field::fixed(1);
const INT8: Field = Field::fixed(1);
const INT32: Field = Field::fixed(4);
const INT64: Field = Field::fixed(8);
const TEXT: Field = Field::text();
const BLOB: Field = Field::blob();
const INT32_LIST: Field = Field::fixed_list(4);

const fn list(fields: &'static [Field]) -> Field {
    Field::list(fields)
}

const fn shaped(flexible_from: i16, fields: &'static [Field]) -> Shape {
    Shape { flexible_from, fields }
}

/// The shape of the requests of `key`, if it is one of these.
pub(super) fn shape(key: ApiKey) -> Option<&'static Shape> {
    Some(match key {
        ApiKey::AlterReplicaLogDirs => &ALTER_REPLICA_LOG_DIRS,
        ApiKey::CreateDelegationToken => &CREATE_DELEGATION_TOKEN,
        ApiKey::RenewDelegationToken => &RENEW_DELEGATION_TOKEN,
        ApiKey::ExpireDelegationToken => &EXPIRE_DELEGATION_TOKEN,
        ApiKey::DescribeDelegationToken => &DESCRIBE_DELEGATION_TOKEN,
        ApiKey::ElectLeaders => &ELECT_LEADERS,
        ApiKey::AlterPartitionReassignments => &ALTER_PARTITION_REASSIGNMENTS,
        ApiKey::ListPartitionReassignments => &LIST_PARTITION_REASSIGNMENTS,
        ApiKey::DescribeQuorum => &DESCRIBE_QUORUM,
        ApiKey::ListConfigResources => &LIST_CONFIG_RESOURCES,
        ApiKey::DescribeTopicPartitions => &DESCRIBE_TOPIC_PARTITIONS,
        _ => return None,
    })
}

static ALTER_REPLICA_LOG_DIRS: Shape = shaped(
    2,
    &[list(&[
        TEXT,                      // path
        list(&[TEXT, INT32_LIST]), // topics: name, partitions
    ])],
);

static CREATE_DELEGATION_TOKEN: Shape = shaped(
    2,
    &[
        TEXT.since(3),       // owner_principal_type
        TEXT.since(3),       // owner_principal_name
        list(&[TEXT, TEXT]), // renewers: principal_type, principal_name
        INT64,               // max_lifetime_ms
    ],
);

static RENEW_DELEGATION_TOKEN: Shape = shaped(2, &[BLOB, INT64]); // hmac, renew_period_ms

static EXPIRE_DELEGATION_TOKEN: Shape = shaped(2, &[BLOB, INT64]); // hmac, expiry_time_period_ms

static DESCRIBE_DELEGATION_TOKEN: Shape = shaped(2, &[list(&[TEXT, TEXT])]); // owners: principal_type, principal_name

static ELECT_LEADERS: Shape = shaped(
    2,
    &[
        INT8.since(1),             // election_type
        list(&[TEXT, INT32_LIST]), // topic_partitions: topic, partitions
        INT32,                     // timeout_ms
    ],
);

static ALTER_PARTITION_REASSIGNMENTS: Shape = shaped(
    0,
    &[
        INT32,         // timeout_ms
        BOOL.since(1), // allow_replication_factor_change
        list(&[
            TEXT,                       // name
            list(&[INT32, INT32_LIST]), // partitions: partition_index, replicas
        ]),
    ],
);

static LIST_PARTITION_REASSIGNMENTS: Shape = shaped(
    0,
    &[
        INT32,                     // timeout_ms
        list(&[TEXT, INT32_LIST]), // topics: name, partition_indexes
    ],
);

static DESCRIBE_QUORUM: Shape = shaped(
    0,
    &[list(&[
        TEXT,           // topic_name
        list(&[INT32]), // partitions: partition_index
    ])],
);

static LIST_CONFIG_RESOURCES: Shape = shaped(
    0,
    &[Field::fixed_list(1).since(1)], // resource_types
);

static DESCRIBE_TOPIC_PARTITIONS: Shape = shaped(
    0,
    &[
        list(&[TEXT]), // topics: name
        INT32,         // response_partition_limit
        Field::nullable(&[
            TEXT,  // topic_name
            INT32, // partition_index
        ]), // cursor
    ],
);
