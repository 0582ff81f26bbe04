//! The broker's settings under Kafka's names, for DescribeConfigs: what it was started with, and the defaults that topics
//! have. All of them are read-only while it runs.

use super::Listener;
use super::configs::{FROM_DEFAULT, FROM_START};
use crate::config::BrokerConfig;
use crate::group::offsets::METADATA_BYTES_MAX;
use crate::topic_config::{SETTINGS, SettingType};
use crate::{Broker, ListenerConfig};

/// One setting of the broker.
pub(super) struct BrokerSetting {
    /// Kafka's name.
    pub(super) name: String,
    /// Kafka's type.
    pub(super) kind: SettingType,
    /// Its value.
    pub(super) value: String,
    /// Where the value comes from, in DescribeConfigs' numbers.
    pub(super) source: i8,
    /// What it means here.
    pub(super) doc: &'static str,
}

/// `inter.broker.protocol.version`: consoles from before KIP-584 take the broker's version from it alone.
const PROTOCOL_VERSION: &str = "4.0-IV3";

/// A setting whose value follows from the configuration.
type FromConfig = (&'static str, SettingType, fn(&BrokerConfig) -> String, &'static str);

use SettingType::{Boolean, Int, List, Long, String as Text};

#[rustfmt::skip]
static FROM_CONFIG: &[FromConfig] = &[
    ("auto.create.topics.enable", Boolean, |c| c.auto_create_topics.to_string(), "Whether asking for an unknown topic creates it."),
    ("broker.id", Int, |c| c.node_id.to_string(), "Number of this broker."),
    ("group.initial.rebalance.delay.ms", Int, |c| c.group_initial_rebalance_delay_ms.to_string(), "How long a new group waits for more members, in milliseconds."),
    ("group.max.session.timeout.ms", Int, |c| c.group_max_session_timeout_ms.to_string(), "Largest session timeout that a member may ask for, in milliseconds."),
    ("group.max.size", Int, |c| c.group_max_size.to_string(), "Most members of one group."),
    ("group.min.session.timeout.ms", Int, |c| c.group_min_session_timeout_ms.to_string(), "Least session timeout that a member may ask for, in milliseconds."),
    ("listeners", List, |c| listeners(&c.listeners, |one| &one.bind), "Where the broker listens."),
    ("log.dir", Text, |c| c.data_dir.display().to_string(), "The data directory."),
    ("log.dirs", List, |c| c.data_dir.display().to_string(), "The data directory."),
    ("log.retention.check.interval.ms", Long, |c| c.retention_check_ms.to_string(), "How often retention looks at every partition, in milliseconds."),
    ("max.connections", Int, |c| c.connections_max.to_string(), "Most connections at one time."),
    ("node.id", Int, |c| c.node_id.to_string(), "Number of this broker."),
    ("num.partitions", Int, |c| c.num_partitions.to_string(), "Partitions of a topic that is created without a count."),
    ("offsets.retention.minutes", Int, |c| (c.offsets_retention_ms / 60_000).to_string(), "How long the offsets of an empty group are kept, in minutes."),
    ("producer.id.expiration.ms", Int, |c| c.producer_id_expiration_ms.to_string(), "How long an idle producer's sequence numbers are remembered, in milliseconds."),
    ("queued.max.request.bytes", Long, |c| c.inflight_bytes_max.to_string(), "Requests held in memory over all connections, in bytes."),
    ("transaction.max.timeout.ms", Int, |c| c.transaction_max_timeout_ms.to_string(), "Longest time that a producer may ask for its transactions, in milliseconds."),
    ("transactional.id.expiration.ms", Int, |c| c.transactional_id_expiration_ms.to_string(), "How long a transactional id that nobody uses is kept, in milliseconds."),
    ("socket.request.max.bytes", Int, |c| c.frame_bytes_max.to_string(), "Largest request, in bytes."),
];

/// Settings with one value only.
#[rustfmt::skip]
static FIXED: &[(&str, SettingType, &str, &str)] = &[
    ("controller.listener.names", List, "", "Empty: the broker is its own controller."),
    ("default.replication.factor", Int, "1", "There is one broker."),
    ("delete.topic.enable", Boolean, "true", "Topics can be deleted."),
    ("group.coordinator.rebalance.protocols", List, "classic,consumer", "Kinds of consumer groups."),
    ("inter.broker.protocol.version", Text, PROTOCOL_VERSION, "Version of Kafka that the broker looks like."),
    ("process.roles", List, "broker,controller", "The broker is its own controller."),
];

/// All settings of this broker, by name.
pub(super) fn broker_settings(broker: &Broker, listener: &Listener) -> Vec<BrokerSetting> {
    let (config, defaults) = (broker.config(), BrokerConfig::default());
    let configured = FROM_CONFIG.iter().map(|(name, kind, value, doc)| {
        let (value, default) = (value(config), value(&defaults));
        let source = if value == default { FROM_DEFAULT } else { FROM_START };
        setting(name, *kind, (value, source), doc)
    });
    let fixed = FIXED.iter().map(|(name, kind, value, doc)| setting(name, *kind, ((*value).into(), FROM_DEFAULT), doc));
    let for_topics = SETTINGS.iter().filter_map(|row| {
        let name = row.broker_name?;
        Some(setting(name, row.kind, (row.default.into(), FROM_DEFAULT), row.doc))
    });
    let mut all: Vec<BrokerSetting> = configured.chain(fixed).chain(for_topics).collect();
    let advertised = format!("{}://{}:{}", listener.name, listener.host, listener.port);
    let doc = "Where clients of this listener are told to connect.";
    all.push(setting("advertised.listeners", List, (advertised, FROM_START), doc));
    let note = METADATA_BYTES_MAX.to_string();
    let doc = "Largest note that may go with a committed offset, in bytes.";
    all.push(setting("offset.metadata.max.bytes", Int, (note, FROM_DEFAULT), doc));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn setting(name: &str, kind: SettingType, (value, source): (String, i8), doc: &'static str) -> BrokerSetting {
    BrokerSetting { name: name.into(), kind, value, source, doc }
}

fn listeners(all: &[ListenerConfig], address: impl Fn(&ListenerConfig) -> &String) -> String {
    let shown: Vec<String> = all.iter().map(|one| format!("{}://{}", one.name, address(one))).collect();
    shown.join(",")
}
