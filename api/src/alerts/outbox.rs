//! Notices on their way out. A notice is stored in the commit that caused it, together with its record in a topic; what
//! goes to URLs and mail servers is tried until it is taken, in order per receiver, and remembered for a while.
//!
//! ```text
//! meta  "notice\0" ++ number u64 BE  → JSON of Delivery
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker::{Ack, Append, BatchBuilder, Broker, Change, Family, NewTopic, Origin, TimestampMs};
use futures::StreamExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};

use super::channel::{self, Mail};
use crate::config::{Channels, SmtpConfig};
use crate::output::time_text;
use crate::partitioner::partition_of_key;

const PREFIX: &[u8] = b"notice\0";
const PREFIX_END: &[u8] = b"notice\x01";
/// Deliveries that are over and still remembered.
const REMEMBERED_MAX: usize = 1_000;
/// Deliveries that wait; beyond it the oldest is given up.
const WAITING_MAX: usize = 10_000;
/// How long one is tried before it is given up, in milliseconds.
const TRIED_MS_MAX: i64 = 24 * 3_600_000;
/// First and longest time between two attempts, in milliseconds.
const PAUSE_MS: (i64, i64) = (1_000, 300_000);
/// Attempts under way at one time.
const ATTEMPTS_MAX: usize = 8;

/// Something that people should know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// `alert` or `job`.
    pub source: String,
    /// The name of the alert or job.
    pub name: String,
    /// `firing` or `resolved`.
    pub state: String,
    /// info, warning or critical.
    pub severity: String,
    /// In words.
    pub text: String,
    /// What tells this from others of its name.
    pub labels: Map<String, Value>,
    /// The figures.
    pub values: Map<String, Value>,
    /// Since when.
    pub since_ms: TimestampMs,
    /// When it was told.
    pub at_ms: TimestampMs,
}

/// Where a delivery goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Receiver {
    /// A URL.
    Webhook(String),
    /// Addresses.
    Email(Vec<String>),
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is tried again.
    Waiting,
    /// The receiver took it.
    Delivered,
    /// It was given up.
    Failed,
}

/// A notice to one receiver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// What.
    pub notice: Notice,
    /// Where to.
    pub receiver: Receiver,
    /// How it stands.
    pub standing: Standing,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next, or when it ended.
    pub next_ms: TimestampMs,
    /// What went wrong last.
    pub error: Option<String>,
}

/// The outbox. Holds: every delivery that waits or is remembered, as the store has it. Changed by `post` and by the one
/// task that delivers. A crash between an attempt and its record delivers that notice a second time, under the same number.
pub struct Outbox {
    broker: Arc<Broker>,
    smtp: Option<SmtpConfig>,
    deliveries: Mutex<BTreeMap<u64, Delivery>>,
    posted: Notify,
}

impl Outbox {
    /// Reads what the store has.
    ///
    /// # Errors
    /// `Storage`.
    pub fn open(broker: Arc<Broker>, smtp: Option<SmtpConfig>) -> broker::Result<Outbox> {
        let mut deliveries = BTreeMap::new();
        for entry in broker.store().scan(Family::Meta, PREFIX, PREFIX_END) {
            let (key, value) = entry?;
            let number = key[PREFIX.len()..].try_into().map(u64::from_be_bytes);
            if let (Ok(number), Ok(delivery)) = (number, serde_json::from_slice(&value)) {
                deliveries.insert(number, delivery);
            }
        }
        Ok(Outbox { broker, smtp, deliveries: Mutex::new(deliveries), posted: Notify::new() })
    }

    /// The mail server.
    pub fn smtp(&self) -> Option<&SmtpConfig> {
        self.smtp.as_ref()
    }

    /// Commits `changes` together with notices to each of these channels.
    ///
    /// # Errors
    /// As the commit lane's; then nothing happened.
    pub async fn post(&self, mut changes: Vec<Change>, notices: &[Notice], channels: &Channels) -> broker::Result<()> {
        if let Some(topic) = &channels.topic
            && !notices.is_empty()
        {
            changes.extend(self.records(topic, notices).await?);
        }
        let receivers = channels.webhook.iter().cloned().map(Receiver::Webhook);
        let mail = Some(channels.email.clone()).filter(|to| !to.is_empty()).map(Receiver::Email);
        let receivers: Vec<Receiver> = receivers.chain(mail).collect();
        let delivery = |notice: &Notice, receiver: Receiver| Delivery {
            notice: notice.clone(),
            receiver,
            standing: Standing::Waiting,
            attempts: 0,
            next_ms: notice.at_ms,
            error: None,
        };
        let pairs = notices.iter().flat_map(|notice| receivers.iter().map(move |receiver| (notice, receiver.clone())));
        let mut new: Vec<(u64, Delivery)> = pairs.map(|(notice, receiver)| (0, delivery(notice, receiver))).collect();
        {
            // Under the lock, so that two who post at one time do not take the same numbers.
            let mut deliveries = self.deliveries.lock();
            let next = deliveries.last_key_value().map_or(1, |(number, _)| number + 1);
            for (at, (number, delivery)) in (next..).zip(&mut new) {
                *number = at;
                deliveries.insert(at, delivery.clone());
            }
        }
        changes.extend(new.iter().map(|(number, delivery)| stored(*number, delivery)));
        if let Err(error) = self.broker.lane().commit(changes, Ack::Durable).await {
            let mut deliveries = self.deliveries.lock();
            new.iter().for_each(|(number, _)| drop(deliveries.remove(number)));
            return Err(error);
        }
        self.posted.notify_one();
        Ok(())
    }

    async fn records(&self, topic: &str, notices: &[Notice]) -> broker::Result<Vec<Change>> {
        let new = NewTopic { name: topic.to_owned(), partitions: 1, config: Default::default() };
        let topic = self.broker.catalog().ensure(new).await?;
        let partitions = topic.partitions();
        let count = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
        let mut builders: BTreeMap<i32, BatchBuilder> = BTreeMap::new();
        for notice in notices {
            let key = json!({"source": notice.source, "name": notice.name, "labels": notice.labels}).to_string();
            let value = body(notice, None).to_string();
            let partition = partition_of_key(key.as_bytes(), count);
            let builder = builders.entry(partition).or_default();
            builder.push(notice.at_ms, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        }
        let append = |(index, builder): (i32, BatchBuilder)| {
            let partition = topic.partition(index)?;
            Some(Change::Append(Append { partition, batch: builder.build()?, origin: Origin::Internal }))
        };
        Ok(builders.into_iter().filter_map(append).collect())
    }

    /// Delivers until the server stops.
    pub async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        while !*stopping.borrow() {
            let now = self.broker.clock().now_ms();
            let due = self.due(now);
            if due.is_empty() {
                let pause = std::time::Duration::from_millis(500);
                tokio::select! {
                    () = self.posted.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                    _ = stopping.wait_for(|stop| *stop) => return,
                }
                continue;
            }
            let attempts =
                futures::stream::iter(due.into_iter().map(|(number, delivery)| self.attempt(number, delivery)));
            let work = attempts.buffer_unordered(ATTEMPTS_MAX).collect::<Vec<()>>();
            tokio::select! {
                _ = work => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// The oldest of each receiver, when its time has come: a recovery never overtakes what it recovers from.
    fn due(&self, now: TimestampMs) -> Vec<(u64, Delivery)> {
        let deliveries = self.deliveries.lock();
        let mut receivers = BTreeSet::new();
        let waiting = deliveries.iter().filter(|(_, delivery)| delivery.standing == Standing::Waiting);
        let first = waiting.filter(|(_, delivery)| receivers.insert(&delivery.receiver));
        first
            .filter(|(_, delivery)| delivery.next_ms <= now)
            .map(|(number, delivery)| (*number, delivery.clone()))
            .collect()
    }

    async fn attempt(&self, number: u64, mut delivery: Delivery) {
        let outcome = match &delivery.receiver {
            Receiver::Webhook(url) => channel::webhook(url.clone(), body(&delivery.notice, Some(number))).await,
            Receiver::Email(to) => {
                channel::email(self.smtp(), &mail(self.broker.cluster_id(), number, &delivery.notice, to)).await
            }
        };
        let now = self.broker.clock().now_ms();
        delivery.attempts += 1;
        delivery.error = outcome.as_ref().err().cloned();
        let pause = PAUSE_MS.0.saturating_mul(1 << delivery.attempts.min(12).saturating_sub(1)).min(PAUSE_MS.1);
        (delivery.standing, delivery.next_ms) = match outcome {
            Ok(()) => (Standing::Delivered, now),
            Err(_) if now - delivery.notice.at_ms >= TRIED_MS_MAX => (Standing::Failed, now),
            Err(_) => (Standing::Waiting, now + pause),
        };
        if let Some(error) = &delivery.error {
            tracing::warn!(
                name = delivery.notice.name,
                attempts = delivery.attempts,
                error,
                "a notice was not delivered"
            );
        }
        let mut changes = vec![stored(number, &delivery)];
        changes.extend(self.kept(number, delivery, now));
        if let Err(error) = self.broker.lane().commit(changes, Ack::Written).await {
            tracing::warn!(%error, "a notice's delivery cannot be remembered");
        }
    }

    /// Takes the new standing in, and lets go what is too much.
    fn kept(&self, number: u64, delivery: Delivery, now: TimestampMs) -> Vec<Change> {
        let mut deliveries = self.deliveries.lock();
        deliveries.insert(number, delivery);
        let waiting = |delivery: &&mut Delivery| delivery.standing == Standing::Waiting;
        let excess = deliveries.values_mut().filter(waiting).count().saturating_sub(WAITING_MAX);
        let mut changes = Vec::new();
        for (number, delivery) in deliveries.iter_mut().filter(|(_, d)| d.standing == Standing::Waiting).take(excess) {
            delivery.standing = Standing::Failed;
            delivery.next_ms = now;
            delivery.error = Some(format!("given up, more than {WAITING_MAX} notices wait"));
            changes.push(stored(*number, delivery));
        }
        let over: Vec<u64> =
            deliveries.iter().filter(|(_, d)| d.standing != Standing::Waiting).map(|(number, _)| *number).collect();
        // The newest number stays, so that it is never given again.
        for number in &over[..over.len().saturating_sub(REMEMBERED_MAX)] {
            deliveries.remove(number);
            changes.push(Change::Delete(Family::Meta, key(*number)));
        }
        changes
    }

    /// The newest deliveries of an alert or job, newest first, as JSON.
    pub fn of(&self, source: &str, name: &str, most: usize) -> Vec<Value> {
        let deliveries = self.deliveries.lock();
        let own = deliveries.iter().rev().filter(|(_, d)| d.notice.source == source && d.notice.name == name);
        own.take(most).map(|(number, delivery)| shown(*number, delivery)).collect()
    }

    /// How many wait, were delivered and were given up, of those remembered.
    pub fn counts(&self) -> [(&'static str, usize); 3] {
        let deliveries = self.deliveries.lock();
        let count = |standing| deliveries.values().filter(|delivery| delivery.standing == standing).count();
        [
            ("waiting", count(Standing::Waiting)),
            ("delivered", count(Standing::Delivered)),
            ("failed", count(Standing::Failed)),
        ]
    }
}

fn key(number: u64) -> Vec<u8> {
    [PREFIX, &number.to_be_bytes()].concat()
}

fn stored(number: u64, delivery: &Delivery) -> Change {
    let value = serde_json::to_vec(delivery).expect("a delivery is text and numbers");
    Change::Put(Family::Meta, key(number), value)
}

fn shown(number: u64, delivery: &Delivery) -> Value {
    let (channel, receiver) = match &delivery.receiver {
        Receiver::Webhook(url) => ("webhook", json!(url)),
        Receiver::Email(to) => ("email", json!(to)),
    };
    json!({
        "number": number,
        "channel": channel,
        "receiver": receiver,
        "notice": delivery.notice.state,
        "text": delivery.notice.text,
        "state": delivery.standing,
        "attempts": delivery.attempts,
        "posted": time_text(delivery.notice.at_ms),
        "time": time_text(delivery.next_ms),
        "error": delivery.error,
    })
}

/// What topics and URLs get. `text` is what Slack and its likes show.
fn body(notice: &Notice, number: Option<u64>) -> Value {
    let mut body = json!({
        "text": notice.text,
        "source": notice.source,
        "name": notice.name,
        "state": notice.state,
        "severity": notice.severity,
        "labels": notice.labels,
        "values": notice.values,
        "since": time_text(notice.since_ms),
        "at": time_text(notice.at_ms),
    });
    if let Some(number) = number {
        body["number"] = json!(number);
    }
    body
}

fn mail(cluster: &str, number: u64, notice: &Notice, to: &[String]) -> Mail {
    let Notice { name, state, severity, text, .. } = notice;
    let mut lines = vec![text.clone(), String::new()];
    lines.push(format!("{} {name}: {state}, {severity}", notice.source));
    lines.push(format!("since {}, told {}", time_text(notice.since_ms), time_text(notice.at_ms)));
    lines.extend(notice.values.iter().map(|(column, value)| format!("{column}: {value}")));
    Mail {
        to: to.to_vec(),
        subject: format!(
            "[{severity}] {name} {state}: {}",
            text.trim_start_matches("Resolved: ").lines().next().unwrap_or_default()
        ),
        text: lines.join("\r\n"),
        id: format!("{cluster}.{number}"),
    }
}
