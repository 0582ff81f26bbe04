//! BrokerSettings under Kafka's names: those of the broker, and those of groups and of client metrics, which have no other home.
//!
//! ```text
//! table.rs      every setting of the broker: type, default, range, when it can change, meaning
//! given.rs      those that the configuration gives, and the fields of `BrokerConfig` that hold some of them
//! resources.rs  settings of groups and client metrics
//! stored.rs     what was changed while the broker ran, as it lies in the store
//! unused.rs     names that Kafka has and this broker has no use for
//! ```
//! The value of a broker setting is the first of: set for this broker while it ran, set for all brokers while they ran, given by the
//! configuration, the default. Topics have their defaults from here (`TopicDefaults`).

mod given;
mod resources;
mod stored;
mod table;
#[cfg(test)]
mod tests;
mod unused;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::BrokerConfig;
use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Lane};
use crate::store::Store;
use crate::topic_config::{self, Allowed, SETTINGS, SettingType, TopicDefaults};

pub use resources::{ResourceRow, resource_rows};
pub use table::{row_of, rows};
pub use unused::is_without_use;

/// When a setting of the broker can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At start, by the configuration.
    AtStart,
    /// While the broker runs, too, for this broker or for all (`cluster-wide` in Kafka).
    ForAll,
    /// It follows from the program or from a setting of Millpond's own.
    Own,
}

/// One setting of the broker.
#[derive(Clone, Debug)]
pub struct Row {
    /// Kafka's name.
    pub name: &'static str,
    /// Kafka's type.
    pub kind: SettingType,
    /// Its value where nobody sets it; none where Kafka has none.
    pub default: Option<&'static str>,
    /// The values it takes.
    pub allowed: Allowed,
    /// When it can change.
    pub when: When,
    /// What it does here.
    pub doc: &'static str,
}

impl Row {
    /// Whether the setting takes `value`.
    ///
    /// # Errors
    /// `InvalidConfig`, with what it takes.
    pub fn check(&self, value: &str) -> Result<()> {
        self.allowed.check(("broker", self.name), value)
    }
}

/// Where a value comes from; the numbers are DescribeConfigs'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Set for the topic.
    Topic = 1,
    /// Set for this broker while it ran.
    Broker = 2,
    /// Set for all brokers while they ran.
    AllBrokers = 3,
    /// Given by the configuration.
    Start = 4,
    /// The default.
    Default = 5,
    /// The level of a logger.
    Logger = 6,
    /// Set for a subscription to client metrics.
    ClientMetrics = 7,
    /// Set for a group.
    Group = 8,
}

/// A value that a setting has from one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The setting, which may be one that says the same in another unit.
    pub name: String,
    /// Its value; none where it must not be shown.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// What settings can be changed of while the broker runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// This broker.
    Broker,
    /// All brokers.
    AllBrokers,
    /// A subscription to client metrics.
    ClientMetrics(String),
    /// A group.
    Group(String),
}

/// Names and values.
pub type Values = BTreeMap<String, String>;

/// Most settings that one resource may have.
const SETTINGS_MAX: usize = 500;
/// Longest name or value, in bytes.
const TEXT_BYTES_MAX: usize = 32 << 10;
/// Most groups and subscriptions that have settings of their own.
const RESOURCES_MAX: usize = 10_000;

/// The settings of one broker. Holds: what the configuration gave, and what was changed since, by resource. `change` alone
/// changes it, one change at a time, by commits. Always true: every value passes its row's rule. A crash keeps what was changed.
pub struct BrokerSettings {
    given: Values,
    /// What the fields of the configuration say.
    of_fields: Values,
    lane: Arc<Lane>,
    changing: tokio::sync::Mutex<()>,
    changed: RwLock<BTreeMap<Resource, Arc<Values>>>,
}

impl BrokerSettings {
    pub(crate) fn recover(store: &Store, lane: Arc<Lane>, config: &BrokerConfig) -> Result<Self> {
        let changed = RwLock::new(read(store)?);
        let changing = tokio::sync::Mutex::default();
        Ok(Self { given: config.kafka.clone(), of_fields: given::of_fields(config), lane, changing, changed })
    }

    /// The value of a broker setting; none if it has none.
    pub fn value(&self, name: &str) -> Option<String> {
        let changed = self.changed.read();
        let set = |resource: &Resource| changed.get(resource).and_then(|values| values.get(name)).cloned();
        set(&Resource::Broker).or_else(|| set(&Resource::AllBrokers)).or_else(|| self.at_start(name).map(|(v, _)| v))
    }

    /// The value of a broker setting that is a whole number with a default.
    pub fn whole(&self, name: &'static str) -> i64 {
        let value = self.value(name).and_then(|value| value.trim().parse().ok());
        value.or_else(|| row_of(name)?.default?.parse().ok()).unwrap_or(0)
    }

    /// Whether a broker setting that is true or false is true.
    pub fn is_on(&self, name: &'static str) -> bool {
        self.value(name).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }

    /// What holds without changes, and whether it was given.
    fn at_start(&self, name: &str) -> Option<(String, Origin)> {
        let default = row_of(name).and_then(|row| row.default);
        if let Some(value) = self.given.get(name) {
            return Some((value.clone(), Origin::Start));
        }
        match self.of_fields.get(name) {
            Some(value) if Some(value.as_str()) != default => Some((value.clone(), Origin::Start)),
            _ => default.map(|value| (value.to_owned(), Origin::Default)),
        }
    }

    /// Every value that a broker setting has, the one that holds first; empty if it has none of its own.
    pub fn layers(&self, name: &'static str) -> Vec<Layer> {
        let family = table::family_of(name);
        let changed = self.changed.read();
        let mut layers = Vec::new();
        let mut add = |name: &str, value: Option<String>, origin| {
            layers.extend(value.map(|value| Layer { name: name.to_owned(), value: Some(value), origin }));
        };
        for (resource, origin) in [(Resource::Broker, Origin::Broker), (Resource::AllBrokers, Origin::AllBrokers)] {
            let values = changed.get(&resource);
            family.iter().for_each(|(name, _)| add(name, values.and_then(|all| all.get(*name)).cloned(), origin));
        }
        for (name, _) in &family {
            let given = self.at_start(name).filter(|(_, origin)| *origin == Origin::Start);
            add(name, given.map(|(value, _)| value), Origin::Start);
        }
        for (name, _) in &family {
            add(name, row_of(name).and_then(|row| row.default).map(str::to_owned), Origin::Default);
        }
        // what only a coarser setting says is not told of a finer one, as in Kafka
        layers.into_iter().skip_while(|layer| layer.name != name).collect()
    }

    /// What was set for a resource while the broker ran.
    pub fn changed(&self, resource: &Resource) -> Arc<Values> {
        self.changed.read().get(resource).cloned().unwrap_or_default()
    }

    /// The groups and subscriptions that have settings of their own.
    pub fn resources(&self) -> Vec<Resource> {
        self.changed.read().keys().cloned().collect()
    }

    /// The defaults of topics that differ from Kafka's.
    pub fn topic_defaults(&self) -> TopicDefaults {
        let differing = SETTINGS.iter().filter_map(|row| {
            let value = self.topic_default(row.broker_name?)?;
            (value != row.default).then_some((row.name, value))
        });
        Arc::new(differing.collect())
    }

    fn topic_default(&self, broker_name: &'static str) -> Option<String> {
        let (name, unit, value) =
            table::family_of(broker_name).into_iter().find_map(|(name, unit)| Some((name, unit, self.value(name)?)))?;
        if name == broker_name {
            return Some(value);
        }
        let number: i64 = value.trim().parse().ok()?;
        Some(if number < 0 { -1 } else { number.saturating_mul(unit) }.to_string())
    }

    /// Changes what is set for a resource; it is durable when this returns. Nobody else changes settings meanwhile.
    ///
    /// # Errors
    /// Those of `edit`; `InvalidRequest` or `InvalidConfig` for what cannot be set; `PolicyViolation` above a bound.
    pub async fn change(&self, resource: Resource, edit: impl FnOnce(&Values) -> Result<Values>) -> Result<()> {
        let _changing = self.changing.lock().await;
        let before = self.changed(&resource);
        let after = edit(&before)?;
        self.check(&resource, &before, &after)?;
        self.lane.commit(vec![stored::change(&resource, &after)?], Ack::Durable).await?;
        let mut changed = self.changed.write();
        if after.is_empty() {
            changed.remove(&resource);
        } else {
            changed.insert(resource, Arc::new(after));
        }
        Ok(())
    }

    /// Whether a resource may have these values.
    ///
    /// # Errors
    /// As [`BrokerSettings::change`].
    pub fn check(&self, resource: &Resource, before: &Values, after: &Values) -> Result<()> {
        let long = after.iter().find(|(name, value)| name.len().max(value.len()) > TEXT_BYTES_MAX);
        if after.len() > SETTINGS_MAX || long.is_some() {
            let message = format!(
                "one resource may have {SETTINGS_MAX} settings, each of at most {TEXT_BYTES_MAX} bytes; remove some first"
            );
            return Err(Error::new(Kind::PolicyViolation, message));
        }
        if before.is_empty() && self.changed.read().len() >= RESOURCES_MAX {
            let message = format!("{RESOURCES_MAX} resources have settings of their own already; remove some first");
            return Err(Error::new(Kind::PolicyViolation, message));
        }
        match resource {
            Resource::Broker | Resource::AllBrokers => self.check_broker(before, after),
            Resource::ClientMetrics(_) => resources::check_client_metrics(after),
            Resource::Group(_) => self.check_group(after),
        }
    }

    /// A name that nobody knows is kept and never shown, as in Kafka, where a plug-in may know it.
    fn check_broker(&self, before: &Values, after: &Values) -> Result<()> {
        let refused = |message| Err(Error::new(Kind::InvalidRequest, message));
        for (name, value) in after.iter().filter(|(name, value)| before.get(*name) != Some(value)) {
            let Some(row) = row_of(name) else {
                if is_without_use(name) {
                    return refused(format!("{name} cannot be changed while the broker runs"));
                }
                continue;
            };
            if row.when != When::ForAll {
                let next = "set it under [kafka] in the configuration and start the broker again";
                return refused(format!("{name} cannot be changed while the broker runs; {next}"));
            }
            row.check(value).map_err(|error| Error::new(Kind::InvalidRequest, error.message))?;
        }
        let value = |name: &'static str| after.get(name).cloned().or_else(|| self.value(name));
        given::check_order(value).map_err(|error| Error::new(Kind::InvalidRequest, error.message))
    }

    /// The value of a setting of a group where it sets none itself.
    pub fn group_default(&self, row: &ResourceRow) -> String {
        let of_broker = row.broker_name.and_then(|name| self.value(name));
        of_broker.unwrap_or_else(|| row.default.to_owned())
    }

    /// The value of a setting of a group, by the broker's if it sets none itself.
    pub fn group_value(&self, group: &str, name: &str) -> Option<String> {
        let set = self.changed(&Resource::Group(group.to_owned())).get(name).cloned();
        set.or_else(|| resources::group_row(name).map(|row| self.group_default(row)))
    }

    fn check_group(&self, after: &Values) -> Result<()> {
        let number = |name: &str| {
            let set =
                after.get(name).cloned().or_else(|| resources::group_row(name).map(|row| self.group_default(row)));
            set.and_then(|value| value.trim().parse::<i64>().ok()).unwrap_or(0)
        };
        resources::check_group(after, |name| self.value(name).and_then(|value| value.trim().parse().ok()), number)
    }
}

/// Whether `name` is a setting of topics, of the broker, or one that Kafka has for what is not here.
pub fn is_known(name: &str) -> bool {
    row_of(name).is_some() || is_without_use(name) || topic_config::setting(name).is_some()
}

/// What was set while it ran, by resource.
///
/// # Errors
/// `Storage` when it is damaged.
pub(crate) fn read(store: &Store) -> Result<BTreeMap<Resource, Arc<Values>>> {
    stored::read(store)
}
