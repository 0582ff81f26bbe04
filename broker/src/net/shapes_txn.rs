//! The shapes of the requests of transactions and features, for `shapes_table.rs`.

use super::shapes::{Field, Shape};
use super::shapes_table::{BOOL, INT8, INT16, INT32, INT32_LIST, INT64, TEXT, TEXT_LIST, list, shaped};

pub(super) static ADD_PARTITIONS_TO_TXN: Shape = shaped(
    3,
    &[
        TEXT,                      // transactional_id
        INT64,                     // producer_id
        INT16,                     // producer_epoch
        list(&[TEXT, INT32_LIST]), // topics: name, partitions
    ],
);

pub(super) static ADD_OFFSETS_TO_TXN: Shape = shaped(
    3,
    &[
        TEXT,  // transactional_id
        INT64, // producer_id
        INT16, // producer_epoch
        TEXT,  // group_id
    ],
);

pub(super) static END_TXN: Shape = shaped(
    3,
    &[
        TEXT,  // transactional_id
        INT64, // producer_id
        INT16, // producer_epoch
        BOOL,  // committed
    ],
);

pub(super) static WRITE_TXN_MARKERS: Shape = shaped(
    1,
    &[list(&[
        INT64,                     // producer_id
        INT16,                     // producer_epoch
        BOOL,                      // transaction_result
        list(&[TEXT, INT32_LIST]), // topics: name, partition_indexes
        INT32,                     // coordinator_epoch
    ])],
);

pub(super) static TXN_OFFSET_COMMIT: Shape = shaped(
    3,
    &[
        TEXT,           // transactional_id
        TEXT,           // group_id
        INT64,          // producer_id
        INT16,          // producer_epoch
        INT32.since(3), // generation_id
        TEXT.since(3),  // member_id
        TEXT.since(3),  // group_instance_id
        list(&[
            TEXT, // name
            list(&[
                INT32,          // partition_index
                INT64,          // committed_offset
                INT32.since(2), // committed_leader_epoch
                TEXT,           // committed_metadata
            ]),
        ]),
    ],
);

pub(super) static UPDATE_FEATURES: Shape = shaped(
    0,
    &[
        INT32, // timeout_ms
        list(&[
            TEXT,          // feature
            INT16,         // max_version_level
            BOOL.until(0), // allow_downgrade
            INT8.since(1), // upgrade_type
        ]),
        BOOL.since(1), // validate_only
    ],
);

pub(super) static DESCRIBE_PRODUCERS: Shape = shaped(0, &[list(&[TEXT, INT32_LIST])]); // topics: name, partition_indexes

pub(super) static DESCRIBE_TRANSACTIONS: Shape = shaped(0, &[TEXT_LIST]); // transactional_ids

pub(super) static LIST_TRANSACTIONS: Shape = shaped(
    0,
    &[
        TEXT_LIST,            // state_filters
        Field::fixed_list(8), // producer_id_filters
        INT64.since(1),       // duration_filter
        TEXT.since(2),        // transactional_id_pattern
    ],
);
