//! The threads of pipelines and tables: starting them, ending them, and their time.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;

use crate::error::{EngineError, ErrorKind, Result};
use crate::shared::{PipelineShared, Published};
use crate::start::Prepared;

/// A thread per pipeline. Holds: the threads that work, and what those that have ended did.
#[derive(Default)]
pub(crate) struct Workers(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    threads: Vec<(Arc<PipelineShared>, JoinHandle<()>)>,
    /// CPU time and records of threads that have ended.
    ended: (u64, u64),
}

impl Workers {
    /// Starts all that is prepared. Must be called within a Tokio runtime.
    pub(crate) fn start(&self, prepared: &mut Prepared) -> Result<()> {
        self.forget_ended();
        for feed in std::mem::take(&mut prepared.feeds) {
            let what = Spawned::new(feed.table.name(), &feed.shared, vec![feed.published.clone()]);
            self.spawn(what, feed.run())?;
        }
        for join in std::mem::take(&mut prepared.joins) {
            self.spawn(Spawned::new(join.name(), &join.shared, join.published()), join.run())?;
        }
        for pipeline in std::mem::take(&mut prepared.pipelines) {
            let what = Spawned::new(pipeline.stream.name(), &pipeline.shared, pipeline.published());
            self.spawn(what, pipeline.run())?;
        }
        Ok(())
    }

    fn spawn(&self, what: Spawned, work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let Spawned { name, shared, published } = what;
        let (runtime, seen) = (Handle::current(), shared.clone());
        let run = move || {
            // A panic must be seen as a stopped pipeline, not as one that is forever late.
            let mut guard = EndGuard { shared: seen, published, ended: false };
            drive(&runtime, work);
            guard.ended = true;
        };
        let thread = std::thread::Builder::new().name(name).spawn(run);
        let thread =
            thread.map_err(|error| EngineError::new(ErrorKind::Storage, format!("cannot start a thread: {error}")))?;
        self.0.lock().threads.push((shared, thread));
        Ok(())
    }

    /// Keeps of threads that have ended only what they did.
    fn forget_ended(&self) {
        let mut inner = self.0.lock();
        let threads = std::mem::take(&mut inner.threads);
        for (shared, thread) in threads {
            if thread.is_finished() {
                inner.ended = sum(inner.ended, shared.done());
            } else {
                inner.threads.push((shared, thread));
            }
        }
    }

    /// Asks all to end after the step under way.
    pub(crate) fn ask_to_end(&self) {
        self.0.lock().threads.iter().for_each(|(shared, _)| shared.stop());
    }

    /// Waits until all have ended. Blocks.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut self.0.lock().threads);
        for (shared, thread) in threads {
            let panicked = thread.join().is_err();
            let mut inner = self.0.lock();
            inner.ended = sum(inner.ended, shared.done());
            if panicked {
                tracing::error!("a pipeline's thread had panicked, please report it");
            }
        }
    }

    /// CPU time in nanoseconds, and records read, of all threads since the start.
    pub(crate) fn done(&self) -> (u64, u64) {
        let inner = self.0.lock();
        inner.threads.iter().fold(inner.ended, |done, (shared, _)| sum(done, shared.done()))
    }
}

/// CPU time and records together.
fn sum(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    (one.0 + other.0, one.1 + other.1)
}

/// A thread to be, and who must hear when it ends.
struct Spawned {
    name: String,
    shared: Arc<PipelineShared>,
    published: Vec<Arc<Published>>,
}

impl Spawned {
    fn new(what: &str, shared: &Arc<PipelineShared>, published: Vec<Arc<Published>>) -> Spawned {
        Spawned { name: format!("engine-{what}"), shared: shared.clone(), published }
    }
}

/// Works to the end, on a thread of its own. A step drives plans to their end from within one turn; DataFusion counts what they read
/// against the turns that tokio gives a task, and when these were used up there, nothing would ever renew them.
fn drive(runtime: &Handle, work: impl Future<Output = ()>) {
    runtime.block_on(unconstrained(work));
}

struct EndGuard {
    shared: Arc<PipelineShared>,
    published: Vec<Arc<Published>>,
    ended: bool,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if !self.ended {
            let failure = "its thread panicked, see the log and report it".to_string();
            self.shared.show_end(Some(failure), &self.published);
        }
        self.shared.end();
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::coop::consume_budget;

    use super::*;

    /// Without its own budget this would not end.
    #[test]
    fn what_a_step_drives_from_within_does_not_run_out_of_turns() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let within = async {
            for _ in 0..10_000 {
                consume_budget().await;
            }
        };
        drive(runtime.handle(), async move { futures::executor::block_on(within) });
    }
}
