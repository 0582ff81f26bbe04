//! One pass of a Fetch over its partitions: what memory has is taken at once, and where the store must be asked, one thread that may
//! block reads on for all partitions that follow. Nobody waits in a pass but for memory, the store and the cold log.

use std::sync::Arc;

use kafka_protocol::messages::fetch_request::FetchPartition;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Context;
use super::fetch::{Asked, AskedPartition, Limits};
use super::fetch_answer::Given;
use super::positions::fence;
use crate::Broker;
use crate::batch::Batch;
use crate::error::{Error, Kind, Result};
use crate::log::{Partition, blocking};
use crate::types::{LeaderEpoch, Offset};

/// What one pass over all partitions gave.
pub(super) struct Pass {
    /// One entry per partition of the request, in its order.
    pub(super) given: Vec<Given>,
    /// What the records take of the memory for replies.
    pub(super) share: OwnedSemaphorePermit,
    /// Whether it is to be sent at once.
    pub(super) enough: bool,
}

impl Pass {
    /// Reads all partitions. Where there is no memory until the deadline, it gives their positions alone.
    pub(super) async fn over(
        context: &Context,
        asked: &Arc<Vec<Asked>>,
        (limits, deadline): (&Limits, Instant),
    ) -> Pass {
        let mut share = context.reply_memory.some(limits.bytes, deadline).await;
        let bytes_max = limits.bytes.min(share.num_permits());
        let mut tally = Tally {
            bytes_max,
            has_memory: share.num_permits() > 0,
            committed_only: limits.committed_only,
            total: 0,
            failed: asked.is_empty(),
        };
        let given = read(&context.broker, asked, &mut tally).await;
        let Tally { total, failed, .. } = tally;
        if let Some(unused) = share.num_permits().checked_sub(total) {
            drop(share.split(unused));
        }
        Pass { given, share, enough: failed || total >= limits.least.min(bytes_max) }
    }

    /// Whether a partition has other positions than it gave, so that it may give more.
    pub(super) fn has_news(&self, asked: &[Asked]) -> bool {
        partitions(asked).zip(&self.given).any(|(one, given)| {
            one.partition.as_ref().is_ok_and(|partition| {
                partition.last_stable_offset() != given.last_stable
                    || partition.high_watermark() != given.high_watermark
                    || partition.is_deleted()
            })
        })
    }
}

/// All partitions of a request, in its order.
pub(super) fn partitions(asked: &[Asked]) -> impl Iterator<Item = &AskedPartition> {
    asked.iter().flat_map(|topic| &topic.partitions)
}

async fn read(broker: &Broker, asked: &Arc<Vec<Asked>>, tally: &mut Tally) -> Vec<Given> {
    let mut given: Vec<Given> = Vec::with_capacity(partitions(asked).count());
    loop {
        given.extend(tally.read(asked, given.len(), Source::Memory));
        let Some(next) = partitions(asked).nth(given.len()) else { return given };
        if next.partition.as_ref().is_ok_and(|partition| partition.lies_cold(next.asked.fetch_offset)) {
            let one = give_cold(next, tally.turn(), broker).await;
            tally.count(&one);
            given.push(one);
            continue;
        }
        let (asked, from, mut ahead) = (asked.clone(), given.len(), *tally);
        match blocking(move || Ok((ahead.read(&asked, from, Source::Store), ahead))).await {
            Ok((more, after)) => {
                given.extend(more);
                *tally = after;
            }
            Err(error) => {
                let one = Given::refused(&error);
                tally.count(&one);
                given.push(one);
            }
        }
    }
}

/// Where records are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// In memory only: never blocks.
    Memory,
    /// In memory and in the store.
    Store,
}

/// How far a pass is.
#[derive(Clone, Copy)]
struct Tally {
    bytes_max: usize,
    has_memory: bool,
    committed_only: bool,
    /// Bytes of records so far.
    total: usize,
    /// Whether something was given that is to be told at once.
    failed: bool,
}

/// What one partition may give: at most `bytes_left`, but at least one batch if `first`.
#[derive(Clone, Copy)]
struct Turn {
    bytes_left: usize,
    first: bool,
    committed_only: bool,
}

impl Tally {
    /// Reads the partitions from this one on, up to one for which the source is not enough.
    fn read(&mut self, asked: &[Asked], from: usize, source: Source) -> Vec<Given> {
        let mut given = Vec::new();
        for one in partitions(asked).skip(from) {
            let Some(one) = give(one, self.turn(), source) else { break };
            self.count(&one);
            given.push(one);
        }
        given
    }

    fn turn(&self) -> Turn {
        Turn {
            bytes_left: self.bytes_max.saturating_sub(self.total),
            first: self.total == 0 && self.has_memory,
            committed_only: self.committed_only,
        }
    }

    fn count(&mut self, one: &Given) {
        self.total += one.batches.iter().map(|batch| batch.bytes().len()).sum::<usize>();
        self.failed |= one.code != 0 || one.diverging.is_some();
    }
}

/// What a partition gives; none when the source does not have it.
fn give(asked: &AskedPartition, turn: Turn, source: Source) -> Option<Given> {
    let partition = match &asked.partition {
        Ok(partition) => partition,
        Err(error) => return Some(Given::refused(error)),
    };
    let given = try_give(&asked.asked, partition, turn, source);
    given.unwrap_or_else(|error| Some(refused(partition, &error)))
}

fn refused(partition: &Partition, error: &Error) -> Given {
    let leader_epoch = (error.kind == Kind::FencedLeaderEpoch).then(|| partition.leader_epoch());
    Given { leader_epoch, ..Given::refused(error) }
}

fn try_give(asked: &FetchPartition, partition: &Partition, turn: Turn, source: Source) -> Result<Option<Given>> {
    let (mut given, wanted) = positions(asked, partition, turn)?;
    if let Some(Wanted { range, limit }) = wanted {
        let read = match source {
            Source::Memory => partition.read_memory(range, limit),
            Source::Store => partition.read_anywhere(range, limit).map(Some),
        };
        match read {
            Ok(Some(batches)) => given.batches = fitting(batches, turn, limit),
            Ok(None) => return Ok(None),
            Err(error) if error.kind == Kind::OffsetOutOfRange && partition.lies_cold(range.0) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    if turn.committed_only {
        let end = given.batches.last().map_or(asked.fetch_offset, Batch::next_offset);
        if source == Source::Memory && !partition.has_none_aborted(asked.fetch_offset) {
            return Ok(None);
        }
        given.aborted = Some(partition.read_aborted(asked.fetch_offset, end)?);
    }
    Ok(Some(given))
}

async fn give_cold(asked: &AskedPartition, turn: Turn, broker: &Broker) -> Given {
    let partition = match &asked.partition {
        Ok(partition) => partition,
        Err(error) => return Given::refused(error),
    };
    let given = try_give_cold(&asked.asked, partition, turn, broker).await;
    given.unwrap_or_else(|error| refused(partition, &error))
}

async fn try_give_cold(
    asked: &FetchPartition,
    partition: &Arc<Partition>,
    turn: Turn,
    broker: &Broker,
) -> Result<Given> {
    let (mut given, wanted) = positions(asked, partition, turn)?;
    let mut cold = false;
    if let Some(Wanted { range, limit }) = wanted {
        let (batches, was_cold) = broker.catalog().cold().read(partition, range, limit).await?;
        (given.batches, cold) = (fitting(batches, turn, limit), was_cold);
    }
    if turn.committed_only {
        let end = given.batches.last().map_or(asked.fetch_offset, Batch::next_offset);
        // what is cold was committed
        let aborted = if cold { Vec::new() } else { partition.aborted_between(asked.fetch_offset, end).await? };
        given.aborted = Some(aborted);
    }
    Ok(given)
}

/// What is to be read of a partition.
struct Wanted {
    range: (Offset, Offset),
    limit: usize,
}

/// Where a partition is, and what of it is to be read with that; no more than lies below these positions.
fn positions(asked: &FetchPartition, partition: &Partition, turn: Turn) -> Result<(Given, Option<Wanted>)> {
    if partition.is_deleted() {
        return Err(Error::new(Kind::UnknownTopicOrPartition, "the topic was deleted"));
    }
    fence(partition, asked.current_leader_epoch.max(-1))?; // less than none is none, here
    let given = Given {
        diverging: diverging(asked, partition)?,
        // in this order: the stable offset is not above the other
        last_stable: partition.last_stable_offset(),
        high_watermark: partition.high_watermark(),
        log_start: partition.earliest(),
        ..Given::default()
    };
    let limit = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(turn.bytes_left);
    let end = if turn.committed_only { given.last_stable } else { given.high_watermark };
    let is_read = given.diverging.is_none() && (turn.first || limit > 0);
    let wanted = is_read.then_some(Wanted { range: (asked.fetch_offset, end), limit });
    Ok((given, wanted))
}

/// The batches, if they may be given: only the first of an answer may be larger than the limit.
fn fitting(batches: Vec<Batch>, turn: Turn, limit: usize) -> Vec<Batch> {
    let is_over = batches.first().is_some_and(|batch| batch.bytes().len() > limit);
    if is_over && !turn.first { Vec::new() } else { batches }
}

/// Where the client's log and ours part, if the epoch of its last record says that they do.
fn diverging(asked: &FetchPartition, partition: &Partition) -> Result<Option<(LeaderEpoch, Offset)>> {
    if asked.last_fetched_epoch < 0 {
        return Ok(None);
    }
    let (epoch, end) = partition.end_offset_for_epoch(asked.last_fetched_epoch);
    if epoch < 0 || end < 0 {
        let message = format!("the last fetched epoch {} is not known", asked.last_fetched_epoch);
        return Err(Error::new(Kind::OffsetOutOfRange, message));
    }
    let parts = epoch < asked.last_fetched_epoch || end < asked.fetch_offset;
    Ok(parts.then_some((epoch, end)))
}
