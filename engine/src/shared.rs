//! What a running pipeline lets others see: progress as of the last commit, wake-ups, failure, time used.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use broker::{Ack, Hold, LogId, Offset, PartitionIndex, Waiter};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::Offsets;
use crate::derive::DerivedPlan;
use crate::follow::Follower;
use crate::lookup::LookupTable;
use crate::state::{Position, Progress};
use crate::view::ViewPlan;

/// A member of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Who {
    /// The stream or table itself: what counts and records its refused records.
    Reading,
    /// A derived stream.
    Derived(String),
    /// A view.
    View(String),
}

/// A member that is to go, and who waits for it.
pub(crate) struct Leave {
    pub(crate) who: Who,
    /// Dropped once the member is gone.
    pub(crate) _left: oneshot::Sender<()>,
}

/// A successor that is to take over.
pub(crate) struct Promotion {
    /// Where the former version stands still.
    pub(crate) at: BTreeMap<PartitionIndex, Position>,
    pub(crate) former: Arc<RunningView>,
    /// Told after the commit; dropped when there will be none.
    pub(crate) done: oneshot::Sender<()>,
}

/// One pipeline, seen from outside. The pipeline alone writes it, but for `stopping`, `is_read`, `leaves` and `promotion`.
pub(crate) struct PipelineShared {
    /// Set by `stop`: the pipeline ends after the step under way.
    pub(crate) stopping: AtomicBool,
    /// Whether a stream or table reads on from what its steps write.
    is_read: AtomicBool,
    /// Members that are to go after the step under way; None once the pipeline has ended.
    leaves: Mutex<Option<Vec<Leave>>>,
    /// What its successor of a view is asked for.
    promotion: Mutex<Option<Promotion>>,
    /// Wakes the pipeline.
    pub(crate) waiter: Arc<Waiter>,
    /// Why it ended by itself.
    pub(crate) failure: Mutex<Option<String>>,
    /// Why rows that have left the log cannot be read yet.
    pub(crate) waits_for: Mutex<Option<String>>,
    /// CPU time of its thread.
    pub(crate) busy_ns: AtomicU64,
    /// Records read since the start, refused ones included.
    pub(crate) records: AtomicU64,
}

impl PipelineShared {
    pub(crate) fn new(waiter: Arc<Waiter>, ack: Ack) -> PipelineShared {
        PipelineShared {
            stopping: AtomicBool::new(false),
            is_read: AtomicBool::new(ack == Ack::Durable),
            leaves: Mutex::new(Some(Vec::new())),
            promotion: Mutex::new(None),
            waiter,
            failure: Mutex::new(None),
            waits_for: Mutex::new(None),
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

    /// When a step counts as done: who reads what it writes must find it as soon as its offsets are told.
    pub(crate) fn ack(&self) -> Ack {
        if self.is_read.load(Ordering::Acquire) { Ack::Durable } else { Ack::Written }
    }

    /// From now on somebody reads what its steps write.
    pub(crate) fn be_read(&self) {
        self.is_read.store(true, Ordering::Release);
    }

    /// Has a member go, and waits until it is gone: after the commit of the step under way.
    pub(crate) async fn leave(&self, who: Who) {
        let (left, gone) = oneshot::channel();
        match self.leaves.lock().as_mut() {
            Some(leaves) => leaves.push(Leave { who, _left: left }),
            None => return,
        }
        self.waiter.wake();
        // Either way of ending tells that the member is gone.
        let _ = gone.await;
    }

    /// The members that are to go.
    pub(crate) fn take_leaves(&self) -> Vec<Leave> {
        self.leaves.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Has the successor of a view take over, as soon as it stands where that is asked.
    pub(crate) fn promote(&self, promotion: Promotion) {
        if self.leaves.lock().is_some() {
            *self.promotion.lock() = Some(promotion);
            self.waiter.wake();
        }
    }

    /// What its successor is asked for, if that is due; whoever takes it answers it.
    pub(crate) fn take_promotion(&self, is_due: impl FnOnce(&Promotion) -> bool) -> Option<Promotion> {
        let mut promotion = self.promotion.lock();
        if promotion.as_ref().is_some_and(is_due) { promotion.take() } else { None }
    }

    /// Its steps have come to an end, by themselves for this reason: whoever waits must not wait for what no longer comes.
    pub(crate) fn show_end(&self, failure: Option<String>, published: &[Arc<Published>]) {
        if failure.is_some() {
            *self.failure.lock() = failure;
        }
        published.iter().for_each(|published| published.look_again());
    }

    /// CPU time in nanoseconds, and records read, since the start.
    pub(crate) fn done(&self) -> (u64, u64) {
        (self.busy_ns.load(Ordering::Relaxed), self.records.load(Ordering::Relaxed))
    }

    /// The pipeline has ended: nobody is waited for any more.
    pub(crate) fn end(&self) {
        *self.leaves.lock() = None;
        *self.promotion.lock() = None;
    }
}

/// A view, or a stream's rejected records, seen from outside.
pub(crate) struct Published {
    /// As of the last commit that succeeded.
    pub(crate) progress: Mutex<Progress>,
    /// Counts commits; readers that wait look at it.
    pub(crate) advanced: watch::Sender<u64>,
    /// Counts commits that changed rows. Those who watch a view stay with it when another version takes over.
    changed: Mutex<watch::Sender<u64>>,
    /// Whether its topic does not hold its rows yet, as it has just taken over from another version.
    telling: AtomicBool,
    /// Whether another version has taken over.
    replaced: AtomicBool,
    pub(crate) hot_groups: AtomicU64,
    pub(crate) hot_bytes: AtomicU64,
}

impl Published {
    pub(crate) fn new(progress: Progress) -> Published {
        Published {
            progress: Mutex::new(progress),
            advanced: watch::Sender::new(0),
            changed: Mutex::new(watch::Sender::new(0)),
            telling: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            hot_groups: AtomicU64::new(0),
            hot_bytes: AtomicU64::new(0),
        }
    }

    /// Shows what a commit has made true.
    pub(crate) fn publish(&self, progress: &Progress, rows_changed: bool) {
        *self.progress.lock() = progress.clone();
        // First those who watch rows: who waited for `advanced` may look at `changed` at once.
        if rows_changed {
            self.changed.lock().send_modify(|count| *count += 1);
        }
        self.look_again();
    }

    /// Has all look again who wait for it to get on.
    pub(crate) fn look_again(&self) {
        self.advanced.send_modify(|count| *count += 1);
    }

    /// Tells of each commit that changed rows.
    pub(crate) fn watch_rows(&self) -> watch::Receiver<u64> {
        self.changed.lock().subscribe()
    }

    /// Says whether the topic still has to hear of what it does not hold.
    pub(crate) fn set_telling(&self, telling: bool) {
        self.telling.store(telling, Ordering::Release);
        self.look_again();
    }

    pub(crate) fn is_telling(&self) -> bool {
        self.telling.load(Ordering::Acquire)
    }

    pub(crate) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// This version is the one that is seen from now on: who waited for the former one looks again, and who watched its rows
    /// watches these.
    pub(crate) fn take_over(&self, former: &Published) {
        let changed = former.changed.lock().clone();
        changed.send_modify(|count| *count += 1);
        *self.changed.lock() = changed;
        former.replaced.store(true, Ordering::Release);
        former.look_again();
    }
}

/// A view with its runtime handles.
pub(crate) struct RunningView {
    pub(crate) plan: Arc<ViewPlan>,
    pub(crate) view_id: u32,
    pub(crate) follower: Follower,
    /// Where its topic ended when it began to be filled; empty for one that goes with its stream.
    pub(crate) fill_to: BTreeMap<PartitionIndex, Offset>,
    /// When that was, by the broker's steady clock.
    pub(crate) began_ms: i64,
    /// The number under which its log is held while it is paused.
    pub(crate) paused: Option<usize>,
}

/// A derived stream with its runtime handles: it follows the topic of its source, and that of the stream joined to it.
#[derive(Clone)]
pub(crate) struct RunningDerived {
    pub(crate) plan: Arc<DerivedPlan>,
    pub(crate) follower: Follower,
    pub(crate) joined: Option<Follower>,
    /// Where the topics that it reads by itself ended when it began: there it is filled.
    pub(crate) fill_to: Offsets,
    pub(crate) began_ms: i64,
}

impl RunningDerived {
    /// All that it follows.
    pub(crate) fn followers(&self) -> impl Iterator<Item = &Follower> {
        std::iter::once(&self.follower).chain(&self.joined)
    }
}

/// A table with its runtime handles; one that is written out follows nothing.
#[derive(Clone)]
pub(crate) struct RunningTable {
    pub(crate) table: Arc<LookupTable>,
    pub(crate) follower: Option<Follower>,
}

/// The engine's one hold on retention: per log the least offset that any pipeline still has to read.
pub(crate) struct SharedHold {
    hold: Hold,
    floors: Mutex<HashMap<LogId, BTreeMap<usize, Offset>>>,
    next_number: AtomicUsize,
}

impl SharedHold {
    pub(crate) fn new(hold: Hold) -> SharedHold {
        SharedHold { hold, floors: Mutex::new(HashMap::new()), next_number: AtomicUsize::new(0) }
    }

    /// A number for one more pipeline.
    pub(crate) fn number(&self) -> usize {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Says where a pipeline stands in all its logs.
    pub(crate) fn set_all(&self, pipeline: usize, positions: &BTreeMap<PartitionIndex, Position>) {
        for position in positions.values() {
            self.set(pipeline, position.log, position.next_offset);
        }
    }

    /// Forgets a pipeline that reads no further.
    pub(crate) fn release(&self, pipeline: usize) {
        self.floors.lock().retain(|log, of_log| {
            if of_log.remove(&pipeline).is_none() {
                return true;
            }
            match of_log.values().min() {
                Some(floor) => self.hold.set(*log, *floor),
                None => self.hold.clear(*log),
            }
            !of_log.is_empty()
        });
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
