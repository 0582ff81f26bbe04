//! Consumer groups. Each request takes one turn of its group, under the group's lock: rules decide (`classic.rs`,
//! `rebalance.rs`, `offsets.rs`), records go into the commit lane in that order (`records.rs`), what they say is applied
//! when they are stored (`state.rs`), then those who wait are answered. Nothing here waits for the store while it holds
//! a lock.
//!
//! Groups whose members use the consumer protocol (KIP-848) are in `consumer/`; a group has one protocol at a time, its
//! offsets are the same for both.
//!
//! Stored: committed offsets, those that an open transaction is to commit (`pending.rs`, `transactions.rs`), and each
//! generation that got its assignment, so that members go on after a restart of the
//! broker without a rebalance. What is not stored (members that join, heartbeats) the clients bring about again.

pub(crate) mod classic;
pub(crate) mod consumer;
mod coordinator;
pub(crate) mod offsets;
mod overview;
pub(crate) mod pending;
mod rebalance;
pub(crate) mod records;
pub(crate) mod state;
mod sweep;
mod timers;
mod transactions;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use overview::{CommittedOffset, GroupDescription, GroupOverview, MemberDescription};
pub(crate) use sweep::run as run_sweeps;
pub(crate) use timers::run as run_timers;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{BrokerConfig, GroupConsumerConfig};
use crate::error::{Error, Kind, Result};
use crate::lane::Lane;
use crate::settings::BrokerSettings;
use crate::store::{Family, Store};
use coordinator::Cell;
pub(crate) use coordinator::{Commit, Later};
use records::Key;
use state::{Event, Group};
use timers::Timers;

/// Most groups; more are refused until some are deleted or expire.
const GROUPS_MAX: usize = 100_000;
/// Most committed offsets over all groups.
const OFFSETS_MAX: usize = 5_000_000;
/// Longest text that every version of the protocol can carry.
pub(crate) const NAME_BYTES_MAX: usize = i16::MAX as usize;
const _: () = assert!(NAME_BYTES_MAX <= records::TEXT_BYTES_MAX);

/// Who asks, in its own words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    /// Member id, or empty.
    pub(crate) member_id: &'a str,
    /// Static name.
    pub(crate) instance_id: Option<&'a str>,
    /// Generation that it believes in; -1 for none.
    pub(crate) generation: i32,
}

/// What the broker allows.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Least session timeout.
    pub(crate) session_timeout_min_ms: i32,
    /// Largest session timeout.
    pub(crate) session_timeout_max_ms: i32,
    /// How long a new group waits for more members.
    pub(crate) initial_delay_ms: i64,
    /// Most members of a group.
    pub(crate) members_max: usize,
    /// How long the offsets of an empty group are kept.
    pub(crate) offsets_retention_ms: i64,
    /// Bounds of groups of the consumer protocol.
    pub(crate) consumer: GroupConsumerConfig,
}

impl Limits {
    /// Whether a member may ask for this session timeout.
    ///
    /// # Errors
    /// `InvalidSessionTimeout`, with the bounds.
    pub(crate) fn check_session_timeout(&self, asked_ms: i32) -> Result<()> {
        let (least, most) = (self.session_timeout_min_ms, self.session_timeout_max_ms);
        if (least..=most).contains(&asked_ms) {
            return Ok(());
        }
        let message = format!("session timeout {asked_ms} ms must be from {least} to {most}");
        Err(Error::new(Kind::InvalidSessionTimeout, message))
    }

    fn of(config: &BrokerConfig) -> Self {
        Self {
            session_timeout_min_ms: config.group_min_session_timeout_ms,
            session_timeout_max_ms: config.group_max_session_timeout_ms,
            initial_delay_ms: i64::try_from(config.group_initial_rebalance_delay_ms).unwrap_or(i64::MAX / 4),
            members_max: config.group_max_size,
            offsets_retention_ms: config.offsets_retention_ms,
            consumer: config.group_consumer.clone(),
        }
    }
}

/// The coordinator of all groups. Holds: the groups and who waits for them. Each group changes under its own lock; the
/// lock of the map is never taken while one of them is held. A crash keeps what `group/mod.rs` says is stored.
pub struct Groups {
    lane: Arc<Lane>,
    catalog: Arc<Catalog>,
    settings: Arc<BrokerSettings>,
    clock: Clock,
    limits: Limits,
    cells: Mutex<HashMap<Arc<str>, Arc<Mutex<Cell>>>>,
    timers: Arc<Timers>,
    /// Number of the last commit, so that late answers never undo newer commits.
    last_number: AtomicU64,
    offsets_count: AtomicUsize,
}

impl Groups {
    /// Reads what is stored. Blocks.
    ///
    /// # Errors
    /// `Storage` when it is damaged.
    pub(crate) fn recover(
        store: &Store,
        (lane, catalog, settings): (Arc<Lane>, Arc<Catalog>, Arc<BrokerSettings>),
        config: &BrokerConfig,
        clock: Clock,
    ) -> Result<Self> {
        let (now, wall) = (clock.steady_ms(), clock.now_ms());
        let mut groups: HashMap<Arc<str>, Group> = HashMap::new();
        let mut offsets_count = 0;
        for entry in store.scan(Family::Groups, &[], &[0xff]) {
            let (key, value) = entry?;
            let (id, event) = match records::decode_key(&key)? {
                Key::Group(id) => (id, Event::Recorded(Box::new(records::GroupRecord::decode(&value)?), now)),
                Key::Offset(id, topic, partition) => {
                    offsets_count += 1;
                    (id, Event::OffsetSet(topic, partition, records::decode_offset(&value)?))
                }
                Key::Pending(id, producer, topic, partition) => {
                    (id, Event::OffsetPending(producer, (topic, partition), records::decode_offset(&value)?))
                }
                Key::Consumer => {
                    let (id, fact) = consumer::records::decode(&key, &value)?;
                    (id, Event::Fact(fact))
                }
            };
            groups.entry(id.clone()).or_insert_with(|| Group::new(id, wall)).apply(event);
        }
        let recovered = Self {
            lane,
            catalog,
            settings,
            clock,
            limits: Limits::of(config),
            cells: Mutex::default(),
            timers: Arc::default(),
            last_number: AtomicU64::new(0),
            offsets_count: AtomicUsize::new(offsets_count),
        };
        for (id, mut group) in groups {
            let session_timeout_ms = recovered.timings(&id).session_timeout_ms;
            if let Some(consumers) = group.consumers_mut() {
                consumers.restart_deadlines(now, session_timeout_ms);
            }
            let mut cell = Cell::new(group);
            recovered.timers.schedule(&mut cell);
            recovered.cells.lock().insert(id, Arc::new(Mutex::new(cell)));
        }
        Ok(recovered)
    }

    /// Reads a group; `None` if there is none.
    pub(crate) fn read<T>(&self, id: &str, read: impl FnOnce(&Group) -> T) -> Option<T> {
        let cell = self.cell(id)?;
        let cell = cell.lock();
        (!cell.dead).then(|| read(&cell.group))
    }

    fn cell(&self, id: &str) -> Option<Arc<Mutex<Cell>>> {
        self.cells.lock().get(id).cloned()
    }

    fn all_cells(&self) -> Vec<Arc<Mutex<Cell>>> {
        self.cells.lock().values().cloned().collect()
    }

    fn cell_or_new(&self, id: &str) -> Result<Arc<Mutex<Cell>>> {
        let mut cells = self.cells.lock();
        if let Some(cell) = cells.get(id) {
            return Ok(cell.clone());
        }
        if cells.len() >= GROUPS_MAX {
            let message = format!("the broker has {GROUPS_MAX} groups, delete some first");
            tracing::warn!(group = id, "{message}");
            return Err(Error::new(Kind::CoordinatorNotAvailable, message));
        }
        let id: Arc<str> = id.into();
        let group = Group::new(id.clone(), self.clock.now_ms());
        let cell = Arc::new(Mutex::new(Cell::new(group)));
        cells.insert(id, cell.clone());
        Ok(cell)
    }

    /// Takes a deleted group off the map.
    fn forget(&self, id: &str, dead: &Arc<Mutex<Cell>>) {
        let mut cells = self.cells.lock();
        if cells.get(id).is_some_and(|known| Arc::ptr_eq(known, dead)) {
            cells.remove(id);
        }
    }

    /// Takes a group off the map that a refused request made.
    fn forget_if_unused(&self, id: &str) {
        let Some(cell) = self.cell(id) else { return };
        let mut unused = cell.lock();
        if !unused.dead && unused.is_forgettable() {
            unused.dead = true;
            drop(unused);
            self.forget(id, &cell);
        }
    }

    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn check_group_id(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > NAME_BYTES_MAX {
        let message = format!("a group id must have 1 to {NAME_BYTES_MAX} bytes, not {}", id.len());
        return Err(Error::new(Kind::InvalidGroupId, message));
    }
    Ok(())
}

fn check_names<'a>(mut names: impl Iterator<Item = &'a Arc<str>>) -> Result<()> {
    if names.any(|name| name.len() > NAME_BYTES_MAX) {
        let message = format!("a name in the request is longer than {NAME_BYTES_MAX} bytes");
        return Err(Error::new(Kind::InvalidRequest, message));
    }
    Ok(())
}
