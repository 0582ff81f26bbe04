//! Whole records beside the tables, for topics that ask for it: what consumers are served when the log has let go of them
//! (KIP-405). This is the broker's cold log.
//!
//! A range's file is written, published and forgotten with the manifest as the tables' files are (`writer`, `bytes`); `reader`
//! gives its records back, `check` compares them with the log. The topic's own retention acts on these files, never on the tables': the oldest go when all
//! their records are too old, or the files and what only the log has are too many bytes.

mod bytes;
mod check;
mod merge;
mod reader;
mod sums;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use broker::{Batch, Broker, Clock, ColdLog, ColdRead, ColdRuns, Kind, LogId, Offset, Partition, TimestampMs};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

pub use self::bytes::{RawFile, raw_files_of, raw_key, raw_range};
pub use self::check::check;
pub use self::merge::cut;
pub use self::reader::{Footers, RawReader, batches};
pub use self::writer::{WrittenRaw, write};
use crate::background::{self, Priority};
use crate::clean::remove_hidden;
use crate::config::{MergeConfig, TableConfig};
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::manifest::Manifest;
use crate::objects::Destination;
use crate::sealer::Sealer;
use crate::writer::Source;

/// Where the files lie; readers of directories skip it.
pub const RAW_DIR: &str = "_raw";
/// Reads that are under way at one time. Each has a row group in memory.
const READS_MAX: usize = 4;
/// Most files of one read.
const FILES_MAX: usize = 16;
/// Time between two words in the log about files that cannot be read.
const WARN_EVERY_MS: i64 = 10_000;

/// The files of whole records. Holds: the way to them, and which of those that left the manifest somebody still reads.
/// Nothing here survives a crash; the start removes what the manifest does not know.
pub struct RawFiles {
    broker: Arc<Broker>,
    manifest: Arc<Manifest>,
    destination: Arc<Destination>,
    /// The topics whose records are kept, and how their files are merged.
    topics: BTreeMap<String, Option<MergeConfig>>,
    turns: Arc<Semaphore>,
    warned: Arc<AtomicI64>,
    footers: Footers,
    gone: Mutex<Vec<Arc<RawFile>>>,
    merges: AtomicU64,
    sweeping: tokio::sync::Mutex<()>,
}

/// What is still kept of a partition's files.
struct Kept {
    /// Nothing is: the topic gave up its second tier.
    nothing: bool,
    /// Records from here on.
    floor: Offset,
    /// Files with a record that is so young.
    since: Option<TimestampMs>,
    /// So many bytes in all.
    bytes: Option<u64>,
    /// Bytes that only the log has.
    log_bytes: u64,
}

impl RawFiles {
    /// The files that the manifest knows, of which those of `tables` become more; the broker is told what there is and asks for
    /// it from now on.
    pub fn serve(
        broker: Arc<Broker>,
        manifest: Arc<Manifest>,
        destination: Arc<Destination>,
        tables: &[TableConfig],
    ) -> Arc<Self> {
        let raw = Arc::new(Self {
            broker: broker.clone(),
            manifest,
            destination,
            topics: tables.iter().filter(|table| table.raw).map(|table| (table.topic.clone(), table.merge)).collect(),
            turns: Arc::new(Semaphore::new(READS_MAX)),
            warned: Arc::new(AtomicI64::new(i64::MIN)),
            footers: Footers::default(),
            gone: Mutex::default(),
            merges: AtomicU64::new(0),
            sweeping: tokio::sync::Mutex::default(),
        });
        for topic in broker.catalog().topics() {
            if topic.config().is_tiered() && !raw.keeps(topic.name()) {
                tracing::warn!(topic = %topic.name(), "remote.storage.enable has no effect on new records: set raw = true under lake.tables");
            }
            topic.partitions().iter().for_each(|partition| raw.tell(partition));
        }
        let cold: Arc<dyn ColdLog> = raw.clone();
        broker.serve_cold(&cold);
        raw
    }

    /// Tells a partition what there is of it.
    pub fn tell(&self, partition: &Partition) {
        partition.set_cold(runs(&self.manifest.settled(partition.id()).raw));
    }

    /// Deletes what is too old and merges what is small, again and again, until `stop` turns true.
    pub async fn run(self: Arc<Self>, sealer: Arc<Sealer>, mut stop: watch::Receiver<bool>) {
        let every = Duration::from_millis(self.broker.config().retention_check_ms.max(1));
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(every) => {}
            }
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "old files of whole records are still there, it is tried again");
            }
            if let Err(error) = self.merge(&sealer, &stop).await {
                tracing::warn!(%error, "small files of whole records cannot be merged, it is tried again");
            }
        }
    }

    /// Deletes what is too old, too much or ordered to be deleted.
    ///
    /// # Errors
    /// `Destination` or `Broker`; what was done before stays done.
    pub async fn sweep(&self) -> Result<()> {
        let _one = self.sweeping.lock().await;
        for topic in self.broker.catalog().topics() {
            for partition in topic.partitions().iter() {
                let files = self.manifest.settled(partition.id()).raw;
                if files.is_empty() {
                    continue;
                }
                let gone = &files[..expired(&files, &self.kept(partition, &files).await?)];
                if !gone.is_empty() {
                    self.manifest.forget_raw(partition.id(), gone).await?;
                    self.tell(partition);
                    self.gone.lock().extend(gone.iter().cloned());
                }
            }
        }
        self.delete_gone().await
    }

    async fn kept(&self, partition: &Arc<Partition>, files: &[Arc<RawFile>]) -> Result<Kept> {
        let config = partition.config();
        let ages = config.is_tiered() && config.deletes();
        let end = files.last().map_or(0, |file| file.last + 1);
        let now = self.broker.clock().now_ms();
        Ok(Kept {
            nothing: !config.is_tiered() && config.deletes_untiered(),
            floor: partition.floor(),
            since: (ages && config.retention_ms() >= 0).then(|| now.saturating_sub(config.retention_ms())),
            bytes: u64::try_from(config.retention_bytes()).ok().filter(|_| ages),
            log_bytes: partition.backlog(end.max(partition.log_start())).await?.map_or(0, |(_, bytes)| bytes),
        })
    }

    /// Merges what is worth it, until there is nothing more or `stop` turns true.
    ///
    /// # Errors
    /// `Destination` or `Broker`; what was done before stays done.
    pub async fn merge(&self, sealer: &Sealer, stop: &watch::Receiver<bool>) -> Result<()> {
        let _one = self.sweeping.lock().await;
        // what a crash left must be gone before new files have their names: it would be taken for that
        sealer.clean().await?;
        for (topic, config) in self.topics.iter().filter_map(|(topic, config)| Some((topic, config.as_ref()?))) {
            let Some(topic) = self.broker.catalog().topic(topic) else { continue };
            for partition in topic.partitions().iter() {
                loop {
                    let files = self.manifest.settled(partition.id()).raw;
                    let Some(range) = merge::next_merge(&files, config).filter(|_| !*stop.borrow()) else { break };
                    self.merge_one(partition, &files[range]).await?;
                }
            }
        }
        self.delete_gone().await
    }

    async fn merge_one(&self, partition: &Arc<Partition>, inputs: &[Arc<RawFile>]) -> Result<()> {
        let objects = self.destination.get().await?;
        objects.check_present().await?;
        let Some(first) = inputs.first() else { return Ok(()) };
        let source = Source {
            topic: partition.topic().clone(),
            dir: first.path.rsplit_once('/').map_or_else(String::new, |(dir, _)| dir.to_owned()),
            partition: partition.index(),
            first: first.first,
            attempt: format!("{}-{}", self.manifest.epoch(), self.merges.fetch_add(1, Ordering::Relaxed)),
        };
        let reader = RawReader { objects: objects.clone(), footers: Footers::default() };
        let (files, now) = (inputs.to_vec(), self.broker.clock().now_ms());
        let named = source.clone();
        let work = move |runtime: &Handle| runtime.block_on(async { merge::merge(&reader, &files, &named, now).await });
        let written = background::run("a merge", Priority::Low, work).await.flatten();
        let WrittenRaw { hidden, file } = match written {
            Ok(written) => written,
            Err(error) => {
                remove_hidden(&objects, &format!("{}-{}-{}", source.topic, source.partition, source.first)).await;
                return Err(error);
            }
        };
        objects.sync(std::slice::from_ref(&hidden)).await?;
        objects.publish(&[(hidden, file.path.clone())]).await?;
        let path = file.path.clone();
        if let Err(error) = self.manifest.merge_raw(partition.id(), inputs, file).await {
            // the topic is gone; after another error the manifest may have it
            if error.kind == LakeErrorKind::Bug {
                objects.delete(&path).await?;
            }
            return Err(error);
        }
        self.gone.lock().extend(inputs.iter().cloned());
        Ok(())
    }

    /// Deletes the files that nobody reads any more.
    async fn delete_gone(&self) -> Result<()> {
        let free: Vec<Arc<RawFile>> = {
            let mut gone = self.gone.lock();
            let (free, read) = gone.drain(..).partition(|file| Arc::strong_count(file) == 1);
            *gone = read;
            free
        };
        if free.is_empty() {
            return Ok(());
        }
        let objects = self.destination.get().await;
        let mut outcome = objects.as_ref().map(|_| ()).map_err(LakeError::clone);
        for file in free {
            let deleted = match &objects {
                Ok(objects) => objects.delete(&file.path).await,
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = deleted {
                self.gone.lock().push(file);
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Reads on a thread that may block, when it is its turn.
    fn in_turn<T, F>(&self, read: impl FnOnce(RawReader) -> F + Send + 'static) -> BoxFuture<'static, broker::Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let (turns, destination) = (self.turns.clone(), self.destination.clone());
        let (warned, clock, footers) = (self.warned.clone(), self.broker.clock().clone(), self.footers.clone());
        let work = async move {
            let turn = turns.acquire_owned().await.map_err(|e| LakeError::bug(e.to_string()))?;
            let objects = destination.get().await?;
            let runtime = tokio::runtime::Handle::current();
            let read = move || {
                let _turn = turn;
                runtime.block_on(read(RawReader { objects, footers }))
            };
            let ended = tokio::task::spawn_blocking(read).await;
            ended.unwrap_or_else(|e| Err(LakeError::bug(format!("a read of whole records ended early: {e}"))))
        };
        work.map(move |read| read.map_err(|error| unserved(&error, &warned, &clock))).boxed()
    }
}

impl ColdLog for RawFiles {
    fn keeps(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    fn read(&self, log: LogId, wanted: ColdRead) -> BoxFuture<'static, broker::Result<Vec<Batch>>> {
        let files = following(&self.manifest.settled(log).raw, wanted.from);
        if files.is_empty() {
            let message = format!("offset {} is in no file of whole records", wanted.from);
            return async move { Err(broker::Error::new(Kind::OffsetOutOfRange, message)) }.boxed();
        }
        self.in_turn(move |reader| async move { reader::batches(&reader, &files, wanted).await })
    }

    fn first_at(
        &self,
        log: LogId,
        target: TimestampMs,
        between: (Offset, Offset),
    ) -> BoxFuture<'static, broker::Result<Option<(Offset, TimestampMs)>>> {
        let may_have = |file: &&Arc<RawFile>| {
            file.last >= between.0 && file.first < between.1 && file.max_timestamp >= target && file.records > 0
        };
        let files: Vec<_> = self.manifest.settled(log).raw.iter().filter(may_have).cloned().collect();
        self.in_turn(move |reader| async move {
            for file in files {
                if let Some(found) = reader::first_at(&reader, &file, target, between).await? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }
}

/// The file that has an offset, and some that go on from there.
fn following(files: &[Arc<RawFile>], from: Offset) -> Vec<Arc<RawFile>> {
    let (at, mut next) = (files.partition_point(|file| file.last < from), from);
    let goes_on = |file: &&Arc<RawFile>| {
        let fits = file.first <= next;
        next = file.last + 1;
        fits
    };
    files[at..].iter().take_while(goes_on).take(FILES_MAX).cloned().collect()
}

/// The runs of offsets that files have, which are in their order.
fn runs(files: &[Arc<RawFile>]) -> ColdRuns {
    let mut runs: Vec<(Offset, Offset)> = Vec::new();
    for file in files {
        match runs.last_mut() {
            Some((_, end)) if *end == file.first => *end = file.last + 1,
            _ => runs.push((file.first, file.last + 1)),
        }
    }
    runs.into()
}

/// How many files go, the oldest first.
fn expired(files: &[Arc<RawFile>], kept: &Kept) -> usize {
    let mut bytes = kept.log_bytes + files.iter().map(|file| file.bytes).sum::<u64>();
    let goes = |file: &&Arc<RawFile>| {
        bytes -= file.bytes;
        kept.nothing
            || file.last < kept.floor
            || kept.since.is_some_and(|since| file.aged_from() < since)
            || kept.bytes.is_some_and(|kept| bytes >= kept)
    };
    files.iter().take_while(goes).count()
}

/// What the broker is told; people are told now and then.
fn unserved(error: &LakeError, warned: &AtomicI64, clock: &Clock) -> broker::Error {
    let now = clock.steady_ms();
    if now.saturating_sub(warned.load(Ordering::Relaxed)) >= WARN_EVERY_MS {
        warned.store(now, Ordering::Relaxed);
        tracing::warn!(%error, "consumers wait for records that the log let go and the lake cannot read");
    }
    let kind = if error.kind == LakeErrorKind::Bug { Kind::Bug } else { Kind::ColdLogAway };
    broker::Error::new(kind, error.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: Offset, last: Offset, max_timestamp: TimestampMs) -> Arc<RawFile> {
        let (path, published_ms, sum) = (format!("{first}"), 500, None);
        Arc::new(RawFile { first, last, records: 1, bytes: 100, max_timestamp, published_ms, path, sum })
    }

    #[test]
    fn files_that_follow_one_another_are_one_run() {
        assert!(runs(&[]).is_empty());
        let files = [file(0, 4, 0), file(5, 5, 0), file(7, 9, 0), file(10, 19, 0)];
        assert_eq!(*runs(&files), [(0, 6), (7, 20)]);
    }

    #[test]
    fn a_read_goes_on_as_far_as_files_follow_one_another() {
        let files = [file(0, 4, 0), file(5, 5, 0), file(7, 9, 0)];
        let firsts = |from| following(&files, from).iter().map(|file| file.first).collect::<Vec<_>>();
        assert_eq!((firsts(0), firsts(4), firsts(5)), (vec![0, 5], vec![0, 5], vec![5]));
        assert_eq!((firsts(6), firsts(8), firsts(10)), (vec![], vec![7], vec![]));
    }

    #[test]
    fn the_oldest_files_go_by_age_size_and_order() {
        let files = [file(0, 4, 10), file(5, 9, 400), file(10, 14, -1), file(15, 19, 300)];
        let all = || Kept { nothing: false, floor: 0, since: None, bytes: None, log_bytes: 50 };
        let count = |kept: Kept| expired(&files, &kept);
        assert_eq!(count(all()), 0);
        assert_eq!(count(Kept { nothing: true, ..all() }), 4);
        assert_eq!(count(Kept { floor: 9, ..all() }), 1, "9 itself is kept");
        assert_eq!(count(Kept { floor: 10, ..all() }), 2);
        assert_eq!(count(Kept { since: Some(11), ..all() }), 1);
        assert_eq!(count(Kept { since: Some(401), ..all() }), 2, "without a time it is as old as its file");
        assert_eq!(count(Kept { since: Some(501), ..all() }), 4);
        assert_eq!(count(Kept { bytes: Some(450), ..all() }), 0);
        assert_eq!(count(Kept { bytes: Some(350), ..all() }), 1);
        assert_eq!(count(Kept { bytes: Some(349), ..all() }), 1, "never below what is to be kept");
        assert_eq!(count(Kept { bytes: Some(0), ..all() }), 4);
    }
}
