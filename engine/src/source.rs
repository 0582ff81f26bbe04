//! A pipeline's reading end: the partitions of its topic, where it stands in each, and batches read ahead.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use broker::{Batch, Broker, Kind, Offset, Partition, PartitionIndex, TimestampMs, TopicName, Waiter};

use crate::error::Result;
use crate::state::Position;
use crate::watermark::PartitionTime;

/// Records of one step, at most one batch more.
pub(crate) const STEP_RECORDS: usize = 65_536;
/// Bytes of the unfolded records of one step, at most one batch more.
const STEP_BYTES: usize = 32 << 20;
/// Bytes read from one partition at once.
const READ_BYTES: usize = 2 << 20;

/// What records are decoded into: rows of a stream, or of a table.
pub(crate) trait Decode {
    /// Takes a batch's records from an offset on: a log start may lie within a batch.
    fn push_from(&mut self, partition: PartitionIndex, batch: &Batch, from: Offset) -> Result<()>;
    /// Records so far, refused ones too: those are held as well.
    fn records(&self) -> usize;
    /// Bytes of all their keys, values and headers, unfolded: a batch of a few bytes can hold a hundred million.
    fn bytes(&self) -> usize;

    /// Whether it holds as much as is to be held at once.
    fn is_full(&self) -> bool {
        self.records() >= STEP_RECORDS || self.bytes() >= STEP_BYTES
    }
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
    /// Positions that moved over them, and are not committed yet.
    moved: BTreeMap<PartitionIndex, Position>,
    /// Whether the topic is another one than that which was read before.
    replaced: bool,
    /// Whether what has left the log may be kept elsewhere: then its place is kept until that is known.
    keeps_place: bool,
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

/// Where a partition's step after the next one begins, and what of it is ahead.
pub(crate) struct Onward {
    pub(crate) partition: Arc<Partition>,
    pub(crate) from: Offset,
    ahead: Vec<Batch>,
}

impl Onward {
    /// The next batches of the step, which has come to this offset: those that are ahead, or those that are read now.
    pub(crate) async fn read(&self, from: Offset) -> Result<Vec<Batch>> {
        if from == self.from && !self.ahead.is_empty() {
            return Ok(self.ahead.clone());
        }
        Ok(self.partition.read_committed(from, READ_BYTES).await?)
    }
}

impl Reading {
    /// Whether the next record has left the log, and is not read ahead.
    fn is_behind(&self) -> bool {
        self.ahead.is_empty() && self.position.next_offset < self.partition.log_start() && !self.partition.is_deleted()
    }
}

impl Source {
    pub(crate) fn new(broker: Arc<Broker>, topic: TopicName, resume: BTreeMap<PartitionIndex, Position>) -> Source {
        let waiter = Waiter::new();
        let (partitions, moved) = (BTreeMap::new(), BTreeMap::new());
        let (replaced, keeps_place) = (false, false);
        Source { broker, topic, waiter, partitions, resume, lost: 0, moved, replaced, keeps_place, turn: 0 }
    }

    /// Reads a topic beside this one: what grows in either wakes both.
    pub(crate) fn beside(&self, topic: TopicName, resume: BTreeMap<PartitionIndex, Position>) -> Source {
        Source { waiter: self.waiter.clone(), ..Source::new(self.broker.clone(), topic, resume) }
    }

    /// Has it stay at offsets that have left the log, until they were read elsewhere or are [skipped](Self::skip).
    pub(crate) fn keep_place(&mut self) {
        self.keeps_place = true;
    }

    /// Woken when any partition grows, and by `wake`.
    pub(crate) fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// Opens new partitions. Where the topic was deleted and made again, all are new, and nothing is remembered.
    pub(crate) fn follow_topic(&mut self) {
        let Some(topic) = self.broker.catalog().topic(&self.topic) else { return };
        let now_ms = self.broker.clock().now_ms();
        if topic.partitions().iter().any(|partition| self.was_another(partition)) {
            self.partitions.clear();
            self.resume.clear();
            self.moved.clear();
            self.replaced = true;
        }
        for partition in topic.partitions().iter() {
            let index = partition.index();
            if !self.partitions.contains_key(&index) {
                partition.watch(&self.waiter);
                let start = partition.log_start();
                let fresh = Position { log: partition.id(), next_offset: start, max_event_ms: None };
                let mut position = self.resume.remove(&index).unwrap_or(fresh);
                if position.next_offset < start && !self.keeps_place {
                    self.lost += start.abs_diff(position.next_offset);
                    position.next_offset = start;
                    self.moved.insert(index, position);
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

    /// Whether what is known under a partition's number is of another log.
    fn was_another(&self, partition: &Partition) -> bool {
        let reading = self.partitions.get(&partition.index()).map(|reading| reading.partition.id());
        let resumed = self.resume.get(&partition.index()).map(|position| position.log);
        reading.or(resumed).is_some_and(|log| log != partition.id())
    }

    /// Whether the topic is another one than before; then what was made of the former has to go.
    pub(crate) fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// What was made of the former topic is gone.
    pub(crate) fn begun_again(&mut self) {
        self.replaced = false;
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
                Err(_) if self.keeps_place && reading.is_behind() => {}
                Err(error) if error.kind == Kind::OffsetOutOfRange => {
                    // Records were deleted on request before they were read: that is counted, and reading goes on.
                    let start = reading.partition.log_start();
                    if start <= reading.read_offset {
                        return Err(error.into());
                    }
                    self.lost += start.abs_diff(reading.read_offset);
                    reading.read_offset = start;
                    reading.position.next_offset = start;
                    self.moved.insert(reading.partition.index(), reading.position);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The partitions whose next records have left the log, where their places are kept.
    pub(crate) fn behind(&self) -> Vec<Arc<Partition>> {
        let behind = self.partitions.values().filter(|reading| self.keeps_place && reading.is_behind());
        behind.map(|reading| reading.partition.clone()).collect()
    }

    /// The next offset of a partition and the one at which its log begins, if it has left the log.
    pub(crate) fn left(&self, index: PartitionIndex) -> Option<(Offset, Offset)> {
        let reading = self.partitions.get(&index).filter(|reading| reading.is_behind())?;
        Some((reading.position.next_offset, reading.partition.log_start()))
    }

    /// The largest event time that was read in a partition.
    pub(crate) fn event_time_at(&self, index: PartitionIndex) -> Option<i64> {
        self.partitions.get(&index).and_then(|reading| reading.position.max_event_ms)
    }

    /// Moves over offsets that are nowhere, in the next commit; gives how many they are.
    pub(crate) fn skip(&mut self, index: PartitionIndex, to: Offset) -> u64 {
        let Some(reading) = self.partitions.get_mut(&index) else { return 0 };
        let skipped = to.saturating_sub(reading.position.next_offset).max(0).unsigned_abs();
        reading.position.next_offset = reading.position.next_offset.max(to);
        reading.read_offset = reading.read_offset.max(to);
        self.moved.insert(index, reading.position);
        skipped
    }

    /// Offsets count as lost.
    pub(crate) fn lose(&mut self, offsets: u64) {
        self.lost += offsets;
    }

    /// The positions after rows up to these offsets were read elsewhere, with those that moved before.
    pub(crate) fn positions_at(
        &mut self,
        next: &BTreeMap<PartitionIndex, Offset>,
    ) -> BTreeMap<PartitionIndex, Position> {
        let mut after = std::mem::take(&mut self.moved);
        let now_ms = self.broker.clock().now_ms();
        for (index, next_offset) in next {
            if let Some(reading) = self.partitions.get_mut(index) {
                reading.last_read_ms = now_ms;
                after.insert(*index, Position { next_offset: *next_offset, ..reading.position });
            }
        }
        after
    }

    /// Decodes what is ahead, a batch of each partition in turn, up to the bounds of a step. Gives the positions after it.
    pub(crate) fn decode_step(&mut self, decoder: &mut dyn Decode) -> Result<BTreeMap<PartitionIndex, Position>> {
        let mut after: BTreeMap<PartitionIndex, Position> = std::mem::take(&mut self.moved);
        let indexes: Vec<PartitionIndex> = self.partitions.keys().copied().collect();
        let now_ms = self.broker.clock().now_ms();
        let mut empty_in_a_row = 0;
        while empty_in_a_row < indexes.len() && !decoder.is_full() {
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

    /// What is to be read behind these positions, where the log has more.
    pub(crate) fn onward(&self, after: &BTreeMap<PartitionIndex, Position>) -> Vec<Onward> {
        let onward = |(index, reading): (&PartitionIndex, &Reading)| {
            let from = after.get(index).unwrap_or(&reading.position).next_offset;
            let partition = reading.partition.clone();
            let is_there = from >= partition.log_start() && partition.last_stable_offset() > from;
            (is_there && !partition.is_deleted()).then(|| Onward {
                partition,
                from,
                ahead: reading.ahead.iter().cloned().collect(),
            })
        };
        self.partitions.iter().filter_map(onward).collect()
    }

    /// The positions after what was read onward, as if it had been decoded here. None, and nothing has changed, when it does not begin where
    /// this stands.
    pub(crate) fn take_onward(
        &mut self,
        begins: &[Onward],
        ends: &BTreeMap<PartitionIndex, Offset>,
    ) -> Option<BTreeMap<PartitionIndex, Position>> {
        let stands = |onward: &Onward| {
            let reading = self.partitions.get(&onward.partition.index())?;
            (reading.partition.id() == onward.partition.id()).then_some(reading.position.next_offset)
        };
        if !begins.iter().all(|onward| stands(onward) == Some(onward.from)) {
            return None;
        }
        for (index, end) in ends {
            let Some(reading) = self.partitions.get_mut(index) else { continue };
            while reading.ahead.pop_front_if(|batch| batch.next_offset() <= *end).is_some() {}
            if reading.ahead.is_empty() {
                reading.read_offset = *end;
            }
        }
        Some(self.positions_at(ends))
    }

    /// Takes positions as done, after their commit.
    pub(crate) fn committed(&mut self, positions: &BTreeMap<PartitionIndex, Position>) {
        for (index, position) in positions {
            if let Some(reading) = self.partitions.get_mut(index) {
                reading.position = *position;
                reading.read_offset = reading.read_offset.max(position.next_offset);
            }
        }
    }

    /// Whether a step has something to do: a batch is ahead, or a position has moved.
    pub(crate) fn has_work(&self) -> bool {
        !self.moved.is_empty() || self.partitions.values().any(|reading| !reading.ahead.is_empty())
    }

    /// Whether all that it has moved over is committed.
    pub(crate) fn is_settled(&self) -> bool {
        self.moved.is_empty()
    }

    /// The least event time that a partition with work stands at; None when there is nothing to do. One that was not read yet comes
    /// before all, and so does a position that has moved.
    pub(crate) fn least_time_ahead(&self) -> Option<i64> {
        let ahead = self.partitions.values().filter(|reading| !reading.ahead.is_empty());
        let times = ahead.map(|reading| reading.position.max_event_ms.unwrap_or(i64::MIN));
        times.chain((!self.moved.is_empty()).then_some(i64::MIN)).min()
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
