//! The list of everything this broker answers, and what a handler is.
//!
//! A handler gets a typed request and gives a [`Reply`]. It fixes the order of its effects before it returns
//! (it enqueues its commits) and waits later, inside [`Reply::Later`]; the connection sends replies in the order
//! of the requests, so pipelined requests of one client take effect in the order they were sent.
//!
//! To add an API: a function in the file of its family that first asks `Context::authorize` (`authorize.rs`), one line in
//! [`APIS`], its shape in `net/shapes*.rs`.

mod acls;
mod api_versions;
mod authorize;
#[cfg(test)]
mod bound_tests;
#[cfg(test)]
mod claim_tests;
mod client_quotas;
#[cfg(test)]
mod cold_tests;
mod configs;
mod consumer_groups;
mod delegation_tokens;
mod describe_configs;
mod features;
mod fetch;
mod fetch_answer;
mod fetch_pass;
mod fetch_sessions;
#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
pub(crate) mod golden_tests;
mod group_admin;
mod group_offsets;
#[cfg(test)]
mod group_tests;
mod groups;
mod list_reply;
mod metadata;
mod mutations;
mod positions;
mod produce;
mod producer_ids;
mod quorum;
mod replicas;
mod reply_memory;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod samples_admin;
#[cfg(test)]
mod samples_txn;
pub(crate) mod sasl;
mod scram_users;
#[cfg(test)]
mod sight_tests;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod throttle;
mod topic_partitions;
mod topics;
mod transaction_admin;
mod transactions;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::sync::{OwnedSemaphorePermit, watch};

pub(crate) use self::fetch_sessions::FetchSessions;
pub(crate) use self::reply_memory::ReplyMemory;
use crate::Broker;
use crate::security::session::Session;

/// What a handler answers. Bodies are chunks that are written one after another; the connection puts the length
/// and the response header in front of them.
pub(crate) enum Reply {
    /// The answer is ready.
    Now(Vec<Bytes>),
    /// The answer is ready, and has its share of the memory for replies.
    Held(Vec<Bytes>, OwnedSemaphorePermit),
    /// The order is fixed, the answer comes when this resolves. It is first polled when the replies before it have
    /// left, so whatever it does itself happens in the order of the requests, too.
    Later(BoxFuture<'static, Reply>),
    /// There is no answer on the wire (a produce with acks = 0 that went well).
    Silent,
    /// Close the connection, for this reason: where Kafka's protocol has no answer to give.
    Close(String),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Now(chunks) => write!(f, "Now({} chunks)", chunks.len()),
            Reply::Held(chunks, share) => write!(f, "Held({} chunks, {} bytes)", chunks.len(), share.num_permits()),
            Reply::Later(_) => f.write_str("Later"),
            Reply::Silent => f.write_str("Silent"),
            Reply::Close(reason) => write!(f, "Close({reason})"),
        }
    }
}

impl Reply {
    /// The answer `response`, encoded for `version`. A field that the version lacks is a bug of the handler: it
    /// closes the connection with a line in the log, and the protocol tests look for it.
    pub(crate) fn message<R: Encodable>(version: i16, response: &R) -> Reply {
        match encode(version, response) {
            Ok(body) => Reply::Now(vec![body]),
            Err(error) => Reply::Close(format!("cannot encode the answer in version {version}: {error}")),
        }
    }

    /// An answer that is still to come.
    pub(crate) fn later(answer: impl Future<Output = Reply> + Send + 'static) -> Reply {
        Reply::Later(Box::pin(answer))
    }
}

/// `response` as bytes of `version`, in one allocation.
pub(crate) fn encode<R: Encodable>(version: i16, response: &R) -> Result<Bytes, String> {
    let size = response.compute_size(version).map_err(|e| e.to_string())?;
    let mut body = BytesMut::with_capacity(size);
    response.encode(&mut body, version).map_err(|e| e.to_string())?;
    Ok(body.freeze())
}

/// The name and port that clients of one listener are told to come back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Name from the configuration, as in Kafka's `listeners`.
    pub(crate) name: String,
    /// Host that Metadata and FindCoordinator give out on this listener.
    pub(crate) host: String,
    /// Port that Metadata and FindCoordinator give out on this listener.
    pub(crate) port: u16,
}

/// Who asks, and of which broker.
#[derive(Clone)]
pub(crate) struct Context {
    /// The broker that answers.
    pub(crate) broker: Arc<Broker>,
    /// Listener that the connection came in on.
    pub(crate) listener: Arc<Listener>,
    /// Client id of the request's header; empty if it has none. A copy, it does not keep the request's frame.
    pub(crate) client_id: Arc<str>,
    /// Address of the peer.
    pub(crate) client_host: IpAddr,
    /// Who it is, and whether anything may be asked.
    pub(crate) session: Arc<Session>,
    /// Turns true when the connection is about to end, so that long waits can end early.
    pub(crate) ending: watch::Receiver<bool>,
    /// Memory for replies that have not left yet, of all connections together.
    pub(crate) reply_memory: Arc<ReplyMemory>,
    /// The share of the memory for requests that a Produce has which is being handled: what it submits keeps it.
    pub(crate) share: Option<Arc<OwnedSemaphorePermit>>,
}

/// One line of the list.
pub(crate) struct Api {
    /// The API key.
    pub(crate) key: ApiKey,
    /// Lowest version in ApiVersions.
    pub(crate) advertised_min: i16,
    /// Lowest version that is answered; below it the connection is closed as for an unknown version.
    pub(crate) min: i16,
    /// Highest version answered and advertised.
    pub(crate) max: i16,
    /// Decodes the body (its shape has been checked before) and handles it.
    pub(crate) handle: fn(&Context, i16, Bytes) -> Result<Reply, String>,
}

macro_rules! api {
    ($key:ident, $advertised:literal, $min:literal..=$max:literal, $request:ident, $handler:path) => {
        Api {
            key: ApiKey::$key,
            advertised_min: $advertised,
            min: $min,
            max: $max,
            handle: |context, version, mut body| {
                let request = messages::$request::decode(&mut body, version).map_err(|e| e.to_string())?;
                drop(body); // batches that nobody else holds are not copied
                Ok($handler(context, version, request))
            },
        }
    };
    ($key:ident, $min:literal..=$max:literal, $request:ident, $handler:path) => {
        api!($key, $min, $min..=$max, $request, $handler)
    };
}

/// Every API this broker answers: key, versions, request, handler. ApiVersions is built from it.
///
/// Produce is advertised from 0 because librdkafka before 2.11.1 takes "no Produce 0" for "no compression".
pub(crate) static APIS: &[Api] = &[
    api!(Produce, 0, 3..=13, ProduceRequest, produce::produce),
    api!(Fetch, 4..=17, FetchRequest, fetch::fetch),
    api!(ListOffsets, 1..=10, ListOffsetsRequest, positions::list_offsets),
    api!(Metadata, 0..=13, MetadataRequest, metadata::metadata),
    api!(OffsetCommit, 2..=9, OffsetCommitRequest, group_offsets::offset_commit),
    api!(OffsetFetch, 1..=9, OffsetFetchRequest, group_offsets::offset_fetch),
    api!(FindCoordinator, 0..=6, FindCoordinatorRequest, groups::find_coordinator),
    api!(JoinGroup, 0..=9, JoinGroupRequest, groups::join_group),
    api!(Heartbeat, 0..=4, HeartbeatRequest, groups::heartbeat),
    api!(LeaveGroup, 0..=5, LeaveGroupRequest, groups::leave_group),
    api!(SyncGroup, 0..=5, SyncGroupRequest, groups::sync_group),
    api!(DescribeGroups, 0..=6, DescribeGroupsRequest, group_admin::describe_groups),
    api!(ListGroups, 0..=5, ListGroupsRequest, group_admin::list_groups),
    api!(SaslHandshake, 0..=1, SaslHandshakeRequest, sasl::sasl_handshake),
    api!(ApiVersions, 0..=4, ApiVersionsRequest, api_versions::api_versions),
    api!(CreateTopics, 2..=7, CreateTopicsRequest, topics::create_topics),
    api!(DeleteTopics, 1..=6, DeleteTopicsRequest, topics::delete_topics),
    api!(DeleteRecords, 0..=2, DeleteRecordsRequest, positions::delete_records),
    api!(InitProducerId, 0..=5, InitProducerIdRequest, producer_ids::init_producer_id),
    api!(AddPartitionsToTxn, 0..=3, AddPartitionsToTxnRequest, transactions::add_partitions_to_txn),
    api!(AddOffsetsToTxn, 0..=4, AddOffsetsToTxnRequest, transactions::add_offsets_to_txn),
    api!(EndTxn, 0..=5, EndTxnRequest, transactions::end_txn),
    api!(WriteTxnMarkers, 1..=1, WriteTxnMarkersRequest, transaction_admin::write_txn_markers),
    api!(TxnOffsetCommit, 0..=5, TxnOffsetCommitRequest, transactions::txn_offset_commit),
    api!(OffsetForLeaderEpoch, 2..=4, OffsetForLeaderEpochRequest, positions::offset_for_leader_epoch),
    api!(DescribeAcls, 1..=3, DescribeAclsRequest, acls::describe_acls),
    api!(CreateAcls, 1..=3, CreateAclsRequest, acls::create_acls),
    api!(DeleteAcls, 1..=3, DeleteAclsRequest, acls::delete_acls),
    api!(DescribeConfigs, 1..=4, DescribeConfigsRequest, describe_configs::describe_configs),
    api!(AlterConfigs, 0..=2, AlterConfigsRequest, configs::alter_configs),
    api!(AlterReplicaLogDirs, 1..=2, AlterReplicaLogDirsRequest, replicas::alter_replica_log_dirs),
    api!(DescribeLogDirs, 1..=4, DescribeLogDirsRequest, metadata::describe_log_dirs),
    api!(SaslAuthenticate, 0..=2, SaslAuthenticateRequest, sasl::sasl_authenticate),
    api!(CreatePartitions, 0..=3, CreatePartitionsRequest, topics::create_partitions),
    api!(CreateDelegationToken, 1..=3, CreateDelegationTokenRequest, delegation_tokens::create),
    api!(RenewDelegationToken, 1..=2, RenewDelegationTokenRequest, delegation_tokens::renew),
    api!(ExpireDelegationToken, 1..=2, ExpireDelegationTokenRequest, delegation_tokens::expire),
    api!(DescribeDelegationToken, 1..=3, DescribeDelegationTokenRequest, delegation_tokens::describe),
    api!(DeleteGroups, 0..=2, DeleteGroupsRequest, group_admin::delete_groups),
    api!(ElectLeaders, 0..=2, ElectLeadersRequest, replicas::elect_leaders),
    api!(IncrementalAlterConfigs, 0..=1, IncrementalAlterConfigsRequest, configs::incremental_alter_configs),
    api!(
        AlterPartitionReassignments,
        0..=1,
        AlterPartitionReassignmentsRequest,
        replicas::alter_partition_reassignments
    ),
    api!(ListPartitionReassignments, 0..=0, ListPartitionReassignmentsRequest, replicas::list_partition_reassignments),
    api!(OffsetDelete, 0..=0, OffsetDeleteRequest, group_offsets::offset_delete),
    api!(DescribeQuorum, 0..=2, DescribeQuorumRequest, quorum::describe_quorum),
    api!(UpdateFeatures, 0..=2, UpdateFeaturesRequest, features::update_features),
    api!(DescribeProducers, 0..=0, DescribeProducersRequest, transaction_admin::describe_producers),
    api!(DescribeTransactions, 0..=0, DescribeTransactionsRequest, transaction_admin::describe_transactions),
    api!(ListTransactions, 0..=2, ListTransactionsRequest, transaction_admin::list_transactions),
    api!(DescribeClientQuotas, 0..=1, DescribeClientQuotasRequest, client_quotas::describe),
    api!(AlterClientQuotas, 0..=1, AlterClientQuotasRequest, client_quotas::alter),
    api!(DescribeUserScramCredentials, 0..=0, DescribeUserScramCredentialsRequest, scram_users::describe),
    api!(AlterUserScramCredentials, 0..=0, AlterUserScramCredentialsRequest, scram_users::alter),
    api!(DescribeCluster, 0..=2, DescribeClusterRequest, metadata::describe_cluster),
    api!(ConsumerGroupHeartbeat, 0..=1, ConsumerGroupHeartbeatRequest, consumer_groups::heartbeat),
    api!(ConsumerGroupDescribe, 0..=1, ConsumerGroupDescribeRequest, consumer_groups::describe),
    api!(ListConfigResources, 0..=1, ListConfigResourcesRequest, describe_configs::list_config_resources),
    api!(DescribeTopicPartitions, 0..=0, DescribeTopicPartitionsRequest, topic_partitions::describe_topic_partitions),
];

/// The line of `key`, if this broker answers it.
pub(crate) fn api(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}

/// The answer to a version of `api` that is not served, if the protocol has one: only ApiVersions does.
pub(crate) fn unsupported_version(api: &Api) -> Option<Reply> {
    (api.key == ApiKey::ApiVersions).then(api_versions::unsupported_version)
}

/// A copy of `text` for a response.
pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
