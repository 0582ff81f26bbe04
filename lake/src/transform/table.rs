//! A table that SQL writes, as it stands and as queries read it.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use broker::{Broker, Family};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::datasource::TableType;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use parking_lot::Mutex;

use super::bytes::{LastRun, TableFile, files_of, run_key};
use super::statement::Template;
use crate::config::TransformConfig;
use crate::error::Result;
use crate::file_scan::{Files, ScanFile, file_sets};
use crate::layout::Layout;
use crate::prune::{Facts, prune};
use crate::text_views::ReadAs;

/// The files of one moment. A file that a query still holds is not deleted.
pub type TableFiles = Arc<Vec<Arc<TableFile>>>;

/// A table that SQL writes. Holds: its declaration, and the files that the manifest has; only a run under `running`
/// changes them, after its commit. A crash keeps what was committed.
pub struct WrittenTable {
    /// As declared.
    pub config: TransformConfig,
    /// Its query.
    pub template: Template,
    /// What planning its query told: known once the tables it reads are.
    pub planned: OnceLock<Planned>,
    /// Held by the run under way.
    pub running: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What planning a transform's query tells.
pub struct Planned {
    /// Columns and slices.
    pub layout: Arc<Layout>,
    /// The columns of its result, by the views as they are declared.
    pub result: SchemaRef,
    /// The tables and views that it reads.
    pub sources: BTreeSet<String>,
}

#[derive(Default)]
struct State {
    files: TableFiles,
    last: LastRun,
    retired: Vec<Arc<TableFile>>,
    error: Option<String>,
}

impl WrittenTable {
    /// A table with what the manifest has of it.
    ///
    /// # Errors
    /// `Broker` when that is damaged or cannot be read.
    pub fn load(broker: &Broker, config: TransformConfig, template: Template) -> Result<Self> {
        let (from, to) = files_of(&config.name)?;
        let mut files = Vec::new();
        for entry in broker.store().scan(Family::Lake, &from, &to) {
            let (key, value) = entry?;
            files.push(Arc::new(TableFile::decode(&key, &value)?));
        }
        let last = broker.store().get(Family::Lake, &run_key(&config.name)?)?;
        let last = last.as_deref().map(LastRun::decode).transpose()?.unwrap_or_default();
        let state = State { files: Arc::new(files), last, ..State::default() };
        Ok(Self {
            config,
            template,
            planned: OnceLock::new(),
            running: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        })
    }

    /// Its directory below the lake's root.
    pub fn dir(&self) -> String {
        format!("{}/{}", self.config.zone, self.config.name)
    }

    /// The files it has now.
    pub fn files(&self) -> TableFiles {
        self.state.lock().files.clone()
    }

    /// What is known of its last run.
    pub fn last(&self) -> LastRun {
        self.state.lock().last
    }

    /// What went wrong in the last run, if it did.
    pub fn error(&self) -> Option<String> {
        self.state.lock().error.clone()
    }

    /// Notes how a run ended.
    pub fn note(&self, error: Option<String>) {
        self.state.lock().error = error;
    }

    /// Takes over what was committed; files that fell out are deleted when no query reads them any more.
    pub fn committed(&self, files: Vec<Arc<TableFile>>, last: LastRun) {
        let mut state = self.state.lock();
        let kept: BTreeSet<u64> = files.iter().map(|file| file.number).collect();
        let before = std::mem::replace(&mut state.files, Arc::new(files));
        state.retired.extend(before.iter().filter(|file| !kept.contains(&file.number)).cloned());
        state.last = last;
    }

    /// Takes the paths that can be deleted now; `left` says whether queries hold others.
    pub fn take_retired(&self) -> (Vec<String>, bool) {
        let mut state = self.state.lock();
        let current: BTreeSet<String> = state.files.iter().map(|file| file.path.clone()).collect();
        let (free, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.retired).into_iter().partition(|file| Arc::strong_count(file) == 1);
        let left = !held.is_empty();
        state.retired = held;
        (free.into_iter().map(|file| file.path.clone()).filter(|path| !current.contains(path)).collect(), left)
    }
}

/// A table as one query sees it.
pub struct WrittenScan {
    /// Its name, for messages.
    pub name: String,
    /// Its columns.
    pub layout: Arc<Layout>,
    /// Whether the query names it; else it is only told of, by the types of its files.
    pub is_named: bool,
    /// How the query reads text.
    pub read_as: Arc<ReadAs>,
    /// What the query reads.
    pub files: TableFiles,
    /// Where the files are.
    pub at: Files,
}

impl fmt::Debug for WrittenScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrittenScan {} of {} files", self.name, self.files.len())
    }
}

impl WrittenScan {
    fn columns(&self) -> &SchemaRef {
        self.layout.read_schema(self.read_as.is_views())
    }

    async fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let schema = self.columns();
        let projection = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let predicate = conjunction(filters.to_vec());
        let mut files: Vec<Arc<TableFile>> = self.files.iter().cloned().collect();
        if let Some(predicate) = &predicate {
            let physical =
                state.create_physical_expr(predicate.clone(), &DFSchema::try_from(schema.as_ref().clone())?)?;
            files = prune(files, facts, &physical, schema, "");
        }
        // an inexact filter above may drop rows, so only an unfiltered scan can stop early
        let limit = limit.filter(|_| filters.is_empty());
        let scanned = files.iter().map(|file| ScanFile { path: &file.path, bytes: file.bytes, levels: &file.levels });
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        for set in file_sets(&self.layout, schema, scanned) {
            let scan = set.scan(state, (schema, &projection), &self.at, (predicate.as_ref(), limit))?;
            inputs.push(scan.plan);
        }
        match inputs.len() {
            0 => Ok(Arc::new(EmptyExec::new(Arc::new(schema.project(&projection)?)))),
            _ => UnionExec::try_new(inputs),
        }
    }
}

fn facts(file: &Arc<TableFile>) -> Facts<'_> {
    Facts { levels: &file.levels, rows: file.rows, records: None }
}

impl TableProvider for WrittenScan {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        if self.is_named { self.columns().clone() } else { self.layout.table_schema().clone() }
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // What `#[async_trait]` makes of `async fn scan`, written out.
    fn scan<'this, 'session, 'columns, 'filters, 'call>(
        &'this self,
        state: &'session dyn Session,
        projection: Option<&'columns Vec<usize>>,
        filters: &'filters [Expr],
        limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'call>>
    where
        'this: 'call,
        'session: 'call,
        'columns: 'call,
        'filters: 'call,
        Self: 'call,
    {
        Box::pin(self.plan(state, projection, filters, limit))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
