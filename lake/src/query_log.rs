//! The queries that ran last, and what all of them read since the start.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use broker::{Clock, TimestampMs};
use parking_lot::Mutex;

use crate::error::Result;
use crate::meter::{Meter, Scanned};

/// Queries that are kept.
const KEPT: usize = 1_000;
/// Letters of a statement that are kept.
const SQL_LETTERS_MAX: usize = 2_000;

/// Who asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueryKind {
    /// Somebody over HTTP.
    #[default]
    Sql,
    /// A panel, a filter or the catalog.
    Dashboard,
    /// An alert that looks.
    Alert,
    /// A step of a job.
    Job,
    /// A sink into files.
    Sink,
    /// The measuring of a model.
    Model,
    /// A table that SQL writes.
    Transform,
    /// The verification of a view.
    Verify,
}

impl QueryKind {
    /// In figures and tables.
    pub fn word(self) -> &'static str {
        match self {
            QueryKind::Sql => "sql",
            QueryKind::Dashboard => "dashboard",
            QueryKind::Alert => "alert",
            QueryKind::Job => "job",
            QueryKind::Sink => "sink",
            QueryKind::Model => "model",
            QueryKind::Transform => "transform",
            QueryKind::Verify => "verify",
        }
    }
}

/// One query that ended.
#[derive(Clone, Debug)]
pub struct QueryRecord {
    /// When it began.
    pub at_ms: TimestampMs,
    /// Who asked.
    pub kind: QueryKind,
    /// The name of the token, if it may not read everything.
    pub reader: Option<String>,
    /// How long it took, in ms.
    pub took_ms: i64,
    /// Rows of the answer.
    pub rows: u64,
    /// What it read.
    pub scanned: Scanned,
    /// Why there was no answer.
    pub error: Option<String>,
    /// The statement, or its beginning.
    pub sql: String,
}

/// What the queries of one kind came to since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How many there were.
    pub queries: u64,
    /// What they read.
    pub scanned: Scanned,
}

/// Holds: the last thousand queries and a sum per kind, added to when a query ends. Nothing survives a restart.
pub struct QueryLog {
    clock: Clock,
    recent: Mutex<VecDeque<Arc<QueryRecord>>>,
    totals: Mutex<BTreeMap<QueryKind, Total>>,
}

/// A query that runs. Dropped before its end, it is noted as broken off.
pub struct Running {
    log: Arc<QueryLog>,
    meter: Arc<Meter>,
    record: Option<QueryRecord>,
}

impl QueryLog {
    /// An empty one.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, recent: Mutex::default(), totals: Mutex::default() })
    }

    /// Notes that a query begins.
    pub fn begin(self: &Arc<Self>, kind: QueryKind, reader: Option<String>, sql: &str) -> Running {
        let record = QueryRecord {
            at_ms: self.clock.now_ms(),
            kind,
            reader,
            took_ms: 0,
            rows: 0,
            scanned: Scanned::default(),
            error: None,
            sql: sql.chars().take(SQL_LETTERS_MAX).collect(),
        };
        Running { log: self.clone(), meter: Arc::default(), record: Some(record) }
    }

    /// The last queries, the newest first.
    pub fn recent(&self) -> Vec<Arc<QueryRecord>> {
        self.recent.lock().iter().rev().cloned().collect()
    }

    /// The sums since the start.
    pub fn totals(&self) -> BTreeMap<QueryKind, Total> {
        self.totals.lock().clone()
    }

    fn note(&self, mut record: QueryRecord) {
        record.took_ms = (self.clock.now_ms() - record.at_ms).max(0);
        let mut totals = self.totals.lock();
        let total = totals.entry(record.kind).or_default();
        total.queries += 1;
        total.scanned.parquet_bytes += record.scanned.parquet_bytes;
        total.scanned.log_bytes += record.scanned.log_bytes;
        drop(totals);
        let mut recent = self.recent.lock();
        recent.push_back(Arc::new(record));
        if recent.len() > KEPT {
            recent.pop_front();
        }
    }
}

impl Running {
    /// What counts the query.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Notes how it ended: with so many rows, or why not.
    pub fn end(mut self, outcome: Result<u64, &str>) -> Scanned {
        let scanned = self.meter.scanned();
        if let Some(mut record) = self.record.take() {
            record.scanned = scanned;
            match outcome {
                Ok(rows) => record.rows = rows,
                Err(error) => record.error = Some(error.to_owned()),
            }
            self.log.note(record);
        }
        scanned
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.scanned = self.meter.scanned();
            record.error = Some("broken off: who asked went away".to_owned());
            self.log.note(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_kept_within_bounds() {
        let log = QueryLog::new(Clock::system());
        let running = log.begin(QueryKind::Alert, None, &"x".repeat(SQL_LETTERS_MAX + 1));
        running.meter().add_log(5);
        assert_eq!(running.end(Ok(3)), Scanned { parquet_bytes: 0, log_bytes: 5 });
        drop(log.begin(QueryKind::Alert, Some("t".into()), "SELECT 1"));
        let recent = log.recent();
        assert_eq!((recent[1].rows, recent[1].sql.len(), recent[1].scanned.bytes()), (3, SQL_LETTERS_MAX, 5));
        assert!(recent[0].error.as_ref().is_some_and(|error| error.contains("broken off")));
        for _ in 0..KEPT + 10 {
            log.begin(QueryKind::Sql, None, "SELECT 1").end(Err("no"));
        }
        assert_eq!(log.recent().len(), KEPT);
        let totals = log.totals();
        assert_eq!((totals[&QueryKind::Alert].queries, totals[&QueryKind::Alert].scanned.log_bytes), (2, 5));
        assert_eq!(totals[&QueryKind::Sql].queries, KEPT as u64 + 10);
    }
}
