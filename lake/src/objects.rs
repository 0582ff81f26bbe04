//! The destination of the files: the only place that names `object_store`. Today a local directory; HDFS and S3 will be
//! further arms of [`Place`], which knows what the object store interface does not say: how a file becomes durable.
//!
//! ```text
//! <root>/_millpond.json                      whose lake it is; gone: the destination is not there
//! <root>/_tmp/…                              files being written, unseen by Spark, Hive, DuckDB and pyarrow
//! <root>/_deleted/<topic>-<log id>/…         files of topics that were deleted
//! <root>/<topic>/date=…/…                    published files
//! ```

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use parquet::arrow::async_writer::ParquetObjectWriter;
use serde::{Deserialize, Serialize};

use crate::error::{LakeError, Result};

/// Where files are written before they are published.
pub const TMP_DIR: &str = "_tmp";
/// Where the files of deleted topics go.
pub const DELETED_DIR: &str = "_deleted";
const OWNER_FILE: &str = "_millpond.json";
const OWNER_VERSION: u32 = 1;
/// The name under which queries find the store; not a place on the network.
const STORE_URL: &str = "millpond-lake://lake";
/// What one open file holds back before it is written on.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// The destination. Holds: the way to it, and whose it must be. Always true: only files below its root are touched,
/// and only while the owner's mark lies there.
pub struct Objects {
    place: Place,
    store: Arc<dyn ObjectStore>,
    owner: String,
}

enum Place {
    Local { root: PathBuf },
}

#[derive(Serialize, Deserialize)]
struct Owner {
    v: u32,
    cluster_id: String,
}

/// The destination as it is configured, opened when it can be: a lake that is away does not keep the broker from
/// starting.
pub struct Destination {
    url: String,
    owner: String,
    expected: bool,
    opened: tokio::sync::OnceCell<Arc<Objects>>,
}

impl Destination {
    /// The destination at `url` for the cluster `owner`; `expected` says that files were published there before.
    pub fn new(url: String, owner: String, expected: bool) -> Self {
        Self { url, owner, expected, opened: tokio::sync::OnceCell::new() }
    }

    /// The open destination.
    ///
    /// # Errors
    /// As [`Objects::open`].
    pub async fn get(&self) -> Result<Arc<Objects>> {
        let opened = self
            .opened
            .get_or_try_init(|| async { Objects::open(&self.url, &self.owner, self.expected).await.map(Arc::new) });
        opened.await.cloned()
    }

    /// The destination for people: a `file://` URL.
    pub fn url(&self) -> String {
        self.opened.get().map_or_else(|| self.url.clone(), |objects| objects.url())
    }
}

impl Objects {
    /// Opens the lake at `url` for the cluster `owner`, and creates it when it is new. `expected` says that files were
    /// published there before, so that an empty place means that the lake is away.
    ///
    /// # Errors
    /// `Config` for a scheme that is not served, another cluster's lake or an unusable directory, `Destination` when
    /// the lake is away.
    pub async fn open(url: &str, owner: &str, expected: bool) -> Result<Self> {
        let root = local_root(url)?;
        if !expected {
            std::fs::create_dir_all(&root).map_err(|e| unusable(&root, &e))?;
        }
        let root = root.canonicalize().map_err(|e| if expected { away(&root, &e) } else { unusable(&root, &e) })?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|e| unusable(&root, &e))?;
        let objects = Self { place: Place::Local { root }, store: Arc::new(store), owner: owner.to_owned() };
        match objects.read_owner().await? {
            Some(found) => objects.check_owner(&found)?,
            None if expected => {
                let message = format!(
                    "{} has no {OWNER_FILE}, though files were published to the lake: mount it, set lake.url back, or \
                     copy the old directory there",
                    objects.url()
                );
                return Err(LakeError::destination(message));
            }
            None => objects.take_ownership().await?,
        }
        Ok(objects)
    }

    /// The destination for people: a `file://` URL.
    pub fn url(&self) -> String {
        match &self.place {
            Place::Local { root } => format!("file://{}", root.display()),
        }
    }

    /// Finds out that the destination is there and still ours, before anything is published.
    ///
    /// # Errors
    /// `Destination` when it is not.
    pub async fn check_present(&self) -> Result<()> {
        match self.read_owner().await? {
            Some(found) => self.check_owner(&found),
            None => Err(LakeError::destination(format!(
                "{} is away ({OWNER_FILE} is not there): mount or restore it, the log keeps the records until then",
                self.url()
            ))),
        }
    }

    async fn read_owner(&self) -> Result<Option<String>> {
        match self.store.get(&path(OWNER_FILE)?).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(|e| self.failed("read", OWNER_FILE, &e))?;
                let owner: Owner = serde_json::from_slice(&bytes).map_err(|e| {
                    LakeError::config(format!(
                        "{}/{OWNER_FILE} cannot be read ({e}): restore it from a copy",
                        self.url()
                    ))
                })?;
                Ok(Some(owner.cluster_id))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", OWNER_FILE, &error)),
        }
    }

    fn check_owner(&self, found: &str) -> Result<()> {
        if found == self.owner {
            return Ok(());
        }
        Err(LakeError::config(format!(
            "{} is the lake of the cluster {found}, this is {}: give each its own lake.url",
            self.url(),
            self.owner
        )))
    }

    async fn take_ownership(&self) -> Result<()> {
        let owner = Owner { v: OWNER_VERSION, cluster_id: self.owner.clone() };
        let bytes = serde_json::to_vec(&owner).map_err(|e| LakeError::bug(format!("owner file: {e}")))?;
        let payload = PutPayload::from(bytes);
        self.store.put(&path(OWNER_FILE)?, payload).await.map_err(|e| match &self.place {
            Place::Local { root } => unusable(root, &e),
        })?;
        self.sync(&[OWNER_FILE.to_owned()]).await
    }

    /// A writer for a new file.
    ///
    /// # Errors
    /// `Bug` for a path that no file can have.
    pub fn create(&self, at: &str) -> Result<ParquetObjectWriter> {
        let buffered = BufWriter::with_capacity(self.store.clone(), path(at)?, WRITE_BUFFER_BYTES);
        Ok(ParquetObjectWriter::from_buf_writer(buffered))
    }

    /// Gives written files their names and replaces what has these names; then makes the names durable.
    ///
    /// # Errors
    /// `Destination`; some of the files may have their names then.
    pub async fn publish(&self, renames: &[(String, String)]) -> Result<()> {
        for (from, to) in renames {
            self.store.rename(&path(from)?, &path(to)?).await.map_err(|e| self.failed("rename", from, &e))?;
        }
        self.sync(&renames.iter().map(|(_, to)| to.clone()).collect::<Vec<_>>()).await
    }

    /// Makes files and the directories that lead to them durable.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn sync(&self, files: &[String]) -> Result<()> {
        let Place::Local { root } = &self.place;
        let mut paths = BTreeSet::new();
        for file in files {
            // a directory that was made on the way is known only to its own parent
            paths.extend(root.join(file).ancestors().take_while(|at| at.starts_with(root)).map(FilePath::to_owned));
        }
        let url = self.url();
        blocking(move || {
            for at in paths {
                let synced = std::fs::File::open(&at).and_then(|file| file.sync_all());
                synced
                    .map_err(|e| LakeError::destination(format!("{} cannot be synced to {url}: {e}", at.display())))?;
            }
            Ok(())
        })
        .await
    }

    /// Whether a file is there, and how large, in bytes.
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

    /// Empties [`TMP_DIR`], with what the object store itself staged there.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn clear_tmp(&self) -> Result<()> {
        let Place::Local { root } = &self.place;
        let tmp = root.join(TMP_DIR);
        blocking(move || match std::fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LakeError::destination(format!("{} cannot be emptied, check who owns it: {error}", tmp.display())))
            }
            _ => Ok(()),
        })
        .await
    }

    /// Removes directories below `dir` that hold nothing.
    ///
    /// # Errors
    /// Never fails: an empty directory that stays does no harm.
    pub async fn remove_empty_dirs(&self, dir: &str) -> Result<()> {
        let Place::Local { root } = &self.place;
        let dir = root.join(dir);
        blocking(move || {
            remove_empty(&dir);
            Ok(())
        })
        .await
    }

    /// Makes the files readable for queries.
    pub fn register(&self, runtime: &RuntimeEnv) -> Result<ObjectStoreUrl> {
        let url = ObjectStoreUrl::parse(STORE_URL).map_err(|e| LakeError::bug(format!("{STORE_URL}: {e}")))?;
        runtime.register_object_store(url.as_ref(), self.store.clone());
        Ok(url)
    }

    /// A file as queries name it.
    ///
    /// # Errors
    /// `Bug` for a path that no file can have.
    pub fn meta(&self, at: &str, bytes: u64) -> Result<ObjectMeta> {
        let last_modified = chrono::DateTime::UNIX_EPOCH; // a published file never changes
        Ok(ObjectMeta { location: path(at)?, last_modified, size: bytes, e_tag: None, version: None })
    }

    /// The store, for reading whole files.
    pub fn reader(&self, at: &str) -> Result<parquet::arrow::async_reader::ParquetObjectReader> {
        Ok(parquet::arrow::async_reader::ParquetObjectReader::new(self.store.clone(), path(at)?))
    }

    fn failed(&self, what: &str, at: &str, error: &object_store::Error) -> LakeError {
        LakeError::destination(format!(
            "cannot {what} {at} in {}, check that it is there and writable: {error}",
            self.url()
        ))
    }
}

/// The object store's path of a relative path, taken as it is: `%` is part of Hive's names.
fn path(at: &str) -> Result<Path> {
    Path::parse(at).map_err(|e| LakeError::bug(format!("{at:?} is not a path: {e}")))
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
                "lake.url {url}: {scheme}:// is not served by this version, only local directories are: give a path \
                 or file:///directory"
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

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => result,
        Err(error) => Err(LakeError::bug(format!("work on the lake's files ended early: {error}"))),
    }
}
