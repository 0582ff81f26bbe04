//! Published files as DataFusion scans them: columns from the files, and levels from their directories as the manifest
//! has them.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;

use crate::error::{LakeError, Result};
use crate::layout::Layout;
use crate::meter::Meter;
use crate::objects::Objects;
use crate::slice::Level;

/// What is read first of a file, from its end: a footer of some hundred columns, in one request rather than two.
const FOOTER_BYTES: usize = 64 << 10;

/// Where a query finds files, and what counts what it reads of them.
#[derive(Clone)]
pub struct FilesAt {
    /// The destination.
    pub objects: Arc<Objects>,
    /// Its name among the stores of the query.
    pub url: ObjectStoreUrl,
    /// The query's counter.
    pub meter: Arc<Meter>,
}

/// Where a query finds files; none while the destination is away.
pub type Files = Option<FilesAt>;

/// One file of a scan.
#[derive(Clone, Copy)]
pub struct ScanFile<'a> {
    /// Where it lies below the lake's root.
    pub path: &'a str,
    /// Its size.
    pub bytes: u64,
    /// Its slice.
    pub levels: &'a [Level],
}

/// How one set of files is read: which columns of the table the files have, and which their directories say.
pub struct FileSet<'a> {
    levels: &'a [Level],
    files: Vec<ScanFile<'a>>,
    scan: TableSchema,
}

/// A scan of one set, and whether it has all columns that were asked for.
pub struct Scanned {
    /// The scan.
    pub plan: Arc<DataSourceExec>,
    /// Columns are missing: parts of the event time, to be made from it. The scan then has all columns it can have.
    pub incomplete: bool,
}

/// Files with the same levels are read alike, as `columns` of the table; there is more than one set after a change of the slice columns.
pub fn file_sets<'a>(layout: &Layout, columns: &Schema, files: impl Iterator<Item = ScanFile<'a>>) -> Vec<FileSet<'a>> {
    let mut sets: Vec<FileSet<'a>> = Vec::new();
    let alike = |one: &[Level], other: &[Level]| {
        one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.column == b.column && a.derived == b.derived)
    };
    for file in files {
        match sets.iter_mut().find(|set| alike(set.levels, file.levels)) {
            Some(set) => set.files.push(file),
            None => {
                let scan = scan_schema(layout, columns, file.levels);
                sets.push(FileSet { levels: file.levels, files: vec![file], scan });
            }
        }
    }
    sets
}

/// Columns of the table that files with these levels have, then those that their directories say.
fn scan_schema(layout: &Layout, columns: &Schema, levels: &[Level]) -> TableSchema {
    let said = |field: &Field| {
        let derived = layout.is_derived(field.name());
        levels.iter().any(|level| level.column == *field.name() && level.derived == derived)
    };
    let fields = columns.fields();
    let in_file = fields.iter().filter(|field| !said(field) && !layout.is_derived(field.name())).cloned();
    let in_path = fields.iter().filter(|field| said(field)).cloned().collect();
    TableSchema::new(Arc::new(Schema::new(in_file.collect::<Vec<_>>())), in_path)
}

impl FileSet<'_> {
    /// Scans the set for columns `projection` of the table.
    ///
    /// # Errors
    /// `Destination` while the files are away.
    pub fn scan(
        &self,
        state: &dyn Session,
        (table, projection): (&SchemaRef, &[usize]),
        files: &Files,
        (predicate, limit): (Option<&Expr>, Option<usize>),
    ) -> DfResult<Scanned> {
        let FilesAt { objects, url, meter } = files.as_ref().ok_or_else(|| {
            let message = "the lake's destination is away and the query needs its files: try again when it is back";
            DataFusionError::External(Box::new(LakeError::destination(message)))
        })?;
        let scan = self.scan.table_schema().clone();
        let wanted: Vec<_> = projection.iter().map(|at| table.field(*at).name().as_str()).collect();
        let incomplete = wanted.iter().any(|name| scan.index_of(name).is_err());
        let read: Vec<usize> = if incomplete {
            (0..scan.fields().len()).collect()
        } else {
            wanted.iter().map(|name| scan.index_of(name)).collect::<Result<_, _>>()?
        };
        let mut source = ParquetSource::new(self.scan.clone()).with_metadata_size_hint(FOOTER_BYTES);
        if let Some(predicate) = predicate.and_then(|expr| physical(state, expr, &scan)) {
            source = source.with_predicate(predicate);
        }
        let files = self.files.iter().map(|file| self.partitioned(objects, file)).collect::<DfResult<Vec<_>>>()?;
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(url.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_limit(limit)
            .with_projection_indices(Some(read))?
            .build();
        let plan = DataSourceExec::from_data_source(config);
        meter.watch(plan.clone());
        Ok(Scanned { plan, incomplete })
    }

    fn partitioned(&self, objects: &Objects, file: &ScanFile<'_>) -> DfResult<PartitionedFile> {
        let meta = objects.meta(file.path, file.bytes).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let values = self.scan.table_partition_cols().iter().map(|field| {
            let level = file.levels.iter().find(|level| level.column == *field.name());
            level.map_or_else(|| field.data_type().try_into(), |level| Ok(level.value.scalar(field.data_type())))
        });
        Ok(PartitionedFile::new_from_meta(meta).with_partition_values(values.collect::<DfResult<Vec<_>>>()?))
    }
}

/// The predicate over the columns of a scan; none where it names one that the scan does not have.
pub fn physical(state: &dyn Session, predicate: &Expr, scan: &SchemaRef) -> Option<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(scan.as_ref().clone()).ok()?;
    state.create_physical_expr(predicate.clone(), &schema).ok()
}
