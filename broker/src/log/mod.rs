//! The log: partitions, what they store, who may read them and how they age.

pub(crate) mod keys;
mod partition;
pub(crate) mod producers;
pub(crate) mod retention;
mod waiters;

pub use partition::Partition;
pub(crate) use partition::blocking;
pub use waiters::Waiter;

#[cfg(test)]
mod tests;
