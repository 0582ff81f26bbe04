//! The whole configuration: what the files, the environment and the flags together say.
//!
//! `settings` declares each key once; `read` and `load` check against it, `build` makes the structs that broker, engine and lake take,
//! `manual` writes config/millpond.toml.

mod build;
mod build_models;
mod build_registry;
mod load;
mod manual;
mod mistake;
pub mod read;
pub mod schema;
mod settings;
mod settings_models;
mod settings_registry;
pub mod value;

#[cfg(test)]
mod tests;

use broker::{BrokerConfig, Compatibility, Reference, SchemaType};
use engine::EngineConfig;
use lake::LakeConfig;

pub use build_models::ModelConfig;
pub use load::{Inputs, Loaded, load};
pub use manual::manual;
pub use mistake::{Mistake, Mistakes, Origin, suggestion};
pub use read::Source;

/// Everything the server is told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Kafka side.
    pub broker: BrokerConfig,
    /// Streams and views.
    pub engine: EngineConfig,
    /// Parquet files and SQL.
    pub lake: LakeConfig,
    /// The HTTP side.
    pub http: HttpConfig,
    /// Topics to be there.
    pub topics: Vec<TopicDeclaration>,
    /// Schemas to be registered.
    pub schemas: Vec<SchemaDeclaration>,
    /// Pages of charts.
    pub dashboards: Vec<DashboardConfig>,
    /// Models that are measured.
    pub models: Vec<ModelConfig>,
}

/// `[http]`: the port that answers HTTP and the page, and the one for the schema registry.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// `HOST:PORT` of the HTTP API and the page; port 0 takes a free one.
    pub bind: String,
    /// `HOST:PORT` of the schema registry's own port; none: only under `/registry`.
    pub registry_bind: Option<String>,
    /// Largest request body taken, in bytes; a larger one is refused with 413.
    pub body_bytes_max: usize,
    /// Longest time a metrics read may ask to wait for freshness, in milliseconds.
    pub wait_ms_max: u64,
    /// Time a metrics read waits for freshness when it does not say, in milliseconds.
    pub wait_ms: u64,
    /// Most rows one answer of a view or of SQL carries.
    pub rows_max: usize,
    /// Most HTTP requests served at one time; further ones are told to come back (503).
    pub requests_max: usize,
    /// Most server-sent-event streams open at one time.
    pub streams_max: usize,
}

/// `[[topics]]`: a topic that exists once the server is ready.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicDeclaration {
    /// The topic's name.
    pub name: String,
    /// Number of partitions it has at least; a topic that has more keeps them.
    pub partitions: i32,
    /// Topic settings under Kafka's names, such as `retention.ms`.
    pub config: std::collections::BTreeMap<String, String>,
}

/// `[[schemas]]`: a schema that is registered once the server is ready.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaDeclaration {
    /// The subject.
    pub subject: String,
    /// Its language.
    pub kind: SchemaType,
    /// Its text.
    pub schema: String,
    /// What it uses; version 0 is the latest.
    pub references: Vec<Reference>,
    /// How versions must fit; none: what is set already.
    pub compatibility: Option<Compatibility>,
}

/// `[[dashboards]]`: one page of charts.
#[derive(Clone, Debug, PartialEq)]
pub struct DashboardConfig {
    /// The name in its URL.
    pub name: String,
    /// The title people read.
    pub title: String,
    /// Time between two looks at panels that no change wakes (SQL), in milliseconds.
    pub refresh_ms: u64,
    /// The charts, in the order shown.
    pub panels: Vec<PanelConfig>,
}

/// `[[dashboards.panels]]`: one chart, fed by a view or by SQL, never both.
#[derive(Clone, Debug, PartialEq)]
pub struct PanelConfig {
    /// The title people read.
    pub title: String,
    /// How the rows are drawn.
    pub kind: PanelKind,
    /// The view it reads, live.
    pub view: Option<String>,
    /// The SQL it asks at each refresh.
    pub sql: Option<String>,
    /// The column along the x axis, or the label of a bar or slice.
    pub x: Option<String>,
    /// The columns drawn as values.
    pub y: Vec<String>,
    /// The column whose values become one series each.
    pub series: Option<String>,
    /// How far back from now it reads a view's windows, in milliseconds; none: all.
    pub range_ms: Option<i64>,
    /// Only the largest so many series, bars or rows; the rest are summed as "other" where that makes sense.
    pub top: Option<usize>,
    /// Unit shown after a value, such as `plays/min`.
    pub unit: Option<String>,
}

/// How a panel draws its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelKind {
    /// A line per series over time.
    Line,
    /// A bar per row or series.
    Bar,
    /// A slice per row.
    Pie,
    /// One large number.
    Number,
    /// The rows themselves.
    Table,
}
