//! Batches that Millpond itself writes: records of views, of the collector, of what was refused.

use bytes::{BufMut, BytesMut};

use crate::batch::{BATCH_HEADER_BYTES, BATCH_LENGTH_END, Batch, HeaderRef, write_crc};
use crate::types::TimestampMs;

/// Builds one uncompressed batch with base offset 0, for records that Millpond itself writes.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    records: BytesMut,
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
        let mut body = Vec::with_capacity(32 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len));
        body.push(0);
        put_varlong(&mut body, timestamp - self.base_timestamp);
        put_varlong(&mut body, i64::from(self.count));
        put_nullable(&mut body, key);
        put_nullable(&mut body, value);
        put_varlong(&mut body, headers.len() as i64);
        for (key, value) in headers {
            put_nullable(&mut body, Some(key));
            put_nullable(&mut body, *value);
        }
        let mut length = Vec::with_capacity(5);
        put_varlong(&mut length, body.len() as i64);
        self.records.put_slice(&length);
        self.records.put_slice(&body);
        self.count += 1;
    }

    /// The batch, or nothing when no record was pushed.
    pub fn build(self) -> Option<Batch> {
        if self.count == 0 {
            return None;
        }
        let mut bytes = BytesMut::with_capacity(self.size());
        bytes.put_i64(0);
        bytes.put_i32(i32::try_from(self.size() - BATCH_LENGTH_END).expect("a batch of our own is far below 2 GiB"));
        bytes.put_i32(0);
        bytes.put_i8(2);
        bytes.put_u32(0);
        bytes.put_i16(0);
        bytes.put_i32(self.count - 1);
        bytes.put_i64(self.base_timestamp);
        bytes.put_i64(self.max_timestamp);
        bytes.put_i64(-1);
        bytes.put_i16(-1);
        bytes.put_i32(-1);
        bytes.put_i32(self.count);
        bytes.put_slice(&self.records);
        write_crc(&mut bytes);
        Some(Batch(bytes.freeze()))
    }
}

fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
