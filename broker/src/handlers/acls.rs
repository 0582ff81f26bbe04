//! DescribeAcls (29), CreateAcls (30), DeleteAcls (31), versions 1 to 3: who may do what. The rules of the rules are in
//! `security/acl.rs`.
//!
//! - Without an authorizer all three are SECURITY_DISABLED.
//! - A filter's pattern type is LITERAL, PREFIXED, MATCH (what speaks of a resource) or ANY (the same name). Unknown
//!   numbers are INVALID_REQUEST.
//! - CreateAcls: each rule has its own outcome; a rule that is there already is no error. All that can be are added in one
//!   commit, which is durable when the answer comes. DeleteAcls likewise; it answers with what each filter took away.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::topics::finished;
use super::{Context, Reply, text};
use crate::error::{Error, Kind, Result};
use crate::security::SecurityRecord;
use crate::security::acl::{Acl, AclFilter, Operation, PatternFilter, PatternType, Permission, Resource, ResourceType};

/// In filters: every value.
const ANY: i8 = 1;
/// In filters: patterns that speak of a resource of the name.
const MATCH: i8 = 2;

/// Refuses where there is no authorizer, and who has no right to do this to the cluster.
fn allowed(context: &Context, operation: Operation) -> Result<()> {
    if !context.broker.security().config().authorizer {
        return Err(Error::new(Kind::SecurityDisabled, "No Authorizer is configured."));
    }
    context.authorize(operation, Resource::Cluster)
}

/// Answers DescribeAcls.
pub(crate) fn describe_acls(context: &Context, version: i16, request: DescribeAclsRequest) -> Reply {
    let filter = allowed(context, Operation::Describe).and_then(|()| {
        filter(
            (request.resource_type_filter, request.pattern_type_filter, request.operation, request.permission_type),
            (request.resource_name_filter, request.principal_filter, request.host_filter),
        )
    });
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => {
            let refused = DescribeAclsResponse::default().with_error_code(error.kind.code());
            return Reply::message(version, &refused.with_error_message(Some(text(&error.message))));
        }
    };
    let mut resources: BTreeMap<(ResourceType, PatternType, String), Vec<AclDescription>> = BTreeMap::new();
    for acl in context.broker.security().read(|state| state.acls(&filter)) {
        let shown = AclDescription::default()
            .with_principal(text(&acl.principal))
            .with_host(text(&acl.host))
            .with_operation(acl.operation.code())
            .with_permission_type(acl.permission.code());
        resources.entry((acl.resource_type, acl.pattern, acl.name)).or_default().push(shown);
    }
    let resources = resources.into_iter().map(|((kind, pattern, name), acls)| {
        DescribeAclsResource::default()
            .with_resource_type(kind.code())
            .with_resource_name(text(&name))
            .with_pattern_type(pattern.code())
            .with_acls(acls)
    });
    let response = DescribeAclsResponse::default().with_resources(resources.collect());
    Reply::message(version, &response)
}

/// Numbers of resource type, pattern type, operation and permission.
type Codes = (i8, i8, i8, i8);
/// Resource name, principal and host.
type Names = (Option<StrBytes>, Option<StrBytes>, Option<StrBytes>);

fn filter((kind, pattern, operation, permission): Codes, (name, principal, host): Names) -> Result<AclFilter> {
    fn known<T>(code: i8, read: impl FnOnce(i8) -> Option<T>) -> Result<Option<T>> {
        let unknown = || Error::new(Kind::InvalidRequest, "The AclBindingFilter must not contain UNKNOWN elements.");
        if code == ANY { Ok(None) } else { read(code).map(Some).ok_or_else(unknown) }
    }
    let owned = |text: Option<StrBytes>| text.map(|text| text.to_string());
    Ok(AclFilter {
        resource_type: known(kind, ResourceType::from_code)?,
        pattern: match pattern {
            MATCH => PatternFilter::Match,
            other => known(other, PatternType::from_code)?.map_or(PatternFilter::Any, PatternFilter::Exactly),
        },
        name: owned(name),
        principal: owned(principal),
        host: owned(host),
        operation: known(operation, Operation::from_code)?,
        permission: known(permission, Permission::from_code)?,
    })
}

/// Answers CreateAcls.
pub(crate) fn create_acls(context: &Context, version: i16, request: CreateAclsRequest) -> Reply {
    let context = context.clone();
    finished(async move {
        let count = request.creations.len();
        let added = match allowed(&context, Operation::Alter) {
            Ok(()) => add(&context, request.creations).await,
            Err(error) => Err(error),
        };
        let results = added.unwrap_or_else(|error| vec![Err(error); count]);
        let results = results.into_iter().map(|result| match result {
            Ok(()) => AclCreationResult::default(),
            Err(error) => AclCreationResult::default()
                .with_error_code(error.kind.code())
                .with_error_message(Some(text(&error.message))),
        });
        Reply::message(version, &CreateAclsResponse::default().with_results(results.collect()))
    })
}

async fn add(context: &Context, creations: Vec<AclCreation>) -> Result<Vec<Result<()>>> {
    let acls: Vec<Result<Acl>> = creations.into_iter().map(acl).collect();
    let decided = context.broker.security().change(|state| {
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(acls.len());
        for acl in acls {
            let added = acl.and_then(|acl| state.add_acl(acl, records.len()));
            results.push(added.map(|record| records.extend(record)));
        }
        let told = shown(&records);
        Ok::<_, Error>((records, (results, told)))
    });
    let (results, told) = decided.await?;
    told.iter().for_each(|what| context.changed(what));
    Ok(results)
}

fn acl(asked: AclCreation) -> Result<Acl> {
    let unknown = |what: &str| Error::new(Kind::InvalidRequest, format!("Invalid {what}"));
    Ok(Acl {
        resource_type: ResourceType::from_code(asked.resource_type).ok_or_else(|| unknown("resourceType"))?,
        pattern: PatternType::from_code(asked.resource_pattern_type).ok_or_else(|| unknown("patternType"))?,
        name: asked.resource_name.to_string(),
        principal: asked.principal.to_string(),
        host: asked.host.to_string(),
        operation: Operation::from_code(asked.operation).ok_or_else(|| unknown("operation"))?,
        permission: Permission::from_code(asked.permission_type).ok_or_else(|| unknown("permissionType"))?,
    })
}

/// What the audit log says of each record.
fn shown(records: &[SecurityRecord]) -> Vec<String> {
    let line = |record: &SecurityRecord| match record {
        SecurityRecord::Acl(acl) => Some(format!("added: {acl}")),
        SecurityRecord::AclGone(acl) => Some(format!("removed: {acl}")),
        _ => None,
    };
    records.iter().filter_map(line).collect()
}

/// Answers DeleteAcls.
pub(crate) fn delete_acls(context: &Context, version: i16, request: DeleteAclsRequest) -> Reply {
    let context = context.clone();
    finished(async move {
        let count = request.filters.len();
        let removed = match allowed(&context, Operation::Alter) {
            Ok(()) => remove(&context, request.filters).await,
            Err(error) => Err(error),
        };
        let results = removed.unwrap_or_else(|error| vec![Err(error); count]);
        let results = results.into_iter().map(|result| match result {
            Ok(gone) => DeleteAclsFilterResult::default()
                .with_error_message(None)
                .with_matching_acls(gone.iter().map(matching).collect()),
            Err(error) => DeleteAclsFilterResult::default()
                .with_error_code(error.kind.code())
                .with_error_message(Some(text(&error.message))),
        });
        Reply::message(version, &DeleteAclsResponse::default().with_filter_results(results.collect()))
    })
}

async fn remove(context: &Context, filters: Vec<DeleteAclsFilter>) -> Result<Vec<Result<Vec<Acl>>>> {
    let filters = filters.into_iter().map(|asked| {
        filter(
            (asked.resource_type_filter, asked.pattern_type_filter, asked.operation, asked.permission_type),
            (asked.resource_name_filter, asked.principal_filter, asked.host_filter),
        )
    });
    let filters: Vec<Result<AclFilter>> = filters.collect();
    let decided = context.broker.security().change(|state| {
        let found: Vec<Result<Vec<Acl>>> =
            filters.into_iter().map(|filter| filter.map(|filter| state.acls(&filter))).collect();
        let gone = found.iter().filter_map(|found| found.as_ref().ok()).flatten();
        let records: Vec<SecurityRecord> = gone.map(|acl| SecurityRecord::AclGone(acl.clone())).collect();
        let told = shown(&records);
        Ok::<_, Error>((records, (found, told)))
    });
    let (results, told) = decided.await?;
    told.iter().for_each(|what| context.changed(what));
    Ok(results)
}

fn matching(acl: &Acl) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_error_message(None)
        .with_resource_type(acl.resource_type.code())
        .with_resource_name(text(&acl.name))
        .with_pattern_type(acl.pattern.code())
        .with_principal(text(&acl.principal))
        .with_host(text(&acl.host))
        .with_operation(acl.operation.code())
        .with_permission_type(acl.permission.code())
}
