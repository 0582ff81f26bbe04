//! The systems that are built in: their configuration and the descriptions of their simulators, from config/.

use std::path::Path;

use api::config::{Source, suggestion};

use crate::failure::Failure;

/// A built-in system.
pub struct System {
    /// Its name on the command line.
    pub name: &'static str,
    /// Topics, streams, views, tables, dashboards.
    pub config: &'static str,
    /// What its simulators send, one topic each: file name and text.
    pub simulators: &'static [(&'static str, &'static str)],
    /// What its sample files are, if it has some.
    pub data: Option<&'static str>,
}

/// All of them.
pub const SYSTEMS: [System; 4] = [
    System {
        name: "music",
        config: include_str!("../config/music/system.toml"),
        simulators: &[
            ("listeners", include_str!("../config/music/listeners.toml")),
            ("simulator", include_str!("../config/music/simulator.toml")),
        ],
        data: None,
    },
    System {
        name: "freelance",
        config: include_str!("../config/freelance/system.toml"),
        simulators: &[],
        data: Some(include_str!("../config/freelance/data.toml")),
    },
    System {
        name: "spotify",
        config: include_str!("../config/spotify/system.toml"),
        simulators: &[("tracks", include_str!("../config/spotify/tracks.toml"))],
        data: None,
    },
    System {
        name: "orangescrum",
        config: include_str!("../config/orangescrum/system.toml"),
        simulators: &[
            ("users", include_str!("../config/orangescrum/users.toml")),
            ("projects", include_str!("../config/orangescrum/projects.toml")),
            ("events", include_str!("../config/orangescrum/events.toml")),
            ("logs", include_str!("../config/orangescrum/logs.toml")),
            ("metrics", include_str!("../config/orangescrum/metrics.toml")),
        ],
        data: None,
    },
];

/// The system of that name, or the names there are.
pub fn find(name: &str) -> Result<&'static System, Failure> {
    SYSTEMS.iter().find(|system| system.name == name).ok_or_else(|| {
        let near = suggestion(name, SYSTEMS.iter().map(|system| system.name));
        Failure::Usage(format!("no system is called {name}{near}"))
    })
}

/// The simulator descriptions of a built-in system (`music`), one of them (`music:simulator`), or the one in a file (a name with `/` or
/// `.toml`).
pub fn simulators(name: &str) -> Result<Vec<Source>, Failure> {
    if let Some(file) = of_file(name) {
        return file.map(|source| vec![source]);
    }
    let (system, part) = name.split_once(':').map_or((name, None), |(system, part)| (system, Some(part)));
    let system = find(system)?;
    let wanted = system.simulators.iter().filter(|(name, _)| part.is_none_or(|part| part == *name));
    let sources: Vec<Source> =
        wanted.map(|(part, text)| Source::text(&format!("config/{}/{part}.toml", system.name), text)).collect();
    match part {
        Some(part) if sources.is_empty() => {
            let near = suggestion(part, system.simulators.iter().map(|(name, _)| *name));
            Err(Failure::Usage(format!("{} has no simulator called {part}{near}", system.name)))
        }
        _ => Ok(sources),
    }
}

/// The description of a built-in system's sample files, or the one in a file (a name with `/` or `.toml`).
pub fn data(name: &str) -> Result<Source, Failure> {
    if let Some(file) = of_file(name) {
        return file;
    }
    match find(name)?.data {
        Some(text) => Ok(Source::text(&format!("config/{name}/data.toml"), text)),
        None => {
            Err(Failure::Usage(format!("{name} has no sample files: its events come from `millpond simulate {name}`")))
        }
    }
}

/// What a file holds, where a name is that of a file.
fn of_file(name: &str) -> Option<Result<Source, Failure>> {
    let is_file = name.contains('/') || name.ends_with(".toml");
    is_file.then(|| {
        let text = std::fs::read_to_string(Path::new(name));
        text.map(|text| Source::text(name, &text))
            .map_err(|error| Failure::Usage(format!("{name} cannot be read: {error}")))
    })
}
