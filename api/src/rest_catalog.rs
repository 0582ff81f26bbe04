//! `/iceberg/v1/…`: Iceberg's REST catalog over the lake, read only. Spark, Trino, pyiceberg and DuckDB find the tables here,
//! and read the files themselves, where the lake is.
//!
//! A table is told to a token that sees all of it: its files have every row. Errors have the shape of the catalog's spec,
//! also those that the port itself makes.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use lake::{ICEBERG_NAMESPACE, Iceberg};
use serde_json::{Value, json};

use crate::access::Caller;
use crate::app::App;
use crate::error::{Answer, Problem};
use crate::routes::{Doc, Routes};

const PREFIX: &str = "/iceberg/";
/// Largest problem that is put into the catalog's shape, in bytes.
const PROBLEM_BYTES_MAX: usize = 64 << 10;
/// What is served, as clients ask before they use more.
const ENDPOINTS: [&str; 6] = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let get = |summary| Doc::new(summary);
    routes
        .get("/iceberg/v1/config", get("Iceberg's REST catalog: what it serves"), config)
        .get("/iceberg/v1/namespaces", get("Iceberg's REST catalog: its one namespace"), namespaces)
        .get("/iceberg/v1/namespaces/{namespace}", get("Iceberg's REST catalog: a namespace"), namespace)
        .get("/iceberg/v1/namespaces/{namespace}/tables", get("Iceberg's REST catalog: its tables"), tables)
        .get(
            "/iceberg/v1/namespaces/{namespace}/tables/{table}",
            get("Iceberg's REST catalog: a table with its snapshots"),
            table,
        )
}

async fn config(State(app): State<Arc<App>>) -> Answer<Json<Value>> {
    catalog(&app)?;
    Ok(Json(json!({"defaults": {}, "overrides": {}, "endpoints": ENDPOINTS})))
}

async fn namespaces(State(app): State<Arc<App>>, request: Request) -> Answer<Json<Value>> {
    catalog(&app)?;
    let query = request.uri().query().unwrap_or_default();
    // a namespace in the one that there is
    let inner = query.split('&').any(|pair| pair.strip_prefix("parent=").is_some_and(|parent| !parent.is_empty()));
    let found: Vec<[&str; 1]> = if inner { Vec::new() } else { vec![[ICEBERG_NAMESPACE]] };
    Ok(Json(json!({"namespaces": found})))
}

async fn namespace(State(app): State<Arc<App>>, Path(namespace): Path<String>, method: Method) -> Answer {
    catalog(&app)?;
    check_namespace(&namespace)?;
    Ok(answer(&method, || json!({"namespace": [ICEBERG_NAMESPACE], "properties": {}})))
}

async fn tables(State(app): State<Arc<App>>, caller: Caller, Path(namespace): Path<String>) -> Answer<Json<Value>> {
    let catalog = catalog(&app)?;
    check_namespace(&namespace)?;
    let status = catalog.status();
    let told =
        status.iter().filter(|table| table.metadata_location.is_some() && caller.check_whole(&table.table).is_ok());
    let name = |table: &lake::IcebergStatus| json!({"namespace": [ICEBERG_NAMESPACE], "name": table.table});
    Ok(Json(json!({"identifiers": told.map(name).collect::<Vec<_>>()})))
}

async fn table(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((namespace, table)): Path<(String, String)>,
    method: Method,
) -> Answer {
    let catalog = catalog(&app)?;
    check_namespace(&namespace)?;
    caller.check_whole(&table)?;
    let found = catalog.table(&table)?;
    let body = || json!({"metadata-location": found.metadata_location, "metadata": found.metadata, "config": {}});
    Ok(answer(&method, body))
}

/// The catalog, where it is wanted.
fn catalog(app: &App) -> Answer<&Arc<Iceberg>> {
    app.lake.iceberg().ok_or_else(|| {
        Problem::not_found(
            "there are no Iceberg tables over this lake: set iceberg = true under [lake] and start again",
        )
    })
}

fn check_namespace(name: &str) -> Answer<()> {
    if name == ICEBERG_NAMESPACE {
        return Ok(());
    }
    Err(Problem::not_found(format!("no namespace {name}: all tables are in {ICEBERG_NAMESPACE}")))
}

/// HEAD asks only whether there is something.
fn answer(method: &Method, body: impl FnOnce() -> Value) -> Response {
    match *method {
        Method::HEAD => StatusCode::NO_CONTENT.into_response(),
        _ => Json(body()).into_response(),
    }
}

/// Puts every problem below the catalog's path into the shape that its clients know.
pub async fn shape(request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with(PREFIX) {
        return next.run(request).await;
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_table = request.uri().path().contains("/tables/");
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind.as_bytes() != b"application/problem+json") {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let problem: Value = match to_bytes(body, PROBLEM_BYTES_MAX).await {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(_) => Value::Null,
    };
    let mut message = problem["detail"].as_str().unwrap_or_default().to_owned();
    if !is_read && matches!(parts.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        parts.status = StatusCode::NOT_ACCEPTABLE;
        message =
            "the catalog is read only: records come in through Kafka or POST /v1/topics/{topic}/records".to_owned();
    } else if parts.status == StatusCode::BAD_GATEWAY {
        // the spec's word for what goes by itself
        parts.status = StatusCode::SERVICE_UNAVAILABLE;
    }
    let error = json!({"message": message, "type": kind_of(parts.status, is_table), "code": parts.status.as_u16()});
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(json!({"error": error}).to_string()))
}

/// The exception by which clients know an error.
fn kind_of(status: StatusCode, is_table: bool) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "BadRequestException",
        StatusCode::UNAUTHORIZED => "NotAuthorizedException",
        StatusCode::FORBIDDEN => "ForbiddenException",
        StatusCode::NOT_FOUND if is_table => "NoSuchTableException",
        StatusCode::NOT_FOUND => "NoSuchNamespaceException",
        StatusCode::NOT_ACCEPTABLE => "UnsupportedOperationException",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableException",
        _ => "InternalServerError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_the_spec() {
        assert_eq!(kind_of(StatusCode::NOT_FOUND, true), "NoSuchTableException");
        assert_eq!(kind_of(StatusCode::NOT_FOUND, false), "NoSuchNamespaceException");
        assert_eq!(kind_of(StatusCode::FORBIDDEN, true), "ForbiddenException");
        assert_eq!(kind_of(StatusCode::IM_A_TEAPOT, true), "InternalServerError");
    }

    #[test]
    fn every_endpoint_that_is_promised_is_a_route() {
        for endpoint in ENDPOINTS {
            let (method, path) = endpoint.split_once(' ').unwrap();
            let path = format!("/iceberg{}", path.replace("/{prefix}", ""));
            assert!(crate::routes::serves(&path) && ["GET", "HEAD"].contains(&method), "{endpoint}");
        }
    }
}
