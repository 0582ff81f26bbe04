//! A lake in a local directory: files become durable by syncing them and every directory that leads to them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};

use super::sink::FileSink;
use super::{Linked, blocking, path};
use crate::config::SCHEMES;
use crate::error::{LakeError, Result};

/// What one open file holds back before it is written on.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// A directory. Holds: where it really is.
pub struct Local {
    root: PathBuf,
    store: Arc<LocalFileSystem>,
}

impl Local {
    /// Opens the directory, and makes it unless files are `expected` in it.
    ///
    /// # Errors
    /// `Config` for a scheme that is not served or an unusable directory, `Destination` when it is away.
    pub fn open(url: &str, expected: bool) -> Result<Self> {
        let root = local_root(url)?;
        if !expected {
            std::fs::create_dir_all(&root).map_err(|e| unusable(&root, &e))?;
        }
        let root = root.canonicalize().map_err(|e| if expected { away(&root, &e) } else { unusable(&root, &e) })?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|e| unusable(&root, &e))?;
        Ok(Self { root, store: Arc::new(store) })
    }

    /// As a `file://` URL.
    pub fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// The files for queries.
    pub fn store(&self) -> Arc<LocalFileSystem> {
        self.store.clone()
    }

    /// The bytes of a small file, if it is there.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn read(&self, at: &str) -> Result<Option<Bytes>> {
        match self.store.get(&path(at)?).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|e| self.failed("read", at, &e)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", at, &error)),
        }
    }

    /// Writes the owner's mark; [`Local::sync`] makes it durable.
    ///
    /// # Errors
    /// `Config`: whoever cannot write the first file cannot keep a lake there.
    pub async fn put_owner(&self, at: &str, bytes: Vec<u8>) -> Result<()> {
        let to = self.root.join(at);
        blocking(move || Ok(replace(&to, &bytes))).await?.map_err(|e| unusable(&self.root, &e))
    }

    /// Writes a small file, or replaces it, in one piece; [`Local::sync`] makes it durable.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn put_whole(&self, at: &str, bytes: Bytes) -> Result<()> {
        let to = self.root.join(at);
        blocking(move || Ok(replace(&to, &bytes))).await?.map_err(|e| self.failed("write", at, &e))
    }

    /// Gives a file a second name: a hard link.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn link(&self, at: &str, to: &str) -> Result<Linked> {
        let (from, to) = (self.root.join(at), self.root.join(to));
        blocking(move || link(&from, &to)).await
    }

    /// A writer for a new file.
    ///
    /// # Errors
    /// `Bug` for a path that no file can have.
    pub fn create(&self, at: &str) -> Result<FileSink> {
        let buffered = BufWriter::with_capacity(self.store(), path(at)?, WRITE_BUFFER_BYTES);
        Ok(FileSink::local(buffered))
    }

    /// Renames files; what has the new names is replaced.
    ///
    /// # Errors
    /// `Destination`; some of the files may have their names then.
    pub async fn rename_all(&self, renames: &[(String, String)]) -> Result<()> {
        for (from, to) in renames {
            self.store.rename(&path(from)?, &path(to)?).await.map_err(|e| self.failed("rename", from, &e))?;
        }
        Ok(())
    }

    /// Writes a copy of a file and makes it durable.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn copy(&self, from: &str, to: &str) -> Result<()> {
        self.store.copy(&path(from)?, &path(to)?).await.map_err(|e| self.failed("copy", from, &e))?;
        self.sync(&[to.to_owned()]).await
    }

    /// Makes files and the directories that lead to them durable.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn sync(&self, files: &[String]) -> Result<()> {
        let mut paths = BTreeSet::new();
        for file in files {
            // a directory that was made on the way is known only to its own parent
            let ancestors = self.root.join(file);
            paths.extend(ancestors.ancestors().take_while(|at| at.starts_with(&self.root)).map(FilePath::to_owned));
        }
        let url = self.url();
        blocking(move || {
            for at in paths {
                let synced = File::open(&at).and_then(|file| file.sync_all());
                synced
                    .map_err(|e| LakeError::destination(format!("{} cannot be synced to {url}: {e}", at.display())))?;
            }
            Ok(())
        })
        .await
    }

    /// Size of a file in bytes, if it is there.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn size(&self, at: &str) -> Result<Option<u64>> {
        match self.store.head(&path(at)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("find", at, &error)),
        }
    }

    /// The paths of all files below a directory.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn list(&self, dir: &str) -> Result<Vec<String>> {
        let dir_path = path(dir)?;
        let found = self.store.list(Some(&dir_path)).map_ok(|meta| meta.location.to_string());
        found.try_collect().await.map_err(|e| self.failed("list", dir, &e))
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn delete(&self, at: &str) -> Result<()> {
        match self.store.delete(&path(at)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", at, &error)),
        }
    }

    /// Removes a directory with all that is in it.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn remove_dir(&self, dir: &str) -> Result<()> {
        let dir = self.root.join(dir);
        blocking(move || match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LakeError::destination(format!("{} cannot be emptied, check who owns it: {error}", dir.display())))
            }
            _ => Ok(()),
        })
        .await
    }

    /// Removes directories below `dir` that hold nothing.
    pub async fn remove_empty_dirs(&self, dir: &str) {
        let dir = self.root.join(dir);
        // a directory that stays does no harm
        let _ = blocking(move || {
            remove_empty(&dir);
            Ok(())
        })
        .await;
    }

    fn failed(&self, what: &str, at: &str, error: &dyn std::fmt::Display) -> LakeError {
        LakeError::destination(format!(
            "cannot {what} {at} in {}, check that it is there and writable: {error}",
            self.url()
        ))
    }
}

/// Writes a file under a hidden name and gives it its own once its bytes are on the device: after a power cut the old one or the
/// new one is there, and the new one once its name was made durable ([`Local::sync`]). Names that end so are passed over by the
/// object store's lists.
fn replace(to: &FilePath, bytes: &[u8]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let mut hidden = to.as_os_str().to_owned();
    hidden.push(format!("#{}", WRITTEN.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(to.parent().unwrap_or(to))?;
    let mut file = File::create(&hidden)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&hidden, to)
}

fn link(from: &FilePath, to: &FilePath) -> Result<Linked> {
    let failed = |e: std::io::Error| LakeError::destination(format!("{} cannot be made: {e}", to.display()));
    if let Some(dir) = to.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(Linked::Done),
        Err(error) => match error.kind() {
            // the name is made of what the file holds
            ErrorKind::AlreadyExists => Ok(Linked::Done),
            ErrorKind::NotFound => Ok(Linked::Gone),
            ErrorKind::PermissionDenied
            | ErrorKind::Unsupported
            | ErrorKind::CrossesDevices
            | ErrorKind::TooManyLinks => Ok(Linked::Refused),
            _ => Err(failed(error)),
        },
    }
}

fn local_root(url: &str) -> Result<PathBuf> {
    let path = match url.split_once("://") {
        None => url,
        Some(("file", path)) if path.starts_with('/') => path,
        Some(("file", _)) => {
            return Err(LakeError::config(format!("lake.url {url} names a host: write file:///directory, or a path")));
        }
        Some((scheme, _)) => {
            let message = format!(
                "lake.url {url}: {scheme}:// is not served by this version: give a path or a URL with one of {}",
                SCHEMES.join(", ")
            );
            return Err(LakeError::config(message));
        }
    };
    if path.is_empty() {
        return Err(LakeError::config("lake.url is empty: give a directory, as a path or file:///directory"));
    }
    Ok(PathBuf::from(path))
}

fn remove_empty(dir: &FilePath) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // fails where something is left, which is what is wanted
    let _ = std::fs::remove_dir(dir);
}

fn unusable(root: &FilePath, error: &dyn std::fmt::Display) -> LakeError {
    let message =
        format!("the lake cannot be kept in {}, check that it is a directory of yours: {error}", root.display());
    LakeError::config(message)
}

fn away(root: &FilePath, error: &dyn std::fmt::Display) -> LakeError {
    let message = format!(
        "{} is away, though files were published to the lake: mount it or set lake.url back: {error}",
        root.display()
    );
    LakeError::destination(message)
}
