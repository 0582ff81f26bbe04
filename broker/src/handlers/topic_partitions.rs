//! DescribeTopicPartitions (75), version 0: topics page by page (KIP-966).
//!
//! - Topics in the order of their names; an empty list asks for all. A page has at most as many partitions as the request
//!   and `max.request.partition.size.limit` allow; `next_cursor` names the partition that the next page begins with.
//! - A cursor must name one of the topics that are asked for, and a partition from 0 on: otherwise INVALID_REQUEST for each
//!   topic, and for none when all are asked for.
//! - A name that is not there has its own code and takes no place on the page.

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};

use super::{Context, Reply, text};
use crate::catalog::{Topic, check_name};
use crate::error::{Error, Kind, Result};
use crate::security::acl::{Operation, Resource};

/// Where a page begins.
struct Page {
    topic: String,
    partition: usize,
    /// Partitions that still fit.
    left: usize,
}

/// Answers DescribeTopicPartitions.
pub(crate) fn describe_topic_partitions(
    context: &Context,
    version: i16,
    request: DescribeTopicPartitionsRequest,
) -> Reply {
    let response = match first_page(context, &request) {
        Ok(page) => answer(context, &request, page),
        Err(error) => {
            let refused = request.topics.iter().map(|asked| missing(&asked.name, error.kind.code()));
            DescribeTopicPartitionsResponse::default().with_topics(refused.collect()).with_next_cursor(None)
        }
    };
    Reply::message(version, &response)
}

fn first_page(context: &Context, request: &DescribeTopicPartitionsRequest) -> Result<Page> {
    let most = context.broker.settings().whole("max.request.partition.size.limit");
    let left = i64::from(request.response_partition_limit).min(most).max(1);
    let left = usize::try_from(left).expect("from 1 to 32 bits");
    let Some(cursor) = &request.cursor else { return Ok(Page { topic: String::new(), partition: 0, left }) };
    let asked = request.topics.is_empty() || request.topics.iter().any(|topic| topic.name == cursor.topic_name);
    let refused = |what: &str| Err(Error::new(Kind::InvalidRequest, format!("the cursor's {what}")));
    if !asked {
        return refused("topic is not among those that are asked for");
    }
    match usize::try_from(cursor.partition_index) {
        Ok(partition) => Ok(Page { topic: cursor.topic_name.to_string(), partition, left }),
        Err(_) => refused("partition is below 0"),
    }
}

fn answer(context: &Context, request: &DescribeTopicPartitionsRequest, page: Page) -> DescribeTopicPartitionsResponse {
    let catalog = context.broker.catalog();
    let mut names: Vec<String> = if request.topics.is_empty() {
        let allowed = |name: &str| context.may(Operation::Describe, Resource::Topic(name));
        catalog.topics().iter().map(|topic| topic.name().to_string()).filter(|name| allowed(name)).collect()
    } else {
        request.topics.iter().map(|asked| asked.name.to_string()).collect()
    };
    names.retain(|name| *name >= page.topic);
    names.sort_unstable();
    names.dedup();
    let node = BrokerId(context.broker.config().node_id);
    let mut left = page.left;
    let mut topics = Vec::new();
    let mut next = None;
    for name in names {
        if left == 0 {
            next = Some(cursor(&name, 0));
            break;
        }
        if let Err(denied) = context.authorize(Operation::Describe, Resource::Topic(&name)) {
            topics.push(missing(&TopicName(text(&name)), denied.kind.code()));
            continue;
        }
        let Some(topic) = catalog.topic(&name) else {
            let code =
                check_name(&name).map_or_else(|error| error.kind.code(), |()| Kind::UnknownTopicOrPartition.code());
            topics.push(missing(&TopicName(text(&name)), code));
            continue;
        };
        let from = if name == page.topic { page.partition } else { 0 };
        let count = topic.partitions().len();
        let to = count.min(from.saturating_add(left));
        topics.push(shown(context, (&topic, node), from..to.max(from)));
        left -= to.saturating_sub(from);
        if to < count {
            next = Some(cursor(&name, to));
            break;
        }
    }
    DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(next)
}

fn shown(
    context: &Context,
    (topic, node): (&Topic, BrokerId),
    page: std::ops::Range<usize>,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions();
    let on_page = partitions.iter().skip(page.start).take(page.len()).map(|partition| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(partition.index())
            .with_leader_id(node)
            .with_leader_epoch(partition.leader_epoch())
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name()))))
        .with_topic_id(topic.id())
        .with_is_internal(topic.is_internal())
        .with_partitions(on_page.collect())
        .with_topic_authorized_operations(context.operations(Resource::Topic(topic.name())))
}

fn missing(name: &TopicName, code: i16) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default().with_name(Some(name.clone())).with_error_code(code)
}

fn cursor(topic: &str, partition: usize) -> Cursor {
    let partition = i32::try_from(partition).expect("a topic has at most 2^31 partitions");
    Cursor::default().with_topic_name(TopicName(text(topic))).with_partition_index(partition)
}
