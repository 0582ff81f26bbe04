//! What clients may do, and how much of it: every API asks for a right, and says what a quota makes of a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::{
    ApiKey, CreateTopicsResponse, DeleteTopicsRequest, FetchRequest, FetchResponse, TopicName, fetch_request,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::tests::{reply, request};
use super::{Listening, serve};
use crate::handlers::samples::{TOPIC, decode_response, sample};
use crate::handlers::{APIS, encode};
use crate::security::SecurityRecord;
use crate::security::acl::{Acl, Operation, PatternType, Permission, ResourceType};
use crate::security::quota::{Entity, Limits, Part};
use crate::types::TopicId;
use crate::{BatchBuilder, Broker, BrokerConfig, Clock, ListenerConfig, NewTopic, SecurityConfig};

const NOW: i64 = 1_700_000_000_000;

struct Node {
    broker: Arc<Broker>,
    listening: Listening,
    id: TopicId,
    _dir: tempfile::TempDir,
}

/// A broker that asks ACLs, of which there are none, if `authorizer`.
async fn node(authorizer: bool) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let listener = ListenerConfig { name: "test".into(), bind: "127.0.0.1:0".into(), ..ListenerConfig::default() };
    let security = SecurityConfig { authorizer, ..SecurityConfig::default() };
    let config = BrokerConfig {
        data_dir: dir.path().to_owned(),
        listeners: vec![listener],
        group_initial_rebalance_delay_ms: 0,
        security,
        ..BrokerConfig::default()
    };
    let broker = Broker::open(config, Clock::manual(NOW)).await.unwrap();
    let new = NewTopic { name: TOPIC.to_owned(), partitions: 2, ..NewTopic::default() };
    let id = broker.catalog().create(new).await.unwrap().id();
    let listening = serve(broker.clone()).await.unwrap();
    Node { broker, listening, id, _dir: dir }
}

impl Node {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listening.addresses()[0]).await.unwrap()
    }

    /// One request on a connection of its own, and its answer's body.
    async fn body(&self, key: ApiKey, version: i16, body: &[u8]) -> Bytes {
        let mut stream = self.connect().await;
        stream.write_all(&request(key, version, 1, body)).await.unwrap();
        let mut reply = reply(&mut stream).await.unwrap_or_else(|| panic!("{key:?} {version}: no reply"));
        reply.advance(if key.response_header_version(version) >= 1 { 5 } else { 4 });
        reply
    }

    async fn told(&self, key: ApiKey, version: i16) -> String {
        let mut reply = self.body(key, version, &sample(key, version, self.id, &records(20))).await;
        let told = decode_response(key, version, &mut reply).unwrap();
        assert!(reply.is_empty(), "{key:?} {version}: {} bytes are left over", reply.len());
        told
    }

    async fn change(&self, records: Vec<SecurityRecord>) {
        self.broker.security().change(|_| Ok::<_, crate::Error>((records, ()))).await.unwrap();
    }

    async fn limit(&self, entity: Entity, name: &str, value: f64) {
        let mut limits = Limits::default();
        limits.set(name, Some(value)).unwrap();
        self.change(vec![SecurityRecord::Quota(entity, limits)]).await;
    }

    async fn end(self) {
        self.listening.stop().await;
        self.broker.stop().await.unwrap();
    }
}

fn records(value_bytes: usize) -> Bytes {
    let mut batch = BatchBuilder::new();
    batch.push(NOW, Some(b"key"), Some(&vec![7; value_bytes]), &[]);
    batch.build().unwrap().bytes().clone()
}

fn everybody() -> Entity {
    Entity { client_id: Some(Part::Default), ..Entity::default() }
}

/// Codes that say that somebody has no right: topic, group, cluster, transactional id.
fn refuses(told: &str) -> bool {
    [29, 30, 31, 53].iter().any(|code| told.contains(&format!("error_code: {code},")))
}

/// Those that answer everybody: with what everybody may know, or with only what the client may see; and those for tokens, which
/// nobody gets who has not logged in.
const OPEN: [ApiKey; 10] = [
    ApiKey::ListTransactions,
    ApiKey::ApiVersions,
    ApiKey::SaslHandshake,
    ApiKey::SaslAuthenticate,
    ApiKey::ListGroups,
    ApiKey::DescribeCluster,
    ApiKey::CreateDelegationToken,
    ApiKey::RenewDelegationToken,
    ApiKey::ExpireDelegationToken,
    ApiKey::DescribeDelegationToken,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_api_asks_for_a_right() {
    let node = node(true).await;
    for api in APIS {
        for version in api.min..=api.max {
            let told = node.told(api.key, version).await;
            // before version 3 DescribeLogDirs has no place for its error: it shows nothing
            let empty = api.key == ApiKey::DescribeLogDirs && version < 3 && told.contains("results: []");
            // ids are for version 12 on: the whole request is refused, whoever asks
            let by_id = api.key == ApiKey::Metadata && (10..12).contains(&version) && told.contains("error_code: 42");
            let expected = !OPEN.contains(&api.key) && !empty && !by_id;
            let next = "a handler calls Context::authorize (handlers/authorize.rs) first, or is listed in OPEN";
            assert_eq!(refuses(&told), expected, "{:?} {version}: {next}: {told}", api.key);
        }
    }
    assert_eq!(node.broker.catalog().topics().len(), 1, "nothing was created or deleted");
    let topic = node.broker.catalog().topic(TOPIC).unwrap();
    assert_eq!(topic.partition(0).unwrap().high_watermark(), 0, "nothing was written");
    let all = |kind, name: &str| {
        SecurityRecord::Acl(Acl {
            resource_type: kind,
            pattern: PatternType::Literal,
            name: name.into(),
            principal: "User:ANONYMOUS".into(),
            host: "*".into(),
            operation: Operation::All,
            permission: Permission::Allow,
        })
    };
    node.change(vec![
        all(ResourceType::Topic, "*"),
        all(ResourceType::Group, "*"),
        all(ResourceType::Cluster, "kafka-cluster"),
        all(ResourceType::TransactionalId, "*"),
    ])
    .await;
    for api in APIS {
        for version in api.min..=api.max {
            let told = node.told(api.key, version).await;
            assert!(!refuses(&told), "{:?} {version}: {told}", api.key);
        }
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_tells_how_long_to_be_still() {
    let node = node(false).await;
    node.limit(everybody(), "request_percentage", 1e-9).await;
    // their answers have no such field in any version
    let without = [ApiKey::SaslHandshake, ApiKey::SaslAuthenticate, ApiKey::ApiVersions];
    for api in APIS.iter().filter(|api| !without.contains(&api.key)) {
        // the newest version of each API has the field, but for some among brokers
        if matches!(api.key, ApiKey::WriteTxnMarkers | ApiKey::DescribeQuorum) {
            continue;
        }
        for version in api.min..=api.max {
            let told = node.told(api.key, version).await;
            let field = told.split_once("throttle_time_ms: ").unwrap_or_else(|| panic!("{:?}: {told}", api.key)).1;
            let throttle: i32 = field.split(',').next().unwrap().parse().unwrap();
            let newest = version == api.max;
            let said = if newest { throttle == 1_000 } else { throttle == 1_000 || throttle == 0 };
            assert!(said, "{:?} {version}: {told}", api.key);
        }
    }
    node.end().await;
}

/// The figures are Kafka's, to the millisecond: the clock stands still, so all bytes count over ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_is_held_to_its_rate() {
    let node = node(false).await;
    let body = sample(ApiKey::Produce, 9, node.id, &records(1_000));
    let frame_bytes = request(ApiKey::Produce, 9, 1, &body).len() as f64 - 4.0;
    // two requests in ten seconds are allowed, and a bit
    let bound = (frame_bytes * 2.1 / 10.0).round();
    let user = Entity { user: Some(Part::Named("ANONYMOUS".into())), ..Entity::default() };
    node.limit(user, "producer_byte_rate", bound).await;
    let mut stream = node.connect().await;
    let mut throttles = Vec::new();
    let mut begun = Instant::now();
    for _ in 0..3 {
        stream.write_all(&request(ApiKey::Produce, 9, 1, &body)).await.unwrap();
        let mut reply = reply(&mut stream).await.unwrap();
        reply.advance(5);
        let told = decode_response(ApiKey::Produce, 9, &mut reply).unwrap();
        let throttle = told.split_once("throttle_time_ms: ").unwrap().1.split(',').next().unwrap();
        throttles.push(throttle.parse::<i64>().unwrap());
        assert!(told.contains("error_code: 0,") && begun.elapsed() < Duration::from_secs(3), "answered at once");
    }
    let rate = frame_bytes * 3.0 / 10.0;
    assert_eq!(throttles, [0, 0, ((rate - bound) / bound * 10_000.0).round() as i64]);
    begun = Instant::now();
    let mut other = node.connect().await;
    other.write_all(&request(ApiKey::ApiVersions, 0, 1, &[])).await.unwrap();
    assert!(reply(&mut other).await.is_some(), "others are served");
    stream.write_all(&request(ApiKey::ApiVersions, 0, 1, &[])).await.unwrap();
    let answered = tokio::time::timeout(Duration::from_millis(500), reply(&mut stream)).await;
    assert!(answered.is_err(), "nothing more is read for {} ms, {:?} passed", throttles[2], begun.elapsed());
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_is_held_to_its_rate() {
    let node = node(false).await;
    for _ in 0..3 {
        node.body(ApiKey::Produce, 9, &sample(ApiKey::Produce, 9, node.id, &records(1_000))).await;
    }
    let batch_bytes = records(1_000).len();
    // an answer may have as many bytes as ten seconds allow: one batch and a bit
    node.limit(everybody(), "consumer_byte_rate", (batch_bytes as f64 * 1.5 / 10.0).round()).await;
    let partition = fetch_request::FetchPartition::default().with_partition(0).with_partition_max_bytes(1 << 20);
    let topic = fetch_request::FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![partition]);
    let body = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![topic]);
    let body = encode(11, &body).unwrap();
    let mut answers = Vec::new();
    for _ in 0..3 {
        let mut reply = node.body(ApiKey::Fetch, 11, &body).await;
        let bytes = reply.len();
        let answer = FetchResponse::decode(&mut reply, 11).unwrap();
        answers.push((answer.throttle_time_ms, answer.responses.len(), bytes));
    }
    let bytes = batch_bytes as f64;
    assert!(answers[0].2 > batch_bytes && answers[0].2 < 2 * batch_bytes, "one batch: {answers:?}");
    let bound = (batch_bytes as f64 * 1.5 / 10.0).round();
    let throttle = ((2.0 * bytes / 10.0 - bound) / bound * 10_000.0).round() as i32;
    assert_eq!((answers[0].0, answers[0].1), (0, 1));
    assert_eq!((answers[1].0, answers[1].1), (throttle, 0), "nothing is sent, so nothing counts");
    assert_eq!((answers[2].0, answers[2].1), (throttle, 0), "and the same holds again");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_held_to_their_rate() {
    let node = node(false).await;
    let ip = Entity { ip: Some(Part::Named("127.0.0.1".into())), ..Entity::default() };
    node.limit(ip, "connection_creation_rate", 1.0).await;
    let mut served = 0;
    for _ in 0..12 {
        let mut stream = node.connect().await;
        stream.write_all(&request(ApiKey::ApiVersions, 0, 1, &[])).await.unwrap();
        let answered = tokio::time::timeout(Duration::from_millis(500), reply(&mut stream)).await;
        served += usize::from(matches!(answered, Ok(Some(_))));
    }
    assert_eq!(served, 10, "ten seconds' worth at once, then they are held");
    node.end().await;
}

/// Throttle time and code of one CreateTopics.
async fn made(node: &Node, version: i16, name: &'static str, partitions: i32) -> (i32, i16) {
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let body = encode(version, &CreateTopicsRequest::default().with_topics(vec![topic])).unwrap();
    let mut reply = node.body(ApiKey::CreateTopics, version, &body).await;
    let answer = CreateTopicsResponse::decode(&mut reply, version).unwrap();
    (answer.throttle_time_ms, answer.topics[0].error_code)
}

/// KIP-599: eleven seconds' worth at once, and one request more; then who knows the limit has to wait, and others are served and
/// made to be still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_made_and_deleted_at_their_rate() {
    const EXCEEDED: i16 = 89;
    let node = node(false).await;
    node.limit(everybody(), "controller_mutation_rate", 2.0).await;
    assert_eq!(made(&node, 7, "a", 21).await, (0, 0));
    assert_eq!(made(&node, 7, "a", 21).await, (0, 36), "what cannot be is not counted");
    assert_eq!(made(&node, 7, "b", 4).await, (0, 0));
    assert_eq!(made(&node, 7, "c", 1).await, (1_500, EXCEEDED), "three too many at two a second");
    assert_eq!(made(&node, 6, "c", 1).await, (1_500, EXCEEDED));
    assert_eq!(made(&node, 5, "c", 1).await, (2_000, 0));
    let name = |name| TopicName(StrBytes::from_static_str(name));
    let gone = |version| encode(version, &DeleteTopicsRequest::default().with_topic_names(vec![name("a")])).unwrap();
    let asked = MetadataRequestTopic::default().with_name(Some(name("e")));
    let asked = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(true);
    let grown = |version| sample(ApiKey::CreatePartitions, version, node.id, &Bytes::new());
    for (key, version, body, code) in [
        (ApiKey::CreatePartitions, 2, grown(2), 0),
        (ApiKey::CreatePartitions, 3, grown(3), EXCEEDED),
        (ApiKey::DeleteTopics, 5, gone(5), EXCEEDED),
        (ApiKey::DeleteTopics, 4, gone(4), 0),
        (ApiKey::Metadata, 9, encode(9, &asked).unwrap(), 3),
    ] {
        let mut reply = node.body(key, version, &body).await;
        let told = decode_response(key, version, &mut reply).unwrap();
        assert!(told.contains(&format!("error_code: {code},")), "{key:?} {version}: {told}");
        let still = !told.contains("throttle_time_ms: 0,");
        assert_eq!(still, key != ApiKey::Metadata, "{key:?} {version}: {told}");
    }
    assert!(node.broker.catalog().topic("a").is_none());
    node.limit(everybody(), "request_percentage", 1_000.0).await;
    assert_eq!(made(&node, 7, "d", 1).await, (0, 0), "without the limit");
    node.end().await;
}
