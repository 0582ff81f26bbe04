//! The rows of a table whose topic is followed: in the store, the recently looked-up ones in memory.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use broker::{Change, Family, Store};
use parking_lot::Mutex;

use super::Looked;
use crate::error::{EngineError, ErrorKind, Result};
use crate::hot::HotStates;
use crate::state;

/// Memory for the recently looked-up rows of one table.
const CACHE_BYTES_MAX: usize = 16 << 20;
/// Version of a row's value.
const FORMAT: u8 = 1;

/// Rows by key. Holds: a cache of what the store has. The table's feed alone writes rows; after its commit it tells the
/// cache. A crash loses the cache only.
pub(super) struct StoredRows {
    prefix: Vec<u8>,
    schema: SchemaRef,
    converter: RowConverter,
    cache: Mutex<Cache>,
}

/// An empty value stands for "no such row".
struct Cache {
    /// Counts the feed's commits: what was read from the store before one must not be kept after it.
    version: u64,
    hot: HotStates,
}

/// What one record does to a table: the row's key, and its value, or none when the row goes.
pub(super) type RowChange = (Vec<u8>, Option<Vec<u8>>);

impl StoredRows {
    pub(super) fn new(table: &str, schema: &SchemaRef) -> Result<StoredRows> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(StoredRows {
            prefix: state::table_row_prefix(table),
            schema: schema.clone(),
            converter: RowConverter::new(fields.collect())?,
            cache: Mutex::new(Cache { version: 0, hot: HotStates::new(CACHE_BYTES_MAX) }),
        })
    }

    /// The stored values of whole rows.
    pub(super) fn encode(&self, columns: &[ArrayRef]) -> Result<Vec<Vec<u8>>> {
        let rows = self.converter.convert_columns(columns)?;
        Ok(rows.iter().map(|row| [&[FORMAT], row.data()].concat()).collect())
    }

    /// The columns of stored values, in their order.
    pub(super) fn decode<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let parser = self.converter.parser();
        let mut rows = Vec::new();
        for value in values {
            match value.split_first() {
                Some((&FORMAT, columns)) => rows.push(parser.parse(columns)),
                _ => {
                    let message = "a stored row of a table is not what this version writes; restore a backup";
                    return Err(EngineError::new(ErrorKind::Storage, message));
                }
            }
        }
        let count = rows.len();
        let arrays = self.converter.convert_rows(rows)?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }

    /// The store's key of a row.
    pub(super) fn store_key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }

    /// The range of all rows.
    pub(super) fn range(&self) -> (Vec<u8>, Vec<u8>) {
        (self.prefix.clone(), state::after(&self.prefix))
    }

    /// What writes changed rows.
    pub(super) fn changes(&self, changed: &[RowChange]) -> Vec<Change> {
        let change = |(key, value): &RowChange| match value {
            Some(value) => Change::Put(Family::State, self.store_key(key), value.clone()),
            None => Change::Delete(Family::State, self.store_key(key)),
        };
        changed.iter().map(change).collect()
    }

    /// After the commit of changed rows.
    pub(super) fn committed(&self, changed: Vec<RowChange>) {
        let mut cache = self.cache.lock();
        cache.version += 1;
        for (key, value) in changed {
            cache.hot.put(&key, &value.unwrap_or_default());
        }
    }

    /// After the commit that took all rows away.
    pub(super) fn emptied(&self) {
        let mut cache = self.cache.lock();
        cache.version += 1;
        cache.hot = HotStates::new(CACHE_BYTES_MAX);
    }

    pub(super) fn look_up(&self, keys: &ArrayRef, encoded: &Rows, store: &Store) -> Result<Looked> {
        let mut distinct: HashMap<&[u8], u32> = HashMap::new();
        let mut wanted: Vec<&[u8]> = Vec::new();
        let mut places: Vec<Option<u32>> = Vec::with_capacity(keys.len());
        let rows: Vec<_> = encoded.iter().collect();
        for (row, key) in rows.iter().enumerate() {
            let place = (!keys.is_null(row)).then(|| {
                *distinct.entry(key.data()).or_insert_with(|| {
                    wanted.push(key.data());
                    u32::try_from(wanted.len() - 1).expect("a step has far fewer than 2^32 rows")
                })
            });
            places.push(place);
        }
        let values = self.values(&wanted, store)?;
        let mut found_at: Vec<Option<u32>> = Vec::with_capacity(values.len());
        let mut count = 0;
        for value in &values {
            found_at.push(value.as_ref().map(|_| count));
            count += u32::from(value.is_some());
        }
        let known = self.decode(values.iter().flatten().map(Vec::as_slice))?;
        let indices: UInt32Array =
            places.iter().map(|place| place.and_then(|place| found_at[place as usize])).collect();
        let found: BooleanArray = indices.iter().map(|place| Some(place.is_some())).collect();
        let column = |column: &ArrayRef| match column.is_empty() {
            true => Ok(new_null_array(column.data_type(), indices.len())),
            false => take(column, &indices, None),
        };
        let columns = known.columns().iter().map(column).collect::<std::result::Result<_, _>>()?;
        Ok(Looked { columns, found })
    }

    /// The values of keys, from the cache or the store; None where there is no row.
    fn values(&self, keys: &[&[u8]], store: &Store) -> Result<Vec<Option<Vec<u8>>>> {
        let mut values: Vec<Option<Vec<u8>>> = vec![None; keys.len()];
        let mut missing: Vec<usize> = Vec::new();
        let version = {
            let cache = self.cache.lock();
            for (at, key) in keys.iter().enumerate() {
                match cache.hot.get(key) {
                    Some(value) => values[at] = (!value.is_empty()).then(|| value.to_vec()),
                    None => missing.push(at),
                }
            }
            cache.version
        };
        if missing.is_empty() {
            return Ok(values);
        }
        missing.sort_unstable_by_key(|at| keys[*at]);
        let wanted: Vec<Vec<u8>> = missing.iter().map(|at| self.store_key(keys[*at])).collect();
        let stored = store.get_many(Family::State, &wanted)?;
        let mut cache = self.cache.lock();
        let is_current = cache.version == version;
        for (at, value) in missing.into_iter().zip(stored) {
            if is_current {
                cache.hot.put(keys[at], value.as_deref().unwrap_or_default());
            }
            values[at] = value;
        }
        Ok(values)
    }
}
