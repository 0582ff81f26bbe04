//! The answer to Fetch as bytes: written by hand, because the crate's encoder copies all records.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::FetchRequest;

use super::fetch_sessions::Outcome;
use crate::batch::Batch;
use crate::builder::put_unsigned;
use crate::error::{Error, Kind};
use crate::log::Aborted;
use crate::types::{LeaderEpoch, Offset, TopicId};

/// First version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;
/// First version that names topics by id.
pub(super) const BY_ID: i16 = 13;
/// First version that tells who leads, to clients that believe something else (KIP-951).
const LEADER_HINTS: i16 = 16;

/// What one partition gives.
#[derive(Default)]
pub(super) struct Given {
    pub(super) code: i16,
    pub(super) high_watermark: Offset,
    pub(super) last_stable: Offset,
    pub(super) log_start: Offset,
    /// Only for readers of committed data.
    pub(super) aborted: Option<Vec<Aborted>>,
    pub(super) diverging: Option<(LeaderEpoch, Offset)>,
    /// The epoch of the leader, which is this broker, for a client that believes in an older one.
    pub(super) leader_epoch: Option<LeaderEpoch>,
    pub(super) batches: Vec<Batch>,
}

impl Given {
    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            high_watermark: self.high_watermark,
            log_start: self.log_start,
            records: !self.batches.is_empty(),
            urgent: self.code != 0 || self.diverging.is_some(),
            failed: self.code != 0,
        }
    }

    pub(super) fn refused(error: &Error) -> Given {
        let code = error.kind.code();
        // null, or none: Kafka sends none for a partition that it does not have
        let none =
            [Kind::UnknownTopicOrPartition, Kind::UnknownTopicId, Kind::TopicAuthorizationFailed].contains(&error.kind);
        let aborted = none.then(Vec::new);
        Given { code, high_watermark: -1, last_stable: -1, log_start: -1, aborted, ..Given::default() }
    }
}

/// Where this broker is reached.
pub(super) struct Endpoint<'a> {
    pub(super) node: i32,
    pub(super) host: &'a str,
    pub(super) port: i32,
}

/// The answer to a request of which nothing is done: its error on top and, for clients that do not know topic ids, on each
/// partition.
pub(super) fn refused(version: i16, request: FetchRequest, error: &Error) -> Vec<Bytes> {
    let topics = if version < BY_ID { request.topics } else { Vec::new() };
    let mut out = Encoder::new(version, (error.kind.code(), request.session_id), topics.len());
    for topic in topics {
        out.topic(&topic.topic, topic.topic_id, topic.partitions.len());
        for asked in &topic.partitions {
            out.partition(asked.partition, Given { aborted: Some(Vec::new()), ..Given::refused(error) }, None);
        }
        out.no_tags();
    }
    out.no_tags();
    out.finish()
}

/// Room for what a partition's answer has beside its records, in most cases.
const PARTITION_BYTES: usize = 64;

/// A FetchResponse that is being written.
pub(super) struct Encoder {
    version: i16,
    chunks: Vec<Bytes>,
    buffer: BytesMut,
}

impl Encoder {
    pub(super) fn new(version: i16, (code, session): (i16, i32), topics: usize) -> Encoder {
        let mut out = Encoder { version, chunks: Vec::new(), buffer: BytesMut::with_capacity(256) };
        out.buffer.put_i32(0); // throttle_time_ms
        if version >= 7 {
            out.buffer.put_i16(code);
            out.buffer.put_i32(session);
        }
        out.count(topics);
        out
    }

    /// An answer without topics, for a client that is to be still first.
    pub(super) fn throttled((version, session): (i16, i32), throttle_ms: i32) -> Encoder {
        let mut out = Encoder::new(version, (0, session), 0);
        out.buffer[..4].copy_from_slice(&throttle_ms.to_be_bytes());
        out
    }

    pub(super) fn topic(&mut self, name: &str, id: TopicId, partitions: usize) {
        self.buffer.reserve(name.len() + PARTITION_BYTES * (partitions + 1));
        if self.version >= BY_ID {
            self.buffer.put_slice(id.as_bytes());
        } else if self.version >= FLEXIBLE {
            self.count(name.len());
            self.buffer.put_slice(name.as_bytes());
        } else {
            self.buffer
                .put_i16(i16::try_from(name.len()).expect("the request carried the name with a length of 16 bits"));
            self.buffer.put_slice(name.as_bytes());
        }
        self.count(partitions);
    }

    /// What a partition gives; `leader` and its epoch are told if nothing else is.
    pub(super) fn partition(&mut self, index: i32, given: Given, leader: Option<(i32, LeaderEpoch)>) {
        self.buffer.put_i32(index);
        self.buffer.put_i16(given.code);
        self.buffer.put_i64(given.high_watermark);
        self.buffer.put_i64(given.last_stable);
        if self.version >= 5 {
            self.buffer.put_i64(given.log_start);
        }
        self.aborted(given.aborted.as_deref());
        if self.version >= 11 {
            self.buffer.put_i32(-1); // preferred_read_replica
        }
        self.count(given.batches.iter().map(|batch| batch.bytes().len()).sum());
        if !given.batches.is_empty() {
            self.chunks.push(self.buffer.split().freeze());
            self.chunks.extend(given.batches.into_iter().map(Batch::into_bytes));
        }
        let diverging = given.diverging.filter(|_| self.version >= FLEXIBLE);
        let leader = leader.filter(|_| self.version >= LEADER_HINTS);
        match (diverging, leader) {
            (None, None) => self.no_tags(),
            // one tagged field each: its number, its size, and behind its own fields no tagged ones
            (Some((epoch, end)), _) => {
                self.buffer.put_slice(&[1, 0, 4 + 8 + 1]);
                self.buffer.put_i32(epoch);
                self.buffer.put_i64(end);
                self.buffer.put_u8(0);
            }
            (None, Some((leader, epoch))) => {
                self.buffer.put_slice(&[1, 1, 4 + 4 + 1]);
                self.buffer.put_i32(leader);
                self.buffer.put_i32(epoch);
                self.buffer.put_u8(0);
            }
        }
    }

    fn aborted(&mut self, transactions: Option<&[Aborted]>) {
        let Some(transactions) = transactions else { return self.null() };
        self.count(transactions.len());
        for aborted in transactions {
            self.buffer.put_i64(aborted.producer_id);
            self.buffer.put_i64(aborted.first);
            self.no_tags();
        }
    }

    /// The end of the answer; `leader` is where the one lives of whom a partition told.
    pub(super) fn end(&mut self, leader: Option<Endpoint<'_>>) {
        let Some(Endpoint { node, host, port }) = leader.filter(|_| self.version >= LEADER_HINTS) else {
            return self.no_tags();
        };
        let mut field = BytesMut::new();
        put_unsigned(&mut field, 1 + 1); // one endpoint
        field.put_i32(node);
        put_unsigned(&mut field, host.len() as u64 + 1);
        field.put_slice(host.as_bytes());
        field.put_i32(port);
        field.put_slice(&[0, 0]); // no rack, no tagged fields
        self.buffer.put_slice(&[1, 0]);
        put_unsigned(&mut self.buffer, field.len() as u64);
        self.buffer.put_slice(&field);
    }

    pub(super) fn no_tags(&mut self) {
        if self.version >= FLEXIBLE {
            self.buffer.put_u8(0);
        }
    }

    /// The count of a list, or the length of bytes.
    fn count(&mut self, count: usize) {
        if self.version < FLEXIBLE {
            self.buffer.put_i32(i32::try_from(count).expect("an answer holds less than 2 GiB"));
            return;
        }
        put_unsigned(&mut self.buffer, count as u64 + 1);
    }

    fn null(&mut self) {
        if self.version >= FLEXIBLE { self.buffer.put_u8(0) } else { self.buffer.put_i32(-1) }
    }

    pub(super) fn finish_empty(mut self) -> Bytes {
        self.no_tags();
        self.buffer.freeze()
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        if !self.buffer.is_empty() {
            self.chunks.push(self.buffer.freeze());
        }
        self.chunks
    }
}
