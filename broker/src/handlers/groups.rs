//! temporary
pub(crate) fn find_coordinator(_: &super::Context, _: i16, _: kafka_protocol::messages::FindCoordinatorRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn join_group(_: &super::Context, _: i16, _: kafka_protocol::messages::JoinGroupRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn heartbeat(_: &super::Context, _: i16, _: kafka_protocol::messages::HeartbeatRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn leave_group(_: &super::Context, _: i16, _: kafka_protocol::messages::LeaveGroupRequest) -> super::Reply { super::Reply::Close(String::new()) }
pub(crate) fn sync_group(_: &super::Context, _: i16, _: kafka_protocol::messages::SyncGroupRequest) -> super::Reply { super::Reply::Close(String::new()) }
