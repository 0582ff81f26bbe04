//! What lies in `meta` beside topics and logs: a server reads all of it at its start, and does not start where it cannot.

use super::Check;
use super::finding::{Kind, Place, Remedy};
use crate::{schema, security, settings};

const META_DAMAGED: Kind = Kind::wrong("damaged", Remedy::Restore);

/// Reads all of it.
pub(super) fn check(check: &mut Check<'_>) {
    let store = check.store;
    let read = [
        ("schemas", schema::read(store).map(drop)),
        ("security", security::read(store).map(drop)),
        ("settings", settings::read(store).map(drop)),
    ];
    for (what, outcome) in read {
        if let Err(error) = outcome {
            check.add(META_DAMAGED, Place::named(what), error.message);
        }
    }
}
