//! One commit of compaction: some batches replaced or removed, figures of the index put right, and how far the log is clean,
//! all at once. Made by a pass, written by the commit lane.

use std::sync::Arc;

use super::state::CleanState;
use crate::batch::Batch;
use crate::log::Partition;
use crate::log::aborted;
use crate::log::keys::{self, IndexEntry};
use crate::store::{Family, Writes};
use crate::types::Offset;

/// What one commit of compaction changes in a partition.
pub struct Compacted {
    pub(crate) partition: Arc<Partition>,
    pub(crate) fixes: Vec<Fix>,
    pub(crate) state: CleanState,
    /// Batches in memory below this offset are given up: they may have changed.
    pub(crate) tail_until: Offset,
}

/// What happens to one batch.
pub(crate) enum Fix {
    /// Another batch takes its place, in `compacted`. The entry is the old one.
    Replace(Batch, IndexEntry),
    /// It goes. The entry is the old one.
    Remove(Offset, IndexEntry),
    /// Only its running bytes change.
    Running(Offset, IndexEntry),
}

impl Fix {
    /// Bytes that it brings into the commit.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Replace(batch, _) => batch.bytes().len(),
            Self::Remove(..) | Self::Running(..) => keys::INDEX_ENTRY_BYTES,
        }
    }

    fn last_offset(&self) -> Offset {
        match self {
            Self::Replace(batch, _) => batch.last_offset(),
            Self::Remove(base, entry) | Self::Running(base, entry) => base + i64::from(entry.last_offset_delta),
        }
    }
}

impl Compacted {
    /// Bytes that the commit writes.
    pub(crate) fn size(&self) -> usize {
        self.fixes.iter().map(Fix::size).sum()
    }

    /// Writes the changes. What lies before the log's start, `start`, was deleted meanwhile and stays so.
    pub(crate) fn stage(&self, start: Offset, writes: &mut Writes<'_>) {
        if self.partition.is_deleted() {
            return;
        }
        let id = self.partition.id();
        for fix in self.fixes.iter().filter(|fix| fix.last_offset() >= start) {
            match fix {
                Fix::Replace(batch, old) => {
                    let key = keys::batch_key(id, batch.base_offset());
                    // what is in a bucket goes with it
                    if old.family() == Family::Log {
                        writes.delete(Family::Log, &key);
                    }
                    writes.put(Family::Compacted, &key, batch.bytes());
                    let size = u32::try_from(batch.bytes().len()).expect("a batch is far below 4 GiB");
                    // an empty batch keeps its time for clients; a search by time must not end at it
                    let max_timestamp = if batch.record_count() == 0 { -1 } else { batch.max_timestamp() };
                    let entry = IndexEntry { size, max_timestamp, ..*old };
                    let entry = entry.placed(Family::Compacted, batch.attributes());
                    writes.put(Family::Index, &key, &entry.encode());
                }
                Fix::Remove(base, old) => {
                    let key = keys::batch_key(id, *base);
                    if !old.family().is_bucket() {
                        writes.delete(old.family(), &key);
                    }
                    writes.delete(Family::Index, &key);
                    if old.is_control() {
                        // what the marker ended has no batch left: nobody has to know any more that it was aborted
                        writes.delete(Family::Txns, &aborted::key(id, *base));
                    }
                }
                Fix::Running(base, entry) => {
                    writes.put(Family::Index, &keys::batch_key(id, *base), &entry.encode());
                }
            }
        }
        writes.put(Family::Meta, &keys::compaction_key(id), &self.state.encode());
    }
}
