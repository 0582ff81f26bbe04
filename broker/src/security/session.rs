//! What a connection is allowed before anything else is asked: nothing but a login until there was one, nothing after a
//! login ran out (KIP-368), nothing while a quota has it be still.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::sasl::{Exchange, LoginRefused, Mechanism, Progress};
use super::{Principal, Security};
use crate::error::{Error, Kind};
use crate::types::TimestampMs;

/// Least time between two logins of one connection, as in Kafka.
const REAUTHENTICATION_MS_MIN: i64 = 1_000;

/// One connection's standing. Holds: who it is, how far a login is, until when it is still. The connection's requests
/// change it one after another; a crash ends it.
pub(crate) struct Session {
    principal: OnceLock<Arc<Principal>>,
    state: Mutex<State>,
    still_until: Mutex<Option<Instant>>,
}

#[allow(clippy::large_enum_variant, reason = "a connection has one")]
enum State {
    /// Requests are answered.
    Open(Option<Login>),
    /// A mechanism is to be named.
    Unknown,
    /// Tokens are awaited; and the login before, when this one renews it.
    Exchange { exchange: Exchange, raw: bool, before: Option<Login> },
    /// Nothing more is answered.
    Ended,
}

/// A login that was made.
#[derive(Clone, Copy)]
struct Login {
    mechanism: Mechanism,
    expires_at: Option<TimestampMs>,
    begun_at: TimestampMs,
}

/// What a connection may ask before and between its logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Which APIs there are.
    Versions,
    /// To begin a login.
    Handshake,
    /// To go on with it.
    Authenticate,
    /// Anything else.
    Other,
}

/// What comes of a token.
pub(crate) enum Token {
    /// Another one is awaited.
    Next(Vec<u8>),
    /// The login is made, and holds for so long; 0 is for ever.
    Done { last: Vec<u8>, lifetime_ms: i64 },
}

impl Session {
    /// A connection that needs no login, of this principal.
    pub(crate) fn open(principal: Principal) -> Self {
        Self {
            principal: OnceLock::from(Arc::new(principal)),
            state: Mutex::new(State::Open(None)),
            still_until: Mutex::default(),
        }
    }

    /// A connection that must log in.
    pub(crate) fn with_login() -> Self {
        Self { principal: OnceLock::new(), state: Mutex::new(State::Unknown), still_until: Mutex::default() }
    }

    /// Who it is; anonymous before a login.
    pub(crate) fn principal(&self) -> Arc<Principal> {
        self.principal.get().cloned().unwrap_or_default()
    }

    /// Whether it is known who the client is.
    pub(crate) fn is_known(&self) -> bool {
        self.principal.get().is_some()
    }

    /// Whether it has shown who it is, by a login or a certificate.
    pub(crate) fn is_authenticated(&self) -> bool {
        matches!(*self.state.lock(), State::Open(Some(_))) || *self.principal() != Principal::default()
    }

    /// Whether nothing more is answered.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(*self.state.lock(), State::Ended)
    }

    /// Whether tokens come without a request around them (SaslHandshake version 0).
    pub(crate) fn awaits_raw_token(&self) -> bool {
        matches!(*self.state.lock(), State::Exchange { raw: true, .. })
    }

    /// Whether a request may be answered now; the error is why the connection is closed.
    pub(crate) fn admit(&self, asked: Asked, now: TimestampMs) -> Result<(), String> {
        match (&*self.state.lock(), asked) {
            (State::Open(None), _) => Ok(()),
            (State::Open(Some(login)), Asked::Authenticate | Asked::Other) => match login.expires_at {
                Some(expired) if expired <= now => {
                    Err(format!("the login ran out {} ms ago and was not renewed", now - expired))
                }
                _ => Ok(()),
            },
            (State::Open(Some(_)), Asked::Handshake | Asked::Versions) => Ok(()),
            (State::Unknown, Asked::Versions | Asked::Handshake) => Ok(()),
            (State::Exchange { raw: false, .. }, Asked::Authenticate | Asked::Versions) => Ok(()),
            (State::Ended, _) => Err("the login failed".to_owned()),
            (State::Unknown | State::Exchange { .. }, _) => Err("a request came before the login".to_owned()),
        }
    }

    /// Begins a login.
    ///
    /// # Errors
    /// `UnsupportedSaslMechanism`, which ends a connection that has no login; `IllegalSaslState` when there is nothing
    /// to log in for, or the last login was a moment ago.
    pub(crate) fn handshake(&self, security: &Security, name: &str, raw: bool, now: TimestampMs) -> crate::Result<()> {
        let mut state = self.state.lock();
        let before = match &*state {
            State::Unknown => None,
            State::Open(Some(login))
                if login.expires_at.is_some() && now - login.begun_at >= REAUTHENTICATION_MS_MIN =>
            {
                Some(*login)
            }
            _ => return Err(Error::new(Kind::IllegalSaslState, "no login is awaited on this connection")),
        };
        let enabled = security.mechanisms().any(|enabled| enabled == name);
        let Some(mechanism) = Mechanism::named(name).filter(|_| enabled) else {
            *state = State::Ended;
            let message = format!("mechanism {} is not offered", name.escape_debug());
            return Err(Error::new(Kind::UnsupportedSaslMechanism, message));
        };
        *state = State::Exchange { exchange: Exchange::new(mechanism), raw, before };
        Ok(())
    }

    /// Takes a client's token. A refusal ends the connection.
    pub(crate) fn token(&self, security: &Security, token: &[u8], now: TimestampMs) -> Result<Token, LoginRefused> {
        let mut state = self.state.lock();
        let State::Exchange { exchange, before, .. } = &mut *state else {
            let told = "SaslAuthenticate request received after successful authentication".to_owned();
            return Err(LoginRefused { reason: told.clone(), told });
        };
        let (mechanism, before) = (exchange.mechanism(), *before);
        let stepped = match before {
            Some(before) if before.mechanism != mechanism => {
                let told = format!("SASL mechanism changed from {} to {}", before.mechanism.name(), mechanism.name());
                Err(LoginRefused { reason: told.clone(), told })
            }
            _ => exchange.step(security, token),
        };
        let stepped = stepped.and_then(|progress| match progress {
            Progress::Challenge(message) => Ok(Token::Next(message)),
            Progress::Done(user, last) => {
                let principal = self.principal.get_or_init(|| Arc::new(Principal::user(&user)));
                if principal.user_name() != user {
                    let told =
                        format!("Cannot change principals during re-authentication from {principal} to User:{user}");
                    return Err(LoginRefused { reason: told.clone(), told });
                }
                Ok(Token::Done { last, lifetime_ms: security.config.reauthentication_ms })
            }
        });
        match &stepped {
            Ok(Token::Next(_)) => {}
            Ok(Token::Done { lifetime_ms, .. }) => {
                let expires_at = (*lifetime_ms > 0).then(|| now.saturating_add(*lifetime_ms));
                *state = State::Open(Some(Login { mechanism, expires_at, begun_at: now }));
            }
            Err(_) => *state = State::Ended,
        }
        stepped
    }

    /// Whether a login is under way, so that a token is awaited.
    pub(crate) fn awaits_token(&self) -> bool {
        matches!(*self.state.lock(), State::Exchange { .. })
    }

    /// The mechanism of the login under way.
    pub(crate) fn mechanism(&self) -> Option<Mechanism> {
        match &*self.state.lock() {
            State::Exchange { exchange, .. } => Some(exchange.mechanism()),
            _ => None,
        }
    }

    /// No request is read for so long.
    pub(crate) fn be_still(&self, throttle_ms: i64) {
        let Some(until) = u64::try_from(throttle_ms)
            .ok()
            .filter(|ms| *ms > 0)
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)))
        else {
            return;
        };
        let mut still_until = self.still_until.lock();
        *still_until = Some(still_until.map_or(until, |before| before.max(until)));
    }

    /// Until when no request is read.
    pub(crate) fn still_until(&self) -> Option<Instant> {
        *self.still_until.lock()
    }
}
