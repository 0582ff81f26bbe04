//! A full disk: the part of a group that finds no space is kept, and written once there is room. Until then nothing of the group is answered
//! or visible; readers go on, and records of clients are refused (disk.rs).
//!
//! RocksDB applies nothing of a write that its log had no space for. It begins a new log once it has flushed what it holds in memory,
//! which it tries by itself every five seconds; then the part is written as if for the first time. A failed sync is another matter:
//! nobody knows what the device has, so the store is given up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Lane, LaneWriter};
use crate::error::{Error, Result};
use crate::store::Writes;

/// Time between two tries.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// How many tries may fail although the disk has room again: a minute's.
const TRIES_WITH_ROOM_MAX: u32 = 240;

impl Lane {
    /// From now on a writer that finds the disk full does not wait for room, but ends, and nothing more is acknowledged.
    pub(crate) fn give_up_waiting(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().as_ref() {
            thread.thread().unpark();
        }
    }
}

impl LaneWriter {
    /// Writes a part of a group, and waits for space where the disk has none.
    pub(super) fn write(&self, writes: Writes<'_>) -> Result<()> {
        if !self.room.is_scarce() {
            return self.store.write(writes); // without the copy that another try would need
        }
        let Some(kept) = self.store.write_or_return(writes)? else { return Ok(()) };
        tracing::error!("the disk is full, nothing is written until there is room; reads go on");
        self.room.set_blocked(true);
        let written = self.write_again(kept);
        self.room.set_blocked(false);
        if written.is_ok() {
            tracing::info!("the disk has room again, what waited is written");
        }
        written
    }

    fn write_again(&self, first: Writes<'_>) -> Result<()> {
        let (mut kept, mut tries_with_room) = (first, 0);
        loop {
            std::thread::park_timeout(TRY_EVERY);
            if self.stopping.load(Ordering::Acquire) {
                return Err(Error::storage(
                    "the broker stops while its disk is full: what waited was not acknowledged",
                ));
            }
            match self.store.write_or_return(kept)? {
                None => return Ok(()),
                Some(back) => kept = back,
            }
            tries_with_room = if self.room.is_scarce() { 0 } else { tries_with_room + 1 };
            if tries_with_room == TRIES_WITH_ROOM_MAX {
                return self.store.write(kept);
            }
        }
    }
}
