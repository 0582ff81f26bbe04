//! Committed offsets: what a group keeps per topic and partition, who may commit, and when they expire. Pure.
//!
//! They are kept by topic id, so a topic that is created again under an old name starts without offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::state::{Group, Phase};
use super::{Commit, consumer};
use crate::error::{Error, Kind, Result};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId};

/// Largest metadata of one offset (`offset.metadata.max.bytes`).
pub(crate) const METADATA_BYTES_MAX: usize = 4096;
/// Kind of group whose subscriptions the broker can read.
const CONSUMER: &str = "consumer";

/// One committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next record to read.
    pub(crate) offset: Offset,
    /// Epoch of the last record read, -1 if the client did not say.
    pub(crate) leader_epoch: LeaderEpoch,
    /// The client's own note.
    pub(crate) metadata: Arc<str>,
    /// When it was committed.
    pub(crate) committed_at: TimestampMs,
    /// When it expires, if the client said so (before KIP-211).
    pub(crate) expires_at: Option<TimestampMs>,
    /// Place in the order of commits since the start: answers may come back out of order, a lower number never
    /// replaces a higher one. 0 for what recovery read.
    pub(crate) number: u64,
}

/// The offsets of one group.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    topics: BTreeMap<TopicId, BTreeMap<PartitionIndex, Committed>>,
}

impl Offsets {
    /// The offset of a partition.
    pub(crate) fn get(&self, topic: TopicId, partition: PartitionIndex) -> Option<&Committed> {
        self.topics.get(&topic)?.get(&partition)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (TopicId, PartitionIndex, &Committed)> {
        let flat = |(topic, partitions): (&TopicId, _)| (*topic, partitions);
        self.topics.iter().map(flat).flat_map(|(topic, partitions): (TopicId, &BTreeMap<_, _>)| {
            partitions.iter().map(move |(partition, committed)| (topic, *partition, committed))
        })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.topics.values().map(BTreeMap::len).sum()
    }

    pub(super) fn set(&mut self, topic: TopicId, partition: PartitionIndex, committed: Committed) {
        let partitions = self.topics.entry(topic).or_default();
        if partitions.get(&partition).is_none_or(|known| known.number <= committed.number) {
            partitions.insert(partition, committed);
        }
    }

    pub(super) fn remove(&mut self, topic: TopicId, partition: PartitionIndex, number: u64) {
        let Some(partitions) = self.topics.get_mut(&topic) else { return };
        if partitions.get(&partition).is_some_and(|known| known.number < number) {
            partitions.remove(&partition);
        }
        if partitions.is_empty() {
            self.topics.remove(&topic);
        }
    }
}

/// Whether `who` may commit offsets of the group now.
///
/// # Errors
/// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`, `StaleMemberEpoch`, `RebalanceInProgress`.
pub(crate) fn check_commit(group: &Group, who: &super::Caller<'_>, commits: &[Commit]) -> Result<()> {
    if let Some(consumers) = group.consumers() {
        let by_nobody = who.generation < 0 && consumers.members().is_empty();
        let member = consumers.members().get(who.member_id);
        return if by_nobody { Ok(()) } else { consumer::check_commit(member, who.generation, places(commits)) };
    }
    let anonymous = who.generation < 0 && who.member_id.is_empty() && who.instance_id.is_none();
    if who.generation < 0 && group.phase() == Phase::Empty {
        return Ok(()); // an administrator, or a consumer that assigns itself
    }
    if anonymous {
        let message = "the group has members, only they may commit; stop them first";
        return Err(Error::new(Kind::UnknownMemberId, message));
    }
    super::classic::check_member(group, who)?;
    super::classic::check_generation(group, who.generation)?;
    if group.phase() == Phase::CompletingRebalance {
        return Err(Error::new(Kind::RebalanceInProgress, "the group waits for its assignment; join again"));
    }
    Ok(())
}

/// Whether `who` may commit offsets of the group within a transaction (KIP-447). The transaction itself keeps old producers
/// out, so without a member's name there is nothing to check.
///
/// # Errors
/// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`.
pub(crate) fn check_transactional(group: &Group, who: &super::Caller<'_>, commits: &[Commit]) -> Result<()> {
    let anonymous = who.member_id.is_empty() && who.instance_id.is_none();
    if who.generation < 0 && (anonymous || group.phase() == Phase::Empty) {
        return Ok(());
    }
    if let Some(consumers) = group.consumers() {
        let member = consumers.members().get(who.member_id);
        let checked = consumer::check_commit(member, who.generation, places(commits));
        return checked.map_err(|error| match error.kind {
            // the only word for it that producers know
            Kind::StaleMemberEpoch => Error { kind: Kind::IllegalGeneration, ..error },
            _ => error,
        });
    }
    super::classic::check_member(group, who)?;
    super::classic::check_generation(group, who.generation)
}

fn places(commits: &[Commit]) -> impl Iterator<Item = (TopicId, PartitionIndex)> {
    commits.iter().map(|(topic, partition, _)| (*topic, *partition))
}

/// Which offsets have expired (KIP-211): those of an empty group `retention_ms` after it became empty (or after the
/// commit, if it never had members or the commit came later), and those of topics that a live group does not subscribe
/// to any more.
pub(crate) fn expired(group: &Group, now: TimestampMs, retention_ms: i64) -> Vec<(TopicId, PartitionIndex)> {
    let is_due = |committed: &Committed| match (committed.expires_at, group.is_empty()) {
        (Some(expires_at), _) => now >= expires_at,
        (None, true) => {
            let idle_since = if group.protocol_type().is_some() { group.since() } else { committed.committed_at };
            now.saturating_sub(idle_since.max(committed.committed_at)) >= retention_ms
        }
        (None, false) => false,
    };
    let undecided = |topic, partition| group.undecided().has(topic, partition);
    let all = group.offsets().all().filter(|(t, p, committed)| is_due(committed) && !undecided(*t, *p));
    all.map(|(topic, partition, _)| (topic, partition)).collect()
}

/// Offsets of topics that nobody in a live group of consumers subscribes to, old enough to go.
pub(crate) fn unsubscribed(
    group: &Group,
    (now, retention_ms): (TimestampMs, i64),
    name_of: impl Fn(TopicId) -> Option<Arc<str>>,
) -> Vec<(TopicId, PartitionIndex)> {
    let Some(subscribed) = subscriptions(group) else { return Vec::new() };
    let is_due = |committed: &Committed| now.saturating_sub(committed.committed_at) >= retention_ms;
    let stray = |topic| name_of(topic).is_some_and(|name| !subscribed.contains(&*name));
    let all = group.offsets().all().filter(|(topic, _, committed)| is_due(committed) && stray(*topic));
    all.map(|(topic, partition, _)| (topic, partition)).collect()
}

/// The topics that the members of a stable group of consumers subscribe to; `None` where that cannot be known.
pub(crate) fn subscriptions(group: &Group) -> Option<BTreeSet<String>> {
    if let Some(consumers) = group.consumers() {
        return Some(consumers.subscribed_topics().iter().map(ToString::to_string).collect());
    }
    if group.phase() != Phase::Stable || group.protocol_type().is_none_or(|kind| &**kind != CONSUMER) {
        return None;
    }
    let protocol = group.protocol()?;
    let mut topics = BTreeSet::new();
    for member in group.members().values() {
        topics.extend(subscription(&member.metadata(protocol))?);
    }
    Some(topics)
}

/// The topics of a consumer's subscription: i16 version, i32 count, then strings with i16 lengths. What follows is not
/// looked at.
fn subscription(metadata: &[u8]) -> Option<Vec<String>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let mut topics = Vec::new();
    for _ in 0..i32::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        topics.push(std::str::from_utf8(name).ok()?.to_owned());
        rest = after;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::state::Event;

    fn committed(offset: Offset, number: u64) -> Committed {
        Committed { offset, leader_epoch: -1, metadata: "".into(), committed_at: 1_000, expires_at: None, number }
    }

    #[test]
    fn later_commits_win_whenever_they_are_answered() {
        let topic = TopicId::from_u128(1);
        let mut offsets = Offsets::default();
        offsets.set(topic, 0, committed(5, 2));
        offsets.set(topic, 0, committed(4, 1));
        assert_eq!(offsets.get(topic, 0).unwrap().offset, 5);
        offsets.remove(topic, 0, 2);
        assert_eq!(offsets.len(), 1);
        offsets.remove(topic, 0, 3);
        assert!(offsets.is_empty());
    }

    #[test]
    fn offsets_of_an_empty_group_expire() {
        let topic = TopicId::from_u128(1);
        let mut group = Group::new("g".into(), 0);
        group.apply(Event::OffsetSet(topic, 0, committed(5, 1)));
        let dated = Committed { expires_at: Some(1_500), ..committed(6, 2) };
        group.apply(Event::OffsetSet(topic, 1, dated));
        assert_eq!(expired(&group, 1_499, 1_000), vec![]);
        assert_eq!(expired(&group, 1_500, 1_000), vec![(topic, 1)]);
        assert_eq!(expired(&group, 2_000, 1_000), vec![(topic, 0), (topic, 1)]);
    }

    #[test]
    fn subscriptions_are_read_with_care() {
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x02bcrest";
        assert_eq!(subscription(bytes).unwrap(), vec!["a", "bc"]);
        for cut in 0..bytes.len() - 4 {
            assert_eq!(subscription(&bytes[..cut]), None);
        }
        assert_eq!(subscription(b"\x00\x01\x7f\xff\xff\xff"), None);
    }
}
