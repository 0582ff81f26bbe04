//! Alerts: queries whose rows are what is wrong. Each has a task: `every` so often it asks the lake, `state` decides what
//! must be told, `outbox` stores the notices in the same commit and delivers them, `channel` speaks to the other side.

pub mod channel;
pub mod outbox;
mod routes;
pub mod state;

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Change, Family, TimestampMs};
use lake::{Lake, LakeError, LakeErrorKind, QueryKind, SqlRequest};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use routes::routes;

use self::outbox::{Notice, Outbox};
use self::state::{AlertState, INSTANCES_MAX, Rules, filled};
use crate::config::AlertConfig;
use crate::output::objects;

/// `meta`: this and the alert's name → JSON of AlertState.
const PREFIX: &[u8] = b"alert\0";
const PREFIX_END: &[u8] = b"alert\x01";

/// Every alert. Holds: their tasks' shared state.
pub struct Alerts {
    alerts: Vec<Arc<Alert>>,
    outbox: Arc<Outbox>,
}

/// One alert at work. Its own task alone changes it; what it has told survives a crash.
pub struct Alert {
    /// As declared.
    pub config: AlertConfig,
    rules: Rules,
    seen: Mutex<Seen>,
}

/// What an alert knows.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its instances.
    pub state: AlertState,
    /// When it looked last.
    pub checked_ms: Option<TimestampMs>,
    /// Why the last look failed, if it did.
    pub error: Option<String>,
    /// What is being filled that its query needs; what it holds to be wrong stays so meanwhile.
    pub waits_for: Option<String>,
    /// How often it looked since the start.
    pub looks: u64,
    /// How many of these failed.
    pub failures: u64,
    /// Notices since the start.
    pub notices: u64,
}

impl Alerts {
    /// Reads what was told before, and begins to look.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn start(
        (broker, lake, outbox): (Arc<Broker>, Arc<Lake>, Arc<Outbox>),
        configs: &[AlertConfig],
        stopping: &watch::Receiver<bool>,
    ) -> broker::Result<(Alerts, Vec<JoinHandle<()>>)> {
        let mut stored = std::collections::BTreeMap::new();
        for entry in broker.store().scan(Family::Meta, PREFIX, PREFIX_END) {
            let (key, value) = entry?;
            stored.insert(key[PREFIX.len()..].to_vec(), value);
        }
        let mut alerts = Vec::new();
        for config in configs {
            let state: AlertState = stored
                .remove(config.name.as_bytes())
                .and_then(|value| serde_json::from_slice(&value).ok())
                .unwrap_or_default();
            let rules =
                Rules { labels: config.labels.clone(), for_ms: config.for_ms, clear_for_ms: config.clear_for_ms };
            let seen = Mutex::new(Seen { state, ..Seen::default() });
            alerts.push(Arc::new(Alert { config: config.clone(), rules, seen }));
        }
        // Alerts that are not declared any more leave nothing behind.
        let gone: Vec<Change> = stored.into_keys().map(|name| Change::Delete(Family::Meta, key(&name))).collect();
        broker.lane().commit(gone, broker::Ack::Written).await?;
        let begin = |alert: &Arc<Alert>| {
            let look =
                Look { broker: broker.clone(), lake: lake.clone(), outbox: outbox.clone(), alert: alert.clone() };
            tokio::spawn(look.run(stopping.clone()))
        };
        let tasks = alerts.iter().map(begin).collect();
        Ok((Alerts { alerts, outbox }, tasks))
    }

    /// Each alert and what it knows, in the order of the configuration.
    pub fn list(&self) -> Vec<(Arc<Alert>, Seen)> {
        self.alerts.iter().map(|alert| (alert.clone(), alert.seen.lock().clone())).collect()
    }

    /// The notices on their way.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

impl Alert {
    /// What is told about an instance.
    pub fn message(&self, values: &Map<String, Value>) -> String {
        match &self.config.message {
            Some(template) => filled(template, values),
            None => {
                let figures: Vec<String> = values.iter().map(|(name, value)| format!("{name} {value}")).collect();
                format!("{}: {}", self.config.name, figures.join(", "))
            }
        }
    }

    fn notice(&self, turn: &state::Turn, now: TimestampMs) -> Notice {
        let instance = &turn.instance;
        let message = self.message(&instance.values);
        Notice {
            source: "alert".into(),
            name: self.config.name.clone(),
            state: if turn.firing { "firing" } else { "resolved" }.into(),
            severity: self.config.severity.clone(),
            text: if turn.firing { message } else { format!("Resolved: {message}") },
            labels: instance.labels.clone(),
            values: instance.values.clone(),
            since_ms: instance.since_ms,
            at_ms: now,
        }
    }
}

/// What the task of one alert works with.
struct Look {
    broker: Arc<Broker>,
    lake: Arc<Lake>,
    outbox: Arc<Outbox>,
    alert: Arc<Alert>,
}

impl Look {
    async fn run(self, mut stopping: watch::Receiver<bool>) {
        let every = Duration::from_millis(self.alert.config.every_ms);
        loop {
            tokio::select! {
                () = self.once() => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn once(&self) {
        let rows = self.rows().await;
        let now = self.broker.clock().now_ms();
        let (error, waits_for) = match rows {
            Ok(rows) => (self.take_in(rows, now).await.err(), None),
            Err(error) if error.kind == LakeErrorKind::Filling => (None, Some(error.message)),
            Err(error) => (Some(error.message), None),
        };
        let mut seen = self.alert.seen.lock();
        seen.looks += 1;
        seen.checked_ms = Some(now);
        if let Some(error) = &error {
            if seen.error.as_ref() != Some(error) {
                tracing::warn!(alert = self.alert.config.name, error, "an alert cannot look");
            }
            seen.failures += 1;
        }
        (seen.error, seen.waits_for) = (error, waits_for);
    }

    async fn rows(&self) -> Result<Vec<Map<String, Value>>, LakeError> {
        let request = SqlRequest {
            sql: self.alert.config.sql.clone(),
            row_limit: INSTANCES_MAX,
            kind: QueryKind::Alert,
            ..SqlRequest::default()
        };
        let answer = self.lake.sql(request).await?;
        let objects = objects(&answer.schema, answer.rows);
        objects.map_err(|problem| LakeError::new(LakeErrorKind::Bug, problem.detail()))
    }

    /// State and notices are one commit: what was told is known to have been told, and the other way round.
    async fn take_in(&self, rows: Vec<Map<String, Value>>, now: TimestampMs) -> Result<(), String> {
        let mut state = self.alert.seen.lock().state.clone();
        let (turns, changed) = state.observe(&self.alert.rules, rows, now);
        let notices: Vec<Notice> = turns.iter().map(|turn| self.alert.notice(turn, now)).collect();
        if changed {
            let value = serde_json::to_vec(&state).map_err(|error| error.to_string())?;
            let stored = Change::Put(Family::Meta, key(self.alert.config.name.as_bytes()), value);
            let posted = self.outbox.post(vec![stored], &notices, &self.alert.config.channels).await;
            posted.map_err(|error| error.to_string())?;
        }
        let mut seen = self.alert.seen.lock();
        seen.state = state;
        seen.notices += notices.len() as u64;
        Ok(())
    }
}

fn key(name: &[u8]) -> Vec<u8> {
    [PREFIX, name].concat()
}
