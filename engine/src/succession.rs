//! Another version of a view takes over in the pipeline that fills it. Until then it is a successor: it has an id and a state of its own,
//! its topic hears nothing of it, and its counts of data quality stand apart; only rows that are late for it, or that it cannot
//! evaluate, are told with its id, as they are decisions that `verify` takes as input.
//!
//! `takeover` has the version that is served leave its pipeline, then asks for the promotion. Where the successor has read all that the
//! former one had, one commit makes its state the view's, moves its counts, and tells the topic the first portion of what it lacks
//! (`telling`). So a crash leaves either the former version, and a successor that is filled on, or the new one.

use std::collections::BTreeMap;

use broker::{Ack, Change, Family, PartitionIndex};

use crate::error::Result;
use crate::identity::definition_of;
use crate::parse_emit::Emit;
use crate::pipeline::{Pipeline, PipelineView};
use crate::quality::{self, Counters, Writer};
use crate::shared::Promotion;
use crate::state::{self, Position};
use crate::telling::Telling;

/// What a view in a pipeline is to others.
pub(crate) enum Role {
    /// It is read, and its topic is told of it.
    Served,
    /// It is filled beside the version that is served.
    Successor,
    /// It is read, and its topic does not hold its rows yet, or the former version's state is still there.
    Telling(Box<Telling>),
}

impl PipelineView {
    /// Who its counts of data quality are of.
    pub(crate) fn writer(&self) -> Writer {
        if matches!(self.role, Role::Successor) { Writer::Successor } else { Writer::View }
    }

    /// Takes a role, and what follows for its topic.
    pub(crate) fn take_role(&mut self, role: Role) {
        self.member.is_silent = match &role {
            Role::Served => false,
            Role::Successor => true,
            Role::Telling(telling) => telling.silences(&self.member.plan),
        };
        self.published.set_telling(matches!(&role, Role::Telling(telling) if !telling.stage.is_told()));
        self.role = role;
    }
}

impl Pipeline {
    /// Has a successor take over where that is due, and tells topics of views that have taken over the next portion. Whether
    /// there is more to tell.
    pub(crate) async fn succeed(&mut self) -> Result<bool> {
        let mut has_more = false;
        for at in 0..self.views.len() {
            if matches!(self.views[at].role, Role::Successor) {
                let stands = self.source.positions(&BTreeMap::new());
                let is_settled = self.source.is_settled();
                let is_due = |promotion: &Promotion| is_settled && has_reached(&stands, &promotion.at);
                if let Some(promotion) = self.shared.take_promotion(is_due) {
                    self.take_over(at, promotion).await?;
                }
            }
            has_more |= self.tell_on(at).await?;
        }
        Ok(has_more)
    }

    async fn take_over(&mut self, at: usize, promotion: Promotion) -> Result<()> {
        let broker = self.broker.clone();
        let view = &mut self.views[at];
        let name = view.member.plan.name.clone();
        let mut telling = Telling::begin(&promotion.former, &broker)?;
        let definition = definition_of(&view.member.plan, view.member.view_id);
        let mut changes = vec![
            Change::Put(Family::State, state::definition_key(&name), definition.encode()),
            Change::Delete(Family::State, state::successor_key(&name)),
        ];
        changes.extend(quality::succeed(&name, broker.store())?);
        changes.extend(telling.portion(&view.member, &broker)?);
        broker.lane().commit(changes, Ack::Durable).await?;
        view.counters = Counters::new(Writer::View, &name);
        view.take_role(Role::Telling(Box::new(telling)));
        tracing::info!(view = &*name, "the new version of the view is filled and has taken over");
        let Promotion { done, former, .. } = promotion;
        drop(former);
        let _ = done.send(());
        self.tell_closed().await
    }

    /// The next portion; whether there is more.
    async fn tell_on(&mut self, at: usize) -> Result<bool> {
        let broker = self.broker.clone();
        let view = &mut self.views[at];
        let Role::Telling(telling) = &mut view.role else { return Ok(false) };
        if telling.stage.is_told() {
            if let Some(changes) = telling.removal(&view.member.plan.name, &broker) {
                broker.lane().commit(changes, Ack::Written).await?;
                view.take_role(Role::Served);
            }
            return Ok(false);
        }
        let changes = telling.portion(&view.member, &broker)?;
        broker.lane().commit(changes, self.shared.ack()).await?;
        let is_told = telling.stage.is_told();
        view.member.is_silent = telling.silences(&view.member.plan);
        if is_told {
            view.published.set_telling(false);
            if view.member.plan.emit == Emit::Final {
                self.tell_closed().await?;
            }
        }
        Ok(!is_told)
    }
}

/// Whether each partition stands at or behind the other's place. A topic that was made again has greater log ids.
fn has_reached(stands: &BTreeMap<PartitionIndex, Position>, at: &BTreeMap<PartitionIndex, Position>) -> bool {
    at.iter().all(|(index, at)| {
        let stands = stands.get(index);
        stands.is_some_and(|stands| (stands.log.0, stands.next_offset) >= (at.log.0, at.next_offset))
    })
}

#[cfg(test)]
mod tests {
    use broker::LogId;

    use super::*;

    #[test]
    fn a_place_is_reached_when_each_partition_is() {
        let positions = |all: &[(i32, u32, i64)]| {
            let position = |log, next_offset| Position { log: LogId(log), next_offset, max_event_ms: None };
            all.iter().map(|(index, log, next)| (*index, position(*log, *next))).collect::<BTreeMap<_, _>>()
        };
        let at = positions(&[(0, 3, 10), (1, 4, 0)]);
        assert!(has_reached(&positions(&[(0, 3, 10), (1, 4, 5), (2, 9, 0)]), &at));
        assert!(!has_reached(&positions(&[(0, 3, 9), (1, 4, 5)]), &at));
        assert!(!has_reached(&positions(&[(0, 3, 10)]), &at));
        // The topic was made again: the former version has not begun with it.
        assert!(has_reached(&positions(&[(0, 5, 0), (1, 6, 0)]), &at));
        assert!(!has_reached(&positions(&[(0, 3, 99), (1, 4, 5)]), &positions(&[(0, 5, 1)])));
        assert!(has_reached(&positions(&[]), &positions(&[])));
    }
}
