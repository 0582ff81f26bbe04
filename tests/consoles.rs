//! Redpanda Console and AKHQ: the calls of their pages, made with the libraries that they use. kafka-ui's are in `tools.rs` and
//! `registry.rs`.

use crate::support::kafka::akhq_source;
use crate::support::scripts::json_of;
use crate::support::server::Server;
use crate::support::{Scratch, beside_others, cache};
use serde_json::json;
use std::process::Command;

/// Rights are asked, and the consoles may do everything.
const SECURED: &str = "[security]\nauthorizer = true\n[kafka]\n\"super.users\" = \"User:ANONYMOUS\"\n";

#[test]
fn redpanda_console_finds_what_it_asks_for() {
    let _beside = beside_others();
    let client = cache().join("go/goclients");
    if !client.exists() {
        eprintln!("consoles: there is no Go here, the calls of Redpanda Console are not made");
        return;
    }
    let scratch = Scratch::new("console");
    let server = Server::with_config(&scratch, SECURED);
    let registry = format!("http://{}/registry", server.http.address());
    let said = json_of(Command::new(client).args(["console", "pages", &server.kafka, &registry]));
    assert!(said["broker_settings"].as_u64().unwrap() > 100, "{said}");
    let expected = json!({
        "cluster": [22, true, 1], "missing": null, "documented": true, "bytes": true,
        "offsets": [0, 6, 3], "after_deletion": 6, "reassignments": 0, "producers": true,
        "group": ["Empty", 0, 2], "lag_known": true, "group_deleted": "unknown",
        "rules": 2, "rules_deleted": 2, "users": 1, "quotas": 2,
        "schema_types": ["AVRO", "JSON", "PROTOBUF"], "schemas": [1, 1, 1, 0],
        "compatibility": "BACKWARD", "mode": "READWRITE", "compatible": false, "contexts": true,
    });
    for (page, shown) in expected.as_object().unwrap() {
        assert_eq!(&said[page], shown, "{page}: {said}");
    }
}

#[test]
fn akhq_finds_what_it_asks_for() {
    let _beside = beside_others();
    for (config, rights) in [("", json!("off")), (SECURED, json!(0))] {
        let scratch = Scratch::new("akhq");
        let server = Server::with_config(&scratch, config);
        let registry = format!("http://{}/registry", server.http.address());
        let said = json_of(akhq_source("clients/AkhqCalls.java").args([&server.kafka, &registry]));
        assert!(said["broker_settings"].as_u64().unwrap() > 100, "{said}");
        let expected = json!({
            "cluster": [1, 1, 22], "log_dirs": 1, "topic": [true, 2, 1],
            "retention": "86400000 false", "policy": "compact,delete",
            "offsets": [0, 3], "by_time": [0, 1], "values": ["v2", "v4", "v5"], "after_deletion": 2,
            "group": ["Empty", 0, 1], "offsets_left": 1, "groups_left": 0, "rights": rights,
            "registry": {
                "register": 200, "subjects": 200, "latest": 200, "versions": 200, "lookup": 200, "config": 200,
                "set_config": 200, "compatibility": 200, "delete": 200, "gone": 404,
            },
        });
        for (page, shown) in expected.as_object().unwrap() {
            assert_eq!(&said[page], shown, "{page}: {said}");
        }
    }
}
