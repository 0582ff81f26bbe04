//! Forks: the data directory of a running server as it is at one moment, as another one, on which a second server begins while the first goes on.
//!
//! No file of the store or the lake changes once it is whole. So a fork has the same files under names of its own (hard links), which takes no time and
//! no space until one of the two goes on without them. It lies in the same file system for that: elsewhere a backup is what makes a copy. It
//! appears whole or not at all, and begins as after a crash, with new leader epochs. It is another cluster: with an id of its own it opens
//! no lake and no backups of the first one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use broker::{TimestampMs, rename_cluster};

use crate::config::Access;
use crate::data_dir::{
    Held, LAKE_DIR, STORE_DIR, blocking, lake_root, make_dirs, refuse_damaged, refuse_taken, take_place, unwritable,
};
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::objects::{Address, Objects, RETIRED_DIR};
use crate::query::Source;

/// Below the new data directory: what a fork writes until it is whole.
const FORKING_DIR: &str = "forking";
/// In there: locked by who writes it.
const LOCK_FILE: &str = "lock";

/// What a fork has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkReport {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The id of the cluster that it is.
    pub cluster_id: String,
    /// Whose moment it is, in ms since 1970.
    pub at_ms: TimestampMs,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of those that it shares with the first one: they take no space of their own.
    pub shared_bytes: u64,
}

/// What is not whole yet, removed with this. Holds: the lock of its directory.
struct Staged {
    dir: PathBuf,
    /// Whether the data directory was not there before.
    is_new: bool,
    _lock: File,
}

impl Staged {
    /// Makes the directory in `data_dir`, which is made as well, for those to read who may read `first`.
    fn begin(data_dir: &Path, first: &Path) -> Result<Self> {
        let dir = data_dir.join(FORKING_DIR);
        let failed = |e: io::Error| unwritable(&dir, &e);
        let is_new = !data_dir.exists();
        if is_new {
            make_dirs(data_dir).map_err(failed)?;
            fs::metadata(first).and_then(|first| fs::set_permissions(data_dir, first.permissions())).map_err(failed)?;
        }
        if let Err(error) = fs::create_dir(&dir) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(failed(error));
            }
            // what a server that was killed left, unless one is at it or it is not ours
            let is_empty = fs::read_dir(&dir).map_err(failed)?.next().is_none();
            let _left = if is_empty { None } else { Some(lock(&dir, |path| File::open(path))?) };
            fs::remove_dir_all(&dir).and_then(|()| fs::create_dir(&dir)).map_err(failed)?;
        }
        let lock = lock(&dir, |path| File::create(path))?;
        Ok(Self { dir, is_new, _lock: lock })
    }

    /// Files of the store and of the lake, their bytes, and the bytes of those that have another name as well.
    fn count(&self) -> Result<[u64; 3]> {
        let mut sums = [0; 3];
        for dir in [STORE_DIR, LAKE_DIR].map(|dir| self.dir.join(dir)) {
            let more = count(&dir).map_err(|e| unwritable(&dir, &e))?;
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        Ok(sums)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // what stays is removed by the next fork to there, which knows it by its lock
        for dir in [STORE_DIR, LAKE_DIR] {
            let _ = fs::remove_dir_all(self.dir.join(dir));
        }
        let _ = fs::remove_dir_all(&self.dir);
        if self.is_new {
            let _ = self.dir.parent().map(fs::remove_dir);
        }
    }
}

/// Locks the file for it in the directory of a fork that is not whole. Another server may have taken that for one that was left, and removed it,
/// before it was locked.
fn lock(dir: &Path, open: impl FnOnce(&Path) -> io::Result<File>) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let file = open(&path).map_err(|e| unwritable(&path, &e))?;
    let is_there = || Some(file.metadata().ok()?.ino() == fs::metadata(&path).ok()?.ino());
    if file.try_lock().is_ok() && is_there() == Some(true) {
        return Ok(file);
    }
    Err(refused(format!("another fork is under way in {}: name another directory, or try again", dir.display())))
}

fn refused(message: String) -> LakeError {
    LakeError::new(LakeErrorKind::Refused, message)
}

/// Makes forks, one at a time.
pub(crate) struct Forks {
    source: Arc<Source>,
    running: tokio::sync::Mutex<()>,
}

impl Forks {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self { source, running: tokio::sync::Mutex::default() }
    }

    /// Forks the server into `data_dir`, which is made and must have no store. Producers wait for the time of a flush, and the lake's commits for that of a
    /// checkpoint.
    ///
    /// # Errors
    /// `Refused` while another one is made; where a file of the store is damaged; where the directory is in use, lies in the first one, in another file system or is not named from the root; and
    /// where the lake lies outside of the data directory: it cannot be shared. `Destination` when a file cannot be written, `Broker` when the store
    /// cannot be read. No store is there then.
    pub(crate) async fn run(&self, data_dir: &Path) -> Result<ForkReport> {
        let busy = |_| refused("a fork of this server is under way: try again when it is made".to_owned());
        let _alone = self.running.try_lock().map_err(busy)?;
        let data_dir = resolved(data_dir)?;
        let root = may_be_forked(&self.source, &data_dir)?;
        let (to, first) = (data_dir.clone(), self.source.broker.config().data_dir.clone());
        let staged = blocking(move || Staged::begin(&to, &first)).await?;
        let at_ms = self.source.broker.clock().now_ms();
        let filled = self.fill(root, staged.dir.clone()).await;
        blocking(move || {
            // what is not whole is removed here, which takes as long as there are files
            let cluster_id = filled?;
            let [files, bytes, shared_bytes] = staged.count()?;
            take_place(&staged.dir, &data_dir)?;
            Ok(ForkReport { data_dir, cluster_id, at_ms, files, bytes, shared_bytes })
        })
        .await
    }

    /// Has the store and the lake, which lies at `root`, of one moment in the directory `to`, as another cluster's, whose id is given.
    async fn fill(&self, root: PathBuf, to: PathBuf) -> Result<String> {
        let (store, lake) = (to.join(STORE_DIR), to.join(LAKE_DIR));
        let broker = self.source.broker.clone();
        let copy = blocking(move || Ok(broker.store().checkpoint(&store)?));
        let ((), held) = Held::beside(&self.source, copy).await?;
        let paths: BTreeSet<String> = held.paths().map(str::to_owned).collect();
        let shared_to = lake.clone();
        let cluster_id = blocking(move || {
            paths.iter().try_for_each(|path| share(&root, path, &shared_to))?;
            let renamed = rename_cluster(&to);
            renamed.map_err(|e| LakeError::destination(format!("the copy of the store cannot be made another's: {e}")))
        })
        .await?;
        drop(held);
        // whose lake it is now
        let address = Address { url: lake.display().to_string(), access: Access::default(), work_dir: PathBuf::new() };
        Objects::open(&address, &cluster_id, (false, &tokio::runtime::Handle::current())).await?;
        Ok(cluster_id)
    }
}

/// A directory by the one name that it has, whether it is there or not.
fn resolved(data_dir: &Path) -> Result<PathBuf> {
    let unclear = || refused(format!("{} is not named from the root: name it as in /srv/fork", data_dir.display()));
    if !data_dir.is_absolute() {
        return Err(unclear());
    }
    let found = data_dir.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let (above, known) = found.ok_or_else(unclear)?;
    let rest = data_dir.strip_prefix(above).map_err(|_| unclear())?;
    if rest.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(unclear());
    }
    Ok(known.join(rest))
}

/// Where the lake lies, if a fork to `data_dir` is one that works.
fn may_be_forked(source: &Source, data_dir: &Path) -> Result<PathBuf> {
    let first = &source.broker.config().data_dir;
    if first.canonicalize().is_ok_and(|first| data_dir.starts_with(first)) {
        let message = format!("{} lies in the server's own data directory: name one beside it", data_dir.display());
        return Err(refused(message));
    }
    refuse_taken(data_dir)?;
    refuse_damaged(&source.broker)?;
    let root = lake_root(source).ok_or_else(|| {
        refused(format!(
            "the lake lies at {}, outside of the data directory, where two servers cannot share it: make a backup, restore it, and give the copy another \
             lake.url and a copy of the lake there",
            source.destination.url()
        ))
    })?;
    if [&first.join(STORE_DIR), &root].into_iter().any(|dir| device_of(dir) != device_of(data_dir)) {
        return Err(refused(format!(
            "{} lies in another file system than the server's own data directory, where the two cannot share files: name one beside that, or make a \
             backup and restore it",
            data_dir.display()
        )));
    }
    Ok(root)
}

/// The file system of a directory, or of the one that it will be made in.
fn device_of(dir: &Path) -> Option<u64> {
    dir.ancestors().find_map(|above| Some(fs::metadata(above).ok()?.dev()))
}

/// Gives a file of the lake a second name.
fn share(root: &Path, path: &str, lake: &Path) -> Result<()> {
    let to = lake.join(path);
    to.parent().map_or(Ok(()), fs::create_dir_all).map_err(|e| unwritable(&to, &e))?;
    // it moves from the first place to the second only
    let shared = match fs::hard_link(root.join(path), &to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::hard_link(root.join(RETIRED_DIR).join(path), &to),
        linked => linked,
    };
    shared
        .map_err(|e| LakeError::destination(format!("{} cannot be shared, try again: {e}", root.join(path).display())))
}

fn count(dir: &Path) -> io::Result<[u64; 3]> {
    let mut sums = [0; 3];
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.metadata()?;
        let more = if found.is_dir() {
            count(&entry.path())?
        } else {
            [1, found.len(), if found.nlink() > 1 { found.len() } else { 0 }]
        };
        sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_shared_from_where_it_is_and_counted_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let (root, lake) = (dir.path().join("root"), dir.path().join("fork/lake"));
        for path in ["t/date=1/a", "_retired/t/date=1/b"] {
            let at = root.join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, path).unwrap();
        }
        for path in ["t/date=1/a", "t/date=1/b"] {
            share(&root, path, &lake).unwrap();
        }
        fs::write(lake.join("own"), "own").unwrap();
        assert_eq!(count(&lake).unwrap(), [3, 10 + 19 + 3, 10 + 19]);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(fs::read_to_string(lake.join("t/date=1/b")).unwrap(), "_retired/t/date=1/b");
        assert_eq!(count(&lake).unwrap(), [3, 32, 0]);
        assert!(share(&root, "t/date=1/a", &lake).unwrap_err().message.contains("cannot be shared"));
    }

    #[test]
    fn a_name_is_taken_once_and_shared_files_are_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let (root, lake) = (dir.path().join("root"), dir.path().join("lake"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a"), "content").unwrap();
        share(&root, "a", &lake).unwrap();
        assert!(share(&root, "a", &lake).is_err());
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "content");
    }

    #[test]
    fn one_fork_at_a_time_goes_to_a_place_and_what_one_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("a/b");
        drop(Staged::begin(&data_dir, dir.path()).unwrap());
        assert!(!data_dir.exists() && dir.path().exists());
        let staged = Staged::begin(&data_dir, dir.path()).unwrap();
        assert!(Staged::begin(&data_dir, dir.path()).is_err_and(|error| error.message.contains("under way")));
        // as one that was killed leaves it
        fs::create_dir(staged.dir.join(STORE_DIR)).unwrap();
        std::mem::forget(staged);
        let left = File::open(data_dir.join(FORKING_DIR).join(LOCK_FILE)).unwrap();
        assert!(left.try_lock().is_err(), "forgotten, not closed");
        fs::remove_file(data_dir.join(FORKING_DIR).join(LOCK_FILE)).unwrap();
        fs::write(data_dir.join(FORKING_DIR).join(LOCK_FILE), "").unwrap();
        let staged = Staged::begin(&data_dir, dir.path()).unwrap();
        assert!(!staged.dir.join(STORE_DIR).exists());
        drop(staged);
        assert!(data_dir.exists() && !data_dir.join(FORKING_DIR).exists(), "it was there before");
        // as one that was killed at its first step leaves it
        fs::create_dir_all(data_dir.join(FORKING_DIR)).unwrap();
        drop(Staged::begin(&data_dir, dir.path()).unwrap());
        assert!(data_dir.exists() && !data_dir.join(FORKING_DIR).exists());
        // one that is not ours
        fs::create_dir_all(data_dir.join(FORKING_DIR).join("mine")).unwrap();
        assert!(Staged::begin(&data_dir, dir.path()).is_err());
        assert!(data_dir.join(FORKING_DIR).exists());
    }

    #[test]
    fn a_place_has_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir(real.join("data")).unwrap();
        std::os::unix::fs::symlink(real.join("data"), real.join("link")).unwrap();
        assert_eq!(resolved(&real.join("link/x/y")).unwrap(), real.join("data/x/y"));
        assert_eq!(resolved(&real.join("data/../data/x")).unwrap(), real.join("data/x"));
        for unclear in [PathBuf::from("x"), real.join("x/../data")] {
            assert_eq!(resolved(&unclear).unwrap_err().kind, LakeErrorKind::Refused, "{}", unclear.display());
        }
    }
}
