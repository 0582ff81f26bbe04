//! Groups of three: they share the partitions, lose nothing when one leaves, and their commits survive a kill -9 of the broker.

use crate::clients::{Broker, create_topic};
use crate::support::scripts::{MEMBERS, Member, Script};
use crate::support::{Scratch, beside_others, eventually};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

pub const PARTITIONS: i64 = 6;
const ROUND: i64 = 50;
pub const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn three_consumers_rebalance_and_resume_after_kill_9() {
    let _beside = beside_others();
    let scratch = Scratch::new("groups");
    let mut broker = Broker::start(&scratch);
    for script in MEMBERS {
        create_topic(broker.address(), &topic(script), PARTITIONS as i32);
    }
    thread::scope(|scope| {
        let (address, scratch) = (broker.address(), &scratch);
        let running: Vec<_> =
            MEMBERS.iter().map(|script| scope.spawn(move || one_leaves(*script, address, scratch))).collect();
        running.into_iter().for_each(|thread| thread.join().unwrap());
    });
    broker.kill9_and_start_again();
    thread::scope(|scope| {
        let (address, scratch) = (broker.address(), &scratch);
        let running: Vec<_> =
            MEMBERS.iter().map(|script| scope.spawn(move || resumes(*script, address, scratch))).collect();
        running.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn topic(script: Script) -> String {
    format!("group-{}", script.name())
}

/// `ROUND` records to each partition.
pub fn produce(address: &str, topic: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", address).set("enable.idempotence", "true").create().unwrap();
    for i in 0..ROUND * PARTITIONS {
        let value = i.to_string();
        producer
            .send(BaseRecord::<str, str>::to(topic).partition((i % PARTITIONS) as i32).payload(&value))
            .unwrap_or_else(|(e, _)| panic!("{e}"));
    }
    producer.flush(PATIENCE).unwrap();
}

/// Every (partition, offset) of `from..to` rounds.
pub fn all(from: i64, to: i64) -> BTreeSet<(i64, i64)> {
    (0..PARTITIONS).flat_map(|partition| (from * ROUND..to * ROUND).map(move |offset| (partition, offset))).collect()
}

pub fn read_by(members: &[Member]) -> BTreeSet<(i64, i64)> {
    members.iter().flat_map(Member::read).collect()
}

pub fn wait_until_shared(name: &str, members: &mut [Member]) {
    let each = PARTITIONS as usize / members.len();
    eventually(&format!("{name}: {} members share {PARTITIONS} partitions", members.len()), PATIENCE, || {
        let assigned: Vec<_> = members.iter_mut().map(|member| member.assigned().unwrap_or_default()).collect();
        let distinct: BTreeSet<i64> = assigned.iter().flatten().copied().collect();
        let even = assigned.iter().all(|partitions| partitions.len() == each) && distinct.len() == PARTITIONS as usize;
        if even { Ok(()) } else { Err(format!("{assigned:?}")) }
    });
}

pub fn wait_until_read(name: &str, members: &[Member], wanted: &BTreeSet<(i64, i64)>) {
    eventually(&format!("{name}: the group reads everything"), PATIENCE, || {
        let read = read_by(members);
        if read == *wanted {
            Ok(())
        } else {
            Err(format!(
                "{} of {}, lost {:?}",
                read.len(),
                wanted.len(),
                wanted.difference(&read).take(5).collect::<Vec<_>>()
            ))
        }
    });
}

fn one_leaves(script: Script, address: &str, scratch: &Scratch) {
    let (name, topic) = (script.name(), topic(script));
    let start = |i: usize| script.member(address, &topic, &topic, &scratch.path(&format!("{name}-{i}")));
    let mut members: Vec<Member> = (0..3).map(start).collect();
    wait_until_shared(name, &mut members);
    produce(address, &topic);
    wait_until_read(name, &members, &all(0, 1));
    assert!(members.iter().all(|member| !member.read().is_empty()), "{name}: every member works");
    thread::scope(|scope| {
        let producing = scope.spawn(|| produce(address, &topic));
        members[1].leave();
        producing.join().unwrap();
    });
    let left = members.remove(1);
    wait_until_shared(name, &mut members);
    members.push(left);
    wait_until_read(name, &members, &all(0, 2));
    members.pop();
    members.iter_mut().for_each(Member::leave);
}

/// A new member starts where the group's commits stopped, though the broker was killed between.
fn resumes(script: Script, address: &str, scratch: &Scratch) {
    let (name, topic) = (script.name(), topic(script));
    produce(address, &topic);
    let mut members = vec![script.member(address, &topic, &topic, &scratch.path(&format!("{name}-resumed")))];
    eventually(&format!("{name}: a new member reads on"), PATIENCE, || {
        let read = read_by(&members);
        if read.is_superset(&all(2, 3)) { Ok(()) } else { Err(format!("{} records", read.len())) }
    });
    let read = members[0].read();
    assert_eq!(read.len(), all(2, 3).len(), "{name}: committed records came again: {:?}", read.first());
    members[0].leave();
}
