//! temporary
pub(crate) fn init_producer_id(_: &super::Context, _: i16, _: kafka_protocol::messages::InitProducerIdRequest) -> super::Reply { super::Reply::Close(String::new()) }
