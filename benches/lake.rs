//! The lake's half: how fast it flushes and into how many bytes, what its queries take beside other engines, and what sealing
//! costs producers. Answers and counts are compared before any figure is given.

mod flush;
mod log;
mod queries;
mod rows;
mod sealing;

use std::fmt::Write;
use std::path::Path;

use crate::Outcome;
use crate::settings::Settings;

/// What the lake gave.
#[derive(Debug)]
pub struct Lake {
    /// Flushing.
    pub flushes: flush::Flushes,
    /// Of dashboards over a part of the rows, and aggregations over all.
    pub queried: [queries::Queried; 2],
    /// Producing while files are made.
    pub sealed: sealing::Sealed,
}

/// Runs the half.
///
/// # Errors
/// The lake fails, or answers wrong.
pub fn run(settings: &Settings, scratch: &Path) -> Outcome<Lake> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let flushes = runtime.block_on(flush::run(settings, scratch))?;
    let queried = runtime.block_on(queries::run(settings, scratch))?;
    drop(runtime);
    let sealed = sealing::run(settings, scratch)?;
    Ok(Lake { flushes, queried, sealed })
}

impl Lake {
    /// Adds its section.
    ///
    /// # Errors
    /// None in practice.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        writeln!(text, "## Lake\n")?;
        self.flushes.describe(text)?;
        for queried in &self.queried {
            queried.describe(text)?;
        }
        self.sealed.describe(text)
    }
}
