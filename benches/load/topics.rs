//! Topics: created before a phase, deleted after it.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use super::{ANSWER_MAX, client};
use crate::Outcome;
use crate::brokers::Product;

/// What a topic needs for `fsync`: Millpond's is of the process, Kafka's of the topic.
pub fn flush_each(product: Product, fsync: bool) -> &'static [(&'static str, &'static str)] {
    if fsync && product == Product::Kafka { &[("flush.messages", "1")] } else { &[] }
}

/// Creates topics with these settings.
///
/// # Errors
/// A topic was not created.
pub fn create_topics(bootstrap: &str, topics: &[&str], partitions: i32, settings: &[(&str, &str)]) -> Outcome<()> {
    let new = |name| {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
    };
    let topics: Vec<NewTopic<'_>> = topics.iter().map(|name| new(name)).collect();
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    let results = futures::executor::block_on(admin(bootstrap)?.create_topics(&topics, &options))?;
    match results.into_iter().find_map(Result::err) {
        Some((topic, code)) => Err(format!("topic {topic} was not created: {code}").into()),
        None => Ok(()),
    }
}

/// Deletes topics, so that the disk a run takes is bounded by one cell.
///
/// # Errors
/// A topic was not deleted.
pub fn delete_topics(bootstrap: &str, topics: &[&str]) -> Outcome<()> {
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_MAX));
    let results = futures::executor::block_on(admin(bootstrap)?.delete_topics(topics, &options))?;
    match results.into_iter().find_map(Result::err) {
        Some((topic, code)) => Err(format!("topic {topic} was not deleted: {code}").into()),
        None => Ok(()),
    }
}

fn admin(bootstrap: &str) -> Outcome<AdminClient<DefaultClientContext>> {
    Ok(client(bootstrap).create()?)
}
