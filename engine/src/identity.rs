//! Which stored state is a view's: by its id, which stands for one definition. Another definition gets another id and is filled beside
//! the one that is served, as its successor (`succession`). Where the former one can no longer be computed, because its stream is
//! another one now or another version of the program wrote it, all that it left goes: first from the view's topic, then from the store.

use std::collections::HashMap;
use std::sync::Arc;

use broker::{Ack, Batch, Broker, Change, Family, Offset, Partition, Store, TimestampMs};

use crate::config::ViewConfig;
use crate::emit::Outbox;
use crate::error::{EngineError, ErrorKind, Result};
use crate::quality::{self, Writer};
use crate::state::{self, Definition, StoredTelling};
use crate::stream::Stream;
use crate::telling::Stage;
use crate::view::ViewPlan;

/// Bytes of a view's topic that one commit answers with tombstones.
const READ_BYTES: usize = 1 << 20;
/// The fingerprint of no definition.
const LEFT: u64 = 0;

/// A version of a view, and the id of its state.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) plan: Arc<ViewPlan>,
    pub(crate) view_id: u32,
    /// Whether another version is served, and this one filled beside it.
    pub(crate) succeeds: bool,
}

/// The versions of a view that are to run.
pub(crate) struct Versions {
    pub(crate) served: Version,
    pub(crate) successor: Option<Version>,
}

/// The versions of a view that is declared so: the stored one is served for as long as it takes to fill the declared one.
pub(crate) async fn identify(broker: &Arc<Broker>, plan: &Arc<ViewPlan>, streams: &[Arc<Stream>]) -> Result<Versions> {
    let store = broker.store();
    let known = definition(store, &state::definition_key(&plan.name))?;
    let beside = definition(store, &state::successor_key(&plan.name))?;
    let as_stored = known.as_ref().and_then(|known| stored_version(plan, known, streams));
    let former = known.as_ref().filter(|_| as_stored.is_none()).and_then(|known| former_plan(known, streams));
    let can_go_on = can_tell(store, &plan.name, streams)?;
    let served = |plan, view_id| Version { plan, view_id, succeeds: false };
    let mut changes = Vec::new();
    let versions = match (known.as_ref().filter(|_| can_go_on), as_stored, former) {
        (Some(known), Some(plan), _) => {
            changes.extend(beside.iter().flat_map(|beside| forget_successor(&plan.name, beside)));
            changes.extend(keep(state::definition_key(&plan.name), &plan, known));
            Versions { served: served(plan, known.view_id), successor: None }
        }
        (Some(known), None, Some(former)) => {
            let successor = succeed(store, (plan, streams), beside, &mut changes)?;
            Versions { served: served(former, known.view_id), successor: Some(successor) }
        }
        _ => return begin_anew(broker, plan, known.clone()).await,
    };
    if !changes.is_empty() {
        broker.lane().commit(changes, Ack::Durable).await?;
    }
    Ok(versions)
}

/// The version that is to be filled: the one that is `beside` the served one already, or a new one in its place.
fn succeed(
    store: &Store,
    (plan, streams): (&Arc<ViewPlan>, &[Arc<Stream>]),
    beside: Option<Definition>,
    changes: &mut Vec<Change>,
) -> Result<Version> {
    let key = state::successor_key(&plan.name);
    if let Some((beside, plan)) = beside.as_ref().and_then(|known| Some((known, stored_version(plan, known, streams)?)))
    {
        changes.extend(keep(key, &plan, beside));
        return Ok(Version { plan, view_id: beside.view_id, succeeds: true });
    }
    tracing::info!(view = &*plan.name, "the view has changed, its new version is filled beside the former");
    changes.extend(beside.iter().flat_map(|beside| forget_successor(&plan.name, beside)));
    let (view_id, following) = next_view_id(store)?;
    changes.extend([following, put(key, &definition_of(plan, view_id))]);
    Ok(Version { plan: plan.clone(), view_id, succeeds: true })
}

/// Whether what the topic still has to hear of a former version can be told.
fn can_tell(store: &Store, view: &str, streams: &[Arc<Stream>]) -> Result<bool> {
    let stored = store.get(Family::State, &state::telling_key(view))?;
    let telling = stored.as_deref().and_then(StoredTelling::decode);
    Ok(telling.is_none_or(|telling| Stage::of(&telling).is_told() || former_plan(&telling.former, streams).is_some()))
}

/// The version that is declared, if the stored state is its: then with the fingerprint that this has.
fn stored_version(plan: &Arc<ViewPlan>, known: &Definition, streams: &[Arc<Stream>]) -> Option<Arc<ViewPlan>> {
    if plan.fingerprint == known.fingerprint {
        return Some(plan.clone());
    }
    compiled(
        ViewConfig { sql: plan.sql.clone(), retention_ms: plan.retention_ms, ..ViewConfig::default() },
        known,
        streams,
    )
}

/// A version compiled from what is stored of it; None when that is not what the stored state stands for any more.
pub(crate) fn former_plan(known: &Definition, streams: &[Arc<Stream>]) -> Option<Arc<ViewPlan>> {
    let config = ViewConfig { sql: known.sql.clone(), retention_ms: known.retention_ms, ..ViewConfig::default() };
    compiled(config, known, streams)
}

fn compiled(config: ViewConfig, known: &Definition, streams: &[Arc<Stream>]) -> Option<Arc<ViewPlan>> {
    ViewPlan::new(&config, streams).ok()?.of_state(known.fingerprint).map(Arc::new)
}

/// A view without state, under a new id. What another definition left in its topic and in the store goes.
async fn begin_anew(broker: &Arc<Broker>, plan: &Arc<ViewPlan>, known: Option<Definition>) -> Result<Versions> {
    let store = broker.store();
    let key = state::definition_key(&plan.name);
    let (view_id, following) = next_view_id(store)?;
    let mut changes = forget_all(store, &plan.name)?;
    if let Some(known) = known {
        tracing::info!(view = &*plan.name, "the view or its stream has changed, it is computed again from the log");
        // Once its topic is being emptied, the former definition cannot be gone on with, whatever the next start says.
        let left = Definition { fingerprint: LEFT, sql: String::new(), ..known };
        broker.lane().commit(vec![put(key.clone(), &left)], Ack::Durable).await?;
        empty_topic(broker, &plan.name).await?;
    }
    changes.extend([following, put(key, &definition_of(plan, view_id))]);
    broker.lane().commit(changes, Ack::Durable).await?;
    let served = Version { plan: plan.clone(), view_id, succeeds: false };
    Ok(Versions { served, successor: None })
}

/// What deletes all that the store has of a view: of the version that is served, of one beside it, and of a former one.
pub(crate) fn forget_all(store: &Store, view: &str) -> Result<Vec<Change>> {
    let mut changes = vec![quality::forget(Writer::View, view)];
    if let Some(known) = definition(store, &state::definition_key(view))? {
        changes.extend(state::forget_whole(known.view_id));
    }
    if let Some(beside) = definition(store, &state::successor_key(view))? {
        changes.extend(forget_successor(view, &beside));
    }
    let key = state::telling_key(view);
    if let Some(telling) = store.get(Family::State, &key)?.as_deref().and_then(StoredTelling::decode) {
        changes.extend(state::forget_whole(telling.former.view_id));
        changes.push(Change::Delete(Family::State, key));
    }
    changes.push(Change::Delete(Family::State, state::definition_key(view)));
    Ok(changes)
}

/// What deletes a version that will not take over.
fn forget_successor(view: &str, beside: &Definition) -> Vec<Change> {
    let mut changes = state::forget_whole(beside.view_id);
    changes
        .extend([quality::forget(Writer::Successor, view), Change::Delete(Family::State, state::successor_key(view))]);
    changes
}

pub(crate) fn definition_of(plan: &ViewPlan, view_id: u32) -> Definition {
    let (fingerprint, retention_ms) = (plan.fingerprint, plan.retention_ms);
    Definition { view_id, fingerprint, retention_ms, sql: plan.sql.clone() }
}

fn definition(store: &Store, key: &[u8]) -> Result<Option<Definition>> {
    Ok(store.get(Family::State, key)?.as_deref().and_then(Definition::decode))
}

/// What stores the text of a version, where it is another one for the same state.
fn keep(key: Vec<u8>, plan: &ViewPlan, known: &Definition) -> Option<Change> {
    let kept = definition_of(plan, known.view_id);
    (kept != *known).then(|| put(key, &kept))
}

fn put(key: Vec<u8>, definition: &Definition) -> Change {
    Change::Put(Family::State, key, definition.encode())
}

/// An id that nothing has, and what makes it so.
fn next_view_id(store: &Store) -> Result<(u32, Change)> {
    let next = store.get(Family::State, &state::next_view_id_key())?;
    let view_id = next.as_deref().map(state::decode_next_view_id).transpose()?.unwrap_or(1);
    let following =
        view_id.checked_add(1).ok_or_else(|| EngineError::new(ErrorKind::Storage, "no view ids are left"))?;
    let following = Change::Put(Family::State, state::next_view_id_key(), following.to_be_bytes().to_vec());
    Ok((view_id, following))
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
