//! SaslHandshake (17) 0 to 1, SaslAuthenticate (36) 0 to 2: logins (KIP-43, KIP-152, KIP-368).
//!
//! - The mechanisms offered stand in every answer to a handshake, also beside UNSUPPORTED_SASL_MECHANISM. After it the
//!   connection is closed, as by Kafka.
//! - After a handshake of version 0 the tokens come without a request around them; a refusal is then answered by closing.
//! - A failed login is answered a moment later (Kafka's `connection.failed.authentication.delay.ms`), then closed.
//! - With `connections.max.reauth.ms` the answer tells how long the login holds; another handshake renews it, with the
//!   same mechanism and for the same user. Without it a second login is ILLEGAL_SASL_STATE.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::{Context, Reply, text};
use crate::error::Kind;
use crate::security::sasl::LoginRefused;
use crate::security::session::{Asked, Token};

/// How long the answer to a failed login waits.
const FAILURE_DELAY: Duration = Duration::from_millis(100);

/// What a request is to a connection that may not ask everything.
pub(crate) fn asked(key: ApiKey) -> Asked {
    match key {
        ApiKey::ApiVersions => Asked::Versions,
        ApiKey::SaslHandshake => Asked::Handshake,
        ApiKey::SaslAuthenticate => Asked::Authenticate,
        _ => Asked::Other,
    }
}

/// Answers SaslHandshake.
pub(crate) fn sasl_handshake(context: &Context, version: i16, request: SaslHandshakeRequest) -> Reply {
    let (security, now) = (context.broker.security(), context.broker.clock().now_ms());
    let response = SaslHandshakeResponse::default();
    let begun = context.session.handshake(security, &request.mechanism, version == 0, now);
    let response = match begun {
        Err(error) if error.kind == Kind::IllegalSaslState => response.with_error_code(error.kind.code()),
        begun => {
            if let Err(error) = &begun {
                security.audit().login_refused(now, context.peer(), "SASL", &error.message);
            }
            let offered = security.mechanisms().map(text).collect();
            response.with_error_code(begun.map_or_else(|error| error.kind.code(), |()| 0)).with_mechanisms(offered)
        }
    };
    Reply::message(version, &response)
}

/// Answers SaslAuthenticate.
pub(crate) fn sasl_authenticate(context: &Context, version: i16, request: SaslAuthenticateRequest) -> Reply {
    let response = SaslAuthenticateResponse::default();
    if !context.session.awaits_token() {
        let message = "SaslAuthenticate request received after successful authentication";
        let code = Kind::IllegalSaslState.code();
        return Reply::message(version, &response.with_error_code(code).with_error_message(Some(text(message))));
    }
    match take(context, &request.auth_bytes) {
        Ok(Token::Next(message)) => Reply::message(version, &response.with_auth_bytes(message.into())),
        Ok(Token::Done { last, lifetime_ms }) => {
            let lifetime_ms = if version >= 1 { lifetime_ms } else { 0 };
            Reply::message(version, &response.with_auth_bytes(last.into()).with_session_lifetime_ms(lifetime_ms))
        }
        Err(refused) => {
            let response = response
                .with_error_code(Kind::SaslAuthenticationFailed.code())
                .with_error_message(Some(text(&refused.told)));
            Reply::later(async move {
                tokio::time::sleep(FAILURE_DELAY).await;
                Reply::message(version, &response)
            })
        }
    }
}

/// Answers a token that came without a request.
pub(crate) fn raw_token(context: &Context, token: &Bytes) -> Reply {
    match take(context, token) {
        Ok(Token::Next(message) | Token::Done { last: message, .. }) => Reply::Now(vec![message.into()]),
        Err(refused) => Reply::Close(format!("a login failed: {}", refused.reason)),
    }
}

fn take(context: &Context, token: &[u8]) -> Result<Token, LoginRefused> {
    let (security, now) = (context.broker.security(), context.broker.clock().now_ms());
    let how = context.session.mechanism().map_or("SASL", |mechanism| mechanism.name());
    context.session.token(security, token, now).inspect_err(|refused| {
        security.audit().login_refused(now, context.peer(), how, &refused.reason);
    })
}
