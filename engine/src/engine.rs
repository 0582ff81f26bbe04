//! The running engine.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use broker::Broker;
use datafusion::catalog::TableProvider;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::Offsets;
use crate::budget::Budget;
use crate::check::compile;
use crate::claims::claims;
use crate::config::EngineConfig;
use crate::definitions::Definitions;
use crate::error::{EngineError, ErrorKind, Result};
use crate::follow::{Follower, wait_all};
use crate::guard::Guard;
use crate::history::{History, HistorySlot};
use crate::lookup::lookup_table;
use crate::parse_emit::Emit;
use crate::quality::QualityCount;
use crate::quality_table::{QUALITY_TABLE, quality_table, read_counts};
use crate::read::{Answer, ReadRequest, read_now};
use crate::running::Running;
use crate::shared::{RunningView, SharedHold};
use crate::start::{Commons, prepare};
use crate::status::{StreamStatus, TableStatus, ViewStatus, stream_status, table_status, view_status};
use crate::stream::Stream;
use crate::table::view_table;
use crate::view::ViewPlan;
use crate::windows::Windows;
use crate::workers::Workers;

/// Streams and views at work over a broker.
///
/// Holds: what runs, as a snapshot that a change replaces, and a thread per pipeline. All that must survive is in the
/// broker's store, written by the pipelines, and by one change of the declarations at a time; a crash loses nothing and
/// counts nothing twice.
pub struct Engine {
    pub(crate) broker: Arc<Broker>,
    running: RwLock<Arc<Running>>,
    /// Held by a change of the declarations.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
    pub(crate) workers: Workers,
    pub(crate) hold: Arc<SharedHold>,
    pub(crate) history: Arc<HistorySlot>,
    budget: Arc<Budget>,
}

/// What is known of a view without reading it.
#[derive(Debug, Clone)]
pub struct ViewInfo {
    /// Its name, which is also that of its topic and table.
    pub name: String,
    /// Its text.
    pub sql: String,
    /// The stream it reads.
    pub stream: String,
    /// window_start and window_end (when it has a window), keys, values.
    pub schema: SchemaRef,
    /// The names of its keys.
    pub keys: Vec<String>,
    /// How event time is cut; None for a view without a window.
    pub windows: Option<Windows>,
    /// When its topic is told of a group.
    pub emit: Emit,
}

impl ViewInfo {
    pub(crate) fn of(plan: &ViewPlan) -> ViewInfo {
        ViewInfo {
            name: plan.name.to_string(),
            sql: plan.sql.clone(),
            stream: plan.stream.name().to_string(),
            schema: plan.schema.clone(),
            keys: plan.keys.clone(),
            windows: plan.windows,
            emit: plan.emit,
        }
    }
}

impl Engine {
    /// Checks the configuration together with what SQL has declared, creates topics, and starts a thread per pipeline.
    /// Views go on where they stood; a new view begins at the log's start, and a changed one is filled beside its former
    /// version. Must be called within a Tokio runtime with several threads.
    ///
    /// # Errors
    /// `Config` with every mistake on its own line; `Storage` when the store or the catalog fails.
    pub async fn start(broker: Arc<Broker>, config: EngineConfig) -> Result<Arc<Engine>> {
        Engine::start_with(broker, config, Arc::default()).await
    }

    /// The same for an engine that will be given a history: a new or changed view begins with what has left the log.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        broker: Arc<Broker>,
        config: EngineConfig,
        history: Arc<HistorySlot>,
    ) -> Result<Arc<Engine>> {
        let by_sql = Definitions::load(&broker).await?;
        let config = by_sql.join(config)?;
        let compiled = compile(&config).map_err(|mistakes| EngineError::new(ErrorKind::Config, mistakes.join("\n")))?;
        compiled.streams.iter().for_each(|stream| stream.bind(broker.schemas().clone()));
        let hold = Arc::new(SharedHold::new(broker.holds().register("engine")));
        let commons = Commons { hold: &hold, history: &history };
        let mut running = Running { config, by_sql, compiled, ..Running::default() };
        broker.catalog().claim(claims(&running)).await;
        let mut prepared = prepare(&broker, &running.compiled, &running.by_sql, commons).await?;
        running.add(&mut prepared);
        let workers = Workers::default();
        workers.start(&mut prepared)?;
        let successors = running.successors.clone();
        let engine = Arc::new(Engine {
            broker,
            running: RwLock::new(Arc::new(running)),
            changing: Arc::default(),
            workers,
            hold,
            history,
            budget: Arc::default(),
        });
        successors.into_iter().for_each(|successor| engine.watch(successor));
        Ok(engine)
    }

    /// From now on views find here what has left the log.
    pub fn set_history(&self, history: Arc<dyn History>) {
        self.history.set(history);
    }

    /// What runs now.
    pub(crate) fn running(&self) -> Arc<Running> {
        self.running.read().clone()
    }

    /// Shows another state of what runs.
    pub(crate) fn show(&self, running: &Running) {
        *self.running.write() = Arc::new(running.clone());
    }

    /// Ends every pipeline after the step under way. Reading still answers, marked stale.
    pub async fn stop(self: &Arc<Self>) {
        // What is being declared or dropped is finished first.
        let _changing = self.changing.lock().await;
        self.workers.ask_to_end();
        let this = self.clone();
        let _ = tokio::task::spawn_blocking(move || this.workers.join()).await;
    }

    /// The declared streams.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.running().streams.iter().map(|(stream, _)| stream.clone()).collect()
    }

    /// The stream declared over a topic; the first, if there are several.
    pub fn stream_of_topic(&self, topic: &str) -> Option<Arc<Stream>> {
        self.streams().into_iter().find(|stream| &**stream.topic() == topic)
    }

    /// The views as they are served, in the order of the configuration.
    pub fn views(&self) -> Vec<ViewInfo> {
        self.running().views.iter().map(|view| ViewInfo::of(&view.plan)).collect()
    }

    /// Those that are filled beside a version of theirs that is served, and will take over.
    pub fn successors(&self) -> Vec<ViewInfo> {
        self.running().successors.iter().map(|view| ViewInfo::of(&view.plan)).collect()
    }

    /// The views as they are declared: some of them are still being filled.
    pub fn declared_views(&self) -> Vec<ViewInfo> {
        let running = self.running();
        let declared = running.views.iter().map(|view| running.successor(&view.plan.name).unwrap_or(view));
        declared.map(|view| ViewInfo::of(&view.plan)).collect()
    }

    /// How each table stands.
    pub fn tables(&self) -> Vec<TableStatus> {
        self.running().tables.iter().map(|table| table_status(&self.broker, table)).collect()
    }

    /// The counters of data quality, by stream, day, action and rule.
    ///
    /// # Errors
    /// `TooLarge` beyond a million counters, `Storage`.
    pub async fn quality(&self) -> Result<Vec<QualityCount>> {
        let (broker, views) = (self.broker.clone(), self.running().views.clone());
        let counts = tokio::task::spawn_blocking(move || read_counts(&broker, &views)).await;
        counts.map_err(|error| EngineError::bug(format!("reading counters was broken off: {error}")))?
    }

    /// Reads a view. With `wait_ms` it first waits until everything is applied that was in the log when it was called.
    ///
    /// # Errors
    /// `Unknown` view, `BadRequest` for what does not fit the view, `Timeout` with the offsets reached, `TooLarge`.
    pub async fn read(&self, view: &str, request: ReadRequest) -> Result<Answer> {
        self.read_guarded(view, request, None).await
    }

    /// The same for a reader who sees only what `guard` shows.
    ///
    /// # Errors
    /// As [`read`](Self::read), `Busy`; `BadRequest` when the request filters or sorts by a masked column.
    pub async fn read_guarded(&self, view: &str, request: ReadRequest, guard: Option<Guard>) -> Result<Answer> {
        let chain_of = |running: &Running| Ok(running.chain_of_view(running.view(view)?));
        let is_broken = |chain: &[Follower]| chain.iter().any(|follower| follower.failed().is_some());
        if request.wait_ms > 0 && !is_broken(&chain_of(&self.running())?) {
            match self.wait_for(chain_of, request.wait_ms).await {
                Err(error) if error.kind != ErrorKind::Stopped => return Err(error),
                _ => {}
            }
        }
        // Another version may have taken over meanwhile.
        let running = self.running();
        let chain = chain_of(&running)?;
        let view = running.view(view)?.clone();
        let broker = self.broker.clone();
        let held = self.budget.begin();
        let read = move || {
            let answer = read_now(&broker, &view, (&request, guard.as_ref()), &|bytes| held.grow(bytes))?;
            Ok::<_, EngineError>(Answer { held, ..answer })
        };
        let answer = tokio::task::spawn_blocking(read).await;
        let mut answer: Answer =
            answer.map_err(|error| EngineError::bug(format!("reading a view was broken off: {error}")))??;
        answer.stale |= is_broken(&chain);
        Ok(answer)
    }

    /// Waits until the view has applied everything that was in the log when this was called; gives the offsets applied. A
    /// stream that the engine writes is waited for until all is written, a table until it has read its topic,
    /// `data_quality` until everything is counted.
    ///
    /// # Errors
    /// `Unknown` name; `Timeout` with the offsets reached; `Stopped` when the view's pipeline does not run.
    pub async fn wait_fresh(&self, name: &str, wait_ms: u64) -> Result<Offsets> {
        let chain_of = |running: &Running| match running.chain_of(name) {
            Some(chain) => Ok(chain),
            None => Ok(running.chain_of_view(running.view(name)?)),
        };
        self.wait_for(chain_of, wait_ms).await
    }

    /// Waits for a chain, and anew where another version of a view in it takes over.
    async fn wait_for(&self, chain_of: impl Fn(&Running) -> Result<Vec<Follower>>, wait_ms: u64) -> Result<Offsets> {
        let clock = self.broker.clock();
        let began_ms = clock.steady_ms();
        loop {
            let chain = chain_of(&self.running())?;
            let waited_ms = clock.steady_ms().saturating_sub(began_ms).unsigned_abs();
            let waited = wait_all(&chain, &self.broker, wait_ms.saturating_sub(waited_ms)).await;
            let is_replaced = chain.iter().any(|follower| follower.published.is_replaced());
            match waited {
                Err(error) if error.kind == ErrorKind::Stopped && is_replaced => {}
                waited => return waited,
            }
        }
    }

    /// Whether [`wait_fresh`](Self::wait_fresh) has something to wait for under this name.
    pub fn follows(&self, name: &str) -> bool {
        let running = self.running();
        running.chain_of(name).is_some_and(|chain| !chain.is_empty()) || running.view(name).is_ok()
    }

    /// The names of what [`sql_table`](Self::sql_table) gives: views, tables and `data_quality`.
    pub fn sql_names(&self) -> Vec<String> {
        let running = self.running();
        let views = running.views.iter().map(|view| view.plan.name.to_string());
        let tables = running.tables.iter().map(|running| running.table.name().to_string());
        views.chain(tables).chain([QUALITY_TABLE.to_string()]).collect()
    }

    /// A view, a table or `data_quality` as a table for SQL.
    pub fn sql_table(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        let running = self.running();
        if name == QUALITY_TABLE {
            return Some(quality_table(self.broker.clone(), running.views.clone()));
        }
        match running.tables.iter().find(|running| running.table.name() == name) {
            Some(running) => Some(lookup_table(self.broker.clone(), running.table.clone())),
            None => self.view_table(name),
        }
    }

    /// The view as a table for SQL: live and closed windows, as of the moment its scan is planned.
    pub fn view_table(&self, view: &str) -> Option<Arc<dyn TableProvider>> {
        let view = self.running().view(view).ok()?.clone();
        Some(view_table(self.broker.clone(), view))
    }

    /// A counter that grows with each commit that changed rows of the view.
    pub fn changes(&self, view: &str) -> Option<watch::Receiver<u64>> {
        self.running().view(view).ok().map(|view| view.follower.published.watch_rows())
    }

    /// How each view stands.
    pub fn status(&self) -> Vec<ViewStatus> {
        let running = self.running();
        let status = |view: &Arc<RunningView>| view_status(&self.broker, view, running.successor(&view.plan.name));
        running.views.iter().map(status).collect()
    }

    /// How each stream stands: its refused records, and how far a derived one is.
    pub fn stream_status(&self) -> Vec<StreamStatus> {
        let running = self.running();
        let status = |(stream, reading): &(Arc<Stream>, Follower)| {
            stream_status(&self.broker, stream, reading, &running.derived(stream.name()))
        };
        running.streams.iter().map(status).collect()
    }

    /// CPU time of all pipelines since the start: decoding, aggregating, and submitting commits. Zero where the kernel
    /// does not tell a thread's time.
    pub fn busy_time(&self) -> Duration {
        Duration::from_nanos(self.workers.done().0)
    }

    /// Records that the pipelines have read since the start; with [`busy_time`](Self::busy_time) it gives records per
    /// second and core.
    pub fn records_read(&self) -> u64 {
        self.workers.done().1
    }
}

impl Drop for Engine {
    /// The threads end by themselves soon after; `stop` waits for them.
    fn drop(&mut self) {
        self.workers.ask_to_end();
    }
}
