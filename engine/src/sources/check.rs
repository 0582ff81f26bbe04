//! Says what is wrong with declared sources, all mistakes together.

use croner::Cron;

use super::config::{FileFormat, SourceConfig, When};
use super::plan::Plan;
use super::sftp::Address;
use crate::check::REJECTED_SUFFIX;
use crate::config::EngineConfig;
use crate::names::is_topic_name;

/// Every mistake of the sources, each with what to do. `engine` is what else writes topics.
pub fn check_sources(sources: &[SourceConfig], engine: &EngineConfig) -> Vec<(usize, String)> {
    let mut mistakes = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let found = mistakes_of(source).into_iter().chain(clashes(source, &sources[..at], engine));
        mistakes.extend(found.map(|mistake| (at, format!("source {}: {mistake}", source.name))));
    }
    mistakes
}

fn mistakes_of(source: &SourceConfig) -> Vec<String> {
    let mut mistakes = Vec::new();
    if !is_topic_name(&source.name) {
        mistakes.push("the name must be 1 to 200 letters, digits, '.', '_' or '-', as it names a topic too".into());
    }
    if !is_topic_name(&source.topic) {
        mistakes.push(format!("topic '{}' is not a topic name, use letters, digits, '.', '_' or '-'", source.topic));
    }
    let remote = super::remote::is_remote(&source.path);
    match Address::parse(&source.path) {
        Some(Ok(_)) => mistakes.extend(source.login.mistakes()),
        Some(Err(mistake)) => mistakes.push(mistake),
        None if !source.login.is_empty() => {
            mistakes.push("password, private_key and host_key are for paths that begin with sftp://".into());
        }
        None if source.path.contains("://") && !remote => mistakes.push(format!(
            "path '{}': give a file, a folder, a pattern, sftp:// of these, or http(s):// of a file",
            source.path
        )),
        None => {}
    }
    if source.path.contains("**") {
        mistakes.push(format!("path '{}': ** is not known, write * for each level of folders", source.path));
    }
    if remote && matches!(source.when, When::Watch(_)) {
        mistakes.push("a URL cannot be watched: give it a schedule".into());
    }
    if let When::Schedule(cron, zone) = &source.when {
        if let Err(error) = cron.parse::<Cron>() {
            mistakes.push(format!("schedule '{cron}': {error}; write minute hour day month weekday, as 30 6 * * *"));
        }
        if zone.parse::<chrono_tz::Tz>().is_err() {
            mistakes.push(format!("time_zone '{zone}' is not known, write a name such as Europe/Paris"));
        }
    }
    let ruled = !source.set.is_empty()
        || !source.checks.is_empty()
        || !source.unique.is_empty()
        || source.partition.is_some()
        || source.timestamp.is_some();
    match &source.format {
        FileFormat::Csv(format) if !format.header.is_empty() => {
            mistakes.extend(Plan::new(source, &format.header).err().unwrap_or_default());
        }
        // The header is known when a file is read; what can be said before is said now.
        FileFormat::Csv(_) if !source.columns.is_empty() => {
            let header: Vec<String> = source
                .columns
                .iter()
                .map(|column| if column.from.is_empty() { column.name.clone() } else { column.from.clone() })
                .collect();
            mistakes.extend(Plan::new(source, &header).err().unwrap_or_default());
        }
        FileFormat::Csv(_) => {}
        _ if !source.columns.is_empty() => mistakes.extend(Plan::new(source, &[]).err().unwrap_or_default()),
        _ if ruled => mistakes.push("set, checks, unique, partition and timestamp need columns: declare them".into()),
        _ => {}
    }
    mistakes
}

/// Names and topics that something else has.
fn clashes(source: &SourceConfig, before: &[SourceConfig], engine: &EngineConfig) -> Vec<String> {
    let mut mistakes = Vec::new();
    if before.iter().any(|other| other.name == source.name) {
        mistakes.push("the name is declared twice, rename one".into());
    }
    if engine.streams.iter().any(|stream| stream.name == source.name) {
        mistakes.push(format!("stream {0} would write the topic {0}{REJECTED_SUFFIX} too, rename one", source.name));
    }
    if source.topic == format!("{}{REJECTED_SUFFIX}", source.name) {
        mistakes.push(format!("topic {} takes the refused rows, name another", source.topic));
    }
    mistakes
}
