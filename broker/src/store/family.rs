//! The families of the store.

use std::borrow::Cow;

/// The parts of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Topics, settings, ids, log starts, leader epochs.
    Meta,
    /// Record batches that outlived their buckets, and those of stores of version 1.
    Log,
    /// Record batches as they are appended: a part of the log by time. See `store/buckets`.
    Bucket(u32),
    /// Record batches of compacted topics, which are replaced and removed one by one.
    Compacted,
    /// One small entry per batch.
    Index,
    /// Sequence state of idempotent producers.
    Producers,
    /// Committed offsets of consumer groups.
    Groups,
    /// Transactions.
    Txns,
    /// Aggregates and positions of views.
    State,
    /// The lake's manifest.
    Lake,
}

impl Family {
    /// Every family that is always there, in the order in which they are created.
    pub const ALL: [Family; 9] = [
        Family::Meta,
        Family::Log,
        Family::Compacted,
        Family::Index,
        Family::Producers,
        Family::Groups,
        Family::Txns,
        Family::State,
        Family::Lake,
    ];

    /// Whether it is a bucket: a part of the log by time, in which nothing is merged or removed.
    pub(crate) fn is_bucket(self) -> bool {
        matches!(self, Self::Bucket(_))
    }

    pub(crate) fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Bucket(number) => return Cow::Owned(super::buckets::name(number)),
            Self::Compacted => "compacted",
            Self::Index => "index",
            Self::Producers => "producers",
            Self::Groups => "groups",
            Self::Txns => "txns",
            Self::State => "state",
            Self::Lake => "lake",
        })
    }
}
