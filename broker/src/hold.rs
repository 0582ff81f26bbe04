//! Holds: what the engine and the lake have not read yet, retention does not delete.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::{LogId, Offset};

type Floors = HashMap<(Arc<str>, LogId), Offset>;

/// All holds. They are not stored: their owners set them again at every start, before [`crate::Broker::start_aging`].
#[derive(Clone, Debug, Default)]
pub struct Holds(Arc<Mutex<Floors>>);

/// One owner's holds, at most one per partition.
#[derive(Debug)]
pub struct Hold {
    name: Arc<str>,
    floors: Arc<Mutex<Floors>>,
}

impl Holds {
    /// The holds of one owner.
    pub fn register(&self, name: impl Into<Arc<str>>) -> Hold {
        Hold { name: name.into(), floors: self.0.clone() }
    }

    /// The offset that the log start of a partition must not pass.
    pub fn floor(&self, log: LogId) -> Option<Offset> {
        self.0.lock().iter().filter(|((_, held), _)| *held == log).map(|(_, floor)| *floor).min()
    }
}

impl Hold {
    /// Keeps the records of `log` from `floor` on.
    pub fn set(&self, log: LogId, floor: Offset) {
        self.floors.lock().insert((self.name.clone(), log), floor);
    }

    /// Gives up the hold on `log`.
    pub fn clear(&self, log: LogId) {
        self.floors.lock().remove(&(self.name.clone(), log));
    }
}
