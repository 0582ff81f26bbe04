//! In which order things were acknowledged, to tell whether what a power cut left was once the state of all of them.

use super::model::KEYS;
use std::collections::BTreeMap;

/// Something that is acknowledged as a number that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// Where a partition of the ledger ends.
    Ledger(usize),
    TrimmedEnd,
    TrimmedStart,
    AgedEnd,
    /// The offset of the plain group.
    Plain,
    /// The value of a key of the compacted topic.
    Kept(u64),
    /// How many transactions are committed.
    Pairs,
}

/// What was acknowledged in turn, since it was last compared: a power cut takes the end of it, and leaves a state that once was.
pub struct Journal {
    before: BTreeMap<Item, i64>,
    since: Vec<(Item, i64)>,
}

impl Journal {
    pub fn new() -> Journal {
        let ledger = [0, 1].map(Item::Ledger);
        let zeros = ledger.into_iter().chain([Item::TrimmedEnd, Item::TrimmedStart, Item::AgedEnd, Item::Pairs]);
        let before = zeros.chain((0..KEYS).map(Item::Kept)).map(|item| (item, 0)).chain([(Item::Plain, -1)]).collect();
        Journal { before, since: Vec::new() }
    }

    pub fn push(&mut self, item: Item, state: i64) {
        self.since.push((item, state));
    }

    /// What is there was the state of everything at one moment. From here on it is what was before.
    pub fn compare(&mut self, found: BTreeMap<Item, i64>) {
        let mut at = self.before.clone();
        let was = at == found
            || self.since.iter().any(|(item, state)| {
                at.insert(*item, *state);
                at == found
            });
        assert!(was, "never at one moment: {found:?}; before: {:?}, since: {:?}", self.before, self.since);
        *self = Journal { before: found, since: Vec::new() };
    }
}

#[test]
fn what_never_was_at_one_moment_is_found() {
    let journal = || {
        let mut journal = Journal::new();
        for (item, state) in [(Item::Plain, 0), (Item::Pairs, 1), (Item::Plain, 1)] {
            journal.push(item, state);
        }
        journal
    };
    let found = |plain: i64, pairs: i64| {
        let mut found = journal().before;
        found.extend([(Item::Plain, plain), (Item::Pairs, pairs)]);
        found
    };
    for (plain, pairs) in [(-1, 0), (0, 0), (0, 1), (1, 1)] {
        journal().compare(found(plain, pairs));
    }
    for (plain, pairs) in [(1, 0), (-1, 1), (2, 1)] {
        assert!(std::panic::catch_unwind(|| journal().compare(found(plain, pairs))).is_err(), "{plain} {pairs}");
    }
}
