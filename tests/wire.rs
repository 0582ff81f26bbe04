//! The bytes of the protocol, with kafka-clients as the oracle.
//!
//! `golden/protocol/<Api>.hex` holds a request and a response of every API in every version, written by kafka-clients from its own
//! schemas: "full" with all fields set, "bare" with all null or empty that can be. The broker's unit tests read and write them with
//! our codec. `MILLPOND_BLESS=1` writes the files anew, for what the broker then serves.

use crate::support::kafka::java_source;
use crate::support::raw::{Client, HEARD};
use crate::support::scripts::json_of;
use crate::support::server::Server;
use crate::support::{Scratch, source};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Oldest version of Produce that is served; older ones are only announced.
const PRODUCE_MIN: i16 = 3;

#[test]
fn golden_bytes_are_those_of_kafka_clients() {
    let scratch = Scratch::new("wire");
    let server = Server::start(&scratch);
    let served = Client::connect(&server.kafka).call(&ApiVersionsRequest::default(), 2).unwrap();
    let fresh = scratch.path("golden");
    fs::create_dir_all(&fresh).unwrap();
    let mut command = java_source("clients/Wire.java");
    command.arg("golden").arg(&fresh);
    for api in &served.api_keys {
        let min = if api.api_key == ApiKey::Produce as i16 { PRODUCE_MIN } else { api.min_version };
        command.arg(format!("{}:{min}:{}", api.api_key, api.max_version));
    }
    crate::support::kafka::run(&mut command);
    let kept = source("golden/protocol");
    if std::env::var("MILLPOND_BLESS").is_ok() {
        files_in(&kept).into_keys().for_each(|name| fs::remove_file(kept.join(name)).unwrap());
        for (name, text) in files_in(&fresh) {
            fs::write(kept.join(name), text).unwrap();
        }
    }
    let (kept, fresh) = (files_in(&kept), files_in(&fresh));
    let differ: Vec<_> = kept.keys().chain(fresh.keys()).filter(|name| kept.get(*name) != fresh.get(*name)).collect();
    assert!(differ.is_empty(), "{differ:?} are not what kafka-clients writes; MILLPOND_BLESS=1 writes them anew");
    assert_eq!(kept.len(), served.api_keys.len());
}

fn files_in(directory: &Path) -> BTreeMap<String, String> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// Every answer that raw clients got so far is read by kafka-clients to its last byte and written by it as the same bytes.
pub fn kafka_clients_write_what_was_heard(scratch: &Scratch) {
    let mut lines = String::new();
    for ((key, version), bodies) in HEARD.lock().unwrap().iter() {
        for body in bodies {
            write!(lines, "{key} {version} ").unwrap();
            body.iter().for_each(|byte| write!(lines, "{byte:02x}").unwrap());
            lines.push('\n');
        }
    }
    let file = scratch.write("heard.txt", &lines);
    let report = json_of(java_source("clients/Wire.java").arg("check").arg(file));
    assert!(report["checked"].as_u64().unwrap() > 100, "{report}");
    assert!(report["wrong"].as_array().unwrap().is_empty(), "{:#}", report["wrong"]);
}
