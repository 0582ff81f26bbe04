//! Scenarios: a group driven step by step with the clock in hand, then the whole coordinator on a store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::classic::{Answer, Join, Joined, Outcome, Record, Synced, Turn};
use super::consumer::settings::Timings;
use super::consumer::tests::Map;
use super::offsets::Committed;
use super::records::GroupRecord;
use super::state::{Event, Group, MemberId, Phase, Protocol};
use super::{Caller, Limits};
use crate::error::{Kind, Result};
use crate::types::TopicId;
use crate::{Ack, Append, Broker, BrokerConfig, Change, Clock, GroupConsumerConfig, NewTopic, Origin};

const SESSION: i32 = 10_000;
const REBALANCE: i32 = 60_000;

fn join(id: &str, protocols: &[(&str, &str)]) -> Join {
    let protocol = |(name, metadata): &(&str, &str)| Protocol {
        name: (*name).into(),
        metadata: Bytes::copy_from_slice(metadata.as_bytes()),
    };
    Join {
        member_id: id.into(),
        new_id: id.into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: SESSION,
        rebalance_timeout_ms: REBALANCE,
        protocol_type: "consumer".into(),
        protocols: protocols.iter().map(protocol).collect(),
        needs_id_first: true,
        can_skip_assignment: true,
    }
}

/// One that comes for the first time and is to be called `id`.
fn newcomer(id: &str) -> Join {
    Join { member_id: "".into(), ..join(id, &[("range", id)]) }
}

fn static_one(id: &str, instance: &str) -> Join {
    Join { instance_id: Some(instance.into()), ..newcomer(id) }
}

fn limits(initial_delay_ms: i64) -> Limits {
    Limits {
        session_timeout_min_ms: 6_000,
        session_timeout_max_ms: 1_800_000,
        initial_delay_ms,
        members_max: 4,
        offsets_retention_ms: 1_000_000,
        consumer: GroupConsumerConfig::default(),
    }
}

/// A group, its clock, and everything that was answered and not yet looked at.
struct Bench {
    group: Group,
    now: i64,
    limits: Limits,
    joins: HashMap<MemberId, Result<Joined>>,
    syncs: HashMap<MemberId, Result<Synced>>,
    recorded: Vec<GroupRecord>,
}

impl Bench {
    fn new(initial_delay_ms: i64) -> Self {
        Self {
            group: Group::new("g".into(), 0),
            now: 1_000,
            limits: limits(initial_delay_ms),
            joins: HashMap::new(),
            syncs: HashMap::new(),
            recorded: Vec::new(),
        }
    }

    fn turn<T>(&mut self, act: impl FnOnce(&mut Turn<'_>) -> T) -> T {
        let (now, wall) = (self.now, self.now);
        let (answers, records) = (Vec::new(), Vec::new());
        let timings = Timings { session_timeout_ms: 45_000, heartbeat_interval_ms: 5_000, assignment_interval_ms: 0 };
        let (topics, facts, lookup) = (Map::of(&[]), Vec::new(), None);
        let (group, limits, topics) = (&mut self.group, &self.limits, &topics);
        let mut turn = Turn { group, now, wall, limits, answers, records, topics, timings, facts, lookup };
        let result = act(&mut turn);
        turn.tick();
        let (answers, records) = (turn.answers, turn.records);
        for (member, answer) in answers {
            match answer {
                Answer::Join(joined) => drop(self.joins.insert(member, joined)),
                Answer::Sync(synced) => drop(self.syncs.insert(member, synced)),
            }
        }
        for record in records {
            match record {
                Record::Emptied(content) => self.recorded.push(content),
                Record::Assigned(content) => {
                    self.recorded.push(content.clone());
                    let recorded: Box<dyn FnOnce(&mut Turn<'_>)> = Box::new(|turn| turn.recorded(content));
                    self.turn(recorded);
                }
                Record::Replaced(content, joined) => {
                    self.recorded.push(content);
                    self.joins.insert(joined.member_id.clone(), Ok(*joined));
                }
            }
        }
        result
    }

    fn join(&mut self, join: Join) -> Result<Option<Joined>, Kind> {
        match self.turn(|turn| turn.join(join)) {
            Ok(Outcome::Now(joined)) => Ok(Some(joined)),
            Ok(Outcome::Waits(_)) => Ok(None),
            Err(error) => Err(error.kind),
        }
    }

    /// A client of version 4 and later: it is given an id, then joins with it.
    fn enter(&mut self, id: &str) {
        assert_eq!(self.join(newcomer(id)), Err(Kind::MemberIdRequired));
        assert_eq!(self.join(join(id, &[("range", id)])), Ok(None));
    }

    fn sync(&mut self, id: &str, generation: i32, assignments: &[(&str, &str)]) -> Result<Option<Synced>, Kind> {
        let who = Caller { member_id: id, instance_id: None, generation };
        let given = assignments.iter().map(|(id, given)| ((*id).into(), Bytes::copy_from_slice(given.as_bytes())));
        let given = given.collect();
        match self.turn(|turn| turn.sync(&who, (Some("consumer"), Some("range")), given)) {
            Ok(Outcome::Now(synced)) => Ok(Some(synced)),
            Ok(Outcome::Waits(_)) => Ok(None),
            Err(error) => Err(error.kind),
        }
    }

    fn beat(&mut self, id: &str, generation: i32) -> Result<(), Kind> {
        let who = Caller { member_id: id, instance_id: None, generation };
        self.turn(|turn| turn.heartbeat(&who)).map_err(|error| error.kind)
    }

    fn leave(&mut self, id: &str, instance: Option<&str>) -> Result<(), Kind> {
        let who = Caller { member_id: id, instance_id: instance, generation: -1 };
        self.turn(|turn| turn.leave(&[who])).remove(0).map_err(|error| error.kind)
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms;
        self.turn(|_| ());
    }

    fn joined(&mut self, id: &str) -> Joined {
        self.joins.remove(id).expect("an answer to JoinGroup").unwrap()
    }

    fn refused(&mut self, id: &str) -> Kind {
        self.joins.remove(id).expect("an answer to JoinGroup").unwrap_err().kind
    }

    fn synced(&mut self, id: &str) -> Result<Bytes, Kind> {
        let answer = self.syncs.remove(id).expect("an answer to SyncGroup");
        answer.map(|synced| synced.assignment).map_err(|error| error.kind)
    }

    /// A group of these members, stable in its first generation; the first one leads.
    fn stable(ids: &[&str]) -> Self {
        let mut bench = Self::new(3_000);
        ids.iter().for_each(|id| bench.enter(id));
        bench.pass(3_000);
        if ids.len() > 1 {
            bench.pass(3_000);
        }
        bench.settle(ids, 1);
        bench
    }

    /// Everybody was answered and asks for the assignment.
    fn settle(&mut self, ids: &[&str], generation: i32) {
        for id in ids {
            let joined = self.joined(id);
            assert_eq!((joined.generation, &*joined.leader), (generation, ids[0]));
            assert_eq!(joined.members.len(), if *id == ids[0] { ids.len() } else { 0 });
        }
        for id in &ids[1..] {
            assert_eq!(self.sync(id, generation, &[]), Ok(None));
        }
        let given: Vec<(&str, &str)> = ids.iter().map(|id| (*id, *id)).collect();
        assert_eq!(self.sync(ids[0], generation, &given), Ok(None));
        for id in ids {
            assert_eq!(self.synced(id).unwrap(), id.as_bytes());
        }
        assert_eq!(self.group.phase(), Phase::Stable);
    }
}

#[test]
fn three_members_come_together() {
    let mut bench = Bench::new(3_000);
    bench.enter("a");
    bench.pass(1_000);
    bench.enter("b");
    assert!(matches!(bench.group.phase(), Phase::PreparingRebalance { .. }));
    bench.pass(2_000); // the delay is over, somebody came: it is extended
    assert!(bench.joins.is_empty());
    bench.enter("c");
    bench.pass(3_000);
    assert!(bench.joins.is_empty(), "c came during the extension");
    bench.pass(3_000);
    bench.settle(&["a", "b", "c"], 1);
    assert_eq!(bench.recorded.len(), 1);
    // a follower that asks again gets what it has, and nobody is disturbed
    assert_eq!(bench.sync("b", 1, &[]).unwrap().unwrap().assignment, "b");
    assert_eq!(bench.join(join("b", &[("range", "b")])).unwrap().unwrap().generation, 1);
    assert_eq!(bench.group.phase(), Phase::Stable);
}

#[test]
fn one_leaves_and_the_others_go_on() {
    let mut bench = Bench::stable(&["a", "b", "c"]);
    assert_eq!(bench.leave("b", None), Ok(()));
    assert_eq!(bench.leave("b", None), Err(Kind::UnknownMemberId));
    assert_eq!(bench.beat("a", 1), Err(Kind::RebalanceInProgress));
    assert_eq!(bench.beat("b", 1), Err(Kind::UnknownMemberId));
    assert_eq!(bench.beat("c", 7), Err(Kind::IllegalGeneration));
    assert_eq!(bench.sync("a", 1, &[]), Err(Kind::RebalanceInProgress));
    assert_eq!(bench.join(join("a", &[("range", "a")])), Ok(None));
    assert_eq!(bench.join(join("c", &[("range", "c")])), Ok(None));
    bench.settle(&["a", "c"], 2);
    // the last ones leave: an empty group is recorded, with its next generation
    assert_eq!(bench.leave("a", None), Ok(()));
    assert_eq!(bench.leave("c", None), Ok(()));
    assert_eq!(bench.group.phase(), Phase::Empty);
    let last = bench.recorded.last().unwrap();
    assert_eq!((last.generation, last.members.len()), (3, 0));
}

#[test]
fn who_is_silent_is_given_up() {
    let mut bench = Bench::stable(&["a", "b", "c"]);
    bench.pass(9_000);
    assert_eq!(bench.beat("a", 1), Ok(()));
    assert_eq!(bench.beat("c", 1), Ok(()));
    bench.pass(1_000);
    assert!(!bench.group.members().contains_key("b"));
    assert_eq!(bench.beat("a", 1), Err(Kind::RebalanceInProgress));
    assert_eq!(bench.join(join("c", &[("range", "c")])), Ok(None));
    // a lives and does not join: the rebalance waits for it, not for ever
    for _ in 0..7 {
        bench.pass(8_000);
        let _ = bench.beat("a", 1);
    }
    assert!(!bench.joins.contains_key("a") && !bench.joins.contains_key("c"));
    bench.pass(8_000);
    bench.settle(&["c"], 2);
}

#[test]
fn a_leader_that_fails_during_sync_is_replaced() {
    let mut bench = Bench::stable(&["a", "b"]);
    assert_eq!(bench.join(join("a", &[("range", "new")])), Ok(None)); // other topics: a rebalance
    assert_eq!(bench.join(join("b", &[("range", "b")])), Ok(None));
    assert_eq!(&*bench.joined("b").leader, "a");
    drop(bench.joined("a"));
    assert_eq!(bench.sync("b", 2, &[]), Ok(None));
    bench.pass(i64::from(SESSION));
    assert_eq!(bench.synced("b"), Err(Kind::RebalanceInProgress));
    assert!(!bench.group.members().contains_key("a"), "one who waits for a sync is not silent, the leader was");
    assert_eq!(bench.join(join("b", &[("range", "b")])), Ok(None));
    bench.settle(&["b"], 3);
    assert_eq!(bench.beat("a", 2), Err(Kind::UnknownMemberId));
}

#[test]
fn members_that_never_sync_are_given_up() {
    let mut bench = Bench::stable(&["a", "b"]);
    assert_eq!(bench.leave("b", None), Ok(()));
    bench.enter("d");
    assert_eq!(bench.join(join("a", &[("range", "a")])), Ok(None));
    drop((bench.joined("a"), bench.joined("d")));
    assert_eq!(bench.sync("a", 2, &[("a", "all")]), Ok(None));
    assert_eq!(bench.synced("a").unwrap(), "all");
    for _ in 0..7 {
        assert_eq!((bench.beat("a", 2), bench.beat("d", 2)), (Ok(()), Ok(())));
        bench.pass(8_500);
    }
    let _ = (bench.beat("a", 2), bench.beat("d", 2));
    bench.pass(1_000);
    assert!(!bench.group.members().contains_key("d"), "it beats, but never asked for its assignment");
}

#[test]
fn a_static_member_returns_without_a_rebalance() {
    let mut bench = Bench::new(0);
    assert_eq!(bench.join(static_one("s-1", "s")), Ok(None));
    bench.settle(&["s-1"], 1);
    // started again: a new id, the old assignment, and as leader no need to assign
    assert_eq!(bench.join(static_one("s-2", "s")), Ok(None));
    let joined = bench.joined("s-2");
    assert_eq!((joined.generation, &*joined.leader, joined.skip_assignment), (1, "s-2", true));
    assert_eq!(bench.recorded.last().unwrap().members[0].id, "s-2".into());
    let old = Caller { member_id: "s-1", instance_id: Some("s"), generation: 1 };
    assert_eq!(bench.turn(|turn| turn.heartbeat(&old)).unwrap_err().kind, Kind::FencedInstanceId);
    assert_eq!(bench.beat("s-1", 1), Err(Kind::UnknownMemberId));
    let new = Caller { member_id: "s-2", ..old };
    let synced = bench.turn(|turn| turn.sync(&new, (None, None), vec![])).unwrap();
    let Outcome::Now(synced) = synced else { panic!("a stable group answers at once") };
    assert_eq!(synced.assignment, "s-1");
    // one that does not know of skipping must not believe that it leads
    let older = Join { can_skip_assignment: false, ..static_one("s-3", "s") };
    assert_eq!(bench.join(older), Ok(None));
    let joined = bench.joined("s-3");
    assert_eq!((&*joined.leader, joined.members.len(), joined.skip_assignment), ("s-2", 0, false));
    // an administrator removes it by its static name
    assert_eq!(bench.leave("s-1", Some("s")), Err(Kind::FencedInstanceId));
    assert_eq!(bench.leave("", Some("nobody")), Err(Kind::UnknownMemberId));
    assert_eq!(bench.leave("", Some("s")), Ok(()));
    assert_eq!(bench.group.phase(), Phase::Empty);
}

#[test]
fn an_absent_static_member_keeps_its_place_until_its_session_ends() {
    let mut bench = Bench::new(0);
    assert_eq!(bench.join(static_one("s-1", "s")), Ok(None));
    bench.settle(&["s-1"], 1);
    bench.enter("b");
    bench.pass(i64::from(SESSION));
    assert!(!bench.group.members().contains_key("s-1"));
    bench.settle(&["b"], 2);
}

#[test]
fn two_static_members_of_one_name_fence_each_other() {
    let mut bench = Bench::new(3_000);
    assert_eq!(bench.join(static_one("s-1", "s")), Ok(None));
    assert_eq!(bench.join(static_one("s-2", "s")), Ok(None));
    assert_eq!(bench.refused("s-1"), Kind::FencedInstanceId);
    bench.pass(3_000);
    bench.settle(&["s-2"], 1);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut bench = Bench::stable(&["a"]);
    let with = |change: fn(&mut Join)| {
        let mut join = newcomer("x");
        change(&mut join);
        join
    };
    for (join, kind) in [
        (with(|join| join.session_timeout_ms = 5_999), Kind::InvalidSessionTimeout),
        (with(|join| join.session_timeout_ms = 1_800_001), Kind::InvalidSessionTimeout),
        (with(|join| join.protocol_type = "connect".into()), Kind::InconsistentGroupProtocol),
        (with(|join| join.protocols.clear()), Kind::InconsistentGroupProtocol),
        (with(|join| join.protocols[0].name = "sticky".into()), Kind::InconsistentGroupProtocol),
        (with(|join| join.member_id = "nobody".into()), Kind::UnknownMemberId),
    ] {
        assert_eq!(bench.join(join), Err(kind));
    }
    let who = Caller { member_id: "a", instance_id: None, generation: 1 };
    let other = bench.turn(|turn| turn.sync(&who, (None, Some("sticky")), vec![])).unwrap_err();
    assert_eq!(other.kind, Kind::InconsistentGroupProtocol);
    assert_eq!(bench.beat("a", 1), Ok(()), "none of it disturbed the group");
}

#[test]
fn a_group_has_a_largest_size() {
    let mut bench = Bench::stable(&["a", "b", "c", "d"]);
    assert_eq!(bench.join(newcomer("e")), Err(Kind::GroupMaxSizeReached));
    assert_eq!(bench.leave("d", None), Ok(()));
    bench.enter("e");
}

#[test]
fn an_id_that_is_not_used_holds_nobody_up_for_long() {
    let mut bench = Bench::stable(&["a"]);
    assert_eq!(bench.join(newcomer("x")), Err(Kind::MemberIdRequired));
    bench.enter("b");
    assert_eq!(bench.join(join("a", &[("range", "a")])), Ok(None));
    assert!(bench.joins.is_empty(), "x may still come");
    bench.pass(i64::from(SESSION));
    bench.settle(&["a", "b"], 2);
    assert_eq!(bench.join(join("x", &[("range", "x")])), Err(Kind::UnknownMemberId));
}

#[test]
fn the_protocol_is_voted_on() {
    let mut bench = Bench::new(3_000);
    for (id, protocols) in [
        ("a", &[("range", ""), ("sticky", "")][..]),
        ("b", &[("sticky", ""), ("range", ""), ("own", "")][..]),
        ("c", &[("sticky", ""), ("range", "")][..]),
    ] {
        let first = Join { needs_id_first: false, ..join(id, protocols) };
        assert_eq!(bench.join(Join { member_id: "".into(), ..first }), Ok(None));
    }
    bench.pass(3_000);
    bench.pass(3_000);
    assert_eq!(bench.joined("a").protocol.as_deref(), Some("sticky"));
}

#[test]
fn who_may_commit() {
    let check = |bench: &Bench, id: &str, generation: i32| {
        let who = Caller { member_id: id, instance_id: None, generation };
        super::offsets::check_commit(&bench.group, &who, &[]).map_err(|error| error.kind)
    };
    let mut bench = Bench::new(0);
    assert_eq!(check(&bench, "", -1), Ok(()));
    assert_eq!(check(&bench, "a", 1), Err(Kind::UnknownMemberId));
    bench.enter("a");
    drop(bench.joined("a"));
    assert_eq!(check(&bench, "a", 1), Err(Kind::RebalanceInProgress));
    assert_eq!(bench.sync("a", 1, &[]), Ok(None));
    for (id, generation, expected) in [
        ("a", 1, Ok(())),
        ("a", 0, Err(Kind::IllegalGeneration)),
        ("a", 2, Err(Kind::IllegalGeneration)),
        ("b", 1, Err(Kind::UnknownMemberId)),
        ("", -1, Err(Kind::UnknownMemberId)),
    ] {
        assert_eq!(check(&bench, id, generation), expected, "{id} {generation}");
    }
}

#[test]
fn recovery_brings_back_the_same_group() {
    let live = Bench::stable(&["a", "b"]);
    let mut restored = Group::new("g".into(), 0);
    let record = live.recorded.last().unwrap().clone();
    restored.apply(Event::Recorded(Box::new(GroupRecord::decode(&record.encode()).unwrap()), 50));
    assert_eq!((restored.phase(), restored.generation()), (Phase::Stable, 1));
    assert_eq!(restored.leader().map(|id| &**id), Some("a"));
    for (id, member) in live.group.members() {
        let other = &restored.members()[id];
        assert_eq!((&other.assignment, &other.protocols), (&member.assignment, &member.protocols));
        assert_eq!(other.deadline, 50 + i64::from(SESSION));
    }
    assert_eq!(restored.next_deadline(), Some(50 + i64::from(SESSION)));
}

// --- the coordinator on a store ---

async fn broker(dir: &std::path::Path, clock: &Clock) -> Arc<Broker> {
    let config = BrokerConfig {
        data_dir: dir.to_path_buf(),
        group_initial_rebalance_delay_ms: 0,
        offsets_retention_ms: 1_000_000,
        ..BrokerConfig::default()
    };
    Broker::open(config, clock.clone()).await.unwrap()
}

async fn topic(broker: &Broker) -> TopicId {
    let new = NewTopic { name: "t".into(), partitions: 2, ..NewTopic::default() };
    broker.catalog().ensure(new).await.unwrap().id()
}

fn commit(topic: TopicId, partition: i32, offset: i64, at: i64) -> (TopicId, i32, Committed) {
    let metadata = "note".into();
    (topic, partition, Committed { offset, leader_epoch: 3, metadata, committed_at: at, expires_at: None, number: 0 })
}

const MEMBER: Caller<'static> = Caller { member_id: "a", instance_id: None, generation: 1 };
const ADMIN: Caller<'static> = Caller { member_id: "", instance_id: None, generation: -1 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_offsets_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000_000);
    let first = broker(dir.path(), &clock).await;
    let id = topic(&first).await;
    let groups = first.groups().clone();
    assert_eq!(groups.join("g", newcomer("a")).err().unwrap().kind, Kind::MemberIdRequired);
    let joined = groups.join("g", join("a", &[("range", "m")])).unwrap().await.unwrap();
    assert_eq!((joined.generation, joined.members.len()), (1, 1));
    let given = vec![("a".into(), Bytes::from_static(b"all"))];
    let synced = groups.sync("g", &MEMBER, (None, None), given).unwrap().await.unwrap();
    assert_eq!(synced.assignment, "all");
    groups.commit("g", &MEMBER, vec![commit(id, 0, 41, 1_000_000)]).unwrap().await.unwrap();
    groups.commit("g", &MEMBER, vec![commit(id, 0, 42, 1_000_000)]).unwrap().await.unwrap();
    let stale = Caller { generation: 0, ..MEMBER };
    let refused = groups.commit("g", &stale, vec![commit(id, 0, 7, 0)]).err().unwrap();
    assert_eq!(refused.kind, Kind::IllegalGeneration);
    assert_eq!(groups.delete("g").err().unwrap().kind, Kind::NonEmptyGroup);
    first.stop().await.unwrap();
    drop((groups, first));

    let second = broker(dir.path(), &clock).await;
    let groups = second.groups();
    groups.heartbeat("g", &MEMBER).unwrap();
    let offsets = groups.offsets("g").unwrap();
    assert_eq!((offsets.len(), offsets[0].offset, &*offsets[0].metadata), (1, 42, "note"));
    let described = groups.describe("g").unwrap();
    assert_eq!((described.overview.state, &*described.protocol), ("Stable", "range"));
    assert_eq!(described.members[0].assignment, "all");
    clock.advance(i64::from(SESSION));
    groups.tick();
    assert_eq!(groups.describe("g").unwrap().overview.state, "Empty");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_go_with_their_topic_their_group_and_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000_000);
    let broker = broker(dir.path(), &clock).await;
    let old = topic(&broker).await;
    let groups = broker.groups();
    for group in ["kept", "deleted"] {
        groups.commit(group, &ADMIN, vec![commit(old, 0, 5, 1_000_000)]).unwrap().await.unwrap();
    }
    groups.delete("deleted").unwrap().await.unwrap();
    assert!(groups.offsets("deleted").is_none());
    assert_eq!(groups.delete("deleted").err().unwrap().kind, Kind::GroupIdNotFound);

    broker.catalog().delete("t").await.unwrap();
    let new = topic(&broker).await;
    groups.commit("kept", &ADMIN, vec![commit(new, 1, 6, 1_000_000)]).unwrap().await.unwrap();
    groups.sweep(broker.catalog()).await.unwrap();
    let left = groups.offsets("kept").unwrap();
    assert_eq!((left.len(), left[0].topic, left[0].offset), (1, new, 6));

    clock.advance(999_999);
    groups.sweep(broker.catalog()).await.unwrap();
    assert_eq!(groups.list().len(), 1);
    clock.advance(1);
    groups.sweep(broker.catalog()).await.unwrap();
    assert!(groups.list().is_empty());
    let family = crate::Family::Groups;
    assert!(broker.store().last_in(family, &[], &[0xff]).unwrap().is_none(), "nothing is left in the store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock, reason = "the lane, a thread of its own, is to stand still meanwhile")]
async fn a_sweep_that_waits_for_the_disk_does_not_keep_silent_members() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000_000);
    let broker = broker(dir.path(), &clock).await;
    let id = topic(&broker).await;
    let groups = broker.groups();
    let commits: Vec<_> = (0..300)
        .map(|number| groups.commit(&format!("g{number}"), &ADMIN, vec![commit(id, 0, 5, 1_000_000)]).unwrap())
        .collect();
    futures::future::try_join_all(commits).await.unwrap();
    let direct = |id: &str| Join { needs_id_first: false, ..newcomer(id) };
    groups.join("first", direct("a")).unwrap().await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await; // a sweep was thought of
    // the disk stands still
    let partition = broker.catalog().topic("t").unwrap().partition(0).unwrap();
    let still = partition.writer.lock();
    let mut batch = crate::BatchBuilder::new();
    batch.push(0, None, Some(b"x"), &[]);
    let append = Append { partition: partition.clone(), batch: batch.build().unwrap(), origin: Origin::Internal };
    drop(broker.lane().commit(vec![Change::Append(append)], Ack::Durable));
    clock.advance(2_000_000);
    tokio::time::sleep(Duration::from_millis(2_500)).await; // the sweep waits
    assert!(groups.offsets("g7").is_some());
    let joined = groups.join("second", direct("b")).unwrap();
    assert_eq!(groups.describe("second").unwrap().members.len(), 1);
    clock.advance(i64::from(SESSION));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(groups.describe("second").unwrap().members.is_empty(), "a silent member stays");
    drop((still, joined));
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while groups.list().iter().any(|group| group.id.starts_with('g')) {
        assert!(std::time::Instant::now() < until, "the sweep does not go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_join_leaves_a_group_until_the_sweep_and_nothing_to_commit_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(dir.path(), &Clock::manual(0)).await;
    let groups = broker.groups();
    let refused = groups.join("g", Join { protocols: Vec::new(), ..newcomer("a") });
    assert_eq!(refused.err().unwrap().kind, Kind::InconsistentGroupProtocol);
    groups.commit("h", &ADMIN, Vec::new()).unwrap().await.unwrap();
    let names: Vec<Arc<str>> = groups.list().into_iter().map(|group| group.id).collect();
    assert_eq!(names, ["g".into()], "Kafka lists it too");
    groups.sweep(broker.catalog()).await.unwrap();
    assert!(groups.list().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_repeated_takes_the_place_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(dir.path(), &Clock::manual(0)).await;
    let groups = broker.groups();
    let direct = |id: &str| Join { needs_id_first: false, ..newcomer(id) };
    groups.join("g", direct("a")).unwrap().await.unwrap();
    let waits = groups.join("g", direct("b")).unwrap();
    let first = groups.join("g", join("b", &[("range", "b")])).unwrap();
    let again = groups.join("g", join("b", &[("range", "b")])).unwrap();
    assert_eq!(waits.await.unwrap_err().kind, Kind::CoordinatorNotAvailable);
    assert_eq!(first.await.unwrap_err().kind, Kind::CoordinatorNotAvailable);
    drop(groups.join("g", join("a", &[("range", "a")])).unwrap());
    assert_eq!(again.await.unwrap().generation, 2);
    for (group, kind) in [("", Kind::InvalidGroupId), ("x", Kind::UnknownMemberId)] {
        assert_eq!(groups.heartbeat(group, &MEMBER).unwrap_err().kind, kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_ids_are_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let broker = broker(dir.path(), &Clock::manual(0)).await;
        for _ in 0..1_001 {
            assert!(given.insert(broker.producer_ids().next().await.unwrap()));
        }
        broker.stop().await.unwrap();
    }
}
