//! The sealer: decides which partitions are due, has them settled one at a time, and tries again when the destination
//! is away: the one place that does. Meanwhile the log keeps the records, because the lake holds retention at the marks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::{LogId, Offset, Partition, TimestampMs, Topic};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::background::{self, Priority};
use crate::clean;
use crate::config::TableConfig;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::iceberg::ICEBERG_DIR;
use crate::put_aside::{self, PutAside};
use crate::settle::{Settler, Settling};
use crate::tables::{Table, Tables};
use crate::transform::WrittenTable;

/// Time between two looks at the partitions.
const TICK: Duration = Duration::from_millis(200);
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A record that waits for so many times the age at which it is due is late.
const LATE_AGES: i64 = 2;
/// Longest wait for the destination at the start.
const START_WAIT_MAX: Duration = Duration::from_secs(5);

/// Settles what is due. Holds: what went wrong and when it tries again, per table. Always true: at most one range is
/// being settled. Nothing here survives a crash; plans and marks are in the manifest.
pub struct Sealer {
    settler: Settler,
    tables: Arc<Tables>,
    written: Vec<Arc<WrittenTable>>,
    settling: Arc<tokio::sync::Mutex<()>>,
    cleaned: AtomicBool,
    /// Where logs ended when the lake was started.
    ends: HashMap<LogId, Offset>,
    put_aside: Mutex<Vec<PutAside>>,
    states: Mutex<HashMap<String, TableState>>,
}

/// How a table fares.
#[derive(Clone, Debug, Default)]
pub struct TableState {
    /// What went wrong last, until it goes well again.
    pub error: Option<String>,
    /// When the oldest record that is not settled was appended, per partition, as of the last look.
    pub oldest_ms: BTreeMap<i32, TimestampMs>,
    retry: Option<(Instant, Duration)>,
}

impl Sealer {
    /// A sealer of those tables that settle. It cleans up for those that SQL writes, too.
    pub fn new(settler: Settler, tables: Arc<Tables>, written: Vec<Arc<WrittenTable>>) -> Self {
        let topics = settler.broker.catalog().topics();
        let end = |partition: &Arc<Partition>| (partition.id(), partition.high_watermark());
        let ends = topics.iter().flat_map(|topic| topic.partitions().iter().map(end).collect::<Vec<_>>()).collect();
        Self {
            settler,
            tables,
            written,
            settling: Arc::default(),
            cleaned: AtomicBool::new(false),
            ends,
            put_aside: Mutex::default(),
            states: Mutex::default(),
        }
    }

    /// What it settles with.
    pub fn settler(&self) -> &Settler {
        &self.settler
    }

    /// The tables that settle.
    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.tables.now().iter().filter(|table| table.settles.is_some()).cloned().collect()
    }

    /// The table of a topic that is there and settles.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn table(&self, topic: &str) -> Result<Arc<Table>> {
        let tables = self.tables();
        let table = tables.iter().find(|table| *table.topic == *topic).cloned();
        table.filter(|_| self.settler.broker.catalog().topic(topic).is_some()).ok_or_else(|| {
            let known: Vec<_> = tables.iter().map(|table| &*table.topic).collect();
            let message = format!("no topic {topic} that settles in the lake; these do: {}", known.join(", "));
            LakeError::new(LakeErrorKind::NotFound, message)
        })
    }

    /// What lies aside of a topic's files, as the start found it.
    pub fn put_aside(&self, topic: &str) -> Vec<PutAside> {
        self.put_aside.lock().iter().filter(|aside| aside.topic == topic).cloned().collect()
    }

    /// How a topic's table fares.
    pub fn state(&self, topic: &str) -> TableState {
        self.states.lock().get(topic).cloned().unwrap_or_default()
    }

    /// Works until `stop` turns true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let pause = if self.round(&stop).await { Duration::ZERO } else { TICK };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look at every partition; whether anything was settled.
    async fn round(self: &Arc<Self>, stop: &watch::Receiver<bool>) -> bool {
        let retired = {
            let _one = self.settling.lock().await;
            self.retire().await
        };
        if let Err(error) = retired {
            tracing::warn!(%error, "files of deleted topics cannot be put aside yet");
        }
        let mut is_busy = false;
        for table in &self.tables() {
            if *stop.borrow() {
                return false;
            }
            let waits = self.states.lock().get(&*table.topic).and_then(|state| state.retry);
            if waits.is_some_and(|(until, _)| until > Instant::now()) {
                self.hold(table);
                continue;
            }
            let outcome = self.seal_due(table, stop).await;
            is_busy |= outcome.as_ref().is_ok_and(|settled| *settled);
            self.note(&table.topic, outcome.err());
        }
        is_busy
    }

    /// Settles one range of each partition of a table that is due; whether there was any. A partition that is due again by
    /// then, as they are on a slow destination, waits for the others' turns.
    async fn seal_due(self: &Arc<Self>, table: &Arc<Table>, stop: &watch::Receiver<bool>) -> Result<bool> {
        self.hold(table);
        let mut is_busy = false;
        let (Some(topic), Some(config)) = (self.topic(table), &table.settles) else { return Ok(false) };
        for partition in topic.partitions().iter() {
            if *stop.borrow() {
                break;
            }
            if let Some(priority) = self.due(table, config, partition).await? {
                is_busy |= self.settle(table, partition, partition.last_stable_offset(), priority).await?.is_some();
            }
        }
        Ok(is_busy)
    }

    /// With which share of the machine a partition is to be settled now, if at all.
    async fn due(&self, table: &Table, config: &TableConfig, partition: &Arc<Partition>) -> Result<Option<Priority>> {
        let settled = self.settler.manifest.settled(partition.id());
        let from = settled.mark.map_or(partition.log_start(), |mark| mark.offset).max(partition.log_start());
        let backlog = partition.backlog(from).await?;
        let note = |oldest: Option<TimestampMs>| {
            let mut states = self.states.lock();
            let oldest_ms = &mut states.entry(table.topic.to_string()).or_default().oldest_ms;
            match oldest {
                Some(at) => oldest_ms.insert(partition.index(), at),
                None => oldest_ms.remove(&partition.index()),
            };
        };
        let Some((oldest, bytes)) = backlog else {
            note(None);
            return Ok(None);
        };
        note(Some(oldest));
        let records = u64::try_from(partition.last_stable_offset() - from).unwrap_or(0);
        let age = self.settler.broker.clock().now_ms().saturating_sub(oldest);
        let enough = records >= config.flush_rows as u64 || bytes >= config.flush_bytes;
        let is_due = settled.plan.is_some() || enough || age >= config.flush_age_ms;
        Ok(is_due.then(|| priority(age, config.flush_age_ms)))
    }

    /// Settles all that a topic has now, due or not.
    ///
    /// # Errors
    /// `NotFound` when the topic does not settle or is not there; else what went wrong.
    pub async fn flush(self: &Arc<Self>, topic: &str) -> Result<Settling> {
        let table = self.table(topic)?;
        let outcome = self.flush_table(&table).await;
        self.note(topic, outcome.as_ref().err().cloned());
        outcome
    }

    async fn flush_table(self: &Arc<Self>, table: &Arc<Table>) -> Result<Settling> {
        let mut total = Settling::default();
        let Some(topic) = self.topic(table) else { return Ok(total) };
        for partition in topic.partitions().iter() {
            let end = partition.last_stable_offset();
            // somebody waits for it
            while let Some(done) = self.settle(table, partition, end, Priority::Normal).await? {
                total.files += done.files;
                total.rows += done.rows;
                total.bytes += done.bytes;
            }
        }
        Ok(total)
    }

    /// Settles one range on a thread that may block: decoding and compressing take long.
    async fn settle(
        self: &Arc<Self>,
        table: &Arc<Table>,
        partition: &Arc<Partition>,
        end: Offset,
        priority: Priority,
    ) -> Result<Option<Settling>> {
        let one = self.settling.clone().lock_owned().await;
        if !self.tables.while_there(table, || {}) {
            return Ok(None);
        }
        self.clean_once().await?;
        if self.settler.manifest.settled(partition.id()).mark.is_none() {
            // a topic may have been made again under its old name: its files must not meet its predecessor's
            self.retire().await?;
        }
        let (this, table, partition) = (self.clone(), table.clone(), partition.clone());
        let work = move |runtime: &Handle| {
            // the work goes on when its caller goes away, and nobody else may begin until it ends
            let _one = one;
            runtime.block_on(this.settler.settle(&table, &partition, end))
        };
        background::run("settling", priority, work).await?
    }

    /// Removes what the last run left, before the first file of this one is written.
    async fn clean_once(&self) -> Result<()> {
        if self.cleaned.load(Ordering::Acquire) {
            return Ok(());
        }
        // boxed: it may write files, and a future with a writer in it makes large ones of all that wait for it
        Box::pin(self.clean_now()).await
    }

    async fn clean_now(&self) -> Result<()> {
        let objects = self.settler.destination.get().await?;
        let tables = self.tables();
        let tables: Vec<&Table> = tables.iter().map(|table| &**table).collect();
        let Settler { manifest, broker, iceberg, .. } = &self.settler;
        match iceberg {
            // files that snapshots name where they lie are not cleaned away before the snapshots are
            Some(iceberg) if !objects.links() => {
                if iceberg.sync_all().await.is_err() {
                    // the manifest of a store that was restored names files whose places others took
                    let found = clean::look(&objects, manifest, broker, &tables).await?;
                    // where they are gone for good their tables say so, and the log must not wait for them
                    if let Err(error) = iceberg.sync_all().await
                        && !clean::is_any_gone(&objects, manifest, &found).await?
                    {
                        return Err(error);
                    }
                }
            }
            Some(_) => {}
            None => objects.remove_dir(ICEBERG_DIR).await?,
        }
        self.retire().await?;
        clean::remove_orphans(&objects, manifest, broker, (&tables, &self.ends)).await?;
        clean::remove_table_orphans(&objects, &self.written).await?;
        let put_aside = put_aside::all(&objects).await?;
        put_aside.iter().for_each(|aside| tracing::warn!(topic = %aside.topic, "{}", aside.told()));
        *self.put_aside.lock() = put_aside;
        self.cleaned.store(true, Ordering::Release);
        Ok(())
    }

    async fn retire(&self) -> Result<()> {
        let Settler { manifest, floors, broker, .. } = &self.settler;
        let gone = clean::deleted(manifest, broker);
        if gone.is_empty() {
            return Ok(());
        }
        let objects = self.settler.destination.get().await?;
        if let Some(iceberg) = &self.settler.iceberg {
            let files: Vec<_> = gone.iter().map(|log| manifest.settled(*log).files).collect();
            let paths: Vec<&str> = files.iter().flat_map(|files| files.iter().map(|file| file.path.as_str())).collect();
            iceberg.let_go(&paths).await?;
        }
        clean::retire_deleted(&objects, manifest, floors, &gone).await
    }

    /// Removes what the last run left, if the destination is there.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn clean(&self) -> Result<()> {
        let _one = self.settling.lock().await;
        self.clean_once().await
    }

    /// Removes what the last run left, and waits a while for it. It goes on when that takes longer: a commit of the manifest is not to
    /// be broken off. A destination that is away does not keep anybody from starting; it is tried again.
    ///
    /// # Errors
    /// As [`clean`](Self::clean), but for a destination that is away.
    pub async fn clean_at_start(self: &Arc<Self>) -> Result<()> {
        let this = self.clone();
        let cleaning = tokio::spawn(async move { this.clean().await });
        match tokio::time::timeout(START_WAIT_MAX, cleaning).await {
            Err(_) => tracing::warn!("the lake's destination does not answer, the log keeps the records"),
            Ok(Ok(Err(error))) if error.kind == LakeErrorKind::Destination => {
                tracing::warn!(%error, "the lake's destination is away, the log keeps the records");
            }
            Ok(done) => done.map_err(|e| LakeError::bug(format!("cleaning up ended early: {e}")))??,
        }
        Ok(())
    }

    /// Waits until nothing is being settled, and keeps it so.
    pub async fn alone(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.settling.lock().await
    }

    fn topic(&self, table: &Table) -> Option<Arc<Topic>> {
        self.settler.broker.catalog().topic(&table.topic)
    }

    /// Puts the hold on every partition of a table, new ones too.
    pub fn hold(&self, table: &Table) {
        let Some(topic) = self.topic(table) else { return };
        for partition in topic.partitions().iter() {
            if !self.settler.floors.has_mark(partition.id()) {
                let mark = self.settler.manifest.settled(partition.id()).mark;
                let offset = mark.map_or(partition.log_start(), |mark| mark.offset);
                self.tables.while_there(table, || self.settler.floors.set_mark(partition.id(), offset));
            }
        }
    }

    /// Gives up the hold on tables that are gone, once nothing of theirs is being settled. What is settled stays.
    pub async fn let_go(&self, gone: &[Arc<Table>]) {
        let _one = self.settling.lock().await;
        for table in gone {
            let partitions = self.topic(table).map(|topic| topic.partitions());
            partitions
                .iter()
                .flat_map(|all| all.iter())
                .for_each(|partition| self.settler.floors.clear(partition.id()));
            self.states.lock().remove(&*table.topic);
        }
    }

    fn note(&self, topic: &str, error: Option<LakeError>) {
        let mut states = self.states.lock();
        let state = states.entry(topic.to_owned()).or_default();
        match error {
            None => {
                if state.error.take().is_some() {
                    tracing::info!(topic, "the lake settles again");
                }
                state.retry = None;
            }
            Some(error) => {
                let delay = state.retry.map_or(BACKOFF_FIRST, |(_, delay)| (delay * 2).min(BACKOFF_MAX));
                tracing::warn!(topic, %error, retry_in_ms = delay.as_millis() as u64, "the lake cannot settle, the log keeps the records");
                state.error = Some(error.message);
                state.retry = Some((Instant::now() + delay, delay));
            }
        }
    }
}

/// Producers and queries go first until what waits is too old: then settling takes its full share.
fn priority(age_ms: i64, flush_age_ms: i64) -> Priority {
    if age_ms > flush_age_ms.saturating_mul(LATE_AGES) { Priority::Normal } else { Priority::Low }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_settles_with_a_full_share() {
        let of = |age_ms| priority(age_ms, 60_000);
        assert_eq!(
            [of(0), of(60_000), of(120_000), of(120_001)],
            [Priority::Low, Priority::Low, Priority::Low, Priority::Normal]
        );
        assert_eq!(priority(i64::MAX - 1, i64::MAX), Priority::Low);
    }
}
