//! Who may come in, what they may do, and how much of it.
//!
//! ```text
//! tls.rs       certificates, read again when they change; names of clients from them    listeners' TLS
//! session.rs   one connection: nothing before a login, nothing after it ran out         sasl.rs scram.rs  logins
//! acl.rs       rules and filters as data      rules.rs   the rules in force, indexed    authorize below
//! quota.rs     limits as data      rates.rs tokens.rs   use, and how long to be still      clients.rs   whose
//! records.rs   the stored bytes of rules, credentials and limits                        audit.rs  what was refused
//! ```
//! Changes are decided, recorded in one commit and applied, as everywhere: [`Security::change`].

pub mod acl;
mod audit;
mod base64;
mod clients;
mod config;
pub mod quota;
mod rates;
mod records;
mod rules;
pub(crate) mod sasl;
pub mod scram;
pub(crate) mod session;
mod state;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod tokens;

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use self::acl::{Operation, Resource, ResourceType};
use self::audit::Audit;
pub(crate) use self::audit::Peer;
pub use self::config::{ClientAuth, ListenerProtocol, Secret, SecurityConfig, TlsConfig, UserConfig};
use self::quota::{Limit, Quota};
use self::rates::Rates;
pub use self::records::SecurityRecord;
use self::rules::Verdict;
use self::scram::{Credential, ScramMechanism};
pub use self::state::SecurityState;
use self::tokens::Buckets;
use crate::clock::Clock;
use crate::completion::to_the_end;
use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Lane};
use crate::store::Store;

/// Most rules.
pub const ACLS_MAX: usize = 100_000;
/// Most credentials.
pub const CREDENTIALS_MAX: usize = 100_000;
/// Most entities with limits.
pub const QUOTAS_MAX: usize = 100_000;
const ANONYMOUS: &str = "User:ANONYMOUS";

/// Who somebody is: `User:name`. Names of certificates are as Kafka's DEFAULT mapping gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal(String);

impl Principal {
    /// A user by name.
    pub fn user(name: &str) -> Self {
        Self(format!("User:{name}"))
    }

    /// The name without its type.
    pub fn user_name(&self) -> &str {
        self.0.strip_prefix("User:").unwrap_or(&self.0)
    }

    /// Type and name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Principal {
    /// Whoever did not say.
    fn default() -> Self {
        Self(ANONYMOUS.to_owned())
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Security of the Kafka port. Holds: settings, and rules, credentials and limits as the store has them. Changes are
/// decided one at a time under `changing` and are seen once they are durable. A crash keeps every change that was
/// answered, and forgets what clients used.
pub struct Security {
    config: SecurityConfig,
    lane: Arc<Lane>,
    clock: Clock,
    changing: Arc<tokio::sync::Mutex<()>>,
    state: Arc<RwLock<SecurityState>>,
    rates: Mutex<Rates>,
    buckets: Mutex<Buckets>,
    audit: Audit,
    /// For this process alone: salts of users that are not there, comparison of passwords.
    secret: [u8; 24],
}

impl Security {
    /// Reads what is stored. Blocks.
    ///
    /// # Errors
    /// `Storage` when it is damaged, `Config` when the audit log cannot be written.
    pub(crate) fn recover(store: &Store, lane: Arc<Lane>, config: SecurityConfig, clock: Clock) -> Result<Self> {
        let state = read(store)?;
        let audit = Audit::open(config.audit_log.as_deref())?;
        let secret = scram::random().map_err(|error| Error::new(Kind::Config, error))?;
        let state = Arc::new(RwLock::new(state));
        let (changing, rates, buckets) = (Arc::default(), Mutex::default(), Mutex::default());
        Ok(Self { config, lane, clock, changing, state, rates, buckets, audit, secret })
    }

    /// Gives the users of the configuration the credentials that their passwords make, where they have others, and takes
    /// those away that the configuration gave to users whom it names no longer.
    ///
    /// # Errors
    /// `Storage`.
    pub(crate) async fn set_up_users(self: &Arc<Self>) -> Result<()> {
        let offered: Vec<ScramMechanism> = ScramMechanism::ALL
            .into_iter()
            .filter(|one| self.mechanisms().any(|name| name == sasl::Mechanism::Scram(*one).name()))
            .collect();
        let own = self.clone();
        let records = crate::log::blocking(move || {
            let mut records = own.read(|state| state.configure(&own.config.users));
            for user in &own.config.users {
                for mechanism in offered.iter().copied() {
                    let known = own.read(|state| state.credential(&user.name, mechanism).cloned());
                    if known.is_some_and(|known| known.is_of(mechanism, &user.password.0)) {
                        continue;
                    }
                    let salt = scram::random().map_err(|error| Error::new(Kind::Config, error))?.to_vec();
                    let made = Credential::of_password(mechanism, &user.password.0, salt, scram::ITERATIONS);
                    records.push(SecurityRecord::Credential(user.name.clone(), mechanism, made));
                }
            }
            Ok(records)
        });
        let records = records.await?;
        self.change(move |_| Ok::<_, Error>((records, ()))).await
    }

    /// Its settings.
    pub fn config(&self) -> &SecurityConfig {
        &self.config
    }

    /// Mechanisms that are offered, by Kafka's names.
    pub(crate) fn mechanisms(&self) -> impl Iterator<Item = &str> {
        self.config.mechanisms.iter().map(String::as_str)
    }

    /// The audit log.
    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Looks at the state as it is now.
    pub fn read<T>(&self, look: impl FnOnce(&SecurityState) -> T) -> T {
        look(&self.state.read())
    }

    /// Decides a change and makes it; nothing else changes meanwhile, and it is durable when this returns. No records
    /// is no change.
    ///
    /// # Errors
    /// What `decide` refuses; `Storage` when the change cannot be written.
    pub async fn change<T, E>(
        &self,
        decide: impl FnOnce(&SecurityState) -> std::result::Result<(Vec<SecurityRecord>, T), E>,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error>,
    {
        let changing = self.changing.clone().lock_owned().await;
        let (records, answer) = decide(&self.state.read())?;
        if records.is_empty() {
            return Ok(answer);
        }
        let changes = records.iter().map(SecurityRecord::change).collect::<Result<Vec<_>>>()?;
        let (commit, state) = (self.lane.commit(changes, Ack::Durable), self.state.clone());
        to_the_end("security", async move {
            commit.await?;
            let mut state = state.write();
            records.iter().for_each(|record| state.apply(record));
            drop(changing);
            Ok(())
        })
        .await?;
        Ok(answer)
    }

    /// Whether `principal` on `host` may do `operation` on `resource`.
    pub(crate) fn allows(
        &self,
        principal: &Principal,
        host: &str,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        self.is_free(principal)
            || match self.read(|state| state.rules.judge(principal.as_str(), host, operation, resource)) {
                Verdict::Allowed => true,
                Verdict::Denied => false,
                Verdict::Silent => self.config.allow_everyone_if_no_acl_found,
            }
    }

    /// Whether there may be some resource of this type on which it is allowed.
    pub(crate) fn allows_some(
        &self,
        principal: &Principal,
        host: &str,
        operation: Operation,
        kind: ResourceType,
    ) -> bool {
        self.is_free(principal)
            || self.config.allow_everyone_if_no_acl_found
            || self.read(|state| state.rules.allows_some(principal.as_str(), host, operation, kind))
    }

    /// Whether nobody asks what it does.
    fn is_free(&self, principal: &Principal) -> bool {
        !self.config.authorizer || self.config.super_users.iter().any(|name| name == principal.as_str())
    }

    /// The limit that holds for a client, if any.
    pub(crate) fn limit(&self, quota: Quota, principal: &Principal, client_id: &str) -> Option<Limit> {
        self.read(|state| {
            let quotas = &state.quotas;
            if quotas.has(quota) { quotas.limit(quota, principal.user_name(), client_id) } else { None }
        })
    }

    /// Counts what a client used and says for how many milliseconds it must be still.
    pub(crate) fn used(&self, quota: Quota, limit: Limit, amount: f64) -> i64 {
        self.rates.lock().record(quota, limit, amount, self.clock.steady_ms())
    }

    /// Takes back what was counted for an answer that is not sent.
    pub(crate) fn unused(&self, quota: Quota, limit: Limit, amount: f64) {
        self.rates.lock().take_back(quota, limit, amount, self.clock.steady_ms());
    }

    /// Counts partitions that a client makes or deletes, and says for how many milliseconds it must be still.
    ///
    /// # Errors
    /// With `strict`, nothing is counted while the limit is used up: for how many milliseconds it is.
    pub(crate) fn mutates(&self, limit: Limit, partitions: f64, strict: bool) -> Result<i64, i64> {
        self.buckets.lock().take(limit, partitions, strict, self.clock.steady_ms())
    }

    /// Counts a new connection of an address and says for how many milliseconds it makes too many.
    pub(crate) fn connected(&self, host: &str) -> i64 {
        let bound = self.read(|state| {
            if state.quotas.has(Quota::ConnectionCreationRate) { state.quotas.connections(host) } else { None }
        });
        let Some(bound) = bound else { return 0 };
        let limit = Limit { bound, user: None, client_id: Some(host.to_owned()) };
        self.used(Quota::ConnectionCreationRate, limit, 1.0)
    }

    /// Bytes that one Fetch answer may have under a limit.
    pub(crate) fn answer_bytes_max(limit: &Limit) -> usize {
        rates::answer_bytes_max(limit.bound)
    }
}

/// What is stored.
///
/// # Errors
/// `Storage` when it is damaged.
pub(crate) fn read(store: &Store) -> Result<SecurityState> {
    let mut state = SecurityState::default();
    for record in records::stored(store) {
        state.apply(&record?);
    }
    Ok(state)
}
