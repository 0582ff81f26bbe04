//! ElectLeaders (43) 0 to 2, AlterPartitionReassignments (45) 0 to 1, ListPartitionReassignments (46) 0,
//! AlterReplicaLogDirs (34) 1 to 2: where replicas live and who leads. There is one broker with one directory, so nothing
//! ever moves; what would change nothing is granted, everything else is told apart as Kafka does.
//!
//! - ElectLeaders: every partition has its leader, so one that is named is ELECTION_NOT_NEEDED; when all are asked for,
//!   those that need none are left out of the answer, as in Kafka, and each topic stands there without partitions.
//! - AlterPartitionReassignments: [this broker] is granted; other or no replicas are INVALID_REPLICA_ASSIGNMENT. To cancel is
//!   NO_REASSIGNMENT_IN_PROGRESS, as none ever is, and so the list of them is empty.
//! - AlterReplicaLogDirs: the data directory is granted, another is LOG_DIR_NOT_FOUND.

use std::collections::HashMap;

use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse, ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, TopicName,
};

use super::metadata::log_dir;
use super::positions::partition;
use super::topics::check_replicas;
use super::{Context, Reply, text};
use crate::error::{Error, Kind, Result};
use crate::security::acl::{Operation, Resource};
use crate::types::PartitionIndex;

/// Kinds of election: the preferred leader, or any replica that is left.
const ELECTIONS: std::ops::RangeInclusive<i8> = 0..=1;

/// Answers ElectLeaders.
pub(crate) fn elect_leaders(context: &Context, version: i16, request: ElectLeadersRequest) -> Reply {
    let mut response = ElectLeadersResponse::default();
    if let Err(denied) = context.authorize(Operation::Alter, Resource::Cluster) {
        return Reply::message(version, &not_elected(version, request, &denied));
    }
    let known = version < 1 || ELECTIONS.contains(&request.election_type);
    if !known && version >= 1 {
        response.error_code = Kind::InvalidRequest.code();
    }
    response.replica_election_results = match request.topic_partitions {
        None if !known => Vec::new(),
        None => {
            let topics = context.broker.catalog().topics();
            let without = |name: &str| ReplicaElectionResult::default().with_topic(TopicName(text(name)));
            topics.iter().map(|topic| without(topic.name())).collect()
        }
        Some(asked) => {
            let answered = asked.into_iter().map(|topic| {
                let one = |index| election(context, known, (&topic.topic, index));
                let results = topic.partitions.iter().map(|index| one(*index)).collect();
                ReplicaElectionResult::default().with_topic(topic.topic.clone()).with_partition_result(results)
            });
            answered.collect()
        }
    };
    Reply::message(version, &response)
}

/// Version 0 has no place for an error of the whole request.
fn not_elected(version: i16, request: ElectLeadersRequest, error: &Error) -> ElectLeadersResponse {
    let code = error.kind.code();
    let topics = request.topic_partitions.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            let result = PartitionResult::default().with_partition_id(*index).with_error_code(code);
            result.with_error_message(Some(text(&error.message)))
        });
        ReplicaElectionResult::default().with_topic(topic.topic.clone()).with_partition_result(partitions.collect())
    });
    let response = ElectLeadersResponse::default().with_replica_election_results(topics.collect());
    if version >= 1 { response.with_error_code(code) } else { response }
}

fn election(context: &Context, known: bool, (topic, index): (&TopicName, PartitionIndex)) -> PartitionResult {
    let error = match partition(context, topic, index) {
        _ if !known => Error::new(Kind::InvalidRequest, "there is no such kind of election; 0 is preferred, 1 unclean"),
        Ok(_) => Error::new(Kind::ElectionNotNeeded, "this broker leads the partition, there is no other"),
        Err(error) => error,
    };
    PartitionResult::default()
        .with_partition_id(index)
        .with_error_code(error.kind.code())
        .with_error_message(Some(text(&error.message)))
}

/// Answers AlterPartitionReassignments.
pub(crate) fn alter_partition_reassignments(
    context: &Context,
    version: i16,
    request: AlterPartitionReassignmentsRequest,
) -> Reply {
    let allowed = context.authorize(Operation::Alter, Resource::Cluster);
    let responses = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = ReassignablePartitionResponse::default().with_partition_index(asked.partition_index);
            match allowed.clone().and_then(|()| reassign(context, &topic.name, asked)) {
                Ok(()) => answer.with_error_message(None),
                Err(e) => answer.with_error_code(e.kind.code()).with_error_message(Some(text(&e.message))),
            }
        });
        ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    let mut response =
        AlterPartitionReassignmentsResponse::default().with_error_message(None).with_responses(responses.collect());
    if let Err(denied) = allowed {
        response = response.with_error_code(denied.kind.code()).with_error_message(Some(text(&denied.message)));
    }
    if version >= 1 {
        response = response.with_allow_replication_factor_change(request.allow_replication_factor_change);
    }
    Reply::message(version, &response)
}

fn reassign(context: &Context, topic: &TopicName, asked: &ReassignablePartition) -> Result<()> {
    let partition = partition(context, topic, asked.partition_index)?;
    match &asked.replicas {
        Some(replicas) => check_replicas(&context.broker, replicas),
        None => {
            let message =
                format!("{}-{} is not being moved, so there is nothing to cancel", topic.0, partition.index());
            Err(Error::new(Kind::NoReassignmentInProgress, message))
        }
    }
}

/// Answers ListPartitionReassignments.
pub(crate) fn list_partition_reassignments(
    context: &Context,
    version: i16,
    request: ListPartitionReassignmentsRequest,
) -> Reply {
    let response = ListPartitionReassignmentsResponse::default();
    let response = match context.authorize(Operation::Describe, Resource::Cluster) {
        Ok(()) => response.with_error_message(None),
        Err(denied) => {
            // as Kafka does, with what was asked for
            let topics = request.topics.into_iter().flatten().map(|topic| {
                let partitions = topic.partition_indexes.iter();
                let partitions =
                    partitions.map(|index| OngoingPartitionReassignment::default().with_partition_index(*index));
                OngoingTopicReassignment::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
            });
            response
                .with_error_code(denied.kind.code())
                .with_error_message(Some(text(&denied.message)))
                .with_topics(topics.collect())
        }
    };
    Reply::message(version, &response)
}

/// Answers AlterReplicaLogDirs.
pub(crate) fn alter_replica_log_dirs(context: &Context, version: i16, request: AlterReplicaLogDirsRequest) -> Reply {
    let allowed = context.authorize(Operation::Alter, Resource::Cluster);
    let own = log_dir(&context.broker);
    let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
    let mut places: HashMap<&TopicName, usize> = HashMap::new();
    for dir in &request.dirs {
        for topic in &dir.topics {
            let partitions = topic.partitions.iter().map(|index| {
                let move_it = |()| move_to(context, (&topic.name, *index), (&dir.path, &own));
                let moved = allowed.clone().and_then(move_it);
                AlterReplicaLogDirPartitionResult::default()
                    .with_partition_index(*index)
                    .with_error_code(moved.map_or_else(|error| error.kind.code(), |()| 0))
            });
            let place = *places.entry(&topic.name).or_insert(results.len());
            if place == results.len() {
                results.push(AlterReplicaLogDirTopicResult::default().with_topic_name(topic.name.clone()));
            }
            results[place].partitions.extend(partitions);
        }
    }
    Reply::message(version, &AlterReplicaLogDirsResponse::default().with_results(results))
}

fn move_to(context: &Context, (topic, index): (&TopicName, PartitionIndex), (to, own): (&str, &str)) -> Result<()> {
    if to != own {
        return Err(Error::new(Kind::LogDirNotFound, format!("there is no log directory {to:?}, only {own:?}")));
    }
    partition(context, topic, index).map(drop)
}
