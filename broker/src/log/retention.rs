//! Retention by time and size (`retention.ms`, `retention.bytes`), and forgetting idle producers. Works on the index alone:
//! no record is looked at. Finer than Kafka, which deletes whole segments: here every batch goes when it is due.

use std::sync::Arc;
use std::time::Duration;

use crate::Broker;
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
                blocking(move || due_start(&partition, now)).await?
            };
            let floor = broker.holds().floor(partition.id()).unwrap_or(Offset::MAX);
            if due.min(floor) > partition.log_start() {
                let change = Change::LogStart(partition.clone(), due.min(floor));
                broker.lane().commit(vec![change], Ack::Durable).await?;
            }
            forget_producers(broker, partition).await?;
        }
    }
    Ok(())
}

/// Where the log of a partition may begin by its settings.
fn due_start(partition: &Partition, now: TimestampMs) -> Result<Offset> {
    let config = partition.config();
    if !config.deletes() {
        return Ok(partition.log_start());
    }
    let mut start = partition.log_start();
    if config.retention_ms() >= 0 {
        let oldest_kept = now.saturating_sub(config.retention_ms());
        let first_kept = partition.first_entry_where(|entry| entry.running_timestamp >= oldest_kept)?;
        start = start.max(first_kept.map_or(partition.high_watermark(), |(base, _)| base));
    }
    // a pass of compaction that is under way counts what it removed at its end
    if config.retention_bytes() >= 0 && partition.compaction().pass_end == 0 {
        let cut = partition.running_bytes().saturating_sub(config.retention_bytes());
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
