//! `EMIT FINAL` of windows that do not overlap: each group is told when its window is closed, and goes when its retention is over,
//! as those of `closing` are.
//!
//! Groups of TUMBLE lie in the order of their windows' ends, and a closed window gets none more, so one key tells how far they are
//! told; it is stored with what was told. Sessions lie by their starts. Those that are not told are listed by their ends, and one leaves the
//! list when it is told, so that for them the key in memory only saves looking at what has left.

use broker::{Broker, Change, Family};

use crate::error::{EngineError, Result};
use crate::member::{Gone, TAKEN_OUT_MAX, ViewMember, ViewStep};
use crate::state;
use crate::windows::Windows;

/// Bytes of states that one commit tells of, at most a group more.
const TOLD_BYTES: usize = 8 << 20;

/// Keys and values of states.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

impl ViewMember {
    /// What the next commit writes about groups of closed windows; None when nothing is left to do.
    pub(crate) fn tell_groups(&mut self, closed_until: i64, broker: &Broker) -> Result<Option<Vec<Change>>> {
        let is_session = matches!(self.plan.windows, Some(Windows::Session(_)));
        let open = closed_until.saturating_add(1);
        let to = match is_session {
            true => state::untold_bound(self.view_id, open),
            false => state::state_bound(self.view_id, open),
        };
        if self.told < to && !self.is_silent {
            let told = if is_session { self.tell_sessions(&to, broker)? } else { self.tell_tumbling(&to, broker)? };
            if told.is_some() {
                return Ok(told);
            }
            // Nothing more was in those windows, so nothing about them need be written down.
            self.told = to;
        }
        let Some(cutoff) = self.retire_cutoff() else { return Ok(None) };
        let Gone { changes, is_all } = match is_session {
            true => self.take_out_sessions(cutoff, &ViewStep::default(), broker)?,
            false => self.take_out(&state::state_bound(self.view_id, cutoff), broker)?,
        };
        if is_all {
            self.retired_until = cutoff;
        }
        Ok(Some(changes))
    }

    /// Tells some of the groups before `to`.
    fn tell_tumbling(&mut self, to: &[u8], broker: &Broker) -> Result<Option<Vec<Change>>> {
        let from = state::state_range(self.view_id).0.max(self.told.clone());
        let (mut entries, mut bytes, mut told) = (Entries::new(), 0, to.to_vec());
        let mut scan = broker.store().scan(Family::State, &from, to);
        while let Some(entry) = scan.next_ref() {
            let (key, value) = entry?;
            if entries.len() == TAKEN_OUT_MAX || bytes >= TOLD_BYTES {
                told = key.to_vec();
                break;
            }
            bytes += key.len() + value.len();
            entries.push((key.to_vec(), value.to_vec()));
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let mut changes = self.tell_entries(&entries, broker)?;
        changes.push(Change::Put(Family::State, state::mark_key(self.view_id), told.clone()));
        self.told = told;
        Ok(Some(changes))
    }

    /// Tells some of the listed sessions before `to`.
    fn tell_sessions(&self, to: &[u8], broker: &Broker) -> Result<Option<Vec<Change>>> {
        let store = broker.store();
        let from = state::untold_bound(self.view_id, i64::MIN).max(self.told.clone());
        let (mut entries, mut bytes, mut leaving) = (Entries::new(), 0, Vec::new());
        let mut scan = store.scan(Family::State, &from, to);
        while entries.len() < TAKEN_OUT_MAX && bytes < TOLD_BYTES {
            let Some(entry) = scan.next_ref() else { break };
            let (listed, start) = entry?;
            let key = state::untold_state(listed, start)?;
            let value = store.get(Family::State, &key)?;
            let value = value.ok_or_else(|| EngineError::bug("a session is listed and has no state"))?;
            bytes += key.len() + value.len();
            entries.push((key, value));
            leaving.push(Change::Delete(Family::State, listed.to_vec()));
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let mut changes = self.tell_entries(&entries, broker)?;
        changes.extend(leaving);
        Ok(Some(changes))
    }

    fn tell_entries(&self, entries: &[(Vec<u8>, Vec<u8>)], broker: &Broker) -> Result<Vec<Change>> {
        let groups = self.codec.decode(entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))?;
        self.tell_final(groups, broker)
    }
}
