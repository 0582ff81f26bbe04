//! The uniform assignor: members keep what they had; what is free goes to whoever has least; then partitions move from
//! members that have more to members that have less, until no subscriber of a topic has two fewer than one that reads it.
//! With equal subscriptions nobody then has more than one partition more than anybody else.

use std::collections::{BTreeMap, BTreeSet};

use super::Partitions;
use super::assignor::Subscriptions;
use crate::group::state::MemberId;
use crate::types::{PartitionIndex, TopicId};

/// Most rounds over all topics: subscriptions that differ may need many to become even, and nearly even is enough.
const ROUNDS_MAX: usize = 16;

pub(super) fn assign(group: &Subscriptions) -> BTreeMap<MemberId, Partitions> {
    let mut shares = Shares::of(group);
    shares.give_what_is_free();
    for _ in 0..ROUNDS_MAX {
        if !shares.even_out() {
            break;
        }
    }
    let targets = (0..).zip(group.members.keys()).map(|(member, id)| (id.clone(), shares.target(member)));
    targets.collect()
}

/// Place of a member in the order of ids.
type Place = usize;

struct Topic {
    id: TopicId,
    readers: Vec<Place>,
    owners: Vec<Option<Place>>,
}

/// Who has what, while it is being changed.
struct Shares {
    /// Those with the fewest readers first: they have the least choice.
    topics: Vec<Topic>,
    counts: Vec<usize>,
}

impl Shares {
    fn of(group: &Subscriptions) -> Self {
        let mut shares = Self { topics: Vec::new(), counts: vec![0; group.members.len()] };
        let members = || (0..).zip(group.members.values());
        for (id, count) in &group.topics {
            let readers: Vec<Place> =
                members().filter(|(_, m)| m.topics.contains(id)).map(|(place, _)| place).collect();
            let mut owners = vec![None; usize::try_from(*count).unwrap_or(0)];
            for (place, member) in members().filter(|(_, member)| member.topics.contains(id)) {
                for partition in member.target.get(id).into_iter().flatten() {
                    let slot = usize::try_from(*partition).ok().and_then(|index| owners.get_mut(index));
                    if let Some(slot) = slot.filter(|slot| slot.is_none()) {
                        *slot = Some(place);
                        shares.counts[place] += 1;
                    }
                }
            }
            if !readers.is_empty() {
                shares.topics.push(Topic { id: *id, readers, owners });
            }
        }
        shares.topics.sort_by_key(|topic| (topic.readers.len(), topic.id));
        shares
    }

    fn give_what_is_free(&mut self) {
        let counts = &mut self.counts;
        for topic in &mut self.topics {
            let mut by_count: BTreeSet<(usize, Place)> =
                topic.readers.iter().map(|place| (counts[*place], *place)).collect();
            for slot in topic.owners.iter_mut().filter(|slot| slot.is_none()) {
                let Some((count, place)) = by_count.pop_first() else { break };
                *slot = Some(place);
                counts[place] = count + 1;
                by_count.insert((count + 1, place));
            }
        }
    }

    /// One round over all topics. Whether anything moved.
    fn even_out(&mut self) -> bool {
        let mut moved = false;
        for topic in &mut self.topics {
            moved |= even_out_topic(topic, &mut self.counts);
        }
        moved
    }

    fn target(&self, place: Place) -> Partitions {
        let mut target = Partitions::new();
        for topic in &self.topics {
            let own = (0..).zip(&topic.owners).filter(|(_, owner)| **owner == Some(place));
            let own: BTreeSet<PartitionIndex> = own.map(|(partition, _)| partition).collect();
            if !own.is_empty() {
                target.insert(topic.id, own);
            }
        }
        target
    }
}

/// Moves partitions of one topic from those of its readers that have most to those that have least.
fn even_out_topic(topic: &mut Topic, counts: &mut [usize]) -> bool {
    let mut by_count: BTreeSet<(usize, Place)> = topic.readers.iter().map(|place| (counts[*place], *place)).collect();
    let mut own: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
    for (index, owner) in topic.owners.iter().enumerate() {
        if let Some(place) = owner {
            own.entry(*place).or_default().push(index);
        }
    }
    let mut givers: BTreeSet<(usize, Place)> = own.keys().map(|place| (counts[*place], *place)).collect();
    let mut moved = false;
    while let (Some(&(most, from)), Some(&(least, to))) = (givers.last(), by_count.first()) {
        let Some(index) = own.get_mut(&from).filter(|_| most > least + 1).and_then(Vec::pop) else { break };
        topic.owners[index] = Some(to);
        own.entry(to).or_default().push(index);
        for (place, old, new) in [(from, most, most - 1), (to, least, least + 1)] {
            counts[place] = new;
            by_count.remove(&(old, place));
            by_count.insert((new, place));
            givers.remove(&(old, place));
            if own.get(&place).is_some_and(|own| !own.is_empty()) {
                givers.insert((new, place));
            }
        }
        moved = true;
    }
    moved
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::assignor::{Assignor, Subscriber};
    use super::*;
    use crate::seed::seed;

    fn topic(number: u128) -> TopicId {
        TopicId::from_u128(number)
    }

    fn group(members: &[(&str, &[u128])], counts: &[i32]) -> Subscriptions {
        let subscriber = |(name, topics): &(&str, &[u128])| {
            let topics = topics.iter().map(|number| topic(*number)).collect();
            ((*name).into(), Subscriber { topics, ..Subscriber::default() })
        };
        let topics = (1..).zip(counts).map(|(number, count)| (topic(number), *count)).collect();
        Subscriptions { members: members.iter().map(subscriber).collect(), topics }
    }

    fn sizes(targets: &BTreeMap<MemberId, Partitions>) -> Vec<usize> {
        targets.values().map(|target| target.values().map(BTreeSet::len).sum()).collect()
    }

    fn keep(group: &mut Subscriptions, targets: BTreeMap<MemberId, Partitions>) {
        for (id, target) in targets {
            if let Some(member) = group.members.get_mut(&id) {
                member.target = target;
            }
        }
    }

    #[test]
    fn shares_are_even() {
        let both: &[u128] = &[1, 2];
        type Members<'a> = &'a [(&'a str, &'a [u128])];
        let cases: &[(Members<'_>, &[i32], &[usize])] = &[
            (&[("a", both), ("b", both)], &[3, 3], &[3, 3]),
            (&[("a", both), ("b", both), ("c", both)], &[4, 4], &[3, 3, 2]),
            (&[("a", &[1]), ("b", both)], &[4, 4], &[4, 4]),
            (&[("a", &[1]), ("b", &[1])], &[1], &[1, 0]),
            (&[("a", &[])], &[], &[0]),
            (&[], &[3], &[]),
        ];
        for (members, counts, expected) in cases {
            assert_eq!(sizes(&Assignor::Uniform.assign(&group(members, counts))), *expected);
        }
    }

    #[test]
    fn only_what_must_moves() {
        let mut two = group(&[("a", &[1]), ("b", &[1])], &[6]);
        let before = Assignor::Uniform.assign(&two);
        keep(&mut two, before.clone());
        assert_eq!(Assignor::Uniform.assign(&two), before, "nothing changed");
        two.members.insert("c".into(), Subscriber { topics: [topic(1)].into(), ..Subscriber::default() });
        let after = Assignor::Uniform.assign(&two);
        assert_eq!(sizes(&after), [2, 2, 2]);
        for id in ["a", "b"] {
            assert!(after[id][&topic(1)].is_subset(&before[id][&topic(1)]), "{id} gets nothing new");
        }
        keep(&mut two, after.clone());
        two.members.remove("c");
        let back = Assignor::Uniform.assign(&two);
        for id in ["a", "b"] {
            assert!(back[id][&topic(1)].is_superset(&after[id][&topic(1)]), "{id} loses nothing");
        }
    }

    /// Any members, topics and pasts: each partition has one subscriber, and no subscriber of a topic has two fewer than
    /// one that reads it.
    #[test]
    fn random_groups_are_covered_and_even() {
        let seed = seed("random_groups_are_covered_and_even");
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..300 {
            let counts: Vec<i32> = (0..random.random_range(1..6)).map(|_| random.random_range(1..12)).collect();
            let mut group = group(&[], &counts);
            for assignor in [Assignor::Uniform, Assignor::Range, Assignor::Uniform] {
                for member in 0..random.random_range(1..8) {
                    let topics = (1..=counts.len() as u128).filter(|_| random.random_bool(0.7)).map(topic).collect();
                    let known = group.members.entry(format!("m{member}").as_str().into()).or_default();
                    known.topics = topics;
                }
                let targets = assignor.assign(&group);
                let note = format!("seed {seed} round {round} {assignor:?} {group:?} {targets:?}");
                for (topic, count) in &group.topics {
                    let readers = group.members.iter().filter(|(_, member)| member.topics.contains(topic));
                    let readers: Vec<&MemberId> = readers.map(|(id, _)| id).collect();
                    let mut all: Vec<i32> =
                        targets.values().flat_map(|target| target.get(topic).into_iter().flatten().copied()).collect();
                    all.sort_unstable();
                    let wanted: Vec<i32> = if readers.is_empty() { vec![] } else { (0..*count).collect() };
                    assert_eq!(all, wanted, "{note}");
                    let size = |id: &MemberId| targets[id].values().map(BTreeSet::len).sum::<usize>();
                    let reads = targets.iter().filter(|(_, target)| target.contains_key(topic)).map(|(id, _)| id);
                    for one in reads {
                        assert!(readers.contains(&one), "{note}");
                        let even = readers.iter().all(|other| size(one) <= size(other) + 1);
                        assert!(even || assignor == Assignor::Range, "{note}");
                    }
                }
                keep(&mut group, targets);
            }
        }
    }
}
