//! Published files on HDFS, read by ranges, with the object store's words.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, stream};
use hdfs_native::HdfsError;
use object_store::path::Path;
use object_store::{Attributes, Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, Result};

use super::hdfs::Hdfs;

impl Hdfs {
    /// What was asked for of a file.
    ///
    /// # Errors
    /// `NotFound`, or what HDFS says.
    pub async fn get_range_of(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
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

    /// Ranges of a file, which is opened once for all of them.
    ///
    /// # Errors
    /// `NotFound`, or what HDFS says.
    pub async fn get_ranges_of(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
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
