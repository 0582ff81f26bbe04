//! One request of the registry, read: path, query and body; and its answer with the content type that the client takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use broker::{NewSchema, Reference, SchemaState, SchemaType};
use serde::Deserialize;
use serde_json::Value;

use super::fault::Fault;
use super::meaning;
use crate::app::App;

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// Under this path of the HTTP port it answers, too.
const BESIDE: &str = "/registry";

/// A request.
pub struct Call {
    /// The parts of the server.
    pub app: Arc<App>,
    /// GET, POST, PUT or DELETE; HEAD is read as GET.
    pub method: Method,
    /// The path's parts, percent-decoded, without empty ones.
    pub path: Vec<String>,
    query: BTreeMap<String, String>,
    body: Bytes,
}

/// A schema as it is sent, to be registered, looked up or compared. Unknown members are left alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<SentReference>>,
    #[serde(default)]
    id: Option<i64>,
    #[serde(default)]
    version: Option<i64>,
    #[serde(default)]
    rule_set: Option<Value>,
}

#[derive(Deserialize)]
struct SentReference {
    name: String,
    subject: String,
    version: i64,
}

/// A schema that was sent, with the id and version that an import gives it.
pub struct Given {
    /// The schema; its references name real versions.
    pub schema: NewSchema,
    /// The id it has elsewhere.
    pub id: Option<u32>,
    /// The version it has elsewhere.
    pub version: Option<u32>,
}

impl Call {
    /// Reads a request.
    ///
    /// # Errors
    /// A path or query that cannot be decoded, a body that is too large.
    pub fn read(app: Arc<App>, method: &Method, uri: &Uri, body: Result<Bytes, BytesRejection>) -> Result<Call, Fault> {
        let body = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Fault::body_too_large(app.http.body_bytes_max),
            _ => Fault::unreadable(format!("the body cannot be read: {rejection}")),
        })?;
        let method = if method == Method::HEAD { Method::GET } else { method.clone() };
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Fault::unreadable(format!("the query cannot be read: {error}")))?;
        Ok(Call { app, method, path: parts(uri.path())?, query: pairs.into_iter().collect(), body })
    }

    /// A query parameter, none when it is absent or empty.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A query parameter that is true or absent.
    pub fn flag(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    /// `subjectPrefix`; `:*:` means every subject.
    pub fn prefix(&self) -> &str {
        self.parameter("subjectPrefix").filter(|prefix| *prefix != ":*:").map_or("", plain_subject)
    }

    /// The part of a list that `offset` and `limit` ask for.
    pub fn page<T>(&self, list: Vec<T>) -> Vec<T> {
        let number = |name: &str| self.parameter(name).and_then(|text| text.parse::<i64>().ok());
        let offset = number("offset").and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0);
        let limit = number("limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        list.into_iter().skip(offset).take(limit).collect()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// 400.
    pub fn json(&self) -> Result<Value, Fault> {
        serde_json::from_slice(&self.body).map_err(|error| Fault::unreadable(format!("the body is not JSON: {error}")))
    }

    /// The schema in the body.
    ///
    /// # Errors
    /// A body that is none, an unknown type, a reference to what is not there, a rule set.
    pub fn given(&self, state: &SchemaState) -> Result<Given, Fault> {
        let sent: Sent = serde_json::from_slice(&self.body).map_err(|error| {
            Fault::unreadable(format!("the body is not as it should be: {error}: send {{\"schema\"}}"))
        })?;
        if sent.rule_set.is_some_and(|rules| has_rules(&rules)) {
            return Err(Fault::rule_set());
        }
        let kind = match sent.schema_type.as_deref() {
            None => SchemaType::Avro,
            Some(name) => SchemaType::parse(name)
                .ok_or_else(|| Fault::invalid_schema(format!("Invalid schema type {name}: AVRO, JSON or PROTOBUF")))?,
        };
        let text = sent.schema.filter(|text| !text.trim().is_empty());
        let text = text.ok_or_else(|| Fault::invalid_schema("Empty schema: send its text as \"schema\""))?;
        if text.len() > broker::SCHEMA_BYTES_MAX {
            return Err(Fault::schema_too_large());
        }
        let references = sent.references.unwrap_or_default().into_iter().map(|reference| {
            let version = u32::try_from(reference.version).unwrap_or(0);
            Reference { name: reference.name, subject: plain_subject(&reference.subject).into(), version }
        });
        let schema = meaning::settled(state, NewSchema { kind, text, references: references.collect() })?;
        let positive = |number: Option<i64>| number.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        Ok(Given { schema, id: positive(sent.id), version: positive(sent.version) })
    }
}

/// Whether a rule set says anything.
fn has_rules(rules: &Value) -> bool {
    let lists = rules.as_object().into_iter().flatten();
    lists.filter_map(|(_, list)| list.as_array()).any(|list| !list.is_empty())
}

/// A subject in the default context may be written `:.:name`.
pub fn plain_subject(subject: &str) -> &str {
    subject.strip_prefix(":.:").unwrap_or(subject)
}

/// A path's parts, percent-decoded, without empty ones and without `/registry`.
///
/// # Errors
/// What is not percent-encoded UTF-8.
pub fn parts(path: &str) -> Result<Vec<String>, Fault> {
    let path = match path.strip_prefix(BESIDE) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    };
    path.split('/').filter(|part| !part.is_empty()).map(decoded).collect()
}

/// Percent-decoded once; a plus sign stays one.
fn decoded(part: &str) -> Result<String, Fault> {
    let bad = || Fault::unreadable(format!("the path's part {part} is not percent-encoded UTF-8"));
    let mut out = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(bad)?;
        out.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = &after[2..];
    }
    String::from_utf8(out).map_err(|_| bad())
}

/// An answer as the client takes it.
pub fn respond(answer: Result<Value, Fault>, headers: &HeaderMap) -> Response {
    let (status, body) = match answer {
        Ok(Value::Null) => return StatusCode::NO_CONTENT.into_response(),
        Ok(value) => (StatusCode::OK, value),
        Err(fault) => (fault.status(), fault.to_json()),
    };
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let plain = accepted.contains("application/json") && !accepted.contains("schemaregistry");
    let kind = if plain { "application/json" } else { CONTENT_TYPE };
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_slashes_do_not_count() {
        let cases: [(&str, &[&str]); 5] = [
            ("/", &[]),
            ("/registry", &[]),
            ("/registry/subjects/", &["subjects"]),
            ("/subjects/a%2Fb%3A%252F+c/versions/", &["subjects", "a/b:%2F+c", "versions"]),
            ("/registryx", &["registryx"]),
        ];
        for (path, wanted) in cases {
            assert_eq!(parts(path).unwrap(), wanted, "{path}");
        }
        assert!(parts("/%f").is_err() && parts("/%zz").is_err() && parts("/%ff").is_err() && parts("/%é").is_err());
    }
}
