//! What is noted beside the store: how far it had come when something was last acknowledged, and whether some of that may be missing from the log
//! because it is written without waiting for the device.
//!
//! ```text
//! <data_dir>/acknowledged    rewritten in place, after each group of commits:
//!                             0  8 number of the store's last change, big endian        8  4 CRC-32C of these eight, big endian
//! <data_dir>/unsynced        empty: there from before the first write of a server with `durability = "os"` until one with `fsync` has opened the store
//! ```
//! RocksDB ends its recovery at the first record of its log that cannot be read, as it must after a power cut, and says nothing of what
//! came behind. A start that finds the store behind the note has lost what was acknowledged, and says so. `acknowledged` itself is synced at a start
//! only: after a power cut it may be an old one, which says less. A start with `fsync` has all of the log before it in synced tables, and syncs each
//! group from then on before it acknowledges any of it: what was acknowledged and is missing then is a loss.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::unmerged;
use crate::config::Durability;

const ACKNOWLEDGED: &str = "acknowledged";
const ACKNOWLEDGED_BYTES: usize = 12;
const UNSYNCED: &str = "unsynced";

/// The notes of an open store. Holds: the file of `acknowledged`, but for a store that is only read. The commit lane alone writes it.
#[derive(Default)]
pub(super) struct Notes {
    acknowledged: Option<File>,
}

impl Notes {
    /// Logs what the store, which is at `position` now, all of it on the device, has lost. Then begins its notes anew. Nothing is written to the
    /// store before this returns.
    ///
    /// # Errors
    /// The file system's. An old note must not stay: it would say more than there is.
    pub(super) fn open(data_dir: &Path, position: u64, durability: Durability) -> io::Result<Self> {
        log_lost(data_dir, position);
        let acknowledged = begin(data_dir, position)?;
        match durability {
            Durability::Os => make_unsynced(data_dir)?,
            Durability::Fsync => remove(data_dir, UNSYNCED)?,
        }
        // at every start: the one before may have been killed between a change of a name and this
        File::open(data_dir)?.sync_all()?;
        Ok(Self { acknowledged: Some(acknowledged) })
    }

    /// All changes up to `position` are as durable as they will be, and are acknowledged now.
    pub(super) fn acknowledge(&self, position: u64) {
        if let Some(file) = &self.acknowledged {
            // one that cannot be written leaves an older one, which says less
            let _ = file.write_all_at(&encode(position), 0);
        }
    }
}

fn log_lost(data_dir: &Path, position: u64) {
    let lost = acknowledged(data_dir).and_then(|noted| noted.checked_sub(position)).unwrap_or(0);
    if lost > 0 && is_unsynced(data_dir) {
        tracing::warn!(
            lost,
            position,
            "changes that were acknowledged are lost: with durability = \"os\" a power cut may take the last ones. Have producers send \
             again what they still know; if there was no power cut, check the disk"
        );
    } else if lost > 0 {
        tracing::error!(
            lost,
            position,
            "changes that were acknowledged are lost, the end of the store's log cannot be read: check the disk, and restore a \
             backup or have producers send again what they still know"
        );
    }
}

/// Writes `acknowledged` at a start, and syncs it: a power cut may leave an older one otherwise, and nobody could tell what was acknowledged from
/// what was not.
fn begin(data_dir: &Path, position: u64) -> io::Result<File> {
    let path = data_dir.join(ACKNOWLEDGED);
    let write = || {
        let file = File::options().write(true).create(true).truncate(false).open(&path)?;
        file.write_all_at(&encode(position), 0)?;
        file.sync_all()?;
        Ok(file)
    };
    write().map_err(|error| of(&path, &error))
}

/// Makes `unsynced` where there is none; its name is synced with the directory.
fn make_unsynced(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join(UNSYNCED);
    match File::options().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(of(&path, &error)),
        _ => Ok(()),
    }
}

/// The number of the last change that was acknowledged, as far as that is known.
pub(super) fn acknowledged(data_dir: &Path) -> Option<u64> {
    let mut noted = [0; ACKNOWLEDGED_BYTES];
    File::open(data_dir.join(ACKNOWLEDGED)).ok()?.read_exact_at(&mut noted, 0).ok()?;
    decode(&noted)
}

/// Whether the log was written without syncs.
pub(super) fn is_unsynced(data_dir: &Path) -> bool {
    data_dir.join(UNSYNCED).exists()
}

/// Forgets both, and what is noted of damaged files.
///
/// # Errors
/// The file system's.
pub(super) fn forget(data_dir: &Path) -> io::Result<()> {
    remove(data_dir, ACKNOWLEDGED)?;
    remove(data_dir, UNSYNCED)?;
    unmerged::NAMES.iter().try_for_each(|name| remove(data_dir, name))?;
    File::open(data_dir).and_then(|names| names.sync_all()).map_err(|error| of(data_dir, &error))
}

fn remove(data_dir: &Path, name: &str) -> io::Result<()> {
    let path = data_dir.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(of(&path, &error)),
        _ => Ok(()),
    }
}

/// An error that names its file.
fn of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn encode(position: u64) -> [u8; ACKNOWLEDGED_BYTES] {
    let mut out = [0; ACKNOWLEDGED_BYTES];
    out[..8].copy_from_slice(&position.to_be_bytes());
    out[8..].copy_from_slice(&crc32c::crc32c(&position.to_be_bytes()).to_be_bytes());
    out
}

fn decode(bytes: &[u8; ACKNOWLEDGED_BYTES]) -> Option<u64> {
    let position = u64::from_be_bytes(*bytes.first_chunk()?);
    (encode(position) == *bytes).then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_are_as_drawn_and_a_torn_note_says_nothing() {
        let noted = encode(0x0102_0304);
        assert_eq!(noted, [0, 0, 0, 0, 1, 2, 3, 4, 0xed, 0x7f, 0x75, 0xb9]);
        assert_eq!(decode(&noted), Some(0x0102_0304));
        assert_eq!(decode(&[0; ACKNOWLEDGED_BYTES]), None, "a page that never came down");
        for at in 0..ACKNOWLEDGED_BYTES {
            let mut torn = noted;
            torn[at] ^= 4;
            assert_eq!(decode(&torn), None);
        }
    }

    #[test]
    fn notes_tell_how_the_log_is_written_and_how_far_it_came_until_they_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let noted = || (acknowledged(dir.path()), is_unsynced(dir.path()));
        assert_eq!(noted(), (None, false));
        let notes = Notes::open(dir.path(), 3, Durability::Os).unwrap();
        assert_eq!(noted(), (Some(3), true));
        notes.acknowledge(7);
        assert_eq!(noted(), (Some(7), true));
        Notes::open(dir.path(), 5, Durability::Os).unwrap();
        assert_eq!(noted(), (Some(5), true));
        Notes::open(dir.path(), 6, Durability::Fsync).unwrap();
        assert_eq!(noted(), (Some(6), false));
        Notes::open(dir.path(), 6, Durability::Os).unwrap();
        forget(dir.path()).unwrap();
        forget(dir.path()).unwrap();
        assert_eq!(noted(), (None, false));
        for (name, durability) in [(ACKNOWLEDGED, Durability::Os), (UNSYNCED, Durability::Fsync)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            let error = Notes::open(dir.path(), 0, durability).map(drop).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            fs::remove_dir(dir.path().join(name)).unwrap();
        }
    }
}
