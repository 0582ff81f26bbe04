//! Whether the client may do what it asks: one call per handler, and the error that Kafka gives for each resource.

use crate::error::{Error, Kind, Result};
use crate::security::acl::{Operation, Resource, ResourceType};
use crate::security::{Peer, Principal};

use super::Context;

impl Context {
    /// Who asks.
    pub(crate) fn principal(&self) -> std::sync::Arc<Principal> {
        self.session.principal()
    }

    /// Where it asks from, for the audit log.
    pub(crate) fn peer(&self) -> Peer<'_> {
        Peer { host: self.client_host.to_canonical(), listener: &self.listener.name }
    }

    /// Whether it is allowed; a refusal is not worth a line (lists are filtered with it).
    pub(crate) fn may(&self, operation: Operation, resource: Resource<'_>) -> bool {
        let security = self.broker.security();
        !security.config().authorizer
            || security.allows(&self.principal(), &self.client_host.to_canonical().to_string(), operation, resource)
    }

    /// Refuses what is not allowed, and says so in the audit log.
    ///
    /// # Errors
    /// The resource's own: `TopicAuthorizationFailed`, `GroupAuthorizationFailed`, `ClusterAuthorizationFailed`,
    /// `TransactionalIdAuthorizationFailed`, `DelegationTokenAuthorizationFailed`.
    pub(crate) fn authorize(&self, operation: Operation, resource: Resource<'_>) -> Result<()> {
        if self.may(operation, resource) { Ok(()) } else { Err(self.denied(operation, resource)) }
    }

    /// Like [`Context::authorize`] for what a right on the whole cluster allows as well.
    ///
    /// # Errors
    /// Those of [`Context::authorize`], for `resource`.
    pub(crate) fn authorize_or_cluster(&self, operation: Operation, resource: Resource<'_>) -> Result<()> {
        if self.may(operation, Resource::Cluster) { Ok(()) } else { self.authorize(operation, resource) }
    }

    /// Refuses idempotent writing to who may not do it and may not write to any topic either.
    ///
    /// # Errors
    /// `ClusterAuthorizationFailed`.
    pub(crate) fn authorize_idempotent_write(&self) -> Result<()> {
        let host = self.client_host.to_canonical().to_string();
        let some_topic = || {
            let security = self.broker.security();
            security.allows_some(&self.principal(), &host, Operation::Write, ResourceType::Topic)
        };
        if self.may(Operation::IdempotentWrite, Resource::Cluster) || some_topic() {
            return Ok(());
        }
        Err(self.denied(Operation::IdempotentWrite, Resource::Cluster))
    }

    /// The operations that are allowed on a resource, one bit each, as clients ask for them.
    pub(crate) fn operations(&self, resource: Resource<'_>) -> i32 {
        let allowed = resource.operations().iter().filter(|operation| self.may(**operation, resource));
        allowed.fold(0, |bits, operation| bits | 1 << operation.code())
    }

    /// A line in the audit log about something that the client changed.
    pub(crate) fn changed(&self, what: &str) {
        let now = self.broker.clock().now_ms();
        self.broker.security().audit().changed(now, self.peer(), self.principal().as_str(), what);
    }

    fn denied(&self, operation: Operation, resource: Resource<'_>) -> Error {
        let principal = self.principal();
        let (asked, shown) = (format!("{operation:?}"), resource.to_string());
        let now = self.broker.clock().now_ms();
        self.broker.security().audit().denied(now, self.peer(), principal.as_str(), (&asked, &shown));
        let kind = match resource {
            Resource::Topic(_) => Kind::TopicAuthorizationFailed,
            Resource::Group(_) => Kind::GroupAuthorizationFailed,
            Resource::Cluster => Kind::ClusterAuthorizationFailed,
            Resource::TransactionalId(_) => Kind::TransactionalIdAuthorizationFailed,
            Resource::User(_) => Kind::DelegationTokenAuthorizationFailed,
        };
        Error::new(kind, format!("{principal} is not allowed to {asked} {shown}; ask for an ACL"))
    }
}
