//! Bytes → one object, seen whole or not at all: in one request when they are few, else in parts of an upload that is
//! completed in the end.
//!
//! A store keeps the parts of an upload that nobody ends, and bills them. So each upload is written down below the data
//! directory before its first part is sent, and removed there when it ended; what a crash left is aborted when the store
//! is opened again ([`Uploads::abort_left`]).
//!
//! ```text
//! <dir>/<name>.tmp        a file that is being written here, to be uploaded when its name is known
//! <dir>/<n>.upload        one line each: the store's URL, the object's path there, the upload's id
//! ```

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error, MultipartId};

use super::blocking;
use super::cloud::Cloud;
use crate::error::{LakeError, Result};

/// Bytes of one part. Fewer go in one request. S3 takes 10,000 parts of 5 MiB or more, some stores only parts of one size.
pub const PART_BYTES: usize = 8 << 20;
/// How an unfinished upload is written down.
const RECORD: &str = "upload";

/// Writes one object. Holds: the bytes that wait for a part, and the upload once one was sent. Dropped before
/// [`Upload::close`] it leaves an upload that is aborted when the store is opened again.
pub struct Upload {
    cloud: Arc<Cloud>,
    at: String,
    waiting: Vec<u8>,
    begun: Option<Begun>,
}

struct Begun {
    path: Path,
    id: MultipartId,
    parts: Vec<PartId>,
    record: PathBuf,
}

/// Which uploads are not ended.
pub struct Uploads {
    dir: PathBuf,
    next: AtomicU64,
}

impl Upload {
    /// An upload to the path `at` of the lake.
    pub fn new(cloud: Arc<Cloud>, at: &str) -> Self {
        Self { cloud, at: at.to_owned(), waiting: Vec::new(), begun: None }
    }

    /// Takes bytes, in order.
    ///
    /// # Errors
    /// `Destination`; nothing of it is seen then.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut left = &bytes[..];
        while !left.is_empty() {
            if self.waiting.len() == PART_BYTES {
                let sent = self.send().await;
                self.or_abort(sent).await?;
            }
            let (now, later) = left.split_at(left.len().min(PART_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            left = later;
        }
        Ok(())
    }

    /// Ends the object, which is then seen whole under its name.
    ///
    /// # Errors
    /// `Destination`; whether it is there is then not known.
    pub async fn close(&mut self) -> Result<()> {
        let ended = self.end().await;
        self.or_abort(ended).await
    }

    async fn end(&mut self) -> Result<()> {
        if self.begun.is_none() {
            return self.cloud.put_whole(&self.at, Bytes::from(std::mem::take(&mut self.waiting))).await;
        }
        if !self.waiting.is_empty() {
            self.send().await?;
        }
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let completed =
            self.cloud.parts().complete_multipart(&begun.path, &begun.id, std::mem::take(&mut begun.parts)).await;
        completed.map_err(|e| self.cloud.failed("complete", &self.at, &e))?;
        if let Some(begun) = self.begun.take() {
            forget(begun.record);
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        let part = Bytes::from(std::mem::replace(&mut self.waiting, Vec::with_capacity(PART_BYTES)));
        let begun = match &mut self.begun {
            Some(begun) => begun,
            none => none.insert(Begun::new(&self.cloud, &self.at).await?),
        };
        let sent = self.cloud.parts().put_part(&begun.path, &begun.id, begun.parts.len(), part.into()).await;
        begun.parts.push(sent.map_err(|e| self.cloud.failed("write", &self.at, &e))?);
        Ok(())
    }

    async fn or_abort(&mut self, outcome: Result<()>) -> Result<()> {
        if outcome.is_ok() {
            return outcome;
        }
        if let Some(begun) = self.begun.take() {
            match self.cloud.parts().abort_multipart(&begun.path, &begun.id).await {
                Ok(()) | Err(Error::NotFound { .. }) => forget(begun.record),
                Err(error) => tracing::debug!(%error, "an upload that failed is aborted at the next start"),
            }
        }
        outcome
    }
}

impl Begun {
    async fn new(cloud: &Cloud, at: &str) -> Result<Begun> {
        let path = cloud.full_path(at)?;
        let id = cloud.parts().create_multipart(&path).await.map_err(|e| cloud.failed("write", at, &e))?;
        let record = match cloud.uploads().note(cloud.url(), &path, &id) {
            Ok(record) => record,
            Err(error) => {
                let _ = cloud.parts().abort_multipart(&path, &id).await;
                return Err(error);
            }
        };
        Ok(Begun { path, id, parts: Vec::new(), record })
    }
}

fn forget(record: PathBuf) {
    // one that stays names an upload that is not there any more
    let _ = std::fs::remove_file(record);
}

impl Uploads {
    /// Those that are written down in a directory.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, next: AtomicU64::new(0) }
    }

    fn note(&self, url: &str, path: &Path, id: &str) -> Result<PathBuf> {
        let unwritable = |e| LakeError::destination(format!("{} cannot be written: {e}", self.dir.display()));
        std::fs::create_dir_all(&self.dir).map_err(unwritable)?;
        loop {
            let record = self.dir.join(format!("{}.{RECORD}", self.next.fetch_add(1, Ordering::Relaxed)));
            match File::create_new(&record) {
                Ok(mut file) => {
                    file.write_all(format!("{url}\n{path}\n{id}\n").as_bytes()).map_err(unwritable)?;
                    return Ok(record);
                }
                // of another store, or of one that could not be asked yet
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(unwritable(error)),
            }
        }
    }

    /// Aborts the uploads that a crash left at the store with this URL, as far as that can be done, and removes files that
    /// were to be uploaded.
    pub async fn abort_left(&self, url: &str, parts: &dyn MultipartStore) {
        let dir = self.dir.clone();
        let left = blocking(move || Ok(left_in(&dir))).await.unwrap_or_default();
        for (record, text) in left {
            let mut lines = text.lines();
            let (Some(of), Some(path), Some(id)) = (lines.next(), lines.next(), lines.next()) else {
                // a crash cut it off before its first part was sent
                forget(record);
                continue;
            };
            let (true, Ok(path)) = (of == url, Path::parse(path)) else { continue };
            match parts.abort_multipart(&path, &id.to_owned()).await {
                Ok(()) | Err(Error::NotFound { .. }) => {
                    tracing::info!(%path, "aborted an upload that a crash left");
                    forget(record);
                }
                Err(error) => tracing::warn!(%path, %error, "an upload that a crash left cannot be aborted yet"),
            }
        }
    }
}

/// The records in a directory; its other files are removed.
fn left_in(dir: &std::path::Path) -> Vec<(PathBuf, String)> {
    let mut records = Vec::new();
    for at in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if at.extension().is_some_and(|end| end == RECORD) {
            records.extend(std::fs::read_to_string(&at).ok().map(|text| (at, text)));
        } else {
            let _ = std::fs::remove_file(&at);
        }
    }
    records
}
