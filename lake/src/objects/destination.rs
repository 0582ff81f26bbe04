//! The destination before it is open.

use std::sync::Arc;

use super::{Address, Objects};
use crate::error::Result;

/// The destination as it is configured, opened when it can be: a lake that is away does not keep the broker from
/// starting.
pub struct Destination {
    address: Address,
    owner: String,
    expected: bool,
    /// Where the connections to HDFS are served, whoever opens them.
    runtime: tokio::runtime::Handle,
    opened: tokio::sync::OnceCell<Arc<Objects>>,
}

impl Destination {
    /// The destination at `address` for the cluster `owner`; `expected` says that files were published there before.
    /// Must be called within the runtime that lives as long as the lake.
    pub fn new(address: Address, owner: String, expected: bool) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self { address, owner, expected, runtime, opened: tokio::sync::OnceCell::new() }
    }

    /// The open destination.
    ///
    /// # Errors
    /// As [`Objects::open`].
    pub async fn get(&self) -> Result<Arc<Objects>> {
        let open =
            || async { Objects::open(&self.address, &self.owner, (self.expected, &self.runtime)).await.map(Arc::new) };
        self.opened.get_or_try_init(open).await.cloned()
    }

    /// The destination for people, as a URL.
    pub fn url(&self) -> String {
        self.opened.get().map_or_else(|| self.address.url.clone(), |objects| objects.url())
    }

    /// The URL by which Hive and Spark know the destination.
    pub fn hadoop_url(&self) -> String {
        self.opened.get().map_or_else(|| self.address.url.clone(), |objects| objects.hadoop_url())
    }
}
