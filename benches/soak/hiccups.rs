//! How long the machine keeps a thread waiting that only sleeps: for a core, whoever has it, the host of a virtual machine included.
//! After G. Tene's jHiccup.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the clock.
const NAP: Duration = Duration::from_millis(1);

/// How much longer than they should have each nap took, in nanoseconds. As records that are due at a steady rate would, what is due within
/// a long one waits for the rest of it.
#[derive(Debug, Default)]
pub struct Hiccups(Mutex<Vec<u64>>);

impl Hiccups {
    /// Naps until it is done.
    pub fn watch(&self, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            let started = Instant::now();
            thread::sleep(NAP);
            let late = started.elapsed().saturating_sub(NAP);
            let mut all = self.0.lock().expect("no holder of this lock panics");
            let mut waited = late;
            loop {
                all.push(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
                if waited <= NAP {
                    break;
                }
                waited -= NAP;
            }
        }
    }

    /// Those since the last time.
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.lock().expect("no holder of this lock panics"))
    }
}
