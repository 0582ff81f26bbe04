//! The engine's configuration as plain values; `check.rs` says what is wrong with one.

/// Everything the engine runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineConfig {
    /// The declared streams.
    pub streams: Vec<StreamConfig>,
    /// The materialized views over them.
    pub views: Vec<ViewConfig>,
}

/// How the values of a stream's records are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamFormat {
    /// A JSON object.
    #[default]
    Json,
    /// A byte 0, four bytes of a schema's id in the registry, then Avro's binary form.
    Avro,
    /// A byte 0, four bytes of a schema's id in the registry, then a JSON object.
    JsonSchema,
}

/// A topic of records, given columns and event time.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamConfig {
    /// The name in SQL.
    pub name: String,
    /// The topic it reads; created when it does not exist.
    pub topic: String,
    /// How the records' values are written.
    pub format: StreamFormat,
    /// The columns read from each record by name; other fields are ignored.
    pub columns: Vec<ColumnConfig>,
    /// The TIMESTAMP column that windows go by; always required in a record.
    pub event_time: String,
    /// How far behind the event watermark a window still takes rows, in milliseconds.
    pub lateness_ms: i64,
    /// After this time without a record a partition no longer holds the event watermark back, in milliseconds; 0 = never.
    pub idle_timeout_ms: i64,
    /// A record whose event time is later than its own timestamp plus this is rejected, in milliseconds.
    pub max_ahead_ms: i64,
    /// Conditions that each row must meet.
    pub checks: Vec<CheckConfig>,
}

impl Default for StreamConfig {
    /// Empty names, ten seconds of lateness, idle after thirty seconds, at most an hour ahead.
    fn default() -> StreamConfig {
        StreamConfig {
            name: String::new(),
            topic: String::new(),
            format: StreamFormat::Json,
            columns: Vec::new(),
            event_time: String::new(),
            lateness_ms: 10_000,
            idle_timeout_ms: 30_000,
            max_ahead_ms: 3_600_000,
            checks: Vec::new(),
        }
    }
}

/// A column of a stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnConfig {
    /// The field of the record, and the column's name in SQL; in Avro `user.id` is a field of a nested record.
    pub name: String,
    /// BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE or DECIMAL(p,s).
    pub sql_type: String,
    /// A record without it, or with null, is rejected.
    pub required: bool,
}

/// A condition each row of a stream must meet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckConfig {
    /// The rule's name in the rejected topic and in the counters.
    pub name: String,
    /// A boolean SQL expression over the stream's columns; a row for which it is not true (false or null) is rejected.
    pub sql: String,
}

/// A materialized view.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ViewConfig {
    /// `CREATE MATERIALIZED VIEW name AS SELECT … FROM stream … GROUP BY …`.
    pub sql: String,
    /// Where it was declared (`file:line`), for messages.
    pub source: String,
    /// How long a closed window is kept behind the event watermark, in milliseconds; None keeps all.
    pub retention_ms: Option<i64>,
}
