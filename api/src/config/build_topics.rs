//! Topics that exist once the server is ready: those under `[[topics]]`, and the list of `broker.create_topics`.

use super::TopicDeclaration;
use super::build::{small, text};
use super::mistake::Mistakes;
use super::value::Entry;

/// Kafka's name for how long records stay.
const RETENTION: &str = "retention.ms";
/// Most partitions of a topic.
const PARTITIONS_MAX: i32 = 10_000;

/// Every declared topic; the list is stronger where it names one of them.
pub(super) fn topics(lists: &Entry, broker: &Entry, mistakes: &mut Mistakes) -> Vec<TopicDeclaration> {
    let clamped = broker.bool("clamp_replication");
    let declared = lists.tables("topics").iter();
    let mut topics: Vec<TopicDeclaration> = declared.map(|entry| topic(entry, clamped, mistakes)).collect();
    let list = broker.text_or_none("create_topics").unwrap_or_default();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match listed(item) {
            Ok((name, partitions)) => match topics.iter_mut().find(|topic| topic.name == name) {
                Some(topic) => topic.partitions = partitions,
                None => topics.push(TopicDeclaration { name, partitions, replication: 1, ..Default::default() }),
            },
            Err(why) => {
                let message = format!("{item:?} {why}; write NAME:PARTITIONS or NAME:PARTITIONS:1");
                mistakes.add(&broker.place("create_topics"), broker.path_of("create_topics"), message);
            }
        }
    }
    topics
}

/// `NAME:PARTITIONS`, and the number of copies, which is 1 for one broker.
fn listed(item: &str) -> Result<(String, i32), &'static str> {
    let mut parts = item.split(':');
    let name = parts.next().filter(|name| !name.is_empty()).ok_or("has no name")?;
    let partitions =
        parts.next().and_then(|text| text.parse().ok()).filter(|count| (1..=PARTITIONS_MAX).contains(count));
    let partitions = partitions.ok_or("does not say how many partitions from 1 to 10000")?;
    match (parts.next(), parts.next()) {
        (None | Some("1"), None) => Ok((name.to_owned(), partitions)),
        (Some(_), None) => Err("asks for copies on brokers that are not there"),
        _ => Err("has too many parts"),
    }
}

fn topic(entry: &Entry, clamped: bool, mistakes: &mut Mistakes) -> TopicDeclaration {
    let mut config = entry.map("config");
    if let Some(retention_ms) = entry.integer_or_none("retention")
        && config.insert(RETENTION.to_owned(), retention_ms.to_string()).is_some()
    {
        mistakes.add(
            &entry.place("retention"),
            entry.path_of("retention"),
            "is given in config as well: take one away",
        );
    }
    let topic = TopicDeclaration {
        name: text(entry, "name"),
        partitions: small(entry, "partitions"),
        replication: small(entry, "replication"),
        config,
    };
    if topic.replication > 1 && !clamped {
        let text = "is larger than the number of brokers, 1: ask for 1, or set broker.clamp_replication = true to be content with one copy";
        mistakes.add(&entry.place("replication"), entry.path_of("replication"), text);
    }
    if let Err(error) = broker::TopicConfig::parse(&topic.config) {
        mistakes.add(&entry.place("config"), entry.path_of("config"), error.message);
    }
    topic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_the_list_say_name_and_partitions() {
        assert_eq!(listed("a:3:1"), Ok(("a".to_owned(), 3)));
        assert_eq!(listed("a.b-c:12"), Ok(("a.b-c".to_owned(), 12)));
        for (item, why) in
            [(":3", "no name"), ("a", "partitions"), ("a:0:1", "partitions"), ("a:1:2", "copies"), ("a:1:1:1", "parts")]
        {
            assert!(listed(item).unwrap_err().contains(why), "{item}");
        }
    }
}
