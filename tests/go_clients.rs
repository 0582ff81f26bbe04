//! franz-go and sarama, where Go is at hand: the set-up builds them if there is a Go of 1.23 or later.

use crate::clients::create_topic;
use crate::support::plan::{self, Send};
use crate::support::process::Process;
use crate::support::scripts::{Member, json_of};
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, cache, eventually};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const CLIENTS: [&str; 2] = ["franz", "sarama"];
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn franz_go_and_sarama_do_what_their_users_do() {
    let _beside = beside_others();
    if !cache().join("go/goclients").exists() {
        eprintln!("go_clients: there is no Go here, franz-go and sarama are not run");
        return;
    }
    let scratch = Scratch::new("go");
    let server = Server::start(&scratch);
    let sends = written(&scratch, &server.kafka);
    read(&scratch, &server.kafka, &sends);
    for client in CLIENTS {
        groups(&scratch, &server.kafka, client);
        let topic = format!("transactions-{client}");
        create_topic(&server.kafka, &topic, 1);
        let report = json_of(go(client, "transact", &server.kafka).arg(&topic));
        assert_eq!(report["committed"], json!(["first", "second"]), "{client}");
        let report = json_of(go(client, "admin", &server.kafka).arg(format!("admin-{client}")));
        let expected = json!({ "partitions": 5, "retention": "123456789", "listed": true, "gone": true });
        assert_eq!(report, expected, "{client}");
    }
}

fn go(client: &str, mode: &str, address: &str) -> Command {
    let mut command = Command::new(cache().join("go/goclients"));
    command.args([client, mode, address]);
    command
}

/// Each client writes with each codec.
fn written(scratch: &Scratch, address: &str) -> Vec<Send> {
    let mut sends = Vec::new();
    for client in CLIENTS {
        for codec in CODECS {
            let topic = format!("from-{client}-{codec}");
            create_topic(address, &topic, 1);
            let records = plan::records(sends.len() as u64 + 1, 60);
            sends.push(Send { topic, partition: 0, codec: codec.to_owned(), records });
        }
        let own: Vec<&Send> = sends.iter().filter(|send| send.topic.starts_with(&format!("from-{client}-"))).collect();
        let plan = scratch.write(&format!("produce-{client}.json"), &json!({ "sends": own }).to_string());
        let report = json_of(go(client, "produce", address).arg(plan));
        for sent in report["sent"].as_array().unwrap() {
            assert_eq!(sent["offsets"], json!((0..60).collect::<Vec<i64>>()), "{client} {sent}");
        }
    }
    sends
}

/// Each client reads what both wrote.
fn read(scratch: &Scratch, address: &str, sends: &[Send]) {
    let topics: Vec<Value> =
        sends.iter().map(|send| json!({ "topic": send.topic, "partitions": 1, "count": 60 })).collect();
    let plan = scratch.write("consume.json", &json!({ "topics": topics }).to_string());
    for client in CLIENTS {
        let mistakes = plan::mistakes(&json_of(go(client, "consume", address).arg(&plan)), sends);
        assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    }
}

fn groups(scratch: &Scratch, address: &str, client: &str) {
    let topic = format!("group-{client}");
    create_topic(address, &topic, 4);
    let start = |number: u32| {
        let mut command = go(client, "group", address);
        command.args([&topic, &format!("{client}-group")]);
        Member::new(Process::start(command, &scratch.path(&format!("{client}-{number}"))))
    };
    let mut pair = (start(1), start(2));
    two_share(&mut pair, &topic);
    one_goes_on(pair, (scratch, &topic), |plan| drop(json_of(go(client, "produce", address).arg(plan))));
}

fn has(member: &mut Member, count: usize, topic: &str) -> Result<(), String> {
    match member.assigned() {
        Some(partitions) if partitions.len() == count => Ok(()),
        partitions => Err(format!("{topic}: {partitions:?}")),
    }
}

/// Two members share a topic's four partitions.
pub fn two_share((one, two): &mut (Member, Member), topic: &str) {
    eventually("both share the partitions", PATIENCE, || has(one, 2, topic).and(has(two, 2, topic)));
}

/// One of them leaves, the other reads on; nothing is lost of what `produce` sends by a plan.
pub fn one_goes_on((mut one, mut two): (Member, Member), (scratch, topic): (&Scratch, &str), produce: impl Fn(&Path)) {
    one.leave();
    eventually("one has all partitions", PATIENCE, || has(&mut two, 4, topic));
    let records = plan::records(7, 100);
    let sends: Vec<Send> = (0..4)
        .map(|partition| Send { topic: topic.into(), partition, codec: "none".into(), records: records.clone() })
        .collect();
    produce(&scratch.write(&format!("{topic}.json"), &json!({ "sends": sends }).to_string()));
    eventually("all is read", PATIENCE, || match two.read().len() {
        400 => Ok(()),
        n => Err(format!("{topic}: {n} records")),
    });
    two.leave();
}
