//! Recorded changes of ACLs, users and quotas, and their bytes.
//!
//! ```text
//! meta  "acl" ++ type u8 ++ pattern u8 ++ operation u8 ++ permission u8 ++ text(name) ++ text(principal) ++ host
//!         → format u8
//! meta  "scram" ++ mechanism u8 ++ user
//!         → format u8 ++ iterations u32 ++ salt length u8 ++ salt ++ StoredKey ++ ServerKey
//! meta  "configured-user" ++ user
//!         → format u8: the user's credentials come from the configuration
//! meta  "quota" ++ part(user) ++ part(client id) ++ part(ip)
//!         → JSON {"v":1,"producer_byte_rate":1024.0,…}, each left out when unset
//! ```
//!
//! Numbers are big-endian, those of types and operations are Kafka's. `text` is a length u16 and UTF-8, `part` is u8 0
//! (not in the entity), 1 (the default) or 2 and a text. Keys are as long as the mechanism's hash.

use std::collections::BTreeMap;

use super::acl::{Acl, Operation, PatternType, Permission, ResourceType};
use super::quota::{Entity, Limits, Part};
use super::scram::{Credential, ScramMechanism};
use crate::error::{Error, Kind, Result};
use crate::lane::Change;
use crate::log::keys::damaged;
use crate::store::{Family, Store};

const ACL_PREFIX: &[u8] = b"acl";
const SCRAM_PREFIX: &[u8] = b"scram";
const CONFIGURED_PREFIX: &[u8] = b"configured-user";
const QUOTA_PREFIX: &[u8] = b"quota";
const FORMAT: u8 = 1;
/// Longest name of anything here, so that a length takes 16 bits.
pub(super) const NAME_BYTES_MAX: usize = i16::MAX as usize;
/// Longest salt.
pub(super) const SALT_BYTES_MAX: usize = u8::MAX as usize;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum SecurityRecord {
    /// A rule holds.
    Acl(Acl),
    /// A rule holds no longer.
    AclGone(Acl),
    /// A user can log in by a mechanism.
    Credential(String, ScramMechanism, Credential),
    /// A user can no longer log in by a mechanism.
    CredentialGone(String, ScramMechanism),
    /// A user's credentials come from the configuration.
    Configured(String),
    /// A user's credentials come from the configuration no longer.
    ConfiguredGone(String),
    /// The limits of an entity; none of them takes the entry away.
    Quota(Entity, Limits),
}

impl SecurityRecord {
    /// What the commit lane writes.
    pub(super) fn change(&self) -> Result<Change> {
        Ok(match self {
            Self::Acl(acl) => Change::Put(Family::Meta, acl_key(acl)?, vec![FORMAT]),
            Self::AclGone(acl) => Change::Delete(Family::Meta, acl_key(acl)?),
            Self::Credential(user, mechanism, credential) => {
                Change::Put(Family::Meta, scram_key(user, *mechanism), credential_value(credential)?)
            }
            Self::CredentialGone(user, mechanism) => Change::Delete(Family::Meta, scram_key(user, *mechanism)),
            Self::Configured(user) => Change::Put(Family::Meta, configured_key(user), vec![FORMAT]),
            Self::ConfiguredGone(user) => Change::Delete(Family::Meta, configured_key(user)),
            Self::Quota(entity, limits) if limits.is_empty() => Change::Delete(Family::Meta, quota_key(entity)?),
            Self::Quota(entity, limits) => Change::Put(Family::Meta, quota_key(entity)?, quota_value(limits)?),
        })
    }
}

fn acl_key(acl: &Acl) -> Result<Vec<u8>> {
    let mut key = ACL_PREFIX.to_vec();
    key.extend([acl.resource_type as u8, acl.pattern as u8, acl.operation as u8, acl.permission as u8]);
    put_text(&mut key, &acl.name)?;
    put_text(&mut key, &acl.principal)?;
    key.extend_from_slice(acl.host.as_bytes());
    Ok(key)
}

fn scram_key(user: &str, mechanism: ScramMechanism) -> Vec<u8> {
    [SCRAM_PREFIX, &[mechanism as u8], user.as_bytes()].concat()
}

fn configured_key(user: &str) -> Vec<u8> {
    [CONFIGURED_PREFIX, user.as_bytes()].concat()
}

fn credential_value(credential: &Credential) -> Result<Vec<u8>> {
    let salt_bytes = u8::try_from(credential.salt.len())
        .map_err(|_| Error::new(Kind::Bug, "a salt longer than 255 bytes got through"))?;
    let mut value = vec![FORMAT];
    value.extend(credential.iterations.to_be_bytes());
    value.push(salt_bytes);
    value.extend_from_slice(&credential.salt);
    value.extend_from_slice(&credential.stored_key);
    value.extend_from_slice(&credential.server_key);
    Ok(value)
}

fn quota_key(entity: &Entity) -> Result<Vec<u8>> {
    let mut key = QUOTA_PREFIX.to_vec();
    for part in [&entity.user, &entity.client_id, &entity.ip] {
        match part {
            None => key.push(0),
            Some(Part::Default) => key.push(1),
            Some(Part::Named(name)) => {
                key.push(2);
                put_text(&mut key, name)?;
            }
        }
    }
    Ok(key)
}

fn quota_value(limits: &Limits) -> Result<Vec<u8>> {
    let mut value = serde_json::Map::from_iter([("v".to_owned(), FORMAT.into())]);
    value.extend(limits.iter().map(|(name, limit)| (name.to_owned(), limit.into())));
    serde_json::to_vec(&value).map_err(|e| Error::new(Kind::Bug, format!("quota record: {e}")))
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    let bytes = u16::try_from(text.len()).map_err(|_| Error::new(Kind::Bug, "a name of 64 KiB got through"))?;
    out.extend(bytes.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Everything stored.
pub(super) fn stored(store: &Store) -> impl Iterator<Item = Result<SecurityRecord>> + '_ {
    let read = [
        (ACL_PREFIX, read_acl as fn(&[u8], &[u8]) -> Option<SecurityRecord>),
        (SCRAM_PREFIX, read_credential),
        (CONFIGURED_PREFIX, read_configured),
        (QUOTA_PREFIX, read_quota),
    ];
    read.into_iter().flat_map(move |(prefix, read)| {
        let end = [&prefix[..prefix.len() - 1], &[prefix[prefix.len() - 1] + 1]].concat();
        store.scan(Family::Meta, prefix, &end).map(move |entry| {
            let (key, value) = entry?;
            read(&key[prefix.len()..], &value).ok_or_else(|| damaged("security record", &value))
        })
    })
}

fn read_acl(key: &[u8], value: &[u8]) -> Option<SecurityRecord> {
    let ([kind, pattern, operation, permission], rest) = key.split_first_chunk::<4>()?;
    let (name, rest) = text(rest)?;
    let (principal, host) = text(rest)?;
    let acl = Acl {
        resource_type: ResourceType::from_code(kind.cast_signed())?,
        pattern: PatternType::from_code(pattern.cast_signed())?,
        name,
        principal,
        host: String::from_utf8(host.to_vec()).ok()?,
        operation: Operation::from_code(operation.cast_signed())?,
        permission: Permission::from_code(permission.cast_signed())?,
    };
    (value == [FORMAT]).then_some(SecurityRecord::Acl(acl))
}

fn read_credential(key: &[u8], value: &[u8]) -> Option<SecurityRecord> {
    let (mechanism, user) = key.split_first()?;
    let mechanism = ScramMechanism::from_code(mechanism.cast_signed())?;
    let user = String::from_utf8(user.to_vec()).ok()?;
    let rest = value.strip_prefix(&[FORMAT])?;
    let (iterations, rest) = rest.split_first_chunk::<4>()?;
    let (salt_bytes, rest) = rest.split_first()?;
    let (salt, keys) = rest.split_at_checked(usize::from(*salt_bytes))?;
    let (stored_key, server_key) = keys.split_at_checked(mechanism.key_bytes())?;
    let credential = Credential {
        salt: salt.to_vec(),
        iterations: u32::from_be_bytes(*iterations),
        stored_key: stored_key.to_vec(),
        server_key: server_key.to_vec(),
    };
    (server_key.len() == mechanism.key_bytes()).then_some(SecurityRecord::Credential(user, mechanism, credential))
}

fn read_configured(user: &[u8], value: &[u8]) -> Option<SecurityRecord> {
    let user = String::from_utf8(user.to_vec()).ok()?;
    (value == [FORMAT]).then_some(SecurityRecord::Configured(user))
}

fn read_quota(key: &[u8], value: &[u8]) -> Option<SecurityRecord> {
    let (user, rest) = part(key)?;
    let (client_id, rest) = part(rest)?;
    let (ip, rest) = part(rest)?;
    let mut values: BTreeMap<String, f64> = serde_json::from_slice(value).ok()?;
    let known = values.remove("v") == Some(f64::from(FORMAT)) && rest.is_empty();
    let mut limits = Limits::default();
    for (name, value) in values {
        limits.set(&name, Some(value)).ok()?;
    }
    known.then_some(SecurityRecord::Quota(Entity { user, client_id, ip }, limits))
}

fn part(bytes: &[u8]) -> Option<(Option<Part>, &[u8])> {
    match bytes.split_first()? {
        (0, rest) => Some((None, rest)),
        (1, rest) => Some((Some(Part::Default), rest)),
        (2, rest) => text(rest).map(|(name, rest)| (Some(Part::Named(name)), rest)),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::super::acl::tests::acl;
    use super::*;

    fn put(record: &SecurityRecord) -> (Vec<u8>, Vec<u8>) {
        match record.change().unwrap() {
            Change::Put(Family::Meta, key, value) => (key, value),
            Change::Delete(Family::Meta, key) => (key, Vec::new()),
            _ => panic!("another change"),
        }
    }

    /// What is on disks must stay readable: these bytes never change.
    #[test]
    fn stored_bytes_are_drawn() {
        let rule = SecurityRecord::Acl(acl("allow topic prefixed ord User:ann 10.0.0.1 read"));
        let (key, value) = put(&rule);
        assert_eq!(key, b"acl\x02\x04\x03\x03\0\x03ord\0\x08User:ann10.0.0.1");
        assert_eq!(value, [1]);
        assert_eq!(read_acl(&key[3..], &value), Some(rule));
        assert_eq!(read_acl(&key[3..], &[2]), None);
        assert_eq!(read_acl(&key[4..], &value), None);

        let credential =
            Credential { salt: vec![9, 8], iterations: 4096, stored_key: vec![1; 32], server_key: vec![2; 32] };
        let user = SecurityRecord::Credential("ann".into(), ScramMechanism::Sha256, credential);
        let (key, value) = put(&user);
        assert_eq!(key, b"scram\x01ann");
        let drawn = [&[1, 0, 0, 16, 0, 2, 9, 8][..], &[1; 32], &[2; 32]].concat();
        assert_eq!(value, drawn);
        assert_eq!(read_credential(&key[5..], &value), Some(user));
        assert_eq!(read_credential(&key[5..], &value[..value.len() - 1]), None);
        let gone = SecurityRecord::CredentialGone("ann".into(), ScramMechanism::Sha256);
        assert_eq!(put(&gone), (key, Vec::new()));

        let configured = SecurityRecord::Configured("ann".into());
        let (key, value) = put(&configured);
        assert_eq!((&key[..], &value[..]), (&b"configured-userann"[..], &[1][..]));
        assert_eq!(read_configured(&key[15..], &value), Some(configured));
        assert_eq!(read_configured(&key[15..], &[2]), None);
        assert_eq!(put(&SecurityRecord::ConfiguredGone("ann".into())), (key, Vec::new()));

        let entity = Entity { user: Some(Part::Named("ann".into())), client_id: Some(Part::Default), ip: None };
        let mut limits = Limits::default();
        limits.set("request_percentage", Some(12.5)).unwrap();
        let quota = SecurityRecord::Quota(entity.clone(), limits);
        let (key, value) = put(&quota);
        assert_eq!(key, b"quota\x02\0\x03ann\x01\0");
        assert_eq!(value, br#"{"v":1,"request_percentage":12.5}"#);
        assert_eq!(read_quota(&key[5..], &value), Some(quota));
        assert_eq!(read_quota(&key[5..], br#"{"v":2}"#), None);
        assert_eq!(put(&SecurityRecord::Quota(entity, Limits::default())), (key, Vec::new()));
    }
}
