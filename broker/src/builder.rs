//! Batches that Millpond itself writes: records of views, of the collector, of what was refused.

use bytes::BufMut;

use crate::batch::{BATCH_HEADER_BYTES, Batch, BatchHeader, CONTROL, TRANSACTIONAL};
use crate::records::HeaderRef;
use crate::types::{ProducerId, TimestampMs};

/// Builds one uncompressed batch with base offset 0, for records that Millpond itself writes.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    records: Vec<u8>,
    count: i32,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
}

impl BatchBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of records so far.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).expect("a count is not negative")
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch so far, in bytes.
    pub fn size(&self) -> usize {
        BATCH_HEADER_BYTES + self.records.len()
    }

    /// Adds a record after the others.
    pub fn push(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let (delta, count) = (timestamp - self.base_timestamp, i64::from(self.count));
        let of_headers: usize =
            headers.iter().map(|(key, value)| nullable_bytes(Some(key)) + nullable_bytes(*value)).sum();
        let numbers = varlong_bytes(delta) + varlong_bytes(count) + varlong_bytes(headers.len() as i64);
        let body = 1 + numbers + nullable_bytes(key) + nullable_bytes(value) + of_headers;
        let out = &mut self.records;
        put_varlong(out, body as i64);
        out.push(0);
        put_varlong(out, delta);
        put_varlong(out, count);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varlong(out, headers.len() as i64);
        for (key, value) in headers {
            put_nullable(out, Some(key));
            put_nullable(out, *value);
        }
        self.count += 1;
    }

    /// The batch, or nothing when no record was pushed.
    pub fn build(self) -> Option<Batch> {
        (self.count > 0).then(|| self.header().before(&self.records))
    }

    /// The header of a batch of nobody's, with the records so far.
    fn header(&self) -> BatchHeader {
        BatchHeader {
            base_offset: 0,
            epoch: 0,
            attributes: 0,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer: BatchHeader::NO_PRODUCER,
            count: self.count,
        }
    }
}

/// The types of control records that end a transaction.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// The control batch that ends a producer's transaction in a partition (KIP-98). Key: i16 version 0, i16 type; value: i16
/// version 0, i32 coordinator's epoch.
pub(crate) fn transaction_marker(
    (producer, epoch): (ProducerId, i16),
    committed: bool,
    coordinator_epoch: i32,
    now: TimestampMs,
) -> Batch {
    let mut value = [0; 6];
    value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
    let [high, low] = if committed { COMMIT } else { ABORT }.to_be_bytes();
    let mut builder = BatchBuilder::new();
    builder.push(now, Some(&[0, 0, high, low]), Some(&value), &[]);
    let header = BatchHeader { attributes: TRANSACTIONAL | CONTROL, producer: (producer, epoch), ..builder.header() };
    header.before(&builder.records)
}

/// Whether a marker says that its transaction was committed; nothing where compaction emptied it.
pub(crate) fn is_committed(marker: &Batch) -> Option<bool> {
    let mut records = marker.records().ok()?;
    let record = records.next_ref()?.ok()?;
    Some(record.key?.get(2..4)? != ABORT.to_be_bytes())
}

pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// A number without sign, base 128, least significant group first.
pub(crate) fn put_unsigned(out: &mut impl BufMut, mut rest: u64) {
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// Bytes that [`put_varlong`] writes.
fn varlong_bytes(value: i64) -> usize {
    let bits = 64 - ((value << 1) ^ (value >> 63)).leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

/// Bytes that [`put_nullable`] writes.
fn nullable_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varlong_bytes(bytes.len() as i64) + bytes.len())
}

pub(crate) fn put_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_what_other_implementations_read() {
        use kafka_protocol::records::RecordBatchDecoder;
        let marker = transaction_marker((7, 3), true, 5, 1_000);
        marker.check_crc().unwrap();
        assert!(marker.is_control() && marker.is_transactional());
        assert_eq!((marker.record_count(), marker.last_offset_delta(), marker.base_sequence()), (1, 0, -1));
        let record = RecordBatchDecoder::decode(&mut marker.bytes().clone()).unwrap().records.remove(0);
        assert_eq!((record.producer_id, record.producer_epoch, record.control, record.timestamp), (7, 3, true, 1_000));
        assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, 1][..]));
        assert_eq!(record.value.as_deref(), Some(&[0, 0, 0, 0, 0, 5][..]));
        let abort = transaction_marker((7, 3), false, 0, 0);
        assert_eq!(abort.records().unwrap().next().unwrap().unwrap().key.as_deref(), Some(&[0, 0, 0, 0][..]));
    }
}
