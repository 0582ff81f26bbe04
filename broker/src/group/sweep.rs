//! Offsets that expired or whose topic is gone are removed, and groups that have nothing left with them. A task of its own:
//! it waits for the disk, and members' sessions must end in time meanwhile.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::try_join_all;

use super::Groups;
use super::coordinator::SharedCell;
use super::offsets;
use super::state::Group;
use crate::Broker;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::types::{PartitionIndex, TimestampMs, TopicId};

/// How often offsets are looked through for expired ones (`offsets.retention.check.interval.ms`).
const SWEEP_EVERY_MS: i64 = 600_000;
/// How often the clock is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Groups that are worked on at a time: what is submitted together is written together, so a sweep costs few syncs of the
/// disk.
const GROUPS_AT_A_TIME: usize = 256;

/// Sweeps when it is time, until the broker is dropped.
pub(crate) async fn run(broker: Weak<Broker>) {
    let mut swept_at = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(broker) = broker.upgrade() else { return };
        let now = broker.clock().steady_ms();
        if now - *swept_at.get_or_insert(now) >= SWEEP_EVERY_MS {
            swept_at = Some(now);
            if let Err(error) = broker.groups().sweep(broker.catalog()).await {
                tracing::warn!(%error, "offsets that expired could not be removed, the next round tries again");
            }
        }
    }
}

impl Groups {
    /// Removes offsets that expired or whose topic is gone, then groups that have nothing left.
    ///
    /// # Errors
    /// `CoordinatorNotAvailable` when the store failed.
    pub(crate) async fn sweep(self: &Arc<Self>, catalog: &Catalog) -> Result<()> {
        let (wall, retention) = (self.clock.now_ms(), self.limits.offsets_retention_ms);
        for some in self.all_cells().chunks(GROUPS_AT_A_TIME) {
            let named = |shared: &SharedCell| (shared.lock().group.id().clone(), shared.clone());
            let some: Vec<(Arc<str>, SharedCell)> = some.iter().map(named).collect();
            let mut removed = Vec::new();
            for (id, _) in &some {
                let of_group = self.in_group(id, |cell, shared| {
                    let is_still = cell.commits_under_way == 0;
                    let gone = if is_still { due(&cell.group, (wall, retention), catalog) } else { Vec::new() };
                    (!gone.is_empty()).then(|| self.remove_offsets(cell, shared, gone))
                });
                removed.extend(of_group.flatten());
            }
            try_join_all(removed).await?;
            let mut buried = Vec::new();
            for (id, shared) in &some {
                let of_group = self.in_group(id, |cell, _| cell.is_forgettable().then(|| self.bury(cell)));
                if let Some(of_group) = of_group.flatten() {
                    self.forget(id, shared);
                    buried.push(of_group);
                }
            }
            try_join_all(buried).await?;
        }
        Ok(())
    }
}

fn due(group: &Group, (wall, retention): (TimestampMs, i64), catalog: &Catalog) -> Vec<(TopicId, PartitionIndex)> {
    let name_of = |topic| catalog.topic_by_id(topic).map(|topic| topic.name().clone());
    let mut gone = offsets::expired(group, wall, retention);
    gone.extend(offsets::unsubscribed(group, (wall, retention), name_of));
    let orphans = group.offsets().all().filter(|(topic, ..)| catalog.topic_by_id(*topic).is_none());
    gone.extend(orphans.map(|(topic, partition, _)| (topic, partition)));
    gone
}
