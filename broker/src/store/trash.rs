//! Files that are on their way off the disk. A disk that is told of each block that comes free (`discard`) takes a quarter of a second for
//! a GiB, and the pages that the system had of it as long again; done at once, as RocksDB does it, everybody waits for both. So files get
//! a second name here before RocksDB unlinks its own, which is done in no time then, and go one by one.
//!
//! ```text
//! <data_dir>/trash/<name in the store>    nobody reads it; what a crash left goes after the next start
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

const DIR: &str = "trash";

/// The files. Holds: nothing but their directory. Two stores never share one.
pub(crate) struct Trash {
    dir: PathBuf,
    work: Arc<Notify>,
}

impl Trash {
    pub(super) fn of(data_dir: &Path) -> Self {
        let work = Arc::new(Notify::new());
        // for what a crash left
        work.notify_one();
        Self { dir: data_dir.join(DIR), work }
    }

    /// Has a file be there still, for a while, when its name is unlinked.
    ///
    /// # Errors
    /// The file system's, as of one without second names: the file goes at once then.
    pub(super) fn keep(&self, file: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let second = self.dir.join(name);
        match fs::hard_link(file, &second) {
            // of a store that was here before and gave the same number
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&second)?;
                fs::hard_link(file, &second)?;
            }
            linked => linked?,
        }
        Ok(())
    }

    /// Has who empties it begin. Not before the first names are gone: whose second name went first is freed by RocksDB.
    pub(super) fn begin(&self) {
        self.work.notify_one();
    }

    /// Takes one file off the disk and says how many are left; none where there was none. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// The file system's, when none of them can be removed.
    pub(crate) fn remove_one(&self) -> io::Result<Option<usize>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let mut files = entries.collect::<io::Result<Vec<_>>>()?;
        let mut outcome = Ok(None);
        while let Some(file) = files.pop() {
            match fs::remove_file(file.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => outcome = Err(error),
                _ => return Ok(Some(files.len())),
            }
        }
        outcome
    }

    /// What wakes who empties it.
    pub(crate) fn work(&self) -> Arc<Notify> {
        self.work.clone()
    }
}

impl Drop for Trash {
    /// Who waits for work holds no store, and learns here that there will be none.
    fn drop(&mut self) {
        self.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_outlives_its_name_until_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let trash = Trash::of(dir.path());
        assert_eq!(trash.remove_one().unwrap(), None, "there is no directory yet");
        for name in ["1.sst", "2.sst"] {
            let file = dir.path().join(name);
            fs::write(&file, name).unwrap();
            trash.keep(&file).unwrap();
            trash.keep(&file).unwrap();
            fs::remove_file(file).unwrap();
        }
        let read = |name| fs::read_to_string(dir.path().join(DIR).join(name)).ok();
        assert_eq!((read("1.sst").as_deref(), read("2.sst").as_deref()), (Some("1.sst"), Some("2.sst")));
        assert_eq!(trash.remove_one().unwrap(), Some(1));
        assert_eq!([read("1.sst"), read("2.sst")].iter().flatten().count(), 1);
        assert_eq!([trash.remove_one().unwrap(), trash.remove_one().unwrap()], [Some(0), None]);
        assert!(trash.keep(&dir.path().join("3.sst")).is_err(), "no such file");
        // what cannot be removed keeps nothing else
        for name in ["a", "z"] {
            fs::create_dir(dir.path().join(DIR).join(name)).unwrap();
        }
        fs::write(dir.path().join(DIR).join("4.sst"), "").unwrap();
        assert!(trash.remove_one().unwrap().is_some());
        assert!(read("4.sst").is_none() && trash.remove_one().is_err());
    }
}
