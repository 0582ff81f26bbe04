//! What is counted of each client that has a limit. Clients can be as many as somebody likes, what is counted cannot.

use std::collections::HashMap;

use super::quota::{Limit, Quota};

/// Clients at one time. When all of them are busy, further ones share a count for each kind of limit: they are held to it
/// together.
pub(super) const CLIENTS_MAX: usize = 20_000;

/// Whose use is counted, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    quota: Quota,
    user: Option<String>,
    client_id: Option<String>,
}

/// Counts by client. Holds: those of clients that are busy, and of others as long as there is room. A crash forgets them.
#[derive(Debug)]
pub(super) struct Clients<C> {
    counts: HashMap<Key, C>,
}

impl<C> Default for Clients<C> {
    fn default() -> Self {
        Self { counts: HashMap::new() }
    }
}

impl<C> Clients<C> {
    /// The count of the client that has this limit: `new` at first, and after it was forgotten. A count that `is_idle` is as good
    /// as a new one.
    pub(super) fn count(
        &mut self,
        (quota, limit): (Quota, Limit),
        is_idle: impl Fn(&mut C) -> bool,
        new: impl FnOnce() -> C,
    ) -> &mut C {
        let mut key = Key { quota, user: limit.user, client_id: limit.client_id };
        if self.counts.len() >= CLIENTS_MAX && !self.counts.contains_key(&key) {
            self.counts.retain(|_, count| !is_idle(count));
            if self.counts.len() >= CLIENTS_MAX {
                key = Key { quota, user: None, client_id: None };
            }
        }
        self.counts.entry(key).or_insert_with(new)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }
}
