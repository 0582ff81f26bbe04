//! The rows of `[[sources]]`: files that are read into topics.

use super::schema::{Field, Kind};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
const KIB: i64 = 1 << 10;

/// The list itself, among the lists of the top level.
pub const SOURCES: Field = Field::optional(
    "sources",
    Kind::Tables(&SOURCE),
    "",
    "Sources: files (CSV, JSON, NDJSON) that are read into a topic, each row once, also over crashes and restarts. A file whose content was loaded before is not loaded again under any name; one that grew goes on where it ended. Refused rows go to <source>.rejected with file, line, rule and reason.",
);

const SOURCE: [Field; 31] = [
    Field::required("name", Kind::Text, "\"invoices\"", "The name under which it is started and shown."),
    Field::required(
        "topic",
        Kind::Text,
        "\"Factures\"",
        "The topic it writes; made when it is not there and not under [[topics]].",
    ),
    Field::required(
        "path",
        Kind::Text,
        "\"/data/input/*.csv\"",
        "A file, a folder (the files in it), a pattern with * and ?, the same on an SFTP server as sftp://user@host:22/folder/*.csv (/~/ begins at the user's home), or http(s):// of one file; {data_dir} stands for broker.data_dir. Names that begin with a dot or end in .tmp or .part are left alone.",
    ),
    Field::optional(
        "password",
        Kind::Text,
        "",
        "sftp: the user's password, as ${SFTP_PASSWORD}; either this or private_key.",
    ),
    Field::optional(
        "private_key",
        Kind::Text,
        "",
        "sftp: the text of the user's private key, as OpenSSH or PEM writes it: ${file:/run/secrets/id_ed25519}.",
    ),
    Field::optional("private_key_password", Kind::Text, "", "sftp: what the private key is encrypted with."),
    Field::optional(
        "host_key",
        Kind::Text,
        "",
        "sftp: the server's host key, by its fingerprint (SHA256:…) or as ssh-ed25519 AAAA…; a server that shows another one is not asked for anything. Without it, a run fails and says the fingerprint.",
    ),
    Field::with_default(
        "format",
        Kind::OneOf(&["csv", "json", "ndjson"]),
        "csv",
        "csv; json: one object or an array of objects; ndjson: one object per line.",
    ),
    Field::with_default(
        "when",
        Kind::OneOf(&["once", "watch", "schedule", "demand"]),
        "demand",
        "once: at each start, what is not loaded yet; watch: as files appear and grow; schedule: at the times of `schedule`; demand: when asked (millpond load, POST /v1/sources/{name}/run). A load that was broken off goes on at the next start in any case.",
    ),
    Field::with_default("poll", Kind::Duration(50, DAY), "1s", "watch: time between two looks."),
    Field::optional(
        "schedule",
        Kind::Text,
        "\"30 6 * * *\"",
        "Minute, hour, day of month, month, day of week; given, the source is read at these times and when need not be said. A time that passed while the server was away is made up for at its start.",
    ),
    Field::with_default("time_zone", Kind::Text, "UTC", "schedule: the zone of its times, such as Europe/Paris."),
    Field::with_default("delimiter", Kind::Text, ",", "csv: the letter between two fields; \\t is a tab."),
    Field::optional(
        "header",
        Kind::Texts,
        "[\"freelance\", \"montant\", \"date\"]",
        "csv: names of the fields of files without a header line. Without it, the first line has the names; a field without a name is called by its place, such as field1.",
    ),
    Field::with_default(
        "encoding",
        Kind::OneOf(&["utf-8", "latin-1", "windows-1252"]),
        "utf-8",
        "csv: how letters are written.",
    ),
    Field::with_default("trim", Kind::Bool, "false", "csv: whether spaces around fields without quotes are dropped."),
    Field::with_default("empty_is_null", Kind::Bool, "true", "csv: whether an empty field is null, not an empty text."),
    Field::optional("nulls", Kind::Texts, "[\"NA\"]", "csv: more texts that stand for null."),
    Field::optional(
        "columns",
        Kind::Tables(&COLUMN),
        "[{ name = \"amount\", from = \"montant\", required = true }, { name = \"date\", type = \"DATE\" }]",
        "The columns of a row; other fields are left out. Without it: of csv every field as text, of json each object to the letter. An array of texts in a VARCHAR column is joined by ;. Columns whose names begin with _ help the rules and are not sent.",
    ),
    Field::optional(
        "set",
        Kind::Tables(&SET),
        "[{ column = \"amount\", sql = \"parse_amount(amount)\", required = true }]",
        "Columns computed in order by SQL over the columns so far, _file and _line; one that is there is replaced. parse_amount('4 500,50 €') gives DECIMAL(18,2), parse_date('Oct-2025') a DATE, null for what they cannot read.",
    ),
    Field::optional(
        "checks",
        Kind::Tables(&CHECK),
        "[{ name = \"amount_positive\", sql = \"amount > 0\" }]",
        "Conditions a row must meet; others are refused under the name of the check.",
    ),
    Field::optional("key", Kind::Text, "\"amount\"", "The column whose text is the record's key."),
    Field::optional(
        "partition",
        Kind::Text,
        "\"CASE WHEN amount <= 500 THEN 0 ELSE 1 END\"",
        "SQL that gives the record's partition. Without it: by the key, as Kafka's clients choose.",
    ),
    Field::optional(
        "timestamp",
        Kind::Text,
        "\"date\"",
        "The TIMESTAMP or DATE column that is the record's timestamp; without it, the time of publishing.",
    ),
    Field::optional(
        "unique",
        Kind::Texts,
        "[\"amount\", \"date\"]",
        "Columns by which a row is known: one whose values this source has published before, from any file, is skipped and counted.",
    ),
    Field::with_default(
        "record_id",
        Kind::Bool,
        "false",
        "Whether each record gets the field record_id, made of source, file and line.",
    ),
    Field::optional("time_field", Kind::Text, "\"timestamp\"", "A field that gets the time of publishing."),
    Field::with_default("batch_records", Kind::Integer(1, 100_000), "1000", "Most rows of one commit."),
    Field::with_default("delay", Kind::Duration(0, DAY), "0s", "Pause between two commits."),
    Field::with_default(
        "retries",
        Kind::Integer(0, 100),
        "5",
        "How often a failed read is tried again, each time after a longer pause.",
    ),
    Field::with_default("record_bytes_max", Kind::Size(KIB, 64 << 20), "1MiB", "Longest row; a longer one is refused."),
];

const COLUMN: [Field; 4] = [
    Field::required("name", Kind::Text, "\"amount\"", "The column in rules and in the record."),
    Field::optional("from", Kind::Text, "\"montant\"", "The field of the file; without it, the same name."),
    Field::with_default(
        "type",
        Kind::Text,
        "VARCHAR",
        "BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE or DECIMAL(p,s).",
    ),
    Field::with_default("required", Kind::Bool, "false", "Whether a row without it is refused."),
];

const SET: [Field; 3] = [
    Field::required("column", Kind::Text, "\"amount\"", "The column."),
    Field::required("sql", Kind::Text, "\"parse_amount(amount)\"", "The expression."),
    Field::with_default("required", Kind::Bool, "false", "Whether a row for which it gives null is refused."),
];

const CHECK: [Field; 2] = [
    Field::required("name", Kind::Text, "\"amount_positive\"", "The name that refused rows carry."),
    Field::required(
        "sql",
        Kind::Text,
        "\"amount > 0\"",
        "A condition over the columns; false or unknown refuses the row.",
    ),
];
