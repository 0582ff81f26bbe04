//! Before every handler: the scope that its route needs, and whose token the request carries.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Caller, Refusal};
use crate::app::App;
use crate::error::Problem;
use crate::registry;
use crate::routes;

/// What a route asks of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing, not even that there is one: the page's own parts, health.
    Nothing,
    /// The scope read.
    Read,
    /// The scope read, of a token that sees everything: what tells of rows of any table.
    ReadAll,
    /// The scope write.
    Write,
    /// The scope admin.
    Admin,
}

impl Need {
    /// The scope's name in `/openapi.json`; none where no token is needed.
    pub fn scope(self) -> Option<&'static str> {
        match self {
            Need::Nothing => None,
            Need::Read | Need::ReadAll => Some("read"),
            Need::Write => Some("write"),
            Need::Admin => Some("admin"),
        }
    }
}

/// The gate of the HTTP port.
pub async fn gate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let need = match path.as_deref() {
        // nothing is served there but the answer that there is no such route
        None => Need::Nothing,
        Some(path) if path == "/registry" || path.starts_with("/registry/") => {
            return registry_gate(State(app), request, next).await;
        }
        Some(path) => routes::need(request.method(), path),
    };
    if need == Need::Nothing {
        return next.run(request).await;
    }
    match app.access.admit(request.headers()).and_then(|caller| caller.may(need).map(|()| caller)) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => problem(&refusal).into_response(),
    }
}

/// The gate of the schema registry, whose refusals look as its clients know them.
pub async fn registry_gate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let need = registry::need(request.method(), path);
    let within = |caller: &Caller| match registry::topic(path) {
        Some(topic) if need == Need::Write => caller.may_write(&topic),
        _ => Ok(()),
    };
    let admitted = app.access.admit(request.headers());
    let admitted = admitted.and_then(|caller| caller.may(need).and_then(|()| within(&caller)).map(|()| caller));
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            let challenge = match &refusal {
                Refusal::Scope(..) => None,
                Refusal::Missing | Refusal::Unknown => Some(HeaderValue::from_static("Basic realm=\"millpond\"")),
            };
            let mut response = registry::refused(&refusal, request.headers());
            challenge.into_iter().for_each(|value| {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
            });
            response
        }
    }
}

fn problem(refusal: &Refusal) -> Problem {
    let unauthorized =
        |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "a token is needed", detail);
    match refusal {
        Refusal::Missing => {
            unauthorized("send Authorization: Bearer TOKEN with one of the tokens of the configuration ([[tokens]])")
                .challenge("Bearer realm=\"millpond\"".to_owned())
        }
        Refusal::Unknown => {
            unauthorized("the token is not one of this server's: ask who runs it, or look at [[tokens]]")
                .challenge("Bearer realm=\"millpond\", error=\"invalid_token\"".to_owned())
        }
        Refusal::Scope(token, scope) => {
            let word = scope.split(',').next().unwrap_or(scope);
            Problem::forbidden(format!(
                "the token {token} lacks the scope {scope}: add it under [[tokens]], or use another"
            ))
            .challenge(format!("Bearer realm=\"millpond\", error=\"insufficient_scope\", scope=\"{word}\""))
        }
    }
}
