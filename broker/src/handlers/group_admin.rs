//! DescribeGroups (15) 0 to 6, ListGroups (16) 0 to 5, DeleteGroups (42) 0 to 2: groups as administrators see them.
//!
//! - DescribeGroups: a group that is not there is `Dead` without an error up to version 5, GROUP_ID_NOT_FOUND after that.
//!   Metadata is shown for stable groups only, the last assignment always, as in Kafka.
//!   So is a group of the consumer protocol: it is described by ConsumerGroupDescribe.
//! - ListGroups: filters by state (from version 4 on) and by type (from version 5 on) without regard to case.
//! - DeleteGroups: a group with members is NON_EMPTY_GROUP. The answer comes when the deletion is durable.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, GroupId, ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::list_reply::{ListReply, Shape};
use super::topics::once;
use super::{Context, Reply, text};
use crate::error::Kind;
use crate::group::{GroupDescription, GroupOverview, MemberDescription};
use crate::security::acl::{Operation, Resource};

const CLASSIC: &str = "classic";

/// Answers DescribeGroups.
pub(crate) fn describe_groups(context: &Context, version: i16, request: DescribeGroupsRequest) -> Reply {
    let context = context.clone();
    Reply::later(async move {
        let shape = Shape { version, throttled: version >= 1, flexible: version >= 5 };
        let mut groups = ListReply::new(&context, shape);
        for id in request.groups {
            let allowed = context.authorize(Operation::Describe, Resource::Group(&id)).and_then(|()| groups.room());
            let described = match allowed {
                Ok(()) => describe(&context, (version, request.include_authorized_operations), &id),
                Err(error) => DescribedGroup::default().with_error_code(error.kind.code()),
            };
            groups.push(&described.with_group_id(id)).await;
        }
        groups.finish()
    })
}

fn describe(context: &Context, (version, operations): (i16, bool), id: &str) -> DescribedGroup {
    let found = context.broker.groups().describe(id).filter(|group| group.overview.kind == CLASSIC);
    let described = found.map_or_else(|| missing(version), |group| shown(version, group));
    if operations && described.error_code == 0 {
        return described.with_authorized_operations(context.operations(Resource::Group(id)));
    }
    described
}

fn missing(version: i16) -> DescribedGroup {
    let dead = DescribedGroup::default().with_group_state(StrBytes::from_static_str("Dead"));
    if version < 6 {
        return dead;
    }
    let message = StrBytes::from_static_str("there is no classic group of this name");
    dead.with_error_code(Kind::GroupIdNotFound.code()).with_error_message(Some(message))
}

fn shown(version: i16, group: GroupDescription) -> DescribedGroup {
    let GroupDescription { overview, protocol, members, .. } = group;
    let member = |member: MemberDescription| {
        let described = DescribedGroupMember::default()
            .with_member_id(text(&member.id))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment);
        let instance = member.instance_id.as_deref().map(text);
        if version >= 4 { described.with_group_instance_id(instance) } else { described }
    };
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(overview.state))
        .with_protocol_type(text(&overview.protocol_type))
        .with_protocol_data(text(&protocol))
        .with_members(members.into_iter().map(member).collect())
}

/// Answers ListGroups.
pub(crate) fn list_groups(context: &Context, version: i16, request: ListGroupsRequest) -> Reply {
    let (states, types) = (request.states_filter, request.types_filter);
    let has = |filter: &[StrBytes], word: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.as_str().eq_ignore_ascii_case(word))
    };
    let all = context.may(Operation::Describe, Resource::Cluster);
    let allowed = |group: &GroupOverview| all || context.may(Operation::Describe, Resource::Group(&group.id));
    let shown = |group: &GroupOverview| has(&states, group.state) && has(&types, group.kind) && allowed(group);
    let listed = |group: GroupOverview| {
        let mut listed = ListedGroup::default()
            .with_group_id(GroupId(text(&group.id)))
            .with_protocol_type(text(&group.protocol_type));
        if version >= 4 {
            listed = listed.with_group_state(StrBytes::from_static_str(group.state));
        }
        if version >= 5 {
            listed = listed.with_group_type(StrBytes::from_static_str(group.kind));
        }
        listed
    };
    let groups = context.broker.groups().list().into_iter().filter(shown).map(listed).collect();
    Reply::message(version, &ListGroupsResponse::default().with_groups(groups))
}

/// Answers DeleteGroups. All deletions are submitted when this returns.
pub(crate) fn delete_groups(context: &Context, version: i16, request: DeleteGroupsRequest) -> Reply {
    let start = |id: GroupId| {
        let allowed = context.authorize(Operation::Delete, Resource::Group(&id));
        (allowed.and_then(|()| context.broker.groups().delete(&id)), id)
    };
    let named = once(request.groups_names, GroupId::clone).into_iter().map(|(id, _)| id);
    let started: Vec<_> = named.map(start).collect();
    Reply::later(async move {
        let mut results = Vec::with_capacity(started.len());
        for (deletion, id) in started {
            let deleted = match deletion {
                Ok(deleted) => deleted.await,
                Err(error) => Err(error),
            };
            let code = deleted.map_or_else(|error| error.kind.code(), |()| 0);
            results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code));
        }
        Reply::message(version, &DeleteGroupsResponse::default().with_results(results))
    })
}
