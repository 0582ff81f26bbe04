//! What a source is declared to be, as plain values; `plan` says what is wrong with one.

use super::sftp::SftpLogin;
use crate::config::CheckConfig;

/// Files that are read into a topic, each row once.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceConfig {
    /// Its name, under which it is started and shown; its refused rows go to `<name>.rejected`.
    pub name: String,
    /// The topic it writes; created when it does not exist.
    pub topic: String,
    /// A file, a folder (its files, not those of folders in it), a path with `*` and `?`, the same on an SFTP server
    /// (`sftp://user@host:port/…`), or `http(s)://` of one file.
    pub path: String,
    /// For an SFTP server: who asks, and by what it is known.
    pub login: SftpLogin,
    /// How the files are written.
    pub format: FileFormat,
    /// When they are read.
    pub when: When,
    /// The columns of a row; none: every field of the row as it stands (of CSV as text).
    pub columns: Vec<SourceColumn>,
    /// Columns computed after reading, in order.
    pub set: Vec<SetConfig>,
    /// Conditions that each row must meet.
    pub checks: Vec<CheckConfig>,
    /// The column whose text is the record's key.
    pub key: Option<String>,
    /// A SQL expression that gives the record's partition.
    pub partition: Option<String>,
    /// The TIMESTAMP or DATE column that is the record's timestamp; none: the time of publishing.
    pub timestamp: Option<String>,
    /// Columns of which no two records of this source have the same values; later rows are skipped.
    pub unique: Vec<String>,
    /// Whether each record gets the field `record_id`, made of source, file and line.
    pub record_id: bool,
    /// The field that gets the time of publishing.
    pub time_field: Option<String>,
    /// How fast, and how stubbornly.
    pub pace: Pace,
    /// Where it was declared (`file:line`), for messages.
    pub place: String,
}

/// How fast a source reads, and what it bears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Most rows of one commit.
    pub batch_records: usize,
    /// Pause between two commits, in milliseconds.
    pub delay_ms: u64,
    /// How often a failed read is tried again before the file is given up.
    pub retries: u32,
    /// Longest row, in bytes; a longer one is refused.
    pub record_bytes_max: usize,
}

/// How files are written.
#[derive(Debug, Clone, PartialEq)]
pub enum FileFormat {
    /// RFC 4180 and its usual variants.
    Csv(CsvFormat),
    /// One object, or an array of objects.
    Json,
    /// One object per line.
    Ndjson,
}

/// The variant of CSV.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvFormat {
    /// Between two fields.
    pub delimiter: u8,
    /// Names of the fields of files without a header line; empty: the first line names them.
    pub header: Vec<String>,
    /// How letters are written.
    pub encoding: Encoding,
    /// Whether spaces around a field that is not quoted are dropped.
    pub trim: bool,
    /// Texts that stand for null.
    pub nulls: Vec<String>,
}

/// How letters are written in a CSV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8; what is not is refused.
    Utf8,
    /// Windows-1252, of which ISO 8859-1 (Latin-1) is a part.
    Windows1252,
}

/// When a source reads.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// At the start of the server: what is not loaded yet.
    Once,
    /// As files appear and grow; the folder is looked at so often, in milliseconds.
    Watch(u64),
    /// At the times of a cron expression in a time zone.
    Schedule(String, String),
    /// When it is asked to.
    Demand,
}

/// A column of a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceColumn {
    /// Its name in rules and in the record.
    pub name: String,
    /// The field of the file; empty: the same name.
    pub from: String,
    /// BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE or DECIMAL(p,s).
    pub sql_type: String,
    /// A row without it is refused.
    pub required: bool,
}

/// A computed column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SetConfig {
    /// Its name; the name of a column that is there replaces that one.
    pub column: String,
    /// The SQL expression over the columns so far.
    pub sql: String,
    /// A row for which it gives null is refused.
    pub required: bool,
}

impl Default for CsvFormat {
    /// Commas, a header line, UTF-8, an empty field is null.
    fn default() -> CsvFormat {
        CsvFormat {
            delimiter: b',',
            header: Vec::new(),
            encoding: Encoding::Utf8,
            trim: false,
            nulls: vec![String::new()],
        }
    }
}

impl Default for Pace {
    /// A thousand rows a commit, no pause, five retries, rows of at most a MiB.
    fn default() -> Pace {
        Pace { batch_records: 1_000, delay_ms: 0, retries: 5, record_bytes_max: 1 << 20 }
    }
}

impl Default for SourceConfig {
    /// No name, no path, CSV on demand.
    fn default() -> SourceConfig {
        SourceConfig {
            name: String::new(),
            topic: String::new(),
            path: String::new(),
            login: SftpLogin::default(),
            format: FileFormat::Csv(CsvFormat::default()),
            when: When::Demand,
            columns: Vec::new(),
            set: Vec::new(),
            checks: Vec::new(),
            key: None,
            partition: None,
            timestamp: None,
            unique: Vec::new(),
            record_id: false,
            time_field: None,
            pace: Pace::default(),
            place: String::new(),
        }
    }
}
