//! The list of all routes, and what holds for each of them: bounds, time limits, problems instead of empty answers.
//!
//! A route is added together with its description, so `/openapi.json` cannot miss one.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use futures::{FutureExt, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tower_http::compression::CompressionLayer;

use crate::access::{Need, gate, registry_gate};
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::hosts::Hosts;
use crate::{
    alerts, catalog, collect, dashboards, fork, groups, jobs, lag, lake_admin, live, metrics, models, openapi, page,
    queries, registry, rest_catalog, sinks, sources, sql, status, tables, topics, transforms, verify, views,
};

/// Longest time for one request other than a live stream, its body included.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// Answers above this size keep their request's permit until the client has read them, in bytes.
const HELD_ANSWER_MIN: u64 = 64 << 10;

/// What `/openapi.json` says about one route.
#[derive(Clone, Debug)]
pub struct Doc {
    /// `get` or `post`; set when the route is added.
    pub method: &'static str,
    /// Path with `{names}`; set when the route is added.
    pub path: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Query parameters and what they mean.
    pub query: &'static [(&'static str, &'static str)],
    /// What a request body looks like, if the route takes one.
    pub body: Option<&'static str>,
    /// Content types of a good answer.
    pub answers: &'static [&'static str],
    /// What it asks of the token; without a word of its own, GET needs read and POST admin.
    pub need: Option<Need>,
}

impl Doc {
    /// A route that answers JSON and takes no parameters.
    pub const fn new(summary: &'static str) -> Doc {
        Doc { method: "", path: "", summary, query: &[], body: None, answers: &["application/json"], need: None }
    }

    /// The same with query parameters.
    pub const fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Doc {
        self.query = query;
        self
    }

    /// The same with an example of its body.
    pub const fn body(mut self, example: &'static str) -> Doc {
        self.body = Some(example);
        self
    }

    /// The same with another demand on the token.
    pub const fn need(mut self, need: Need) -> Doc {
        self.need = Some(need);
        self
    }

    /// The same with other content types.
    pub const fn answers(mut self, types: &'static [&'static str]) -> Doc {
        self.answers = types;
        self
    }
}

/// Routes being put together.
pub struct Routes {
    router: Router<Arc<App>>,
    docs: Vec<Doc>,
}

impl Routes {
    /// Adds a route that answers GET (and HEAD).
    pub fn get<H, T>(self, path: &'static str, doc: Doc, handler: H) -> Routes
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let need = doc.need.or(Some(Need::Read));
        self.add(Doc { method: "get", path, need, ..doc }, get(handler))
    }

    /// Adds a route that answers POST.
    pub fn post<H, T>(self, path: &'static str, doc: Doc, handler: H) -> Routes
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let need = doc.need.or(Some(Need::Admin));
        self.add(Doc { method: "post", path, need, ..doc }, post(handler))
    }

    fn add(mut self, doc: Doc, method: MethodRouter<Arc<App>>) -> Routes {
        let need = doc.need.unwrap_or(Need::Admin);
        let method = method.layer(middleware::from_fn(move |request: Request, next: Next| gate(need, request, next)));
        self.router = self.router.route(doc.path, method);
        self.docs.push(doc);
        self
    }
}

/// Every route with its description.
fn all() -> Routes {
    let routes = Routes { router: Router::new(), docs: Vec::new() };
    let routes = views::routes(routes);
    let routes = verify::routes(routes);
    let routes = sql::routes(routes);
    let routes = collect::routes(routes);
    let routes = topics::routes(routes);
    let routes = groups::routes(routes);
    let routes = lag::routes(routes);
    let routes = status::routes(routes);
    let routes = lake_admin::routes(routes);
    let routes = fork::routes(routes);
    let routes = rest_catalog::routes(routes);
    let routes = transforms::routes(routes);
    let routes = tables::routes(routes);
    let routes = dashboards::routes(routes);
    let routes = live::routes(routes);
    let routes = models::routes(routes);
    let routes = catalog::routes(routes);
    let routes = sources::routes(routes);
    let routes = sinks::routes(routes);
    let routes = jobs::routes(routes);
    let routes = alerts::routes(routes);
    let routes = queries::routes(routes);
    let routes = metrics::routes(routes);
    let routes = openapi::routes(routes);
    page::routes(routes)
}

/// What is known about every route, in the order in which they are added.
pub fn docs() -> Vec<Doc> {
    all().docs
}

/// Whether a path is served.
pub fn serves(path: &str) -> bool {
    static PATHS: OnceLock<Vec<&'static str>> = OnceLock::new();
    PATHS.get_or_init(|| docs().iter().map(|doc| doc.path).collect()).contains(&path)
}

/// The HTTP port's router.
pub fn http(app: Arc<App>, hosts: Hosts) -> Router {
    let registry = || any(registry::answer).layer(middleware::from_fn(registry_gate));
    let body_limit = DefaultBodyLimit::max(app.http.body_bytes_max);
    all()
        .router
        .route("/registry", registry())
        .route("/registry/", registry())
        .route("/registry/{*call}", registry())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(body_limit)
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .layer(middleware::from_fn(move |request: Request, next: Next| hosts.clone().check(request, next)))
        .layer(middleware::from_fn(rest_catalog::shape))
        .layer(CompressionLayer::new())
        .with_state(app)
}

/// The registry port's router: every path is the registry's.
pub fn registry(app: Arc<App>, hosts: Hosts) -> Router {
    let body_limit = DefaultBodyLimit::max(app.http.body_bytes_max);
    Router::new()
        .fallback(registry::answer)
        .layer(body_limit)
        .layer(middleware::from_fn(registry_gate))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .layer(middleware::from_fn(move |request: Request, next: Next| hosts.clone().check(request, next)))
        .with_state(app)
}

async fn unknown(uri: Uri) -> Problem {
    let path = uri.path();
    Problem::not_found(format!("no route {path}: GET /openapi.json lists every route"))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "the route takes another method",
        format!("{method} {}: GET /openapi.json says which method it takes", uri.path()),
    )
}

/// Around every request: one permit, a time limit, no request of a foreign page that changes something, and a problem
/// instead of a broken connection if the handler fails.
async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(app.clone());
    if let Err(problem) = check_origin(request.method(), request.headers()) {
        return problem.into_response();
    }
    // Health must be seen even when the server is at its limit.
    let permit = match app.requests.clone().try_acquire_owned() {
        Ok(permit) => Some(permit),
        Err(_) if request.uri().path().starts_with("/health/") => None,
        Err(_) => {
            let limit = app.http.requests_max;
            let detail = format!(
                "{limit} requests are being worked on, which is the limit: try again, or raise http.requests_max"
            );
            return Problem::busy(detail).into_response();
        }
    };
    let path = request.uri().path().to_owned();
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(REQUEST_TIME_MAX, work).await {
        Ok(Ok(response)) => hold(response, permit),
        Ok(Err(_)) => {
            tracing::error!(path, "a request handler panicked");
            Problem::internal("the request ran into a fault of millpond: see its log, and report it").into_response()
        }
        Err(_) => {
            let seconds = REQUEST_TIME_MAX.as_secs();
            let detail = format!("the request took more than {seconds} s: ask for less at a time");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-slow", "the request took too long", detail)
                .into_response()
        }
    }
}

/// A page of another origin must not write through the browser of somebody who can reach this port (CORS is off). One that
/// calls itself by this machine's address is met in [`Hosts`].
fn check_origin(method: &Method, headers: &HeaderMap) -> Answer<()> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let foreign = match text(header::ORIGIN) {
        Some(origin) => origin.split_once("://").map(|(_, host)| host) != text(header::HOST),
        None => text(header::HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site == "cross-site"),
    };
    if !foreign {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "foreign-origin",
        "the request comes from another site",
        "requests that change something are taken from this server's own page and from programs only: send it without an Origin header",
    ))
}

/// Keeps the permit of a large answer until it is read, so that slow readers are bounded like all work is. A live
/// stream has a permit of its own.
fn hold(response: Response, permit: Option<OwnedSemaphorePermit>) -> Response {
    let live =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
    let small = axum::body::HttpBody::size_hint(response.body()).upper().is_some_and(|bytes| bytes < HELD_ANSWER_MIN);
    if live || small {
        return response;
    }
    let (parts, body) = response.into_parts();
    let stream = body.into_data_stream().map(move |chunk| {
        let _held = &permit;
        chunk
    });
    Response::from_parts(parts, Body::from_stream(stream))
}

/// The body of a request, or the problem with it.
pub fn body(body: Result<Bytes, BytesRejection>, app: &App) -> Answer<Bytes> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(app.http.body_bytes_max),
        _ => Problem::bad_request(format!("the body cannot be read: {rejection}: send it again")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (header::HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_foreign_page_cannot_write() {
        let own = headers(&[("origin", "http://localhost:8080"), ("host", "localhost:8080")]);
        let foreign = headers(&[("origin", "https://evil.example"), ("host", "localhost:8080")]);
        let foreign_form = headers(&[("sec-fetch-site", "cross-site"), ("host", "localhost:8080")]);
        assert!(check_origin(&Method::POST, &own).is_ok());
        assert!(check_origin(&Method::POST, &headers(&[("host", "x")])).is_ok());
        assert!(check_origin(&Method::GET, &foreign).is_ok());
        assert_eq!(check_origin(&Method::POST, &foreign).unwrap_err().status(), 403);
        assert_eq!(check_origin(&Method::POST, &foreign_form).unwrap_err().status(), 403);
    }

    #[test]
    fn every_route_is_described() {
        let docs = docs();
        assert!(docs.len() > 20);
        for doc in &docs {
            assert!(!doc.summary.is_empty() && !doc.answers.is_empty(), "{} {}", doc.method, doc.path);
            assert!(doc.need.is_some(), "{} {}", doc.method, doc.path);
        }
    }
}
