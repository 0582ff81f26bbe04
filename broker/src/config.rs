//! Settings of the broker, with their defaults. Names, units and limits as Kafka has them where Kafka has them.

use std::path::PathBuf;

/// When a write is answered with `acks=all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the write-ahead log reached the device: nothing acknowledged is lost when the power goes.
    Fsync,
    /// After the operating system took it, as Kafka does: nothing acknowledged is lost when the process dies.
    Os,
}

/// One address that Kafka clients connect to.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// For people and for logs.
    pub name: String,
    /// `HOST:PORT` to listen on; port 0 takes a free one.
    pub bind: String,
    /// `HOST:PORT` that clients are told; the bound address when absent.
    pub advertise: Option<String>,
}

/// Settings of the broker.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Where the store lives; created when absent.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub listeners: Vec<ListenerConfig>,
    /// What `acks=all` promises.
    pub durability: Durability,
    /// This broker's number in Metadata.
    pub node_id: i32,
    /// Whether Metadata for an unknown topic creates it.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without a count.
    pub num_partitions: i32,
    /// Whether a replication factor above the number of brokers, 1, is taken as 1 instead of being refused.
    pub clamp_replication: bool,
    /// Partitions of all topics together.
    pub partitions_max: usize,
    /// Largest request.
    pub frame_bytes_max: usize,
    /// Requests held in memory, over all connections.
    pub inflight_bytes_max: usize,
    /// Connections at one time.
    pub connections_max: usize,
    /// Newest batches kept in memory, over all partitions.
    pub tail_cache_bytes: usize,
    /// Memory for writes that are not yet in a file, over all families.
    pub write_buffer_bytes: usize,
    /// Memory for blocks read from files.
    pub block_cache_bytes: usize,
    /// How often retention looks at every partition.
    pub retention_check_ms: u64,
    /// How long an idempotent producer's sequence state is kept after its last batch.
    pub producer_id_expiration_ms: i64,
    /// Longest time that a producer may ask for its transactions.
    pub transaction_max_timeout_ms: i32,
    /// How long a transactional id that nobody uses is kept.
    pub transactional_id_expiration_ms: i64,
    /// How long a new group waits for more members.
    pub group_initial_rebalance_delay_ms: u64,
    /// Least session timeout that a member may ask for.
    pub group_min_session_timeout_ms: i32,
    /// Largest session timeout that a member may ask for.
    pub group_max_session_timeout_ms: i32,
    /// Most members of one group.
    pub group_max_size: usize,
    /// How long an empty group's offsets are kept.
    pub offsets_retention_ms: i64,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("millpond-data"),
            listeners: vec![ListenerConfig {
                name: "PLAINTEXT".into(),
                bind: "127.0.0.1:9092".into(),
                advertise: None,
            }],
            durability: Durability::Fsync,
            node_id: 1,
            auto_create_topics: true,
            num_partitions: 1,
            clamp_replication: false,
            partitions_max: 10_000,
            frame_bytes_max: 100 << 20,
            inflight_bytes_max: 512 << 20,
            connections_max: 10_000,
            tail_cache_bytes: 64 << 20,
            write_buffer_bytes: 128 << 20,
            block_cache_bytes: 32 << 20,
            retention_check_ms: 300_000,
            producer_id_expiration_ms: 86_400_000,
            transaction_max_timeout_ms: 900_000,
            transactional_id_expiration_ms: 7 * 86_400_000,
            group_initial_rebalance_delay_ms: 3_000,
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_max_size: 10_000,
            offsets_retention_ms: 7 * 86_400_000,
        }
    }
}
