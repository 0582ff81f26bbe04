//! The topics that all declarations live by, as the broker keeps them from clients.

use broker::{Claim, Usage};

use crate::check::{Compiled, LATE_SUFFIX, REJECTED_SUFFIX};
use crate::definitions::Kind;
use crate::running::Running;

/// Every topic that is read or written for what is declared: by whom, and what ends it.
pub(crate) fn claims(declared: &Running) -> Vec<Claim> {
    let Compiled { streams, derived, tables, views } = &declared.compiled;
    let mut claims = Vec::new();
    for stream in streams {
        let is_derived = derived.iter().any(|plan| plan.stream.name() == stream.name());
        let usage = if is_derived { Usage::Writes } else { Usage::Reads };
        let rejected = format!("{}{REJECTED_SUFFIX}", stream.name());
        let topics = [(stream.topic().to_string(), usage), (rejected, Usage::Writes)];
        claims.extend(of_one(declared, (Kind::Stream, stream.name()), topics));
    }
    for table in tables {
        let Some(topic) = table.topic() else { continue };
        let rejected = format!("{}{REJECTED_SUFFIX}", table.name());
        let topics = [(topic.to_string(), Usage::Reads), (rejected, Usage::Writes)];
        claims.extend(of_one(declared, (Kind::Table, table.name()), topics));
    }
    for view in views {
        let late = format!("{}{LATE_SUFFIX}", view.name);
        let topics = [(view.name.to_string(), Usage::WritesByKey), (late, Usage::Writes)];
        claims.extend(of_one(declared, (Kind::View, &view.name), topics));
    }
    claims
}

/// The claims of one declaration.
fn of_one(declared: &Running, (kind, name): (Kind, &str), topics: [(String, Usage); 2]) -> [Claim; 2] {
    let owner = format!("{} {name}", kind.word());
    let release = match declared.by_sql.get(kind, name) {
        Some(_) => format!("DROP {} {name}", kind.sql()),
        None => {
            let place = declared.place_of(name).unwrap_or_default();
            format!("take it out of {place} and start again")
        }
    };
    topics.map(|(topic, usage)| {
        let (owner, release) = (owner.clone(), release.clone());
        Claim { topic: topic.into(), usage, owner, release }
    })
}
