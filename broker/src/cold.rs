//! The seam to the cold log: records that the log let go and that the lake still has. The lake implements [`ColdLog`], the
//! handlers of Fetch and ListOffsets ask it.
//!
//! What is read there was committed: aborted records and markers did not go into it, so both levels of isolation read the
//! same. A cold log that is away, or does not answer in time, is an error after which clients ask again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::RwLock;

use crate::batch::Batch;
use crate::error::{Error, Kind, Result};
use crate::log::Partition;
use crate::rebuild::ColdRead;
use crate::types::{LogId, Offset, TimestampMs};

/// Longest wait for an answer of the cold log; clients wait at least twice as long for theirs.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Who has records that the log let go. It says per partition what it has: [`Partition::set_cold`].
pub trait ColdLog: Send + Sync {
    /// Whether it keeps the records of this topic.
    fn keeps(&self, topic: &str) -> bool;

    /// Batches from `wanted.from` on, at least one, that leave no offset out.
    fn read(&self, log: LogId, wanted: ColdRead) -> BoxFuture<'static, Result<Vec<Batch>>>;

    /// The first record at or after `from`, below `end`, with a timestamp of at least `target`: its offset and timestamp.
    fn first_at(
        &self,
        log: LogId,
        target: TimestampMs,
        between: (Offset, Offset),
    ) -> BoxFuture<'static, Result<Option<(Offset, TimestampMs)>>>;
}

/// The way to the cold log. Holds: who has it, once it said so; it may be gone.
#[derive(Default)]
pub(crate) struct Cold(RwLock<Option<Weak<dyn ColdLog>>>);

impl Cold {
    /// From now on this one is asked.
    pub(crate) fn serve(&self, cold: &Arc<dyn ColdLog>) {
        *self.0.write() = Some(Arc::downgrade(cold));
    }

    /// Whether a topic's records are kept; yes before anybody said.
    pub(crate) fn keeps(&self, topic: &str) -> bool {
        self.get().is_none_or(|cold| cold.keeps(topic))
    }

    fn get(&self) -> Option<Arc<dyn ColdLog>> {
        self.0.read().as_ref().and_then(Weak::upgrade)
    }

    fn answering(&self) -> Result<Arc<dyn ColdLog>> {
        self.get().ok_or_else(|| away("the lake, which has the records, is not running"))
    }

    /// Batches as clients read them, of records below `end`: from the log, or from the cold log where the log has let them go;
    /// and whether it was the latter.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, `ColdLogAway`, `Storage`.
    pub(crate) async fn read(
        &self,
        partition: &Arc<Partition>,
        (from, end): (Offset, Offset),
        bytes_max: usize,
    ) -> Result<(Vec<Batch>, bool)> {
        if !partition.lies_cold(from) {
            match partition.read_below(from, end, bytes_max).await {
                // the log let it go meanwhile
                Err(error) if error.kind == Kind::OffsetOutOfRange && partition.lies_cold(from) => {}
                read => return read.map(|batches| (batches, false)),
            }
        }
        // a batch is of one epoch: clients compare that of the last one with ours
        let (epoch, next_epoch) = partition.epoch_span(from);
        let wanted = ColdRead { from, end: partition.log_start().min(next_epoch), epoch, bytes_max };
        match in_time(self.answering()?.read(partition.id(), wanted)).await {
            Ok(batches) => Ok((batches, true)),
            Err(_) if from < partition.earliest() => {
                let message =
                    format!("offset {from} of {}-{} was deleted meanwhile", partition.topic(), partition.index());
                Err(Error::new(Kind::OffsetOutOfRange, message))
            }
            Err(error) => Err(error),
        }
    }

    /// The first record that clients can read with a timestamp of at least `target`.
    ///
    /// # Errors
    /// `ColdLogAway`, `Storage`.
    pub(crate) async fn offset_for_timestamp(
        &self,
        partition: &Arc<Partition>,
        target: TimestampMs,
    ) -> Result<Option<(Offset, TimestampMs)>> {
        let between = (partition.earliest(), partition.log_start());
        if between.0 < between.1 {
            let found = in_time(self.answering()?.first_at(partition.id(), target, between)).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        partition.offset_for_timestamp(target).await
    }
}

async fn in_time<T>(asked: BoxFuture<'static, Result<T>>) -> Result<T> {
    let late = |_| Err(away("the lake, which has the records, did not answer in time"));
    tokio::time::timeout(WAIT_MAX, asked).await.unwrap_or_else(late)
}

fn away(message: &str) -> Error {
    Error::new(Kind::ColdLogAway, message)
}
