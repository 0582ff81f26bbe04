//! Millpond's server, and its views over the log.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::queries::{Query, stream};
use super::windows::Windows;
use super::{Cost, PARTITIONS};
use crate::Outcome;
use crate::engine::events::TOPIC;
use crate::server::Server;

/// Most time until a view has everything.
const FILLED_MAX: Duration = Duration::from_secs(600);
/// What the server does this long after a view is filled counts as work for it.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// The most that an answer may have, in rows and bytes.
const ROWS_MAX: u32 = 10_000_000;
const BYTES_MAX: u64 = 4 << 30;

/// The server with the topic.
pub struct Millpond {
    server: Server,
}

impl Millpond {
    /// Starts it, with an empty topic.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(folder: &Path) -> Outcome<Self> {
        let topics = format!("topics = [{{ name = \"{TOPIC}\", partitions = {PARTITIONS} }}]");
        let server = Server::start(folder, &format!("{topics}\n[http]\nrows_max = {ROWS_MAX}\n"))?;
        Ok(Self { server })
    }

    /// For Kafka clients.
    pub fn bootstrap(&self) -> &str {
        &self.server.kafka
    }

    /// Declares the stream over what is in the topic.
    ///
    /// # Errors
    /// It is refused.
    pub fn declare(&self) -> Outcome<()> {
        self.sql(&stream())?;
        self.applied()
    }

    /// What it costs to fill a new view with all that is in the log.
    ///
    /// # Errors
    /// The view stops.
    pub fn measure(&self, query: &Query) -> Outcome<Cost> {
        let (started, before) = (Instant::now(), self.server.cpu_seconds()?);
        self.sql(&query.view())?;
        self.applied()?;
        let seconds = started.elapsed().as_secs_f64();
        std::thread::sleep(AFTERWARDS);
        Ok(Cost { cpu: self.server.cpu_seconds()? - before, seconds })
    }

    /// What the view has counted.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn count(&self, query: &Query) -> Outcome<Windows> {
        let mut windows = Windows::default();
        windows.read(&self.get(&format!("/v1/views/{}?format=ndjson", query.name))?)?;
        Ok(windows)
    }

    /// Ends the view.
    ///
    /// # Errors
    /// It is refused.
    pub fn drop_view(&self, query: &Query) -> Outcome<()> {
        self.sql(&format!("DROP MATERIALIZED VIEW {}", query.name))?;
        std::thread::sleep(AFTERWARDS);
        Ok(())
    }

    /// Waits until every view has what is in the log.
    fn applied(&self) -> Outcome<()> {
        let deadline = Instant::now() + FILLED_MAX;
        loop {
            let answer: Value = serde_json::from_str(&self.get("/v1/views")?)?;
            let views = answer["views"].as_array().ok_or("no list of views")?;
            if let Some(stopped) = views.iter().find(|view| view["status"]["error"].is_string()) {
                return Err(format!("a view stopped: {stopped}").into());
            }
            let is_live = |view: &Value| view["status"]["state"] == "live" && view["status"]["lag_records"] == 0;
            if views.iter().all(is_live) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("not everything is applied after {FILLED_MAX:?}: {answer}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn get(&self, path: &str) -> Outcome<String> {
        let mut answer = ureq::get(format!("http://{}{path}", self.server.http)).call()?;
        Ok(answer.body_mut().with_config().limit(BYTES_MAX).read_to_string()?)
    }

    fn sql(&self, statement: &str) -> Outcome<()> {
        let request = ureq::post(format!("http://{}/v1/sql", self.server.http));
        let config = request.config().http_status_as_error(false).build();
        let mut answer = config.send_json(json!({ "sql": statement }))?;
        let text = answer.body_mut().read_to_string()?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("{statement}: {text}").into()) }
    }
}
