//! Stored batches that the disk does not give back as they were written. RocksDB finds them by the checksums of its blocks; here they
//! are told by topic, partition and offset. All before and after them is served.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::error::{Error, Kind};
use crate::log::Partition;
use crate::types::Offset;

/// Batches that are tried to see where the damage ends: those of one block are lost together, and more than this are seldom in one.
const TRIED_MAX: usize = 1_024;
/// Places that are logged until the next start.
const LOGGED_MAX: usize = 1_000;

/// Places of a partition that were logged. Holds: where each damage begins. Readers of the store add to it. Always true: none is
/// logged twice. A crash loses it: the next start logs them again.
#[derive(Debug, Default)]
pub(super) struct Logged(Mutex<BTreeSet<Offset>>);

impl Logged {
    fn is_new(&self, at: Offset) -> bool {
        let mut places = self.0.lock();
        places.len() < LOGGED_MAX && places.insert(at)
    }
}

impl Partition {
    /// What is told of the batch at `base`, which could not be read because of `cause`. Looks how far the damage goes; blocks.
    pub(super) fn damaged(&self, base: Offset, cause: &Error) -> Error {
        let (mut last, mut next) = (base, None);
        for entry in self.entries(base).take(TRIED_MAX) {
            let Ok((at, entry)) = entry else { break };
            if self.stored(at, &entry).is_ok() {
                next = Some(at);
                break;
            }
            last = at + i64::from(entry.last_offset_delta);
        }
        let (topic, partition) = (self.topic(), self.index());
        let next = next.unwrap_or(last + 1);
        let message = format!(
            "records {base} to {last} of {topic}-{partition} are damaged on the disk: read on at offset {next}, take them from the \
             lake or a backup, and check the disk: {cause}"
        );
        if self.damage.is_new(base) {
            tracing::error!(%topic, partition, from = base, to = last, next, %cause, "stored records are damaged");
        }
        Error::new(Kind::Damaged, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_logged_once_and_not_without_end() {
        let logged = Logged::default();
        assert!(logged.is_new(7) && !logged.is_new(7) && logged.is_new(8));
        let told = (0..2 * LOGGED_MAX as Offset).filter(|at| logged.is_new(*at)).count();
        assert_eq!((told, logged.0.lock().len()), (LOGGED_MAX - 2, LOGGED_MAX));
    }
}
