//! Protobuf records as a registry's serializers write them: the writer's schema is looked up by its id, the message's type
//! by the path that stands before it, and compiled once against a stream's columns; then each message is walked byte by
//! byte straight into them.
//!
//! `schema` compiles the text of a schema, `cursor` reads the wire format, `program` binds fields to columns and walks a
//! message, `value` writes nested values as JSON, `known` keeps what was compiled, `encode` goes the other way for JSON that
//! comes over HTTP.

mod cursor;
mod encode;
mod known;
mod program;
mod schema;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use encode::encode;
pub(crate) use known::{Known, LastMessage};
pub(crate) use program::Program;
pub(crate) use schema::{message_at, split_path};
pub use schema::{proto_file, proto_imports};
