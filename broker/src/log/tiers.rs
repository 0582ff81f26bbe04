//! Where a tiered partition begins for clients (KIP-405): the cold log, which belongs to the lake, has records that the log let
//! go. Inside Millpond `log_start` is where reading begins; clients are told [`Partition::earliest`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::RwLock;

use super::Partition;
use crate::types::{LeaderEpoch, Offset};

/// What the cold log has of a partition, ascending: each a first offset and the offset behind the last one, with no offset between
/// them left out.
pub type ColdRuns = Arc<[(Offset, Offset)]>;

/// The second tier of a partition. Holds: what the cold log has, as its owner says, and the floor below which nothing is
/// served, which the commit lane alone raises. A crash keeps the floor; the owner says the rest again.
pub(super) struct Tiers {
    floor: AtomicI64,
    runs: RwLock<ColdRuns>,
}

impl Tiers {
    /// With the floor that was stored.
    pub(super) fn new(floor: Offset) -> Self {
        Self { floor: AtomicI64::new(floor), runs: RwLock::new(ColdRuns::from([])) }
    }
}

impl Partition {
    /// First offset that clients can read, in the log or in the cold log.
    pub fn earliest(&self) -> Offset {
        let start = self.log_start();
        self.cold_run().map_or(start, |(first, _)| first.max(self.floor()).min(start))
    }

    /// What clients read in the cold log: its first offset and the one behind its last, above which the log has all. None where the
    /// topic is not tiered, or the two do not meet.
    pub fn cold_run(&self) -> Option<(Offset, Offset)> {
        if !self.config().is_tiered() {
            return None;
        }
        // in this order: the log lets go only what the cold log has
        let start = self.log_start();
        let runs = self.tiers.runs.read().clone();
        runs.iter().copied().find(|(first, end)| *first <= start && start <= *end)
    }

    /// Whether clients read this offset in the cold log.
    pub(crate) fn lies_cold(&self, offset: Offset) -> bool {
        offset < self.log_start() && offset >= self.earliest()
    }

    /// Offset below which clients are served nothing: somebody deleted it, or it is too old.
    pub fn floor(&self) -> Offset {
        self.tiers.floor.load(Ordering::Acquire)
    }

    /// Says what the cold log has now; its owner alone does. What it still had a moment ago may be asked for once more.
    pub fn set_cold(&self, runs: ColdRuns) {
        *self.tiers.runs.write() = runs;
    }

    pub(crate) fn publish_floor(&self, floor: Offset) {
        self.tiers.floor.fetch_max(floor, Ordering::AcqRel);
    }

    /// The leader epoch at an offset, and where the next one began.
    pub(crate) fn epoch_span(&self, offset: Offset) -> (LeaderEpoch, Offset) {
        let epochs = self.epochs.read();
        let after = epochs.partition_point(|(_, start)| *start <= offset);
        let epoch = after.checked_sub(1).and_then(|last| epochs.get(last)).map_or(0, |(epoch, _)| *epoch);
        (epoch, epochs.get(after).map_or(Offset::MAX, |(_, start)| *start))
    }
}
