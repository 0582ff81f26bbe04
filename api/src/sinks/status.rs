//! How sinks stand, as JSON and for the metrics.

use std::collections::BTreeMap;

use broker::{Offset, PartitionIndex, TimestampMs};
use serde_json::{Value, json};

use crate::output::time_text;

/// How a sink into a table stands. Counts are since the start.
#[derive(Clone, Debug, Default)]
pub struct TableStatus {
    /// The topic it reads.
    pub topic: String,
    /// Whether no database is named, so that it does not run.
    pub off: bool,
    /// Whether it has a connection that works.
    pub connected: bool,
    /// What went wrong last, until it goes well again.
    pub error: Option<String>,
    /// What is being filled that the table is filled from.
    pub waits_for: Option<String>,
    /// Records taken.
    pub records: u64,
    /// Rows that the database took; of several records with one key in one transaction, the last.
    pub rows: u64,
    /// Rows that it refused.
    pub refused: u64,
    /// Transactions.
    pub transactions: u64,
    /// Connections that ended and were tried again.
    pub retries: u64,
    /// The next offset to be taken, per partition.
    pub offsets: BTreeMap<PartitionIndex, Offset>,
    /// Records that are not taken yet.
    pub lag: i64,
    /// When the last transaction took effect.
    pub last_commit_ms: Option<TimestampMs>,
}

impl TableStatus {
    /// One word.
    pub fn word(&self) -> &'static str {
        match (self.off, self.connected) {
            (true, _) => "off",
            (false, true) if self.waits_for.is_some() => "waiting",
            (false, true) => "running",
            (false, false) => "away",
        }
    }

    /// For HTTP and the page.
    pub fn json(&self) -> Value {
        let hint = self.off.then(|| "no database is named: give --postgres URL, or url".to_owned());
        json!({
            "state": self.word(),
            "topic": self.topic,
            "error": self.error.clone().or(hint),
            "waits_for": self.waits_for,
            "records": self.records,
            "rows": self.rows,
            "refused": self.refused,
            "transactions": self.transactions,
            "retries": self.retries,
            "offsets": self.offsets.iter().map(|(p, offset)| (p.to_string(), json!(offset))).collect::<serde_json::Map<_, _>>(),
            "lag": self.lag,
            "last_commit": self.last_commit_ms.map(time_text),
        })
    }
}

/// How a sink into files stands. Counts are since the start.
#[derive(Clone, Debug, Default)]
pub struct FileStatus {
    /// Files written.
    pub files: u64,
    /// Rows in the last one.
    pub rows: u64,
    /// The last file.
    pub last_file: Option<String>,
    /// When it was written.
    pub last_ms: Option<TimestampMs>,
    /// When the next one is due.
    pub next_ms: Option<TimestampMs>,
    /// What went wrong last, until it goes well again.
    pub error: Option<String>,
    /// Failures.
    pub failures: u64,
}

impl FileStatus {
    /// For HTTP and the page.
    pub fn json(&self) -> Value {
        json!({
            "state": if self.error.is_some() { "failing" } else { "running" },
            "error": self.error,
            "files": self.files,
            "rows": self.rows,
            "last_file": self.last_file,
            "last": self.last_ms.map(time_text),
            "next": self.next_ms.map(time_text),
            "failures": self.failures,
        })
    }
}
