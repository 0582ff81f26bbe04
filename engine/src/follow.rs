//! What follows a topic (a view, a derived stream, a table), seen from outside: how far it is, and waiting for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Offset, PartitionIndex, TopicName};

use crate::Offsets;
use crate::error::{EngineError, ErrorKind, Result};
use crate::shared::{PipelineShared, Published};
use crate::state::Progress;

/// One follower of one topic. Never changes itself; what it points to is written by its pipeline.
#[derive(Clone)]
pub(crate) struct Follower {
    /// What it is, for messages: `view plays`, `table users`.
    pub(crate) what: Arc<str>,
    /// The topic it follows.
    pub(crate) topic: TopicName,
    pub(crate) published: Arc<Published>,
    pub(crate) pipeline: Arc<PipelineShared>,
}

impl Follower {
    /// Waits until everything is applied that is committed in the topic now.
    pub(crate) async fn wait(&self, broker: &Broker, wait_ms: u64) -> Result<Offsets> {
        self.wait_whole(broker, wait_ms, false).await
    }

    /// The same, and until what it writes has heard all, if that is read.
    async fn wait_whole(&self, broker: &Broker, wait_ms: u64, is_read: bool) -> Result<Offsets> {
        let targets = self.ends(broker);
        let mut advanced = self.published.advanced.subscribe();
        let reached = async {
            loop {
                if self.is_reached(broker, &targets) && !(is_read && self.published.is_telling()) {
                    return Ok(());
                }
                if let Some(failure) = self.stopped() {
                    return Err(EngineError::new(ErrorKind::Stopped, failure));
                }
                if advanced.changed().await.is_err() {
                    return Err(EngineError::new(ErrorKind::Stopped, "the engine has stopped"));
                }
            }
        };
        match tokio::time::timeout(Duration::from_millis(wait_ms), reached).await {
            Ok(Ok(())) => Ok(self.offsets(broker)),
            Ok(Err(stopped)) => Err(stopped),
            Err(_) => Err(EngineError {
                kind: ErrorKind::Timeout,
                message: format!(
                    "{} did not reach the end of its topic within {wait_ms} ms, ask again or wait longer",
                    self.what
                ),
                offsets: Some(self.offsets(broker)),
            }),
        }
    }

    /// Why it does not advance, if it does not.
    pub(crate) fn stopped(&self) -> Option<String> {
        match self.failed() {
            None if self.published.is_replaced() => Some(format!("another version of {} has taken over", self.what)),
            failed => failed,
        }
    }

    /// Why neither it nor what would take its place advances, if so. What another version has replaced is not that: what was read of it
    /// until then holds all that was waited for.
    pub(crate) fn failed(&self) -> Option<String> {
        match self.pipeline.failure.lock().as_ref() {
            Some(failure) => Some(format!("{} has stopped: {failure}", self.what)),
            None if self.pipeline.is_stopping() => Some("the engine has stopped".to_string()),
            None => None,
        }
    }

    /// The next offset to be applied, as of the last commit.
    pub(crate) fn offsets(&self, broker: &Broker) -> Offsets {
        let progress = self.published.progress.lock();
        self.offsets_at(broker, &progress)
    }

    /// The next offset to be applied according to a progress.
    pub(crate) fn offsets_at(&self, broker: &Broker, progress: &Progress) -> Offsets {
        Offsets::from([(self.topic.clone(), self.applied(broker, progress))])
    }

    /// Where what is committed of the topic ends now.
    pub(crate) fn high_watermarks(&self, broker: &Broker) -> Offsets {
        Offsets::from([(self.topic.clone(), self.ends(broker))])
    }

    /// The same by partition.
    pub(crate) fn ends(&self, broker: &Broker) -> BTreeMap<PartitionIndex, Offset> {
        let partitions = broker.catalog().topic(&self.topic).map(|topic| topic.partitions());
        let all = partitions.iter().flat_map(|all| all.iter());
        all.map(|partition| (partition.index(), partition.last_stable_offset())).collect()
    }

    fn is_reached(&self, broker: &Broker, targets: &BTreeMap<PartitionIndex, Offset>) -> bool {
        let progress = self.published.progress.lock().clone();
        let applied = self.applied(broker, &progress);
        !self.is_of_another(broker, &progress)
            && targets.iter().all(|(index, target)| applied.get(index).is_none_or(|next| next >= target))
    }

    /// Whether what is applied is of a former topic of the same name.
    fn is_of_another(&self, broker: &Broker, progress: &Progress) -> bool {
        let Some(topic) = broker.catalog().topic(&self.topic) else { return false };
        let partitions = topic.partitions();
        let mut known = partitions.iter().filter_map(|partition| {
            progress.positions.get(&partition.index()).map(|position| position.log != partition.id())
        });
        known.any(|is_another| is_another)
    }

    /// The next offset of every partition; one that was never read stands at its log's start.
    fn applied(&self, broker: &Broker, progress: &Progress) -> BTreeMap<PartitionIndex, Offset> {
        let Some(topic) = broker.catalog().topic(&self.topic) else { return BTreeMap::new() };
        let next = |partition: &Arc<broker::Partition>| {
            let position = progress.positions.get(&partition.index()).filter(|position| position.log == partition.id());
            (partition.index(), position.map_or_else(|| partition.log_start(), |position| position.next_offset))
        };
        topic.partitions().iter().map(next).collect()
    }
}

/// Offsets from where something stands to where its topic ends, of all partitions together.
pub(crate) fn lag(next: &BTreeMap<PartitionIndex, Offset>, ends: &BTreeMap<PartitionIndex, Offset>) -> i64 {
    let left =
        |(index, end): (&PartitionIndex, &Offset)| end.saturating_sub(next.get(index).copied().unwrap_or(0)).max(0);
    ends.iter().map(left).sum()
}

/// Waits for each of them in turn: what one writes, the next one reads. Gives the offsets of the last, whose topic need not have heard all.
pub(crate) async fn wait_all(chain: &[Follower], broker: &Broker, wait_ms: u64) -> Result<Offsets> {
    let clock = broker.clock();
    let began_ms = clock.steady_ms();
    let mut offsets = Offsets::new();
    for (at, follower) in chain.iter().enumerate() {
        let waited_ms = clock.steady_ms().saturating_sub(began_ms);
        let left_ms = wait_ms.saturating_sub(waited_ms.unsigned_abs());
        offsets = follower.wait_whole(broker, left_ms, at + 1 < chain.len()).await?;
    }
    Ok(offsets)
}
