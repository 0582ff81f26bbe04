//! The rules in force, indexed for the question that every request asks: may this principal do that?

use std::collections::{BTreeSet, HashMap};

use super::acl::{Acl, Operation, PatternType, Permission, Resource, ResourceType, WILDCARD};

/// Rules of one resource type and pattern type by name.
type ByName = HashMap<String, BTreeSet<Acl>>;

/// All rules. Holds: each once, by type, pattern and name, and how long the prefixes are. `SecurityState` alone changes
/// it, by records; the store keeps them over a crash.
#[derive(Debug, Default)]
pub(super) struct Rules {
    literal: HashMap<ResourceType, ByName>,
    prefixed: HashMap<ResourceType, ByName>,
    /// Lengths of prefixes in bytes, with the number of names that long.
    prefix_lengths: HashMap<ResourceType, std::collections::BTreeMap<usize, usize>>,
    count: usize,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A rule says yes and none says no.
    Allowed,
    /// A rule says no, or rules speak of the resource and none says yes.
    Denied,
    /// No rule speaks of the resource.
    Silent,
}

impl Rules {
    /// Number of rules.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Every rule, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Acl> {
        self.literal.values().chain(self.prefixed.values()).flat_map(HashMap::values).flatten()
    }

    pub(super) fn contains(&self, acl: &Acl) -> bool {
        let side = if acl.pattern == PatternType::Literal { &self.literal } else { &self.prefixed };
        side.get(&acl.resource_type).and_then(|names| names.get(&acl.name)).is_some_and(|set| set.contains(acl))
    }

    pub(super) fn insert(&mut self, acl: &Acl) {
        let side = if acl.pattern == PatternType::Literal { &mut self.literal } else { &mut self.prefixed };
        let names = side.entry(acl.resource_type).or_default();
        if acl.pattern == PatternType::Prefixed && !names.contains_key(&acl.name) {
            *self.prefix_lengths.entry(acl.resource_type).or_default().entry(acl.name.len()).or_default() += 1;
        }
        self.count += usize::from(names.entry(acl.name.clone()).or_default().insert(acl.clone()));
    }

    pub(super) fn remove(&mut self, acl: &Acl) {
        let side = if acl.pattern == PatternType::Literal { &mut self.literal } else { &mut self.prefixed };
        let Some(names) = side.get_mut(&acl.resource_type) else { return };
        let Some(set) = names.get_mut(&acl.name) else { return };
        self.count -= usize::from(set.remove(acl));
        if !set.is_empty() {
            return;
        }
        names.remove(&acl.name);
        if acl.pattern == PatternType::Prefixed
            && let Some(lengths) = self.prefix_lengths.get_mut(&acl.resource_type)
            && let Some(count) = lengths.get_mut(&acl.name.len())
        {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&acl.name.len());
            }
        }
    }

    /// The rules that speak of a resource.
    fn of(&self, resource: Resource<'_>) -> impl Iterator<Item = &Acl> {
        let (kind, name) = (resource.kind(), resource.name());
        let literal = self.literal.get(&kind);
        let literal = [name, WILDCARD]
            .into_iter()
            .take(if name == WILDCARD { 1 } else { 2 })
            .filter_map(move |name| literal?.get(name));
        let prefixed = self.prefixed.get(&kind);
        let lengths = self.prefix_lengths.get(&kind).into_iter().flat_map(|lengths| lengths.keys());
        let prefixed = lengths.filter_map(move |&length| prefixed?.get(name.get(..length)?));
        literal.chain(prefixed).flatten()
    }

    /// What they say about one operation on one resource.
    pub(super) fn judge(&self, principal: &str, host: &str, operation: Operation, resource: Resource<'_>) -> Verdict {
        let mut verdict = Verdict::Silent;
        for acl in self.of(resource) {
            let speaks = acl.is_for(principal, host) && acl.covers(operation);
            match (speaks, acl.permission) {
                (true, Permission::Deny) => return Verdict::Denied,
                (true, Permission::Allow) => verdict = Verdict::Allowed,
                (false, _) if verdict == Verdict::Silent => verdict = Verdict::Denied,
                (false, _) => {}
            }
        }
        verdict
    }

    /// Whether there may be some resource of the type on which the operation is allowed: one rule says yes, and no
    /// rule of everything or of a wider prefix takes it back.
    pub(super) fn allows_some(&self, principal: &str, host: &str, operation: Operation, kind: ResourceType) -> bool {
        let sides = [self.literal.get(&kind), self.prefixed.get(&kind)];
        let mine = sides.into_iter().flatten().flat_map(HashMap::values).flatten();
        let mine = mine.filter(|acl| acl.is_for(principal, host) && acl.covers(operation));
        let (allowing, denying): (Vec<&Acl>, Vec<&Acl>) = mine.partition(|acl| acl.permission == Permission::Allow);
        let denies = |allowed: &Acl, denied: &Acl| match (denied.pattern, allowed.pattern) {
            (PatternType::Literal, _) if denied.name == WILDCARD => true,
            (PatternType::Literal, PatternType::Literal) => denied.name == allowed.name,
            (PatternType::Literal, PatternType::Prefixed) => false,
            (PatternType::Prefixed, _) => allowed.name != WILDCARD && allowed.name.starts_with(&denied.name),
        };
        allowing.iter().any(|allowed| !denying.iter().any(|denied| denies(allowed, denied)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::acl::tests::acl;
    use super::*;

    fn rules(texts: &[&str]) -> Rules {
        let mut rules = Rules::default();
        texts.iter().for_each(|text| rules.insert(&acl(text)));
        rules
    }

    #[test]
    fn no_is_stronger_than_yes() {
        use Operation::*;
        let rules = rules(&[
            "allow topic literal orders User:ann * read",
            "allow topic prefixed ord User:ann 10.0.0.1 write",
            "allow topic literal * User:bob * all",
            "deny topic prefixed order User:bob * delete",
            "deny topic literal * User:* 10.6.6.6 all",
            "allow topic literal settings User:ann * alter-configs",
            "deny topic literal orders User:cid * describe",
            "allow topic literal orders User:cid * read",
        ]);
        let asks = |who: &str, host: &str, operation, name: &str| {
            rules.judge(&format!("User:{who}"), host, operation, Resource::Topic(name))
        };
        for (who, host, operation, name, expected) in [
            ("ann", "1.1.1.1", Read, "orders", Verdict::Allowed),
            ("ann", "1.1.1.1", Describe, "orders", Verdict::Allowed),
            ("ann", "1.1.1.1", Write, "orders", Verdict::Denied),
            ("ann", "10.0.0.1", Write, "orders", Verdict::Allowed),
            ("ann", "10.0.0.1", Write, "or", Verdict::Denied),
            ("ann", "10.0.0.1", DescribeConfigs, "settings", Verdict::Allowed),
            ("ann", "10.0.0.1", Describe, "settings", Verdict::Denied),
            ("bob", "1.1.1.1", Delete, "orders", Verdict::Denied),
            ("bob", "1.1.1.1", Delete, "others", Verdict::Allowed),
            ("bob", "10.6.6.6", Read, "others", Verdict::Denied),
            ("cid", "1.1.1.1", Read, "orders", Verdict::Allowed),
            ("cid", "1.1.1.1", Describe, "orders", Verdict::Denied),
        ] {
            assert_eq!(asks(who, host, operation, name), expected, "{who} {host} {operation:?} {name}");
        }
        let group = rules.judge("User:ann", "1.1.1.1", Read, Resource::Group("orders"));
        assert_eq!(group, Verdict::Silent, "no rule speaks of groups");
    }

    #[test]
    fn names_cut_within_a_character_are_no_prefix() {
        let rules = rules(&["allow topic prefixed ab User:ann * read"]);
        assert_eq!(rules.judge("User:ann", "h", Operation::Read, Resource::Topic("aé")), Verdict::Silent);
    }

    #[test]
    fn what_is_removed_is_gone() {
        let mut rules = rules(&["allow topic prefixed or User:ann * read", "allow topic prefixed or User:bob * read"]);
        let (ann, bob) =
            (acl("allow topic prefixed or User:ann * read"), acl("allow topic prefixed or User:bob * read"));
        rules.insert(&ann);
        assert_eq!((rules.len(), rules.iter().count()), (2, 2));
        rules.remove(&ann);
        assert!(!rules.contains(&ann) && rules.contains(&bob));
        assert_eq!(rules.judge("User:bob", "h", Operation::Read, Resource::Topic("orders")), Verdict::Allowed);
        rules.remove(&bob);
        rules.remove(&bob);
        assert_eq!(rules.len(), 0);
        assert_eq!(rules.judge("User:bob", "h", Operation::Read, Resource::Topic("orders")), Verdict::Silent);
        assert!(rules.prefix_lengths[&ResourceType::Topic].is_empty());
    }

    #[test]
    fn some_topic_may_be_written() {
        let writes = |texts: &[&str]| rules(texts).allows_some("User:ann", "h", Operation::Write, ResourceType::Topic);
        assert!(!writes(&[]) && !writes(&["allow topic literal a User:ann * read"]));
        assert!(writes(&["allow topic literal a User:ann * write"]));
        assert!(!writes(&["allow topic literal a User:ann * write", "deny topic literal a User:* * write"]));
        assert!(!writes(&["allow topic literal a User:ann * write", "deny topic literal * User:* * all"]));
        assert!(!writes(&["allow topic prefixed abc User:ann * write", "deny topic prefixed ab User:ann * write"]));
        assert!(writes(&["allow topic prefixed ab User:ann * write", "deny topic prefixed abc User:ann * write"]));
        assert!(writes(&["allow topic literal * User:ann * write", "deny topic prefixed a User:ann * write"]));
        assert!(!writes(&["allow topic literal a User:ann other write"]));
    }
}
