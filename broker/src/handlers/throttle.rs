//! Quotas (KIP-13, KIP-124): what a request used is counted, the answer says for how long the client should be still, and
//! for so long nothing more is read from its connection.
//!
//! - Produce counts the bytes of the request, also with acks = 0. Fetch counts the batches of its
//!   answers (`fetch.rs`).
//! - Every request counts the time that it was worked on, in percent of one processor. Logins and ApiVersions do not.

use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use kafka_protocol::messages::ApiKey;

use super::{Api, Context, Reply};
use crate::security::quota::{Limit, Quota};

/// Lets the handler answer, and counts what that took. `frame_bytes` is the size of the whole request.
///
/// # Errors
/// Those of the handler.
pub(crate) fn answer(
    api: &'static Api,
    context: &Context,
    version: i16,
    (body, frame_bytes): (Bytes, usize),
) -> Result<Reply, String> {
    if super::sasl::asked(api.key) != crate::security::session::Asked::Other {
        return (api.handle)(context, version, body);
    }
    let security = context.broker.security();
    let limit = |quota| security.limit(quota, &context.principal(), &context.client_id);
    let bytes = if api.key == ApiKey::Produce { limit(Quota::ProducerByteRate) } else { None };
    let time = limit(Quota::RequestPercentage);
    if bytes.is_none() && time.is_none() {
        return (api.handle)(context, version, body);
    }
    let bytes_ms = bytes.map_or(0, |limit| security.used(Quota::ProducerByteRate, limit, frame_bytes as f64));
    context.session.be_still(bytes_ms);
    let begun = Instant::now();
    let reply = (api.handle)(context, version, body)?;
    let used = Used { context: context.clone(), key: api.key, version, bytes_ms, time };
    Ok(match reply {
        Reply::Later(answer) => {
            let spent = begun.elapsed();
            Reply::later(async move {
                let (reply, more) = Timed { answer, spent }.await;
                used.told(reply, more)
            })
        }
        reply => used.told(reply, begun.elapsed()),
    })
}

/// What a request has used so far, and the limit on its time.
struct Used {
    context: Context,
    key: ApiKey,
    version: i16,
    bytes_ms: i64,
    time: Option<Limit>,
}

impl Used {
    /// Counts the time, and tells the client.
    fn told(self, reply: Reply, spent: Duration) -> Reply {
        let percent = spent.as_secs_f64() * 100.0;
        let security = self.context.broker.security();
        let time_ms = self.time.map_or(0, |limit| security.used(Quota::RequestPercentage, limit, percent));
        self.context.session.be_still(time_ms);
        let throttle_ms = i32::try_from(self.bytes_ms.max(time_ms)).unwrap_or(i32::MAX);
        match (reply, place(self.key, self.version)) {
            (Reply::Now(body), Some(place)) if throttle_ms > 0 => Reply::Now(place.put(body, throttle_ms)),
            (Reply::Held(body, share), Some(place)) if throttle_ms > 0 => {
                Reply::Held(place.put(body, throttle_ms), share)
            }
            (reply, _) => reply,
        }
    }
}

/// An answer, with the time that was spent on it: not what it waited.
struct Timed {
    answer: BoxFuture<'static, Reply>,
    spent: Duration,
}

impl Future for Timed {
    type Output = (Reply, Duration);

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let begun = Instant::now();
        let polled = self.answer.as_mut().poll(context);
        self.spent += begun.elapsed();
        polled.map(|reply| (reply, self.spent))
    }
}

/// Where an answer says how long the client should be still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Bytes from its beginning.
    Start(usize),
    /// Bytes from its end.
    End(usize),
}

/// The place in the answer to `key` in `version`, if it has one.
fn place(key: ApiKey, version: i16) -> Option<Place> {
    let since = match key {
        ApiKey::SaslHandshake | ApiKey::SaslAuthenticate | ApiKey::WriteTxnMarkers | ApiKey::DescribeQuorum => None,
        ApiKey::ApiVersions => None,
        ApiKey::Metadata | ApiKey::OffsetCommit | ApiKey::OffsetFetch => Some(3),
        ApiKey::ListOffsets | ApiKey::JoinGroup | ApiKey::CreateTopics | ApiKey::OffsetForLeaderEpoch => Some(2),
        ApiKey::Produce
        | ApiKey::Fetch
        | ApiKey::FindCoordinator
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteTopics => Some(1),
        _ => Some(0),
    };
    let in_version = since.is_some_and(|since| version >= since);
    in_version.then_some(match key {
        // behind all else; no tagged fields of ours follow but their count
        ApiKey::Produce => Place::End(if version >= 9 { 5 } else { 4 }),
        ApiKey::CreateDelegationToken
        | ApiKey::RenewDelegationToken
        | ApiKey::ExpireDelegationToken
        | ApiKey::DescribeDelegationToken => Place::End(if version >= 2 { 5 } else { 4 }),
        ApiKey::OffsetDelete => Place::Start(2),
        _ => Place::Start(0),
    })
}

impl Place {
    /// The answer with the larger of its own time and this one.
    fn put(self, mut body: Vec<Bytes>, throttle_ms: i32) -> Vec<Bytes> {
        let chunk = match self {
            Place::Start(_) => body.first_mut(),
            Place::End(_) => body.last_mut(),
        };
        let Some(chunk) = chunk else { return body };
        let mut changed = BytesMut::from(&chunk[..]);
        let at = match self {
            Place::Start(at) => Some(at),
            Place::End(before) => changed.len().checked_sub(before),
        };
        let field = at.and_then(|at| changed.get_mut(at..at + 4)).and_then(|field| field.first_chunk_mut::<4>());
        if let Some(field) = field {
            *field = i32::from_be_bytes(*field).max(throttle_ms).to_be_bytes();
            *chunk = changed.freeze();
        }
        body
    }
}
