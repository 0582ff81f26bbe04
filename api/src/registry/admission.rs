//! What a call of the registry asks of the token, and the refusals as its clients know them.

use axum::http::{HeaderMap, Method};
use axum::response::Response;

use super::call::{parts, plain_subject, respond};
use super::fault::Fault;
use crate::access::{Need, Refusal};

/// What a call asks: to read and to compare, read; to register, write; all else, admin.
pub fn need(method: &Method, path: &str) -> Need {
    let path = parts(path).unwrap_or_default();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (method.as_str(), path.as_slice()) {
        ("GET" | "HEAD" | "OPTIONS", _) | ("POST", ["subjects", _] | ["compatibility", ..]) => Need::Read,
        ("POST", ["subjects", _, "versions"]) => Need::Write,
        _ => Need::Admin,
    }
}

/// The topic whose records a call names the schema of: the subject without -key or -value.
pub fn topic(path: &str) -> Option<String> {
    let path = parts(path).ok()?;
    let (_, subject) = path.iter().zip(path.iter().skip(1)).find(|(part, _)| *part == "subjects")?;
    let subject = plain_subject(subject);
    let topic = subject.strip_suffix("-value").or_else(|| subject.strip_suffix("-key")).unwrap_or(subject);
    Some(topic.to_owned())
}

/// A refusal.
pub fn refused(refusal: &Refusal, headers: &HeaderMap) -> Response {
    respond(Err(Fault::refused(refusal)), headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_needs_as_much_as_it_changes() {
        let need = |method: &str, path: &str| super::need(&method.parse().unwrap(), path);
        assert_eq!(need("GET", "/registry/subjects"), Need::Read);
        assert_eq!(need("POST", "/subjects/a-value"), Need::Read);
        assert_eq!(need("POST", "/compatibility/subjects/a-value/versions"), Need::Read);
        assert_eq!(need("POST", "/registry/subjects/a-value/versions"), Need::Write);
        assert_eq!(need("DELETE", "/subjects/a-value"), Need::Admin);
        assert_eq!(need("PUT", "/config"), Need::Admin);
        assert_eq!(need("POST", "/%ff"), Need::Admin);
        assert_eq!(topic("/registry/subjects/a-value/versions").as_deref(), Some("a"));
        assert_eq!(topic("/subjects/a-b/versions").as_deref(), Some("a-b"));
        assert_eq!(topic("/config"), None);
    }
}
