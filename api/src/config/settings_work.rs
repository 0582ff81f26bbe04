//! The settings of what works beside the log: sinks, jobs, alerts, and the mail server that notices leave through.

use super::schema::{Field, Kind};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// `[postgres]`.
pub const POSTGRES: [Field; 1] = [Field::optional(
    "url",
    Kind::Text,
    "\"postgres://user:secret@localhost:5432/database\"",
    "The database of every sink of kind postgres that does not name one. Sinks without any do not run.",
)];

/// `[smtp]`.
pub const SMTP: [Field; 6] = [
    Field::optional("host", Kind::Text, "\"mail.example.org\"", "The mail server; without it no mail can be sent."),
    Field::with_default("port", Kind::Integer(1, 65_535), "587", "Its port."),
    Field::optional("user", Kind::Text, "\"millpond\"", "The user to log in as; without it nobody logs in."),
    Field::optional("password", Kind::Text, "\"secret\"", "The user's password."),
    Field::with_default(
        "tls",
        Kind::OneOf(&["none", "starttls", "tls"]),
        "starttls",
        "How the connection is encrypted: from the first byte (tls), after a greeting (starttls), or not at all.",
    ),
    Field::with_default("from", Kind::Text, "millpond@localhost", "The sender of every mail."),
];

/// `[[sinks]]`.
pub const SINK: [Field; 21] = [
    Field::required("name", Kind::Text, "\"invoices\"", "The sink's name; what is refused goes to <name>.rejected."),
    Field::required("kind", Kind::OneOf(&["postgres", "file"]), "\"postgres\"", "Where rows go."),
    Field::optional("stream", Kind::Text, "\"listens\"", "The stream whose rows it takes; or view, or sql."),
    Field::optional("view", Kind::Text, "\"plays_by_genre\"", "The view whose changes it takes."),
    Field::optional("sql", Kind::Text, "\"SELECT 1\"", "The query whose rows a file gets."),
    Field::optional(
        "url",
        Kind::Text,
        "\"postgres://user:secret@localhost:5432/database\"",
        "The database; without it, that of [postgres].",
    ),
    Field::optional(
        "table",
        Kind::Text,
        "\"public.invoices\"",
        "The table in the database; without it, the sink's name.",
    ),
    Field::optional(
        "key",
        Kind::Texts,
        "[\"user_id\"]",
        "The table's columns that say which row a change replaces. A stream needs it; a view has its window and keys.",
    ),
    Field::optional(
        "columns",
        Kind::Tables(&SINK_COLUMN),
        "[{ name = \"user_id\", type = \"bigint\" }, { name = \"at\", from = \"ts\" }]",
        "The table's columns; without it, all columns of the stream or view.",
    ),
    Field::with_default("create", Kind::Bool, "false", "Whether the table is made when it is not there."),
    Field::optional(
        "ddl",
        Kind::Text,
        "\"CREATE INDEX ON public.invoices (user_id)\"",
        "More SQL for the database, run once, in one transaction, after the table is there: foreign keys, indexes, checks.",
    ),
    Field::with_default(
        "batch_rows",
        Kind::Integer(1, 100_000),
        "5000",
        "About how many records one transaction takes.",
    ),
    Field::with_default(
        "interval",
        Kind::Duration(0, DAY),
        "200ms",
        "Shortest time between two transactions, so that a trickle of records does not become one transaction each.",
    ),
    Field::with_default(
        "reference_wait",
        Kind::Duration(0, DAY),
        "5s",
        "How long a row whose foreign key is not there yet is tried again before it is refused.",
    ),
    Field::optional(
        "folder",
        Kind::Text,
        "\"exports\"",
        "The directory for files; made when it is not there. {data_dir} stands for broker.data_dir.",
    ),
    Field::with_default(
        "format",
        Kind::OneOf(&["csv", "json"]),
        "csv",
        "The files' format; json is an array of objects.",
    ),
    Field::optional(
        "every",
        Kind::Duration(1_000, 365 * DAY),
        "\"1h\"",
        "Time between two files; or schedule, or only on demand.",
    ),
    Field::optional("schedule", Kind::Text, "\"0 6 * * *\"", "When files are written, as cron writes it; or every."),
    Field::with_default("time_zone", Kind::Text, "UTC", "The zone of schedule."),
    Field::with_default("keep", Kind::Integer(1, 100_000), "24", "Newest files that are kept; older ones are deleted."),
    Field::with_default("latest", Kind::Bool, "true", "Whether <name>.csv or <name>.json is the newest file again."),
];

const SINK_COLUMN: [Field; 3] = [
    Field::required("name", Kind::Text, "\"user_id\"", "The column in the table."),
    Field::optional("from", Kind::Text, "\"user_id\"", "The column of the stream or view; without it, the same name."),
    Field::optional("type", Kind::Text, "\"bigint\"", "PostgreSQL's type; without it, the one that fits."),
];

/// `[[jobs]]`.
pub const JOB: [Field; 13] = [
    Field::required("name", Kind::Text, "\"nightly\"", "The job's name."),
    Field::optional(
        "schedule",
        Kind::Text,
        "\"0 2 * * *\"",
        "When it runs, as cron writes it: minute, hour, day, month, weekday. Without it: after other jobs, or on demand.",
    ),
    Field::with_default(
        "time_zone",
        Kind::Text,
        "UTC",
        "The zone of schedule, deadline and $day, such as Europe/Paris.",
    ),
    Field::optional("after", Kind::Texts, "[]", "Jobs that must have succeeded for the same day."),
    Field::required(
        "steps",
        Kind::Tables(&STEP),
        "[{ flush = \"listens\" }, { sql = \"SELECT count(*) > 0 FROM listens\", check = true }]",
        "What it does, one after the other; the first that fails ends the run.",
    ),
    Field::with_default("retries", Kind::Integer(0, 100), "3", "How often a failed step is tried again."),
    Field::with_default("retry_delay", Kind::Duration(0, DAY), "30s", "Time before it is tried again."),
    Field::with_default("timeout", Kind::Duration(100, 7 * DAY), "1h", "Longest time of one run."),
    Field::optional(
        "deadline",
        Kind::Text,
        "\"03:00\"",
        "The local time by which a scheduled run must have succeeded; a notice goes out when it has not.",
    ),
    Field::with_default(
        "catch_up",
        Kind::Bool,
        "true",
        "Whether the latest run that was missed while the server was down is made up for at its start.",
    ),
    Field::optional(
        "topic",
        Kind::Text,
        "\"alerts\"",
        "The topic for notices: a run failed, is late, goes well again.",
    ),
    Field::optional("webhook", Kind::Text, "\"https://hooks.example.org/millpond\"", "The URL for these notices."),
    Field::optional("email", Kind::Texts, "[]", "Addresses for these notices."),
];

const STEP: [Field; 15] = [
    Field::optional("name", Kind::Text, "\"settle\"", "Its name in the history; without it, what it does."),
    Field::optional("flush", Kind::Text, "\"listens\"", "A topic: all it has settles in the lake now."),
    Field::optional("transform", Kind::Text, "\"daily\"", "A transform: its table is written for the run's day."),
    Field::optional(
        "parameters",
        Kind::Map,
        "{ day = \"today\" }",
        "With transform: its parameters besides day and run, or instead of them; today is the day it is now.",
    ),
    Field::optional("source", Kind::Text, "\"files\"", "A source: it reads what is there now."),
    Field::with_default("archive", Kind::Bool, "false", "Old slices of the lake move to its archive, older ones go."),
    Field::optional(
        "backup",
        Kind::Text,
        "\"hdfs://namenode:8020/backups\"",
        "A directory, as a path, or a URL as lake.url takes them ({data_dir} stands for broker.data_dir, which is better than no backup): the whole store is copied there, with the lake's files where the lake lies in the data directory. `millpond restore` takes it back.",
    ),
    Field::with_default("keep", Kind::Integer(1, 10_000), "7", "With backup: how many are kept."),
    Field::optional("sql", Kind::Text, "\"SELECT 1\"", "A query; $day is the run's day and $run its number."),
    Field::with_default(
        "check",
        Kind::Bool,
        "false",
        "With sql: the step fails unless every value of the answer is true. Without: the answer is noted.",
    ),
    Field::optional("export", Kind::Text, "\"report\"", "A sink of kind file: it writes its file now."),
    Field::optional(
        "webhook",
        Kind::Text,
        "\"https://hooks.example.org/done\"",
        "A URL that is told the run's day and message.",
    ),
    Field::optional("email", Kind::Texts, "[\"a@example.org\"]", "Addresses that get a mail with the message."),
    Field::optional(
        "message",
        Kind::Text,
        "\"loaded {day}\"",
        "For webhook and email; {job}, {day} and {run} are filled in, {answer} is what the last query gave.",
    ),
    Field::optional("subject", Kind::Text, "\"report of {day}\"", "For email: its subject."),
];

/// `[[alerts]]`.
pub const ALERT: [Field; 11] = [
    Field::required("name", Kind::Text, "\"no_plays\"", "The alert's name."),
    Field::required(
        "sql",
        Kind::Text,
        "\"WITH last AS (SELECT count(*) AS plays FROM listens) SELECT plays FROM last WHERE plays < 10\"",
        "A query over tables and views: each row of its answer is something wrong.",
    ),
    Field::optional(
        "labels",
        Kind::Texts,
        "[]",
        "The columns that tell one wrong thing from another; without it, there is one.",
    ),
    Field::with_default("every", Kind::Duration(100, DAY), "30s", "Time between two looks."),
    Field::with_default(
        "for",
        Kind::Duration(0, 365 * DAY),
        "0s",
        "How long something must be wrong before it is told.",
    ),
    Field::with_default(
        "clear_for",
        Kind::Duration(0, 365 * DAY),
        "0s",
        "How long it must be right again before that is told.",
    ),
    Field::with_default("severity", Kind::OneOf(&["info", "warning", "critical"]), "warning", "How bad it is."),
    Field::optional("message", Kind::Text, "\"only {plays} plays\"", "What is told; {column} is the row's value."),
    Field::optional("topic", Kind::Text, "\"alerts\"", "The topic that gets each notice."),
    Field::optional("webhook", Kind::Text, "\"https://hooks.example.org/millpond\"", "The URL that gets each notice."),
    Field::optional("email", Kind::Texts, "[]", "The addresses that get each notice."),
];
