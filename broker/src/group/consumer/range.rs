//! The range assignor: each topic's partitions in order, cut into runs of neighbours for its subscribers in order. Static
//! members come first, by their names, so that a restart changes nothing.

use std::collections::BTreeMap;

use super::Partitions;
use super::assignor::{Subscriber, Subscriptions};
use crate::group::state::MemberId;

pub(super) fn assign(group: &Subscriptions) -> BTreeMap<MemberId, Partitions> {
    let mut members: Vec<(&MemberId, &Subscriber)> = group.members.iter().collect();
    members.sort_by_key(|(id, member)| (member.instance_id.is_none(), member.instance_id.clone(), (*id).clone()));
    let mut targets: BTreeMap<MemberId, Partitions> =
        members.iter().map(|(id, _)| ((*id).clone(), Partitions::new())).collect();
    for (topic, count) in &group.topics {
        let readers: Vec<&MemberId> =
            members.iter().filter(|(_, member)| member.topics.contains(topic)).map(|(id, _)| *id).collect();
        let Ok(shares) = i32::try_from(readers.len()) else { continue };
        if shares == 0 {
            continue;
        }
        let (least, more) = (count / shares, count % shares);
        let mut from = 0;
        for (place, id) in (0..).zip(readers) {
            let to = from + least + i32::from(place < more);
            if from < to
                && let Some(target) = targets.get_mut(id)
            {
                target.insert(*topic, (from..to).collect());
            }
            from = to;
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::assignor::Assignor;
    use super::*;
    use crate::types::TopicId;

    /// (name, static name, topics) of members, partitions of topics 1, 2 … → "name: topic/from-to …" per member.
    fn ranges(members: &[(&str, Option<&str>, &[u128])], counts: &[i32]) -> Vec<String> {
        let subscriber = |(name, instance, topics): &(&str, Option<&str>, &[u128])| {
            let topics: BTreeSet<TopicId> = topics.iter().map(|number| TopicId::from_u128(*number)).collect();
            let subscriber = Subscriber { instance_id: instance.map(Into::into), topics, target: Partitions::new() };
            ((*name).into(), subscriber)
        };
        let topics = (1..).zip(counts).map(|(number, count)| (TopicId::from_u128(number), *count)).collect();
        let group = Subscriptions { members: members.iter().map(subscriber).collect(), topics };
        let shown = |(id, target): (MemberId, Partitions)| {
            let topics = target.iter().map(|(topic, partitions)| {
                format!(" {}/{}-{}", topic.as_u128(), partitions.first().unwrap(), partitions.last().unwrap())
            });
            format!("{id}:{}", topics.collect::<String>())
        };
        Assignor::Range.assign(&group).into_iter().map(shown).collect()
    }

    #[test]
    fn topics_are_cut_into_runs() {
        let both: &[u128] = &[1, 2];
        type Members<'a> = &'a [(&'a str, Option<&'a str>, &'a [u128])];
        let cases: &[(Members<'_>, &[i32], &[&str])] = &[
            (&[("a", None, both), ("b", None, both)], &[3, 3], &["a: 1/0-1 2/0-1", "b: 1/2-2 2/2-2"]),
            (&[("a", None, both), ("b", None, &[2])], &[3, 3], &["a: 1/0-2 2/0-1", "b: 2/2-2"]),
            (&[("a", None, &[1]), ("b", None, &[1]), ("c", None, &[1])], &[2], &["a: 1/0-0", "b: 1/1-1", "c:"]),
            // static members first, by their names, whatever their ids
            (
                &[("a", Some("2"), &[1]), ("b", Some("1"), &[1]), ("c", None, &[1])],
                &[4],
                &["a: 1/2-2", "b: 1/0-1", "c: 1/3-3"],
            ),
            (&[("a", None, &[])], &[], &["a:"]),
            (&[], &[4], &[]),
        ];
        for (members, counts, expected) in cases {
            assert_eq!(ranges(members, counts), *expected);
        }
    }
}
