//! What requests and timers do to a group: take its lock, let the rules decide, record, apply, answer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::classic::{Answer, Join, Joined, Outcome, Record, Synced, Turn};
use super::consumer::Fact;
use super::offsets::{self, Committed};
use super::records::{self, GroupRecord};
use super::state::{Event, Group, MemberId, Phase, SteadyMs};
use super::{Caller, Groups, NAME_BYTES_MAX, OFFSETS_MAX, check_group_id, check_names, consumer};
use crate::error::{Error, Kind, Result};
use crate::lane::{Ack, Change};
use crate::store::Family;
use crate::types::{PartitionIndex, TopicId};

/// A group and those who wait for it. Always true: a member with a waiting JoinGroup or SyncGroup has at most one of
/// each here; when somebody asks again, the earlier request ends without an answer that matters.
pub(super) struct Cell {
    /// The group.
    pub(super) group: Group,
    joins: HashMap<MemberId, oneshot::Sender<Result<Joined>>>,
    syncs: HashMap<MemberId, oneshot::Sender<Result<Synced>>>,
    /// Commits that are in the lane and not applied yet.
    pub(super) commits_under_way: u32,
    /// It was deleted; another one may have its name.
    pub(super) dead: bool,
    /// The deadline that the timers keep for it.
    pub(super) scheduled: Option<SteadyMs>,
}

impl Cell {
    /// A group that nobody waits for.
    pub(super) fn new(group: Group) -> Self {
        Self { group, joins: HashMap::new(), syncs: HashMap::new(), commits_under_way: 0, dead: false, scheduled: None }
    }

    fn answer(&mut self, id: &MemberId, answer: Answer) {
        // one who went away has given up its place in line, the group still counts it until its session ends
        match answer {
            Answer::Join(joined) => {
                let _ = self.joins.remove(id).map(|waiting| waiting.send(joined));
            }
            Answer::Sync(synced) => {
                let _ = self.syncs.remove(id).map(|waiting| waiting.send(synced));
            }
        }
    }

    pub(super) fn is_forgettable(&self) -> bool {
        let group = &self.group;
        group.is_empty()
            && group.offsets().is_empty()
            && group.pending().is_empty()
            && group.undecided().is_empty()
            && self.commits_under_way == 0
    }
}

pub(super) type SharedCell = Arc<Mutex<Cell>>;

/// What a group says to a JoinGroup or SyncGroup, perhaps later.
pub(crate) type Later<T> = BoxFuture<'static, Result<T>>;

/// An offset to be committed.
pub(crate) type Commit = (TopicId, PartitionIndex, Committed);

impl Groups {
    /// A client joins; the answer comes when the group is put together.
    ///
    /// # Errors
    /// Those of `Turn::join`; with `MemberIdRequired` the client shall use `join.new_id`.
    pub(crate) fn join(self: &Arc<Self>, id: &str, join: Join) -> Result<Later<Joined>> {
        check_group_id(id)?;
        let names = [&join.member_id, &join.protocol_type, &join.client_id];
        let protocol_names = join.protocols.iter().map(|protocol| &protocol.name);
        check_names(names.into_iter().chain(protocol_names).chain(&join.instance_id))?;
        // before a group is made for it
        self.limits.check_session_timeout(join.session_timeout_ms)?;
        let create = join.member_id.is_empty();
        let find = || match self.cell(id) {
            None if create => self.cell_or_new(id),
            known => known.ok_or_else(|| unknown_member(id)),
        };
        // one that is refused leaves its new group until the next sweep, as in Kafka
        self.in_cell(find, |cell, shared| {
            let (outcome, effects) = self.turn(cell, |turn| turn.join(join));
            let (sender, answer) = oneshot::channel();
            if let Ok(Outcome::Waits(member)) = &outcome {
                cell.joins.insert(member.clone(), sender);
            }
            let stored = self.settle(cell, shared, effects);
            outcome.map(|outcome| match outcome {
                Outcome::Now(joined) => after(stored, joined),
                Outcome::Waits(_) => waiting(answer),
            })
        })?
    }

    /// A member asks for its assignment, or brings everybody's; the answer comes when the leader's is recorded.
    ///
    /// # Errors
    /// Those of `Turn::sync`.
    pub(crate) fn sync(
        self: &Arc<Self>,
        id: &str,
        who: &Caller<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(MemberId, Bytes)>,
    ) -> Result<Later<Synced>> {
        check_group_id(id)?;
        self.in_group(id, |cell, shared| {
            let (outcome, effects) = self.turn(cell, |turn| turn.sync(who, protocol, assignments));
            let (sender, answer) = oneshot::channel();
            if let Ok(Outcome::Waits(member)) = &outcome {
                cell.syncs.insert(member.clone(), sender);
            }
            let stored = self.settle(cell, shared, effects);
            outcome.map(|outcome| match outcome {
                Outcome::Now(synced) => after(stored, synced),
                Outcome::Waits(_) => waiting(answer),
            })
        })
        .unwrap_or_else(|| Err(unknown_member(id)))
    }

    /// A member shows that it lives.
    ///
    /// # Errors
    /// Those of `Turn::heartbeat`.
    pub(crate) fn heartbeat(self: &Arc<Self>, id: &str, who: &Caller<'_>) -> Result<()> {
        check_group_id(id)?;
        self.in_group(id, |cell, _| {
            let beaten = self.turn_without_tick(cell, |turn| turn.heartbeat(who)).0;
            // a classic member only moves deadlines away; one among others may get one more, to join again
            if cell.group.consumers().is_some() {
                self.timers.schedule(cell);
            }
            beaten
        })
        .unwrap_or_else(|| Err(unknown_member(id)))
    }

    /// Members leave.
    ///
    /// # Errors
    /// `InvalidGroupId`; each member has its own result.
    pub(crate) fn leave(self: &Arc<Self>, id: &str, leaving: &[Caller<'_>]) -> Result<Vec<Result<()>>> {
        check_group_id(id)?;
        let results = self.in_group(id, |cell, shared| {
            let (results, effects) = self.turn(cell, |turn| turn.leave(leaving));
            drop(self.settle(cell, shared, effects));
            results
        });
        Ok(results.unwrap_or_else(|| leaving.iter().map(|_| Err(unknown_member(id))).collect()))
    }

    /// Commits offsets; they are durable when the answer comes. The order of commits is the order of calls.
    ///
    /// # Errors
    /// Those of [`offsets::check_commit`]; `GroupIdNotFound` for a member of no group; `CoordinatorNotAvailable` when there
    /// is no room.
    pub(crate) fn commit(self: &Arc<Self>, id: &str, who: &Caller<'_>, commits: Vec<Commit>) -> Result<Later<()>> {
        if id.len() > NAME_BYTES_MAX {
            return Err(Error::new(Kind::InvalidGroupId, "the group id is too long"));
        }
        if self.offsets_count.load(Ordering::Relaxed).saturating_add(commits.len()) > OFFSETS_MAX {
            let message = format!("the broker keeps {OFFSETS_MAX} offsets, delete groups first");
            tracing::warn!(group = id, "{message}");
            return Err(Error::new(Kind::CoordinatorNotAvailable, message));
        }
        if commits.is_empty() && who.generation < 0 && self.cell(id).is_none() {
            return Ok(now(())); // no group begins with nothing
        }
        let find = || match self.cell(id) {
            None if who.generation < 0 => self.cell_or_new(id),
            known => known.ok_or_else(|| no_group(id)),
        };
        self.in_cell(find, |cell, shared| {
            offsets::check_commit(&cell.group, who, &commits)?;
            let is_classic = cell.group.consumers().is_none();
            if is_classic && matches!(cell.group.phase(), Phase::Stable | Phase::PreparingRebalance { .. }) {
                self.turn_without_tick(cell, |turn| turn.heard(&who.member_id.into()));
            }
            Ok(self.submit_offsets(cell, shared, commits))
        })?
    }

    fn submit_offsets(self: &Arc<Self>, cell: &mut Cell, shared: &SharedCell, commits: Vec<Commit>) -> Later<()> {
        if commits.is_empty() {
            return now(());
        }
        let number = self.next_number();
        let group = cell.group.id().clone();
        let put = |(topic, partition, committed): &Commit| {
            let key = records::offset_key(&group, *topic, *partition);
            Change::Put(Family::Groups, key, records::encode_offset(committed))
        };
        let stored = self.lane.commit(commits.iter().map(put).collect(), Ack::Durable);
        cell.commits_under_way += 1;
        let (groups, shared) = (self.clone(), shared.clone());
        // a task of its own: a client that goes away must not keep a stored offset from being applied
        let applied = tokio::spawn(async move {
            let outcome = stored.await;
            let mut cell = shared.lock();
            cell.commits_under_way -= 1;
            outcome.map_err(not_available)?;
            for (topic, partition, committed) in commits {
                if !cell.dead && cell.group.offsets().get(topic, partition).is_none() {
                    groups.offsets_count.fetch_add(1, Ordering::Relaxed);
                }
                cell.group.apply(Event::OffsetSet(topic, partition, Committed { number, ..committed }));
            }
            Ok(())
        });
        Box::pin(async move { applied.await.unwrap_or_else(|_| Err(stopping())) })
    }

    /// Deletes a group and its offsets.
    ///
    /// # Errors
    /// `GroupIdNotFound`, `NonEmptyGroup`.
    pub(crate) fn delete(self: &Arc<Self>, id: &str) -> Result<Later<()>> {
        let deleted = self.in_group(id, |cell, shared| {
            if !cell.group.is_empty() {
                return Err(Error::new(Kind::NonEmptyGroup, "the group has members, stop them first"));
            }
            Ok((self.bury(cell), shared.clone()))
        });
        let (stored, shared) = deleted.unwrap_or_else(|| Err(no_group(id)))?;
        self.forget(id, &shared);
        Ok(stored)
    }

    /// Marks a group as deleted and removes what is stored of it. Its caller takes it off the map.
    pub(super) fn bury(&self, cell: &mut Cell) -> Later<()> {
        let id = cell.group.id();
        let (from, to) = records::offset_range(id);
        let (pending_from, pending_to) = records::pending_range(id);
        let mut changes = vec![
            Change::Delete(Family::Groups, records::group_key(id)),
            Change::DeleteRange(Family::Groups, from, to),
            Change::DeleteRange(Family::Groups, pending_from, pending_to),
        ];
        changes.extend(consumer::records::removal(id));
        let stored = self.lane.commit(changes, Ack::Durable);
        self.offsets_count.fetch_sub(cell.group.offsets().len(), Ordering::Relaxed);
        cell.dead = true;
        Box::pin(async move { stored.await.map(drop).map_err(not_available) })
    }

    /// Deletes offsets (OffsetDelete). Gives the topics that stay because the group reads them, and what to wait for.
    ///
    /// # Errors
    /// `GroupIdNotFound`; `NonEmptyGroup` for a live group that is not of consumers.
    pub(crate) fn delete_offsets(
        self: &Arc<Self>,
        id: &str,
        asked: &[(TopicId, Arc<str>, PartitionIndex)],
    ) -> Result<(HashSet<TopicId>, Later<()>)> {
        let deleted = self.in_group(id, |cell, shared| {
            let in_use: HashSet<TopicId> = match (cell.group.is_empty(), offsets::subscriptions(&cell.group)) {
                (true, _) => HashSet::new(),
                (_, Some(read)) => {
                    asked.iter().filter(|(_, name, _)| read.contains(&**name)).map(|(topic, ..)| *topic).collect()
                }
                _ => return Err(Error::new(Kind::NonEmptyGroup, "the group has members, stop them first")),
            };
            let free = asked.iter().filter(|(topic, ..)| !in_use.contains(topic));
            let free = free.map(|(topic, _, partition)| (*topic, *partition)).collect();
            let removed = self.remove_offsets(cell, shared, free);
            Ok((in_use, removed))
        });
        deleted.unwrap_or_else(|| Err(no_group(id)))
    }

    pub(super) fn remove_offsets(
        self: &Arc<Self>,
        cell: &mut Cell,
        shared: &SharedCell,
        gone: Vec<(TopicId, PartitionIndex)>,
    ) -> Later<()> {
        let number = self.next_number();
        let group = cell.group.id().clone();
        let delete = |(topic, partition): &(TopicId, PartitionIndex)| {
            Change::Delete(Family::Groups, records::offset_key(&group, *topic, *partition))
        };
        let stored = self.lane.commit(gone.iter().map(delete).collect(), Ack::Durable);
        let (groups, shared) = (self.clone(), shared.clone());
        let applied = tokio::spawn(async move {
            stored.await.map_err(not_available)?;
            let mut cell = shared.lock();
            let before = cell.group.offsets().len();
            for (topic, partition) in gone {
                cell.group.apply(Event::OffsetGone(topic, partition, number));
            }
            if !cell.dead {
                groups.offsets_count.fetch_sub(before - cell.group.offsets().len(), Ordering::Relaxed);
            }
            Ok(())
        });
        Box::pin(async move { applied.await.unwrap_or_else(|_| Err(stopping())) })
    }

    /// Does what is due in every group.
    pub(crate) fn tick(self: &Arc<Self>) {
        for (deadline, id) in self.timers.take_due(self.clock.steady_ms()) {
            self.in_group(&id, |cell, shared| {
                if cell.scheduled == Some(deadline) {
                    cell.scheduled = None;
                    let ((), effects) = self.turn(cell, |_| ());
                    drop(self.settle(cell, shared, effects));
                }
            });
        }
    }

    /// Lets `act` work on the group; `None` if there is none.
    pub(super) fn in_group<T>(&self, id: &str, act: impl FnOnce(&mut Cell, &SharedCell) -> T) -> Option<T> {
        self.in_cell(|| self.cell(id).ok_or_else(|| no_group(id)), act).ok()
    }

    /// Lets `act` work on the group that `find` gives; on a newer one if that was deleted meanwhile.
    pub(super) fn in_cell<T>(
        &self,
        find: impl Fn() -> Result<SharedCell>,
        act: impl FnOnce(&mut Cell, &SharedCell) -> T,
    ) -> Result<T> {
        loop {
            let shared = find()?;
            let mut cell = shared.lock();
            if !cell.dead {
                return Ok(act(&mut cell, &shared));
            }
            let id = cell.group.id().clone();
            drop(cell);
            self.forget(&id, &shared);
        }
    }

    pub(super) fn turn<T>(&self, cell: &mut Cell, act: impl FnOnce(&mut Turn<'_>) -> T) -> (T, Effects) {
        self.turn_without_tick(cell, |turn| {
            let result = act(turn);
            turn.tick();
            result
        })
    }

    pub(super) fn turn_without_tick<T>(&self, cell: &mut Cell, act: impl FnOnce(&mut Turn<'_>) -> T) -> (T, Effects) {
        let mut turn = Turn {
            timings: self.timings(cell.group.id()),
            group: &mut cell.group,
            now: self.clock.steady_ms(),
            wall: self.clock.now_ms(),
            limits: &self.limits,
            answers: Vec::new(),
            records: Vec::new(),
            topics: &*self.catalog,
            facts: Vec::new(),
            lookup: None,
        };
        let result = act(&mut turn);
        let Turn { answers, records, facts, lookup, .. } = turn;
        (result, Effects { answers, records, facts, lookup })
    }

    /// Submits the facts and records, sends the answers, and keeps the next deadline. Gives what to wait for before
    /// anybody is told of the facts.
    pub(super) fn settle(self: &Arc<Self>, cell: &mut Cell, shared: &SharedCell, effects: Effects) -> Later<()> {
        let stored = self.store_facts(cell, &effects.facts);
        for (member, answer) in effects.answers {
            cell.answer(&member, answer);
        }
        for record in effects.records {
            self.submit(cell, shared, record);
        }
        self.timers.schedule(cell);
        stored
    }

    /// Losing a generation costs a rebalance and nothing else, so it need not wait for a sync of the disk.
    fn submit(self: &Arc<Self>, cell: &Cell, shared: &SharedCell, record: Record) {
        let (Record::Emptied(content) | Record::Assigned(content) | Record::Replaced(content, _)) = &record;
        let key = records::group_key(cell.group.id());
        let change = Change::Put(Family::Groups, key, content.encode());
        let stored = self.lane.commit(vec![change], Ack::Written);
        let (groups, shared) = (self.clone(), shared.clone());
        tokio::spawn(async move {
            let outcome = stored.await.map(drop).map_err(not_available);
            let mut cell = shared.lock();
            match record {
                Record::Emptied(_) => {}
                Record::Assigned(content) => groups.assigned(&mut cell, &shared, content, outcome),
                Record::Replaced(_, joined) => {
                    let member = joined.member_id.clone();
                    cell.answer(&member, Answer::Join(outcome.map(|()| *joined)));
                }
            }
        });
    }

    fn assigned(self: &Arc<Self>, cell: &mut Cell, shared: &SharedCell, record: GroupRecord, stored: Result<()>) {
        if let Err(error) = stored {
            let waiting: Vec<MemberId> = cell.syncs.keys().cloned().collect();
            for member in waiting {
                cell.answer(&member, Answer::Sync(Err(error.clone())));
            }
            return;
        }
        let ((), effects) = self.turn(cell, |turn| turn.recorded(record));
        drop(self.settle(cell, shared, effects));
    }
}

/// Answers and records of a turn.
pub(super) struct Effects {
    answers: Vec<(MemberId, Answer)>,
    records: Vec<Record>,
    facts: Vec<Fact>,
    /// Regular expressions that are to be looked up, of a heartbeat alone.
    pub(super) lookup: Option<BTreeSet<Arc<str>>>,
}

/// `value`, when what it says is stored.
pub(super) fn after<T: Send + 'static>(stored: Later<()>, value: T) -> Later<T> {
    Box::pin(async move { stored.await.map(|()| value) })
}

pub(super) fn now<T: Send + 'static>(value: T) -> Later<T> {
    Box::pin(std::future::ready(Ok(value)))
}

fn waiting<T: Send + 'static>(answer: oneshot::Receiver<Result<T>>) -> Later<T> {
    Box::pin(async move { answer.await.unwrap_or_else(|_| Err(stopping())) })
}

pub(super) fn stopping() -> Error {
    Error::new(
        Kind::CoordinatorNotAvailable,
        "the request was overtaken by another one, or the broker stops; try again",
    )
}

/// A store that failed cannot coordinate: clients look for the coordinator again, and find it after a restart.
#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
pub(super) fn not_available(error: Error) -> Error {
    Error::new(Kind::CoordinatorNotAvailable, error.message)
}

fn unknown_member(id: &str) -> Error {
    Error::new(Kind::UnknownMemberId, format!("group '{id}' has no members; join it with an empty member id"))
}

pub(super) fn no_group(id: &str) -> Error {
    Error::new(Kind::GroupIdNotFound, format!("group '{id}' does not exist"))
}
