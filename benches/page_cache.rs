//! The page cache is full before anything is measured, as it is on a machine that has been up for a while.
//!
//! A virtual machine gives memory that is free back to its host within seconds, and has to ask for each page again: here that is
//! 2.1 CPU seconds for a GiB that goes into the page cache, where 0.2 are for one that takes the place of another. So whoever wrote
//! more than was free paid up to ten times as much for it as who wrote less, and more the longer the pause before.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Outcome, machine};

/// Read between two looks at what is free.
const STEP_BYTES: u64 = 256 << 20;
/// The cache is full when a step takes less than this share of itself from what is free.
const TAKEN_SHARE_MIN: u64 = 4;
/// Most that is read at one time: more memory has nobody.
const FILL_BYTES_MAX: u64 = 1 << 40;
/// The file is one hole, so it takes no place on the disk, and its pages need no writing to make room.
const FILE_BYTES: u64 = 8 << 40;

static HOLE: OnceLock<File> = OnceLock::new();
/// Up to where the hole was read.
static READ: AtomicU64 = AtomicU64::new(0);

/// Fills what is free with pages that make room for others at once.
///
/// # Errors
/// No file can be made.
pub fn fill() -> Outcome<()> {
    let hole = match HOLE.get() {
        Some(hole) => hole,
        None => {
            let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR"))?;
            file.set_len(FILE_BYTES)?;
            HOLE.get_or_init(|| file)
        }
    };
    let mut page = vec![0; 1 << 20];
    for _ in 0..FILL_BYTES_MAX / STEP_BYTES {
        let before = machine::free_bytes()?;
        for _ in 0..STEP_BYTES >> 20 {
            let at = READ.fetch_add(1 << 20, Ordering::Relaxed) % FILE_BYTES;
            hole.read_exact_at(&mut page, at)?;
        }
        let taken = before.saturating_sub(machine::free_bytes()?);
        if taken < STEP_BYTES / TAKEN_SHARE_MIN {
            break;
        }
    }
    Ok(())
}
