//! Keeping the log's buckets (`store/buckets`): the next one is begun when the active one has its size, one that no log needs is given
//! up, and where little of the oldest ones is needed, that is moved out of them, into `log`, whose runs are merged.
//!
//! As the buckets that a log names ascend along it, its first batch in one says which buckets it needs: those from there on. So the log
//! that reaches back the furthest holds all that follow. Its batches are moved when the buckets hold more that nobody needs than what is needed:
//! a batch is moved once at most, and the buckets take twice their content, and two buckets more.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::partition::blocking;
use super::{Partition, keys};
use crate::Broker;
use crate::error::{Error, Result};
use crate::lane::{Ack, Change};
use crate::log::compaction;
use crate::log::keys::IndexEntry;
use crate::store::{DeadRange, Family, Writes};
use crate::types::Offset;

#[cfg(test)]
mod tests;

/// Most buckets. Each takes some memory, and a line in what RocksDB notes of each change of its files.
const BUCKETS_MAX: usize = 1_000;
/// Bytes that are moved in one commit, so that producers never wait long for the lane: a batch above it goes alone.
const MOVED_BYTES_MAX: usize = 1 << 20;
const MOVED_MAX: usize = 4096;
/// Bytes that a deletion leaves behind for which a bucket is ended before its time.
pub(crate) const SHRUNK_BYTES_MIN: u64 = if cfg!(test) { 1 << 20 } else { 16 << 20 };
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps them until the broker is dropped.
pub(crate) async fn run(broker: Weak<Broker>) {
    let Some(work) = broker.upgrade().map(|broker| broker.store().buckets().work()) else { return };
    loop {
        work.notified().await;
        let Some(broker) = broker.upgrade() else { return };
        if let Err(error) = keep(&broker).await {
            tracing::warn!(%error, "the log's disk is not given back, it tries again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Does what is due.
///
/// # Errors
/// `Storage`.
pub(crate) async fn keep(broker: &Arc<Broker>) -> Result<()> {
    let buckets = broker.store().buckets();
    let _keeping = buckets.keeping.lock().await;
    if buckets.filled() >= buckets.bytes_max() {
        begin_next(broker).await?;
    }
    drop_files(broker, buckets.take_dead()).await?;
    let slack = if buckets.take_shrinking() { 0 } else { buckets.bytes_max().saturating_mul(2) };
    if slack == 0 && buckets.filled() >= SHRUNK_BYTES_MIN && Space::of(broker).await?.is_wasted(slack) {
        begin_next(broker).await?;
    }
    loop {
        let space = Space::of(broker).await?;
        give_up_dead(broker, space.needed).await?;
        let oldest = buckets.oldest();
        let is_due = buckets.count() > BUCKETS_MAX || Space::of(broker).await?.is_wasted(slack);
        if !is_due || oldest >= buckets.active_number() {
            return Ok(());
        }
        // no pass of compaction meanwhile: it changes the same entries of the index
        let Ok(_rounds) = broker.compaction_rounds().try_lock() else { return Ok(()) };
        for partition in partitions(broker) {
            move_out(broker, &partition, oldest).await?;
        }
        if Space::of(broker).await?.needed <= oldest {
            let name = Family::Bucket(oldest).name();
            return Err(Error::storage(format!("{name} has batches that cannot be moved, run millpond check")));
        }
    }
}

/// Has the lane go on in a new bucket. When this returns, all that went into the former one is published.
pub(crate) async fn begin_next(broker: &Arc<Broker>) -> Result<()> {
    let store = broker.store().clone();
    blocking(move || store.add_bucket()).await?;
    broker.lane().commit(Vec::new(), Ack::Durable).await?;
    Ok(())
}

/// What the buckets hold.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    /// The first bucket that is needed, at most the active one.
    needed: u32,
    /// Bytes of batches that logs have in buckets.
    live: u64,
    /// Bytes of their files.
    stored: u64,
}

impl Space {
    async fn of(broker: &Arc<Broker>) -> Result<Space> {
        // first: what is appended from now on goes here or further on
        let active = broker.store().buckets().active_number();
        let (all, store) = (partitions(broker), broker.store().clone());
        blocking(move || {
            let mut space = Space { needed: active, ..Space::default() };
            for partition in all {
                if let Some((number, bytes)) = partition.in_buckets()? {
                    space.needed = space.needed.min(number);
                    space.live += bytes;
                }
            }
            space.stored = store.buckets().all().into_iter().map(|bucket| store.disk_bytes(bucket)).sum();
            Ok(space)
        })
        .await
    }

    /// Whether more is stored that nobody needs than what is needed, and `slack`.
    fn is_wasted(&self, slack: u64) -> bool {
        self.stored > self.live.saturating_mul(2).saturating_add(slack)
    }
}

async fn drop_files(broker: &Arc<Broker>, dead: Vec<DeadRange>) -> Result<()> {
    let store = broker.store().clone();
    blocking(move || dead.iter().try_for_each(|(family, from, last)| store.drop_files(*family, from, last))).await
}

async fn give_up_dead(broker: &Arc<Broker>, needed: u32) -> Result<()> {
    let store = broker.store().clone();
    blocking(move || {
        let dead = store.buckets().all().into_iter().filter_map(|bucket| match bucket {
            Family::Bucket(number) if number < needed => Some(number),
            _ => None,
        });
        dead.into_iter().try_for_each(|number| store.give_up_bucket(number))
    })
    .await
}

fn partitions(broker: &Broker) -> Vec<Arc<Partition>> {
    let topics = broker.catalog().topics();
    topics.iter().flat_map(|topic| topic.partitions().iter().cloned().collect::<Vec<_>>()).collect()
}

/// Moves what a log has in a bucket into `log`.
async fn move_out(broker: &Arc<Broker>, partition: &Arc<Partition>, bucket: u32) -> Result<()> {
    let mut at = partition.log_start();
    loop {
        let reading = partition.clone();
        let (next, moved) = blocking(move || reading.batches_in(bucket, at)).await?;
        let size = moved.size();
        if !moved.batches.is_empty() {
            broker.lane().commit(vec![Change::Move(moved)], Ack::Durable).await?;
        }
        let Some(next) = next else { return Ok(()) };
        at = next;
        compaction::rest(broker, size).await;
    }
}

/// Batches that go from a bucket into `log`.
pub struct Moved {
    pub(crate) partition: Arc<Partition>,
    /// With their entries as they are in the index.
    batches: Vec<(Offset, IndexEntry, Bytes)>,
}

impl Moved {
    /// Bytes that it writes.
    pub(crate) fn size(&self) -> usize {
        self.batches.iter().map(|(_, _, batch)| batch.len() + keys::INDEX_ENTRY_BYTES).sum()
    }

    /// Writes them. What lies before the log's start, `start`, was deleted meanwhile and stays so.
    pub(crate) fn stage(&self, start: Offset, writes: &mut Writes<'_>) {
        if self.partition.is_deleted() {
            return;
        }
        for (base, entry, batch) in &self.batches {
            if base + i64::from(entry.last_offset_delta) >= start {
                let key = keys::batch_key(self.partition.id(), *base);
                writes.put(Family::Log, &key, batch);
                writes.put(Family::Index, &key, &entry.placed(Family::Log, entry.attributes).encode());
            }
        }
    }
}

impl Partition {
    /// The first bucket that the log has batches in, and the bytes from the first of them on. Blocks.
    pub(crate) fn in_buckets(&self) -> Result<Option<(u32, u64)>> {
        let end = self.high_watermark();
        let from = self.unbucketed_to.load(Ordering::Acquire).max(self.log_start());
        for entry in self.entries(from) {
            let (base, entry) = entry?;
            if let Family::Bucket(number) = entry.family() {
                self.unbucketed_to.store(base, Ordering::Release);
                let bytes = u64::try_from(self.running_bytes() - entry.bytes_before()).unwrap_or(0);
                return Ok(Some((number, bytes)));
            }
        }
        self.unbucketed_to.store(end, Ordering::Release);
        Ok(None)
    }

    /// Batches of a bucket from `at` on, as many as one commit may have, and where to go on, if there may be more.
    fn batches_in(self: &Arc<Self>, bucket: u32, at: Offset) -> Result<(Option<Offset>, Moved)> {
        let mut moved = Moved { partition: self.clone(), batches: Vec::new() };
        let mut size = 0;
        for entry in self.entries(at) {
            let (base, entry) = entry?;
            match entry.family() {
                Family::Bucket(number) if number > bucket => return Ok((None, moved)),
                Family::Bucket(_) => {}
                _ => continue,
            }
            if size > 0 && (size + entry.size as usize > MOVED_BYTES_MAX || moved.batches.len() >= MOVED_MAX) {
                return Ok((Some(base), moved));
            }
            // none where retention was faster
            if let Some(batch) = self.store().get(entry.family(), &keys::batch_key(self.id(), base))? {
                size += batch.len();
                moved.batches.push((base, entry, batch.into()));
            }
        }
        Ok((None, moved))
    }
}
