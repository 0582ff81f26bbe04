//! The streams that one SELECT of a derived stream reads: the one after FROM, and the one that it is joined to, if any.

use std::sync::Arc;

use super::parse::ParsedBranch;
use super::stream_join::JoinedStreams;
use crate::lookup::LookupTable;
use crate::names::closest;
use crate::stream::Stream;

/// Declared streams of a FROM clause.
pub(super) struct FromStreams {
    pub(super) left: Arc<Stream>,
    pub(super) right: Option<Arc<Stream>>,
}

impl FromStreams {
    /// Both, if they are two.
    pub(super) fn joined(&self, parsed: &ParsedBranch) -> Option<JoinedStreams<'_>> {
        let right = self.right.as_ref()?;
        Some(JoinedStreams { left: &self.left, right, within_ms: parsed.within_ms })
    }
}

/// Finds what a text names; Err says what there is instead.
pub(super) fn find_streams(
    parsed: &ParsedBranch,
    streams: &[Arc<Stream>],
    tables: &[Arc<LookupTable>],
) -> Result<FromStreams, String> {
    let stream = |name: &str| streams.iter().find(|stream| stream.name() == name).cloned();
    let names = || streams.iter().map(|stream| stream.name());
    let mut right = None;
    for name in &parsed.joined {
        if let Some(found) = stream(name) {
            if right.replace(found).is_some() {
                return Err(format!("{name} is a third stream: join two in a stream of their own, and {name} to that"));
            }
        } else if !tables.iter().any(|known| known.name() == name) {
            let hint = closest(name, tables.iter().map(|table| table.name()).chain(names()));
            return Err(format!("no table '{name}'{hint}: tables are declared under [[tables]]"));
        }
    }
    let wanted = &parsed.stream;
    let left = stream(wanted).ok_or_else(|| format!("no stream '{wanted}'{}", closest(wanted, names())))?;
    if right.is_none() && parsed.within_ms.is_some() {
        return Err(
            "WITHIN is for two streams: a table is joined as it is when the row is computed, leave it out".into()
        );
    }
    if right.is_some() && parsed.unnest.is_some() {
        return Err(
            "UNNEST and a join of streams: take the items out in a derived stream of its own, and join that".into()
        );
    }
    Ok(FromStreams { left, right })
}
