//! A pipeline's reading end: the partitions of its topic, where it stands in each, and batches read ahead.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use broker::{Batch, Broker, Kind, Offset, Partition, PartitionIndex, TimestampMs, TopicName, Waiter};

use crate::error::Result;
use crate::state::Position;
use crate::watermark::PartitionTime;

/// Rows of one step, at most one batch more.
const STEP_ROWS: usize = 65_536;
/// Bytes of record values of one step, at most one batch more.
const STEP_BYTES: usize = 32 << 20;
/// Bytes read from one partition at once.
const READ_BYTES: usize = 2 << 20;

/// What records are decoded into: rows of a stream, or of a table.
pub(crate) trait Decode {
    /// Takes a batch's records from an offset on: a log start may lie within a batch.
    fn push_from(&mut self, partition: PartitionIndex, batch: &Batch, from: Offset) -> Result<()>;
    /// Rows so far.
    fn rows(&self) -> usize;
    /// Bytes of record values so far.
    fn bytes(&self) -> usize;
}

/// Reads one topic. Holds: positions as of the last commit, and batches from there on that are not yet decoded. Only
/// its pipeline changes it; after a crash positions come from the stored progress.
pub(crate) struct Source {
    broker: Arc<Broker>,
    topic: TopicName,
    waiter: Arc<Waiter>,
    partitions: BTreeMap<PartitionIndex, Reading>,
    /// Where to begin in partitions that are not open yet.
    resume: BTreeMap<PartitionIndex, Position>,
    /// Offsets that were gone before they were read, since the last [`take_lost`](Self::take_lost).
    lost: u64,
    /// The partition whose batch is decoded next, so that each gets its turn.
    turn: usize,
}

struct Reading {
    partition: Arc<Partition>,
    position: Position,
    /// The next offset to be read into `ahead`.
    read_offset: Offset,
    last_read_ms: TimestampMs,
    ahead: VecDeque<Batch>,
}

impl Source {
    pub(crate) fn new(broker: Arc<Broker>, topic: TopicName, resume: BTreeMap<PartitionIndex, Position>) -> Source {
        let waiter = Waiter::new();
        Source { broker, topic, waiter, partitions: BTreeMap::new(), resume, lost: 0, turn: 0 }
    }

    /// Woken when any partition grows, and by `wake`.
    pub(crate) fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// Opens new partitions and those of a topic that was deleted and made again.
    pub(crate) fn follow_topic(&mut self) {
        let Some(topic) = self.broker.catalog().topic(&self.topic) else { return };
        let now_ms = self.broker.clock().now_ms();
        for partition in topic.partitions().iter() {
            let index = partition.index();
            let known = self.partitions.get(&index).is_some_and(|reading| reading.partition.id() == partition.id());
            if !known {
                partition.watch(&self.waiter);
                let resumed = self.resume.remove(&index).filter(|position| position.log == partition.id());
                let start = partition.log_start();
                let before = self.partitions.get(&index).and_then(|reading| reading.position.max_event_ms);
                let fresh = Position { log: partition.id(), next_offset: start, max_event_ms: before };
                let mut position = resumed.unwrap_or(fresh);
                if position.next_offset < start {
                    self.lost += start.abs_diff(position.next_offset);
                    position.next_offset = start;
                }
                let reading = Reading {
                    partition: partition.clone(),
                    read_offset: position.next_offset,
                    position,
                    last_read_ms: now_ms,
                    ahead: VecDeque::new(),
                };
                self.partitions.insert(index, reading);
            }
        }
    }

    /// Reads ahead in every partition that has nothing ahead.
    pub(crate) async fn read_ahead(&mut self) -> Result<()> {
        for reading in self.partitions.values_mut() {
            let has_more = reading.partition.last_stable_offset() > reading.read_offset;
            if !reading.ahead.is_empty() || !has_more || reading.partition.is_deleted() {
                continue;
            }
            match reading.partition.read_committed(reading.read_offset, READ_BYTES).await {
                Ok(batches) => {
                    reading.read_offset = batches.last().map_or(reading.read_offset, Batch::next_offset);
                    reading.ahead.extend(batches);
                }
                Err(_) if reading.partition.is_deleted() => {}
                Err(error) if error.kind == Kind::OffsetOutOfRange => {
                    // Records were deleted on request before they were read: that is counted, and reading goes on.
                    let start = reading.partition.log_start();
                    if start <= reading.read_offset {
                        return Err(error.into());
                    }
                    self.lost += start.abs_diff(reading.read_offset);
                    reading.read_offset = start;
                    reading.position.next_offset = start;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Decodes what is ahead, a batch of each partition in turn, up to the bounds of a step. Gives the positions after it.
    pub(crate) fn decode_step(&mut self, decoder: &mut dyn Decode) -> Result<BTreeMap<PartitionIndex, Position>> {
        let mut after: BTreeMap<PartitionIndex, Position> = BTreeMap::new();
        let indexes: Vec<PartitionIndex> = self.partitions.keys().copied().collect();
        let now_ms = self.broker.clock().now_ms();
        let mut empty_in_a_row = 0;
        while empty_in_a_row < indexes.len() && decoder.rows() < STEP_ROWS && decoder.bytes() < STEP_BYTES {
            self.turn = (self.turn + 1) % indexes.len();
            let index = indexes[self.turn];
            let Some(reading) = self.partitions.get_mut(&index) else { break };
            let Some(batch) = reading.ahead.pop_front() else {
                empty_in_a_row += 1;
                continue;
            };
            empty_in_a_row = 0;
            let position = after.entry(index).or_insert(reading.position);
            decoder.push_from(index, &batch, position.next_offset)?;
            position.next_offset = batch.next_offset();
            reading.last_read_ms = now_ms;
        }
        Ok(after)
    }

    /// Takes positions as done, after their commit.
    pub(crate) fn committed(&mut self, positions: &BTreeMap<PartitionIndex, Position>) {
        for (index, position) in positions {
            if let Some(reading) = self.partitions.get_mut(index) {
                reading.position = *position;
            }
        }
    }

    /// Whether a batch is ahead.
    pub(crate) fn has_ahead(&self) -> bool {
        self.partitions.values().any(|reading| !reading.ahead.is_empty())
    }

    /// Where every partition stands, with changes that are not committed yet laid over.
    pub(crate) fn positions(&self, changed: &BTreeMap<PartitionIndex, Position>) -> BTreeMap<PartitionIndex, Position> {
        let stands = self.partitions.iter().map(|(index, reading)| (*index, reading.position));
        stands.chain(changed.iter().map(|(index, position)| (*index, *position))).collect()
    }

    /// What the watermark rule looks at, with changed positions laid over.
    pub(crate) fn times(&self, changed: &BTreeMap<PartitionIndex, Position>) -> Vec<PartitionTime> {
        let live = self.partitions.iter().filter(|(_, reading)| !reading.partition.is_deleted());
        let time = |(index, reading): (&PartitionIndex, &Reading)| {
            let position = changed.get(index).unwrap_or(&reading.position);
            PartitionTime {
                max_event_ms: position.max_event_ms,
                last_read_ms: reading.last_read_ms,
                caught_up: position.next_offset >= reading.partition.last_stable_offset(),
            }
        };
        live.map(time).collect()
    }

    /// Offsets found gone since the last call.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}
