//! What the C library's allocator keeps. By itself it makes up to eight arenas per core and gives little back, so that the memory of one
//! large query stays with the process for good.

/// Arenas of the allocator: two cores rarely wait for each other's.
const ARENAS_MAX: i32 = 2;

/// Bounds the arenas; to be called before other threads run.
#[allow(unsafe_code, reason = "std has no call for it")]
pub fn bound_arenas() {
    // SAFETY: sets a number inside the allocator; it is documented for use at the start of main.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
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
