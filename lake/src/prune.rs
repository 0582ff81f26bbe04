//! Files that cannot hold a row that a query wants are not opened: the manifest knows each file's slice, event times,
//! partition and offsets, and DataFusion's own rules decide by them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use broker::PartitionIndex;
use datafusion::common::Column;
use datafusion::common::pruning::PruningStatistics;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;

use crate::layout::{Level, Value};
use crate::manifest_bytes::FileEntry;
use crate::writer::OFFSET_COLUMN;

/// The column of every stream that names the partition.
const PARTITION_COLUMN: &str = "_partition";

/// A file and its partition.
pub type PartitionFile = (PartitionIndex, Arc<FileEntry>);

/// Drops files in which no row can meet the predicate. A predicate that says nothing about what the manifest knows, or
/// that cannot be judged, drops none.
pub fn prune(
    files: Vec<PartitionFile>,
    predicate: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
    event_time: &str,
) -> Vec<PartitionFile> {
    let Ok(rule) = PruningPredicate::try_new(predicate.clone(), schema.clone()) else { return files };
    let known = Known { files: &files, schema, event_time };
    match rule.prune(&known) {
        Ok(keep) if keep.len() == files.len() => {
            files.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect()
        }
        _ => files,
    }
}

struct Known<'a> {
    files: &'a [PartitionFile],
    schema: &'a SchemaRef,
    event_time: &'a str,
}

impl Known<'_> {
    fn column_type(&self, column: &Column) -> Option<DataType> {
        self.schema.field_with_name(&column.name).ok().map(|field| field.data_type().clone())
    }

    /// Least or largest value of a column per file, where it is known.
    fn bound(&self, column: &Column, largest: bool) -> Option<ArrayRef> {
        let kind = self.column_type(column)?;
        let unknown = ScalarValue::try_from(&kind).ok()?;
        let mut any = false;
        let values: Vec<ScalarValue> = self
            .files
            .iter()
            .map(|(partition, file)| {
                let value = self.one_bound(column, &kind, (*partition, file), largest);
                any |= value.is_some();
                value.unwrap_or_else(|| unknown.clone())
            })
            .collect();
        if any { ScalarValue::iter_to_array(values).ok() } else { None }
    }

    fn one_bound(
        &self,
        column: &Column,
        kind: &DataType,
        (partition, file): (PartitionIndex, &FileEntry),
        largest: bool,
    ) -> Option<ScalarValue> {
        if let Some(level) = level(file, &column.name) {
            return (level.value != Value::Null).then(|| level.value.scalar(kind)).filter(|value| !value.is_null());
        }
        match column.name.as_str() {
            PARTITION_COLUMN => ScalarValue::from(partition).cast_to(kind).ok(),
            OFFSET_COLUMN => ScalarValue::from(if largest { file.last } else { file.first }).cast_to(kind).ok(),
            name if name == self.event_time => {
                let DataType::Timestamp(TimeUnit::Millisecond, zone) = kind else { return None };
                let (least, most) = file.event_ms?;
                Some(ScalarValue::TimestampMillisecond(Some(if largest { most } else { least }), zone.clone()))
            }
            _ => None,
        }
    }
}

fn level<'a>(file: &'a FileEntry, column: &str) -> Option<&'a Level> {
    file.levels.iter().find(|level| level.column == column)
}

impl PruningStatistics for Known<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, true)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let count = |(_, file): &PartitionFile| match level(file, &column.name) {
            Some(level) => Some(if level.value == Value::Null { file.rows } else { 0 }),
            None if column.name == PARTITION_COLUMN || column.name == OFFSET_COLUMN => Some(0),
            None => (column.name == self.event_time && file.event_ms.is_none()).then_some(file.rows),
        };
        let counts: UInt64Array = self.files.iter().map(count).collect();
        Some(Arc::new(counts))
    }

    fn row_counts(&self, _column: &Column) -> Option<ArrayRef> {
        let counts: UInt64Array = self.files.iter().map(|(_, file)| Some(file.rows)).collect();
        Some(Arc::new(counts))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
