//! A file of whole records in the manifest, byte by byte. All integers are big-endian.
//!
//! ```text
//! family lake
//! "r" ++ log u32 ++ first u64   → one published file of whole records
//!
//!  0  1 version, 2; in version 1 the sum is not there
//!  1  8 last offset
//!  9  8 records
//! 17  8 bytes
//! 25  8 largest timestamp, -1 when there is none
//! 33  8 when it was published
//! 41  2 bytes of the path, then the path
//!     8 sum of its records' checksums (sums)
//! ```
//! Times are ms since 1970.

use std::sync::Arc;

use broker::{LogId, Offset, TimestampMs};

use crate::error::Result;
use crate::manifest_bytes::{Reader, VERSION, put_short};

const TAG: u8 = b'r';
/// Version of the value of a file with a sum.
const SUMMED_VERSION: u8 = 2;

/// A published file of whole records. Holds: all data records that were committed at the offsets `first..=last` of one
/// partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFile {
    /// First offset of the range that was settled.
    pub first: Offset,
    /// Last offset of that range.
    pub last: Offset,
    /// Records in the file; there may be none.
    pub records: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Largest timestamp of its records; -1 when none has one.
    pub max_timestamp: TimestampMs,
    /// When it was published.
    pub published_ms: TimestampMs,
    /// Where it lies below the lake's root.
    pub path: String,
    /// The sum of its records' checksums; none when a version published it that made none.
    pub sum: Option<u64>,
}

/// Key of a file.
pub fn raw_key(log: LogId, first: Offset) -> Vec<u8> {
    [&[TAG][..], &log.0.to_be_bytes(), &first.to_be_bytes()].concat()
}

/// The range of all keys.
pub fn raw_range() -> ([u8; 1], [u8; 1]) {
    ([TAG], [TAG + 1])
}

/// The range of one partition's keys.
pub fn raw_files_of(log: LogId) -> (Vec<u8>, Vec<u8>) {
    let key = |log: u32| [&[TAG][..], &log.to_be_bytes()].concat();
    (key(log.0), key(log.0.saturating_add(1)))
}

impl RawFile {
    /// The sum of the records' checksums of several; none when one of them has none.
    pub fn sum_of(files: &[Arc<RawFile>]) -> Option<u64> {
        files.iter().try_fold(0_u64, |all, file| file.sum.map(|sum| all.wrapping_add(sum)))
    }

    /// What its age counts from.
    pub fn aged_from(&self) -> TimestampMs {
        if self.max_timestamp < 0 { self.published_ms } else { self.max_timestamp }
    }

    /// The value of a file.
    ///
    /// # Errors
    /// `Bug` when its path is too long.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = vec![if self.sum.is_some() { SUMMED_VERSION } else { VERSION }];
        out.extend(self.last.to_be_bytes());
        out.extend(self.records.to_be_bytes());
        out.extend(self.bytes.to_be_bytes());
        out.extend(self.max_timestamp.to_be_bytes());
        out.extend(self.published_ms.to_be_bytes());
        put_short(&mut out, &self.path)?;
        out.extend(self.sum.iter().flat_map(|sum| sum.to_be_bytes()));
        Ok(out)
    }

    /// Reads a file's key and value.
    ///
    /// # Errors
    /// `Broker` when they are damaged or of a newer version.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        let first = Reader::of_key(key.get(5..).unwrap_or(&[]), "raw file key").i64()?;
        let (version, mut value) = Reader::up_to(SUMMED_VERSION, value, "raw file")?;
        let (last, records, bytes) = (value.i64()?, value.unsigned()?, value.unsigned()?);
        let (max_timestamp, published_ms, path) = (value.i64()?, value.i64()?, value.short()?);
        let sum = if version >= SUMMED_VERSION { Some(value.u64()?) } else { None };
        value.end()?;
        Ok(Self { first, last, records, bytes, max_timestamp, published_ms, path, sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_are_as_drawn() {
        let file = RawFile {
            first: 7,
            last: 9,
            records: 2,
            bytes: 300,
            max_timestamp: -1,
            published_ms: 5,
            path: "_raw/t".into(),
            sum: None,
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let key = raw_key(LogId(3), file.first);
        assert_eq!(hex(&key), "72000000030000000000000007");
        let value = file.encode().unwrap();
        assert_eq!(
            hex(&value),
            "0100000000000000090000000000000002000000000000012cffffffffffffffff000000000000000500065f7261772f74"
        );
        assert_eq!(RawFile::decode(&key, &value).unwrap(), file);
        assert_eq!((file.aged_from(), RawFile { max_timestamp: 8, ..file.clone() }.aged_from()), (5, 8));
        let summed = RawFile { sum: Some(0x0102), ..file };
        let with_sum = summed.encode().unwrap();
        assert_eq!(hex(&with_sum), format!("02{}0000000000000102", &hex(&value)[2..]));
        assert_eq!(RawFile::decode(&key, &with_sum).unwrap(), summed);
        for whole in [&value, &with_sum] {
            for cut in 0..whole.len() {
                assert!(RawFile::decode(&key, &whole[..cut]).is_err(), "cut to {cut}");
            }
        }
        assert!(RawFile::decode(&key, &[&[3_u8][..], &with_sum[1..]].concat()).is_err(), "of a newer version");
        assert!(RawFile::decode(&key[..9], &value).is_err());
    }
}
