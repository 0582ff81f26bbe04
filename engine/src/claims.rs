//! The topics that all declarations live by, as the broker keeps them from clients.

use broker::{Claim, Usage};

use crate::check::{Compiled, LATE_SUFFIX, REJECTED_SUFFIX};
use crate::definitions::Kind;
use crate::running::Running;

/// Every topic that is read or written for what is declared: by whom, and what ends it.
pub(crate) fn claims(declared: &Running) -> Vec<Claim> {
    let Compiled { streams, derived, tables, views } = &declared.compiled;
    let rejected = |name: &str| (format!("{name}{REJECTED_SUFFIX}"), Usage::Writes);
    let late = |name: &str| (format!("{name}{LATE_SUFFIX}"), Usage::Writes);
    let mut claims = Vec::new();
    for stream in streams {
        let name = stream.name();
        let mut plans = derived.iter().filter(|plan| plan.stream.name() == name).peekable();
        let usage = if plans.peek().is_some() { Usage::Writes } else { Usage::Reads };
        let mut topics = vec![(stream.topic().to_string(), usage), rejected(name)];
        topics.extend(plans.any(|plan| plan.join.is_some()).then(|| late(name)));
        claims.extend(of_one(declared, (Kind::Stream, name), topics));
    }
    for table in tables {
        let Some(topic) = table.topic() else { continue };
        let topics = vec![(topic.to_string(), Usage::Reads), rejected(table.name())];
        claims.extend(of_one(declared, (Kind::Table, table.name()), topics));
    }
    for view in views {
        let topics = vec![(view.name.to_string(), Usage::WritesByKey), late(&view.name)];
        claims.extend(of_one(declared, (Kind::View, &view.name), topics));
    }
    claims
}

/// The claims of one declaration.
fn of_one(declared: &Running, (kind, name): (Kind, &str), topics: Vec<(String, Usage)>) -> Vec<Claim> {
    let owner = format!("{} {name}", kind.word());
    let release = match declared.by_sql.get(kind, name) {
        Some(_) => format!("DROP {} {name}", kind.sql()),
        None => {
            let place = declared.place_of(name).unwrap_or_default();
            format!("take it out of {place} and start again")
        }
    };
    let claim = |(topic, usage): (String, Usage)| {
        let (owner, release) = (owner.clone(), release.clone());
        Claim { topic: topic.into(), usage, owner, release }
    };
    topics.into_iter().map(claim).collect()
}
