//! The log: partitions, what they store, who may read them and how they age.

pub(crate) mod aborted;
pub(crate) mod bounds;
pub(crate) mod buckets;
mod committed;
pub(crate) mod compaction;
mod damage;
mod deleted;
pub(crate) mod keys;
pub(crate) mod open;
mod partition;
pub(crate) mod producers;
mod reading;
pub(crate) mod retention;
pub(crate) mod segment;
mod tiers;
mod waiters;

pub use aborted::Aborted;
pub use buckets::Moved;
pub use compaction::Compacted;
pub(crate) use deleted::Deleted;
pub use partition::Partition;
pub(crate) use partition::{Stability, Writer, blocking};
pub use tiers::ColdRuns;
pub use waiters::Waiter;

#[cfg(test)]
mod seam_tests;
#[cfg(test)]
mod tests;
