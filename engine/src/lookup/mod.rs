//! Tables that derived streams join: the latest value per key, from a compacted topic or written out in the configuration.
//!
//! A record of a topic goes: `feed` (the loop of one table) → `record` (bytes → key and columns) → one commit of rows,
//! offsets, refused records and counters. A look-up goes: `rows` (a cache, then the store). SQL reads `provider`.

mod feed;
mod inline;
mod provider;
mod record;
mod rows;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use broker::{Store, TopicName};

use crate::columns::ColumnType;
use crate::config::{TableConfig, TableRows};
use crate::error::Result;
use crate::fields::FieldMap;
use crate::names::{closest, is_topic_name};
use crate::state;
use crate::stream::column_types;

pub(crate) use feed::TableFeed;
pub(crate) use provider::lookup_table;
#[cfg(test)]
pub(crate) use record::RecordDecoder;

use inline::InlineRows;
use rows::StoredRows;

/// A checked table. Holds: its columns, and the rows it was given or the way to those of its topic. Only `feed` changes
/// the rows of a topic's table; they are in the store and survive a crash.
pub(crate) struct LookupTable {
    config: TableConfig,
    schema: SchemaRef,
    kinds: Vec<ColumnType>,
    fields: FieldMap,
    key_index: usize,
    keys: RowConverter,
    contents: Contents,
}

enum Contents {
    Inline(InlineRows),
    Stored(TopicName, StoredRows),
}

/// Columns found for keys: null where there is no row.
pub(crate) struct Looked {
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) found: BooleanArray,
}

impl LookupTable {
    /// Checks a declaration, and reads its file if it has one; Err lists every mistake in it.
    pub(crate) fn new(config: &TableConfig) -> std::result::Result<LookupTable, Vec<String>> {
        let mut mistakes = Vec::new();
        let kinds = column_types(&config.columns, &mut mistakes);
        let fields = FieldMap::new(&config.columns, &kinds, &mut mistakes);
        check_names(config, &mut mistakes);
        let key_index = key_index(config, &kinds, &mut mistakes);
        let columns = config.columns.iter().zip(&kinds);
        // All may be null: that is what a join finds where there is no row.
        let schema: SchemaRef = Arc::new(Schema::new(
            columns.map(|(column, kind)| Field::new(&column.name, kind.data_type(), true)).collect::<Vec<_>>(),
        ));
        let named = |mistakes: Vec<String>| {
            mistakes.into_iter().map(|mistake| format!("table {}: {mistake}", config.name)).collect::<Vec<_>>()
        };
        let Some(key_index) = key_index.filter(|_| mistakes.is_empty()) else { return Err(named(mistakes)) };
        let built = || -> std::result::Result<(RowConverter, Contents), Vec<String>> {
            let key = SortField::new(schema.field(key_index).data_type().clone());
            let keys = RowConverter::new(vec![key]).map_err(|error| vec![error.to_string()])?;
            let contents = match &config.rows {
                TableRows::Topic(topic) => {
                    let rows = StoredRows::new(&config.name, &schema).map_err(|error| vec![error.message])?;
                    Contents::Stored(TopicName::from(topic.as_str()), rows)
                }
                _ => Contents::Inline(InlineRows::read(config, (&kinds, &schema), &keys, key_index)?),
            };
            Ok((keys, contents))
        };
        let (keys, contents) = built().map_err(named)?;
        Ok(LookupTable { config: config.clone(), schema, kinds, fields, key_index, keys, contents })
    }

    /// The name in SQL.
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// The declaration.
    pub(crate) fn config(&self) -> &TableConfig {
        &self.config
    }

    /// Its columns, as declared.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The column that rows are found by.
    pub(crate) fn key_index(&self) -> usize {
        self.key_index
    }

    /// The topic its rows come from; none when they are written out.
    pub(crate) fn topic(&self) -> Option<&TopicName> {
        match &self.contents {
            Contents::Stored(topic, _) => Some(topic),
            Contents::Inline(_) => None,
        }
    }

    /// Rows that are written out.
    pub(crate) fn inline_rows(&self) -> usize {
        match &self.contents {
            Contents::Inline(rows) => rows.rows().num_rows(),
            Contents::Stored(..) => 0,
        }
    }

    /// The rows of these keys, as of now. The array is of the key column's type.
    pub(crate) fn look_up(&self, keys: &ArrayRef, store: &Store) -> Result<Looked> {
        let encoded = self.keys.convert_columns(std::slice::from_ref(keys))?;
        match &self.contents {
            Contents::Inline(rows) => rows.look_up(keys, &encoded),
            Contents::Stored(_, rows) => rows.look_up(keys, &encoded, store),
        }
    }

    /// Of everything that decides what the stored rows mean.
    pub(crate) fn fingerprint(&self) -> u64 {
        let config = &self.config;
        let topic = self.topic().map_or("", |topic| topic);
        let mut text = format!("{topic}|{}", config.key);
        for (column, kind) in config.columns.iter().zip(&self.kinds) {
            text.push_str(&format!("|{:?} {kind:?} {:?} {}", column.name, column.from, column.required));
        }
        state::fingerprint("table", &text)
    }
}

fn check_names(config: &TableConfig, mistakes: &mut Vec<String>) {
    if !is_topic_name(&config.name) {
        mistakes.push("the name must be 1 to 200 letters, digits, '.', '_' or '-', as it names a topic too".into());
    }
    if let TableRows::Topic(topic) = &config.rows
        && !is_topic_name(topic)
    {
        mistakes.push(format!("topic '{topic}' is not a topic name, use letters, digits, '.', '_' or '-'"));
    }
}

fn key_index(config: &TableConfig, kinds: &[ColumnType], mistakes: &mut Vec<String>) -> Option<usize> {
    let Some(index) = config.columns.iter().position(|column| column.name == config.key) else {
        let hint = closest(&config.key, config.columns.iter().map(|column| column.name.as_str()));
        mistakes.push(format!("key '{}' is not a declared column{hint}", config.key));
        return None;
    };
    if matches!(kinds[index], ColumnType::Double | ColumnType::Texts) {
        let sql_type = &config.columns[index].sql_type;
        mistakes.push(format!("key '{}' is {sql_type}, which does not compare exactly, declare another", config.key));
        return None;
    }
    Some(index)
}
