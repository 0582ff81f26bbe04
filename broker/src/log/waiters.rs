//! Those who wait for records: parked fetches, the engine, the lake. One wake-up per publish and waiter.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One who waits, possibly on many partitions at once.
#[derive(Debug, Default)]
pub struct Waiter(Notify);

impl Waiter {
    /// A waiter that watches nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns once any watched partition has published since the last return.
    pub async fn woken(&self) {
        self.0.notified().await;
    }

    /// Wakes it, for reasons other than a publish.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// The waiters of one partition. They leave by being dropped.
#[derive(Debug, Default)]
pub struct Waiters(Mutex<Vec<Weak<Waiter>>>);

impl Waiters {
    /// Adds a waiter.
    pub fn add(&self, waiter: &Arc<Waiter>) {
        let mut list = self.0.lock();
        list.retain(|other| other.strong_count() > 0);
        list.push(Arc::downgrade(waiter));
    }

    /// Wakes all.
    pub fn wake_all(&self) {
        self.0.lock().retain(|waiter| waiter.upgrade().inspect(|waiter| waiter.wake()).is_some());
    }
}
