//! What a step writes to topics: rows to a derived stream, changed groups to `<view>`, late rows to `<view>.late`, refused records to
//! `<stream>.rejected`.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use broker::{Append, BatchBuilder, Broker, Change, LogId, Origin, Partition, RecordRef, TimestampMs};
use bytes::Bytes;

use crate::check::REJECTED_SUFFIX;
use crate::error::{EngineError, ErrorKind, Result};
use crate::finish::Finished;
use crate::json_lines::{json_lines, lines};
use crate::member::LateRow;
use crate::parse_emit::Emit;
use crate::stream::{META_COLUMNS, Rejected};
use crate::view::ViewPlan;

/// A batch is closed when it has reached this size.
const BATCH_BYTES: usize = 256 << 10;

/// Collects records for the partitions of one topic.
pub(crate) struct Outbox {
    partitions: Arc<[Arc<Partition>]>,
    builders: Vec<BatchBuilder>,
    appends: Vec<Change>,
}

type Headers<'a> = [(&'a [u8], Option<&'a [u8]>)];

impl Outbox {
    pub(crate) fn new(partitions: Arc<[Arc<Partition>]>) -> Outbox {
        let builders = partitions.iter().map(|_| BatchBuilder::new()).collect();
        Outbox { partitions, builders, appends: Vec::new() }
    }

    /// For a topic that is there.
    pub(crate) fn to(broker: &Broker, topic: &str) -> Result<Outbox> {
        match broker.catalog().topic(topic) {
            Some(topic) => Ok(Outbox::new(topic.partitions())),
            None => Err(EngineError::new(
                ErrorKind::Stopped,
                format!("topic {topic} was deleted while the engine writes it, start again to have it created"),
            )),
        }
    }

    /// Adds a record. Equal keys go to one partition, the same that Kafka's own clients choose.
    pub(crate) fn push(
        &mut self,
        now_ms: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &Headers<'_>,
    ) {
        if self.builders.is_empty() {
            return;
        }
        let at = key.map_or(0, |key| self.partition_of(key));
        self.push_at(at, now_ms, key, value, headers);
    }

    /// The partition that a key goes to, of those that are there.
    pub(crate) fn partition_of(&self, key: &[u8]) -> usize {
        match self.builders.len() {
            0 | 1 => 0,
            count => (murmur2(key) & 0x7fff_ffff) as usize % count,
        }
    }

    /// How many partitions there are.
    pub(crate) fn partitions(&self) -> usize {
        self.builders.len()
    }

    /// Adds a record to the partition of this number, or another one where the topic has fewer.
    pub(crate) fn push_beside(&mut self, index: i32, timestamp: TimestampMs, key: Option<&[u8]>, value: &[u8]) {
        if !self.builders.is_empty() {
            let at = usize::try_from(index).unwrap_or(0) % self.builders.len();
            self.push_at(at, timestamp, key, Some(value), &[]);
        }
    }

    /// Adds a record to the partition of this number, which is there.
    pub(crate) fn push_at(
        &mut self,
        at: usize,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &Headers<'_>,
    ) {
        self.builders[at].push(timestamp, key, value, headers);
        if self.builders[at].size() >= BATCH_BYTES {
            self.close(at);
        }
    }

    /// Closes the batch of a partition that would have more than so many bytes with these.
    pub(crate) fn make_room(&mut self, at: usize, bytes: usize, bytes_max: usize) {
        if self.builders[at].size() + bytes > bytes_max.min(BATCH_BYTES) {
            self.close(at);
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(batch) = std::mem::take(&mut self.builders[at]).build() {
            let partition = self.partitions[at].clone();
            self.appends.push(Change::Append(Append { partition, batch, origin: Origin::Internal }));
        }
    }

    /// The appends, in order.
    pub(crate) fn finish(mut self) -> Vec<Change> {
        for at in 0..self.builders.len() {
            self.close(at);
        }
        self.appends
    }
}

/// Changed groups, or final ones: key = JSON of window_start and the keys, value = JSON of the whole row. Of a changed group that
/// HAVING leaves out it is a tombstone; of a final one nothing was told before, so that nothing is.
pub(crate) fn push_groups(outbox: &mut Outbox, plan: &ViewPlan, groups: &Finished, now_ms: TimestampMs) -> Result<()> {
    let rows = &groups.rows;
    let (keys, values) = (group_keys(plan, rows)?, json_lines(rows)?);
    for (row, (key, value)) in lines(&keys).zip(lines(&values)).enumerate() {
        match groups.shown.value(row) {
            true => outbox.push(now_ms, Some(key), Some(value), &[]),
            false if plan.emit == Emit::Final => {}
            false => outbox.push(now_ms, Some(key), None, &[]),
        }
    }
    Ok(())
}

/// Groups that are gone: a tombstone each.
pub(crate) fn push_gone(outbox: &mut Outbox, plan: &ViewPlan, rows: &RecordBatch, now_ms: TimestampMs) -> Result<()> {
    let keys = group_keys(plan, rows)?;
    for key in lines(&keys) {
        outbox.push(now_ms, Some(key), None, &[]);
    }
    Ok(())
}

/// The keys of groups in the view's topic, one a line.
fn group_keys(plan: &ViewPlan, rows: &RecordBatch) -> Result<Vec<u8>> {
    let identity: Vec<usize> = match plan.windows {
        // window_end follows from window_start.
        Some(_) => [0].into_iter().chain(2..plan.identity_columns()).collect(),
        None => (0..plan.identity_columns()).collect(),
    };
    if identity.is_empty() { Ok(b"{}\n".repeat(rows.num_rows())) } else { json_lines(&rows.project(&identity)?) }
}

/// Groups that a view cannot finish: refused by their key. No record is at fault.
pub(crate) fn unfinished(
    plan: &ViewPlan,
    groups: &Finished,
    which: &[(usize, String)],
    now_ms: TimestampMs,
) -> Result<Vec<Rejected>> {
    let keys = group_keys(plan, &groups.rows)?;
    let keys: Vec<&[u8]> = lines(&keys).collect();
    let refuse = |(row, reason): &(usize, String)| Rejected {
        partition: -1,
        offset: -1,
        records: 0,
        rule: format!("view:{}", plan.name).into(),
        reason: format!("the group is not shown until it can be computed: {reason}"),
        key: Some(Bytes::copy_from_slice(keys[*row])),
        value: None,
        timestamp: now_ms,
        headers: Vec::new(),
    };
    Ok(which.iter().map(refuse).collect())
}

/// Rows of a derived stream: value = JSON of the row, timestamp = that of the source's record. With a key column the key is
/// its text; without one the record keeps the key and the partition of the record it comes from.
pub(crate) fn push_rows(
    outbox: &mut Outbox,
    (rows, key): (&RecordBatch, Option<usize>),
    (source, origin): (&RecordBatch, &[usize]),
    now_ms: TimestampMs,
) -> Result<()> {
    let place = |name: &str| source.column_by_name(name).ok_or_else(|| EngineError::bug(format!("no column {name}")));
    let keys = place(META_COLUMNS[0])?.as_binary::<i32>();
    let timestamps = place(META_COLUMNS[1])?.as_primitive::<TimestampMillisecondType>();
    let partitions = place(META_COLUMNS[2])?.as_primitive::<Int32Type>();
    let options = FormatOptions::default();
    let text = key.map(|key| ArrayFormatter::try_new(rows.column(key), &options)).transpose()?;
    let values = json_lines(rows)?;
    for ((at, row), value) in origin.iter().enumerate().zip(lines(&values)) {
        let timestamp = if timestamps.is_valid(*row) { timestamps.value(*row) } else { now_ms };
        let own = match (&text, key) {
            (Some(text), Some(key)) => rows.column(key).is_valid(at).then(|| text.value(at).to_string()),
            _ => None,
        };
        match own {
            Some(own) => outbox.push(timestamp, Some(own.as_bytes()), Some(value), &[]),
            None => {
                let kept = (key.is_none() && keys.is_valid(*row)).then(|| keys.value(*row));
                outbox.push_beside(partitions.value(*row), timestamp, kept, value);
            }
        }
    }
    Ok(())
}

/// The header with the number of the state in which a row does not count: a view that is computed anew has another.
pub(crate) const STATE_HEADER: &str = "view_id";
/// The header with the number of the log that a row stands in: a topic that is made again has others.
pub(crate) const LOG_HEADER: &str = "log_id";

/// In which state, and of which log, a row does not count.
pub(crate) fn state_headers(view_id: u32, log: Option<LogId>) -> Vec<(Bytes, Option<Bytes>)> {
    let header = |name: &'static str, number: u32| {
        (Bytes::from_static(name.as_bytes()), Some(Bytes::from(number.to_string().into_bytes())))
    };
    std::iter::once(header(STATE_HEADER, view_id)).chain(log.map(|log| header(LOG_HEADER, log.0))).collect()
}

/// Of which view and log a row is late.
pub(crate) struct LateOf<'a> {
    pub(crate) plan: &'a ViewPlan,
    pub(crate) view_id: u32,
    pub(crate) log: Option<LogId>,
    pub(crate) partition: i32,
}

/// A late row: the record as it was written, and headers that say where it stands, which window it missed, and from which
/// one on it counts all the same, if it does.
pub(crate) fn push_late(
    outbox: &mut Outbox,
    of: &LateOf<'_>,
    record: &RecordRef<'_>,
    late: &LateRow,
    now_ms: TimestampMs,
) -> Result<()> {
    let partition = of.partition.to_string();
    let state = state_headers(of.view_id, of.log);
    let offset = record.offset.to_string();
    let window = late.window_start.to_string();
    let counted_from = late.counted_from.map(|start| start.to_string());
    // Headers that cannot be read were accepted with the batch; the record is handed on without them.
    let mut headers = record.headers().unwrap_or_default();
    let ours: [(&[u8], &[u8]); 4] = [
        (b"partition", partition.as_bytes()),
        (b"offset", offset.as_bytes()),
        (b"view", of.plan.name.as_bytes()),
        (b"window_start", window.as_bytes()),
    ];
    headers.extend(ours.map(|(name, value)| (name, Some(value))));
    headers.extend(state.iter().map(|(name, value)| (name.as_ref(), value.as_deref())));
    headers.extend(counted_from.iter().map(|start| (&b"counted_from"[..], Some(start.as_bytes()))));
    outbox.push(now_ms, record.key, record.value, &headers);
    Ok(())
}

/// A row that came too late to be joined: the record as it was written, and headers that say in which stream and where it stands.
pub(crate) fn push_unjoined(
    outbox: &mut Outbox,
    (stream, partition, log): (&str, i32, Option<LogId>),
    record: &RecordRef<'_>,
    now_ms: TimestampMs,
) {
    let (partition, offset) = (partition.to_string(), record.offset.to_string());
    let log = log.map(|log| log.0.to_string());
    // Headers that cannot be read were accepted with the batch; the record is handed on without them.
    let mut headers = record.headers().unwrap_or_default();
    let ours: [(&[u8], &[u8]); 3] =
        [(b"partition", partition.as_bytes()), (b"offset", offset.as_bytes()), (b"stream", stream.as_bytes())];
    headers.extend(ours.map(|(name, value)| (name, Some(value))));
    headers.extend(log.iter().map(|log| (LOG_HEADER.as_bytes(), Some(log.as_bytes()))));
    outbox.push(now_ms, record.key, record.value, &headers);
}

/// A refused record: as it was written, and headers that say which rule it broke, why, and where it stands.
fn push_rejected(outbox: &mut Outbox, rejected: &Rejected, now_ms: TimestampMs) {
    let partition = rejected.partition.to_string();
    let offset = rejected.offset.to_string();
    let records = rejected.records.to_string();
    let mut headers: Vec<(&[u8], Option<&[u8]>)> =
        rejected.headers.iter().map(|(name, value)| (name.as_ref(), value.as_deref())).collect();
    let ours: [(&[u8], &[u8]); 5] = [
        (b"rule", rejected.rule.as_bytes()),
        (b"reason", rejected.reason.as_bytes()),
        (b"partition", partition.as_bytes()),
        (b"offset", offset.as_bytes()),
        (b"records", records.as_bytes()),
    ];
    headers.extend(ours.map(|(name, value)| (name, Some(value))));
    outbox.push(now_ms, rejected.key.as_deref(), rejected.value.as_deref(), &headers);
}

/// What writes refused records to `<stream>.rejected`; nothing where there are none.
pub(crate) fn refused_changes(
    broker: &Broker,
    stream: &str,
    refused: &[Rejected],
    now_ms: TimestampMs,
) -> Result<Vec<Change>> {
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let mut outbox = Outbox::to(broker, &format!("{stream}{REJECTED_SUFFIX}"))?;
    refused.iter().for_each(|rejected| push_rejected(&mut outbox, rejected, now_ms));
    Ok(outbox.finish())
}

/// The hash by which Kafka's Java client chooses a partition (MurmurHash2, 32 bits, seed 0x9747b28c).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mix = |word: u32| {
        let word = word.wrapping_mul(M);
        (word ^ (word >> 24)).wrapping_mul(M)
    };
    let mut hash = 0x9747_b28c_u32 ^ (data.len() as u32);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0_u32, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Kafka's own UtilsTest.
    #[test]
    fn murmur2_as_in_kafka() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (data, expected) in cases {
            assert_eq!(murmur2(data).cast_signed(), expected);
        }
    }
}
