//! Avro records as a registry's serializers write them: the writer's schema is looked up by its id and compiled once
//! against a stream's columns, then each record is walked byte by byte straight into them.
//!
//! `schema` reads the JSON of a schema into nodes, `cursor` reads Avro's encodings, `program` binds fields to columns and
//! walks a record, `text` writes nested values as JSON, `encode` goes the other way for JSON that comes over HTTP.

mod cursor;
mod encode;
mod program;
mod schema;
mod text;

pub(crate) use encode::encode;
pub(crate) use program::Program;
pub(crate) use schema::AvroSchema;
