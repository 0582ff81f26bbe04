//! Windows that are told to the view's topic when they are closed, once, with what they counted in the end; they leave view and topic
//! when their retention is over. Both go on in commits of their own, between the steps, some windows at a time; how far they have come
//! is in the same commits. Here are those that overlap; the others are in `finals`.

use broker::{Broker, Change, Family};

use crate::emit::{Outbox, push_gone, push_groups, refused_changes, unfinished};
use crate::error::Result;
use crate::keyed::Groups;
use crate::member::{Gone, ViewMember};
use crate::parse_emit::Emit;
use crate::spread::WindowScan;
use crate::state::{self, Mark};
use crate::windows::{Hop, Windows};

impl ViewMember {
    /// What the next commit writes about closed windows; None when nothing is left to do.
    pub(crate) fn tell_closed(&mut self, broker: &Broker) -> Result<Option<Vec<Change>>> {
        let closed_until = self.progress.closed_until.filter(|_| self.plan.emit == Emit::Final);
        let Some(closed_until) = closed_until else { return Ok(None) };
        match self.plan.windows {
            Some(Windows::Hop(hop)) => self.tell_windows(hop, closed_until, broker),
            _ => self.tell_groups(closed_until, broker),
        }
    }

    fn tell_windows(&mut self, hop: Hop, closed_until: i64, broker: &Broker) -> Result<Option<Vec<Change>>> {
        let open = hop.first_open(closed_until);
        if !self.is_silent {
            if self.mark.told < open
                && let Some(changes) = self.tell(hop, open, broker)?
            {
                return Ok(Some(changes));
            }
            // Nothing more was in those windows, so nothing about them need be written down.
            self.mark.told = self.mark.told.max(open);
        }
        let Some(cutoff) = self.retire_cutoff() else { return Ok(None) };
        let mut gone = self.take_out_windows(hop, hop.first_open(cutoff), broker)?;
        if gone.is_all {
            self.retired_until = cutoff;
            let (from, _) = state::state_range(self.view_id);
            let until = state::state_bound(self.view_id, hop.pane_end(hop.panes(self.mark.gone).0));
            gone.changes.push(Change::DeleteRange(Family::State, from, until));
        }
        Ok(Some(gone.changes))
    }

    /// Tells some of the windows before `to`.
    fn tell(&mut self, hop: Hop, to: i64, broker: &Broker) -> Result<Option<Vec<Change>>> {
        let snapshot = broker.store().snapshot();
        // What went while its topic heard nothing is not told.
        let from = self.mark.told.max(self.mark.gone);
        let mut scan = WindowScan::new((&self.plan, &self.codec), hop, (from, to));
        let Some(states) = scan.next(&snapshot)? else { return Ok(None) };
        let told = scan.at;
        drop(snapshot);
        let mut changes = self.tell_final(Groups { states, ends: None }, broker)?;
        self.mark.told = told;
        changes.push(self.mark_change());
        Ok(Some(changes))
    }

    /// What tells the view's topic of groups that are final, and `<stream>.rejected` of those that cannot be computed.
    pub(crate) fn tell_final(&self, groups: Groups, broker: &Broker) -> Result<Vec<Change>> {
        let now_ms = broker.clock().now_ms();
        let finished = self.plan.finish(groups)?;
        let mut outbox = Outbox::to(broker, &self.plan.name)?;
        push_groups(&mut outbox, &self.plan, &finished, now_ms)?;
        let mut changes = outbox.finish();
        if !finished.failed.is_empty() {
            let refused = unfinished(&self.plan, &finished, &finished.failed, now_ms)?;
            changes.extend(refused_changes(broker, self.plan.stream.name(), &refused, now_ms)?);
        }
        Ok(changes)
    }

    /// Takes windows before `to` out of the view's topic and of what is read; their panes stay.
    pub(crate) fn take_out_windows(&mut self, hop: Hop, to: i64, broker: &Broker) -> Result<Gone> {
        let snapshot = broker.store().snapshot();
        let mut scan = WindowScan::new((&self.plan, &self.codec), hop, (self.mark.gone, to));
        let states = scan.next(&snapshot)?;
        self.mark = Mark { gone: scan.at.max(self.mark.gone), ..self.mark };
        let mut outbox = Outbox::to(broker, &self.plan.name)?;
        if let Some(states) = states.as_ref().filter(|_| !self.is_silent) {
            push_gone(&mut outbox, &self.plan, &self.plan.keys_alone(states)?, broker.clock().now_ms())?;
        }
        let mut changes = outbox.finish();
        changes.push(self.mark_change());
        Ok(Gone { changes, is_all: states.is_none() })
    }

    fn mark_change(&self) -> Change {
        Change::Put(Family::State, state::mark_key(self.view_id), self.mark.encode())
    }
}
