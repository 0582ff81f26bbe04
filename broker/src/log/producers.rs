//! Idempotent producers (KIP-98): which batches are new, which were appended before, which do not follow.
//!
//! Stored per (log, producer):
//! ```text
//! 0  1 version, 1        1  2 producer epoch     3  1 number of batches, 1 to 5
//! then per batch, oldest first, 24 bytes: 0 4 first sequence · 4 4 last sequence · 8 8 base offset · 16 8 appended at
//! ```

use crate::batch::Batch;
use crate::error::{Error, Kind, Result};
use crate::log::keys;
use crate::types::{Offset, TimestampMs};

/// Batches remembered per producer: the most that a client has in flight (`max.in.flight.requests.per.connection`).
pub const BATCHES_KEPT: usize = 5;
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 4;
const KEPT_BYTES: usize = 24;

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Sequence number of its first record.
    pub first: i32,
    /// Sequence number of its last record.
    pub last: i32,
    /// Where it went.
    pub base_offset: Offset,
    /// The broker's clock then.
    pub appended_at: TimestampMs,
}

/// What is known of one producer in one partition. Always true: at least one batch, at most [`BATCHES_KEPT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Its current epoch.
    pub epoch: i16,
    /// Its newest batches, oldest first.
    pub kept: Vec<Kept>,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is new and follows.
    Append,
    /// It is in the log already, at this place.
    Duplicate(Kept),
}

/// Judges a batch by what is known of its producer, as Kafka's `ProducerAppendInfo` does.
///
/// # Errors
/// `InvalidProducerEpoch` for an old epoch, `OutOfOrderSequence` for a gap.
pub fn judge(known: Option<&ProducerState>, batch: &Batch) -> Result<Verdict> {
    let Some(known) = known else { return Ok(Verdict::Append) };
    let (epoch, first) = (batch.producer_epoch(), batch.base_sequence());
    if epoch < known.epoch {
        let message =
            format!("producer {} writes with epoch {epoch}, its current one is {}", batch.producer_id(), known.epoch);
        return Err(Error::new(Kind::InvalidProducerEpoch, message));
    }
    if epoch > known.epoch {
        return if first == 0 { Ok(Verdict::Append) } else { Err(gap(batch, -1)) };
    }
    let last = last_sequence(batch);
    if let Some(same) = known.kept.iter().find(|kept| kept.first == first && kept.last == last) {
        return Ok(Verdict::Duplicate(*same));
    }
    let newest = known.kept.last().map_or(-1, |kept| kept.last);
    if first == following(newest) { Ok(Verdict::Append) } else { Err(gap(batch, newest)) }
}

fn gap(batch: &Batch, newest: i32) -> Error {
    let message = format!(
        "producer {} sent sequence {} after {newest}: batches before it are missing",
        batch.producer_id(),
        batch.base_sequence()
    );
    Error::new(Kind::OutOfOrderSequence, message)
}

/// Sequence number of the batch's last record; numbers wrap from `i32::MAX` to 0.
fn last_sequence(batch: &Batch) -> i32 {
    let last = i64::from(batch.base_sequence()) + i64::from(batch.last_offset_delta());
    i32::try_from(last % (i64::from(i32::MAX) + 1)).expect("the remainder is below 2^31")
}

fn following(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

impl ProducerState {
    /// What is known after `batch` was appended at `base_offset`.
    pub fn after(known: Option<&Self>, batch: &Batch, base_offset: Offset, appended_at: TimestampMs) -> Self {
        let epoch = batch.producer_epoch();
        let mut kept = match known {
            Some(known) if known.epoch == epoch => known.kept.clone(),
            _ => Vec::with_capacity(1),
        };
        if kept.len() == BATCHES_KEPT {
            kept.remove(0);
        }
        kept.push(Kept { first: batch.base_sequence(), last: last_sequence(batch), base_offset, appended_at });
        Self { epoch, kept }
    }

    /// When the producer last appended.
    pub fn last_append(&self) -> TimestampMs {
        self.kept.last().map_or(0, |kept| kept.appended_at)
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.kept.len() * KEPT_BYTES);
        out.push(VERSION);
        out.extend(self.epoch.to_be_bytes());
        out.push(u8::try_from(self.kept.len()).expect("at most five are kept"));
        for kept in &self.kept {
            out.extend(kept.first.to_be_bytes());
            out.extend(kept.last.to_be_bytes());
            out.extend(kept.base_offset.to_be_bytes());
            out.extend(kept.appended_at.to_be_bytes());
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Storage` when it is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = || keys::damaged("producer state", bytes);
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or_else(wrong)?;
        if head[0] != VERSION || rest.len() != usize::from(head[3]) * KEPT_BYTES || head[3] == 0 {
            return Err(wrong());
        }
        let kept = rest.chunks_exact(KEPT_BYTES).map(|part| Kept {
            first: i32::from_be_bytes(*part[0..].first_chunk().expect("24 bytes")),
            last: i32::from_be_bytes(*part[4..].first_chunk().expect("24 bytes")),
            base_offset: i64::from_be_bytes(*part[8..].first_chunk().expect("24 bytes")),
            appended_at: i64::from_be_bytes(*part[16..].first_chunk().expect("24 bytes")),
        });
        Ok(Self { epoch: i16::from_be_bytes([head[1], head[2]]), kept: kept.collect() })
    }
}
