//! Retention by time and size (`retention.ms`, `retention.bytes`), and forgetting idle producers. Works on the index alone:
//! no record is looked at. Of a tiered topic the log keeps less (`local.retention.ms`, `local.retention.bytes`), but all that the
//! cold log does not have. Finer than Kafka, which deletes whole segments: here every batch goes when it is due.

use std::sync::Arc;
use std::time::Duration;

use crate::Broker;
use crate::crash_point::CrashPoint;
use crate::error::Result;
use crate::lane::{Ack, Change};
use crate::log::Partition;
use crate::log::keys;
use crate::log::partition::blocking;
use crate::log::producers::ProducerState;
use crate::store::Family;
use crate::types::{Offset, TimestampMs};

/// Looks at every partition again and again, until the broker is dropped.
pub(crate) async fn run(broker: std::sync::Weak<Broker>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(broker) = broker.upgrade() else { return };
        if let Err(error) = sweep(&broker).await {
            tracing::warn!(%error, "retention could not finish, it tries again");
        }
    }
}

/// Deletes what is due in every partition.
pub(crate) async fn sweep(broker: &Arc<Broker>) -> Result<()> {
    for topic in broker.catalog().topics() {
        for partition in topic.partitions().iter() {
            let due = {
                let (partition, now) = (partition.clone(), broker.clock().now_ms());
                blocking(move || due(&partition, now)).await?
            };
            let floor = broker.holds().floor(partition.id()).unwrap_or(Offset::MAX);
            let (all, local) = (due.all.min(floor), due.local.min(floor));
            if all > partition.log_start() {
                // what is too old for the log is too old for the cold log
                let gone = if partition.config().is_tiered() { Change::Earliest } else { Change::LogStart };
                broker.lane().commit(vec![gone(partition.clone(), all)], Ack::Durable).await?;
                CrashPoint::Retained.reach();
            }
            if local > partition.log_start() {
                let change = Change::LogStart(partition.clone(), local);
                broker.lane().commit(vec![change], Ack::Durable).await?;
            }
            forget_producers(broker, partition).await?;
        }
    }
    broker.store().buckets().ask_to_look(false);
    Ok(())
}

/// Where the log of a partition may begin.
struct Due {
    /// By what is kept of the topic at all.
    all: Offset,
    /// By what the log itself keeps.
    local: Offset,
}

fn due(partition: &Partition, now: TimestampMs) -> Result<Due> {
    let (config, start) = (partition.config(), partition.log_start());
    if !config.deletes() {
        return Ok(Due { all: start, local: start });
    }
    let local = match partition.cold_run() {
        Some((_, end)) => due_start(partition, now, config.local_retention())?.min(end),
        None => start,
    };
    Ok(Due { all: due_start(partition, now, (config.retention_ms(), config.retention_bytes()))?, local })
}

/// Where the log of a partition may begin by such a retention.
fn due_start(partition: &Partition, now: TimestampMs, (kept_ms, kept_bytes): (i64, i64)) -> Result<Offset> {
    let mut start = partition.log_start();
    if kept_ms >= 0 {
        let oldest_kept = now.saturating_sub(kept_ms);
        let first_kept = partition.first_entry_where(|entry| entry.running_timestamp >= oldest_kept)?;
        start = start.max(first_kept.map_or(partition.high_watermark(), |(base, _)| base));
    }
    // a pass of compaction that is under way counts what it removed at its end
    if kept_bytes >= 0 && partition.compaction().pass_end == 0 {
        let cut = partition.running_bytes().saturating_sub(kept_bytes);
        let first_kept = partition.first_entry_where(|entry| entry.running_bytes > cut)?;
        start = start.max(first_kept.map_or(partition.high_watermark(), |(base, _)| base));
    }
    Ok(start)
}

async fn forget_producers(broker: &Arc<Broker>, partition: &Arc<Partition>) -> Result<()> {
    let since = broker.clock().now_ms() - broker.settings().whole("producer.id.expiration.ms");
    let (store, log) = (broker.store().clone(), partition.id());
    let idle = blocking(move || {
        let (from, to) = keys::log_range(log);
        let mut idle = Vec::new();
        for entry in store.scan(Family::Producers, &from, &to) {
            let (key, value) = entry?;
            if ProducerState::decode(&value)?.last_append() <= since {
                idle.push(keys::base_offset_of(&key)?);
            }
        }
        Ok(idle)
    });
    let forget = |producer| Change::ForgetProducer(partition.clone(), producer, since);
    let changes: Vec<_> = idle.await?.into_iter().map(forget).collect();
    if !changes.is_empty() {
        broker.lane().commit(changes, Ack::Written).await?;
    }
    Ok(())
}
