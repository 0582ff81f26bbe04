//! The live part of a table: records of one partition as rows, streamed in bounded portions.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use broker::{Kind, Offset, Partition};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt, stream};

use crate::decoded::{DecodedRows, Portion};
use crate::encoded::EncodedRows;
use crate::error::{LakeError, Result};
use crate::hybrid::Boundary;
use crate::meter::Meter;
use crate::tables::Table;
use crate::text_views::plain_rows;

/// Bytes of the log that are turned into rows at one time.
const READ_BYTES: usize = 1 << 20;
/// The end of the log grows until the next query, and is not worth keeping when it is smaller.
const KEPT_BYTES_MIN: u64 = READ_BYTES as u64 / 4;

/// Rows of offsets `from..to` of one partition. Holds the boundary, and so the pin that keeps retention off them.
pub struct LogScan {
    /// The table whose rows they are.
    pub table: Arc<Table>,
    /// Which of its columns the query reads.
    pub projection: Arc<[usize]>,
    /// These, as it reads them.
    pub columns: SchemaRef,
    /// The partition.
    pub partition: Arc<Partition>,
    /// First offset and end.
    pub range: (Offset, Offset),
    /// What the query reads, kept as long as this is.
    pub boundary: Arc<Boundary>,
    /// What queries have decoded.
    pub decoded: Arc<DecodedRows>,
    /// Counts what is read.
    pub meter: Arc<Meter>,
}

impl fmt::Debug for LogScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.range;
        write!(f, "LogScan {}-{} {from}..{to}", self.table.topic, self.partition.index())
    }
}

impl PartitionStream for LogScan {
    fn schema(&self) -> &SchemaRef {
        &self.columns
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let portion = context.session_config().batch_size();
        let part = Self {
            table: self.table.clone(),
            projection: self.projection.clone(),
            columns: self.columns.clone(),
            partition: self.partition.clone(),
            range: self.range,
            boundary: self.boundary.clone(),
            decoded: self.decoded.clone(),
            meter: self.meter.clone(),
        };
        let rows = stream::try_unfold((part, self.range.0), |(part, at)| async move {
            let read = part.read(at).await.map_err(|e| DataFusionError::External(Box::new(e)))?;
            Ok::<_, DataFusionError>(read.map(|(rows, next)| (rows, (part, next))))
        });
        let rows = rows.map_ok(move |rows| stream::iter(portions(&rows, portion).into_iter().map(Ok))).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema().clone(), rows.boxed()))
    }
}

impl LogScan {
    /// Rows from `at` on, and where to go on; none at the end.
    async fn read(&self, at: Offset) -> Result<Option<(RecordBatch, Offset)>> {
        let (_, to) = self.range;
        // deleted on somebody's order (DeleteRecords); retention cannot pass the pin
        let at = at.max(self.partition.log_start());
        if at >= to {
            return Ok(None);
        }
        let known = self.decoded.get(&self.table, self.partition.id(), at).filter(|portion| portion.next <= to);
        let read = match known {
            Some(Portion { rows, next, log_bytes }) => {
                Some(Read { rows: rows.read(&self.projection)?, next, log_bytes })
            }
            None => self.decode(at).await?,
        };
        let Some(read) = read else { return Ok(None) };
        self.meter.add_log(read.log_bytes);
        let rows = plain_rows(&read.rows, &self.columns);
        let rows = rows.map_err(|e| LakeError::bug(format!("live rows cannot be read as plain columns: {e}")))?;
        Ok(Some((rows, read.next)))
    }

    /// Reads and decodes from `at` on, or from the log's start where that has moved, and keeps it for the next queries.
    async fn decode(&self, mut at: Offset) -> Result<Option<Read>> {
        let (first, to) = self.range;
        let batches = loop {
            match self.partition.read_committed(at, READ_BYTES).await {
                Ok(batches) => break batches,
                Err(error) if error.kind == Kind::OffsetOutOfRange && self.partition.log_start() > at => {
                    at = self.partition.log_start();
                    if at >= to {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        };
        let Some(last) = batches.last() else { return Ok(None) };
        let log_bytes = batches.iter().map(|batch| batch.bytes().len() as u64).sum();
        let range = (at, last.next_offset().min(to));
        let (table, decoded, projection) = (self.table.clone(), self.decoded.clone(), self.projection.clone());
        let (log, index) = (self.partition.id(), self.partition.index());
        // decoding a portion takes milliseconds, which no thread that serves others should spend
        let decode = tokio::task::spawn_blocking(move || {
            let (rows, next) = table.rows(index, &batches, range)?;
            drop(batches);
            let rows = table.layout.complete(&rows)?;
            let worth_keeping = next < to || log_bytes >= KEPT_BYTES_MIN;
            if worth_keeping && decoded.makes_room(&table, log, first, log_bytes) {
                match EncodedRows::of(&rows) {
                    Ok(rows) => decoded.put(&table, log, at, Portion { rows, next, log_bytes }),
                    Err(error) => tracing::warn!(%error, table = table.name, "they are decoded again each time"),
                }
            }
            let read = rows.project(&projection).map_err(|e| LakeError::bug(format!("live rows: {e}")))?;
            Ok::<_, LakeError>(Read { rows: read, next, log_bytes })
        });
        Ok(Some(decode.await.map_err(|e| LakeError::bug(format!("decoding ended early: {e}")))??))
    }
}

/// Rows with the columns of a scan, the offset behind them, and the bytes of the log that they are of.
struct Read {
    rows: RecordBatch,
    next: Offset,
    log_bytes: u64,
}

fn portions(rows: &RecordBatch, size: usize) -> Vec<RecordBatch> {
    let size = size.max(1);
    (0..rows.num_rows()).step_by(size).map(|at| rows.slice(at, size.min(rows.num_rows() - at))).collect()
}
