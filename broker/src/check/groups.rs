//! Consumer groups: what is stored of them can be read, and their offsets are of records that there are or were.

use super::finding::{Kind, Place, Remedy};
use super::{Check, Logs};
use crate::error::Result;
use crate::group::consumer;
use crate::group::records::{self, GroupRecord, Key};
use crate::store::Family;
use crate::types::{Offset, PartitionIndex, TopicId};

const GROUP_DAMAGED: Kind = Kind::wrong("group damaged", Remedy::Restore);
const OFFSET_WRONG: Kind = Kind::wrong("offset never written", Remedy::CommitAgain);
const TOPIC_GONE: Kind = Kind::note("offset of a deleted topic", Remedy::NextStart);

/// An offset that a group has.
struct Held {
    group: String,
    topic: TopicId,
    partition: PartitionIndex,
    offset: Offset,
}

/// Checks all groups.
pub(super) fn check(check: &mut Check<'_>, logs: &Logs) {
    check.each(Family::Groups, (&[], &[0xff]), |check, key, value| match read(key, value) {
        Ok(Some(held)) => judge(check, logs, &held),
        Ok(None) => {}
        Err(error) => check.add(GROUP_DAMAGED, Place::named("a group"), error.message),
    });
}

fn read(key: &[u8], value: &[u8]) -> Result<Option<Held>> {
    let (group, topic, partition) = match records::decode_key(key)? {
        Key::Group(_) => return GroupRecord::decode(value).map(|_| None),
        Key::Consumer => return consumer::records::decode(key, value).map(|_| None),
        Key::Offset(group, topic, partition) | Key::Pending(group, _, topic, partition) => (group, topic, partition),
    };
    let offset = records::decode_offset(value)?.offset;
    Ok(Some(Held { group: group.to_string(), topic, partition, offset }))
}

fn judge(check: &mut Check<'_>, logs: &Logs, held: &Held) {
    let group = format!("group {}", held.group);
    let Some(topic) = logs.of_topic(held.topic) else {
        let what = format!("offset {} in partition {} of topic id {}", held.offset, held.partition, held.topic);
        return check.add(TOPIC_GONE, Place::named(group), what);
    };
    let log = usize::try_from(held.partition).ok().and_then(|partition| topic.get(partition));
    let Some(span) = log.and_then(|log| logs.span(*log)) else {
        let what = format!("offset {} in partition {}, which its topic does not have", held.offset, held.partition);
        return check.add(OFFSET_WRONG, Place::named(group), what);
    };
    if held.offset < 0 || held.offset > span.end {
        let place = Place::offsets(&span.topic, span.partition, held.offset, held.offset).of(group);
        check.add(OFFSET_WRONG, place, format!("the log ends at {}", span.end));
    }
}
