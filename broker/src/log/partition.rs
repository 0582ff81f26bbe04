//! One partition: its positions, the newest batches in memory, and reading.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::batch::Batch;
use crate::error::{Error, Kind, Result};
use crate::log::aborted;
use crate::log::bounds::Bounds;
use crate::log::compaction::{CleanState, Progress};
use crate::log::damage::Logged;
use crate::log::keys::{self, IndexEntry};
use crate::log::open::OpenTransactions;
use crate::log::producers::ProducerState;
use crate::log::segment::Segment;
use crate::log::tiers::Tiers;
use crate::log::waiters::{Waiter, Waiters};
use crate::store::{Family, Store};
use crate::topic_config::TopicConfig;
use crate::types::{LeaderEpoch, LogId, Offset, PartitionIndex, ProducerId, TimestampMs, TopicName};

/// One partition. Holds: its positions and its newest batches. The commit lane alone moves the positions. Always true:
/// `log_start ≤ high_watermark`, and the last stable offset is not above it; every batch below the high watermark is as durable as `durability` promises, and only
/// those are visible. A crash keeps the log; the rest is recovered from it.
pub struct Partition {
    pub(super) id: LogId,
    topic: TopicName,
    index: PartitionIndex,
    pub(super) store: Arc<Store>,
    config: RwLock<Arc<TopicConfig>>,
    log_start: AtomicI64,
    high_watermark: AtomicI64,
    /// First offset of the oldest open transaction, or `i64::MAX`.
    pub(super) unstable_from: AtomicI64,
    /// Where the last aborted transaction ended, or -1.
    pub(super) last_aborted: AtomicI64,
    bytes_total: AtomicI64,
    bytes_deleted: AtomicI64,
    newest_timestamp: AtomicI64,
    newest_append: AtomicI64,
    leader_epoch: AtomicI32,
    pub(super) epochs: RwLock<Vec<(LeaderEpoch, Offset)>>,
    pub(super) tiers: Tiers,
    deleted: AtomicBool,
    tail: Mutex<VecDeque<Batch>>,
    compaction: Progress,
    /// Below it nothing lies in a bucket.
    pub(super) unbucketed_to: AtomicI64,
    pub(super) damage: Logged,
    waiters: Waiters,
    pub(crate) writer: Mutex<Writer>,
}

/// What only the commit lane knows: where the next batch goes, ahead of what is published.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) next_offset: Offset,
    pub(crate) running_timestamp: TimestampMs,
    pub(crate) running_bytes: i64,
    /// Where the log begins, ahead of what is published.
    pub(crate) log_start: Offset,
    /// Below it nothing is served, in the cold log neither; ahead of what is published.
    pub(crate) floor: Offset,
    /// Whether batches were moved from buckets into `log` since the start.
    pub(crate) has_moved: bool,
    /// The active segment; none before the first batch.
    pub(crate) segment: Option<Segment>,
    /// A cache of the `producers` family; may be emptied at any time.
    pub(crate) producers: HashMap<ProducerId, ProducerState>,
    /// Transactions that the partition belongs to.
    pub(crate) open: OpenTransactions,
}

/// What an appended batch means for readers of committed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stability {
    /// First offset of the oldest transaction that is open after it.
    pub(crate) unstable_from: Option<Offset>,
    /// The batch's own offset, if it is the marker of an aborted transaction.
    pub(crate) aborted: Option<Offset>,
}

impl Partition {
    /// Recovers a partition from the store, in time that does not depend on its size.
    pub(crate) fn recover(
        store: &Arc<Store>,
        id: LogId,
        (topic, index): (TopicName, PartitionIndex),
        config: Arc<TopicConfig>,
    ) -> Result<Arc<Self>> {
        let Bounds { start: log_start, floor, epochs } = Bounds::read(store, id)?;
        let (from, to) = keys::log_range(id);
        let newest = match store.last_in(Family::Index, &from, &to)? {
            Some((key, value)) => Some((keys::base_offset_of(&key)?, IndexEntry::decode(&value)?)),
            None => None,
        };
        let next_offset =
            newest.map_or(0, |(base, entry)| base + i64::from(entry.last_offset_delta) + 1).max(log_start);
        let first = first_entry(store, id, log_start)?;
        let bytes = newest.map_or(0, |(_, entry)| entry.running_bytes);
        let open = OpenTransactions::recover(store, id)?;
        let last_aborted = aborted::last_marker(store, id)?.unwrap_or(-1);
        Ok(Arc::new(Self {
            id,
            topic,
            index,
            store: store.clone(),
            config: RwLock::new(config),
            log_start: AtomicI64::new(log_start),
            high_watermark: AtomicI64::new(next_offset),
            unstable_from: AtomicI64::new(open.first_unstable().unwrap_or(Offset::MAX)),
            last_aborted: AtomicI64::new(last_aborted),
            bytes_total: AtomicI64::new(bytes),
            bytes_deleted: AtomicI64::new(first.map_or(bytes, |(_, entry)| entry.bytes_before())),
            newest_timestamp: AtomicI64::new(newest.map_or(-1, |(_, entry)| entry.max_timestamp)),
            newest_append: AtomicI64::new(newest.map_or(-1, |(_, entry)| entry.appended_at)),
            leader_epoch: AtomicI32::new(epochs.last().map_or(0, |(epoch, _)| *epoch)),
            epochs: RwLock::new(epochs),
            tiers: Tiers::new(floor),
            deleted: AtomicBool::new(false),
            tail: Mutex::default(),
            compaction: Progress::recover(store, id)?,
            unbucketed_to: AtomicI64::new(0),
            damage: Logged::default(),
            waiters: Waiters::default(),
            writer: Mutex::new(Writer {
                next_offset,
                running_timestamp: newest.map_or(-1, |(_, entry)| entry.running_timestamp),
                running_bytes: bytes,
                log_start,
                floor,
                has_moved: false,
                segment: Segment::recover(store, id, first)?,
                producers: HashMap::new(),
                open,
            }),
        }))
    }

    /// Its identity in the store.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Its topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Its number in the topic.
    pub fn index(&self) -> PartitionIndex {
        self.index
    }

    /// The topic's settings.
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.read().clone()
    }

    /// First offset that the log has. Clients may read from further back on: [`Partition::earliest`].
    pub fn log_start(&self) -> Offset {
        self.log_start.load(Ordering::Acquire)
    }

    /// End of what is durable and visible; the offset that the next visible record will have at least.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Where the next batch goes: the high watermark and what is on its way to being durable.
    pub fn log_end(&self) -> Offset {
        self.writer.lock().next_offset
    }

    /// Current leader epoch.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch.load(Ordering::Acquire)
    }

    /// Whether the topic was deleted while somebody still held this.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Bytes of the batches that can be read.
    pub fn size_bytes(&self) -> u64 {
        u64::try_from(self.running_bytes() - self.bytes_deleted()).unwrap_or(0)
    }

    /// What lies from `offset` on: when its oldest batch was appended, in ms since 1970, and how many bytes it has. None at
    /// the end of what is committed.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub async fn backlog(self: &Arc<Self>, offset: Offset) -> Result<Option<(TimestampMs, u64)>> {
        if offset >= self.last_stable_offset() {
            return Ok(None);
        }
        let this = self.clone();
        blocking(move || {
            let total = this.running_bytes();
            let oldest = this.entries(offset).next().transpose()?;
            Ok(oldest.map(|(_, entry)| (entry.appended_at, u64::try_from(total - entry.bytes_before()).unwrap_or(0))))
        })
        .await
    }

    /// Bytes of all batches that ever were appended.
    pub fn bytes_total(&self) -> u64 {
        u64::try_from(self.running_bytes()).unwrap_or(0)
    }

    /// The running figure of the newest batch in the index.
    pub(crate) fn running_bytes(&self) -> i64 {
        self.bytes_total.load(Ordering::Acquire)
    }

    /// Largest timestamp of the newest batch, -1 when there never was one.
    pub fn newest_timestamp(&self) -> TimestampMs {
        self.newest_timestamp.load(Ordering::Acquire)
    }

    /// The broker's clock when the newest batch was appended, -1 when there never was one.
    pub fn newest_append(&self) -> TimestampMs {
        self.newest_append.load(Ordering::Acquire)
    }

    /// Reads whole batches from the one that contains `offset`, at least one if there is any, then up to `max_bytes`.
    /// Empty at the end of the log.
    ///
    /// # Errors
    /// `OffsetOutOfRange` below the log start or above the high watermark.
    pub async fn read(self: &Arc<Self>, offset: Offset, max_bytes: usize) -> Result<Vec<Batch>> {
        self.read_below(offset, self.high_watermark(), max_bytes).await
    }

    /// Reads batches whose base offset is below `end`, which is at most the high watermark.
    pub(crate) async fn read_below(
        self: &Arc<Self>,
        offset: Offset,
        end: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Batch>> {
        if let Some(batches) = self.read_memory((offset, end), max_bytes)? {
            return Ok(batches);
        }
        let this = self.clone();
        blocking(move || this.read_anywhere((offset, end), max_bytes)).await
    }

    pub(super) fn check_range(&self, offset: Offset, end: Offset) -> Result<()> {
        let start = self.log_start();
        if offset >= start && offset <= end {
            return Ok(());
        }
        let message = format!("offset {offset} is outside {}-{}, which holds {start} to {end}", self.topic, self.index);
        Err(Error::new(Kind::OffsetOutOfRange, message))
    }

    /// Offset from which on memory has every batch; none when it has none.
    pub(super) fn tail_start(&self) -> Option<Offset> {
        self.tail.lock().front().map(Batch::base_offset)
    }

    /// Adds what memory has from `offset` on to `batches`, at least one batch if these are none, then up to `max_bytes` in all. Adds
    /// nothing and says so where memory begins behind `offset`.
    pub(super) fn read_tail(
        &self,
        batches: &mut Vec<Batch>,
        (offset, end): (Offset, Offset),
        max_bytes: usize,
    ) -> bool {
        let tail = self.tail.lock();
        if tail.front().is_none_or(|oldest| oldest.base_offset() > offset) {
            return false;
        }
        let first = tail.partition_point(|batch| batch.next_offset() <= offset);
        let mut size: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
        for batch in tail.range(first..) {
            size += batch.bytes().len();
            if batch.base_offset() >= end || (size > max_bytes && !batches.is_empty()) {
                break;
            }
            batches.push(batch.clone());
        }
        true
    }

    /// Returns once the high watermark is above `offset`, or the partition is deleted.
    pub async fn wait_beyond(&self, offset: Offset) {
        let waiter = Waiter::new();
        self.watch(&waiter);
        while self.high_watermark() <= offset && !self.is_deleted() {
            waiter.woken().await;
        }
    }

    /// Has `waiter` woken at every publish until it is dropped.
    pub fn watch(&self, waiter: &Arc<Waiter>) {
        self.waiters.add(waiter);
    }

    /// Index entries from the one that contains `offset`, or the next one after it, up to the high watermark.
    pub(crate) fn entries(&self, offset: Offset) -> impl Iterator<Item = Result<(Offset, IndexEntry)>> + '_ {
        let (from, _) = keys::log_range(self.id);
        let at = keys::batch_key(self.id, offset);
        let end = keys::batch_key(self.id, self.high_watermark());
        self.store
            .scan_from_floor(Family::Index, &from, &at, &end)
            .map(|entry| {
                let (key, value) = entry?;
                Ok((keys::base_offset_of(&key)?, IndexEntry::decode(&value)?))
            })
            .skip_while(
                move |entry| matches!(entry, Ok((base, entry)) if base + i64::from(entry.last_offset_delta) < offset),
            )
    }

    /// Leader epoch in which the record at `offset` was or will be appended.
    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        self.epoch_span(offset).0
    }

    /// The epoch that was current for `epoch`, and where it ended (KIP-101); (-1, -1) when it is not known.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let current = self.leader_epoch();
        if epoch == current {
            return (current, self.high_watermark());
        }
        let epochs = self.epochs.read();
        let after = epochs.partition_point(|(known, _)| *known <= epoch);
        match (epochs.get(after), after.checked_sub(1).and_then(|before| epochs.get(before))) {
            (Some((_, next_start)), Some((known, _))) if epoch < current => (*known, *next_start),
            (Some((_, next_start)), None) if epoch < current && epoch >= 0 => (0, *next_start),
            _ => (-1, -1),
        }
    }

    pub(crate) fn set_config(&self, config: Arc<TopicConfig>) {
        *self.config.write() = config;
    }

    pub(crate) fn begin_epoch(&self, epoch: LeaderEpoch, start: Offset) {
        self.epochs.write().push((epoch, start));
        self.leader_epoch.store(epoch, Ordering::Release);
    }

    /// Makes appended batches visible and wakes those who wait. Called by the commit lane, in order.
    pub(crate) fn publish(&self, batch: Batch, entry: &IndexEntry, stability: Stability) {
        let end = batch.next_offset();
        self.newest_timestamp.store(entry.max_timestamp, Ordering::Release);
        self.newest_append.store(entry.appended_at, Ordering::Release);
        self.bytes_total.store(entry.running_bytes, Ordering::Release);
        self.tail.lock().push_back(batch);
        if let Some(marker) = stability.aborted {
            self.last_aborted.store(marker, Ordering::Release);
        }
        // before the high watermark, so that nobody takes the first batch of a transaction for stable
        self.unstable_from.store(stability.unstable_from.unwrap_or(Offset::MAX), Ordering::Release);
        self.high_watermark.store(end, Ordering::Release);
    }

    pub(crate) fn wake(&self) {
        self.waiters.wake_all();
    }

    /// Drops the oldest batch in memory, because the budget over all partitions is spent.
    pub(crate) fn shorten_tail(&self) -> usize {
        self.tail.lock().pop_front().map_or(0, |batch| batch.bytes().len())
    }

    /// Moves the log start after the lane wrote it.
    pub(crate) fn publish_start(&self, start: Offset) -> Result<()> {
        self.log_start.store(start, Ordering::Release);
        self.bytes_deleted.store(self.bytes_before(start)?, Ordering::Release);
        Ok(())
    }

    /// Gives up what a commit of compaction may have changed in memory, and says how far the log is clean. Gives the number
    /// and bytes of the batches given up.
    pub(crate) fn publish_compaction(&self, tail_until: Offset, state: CleanState) -> Result<(usize, usize)> {
        let gone: Vec<Batch> = {
            let mut tail = self.tail.lock();
            let count = tail.partition_point(|batch| batch.base_offset() < tail_until);
            tail.drain(..count).collect()
        };
        self.compaction.publish(state);
        if state.pass_end == 0 {
            self.bytes_deleted.store(self.bytes_before(self.log_start())?, Ordering::Release);
        }
        Ok((gone.len(), gone.iter().map(|batch| batch.bytes().len()).sum()))
    }

    /// Bytes of the log before the batch that contains `offset`, on the scale of the index's running figure.
    pub(crate) fn bytes_before(&self, offset: Offset) -> Result<i64> {
        let first = first_entry(&self.store, self.id, offset)?;
        Ok(first.map_or_else(|| self.running_bytes(), |(_, entry)| entry.bytes_before()))
    }

    /// Bytes of all batches that begin below `offset`, on the same scale.
    pub(crate) fn bytes_below(&self, offset: Offset) -> Result<i64> {
        let first = first_entry(&self.store, self.id, offset)?;
        let below = |(base, entry): (Offset, IndexEntry)| {
            if base < offset { entry.running_bytes } else { entry.bytes_before() }
        };
        Ok(first.map_or_else(|| self.running_bytes(), below))
    }

    /// Bytes that were deleted or compacted away, on the same scale.
    pub(crate) fn bytes_deleted(&self) -> i64 {
        self.bytes_deleted.load(Ordering::Acquire)
    }

    /// How far the log is clean.
    pub(crate) fn compaction(&self) -> CleanState {
        self.compaction.state()
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.compaction
    }

    /// Offset below which compaction has been: records may be missing there.
    pub fn compacted_to(&self) -> Offset {
        self.compaction.state().touched_to
    }

    /// Where the active segment begins: nothing from there on is compacted.
    pub(crate) fn active_segment_base(&self) -> Offset {
        let writer = self.writer.lock();
        writer.segment.map_or(writer.next_offset, |segment| segment.base)
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.wake();
    }
}

/// The index entry that contains `offset`, or the next one.
fn first_entry(store: &Store, id: LogId, offset: Offset) -> Result<Option<(Offset, IndexEntry)>> {
    let (from, to) = keys::log_range(id);
    for entry in store.scan_from_floor(Family::Index, &from, &keys::batch_key(id, offset), &to) {
        let (key, value) = entry?;
        let (base, entry) = (keys::base_offset_of(&key)?, IndexEntry::decode(&value)?);
        if base + i64::from(entry.last_offset_delta) >= offset {
            return Ok(Some((base, entry)));
        }
    }
    Ok(None)
}

/// Runs a read of the database where it may block.
pub(crate) async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(Kind::Bug, format!("a read of the store ended early: {error}"))),
    }
}
