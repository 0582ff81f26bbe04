//! CreateDelegationToken (38) 1 to 3, RenewDelegationToken (39) 1 to 2, ExpireDelegationToken (40) 1 to 2,
//! DescribeDelegationToken (41) 1 to 3 (KIP-48): the answers of a Kafka broker without `delegation.token.secret.key`.
//!
//! - Who has not shown who it is, by a login or a certificate, is DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, whatever it asks.
//! - To make a token for somebody else takes the right to CREATE_TOKENS of that user (KIP-373), and then all who may renew it
//!   must be users. Only what passes both is DELEGATION_TOKEN_AUTH_DISABLED; renewing, expiring and describing is so at once.
//! - Times are -1 where Kafka's broker refuses, and 0 where its controller does, which is the one that misses the secret.
//! - An owner with a name and without a type makes Kafka fail: UNKNOWN_SERVER_ERROR, said to nobody.
//! - Left out: tokens.

use kafka_protocol::messages::create_delegation_token_request::CreatableRenewers;
use kafka_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};

use super::{Context, Reply, text};
use crate::error::{Kind, Result};
use crate::security::Principal;
use crate::security::acl::{Operation, Resource};

/// The type of principals that can renew tokens.
const USER: &str = "User";
/// Kafka's time of a token that its broker refuses.
const REFUSED_AT: i64 = -1;
/// First version of CreateDelegationToken that knows of owners who are not those who ask.
const OWNERS: i16 = 3;

/// Type and name of a principal.
type Named<'a> = (&'a str, &'a str);

/// Answers CreateDelegationToken.
pub(crate) fn create(context: &Context, version: i16, request: CreateDelegationTokenRequest) -> Reply {
    let principal = context.principal();
    let requester = (USER, principal.user_name());
    let owner = match (request.owner_principal_type.as_deref(), request.owner_principal_name.as_deref()) {
        (_, None | Some("")) => requester,
        (Some(kind), Some(name)) => (kind, name),
        (None, Some(_)) => {
            let nobody = Principal::default();
            let nobody = (USER, nobody.user_name());
            return not_made(version, (Kind::Bug.code(), REFUSED_AT), nobody, nobody);
        }
    };
    let refused = refusal(may_create(context, (owner, requester), &request.renewers));
    not_made(version, refused, owner, requester)
}

fn may_create(
    context: &Context,
    (owner, requester): (Named<'_>, Named<'_>),
    renewers: &[CreatableRenewers],
) -> Result<(), Kind> {
    may_ask(context)?;
    if owner != requester {
        let owner = format!("{}:{}", owner.0, owner.1);
        context.authorize(Operation::CreateTokens, Resource::User(&owner)).map_err(|denied| denied.kind)?;
    }
    let users = renewers.iter().all(|renewer| *renewer.principal_type == *USER);
    if users { Ok(()) } else { Err(Kind::InvalidPrincipalType) }
}

/// Refuses who has not shown who it is.
fn may_ask(context: &Context) -> Result<(), Kind> {
    if context.session.is_authenticated() { Ok(()) } else { Err(Kind::DelegationTokenRequestNotAllowed) }
}

/// The error code of a request that the broker lets through or not, and the time beside it.
fn refusal(let_through: Result<(), Kind>) -> (i16, i64) {
    match let_through {
        Ok(()) => (Kind::DelegationTokenAuthDisabled.code(), 0),
        Err(kind) => (kind.code(), REFUSED_AT),
    }
}

fn not_made(version: i16, (code, time_ms): (i16, i64), owner: Named<'_>, requester: Named<'_>) -> Reply {
    let response = CreateDelegationTokenResponse::default()
        .with_error_code(code)
        .with_principal_type(text(owner.0))
        .with_principal_name(text(owner.1))
        .with_issue_timestamp_ms(time_ms)
        .with_expiry_timestamp_ms(time_ms)
        .with_max_timestamp_ms(time_ms);
    if version < OWNERS {
        return Reply::message(version, &response);
    }
    let response = response
        .with_token_requester_principal_type(text(requester.0))
        .with_token_requester_principal_name(text(requester.1));
    Reply::message(version, &response)
}

/// Answers RenewDelegationToken.
pub(crate) fn renew(context: &Context, version: i16, _: RenewDelegationTokenRequest) -> Reply {
    let (code, time_ms) = refusal(may_ask(context));
    let response = RenewDelegationTokenResponse::default().with_error_code(code).with_expiry_timestamp_ms(time_ms);
    Reply::message(version, &response)
}

/// Answers ExpireDelegationToken.
pub(crate) fn expire(context: &Context, version: i16, _: ExpireDelegationTokenRequest) -> Reply {
    let (code, time_ms) = refusal(may_ask(context));
    let response = ExpireDelegationTokenResponse::default().with_error_code(code).with_expiry_timestamp_ms(time_ms);
    Reply::message(version, &response)
}

/// Answers DescribeDelegationToken.
pub(crate) fn describe(context: &Context, version: i16, _: DescribeDelegationTokenRequest) -> Reply {
    let (code, _) = refusal(may_ask(context));
    Reply::message(version, &DescribeDelegationTokenResponse::default().with_error_code(code))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::SecurityConfig;
    use crate::handlers::tests::node_with;
    use crate::security::SecurityRecord;
    use crate::security::acl::tests::acl;
    use crate::security::session::Session;

    /// `renewers` are types, with spaces between them.
    fn create(owner: (Option<&str>, Option<&str>), renewers: &str) -> CreateDelegationTokenRequest {
        let renewers = renewers.split_whitespace().map(|kind| {
            CreatableRenewers::default().with_principal_type(text(kind)).with_principal_name(text("somebody"))
        });
        CreateDelegationTokenRequest::default()
            .with_owner_principal_type(owner.0.map(text))
            .with_owner_principal_name(owner.1.map(text))
            .with_renewers(renewers.collect())
    }

    /// Code, owner, requester and times.
    fn told(answer: &CreateDelegationTokenResponse) -> (i16, String, String, i64) {
        let named = |kind: &str, name: &str| format!("{kind}:{name}");
        let times = [answer.issue_timestamp_ms, answer.expiry_timestamp_ms, answer.max_timestamp_ms];
        assert!(times.iter().all(|time| *time == times[0]) && answer.token_id.is_empty() && answer.hmac.is_empty());
        let owner = named(&answer.principal_type, &answer.principal_name);
        let requester = named(&answer.token_requester_principal_type, &answer.token_requester_principal_name);
        (answer.error_code, owner, requester, times[0])
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_first_check_that_fails_is_told() {
        let mut node = node_with(SecurityConfig { authorizer: true, ..SecurityConfig::default() }).await;
        let rule = SecurityRecord::Acl(acl("allow user literal User:bob User:ann * create-tokens"));
        node.context.broker.security().change(|_| Ok::<_, crate::Error>((vec![rule], ()))).await.unwrap();
        let (own, bob, cid) = ((Some(""), Some("")), (Some(USER), Some("bob")), (Some(USER), Some("cid")));
        for (who, owner, renewers, code, shown, at) in [
            (None, own, "Group", 64, "User:ANONYMOUS", -1),
            (None, cid, "", 64, "User:cid", -1),
            (Some("ann"), (None, Some("cid")), "", -1, "User:ANONYMOUS", -1),
            (Some("ann"), own, "", 61, "User:ann", 0),
            (Some("ann"), (None, None), "User", 61, "User:ann", 0),
            (Some("ann"), (Some("Group"), Some("")), "", 61, "User:ann", 0),
            (Some("ann"), (Some(USER), Some("ann")), "User Group", 67, "User:ann", -1),
            (Some("ann"), bob, "Group", 67, "User:bob", -1),
            (Some("ann"), bob, "", 61, "User:bob", 0),
            (Some("ann"), cid, "Group", 65, "User:cid", -1),
            (Some("ann"), (Some("Group"), Some("ann")), "", 65, "Group:ann", -1),
        ] {
            let principal = who.map(Principal::user).unwrap_or_default();
            let requester = if code == -1 { "User:ANONYMOUS".to_owned() } else { principal.to_string() };
            node.context.session = Arc::new(Session::open(principal));
            let answer = node.ask(3, &create(owner, renewers)).await;
            assert_eq!(told(&answer), (code, shown.to_owned(), requester, at), "{who:?} {owner:?} {renewers:?}");
        }
        for version in [1, 2] {
            let answer = node.ask(version, &create(own, "Group")).await;
            assert_eq!(told(&answer), (67, "User:ann".into(), ":".into(), -1), "version {version}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_renewed_expired_or_described() {
        let mut node = node_with(SecurityConfig::default()).await;
        for (who, code, at) in [(None, 64, -1), (Some("ann"), 61, 0)] {
            node.context.session = Arc::new(Session::open(who.map(Principal::user).unwrap_or_default()));
            let renewed = node.ask(2, &RenewDelegationTokenRequest::default()).await;
            assert_eq!((renewed.error_code, renewed.expiry_timestamp_ms), (code, at));
            let expired = node.ask(2, &ExpireDelegationTokenRequest::default()).await;
            assert_eq!((expired.error_code, expired.expiry_timestamp_ms), (code, at));
            let described = node.ask(3, &DescribeDelegationTokenRequest::default().with_owners(None)).await;
            assert_eq!((described.error_code, described.tokens.len()), (code, 0));
        }
    }
}
