//! Where tests end the process by name (`tests/faults`): at the seams of a commit, and of the work that takes away what commits wrote.
//!
//! To come to one is to look for a file of its name in the directory `MILLPOND_TEST_CRASH_POINTS`; the layer between the tests' server and its disk
//! (`tests/support/faults/faults.c`) sees the look. Without the variable nobody looks.

use std::path::PathBuf;
use std::sync::LazyLock;

static DIR: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("MILLPOND_TEST_CRASH_POINTS").map(PathBuf::from));

/// A place at which a crash must lose and break nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CrashPoint {
    /// A start has opened the store, and written its notes.
    Opened,
    /// A group of commits is about to be written.
    Taken,
    /// It is written, and not synced.
    Written,
    /// It is synced where somebody waits for that, and neither visible nor answered to them.
    Synced,
    /// It is visible, and not answered.
    Published,
    /// Retention has moved the start of a log.
    Retained,
    /// A step of compaction is written.
    Compacted,
    /// Batches went from a bucket into `log`.
    Moved,
    /// A bucket was added.
    BucketAdded,
    /// The files of a bucket have second names, and it is in the store still.
    BucketLeaving,
    /// A bucket has left the store.
    BucketGone,
}

impl CrashPoint {
    fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Taken => "taken",
            Self::Written => "written",
            Self::Synced => "synced",
            Self::Published => "published",
            Self::Retained => "retained",
            Self::Compacted => "compacted",
            Self::Moved => "moved",
            Self::BucketAdded => "bucket-added",
            Self::BucketLeaving => "bucket-leaving",
            Self::BucketGone => "bucket-gone",
        }
    }

    /// The process has come to this place.
    pub(crate) fn reach(self) {
        if let Some(dir) = &*DIR {
            let _ = std::fs::File::open(dir.join(self.name()));
        }
    }
}
