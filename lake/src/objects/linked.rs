//! What tables need whose readers go back in time: small files that change as a whole, and second names of files.

use bytes::Bytes;

use super::{Objects, Place};
use crate::error::Result;

/// Whether a file has a second name now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// It has.
    Done,
    /// There is no such file.
    Gone,
    /// The destination knows no second names.
    Refused,
}

impl Objects {
    /// Writes a small file, or replaces it: readers find the old one or the new one whole. [`Objects::sync`] makes it durable.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn put_whole(&self, at: &str, bytes: Bytes) -> Result<()> {
        match &self.place {
            Place::Local(local) => local.put_whole(at, bytes).await,
            Place::Hdfs(hdfs) => hdfs.put_whole(at, bytes).await,
            Place::Cloud(cloud) => cloud.put_small(at, bytes).await,
        }
    }

    /// Gives a published file a second name, which stays when the first one goes. Done again, it changes nothing.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn link(&self, at: &str, to: &str) -> Result<Linked> {
        match &self.place {
            Place::Local(local) => local.link(at, to).await,
            Place::Hdfs(_) | Place::Cloud(_) => Ok(Linked::Refused),
        }
    }

    /// Whether files here can have second names.
    pub fn links(&self) -> bool {
        matches!(self.place, Place::Local(_))
    }
}
