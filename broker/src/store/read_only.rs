//! Opening a store to look at it: no byte of it changes, and no server can begin on it meanwhile.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rocksdb::{Cache, Options};

use super::held::Held;
use super::torn::Torn;
use super::wal::{DamagedLog, damaged_logs};
use super::{
    Buckets, Db, FORMAT_KEY, FORMAT_VERSION, Family, Store, Trash, Unmerged, buckets, database_options, descriptors,
    notes,
};
use crate::config::BrokerConfig;
use crate::error::{Error, Kind, Result};

/// Memory for blocks: what is read is read once, but for the filters.
const CACHE_BYTES: usize = 32 << 20;

/// A store that is only read. Holds: the store, and the lock that a server would take, shared with others who only read.
pub struct ReadOnly {
    /// Given back before the store, as this gives back the lock of whoever has it next in this process.
    _lock: Option<File>,
    /// The store. What would write it fails.
    pub store: Store,
    /// Why RocksDB would refuse to open it for a server, if it would; it was opened nevertheless.
    pub refused: Option<String>,
    dir: PathBuf,
    /// The number of the last change that was acknowledged, where that is known.
    acknowledged: Option<u64>,
    /// Whether it is written without syncs, so that a power cut may take the end of its log, also of what was acknowledged.
    pub is_unsynced: bool,
}

impl ReadOnly {
    /// Opens the store of the data directory `data_dir`.
    ///
    /// # Errors
    /// `Config` when there is none, a server holds it, or its format is another one; `Storage` when RocksDB cannot open it at all.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let dir = data_dir.join("store");
        if !dir.join("CURRENT").is_file() {
            return Err(Error::new(
                Kind::Config,
                format!("{} is no data directory of millpond: name one with --data-dir", data_dir.display()),
            ));
        }
        let held = Held::take(&dir)?;
        let lock = lock(&dir, data_dir, Lock::Shared)?;
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let numbers = buckets::listed(&dir).map_err(|error| unopened(&dir, &error))?;
        let families = (&numbers[..], &cache);
        let scratch = std::env::temp_dir();
        let opened = match find_hole(data_dir)? {
            Some(hole) => open_without(&hole, &dir, families, &scratch)?,
            None => open(&dir, families, &dir, true).or_else(|error| {
                let without = is_ahead(error.as_ref()).then(|| open_without_torn(&dir, families, &scratch));
                without.flatten().map(|(db, _)| db).ok_or(error)
            }),
        };
        let (db, refused) = match opened {
            Ok(db) => (db, None),
            Err(error) => {
                (open(&dir, families, &dir, false).map_err(|_| unopened(&dir, &error))?, Some(error.into_string()))
            }
        };
        let store = Store::of((db, held), cache.clone(), Buckets::new(&numbers, u64::MAX), Trash::of(data_dir));
        let (acknowledged, is_unsynced) = (notes::acknowledged(data_dir), notes::is_unsynced(data_dir));
        let opened = Self { _lock: lock, store, refused, dir, acknowledged, is_unsynced };
        check_version(&opened.store, data_dir)?;
        Ok(opened)
    }

    /// Files of the write-ahead log that are damaged where something was acknowledged: a start would pass over what lies behind.
    ///
    /// # Errors
    /// `Storage` when one cannot be read.
    pub fn damaged_logs(&self) -> Result<Vec<DamagedLog>> {
        damaged_logs(&self.dir, self.acknowledged)
    }
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// All who read.
    Shared,
    /// One who writes.
    Alone,
}

/// Takes the lock of a server: RocksDB's is one of `fcntl`, which `std` does not take. A store that was copied has no file for it, and no
/// server. Whoever opens the file again in this process lets go of it.
#[allow(unsafe_code, reason = "std has no call for it")]
pub(super) fn lock(dir: &Path, data_dir: &Path, lock: Lock) -> Result<Option<File>> {
    let path: PathBuf = dir.join("LOCK");
    let file = match File::options().read(true).write(lock == Lock::Alone).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::new(Kind::Config, format!("{} cannot be read: {error}", path.display()))),
    };
    // SAFETY: all zeros are a valid value of this struct of integers.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = match lock {
        Lock::Shared => libc::F_RDLCK as libc::c_short,
        Lock::Alone => libc::F_WRLCK as libc::c_short,
    };
    whole.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open and `whole` lives longer than the call.
    let taken = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const whole) };
    if taken == 0 {
        return Ok(Some(file));
    }
    Err(Error::new(
        Kind::Config,
        format!(
            "a server holds data directory {}: stop it first, or check a copy of it that a backup step makes",
            data_dir.display()
        ),
    ))
}

/// Numbers of buckets, and where blocks are cached.
pub(super) type Families<'a> = (&'a [u32], &'a Cache);

/// Opens a store to look at it, with the write-ahead log in `logs`.
fn open(dir: &Path, (numbers, cache): Families<'_>, logs: &Path, paranoid: bool) -> Opened {
    Db::open_cf_descriptors_read_only(
        &read_only_options(logs, paranoid),
        dir,
        descriptors(numbers, cache, &Unmerged::default()),
        false,
    )
}

fn read_only_options(logs: &Path, paranoid: bool) -> Options {
    let mut options = database_options(&BrokerConfig::default());
    options.create_if_missing(false);
    options.create_missing_column_families(false);
    options.set_paranoid_checks(paranoid);
    options.set_wal_dir(logs);
    options
}

type Opened = std::result::Result<Db, rocksdb::Error>;

/// What RocksDB says of a family that it takes for one with more than the log has.
const AHEAD_OF_LOG: &str = "beyond the point of corruption";

/// Whether this is why RocksDB refused a store.
pub(super) fn is_ahead(refused: &str) -> bool {
    refused.contains(AHEAD_OF_LOG)
}

/// Opens a store that was refused as one [`is_ahead`], to look at it, without what a power cut left behind the end of its log, and says what that
/// is. None where this is not what is the matter, or cannot be told. What it writes goes into `scratch`, and away again.
pub(super) fn open_without_torn(dir: &Path, families: Families<'_>, scratch: &Path) -> Option<(Db, Torn)> {
    try_without_torn(dir, families, scratch).unwrap_or_else(|error| {
        tracing::warn!(%error, "whether the log has all that its store needs is not known");
        None
    })
}

fn try_without_torn(dir: &Path, families: Families<'_>, scratch: &Path) -> Result<Option<(Db, Torn)>> {
    let Tables { last, .. } = tables(dir).map_err(|error| unopened(dir, &error))?;
    let Some(torn) = Torn::find(dir, last)? else { return Ok(None) };
    Ok(open_without(&torn, dir, families, scratch)?.ok().map(|db| (db, torn)))
}

/// Opens a store to look at it, without what is torn of its log.
fn open_without(torn: &Torn, dir: &Path, families: Families<'_>, scratch: &Path) -> Result<Opened> {
    let logs = tempfile::tempdir_in(scratch).map_err(|e| Error::storage(format!("{}: {e}", scratch.display())))?;
    torn.without(logs.path())?;
    Ok(open(dir, families, logs.path(), true))
}

/// Finds a hole that a power cut left in the log of a store: not one behind which something was acknowledged after a sync, which is damage. None
/// where RocksDB cannot open it at all, which opening it says.
///
/// # Errors
/// `Storage` when the log cannot be read.
pub(super) fn find_hole(data_dir: &Path) -> Result<Option<Torn>> {
    let dir = data_dir.join("store");
    let Ok(Tables { last, log }) = tables(&dir) else { return Ok(None) };
    let acknowledged = if notes::is_unsynced(data_dir) { None } else { notes::acknowledged(data_dir) };
    Torn::hole(&dir, log, last.max(acknowledged.unwrap_or(0)))
}

/// What a store knows without its log.
struct Tables {
    /// The number of the last change that a table has, or had.
    last: u64,
    /// The number of the first file of the log that RocksDB has not been done with.
    log: u64,
}

fn tables(dir: &Path) -> std::result::Result<Tables, rocksdb::Error> {
    // beside the store there is no log; nor is any family needed
    let options = read_only_options(&dir.join(".."), true);
    let db = Db::open_cf_descriptors_read_only(&options, dir, [], false)?;
    let log = db.property_int_value(rocksdb::properties::MIN_LOG_NUMBER_TO_KEEP)?.unwrap_or(0);
    Ok(Tables { last: db.latest_sequence_number(), log })
}

fn unopened(dir: &Path, error: &rocksdb::Error) -> Error {
    let text = error.to_string();
    if text.contains("Column family not found") {
        let message = format!("{} was written by an older millpond: start this one on it once", dir.display());
        return Error::new(Kind::Config, message);
    }
    Error::storage(format!("{} cannot be opened: {text}; restore a backup", dir.display()))
}

fn check_version(store: &Store, data_dir: &Path) -> Result<()> {
    let stored = store.get(Family::Meta, FORMAT_KEY)?;
    match stored.as_deref().and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes) {
        Some(FORMAT_VERSION | 1) => Ok(()),
        Some(other) => Err(Error::new(
            Kind::Config,
            format!(
                "data directory {} has format {other}, this millpond checks up to {FORMAT_VERSION}: use the one that wrote it",
                data_dir.display()
            ),
        )),
        None => Err(Error::new(
            Kind::Config,
            format!("data directory {} is not one of millpond's: name another --data-dir", data_dir.display()),
        )),
    }
}
