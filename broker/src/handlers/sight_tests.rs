//! What a client may not see, no answer tells: in whatever else it asks for.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::*;

use super::tests::{Node, node_with};
use super::text;
use crate::security::SecurityRecord;
use crate::security::acl::tests::acl;
use crate::security::session::Session;
use crate::{Principal, SecurityConfig};

/// A broker with ACLs for bob, whom root may do everything beside; root asks.
async fn node(rules: &[&str]) -> Node {
    let super_users = vec!["User:root".to_owned()];
    let mut node = node_with(SecurityConfig { authorizer: true, super_users, ..SecurityConfig::default() }).await;
    let records = rules.iter().map(|rule| SecurityRecord::Acl(acl(rule))).collect();
    node.context.broker.security().change(|_| Ok::<_, crate::Error>((records, ()))).await.unwrap();
    asks(&mut node, "root");
    node
}

fn asks(node: &mut Node, who: &str) {
    node.context.session = Arc::new(Session::open(Principal::user(who)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_do_not_tell_topics() {
    let rules =
        ["allow transactional-id literal tx User:bob * describe", "allow topic literal small User:bob * describe"];
    let mut node = node(&rules).await;
    let id = TransactionalId(text("tx"));
    let begun =
        InitProducerIdRequest::default().with_transactional_id(Some(id.clone())).with_transaction_timeout_ms(9_000);
    let begun = node.ask(4, &begun).await;
    let topics = ["t", "small"]
        .map(|name| AddPartitionsToTxnTopic::default().with_name(TopicName(text(name))).with_partitions(vec![0]));
    let added = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id.clone())
        .with_v3_and_below_producer_id(begun.producer_id)
        .with_v3_and_below_producer_epoch(begun.producer_epoch)
        .with_v3_and_below_topics(topics.to_vec());
    node.ask(3, &added).await;
    let asked = DescribeTransactionsRequest::default().with_transactional_ids(vec![id]);
    for (who, topics) in [("root", 2), ("bob", 1)] {
        asks(&mut node, who);
        let state = node.ask(0, &asked).await.transaction_states.remove(0);
        assert_eq!((state.error_code, state.topics.len()), (0, topics), "{who}");
        assert!(state.topics.iter().any(|topic| *topic.topic.0 == *"small"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regular_expressions_stand_for_what_the_member_may_see() {
    let rules = ["allow group prefixed g User:bob * read", "allow topic literal small User:bob * describe"];
    let mut node = node(&rules).await;
    let small = node.context.broker.catalog().topic("small").unwrap().id();
    for (who, count) in [("bob", 1), ("root", 3)] {
        asks(&mut node, who);
        let beat = |epoch: i32| {
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(GroupId(text(&format!("g-{who}"))))
                .with_member_id(text("m"))
                .with_member_epoch(epoch)
                .with_rebalance_timeout_ms(if epoch == 0 { 10_000 } else { -1 })
                .with_subscribed_topic_regex((epoch == 0).then(|| text(".*")))
                .with_topic_partitions((epoch == 0).then(Vec::new))
        };
        let mut answer = node.ask(1, &beat(0)).await;
        let mut assigned = Vec::new();
        for _ in 0..200 {
            assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
            let news = answer.assignment.map(|assignment| assignment.topic_partitions).unwrap_or_default();
            assigned.extend(news.into_iter().map(|topic| topic.topic_id));
            if !assigned.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer = node.ask(1, &beat(answer.member_epoch)).await;
        }
        assert_eq!(assigned.len(), count, "{who}");
        assert!(assigned.contains(&small));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_see_a_group_learns_nothing_of_its_members() {
    let mut node = node(&[]).await;
    let joined = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(text("m"))
        .with_rebalance_timeout_ms(10_000)
        .with_subscribed_topic_names(Some(vec![TopicName(text("t"))]))
        .with_topic_partitions(Some(Vec::new()));
    assert_eq!(node.ask(0, &joined).await.error_code, 0);
    asks(&mut node, "bob");
    for member in ["m", "stranger"] {
        let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(None);
        let group = group.with_member_id(Some(text(member))).with_member_epoch(77);
        let answer = node.ask(9, &OffsetFetchRequest::default().with_groups(vec![group])).await;
        assert_eq!(answer.groups[0].error_code, 30, "{member}");
    }
}
