//! Fetch (1), versions 4 to 17.
//!
//! - Whole batches only, from the one that contains the offset. The first partition that has records gives at least one
//!   batch, whatever the limits say (KIP-74); the others give what still fits. Partitions are answered in the order of
//!   the request; clients rotate them for fairness.
//! - Waits until `min_bytes` are there, a partition has an error, or `max_wait_ms` are over.
//! - The records go onto the wire as they lie in the log: the answer is a list of chunks, headers of our own between
//!   batches that are not copied.
//! - An answer holds its share of the memory for replies until its last byte has left. When memory is short, answers
//!   get shorter; when there is none until `max_wait_ms` are over, they have no records.
//! - Sessions (KIP-227) are in `fetch_sessions`; a session may add partitions to a request and leave some out of the answer.
//! - OFFSET_OUT_OF_RANGE carries the high watermark and the log start. Leader epochs: older FENCED_LEADER_EPOCH, newer
//!   UNKNOWN_LEADER_EPOCH; `last_fetched_epoch` gives the diverging epoch (KIP-595). Who believes in an older epoch, as after a crash of
//!   the broker, is told the new one and where its leader is (KIP-951), and need not ask Metadata first.
//! - Readers of committed data get nothing from the last stable offset on, and the aborted transactions that have records in
//!   what they get, by first offset; they pass over those themselves.
//! - What the log of a tiered topic let go is read in the cold log: batches made anew from the same records, without those that
//!   were aborted and without markers, for both levels of isolation; KAFKA_STORAGE_ERROR while it is away, after which clients
//!   try again.
//! - Left out: replicas and racks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use tokio::time::{Instant, sleep_until};

use super::fetch_answer::{BY_ID, Encoder, Endpoint, Given, refused};
use super::fetch_pass::{Pass, partitions};
use super::fetch_sessions::{Begun, FetchSessions, Key};
use super::positions::known_isolation;
use super::{Context, Reply};
use crate::error::{Error, Kind, Result};
use crate::log::{Partition, Waiter};
use crate::security::Security;
use crate::security::acl::{Operation, Resource};
use crate::security::quota::{Limit, Quota};
use crate::types::TopicId;

/// Most bytes of records in one answer, whatever the client asks (Kafka's `fetch.max.bytes` of a broker).
const FETCH_BYTES_MAX: usize = 55 * 1024 * 1024;
/// Longest wait, whatever the client asks.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A topic of the request.
pub(super) struct Asked {
    name: TopicName,
    id: TopicId,
    pub(super) partitions: Vec<AskedPartition>,
}

pub(super) struct AskedPartition {
    pub(super) asked: FetchPartition,
    /// The partition, unless it is not there.
    pub(super) partition: Result<Arc<Partition>>,
}

/// Answers Fetch.
pub(crate) fn fetch(context: &Context, version: i16, request: FetchRequest) -> Reply {
    if let Err(error) = known_isolation(request.isolation_level) {
        return Reply::Now(refused(version, request, &error));
    }
    let settings = context.broker.settings();
    let bytes_max = usize::try_from(settings.whole("fetch.max.bytes")).unwrap_or(0).min(FETCH_BYTES_MAX);
    let quota = context.broker.security().limit(Quota::ConsumerByteRate, &context.principal(), &context.client_id);
    let quota_bytes = quota.as_ref().map_or(FETCH_BYTES_MAX, Security::answer_bytes_max);
    let limits = Limits {
        bytes: usize::try_from(request.max_bytes).unwrap_or(0).min(bytes_max).min(quota_bytes),
        least: usize::try_from(request.min_bytes).unwrap_or(0),
        wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX),
        committed_only: request.isolation_level != 0,
    };
    let slots = usize::try_from(settings.whole("max.incremental.fetch.session.cache.slots")).unwrap_or(0);
    let now = context.broker.clock().steady_ms();
    let mut begun = match context.broker.fetch_sessions().begin(version, request, (now, slots)) {
        Ok(begun) => begun,
        Err(kind) => return Reply::Now(vec![Encoder::new(version, (kind.code(), 0), 0).finish_empty()]),
    };
    let topics = std::mem::take(&mut begun.topics);
    let asked = Arc::new(failed_last(topics.into_iter().map(|topic| look_up(context, version, topic)).collect()));
    let context = context.clone();
    Reply::later(async move {
        let Pass { given, share, .. } = collect(&context, &asked, &limits).await;
        if let Some(limit) = quota
            && let bytes = given.iter().flat_map(|one| &one.batches).map(|batch| batch.bytes().len()).sum()
            && let throttle_ms = throttle(&context, limit, bytes)
            && throttle_ms > 0
        {
            return Reply::Now(vec![Encoder::throttled((version, begun.id), throttle_ms).finish_empty()]);
        }
        let asked = Arc::into_inner(asked).expect("the pass is over, and nobody else has it");
        let (asked, given) = to_tell(context.broker.fetch_sessions(), &begun, asked, given);
        Reply::Held(encode(&context, (version, begun.id), asked, given), share)
    })
}

/// Counts an answer and says for how long the client must be still instead of getting it; then it does not count.
fn throttle(context: &Context, limit: Limit, bytes: usize) -> i32 {
    let (security, quota) = (context.broker.security(), Quota::ConsumerByteRate);
    let throttle_ms = security.used(quota, limit.clone(), bytes as f64);
    if throttle_ms > 0 {
        security.unused(quota, limit, bytes as f64);
        context.session.be_still(throttle_ms);
    }
    i32::try_from(throttle_ms).unwrap_or(i32::MAX)
}

/// What of an answer its session wants told.
fn to_tell(
    sessions: &FetchSessions,
    begun: &Begun,
    mut asked: Vec<Asked>,
    given: Vec<Given>,
) -> (Vec<Asked>, Vec<Given>) {
    if begun.id == 0 {
        return (asked, given);
    }
    let of_topic = |topic: &Asked| -> Vec<Key> {
        topic.partitions.iter().map(|one| (topic.name.clone(), topic.id, one.asked.partition)).collect()
    };
    let keys = asked.iter().flat_map(of_topic);
    let outcomes: Vec<_> = keys.zip(given.iter().map(Given::outcome)).collect();
    let told = sessions.note(begun, &outcomes);
    let mut wanted = told.iter();
    for topic in &mut asked {
        topic.partitions.retain(|_| wanted.next().copied().unwrap_or(true));
    }
    asked.retain(|topic| !topic.partitions.is_empty());
    let given = given.into_iter().zip(&told).filter(|(_, told)| **told).map(|(given, _)| given);
    (asked, given.collect())
}

/// What bounds an answer.
pub(super) struct Limits {
    /// Most bytes of records.
    pub(super) bytes: usize,
    /// Bytes of records that are worth an answer before the time is over.
    pub(super) least: usize,
    wait: Duration,
    /// Whether the reader wants committed records only.
    pub(super) committed_only: bool,
}

fn look_up(context: &Context, version: i16, topic: FetchTopic) -> Asked {
    let catalog = context.broker.catalog();
    let FetchTopic { topic: name, topic_id: id, partitions, .. } = topic;
    let (topic, absent) = if version >= BY_ID {
        (catalog.topic_by_id(id), Kind::UnknownTopicId)
    } else {
        (catalog.topic(&name), Kind::UnknownTopicOrPartition)
    };
    let known_as = topic.as_ref().map_or(&*name.0, |topic| &**topic.name());
    // an id that is not there tells nothing
    let denied = if topic.is_none() && version >= BY_ID {
        None
    } else {
        context.authorize(Operation::Read, Resource::Topic(known_as)).err()
    };
    let find = |asked: FetchPartition| {
        let partition = match (&denied, &topic) {
            (Some(denied), _) => Err(denied.clone()),
            (None, None) => Err(Error::new(absent, "there is no such topic")),
            (None, Some(topic)) => topic
                .partition(asked.partition)
                .ok_or_else(|| Error::new(Kind::UnknownTopicOrPartition, "there is no such partition")),
        };
        AskedPartition { asked, partition }
    };
    Asked { name, id, partitions: partitions.into_iter().map(find).collect() }
}

/// Kafka answers what there is in the order of the request, and after that what there is not.
fn failed_last(asked: Vec<Asked>) -> Vec<Asked> {
    let is_there = |one: &AskedPartition| one.partition.is_ok();
    if asked.iter().all(|topic| !topic.partitions.is_empty() && topic.partitions.iter().all(is_there)) {
        return asked; // as nearly always
    }
    let (mut found, mut failed) = (Vec::with_capacity(asked.len()), Vec::new());
    for Asked { name, id, partitions } in asked {
        let (good, bad): (Vec<_>, Vec<_>) = partitions.into_iter().partition(is_there);
        failed.extend((!bad.is_empty()).then(|| Asked { name: name.clone(), id, partitions: bad }));
        found.extend((!good.is_empty()).then_some(Asked { name, id, partitions: good }));
    }
    found.extend(failed);
    found
}

/// Reads until there is enough, an error, or no time left.
async fn collect(context: &Context, asked: &Arc<Vec<Asked>>, limits: &Limits) -> Pass {
    let deadline = Instant::now() + limits.wait;
    let mut pass = Pass::over(context, asked, (limits, deadline)).await;
    if pass.enough || limits.wait.is_zero() {
        return pass;
    }
    let waiter = Waiter::new();
    for partition in partitions(asked).filter_map(|one| one.partition.as_ref().ok()) {
        partition.watch(&waiter);
    }
    let mut ending = context.ending.clone();
    loop {
        // what was published before the waiter was there has not woken it: look before waiting
        if pass.has_news(asked) {
            drop(pass);
            pass = Pass::over(context, asked, (limits, deadline)).await;
            if pass.enough {
                return pass;
            }
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = sleep_until(deadline) => return pass,
            _ = ending.wait_for(|end| *end) => return pass,
        }
    }
}

/// The answer as chunks: what stands between the records is written here, the records are the log's own bytes.
fn encode(context: &Context, (version, session): (i16, i32), asked: Vec<Asked>, given: Vec<Given>) -> Vec<Bytes> {
    let mut out = Encoder::new(version, (0, session), asked.len());
    let node = context.broker.config().node_id;
    let (mut given, mut told) = (given.into_iter(), false);
    for topic in asked {
        out.topic(&topic.name, topic.id, topic.partitions.len());
        for (asked, given) in topic.partitions.iter().zip(&mut given) {
            let leader = given.leader_epoch.map(|epoch| (node, epoch));
            told |= leader.is_some();
            out.partition(asked.asked.partition, given, leader);
        }
        out.no_tags();
    }
    let this = Endpoint { node, host: &context.listener.host, port: i32::from(context.listener.port) };
    out.end(told.then_some(this));
    out.finish()
}
