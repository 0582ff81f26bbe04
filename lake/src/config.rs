//! Where the lake lies, how each topic settles in it, and what one SQL query may use.

use std::fmt;

/// Settings of the lake.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LakeConfig {
    /// A directory as a path or `file://` URL; empty: `lake` below the data directory.
    pub url: String,
    /// Topics that settle otherwise than by the defaults. A topic with a stream that is not named here settles by
    /// [`TableConfig::of`].
    pub tables: Vec<TableConfig>,
    /// Bounds of SQL.
    pub sql: SqlLimits,
}

/// How one topic becomes Parquet.
#[derive(Clone, Debug, PartialEq)]
pub struct TableConfig {
    /// The topic; a stream must be declared over it.
    pub topic: String,
    /// Directory levels, outermost first; empty: all files in the topic's directory.
    pub slice: Vec<SliceColumn>,
    /// Records of a partition that are enough for a file. No file holds more.
    pub flush_rows: usize,
    /// Bytes of a partition's log that are enough for a file. No file holds much more.
    pub flush_bytes: u64,
    /// Longest time that a record waits for its file, in milliseconds.
    pub flush_age_ms: i64,
}

impl TableConfig {
    /// The defaults: by date, a file per minute, per million records or per 64 MiB of log.
    pub fn of(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            slice: vec![SliceColumn::Date],
            flush_rows: 1_000_000,
            flush_bytes: 64 << 20,
            flush_age_ms: 60_000,
        }
    }
}

/// What one level of directories stands for. A declared column named `date`, `year`, `month` or `day` is taken before
/// the part of the event time of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceColumn {
    /// `date=2026-11-20`: the day of the event time, in UTC.
    Date,
    /// `year=2026/month=11/day=20`: the same in three levels, without leading zeros, as Spark and Hive write integers.
    YearMonthDay,
    /// A declared column.
    Column(String),
}

impl SliceColumn {
    /// Reads `date`, `year/month/day` or the name of a column, as the configuration has them.
    pub fn parse(text: &str) -> Self {
        match text {
            "date" => Self::Date,
            "year/month/day" => Self::YearMonthDay,
            column => Self::Column(column.to_owned()),
        }
    }
}

impl fmt::Display for SliceColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Date => "date",
            Self::YearMonthDay => "year/month/day",
            Self::Column(name) => name,
        })
    }
}

/// What SQL may use.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlLimits {
    /// Longest run of one query, in milliseconds.
    pub time_ms: u64,
    /// Most memory of all queries together, their answers included.
    pub memory_bytes: usize,
    /// Most rows of one answer.
    pub rows: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self { time_ms: 30_000, memory_bytes: 256 << 20, rows: 100_000 }
    }
}
