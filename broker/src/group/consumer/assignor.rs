//! Who is to read what: the assignors that the broker has. Pure; the same members, topics and past targets always give the
//! same assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Partitions, range, uniform};
use crate::group::state::MemberId;
use crate::types::TopicId;

/// A way of assigning. The names are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assignor {
    /// Even over all topics, and members keep what they have as far as that goes.
    Uniform,
    /// Topic by topic in runs of neighbours, so that topics with as many partitions go together.
    Range,
}

impl Assignor {
    /// All of them; the first is the one for members that do not wish for any.
    pub(crate) const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// A target for every member. Every partition of a topic that somebody subscribes to is in exactly one of them.
    pub(crate) fn assign(self, group: &Subscriptions) -> BTreeMap<MemberId, Partitions> {
        match self {
            Self::Uniform => uniform::assign(group),
            Self::Range => range::assign(group),
        }
    }
}

/// A member as an assignor sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscriber {
    /// Its static name.
    pub(crate) instance_id: Option<Arc<str>>,
    /// Topics that it subscribes to and that exist.
    pub(crate) topics: BTreeSet<TopicId>,
    /// What it was to have.
    pub(crate) target: Partitions,
}

/// What an assignment depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscriptions {
    /// The members.
    pub(crate) members: BTreeMap<MemberId, Subscriber>,
    /// The number of partitions of every topic that somebody subscribes to.
    pub(crate) topics: BTreeMap<TopicId, i32>,
}
