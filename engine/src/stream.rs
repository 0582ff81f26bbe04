//! A declared stream: a topic of records in one of the formats with columns, event time, required fields and checks.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use broker::{Batch, Offset, PartitionIndex, Schemas, TimestampMs, TopicName};
use bytes::Bytes;

use crate::columns::{ColumnType, timestamp_type};
use crate::conditions::Conditions;
use crate::config::{CheckAction, ColumnConfig, StreamConfig, StreamFormat};
use crate::decode::Decoder;
use crate::delimited;
use crate::error::Result;
use crate::fields::FieldMap;
use crate::names::{closest, is_topic_name};
use crate::own_schema::Own;
use crate::source::Decode;
use crate::wire::Wire;

/// The columns every stream has after its declared ones.
pub const META_COLUMNS: [&str; 4] = ["_key", "_timestamp", "_partition", "_offset"];

/// The built-in rules that reject a record; a check cannot take one of these names.
pub const RULES: [&str; 21] = [
    "unreadable",
    "null_value",
    "utf8",
    "json",
    "not_object",
    "schema_prefix",
    "schema_id",
    "avro",
    "protobuf",
    "csv",
    "duplicate_field",
    "type",
    "required",
    "max_ahead",
    "check_failed",
    "too_large",
    "expression",
    "duplicate",
    "too_old",
    "too_many",
    "key",
];

/// A checked stream. Holds: the schema, where its fields stand and the compiled checks. Never changes after it is made; nothing of it is stored
/// but its definition's part in the views' fingerprints.
pub struct Stream {
    config: StreamConfig,
    topic: TopicName,
    schema: SchemaRef,
    types: Vec<ColumnType>,
    event_time_index: usize,
    fields: FieldMap,
    conditions: Conditions,
    wire: Wire,
}

/// What `decode` gives: the good rows, and the records that were refused.
#[derive(Debug)]
pub struct Decoded {
    /// Declared columns, then `_key`, `_timestamp`, `_partition`, `_offset`; in log order.
    pub rows: RecordBatch,
    /// Refused records in log order per partition.
    pub rejected: Vec<Rejected>,
    /// Rows that a check warns about: index into `rows` and the check's name.
    pub warned: Vec<(usize, Arc<str>)>,
}

/// A record that is not a row of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The partition it is in.
    pub partition: PartitionIndex,
    /// Its offset; the first one where several unreadable records are refused together.
    pub offset: Offset,
    /// How many records: 1, or all that follow in a batch that cannot be read further.
    pub records: i64,
    /// The rule it broke: one of [`RULES`] or a check's name.
    pub rule: Arc<str>,
    /// What is wrong, in words.
    pub reason: String,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value.
    pub value: Option<Bytes>,
    /// The record's timestamp.
    pub timestamp: TimestampMs,
    /// The record's own headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Rejected {
    /// What cannot be read of a batch is refused as one, so that one bad batch never holds up what follows.
    pub(crate) fn rest(partition: PartitionIndex, batch: &Batch, from: Offset, error: &broker::Error) -> Rejected {
        Rejected {
            partition,
            offset: from,
            records: batch.next_offset().saturating_sub(from).max(1),
            rule: "unreadable".into(),
            reason: format!("records from here to offset {} cannot be read: {error}", batch.last_offset()),
            key: None,
            value: None,
            timestamp: batch.max_timestamp(),
            headers: Vec::new(),
        }
    }
}

impl Stream {
    /// Checks a declaration; Err lists every mistake in it.
    pub(crate) fn new(config: &StreamConfig) -> std::result::Result<Stream, Vec<String>> {
        let mut mistakes = Vec::new();
        let types = column_types(&config.columns, &mut mistakes);
        check_settings(config, &mut mistakes);
        let event_time_index = event_time_index(config, &mut mistakes);
        let schema = schema_of(config, &types);
        let mut fields = FieldMap::new(&config.columns, &types, &mut mistakes);
        event_time_index.into_iter().for_each(|index| fields.require(index));
        let conditions = Conditions::compile(&config.checks, &config.name, &schema, &mut mistakes);
        let own = Own::compile(config, &mut mistakes);
        match event_time_index {
            Some(event_time_index) if mistakes.is_empty() => Ok(Stream {
                topic: TopicName::from(config.topic.as_str()),
                config: config.clone(),
                schema,
                types,
                event_time_index,
                fields,
                conditions,
                wire: Wire::new(own),
            }),
            _ => Err(mistakes.into_iter().map(|mistake| format!("stream {}: {mistake}", config.name)).collect()),
        }
    }

    /// The name in SQL.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The topic it reads.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The declared columns, then [`META_COLUMNS`]: `_key` Binary, `_timestamp` Timestamp(ms, UTC) (null when the record
    /// has none), `_partition` Int32, `_offset` Int64.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The name of the event-time column.
    pub fn event_time(&self) -> &str {
        &self.config.event_time
    }

    /// The declaration.
    pub fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// Gives it the registry that its records' schema ids are looked up in.
    pub(crate) fn bind(&self, schemas: Arc<Schemas>) {
        self.wire.bind(schemas);
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// A JSON value as the stream's records are written: where they have schemas, with the latest one of the subject
    /// `<topic>-value` and its prefix, or with the stream's own.
    ///
    /// # Errors
    /// What is missing or does not fit, and what to do.
    pub fn encode(&self, json: &str) -> std::result::Result<Vec<u8>, String> {
        match self.config.format {
            StreamFormat::Json => Ok(json.as_bytes().to_vec()),
            StreamFormat::Csv => delimited::encode(&self.config, json),
            _ => self.wire.encode(&self.config, json),
        }
    }

    pub(crate) fn event_time_index(&self) -> usize {
        self.event_time_index
    }

    /// Where the columns' values stand in a record.
    pub(crate) fn fields(&self) -> &FieldMap {
        &self.fields
    }

    /// The compiled checks.
    pub(crate) fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// The event times of decoded rows.
    pub(crate) fn event_times<'a>(&self, rows: &'a RecordBatch) -> &'a TimestampMillisecondArray {
        let column = rows.column(self.event_time_index).as_any().downcast_ref();
        column.expect("the event-time column is declared TIMESTAMP")
    }

    /// The partition and the offset of each row of a stream.
    pub(crate) fn places(rows: &RecordBatch) -> (&[PartitionIndex], &[Offset]) {
        let [.., partitions, offsets] = rows.columns() else { return (&[], &[]) };
        (partitions.as_primitive::<Int32Type>().values(), offsets.as_primitive::<Int64Type>().values())
    }

    /// Decodes the records of one partition's batches. Pure and deterministic: the same records give the same rows and
    /// the same refusals wherever and in whatever portions it is called. Control batches hold no rows.
    ///
    /// # Errors
    /// `Bug` when Arrow refuses what was built; `TooLarge` when the batches together hold more than 2 GiB of text.
    pub fn decode(&self, partition: PartitionIndex, batches: &[Batch]) -> Result<Decoded> {
        let mut decoder = Decoder::new(self);
        for batch in batches {
            decoder.push(partition, batch)?;
        }
        decoder.finish()
    }

    /// As [`decode`](Self::decode), of as many of the batches, but at least one, as are to be held in memory at once; gives
    /// how many those are. However far a batch unfolds, what is decoded stays bounded.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_some(&self, partition: PartitionIndex, batches: &[Batch]) -> Result<(Decoded, usize)> {
        let mut decoder = Decoder::new(self);
        let mut taken = 0;
        for batch in batches {
            decoder.push(partition, batch)?;
            taken += 1;
            if decoder.is_full() {
                break;
            }
        }
        Ok((decoder.finish()?, taken))
    }

    /// All that decides which rows the stream has, as text for the fingerprint of stored state. A column that came later belongs to it
    /// where its index is used.
    pub(crate) fn definition(&self, uses: &dyn Fn(usize) -> bool) -> String {
        self.definition_with(self.config.columns.len(), uses)
    }

    /// The same as it was before the last columns came: those may be null, and what is asked for does not use them, so that its rows
    /// are the same. What a derived stream writes follows from its text.
    pub(crate) fn earlier_definitions(&self, uses: &dyn Fn(usize) -> bool) -> Vec<String> {
        let columns = &self.config.columns;
        let may_come = |index: &usize| !columns[*index].required && !uses(*index) && self.config.sql.is_none();
        let last = (1..columns.len()).rev().take_while(may_come);
        last.map(|count| self.definition_with(count, uses)).collect()
    }

    /// The definition with so many columns.
    fn definition_with(&self, count: usize, uses: &dyn Fn(usize) -> bool) -> String {
        let config = &self.config;
        let mut text = format!("{}|{}|{}|{}", config.name, config.topic, config.event_time, config.max_ahead_ms);
        if config.format != StreamFormat::Json {
            text.push_str(&format!("|format {:?}", config.format));
        }
        if config.format == StreamFormat::Csv {
            text.push_str(&format!(" {:?} {:?}", config.csv.delimiter, config.csv.null_text));
        }
        if let Some(schema) = &config.schema {
            text.push_str(&format!(" {:?} {:?} {:?}", schema.text, schema.imports, schema.message));
        }
        let columns = config.columns.iter().zip(&self.types).enumerate().take(count);
        for (_, (column, kind)) in columns.filter(|(index, (column, _))| !column.added || uses(*index)) {
            text.push_str(&format!("|column {:?} {kind:?} {}", column.name, column.required));
            if let Some(from) = &column.from {
                text.push_str(&format!(" from {from:?}"));
            }
        }
        for check in config.checks.iter().filter(|check| check.action == CheckAction::Reject) {
            text.push_str(&format!("|check {:?} {:?}", check.name, check.sql));
        }
        text
    }
}

/// The types of declared columns; mistakes in names and types are noted.
pub(crate) fn column_types(columns: &[ColumnConfig], mistakes: &mut Vec<String>) -> Vec<ColumnType> {
    let mut types = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        let name = &column.name;
        if name.is_empty() || name.starts_with('_') || name == "window_start" || name == "window_end" {
            mistakes.push(format!(
                "column '{name}': the name is reserved (empty, a leading '_', window_start, window_end), rename it"
            ));
        }
        if columns[..index].iter().any(|other| other.name == *name) {
            mistakes.push(format!("column '{name}' is declared twice, remove one"));
        }
        match ColumnType::parse(&column.sql_type) {
            Ok(kind) => types.push(kind),
            Err(mistake) => {
                mistakes.push(format!("column '{name}': {mistake}"));
                types.push(ColumnType::Varchar);
            }
        }
    }
    types
}

fn check_settings(config: &StreamConfig, mistakes: &mut Vec<String>) {
    if !is_topic_name(&config.name) {
        mistakes.push("the name must be 1 to 200 letters, digits, '.', '_' or '-', as it names a topic too".into());
    }
    if !is_topic_name(&config.topic) {
        mistakes.push(format!("topic '{}' is not a topic name, use letters, digits, '.', '_' or '-'", config.topic));
    }
    if config.columns.is_empty() {
        mistakes.push("no columns: declare at least the event-time column".into());
    }
    if config.format == StreamFormat::Csv {
        delimited::check(config, mistakes);
    }
    let times = [
        ("lateness", config.lateness_ms),
        ("idle_timeout", config.idle_timeout_ms),
        ("max_ahead", config.max_ahead_ms),
    ];
    for (key, value_ms) in times {
        if value_ms < 0 {
            mistakes.push(format!("{key} is negative ({value_ms} ms), use 0 or more"));
        }
    }
}

fn event_time_index(config: &StreamConfig, mistakes: &mut Vec<String>) -> Option<usize> {
    let wanted = &config.event_time;
    let Some(index) = config.columns.iter().position(|column| column.name == *wanted) else {
        let hint = closest(wanted, config.columns.iter().map(|column| column.name.as_str()));
        mistakes.push(format!("event_time '{wanted}' is not a declared column{hint}"));
        return None;
    };
    let sql_type = &config.columns[index].sql_type;
    if ColumnType::parse(sql_type).is_ok_and(|kind| kind != ColumnType::Timestamp) {
        mistakes.push(format!("event_time '{wanted}' is {sql_type}, declare it TIMESTAMP"));
        return None;
    }
    Some(index)
}

fn schema_of(config: &StreamConfig, types: &[ColumnType]) -> SchemaRef {
    let mut fields: Vec<Field> = Vec::new();
    for (column, kind) in config.columns.iter().zip(types) {
        let required = column.required || column.name == config.event_time;
        fields.push(Field::new(&column.name, kind.data_type(), !required));
    }
    fields.push(Field::new(META_COLUMNS[0], DataType::Binary, true));
    fields.push(Field::new(META_COLUMNS[1], timestamp_type(), true));
    fields.push(Field::new(META_COLUMNS[2], DataType::Int32, false));
    fields.push(Field::new(META_COLUMNS[3], DataType::Int64, false));
    Arc::new(Schema::new(fields))
}
