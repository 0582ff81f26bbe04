//! Offsets that a transaction commits (TxnOffsetCommit): recorded when they come, decided when the transaction ends. The
//! coordinator of transactions calls this under its own lock, so the order of these changes is the order of its decisions.
//! They are applied when they are submitted: the lane takes commits in order and fails only when the broker stops.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::coordinator::{Cell, Commit, Later, not_available, stopping};
use super::state::Event;
use super::{Caller, Groups, NAME_BYTES_MAX, OFFSETS_MAX, offsets, records};
use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Appended, Change};
use crate::store::Family;
use crate::types::ProducerId;

/// Most offsets of open transactions in one group.
const UNDECIDED_MAX: usize = 200_000;

impl Groups {
    /// Keeps offsets for a producer's open transaction; they are durable when the answer comes.
    ///
    /// # Errors
    /// Those of [`offsets::check_transactional`]; `CoordinatorNotAvailable` when there is no room.
    pub(crate) fn keep_pending(
        self: &Arc<Self>,
        id: &str,
        who: &Caller<'_>,
        producer: ProducerId,
        commits: Vec<Commit>,
    ) -> Result<Later<()>> {
        if id.len() > NAME_BYTES_MAX {
            return Err(Error::new(Kind::InvalidGroupId, "the group id is too long"));
        }
        if self.offsets_count.load(Ordering::Relaxed).saturating_add(commits.len()) > OFFSETS_MAX {
            let message = format!("the broker keeps {OFFSETS_MAX} offsets, delete groups first");
            return Err(Error::new(Kind::CoordinatorNotAvailable, message));
        }
        let find = || match self.cell(id) {
            None if who.generation < 0 => self.cell_or_new(id),
            known => known
                .ok_or_else(|| Error::new(Kind::IllegalGeneration, format!("there is no group '{id}', join it again"))),
        };
        self.in_cell(find, |cell, _| {
            offsets::check_transactional(&cell.group, who, &commits)?;
            if cell.group.undecided().len().saturating_add(commits.len()) > UNDECIDED_MAX {
                let message =
                    format!("the group waits for {UNDECIDED_MAX} offsets of open transactions, end some first");
                return Err(Error::new(Kind::CoordinatorNotAvailable, message));
            }
            let group = cell.group.id().clone();
            let put = |(topic, partition, committed): &Commit| {
                let key = records::pending_key(&group, producer, *topic, *partition);
                Change::Put(Family::Groups, key, records::encode_offset(committed))
            };
            let stored = self.lane.commit(commits.iter().map(put).collect(), Ack::Durable);
            for (topic, partition, committed) in commits {
                cell.group.apply(Event::OffsetPending(producer, (topic, partition), committed));
            }
            let later: Later<()> = Box::pin(async move { stored.await.map(drop).map_err(not_available) });
            Ok(later)
        })?
    }

    /// Ends a producer's transaction in its groups, in one commit with what `submit` adds. The offsets count when that is
    /// durable; the answer comes then, too.
    pub(crate) fn end_transaction<F>(
        self: &Arc<Self>,
        producer: ProducerId,
        committed: bool,
        groups: impl Iterator<Item = Arc<str>>,
        submit: impl FnOnce(Vec<Change>) -> F,
    ) -> Later<()>
    where
        F: Future<Output = Result<Vec<Appended>>> + Send + 'static,
    {
        // in the order of their names, so that two who hold several never wait for one another
        let mut names: Vec<Arc<str>> = groups.collect();
        names.sort_unstable();
        let shared: Vec<_> = names.iter().filter_map(|name| self.cell(name)).collect();
        let mut cells: Vec<_> = shared.iter().map(|cell| cell.lock()).collect();
        let number = self.next_number();
        let changes = cells.iter().filter(|cell| !cell.dead).flat_map(|cell| decided(cell, producer, committed));
        let stored = submit(changes.collect());
        for cell in &mut cells {
            cell.group.apply(Event::TransactionEnds(producer, number));
            cell.commits_under_way += 1;
        }
        drop(cells);
        let groups = self.clone();
        // a task of its own: a client that goes away must not keep a stored end from being applied
        let applied = tokio::spawn(async move {
            let outcome = stored.await;
            for cell in shared {
                let mut cell = cell.lock();
                cell.commits_under_way -= 1;
                if outcome.is_ok() {
                    let before = cell.group.offsets().len();
                    cell.group.apply(Event::TransactionEnded(number, committed));
                    let more = cell.group.offsets().len() - before;
                    if !cell.dead {
                        groups.offsets_count.fetch_add(more, Ordering::Relaxed);
                    }
                }
            }
            outcome.map(drop).map_err(not_available)
        });
        Box::pin(async move { applied.await.unwrap_or_else(|_| Err(stopping())) })
    }
}

/// What the end of a producer's transaction changes in the store for one group.
fn decided(cell: &Cell, producer: ProducerId, committed: bool) -> Vec<Change> {
    let group = cell.group.id();
    let mut changes = Vec::new();
    for ((topic, partition), offset) in cell.group.undecided().of(producer) {
        if committed {
            let key = records::offset_key(group, *topic, *partition);
            changes.push(Change::Put(Family::Groups, key, records::encode_offset(offset)));
        }
        changes.push(Change::Delete(Family::Groups, records::pending_key(group, producer, *topic, *partition)));
    }
    changes
}
