//! SQL: one read-only statement over tables and views, within limits of time, memory and rows.
//!
//! A query first waits until the views it names have applied everything appended before it, then reads the boundary of
//! each table it names, once, then runs. It runs on threads of its own, so that it never delays a producer. What writes,
//! configures or names files of this machine is refused.

use std::collections::BTreeSet;
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use broker::Broker;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SQLOptions, SessionState};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryPool, TrackConsumersPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::physical_plan::{SendableRecordBatchStream, execute_stream};
use datafusion::prelude::{DataFrame, SessionConfig};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use futures::StreamExt;

use crate::Offsets;
use crate::bounded;
use crate::config::{Costs, SqlLimits};
use crate::decoded::DecodedRows;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::floors::Floors;
use crate::manifest::Manifest;
use crate::meter::Scanned;
use crate::objects::Destination;
use crate::prepare::Planned;
use crate::query_error::explain;
use crate::query_log::{QueryKind, QueryLog};
use crate::read_only::{param, refuse_explain, refuse_writes, refused_write, takes_limit};
use crate::reader::Reader;
use crate::session::Room;
use crate::tables::Tables;
use crate::text_views::{plain_bytes, plain_rows, plain_schema};
use crate::transform::WrittenTable;
use crate::views::Views;

/// The catalog of every session.
pub const CATALOG: &str = "millpond";
/// Its one schema.
pub const SCHEMA: &str = "public";
/// Longest statement that is read.
const SQL_BYTES_MAX: usize = 1 << 20;
/// How long after its time a query that is at work without a look at the clock is given up.
const OVERDUE_MAX: Duration = Duration::from_millis(500);
/// The part of what queries may use that is used beside it, for rows that they decoded.
const DECODED_SHARE: usize = 4;

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
    /// Who reads; none: one who sees everything.
    pub reader: Option<Arc<Reader>>,
    /// Who asks, for the log of queries.
    pub kind: QueryKind,
    /// Offsets of an earlier answer: the tables and views are read as they were then. None: as they are.
    pub at: Option<Arc<Offsets>>,
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
    /// What was read for it.
    pub scanned: Scanned,
    /// What the answer of then had and this one has not, as it is gone; nothing of a query as of now.
    pub notes: Vec<String>,
}

/// Runs queries. Holds: the memory that all queries share and the threads they run on. Nothing survives a crash.
pub struct Queries {
    source: Arc<Source>,
    log: Arc<QueryLog>,
    limits: SqlLimits,
    base: SessionState,
    /// What transforms run in: memory of their own, and a directory for what does not fit.
    work: Arc<RuntimeEnv>,
    /// What queries have decoded of the log.
    decoded: Arc<DecodedRows>,
    threads: Threads,
}

/// Where queries read.
pub struct Source {
    /// The log.
    pub broker: Arc<Broker>,
    /// The tables.
    pub tables: Arc<Tables>,
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
    /// What storing and reading costs.
    pub costs: Costs,
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
        let mut base = SessionStateBuilder::new_with_default_features()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_analyzer_rule(Arc::new(engine::FilterIsTrue))
            .build();
        for function in engine::only_in_views().into_iter().chain([engine::tumble()]) {
            base.register_udf(Arc::new(function)).map_err(|e| LakeError::bug(format!("SQL cannot be set up: {e}")))?;
        }
        base.register_udaf(Arc::new(engine::top_k()))
            .map_err(|e| LakeError::bug(format!("SQL cannot be set up: {e}")))?;
        engine::model::register(&mut base).map_err(|e| LakeError::bug(format!("models cannot be named: {e}")))?;
        for function in engine::normalisers() {
            base.register_udf(Arc::new(function)).map_err(|e| LakeError::bug(format!("SQL cannot be set up: {e}")))?;
        }
        let base = bounded::register(base, limits.memory_bytes)
            .map_err(|e| LakeError::bug(format!("SQL cannot be set up: {e}")))?;
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores)
            .thread_name("lake-sql")
            .enable_all()
            .build()
            .map_err(|e| LakeError::bug(format!("threads for SQL cannot be started: {e}")))?;
        let log = QueryLog::new(source.broker.clock().clone());
        let decoded = Arc::new(DecodedRows::new(limits.memory_bytes / DECODED_SHARE));
        let (source, threads) = (Arc::new(source), Threads(Some(threads)));
        Ok(Self { source, log, limits, base, work, decoded, threads })
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
        // a function that is at work for long keeps the query from looking at the clock
        tokio::time::timeout(time + OVERDUE_MAX, task).await.unwrap_or_else(|_| Err(too_long(time)))
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
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The queries that ran.
    pub fn log(&self) -> &Arc<QueryLog> {
        &self.log
    }

    /// What queries have decoded of the log.
    pub(crate) fn decoded(&self) -> &Arc<DecodedRows> {
        &self.decoded
    }

    /// What transforms and verifications run in.
    pub(crate) fn work(&self) -> &Arc<RuntimeEnv> {
        &self.work
    }

    /// The limits of a query.
    pub(crate) fn limits(&self) -> &SqlLimits {
        &self.limits
    }

    /// The session that all others begin as.
    pub(crate) fn base(&self) -> &SessionState {
        &self.base
    }

    async fn within_time(&self, request: SqlRequest, time: Duration) -> Result<SqlAnswer> {
        let reader = request.reader.as_ref().map(|reader| reader.name.clone());
        let running = self.log.begin(request.kind, reader, &request.sql);
        let room = Room {
            runtime: self.base.runtime_env().clone(),
            meter: running.meter().clone(),
            reader: request.reader.clone(),
            at: request.at.clone(),
        };
        let answer = self.timed(request, room, time).await;
        let rows = |answer: &SqlAnswer| answer.rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        let scanned = running.end(answer.as_ref().map(rows).map_err(|error| error.message.as_str()));
        answer.map(|answer| SqlAnswer { scanned, ..answer })
    }

    async fn timed(&self, request: SqlRequest, room: Room, time: Duration) -> Result<SqlAnswer> {
        match tokio::time::timeout(time, self.run(request, room)).await {
            Ok(answer) => answer,
            Err(_) => Err(too_long(time)),
        }
    }

    async fn run(&self, request: SqlRequest, room: Room) -> Result<SqlAnswer> {
        if request.sql.len() > SQL_BYTES_MAX {
            let message = format!("the statement has {} bytes: at most {SQL_BYTES_MAX} are read", request.sql.len());
            return Err(LakeError::new(LakeErrorKind::Refused, message));
        }
        let params =
            request.params.iter().enumerate().map(|(at, value)| param(at, value)).collect::<Result<Vec<_>>>()?;
        let statement = self.parse(&request.sql)?;
        refuse_writes(&statement)?;
        if room.reader.as_ref().is_some_and(|reader| !reader.filters.is_empty()) {
            refuse_explain(&statement)?;
        }
        let Planned { state, plan, reads } = self.prepare(statement, &room, None).await?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|_| refused_write("that"))?;
        let row_limit = request.row_limit.min(self.limits.rows.saturating_add(1));
        let (schema, rows) = self.execute(state, plan, params, row_limit).await?;
        Ok(SqlAnswer { schema, rows, offsets: reads.offsets, scanned: Scanned::default(), notes: reads.notes })
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
        let mut stream = self.stream(frame).await.map_err(|e| self.explain(&e))?;
        // metadata of plans is nobody's business outside
        let schema = plain_schema(&stream.schema());
        let memory = MemoryConsumer::new("the answer").register(&self.base.runtime_env().memory_pool);
        let (mut rows, mut count) = (Vec::new(), 0);
        while count < row_limit {
            let Some(batch) = stream.next().await else { break };
            let batch = batch.map_err(|e| self.explain(&e))?;
            let batch = batch.slice(0, batch.num_rows().min(row_limit - count));
            let before = memory.size();
            memory.try_grow(plain_bytes(&batch)).map_err(|e| self.explain(&e))?;
            let batch = plain_rows(&batch, &schema).map_err(|e| self.explain(&e.into()))?;
            memory.try_resize(before + batch.get_array_memory_size()).map_err(|e| self.explain(&e))?;
            count += batch.num_rows();
            if batch.num_rows() > 0 {
                rows.push(batch);
            }
        }
        Ok((schema, rows))
    }

    /// The rows of a query. Constants are spread over all rows of a batch: large ones make batches smaller.
    async fn stream(&self, frame: DataFrame) -> Result<SendableRecordBatchStream, DataFusionError> {
        let (mut state, plan) = frame.into_parts();
        let plan = state.optimize(&plan)?;
        let rows = bounded::batch_rows(&plan, self.limits.memory_bytes)?;
        let options = state.config_mut().options_mut();
        options.execution.batch_size = options.execution.batch_size.min(rows);
        let physical = state.query_planner().create_physical_plan(&plan, &state).await?;
        execute_stream(physical, state.task_ctx())
    }

    /// An error of DataFusion's in our words.
    pub fn explain(&self, error: &DataFusionError) -> LakeError {
        explain(error, &self.names(), self.limits.memory_bytes)
    }
}

fn too_long(time: Duration) -> LakeError {
    let message = format!(
        "the query ran longer than {} ms: narrow it by a time range or a slice column, or raise lake.sql_time_max",
        time.as_millis()
    );
    LakeError::new(LakeErrorKind::TimeLimit, message)
}

fn runtime_env(pool: impl MemoryPool + 'static, disk: DiskManagerBuilder) -> Result<Arc<RuntimeEnv>> {
    let top = NonZeroUsize::new(3).expect("three is not zero");
    let pool = TrackConsumersPool::new(pool, top);
    let builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk);
    builder.build_arc().map_err(|e| LakeError::bug(format!("SQL cannot be set up: {e}")))
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
