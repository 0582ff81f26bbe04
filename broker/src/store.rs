//! The one RocksDB. Everything that Millpond remembers is here; only the commit lane writes to it. Buckets are created and given up by
//! who keeps them (log/buckets.rs).
//!
//! Families and who draws their keys and values: `meta` (catalog.rs, log/keys.rs, security/records.rs, and [`FORMAT_KEY`] here), `log`, its
//! buckets, `compacted`, `index` and `producers` (log/keys.rs), `groups` (group/records.rs), `txns` (transactions), `state` (engine), `lake` (lake).

mod buckets;
mod entries;
mod family;
mod held;
mod mend;
mod notes;
mod options;
mod read_only;
mod scan;
mod torn;
mod trash;
mod unmerged;
mod wal;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BoundColumnFamily, Cache, ColumnFamilyDescriptor, CompactOptions, DBRawIteratorWithThreadMode, DBWithThreadMode,
    MultiThreaded, WriteBatch, WriteOptions,
};

use crate::config::BrokerConfig;
use crate::crash_point::CrashPoint;
use crate::error::{Error, Kind, Result};

pub(crate) use buckets::Buckets;
pub use entries::{Entries, Packed};
pub use family::Family;
use held::Held;
use mend::{cut_hole, cut_torn};
use notes::Notes;
use options::{database_options, family_options};
pub use read_only::ReadOnly;
use read_only::is_ahead;
use scan::range_options;
pub use scan::{Scan, Snapshot};
pub(crate) use trash::Trash;
use unmerged::Unmerged;
pub use wal::DamagedLog;

/// Version of everything stored. A store of a newer one is refused; one of version 1, whose log has no buckets, is read and
/// written on as it is.
pub const FORMAT_VERSION: u32 = 2;
/// Where the version stands in `meta`: u32 BE.
pub const FORMAT_KEY: &[u8] = b"format";

/// How RocksDB names the subcode of an error by which a full disk is known.
const NO_SPACE: &str = "No space left on device";
/// What RocksDB says it failed at where it does not get its lock.
const LOCKED: &str = "While lock file";

/// A key and its value.
pub type Entry = (Box<[u8]>, Box<[u8]>);

/// The database: families come and go while others use it.
type Db = DBWithThreadMode<MultiThreaded>;

/// The open store. Holds: the database. Writes come from the commit lane alone, reads from anywhere. Always true: once a
/// write or sync failed, `poison` is set and nothing is written again. A crash keeps all that was written and, with
/// `fsync`, all that was synced even when the power goes.
pub struct Store {
    db: Db,
    cache: Cache,
    buckets: Buckets,
    trash: Trash,
    poison: OnceLock<Error>,
    notes: Notes,
    unmerged: Unmerged,
    /// How often the device was waited for.
    pub(crate) syncs: AtomicU64,
    /// Given back last.
    _held: Held,
}

impl Store {
    /// Opens or creates the store in `config.data_dir`.
    ///
    /// # Errors
    /// `Config` when the directory cannot be used, is held by another process or has a newer format.
    pub fn open(config: &BrokerConfig) -> Result<Self> {
        let dir = config.data_dir.join("store");
        std::fs::create_dir_all(&dir).map_err(|e| unusable(&dir, &e))?;
        let held = Held::take(&dir)?;
        let fresh = std::fs::read_dir(&dir).map_err(|e| unusable(&dir, &e))?.next().is_none();
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let numbers = buckets::listed(&dir).map_err(|e| unusable(&dir, &e))?;
        let numbers = if numbers.is_empty() { vec![1] } else { numbers };
        let data_dir = &config.data_dir;
        cut_hole(data_dir)?;
        let unmerged = Unmerged::read(data_dir).map_err(|e| unusable(data_dir, &e))?;
        let families = || descriptors(&numbers, &cache, &unmerged);
        let open = || Db::open_cf_descriptors(&database_options(config), &dir, families());
        let db = match open() {
            Err(error) if is_ahead(error.as_ref()) && cut_torn(data_dir, (&numbers, &cache))? => open(),
            opened => opened,
        };
        let db = db.map_err(|e| unusable(&dir, &e))?;
        // the log before this start is in tables, and the one from here on has no write yet
        let notes = Notes::open(data_dir, db.latest_sequence_number(), config.durability);
        let notes = notes.map_err(|e| unusable(data_dir, &e))?;
        let unmerged = unmerged.settle(&db).map_err(|e| unusable(data_dir, &e))?;
        CrashPoint::Opened.reach();
        let buckets = Buckets::new(&numbers, config.bucket_bytes);
        let store = Self { notes, unmerged, ..Self::of((db, held), cache, buckets, Trash::of(data_dir)) };
        store.buckets.appended(store.disk_bytes(store.buckets.active()));
        store.check_format(fresh, &dir)?;
        Ok(store)
    }

    fn of((db, held): (Db, Held), cache: Cache, buckets: Buckets, trash: Trash) -> Self {
        Self {
            db,
            cache,
            buckets,
            trash,
            poison: OnceLock::new(),
            notes: Notes::default(),
            unmerged: Unmerged::default(),
            syncs: AtomicU64::new(0),
            _held: held,
        }
    }

    fn check_format(&self, fresh: bool, dir: &Path) -> Result<()> {
        let stored = self.get(Family::Meta, FORMAT_KEY)?;
        let version = match stored.as_deref() {
            None if fresh || self.last_in(Family::Meta, &[], &[0xff])?.is_none() => return self.stamp(),
            Some(bytes) => bytes.try_into().map(u32::from_be_bytes).ok(),
            None => None,
        };
        match version {
            Some(FORMAT_VERSION) => Ok(()),
            // before the first entry that an older millpond would not understand
            Some(1) => self.stamp(),
            Some(newer) if newer > FORMAT_VERSION => Err(Error::new(
                Kind::Config,
                format!(
                    "data directory {} has format {newer}, this millpond reads up to {FORMAT_VERSION}: start the newer \
                     version that wrote it, or name another --data-dir",
                    dir.display()
                ),
            )),
            _ => Err(Error::new(
                Kind::Config,
                format!("data directory {} is not one of millpond's: name another --data-dir", dir.display()),
            )),
        }
    }

    fn stamp(&self) -> Result<()> {
        let mut writes = Writes::new(self);
        writes.put(Family::Meta, FORMAT_KEY, &FORMAT_VERSION.to_be_bytes());
        self.write(writes)?;
        self.sync()
    }

    /// The value of a key; none too where its bucket was given up.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(handle) = self.handle(family) else { return Ok(None) };
        self.db.get_cf(&handle, key).map_err(unreadable)
    }

    /// The values of many keys, in their order.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub fn get_many(&self, family: Family, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Vec<u8>>>> {
        let Some(handle) = self.handle(family) else { return Ok(keys.iter().map(|_| None).collect()) };
        let found = self.db.batched_multi_get_cf(&handle, keys, false);
        found.into_iter().map(|value| value.map(|v| v.map(|v| v.to_vec())).map_err(unreadable)).collect()
    }

    /// Walks the entries of `[from, to)` as they are now.
    pub fn scan(&self, family: Family, from: &[u8], to: &[u8]) -> Scan<'_> {
        let mut iter = self.iterator(family, from, to);
        iter.iter_mut().for_each(|iter| iter.seek(from));
        Scan::new(iter)
    }

    fn iterator(&self, family: Family, from: &[u8], to: &[u8]) -> Option<DBRawIteratorWithThreadMode<'_, Db>> {
        let handle = self.handle(family)?;
        Some(self.db.raw_iterator_cf_opt(&handle, range_options(family, from, to)))
    }

    /// Walks `[at most `at`, to)`: begins at the last entry of `[from, to)` whose key is not above `at`, or at the
    /// first one when all are above it.
    pub fn scan_from_floor(&self, family: Family, from: &[u8], at: &[u8], to: &[u8]) -> Scan<'_> {
        let mut iter = self.iterator(family, from, to);
        if let Some(iter) = &mut iter {
            iter.seek_for_prev(at);
            if !iter.valid() {
                iter.seek(from);
            }
        }
        Scan::new(iter)
    }

    /// The last entry of `[from, to)`.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub fn last_in(&self, family: Family, from: &[u8], to: &[u8]) -> Result<Option<Entry>> {
        let Some(mut iter) = self.iterator(family, from, to) else { return Ok(None) };
        iter.seek_to_last();
        let entry = iter.item().map(|(key, value)| (Box::from(key), Box::from(value)));
        iter.status().map_err(unreadable)?;
        Ok(entry)
    }

    /// The last `count` entries of `[from, to)`, from the back.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub fn last_many(&self, family: Family, from: &[u8], to: &[u8], count: usize) -> Result<Vec<Entry>> {
        let Some(mut iter) = self.iterator(family, from, to) else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        iter.seek_to_last();
        while let Some((key, value)) = iter.item().filter(|_| entries.len() < count) {
            entries.push((Box::from(key), Box::from(value)));
            iter.prev();
        }
        iter.status().map_err(unreadable)?;
        Ok(entries)
    }

    /// The store as it is now, for reads that must agree with one another.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { store: self, inner: self.db.snapshot() }
    }

    /// Makes a copy of the store as it is now in the directory `to`, which must not be there: files are linked where the
    /// disk is the same. Producers are held up for the time of a flush.
    ///
    /// # Errors
    /// `Storage` when the copy cannot be made; the store itself is as before.
    pub fn checkpoint(&self, to: &Path) -> Result<()> {
        let failed = |e: rocksdb::Error| {
            Error::storage(format!("{} cannot be made, check that the disk has room: {e}", to.display()))
        };
        // what RocksDB copies of the write-ahead log may be newer than its list of families: one that begins meanwhile would be missing
        let _creating = self.buckets.hold_creation();
        Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(to)).map_err(failed)
    }

    /// Bytes that a family takes on disk, without what is still in memory.
    pub fn disk_bytes(&self, family: Family) -> u64 {
        let Some(handle) = self.handle(family) else { return 0 };
        let live = self.db.property_int_value_cf(&handle, rocksdb::properties::TOTAL_SST_FILES_SIZE);
        live.ok().flatten().unwrap_or(0)
    }

    /// Forgets what is noted beside the store of a data directory, as of one that was there before.
    ///
    /// # Errors
    /// `Storage` when a note cannot be removed for good.
    pub fn forget_notes(data_dir: &Path) -> Result<()> {
        notes::forget(data_dir).map_err(|e| Error::storage(e.to_string()))
    }

    /// Every family that is there now.
    pub fn families(&self) -> Vec<Family> {
        Family::ALL.into_iter().chain(self.buckets.all()).collect()
    }

    /// The buckets of the log.
    pub(crate) fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// What is on its way off the disk.
    pub(crate) fn trash(&self) -> &Trash {
        &self.trash
    }

    /// Number of the last change that was written.
    pub fn position(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    /// Notes that all that was written is as durable as it will be, and is acknowledged now. The lane's.
    pub(crate) fn acknowledge(&self) {
        self.notes.acknowledge(self.position());
    }

    /// How many damaged files merges have met: their families are not merged until these are gone.
    pub fn damaged_files(&self) -> usize {
        self.unmerged.count()
    }

    /// How many runs the family of the most has, of those that are not merged.
    pub fn unmerged_runs(&self) -> u64 {
        self.unmerged.runs(&self.db)
    }

    /// Whether the files of a family are merged.
    pub(crate) fn merges(&self, family: Family) -> bool {
        !self.unmerged.has(family)
    }

    /// Whether a family takes in more.
    ///
    /// # Errors
    /// `DiskFull` where that would become too many runs that nothing merges.
    pub(crate) fn check_runs(&self, family: Family) -> Result<()> {
        if !self.unmerged.is_full(&self.db, family) {
            return Ok(());
        }
        let message = "a damaged file keeps the broker from merging what it stores of compacted topics: restore a backup from before the damage";
        Err(Error::new(Kind::DiskFull, message))
    }

    /// The failure after which nothing is written any more, if there was one.
    pub fn poisoned(&self) -> Option<&Error> {
        self.poison.get()
    }

    /// Writes all of `writes` or nothing. Survives the end of the process, not yet of the machine.
    pub(crate) fn write(&self, writes: Writes<'_>) -> Result<()> {
        self.refuse_if_poisoned()?;
        let options = WriteOptions::default();
        self.db.write_opt(writes.batch, &options).map_err(|e| self.poison(&e))
    }

    /// Writes all of `writes` or nothing; gives them back where the disk has no space for them, and can be asked again. Copies them
    /// for that.
    pub(crate) fn write_or_return<'a>(&'a self, writes: Writes<'_>) -> Result<Option<Writes<'a>>> {
        self.refuse_if_poisoned()?;
        let kept = WriteBatch::from_data(writes.batch.data());
        match self.db.write_opt(writes.batch, &WriteOptions::default()) {
            Ok(()) => Ok(None),
            Err(error) if error.as_ref().contains(NO_SPACE) => Ok(Some(Writes { store: self, batch: kept })),
            Err(error) => Err(self.poison(&error)),
        }
    }

    /// Waits until all that was written is on the device.
    pub(crate) fn sync(&self) -> Result<()> {
        self.refuse_if_poisoned()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.db.flush_wal(true).map_err(|e| self.poison(&e))
    }

    /// Gives back the space of files that lie wholly in `[from, last]`, whose entries were deleted before. Both ends count:
    /// RocksDB takes a file away whose last key is `last`.
    pub(crate) fn drop_files(&self, family: Family, from: &[u8], last: &[u8]) -> Result<()> {
        let Some(handle) = self.handle(family) else { return Ok(()) };
        self.db.delete_file_in_range_cf(&handle, from, last).map_err(unreadable)
    }

    /// Merges the files of `[from, to)` down, so that what was replaced or removed there leaves the disk. Blocks, for as long
    /// as reading and writing the range takes; writes and the store's own merges go on meanwhile.
    pub(crate) fn reclaim(&self, family: Family, from: &[u8], to: &[u8]) {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        // one that meets damage stops the store
        if let Some(handle) = self.handle(family).filter(|_| !self.unmerged.has(family)) {
            self.db.compact_range_cf_opt(&handle, Some(from), Some(to), &options);
        }
    }

    fn refuse_if_poisoned(&self) -> Result<()> {
        match self.poison.get() {
            Some(first) => Err(first.clone()),
            None => Ok(()),
        }
    }

    fn poison(&self, error: &rocksdb::Error) -> Error {
        let message = format!("the store failed and the broker stops, check disk and logs, then start again: {error}");
        let first = || {
            self.unmerged.note(&self.db, error.as_ref());
            Error::storage(message)
        };
        self.poison.get_or_init(first).clone()
    }

    /// None for a bucket that was given up.
    fn handle(&self, family: Family) -> Option<Arc<BoundColumnFamily<'_>>> {
        self.db.cf_handle(&family.name())
    }

    fn writable(&self, family: Family) -> Arc<BoundColumnFamily<'_>> {
        self.handle(family).expect("open created every family, and nobody writes to a bucket that was given up")
    }
}

/// Changes that are written together.
pub(crate) struct Writes<'a> {
    store: &'a Store,
    batch: WriteBatch,
}

impl<'a> Writes<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store, batch: WriteBatch::default() }
    }

    /// With room for so many bytes, so that they are not moved while they become more.
    pub(crate) fn with_room(store: &'a Store, bytes: usize) -> Self {
        Self { store, batch: WriteBatch::with_capacity_bytes(bytes) }
    }

    pub(crate) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.batch.put_cf(&self.store.writable(family), key, value);
    }

    pub(crate) fn delete(&mut self, family: Family, key: &[u8]) {
        self.batch.delete_cf(&self.store.writable(family), key);
    }

    pub(crate) fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8]) {
        self.batch.delete_range_cf(&self.store.writable(family), from, to);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

/// All families to open: those that are always there, and these buckets.
fn descriptors(numbers: &[u32], cache: &Cache, unmerged: &Unmerged) -> Vec<ColumnFamilyDescriptor> {
    let families = Family::ALL.into_iter().chain(numbers.iter().copied().map(Family::Bucket));
    let descriptor = |family: Family| {
        let mut options = family_options(family, cache);
        if unmerged.has(family) {
            options.set_disable_auto_compactions(true);
        }
        ColumnFamilyDescriptor::new(family.name(), options)
    };
    families.map(descriptor).collect()
}

fn unusable(dir: &Path, error: &dyn std::fmt::Display) -> Error {
    let text = error.to_string();
    let next = if text.contains("Corruption") {
        "it is damaged: restore a backup, and check the disk"
    } else if text.contains(LOCKED) {
        "another process uses it: stop that one or name another --data-dir"
    } else if text.contains(NO_SPACE) {
        "make room on its disk, then start again"
    } else {
        "check that it and its files exist and are yours to read and to write, or name another --data-dir"
    };
    Error::new(Kind::Config, format!("data directory {} cannot be opened ({text}); {next}", dir.display()))
}

#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
fn unreadable(error: rocksdb::Error) -> Error {
    Error::storage(format!("the store cannot be read, check the disk: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_opened_comes_with_what_to_do() {
        for (text, next) in [
            (
                "Corruption: block checksum mismatch: stored = 1, computed = 2 in /d/store/000042.sst",
                "restore a backup",
            ),
            ("IO error: While lock file: /d/store/LOCK: Resource temporarily unavailable", "another process uses it"),
            ("IO error: No space left on device: While appending to file: /blocks/000042.log", "make room on its disk"),
            ("IO error: While open a file for random read: /blocks/000042.sst: Permission denied", "yours to read"),
        ] {
            let error = unusable(Path::new("/d"), &text).message;
            assert!(error.contains(next) && error.contains(text), "{error}");
        }
    }
}
