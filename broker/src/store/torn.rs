//! What a power cut leaves of a log that a start must not take as it is.
//!
//! Behind the last write, where RocksDB takes it for damage. It syncs a file of the log that is full, cuts off what that file was before, and
//! notes that a family is written out and goes on in the next file. When the power goes now, the cutting may be taken back, and nothing of the
//! next file be there. Then RocksDB meets bytes that are no write, believes that writes are missing that the family has, and opens the store no
//! more. That none is missing shows in what is there: nothing of the file's own, and changes as far as any table has.
//!
//! Behind a hole, in what no sync had reached: all of it where the log was written without syncs, else the last group of commits, which is written in
//! parts. The device may have the next file and not the end of this one, and RocksDB, which takes what is missing for the end, goes on with
//! the next, or with the next block. The numbers of the changes do not meet there. What follows goes: no table has any of it, as RocksDB syncs
//! the files that are full before it writes a table of what they have.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::wal::{self, Written};
use crate::error::{Error, Result};

/// Ends of files of the log, behind which nothing is whole, in them or in a later one.
#[derive(Debug)]
pub(super) struct Torn {
    dir: PathBuf,
    /// The files, and where the last write of each ends that is whole.
    ends: BTreeMap<PathBuf, u64>,
}

impl Torn {
    /// Finds them in `dir`. None where there are none, where something of the file's own is behind one, and where the last write does not reach
    /// `tables`, the number of the last change that a table has.
    ///
    /// # Errors
    /// `Storage` when the log cannot be read.
    pub(super) fn find(dir: &Path, tables: u64) -> Result<Option<Self>> {
        let mut ends = BTreeMap::new();
        for (number, file) in wal::files(dir)?.into_iter().rev() {
            let bytes = fs::read(&file).map_err(|error| failed(&file, &error))?;
            let Written { end, last, .. } =
                wal::written(&mut &bytes[..], number).map_err(|error| failed(&file, &error))?;
            if wal::is_followed(&bytes, number, end as usize) {
                return Ok(None);
            }
            if end < bytes.len() as u64 {
                ends.insert(file, end);
            }
            if let Some(last) = last {
                let is_whole = last >= tables && !ends.is_empty();
                return Ok(is_whole.then(|| Self { dir: dir.to_owned(), ends }));
            }
        }
        Ok(None)
    }

    /// Finds the first hole among the files of the log from number `needed` on, none of which RocksDB has been done with: changes that do not follow those
    /// before them, any at all behind files without any, and what is behind the end of the last file with one. All behind is an end then, and that
    /// file has one where its last write ends. None too where `synced`, the number of the last change that a table has or that was acknowledged after a
    /// sync, is behind: what is missing was synced then, so no power cut took it.
    ///
    /// # Errors
    /// `Storage` when the log cannot be read.
    pub(super) fn hole(dir: &Path, needed: u64, synced: u64) -> Result<Option<Self>> {
        // the last file with a write, and those behind it
        let mut ends = BTreeMap::new();
        let (mut reached, mut goes_on, mut found) = (None, false, None);
        for (number, file) in wal::files(dir)?.split_off(&needed) {
            let written = File::open(&file).and_then(|mut bytes| wal::written(&mut bytes, number));
            let written = written.map_err(|error| failed(&file, &error))?;
            let is_behind_none = reached.is_none() && !ends.is_empty();
            let hole =
                written.first.filter(|first| is_behind_none || reached.is_some_and(|reached| *first > reached + 1));
            found = found.or(hole);
            match written.last {
                Some(last) if found.is_none() => {
                    (reached, goes_on) = (Some(last), written.goes_on);
                    ends = BTreeMap::from([(file, written.end)]);
                }
                _ => {
                    goes_on |= written.goes_on;
                    ends.insert(file, 0);
                }
            }
        }
        // where nothing is before the hole, what is missing ends before the first that is behind
        let is_whole = reached.or(found.map(|found| found.saturating_sub(1))).is_some_and(|reached| reached >= synced);
        Ok(((found.is_some() || goes_on) && is_whole).then(|| Self { dir: dir.to_owned(), ends }))
    }

    /// Makes the log as it is without them in an empty directory, to try it.
    ///
    /// # Errors
    /// `Storage` when it cannot be written.
    pub(super) fn without(&self, dir: &Path) -> Result<()> {
        for file in wal::files(&self.dir)?.into_values() {
            let copy = dir.join(file.file_name().unwrap_or_default());
            let copied = match self.ends.get(&file) {
                Some(end) => File::open(&file)
                    .and_then(|whole| io::copy(&mut whole.take(*end), &mut File::create(&copy)?))
                    .map(drop),
                None => fs::canonicalize(&file).and_then(|file| symlink(file, &copy)),
            };
            copied.map_err(|error| failed(&copy, &error))?;
        }
        Ok(())
    }

    /// Cuts them off.
    ///
    /// # Errors
    /// `Storage` when a file cannot be written: the next start finds what is left.
    pub(super) fn cut(&self) -> Result<()> {
        self.ends.iter().try_for_each(|(file, end)| cut(file, *end).map_err(|error| failed(file, &error)))
    }
}

fn cut(file: &Path, end: u64) -> io::Result<()> {
    let file = File::options().write(true).open(file)?;
    file.set_len(end)?;
    file.sync_all()
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::storage(format!("the end of the log cannot be looked at, check the disk: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use crate::config::{BrokerConfig, Durability};
    use crate::store::wal::tests::numbered;
    use crate::store::{Family, ReadOnly, Store, Writes, notes};

    use super::*;

    const TABLES: u64 = 2;

    #[test]
    fn ends_are_found_where_nothing_whole_is_behind_them_and_nothing_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        let find = |tables| Torn::find(dir.path(), tables).unwrap();
        let torn = |tables| -> Vec<(String, usize)> {
            let ends = find(tables).map(|torn| torn.ends).unwrap_or_default().into_iter();
            ends.map(|(file, end)| (file.file_stem().unwrap().to_str().unwrap().to_owned(), end as usize)).collect()
        };
        let none = Vec::new();
        assert_eq!(torn(0), none);
        // two writes, of the changes 1 and 2
        let whole = numbered(9, &[(1, 20), (2, 300)]);
        file("000009.log", &whole);
        file("000010.log", &[]);
        assert_eq!(torn(TABLES), none);
        let before = numbered(4, &[(1, 20), (2, 300), (3, 60), (4, 4000)]);
        file("000008.log", &numbered(8, &[(1, 20)])[..9]);
        file("000009.log", &[&whole[..], &before[whole.len()..]].concat());
        file("000010.log", &numbered(4, &[(3, 20)])[..20]);
        assert_eq!(torn(TABLES), [("000009".into(), whole.len()), ("000010".into(), 0)]);
        assert_eq!(torn(TABLES + 1), none, "a table has a change that the log has not");
        let tried = tempfile::tempdir().unwrap();
        find(TABLES).unwrap().without(tried.path()).unwrap();
        assert_eq!(fs::read(tried.path().join("000009.log")).unwrap(), whole);
        assert_eq!(fs::read(tried.path().join("000008.log")).unwrap().len(), 9);
        find(TABLES).unwrap().cut().unwrap();
        assert_eq!((torn(TABLES), fs::read(dir.path().join("000009.log")).unwrap()), (none.clone(), whole.clone()));
        // what is damaged and has something behind it
        let mut damaged = numbered(9, &[(1, 20), (2, 300), (3, 5), (4, 5)]);
        for at in [whole.len() + 4, whole.len() + 20, damaged.len() - 1] {
            damaged[at] ^= 1;
            file("000009.log", &damaged);
            assert_eq!(torn(TABLES), none, "at {at}");
            damaged[at] ^= 1;
        }
        // the last write, of which the device lost a part
        file("000009.log", &damaged[..damaged.len() - 1]);
        assert_eq!(torn(TABLES), none);
        file("000009.log", &[&whole[..], &before[whole.len()..]].concat());
        file("000010.log", &numbered(10, &[(3, 5)]));
        assert_eq!(torn(TABLES), none, "the next file goes on, to its end");
    }

    #[test]
    fn a_hole_is_where_changes_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let file = |number: u32, writes: &[u64], cut: usize| {
            let bytes = numbered(number, &writes.iter().map(|change| (*change, 40)).collect::<Vec<_>>());
            fs::write(dir.path().join(format!("{number:06}.log")), &bytes[..bytes.len() - cut]).unwrap();
            bytes.len() as u64
        };
        let hole = |needed, tables| -> Vec<(u64, u64)> {
            let ends = Torn::hole(dir.path(), needed, tables).unwrap().map(|torn| torn.ends).unwrap_or_default();
            ends.into_iter().map(|(file, end)| (wal::number(&file).unwrap(), end)).collect()
        };
        let one = file(7, &[5], 0);
        let two = file(8, &[6, 7], 0);
        for (number, writes) in [(9, &[8][..]), (11, &[9, 10]), (12, &[])] {
            file(number, writes, 0);
        }
        assert_eq!(hole(0, 4), []);
        // the last write of one in the middle is torn
        file(8, &[6, 7], 1);
        assert_eq!(hole(0, 6), [(8, one), (9, 0), (11, 0), (12, 0)]);
        assert_eq!(hole(8, 6), hole(0, 6));
        assert_eq!(hole(0, 7), [], "it was synced");
        assert_eq!(hole(9, 7), [], "no longer needed");
        Torn::hole(dir.path(), 0, 6).unwrap().unwrap().cut().unwrap();
        let length = |number: u32| fs::metadata(dir.path().join(format!("{number:06}.log"))).unwrap().len();
        assert_eq!([7, 8, 9, 11, 12].map(length), [one, one, 0, 0, 0]);
        assert_eq!(hole(0, 4), []);
        // the last one may be torn, and those behind it that have no write
        file(8, &[6, 7], 0);
        file(9, &[8], 1);
        assert_eq!(hole(0, 4), []);
        file(11, &[9], 0);
        assert_eq!(hole(0, 4), [(8, two), (9, 0), (11, 0), (12, 0)], "there is one behind a file without");
        assert_eq!(hole(9, 7), [(9, 0), (11, 0), (12, 0)], "all that is needed of the log");
        assert_eq!(hole(9, 8), hole(9, 7));
        assert_eq!(hole(9, 9), [], "the first that is behind was synced");
        // a file that is not there
        fs::remove_file(dir.path().join("000009.log")).unwrap();
        assert_eq!(hole(0, 4), [(8, two), (11, 0), (12, 0)]);
        assert_eq!(hole(11, 7), []);
        // a block in the middle of the last file
        let mut long = numbered(11, &[(8, 40_000), (9, 70_000), (10, 40)]);
        let end = numbered(11, &[(8, 40_000)]).len();
        long[end..3 * 32_768].fill(0);
        fs::write(dir.path().join("000011.log"), long).unwrap();
        assert_eq!(hole(0, 4), [(11, end as u64), (12, 0)]);
        assert_eq!(hole(0, 9), []);
    }

    /// A store of three writes to a family, of which a power cut took the second: it is in a file of the log, and the third in the next, which is
    /// given as well. The first is acknowledged, or all of them.
    fn with_hole(dir: &Path, durability: Durability, all: bool) -> (BrokerConfig, PathBuf) {
        let config = BrokerConfig { data_dir: dir.to_path_buf(), durability, ..BrokerConfig::default() };
        let store = Store::open(&config).unwrap();
        let put = |family, key: &[u8]| {
            let mut writes = Writes::new(&store);
            writes.put(family, key, b"value");
            store.write(writes).unwrap();
        };
        let last = || wal::files(&dir.join("store")).unwrap().pop_last().unwrap().1;
        put(Family::State, b"written out");
        put(Family::Groups, b"first");
        store.acknowledge();
        let file = last();
        let kept = fs::read(&file).unwrap();
        put(Family::Groups, b"second");
        store.db.flush_cf(&store.handle(Family::State).unwrap()).unwrap();
        put(Family::Groups, b"third");
        if all {
            store.acknowledge();
        }
        drop(store);
        let next = last();
        assert!(next != file && fs::metadata(&next).unwrap().len() > 0);
        fs::write(&file, &kept).unwrap();
        (config, next)
    }

    fn keys(store: &Store) -> Vec<String> {
        let keys = store.scan(Family::Groups, &[], &[0xff]).map(|entry| entry.unwrap().0);
        keys.map(|key| String::from_utf8(key.into_vec()).unwrap()).collect()
    }

    #[test]
    fn a_store_ends_before_the_hole_that_a_power_cut_left() {
        for durability in [Durability::Os, Durability::Fsync] {
            let dir = tempfile::tempdir().unwrap();
            let (config, next) = with_hole(dir.path(), durability, durability == Durability::Os);
            assert_eq!(keys(&ReadOnly::open(dir.path()).unwrap().store), ["first"], "what a server sees");
            assert!(fs::metadata(&next).unwrap().len() > 0, "who looks changes nothing");
            assert_eq!(keys(&Store::open(&config).unwrap()), ["first"]);
            assert_eq!(notes::is_unsynced(dir.path()), durability == Durability::Os);
            let config = BrokerConfig { durability: Durability::Fsync, ..config };
            assert_eq!(keys(&Store::open(&config).unwrap()), ["first"]);
            assert!(!notes::is_unsynced(dir.path()), "from now on what is acknowledged is synced");
        }
    }

    /// It is damage then, and all that is there is left as it is.
    #[test]
    fn nothing_is_cut_behind_which_something_was_acknowledged_after_a_sync() {
        let dir = tempfile::tempdir().unwrap();
        let (config, _) = with_hole(dir.path(), Durability::Fsync, true);
        assert_eq!(keys(&Store::open(&config).unwrap()), ["first", "third"]);
    }

    /// A store of two families of which one is written out of the log, and the file of the log that has what the other needs.
    fn one_family_ahead(config: &BrokerConfig) -> PathBuf {
        let store = Store::open(config).unwrap();
        let mut writes = Writes::new(&store);
        writes.put(Family::Groups, b"key", b"in the log");
        writes.put(Family::State, b"key", b"in both");
        store.write(writes).unwrap();
        let mut last = Writes::new(&store);
        last.put(Family::Groups, b"last", b"in the log alone");
        store.write(last).unwrap();
        let dir = config.data_dir.join("store");
        let (_, file) = wal::files(&dir).unwrap().pop_last().unwrap();
        store.db.flush_cf(&store.handle(Family::State).unwrap()).unwrap();
        drop(store);
        assert_ne!(wal::files(&dir).unwrap().pop_last().unwrap().1, file, "the family goes on in another file");
        file
    }

    fn behind_the_end(file: &Path, torn: &[u8]) -> Vec<u8> {
        let mut bytes = fs::read(file).unwrap();
        bytes.truncate(wal::written(&mut &bytes[..], wal::number(file).unwrap()).unwrap().end as usize);
        fs::write(file, [&bytes[..], torn].concat()).unwrap();
        bytes
    }

    #[test]
    fn a_store_opens_with_what_its_log_was_before_behind_the_end() {
        // of a record that the file's end cuts, and more than a block of whole ones
        for torn in [&numbered(1, &[(1, 40)])[..30], &numbered(1, &[(1, 20_000), (2, 20_000), (3, 20_000)])] {
            let dir = tempfile::tempdir().unwrap();
            let config = BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() };
            let file = one_family_ahead(&config);
            let whole = behind_the_end(&file, torn);
            let sees = |store: &Store| [Family::Groups, Family::State].map(|family| store.get(family, b"key").unwrap());
            let wanted = [Some(b"in the log".to_vec()), Some(b"in both".to_vec())];
            let looked_at = ReadOnly::open(dir.path()).unwrap();
            assert_eq!(
                (looked_at.refused.as_deref(), sees(&looked_at.store)),
                (None, wanted.clone()),
                "a server starts"
            );
            assert!(fs::read(&file).unwrap().len() > whole.len(), "who looks changes nothing");
            drop(looked_at);
            assert_eq!(sees(&Store::open(&config).unwrap()), wanted);
        }
    }

    #[test]
    fn a_store_whose_log_lost_a_write_stays_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() };
        let file = one_family_ahead(&config);
        let whole = behind_the_end(&file, &[]);
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        // both would pass for the end of what the other family's table has
        for bytes in [&flipped[..], &whole[..whole.len() - 1]] {
            fs::write(&file, bytes).unwrap();
            let refused = Store::open(&config).err().unwrap();
            assert!(refused.message.contains("restore a backup"), "{refused}");
            assert_eq!(fs::read(&file).unwrap(), bytes, "nothing was cut");
            assert!(ReadOnly::open(dir.path()).unwrap().refused.is_some());
        }
    }
}
