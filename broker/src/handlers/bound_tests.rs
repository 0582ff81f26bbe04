//! What one small request may cost: it is bounded however often the request says the same, and however much there is.

use std::time::{Duration, Instant};

use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::tests::{Node, node};
use super::text;
use crate::NewTopic;
use crate::handlers::Reply;

/// Elements of a large request, of which 262,144 are the most.
const MANY: usize = 32_000;

fn topic_name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

/// Bytes of the answer.
async fn answer_bytes<Q: kafka_protocol::protocol::Request>(node: &Node, version: i16, request: &Q) -> usize {
    let (Reply::Now(chunks) | Reply::Held(chunks, _)) = node.call(version, request).await else { panic!("no reply") };
    chunks.iter().map(bytes::Bytes::len).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_shown_once_however_they_are_named() {
    let node = node().await;
    let asked = (0..10_000).map(|number| {
        let name = Some(TopicName(text(&format!("name-{number}"))));
        MetadataRequestTopic::default().with_topic_id(node.id).with_name(name)
    });
    let asked = MetadataRequest::default().with_topics(Some(asked.collect()));
    assert_eq!(node.ask(12, &asked).await.topics.len(), 1, "the id decides");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_bounded() {
    let node = node().await;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("t"))
        .with_configuration_keys(None);
    let asked = DescribeConfigsRequest::default()
        .with_resources(vec![resource; 20_000])
        .with_include_documentation(true)
        .with_include_synonyms(true);
    let bytes = answer_bytes(&node, 4, &asked).await;
    assert!(bytes < 16 << 20, "the memory for replies is 16 MiB, the answer has {bytes} bytes");
    let answer = node.ask(4, &asked).await.results;
    let last = answer.last().unwrap();
    assert_eq!((answer[0].error_code, answer.len()), (0, 20_000));
    assert!(last.error_code != 0 && last.error_message.as_ref().unwrap().contains("ask for less"));
}

/// How long a request takes, with what it is answered.
async fn timed<T>(answer: impl Future<Output = T>) -> (Duration, T) {
    let begun = Instant::now();
    let answer = answer.await;
    (begun.elapsed(), answer)
}

/// Times are compared with one another, as machines differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_grows_with_the_request_alone() {
    const SLACK: Duration = Duration::from_secs(1);
    let node = node().await;
    let named = |number: usize| TopicName(text(&format!("absent-{number}")));
    let moves = |count: usize| {
        let topics = (0..count)
            .map(|number| AlterReplicaLogDirTopic::default().with_name(named(number)).with_partitions(vec![0]));
        let path = StrBytes::from_static_str("/nowhere");
        let dir = AlterReplicaLogDir::default().with_path(path).with_topics(topics.collect());
        AlterReplicaLogDirsRequest::default().with_dirs(vec![dir])
    };
    let (quarter, _) = timed(node.ask(2, &moves(MANY / 4))).await;
    let (whole, moved) = timed(node.ask(2, &moves(MANY))).await;
    assert_eq!(moved.results.len(), MANY);
    assert!(whole < quarter * 9 + SLACK, "AlterReplicaLogDirs: a quarter took {quarter:?}, the whole {whole:?}");

    let asked = (0..50_000).map(|number| MetadataRequestTopic::default().with_name(Some(named(number))));
    let asked = MetadataRequest::default().with_topics(Some(asked.collect())).with_allow_auto_topic_creation(false);
    let (few, _) = timed(node.ask(12, &asked)).await;
    for number in 0..300 {
        let new = NewTopic { name: format!("topic_{number}"), partitions: 1, ..NewTopic::default() };
        node.context.broker.catalog().create(new).await.unwrap();
    }
    let (many, answer) = timed(node.ask(12, &asked)).await;
    assert_eq!(answer.topics.len(), 50_000);
    assert!(many < few * 5 + SLACK, "Metadata took {few:?} beside no topic, {many:?} beside 300");
    let collides = MetadataRequestTopic::default().with_name(Some(topic_name("topic.7")));
    let asked = MetadataRequest::default().with_topics(Some(vec![collides])).with_allow_auto_topic_creation(false);
    assert_eq!(node.ask(12, &asked).await.topics[0].error_code, 17);
}
