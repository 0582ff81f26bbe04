//! Logins as machines: the client's token in, the server's token out, until it is known who the client is.

use ring::{digest, hmac};

use super::Security;
use super::scram::{self, Challenge, ScramMechanism};

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// Name and password (RFC 4616).
    Plain,
    /// A proof of the password (`scram.rs`).
    Scram(ScramMechanism),
}

impl Mechanism {
    /// The mechanism of Kafka's name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::Scram(ScramMechanism::Sha256), Self::Scram(ScramMechanism::Sha512)]
            .into_iter()
            .find(|one| one.name() == name)
    }

    /// Kafka's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(ScramMechanism::Sha256) => "SCRAM-SHA-256",
            Self::Scram(ScramMechanism::Sha512) => "SCRAM-SHA-512",
        }
    }
}

/// Why a login failed.
#[derive(Debug)]
pub(crate) struct LoginRefused {
    /// What the client is told.
    pub(crate) told: String,
    /// What the audit log says.
    pub(crate) reason: String,
}

/// What comes of a client's token.
pub(crate) enum Progress {
    /// The server's token; another one of the client is awaited.
    Challenge(Vec<u8>),
    /// It is this user; the server's last token.
    Done(String, Vec<u8>),
}

/// A login on its way.
pub(crate) struct Exchange {
    mechanism: Mechanism,
    challenge: Option<Challenge>,
}

impl Exchange {
    pub(crate) fn new(mechanism: Mechanism) -> Self {
        Self { mechanism, challenge: None }
    }

    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Reads a token. After a refusal the exchange is over.
    pub(crate) fn step(&mut self, security: &Security, token: &[u8]) -> Result<Progress, LoginRefused> {
        let refused = |reason: String| {
            let told = match self.mechanism {
                Mechanism::Plain => "Authentication failed: Invalid username or password".to_owned(),
                Mechanism::Scram(_) => format!(
                    "Authentication failed during authentication due to invalid credentials with SASL mechanism {}",
                    self.mechanism.name()
                ),
            };
            LoginRefused { told, reason }
        };
        let mechanism = match self.mechanism {
            Mechanism::Plain => {
                return plain(security, token).map(|user| Progress::Done(user, Vec::new())).map_err(refused);
            }
            Mechanism::Scram(mechanism) => mechanism,
        };
        if let Some(challenge) = self.challenge.take() {
            let user = challenge.user.clone();
            return challenge.finish(token).map(|last| Progress::Done(user, last)).map_err(refused);
        }
        let nonce = scram::random().map(|bytes| super::base64::encode(&bytes)).map_err(refused)?;
        let look_up = |user: &str| security.read(|state| state.credential(user, mechanism).cloned());
        let challenge = Challenge::new(mechanism, token, &nonce, &security.secret, look_up).map_err(refused)?;
        let message = challenge.message.clone();
        self.challenge = Some(challenge);
        Ok(Progress::Challenge(message))
    }
}

/// `[authorize] NUL user NUL password`.
fn plain(security: &Security, token: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(token).map_err(|_| "the token is not UTF-8")?;
    let fields: Vec<&str> = text.split('\0').collect();
    let [authorize, user, password] = fields[..] else {
        return Err(format!("the token has {} fields, not 3", fields.len()));
    };
    if user.is_empty() || password.is_empty() {
        return Err("the token has no user or no password".to_owned());
    }
    if !authorize.is_empty() && authorize != user {
        return Err(format!("user {user:?} asks to act as {authorize:?}"));
    }
    let known = security.config.users.iter().find(|known| known.name == user);
    // a password is compared in a time that tells nothing, also for a user that is not there
    let expected = known.map_or("", |known| &known.password.0);
    let hash = |password: &str| digest::digest(&digest::SHA256, password.as_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &security.secret);
    let tag = hmac::sign(&key, hash(expected).as_ref());
    let equal = hmac::verify(&key, hash(password).as_ref(), tag.as_ref()).is_ok();
    match known {
        Some(_) if equal => Ok(user.to_owned()),
        Some(_) => Err(format!("the password of user {user:?} is wrong")),
        None => Err(format!("there is no user {user:?} in the configuration")),
    }
}
