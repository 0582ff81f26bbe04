//! Sources: files that are read into topics, each row once.
//!
//! A file goes: `discover` (which files; known by content or not) → `reader` (rows, by `fields` and `piece`) → `plan` and
//! `rules` (types, computed columns, checks; refusals) → `publish` (records) → one commit with the position (`load`).
//! `shared` is what is seen of a source, `stored` what it remembers.

mod check;
mod config;
mod discover;
mod fields;
mod load;
mod piece;
mod plan;
mod publish;
mod reader;
mod remote;
mod rules;
mod sftp;
mod shared;
mod status;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{Ack, Broker, Change, Family, NewTopic, Topic};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

pub use self::check::check_sources;
pub use self::config::{CsvFormat, Encoding, FileFormat, Pace, SetConfig, SourceColumn, SourceConfig, When};
pub use self::plan::SOURCE_RULES;
pub use self::sftp::SftpLogin;
pub use self::status::{Progress, RunReport, RunState, SourceStatus};

use self::load::Run;
use self::shared::{Control, SourceShared, WATCH};
use crate::check::REJECTED_SUFFIX;
use crate::error::{EngineError, ErrorKind, Result};
use crate::names::closest;

/// Longest time between two looks at the clock for a schedule.
const SCHEDULE_LOOK: Duration = Duration::from_secs(10);

/// The declared sources at work. Holds: each source, and the task that starts its runs. What they remember is in the
/// broker's store, written with the records it speaks of.
pub struct Sources {
    sources: Vec<Arc<SourceShared>>,
    keepers: Mutex<Vec<JoinHandle<()>>>,
}

/// A run that was started.
pub struct Started {
    /// Its number.
    pub run: u64,
    ended: JoinHandle<RunReport>,
}

impl Started {
    /// Waits until the run has ended.
    ///
    /// # Errors
    /// `Bug` when its thread panicked.
    pub async fn wait(self) -> Result<RunReport> {
        self.ended.await.map_err(|error| EngineError::bug(format!("a run of a source was broken off: {error}")))
    }
}

impl Sources {
    /// Creates topics, finds runs that a crash broke off, and begins what is due. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// `Config` with every mistake on its own line; `Storage`.
    pub async fn start(broker: Arc<Broker>, configs: Vec<SourceConfig>) -> Result<Arc<Sources>> {
        let mistakes: Vec<String> =
            check_sources(&configs, &Default::default()).into_iter().map(|(_, mistake)| mistake).collect();
        if !mistakes.is_empty() {
            return Err(EngineError::new(ErrorKind::Config, mistakes.join("\n")));
        }
        let (mut sources, mut keepers) = (Vec::new(), Vec::new());
        for config in configs {
            let shared = Arc::new(SourceShared::new(broker.clone(), config)?);
            topics(&shared).await?;
            let unfinished = mark_interrupted(&shared).await?;
            let due = unfinished || shared.config.when == When::Once;
            keepers.push(tokio::spawn(keep(shared.clone(), due.then_some("start"))));
            sources.push(shared);
        }
        Ok(Arc::new(Sources { sources, keepers: Mutex::new(keepers) }))
    }

    /// The names, in the order of the configuration.
    pub fn names(&self) -> Vec<String> {
        self.sources.iter().map(|source| source.config.name.clone()).collect()
    }

    /// Starts a run of a source.
    ///
    /// # Errors
    /// `Unknown` source; `Conflict` when it runs already or is paused; `Stopped` when the server stops.
    pub async fn begin(&self, name: &str) -> Result<Started> {
        let source = self.source(name)?;
        if source.is_paused() {
            return Err(EngineError::new(ErrorKind::Conflict, format!("source {name} is paused: resume it first")));
        }
        begin(source, "request").await
    }

    /// Runs a source and waits for its end; how it ended is in the report.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn run(&self, name: &str) -> Result<RunReport> {
        self.begin(name).await?.wait().await
    }

    /// Stops a source's runs at the next batch until it is resumed, also over a restart; or lets it go on.
    ///
    /// # Errors
    /// `Unknown` source; `Storage`.
    pub async fn pause(&self, name: &str, paused: bool) -> Result<()> {
        let source = self.source(name)?;
        source.control.send_modify(|control| control.paused = paused);
        let key = stored::paused_key(name);
        let change =
            if paused { Change::Put(Family::State, key, Vec::new()) } else { Change::Delete(Family::State, key) };
        source.broker.lane().commit(vec![change], Ack::Durable).await?;
        Ok(())
    }

    /// How each source stands.
    ///
    /// # Errors
    /// `Storage`.
    pub fn status(&self) -> Result<Vec<SourceStatus>> {
        self.sources.iter().map(|source| source.status()).collect()
    }

    /// How one source stands.
    ///
    /// # Errors
    /// `Unknown` source; `Storage`.
    pub fn status_of(&self, name: &str) -> Result<SourceStatus> {
        self.source(name)?.status()
    }

    /// Ends every run after the commit under way; the next start goes on there.
    pub async fn stop(&self) {
        for source in &self.sources {
            source.control.send_modify(|control| control.stopping = true);
        }
        let keepers = std::mem::take(&mut *self.keepers.lock());
        for keeper in keepers {
            if keeper.await.is_err() {
                tracing::error!("the keeper of a source had panicked, please report it");
            }
        }
        for source in &self.sources {
            drop(source.busy.lock().await);
        }
    }

    fn source(&self, name: &str) -> Result<&Arc<SourceShared>> {
        self.sources.iter().find(|source| source.config.name == name).ok_or_else(|| {
            let hint = closest(name, self.sources.iter().map(|source| source.config.name.as_str()));
            EngineError::new(ErrorKind::Unknown, format!("no source '{name}'{hint}"))
        })
    }
}

impl Drop for Sources {
    /// The tasks end by themselves soon after; `stop` waits for them.
    fn drop(&mut self) {
        self.sources.iter().for_each(|source| source.control.send_modify(|control| control.stopping = true));
    }
}

/// The topic of a source and the one of its refused rows.
async fn topics(shared: &SourceShared) -> Result<(Arc<Topic>, Arc<Topic>)> {
    let catalog = shared.broker.catalog();
    let new = |name: String, partitions: i32| NewTopic { name, partitions, config: BTreeMap::new() };
    let partitions = shared.broker.config().num_partitions;
    let topic = catalog.ensure(new(shared.config.topic.clone(), partitions)).await?;
    let rejected = catalog.ensure(new(format!("{}{REJECTED_SUFFIX}", shared.config.name), 1)).await?;
    Ok((topic, rejected))
}

/// Closes the report of a run that ended with the server; whether there is something left of it to do.
async fn mark_interrupted(shared: &SourceShared) -> Result<bool> {
    let name = &shared.config.name;
    let Some(mut last) = stored::runs(shared.broker.store(), name)?.pop() else { return Ok(false) };
    if last.state == RunState::Running {
        last.state = RunState::Interrupted;
        let change = stored::put(stored::run_key(name, last.run), &last)?;
        shared.broker.lane().commit(vec![change], Ack::Durable).await?;
    }
    Ok(matches!(last.state, RunState::Interrupted | RunState::Stopped))
}

/// Starts a run on a thread of its own.
async fn begin(shared: &Arc<SourceShared>, trigger: &str) -> Result<Started> {
    let name = &shared.config.name;
    let running = || EngineError::new(ErrorKind::Conflict, format!("source {name} runs already: wait for its end"));
    let busy = shared.busy.clone().try_lock_owned().map_err(|_| running())?;
    if shared.control.borrow().stopping {
        return Err(EngineError::new(ErrorKind::Stopped, "the server stops, start the source after the next start"));
    }
    let (topic, rejected) = topics(shared).await?;
    let (number, totals) = shared.begin();
    let started_ms = shared.broker.clock().now_ms();
    let report =
        RunReport { v: stored::VERSION, run: number, trigger: trigger.to_owned(), started_ms, ..RunReport::default() };
    shared.tell(&report, &totals);
    let (shared, runtime) = (shared.clone(), tokio::runtime::Handle::current());
    let ended = tokio::task::spawn_blocking(move || {
        let report = Run {
            quality: load::counters(&shared.config.name),
            shared: &shared,
            runtime,
            topic,
            rejected,
            report,
            totals,
            remote: None,
        }
        .run();
        shared.end(&report);
        tracing::info!(
            source = shared.config.name,
            run = report.run,
            state = ?report.state,
            rows = report.rows,
            published = report.published,
            skipped = report.skipped,
            rejected = report.rejected,
            "a run of a source has ended"
        );
        // the broker first: who waits for the end may close it then
        drop(shared);
        drop(busy);
        report
    });
    Ok(Started { run: number, ended })
}

/// Starts runs when they are due, until the server stops.
async fn keep(shared: Arc<SourceShared>, mut pending: Option<&'static str>) {
    let mut control = shared.control.subscribe();
    loop {
        let Control { stopping, paused } = *control.borrow_and_update();
        if stopping {
            return;
        }
        if let Some(trigger) = pending.filter(|_| !paused) {
            pending = None;
            // When it runs already, that run finds what this one would have.
            if let Ok(started) = begin(&shared, trigger).await {
                let _ = started.wait().await;
            }
            continue;
        }
        pending = tokio::select! {
            changed = control.changed() => if changed.is_ok() { pending } else { return },
            trigger = due(&shared) => pending.or(trigger),
        };
    }
}

/// Waits until it is time to look whether something is due; what it is, if anything.
async fn due(shared: &Arc<SourceShared>) -> Option<&'static str> {
    match &shared.config.when {
        When::Watch(every_ms) => {
            tokio::time::sleep(shared.until_look(*every_ms)).await;
            let looking = shared.clone();
            let looked = tokio::task::spawn_blocking(move || looking.is_due()).await;
            matches!(looked, Ok(Ok(true))).then_some(WATCH)
        }
        When::Schedule(..) => {
            tokio::time::sleep(shared.until_next().min(SCHEDULE_LOOK)).await;
            shared.plan_next().then_some("schedule")
        }
        When::Once | When::Demand => std::future::pending().await,
    }
}
