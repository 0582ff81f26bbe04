//! The rows of `[[schemas]]`.

use super::schema::{Field, Kind};

/// What is said of one schema.
pub const SCHEMA: [Field; 6] = [
    Field::required("subject", Kind::Text, "\"events-raw-value\"", "The subject; serializers use <topic>-value."),
    Field::with_default("type", Kind::OneOf(&["AVRO", "JSON", "PROTOBUF"]), "AVRO", "Its language."),
    Field::optional(
        "schema",
        Kind::Text,
        "'{\"type\": \"record\", \"name\": \"Event\", \"fields\": [{\"name\": \"id\", \"type\": \"long\"}]}'",
        "Its text; either this or file.",
    ),
    Field::optional(
        "file",
        Kind::Text,
        "\"schemas/event.avsc\"",
        "The file that holds its text, from the directory of the configuration file; either this or schema.",
    ),
    Field::optional(
        "compatibility",
        Kind::OneOf(&[
            "NONE",
            "BACKWARD",
            "BACKWARD_TRANSITIVE",
            "FORWARD",
            "FORWARD_TRANSITIVE",
            "FULL",
            "FULL_TRANSITIVE",
        ]),
        "\"BACKWARD\"",
        "How versions of the subject must fit earlier ones, set at each start; without it, what is set over HTTP holds.",
    ),
    Field::optional("references", Kind::Tables(&REFERENCE), "[]", "Schemas that it uses, registered before it."),
];

const REFERENCE: [Field; 3] = [
    Field::required(
        "name",
        Kind::Text,
        "\"org.example.User\"",
        "What it is called in the text: a full name in Avro, a URL in JSON Schema, a file in Protobuf.",
    ),
    Field::required("subject", Kind::Text, "\"user-value\"", "The subject it is registered under."),
    Field::with_default("version", Kind::Integer(-1, i32::MAX as i64), "-1", "The version there; -1 is the latest."),
];
