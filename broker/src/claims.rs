//! Claims: the topics that streams, tables and views live by. What would break these, clients are refused, and told what to do first.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use crate::error::{Error, Kind, Result};
use crate::types::TopicName;

/// What somebody does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Reads it, so that it stays.
    Reads,
    /// Writes it, and nobody else does.
    Writes,
    /// The same, with the latest record of a key for what the key has: in another partition an older one would stay the latest.
    WritesByKey,
}

/// Somebody who needs a topic.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The topic, which need not be there yet.
    pub topic: TopicName,
    /// What is done with it.
    pub usage: Usage,
    /// Who does it, such as `view plays`.
    pub owner: String,
    /// What ends it, such as `DROP MATERIALIZED VIEW plays`.
    pub release: String,
}

/// All claims by topic. They are not stored: the engine sets them again at every start, and with each change of what is declared.
#[derive(Debug, Default)]
pub struct Claims(RwLock<BTreeMap<TopicName, Vec<Claim>>>);

impl Claims {
    /// These and no others from now on.
    pub(crate) fn set(&self, claims: Vec<Claim>) {
        let mut by_topic: BTreeMap<TopicName, Vec<Claim>> = BTreeMap::new();
        for claim in claims {
            by_topic.entry(claim.topic.clone()).or_default().push(claim);
        }
        *self.0.write() = by_topic;
    }

    /// Whether a client may delete the topic.
    ///
    /// # Errors
    /// `TopicDeletionDisabled`, with everybody who needs it.
    pub(crate) fn check_delete(&self, topic: &str) -> Result<()> {
        let claims = self.0.read();
        let Some(of_topic) = claims.get(topic) else { return Ok(()) };
        let needs = of_topic.iter().map(|claim| {
            let does = if claim.usage == Usage::Reads { "reads" } else { "writes" };
            format!("{} {does} it (first {})", claim.owner, claim.release)
        });
        let needs: Vec<String> = needs.collect();
        let message = format!("topic {topic} cannot be deleted: {}", needs.join(", "));
        Err(Error::new(Kind::TopicDeletionDisabled, message))
    }

    /// Whether clients may write to the topic.
    ///
    /// # Errors
    /// `InvalidTopic`, as for the broker's own topics, with who writes it.
    pub fn check_write(&self, topic: &str) -> Result<()> {
        let claims = self.0.read();
        let Some(owner) = writer(&claims, topic, |usage| usage != Usage::Reads) else { return Ok(()) };
        let message = format!("topic {topic} is written by {owner} alone; send records to what that is computed from");
        Err(Error::new(Kind::InvalidTopic, message))
    }

    /// Whether the topic may be given partitions.
    ///
    /// # Errors
    /// `PolicyViolation`, with who needs those that it has.
    pub(crate) fn check_grow(&self, topic: &str) -> Result<()> {
        let claims = self.0.read();
        let Some(owner) = writer(&claims, topic, |usage| usage == Usage::WritesByKey) else { return Ok(()) };
        let message = format!(
            "topic {topic} keeps its partitions: {owner} writes the latest record of each key, which would go to another one"
        );
        Err(Error::new(Kind::PolicyViolation, message))
    }
}

/// Who has the topic for such a use.
fn writer<'a>(
    claims: &'a BTreeMap<TopicName, Vec<Claim>>,
    topic: &str,
    is_such: impl Fn(Usage) -> bool,
) -> Option<&'a str> {
    claims.get(topic)?.iter().find(|claim| is_such(claim.usage)).map(|claim| claim.owner.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(topic: &str, usage: Usage, owner: &str, release: &str) -> Claim {
        Claim { topic: topic.into(), usage, owner: owner.into(), release: release.into() }
    }

    #[test]
    fn each_use_forbids_what_would_break_it() {
        let claims = Claims::default();
        let drop_s = "DROP STREAM s";
        claims.set(vec![
            claim("events", Usage::Reads, "stream s", drop_s),
            claim("s.rejected", Usage::Writes, "stream s", drop_s),
            claim("v", Usage::WritesByKey, "view v", "DROP MATERIALIZED VIEW v"),
            claim("v", Usage::Reads, "stream t", "take it out of a.toml:7 and start again"),
        ]);
        let kinds = |topic| {
            let checks = [claims.check_delete(topic), claims.check_write(topic), claims.check_grow(topic)];
            checks.map(|check| check.err().map(|error| error.kind))
        };
        let (kept, own, fixed) = (Kind::TopicDeletionDisabled, Kind::InvalidTopic, Kind::PolicyViolation);
        assert_eq!(kinds("events"), [Some(kept), None, None]);
        assert_eq!(kinds("s.rejected"), [Some(kept), Some(own), None]);
        assert_eq!(kinds("v"), [Some(kept), Some(own), Some(fixed)]);
        assert_eq!(kinds("other"), [None; 3]);
        assert_eq!(
            claims.check_delete("v").unwrap_err().message,
            "topic v cannot be deleted: view v writes it (first DROP MATERIALIZED VIEW v), \
             stream t reads it (first take it out of a.toml:7 and start again)"
        );
        claims.set(Vec::new());
        assert_eq!(kinds("v"), [None; 3]);
    }
}
