//! What the topic of a view still has to hear when another version of the view has taken over, a bounded portion a commit: tombstones for
//! keys that only the former version had, then the rows of the new one. How far that is goes down with each portion, so
//! that a start goes on with it; steps of the new version go on in between, as whatever they write to a key comes after, or is
//! written once more. The former version's state is removed when nobody reads it any more.
//!
//! Where both versions have the same keys and windows, a key that stays gets no tombstone. Where they differ, or the new one tells windows
//! when they are closed, all keys of the former go first. Windows that are final are told by `closing` and `finals` once they have.

use std::sync::{Arc, Weak};

use broker::{Broker, Change, Family};

use crate::emit::{Outbox, push_gone, push_groups};
use crate::error::{EngineError, Result};
use crate::identity::{definition_of, former_plan};
use crate::member::{TAKEN_OUT_MAX, ViewMember};
use crate::parse_emit::Emit;
use crate::shared::RunningView;
use crate::spread::WindowScan;
use crate::state::{self, Progress, StoredTelling};
use crate::stream::Stream;
use crate::view::ViewPlan;
use crate::windows::Windows;

/// Groups that one commit tells of.
const PORTION_GROUPS: usize = if cfg!(test) { 50 } else { TAKEN_OUT_MAX };
/// Bytes of their states, at most a group more.
const PORTION_BYTES: usize = 8 << 20;
/// How long the state of a former version stays for who still reads it.
const READERS_WAIT_MS: i64 = 60_000;

/// What is told next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Which keys are gone.
    Tombstones = 0,
    /// The rows that are there.
    Rows = 1,
    /// Nothing: the former version's state goes.
    Removal = 2,
}

impl Stage {
    /// The stage of what is stored. One that is not known tells all once more.
    pub(crate) fn of(stored: &StoredTelling) -> Stage {
        match stored.stage {
            1 => Stage::Rows,
            2 => Stage::Removal,
            _ => Stage::Tombstones,
        }
    }

    /// Whether the topic has heard all.
    pub(crate) fn is_told(self) -> bool {
        self == Stage::Removal
    }
}

/// The telling of one view. Holds: the former version, and how far the topic is. Only the view's pipeline changes it; what it has come
/// to is in the commits of the portions.
pub(crate) struct Telling {
    /// Only its keys are looked at; None when nothing of it is to be told any more.
    former: Option<ViewMember>,
    definition: state::Definition,
    pub(crate) stage: Stage,
    cursor: Vec<u8>,
    /// Who may still read the former version.
    readers: Weak<RunningView>,
    began_ms: i64,
}

impl Telling {
    /// When a version takes over from one that is running.
    pub(crate) fn begin(former: &Arc<RunningView>, broker: &Broker) -> Result<Telling> {
        let (plan, view_id) = (former.plan.clone(), former.view_id);
        Ok(Telling {
            definition: definition_of(&plan, view_id),
            former: Some(ViewMember::new(plan, view_id, Progress::default(), broker.store())?),
            stage: Stage::Tombstones,
            cursor: Vec::new(),
            readers: Arc::downgrade(former),
            began_ms: broker.clock().steady_ms(),
        })
    }

    /// At a start: what is left of it.
    ///
    /// # Errors
    /// `Storage`; `Bug` when the former version cannot be compiled, which `identity` has made sure of.
    pub(crate) fn load(view: &str, streams: &[Arc<Stream>], broker: &Broker) -> Result<Option<Telling>> {
        let stored = broker.store().get(Family::State, &state::telling_key(view))?;
        let Some(stored) = stored.as_deref().and_then(StoredTelling::decode) else { return Ok(None) };
        let stage = Stage::of(&stored);
        let former = match former_plan(&stored.former, streams) {
            _ if stage.is_told() => None,
            Some(plan) => Some(ViewMember::new(plan, stored.former.view_id, Progress::default(), broker.store())?),
            None => return Err(EngineError::bug(format!("the former version of view {view} cannot be compiled"))),
        };
        Ok(Some(Telling {
            former,
            definition: stored.former,
            stage,
            cursor: stored.cursor,
            readers: Weak::new(),
            began_ms: broker.clock().steady_ms(),
        }))
    }

    /// Whether the topic must not hear of the new version yet.
    pub(crate) fn silences(&self, plan: &ViewPlan) -> bool {
        self.stage == Stage::Tombstones && plan.emit == Emit::Final
    }

    /// What the next commit tells of the new version `member`, and how far that is.
    pub(crate) fn portion(&mut self, member: &ViewMember, broker: &Broker) -> Result<Vec<Change>> {
        let mut outbox = Outbox::to(broker, &member.plan.name)?;
        let mut room = PORTION_GROUPS;
        while room > 0 && !self.stage.is_told() {
            let told = match self.stage {
                Stage::Tombstones => self.tell_gone(member, room, (broker, &mut outbox))?,
                _ => self.tell_rows(member, room, (broker, &mut outbox))?,
            };
            match told {
                Some(groups) => room = room.saturating_sub(groups),
                None => self.end_stage(member),
            }
        }
        let mut changes = outbox.finish();
        let (stage, cursor, former) = (self.stage as u8, self.cursor.clone(), self.definition.clone());
        let stored = StoredTelling { stage, cursor, former };
        changes.push(Change::Put(Family::State, state::telling_key(&member.plan.name), stored.encode()));
        Ok(changes)
    }

    fn end_stage(&mut self, member: &ViewMember) {
        self.stage = match (self.stage, member.plan.emit) {
            (Stage::Tombstones, Emit::Changes) => Stage::Rows,
            _ => Stage::Removal,
        };
        self.cursor.clear();
        if self.stage.is_told() {
            self.former = None;
        }
    }

    /// Tombstones for some keys that only the former version has; gives of how many groups it was, None at the end.
    fn tell_gone(
        &mut self,
        member: &ViewMember,
        room: usize,
        (broker, outbox): (&Broker, &mut Outbox),
    ) -> Result<Option<usize>> {
        let Some(former) = &self.former else { return Ok(None) };
        if let Some(Windows::Hop(hop)) = former.plan.windows {
            let from = self.cursor.first_chunk().map_or(former.mark.gone, |number| i64::from_be_bytes(*number));
            let snapshot = broker.store().snapshot();
            let mut scan = WindowScan::new((&former.plan, &former.codec), hop, (from, former.mark.told));
            let Some(states) = scan.next(&snapshot)? else { return Ok(None) };
            push_gone(outbox, &former.plan, &former.plan.keys_alone(&states)?, broker.clock().now_ms())?;
            self.cursor = scan.at.to_be_bytes().to_vec();
            return Ok(Some(states.num_rows()));
        }
        let (from, to) = state::state_range(former.view_id);
        let from = from.max(self.cursor.clone());
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut scan = broker.store().scan(Family::State, &from, &to);
        while keys.len() < room
            && let Some(entry) = scan.next_ref()
        {
            keys.push(entry?.0.to_vec());
        }
        let Some(last) = keys.last() else { return Ok(None) };
        self.cursor = behind(last);
        let groups = keys.len();
        if have_same_keys(former, member) {
            keys = without_kept(former, member, keys, broker)?;
        }
        former.push_gone(outbox, &keys, broker)?;
        Ok(Some(groups))
    }

    /// Rows of some groups of the new version; gives how many, None at the end.
    fn tell_rows(
        &mut self,
        member: &ViewMember,
        room: usize,
        (broker, outbox): (&Broker, &mut Outbox),
    ) -> Result<Option<usize>> {
        let (from, to) = state::state_range(member.view_id);
        let from = from.max(self.cursor.clone());
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        let mut scan = broker.store().scan(Family::State, &from, &to);
        while entries.len() < room
            && bytes < PORTION_BYTES
            && let Some(entry) = scan.next_ref()
        {
            let (key, value) = entry?;
            bytes += key.len() + value.len();
            entries.push((key.to_vec(), value.to_vec()));
        }
        let Some((last, _)) = entries.last() else { return Ok(None) };
        self.cursor = behind(last);
        let groups = member.codec.decode(entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))?;
        let finished = member.plan.finish(groups)?;
        push_groups(outbox, &member.plan, &finished, broker.clock().now_ms())?;
        // A portion has its bytes too.
        Ok(Some(if bytes < PORTION_BYTES { entries.len() } else { room }))
    }

    /// What removes the former version's state, once nobody reads it or that took too long.
    pub(crate) fn removal(&self, view: &str, broker: &Broker) -> Option<Vec<Change>> {
        let waited_ms = broker.clock().steady_ms().saturating_sub(self.began_ms);
        if self.readers.strong_count() > 0 && waited_ms < READERS_WAIT_MS {
            return None;
        }
        let mut changes = state::forget_whole(self.definition.view_id);
        changes.push(Change::Delete(Family::State, state::telling_key(view)));
        Some(changes)
    }
}

/// The first key behind this one.
fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Whether a group of one version has the same key in the topic as that of the other with the same window and keys, and will be told.
fn have_same_keys(former: &ViewMember, member: &ViewMember) -> bool {
    let (before, now) = (&former.plan, &member.plan);
    let identity = |plan: &ViewPlan| plan.schema.fields()[..plan.identity_columns()].to_vec();
    let groups = |member: &ViewMember| {
        let count = member.plan.aggregation.group_count();
        let fields = member.codec.schema().fields()[..count].iter();
        fields.map(|field| field.data_type().clone()).collect::<Vec<_>>()
    };
    now.emit == Emit::Changes
        && before.windows == now.windows
        && identity(before) == identity(now)
        && groups(former) == groups(member)
}

/// The keys whose groups the new version does not have.
fn without_kept(former: &ViewMember, member: &ViewMember, keys: Vec<Vec<u8>>, broker: &Broker) -> Result<Vec<Vec<u8>>> {
    let groups = former.codec.decode_keys(keys.iter().map(Vec::as_slice))?;
    let own = member.codec.keys(&groups)?;
    let found = broker.store().get_many(Family::State, &own.iter().collect::<Vec<_>>())?;
    Ok(keys.into_iter().zip(found).filter(|(_, found)| found.is_none()).map(|(key, _)| key).collect())
}
