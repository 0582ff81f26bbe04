//! Compaction (`cleanup.policy=compact`): of each key only the newest record is kept, tombstones go after their time.
//!
//! `survey` says which partitions are due, `pass` goes over one of them, `rewrite` judges a batch, `commit` is what goes
//! through the lane. One partition at a time, the dirtiest first, with bounded memory (`compaction_keys_max`) and bounded
//! I/O (`log.cleaner.io.max.bytes.per.second`). The lane is never held longer than one commit of 1 MiB or one batch takes.
//!
//! Readers: offsets never change, the newest batch always stays, and who finds a batch moved looks into the index again;
//! so a reader sees each batch as it was before a commit or as it is after it, never half of one.

mod commit;
mod key_map;
mod pass;
mod rewrite;
mod state;
mod survey;
#[cfg(test)]
mod tests;
mod transactions;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use commit::Compacted;
pub(crate) use state::{CleanState, Progress};

use crate::Broker;
use crate::error::{Kind, Result};
use crate::log::Partition;
use crate::log::keys;
use crate::log::partition::blocking;
use crate::store::Family;
use crate::types::LogId;
pub(crate) use pass::rest;
use pass::{Commits, Limits, Pass, settle};
use survey::{Due, survey};

/// Bytes that were replaced or removed in a partition before its files are merged to give the disk back.
const RECLAIM_BYTES_MIN: u64 = 16 << 20;

/// What compaction remembers between its rounds; held while one runs, so that there is one at a time.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// Partitions with a batch that cannot be read: left alone until the next start.
    given_up: HashSet<LogId>,
}

/// Looks at every partition again and again, until the broker is dropped.
pub(crate) async fn run(broker: std::sync::Weak<Broker>) {
    loop {
        let Some(pause_ms) = broker.upgrade().map(|broker| broker.settings().whole("log.cleaner.backoff.ms")) else {
            return;
        };
        tokio::time::sleep(Duration::from_millis(u64::try_from(pause_ms).unwrap_or(0).max(1))).await;
        let Some(broker) = broker.upgrade() else { return };
        if let Err(error) = round(&broker).await {
            tracing::warn!(%error, "compaction could not finish, it tries again");
        }
    }
}

/// Compacts every partition that is due.
///
/// # Errors
/// `Storage`.
pub(crate) async fn round(broker: &Arc<Broker>) -> Result<()> {
    let mut rounds = broker.compaction_rounds().lock().await;
    // otherwise what is replaced or removed would keep its space, and what takes its place have more
    let merges = broker.store().merges(Family::Compacted);
    let mut due = Vec::new();
    for topic in broker.catalog().topics() {
        for partition in topic.partitions().iter() {
            finish_cut_pass(broker, partition).await?;
            if !merges {
                continue;
            }
            if let Some(one) = look(broker, partition).await?.filter(|_| !rounds.given_up.contains(&partition.id())) {
                due.push((one.ratio, partition.clone()));
            }
        }
    }
    due.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    for (_, partition) in due {
        match compact(broker, &partition).await {
            // deleted, or its log's start moved past the pass: there is another round
            Err(_) if partition.is_deleted() => {}
            Err(error) if error.kind == Kind::OffsetOutOfRange => tracing::debug!(%error, "compaction starts over"),
            Err(error) if error.kind != Kind::Storage => {
                tracing::warn!(%error, topic = %partition.topic(), partition = partition.index(),
                    "compaction gives this partition up until the next start");
                rounds.given_up.insert(partition.id());
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

async fn look(broker: &Arc<Broker>, partition: &Arc<Partition>) -> Result<Option<Due>> {
    let (floor, now) = (broker.holds().floor(partition.id()), broker.clock().now_ms());
    let partition = partition.clone();
    blocking(move || survey(&partition, floor, now)).await
}

/// A pass that a crash or an error cut short left the index's running bytes wrong.
async fn finish_cut_pass(broker: &Arc<Broker>, partition: &Arc<Partition>) -> Result<()> {
    let state = partition.compaction();
    if state.pass_end == 0 || partition.is_deleted() {
        return Ok(());
    }
    let commits = Commits::new(broker, partition, Limits::of(broker));
    settle(&commits, state.pass_end, CleanState { pass_end: 0, ..state }).await
}

/// Makes passes over a partition until it is not due any more.
async fn compact(broker: &Arc<Broker>, partition: &Arc<Partition>) -> Result<()> {
    let limits = Limits::of(broker);
    while let Some(due) = look(broker, partition).await? {
        let removed = Pass::new(broker, partition, (due, limits)).make().await?;
        broker.counters().compactions.fetch_add(1, Ordering::Relaxed);
        broker.counters().compaction_bytes_removed.fetch_add(removed, Ordering::Relaxed);
        tracing::debug!(topic = %partition.topic(), partition = partition.index(), from = due.from,
            to = partition.compaction().clean_to, removed, "compacted");
        if partition.progress().replaced(removed, RECLAIM_BYTES_MIN) {
            let (store, log) = (broker.store().clone(), partition.id());
            let reclaim = move || {
                let (from, to) = keys::log_range(log);
                store.reclaim(Family::Compacted, &from, &to);
                Ok(())
            };
            blocking(reclaim).await?;
        }
    }
    Ok(())
}
