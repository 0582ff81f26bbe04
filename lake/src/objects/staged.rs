//! Files that are written below the data directory because an object store has no rename: they are uploaded when their
//! names are known. Nothing here is synced: after a crash it is written anew.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{TMP_DIR, blocking};
use crate::error::{LakeError, Result};

/// What one open file holds back before it is written on.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// The directory of the files that wait. Holds: where it is; one lake uses it.
pub struct Staging(PathBuf);

/// A file being written.
pub struct StagedFile {
    at: PathBuf,
    file: Option<File>,
    waiting: Vec<u8>,
}

impl Staging {
    /// Files in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Where the file with a hidden name lies; none for other names.
    pub fn place(&self, at: &str) -> Option<PathBuf> {
        let name = at.strip_prefix(TMP_DIR)?.strip_prefix('/')?;
        (!name.is_empty() && !name.contains('/')).then(|| self.0.join(name))
    }

    /// A new file.
    ///
    /// # Errors
    /// `Destination` when the disk does not take it.
    pub async fn create(&self, at: PathBuf) -> Result<StagedFile> {
        let (dir, path) = (self.0.clone(), at.clone());
        let file = blocking(move || {
            let made = std::fs::create_dir_all(&dir).and_then(|()| File::create(&path));
            made.map_err(|e| unwritable(&path, &e))
        });
        Ok(StagedFile { file: Some(file.await?), at, waiting: Vec::new() })
    }

    /// The hidden names of the files that are there.
    pub async fn list(&self) -> Result<Vec<String>> {
        let dir = self.0.clone();
        blocking(move || {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            Ok(names.filter(|name| name.ends_with(".tmp")).map(|name| format!("{TMP_DIR}/{name}")).collect())
        })
        .await
    }

    /// Removes every file that waits.
    pub async fn clear(&self) -> Result<()> {
        for at in self.list().await?.iter().filter_map(|at| self.place(at)) {
            self.remove(at).await?;
        }
        Ok(())
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn remove(&self, at: PathBuf) -> Result<()> {
        blocking(move || match std::fs::remove_file(&at) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritable(&at, &error)),
            _ => Ok(()),
        })
        .await
    }
}

impl StagedFile {
    /// Takes bytes, in order.
    ///
    /// # Errors
    /// `Destination` when the disk does not take them.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.waiting.extend_from_slice(&bytes);
        if self.waiting.len() < WRITE_BUFFER_BYTES { Ok(()) } else { self.flush().await }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// `Destination` when the disk does not take it.
    pub async fn flush(&mut self) -> Result<()> {
        let (at, waiting) = (self.at.clone(), std::mem::take(&mut self.waiting));
        let Some(mut file) = self.file.take() else { return Err(LakeError::bug("a file that failed goes on")) };
        let written = blocking(move || {
            file.write_all(&waiting).map_err(|e| unwritable(&at, &e))?;
            Ok(file)
        });
        self.file = Some(written.await?);
        Ok(())
    }
}

/// The next bytes of a file, which is opened first where it is not open yet; none at its end.
///
/// # Errors
/// `Destination`.
pub async fn read_some(at: &Path, open: Option<File>, count: usize) -> Result<(Bytes, File)> {
    let at = at.to_owned();
    blocking(move || {
        let mut file = open.map_or_else(|| File::open(&at), Ok).map_err(|e| unwritable(&at, &e))?;
        let mut bytes = Vec::with_capacity(count);
        (&mut file).take(count as u64).read_to_end(&mut bytes).map_err(|e| unwritable(&at, &e))?;
        Ok((Bytes::from(bytes), file))
    })
    .await
}

fn unwritable(at: &Path, error: &std::io::Error) -> LakeError {
    LakeError::destination(format!(
        "{} waits to be uploaded and cannot be written or read: {error}: check that it is yours and that the disk has \
         room",
        at.display()
    ))
}
