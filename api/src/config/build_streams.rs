//! Streams and the tables they are joined to, from checked values.

use std::path::PathBuf;

use engine::{
    CheckAction, CheckConfig, ColumnConfig, CsvConfig, DeduplicateConfig, StreamConfig, StreamFormat, TableConfig,
    TableRows,
};

use super::build::{integer, text, unique};
use super::build_own_schema::own_schema;
use super::mistake::{Mistakes, Origin};
use super::value::Entry;

/// A declared stream, or with `sql` a derived one.
pub(super) fn stream(entry: &Entry, mistakes: &mut Mistakes) -> StreamConfig {
    unique(entry.tables("columns"), "name", mistakes);
    unique(entry.tables("checks"), "name", mistakes);
    let sql = entry.text_or_none("sql");
    for key in ["name", "topic", "columns", "event_time"] {
        match (&sql, entry.values.contains_key(key)) {
            (None, false) => {
                let message = match key {
                    "columns" => {
                        "missing; EXPLAIN CREATE STREAM name WITH (topic = '…', event_time = '…') on a server that has the topic \
                         prints those of its JSON records; or the stream is computed by sql"
                    }
                    _ => "missing; a stream has name, topic, columns and event_time, or is computed by sql",
                };
                mistakes.add(&entry.origin, entry.path_of(key), message);
            }
            (Some(_), true) if key != "event_time" => {
                let message = "follows from sql: leave it out";
                mistakes.add(&entry.place(key), entry.path_of(key), message);
            }
            _ => {}
        }
    }
    if sql.is_some() && text(entry, "format") != "json" {
        mistakes.add(
            &entry.place("format"),
            entry.path_of("format"),
            "a stream with sql is written as json: leave it out",
        );
    }
    StreamConfig {
        name: text(entry, "name"),
        topic: text(entry, "topic"),
        format: match text(entry, "format").as_str() {
            "avro" => StreamFormat::Avro,
            "json_schema" => StreamFormat::JsonSchema,
            "protobuf" => StreamFormat::Protobuf,
            "csv" => StreamFormat::Csv,
            _ => StreamFormat::Json,
        },
        csv: csv(entry, mistakes),
        schema: own_schema(entry, mistakes),
        columns: entry.tables("columns").iter().map(column).collect(),
        event_time: text(entry, "event_time"),
        lateness_ms: integer(entry, "lateness"),
        idle_timeout_ms: integer(entry, "idle_timeout"),
        max_ahead_ms: integer(entry, "max_ahead"),
        checks: entry.tables("checks").iter().map(check).collect(),
        source: entry.place(if sql.is_some() { "sql" } else { "name" }).to_string(),
        by_sql: false,
        sql,
        key: entry.text_or_none("key"),
        deduplicate: entry.table("deduplicate").map(|deduplicate| DeduplicateConfig {
            by: deduplicate.texts("by"),
            within_ms: deduplicate.integer_or_none("within").unwrap_or(1),
        }),
    }
}

/// How the fields of a CSV stream are written; in other formats nothing is to be said of it.
fn csv(entry: &Entry, mistakes: &mut Mistakes) -> CsvConfig {
    let mut csv = CsvConfig::default();
    for key in ["delimiter", "null_text"] {
        if text(entry, "format") != "csv" && entry.values.contains_key(key) {
            mistakes.add(&entry.place(key), entry.path_of(key), "goes with format = \"csv\": leave it out");
        }
    }
    if let Some(delimiter) = entry.text_or_none("delimiter") {
        match CsvConfig::delimiter_of(&delimiter) {
            Some(delimiter) => csv.delimiter = delimiter,
            None => mistakes.add(
                &entry.place("delimiter"),
                entry.path_of("delimiter"),
                "write one character, not a quote or a line break; or tab or space",
            ),
        }
    }
    csv.null_text = entry.text_or_none("null_text").unwrap_or(csv.null_text);
    csv
}

fn column(entry: &Entry) -> ColumnConfig {
    ColumnConfig {
        name: text(entry, "name"),
        sql_type: text(entry, "type"),
        required: entry.bool("required"),
        from: entry.text_or_none("from"),
        added: false,
    }
}

fn check(entry: &Entry) -> CheckConfig {
    let action = if text(entry, "action") == "warn" { CheckAction::Warn } else { CheckAction::Reject };
    CheckConfig { name: text(entry, "name"), sql: text(entry, "sql"), action }
}

/// A table to join.
pub(super) fn table(entry: &Entry, mistakes: &mut Mistakes) -> TableConfig {
    unique(entry.tables("columns"), "name", mistakes);
    let given: Vec<&str> = ["topic", "rows", "file"].into_iter().filter(|key| entry.values.contains_key(key)).collect();
    if given.len() != 1 {
        mistakes.add(&entry.origin, entry.path.as_str(), "give one of topic, rows and file");
    }
    TableConfig {
        name: text(entry, "name"),
        key: text(entry, "key"),
        columns: entry.tables("columns").iter().map(column).collect(),
        rows: match given.first() {
            Some(&"topic") => TableRows::Topic(text(entry, "topic")),
            Some(&"file") => TableRows::File(PathBuf::from(text(entry, "file"))),
            _ => TableRows::Inline(entry.grid("rows")),
        },
        source: entry.origin.to_string(),
    }
}

/// The file and line that an engine message begins with, or those of the stream that it names, so that it is sorted with
/// the other mistakes of that file.
pub(super) fn place_of(message: &str, lists: &Entry) -> Origin {
    let with_sql = |list| lists.tables(list).iter().map(|entry: &Entry| entry.place("sql"));
    let tables = lists.tables("tables").iter().map(|entry| entry.origin.clone());
    let mut origins = with_sql("views").chain(with_sql("streams")).chain(tables);
    let named = origins.find(|origin| message.starts_with(&format!("{origin}:")));
    let is_about = |entry: &&Entry| message.starts_with(&format!("stream {}: ", text(entry, "name")));
    let streams = lists.tables("streams");
    let stream = || streams.iter().find(is_about).or(streams.first()).map(|entry| entry.origin.clone());
    named.or_else(stream).unwrap_or(Origin::Default)
}
