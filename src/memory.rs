//! What the C library's allocator keeps. By itself it makes up to eight arenas per core and gives little back, so that the memory of one
//! large query stays with the process for good.

use std::time::Duration;

/// Arenas of the allocator: two cores rarely wait for each other's.
const ARENAS_MAX: i32 = 2;
/// From so many bytes on an allocation has pages of its own, which leave with it. By itself the allocator raises this to what it has seen
/// freed, up to 32 MiB: then one batch that unfolds to as much leaves a hole in an arena, and the next one opens another arena's heap.
const OWN_PAGES_BYTES_MIN: i32 = 8 << 20;
/// So much free memory at an arena's end stays with it; twice the above, as where the allocator chooses both.
const FREE_BYTES_MAX: i32 = 2 * OWN_PAGES_BYTES_MIN;

/// Bounds what is kept; to be called before other threads run.
#[allow(unsafe_code, reason = "std has no call for it")]
pub fn bound_arenas() {
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

/// Time between two looks whether free memory goes back.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A process that takes less than this share of one core is quiet.
const QUIET: f64 = 0.1;
/// Looks after which it goes back from one that is never quiet.
const BUSY_LOOKS: u32 = 12;

/// When free memory goes back: at once where little is done, and seldom under load, as who allocates next asks the system for each page
/// again. A few thousand of them are 10 to 50 ms of the thread that all producers wait for.
#[derive(Debug, Default)]
pub struct GiveBack {
    cpu_seconds: f64,
    looks: u32,
}

impl GiveBack {
    /// Takes the processor time since the start, every [`LOOK_EVERY`]; says whether it is time.
    pub fn is_due(&mut self, cpu_seconds: f64) -> bool {
        let is_quiet = cpu_seconds - self.cpu_seconds < QUIET * LOOK_EVERY.as_secs_f64();
        self.cpu_seconds = cpu_seconds;
        self.looks += 1;
        let is_due = is_quiet || self.looks >= BUSY_LOOKS;
        if is_due {
            self.looks = 0;
        }
        is_due
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_goes_back_when_quiet_and_seldom_under_load() {
        let mut give_back = GiveBack::default();
        let due = |give_back: &mut GiveBack, seconds: &[f64]| -> Vec<bool> {
            seconds.iter().map(|seconds| give_back.is_due(*seconds)).collect()
        };
        assert_eq!(due(&mut give_back, &[0.3, 0.4, 3.0, 8.0, 8.2]), [true, true, false, false, true]);
        let busy: Vec<f64> = (1..=24).map(|look| 8.2 + f64::from(look)).collect();
        let at: Vec<usize> =
            due(&mut give_back, &busy).iter().enumerate().filter(|(_, due)| **due).map(|(at, _)| at).collect();
        assert_eq!(at, [11, 23]);
    }
}
