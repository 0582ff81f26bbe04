//! The only map from what can go wrong to the registry's error codes: the status is the code's first three digits.

use axum::http::StatusCode;
use broker::SchemaFault;
use serde_json::{Value, json};

use crate::access::Refusal;

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The registry's code.
    pub code: u32,
    /// For people.
    pub message: String,
}

impl Fault {
    fn new(code: u32, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into() }
    }

    /// 401 or 40301: no token, or one that may not do this.
    pub fn refused(refusal: &Refusal) -> Fault {
        match refusal {
            Refusal::Missing => {
                Fault::new(401, "Unauthorized: send Authorization: Bearer TOKEN, or basic.auth.user.info=NAME:TOKEN")
            }
            Refusal::Unknown => Fault::new(401, "Unauthorized: the token is not one of this server's"),
            Refusal::Scope(token, scope) => {
                Fault::new(40301, format!("User is denied operation: the token {token} lacks the scope {scope}"))
            }
        }
    }

    /// 404: a route that is not served.
    pub fn unknown_route() -> Fault {
        Fault::new(404, "HTTP 404 Not Found")
    }

    /// 400: a body that is not JSON.
    pub fn unreadable(message: impl Into<String>) -> Fault {
        Fault::new(400, message)
    }

    /// 413: a body above the limit.
    pub fn body_too_large(limit: usize) -> Fault {
        Fault::new(413, format!("the body is larger than {limit} bytes: send less, or raise http.body_bytes_max"))
    }

    /// 40401.
    pub fn subject_not_found(subject: &str) -> Fault {
        Fault::new(40401, format!("Subject '{subject}' not found."))
    }

    /// 40402.
    pub fn version_not_found(version: impl std::fmt::Display) -> Fault {
        Fault::new(40402, format!("Version {version} not found."))
    }

    /// 40403.
    pub fn schema_not_found() -> Fault {
        Fault::new(40403, "Schema not found")
    }

    /// 40403 for an id.
    pub fn id_not_found(id: &str) -> Fault {
        Fault::new(40403, format!("Schema {id} not found"))
    }

    /// 40408.
    pub fn no_subject_config(subject: &str) -> Fault {
        Fault::new(40408, format!("Subject '{subject}' does not have subject-level compatibility configured"))
    }

    /// 40409.
    pub fn no_subject_mode(subject: &str) -> Fault {
        Fault::new(40409, format!("Subject '{subject}' does not have subject-level mode configured"))
    }

    /// 409: the schema does not fit earlier ones.
    pub fn incompatible(subject: &str, details: &[String]) -> Fault {
        let details = details.join(", ");
        let message = format!(
            "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", details: [{details}]"
        );
        Fault::new(409, message)
    }

    /// 42201.
    pub fn invalid_schema(message: impl Into<String>) -> Fault {
        Fault::new(42201, message)
    }

    /// 42202.
    pub fn invalid_version(version: &str) -> Fault {
        let message = format!(
            "The specified version '{version}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\""
        );
        Fault::new(42202, message)
    }

    /// 42203.
    pub fn invalid_compatibility() -> Fault {
        let names: Vec<&str> = broker::Compatibility::ALL.iter().map(|(_, name)| *name).collect();
        Fault::new(42203, format!("Invalid compatibility level. Valid values are {}", names.join(", ")))
    }

    /// 42204.
    pub fn invalid_mode() -> Fault {
        let names: Vec<&str> = broker::RegistryMode::ALL.iter().map(|(_, name)| *name).collect();
        Fault::new(42204, format!("Invalid mode. Valid values are {}", names.join(", ")))
    }

    /// 42209.
    pub fn schema_too_large() -> Fault {
        Fault::new(42209, format!("Schema is too large: send at most {} bytes", broker::SCHEMA_BYTES_MAX))
    }

    /// 42210.
    pub fn rule_set() -> Fault {
        Fault::new(42210, "Rule sets are not served here: register the schema without ruleSet")
    }

    /// 50001: a fault of Millpond's own.
    pub fn failed(reason: &str) -> Fault {
        Fault::new(50001, format!("the request ran into a fault of millpond, see its log and report it: {reason}"))
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        let status = if self.code >= 10_000 { self.code / 100 } else { self.code };
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body.
    pub fn to_json(&self) -> Value {
        json!({"error_code": self.code, "message": self.message})
    }
}

impl From<broker::Error> for Fault {
    fn from(error: broker::Error) -> Fault {
        Fault::new(50001, error.message)
    }
}

impl From<SchemaFault> for Fault {
    fn from(fault: SchemaFault) -> Fault {
        match fault {
            SchemaFault::SubjectNotFound(subject) => Fault::subject_not_found(&subject),
            SchemaFault::VersionNotFound(version) => Fault::version_not_found(version),
            SchemaFault::SchemaNotFound => Fault::schema_not_found(),
            SchemaFault::SubjectDeleted(subject) => Fault::new(
                40404,
                format!("Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"),
            ),
            SchemaFault::SubjectNotDeleted(subject) => {
                Fault::new(40405, format!("Subject '{subject}' was not deleted first before being permanently deleted"))
            }
            SchemaFault::VersionDeleted(subject, version) => Fault::new(
                40406,
                format!(
                    "Subject '{subject}' Version {version} was soft deleted. Set permanent=true to delete permanently"
                ),
            ),
            SchemaFault::VersionNotDeleted(subject, version) => Fault::new(
                40407,
                format!("Subject '{subject}' Version {version} was not deleted first before being permanently deleted"),
            ),
            SchemaFault::NotPermitted(message) => Fault::new(42205, message),
            SchemaFault::ReferenceExists(subject, version) => Fault::new(
                42206,
                format!("One or more references exist to the schema {{subject={subject},version={version}}}"),
            ),
            SchemaFault::InvalidSubject(message) => Fault::new(42208, message),
            SchemaFault::IdTaken(id) => {
                Fault::new(42207, format!("Overwrite of schema with id {id} is not permitted: send another id"))
            }
            SchemaFault::Full => Fault::new(
                42205,
                "the registry holds as many schemas as it may: register versions of fewer schemas".to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_codes_first_three_digits() {
        let cases = [
            (Fault::unknown_route(), 404),
            (Fault::subject_not_found("s"), 404),
            (Fault::incompatible("s", &[]), 409),
            (Fault::invalid_schema("x"), 422),
            (Fault::from(broker::Error::storage("x")), 500),
        ];
        for (fault, status) in cases {
            assert_eq!(fault.status().as_u16(), status, "{fault:?}");
        }
    }
}
