//! Looking after a version of a view that is filled beside the one that is served, until it takes over: when it is near, the
//! served one leaves its pipeline, and stands still and readable for the step or two that the other needs to stand where it
//! stands (`succession`). Then the snapshot of what runs shows the new one, so readers never go back. No declaration changes meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use broker::{Broker, Family, PartitionIndex};
use tokio::sync::oneshot;

use crate::Engine;
use crate::check::Compiled;
use crate::error::Result;
use crate::follow::lag;
use crate::identity::Version;
use crate::running::Running;
use crate::shared::{Promotion, RunningView, Who};
use crate::source::STEP_RECORDS;
use crate::start::{Commons, More, prepare_more};
use crate::state::{self, Position};

/// How often is looked whether one is near, on a quiet stream.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time for which the served version stands still; then it goes on, and all is tried again.
const PROMOTION_MAX: Duration = Duration::from_secs(10);

impl Engine {
    /// Starts what comes to what runs.
    pub(crate) async fn start_more(self: &Arc<Self>, running: &mut Running, more: More<'_>) -> Result<()> {
        let commons = Commons { hold: &self.hold, history: &self.history };
        let mut prepared = prepare_more(&self.broker, more, &running.tables, commons).await?;
        self.workers.start(&mut prepared)?;
        let known = prepared.views.iter().filter_map(|view| running.view(&view.plan.name).ok());
        let known: Vec<Arc<RunningView>> = known.cloned().collect();
        let come: Vec<Arc<str>> = prepared.successors.iter().map(|view| view.plan.name.clone()).collect();
        running.add(&mut prepared);
        self.show(running);
        for before in &known {
            before.paused.into_iter().for_each(|number| self.hold.release(number));
            // Who waits for it, or watches its rows, goes on with what took its place.
            running.view(&before.plan.name)?.follower.published.take_over(&before.follower.published);
        }
        let come = come.iter().filter_map(|name| running.successor(name));
        come.for_each(|successor| self.watch(successor.clone()));
        Ok(())
    }

    /// Has a successor take over when it is near, unless it goes before.
    pub(crate) fn watch(self: &Arc<Self>, successor: Arc<RunningView>) {
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut advanced = successor.follower.published.advanced.subscribe();
            while look(&engine, &successor).await {
                let _ = tokio::time::timeout(LOOK, advanced.changed()).await;
            }
        });
    }

    /// Whether it still is the one that is filled beside the served one.
    fn is_filling(&self, successor: &Arc<RunningView>) -> bool {
        let running = self.running();
        running.successor(&successor.plan.name).is_some_and(|view| Arc::ptr_eq(view, successor))
            && successor.follower.stopped().is_none()
    }

    /// Whether it is near the version that is served, which is not paused, and whose own taking over is done with.
    fn is_due(&self, successor: &RunningView) -> Result<bool> {
        let running = self.running();
        let name = &successor.plan.name;
        let served = running.view(name)?;
        let is_near = behind(&self.broker, served, successor) <= STEP_RECORDS as i64;
        if served.paused.is_some() || !is_near || !has_reached_log(&self.broker, successor) {
            return Ok(false);
        }
        Ok(self.broker.store().get(Family::State, &state::telling_key(name))?.is_none())
    }

    /// What is to be done when it is near; whether it has taken over.
    async fn take_over(self: &Arc<Self>, successor: &Arc<RunningView>) -> Result<bool> {
        let mut running = (*self.running()).clone();
        let name = successor.plan.name.clone();
        let served = running.view(&name)?.clone();
        if running.is_read(&name) {
            successor.follower.pipeline.be_read();
        }
        // From where it stands on the log is kept: it may have to go on.
        let number = self.hold.number();
        let stands = served.follower.published.progress.lock().positions.clone();
        self.hold.set_all(number, &stands);
        served.follower.pipeline.leave(Who::View(name.to_string())).await;
        let (done, taken) = oneshot::channel();
        let at = meeting(&self.broker, &served, successor);
        let pipeline = &successor.follower.pipeline;
        pipeline.promote(Promotion { at, former: served.clone(), done });
        let has_taken_over = is_taken(successor, taken).await;
        if has_taken_over {
            running.take_over(successor);
            self.show(&running);
            successor.follower.published.take_over(&served.follower.published);
            drop(served);
            // Nobody else may have the former one now.
            successor.follower.pipeline.waiter.wake();
        } else {
            tracing::warn!(view = &*name, "the new version of the view cannot take over yet, the former goes on");
            let version = Version { plan: served.plan.clone(), view_id: served.view_id, succeeds: false };
            let (new, whole) = (Compiled::default(), running.compiled.clone());
            self.start_more(&mut running, More { new: &new, versions: &[version], whole: &whole }).await?;
        }
        self.hold.release(number);
        Ok(has_taken_over)
    }
}

/// Whether it is to be looked at again.
async fn look(engine: &Weak<Engine>, successor: &Arc<RunningView>) -> bool {
    let Some(engine) = engine.upgrade() else { return false };
    let due = engine.is_due(successor);
    if !engine.is_filling(successor) {
        return false;
    }
    if !matches!(due, Ok(true)) {
        return true;
    }
    let _alone = engine.changing.clone().lock_owned().await;
    // Something may have been declared before this was its turn.
    if !engine.is_filling(successor) {
        return false;
    }
    if !matches!(engine.is_due(successor), Ok(true)) {
        return true;
    }
    match engine.take_over(successor).await {
        Ok(has_taken_over) => !has_taken_over,
        Err(error) => {
            let view = &*successor.plan.name;
            tracing::error!(view, %error, "the new version of the view cannot take over, the next start tries again");
            false
        }
    }
}

/// Whether the successor has taken over; if not, it will not.
async fn is_taken(successor: &RunningView, mut taken: oneshot::Receiver<()>) -> bool {
    match tokio::time::timeout(PROMOTION_MAX, &mut taken).await {
        Ok(answer) => answer.is_ok(),
        // Once it is taken from there, its commit is under way.
        Err(_) => match successor.follower.pipeline.take_promotion(|_| true) {
            Some(_) => false,
            None => taken.await.is_ok(),
        },
    }
}

/// Where the successor must stand to take over: where the served version stands; where the two read different topics, at the end of its own.
fn meeting(broker: &Broker, served: &RunningView, successor: &RunningView) -> BTreeMap<PartitionIndex, Position> {
    if served.follower.topic == successor.follower.topic {
        return served.follower.published.progress.lock().positions.clone();
    }
    let Some(topic) = broker.catalog().topic(&successor.follower.topic) else { return BTreeMap::new() };
    let ends = topic.partitions();
    let end = |partition: &Arc<broker::Partition>| {
        let next_offset = partition.last_stable_offset();
        (partition.index(), Position { log: partition.id(), next_offset, max_event_ms: None })
    };
    ends.iter().map(end).collect()
}

/// Whether nothing that has left the log is left to read: that may take any time.
fn has_reached_log(broker: &Broker, successor: &RunningView) -> bool {
    let topic = &successor.follower.topic;
    let next = successor.follower.offsets(broker).remove(topic).unwrap_or_default();
    let partitions = broker.catalog().topic(topic).map(|topic| topic.partitions());
    let mut all = partitions.iter().flat_map(|all| all.iter());
    all.all(|partition| next.get(&partition.index()).is_none_or(|next| *next >= partition.log_start()))
}

/// How many offsets the successor has to read before it can take over.
pub(crate) fn behind(broker: &Broker, served: &RunningView, successor: &RunningView) -> i64 {
    let next = |view: &RunningView| view.follower.offsets(broker).remove(&view.follower.topic).unwrap_or_default();
    let to = match served.follower.topic == successor.follower.topic {
        true => next(served),
        false => successor.follower.ends(broker),
    };
    lag(&next(successor), &to)
}
