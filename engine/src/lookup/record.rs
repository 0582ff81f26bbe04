//! Records of a compacted topic → keys and rows of a table. The key is the record's own: its text, or the field of the
//! same name when it is a JSON object; without a record key it is taken from the value. A record without value deletes.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::ArrayRef;
use broker::{Batch, Offset, PartitionIndex, RecordRef};

use super::rows::RowChange;
use super::{Contents, LookupTable};
use crate::columns::ColumnBuffer;
use crate::decode::{rejected, visit_from};
use crate::error::{EngineError, Result};
use crate::fields::{Refusal, refusal};
use crate::json::{JsonScanner, JsonValue};
use crate::source::Decode;
use crate::stream::Rejected;

/// Rows under construction. All column buffers have `deletes.len()` entries between records.
pub(crate) struct RecordDecoder<'t> {
    table: &'t LookupTable,
    columns: Vec<ColumnBuffer>,
    /// Whether the row goes.
    deletes: Vec<bool>,
    /// Partition and timestamp of each row's record.
    timestamps: Vec<i64>,
    rejected: Vec<Rejected>,
    bytes: usize,
}

/// What a step's records do.
pub(super) struct DecodedRows {
    /// Per record, in order: a later one of the same key is the newer.
    pub(super) changes: Vec<RowChange>,
    /// The timestamps of the records in `changes`.
    pub(super) timestamps: Vec<i64>,
    pub(super) rejected: Vec<Rejected>,
}

impl<'t> RecordDecoder<'t> {
    pub(crate) fn new(table: &'t LookupTable) -> RecordDecoder<'t> {
        RecordDecoder {
            table,
            columns: table.fields.buffers(),
            deletes: Vec::new(),
            timestamps: Vec::new(),
            rejected: Vec::new(),
            bytes: 0,
        }
    }

    fn record(&mut self, partition: PartitionIndex, record: &RecordRef<'_>) {
        let row = self.deletes.len();
        self.bytes += record.size();
        match self.fields(record, row) {
            Ok(()) => {
                self.deletes.push(record.value.is_none());
                self.timestamps.push(record.timestamp);
            }
            Err(refusal) => {
                self.columns.iter_mut().for_each(|column| column.truncate(row));
                self.rejected.push(rejected(partition, record, refusal.rule.into(), refusal.reason));
            }
        }
    }

    fn fields(&mut self, record: &RecordRef<'_>, row: usize) -> std::result::Result<(), Refusal> {
        match record.value {
            Some(value) => {
                self.table.fields.read(value, &mut self.columns, row)?;
                self.table.fields.complete(&mut self.columns, row)?;
            }
            None if record.key.is_none() => return Err(refusal("null_value", "the record has neither key nor value")),
            None => self.columns.iter_mut().for_each(ColumnBuffer::push_null),
        }
        let key_index = self.table.key_index;
        let column = &mut self.columns[key_index];
        if let Some(key) = record.key {
            column.truncate(row);
            self.push_key(key, row)?;
        }
        match self.columns[key_index].is_last_valid() {
            true => Ok(()),
            false => Err(refusal("key", format!("the record has no key and no field '{}'", self.table.config.key))),
        }
    }

    fn push_key(&mut self, key: &[u8], row: usize) -> std::result::Result<(), Refusal> {
        let name = &self.table.config.key;
        let kind = self.table.kinds[self.table.key_index];
        let column = &mut self.columns[self.table.key_index];
        let text = std::str::from_utf8(key).map_err(|error| refusal("key", format!("not UTF-8: {error}")))?;
        let pushed = match text.trim_start().as_bytes().first() {
            Some(b'{') => match field_of(text, name) {
                Some(value) => column.push(&value),
                None => return Err(refusal("key", format!("the record's key is not a JSON object with '{name}'"))),
            },
            Some(b'"') => match JsonScanner::whole(text) {
                Ok(JsonValue::String(text)) => column.push_text(&text),
                _ => column.push_text(text),
            },
            _ => column.push_text(text),
        };
        if !pushed || column.len() == row {
            return Err(refusal("key", format!("the record's key is not {} for column '{name}'", kind.wants())));
        }
        Ok(())
    }

    /// Keys, rows and refusals.
    pub(super) fn finish(self) -> Result<DecodedRows> {
        let Contents::Stored(_, rows) = &self.table.contents else {
            return Err(EngineError::bug("a table that is written out follows a topic"));
        };
        let arrays: Vec<ArrayRef> =
            self.columns.into_iter().map(ColumnBuffer::finish).collect::<std::result::Result<_, _>>()?;
        let keys = self.table.keys.convert_columns(&[Arc::clone(&arrays[self.table.key_index])])?;
        let values = rows.encode(&arrays)?;
        let row = |((key, value), deletes): ((arrow::row::Row<'_>, Vec<u8>), bool)| {
            (key.data().to_vec(), (!deletes).then_some(value))
        };
        let changes = keys.iter().zip(values).zip(self.deletes).map(row).collect();
        Ok(DecodedRows { changes, timestamps: self.timestamps, rejected: self.rejected })
    }
}

impl Decode for RecordDecoder<'_> {
    fn push_from(&mut self, partition: PartitionIndex, batch: &Batch, from: Offset) -> Result<()> {
        if batch.is_control() {
            return Ok(());
        }
        let unreadable = visit_from((partition, batch), from, |record, _| {
            self.record(partition, record);
            Ok(())
        })?;
        self.rejected.extend(unreadable);
        Ok(())
    }

    fn records(&self) -> usize {
        self.deletes.len() + self.rejected.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A field of a JSON object, if the text is one.
fn field_of<'a>(text: &'a str, name: &str) -> Option<JsonValue<'a>> {
    let mut scanner = JsonScanner::new(text);
    scanner.enter_object().ok()?;
    let mut found = None;
    let mut first = true;
    while let Some((field, value)) = scanner.next_field(first).ok()? {
        first = false;
        if field == Cow::Borrowed(name) {
            found = Some(value);
        }
    }
    found
}
