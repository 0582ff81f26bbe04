//! Settings of the broker, with their defaults. Names, units and limits as Kafka has them where Kafka has them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::security::{ListenerProtocol, SecurityConfig, TlsConfig};

/// When a write is answered with `acks=all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the write-ahead log reached the device: nothing acknowledged is lost when the power goes.
    Fsync,
    /// After the operating system took it, as Kafka does: nothing acknowledged is lost when the process dies.
    Os,
}

/// One address that Kafka clients connect to.
#[derive(Clone, Debug, Default)]
pub struct ListenerConfig {
    /// For people and for logs.
    pub name: String,
    /// `HOST:PORT` to listen on; port 0 takes a free one.
    pub bind: String,
    /// `HOST:PORT` that clients are told; the bound address when absent.
    pub advertise: Option<String>,
    /// How it speaks and who may come in.
    pub protocol: ListenerProtocol,
    /// Certificates, for the protocols with TLS.
    pub tls: Option<TlsConfig>,
}

/// Which groups change their protocol while they work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// None.
    Disabled,
    /// Classic groups, when a member of the consumer protocol joins.
    Upgrade,
    /// Groups of the consumer protocol, when only classic members are left.
    Downgrade,
    /// Both.
    Bidirectional,
}

impl MigrationPolicy {
    /// Kafka's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Upgrade => "upgrade",
            Self::Downgrade => "downgrade",
            Self::Bidirectional => "bidirectional",
        }
    }

    /// The policy of this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Disabled, Self::Upgrade, Self::Downgrade, Self::Bidirectional];
        all.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// Whether classic groups become groups of the consumer protocol.
    pub fn upgrades(self) -> bool {
        matches!(self, Self::Upgrade | Self::Bidirectional)
    }

    /// Whether groups of the consumer protocol become classic groups.
    pub fn downgrades(self) -> bool {
        matches!(self, Self::Downgrade | Self::Bidirectional)
    }
}

/// Settings of groups of the consumer protocol (KIP-848); in Kafka `group.consumer.*`.
#[derive(Clone, Debug)]
pub struct GroupConsumerConfig {
    /// How long a member may be silent.
    pub session_timeout_ms: i32,
    /// Least value that a group may set instead.
    pub session_timeout_min_ms: i32,
    /// Largest value that a group may set instead.
    pub session_timeout_max_ms: i32,
    /// How often members send heartbeats.
    pub heartbeat_interval_ms: i32,
    /// Least value that a group may set instead.
    pub heartbeat_interval_min_ms: i32,
    /// Largest value that a group may set instead.
    pub heartbeat_interval_max_ms: i32,
    /// Least time between two assignments of one group. Kafka's default is a second, because its assignors may be slow.
    pub assignment_interval_ms: i32,
    /// Most members of one group.
    pub members_max: usize,
    /// Which groups change their protocol.
    pub migration: MigrationPolicy,
    /// How often regular expressions are looked up although no topic was made or deleted.
    pub regex_refresh_ms: i64,
}

impl Default for GroupConsumerConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            session_timeout_min_ms: 45_000,
            session_timeout_max_ms: 60_000,
            heartbeat_interval_ms: 5_000,
            heartbeat_interval_min_ms: 5_000,
            heartbeat_interval_max_ms: 15_000,
            assignment_interval_ms: 0,
            members_max: 10_000,
            migration: MigrationPolicy::Bidirectional,
            regex_refresh_ms: 600_000,
        }
    }
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
    /// Bytes of batches in one bucket of the log, which leaves the disk whole when no partition needs any of it. The disk takes up to twice what
    /// the log holds, and three buckets.
    pub bucket_bytes: u64,
    /// Memory for blocks read from files.
    pub block_cache_bytes: usize,
    /// Bytes of the disk below which records of clients are refused until there is room; without it 1 GiB, or a twentieth of
    /// the disk where that is less.
    pub disk_reserve_bytes: Option<u64>,
    /// How often retention looks at every partition.
    pub retention_check_ms: u64,
    /// How often compaction looks at every partition.
    pub compaction_check_ms: u64,
    /// Keys that a pass of compaction holds in memory, of 25 to 50 bytes each; a log with more takes several passes.
    pub compaction_keys_max: usize,
    /// Bytes that compaction reads and writes in a second.
    pub compaction_bytes_per_second: u64,
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
    /// Groups of the consumer protocol.
    pub group_consumer: GroupConsumerConfig,
    /// How long an empty group's offsets are kept.
    pub offsets_retention_ms: i64,
    /// Who may come in and what they may do.
    pub security: SecurityConfig,
    /// What was given under Kafka's names; [`BrokerConfig::set`] adds to it and fills the fields above.
    pub kafka: BTreeMap<String, String>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("millpond-data"),
            listeners: vec![ListenerConfig {
                name: "PLAINTEXT".into(),
                bind: "127.0.0.1:9092".into(),
                ..ListenerConfig::default()
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
            bucket_bytes: 1 << 30,
            block_cache_bytes: 32 << 20,
            disk_reserve_bytes: None,
            retention_check_ms: 300_000,
            compaction_check_ms: 15_000,
            compaction_keys_max: 900_000,
            compaction_bytes_per_second: 64 << 20,
            transaction_max_timeout_ms: 900_000,
            transactional_id_expiration_ms: 7 * 86_400_000,
            group_initial_rebalance_delay_ms: 3_000,
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_max_size: 10_000,
            group_consumer: GroupConsumerConfig::default(),
            offsets_retention_ms: 7 * 86_400_000,
            security: SecurityConfig::default(),
            kafka: BTreeMap::new(),
        }
    }
}
