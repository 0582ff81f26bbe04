//! The data directory as backups and forks see it: what of it they take, and how one that is whole takes its place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use broker::{Broker, LogId};

use crate::clean::deleted;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::manifest::Settled;
use crate::query::Source;
use crate::transform::TableFiles;

/// RocksDB's files.
pub(crate) const STORE_DIR: &str = "store";
/// The lake's, where the lake lies in the data directory.
pub(crate) const LAKE_DIR: &str = "lake";

/// The lake's files of one moment, which nobody deletes as long as this lives, unless their topic is deleted.
pub(crate) struct Held {
    topics: Vec<Settled>,
    tables: Vec<TableFiles>,
}

impl Held {
    /// Those of the moment of which `copy` makes a copy of the store.
    ///
    /// # Errors
    /// Those of `copy`.
    pub(crate) async fn beside<T>(source: &Source, copy: impl Future<Output = Result<T>>) -> Result<(T, Held)> {
        // a commit that the copy has may not be known yet: its files would be left out
        let _still = source.manifest.stand_still().await;
        let gone = deleted(&source.manifest, &source.broker);
        Ok((copy.await?, Held::of(source, &gone)))
    }

    /// Of all but the logs in `gone`, of topics that were deleted before the store's moment: their files are on their way out. By the manifest, as
    /// a topic that was deleted since is in the store of that moment still.
    fn of(source: &Source, gone: &[LogId]) -> Held {
        let logs: Vec<LogId> = source.manifest.logs().into_iter().filter(|log| !gone.contains(log)).collect();
        Held {
            topics: source.manifest.snapshot(&logs),
            tables: source.written.iter().map(|table| table.files()).collect(),
        }
    }

    /// Below the lake's root.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.topics
            .iter()
            .flat_map(Settled::paths)
            .chain(self.tables.iter().flat_map(|files| files.iter().map(|file| file.path.as_str())))
    }
}

/// Where the lake lies, if that is in the data directory.
pub(crate) fn lake_root(source: &Source) -> Option<PathBuf> {
    let url = source.destination.url();
    let root = PathBuf::from(url.strip_prefix("file://").unwrap_or(&url)).canonicalize().ok()?;
    let data_dir = source.broker.config().data_dir.canonicalize().ok()?;
    (root.starts_with(&data_dir) && root != data_dir).then_some(root)
}

/// Refuses to copy a store with damage, of which merges of the copy would know nothing.
pub(crate) fn refuse_damaged(broker: &Broker) -> Result<()> {
    if broker.store().damaged_files() == 0 {
        return Ok(());
    }
    let message = "a file of the store is damaged, and would be in the copy: restore a backup from before the damage";
    Err(LakeError::new(LakeErrorKind::Refused, message))
}

/// Makes directories, where no power cut takes their names.
pub(crate) fn make_dirs(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    fs::create_dir_all(dir)?;
    missing.iter().filter_map(|made| made.parent()).try_for_each(|above| File::open(above)?.sync_all())
}

/// Refuses a data directory that has a store or a lake.
pub(crate) fn refuse_taken(data_dir: &Path) -> Result<()> {
    for taken in [STORE_DIR, LAKE_DIR].map(|dir| data_dir.join(dir)) {
        if fs::read_dir(&taken).is_ok_and(|mut entries| entries.next().is_some()) {
            let message = format!("{} is not empty: name a new data directory", taken.display());
            return Err(LakeError::new(LakeErrorKind::Refused, message));
        }
    }
    Ok(())
}

/// Moves the store and the lake in `staged`, which are whole, into their data directory, where no power cut takes them. The store comes last: without
/// one there is nothing to begin on. Blocks.
pub(crate) fn take_place(staged: &Path, data_dir: &Path) -> Result<()> {
    sync_names(staged).map_err(|e| unwritable(staged, &e))?;
    // what is noted of a store that was here before would be taken for this one's
    broker::Store::forget_notes(data_dir)?;
    for dir in [LAKE_DIR, STORE_DIR] {
        let (from, to) = (staged.join(dir), data_dir.join(dir));
        if from.exists() {
            let _ = fs::remove_dir(&to);
            fs::rename(&from, &to).map_err(|e| unwritable(&to, &e))?;
        }
    }
    File::open(data_dir).and_then(|names| names.sync_all()).map_err(|e| unwritable(data_dir, &e))?;
    let _ = fs::remove_dir_all(staged);
    Ok(())
}

/// Syncs the names of all that is below a directory.
fn sync_names(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_names(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Work with files of this machine, which no thread that serves others should do.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| LakeError::bug(format!("work with files ended early: {e}")))?
}

pub(crate) fn unwritable(at: &Path, error: &io::Error) -> LakeError {
    LakeError::destination(format!(
        "{} cannot be written: {error}: check that it is yours and that the disk has room",
        at.display()
    ))
}
