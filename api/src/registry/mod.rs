//! The schema registry's REST, as Confluent's serializers and tools call it: on a port of its own and under `/registry`.
//!
//! `mod` is the list of calls; `call` reads a request, `fault` is the only map to error codes. `subjects`, `schemas` and
//! `settings` answer; `meaning` says what is valid and what fits, with one file per language. What is stored, and the rules
//! of ids, versions and deletion, are in the broker's schema module.
//!
//! Left out: contexts other than the default one, metadata and rule sets (a schema with a rule set is refused), schema
//! GUIDs, associations (each answers 404, which clients take as "not there").

mod admission;
mod avro;
mod call;
mod declare;
mod fault;
mod json_schema;
#[cfg(test)]
mod json_schema_tests;
mod meaning;
mod proto_text;
mod protobuf;
mod schemas;
mod settings;
mod subjects;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use crate::app::App;

use call::{Call, respond};
use fault::Fault;

pub use admission::{need, refused, topic};
pub use declare::declare;

/// Answers one request of the registry.
pub async fn answer(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let call = match Call::read(app, &method, &uri, body) {
        Ok(call) => call,
        Err(fault) => return respond(Err(fault), &headers),
    };
    // To compile and compare large schemas takes longer than a task may hold its thread.
    let runtime = tokio::runtime::Handle::current();
    let answer = tokio::task::spawn_blocking(move || runtime.block_on(dispatch(&call))).await;
    respond(answer.unwrap_or_else(|error| Err(Fault::failed(&error.to_string()))), &headers)
}

/// The list of calls. What is not in it is a 404, never another status: clients take a 404 as "no such thing" and all
/// else as a failure.
async fn dispatch(call: &Call) -> Result<Value, Fault> {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    match (call.method.as_str(), path.as_slice()) {
        ("GET", []) => Ok(json!({})),
        ("GET", ["subjects"]) => subjects::list(call),
        ("POST", ["subjects", subject]) => subjects::lookup(call, subject),
        ("DELETE", ["subjects", subject]) => subjects::delete(call, subject).await,
        ("GET", ["subjects", subject, "versions"]) => subjects::versions(call, subject),
        ("POST", ["subjects", subject, "versions"]) => subjects::register(call, subject).await,
        ("GET", ["subjects", subject, "versions", version]) => subjects::version(call, subject, version),
        ("DELETE", ["subjects", subject, "versions", version]) => {
            subjects::delete_version(call, subject, version).await
        }
        ("GET", ["subjects", subject, "versions", version, "schema"]) => subjects::text(call, subject, version),
        ("GET", ["subjects", subject, "versions", version, "referencedby"]) => {
            subjects::referenced_by(call, subject, version)
        }
        ("GET", ["schemas"]) => schemas::list(call),
        ("GET", ["schemas", "types"]) => Ok(schemas::types()),
        ("GET", ["schemas", "ids", id]) => schemas::by_id(call, id),
        ("GET", ["schemas", "ids", id, "schema"]) => schemas::text(call, id),
        ("GET", ["schemas", "ids", id, "subjects"]) => schemas::subjects(call, id),
        ("GET", ["schemas", "ids", id, "versions"]) => schemas::versions(call, id),
        ("POST", ["compatibility", "subjects", subject, "versions"]) => {
            subjects::compatibility(call, subject, None).await
        }
        ("POST", ["compatibility", "subjects", subject, "versions", version]) => {
            subjects::compatibility(call, subject, Some(version)).await
        }
        (method, ["config", rest @ ..]) if rest.len() <= 1 => settings::config(call, method, rest.first()).await,
        (method, ["mode", rest @ ..]) if rest.len() <= 1 => settings::mode(call, method, rest.first()).await,
        ("GET", ["contexts"]) => Ok(json!(["."])),
        ("GET", ["v1", "metadata", "id"]) => {
            let cluster = call.app.broker.cluster_id();
            Ok(
                json!({"id": "", "scope": {"path": [], "clusters": {"kafka-cluster": cluster, "schema-registry-cluster": "schema-registry"}}}),
            )
        }
        ("GET", ["v1", "metadata", "version"]) => Ok(json!({"version": env!("CARGO_PKG_VERSION"), "commitId": ""})),
        _ => Err(Fault::unknown_route()),
    }
}
