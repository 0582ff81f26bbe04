//! What transactions mean to those who read a partition: committed records only, and who is writing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::aborted::{self, Aborted};
use super::partition::blocking;
use super::producers::ProducerState;
use super::{Partition, keys};
use crate::batch::Batch;
use crate::error::Result;
use crate::store::Family;
use crate::types::{Offset, ProducerId, TimestampMs};

/// Most producers of one partition that are shown.
const PRODUCERS_SHOWN_MAX: usize = 100_000;

/// A producer that wrote into a partition not long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActiveProducer {
    /// Its id.
    pub(crate) producer_id: ProducerId,
    /// Its epoch.
    pub(crate) epoch: i16,
    /// Sequence number of its newest record, -1 for none under its epoch.
    pub(crate) last_sequence: i32,
    /// Largest timestamp of its last batch.
    pub(crate) last_timestamp: TimestampMs,
    /// Epoch of the coordinator that last ended a transaction of it, -1 for none.
    pub(crate) coordinator_epoch: i32,
    /// First record of its open transaction.
    pub(crate) open_from: Option<Offset>,
}

impl Partition {
    /// End of what is decided: below it every transaction has ended. Readers of committed data read up to here. Never below the
    /// log start: what was deleted needs no decision.
    pub fn last_stable_offset(&self) -> Offset {
        // in this order: a transaction that begins meanwhile begins at or above the high watermark
        let end = self.high_watermark();
        end.min(self.unstable_from.load(Ordering::Acquire).max(self.log_start()))
    }

    /// Reads as [`read`](Self::read) does, but nothing that an open transaction may still take back; what was taken back, and
    /// the markers, come as batches without records. Empty at the last stable offset.
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start or above the high watermark.
    pub async fn read_committed(self: &Arc<Self>, offset: Offset, max_bytes: usize) -> Result<Vec<Batch>> {
        let batches = self.read_below(offset, self.last_stable_offset(), max_bytes).await?;
        if !batches.iter().any(|batch| batch.is_control() || batch.is_transactional()) {
            return Ok(batches);
        }
        let end = batches.last().map_or(offset, Batch::next_offset);
        let aborted = self.aborted_between(offset, end).await?;
        let gone = |batch: &Batch| batch.is_control() || aborted.iter().any(|one| one.covers(batch));
        Ok(batches.into_iter().map(|batch| if gone(&batch) { batch.hollow() } else { batch }).collect())
    }

    /// Aborted transactions that have records in `[from, to)`, by their first offset.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub async fn aborted_between(self: &Arc<Self>, from: Offset, to: Offset) -> Result<Vec<Aborted>> {
        if self.has_none_aborted(from) {
            return Ok(Vec::new());
        }
        let this = self.clone();
        blocking(move || this.read_aborted(from, to)).await
    }

    /// Whether no record at or behind an offset was aborted, as is known without the store.
    pub(crate) fn has_none_aborted(&self, from: Offset) -> bool {
        from > self.last_aborted.load(Ordering::Acquire)
    }

    /// Aborted transactions that have records in `[from, to)`, by their first offset. Blocks.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub(crate) fn read_aborted(&self, from: Offset, to: Offset) -> Result<Vec<Aborted>> {
        if self.has_none_aborted(from) { Ok(Vec::new()) } else { aborted::between(&self.store, self.id, from, to) }
    }

    /// Whether this producer has written something into the partition that is not decided yet.
    pub(crate) fn has_open_transaction(&self, (producer, epoch): (ProducerId, i16)) -> bool {
        let writer = self.writer.lock();
        writer.open.get(producer).is_some_and(|open| open.epoch == epoch && open.first.is_some())
    }

    /// Who wrote into the partition and is still remembered, by producer id.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub(crate) async fn active_producers(self: &Arc<Self>) -> Result<Vec<ActiveProducer>> {
        let this = self.clone();
        blocking(move || {
            let (from, to) = keys::log_range(this.id);
            let mut found = Vec::new();
            for entry in this.store.scan(Family::Producers, &from, &to).take(PRODUCERS_SHOWN_MAX) {
                let (key, value) = entry?;
                let (producer_id, known) = (keys::base_offset_of(&key)?, ProducerState::decode(&value)?);
                found.push(ActiveProducer {
                    producer_id,
                    epoch: known.epoch,
                    last_sequence: known.last_sequence(),
                    last_timestamp: known.last_timestamp,
                    coordinator_epoch: known.coordinator_epoch,
                    open_from: this.writer.lock().open.get(producer_id).and_then(|open| open.first),
                });
            }
            Ok(found)
        })
        .await
    }
}
