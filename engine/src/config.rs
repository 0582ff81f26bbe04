//! The engine's configuration as plain values; `check.rs` says what is wrong with one.

use std::path::PathBuf;

/// Everything the engine runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineConfig {
    /// The declared streams, those that SQL derives from others among them.
    pub streams: Vec<StreamConfig>,
    /// Tables that derived streams join.
    pub tables: Vec<TableConfig>,
    /// The materialized views over them.
    pub views: Vec<ViewConfig>,
}

/// How the values of a stream's records are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamFormat {
    /// A JSON object.
    #[default]
    Json,
    /// A byte 0, four bytes of a schema's id in the registry, then Avro's binary form; with a schema of the stream's own that alone.
    Avro,
    /// A byte 0, four bytes of a schema's id in the registry, then a JSON object.
    JsonSchema,
    /// A byte 0, four bytes of a schema's id in the registry, the path to the message's type in that schema, then
    /// Protobuf's binary form; with a schema of the stream's own that alone.
    Protobuf,
    /// A line of CSV: one field per column, in the order of the columns.
    Csv,
}

/// How the fields of CSV are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvConfig {
    /// What stands between fields.
    pub delimiter: char,
    /// The text that is null where it stands without quotes.
    pub null_text: String,
}

impl Default for CsvConfig {
    /// Commas; nothing at all is null.
    fn default() -> CsvConfig {
        CsvConfig { delimiter: ',', null_text: String::new() }
    }
}

impl CsvConfig {
    /// The delimiter that a text names: itself, or `tab` (or `\t`) or `space`; None when it can be none.
    pub fn delimiter_of(text: &str) -> Option<char> {
        let named = match text.to_ascii_lowercase().as_str() {
            "tab" | "\\t" => "\t",
            "space" => " ",
            _ => text,
        };
        let mut characters = named.chars();
        let delimiter = characters.next().filter(|first| !['"', '\n', '\r'].contains(first))?;
        characters.next().is_none().then_some(delimiter)
    }
}

/// The schema of a stream whose records name none: Avro or Protobuf without a registry's prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnSchema {
    /// Avro's JSON, or the text of a `.proto` file.
    pub text: String,
    /// Names and texts of what a `.proto` file imports, besides those that are known without.
    pub imports: Vec<(String, String)>,
    /// Only Protobuf: the message, such as `org.example.Log`. Without it the only one at the top of the file.
    pub message: Option<String>,
}

/// A topic of records, given columns and event time; or, with `sql`, a stream computed from another one.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamConfig {
    /// The name in SQL. Empty with `sql`, which names the stream.
    pub name: String,
    /// The topic it reads; created when it does not exist. Empty with `sql`: the topic has the stream's name.
    pub topic: String,
    /// How the records' values are written.
    pub format: StreamFormat,
    /// Only with the format `Csv`: how its fields are written.
    pub csv: CsvConfig,
    /// Only with the formats `Avro` and `Protobuf`: the schema of all records; without it each names its own.
    pub schema: Option<OwnSchema>,
    /// The columns read from each record; other fields are ignored. Empty with `sql`: they follow from it.
    pub columns: Vec<ColumnConfig>,
    /// The TIMESTAMP column that windows go by; always required in a record. With `sql` it may be empty: then it is the
    /// column of the same name as the source's.
    pub event_time: String,
    /// How far behind the event watermark a window still takes rows, in milliseconds.
    pub lateness_ms: i64,
    /// After this time without a record a partition no longer holds the event watermark back, in milliseconds; 0 = never.
    pub idle_timeout_ms: i64,
    /// A record whose event time is later than its own timestamp plus this is rejected, in milliseconds.
    pub max_ahead_ms: i64,
    /// Conditions that each row must meet.
    pub checks: Vec<CheckConfig>,
    /// `CREATE STREAM name AS SELECT … FROM stream [LEFT] JOIN table ON … WHERE …`: what the stream is computed from.
    pub sql: Option<String>,
    /// Where it was declared (`file:line`), for messages.
    pub source: String,
    /// Whether SQL declared it while the server ran.
    pub by_sql: bool,
    /// Only with `sql`: the column whose text is the key of the records. Without it they keep key and partition.
    pub key: Option<String>,
    /// Only with `sql`: a row with the key of an earlier one is refused.
    pub deduplicate: Option<DeduplicateConfig>,
}

impl Default for StreamConfig {
    /// Empty names, ten seconds of lateness, idle after thirty seconds, at most an hour ahead.
    fn default() -> StreamConfig {
        StreamConfig {
            name: String::new(),
            topic: String::new(),
            format: StreamFormat::Json,
            csv: CsvConfig::default(),
            schema: None,
            columns: Vec::new(),
            event_time: String::new(),
            lateness_ms: 10_000,
            idle_timeout_ms: 30_000,
            max_ahead_ms: 3_600_000,
            checks: Vec::new(),
            sql: None,
            source: String::new(),
            by_sql: false,
            key: None,
            deduplicate: None,
        }
    }
}

impl StreamConfig {
    /// The fields that the columns are read from.
    pub(crate) fn fields(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.from.as_deref().unwrap_or(&column.name)).collect()
    }
}

/// What makes a row a duplicate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeduplicateConfig {
    /// The columns that are equal in duplicates.
    pub by: Vec<String>,
    /// How far apart in event time two rows with equal columns may be to count as duplicates, in milliseconds.
    pub within_ms: i64,
}

/// A table that derived streams join and SQL reads: the latest value per key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableConfig {
    /// The name in SQL.
    pub name: String,
    /// The column that rows are found by.
    pub key: String,
    /// Its columns, the key's among them.
    pub columns: Vec<ColumnConfig>,
    /// Where its rows come from.
    pub rows: TableRows,
    /// Where it was declared (`file:line`), for messages.
    pub source: String,
}

/// Where the rows of a table come from.
#[derive(Debug, Clone, PartialEq)]
pub enum TableRows {
    /// A compacted topic: the newest record of each key is the row, a record without value deletes it.
    Topic(String),
    /// Written out, each with a text per column; an empty text is null where the column is not VARCHAR.
    Inline(Vec<Vec<String>>),
    /// A CSV file whose first line names columns; read when the engine starts.
    File(PathBuf),
}

impl Default for TableRows {
    fn default() -> TableRows {
        TableRows::Inline(Vec::new())
    }
}

/// A column of a stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnConfig {
    /// The column's name in SQL; without `from` also the field of the record, in Avro and Protobuf `user.id` that of a nested one.
    pub name: String,
    /// BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE, DECIMAL(p,s) or VARCHAR[].
    pub sql_type: String,
    /// A record without it, or with null, is rejected.
    pub required: bool,
    /// The field it is read from, where that differs: a path with dots into nested objects.
    pub from: Option<String>,
    /// Whether it came to the stream later: views that do not use it do not depend on it.
    pub added: bool,
}

/// A condition each row of a stream must meet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckConfig {
    /// The rule's name in the rejected topic and in the counters.
    pub name: String,
    /// A boolean SQL expression over the stream's columns; a row for which it is not true (false or null) is at fault.
    pub sql: String,
    /// What happens to a row at fault.
    pub action: CheckAction,
}

/// What happens to a row that does not meet a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CheckAction {
    /// It goes to `<stream>.rejected` and is counted.
    #[default]
    Reject,
    /// It passes and is counted.
    Warn,
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
