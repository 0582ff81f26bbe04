//! The step after the one that is computed: where a pipeline is far behind its log, it is read and decoded on another thread meanwhile.
//!
//! Nothing of it is in the source before it is taken. One that does not begin where the source stands by then (the topic is another one,
//! or rows were read elsewhere) is thrown away, and one that cannot be read is read again in the pipeline's own thread, which meets the
//! same error and knows what to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Batch, Offset, PartitionIndex};

use crate::beside::Beside;
use crate::decode::{Decoder, Sources};
use crate::error::Result;
use crate::pipeline::Pipeline;
use crate::source::{Decode, Onward};
use crate::state::Position;
use crate::stream::{Decoded, Stream};

/// Records of a step from which on the next one is worth another thread: fewer are no backlog.
const RECORDS_MIN: usize = if cfg!(test) { 4 } else { 4_096 };

/// How often a step reads on in its partitions: what was aborted is read without ever filling it.
const READS_MAX: usize = 16;

/// Bytes that one commit should write at most, so that those of others do not wait long behind it. A step ends after its first reads
/// where the one before it says that it would write more.
const WRITTEN_BYTES: usize = 16 << 20;

/// Rows of a step, and the positions behind them.
type Rows = ((Decoded, Sources), BTreeMap<PartitionIndex, Position>);

/// The next step, if one is under way. Holds: the thread that works on it. Only its pipeline changes it; a crash loses nothing.
#[derive(Default)]
pub(crate) struct NextStep {
    work: Option<Beside<Result<Option<Read>>>>,
    /// Records at which a step is read on no further. Nothing is known at the start, so the first one has its first reads alone.
    records_max: usize,
    /// CPU time of those that have ended.
    pub(crate) busy_ns: u64,
}

/// What was read and decoded, where it begins, and where it ends.
struct Read {
    begins: Vec<Onward>,
    ends: BTreeMap<PartitionIndex, Offset>,
    rows: (Decoded, Sources),
}

impl NextStep {
    pub(crate) fn is_under_way(&self) -> bool {
        self.work.is_some()
    }

    /// A step of so many records has written so many bytes.
    pub(crate) fn has_written(&mut self, records: usize, bytes: usize) {
        if records > 0 {
            self.records_max = WRITTEN_BYTES / bytes.div_ceil(records).max(1);
        }
    }

    /// Waits for the one that is under way.
    async fn end(&mut self) -> Result<Option<Read>> {
        let Some(work) = self.work.take() else { return Ok(None) };
        let (read, busy_ns) = work.end().await?;
        self.busy_ns += busy_ns;
        read
    }

    /// Throws away what is under way, once its thread has ended: it reads the log, and must not be left behind when that is closed.
    pub(crate) async fn give_up(&mut self) {
        let _ = self.end().await;
    }
}

impl Pipeline {
    /// A step over what is next in the log, if there is something.
    pub(crate) async fn step(&mut self) -> Result<()> {
        let Some((rows, positions)) = self.rows().await? else { return Ok(()) };
        let records = rows.0.rows.num_rows() + rows.0.rejected.len();
        let onward = if records < RECORDS_MIN { Vec::new() } else { self.source.onward(&positions) };
        if !onward.is_empty() {
            self.next.work = Some(Beside::begin(read_on(self.stream.clone(), onward, self.next.records_max)));
        }
        self.take(rows, positions).await
    }

    async fn rows(&mut self) -> Result<Option<Rows>> {
        if self.next.is_under_way() {
            if let Some(read) = self.next.end().await?
                && let Some(positions) = self.source.take_onward(&read.begins, &read.ends)
            {
                return Ok(Some((read.rows, positions)));
            }
            self.source.read_ahead().await?;
            if !self.source.has_work() {
                return Ok(None);
            }
        }
        let stream = self.stream.clone();
        let mut decoder = Decoder::new(&stream);
        let positions = self.source.decode_step(&mut decoder)?;
        Ok(Some((decoder.finish_with_sources()?, positions)))
    }
}

/// Reads and decodes as much as one step holds, a batch of each partition in turn: the fuller a step is, the more of its rows share a
/// group, and the fewer states are read and written. None when there is nothing, or it cannot be read.
async fn read_on(stream: Arc<Stream>, begins: Vec<Onward>, records_max: usize) -> Result<Option<Read>> {
    let mut decoder = Decoder::new(&stream);
    let mut ends = BTreeMap::new();
    for _ in 0..READS_MAX {
        let Some(batches) = batches(&begins, &ends).await else { break };
        decode_in_turn(&mut decoder, batches, &mut ends)?;
        if decoder.is_full() || decoder.records() >= records_max {
            break;
        }
    }
    if ends.is_empty() {
        return Ok(None);
    }
    let rows = decoder.finish_with_sources()?;
    Ok(Some(Read { begins, ends, rows }))
}

/// A partition's batches, and where in it they begin to count.
struct Batches {
    index: PartitionIndex,
    from: Offset,
    left: std::vec::IntoIter<Batch>,
}

/// The next batches of all partitions. None when none has any, or one cannot be read: then what is there has to do.
async fn batches(begins: &[Onward], ends: &BTreeMap<PartitionIndex, Offset>) -> Option<Vec<Batches>> {
    let mut all = Vec::new();
    for onward in begins {
        let index = onward.partition.index();
        let from = *ends.get(&index).unwrap_or(&onward.from);
        all.push(Batches { index, from, left: onward.read(from).await.ok()?.into_iter() });
    }
    all.iter().any(|batches| batches.left.len() > 0).then_some(all)
}

/// Decodes a batch of each partition in turn, until the step is full or none is left.
fn decode_in_turn(
    decoder: &mut Decoder<'_>,
    mut batches: Vec<Batches>,
    ends: &mut BTreeMap<PartitionIndex, Offset>,
) -> Result<()> {
    let mut has_more = true;
    while has_more && !decoder.is_full() {
        has_more = false;
        for Batches { index, from, left } in &mut batches {
            let Some(batch) = left.next().filter(|_| !decoder.is_full()) else { continue };
            decoder.push_from(*index, &batch, *from)?;
            *from = batch.next_offset();
            ends.insert(*index, *from);
            has_more = true;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_on_as_far_as_the_last_one_lets_expect() {
        let mut next = NextStep::default();
        assert_eq!(next.records_max, 0, "nothing is known");
        next.has_written(10_000, 20 << 20);
        assert!((7_000..8_000).contains(&next.records_max), "{}", next.records_max);
        next.has_written(0, 100);
        assert!(next.records_max < 8_000, "closing windows on a quiet stream says nothing of records");
        next.has_written(65_536, 10 << 20);
        assert!(next.records_max > 100_000, "{}", next.records_max);
        next.has_written(7, 0);
        assert_eq!(next.records_max, WRITTEN_BYTES);
    }
}
