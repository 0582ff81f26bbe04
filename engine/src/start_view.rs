//! Bringing one version of a view up: where it stands, and what it is to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Ack, Broker, PartitionIndex, TopicName};

use crate::error::Result;
use crate::follow::Follower;
use crate::history::HistorySlot;
use crate::identity::Version;
use crate::member::ViewMember;
use crate::pipeline::PipelineView;
use crate::quality::{Counters, Writer};
use crate::shared::{PipelineShared, Published, RunningView, SharedHold};
use crate::start::load;
use crate::state::{self, Position, Progress};
use crate::stream::Stream;
use crate::succession::Role;
use crate::telling::Telling;

/// A view that stands still: it is read as of where it stands, and the log is kept from there on.
pub(crate) fn paused_view(
    broker: &Arc<Broker>,
    Version { plan, view_id, .. }: &Version,
    hold: &Arc<SharedHold>,
) -> Result<RunningView> {
    let view_id = *view_id;
    let progress = load(broker, &state::view_progress_key(view_id))?;
    let shared = PipelineShared::new(broker::Waiter::new(), Ack::Written);
    *shared.failure.lock() = Some(format!("it is paused: RESUME MATERIALIZED VIEW \"{}\" lets it go on", plan.name));
    shared.end();
    let number = hold.number();
    hold.set_all(number, &progress.positions);
    let follower = Follower {
        what: format!("view {}", plan.name).into(),
        topic: plan.stream.topic().clone(),
        published: Arc::new(Published::new(progress)),
        pipeline: Arc::new(shared),
    };
    let (fill_to, paused) = (BTreeMap::new(), Some(number));
    Ok(RunningView { plan: plan.clone(), view_id, follower, fill_to, began_ms: 0, paused })
}

/// A view for a pipeline.
pub(crate) fn view_member(
    broker: &Arc<Broker>,
    Version { plan, view_id, succeeds }: &Version,
    streams: &[Arc<Stream>],
    history: &HistorySlot,
) -> Result<PipelineView> {
    let mut progress = load(broker, &state::view_progress_key(*view_id))?;
    begin_first(broker, (plan.stream.topic(), history), &mut progress);
    let published = Arc::new(Published::new(progress.clone()));
    let member = ViewMember::new(plan.clone(), *view_id, progress, broker.store())?;
    let role = match succeeds {
        true => Role::Successor,
        false => {
            Telling::load(&plan.name, streams, broker)?.map_or(Role::Served, |telling| Role::Telling(telling.into()))
        }
    };
    let counters = Counters::new(Writer::View, &plan.name);
    let mut view = PipelineView { member, published, counters, role: Role::Served };
    view.take_role(role);
    view.counters = Counters::new(view.writer(), &plan.name);
    Ok(view)
}

/// Has what was never read begin with what has left the log, where that may be kept.
pub(crate) fn begin_first(broker: &Broker, (topic, history): (&TopicName, &HistorySlot), progress: &mut Progress) {
    if *progress == Progress::default() && history.is_expected() {
        progress.positions = first_positions(broker, topic);
    }
}

/// Where one begins that reads what has left the log too: at the very first offsets. None where all is in the log.
fn first_positions(broker: &Broker, topic: &TopicName) -> BTreeMap<PartitionIndex, Position> {
    let partitions = broker.catalog().topic(topic).map(|topic| topic.partitions());
    let all: Vec<_> = partitions.iter().flat_map(|all| all.iter()).collect();
    if all.iter().all(|partition| partition.log_start() == 0) {
        return BTreeMap::new();
    }
    let first = |log| Position { log, next_offset: 0, max_event_ms: None };
    all.into_iter().map(|partition| (partition.index(), first(partition.id()))).collect()
}

/// Whether the log no longer has what comes next.
pub(crate) fn is_behind(broker: &Broker, topic: &TopicName, progress: &Progress) -> bool {
    let Some(topic) = broker.catalog().topic(topic) else { return false };
    topic.partitions().iter().any(|partition| {
        let position = progress.positions.get(&partition.index()).filter(|position| position.log == partition.id());
        position.is_some_and(|position| position.next_offset < partition.log_start())
    })
}
