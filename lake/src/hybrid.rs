//! A stream as one SQL table: its Parquet files below the boundary, and the log from there to the high watermark. The
//! boundary is read once per query, so no row is missing or counted twice while the lake goes on settling.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin as PinBox;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use broker::{Broker, Offset, Partition, PartitionIndex};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::datasource::TableType;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use futures::StreamExt;

use crate::decoded::DecodedRows;
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::file_scan::{Files, ScanFile, file_sets};
use crate::floors::{Floors, Pin};
use crate::log_scan::LogScan;
use crate::manifest::{Manifest, Settled};
use crate::manifest_bytes::FileEntry;
use crate::meter::Meter;
use crate::past::Ends;
use crate::prune::{PartitionFile, facts_of, prune};
use crate::tables::Table;
use crate::text_views::{ReadAs, plain_rows};

/// What one query reads of one table. Holds: the files and the offsets at which the log takes over and ends, all of one
/// moment, and pins that keep retention from what is above the boundary.
pub struct Boundary {
    parts: Vec<Part>,
    _pins: Vec<Pin>,
}

struct Part {
    partition: Arc<Partition>,
    files: Arc<Vec<Arc<FileEntry>>>,
    from: Offset,
    to: Offset,
    /// What was below is neither in the log nor in a file any more.
    kept_from: Offset,
}

impl Boundary {
    /// Reads the boundary of a table, once. A topic that is not there has no rows.
    pub fn read(table: &Table, broker: &Broker, manifest: &Manifest, floors: &Floors) -> Self {
        let partitions = broker.catalog().topic(&table.topic).map(|topic| topic.partitions());
        let partitions: Vec<_> = partitions.iter().flat_map(|all| all.iter().cloned()).collect();
        // the pins come first: what is settled later than them can only be above them
        let pins = partitions.iter().map(|partition| floors.pin(partition.id(), partition.log_start())).collect();
        let logs: Vec<_> = partitions.iter().map(|partition| partition.id()).collect();
        // the files of a topic have the columns of the stream that settles, and no other reads them
        let settled = match table.settles {
            Some(_) => manifest.snapshot(&logs),
            None => vec![Settled::default(); logs.len()],
        };
        let parts = partitions.into_iter().zip(settled).map(|(partition, settled)| {
            let start = partition.log_start();
            let from = settled.mark.map_or(start, |mark| mark.offset.max(start));
            let to = partition.last_stable_offset().max(from);
            let kept_from = kept_from(&partition, &settled);
            Part { partition, files: settled.files, from, to, kept_from }
        });
        Self { parts: parts.collect(), _pins: pins }
    }

    /// Lets it end at offsets that lie before it: a partition that has none there had no records. Gives what is missing of what was
    /// below them.
    ///
    /// # Errors
    /// `NotFresh` where there are no records up to there yet.
    pub fn end_at(&mut self, topic: &str, ends: &Ends) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for part in &mut self.parts {
            let index = part.partition.index();
            let end = ends.get(&index).copied().unwrap_or(0);
            if end > part.to {
                let message = format!(
                    "{topic}-{index} has records up to offset {} only, and is to be read at {end}: ask again when they are there",
                    part.to
                );
                return Err(LakeError::new(LakeErrorKind::NotFresh, message));
            }
            let missing = part.kept_from.min(end);
            if missing > 0 {
                notes.push(format!(
                    "{topic}-{index}: records below offset {missing} are gone from log and lake: what they told is missing"
                ));
            }
            part.to = end;
            part.from = part.from.min(end);
            part.files = Arc::new(part.files.iter().filter(|file| file.first < end).cloned().collect());
        }
        Ok(notes)
    }

    /// What holds for the rows that are read, where there are files that have others, too.
    pub fn beyond(&self) -> Option<String> {
        let is_cut = |part: &&Part| part.files.iter().any(|file| file.last >= part.to);
        let within = |part: &Part| format!("(_partition <> {} OR _offset < {})", part.partition.index(), part.to);
        let all: Vec<String> = self.parts.iter().filter(is_cut).map(within).collect();
        (!all.is_empty()).then(|| all.join(" AND "))
    }

    /// The end of what the query sees, per partition.
    pub fn offsets(&self) -> BTreeMap<PartitionIndex, Offset> {
        self.parts.iter().map(|part| (part.partition.index(), part.to)).collect()
    }

    /// Where the log takes over, per partition.
    pub fn settled(&self) -> BTreeMap<PartitionIndex, Offset> {
        self.parts.iter().map(|part| (part.partition.index(), part.from)).collect()
    }

    /// All files below the boundary.
    pub fn files(&self) -> Vec<PartitionFile> {
        let of = |part: &Part| {
            let index = part.partition.index();
            part.files.iter().map(move |file| (index, file.clone())).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(of).collect()
    }

    /// Whether there are files below the boundary.
    pub fn has_files(&self) -> bool {
        self.parts.iter().any(|part| !part.files.is_empty())
    }

    /// The partitions and the offsets of them that come from the log.
    pub fn live(&self) -> impl Iterator<Item = (&Arc<Partition>, (Offset, Offset))> {
        self.parts.iter().map(|part| (&part.partition, (part.from, part.to)))
    }
}

/// From which offset on a partition's records are in its log or in files.
pub fn kept_from(partition: &Partition, settled: &Settled) -> Offset {
    let mark = settled.mark.map_or(0, |mark| mark.offset);
    // the log has all from its start on, but what was compacted before it was in files
    let log_from = if partition.compacted_to() > mark { partition.compacted_to() } else { partition.log_start() };
    settled.files.first().map_or(log_from, |file| file.first.min(log_from))
}

/// A table as one query sees it.
pub struct HybridTable {
    /// The table.
    pub table: Arc<Table>,
    /// What the query reads of it; none when the query does not name it.
    pub boundary: Option<Arc<Boundary>>,
    /// How the query reads text.
    pub read_as: Arc<ReadAs>,
    /// Where the files are.
    pub files: Files,
    /// What queries have decoded of the log.
    pub decoded: Arc<DecodedRows>,
    /// Counts what is read of the log.
    pub meter: Arc<Meter>,
}

impl fmt::Debug for HybridTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = self.boundary.as_ref().map(|boundary| (boundary.settled(), boundary.offsets()));
        write!(f, "HybridTable {} settled to, read to: {read:?}", self.table.name)
    }
}

impl HybridTable {
    fn columns(&self) -> &SchemaRef {
        self.table.layout.read_schema(self.read_as.is_views())
    }

    async fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let schema = self.columns();
        let boundary = self.boundary.as_ref().ok_or_else(|| {
            DataFusionError::External(Box::new(LakeError::bug(format!(
                "{} is read without being named",
                self.table.name
            ))))
        })?;
        let projection = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let predicate = conjunction(filters.to_vec());
        let mut files = boundary.files();
        if let Some(predicate) = &predicate {
            let physical =
                state.create_physical_expr(predicate.clone(), &DFSchema::try_from(schema.as_ref().clone())?)?;
            files = prune(files, facts_of, &physical, schema, self.table.layout.event_time());
        }
        // an inexact filter above may drop rows, so only an unfiltered scan can stop early
        let limit = limit.filter(|_| filters.is_empty());
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        let scanned =
            files.iter().map(|(_, file)| ScanFile { path: &file.path, bytes: file.bytes, levels: &file.levels });
        for set in file_sets(&self.table.layout, schema, scanned) {
            let scan = set.scan(state, (schema, &projection), &self.files, (predicate.as_ref(), limit))?;
            inputs.push(match scan.incomplete {
                true => self.derive(scan.plan, &projection, limit)?,
                false => scan.plan,
            });
        }
        let columns = Arc::new(schema.project(&projection)?);
        let read = (Arc::from(projection), columns.clone());
        let live = boundary.live().filter(|(_, (from, to))| from < to);
        let live: Vec<Arc<dyn PartitionStream>> =
            live.map(|(partition, range)| self.scan_log(boundary, partition, range, &read)).collect();
        if !live.is_empty() {
            inputs.push(Arc::new(StreamingTableExec::try_new(columns.clone(), live, None, [], false, limit)?));
        }
        match inputs.len() {
            0 => Ok(Arc::new(EmptyExec::new(columns))),
            _ => UnionExec::try_new(inputs),
        }
    }

    fn scan_log(
        &self,
        boundary: &Arc<Boundary>,
        partition: &Arc<Partition>,
        range: (Offset, Offset),
        (projection, columns): &(Arc<[usize]>, SchemaRef),
    ) -> Arc<dyn PartitionStream> {
        Arc::new(LogScan {
            table: self.table.clone(),
            projection: projection.clone(),
            columns: columns.clone(),
            partition: partition.clone(),
            range,
            boundary: boundary.clone(),
            decoded: self.decoded.clone(),
            meter: self.meter.clone(),
        })
    }

    /// Adds parts of the event time that neither the files nor their directories say.
    fn derive(
        &self,
        files: Arc<DataSourceExec>,
        projection: &[usize],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let count = files.properties().output_partitioning().partition_count();
        let schema = self.columns().clone();
        let parts = (0..count).map(|index| {
            let (table, columns, files) = (self.table.clone(), schema.clone(), files.clone());
            Arc::new(Derived { table, columns, files, index }) as Arc<dyn PartitionStream>
        });
        let projection = projection.to_vec();
        let derived =
            StreamingTableExec::try_new(schema.clone(), parts.collect(), Some(&projection), [], false, limit)?;
        Ok(Arc::new(derived))
    }
}

/// Rows of files with the parts of the event time that the table has and the files' slices had not.
struct Derived {
    table: Arc<Table>,
    columns: SchemaRef,
    files: Arc<DataSourceExec>,
    index: usize,
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Derived {} {}", self.table.name, self.index)
    }
}

impl PartitionStream for Derived {
    fn schema(&self) -> &SchemaRef {
        &self.columns
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let table = self.table.clone();
        let (schema, columns) = (self.columns.clone(), self.columns.clone());
        let complete = move |rows: DfResult<RecordBatch>| {
            let rows = table.layout.complete(&rows?).map_err(|e| DataFusionError::External(Box::new(e)))?;
            plain_rows(&rows, &columns).map_err(DataFusionError::from)
        };
        let rows = match self.files.execute(self.index, context) {
            Ok(rows) => rows.map(complete).boxed(),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

impl TableProvider for HybridTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    /// A table that the query does not name is only told of (`information_schema`): by the types that it was declared with.
    fn schema(&self) -> SchemaRef {
        if self.boundary.is_some() { self.columns().clone() } else { self.table.layout.table_schema().clone() }
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn scan<'life0, 'life1, 'life2, 'life3, 'async_trait>(
        &'life0 self,
        state: &'life1 dyn Session,
        projection: Option<&'life2 Vec<usize>>,
        filters: &'life3 [Expr],
        limit: Option<usize>,
    ) -> PinBox<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        'life3: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(self.plan(state, projection, filters, limit))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
