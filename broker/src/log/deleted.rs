//! The disk of deleted topics. Their keys are gone with the commit, and files that held nothing else went with it; what shares
//! a file with others, or lies in level 0 still, leaves the disk when the store merges: here it is told to, off the lane. What lies in buckets
//! goes with them (`buckets`).

use std::sync::Arc;

use super::buckets::GIVEN_BACK_BYTES_MIN;
use super::partition::blocking;
use super::{Partition, keys};
use crate::store::{Family, Store};
use crate::types::LogId;

/// What a deleted topic had. Taken before the commit that deletes it.
pub(crate) struct Deleted {
    logs: Vec<LogId>,
    /// Outside of buckets.
    bytes: u64,
    in_buckets: u64,
    on_disk_before: u64,
}

impl Deleted {
    /// Of these partitions.
    pub(crate) fn of(store: &Store, partitions: &[Arc<Partition>]) -> Self {
        let mut of = Self { logs: Vec::new(), bytes: 0, in_buckets: 0, on_disk_before: on_disk(store) };
        for partition in partitions {
            // what cannot be read must not keep the topic from being deleted
            let in_buckets = partition.in_buckets().ok().flatten().map_or(0, |(_, bytes)| bytes);
            of.logs.push(partition.id());
            of.in_buckets += in_buckets;
            of.bytes += partition.size_bytes().saturating_sub(in_buckets);
        }
        of
    }

    /// Has the store give back, soon and without being waited for, what did not leave the disk with the commit. One topic at
    /// a time, in the order of `one_at_a_time`.
    pub(crate) fn give_back(self, store: &Arc<Store>, one_at_a_time: &Arc<tokio::sync::Mutex<()>>) {
        if self.in_buckets >= GIVEN_BACK_BYTES_MIN {
            store.buckets().ask_to_look(true);
        }
        let dropped = self.on_disk_before.saturating_sub(on_disk(store));
        let left = self.bytes.saturating_sub(dropped);
        if left < GIVEN_BACK_BYTES_MIN {
            return;
        }
        let (store, turn) = (store.clone(), one_at_a_time.clone());
        tokio::spawn(async move {
            let _turn = turn.lock().await;
            let merged = blocking(move || {
                self.merge(&store, left);
                Ok(())
            });
            if let Err(error) = merged.await {
                tracing::warn!(%error, "the disk of a deleted topic comes back with later merges only");
            }
        });
    }

    fn merge(&self, store: &Store, left: u64) {
        for run in self.logs.chunk_by(|one, next| one.0 + 1 == next.0) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let (from, to) = (keys::log_range(*first).0, keys::log_range(*last).1);
            store.reclaim(Family::Compacted, &from, &to);
            store.reclaim(Family::Index, &from, &to);
        }
        // this family has no ranges to merge, only all of its runs: worth it as long as what goes is more than what stays
        if left.saturating_mul(2) >= store.disk_bytes(Family::Log) {
            let (Some(first), Some(last)) = (self.logs.first(), self.logs.last()) else { return };
            store.reclaim(Family::Log, &keys::log_range(*first).0, &keys::log_range(*last).1);
        }
    }
}

fn on_disk(store: &Store) -> u64 {
    store.disk_bytes(Family::Log) + store.disk_bytes(Family::Compacted)
}
