//! The destination of the files: a local directory, HDFS or an object store. `local`, `hdfs` and `cloud` are the arms of
//! [`Place`]; each knows what the object store interface does not say: how a file becomes durable, and what stands for a
//! rename. Only these files name `object_store`.
//!
//! ```text
//! <root>/_millpond.json                      whose lake it is; gone: the destination is not there
//! <root>/_tmp/…                              files being written, unseen by Spark, Hive, DuckDB and pyarrow; of an
//!                                            object store these lie below the data directory
//! <root>/_retired/…                          files that left the manifest and that running queries still read
//! <root>/_iceberg/lake/<table>/…             Iceberg metadata over the same files (iceberg/place)
//! <root>/_deleted/<topic>-<log id>/…         files of topics that were deleted
//! <root>/_deleted/<topic>-unknown-<ms>/…     files that the manifest did not know (put_aside)
//! <root>/_raw/<topic>/<log id>/…             whole records, for consumers (raw)
//! <root>/[<zone>/]<topic>/date=…/…           published files of topics
//! <root>/<zone>/<table>/…                    published files of tables that SQL writes
//! ```

mod cloud;
mod cloud_address;
mod destination;
mod hdfs;
mod hdfs_nodes;
mod hdfs_read;
mod linked;
mod local;
mod reading;
mod sink;
mod staged;
mod upload;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::async_reader::ParquetObjectReader;
use serde::{Deserialize, Serialize};

use self::cloud::Cloud;
use self::cloud_address::is_cloud;
pub use self::destination::Destination;
use self::hdfs::Hdfs;
pub use self::linked::Linked;
use self::local::Local;
use self::reading::{Aside, Reading, Stored};
pub use self::sink::FileSink;
use crate::config::Access;
use crate::error::{LakeError, Result};

/// Where files are written before they are published.
pub const TMP_DIR: &str = "_tmp";
/// Where files that left the manifest wait for the queries that read them.
pub const RETIRED_DIR: &str = "_retired";
/// Where the files of deleted topics go.
pub const DELETED_DIR: &str = "_deleted";
/// Whose lake, or whose backups, lie there.
pub const OWNER_FILE: &str = "_millpond.json";
const OWNER_VERSION: u32 = 1;
/// The name under which queries find the store; not a place on the network.
const STORE_URL: &str = "millpond-lake://lake";

/// The destination. Holds: the way to it, whose it must be, and which files were put aside. Always true: only files below its root are touched,
/// and only while the owner's mark lies there.
pub struct Objects {
    place: Place,
    owner: String,
    aside: Arc<Aside>,
}

enum Place {
    Local(Local),
    Hdfs(Arc<Hdfs>),
    Cloud(Arc<Cloud>),
}

#[derive(Serialize, Deserialize)]
struct Owner {
    v: u32,
    cluster_id: String,
}

/// What the configuration says of the destination.
#[derive(Clone, Debug)]
pub struct Address {
    /// A path, or a URL with one of [`crate::config::SCHEMES`].
    pub url: String,
    /// How other places than directories are spoken to.
    pub access: Access,
    /// A directory for files that wait to be uploaded to an object store, for this destination alone; made when it is
    /// needed.
    pub work_dir: PathBuf,
}

/// A copy of a file that becomes a file of the lake.
#[derive(Clone, Debug)]
pub struct Copying {
    /// What is copied.
    pub from: String,
    /// Its hidden name until then, where the destination needs one.
    pub hidden: String,
    /// Its name in the end.
    pub to: String,
}

impl Place {
    /// The place at `address`, made where it can be made unless files are `expected` in it.
    async fn open(address: &Address, (expected, runtime): (bool, &tokio::runtime::Handle)) -> Result<Self> {
        Ok(match address.url.split_once("://") {
            Some(("hdfs", _)) => Place::Hdfs(Arc::new(Hdfs::open(address, runtime, expected).await?)),
            Some((scheme, _)) if is_cloud(scheme) => Place::Cloud(Arc::new(Cloud::open(address)?)),
            _ => Place::Local(Local::open(&address.url, expected)?),
        })
    }
}

impl Objects {
    /// Opens the lake at `address` for the cluster `owner`, and creates it when it is new. `expected` says that files
    /// were published there before, so that an empty place means that the lake is away.
    ///
    /// # Errors
    /// `Config` for a scheme that is not served, another cluster's lake or an unusable directory, `Destination` when
    /// the lake is away.
    pub async fn open(
        address: &Address,
        owner: &str,
        (expected, runtime): (bool, &tokio::runtime::Handle),
    ) -> Result<Self> {
        let place = Place::open(address, (expected, runtime)).await?;
        let objects = Self { place, owner: owner.to_owned(), aside: Arc::default() };
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
        if let Place::Cloud(cloud) = &objects.place {
            cloud.clear_left().await;
        }
        Ok(objects)
    }

    /// Opens a place that must be there, whoever owns it, for reading.
    ///
    /// # Errors
    /// `Config` for a scheme that is not served, `Destination` when the place is away.
    pub async fn open_any(address: &Address, runtime: &tokio::runtime::Handle) -> Result<Self> {
        let place = Place::open(address, (true, runtime)).await?;
        let mut objects = Self { place, owner: String::new(), aside: Arc::default() };
        objects.owner = objects.read_owner().await?.unwrap_or_default();
        Ok(objects)
    }

    /// The destination for people: a URL without a slash at its end.
    pub fn url(&self) -> String {
        match &self.place {
            Place::Local(local) => local.url(),
            Place::Hdfs(hdfs) => hdfs.url().to_owned(),
            Place::Cloud(cloud) => cloud.url().to_owned(),
        }
    }

    /// The URL by which Hive and Spark know the destination.
    pub fn hadoop_url(&self) -> String {
        match &self.place {
            Place::Cloud(cloud) => cloud.hadoop_url().to_owned(),
            _ => self.url(),
        }
    }

    /// The URL by which readers of Iceberg know the destination.
    pub fn iceberg_url(&self) -> String {
        match &self.place {
            Place::Cloud(cloud) => cloud.iceberg_url().to_owned(),
            _ => self.url(),
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
        let found = self.read_small(OWNER_FILE).await?;
        // an empty one was begun by an attempt that HDFS cut off before its first byte
        let Some(bytes) = found.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
        let owner: Owner = serde_json::from_slice(&bytes).map_err(|e| {
            LakeError::config(format!("{}/{OWNER_FILE} cannot be read ({e}): restore it from a copy", self.url()))
        })?;
        Ok(Some(owner.cluster_id))
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

    /// The bytes of a small file, if it is there.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn read_small(&self, at: &str) -> Result<Option<Bytes>> {
        match &self.place {
            Place::Local(local) => local.read(at).await,
            Place::Hdfs(hdfs) => hdfs.read_small(at).await,
            Place::Cloud(cloud) => cloud.read_small(at).await,
        }
    }

    /// Writes a small file, or replaces it, and makes it durable.
    ///
    /// # Errors
    /// `Config` or `Destination` when it cannot be written.
    pub async fn put_small(&self, at: &str, bytes: Bytes) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.put_owner(at, bytes.to_vec()).await?,
            Place::Hdfs(hdfs) => hdfs.put_small(at, bytes).await?,
            Place::Cloud(cloud) => cloud.put_small(at, bytes).await?,
        }
        self.sync(&[at.to_owned()]).await
    }

    /// A range of a file, which must lie within it.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn read_range(&self, at: &str, range: Range<u64>) -> Result<Bytes> {
        // named here alone: its `copy` and `delete` would hide those of the arms
        use object_store::ObjectStoreExt;
        let read = self.store().get_range(&path(at)?, range).await;
        read.map_err(|e| LakeError::destination(format!("{}/{at} cannot be read: {e}", self.url())))
    }

    async fn take_ownership(&self) -> Result<()> {
        let owner = Owner { v: OWNER_VERSION, cluster_id: self.owner.clone() };
        let bytes = serde_json::to_vec(&owner).map_err(|e| LakeError::bug(format!("owner file: {e}")))?;
        let Place::Cloud(cloud) = &self.place else { return self.put_small(OWNER_FILE, Bytes::from(bytes)).await };
        // another cluster may take it at the same moment: the store says whose it is
        cloud.create_small(OWNER_FILE, Bytes::from(bytes)).await?;
        self.check_present().await
    }

    /// A writer for a new file, which is whole and durable in itself once it was completed.
    ///
    /// # Errors
    /// `Bug` for a path that no file can have, `Destination`.
    pub async fn create(&self, at: &str) -> Result<FileSink> {
        match &self.place {
            Place::Local(local) => local.create(at),
            Place::Hdfs(hdfs) => hdfs.create(at).await,
            Place::Cloud(cloud) => cloud.create(at).await,
        }
    }

    /// Gives written files their names and replaces what has these names; then makes the names durable.
    ///
    /// # Errors
    /// `Destination`; some of the files may have their names then.
    pub async fn publish(&self, renames: &[(String, String)]) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.rename_all(renames).await?,
            Place::Hdfs(hdfs) => hdfs.rename_all(renames).await?,
            Place::Cloud(cloud) => cloud.publish(renames).await?,
        }
        self.sync(&renames.iter().map(|(_, to)| to.clone()).collect::<Vec<_>>()).await
    }

    /// Writes a copy under its hidden name. An object store needs none: a copy there appears whole.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn begin_copy(&self, copy: &Copying) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.copy(&copy.from, &copy.hidden).await,
            Place::Hdfs(hdfs) => hdfs.copy(&copy.from, &copy.hidden).await,
            Place::Cloud(_) => Ok(()),
        }
    }

    /// Gives copies that were begun their names, as [`Objects::publish`] does; what they were copied from stays.
    ///
    /// # Errors
    /// `Destination`; some of the files may have their names then.
    pub async fn publish_copies(&self, copies: &[Copying]) -> Result<()> {
        let Place::Cloud(cloud) = &self.place else {
            let renames: Vec<_> = copies.iter().map(|copy| (copy.hidden.clone(), copy.to.clone())).collect();
            return self.publish(&renames).await;
        };
        for copy in copies {
            cloud.copy(&copy.from, &copy.to).await?;
        }
        Ok(())
    }

    /// Makes files and the directories that lead to them durable. HDFS keeps names in its own journal, and a file there
    /// is durable when it was completed, as an object of a store is.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn sync(&self, files: &[String]) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.sync(files).await,
            Place::Hdfs(_) | Place::Cloud(_) => Ok(()),
        }
    }

    /// Whether a file is there, put aside or not, and how large, in bytes.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn size(&self, at: &str) -> Result<Option<u64>> {
        match (self.size_at(at).await?, self.aside.of(at)) {
            (None, Some(aside)) => self.size_at(&aside).await,
            (size, _) => Ok(size),
        }
    }

    async fn size_at(&self, at: &str) -> Result<Option<u64>> {
        match &self.place {
            Place::Local(local) => local.size(at).await,
            Place::Hdfs(hdfs) => hdfs.size(at).await,
            Place::Cloud(cloud) => cloud.size(at).await,
        }
    }

    /// Takes a file that left the manifest out of its directory. Whoever reads it finds it under its old name until it is
    /// deleted.
    ///
    /// # Errors
    /// `Destination`; it may be aside then, and is found in either place.
    pub async fn put_aside(&self, at: &str) -> Result<()> {
        // noted first, so that a reader who does not find it any more looks there
        let renames = [(at.to_owned(), self.aside.add(at))];
        match &self.place {
            Place::Local(local) => local.rename_all(&renames).await,
            Place::Hdfs(hdfs) => hdfs.rename_all(&renames).await,
            Place::Cloud(cloud) => cloud.publish(&renames).await,
        }
    }

    /// Where a file lies that was put aside.
    pub fn aside(&self, at: &str) -> Option<String> {
        self.aside.of(at)
    }

    /// The paths of all files below a directory.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn list(&self, dir: &str) -> Result<Vec<String>> {
        match &self.place {
            Place::Local(local) => local.list(dir).await,
            Place::Hdfs(hdfs) => hdfs.list_files(dir).await,
            Place::Cloud(cloud) => cloud.list(dir).await,
        }
    }

    /// Removes a file, put aside or not; one that is not there is no error.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn delete(&self, at: &str) -> Result<()> {
        self.delete_at(at).await?;
        if let Some(aside) = self.aside.of(at) {
            self.delete_at(&aside).await?;
            self.aside.remove(at);
        }
        Ok(())
    }

    async fn delete_at(&self, at: &str) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.delete(at).await,
            Place::Hdfs(hdfs) => hdfs.delete(at).await,
            Place::Cloud(cloud) => cloud.delete(at).await,
        }
    }

    /// Empties [`TMP_DIR`], with what the object store itself staged there, and [`RETIRED_DIR`], which queries before a
    /// crash read.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn clear_hidden(&self) -> Result<()> {
        self.remove_dir(TMP_DIR).await?;
        self.remove_dir(RETIRED_DIR).await
    }

    /// Removes a directory with all that is in it.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn remove_dir(&self, dir: &str) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.remove_dir(dir).await,
            Place::Hdfs(hdfs) => hdfs.remove_dir(dir).await,
            Place::Cloud(cloud) => cloud.remove_dir(dir).await,
        }
    }

    /// Removes directories below `dir` that hold nothing, as far as that can be done: an empty directory that stays does
    /// no harm.
    pub async fn remove_empty_dirs(&self, dir: &str) {
        match &self.place {
            Place::Local(local) => local.remove_empty_dirs(dir).await,
            Place::Hdfs(hdfs) => hdfs.remove_empty_dirs(dir).await,
            // a store has no directories
            Place::Cloud(_) => {}
        }
    }

    /// Makes the files readable for queries.
    ///
    /// # Errors
    /// `Bug`.
    pub fn register(&self, runtime: &RuntimeEnv) -> Result<ObjectStoreUrl> {
        let url = ObjectStoreUrl::parse(STORE_URL).map_err(|e| LakeError::bug(format!("{STORE_URL}: {e}")))?;
        runtime.register_object_store(url.as_ref(), self.store());
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

    /// A reader of a whole file of this size.
    ///
    /// # Errors
    /// `Bug` for a path that no file can have.
    pub fn reader(&self, at: &str, bytes: u64) -> Result<ParquetObjectReader> {
        // with its size, because not every store reads from the end of a file
        Ok(ParquetObjectReader::new(self.store(), path(at)?).with_file_size(bytes))
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        let from = match &self.place {
            Place::Local(local) => Stored::Local(local.store()),
            Place::Hdfs(hdfs) => Stored::Hdfs(hdfs.clone()),
            Place::Cloud(cloud) => Stored::Cloud(cloud.store()),
        };
        Arc::new(Reading::new(from, self.aside.clone()))
    }
}

/// The object store's path of a relative path, taken as it is: `%` is part of Hive's names.
fn path(at: &str) -> Result<Path> {
    Path::parse(at).map_err(|e| LakeError::bug(format!("{at:?} is not a path: {e}")))
}

/// Work with files of this machine, which no thread that serves others should do.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => result,
        Err(error) => Err(LakeError::bug(format!("work on the lake's files ended early: {error}"))),
    }
}
