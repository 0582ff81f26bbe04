//! DescribeConfigs (32) 1 to 4, AlterConfigs (33) 0 to 2, IncrementalAlterConfigs (44) 0 to 1: settings.
//!
//! - Topics (type 2): all settings of Kafka 4.1 (`topic_config.rs`), with source, synonyms and documentation. AlterConfigs
//!   replaces all overrides, IncrementalAlterConfigs knows SET, DELETE, APPEND and SUBTRACT (the last two for lists).
//! - The broker (type 4; `broker_settings.rs`): read-only. Setting one is INVALID_REQUEST with a word on where it is set.
//!   DELETE is accepted where nothing can be set, because kafka-reassign-partitions clears its throttles that way.
//! - Groups (32), client metrics (16) and loggers (8) have no settings here: they are described as having none.
//! - Changes are durable when the answer comes. With `validate_only` they are checked and not made.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::messages::alter_configs_response as legacy;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_response as incremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::broker_settings::{BrokerSetting, broker_settings};
use super::topics::{finished, unknown};
use super::{Context, Reply, text};
use crate::Broker;
use crate::catalog::check_name;
use crate::error::{Error, Kind, Result};
use crate::security::acl::{Operation, Resource};
use crate::topic_config::{self, SETTINGS, Setting, SettingType, TopicConfig};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// Where a value comes from.
const FROM_TOPIC: i8 = 1;
/// From the configuration that the broker was started with.
pub(super) const FROM_START: i8 = 4;
/// From the program.
pub(super) const FROM_DEFAULT: i8 = 5;

/// Kinds of incremental change.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Where the value of a topic setting comes from.
pub(super) fn source_of(config: &TopicConfig, name: &str) -> i8 {
    if config.overrides().contains_key(name) { FROM_TOPIC } else { FROM_DEFAULT }
}

/// How a DescribeConfigs wants its answer.
#[derive(Clone, Copy)]
struct View {
    version: i16,
    synonyms: bool,
    documentation: bool,
}

/// Answers DescribeConfigs.
pub(crate) fn describe_configs(context: &Context, version: i16, request: DescribeConfigsRequest) -> Reply {
    let view = View { version, synonyms: request.include_synonyms, documentation: request.include_documentation };
    let results = request.resources.into_iter().map(|resource| {
        let described =
            authorize(context, Operation::DescribeConfigs, (resource.resource_type, &resource.resource_name))
                .and_then(|()| describe(context, view, &resource));
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        match described {
            Ok(configs) => result.with_error_message(None).with_configs(configs),
            Err(error) => result.with_error_code(error.kind.code()).with_error_message(Some(text(&error.message))),
        }
    });
    Reply::message(version, &DescribeConfigsResponse::default().with_results(results.collect()))
}

fn describe(
    context: &Context,
    view: View,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>> {
    let keys = resource.configuration_keys.as_deref().unwrap_or_default();
    let wanted = |name: &str| keys.is_empty() || keys.iter().any(|key| key.as_str() == name);
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => {
            check_name(name)?;
            let config = context.broker.catalog().topic(name).ok_or_else(|| unknown(name))?.config();
            Ok(SETTINGS.iter().filter(|row| wanted(row.name)).map(|row| view.of_topic(row, &config)).collect())
        }
        BROKER => {
            if is_this_broker(&context.broker, name)? {
                let settings = broker_settings(&context.broker, &context.listener);
                Ok(settings.into_iter().filter(|row| wanted(&row.name)).map(|row| view.of_broker(&row)).collect())
            } else {
                Ok(Vec::new()) // nothing was set for all brokers while they run
            }
        }
        BROKER_LOGGER => is_this_broker(&context.broker, name).map(|_| Vec::new()),
        CLIENT_METRICS | GROUP => Ok(Vec::new()),
        other => Err(unsupported(other)),
    }
}

/// Settings of topics and groups are rights on these, all others on the cluster.
fn authorize(context: &Context, operation: Operation, (resource_type, name): (i8, &str)) -> Result<()> {
    let resource = match resource_type {
        TOPIC => Resource::Topic(name),
        GROUP => Resource::Group(name),
        _ => Resource::Cluster,
    };
    context.authorize(operation, resource)
}

impl View {
    fn of_topic(self, row: &Setting, config: &TopicConfig) -> DescribeConfigsResourceResult {
        let value = config.value(row.name).unwrap_or_default();
        let source = source_of(config, row.name);
        let synonym = |name: &str, value: &str, source: i8| {
            DescribeConfigsSynonym::default().with_name(text(name)).with_value(Some(text(value))).with_source(source)
        };
        let mut synonyms = Vec::new();
        if self.synonyms {
            synonyms.extend((source == FROM_TOPIC).then(|| synonym(row.name, value, FROM_TOPIC)));
            synonyms.extend(row.broker_name.map(|name| synonym(name, row.default, FROM_DEFAULT)));
        }
        self.shown(row.name, value, (row.kind, row.doc)).with_config_source(source).with_synonyms(synonyms)
    }

    fn of_broker(self, row: &BrokerSetting) -> DescribeConfigsResourceResult {
        let shown = self.shown(&row.name, &row.value, (row.kind, row.doc));
        let synonym = DescribeConfigsSynonym::default()
            .with_name(text(&row.name))
            .with_value(Some(text(&row.value)))
            .with_source(row.source);
        let synonyms = if self.synonyms { vec![synonym] } else { Vec::new() };
        shown.with_read_only(true).with_config_source(row.source).with_synonyms(synonyms)
    }

    fn shown(self, name: &str, value: &str, (kind, doc): (SettingType, &str)) -> DescribeConfigsResourceResult {
        let shown = DescribeConfigsResourceResult::default().with_name(text(name)).with_value(Some(text(value)));
        if self.version < 3 {
            return shown.with_documentation(None);
        }
        shown.with_config_type(kind as i8).with_documentation(self.documentation.then(|| text(doc)))
    }
}

/// Whether a broker resource is this broker; otherwise it stands for all brokers.
fn is_this_broker(broker: &Broker, name: &str) -> Result<bool> {
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

fn unsupported(resource_type: i8) -> Error {
    let message = format!("settings of resource type {resource_type} are not known; 2 is a topic, 4 a broker");
    Error::new(Kind::InvalidRequest, message)
}

/// One change: name, kind and value.
type Edit = (StrBytes, i8, Option<StrBytes>);

/// A resource whose settings are to be changed.
struct Target {
    resource_type: i8,
    name: StrBytes,
    edits: Vec<Edit>,
    /// Whether what is not named goes back to its default.
    replace: bool,
}

/// Answers AlterConfigs.
pub(crate) fn alter_configs(context: &Context, version: i16, request: AlterConfigsRequest) -> Reply {
    let targets = request.resources.into_iter().map(|resource| Target {
        resource_type: resource.resource_type,
        name: resource.resource_name,
        edits: resource.configs.into_iter().map(|config| (config.name, SET, config.value)).collect(),
        replace: true,
    });
    alter(context, targets.collect(), request.validate_only, move |results| {
        let responses = results.into_iter().map(|(resource_type, name, result)| {
            let response = legacy::AlterConfigsResourceResponse::default()
                .with_resource_type(resource_type)
                .with_resource_name(name);
            match result {
                Ok(()) => response.with_error_message(None),
                Err(e) => response.with_error_code(e.kind.code()).with_error_message(Some(text(&e.message))),
            }
        });
        Reply::message(version, &AlterConfigsResponse::default().with_responses(responses.collect()))
    })
}

/// Answers IncrementalAlterConfigs.
pub(crate) fn incremental_alter_configs(
    context: &Context,
    version: i16,
    request: IncrementalAlterConfigsRequest,
) -> Reply {
    let targets = request.resources.into_iter().map(|resource| Target {
        resource_type: resource.resource_type,
        name: resource.resource_name,
        edits: resource.configs.into_iter().map(|edit| (edit.name, edit.config_operation, edit.value)).collect(),
        replace: false,
    });
    alter(context, targets.collect(), request.validate_only, move |results| {
        let responses = results.into_iter().map(|(resource_type, name, result)| {
            let response = incremental::AlterConfigsResourceResponse::default()
                .with_resource_type(resource_type)
                .with_resource_name(name);
            match result {
                Ok(()) => response.with_error_message(None),
                Err(e) => response.with_error_code(e.kind.code()).with_error_message(Some(text(&e.message))),
            }
        });
        Reply::message(version, &IncrementalAlterConfigsResponse::default().with_responses(responses.collect()))
    })
}

/// Resource type, resource name and what came of it.
type Altered = (i8, StrBytes, Result<()>);

fn alter(
    context: &Context,
    targets: Vec<Target>,
    validate_only: bool,
    answer: impl FnOnce(Vec<Altered>) -> Reply + Send + 'static,
) -> Reply {
    let context = context.clone();
    finished(async move {
        let mut seen = HashSet::new();
        let mut twice = HashSet::new();
        for target in &targets {
            if !seen.insert((target.resource_type, target.name.clone())) {
                twice.insert((target.resource_type, target.name.clone()));
            }
        }
        let mut results = Vec::with_capacity(targets.len());
        for target in targets {
            let key = (target.resource_type, target.name.clone());
            let result = if twice.contains(&key) {
                Err(Error::new(Kind::InvalidRequest, "the resource is named twice in the request"))
            } else {
                match authorize(&context, Operation::AlterConfigs, (key.0, &key.1)) {
                    Ok(()) => alter_one(&context.broker, target, validate_only).await,
                    Err(denied) => Err(denied),
                }
            };
            results.push((key.0, key.1, result));
        }
        answer(results)
    })
}

async fn alter_one(broker: &Broker, target: Target, validate_only: bool) -> Result<()> {
    let mut names = HashSet::new();
    if let Some((name, ..)) = target.edits.iter().find(|(name, ..)| !names.insert(name.clone())) {
        let message = format!("setting {} is named twice for one resource", name.as_str());
        return Err(Error::new(Kind::InvalidRequest, message));
    }
    match target.resource_type {
        TOPIC => {}
        BROKER | BROKER_LOGGER => {
            is_this_broker(broker, &target.name)?;
            return read_only(
                &target,
                "set it in the [broker] section of the configuration and start the broker again",
            );
        }
        CLIENT_METRICS | GROUP => return read_only(&target, "this broker has no such settings"),
        other => return Err(unsupported(other)),
    }
    check_name(&target.name)?;
    let topic = broker.catalog().topic(&target.name).ok_or_else(|| unknown(&target.name))?;
    let edit = |present: &BTreeMap<String, String>| {
        let mut overrides = if target.replace { BTreeMap::new() } else { present.clone() };
        target.edits.iter().try_for_each(|edit| apply(&mut overrides, edit))?;
        Ok(overrides)
    };
    if validate_only {
        return TopicConfig::parse(&edit(topic.config().overrides())?).map(drop);
    }
    broker.catalog().change_config(topic.name(), edit).await
}

/// Removing what is not there is no change; everything else is refused.
fn read_only(target: &Target, next: &str) -> Result<()> {
    let set: Vec<&str> = target.edits.iter().filter(|edit| edit.1 != DELETE).map(|edit| edit.0.as_str()).collect();
    if set.is_empty() {
        return Ok(());
    }
    let message = format!("{} cannot be changed while the broker runs; {next}", set.join(", "));
    Err(Error::new(Kind::InvalidRequest, message))
}

fn apply(overrides: &mut BTreeMap<String, String>, (name, operation, value): &Edit) -> Result<()> {
    if *operation == DELETE {
        overrides.remove(name.as_str());
        return Ok(());
    }
    let Some(value) = value else {
        let message = format!("setting {} has no value; DELETE brings back its default", name.as_str());
        return Err(Error::new(Kind::InvalidRequest, message));
    };
    let row = topic_config::setting(name).ok_or_else(|| topic_config::unknown(name))?;
    match *operation {
        SET => drop(overrides.insert(name.to_string(), value.to_string())),
        APPEND | SUBTRACT if row.kind != SettingType::List => {
            let message = format!("setting {} is not a list, only SET and DELETE change it", row.name);
            return Err(Error::new(Kind::InvalidConfig, message));
        }
        APPEND | SUBTRACT => {
            let present = overrides.get(row.name).map_or(row.default, String::as_str);
            let mut items: Vec<&str> = topic_config::items(present).collect();
            if *operation == APPEND {
                let added: Vec<&str> = topic_config::items(value).filter(|item| !items.contains(item)).collect();
                items.extend(added);
            } else {
                items.retain(|item| !topic_config::items(value).any(|gone| gone == *item));
            }
            let list = items.join(",");
            overrides.insert(row.name.to_owned(), list);
        }
        other => {
            let message = format!("operation {other} is not known; 0 is SET, 1 DELETE, 2 APPEND, 3 SUBTRACT");
            return Err(Error::new(Kind::InvalidRequest, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_change_overrides() {
        let mut overrides = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
        let mut edit = |name: &'static str, operation, value: Option<&'static str>| {
            let edit = (StrBytes::from_static_str(name), operation, value.map(StrBytes::from_static_str));
            apply(&mut overrides, &edit).map(|()| overrides.get(name).cloned()).map_err(|error| error.kind)
        };
        for (name, operation, value, expected) in [
            ("retention.ms", SET, Some("7"), Ok(Some("7"))),
            ("retention.ms", DELETE, None, Ok(None)),
            ("retention.ms", APPEND, Some("7"), Err(Kind::InvalidConfig)),
            ("retention.ms", SET, None, Err(Kind::InvalidRequest)),
            ("retention.ms", 4, Some("7"), Err(Kind::InvalidRequest)),
            ("nothing", SET, Some("7"), Err(Kind::InvalidConfig)),
            ("nothing", DELETE, None, Ok(None)),
            ("cleanup.policy", APPEND, Some("compact,delete"), Ok(Some("delete,compact"))),
            ("cleanup.policy", SUBTRACT, Some("delete"), Ok(Some("compact"))),
            ("cleanup.policy", SUBTRACT, Some("delete"), Ok(Some("compact"))),
        ] {
            assert_eq!(edit(name, operation, value), expected.map(|value| value.map(str::to_owned)), "{name}");
        }
    }
}
