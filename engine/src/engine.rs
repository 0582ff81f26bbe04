//! The running engine.

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
use crate::check::compile;
use crate::config::EngineConfig;
use crate::error::{EngineError, ErrorKind, Result};
use crate::names::closest;
use crate::pipeline::Pipeline;
use crate::read::{Answer, ReadRequest, read_now, stopped, wait_fresh};
use crate::shared::{PipelineShared, Published, RunningView};
use crate::start::prepare;
use crate::status::{StreamStatus, ViewStatus, stream_status, view_status};
use crate::stream::Stream;
use crate::table::ViewTable;
use crate::window::Window;

/// Streams and views at work over a broker.
///
/// Holds: the compiled streams and views, and a thread per pipeline. All that must survive is in the broker's store,
/// written by the pipelines alone; a crash loses nothing and counts nothing twice.
pub struct Engine {
    broker: Arc<Broker>,
    streams: Vec<(Arc<Stream>, Arc<Published>)>,
    views: Vec<Arc<RunningView>>,
    pipelines: Vec<Arc<PipelineShared>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
    pub window: Option<Window>,
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
            views: prepared.views.into_iter().map(Arc::new).collect(),
            pipelines: Vec::new(),
            threads: Mutex::new(Vec::new()),
        };
        for pipeline in prepared.pipelines {
            engine.pipelines.push(pipeline.shared.clone());
            let thread = spawn(pipeline, runtime.clone())?;
            engine.threads.lock().push(thread);
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
            window: view.plan.window,
        };
        self.views.iter().map(info).collect()
    }

    /// Reads a view. With `wait_ms` it first waits until everything is applied that was in the log when it was called.
    ///
    /// # Errors
    /// `Unknown` view, `BadRequest` for what does not fit the view, `Timeout` with the offsets reached, `TooLarge`.
    pub async fn read(&self, view: &str, request: ReadRequest) -> Result<Answer> {
        let view = self.view(view)?.clone();
        if request.wait_ms > 0 && stopped(&view).is_none() {
            match wait_fresh(&self.broker, &view, request.wait_ms).await {
                Err(error) if error.kind != ErrorKind::Stopped => return Err(error),
                _ => {}
            }
        }
        let broker = self.broker.clone();
        let answer = tokio::task::spawn_blocking(move || read_now(&broker, &view, &request)).await;
        answer.map_err(|error| EngineError::bug(format!("reading a view was broken off: {error}")))?
    }

    /// Waits until the view has applied everything that was in the log when this was called; gives the offsets applied.
    ///
    /// # Errors
    /// `Unknown` view; `Timeout` with the offsets reached; `Stopped` when the view's pipeline does not run.
    pub async fn wait_fresh(&self, view: &str, wait_ms: u64) -> Result<Offsets> {
        wait_fresh(&self.broker, self.view(view)?, wait_ms).await
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
        Some(Arc::new(ViewTable { broker: self.broker.clone(), view }))
    }

    /// A counter that grows with each commit that changed rows of the view.
    pub fn changes(&self, view: &str) -> Option<watch::Receiver<u64>> {
        self.view(view).ok().map(|view| view.published.changed.subscribe())
    }

    /// How each view stands.
    pub fn status(&self) -> Vec<ViewStatus> {
        self.views.iter().map(|view| view_status(&self.broker, view)).collect()
    }

    /// How each stream stands: its refused records.
    pub fn stream_status(&self) -> Vec<StreamStatus> {
        self.streams.iter().map(|(stream, published)| stream_status(stream, published)).collect()
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

fn spawn(pipeline: Pipeline, runtime: tokio::runtime::Handle) -> Result<JoinHandle<()>> {
    let name = format!("engine-{}", pipeline.stream.name());
    let shared = pipeline.shared.clone();
    let published = pipeline.views.iter().map(|view| view.published.clone()).collect();
    let run = move || {
        // A panic must be seen as a stopped pipeline, not as one that is forever late.
        let mut guard = PanicGuard { shared, published, ended: false };
        runtime.block_on(pipeline.run());
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
