//! How the lake fares.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Offset, PartitionIndex, TimestampMs, TopicName};

use super::Lake;
use crate::manifest_bytes::FileEntry;
use crate::merge::{MergeReport, is_small};
use crate::put_aside::PutAside;
use crate::tables::Table;

/// How the lake fares.
#[derive(Clone, Debug)]
pub struct LakeStatus {
    /// The destination as a URL.
    pub url: String,
    /// Each topic that settles.
    pub tables: Vec<TableStatus>,
}

/// How one topic settles.
#[derive(Clone, Debug)]
pub struct TableStatus {
    /// The topic.
    pub topic: TopicName,
    /// Its table's name in SQL: the stream's.
    pub table: String,
    /// Files published.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The first offset that is not settled, per partition.
    pub marks: BTreeMap<PartitionIndex, Offset>,
    /// The log's end, per partition.
    pub high_watermarks: BTreeMap<PartitionIndex, Offset>,
    /// Offsets that are not settled, over all partitions.
    pub lag_records: i64,
    /// Age of the oldest record that is not settled, in ms since its append; 0 when all are.
    pub lag_ms: i64,
    /// When a mark moved last, in ms since 1970.
    pub last_flush_ms: Option<TimestampMs>,
    /// What went wrong last, until it goes well again.
    pub error: Option<String>,
    /// Files that are small enough to be merged with others; 0 where the table is not merged.
    pub small_files: u64,
    /// What merging did since the start.
    pub merged: MergeReport,
    /// What went wrong in merging last, until it goes well again.
    pub merge_error: Option<String>,
    /// Files that the store did not know when it was started, the oldest first: what they have, and what to do.
    pub put_aside: Vec<PutAside>,
}

impl Lake {
    /// How the lake fares.
    pub fn status(&self) -> LakeStatus {
        let tables = self.sealer.tables().iter().map(|table| self.table_status(table)).collect();
        LakeStatus { url: self.destination.url(), tables }
    }

    pub(super) fn table_status(&self, table: &Table) -> TableStatus {
        let settler = self.sealer.settler();
        let state = self.sealer.state(&table.topic);
        let merging = self.merger.state(&table.topic);
        let merge = table.settles.as_ref().and_then(|config| config.merge);
        let mut status = TableStatus {
            topic: table.topic.clone(),
            table: table.name.clone(),
            files: 0,
            rows: 0,
            bytes: 0,
            marks: BTreeMap::new(),
            high_watermarks: BTreeMap::new(),
            lag_records: 0,
            lag_ms: 0,
            last_flush_ms: None,
            error: state.error,
            small_files: 0,
            merged: merging.done,
            merge_error: merging.error,
            put_aside: self.sealer.put_aside(&table.topic),
        };
        let Some(topic) = settler.broker.catalog().topic(&table.topic) else { return status };
        let now = settler.broker.clock().now_ms();
        for partition in topic.partitions().iter() {
            let settled = settler.manifest.settled(partition.id());
            status.files += settled.files.len() as u64;
            status.rows += settled.files.iter().map(|file| file.rows).sum::<u64>();
            status.bytes += settled.files.iter().map(|file| file.bytes).sum::<u64>();
            let small = |file: &&Arc<FileEntry>| merge.is_some_and(|merge| is_small(file, &merge));
            status.small_files += settled.files.iter().filter(small).count() as u64;
            let mark = settled.mark.map_or(partition.log_start(), |mark| mark.offset);
            let end = partition.high_watermark();
            status.marks.insert(partition.index(), mark);
            status.high_watermarks.insert(partition.index(), end);
            status.lag_records += (end - mark).max(0);
            if let (true, Some(oldest)) = (end > mark, state.oldest_ms.get(&partition.index())) {
                status.lag_ms = status.lag_ms.max(now - oldest);
            }
            status.last_flush_ms = status.last_flush_ms.max(settled.mark.map(|mark| mark.moved_ms));
        }
        status
    }
}
