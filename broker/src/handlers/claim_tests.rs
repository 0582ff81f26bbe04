//! What clients are told of topics that somebody claims.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::*;

use super::tests::{Node, batch, name, node, produce_request};
use crate::{Claim, Usage};

async fn claim(node: &Node, topics: &[(&str, Usage)]) {
    let claim = |(topic, usage): &(&str, Usage)| Claim {
        topic: (*topic).into(),
        usage: *usage,
        owner: "view v".into(),
        release: "DROP MATERIALIZED VIEW v".into(),
    };
    node.context.broker.catalog().claim(topics.iter().map(claim).collect()).await;
}

async fn delete(node: &Node, version: i16, topic: &'static str) -> (i16, Option<String>) {
    let request = DeleteTopicsRequest::default();
    let request = match version {
        6.. => request.with_topics(vec![DeleteTopicState::default().with_name(Some(name(topic)))]),
        _ => request.with_topic_names(vec![name(topic)]),
    };
    let mut response = node.ask(version, &request).await;
    let answer = response.responses.remove(0);
    (answer.error_code, answer.error_message.map(|message| message.to_string()))
}

#[tokio::test]
async fn a_topic_that_is_needed_is_not_deleted() {
    let node = node().await;
    claim(&node, &[("t", Usage::Reads), ("small", Usage::Writes)]).await;
    for version in 1..=6 {
        let code = if version < 3 { 44 } else { 73 };
        let reads = "topic t cannot be deleted: view v reads it (first DROP MATERIALIZED VIEW v)";
        assert_eq!(delete(&node, version, "t").await, (code, (version >= 5).then(|| reads.to_owned())));
        assert_eq!(delete(&node, version, "small").await.0, code);
    }
    let by_id = DeleteTopicState::default().with_name(None).with_topic_id(node.id);
    let response = node.ask(6, &DeleteTopicsRequest::default().with_topics(vec![by_id])).await;
    assert_eq!(response.responses[0].error_code, 73);
    assert_eq!(delete(&node, 5, "compacted").await, (0, None), "nobody needs it");
    claim(&node, &[]).await;
    assert_eq!(delete(&node, 6, "t").await, (0, None));
}

#[tokio::test]
async fn only_its_owner_writes_to_a_topic() {
    let node = node().await;
    let produced = async |version, topic: &'static str| {
        let mut request = produce_request(-1, topic, 0, Some(batch(1, 5)));
        let id = node.context.broker.catalog().topic(topic).unwrap().id();
        if version >= 13 {
            request.topic_data[0].name = TopicName::default();
            request.topic_data[0].topic_id = id;
        }
        let mut response = node.ask(version, &request).await;
        let answer = response.responses.remove(0).partition_responses.remove(0);
        (answer.error_code, answer.base_offset, answer.error_message.map(|message| message.to_string()))
    };
    claim(&node, &[("t", Usage::Reads), ("small", Usage::Writes), ("compacted", Usage::WritesByKey)]).await;
    let alone = "topic small is written by view v alone; send records to what that is computed from";
    for (version, at) in (3..=13).zip(0..) {
        assert_eq!(produced(version, "t").await, (0, at, None), "all may write to what is only read");
        let message = (version >= 8).then(|| alone.to_owned());
        assert_eq!(produced(version, "small").await, (17, -1, message), "version {version}");
        assert_eq!(produced(version, "compacted").await.0, 17);
    }
    claim(&node, &[]).await;
    assert_eq!(produced(9, "small").await, (0, 0, None), "nothing was written before");
}

#[tokio::test]
async fn a_view_keeps_its_partitions() {
    let node = node().await;
    claim(&node, &[("t", Usage::Writes), ("compacted", Usage::WritesByKey)]).await;
    for validate_only in [true, false] {
        let grow = |topic: &'static str| {
            CreatePartitionsTopic::default().with_name(name(topic)).with_count(3).with_assignments(None)
        };
        let asked = vec![grow("t"), grow("compacted")];
        let request = CreatePartitionsRequest::default().with_topics(asked).with_validate_only(validate_only);
        let results = node.ask(3, &request).await.results;
        let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [0, 44]);
        assert!(results[1].error_message.as_ref().unwrap().contains("view v writes the latest record of each key"));
    }
    let partitions = |topic| node.context.broker.catalog().topic(topic).unwrap().partitions().len();
    assert_eq!((partitions("t"), partitions("compacted")), (3, 1));
}
