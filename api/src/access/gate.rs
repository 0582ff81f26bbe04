//! Before every handler: the scope that its route needs, and whose token the request carries.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Caller, Refusal};
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::registry;

/// Most of the body of a request that is refused which is taken in, and how long that may take.
const REFUSED_BODY_MAX: usize = 64 << 10;
const REFUSED_BODY_WAIT: Duration = Duration::from_secs(1);

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

/// The gate of one route of the HTTP port.
pub async fn gate(need: Need, mut request: Request, next: Next) -> Response {
    if need == Need::Nothing {
        return next.run(request).await;
    }
    let admitted = app_of(&request).and_then(|app| {
        let admitted = app.access.admit(request.headers()).and_then(|caller| caller.may(need).map(|()| caller));
        admitted.map_err(|refusal| problem(&refusal))
    });
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => refused(request, problem.into_response()).await,
    }
}

/// Takes in the body of a request that is refused: with a part of it unread the HTTP library ends the connection, and so the next
/// request that the client sends on it. Where it is too long or late, the answer says that the connection ends.
async fn refused(request: Request, mut answer: Response) -> Response {
    let body = to_bytes(request.into_body(), REFUSED_BODY_MAX);
    if !matches!(tokio::time::timeout(REFUSED_BODY_WAIT, body).await, Ok(Ok(_))) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// The server's parts, which the outermost layer hands down.
fn app_of(request: &Request) -> Answer<Arc<App>> {
    let app = request.extensions().get::<Arc<App>>().cloned();
    app.ok_or_else(|| Problem::internal("a request came around the outermost layer: report it"))
}

/// The gate of the schema registry, whose refusals look as its clients know them.
pub async fn registry_gate(mut request: Request, next: Next) -> Response {
    let app = match app_of(&request) {
        Ok(app) => app,
        Err(problem) => return problem.into_response(),
    };
    let path = request.uri().path();
    let need = registry::need(request.method(), path);
    let within = |caller: &Caller| match registry::topic(path) {
        Some(topic) if need == Need::Write => caller.may_write(&topic),
        _ => Ok(()),
    };
    let admitted = app.access.admit(request.headers());
    let admitted = admitted.and_then(|caller| caller.may(need).and_then(|()| within(&caller)).map(|()| caller));
    let refusal = match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            return next.run(request).await;
        }
        Err(refusal) => refusal,
    };
    let mut response = registry::refused(&refusal, request.headers());
    if !matches!(refusal, Refusal::Scope(..)) {
        let challenge = HeaderValue::from_static("Basic realm=\"millpond\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    refused(request, response).await
}

/// A refusal as it is answered.
pub fn problem(refusal: &Refusal) -> Problem {
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
