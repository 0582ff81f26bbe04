//! Figures of the running broker, for `/metrics`. They start at zero with the process.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the start of the process.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl Counters {
            /// Every figure by its name.
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Bytes of batches appended.
    bytes_in,
    /// Records appended.
    records_in,
    /// Batches appended.
    batches_in,
    /// Bytes of batches sent to consumers.
    bytes_out,
    /// Requests answered.
    requests,
    /// Requests that could not be read: the connection was closed.
    bad_requests,
    /// Passes of compaction over a partition.
    compactions,
    /// Bytes of batches that compaction removed.
    compaction_bytes_removed,
    /// Connections accepted.
    connections_accepted,
    /// Connections open now.
    connections_open,
}

impl Counters {
    pub(crate) fn appended(&self, bytes: usize, records: i32) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.records_in.fetch_add(u64::try_from(records).unwrap_or(0), Ordering::Relaxed);
        self.batches_in.fetch_add(1, Ordering::Relaxed);
    }
}
