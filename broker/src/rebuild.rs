//! Records that left the log → record batches again, as clients fetch them: every record has its own offset, and the batches
//! leave no offset out, so that whoever reads them moves over what is not there any more. They are not compressed and name no
//! producer.

use bytes::{BufMut, BytesMut};

use crate::batch::{BATCH_HEADER_BYTES, Batch, BatchHeader, LOG_APPEND_TIME};
use crate::builder::{put_nullable, put_varlong};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// Bytes of records after which a batch ends, if the reader takes several.
const BATCH_BYTES: usize = 1 << 20;

/// A part of the cold log that a reader wants.
#[derive(Clone, Copy, Debug)]
pub struct ColdRead {
    /// Its first offset.
    pub from: Offset,
    /// The offset behind its last.
    pub end: Offset,
    /// The leader epoch of all of it.
    pub epoch: LeaderEpoch,
    /// Most bytes of batches; one record at least.
    pub bytes_max: usize,
}

/// A record that left the log, lent.
#[derive(Clone, Copy, Debug)]
pub struct ColdRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its time.
    pub timestamp: TimestampMs,
    /// Whether that is the broker's, not the client's.
    pub append_time: bool,
    /// Its key, absent when null.
    pub key: Option<&'a [u8]>,
    /// Its value, absent when null.
    pub value: Option<&'a [u8]>,
    /// Its headers as they are stored in a record, their count first.
    pub headers: &'a [u8],
}

/// Puts batches together. Holds: the finished ones and the one that records go to. Always true: each begins at its first
/// record and reaches up to the next one.
#[derive(Debug)]
pub struct Rebuild {
    wanted: ColdRead,
    batches: Vec<Batch>,
    bytes: usize,
    open: Option<Open>,
    /// The first record that was not taken.
    stopped_at: Option<Offset>,
}

#[derive(Debug)]
struct Open {
    base: Offset,
    count: i32,
    append_time: bool,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    records: BytesMut,
}

impl Rebuild {
    /// Of what is wanted, nothing yet.
    pub fn new(wanted: ColdRead) -> Self {
        Self { wanted, batches: Vec::new(), bytes: 0, open: None, stopped_at: None }
    }

    /// Takes the next record, in the order of offsets; passes over one before what is wanted. Whether more can be taken.
    pub fn offer(&mut self, record: &ColdRecord<'_>) -> bool {
        if record.offset < self.wanted.from {
            return true;
        }
        let ends = self.open.as_ref().is_some_and(|open| !open.goes_on_with(record));
        let (base, base_timestamp) = match &self.open {
            Some(open) if !ends => (open.base, open.base_timestamp),
            _ => (record.offset, record.timestamp),
        };
        let encoded = encode(record, record.offset - base, record.timestamp.wrapping_sub(base_timestamp));
        let header = if ends || self.open.is_none() { BATCH_HEADER_BYTES } else { 0 };
        let bytes = self.bytes + header + encoded.len();
        if record.offset >= self.wanted.end || (bytes > self.wanted.bytes_max && self.bytes > 0) {
            self.stopped_at = Some(record.offset);
            return false;
        }
        if ends {
            self.close(record.offset);
        }
        self.open.get_or_insert_with(|| Open::at(record)).push(record, &encoded);
        self.bytes = bytes;
        true
    }

    /// The batches, which leave no offset out below `covered`, or the record that was not taken.
    pub fn finish(mut self, covered: Offset) -> Vec<Batch> {
        let next = self.stopped_at.unwrap_or(covered).min(self.wanted.end);
        self.close(next);
        if self.batches.is_empty() {
            let nothing = ColdRecord {
                offset: self.wanted.from,
                timestamp: -1,
                append_time: false,
                key: None,
                value: None,
                headers: &[],
            };
            self.batches.push(Open::at(&nothing).build(self.wanted.epoch, next));
        }
        self.batches
    }

    fn close(&mut self, next: Offset) {
        if let Some(open) = self.open.take() {
            self.batches.push(open.build(self.wanted.epoch, next));
        }
    }
}

impl Open {
    fn at(record: &ColdRecord<'_>) -> Self {
        Self {
            base: record.offset,
            count: 0,
            append_time: record.append_time,
            base_timestamp: record.timestamp,
            max_timestamp: record.timestamp,
            records: BytesMut::new(),
        }
    }

    /// Whether a record can be of the same batch: with the broker's time all have one.
    fn goes_on_with(&self, record: &ColdRecord<'_>) -> bool {
        self.records.len() < BATCH_BYTES
            && self.append_time == record.append_time
            && (!self.append_time || self.max_timestamp == record.timestamp)
            && i32::try_from(record.offset - self.base).is_ok()
    }

    fn push(&mut self, record: &ColdRecord<'_>, encoded: &[u8]) {
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.records.put_slice(encoded);
    }

    /// The batch, which has the offsets up to `next`, or as many of them as a batch can have.
    fn build(self, epoch: LeaderEpoch, next: Offset) -> Batch {
        let last = (next - 1 - self.base).clamp(0, i32::MAX.into());
        let header = BatchHeader {
            base_offset: self.base,
            epoch,
            attributes: if self.append_time { LOG_APPEND_TIME } else { 0 },
            last_offset_delta: i32::try_from(last).expect("it was brought into the range"),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer: BatchHeader::NO_PRODUCER,
            count: self.count,
        };
        header.before(&self.records)
    }
}

fn encode(record: &ColdRecord<'_>, offset_delta: i64, timestamp_delta: i64) -> Vec<u8> {
    let size = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let mut body = Vec::with_capacity(32 + size(record.key) + size(record.value) + record.headers.len());
    body.push(0);
    put_varlong(&mut body, timestamp_delta);
    put_varlong(&mut body, offset_delta);
    put_nullable(&mut body, record.key);
    put_nullable(&mut body, record.value);
    body.extend_from_slice(record.headers);
    let mut encoded = Vec::with_capacity(body.len() + 5);
    put_varlong(&mut encoded, body.len() as i64);
    encoded.extend_from_slice(&body);
    encoded
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;
    use crate::Record;

    const ALL: ColdRead = ColdRead { from: 5, end: 1_000, epoch: 3, bytes_max: usize::MAX };

    fn record(offset: Offset, timestamp: TimestampMs, value: &[u8]) -> ColdRecord<'_> {
        // one header, "h" without a value
        let headers = &[2, 2, b'h', 1];
        ColdRecord { offset, timestamp, append_time: false, key: None, value: Some(value), headers }
    }

    fn read(batches: &[Batch]) -> Vec<Record> {
        batches.iter().flat_map(|batch| batch.records().unwrap()).map(|record| record.unwrap()).collect()
    }

    #[test]
    fn records_come_back_at_their_offsets_and_no_offset_is_left_out() {
        let mut rebuild = Rebuild::new(ALL);
        for (offset, timestamp) in [(4, 1), (5, 100), (6, -1), (9, 70)] {
            assert!(rebuild.offer(&record(offset, timestamp, b"v")));
        }
        let batches = rebuild.finish(12);
        let [batch] = batches.as_slice() else { panic!("{batches:?}") };
        batch.check_crc().unwrap();
        assert_eq!((batch.base_offset(), batch.next_offset(), batch.leader_epoch()), (5, 12, 3));
        assert_eq!((batch.max_timestamp(), batch.producer_id(), batch.attributes()), (100, -1, 0));
        let records = read(&batches);
        let told: Vec<_> = records.iter().map(|record| (record.offset, record.timestamp)).collect();
        assert_eq!(told, [(5, 100), (6, -1), (9, 70)], "4 lies before what is wanted");
        assert_eq!(records[2].headers, [(bytes::Bytes::from_static(b"h"), None)]);
        let others = RecordBatchDecoder::decode(&mut batch.bytes().clone()).unwrap().records;
        assert_eq!(others.iter().map(|record| record.offset).collect::<Vec<_>>(), [5, 6, 9]);
    }

    #[test]
    fn batches_end_where_the_reader_or_the_epoch_does() {
        for bytes_max in [0, 100, 200, 1_000] {
            let mut rebuild = Rebuild::new(ColdRead { bytes_max, end: 9, ..ALL });
            let taken = (5..100).take_while(|offset| rebuild.offer(&record(*offset, 1, &[7; 50]))).count();
            let batches = rebuild.finish(100);
            let bytes: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
            assert!(taken > 0 && (taken == 1 || bytes <= bytes_max), "{taken} records, {bytes} of {bytes_max} bytes");
            assert_eq!(batches.last().unwrap().next_offset(), 5 + taken as i64, "it goes on with what was not taken");
            assert!(taken <= 4, "the rest is of another epoch");
        }
    }

    #[test]
    fn what_is_not_there_any_more_is_a_batch_without_records() {
        let mut rebuild = Rebuild::new(ALL);
        assert!(rebuild.offer(&record(4, 1, b"before")));
        let batches = rebuild.finish(8);
        assert_eq!((batches.len(), batches[0].record_count()), (1, 0));
        assert_eq!((batches[0].base_offset(), batches[0].next_offset()), (5, 8));
        assert!(RecordBatchDecoder::decode(&mut batches[0].bytes().clone()).unwrap().records.is_empty());
    }

    #[test]
    fn the_brokers_time_is_one_per_batch_and_is_told_as_such() {
        let mut rebuild = Rebuild::new(ALL);
        for (offset, timestamp, append_time) in [(5, 10, true), (6, 10, true), (7, 11, true), (9, 11, false)] {
            rebuild.offer(&ColdRecord { append_time, ..record(offset, timestamp, b"v") });
        }
        let batches = rebuild.finish(10);
        let told: Vec<_> = batches
            .iter()
            .map(|batch| (batch.base_offset(), batch.next_offset(), batch.is_log_append_time()))
            .collect();
        assert_eq!(told, [(5, 7, true), (7, 9, true), (9, 10, false)]);
        assert_eq!(read(&batches).iter().map(|record| record.timestamp).collect::<Vec<_>>(), [10, 10, 11, 11]);
    }

    #[test]
    fn many_records_make_several_batches() {
        let mut rebuild = Rebuild::new(ALL);
        let value = vec![1; 300_000];
        (5..15).for_each(|offset| assert!(rebuild.offer(&record(offset, offset, &value))));
        let batches = rebuild.finish(15);
        assert!(batches.len() > 2 && batches.windows(2).all(|pair| pair[0].next_offset() == pair[1].base_offset()));
        assert_eq!(read(&batches).len(), 10);
    }
}
