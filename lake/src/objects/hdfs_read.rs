//! HDFS as DataFusion and Parquet's reader see it: published files, read by ranges. Nothing is written or listed this
//! way; queries take names and sizes from the manifest.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use hdfs_native::HdfsError;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::hdfs::Hdfs;

/// What `#[async_trait]` makes of an `async fn`.
type Answer<'call, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'call>>;

impl fmt::Display for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url())
    }
}

impl Hdfs {
    async fn get_range_of(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let failed = |error| store_error(location, error);
        let size = match options.head {
            true => self.status(location.as_ref()).await.map_err(failed)?.map(|status| status.length),
            false => None,
        };
        if options.head {
            let size = size.ok_or_else(|| store_error(location, HdfsError::FileNotFound(location.to_string())))?;
            return Ok(result(location, size, 0..0, Bytes::new()));
        }
        let file = self.open_file(location.as_ref()).await.map_err(failed)?;
        let size = file.file_length();
        let range = match &options.range {
            Some(range) => range.as_range(size as u64).map_err(|e| generic(location, e))?,
            None => 0..size as u64,
        };
        let (from, count) = span(location, &range)?;
        let bytes = self.read_range(&file, from, count).await.map_err(failed)?;
        Ok(result(location, size, range, bytes))
    }

    /// Opens the file once for all ranges.
    async fn get_ranges_of(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let failed = |error| store_error(location, error);
        let file = self.open_file(location.as_ref()).await.map_err(failed)?;
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            let range = GetRange::Bounded(range.clone());
            let range = range.as_range(file.file_length() as u64).map_err(|e| generic(location, e))?;
            let (from, count) = span(location, &range)?;
            parts.push(self.read_range(&file, from, count).await.map_err(failed)?);
        }
        Ok(parts)
    }
}

fn result(location: &Path, size: usize, range: Range<u64>, bytes: Bytes) -> GetResult {
    let last_modified = chrono::DateTime::UNIX_EPOCH; // a published file never changes
    GetResult {
        payload: GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed()),
        meta: ObjectMeta { location: location.clone(), last_modified, size: size as u64, e_tag: None, version: None },
        range,
        attributes: Attributes::new(),
    }
}

fn span(location: &Path, range: &Range<u64>) -> Result<(usize, usize)> {
    let from = usize::try_from(range.start).map_err(|e| generic(location, e))?;
    let count = usize::try_from(range.end.saturating_sub(range.start)).map_err(|e| generic(location, e))?;
    Ok((from, count))
}

fn store_error(location: &Path, error: HdfsError) -> Error {
    match error {
        HdfsError::FileNotFound(_) => Error::NotFound { path: location.to_string(), source: Box::new(error) },
        other => generic(location, other),
    }
}

fn generic(location: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    tracing::debug!(%location, %error, "reading from HDFS failed");
    Error::Generic { store: "hdfs", source: Box::new(error) }
}

fn not_this_way<T>() -> Result<T> {
    Err(Error::NotSupported { source: "queries only read published files".into() })
}

impl ObjectStore for Hdfs {
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
        Box::pin(self.get_range_of(location, options))
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
        Box::pin(self.get_ranges_of(location, ranges))
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
