//! Running transforms: from parameters to a commit of the manifest.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use broker::{Change, Family, TimestampMs};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::prelude::{DataFrame, ident};
use futures::StreamExt;
use tokio::time::Instant;

use super::bytes::{LastRun, TableFile, file_key, run_key};
use super::columns::columns;
use super::history;
use super::replaced::{check_days, replaced, run_key_of, taken};
use super::statement::Template;
use super::table::{Planned, WrittenTable};
use super::writer::{NewFile, TableWriter, Target};
use crate::Offsets;
use crate::clean::remove_hidden;
use crate::config::{LakeConfig, TransformConfig, TransformMode};
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::iceberg::Iceberg;
use crate::layout::Layout;
use crate::objects::Objects;
use crate::prepare::Prepared;
use crate::query::Queries;
use crate::sealer::Sealer;
use crate::settle::Step;
use crate::slice::Level;
use crate::tables::is_zone;
use crate::text_views::{cast_column, plain_bytes};

/// Time between two looks at files that queries held.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// What a run of a transform did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransformReport {
    /// Rows of the result.
    pub rows: u64,
    /// Files of the result, those included that were there already with the same bytes.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Slices of the result.
    pub slices: u64,
    /// How long it took.
    pub milliseconds: u64,
    /// What it read: of each topic, the next offset per partition.
    pub offsets: Offsets,
}

/// What is known of a transform and its table.
#[derive(Clone, Debug)]
pub struct TransformInfo {
    /// As declared.
    pub config: TransformConfig,
    /// The parameters that a run must be given.
    pub parameters: BTreeSet<String>,
    /// The streams, views and tables that its query reads.
    pub sources: BTreeSet<String>,
    /// The columns that SQL sees; empty while its query cannot be planned.
    pub columns: Option<SchemaRef>,
    /// Files of the table.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// When a run was published last, in ms since 1970.
    pub published_ms: Option<TimestampMs>,
    /// What went wrong in the last run, if it did.
    pub error: Option<String>,
}

/// Runs transforms. Holds: the ways to SQL, destination and manifest. One run per table at a time.
pub struct Runner {
    queries: Arc<Queries>,
    sealer: Arc<Sealer>,
    time_max: Duration,
    attempts: AtomicU64,
}

/// Files of a result with the slices they are in.
struct Written {
    files: Vec<NewFile>,
    offsets: Offsets,
}

/// Plans each transform over streams, views and the transforms before it, wherever they stand in the configuration.
///
/// # Errors
/// `Config`, with all mistakes at once.
pub async fn declare(queries: &Queries) -> Result<()> {
    let mut waiting: Vec<Arc<WrittenTable>> = queries.source().written.clone();
    loop {
        let mut failed = Vec::new();
        let before = waiting.len();
        for table in std::mem::take(&mut waiting) {
            match plan(queries, &table).await {
                Ok(planned) => {
                    // set once: nobody else plans
                    let _ = table.planned.set(planned);
                }
                Err(error) => {
                    failed.push(format!("transform {}: {error}", table.config.name));
                    waiting.push(table);
                }
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if waiting.len() == before {
            return Err(LakeError::config(failed.join("; ")));
        }
    }
}

async fn plan(queries: &Queries, table: &WrittenTable) -> Result<Planned> {
    let config = &table.config;
    let statement = table.template.fill_with_blanks();
    let sources = queries.named(&statement)?;
    let result = columns(queries.plan(statement).await?.schema().as_arrow())?;
    let rows = match config.mode {
        TransformMode::History => history::columns(config, &result)?,
        _ => result.clone(),
    };
    for name in &config.sort {
        if rows.index_of(name).is_err() {
            return Err(LakeError::config(format!("sort column {name} is not in the result: select it")));
        }
    }
    let layout = Arc::new(Layout::of_columns(rows, &config.slice)?);
    if config.mode == TransformMode::ReplaceSlices && layout.level_names().is_empty() {
        return Err(LakeError::config("replace_slices needs slice columns: set slice, or mode = \"replace\""));
    }
    Ok(Planned { layout, result, sources })
}

/// Checks what can be known of transforms before anything is open; gives them with their queries read.
///
/// # Errors
/// `Config`, with all mistakes at once.
pub fn check(config: &LakeConfig, taken: &BTreeSet<String>) -> Result<Vec<(TransformConfig, Template)>> {
    let mut mistakes = Vec::new();
    let mut names = taken.clone();
    let mut checked = Vec::new();
    for transform in &config.transforms {
        let name = &transform.name;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) || name.len() > 200 {
            mistakes.push(format!("transform {name}: a name is small letters, digits and _, with a letter first"));
        }
        if !names.insert(name.clone()) {
            mistakes.push(format!("transform {name}: a stream, view or transform has this name, give it another"));
        }
        if !is_zone(&transform.zone) {
            mistakes.push(format!("transform {name}: zone {:?} must be letters, digits, - and _", transform.zone));
        }
        match Template::parse(&transform.sql) {
            Ok(template) => checked.push((transform.clone(), template)),
            Err(error) => mistakes.push(format!("transform {name}: {error}")),
        }
    }
    if mistakes.is_empty() { Ok(checked) } else { Err(LakeError::config(mistakes.join("; "))) }
}

impl Runner {
    /// A runner over started queries.
    pub fn new(queries: Arc<Queries>, sealer: Arc<Sealer>, time_max: Duration) -> Self {
        Self { queries, sealer, time_max, attempts: AtomicU64::new(0) }
    }

    /// How long a run may take.
    pub fn time_max(&self) -> Duration {
        self.time_max
    }

    /// Runs a transform. The run goes on when the caller goes away.
    ///
    /// # Errors
    /// `NotFound` for a name that is not declared, `Refused` for parameters or a result that do not fit, `TimeLimit`,
    /// `MemoryLimit`, `Destination`; the table is as before then.
    pub async fn run(self: &Arc<Self>, name: &str, parameters: &BTreeMap<String, String>) -> Result<TransformReport> {
        let tables = &self.queries.source().written;
        let Some(table) = tables.iter().find(|table| table.config.name == name).cloned() else {
            let known: Vec<_> = tables.iter().map(|table| table.config.name.as_str()).collect();
            let message = format!("no transform {name}; there are: {}", known.join(", "));
            return Err(LakeError::new(LakeErrorKind::NotFound, message));
        };
        let (this, parameters) = (self.clone(), parameters.clone());
        let run = self.queries.spawn(async move {
            let outcome = this.run_alone(&table, &parameters).await;
            table.note(outcome.as_ref().err().map(|error| error.message.clone()));
            outcome
        })?;
        run.await.map_err(|e| LakeError::bug(format!("the run of {name} ended early: {e}")))?
    }

    async fn run_alone(
        self: &Arc<Self>,
        table: &Arc<WrittenTable>,
        parameters: &BTreeMap<String, String>,
    ) -> Result<TransformReport> {
        let _one = table.running.lock().await;
        let started = Instant::now();
        // what a crash left must be gone before new files have their names
        self.sealer.clean().await?;
        let objects = self.sealer.settler().destination.get().await?;
        objects.check_present().await?;
        table.template.fill(parameters)?;
        let run = run_key_of(table, parameters)?;
        check_days(table, parameters, self.now())?;
        // one that was given up at its time may have ended a file since
        remove_hidden(&objects, &table.config.name).await;
        let done = self.replace(table, parameters, (&objects, &run)).await;
        if done.is_err() && self.sealer.settler().fault.is_none() {
            remove_hidden(&objects, &table.config.name).await;
        }
        let report = done?;
        if let Some(iceberg) = &self.sealer.settler().iceberg {
            iceberg.sync(&table.config.name).await;
        }
        self.sweep(table, &objects).await;
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(table = %table.config.name, rows = report.rows, files = report.files, milliseconds, "a transform ran");
        Ok(TransformReport { milliseconds, ..report })
    }

    /// Writes the result and publishes it.
    async fn replace(
        &self,
        table: &WrittenTable,
        parameters: &BTreeMap<String, String>,
        (objects, run): (&Arc<Objects>, &str),
    ) -> Result<TransformReport> {
        let writing = self.write(table, parameters, (objects, run));
        let result = tokio::time::timeout(self.time_max, writing).await.unwrap_or_else(|_| {
            let message = format!(
                "the run of {} took longer than {} s: narrow it by parameters, or raise lake.transform_time_max",
                table.config.name,
                self.time_max.as_secs()
            );
            Err(LakeError::new(LakeErrorKind::TimeLimit, message))
        })?;
        self.step(Step::HalfWritten)?;
        let slices: HashSet<&Vec<Level>> = result.files.iter().map(|file| &file.levels).collect();
        let report = TransformReport {
            rows: result.files.iter().map(|file| file.rows).sum(),
            files: result.files.len() as u64,
            bytes: result.files.iter().map(|file| file.bytes).sum(),
            slices: slices.len() as u64,
            milliseconds: 0,
            offsets: result.offsets,
        };
        self.publish(table, (parameters, run), objects, result.files).await?;
        Ok(report)
    }

    /// Runs the query and writes its result under hidden names.
    async fn write(
        &self,
        table: &WrittenTable,
        parameters: &BTreeMap<String, String>,
        (objects, run): (&Arc<Objects>, &str),
    ) -> Result<Written> {
        let planned = table.planned.get().ok_or_else(|| LakeError::bug("a transform that was not planned"))?;
        let config = &table.config;
        let explain = |e| self.queries.explain(&e);
        let statement = table.template.fill(parameters)?;
        // kept to the end: what it reads is not deleted meanwhile
        let prepared = self.queries.prepare_work(statement, &config.name).await?;
        // Another version of a view than the declared one may be served, and give other columns.
        if let Some(filling) = self.queries.filling(&planned.sources)
            && columns(prepared.plan.schema().as_arrow())? != planned.result
        {
            return Err(LakeError::filling(&filling, "the transform"));
        }
        let frame = match config.mode {
            TransformMode::History => self.history(&prepared, table, parameters).await?,
            _ => DataFrame::new(prepared.state.clone(), prepared.plan.clone()),
        };
        let frame = frame.sort_by(order(&planned.layout, &config.sort)).map_err(explain)?;
        let mut rows = frame.execute_stream().await.map_err(explain)?;
        let target = Target {
            name: config.name.clone(),
            dir: table.dir(),
            run: run.to_owned(),
            sort: config.sort.clone(),
            attempt: format!(
                "{}-{}",
                self.sealer.settler().manifest.epoch(),
                self.attempts.fetch_add(1, Ordering::Relaxed)
            ),
        };
        let mut writer = TableWriter::new(objects.clone(), planned.layout.clone(), target);
        while let Some(batch) = rows.next().await {
            writer.push(&batch.map_err(explain)?).await?;
        }
        let files = writer.finish().await?;
        let Prepared { running, reads, .. } = prepared;
        running.end(Ok(files.iter().map(|file| file.rows).sum()));
        Ok(Written { files, offsets: reads.offsets })
    }

    /// The result of the query, merged into the history that the table has.
    async fn history(
        &self,
        prepared: &Prepared,
        table: &WrittenTable,
        parameters: &BTreeMap<String, String>,
    ) -> Result<DataFrame> {
        let explain = |e| self.queries.explain(&e);
        let schema = columns(prepared.plan.schema().as_arrow())?;
        // read once, so that a view that moves on meanwhile is seen at one moment
        let frame = DataFrame::new(prepared.state.clone(), prepared.plan.clone());
        let memory = MemoryConsumer::new("the present state").register(&prepared.state.runtime_env().memory_pool);
        let mut stream = frame.execute_stream().await.map_err(explain)?;
        let mut rows = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(explain)?;
            memory.try_grow(plain_bytes(&batch)).map_err(explain)?;
            rows.push(typed(&schema, &batch)?);
        }
        let begin = history::begin_of(&taken(table, parameters), self.now())?;
        history::merge(prepared.state.clone(), &table.config, (schema, rows), begin).await
    }

    /// Gives the files their names and commits them in the place of those that they replace.
    async fn publish(
        &self,
        table: &WrittenTable,
        (parameters, run): (&BTreeMap<String, String>, &str),
        objects: &Objects,
        new: Vec<NewFile>,
    ) -> Result<()> {
        let before = table.files();
        let replaced = replaced(table, (parameters, run), &new)?;
        let known: BTreeSet<&str> = before.iter().map(|file| file.path.as_str()).collect();
        objects.sync(&new.iter().map(|file| file.hidden.clone()).collect::<Vec<_>>()).await?;
        self.step(Step::Written)?;
        let mut renames = Vec::new();
        for file in &new {
            if known.contains(file.path.as_str()) {
                // the same bytes are there under this name
                objects.delete(&file.hidden).await?;
            } else {
                renames.push((file.hidden.clone(), file.path.clone()));
            }
        }
        objects.publish(&renames).await?;
        self.step(Step::Renamed)?;
        let published_ms = self.now();
        let mut last = LastRun { published_ms, ..table.last() };
        let (mut after, mut changes) = (Vec::new(), Vec::new());
        let paths: BTreeSet<&str> = new.iter().map(|file| file.path.as_str()).collect();
        for file in before.iter() {
            if !replaced(file) || paths.contains(file.path.as_str()) {
                after.push(file.clone());
            } else {
                changes.push(Change::Delete(Family::Lake, file_key(&table.config.name, file.number)?));
            }
        }
        for NewFile { path, rows, bytes, levels, .. } in new.iter().filter(|file| !known.contains(file.path.as_str())) {
            let (path, levels, run) = (path.clone(), levels.clone(), run.to_owned());
            let entry = TableFile { number: last.next, rows: *rows, bytes: *bytes, published_ms, run, path, levels };
            last.next += 1;
            changes.push(Change::Put(Family::Lake, file_key(&table.config.name, entry.number)?, entry.encode()?));
            after.push(Arc::new(entry));
        }
        changes.push(Change::Put(Family::Lake, run_key(&table.config.name)?, last.encode()));
        let take_in = || table.committed(after, last);
        self.sealer.settler().manifest.commit_written(changes, take_in).await?;
        self.step(Step::Published)
    }

    /// Deletes what fell out of the table; what queries still read is deleted later.
    async fn sweep(self: &Arc<Self>, table: &Arc<WrittenTable>, objects: &Arc<Objects>) {
        let iceberg = self.sealer.settler().iceberg.clone();
        if !delete_retired(table, objects, iceberg.as_ref()).await {
            return;
        }
        let (table, objects) = (table.clone(), objects.clone());
        // what is left when the process ends is removed at the next start
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let _one = table.running.lock().await;
                if !delete_retired(&table, &objects, iceberg.as_ref()).await {
                    return;
                }
            }
        });
    }

    /// What is known of each transform.
    pub fn infos(&self) -> Vec<TransformInfo> {
        let info = |table: &Arc<WrittenTable>| {
            let (files, last) = (table.files(), table.last());
            TransformInfo {
                config: table.config.clone(),
                parameters: table.template.parameters().clone(),
                sources: table.planned.get().map(|planned| planned.sources.clone()).unwrap_or_default(),
                columns: table.planned.get().map(|planned| planned.layout.table_schema().clone()),
                files: files.len() as u64,
                rows: files.iter().map(|file| file.rows).sum(),
                bytes: files.iter().map(|file| file.bytes).sum(),
                published_ms: Some(last.published_ms).filter(|at| *at > 0),
                error: table.error(),
            }
        };
        self.queries.source().written.iter().map(info).collect()
    }

    fn now(&self) -> TimestampMs {
        self.sealer.settler().broker.clock().now_ms()
    }

    fn step(&self, step: Step) -> Result<()> {
        self.sealer.settler().step(step)
    }
}

/// Deletes the files that nobody reads; says whether others are left.
async fn delete_retired(table: &WrittenTable, objects: &Objects, iceberg: Option<&Arc<Iceberg>>) -> bool {
    let (free, left) = table.take_retired();
    for path in &free {
        let let_go = match iceberg {
            Some(iceberg) => iceberg.let_go(&[path.as_str()]).await,
            None => Ok(()),
        };
        let deleted = match let_go {
            Ok(()) => objects.delete(path).await,
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::warn!(%error, "an old file stays until the next start");
        }
    }
    if !free.is_empty() {
        objects.remove_empty_dirs(&table.dir()).await;
    }
    left
}

/// Slices first, then as declared, then by everything else that can be sorted: the order of equal rows, and with it the
/// bytes of the files, are then the same in each run.
fn order(layout: &Layout, sort: &[String]) -> Vec<datafusion::logical_expr::Expr> {
    let mut names: Vec<&str> = layout.level_names();
    for name in sort {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    for field in layout.row_schema().fields() {
        let sortable = !matches!(field.data_type(), DataType::Map(..) | DataType::Struct(_) | DataType::Union(..));
        if sortable && !names.contains(&field.name().as_str()) {
            names.push(field.name());
        }
    }
    names.into_iter().map(ident).collect()
}

fn typed(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = schema.fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| cast_column(column, field.data_type()));
    let rows = columns.collect::<Result<Vec<_>, _>>().and_then(|columns| RecordBatch::try_new(schema.clone(), columns));
    rows.map_err(|e| LakeError::new(LakeErrorKind::Refused, format!("a value does not fit its column: {e}")))
}
