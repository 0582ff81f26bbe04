//! temporary
pub(crate) fn describe_configs(_: &super::Context, _: i16, _: kafka_protocol::messages::DescribeConfigsRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn incremental_alter_configs(_: &super::Context, _: i16, _: kafka_protocol::messages::IncrementalAlterConfigsRequest) -> super::Reply { super::Reply::Close(String::new()) }
