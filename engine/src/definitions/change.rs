//! A change of what is declared, from its rules to its effects: one commit of all rows of a script, then what follows.
//!
//! Only one change is under way. What it starts is shown when it runs; what it takes away is not shown any more before its
//! pipeline lets it go. After a crash behind the commit, the next start finds the rows and does the same.

use std::sync::Arc;

use broker::{Ack, TopicName};
use tokio::sync::OwnedMutexGuard;

use super::departure::clear;
use super::draft::{Draft, Step, Surroundings};
use super::explain::steps;
use super::script::Script;
use super::{Kind, Mistake};
use crate::check::Compiled;
use crate::claims::claims;
use crate::error::{EngineError, Result};
use crate::identity::{Version, identify};
use crate::running::Running;
use crate::shared::{RunningView, Who};
use crate::start::More;
use crate::start_view::paused_view;
use crate::stream::Stream;
use crate::view::ViewPlan;
use crate::{Engine, ViewInfo};

/// The turn of one who may change what is declared. Nobody else can, as long as it lives.
pub struct Turn {
    engine: Arc<Engine>,
    alone: OwnedMutexGuard<()>,
}

/// A script that may be applied.
pub struct Change {
    turn: Turn,
    after: Running,
    rows: Vec<broker::Change>,
    steps: Vec<Step>,
    done: Vec<Done>,
}

/// What became of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// What it was about.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// `created`, `dropped`, or why there was nothing to do.
    pub result: &'static str,
}

/// Something new, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The topic that it reads; of a derived stream, that it writes and reads back.
    pub topic: Option<TopicName>,
    /// The streams and tables that it is computed from.
    pub from: Vec<String>,
}

impl Engine {
    /// Waits for the turn to change what is declared.
    pub async fn turn(self: &Arc<Self>) -> Turn {
        Turn { engine: self.clone(), alone: self.changing.clone().lock_owned().await }
    }
}

impl Turn {
    /// Checks a script against what is declared. Nothing is changed yet.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn decide(self, script: &Script, outside: &Surroundings<'_>) -> std::result::Result<Change, Vec<Mistake>> {
        let running = self.engine.running();
        let mut draft = Draft::new(&self.engine.broker, &running, outside);
        draft.take_all(&script.statements)?;
        let Draft { after, rows, steps, done, .. } = draft;
        Ok(Change { turn: self, after, rows, steps, done })
    }
}

impl Change {
    /// What it will start, and what that is made of: whoever restricts what readers see knows it before it is there.
    pub fn made(&self) -> Vec<Made> {
        let mut made = Vec::new();
        for step in &self.steps {
            match step {
                Step::Start(new) => made.extend(made_by(new)),
                Step::Replace(plan) => made.push(of_view(plan)),
                Step::GoOn(_) | Step::Drop(..) | Step::Pause(_) | Step::Resume(_) => {}
            }
        }
        made
    }

    /// The views that it will give another definition, as they will be.
    pub fn replaced(&self) -> Vec<ViewInfo> {
        let replaced = self.steps.iter().filter_map(|step| match step {
            Step::Replace(plan) => Some(ViewInfo::of(plan)),
            _ => None,
        });
        replaced.collect()
    }

    /// All streams that there will be.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.after.compiled.streams.clone()
    }

    /// How the views that it makes will be computed, step by step; without any, what is there already.
    pub fn explain(&self) -> Vec<(&'static str, String)> {
        let mut explained = Vec::new();
        for step in &self.steps {
            let plans: &[Arc<ViewPlan>] = match step {
                Step::Start(new) => &new.views,
                Step::Replace(plan) => std::slice::from_ref(plan),
                Step::GoOn(_) | Step::Drop(..) | Step::Pause(_) | Step::Resume(_) => &[],
            };
            let reading = "in a reading of its own until the next start";
            explained.extend(plans.iter().flat_map(|plan| steps(plan, reading)));
        }
        if explained.is_empty() {
            let told = |done: &Done| ("nothing to do", format!("{} {} {}", done.kind.word(), done.name, done.result));
            explained.extend(self.done.iter().map(told));
        }
        explained
    }

    /// Whether it changes anything.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Applies it, to its end even if the caller goes away.
    ///
    /// # Errors
    /// `Storage`: nothing was changed, or, as the message says then, the rest follows at the next start.
    pub async fn apply(self) -> Result<Vec<Done>> {
        let done = tokio::spawn(self.run()).await;
        done.map_err(|error| EngineError::bug(format!("a change of declarations was broken off: {error}")))?
    }

    async fn run(self) -> Result<Vec<Done>> {
        let Change { turn, after, rows, steps, done } = self;
        let engine = &turn.engine;
        if !rows.is_empty() {
            engine.broker.lane().commit(rows, Ack::Durable).await?;
        }
        engine.broker.catalog().claim(claims(&after)).await;
        let mut work = Work { engine, running: (*engine.running()).clone(), after };
        for step in steps {
            let taken = work.take(step).await;
            taken.map_err(|error| EngineError {
                message: format!("{}; it is declared, and what is left to do follows at the next start", error.message),
                ..error
            })?;
        }
        // As the draft has it: places and order of the declarations.
        work.running.config = work.after.config.clone();
        work.running.by_sql = work.after.by_sql.clone();
        work.running.compiled = work.after.compiled.clone();
        engine.show(&work.running);
        drop(turn.alone);
        Ok(done)
    }
}

/// A change at work.
pub(super) struct Work<'e> {
    pub(super) engine: &'e Arc<Engine>,
    /// What runs now.
    pub(super) running: Running,
    /// What will.
    pub(super) after: Running,
}

impl Work<'_> {
    async fn take(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Start(new) => {
                let mut versions = Vec::new();
                for plan in &new.views {
                    let known = identify(&self.engine.broker, plan, &self.after.compiled.streams).await?;
                    versions.extend([known.served].into_iter().chain(known.successor));
                }
                self.start(&new, &versions).await
            }
            Step::Replace(plan) => self.replace(&plan).await,
            Step::GoOn(new) => self.go_on(&new).await,
            Step::Drop(kind, name) => self.drop_one(kind, &name).await,
            Step::Pause(name) => self.pause(&name).await,
            Step::Resume(name) => {
                let view = self.running.view(&name)?;
                let version = Version { plan: view.plan.clone(), view_id: view.view_id, succeeds: false };
                self.let_view_go(&name).await;
                self.start(&Compiled::default(), &[version]).await
            }
        }
    }

    /// Another definition of a view, or another retention: it is filled beside the version that is served, which goes on
    /// until then, also when it was paused. One that was being filled for a third definition goes.
    async fn replace(&mut self, plan: &Arc<ViewPlan>) -> Result<()> {
        let name = &*plan.name;
        let served = self.running.view(name)?.clone();
        let is_same = |view: &RunningView| {
            (view.plan.fingerprint, view.plan.retention_ms) == (plan.fingerprint, plan.retention_ms)
        };
        let beside = self.running.successor(name).cloned();
        let stays = beside.as_ref().is_some_and(|beside| is_same(beside));
        if let Some(beside) = beside.filter(|_| !stays) {
            beside.follower.pipeline.leave(Who::View(name.to_string())).await;
            self.running.successors.retain(|view| *view.plan.name != *name);
            self.engine.show(&self.running);
        }
        let known = identify(&self.engine.broker, plan, &self.after.compiled.streams).await?;
        let is_declared = known.successor.is_none();
        let mut versions: Vec<Version> = known.successor.into_iter().filter(|_| !stays).collect();
        if is_declared || served.paused.is_some() {
            self.let_view_go(name).await;
            versions.push(known.served);
        }
        self.start(&Compiled::default(), &versions).await
    }

    /// Starts what is new, and versions of views; one takes the place of what runs in its.
    pub(super) async fn start(&mut self, new: &Compiled, versions: &[Version]) -> Result<()> {
        // Who writes what is read from now on must have it visible when it says so.
        let topics = new.streams.iter().map(|stream| stream.topic()).chain(new.tables.iter().filter_map(|t| t.topic()));
        for topic in topics {
            self.running.writers(topic).iter().for_each(|writer| writer.pipeline.be_read());
        }
        let more = More { new, versions, whole: &self.after.compiled };
        self.engine.start_more(&mut self.running, more).await
    }

    /// Ends the work of a view that stays to be seen.
    async fn let_view_go(&self, name: &str) {
        if let Ok(view) = self.running.view(name) {
            view.follower.pipeline.leave(Who::View(name.to_string())).await;
        }
    }

    async fn pause(&mut self, name: &str) -> Result<()> {
        let view = self.running.view(name)?.clone();
        // Held before it is let go: between the two nothing may be deleted.
        let number = self.engine.hold.number();
        self.engine.hold.set_all(number, &view.follower.published.progress.lock().positions.clone());
        self.let_view_go(name).await;
        let version = Version { plan: view.plan.clone(), view_id: view.view_id, succeeds: false };
        let paused = paused_view(&self.engine.broker, &version, &self.engine.hold)?;
        self.engine.hold.release(number);
        let views = self.running.views.iter_mut().filter(|known| *known.plan.name == *name);
        let paused = Arc::new(paused);
        views.for_each(|known| *known = paused.clone());
        self.engine.show(&self.running);
        // Who waited for it must not wait for what no longer comes.
        paused.follower.published.take_over(&view.follower.published);
        Ok(())
    }

    async fn drop_one(&mut self, kind: Kind, name: &str) -> Result<()> {
        let (followers, held) = self.take_out(kind, name);
        let key = (kind, name.to_string());
        let Some(definition) = self.running.by_sql.0.remove(&key) else { return Ok(()) };
        self.engine.show(&self.running);
        for (follower, who) in followers {
            follower.pipeline.leave(who).await;
            follower.published.look_again();
        }
        held.into_iter().for_each(|number| self.engine.hold.release(number));
        clear(&self.engine.broker, kind, name, &definition).await
    }

    /// Takes a declaration out of what is shown; gives who has to let it go, and the number of a hold on the log.
    fn take_out(&mut self, kind: Kind, name: &str) -> (Vec<(crate::follow::Follower, Who)>, Option<usize>) {
        let running = &mut self.running;
        let mut followers = Vec::new();
        let mut held = None;
        match kind {
            Kind::View => {
                let gone = running.views.iter().filter(|view| *view.plan.name == *name);
                for view in gone {
                    held = view.paused;
                    followers.push((view.follower.clone(), Who::View(name.to_string())));
                }
                let beside = running.successor(name);
                followers.extend(beside.map(|view| (view.follower.clone(), Who::View(name.to_string()))));
                running.views.retain(|view| *view.plan.name != *name);
                running.successors.retain(|view| *view.plan.name != *name);
            }
            Kind::Stream => {
                let derived = running.derived.iter().filter(|known| known.plan.stream.name() == name);
                let of_derived = derived.flat_map(|known| known.followers());
                followers.extend(of_derived.map(|follower| (follower.clone(), Who::Derived(name.to_string()))));
                let reading = running.streams.iter().filter(|(stream, _)| stream.name() == name);
                followers.extend(reading.map(|(_, follower)| (follower.clone(), Who::Reading)));
                running.derived.retain(|known| known.plan.stream.name() != name);
                running.streams.retain(|(stream, _)| stream.name() != name);
            }
            Kind::Table => {
                let gone = running.tables.iter().filter(|known| known.table.name() == name);
                followers.extend(gone.filter_map(|known| Some((known.follower.clone()?, Who::Reading))));
                running.tables.retain(|known| known.table.name() != name);
            }
        }
        (followers, held)
    }
}

fn made_by(new: &Compiled) -> Vec<Made> {
    let stream = |stream: &Arc<Stream>| {
        let derived = new.derived.iter().filter(|plan| plan.stream.name() == stream.name());
        let tables = derived.clone().flat_map(|plan| plan.tables.iter().map(|table| table.name().to_string()));
        let sources = derived.flat_map(|plan| plan.sources().map(|source| source.name().to_string()));
        let from = sources.chain(tables).collect();
        Made { kind: Kind::Stream, name: stream.name().to_string(), topic: Some(stream.topic().clone()), from }
    };
    let mut made: Vec<Made> = new.streams.iter().map(stream).collect();
    made.extend(new.tables.iter().map(|table| Made {
        kind: Kind::Table,
        name: table.name().to_string(),
        topic: table.topic().cloned(),
        from: Vec::new(),
    }));
    made.extend(new.views.iter().map(of_view));
    made
}

fn of_view(plan: &Arc<ViewPlan>) -> Made {
    let from = vec![plan.stream.name().to_string()];
    Made { kind: Kind::View, name: plan.name.to_string(), topic: None, from }
}
