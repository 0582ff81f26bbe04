//! InitProducerId (22) 0 to 5: identities for idempotent and transactional producers (KIP-98).
//!
//! - Without a transactional id: a fresh id with epoch 0. A producer that names the id and epoch it has (version 3 on,
//!   KIP-360) gets a fresh id, too, as in Kafka. Ids are never given twice: they come from blocks, and a block is stored
//!   before its first id leaves.
//! - With a transactional id: its producer id with the next epoch, which fences who had it before. An open transaction is
//!   aborted first, and the answer is CONCURRENT_TRANSACTIONS, so that the producer asks again. A fenced producer that asks
//!   by naming its id and epoch gets PRODUCER_FENCED, before version 4 INVALID_PRODUCER_EPOCH.
//! - Left out: two-phase commit (KIP-939, version 6).

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Context, Reply};
use crate::Broker;
use crate::error::{Error, Kind, Result};
use crate::security::acl::{Operation, Resource};
use crate::txn::{Identity, Init, NO_EPOCH, NO_ID};

/// First version in which a fenced producer is told so.
const FENCED: i16 = 4;

/// Answers InitProducerId.
pub(crate) fn init_producer_id(context: &Context, version: i16, request: InitProducerIdRequest) -> Reply {
    let allowed = match &request.transactional_id {
        Some(id) => context.authorize(Operation::Write, Resource::TransactionalId(id)),
        None => context.authorize_idempotent_write(),
    };
    let broker = context.broker.clone();
    Reply::later(async move {
        let response = InitProducerIdResponse::default();
        let given = match allowed {
            Ok(()) => identity(&broker, &request).await,
            Err(denied) => Err(denied),
        };
        let response = match given {
            Ok((id, epoch)) => response.with_producer_id(ProducerId(id)).with_producer_epoch(epoch),
            Err(error) => response
                .with_producer_id(ProducerId(NO_ID))
                .with_producer_epoch(NO_EPOCH)
                .with_error_code(told(error.kind, version, FENCED).code()),
        };
        Reply::message(version, &response)
    })
}

async fn identity(broker: &Broker, request: &InitProducerIdRequest) -> Result<Identity> {
    let expected = match (request.producer_id.0, request.producer_epoch) {
        (NO_ID, NO_EPOCH) => None,
        (NO_ID, _) | (_, NO_EPOCH) => {
            return Err(Error::new(Kind::InvalidRequest, "a producer names its id and its epoch, or neither"));
        }
        named => Some(named),
    };
    if let Some(id) = &request.transactional_id {
        let ask = Init { timeout_ms: request.transaction_timeout_ms, expected };
        return broker.transactions().init(broker, id, ask).await;
    }
    let id = broker.producer_ids().next().await;
    id.map(|id| (id, 0)).map_err(|error| Error::new(Kind::CoordinatorNotAvailable, error.message))
}

/// What a client of this version is told: older ones do not know the word for a fenced producer.
pub(super) fn told(kind: Kind, version: i16, fenced_since: i16) -> Kind {
    if kind == Kind::ProducerFenced && version < fenced_since { Kind::InvalidProducerEpoch } else { kind }
}
