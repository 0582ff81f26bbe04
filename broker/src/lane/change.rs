//! What a commit consists of, and what is answered.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::batch::Batch;
use crate::log::{Compacted, Moved, Partition};
use crate::store::{Entries, Family};
use crate::types::{LeaderEpoch, Offset, ProducerId, TimestampMs};

/// Room for what the store's batch writes beside each key and value: a kind, the family, two lengths.
const ENTRY_BYTES: usize = 8;

/// One part of a commit.
pub enum Change {
    /// Adds a batch at the end of a partition.
    Append(Append),
    /// Sets a key.
    Put(Family, Vec<u8>, Vec<u8>),
    /// Sets many keys, which who made them may go on to use.
    PutAll(Family, Arc<Entries>),
    /// Removes a key.
    Delete(Family, Vec<u8>),
    /// Removes the keys of `[from, to)`.
    DeleteRange(Family, Vec<u8>, Vec<u8>),
    /// Moves a partition's log start forward; never above the high watermark, never back.
    LogStart(Arc<Partition>, Offset),
    /// Does the same, and has clients be served nothing below it from the cold log either.
    Earliest(Arc<Partition>, Offset),
    /// Starts a new leader epoch at the partition's end.
    Epoch(Arc<Partition>, LeaderEpoch),
    /// A partition belongs to a producer's transaction from now on; the producer must begin with sequence 0 there if the
    /// last says so.
    Admit(Arc<Partition>, (ProducerId, i16), bool),
    /// Forgets a producer that has not appended since the given time.
    ForgetProducer(Arc<Partition>, ProducerId, TimestampMs),
    /// Replaces and removes batches that compaction judged.
    Compact(Compacted),
    /// Moves batches out of a bucket.
    Move(Moved),
    /// Removes all that a partition stored; it must be marked deleted before.
    Drop(Arc<Partition>),
}

/// A batch and where it goes.
pub struct Append {
    /// The partition.
    pub partition: Arc<Partition>,
    /// The batch, its CRC checked.
    pub batch: Batch,
    /// Whose it is.
    pub origin: Origin,
}

/// The memory of a request that changes came in.
pub(crate) struct RequestMemory {
    /// Its share of the memory for requests.
    share: Arc<OwnedSemaphorePermit>,
    /// A second hold on the request where the batch is only a part of it: so the batch is copied out of it, and does not keep it.
    _whole: Option<Bytes>,
}

impl RequestMemory {
    /// The memory that a batch's request has a share for, of one byte a permit.
    pub(crate) fn of(batch: &Batch, share: Arc<OwnedSemaphorePermit>) -> Self {
        let is_part = batch.bytes().len() < share.num_permits() / 2;
        Self { share, _whole: is_part.then(|| batch.bytes().clone()) }
    }

    /// What is left of it when the batch is staged.
    pub(crate) fn into_share(self) -> Arc<OwnedSemaphorePermit> {
        self.share
    }
}

/// Who wrote a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client: sequence numbers are checked.
    Client,
    /// Millpond itself.
    Internal,
    /// Who ends a transaction: the batch is its marker.
    Marker(Marker),
}

/// How a transaction ends in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Whether its records count.
    pub committed: bool,
    /// Epoch of the coordinator that says so.
    pub coordinator_epoch: i32,
    /// Whether it is an administrator that says so (WriteTxnMarkers), and not the coordinator, for which the transaction is
    /// still on.
    pub by_admin: bool,
}

/// When a commit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// After the write.
    Written,
    /// After the sync that `durability` asks for, and after it became visible.
    Durable,
}

/// Where an append went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The time the records got, or -1 when they keep the client's.
    pub log_append_time: TimestampMs,
    /// The partition's log start.
    pub log_start: Offset,
    /// Whether it was there already, from an earlier try of an idempotent producer.
    pub duplicate: bool,
}

impl Change {
    /// Bytes that it writes, but for what is small.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Append(append) => append.batch.bytes().len(),
            Change::Put(_, key, value) => key.len() + value.len(),
            Change::PutAll(_, entries) => entries.bytes() + entries.len() * ENTRY_BYTES,
            Change::Compact(change) => change.size(),
            Change::Move(change) => change.size(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::BatchBuilder;

    #[test]
    fn a_batch_does_not_keep_a_request_of_which_it_is_a_small_part() {
        let mut builder = BatchBuilder::new();
        builder.push(1_000, None, Some(&[7; 100_000]), &[]);
        let sent = builder.build().unwrap();
        let budget = Arc::new(Semaphore::new(1 << 20));
        for (request_bytes, stays) in [(sent.bytes().len() + 100, true), (3 * sent.bytes().len(), false)] {
            let batch = Batch::parse(sent.bytes().to_vec().into()).unwrap();
            let share = budget.clone().try_acquire_many_owned(request_bytes as u32).unwrap();
            let (before, memory) = (batch.bytes().as_ptr(), RequestMemory::of(&batch, Arc::new(share)));
            assert_eq!(
                batch.placed(5, 0, None).bytes().as_ptr() == before,
                stays,
                "in a request of {request_bytes} bytes"
            );
            assert!(budget.available_permits() < 1 << 20, "as long as it is held");
            drop(memory);
            assert_eq!(budget.available_permits(), 1 << 20);
        }
    }
}
