//! Streams that were altered, and all that is computed from them, go on: they leave their pipelines between two steps, and new ones
//! begin where their commits ended. Until then what is shown of them is what was; who waits for them waits for the new ones.

use std::sync::Arc;

use super::change::Work;
use crate::check::Compiled;
use crate::error::Result;
use crate::follow::Follower;
use crate::identity::{Version, identify};
use crate::shared::Who;

/// Who leaves, and under which number its log is held meanwhile.
struct Left {
    follower: Follower,
    who: Who,
    held: usize,
}

impl Work<'_> {
    pub(super) async fn go_on(&mut self, new: &Compiled) -> Result<()> {
        let left: Vec<Left> = self.followers(new).into_iter().map(|(follower, who)| self.hold(follower, who)).collect();
        for Left { follower, who, .. } in &left {
            follower.pipeline.leave(who.clone()).await;
        }
        // Held from where they stand now: nothing of it may go before the new ones hold it.
        for Left { follower, held, .. } in &left {
            let positions = follower.published.progress.lock().positions.clone();
            self.engine.hold.set_all(*held, &positions);
        }
        let is_new = |name: &str| new.streams.iter().any(|stream| stream.name() == name);
        self.running.streams.retain(|(stream, _)| !is_new(stream.name()));
        self.running.derived.retain(|known| !is_new(known.plan.stream.name()));
        let mut versions: Vec<Version> = Vec::new();
        for plan in &new.views {
            let known = identify(&self.engine.broker, plan, &self.after.compiled.streams).await?;
            versions.extend([known.served].into_iter().chain(known.successor));
        }
        self.start(new, &versions).await?;
        let place = |name: &str| self.after.compiled.streams.iter().position(|stream| stream.name() == name);
        self.running.streams.sort_by_key(|(stream, _)| place(stream.name()));
        self.engine.show(&self.running);
        for Left { follower, held, .. } in left {
            self.engine.hold.release(held);
            if let Some(after) = self.in_place_of(&follower) {
                after.published.take_over(&follower.published);
            }
        }
        Ok(())
    }

    /// What works on these now: who reads before what is read.
    fn followers(&self, new: &Compiled) -> Vec<(Follower, Who)> {
        let mut followers = Vec::new();
        for plan in &new.views {
            let view = self.running.view(&plan.name).ok();
            followers.extend(view.map(|view| (view.follower.clone(), Who::View(plan.name.to_string()))));
        }
        for stream in new.streams.iter().rev() {
            let name = stream.name();
            let derived = self.running.derived(name).into_iter().flat_map(|known| known.followers().cloned());
            followers.extend(derived.map(|follower| (follower, Who::Derived(name.to_string()))));
            let reading = self.running.streams.iter().filter(|(known, _)| known.name() == name);
            followers.extend(reading.map(|(_, follower)| (follower.clone(), Who::Reading)));
        }
        followers
    }

    fn hold(&self, follower: Follower, who: Who) -> Left {
        let held = self.engine.hold.number();
        self.engine.hold.set_all(held, &follower.published.progress.lock().positions.clone());
        Left { follower, who, held }
    }

    /// What does the same work now. Views have taken over from theirs already.
    fn in_place_of(&self, before: &Follower) -> Option<&Follower> {
        let readings = self.running.streams.iter().map(|(_, follower)| follower);
        let derived = self.running.derived.iter().flat_map(|known| known.followers());
        let is_it = |follower: &&Follower| {
            follower.what == before.what
                && follower.topic == before.topic
                && !Arc::ptr_eq(&follower.published, &before.published)
        };
        readings.chain(derived).find(is_it)
    }
}
