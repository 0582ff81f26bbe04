//! When which group has something due. One task sleeps until the earliest; it never waits for the disk.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::coordinator::Cell;
use super::state::SteadyMs;
use crate::Broker;

/// Longest sleep while nothing is due at all.
const IDLE: Duration = Duration::from_secs(600);
/// Longest sleep while something is due later: bounds what a clock that was moved by hand can be behind.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// When, and which group; the earliest comes first.
type Due = Reverse<(SteadyMs, Arc<str>)>;

/// Deadlines of groups. Holds: the earliest of each group, and older ones that no longer count (the group's `scheduled`
/// says which does).
#[derive(Default)]
pub(super) struct Timers {
    due: Mutex<BinaryHeap<Due>>,
    earlier: Notify,
}

impl Timers {
    /// Sees to it that the group's next deadline is kept.
    pub(super) fn schedule(&self, cell: &mut Cell) {
        let Some(next) = cell.group.next_deadline() else { return };
        if cell.scheduled.is_some_and(|scheduled| scheduled <= next) {
            return;
        }
        cell.scheduled = Some(next);
        let mut due = self.due.lock();
        let is_earliest = due.peek().is_none_or(|Reverse((earliest, _))| next < *earliest);
        due.push(Reverse((next, cell.group.id().clone())));
        drop(due);
        if is_earliest {
            self.earlier.notify_one();
        }
    }

    /// The groups that are due, each with the deadline that was kept.
    pub(super) fn take_due(&self, now: SteadyMs) -> Vec<(SteadyMs, Arc<str>)> {
        let mut due = self.due.lock();
        let mut taken = Vec::new();
        while let Some(Reverse((earliest, _))) = due.peek() {
            if *earliest > now {
                break;
            }
            taken.extend(due.pop().map(|Reverse(entry)| entry));
        }
        taken
    }

    /// Waits until something may be due.
    async fn wait(&self, now: SteadyMs) {
        let next = self.due.lock().peek().map(|Reverse((earliest, _))| *earliest);
        let left = next.map(|next| Duration::from_millis(u64::try_from(next - now).unwrap_or(0)));
        let sleep = left.map_or(IDLE, |left| left.min(SLEEP_MAX));
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = self.earlier.notified() => {}
        }
    }
}

/// Does for all groups what is due, until the broker is dropped.
pub(crate) async fn run(broker: Weak<Broker>) {
    loop {
        let Some(strong) = broker.upgrade() else { return };
        let groups = strong.groups().clone();
        groups.tick();
        let (timers, now) = (groups.timers.clone(), groups.clock.steady_ms());
        // nothing that holds the store is kept while it sleeps
        drop((strong, groups));
        timers.wait(now).await;
    }
}
