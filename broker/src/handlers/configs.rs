//! AlterConfigs (33) 0 to 2, IncrementalAlterConfigs (44) 0 to 1: settings of topics, of the broker, of groups and of client metrics
//! are changed.
//!
//! - AlterConfigs replaces all that was set, IncrementalAlterConfigs sets, removes, or adds to and takes from lists. With
//!   `validate_only` changes are checked and not made.
//! - A broker resource is this broker, or all brokers by an empty name; both are kept in the store and act at once. What cannot
//!   change while the broker runs is INVALID_REQUEST, and so is a wrong value, as in Kafka; of topics and groups it is
//!   INVALID_CONFIG. A broker setting that nobody knows is kept.
//! - To remove what is not set is no change, whatever its name.
//! - Loggers: the levels of the parts of the program, until it ends.

use std::collections::HashSet;

use kafka_protocol::messages::alter_configs_response as legacy;
use kafka_protocol::messages::incremental_alter_configs_response as incremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::describe_configs::{
    BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC, authorize, is_this_broker, unsupported,
};
use super::topics::{finished, unknown};
use super::{Context, Reply, text};
use crate::Broker;
use crate::catalog::check_name;
use crate::error::{Error, Kind, Result};
use crate::security::acl::Operation;
use crate::settings::{Resource, Values, row_of};
use crate::topic_config::{self, SettingType};

/// Kinds of incremental change.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

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
    if let Some((name, ..)) = target.edits.iter().find(|(_, kind, value)| *kind != DELETE && value.is_none()) {
        let message = format!("setting {} has no value; DELETE brings back its default", name.as_str());
        return Err(Error::new(Kind::InvalidRequest, message));
    }
    let named = |of: &str| match target.name.as_str() {
        "" => Err(Error::new(Kind::InvalidRequest, format!("there are no defaults of {of} to set; give a name"))),
        name => Ok(name.to_owned()),
    };
    let resource = match target.resource_type {
        TOPIC => return alter_topic(broker, &named("topics")?, &target, validate_only).await,
        BROKER if is_this_broker(broker, &target.name)? => Resource::Broker,
        BROKER => Resource::AllBrokers,
        CLIENT_METRICS => Resource::ClientMetrics(named("client metrics")?),
        GROUP => Resource::Group(named("groups")?),
        BROKER_LOGGER if !target.replace => {
            is_this_broker(broker, &named("loggers")?)?;
            return alter_loggers(broker, &target, validate_only);
        }
        other => return Err(unsupported(other)),
    };
    let list_of = |name: &str| list_of(&resource, name);
    let edit = |present: &Values| target.edited(present, list_of);
    if validate_only {
        let before = broker.settings().changed(&resource);
        return broker.settings().check(&resource, &before, &edit(&before)?);
    }
    broker.change_settings(resource.clone(), edit).await
}

async fn alter_topic(broker: &Broker, name: &str, target: &Target, validate_only: bool) -> Result<()> {
    check_name(name)?;
    let topic = broker.catalog().topic(name).ok_or_else(|| unknown(name))?;
    let config = topic.config();
    let list_of = |name: &str| {
        let row = topic_config::setting(name).ok_or_else(|| topic_config::unknown(name))?;
        let value = config.value(name).unwrap_or_default().to_owned();
        Ok((row.kind == SettingType::List).then_some(value))
    };
    let edit = |present: &Values| target.edited(present, list_of);
    if validate_only {
        return broker.catalog().check_config(&topic, &edit(config.overrides())?).map(drop);
    }
    broker.catalog().change_config(topic.name(), edit).await
}

/// The list that a setting of a resource holds where the resource does not set it; none if it is no list.
fn list_of(resource: &Resource, name: &str) -> Result<Option<String>> {
    match resource {
        Resource::Broker | Resource::AllBrokers => {
            let unknown = || Error::new(Kind::InvalidConfig, format!("there is no setting {}", name.escape_debug()));
            let row = row_of(name).ok_or_else(unknown)?;
            Ok((row.kind == SettingType::List).then(|| row.default.unwrap_or_default().to_owned()))
        }
        // in Kafka these have no lists that could grow
        Resource::Group(_) | Resource::ClientMetrics(_) => Ok(None),
    }
}

/// Loggers have levels: SET and DELETE alone change them.
fn alter_loggers(broker: &Broker, target: &Target, validate_only: bool) -> Result<()> {
    let edits = target.edits.iter().map(|(name, kind, level)| match *kind {
        SET => Ok((name.as_str(), level.as_deref())),
        DELETE => Ok((name.as_str(), None)),
        _ => Err(Error::new(Kind::InvalidRequest, "the level of a logger is no list, only SET and DELETE change it")),
    });
    broker.loggers().change(&edits.collect::<Result<Vec<_>>>()?, validate_only)
}

impl Target {
    /// What is set after the edits; `list_of` gives the default of a setting that is a list.
    fn edited(&self, present: &Values, list_of: impl Fn(&str) -> Result<Option<String>>) -> Result<Values> {
        let mut after = if self.replace { Values::new() } else { present.clone() };
        self.edits.iter().try_for_each(|edit| apply(&mut after, edit, &list_of))?;
        Ok(after)
    }
}

fn apply(
    set: &mut Values,
    (name, operation, value): &Edit,
    list_of: &impl Fn(&str) -> Result<Option<String>>,
) -> Result<()> {
    let value = value.as_deref().unwrap_or_default();
    match *operation {
        SET => drop(set.insert(name.to_string(), value.to_owned())),
        DELETE => drop(set.remove(name.as_str())),
        APPEND | SUBTRACT => {
            let Some(default) = list_of(name)? else {
                let message = format!("setting {} is not a list, only SET and DELETE change it", name.as_str());
                return Err(Error::new(Kind::InvalidConfig, message));
            };
            let present = set.get(name.as_str()).cloned().unwrap_or(default);
            let mut items: Vec<&str> = topic_config::items(&present).collect();
            if *operation == APPEND {
                let added: Vec<&str> = topic_config::items(value).filter(|item| !items.contains(item)).collect();
                items.extend(added);
            } else {
                items.retain(|item| !topic_config::items(value).any(|gone| gone == *item));
            }
            let list = items.join(",");
            set.insert(name.to_string(), list);
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
    fn edits_change_what_is_set() {
        let list_of = |name: &str| match name {
            "cleanup.policy" => Ok(Some("delete".to_owned())),
            "retention.ms" => Ok(None),
            _ => Err(Error::new(Kind::InvalidConfig, "unknown")),
        };
        let mut set = Values::from([("retention.ms".to_owned(), "5".to_owned())]);
        let mut edit = |name: &'static str, operation, value: Option<&'static str>| {
            let edit = (StrBytes::from_static_str(name), operation, value.map(StrBytes::from_static_str));
            apply(&mut set, &edit, &list_of).map(|()| set.get(name).cloned()).map_err(|error| error.kind)
        };
        for (name, operation, value, expected) in [
            ("retention.ms", SET, Some("7"), Ok(Some("7"))),
            ("retention.ms", DELETE, None, Ok(None)),
            ("retention.ms", APPEND, Some("7"), Err(Kind::InvalidConfig)),
            ("retention.ms", 4, Some("7"), Err(Kind::InvalidRequest)),
            ("nothing", APPEND, Some("7"), Err(Kind::InvalidConfig)),
            ("nothing", DELETE, None, Ok(None)),
            ("cleanup.policy", APPEND, Some("compact,delete"), Ok(Some("delete,compact"))),
            ("cleanup.policy", SUBTRACT, Some("delete"), Ok(Some("compact"))),
            ("cleanup.policy", SUBTRACT, Some("delete"), Ok(Some("compact"))),
        ] {
            assert_eq!(edit(name, operation, value), expected.map(|value| value.map(str::to_owned)), "{name}");
        }
    }
}
