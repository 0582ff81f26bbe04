//! Published files as DataFusion and Parquet's reader see them, on any destination. Nothing is written or listed this way;
//! queries take names and sizes from the manifest.
//!
//! A file that left the manifest while queries read it is put aside, below [`RETIRED_DIR`], where readers of directories do
//! not look. Here it is found under its old name until nobody wants it any more.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::RETIRED_DIR;
use super::cloud::Below;
use super::hdfs::Hdfs;

/// What `#[async_trait]` makes of an `async fn`.
type Answer<'call, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'call>>;

/// The files that were put aside, by their published names. Nothing survives a crash: the start empties the directory.
#[derive(Debug, Default)]
pub struct Aside(Mutex<HashSet<String>>);

/// Reads published files. Holds: the way to them, and which were put aside.
#[derive(Debug)]
pub struct Reading {
    from: Stored,
    aside: Arc<Aside>,
}

/// Where the files are.
#[derive(Debug)]
pub enum Stored {
    /// A directory.
    Local(Arc<LocalFileSystem>),
    /// HDFS.
    Hdfs(Arc<Hdfs>),
    /// A prefix of a bucket.
    Cloud(Arc<Below>),
}

impl Aside {
    /// Notes that a file is put aside, before it is; gives where.
    pub fn add(&self, at: &str) -> String {
        self.0.lock().insert(at.to_owned());
        place(at)
    }

    /// Where a file lies that was put aside.
    pub fn of(&self, at: &str) -> Option<String> {
        self.0.lock().contains(at).then(|| place(at))
    }

    /// Forgets a file that was deleted.
    pub fn remove(&self, at: &str) {
        self.0.lock().remove(at);
    }
}

fn place(at: &str) -> String {
    format!("{RETIRED_DIR}/{at}")
}

impl Reading {
    /// Reads files there.
    pub fn new(from: Stored, aside: Arc<Aside>) -> Self {
        Self { from, aside }
    }

    async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match (self.get_at(location, options.clone()).await, self.aside_of(location)) {
            (Err(Error::NotFound { .. }), Some(aside)) => self.get_at(&aside, options).await,
            (found, _) => found,
        }
    }

    async fn get_at(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match &self.from {
            Stored::Local(local) => local.get_opts(location, options).await,
            Stored::Hdfs(hdfs) => hdfs.get_range_of(location, options).await,
            Stored::Cloud(cloud) => cloud.get_opts(location, options).await,
        }
    }

    async fn ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match (self.ranges_at(location, ranges).await, self.aside_of(location)) {
            (Err(Error::NotFound { .. }), Some(aside)) => self.ranges_at(&aside, ranges).await,
            (found, _) => found,
        }
    }

    async fn ranges_at(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match &self.from {
            Stored::Local(local) => local.get_ranges(location, ranges).await,
            Stored::Hdfs(hdfs) => hdfs.get_ranges_of(location, ranges).await,
            Stored::Cloud(cloud) => cloud.get_ranges(location, ranges).await,
        }
    }

    /// Asked after the file was not found: it is noted before it goes.
    fn aside_of(&self, location: &Path) -> Option<Path> {
        self.aside.of(location.as_ref()).and_then(|at| Path::parse(at).ok())
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Stored::Local(local) => write!(f, "{local}"),
            Stored::Hdfs(hdfs) => f.write_str(hdfs.url()),
            Stored::Cloud(cloud) => write!(f, "{cloud}"),
        }
    }
}

fn not_this_way<T>() -> Result<T> {
    Err(Error::NotSupported { source: "queries only read published files".into() })
}

impl ObjectStore for Reading {
    fn get_opts<'store, 'path, 'call>(
        &'store self,
        location: &'path Path,
        options: GetOptions,
    ) -> Answer<'call, GetResult>
    where
        'store: 'call,
        'path: 'call,
        Self: 'call,
    {
        Box::pin(self.get(location, options))
    }

    fn get_ranges<'store, 'path, 'ranges, 'call>(
        &'store self,
        location: &'path Path,
        ranges: &'ranges [Range<u64>],
    ) -> Answer<'call, Vec<Bytes>>
    where
        'store: 'call,
        'path: 'call,
        'ranges: 'call,
        Self: 'call,
    {
        Box::pin(self.ranges(location, ranges))
    }

    fn put_opts<'store, 'path, 'call>(
        &'store self,
        _location: &'path Path,
        _payload: PutPayload,
        _options: PutOptions,
    ) -> Answer<'call, PutResult>
    where
        'store: 'call,
        'path: 'call,
        Self: 'call,
    {
        Box::pin(async { not_this_way() })
    }

    fn put_multipart_opts<'store, 'path, 'call>(
        &'store self,
        _location: &'path Path,
        _options: PutMultipartOptions,
    ) -> Answer<'call, Box<dyn MultipartUpload>>
    where
        'store: 'call,
        'path: 'call,
        Self: 'call,
    {
        Box::pin(async { not_this_way() })
    }

    fn delete_stream(&self, _locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { not_this_way() }).boxed()
    }

    fn list(&self, _prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(async { not_this_way() }).boxed()
    }

    fn list_with_delimiter<'store, 'path, 'call>(
        &'store self,
        _prefix: Option<&'path Path>,
    ) -> Answer<'call, ListResult>
    where
        'store: 'call,
        'path: 'call,
        Self: 'call,
    {
        Box::pin(async { not_this_way() })
    }

    fn copy_opts<'store, 'from, 'to, 'call>(
        &'store self,
        _from: &'from Path,
        _to: &'to Path,
        _options: CopyOptions,
    ) -> Answer<'call, ()>
    where
        'store: 'call,
        'from: 'call,
        'to: 'call,
        Self: 'call,
    {
        Box::pin(async { not_this_way() })
    }
}
