//! Samples of the requests of transactions and features (see `samples.rs`).

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::*;

use super::samples::{encoded, group, text, topic};

/// The body of a request of `key` in version `v`.
pub(super) fn sample(key: ApiKey, v: i16) -> Bytes {
    let id = TransactionalId(text("sample-transaction"));
    match key {
        ApiKey::AddPartitionsToTxn => {
            let topic = AddPartitionsToTxnTopic::default().with_name(topic()).with_partitions(vec![0, 1]);
            let request = AddPartitionsToTxnRequest::default().with_v3_and_below_transactional_id(id);
            encoded(v, &request.with_v3_and_below_producer_id(ProducerId(7)).with_v3_and_below_topics(vec![topic]))
        }
        ApiKey::AddOffsetsToTxn => {
            let request = AddOffsetsToTxnRequest::default().with_transactional_id(id).with_group_id(group());
            encoded(v, &request.with_producer_id(ProducerId(7)))
        }
        ApiKey::EndTxn => {
            let request = EndTxnRequest::default().with_transactional_id(id).with_committed(true);
            encoded(v, &request.with_producer_id(ProducerId(7)))
        }
        ApiKey::WriteTxnMarkers => {
            let topic = WritableTxnMarkerTopic::default().with_name(topic()).with_partition_indexes(vec![0, 9]);
            let marker = WritableTxnMarker::default().with_producer_id(ProducerId(7)).with_topics(vec![topic]);
            encoded(v, &WriteTxnMarkersRequest::default().with_markers(vec![marker]))
        }
        ApiKey::TxnOffsetCommit => {
            let partition = TxnOffsetCommitRequestPartition::default().with_committed_metadata(Some(text("note")));
            let partition = if v >= 2 { partition.with_committed_leader_epoch(0) } else { partition };
            let topic = TxnOffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
            let request = TxnOffsetCommitRequest::default().with_transactional_id(id).with_group_id(group());
            let request = if v >= 3 { request.with_member_id(text("nobody")).with_generation_id(1) } else { request };
            encoded(v, &request.with_topics(vec![topic]))
        }
        ApiKey::UpdateFeatures => {
            let update =
                FeatureUpdateKey::default().with_feature(text("transaction.version")).with_max_version_level(2);
            let update = if v >= 1 { update.with_upgrade_type(1) } else { update };
            let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
            encoded(v, &if v >= 1 { request.with_validate_only(true) } else { request })
        }
        ApiKey::DescribeProducers => {
            let topic = TopicRequest::default().with_name(topic()).with_partition_indexes(vec![0, 9]);
            encoded(v, &DescribeProducersRequest::default().with_topics(vec![topic]))
        }
        ApiKey::DescribeTransactions => {
            encoded(v, &DescribeTransactionsRequest::default().with_transactional_ids(vec![id]))
        }
        ApiKey::ListTransactions => {
            let request = ListTransactionsRequest::default()
                .with_state_filters(vec![text("Ongoing"), text("Nothing")])
                .with_producer_id_filters(vec![ProducerId(7)]);
            let request = if v >= 1 { request.with_duration_filter(1000) } else { request };
            encoded(v, &if v >= 2 { request.with_transactional_id_pattern(Some(text("a.*"))) } else { request })
        }
        other => panic!("there is no sample of {other:?}: add one"),
    }
}
