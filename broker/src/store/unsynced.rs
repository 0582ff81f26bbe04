//! Whether what was acknowledged may be missing from the log, because it is written without waiting for the device: a file beside the store says
//! so.
//!
//! ```text
//! <data_dir>/unsynced    empty: there from before the first write of a server with `durability = "os"` until one with `fsync` has opened the store
//! ```
//! A start with `fsync` has all of the log before it in synced tables, and syncs each group from then on before it acknowledges any of it: what was
//! acknowledged and is missing then is a loss.

use std::fs::{self, File};
use std::io;
use std::path::Path;

const FILE: &str = "unsynced";

/// Whether the log was written without syncs.
pub(super) fn is_noted(data_dir: &Path) -> bool {
    data_dir.join(FILE).exists()
}

/// Notes that it is from now on.
///
/// # Errors
/// The file system's.
pub(super) fn note(data_dir: &Path) -> io::Result<()> {
    if is_noted(data_dir) {
        return Ok(());
    }
    File::create(data_dir.join(FILE))?.sync_all()?;
    sync(data_dir)
}

/// Notes that it is not.
///
/// # Errors
/// The file system's.
pub(super) fn clear(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(data_dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync(data_dir)),
    }
}

/// Syncs the names in a directory.
///
/// # Errors
/// The file system's.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir.join("."))?.sync_all()
}
