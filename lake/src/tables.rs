//! Tables: what SQL calls a stream, how its records become rows, and whether and how it settles.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use broker::{Batch, Offset, PartitionIndex, TopicName};

use crate::config::{LakeConfig, RAW_ZONE, TableConfig};
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::layout::Layout;
use crate::writer::OFFSET_COLUMN;

/// Records → rows, the same rows for the same records whenever it is called.
pub type Decode = Arc<dyn Fn(PartitionIndex, &[Batch]) -> Result<RecordBatch> + Send + Sync>;

/// One table. Nobody changes it while the lake runs.
pub struct Table {
    /// Its name in SQL: the stream's.
    pub name: String,
    /// The topic whose records it shows.
    pub topic: TopicName,
    /// Its directory below the lake's root: zone and topic.
    pub dir: String,
    /// Its columns and slices.
    pub layout: Arc<Layout>,
    /// How records become rows.
    pub decode: Decode,
    /// How it settles; none: it is read from the log only.
    pub settles: Option<TableConfig>,
}

impl Table {
    /// Rows of the data records with offsets in `from..to` of what was read.
    ///
    /// # Errors
    /// `Broker` when the records are damaged, `Bug` when the rows' offsets do not ascend.
    pub fn rows(
        &self,
        partition: PartitionIndex,
        mut batches: Vec<Batch>,
        (from, to): (Offset, Offset),
    ) -> Result<RecordBatch> {
        batches.retain(|batch| !batch.is_control());
        let rows = (self.decode)(partition, &batches)?;
        let offsets = offsets(&rows)?;
        if !offsets.is_sorted_by(|before, after| before < after) {
            return Err(LakeError::bug(format!(
                "rows of {}-{partition} are not in the order of their offsets",
                self.topic
            )));
        }
        let start = offsets.partition_point(|offset| *offset < from);
        let end = offsets.partition_point(|offset| *offset < to);
        Ok(rows.slice(start, end.saturating_sub(start)))
    }
}

/// The offsets of rows.
///
/// # Errors
/// `Bug` when they have none.
pub fn offsets(rows: &RecordBatch) -> Result<&[Offset]> {
    let column = rows.column_by_name(OFFSET_COLUMN).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let column = column.filter(|column| column.null_count() == 0);
    column.map(|column| column.values().as_ref()).ok_or_else(|| LakeError::bug(format!("rows without {OFFSET_COLUMN}")))
}

/// The tables of all streams.
///
/// # Errors
/// `Config`, with all mistakes at once.
pub fn tables(streams: Vec<Arc<engine::Stream>>, config: &LakeConfig) -> Result<Vec<Arc<Table>>> {
    let mut mistakes = Vec::new();
    for (at, table) in config.tables.iter().enumerate() {
        if !streams.iter().any(|stream| **stream.topic() == *table.topic) {
            mistakes.push(format!("lake table {}: declare a stream over the topic {}", table.topic, table.topic));
        }
        if config.tables[..at].iter().any(|other| other.topic == table.topic) {
            mistakes.push(format!("lake table {}: it is declared twice, declare it once", table.topic));
        }
        if table.flush_rows == 0 || table.flush_bytes == 0 || table.flush_age_ms <= 0 {
            mistakes.push(format!("lake table {}: flush_rows, flush_bytes and flush_age must be above 0", table.topic));
        }
        if let Some(zone) = table.zone.as_ref().filter(|zone| !is_zone(zone)) {
            mistakes.push(format!("lake table {}: zone {zone:?} must be letters, digits, - and _", table.topic));
        }
        if table.expire_after_ms.is_some() && table.archive_after_ms.is_none() {
            mistakes.push(format!("lake table {}: expire_after needs archive_after: set it too", table.topic));
        }
        if table.merge.is_some_and(|merge| merge.to_bytes < merge.below_bytes || merge.files_min < 2) {
            mistakes.push(format!(
                "lake table {}: merge_to must be at least merge_below, and merge_files at least 2",
                table.topic
            ));
        }
        if hidden(&table.topic) {
            mistakes.push(format!(
                "lake table {}: Spark, Hive and pyarrow skip directories that begin with _ or ., name the topic otherwise",
                table.topic
            ));
        }
    }
    let mut tables = Vec::with_capacity(streams.len());
    for stream in streams {
        let declared = config.tables.iter().find(|table| *table.topic == **stream.topic()).cloned();
        let settles = declared.unwrap_or_else(|| TableConfig::of(stream.topic().to_string()));
        match Layout::new(stream.schema(), stream.event_time(), &settles.slice) {
            Err(error) => mistakes.push(format!("lake table {}: {error}", settles.topic)),
            Ok(layout) => tables.push(Arc::new(Table {
                name: stream.name().to_string(),
                topic: stream.topic().to_string().into(),
                dir: directory(&settles, config.zones),
                layout: Arc::new(layout),
                settles: Some(settles).filter(|table| !hidden(&table.topic)),
                decode: decode(stream),
            })),
        }
    }
    if mistakes.is_empty() { Ok(tables) } else { Err(LakeError::config(mistakes.join("; "))) }
}

/// `[<zone>/]<topic>`.
fn directory(table: &TableConfig, zones: bool) -> String {
    let zone = table.zone.as_deref().or(zones.then_some(RAW_ZONE));
    zone.map_or_else(|| table.topic.clone(), |zone| format!("{zone}/{}", table.topic))
}

/// Whether a name can be that of a zone: one directory that readers do not skip.
pub fn is_zone(zone: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !zone.is_empty() && !hidden(zone) && zone.chars().all(plain)
}

/// Whether readers of directories skip a topic's.
fn hidden(topic: &str) -> bool {
    topic.starts_with(['_', '.'])
}

fn decode(stream: Arc<engine::Stream>) -> Decode {
    Arc::new(move |partition, batches| {
        let decoded = stream.decode(partition, batches).map_err(|e| {
            LakeError::new(
                LakeErrorKind::Broker,
                format!("records of {}-{partition} cannot be read: {e}", stream.topic()),
            )
        })?;
        Ok(decoded.rows)
    })
}
