//! What is logged, by part of the program: the levels that Kafka's tools see and change as those of a broker's loggers (KIP-412).
//!
//! The program that holds the broker connects its own logging. Levels are not kept: after a start those of the start hold again.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};

/// The logger of everything that has no level of its own.
pub const ROOT: &str = "root";
/// The parts that can have one.
const PARTS: [&str; 5] = ["api", "broker", "engine", "lake", "millpond"];
/// Kafka's words for levels.
const LEVELS: [&str; 6] = ["DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN"];

/// Levels by logger, in Kafka's words.
pub type Levels = BTreeMap<String, String>;
/// Has the program log by these levels from now on.
pub type Apply = Box<dyn Fn(&Levels) -> std::result::Result<(), String> + Send + Sync>;

/// The loggers. Holds: levels that were set, the root's always among them once logging is connected. `change` alone changes them. A
/// crash forgets them.
#[derive(Default)]
pub struct Loggers {
    connected: Mutex<Option<(Levels, Apply)>>,
}

impl Loggers {
    /// Connects the program's logging, which starts with these levels.
    pub fn connect(&self, mut started: Levels, apply: Apply) {
        started.entry(ROOT.to_owned()).or_insert_with(|| "WARN".to_owned());
        *self.connected.lock() = Some((started, apply));
    }

    /// Every logger with its level; none while nothing is connected.
    pub fn levels(&self) -> Levels {
        let connected = self.connected.lock();
        let Some((levels, _)) = connected.as_ref() else { return Levels::new() };
        let level = |name: &str| levels.get(name).or_else(|| levels.get(ROOT)).cloned().unwrap_or_default();
        PARTS.iter().chain([&ROOT]).map(|name| ((*name).to_owned(), level(name))).collect()
    }

    /// Sets levels, or takes them back by None; all or nothing. With `only_check` nothing changes.
    ///
    /// # Errors
    /// `InvalidConfig` for a logger or level that there is not, `InvalidRequest` where the root would have none.
    pub fn change(&self, edits: &[(&str, Option<&str>)], only_check: bool) -> Result<()> {
        let mut connected = self.connected.lock();
        let mut changed = connected.as_ref().map(|(levels, _)| levels.clone()).unwrap_or_default();
        for (name, level) in edits {
            if connected.is_none() || !(*name == ROOT || PARTS.contains(name)) {
                let message =
                    format!("there is no logger {}; there are root, {}", name.escape_debug(), PARTS.join(", "));
                return Err(Error::new(Kind::InvalidConfig, message));
            }
            match level {
                Some(level) if LEVELS.contains(level) => drop(changed.insert((*name).to_owned(), (*level).to_owned())),
                Some(level) => {
                    let message =
                        format!("there is no level {}; there are {}", level.escape_debug(), LEVELS.join(", "));
                    return Err(Error::new(Kind::InvalidConfig, message));
                }
                None if *name == ROOT => {
                    return Err(Error::new(Kind::InvalidRequest, "the root logger must have a level; set another one"));
                }
                None => drop(changed.remove(*name)),
            }
        }
        if only_check {
            return Ok(());
        }
        if let Some((levels, apply)) = connected.as_mut() {
            apply(&changed).map_err(|why| Error::new(Kind::InvalidConfig, why))?;
            *levels = changed;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn levels_are_set_and_taken_back() {
        let loggers = Loggers::default();
        assert!(loggers.levels().is_empty());
        assert_eq!(loggers.change(&[("broker", Some("DEBUG"))], false).unwrap_err().kind, Kind::InvalidConfig);
        let applied: Arc<Mutex<Levels>> = Arc::default();
        let seen = applied.clone();
        let apply: Apply = Box::new(move |levels| {
            *seen.lock() = levels.clone();
            Ok(())
        });
        loggers.connect([(ROOT.to_owned(), "INFO".to_owned())].into(), apply);
        assert_eq!((loggers.levels()["broker"].as_str(), loggers.levels().len()), ("INFO", 6));
        loggers.change(&[("broker", Some("DEBUG"))], false).unwrap();
        assert_eq!((loggers.levels()["broker"].as_str(), applied.lock()["broker"].as_str()), ("DEBUG", "DEBUG"));
        loggers.change(&[("broker", None), ("lake", Some("ERROR"))], true).unwrap();
        assert_eq!(loggers.levels()["lake"], "INFO");
        loggers.change(&[("broker", None)], false).unwrap();
        assert_eq!(loggers.levels()["broker"], "INFO");
        for (edit, kind) in [
            (("root", None), Kind::InvalidRequest),
            (("nobody", Some("DEBUG")), Kind::InvalidConfig),
            (("lake", Some("LOUD")), Kind::InvalidConfig),
        ] {
            assert_eq!(loggers.change(&[edit], false).unwrap_err().kind, kind);
        }
    }
}
