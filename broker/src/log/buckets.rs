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
use super::{Partition, Writer, keys};
use crate::Broker;
use crate::crash_point::CrashPoint;
use crate::disk;
use crate::error::{Error, Result};
use crate::lane::{Ack, Change};
use crate::log::compaction;
use crate::log::keys::IndexEntry;
use crate::store::{Family, Store, Writes};
use crate::types::Offset;

#[cfg(test)]
mod tests;

/// Most buckets: RocksDB writes the options of all families down, and reads them again, when one comes or goes, and nobody reads or writes
/// meanwhile: half a millisecond for each of them was measured, on cores that compiled as well.
const BUCKETS_MAX: usize = 128;
/// Bytes that are moved in one commit, so that producers never wait long for the lane: a batch above it goes alone.
const MOVED_BYTES_MAX: usize = 1 << 20;
const MOVED_MAX: usize = 4096;
/// Bytes of a deleted topic for which the disk is given back at once; less than that goes soon enough with what comes after.
pub(crate) const GIVEN_BACK_BYTES_MIN: u64 = if cfg!(test) { 1 << 20 } else { 16 << 20 };
/// Time between two looks, each of which asks every partition: a sweep of retention wakes the keeper for every log that it cuts.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The files that wait leave the disk at a pace at which they would all be gone in this time: as much waits then as is written in it, and what
/// goes is as much as what comes. Where files leave faster, the system's cache of them is free memory for a while, which a virtual machine gives
/// back to its host; what is written next pays for each page again.
const REMOVE_OVER: Duration = Duration::from_millis(if cfg!(test) { 80 } else { 8_000 });
/// Longest time between two of them.
const REMOVE_REST_MAX: Duration = Duration::from_secs(1);

/// Keeps them until the broker is dropped.
pub(crate) async fn run(broker: Weak<Broker>) {
    let Some(work) = broker.upgrade().map(|broker| broker.store().buckets().work()) else { return };
    loop {
        work.notified().await;
        let Some(broker) = broker.upgrade() else { return };
        let kept = keep(&broker).await;
        drop(broker);
        if let Err(error) = kept {
            tracing::warn!(%error, "the log's disk is not given back, it is tried again with what comes next");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Takes what was given up off the disk, file by file, until the broker is dropped.
pub(crate) async fn empty_trash(broker: Weak<Broker>) {
    let Some(work) = broker.upgrade().map(|broker| broker.store().trash().work()) else { return };
    loop {
        work.notified().await;
        loop {
            let Some(broker) = broker.upgrade() else { return };
            let rest = remove_next(&broker).await;
            drop(broker);
            let Some(rest) = rest else { break };
            tokio::time::sleep(rest).await;
        }
    }
}

/// Takes one file of the trash off the disk; says how long to rest before the next one, if there may be one that can be removed.
async fn remove_next(broker: &Broker) -> Option<Duration> {
    let (store, room) = (broker.store().clone(), broker.room().clone());
    let removed = blocking(move || {
        let left = store.trash().remove_one();
        let left = left.map_err(|e| Error::storage(format!("the trash cannot be emptied: {e}")))?;
        Ok((left, room.is_scarce()))
    });
    match removed.await {
        Ok((Some(_), true)) => Some(Duration::ZERO),
        Ok((Some(left), false)) => Some(REMOVE_OVER.div_f64(left.max(1) as f64).min(REMOVE_REST_MAX)),
        Ok((None, _)) => {
            broker.store().buckets().ask_to_look(false);
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the disk is not given back, it is tried again with what comes next");
            None
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
    drop_files(broker).await?;
    let mut space = give_up_dead(broker).await?;
    let is_asked = buckets.take_shrinking();
    let slack = if is_asked { 0 } else { buckets.bytes_max().saturating_mul(2) };
    let ends_early = is_asked && buckets.filled() >= GIVEN_BACK_BYTES_MIN && space.is_wasted(slack);
    if ends_early || buckets.filled() >= buckets.bytes_max() {
        begin_next(broker).await?;
        space = give_up_dead(broker).await?;
    }
    while buckets.count() > BUCKETS_MAX || space.is_wasted(slack) {
        let oldest = buckets.oldest();
        if oldest >= buckets.active_number() {
            return Ok(());
        }
        if !has_room(broker, oldest) {
            // there may be, once the trash is empty
            buckets.keep_shrinking(is_asked);
            return Ok(());
        }
        {
            // no pass of compaction meanwhile: it changes the same entries of the index
            let Ok(_rounds) = broker.compaction_rounds().try_lock() else { return Ok(()) };
            empty(broker, oldest).await?;
        }
        space = give_up_dead(broker).await?;
        if space.needed <= oldest {
            let name = Family::Bucket(oldest).name();
            return Err(Error::storage(format!("{name} has batches that cannot be moved, run millpond check")));
        }
    }
    Ok(())
}

/// Whether what a bucket holds can be written once more before it goes.
fn has_room(broker: &Broker, bucket: u32) -> bool {
    if broker.store().check_runs(Family::Log).is_err() {
        return false;
    }
    let bytes = i64::try_from(broker.store().disk_bytes(Family::Bucket(bucket))).unwrap_or(i64::MAX);
    disk::space(&broker.config().data_dir).is_none_or(|(_, free)| free > bytes.saturating_mul(2))
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
    /// Blocks.
    fn of(store: &Store, active: u32, partitions: &[Arc<Partition>]) -> Space {
        let mut space = Space { needed: active, ..Space::default() };
        for partition in partitions {
            match partition.in_buckets() {
                Ok(None) => {}
                Ok(Some((number, bytes))) => {
                    space.needed = space.needed.min(number);
                    space.live += bytes;
                }
                Err(error) => {
                    let (topic, partition) = (partition.topic(), partition.index());
                    tracing::warn!(%error, %topic, partition, "what it needs of the log's buckets is not known, all stay");
                    space.needed = 0;
                }
            }
        }
        space.stored = store.buckets().all().into_iter().map(|bucket| store.disk_bytes(bucket)).sum();
        space
    }

    /// Whether more is stored that nobody needs than what is needed, and `slack`.
    fn is_wasted(&self, slack: u64) -> bool {
        self.stored > self.live.saturating_mul(2).saturating_add(slack)
    }
}

/// Files of ranges that were deleted.
async fn drop_files(broker: &Arc<Broker>) -> Result<()> {
    let store = broker.store().clone();
    let dead = store.buckets().take_dead();
    blocking(move || dead.iter().try_for_each(|((family, first), last)| store.drop_files(*family, first, last))).await
}

/// Gives the buckets up that no log needs; says what is left.
async fn give_up_dead(broker: &Arc<Broker>) -> Result<Space> {
    let store = broker.store().clone();
    // before the partitions are listed: what is appended from now on goes there or further on
    let active = store.buckets().active_number();
    let all = partitions(broker);
    let look = move || {
        let space = Space::of(&store, active, &all);
        Ok((store.buckets().oldest() < space.needed, space))
    };
    let (has_dead, space) = blocking(look.clone()).await?;
    if !has_dead {
        return Ok(space);
    }
    // that a topic is gone, and that a log names a bucket no more, must be on the device, whatever `durability` says: a bucket does
    // not come back
    broker.lane().commit(Vec::new(), Ack::Durable).await?;
    let store = broker.store().clone();
    blocking(move || {
        store.sync()?;
        for bucket in store.buckets().all() {
            match bucket {
                Family::Bucket(number) if number < space.needed => store.give_up_bucket(number)?,
                _ => {}
            }
        }
        Ok(look()?.1)
    })
    .await
}

fn partitions(broker: &Broker) -> Vec<Arc<Partition>> {
    let topics = broker.catalog().topics();
    topics.iter().flat_map(|topic| topic.partitions().iter().cloned().collect::<Vec<_>>()).collect()
}

/// Moves what logs have in a bucket into `log`. One that cannot be moved does not keep the others from it.
pub(crate) async fn empty(broker: &Arc<Broker>, bucket: u32) -> Result<()> {
    let mut outcome = Ok(());
    for partition in partitions(broker) {
        let moved = move_out(broker, &partition, bucket).await;
        outcome = outcome.and(moved);
    }
    outcome
}

async fn move_out(broker: &Arc<Broker>, partition: &Arc<Partition>, bucket: u32) -> Result<()> {
    let buckets = broker.store().buckets();
    let mut at = partition.unbucketed_to.load(Ordering::Acquire).max(partition.log_start());
    loop {
        let reading = partition.clone();
        let (next, moved) = blocking(move || reading.batches_in(bucket, at)).await?;
        let size = moved.size();
        if !moved.batches.is_empty() {
            broker.lane().commit(vec![Change::Move(moved)], Ack::Durable).await?;
            CrashPoint::Moved.reach();
        }
        let Some(next) = next else { return Ok(()) };
        at = next;
        compaction::rest(broker, size).await;
        if buckets.filled() >= buckets.bytes_max() {
            begin_next(broker).await?;
        }
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

    /// Writes them. What lies before the log's start was deleted meanwhile and stays so.
    pub(crate) fn stage(&self, writer: &mut Writer, writes: &mut Writes<'_>) {
        if self.partition.is_deleted() {
            return;
        }
        writer.has_moved = true;
        for (base, entry, batch) in &self.batches {
            if base + i64::from(entry.last_offset_delta) >= writer.log_start {
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
