//! Quotas as data: for whom a limit is meant, which limits there are, and which of them holds for a client.

use std::collections::{BTreeMap, HashMap};

/// One limit. Kafka's names, and what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quota {
    /// Bytes of Produce requests per second.
    ProducerByteRate,
    /// Bytes of Fetch answers per second.
    ConsumerByteRate,
    /// Time that requests take, in percent of one processor.
    RequestPercentage,
    /// Connections per second of one address.
    ConnectionCreationRate,
    /// Partitions per second that are made and deleted (KIP-599).
    ControllerMutationRate,
}

impl Quota {
    /// In the order in which Kafka tells up to three of them that were set at once: tests of clients expect it.
    const ALL: [(Quota, &'static str); 5] = [
        (Quota::ConsumerByteRate, "consumer_byte_rate"),
        (Quota::ControllerMutationRate, "controller_mutation_rate"),
        (Quota::RequestPercentage, "request_percentage"),
        (Quota::ProducerByteRate, "producer_byte_rate"),
        (Quota::ConnectionCreationRate, "connection_creation_rate"),
    ];

    fn named(name: &str) -> Option<Quota> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(quota, _)| quota)
    }

    /// Kafka wants whole numbers for rates of bytes and of connections.
    fn is_whole(self) -> bool {
        !matches!(self, Quota::RequestPercentage | Quota::ControllerMutationRate)
    }
}

/// What stands at one place of an entity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Everybody who has no limit by name.
    Default,
    /// One by name.
    Named(String),
}

impl Part {
    fn named(name: &str) -> Part {
        Part::Named(name.to_owned())
    }
}

/// For whom limits are meant: a user, a client id, both of them, or an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity {
    /// The user, without `User:`.
    pub user: Option<Part>,
    /// The client id.
    pub client_id: Option<Part>,
    /// The address; it stands alone.
    pub ip: Option<Part>,
}

/// The limits of one entity, above 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits([Option<f64>; Quota::ALL.len()]);

impl Limits {
    /// One limit.
    pub fn get(&self, quota: Quota) -> Option<f64> {
        self.0[quota as usize]
    }

    /// Names and values of what is set.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        Quota::ALL.into_iter().filter_map(|(quota, name)| Some((name, self.get(quota)?)))
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Sets a limit or takes it away.
    ///
    /// # Errors
    /// For people: a name that is not known, a value that the limit cannot have.
    pub fn set(&mut self, name: &str, value: Option<f64>) -> Result<(), String> {
        let Some(quota) = Quota::named(name) else {
            let names: Vec<&str> = Quota::ALL.iter().map(|(_, name)| *name).collect();
            return Err(format!("Invalid configuration key {name}; limits here are {}", names.join(", ")));
        };
        if let Some(value) = value {
            if !value.is_finite() || value <= 0.0 {
                return Err(format!("{name} must be greater than 0, not {value}"));
            }
            if quota.is_whole() && (value + 1e-6).fract() > 2e-6 {
                return Err(format!("{name} must be a Long value, not {value}"));
            }
        }
        self.0[quota as usize] = value;
        Ok(())
    }

    /// Whether a name is one that entities of this kind can have.
    pub fn fits(name: &str, entity: &Entity) -> bool {
        Quota::named(name).is_some_and(|quota| (quota == Quota::ConnectionCreationRate) == entity.ip.is_some())
    }
}

/// A limit that holds for a client, and who shares it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    /// Per second.
    pub(crate) bound: f64,
    /// The user whose use counts, if the limit is a user's.
    pub(crate) user: Option<String>,
    /// The client id whose use counts, if the limit is a client id's.
    pub(crate) client_id: Option<String>,
}

/// All limits. `SecurityState` alone changes it, by records; the store keeps them over a crash.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    entities: BTreeMap<Entity, Limits>,
    /// How many entities have each limit, so that a request without limits costs one look.
    set: HashMap<Quota, usize>,
}

impl Quotas {
    /// Sets the limits of an entity.
    pub(super) fn apply(&mut self, entity: &Entity, limits: &Limits) {
        let before = self.entities.remove(entity).unwrap_or_default();
        for (quota, _) in Quota::ALL {
            let count = self.set.entry(quota).or_default();
            *count = *count + usize::from(limits.get(quota).is_some()) - usize::from(before.get(quota).is_some());
        }
        if !limits.is_empty() {
            self.entities.insert(entity.clone(), limits.clone());
        }
    }

    pub(super) fn entities(&self) -> &BTreeMap<Entity, Limits> {
        &self.entities
    }

    /// Whether anybody has such a limit.
    pub(super) fn has(&self, quota: Quota) -> bool {
        self.set.get(&quota).is_some_and(|count| *count > 0)
    }

    /// The limit that holds for a client: the most exact one, in Kafka's order.
    pub(super) fn limit(&self, quota: Quota, user: &str, client_id: &str) -> Option<Limit> {
        use Part::Default;
        let named = || (Some(Part::named(user)), Some(Part::named(client_id)));
        let ((user_part, client_part), some) = (named(), |part| Some(part));
        let candidates = [
            (user_part.clone(), client_part.clone()),
            (user_part.clone(), some(Default)),
            (user_part, None),
            (some(Default), client_part.clone()),
            (some(Default), some(Default)),
            (some(Default), None),
            (None, client_part),
            (None, some(Default)),
        ];
        candidates.into_iter().find_map(|(by_user, by_client)| {
            let shared_by = (by_user.is_some(), by_client.is_some());
            let entity = Entity { user: by_user, client_id: by_client, ip: None };
            let bound = self.entities.get(&entity)?.get(quota)?;
            let (user, client_id) = (shared_by.0.then(|| user.to_owned()), shared_by.1.then(|| client_id.to_owned()));
            Some(Limit { bound, user, client_id })
        })
    }

    /// Connections per second that an address may make.
    pub(super) fn connections(&self, ip: &str) -> Option<f64> {
        [Part::named(ip), Part::Default].into_iter().find_map(|part| {
            let entity = Entity { ip: Some(part), ..Entity::default() };
            self.entities.get(&entity)?.get(Quota::ConnectionCreationRate)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: &str, client: &str) -> Entity {
        let part = |name: &str| match name {
            "" => None,
            "*" => Some(Part::Default),
            name => Some(Part::named(name)),
        };
        Entity { user: part(user), client_id: part(client), ip: None }
    }

    #[test]
    fn the_most_exact_limit_holds() {
        let mut quotas = Quotas::default();
        let quota = Quota::ProducerByteRate;
        assert!(!quotas.has(quota));
        // from the least exact on, so that each new one takes the place of the one before
        let order = [("", "*"), ("", "c"), ("*", ""), ("*", "*"), ("*", "c"), ("u", ""), ("u", "*"), ("u", "c")];
        for (i, (user, client)) in order.into_iter().enumerate() {
            let mut limits = Limits::default();
            limits.set("producer_byte_rate", Some(i as f64 + 1.0)).unwrap();
            quotas.apply(&entity(user, client), &limits);
            let limit = quotas.limit(quota, "u", "c").unwrap();
            assert_eq!(limit.bound, i as f64 + 1.0, "{user}/{client}");
            let shared_by = (limit.user.is_some(), limit.client_id.is_some());
            assert_eq!(shared_by, (!user.is_empty(), !client.is_empty()));
        }
        assert_eq!(quotas.limit(quota, "v", "d").unwrap().bound, 4.0, "the default user's default client");
        assert_eq!(quotas.limit(Quota::ConsumerByteRate, "u", "c"), None);
        for (user, client) in order {
            assert!(quotas.has(quota));
            quotas.apply(&entity(user, client), &Limits::default());
        }
        assert!(!quotas.has(quota) && quotas.entities().is_empty());
    }

    #[test]
    fn values_are_checked() {
        let mut limits = Limits::default();
        for (name, value) in [
            ("no_such_rate", 1.0),
            ("producer_byte_rate", 0.0),
            ("producer_byte_rate", 1.5),
            ("request_percentage", f64::NAN),
            ("consumer_byte_rate", -1.0),
            ("controller_mutation_rate", 0.0),
        ] {
            assert!(limits.set(name, Some(value)).is_err(), "{name} {value}");
        }
        assert!(limits.is_empty());
        limits.set("request_percentage", Some(0.5)).unwrap();
        limits.set("controller_mutation_rate", Some(1.5)).unwrap();
        let set = [("controller_mutation_rate", 1.5), ("request_percentage", 0.5)];
        assert_eq!(limits.iter().collect::<Vec<_>>(), set);
        assert!(Limits::fits("request_percentage", &entity("u", "")));
        let ip = Entity { ip: Some(Part::Default), ..Entity::default() };
        assert!(Limits::fits("connection_creation_rate", &ip) && !Limits::fits("producer_byte_rate", &ip));
        let mut quotas = Quotas::default();
        let mut limits = Limits::default();
        limits.set("connection_creation_rate", Some(7.0)).unwrap();
        quotas.apply(&ip, &limits);
        assert_eq!(quotas.connections("1.2.3.4"), Some(7.0));
    }
}
