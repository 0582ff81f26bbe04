//! Metadata (3) 0 to 13, DescribeCluster (60) 0 to 2, DescribeLogDirs (35) 1 to 4: what there is, and where.
//!
//! - The address is that of the listener that the request came in on. This broker leads, replicates and controls all.
//! - Metadata: version 0 asks for all topics by an empty list, later ones by null. Topics may be named by id from version 12
//!   on, and then those named otherwise are passed over; an older version that does it is refused whole. An unknown name is
//!   created where broker and request allow it, and described at once, not by an error that has the client ask again.
//! - Without an authorizer everything is allowed, and so the authorized operations are all there are (kafka-ui offers
//!   what it finds there).
//! - DescribeCluster for controllers is refused as a Kafka broker does: controllers are not asked through brokers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, DescribeLogDirsRequest, DescribeLogDirsResponse,
    MetadataRequest, MetadataResponse, TopicName,
};

use super::mutations::Mutations;
use super::topics::check_default_factor;
use super::{Context, Reply, text};
use crate::Broker;
use crate::catalog::{NewTopic, Topic};
use crate::error::{Error, Kind, Result};
use crate::log::Partition;
use crate::security::acl::{Operation, Resource};
use crate::types::TopicId;

/// First version that asks for topics by id.
const BY_ID: i16 = 12;
/// In place of operations that were not asked for.
const NOT_ASKED: i32 = i32::MIN;
/// DescribeCluster's words for what is described.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers Metadata.
pub(crate) fn metadata(context: &Context, version: i16, request: MetadataRequest) -> Reply {
    let all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    if version < BY_ID && request.topics.iter().flatten().any(|topic| topic.name.is_none() || !topic.topic_id.is_nil())
    {
        return refused(version, request);
    }
    let operations = request.include_topic_authorized_operations;
    let cluster = if request.include_cluster_authorized_operations { cluster_operations(context) } else { NOT_ASKED };
    let context = context.clone();
    let view = View { node: BrokerId(context.broker.config().node_id), version, operations };
    if all {
        let topics = context.broker.catalog().topics();
        let allowed = topics.iter().filter(|topic| context.may(Operation::Describe, Resource::Topic(topic.name())));
        let topics = allowed.map(|topic| view.topic(&context, topic)).collect();
        return view.answer(&context, topics, cluster);
    }
    let create = request.allow_auto_topic_creation && context.broker.config().auto_create_topics;
    Reply::later(async move {
        let mut seen = HashSet::new();
        let mut topics = Vec::new();
        let mut creates = create.then(|| Mutations::new(&context, true));
        let mut wanted = request.topics.unwrap_or_default();
        if wanted.iter().any(|asked| !asked.topic_id.is_nil()) {
            wanted.retain(|asked| !asked.topic_id.is_nil());
        }
        for asked in wanted {
            // an id that is given decides
            let name = if asked.topic_id.is_nil() { asked.name.clone() } else { None };
            if !seen.insert((name, asked.topic_id)) {
                continue;
            }
            topics.push(match find_or_create(&context, &asked, creates.as_mut()).await {
                Ok(topic) => view.topic(&context, &topic),
                Err(error) => view.missing(asked, &error),
            });
        }
        view.answer(&context, topics, cluster)
    })
}

/// The answer to a version that cannot ask by id and does: nothing but the error, for each topic.
fn refused(version: i16, request: MetadataRequest) -> Reply {
    let topics = request.topics.into_iter().flatten().map(|asked| {
        let name = Some(asked.name.unwrap_or_default());
        MetadataResponseTopic::default().with_name(name).with_error_code(Kind::InvalidRequest.code())
    });
    Reply::message(version, &MetadataResponse::default().with_topics(topics.collect()))
}

/// The bits of what the client may do to the cluster; none for who may not even look at it.
fn cluster_operations(context: &Context) -> i32 {
    if context.may(Operation::Describe, Resource::Cluster) { context.operations(Resource::Cluster) } else { 0 }
}

/// The topic; where `creates` is given, one that is not there is made and counted.
async fn find_or_create(
    context: &Context,
    asked: &MetadataRequestTopic,
    creates: Option<&mut Mutations<'_>>,
) -> Result<Arc<Topic>> {
    let catalog = context.broker.catalog();
    if !asked.topic_id.is_nil() {
        let id = asked.topic_id;
        let unknown = || Error::new(Kind::UnknownTopicId, format!("no topic has the id {id}"));
        let topic = catalog.topic_by_id(id).ok_or_else(unknown)?;
        return context.authorize(Operation::Describe, Resource::Topic(topic.name())).map(|()| topic);
    }
    let Some(name) = &asked.name else {
        return Err(Error::new(Kind::InvalidRequest, "a topic is asked for without name and id"));
    };
    context.authorize(Operation::Describe, Resource::Topic(name))?;
    if let Some(topic) = catalog.topic(name) {
        return Ok(topic);
    }
    let new = NewTopic {
        name: name.as_str().into(),
        partitions: context.broker.config().num_partitions,
        config: BTreeMap::new(),
    };
    if let Some(mutations) = creates {
        context.authorize_or_cluster(Operation::Create, Resource::Topic(name))?;
        check_default_factor(&context.broker)?;
        if catalog.check_new(&new).is_ok() {
            let counted = mutations.count(usize::try_from(new.partitions).unwrap_or(0));
            // clients ask again for a topic that is not there yet
            counted.map_err(|error| Error { kind: Kind::UnknownTopicOrPartition, ..error })?;
        }
        return catalog.ensure(new).await;
    }
    match catalog.check_new(&new) {
        Err(error) if error.kind == Kind::InvalidTopic => Err(error),
        _ => Err(Error::new(Kind::UnknownTopicOrPartition, format!("there is no topic {}", name.0))),
    }
}

/// How a version of Metadata shows topics.
#[derive(Clone, Copy)]
struct View {
    node: BrokerId,
    version: i16,
    operations: bool,
}

impl View {
    fn topic(self, context: &Context, topic: &Topic) -> MetadataResponseTopic {
        let partitions = topic.partitions().iter().map(|partition| self.partition(partition)).collect();
        let shown = MetadataResponseTopic::default()
            .with_name(Some(TopicName(text(topic.name()))))
            .with_is_internal(topic.is_internal())
            .with_partitions(partitions);
        let shown = self.with_id(shown, topic.id());
        if self.version < 8 || !self.operations {
            return shown;
        }
        shown.with_topic_authorized_operations(context.operations(Resource::Topic(topic.name())))
    }

    fn partition(self, partition: &Partition) -> MetadataResponsePartition {
        let epoch = if self.version >= 7 { partition.leader_epoch() } else { -1 };
        MetadataResponsePartition::default()
            .with_partition_index(partition.index())
            .with_leader_id(self.node)
            .with_leader_epoch(epoch)
            .with_replica_nodes(vec![self.node])
            .with_isr_nodes(vec![self.node])
    }

    /// A topic that is not there. Its name may be null from version 12 on only.
    fn missing(self, asked: MetadataRequestTopic, error: &Error) -> MetadataResponseTopic {
        let name = if self.version < 12 { Some(asked.name.unwrap_or_default()) } else { asked.name };
        let shown = MetadataResponseTopic::default().with_name(name).with_error_code(error.kind.code());
        self.with_id(shown, asked.topic_id)
    }

    fn with_id(self, shown: MetadataResponseTopic, id: TopicId) -> MetadataResponseTopic {
        if self.version >= 10 { shown.with_topic_id(id) } else { shown }
    }

    fn answer(self, context: &Context, topics: Vec<MetadataResponseTopic>, cluster: i32) -> Reply {
        let rack = context.broker.settings().value("broker.rack").filter(|_| self.version >= 1);
        let broker = MetadataResponseBroker::default()
            .with_rack(rack.as_deref().map(text))
            .with_node_id(self.node)
            .with_host(text(&context.listener.host))
            .with_port(i32::from(context.listener.port));
        let mut response = MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_cluster_id(Some(text(context.broker.cluster_id())))
            .with_controller_id(self.node)
            .with_topics(topics);
        if (8..=10).contains(&self.version) {
            response = response.with_cluster_authorized_operations(cluster);
        }
        Reply::message(self.version, &response)
    }
}

/// Answers DescribeCluster.
pub(crate) fn describe_cluster(context: &Context, version: i16, request: DescribeClusterRequest) -> Reply {
    if version >= 1 && request.endpoint_type != BROKERS {
        let controllers = request.endpoint_type == CONTROLLERS;
        let kind = if controllers { Kind::MismatchedEndpointType } else { Kind::UnsupportedEndpointType };
        let message =
            format!("this is a broker, endpoint type {} was asked for; ask for type 1", request.endpoint_type);
        let refused = DescribeClusterResponse::default()
            .with_error_code(kind.code())
            .with_error_message(Some(text(&message)))
            .with_endpoint_type(BROKERS);
        return Reply::message(version, &refused);
    }
    let node = BrokerId(context.broker.config().node_id);
    let broker = DescribeClusterBroker::default()
        .with_rack(context.broker.settings().value("broker.rack").as_deref().map(text))
        .with_broker_id(node)
        .with_host(text(&context.listener.host))
        .with_port(i32::from(context.listener.port));
    let operations =
        if request.include_cluster_authorized_operations { cluster_operations(context) } else { NOT_ASKED };
    let response = DescribeClusterResponse::default()
        .with_endpoint_type(BROKERS)
        .with_cluster_id(text(context.broker.cluster_id()))
        .with_controller_id(node)
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(operations);
    Reply::message(version, &response)
}

/// Answers DescribeLogDirs: one directory, the data directory, with the bytes of each partition. Topics and partitions
/// that do not exist are left out, as Kafka does.
pub(crate) fn describe_log_dirs(context: &Context, version: i16, request: DescribeLogDirsRequest) -> Reply {
    if let Err(error) = context.authorize(Operation::Describe, Resource::Cluster) {
        let code = if version >= 3 { error.kind.code() } else { 0 };
        return Reply::message(version, &DescribeLogDirsResponse::default().with_error_code(code));
    }
    let catalog = context.broker.catalog();
    let topics = match request.topics {
        None => catalog.topics().iter().map(|topic| sizes(topic, |_| true)).collect(),
        Some(asked) => {
            let mut wanted: HashMap<TopicName, HashSet<i32>> = HashMap::new();
            let mut names = Vec::new();
            for DescribableLogDirTopic { topic, partitions, .. } in asked {
                names.extend((!wanted.contains_key(&topic)).then(|| topic.clone()));
                wanted.entry(topic).or_default().extend(partitions);
            }
            let known = names.iter().filter_map(|name| Some((catalog.topic(name)?, wanted.get(name)?)));
            let known = known.map(|(topic, indexes)| sizes(&topic, |index| indexes.contains(&index)));
            known.filter(|topic| !topic.partitions.is_empty()).collect()
        }
    };
    let mut result = DescribeLogDirsResult::default().with_log_dir(text(&log_dir(&context.broker))).with_topics(topics);
    if version >= 4 {
        let (total, usable) = context.broker.disk_space().unwrap_or((-1, -1));
        result = result.with_total_bytes(total).with_usable_bytes(usable);
    }
    Reply::message(version, &DescribeLogDirsResponse::default().with_results(vec![result]))
}

/// The one log directory.
pub(super) fn log_dir(broker: &Broker) -> String {
    let directory = &broker.config().data_dir;
    std::path::absolute(directory).unwrap_or_else(|_| directory.clone()).to_string_lossy().into_owned()
}

fn sizes(topic: &Topic, wanted: impl Fn(i32) -> bool) -> DescribeLogDirsTopic {
    let size = |partition: &Arc<Partition>| {
        DescribeLogDirsPartition::default()
            .with_partition_index(partition.index())
            .with_partition_size(i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX))
    };
    let partitions = topic.partitions().iter().filter(|p| wanted(p.index())).map(size).collect();
    DescribeLogDirsTopic::default().with_name(TopicName(text(topic.name()))).with_partitions(partitions)
}
