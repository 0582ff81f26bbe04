//! What sinks, jobs and alerts are told.

use crate::jobs::schedule::Schedule;

/// Sinks, jobs, alerts and the way notices leave.
#[derive(Clone, Debug, Default)]
pub struct WorkConfig {
    /// `[[sinks]]`.
    pub sinks: Vec<SinkConfig>,
    /// `[[jobs]]`.
    pub jobs: Vec<JobConfig>,
    /// `[[alerts]]`.
    pub alerts: Vec<AlertConfig>,
    /// `[smtp]`, when it names a host.
    pub smtp: Option<SmtpConfig>,
}

/// `[smtp]`: the mail server.
#[derive(Clone, Debug, PartialEq)]
pub struct SmtpConfig {
    /// Its host name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password to log in with.
    pub login: Option<(String, String)>,
    /// How the connection is encrypted.
    pub tls: SmtpTls,
    /// The sender of every mail.
    pub from: String,
}

/// How a connection to the mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// Not at all.
    None,
    /// After a greeting in the clear.
    StartTls,
    /// From the first byte.
    Tls,
}

/// Where notices go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channels {
    /// A topic.
    pub topic: Option<String>,
    /// A URL that takes JSON.
    pub webhook: Option<String>,
    /// Addresses.
    pub email: Vec<String>,
}

/// `[[sinks]]`: rows that go elsewhere.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Its name.
    pub name: String,
    /// Where rows go.
    pub kind: SinkKind,
}

/// Where a sink's rows go.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a configuration has few")]
pub enum SinkKind {
    /// A table.
    Postgres(PostgresSinkConfig),
    /// Files.
    File(FileSinkConfig),
}

/// What a sink takes row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkSource {
    /// The accepted rows of a stream.
    Stream(String),
    /// The changes of a view.
    View(String),
}

/// A sink into a table of PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresSinkConfig {
    /// The database; without it the sink does not run.
    pub url: Option<String>,
    /// What it takes.
    pub source: SinkSource,
    /// The table, with its schema where it has one.
    pub table: String,
    /// The table's columns that identify a row; empty for a view: its window and keys.
    pub key: Vec<String>,
    /// The table's columns; empty: all of the source.
    pub columns: Vec<SinkColumnConfig>,
    /// Whether the table is made.
    pub create: bool,
    /// More SQL, run once.
    pub ddl: Option<String>,
    /// About how many records one transaction takes.
    pub batch_rows: usize,
    /// Shortest time between two transactions, in milliseconds.
    pub interval_ms: u64,
    /// How long a row whose foreign key is not there is tried again, in milliseconds.
    pub reference_wait_ms: i64,
}

/// One column of a sink's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkColumnConfig {
    /// Its name in the table.
    pub name: String,
    /// The column of the source.
    pub from: String,
    /// PostgreSQL's type, when it is not the one that fits.
    pub sql_type: Option<String>,
}

/// A sink into files.
#[derive(Clone, Debug)]
pub struct FileSinkConfig {
    /// The query whose rows are written.
    pub sql: String,
    /// The directory.
    pub folder: String,
    /// The files' format.
    pub format: FileFormat,
    /// When files are written; none: on demand.
    pub timing: Option<Timing>,
    /// Newest files that are kept.
    pub keep: usize,
    /// Whether a file without a time in its name is the newest one again.
    pub latest: bool,
}

/// A format of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// RFC 4180 with a line of names.
    Csv,
    /// An array of objects.
    Json,
}

/// When something happens again.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a configuration has few")]
pub enum Timing {
    /// So many milliseconds after the last time.
    Every(i64),
    /// At the times of a cron expression.
    Cron(Schedule),
}

/// `[[jobs]]`: steps that run at a time, after other jobs, or on demand.
#[derive(Clone, Debug)]
pub struct JobConfig {
    /// Its name.
    pub name: String,
    /// Its times, if it has any.
    pub schedule: Option<Schedule>,
    /// The zone in which it has its days.
    pub zone: chrono_tz::Tz,
    /// Jobs that must have succeeded for the same day.
    pub after: Vec<String>,
    /// What it does.
    pub steps: Vec<StepConfig>,
    /// How often a failed step is tried again.
    pub retries: u32,
    /// Time before it is, in milliseconds.
    pub retry_delay_ms: u64,
    /// Longest time of a run, in milliseconds.
    pub timeout_ms: u64,
    /// Local time by which a scheduled run must have succeeded.
    pub deadline: Option<chrono::NaiveTime>,
    /// Whether a missed run is made up for.
    pub catch_up: bool,
    /// Where notices of this job go.
    pub channels: Channels,
}

/// One step of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct StepConfig {
    /// Its name in the history.
    pub name: String,
    /// What it does.
    pub action: StepAction,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum StepAction {
    /// Settles a topic in the lake.
    Flush(String),
    /// Writes a table of the lake by its SQL.
    Transform {
        /// The transform.
        name: String,
        /// More than `day` and `run`, or instead of them; {day}, {today} and {run} are filled in.
        parameters: std::collections::BTreeMap<String, String>,
    },
    /// Reads files into a topic.
    Source(String),
    /// Moves what is old enough to the lake's archive.
    Archive,
    /// Copies the store, and the lake in the data directory.
    Backup {
        /// Where backups lie.
        url: String,
        /// How many are kept.
        keep: usize,
    },
    /// Runs a query; with `check` every value must be true.
    Sql {
        /// The query.
        sql: String,
        /// Whether its values decide.
        check: bool,
    },
    /// Lets a file sink write its file.
    Export(String),
    /// Tells a URL.
    Webhook {
        /// The URL.
        url: String,
        /// What it is told.
        message: String,
    },
    /// Sends a mail.
    Email {
        /// Its receivers.
        to: Vec<String>,
        /// Its subject.
        subject: String,
        /// Its text.
        message: String,
    },
}

/// `[[alerts]]`: a query whose rows are what is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertConfig {
    /// Its name.
    pub name: String,
    /// The query.
    pub sql: String,
    /// The columns that tell one instance from another.
    pub labels: Vec<String>,
    /// Time between two looks, in milliseconds.
    pub every_ms: u64,
    /// How long a row must be there before it is told, in milliseconds.
    pub for_ms: i64,
    /// How long it must be gone before that is told, in milliseconds.
    pub clear_for_ms: i64,
    /// info, warning or critical.
    pub severity: String,
    /// What is told.
    pub message: Option<String>,
    /// Where notices go.
    pub channels: Channels,
}
