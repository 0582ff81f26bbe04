//! Threads of what nobody waits for: settling and merging decode and compress for long, and give way to producers and queries.
//!
//! A thread of low priority is never kept from a core for good: beside busy threads it gets a share, a tenth of one thread's. What
//! is too slow at that is for the caller to say, who asks for the priority per piece of work.

use std::thread;

use crate::error::{LakeError, Result};

/// By so much is a thread of low priority nicer than the process: one with a tenth of the weight.
#[cfg(target_os = "linux")]
pub const NICER_BY: i32 = 10;

/// How a piece of work shares the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// As all other threads of the process.
    Normal,
    /// Others go first.
    Low,
}

/// Does a piece of work on a thread of its own that may block; it goes on when the caller goes away.
///
/// # Errors
/// `Bug` when it panics, or there is no thread for it.
pub async fn run<T: Send + 'static>(
    name: &'static str,
    priority: Priority,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let work = move || {
        if priority == Priority::Low {
            be_nicer();
        }
        work()
    };
    // of its own, because nobody but root raises a priority again, and the runtime's threads are needed for other things; begun by one
    // of the runtime's all the same, because a runtime that ends waits for these
    let begun = move || thread::Builder::new().name(name.to_owned()).spawn(work).map(thread::JoinHandle::join);
    match tokio::task::spawn_blocking(begun).await {
        Ok(Ok(Ok(done))) => Ok(done),
        Ok(Err(error)) => Err(LakeError::bug(format!("no thread for {name}: {error}"))),
        Ok(Ok(Err(_))) => Err(LakeError::bug(format!("{name} ended early"))),
        Err(error) => Err(LakeError::bug(format!("{name} ended early: {error}"))),
    }
}

/// Lowers the priority of this thread.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "std has no call for it")]
fn be_nicer() {
    // SAFETY: takes a number, touches no memory; Linux keeps the value per thread. What it cannot do leaves the thread as it is.
    unsafe { libc::nice(NICER_BY) };
}

#[cfg(not(target_os = "linux"))]
fn be_nicer() {}
