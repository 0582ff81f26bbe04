//! Settings of the Kafka port's security.

use std::fmt;
use std::path::PathBuf;

/// How a listener speaks and who may come in. The names are Kafka's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// In the clear, everybody is `User:ANONYMOUS`.
    #[default]
    Plaintext,
    /// TLS; who shows a certificate is its subject.
    Ssl,
    /// In the clear, with a login.
    SaslPlaintext,
    /// TLS, with a login.
    SaslSsl,
}

impl ListenerProtocol {
    /// Kafka's names, in the order of the variants.
    pub const NAMES: &'static [&'static str] = &["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

    /// The protocol of a name in [`Self::NAMES`]; other names are `PLAINTEXT`.
    pub fn named(name: &str) -> Self {
        [Self::Ssl, Self::SaslPlaintext, Self::SaslSsl].into_iter().find(|one| one.name() == name).unwrap_or_default()
    }

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether there is TLS.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether there is a login.
    pub fn has_login(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They may; a wrong one is refused.
    Requested,
    /// They must.
    Required,
}

/// Files for TLS, all PEM. They are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate and what leads from it to the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities that clients' certificates must come from; needed unless clients are not asked.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
}

/// A text that is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A user that the configuration names.
#[derive(Clone, Debug)]
pub struct UserConfig {
    /// Its name, without `User:`.
    pub name: String,
    /// Its password, for every mechanism.
    pub password: Secret,
}

/// Settings of the Kafka port's security.
#[derive(Clone, Debug)]
pub struct SecurityConfig {
    /// Whether ACLs are asked; without them everybody may do everything.
    pub authorizer: bool,
    /// Principals that may do everything, as `User:name`.
    pub super_users: Vec<String>,
    /// Whether a resource that no rule speaks of is open to everybody.
    pub allow_everyone_if_no_acl_found: bool,
    /// Mechanisms that a login may use, by Kafka's names.
    pub mechanisms: Vec<String>,
    /// Users at set-up.
    pub users: Vec<UserConfig>,
    /// How long a login holds before the client must log in again; 0 is for ever.
    pub reauthentication_ms: i64,
    /// How long a client may take to be let in: TLS and login together.
    pub handshake_ms: u64,
    /// File of the audit log, besides the process' log.
    pub audit_log: Option<PathBuf>,
}

impl SecurityConfig {
    /// Every mechanism there is.
    pub const MECHANISMS: &'static [&'static str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            authorizer: false,
            super_users: Vec::new(),
            allow_everyone_if_no_acl_found: false,
            mechanisms: Self::MECHANISMS.iter().map(|name| (*name).to_owned()).collect(),
            users: Vec::new(),
            reauthentication_ms: 0,
            handshake_ms: 10_000,
            audit_log: None,
        }
    }
}
