//! A child process that is told one line after the other, and says `done NUMBER` of each when it is done, with what it took.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Cost;
use crate::Outcome;
use crate::server::process::Process;

/// Most time of one line.
const LINE_MAX: Duration = Duration::from_secs(900);

/// Ended when dropped.
pub struct Dialogue {
    process: Process,
    told: usize,
}

impl Dialogue {
    /// Starts it; what it says lies beside `stem`.
    pub fn start(command: Command, stem: &Path) -> Self {
        Self { process: Process::start(command, stem), told: 0 }
    }

    /// Tells it a line; what that took, if it says so.
    ///
    /// # Errors
    /// It ended, or is not done in time.
    pub fn tell(&mut self, line: &str) -> Outcome<Option<Cost>> {
        self.process.tell(line);
        let done = format!("done {}", self.told);
        self.told += 1;
        let is_it = |said: &str| said == done || said.starts_with(&format!("{done} "));
        let said = self.process.wait_for_line(is_it, LINE_MAX)?;
        let figures: Vec<f64> = said[done.len()..].split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        match figures[..] {
            [] => Ok(None),
            [cpu_ns, clock_ns] => Ok(Some(Cost { cpu: cpu_ns / 1e9, seconds: clock_ns / 1e9 })),
            _ => Err(format!("not what a line took: {said}").into()),
        }
    }
}
