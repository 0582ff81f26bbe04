//! Which stored state is a view's: by its id, which stands for one definition. Another definition gets another id, and all
//! that the former one left goes: first from the view's topic, then from the store.

use std::collections::HashMap;
use std::sync::Arc;

use broker::{Ack, Batch, Broker, Change, Family, Offset, Partition, TimestampMs};

use crate::emit::Outbox;
use crate::error::{EngineError, ErrorKind, Result};
use crate::quality;
use crate::state::{self, Definition};
use crate::view::ViewPlan;

/// Bytes of a view's topic that one commit answers with tombstones.
const READ_BYTES: usize = 1 << 20;
/// The fingerprint of no definition.
const LEFT: u64 = 0;

/// The view's id. State of another fingerprint is deleted and the view begins again from the log under a new id.
pub(crate) async fn identify(broker: &Arc<Broker>, plan: &ViewPlan) -> Result<u32> {
    let store = broker.store();
    let key = state::definition_key(&plan.name);
    let stored = store.get(Family::State, &key)?;
    let known = stored.as_deref().and_then(Definition::decode);
    if let Some(known) = known.filter(|known| known.fingerprint == plan.fingerprint) {
        return Ok(known.view_id);
    }
    let next = store.get(Family::State, &state::next_view_id_key())?;
    let view_id = next.as_deref().map(state::decode_next_view_id).transpose()?.unwrap_or(1);
    let following =
        view_id.checked_add(1).ok_or_else(|| EngineError::new(ErrorKind::Storage, "no view ids are left"))?;
    let definition = Definition { view_id, fingerprint: plan.fingerprint };
    let mut changes = vec![
        Change::Put(Family::State, state::next_view_id_key(), following.to_be_bytes().to_vec()),
        Change::Put(Family::State, key.clone(), definition.encode()),
        quality::forget_view(&plan.name),
    ];
    if let Some(known) = known {
        tracing::info!(view = &*plan.name, "the view or its stream has changed, it is computed again from the log");
        // Once its topic is being emptied, the former definition cannot be gone on with, whatever the next start says.
        let left = Definition { view_id: known.view_id, fingerprint: LEFT };
        broker.lane().commit(vec![Change::Put(Family::State, key, left.encode())], Ack::Durable).await?;
        empty_topic(broker, &plan.name).await?;
        changes.extend(state::forget(known.view_id));
        changes.push(Change::Delete(Family::State, state::view_progress_key(known.view_id)));
    }
    broker.lane().commit(changes, Ack::Durable).await?;
    Ok(view_id)
}

/// Tombstones for all that a view's topic shows, a portion of it at a time.
async fn empty_topic(broker: &Broker, view: &str) -> Result<()> {
    let Some(topic) = broker.catalog().topic(view) else { return Ok(()) };
    for partition in topic.partitions().iter() {
        let end = partition.last_stable_offset();
        let mut offset = partition.log_start();
        while offset < end {
            let mut outbox = Outbox::to(broker, view)?;
            let Some(next) = push_tombstones(&mut outbox, partition, offset, broker.clock().now_ms()).await? else {
                break;
            };
            offset = next;
            let changes = outbox.finish();
            if !changes.is_empty() {
                broker.lane().commit(changes, Ack::Durable).await?;
            }
        }
    }
    Ok(())
}

/// A tombstone for each key that has a value in the next portion; where to go on, or none at the end.
async fn push_tombstones(
    outbox: &mut Outbox,
    partition: &Arc<Partition>,
    from: Offset,
    now_ms: TimestampMs,
) -> Result<Option<Offset>> {
    let batches = partition.read_committed(from, READ_BYTES).await?;
    let mut newest: HashMap<Vec<u8>, bool> = HashMap::new();
    for batch in &batches {
        // What cannot be read was not written by the view.
        let Ok(mut records) = batch.records() else { continue };
        while let Some(Ok(record)) = records.next_ref() {
            if let Some(key) = record.key {
                newest.insert(key.to_vec(), record.value.is_some());
            }
        }
    }
    for (key, _) in newest.into_iter().filter(|(_, has_value)| *has_value) {
        outbox.push(now_ms, Some(&key), None, &[]);
    }
    Ok(batches.last().map(Batch::next_offset))
}
