//! Rules, credentials and limits as they are, changed by records alone, and the pure decisions about changing them.

use std::collections::{BTreeMap, BTreeSet};

use super::acl::{Acl, AclFilter, CLUSTER_NAME, ResourceType};
use super::quota::{Entity, Limits, Quotas};
use super::records::{NAME_BYTES_MAX, SALT_BYTES_MAX, SecurityRecord};
use super::rules::Rules;
use super::scram::{Credential, ITERATIONS_MAX, ITERATIONS_MIN, ScramMechanism};
use super::{ACLS_MAX, CREDENTIALS_MAX, QUOTAS_MAX, UserConfig};
use crate::error::{Error, Kind, Result};

/// What is stored, in memory. Only [`SecurityState::apply`] changes it, live and in recovery alike.
#[derive(Debug, Default)]
pub struct SecurityState {
    pub(super) rules: Rules,
    pub(super) quotas: Quotas,
    credentials: BTreeMap<String, BTreeMap<ScramMechanism, Credential>>,
    configured: BTreeSet<String>,
}

impl SecurityState {
    /// Takes a record in.
    pub(super) fn apply(&mut self, record: &SecurityRecord) {
        match record {
            SecurityRecord::Acl(acl) => self.rules.insert(acl),
            SecurityRecord::AclGone(acl) => self.rules.remove(acl),
            SecurityRecord::Quota(entity, limits) => self.quotas.apply(entity, limits),
            SecurityRecord::Configured(user) => drop(self.configured.insert(user.clone())),
            SecurityRecord::ConfiguredGone(user) => drop(self.configured.remove(user)),
            SecurityRecord::Credential(user, mechanism, credential) => {
                self.credentials.entry(user.clone()).or_default().insert(*mechanism, credential.clone());
            }
            SecurityRecord::CredentialGone(user, mechanism) => {
                if let Some(own) = self.credentials.get_mut(user) {
                    own.remove(mechanism);
                    if own.is_empty() {
                        self.credentials.remove(user);
                    }
                }
            }
        }
    }

    /// The rules that a filter means, in a fixed order.
    pub fn acls(&self, filter: &AclFilter) -> Vec<Acl> {
        let mut found: Vec<Acl> = self.rules.iter().filter(|acl| filter.matches(acl)).cloned().collect();
        found.sort();
        found
    }

    /// A user's credential.
    pub fn credential(&self, user: &str, mechanism: ScramMechanism) -> Option<&Credential> {
        self.credentials.get(user)?.get(&mechanism)
    }

    /// Users by name, with the iterations of each mechanism.
    pub fn users(&self) -> BTreeMap<String, Vec<(ScramMechanism, u32)>> {
        let shown = |own: &BTreeMap<ScramMechanism, Credential>| own.iter().map(|(m, c)| (*m, c.iterations)).collect();
        self.credentials.iter().map(|(user, own)| (user.clone(), shown(own))).collect()
    }

    /// What keeps users that the configuration names no longer from logging in, and remembers those that it names.
    pub(super) fn configure(&self, users: &[UserConfig]) -> Vec<SecurityRecord> {
        let named: BTreeSet<&str> = users.iter().map(|user| &*user.name).collect();
        let mut records = Vec::new();
        for user in self.configured.iter().filter(|user| !named.contains(user.as_str())) {
            let own = self.credentials.get(user).into_iter().flat_map(BTreeMap::keys);
            records.extend(own.map(|mechanism| SecurityRecord::CredentialGone(user.clone(), *mechanism)));
            records.push(SecurityRecord::ConfiguredGone(user.clone()));
        }
        let new = named.into_iter().filter(|user| !self.configured.contains(*user));
        records.extend(new.map(|user| SecurityRecord::Configured(user.to_owned())));
        records
    }

    /// Entities that have limits.
    pub fn quotas(&self) -> &BTreeMap<Entity, Limits> {
        self.quotas.entities()
    }

    /// Decides whether a rule may be added; a rule that is there already is no record.
    ///
    /// # Errors
    /// `InvalidRequest`; `PolicyViolation` when there are too many.
    pub(crate) fn add_acl(&self, acl: Acl, added_before: usize) -> Result<Option<SecurityRecord>> {
        let refuse = |message: String| Err(Error::new(Kind::InvalidRequest, message));
        if acl.name.is_empty() {
            return refuse("Invalid empty resource name".to_owned());
        }
        if acl.resource_type == ResourceType::Cluster && acl.name != CLUSTER_NAME {
            return refuse(format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}"));
        }
        if !acl.principal.contains(':') {
            let principal = acl.principal.escape_debug();
            return refuse(format!(
                "Could not parse principal from `{principal}` (no colon is present separating the principal type from the principal name)"
            ));
        }
        if [&acl.name, &acl.principal, &acl.host].iter().any(|text| text.len() > NAME_BYTES_MAX) {
            return refuse(format!("a name is longer than {NAME_BYTES_MAX} bytes"));
        }
        if self.rules.contains(&acl) {
            return Ok(None);
        }
        if self.rules.len() + added_before >= ACLS_MAX {
            return Err(too_many("ACLs", ACLS_MAX));
        }
        Ok(Some(SecurityRecord::Acl(acl)))
    }

    /// Decides whether a user's credential may be set.
    ///
    /// # Errors
    /// `UnacceptableCredential`; `PolicyViolation` when there are too many.
    pub(crate) fn set_credential(
        &self,
        user: &str,
        mechanism: ScramMechanism,
        (salt, iterations, salted_password): (&[u8], i32, &[u8]),
    ) -> Result<SecurityRecord> {
        let refuse = |message: String| Err(Error::new(Kind::UnacceptableCredential, message));
        check_user(user)?;
        let iterations = u32::try_from(iterations).unwrap_or(0);
        if iterations < ITERATIONS_MIN {
            return refuse(format!("Too few iterations; at least {ITERATIONS_MIN}"));
        }
        if iterations > ITERATIONS_MAX {
            return refuse(format!("Too many iterations; at most {ITERATIONS_MAX}"));
        }
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX || salted_password.len() != mechanism.key_bytes() {
            let key_bytes = mechanism.key_bytes();
            return refuse(format!("a salt has 1 to {SALT_BYTES_MAX} bytes, a salted password {key_bytes}"));
        }
        let count: usize = self.credentials.values().map(BTreeMap::len).sum();
        if count >= CREDENTIALS_MAX && self.credential(user, mechanism).is_none() {
            return Err(too_many("credentials", CREDENTIALS_MAX));
        }
        let credential = Credential::of_salted(mechanism, salt.to_vec(), iterations, salted_password);
        Ok(SecurityRecord::Credential(user.to_owned(), mechanism, credential))
    }

    /// Decides whether a user's credential may go.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub(crate) fn remove_credential(&self, user: &str, mechanism: ScramMechanism) -> Result<SecurityRecord> {
        check_user(user)?;
        if self.credential(user, mechanism).is_none() {
            let message = "Attempt to delete a user credential that does not exist";
            return Err(Error::new(Kind::ResourceNotFound, message));
        }
        Ok(SecurityRecord::CredentialGone(user.to_owned(), mechanism))
    }

    /// Decides on new limits of an entity: names with a value, or with none to take the limit away.
    ///
    /// # Errors
    /// `InvalidRequest`; `PolicyViolation` when there are too many.
    pub(crate) fn alter_quota(&self, entity: &Entity, changes: &[(String, Option<f64>)]) -> Result<SecurityRecord> {
        let mut limits = self.quotas().get(entity).cloned().unwrap_or_default();
        for (name, value) in changes {
            let fitting = Limits::fits(name, entity).then_some(()).ok_or(format!("Invalid configuration key {name}"));
            fitting
                .and_then(|()| limits.set(name, *value))
                .map_err(|message| Error::new(Kind::InvalidRequest, message))?;
        }
        if self.quotas().len() >= QUOTAS_MAX && !self.quotas().contains_key(entity) {
            return Err(too_many("quotas", QUOTAS_MAX));
        }
        Ok(SecurityRecord::Quota(entity.clone(), limits))
    }
}

fn check_user(user: &str) -> Result<()> {
    if user.is_empty() || user.len() > NAME_BYTES_MAX {
        return Err(Error::new(
            Kind::UnacceptableCredential,
            "Username must not be empty, nor longer than 32767 bytes",
        ));
    }
    Ok(())
}

fn too_many(what: &str, most: usize) -> Error {
    Error::new(Kind::PolicyViolation, format!("there are {most} {what} already, remove some first"))
}
