//! The systems that are built in: their configuration and the description of their simulator, from config/.

use std::path::Path;

use api::config::Source;

use crate::failure::Failure;

/// A built-in system.
pub struct System {
    /// Its name on the command line.
    pub name: &'static str,
    /// Topics, streams, views, tables, dashboards.
    pub config: &'static str,
    /// What the simulator sends.
    pub simulator: &'static str,
}

/// All of them.
pub const SYSTEMS: [System; 1] = [System {
    name: "music",
    config: include_str!("../config/music/system.toml"),
    simulator: include_str!("../config/music/simulator.toml"),
}];

/// The system of that name, or the names there are.
pub fn find(name: &str) -> Result<&'static System, Failure> {
    SYSTEMS.iter().find(|system| system.name == name).ok_or_else(|| {
        let near = api::config::suggestion(name, SYSTEMS.iter().map(|system| system.name));
        Failure::Usage(format!("no system is called {name}{near}"))
    })
}

/// The simulator description of a built-in system, or the one in a file (a name with `/` or `.toml`).
pub fn simulator(name: &str) -> Result<Source, Failure> {
    if name.contains('/') || name.ends_with(".toml") {
        let text = std::fs::read_to_string(Path::new(name))
            .map_err(|error| Failure::Usage(format!("{name} cannot be read: {error}")))?;
        return Ok(Source::text(name, &text));
    }
    find(name).map(|system| Source::text(&format!("config/{}/simulator.toml", system.name), system.simulator))
}
