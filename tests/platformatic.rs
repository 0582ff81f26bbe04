//! @platformatic/kafka beyond what all clients do (clients.rs, groups.rs, security.rs): transactions, admin, both group protocols.

use crate::clients::create_topic;
use crate::go_clients::{one_goes_on, two_share};
use crate::support::Scratch;
use crate::support::scripts::{Script, json_of, platformatic};
use crate::support::server::Server;
use serde_json::json;

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

fn group(scratch: &Scratch, server: &Server, protocol: &str) {
    let topic = format!("group-{protocol}");
    create_topic(&server.kafka, &topic, 4);
    let start = |number: u32| {
        let log = scratch.path(&format!("{protocol}-{number}"));
        Script::Platformatic.member_as(&[("MEMBER_PROTOCOL", protocol)], [&server.kafka, &topic, &topic], &log)
    };
    let mut pair = (start(1), start(2));
    two_share(&mut pair, &topic);
    let described = server.http.get(&format!("/v1/groups/{topic}"));
    assert_eq!(described["members"], 2, "{described}");
    one_goes_on(pair, (scratch, &topic), |plan| drop(Script::Platformatic.report("produce", &server.kafka, plan)));
}
