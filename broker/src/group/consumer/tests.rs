//! Scenarios of groups of the consumer protocol, with the clock in hand; then the whole coordinator on a store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::embedded::write_assignment;
use super::heartbeat::{Beat, Beaten};
use super::settings::Timings;
use super::{AWAY_EPOCH, Fact, JOIN_EPOCH, LEAVE_EPOCH, MemberState, Partitions, Topics, regex};
use crate::error::Kind;
use crate::group::classic::{Answer, Join, Joined, Outcome, Record, Synced, Turn};
use crate::group::records::GroupRecord;
use crate::group::state::{Event, Group, MemberId, Phase, Protocol};
use crate::group::{Caller, Limits};
use crate::types::{PartitionIndex, TopicId};
use crate::{GroupConsumerConfig, MigrationPolicy};

/// Topics in a map; ids by the order in which they were made.
pub(crate) struct Map {
    topics: BTreeMap<Arc<str>, (TopicId, i32)>,
    changes: u64,
}

impl Map {
    pub(crate) fn of(topics: &[(&str, i32)]) -> Self {
        let mut map = Self { topics: BTreeMap::new(), changes: 0 };
        topics.iter().for_each(|(name, count)| map.put(name, *count));
        map
    }

    pub(crate) fn put(&mut self, name: &str, count: i32) {
        self.changes += 1;
        let id = self.topics.get(name).map_or_else(|| TopicId::from_u128(u128::from(self.changes)), |(id, _)| *id);
        self.topics.insert(name.into(), (id, count));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.changes += 1;
        self.topics.remove(name);
    }

    pub(crate) fn id(&self, name: &str) -> TopicId {
        self.topics[name].0
    }
}

impl Topics for Map {
    fn find(&self, name: &str) -> Option<(TopicId, i32)> {
        self.topics.get(name).copied()
    }

    fn name(&self, id: TopicId) -> Option<Arc<str>> {
        self.topics.iter().find(|(_, (own, _))| *own == id).map(|(name, _)| name.clone())
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.topics.keys().cloned().collect()
    }

    fn changes(&self) -> u64 {
        self.changes
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        session_timeout_min_ms: 6_000,
        session_timeout_max_ms: 1_800_000,
        initial_delay_ms: 0,
        members_max: 10,
        offsets_retention_ms: 1_000_000,
        consumer: GroupConsumerConfig { members_max: 8, ..GroupConsumerConfig::default() },
    }
}

/// A group, its clock and its topics; answers to classic members are kept until they are looked at.
pub(super) struct Bench {
    pub(super) group: Group,
    pub(super) topics: Map,
    pub(super) now: i64,
    pub(super) limits: Limits,
    pub(super) timings: Timings,
    pub(super) joins: HashMap<MemberId, Result<Joined, Kind>>,
    pub(super) syncs: HashMap<MemberId, Result<Synced, Kind>>,
    /// What was stored when it last became a classic group.
    ended: Option<GroupRecord>,
}

pub(super) const SESSION: i64 = 45_000;
pub(super) const REBALANCE: i64 = 10_000;

impl Bench {
    pub(super) fn new(topics: &[(&str, i32)]) -> Self {
        Self {
            group: Group::new("g".into(), 0),
            topics: Map::of(topics),
            now: 1_000,
            limits: limits(),
            timings: Timings { session_timeout_ms: 45_000, heartbeat_interval_ms: 5_000, assignment_interval_ms: 0 },
            joins: HashMap::new(),
            syncs: HashMap::new(),
            ended: None,
        }
    }

    pub(super) fn turn<T>(&mut self, act: impl FnOnce(&mut Turn<'_>) -> T) -> T {
        let mut turn = Turn {
            group: &mut self.group,
            now: self.now,
            wall: self.now,
            limits: &self.limits,
            answers: Vec::new(),
            records: Vec::new(),
            topics: &self.topics,
            timings: self.timings,
            facts: Vec::new(),
            lookup: None,
        };
        let result = act(&mut turn);
        turn.tick();
        let Turn { answers, records, lookup, facts, .. } = turn;
        for fact in facts {
            if let Fact::Ended(Some(record)) = fact {
                self.ended = Some(*record);
            }
        }
        for (member, answer) in answers {
            match answer {
                Answer::Join(joined) => drop(self.joins.insert(member, joined.map_err(|error| error.kind))),
                Answer::Sync(synced) => drop(self.syncs.insert(member, synced.map_err(|error| error.kind))),
            }
        }
        for record in records {
            match record {
                Record::Emptied(_) => {}
                Record::Assigned(content) => {
                    let recorded: Box<dyn FnOnce(&mut Turn<'_>)> = Box::new(|turn| turn.recorded(content));
                    self.turn(recorded);
                }
                Record::Replaced(_, joined) => drop(self.joins.insert(joined.member_id.clone(), Ok(*joined))),
            }
        }
        if let Some(regexes) = lookup {
            let found = regex::resolve(&regexes, &self.topics.names());
            let changes = self.topics.changes();
            let resolved: Box<dyn FnOnce(&mut Turn<'_>)> = Box::new(move |turn| turn.resolved(found, changes));
            self.turn(resolved);
        }
        result
    }

    pub(super) fn beat(&mut self, beat: &Beat) -> Result<Beaten, Kind> {
        beat.check("g", 1).map_err(|error| error.kind)?;
        self.turn(|turn| turn.beat(beat)).map_err(|error| error.kind)
    }

    /// Joins and gives the epoch and what it may read of topic `a`.
    fn enter(&mut self, id: &str) -> (i32, Vec<PartitionIndex>) {
        let beaten = self.beat(&joining(id, &["a"])).unwrap();
        (beaten.epoch, self.of_a(&beaten.assignment.unwrap()))
    }

    /// A heartbeat that says nothing but what it has of topic `a`.
    fn again(&mut self, id: &str, epoch: i32, owned: &[PartitionIndex]) -> Result<(i32, Option<Vec<i32>>), Kind> {
        let owned = Some(self.parts(owned));
        let beaten = self.beat(&Beat { owned, ..silent(id, epoch) })?;
        Ok((beaten.epoch, beaten.assignment.map(|assignment| self.of_a(&assignment))))
    }

    fn parts(&self, of_a: &[PartitionIndex]) -> Partitions {
        if of_a.is_empty() { Partitions::new() } else { [(self.topics.id("a"), of_a.iter().copied().collect())].into() }
    }

    fn of_a(&self, partitions: &Partitions) -> Vec<PartitionIndex> {
        partitions.get(&self.topics.id("a")).into_iter().flatten().copied().collect()
    }

    pub(super) fn state(&self) -> &'static str {
        self.group.state_name()
    }

    fn epoch(&self) -> i32 {
        self.group.consumers().unwrap().epochs().group
    }
}

/// A heartbeat that says nothing.
pub(super) fn silent(id: &str, epoch: i32) -> Beat {
    Beat {
        member_id: id.into(),
        epoch,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: -1,
        topics: None,
        regex: None,
        assignor: None,
        owned: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
    }
}

pub(super) fn joining(id: &str, topics: &[&str]) -> Beat {
    Beat {
        rebalance_timeout_ms: REBALANCE as i32,
        topics: Some(topics.iter().map(|topic| (*topic).into()).collect()),
        owned: Some(Partitions::new()),
        ..silent(id, JOIN_EPOCH)
    }
}

fn static_one(id: &str, instance: &str, epoch: i32) -> Beat {
    let beat = if epoch == JOIN_EPOCH { joining(id, &["a"]) } else { silent(id, epoch) };
    Beat { instance_id: Some(instance.into()), ..beat }
}

#[test]
fn what_a_heartbeat_says_is_checked() {
    type Change = fn(&mut Beat);
    let cases: &[(Change, i16, Result<(), Kind>)] = &[
        (|_| {}, 1, Ok(())),
        (|beat| beat.member_id = "".into(), 1, Err(Kind::InvalidRequest)),
        (|beat| beat.member_id = "".into(), 0, Ok(())),
        (|beat| (beat.member_id, beat.epoch) = ("".into(), 1), 0, Err(Kind::InvalidRequest)),
        (|beat| (beat.member_id, beat.epoch) = ("".into(), -1), 0, Err(Kind::InvalidRequest)),
        (|beat| beat.instance_id = Some("".into()), 1, Err(Kind::InvalidRequest)),
        (|beat| beat.rack_id = Some("".into()), 1, Err(Kind::InvalidRequest)),
        (|beat| beat.rebalance_timeout_ms = -1, 1, Err(Kind::InvalidRequest)),
        (|beat| beat.owned = None, 1, Err(Kind::InvalidRequest)),
        (|beat| beat.owned = Some([(TopicId::from_u128(1), [0].into())].into()), 1, Err(Kind::InvalidRequest)),
        (|beat| beat.topics = None, 1, Err(Kind::InvalidRequest)),
        (|beat| (beat.topics, beat.regex) = (None, Some("a".into())), 1, Ok(())),
        (|beat| beat.topics = Some([].into()), 1, Ok(())),
        (|beat| beat.epoch = -2, 1, Err(Kind::InvalidRequest)),
        (|beat| (beat.epoch, beat.instance_id) = (-2, Some("i".into())), 1, Ok(())),
        (|beat| beat.epoch = -3, 1, Err(Kind::InvalidRequest)),
        (|beat| beat.assignor = Some("range".into()), 1, Ok(())),
        (|beat| beat.assignor = Some("sticky".into()), 1, Err(Kind::UnsupportedAssignor)),
    ];
    for (at, (change, version, expected)) in cases.iter().enumerate() {
        let mut beat = joining("m", &["a"]);
        change(&mut beat);
        assert_eq!(beat.check("g", *version).map_err(|error| error.kind), *expected, "case {at}");
    }
    assert_eq!(joining("m", &["a"]).check("", 1).unwrap_err().kind, Kind::InvalidRequest);
}

#[test]
fn two_members_share_without_both_having_a_partition() {
    let mut bench = Bench::new(&[("a", 4)]);
    assert_eq!(bench.enter("x"), (2, vec![0, 1, 2, 3]));
    assert_eq!(bench.state(), "Stable");
    assert_eq!(bench.enter("y"), (3, vec![]), "waits for what x has");
    assert_eq!(bench.state(), "Reconciling");
    // x learns of its smaller share in its old epoch, and moves on when it gave up the rest
    assert_eq!(bench.again("x", 2, &[0, 1, 2, 3]), Ok((2, Some(vec![0, 1]))));
    assert_eq!(bench.again("x", 2, &[0, 1, 2, 3]), Ok((2, None)), "it takes its time");
    assert_eq!(bench.again("y", 3, &[]), Ok((3, None)), "so y still waits");
    assert_eq!(bench.again("x", 2, &[0, 1]), Ok((3, None)));
    assert_eq!(bench.again("y", 3, &[]), Ok((3, Some(vec![2, 3]))));
    assert_eq!(bench.state(), "Stable");
    assert_eq!(bench.beat(&silent("x", LEAVE_EPOCH)).unwrap().epoch, LEAVE_EPOCH);
    assert_eq!(bench.state(), "Assigning");
    assert_eq!(bench.again("y", 3, &[2, 3]), Ok((4, Some(vec![0, 1, 2, 3]))));
    bench.beat(&silent("y", LEAVE_EPOCH)).unwrap();
    assert_eq!((bench.state(), bench.epoch()), ("Empty", 5));
    assert_eq!(bench.enter("z"), (6, vec![0, 1, 2, 3]), "epochs go on");
}

#[test]
fn wrong_epochs_are_fenced() {
    let mut bench = Bench::new(&[("a", 2)]);
    assert_eq!(bench.again("x", 2, &[]), Err(Kind::GroupIdNotFound));
    bench.enter("x");
    bench.enter("y");
    assert_eq!(bench.again("stranger", 3, &[]), Err(Kind::UnknownMemberId));
    assert_eq!(bench.again("y", 4, &[]), Err(Kind::FencedMemberEpoch), "from the future");
    bench.again("x", 2, &[0, 1]).unwrap();
    assert_eq!(bench.again("x", 2, &[0]), Ok((3, None)));
    assert_eq!(bench.again("x", 2, &[0, 1]), Err(Kind::FencedMemberEpoch), "it has more than it may");
    assert_eq!(bench.again("x", 2, &[0]), Ok((3, None)), "the answer with epoch 2 was lost");
    let nothing = bench.beat(&silent("x", 2));
    assert_eq!(nothing, Err(Kind::FencedMemberEpoch), "it does not say what it has");
    assert_eq!(bench.beat(&silent("stranger", LEAVE_EPOCH)), Err(Kind::UnknownMemberId));
}

#[test]
fn silent_and_stuck_members_are_given_up() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.enter("x");
    bench.now += SESSION - 1;
    bench.enter("y");
    assert_eq!(bench.group.consumers().unwrap().members().len(), 2);
    bench.now += 1;
    bench.turn(|_| ());
    assert_eq!(bench.group.consumers().unwrap().members().len(), 1, "x was silent");
    assert_eq!(bench.again("x", 2, &[0, 1]), Err(Kind::UnknownMemberId));
    assert_eq!(bench.again("y", 3, &[]), Ok((4, Some(vec![0, 1]))));
    // y lives, but does not give up what z is to have
    bench.enter("z");
    assert_eq!(bench.again("y", 4, &[0, 1]), Ok((4, Some(vec![0]))));
    bench.now += REBALANCE - 1;
    assert_eq!(bench.again("y", 4, &[0, 1]), Ok((4, None)));
    bench.now += 1;
    assert_eq!(bench.group.next_deadline(), Some(bench.now));
    bench.turn(|_| ());
    assert_eq!(bench.again("y", 4, &[0, 1]), Err(Kind::UnknownMemberId));
    assert_eq!(bench.again("z", 5, &[]), Ok((6, Some(vec![0, 1]))));
    assert!(bench.group.next_deadline().unwrap() > bench.now);
}

#[test]
fn static_members_keep_their_place() {
    let mut bench = Bench::new(&[("a", 4)]);
    bench.beat(&static_one("x1", "x", 0)).unwrap();
    bench.beat(&static_one("y1", "y", 0)).unwrap();
    bench.again("x1", 2, &[0, 1, 2, 3]).unwrap();
    bench.again("x1", 2, &[0, 1]).unwrap();
    assert_eq!(bench.again("y1", 3, &[]), Ok((3, Some(vec![2, 3]))));
    assert_eq!(bench.beat(&static_one("x2", "x", 0)), Err(Kind::UnreleasedInstanceId));
    assert_eq!(bench.beat(&static_one("x2", "x", 3)), Err(Kind::FencedInstanceId));
    assert_eq!(bench.beat(&static_one("x2", "x", LEAVE_EPOCH)), Err(Kind::FencedInstanceId));
    assert_eq!(bench.beat(&static_one("q", "q", 2)), Err(Kind::UnknownMemberId));
    assert_eq!(bench.beat(&static_one("x1", "x", AWAY_EPOCH)).unwrap().epoch, AWAY_EPOCH);
    assert_eq!((bench.epoch(), bench.state()), (3, "Reconciling"), "nobody gets its partitions");
    assert_eq!(bench.beat(&static_one("x1", "x", 3)), Err(Kind::FencedMemberEpoch));
    let back = bench.beat(&static_one("x2", "x", 0)).unwrap();
    assert_eq!((back.epoch, bench.of_a(&back.assignment.unwrap())), (3, vec![0, 1]));
    assert_eq!((bench.epoch(), bench.state()), (3, "Stable"), "without a rebalance");
    bench.beat(&static_one("x2", "x", AWAY_EPOCH)).unwrap();
    bench.now += SESSION;
    assert_eq!(bench.again("y1", 3, &[2, 3]), Ok((3, None)));
    assert_eq!(bench.again("y1", 3, &[2, 3]), Ok((4, Some(vec![0, 1, 2, 3]))), "away for too long");
}

#[test]
fn topics_and_subscriptions_change_the_target() {
    let mut bench = Bench::new(&[("a", 1)]);
    assert_eq!(bench.enter("x"), (2, vec![0]));
    bench.topics.put("a", 2);
    assert_eq!(bench.again("x", 2, &[0]), Ok((3, Some(vec![0, 1]))));
    bench.topics.put("other", 2);
    assert_eq!(bench.again("x", 3, &[0, 1]), Ok((3, None)), "not its topic");
    let more = Beat { topics: Some(["a".into(), "b".into()].into()), ..silent("x", 3) };
    assert_eq!(bench.beat(&more).unwrap().epoch, 4, "also for a topic that is not there");
    bench.topics.put("b", 1);
    let beaten = bench.beat(&silent("x", 4)).unwrap();
    assert_eq!((beaten.epoch, beaten.assignment.unwrap().len()), (5, 2));
    let gone = bench.topics.id("b");
    bench.topics.remove("b");
    let beaten = bench.beat(&Beat { owned: Some(bench.parts(&[0, 1])), ..silent("x", 5) }).unwrap();
    assert_eq!(beaten.epoch, 6);
    assert!(!beaten.assignment.unwrap().contains_key(&gone));
    // a range for once, as it wishes
    let ranged = Beat { assignor: Some("range".into()), ..silent("x", 6) };
    bench.beat(&ranged).unwrap();
    let wished = super::subscription::preferred(bench.group.consumers().unwrap().members().values());
    assert_eq!(wished.name(), "range");
}

#[test]
fn regular_expressions_are_looked_up() {
    let mut bench = Bench::new(&[("a", 1), ("b", 1)]);
    let by = |id: &str, regex: &str| Beat { topics: None, regex: Some(regex.into()), ..joining(id, &[]) };
    assert_eq!(bench.beat(&by("x", "[")), Err(Kind::InvalidRegularExpression));
    assert!(bench.group.consumers().is_none(), "nothing came of it");
    let beaten = bench.beat(&by("x", "a.*")).unwrap();
    assert_eq!((beaten.epoch, beaten.assignment), (1, Some(Partitions::new())), "not looked up yet");
    assert_eq!(bench.again("x", 1, &[]), Ok((2, Some(vec![0]))));
    let beaten = bench.beat(&by("y", "a.*")).unwrap();
    assert_eq!(beaten.epoch, 3, "known already");
    bench.topics.put("a2", 2);
    assert_eq!(bench.beat(&silent("y", 3)).unwrap().epoch, 3, "looked up a moment ago");
    bench.now += 1_000;
    bench.beat(&silent("y", 3)).unwrap();
    assert_eq!(bench.epoch(), 4);
    let beaten = bench.beat(&silent("y", 3)).unwrap();
    assert_eq!((beaten.epoch, beaten.assignment.map(|a| a.len())), (4, Some(1)));
    bench.beat(&silent("x", LEAVE_EPOCH)).unwrap();
    assert_eq!(bench.group.consumers().unwrap().regexes().len(), 1);
    bench.beat(&silent("y", LEAVE_EPOCH)).unwrap();
    assert_eq!(bench.group.consumers().unwrap().regexes().len(), 0, "nobody needs it");
}

#[test]
fn many_that_join_at_once_make_one_assignment() {
    let mut bench = Bench::new(&[("a", 4)]);
    bench.timings.assignment_interval_ms = 1_000;
    assert_eq!(bench.enter("x"), (2, vec![0, 1, 2, 3]));
    assert_eq!(bench.enter("y"), (2, vec![]));
    assert_eq!(bench.enter("z"), (2, vec![]));
    assert_eq!((bench.state(), bench.epoch()), ("Assigning", 4));
    bench.now += 1_000;
    assert_eq!(bench.again("x", 2, &[0, 1, 2, 3]).unwrap().0, 2);
    assert_eq!(bench.again("y", 2, &[]).unwrap().0, 4);
}

#[test]
fn a_full_group_takes_no_more() {
    let mut bench = Bench::new(&[("a", 1)]);
    bench.limits.consumer.members_max = 1;
    bench.enter("x");
    assert_eq!(bench.beat(&joining("y", &["a"])), Err(Kind::GroupMaxSizeReached));
    assert_eq!(bench.again("x", 2, &[0]), Ok((2, None)));
}

/// A subscription in version 1: topics and what it has.
pub(super) fn subscription(topics: &Map, names: &[&str], owned: &Partitions) -> Bytes {
    let mut out = vec![0, 1];
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend_from_slice(&(text.len() as i16).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    out.extend_from_slice(&(names.len() as i32).to_be_bytes());
    names.iter().for_each(|name| text(&mut out, name));
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    // the assignment's list is that of what it has
    let list = write_assignment(1, owned, topics);
    out.extend_from_slice(&list[2..list.len() - 4]);
    out.into()
}

pub(super) fn classic(topics: &Map, id: &str, owned: &Partitions) -> Join {
    let metadata = subscription(topics, &["a"], owned);
    Join {
        member_id: id.into(),
        new_id: id.into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: REBALANCE as i32,
        protocol_type: "consumer".into(),
        protocols: ["cooperative-sticky", "range"]
            .map(|name| Protocol { name: name.into(), metadata: metadata.clone() })
            .into(),
        needs_id_first: true,
        can_skip_assignment: true,
    }
}

fn caller(id: &str, generation: i32) -> Caller<'_> {
    Caller { member_id: id, instance_id: None, generation }
}

impl Bench {
    fn join(&mut self, join: Join) -> Result<Option<Joined>, Kind> {
        match self.turn(|turn| turn.join(join)) {
            Ok(Outcome::Now(joined)) => Ok(Some(joined)),
            Ok(Outcome::Waits(_)) => Ok(None),
            Err(error) => Err(error.kind),
        }
    }

    /// A classic member in a group of the consumer protocol: its generation.
    fn rejoin(&mut self, id: &str, owned: &[PartitionIndex]) -> Result<i32, Kind> {
        let join = classic(&self.topics, id, &self.parts(owned));
        self.join(join).map(|joined| joined.unwrap().generation)
    }

    fn sync(&mut self, id: &str, generation: i32) -> Result<Vec<PartitionIndex>, Kind> {
        let protocol = (Some("consumer"), Some("cooperative-sticky"));
        let outcome = self.turn(|turn| turn.sync(&caller(id, generation), protocol, Vec::new()));
        let Outcome::Now(synced) = outcome.map_err(|error| error.kind)? else { panic!("it waits") };
        let assignment = super::embedded::read_assignment(&synced.assignment, &self.topics).unwrap();
        Ok(self.of_a(&assignment))
    }

    fn pulse(&mut self, id: &str, generation: i32) -> Result<(), Kind> {
        self.turn(|turn| turn.heartbeat(&caller(id, generation))).map_err(|error| error.kind)
    }

    /// A classic group of these members, the first of which leads and gives each its partitions of `a`.
    fn classic_group(&mut self, members: &[(&str, &[PartitionIndex])]) {
        for (id, _) in members {
            let newcomer = Join { member_id: "".into(), ..classic(&self.topics, id, &Partitions::new()) };
            assert_eq!(self.join(newcomer), Err(Kind::MemberIdRequired));
        }
        self.limits.initial_delay_ms = 10;
        for (id, _) in members {
            let join = classic(&self.topics, id, &Partitions::new());
            assert_eq!(self.join(join), Ok(None));
        }
        for _ in 0..3 {
            self.now += 10;
            self.turn(|_| ());
        }
        let generation = self.joins[members[0].0].clone().unwrap().generation;
        let given = |(id, partitions): &(&str, &[PartitionIndex])| {
            ((*id).into(), write_assignment(1, &self.parts(partitions), &self.topics))
        };
        let given: Vec<(MemberId, Bytes)> = members.iter().map(given).collect();
        for (id, _) in members {
            let given = if *id == members[0].0 { given.clone() } else { vec![] };
            self.turn(|turn| turn.sync(&caller(id, generation), (None, None), given)).unwrap();
        }
        assert_eq!(self.state(), "Stable");
    }
}

#[test]
fn a_classic_group_moves_over_and_back() {
    let mut bench = Bench::new(&[("a", 4)]);
    bench.classic_group(&[("c1", &[0, 1]), ("c2", &[2, 3])]);
    assert_eq!(bench.beat(&silent("x", 1)), Err(Kind::GroupIdNotFound), "only a join turns it");
    assert_eq!(bench.enter("x"), (2, vec![]));
    assert_eq!((bench.group.phase(), bench.state()), (Phase::Empty, "Reconciling"));
    // the classic members go on with what they have until they are told to join again
    assert_eq!(bench.pulse("c2", 1), Err(Kind::RebalanceInProgress));
    assert_eq!(bench.sync("c1", 1), Err(Kind::RebalanceInProgress));
    assert_eq!(bench.pulse("stranger", 1), Err(Kind::UnknownMemberId));
    assert_eq!(bench.pulse("x", 2), Err(Kind::UnknownMemberId), "it is not a classic member");
    assert_eq!(bench.pulse("c2", 9), Err(Kind::IllegalGeneration));
    assert_eq!(bench.rejoin("c2", &[2, 3]), Ok(1), "it has to give up one, in its old epoch");
    assert_eq!(bench.sync("c2", 1), Ok(vec![2]));
    assert_eq!(bench.pulse("c2", 1), Err(Kind::RebalanceInProgress), "and say so");
    assert_eq!(bench.again("x", 2, &[]), Ok((2, None)), "until then it is not free");
    assert_eq!(bench.rejoin("c2", &[2]), Ok(2));
    assert_eq!(bench.sync("c2", 2), Ok(vec![2]));
    assert_eq!(bench.pulse("c2", 2), Ok(()));
    assert_eq!(bench.rejoin("c1", &[0, 1]), Ok(2));
    assert_eq!(bench.sync("c1", 2), Ok(vec![0, 1]));
    assert_eq!(bench.again("x", 2, &[]), Ok((2, Some(vec![3]))));
    assert_eq!(bench.state(), "Stable");
    // c1 is started again with the consumer protocol, then both are started again with the classic one
    let left = bench.turn(|turn| turn.leave(&[caller("c1", -1), caller("stranger", -1)]));
    assert!(left[0].is_ok() && left[1].is_err());
    assert!(bench.group.consumers().is_some(), "x is still there");
    let x = bench.again("x", 2, &[]).unwrap();
    bench.beat(&silent("x", LEAVE_EPOCH)).unwrap();
    assert!(bench.group.consumers().is_none(), "{x:?}");
    assert_eq!(bench.state(), "PreparingRebalance", "c2 is to join again");
    assert_eq!(bench.pulse("c2", bench.group.generation()), Err(Kind::RebalanceInProgress));
    let c2 = &bench.group.members()["c2"];
    assert_eq!(c2.protocols.len(), 2, "with all the protocols that it supports");
    let join = classic(&bench.topics, "c2", &bench.parts(&[2, 3]));
    assert_eq!(bench.join(join), Ok(None));
    assert!(bench.joins["c2"].clone().unwrap().members.len() == 1, "it leads");
}

/// The broker is killed just after the last consumer left: those that are left must get its partitions all the same.
#[test]
fn a_group_that_went_back_before_a_crash_is_put_together_again() {
    let mut bench = Bench::new(&[("a", 4)]);
    bench.enter("x");
    bench.rejoin("c", &[]).unwrap();
    bench.sync("c", 3).unwrap();
    bench.beat(&silent("x", LEAVE_EPOCH)).unwrap();
    let stored = bench.ended.take().unwrap();
    bench.group = Group::new("g".into(), 0);
    bench.group.apply(Event::Recorded(Box::new(stored), bench.now));
    assert_eq!(bench.pulse("c", 3), Ok(()), "it goes on with what it has");
    bench.now += 6_000;
    bench.turn(|_| ());
    assert_eq!(bench.pulse("c", 3), Err(Kind::RebalanceInProgress));
}

#[test]
fn migration_keeps_to_the_policy() {
    for policy in [MigrationPolicy::Disabled, MigrationPolicy::Downgrade] {
        let mut bench = Bench::new(&[("a", 2)]);
        bench.limits.consumer.migration = policy;
        bench.classic_group(&[("c1", &[0, 1])]);
        assert_eq!(bench.beat(&joining("x", &["a"])), Err(Kind::GroupIdNotFound));
        assert_eq!(bench.state(), "Stable");
    }
    let mut bench = Bench::new(&[("a", 2)]);
    bench.limits.consumer.migration = MigrationPolicy::Upgrade;
    bench.classic_group(&[("c1", &[0, 1])]);
    bench.enter("x");
    bench.beat(&silent("x", LEAVE_EPOCH)).unwrap();
    assert!(bench.group.consumers().is_some());
    // what only the clients understand cannot be turned
    let mut bench = Bench::new(&[("a", 2)]);
    let other = Join { protocol_type: "connect".into(), ..classic(&bench.topics, "w", &Partitions::new()) };
    bench.join(Join { member_id: "".into(), ..other.clone() }).unwrap_err();
    bench.join(other).unwrap();
    assert_eq!(bench.beat(&joining("x", &["a"])), Err(Kind::GroupIdNotFound));
}

#[test]
fn classic_members_among_others_are_held_to_their_times() {
    let mut bench = Bench::new(&[("a", 4)]);
    bench.enter("x");
    let newcomer = Join { member_id: "".into(), ..classic(&bench.topics, "c", &Partitions::new()) };
    assert_eq!(bench.join(newcomer.clone()), Err(Kind::MemberIdRequired));
    let strange = Join { protocol_type: "connect".into(), ..newcomer.clone() };
    assert_eq!(bench.join(strange), Err(Kind::InconsistentGroupProtocol));
    let unreadable = Protocol { name: "range".into(), metadata: Bytes::from_static(b"x") };
    let strange = Join { protocols: vec![unreadable], ..newcomer };
    assert_eq!(bench.join(strange), Err(Kind::InconsistentGroupProtocol));
    assert_eq!(bench.rejoin("c", &[]), Ok(3));
    assert_eq!(bench.group.next_deadline(), Some(bench.now + 10_000));
    bench.now += REBALANCE;
    bench.turn(|_| ());
    assert_eq!(bench.pulse("c", 3), Err(Kind::UnknownMemberId), "it did not sync");
    bench.now -= REBALANCE;
    assert_eq!(bench.rejoin("d", &[]), Ok(5));
    bench.sync("d", 5).unwrap();
    bench.enter("y");
    assert_eq!(bench.pulse("d", 5), Err(Kind::RebalanceInProgress));
    bench.now += REBALANCE - 1;
    assert_eq!(bench.pulse("d", 5), Err(Kind::RebalanceInProgress), "it lives, but does not join");
    bench.now += 1;
    bench.turn(|_| ());
    assert_eq!(bench.pulse("d", 5), Err(Kind::UnknownMemberId));
}

#[test]
fn the_last_consumer_replaced_by_a_classic_one_ends_the_protocol() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.beat(&static_one("x", "s", 0)).unwrap();
    let join =
        Join { member_id: "".into(), instance_id: Some("s".into()), ..classic(&bench.topics, "c", &Partitions::new()) };
    let joined = bench.join(join).unwrap().unwrap();
    assert_eq!((joined.generation, &*joined.member_id), (2, "c"));
    assert!(bench.group.consumers().is_none());
    assert_eq!(bench.state(), "Stable", "its subscription is the same");
    let who = Caller { member_id: "c", instance_id: Some("s"), generation: 2 };
    let Outcome::Now(synced) = bench.turn(|turn| turn.sync(&who, (None, None), vec![])).unwrap() else { panic!() };
    let assignment = super::embedded::read_assignment(&synced.assignment, &bench.topics).unwrap();
    assert_eq!(bench.of_a(&assignment), [0, 1]);
}

#[test]
fn an_empty_group_takes_either_protocol() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.enter("x");
    bench.beat(&silent("x", LEAVE_EPOCH)).unwrap();
    bench.classic_group(&[("c1", &[0, 1])]);
    assert!(bench.group.consumers().is_none());
    let left = bench.turn(|turn| turn.leave(&[caller("c1", -1)]));
    assert!(left[0].is_ok());
    assert_eq!(bench.enter("y"), (2, vec![0, 1]));
    assert_eq!(bench.group.consumers().unwrap().members()["y"].state, MemberState::Stable);
}
