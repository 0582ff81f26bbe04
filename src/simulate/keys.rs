//! The keys of simulator.toml, one row each.

use api::config::schema::{Field, Kind, Section};

const DAY: i64 = 86_400_000;
const KINDS: [&str; 11] =
    ["time", "id", "choice", "uniform", "lognormal", "around", "column", "template", "join", "token", "serial"];

/// Everything a description may say.
pub const SECTIONS: [Section; 1] = [Section { name: "", doc: "", fields: &TOP }];

const TOP: [Field; 17] = [
    Field::optional("topic", Kind::Text, "\"listens\"", "The topic it writes to; either this or file."),
    Field::optional(
        "file",
        Kind::Text,
        "\"sample/tracks.csv\"",
        "The file it writes, below the data directory of a demo; either this or topic.",
    ),
    Field::with_default(
        "format",
        Kind::OneOf(&["csv", "ndjson", "json"]),
        "csv",
        "file: csv with a header line, an object per line, or an array of objects.",
    ),
    Field::with_default("rows", Kind::Integer(1, 1_000_000_000), "10000", "file: its rows."),
    Field::optional("key", Kind::Text, "\"user_id\"", "The field whose text is the record's key; without it, no key."),
    Field::optional("time", Kind::Text, "\"ts\"", "The field of kind time that is the event time; topic needs it."),
    Field::with_default(
        "jitter",
        Kind::Duration(0, DAY),
        "0",
        "How far an ordinary event may be behind the newest one.",
    ),
    Field::with_default("late_behind_min", Kind::Duration(0, DAY), "2m", "The least that a late event is behind."),
    Field::with_default("late_behind_max", Kind::Duration(0, DAY), "40m", "The most that a late event is behind."),
    Field::optional(
        "tables",
        Kind::Tables(&TABLE),
        "",
        "Rows of texts; an event draws one row of each and takes fields from it.",
    ),
    Field::required(
        "fields",
        Kind::Tables(&FIELD),
        "[{ name = \"ts\", kind = \"time\" }]",
        "The fields of the JSON object, in order.",
    ),
    Field::optional("dirty", Kind::Tables(&DIRTY), "", "Ways in which an event can be wrong."),
    Field::with_default(
        "share",
        Kind::Number(1e-6, 1.0),
        "1",
        "The part of --rate and --count that goes to this topic, where a system has several simulators.",
    ),
    Field::optional(
        "encoding",
        Kind::OneOf(&["json", "json_schema", "avro"]),
        "\"json\"",
        "topic: how values are written: plain JSON, or with the id that the schema registry gives. Without it: avro if there are such schemas.",
    ),
    Field::optional(
        "json_schema",
        Kind::Text,
        "'{\"type\": \"object\", …}'",
        "The JSON Schema of the value, for encoding json_schema.",
    ),
    Field::optional(
        "avro",
        Kind::Texts,
        "['{\"type\": \"record\", …}']",
        "Avro schemas of the value, the first one and its evolutions, for encoding avro.",
    ),
    Field::with_default(
        "evolve_after",
        Kind::Integer(1, 1_000_000_000_000),
        "1000",
        "avro: events until the next schema is used.",
    ),
];

const TABLE: [Field; 5] = [
    Field::required("name", Kind::Text, "\"artists\"", "The name that fields use."),
    Field::required("columns", Kind::Texts, "[\"artist\", \"genre\"]", "The names of the columns."),
    Field::required("rows", Kind::Grid, "[[\"Nova\", \"pop\"]]", "The rows."),
    Field::optional(
        "skew",
        Kind::Number(0.0, 5.0),
        "1.0",
        "Zipf's exponent: how much the first rows are preferred; 0 or absent: equally.",
    ),
    Field::optional("weights", Kind::Numbers, "[3, 1]", "A weight per row, instead of skew."),
];

const FIELD: [Field; 19] = [
    Field::required("name", Kind::Text, "\"user_id\"", "The key in the JSON object."),
    Field::required("kind", Kind::OneOf(&KINDS), "\"id\"", "How its values are drawn."),
    Field::with_default("hidden", Kind::Bool, "false", "Drawn but not sent."),
    Field::with_default("unnamed", Kind::Bool, "false", "csv: it has no name in the header line."),
    Field::with_default("null_share", Kind::Number(0.0, 1.0), "0", "Share of events in which it is null."),
    Field::optional(
        "by",
        Kind::Texts,
        "[\"user_id\"]",
        "Earlier fields that decide the draw: the same values give the same draw. around: they decide the centre.",
    ),
    Field::optional("values", Kind::Texts, "[\"listen\", \"like\"]", "choice: the values."),
    Field::optional("weights", Kind::Numbers, "[9, 1]", "choice: a weight per value."),
    Field::optional("skew", Kind::Number(0.0, 5.0), "1.0", "choice and id: Zipf's exponent."),
    Field::optional("min", Kind::Number(-1e15, 1e15), "0", "uniform, around and lognormal: the least value."),
    Field::optional(
        "max",
        Kind::Number(-1e15, 1e15),
        "20000",
        "id: the number of ids; uniform, around and lognormal: the largest value.",
    ),
    Field::optional("median", Kind::Number(1e-9, 1e15), "205000", "lognormal: half of the values are below."),
    Field::optional(
        "sigma",
        Kind::Number(0.0, 1e15),
        "0.35",
        "lognormal: how wide. around: the standard deviation from a centre between min and max.",
    ),
    Field::with_default("decimals", Kind::Integer(0, 9), "0", "uniform, around and lognormal: digits after the point."),
    Field::optional(
        "of",
        Kind::Texts,
        "[\"artist\", \"guest\"]",
        "join: earlier fields; null and repeated ones are left out.",
    ),
    Field::with_default("separator", Kind::Text, ";", "join: what stands between them."),
    Field::with_default("length", Kind::Integer(1, 1_000), "22", "token: so many letters and digits."),
    Field::optional(
        "table",
        Kind::Text,
        "\"artists\"",
        "column: the table; the column has the field's name, or the one under column.",
    ),
    Field::optional(
        "text",
        Kind::Text,
        "\"{adjective} {noun}\"",
        "template: text with earlier fields in braces. column: the column's name.",
    ),
];

const DIRTY: [Field; 8] = [
    Field::required("name", Kind::Text, "\"user_missing\"", "The name in the report."),
    Field::with_default("weight", Kind::Number(0.0, 1e6), "1", "How often, against the other ways."),
    Field::required(
        "change",
        Kind::OneOf(&["remove", "set", "ahead", "cut", "replace", "bytes"]),
        "\"remove\"",
        "What is done to a good event.",
    ),
    Field::optional("field", Kind::Text, "\"user_id\"", "remove and set: the field."),
    Field::optional("value", Kind::Any, "-1", "set: the value."),
    Field::optional("by", Kind::Duration(0, 365 * DAY), "\"3h\"", "ahead: how far the event time is in the future."),
    Field::optional("text", Kind::Text, "\"[1, 2]\"", "replace: the whole value."),
    Field::optional("hex", Kind::Text, "\"fffe\"", "bytes: the whole value in hexadecimal."),
];
