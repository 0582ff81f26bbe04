//! What becomes of one batch when its log is compacted: pure, from the batch, what it is, and the newest offsets of the keys.
//!
//! - A record stays when the pass knows no newer one of its key. Records beyond what the pass knows stay as they are; those
//!   without a key, from before the topic was compacted, go, and so does what lies before the log's start.
//! - A tombstone that is the newest of its key gives its batch a delete horizon (`delete.retention.ms` from now); once that
//!   is over it goes (KIP-534). A marker of a transaction without batches does the same.
//! - Offsets never change: base offset and last offset of a batch stay, whatever goes between them.
//! - A batch that lost all records goes, unless it holds a producer's last sequence number: then it stays, empty.

use bytes::Bytes;

use super::key_map::KeyMap;
use super::transactions::Standing;
use crate::batch::{Batch, NewRecords};
use crate::builder::{put_nullable, put_varlong};
use crate::codec::Compression;
use crate::error::Result;
use crate::records::RecordRef;
use crate::types::{Offset, TimestampMs};

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays as it is.
    Stays,
    /// This takes its place.
    Becomes(Batch),
    /// It goes.
    Goes,
}

/// What a pass judges by.
pub(crate) struct Judge<'a> {
    /// Where the log begins: what lies before it was deleted.
    pub(crate) log_start: Offset,
    /// The newest offsets.
    pub(crate) newest: &'a KeyMap,
    /// The broker's clock when the pass began.
    pub(crate) now: TimestampMs,
    /// `delete.retention.ms`.
    pub(crate) delete_retention_ms: i64,
}

impl Judge<'_> {
    /// Judges a batch; `last_of_producer` says that it holds the last sequence number of its producer.
    ///
    /// # Errors
    /// `CorruptMessage` when its records cannot be read.
    pub(crate) fn judge(&self, batch: &Batch, standing: Standing, last_of_producer: bool) -> Result<Fate> {
        let horizon_passed = batch.delete_horizon().is_some_and(|horizon| horizon <= self.now);
        match standing {
            Standing::Marker => return Ok(Fate::Stays),
            Standing::IdleMarker if !horizon_passed => return self.with_horizon(batch),
            Standing::Aborted | Standing::IdleMarker => return Ok(emptied(batch, last_of_producer)),
            Standing::Data => {}
        }
        let mut any_tombstone = false;
        let mut stays = Vec::new();
        let mut records = batch.records()?;
        while let Some(record) = records.next_ref() {
            let record = record?;
            let one = self.stays(&record, horizon_passed);
            any_tombstone |= one && record.value.is_none();
            stays.push(one);
        }
        if !stays.contains(&true) {
            return Ok(emptied(batch, last_of_producer));
        }
        let sets_horizon = any_tombstone && batch.delete_horizon().is_none();
        if !stays.contains(&false) && !sets_horizon {
            return Ok(Fate::Stays);
        }
        folded(batch, sets_horizon.then(|| self.horizon()), &stays).map(Fate::Becomes)
    }

    fn stays(&self, record: &RecordRef<'_>, horizon_passed: bool) -> bool {
        if record.offset >= self.newest.end() || record.offset < self.log_start {
            return record.offset >= self.log_start;
        }
        let Some(key) = record.key else { return false };
        !self.newest.is_superseded(key, record.offset) && (record.value.is_some() || !horizon_passed)
    }

    fn with_horizon(&self, batch: &Batch) -> Result<Fate> {
        if batch.delete_horizon().is_some() {
            return Ok(Fate::Stays);
        }
        let all = vec![true; usize::try_from(batch.record_count()).unwrap_or(0)];
        folded(batch, Some(self.horizon()), &all).map(Fate::Becomes)
    }

    fn horizon(&self) -> TimestampMs {
        self.now.saturating_add(self.delete_retention_ms)
    }
}

fn emptied(batch: &Batch, last_of_producer: bool) -> Fate {
    if !last_of_producer {
        return Fate::Goes;
    }
    if batch.record_count() == 0 {
        return Fate::Stays;
    }
    let empty = NewRecords {
        codec: Compression::None,
        records: Bytes::new(),
        count: 0,
        max_timestamp: batch.max_timestamp(),
        append_time: batch.is_log_append_time(),
        horizon: None,
    };
    Fate::Becomes(batch.with_records(&empty))
}

/// The batch with those of its records that stay, folded with its own codec.
fn folded(batch: &Batch, horizon: Option<TimestampMs>, stays: &[bool]) -> Result<Batch> {
    let base_timestamp = horizon.unwrap_or_else(|| batch.base_timestamp());
    let mut records = batch.records()?;
    let mut stays = stays.iter();
    let (mut section, mut body) = (Vec::with_capacity(batch.bytes().len()), Vec::new());
    let (mut count, mut newest) = (0, -1);
    while let (Some(record), Some(stays)) = (records.next_ref(), stays.next()) {
        let record = record?;
        if !stays {
            continue;
        }
        count += 1;
        newest = newest.max(record.timestamp);
        body.clear();
        body.push(0);
        put_varlong(&mut body, record.timestamp.wrapping_sub(base_timestamp));
        put_varlong(&mut body, record.offset - batch.base_offset());
        put_nullable(&mut body, record.key);
        put_nullable(&mut body, record.value);
        body.extend_from_slice(record.stored_headers());
        put_varlong(&mut section, body.len() as i64);
        section.extend_from_slice(&body);
    }
    let codec = batch.compression();
    let append_time = batch.is_log_append_time();
    let max_timestamp = if append_time { batch.max_timestamp() } else { newest };
    let records = codec.compress(section.into(), None)?;
    Ok(batch.with_records(&NewRecords { codec, records, count, max_timestamp, append_time, horizon }))
}
