//! Threads of what nobody waits for: settling and merging decode and compress for long, and give way to producers and queries.
//!
//! A thread of low priority is never kept from a core for good: beside busy threads it gets a share, a tenth of one thread's. What
//! is too slow at that is for the caller to say, who asks for the priority per piece of work.

use std::io;
use std::sync::LazyLock;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{LakeError, Result};

/// By so much is a thread of low priority nicer than the process: one with a tenth of the weight.
#[cfg(target_os = "linux")]
pub const NICER_BY: i32 = 10;
/// As nice as a thread can be.
#[cfg(target_os = "linux")]
pub const NICEST: i32 = 19;

/// The threads of low priority, and the runtime that they belong to. It is one of its own, because a thread has the priority of the one
/// that begins it, for good (only root raises one again): work that waits for the disk has threads begun, and these must serve nobody
/// else. The process has one, as lakes come and go in tests.
static LOW: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    let low = low_nice();
    let mut threads = Builder::new_multi_thread();
    threads.worker_threads(1).thread_name("lake-low").on_thread_start(move || be_nice(low));
    threads.enable_all().build()
});

/// How a piece of work shares the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// As all other threads of the process.
    Normal,
    /// Others go first.
    Low,
}

/// Does a piece of work on a thread that may block, and gives it the runtime in which it waits. It goes on when the caller goes away,
/// and the caller's runtime does not end before it.
///
/// # Errors
/// `Bug` when it panics, or there are no threads for it.
pub async fn run<T: Send + 'static>(
    name: &str,
    priority: Priority,
    work: impl FnOnce(&Handle) -> T + Send + 'static,
) -> Result<T> {
    let runtime = match priority {
        Priority::Normal => Handle::current(),
        Priority::Low => {
            let low = LOW.as_ref().map_err(|e| LakeError::bug(format!("there are no threads for {name}: {e}")))?;
            low.handle().clone()
        }
    };
    let ended = tokio::task::spawn_blocking(move || match priority {
        Priority::Normal => Ok(work(&runtime)),
        Priority::Low => {
            let within = runtime.clone();
            runtime.block_on(runtime.spawn_blocking(move || work(&within)))
        }
    });
    ended.await.flatten().map_err(|e| LakeError::bug(format!("{name} ended early: {e}")))
}

/// How nice a thread of low priority is, asked on one that has the priority of the process.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "std has no call for it")]
fn low_nice() -> i32 {
    // SAFETY: takes numbers and touches no memory; 0 is the thread that asks.
    (unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } + NICER_BY).min(NICEST)
}

/// Makes this thread so nice; where the kernel refuses it stays as it is.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "std has no call for it")]
fn be_nice(nice: i32) {
    // SAFETY: as above.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

#[cfg(not(target_os = "linux"))]
fn low_nice() -> i32 {
    0
}

#[cfg(not(target_os = "linux"))]
fn be_nice(_nice: i32) {}
