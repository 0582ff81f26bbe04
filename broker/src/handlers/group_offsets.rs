//! temporary
pub(crate) fn offset_commit(_: &super::Context, _: i16, _: kafka_protocol::messages::OffsetCommitRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn offset_fetch(_: &super::Context, _: i16, _: kafka_protocol::messages::OffsetFetchRequest) -> super::Reply { super::Reply::Close(String::new()) }
