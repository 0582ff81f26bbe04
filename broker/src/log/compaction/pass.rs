//! One pass over one partition: learn the newest offset of each key of the dirty part, look at every batch from the log's start
//! on and replace or remove what is due, put the index's running bytes right, remember how far the log is clean.
//!
//! Batches are changed from the front to the back, in commits of at most [`COMMIT_BYTES_MAX`] or one batch: a tombstone is
//! never removed before what it deletes. The running bytes are put right from the back to the front, so that they ascend at
//! every moment. A pass that is cut short anywhere is made again; what it did already stays done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::commit::{Compacted, Fix};
use super::key_map::KeyMap;
use super::rewrite::{Fate, Judge};
use super::state::CleanState;
use super::survey::Due;
use super::transactions::{Standing, Transactions};
use crate::Broker;
use crate::batch::Batch;
use crate::crash_point::CrashPoint;
use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Change};
use crate::log::Partition;
use crate::log::keys::{self, IndexEntry};
use crate::log::partition::blocking;
use crate::log::producers::ProducerState;
use crate::store::Family;
use crate::types::Offset;

/// Bytes of batches in one commit, so that producers never wait long for the lane: a batch above it goes alone.
const COMMIT_BYTES_MAX: usize = 1 << 20;
/// Batches and figures in one commit.
const FIXES_MAX: usize = 4096;
/// Bytes read at a time.
const READ_BYTES: usize = 4 << 20;

/// Bounds of a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Keys held in memory; when a log has more, it takes several passes.
    pub(crate) keys_max: usize,
    /// Batches and figures in one commit.
    pub(crate) fixes_max: usize,
    /// Commits after which a pass ends as if a crash had cut it short; tests set it.
    pub(crate) commits_max: u64,
}

impl Limits {
    /// The bounds that the broker's settings give.
    pub(crate) fn of(broker: &Broker) -> Self {
        let keys_max = broker.config().compaction_keys_max.max(1);
        Self { keys_max, fixes_max: FIXES_MAX, commits_max: u64::MAX }
    }
}

/// The way of a pass into the lane.
pub(crate) struct Commits<'a> {
    broker: &'a Arc<Broker>,
    partition: &'a Arc<Partition>,
    limits: Limits,
    made: AtomicU64,
}

impl<'a> Commits<'a> {
    pub(crate) fn new(broker: &'a Arc<Broker>, partition: &'a Arc<Partition>, limits: Limits) -> Self {
        Self { broker, partition, limits, made: AtomicU64::new(0) }
    }

    /// Commits fixes and gives their size.
    async fn make(&self, fixes: Vec<Fix>, state: CleanState, tail_until: Offset) -> Result<usize> {
        if self.made.fetch_add(1, Ordering::Relaxed) >= self.limits.commits_max {
            return Err(Error::new(Kind::Bug, "the pass is cut short, as a test asked"));
        }
        let change = Compacted { partition: self.partition.clone(), fixes, state, tail_until };
        let size = change.size();
        // what the next step builds on must be visible, not only written
        self.broker.lane().commit(vec![Change::Compact(change)], Ack::Durable).await?;
        CrashPoint::Compacted.reach();
        Ok(size)
    }
}

/// One pass. Holds: what it knows between its steps.
pub(crate) struct Pass<'a> {
    broker: &'a Arc<Broker>,
    partition: &'a Arc<Partition>,
    limits: Limits,
    due: Due,
    commits: Commits<'a>,
}

/// What one step of a pass found.
struct Step {
    /// Where the next step goes on.
    next: Offset,
    read_bytes: usize,
    fixes: Vec<Fix>,
    transactions: Transactions,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(broker: &'a Arc<Broker>, partition: &'a Arc<Partition>, (due, limits): (Due, Limits)) -> Self {
        let commits = Commits::new(broker, partition, limits);
        Self { broker, partition, limits, due, commits }
    }

    /// Makes the pass; gives the bytes that it removed.
    ///
    /// # Errors
    /// `CorruptMessage` when a batch cannot be read, `Storage`.
    pub(crate) async fn make(&self) -> Result<u64> {
        let newest = Arc::new(self.learn().await?);
        let end = newest.end();
        let (now, delete_retention_ms) = (self.broker.clock().now_ms(), self.partition.config().delete_retention_ms());
        let before = self.partition.size_bytes();
        let touched_to = self.partition.compaction().touched_to.max(end);
        let state = CleanState { clean_to: self.due.from, pass_end: end, touched_to };
        let (mut at, mut changed) = (self.partition.log_start(), false);
        let mut transactions = self.transactions_from(at).await?;
        let fixes_max = self.limits.fixes_max;
        while at < end {
            let (partition, newest) = (self.partition.clone(), newest.clone());
            let step = blocking(move || {
                let log_start = partition.log_start();
                let judge = Judge { log_start, newest: &newest, now, delete_retention_ms };
                examine(&partition, (at, end, fixes_max), &judge, transactions)
            });
            let step = step.await?;
            (at, transactions) = (step.next, step.transactions);
            let mut moved = step.read_bytes;
            if !step.fixes.is_empty() {
                changed = true;
                moved += self.commits.make(step.fixes, state, end).await?;
            }
            rest(self.broker, moved).await;
        }
        let done = CleanState { clean_to: end, pass_end: 0, touched_to };
        if changed {
            settle(&self.commits, end, done).await?;
        } else {
            self.commits.make(Vec::new(), done, 0).await?;
        }
        Ok(before.saturating_sub(self.partition.size_bytes()))
    }

    /// The newest offsets of the keys in the dirty part, or in as much of it as there is room for.
    async fn learn(&self) -> Result<KeyMap> {
        let Due { from, to, .. } = self.due;
        let mut newest = KeyMap::new(self.limits.keys_max, from);
        let mut transactions = self.transactions_from(from).await?;
        let mut at = from;
        while at < to {
            let partition = self.partition.clone();
            let (bytes, next, known) = blocking(move || {
                let batches = partition.read_store(at, to, READ_BYTES)?;
                let bytes = batches.iter().map(|batch| batch.bytes().len()).sum::<usize>();
                let mut full = false;
                for batch in &batches {
                    let standing = transactions.meet(batch);
                    full = full || !note(&mut newest, batch, standing, (at, to))?;
                }
                let next = if full { to } else { batches.last().map_or(to, Batch::next_offset) };
                Ok((bytes, next, (newest, transactions)))
            })
            .await?;
            (newest, transactions) = known;
            at = next;
            rest(self.broker, bytes).await;
        }
        Ok(newest)
    }

    /// The transactions for a walk that begins at `from`. Aborted ones that ended before are not among them: the walk does not
    /// meet their markers, and would take what their producers write later for aborted too.
    async fn transactions_from(&self, from: Offset) -> Result<Transactions> {
        Ok(Transactions::new(self.partition.aborted_between(from, self.partition.high_watermark()).await?))
    }
}

/// Keeps to the bound of bytes in a second, also to one that is set meanwhile.
pub(crate) async fn rest(broker: &Broker, bytes: usize) {
    let mut left = bytes as f64;
    while left > 0.0 {
        let pace = broker.settings().value("log.cleaner.io.max.bytes.per.second");
        let pace: f64 = pace.and_then(|pace| pace.trim().parse().ok()).unwrap_or(f64::MAX).max(1.0);
        tokio::time::sleep(Duration::from_secs_f64((left / pace).min(1.0))).await;
        left -= pace;
    }
}

/// Notes the keys of a batch of the dirty part; false when there is no room left.
fn note(newest: &mut KeyMap, batch: &Batch, standing: Standing, (from, to): (Offset, Offset)) -> Result<bool> {
    if standing == Standing::Data {
        let mut records = batch.records()?;
        while let Some(record) = records.next_ref() {
            let record = record?;
            let Some(key) = record.key.filter(|_| (from..to).contains(&record.offset)) else { continue };
            if !newest.note(key, record.offset) {
                return Ok(false);
            }
        }
    }
    newest.reach(batch.next_offset().min(to));
    Ok(true)
}

/// Judges batches from `from` on until a commit is full.
fn examine(
    partition: &Partition,
    (from, end, fixes_max): (Offset, Offset, usize),
    judge: &Judge<'_>,
    mut transactions: Transactions,
) -> Result<Step> {
    let (mut fixes, mut size) = (Vec::new(), 0);
    let mut next = end;
    let batches = partition.read_store(from.max(partition.log_start()), end, READ_BYTES)?;
    let read_bytes = batches.iter().map(|batch| batch.bytes().len()).sum();
    for batch in &batches {
        next = batch.next_offset();
        let standing = transactions.meet(batch);
        let fix = match judge.judge(batch, standing, is_last_of_producer(partition, batch)?)? {
            Fate::Stays => continue,
            // none when the batch was deleted meanwhile
            Fate::Becomes(new) => partition.indexed(batch.base_offset())?.map(|old| Fix::Replace(new, old)),
            Fate::Goes => partition.indexed(batch.base_offset())?.map(|old| Fix::Remove(batch.base_offset(), old)),
        };
        if let Some(fix) = fix {
            size += fix.size();
            fixes.push(fix);
        }
        if size >= COMMIT_BYTES_MAX || fixes.len() >= fixes_max {
            break;
        }
    }
    Ok(Step { next, read_bytes, fixes, transactions })
}

/// Whether a batch holds the last that is known of its producer: the newest sequence number, or, when a marker brought a
/// new epoch, that.
fn is_last_of_producer(partition: &Partition, batch: &Batch) -> Result<bool> {
    if batch.producer_id() < 0 {
        return Ok(false);
    }
    let stored = partition.store().get(Family::Producers, &keys::producer_key(partition.id(), batch.producer_id()))?;
    let Some(stored) = stored else { return Ok(false) };
    let known = ProducerState::decode(&stored)?;
    Ok(match known.kept.last() {
        Some(newest) => newest.base_offset == batch.base_offset(),
        None => batch.is_control() && batch.producer_epoch() == known.epoch,
    })
}

/// Puts the running bytes below the end of a pass right, from the back to the front, and then remembers `done`. What was
/// removed counts as deleted at the front, as it does when the log's start moves.
///
/// # Errors
/// `Storage`.
pub(crate) async fn settle(commits: &Commits<'_>, pass_end: Offset, done: CleanState) -> Result<()> {
    let (partition, fixes_max) = (commits.partition, commits.limits.fixes_max);
    let reading = partition.clone();
    let mut before_next = blocking(move || reading.bytes_below(pass_end)).await?;
    let mut below = pass_end;
    loop {
        let reading = partition.clone();
        let (fixes, reached) = blocking(move || wrong_figures(&reading, below, before_next, fixes_max)).await?;
        let state = if reached.is_some() { CleanState { pass_end, ..partition.compaction() } } else { done };
        commits.make(fixes, state, 0).await?;
        let Some(reached) = reached else { return Ok(()) };
        (below, before_next) = reached;
    }
}

/// Where settling goes on: the offset below which figures are to be looked at, and the bytes before it.
type Reached = Option<(Offset, i64)>;

/// The entries below an offset whose running bytes are wrong, from the back; nowhere to go on at the front.
fn wrong_figures(
    partition: &Partition,
    mut below: Offset,
    mut before_next: i64,
    count: usize,
) -> Result<(Vec<Fix>, Reached)> {
    let (from, _) = keys::log_range(partition.id());
    let to = keys::batch_key(partition.id(), below);
    let entries = partition.store().last_many(Family::Index, &from, &to, count)?;
    let is_front = entries.len() < count;
    let mut fixes = Vec::new();
    for (key, value) in entries {
        let (base, entry) = (keys::base_offset_of(&key)?, IndexEntry::decode(&value)?);
        if entry.running_bytes != before_next {
            fixes.push(Fix::Running(base, IndexEntry { running_bytes: before_next, ..entry }));
        }
        before_next -= i64::from(entry.size);
        below = base;
    }
    Ok((fixes, (!is_front).then_some((below, before_next))))
}
