//! `[[sources]]` from checked values.

use std::path::Path;

use engine::sources::{
    CsvFormat, Encoding, FileFormat, Pace, SetConfig, SftpLogin, SourceColumn, SourceConfig, When, check_sources,
};
use engine::{CheckConfig, EngineConfig};

use super::mistake::Mistakes;
use super::value::Entry;

/// All sources, checked against each other and the streams.
pub fn sources(
    entries: &[Entry],
    data_dir: &Path,
    engine: &EngineConfig,
    mistakes: &mut Mistakes,
) -> Vec<SourceConfig> {
    let sources: Vec<SourceConfig> = entries.iter().map(|entry| source(entry, data_dir, mistakes)).collect();
    for (at, message) in check_sources(&sources, engine) {
        mistakes.add(&entries[at].origin, entries[at].path.as_str(), message);
    }
    sources
}

fn source(entry: &Entry, data_dir: &Path, mistakes: &mut Mistakes) -> SourceConfig {
    let text = |key: &str| entry.text_or_none(key).unwrap_or_default();
    SourceConfig {
        name: text("name"),
        topic: text("topic"),
        path: text("path").replace("{data_dir}", &data_dir.display().to_string()),
        login: SftpLogin {
            password: entry.text_or_none("password"),
            private_key: entry.text_or_none("private_key"),
            private_key_password: entry.text_or_none("private_key_password"),
            host_key: entry.text_or_none("host_key"),
        },
        format: format(entry, mistakes),
        when: when(entry, mistakes),
        columns: entry.tables("columns").iter().map(column).collect(),
        set: entry.tables("set").iter().map(set).collect(),
        checks: entry.tables("checks").iter().map(check).collect(),
        key: entry.text_or_none("key"),
        partition: entry.text_or_none("partition"),
        timestamp: entry.text_or_none("timestamp"),
        unique: entry.texts("unique"),
        record_id: entry.bool("record_id"),
        time_field: entry.text_or_none("time_field"),
        pace: Pace {
            batch_records: entry.count("batch_records"),
            delay_ms: entry.unsigned("delay"),
            retries: u32::try_from(entry.integer("retries")).unwrap_or(0),
            record_bytes_max: entry.count("record_bytes_max"),
        },
        place: entry.origin.to_string(),
    }
}

fn format(entry: &Entry, mistakes: &mut Mistakes) -> FileFormat {
    match entry.text("format").as_str() {
        "json" => return FileFormat::Json,
        "ndjson" => return FileFormat::Ndjson,
        _ => {}
    }
    let delimiter = match entry.text("delimiter").as_str() {
        "\\t" => b'\t',
        one if one.len() == 1 && !matches!(one, "\"" | "\n" | "\r") => one.as_bytes()[0],
        other => {
            let message = format!("{other:?} is not one letter of ASCII other than a quote");
            mistakes.add(&entry.place("delimiter"), entry.path_of("delimiter"), message);
            b','
        }
    };
    let empty = entry.bool("empty_is_null").then(String::new);
    FileFormat::Csv(CsvFormat {
        delimiter,
        header: entry.texts("header"),
        encoding: if entry.text("encoding") == "utf-8" { Encoding::Utf8 } else { Encoding::Windows1252 },
        trim: entry.bool("trim"),
        nulls: empty.into_iter().chain(entry.texts("nulls")).collect(),
    })
}

fn when(entry: &Entry, mistakes: &mut Mistakes) -> When {
    let word = entry.text("when");
    let schedule = entry.text_or_none("schedule");
    if schedule.is_some() && matches!(word.as_str(), "once" | "watch") {
        let message = format!("is given, but when = {word:?}: leave one of them out");
        mistakes.add(&entry.place("schedule"), entry.path_of("schedule"), message);
    }
    match (word.as_str(), schedule) {
        ("once", _) => When::Once,
        ("watch", _) => When::Watch(entry.unsigned("poll")),
        (_, Some(schedule)) => When::Schedule(schedule, entry.text("time_zone")),
        ("schedule", None) => {
            let message = "missing; when = \"schedule\" needs it, for example schedule = \"30 6 * * *\"";
            mistakes.add(&entry.place("when"), entry.path_of("schedule"), message);
            When::Demand
        }
        _ => When::Demand,
    }
}

fn column(entry: &Entry) -> SourceColumn {
    let text = |key: &str| entry.text_or_none(key).unwrap_or_default();
    SourceColumn { name: text("name"), from: text("from"), sql_type: text("type"), required: entry.bool("required") }
}

fn set(entry: &Entry) -> SetConfig {
    let text = |key: &str| entry.text_or_none(key).unwrap_or_default();
    SetConfig { column: text("column"), sql: text("sql"), required: entry.bool("required") }
}

fn check(entry: &Entry) -> CheckConfig {
    let text = |key: &str| entry.text_or_none(key).unwrap_or_default();
    CheckConfig { name: text("name"), sql: text("sql"), ..CheckConfig::default() }
}
