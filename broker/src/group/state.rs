//! What a group is, and the one function that changes it: [`Group::apply`], live and in recovery alike. The rules that
//! decide which events happen are in `classic.rs` and `offsets.rs`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::consumer::{Consumers, Fact};
use super::offsets::{Committed, Offsets};
use super::pending::Pending;
use super::records::{GroupRecord, MemberRecord};
use crate::types::{PartitionIndex, ProducerId, TimestampMs, TopicId};

/// Identity of a member: the broker makes it, the client repeats it.
pub(crate) type MemberId = Arc<str>;

/// Milliseconds of `Clock::steady_ms`: only differences mean something.
pub(crate) type SteadyMs = i64;

/// One way of assigning that a member can take part in. Both parts are the clients' own affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    /// Name, such as `range` or `sessioned`.
    pub(crate) name: Arc<str>,
    /// What the member tells the leader, such as its topics.
    pub(crate) metadata: Bytes,
}

/// One member. Only `Group::apply` changes it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its identity.
    pub(crate) id: MemberId,
    /// Name that it keeps over restarts (KIP-345), if it is static.
    pub(crate) instance_id: Option<Arc<str>>,
    /// Client id of its last JoinGroup.
    pub(crate) client_id: Arc<str>,
    /// Address it came from, as Kafka shows it.
    pub(crate) client_host: Arc<str>,
    /// How long it may be silent.
    pub(crate) session_timeout_ms: i32,
    /// How long a rebalance waits for it.
    pub(crate) rebalance_timeout_ms: i32,
    /// The protocols it supports, best first.
    pub(crate) protocols: Vec<Protocol>,
    /// What the leader gave it last, perhaps in an earlier generation; empty before.
    pub(crate) assignment: Bytes,
    /// Counts up over the members of a group: who came first leads.
    pub(crate) order: u64,
    /// Whether a JoinGroup of it waits.
    pub(crate) joining: bool,
    /// Whether a SyncGroup of it waits.
    pub(crate) syncing: bool,
    /// Whether it sent a SyncGroup in this generation.
    pub(crate) synced: bool,
    /// Whether it has never been told its id: it cannot send heartbeats then.
    pub(crate) is_new: bool,
    /// Whether it was heard since the broker started; what recovery restored may have been replaced meanwhile.
    pub(crate) confirmed: bool,
    /// When it counts as gone, unless it is heard before or waits for us.
    pub(crate) deadline: SteadyMs,
}

impl Member {
    /// Bytes that a client made us keep for it.
    pub(crate) fn bytes(&self) -> usize {
        self.protocols.iter().map(|protocol| protocol.name.len() + protocol.metadata.len()).sum::<usize>()
            + self.assignment.len()
    }

    /// What it said for a protocol; empty if it does not support it.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let same = self.protocols.iter().find(|own| &*own.name == protocol);
        same.map(|own| own.metadata.clone()).unwrap_or_default()
    }

    /// What is recorded of it where this protocol was chosen.
    pub(crate) fn record(&self, protocol: &str) -> MemberRecord {
        MemberRecord {
            id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            metadata: self.metadata(protocol),
            assignment: self.assignment.clone(),
        }
    }

    /// Whether its silence counts: one who waits for our answer is not silent, unless it never learned its id.
    pub(crate) fn can_expire(&self) -> bool {
        !self.syncing && (!self.joining || self.is_new)
    }
}

/// Where a group stands. The names are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No members.
    Empty,
    /// Members join. In the `initial` case the group was empty and waits for more, for this many milliseconds at most
    /// after `until`.
    PreparingRebalance {
        /// When the joining ends.
        until: SteadyMs,
        /// How much longer newcomers may extend it.
        initial: Option<i64>,
    },
    /// The leader is to send the assignment.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
}

impl Phase {
    /// Kafka's word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance { .. } => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What can happen to a group.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A client was given an id to join with.
    IdGiven(MemberId, SteadyMs),
    /// It did not come back with it, or left.
    IdDropped(MemberId),
    /// Somebody new came; its JoinGroup waits. The first one says what kind of group it is.
    Joined(Box<Member>, Arc<str>),
    /// A member came again; its JoinGroup waits if `joining`. Protocols and timeouts may have changed.
    Rejoined(Box<Member>),
    /// A static member was started again and has a new id; it keeps assignment and place.
    Replaced(MemberId, MemberId),
    /// A member is gone.
    Left(MemberId),
    /// A member was heard; it must be heard again before this.
    Heard(MemberId, SteadyMs),
    /// Everybody has to join again.
    Rebalancing(SteadyMs, Option<i64>),
    /// Who joined makes a generation; without members the group is empty.
    Begun(Box<Begun>),
    /// A member asked for its assignment. It waits unless the group is stable.
    SyncAsked(MemberId),
    /// The assignment of this generation is off.
    SyncCancelled,
    /// A generation with its assignment was recorded. In recovery the members come from it.
    Recorded(Box<GroupRecord>, SteadyMs),
    /// Something of the consumer protocol was recorded.
    Fact(Fact),
    /// An offset was recorded.
    OffsetSet(TopicId, PartitionIndex, Committed),
    /// An offset was removed; later ones stay. The number is that of the removal (see [`Committed`]).
    OffsetGone(TopicId, PartitionIndex, u64),
    /// A producer's open transaction is to commit an offset.
    OffsetPending(ProducerId, (TopicId, PartitionIndex), Committed),
    /// A producer's transaction ends with the commit of this number.
    TransactionEnds(ProducerId, u64),
    /// The end of this number is durable; its offsets are committed or not.
    TransactionEnded(u64, bool),
}

/// A generation that begins.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    /// The protocol of the vote; none without members.
    pub(crate) protocol: Option<Arc<str>>,
    /// Who assigns; none without members.
    pub(crate) leader: Option<MemberId>,
    /// Now.
    pub(crate) now: SteadyMs,
    /// Now, by the wall clock.
    pub(crate) since: TimestampMs,
}

/// One consumer group. Holds: its members and their offsets. [`Group::apply`] alone changes it. Always true: each static
/// name belongs to one member; the leader, if any, is a member. A crash keeps the offsets and the last generation that
/// got an assignment; what happened after that, members bring about again.
#[derive(Debug)]
pub(crate) struct Group {
    id: Arc<str>,
    phase: Phase,
    generation: i32,
    since: TimestampMs,
    protocol_type: Option<Arc<str>>,
    protocol: Option<Arc<str>>,
    leader: Option<MemberId>,
    members: BTreeMap<MemberId, Member>,
    static_members: HashMap<Arc<str>, MemberId>,
    pending: BTreeMap<MemberId, SteadyMs>,
    newcomer: bool,
    sync_until: SteadyMs,
    next_order: u64,
    consumers: Option<Box<Consumers>>,
    offsets: Offsets,
    undecided: Pending,
}

impl Group {
    /// A group that nobody joined yet.
    pub(crate) fn new(id: Arc<str>, since: TimestampMs) -> Self {
        Self {
            id,
            phase: Phase::Empty,
            generation: 0,
            since,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            pending: BTreeMap::new(),
            newcomer: false,
            sync_until: SteadyMs::MAX,
            next_order: 0,
            consumers: None,
            offsets: Offsets::default(),
            undecided: Pending::default(),
        }
    }

    /// The only way to change a group.
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::IdGiven(id, until) => drop(self.pending.insert(id, until)),
            Event::IdDropped(id) => drop(self.pending.remove(&id)),
            Event::Joined(member, protocol_type) => {
                if self.members.is_empty() {
                    self.protocol_type = Some(protocol_type);
                }
                self.newcomer = true;
                self.insert(*member);
            }
            Event::Rejoined(new) => {
                if let Some(member) = self.members.get_mut(&new.id) {
                    *member = Member {
                        assignment: std::mem::take(&mut member.assignment),
                        order: member.order,
                        is_new: member.is_new,
                        synced: member.synced,
                        ..*new
                    };
                }
            }
            Event::Replaced(old, new) => self.replace(&old, new),
            Event::Left(id) => self.remove(&id),
            Event::Heard(id, deadline) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.deadline = deadline;
                    member.confirmed = true;
                }
            }
            Event::Rebalancing(until, initial) => {
                self.phase = Phase::PreparingRebalance { until, initial };
                self.newcomer = false;
            }
            Event::Begun(begun) => self.begin(*begun),
            Event::SyncAsked(id) => {
                let waits = self.phase != Phase::Stable;
                if let Some(member) = self.members.get_mut(&id) {
                    member.synced = true;
                    member.syncing = waits;
                }
            }
            Event::SyncCancelled => self.members.values_mut().for_each(|member| member.syncing = false),
            Event::Recorded(record, now) => self.settle(*record, now),
            Event::Fact(fact) => self.apply_fact(fact),
            Event::OffsetSet(topic, partition, committed) => self.offsets.set(topic, partition, committed),
            Event::OffsetGone(topic, partition, number) => self.offsets.remove(topic, partition, number),
            Event::OffsetPending(producer, place, committed) => self.undecided.set(producer, place, committed),
            Event::TransactionEnds(producer, number) => self.undecided.end(producer, number),
            Event::TransactionEnded(number, committed) => {
                let places = self.undecided.ended(number);
                for ((topic, partition), offset) in places.into_iter().filter(|_| committed) {
                    self.offsets.set(topic, partition, Committed { number, ..offset });
                }
            }
        }
    }

    fn apply_fact(&mut self, fact: Fact) {
        match fact {
            Fact::Began(epochs) => {
                self.forget_classic();
                self.consumers = Some(Box::new(Consumers::new(epochs)));
            }
            Fact::Ended(_) => {
                self.forget_classic();
                self.consumers = None;
            }
            other => {
                if let Some(consumers) = &mut self.consumers {
                    consumers.apply(other);
                }
            }
        }
    }

    fn forget_classic(&mut self) {
        (self.phase, self.generation, self.newcomer) = (Phase::Empty, 0, false);
        (self.protocol_type, self.protocol, self.leader) = (None, None, None);
        self.members.clear();
        self.static_members.clear();
        self.pending.clear();
    }

    fn insert(&mut self, mut member: Member) {
        self.pending.remove(&member.id);
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        member.order = self.next_order;
        self.next_order += 1;
        self.members.insert(member.id.clone(), member);
    }

    fn replace(&mut self, old: &str, new: MemberId) {
        let Some(mut member) = self.members.remove(old) else { return };
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), new.clone());
        }
        if self.leader.as_deref() == Some(old) {
            self.leader = Some(new.clone());
        }
        member.id = new.clone();
        (member.joining, member.syncing) = (false, false);
        self.members.insert(new, member);
    }

    fn remove(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.instance_id {
            self.static_members.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.values().min_by_key(|other| other.order).map(|other| other.id.clone());
        }
    }

    fn begin(&mut self, begun: Begun) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.since = begun.since;
        self.protocol = begun.protocol;
        self.leader = begun.leader;
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::CompletingRebalance };
        self.sync_until = begun.now.saturating_add(self.rebalance_timeout_ms());
        for member in self.members.values_mut() {
            (member.joining, member.syncing, member.synced, member.is_new) = (false, false, false, false);
            member.deadline = begun.now.saturating_add(i64::from(member.session_timeout_ms));
        }
    }

    fn settle(&mut self, record: GroupRecord, now: SteadyMs) {
        self.generation = record.generation;
        self.since = record.since;
        self.protocol_type = record.protocol_type;
        self.protocol = record.protocol;
        for recorded in record.members {
            if let Some(member) = self.members.get_mut(&recorded.id) {
                member.assignment = recorded.assignment;
                member.deadline = now.saturating_add(i64::from(member.session_timeout_ms));
                member.syncing = false;
            } else {
                self.insert(recorded.into_member(self.protocol.as_ref(), now));
            }
        }
        self.leader = record.leader;
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::Stable };
    }

    /// Its name.
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Where it stands.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// How often its members were put together; 0 before the first time.
    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// Since when it has its generation, or exists.
    pub(crate) fn since(&self) -> TimestampMs {
        self.since
    }

    /// What kind of clients it is for: `consumer`, `connect` or others. None for offsets without members.
    pub(crate) fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// The protocol that its members agreed on.
    pub(crate) fn protocol(&self) -> Option<&Arc<str>> {
        self.protocol.as_ref()
    }

    /// Who assigns.
    pub(crate) fn leader(&self) -> Option<&MemberId> {
        self.leader.as_ref()
    }

    /// Its members by id.
    pub(crate) fn members(&self) -> &BTreeMap<MemberId, Member> {
        &self.members
    }

    /// Who has this static name.
    pub(crate) fn static_member(&self, instance: &str) -> Option<&Member> {
        self.members.get(self.static_members.get(instance)?)
    }

    /// Ids that were given out and not used yet, and until when they may be.
    pub(crate) fn pending(&self) -> &BTreeMap<MemberId, SteadyMs> {
        &self.pending
    }

    /// Whether somebody new came since the joining began or was extended.
    pub(crate) fn has_newcomer(&self) -> bool {
        self.newcomer
    }

    /// Until when members of this generation have to ask for their assignment.
    pub(crate) fn sync_until(&self) -> SteadyMs {
        self.sync_until
    }

    /// What it has of the consumer protocol; `None` for a classic group, which then has the rest.
    pub(crate) fn consumers(&self) -> Option<&Consumers> {
        self.consumers.as_deref()
    }

    /// The same, for deadlines and other things that are not stored.
    pub(super) fn consumers_mut(&mut self) -> Option<&mut Consumers> {
        self.consumers.as_deref_mut()
    }

    /// Whether it has no members of either protocol.
    pub(crate) fn is_empty(&self) -> bool {
        self.consumers().map_or(self.phase == Phase::Empty, |consumers| consumers.members().is_empty())
    }

    /// Kafka's word for where it stands.
    pub(crate) fn state_name(&self) -> &'static str {
        self.consumers().map_or_else(|| self.phase.name(), Consumers::state_name)
    }

    /// Its offsets.
    pub(crate) fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Its offsets of transactions that are not decided yet.
    pub(crate) fn undecided(&self) -> &Pending {
        &self.undecided
    }

    /// The longest that any member lets a rebalance wait.
    pub(crate) fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    /// When something is due although nobody asks; `None` if nothing ever is.
    pub(crate) fn next_deadline(&self) -> Option<SteadyMs> {
        let silent = self.members.values().filter(|member| member.can_expire()).map(|member| member.deadline);
        let joining = match self.phase {
            Phase::PreparingRebalance { until, .. } => Some(until),
            _ => None,
        };
        let waiting = matches!(self.phase, Phase::CompletingRebalance | Phase::Stable);
        let unsynced = waiting && self.members.values().any(|member| !member.synced);
        let all = silent.chain(self.pending.values().copied()).chain(joining);
        let consumers = self.consumers().and_then(Consumers::next_deadline);
        all.chain(unsynced.then_some(self.sync_until)).chain(consumers).min()
    }
}
