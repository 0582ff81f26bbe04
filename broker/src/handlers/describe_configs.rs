//! DescribeConfigs (32) 1 to 4, ListConfigResources (74) 0 to 1: settings of topics, of the broker, of groups and of client metrics.
//!
//! - A value comes from: the topic, this broker or all brokers as they were changed while they ran, the configuration, the
//!   default; `synonyms` lists all of them, the one that holds first. What only a coarser setting says (`log.retention.hours`) is
//!   not told of the finer one, as in Kafka.
//! - A broker resource without a name stands for all brokers, and shows only what was set for all.
//! - A broker setting that nobody knows may have been set (a plug-in may know it): it is shown without its value. So is
//!   `super.users`, which belongs to a plug-in in Kafka, where it is given at all.
//! - Loggers are the parts of the program with their levels.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{DescribeConfigsRequest, ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::list_reply::{ListReply, Shape};
use super::topics::unknown;
use super::{Context, Reply, text};
use crate::Broker;
use crate::catalog::check_name;
use crate::error::{Error, Kind, Result};
use crate::security::acl::{self, Operation};
use crate::settings::{BrokerSettings, Layer, Origin, Resource, ResourceRow, When, resource_rows, row_of, rows};
use crate::topic_config::{SETTINGS, Setting, SettingType, TopicConfig};

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;
/// What is said of a setting that nobody knows.
const UNKNOWN: &str = "A setting that this broker does not know.";
/// Told to nobody: whose passwords are worth the most.
const SUPER_USERS: &str = "super.users";
/// In the order in which Kafka lists them.
const ALL_TYPES: [i8; 5] = [GROUP, CLIENT_METRICS, BROKER_LOGGER, BROKER, TOPIC];

/// How a DescribeConfigs wants its answer.
#[derive(Clone, Copy)]
struct View<'a> {
    settings: &'a BrokerSettings,
    version: i16,
    synonyms: bool,
    documentation: bool,
}

/// Answers DescribeConfigs.
pub(crate) fn describe_configs(context: &Context, version: i16, request: DescribeConfigsRequest) -> Reply {
    let context = context.clone();
    Reply::later(async move {
        let view = View {
            settings: context.broker.settings(),
            version,
            synonyms: request.include_synonyms,
            documentation: request.include_documentation,
        };
        // one that nobody knows fails all, as in Kafka
        let unknown_type = request.resources.iter().map(|one| one.resource_type).find(|one| !ALL_TYPES.contains(one));
        let mut results = ListReply::new(&context, Shape { version, throttled: true, flexible: version >= 4 });
        for resource in request.resources {
            let asked = (resource.resource_type, resource.resource_name.as_str());
            let allowed = match unknown_type {
                Some(one) => Err(unsupported(one)),
                None => authorize(&context, Operation::DescribeConfigs, asked),
            };
            let described = allowed.and_then(|()| results.room()).and_then(|()| describe(&context, view, &resource));
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name);
            let result = match described {
                Ok(configs) => result.with_configs(configs),
                Err(error) => result.with_error_code(error.kind.code()).with_error_message(Some(text(&error.message))),
            };
            results.push(&result).await;
        }
        results.finish()
    })
}

/// Settings of topics and groups are rights on these, all others on the cluster.
pub(super) fn authorize(context: &Context, operation: Operation, (resource_type, name): (i8, &str)) -> Result<()> {
    let resource = match resource_type {
        TOPIC => acl::Resource::Topic(name),
        GROUP => acl::Resource::Group(name),
        _ => acl::Resource::Cluster,
    };
    context.authorize(operation, resource)
}

fn describe(
    context: &Context,
    view: View<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>> {
    let name = resource.resource_name.as_str();
    let named = |of: &str| match name {
        "" => Err(Error::new(Kind::InvalidRequest, format!("{of} has no name"))),
        _ => Ok(()),
    };
    let mut shown = match resource.resource_type {
        TOPIC => {
            check_name(name)?;
            let config = context.broker.catalog().topic(name).ok_or_else(|| unknown(name))?.config();
            SETTINGS.iter().map(|row| view.of_topic(row, &config)).collect()
        }
        BROKER if is_this_broker(&context.broker, name)? => view.of_broker(context),
        BROKER => view.of_all_brokers(),
        BROKER_LOGGER => {
            named("the broker of the loggers")?;
            is_this_broker(&context.broker, name)?;
            view.of_loggers(&context.broker)
        }
        CLIENT_METRICS => {
            named("the subscription")?;
            view.of_resource(&Resource::ClientMetrics(name.to_owned()), false)
        }
        GROUP => {
            named("the group")?;
            view.of_resource(&Resource::Group(name.to_owned()), true)
        }
        other => return Err(unsupported(other)),
    };
    // null asks for all; from Kafka 4 on an empty list does, too
    if let Some(keys) = resource.configuration_keys.as_deref().filter(|keys| !keys.is_empty()) {
        shown.retain(|one: &DescribeConfigsResourceResult| keys.contains(&one.name));
    }
    Ok(shown)
}

/// Every value that a topic setting has, the one that holds first.
fn layers_of_topic(settings: &BrokerSettings, row: &Setting, config: &TopicConfig) -> Vec<Layer> {
    let own = config.overrides().get(row.name).map(|value| Layer {
        name: row.name.to_owned(),
        value: Some(value.clone()),
        origin: Origin::Topic,
    });
    own.into_iter().chain(row.broker_name.map(|name| settings.layers(name)).unwrap_or_default()).collect()
}

/// Where the value of a topic setting comes from.
pub(super) fn source_of(settings: &BrokerSettings, row: &Setting, config: &TopicConfig) -> i8 {
    layers_of_topic(settings, row, config).first().map_or(Origin::Default, |layer| layer.origin) as i8
}

impl View<'_> {
    fn of_topic(self, row: &Setting, config: &TopicConfig) -> DescribeConfigsResourceResult {
        let layers = layers_of_topic(self.settings, row, config);
        self.shown((row.name, Some(row.kind), row.doc), config.value(row.name), layers)
    }

    fn of_broker(self, context: &Context) -> Vec<DescribeConfigsResourceResult> {
        let super_users = self.given(SUPER_USERS);
        let always = rows().map(|row| row.name).filter(|name| *name != SUPER_USERS || !super_users.is_empty());
        let mut names: Vec<&str> = always.collect();
        let set = [self.settings.changed(&Resource::Broker), self.settings.changed(&Resource::AllBrokers)];
        let more = set.iter().flat_map(|values| values.keys()).map(String::as_str);
        names.extend(more);
        names.sort_unstable();
        names.dedup();
        let shown = names.into_iter().map(|name| match row_of(name) {
            None => self.secret((name, UNKNOWN), origins_of(&set, name)),
            Some(row) if row.name == SUPER_USERS => self.secret((row.name, row.doc), super_users.clone()),
            Some(row) if row.name == "advertised.listeners" => {
                let listener = &context.listener;
                let value = format!("{}://{}:{}", listener.name, listener.host, listener.port);
                let layer = Layer { name: name.to_owned(), value: Some(value.clone()), origin: Origin::Start };
                self.shown((row.name, Some(row.kind), row.doc), Some(&value), vec![layer]).with_read_only(true)
            }
            Some(row) => {
                let value = self.settings.value(row.name);
                let shown =
                    self.shown((row.name, Some(row.kind), row.doc), value.as_deref(), self.settings.layers(row.name));
                shown.with_read_only(row.when != When::ForAll)
            }
        });
        shown.collect()
    }

    fn of_all_brokers(self) -> Vec<DescribeConfigsResourceResult> {
        let set = self.settings.changed(&Resource::AllBrokers);
        let shown = set.iter().map(|(name, value)| {
            let layer = Layer { name: name.clone(), value: Some(value.clone()), origin: Origin::AllBrokers };
            match row_of(name) {
                None => self.secret((name, UNKNOWN), vec![Origin::AllBrokers]),
                Some(row) => self.shown((row.name, Some(row.kind), row.doc), Some(value), vec![layer]),
            }
        });
        shown.collect()
    }

    fn of_resource(self, resource: &Resource, of_groups: bool) -> Vec<DescribeConfigsResourceResult> {
        let set = self.settings.changed(resource);
        let origin = if of_groups { Origin::Group } else { Origin::ClientMetrics };
        let one = |row: &ResourceRow| {
            let own =
                set.get(row.name).map(|value| Layer { name: row.name.to_owned(), value: Some(value.clone()), origin });
            let layers: Vec<Layer> = own
                .into_iter()
                .chain(row.broker_name.map(|name| self.settings.layers(name)).unwrap_or_default())
                .collect();
            let value = set.get(row.name).cloned().unwrap_or_else(|| self.settings.group_default(row));
            self.shown((row.name, Some(row.kind), row.doc), Some(&value), layers)
        };
        resource_rows(of_groups).iter().map(one).collect()
    }

    fn of_loggers(self, broker: &Broker) -> Vec<DescribeConfigsResourceResult> {
        let shown = broker.loggers().levels().into_iter().map(|(name, level)| {
            let shown = self.shown((&name, None, "What this part of the program logs."), Some(&level), Vec::new());
            shown.with_config_source(Origin::Logger as i8)
        });
        shown.collect()
    }

    /// Where a value of a broker setting was given.
    fn given(self, name: &'static str) -> Vec<Origin> {
        let origins = self.settings.layers(name).into_iter().map(|layer| layer.origin);
        origins.filter(|origin| *origin != Origin::Default).collect()
    }

    /// A setting whose value is, or may be, a secret.
    fn secret(self, (name, doc): (&str, &str), origins: Vec<Origin>) -> DescribeConfigsResourceResult {
        let layers = origins.into_iter().map(|origin| Layer { name: name.to_owned(), value: None, origin });
        self.shown((name, None, doc), None, layers.collect()).with_read_only(true).with_is_sensitive(true)
    }

    fn shown(
        self,
        (name, kind, doc): (&str, Option<SettingType>, &str),
        value: Option<&str>,
        layers: Vec<Layer>,
    ) -> DescribeConfigsResourceResult {
        let source = layers.first().map_or(Origin::Default, |layer| layer.origin) as i8;
        let synonyms = layers.into_iter().filter(|_| self.synonyms).map(|layer| {
            DescribeConfigsSynonym::default()
                .with_name(text(&layer.name))
                .with_value(layer.value.as_deref().map(text))
                .with_source(layer.origin as i8)
        });
        let shown = DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(value.map(text))
            .with_config_source(source)
            .with_synonyms(synonyms.collect());
        if self.version < 3 {
            return shown.with_documentation(None);
        }
        shown
            .with_config_type(kind.map_or(0, |kind| kind as i8))
            .with_documentation(self.documentation.then(|| text(doc)))
    }
}

fn origins_of(set: &[std::sync::Arc<crate::settings::Values>; 2], name: &str) -> Vec<Origin> {
    let origins = [Origin::Broker, Origin::AllBrokers].into_iter().zip(set);
    origins.filter(|(_, values)| values.contains_key(name)).map(|(origin, _)| origin).collect()
}

/// Whether a broker resource is this broker; otherwise it stands for all brokers.
pub(super) fn is_this_broker(broker: &Broker, name: &str) -> Result<bool> {
    let node = broker.config().node_id;
    if name.is_empty() {
        return Ok(false);
    }
    if name.parse() == Ok(node) {
        return Ok(true);
    }
    let message = format!("there is no broker '{}'; ask for {node}, or for all by an empty name", name.escape_debug());
    Err(Error::new(Kind::InvalidRequest, message))
}

pub(super) fn unsupported(resource_type: i8) -> Error {
    let message = format!("settings of resource type {resource_type} are not known; 2 is a topic, 4 a broker");
    Error::new(Kind::InvalidRequest, message)
}

/// Answers ListConfigResources: what DescribeConfigs can be asked for; in version 0 subscriptions to client metrics alone.
pub(crate) fn list_config_resources(context: &Context, version: i16, request: ListConfigResourcesRequest) -> Reply {
    let wanted: Vec<i8> = match (version, request.resource_types) {
        (0, _) => vec![CLIENT_METRICS],
        (_, types) if types.is_empty() => ALL_TYPES.to_vec(),
        (_, types) => types,
    };
    if wanted.iter().any(|one| !ALL_TYPES.contains(one)) {
        let refused = ListConfigResourcesResponse::default().with_error_code(Kind::UnsupportedVersion.code());
        return Reply::message(version, &refused);
    }
    if let Err(denied) = context.authorize(Operation::DescribeConfigs, acl::Resource::Cluster) {
        let refused = ListConfigResourcesResponse::default().with_error_code(denied.kind.code());
        return Reply::message(version, &refused);
    }
    let node = context.broker.config().node_id.to_string();
    let mut found = Vec::new();
    for resource_type in ALL_TYPES.into_iter().filter(|one| wanted.contains(one)) {
        let names: Vec<String> = match resource_type {
            TOPIC => context.broker.catalog().topics().iter().map(|topic| topic.name().to_string()).collect(),
            BROKER | BROKER_LOGGER => vec![node.clone()],
            _ => changed_names(context, resource_type),
        };
        found.extend(names.iter().map(|name| {
            let resource = ConfigResource::default().with_resource_name(text(name));
            if version >= 1 { resource.with_resource_type(resource_type) } else { resource }
        }));
    }
    Reply::message(version, &ListConfigResourcesResponse::default().with_config_resources(found))
}

/// Groups or subscriptions that have settings of their own.
fn changed_names(context: &Context, resource_type: i8) -> Vec<String> {
    let of_type = |resource| match resource {
        Resource::Group(name) if resource_type == GROUP => Some(name),
        Resource::ClientMetrics(name) if resource_type == CLIENT_METRICS => Some(name),
        _ => None,
    };
    context.broker.settings().resources().into_iter().filter_map(of_type).collect()
}
