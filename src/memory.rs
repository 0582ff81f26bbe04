//! What the C library's allocator keeps. By itself it makes up to eight arenas per core and gives little back, so that the memory of one
//! large query stays with the process for good.

/// Arenas of the allocator: two cores rarely wait for each other's.
const ARENAS_MAX: i32 = 2;
/// From so many bytes on an allocation has pages of its own, which leave with it. By itself the allocator raises this to what it has seen
/// freed, up to 32 MiB: then one batch that unfolds to as much leaves a hole in an arena, and the next one opens another arena's heap.
const OWN_PAGES_BYTES_MIN: i32 = 8 << 20;
/// So much free memory at an arena's end stays with it; twice the above, as where the allocator chooses both.
const FREE_BYTES_MAX: i32 = 2 * OWN_PAGES_BYTES_MIN;

/// Bounds what is kept; to be called before other threads run.
#[allow(unsafe_code, reason = "std has no call for it")]
pub fn bound() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, ARENAS_MAX),
        (libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES_MIN),
        (libc::M_TRIM_THRESHOLD, FREE_BYTES_MAX),
    ] {
        // SAFETY: sets a number inside the allocator; it is documented for use at the start of main.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives free memory back to the system. Takes milliseconds, during which other threads may wait to allocate.
#[allow(unsafe_code, reason = "std has no call for it")]
pub fn give_back() {
    // SAFETY: may be called at any time from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
