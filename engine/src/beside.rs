//! Work for a pipeline on a thread beside its own, while that computes a step.

use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{EngineError, Result};
use crate::pipeline::ThreadCpu;

/// One piece of work under way. Where nobody waits for it, it goes on to its end, and what it gives is thrown away.
pub(crate) struct Beside<T>(JoinHandle<(T, u64)>);

impl<T: Send + 'static> Beside<T> {
    /// Begins it, within a Tokio runtime.
    pub(crate) fn begin(work: impl Future<Output = T> + Send + 'static) -> Beside<T> {
        let runtime = Handle::current();
        Beside(spawn_blocking(move || {
            let mut cpu = ThreadCpu::new();
            let before = cpu.busy_ns();
            let done = runtime.block_on(unconstrained(work));
            (done, cpu.busy_ns().saturating_sub(before))
        }))
    }

    /// What it gives, and the nanoseconds that it was on a CPU.
    pub(crate) async fn end(self) -> Result<(T, u64)> {
        self.0.await.map_err(|error| EngineError::bug(format!("work beside a pipeline was broken off: {error}")))
    }
}
