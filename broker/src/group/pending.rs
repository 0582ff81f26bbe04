//! Offsets of transactions that are not decided yet. They lie beside a group's committed offsets until their transaction
//! ends: then they become committed ones, or go. Pure.

use std::collections::BTreeMap;

use super::offsets::Committed;
use crate::types::{PartitionIndex, ProducerId, TopicId};

/// Offsets by partition.
pub(crate) type Places = BTreeMap<(TopicId, PartitionIndex), Committed>;

/// The undecided offsets of one group. Holds: those of open transactions by producer, and those of ended ones until their end
/// is durable. Only `Group::apply` changes it. A crash keeps those of open transactions.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    open: BTreeMap<ProducerId, Places>,
    ending: BTreeMap<u64, Places>,
}

impl Pending {
    /// A producer's transaction is to commit this.
    pub(super) fn set(&mut self, producer: ProducerId, place: (TopicId, PartitionIndex), committed: Committed) {
        self.open.entry(producer).or_default().insert(place, committed);
    }

    /// A producer's transaction ended with the commit of this number.
    pub(super) fn end(&mut self, producer: ProducerId, number: u64) {
        if let Some(places) = self.open.remove(&producer) {
            self.ending.insert(number, places);
        }
    }

    /// That end is durable. Gives what it was about.
    pub(super) fn ended(&mut self, number: u64) -> Places {
        self.ending.remove(&number).unwrap_or_default()
    }

    /// What a producer's open transaction is to commit.
    pub(crate) fn of(&self, producer: ProducerId) -> impl Iterator<Item = (&(TopicId, PartitionIndex), &Committed)> {
        self.open.get(&producer).into_iter().flatten()
    }

    /// Whether a partition's offset is undecided.
    pub(crate) fn has(&self, topic: TopicId, partition: PartitionIndex) -> bool {
        self.open.values().chain(self.ending.values()).any(|places| places.contains_key(&(topic, partition)))
    }

    /// Whether nothing is undecided.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ending.is_empty()
    }

    /// How many offsets are undecided.
    pub(crate) fn len(&self) -> usize {
        self.open.values().chain(self.ending.values()).map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_undecided_until_its_end_is_durable() {
        let place = (TopicId::from_u128(1), 0);
        let committed = Committed {
            offset: 5,
            leader_epoch: -1,
            metadata: "".into(),
            committed_at: 0,
            expires_at: None,
            number: 0,
        };
        let mut pending = Pending::default();
        pending.set(7, place, committed.clone());
        assert!(pending.has(place.0, place.1) && !pending.has(place.0, 1));
        assert_eq!(pending.of(7).count(), 1);
        pending.end(7, 3);
        assert_eq!(pending.of(7).count(), 0);
        pending.set(7, place, Committed { offset: 6, ..committed.clone() });
        assert_eq!(pending.len(), 2, "the next transaction of the producer does not mix with the last one");
        assert_eq!(pending.ended(3)[&place], committed);
        assert!(pending.has(place.0, place.1));
        pending.end(7, 4);
        pending.ended(4);
        assert!(pending.is_empty());
    }
}
