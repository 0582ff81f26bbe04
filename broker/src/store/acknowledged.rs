//! How far the store had come when something was last acknowledged: a note beside the store, in the file `acknowledged`, rewritten in
//! place.
//!
//! ```text
//!  0  8 number of the store's last change, big endian        8  4 CRC-32C of these eight, big endian
//! ```
//! RocksDB ends its recovery at the first record of its log that cannot be read, as it must after a power cut, and says nothing of what
//! came behind. A start that finds the store behind the note has lost what was acknowledged, and says so. The note is written after
//! each sync and synced itself at a start only: after a power cut it may be an old one, which says less.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::unsynced;

const FILE: &str = "acknowledged";
const BYTES: usize = 12;

/// The note. Holds: its file, if there can be one. The commit lane alone writes it.
#[derive(Default)]
pub(super) struct Acknowledged {
    file: Option<File>,
}

impl Acknowledged {
    /// Opens the note of the store that is at `position` now, all of it on the device, and logs what the store has lost.
    pub(super) fn open(data_dir: &Path, position: u64) -> Self {
        let noted = noted(data_dir);
        let file = begin(data_dir, position)
            .inspect_err(|error| {
                let path = data_dir.join(FILE);
                let path = path.display();
                tracing::warn!(%path, %error, "what is acknowledged cannot be noted, so damage to it would not be seen");
            })
            .ok();
        let lost = noted.and_then(|noted| noted.checked_sub(position)).unwrap_or(0);
        if lost > 0 && unsynced::is_noted(data_dir) {
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
        Self { file }
    }

    /// All changes up to `position` are as durable as they will be, and are acknowledged now.
    pub(super) fn note(&self, position: u64) {
        if let Some(file) = &self.file {
            // one that cannot be written leaves an older one, which says less
            let _ = file.write_all_at(&encode(position), 0);
        }
    }
}

/// Writes the note of a start, and syncs it and its name: a power cut may leave an older one otherwise, or none, and nobody could tell what was
/// acknowledged from what was not.
fn begin(data_dir: &Path, position: u64) -> io::Result<File> {
    let at = data_dir.join(FILE);
    let file = File::options().write(true).create(true).truncate(false).open(&at)?;
    file.write_all_at(&encode(position), 0)?;
    file.sync_all()?;
    unsynced::sync(data_dir)?;
    Ok(file)
}

/// Removes the note.
///
/// # Errors
/// The file system's.
pub(super) fn remove(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(data_dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The number of the last change that was acknowledged, as far as that is known.
pub(super) fn noted(data_dir: &Path) -> Option<u64> {
    let mut noted = [0; BYTES];
    File::open(data_dir.join(FILE)).ok()?.read_exact_at(&mut noted, 0).ok()?;
    decode(&noted)
}

fn encode(position: u64) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..8].copy_from_slice(&position.to_be_bytes());
    out[8..].copy_from_slice(&crc32c::crc32c(&position.to_be_bytes()).to_be_bytes());
    out
}

fn decode(bytes: &[u8; BYTES]) -> Option<u64> {
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
        assert_eq!(decode(&[0; BYTES]), None, "a page that never came down");
        for at in 0..BYTES {
            let mut torn = noted;
            torn[at] ^= 4;
            assert_eq!(decode(&torn), None);
        }
    }
}
