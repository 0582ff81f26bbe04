//! The step after the one that is computed: where a pipeline is far behind its log, it is read and decoded on another thread meanwhile.
//!
//! Nothing of it is in the source before it is taken. One that does not begin where the source stands by then (the topic is another one,
//! or rows were read elsewhere) is thrown away, and one that cannot be read is read again in the pipeline's own thread, which meets the
//! same error and knows what to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Offset, PartitionIndex};

use crate::beside::Beside;
use crate::decode::{Decoder, Sources};
use crate::error::Result;
use crate::pipeline::Pipeline;
use crate::source::{Decode, Onward};
use crate::state::Position;
use crate::stream::{Decoded, Stream};

/// Records of a step from which on the next one is worth another thread: fewer are no backlog.
const RECORDS_MIN: usize = if cfg!(test) { 4 } else { 4_096 };

/// Rows of a step, and the positions behind them.
type Rows = ((Decoded, Sources), BTreeMap<PartitionIndex, Position>);

/// The next step, if one is under way. Holds: the thread that works on it. Only its pipeline changes it; a crash loses nothing.
#[derive(Default)]
pub(crate) struct NextStep {
    work: Option<Beside<Result<Option<Read>>>>,
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
            self.next.work = Some(Beside::begin(read_on(self.stream.clone(), onward)));
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

/// Reads and decodes as much as one step holds, a batch of each partition in turn. None when there is nothing, or it cannot be read.
async fn read_on(stream: Arc<Stream>, begins: Vec<Onward>) -> Result<Option<Read>> {
    let mut batches = Vec::new();
    for onward in &begins {
        let Ok(read) = onward.read().await else { return Ok(None) };
        batches.push(read.into_iter());
    }
    let mut decoder = Decoder::new(&stream);
    let mut ends = BTreeMap::new();
    let mut has_more = true;
    while has_more && !decoder.is_full() {
        has_more = false;
        for (onward, batches) in begins.iter().zip(&mut batches) {
            let Some(batch) = batches.next().filter(|_| !decoder.is_full()) else { continue };
            let index = onward.partition.index();
            decoder.push_from(index, &batch, *ends.get(&index).unwrap_or(&onward.from))?;
            ends.insert(index, batch.next_offset());
            has_more = true;
        }
    }
    if ends.is_empty() {
        return Ok(None);
    }
    let rows = decoder.finish_with_sources()?;
    Ok(Some(Read { begins, ends, rows }))
}
