//! SQL: one read-only statement over tables and views, within limits of time, memory and rows.
//!
//! A query first waits until the views it names have applied everything appended before it, then reads the boundary of
//! each table it names, once, then runs. It runs on threads of its own, so that it never delays a producer. What writes,
//! configures or names files of this machine is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use broker::Broker;
use datafusion::catalog::CatalogProviderList;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider,
    TableProvider,
};
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionState};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryPool, TrackConsumersPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::prelude::{DataFrame, SessionConfig};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::Offsets;
use crate::config::SqlLimits;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::file_scan::Files;
use crate::floors::Floors;
use crate::hybrid::{Boundary, HybridTable};
use crate::manifest::Manifest;
use crate::objects::Destination;
use crate::query_error::explain;
use crate::read_only::{param, refuse_writes, refused_write, takes_limit};
use crate::tables::Table;
use crate::transform::{TableFiles, WrittenScan, WrittenTable};

/// The catalog of every session.
pub const CATALOG: &str = "millpond";
/// Its one schema.
pub const SCHEMA: &str = "public";
/// Longest statement that is read.
const SQL_BYTES_MAX: usize = 1 << 20;
/// Longest wait for a destination that was not opened yet.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the views that a query names.
const FRESH_WAIT_MS_MAX: u64 = 5_000;

/// One query.
#[derive(Clone, Debug, Default)]
pub struct SqlRequest {
    /// A statement that reads: `SELECT`, `WITH`, `VALUES`, `SHOW`, `DESCRIBE`, `EXPLAIN`.
    pub sql: String,
    /// Values of `$1`, `$2`, …: null, booleans, numbers and strings.
    pub params: Vec<serde_json::Value>,
    /// Most rows wanted. An answer of so many rows may have been cut; ask for one more than is needed to know. At most
    /// one more than the limit of the configuration.
    pub row_limit: usize,
}

/// What a query gave.
#[derive(Clone, Debug)]
pub struct SqlAnswer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub rows: Vec<RecordBatch>,
    /// What is in the answer: of each topic that a table or view reads, the next offset per partition.
    pub offsets: Offsets,
}

/// The engine's views and tables, as queries need them.
pub trait Views: Send + Sync {
    /// The names of all views and of what else the engine shows as a table.
    fn names(&self) -> Vec<String>;
    /// A view as a table.
    fn table(&self, view: &str) -> Option<Arc<dyn TableProvider>>;
    /// Whether `fresh` can wait for this name: a view, or a table or stream that the engine computes.
    fn follows(&self, name: &str) -> bool {
        self.names().iter().any(|known| known == name)
    }
    /// Waits until a view has applied everything appended before; gives the offsets applied.
    fn fresh<'a>(&'a self, view: &'a str, wait_ms: u64) -> BoxFuture<'a, Result<Offsets>>;
}

/// Runs queries. Holds: the memory that all queries share and the threads they run on. Nothing survives a crash.
pub struct Queries {
    source: Source,
    limits: SqlLimits,
    base: SessionState,
    /// What transforms run in: memory of their own, and a directory for what does not fit.
    work: Arc<RuntimeEnv>,
    threads: Threads,
}

/// A query that is planned. Keeps what it reads from being deleted, as long as it lives.
pub struct Prepared {
    /// The session it was planned in.
    pub state: SessionState,
    /// The plan.
    pub plan: LogicalPlan,
    /// What it reads: of each topic, the next offset per partition.
    pub offsets: Offsets,
    _reads: Reads,
}

#[derive(Default)]
struct Reads {
    boundaries: Vec<Arc<Boundary>>,
    files: Vec<TableFiles>,
}

/// Where queries read.
pub struct Source {
    /// The log.
    pub broker: Arc<Broker>,
    /// The tables.
    pub tables: Vec<Arc<Table>>,
    /// The tables that SQL writes.
    pub written: Vec<Arc<WrittenTable>>,
    /// The views.
    pub views: Arc<dyn Views>,
    /// What is settled.
    pub manifest: Arc<Manifest>,
    /// What retention keeps.
    pub floors: Floors,
    /// Where files are.
    pub destination: Arc<Destination>,
}

/// The threads of queries; ended without waiting, because a query may be dropped at any point.
struct Threads(Option<tokio::runtime::Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Queries {
    /// A runner of queries.
    ///
    /// # Errors
    /// `Config` when the limits are impossible, `Bug` when threads cannot be started.
    pub fn new(source: Source, limits: SqlLimits, spill_dir: PathBuf) -> Result<Self> {
        if limits.time_ms == 0 || limits.memory_bytes == 0 || limits.rows == 0 {
            return Err(LakeError::config(
                "the lake's limits of SQL must be above 0: set lake.sql_time_max and its like",
            ));
        }
        let disabled = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = runtime_env(GreedyMemoryPool::new(limits.memory_bytes), disabled)?;
        let spill = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spill_dir]));
        let work = runtime_env(FairSpillPool::new(limits.memory_bytes), spill)?;
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true)
            .with_target_partitions(cores);
        let mut base =
            SessionStateBuilder::new_with_default_features().with_config(config).with_runtime_env(runtime).build();
        base.register_udf(Arc::new(engine::tumble()))
            .map_err(|e| LakeError::bug(format!("a function of SQL cannot be set up: {e}")))?;
        engine::model::register(&mut base).map_err(|e| LakeError::bug(format!("models cannot be named: {e}")))?;
        for function in engine::normalisers() {
            base.register_udf(Arc::new(function)).map_err(|e| LakeError::bug(format!("SQL cannot be set up: {e}")))?;
        }
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores)
            .thread_name("lake-sql")
            .enable_all()
            .build()
            .map_err(|e| LakeError::bug(format!("threads for SQL cannot be started: {e}")))?;
        Ok(Self { source, limits, base, work, threads: Threads(Some(threads)) })
    }

    /// Answers one query.
    ///
    /// # Errors
    /// `Refused` for a statement that is wrong or not allowed, `NotFresh`, `TimeLimit`, `MemoryLimit`, `Destination`.
    pub async fn sql(self: &Arc<Self>, request: SqlRequest) -> Result<SqlAnswer> {
        let (this, time) = (self.clone(), Duration::from_millis(self.limits.time_ms));
        let run = async move { this.within_time(request, time).await };
        // dropped with its caller: a query whose client has gone away stops
        let task = AbortOnDrop(self.spawn(run)?);
        task.await
    }

    /// Runs something on the threads of SQL, to its end.
    ///
    /// # Errors
    /// `Bug` when SQL has ended.
    pub fn spawn<T: Send + 'static>(
        &self,
        run: impl Future<Output = T> + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<T>> {
        let threads = self.threads.0.as_ref().ok_or_else(|| LakeError::bug("SQL has ended"))?;
        Ok(threads.spawn(run))
    }

    /// Where queries read.
    pub fn source(&self) -> &Source {
        &self.source
    }

    async fn within_time(&self, request: SqlRequest, time: Duration) -> Result<SqlAnswer> {
        match tokio::time::timeout(time, self.run(request)).await {
            Ok(answer) => answer,
            Err(_) => {
                let message = format!(
                    "the query ran longer than {} ms: narrow it by a time range or a slice column, or raise lake.sql_time_max",
                    time.as_millis()
                );
                Err(LakeError::new(LakeErrorKind::TimeLimit, message))
            }
        }
    }

    async fn run(&self, request: SqlRequest) -> Result<SqlAnswer> {
        if request.sql.len() > SQL_BYTES_MAX {
            let message = format!("the statement has {} bytes: at most {SQL_BYTES_MAX} are read", request.sql.len());
            return Err(LakeError::new(LakeErrorKind::Refused, message));
        }
        let params =
            request.params.iter().enumerate().map(|(at, value)| param(at, value)).collect::<Result<Vec<_>>>()?;
        let statement = self.parse(&request.sql)?;
        refuse_writes(&statement)?;
        let Prepared { state, plan, offsets, _reads } =
            self.prepare(statement, self.base.runtime_env().clone(), None).await?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|_| refused_write("that"))?;
        let row_limit = request.row_limit.min(self.limits.rows.saturating_add(1));
        let (schema, rows) = self.execute(state, plan, params, row_limit).await?;
        Ok(SqlAnswer { schema, rows, offsets })
    }

    /// Reads a statement.
    ///
    /// # Errors
    /// `Refused`.
    pub fn parse(&self, sql: &str) -> Result<Statement> {
        let dialect = self.base.config_options().sql_parser.dialect;
        self.base.sql_to_statement(sql, &dialect).map_err(|e| self.explain(&e))
    }

    /// The names of the tables that a statement names.
    ///
    /// # Errors
    /// `Refused`.
    pub fn named(&self, statement: &Statement) -> Result<BTreeSet<String>> {
        let named = self.base.resolve_table_references(statement).map_err(|e| self.explain(&e))?;
        Ok(named.iter().map(|table| table.table().to_owned()).collect())
    }

    /// Plans a transform's query, to be run with memory and disk of the transforms' own. `table`, which it writes, can be
    /// read in its session.
    ///
    /// # Errors
    /// As [`Queries::sql`].
    pub async fn prepare_work(&self, statement: Statement, table: &str) -> Result<Prepared> {
        self.prepare(statement, self.work.clone(), Some(table)).await
    }

    /// Plans a query, without reading anything: its columns.
    ///
    /// # Errors
    /// `Refused` when it is wrong.
    pub async fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        let (none, mut offsets, mut reads) = (BTreeSet::new(), Offsets::new(), Reads::default());
        let state = self.session(&none, self.base.runtime_env().clone(), &mut offsets, &mut reads).await?;
        state.statement_to_plan(statement).await.map_err(|e| self.explain(&e))
    }

    /// Waits for the views that a query names, reads the boundaries of its tables, and plans it.
    async fn prepare(&self, statement: Statement, room: Arc<RuntimeEnv>, table: Option<&str>) -> Result<Prepared> {
        let mut named = self.named(&statement)?;
        named.extend(table.map(str::to_owned));
        let mut offsets = self.freshen(&named).await?;
        let mut reads = Reads::default();
        let state = self.session(&named, room, &mut offsets, &mut reads).await?;
        let plan = state.statement_to_plan(statement).await.map_err(|e| self.explain(&e))?;
        Ok(Prepared { state, plan, offsets, _reads: reads })
    }

    /// Waits for the named views, tables and derived streams.
    async fn freshen(&self, named: &BTreeSet<String>) -> Result<Offsets> {
        let mut offsets = Offsets::new();
        for view in named.iter().filter(|name| self.source.views.follows(name)) {
            merge(&mut offsets, self.source.views.fresh(view, FRESH_WAIT_MS_MAX.min(self.limits.time_ms)).await?);
        }
        Ok(offsets)
    }

    /// A session in which the tables and views have their names, those that the query names with their boundaries read.
    async fn session(
        &self,
        named: &BTreeSet<String>,
        room: Arc<RuntimeEnv>,
        offsets: &mut Offsets,
        reads: &mut Reads,
    ) -> Result<SessionState> {
        let schema = MemorySchemaProvider::new();
        let catalog = MemoryCatalogProvider::new();
        let catalogs = MemoryCatalogProviderList::new();
        let bug = |e: DataFusionError| LakeError::bug(format!("a table cannot be named: {e}"));
        for view in self.source.views.names() {
            if let Some(table) = self.source.views.table(&view) {
                schema.register_table(view, table).map_err(bug)?;
            }
        }
        let Source { broker, manifest, floors, .. } = &self.source;
        let mut hybrids = Vec::with_capacity(self.source.tables.len());
        for table in &self.source.tables {
            let boundary =
                named.contains(&table.name).then(|| Arc::new(Boundary::read(table, broker, manifest, floors)));
            if let Some(boundary) = &boundary {
                merge(offsets, BTreeMap::from([(table.topic.clone(), boundary.offsets())]));
                reads.boundaries.push(boundary.clone());
            }
            hybrids.push(HybridTable { table: table.clone(), boundary, files: None });
        }
        let mut written = Vec::new();
        for table in &self.source.written {
            let Some(planned) = table.planned.get() else { continue };
            let files = if named.contains(&table.config.name) { table.files() } else { TableFiles::default() };
            reads.files.push(files.clone());
            written.push(WrittenScan {
                name: table.config.name.clone(),
                layout: planned.layout.clone(),
                files,
                at: None,
            });
        }
        let at = if reads.any() { self.files(&room).await } else { None };
        for mut table in hybrids {
            table.files = at.clone();
            if !schema.table_exist(&table.table.name) {
                schema.register_table(table.table.name.clone(), Arc::new(table)).map_err(bug)?;
            }
        }
        for mut table in written {
            table.at = at.clone();
            if !schema.table_exist(&table.name) {
                schema.register_table(table.name.clone(), Arc::new(table)).map_err(bug)?;
            }
        }
        catalog.register_schema(SCHEMA, Arc::new(schema)).map_err(bug)?;
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        // what now() and current_date are for the whole statement; without it they cannot be computed at all
        let now = chrono::DateTime::from_timestamp_millis(broker.clock().now_ms()).unwrap_or_default();
        let props = ExecutionProps::new().with_query_execution_start_time(now);
        let builder = SessionStateBuilder::new_from_existing(self.base.clone()).with_execution_props(props);
        Ok(builder.with_runtime_env(room).with_catalog_list(Arc::new(catalogs)).build())
    }

    /// Where files are; none when the destination does not answer soon.
    async fn files(&self, room: &RuntimeEnv) -> Files {
        let objects = tokio::time::timeout(OPEN_WAIT_MAX, self.source.destination.get()).await.ok()?.ok()?;
        let url = objects.register(room).ok()?;
        Some((objects, url))
    }

    async fn execute(
        &self,
        state: SessionState,
        plan: LogicalPlan,
        params: Vec<ScalarValue>,
        row_limit: usize,
    ) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let limited = takes_limit(&plan);
        let mut frame = DataFrame::new(state, plan);
        if !params.is_empty() {
            frame = frame.with_param_values(params).map_err(|e| self.explain(&e))?;
        }
        if limited {
            // sorts then keep only as many rows as can be answered
            frame = frame.limit(0, Some(row_limit)).map_err(|e| self.explain(&e))?;
        }
        let mut stream = frame.execute_stream().await.map_err(|e| self.explain(&e))?;
        let memory = MemoryConsumer::new("the answer").register(&self.base.runtime_env().memory_pool);
        let (mut rows, mut count) = (Vec::new(), 0);
        while count < row_limit {
            let Some(batch) = stream.next().await else { break };
            let batch = batch.map_err(|e| self.explain(&e))?;
            let batch = batch.slice(0, batch.num_rows().min(row_limit - count));
            memory.try_grow(batch.get_array_memory_size()).map_err(|e| self.explain(&e))?;
            count += batch.num_rows();
            if batch.num_rows() > 0 {
                rows.push(batch);
            }
        }
        // metadata of plans is nobody's business outside
        let schema = Arc::new(Schema::new(stream.schema().fields().clone()));
        Ok((schema, rows))
    }

    /// An error of DataFusion's in our words.
    pub fn explain(&self, error: &DataFusionError) -> LakeError {
        let mut names: Vec<String> = self.source.tables.iter().map(|table| table.name.clone()).collect();
        names.extend(self.source.written.iter().map(|table| table.config.name.clone()));
        names.extend(self.source.views.names());
        explain(error, &names, self.limits.memory_bytes)
    }
}

impl Reads {
    /// Whether any file is read.
    fn any(&self) -> bool {
        self.boundaries.iter().any(|boundary| boundary.has_files()) || self.files.iter().any(|files| !files.is_empty())
    }
}

fn runtime_env(pool: impl MemoryPool + 'static, disk: DiskManagerBuilder) -> Result<Arc<RuntimeEnv>> {
    let top = NonZeroUsize::new(3).expect("three is not zero");
    let pool = TrackConsumersPool::new(pool, top);
    let builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk);
    builder.build_arc().map_err(|e| LakeError::bug(format!("SQL cannot be set up: {e}")))
}

/// What two parts of a query have both applied: the lesser offset.
fn merge(into: &mut Offsets, more: Offsets) {
    for (topic, partitions) in more {
        let known = into.entry(topic).or_default();
        for (partition, offset) in partitions {
            known.entry(partition).and_modify(|known| *known = offset.min(*known)).or_insert(offset);
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<Result<SqlAnswer>>);

impl Future for AbortOnDrop {
    type Output = Result<SqlAnswer>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map(|ended| match ended {
            Ok(answer) => answer,
            Err(error) => Err(LakeError::bug(format!("the query ended early: {error}"))),
        })
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
