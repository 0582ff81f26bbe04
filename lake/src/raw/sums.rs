//! Checksums of whole records. That of a record is CRC-32C over all that consumers are given of it; that of a file is the sum of its
//! records', so that a merged file has the sum of its inputs', and what the log has let go can be told from what it was.
//!
//! ```text
//! 8 offset · 8 timestamp · 1 append time · key · value · headers, as in a record
//! key, value: 8 bytes of length, 2^64 - 1 for null, then the bytes; all integers are big-endian
//! ```

use broker::{ColdRecord, RecordRef, checksum};

/// The checksum of a record.
pub fn record_sum(record: &ColdRecord<'_>) -> u32 {
    let sum = checksum(checksum(0, &record.offset.to_be_bytes()), &record.timestamp.to_be_bytes());
    let sum = checksum(sum, &[u8::from(record.append_time)]);
    let sum = [record.key, record.value].into_iter().fold(sum, |sum, part| {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        checksum(checksum(sum, &length.to_be_bytes()), part.unwrap_or_default())
    });
    checksum(sum, record.headers)
}

/// A record of the log as it is kept; `append_time` says whether its time is the broker's.
pub fn as_kept<'a>(record: &RecordRef<'a>, append_time: bool) -> ColdRecord<'a> {
    ColdRecord {
        offset: record.offset,
        timestamp: record.timestamp,
        append_time,
        key: record.key,
        value: record.value,
        headers: record.stored_headers(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_record_counts() {
        let record = ColdRecord {
            offset: 7,
            timestamp: 9,
            append_time: false,
            key: Some(b"ab"),
            value: Some(b"c"),
            headers: b"\x00",
        };
        let others = [
            ColdRecord { offset: 8, ..record },
            ColdRecord { timestamp: 8, ..record },
            ColdRecord { append_time: true, ..record },
            ColdRecord { key: None, ..record },
            ColdRecord { key: Some(b""), ..record },
            ColdRecord { key: Some(b"a"), value: Some(b"bc"), ..record },
            ColdRecord { value: None, ..record },
            ColdRecord { headers: b"\x02", ..record },
        ];
        let mut sums: Vec<u32> = others.iter().chain([&record]).map(record_sum).collect();
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), others.len() + 1);
        // it is stored, so it stays the same for ever
        let bytes = [&7_i64.to_be_bytes()[..], &9_i64.to_be_bytes(), &[0], &[0; 7], b"\x02ab", &[0; 7], b"\x01c\x00"];
        assert_eq!(record_sum(&record), checksum(0, &bytes.concat()));
    }
}
