//! Buckets: the log in parts by the time of its appends, each a column family of its own. All partitions append to the newest one, the
//! active bucket, until it has its size; the lane goes on to the next between two groups. Nothing in a bucket is ever merged or
//! removed: a batch is written to the write-ahead log and once more, when a memtable is full, and leaves the disk with its bucket, when no log
//! needs anything of it (`log/buckets`). So producers never share the disk and the cores with merges, and retention is the removal of files.
//!
//! ```text
//! column family "log-" ++ number, at least 8 digits    keys and values as in `log` (log/keys.rs)
//! ```
//! Numbers ascend from 1. The buckets that a log's index names ascend along the log.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rocksdb::Options;
use tokio::sync::Notify;

use super::{Db, Family, Store, family_options};
use crate::crash_point::CrashPoint;
use crate::error::{Error, Result};

const PREFIX: &str = "log-";

/// Last keys of ranges, by their families and first keys.
pub(crate) type DeadRanges = HashMap<(Family, Vec<u8>), Vec<u8>>;

/// Which buckets there are. Holds: their numbers, and how full the active one is. The lane alone turns to the next one. Always true: all
/// batches in buckets below the active one are published.
pub(crate) struct Buckets {
    numbers: Mutex<BTreeSet<u32>>,
    active: AtomicU32,
    /// The last number that was given to one.
    given: AtomicU32,
    /// Bytes of batches in the active one, about.
    filled: AtomicU64,
    bytes_max: u64,
    /// Whether space is to be given back at once.
    shrinking: AtomicBool,
    /// Ranges of keys that were deleted, whose files can go.
    dead: Mutex<DeadRanges>,
    work: Arc<Notify>,
    /// Held by who creates one, or copies the store.
    creating: Mutex<()>,
    /// Held by who keeps them.
    pub(crate) keeping: tokio::sync::Mutex<()>,
}

impl Buckets {
    pub(super) fn new(numbers: &[u32], bytes_max: u64) -> Self {
        Self {
            numbers: Mutex::new(numbers.iter().copied().collect()),
            active: AtomicU32::new(numbers.last().copied().unwrap_or(0)),
            given: AtomicU32::new(numbers.last().copied().unwrap_or(0)),
            filled: AtomicU64::new(0),
            bytes_max,
            shrinking: AtomicBool::new(false),
            dead: Mutex::default(),
            work: Arc::default(),
            creating: Mutex::default(),
            keeping: tokio::sync::Mutex::default(),
        }
    }

    /// The bucket that batches are appended to.
    pub(crate) fn active(&self) -> Family {
        Family::Bucket(self.active_number())
    }

    /// Its number.
    pub(crate) fn active_number(&self) -> u32 {
        self.active.load(Ordering::Acquire)
    }

    /// Every bucket, oldest first.
    pub(crate) fn all(&self) -> Vec<Family> {
        self.numbers.lock().iter().copied().map(Family::Bucket).collect()
    }

    /// The oldest one's number.
    pub(crate) fn oldest(&self) -> u32 {
        self.numbers.lock().first().copied().unwrap_or(0)
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.numbers.lock().len()
    }

    /// Bytes that a bucket takes before the next one begins.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes in the active one.
    pub(crate) fn filled(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }

    pub(super) fn next_number(&self) -> u32 {
        self.given.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(super) fn newest(&self) -> u32 {
        self.numbers.lock().last().copied().unwrap_or(0)
    }

    pub(super) fn add(&self, number: u32) {
        self.numbers.lock().insert(number);
    }

    pub(super) fn remove(&self, number: u32) {
        self.numbers.lock().remove(&number);
    }

    /// Counts bytes that go into the active one.
    pub(crate) fn appended(&self, bytes: u64) {
        if self.filled.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) >= self.bytes_max {
            self.work.notify_one();
        }
    }

    /// Turns to the newest one. The lane's, between two groups.
    pub(crate) fn turn(&self) {
        let newest = self.newest();
        if newest != self.active_number() {
            self.filled.store(0, Ordering::Relaxed);
            self.active.store(newest, Ordering::Release);
        }
    }

    /// Has who keeps the buckets look whether some can go; with `at_once` space is given back as soon as more is gone than there.
    pub(crate) fn ask_to_look(&self, at_once: bool) {
        self.keep_shrinking(at_once);
        self.work.notify_one();
    }

    /// Keeps in mind that space is to be given back at once, for the next look.
    pub(crate) fn keep_shrinking(&self, at_once: bool) {
        self.shrinking.fetch_or(at_once, Ordering::AcqRel);
    }

    /// Whether it was asked to give space back at once, since the last time.
    pub(crate) fn take_shrinking(&self) -> bool {
        self.shrinking.swap(false, Ordering::AcqRel)
    }

    /// Has the files of a range go, whose first and last key these are: not by the lane, as each takes milliseconds.
    pub(crate) fn ask_to_drop(&self, family: Family, (first, last): (Vec<u8>, Vec<u8>)) {
        self.dead.lock().insert((family, first), last);
        self.work.notify_one();
    }

    /// The ranges whose files can go, since the last time.
    pub(crate) fn take_dead(&self) -> DeadRanges {
        std::mem::take(&mut self.dead.lock())
    }

    /// As long as this is held none begins.
    pub(crate) fn hold_creation(&self) -> MutexGuard<'_, ()> {
        self.creating.lock()
    }

    /// What wakes who keeps the buckets.
    pub(crate) fn work(&self) -> Arc<Notify> {
        self.work.clone()
    }
}

impl Drop for Buckets {
    /// Who waits for work holds no store, and learns here that there will be none.
    fn drop(&mut self) {
        self.work.notify_one();
    }
}

impl Store {
    /// Creates the bucket that follows the newest one; the lane appends to it from its next group on. Blocks, and holds up who reads or
    /// writes for some syncs and the writing of all families' options.
    ///
    /// # Errors
    /// `Storage` when it cannot be created: appends go on where they went, and the next try takes another number, as RocksDB may have got so far
    /// as to know this one.
    pub(crate) fn add_bucket(&self) -> Result<()> {
        self.refuse_if_poisoned()?;
        let _creating = self.buckets.hold_creation();
        let number = self.buckets.next_number();
        let family = Family::Bucket(number);
        let failed =
            |e: rocksdb::Error| Error::storage(format!("{} cannot be created, check the disk: {e}", family.name()));
        self.db.create_cf(family.name(), &family_options(family, &self.cache)).map_err(failed)?;
        self.buckets.add(number);
        CrashPoint::BucketAdded.reach();
        Ok(())
    }

    /// Takes a bucket of which nothing is needed any more out of the store; its files go into the trash. Blocks.
    ///
    /// # Errors
    /// `Storage` when that cannot be noted.
    pub(crate) fn give_up_bucket(&self, number: u32) -> Result<()> {
        self.refuse_if_poisoned()?;
        let name = Family::Bucket(number).name();
        let failed = |e: rocksdb::Error| Error::storage(format!("{name} cannot be given up, check the disk: {e}"));
        let mut files = self.db.live_files().map_err(failed)?;
        files.retain(|file| file.column_family_name == name);
        self.buckets.remove(number);
        let kept = files.iter().try_for_each(|file| {
            let path = self.db.path().join(file.name.trim_start_matches('/'));
            self.trash.keep(&path)
        });
        if let Err(error) = kept {
            tracing::warn!(%error, %name, "its files have no second names here, so they leave the disk all at once");
        }
        CrashPoint::BucketLeaving.reach();
        // held meanwhile, as the last one to let go of it unlinks its files, and `drop_cf` would do that while nobody else finds any family
        let held = self.handle(Family::Bucket(number));
        let dropped = self.db.drop_cf(&name).map_err(failed);
        drop(held);
        CrashPoint::BucketGone.reach();
        self.trash.begin();
        dropped
    }
}

/// A bucket's name.
pub(super) fn name(number: u32) -> String {
    format!("{PREFIX}{number:08}")
}

/// The buckets of the store in `dir`, ascending; none where there is no store.
pub(super) fn listed(dir: &Path) -> std::result::Result<Vec<u32>, rocksdb::Error> {
    if !dir.join("CURRENT").is_file() {
        return Ok(Vec::new());
    }
    let names = Db::list_cf(&Options::default(), dir)?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lane_turns_to_the_newest() {
        let buckets = Buckets::new(&[3, 5], 100);
        assert_eq!((buckets.active_number(), buckets.oldest(), name(5)), (5, 3, "log-00000005".to_owned()));
        buckets.appended(60);
        buckets.turn();
        assert_eq!((buckets.active_number(), buckets.filled()), (5, 60), "there is no other yet");
        buckets.add(6);
        assert_eq!((buckets.active(), buckets.newest()), (Family::Bucket(5), 6));
        buckets.turn();
        assert_eq!((buckets.active(), buckets.filled()), (Family::Bucket(6), 0));
        buckets.remove(3);
        assert_eq!(buckets.all(), [Family::Bucket(5), Family::Bucket(6)]);
    }
}
