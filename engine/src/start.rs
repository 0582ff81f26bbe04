//! Bringing the engine up: topics, view ids, stored progress, and which members share a pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Ack, Broker, Change, Family, NewTopic};

use crate::check::{Compiled, LATE_SUFFIX, REJECTED_SUFFIX};
use crate::error::{EngineError, ErrorKind, Result};
use crate::member::ViewMember;
use crate::pipeline::{Pipeline, PipelineView, StreamMember};
use crate::shared::{PipelineShared, Published, RunningView, SharedHold};
use crate::source::Source;
use crate::state::{self, Definition, Progress};
use crate::stream::Stream;
use crate::view::ViewPlan;

/// The pipelines, ready to run, and what is seen of them.
pub(crate) struct Prepared {
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) views: Vec<RunningView>,
    pub(crate) streams: Vec<(Arc<Stream>, Arc<Published>)>,
}

/// Creates topics, gives ids to new views, throws away the state of changed ones, and groups members by position.
pub(crate) async fn prepare(broker: &Arc<Broker>, compiled: &Compiled) -> Result<Prepared> {
    ensure_topics(broker, compiled).await?;
    let mut ids = Vec::new();
    for plan in &compiled.views {
        ids.push(identify(broker, plan).await?);
    }
    let hold = Arc::new(SharedHold::new(broker.holds().register("engine")));
    let mut prepared = Prepared { pipelines: Vec::new(), views: Vec::new(), streams: Vec::new() };
    for stream in &compiled.streams {
        let progress = load(broker, &state::stream_progress_key(stream.name()))?;
        let published = Arc::new(Published::new(progress.clone()));
        prepared.streams.push((stream.clone(), published.clone()));
        let mut groups: Vec<(Progress, Option<StreamMember>, Vec<PipelineView>)> =
            vec![(progress.clone(), Some(StreamMember { progress, published }), Vec::new())];
        for (plan, view_id) in compiled.views.iter().zip(&ids).filter(|(plan, _)| plan.stream.name() == stream.name()) {
            let progress = load(broker, &state::view_progress_key(*view_id))?;
            let published = Arc::new(Published::new(progress.clone()));
            let member = ViewMember::new(plan.clone(), *view_id, progress.clone())?;
            let view = PipelineView { member, published };
            match groups.iter_mut().find(|(stands, ..)| stands.stands_with(&progress)) {
                Some((.., views)) => views.push(view),
                None => groups.push((progress, None, vec![view])),
            }
        }
        for (stands, stream_member, views) in groups {
            let number = prepared.pipelines.len();
            let source = Source::new(broker.clone(), stream.topic().clone(), stands.positions);
            let shared = Arc::new(PipelineShared::new(source.waiter().clone()));
            for view in &views {
                prepared.views.push(RunningView {
                    plan: view.member.plan.clone(),
                    view_id: view.member.view_id,
                    published: view.published.clone(),
                    pipeline: shared.clone(),
                });
            }
            prepared.pipelines.push(Pipeline {
                number,
                broker: broker.clone(),
                stream: stream.clone(),
                source,
                stream_member,
                views,
                event_watermark: stands.event_watermark,
                shared,
                hold: hold.clone(),
            });
        }
    }
    // In the order of the configuration, whatever pipeline they are in.
    let place = |view: &RunningView| compiled.views.iter().position(|plan| plan.name == view.plan.name);
    prepared.views.sort_by_key(place);
    Ok(prepared)
}

async fn ensure_topics(broker: &Arc<Broker>, compiled: &Compiled) -> Result<()> {
    let catalog = broker.catalog();
    let new = |name: String, partitions: i32, config: BTreeMap<String, String>| NewTopic { name, partitions, config };
    for stream in &compiled.streams {
        catalog.ensure(new(stream.topic().to_string(), broker.config().num_partitions, BTreeMap::new())).await?;
        catalog.ensure(new(format!("{}{REJECTED_SUFFIX}", stream.name()), 1, BTreeMap::new())).await?;
    }
    for plan in &compiled.views {
        let compact = BTreeMap::from([("cleanup.policy".to_string(), "compact".to_string())]);
        catalog.ensure(new(plan.name.to_string(), 1, compact)).await?;
        catalog.ensure(new(format!("{}{LATE_SUFFIX}", plan.name), 1, BTreeMap::new())).await?;
    }
    Ok(())
}

/// The view's id. State of another fingerprint is deleted and the view begins again from the log under a new id.
async fn identify(broker: &Arc<Broker>, plan: &ViewPlan) -> Result<u32> {
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
        Change::Put(Family::State, key, definition.encode()),
    ];
    if let Some(known) = known {
        tracing::info!(view = &*plan.name, "the view or its stream has changed, it is computed again from the log");
        let (from, to) = state::state_range(known.view_id);
        changes.push(Change::DeleteRange(Family::State, from, to));
        changes.push(Change::Delete(Family::State, state::view_progress_key(known.view_id)));
    }
    broker.lane().commit(changes, Ack::Durable).await?;
    Ok(view_id)
}

fn load(broker: &Arc<Broker>, key: &[u8]) -> Result<Progress> {
    match broker.store().get(Family::State, key)? {
        Some(bytes) => Progress::decode(&bytes),
        None => Ok(Progress::default()),
    }
}
