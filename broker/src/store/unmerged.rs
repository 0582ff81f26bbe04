//! Files of batches that merges cannot read. RocksDB takes no write after a merge that met damage, and each start would begin with the same merge
//! again. So a start knows what the ones before it met: the first time the merge is tried again, as the next look may be right; from the
//! second time on the files of that family are left as they are. Then all but the damaged blocks is served, and writes go on; what is replaced or
//! removed keeps its space. At [`RUNS_MAX`] runs nothing of clients goes into that family any more.
//!
//! ```text
//! <data_dir>/unmerged    a line for each such file: its family, its name, and how often a merge met damage in it, each behind a space.
//!                        Written anew when the store fails, and at the start that finds a file of it gone
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::properties;

use super::options::slowdown_runs;
use super::{Db, Family};

const UNMERGED: &str = "unmerged";
/// Written until it is whole.
const UNMERGED_NEW: &str = "unmerged.new";
/// The families of batches; all else is small, and what reads it needs all of it.
const FAMILIES: [Family; 2] = [Family::Log, Family::Compacted];
/// How the names of RocksDB's files of data end.
const TABLE: &str = ".sst";
/// A file in which so many merges met damage is not merged again.
const MET_MAX: u32 = 2;
/// Runs in a family that is not merged from which on it takes in no more: each read asks them all, and each is an open file.
pub(super) const RUNS_MAX: u64 = if cfg!(test) { 8 } else { 400 };
/// What a family is told that has more runs than merges ever let it have: no writer of the whole store waits until they are merged, which may take
/// minutes. The next start goes by the rules again.
const NO_WAITING: [(&str, &str); 4] = [
    ("level0_slowdown_writes_trigger", "1000000"),
    ("level0_stop_writes_trigger", "1000000"),
    ("soft_pending_compaction_bytes_limit", "0"),
    ("hard_pending_compaction_bytes_limit", "0"),
];
/// How RocksDB calls a file that does not have what was written, or that the disk does not give back. Others come of what the system lacks.
const DAMAGE: [&str; 2] = ["Corruption", "Input/output error"];

/// A file in which a merge met damage.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DamagedFile {
    family: Family,
    /// Its name within the store's directory.
    name: String,
    /// How many merges met it.
    met: u32,
}

/// The files in which merges met damage. Holds: what the note has.
#[derive(Debug, Default)]
pub(super) struct Unmerged {
    data_dir: PathBuf,
    files: Vec<DamagedFile>,
    /// Of each family, whether it was said that it has too many runs.
    told: [AtomicBool; FAMILIES.len()],
}

impl Unmerged {
    /// What is noted; nothing where there is no note.
    ///
    /// # Errors
    /// The file system's. A line that is none of ours is passed over: the next merge finds again what it told.
    pub(super) fn read(data_dir: &Path) -> io::Result<Self> {
        let text = match fs::read(data_dir.join(UNMERGED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        let files = String::from_utf8_lossy(&text).lines().filter_map(parse).collect();
        Ok(Self { data_dir: data_dir.to_path_buf(), files, ..Self::default() })
    }

    /// Whether the files of a family are left as they are.
    pub(super) fn has(&self, family: Family) -> bool {
        self.damaged().any(|file| file.family == family)
    }

    /// Files that are not merged again.
    fn damaged(&self) -> impl Iterator<Item = &DamagedFile> {
        self.files.iter().filter(|file| file.met >= MET_MAX)
    }

    /// How many these are.
    pub(super) fn count(&self) -> usize {
        self.damaged().count()
    }

    /// How many runs the family of the most has, of those that are not merged.
    pub(super) fn runs(&self, db: &Db) -> u64 {
        let unmerged = FAMILIES.into_iter().filter(|family| self.has(*family));
        unmerged.map(|family| runs(db, family)).max().unwrap_or(0)
    }

    /// Whether a family is not merged and has so many runs that it takes in no more. Says so once.
    pub(super) fn is_full(&self, db: &Db, family: Family) -> bool {
        let is_full = self.has(family) && runs(db, family) >= RUNS_MAX;
        if is_full && self.begin_to_tell(family) {
            tracing::error!(
                family = %family.name(),
                runs = RUNS_MAX,
                "a damaged file keeps this part of the store from being merged, and it takes in no more: restore a backup from before the damage"
            );
        }
        is_full
    }

    /// Whether this is the first time that a family is full.
    fn begin_to_tell(&self, family: Family) -> bool {
        let told = FAMILIES.iter().zip(&self.told).find(|(one, _)| **one == family);
        told.is_some_and(|(_, told)| !told.swap(true, Ordering::Relaxed))
    }

    /// A start has opened the store without merges of these families. Forgets the files that are gone, and merges their families again; tells of
    /// the others.
    ///
    /// # Errors
    /// RocksDB's, as text.
    pub(super) fn settle(mut self, db: &Db) -> Result<Self, String> {
        for family in FAMILIES.into_iter().filter(|family| runs(db, *family) >= slowdown_runs(*family)) {
            set(db, family, &NO_WAITING)?;
        }
        if self.files.is_empty() {
            return Ok(self);
        }
        let live = db.live_files().map_err(rocksdb::Error::into_string)?;
        let before = FAMILIES.map(|family| self.has(family));
        let all = self.files.len();
        self.files.retain(|file| live.iter().any(|live| name_of(&live.name) == file.name));
        if self.files.len() < all {
            // a line that stays is passed over by the next start as well
            let _ = self.write().inspect_err(|error| tracing::warn!(%error, "{UNMERGED} could not be written anew"));
        }
        for (family, _) in FAMILIES.into_iter().zip(before).filter(|(family, before)| *before && !self.has(*family)) {
            set(db, family, &[("disable_auto_compactions", "false")])?;
            tracing::info!(family = %family.name(), "no damaged file is left in this part of the store, it is merged again");
        }
        for file in self.damaged() {
            tracing::error!(
                family = %file.family.name(),
                file = file.name,
                "this file is damaged. All else is served, but this part of the store is not merged: what is replaced or removed in it keeps its space, \
                 and in the end it takes in no more. Restore a backup from before the damage; `millpond check` on the stopped server's directory \
                 names what is lost"
            );
        }
        Ok(self)
    }

    /// The store fails for `why`: if that is damage that a merge met, the next start is told.
    pub(super) fn note(&self, db: &Db, why: &str) {
        let Some(name) = damaged_file(why) else { return };
        let live = db.live_files().unwrap_or_default();
        let Some(found) = live.into_iter().find(|live| name_of(&live.name) == name) else { return };
        let Some(family) = family_of(&found.column_family_name) else { return };
        let mut files = self.files.clone();
        let at = files.iter().position(|file| file.name == name).unwrap_or(files.len());
        if at == files.len() {
            files.push(DamagedFile { family, name: name.to_owned(), met: 0 });
        }
        let met = files[at].met.saturating_add(1);
        files[at].met = met;
        match (Self { data_dir: self.data_dir.clone(), files, ..Self::default() }).write() {
            Ok(()) if met < MET_MAX => {
                tracing::error!(file = name, "a merge met damage in this file: the next start tries again");
            }
            Ok(()) => tracing::error!(
                file = name,
                "a merge met damage in this file again: from the next start on it is left as it is, and the rest is served"
            ),
            Err(error) => {
                tracing::error!(file = name, %error, "a merge met damage in this file, which cannot be noted: the next one will meet it again");
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        let (new, path) = (self.data_dir.join(UNMERGED_NEW), self.data_dir.join(UNMERGED));
        let mut file = File::create(&new)?;
        for DamagedFile { family, name, met } in &self.files {
            writeln!(file, "{} {name} {met}", family.name())?;
        }
        file.sync_all()?;
        fs::rename(new, path)?;
        File::open(&self.data_dir)?.sync_all()
    }
}

/// The names of its files in the data directory, which go with the store.
pub(super) const NAMES: [&str; 2] = [UNMERGED, UNMERGED_NEW];

fn runs(db: &Db, family: Family) -> u64 {
    let runs = || {
        let handle = db.cf_handle(&family.name())?;
        db.property_value_cf(&handle, properties::num_files_at_level(0)).ok()??.parse().ok()
    };
    runs().unwrap_or(0)
}

fn set(db: &Db, family: Family, options: &[(&str, &str)]) -> Result<(), String> {
    let Some(handle) = db.cf_handle(&family.name()) else { return Ok(()) };
    db.set_options_cf(&handle, options).map_err(rocksdb::Error::into_string)
}

fn parse(line: &str) -> Option<DamagedFile> {
    let mut words = line.split(' ');
    let (family, name, met) = (family_of(words.next()?)?, words.next()?, words.next()?.parse().ok()?);
    Some(DamagedFile { family, name: name.to_owned(), met })
}

fn family_of(name: &str) -> Option<Family> {
    FAMILIES.into_iter().find(|family| family.name() == name)
}

/// The file of data that an error of RocksDB's names: as damaged, or as one that the disk does not give back.
fn damaged_file(why: &str) -> Option<&str> {
    let end = why.rfind(TABLE).filter(|_| DAMAGE.iter().any(|damage| why.contains(damage)))? + TABLE.len();
    Some(name_of(&why[..end]))
}

/// RocksDB names files with a `/` before, or with their directory.
fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::config::BrokerConfig;
    use crate::store::{Store, Writes};

    const KEYS: u8 = 20;
    const DAMAGED: u8 = 4;

    fn value(key: u8) -> Vec<u8> {
        [&[b'#', key], &[key; 40_000][..]].concat()
    }

    fn put(store: &Store, family: Family, key: u8) -> crate::error::Result<()> {
        let mut writes = Writes::new(store);
        writes.put(family, &[key], &value(key));
        store.write(writes)
    }

    fn merge(store: &Store) {
        store.reclaim(Family::Log, &[0], &[0xff]);
    }

    /// Makes the mark of a value another one, or what it was; in the one file that has it.
    fn write_mark(dir: &Path, key: u8, mark: u8) {
        let files = fs::read_dir(dir.join("store")).unwrap().map(|entry| entry.unwrap().path());
        let (rest, mut found) = (&value(key)[1..], 0);
        for path in files.filter(|path| path.extension().is_some_and(|end| end == "sst")) {
            if let Some(at) = fs::read(&path).unwrap().windows(rest.len()).position(|bytes| bytes == rest) {
                File::options().write(true).open(&path).unwrap().write_all_at(&[mark], at as u64 - 1).unwrap();
                found += 1;
            }
        }
        assert_eq!(found, 1);
    }

    /// A start whose merge fails.
    fn fails(config: &BrokerConfig) {
        let store = Store::open(config).unwrap();
        assert_eq!(store.damaged_files(), 0);
        put(&store, Family::Log, KEYS).unwrap();
        merge(&store);
        let failed = put(&store, Family::Groups, 0).unwrap_err();
        assert!(failed.message.contains("Corruption"), "{failed}");
    }

    fn damaged(dir: &Path) -> BrokerConfig {
        let config = BrokerConfig { data_dir: dir.to_path_buf(), ..BrokerConfig::default() };
        let store = Store::open(&config).unwrap();
        (0..KEYS).for_each(|key| put(&store, Family::Log, key).unwrap());
        merge(&store);
        drop(store);
        write_mark(dir, DAMAGED, b'!');
        config
    }

    /// A store whose family is not merged from its next start on.
    fn unmerged(dir: &Path) -> BrokerConfig {
        let config = damaged(dir);
        fails(&config);
        fails(&config);
        config
    }

    #[test]
    fn a_merge_that_meets_damage_again_is_not_made_and_all_else_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let config = unmerged(dir.path());
        for start in 1..4 {
            let store = Store::open(&config).unwrap();
            assert_eq!(store.damaged_files(), 1, "start {start}");
            assert!(store.unmerged_runs() > 0, "as the writes of the starts before are");
            put(&store, Family::Log, KEYS + start).unwrap();
            merge(&store);
            put(&store, Family::Groups, start).unwrap();
            for key in (0..=KEYS + start).filter(|key| *key != DAMAGED) {
                let found = store.get(Family::Log, &[key]).ok().flatten();
                // its neighbours in a block are lost with it
                assert!(found == Some(value(key)) || key.abs_diff(DAMAGED) < 3, "start {start}, {key}");
            }
            assert!(store.get(Family::Log, &[DAMAGED]).unwrap_err().message.contains("Corruption"));
        }
        // as when all of its records are removed
        let store = Store::open(&config).unwrap();
        store.drop_files(Family::Log, &[0], &[KEYS]).unwrap();
        drop(store);
        let store = Store::open(&config).unwrap();
        assert_eq!((store.damaged_files(), store.unmerged_runs()), (0, 0));
        assert_eq!(fs::read_to_string(dir.path().join(UNMERGED)).unwrap(), "");
        merge(&store);
        put(&store, Family::Groups, 0).unwrap();
        assert_eq!(store.get(Family::Log, &[KEYS + 1]).unwrap(), Some(value(KEYS + 1)));
    }

    #[test]
    fn no_more_records_are_taken_in_than_can_be_read_without_merges() {
        let dir = tempfile::tempdir().unwrap();
        let config = unmerged(dir.path());
        let store = Store::open(&config).unwrap();
        let mut runs = 0;
        while store.check_runs(Family::Log).is_ok() {
            put(&store, Family::Log, KEYS).unwrap();
            store.db.flush_cf(&store.handle(Family::Log).unwrap()).unwrap();
            runs += 1;
            assert!(runs <= RUNS_MAX, "there are {}", store.unmerged_runs());
        }
        assert!(runs > 1 && store.unmerged_runs() >= RUNS_MAX, "{runs}");
        assert_eq!(store.check_runs(Family::Log).unwrap_err().kind, crate::error::Kind::DiskFull);
        assert!(store.check_runs(Family::Compacted).is_ok(), "the others are merged");
        assert_eq!(store.get(Family::Log, &[KEYS]).unwrap(), Some(value(KEYS)));
    }

    /// More runs than there ever are with merges: no write waits for what the start has to merge.
    #[test]
    fn a_start_that_merges_again_lets_writes_through() {
        let dir = tempfile::tempdir().unwrap();
        let config = unmerged(dir.path());
        let store = Store::open(&config).unwrap();
        // as many as stop every writer by the rules
        for _ in 0..slowdown_runs(Family::Log) * 2 {
            put(&store, Family::Log, KEYS).unwrap();
            store.db.flush_cf(&store.handle(Family::Log).unwrap()).unwrap();
        }
        drop(store);
        fs::remove_file(dir.path().join(UNMERGED)).unwrap();
        write_mark(dir.path(), DAMAGED, b'#');
        for _ in 0..2 {
            let started = std::time::Instant::now();
            let store = Store::open(&config).unwrap();
            put(&store, Family::Groups, 0).unwrap();
            assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
        }
    }

    #[test]
    fn what_was_read_wrong_once_is_merged_by_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let config = damaged(dir.path());
        fails(&config);
        write_mark(dir.path(), DAMAGED, b'#');
        let store = Store::open(&config).unwrap();
        merge(&store);
        put(&store, Family::Groups, 0).unwrap();
        drop(store);
        assert_eq!(Store::open(&config).unwrap().damaged_files(), 0);
        assert_eq!(fs::read_to_string(dir.path().join(UNMERGED)).unwrap(), "", "the merge took the file away");
    }

    #[test]
    fn the_note_is_as_drawn_and_is_forgotten_with_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let file = |family, met| DamagedFile { family, name: "000042.sst".into(), met };
        let files = vec![file(Family::Log, 1), file(Family::Compacted, 2)];
        let noted = Unmerged { data_dir: dir.path().to_path_buf(), files, ..Unmerged::default() };
        noted.write().unwrap();
        let path = dir.path().join(UNMERGED);
        assert_eq!(fs::read_to_string(&path).unwrap(), "log 000042.sst 1\ncompacted 000042.sst 2\n");
        let read = Unmerged::read(dir.path()).unwrap();
        assert_eq!(read.files, noted.files);
        assert_eq!((read.count(), FAMILIES.map(|family| read.has(family))), (1, [false, true]));
        fs::write(&path, b"groups 000042.sst 2\nlog\nlog 000042.sst x\n\xff\n").unwrap();
        assert_eq!(Unmerged::read(dir.path()).unwrap().files, []);
        Store::forget_notes(dir.path()).unwrap();
        assert_eq!(Unmerged::read(dir.path()).unwrap().files, []);
        fs::create_dir(&path).unwrap();
        assert!(Unmerged::read(dir.path()).is_err(), "what is noted is not passed over");
    }

    #[test]
    fn each_family_that_is_full_is_told_of_once() {
        let unmerged = Unmerged::default();
        let told = [Family::Log, Family::Compacted, Family::Log, Family::Compacted, Family::Groups];
        assert_eq!(told.map(|family| unmerged.begin_to_tell(family)), [true, true, false, false, false]);
    }

    #[test]
    fn the_damaged_file_is_the_one_that_the_error_names() {
        let why = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in /a.sst/store/000042.sst offset 0 size 3";
        assert_eq!(damaged_file(why), Some("000042.sst"));
        let why = "IO error: While pread offset 0 len 3: /store/000042.sst: Input/output error";
        assert_eq!(damaged_file(why), Some("000042.sst"));
        assert_eq!(damaged_file("Corruption: keys out of order"), None);
        for lack in ["No space left on device", "Too many open files", "Cannot allocate memory"] {
            assert_eq!(damaged_file(&format!("IO error: While open a file: /store/000042.sst: {lack}")), None);
        }
    }
}
