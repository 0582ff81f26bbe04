//! From subscriptions to targets: when the group's epoch goes up, when a new target is computed, when regular expressions
//! are looked up, and the step of one member towards its target. Pure, like the rest of [`Turn`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::assignor::{Assignor, Subscriber, Subscriptions};
use super::reconcile::Step;
use super::{ConsumerMember, Epochs, Fact, MemberState, Partitions, Topics};
use crate::group::classic::Turn;
use crate::group::state::{Event, MemberId};
use crate::types::TopicId;

/// Least time between two lookups of the same regular expressions when topics change.
const LOOKUP_EVERY_MS: i64 = 1_000;

impl Turn<'_> {
    /// Something of the group is recorded; it holds from now on.
    pub(super) fn record_fact(&mut self, fact: Fact) {
        self.group.apply(Event::Fact(fact.clone()));
        self.facts.push(fact);
    }

    /// A member came or changed. Gives whether its subscription did.
    pub(super) fn put_member(&mut self, old: &ConsumerMember, new: &ConsumerMember) -> bool {
        let is_known = self.group.consumers().is_some_and(|group| group.members().contains_key(&new.id));
        if !is_known || old != new {
            self.record_fact(Fact::Member(Box::new(new.clone())));
        }
        if old.regex != new.regex {
            self.forget_unused_regexes();
        }
        old.topics != new.topics || old.regex != new.regex
    }

    /// Whether a changed subscription asks for a new target at once: not if its regular expression has to be looked up
    /// first.
    pub(super) fn needs_new_target(&self, old: &ConsumerMember, new: &ConsumerMember) -> bool {
        let Some(group) = self.group.consumers() else { return false };
        let is_resolved = new.regex.is_empty() || group.regexes().contains_key(&new.regex);
        old.topics != new.topics || (old.regex != new.regex && is_resolved)
    }

    /// Brings the group's epoch up to its subscriptions and topics, and the target up to the group's epoch.
    pub(super) fn refresh_target(&mut self, has_changed: bool) {
        let Some(group) = self.group.consumers_mut() else { return };
        let changes = self.topics.changes();
        if has_changed || group.topics_seen != Some(changes) {
            group.topics_seen = Some(changes);
            let epochs = group.epochs();
            let topics_digest = digest(&group.subscribed_topics(), self.topics);
            if has_changed || topics_digest != epochs.topics_digest {
                self.record_fact(Fact::Epochs(Epochs { group: epochs.group + 1, topics_digest, ..epochs }));
            }
        }
        self.assign();
    }

    fn assign(&mut self) {
        let Some(group) = self.group.consumers() else { return };
        let epochs = group.epochs();
        let interval = i64::from(self.timings.assignment_interval_ms);
        let is_early = group.assigned_at.is_some_and(|at| self.now - at < interval);
        if epochs.group <= epochs.target || is_early {
            return;
        }
        let mut subscriptions = Subscriptions::default();
        for (id, member) in group.members() {
            let named: Vec<(TopicId, i32)> =
                group.subscription(member).iter().filter_map(|name| self.topics.find(name)).collect();
            subscriptions.topics.extend(named.iter().copied());
            let subscriber = Subscriber {
                instance_id: member.instance_id.clone(),
                topics: named.into_iter().map(|(topic, _)| topic).collect(),
                target: group.target(id).cloned().unwrap_or_default(),
            };
            subscriptions.members.insert(id.clone(), subscriber);
        }
        let targets = preferred(group.members().values()).assign(&subscriptions);
        let changed = targets.into_iter().filter(|(id, target)| group.target(id) != Some(target));
        let changed: Vec<(MemberId, Partitions)> = changed.collect();
        for (id, target) in changed {
            self.record_fact(Fact::Target(id, target));
        }
        self.record_fact(Fact::Epochs(Epochs { target: epochs.group, ..epochs }));
        let now = self.now;
        if let Some(group) = self.group.consumers_mut() {
            group.assigned_at = Some(now);
        }
    }

    /// The member's next step. Gives it as it is then.
    pub(super) fn reconcile(
        &mut self,
        id: &str,
        has_new_subscription: bool,
        owned: Option<&Partitions>,
    ) -> Option<ConsumerMember> {
        let group = self.group.consumers()?;
        let member = group.members().get(id)?;
        let epochs = group.epochs();
        if !has_new_subscription && member.is_reconciled_to(epochs.target) {
            return Some(member.clone());
        }
        let subscribed: BTreeSet<TopicId> =
            group.subscription(member).iter().filter_map(|name| Some(self.topics.find(name)?.0)).collect();
        let nothing = Partitions::new();
        let step = Step {
            member,
            target_epoch: epochs.target,
            target: group.target(id).unwrap_or(&nothing),
            subscribed: &subscribed,
            has_new_subscription,
            owned,
            is_free: &|topic, partition| group.owner(topic, partition).is_none(),
        };
        let next = step.next();
        if next != *member {
            self.record_fact(Fact::Member(Box::new(next.clone())));
            // members of the classic protocol have deadlines for joining and syncing instead
            let gives_up = next.state == MemberState::Revoking && next.classic.is_none();
            let until = self.now.saturating_add(i64::from(next.rebalance_timeout_ms));
            if let Some(group) = self.group.consumers_mut() {
                group.set_deadlines(id, |deadlines| deadlines.revoking = gives_up.then_some(until));
            }
        }
        Some(next)
    }

    /// Members are gone or subscribe otherwise: the epoch goes up, and the next heartbeat computes a target.
    pub(super) fn bump_epoch(&mut self) {
        let Some(group) = self.group.consumers() else { return };
        let topics_digest = digest(&group.subscribed_topics(), self.topics);
        let epochs = group.epochs();
        self.record_fact(Fact::Epochs(Epochs { group: epochs.group + 1, topics_digest, ..epochs }));
    }

    /// Regular expressions that nobody subscribes by any more.
    pub(super) fn forget_unused_regexes(&mut self) {
        let Some(group) = self.group.consumers() else { return };
        let wanted = group.wanted_regexes();
        let unused: Vec<Arc<str>> =
            group.regexes().keys().filter(|regex| !wanted.contains_key(*regex)).cloned().collect();
        for regex in unused {
            self.record_fact(Fact::Unused(regex));
        }
    }

    /// Asks for a lookup of the regular expressions if there are new ones, or topics changed, or it is long ago.
    pub(super) fn look_up_regexes(&mut self) {
        let refresh_ms = self.limits.consumer.regex_refresh_ms;
        let (now, changes) = (self.now, self.topics.changes());
        let Some(group) = self.group.consumers_mut() else { return };
        let wanted = group.wanted_regexes();
        if wanted.is_empty() || group.lookups.is_running {
            return;
        }
        let has_new = wanted.keys().any(|regex| !group.regexes().contains_key(regex));
        let is_old = group
            .lookups
            .last
            .is_none_or(|(at, seen)| now - at >= refresh_ms || (seen != changes && now - at >= LOOKUP_EVERY_MS));
        if has_new || is_old {
            group.lookups.is_running = true;
            self.lookup = Some(wanted.into_keys().collect());
        }
    }

    /// The regular expressions were looked up, on this state of the topics.
    pub(crate) fn resolved(&mut self, found: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>, changes: u64) {
        let now = self.now;
        let Some(group) = self.group.consumers_mut() else { return };
        group.lookups.is_running = false;
        group.lookups.last = Some((now, changes));
        let wanted = group.wanted_regexes();
        let news = found.into_iter().filter(|(regex, topics)| {
            wanted.contains_key(regex) && group.regexes().get(regex).is_none_or(|known| known != topics)
        });
        let news: Vec<_> = news.collect();
        if news.is_empty() {
            return;
        }
        // one that stands for nothing changes nothing
        let has_changed = news.iter().any(|(regex, topics)| {
            !topics.is_empty() || group.regexes().get(regex).is_some_and(|known| !known.is_empty())
        });
        for (regex, topics) in news {
            self.record_fact(Fact::Resolved(regex, topics));
        }
        if has_changed {
            self.bump_epoch();
        }
    }
}

/// The assignor that most members wish for.
pub(crate) fn preferred<'a>(members: impl Iterator<Item = &'a ConsumerMember>) -> Assignor {
    let mut votes: HashMap<&str, usize> = HashMap::new();
    members.filter_map(|member| member.assignor.as_deref()).for_each(|name| *votes.entry(name).or_insert(0) += 1);
    let most = votes.values().max().copied().unwrap_or(0);
    let wished = Assignor::ALL.into_iter().find(|assignor| most > 0 && votes.get(assignor.name()) == Some(&most));
    wished.unwrap_or(Assignor::ALL[0])
}

/// FNV-1a over name, id and number of partitions of each topic that exists; 0 if none does.
pub(super) fn digest(names: &BTreeSet<Arc<str>>, topics: &dyn Topics) -> u64 {
    if names.iter().all(|name| topics.find(name).is_none()) {
        return 0;
    }
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for name in names {
        if let Some((id, count)) = topics.find(name) {
            add(name.as_bytes());
            add(id.as_bytes());
            add(&count.to_be_bytes());
        }
    }
    hash
}
