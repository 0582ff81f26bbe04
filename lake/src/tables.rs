//! Tables: what SQL calls a stream, how its records become rows, and whether and how it settles.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use broker::{Batch, Offset, PartitionIndex, TopicName};
use parking_lot::RwLock;

use crate::config::{LakeConfig, RAW_ZONE, TableConfig};
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::layout::Layout;
use crate::writer::OFFSET_COLUMN;

/// Records → rows, the same rows for the same records whenever it is called. Takes as many of the batches, but at least
/// one, as are to be held at once, however far they unfold; gives how many those are.
pub type Decode = Arc<dyn Fn(PartitionIndex, &[Batch]) -> Result<(RecordBatch, usize)> + Send + Sync>;

/// One table. Nobody changes it.
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

/// The tables that there are. Another list takes its place when a stream is declared or dropped.
#[derive(Default)]
pub struct Tables(RwLock<Arc<[Arc<Table>]>>);

impl Tables {
    /// Those at the start.
    pub fn new(tables: Vec<Arc<Table>>) -> Self {
        Self(RwLock::new(tables.into()))
    }

    /// Those that there are now.
    pub fn now(&self) -> Arc<[Arc<Table>]> {
        self.0.read().clone()
    }

    /// From now on there are these.
    pub fn set(&self, tables: Vec<Arc<Table>>) {
        *self.0.write() = tables.into();
    }

    /// Does something unless the table is gone; it does not go meanwhile. Whether it was done.
    pub fn while_there(&self, table: &Table, act: impl FnOnce()) -> bool {
        let tables = self.0.read();
        let is_there = tables.iter().any(|known| known.name == table.name && known.settles.is_some());
        if is_there {
            act();
        }
        is_there
    }
}

impl Table {
    /// Rows of the data records with offsets in `from..to` of the first of the batches, and the offset behind those.
    ///
    /// # Errors
    /// `Broker` when the records are damaged, `Bug` when the rows' offsets do not ascend.
    pub fn rows(
        &self,
        partition: PartitionIndex,
        batches: &[Batch],
        (from, to): (Offset, Offset),
    ) -> Result<(RecordBatch, Offset)> {
        let (rows, taken) = (self.decode)(partition, batches)?;
        let next = batches[..taken].last().map_or(to, |last| last.next_offset().min(to));
        let offsets = offsets(&rows)?;
        if !offsets.is_sorted_by(|before, after| before < after) {
            return Err(LakeError::bug(format!(
                "rows of {}-{partition} are not in the order of their offsets",
                self.topic
            )));
        }
        let start = offsets.partition_point(|offset| *offset < from);
        let end = offsets.partition_point(|offset| *offset < to);
        Ok((rows.slice(start, end.saturating_sub(start)), next))
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
        if let Some(name) = &table.stream
            && !streams.iter().any(|stream| stream.name() == name && **stream.topic() == *table.topic)
        {
            mistakes.push(format!("lake table {}: no stream {name} is declared over the topic", table.topic));
        }
        if hidden(&table.topic) {
            mistakes.push(format!(
                "lake table {}: Spark, Hive and pyarrow skip directories that begin with _ or ., name the topic otherwise",
                table.topic
            ));
        }
    }
    let declared = |topic: &str| config.tables.iter().find(|table| table.topic == topic);
    mistakes.extend(two_of_a_topic(&streams, declared));
    let mut tables: Vec<Arc<Table>> = Vec::with_capacity(streams.len());
    for stream in streams {
        let settles = declared(stream.topic()).cloned().unwrap_or_else(|| TableConfig::of(stream.topic().to_string()));
        // What SQL declares over a topic that settles already reads its log alone.
        let is_second = tables.iter().any(|other| *other.topic == **stream.topic() && other.settles.is_some());
        let is_named = settles.stream.as_ref().is_none_or(|name| stream.name() == name);
        let is_settled = is_named && !is_second && !hidden(&settles.topic);
        match Layout::new(stream.schema(), stream.event_time(), &settles.slice) {
            Err(error) => mistakes.push(format!("lake table {}: {error}", settles.topic)),
            Ok(layout) => tables.push(Arc::new(Table {
                name: stream.name().to_string(),
                topic: stream.topic().to_string().into(),
                dir: directory(&settles, config.zones),
                layout: Arc::new(layout),
                settles: is_settled.then_some(settles),
                decode: decode(stream),
            })),
        }
    }
    if mistakes.is_empty() { Ok(tables) } else { Err(LakeError::config(mistakes.join("; "))) }
}

/// The topics with several streams that do not say whose columns their files have: what one settles the others would
/// take for theirs.
fn two_of_a_topic<'a>(
    streams: &[Arc<engine::Stream>],
    declared: impl Fn(&str) -> Option<&'a TableConfig>,
) -> Vec<String> {
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let of_files = streams.iter().filter(|stream| !stream.config().by_sql);
    of_files.for_each(|stream| names.entry(stream.topic()).or_default().push(stream.name()));
    let unclear = |topic: &str| !hidden(topic) && declared(topic).is_none_or(|table| table.stream.is_none());
    let mistake = |(topic, names): (&str, Vec<&str>)| {
        format!(
            "lake table {topic}: the streams {} are over it, and its files have the columns of one: set stream = {:?} \
             for this topic under [[lake.tables]], the others read the log alone then",
            names.join(", "),
            names[0]
        )
    };
    names.into_iter().filter(|(topic, names)| names.len() > 1 && unclear(topic)).map(mistake).collect()
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
        let (decoded, taken) = stream.decode_some(partition, batches).map_err(|e| {
            LakeError::new(
                LakeErrorKind::Broker,
                format!("records of {}-{partition} cannot be read: {e}", stream.topic()),
            )
        })?;
        Ok((decoded.rows, taken))
    })
}
