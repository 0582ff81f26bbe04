//! Changes as they are decided, kept over a restart, and what the configuration says at start.

use std::sync::Arc;

use super::acl::tests::acl;
use super::acl::{AclFilter, Operation, PatternFilter, Resource};
use super::quota::{Entity, Part, Quota};
use super::scram::ScramMechanism;
use super::*;
use crate::{Broker, BrokerConfig};

const EVERY: AclFilter = AclFilter {
    resource_type: None,
    pattern: PatternFilter::Any,
    name: None,
    principal: None,
    host: None,
    operation: None,
    permission: None,
};

async fn open(dir: &std::path::Path, security: SecurityConfig) -> Arc<Broker> {
    let config = BrokerConfig { data_dir: dir.to_owned(), security, ..BrokerConfig::default() };
    Broker::open(config, Clock::manual(1_000)).await.unwrap()
}

fn with_user(password: &str) -> SecurityConfig {
    let user = UserConfig { name: "ann".into(), password: Secret(password.into()) };
    SecurityConfig { authorizer: true, super_users: vec!["User:root".into()], users: vec![user], ..Default::default() }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), with_user("one")).await;
    let first = broker.security().read(|state| state.credential("ann", ScramMechanism::Sha256).cloned()).unwrap();
    let rule = acl("allow topic prefixed ord User:ann * read");
    let entity = Entity { user: Some(Part::Default), ..Entity::default() };
    let decided = broker.security().change(|state| {
        let salted = [7; 64];
        let records = vec![
            state.add_acl(rule.clone(), 0)?.unwrap(),
            state.set_credential("bob", ScramMechanism::Sha512, (b"salt", 4096, &salted))?,
            state.alter_quota(&entity, &[("producer_byte_rate".into(), Some(10.0))])?,
        ];
        Ok::<_, Error>((records, ()))
    });
    decided.await.unwrap();
    broker.stop().await.unwrap();
    drop(broker);

    let broker = open(dir.path(), with_user("one")).await;
    let security = broker.security();
    assert_eq!(security.read(|state| state.acls(&EVERY)), std::slice::from_ref(&rule));
    let again = security.read(|state| state.credential("ann", ScramMechanism::Sha256).cloned()).unwrap();
    assert_eq!(first, again, "the same password makes no new credential");
    let users = security.read(SecurityState::users);
    assert_eq!(users["bob"], [(ScramMechanism::Sha512, 4096)]);
    let limit = security.limit(Quota::ProducerByteRate, &Principal::user("x"), "c").unwrap();
    assert_eq!((limit.bound, limit.user.as_deref(), limit.client_id), (10.0, Some("x"), None));
    let gone = security.change(|state| {
        let records = vec![
            SecurityRecord::AclGone(rule.clone()),
            state.remove_credential("bob", ScramMechanism::Sha512)?,
            state.alter_quota(&entity, &[("producer_byte_rate".into(), None)])?,
        ];
        Ok::<_, Error>((records, ()))
    });
    gone.await.unwrap();
    broker.stop().await.unwrap();
    drop(broker);

    let broker = open(dir.path(), with_user("two")).await;
    broker.security().read(|state| {
        assert!(state.acls(&EVERY).is_empty() && state.quotas().is_empty());
        assert_eq!(state.users().len(), 1);
        let changed = state.credential("ann", ScramMechanism::Sha256).unwrap();
        assert!(changed.is_of(ScramMechanism::Sha256, "two") && *changed != first);
    });
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn who_is_taken_out_of_the_configuration_cannot_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), with_user("one")).await;
    let decided = broker.security().change(|state| {
        Ok::<_, Error>((vec![state.set_credential("bob", ScramMechanism::Sha512, (b"salt", 4096, &[7; 64]))?], ()))
    });
    decided.await.unwrap();
    broker.stop().await.unwrap();
    drop(broker);
    let broker = open(dir.path(), SecurityConfig { users: Vec::new(), ..with_user("one") }).await;
    let users = broker.security().read(SecurityState::users);
    assert_eq!(users.keys().collect::<Vec<_>>(), ["bob"], "who was made by a tool stays");
    // who is made anew is no longer the configuration's
    let decided = broker.security().change(|state| {
        Ok::<_, Error>((vec![state.set_credential("ann", ScramMechanism::Sha256, (b"salt", 4096, &[7; 32]))?], ()))
    });
    decided.await.unwrap();
    broker.stop().await.unwrap();
    drop(broker);
    let broker = open(dir.path(), SecurityConfig { users: Vec::new(), ..with_user("one") }).await;
    assert!(broker.security().read(|state| state.credential("ann", ScramMechanism::Sha256).is_some()));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn who_may_do_what() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path(), with_user("one")).await;
    let security = broker.security();
    let records = vec![SecurityRecord::Acl(acl("allow topic literal orders User:ann * read"))];
    security.change(|_| Ok::<_, Error>((records, ()))).await.unwrap();
    let may = |who: &str, operation, resource| security.allows(&Principal::user(who), "1.2.3.4", operation, resource);
    assert!(may("ann", Operation::Read, Resource::Topic("orders")));
    assert!(!may("bob", Operation::Read, Resource::Topic("orders")));
    assert!(!may("bob", Operation::Read, Resource::Topic("others")), "what no rule speaks of is closed");
    assert!(may("root", Operation::Alter, Resource::Cluster), "a super user");
    broker.stop().await.unwrap();
    drop(broker);
    let open_config = SecurityConfig { allow_everyone_if_no_acl_found: true, ..with_user("one") };
    let broker = open(dir.path(), open_config).await;
    let bob = Principal::user("bob");
    let may = |resource| broker.security().allows(&bob, "1.2.3.4", Operation::Read, resource);
    assert!(may(Resource::Topic("others")) && !may(Resource::Topic("orders")));
    broker.stop().await.unwrap();
}

#[test]
fn decisions_that_refuse() {
    let state = SecurityState::default();
    let refused = |text: &str| state.add_acl(acl(text), 0).unwrap_err().kind;
    assert_eq!(refused("allow cluster literal other User:ann * alter"), Kind::InvalidRequest);
    assert_eq!(refused("allow topic literal x ann * read"), Kind::InvalidRequest);
    assert_eq!(
        state.add_acl(acl("allow topic literal x User:a * read"), ACLS_MAX).unwrap_err().kind,
        Kind::PolicyViolation
    );
    let set = |user: &str, salt: &[u8], iterations, password: &[u8]| {
        state.set_credential(user, ScramMechanism::Sha256, (salt, iterations, password)).map_err(|error| error.kind)
    };
    assert!(set("ann", b"s", 4096, &[1; 32]).is_ok() && set("ann", b"s", 16_384, &[1; 32]).is_ok());
    for refused in [
        set("", b"s", 4096, &[1; 32]),
        set("ann", b"", 4096, &[1; 32]),
        set("ann", b"s", 4095, &[1; 32]),
        set("ann", b"s", 16_385, &[1; 32]),
        set("ann", b"s", -1, &[1; 32]),
        set("ann", b"s", 4096, &[1; 31]),
        set("ann", &[0; 256], 4096, &[1; 32]),
    ] {
        assert_eq!(refused.unwrap_err(), Kind::UnacceptableCredential);
    }
    assert_eq!(state.remove_credential("ann", ScramMechanism::Sha256).unwrap_err().kind, Kind::ResourceNotFound);
    let entity = Entity { user: Some(Part::Default), ..Entity::default() };
    let alter = |name: &str, value| state.alter_quota(&entity, &[(name.to_owned(), value)]);
    assert!(alter("connection_creation_rate", Some(1.0)).is_err(), "not of a user");
    assert!(alter("producer_byte_rate", Some(0.0)).is_err() && alter("x", None).is_err());
    assert!(alter("producer_byte_rate", None).is_ok(), "taking away what is not there");
}
