//! What a power cut leaves behind the last write of a log, where a start takes it for damage. RocksDB syncs a file of the log that is full, cuts
//! off what that file was before, and notes that a family is written out and goes on in the next file. When the power goes now, the cutting may be taken
//! back, and nothing of the next file be there. Then RocksDB meets bytes that are no write, believes that writes are missing that the family
//! has, and opens the store no more. That none is missing shows in what is there: nothing of the file's own, and changes as far as any table has.

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
            let Written { end, last } = wal::written(&bytes, number);
            if wal::goes_on(&bytes, number, end) {
                return Ok(None);
            }
            if end < bytes.len() {
                ends.insert(file, end as u64);
            }
            if let Some(last) = last {
                let is_whole = last >= tables && !ends.is_empty();
                return Ok(is_whole.then(|| Self { dir: dir.to_owned(), ends }));
            }
        }
        Ok(None)
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
    use crate::config::BrokerConfig;
    use crate::store::wal::tests::numbered;
    use crate::store::{Family, ReadOnly, Store, Writes};

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
        bytes.truncate(wal::written(&bytes, wal::number(file).unwrap()).end);
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
