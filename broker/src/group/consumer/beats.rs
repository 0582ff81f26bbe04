//! What requests of the consumer protocol do to a group, with the store and the topics: the rules decide, the facts are
//! stored in one commit, then the member is answered.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::epochs::check_epoch;
use super::heartbeat::{Beat, Beaten, no_consumer_group};
use super::regex::resolve;
use super::settings::Timings;
use super::subscription::preferred;
use super::{ConsumerMember, Consumers, Epochs, Fact, JOIN_EPOCH, Partitions, Topics, records};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::group::coordinator::{Cell, Later, after, not_available, now};
use crate::group::{Groups, check_group_id, check_names};
use crate::lane::Ack;
use crate::types::TopicId;

/// A group of the consumer protocol as administrators see it.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerGroupDescription {
    /// Kafka's word for where it stands.
    pub(crate) state: &'static str,
    /// Goes up with each change of members, subscriptions or topics.
    pub(crate) epoch: i32,
    /// The epoch that the assignment is for.
    pub(crate) target_epoch: i32,
    /// Name of the assignor.
    pub(crate) assignor: &'static str,
    /// Its members, each with what it is to have.
    pub(crate) members: Vec<(ConsumerMember, Partitions)>,
}

impl Topics for Catalog {
    fn find(&self, name: &str) -> Option<(TopicId, i32)> {
        let topic = self.topic(name)?;
        Some((topic.id(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
    }

    fn name(&self, id: TopicId) -> Option<Arc<str>> {
        Some(self.topic_by_id(id)?.name().clone())
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.topics().iter().map(|topic| topic.name().clone()).collect()
    }

    fn changes(&self) -> u64 {
        Catalog::changes(self)
    }
}

impl Groups {
    /// A member of the consumer protocol shows that it lives. The answer comes when what changed is durable. What the group's
    /// regular expressions stand for is looked up, when it is time, as the member may see it, as in Kafka.
    ///
    /// # Errors
    /// Those of [`Beat::check`] and `Turn::beat`; `InvalidRequest` for names that are too long.
    pub(crate) fn beat(
        self: &Arc<Self>,
        id: &str,
        (version, beat): (i16, &Beat),
        sees: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Later<Beaten>> {
        beat.check(id, version)?;
        check_group_id(id)?;
        let optional = [&beat.instance_id, &beat.rack_id, &beat.assignor, &beat.regex];
        let names = [&beat.member_id, &beat.client_id].into_iter().chain(optional.into_iter().flatten());
        check_names(names.chain(beat.topics.iter().flatten()))?;
        let is_new = self.cell(id).is_none();
        let find = || match self.cell(id) {
            None if beat.epoch == JOIN_EPOCH => self.cell_or_new(id),
            known => known.ok_or_else(|| no_consumer_group(id)),
        };
        let answer = self.in_cell(find, |cell, shared| {
            let (beaten, mut effects) = self.turn_without_tick(cell, |turn| turn.beat(beat));
            if let Some(regexes) = effects.lookup.take() {
                self.look_up(cell.group.id().clone(), regexes, sees);
            }
            let stored = self.settle(cell, shared, effects);
            beaten.map(|beaten| after(stored, beaten))
        })?;
        if answer.is_err() && is_new {
            self.forget_if_unused(id);
        }
        answer
    }

    /// Stores facts that hold already.
    pub(in crate::group) fn store_facts(&self, cell: &Cell, facts: &[Fact]) -> Later<()> {
        if facts.is_empty() {
            return now(());
        }
        let group = cell.group.id();
        let changes = facts.iter().flat_map(|fact| records::changes(group, fact)).collect();
        let stored = self.lane.commit(changes, Ack::Durable);
        Box::pin(async move { stored.await.map(drop).map_err(not_available) })
    }

    /// Looks up regular expressions aside, because it may take long, and tells the group.
    fn look_up(
        self: &Arc<Self>,
        id: Arc<str>,
        regexes: BTreeSet<Arc<str>>,
        sees: impl Fn(&str) -> bool + Send + 'static,
    ) {
        let groups = self.clone();
        tokio::spawn(async move {
            let changes = Topics::changes(&*groups.catalog);
            let names = groups.catalog.names();
            let resolved = move || {
                let names: Vec<Arc<str>> = names.into_iter().filter(|name| sees(name)).collect();
                resolve(&regexes, &names)
            };
            let found = tokio::task::spawn_blocking(resolved).await;
            let found = found.unwrap_or_default();
            groups.in_group(&id, |cell, shared| {
                let ((), effects) = groups.turn(cell, |turn| turn.resolved(found, changes));
                drop(groups.settle(cell, shared, effects));
            });
        });
    }

    /// What holds for members of the consumer protocol in this group.
    pub(in crate::group) fn timings(&self, id: &str) -> Timings {
        let broker = &self.limits.consumer;
        let own = |name, otherwise| {
            self.settings.group_value(id, name).and_then(|value| value.trim().parse().ok()).unwrap_or(otherwise)
        };
        Timings {
            session_timeout_ms: own("consumer.session.timeout.ms", broker.session_timeout_ms),
            heartbeat_interval_ms: own("consumer.heartbeat.interval.ms", broker.heartbeat_interval_ms),
            assignment_interval_ms: own("consumer.assignment.interval.ms", broker.assignment_interval_ms),
        }
    }

    /// Whether a caller that says who it is may read the group's offsets; administrators do not say.
    ///
    /// # Errors
    /// `UnknownMemberId`, `StaleMemberEpoch`, `IllegalGeneration`.
    pub(crate) fn check_fetch(&self, id: &str, (member_id, epoch): (Option<&str>, i32)) -> Result<()> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let check = |consumers: &Consumers| check_epoch(consumers.members().get(member_id.unwrap_or_default()), epoch);
        self.read(id, |group| group.consumers().map_or(Ok(()), check)).unwrap_or(Ok(()))
    }

    /// A group of the consumer protocol with its members; `None` if there is none of this name.
    pub(crate) fn describe_consumers(&self, id: &str) -> Option<ConsumerGroupDescription> {
        self.read(id, |group| group.consumers().map(described)).flatten()
    }
}

fn described(group: &Consumers) -> ConsumerGroupDescription {
    let Epochs { group: epoch, target, .. } = group.epochs();
    let member = |member: &ConsumerMember| (member.clone(), group.target(&member.id).cloned().unwrap_or_default());
    ConsumerGroupDescription {
        state: group.state_name(),
        epoch,
        target_epoch: target,
        assignor: preferred(group.members().values()).name(),
        members: group.members().values().map(member).collect(),
    }
}
