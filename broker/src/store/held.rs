//! Which stores this process has open. RocksDB's lock is of `fcntl`, so it is the process's: it does not tell two brokers of one process apart,
//! and whoever closes the lock's file lets go of it for all of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};

static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// How often a directory that is held is tried again, and after which pause: tasks of a broker that was dropped hold its store for moments.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// A directory that nobody else in this process has. Given back when dropped.
pub(super) struct Held(PathBuf);

impl Held {
    /// Waits a second for who has it.
    ///
    /// # Errors
    /// `Config` when it is not given back by then.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        for _ in 0..TRIES {
            if HELD.lock().insert(dir.clone()) {
                return Ok(Self(dir));
            }
            std::thread::park_timeout(PAUSE);
        }
        let message =
            format!("data directory {} is open in this process already: name another --data-dir", dir.display());
        Err(Error::new(Kind::Config, message))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.lock().remove(&self.0);
    }
}
