//! temporary
pub(crate) fn describe_groups(_: &super::Context, _: i16, _: kafka_protocol::messages::DescribeGroupsRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn list_groups(_: &super::Context, _: i16, _: kafka_protocol::messages::ListGroupsRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn delete_groups(_: &super::Context, _: i16, _: kafka_protocol::messages::DeleteGroupsRequest) -> super::Reply { super::Reply::Close(String::new()) }
