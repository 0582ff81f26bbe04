//! The running lake: what starts, stops and is asked from outside.

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use broker::{Broker, Offset, PartitionIndex, TimestampMs, TopicName};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::archive::{ArchiveReport, Archiver};
use crate::backup::{BackupReport, Backups};
use crate::config::{Costs, LakeConfig};
use crate::ddl::{self, Dialect, TableDdl};
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::floors::Floors;
use crate::fork::{ForkReport, Forks};
use crate::history::SettledRows;
use crate::iceberg::Iceberg;
use crate::manifest::Manifest;
use crate::merge::{MergeReport, Merger};
use crate::objects::{Address, Destination};
use crate::proof::{self, ViewReport, ViewScope};
use crate::put_aside::PutAside;
use crate::query::{Queries, Source, SqlAnswer, SqlRequest};
use crate::query_log::QueryLog;
use crate::raw::RawFiles;
use crate::retired::Retired;
use crate::sealer::Sealer;
use crate::settle::{Fault, Settler};
use crate::system_tables::{self, Cost, Stored};
use crate::tables::{self, Table, Tables};
use crate::transform::{self, Runner, TransformInfo, TransformReport, WrittenTable};
use crate::verify::{self, VerifyReport};
use crate::views::Views;
use crate::writer::WriteLimits;
pub use status::{LakeStatus, TableStatus};

/// Below the data directory: files that wait to be uploaded to an object store.
const UPLOADS_DIR: &str = "lake-uploads";

/// The running lake. Holds: sealer and merger at work and the way to run queries. A crash keeps what the manifest says.
pub struct Lake {
    sealer: Arc<Sealer>,
    queries: Arc<Queries>,
    runner: Arc<Runner>,
    archiver: Archiver,
    merger: Arc<Merger>,
    backups: Backups,
    forks: Forks,
    destination: Arc<Destination>,
    /// Of the configuration: how topics settle, and whether in zones. The rest is not kept.
    config: LakeConfig,
    stop: watch::Sender<bool>,
    working: Mutex<Vec<JoinHandle<()>>>,
}

/// What a flush wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushReport {
    /// Files published.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The first offset that is not settled, per partition.
    pub marks: BTreeMap<PartitionIndex, Offset>,
}

/// What a lake is made of; tests hand in their own parts.
pub(crate) struct Parts {
    /// The log and the store.
    pub broker: Arc<Broker>,
    /// The tables, those that do not settle too.
    pub tables: Vec<Arc<Table>>,
    /// The views that SQL reads.
    pub views: Arc<dyn Views>,
    /// Destination and limits of SQL; its tables are not looked at again.
    pub config: LakeConfig,
    /// Bounds of one range.
    pub limits: WriteLimits,
    /// Ends attempts at settling as a crash would; only in tests.
    pub fault: Option<Fault>,
}

impl Lake {
    /// Starts the lake over a broker and an engine: reads the manifest, removes what a crash left, and begins to settle.
    /// A destination that is away does not keep it from starting.
    ///
    /// # Errors
    /// `Config`, with all mistakes at once, when the configuration or the destination is wrong; `Broker` when the
    /// manifest cannot be read.
    pub async fn start(broker: Arc<Broker>, engine: Arc<engine::Engine>, config: LakeConfig) -> Result<Arc<Self>> {
        let tables = tables::tables(engine.streams(), &config)?;
        let views = engine.clone();
        let parts = Parts { broker, tables, views, config, limits: WriteLimits::default(), fault: None };
        // boxed: what awaits it would else be a future too deep for the compiler
        let assembled: BoxFuture<'_, Result<Arc<Self>>> = Box::pin(Self::assemble(parts));
        let lake = assembled.await?;
        engine.set_history(Arc::new(lake.settled_rows()));
        Ok(lake)
    }

    /// What has left the log.
    pub(crate) fn settled_rows(&self) -> SettledRows {
        let (settler, tables) = (self.sealer.settler(), self.queries.source().tables.clone());
        SettledRows { tables, manifest: settler.manifest.clone(), destination: settler.destination.clone() }
    }

    pub(crate) async fn assemble(parts: Parts) -> Result<Arc<Self>> {
        let Parts { broker, tables, views, config, limits, fault } = parts;
        let manifest = Arc::new(Manifest::open(broker.clone()).await?);
        let expected = manifest.snapshot(&manifest.logs()).iter().any(|settled| !settled.files.is_empty());
        let address = address(&broker, &config);
        let destination = Arc::new(Destination::new(address, broker.cluster_id().to_owned(), expected));
        let floors = Floors::new(broker.holds().register("lake"));
        let taken = tables.iter().map(|table| table.name.clone()).chain(views.names()).collect();
        let written = written(&broker, &config, &taken)?;
        let tables = Arc::new(Tables::new(tables));
        let iceberg = config.iceberg_keep_ms.map(|keep_ms| {
            let parts = (broker.clone(), destination.clone(), manifest.clone());
            Arc::new(Iceberg::new(parts, (tables.clone(), written.clone()), keep_ms, fault.clone()))
        });
        let raw = RawFiles::serve(broker.clone(), manifest.clone(), destination.clone(), &config.tables);
        let settler = Settler {
            broker: broker.clone(),
            destination: destination.clone(),
            manifest: manifest.clone(),
            floors: floors.clone(),
            raw: raw.clone(),
            iceberg: iceberg.clone(),
            limits,
            fault,
            attempts: AtomicU64::new(0),
        };
        let spill_dir = broker.config().data_dir.join("lake-spill");
        let source = Source {
            broker,
            tables: tables.clone(),
            written: written.clone(),
            views,
            manifest,
            floors,
            destination: destination.clone(),
            costs: config.costs.clone(),
        };
        let queries = Arc::new(Queries::new(source, config.sql, spill_dir)?);
        transform::declare(&queries).await?;
        let sealer = Arc::new(Sealer::new(settler, tables, written));
        sealer.tables().iter().for_each(|table| sealer.hold(table));
        sealer.clean_at_start().await?;
        let time_max = Duration::from_millis(config.transform_time_ms);
        let runner = Arc::new(Runner::new(queries.clone(), sealer.clone(), time_max));
        let (stop, stopping) = watch::channel(false);
        let retired = Arc::new(Retired::new(iceberg.clone()));
        let archiver = Archiver::new(sealer.clone(), retired.clone());
        let merger = Arc::new(Merger::new(sealer.clone(), retired));
        let iceberg = iceberg.map(|iceberg| tokio::spawn(iceberg.run(stopping.clone())));
        let working = [
            tokio::spawn(sealer.clone().run(stopping.clone())),
            tokio::spawn(merger.clone().run(stopping.clone())),
            tokio::spawn(raw.run(sealer.clone(), stopping)),
        ];
        let working = Mutex::new(working.into_iter().chain(iceberg).collect());
        let source = queries.source().clone();
        let forks = Forks::new(source.clone());
        let backups = Backups::new(source.broker.clone(), source, config.access);
        let config = LakeConfig { tables: config.tables, zones: config.zones, ..LakeConfig::default() };
        let lake =
            Self { sealer, queries, runner, archiver, merger, backups, forks, destination, config, stop, working };
        Ok(Arc::new(lake))
    }

    /// Whether the lake could settle these streams.
    ///
    /// # Errors
    /// `Config`, with all mistakes at once.
    pub fn check_streams(&self, streams: Vec<Arc<engine::Stream>>) -> Result<()> {
        self.tables_of(streams).map(|_| ())
    }

    /// Goes on with these streams: the topics of new ones settle and can be read, those of dropped ones keep their files.
    ///
    /// # Errors
    /// As [`check_streams`](Self::check_streams).
    pub async fn follow_streams(&self, streams: Vec<Arc<engine::Stream>>) -> Result<()> {
        let (before, after) = (self.sealer.tables(), self.tables_of(streams)?);
        let settles = |topic: &TopicName| after.iter().any(|table| table.topic == *topic && table.settles.is_some());
        let gone: Vec<Arc<Table>> = before.into_iter().filter(|table| !settles(&table.topic)).collect();
        self.queries.source().tables.set(after);
        self.sealer.let_go(&gone).await;
        Ok(())
    }

    fn tables_of(&self, streams: Vec<Arc<engine::Stream>>) -> Result<Vec<Arc<Table>>> {
        tables::tables(streams, &self.config)
    }

    /// Ends in order: the range that is being written is finished, further ones are not begun; a merge whose file is not
    /// whole yet is given up.
    ///
    /// # Errors
    /// `Bug` when the sealer or the merger had ended early.
    pub async fn stop(&self) -> Result<()> {
        self.stop.send_replace(true);
        let working = std::mem::take(&mut *self.working.lock());
        for working in working {
            working.await.map_err(|e| LakeError::bug(format!("the lake's work ended early: {e}")))?;
        }
        Ok(())
    }

    /// Answers one query over tables, views and history.
    ///
    /// # Errors
    /// `Refused` for a statement that is wrong or not allowed, `NotFresh` when a view it names has not caught up,
    /// `TimeLimit`, `MemoryLimit`, `Destination` when its files are away.
    pub async fn sql(&self, request: SqlRequest) -> Result<SqlAnswer> {
        self.queries.sql(request).await
    }

    /// Runs a declared transform with these parameters: its result takes its place in the table, in one commit. The run
    /// goes on when the caller goes away; runs of one transform go one after the other.
    ///
    /// # Errors
    /// `NotFound` for a name that is not declared, `Refused` for parameters or a result that do not fit, `NotFresh`,
    /// `TimeLimit`, `MemoryLimit`, `Destination`; the table is as before then.
    pub async fn transform(&self, name: &str, parameters: &BTreeMap<String, String>) -> Result<TransformReport> {
        self.runner.run(name, parameters).await
    }

    /// The columns of a table or view as SQL sees them, of a view as it is declared; none when there is no
    /// such table, or its query cannot be planned.
    pub fn columns(&self, name: &str) -> Option<SchemaRef> {
        let source = self.queries.source();
        if let Some((filling, _)) = source.views.filling(name) {
            return Some(filling.view.schema);
        }
        if let Some(view) = source.views.table(name) {
            return Some(view.schema());
        }
        if let Some(table) = source.tables.now().iter().find(|table| table.name == name) {
            return Some(table.layout.table_schema().clone());
        }
        let written = source.written.iter().find(|table| table.config.name == name)?;
        written.planned.get().map(|planned| planned.layout.table_schema().clone())
    }

    /// The queries that ran last, and what all read since the start.
    pub fn query_log(&self) -> &QueryLog {
        self.queries.log()
    }

    /// What is stored now: Parquet by zone and name, then the log by topic.
    pub fn stored(&self) -> Vec<Stored> {
        system_tables::stored(self.queries.source())
    }

    /// What storing costs a month and reading since the start, by the configured prices.
    pub fn costs(&self) -> Vec<Cost> {
        let source = self.queries.source();
        system_tables::costs(&source.costs, &system_tables::stored(source), &self.queries.log().totals())
    }

    /// The prices.
    pub fn prices(&self) -> &Costs {
        &self.queries.source().costs
    }

    /// The declared transforms and how their tables fare.
    pub fn transforms(&self) -> Vec<TransformInfo> {
        self.runner.infos()
    }

    /// Moves slices that are old enough at `now` to the zone `archive`, and deletes from there what is older still, as
    /// each table's `archive_after` and `expire_after` say.
    ///
    /// # Errors
    /// `Destination` or `Broker`; what was done before stays done.
    pub async fn archive(&self, now: TimestampMs) -> Result<ArchiveReport> {
        let done = self.archiver.archive(now).await;
        if let Some(iceberg) = self.iceberg() {
            // what goes wrong is noted and tried again
            let _ = iceberg.sync_all().await;
        }
        done
    }

    /// Makes a backup at `url` and keeps the last `keep`: see [`crate::backup`].
    ///
    /// # Errors
    /// `Config` for a place of another cluster's backups, `Destination`, `Broker`; the backups before are kept then.
    pub async fn backup(&self, url: &str, keep: usize) -> Result<BackupReport> {
        self.backups.run(url, keep).await
    }

    /// Forks the server into another data directory, for a second one; its report says what that has.
    ///
    /// # Errors
    /// `Refused` where that cannot be, `Destination`, `Broker`; no store is there then.
    pub async fn fork(&self, data_dir: &Path) -> Result<ForkReport> {
        self.forks.run(data_dir).await
    }

    /// Statements with which Hive or Spark read the lake's tables, or one of them; to be run again for new slices.
    ///
    /// # Errors
    /// `NotFound` for a table that is not in the lake.
    pub fn ddl(&self, dialect: Dialect, table: Option<&str>) -> Result<Vec<TableDdl>> {
        let root = self.destination.hadoop_url();
        let manifest = &self.sealer.settler().manifest;
        let settled = manifest.snapshot(&manifest.logs());
        let has_files = |dir: &str| {
            let below = |path: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
            settled.iter().flat_map(|settled| settled.files.iter()).any(|file| below(&file.path))
        };
        let tables = self.sealer.tables();
        let mut found: Vec<TableDdl> =
            tables.iter().flat_map(|table| ddl::of_topic(table, &root, dialect, has_files)).collect();
        found.extend(self.queries.source().written.iter().filter_map(|table| ddl::of_written(table, &root, dialect)));
        let Some(name) = table else { return Ok(found) };
        let known: Vec<String> = found.iter().map(|ddl| ddl.table.clone()).collect();
        found.retain(|ddl| ddl.table == name);
        if found.is_empty() {
            let message = format!("no table {name} in the lake; there are: {}", known.join(", "));
            return Err(LakeError::new(LakeErrorKind::NotFound, message));
        }
        Ok(found)
    }

    /// Settles all that a topic has at this moment.
    ///
    /// # Errors
    /// `NotFound` for a topic that does not settle, `Destination` when the files cannot be written.
    pub async fn flush(&self, topic: &str) -> Result<FlushReport> {
        let done = self.sealer.flush(topic).await?;
        self.follow(topic).await;
        let status =
            self.sealer.tables().iter().find(|table| *table.topic == *topic).map(|table| self.table_status(table));
        let marks = status.map(|status| status.marks).unwrap_or_default();
        Ok(FlushReport { files: done.files, rows: done.rows, bytes: done.bytes, marks })
    }

    /// Merges all small files of a topic that are neighbours in a slice, however few.
    ///
    /// # Errors
    /// `NotFound` for a topic that does not settle, `Refused` for one whose table is not merged, `Destination` when files
    /// cannot be read or written; what was done before stays done.
    pub async fn merge(&self, topic: &str) -> Result<MergeReport> {
        let done = self.merger.merge(topic, self.stop.subscribe()).await;
        self.follow(topic).await;
        done
    }

    /// The Iceberg tables over the lake's files; none where they are not wanted.
    pub fn iceberg(&self) -> Option<&Arc<Iceberg>> {
        self.sealer.settler().iceberg.as_ref()
    }

    /// Readers of Iceberg see what was asked for when it is done.
    async fn follow(&self, topic: &str) {
        if let Some(iceberg) = self.iceberg() {
            iceberg.sync(topic).await;
        }
    }

    /// Compares files and log record by record: each offset of the log that is a row must be in exactly one file or above
    /// the mark, and files of whole records have what the log has, or what was published.
    ///
    /// # Errors
    /// `NotFound` for a topic that does not settle, `Destination` or `Broker` when something cannot be read.
    pub async fn verify(&self, topic: &str) -> Result<VerifyReport> {
        let table = self.sealer.tables().into_iter().find(|table| *table.topic == *topic).ok_or_else(|| {
            LakeError::new(LakeErrorKind::NotFound, format!("no topic {topic} that settles in the lake"))
        })?;
        let (sealer, notes) = (self.sealer.clone(), self.sealer.put_aside(topic));
        let run = self.queries.spawn(async move { verify::verify(sealer.settler(), &table).await })?;
        let report = run.await.map_err(|e| LakeError::bug(format!("the verification ended early: {e}")))??;
        Ok(VerifyReport { notes: notes.iter().map(PutAside::told).collect(), ..report })
    }

    /// Compares what a view serves with what its declaration gives over its stream's table: see [`ViewReport`].
    ///
    /// # Errors
    /// `NotFound` for no view, `NotFresh`, `TimeLimit`, `MemoryLimit`, `Destination`.
    pub async fn verify_view(&self, engine: &Arc<engine::Engine>, view: &str, scope: ViewScope) -> Result<ViewReport> {
        proof::verify(&self.queries, engine, (view, scope), self.runner.time_max()).await
    }
}

/// Where the files lie.
fn address(broker: &Broker, config: &LakeConfig) -> Address {
    let data_dir = &broker.config().data_dir;
    let url = match config.url.as_str() {
        "" => data_dir.join("lake").display().to_string(),
        url => url.to_owned(),
    };
    Address { url, access: config.access.clone(), work_dir: data_dir.join(UPLOADS_DIR) }
}

/// The tables that SQL writes, with what the manifest has of them.
fn written(broker: &Broker, config: &LakeConfig, taken: &BTreeSet<String>) -> Result<Vec<Arc<WrittenTable>>> {
    let checked = transform::check(config, taken)?;
    let load = |(config, template)| WrittenTable::load(broker, config, template).map(Arc::new);
    checked.into_iter().map(load).collect()
}

#[cfg(test)]
impl Lake {
    /// Holds what a query of the topic would.
    pub(crate) fn pin_for_test(&self, topic: &str) -> crate::hybrid::Boundary {
        let settler = self.sealer.settler();
        let table = self.sealer.tables().into_iter().find(|table| *table.topic == *topic).unwrap();
        crate::hybrid::Boundary::read(&table, &settler.broker, &settler.manifest, &settler.floors)
    }

    /// What keeps count of files.
    pub(crate) fn manifest_for_test(&self) -> Arc<Manifest> {
        self.sealer.settler().manifest.clone()
    }

    /// Merges what is worth it at `now`.
    pub(crate) async fn look_for_test(&self, now: TimestampMs) {
        self.merger.look(now, &self.stop.subscribe()).await;
    }

    /// A query that has read its boundary and is not run yet.
    pub(crate) async fn prepare_for_test(&self, sql: &str) -> crate::prepare::Prepared {
        let statement = self.queries.parse(sql).unwrap();
        self.queries.prepare_work(statement, "test").await.unwrap()
    }

    /// Waits until what the last run left is removed, however long that takes.
    pub(crate) async fn clean_for_test(&self) -> Result<()> {
        self.sealer.clean().await
    }

    /// What it settles with.
    pub(crate) fn settler_for_test(&self) -> &Settler {
        self.sealer.settler()
    }

    /// The files of whole records.
    pub(crate) fn raw_for_test(&self) -> Arc<RawFiles> {
        self.sealer.settler().raw.clone()
    }

    /// Merges files of whole records.
    pub(crate) async fn merge_raw_for_test(&self) -> Result<()> {
        self.raw_for_test().merge(&self.sealer, &self.stop.subscribe()).await
    }

    /// Ends as a crash would, once the step under way is over: the lakes of a test share one process.
    pub(crate) async fn crash(&self) {
        self.stop().await.unwrap();
    }
}
