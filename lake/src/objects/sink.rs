//! Where a Parquet file's bytes go while it is written, in order and once.

use bytes::Bytes;
use futures::future::BoxFuture;
use object_store::buffered::BufWriter;
use parquet::arrow::async_writer::{AsyncFileWriter, ParquetObjectWriter};

use super::hdfs::HdfsFile;
use super::staged::StagedFile;
use super::upload::Upload;

/// A file being written. Dropped before it is completed it leaves a hidden file at most, or an upload that nobody sees.
pub struct FileSink(Kind);

#[allow(clippy::large_enum_variant, reason = "one per file that is written")]
enum Kind {
    Local(ParquetObjectWriter),
    Hdfs(Box<HdfsFile>),
    Staged(StagedFile),
    Upload(Box<Upload>),
}

impl FileSink {
    /// A sink into a local file.
    pub(super) fn local(file: BufWriter) -> Self {
        Self(Kind::Local(ParquetObjectWriter::from_buf_writer(file)))
    }

    /// A sink into a file on HDFS.
    pub(super) fn hdfs(file: HdfsFile) -> Self {
        Self(Kind::Hdfs(Box::new(file)))
    }

    /// A sink into a file that is uploaded later.
    pub(super) fn staged(file: StagedFile) -> Self {
        Self(Kind::Staged(file))
    }

    /// A sink into an object.
    pub(super) fn upload(upload: Upload) -> Self {
        Self(Kind::Upload(Box::new(upload)))
    }
}

impl AsyncFileWriter for FileSink {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        match &mut self.0 {
            Kind::Local(file) => file.write(bytes),
            Kind::Hdfs(file) => Box::pin(async move { file.write(bytes).await.map_err(external) }),
            Kind::Staged(file) => Box::pin(async move { file.write(bytes).await.map_err(external) }),
            Kind::Upload(upload) => Box::pin(async move { upload.write(bytes).await.map_err(external) }),
        }
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        match &mut self.0 {
            Kind::Local(file) => file.complete(),
            Kind::Hdfs(file) => Box::pin(async move { file.close().await.map_err(external) }),
            Kind::Staged(file) => Box::pin(async move { file.flush().await.map_err(external) }),
            Kind::Upload(upload) => Box::pin(async move { upload.close().await.map_err(external) }),
        }
    }
}

fn external(error: crate::error::LakeError) -> parquet::errors::ParquetError {
    parquet::errors::ParquetError::External(Box::new(error))
}
