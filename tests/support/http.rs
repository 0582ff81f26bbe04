//! HTTP as a user's program speaks it.

use serde_json::Value;
use std::time::Duration;

#[derive(Clone)]
pub struct Http {
    address: String,
    agent: ureq::Agent,
}

impl Http {
    pub fn new(address: &str) -> Http {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            // the server closes a connection on which nothing was said for long; a test that reuses it just then would fail
            .max_idle_connections(0)
            .build();
        Http { address: address.to_owned(), agent: config.into() }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status and text, whatever they are.
    pub fn try_get(&self, path: &str) -> Result<(u16, String), String> {
        let mut answer = self.agent.get(self.url(path)).call().map_err(|e| format!("GET {path}: {e}"))?;
        let text =
            answer.body_mut().with_config().limit(1 << 30).read_to_string().map_err(|e| format!("GET {path}: {e}"))?;
        Ok((answer.status().as_u16(), text))
    }

    pub fn try_post(&self, path: &str, body: &Value) -> Result<(u16, String), String> {
        let mut answer = self.agent.post(self.url(path)).send_json(body).map_err(|e| format!("POST {path}: {e}"))?;
        let text =
            answer.body_mut().with_config().limit(1 << 30).read_to_string().map_err(|e| format!("POST {path}: {e}"))?;
        Ok((answer.status().as_u16(), text))
    }

    pub fn try_put(&self, path: &str, body: &Value) -> Result<(u16, String), String> {
        let mut answer = self.agent.put(self.url(path)).send_json(body).map_err(|e| format!("PUT {path}: {e}"))?;
        let text =
            answer.body_mut().with_config().limit(1 << 30).read_to_string().map_err(|e| format!("PUT {path}: {e}"))?;
        Ok((answer.status().as_u16(), text))
    }

    /// A successful GET, as text.
    pub fn text(&self, path: &str) -> String {
        let (status, text) = self.try_get(path).unwrap();
        assert_eq!(status, 200, "GET {path}: {text}");
        text
    }

    /// A successful GET, as JSON.
    pub fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap_or_else(|e| panic!("GET {path} is not JSON: {e}"))
    }

    /// A successful POST, as JSON.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, text) = self.try_post(path, body).unwrap();
        assert!((200..300).contains(&status), "POST {path}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("POST {path} is not JSON: {e}: {text}"))
    }

    /// All rows that a SQL statement gives.
    pub fn sql(&self, sql: &str) -> Vec<Vec<Value>> {
        rows(&self.post("/v1/sql", &serde_json::json!({ "sql": sql })))
    }
}

/// The `rows` of an answer.
pub fn rows(answer: &Value) -> Vec<Vec<Value>> {
    let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("no rows in {answer}"));
    rows.iter().map(|row| row.as_array().unwrap().clone()).collect()
}
