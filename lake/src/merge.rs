//! Merging: small files that are neighbours in a slice of a partition become one, in four steps.
//!
//! 1. the merged file is written under a hidden name and synced;
//! 2. it is renamed into the directory of its inputs, under the name that its first and last offset give it;
//! 3. one commit puts it in the place of its inputs in the manifest;
//! 4. each input is taken out of the directory: deleted, or renamed to where only the queries that read it find it.
//!
//! Readers of the manifest see each row once at any moment. Readers of directories meet some rows twice from 2 to the end of
//! 4: as long as one rename, one commit and one rename or delete per input take, however long queries run. A crash in
//! between keeps it so until the start, which removes what the manifest does not know: before 3 that is the merged file,
//! after it the inputs. A row is never missing.
//!
//! Only files with the same columns are merged, and only where the start would clean up.

mod plan;
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{Partition, TimestampMs};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::plan::is_small;
use self::plan::{Rule, next_merge};
pub use self::writer::Merging;
use crate::background::{self, Priority};
use crate::clean;
use crate::config::MergeConfig;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::manifest_bytes::FileEntry;
use crate::objects::{Objects, TMP_DIR};
use crate::retired::{Gone, Retired};
use crate::sealer::Sealer;
use crate::settle::Step;
use crate::tables::Table;
use crate::writer::{Source, Written};

/// Time between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Longest time between two tries where a merge failed.
const BACKOFF_MAX: Duration = Duration::from_secs(640);
/// A slice that got no file for this long is merged, however few its files are.
const QUIET_MS: i64 = 3_600_000;

/// What merging did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Files that were made.
    pub merges: u64,
    /// Files whose place they took.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of the files that were made.
    pub bytes: u64,
}

impl MergeReport {
    fn add(&mut self, more: Self) {
        self.merges += more.merges;
        self.files += more.files;
        self.rows += more.rows;
        self.bytes += more.bytes;
    }
}

/// How merging a table's files fares.
#[derive(Clone, Debug, Default)]
pub struct MergeState {
    /// What was done since the start.
    pub done: MergeReport,
    /// What went wrong last, until it goes well again.
    pub error: Option<String>,
    retry: Option<(Instant, Duration)>,
}

/// Merges. Holds: the way to what settled and to what becomes of the inputs, what it found out about files, and what it
/// did. Always true: at most one merge is under way. Nothing here survives a crash.
pub struct Merger {
    sealer: Arc<Sealer>,
    retired: Arc<Retired>,
    attempts: AtomicU64,
    one: tokio::sync::Mutex<()>,
    states: Mutex<HashMap<String, MergeState>>,
    /// Files that have other columns than the one before them in their slice.
    apart: Mutex<HashSet<String>>,
    /// Names that an attempt may have given to a file that it could not publish.
    unpublished: Mutex<Vec<String>>,
}

/// What of a table is merged, and when to end early.
struct Order {
    table: Arc<Table>,
    config: MergeConfig,
    quiet_before: TimestampMs,
    stop: watch::Receiver<bool>,
}

impl Order {
    /// Whether the lake stops.
    fn ends(&self) -> bool {
        *self.stop.borrow()
    }
}

impl Merger {
    /// A merger of what the sealer settles.
    pub fn new(sealer: Arc<Sealer>, retired: Arc<Retired>) -> Self {
        Self {
            sealer,
            retired,
            attempts: AtomicU64::new(0),
            one: tokio::sync::Mutex::default(),
            states: Mutex::default(),
            apart: Mutex::default(),
            unpublished: Mutex::default(),
        }
    }

    /// How merging a topic's files fares.
    pub fn state(&self, topic: &str) -> MergeState {
        self.states.lock().get(topic).cloned().unwrap_or_default()
    }

    /// Works until `stop` turns true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.look(self.sealer.settler().broker.clock().now_ms(), &stop).await;
        }
    }

    /// Merges what is worth it at `now`, table by table.
    pub async fn look(self: &Arc<Self>, now: TimestampMs, stop: &watch::Receiver<bool>) {
        for table in &self.sealer.tables() {
            let waits = self.state(&table.topic).retry.is_some_and(|(until, _)| until > Instant::now());
            if !waits && !*stop.borrow() {
                // what went wrong is noted
                let _ = self.merge_table(table, now.saturating_sub(QUIET_MS), stop.clone()).await;
            }
        }
    }

    /// Merges all that a topic has of small neighbours now, however few.
    ///
    /// # Errors
    /// `NotFound` when the topic does not settle, `Refused` when its table is not merged; else what went wrong.
    pub async fn merge(self: &Arc<Self>, topic: &str, stop: watch::Receiver<bool>) -> Result<MergeReport> {
        let table = self.sealer.table(topic)?;
        if table.settles.as_ref().is_some_and(|config| config.merge.is_none()) {
            let message = format!("files of {topic} are not merged: set merge = true in its [[lake.tables]]");
            return Err(LakeError::new(LakeErrorKind::Refused, message));
        }
        self.merge_table(&table, TimestampMs::MAX, stop).await
    }

    /// Merges what is worth it, on a thread that may block: decoding and compressing take long.
    async fn merge_table(
        self: &Arc<Self>,
        table: &Arc<Table>,
        quiet_before: TimestampMs,
        stop: watch::Receiver<bool>,
    ) -> Result<MergeReport> {
        let Some(config) = table.settles.as_ref().and_then(|config| config.merge) else {
            return Ok(MergeReport::default());
        };
        let order = Order { table: table.clone(), config, quiet_before, stop };
        let this = self.clone();
        let work = move |runtime: &Handle| {
            runtime.block_on(async {
                let _one = this.one.lock().await;
                let outcome = this.merge_all(&order).await;
                this.note(&order.table.topic, outcome.as_ref().err());
                outcome
            })
        };
        background::run("a merge", Priority::Low, work).await?
    }

    async fn merge_all(&self, order: &Order) -> Result<MergeReport> {
        let mut report = MergeReport::default();
        let Some(topic) = self.sealer.settler().broker.catalog().topic(&order.table.topic) else { return Ok(report) };
        let mut failed = None;
        for partition in topic.partitions().iter() {
            let outcome = self.merge_partition(order, partition, &mut report).await;
            // the files of one partition do not keep the others from it
            failed = failed.or(outcome.err());
        }
        failed.map_or(Ok(report), Err)
    }

    async fn merge_partition(&self, order: &Order, partition: &Partition, report: &mut MergeReport) -> Result<()> {
        let dirs = clean::dirs(&order.table);
        while let (false, Some(inputs)) = (order.ends(), self.next(order, partition, &dirs)) {
            // what a crash left must be gone before new files have their names
            self.sealer.clean().await?;
            let objects = self.sealer.settler().destination.get().await?;
            self.remove_unpublished(&objects).await?;
            if let Some(done) = self.merge_one(order, &objects, partition, inputs).await? {
                report.add(done);
            }
        }
        Ok(())
    }

    fn next(&self, order: &Order, partition: &Partition, dirs: &[String]) -> Option<Vec<Arc<FileEntry>>> {
        let files = self.sealer.settler().manifest.settled(partition.id()).files;
        let apart = self.apart.lock();
        let rule = Rule { config: order.config, quiet_before: order.quiet_before, dirs, apart: &apart };
        next_merge(&files, &rule)
    }

    /// Merges these files. None when they are not the ones to merge any more: the next look finds others.
    async fn merge_one(
        &self,
        order: &Order,
        objects: &Arc<Objects>,
        partition: &Partition,
        mut inputs: Vec<Arc<FileEntry>>,
    ) -> Result<Option<MergeReport>> {
        let (settler, started) = (self.sealer.settler(), Instant::now());
        let Some(first) = inputs.first() else { return Ok(None) };
        let (first, topic) = (first.first, &order.table.topic);
        let attempt = format!("{}-{}", settler.manifest.epoch(), self.attempts.fetch_add(1, Ordering::Relaxed));
        let hidden = format!("{TMP_DIR}/{topic}-{}-{first}.merge.{attempt}.tmp", partition.index());
        let written = self.write(order, (objects, &hidden), partition, &mut inputs).await;
        let Ok(Some(Written { entry, .. })) = written else {
            if settler.fault.is_none() {
                self.drop_hidden(objects, &hidden).await;
            }
            // what was moved or deleted meanwhile could not be read
            return written.map(|_| None).or_else(|error| match self.are_published(partition, &inputs) {
                true => Err(error),
                false => Ok(None),
            });
        };
        let (path, rows, bytes) = (entry.path.clone(), entry.rows, entry.bytes);
        {
            let _alone = self.sealer.alone().await;
            objects.check_present().await?;
            if !self.are_published(partition, &inputs) {
                objects.delete(&hidden).await?;
                return Ok(None);
            }
            if let Err(error) = objects.publish(&[(hidden, path.clone())]).await {
                // whether it has its name is not known
                self.unpublished.lock().push(path);
                return Err(error);
            }
            settler.step(Step::Renamed)?;
            settler.manifest.merge(partition.id(), &inputs, entry).await?;
        }
        settler.step(Step::Published)?;
        self.keep_apart(&inputs, &path);
        let done = MergeReport { merges: 1, files: inputs.len() as u64, rows, bytes };
        for file in inputs {
            self.retired.retire(objects, [Gone { file, last: false }]).await;
            settler.step(Step::Removed)?;
        }
        self.count(&order.table.topic, done);
        tracing::info!(topic = %order.table.topic, partition = partition.index(), files = done.files, rows, bytes, into = path,
            milliseconds = started.elapsed().as_millis() as u64, "merged small files");
        Ok(Some(done))
    }

    /// Writes the rows of the inputs to a hidden file; inputs from the first on that has other columns are let go. None
    /// when that leaves too few, or the lake is to stop.
    async fn write(
        &self,
        order: &Order,
        (objects, hidden): (&Arc<Objects>, &str),
        partition: &Partition,
        inputs: &mut Vec<Arc<FileEntry>>,
    ) -> Result<Option<Written>> {
        let settler = self.sealer.settler();
        let Some(first) = inputs.first() else { return Ok(None) };
        let source = Source {
            topic: order.table.topic.clone(),
            dir: first.path.rsplit_once('/').map(|(dir, _)| dir.to_owned()).unwrap_or_default(),
            partition: partition.index(),
            first: first.first,
            attempt: String::new(),
        };
        let mut merging = Merging::new(objects.clone(), source, hidden.to_owned(), settler.limits.buffer_bytes_max);
        let mut taken = 0;
        for input in inputs.iter() {
            if order.ends() {
                return Ok(None);
            }
            if !merging.take(input).await? {
                self.apart.lock().insert(input.path.clone());
                break;
            }
            taken += 1;
            settler.step(Step::HalfWritten)?;
        }
        inputs.truncate(taken);
        if taken < 2 {
            return Ok(None);
        }
        let written = merging.finish(inputs, settler.broker.clock().now_ms()).await?;
        objects.sync(std::slice::from_ref(&written.hidden)).await?;
        settler.step(Step::Written)?;
        Ok(Some(written))
    }

    /// A merged file has other columns than the one before it where the first of its inputs had.
    fn keep_apart(&self, inputs: &[Arc<FileEntry>], merged: &str) {
        let mut apart = self.apart.lock();
        if inputs.first().is_some_and(|first| apart.remove(&first.path)) {
            apart.insert(merged.to_owned());
        }
    }

    fn are_published(&self, partition: &Partition, files: &[Arc<FileEntry>]) -> bool {
        files.iter().all(|file| self.sealer.settler().manifest.is_published(partition.id(), file))
    }

    async fn drop_hidden(&self, objects: &Objects, hidden: &str) {
        if let Err(error) = objects.delete(hidden).await {
            tracing::debug!(%error, "a hidden file stays until the next start");
        }
    }

    /// Removes files of attempts whose rename had no answer: another attempt may not give them the same name.
    async fn remove_unpublished(&self, objects: &Objects) -> Result<()> {
        loop {
            let last = self.unpublished.lock().last().cloned();
            let Some(path) = last else { return Ok(()) };
            objects.delete(&path).await?;
            self.unpublished.lock().pop();
        }
    }

    fn count(&self, topic: &str, done: MergeReport) {
        self.states.lock().entry(topic.to_owned()).or_default().done.add(done);
    }

    fn note(&self, topic: &str, error: Option<&LakeError>) {
        let mut states = self.states.lock();
        let state = states.entry(topic.to_owned()).or_default();
        let Some(error) = error else {
            (state.error, state.retry) = (None, None);
            return;
        };
        let delay = state.retry.map_or(LOOK_EVERY, |(_, delay)| (delay * 2).min(BACKOFF_MAX));
        tracing::warn!(topic, %error, retry_in_ms = delay.as_millis() as u64, "small files cannot be merged, they stay as they are");
        state.error = Some(error.message.clone());
        state.retry = Some((Instant::now() + delay, delay));
    }
}
