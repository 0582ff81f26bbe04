//! What every route works on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use broker::{Broker, Clock, TimestampMs};
use engine::{Engine, Sources};
use lake::Lake;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::access::Access;
use crate::config::{DashboardConfig, FilterConfig, HttpConfig, NoteConfig};
use crate::error::{Answer, Problem};
use crate::lineage::Declared;
use crate::models::Models;
use crate::panels::{Asked, Panel, PanelData};
use crate::rates::Rates;
use crate::shared::Shared;
use crate::uptime::Uptime;
use crate::verify::Verifications;
use crate::work::Work;

/// The parts of the running server and the bounds of the HTTP side. Shared by all requests, never changed by one
/// except for its counters; nothing in it survives a restart.
pub struct App {
    /// Topics, log, groups.
    pub broker: Arc<Broker>,
    /// Streams and views.
    pub engine: Arc<Engine>,
    /// Parquet and SQL.
    pub lake: Arc<Lake>,
    /// Sinks, jobs, alerts.
    pub work: Arc<Work>,
    /// Who may use the HTTP side.
    pub access: Access,
    /// Limits of the HTTP side.
    pub http: HttpConfig,
    /// Most rows of one SQL answer: what both the HTTP side and the lake allow.
    pub sql_rows_max: usize,
    /// Dashboards by name, checked against the views at the start.
    pub dashboards: BTreeMap<String, Dashboard>,
    /// Their names in the order declared.
    pub order: Vec<String>,
    /// What SQL panels got, shared among viewers.
    pub asked: Shared<Asked>,
    /// What panels over views showed, shared among viewers who watch them live.
    pub drawn: Shared<PanelData>,
    /// What people say about topics, streams, views and tables.
    pub notes: Vec<NoteConfig>,
    /// Topics of which more copies are asked for than there are brokers.
    pub copies_asked: BTreeMap<String, i32>,
    /// What the configuration says about where data come from and go.
    pub declared: Declared,
    /// Files that are read into topics.
    pub sources: Arc<Sources>,
    /// Rates of the last fifteen minutes.
    pub rates: Arc<Rates>,
    /// How much of the last thirty days the server was there.
    pub uptime: Arc<Uptime>,
    /// When the server became ready, in ms since 1970.
    pub started_ms: TimestampMs,
    /// Turns true when the server stops: live streams end.
    pub stopping: watch::Receiver<bool>,
    /// One permit per request under way.
    pub requests: Arc<Semaphore>,
    /// One permit per live stream.
    pub streams: Arc<Semaphore>,
    /// Spreads requests whose records have no key over the partitions.
    pub spread: AtomicU32,
    /// Models and their latest figures.
    pub models: Models,
    /// Verifications of views and of the lake.
    pub verifications: Verifications,
}

/// A dashboard with its panels bound to the views they read.
pub struct Dashboard {
    /// As declared.
    pub config: DashboardConfig,
    /// What it can be filtered by: as declared, or the keys of its views.
    pub filters: Vec<FilterConfig>,
    /// In the order declared.
    pub panels: Vec<Panel>,
}

impl App {
    /// The clock of the whole server.
    pub fn clock(&self) -> &Clock {
        self.broker.clock()
    }

    /// A permit to hold one live stream open.
    pub fn stream_permit(&self) -> Answer<OwnedSemaphorePermit> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            Problem::busy(format!(
                "{} live streams are open, which is the limit: close one, or raise http.streams_max",
                self.http.streams_max
            ))
        })
    }

    /// The next number for spreading records without a key.
    pub fn next_spread(&self) -> u32 {
        self.spread.fetch_add(1, Ordering::Relaxed)
    }
}
