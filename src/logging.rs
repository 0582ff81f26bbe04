//! What the process logs on stderr: as `MILLPOND_LOG` says at start, then as the broker's loggers are changed (KIP-412).

use std::sync::OnceLock;

use broker::{Broker, Levels, ROOT};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::failure::Failure;

/// What is logged without `MILLPOND_LOG`.
const DEFAULT: &str = "info";

/// The way to change what is logged, and the levels of the start.
static LOGGING: OnceLock<(reload::Handle<EnvFilter, Registry>, Levels)> = OnceLock::new();

/// Begins to log.
pub fn start() -> Result<(), Failure> {
    let text = std::env::var("MILLPOND_LOG").unwrap_or_else(|_| DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|error| Failure::Usage(format!("MILLPOND_LOG={text}: {error}")))?;
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    // a second call in one process keeps the first subscriber
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = LOGGING.set((handle, levels(&text)));
    }
    Ok(())
}

/// Shows the levels as those of the broker's loggers, where they can be changed.
pub fn connect(broker: &Broker) {
    let Some((handle, levels)) = LOGGING.get() else { return };
    let apply = |levels: &Levels| {
        let filter = EnvFilter::try_new(directives(levels)).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    };
    broker.loggers().connect(levels.clone(), Box::new(apply));
}

/// The levels of `info,broker=debug`, in Kafka's words. Other directives act until a level is changed.
fn levels(text: &str) -> Levels {
    let one = |directive: &str| {
        let (name, level) = directive.split_once('=').unwrap_or((ROOT, directive));
        let known = level.parse::<tracing::Level>().ok().filter(|_| !name.contains('['))?;
        Some((name.trim().to_owned(), known.to_string()))
    };
    text.split(',').filter_map(|directive| one(directive.trim())).collect()
}

/// The filter that gives these levels; FATAL is what tracing calls ERROR.
fn directives(levels: &Levels) -> String {
    let one = |(name, level): (&String, &String)| {
        let level = if level == "FATAL" { "error".to_owned() } else { level.to_lowercase() };
        if name == ROOT { level } else { format!("{name}={level}") }
    };
    levels.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_and_written() {
        let mut read = levels("info, broker=debug,lake[span]=trace");
        assert_eq!((read[ROOT].as_str(), read["broker"].as_str(), read.len()), ("INFO", "DEBUG", 2));
        read.insert("lake".to_owned(), "FATAL".to_owned());
        assert_eq!(directives(&read), "broker=debug,lake=error,info");
    }
}
