//! The requests of transactions that a scenario can make.

use super::calls::{Call, ask, group_id, text, topic_name};
use crate::support::raw::Client;
use kafka_protocol::messages::*;
use serde_json::Value;

fn id(value: &str) -> TransactionalId {
    TransactionalId(text(value))
}

impl Call {
    pub(super) fn transactions(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::AddPartitionsToTxn { version, transactional_id, producer_id, epoch, topics } => {
                let topics = topics.into_iter().map(|(name, partitions)| {
                    add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
                        .with_name(topic_name(&name))
                        .with_partitions(partitions)
                });
                let request = AddPartitionsToTxnRequest::default()
                    .with_v3_and_below_transactional_id(id(&transactional_id))
                    .with_v3_and_below_producer_id(ProducerId(producer_id))
                    .with_v3_and_below_producer_epoch(epoch)
                    .with_v3_and_below_topics(topics.collect());
                ask(client, &request, version)
            }
            Call::AddOffsetsToTxn { version, transactional_id, producer_id, epoch, group } => {
                let request = AddOffsetsToTxnRequest::default()
                    .with_transactional_id(id(&transactional_id))
                    .with_producer_id(ProducerId(producer_id))
                    .with_producer_epoch(epoch)
                    .with_group_id(group_id(&group));
                ask(client, &request, version)
            }
            Call::EndTxn { version, transactional_id, producer_id, epoch, commit } => {
                let request = EndTxnRequest::default()
                    .with_transactional_id(id(&transactional_id))
                    .with_producer_id(ProducerId(producer_id))
                    .with_producer_epoch(epoch)
                    .with_committed(commit);
                ask(client, &request, version)
            }
            Call::TxnOffsetCommit { .. } => self.transactional_offsets(client),
            Call::WriteTxnMarkers { version, producer_id, epoch, commit, topics, coordinator_epoch } => {
                let topics = topics.into_iter().map(|(name, partitions)| {
                    write_txn_markers_request::WritableTxnMarkerTopic::default()
                        .with_name(topic_name(&name))
                        .with_partition_indexes(partitions)
                });
                let marker = write_txn_markers_request::WritableTxnMarker::default()
                    .with_producer_id(ProducerId(producer_id))
                    .with_producer_epoch(epoch)
                    .with_transaction_result(commit)
                    .with_coordinator_epoch(coordinator_epoch)
                    .with_topics(topics.collect());
                ask(client, &WriteTxnMarkersRequest::default().with_markers(vec![marker]), version)
            }
            _ => unreachable!("not about transactions"),
        }
    }

    fn transactional_offsets(self, client: &mut Client) -> Result<Value, String> {
        let Call::TxnOffsetCommit {
            version,
            transactional_id,
            producer_id,
            epoch,
            group,
            member_id,
            generation,
            topic,
            partition,
            offset,
            metadata,
        } = self
        else {
            unreachable!("not about offsets of a transaction")
        };
        let wanted = txn_offset_commit_request::TxnOffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(metadata.as_deref().map(text));
        let topic = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(vec![wanted]);
        let mut request = TxnOffsetCommitRequest::default()
            .with_transactional_id(id(&transactional_id))
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
            .with_group_id(group_id(&group))
            .with_topics(vec![topic]);
        if version >= 3 {
            request = request.with_member_id(text(&member_id)).with_generation_id(generation);
        }
        ask(client, &request, version)
    }

    pub(super) fn transaction_admin(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Call::DescribeProducers { version, topics } => {
                let topics = topics.into_iter().map(|(name, partitions)| {
                    describe_producers_request::TopicRequest::default()
                        .with_name(topic_name(&name))
                        .with_partition_indexes(partitions)
                });
                ask(client, &DescribeProducersRequest::default().with_topics(topics.collect()), version)
            }
            Call::DescribeTransactions { version, transactional_ids } => {
                let ids = transactional_ids.iter().map(|name| id(name)).collect();
                ask(client, &DescribeTransactionsRequest::default().with_transactional_ids(ids), version)
            }
            Call::ListTransactions { version, states, producer_ids, duration_ms, pattern } => {
                let mut request = ListTransactionsRequest::default()
                    .with_state_filters(states.iter().map(|state| text(state)).collect())
                    .with_producer_id_filters(producer_ids.into_iter().map(ProducerId).collect());
                if version >= 1 {
                    request = request.with_duration_filter(duration_ms);
                }
                if version >= 2 {
                    request = request.with_transactional_id_pattern(pattern.as_deref().map(text));
                }
                ask(client, &request, version)
            }
            Call::UpdateFeatures { version, feature, level, upgrade_type, allow_downgrade, validate_only } => {
                let mut update = update_features_request::FeatureUpdateKey::default()
                    .with_feature(text(&feature))
                    .with_max_version_level(level);
                let mut request = UpdateFeaturesRequest::default().with_timeout_ms(10_000);
                if version >= 1 {
                    update = update.with_upgrade_type(upgrade_type);
                    request = request.with_validate_only(validate_only);
                } else {
                    update = update.with_allow_downgrade(allow_downgrade);
                }
                ask(client, &request.with_feature_updates(vec![update]), version)
            }
            _ => unreachable!("not about transactions as they are administered"),
        }
    }
}
