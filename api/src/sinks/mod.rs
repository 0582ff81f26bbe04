//! Sinks: rows that go elsewhere. `table` brings a stream or the changes of a view into PostgreSQL (`feed` reads, `plan`
//! writes SQL, `database` makes transactions); `file` writes what a query gives.

mod database;
mod feed;
mod file;
mod pace;
mod plan;
mod routes;
mod status;
mod table;

use std::sync::Arc;

use broker::Broker;
use engine::Engine;
use lake::Lake;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use database::check_url;
pub use routes::routes;
pub use status::TableStatus;

use self::feed::Feed;
use self::file::FileSink;
use self::table::TableSink;
use crate::config::{SinkConfig, SinkKind, SinkSource};

/// Every sink.
pub struct Sinks {
    tables: Vec<Arc<TableSink>>,
    files: Vec<Arc<FileSink>>,
}

impl Sinks {
    /// Binds each sink to what it takes, without beginning; `rows_max` is the most rows that one query answers.
    ///
    /// # Errors
    /// Every sink that does not fit, together.
    pub fn bind(
        (broker, engine, lake): (&Arc<Broker>, &Arc<Engine>, &Arc<Lake>),
        configs: &[SinkConfig],
        rows_max: usize,
    ) -> Result<Sinks, Vec<String>> {
        let (mut tables, mut files, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
        for config in configs {
            match &config.kind {
                SinkKind::File(file) => {
                    let parts = (broker.clone(), lake.clone());
                    files.push(Arc::new(FileSink::new(parts, &config.name, file, rows_max)));
                }
                SinkKind::Postgres(table) => {
                    let feed =
                        Feed::find(engine, &table.source).map_err(|error| format!("sink {}: {error}", config.name));
                    let parts = (broker.clone(), engine.clone());
                    let sink = feed.and_then(|feed| TableSink::new(parts, &config.name, table, feed));
                    match sink {
                        Ok(sink) => tables.push(Arc::new(sink)),
                        Err(mistake) => mistakes.push(mistake),
                    }
                }
            }
        }
        if mistakes.is_empty() { Ok(Sinks { tables, files }) } else { Err(mistakes) }
    }

    /// Begins.
    pub fn run(&self, stopping: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        let tables = self.tables.iter().map(|sink| tokio::spawn(sink.clone().run(stopping.clone())));
        let files = self.files.iter().map(|sink| tokio::spawn(sink.clone().run(stopping.clone())));
        tables.chain(files).collect()
    }

    /// Lets a file sink write its file now.
    ///
    /// # Errors
    /// Why there is no new file.
    pub async fn export(&self, name: &str) -> Result<String, String> {
        match self.files.iter().find(|sink| sink.name == name) {
            Some(sink) => sink.export().await,
            None => Err(format!("no sink {name} of kind file: GET /v1/sinks lists them")),
        }
    }

    /// Whether there is a file sink of this name.
    pub fn has_file(&self, name: &str) -> bool {
        self.files.iter().any(|sink| sink.name == name)
    }

    /// The names of sinks into tables, and how they stand.
    pub fn tables(&self) -> Vec<(String, TableStatus)> {
        self.tables.iter().map(|sink| (sink.name.clone(), sink.status())).collect()
    }

    /// Every sink.
    pub fn list(&self) -> Vec<Value> {
        let table = |sink: &Arc<TableSink>| {
            let (kind, name) = match &sink.config.source {
                SinkSource::Stream(name) => ("stream", name),
                SinkSource::View(name) => ("view", name),
            };
            let mut shown = json!({"name": sink.name, "kind": "postgres", kind: name, "table": sink.config.table});
            merge(&mut shown, sink.status().json());
            shown
        };
        let file = |sink: &Arc<FileSink>| {
            let mut shown = json!({"name": sink.name, "kind": "file", "folder": sink.config.folder});
            merge(&mut shown, sink.status().json());
            shown
        };
        self.tables.iter().map(table).chain(self.files.iter().map(file)).collect()
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}
