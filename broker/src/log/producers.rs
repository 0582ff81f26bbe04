//! Idempotent producers (KIP-98): which batches are new, which were appended before, which do not follow.
//!
//! Stored per (log, producer):
//! ```text
//! 0  1 version, 2        1  2 producer epoch     3  1 number of batches, 0 to 5
//! 4  4 coordinator's epoch at the last transaction marker, -1 for none
//! 8  8 largest timestamp of the last batch or marker       16  8 the broker's clock when that was appended
//! then per batch, oldest first, 24 bytes: 0 4 first sequence · 4 4 last sequence · 8 8 base offset · 16 8 appended at
//! ```
//! Version 1 had 1 to 5 batches and ended its head after their number; it is still read.

use crate::batch::Batch;
use crate::error::{Error, Kind, Result};
use crate::lane::Marker;
use crate::log::keys;
use crate::log::open::Open;
use crate::types::{Offset, TimestampMs};

/// Batches remembered per producer: the most that a client has in flight (`max.in.flight.requests.per.connection`).
pub const BATCHES_KEPT: usize = 5;
const VERSION: u8 = 2;
const FIRST_VERSION: u8 = 1;
const HEAD_BYTES: usize = 4;
const REST_OF_HEAD_BYTES: usize = 20;
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

/// What is known of one producer in one partition. Always true: at most [`BATCHES_KEPT`] batches, all of its epoch; none
/// after a transaction marker brought a new epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Its current epoch.
    pub epoch: i16,
    /// Its newest batches, oldest first.
    pub kept: Vec<Kept>,
    /// Epoch of the coordinator that ended its last transaction here, -1 if none was ended.
    pub coordinator_epoch: i32,
    /// Largest timestamp of its last batch or marker; -1 when it is not known.
    pub last_timestamp: TimestampMs,
    /// The broker's clock when that was appended.
    pub last_append: TimestampMs,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is new and follows.
    Append,
    /// It is in the log already, at this place.
    Duplicate(Kept),
    /// It is a marker for a partition that was deleted: nobody needs it.
    Skip,
}

/// Judges a batch by what is known of its producer, as Kafka's `ProducerAppendInfo` does.
///
/// # Errors
/// `InvalidProducerEpoch` for an old epoch, `OutOfOrderSequence` for a gap; `TransactionAbortable` for a transactional batch
/// outside a transaction, `InvalidTxnState` for any other within one.
pub(crate) fn judge(known: Option<&ProducerState>, open: Option<&Open>, batch: &Batch) -> Result<Verdict> {
    let epoch = batch.producer_epoch();
    let current = known.map_or(-1, |known| known.epoch).max(open.map_or(-1, |open| open.epoch));
    if epoch < current {
        let message =
            format!("producer {} writes with epoch {epoch}, its current one is {current}", batch.producer_id());
        return Err(Error::new(Kind::InvalidProducerEpoch, message));
    }
    let verdict = judge_sequence(known, open, batch)?;
    match (verdict, open) {
        (Verdict::Append, open) if batch.is_transactional() && open.is_none_or(|open| open.epoch != epoch) => {
            Err(Error::new(Kind::TransactionAbortable, "the partition does not belong to the producer's transaction"))
        }
        (Verdict::Append, Some(Open { first: Some(_), .. })) if !batch.is_transactional() => {
            let message = "the producer has a transaction open in the partition, it must end it first";
            Err(Error::new(Kind::InvalidTxnState, message))
        }
        (verdict, _) => Ok(verdict),
    }
}

fn judge_sequence(known: Option<&ProducerState>, open: Option<&Open>, batch: &Batch) -> Result<Verdict> {
    let (epoch, first) = (batch.producer_epoch(), batch.base_sequence());
    let starts_over = open.is_some_and(|open| open.strict) && known.is_none_or(|known| known.kept.is_empty());
    if starts_over && batch.is_transactional() && first != 0 {
        return Err(gap(batch, -1));
    }
    let Some(known) = known else { return Ok(Verdict::Append) };
    if epoch > known.epoch {
        return if first == 0 { Ok(Verdict::Append) } else { Err(gap(batch, -1)) };
    }
    let last = last_sequence(batch);
    if let Some(same) = known.kept.iter().find(|kept| kept.first == first && kept.last == last) {
        return Ok(Verdict::Duplicate(*same));
    }
    let newest = known.last_sequence();
    if first == following(newest) { Ok(Verdict::Append) } else { Err(gap(batch, newest)) }
}

/// Judges a marker. The coordinator's own are always right; what an administrator sends (WriteTxnMarkers) may be old.
///
/// # Errors
/// `InvalidProducerEpoch`, `TransactionCoordinatorFenced`.
pub(crate) fn judge_marker(known: Option<&ProducerState>, batch: &Batch, marker: Marker) -> Result<Verdict> {
    let Some(known) = known.filter(|_| marker.by_admin) else { return Ok(Verdict::Append) };
    if batch.producer_epoch() < known.epoch {
        let message = format!("the marker has epoch {}, the producer has {}", batch.producer_epoch(), known.epoch);
        return Err(Error::new(Kind::InvalidProducerEpoch, message));
    }
    if marker.coordinator_epoch < known.coordinator_epoch {
        let (old, new) = (marker.coordinator_epoch, known.coordinator_epoch);
        let message = format!("the marker is of coordinator epoch {old}, the last one was of {new}");
        return Err(Error::new(Kind::TransactionCoordinatorFenced, message));
    }
    Ok(Verdict::Append)
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

/// The sequence number after this one.
pub(crate) fn following(sequence: i32) -> i32 {
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
        let coordinator_epoch = known.map_or(-1, |known| known.coordinator_epoch);
        Self { epoch, kept, coordinator_epoch, last_timestamp: batch.max_timestamp(), last_append: appended_at }
    }

    /// What is known after a transaction marker. Its epoch fences who has an older one.
    pub fn after_marker(known: Option<&Self>, batch: &Batch, coordinator_epoch: i32, appended_at: TimestampMs) -> Self {
        let epoch = batch.producer_epoch();
        let kept = known.filter(|known| known.epoch == epoch).map(|known| known.kept.clone());
        Self {
            epoch,
            kept: kept.unwrap_or_default(),
            coordinator_epoch,
            last_timestamp: batch.max_timestamp(),
            last_append: appended_at,
        }
    }

    /// When the producer last appended.
    pub fn last_append(&self) -> TimestampMs {
        self.last_append
    }

    /// Sequence number of its newest record under its epoch, -1 if there is none.
    pub fn last_sequence(&self) -> i32 {
        self.kept.last().map_or(-1, |kept| kept.last)
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + REST_OF_HEAD_BYTES + self.kept.len() * KEPT_BYTES);
        out.push(VERSION);
        out.extend(self.epoch.to_be_bytes());
        out.push(u8::try_from(self.kept.len()).expect("at most five are kept"));
        out.extend(self.coordinator_epoch.to_be_bytes());
        out.extend(self.last_timestamp.to_be_bytes());
        out.extend(self.last_append.to_be_bytes());
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
        let (more, batches) = match head[0] {
            VERSION => rest.split_first_chunk::<REST_OF_HEAD_BYTES>().map(|(more, rest)| (Some(more), rest)),
            FIRST_VERSION if head[3] > 0 => Some((None, rest)),
            _ => None,
        }
        .ok_or_else(wrong)?;
        if batches.len() != usize::from(head[3]) * KEPT_BYTES || usize::from(head[3]) > BATCHES_KEPT {
            return Err(wrong());
        }
        let kept: Vec<Kept> = batches
            .chunks_exact(KEPT_BYTES)
            .map(|part| Kept {
                first: i32::from_be_bytes(*part[0..].first_chunk().expect("24 bytes")),
                last: i32::from_be_bytes(*part[4..].first_chunk().expect("24 bytes")),
                base_offset: i64::from_be_bytes(*part[8..].first_chunk().expect("24 bytes")),
                appended_at: i64::from_be_bytes(*part[16..].first_chunk().expect("24 bytes")),
            })
            .collect();
        let epoch = i16::from_be_bytes([head[1], head[2]]);
        let Some(more) = more else {
            let last_append = kept.last().map_or(0, |kept| kept.appended_at);
            return Ok(Self { epoch, kept, coordinator_epoch: -1, last_timestamp: -1, last_append });
        };
        Ok(Self {
            epoch,
            kept,
            coordinator_epoch: i32::from_be_bytes(*more.first_chunk().expect("20 bytes")),
            last_timestamp: i64::from_be_bytes(*more[4..].first_chunk().expect("20 bytes")),
            last_append: i64::from_be_bytes(*more[12..].first_chunk().expect("20 bytes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> ProducerState {
        let kept = vec![Kept { first: 1, last: 2, base_offset: 3, appended_at: 4 }];
        ProducerState { epoch: 7, kept, coordinator_epoch: 0, last_timestamp: 5, last_append: 6 }
    }

    #[test]
    fn stored_bytes_are_as_drawn() {
        let golden = "02000701\
                      00000000\
                      0000000000000005\
                      0000000000000006\
                      00000001000000020000000000000003\
                      0000000000000004";
        let hex: String = state().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(ProducerState::decode(&state().encode()).unwrap(), state());
        let empty = ProducerState { kept: vec![], ..state() };
        assert_eq!(ProducerState::decode(&empty.encode()).unwrap(), empty);
        for cut in 0..state().encode().len() {
            assert!(ProducerState::decode(&state().encode()[..cut]).is_err());
        }
    }

    #[test]
    fn the_first_version_is_still_read() {
        let old = [&[1, 0, 7, 1][..], &[0, 0, 0, 1, 0, 0, 0, 2], &3_i64.to_be_bytes(), &4_i64.to_be_bytes()].concat();
        let expected = ProducerState { coordinator_epoch: -1, last_timestamp: -1, last_append: 4, ..state() };
        assert_eq!(ProducerState::decode(&old).unwrap(), expected);
        assert!(ProducerState::decode(&[1, 0, 7, 0]).is_err());
    }
}
