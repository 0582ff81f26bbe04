//! The lake's hold on retention: the log keeps what is not settled, and what a query that is running still reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use broker::{Hold, LogId, Offset};
use parking_lot::Mutex;

/// The lake's holds. Holds: per partition the mark and the offsets that running queries began at. Always true: the
/// broker's hold is at the least of them. Nothing survives a crash; the start sets the marks again.
#[derive(Clone)]
pub struct Floors(Arc<Mutex<Inner>>);

struct Inner {
    hold: Hold,
    logs: HashMap<LogId, Floor>,
}

#[derive(Default)]
struct Floor {
    mark: Option<Offset>,
    pins: BTreeMap<Offset, usize>,
}

/// Keeps a partition's records from an offset on until it is dropped.
pub struct Pin {
    floors: Floors,
    log: LogId,
    from: Offset,
}

impl Floors {
    /// The lake's floors over the broker's hold.
    pub fn new(hold: Hold) -> Self {
        Self(Arc::new(Mutex::new(Inner { hold, logs: HashMap::new() })))
    }

    /// Keeps what is above the mark of a partition.
    pub fn set_mark(&self, log: LogId, mark: Offset) {
        let mut inner = self.0.lock();
        inner.logs.entry(log).or_default().mark = Some(mark);
        inner.update(log);
    }

    /// Whether a partition's mark is held.
    pub fn has_mark(&self, log: LogId) -> bool {
        self.0.lock().logs.get(&log).is_some_and(|floor| floor.mark.is_some())
    }

    /// Gives up a partition that was deleted, but for running queries.
    pub fn clear(&self, log: LogId) {
        let mut inner = self.0.lock();
        inner.logs.entry(log).or_default().mark = None;
        inner.update(log);
    }

    /// Keeps what a query reads: from the mark on, or from `start` on where nothing settles.
    pub fn pin(&self, log: LogId, start: Offset) -> Pin {
        let mut inner = self.0.lock();
        let floor = inner.logs.entry(log).or_default();
        let from = floor.mark.unwrap_or(start);
        *floor.pins.entry(from).or_default() += 1;
        inner.update(log);
        Pin { floors: self.clone(), log, from }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut inner = self.floors.0.lock();
        if let Some(floor) = inner.logs.get_mut(&self.log) {
            let last = floor.pins.get_mut(&self.from).is_none_or(|count| {
                *count -= 1;
                *count == 0
            });
            if last {
                floor.pins.remove(&self.from);
            }
        }
        inner.update(self.log);
    }
}

impl Inner {
    fn update(&mut self, log: LogId) {
        let floor = self.logs.get(&log).and_then(|floor| {
            let pinned = floor.pins.keys().next().copied();
            pinned.into_iter().chain(floor.mark).min()
        });
        match floor {
            Some(offset) => self.hold.set(log, offset),
            None => {
                self.hold.clear(log);
                self.logs.remove(&log);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use broker::Holds;

    use super::*;

    #[test]
    fn the_hold_is_at_the_least_of_mark_and_pins() {
        let holds = Holds::default();
        let floors = Floors::new(holds.register("lake"));
        let log = LogId(1);
        let unsettled = floors.pin(log, 3);
        assert_eq!(holds.floor(log), Some(3));
        drop(unsettled);
        assert_eq!(holds.floor(log), None);
        floors.set_mark(log, 10);
        let (first, second) = (floors.pin(log, 0), floors.pin(log, 0));
        floors.set_mark(log, 20);
        assert_eq!(holds.floor(log), Some(10), "two queries still read from 10");
        drop(first);
        assert_eq!(holds.floor(log), Some(10));
        drop(second);
        assert_eq!(holds.floor(log), Some(20));
        floors.clear(log);
        assert_eq!(holds.floor(log), None);
    }
}
