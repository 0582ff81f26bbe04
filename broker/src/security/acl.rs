//! Access control lists as data: what a rule says, what it matches, and Kafka's numbers for it all.

use std::fmt;
use std::net::IpAddr;

/// What a rule is about. The numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ResourceType {
    /// Topics, by name.
    Topic = 2,
    /// Groups, by id.
    Group = 3,
    /// The cluster, of which there is one: [`CLUSTER_NAME`].
    Cluster = 4,
    /// Transactional ids.
    TransactionalId = 5,
    /// Delegation tokens; kept for tools, nothing here asks for them.
    DelegationToken = 6,
    /// Users for whom others make delegation tokens, as `Type:name`.
    User = 7,
}

/// What somebody wants to do. The numbers are Kafka's, and those of the bits of authorised operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// Every operation; in rules only.
    All = 2,
    /// Fetch, join a group, commit.
    Read = 3,
    /// Produce.
    Write = 4,
    /// Make a topic.
    Create = 5,
    /// Delete a topic, its records or a group.
    Delete = 6,
    /// Change partitions, ACLs, users.
    Alter = 7,
    /// Look at it.
    Describe = 8,
    /// What brokers do among themselves.
    ClusterAction = 9,
    /// Look at its settings.
    DescribeConfigs = 10,
    /// Change its settings.
    AlterConfigs = 11,
    /// Write idempotently without a right to write any topic; only the cluster has it.
    IdempotentWrite = 12,
    /// Make delegation tokens for a user.
    CreateTokens = 13,
    /// Look at a user's delegation tokens.
    DescribeTokens = 14,
    /// Two-phase commit.
    TwoPhaseCommit = 15,
}

/// How a rule's name meets the name of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PatternType {
    /// Equal, or [`WILDCARD`] for every name.
    Literal = 3,
    /// The beginning of it.
    Prefixed = 4,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Permission {
    /// No; stronger than any yes.
    Deny = 2,
    /// Yes.
    Allow = 3,
}

macro_rules! by_code {
    ($type:ident: $($name:ident)+) => {
        impl $type {
            /// The value of Kafka's number; none for numbers that no rule can have.
            pub fn from_code(code: i8) -> Option<Self> {
                [$(Self::$name,)+].into_iter().find(|one| one.code() == code)
            }

            /// Kafka's number.
            pub fn code(self) -> i8 {
                self as i8
            }
        }
    };
}
by_code!(ResourceType: Topic Group Cluster TransactionalId DelegationToken User);
by_code!(Operation: All Read Write Create Delete Alter Describe ClusterAction DescribeConfigs AlterConfigs
    IdempotentWrite CreateTokens DescribeTokens TwoPhaseCommit);
by_code!(PatternType: Literal Prefixed);
by_code!(Permission: Deny Allow);

/// The name of the one resource of type cluster.
pub const CLUSTER_NAME: &str = "kafka-cluster";
/// As a literal name: every resource of the type. As a host: every host.
pub const WILDCARD: &str = "*";
/// The principal that everybody is, in rules.
pub const EVERYBODY: &str = "User:*";

/// A resource that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic's name.
    Topic(&'a str),
    /// A group's id.
    Group(&'a str),
    /// The cluster.
    Cluster,
    /// A transactional id.
    TransactionalId(&'a str),
    /// A principal, as `Type:name`.
    User(&'a str),
}

impl<'a> Resource<'a> {
    /// Its type.
    pub fn kind(self) -> ResourceType {
        match self {
            Resource::Topic(_) => ResourceType::Topic,
            Resource::Group(_) => ResourceType::Group,
            Resource::Cluster => ResourceType::Cluster,
            Resource::TransactionalId(_) => ResourceType::TransactionalId,
            Resource::User(_) => ResourceType::User,
        }
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        match self {
            Resource::Topic(name) | Resource::Group(name) | Resource::TransactionalId(name) | Resource::User(name) => {
                name
            }
            Resource::Cluster => CLUSTER_NAME,
        }
    }

    /// Every operation that has a meaning for it, as Kafka's tools list them.
    pub fn operations(self) -> &'static [Operation] {
        use Operation::*;
        match self {
            Resource::Topic(_) => &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs],
            Resource::Group(_) => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
            Resource::Cluster => {
                &[Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite]
            }
            Resource::TransactionalId(_) => &[Write, Describe, TwoPhaseCommit],
            Resource::User(_) => &[CreateTokens, DescribeTokens],
        }
    }
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.kind(), self.name().escape_debug())
    }
}

/// One rule. Two equal rules are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Acl {
    /// What it is about.
    pub resource_type: ResourceType,
    /// How its name is meant.
    pub pattern: PatternType,
    /// A name, the beginning of names, or [`WILDCARD`].
    pub name: String,
    /// `Type:name`, or [`EVERYBODY`].
    pub principal: String,
    /// An address as it was given, in any spelling, or [`WILDCARD`].
    pub host: String,
    /// What is allowed or denied.
    pub operation: Operation,
    /// Which of the two.
    pub permission: Permission,
}

impl Acl {
    /// Whether it speaks of this operation. A right to change something is also one to look at it.
    pub fn covers(&self, operation: Operation) -> bool {
        use Operation::*;
        if self.operation == All || self.operation == operation {
            return true;
        }
        self.permission == Permission::Allow
            && match operation {
                Describe => matches!(self.operation, Read | Write | Delete | Alter),
                DescribeConfigs => self.operation == AlterConfigs,
                _ => false,
            }
    }

    /// Whether it speaks of this principal on this host.
    pub fn is_for(&self, principal: &str, host: &str) -> bool {
        (self.principal == EVERYBODY || self.principal == principal)
            && (self.host == WILDCARD || is_same_host(&self.host, host))
    }
}

/// Whether a rule's host is this one. IPv6 addresses have many spellings: Java writes out what Rust shortens.
fn is_same_host(rule: &str, host: &str) -> bool {
    let parsed = |text: &str| text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    rule == host || (rule.contains(':') && parsed(rule).is_some_and(|address| parsed(host) == Some(address)))
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource_type, pattern, name, principal, host, operation, permission } = self;
        write!(f, "{permission:?} {principal} from {host} {operation:?} on {resource_type:?} {pattern:?} {name}")
    }
}

/// How a filter means its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternFilter {
    /// Rules of any pattern type with exactly this name.
    Any,
    /// Rules that would speak of a resource of this name.
    Match,
    /// Rules of this pattern type with exactly this name.
    Exactly(PatternType),
}

/// Which rules are meant; what is none matches everything.
#[derive(Clone, Debug)]
pub struct AclFilter {
    /// What they are about.
    pub resource_type: Option<ResourceType>,
    /// How `name` is meant.
    pub pattern: PatternFilter,
    /// A name.
    pub name: Option<String>,
    /// A principal, word for word.
    pub principal: Option<String>,
    /// A host, word for word.
    pub host: Option<String>,
    /// An operation, word for word.
    pub operation: Option<Operation>,
    /// Yes or no.
    pub permission: Option<Permission>,
}

impl AclFilter {
    /// Whether a rule is meant.
    pub fn matches(&self, acl: &Acl) -> bool {
        let pattern = match self.pattern {
            PatternFilter::Exactly(pattern) => pattern == acl.pattern,
            PatternFilter::Any | PatternFilter::Match => true,
        };
        let name = self.name.as_deref().is_none_or(|name| {
            name == acl.name
                || self.pattern == PatternFilter::Match
                    && match acl.pattern {
                        PatternType::Literal => acl.name == WILDCARD,
                        PatternType::Prefixed => name.starts_with(&acl.name),
                    }
        });
        pattern
            && name
            && self.resource_type.is_none_or(|kind| kind == acl.resource_type)
            && self.principal.as_ref().is_none_or(|principal| *principal == acl.principal)
            && self.host.as_ref().is_none_or(|host| *host == acl.host)
            && self.operation.is_none_or(|operation| operation == acl.operation)
            && self.permission.is_none_or(|permission| permission == acl.permission)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `allow topic literal orders User:a * read` and the like.
    pub(crate) fn acl(text: &str) -> Acl {
        let words: Vec<&str> = text.split(' ').collect();
        let [permission, kind, pattern, name, principal, host, operation] = words[..] else { panic!("{text}") };
        let named = |all: &[(&str, i8)], word: &str| all.iter().find(|(name, _)| *name == word).unwrap().1;
        Acl {
            resource_type: ResourceType::from_code(named(
                &[("topic", 2), ("group", 3), ("cluster", 4), ("transactional-id", 5), ("user", 7)],
                kind,
            ))
            .unwrap(),
            pattern: if pattern == "literal" { PatternType::Literal } else { PatternType::Prefixed },
            name: name.into(),
            principal: principal.into(),
            host: host.into(),
            operation: Operation::from_code(named(
                &[
                    ("all", 2),
                    ("read", 3),
                    ("write", 4),
                    ("create", 5),
                    ("delete", 6),
                    ("alter", 7),
                    ("describe", 8),
                    ("describe-configs", 10),
                    ("alter-configs", 11),
                    ("idempotent-write", 12),
                    ("create-tokens", 13),
                ],
                operation,
            ))
            .unwrap(),
            permission: if permission == "deny" { Permission::Deny } else { Permission::Allow },
        }
    }

    #[test]
    fn filters_mean_what_kafka_means() {
        let literal = acl("allow topic literal orders User:a * read");
        let prefixed = acl("allow topic prefixed ord User:a * read");
        let every = acl("allow topic literal * User:a * read");
        let longer = acl("allow topic prefixed orders-eu User:a * read");
        let all = [&literal, &prefixed, &every, &longer];
        let any = AclFilter {
            resource_type: None,
            pattern: PatternFilter::Any,
            name: None,
            principal: None,
            host: None,
            operation: None,
            permission: None,
        };
        let count = |filter: &AclFilter| all.iter().filter(|acl| filter.matches(acl)).count();
        assert_eq!(count(&any), 4);
        let named = AclFilter { name: Some("orders".into()), ..any.clone() };
        assert_eq!(count(&named), 1, "any: the same name");
        assert_eq!(count(&AclFilter { pattern: PatternFilter::Match, ..named.clone() }), 3, "what speaks of orders");
        let exactly = |pattern| PatternFilter::Exactly(pattern);
        assert_eq!(count(&AclFilter { pattern: exactly(PatternType::Prefixed), ..any.clone() }), 2);
        assert_eq!(count(&AclFilter { pattern: exactly(PatternType::Prefixed), ..named.clone() }), 0);
        assert_eq!(count(&AclFilter { pattern: exactly(PatternType::Literal), ..named }), 1);
        for other in [
            AclFilter { resource_type: Some(ResourceType::Group), ..any.clone() },
            AclFilter { principal: Some("User:b".into()), ..any.clone() },
            AclFilter { host: Some("1.2.3.4".into()), ..any.clone() },
            AclFilter { operation: Some(Operation::Write), ..any.clone() },
            AclFilter { operation: Some(Operation::All), ..any.clone() },
            AclFilter { permission: Some(Permission::Deny), ..any.clone() },
        ] {
            assert_eq!(count(&other), 0, "{other:?}");
        }
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let is_for = |host: &str, from| acl(&format!("deny topic literal t User:* {host} read")).is_for("User:a", from);
        for written in ["2001:db8:0:0:0:0:0:1", "2001:db8::1", "2001:DB8::1", "2001:0db8::0001"] {
            assert!(is_for(written, "2001:db8::1"), "{written}");
        }
        assert!(is_for("0:0:0:0:0:0:0:1", "::1") && is_for("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!is_for("2001:db8::2", "2001:db8::1") && !is_for("10.0.0.1", "10.0.0.2") && !is_for("a:b", "::1"));
    }

    #[test]
    fn numbers_are_kafkas() {
        assert_eq!((Operation::Read.code(), Operation::TwoPhaseCommit.code()), (3, 15));
        assert_eq!((ResourceType::Topic.code(), ResourceType::User.code()), (2, 7));
        assert_eq!((PatternType::Literal.code(), Permission::Allow.code()), (3, 3));
        for code in [-1, 0, 1, 16, i8::MAX] {
            assert_eq!(Operation::from_code(code), None);
        }
    }
}
