//! The requests about ACLs, users, quotas, logins and delegation tokens that a scenario can make, fields named as Kafka names them.

use super::answers::tree;
use crate::support::raw::Client;
use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use serde::Deserialize;
use serde_json::{Value, json};

/// The names of the calls here.
pub const NAMES: &[&str] = &[
    "describe_acls",
    "create_acls",
    "delete_acls",
    "describe_client_quotas",
    "alter_client_quotas",
    "describe_user_scram_credentials",
    "alter_user_scram_credentials",
    "sasl_handshake",
    "sasl_authenticate",
    "authorized_operations",
    "init_transactional_id",
    "create_delegation_token",
    "renew_delegation_token",
    "expire_delegation_token",
    "describe_delegation_token",
];

#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum SecurityCall {
    DescribeAcls {
        version: i16,
        filter: Acl,
    },
    CreateAcls {
        version: i16,
        acls: Vec<Acl>,
    },
    DeleteAcls {
        version: i16,
        filters: Vec<Acl>,
    },
    DescribeClientQuotas {
        version: i16,
        components: Vec<Component>,
        #[serde(default)]
        strict: bool,
    },
    AlterClientQuotas {
        version: i16,
        entries: Vec<Entry>,
        #[serde(default)]
        validate_only: bool,
    },
    DescribeUserScramCredentials {
        version: i16,
        users: Option<Vec<String>>,
    },
    AlterUserScramCredentials {
        version: i16,
        #[serde(default)]
        deletions: Vec<Credential>,
        #[serde(default)]
        upsertions: Vec<Credential>,
    },
    SaslHandshake {
        version: i16,
        mechanism: String,
    },
    SaslAuthenticate {
        version: i16,
        /// `/` stands for the byte 0.
        token: String,
    },
    /// The bits of what the client may do to the cluster, to a topic and to a group.
    AuthorizedOperations {
        topic: String,
        group: String,
    },
    InitTransactionalId {
        version: i16,
        id: String,
    },
    CreateDelegationToken {
        version: i16,
        /// Type and name; `null` is null.
        owner: Option<(String, String)>,
        #[serde(default)]
        renewers: Vec<(String, String)>,
        #[serde(default)]
        lifetime_ms: i64,
    },
    RenewDelegationToken {
        version: i16,
        hmac: String,
    },
    ExpireDelegationToken {
        version: i16,
        hmac: String,
    },
    DescribeDelegationToken {
        version: i16,
        owners: Option<Vec<(String, String)>>,
    },
}

/// A rule or, with 1 (ANY) and absent names, a filter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    #[serde(default = "any", rename = "type")]
    kind: i8,
    name: Option<String>,
    #[serde(default = "any")]
    pattern: i8,
    principal: Option<String>,
    host: Option<String>,
    #[serde(default = "any")]
    operation: i8,
    #[serde(default = "any")]
    permission: i8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    kind: String,
    match_type: i8,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Type and name; `<default>` is the default.
    entity: Vec<(String, String)>,
    #[serde(default)]
    set: Vec<(String, f64)>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    user: String,
    mechanism: i8,
    #[serde(default)]
    iterations: i32,
}

fn any() -> i8 {
    1
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn ask<R: Request>(client: &mut Client, request: &R, version: i16) -> Result<Value, String>
where
    R::Response: std::fmt::Debug,
{
    client.call(request, version).map(|answer| tree(&format!("{answer:?}")))
}

impl SecurityCall {
    pub fn send(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Self::DescribeAcls { .. } | Self::CreateAcls { .. } | Self::DeleteAcls { .. } => self.acls(client),
            Self::CreateDelegationToken { .. }
            | Self::RenewDelegationToken { .. }
            | Self::ExpireDelegationToken { .. }
            | Self::DescribeDelegationToken { .. } => self.tokens(client),
            Self::DescribeClientQuotas { version, components, strict } => {
                let components = components.iter().map(|component| {
                    describe_client_quotas_request::ComponentData::default()
                        .with_entity_type(text(&component.kind))
                        .with_match_type(component.match_type)
                        .with_match(component.name.as_deref().map(text))
                });
                let request = DescribeClientQuotasRequest::default().with_components(components.collect());
                ask(client, &request.with_strict(strict), version)
            }
            Self::AlterClientQuotas { version, entries, validate_only } => {
                let request = AlterClientQuotasRequest::default().with_entries(entries.iter().map(entry).collect());
                ask(client, &request.with_validate_only(validate_only), version)
            }
            Self::DescribeUserScramCredentials { version, users } => {
                let name =
                    |user: &String| describe_user_scram_credentials_request::UserName::default().with_name(text(user));
                let users = users.map(|users| users.iter().map(name).collect());
                ask(client, &DescribeUserScramCredentialsRequest::default().with_users(users), version)
            }
            Self::AlterUserScramCredentials { version, deletions, upsertions } => {
                ask(client, &alter_users(&deletions, &upsertions), version)
            }
            Self::SaslHandshake { version, mechanism } => {
                ask(client, &SaslHandshakeRequest::default().with_mechanism(text(&mechanism)), version)
            }
            Self::SaslAuthenticate { version, token } => {
                let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(token.replace('/', "\0")));
                ask(client, &request, version)
            }
            Self::AuthorizedOperations { topic, group } => operations(client, &topic, &group),
            Self::InitTransactionalId { version, id } => {
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(Some(TransactionalId(text(&id))))
                    .with_transaction_timeout_ms(60_000);
                ask(client, &request, version)
            }
        }
    }

    fn acls(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Self::DescribeAcls { version, filter } => {
                let request = DescribeAclsRequest::default()
                    .with_resource_type_filter(filter.kind)
                    .with_resource_name_filter(filter.name.as_deref().map(text))
                    .with_pattern_type_filter(filter.pattern)
                    .with_principal_filter(filter.principal.as_deref().map(text))
                    .with_host_filter(filter.host.as_deref().map(text))
                    .with_operation(filter.operation)
                    .with_permission_type(filter.permission);
                ask(client, &request, version)
            }
            Self::CreateAcls { version, acls } => {
                let creations = acls.iter().map(|acl| {
                    create_acls_request::AclCreation::default()
                        .with_resource_type(acl.kind)
                        .with_resource_name(text(acl.name.as_deref().unwrap_or_default()))
                        .with_resource_pattern_type(acl.pattern)
                        .with_principal(text(acl.principal.as_deref().unwrap_or_default()))
                        .with_host(text(acl.host.as_deref().unwrap_or("*")))
                        .with_operation(acl.operation)
                        .with_permission_type(acl.permission)
                });
                ask(client, &CreateAclsRequest::default().with_creations(creations.collect()), version)
            }
            Self::DeleteAcls { version, filters } => {
                let filters = filters.iter().map(|filter| {
                    delete_acls_request::DeleteAclsFilter::default()
                        .with_resource_type_filter(filter.kind)
                        .with_resource_name_filter(filter.name.as_deref().map(text))
                        .with_pattern_type_filter(filter.pattern)
                        .with_principal_filter(filter.principal.as_deref().map(text))
                        .with_host_filter(filter.host.as_deref().map(text))
                        .with_operation(filter.operation)
                        .with_permission_type(filter.permission)
                });
                ask(client, &DeleteAclsRequest::default().with_filters(filters.collect()), version)
            }
            _ => unreachable!("not about ACLs"),
        }
    }

    fn tokens(self, client: &mut Client) -> Result<Value, String> {
        match self {
            Self::CreateDelegationToken { version, owner, renewers, lifetime_ms } => {
                let renewers = renewers.iter().map(|(kind, name)| {
                    create_delegation_token_request::CreatableRenewers::default()
                        .with_principal_type(text(kind))
                        .with_principal_name(text(name))
                });
                let mut request = CreateDelegationTokenRequest::default()
                    .with_renewers(renewers.collect())
                    .with_max_lifetime_ms(lifetime_ms);
                if let Some((kind, name)) = owner {
                    request.owner_principal_type = (kind != "null").then(|| text(&kind));
                    request.owner_principal_name = (name != "null").then(|| text(&name));
                }
                ask(client, &request, version)
            }
            Self::RenewDelegationToken { version, hmac } => {
                let request = RenewDelegationTokenRequest::default().with_hmac(Bytes::from(hmac));
                ask(client, &request.with_renew_period_ms(60_000), version)
            }
            Self::ExpireDelegationToken { version, hmac } => {
                let request = ExpireDelegationTokenRequest::default().with_hmac(Bytes::from(hmac));
                ask(client, &request.with_expiry_time_period_ms(-1), version)
            }
            Self::DescribeDelegationToken { version, owners } => {
                let owner = |(kind, name): &(String, String)| {
                    describe_delegation_token_request::DescribeDelegationTokenOwner::default()
                        .with_principal_type(text(kind))
                        .with_principal_name(text(name))
                };
                let owners = owners.map(|owners| owners.iter().map(owner).collect());
                ask(client, &DescribeDelegationTokenRequest::default().with_owners(owners), version)
            }
            _ => unreachable!("not about delegation tokens"),
        }
    }
}

fn entry(entry: &Entry) -> alter_client_quotas_request::EntryData {
    use alter_client_quotas_request::{EntityData, EntryData, OpData};
    let entity = entry.entity.iter().map(|(kind, name)| {
        let name = (name != "<default>").then(|| text(name));
        EntityData::default().with_entity_type(text(kind)).with_entity_name(name)
    });
    let set = entry.set.iter().map(|(key, value)| OpData::default().with_key(text(key)).with_value(*value));
    let removed = entry.remove.iter().map(|key| OpData::default().with_key(text(key)).with_remove(true));
    EntryData::default().with_entity(entity.collect()).with_ops(set.chain(removed).collect())
}

fn alter_users(deletions: &[Credential], upsertions: &[Credential]) -> AlterUserScramCredentialsRequest {
    use alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion};
    let deletions = deletions
        .iter()
        .map(|one| ScramCredentialDeletion::default().with_name(text(&one.user)).with_mechanism(one.mechanism));
    let upsertions = upsertions.iter().map(|one| {
        ScramCredentialUpsertion::default()
            .with_name(text(&one.user))
            .with_mechanism(one.mechanism)
            .with_iterations(one.iterations)
            .with_salt(Bytes::from_static(b"some salt"))
            .with_salted_password(Bytes::from(vec![7; if one.mechanism == 2 { 64 } else { 32 }]))
    });
    AlterUserScramCredentialsRequest::default()
        .with_deletions(deletions.collect())
        .with_upsertions(upsertions.collect())
}

fn operations(client: &mut Client, topic: &str, group: &str) -> Result<Value, String> {
    let cluster = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    let cluster = client.call(&cluster.with_endpoint_type(1), 1)?;
    let name = metadata_request::MetadataRequestTopic::default().with_name(Some(TopicName(text(topic))));
    let topics = MetadataRequest::default().with_topics(Some(vec![name])).with_allow_auto_topic_creation(false);
    let topics = client.call(&topics.with_include_topic_authorized_operations(true), 9)?;
    let groups = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
    let groups = client.call(&groups.with_include_authorized_operations(true), 5)?;
    Ok(json!({
        "cluster": cluster.cluster_authorized_operations,
        "topic": [i32::from(topics.topics[0].error_code), topics.topics[0].topic_authorized_operations],
        "group": { "error_code": groups.groups[0].error_code, "allowed": groups.groups[0].authorized_operations },
    }))
}
