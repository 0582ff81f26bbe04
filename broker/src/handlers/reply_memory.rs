//! Memory for replies of all connections together: one permit a byte, held until the reply's last byte has left.
//!
//! Nobody waits for it longer than it says. While somebody waits, connections whose peers do not read are closed
//! (`net/connection.rs`), so a peer that reads nothing does not keep the others from reading.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// Least share with which a reply of records is made.
pub(super) const SHARE_BYTES_MIN: usize = 64 * 1024;

/// The memory. Holds: what is free, and how many wait for some. Always true: shares and free bytes make up all of it.
pub(crate) struct ReplyMemory {
    free: Arc<Semaphore>,
    bytes: usize,
    waiting: watch::Sender<usize>,
}

impl ReplyMemory {
    /// A memory of so many bytes, all free.
    pub(crate) fn new(bytes: usize) -> Arc<ReplyMemory> {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Arc::new(ReplyMemory { free: Arc::new(Semaphore::new(bytes)), bytes, waiting: watch::Sender::new(0) })
    }

    /// All bytes, free or not.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that are free.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.free.available_permits()
    }

    /// How many wait for memory, as it changes.
    pub(crate) fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
    }

    /// A share of what is wanted, or of less when memory is short; an empty one if there is nothing until then.
    pub(crate) async fn some(&self, wanted: usize, until: Instant) -> OwnedSemaphorePermit {
        let mut bytes = wanted.max(SHARE_BYTES_MIN);
        while bytes > SHARE_BYTES_MIN {
            if let Some(share) = self.now(bytes) {
                return share;
            }
            bytes = (bytes / 4).max(SHARE_BYTES_MIN);
        }
        let share = self.all(bytes, until).await;
        share.unwrap_or_else(|| self.now(0).expect("nothing is always free"))
    }

    /// A share of `bytes`, at most all there is; none if it is not free until then.
    pub(crate) async fn all(&self, bytes: usize, until: Instant) -> Option<OwnedSemaphorePermit> {
        let bytes = bytes.min(self.bytes);
        if let Some(share) = self.now(bytes) {
            return Some(share);
        }
        let _waits = Waits::begin(&self.waiting);
        let permits = u32::try_from(bytes).ok()?;
        timeout_at(until, self.free.clone().acquire_many_owned(permits)).await.ok()?.ok()
    }

    fn now(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}

/// One who waits; counted until it is dropped.
struct Waits<'a>(&'a watch::Sender<usize>);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a watch::Sender<usize>) -> Waits<'a> {
        waiting.send_modify(|count| *count += 1);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
