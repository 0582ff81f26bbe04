//! The record batch, version 2 (KIP-98), as it travels and as it is stored.
//!
//! ```text
//!  at  size field                      at  size field
//!   0     8 base offset        *       27     8 base timestamp
//!   8     4 bytes after this field     35     8 max timestamp
//!  12     4 leader epoch       *       43     8 producer id (-1: none)
//!  16     1 magic, 2                   51     2 producer epoch
//!  17     4 CRC-32C of all from 21     53     4 base sequence
//!  21     2 attributes                 57     4 record count
//!  23     4 last offset delta          61     … records
//! ```
//! The two starred fields lie outside the CRC: the broker fills them in, everything else stays as the client sent it.
//! Attributes: bits 0–2 codec, 3 log-append time, 4 transactional, 5 control, 6 delete horizon (KIP-534: the base timestamp
//! says until when the tombstones of the batch stay).

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::Compression;
use crate::error::{Error, Kind, Result};
use crate::records::Records;
use crate::types::{LeaderEpoch, Offset, ProducerId, TimestampMs};

/// Size of the header, and so of the smallest batch.
pub const BATCH_HEADER_BYTES: usize = 61;
/// What precedes the part that the length field counts.
pub const BATCH_LENGTH_END: usize = 12;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const RECORD_COUNT_AT: usize = 57;

/// Smaller batches are copied when they get their place: they may lie in a piece of memory that they share.
const OWN_BYTES_MIN: usize = 64 << 10;
/// Memory that may be kept behind a batch that is not copied: one part in so many of its size.
const SPARE_PART: usize = 8;

const CODEC: i16 = 0b111;
pub(crate) const LOG_APPEND_TIME: i16 = 1 << 3;
pub(crate) const TRANSACTIONAL: i16 = 1 << 4;
pub(crate) const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;

/// One whole batch. Holds: the bytes of exactly one batch. Nobody changes them in place but [`Batch::placed`], which
/// gives a new one. Always true: length, magic and codec number are valid; the CRC is checked on the way in only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch(pub(crate) Bytes);

impl Batch {
    /// Takes bytes that hold exactly one batch.
    ///
    /// # Errors
    /// `CorruptMessage` for a wrong length or codec, `UnsupportedForMessageFormat` for message sets (magic 0 and 1).
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let length = first_batch_bytes(&bytes)?;
        if length != bytes.len() {
            return Err(corrupt(format!("a batch of {length} bytes was sent as {} bytes", bytes.len())));
        }
        let batch = Self(bytes);
        Compression::of(batch.attributes())?;
        if batch.last_offset_delta() < 0 || batch.record_count() < 0 {
            return Err(corrupt("a batch with a negative record count".into()));
        }
        Ok(batch)
    }

    /// Compares the stored CRC-32C with the bytes.
    ///
    /// # Errors
    /// `CorruptMessage` when they differ.
    pub fn check_crc(&self) -> Result<()> {
        let stored = u32::from_be_bytes(self.field(CRC_AT));
        let actual = crc32c::crc32c(&self.0[ATTRIBUTES_AT..]);
        if stored != actual {
            return Err(corrupt(format!("batch checksum is {actual:#010x}, its header says {stored:#010x}")));
        }
        Ok(())
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> Offset {
        i64::from_be_bytes(self.field(0))
    }

    /// Offset of the last record, also when compaction removed it.
    pub fn last_offset(&self) -> Offset {
        self.base_offset() + i64::from(self.last_offset_delta())
    }

    /// Offset that follows this batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset() + 1
    }

    /// Distance of the last record's offset from the base offset.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(LAST_OFFSET_DELTA_AT))
    }

    /// Number of records as the header states it.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(self.field(RECORD_COUNT_AT))
    }

    /// Leader epoch under which the batch was appended.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        i32::from_be_bytes(self.field(LEADER_EPOCH_AT))
    }

    /// The bits that name codec, timestamp type, transaction and control.
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field(ATTRIBUTES_AT))
    }

    /// Codec of the records.
    pub fn compression(&self) -> Compression {
        Compression::of(self.attributes()).expect("parse checked the codec")
    }

    /// Timestamp that the records' deltas count from.
    pub fn base_timestamp(&self) -> TimestampMs {
        i64::from_be_bytes(self.field(BASE_TIMESTAMP_AT))
    }

    /// Largest timestamp of the records; their only one with log-append time.
    pub fn max_timestamp(&self) -> TimestampMs {
        i64::from_be_bytes(self.field(MAX_TIMESTAMP_AT))
    }

    /// Identity of the idempotent producer, or -1.
    pub fn producer_id(&self) -> ProducerId {
        i64::from_be_bytes(self.field(PRODUCER_ID_AT))
    }

    /// Epoch of the producer.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(PRODUCER_EPOCH_AT))
    }

    /// Sequence number of the first record, or -1.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(BASE_SEQUENCE_AT))
    }

    /// Whether the records carry the broker's time instead of the client's.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction marker and not data.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    /// Until when the batch's tombstones or its marker stay, once compaction has seen them.
    pub fn delete_horizon(&self) -> Option<TimestampMs> {
        (self.attributes() & DELETE_HORIZON != 0).then(|| self.base_timestamp())
    }

    /// The batch's bytes, as they are stored and sent.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The batch's bytes, where the batch is not needed any more.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The batch with its place in the log. With `append_time` it gets log-append time, which lies inside the CRC and so costs a
    /// new one.
    pub fn placed(self, base_offset: Offset, epoch: LeaderEpoch, append_time: Option<TimestampMs>) -> Batch {
        let attributes = self.attributes() | LOG_APPEND_TIME;
        let mut bytes = self.into_own();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[LEADER_EPOCH_AT..LEADER_EPOCH_AT + 4].copy_from_slice(&epoch.to_be_bytes());
        if let Some(now) = append_time {
            bytes[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
            bytes[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&now.to_be_bytes());
            write_crc(&mut bytes);
        }
        Batch(bytes.freeze())
    }

    /// Its bytes to be changed: themselves where they are many, nobody else holds them and little else is kept with them; else a copy.
    fn into_own(self) -> BytesMut {
        let length = self.0.len();
        let own = if length < OWN_BYTES_MIN { Err(self.0) } else { self.0.try_into_mut() };
        let kept = match own {
            Ok(own) if own.capacity() - length <= length / SPARE_PART => return own,
            Ok(own) => own.freeze(),
            Err(shared) => shared,
        };
        let mut copy = BytesMut::with_capacity(length);
        copy.put_slice(&kept);
        copy
    }

    /// The same place in the log without its records: what a reader of committed data gets in place of a marker or an
    /// aborted batch, so that it moves over the offsets.
    pub fn hollow(&self) -> Batch {
        let mut bytes = BytesMut::with_capacity(BATCH_HEADER_BYTES);
        bytes.put_slice(&self.0[..BATCH_HEADER_BYTES]);
        let length = i32::try_from(BATCH_HEADER_BYTES - BATCH_LENGTH_END).expect("49 fits");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let attributes = self.attributes() & !CODEC;
        bytes[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
        bytes[RECORD_COUNT_AT..RECORD_COUNT_AT + 4].copy_from_slice(&0_i32.to_be_bytes());
        write_crc(&mut bytes);
        Batch(bytes.freeze())
    }

    /// The same batch with other records: place, offsets, producer and sequence stay, also when no record is left.
    pub(crate) fn with_records(&self, new: &NewRecords) -> Batch {
        let mut bytes = BytesMut::with_capacity(BATCH_HEADER_BYTES + new.records.len());
        bytes.put_slice(&self.0[..BATCH_HEADER_BYTES]);
        bytes.put_slice(&new.records);
        let mut attributes = (self.attributes() & !CODEC) | new.codec.number();
        if !new.append_time {
            attributes &= !LOG_APPEND_TIME;
        }
        if let Some(horizon) = new.horizon {
            attributes |= DELETE_HORIZON;
            bytes[BASE_TIMESTAMP_AT..BASE_TIMESTAMP_AT + 8].copy_from_slice(&horizon.to_be_bytes());
        }
        let length = i32::try_from(bytes.len() - BATCH_LENGTH_END).expect("a part of a batch and its header fit 2 GiB");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
        bytes[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&new.max_timestamp.to_be_bytes());
        bytes[RECORD_COUNT_AT..RECORD_COUNT_AT + 4].copy_from_slice(&new.count.to_be_bytes());
        write_crc(&mut bytes);
        Batch(bytes.freeze())
    }

    /// The records, unfolded if need be.
    ///
    /// # Errors
    /// `CorruptMessage` when the codec cannot read them.
    pub fn records(&self) -> Result<Records> {
        let data = self.compression().decompress(&self.0.slice(BATCH_HEADER_BYTES..))?;
        Ok(Records::of(self, data))
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.0[at..].first_chunk::<N>().expect("parse checked that the header is whole")
    }
}

/// The records that take the place of a batch's own.
pub(crate) struct NewRecords {
    /// Codec of `records`.
    pub(crate) codec: Compression,
    /// The records section, folded.
    pub(crate) records: Bytes,
    /// How many records that are.
    pub(crate) count: i32,
    /// Their largest timestamp, -1 when there are none.
    pub(crate) max_timestamp: TimestampMs,
    /// Whether that is the broker's time and counts for all of them.
    pub(crate) append_time: bool,
    /// A delete horizon to set; the records' timestamps then count from it.
    pub(crate) horizon: Option<TimestampMs>,
}

/// What the headers differ in of batches that are made here; none of them has a sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchHeader {
    /// Offset of the first record.
    pub(crate) base_offset: Offset,
    /// Leader epoch of the batch.
    pub(crate) epoch: LeaderEpoch,
    /// Timestamp type, transaction and control; no codec.
    pub(crate) attributes: i16,
    /// Distance of the last offset from the first.
    pub(crate) last_offset_delta: i32,
    /// Timestamp that the records' deltas count from.
    pub(crate) base_timestamp: TimestampMs,
    /// Largest timestamp of the records.
    pub(crate) max_timestamp: TimestampMs,
    /// Producer and its epoch.
    pub(crate) producer: (ProducerId, i16),
    /// Number of records.
    pub(crate) count: i32,
}

impl BatchHeader {
    /// For batches that no producer wrote.
    pub(crate) const NO_PRODUCER: (ProducerId, i16) = (-1, -1);

    /// A batch of records that are not folded: far less than 2 GiB of them.
    pub(crate) fn before(self, records: &[u8]) -> Batch {
        let size = BATCH_HEADER_BYTES + records.len();
        let (producer, producer_epoch) = self.producer;
        let mut bytes = BytesMut::with_capacity(size);
        bytes.put_i64(self.base_offset);
        bytes.put_i32(i32::try_from(size - BATCH_LENGTH_END).expect("who makes batches ends them long before 2 GiB"));
        bytes.put_i32(self.epoch);
        bytes.put_u8(MAGIC);
        bytes.put_u32(0); // the CRC comes last
        bytes.put_i16(self.attributes);
        bytes.put_i32(self.last_offset_delta);
        bytes.put_i64(self.base_timestamp);
        bytes.put_i64(self.max_timestamp);
        bytes.put_i64(producer);
        bytes.put_i16(producer_epoch);
        bytes.put_i32(-1); // base sequence
        bytes.put_i32(self.count);
        bytes.put_slice(records);
        write_crc(&mut bytes);
        Batch(bytes.freeze())
    }
}

/// Splits a records field into its batches.
///
/// # Errors
/// As [`Batch::parse`]; a trailing part of a batch is an error too.
pub fn batches_in(mut bytes: Bytes) -> Result<Vec<Batch>> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let length = first_batch_bytes(&bytes)?;
        if length > bytes.len() {
            return Err(corrupt(format!("a batch of {length} bytes is cut off after {}", bytes.len())));
        }
        batches.push(Batch::parse(bytes.split_to(length))?);
    }
    Ok(batches)
}

/// Size of the batch that `bytes` begin with.
fn first_batch_bytes(bytes: &[u8]) -> Result<usize> {
    if bytes.len() > MAGIC_AT && bytes[MAGIC_AT] != MAGIC {
        let magic = bytes[MAGIC_AT];
        let message = format!("message format {magic} is not served; use a client of Kafka 0.11 or later");
        let kind = if magic < MAGIC { Kind::UnsupportedForMessageFormat } else { Kind::CorruptMessage };
        return Err(Error::new(kind, message));
    }
    if bytes.len() < BATCH_HEADER_BYTES {
        return Err(corrupt(format!("{} bytes are too few for a batch", bytes.len())));
    }
    let length = i32::from_be_bytes(*bytes[8..].first_chunk().expect("checked above"));
    let length = usize::try_from(length).unwrap_or(0).saturating_add(BATCH_LENGTH_END);
    if length < BATCH_HEADER_BYTES {
        return Err(corrupt(format!("a batch that states its size as {length} bytes")));
    }
    Ok(length)
}

pub(crate) fn corrupt(message: String) -> Error {
    Error::new(Kind::CorruptMessage, message)
}

pub(crate) fn write_crc(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[ATTRIBUTES_AT..]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, Record};

    fn sample() -> Batch {
        let mut builder = BatchBuilder::new();
        builder.push(1_000, Some(b"k1"), Some(b"v1"), &[(b"h", Some(b"1")), (b"h", Some(b"2")), (b"n", None)]);
        builder.push(900, None, None, &[]);
        builder.push(1_500, Some(b""), Some(&[7; 300]), &[]);
        builder.build().unwrap()
    }

    #[test]
    fn records_come_back_as_they_were_pushed() {
        let batch = sample().placed(40, 3, None);
        batch.check_crc().unwrap();
        assert_eq!((batch.base_offset(), batch.next_offset(), batch.leader_epoch()), (40, 43, 3));
        assert_eq!((batch.base_timestamp(), batch.max_timestamp(), batch.record_count()), (1_000, 1_500, 3));
        let records: Vec<Record> = batch.records().unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(records[0].headers.len(), 3, "repeated header keys are kept");
        assert_eq!(records[0].headers[1], (Bytes::from_static(b"h"), Some(Bytes::from_static(b"2"))));
        assert_eq!((records[1].offset, records[1].timestamp), (41, 900));
        assert_eq!((records[1].key.as_ref(), records[1].value.as_ref()), (None, None));
        assert_eq!(records[2].key.as_deref(), Some(&b""[..]));
        assert_eq!(records[2].value.as_ref().unwrap().len(), 300);
    }

    #[test]
    fn a_batch_that_is_large_and_nobody_elses_is_not_copied() {
        let batch = |value: usize| {
            let mut builder = BatchBuilder::new();
            builder.push(1_000, None, Some(&vec![7; value]), &[]);
            builder.build().unwrap().into_bytes().to_vec()
        };
        let moved = |request: Vec<u8>, from: usize, hold: bool| {
            let request = Bytes::from(request);
            let batch = Batch::parse(request.slice(from..)).unwrap();
            let (before, held) = (batch.0.as_ptr(), hold.then(|| request.clone()));
            drop(request);
            let placed = batch.placed(40, 3, None);
            placed.check_crc().unwrap();
            assert_eq!((placed.base_offset(), placed.leader_epoch()), (40, 3));
            assert!(held.is_none_or(|held| Batch::parse(held.slice(from..)).unwrap().base_offset() == 0));
            placed.0.as_ptr() != before
        };
        let large = batch(OWN_BYTES_MIN);
        let behind_a_head = [&[0; 50], &large[..]].concat();
        let mut roomy = large.clone();
        roomy.reserve_exact(OWN_BYTES_MIN / 4);
        assert!(!moved(large.clone(), 0, false) && !moved(behind_a_head, 50, false));
        assert!(moved(large, 0, true), "somebody else has the request");
        assert!(moved(batch(OWN_BYTES_MIN / 2), 0, false), "a small one");
        assert!(moved(roomy, 0, false), "it would keep a quarter more than itself");
    }

    #[test]
    fn log_append_time_replaces_every_timestamp() {
        let batch = sample().placed(0, 0, Some(77_777));
        batch.check_crc().unwrap();
        assert!(batch.is_log_append_time());
        assert!(batch.records().unwrap().all(|record| record.unwrap().timestamp == 77_777));
    }

    #[test]
    fn other_implementations_agree_on_the_bytes() {
        use kafka_protocol::records::RecordBatchDecoder;
        let mut bytes = sample().bytes().clone();
        let decoded = RecordBatchDecoder::decode(&mut bytes).unwrap();
        assert_eq!(decoded.records.len(), 3);
        assert_eq!(decoded.records[2].timestamp, 1_500);
    }

    #[test]
    fn no_cut_or_flip_is_taken_for_a_batch() {
        let whole = sample().bytes().clone();
        for length in 0..whole.len() {
            assert!(Batch::parse(whole.slice(..length)).is_err(), "cut to {length}");
        }
        for at in CRC_AT..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x10;
            let Ok(batch) = Batch::parse(bytes.into()) else { continue };
            assert!(batch.check_crc().is_err(), "flip at {at}");
            if let Ok(records) = batch.records() {
                records.for_each(drop); // whatever it says, it must not panic
            }
        }
    }

    #[test]
    fn old_formats_and_trailing_parts_are_refused() {
        let mut old = sample().bytes().to_vec();
        old[MAGIC_AT] = 1;
        assert_eq!(Batch::parse(old.into()).unwrap_err().kind, Kind::UnsupportedForMessageFormat);
        let two = [sample().bytes().to_vec(), sample().bytes().to_vec()].concat();
        assert_eq!(batches_in(two.clone().into()).unwrap().len(), 2);
        assert!(batches_in(two[..two.len() - 1].to_vec().into()).is_err());
        assert!(Batch::parse(two.into()).is_err());
    }
}
