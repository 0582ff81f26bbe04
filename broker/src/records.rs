//! The records of a batch: walked one by one, lent or with their own hold on the bytes.

use bytes::Bytes;

use crate::batch::{Batch, corrupt};
use crate::error::Result;
use crate::types::{Offset, TimestampMs};

/// One record with its own hold on the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset in the partition.
    pub offset: Offset,
    /// The client's time, or the broker's with log-append time.
    pub timestamp: TimestampMs,
    /// Key, absent when null.
    pub key: Option<Bytes>,
    /// Value; null is a tombstone in a compacted topic.
    pub value: Option<Bytes>,
    /// Headers in order; keys may repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// One record lent from its batch; headers are not looked at until asked for.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Offset in the partition.
    pub offset: Offset,
    /// The client's time, or the broker's with log-append time.
    pub timestamp: TimestampMs,
    /// Key, absent when null.
    pub key: Option<&'a [u8]>,
    /// Value; null is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

/// A header as it is lent: its key, and its value if that is not null.
pub type HeaderRef<'a> = (&'a [u8], Option<&'a [u8]>);

impl<'a> RecordRef<'a> {
    /// The record's headers as they are stored, their count first.
    pub fn stored_headers(&self) -> &'a [u8] {
        self.headers
    }

    /// Bytes of its key, value and headers.
    pub fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + self.headers.len()
    }

    /// Headers in order.
    ///
    /// # Errors
    /// `CorruptMessage` when they do not fill their record exactly.
    pub fn headers(&self) -> Result<Vec<HeaderRef<'a>>> {
        let mut headers = Vec::new();
        self.walk_headers(|header| headers.push(header))?;
        Ok(headers)
    }

    /// Looks whether the headers can be read, and keeps none.
    ///
    /// # Errors
    /// As [`RecordRef::headers`].
    pub(crate) fn check_headers(&self) -> Result<()> {
        self.walk_headers(drop)
    }

    fn walk_headers(&self, mut each: impl FnMut(HeaderRef<'a>)) -> Result<()> {
        let mut reader = Reader { data: self.headers, at: 0 };
        let count = reader.varint()?;
        for _ in 0..count {
            let key = reader.nullable()?.ok_or_else(|| corrupt("a record header without a key".into()))?;
            each((key, reader.nullable()?));
        }
        if reader.at != reader.data.len() || count < 0 {
            return Err(corrupt("record headers do not fill their record".into()));
        }
        Ok(())
    }
}

/// Walks the records of one batch. Fused after the first error.
#[derive(Debug)]
pub struct Records {
    data: Bytes,
    at: usize,
    left: i32,
    base_offset: Offset,
    base_timestamp: TimestampMs,
    append_time: Option<TimestampMs>,
}

impl Records {
    /// The records of a batch, whose unfolded section `data` is.
    pub(crate) fn of(batch: &Batch, data: Bytes) -> Self {
        Self {
            data,
            at: 0,
            left: batch.record_count(),
            base_offset: batch.base_offset(),
            base_timestamp: batch.base_timestamp(),
            append_time: batch.is_log_append_time().then(|| batch.max_timestamp()),
        }
    }

    /// The next record, lent; the cheap way for those who look at every record.
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>>> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let record = read_record(&self.data, &mut self.at, self.base_offset, self.base_timestamp, self.append_time);
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

impl Records {
    /// All records, unfolded.
    pub(crate) fn section(&self) -> &Bytes {
        &self.data
    }

    /// Whether nothing follows the records that were read.
    pub fn is_exhausted(&self) -> bool {
        self.at == self.data.len()
    }
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let data = self.data.clone();
        let own = |part: &[u8]| data.slice_ref(part);
        let record = self.next_ref()?;
        Some(record.and_then(|lent| {
            let headers = lent.headers()?;
            Ok(Record {
                offset: lent.offset,
                timestamp: lent.timestamp,
                key: lent.key.map(own),
                value: lent.value.map(own),
                headers: headers.into_iter().map(|(key, value)| (own(key), value.map(own))).collect(),
            })
        }))
    }
}

fn read_record<'a>(
    data: &'a [u8],
    at: &mut usize,
    base_offset: Offset,
    base_timestamp: TimestampMs,
    append_time: Option<TimestampMs>,
) -> Result<RecordRef<'a>> {
    let mut outer = Reader { data, at: *at };
    let length = usize::try_from(outer.varint()?).map_err(|_| corrupt("a record of negative size".into()))?;
    let body = outer.take(length)?;
    *at = outer.at;
    let mut reader = Reader { data: body, at: 0 };
    reader.take(1)?; // attributes: none are in use
    let timestamp_delta = reader.varlong()?;
    let offset_delta = reader.varint()?;
    let key = reader.nullable()?;
    let value = reader.nullable()?;
    Ok(RecordRef {
        offset: base_offset.wrapping_add(i64::from(offset_delta)),
        timestamp: append_time.unwrap_or_else(|| base_timestamp.wrapping_add(timestamp_delta)),
        key,
        value,
        headers: &body[reader.at..],
    })
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.data.len());
        let end = end.ok_or_else(|| corrupt("a record is cut short".into()))?;
        let part = &self.data[self.at..end];
        self.at = end;
        Ok(part)
    }

    fn varint(&mut self) -> Result<i32> {
        i32::try_from(self.varlong()?).map_err(|_| corrupt("a number in a record is too large".into()))
    }

    /// Zigzag, base 128, least significant group first.
    fn varlong(&mut self) -> Result<i64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        Err(corrupt("a number in a record has no end".into()))
    }

    fn nullable(&mut self) -> Result<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| corrupt("a field of negative size".into()))?;
                self.take(length).map(Some)
            }
        }
    }
}
