//! temporary
pub(crate) fn create_topics(_: &super::Context, _: i16, _: kafka_protocol::messages::CreateTopicsRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn delete_topics(_: &super::Context, _: i16, _: kafka_protocol::messages::DeleteTopicsRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn create_partitions(_: &super::Context, _: i16, _: kafka_protocol::messages::CreatePartitionsRequest) -> super::Reply { super::Reply::Close(String::new()) }
