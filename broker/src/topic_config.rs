//! Topic settings: ONE table of all that Kafka 4.1 has, with type, default, range and meaning. It validates what
//! CreateTopics and AlterConfigs bring, answers DescribeConfigs, and gives [`TopicConfig`] its values.
//!
//! What has no effect here (throttling between replicas, index sizes, …) is still accepted and kept, because Streams,
//! Connect and the consoles send it; its doc says so. To add a setting: one row in [`SETTINGS`].
//! Settings of stored topics pass through the same rules at each start, so a rule may be widened, never narrowed.

mod tier;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::tier::Tier;
use crate::codec::Compression;
use crate::error::{Error, Kind, Result};
use crate::types::TimestampMs;

/// Type of a setting; the numbers are DescribeConfigs'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingType {
    /// `true` or `false`.
    Boolean = 1,
    /// One word.
    String = 2,
    /// A number of 32 bits.
    Int = 3,
    /// A number of 16 bits.
    Short = 4,
    /// A number of 64 bits.
    Long = 5,
    /// A decimal number.
    Double = 6,
    /// Words separated by commas.
    List = 7,
}

/// Which values a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Allowed {
    /// `true` or `false`.
    Bool,
    /// Whole numbers of this range.
    Whole(i64, i64),
    /// Whole numbers from 1 to 9, or -1: the levels of gzip.
    GzipLevel,
    /// Decimal numbers from 0 to 1.
    Fraction,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any of these words, or none.
    AnyOf(&'static [&'static str]),
    /// `*`, or `partition:broker` pairs.
    Replicas,
    /// Any decimal number.
    Number,
    /// `host:count` pairs.
    PerHost,
    /// Any text.
    AnyText,
    /// Any words, or none.
    AnyList,
}

/// One row of the table.
#[derive(Debug)]
pub struct Setting {
    /// Kafka's name.
    pub name: &'static str,
    /// Kafka's type.
    pub kind: SettingType,
    /// The value of a topic that does not set it.
    pub default: &'static str,
    /// The values it takes.
    pub allowed: Allowed,
    /// The broker setting that holds the default in Kafka, for the synonyms of DescribeConfigs.
    pub broker_name: Option<&'static str>,
    /// What it does here.
    pub doc: &'static str,
}

const INT_MAX: i64 = i32::MAX as i64;
const NEVER: &str = "9223372036854775807";

const fn row(
    name: &'static str,
    (kind, default): (SettingType, &'static str),
    allowed: Allowed,
    broker_name: &'static str,
    doc: &'static str,
) -> Setting {
    let broker_name = if broker_name.is_empty() { None } else { Some(broker_name) };
    Setting { name, kind, default, allowed, broker_name, doc }
}

use Allowed::{AnyOf, Bool, Fraction, GzipLevel, OneOf, Replicas, Whole};
use SettingType::{Boolean, Double, Int, List, Long, String as Text};

/// Every topic setting of Kafka 4.1, by name.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    row("cleanup.policy", (List, "delete"), AnyOf(&["compact", "delete"]), "log.cleanup.policy",
        "What happens to old records: 'delete' removes them by retention.ms and retention.bytes, 'compact' keeps the newest record of each key, both together do both."),
    row("compression.gzip.level", (Int, "-1"), GzipLevel, "compression.gzip.level",
        "Level of gzip where compression.type makes the broker compress; -1 is gzip's own default."),
    row("compression.lz4.level", (Int, "9"), Whole(1, 17), "compression.lz4.level",
        "Accepted and kept. Has no effect: the broker's lz4 has one level, the fast one."),
    row("compression.type", (Text, "producer"), OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "compression.type",
        "'producer' stores batches as the producer compressed them. Any other value has the broker compress batches that come otherwise."),
    row("compression.zstd.level", (Int, "3"), Whole(-131_072, 22), "compression.zstd.level",
        "Level of zstd where compression.type makes the broker compress."),
    row("delete.retention.ms", (Long, "86400000"), Whole(0, i64::MAX), "log.cleaner.delete.retention.ms",
        "How long, in milliseconds, the tombstones of a compacted topic stay readable."),
    row("file.delete.delay.ms", (Long, "60000"), Whole(0, i64::MAX), "log.segment.delete.delay.ms",
        "Accepted and kept. Has no effect: deleted ranges are dropped inside the store."),
    row("flush.messages", (Long, NEVER), Whole(1, i64::MAX), "log.flush.interval.messages",
        "Accepted and kept. Has no effect: the broker's durability decides when data is synced."),
    row("flush.ms", (Long, NEVER), Whole(0, i64::MAX), "log.flush.interval.ms",
        "Accepted and kept. Has no effect: the broker's durability decides when data is synced."),
    row("follower.replication.throttled.replicas", (List, ""), Replicas, "",
        "Accepted and kept. Has no effect on a single broker, which replicates nothing."),
    row("index.interval.bytes", (Int, "4096"), Whole(0, INT_MAX), "log.index.interval.bytes",
        "Accepted and kept. Has no effect: every batch is indexed."),
    row("leader.replication.throttled.replicas", (List, ""), Replicas, "",
        "Accepted and kept. Has no effect on a single broker, which replicates nothing."),
    row("local.retention.bytes", (Long, "-2"), Whole(-2, i64::MAX), "log.local.retention.bytes",
        "How many bytes of a partition the log itself keeps where remote.storage.enable is true and the lake has the rest; -2 as retention.bytes says."),
    row("local.retention.ms", (Long, "-2"), Whole(-2, i64::MAX), "log.local.retention.ms",
        "For how many milliseconds the log itself keeps records where remote.storage.enable is true and the lake has the rest; -2 as retention.ms says."),
    row("max.compaction.lag.ms", (Long, NEVER), Whole(1, i64::MAX), "log.cleaner.max.compaction.lag.ms",
        "After how many milliseconds at the latest a record becomes due for compaction."),
    row("max.message.bytes", (Int, "1048588"), Whole(0, INT_MAX), "message.max.bytes",
        "Largest record batch that a producer may write, in bytes as sent (compressed)."),
    row("message.timestamp.after.max.ms", (Long, "3600000"), Whole(0, i64::MAX), "log.message.timestamp.after.max.ms",
        "By how many milliseconds a record's timestamp may be ahead of the broker's clock (CreateTime only)."),
    row("message.timestamp.before.max.ms", (Long, NEVER), Whole(0, i64::MAX), "log.message.timestamp.before.max.ms",
        "By how many milliseconds a record's timestamp may be behind the broker's clock (CreateTime only)."),
    row("message.timestamp.type", (Text, "CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), "log.message.timestamp.type",
        "Whether records keep the producer's time or get the time of the append."),
    row("min.cleanable.dirty.ratio", (Double, "0.5"), Fraction, "log.cleaner.min.cleanable.ratio",
        "A compacted log is compacted again when more than this part of it is new."),
    row("min.compaction.lag.ms", (Long, "0"), Whole(0, i64::MAX), "log.cleaner.min.compaction.lag.ms",
        "For how many milliseconds a record is safe from compaction."),
    row("min.insync.replicas", (Int, "1"), Whole(1, INT_MAX), "min.insync.replicas",
        "How many replicas acks=all needs; never more than the topic has, as in Kafka, so one here. acks=all waits for the sync that the broker's durability asks for."),
    row("preallocate", (Boolean, "false"), Bool, "log.preallocate",
        "Accepted and kept. Has no effect: the store allocates its files itself."),
    row("remote.log.copy.disable", (Boolean, "false"), Bool, "",
        "Accepted and kept. Has no effect: the lake keeps whole records as lake.tables.raw says."),
    row("remote.log.delete.on.disable", (Boolean, "false"), Bool, "",
        "Must be true for remote.storage.enable to be set back to false: the lake's whole records of the topic are deleted then."),
    row("remote.storage.enable", (Boolean, "false"), Bool, "",
        "Whether consumers are served from the lake what the log let go; the lake must keep the topic's whole records (lake.tables.raw)."),
    row("retention.bytes", (Long, "-1"), Whole(i64::MIN, i64::MAX), "log.retention.bytes",
        "How many bytes a partition keeps before its oldest batches are deleted; a negative number sets no bound. Needs 'delete' in cleanup.policy."),
    row("retention.ms", (Long, "604800000"), Whole(-1, i64::MAX), "log.retention.ms",
        "For how many milliseconds records are kept; -1 keeps them for ever. Needs 'delete' in cleanup.policy."),
    row("segment.bytes", (Int, "1073741824"), Whole(1_048_576, INT_MAX), "log.segment.bytes",
        "After how many bytes a part of the log is sealed; compaction works on sealed parts."),
    row("segment.index.bytes", (Int, "10485760"), Whole(4, INT_MAX), "log.index.size.max.bytes",
        "Accepted and kept. Has no effect: the index is part of the store."),
    row("segment.jitter.ms", (Long, "0"), Whole(0, i64::MAX), "log.roll.jitter.ms",
        "By how many milliseconds at most segment.ms is shortened at random, so that not all partitions seal at once."),
    row("segment.ms", (Long, "604800000"), Whole(1, i64::MAX), "log.roll.ms",
        "After how many milliseconds, by its records' timestamps, a part of the log is sealed even if it is small; the next append seals it."),
    row("unclean.leader.election.enable", (Boolean, "false"), Bool, "unclean.leader.election.enable",
        "Accepted and kept. Has no effect on a single broker, which elects nobody."),
];

/// The row of a setting.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.binary_search_by(|row| row.name.cmp(name)).ok().map(|at| &SETTINGS[at])
}

impl Setting {
    /// Whether the setting takes `value`.
    ///
    /// # Errors
    /// `InvalidConfig`, with what it takes.
    pub fn check(&self, value: &str) -> Result<()> {
        self.allowed.check(("topic", self.name), value)
    }
}

impl Allowed {
    /// Whether a setting of this rule takes `value`; `of` and `name` say in the error whose setting it is.
    ///
    /// # Errors
    /// `InvalidConfig`, with what it takes.
    pub fn check(&self, (of, name): (&str, &str), value: &str) -> Result<()> {
        if self.takes(value) {
            return Ok(());
        }
        let message = format!("invalid value '{}' for {of} setting {name}: {}", shown(value), self.wanted());
        Err(Error::new(Kind::InvalidConfig, message))
    }

    fn takes(&self, value: &str) -> bool {
        match self {
            Bool => boolean(value).is_some(),
            Whole(least, most) => whole(value).is_some_and(|number| (*least..=*most).contains(&number)),
            GzipLevel => whole(value).is_some_and(|level| level == -1 || (1..=9).contains(&level)),
            Fraction => value.trim().parse::<f64>().is_ok_and(|number| (0.0..=1.0).contains(&number)),
            OneOf(words) => words.contains(&value.trim()),
            AnyOf(words) => items(value).all(|item| words.contains(&item)),
            Replicas => value.trim() == "*" || items(value).all(is_replica),
            Allowed::Number => value.trim().parse::<f64>().is_ok_and(f64::is_finite),
            Allowed::PerHost => items(value).all(is_per_host),
            Allowed::AnyText | Allowed::AnyList => true,
        }
    }

    /// What it takes, in words.
    pub fn words(&self) -> String {
        let wanted = self.wanted();
        wanted.strip_prefix("it must be ").map(str::to_owned).unwrap_or(wanted)
    }

    fn wanted(&self) -> String {
        match *self {
            Bool => "it must be true or false".into(),
            Whole(i64::MIN, i64::MAX) => "it must be a whole number".into(),
            Whole(least, i64::MAX) => format!("it must be a whole number, at least {least}"),
            Whole(least, most) => format!("it must be a whole number from {least} to {most}"),
            GzipLevel => "it must be a whole number from 1 to 9, or -1".into(),
            Fraction => "it must be a number from 0 to 1".into(),
            OneOf(words) => format!("it must be one of {}", words.join(", ")),
            AnyOf(words) => format!("it must be a list of {}", words.join(", ")),
            Replicas => "it must be * or a list of partition:broker pairs".into(),
            Allowed::Number => "it must be a number".into(),
            Allowed::PerHost => "it must be a list of host:count pairs".into(),
            Allowed::AnyText => "it must be a text".into(),
            Allowed::AnyList => "it must be a list".into(),
        }
    }
}

/// The values of settings that a topic does not set itself, where they differ from Kafka's: the broker's settings give them.
pub type TopicDefaults = Arc<BTreeMap<&'static str, String>>;

/// The settings of one topic. Holds: what differs from the defaults, as it was given, and the values that act.
/// It never changes: a change of settings makes a new one.
#[derive(Clone, Debug)]
pub struct TopicConfig {
    overrides: Arc<BTreeMap<String, String>>,
    defaults: TopicDefaults,
    deletes: bool,
    compacts: bool,
    log_append_time: bool,
    /// What batches are compressed with; none leaves them as they come.
    codec: Option<Compression>,
    gzip_level: i32,
    zstd_level: i32,
    max_message_bytes: usize,
    retention_ms: i64,
    retention_bytes: i64,
    segment_bytes: u64,
    segment_ms: i64,
    segment_jitter_ms: i64,
    delete_retention_ms: i64,
    min_compaction_lag_ms: i64,
    max_compaction_lag_ms: i64,
    min_cleanable_dirty_ratio: f64,
    timestamp_before_max_ms: i64,
    timestamp_after_max_ms: i64,
    tier: Tier,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::parse(&BTreeMap::new()).expect("a test checks that the defaults pass their own rules")
    }
}

impl TopicConfig {
    /// Settings from what differs from Kafka's defaults.
    ///
    /// # Errors
    /// `InvalidConfig`: an unknown name, a value that the setting does not take, or two that contradict each other.
    pub fn parse(overrides: &BTreeMap<String, String>) -> Result<Self> {
        Self::parse_over(overrides, &TopicDefaults::default())
    }

    /// Settings from what differs from `defaults`.
    ///
    /// # Errors
    /// As [`TopicConfig::parse`].
    pub fn parse_over(overrides: &BTreeMap<String, String>, defaults: &TopicDefaults) -> Result<Self> {
        let config = Self::read_over(overrides, defaults)?;
        if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
            let message = format!(
                "min.compaction.lag.ms ({}) must not be larger than max.compaction.lag.ms ({})",
                config.min_compaction_lag_ms, config.max_compaction_lag_ms
            );
            return Err(Error::new(Kind::InvalidConfig, message));
        }
        config.tier.check((config.retention_ms, config.retention_bytes), config.compacts)?;
        Ok(config)
    }

    /// Settings of a topic that is there: that two contradict each other since the defaults changed does not take it away.
    ///
    /// # Errors
    /// `InvalidConfig`: an unknown name, or a value that the setting does not take.
    pub(crate) fn read_over(overrides: &BTreeMap<String, String>, defaults: &TopicDefaults) -> Result<Self> {
        for (name, value) in overrides {
            setting(name).ok_or_else(|| unknown(name))?.check(value)?;
        }
        let text = |name: &str| {
            let of_kafka = || setting(name).expect("the names below are in the table").default;
            let default = || defaults.get(name).map_or_else(of_kafka, |value| value.trim());
            overrides.get(name).map_or_else(default, |value| value.trim())
        };
        let number = |name: &str| whole(text(name)).expect("every value was checked above");
        let policy = text("cleanup.policy");
        let config = Self {
            deletes: items(policy).any(|item| item == "delete"),
            compacts: items(policy).any(|item| item == "compact"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            codec: codec(text("compression.type")),
            gzip_level: i32::try_from(number("compression.gzip.level")).expect("from -1 to 9"),
            zstd_level: i32::try_from(number("compression.zstd.level")).expect("from -131072 to 22"),
            max_message_bytes: usize::try_from(number("max.message.bytes")).expect("from 0 to 2 GiB"),
            retention_ms: number("retention.ms"),
            retention_bytes: number("retention.bytes"),
            segment_bytes: number("segment.bytes").unsigned_abs(),
            segment_ms: number("segment.ms"),
            segment_jitter_ms: number("segment.jitter.ms"),
            delete_retention_ms: number("delete.retention.ms"),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            max_compaction_lag_ms: number("max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            tier: Tier {
                on: boolean(text("remote.storage.enable")) == Some(true),
                delete_on_disable: boolean(text("remote.log.delete.on.disable")) == Some(true),
                local_ms: number("local.retention.ms"),
                local_bytes: number("local.retention.bytes"),
            },
            overrides: Arc::new(overrides.clone()),
            defaults: defaults.clone(),
        };
        Ok(config)
    }

    /// What differs from the defaults, as it was given.
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }

    /// Whether old records are deleted by age and size (`cleanup.policy`).
    pub fn deletes(&self) -> bool {
        self.deletes
    }

    /// Whether only the newest record of each key is kept (`cleanup.policy`).
    pub fn compacts(&self) -> bool {
        self.compacts
    }

    /// Whether records get the time of their append (`message.timestamp.type`).
    pub fn is_log_append_time(&self) -> bool {
        self.log_append_time
    }

    /// What a batch that comes with `sent` is stored with (`compression.type`).
    pub fn stored_codec(&self, sent: Compression) -> Compression {
        self.codec.unwrap_or(sent)
    }

    /// The level of a codec that has levels (`compression.gzip.level`, `compression.zstd.level`).
    pub fn codec_level(&self, codec: Compression) -> Option<i32> {
        match codec {
            Compression::Gzip => Some(self.gzip_level),
            Compression::Zstd => Some(self.zstd_level),
            _ => None,
        }
    }

    /// Largest batch that a producer may write, in bytes as sent.
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// For how long records are kept, in milliseconds; -1 for ever.
    pub fn retention_ms(&self) -> i64 {
        self.retention_ms
    }

    /// How many bytes a partition keeps; -1 without bound.
    pub fn retention_bytes(&self) -> i64 {
        self.retention_bytes
    }

    /// After how many bytes a part of the log is sealed.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// After how many milliseconds a part of the log is sealed.
    pub fn segment_ms(&self) -> i64 {
        self.segment_ms
    }

    /// By how many milliseconds at most `segment_ms` is shortened at random.
    pub fn segment_jitter_ms(&self) -> i64 {
        self.segment_jitter_ms
    }

    /// For how many milliseconds tombstones stay readable.
    pub fn delete_retention_ms(&self) -> i64 {
        self.delete_retention_ms
    }

    /// For how many milliseconds a record is safe from compaction.
    pub fn min_compaction_lag_ms(&self) -> i64 {
        self.min_compaction_lag_ms
    }

    /// After how many milliseconds a record is due for compaction.
    pub fn max_compaction_lag_ms(&self) -> i64 {
        self.max_compaction_lag_ms
    }

    /// Which part of a log must be new before it is compacted again, from 0 to 1.
    pub fn min_cleanable_dirty_ratio(&self) -> f64 {
        self.min_cleanable_dirty_ratio
    }

    /// By how many milliseconds a record's timestamp may be behind the clock.
    pub fn timestamp_before_max_ms(&self) -> TimestampMs {
        self.timestamp_before_max_ms
    }

    /// By how many milliseconds a record's timestamp may be ahead of the clock.
    pub fn timestamp_after_max_ms(&self) -> TimestampMs {
        self.timestamp_after_max_ms
    }

    /// The value of any setting, as text; none if there is no such setting.
    pub fn value(&self, name: &str) -> Option<&str> {
        let default = || self.defaults.get(name).map(String::as_str);
        let of_kafka = || setting(name).map(|row| row.default);
        self.overrides.get(name).map(String::as_str).or_else(default).or_else(of_kafka)
    }
}

/// The error for a name that is not in the table.
pub fn unknown(name: &str) -> Error {
    let known: Vec<_> = SETTINGS.iter().map(|row| row.name).collect();
    let message = format!("unknown topic setting '{}'; there are {}", shown(name), known.join(", "));
    Error::new(Kind::InvalidConfig, message)
}

/// The words of a list; blanks around them do not count, as in Kafka.
pub fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn whole(value: &str) -> Option<i64> {
    value.trim().parse().ok()
}

fn codec(word: &str) -> Option<Compression> {
    match word {
        "uncompressed" => Some(Compression::None),
        "gzip" => Some(Compression::Gzip),
        "snappy" => Some(Compression::Snappy),
        "lz4" => Some(Compression::Lz4),
        "zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.trim() {
        word if word.eq_ignore_ascii_case("true") => Some(true),
        word if word.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn is_replica(item: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    item.split_once(':').is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
}

fn is_per_host(item: &str) -> bool {
    item.rsplit_once(':').is_some_and(|(host, count)| !host.is_empty() && count.parse::<u32>().is_ok())
}

/// `text` for a message: without control characters, and not longer than a line.
fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 100;
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(settings: &[(&str, &str)]) -> Result<TopicConfig> {
        TopicConfig::parse(&settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn table_is_sorted_and_its_defaults_pass() {
        assert!(SETTINGS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for row in SETTINGS {
            row.check(row.default).unwrap();
            assert!(row.doc.ends_with('.'), "{}", row.name);
        }
        let all: Vec<_> = SETTINGS.iter().map(|row| (row.name, row.default)).collect();
        parse(&all).unwrap();
        assert_eq!(SETTINGS.len(), 33);
    }

    #[test]
    fn defaults_are_kafkas() {
        let config = TopicConfig::default();
        assert!(config.deletes() && !config.compacts() && !config.is_log_append_time());
        assert_eq!((config.retention_ms(), config.retention_bytes()), (604_800_000, -1));
        assert_eq!((config.max_message_bytes(), config.segment_bytes()), (1_048_588, 1 << 30));
        assert_eq!(config.value("min.insync.replicas"), Some("1"));
        assert_eq!(config.value("nothing"), None);
    }

    #[test]
    fn values_act() {
        let config = parse(&[
            ("cleanup.policy", "compact, delete"),
            ("retention.ms", " -1 "),
            ("message.timestamp.type", "LogAppendTime"),
            ("preallocate", "TRUE"),
            ("leader.replication.throttled.replicas", "0:1,1:1"),
        ]);
        let config = config.unwrap();
        assert!(config.deletes() && config.compacts() && config.is_log_append_time());
        assert_eq!(config.retention_ms(), -1);
        assert_eq!(config.overrides().len(), 5);
        let neither = parse(&[("cleanup.policy", "")]).unwrap();
        assert!(!neither.deletes() && !neither.compacts());
    }

    #[test]
    fn bad_values_say_what_is_allowed() {
        for (name, value, expected) in [
            ("retention.ms", "-2", "at least -1"),
            ("retention.ms", "soon", "whole number"),
            ("retention.ms", "9223372036854775808", "whole number"),
            ("max.message.bytes", "2147483648", "from 0 to 2147483647"),
            ("segment.bytes", "14", "from 1048576"),
            ("cleanup.policy", "compact;delete", "list of compact, delete"),
            ("compression.type", "none", "uncompressed, zstd"),
            ("compression.gzip.level", "0", "from 1 to 9, or -1"),
            ("min.cleanable.dirty.ratio", "NaN", "from 0 to 1"),
            ("preallocate", "1", "true or false"),
            ("remote.storage.enable", "yes", "true or false"),
            ("follower.replication.throttled.replicas", "0:", "partition:broker"),
            ("retention.msx", "1", "there are cleanup.policy"),
        ] {
            let error = parse(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidConfig);
            assert!(error.message.contains(expected) && error.message.contains(name), "{}", error.message);
        }
        let crossed = parse(&[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")]).unwrap_err();
        assert!(crossed.message.contains("must not be larger"));
    }

    #[test]
    fn a_second_tier_must_fit_the_rest() {
        let tiered = |more: &[(&str, &str)]| parse(&[&[("remote.storage.enable", "true")][..], more].concat());
        let plain = tiered(&[("retention.ms", "1000"), ("retention.bytes", "77")]).unwrap();
        assert!(plain.is_tiered() && !plain.deletes_untiered());
        assert_eq!(plain.local_retention(), (1_000, 77), "-2 is as the topic's own");
        let own = [("retention.ms", "-1"), ("local.retention.ms", "5"), ("local.retention.bytes", "-1")];
        assert_eq!(tiered(&own).unwrap().local_retention(), (5, -1));
        let refused = |more: &[(&str, &str)]| tiered(more).unwrap_err().message;
        assert!(refused(&[("cleanup.policy", "compact,delete")]).contains("compacted topics"));
        for local in ["1001", "-1"] {
            let message = refused(&[("retention.ms", "1000"), ("local.retention.ms", local)]);
            assert!(message.contains("must not be larger than retention.ms"), "{message}");
            parse(&[("retention.ms", "1000"), ("local.retention.ms", local)]).unwrap();
        }
        assert!(refused(&[("retention.bytes", "5"), ("local.retention.bytes", "6")]).contains("retention.bytes (5)"));
    }
}
