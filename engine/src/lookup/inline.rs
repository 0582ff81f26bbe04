//! The rows of a table that are written out in the configuration, or in a CSV file beside it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows};

use super::Looked;
use crate::columns::{ColumnBuffer, ColumnType};
use crate::config::{TableConfig, TableRows};
use crate::error::Result;
use crate::names::closest;

/// Most rows of such a table; larger ones belong in a topic.
const ROWS_MAX: usize = 1_000_000;
/// Largest CSV file.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Mistakes named per table.
const MISTAKES_MAX: usize = 10;

/// Rows that never change.
pub(super) struct InlineRows {
    rows: RecordBatch,
    by_key: HashMap<Box<[u8]>, u32>,
}

type Mistakes = Vec<String>;

impl InlineRows {
    /// Reads the rows; every mistake is named with its row, counted from 1.
    pub(super) fn read(
        config: &TableConfig,
        (kinds, schema): (&[ColumnType], &SchemaRef),
        keys: &RowConverter,
        key_index: usize,
    ) -> std::result::Result<InlineRows, Mistakes> {
        let texts = match &config.rows {
            TableRows::Inline(rows) => rows.clone(),
            TableRows::File(path) => read_csv(path, config)?,
            TableRows::Topic(_) => Vec::new(),
        };
        if texts.len() > ROWS_MAX {
            return Err(vec![format!("{} rows, at most {ROWS_MAX}: put them into a compacted topic", texts.len())]);
        }
        let rows = parse(config, kinds, schema, &texts)?;
        let encoded =
            keys.convert_columns(&[rows.column(key_index).clone()]).map_err(|error| vec![error.to_string()])?;
        let mut by_key: HashMap<Box<[u8]>, u32> = HashMap::new();
        let mut mistakes = Vec::new();
        for (row, key) in encoded.iter().enumerate() {
            let number = u32::try_from(row).expect("rows are at most a million");
            if rows.column(key_index).is_null(row) {
                mistakes.push(format!("row {}: the key '{}' is empty", row + 1, config.key));
            } else if by_key.insert(key.data().into(), number).is_some() {
                mistakes.push(format!("row {}: the key '{}' stands twice, remove one row", row + 1, config.key));
            }
        }
        mistakes.truncate(MISTAKES_MAX);
        if mistakes.is_empty() { Ok(InlineRows { rows, by_key }) } else { Err(mistakes) }
    }

    /// All rows.
    pub(super) fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    pub(super) fn look_up(&self, keys: &ArrayRef, encoded: &Rows) -> Result<Looked> {
        let place = |(row, key): (usize, arrow::row::Row<'_>)| match keys.is_null(row) {
            true => None,
            false => self.by_key.get(key.data()).copied(),
        };
        let places: UInt32Array = encoded.iter().enumerate().map(place).collect();
        let columns = self.rows.columns().iter().map(|column| take(column, &places, None));
        let found: BooleanArray = places.iter().map(|place| Some(place.is_some())).collect();
        Ok(Looked { columns: columns.collect::<std::result::Result<_, _>>()?, found })
    }
}

fn parse(
    config: &TableConfig,
    kinds: &[ColumnType],
    schema: &SchemaRef,
    texts: &[Vec<String>],
) -> std::result::Result<RecordBatch, Mistakes> {
    let mut mistakes = Vec::new();
    let mut columns: Vec<ColumnBuffer> = kinds.iter().map(|kind| ColumnBuffer::new(*kind)).collect();
    for (at, row) in texts.iter().enumerate() {
        if row.len() != columns.len() {
            mistakes.push(format!("row {} has {} values, wanted {}", at + 1, row.len(), columns.len()));
        }
        for (index, column) in columns.iter_mut().enumerate() {
            let text = row.get(index).map_or("", String::as_str);
            let required = config.columns[index].required;
            if text.is_empty() && kinds[index] != ColumnType::Varchar && !required {
                column.push_null();
            } else if !column.push_text(text) {
                let name = &config.columns[index].name;
                mistakes.push(format!("row {}: '{text}' is not {} for {name}", at + 1, kinds[index].wants()));
                column.push_null();
            }
        }
        if mistakes.len() >= MISTAKES_MAX {
            break;
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let finish = || {
        let arrays = columns.into_iter().map(ColumnBuffer::finish).collect::<std::result::Result<Vec<_>, _>>()?;
        RecordBatch::try_new(Arc::clone(schema), arrays)
    };
    finish().map_err(|error| vec![error.to_string()])
}

/// The rows of a CSV file with the declared columns in their order.
fn read_csv(path: &Path, config: &TableConfig) -> std::result::Result<Vec<Vec<String>>, Mistakes> {
    let wrong = |error: &dyn std::fmt::Display| vec![format!("file {}: {error}", path.display())];
    let bytes = std::fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(wrong(&format!("{bytes} bytes, at most {FILE_BYTES_MAX}: load it into a compacted topic")));
    }
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(|error| wrong(&error))?;
    let header: Vec<String> = reader.headers().map_err(|error| wrong(&error))?.iter().map(str::to_string).collect();
    let mut places = Vec::new();
    for column in &config.columns {
        let name = column.from.as_ref().unwrap_or(&column.name);
        let place = header.iter().position(|field| field.trim_start_matches('\u{feff}') == name);
        let hint = || closest(name, header.iter().map(String::as_str));
        places.push(place.ok_or_else(|| wrong(&format!("its first line has no column '{name}'{}", hint())))?);
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(&error))?;
        rows.push(places.iter().map(|place| record.get(*place).unwrap_or_default().to_string()).collect());
        if rows.len() > ROWS_MAX {
            break;
        }
    }
    Ok(rows)
}
