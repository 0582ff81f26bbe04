//! What was counted, and whether another has counted the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::DateTime;
use serde_json::Value;

use super::queries::Query;
use crate::Outcome;

/// Start and end of a window in ms, and the user.
type Key = (i64, i64, i64);

/// Counts by window and user.
#[derive(Debug, Default)]
pub struct Windows(BTreeMap<Key, i64>);

impl Windows {
    /// Adds rows, one JSON object a line.
    ///
    /// # Errors
    /// A line that is no such row, or a window that was there already.
    pub fn read(&mut self, lines: &str) -> Outcome<()> {
        for line in lines.lines() {
            let (key, plays) = row(line).ok_or_else(|| format!("not a row of a window: {line}"))?;
            if self.0.insert(key, plays).is_some() {
                return Err(format!("a window is there twice: {line}").into());
            }
        }
        Ok(())
    }

    /// Those in a folder of such files.
    ///
    /// # Errors
    /// As when they are read.
    pub fn in_files(folder: &Path) -> Outcome<Windows> {
        let mut windows = Windows::default();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // beside results lie sums of files and what a sink remembers
            if entry.file_name().to_string_lossy().starts_with("part-") {
                windows.read(&fs::read_to_string(entry.path())?)?;
            }
        }
        Ok(windows)
    }

    /// Those that end at a moment or before.
    pub fn ended(&self, until_ms: i64) -> Windows {
        let ended = self.0.iter().filter(|((_, end_ms, _), _)| *end_ms <= until_ms);
        Windows(ended.map(|(key, plays)| (*key, *plays)).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Every event must be counted in each of its windows.
    ///
    /// # Errors
    /// It is not.
    pub fn complete(&self, query: &Query, events: usize) -> Outcome<()> {
        let counted: i64 = self.0.values().sum();
        if counted == i64::try_from(events)? * query.windows {
            return Ok(());
        }
        Err(format!("{}: {counted} are counted of {events} events in {} windows each", query.name, query.windows)
            .into())
    }

    /// Compares with what another has counted.
    ///
    /// # Errors
    /// The first window in which they differ.
    pub fn same(&self, other: &Windows, what: &str) -> Outcome<()> {
        let differs = |key: &&Key| self.0.get(*key) != other.0.get(*key);
        let Some(key) = self.0.keys().chain(other.0.keys()).find(differs) else { return Ok(()) };
        let (these, those) = (self.0.get(key), other.0.get(key));
        Err(format!("{what}: window and user {key:?} count {these:?} and {those:?}").into())
    }
}

fn row(line: &str) -> Option<(Key, i64)> {
    let row: Value = serde_json::from_str(line).ok()?;
    let time = |name: &str| {
        // Flink writes `2026-11-29 13:05:00`; it is UTC
        let text = row[name].as_str()?.trim_end_matches('Z').replace(' ', "T") + "Z";
        Some(DateTime::parse_from_rfc3339(&text).ok()?.timestamp_millis())
    };
    let key = (time("window_start")?, time("window_end")?, row["user_id"].as_i64()?);
    Some((key, row["plays"].as_i64()?))
}
