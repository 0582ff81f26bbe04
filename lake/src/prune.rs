//! Files that cannot hold a row that a query wants are not opened: the manifest knows each file's slice, and of topics'
//! files the event times, partition and offsets, and DataFusion's own rules decide by them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use broker::{Offset, PartitionIndex, TimestampMs};
use datafusion::common::Column;
use datafusion::common::pruning::PruningStatistics;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;

use crate::manifest_bytes::FileEntry;
use crate::slice::{Level, Value};
use crate::writer::OFFSET_COLUMN;

/// The column of every stream that names the partition.
const PARTITION_COLUMN: &str = "_partition";

/// A file and its partition.
pub type PartitionFile = (PartitionIndex, Arc<FileEntry>);

/// What is known of a file before it is opened.
pub struct Facts<'a> {
    /// Its slice.
    pub levels: &'a [Level],
    /// Rows in it.
    pub rows: u64,
    /// Which records it holds; none where its rows are no records.
    pub records: Option<Records>,
}

/// Which records a topic's file holds.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    /// Their partition.
    pub partition: PartitionIndex,
    /// First and last offset.
    pub offsets: (Offset, Offset),
    /// Least and largest event time; none when all are null.
    pub event_ms: Option<(TimestampMs, TimestampMs)>,
}

/// The facts of a topic's file.
pub fn facts_of((partition, file): &PartitionFile) -> Facts<'_> {
    let records = Records { partition: *partition, offsets: (file.first, file.last), event_ms: file.event_ms };
    Facts { levels: &file.levels, rows: file.rows, records: Some(records) }
}

/// Drops files in which no row can meet the predicate. A predicate that says nothing about what the manifest knows, or
/// that cannot be judged, drops none.
pub fn prune<F>(
    files: Vec<F>,
    facts: impl Fn(&F) -> Facts<'_>,
    predicate: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
    event_time: &str,
) -> Vec<F> {
    let Ok(rule) = PruningPredicate::try_new(predicate.clone(), schema.clone()) else { return files };
    let kept = {
        let known = Known { files: files.iter().map(facts).collect(), schema, event_time };
        rule.prune(&known)
    };
    match kept {
        Ok(keep) if keep.len() == files.len() => {
            files.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect()
        }
        _ => files,
    }
}

struct Known<'a> {
    files: Vec<Facts<'a>>,
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
            .map(|file| {
                let value = self.one_bound(column, &kind, file, largest);
                any |= value.is_some();
                value.unwrap_or_else(|| unknown.clone())
            })
            .collect();
        if any { ScalarValue::iter_to_array(values).ok() } else { None }
    }

    fn one_bound(&self, column: &Column, kind: &DataType, file: &Facts<'_>, largest: bool) -> Option<ScalarValue> {
        if let Some(level) = level(file, &column.name) {
            return (level.value != Value::Null).then(|| level.value.scalar(kind)).filter(|value| !value.is_null());
        }
        let records = file.records?;
        match column.name.as_str() {
            PARTITION_COLUMN => ScalarValue::from(records.partition).cast_to(kind).ok(),
            OFFSET_COLUMN => {
                let (first, last) = records.offsets;
                ScalarValue::from(if largest { last } else { first }).cast_to(kind).ok()
            }
            name if name == self.event_time => {
                let DataType::Timestamp(TimeUnit::Millisecond, zone) = kind else { return None };
                let (least, most) = records.event_ms?;
                Some(ScalarValue::TimestampMillisecond(Some(if largest { most } else { least }), zone.clone()))
            }
            _ => None,
        }
    }
}

fn level<'a>(file: &Facts<'a>, column: &str) -> Option<&'a Level> {
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
        let count = |file: &Facts<'_>| match (level(file, &column.name), file.records) {
            (Some(level), _) => Some(if level.value == Value::Null { file.rows } else { 0 }),
            (None, None) => None,
            (None, Some(_)) if column.name == PARTITION_COLUMN || column.name == OFFSET_COLUMN => Some(0),
            (None, Some(records)) => {
                (column.name == self.event_time && records.event_ms.is_none()).then_some(file.rows)
            }
        };
        let counts: UInt64Array = self.files.iter().map(count).collect();
        Some(Arc::new(counts))
    }

    fn row_counts(&self, _column: &Column) -> Option<ArrayRef> {
        let counts: UInt64Array = self.files.iter().map(|file| Some(file.rows)).collect();
        Some(Arc::new(counts))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
