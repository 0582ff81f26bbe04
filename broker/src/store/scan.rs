//! Reads of the store at one moment, and walks over its entries.

use rocksdb::{DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};

use super::{Db, Entry, Family, Store, unreadable};
use crate::error::Result;

/// The store at one moment.
pub struct Snapshot<'a> {
    pub(super) store: &'a Store,
    pub(super) inner: SnapshotWithThreadMode<'a, Db>,
}

impl Snapshot<'_> {
    /// The value of a key.
    ///
    /// # Errors
    /// `Storage` when the database cannot read.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(handle) = self.store.handle(family) else { return Ok(None) };
        self.inner.get_cf(&handle, key).map_err(unreadable)
    }

    /// Walks the entries of `[from, to)`.
    pub fn scan(&self, family: Family, from: &[u8], to: &[u8]) -> Scan<'_> {
        let handle = self.store.handle(family);
        let iter = handle.map(|handle| {
            let mut iter = self.inner.raw_iterator_cf_opt(&handle, range_options(family, from, to));
            iter.seek(from);
            iter
        });
        Scan::new(iter)
    }
}

/// Entries in key order. Ends after the first error.
pub struct Scan<'a> {
    /// None where the bucket was given up.
    iter: Option<DBRawIteratorWithThreadMode<'a, Db>>,
    started: bool,
    failed: bool,
}

impl<'a> Scan<'a> {
    /// Begins where the iterator stands.
    pub(super) fn new(iter: Option<DBRawIteratorWithThreadMode<'a, Db>>) -> Self {
        Self { iter, started: false, failed: false }
    }
}

impl Scan<'_> {
    /// Goes to the first entry at or behind a key, within the bounds of the walk: cheaper than a walk of its own.
    pub fn seek(&mut self, key: &[u8]) {
        self.iter.iter_mut().for_each(|iter| iter.seek(key));
        (self.started, self.failed) = (false, false);
    }

    /// The next entry, lent, so that one who wants a part of it copies only that.
    pub fn next_ref(&mut self) -> Option<Result<(&[u8], &[u8])>> {
        if self.failed {
            return None;
        }
        let iter = self.iter.as_mut()?;
        if self.started {
            iter.next();
        }
        self.started = true;
        if !iter.valid() {
            self.failed = true;
            return iter.status().err().map(|e| Err(unreadable(e)));
        }
        iter.item().map(Ok)
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.next_ref()?;
        Some(entry.map(|(key, value)| (Box::from(key), Box::from(value))))
    }
}

pub(super) fn range_options(family: Family, from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    if matches!(family, Family::Log | Family::Bucket(_) | Family::Compacted) {
        // long runs are read once: the cache is for those who come back. RocksDB's own readahead grows with the run; a
        // fixed one of 2 MiB was measured to read every byte of a 1 MiB fetch three times
        options.fill_cache(false);
    }
    options
}
