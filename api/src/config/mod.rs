//! The whole configuration: what the files, the environment and the flags together say.
//!
//! `settings` declares each key once; `read` and `load` check against it, `build` makes the structs that broker, engine and lake take,
//! `manual` writes config/millpond.toml.

mod build;
mod build_access;
mod build_dashboards;
mod build_lake;
mod build_models;
mod build_notes;
mod build_own_schema;
mod build_registry;
mod build_security;
mod build_sources;
mod build_streams;
mod build_topics;
mod build_work;
mod dashboards;
mod load;
mod manual;
mod mistake;
pub mod read;
pub mod schema;
mod settings;
mod settings_access;
mod settings_dashboards;
mod settings_kafka;
mod settings_lake;
mod settings_models;
mod settings_registry;
mod settings_security;
mod settings_sources;
mod settings_streams;
mod settings_work;
pub mod value;
mod variables;
mod work;

#[cfg(test)]
mod tests;

use broker::{BrokerConfig, Compatibility, Reference, SchemaType};
use engine::EngineConfig;
use lake::LakeConfig;

pub use build_access::{Scopes, TokenConfig};
pub use build_models::ModelConfig;
pub use dashboards::{
    Colour, DashboardConfig, FilterConfig, FilterKind, PanelConfig, PanelKind, PanelStyle, ThresholdConfig,
};
pub use load::{Inputs, Loaded, load};
pub use manual::manual;
pub use mistake::{Mistake, Mistakes, Origin, suggestion};
pub use read::Source;
pub use work::*;

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
    /// Sinks, jobs, alerts.
    pub work: WorkConfig,
    /// Topics to be there.
    pub topics: Vec<TopicDeclaration>,
    /// Schemas to be registered.
    pub schemas: Vec<SchemaDeclaration>,
    /// Who may use the HTTP port; none: everybody.
    pub tokens: Vec<TokenConfig>,
    /// Pages of charts.
    pub dashboards: Vec<DashboardConfig>,
    /// Models that are measured.
    pub models: Vec<ModelConfig>,
    /// What people say about topics, streams, views and tables.
    pub notes: Vec<NoteConfig>,
    /// Files that are read into topics.
    pub sources: Vec<engine::sources::SourceConfig>,
}

/// `owner` and `description` of a topic, stream, column, view or lake table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NoteConfig {
    /// The list it stands in, such as `streams`; `columns` for a column of a stream.
    pub list: &'static str,
    /// Its name; of a column, `stream.column`.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it holds.
    pub description: Option<String>,
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicDeclaration {
    /// The topic's name.
    pub name: String,
    /// Number of partitions it has at least; a topic that has more keeps them.
    pub partitions: i32,
    /// Copies that are asked for; one is kept.
    pub replication: i32,
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
