//! What a query reads, in bytes: of Parquet as its scans fetch them, of the log as its batches are stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

/// DataFusion's counter of bytes that a scan of Parquet fetched.
const FETCHED: &str = "bytes_scanned";

/// Bytes that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Of Parquet files: the columns and row groups that were fetched.
    pub parquet_bytes: u64,
    /// Of the log: its batches as they are stored.
    pub log_bytes: u64,
}

impl Scanned {
    /// Both together.
    pub fn bytes(&self) -> u64 {
        self.parquet_bytes + self.log_bytes
    }
}

/// Counts one query. Its scans add to it while they run.
#[derive(Debug, Default)]
pub struct Meter {
    log_bytes: AtomicU64,
    files: Mutex<Vec<Arc<dyn ExecutionPlan>>>,
}

impl Meter {
    /// Counts a scan of files. A plan's counters are shared with the plans that the optimizer makes of it.
    pub fn watch(&self, scan: Arc<dyn ExecutionPlan>) {
        self.files.lock().push(scan);
    }

    /// Counts bytes of the log.
    pub fn add_log(&self, bytes: u64) {
        self.log_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was read until now.
    pub fn scanned(&self) -> Scanned {
        let fetched =
            |scan: &Arc<dyn ExecutionPlan>| scan.metrics()?.sum_by_name(FETCHED).map(|sum| sum.as_usize() as u64);
        let parquet_bytes = self.files.lock().iter().filter_map(fetched).sum();
        Scanned { parquet_bytes, log_bytes: self.log_bytes.load(Ordering::Relaxed) }
    }
}
