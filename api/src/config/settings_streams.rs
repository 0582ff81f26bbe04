//! The settings of streams and of the tables they are joined to.

use super::schema::{Field, Kind};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// `[[streams]]`.
pub const STREAM: [Field; 19] = [
    Field::optional("name", Kind::Text, "\"listens\"", "The stream's name in SQL; needed without sql."),
    Field::optional(
        "topic",
        Kind::Text,
        "\"listens\"",
        "The topic it reads, needed without sql; made with one partition when it is not there and not under [[topics]].",
    ),
    Field::with_default(
        "format",
        Kind::OneOf(&["json", "avro", "json_schema", "protobuf", "csv"]),
        "json",
        "How values are written. json: a JSON object. avro, json_schema, protobuf: as the serializers of a schema registry do, byte 0 and the schema's id first; each record is read with its own schema, or all with the one that is given here. csv: one line, whose fields are the columns in their order.",
    ),
    Field::optional(
        "delimiter",
        Kind::Text,
        "",
        "With format csv: the character between fields, or tab or space; a comma without it. Fields may stand in double quotes, in which two of them are one.",
    ),
    Field::optional(
        "null_text",
        Kind::Text,
        "",
        "With format csv: a field that is exactly this, without quotes, is null; an empty one without it.",
    ),
    Field::optional(
        "schema",
        Kind::Text,
        "",
        "With format avro or protobuf: the schema that all values are written with, without byte 0 and an id before them. The JSON of Avro, or the text of a .proto file. A changed schema makes another stream of it: its views are computed anew.",
    ),
    Field::optional(
        "schema_file",
        Kind::Text,
        "",
        "The file that holds the schema, such as protos/event.proto, from the directory of the configuration file, read at start; either this or schema. What it imports is looked for beside it, then in the directories above it that this path names.",
    ),
    Field::optional(
        "message",
        Kind::Text,
        "",
        "With format protobuf and a schema: the message that a value is, such as org.example.Event; without it the only one at the top of the schema.",
    ),
    Field::optional(
        "columns",
        Kind::Tables(&COLUMN),
        "[{ name = \"user_id\", type = \"BIGINT\", required = true }, { name = \"ts\", type = \"TIMESTAMP\", required = true }]",
        "The columns, taken from the record by name; needed without sql. EXPLAIN CREATE STREAM name WITH (…) over SQL prints those of a topic of JSON.",
    ),
    Field::optional(
        "event_time",
        Kind::Text,
        "\"ts\"",
        "The TIMESTAMP column that says when the event happened; needed without sql, and with it when the result has no column of the name that the source's event time has.",
    ),
    Field::with_default(
        "lateness",
        Kind::Duration(0, 3650 * DAY),
        "10s",
        "How long after its end a window still takes rows; later ones go to <view>.late.",
    ),
    Field::with_default(
        "idle_timeout",
        Kind::Duration(0, DAY),
        "30s",
        "A partition without records for this long no longer holds windows open; 0s: it does for ever.",
    ),
    Field::with_default(
        "max_ahead",
        Kind::Duration(0, 365 * DAY),
        "1h",
        "A row further in the future than this is rejected.",
    ),
    Field::optional(
        "checks",
        Kind::Tables(&CHECK),
        "[{ name = \"user_known\", sql = \"user_id > 0\" }]",
        "Conditions a row must meet; others go to <stream>.rejected with the name of the check, or are only counted.",
    ),
    Field::optional("owner", Kind::Text, "\"data team\"", "Who answers for it; shown in the catalog."),
    Field::optional(
        "description",
        Kind::Text,
        "\"Events of listening, checked\"",
        "What it holds; shown in the catalog.",
    ),
    Field::optional(
        "sql",
        Kind::Text,
        "",
        "Instead of name, topic and columns: CREATE STREAM name AS SELECT … FROM stream [LEFT] JOIN table ON … WHERE …. Each row of the stream gives a record of the topic of that name, or none, or with unnest(…) several; it is itself a stream. UNION ALL between SELECTs puts several streams into one. A join takes the table's row as it is when the record is computed. JOIN stream WITHIN 1 HOUR ON … joins rows of two streams, see docs/joins.md.",
    ),
    Field::optional(
        "key",
        Kind::Text,
        "",
        "With sql: the column whose text is the key of the records; without it they keep key and partition of the record they come from.",
    ),
    Field::optional(
        "deduplicate",
        Kind::Table(&DEDUPLICATE),
        "",
        "With sql, such as { by = [\"id\"], within = \"7d\" }: a row whose columns equal those of an accepted one that is not further away in event time goes to <stream>.rejected as duplicate, and one too far behind to tell (by more than lateness and twice within) as too_old.",
    ),
];

const COLUMN: [Field; 5] = [
    Field::required(
        "name",
        Kind::Text,
        "\"user_id\"",
        "The column, and without from the field in the record; in Avro and Protobuf user.id is a field of a nested record. In csv the columns stand in the order of the fields.",
    ),
    Field::required(
        "type",
        Kind::Text,
        "\"BIGINT\"",
        "BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE, DECIMAL(p,s) or VARCHAR[].",
    ),
    Field::with_default("required", Kind::Bool, "false", "Whether a row without it (or with null) is rejected."),
    Field::optional("description", Kind::Text, "\"Who listened\"", "What it holds; shown in the catalog."),
    Field::optional(
        "from",
        Kind::Text,
        "\"mission.start\"",
        "Where it stands in the record when that differs from the name: a field, or fields of nested objects with dots between.",
    ),
];

const CHECK: [Field; 3] = [
    Field::required("name", Kind::Text, "\"user_known\"", "The name that rejected rows carry."),
    Field::required(
        "sql",
        Kind::Text,
        "\"user_id > 0\"",
        "A condition over the columns; a row for which it is false or unknown does not meet it.",
    ),
    Field::with_default(
        "action",
        Kind::OneOf(&["reject", "warn"]),
        "reject",
        "What happens to a row that does not meet it: it is rejected, or it passes and is counted in data_quality.",
    ),
];

const DEDUPLICATE: [Field; 2] = [
    Field::required("by", Kind::Texts, "[\"id\"]", "The columns that are equal in duplicates; null equals nothing."),
    Field::required(
        "within",
        Kind::Duration(1, 3650 * DAY),
        "\"7d\"",
        "How far apart in event time duplicates may be.",
    ),
];

/// `[[tables]]`.
pub const TABLE: [Field; 6] = [
    Field::required("name", Kind::Text, "\"countries\"", "The table's name in SQL."),
    Field::required("key", Kind::Text, "\"country\"", "The column that rows are found by."),
    Field::required(
        "columns",
        Kind::Tables(&COLUMN),
        "[{ name = \"country\", type = \"VARCHAR\" }, { name = \"region\", type = \"VARCHAR\" }]",
        "Its columns, the key's among them.",
    ),
    Field::optional(
        "topic",
        Kind::Text,
        "",
        "A compacted topic, made when it is not there: the newest record of each key is the row, one without value deletes it. The key column is the record's key (its text, or the field of a JSON object), or without one the field of the value.",
    ),
    Field::optional(
        "rows",
        Kind::Grid,
        "[[\"FR\", \"Europe\"], [\"JP\", \"Asia\"]]",
        "The rows, each with a value per column in their order.",
    ),
    Field::optional(
        "file",
        Kind::Text,
        "",
        "A CSV file whose first line names the columns, read at start; a relative path begins where the server was started.",
    ),
];
