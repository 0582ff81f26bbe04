//! Rows whose records have left the log: what the engine asks of whoever keeps them. The lake answers; without one nothing is kept.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use broker::{Offset, Partition};
use futures::future::BoxFuture;
use parking_lot::RwLock;

use crate::error::Result;

/// Keeps rows of streams, in the order of their offsets per partition, after their records have left the log.
pub trait History: Send + Sync {
    /// Reads some of what is wanted, from its first offset on. What it reads is there until it is read.
    ///
    /// # Errors
    /// What keeps it from reading; it is asked again.
    fn read(&self, wanted: Wanted) -> BoxFuture<'_, Result<Found>>;
}

/// What is wanted of one partition.
pub struct Wanted {
    /// The stream.
    pub stream: String,
    /// The partition.
    pub partition: Arc<Partition>,
    /// The first offset, and the one behind the last.
    pub range: (Offset, Offset),
    /// The columns by name; null where a row was kept without one. The last is `_offset`.
    pub schema: SchemaRef,
    /// Memory that the rows should take at most.
    pub bytes_max: usize,
}

/// What is there.
pub enum Found {
    /// The stream was declared a moment ago, and who keeps rows does not know it yet: to be asked again.
    NotYet,
    /// Nothing of this partition is kept.
    Nothing,
    /// Nothing is kept below this offset, which is further than what was asked for.
    Gap {
        /// Where to go on.
        next: Offset,
    },
    /// All rows below this offset, which is further than what was asked for; there may be none.
    Rows {
        /// The rows with the wanted columns, ascending by offset.
        rows: RecordBatch,
        /// Where to go on.
        next: Offset,
    },
}

/// Where the engine finds the history: the engine is there before the lake.
#[derive(Default)]
pub struct HistorySlot {
    history: RwLock<Option<Arc<dyn History>>>,
    is_awaited: bool,
}

impl HistorySlot {
    /// One that will be filled: what needs it waits for that.
    pub fn awaited() -> Arc<HistorySlot> {
        Arc::new(HistorySlot { is_awaited: true, ..HistorySlot::default() })
    }

    /// From now on this is asked.
    pub(crate) fn set(&self, history: Arc<dyn History>) {
        *self.history.write() = Some(history);
    }

    pub(crate) fn get(&self) -> Option<Arc<dyn History>> {
        self.history.read().clone()
    }

    /// Whether there is a history, or will be.
    pub(crate) fn is_expected(&self) -> bool {
        self.is_awaited || self.history.read().is_some()
    }
}
