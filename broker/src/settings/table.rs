//! Every setting of the broker under Kafka's name: ONE table with type, default, range, when it can change and meaning.
//!
//! It checks `[kafka]` of the configuration and what IncrementalAlterConfigs brings, answers DescribeConfigs and writes the
//! manual. Defaults and ranges are Kafka 4.3's; where one differs, its doc says why. The settings that hold topics' defaults are
//! not repeated here: they are the rows of `topic_config::SETTINGS` under their `broker_name`. To add a setting: one row.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{Row, When};
use crate::topic_config::{Allowed, SETTINGS, SettingType};

const INT_MAX: i64 = i32::MAX as i64;
const NEVER: &str = "9223372036854775807";
/// The default of a setting that has none.
const NONE: &str = "\0";

const fn row(
    name: &'static str,
    (kind, default): (SettingType, &'static str),
    allowed: Allowed,
    when: When,
    doc: &'static str,
) -> Row {
    let has_default = default.is_empty() || default.as_bytes()[0] != 0;
    Row { name, kind, default: if has_default { Some(default) } else { None }, allowed, when, doc }
}

use Allowed::{AnyList, AnyOf, AnyText, Bool, Number, OneOf, PerHost, Whole};
use SettingType::{Boolean, Double, Int, List, Long, Short, String as Text};
use When::{AtStart, ForAll, Own};

const POSITIVE: Allowed = Whole(1, INT_MAX);
const FROM_ZERO: Allowed = Whole(0, INT_MAX);
const POSITIVE_LONG: Allowed = Whole(1, i64::MAX);
const FROM_ZERO_LONG: Allowed = Whole(0, i64::MAX);

#[rustfmt::skip]
static ROWS: &[Row] = &[
    row("advertised.listeners", (List, NONE), AnyList, Own,
        "Where clients of this listener are told to connect; it is broker.advertise of the configuration."),
    row("allow.everyone.if.no.acl.found", (Boolean, "false"), Bool, AtStart,
        "Whether everybody may do what no ACL speaks of, where an authorizer is configured."),
    row("auto.create.topics.enable", (Boolean, "true"), Bool, AtStart,
        "Whether asking for an unknown topic creates it."),
    row("auto.leader.rebalance.enable", (Boolean, "true"), Bool, AtStart,
        "Accepted. Has no effect: this broker leads everything."),
    row("background.threads", (Int, "10"), POSITIVE, ForAll,
        "Accepted and kept. Has no effect: tasks share the runtime's threads."),
    row("broker.id", (Int, "-1"), Whole(-1, INT_MAX), Own,
        "Number of this broker; it is broker.node_id of the configuration."),
    row("broker.rack", (Text, NONE), AnyText, AtStart,
        "The place of this broker, as Metadata gives it to clients."),
    row("connection.failed.authentication.delay.ms", (Int, "100"), FROM_ZERO, AtStart,
        "How long a connection whose authentication failed stays open before it is closed, in milliseconds."),
    row("connections.max.idle.ms", (Long, "600000"), Whole(i64::MIN, i64::MAX), AtStart,
        "After how many milliseconds without a request a connection is closed; negative: never."),
    row("connections.max.reauth.ms", (Long, "0"), Whole(i64::MIN, i64::MAX), AtStart,
        "After how many milliseconds a client that signed in must do so again; 0: never."),
    row("controlled.shutdown.enable", (Boolean, "true"), Bool, AtStart,
        "Accepted. Has no effect: a stop is always orderly."),
    row("controller.listener.names", (List, NONE), AnyList, Own,
        "Empty: the broker is its own controller."),
    row("default.replication.factor", (Int, "1"), Whole(1, 32_767), AtStart,
        "Replicas of a topic that is created without a factor; with more than the one broker there is, creating fails."),
    row("delete.topic.enable", (Boolean, "true"), Bool, AtStart,
        "Whether topics can be deleted."),
    row("fetch.max.bytes", (Int, "57671680"), Whole(1024, INT_MAX), AtStart,
        "Most bytes of records in one answer to a fetch, whatever the client asks."),
    row("group.consumer.assignment.interval.ms", (Int, "0"), FROM_ZERO, ForAll,
        "Least time between two assignments of a consumer group, in milliseconds. Kafka's default is 1000, as its assignors may be slow."),
    row("group.consumer.assignors", (List, "uniform,range"), AnyOf(&["uniform", "range"]), AtStart,
        "The assignors of consumer groups; the first is the default."),
    row("group.consumer.heartbeat.interval.ms", (Int, "5000"), POSITIVE, AtStart,
        "Heartbeat interval of a consumer group that does not set its own, in milliseconds."),
    row("group.consumer.max.assignment.interval.ms", (Int, "15000"), FROM_ZERO, AtStart,
        "Largest assignment interval that a group may set, in milliseconds."),
    row("group.consumer.max.heartbeat.interval.ms", (Int, "15000"), POSITIVE, AtStart,
        "Largest heartbeat interval that a consumer group may set, in milliseconds."),
    row("group.consumer.max.session.timeout.ms", (Int, "60000"), POSITIVE, AtStart,
        "Largest session timeout that a consumer group may set, in milliseconds."),
    row("group.consumer.max.size", (Int, "10000"), POSITIVE, AtStart,
        "Most members of one consumer group. Kafka sets no bound; here everything has one."),
    row("group.consumer.migration.policy", (Text, "bidirectional"), OneOf(&["bidirectional", "upgrade", "downgrade", "disabled"]), AtStart,
        "Whether a group may change from the classic protocol to the consumer protocol and back."),
    row("group.consumer.min.assignment.interval.ms", (Int, "0"), FROM_ZERO, AtStart,
        "Least assignment interval that a group may set, in milliseconds."),
    row("group.consumer.min.heartbeat.interval.ms", (Int, "5000"), POSITIVE, AtStart,
        "Least heartbeat interval that a consumer group may set, in milliseconds."),
    row("group.consumer.min.session.timeout.ms", (Int, "45000"), POSITIVE, AtStart,
        "Least session timeout that a consumer group may set, in milliseconds."),
    row("group.consumer.session.timeout.ms", (Int, "45000"), POSITIVE, AtStart,
        "Session timeout of a consumer group that does not set its own, in milliseconds."),
    row("group.coordinator.append.linger.ms", (Int, "-1"), Whole(-1, INT_MAX), AtStart,
        "Accepted. Has no effect: the commit lane groups what comes together."),
    row("group.coordinator.cached.buffer.max.bytes", (Int, "1048588"), Whole(524_288, INT_MAX), ForAll,
        "Accepted and kept. Has no effect: a commit needs no buffer of its own."),
    row("group.coordinator.rebalance.protocols", (List, "classic,consumer"), AnyList, Own,
        "Kinds of groups that this broker serves."),
    row("group.coordinator.threads", (Int, "4"), POSITIVE, AtStart,
        "Accepted. Has no effect: groups share the runtime's threads."),
    row("group.initial.rebalance.delay.ms", (Int, "3000"), FROM_ZERO, AtStart,
        "How long a new group waits for more members before its first assignment, in milliseconds."),
    row("group.max.session.timeout.ms", (Int, "1800000"), POSITIVE, AtStart,
        "Largest session timeout that a member of a classic group may ask for, in milliseconds."),
    row("group.max.size", (Int, "10000"), POSITIVE, AtStart,
        "Most members of one classic group. Kafka sets no bound; here everything has one."),
    row("group.min.session.timeout.ms", (Int, "6000"), POSITIVE, AtStart,
        "Least session timeout that a member of a classic group may ask for, in milliseconds."),
    row("inter.broker.protocol.version", (Text, "4.0-IV3"), AnyText, Own,
        "Version of Kafka that the broker looks like: consoles from before KIP-584 take it from here."),
    row("listeners", (List, "PLAINTEXT://:9092"), AnyList, Own,
        "Where the broker listens; it is broker.kafka and broker.listeners of the configuration."),
    row("log.cleaner.backoff.ms", (Long, "15000"), FROM_ZERO_LONG, ForAll,
        "How long compaction waits before it looks for work again, in milliseconds."),
    row("log.cleaner.dedupe.buffer.size", (Long, "134217728"), POSITIVE_LONG, ForAll,
        "Accepted and kept. Has no effect: compaction's memory has a bound of its own."),
    row("log.cleaner.enable", (Boolean, "true"), Bool, AtStart,
        "Accepted. Has no effect: a topic is compacted when its cleanup.policy says so."),
    row("log.cleaner.io.buffer.load.factor", (Double, "0.9"), Number, ForAll,
        "Accepted and kept. Has no effect: compaction's memory has a bound of its own."),
    row("log.cleaner.io.buffer.size", (Int, "524288"), FROM_ZERO, ForAll,
        "Accepted and kept. Has no effect: compaction's memory has a bound of its own."),
    row("log.cleaner.io.max.bytes.per.second", (Double, "67108864"), Number, ForAll,
        "How much compaction reads and writes in a second, in bytes."),
    row("log.cleaner.threads", (Int, "1"), FROM_ZERO, ForAll,
        "Accepted and kept. Has no effect: one task compacts."),
    row("log.dir", (List, "/tmp/kafka-logs"), AnyList, Own,
        "The data directory; it is broker.data_dir of the configuration."),
    row("log.dirs", (List, NONE), AnyList, Own,
        "The data directory; it is broker.data_dir of the configuration."),
    row("log.flush.scheduler.interval.ms", (Long, NEVER), FROM_ZERO_LONG, AtStart,
        "Accepted. Has no effect: broker.durability decides when data is synced."),
    row("log.retention.check.interval.ms", (Long, "300000"), POSITIVE_LONG, AtStart,
        "How often retention looks at every partition, in milliseconds."),
    row("log.retention.hours", (Int, "168"), Whole(-1, INT_MAX), AtStart,
        "For how many hours records are kept where log.retention.ms and log.retention.minutes say nothing; -1 for ever."),
    row("log.retention.minutes", (Int, NONE), Whole(-1, INT_MAX), AtStart,
        "For how many minutes records are kept where log.retention.ms says nothing; -1 for ever."),
    row("log.roll.hours", (Int, "168"), POSITIVE, AtStart,
        "After how many hours a part of the log is sealed where log.roll.ms says nothing."),
    row("log.roll.jitter.hours", (Int, "0"), FROM_ZERO, AtStart,
        "By how many hours at most that is shortened at random where log.roll.jitter.ms says nothing."),
    row("max.connection.creation.rate", (Int, "2147483647"), FROM_ZERO, ForAll,
        "Most connections that are taken up in one second; further ones wait."),
    row("max.connections", (Int, "2147483647"), FROM_ZERO, ForAll,
        "Most connections at one time; further ones are closed at once. broker.connections_max bounds them as well."),
    row("max.connections.per.ip", (Int, "2147483647"), FROM_ZERO, ForAll,
        "Most connections of one address at one time; further ones are closed at once."),
    row("max.connections.per.ip.overrides", (Text, ""), PerHost, ForAll,
        "Other bounds for single addresses, as address:count separated by commas."),
    row("max.incremental.fetch.session.cache.slots", (Int, "1000"), FROM_ZERO, AtStart,
        "Most fetch sessions that are kept."),
    row("max.request.partition.size.limit", (Int, "2000"), POSITIVE, AtStart,
        "Most partitions on one page of DescribeTopicPartitions."),
    row("node.id", (Int, NONE), FROM_ZERO, Own,
        "Number of this broker; it is broker.node_id of the configuration."),
    row("num.io.threads", (Int, "8"), POSITIVE, ForAll,
        "Accepted and kept. Has no effect: requests share the runtime's threads."),
    row("num.network.threads", (Int, "3"), POSITIVE, ForAll,
        "Accepted and kept. Has no effect: connections share the runtime's threads."),
    row("num.partitions", (Int, "1"), Whole(1, 10_000), AtStart,
        "Partitions of a topic that is created without a count."),
    row("num.recovery.threads.per.data.dir", (Int, "2"), POSITIVE, ForAll,
        "Accepted and kept. Has no effect: positions are recovered from the index."),
    row("num.replica.fetchers", (Int, "1"), POSITIVE, ForAll,
        "Accepted and kept. Has no effect on a single broker, which replicates nothing."),
    row("offset.metadata.max.bytes", (Int, "4096"), FROM_ZERO, Own,
        "Largest note that may go with a committed offset, in bytes."),
    row("offsets.retention.check.interval.ms", (Long, "600000"), POSITIVE_LONG, AtStart,
        "Accepted. Has no effect: offsets that are due go with the group's next look at its timers."),
    row("offsets.retention.minutes", (Int, "10080"), POSITIVE, AtStart,
        "For how many minutes the offsets of a group without members are kept."),
    row("offsets.topic.num.partitions", (Int, "50"), POSITIVE, AtStart,
        "Accepted. Has no effect: groups are not kept in a topic."),
    row("offsets.topic.replication.factor", (Short, "3"), Whole(1, 32_767), AtStart,
        "Accepted. Has no effect: groups are not kept in a topic."),
    row("process.roles", (List, NONE), AnyList, Own,
        "The broker is its own controller."),
    row("producer.id.expiration.ms", (Int, "86400000"), POSITIVE, ForAll,
        "For how many milliseconds the sequence of an idempotent producer that went silent is kept."),
    row("queued.max.request.bytes", (Long, "-1"), Whole(i64::MIN, i64::MAX), Own,
        "Memory for requests being served over all connections, in bytes; it is broker.inflight_bytes_max of the configuration."),
    row("replica.lag.time.max.ms", (Long, "30000"), POSITIVE_LONG, AtStart,
        "Accepted. Has no effect on a single broker, which replicates nothing."),
    row("socket.request.max.bytes", (Int, "104857600"), Whole(1024, 1 << 30), AtStart,
        "Largest request, in bytes; a larger one ends its connection."),
    row("super.users", (Text, ""), AnyText, AtStart,
        "Principals that may do everything, as User:name separated by semicolons, where an authorizer is configured."),
    row("transaction.abort.timed.out.transaction.cleanup.interval.ms", (Int, "10000"), POSITIVE, AtStart,
        "How often transactions that took too long are looked for, in milliseconds."),
    row("transaction.max.timeout.ms", (Int, "900000"), POSITIVE, AtStart,
        "Longest timeout that a transactional producer may ask for, in milliseconds."),
    row("transaction.partition.verification.enable", (Boolean, "true"), Bool, ForAll,
        "Accepted and kept. Has no effect: a produce request is always checked against the transaction."),
    row("transaction.remove.expired.transaction.cleanup.interval.ms", (Int, "3600000"), POSITIVE, AtStart,
        "How often transactional ids that expired are looked for, in milliseconds."),
    row("transaction.state.log.min.isr", (Int, "2"), POSITIVE, AtStart,
        "Accepted. Has no effect: transactions are not kept in a topic."),
    row("transaction.state.log.num.partitions", (Int, "50"), POSITIVE, AtStart,
        "Accepted. Has no effect: transactions are not kept in a topic."),
    row("transaction.state.log.replication.factor", (Short, "3"), Whole(1, 32_767), AtStart,
        "Accepted. Has no effect: transactions are not kept in a topic."),
    row("transactional.id.expiration.ms", (Int, "604800000"), POSITIVE, AtStart,
        "For how many milliseconds a transactional id that went silent is kept."),
];

/// Settings that show only where they are set: what moves between brokers may be throttled by them.
#[rustfmt::skip]
static HIDDEN: &[Row] = &[
    row("follower.replication.throttled.rate", (Long, NONE), FROM_ZERO_LONG, ForAll,
        "Accepted and kept. Has no effect on a single broker, which replicates nothing."),
    row("leader.replication.throttled.rate", (Long, NONE), FROM_ZERO_LONG, ForAll,
        "Accepted and kept. Has no effect on a single broker, which replicates nothing."),
    row("replica.alter.log.dirs.io.max.bytes.per.second", (Long, NONE), FROM_ZERO_LONG, ForAll,
        "Accepted and kept. Has no effect: there is one log directory."),
];

/// Settings that say the same in coarser units: the first that has a value holds. Beside each name its unit in milliseconds.
pub(super) static FAMILIES: &[&[(&str, i64)]] = &[
    &[("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)],
    &[("log.roll.ms", 1), ("log.roll.hours", 3_600_000)],
    &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3_600_000)],
    &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)],
];

/// Pairs of which the first must not be larger than the second.
pub(super) static ORDERED: &[(&str, &str)] = &[
    ("group.min.session.timeout.ms", "group.max.session.timeout.ms"),
    ("group.consumer.min.session.timeout.ms", "group.consumer.session.timeout.ms"),
    ("group.consumer.session.timeout.ms", "group.consumer.max.session.timeout.ms"),
    ("group.consumer.min.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
    ("group.consumer.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms"),
    ("group.consumer.min.assignment.interval.ms", "group.consumer.assignment.interval.ms"),
    ("group.consumer.assignment.interval.ms", "group.consumer.max.assignment.interval.ms"),
    ("log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
];

static ALL: LazyLock<BTreeMap<&'static str, Row>> = LazyLock::new(|| {
    let for_topics = SETTINGS.iter().filter_map(|topic| {
        let name = topic.broker_name?;
        // in these Kafka has no default, the coarser setting has
        let coarser = FAMILIES.iter().any(|family| family[0].0 == name);
        let default = (!coarser).then_some(topic.default);
        Some(Row { name, kind: topic.kind, default, allowed: topic.allowed, when: ForAll, doc: topic.doc })
    });
    ROWS.iter().cloned().chain(for_topics).map(|row| (row.name, row)).collect()
});

/// Every setting that DescribeConfigs shows, by name.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    ALL.values()
}

/// The row of a setting, shown always or only where it is set.
pub fn row_of(name: &str) -> Option<&'static Row> {
    ALL.get(name).or_else(|| HIDDEN.iter().find(|row| row.name == name))
}

/// The family of a setting, alone if it has none: names and units, the finest first.
pub(super) fn family_of(name: &'static str) -> Vec<(&'static str, i64)> {
    let family = FAMILIES.iter().find(|family| family.iter().any(|(member, _)| *member == name));
    family.map_or_else(|| vec![(name, 1)], |family| family.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_its_defaults_pass() {
        for table in [ROWS, HIDDEN] {
            assert!(table.windows(2).all(|pair| pair[0].name < pair[1].name));
        }
        assert_eq!(ALL.len(), ROWS.len() + SETTINGS.iter().filter(|row| row.broker_name.is_some()).count());
        for row in rows().chain(HIDDEN) {
            if let Some(default) = row.default {
                row.check(default).unwrap();
            }
            assert!(row.doc.ends_with('.'), "{}", row.name);
        }
        let names = FAMILIES.iter().copied().flatten().map(|(name, _)| *name);
        let pairs = ORDERED.iter().flat_map(|(less, more)| [*less, *more]);
        names.chain(pairs).for_each(|name| assert!(row_of(name).is_some(), "{name}"));
    }
}
