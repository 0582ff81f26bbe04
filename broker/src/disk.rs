//! How much space the disk under a directory has.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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
