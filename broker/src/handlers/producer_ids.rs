//! InitProducerId (22) 0 to 5: identities for idempotent producers (KIP-98).
//!
//! - Without a transactional id: a fresh id with epoch 0. A producer that names the id and epoch it has (version 3 on,
//!   KIP-360) gets a fresh id, too, as in Kafka. Ids are never given twice: they come from blocks, and a block is stored
//!   before its first id leaves.
//! - With a transactional id: INVALID_TRANSACTION_TIMEOUT, and a line in our log that says why. Transactions are not
//!   served yet, and this is the one answer without an access right in its name on which Java, librdkafka, franz-go and
//!   kafkajs stop at once; on others (INVALID_REQUEST, UNSUPPORTED_VERSION, COORDINATOR_NOT_AVAILABLE) librdkafka tries
//!   again until its own timeout. It agrees with `transaction.max.timeout.ms = 0` in this broker's settings.
//! - Left out: two-phase commit (KIP-939, version 6).

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Context, Reply};
use crate::error::Kind;

/// Answers InitProducerId.
pub(crate) fn init_producer_id(context: &Context, version: i16, request: InitProducerIdRequest) -> Reply {
    let response = InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    if let Some(id) = request.transactional_id {
        let kind = if id.is_empty() { Kind::InvalidRequest } else { Kind::InvalidTransactionTimeout };
        tracing::warn!(
            transactional_id = id.as_str(),
            client = &*context.client_id,
            "transactions are not served, write without transactional.id"
        );
        return Reply::message(version, &response.with_error_code(kind.code()));
    }
    let broker = context.broker.clone();
    Reply::later(async move {
        let response = match broker.producer_ids().next().await {
            Ok(id) => response.with_producer_id(ProducerId(id)).with_producer_epoch(0),
            Err(_) => response.with_error_code(Kind::CoordinatorNotAvailable.code()),
        };
        Reply::message(version, &response)
    })
}
