//! Iceberg metadata over the files of the lake: for each table that settles, and each that SQL writes, an Iceberg table with
//! the same files. The truth is the manifest; what is here follows it, within seconds or at once when somebody asked for the
//! change, and is made again from it when it is lost. So a destination that is away delays snapshots and nothing else.
//!
//! What the current snapshot has is what the manifest had at one moment. On a local disk each file gets a second name that
//! only snapshots use (`place`), so that merges, archiving and deletion take files out of the directories at once, and snapshots
//! can be read for as long as said. Where there are no second names, the snapshots that name a file go before it does.
//!
//! `table` commits, `load` reads what is there, `snapshot` writes manifests, `change` decides, `reach` counts what can be deleted.

mod avro;
mod change;
mod columns;
mod data_file;
mod load;
mod place;
mod reach;
mod shown;
mod snapshot;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{Broker, LogId, TimestampMs};
use iceberg::spec::TableMetadata;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::place::{ICEBERG_DIR, NAMESPACE};
pub use self::shown::{IcebergStatus, IcebergTable as ShownTable};
use self::table::{IcebergTable, Rules, Wanted};
use crate::error::{LakeError, Result};
use crate::manifest::Manifest;
use crate::objects::Destination;
use crate::settle::Fault;
use crate::slice::Level;
use crate::tables::{Table, Tables};
use crate::transform::{TableFile, WrittenTable};

/// Time between two looks at what the manifest committed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time between two looks for snapshots that are old, when nothing is committed.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// Longest time between two tries at a table where one failed.
const BACKOFF_MAX: Duration = Duration::from_secs(320);
/// Moments of the manifest that are tried in one go: a file can be merged before it has its second name.
const MOMENTS_MAX: usize = 10;
/// Most partitions whose offsets a snapshot tells.
const OFFSETS_MAX: usize = 64;

/// A published file, of a topic or of a table that SQL writes. Who has one does not hold the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeFile {
    /// Where it lies below the lake's root.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// When it was published, in ms since 1970.
    pub published_ms: TimestampMs,
    /// Its slice.
    pub levels: Vec<Level>,
}

/// Whose files a table has.
enum Of {
    Topic(Arc<Table>),
    Written(Arc<WrittenTable>),
}

impl Of {
    fn name(&self) -> &str {
        match self {
            Of::Topic(table) => &table.name,
            Of::Written(table) => &table.config.name,
        }
    }

    /// Whether it is the same table with the same columns: a stream may have been dropped and declared again.
    fn is_same(&self, other: &Of) -> bool {
        match (self, other) {
            (Of::Topic(one), Of::Topic(other)) => {
                let shape = |table: &Table| (table.layout.table_schema().clone(), table.layout.file_schema().clone());
                one.name == other.name && one.topic == other.topic && one.dir == other.dir && shape(one) == shape(other)
            }
            (Of::Written(one), Of::Written(other)) => Arc::ptr_eq(one, other),
            (Of::Topic(_) | Of::Written(_), _) => false,
        }
    }
}

/// One table. `working` is held by whoever brings it in line, and holds what is known of it.
struct Slot {
    of: Of,
    working: tokio::sync::Mutex<Option<IcebergTable>>,
    state: Mutex<State>,
}

/// How a table fares.
#[derive(Default)]
struct State {
    shown: Option<(String, Arc<TableMetadata>)>,
    snapshots: usize,
    error: Option<String>,
    retry: Option<(Instant, Duration)>,
}

/// Keeps the Iceberg tables. Holds: each table as it was committed last, and which files snapshots name where they lie. Only
/// one commit per table is under way. Nothing here survives a crash: it is read again from the destination.
pub struct Iceberg {
    broker: Arc<Broker>,
    destination: Arc<Destination>,
    manifest: Arc<Manifest>,
    keep_ms: i64,
    fault: Option<Fault>,
    tables: Arc<Tables>,
    written: Vec<Arc<WrittenTable>>,
    slots: Mutex<Vec<Arc<Slot>>>,
    attempts: AtomicU64,
    /// Files that snapshots name where they lie, with the tables.
    named: Mutex<HashMap<String, String>>,
}

impl Iceberg {
    /// The Iceberg tables of these tables; snapshots can be read for `keep_ms` after
    /// others took their places.
    pub fn new(
        (broker, destination, manifest): (Arc<Broker>, Arc<Destination>, Arc<Manifest>),
        (tables, written): (Arc<Tables>, Vec<Arc<WrittenTable>>),
        keep_ms: i64,
        fault: Option<Fault>,
    ) -> Self {
        let (slots, attempts, named) = (Mutex::default(), AtomicU64::new(0), Mutex::default());
        Self { broker, destination, manifest, keep_ms, fault, tables, written, slots, attempts, named }
    }

    /// The tables that there are now; what is known of those that were there before stays.
    fn slots(&self) -> Vec<Arc<Slot>> {
        let tables = self.tables.now();
        let topics = tables.iter().filter(|table| table.settles.is_some()).cloned().map(Of::Topic);
        let wanted = topics.chain(self.written.iter().cloned().map(Of::Written));
        let mut slots = self.slots.lock();
        let slot = |of: Of| match slots.iter().find(|slot| slot.of.is_same(&of)) {
            Some(known) => known.clone(),
            None => Arc::new(Slot { of, working: tokio::sync::Mutex::default(), state: Mutex::default() }),
        };
        let now: Vec<Arc<Slot>> = wanted.map(slot).collect();
        slots.clone_from(&now);
        now
    }

    /// Works until `stop` turns true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut seen = (None, Instant::now());
        loop {
            let commits = self.manifest.commits();
            let is_failing = self.slots().iter().any(|slot| slot.state.lock().retry.is_some());
            if seen.0 != Some(commits) || is_failing || seen.1.elapsed() >= EXPIRE_EVERY {
                seen = (Some(commits), Instant::now());
                for slot in &self.slots() {
                    let waits = slot.state.lock().retry.is_some_and(|(until, _)| until > Instant::now());
                    if !waits && !*stop.borrow() {
                        // what went wrong is noted
                        let _ = self.bring_in_line(slot).await;
                    }
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Brings all tables in line with the manifest.
    ///
    /// # Errors
    /// The first one's; the others are tried nevertheless.
    pub async fn sync_all(self: &Arc<Self>) -> Result<()> {
        let mut failed = None;
        for slot in &self.slots() {
            failed = failed.or(self.bring_in_line(slot).await.err());
        }
        failed.map_or(Ok(()), Err)
    }

    /// Brings the table of this name, or of this topic, in line with the manifest. What goes wrong is noted and tried again.
    pub async fn sync(self: &Arc<Self>, name: &str) {
        let is_it = |slot: &Slot| match &slot.of {
            Of::Topic(table) => *table.topic == *name,
            Of::Written(table) => table.config.name == name,
        };
        for slot in self.slots().iter().filter(|slot| is_it(slot)) {
            // what went wrong is noted
            let _ = self.bring_in_line(slot).await;
        }
    }

    /// To be called before files leave their places: no snapshot names them there any more then.
    ///
    /// # Errors
    /// `Destination` or `Bug`; the files must stay.
    pub async fn let_go(self: &Arc<Self>, paths: &[&str]) -> Result<()> {
        let slots = self.slots();
        for path in paths.iter().copied() {
            let table = self.named.lock().get(path).cloned();
            let slot = table.and_then(|table| slots.iter().find(|slot| slot.of.name() == table));
            if let Some(slot) = slot {
                self.bring_in_line(slot).await?;
                if self.named.lock().contains_key(path) {
                    return Err(LakeError::bug(format!("{path} leaves its place and is named by a snapshot")));
                }
            }
        }
        Ok(())
    }

    /// One table, on a thread that may block: footers are decoded and manifests encoded.
    async fn bring_in_line(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<()> {
        let (this, slot) = (self.clone(), slot.clone());
        let runtime = tokio::runtime::Handle::current();
        let work = move || runtime.block_on(this.work(&slot));
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => Err(LakeError::bug(format!("an Iceberg commit ended early: {error}"))),
        }
    }

    async fn work(&self, slot: &Slot) -> Result<()> {
        let mut working = slot.working.lock().await;
        // taken out: after an error what is there is looked at anew
        let outcome = self.sync_table(slot, working.take()).await;
        let mut state = slot.state.lock();
        let State { error, retry, .. } = &mut *state;
        let table = match outcome {
            Err(failed) => {
                let delay = retry.map_or(LOOK_EVERY, |(_, delay)| (delay * 2).min(BACKOFF_MAX));
                if error.as_ref() != Some(&failed.message) {
                    tracing::warn!(table = slot.of.name(), error = %failed, "the Iceberg table is behind the lake, it is tried again");
                }
                (*error, *retry) = (Some(failed.message.clone()), Some((Instant::now() + delay, delay)));
                return Err(failed);
            }
            Ok(table) => table,
        };
        let Some(table) = table else { return Ok(()) };
        (*error, *retry) = (None, None);
        (state.shown, state.snapshots) = (table.shown(), table.snapshots());
        let mut named = self.named.lock();
        named.retain(|_, table| *table != slot.of.name());
        named.extend(table.unlinked().map(|at| (at.to_owned(), slot.of.name().to_owned())));
        *working = Some(table);
        Ok(())
    }

    /// The table, in line with the manifest; none while its columns are not known.
    async fn sync_table(&self, slot: &Slot, known: Option<IcebergTable>) -> Result<Option<IcebergTable>> {
        let objects = self.destination.get().await?;
        objects.check_present().await?;
        self.manifest.check_owner()?;
        let Some(mut wanted) = self.wanted(slot)? else { return Ok(None) };
        let mut table = match known {
            Some(table) => table,
            None => load::load(&objects, place::Place::new(&objects.iceberg_url(), slot.of.name()), &wanted).await?,
        };
        for _ in 0..MOMENTS_MAX {
            if !objects.links() {
                self.announce(slot, &wanted);
                let Some(later) = self.wanted(slot)? else { return Ok(None) };
                if later.files != wanted.files {
                    wanted = later;
                    continue;
                }
            }
            let attempt = format!("{}-{}", self.manifest.epoch(), self.attempts.fetch_add(1, Ordering::Relaxed));
            let (now_ms, fault) = (self.broker.clock().now_ms(), self.fault.clone());
            let rules = Rules { now_ms, keep_ms: self.keep_ms, attempt, fault };
            if table.sync(&objects, &wanted, &rules).await? {
                return Ok(Some(table));
            }
            let Some(later) = self.wanted(slot)? else { return Ok(None) };
            if later.files == wanted.files {
                let message =
                    format!("a file of {} that the manifest has is not in the lake: run verify", slot.of.name());
                return Err(LakeError::destination(message));
            }
            wanted = later;
        }
        Err(LakeError::destination(format!("the files of {} change all the time", slot.of.name())))
    }

    /// Whoever takes one of these files away from now on waits for the commit that is under way.
    fn announce(&self, slot: &Slot, wanted: &Wanted) {
        let paths = wanted.files.iter().map(|file| (file.path.clone(), slot.of.name().to_owned()));
        self.named.lock().extend(paths);
    }

    /// What the table is to be, by the manifest as it is now.
    fn wanted(&self, slot: &Slot) -> Result<Option<Wanted>> {
        let (layout, files, offsets) = match &slot.of {
            Of::Written(table) => match table.planned.get() {
                None => return Ok(None),
                Some(planned) => (&planned.layout, written_files(table), None),
            },
            Of::Topic(table) => {
                let (files, offsets) = self.topic_files(table)?;
                (&table.layout, files, offsets)
            }
        };
        Ok(Some(Wanted {
            columns: layout.table_schema().clone(),
            levels: layout.level_names().into_iter().map(str::to_owned).collect(),
            files,
            is_log: matches!(slot.of, Of::Topic(_)),
            offsets,
        }))
    }

    /// The files of a topic, and how far its partitions are settled, at one moment.
    fn topic_files(&self, table: &Table) -> Result<(Vec<LakeFile>, Option<String>)> {
        let partitions = self.broker.catalog().topic(&table.topic).map(|topic| topic.partitions());
        let partitions: Vec<_> = partitions.iter().flat_map(|all| all.iter().cloned()).collect();
        let logs: Vec<LogId> = partitions.iter().map(|partition| partition.id()).collect();
        let (mut files, mut offsets) = (Vec::new(), BTreeMap::new());
        for (partition, settled) in partitions.iter().zip(self.manifest.snapshot(&logs)) {
            offsets.extend(settled.mark.map(|mark| (partition.index(), mark.offset)));
            files.extend(settled.files.iter().map(|file| LakeFile {
                path: file.path.clone(),
                rows: file.rows,
                bytes: file.bytes,
                published_ms: file.published_ms,
                levels: file.levels.clone(),
            }));
        }
        let offsets = (offsets.len() <= OFFSETS_MAX).then(|| serde_json::to_string(&offsets));
        Ok((files, offsets.transpose().map_err(|e| LakeError::bug(format!("offsets: {e}")))?))
    }
}

fn written_files(table: &WrittenTable) -> Vec<LakeFile> {
    let file = |file: &Arc<TableFile>| LakeFile {
        path: file.path.clone(),
        rows: file.rows,
        bytes: file.bytes,
        published_ms: file.published_ms,
        levels: file.levels.clone(),
    };
    table.files().iter().map(file).collect()
}

/// What the crate says of something that is ours alone to get right.
fn told(what: &'static str) -> impl Fn(iceberg::Error) -> LakeError {
    move |error| LakeError::bug(format!("Iceberg, {what}: {error}"))
}
