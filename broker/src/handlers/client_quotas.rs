//! DescribeClientQuotas (48) and AlterClientQuotas (49), versions 0 to 1: limits of users, client ids and addresses
//! (KIP-546, KIP-612). What they do is in `throttle.rs`, `fetch.rs` and `net/mod.rs`.
//!
//! - Limits: `producer_byte_rate`, `consumer_byte_rate`, `request_percentage`, `controller_mutation_rate` for users and client
//!   ids, `connection_creation_rate` for addresses.
//! - Entities have an outcome each; all that can be are changed in one commit, durable when the answer comes. With
//!   `validate_only` they are checked and not changed. What an entity is made of is answered in Kafka's order, whatever the
//!   request's was.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kafka_protocol::messages::alter_client_quotas_request as asked;
use kafka_protocol::messages::alter_client_quotas_response as answered;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::topics::finished;
use super::{Context, Reply, text};
use crate::error::{Error, Kind, Result};
use crate::security::SecurityRecord;
use crate::security::acl::{Operation, Resource};
use crate::security::quota::{Entity, Part};

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

/// Ways in which a component of a filter matches.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidRequest, message)
}

fn part<'a>(entity: &'a mut Entity, kind: &str) -> Option<&'a mut Option<Part>> {
    match kind {
        USER => Some(&mut entity.user),
        CLIENT_ID => Some(&mut entity.client_id),
        IP => Some(&mut entity.ip),
        _ => None,
    }
}

/// The kinds in the order of Kafka's answers, where tests of clients expect them.
const ORDER: [&str; 3] = [CLIENT_ID, USER, IP];

/// Where a kind stands in an answer; what is no kind stands behind.
fn place(kind: &str) -> usize {
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}

/// In that order.
fn parts(entity: &Entity) -> impl Iterator<Item = (&'static str, &Part)> {
    let all = ORDER.into_iter().zip([&entity.client_id, &entity.user, &entity.ip]);
    all.filter_map(|(kind, part)| Some((kind, part.as_ref()?)))
}

/// Answers DescribeClientQuotas.
pub(crate) fn describe(context: &Context, version: i16, request: DescribeClientQuotasRequest) -> Reply {
    let filter = context
        .authorize(Operation::DescribeConfigs, Resource::Cluster)
        .and_then(|()| Filter::new(&request.components, request.strict));
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => {
            let refused = DescribeClientQuotasResponse::default()
                .with_error_code(error.kind.code())
                .with_error_message(Some(text(&error.message)))
                .with_entries(None);
            return Reply::message(version, &refused);
        }
    };
    let entries = context.broker.security().read(|state| {
        let found = state.quotas().iter().filter(|(entity, _)| filter.matches(entity));
        let shown = found.map(|(entity, limits)| {
            let parts = parts(entity).map(|(kind, part)| {
                let name = match part {
                    Part::Default => None,
                    Part::Named(name) => Some(text(name)),
                };
                EntityData::default().with_entity_type(StrBytes::from_static_str(kind)).with_entity_name(name)
            });
            let values = limits.iter().map(|(name, value)| ValueData::default().with_key(text(name)).with_value(value));
            EntryData::default().with_entity(parts.collect()).with_values(values.collect())
        });
        shown.collect::<Vec<_>>()
    });
    let response = DescribeClientQuotasResponse::default().with_entries(Some(entries));
    Reply::message(version, &response)
}

/// Which entities are asked for.
struct Filter {
    /// Type, and the part that it must have; none is any.
    wanted: Vec<(&'static str, Option<Part>)>,
    /// Whether an entity may have no other parts.
    strict: bool,
}

impl Filter {
    fn new(components: &[ComponentData], strict: bool) -> Result<Self> {
        let mut wanted: Vec<(&'static str, Option<Part>)> = Vec::new();
        for component in components {
            let kind = match component.entity_type.as_str() {
                "" => return Err(invalid("Invalid empty entity type.")),
                other => [USER, CLIENT_ID, IP].into_iter().find(|known| *known == other).ok_or_else(|| {
                    Error::new(Kind::UnsupportedVersion, format!("Unsupported entity type: {}", other.escape_debug()))
                })?,
            };
            if wanted.iter().any(|(known, _)| *known == kind) {
                return Err(invalid(format!("Entity type {kind} cannot appear more than once in the filter.")));
            }
            let part = match (component.match_type, &component._match) {
                (EXACT, Some(name)) => Some(Part::Named(name.to_string())),
                (DEFAULT, None) => Some(Part::Default),
                (SPECIFIED, None) => None,
                (EXACT, None) => return Err(invalid("an exact match needs a name")),
                (DEFAULT | SPECIFIED, Some(_)) => return Err(invalid("only an exact match has a name")),
                (other, _) => return Err(invalid(format!("Unknown match type {other}"))),
            };
            wanted.push((kind, part));
        }
        if wanted.len() > 1 && wanted.iter().any(|(kind, _)| *kind == IP) {
            return Err(invalid("Invalid entity filter component combination"));
        }
        Ok(Self { wanted, strict })
    }

    fn matches(&self, entity: &Entity) -> bool {
        let has = |(kind, wanted): &(&'static str, Option<Part>)| {
            parts(entity).any(|(own, part)| own == *kind && wanted.as_ref().is_none_or(|wanted| wanted == part))
        };
        self.wanted.iter().all(has) && (!self.strict || parts(entity).count() == self.wanted.len())
    }
}

/// Answers AlterClientQuotas.
pub(crate) fn alter(context: &Context, version: i16, request: AlterClientQuotasRequest) -> Reply {
    let context = context.clone();
    finished(async move {
        let validate_only = request.validate_only;
        let changed = match context.authorize(Operation::AlterConfigs, Resource::Cluster) {
            Ok(()) => change(&context, &request.entries, validate_only).await,
            Err(error) => Err(error),
        };
        let results = changed.unwrap_or_else(|error| vec![Err(error); request.entries.len()]);
        let entries = request.entries.into_iter().zip(results).map(|(entry, result)| {
            let mut entity = entry.entity;
            entity.sort_by_key(|part| place(&part.entity_type));
            let entity = entity.into_iter().map(|part| {
                answered::EntityData::default().with_entity_type(part.entity_type).with_entity_name(part.entity_name)
            });
            let answer = answered::EntryData::default().with_entity(entity.collect());
            match result {
                Ok(()) => answer.with_error_message(None),
                Err(error) => answer.with_error_code(error.kind.code()).with_error_message(Some(text(&error.message))),
            }
        });
        Reply::message(version, &AlterClientQuotasResponse::default().with_entries(entries.collect()))
    })
}

async fn change(context: &Context, entries: &[asked::EntryData], validate_only: bool) -> Result<Vec<Result<()>>> {
    let wanted: Vec<_> = entries.iter().map(|entry| (entity(&entry.entity), changes(&entry.ops))).collect();
    let decided = context.broker.security().change(move |state| {
        let (mut records, mut seen, mut results) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (entity, changes) in wanted {
            let record = entity.and_then(|entity| {
                if !seen.insert(entity.clone()) {
                    return Err(invalid("the entity is named twice in the request"));
                }
                state.alter_quota(&entity, &changes?)
            });
            results.push(record.map(|record| records.push(record)));
        }
        if validate_only {
            records.clear();
        }
        let told: Vec<String> = records.iter().map(shown).collect();
        Ok::<_, Error>((records, (results, told)))
    });
    let (results, told) = decided.await?;
    told.iter().for_each(|what| context.changed(what));
    Ok(results)
}

fn shown(record: &SecurityRecord) -> String {
    match record {
        SecurityRecord::Quota(entity, limits) => {
            let limits: Vec<String> = limits.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let of = parts(entity).map(|(kind, part)| match part {
                Part::Default => format!("the default {kind}"),
                Part::Named(name) => format!("{kind} {name}"),
            });
            let of: Vec<String> = of.collect();
            let limits = if limits.is_empty() { "none".to_owned() } else { limits.join(" ") };
            format!("quota of {}: {limits}", of.join(", "))
        }
        _ => String::new(),
    }
}

fn entity(asked: &[asked::EntityData]) -> Result<Entity> {
    if asked.is_empty() {
        return Err(invalid("Invalid empty client quota entity"));
    }
    let mut entity = Entity::default();
    for component in asked {
        let kind = component.entity_type.as_str();
        let place = part(&mut entity, kind)
            .ok_or_else(|| invalid(format!("Unhandled client quota entity type: {}", kind.escape_debug())))?;
        let named = match component.entity_name.as_deref() {
            None => Part::Default,
            Some("") => return Err(invalid(format!("Empty {kind} unsupported"))),
            Some(name) if name.len() > i16::MAX as usize => return Err(invalid("a name has at most 32767 bytes")),
            Some(name) if kind == IP => {
                let address: IpAddr = name
                    .parse()
                    .map_err(|_| invalid(format!("{} is not a valid IP or resolvable host.", name.escape_debug())))?;
                Part::Named(address.to_canonical().to_string())
            }
            Some(name) => Part::Named(name.to_owned()),
        };
        if place.replace(named).is_some() {
            return Err(invalid(format!("Duplicate entity type {kind}")));
        }
    }
    if entity.ip.is_some() && parts(&entity).count() > 1 {
        return Err(invalid(
            "Invalid quota entity combination, IP entity should not be combined with User or ClientId",
        ));
    }
    Ok(entity)
}

/// Names with values, or with none where the limit is to go.
fn changes(operations: &[asked::OpData]) -> Result<Vec<(String, Option<f64>)>> {
    let mut seen = BTreeSet::new();
    let change = |operation: &asked::OpData| {
        if !seen.insert(operation.key.clone()) {
            return Err(invalid(format!("{} is named twice", operation.key.escape_debug())));
        }
        Ok((operation.key.to_string(), (!operation.remove).then_some(operation.value)))
    };
    operations.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::quota::Limits;

    #[test]
    fn the_audit_log_says_plainly_whose_quota_changed() {
        let named = |name: &str| Some(Part::Named(name.to_owned()));
        let told = |entity, set: &[(&str, f64)]| {
            let mut limits = Limits::default();
            set.iter().for_each(|(name, value)| limits.set(name, Some(*value)).unwrap());
            shown(&SecurityRecord::Quota(entity, limits))
        };
        let both = Entity { user: named("ann"), client_id: Some(Part::Default), ..Entity::default() };
        assert_eq!(
            told(both, &[("producer_byte_rate", 1024.0), ("request_percentage", 12.5)]),
            "quota of the default client-id, user ann: request_percentage=12.5 producer_byte_rate=1024"
        );
        let address = Entity { ip: named("10.0.0.1"), ..Entity::default() };
        assert_eq!(told(address, &[]), "quota of ip 10.0.0.1: none");
    }
}
