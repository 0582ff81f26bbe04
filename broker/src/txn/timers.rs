//! What is due although nobody asks: transactions that took too long, transactional ids that nobody uses any more.

use std::sync::Weak;
use std::time::Duration;

use crate::Broker;

/// How often open transactions are looked at. Kafka does it every ten seconds; here it costs a look at the memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often unused ids are looked for, as in Kafka.
const SWEEP_EVERY_MS: i64 = 3_600_000;

/// Does what is due, until the broker is dropped.
pub(crate) async fn run(broker: Weak<Broker>) {
    let mut swept_at = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(broker) = broker.upgrade() else { return };
        let txns = broker.transactions().clone();
        if let Err(error) = txns.abort_overdue(&broker).await {
            tracing::warn!(%error, "a transaction that took too long could not be aborted, the next round tries again");
        }
        let now = broker.clock().steady_ms();
        if now - *swept_at.get_or_insert(now) >= SWEEP_EVERY_MS {
            swept_at = Some(now);
            if let Err(error) = txns.forget_expired(&broker).await {
                tracing::warn!(%error, "unused transactional ids could not be removed, the next round tries again");
            }
        }
    }
}
