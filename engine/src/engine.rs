//! The running engine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use broker::Broker;
use datafusion::catalog::TableProvider;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Offsets;
use crate::budget::Budget;
use crate::check::{LATE_SUFFIX, REJECTED_SUFFIX, compile};
use crate::config::EngineConfig;
use crate::error::{EngineError, ErrorKind, Result};
use crate::follow::{Follower, wait_all};
use crate::guard::Guard;
use crate::lookup::lookup_table;
use crate::names::closest;
use crate::quality::QualityCount;
use crate::quality_table::{QUALITY_TABLE, quality_table, read_counts};
use crate::read::{Answer, ReadRequest, read_now};
use crate::shared::{PipelineShared, Published, RunningDerived, RunningTable, RunningView};
use crate::start::prepare;
use crate::status::{StreamStatus, TableStatus, ViewStatus, stream_status, table_status, view_status};
use crate::stream::Stream;
use crate::table::view_table;
use crate::windows::Windows;

/// Streams and views at work over a broker.
///
/// Holds: the compiled streams and views, and a thread per pipeline. All that must survive is in the broker's store,
/// written by the pipelines alone; a crash loses nothing and counts nothing twice.
pub struct Engine {
    broker: Arc<Broker>,
    streams: Vec<(Arc<Stream>, Follower)>,
    derived: Vec<RunningDerived>,
    tables: Vec<RunningTable>,
    views: Vec<Arc<RunningView>>,
    pipelines: Vec<Arc<PipelineShared>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
}

impl Engine {
    /// Checks the configuration, creates topics, and starts a thread per pipeline. Views go on where they stood; a new
    /// or changed view begins at the log's start. Must be called within a Tokio runtime with several threads.
    ///
    /// # Errors
    /// `Config` with every mistake on its own line; `Storage` when the store or the catalog fails.
    pub async fn start(broker: Arc<Broker>, config: EngineConfig) -> Result<Arc<Engine>> {
        let compiled = compile(&config).map_err(|mistakes| EngineError::new(ErrorKind::Config, mistakes.join("\n")))?;
        compiled.streams.iter().for_each(|stream| stream.bind(broker.schemas().clone()));
        let prepared = prepare(&broker, &compiled).await?;
        let runtime = tokio::runtime::Handle::current();
        let mut engine = Engine {
            broker,
            streams: prepared.streams,
            derived: prepared.derived,
            tables: prepared.tables,
            views: prepared.views.into_iter().map(Arc::new).collect(),
            pipelines: Vec::new(),
            threads: Mutex::new(Vec::new()),
            budget: Arc::default(),
        };
        for feed in prepared.feeds {
            let what = Spawned {
                name: format!("engine-{}", feed.table.name()),
                shared: feed.shared.clone(),
                published: vec![feed.published.clone()],
            };
            engine.pipelines.push(feed.shared.clone());
            engine.threads.get_mut().push(spawn(what, runtime.clone(), feed.run())?);
        }
        for pipeline in prepared.pipelines {
            let what = Spawned {
                name: format!("engine-{}", pipeline.stream.name()),
                shared: pipeline.shared.clone(),
                published: pipeline.published(),
            };
            engine.pipelines.push(pipeline.shared.clone());
            engine.threads.get_mut().push(spawn(what, runtime.clone(), pipeline.run())?);
        }
        Ok(Arc::new(engine))
    }

    /// Ends every pipeline after the step under way. Reading still answers, marked stale.
    pub async fn stop(&self) {
        self.pipelines.iter().for_each(|pipeline| pipeline.stop());
        let threads = std::mem::take(&mut *self.threads.lock());
        let join = move || threads.into_iter().map(JoinHandle::join).filter(std::result::Result::is_err).count();
        let joined = tokio::task::spawn_blocking(join);
        if joined.await.is_ok_and(|panicked| panicked > 0) {
            tracing::error!("a pipeline's thread had panicked, please report it");
        }
    }

    /// The declared streams.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.iter().map(|(stream, _)| stream.clone()).collect()
    }

    /// The stream declared over a topic; the first, if there are several.
    pub fn stream_of_topic(&self, topic: &str) -> Option<Arc<Stream>> {
        self.streams.iter().map(|(stream, _)| stream).find(|stream| &**stream.topic() == topic).cloned()
    }

    /// The views, in the order of the configuration.
    pub fn views(&self) -> Vec<ViewInfo> {
        let info = |view: &Arc<RunningView>| ViewInfo {
            name: view.plan.name.to_string(),
            sql: view.plan.sql.clone(),
            stream: view.plan.stream.name().to_string(),
            schema: view.plan.schema.clone(),
            keys: view.plan.keys.clone(),
            windows: view.plan.windows,
        };
        self.views.iter().map(info).collect()
    }

    /// How each table stands.
    pub fn tables(&self) -> Vec<TableStatus> {
        self.tables.iter().map(|table| table_status(&self.broker, table)).collect()
    }

    /// The counters of data quality, by stream, day, action and rule.
    ///
    /// # Errors
    /// `TooLarge` beyond a million counters, `Storage`.
    pub async fn quality(&self) -> Result<Vec<QualityCount>> {
        let (broker, views) = (self.broker.clone(), self.views.clone());
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
        let view = self.view(view)?.clone();
        let chain = self.chain_of_view(&view);
        let is_broken = || chain.iter().any(|follower| follower.stopped().is_some());
        if request.wait_ms > 0 && !is_broken() {
            match wait_all(&chain, &self.broker, request.wait_ms).await {
                Err(error) if error.kind != ErrorKind::Stopped => return Err(error),
                _ => {}
            }
        }
        let broker = self.broker.clone();
        let held = self.budget.begin();
        let read = move || {
            let answer = read_now(&broker, &view, (&request, guard.as_ref()), &|bytes| held.grow(bytes))?;
            Ok::<_, EngineError>(Answer { held, ..answer })
        };
        let answer = tokio::task::spawn_blocking(read).await;
        let mut answer: Answer =
            answer.map_err(|error| EngineError::bug(format!("reading a view was broken off: {error}")))??;
        answer.stale |= is_broken();
        Ok(answer)
    }

    /// Waits until the view has applied everything that was in the log when this was called; gives the offsets applied. A
    /// stream that the engine writes is waited for until all is written, a table until it has read its topic,
    /// `data_quality` until everything is counted.
    ///
    /// # Errors
    /// `Unknown` name; `Timeout` with the offsets reached; `Stopped` when the view's pipeline does not run.
    pub async fn wait_fresh(&self, name: &str, wait_ms: u64) -> Result<Offsets> {
        let chain = match self.chain_of(name) {
            Some(chain) => chain,
            None => self.chain_of_view(self.view(name)?),
        };
        wait_all(&chain, &self.broker, wait_ms).await
    }

    /// Whether [`wait_fresh`](Self::wait_fresh) has something to wait for under this name.
    pub fn follows(&self, name: &str) -> bool {
        self.chain_of(name).is_some_and(|chain| !chain.is_empty()) || self.view(name).is_ok()
    }

    /// The names of what [`sql_table`](Self::sql_table) gives: views, tables and `data_quality`.
    pub fn sql_names(&self) -> Vec<String> {
        let views = self.views.iter().map(|view| view.plan.name.to_string());
        let tables = self.tables.iter().map(|running| running.table.name().to_string());
        views.chain(tables).chain([QUALITY_TABLE.to_string()]).collect()
    }

    /// A view, a table or `data_quality` as a table for SQL.
    pub fn sql_table(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        if name == QUALITY_TABLE {
            return Some(quality_table(self.broker.clone(), self.views.clone()));
        }
        match self.tables.iter().find(|running| running.table.name() == name) {
            Some(running) => Some(lookup_table(self.broker.clone(), running.table.clone())),
            None => self.view_table(name),
        }
    }

    /// All rows of a view whose windows start in `[from, to)` (both open when None) and the offsets they stand for.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn view_rows(&self, view: &str, from: Option<i64>, to: Option<i64>) -> Result<Answer> {
        self.read(view, ReadRequest { from, to, ..ReadRequest::default() }).await
    }

    /// The view as a table for SQL: live and closed windows, as of the moment its scan is planned.
    pub fn view_table(&self, view: &str) -> Option<Arc<dyn TableProvider>> {
        let view = self.view(view).ok()?.clone();
        Some(view_table(self.broker.clone(), view))
    }

    /// A counter that grows with each commit that changed rows of the view.
    pub fn changes(&self, view: &str) -> Option<watch::Receiver<u64>> {
        self.view(view).ok().map(|view| view.follower.published.changed.subscribe())
    }

    /// How each view stands.
    pub fn status(&self) -> Vec<ViewStatus> {
        self.views.iter().map(|view| view_status(&self.broker, view)).collect()
    }

    /// How each stream stands: its refused records, and how far a derived one is.
    pub fn stream_status(&self) -> Vec<StreamStatus> {
        let status = |(stream, reading): &(Arc<Stream>, Follower)| {
            stream_status(&self.broker, stream, reading, self.derived(stream.name()))
        };
        self.streams.iter().map(status).collect()
    }

    /// CPU time of all pipelines since the start: decoding, aggregating, and submitting commits. Zero where the kernel
    /// does not tell a thread's time.
    pub fn busy_time(&self) -> Duration {
        Duration::from_nanos(self.pipelines.iter().map(|pipeline| pipeline.busy_ns.load(Ordering::Relaxed)).sum())
    }

    /// Records that the pipelines have read since the start; with [`busy_time`](Self::busy_time) it gives records per
    /// second and core.
    pub fn records_read(&self) -> u64 {
        self.pipelines.iter().map(|pipeline| pipeline.records.load(Ordering::Relaxed)).sum()
    }

    fn derived(&self, name: &str) -> Option<&RunningDerived> {
        self.derived.iter().find(|running| running.plan.stream.name() == name)
    }

    /// What must have caught up, one after the other, before a topic is fresh; empty for one that others write.
    fn chain_of_topic(&self, topic: &str) -> Vec<Follower> {
        let mut chain = Vec::new();
        self.add_writers(topic, &mut BTreeSet::new(), &mut chain);
        chain
    }

    /// Adds who writes a topic, behind who writes what they read. Each topic is looked at once: views may read each
    /// other in a circle.
    fn add_writers(&self, topic: &str, seen: &mut BTreeSet<String>, chain: &mut Vec<Follower>) {
        if !seen.insert(topic.to_string()) {
            return;
        }
        for writer in self.writers(topic) {
            self.add_writers(&writer.topic, seen, chain);
            chain.push(writer);
        }
    }

    fn writers(&self, topic: &str) -> Vec<Follower> {
        let refused = topic.strip_suffix(REJECTED_SUFFIX);
        let refuses = |stream: &Stream| refused == Some(stream.name());
        let mut writers = Vec::new();
        let derived = self.derived.iter().filter(|running| {
            let stream = &running.plan.stream;
            **stream.topic() == *topic || refuses(stream)
        });
        writers.extend(derived.map(|running| running.follower.clone()));
        let streams = self.streams.iter().filter(|(stream, _)| refuses(stream));
        writers.extend(streams.map(|(_, reading)| reading.clone()));
        let views = self.views.iter().filter(|view| {
            let name = &*view.plan.name;
            name == topic || topic.strip_suffix(LATE_SUFFIX) == Some(name) || refuses(&view.plan.stream)
        });
        writers.extend(views.map(|view| view.follower.clone()));
        let tables = self.tables.iter().filter(|running| refused == Some(running.table.name()));
        writers.extend(tables.filter_map(|running| running.follower.clone()));
        writers
    }

    /// A follower behind all that must have caught up before it.
    fn chain_to(&self, follower: &Follower) -> Vec<Follower> {
        let mut chain = self.chain_of_topic(&follower.topic);
        chain.push(follower.clone());
        chain
    }

    fn chain_of_view(&self, view: &RunningView) -> Vec<Follower> {
        self.chain_to(&view.follower)
    }

    /// What must have caught up before a stream, a table or the counters are fresh; None for other names.
    fn chain_of(&self, name: &str) -> Option<Vec<Follower>> {
        if name == QUALITY_TABLE {
            let tables = self.tables.iter().filter_map(|running| running.follower.as_ref());
            let streams = self.streams.iter().map(|(_, reading)| reading);
            return Some(tables.chain(streams).flat_map(|follower| self.chain_to(follower)).collect());
        }
        if let Some(running) = self.tables.iter().find(|running| running.table.name() == name) {
            return Some(running.follower.iter().flat_map(|follower| self.chain_to(follower)).collect());
        }
        let stream = self.streams.iter().find(|(stream, _)| stream.name() == name);
        stream.map(|(stream, _)| self.chain_of_topic(stream.topic()))
    }

    fn view(&self, name: &str) -> Result<&Arc<RunningView>> {
        self.views.iter().find(|view| *view.plan.name == *name).ok_or_else(|| {
            let hint = closest(name, self.views.iter().map(|view| &*view.plan.name));
            EngineError::new(ErrorKind::Unknown, format!("no view '{name}'{hint}"))
        })
    }
}

impl Drop for Engine {
    /// The threads end by themselves soon after; `stop` waits for them.
    fn drop(&mut self) {
        self.pipelines.iter().for_each(|pipeline| pipeline.stop());
    }
}

/// A thread to be, and who must hear when it ends.
struct Spawned {
    name: String,
    shared: Arc<PipelineShared>,
    published: Vec<Arc<Published>>,
}

fn spawn(
    what: Spawned,
    runtime: tokio::runtime::Handle,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let Spawned { name, shared, published } = what;
    let run = move || {
        // A panic must be seen as a stopped pipeline, not as one that is forever late.
        let mut guard = PanicGuard { shared, published, ended: false };
        runtime.block_on(work);
        guard.ended = true;
    };
    let spawned = std::thread::Builder::new().name(name).spawn(run);
    spawned.map_err(|error| EngineError::new(ErrorKind::Storage, format!("cannot start a thread: {error}")))
}

struct PanicGuard {
    shared: Arc<PipelineShared>,
    published: Vec<Arc<Published>>,
    ended: bool,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !self.ended {
            *self.shared.failure.lock() = Some("its thread panicked, see the log and report it".to_string());
            self.published.iter().for_each(|published| published.advanced.send_modify(|count| *count += 1));
        }
    }
}
