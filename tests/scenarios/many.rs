//! Requests that ask for several at once, where those of `calls` ask for one.

use super::calls::{fetched, topic_name};
use crate::support::raw::Client;
use kafka_protocol::messages::*;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum ManyCall {
    /// Fetch of several partitions without a session, up to version 12.
    FetchMany {
        version: i16,
        #[serde(default = "one")]
        min_bytes: i32,
        #[serde(default = "a_mebibyte")]
        max_bytes: i32,
        #[serde(default)]
        wait_ms: i32,
        partitions: Vec<Wanted>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    topic: String,
    #[serde(default)]
    partition: i32,
    offset: i64,
    #[serde(default = "minus_one")]
    last_fetched_epoch: i32,
    #[serde(default = "a_mebibyte")]
    max_bytes: i32,
}

fn one() -> i32 {
    1
}
fn minus_one() -> i32 {
    -1
}
fn a_mebibyte() -> i32 {
    1 << 20
}

/// Whether a step is one of these.
pub fn is_here(request: &toml::Value) -> bool {
    request["call"].as_str() == Some("fetch_many")
}

impl ManyCall {
    pub fn send(self, client: &mut Client) -> Result<Value, String> {
        let ManyCall::FetchMany { version, min_bytes, max_bytes, wait_ms, partitions } = self;
        let mut topics: Vec<fetch_request::FetchTopic> = Vec::new();
        for wanted in partitions {
            let name = topic_name(&wanted.topic);
            let mut partition = fetch_request::FetchPartition::default()
                .with_partition(wanted.partition)
                .with_fetch_offset(wanted.offset)
                .with_partition_max_bytes(wanted.max_bytes);
            if version >= 12 {
                partition.last_fetched_epoch = wanted.last_fetched_epoch;
            }
            match topics.last_mut().filter(|last| last.topic == name) {
                Some(last) => last.partitions.push(partition),
                None => {
                    topics.push(fetch_request::FetchTopic::default().with_topic(name).with_partitions(vec![partition]));
                }
            }
        }
        let mut request = FetchRequest::default()
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(min_bytes)
            .with_max_bytes(max_bytes)
            .with_topics(topics);
        if version >= 7 {
            request = request.with_session_id(0).with_session_epoch(-1);
        }
        fetched(client.call(&request, version)?, false)
    }
}
