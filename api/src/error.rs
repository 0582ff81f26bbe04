//! The only map from errors to HTTP: a [`Problem`] is RFC 9457 problem JSON whose `detail` says what to do next.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::Filling;
use serde_json::{Map, Value, json};

use crate::output::offsets_json;

/// What a handler answers with.
pub type Answer<T = Response> = Result<T, Problem>;

/// One problem as RFC 9457 has it. `type` is `urn:millpond:problem:<slug>`; the slug never changes its meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Content>);

// Boxed, so that a good answer is not as large as the largest problem.
#[derive(Clone, Debug, PartialEq)]
struct Content {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    detail: String,
    more: Map<String, Value>,
    retry_after_s: Option<u64>,
    challenge: Option<String>,
}

impl Problem {
    /// A problem: `title` is the same for every occurrence, `detail` says what happened here and what to do next.
    pub fn new(status: StatusCode, slug: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        let (more, detail) = (Map::new(), detail.into());
        Problem(Box::new(Content { status, slug, title, detail, more, retry_after_s: None, challenge: None }))
    }

    /// The same problem with one more member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// The same problem, telling the client when to come back, in seconds.
    pub fn retry_after(mut self, seconds: u64) -> Problem {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// The same problem, telling the client how to show who it is.
    pub fn challenge(mut self, challenge: String) -> Problem {
        self.0.challenge = Some(challenge);
        self
    }

    /// 403: something that the token does not reach.
    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", "the token does not reach this", detail)
    }

    /// 400: a parameter or body that will never work as it is.
    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", "the request is not valid", detail)
    }

    /// 404: a named thing that does not exist.
    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "no such thing", detail)
    }

    /// 406: none of the formats that the client takes can be written.
    pub fn not_acceptable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "the format is not served here", detail)
    }

    /// 413: a body above the limit, in bytes.
    pub fn too_large(limit: usize) -> Problem {
        let detail = format!(
            "the body is larger than {limit} bytes: send fewer records at a time, or raise http.body_bytes_max"
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "the body is too large", detail)
            .with("body_bytes_max", limit)
    }

    /// 503: a bound of the server is reached; the same request may succeed later.
    pub fn busy(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the server is at a limit", detail).retry_after(1)
    }

    /// 503: `what` needs the declared version of a view, and that is still being filled.
    pub fn filling(filling: &Filling, what: &str) -> Problem {
        lake::LakeError::filling(filling, what).into()
    }

    /// 500: a fault of Millpond's own.
    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "millpond failed", detail)
    }

    /// What happened and what to do next.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The HTTP status it is sent with.
    #[cfg(test)]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The JSON object that is sent, for answers that carry errors in their place.
    pub fn to_json(&self) -> Value {
        let mut body = Map::new();
        body.insert("type".into(), json!(format!("urn:millpond:problem:{}", self.0.slug)));
        body.insert("title".into(), json!(self.0.title));
        body.insert("status".into(), json!(self.0.status.as_u16()));
        body.insert("detail".into(), json!(self.0.detail));
        body.extend(self.0.more.clone());
        Value::Object(body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json().to_string();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.0.challenge.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<broker::Error> for Problem {
    fn from(error: broker::Error) -> Problem {
        use broker::Kind;
        let (status, slug, title) = match error.kind {
            Kind::UnknownTopicOrPartition | Kind::UnknownTopicId | Kind::GroupIdNotFound => {
                (StatusCode::NOT_FOUND, "not-found", "no such thing")
            }
            Kind::OffsetOutOfRange => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "offset-out-of-range", "the offset is not in the log")
            }
            Kind::MessageTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "record-too-large", "a record is too large"),
            Kind::TopicAlreadyExists => (StatusCode::CONFLICT, "exists", "the thing exists"),
            Kind::Damaged => (StatusCode::INTERNAL_SERVER_ERROR, "damaged", "stored records are damaged"),
            _ => match error.kind.act() {
                broker::Act::Retry => (StatusCode::SERVICE_UNAVAILABLE, "try-again", "the broker cannot answer now"),
                broker::Act::Refuse => (StatusCode::BAD_REQUEST, "bad-request", "the request is not valid"),
                broker::Act::Stop => (StatusCode::INTERNAL_SERVER_ERROR, "storage", "the store failed"),
            },
        };
        let problem = Problem::new(status, slug, title, error.message);
        if status == StatusCode::SERVICE_UNAVAILABLE { problem.retry_after(1) } else { problem }
    }
}

impl From<engine::EngineError> for Problem {
    fn from(error: engine::EngineError) -> Problem {
        use engine::ErrorKind;
        let (status, slug, title) = match error.kind {
            ErrorKind::Unknown => (StatusCode::NOT_FOUND, "not-found", "no such thing"),
            ErrorKind::BadRequest | ErrorKind::Config => {
                (StatusCode::BAD_REQUEST, "bad-request", "the request is not valid")
            }
            ErrorKind::TooLarge => (StatusCode::BAD_REQUEST, "answer-too-large", "the answer is too large"),
            ErrorKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "the server is at its limit"),
            ErrorKind::Conflict => (StatusCode::CONFLICT, "conflict", "the thing is at work or held back"),
            ErrorKind::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "not-fresh", "the view is not fresh in time"),
            ErrorKind::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped", "the engine is stopped"),
            ErrorKind::Storage => (StatusCode::INTERNAL_SERVER_ERROR, "storage", "the store failed"),
            ErrorKind::Bug => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "millpond failed"),
        };
        let mut problem = Problem::new(status, slug, title, error.message);
        if let Some(offsets) = &error.offsets {
            problem = problem.with("offsets", offsets_json(offsets));
        }
        if matches!(error.kind, ErrorKind::Timeout | ErrorKind::Busy) { problem.retry_after(1) } else { problem }
    }
}

impl From<lake::LakeError> for Problem {
    fn from(error: lake::LakeError) -> Problem {
        use lake::LakeErrorKind;
        let (status, slug, title) = match error.kind {
            LakeErrorKind::Refused | LakeErrorKind::Config => {
                (StatusCode::BAD_REQUEST, "bad-request", "the request is not valid")
            }
            LakeErrorKind::NotFound => (StatusCode::NOT_FOUND, "not-found", "no such thing"),
            LakeErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "the token does not reach this"),
            LakeErrorKind::TimeLimit => (StatusCode::UNPROCESSABLE_ENTITY, "query-too-slow", "the query took too long"),
            LakeErrorKind::MemoryLimit => {
                (StatusCode::UNPROCESSABLE_ENTITY, "query-too-large", "the query needs too much memory")
            }
            LakeErrorKind::NotFresh => (StatusCode::SERVICE_UNAVAILABLE, "not-fresh", "the view is not fresh in time"),
            LakeErrorKind::Filling => (StatusCode::SERVICE_UNAVAILABLE, "filling", "a view is being filled"),
            LakeErrorKind::Destination => {
                (StatusCode::BAD_GATEWAY, "destination-away", "the lake's destination does not answer")
            }
            LakeErrorKind::Broker => (StatusCode::SERVICE_UNAVAILABLE, "stopped", "the log cannot be read"),
            LakeErrorKind::Bug => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "millpond failed"),
        };
        let mut problem = Problem::new(status, slug, title, error.message);
        if let Some(offsets) = &error.offsets {
            problem = problem.with("offsets", offsets_json(offsets));
        }
        if matches!(error.kind, LakeErrorKind::NotFresh | LakeErrorKind::Filling) {
            problem.retry_after(1)
        } else {
            problem
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let problem = Problem::not_found("no topic named x: GET /v1/topics lists them").with("topic", "x");
        assert_eq!(
            problem.to_json(),
            json!({
                "type": "urn:millpond:problem:not-found",
                "title": "no such thing",
                "status": 404,
                "detail": "no topic named x: GET /v1/topics lists them",
                "topic": "x",
            })
        );
        let response = problem.into_response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        let response = Problem::busy("256 requests are being worked on: try again").into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn every_kind_of_the_broker_has_a_status_that_is_an_error() {
        for kind in broker::Kind::ALL {
            let problem = Problem::from(broker::Error::new(*kind, "x"));
            assert!(problem.status().is_client_error() || problem.status().is_server_error(), "{kind:?}");
        }
    }
}
