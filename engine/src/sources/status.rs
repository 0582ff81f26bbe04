//! What is told of a source: its runs, and the one under way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a run stands or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It is under way.
    #[default]
    Running,
    /// Everything that was there is loaded.
    Done,
    /// Something could not be read; `error` says what.
    Failed,
    /// The server was stopped; the next start goes on.
    Stopped,
    /// The server ended without a stop; the next start goes on.
    Interrupted,
}

/// One run of a source: what it read and what came of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of the stored form.
    pub v: u32,
    /// Counted from 1 per source.
    pub run: u64,
    /// `start`, `watch`, `schedule` or `request`.
    pub trigger: String,
    /// How it stands.
    pub state: RunState,
    /// When it began, epoch milliseconds.
    pub started_ms: i64,
    /// When it ended, or its last commit, epoch milliseconds.
    pub ended_ms: i64,
    /// Files read to their end.
    pub files: u64,
    /// Files left alone because their content was loaded before.
    pub files_known: u64,
    /// Rows read.
    pub rows: u64,
    /// Records written to the topic.
    pub published: u64,
    /// Rows whose key was published before.
    pub skipped: u64,
    /// Rows in `<source>.rejected`.
    pub rejected: u64,
    /// The same per rule.
    pub rejected_by_rule: BTreeMap<String, u64>,
    /// How often a read was tried again.
    pub retries: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// How far the run under way is.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Progress {
    /// The file being read.
    pub file: Option<String>,
    /// Files of this run.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Bytes read.
    pub bytes_done: u64,
    /// Rows per second since the run began.
    pub rows_per_s: f64,
    /// Seconds until the end at this rate; none before anything was read.
    pub remaining_s: Option<f64>,
}

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// The topic it writes.
    pub topic: String,
    /// Where it reads.
    pub path: String,
    /// `csv`, `json` or `ndjson`.
    pub format: String,
    /// `once`, `watch`, `schedule` or `demand`.
    pub when: String,
    /// `idle`, `running`, `paused` or `failed` (the last run).
    pub state: String,
    /// Why the last run failed, or why a watched folder cannot be read.
    pub error: Option<String>,
    /// The next time of its schedule, epoch milliseconds.
    pub next_ms: Option<i64>,
    /// Rows read, in all runs.
    pub rows: u64,
    /// Records written, in all runs.
    pub published: u64,
    /// Rows skipped as known, in all runs.
    pub skipped: u64,
    /// Rows refused, in all runs.
    pub rejected: u64,
    /// The same per rule.
    pub rejected_by_rule: BTreeMap<String, u64>,
    /// The run under way.
    pub progress: Option<Progress>,
    /// The last runs, the newest first.
    pub runs: Vec<RunReport>,
}
