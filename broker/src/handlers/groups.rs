//! FindCoordinator (10) 0 to 6, JoinGroup (11) 0 to 9, SyncGroup (14) 0 to 5, Heartbeat (12) 0 to 4, LeaveGroup (13) 0
//! to 5: the life of a classic consumer group. The rules are in `group/classic.rs`.
//!
//! - This broker coordinates every group and every transactional id; share groups (type 2) are INVALID_REQUEST, as on a
//!   Kafka broker without them.
//! - JoinGroup: a client without a member id is given one and must join again with it (MEMBER_ID_REQUIRED, from version 4
//!   on); static members (from version 5 on) need not. The answer comes when the group is put together.
//! - SyncGroup is answered when the leader's assignment is stored; a broker that starts again knows the members.
//! - LeaveGroup: up to version 2 one member and its error on top, then many members with an error each.
//! - A member may find itself in a group of the consumer protocol (KIP-848, `consumer_groups.rs`): it is answered at once,
//!   and the broker assigns.
//! - Left out: share groups.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{Context, Reply, text};
use crate::error::{Error, Kind, Result};
use crate::group::Caller;
use crate::group::classic::{Join, Joined, Synced};
use crate::group::state::Protocol;
use crate::security::acl::{Operation, Resource};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// First version of SyncGroup that says which protocol it is about.
const PROTOCOL_SAID: i16 = 5;
/// What Kafka writes where there is no error, before version 4; kafkajs' own tests look for it.
const NO_ERROR: &str = "NONE";
/// Bytes of the client id that a member id begins with.
const ID_PREFIX_CHARS_MAX: usize = 249;

/// Answers FindCoordinator: it is this broker.
pub(crate) fn find_coordinator(context: &Context, version: i16, request: FindCoordinatorRequest) -> Reply {
    let known = match request.key_type {
        GROUP | TRANSACTION => Ok(()),
        other => Err(format!("coordinators of type {other} are not here; ask for 0 (group) or 1 (transaction)")),
    };
    let denied = |key: &str| {
        let resource =
            if request.key_type == TRANSACTION { Resource::TransactionalId(key) } else { Resource::Group(key) };
        context.authorize(Operation::Describe, resource).err()
    };
    let node = BrokerId(context.broker.config().node_id);
    let (host, port) = (text(&context.listener.host), i32::from(context.listener.port));
    let response = FindCoordinatorResponse::default();
    if version >= 4 {
        let coordinator = |key: StrBytes| {
            let denied = if known.is_ok() { denied(&key) } else { None };
            let found = Coordinator::default().with_key(key);
            match &known {
                Ok(()) if denied.is_some() => found
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(denied.map_or(0, |error| error.kind.code())),
                Ok(()) => found.with_node_id(node).with_host(host.clone()).with_port(port),
                Err(reason) => found
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(Kind::InvalidRequest.code())
                    .with_error_message(Some(text(reason))),
            }
        };
        let found = request.coordinator_keys.into_iter().map(coordinator).collect();
        return Reply::message(version, &response.with_coordinators(found));
    }
    let found = match known {
        Ok(()) => denied(&request.key).map_or(Ok(()), |error| Err((error.kind.code(), error.message))),
        Err(reason) => Err((Kind::InvalidRequest.code(), reason)),
    };
    let (code, message) = found.as_ref().map_or_else(|(code, reason)| (*code, reason.as_str()), |()| (0, NO_ERROR));
    let response = match &found {
        Ok(()) => response.with_node_id(node).with_host(host).with_port(port),
        Err(_) => response.with_node_id(BrokerId(-1)).with_port(-1),
    };
    let message = (version >= 1).then(|| text(message));
    Reply::message(version, &response.with_error_code(code).with_error_message(message))
}

/// Answers JoinGroup. The member has its place in the group when this returns.
pub(crate) fn join_group(context: &Context, version: i16, request: JoinGroupRequest) -> Reply {
    let group = request.group_id.clone();
    let (asked_id, protocol_type) = (copy(&request.member_id), copy(&request.protocol_type));
    if let Err(error) = context.authorize(Operation::Read, Resource::Group(&group)) {
        return not_joined(version, &asked_id, &error);
    }
    let join = join_of(context, version, request);
    let new_id = join.new_id.clone();
    let later = match context.broker.groups().join(&group, join) {
        Ok(later) => later,
        Err(error) => {
            let id = if error.kind == Kind::MemberIdRequired { new_id } else { asked_id };
            return not_joined(version, &id, &error);
        }
    };
    let mut ending = context.ending.clone();
    Reply::later(async move {
        let answer = tokio::select! {
            answer = later => answer,
            _ = ending.wait_for(|end| *end) => Err(stopping()),
        };
        match answer {
            Ok(joined) => joined_reply(version, joined, &protocol_type),
            Err(error) => not_joined(version, &asked_id, &error),
        }
    })
}

fn join_of(context: &Context, version: i16, request: JoinGroupRequest) -> Join {
    let prefix: String = match request.group_instance_id.as_deref() {
        Some(instance) => instance.chars().take(ID_PREFIX_CHARS_MAX).collect(),
        None => context.client_id.chars().take(ID_PREFIX_CHARS_MAX).collect(),
    };
    let rebalance = if version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    // copies: what is kept must not keep the whole request in memory
    let protocols = request
        .protocols
        .into_iter()
        .map(|protocol| Protocol { name: copy(&protocol.name), metadata: Bytes::copy_from_slice(&protocol.metadata) });
    Join {
        member_id: copy(&request.member_id),
        new_id: format!("{prefix}-{}", uuid::Uuid::new_v4()).into(),
        instance_id: request.group_instance_id.as_deref().map(Arc::from),
        client_id: context.client_id.clone(),
        client_host: shown(context.client_host),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: rebalance,
        protocol_type: copy(&request.protocol_type),
        protocols: protocols.collect(),
        needs_id_first: version >= 4,
        can_skip_assignment: version >= 9,
    }
}

fn joined_reply(version: i16, joined: Joined, protocol_type: &str) -> Reply {
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        let member = JoinGroupResponseMember::default().with_member_id(text(&id)).with_metadata(metadata);
        if version >= 5 { member.with_group_instance_id(instance.as_deref().map(text)) } else { member }
    });
    let response = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(text(joined.protocol.as_deref().unwrap_or_default())))
        .with_leader(text(&joined.leader))
        .with_member_id(text(&joined.member_id))
        .with_skip_assignment(version >= 9 && joined.skip_assignment)
        .with_members(members.collect());
    let kind = joined.protocol_type.as_deref().unwrap_or(protocol_type);
    let response = if version >= 7 { response.with_protocol_type(Some(text(kind))) } else { response };
    Reply::message(version, &response)
}

fn not_joined(version: i16, id: &str, error: &Error) -> Reply {
    let response = JoinGroupResponse::default()
        .with_error_code(error.kind.code())
        .with_protocol_name(if version >= 7 { None } else { Some(StrBytes::default()) })
        .with_member_id(text(id));
    Reply::message(version, &response)
}

/// Answers SyncGroup.
pub(crate) fn sync_group(context: &Context, version: i16, request: SyncGroupRequest) -> Reply {
    if let Err(error) = context.authorize(Operation::Read, Resource::Group(&request.group_id)) {
        return synced_reply(version, Err(error));
    }
    let who = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let protocol = (request.protocol_type.as_deref(), request.protocol_name.as_deref());
    if version >= PROTOCOL_SAID && (protocol.0.is_none() || protocol.1.is_none()) {
        let message = "SyncGroup names the type and the name of the protocol from version 5 on";
        return synced_reply(version, Err(Error::new(Kind::InconsistentGroupProtocol, message)));
    }
    let assignments = request.assignments.iter();
    let assignments = assignments.map(|given| (copy(&given.member_id), Bytes::copy_from_slice(&given.assignment)));
    let later = match context.broker.groups().sync(&request.group_id, &who, protocol, assignments.collect()) {
        Ok(later) => later,
        Err(error) => return synced_reply(version, Err(error)),
    };
    let mut ending = context.ending.clone();
    Reply::later(async move {
        let answer = tokio::select! {
            answer = later => answer,
            _ = ending.wait_for(|end| *end) => Err(stopping()),
        };
        synced_reply(version, answer)
    })
}

fn synced_reply(version: i16, answer: Result<Synced>) -> Reply {
    let response = match answer {
        Err(error) => SyncGroupResponse::default().with_error_code(error.kind.code()),
        Ok(synced) => {
            let response = SyncGroupResponse::default().with_assignment(synced.assignment);
            if version >= 5 {
                response
                    .with_protocol_type(synced.protocol_type.as_deref().map(text))
                    .with_protocol_name(synced.protocol.as_deref().map(text))
            } else {
                response
            }
        }
    };
    Reply::message(version, &response)
}

/// Answers Heartbeat.
pub(crate) fn heartbeat(context: &Context, version: i16, request: HeartbeatRequest) -> Reply {
    let who = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let code = context
        .authorize(Operation::Read, Resource::Group(&request.group_id))
        .and_then(|()| context.broker.groups().heartbeat(&request.group_id, &who))
        .map_or_else(|e| e.kind.code(), |()| 0);
    Reply::message(version, &HeartbeatResponse::default().with_error_code(code))
}

/// Answers LeaveGroup.
pub(crate) fn leave_group(context: &Context, version: i16, request: LeaveGroupRequest) -> Reply {
    let leaving =
        if version >= 3 { request.members } else { vec![MemberIdentity::default().with_member_id(request.member_id)] };
    let callers = leaving.iter().map(|member| Caller {
        member_id: &member.member_id,
        instance_id: member.group_instance_id.as_deref(),
        generation: -1,
    });
    let callers: Vec<Caller<'_>> = callers.collect();
    let left = context
        .authorize(Operation::Read, Resource::Group(&request.group_id))
        .and_then(|()| context.broker.groups().leave(&request.group_id, &callers));
    let results = match left {
        Ok(results) => results,
        Err(error) => {
            return Reply::message(version, &LeaveGroupResponse::default().with_error_code(error.kind.code()));
        }
    };
    let mut codes = results.into_iter().map(|result| result.map_or_else(|error| error.kind.code(), |()| 0));
    if version < 3 {
        let code = codes.next().unwrap_or(0);
        return Reply::message(version, &LeaveGroupResponse::default().with_error_code(code));
    }
    let members = leaving.iter().zip(codes).map(|(member, code)| {
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code)
    });
    Reply::message(version, &LeaveGroupResponse::default().with_members(members.collect()))
}

pub(super) fn copy(text: &str) -> Arc<str> {
    text.into()
}

/// An address as Kafka's tools show it.
pub(super) fn shown(address: IpAddr) -> Arc<str> {
    format!("/{}", address.to_canonical()).into()
}

fn stopping() -> Error {
    Error::new(Kind::CoordinatorNotAvailable, "the connection ends, connect again")
}
