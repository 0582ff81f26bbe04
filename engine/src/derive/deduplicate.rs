//! De-duplication by key within a span of event time: a row is a duplicate when an accepted row has the same key columns
//! and an event time at most `within` away, before or after it. A row with a null among its key columns never is one.
//!
//! Accepted rows are stored by bucket, a span of event time as wide as `within`: so one bucket holds a key at most once,
//! three buckets decide about a row, and what is too old to matter goes as a range. How far back they are kept follows from
//! the event watermark of the last commit, and from nothing that a restart forgets. A row that is older cannot be judged:
//! it is refused, by a rule of its own.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use broker::{Change, Family, Store};

use super::plan::column_index;
use crate::config::DeduplicateConfig;
use crate::error::{EngineError, ErrorKind, Result};
use crate::hot::HotStates;
use crate::state;

/// Longest key that is stored as it is; of a longer one a hash and its length are.
const PLAIN_KEY_BYTES_MAX: usize = 48;
/// Memory for recently accepted rows of one stream.
const HOT_BYTES_MAX: usize = 32 << 20;

/// What makes a row a duplicate, compiled. Never changes after it is made.
pub(super) struct Deduplicate {
    stream: String,
    columns: Vec<usize>,
    within_ms: i64,
    /// How far behind the event watermark accepted rows are kept: so that a row behind it by lateness and twice `within` finds
    /// all that may be near it.
    kept_ms: i64,
    converter: RowConverter,
}

/// Accepted rows. Holds: the recently accepted ones, as committed. Its pipeline alone changes it; a crash loses the
/// memory only.
pub(super) struct Seen {
    hot: HotStates,
    /// Buckets before this one are forgotten.
    forgotten_until: i64,
}

/// What de-duplication says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// None like it was accepted.
    New,
    /// One like it was.
    Duplicate,
    /// What was accepted at its time is no longer known.
    TooOld,
}

/// What de-duplication says of rows.
pub(super) struct Verdict {
    /// Of each row.
    pub(super) findings: Vec<Finding>,
    /// What is stored of the accepted rows.
    pub(super) accepted: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Deduplicate {
    /// Compiles the setting over the stream's columns; mistakes are noted.
    pub(super) fn new(
        config: &DeduplicateConfig,
        (stream, lateness_ms): (&str, i64),
        schema: &SchemaRef,
        mistakes: &mut Vec<String>,
    ) -> Option<Deduplicate> {
        if config.by.is_empty() || config.within_ms <= 0 {
            mistakes.push("deduplicate needs columns in by, and a time above 0 in within".into());
        }
        let found = config.by.iter().map(|name| column_index("deduplicate.by", name, schema, mistakes));
        let columns: Vec<usize> = found.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?;
        let fields = columns.iter().map(|column| SortField::new(schema.field(*column).data_type().clone()));
        let converter = RowConverter::new(fields.collect()).ok()?;
        (config.within_ms > 0).then(|| Deduplicate {
            stream: stream.to_string(),
            columns,
            within_ms: config.within_ms,
            kept_ms: lateness_ms.saturating_add(config.within_ms.saturating_mul(3)),
            converter,
        })
    }

    /// Judges rows in their order, by the event watermark of the last commit.
    pub(super) fn judge(
        &self,
        rows: &RecordBatch,
        event_times: &TimestampMillisecondArray,
        (seen, event_watermark): (&Seen, Option<i64>),
        store: &Store,
    ) -> Result<Verdict> {
        let keys = self.keys(rows)?;
        let mut known = self.load(&keys, event_times, seen, store)?;
        let kept_from = self.kept_from(event_watermark);
        let mut verdict = Verdict { findings: Vec::with_capacity(rows.num_rows()), accepted: Vec::new() };
        for (row, key) in keys.iter().enumerate() {
            let time_ms = event_times.value(row);
            let Some(key) = key else {
                verdict.findings.push(Finding::New);
                continue;
            };
            if self.buckets(time_ms).into_iter().any(|bucket| bucket < kept_from) {
                verdict.findings.push(Finding::TooOld);
                continue;
            }
            let is_near = |bucket: i64| {
                let before = known.get(&self.store_key(bucket, key));
                before
                    .copied()
                    .flatten()
                    .is_some_and(|before: i64| before.abs_diff(time_ms) <= self.within_ms.unsigned_abs())
            };
            let is_duplicate = self.buckets(time_ms).into_iter().any(is_near);
            verdict.findings.push(if is_duplicate { Finding::Duplicate } else { Finding::New });
            if !is_duplicate {
                let key = self.store_key(self.bucket(time_ms), key);
                known.insert(key.clone(), Some(time_ms));
                verdict.accepted.push((key, time_ms.to_be_bytes().to_vec()));
            }
        }
        Ok(verdict)
    }

    /// The first bucket that is kept at an event watermark.
    fn kept_from(&self, event_watermark: Option<i64>) -> i64 {
        event_watermark.map_or(i64::MIN, |watermark| self.bucket(watermark.saturating_sub(self.kept_ms)))
    }

    /// Forgets the buckets that are not kept at the event watermark of the commit under way.
    pub(super) fn forget(&self, seen: &mut Seen, event_watermark: Option<i64>) -> Option<Change> {
        let bucket = self.kept_from(event_watermark);
        if bucket <= seen.forgotten_until {
            return None;
        }
        seen.forgotten_until = bucket;
        let from = state::seen_bucket(&self.stream, i64::MIN);
        Some(Change::DeleteRange(Family::State, from, state::seen_bucket(&self.stream, bucket)))
    }

    fn bucket(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.within_ms)
    }

    fn buckets(&self, time_ms: i64) -> [i64; 3] {
        let bucket = self.bucket(time_ms);
        [bucket, bucket.saturating_sub(1), bucket.saturating_add(1)]
    }

    fn store_key(&self, bucket: i64, key: &[u8]) -> Vec<u8> {
        [&state::seen_bucket(&self.stream, bucket), key].concat()
    }

    /// The key of each row; None where a column is null.
    fn keys(&self, rows: &RecordBatch) -> Result<Vec<Option<Vec<u8>>>> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|column| rows.column(*column).clone()).collect();
        let encoded = self.converter.convert_columns(&columns)?;
        let key = |(row, key): (usize, arrow::row::Row<'_>)| match columns.iter().any(|column| column.is_null(row)) {
            true => None,
            false => Some(short_key(key.data())),
        };
        Ok(encoded.iter().enumerate().map(key).collect())
    }

    /// What is known of the buckets that decide about these rows.
    fn load(
        &self,
        keys: &[Option<Vec<u8>>],
        event_times: &TimestampMillisecondArray,
        seen: &Seen,
        store: &Store,
    ) -> Result<HashMap<Vec<u8>, Option<i64>>> {
        let mut known: HashMap<Vec<u8>, Option<i64>> = HashMap::new();
        let mut missing: Vec<Vec<u8>> = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            let Some(key) = key else { continue };
            for bucket in self.buckets(event_times.value(row)) {
                let key = self.store_key(bucket, key);
                if known.contains_key(&key) {
                    continue;
                }
                let value = seen.hot.get(&key).map(time_of).transpose()?;
                if value.is_none() {
                    missing.push(key.clone());
                }
                known.insert(key, value);
            }
        }
        missing.sort_unstable();
        let values = store.get_many(Family::State, &missing)?;
        for (key, value) in missing.into_iter().zip(values) {
            if let Some(value) = value {
                known.insert(key, Some(time_of(&value)?));
            }
        }
        Ok(known)
    }
}

impl Seen {
    pub(super) fn new() -> Seen {
        Seen { hot: HotStates::new(HOT_BYTES_MAX), forgotten_until: i64::MIN }
    }

    /// After the commit of accepted rows.
    pub(super) fn committed(&mut self, accepted: Vec<(Vec<u8>, Vec<u8>)>) {
        for (key, value) in accepted {
            self.hot.put(&key, &value);
        }
    }
}

fn time_of(value: &[u8]) -> Result<i64> {
    let bytes = value.try_into().map_err(|_| {
        EngineError::new(ErrorKind::Storage, "a stored event time is damaged; restore a backup or rename the stream")
    })?;
    Ok(i64::from_be_bytes(bytes))
}

/// A key of bounded length: the row itself, or its length and FNV-1a hash of 128 bits.
fn short_key(row: &[u8]) -> Vec<u8> {
    if row.len() <= PLAIN_KEY_BYTES_MAX {
        return [&[0], row].concat();
    }
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = row.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    [&[1][..], &(row.len() as u64).to_be_bytes(), &hash.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_hashed_as_fnv_1a_defines_it() {
        assert_eq!(short_key(b"abc"), b"\0abc");
        let long = short_key(&[b'a'; 64]);
        assert_eq!((long.len(), long[0]), (25, 1));
        assert_ne!(long, short_key(&[[b'a'; 63].as_slice(), b"b"].concat()));
    }
}
