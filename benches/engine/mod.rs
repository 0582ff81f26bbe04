//! The engine alone, in this process, over records that are in the log before it starts: counts by every kind of window, many views
//! over one topic, state that memory does not hold, the queries of Nexmark; and while a load goes on: how soon an acknowledged event is
//! read, and how long a new view takes to be filled. What is counted is compared with what was written before any figure is given.

mod bounds;
mod cases;
pub mod events;
mod filling;
mod nexmark;
#[path = "../../tests/support/nexmark.rs"]
mod nexmark_events;
mod report;
mod state;
mod visible;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use broker::{Broker, BrokerConfig, Clock, NewTopic};
use engine::{EngineConfig, HistorySlot, ReadRequest, Surroundings};

pub use bounds::Bounds;

use crate::settings::Settings;
use crate::{Outcome, machine};
use bounds::Measurement;

/// Most time until all that is in the log is applied.
const APPLIED_MAX: Duration = Duration::from_secs(600);

/// What a round cost until nothing was left to apply.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// By the clock.
    seconds: f64,
    /// CPU seconds of the engine's pipelines: decode, window, aggregate, merge, encode.
    engine_cpu: f64,
    /// CPU seconds of the process: reading the log, the commit lane and RocksDB's threads too.
    process_cpu: f64,
}

/// What the engine gave, a figure per round.
#[derive(Debug)]
pub struct Engine {
    bounds: Bounds,
    events: usize,
    counts: Vec<(cases::Case, Vec<Cost>)>,
    state: Vec<state::Kept>,
    nexmark: Vec<(String, Vec<Cost>)>,
    visible: Vec<visible::Visible>,
    fills: Vec<filling::Filled>,
}

/// Runs the part, each round of each measurement on a new data directory.
///
/// # Errors
/// The engine fails, or counts wrong.
pub fn run(settings: &Settings, bounds: &Bounds, scratch: &Path) -> Outcome<Engine> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let counts = cases::all(settings.engine_events).into_iter().map(|case| (case, Vec::new())).collect();
    let mut measured = Engine {
        bounds: bounds.clone(),
        events: settings.engine_events,
        counts,
        state: Vec::new(),
        nexmark: Vec::new(),
        visible: Vec::new(),
        fills: Vec::new(),
    };
    for round in 0..settings.rounds {
        let folders = Folders { scratch: scratch.join(format!("engine-{round}")) };
        runtime.block_on(measured.round(&folders))?;
    }
    Ok(measured)
}

/// Where the measurements of a round keep their data.
struct Folders {
    scratch: PathBuf,
}

impl Folders {
    /// A new folder, once all that was written before is on the disk.
    fn next(&self) -> Outcome<PathBuf> {
        if self.scratch.exists() {
            std::fs::remove_dir_all(&self.scratch)?;
        }
        machine::settle()?;
        Ok(self.scratch.clone())
    }
}

impl Engine {
    async fn round(&mut self, folders: &Folders) -> Outcome<()> {
        if self.bounds.wants(Measurement::Counts) {
            for (case, costs) in &mut self.counts {
                costs.push(cases::measure(case, self.events, folders.next()?).await?);
                eprintln!("bench: engine, {}: {:?}", case.name, costs.last());
            }
        }
        if self.bounds.wants(Measurement::State) {
            self.state.push(state::measure(&self.bounds, folders).await?);
            eprintln!("bench: engine, state: {:?}", self.state.last());
        }
        if self.bounds.wants(Measurement::Nexmark) {
            nexmark::measure(&self.bounds, folders, &mut self.nexmark).await?;
        }
        if self.bounds.wants(Measurement::Visible) {
            self.visible.push(visible::measure(&self.bounds, folders.next()?).await?);
            eprintln!("bench: engine, visible: {:?}", self.visible.last());
        }
        if self.bounds.wants(Measurement::Fill) {
            for from in filling::ReadFrom::BOTH {
                self.fills.push(filling::measure(&self.bounds, from, folders.next()?).await?);
                eprintln!("bench: engine, fill: {:?}", self.fills.last());
            }
        }
        folders.next()?;
        Ok(())
    }
}

/// A broker and an engine over it.
struct Pair {
    broker: Arc<Broker>,
    engine: Arc<engine::Engine>,
}

impl Pair {
    async fn start(broker: Arc<Broker>, config: EngineConfig) -> Outcome<Pair> {
        Pair::start_with(broker, config, Arc::default()).await
    }

    async fn start_with(broker: Arc<Broker>, config: EngineConfig, history: Arc<HistorySlot>) -> Outcome<Pair> {
        let engine = engine::Engine::start_with(broker.clone(), config, history).await?;
        Ok(Pair { broker, engine })
    }

    /// Declares what a script says.
    async fn declare(&self, script: &str) -> Outcome<()> {
        let wrong = |mistakes: Vec<engine::Mistake>| format!("{mistakes:?}: {script}");
        let Some(engine::Command::Change(read)) = engine::command(script).map_err(wrong)? else {
            return Err(format!("it declares nothing: {script}").into());
        };
        let turn = self.engine.turn().await;
        let change = {
            let (taken, readers) = (|_: &str| None, |_: &str| Vec::new());
            turn.decide(&read, &Surroundings { taken: &taken, readers: &readers }).map_err(wrong)?
        };
        change.apply().await?;
        Ok(())
    }

    /// Waits until no view has anything left to apply.
    async fn applied(&self) -> Outcome<()> {
        let deadline = Instant::now() + APPLIED_MAX;
        loop {
            let status = self.engine.status();
            if let Some(error) = status.iter().find_map(|view| view.error.as_ref()) {
                return Err(format!("a view stopped: {error}").into());
            }
            if status.iter().all(|view| view.lag_records == 0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("records are left after {APPLIED_MAX:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The sum of a column of whole numbers over all rows of a view.
    async fn sum(&self, view: &str, column: &str) -> Outcome<i64> {
        let answer = self.engine.read(view, ReadRequest { wait_ms: 60_000, ..ReadRequest::default() }).await?;
        answer.rows.iter().map(|rows| sum_of(rows, column)).sum()
    }

    async fn stop(self) -> Outcome<()> {
        self.engine.stop().await;
        drop(self.engine);
        self.broker.stop().await?;
        Ok(())
    }
}

fn sum_of(rows: &RecordBatch, column: &str) -> Outcome<i64> {
    let found = rows.column_by_name(column).filter(|found| *found.data_type() == DataType::Int64);
    let found = found.ok_or_else(|| format!("the view has no column {column} of whole numbers"))?;
    Ok(found.as_primitive::<Int64Type>().values().iter().sum())
}

/// Begins to measure an engine that may have worked before.
struct Meter {
    started: Instant,
    process: f64,
    engine: Duration,
}

impl Meter {
    fn begin(engine: Option<&engine::Engine>) -> Outcome<Meter> {
        let engine = engine.map_or(Duration::ZERO, engine::Engine::busy_time);
        Ok(Meter { started: Instant::now(), process: machine::own_cpu_seconds()?, engine })
    }

    async fn end(self, engine: &engine::Engine) -> Outcome<Cost> {
        let seconds = self.started.elapsed().as_secs_f64();
        let process_cpu = machine::own_cpu_seconds()? - self.process;
        // a pipeline says how long it worked just after the step that made its commit
        tokio::time::sleep(Duration::from_millis(50)).await;
        let engine_cpu = engine.busy_time().saturating_sub(self.engine).as_secs_f64();
        Ok(Cost { seconds, engine_cpu, process_cpu })
    }
}

/// A broker on a new data directory.
async fn open(folder: PathBuf) -> Outcome<Arc<Broker>> {
    let config = BrokerConfig { data_dir: folder, ..BrokerConfig::default() };
    Ok(Broker::open(config, Clock::system()).await?)
}

/// The same with a topic.
async fn open_with(folder: PathBuf, topic: &str, partitions: i32) -> Outcome<(Arc<Broker>, Arc<broker::Topic>)> {
    let broker = open(folder).await?;
    let topic = NewTopic { name: topic.into(), partitions, config: Default::default() };
    let topic = broker.catalog().create(topic).await?;
    Ok((broker, topic))
}
