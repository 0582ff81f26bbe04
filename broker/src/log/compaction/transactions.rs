//! Transactions as compaction sees them: which batches were aborted, and which markers have nothing left to say.
//!
//! A marker stays until a pass over the log meets no batch of its transaction, and then for `delete.retention.ms` more, so that a
//! reader who is inside the transaction still learns how it ended.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::batch::Batch;
use crate::log::Aborted;
use crate::types::{Offset, ProducerId};

/// What a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Records that count.
    Data,
    /// Records of an aborted transaction: nobody may see them.
    Aborted,
    /// The marker of a transaction of which batches are left.
    Marker,
    /// A marker whose transaction has no batch left.
    IdleMarker,
}

/// One pass over a log, in the order of offsets.
pub(crate) struct Transactions {
    /// Aborted transactions by first offset, those that were not met yet.
    ahead: BTreeMap<(Offset, ProducerId), Offset>,
    /// Aborted transactions that are open where the pass is, and whether a batch of them was met.
    aborting: HashMap<ProducerId, bool>,
    /// Producers of which a batch was met that was not aborted, with no marker since.
    committing: HashSet<ProducerId>,
}

impl Transactions {
    /// A pass over a log with these aborted transactions: those whose markers it will meet.
    pub(crate) fn new(aborted: impl IntoIterator<Item = Aborted>) -> Self {
        let ahead = aborted.into_iter().map(|one| ((one.first, one.producer_id), one.marker)).collect();
        Self { ahead, aborting: HashMap::new(), committing: HashSet::new() }
    }

    /// What the next batch of the log is.
    pub(crate) fn meet(&mut self, batch: &Batch) -> Standing {
        while let Some(first) = self.ahead.first_entry().filter(|first| first.key().0 <= batch.last_offset()) {
            self.aborting.entry(first.key().1).or_insert(false);
            first.remove();
        }
        let producer = batch.producer_id();
        if batch.is_control() {
            // the marker ends the producer's transaction, whichever way
            let batches_left = match self.aborting.remove(&producer) {
                Some(met) => met,
                None => self.committing.remove(&producer),
            };
            return if batches_left { Standing::Marker } else { Standing::IdleMarker };
        }
        if !batch.is_transactional() {
            return Standing::Data;
        }
        if let Some(met) = self.aborting.get_mut(&producer) {
            *met = true;
            return Standing::Aborted;
        }
        self.committing.insert(producer);
        Standing::Data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuilder;

    fn batch(base: Offset, producer: ProducerId, attributes: u8) -> Batch {
        let mut builder = BatchBuilder::new();
        builder.push(1, Some(b"k"), Some(b"v"), &[]);
        let mut bytes = builder.build().unwrap().placed(base, 0, None).bytes().to_vec();
        bytes[22] = attributes;
        bytes[43..51].copy_from_slice(&producer.to_be_bytes());
        Batch::parse(bytes.into()).unwrap()
    }

    #[test]
    fn batches_and_markers_are_told_apart() {
        const DATA: u8 = 1 << 4;
        const MARKER: u8 = (1 << 4) | (1 << 5);
        let aborted = |producer_id, first, marker| Aborted { producer_id, first, marker, stable_after: marker + 1 };
        let aborted = [aborted(1, 2, 6), aborted(2, 3, 4), aborted(1, 20, 21)];
        let mut pass = Transactions::new(aborted);
        for (offset, producer, attributes, expected) in [
            (0, -1, 0, Standing::Data),
            (1, 2, MARKER, Standing::IdleMarker), // its batches went in an earlier pass
            (2, 1, DATA, Standing::Aborted),
            (3, 2, DATA, Standing::Aborted),
            (4, 2, MARKER, Standing::Marker),
            (5, 2, DATA, Standing::Data),
            (6, 1, MARKER, Standing::Marker),
            (7, 1, DATA, Standing::Data),
            (8, 2, MARKER, Standing::Marker),
            (9, 1, MARKER, Standing::Marker),
            (10, 1, MARKER, Standing::IdleMarker),
            (21, 1, MARKER, Standing::IdleMarker),
        ] {
            assert_eq!(pass.meet(&batch(offset, producer, attributes)), expected, "offset {offset}");
        }
    }
}
