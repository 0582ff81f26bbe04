//! The commit lane: the one writer. It drains its queue into a group (group commit), writes it in one `WriteBatch` or several, syncs it as
//! `durability` says, then publishes positions, answers and wakes. Commits take effect in the order of submission, each
//! of them wholly or not at all. After a failed write or sync nothing is acknowledged any more.
//!
//! The queue needs no bound of its own: what clients have under way is bounded by the connections' memory budget, and
//! the engine, the lake and the coordinators wait for each commit before they make the next.

mod change;
mod full;
mod staging;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::batch::Batch;
use crate::clock::Clock;
use crate::config::{BrokerConfig, Durability};
use crate::counters::Counters;
use crate::crash_point::CrashPoint;
use crate::disk::Room;
use crate::error::{Error, Kind, Result};
use crate::log::compaction::CleanState;
use crate::log::keys::{self, IndexEntry};
use crate::log::producers::{self, ProducerState, Verdict};
use crate::log::{Partition, Stability, Writer};
use crate::store::{Family, Store, Writes};
use crate::types::{LeaderEpoch, LogId, Offset, ProducerId, TimestampMs};
pub(crate) use change::RequestMemory;
pub use change::{Ack, Append, Appended, Change, Marker, Origin};
use staging::{duplicate, next_part, stage_append, stage_drop, stage_earliest, stage_log_start};

struct Submission {
    changes: Vec<Change>,
    /// What they write.
    bytes: usize,
    ack: Ack,
    reply: oneshot::Sender<Result<Vec<Appended>>>,
    memory: Option<RequestMemory>,
}

impl Submission {
    fn of(
        memory: Option<RequestMemory>,
        changes: Vec<Change>,
        ack: Ack,
        reply: oneshot::Sender<Result<Vec<Appended>>>,
    ) -> Self {
        let bytes = changes.iter().map(Change::bytes).sum();
        Self { changes, bytes, ack, reply, memory }
    }
}

/// Most bytes of batches that one group commit takes in.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Most bytes of batches that are written at once, but for a commit that has more by itself; a larger group is written in parts. What is staged is
/// read twice when it is written, for the log and for the memtable, and the core's own cache still has so much: groups of 5 to 10 MiB that
/// were written whole took 2.1 CPU seconds per GiB, and take 1.6 so, for 500 MiB/s in place of 430.
const WRITE_BYTES_MAX: usize = 256 << 10;
/// Most commits of one group.
const GROUP_COMMITS_MAX: usize = 4096;
/// Room for what a commit writes beside its batches: keys, index, the producer's state.
const COMMIT_BYTES: usize = 512;
/// Producers remembered in memory per partition; the rest is read from the store again.
const PRODUCERS_CACHED_MAX: usize = if cfg!(test) { 4 } else { 10_000 };

/// The way to the writer.
pub struct Lane {
    queue: Mutex<Option<mpsc::Sender<Submission>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    failed: watch::Receiver<Option<Error>>,
    /// Whether a writer that waits for the disk shall give up.
    stopping: Arc<AtomicBool>,
}

impl Lane {
    pub(crate) fn start(
        store: Arc<Store>,
        config: &BrokerConfig,
        clock: Clock,
        counters: Arc<Counters>,
        room: Arc<Room>,
    ) -> Result<Self> {
        let (queue, submissions) = mpsc::channel();
        let (failure, failed) = watch::channel(None);
        let stopping = Arc::new(AtomicBool::new(false));
        let mut writer = LaneWriter {
            store,
            clock,
            counters,
            room,
            stopping: stopping.clone(),
            sync: config.durability == Durability::Fsync,
            tail_bytes_max: config.tail_cache_bytes,
            tail_bytes: 0,
            tail_order: VecDeque::new(),
            failure,
        };
        let thread = std::thread::Builder::new()
            .name("commit-lane".into())
            .spawn(move || writer.run(&submissions))
            .map_err(|e| Error::storage(format!("the commit lane's thread cannot start: {e}")))?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)), failed, stopping })
    }

    /// Submits a commit. Its place in the order is fixed when this returns, its outcome is what the future gives.
    ///
    /// # Errors
    /// The first reason for which a change cannot be made, then none of them is; `Storage` when the store failed.
    pub fn commit(
        &self,
        changes: Vec<Change>,
        ack: Ack,
    ) -> impl Future<Output = Result<Vec<Appended>>> + Send + 'static {
        self.commit_of(None, changes, ack)
    }

    /// The same for changes that came in a request, whose share of memory they keep until they are answered.
    pub(crate) fn commit_of(
        &self,
        memory: Option<RequestMemory>,
        changes: Vec<Change>,
        ack: Ack,
    ) -> impl Future<Output = Result<Vec<Appended>>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        let submission = Submission::of(memory, changes, ack, reply);
        let sent = match self.queue.lock().as_ref() {
            Some(queue) => queue.send(submission).is_ok(),
            None => false,
        };
        let failed = self.failed.clone();
        async move {
            if sent && let Ok(outcome) = answer.await {
                return outcome;
            }
            let reason = failed.borrow().clone();
            Err(reason.unwrap_or_else(|| Error::storage("the broker is stopping, connect again later")))
        }
    }

    /// Returns when nothing is written any more and the broker must stop: the store failed, or the writer ended without a word.
    /// Never when the lane was stopped in order.
    pub async fn failure(&self) -> Error {
        let mut failed = self.failed.clone();
        loop {
            if let Some(error) = failed.borrow_and_update().clone() {
                return error;
            }
            if failed.changed().await.is_ok() {
                continue;
            }
            if self.queue.lock().is_none() {
                std::future::pending::<()>().await;
            }
            return Error::storage(
                "the commit lane ended, which is a fault of millpond's own: its panic is in the logs",
            );
        }
    }

    /// Writes what was submitted, if the disk has room for it, then ends the writer. Blocks.
    pub(crate) fn stop(&self) {
        drop(self.queue.lock().take());
        self.give_up_waiting();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Lane {
    /// The writer holds the store, and RocksDB ends a process whose `main` returns while another thread closes a database.
    fn drop(&mut self) {
        self.stop();
    }
}

struct LaneWriter {
    store: Arc<Store>,
    clock: Clock,
    counters: Arc<Counters>,
    room: Arc<Room>,
    stopping: Arc<AtomicBool>,
    sync: bool,
    tail_bytes_max: usize,
    tail_bytes: usize,
    /// Partitions in the order in which batches entered their tails.
    tail_order: VecDeque<Arc<Partition>>,
    failure: watch::Sender<Option<Error>>,
}

/// What a commit did, to be made visible once it is durable.
enum Effect {
    Appended(Arc<Partition>, Batch, IndexEntry, Stability),
    /// The log begins at the first offset; the first batch that stays begins at the second.
    Started(Arc<Partition>, Offset, Offset),
    Floor(Arc<Partition>, Offset),
    Epoch(Arc<Partition>, LeaderEpoch, Offset),
    Dropped(Arc<Partition>),
    Compacted(Arc<Partition>, Offset, CleanState),
}

impl Effect {
    /// Whether files go with it. They go at once and for good, so the commit that allows it must be on the device, whatever
    /// `durability` says: after a power cut the index would name what is not there.
    fn takes_files(&self) -> bool {
        matches!(self, Self::Started(..) | Self::Dropped(_))
    }
}

struct Staged {
    ack: Ack,
    reply: oneshot::Sender<Result<Vec<Appended>>>,
    appended: Vec<Appended>,
    /// Of the memory for requests: what it is for stays until it is answered.
    _share: Option<Arc<OwnedSemaphorePermit>>,
}

/// A group that is written and not yet synced.
#[derive(Default)]
struct Written {
    staged: Vec<Staged>,
    effects: Vec<Effect>,
    /// Whether it changes anything.
    changed: bool,
}

impl LaneWriter {
    fn run(&mut self, submissions: &mpsc::Receiver<Submission>) {
        while let Ok(first) = submissions.recv() {
            let mut bytes = first.bytes;
            let mut group = vec![first];
            while bytes < GROUP_BYTES_MAX && group.len() < GROUP_COMMITS_MAX {
                let Ok(next) = submissions.try_recv() else { break };
                bytes += next.bytes;
                group.push(next);
            }
            if let Err(error) = self.commit_group(group) {
                tracing::error!(%error, "nothing is acknowledged any more");
                self.failure.send_replace(Some(error));
                return;
            }
        }
    }

    fn commit_group(&mut self, group: Vec<Submission>) -> Result<()> {
        let store = self.store.clone();
        store.buckets().turn();
        CrashPoint::Taken.reach();
        let Written { staged, effects, changed } = self.write_group(&store, group)?;
        CrashPoint::Written.reach();
        let (early, late): (Vec<_>, Vec<_>) = staged.into_iter().partition(|one| self.sync && one.ack == Ack::Written);
        early.into_iter().for_each(Staged::answer);
        if changed && (self.sync || effects.iter().any(Effect::takes_files)) {
            store.sync()?;
        }
        CrashPoint::Synced.reach();
        if changed {
            store.acknowledge();
        }
        self.publish(effects)?;
        CrashPoint::Published.reach();
        late.into_iter().for_each(Staged::answer);
        Ok(())
    }

    /// Writes a group in parts. A crash amid them leaves the first ones, of which nobody was told. A power cut may leave later ones without those
    /// before: the log has a hole then, at which a start ends it (`store/torn`).
    fn write_group(&mut self, store: &Store, group: Vec<Submission>) -> Result<Written> {
        let mut written = Written::default();
        let now = self.clock.now_ms();
        let mut rest = group.into_iter().peekable();
        while let Some((part, bytes)) = next_part(&mut rest) {
            let writes = Writes::with_room(store, bytes + part.len() * COMMIT_BYTES);
            self.write_part(part, now, writes, &mut written)?;
        }
        Ok(written)
    }

    fn write_part(
        &mut self,
        part: Vec<Submission>,
        now: TimestampMs,
        mut writes: Writes<'_>,
        written: &mut Written,
    ) -> Result<()> {
        for Submission { changes, ack, reply, memory, .. } in part {
            match self.check(&changes) {
                Ok(verdicts) => {
                    let appended = self.stage(changes, &verdicts, now, (&mut writes, &mut written.effects))?;
                    let share = memory.map(RequestMemory::into_share);
                    written.staged.push(Staged { ack, reply, appended, _share: share });
                }
                Err(error) if error.kind == Kind::Storage => return Err(error),
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        if !writes.is_empty() {
            written.changed = true;
            self.write(writes)?;
        }
        Ok(())
    }

    /// Decides every append of a commit before any is made. Appends of one commit to one partition are judged by the
    /// state before the commit: a producer sends one batch per partition and request.
    fn check(&self, changes: &[Change]) -> Result<Vec<Verdict>> {
        let mut verdicts = Vec::new();
        for change in changes {
            match change {
                Change::Append(append) => verdicts.push(self.check_append(append)?),
                Change::LogStart(partition, offset) | Change::Earliest(partition, offset)
                    if *offset > partition.high_watermark() =>
                {
                    let message =
                        format!("log start {offset} lies above the end of {}-{}", partition.topic(), partition.index());
                    return Err(Error::new(Kind::OffsetOutOfRange, message));
                }
                _ => {}
            }
        }
        Ok(verdicts)
    }

    fn check_append(&self, append: &Append) -> Result<Verdict> {
        let Append { partition, batch, origin } = append;
        if partition.is_deleted() {
            if matches!(origin, Origin::Marker(_)) {
                return Ok(Verdict::Skip);
            }
            let message = format!("topic {} was deleted", partition.topic());
            return Err(Error::new(Kind::UnknownTopicOrPartition, message));
        }
        if *origin == Origin::Internal || batch.producer_id() < 0 {
            return Ok(Verdict::Append);
        }
        let mut writer = partition.writer.lock();
        self.remember(&mut writer, partition.id(), batch.producer_id())?;
        let known = writer.producers.get(&batch.producer_id());
        match origin {
            Origin::Marker(marker) => producers::judge_marker(known, batch, *marker),
            _ => producers::judge(known, writer.open.get(batch.producer_id()), batch),
        }
    }

    /// Brings what is known of a producer into the cache, which may have been emptied.
    fn remember(&self, writer: &mut Writer, log: LogId, producer: ProducerId) -> Result<()> {
        if let std::collections::hash_map::Entry::Vacant(unknown) = writer.producers.entry(producer)
            && let Some(stored) = self.store.get(Family::Producers, &keys::producer_key(log, producer))?
        {
            unknown.insert(ProducerState::decode(&stored)?);
        }
        Ok(())
    }

    fn stage(
        &mut self,
        changes: Vec<Change>,
        verdicts: &[Verdict],
        now: TimestampMs,
        (writes, effects): (&mut Writes<'_>, &mut Vec<Effect>),
    ) -> Result<Vec<Appended>> {
        let mut verdicts = verdicts.iter();
        let mut appended = Vec::new();
        for change in changes {
            match change {
                Change::Put(family, key, value) => writes.put(family, &key, &value),
                Change::PutAll(family, entries) => writes.put_all(family, &entries),
                Change::Delete(family, key) => writes.delete(family, &key),
                Change::DeleteRange(family, from, to) => writes.delete_range(family, &from, &to),
                Change::Append(append) => match verdicts.next().expect("check gave one verdict per append") {
                    Verdict::Duplicate(kept) => appended.push(duplicate(&append, kept)),
                    Verdict::Append => appended.push(stage_append(append, now, writes, effects)),
                    Verdict::Skip => {}
                },
                Change::LogStart(partition, offset) => stage_log_start(partition, offset, writes, effects)?,
                Change::Earliest(partition, offset) => stage_earliest(partition, offset, writes, effects)?,
                Change::Epoch(partition, epoch) => {
                    let start = partition.writer.lock().next_offset;
                    writes.put(Family::Meta, &keys::epoch_key(partition.id(), epoch), &start.to_be_bytes());
                    effects.push(Effect::Epoch(partition, epoch, start));
                }
                Change::Admit(partition, (producer, epoch), strict) => {
                    partition.writer.lock().open.admit(producer, epoch, strict);
                }
                Change::ForgetProducer(partition, producer, since) => {
                    let mut writer = partition.writer.lock();
                    self.remember(&mut writer, partition.id(), producer)?;
                    let recent = writer.producers.get(&producer).is_some_and(|known| known.last_append() > since);
                    if !recent && writer.open.get(producer).is_none() {
                        writer.producers.remove(&producer);
                        writes.delete(Family::Producers, &keys::producer_key(partition.id(), producer));
                    }
                }
                Change::Compact(change) => {
                    change.stage(change.partition.writer.lock().log_start, writes);
                    effects.push(Effect::Compacted(change.partition, change.tail_until, change.state));
                }
                Change::Move(change) => change.stage(&mut change.partition.writer.lock(), writes),
                Change::Drop(partition) => {
                    stage_drop(&partition, writes);
                    effects.push(Effect::Dropped(partition));
                }
            }
        }
        Ok(appended)
    }

    fn publish(&mut self, effects: Vec<Effect>) -> Result<()> {
        let mut published: HashMap<LogId, Arc<Partition>> = HashMap::new();
        for effect in effects {
            match effect {
                Effect::Appended(partition, batch, entry, stability) => {
                    self.tail_bytes += batch.bytes().len();
                    self.counters.appended(batch.bytes().len(), batch.record_count());
                    partition.publish(batch, &entry, stability);
                    self.tail_order.push_back(partition.clone());
                    published.insert(partition.id(), partition);
                }
                Effect::Started(partition, offset, keep) => {
                    partition.publish_start(offset)?;
                    self.drop_before(&partition, keep);
                }
                Effect::Floor(partition, offset) => partition.publish_floor(offset),
                Effect::Dropped(partition) => {
                    let (from, to) = keys::log_range(partition.id());
                    for family in [Family::Log, Family::Compacted, Family::Index] {
                        self.store.drop_files(family, &from, &to)?;
                    }
                }
                Effect::Compacted(partition, until, state) => {
                    let (count, bytes) = partition.publish_compaction(until, state)?;
                    self.tail_bytes -= bytes;
                    self.forget_in_order(&partition, count);
                }
                Effect::Epoch(partition, epoch, start) => partition.begin_epoch(epoch, start),
            }
        }
        for partition in published.values() {
            let mut writer = partition.writer.lock();
            // all of it is in the store now; in the middle of a group it need not be
            if writer.producers.len() > PRODUCERS_CACHED_MAX {
                writer.producers.clear();
            }
        }
        while self.tail_bytes > self.tail_bytes_max {
            let Some(oldest) = self.tail_order.pop_front() else { break };
            self.tail_bytes -= oldest.shorten_tail();
        }
        published.values().for_each(|partition| partition.wake());
        Ok(())
    }
}

impl LaneWriter {
    /// Has the space of files given back that hold nothing but batches before the one that begins at `keep`.
    fn drop_before(&self, partition: &Partition, keep: Offset) {
        if keep > 0 {
            let (first, last) = (keys::log_range(partition.id()).0, keys::batch_key(partition.id(), keep - 1));
            for family in [Family::Log, Family::Compacted] {
                self.store.buckets().ask_to_drop(family, (first.to_vec(), last.to_vec()));
            }
        }
    }

    /// Takes a partition's oldest entries out of the order in which memory is given back.
    fn forget_in_order(&mut self, partition: &Arc<Partition>, mut count: usize) {
        if count > 0 {
            self.tail_order.retain(|other| {
                let gone = count > 0 && Arc::ptr_eq(other, partition);
                count -= usize::from(gone);
                !gone
            });
        }
    }
}

impl Staged {
    fn answer(self) {
        // one who went away does not take the commit back
        let _ = self.reply.send(Ok(self.appended));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// A lane whose writer is gone; with `failure` it said why before.
    fn ended(failure: Option<Error>) -> (Lane, mpsc::Receiver<Submission>) {
        let (queue, submissions) = mpsc::channel();
        let (failing, failed) = watch::channel(None);
        failure.into_iter().for_each(|error| drop(failing.send_replace(Some(error))));
        let stopping = Arc::default();
        (Lane { queue: Mutex::new(Some(queue)), thread: Mutex::new(None), failed, stopping }, submissions)
    }

    #[test]
    fn a_group_is_written_in_parts_of_whole_commits() {
        let of = |bytes: usize| {
            let changes = vec![Change::Put(Family::Groups, b"key".to_vec(), vec![0; bytes - 3])];
            Submission::of(None, changes, Ack::Written, oneshot::channel().0)
        };
        let (max, half) = (WRITE_BYTES_MAX, WRITE_BYTES_MAX / 2);
        let group: Vec<_> = [half, half, 4, max, max + 1, 4, max - 4, half].map(of).into_iter().collect();
        let mut rest = group.into_iter().peekable();
        let parts: Vec<_> =
            std::iter::from_fn(|| next_part(&mut rest)).map(|(part, size)| (part.len(), size)).collect();
        assert_eq!(parts, [(2, max), (1, 4), (1, max), (1, max + 1), (2, max), (1, half)]);
    }

    #[test]
    fn the_end_of_the_writer_is_told_however_it_came() {
        let (lane, _) = ended(Some(Error::storage("the disk is gone")));
        assert_eq!(lane.failure().now_or_never().unwrap().message, "the disk is gone");
        let (lane, _) = ended(None);
        let panicked = lane.failure().now_or_never().expect("told");
        assert_eq!(panicked.kind, Kind::Storage);
        lane.stop();
        assert!(lane.failure().now_or_never().is_none(), "it was stopped in order");
    }
}
