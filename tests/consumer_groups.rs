//! Groups of the consumer protocol (KIP-848) with the clients that speak it, through a kill -9 of the broker; a group that
//! moves to it and back while it reads; and Kafka's tools for groups of both protocols.

use crate::clients::{Broker, create_topic};
use crate::groups::{PARTITIONS, PATIENCE, all, produce, read_by, wait_until_read, wait_until_shared};
use crate::support::kafka;
use crate::support::raw::Client;
use crate::support::scripts::{Member, Script};
use crate::support::{Scratch, beside_others, eventually};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, GroupId, ListGroupsRequest};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;

const CONSUMER: &[(&str, &str)] = &[("MEMBER_PROTOCOL", "consumer")];
const COOPERATIVE: &[(&str, &str)] = &[("MEMBER_PROTOCOL", "cooperative")];

type Members = BTreeMap<String, (i32, Vec<i32>)>;

/// Each member's epoch and partitions, and the group's state; none for what is not a group of the protocol.
fn described(address: &str, group: &str) -> Option<(String, Members)> {
    let group = GroupId(StrBytes::from_string(group.to_owned()));
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group]);
    let answer = Client::try_connect(address).ok()?.call(&request, 1).ok()?;
    let group = answer.groups.first().filter(|group| group.error_code == 0)?;
    let members = group.members.iter().map(|member| {
        let partitions = member.assignment.topic_partitions.iter().flat_map(|topic| topic.partitions.clone());
        (member.member_id.to_string(), (member.member_epoch, partitions.collect()))
    });
    Some((group.group_state.to_string(), members.collect()))
}

/// `classic` or `consumer`.
fn kind(address: &str, group: &str) -> Option<String> {
    let answer = Client::try_connect(address).ok()?.call(&ListGroupsRequest::default(), 5).ok()?;
    let found = answer.groups.iter().find(|listed| listed.group_id.as_str() == group)?;
    Some(found.group_type.to_string())
}

#[test]
fn consumers_keep_their_epochs_over_kill_9() {
    let _beside = beside_others();
    let scratch = Scratch::new("consumer-groups");
    let mut broker = Broker::start(&scratch);
    let name = "consumers";
    create_topic(broker.address(), name, PARTITIONS as i32);
    let start = |script: Script, i: usize, variables: &[(&str, &str)]| {
        script.member_as(variables, [broker.address(), name, name], &scratch.path(&format!("member-{i}")))
    };
    let is_static: &[(&str, &str)] = &[("MEMBER_PROTOCOL", "consumer"), ("MEMBER_INSTANCE", "first")];
    let mut members = vec![
        start(Script::Java, 0, is_static),
        start(Script::Java, 1, CONSUMER),
        start(Script::Confluent, 2, CONSUMER),
    ];
    wait_until_shared(name, &mut members);
    produce(broker.address(), name);
    wait_until_read(name, &members, &all(0, 1));
    eventually("the group is stable", PATIENCE, || match described(broker.address(), name) {
        Some((state, _)) if state == "Stable" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let before = described(broker.address(), name).unwrap();
    broker.kill9_and_start_again();
    assert_eq!(described(broker.address(), name).unwrap(), before, "members, epochs and assignments");
    produce(broker.address(), name);
    wait_until_read(name, &members, &all(0, 2));
    assert_eq!(described(broker.address(), name).unwrap(), before, "nobody had to join again");
    // the static one is started again: nobody else's partitions move
    let read_before: usize = members.iter().map(|member| member.read().len()).sum();
    assert_eq!(read_before, all(0, 2).len(), "nothing twice");
    members[0].leave();
    let old = members.remove(0);
    let epoch_of = |id: &str| described(broker.address(), name).unwrap().1.get(id).cloned();
    let others: Vec<String> =
        before.1.keys().filter(|id| epoch_of(id).is_some_and(|(epoch, _)| epoch > 0)).cloned().collect();
    assert_eq!(others.len(), 2);
    let again: &[(&str, &str)] = is_static;
    members.insert(0, Script::Java.member_as(again, [broker.address(), name, name], &scratch.path("member-again")));
    wait_until_shared(name, &mut members);
    assert!(others.iter().all(|id| epoch_of(id) == before.1.get(id).cloned()), "their epochs and partitions stay");
    produce(broker.address(), name);
    members.push(old);
    wait_until_read(name, &members, &all(0, 3));
    members.pop();
    members.iter_mut().for_each(Member::leave);
}

#[test]
fn a_group_moves_to_the_consumer_protocol_and_back_without_losing_or_doubling_a_record() {
    let _beside = beside_others();
    let scratch = Scratch::new("migration");
    let mut broker = Broker::start(&scratch);
    let name = "moving";
    create_topic(broker.address(), name, PARTITIONS as i32);
    let mut born = 0;
    let mut start = |address: &str, variables: &[(&str, &str)]| {
        born += 1;
        Script::Java.member_as(variables, [address, name, name], &scratch.path(&format!("member-{born}")))
    };
    let address = broker.address().to_owned();
    let mut gone: Vec<Member> = Vec::new();
    let mut members = vec![start(&address, COOPERATIVE), start(&address, COOPERATIVE)];
    wait_until_shared(name, &mut members);
    assert_eq!(kind(&address, name).as_deref(), Some("classic"));
    let mut rounds = 0;
    let steps = [(CONSUMER, "consumer"), (CONSUMER, "consumer"), (COOPERATIVE, "consumer"), (COOPERATIVE, "classic")];
    for (step, (variables, expected)) in steps.into_iter().enumerate() {
        thread::scope(|scope| {
            let producing = scope.spawn(|| produce(&address, name));
            let mut old = members.remove(0);
            old.leave();
            gone.push(old);
            members.push(start(&address, variables));
            producing.join().unwrap();
        });
        rounds += 1;
        wait_until_shared(name, &mut members);
        eventually(&format!("step {step}: the group is {expected}"), PATIENCE, || match kind(&address, name) {
            Some(kind) if kind == expected => Ok(()),
            other => Err(format!("{other:?}")),
        });
        if step == 0 {
            // both kinds of members are in it now
            broker.kill9_and_start_again();
            produce(&address, name);
            rounds += 1;
        }
        let both: Vec<&Member> = members.iter().chain(&gone).collect();
        eventually(&format!("step {step}: everything is read"), PATIENCE, || {
            let read: BTreeSet<(i64, i64)> = both.iter().flat_map(|member| member.read()).collect();
            if read == all(0, rounds) { Ok(()) } else { Err(format!("{} of {}", read.len(), all(0, rounds).len())) }
        });
    }
    members.iter_mut().for_each(Member::leave);
    members.append(&mut gone);
    let count: usize = members.iter().map(|member| member.read().len()).sum();
    assert_eq!((read_by(&members), count), (all(0, rounds), all(0, rounds).len()), "each record once");
}

fn tool(address: &str, args: &[&str]) -> String {
    let command = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    kafka::tool(command, &[&["--bootstrap-server", address], args].concat())
}

/// The line of a table that has all these words.
fn line<'a>(table: &'a str, words: &[&str]) -> Vec<&'a str> {
    let found = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = found.into_iter().find(|line| words.iter().all(|word| line.contains(word)));
    found.unwrap_or_else(|| panic!("no line with {words:?} in\n{table}"))
}

#[test]
fn kafka_tools_see_and_change_groups_of_both_protocols() {
    let _beside = beside_others();
    let scratch = Scratch::new("group-tools");
    let broker = Broker::start(&scratch);
    let address = broker.address();
    create_topic(address, "tools", PARTITIONS as i32);
    let mut members = [
        Script::Java.member_as(CONSUMER, [address, "tools", "tools-new"], &scratch.path("new")),
        Script::Java.member_as(COOPERATIVE, [address, "tools", "tools-old"], &scratch.path("old")),
    ];
    produce(address, "tools");
    members.iter().for_each(|member| wait_until_read("tools", std::slice::from_ref(member), &all(0, 1)));
    let listed = tool(address, &["--list", "--state"]);
    assert_eq!(line(&listed, &["tools-new"])[1..], ["Stable"]);
    assert_eq!(line(&listed, &["tools-old"])[1..], ["Stable"]);
    let listed = tool(address, &["--list", "--type"]);
    assert_eq!(line(&listed, &["tools-new"])[1..], ["Consumer"]);
    assert_eq!(line(&listed, &["tools-old"])[1..], ["Classic"]);
    let groups = |args: &[&str]| {
        kafka::tool(
            "org.apache.kafka.tools.GroupsCommand",
            &[&["--bootstrap-server", address, "--list"], args].concat(),
        )
    };
    assert_eq!(line(&groups(&[]), &["tools-new"])[1..], ["Consumer", "consumer"]);
    assert_eq!(line(&groups(&[]), &["tools-old"])[1..], ["Classic", "consumer"]);
    assert!(!groups(&["--group-type", "consumer"]).contains("tools-old"));
    for group in ["tools-new", "tools-old"] {
        let described = tool(address, &["--describe", "--group", group]);
        let row = line(&described, &[group, "tools", "3"]);
        assert_eq!(row[3..6], ["50", "50", "0"], "{described}");
        let described = tool(address, &["--describe", "--group", group, "--state"]);
        assert!(line(&described, &[group]).contains(&"Stable"), "{described}");
        let described = tool(address, &["--describe", "--group", group, "--members", "--verbose"]);
        assert!(line(&described, &[group]).iter().any(|word| word.contains("0,1,2,3,4,5")), "{described}");
    }
    let described = tool(address, &["--describe", "--group", "tools-new", "--members", "--verbose"]);
    assert!(described.contains("CURRENT-EPOCH") && described.contains("TARGET-EPOCH"), "{described}");
    members.iter_mut().for_each(Member::leave);
    resets(address, &scratch);
    for group in ["tools-new", "tools-old"] {
        let said = tool(address, &["--delete-offsets", "--group", group, "--topic", "tools:0,1"]);
        assert!(said.contains("Successful"), "{said}");
        let described = tool(address, &["--describe", "--group", group]);
        assert_eq!(described.lines().filter(|line| line.starts_with(group)).count(), 4, "{described}");
        tool(address, &["--delete", "--group", group]);
    }
    assert!(!tool(address, &["--list"]).contains("tools-"));
}

/// Every way to say where a group shall read on.
fn resets(address: &str, scratch: &Scratch) {
    let reset = |group: &str, scope: &[&str], to: &[&str]| {
        let args = [&["--reset-offsets", "--group", group, "--execute"], scope, to].concat();
        let said = tool(address, &args);
        let rows = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows = rows.into_iter().filter(|row| row.first() == Some(&group) && row.get(1) == Some(&"tools"));
        rows.map(|row| (row[2].to_owned(), row[3].to_owned())).collect::<BTreeMap<_, _>>()
    };
    let to_all = |offset: &str| (0..PARTITIONS).map(|p| (p.to_string(), offset.to_owned())).collect::<BTreeMap<_, _>>();
    for group in ["tools-new", "tools-old"] {
        let topic: &[&str] = &["--topic", "tools"];
        assert_eq!(reset(group, topic, &["--to-earliest"]), to_all("0"));
        assert_eq!(reset(group, topic, &["--shift-by", "7"]), to_all("7"));
        assert_eq!(reset(group, topic, &["--to-current"]), to_all("7"));
        assert_eq!(reset(group, &["--all-topics"], &["--to-offset", "9"]), to_all("9"));
        assert_eq!(reset(group, topic, &["--to-datetime", "2020-01-01T00:00:00.000"]), to_all("0"));
        assert_eq!(reset(group, topic, &["--to-latest"]), to_all("50"));
        assert_eq!(reset(group, topic, &["--by-duration", "P1D"]), to_all("0"));
        assert_eq!(reset(group, &["--topic", "tools:2"], &["--to-offset", "11"])["2"], "11");
        let plan = scratch.write(&format!("{group}.csv"), "tools,2,5\ntools,3,6\n");
        let moved = reset(group, &[], &["--from-file", &plan.to_string_lossy()]);
        assert_eq!((moved["2"].as_str(), moved["3"].as_str()), ("5", "6"));
        let described = tool(address, &["--describe", "--group", group]);
        assert_eq!(line(&described, &[group, "tools", "2"])[3..6], ["5", "50", "45"], "{described}");
    }
}
