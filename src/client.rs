//! Calls to the HTTP port of a running server.

use std::time::Duration;

use serde_json::Value;

use crate::failure::Failure;

/// Largest answer read.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// Longest wait for an answer; the server has shorter limits of its own.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Where the server is.
#[derive(clap::Args)]
pub struct Server {
    /// The HTTP port of the server, as HOST:PORT or http://HOST:PORT [default: MILLPOND_HTTP or 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// A token, where the server asks for one [default: MILLPOND_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

impl Server {
    /// The server at an address or URL.
    pub fn at(address: &str) -> Server {
        Server { http: Some(address.to_owned()), token: None }
    }

    fn base(&self) -> String {
        let named = self.http.clone().or_else(|| std::env::var("MILLPOND_HTTP").ok());
        let address = named.unwrap_or_else(|| "127.0.0.1:8080".into());
        let address = address.trim_end_matches('/');
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
    }

    fn agent(&self) -> ureq::Agent {
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(WAIT_MAX)).build().into()
    }

    fn authorization(&self) -> Option<String> {
        let token = self.token.clone().or_else(|| std::env::var("MILLPOND_TOKEN").ok());
        token.filter(|token| !token.is_empty()).map(|token| format!("Bearer {token}"))
    }

    /// `GET path`, as JSON.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        let mut request = self.agent().get(format!("{}{path}", self.base()));
        if let Some(value) = self.authorization() {
            request = request.header("authorization", value);
        }
        self.read(request.call())
    }

    /// `POST path` with a JSON body, as JSON.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let mut request = self.agent().post(format!("{}{path}", self.base()));
        if let Some(value) = self.authorization() {
            request = request.header("authorization", value);
        }
        self.read(request.send_json(body))
    }

    fn read(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, Failure> {
        let mut answer = answer.map_err(|error| match error {
            ureq::Error::Io(error) => Failure::Failed(format!(
                "no server answers at {}: {error}; start one with `millpond serve`, or say where it is with --http HOST:PORT",
                self.base()
            )),
            other => Failure::Failed(format!("{}: {other}", self.base())),
        })?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let body = body.map_err(|error| Failure::Failed(format!("{}: the answer broke off: {error}", self.base())))?;
        let json: Option<Value> = serde_json::from_str(&body).ok();
        if status.is_success() {
            return json.ok_or_else(|| {
                Failure::Failed(format!("{} is not a Millpond server: its answer is not JSON", self.base()))
            });
        }
        // the schema registry's errors have a message, all others a detail
        let said =
            |problem: &Value| Some(problem.get("detail").or_else(|| problem.get("message"))?.as_str()?.to_owned());
        let detail = json.as_ref().and_then(said);
        Err(Failure::Failed(detail.unwrap_or_else(|| format!("{} answered {status}", self.base()))))
    }
}

/// What is in a list of an answer; nothing where it is none.
pub fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// Percent-encodes what a path segment cannot hold.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
