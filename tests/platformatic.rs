//! @platformatic/kafka beyond what all clients do (clients.rs, groups.rs, security.rs): transactions, admin, both group protocols.

use crate::clients::create_topic;
use crate::support::plan::{self, Send};
use crate::support::scripts::{Script, json_of, platformatic};
use crate::support::server::Server;
use crate::support::{Scratch, eventually};
use serde_json::json;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn it_does_what_its_users_do() {
    let scratch = Scratch::new("platformatic");
    let mut server = Server::start(&scratch);
    create_topic(&server.kafka, "transactions", 1);
    let report = json_of(platformatic().args(["transact", &server.kafka, "transactions"]));
    assert_eq!(report["committed"], json!(["first", "second"]));
    let report = json_of(platformatic().args(["admin", &server.kafka, "administered"]));
    assert_eq!(report, json!({ "partitions": 5, "retention": "123456789", "listed": true, "gone": true }));
    for protocol in ["classic", "consumer"] {
        group(&scratch, &server, protocol);
    }
    assert!(server.stop().success());
}

/// Two members share four partitions; one leaves, the other reads on; nothing is lost.
fn group(scratch: &Scratch, server: &Server, protocol: &str) {
    let topic = format!("group-{protocol}");
    create_topic(&server.kafka, &topic, 4);
    let start = |number: u32| {
        let log = scratch.path(&format!("{protocol}-{number}"));
        Script::Platformatic.member_as(&[("MEMBER_PROTOCOL", protocol)], [&server.kafka, &topic, &topic], &log)
    };
    let (mut one, mut two) = (start(1), start(2));
    eventually("both share the partitions", PATIENCE, || match (one.assigned(), two.assigned()) {
        (Some(one), Some(two)) if one.len() == 2 && two.len() == 2 => Ok(()),
        assigned => Err(format!("{protocol}: {assigned:?}")),
    });
    let described = server.http.get(&format!("/v1/groups/{topic}"));
    assert_eq!(described["members"], 2, "{described}");
    one.leave();
    eventually("one has all partitions", PATIENCE, || match two.assigned() {
        Some(partitions) if partitions.len() == 4 => Ok(()),
        assigned => Err(format!("{protocol}: {assigned:?}")),
    });
    let sends: Vec<Send> = (0..4)
        .map(|partition| Send {
            topic: topic.clone(),
            partition,
            codec: "none".into(),
            records: plan::records(u64::try_from(partition).unwrap(), 100),
        })
        .collect();
    let file = scratch.write(&format!("{protocol}.json"), &json!({ "sends": sends }).to_string());
    Script::Platformatic.report("produce", &server.kafka, &file);
    eventually("all is read", PATIENCE, || match two.read().len() {
        400 => Ok(()),
        n => Err(format!("{protocol}: {n} records")),
    });
    two.leave();
}
