//! Filling the log of a broker in this process.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use broker::{Ack, Append, Batch, Broker, Change, Origin, Partition};

use crate::Outcome;

/// Records of a batch: what a librdkafka producer sends when it is busy.
const BATCH_RECORDS: usize = 1_000;
/// Batches under way at one time.
const COMMITS_UNDER_WAY: usize = 16;

/// A batch at the end of a partition.
pub fn append(partition: &Arc<Partition>, batch: Batch) -> Change {
    Change::Append(Append { partition: partition.clone(), batch, origin: Origin::Internal })
}

/// Writes what has these numbers, in their order, to the partitions batch by batch in turn; `batch` makes one of some numbers.
///
/// # Errors
/// Those of `batch`, or a commit fails.
pub async fn fill(
    broker: &Broker,
    partitions: &[Arc<Partition>],
    numbers: Range<usize>,
    batch: impl Fn(Range<usize>) -> Outcome<Batch>,
) -> Outcome<()> {
    let mut under_way = VecDeque::new();
    for (turn, first) in numbers.clone().step_by(BATCH_RECORDS).enumerate() {
        let batch = batch(first..numbers.end.min(first + BATCH_RECORDS))?;
        let append = append(&partitions[turn % partitions.len()], batch);
        under_way.push_back(broker.lane().commit(vec![append], Ack::Durable));
        if under_way.len() > COMMITS_UNDER_WAY
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.await?;
        }
    }
    for commit in under_way {
        commit.await?;
    }
    Ok(())
}
