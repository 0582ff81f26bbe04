//! The HTTP side of Millpond, and the place where broker, engine, lake and HTTP are started together.
//!
//! A request goes server (bounded connections) → routes (the list of all routes; permits, time limits, problems) → one
//! file per family of routes. `output` writes rows, `params` reads parameters, `error` is the only map to HTTP statuses.
//! Nothing here keeps state that must survive: the page and every answer are computed from the other crates.

mod access;
mod alerts;
mod app;
mod at;
mod catalog;
mod collect;
mod colours;
pub mod config;
mod dashboards;
mod declare;
#[cfg(test)]
mod declare_tests;
mod describe;
mod error;
mod export;
mod figures;
mod filters;
mod fork;
mod groups;
mod hosts;
mod jobs;
mod lag;
mod lake_admin;
mod lineage;
mod live;
mod metrics;
mod models;
mod openapi;
mod output;
mod page;
mod panels;
mod params;
mod partitioner;
mod period;
mod process;
mod queries;
mod question;
mod rates;
mod registry;
mod rest_catalog;
mod routes;
mod rows;
mod server;
mod shape;
mod shared;
mod sheet;
mod sinks;
mod sources;
mod sql;
mod status;
mod tables;
mod topics;
mod transforms;
mod uptime;
mod verify;
mod views;
mod work;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use broker::{Broker, Clock, NewTopic};
use engine::{Engine, HistorySlot, Sources, base64};
use lake::Lake;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::access::Access;
use crate::app::App;
use crate::config::{Config, TopicDeclaration};
use crate::hosts::Hosts;
use crate::lineage::Declared;
use crate::models::Models;
use crate::rates::Rates;
use crate::server::Port;
use crate::shared::Shared;
use crate::uptime::Uptime;
use crate::verify::Verifications;
use crate::work::Work;

/// Longest time each part is given to stop; what was acknowledged is durable before.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Why the server could not start; the message says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

fn failed(what: &str) -> impl Fn(&dyn fmt::Display) -> StartError {
    let what = what.to_owned();
    move |error| StartError(format!("{what}: {error}"))
}

/// The running server. Stop it with [`Running::stop`]; dropped without, it ends like a crash, which loses nothing
/// that was acknowledged.
pub struct Running {
    kafka: Vec<SocketAddr>,
    http: SocketAddr,
    registry: Option<SocketAddr>,
    broker: Arc<Broker>,
    engine: Arc<Engine>,
    sources: Arc<Sources>,
    lake: Arc<Lake>,
    work: Arc<Work>,
    tasks: Vec<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
}

/// The HTTP side's ports, bound before anything is opened.
struct Ports {
    http: Port,
    registry: Option<Port>,
}

impl Ports {
    async fn bind(config: &Config) -> Result<Ports, String> {
        let http = Port::bind(&config.http.bind, "http").await?;
        let registry = match &config.http.registry_bind {
            Some(bind) => Some(Port::bind(bind, "the schema registry").await?),
            None => None,
        };
        Ok(Ports { http, registry })
    }
}

/// Opens broker, engine, lake and HTTP, in this order, and serves.
///
/// # Errors
/// A port in use, a data directory that cannot be used, a view or dashboard that does not fit: all mistakes of one part
/// together. What was already open is stopped in order.
pub async fn start(config: Config) -> Result<Running, StartError> {
    // The ports first: the mistake that is made most often is told before anything is opened.
    let ports = Ports::bind(&config).await.map_err(StartError)?;
    let broker = Broker::open(config.broker.clone(), Clock::system()).await.map_err(|e| failed("broker")(&e))?;
    match start_above(&broker, config, ports).await {
        Ok(running) => {
            broker.start_aging(); // the engine and the lake have set their holds
            Ok(running)
        }
        Err(error) => {
            within("broker", broker.stop()).await;
            Err(error)
        }
    }
}

async fn start_above(broker: &Arc<Broker>, config: Config, ports: Ports) -> Result<Running, StartError> {
    for topic in &config.topics {
        ensure(broker, topic).await?;
    }
    for schema in &config.schemas {
        let failed = |error| StartError(format!("schema of subject {}: {error}", schema.subject));
        registry::declare(broker, schema).await.map_err(failed)?;
    }
    // The lake is opened over the engine, and hands in what has left the log.
    let engine = Engine::start_with(broker.clone(), config.engine.clone(), HistorySlot::awaited()).await;
    let engine = engine.map_err(|e| failed("engine")(&e))?;
    let lake = match Lake::start(broker.clone(), engine.clone(), config.lake.clone()).await {
        Ok(lake) => lake,
        Err(error) => {
            within("engine", engine.stop()).await;
            return Err(failed("lake")(&error));
        }
    };
    match serve((broker, &engine, &lake), &config, ports).await {
        Ok(running) => Ok(running),
        Err(error) => {
            within("lake", lake.stop()).await;
            within("engine", engine.stop()).await;
            Err(error)
        }
    }
}

async fn serve(
    (broker, engine, lake): (&Arc<Broker>, &Arc<Engine>, &Arc<Lake>),
    config: &Config,
    Ports { http, registry }: Ports,
) -> Result<Running, StartError> {
    let dashboards = dashboards::bind(&config.dashboards, &engine.declared_views())
        .map_err(|mistakes| StartError(mistakes.join("\n")))?;
    let access = Access::new(config, engine, lake);
    let access = access.map_err(|mistakes| StartError(mistakes.join("\n")))?;
    let kafka = broker.listen().await.map_err(|e| failed("kafka")(&e))?;
    let sources = Sources::start(broker.clone(), config.sources.clone()).await.map_err(|e| failed("sources")(&e))?;
    let rows_max = config.lake.sql.rows;
    let work = Work::start((broker, engine, lake, &sources), &config.work, rows_max).await.map_err(StartError)?;
    let (stopping, stop) = watch::channel(false);
    let (uptime, marking) = Uptime::start(broker, stop.clone()).await.map_err(|e| failed("uptime")(&e))?;
    let app = Arc::new(App {
        broker: broker.clone(),
        engine: engine.clone(),
        lake: lake.clone(),
        work: work.clone(),
        access,
        dashboards,
        order: config.dashboards.iter().map(|dashboard| dashboard.name.clone()).collect(),
        asked: Shared::default(),
        drawn: Shared::default(),
        notes: config.notes.clone(),
        copies_asked: copies_asked(&config.topics),
        declared: Declared::of(config),
        sql_rows_max: config.http.rows_max.min(config.lake.sql.rows),
        sources: sources.clone(),
        rates: Rates::start(broker.clone(), stop.clone()),
        uptime,
        started_ms: broker.clock().now_ms(),
        stopping: stop.clone(),
        requests: Arc::new(Semaphore::new(config.http.requests_max)),
        streams: Arc::new(Semaphore::new(config.http.streams_max)),
        spread: AtomicU32::new(0),
        models: Models::new(config.models.clone()),
        verifications: Verifications::default(),
        http: config.http.clone(),
    });
    let (http_address, registry_address) = (http.address(), registry.as_ref().map(Port::address));
    let hosts = Hosts::of(&http, &config.http.bind, &app.access);
    app.access.warn_when_open(http_address, "the http port");
    registry_address.iter().for_each(|address| app.access.warn_when_open(*address, "the schema registry"));
    let mut tasks = vec![http.serve(routes::http(app.clone(), hosts), stop.clone()), marking];
    if let Some(registry) = registry {
        let hosts = Hosts::of(&registry, config.http.registry_bind.as_deref().unwrap_or(""), &app.access);
        tasks.push(registry.serve(routes::registry(app, hosts), stop));
    }
    Ok(Running {
        kafka,
        http: http_address,
        registry: registry_address,
        broker: broker.clone(),
        engine: engine.clone(),
        sources,
        lake: lake.clone(),
        work,
        tasks,
        stopping,
    })
}

/// The declared topics that are content with fewer copies than they ask for.
fn copies_asked(topics: &[TopicDeclaration]) -> BTreeMap<String, i32> {
    let asked = topics.iter().filter(|topic| topic.replication > 1);
    asked.map(|topic| (topic.name.clone(), topic.replication)).collect()
}

/// Creates a declared topic if it is absent, and gives one that has fewer partitions the declared number.
async fn ensure(broker: &Broker, topic: &TopicDeclaration) -> Result<(), StartError> {
    let failed = |e| StartError(format!("topic {}: {e}", topic.name));
    let new = NewTopic { name: topic.name.clone(), partitions: topic.partitions, config: topic.config.clone() };
    let there = broker.catalog().ensure(new).await.map_err(failed)?;
    let count = there.partitions().len();
    if usize::try_from(topic.partitions).is_ok_and(|declared| count < declared) {
        broker.catalog().grow(&topic.name, topic.partitions).await.map_err(failed)?;
    }
    Ok(())
}

impl Running {
    /// The first Kafka listener's address.
    pub fn kafka(&self) -> Option<SocketAddr> {
        self.kafka.first().copied()
    }

    /// The HTTP port's address.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The registry port's address; none when the registry answers only under `/registry` of the HTTP port.
    pub fn registry(&self) -> Option<SocketAddr> {
        self.registry
    }

    /// The broker, for commands and tests in the same process.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The engine, for commands and tests in the same process.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The lake, for commands and tests in the same process.
    pub fn lake(&self) -> &Arc<Lake> {
        &self.lake
    }

    /// The sources, for commands and tests in the same process.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Stops HTTP, sources, sinks with jobs and alerts, lake, engine and broker, in this order, each within a bounded time.
    pub async fn stop(self) {
        // Nobody listening is what is wanted.
        let _ = self.stopping.send(true);
        self.broker.give_up_waiting();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the http side ended with a fault");
            }
        }
        within("sources", self.sources.stop()).await;
        within("sinks, jobs and alerts", self.work.stop()).await;
        within("lake", self.lake.stop()).await;
        within("engine", self.engine.stop()).await;
        within("broker", self.broker.stop()).await;
    }
}

/// Waits for a part to stop, and says so when it does not.
async fn within<T>(part: &'static str, stop: impl Future<Output = T>) {
    if tokio::time::timeout(STOP_MAX, stop).await.is_err() {
        tracing::warn!(part, seconds = STOP_MAX.as_secs(), "a part did not stop in time; the process ends without it");
    }
}
