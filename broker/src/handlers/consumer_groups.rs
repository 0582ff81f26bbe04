//! ConsumerGroupHeartbeat (68) and ConsumerGroupDescribe (69), versions 0 to 1: groups of the consumer protocol (KIP-848).
//! The rules are in `group/consumer/`.
//!
//! - Heartbeat: a member joins with epoch 0, leaves with -1, and is away for a while with -2 (static members). A field that
//!   is null (or -1) did not change. From version 1 on members bring an id of their own and may subscribe by a regular
//!   expression, which stands for topics that the member may look at. The assignment is told when it changed or the request said everything.
//! - The answer comes when what changed is durable, so a broker that starts again knows members, epochs and assignments.
//! - Describe: a classic group is GROUP_ID_NOT_FOUND, so that clients ask DescribeGroups. Topics that do not exist any more
//!   are left out.

use kafka_protocol::messages::consumer_group_describe_response as described;
use kafka_protocol::messages::consumer_group_heartbeat_response as beaten;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::groups::{copy, shown};
use super::list_reply::{ListReply, Shape};
use super::{Context, Reply, text};
use crate::error::{Error, Kind};
use crate::group::consumer::heartbeat::{Beat, Beaten};
use crate::group::consumer::{ConsumerGroupDescription, ConsumerMember, Partitions};
use crate::security::acl::{Operation, Resource};
use crate::types::TopicId;

/// Answers ConsumerGroupHeartbeat. What it changes holds when this returns.
pub(crate) fn heartbeat(context: &Context, version: i16, request: ConsumerGroupHeartbeatRequest) -> Reply {
    let group = request.group_id.clone();
    let names = request.subscribed_topic_names.iter().flatten();
    let allowed = context.authorize(Operation::Read, Resource::Group(&group)).and_then(|()| {
        names.into_iter().try_for_each(|name| context.authorize(Operation::Describe, Resource::Topic(name)))
    });
    if let Err(denied) = allowed {
        return refused(version, &denied);
    }
    let mut beat = beat_of(context, request);
    // version 0: the broker makes the id
    if version == 0 && beat.member_id.is_empty() && beat.epoch == 0 {
        beat.member_id = Uuid::new_v4().to_string().into();
    }
    let sees = context.clone();
    let sees = move |name: &str| sees.may(Operation::Describe, Resource::Topic(name));
    match context.broker.groups().beat(&group, (version, &beat), sees) {
        Err(error) => refused(version, &error),
        Ok(later) => Reply::later(async move {
            match later.await {
                Ok(beaten) => accepted(version, beaten),
                Err(error) => refused(version, &error),
            }
        }),
    }
}

fn beat_of(context: &Context, request: ConsumerGroupHeartbeatRequest) -> Beat {
    let owned = request.topic_partitions.map(|topics| {
        let mut owned = Partitions::new();
        for topic in topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
            owned.entry(topic.topic_id).or_default().extend(topic.partitions);
        }
        owned
    });
    Beat {
        member_id: copy(&request.member_id),
        epoch: request.member_epoch,
        instance_id: request.instance_id.as_deref().map(copy),
        rack_id: request.rack_id.as_deref().map(copy),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topics: request.subscribed_topic_names.map(|names| names.iter().map(|name| copy(name)).collect()),
        regex: request.subscribed_topic_regex.as_deref().map(copy),
        assignor: request.server_assignor.as_deref().map(copy),
        owned,
        client_id: context.client_id.clone(),
        client_host: shown(context.client_host),
    }
}

fn accepted(version: i16, beaten: Beaten) -> Reply {
    let assignment = beaten.assignment.map(|partitions| {
        let topics = partitions.into_iter().map(|(topic, partitions)| {
            beaten::TopicPartitions::default().with_topic_id(topic).with_partitions(partitions.into_iter().collect())
        });
        beaten::Assignment::default().with_topic_partitions(topics.collect())
    });
    let response = ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(&beaten.member_id)))
        .with_member_epoch(beaten.epoch)
        .with_heartbeat_interval_ms(beaten.heartbeat_interval_ms)
        .with_assignment(assignment);
    Reply::message(version, &response)
}

fn refused(version: i16, error: &Error) -> Reply {
    let response = ConsumerGroupHeartbeatResponse::default()
        .with_error_code(error.kind.code())
        .with_error_message(Some(text(&error.message)));
    Reply::message(version, &response)
}

/// Answers ConsumerGroupDescribe.
pub(crate) fn describe(context: &Context, version: i16, request: ConsumerGroupDescribeRequest) -> Reply {
    let (context, operations) = (context.clone(), request.include_authorized_operations);
    Reply::later(async move {
        let mut groups = ListReply::new(&context, Shape { version, throttled: true, flexible: true });
        for id in request.group_ids {
            let allowed = context.authorize(Operation::Describe, Resource::Group(&id)).and_then(|()| groups.room());
            let described = match allowed {
                Ok(()) => describe_one(&context, (version, operations), &id),
                Err(error) => described::DescribedGroup::default().with_error_code(error.kind.code()),
            };
            groups.push(&described.with_group_id(id)).await;
        }
        groups.finish()
    })
}

fn describe_one(context: &Context, (version, operations): (i16, bool), id: &str) -> described::DescribedGroup {
    let found = match context.broker.groups().describe_consumers(id) {
        Some(group) => found(context, version, group),
        None => missing(id),
    };
    if operations { found.with_authorized_operations(context.operations(Resource::Group(id))) } else { found }
}

fn missing(id: &str) -> described::DescribedGroup {
    let kind = if id.is_empty() { Kind::InvalidGroupId } else { Kind::GroupIdNotFound };
    let message = format!("there is no group '{}' of the consumer protocol", id.escape_debug());
    described::DescribedGroup::default().with_error_code(kind.code()).with_error_message(Some(text(&message)))
}

fn found(context: &Context, version: i16, group: ConsumerGroupDescription) -> described::DescribedGroup {
    let member = |(member, target): (ConsumerMember, Partitions)| {
        let shown = described::Member::default()
            .with_member_id(text(&member.id))
            .with_instance_id(member.instance_id.as_deref().map(text))
            .with_rack_id(member.rack_id.as_deref().map(text))
            .with_member_epoch(member.epoch)
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_subscribed_topic_names(member.topics.iter().map(|name| TopicName(text(name))).collect())
            .with_subscribed_topic_regex(Some(text(&member.regex)))
            .with_assignment(assignment(context, &member.assigned))
            .with_target_assignment(assignment(context, &target));
        if version >= 1 { shown.with_member_type(i8::from(member.classic.is_none())) } else { shown }
    };
    let ids = group.members.iter().flat_map(|(member, target)| member.assigned.keys().chain(target.keys()));
    let hidden = |id: &TopicId| {
        let topic = context.broker.catalog().topic_by_id(*id);
        topic.is_some_and(|topic| !context.may(Operation::Describe, Resource::Topic(topic.name())))
    };
    if ids.into_iter().any(hidden) {
        let message = "the group has topics that the client is not allowed to look at";
        return described::DescribedGroup::default()
            .with_error_code(Kind::TopicAuthorizationFailed.code())
            .with_error_message(Some(text(message)));
    }
    described::DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(group.state))
        .with_group_epoch(group.epoch)
        .with_assignment_epoch(group.target_epoch)
        .with_assignor_name(StrBytes::from_static_str(group.assignor))
        .with_members(group.members.into_iter().map(member).collect())
}

fn assignment(context: &Context, partitions: &Partitions) -> described::Assignment {
    let named = partitions.iter().filter_map(|(id, partitions)| {
        let topic = context.broker.catalog().topic_by_id(*id)?;
        let shown = described::TopicPartitions::default()
            .with_topic_id(*id)
            .with_topic_name(TopicName(text(topic.name())))
            .with_partitions(partitions.iter().copied().collect());
        Some(shown)
    });
    described::Assignment::default().with_topic_partitions(named.collect())
}
