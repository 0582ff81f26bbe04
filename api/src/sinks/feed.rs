//! What a sink takes: records of a stream's or view's topic as changes of rows, each value as text.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use broker::{Batch, Offset, PartitionIndex};
use engine::{Engine, META_COLUMNS, Stream, ViewInfo};
use serde_json::value::RawValue;

use crate::config::{SinkColumnConfig, SinkSource};
use crate::output::lines;

/// Bytes that are changes at one time, at most a batch more.
pub const CHANGES_BYTES_MAX: usize = 32 << 20;

/// A row: the JSON text of each column. Text, so that a number keeps all its digits.
pub type Row = BTreeMap<String, String>;

/// One change of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The record's partition.
    pub partition: PartitionIndex,
    /// The record's offset.
    pub offset: Offset,
    /// The row's columns; only those of its identity when it is gone.
    pub row: Row,
    /// Whether the row is gone.
    pub gone: bool,
}

/// Changes, and from how many batches they are.
pub type Changes = (Vec<Change>, usize);

impl Change {
    /// Bytes of its text.
    pub fn size(&self) -> usize {
        self.row.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// Where changes come from. Never changes.
pub enum Feed {
    /// The rows of a stream.
    Stream(Arc<Stream>),
    /// The changes of a view, as it is declared.
    View(ViewInfo),
}

impl Feed {
    /// Finds what the sink takes.
    ///
    /// # Errors
    /// That there is no such stream or view, with those that there are.
    pub fn find(engine: &Engine, source: &SinkSource) -> Result<Feed, String> {
        match source {
            SinkSource::Stream(name) => {
                let streams = engine.streams();
                let names: Vec<&str> = streams.iter().map(|stream| stream.name()).collect();
                let missing = format!("no stream {name}: there are {}", names.join(", "));
                streams.iter().find(|stream| stream.name() == name).cloned().map(Feed::Stream).ok_or(missing)
            }
            SinkSource::View(name) => {
                let views = engine.declared_views();
                let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
                let missing = format!("no view {name}: there are {}", names.join(", "));
                views.iter().find(|view| view.name == *name).cloned().map(Feed::View).ok_or(missing)
            }
        }
    }

    /// The topic that is read.
    pub fn topic(&self) -> &str {
        match self {
            Feed::Stream(stream) => stream.topic(),
            Feed::View(view) => &view.name,
        }
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Feed::Stream(stream) => stream.schema(),
            Feed::View(view) => view.schema.clone(),
        }
    }

    /// The columns that name a row of a view.
    pub fn identity(&self) -> Vec<String> {
        match self {
            Feed::Stream(_) => Vec::new(),
            Feed::View(view) => {
                let window = view.windows.as_ref().map(|_| "window_start".to_owned());
                window.into_iter().chain(view.keys.iter().cloned()).collect()
            }
        }
    }

    /// All columns, for a sink that names none.
    pub fn columns(&self) -> Vec<SinkColumnConfig> {
        let schema = self.schema();
        let names =
            schema.fields().iter().map(|field| field.name()).filter(|name| !META_COLUMNS.contains(&name.as_str()));
        names.map(|name| SinkColumnConfig { name: name.clone(), from: name.clone(), sql_type: None }).collect()
    }

    /// A column by name.
    ///
    /// # Errors
    /// That there is none, with those that there are.
    pub fn field(&self, name: &str) -> Result<Field, String> {
        let schema = self.schema();
        schema.field_with_name(name).cloned().map_err(|_| {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            format!("no column {name} in {}: there are {}", self.topic(), names.join(", "))
        })
    }

    /// The changes in the first of some batches of one partition, from an offset on, in order: of as many, but at least
    /// one, as are to be held at once, however far they unfold. Gives how many those are.
    ///
    /// # Errors
    /// What cannot be read, for the log.
    pub fn changes(&self, partition: PartitionIndex, batches: &[Batch], from: Offset) -> Result<Changes, String> {
        match self {
            Feed::Stream(stream) => rows_of(stream, partition, batches, from),
            Feed::View(_) => {
                let (mut changes, mut bytes, mut taken) = (Vec::new(), 0, 0);
                for batch in batches {
                    taken += 1;
                    if !batch.is_control() {
                        bytes += view_changes(partition, batch, from, &mut changes)?;
                    }
                    if bytes >= CHANGES_BYTES_MAX {
                        break;
                    }
                }
                Ok((changes, taken))
            }
        }
    }
}

/// Gives the bytes of the records.
fn view_changes(
    partition: PartitionIndex,
    batch: &Batch,
    from: Offset,
    changes: &mut Vec<Change>,
) -> Result<usize, String> {
    let mut records = batch.records().map_err(|error| error.to_string())?;
    let mut bytes = 0;
    while let Some(record) = records.next_ref() {
        let record = record.map_err(|error| error.to_string())?;
        bytes += record.size();
        if record.offset >= from {
            changes.extend(change_of(partition, record.offset, record.key, record.value));
        }
    }
    Ok(bytes)
}

/// Records that are not rows are in `<stream>.rejected` already.
fn rows_of(stream: &Stream, partition: PartitionIndex, batches: &[Batch], from: Offset) -> Result<Changes, String> {
    let (decoded, taken) = stream.decode_some(partition, batches).map_err(|error| error.to_string())?;
    let text = lines(&decoded.rows.schema(), vec![decoded.rows]).map_err(|problem| problem.detail().to_owned())?;
    let change = |line: &[u8]| {
        let row = row_of(line)?;
        let offset = row.get("_offset")?.parse().ok()?;
        (offset >= from).then_some(Change { partition, offset, row, gone: false })
    };
    Ok((text.split(|byte| *byte == b'\n').filter_map(change).collect(), taken))
}

fn row_of(json: &[u8]) -> Option<Row> {
    let columns: BTreeMap<String, &RawValue> = serde_json::from_slice(json).ok()?;
    Some(columns.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect())
}

/// What is not JSON in a view's topic was not written by the view.
fn change_of(partition: PartitionIndex, offset: Offset, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Change> {
    let gone = value.is_none();
    let row = row_of(value.or(key)?)?;
    Some(Change { partition, offset, row, gone })
}

/// PostgreSQL's type for a column.
pub fn postgres_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric",
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double precision",
        DataType::Boolean => "boolean",
        DataType::Timestamp(..) => "timestamptz",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::List(_) | DataType::Struct(_) | DataType::Map(..) => "jsonb",
        _ => "text",
    }
}

/// A value as PostgreSQL reads it; none for null.
pub fn text_of(json: Option<&String>) -> Option<String> {
    match json?.as_str() {
        "null" => None,
        text if text.starts_with('"') => serde_json::from_str(text).ok(),
        number => Some(number.to_owned()),
    }
}

/// A row as a JSON object.
pub fn json_of<'a>(columns: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let members = columns.map(|(name, value)| format!("{}:{value}", serde_json::Value::from(name.as_str())));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_all_their_digits() {
        let json = r#"{"a": 7771.571428571428, "b": "l'été \"x\" \u0000", "c": null, "d": [1, "2"], "e": 12345678901234567890.10, "f": true}"#;
        let row = row_of(json.as_bytes()).unwrap();
        let texts: Vec<Option<String>> =
            ["a", "b", "c", "d", "e", "f", "g"].iter().map(|name| text_of(row.get(*name))).collect();
        let some = |text: &str| Some(text.to_owned());
        let wanted = [
            some("7771.571428571428"),
            some("l'été \"x\" \0"),
            None,
            some(r#"[1, "2"]"#),
            some("12345678901234567890.10"),
            some("true"),
            None,
        ];
        assert_eq!(texts, wanted);
        assert_eq!(json_of(row.iter().take(1)), r#"{"a":7771.571428571428}"#);
        assert!(row_of(b"[1]").is_none() && row_of(b"").is_none());
    }
}
