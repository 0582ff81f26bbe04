//! CreateTopics (19) 2 to 7, DeleteTopics (20) 1 to 6, CreatePartitions (37) 0 to 3: topics come, grow and go.
//!
//! - One broker: a replication factor above 1 is INVALID_REPLICATION_FACTOR, unless the broker is told to take it as 1; manual assignments must name this broker for
//!   every partition from 0 on. -1 partitions or replicas are the broker's defaults.
//! - What is created, deleted or grown is durable when the answer comes. With `validate_only` nothing changes.
//! - CreateTopics answers with the settings of the topic (version 5 on) and its id (version 7 on).
//! - What streams, tables and views live by (`claims.rs`) is not deleted: TOPIC_DELETION_DISABLED, before version 3
//!   POLICY_VIOLATION. A view's topic gets no more partitions: POLICY_VIOLATION. From version 5 on the answer says what to do first.
//! - DeleteTopics by id from version 6 on. Offsets that groups committed go with the topic.
//! - `controller_mutation_rate` (`mutations.rs`) is told from CreateTopics 6, DeleteTopics 5 and CreatePartitions 3 on.
//! - Left out: `timeout_ms` (nothing is awaited from others).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};

use super::describe_configs::source_of;
use super::mutations::Mutations;
use super::{Context, Reply, text};
use crate::Broker;
use crate::catalog::{NewTopic, Topic};
use crate::error::{Error, Kind, Result};
use crate::security::acl::{Operation, Resource};
use crate::topic_config::{SETTINGS, TopicConfig};
use crate::types::TopicId;

/// Most partitions that one request makes.
const PARTITIONS_MAX: i64 = 10_000;

/// A change that goes on when the client goes away: what was begun is finished.
pub(super) fn finished(change: impl Future<Output = Reply> + Send + 'static) -> Reply {
    Reply::later(async move {
        let changed = tokio::spawn(change).await;
        changed.unwrap_or_else(|error| Reply::Close(format!("a change of topics failed: {error}")))
    })
}

/// What is asked for by different keys, in order, and whether its key is there again: such are answered once.
pub(super) fn once<T, K: Eq + std::hash::Hash>(
    asked: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
) -> Vec<(T, bool)> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut firsts: Vec<(T, bool)> = Vec::new();
    for one in asked {
        match places.entry(key(&one)) {
            Entry::Occupied(place) => firsts[*place.get()].1 = true,
            Entry::Vacant(place) => {
                place.insert(firsts.len());
                firsts.push((one, false));
            }
        }
    }
    firsts
}

/// Answers CreateTopics.
pub(crate) fn create_topics(context: &Context, version: i16, request: CreateTopicsRequest) -> Reply {
    let context = context.clone();
    finished(async move {
        let names: Vec<TopicName> = request.topics.iter().map(|topic| topic.name.clone()).collect();
        // asked once, as each refusal is a line in the audit log
        let checked = once(request.topics, |topic| topic.name.clone()).into_iter().map(|(topic, twice)| {
            let allowed = if twice {
                Err(Error::new(Kind::InvalidRequest, "the topic is named twice in the request"))
            } else {
                context.authorize_or_cluster(Operation::Create, Resource::Topic(&topic.name))
            };
            (topic, allowed)
        });
        let checked: Vec<_> = checked.collect();
        let counted = checked.iter().filter(|(_, allowed)| allowed.is_ok()).map(|(topic, _)| topic);
        if let Err(error) = check_count(&context.broker, counted) {
            let topics = names.into_iter().map(|name| not_created(version, name, &error));
            return Reply::message(version, &CreateTopicsResponse::default().with_topics(topics.collect()));
        }
        let mut topics = Vec::with_capacity(checked.len());
        let mut mutations = Mutations::new(&context, version >= 6);
        for (asked, allowed) in checked {
            let name = asked.name.clone();
            let result = match allowed {
                Ok(()) => create((&context.broker, &mut mutations), asked, request.validate_only).await,
                Err(refused) => Err(refused),
            };
            let shown = context.may(Operation::DescribeConfigs, Resource::Topic(&name));
            topics.push(match result {
                Ok(new) if shown => created((&context.broker, version), &name, new),
                Ok(new) => created_unseen(version, &name, &new),
                Err(error) => not_created(version, name, &error),
            });
        }
        let response = CreateTopicsResponse::default().with_throttle_time_ms(mutations.throttle_ms());
        Reply::message(version, &response.with_topics(topics))
    })
}

/// Kafka makes so many partitions by one request, or none.
fn check_count<'a>(broker: &Broker, topics: impl Iterator<Item = &'a CreatableTopic>) -> Result<()> {
    let count = |topic: &CreatableTopic| match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => i64::from(broker.config().num_partitions),
        (0, count) => i64::from(count.max(0)),
        (given, _) => given as i64,
    };
    let total: i64 = topics.map(count).sum();
    if total <= PARTITIONS_MAX {
        return Ok(());
    }
    let message = format!("{total} partitions in one request are too many, at most {PARTITIONS_MAX}; ask for fewer");
    Err(Error::new(Kind::PolicyViolation, message))
}

/// A topic that was created, or could be.
struct Created {
    id: TopicId,
    partitions: i32,
    config: Arc<TopicConfig>,
}

async fn create(
    (broker, mutations): (&Broker, &mut Mutations<'_>),
    asked: CreatableTopic,
    validate_only: bool,
) -> Result<Created> {
    let partitions = partitions_of(broker, &asked)?;
    let mut config = BTreeMap::new();
    for setting in &asked.configs {
        let Some(value) = &setting.value else {
            let message = format!("topic setting {} is null; leave it out to have its default", setting.name.as_str());
            return Err(Error::new(Kind::InvalidConfig, message));
        };
        config.insert(setting.name.to_string(), value.to_string());
    }
    let new = NewTopic { name: asked.name.to_string(), partitions, config };
    let config = Arc::new(broker.catalog().check_new(&new)?);
    mutations.count(usize::try_from(partitions).unwrap_or(0))?;
    if validate_only {
        return Ok(Created { id: TopicId::nil(), partitions, config });
    }
    let topic = broker.catalog().create(new).await?;
    Ok(Created { id: topic.id(), partitions, config: topic.config() })
}

/// How many partitions are asked for.
fn partitions_of(broker: &Broker, asked: &CreatableTopic) -> Result<i32> {
    if asked.assignments.is_empty() {
        let counts = asked.num_partitions == -1 || asked.num_partitions > 0;
        match asked.replication_factor {
            _ if asked.replication_factor > 0 && !counts => {} // that is told first
            -1 => check_default_factor(broker)?,
            factor => check_factor(broker, factor.into())?,
        }
        return Ok(match asked.num_partitions {
            -1 => broker.config().num_partitions,
            count => count, // the catalog refuses what is not possible
        });
    }
    if asked.num_partitions != -1 || asked.replication_factor != -1 {
        let message = "partitions and replication factor must be -1 when an assignment is given";
        return Err(Error::new(Kind::InvalidRequest, message));
    }
    let assignments = asked.assignments.iter();
    let by_index: BTreeMap<i32, &[BrokerId]> =
        assignments.map(|given| (given.partition_index, given.broker_ids.as_slice())).collect();
    let consecutive = by_index.keys().copied().eq((0_i32..).take(asked.assignments.len()));
    if !consecutive {
        let message = "an assignment must name each partition once, from 0 on without gaps";
        return Err(Error::new(Kind::InvalidReplicaAssignment, message));
    }
    by_index.values().try_for_each(|brokers| check_replicas(broker, brokers))?;
    i32::try_from(by_index.len()).map_err(|_| Error::new(Kind::InvalidPartitions, "too many partitions"))
}

/// Whether topics can be created with the factor that they have when nobody says one.
pub(super) fn check_default_factor(broker: &Broker) -> Result<()> {
    check_factor(broker, broker.settings().whole("default.replication.factor"))
}

fn check_factor(broker: &Broker, factor: i64) -> Result<()> {
    let message = match factor {
        1 => return Ok(()),
        2.. if broker.config().clamp_replication => return Ok(()),
        ..1 => format!("replication factor {factor} must be 1, or -1 for the default"),
        2.. => format!(
            "replication factor {factor} is larger than the number of brokers, 1; ask for 1, or set broker.clamp_replication"
        ),
    };
    Err(Error::new(Kind::InvalidReplicationFactor, message))
}

pub(super) fn check_replicas(broker: &Broker, replicas: &[BrokerId]) -> Result<()> {
    let node = broker.config().node_id;
    if replicas == [BrokerId(node)] {
        return Ok(());
    }
    let named: Vec<i32> = replicas.iter().map(|replica| replica.0).collect();
    let message = format!("replicas {named:?} are not possible, the only broker is {node}");
    Err(Error::new(Kind::InvalidReplicaAssignment, message))
}

fn created((broker, version): (&Broker, i16), name: &TopicName, new: Created) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(name.clone()).with_error_message(None);
    let result = if version >= 7 { result.with_topic_id(new.id) } else { result };
    if version < 5 {
        return result.with_configs(None);
    }
    let shown = SETTINGS.iter().map(|row| {
        CreatableTopicConfigs::default()
            .with_name(text(row.name))
            .with_value(new.config.value(row.name).map(text))
            .with_config_source(source_of(broker.settings(), row, &new.config))
    });
    result.with_num_partitions(new.partitions).with_replication_factor(1).with_configs(Some(shown.collect()))
}

/// For a client that may create the topic, but not look at its settings.
fn created_unseen(version: i16, name: &TopicName, new: &Created) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(name.clone()).with_error_message(None);
    let result = if version >= 7 { result.with_topic_id(new.id) } else { result };
    if version < 5 {
        return result.with_configs(None);
    }
    result.with_topic_config_error_code(Kind::TopicAuthorizationFailed.code())
}

fn not_created(version: i16, name: TopicName, error: &Error) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(error.kind.code())
        .with_error_message(Some(text(&error.message)))
        .with_configs((version >= 5).then(Vec::new))
}

/// Answers DeleteTopics.
pub(crate) fn delete_topics(context: &Context, version: i16, request: DeleteTopicsRequest) -> Reply {
    let context = context.clone();
    let asked = if version >= 6 {
        request.topics
    } else {
        request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name))).collect()
    };
    finished(async move {
        let mut responses = Vec::with_capacity(asked.len());
        let mut mutations = Mutations::new(&context, version >= 5);
        for (topic, twice) in once(asked, |topic| (topic.name.clone(), topic.topic_id)) {
            let deleted = if twice {
                Err(Error::new(Kind::InvalidRequest, "the topic is named twice in the request"))
            } else {
                delete((&context, &mut mutations), version, &topic).await
            };
            let result = match deleted {
                Ok(gone) => {
                    let result = DeletableTopicResult::default().with_name(Some(TopicName(text(gone.name()))));
                    if version >= 6 { result.with_topic_id(gone.id()) } else { result }
                }
                Err(error) => {
                    let name = topic.name.or_else(|| name_to_show(&context, topic.topic_id));
                    let result = DeletableTopicResult::default().with_name(name);
                    let result = if version >= 6 { result.with_topic_id(topic.topic_id) } else { result };
                    let result = result.with_error_code(error.kind.code());
                    if version >= 5 { result.with_error_message(Some(text(&error.message))) } else { result }
                }
            };
            responses.push(result);
        }
        let response = DeleteTopicsResponse::default().with_throttle_time_ms(mutations.throttle_ms());
        Reply::message(version, &response.with_responses(responses))
    })
}

/// The name of a topic that was asked for by id, for who may look at it and may not delete it.
fn name_to_show(context: &Context, id: TopicId) -> Option<TopicName> {
    let topic = context.broker.catalog().topic_by_id(id)?;
    let denied = !context.may(Operation::Delete, Resource::Topic(topic.name()));
    let shown = denied && context.may(Operation::Describe, Resource::Topic(topic.name()));
    shown.then(|| TopicName(text(topic.name())))
}

async fn delete(
    (context, mutations): (&Context, &mut Mutations<'_>),
    version: i16,
    asked: &DeleteTopicState,
) -> Result<Arc<Topic>> {
    // older clients do not know the error
    let known = version >= 3;
    if !context.broker.settings().is_on("delete.topic.enable") {
        let kind = if known { Kind::TopicDeletionDisabled } else { Kind::InvalidRequest };
        return Err(Error::new(kind, "delete.topic.enable is false; set it to true to delete topics"));
    }
    let catalog = context.broker.catalog();
    let topic = match (&asked.name, asked.topic_id) {
        (Some(name), id) if id.is_nil() => {
            if !context.may(Operation::Delete, Resource::Cluster) {
                context.authorize(Operation::Describe, Resource::Topic(name))?; // else whether it is there is not told
            }
            catalog.topic(name).ok_or_else(|| unknown(name))?
        }
        (None, id) if !id.is_nil() => catalog
            .topic_by_id(id)
            .ok_or_else(|| Error::new(Kind::UnknownTopicId, format!("no topic has the id {id}")))?,
        _ => return Err(Error::new(Kind::InvalidRequest, "name a topic either by name or by id")),
    };
    context.authorize_or_cluster(Operation::Delete, Resource::Topic(topic.name()))?;
    mutations.count(topic.partitions().len())?;
    let deleted = catalog.delete_unclaimed(topic.name()).await;
    deleted.map_err(|error| match error.kind {
        Kind::TopicDeletionDisabled if !known => Error { kind: Kind::PolicyViolation, ..error },
        _ => error,
    })?;
    Ok(topic)
}

/// Answers CreatePartitions.
pub(crate) fn create_partitions(context: &Context, version: i16, request: CreatePartitionsRequest) -> Reply {
    let context = context.clone();
    finished(async move {
        let mut results = Vec::with_capacity(request.topics.len());
        let mut mutations = Mutations::new(&context, version >= 3);
        for (topic, twice) in once(request.topics, |topic| topic.name.clone()) {
            let grown = if twice {
                Err(Error::new(Kind::InvalidRequest, "the topic is named twice in the request"))
            } else {
                match context.authorize(Operation::Alter, Resource::Topic(&topic.name)) {
                    Ok(()) => grow((&context.broker, &mut mutations), &topic, request.validate_only).await,
                    Err(denied) => Err(denied),
                }
            };
            let result = CreatePartitionsTopicResult::default().with_name(topic.name);
            results.push(match grown {
                Ok(()) => result.with_error_message(None),
                Err(error) => result.with_error_code(error.kind.code()).with_error_message(Some(text(&error.message))),
            });
        }
        let response = CreatePartitionsResponse::default().with_throttle_time_ms(mutations.throttle_ms());
        Reply::message(version, &response.with_results(results))
    })
}

async fn grow(
    (broker, mutations): (&Broker, &mut Mutations<'_>),
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<()> {
    let catalog = broker.catalog();
    catalog.check_grow(&asked.name, asked.count)?;
    let present = catalog.topic(&asked.name).ok_or_else(|| unknown(&asked.name))?.partitions().len();
    let added = usize::try_from(asked.count).unwrap_or(0).saturating_sub(present);
    if let Some(given) = asked.assignments.as_ref().map(Vec::len).filter(|given| *given != added) {
        let message = format!("{added} partitions are to be added, the assignment has {given}");
        return Err(Error::new(Kind::InvalidReplicaAssignment, message));
    }
    mutations.count(added)?;
    if let Some(assignments) = &asked.assignments {
        assignments.iter().try_for_each(|given| check_replicas(broker, &given.broker_ids))?;
    }
    if validate_only { Ok(()) } else { catalog.grow(&asked.name, asked.count).await }
}

pub(super) fn unknown(name: &str) -> Error {
    Error::new(Kind::UnknownTopicOrPartition, format!("topic '{}' does not exist", name.escape_debug()))
}
