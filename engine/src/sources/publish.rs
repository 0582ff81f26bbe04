//! Records and refused rows → appends of one commit.

use broker::{Change, TimestampMs, Topic};

use super::reader::{RAW_BYTES_MAX, RawRow};
use super::rules::{Ready, Refused};
use crate::emit::Outbox;

/// What a batch and a record have around keys and values, with room.
const MARGIN_BYTES: usize = 256;

/// Collects records for the partitions of a topic.
pub(crate) struct Packer {
    outbox: Outbox,
    batch_bytes_max: usize,
    /// Where records without a key go: to one partition in each commit, to the next in the next.
    turn: usize,
}

impl Packer {
    /// A packer for one commit.
    pub(crate) fn new(topic: &Topic, turn: u64) -> Packer {
        let partitions = topic.partitions();
        let count = partitions.len().max(1) as u64;
        Packer {
            outbox: Outbox::new(partitions),
            batch_bytes_max: topic.config().max_message_bytes(),
            turn: usize::try_from(turn % count).unwrap_or(0),
        }
    }

    /// Adds a record; Err with rule and reason when the topic does not take it.
    pub(crate) fn push(&mut self, ready: &Ready, now_ms: TimestampMs) -> Result<(), (&'static str, String)> {
        let count = self.outbox.partitions();
        let at = match (ready.partition, &ready.key) {
            (Some(number), _) => usize::try_from(number).ok().filter(|at| *at < count).ok_or_else(|| {
                ("partition", format!("the topic has partitions 0 to {}, not {number}", count.saturating_sub(1)))
            })?,
            (None, Some(key)) => self.outbox.partition_of(key),
            (None, None) => self.turn,
        };
        let bytes = ready.value.len() + ready.key.as_ref().map_or(0, Vec::len) + MARGIN_BYTES;
        if bytes > self.batch_bytes_max {
            let limit = self.batch_bytes_max;
            let reason = format!("the record has {} bytes, the topic takes {limit}", ready.value.len());
            return Err(("too_large", reason));
        }
        self.outbox.make_room(at, bytes, self.batch_bytes_max);
        let time = ready.timestamp.filter(|ms| *ms >= 0).unwrap_or(now_ms);
        self.outbox.push_at(at, time, ready.key.as_deref(), Some(&ready.value), &[]);
        Ok(())
    }

    /// Adds a refused row: its bytes, and headers that say where it stood and what is wrong with it.
    pub(crate) fn push_refused(
        &mut self,
        (source, file): (&str, &str),
        row: &RawRow,
        refused: &Refused,
        now_ms: TimestampMs,
    ) {
        let line = row.line.to_string();
        let cut = row.raw.len() > RAW_BYTES_MAX;
        let mut headers: Vec<(&[u8], Option<&[u8]>)> = vec![
            (b"rule", Some(refused.rule.as_bytes())),
            (b"reason", Some(refused.reason.as_bytes())),
            (b"source", Some(source.as_bytes())),
            (b"file", Some(file.as_bytes())),
            (b"line", Some(line.as_bytes())),
        ];
        if cut {
            headers.push((b"cut", Some(b"true")));
        }
        let raw = &row.raw[..row.raw.len().min(RAW_BYTES_MAX)];
        self.outbox.make_room(0, raw.len() + refused.reason.len() + MARGIN_BYTES, self.batch_bytes_max);
        self.outbox.push_at(0, now_ms, None, Some(raw), &headers);
    }

    /// The appends, in order.
    pub(crate) fn finish(self) -> Vec<Change> {
        self.outbox.finish()
    }
}
