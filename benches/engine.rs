//! The engine alone: events per second and core for a one-minute tumbling count by key over JSON, records already in the log.

use std::fmt::Write;
use std::path::Path;

use crate::Outcome;
use crate::settings::Settings;

/// What the engine gave.
#[derive(Debug)]
pub struct Engine {
}

/// Runs it.
pub fn run(_settings: &Settings, _scratch: &Path) -> Outcome<Engine> {
    Ok(Engine {})
}

impl Engine {
    /// Adds its section.
    pub fn describe(&self, text: &mut String) -> Outcome<()> {
        writeln!(text)?;
        Ok(())
    }
}
