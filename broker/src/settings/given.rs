//! Settings that the configuration gives under Kafka's names, and the fields of [`BrokerConfig`] that hold some of them.

use super::table::ORDERED;
use super::{Values, When, is_known, is_without_use, row_of};
use crate::config::{BrokerConfig, ListenerConfig, MigrationPolicy};
use crate::error::{Error, Kind, Result};
use crate::group::offsets::METADATA_BYTES_MAX;

const MINUTE_MS: i64 = 60_000;

impl BrokerConfig {
    /// Sets what has Kafka's name `name`.
    ///
    /// # Errors
    /// `InvalidConfig`: a name that is not known, that another key of the configuration holds, or a value that it does not take.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let refused = |message| Err(Error::new(Kind::InvalidConfig, message));
        let Some(row) = row_of(name) else {
            return refused(if is_without_use(name) {
                format!("{name} is for parts of Kafka that are not here; leave it out")
            } else if is_known(name) {
                format!("{name} is a setting of topics; set it for a topic, or its default under the broker's name")
            } else {
                format!("there is no broker setting {name}")
            });
        };
        if row.when == When::Own {
            return refused(format!("{name} follows from elsewhere; {}", row.doc));
        }
        row.check(value)?;
        if name.starts_with("log.retention.") && value.trim() == "0" {
            return refused(format!("{name} must not be 0; -1 keeps records for ever"));
        }
        let value = value.trim();
        // the row's range fits the field
        let number: i64 = value.parse().unwrap_or_default();
        let small = i32::try_from(number).unwrap_or(i32::MAX);
        let unsigned = number.unsigned_abs();
        match name {
            "auto.create.topics.enable" => self.auto_create_topics = value.eq_ignore_ascii_case("true"),
            "num.partitions" => self.num_partitions = small,
            "group.initial.rebalance.delay.ms" => self.group_initial_rebalance_delay_ms = unsigned,
            "group.min.session.timeout.ms" => self.group_min_session_timeout_ms = small,
            "group.max.session.timeout.ms" => self.group_max_session_timeout_ms = small,
            "group.max.size" => self.group_max_size = usize::try_from(unsigned).unwrap_or(usize::MAX),
            "group.consumer.max.size" => {
                self.group_consumer.members_max = usize::try_from(unsigned).unwrap_or(usize::MAX);
            }
            "group.consumer.assignment.interval.ms" => self.group_consumer.assignment_interval_ms = small,
            "group.consumer.migration.policy" => {
                self.group_consumer.migration = MigrationPolicy::named(value).unwrap_or(MigrationPolicy::Bidirectional);
            }
            "log.cleaner.backoff.ms" => self.compaction_check_ms = unsigned,
            "log.cleaner.io.max.bytes.per.second" => {
                let pace: f64 = value.parse().unwrap_or(f64::MAX);
                self.compaction_bytes_per_second = pace.max(1.0) as u64;
            }
            "log.retention.check.interval.ms" => self.retention_check_ms = unsigned,
            "offsets.retention.minutes" => self.offsets_retention_ms = number.saturating_mul(MINUTE_MS),
            "transaction.max.timeout.ms" => self.transaction_max_timeout_ms = small,
            "transactional.id.expiration.ms" => self.transactional_id_expiration_ms = number,
            "socket.request.max.bytes" => self.frame_bytes_max = usize::try_from(unsigned).unwrap_or(usize::MAX),
            _ => self.set_security(name, (value, number))?,
        }
        self.kafka.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn set_security(&mut self, name: &str, (value, number): (&str, i64)) -> Result<()> {
        let security = &mut self.security;
        match name {
            "super.users" => {
                let users = value.split(';').map(str::trim).filter(|user| !user.is_empty());
                security.super_users = users.map(str::to_owned).collect();
                if let Some(user) = security.super_users.iter().find(|user| !user.starts_with("User:")) {
                    let message = format!("{user} in super.users is not a principal; write User:{user}");
                    return Err(Error::new(Kind::InvalidConfig, message));
                }
            }
            "allow.everyone.if.no.acl.found" => {
                security.allow_everyone_if_no_acl_found = value.eq_ignore_ascii_case("true");
            }
            "connections.max.reauth.ms" => security.reauthentication_ms = number.max(0),
            "connection.failed.authentication.delay.ms" => security.refusal_delay_ms = number.unsigned_abs(),
            _ => {}
        }
        Ok(())
    }

    /// Whether the settings that depend on one another fit together.
    ///
    /// # Errors
    /// `InvalidConfig`, with the two that do not.
    pub fn check_order(&self) -> Result<()> {
        check_order(|name| {
            let default = || row_of(name).and_then(|row| row.default).map(str::to_owned);
            self.kafka.get(name).cloned().or_else(default)
        })
    }
}

/// Checks the pairs of which one must not be larger than the other.
pub(super) fn check_order(value: impl Fn(&'static str) -> Option<String>) -> Result<()> {
    let number = |name| value(name).and_then(|text| text.trim().parse::<i64>().ok());
    for (less, more) in ORDERED {
        if let (Some(small), Some(large)) = (number(less), number(more))
            && small > large
        {
            let message = format!("{less} ({small}) must not be larger than {more} ({large})");
            return Err(Error::new(Kind::InvalidConfig, message));
        }
    }
    Ok(())
}

/// The values that the fields of a configuration hold.
pub(super) fn of_fields(config: &BrokerConfig) -> Values {
    let listeners = |address: fn(&ListenerConfig) -> &str| {
        let all = config.listeners.iter().map(|one| format!("{}://{}", one.name, address(one)));
        all.collect::<Vec<_>>().join(",")
    };
    let data_dir = config.data_dir.display().to_string();
    let values = [
        ("advertised.listeners", listeners(|one| one.advertise.as_deref().unwrap_or(&one.bind))),
        ("auto.create.topics.enable", config.auto_create_topics.to_string()),
        ("controller.listener.names", String::new()),
        ("broker.id", config.node_id.to_string()),
        ("group.consumer.assignment.interval.ms", config.group_consumer.assignment_interval_ms.to_string()),
        ("group.consumer.max.size", config.group_consumer.members_max.to_string()),
        ("group.consumer.migration.policy", config.group_consumer.migration.name().to_owned()),
        ("group.initial.rebalance.delay.ms", config.group_initial_rebalance_delay_ms.to_string()),
        ("group.max.session.timeout.ms", config.group_max_session_timeout_ms.to_string()),
        ("group.max.size", config.group_max_size.to_string()),
        ("group.min.session.timeout.ms", config.group_min_session_timeout_ms.to_string()),
        ("listeners", listeners(|one| &one.bind)),
        ("log.dir", data_dir.clone()),
        ("log.dirs", data_dir),
        ("log.cleaner.backoff.ms", config.compaction_check_ms.to_string()),
        ("log.cleaner.io.max.bytes.per.second", config.compaction_bytes_per_second.to_string()),
        ("log.retention.check.interval.ms", config.retention_check_ms.to_string()),
        ("node.id", config.node_id.to_string()),
        ("num.partitions", config.num_partitions.to_string()),
        ("offset.metadata.max.bytes", METADATA_BYTES_MAX.to_string()),
        ("offsets.retention.minutes", (config.offsets_retention_ms / MINUTE_MS).to_string()),
        ("process.roles", "broker,controller".to_owned()),
        ("queued.max.request.bytes", config.inflight_bytes_max.to_string()),
        ("transaction.max.timeout.ms", config.transaction_max_timeout_ms.to_string()),
        ("transactional.id.expiration.ms", config.transactional_id_expiration_ms.to_string()),
        ("socket.request.max.bytes", config.frame_bytes_max.to_string()),
    ];
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::rows;

    #[test]
    fn fields_have_the_tables_defaults() {
        let config = BrokerConfig::default();
        let fields = of_fields(&config);
        for row in rows().filter(|row| row.when != When::Own) {
            if let Some(value) = fields.get(row.name) {
                assert_eq!(Some(value.as_str()), row.default, "{}", row.name);
            }
        }
        config.check_order().unwrap();
    }

    #[test]
    fn values_reach_their_fields_and_bad_ones_say_why() {
        let mut config = BrokerConfig::default();
        for (name, value) in [("num.partitions", "7"), ("offsets.retention.minutes", "2"), ("group.max.size", "9")] {
            config.set(name, value).unwrap();
            assert_eq!(of_fields(&config)[name], value);
        }
        config.set("auto.create.topics.enable", "FALSE").unwrap();
        assert!(!config.auto_create_topics && config.kafka.len() == 4);
        for (name, value, expected) in [
            ("num.partitions", "0", "from 1 to"),
            ("node.id", "2", "broker.node_id"),
            ("num.partitons", "2", "no broker setting"),
            ("retention.ms", "2", "of topics"),
            ("replica.fetch.max.bytes", "2", "leave it out"),
            ("log.retention.ms", "0", "-1 keeps"),
        ] {
            let error = config.set(name, value).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        }
        config.set("group.min.session.timeout.ms", "2000000").unwrap();
        assert!(config.check_order().unwrap_err().message.contains("group.max.session.timeout.ms (1800000)"));
    }
}
