//! A random life of one group: clients of both protocols come, go, die, and change what they read as real ones do, topics
//! grow, the broker starts again. Never do two clients read one partition, and when things calm down every partition is
//! read by somebody, by shares that are even.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::assignor::{Assignor, Subscriber, Subscriptions};
use super::embedded::{CONSUMER, Subscription, by_id, read_assignment, write_assignment};
use super::heartbeat::Beat;
use super::tests::{Bench, SESSION, classic, joining, silent};
use super::{ConsumerMember, Fact, LEAVE_EPOCH, Partitions, Topics, overlap, records, without};
use crate::error::Kind;
use crate::group::Caller;
use crate::group::classic::{Join, Joined, Outcome};
use crate::group::state::{Event, Group, MemberId, Phase};
use crate::lane::Change;
use crate::seed::seed;

/// What a client of the classic protocol does next.
#[derive(Clone, Debug, PartialEq)]
enum Next {
    Join,
    AwaitJoin,
    Sync(Joined),
    Live(i32),
}

/// How a client takes part.
#[derive(Clone, Debug)]
enum Protocol {
    Consumer { epoch: i32, told: Option<Partitions> },
    Classic { next: Next, is_cooperative: bool },
}

/// A client as a process: what it reads is what counts.
#[derive(Clone, Debug)]
struct Client {
    id: MemberId,
    protocol: Protocol,
    reads: Partitions,
}

struct World {
    bench: Bench,
    random: StdRng,
    clients: Vec<Client>,
    born: u32,
    log: Vec<String>,
}

impl World {
    fn new(random: StdRng) -> Self {
        let mut bench = Bench::new(&[("a", 5)]);
        bench.limits.members_max = 20;
        bench.limits.consumer.members_max = 20;
        Self { bench, random, clients: Vec::new(), born: 0, log: Vec::new() }
    }

    fn note(&mut self, text: String) {
        self.log.push(format!("{:>7} {text}", self.bench.now));
        if self.log.len() > 60 {
            self.log.remove(0);
        }
    }

    fn birth(&mut self, is_consumer: bool) {
        self.born += 1;
        let id: MemberId = format!("{}{}", if is_consumer { "new" } else { "old" }, self.born).as_str().into();
        let protocol = if is_consumer {
            Protocol::Consumer { epoch: 0, told: None }
        } else {
            Protocol::Classic { next: Next::Join, is_cooperative: self.random.random_bool(0.6) }
        };
        self.note(format!("{id} is born"));
        self.clients.push(Client { id, protocol, reads: Partitions::new() });
    }

    /// One client does its next thing.
    fn step(&mut self, at: usize) {
        let mut client = self.clients[at].clone();
        match client.protocol.clone() {
            Protocol::Consumer { epoch, told } => self.beat(&mut client, epoch, told),
            Protocol::Classic { next, is_cooperative } => self.old_way(&mut client, next, is_cooperative),
        }
        self.clients[at] = client;
        self.check();
    }

    fn beat(&mut self, client: &mut Client, epoch: i32, told: Option<Partitions>) {
        // it gives up first, at its own pace, and takes when it has given up
        let mut told = told;
        if let Some(assignment) = told.clone().filter(|_| epoch > 0 && self.random.random_bool(0.7)) {
            let stray = without(&client.reads, &assignment);
            client.reads = if stray.is_empty() { assignment } else { without(&client.reads, &stray) };
            if stray.is_empty() {
                told = None;
            }
        }
        let beat = if epoch == 0 {
            joining(&client.id, &["a"])
        } else {
            Beat { owned: Some(client.reads.clone()), ..silent(&client.id, epoch) }
        };
        let answer = self.bench.beat(&beat);
        self.note(format!("{} beats at {epoch} with {:?}: {answer:?}", client.id, client.reads));
        client.protocol = match answer {
            Ok(beaten) => Protocol::Consumer { epoch: beaten.epoch, told: beaten.assignment.or(told) },
            Err(Kind::FencedMemberEpoch | Kind::UnknownMemberId | Kind::GroupIdNotFound) => {
                client.reads = Partitions::new();
                Protocol::Consumer { epoch: 0, told: None }
            }
            Err(other) => panic!("{other:?}\n{}", self.log.join("\n")),
        };
    }

    fn old_way(&mut self, client: &mut Client, next: Next, is_cooperative: bool) {
        let next = match next {
            Next::Join => self.join(client, is_cooperative),
            Next::AwaitJoin => match self.bench.joins.remove(&client.id) {
                None => Next::AwaitJoin,
                Some(Ok(joined)) => Next::Sync(joined),
                Some(Err(Kind::RebalanceInProgress)) => Next::Join,
                Some(Err(_)) => self.lost(client),
            },
            Next::Sync(joined) => self.sync(client, joined),
            Next::Live(_) if self.leads_too_few(&client.id) => Next::Join,
            Next::Live(generation) => {
                let who = Caller { member_id: &client.id, instance_id: None, generation };
                match self.bench.turn(|turn| turn.heartbeat(&who)).map_err(|error| error.kind) {
                    Ok(()) => Next::Live(generation),
                    Err(Kind::RebalanceInProgress) => Next::Join,
                    Err(_) => self.lost(client),
                }
            }
        };
        self.note(format!("{} reads {:?} and is at {next:?}", client.id, client.reads));
        client.protocol = Protocol::Classic { next, is_cooperative };
    }

    /// A classic leader looks at the topics itself and joins again when there is more to assign.
    fn leads_too_few(&self, id: &MemberId) -> bool {
        let group = &self.bench.group;
        let assigned =
            group.members().values().filter_map(|member| read_assignment(&member.assignment, &self.bench.topics));
        let count: usize = assigned.flat_map(|assigned| assigned.into_values()).map(|own| own.len()).sum();
        let wanted = self.bench.topics.find("a").map_or(0, |(_, count)| count as usize);
        group.leader() == Some(id) && group.phase() == Phase::Stable && count < wanted
    }

    /// Its place is gone: it stops reading and begins anew.
    fn lost(&mut self, client: &mut Client) -> Next {
        self.note(format!("{} lost its place", client.id));
        client.reads = Partitions::new();
        self.bench.joins.remove(&client.id);
        self.bench.syncs.remove(&client.id);
        self.born += 1;
        client.id = format!("old{}", self.born).as_str().into();
        Next::Join
    }

    fn join(&mut self, client: &mut Client, is_cooperative: bool) -> Next {
        if !is_cooperative {
            client.reads = Partitions::new();
        }
        let join = classic(&self.bench.topics, &client.id, &client.reads);
        let mut outcome = self.bench.turn(|turn| turn.join(join.clone())).map_err(|error| error.kind);
        if outcome.as_ref().is_err_and(|kind| *kind == Kind::UnknownMemberId) {
            client.reads = Partitions::new();
            let newcomer = Join { member_id: "".into(), ..classic(&self.bench.topics, &client.id, &client.reads) };
            let required = self.bench.turn(|turn| turn.join(newcomer)).map_err(|error| error.kind);
            assert_eq!(required.err(), Some(Kind::MemberIdRequired));
            let join = classic(&self.bench.topics, &client.id, &client.reads);
            outcome = self.bench.turn(|turn| turn.join(join)).map_err(|error| error.kind);
        }
        match outcome {
            Ok(Outcome::Now(joined)) => Next::Sync(joined),
            Ok(Outcome::Waits(_)) => Next::AwaitJoin,
            Err(_) => self.lost(client),
        }
    }

    fn sync(&mut self, client: &mut Client, joined: Joined) -> Next {
        let generation = joined.generation;
        let given = if joined.leader == client.id { self.lead(&joined) } else { Vec::new() };
        let who = Caller { member_id: &client.id, instance_id: None, generation };
        if let Some(synced) = self.bench.syncs.remove(&client.id) {
            return match synced {
                Ok(synced) => self.take(client, generation, &synced.assignment),
                Err(Kind::RebalanceInProgress) => Next::Join,
                Err(_) => self.lost(client),
            };
        }
        let is_asked = self.bench.group.members().get(&client.id).is_some_and(|member| member.syncing);
        if is_asked {
            return Next::Sync(joined);
        }
        match self.bench.turn(|turn| turn.sync(&who, (Some(CONSUMER), None), given)).map_err(|error| error.kind) {
            Ok(Outcome::Now(synced)) => self.take(client, generation, &synced.assignment),
            Ok(Outcome::Waits(_)) => Next::Sync(joined),
            Err(Kind::RebalanceInProgress) => Next::Join,
            Err(_) => self.lost(client),
        }
    }

    /// It reads what it is given; if it had to give something up, it joins again to say so.
    fn take(&mut self, client: &mut Client, generation: i32, assignment: &[u8]) -> Next {
        let assignment = read_assignment(assignment, &self.bench.topics).unwrap();
        let gave_up = !without(&client.reads, &assignment).is_empty();
        client.reads = assignment;
        if gave_up { Next::Join } else { Next::Live(generation) }
    }

    /// A cooperative leader: even shares, but what another one still has is given in the next round.
    fn lead(&self, joined: &Joined) -> Vec<(MemberId, bytes::Bytes)> {
        let topics = &self.bench.topics;
        let mut group = Subscriptions::default();
        let (id, count) = topics.find("a").unwrap();
        group.topics.insert(id, count);
        for (member, _, metadata) in &joined.members {
            let owned = by_id(&Subscription::read(metadata).unwrap().owned, topics);
            let subscriber = Subscriber { instance_id: None, topics: [id].into(), target: owned };
            group.members.insert(member.clone(), subscriber);
        }
        let targets = Assignor::Uniform.assign(&group);
        let given = targets.into_iter().map(|(member, mut target)| {
            for (other, subscriber) in &group.members {
                if *other != member {
                    target = without(&target, &subscriber.target);
                }
            }
            (member, write_assignment(1, &target, topics))
        });
        given.collect()
    }

    /// A client whose time ran out knows it without being told: it stops reading.
    fn notice(&mut self) {
        for at in 0..self.clients.len() {
            let mut client = self.clients[at].clone();
            let is_known = self.bench.group.members().contains_key(&client.id)
                || self.bench.group.consumers().is_some_and(|group| group.members().contains_key(&client.id));
            if is_known {
                continue;
            }
            client.protocol = match client.protocol.clone() {
                Protocol::Consumer { epoch, .. } if epoch > 0 => {
                    self.note(format!("{} knows that it was given up", client.id));
                    client.reads = Partitions::new();
                    Protocol::Consumer { epoch: 0, told: None }
                }
                Protocol::Classic { next, is_cooperative } if next != Next::Join || !client.reads.is_empty() => {
                    Protocol::Classic { next: self.lost(&mut client), is_cooperative }
                }
                same => same,
            };
            self.clients[at] = client;
        }
    }

    fn check(&mut self) {
        self.notice();
        for (at, one) in self.clients.iter().enumerate() {
            for other in &self.clients[at + 1..] {
                assert!(
                    !overlap(&one.reads, &other.reads),
                    "{} and {} read the same: {:?} {:?}\n{}",
                    one.id,
                    other.id,
                    one.reads,
                    other.reads,
                    self.log.join("\n")
                );
            }
        }
        if let Some(group) = self.bench.group.consumers() {
            let members: Vec<&ConsumerMember> = group.members().values().collect();
            let held = |member: &ConsumerMember| {
                let mut held = member.assigned.clone();
                member.revoking.iter().for_each(|(topic, more)| held.entry(*topic).or_default().extend(more));
                held
            };
            for (at, one) in members.iter().enumerate() {
                assert!(!overlap(&one.assigned, &one.revoking), "{one:?}");
                for other in &members[at + 1..] {
                    assert!(!overlap(&held(one), &held(other)), "{one:?} {other:?}\n{}", self.log.join("\n"));
                }
            }
        }
    }

    /// Something that is not a client's next step.
    fn surprise(&mut self) {
        match self.random.random_range(0..100) {
            0..25 if self.clients.len() < 7 => {
                let is_consumer = self.random.random_bool(0.5);
                self.birth(is_consumer);
            }
            25..45 if !self.clients.is_empty() => {
                let at = self.random.random_range(0..self.clients.len());
                let client = self.clients.remove(at);
                self.note(format!("{} leaves or dies", client.id));
                if self.random.random_bool(0.7) {
                    self.leave(&client);
                }
            }
            45..50 => {
                let count = self.bench.topics.find("a").unwrap().1;
                self.bench.topics.put("a", (count + 1).min(9));
            }
            50..55 => self.bench.now += self.random.random_range(0..SESSION / 4),
            55..60 => self.restart(),
            _ => self.bench.now += 100,
        }
        self.bench.turn(|_| ());
        self.check();
    }

    fn leave(&mut self, client: &Client) {
        match client.protocol {
            Protocol::Consumer { epoch, .. } if epoch > 0 => drop(self.bench.beat(&silent(&client.id, LEAVE_EPOCH))),
            Protocol::Consumer { .. } => {}
            Protocol::Classic { .. } => {
                let who = Caller { member_id: &client.id, instance_id: None, generation: -1 };
                drop(self.bench.turn(|turn| turn.leave(&[who])));
            }
        }
    }

    /// The broker starts again: a group of the consumer protocol is what its records say.
    fn restart(&mut self) {
        let Some(group) = self.bench.group.consumers() else { return };
        let mut stored: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut facts = vec![Fact::Began(group.epochs())];
        for (id, member) in group.members() {
            facts.push(Fact::Member(Box::new(member.clone())));
            facts.extend(group.target(id).map(|target| Fact::Target(id.clone(), target.clone())));
        }
        for fact in &facts {
            for change in records::changes("g", fact) {
                if let Change::Put(_, key, value) = change {
                    stored.insert(key, value);
                }
            }
        }
        let mut again = Group::new("g".into(), 0);
        for (key, value) in &stored {
            let (_, fact) = records::decode(key, value).unwrap();
            again.apply(Event::Fact(fact));
        }
        let (now, session) = (self.bench.now, self.bench.timings.session_timeout_ms);
        again.consumers_mut().unwrap().restart_deadlines(now, session);
        let (old, new) = (self.bench.group.consumers().unwrap(), again.consumers().unwrap());
        assert_eq!((old.epochs(), old.members(), old.state_name()), (new.epochs(), new.members(), new.state_name()));
        self.bench.group = again;
        self.note("the broker starts again".into());
    }

    /// Everybody goes on, nobody comes or goes: soon all is read, evenly.
    fn calm_down(&mut self) {
        let wanted: BTreeSet<i32> = (0..self.bench.topics.find("a").unwrap().1).collect();
        for round in 0..2_000 {
            self.bench.now += 500;
            self.bench.turn(|_| ());
            // who is given up knows it before anything else
            self.notice();
            for at in 0..self.clients.len() {
                self.step(at);
            }
            let id = self.bench.topics.id("a");
            let read: Vec<&BTreeSet<i32>> = self.clients.iter().filter_map(|client| client.reads.get(&id)).collect();
            let sizes: Vec<usize> =
                self.clients.iter().map(|client| client.reads.get(&id).map_or(0, BTreeSet::len)).collect();
            let is_even = sizes.iter().max().unwrap_or(&0) <= &(sizes.iter().min().unwrap_or(&0) + 1);
            let all: BTreeSet<i32> = read.into_iter().flatten().copied().collect();
            if self.clients.is_empty() || (all == wanted && is_even && self.bench.state() == "Stable") {
                return;
            }
            assert!(
                round < 1_999,
                "{:?} of {wanted:?} by {sizes:?}, {}\n{}",
                all,
                self.bench.state(),
                self.log.join("\n")
            );
        }
    }
}

#[test]
fn random_lives_of_a_group() {
    let seed = seed("random_lives_of_a_group");
    for life in 0..60 {
        let mut world = World::new(StdRng::seed_from_u64(seed.wrapping_add(life)));
        for _ in 0..6 {
            for _ in 0..60 {
                if world.clients.is_empty() || world.random.random_bool(0.15) {
                    world.surprise();
                } else {
                    let at = world.random.random_range(0..world.clients.len());
                    world.step(at);
                }
            }
            world.calm_down();
        }
    }
}
