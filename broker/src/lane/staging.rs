//! What the changes of a partition write into the store's batch, and what becomes visible with it. No change fails here: what can
//! be refused was refused before.

use std::iter::Peekable;
use std::sync::Arc;
use std::vec;

use super::{Append, Appended, Effect, Origin, Submission, WRITE_BYTES_MAX};
use crate::error::Result;
use crate::log::keys::{self, IndexEntry};
use crate::log::producers::{Kept, ProducerState};
use crate::log::segment::{Incoming, Segment};
use crate::log::{Partition, aborted, open};
use crate::store::{Family, Writes};
use crate::types::{Offset, TimestampMs};

/// The commits that are written next, and their bytes.
pub(super) fn next_part(rest: &mut Peekable<vec::IntoIter<Submission>>) -> Option<(Vec<Submission>, usize)> {
    let first = rest.next()?;
    let mut bytes = first.bytes;
    let mut part = vec![first];
    while let Some(next) = rest.next_if(|next| bytes + next.bytes <= WRITE_BYTES_MAX) {
        bytes += next.bytes;
        part.push(next);
    }
    Some((part, bytes))
}

pub(super) fn duplicate(append: &Append, kept: &Kept) -> Appended {
    let append_time = append.partition.config().is_log_append_time();
    Appended {
        base_offset: kept.base_offset,
        log_append_time: if append_time { kept.appended_at } else { -1 },
        log_start: append.partition.earliest(),
        duplicate: true,
    }
}

pub(super) fn stage_append(
    append: Append,
    now: TimestampMs,
    writes: &mut Writes<'_>,
    effects: &mut Vec<Effect>,
) -> Appended {
    let Append { partition, batch, origin } = append;
    let config = partition.config();
    let append_time = config.is_log_append_time().then_some(now);
    let mut writer = partition.writer.lock();
    let base_offset = writer.next_offset;
    let batch = batch.placed(base_offset, partition.leader_epoch(), append_time);
    writer.next_offset = batch.next_offset();
    let incoming = Incoming {
        base: base_offset,
        last: batch.last_offset(),
        bytes: batch.bytes().len() as i64,
        max_timestamp: batch.max_timestamp(),
        now,
    };
    let running_bytes = writer.running_bytes;
    let stays = writer.segment.filter(|one| !one.is_sealed_by(&incoming, running_bytes, &config, partition.id()));
    if stays.is_none() {
        let segment = Segment::begin(&incoming, running_bytes);
        writes.put(Family::Meta, &keys::segment_key(partition.id()), &segment.encode());
        writer.segment = Some(segment);
    }
    // records without a time age from their append, as Kafka's do from the file's
    let aged_from = if batch.max_timestamp() < 0 { now } else { batch.max_timestamp() };
    writer.running_timestamp = writer.running_timestamp.max(aged_from);
    writer.running_bytes += incoming.bytes;
    let buckets = partition.store().buckets();
    let family = if config.compacts() { Family::Compacted } else { buckets.active() };
    let entry = IndexEntry {
        max_timestamp: batch.max_timestamp(),
        running_timestamp: writer.running_timestamp,
        running_bytes: writer.running_bytes,
        size: u32::try_from(batch.bytes().len()).expect("a frame is far below 4 GiB"),
        last_offset_delta: batch.last_offset_delta(),
        leader_epoch: partition.leader_epoch(),
        attributes: 0,
        appended_at: now,
        bucket: 0,
    };
    let entry = entry.placed(family, batch.attributes());
    let key = keys::batch_key(partition.id(), base_offset);
    writes.put(family, &key, batch.bytes());
    writes.put(Family::Index, &key, &entry.encode());
    if family != Family::Compacted {
        buckets.appended(batch.bytes().len() as u64);
    }
    if origin != Origin::Internal && batch.producer_id() >= 0 {
        let known = writer.producers.get(&batch.producer_id());
        let state = match origin {
            Origin::Marker(marker) => ProducerState::after_marker(known, &batch, marker.coordinator_epoch, now),
            _ => ProducerState::after(known, &batch, base_offset, now),
        };
        writes.put(Family::Producers, &keys::producer_key(partition.id(), batch.producer_id()), &state.encode());
        writer.producers.insert(batch.producer_id(), state);
    }
    let stability = writer.open.follow(partition.id(), &batch, origin, writes);
    drop(writer);
    let log_start = partition.earliest();
    effects.push(Effect::Appended(partition, batch, entry, stability));
    Appended { base_offset, log_append_time: append_time.unwrap_or(-1), log_start, duplicate: false }
}

pub(super) fn stage_log_start(
    partition: Arc<Partition>,
    offset: Offset,
    writes: &mut Writes<'_>,
    effects: &mut Vec<Effect>,
) -> Result<()> {
    // not the published one: an earlier change of this group may have moved it further
    if offset <= partition.writer.lock().log_start || partition.is_deleted() {
        return Ok(());
    }
    // the batch that contains the offset stays, clients skip what lies before it
    let keep = partition.entries(offset).next().transpose()?.map_or(offset, |(base, _)| base);
    // what lies in buckets goes with them, and before it nothing lies in `log`, unless it is moved there just now
    let first = partition.entries(partition.log_start()).next().transpose()?;
    let is_in_bucket = first.is_some_and(|(_, entry)| entry.family().is_bucket());
    let lies_in_log = !is_in_bucket || partition.writer.lock().has_moved;
    partition.writer.lock().log_start = offset;
    writes.put(Family::Meta, &keys::log_start_key(partition.id()), &offset.to_be_bytes());
    let (from, _) = keys::log_range(partition.id());
    let to = keys::batch_key(partition.id(), keep);
    for family in [Family::Log, Family::Compacted, Family::Index] {
        if family != Family::Log || lies_in_log {
            writes.delete_range(family, &from, &to);
        }
    }
    writes.delete_range(Family::Txns, &aborted::range(partition.id()).0, &aborted::key(partition.id(), offset));
    effects.push(Effect::Started(partition, offset, keep));
    Ok(())
}

pub(super) fn stage_earliest(
    partition: Arc<Partition>,
    offset: Offset,
    writes: &mut Writes<'_>,
    effects: &mut Vec<Effect>,
) -> Result<()> {
    if !partition.is_deleted() && offset > partition.writer.lock().floor {
        partition.writer.lock().floor = offset;
        writes.put(Family::Meta, &keys::floor_key(partition.id()), &offset.to_be_bytes());
        effects.push(Effect::Floor(partition.clone(), offset));
    }
    stage_log_start(partition, offset, writes, effects)
}

pub(super) fn stage_drop(partition: &Partition, writes: &mut Writes<'_>) {
    let (from, to) = keys::log_range(partition.id());
    for family in keys::BY_LOG {
        writes.delete_range(family, &from, &to);
    }
    for (from, to) in [aborted::range(partition.id()), open::range(partition.id())] {
        writes.delete_range(Family::Txns, &from, &to);
    }
    for prefix in keys::ONE_PER_LOG {
        writes.delete(Family::Meta, &keys::of_log(prefix, partition.id()));
    }
    let (from, to) = keys::epoch_range(partition.id());
    writes.delete_range(Family::Meta, &from, &to);
}
