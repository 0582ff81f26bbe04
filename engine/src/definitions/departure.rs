//! What a dropped stream, table or view leaves, and deleting it: topics that only it wrote, its state, its counters. The
//! row of the definition goes last, so that a crash only begins this once more.

use std::sync::Arc;

use broker::{Ack, Broker, Change, Family};

use super::statement::{Action, Declares, read_one};
use super::stored::definition_key;
use super::{Definition, Kind};
use crate::check::{LATE_SUFFIX, REJECTED_SUFFIX};
use crate::derive::{BRANCHES_MAX, forget_joined, has_joined};
use crate::error::Result;
use crate::identity::forget_all;
use crate::quality::{Writer, forget, forget_branch};
use crate::state;

/// Deletes all that is left of a dropped one. The topic of a declared stream or of a table is its user's, and stays.
pub(super) async fn clear(broker: &Arc<Broker>, kind: Kind, name: &str, definition: &Definition) -> Result<()> {
    let is_derived = kind == Kind::Stream && is_derived(definition);
    let has_joined = is_derived && has_joined(broker.store(), name)?;
    let late = has_joined.then(|| format!("{name}{LATE_SUFFIX}"));
    for topic in topics(kind, name, is_derived).into_iter().chain(late) {
        if broker.catalog().topic(&topic).is_some() {
            broker.catalog().delete(&topic).await?;
        }
    }
    let mut changes = match kind {
        Kind::View => forget_all(broker.store(), name)?,
        Kind::Stream => vec![forget(Writer::Stream, name), delete(state::stream_progress_key(name))],
        Kind::Table => {
            let rows = state::delete_below(state::table_row_prefix(name));
            vec![forget(Writer::Table, name), delete(state::table_progress_key(name)), rows]
        }
    };
    if is_derived {
        let seen = state::delete_below(state::seen_prefix(name));
        changes.push(seen);
        for branch in 0..BRANCHES_MAX {
            changes.extend([forget_branch(name, branch), delete(state::branch_progress_key(name, branch))]);
        }
        changes.extend(forget_joined(name));
    }
    changes.push(delete(definition_key(kind, name)));
    broker.lane().commit(changes, Ack::Durable).await?;
    Ok(())
}

/// The topics that nobody else writes.
fn topics(kind: Kind, name: &str, is_derived: bool) -> Vec<String> {
    match kind {
        Kind::View => vec![name.to_string(), format!("{name}{LATE_SUFFIX}")],
        Kind::Stream if is_derived => vec![name.to_string(), format!("{name}{REJECTED_SUFFIX}")],
        Kind::Stream | Kind::Table => vec![format!("{name}{REJECTED_SUFFIX}")],
    }
}

fn is_derived(definition: &Definition) -> bool {
    let Ok(Action::Create { declares, .. }) = read_one(&definition.sql, "") else { return false };
    matches!(declares, Declares::Stream(stream) if stream.sql.is_some())
}

fn delete(key: Vec<u8>) -> Change {
    Change::Delete(Family::State, key)
}
