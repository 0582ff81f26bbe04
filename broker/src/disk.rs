//! How much space the disk under a directory has, and whether that is enough to take in more records.
//!
//! A store that finds no space writes nothing more until somebody makes room by hand, so clients' records are refused before:
//! with an error after which every client tries again, while what the broker itself writes, and what may free space, goes on.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::log::blocking;

/// What is kept free when the configuration does not say it, in bytes.
const RESERVE_BYTES: i64 = 1 << 30;
/// On a small disk less than that: the part of it that is kept free.
const RESERVE_PART: i64 = 20;
/// Below this, or the reserve where that is more, a write may find no space: the commit lane is ready for it.
const SCARCE_BYTES: i64 = 256 << 20;
/// Time between two looks at the disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether the disk has room for records of clients. Holds: what the last look found, at most a second and a look old, and whether
/// the commit lane waits for space; each look changes the one, the lane the other. Room is assumed where the system does not tell.
/// A crash loses it, and the next start looks first.
#[derive(Debug)]
pub(crate) struct Room {
    dir: PathBuf,
    reserve_bytes: Option<i64>,
    /// Bytes that must become free before records are taken in again; 0 while there is room.
    missing_bytes: AtomicI64,
    blocked: AtomicBool,
}

impl Room {
    /// Room under `dir` as long as `reserve_bytes` are free, or what is kept free without being told.
    pub(crate) fn new(dir: PathBuf, reserve_bytes: Option<u64>) -> Self {
        let reserve_bytes = reserve_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        Self { dir, reserve_bytes, missing_bytes: AtomicI64::new(0), blocked: AtomicBool::new(false) }
    }

    /// Looks at the disk. Blocks.
    pub(crate) fn look(&self) {
        if let Some(found) = space(&self.dir) {
            self.note(found);
        }
    }

    /// Takes in what a look found: all bytes of the disk, and those that are free.
    fn note(&self, (all, free): (i64, i64)) {
        let reserve = self.reserve_bytes.unwrap_or(RESERVE_BYTES.min(all / RESERVE_PART));
        let missing = reserve.saturating_sub(free).max(0);
        let before = self.missing_bytes.swap(missing, Ordering::AcqRel);
        if missing > 0 && before == 0 {
            tracing::error!(
                free,
                reserve,
                "the disk is nearly full, records of clients are refused until there is room"
            );
        } else if missing == 0 && before > 0 {
            tracing::info!(free, reserve, "the disk has room again, records of clients are taken in");
        }
    }

    /// Looks whether a write may find no space. Blocks, as long as one call of the system takes.
    pub(crate) fn is_scarce(&self) -> bool {
        let Some(found) = space(&self.dir) else { return false };
        self.note(found);
        found.1 < SCARCE_BYTES || self.missing_bytes.load(Ordering::Acquire) > 0
    }

    /// Says whether the commit lane waits for space.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
    }

    /// Whether it does.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// # Errors
    /// `DiskFull`.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_blocked() {
            let message = "the broker's disk is full: make room on it, then records are taken in again";
            return Err(Error::new(Kind::DiskFull, message));
        }
        match self.missing_bytes.load(Ordering::Acquire) {
            0 => Ok(()),
            missing => Err(Error::new(
                Kind::DiskFull,
                format!(
                    "the broker's disk is nearly full: {missing} more bytes must be free before records are taken in; delete \
                     topics, shorten their retention, or see which view or lake is behind and keeps them"
                ),
            )),
        }
    }
}

/// Looks again and again, as long as somebody asks.
pub(crate) async fn watch(room: Weak<Room>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(room) = room.upgrade() else { return };
        let looked = blocking(move || {
            room.look();
            Ok(())
        });
        if let Err(error) = looked.await {
            tracing::warn!(%error, "the disk could not be looked at, the next look comes in a second");
        }
    }
}

/// All bytes of the file system that holds `path`, and those that are left for this process. None if the system does
/// not tell.
#[allow(unsafe_code, reason = "std has no call for it")]
pub(crate) fn space(path: &Path) -> Option<(i64, i64)> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends with a zero byte and `found` has room for what the call writes.
    let done = unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) };
    if done != 0 {
        return None;
    }
    // SAFETY: all zeros are a valid value of this struct of integers, and the call has filled it.
    let found = unsafe { found.assume_init() };
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(found.f_frsize)).unwrap_or(i64::MAX);
    Some((bytes(found.f_blocks), bytes(found.f_bavail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: i64 = 1 << 30;

    #[test]
    fn a_reserve_is_kept_free_on_large_and_small_disks() {
        for (reserve, all, free, has_room) in [
            (None, 100 * GIB, GIB, true),
            (None, 100 * GIB, GIB - 1, false),
            (None, 10 * GIB, GIB / 2, true),
            (None, 10 * GIB, GIB / 2 - 1, false),
            (Some(5 << 30), 10 * GIB, 5 * GIB - 1, false),
            (Some(0), 10 * GIB, 0, true),
            (Some(u64::MAX), 10 * GIB, 10 * GIB, false),
        ] {
            let room = Room::new(PathBuf::new(), reserve);
            assert!(room.check().is_ok(), "nobody has looked yet");
            room.note((all, free));
            assert_eq!(room.check().is_ok(), has_room, "{reserve:?} of {all}, {free} free");
        }
    }

    #[test]
    fn records_are_taken_in_again_once_there_is_room() {
        let room = Room::new(PathBuf::new(), None);
        room.note((100 * GIB, GIB - 5));
        let refused = room.check().unwrap_err();
        assert_eq!((refused.kind.code(), refused.kind.act()), (56, crate::Act::Retry));
        assert!(refused.message.contains(": 5 more bytes"), "{refused}");
        room.note((100 * GIB, GIB));
        room.check().unwrap();
        room.set_blocked(true);
        assert_eq!(room.check().unwrap_err().kind, Kind::DiskFull, "what is written waits, whatever the disk says");
        room.set_blocked(false);
        room.check().unwrap();
    }
}
