//! Where the lake lies, how each topic settles in it, and what one SQL query may use.

use std::fmt;

use broker::Secret;

/// The schemes of URLs that files can be kept under.
pub const SCHEMES: [&str; 10] =
    ["file://", "hdfs://", "s3://", "s3a://", "gs://", "az://", "azure://", "adl://", "abfs://", "abfss://"];

/// Settings of the lake.
#[derive(Clone, Debug, PartialEq)]
pub struct LakeConfig {
    /// A directory as a path, or a URL with one of [`SCHEMES`]; empty: `lake` below the data directory.
    pub url: String,
    /// How the place is spoken to that `url` names, and those of backups.
    pub access: Access,
    /// Whether topics that name no zone lie in the zone `raw`.
    pub zones: bool,
    /// Topics that settle otherwise than by the defaults. A topic with a stream that is not named here settles by
    /// [`TableConfig::of`].
    pub tables: Vec<TableConfig>,
    /// Tables that SQL writes.
    pub transforms: Vec<TransformConfig>,
    /// Longest run of one transform, in milliseconds.
    pub transform_time_ms: u64,
    /// Bounds of SQL.
    pub sql: SqlLimits,
    /// What storing and reading costs.
    pub costs: Costs,
    /// How long a snapshot of an Iceberg table can be read after another took its place, in milliseconds; none: there are no
    /// Iceberg tables.
    pub iceberg_keep_ms: Option<i64>,
}

/// Prices for the estimate of costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// The currency, as it is shown.
    pub currency: String,
    /// Of a GiB of Parquet that is stored, for a month.
    pub stored_gib_month: f64,
    /// Of a GiB of the log that is stored, for a month.
    pub stored_log_gib_month: f64,
    /// Of a GiB that queries read.
    pub scanned_gib: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self { currency: "EUR".to_owned(), stored_gib_month: 0.0, stored_log_gib_month: 0.0, scanned_gib: 0.0 }
    }
}

impl Default for LakeConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            access: Access::default(),
            zones: false,
            tables: Vec::new(),
            transforms: Vec::new(),
            transform_time_ms: 3_600_000,
            sql: SqlLimits::default(),
            costs: Costs::default(),
            iceberg_keep_ms: None,
        }
    }
}

/// How places other than local directories are spoken to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// HDFS.
    pub hdfs: HdfsConfig,
    /// Object stores.
    pub cloud: CloudConfig,
}

/// How HDFS is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HdfsConfig {
    /// The user that owns the files; none: `HADOOP_USER_NAME`, else the user of the process.
    pub user: Option<String>,
    /// The Hadoop configuration, as that of a name service; none: that of `HADOOP_CONF_DIR`, if it is set.
    pub conf_dir: Option<String>,
    /// Who this is in Kerberos, which is spoken then; none: as the Hadoop configuration and Kerberos' own say.
    pub principal: Option<String>,
    /// What the principal gets its tickets with; none: what Kerberos' own configuration names.
    pub keytab: Option<String>,
    /// Copies that HDFS keeps of each block.
    pub replication: u32,
}

impl Default for HdfsConfig {
    fn default() -> Self {
        Self { user: None, conf_dir: None, principal: None, keytab: None, replication: 2 }
    }
}

/// How object stores are spoken to: S3, Google Cloud Storage, Azure. What is none here is taken from the variables that
/// the vendors' own tools read, as `AWS_ACCESS_KEY_ID`.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudConfig {
    /// Where the store answers, where that is not the vendor's own place.
    pub endpoint: Option<String>,
    /// S3's region.
    pub region: Option<String>,
    /// S3's key id, or Azure's account.
    pub access_key: Option<String>,
    /// S3's secret key, or the key of Azure's account.
    pub secret_key: Option<Secret>,
    /// Google's file of a service account or of application default credentials.
    pub credentials_file: Option<String>,
    /// Whether S3's buckets stand in the path of requests, else in the name of the host.
    pub path_style: bool,
    /// Whether a store without TLS may be spoken to.
    pub allow_http: bool,
    /// Longest wait for the answer of one request, in milliseconds.
    pub request_time_ms: u64,
    /// How often a request is tried again.
    pub retries: usize,
}

impl Default for CloudConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            access_key: None,
            secret_key: None,
            credentials_file: None,
            path_style: true,
            allow_http: false,
            request_time_ms: 30_000,
            retries: 3,
        }
    }
}

/// How one topic becomes Parquet.
#[derive(Clone, Debug, PartialEq)]
pub struct TableConfig {
    /// The topic; a stream must be declared over it.
    pub topic: String,
    /// The stream whose columns the files have; none: the only one over the topic.
    pub stream: Option<String>,
    /// The zone, which is the directory above the topic's; none: as [`LakeConfig::zones`] says.
    pub zone: Option<String>,
    /// Directory levels, outermost first; empty: all files in the topic's directory.
    pub slice: Vec<SliceColumn>,
    /// Records of a partition that are enough for a file. No file holds more.
    pub flush_rows: usize,
    /// Bytes of a partition's log that are enough for a file. No file holds much more.
    pub flush_bytes: u64,
    /// Longest time that a record waits for its file, in milliseconds.
    pub flush_age_ms: i64,
    /// Age of its youngest event at which a slice moves to the zone `archive`, in milliseconds; none: never.
    pub archive_after_ms: Option<i64>,
    /// Age at which an archived slice is deleted, in milliseconds; none: never.
    pub expire_after_ms: Option<i64>,
    /// How its small files are merged; none: they are not.
    pub merge: Option<MergeConfig>,
    /// Whether its whole records are kept too: key, value and headers as they were.
    pub raw: bool,
}

/// When small files that are neighbours in a slice become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeConfig {
    /// Files of fewer bytes are small.
    pub below_bytes: u64,
    /// Bytes that are merged at most into one file.
    pub to_bytes: u64,
    /// Neighbours that are worth a merge.
    pub files_min: usize,
}

impl Default for MergeConfig {
    fn default() -> Self {
        Self { below_bytes: 16 << 20, to_bytes: 128 << 20, files_min: 8 }
    }
}

/// The zone of topics' files when zones are on.
pub const RAW_ZONE: &str = "raw";
/// The zone that old slices move to.
pub const ARCHIVE_ZONE: &str = "archive";

impl TableConfig {
    /// The defaults: by date, a file per minute, per million records or per 64 MiB of log; small ones are merged.
    pub fn of(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            stream: None,
            zone: None,
            slice: vec![SliceColumn::Date],
            flush_rows: 1_000_000,
            flush_bytes: 64 << 20,
            flush_age_ms: 60_000,
            archive_after_ms: None,
            expire_after_ms: None,
            merge: Some(MergeConfig::default()),
            raw: false,
        }
    }
}

/// A table of the lake that SQL writes, over streams, views and other such tables.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformConfig {
    /// Its name in SQL and of its directory.
    pub name: String,
    /// The zone, which is the directory above the table's.
    pub zone: String,
    /// Columns of the result that are directory levels, outermost first.
    pub slice: Vec<SliceColumn>,
    /// Columns of the result by which the rows of a file are sorted.
    pub sort: Vec<String>,
    /// What a run does to what is there.
    pub mode: TransformMode,
    /// The columns that tell rows apart; of [`TransformMode::History`].
    pub key: Vec<String>,
    /// A query; `$name` stands for the text of a parameter.
    pub sql: String,
}

/// What a run of a transform does to what its table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformMode {
    /// The result takes the place of the whole table.
    Replace,
    /// The result takes the place of the slices that it touches and of those that the parameters name.
    ReplaceSlices,
    /// The result is added; a second run with the same parameters takes the place of the first.
    Append,
    /// The result is the present state by key; the table keeps its history (a type-2 dimension).
    History,
}

impl TransformMode {
    /// Reads `replace`, `replace_slices`, `append` or `scd2`, as the configuration has them.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "replace" => Self::Replace,
            "replace_slices" => Self::ReplaceSlices,
            "append" => Self::Append,
            "scd2" => Self::History,
            _ => return None,
        })
    }

    /// The word of the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::ReplaceSlices => "replace_slices",
            Self::Append => "append",
            Self::History => "scd2",
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
