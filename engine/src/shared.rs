//! What a running pipeline lets others see: progress as of the last commit, wake-ups, failure, time used.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use broker::{Hold, LogId, Offset, Waiter};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::derive::DerivedPlan;
use crate::follow::Follower;
use crate::lookup::LookupTable;
use crate::state::Progress;
use crate::view::ViewPlan;

/// One pipeline, seen from outside. The pipeline alone writes it, but for `stopping`.
pub(crate) struct PipelineShared {
    /// Set by `stop`: the pipeline ends after the step under way.
    pub(crate) stopping: AtomicBool,
    /// Wakes the pipeline.
    pub(crate) waiter: Arc<Waiter>,
    /// Why it ended by itself.
    pub(crate) failure: Mutex<Option<String>>,
    /// CPU time of its thread.
    pub(crate) busy_ns: AtomicU64,
    /// Records read since the start, refused ones included.
    pub(crate) records: AtomicU64,
}

impl PipelineShared {
    pub(crate) fn new(waiter: Arc<Waiter>) -> PipelineShared {
        PipelineShared {
            stopping: AtomicBool::new(false),
            waiter,
            failure: Mutex::new(None),
            busy_ns: AtomicU64::new(0),
            records: AtomicU64::new(0),
        }
    }

    /// Asks the pipeline to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.waiter.wake();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// A view, or a stream's rejected records, seen from outside.
pub(crate) struct Published {
    /// As of the last commit that succeeded.
    pub(crate) progress: Mutex<Progress>,
    /// Counts commits; readers that wait look at it.
    pub(crate) advanced: watch::Sender<u64>,
    /// Counts commits that changed rows.
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) hot_groups: AtomicU64,
    pub(crate) hot_bytes: AtomicU64,
}

impl Published {
    pub(crate) fn new(progress: Progress) -> Published {
        Published {
            progress: Mutex::new(progress),
            advanced: watch::Sender::new(0),
            changed: watch::Sender::new(0),
            hot_groups: AtomicU64::new(0),
            hot_bytes: AtomicU64::new(0),
        }
    }

    /// Shows what a commit has made true.
    pub(crate) fn publish(&self, progress: &Progress, rows_changed: bool) {
        *self.progress.lock() = progress.clone();
        // First those who watch rows: who waited for `advanced` may look at `changed` at once.
        if rows_changed {
            self.changed.send_modify(|count| *count += 1);
        }
        self.advanced.send_modify(|count| *count += 1);
    }
}

/// A view with its runtime handles.
pub(crate) struct RunningView {
    pub(crate) plan: Arc<ViewPlan>,
    pub(crate) view_id: u32,
    pub(crate) follower: Follower,
}

/// A derived stream with its runtime handles: it follows the topic of its source.
pub(crate) struct RunningDerived {
    pub(crate) plan: Arc<DerivedPlan>,
    pub(crate) follower: Follower,
}

/// A table with its runtime handles; one that is written out follows nothing.
pub(crate) struct RunningTable {
    pub(crate) table: Arc<LookupTable>,
    pub(crate) follower: Option<Follower>,
}

/// The engine's one hold on retention: per log the least offset that any pipeline still has to read.
pub(crate) struct SharedHold {
    hold: Hold,
    floors: Mutex<HashMap<LogId, BTreeMap<usize, Offset>>>,
}

impl SharedHold {
    pub(crate) fn new(hold: Hold) -> SharedHold {
        SharedHold { hold, floors: Mutex::new(HashMap::new()) }
    }

    /// Says where a pipeline stands in a log.
    pub(crate) fn set(&self, pipeline: usize, log: LogId, next_offset: Offset) {
        let mut floors = self.floors.lock();
        let of_log = floors.entry(log).or_default();
        of_log.insert(pipeline, next_offset);
        if let Some(floor) = of_log.values().min() {
            self.hold.set(log, *floor);
        }
    }
}
