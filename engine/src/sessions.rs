//! Sessions of a view at work in its pipeline: rows are joined with those of their groups before they are aggregated, as what a row
//! is grouped by depends on its neighbours. The rule is in `session`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMillisecondArray, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use broker::{Broker, Change, Family, Packed, Store};

use crate::emit::Outbox;
use crate::error::{EngineError, Result};
use crate::keyed::{Groups, full_group, group_of, labels_of, with_labels};
use crate::member::{Gone, LateRow, TAKEN_OUT_MAX, ViewMember, ViewStep, different};
use crate::session::{Joined, Session, join, spans};
use crate::state;

/// Rows of a step, joined. Rows are indexes into those that were given.
struct Gathered {
    groups: Groups,
    /// The key of each changed session, and its rows.
    sessions: Vec<(Vec<u8>, Vec<usize>)>,
    absorbed: Vec<Vec<u8>>,
    found: Vec<(Vec<u8>, Option<i64>)>,
    /// Rows that are late, and the start of the first session that each missed.
    late: BTreeMap<usize, i64>,
    filtered: u64,
    applied: u64,
}

/// Which sessions the rows of a step are part of.
#[derive(Default)]
struct Placed {
    /// Of each row that WHERE lets through: the start of its session.
    labels: Vec<Option<i64>>,
    sessions: Vec<(Vec<u8>, Vec<usize>)>,
    found: Vec<(Vec<u8>, Option<i64>)>,
    /// The sessions that are stored: under which key, and the start of what they are part of now.
    absorbed: HashMap<Vec<u8>, i64>,
    /// Where the changed sessions end.
    ends: HashMap<Vec<u8>, i64>,
    /// Rows that were found to be late.
    late: Vec<(usize, i64)>,
}

/// Rows that WHERE lets through, by group.
struct ByGroup {
    input: RecordBatch,
    /// Which of the given rows each of them is.
    origin: Vec<usize>,
    /// Event times and rows of each group, times ascending.
    groups: HashMap<Vec<u8>, Vec<(i64, usize)>>,
}

impl ViewMember {
    /// Applies rows to sessions and counts them in `progress`. Rows that cannot be evaluated, or whose session is full, are
    /// left out, and the others are joined once more without them.
    pub(crate) async fn apply_sessions(&mut self, rows: &RecordBatch, gap_ms: i64, store: &Store) -> Result<ViewStep> {
        let mut step = ViewStep::default();
        let mut left: Vec<usize> = (0..rows.num_rows()).collect();
        let gathered = loop {
            let part = pick(rows, &left)?;
            let refused = match self.gather(&part, gap_ms, store).await {
                Ok(gathered) => {
                    let overfull = self.codec.overfull(&gathered.groups.states)?;
                    if overfull.is_empty() {
                        break gathered;
                    }
                    let full = gathered.sessions.iter().filter(|(key, _)| overfull.contains(key));
                    full.flat_map(|(_, rows)| rows.iter().map(|row| (*row, full_group()))).collect()
                }
                Err(error) => match self.evaluate_all(&part, &HashSet::new()).await?.1.failed {
                    failed if failed.is_empty() => return Err(error),
                    failed => failed,
                },
            };
            let out: HashSet<usize> = refused.iter().map(|(row, _)| *row).collect();
            step.failed.extend(refused.into_iter().map(|(row, reason)| (left[row], reason)));
            let mut at = 0..left.len();
            left.retain(|_| at.next().is_some_and(|at| !out.contains(&at)));
        };
        // Sources are visited in the order of rows.
        step.failed.sort_by_key(|(row, _)| *row);
        step.failed.dedup_by_key(|(row, _)| *row);
        let late = |(row, window_start)| LateRow { row: left[row], window_start, counted_from: None };
        step.late = gathered.late.into_iter().map(late).collect();
        (step.absorbed, step.found) = (gathered.absorbed, gathered.found);
        self.progress.applied += gathered.applied;
        self.progress.filtered += gathered.filtered;
        self.progress.late += step.late.len() as u64;
        self.progress.failed += step.failed.len() as u64;
        if gathered.groups.states.num_rows() > 0 {
            let keys = self.codec.keys(&gathered.groups.states)?;
            self.take_in(gathered.groups, keys, &mut step)?;
        }
        Ok(step)
    }

    /// Joins rows with the stored sessions of their groups and aggregates them. A row counts with all its items or not at all: one that
    /// is late for one of them is late, which may leave others too early for an open session in turn.
    async fn gather(&self, rows: &RecordBatch, gap_ms: i64, store: &Store) -> Result<Gathered> {
        let by_group = self.by_group(rows)?;
        let mut late: BTreeMap<usize, i64> = BTreeMap::new();
        let placed = loop {
            let placed = self.place(&by_group, &late, gap_ms, store)?;
            let known = late.len();
            for (row, start) in &placed.late {
                late.entry(*row).and_modify(|first| *first = *start.min(first)).or_insert(*start);
            }
            // Without a list no row is in two groups.
            if late.len() == known || self.plan.unnest.is_none() {
                break placed;
            }
        };
        let ByGroup { input, origin, .. } = &by_group;
        let Placed { labels, sessions, found, absorbed, ends, .. } = placed;
        let partial = self.plan.aggregation.partial(counted(input, &labels)?).await?;
        let partial = self.codec.normalize(partial)?;
        let groups = self.with_stored(partial, &absorbed, &ends, store).await?;
        let counts = origin.iter().zip(&labels).filter(|(_, label)| label.is_some());
        let applied = different(&counts.map(|(row, _)| *row).collect::<Vec<usize>>()) as u64;
        let filtered = (rows.num_rows() - different(origin)) as u64;
        let absorbed = absorbed.into_keys().filter(|key| !ends.contains_key(key)).collect();
        Ok(Gathered { groups, sessions, absorbed, found, late, filtered, applied })
    }

    /// Joins the rows that are not known to be late with the stored sessions of their groups.
    fn place(
        &self,
        ByGroup { input, origin, groups }: &ByGroup,
        known_late: &BTreeMap<usize, i64>,
        gap_ms: i64,
        store: &Store,
    ) -> Result<Placed> {
        let mut placed = Placed { labels: vec![None; input.num_rows()], ..Placed::default() };
        for (group, times) in groups {
            let mut times = Cow::Borrowed(times);
            if !known_late.is_empty() {
                times.to_mut().retain(|(_, row)| !known_late.contains_key(&origin[*row]));
            }
            let stored = self.sessions_near(group, &spans(&times, gap_ms), store)?;
            let joining = join(&times, &stored, gap_ms, self.progress.closed_until);
            placed.late.extend(joining.late.into_iter().map(|(row, start)| (origin[row], start)));
            for joined in joining.joined {
                joined.rows.iter().for_each(|row| placed.labels[*row] = Some(joined.session.start_ms));
                placed.found.extend(self.found(group, &joined));
                let key = self.session_state_key(group, joined.session);
                let before = joined.absorbed.iter().map(|session| self.session_state_key(group, *session));
                placed.absorbed.extend(before.map(|key| (key, joined.session.start_ms)));
                placed.ends.insert(key.clone(), joined.session.end_ms);
                placed.sessions.push((key, joined.rows.into_iter().map(|row| origin[row]).collect()));
            }
        }
        Ok(placed)
    }

    fn by_group(&self, rows: &RecordBatch) -> Result<ByGroup> {
        let (input, origin) = self.plan.select(rows, self.progress.closed_until)?;
        let columns = self.codec.normalize(self.plan.aggregation.groups_of(&input)?)?;
        let (times, keys) = (labels_of(&columns)?, self.codec.groups(&columns)?);
        let mut groups: HashMap<Vec<u8>, Vec<(i64, usize)>> = HashMap::new();
        for (row, time_ms) in times.values().iter().enumerate() {
            let group = group_of(&keys, row);
            match groups.get_mut(group) {
                Some(rows) => rows.push((*time_ms, row)),
                None => drop(groups.insert(group.to_vec(), vec![(*time_ms, row)])),
            }
        }
        groups.values_mut().for_each(|rows| rows.sort_unstable());
        Ok(ByGroup { input, origin, groups })
    }

    /// The stored sessions of a group that meet one of the spans, by their starts.
    fn sessions_near(&self, group: &[u8], spans: &[Session], store: &Store) -> Result<Vec<Session>> {
        let to = state::session_key(self.view_id, group, i64::MAX);
        let mut near: Vec<Session> = Vec::new();
        for span in spans {
            // What ends before the span, and what the span before has met, is left out.
            let from = near.last().map_or(span.start_ms, |last| span.start_ms.max(last.end_ms.saturating_add(1)));
            let mut scan = store.scan(Family::State, &state::session_key(self.view_id, group, from), &to);
            while let Some(entry) = scan.next_ref() {
                let (key, value) = entry?;
                let (end_ms, start_ms) = state::decode_session(key, value)?;
                if start_ms > span.end_ms {
                    break;
                }
                near.push(Session { start_ms, end_ms });
            }
        }
        Ok(near)
    }

    fn session_state_key(&self, group: &[u8], session: Session) -> Vec<u8> {
        [&state::state_bound(self.view_id, session.start_ms), group].concat()
    }

    /// Where a session is found from now on, and those that it is made of no more.
    fn found(&self, group: &[u8], joined: &Joined) -> Vec<(Vec<u8>, Option<i64>)> {
        let key = |session: &Session| state::session_key(self.view_id, group, session.end_ms);
        let gone = joined.absorbed.iter().filter(|session| session.end_ms != joined.session.end_ms);
        let now = (key(&joined.session), Some(joined.session.start_ms));
        gone.map(|session| (key(session), None)).chain([now]).collect()
    }

    /// States of the step's rows, merged with those of the sessions that they have joined.
    async fn with_stored(
        &self,
        partial: RecordBatch,
        absorbed: &HashMap<Vec<u8>, i64>,
        ends: &HashMap<Vec<u8>, i64>,
        store: &Store,
    ) -> Result<Groups> {
        let mut keys = Packed::default();
        absorbed.keys().for_each(|key| keys.push(&[key]));
        let places: Vec<usize> = (0..keys.len()).collect();
        let stored = self.stored(&keys, &places, store)?;
        if stored.len() < absorbed.len() {
            return Err(EngineError::bug("a session is found by its group and has no state"));
        }
        let entries = || stored.iter().map(|(at, value)| (keys.get(*at), value.as_ref()));
        let before = self.codec.decode(entries())?.states;
        let starts = entries().map(|(key, _)| absorbed[key]).collect();
        let all = [with_labels(&before, starts)?, partial];
        let states = self.plan.aggregation.reduce(concat_batches(self.codec.schema(), &all)?).await?;
        let end = |key: &[u8]| ends.get(key).copied().ok_or_else(|| EngineError::bug("a session has no end"));
        let ends: Vec<i64> = self.codec.keys(&states)?.iter().map(end).collect::<Result<_>>()?;
        Ok(Groups { states, ends: Some(TimestampMillisecondArray::from(ends).with_timezone("UTC")) })
    }

    /// Takes sessions out of the view and of its topic that ended by then, but for those of the step.
    pub(crate) fn take_out_sessions(&self, cutoff: i64, step: &ViewStep, broker: &Broker) -> Result<Gone> {
        let (from, _) = state::state_range(self.view_id);
        let touched: HashSet<&[u8]> = step.groups.keys().chain(step.absorbed.iter().map(Vec::as_slice)).collect();
        let (mut keys, mut changes): (Vec<Vec<u8>>, Vec<Change>) = (Vec::new(), Vec::new());
        // None ends before it starts.
        let mut scan = broker.store().scan(Family::State, &from, &state::state_bound(self.view_id, cutoff));
        while let Some(entry) = scan.next_ref() {
            let (key, value) = entry?;
            let end_ms = self.codec.end_of(value)?;
            if end_ms > cutoff || touched.contains(key) {
                continue;
            }
            let (_, group) = state::split_state_key(key)?;
            changes.push(Change::Delete(Family::State, state::session_key(self.view_id, group, end_ms)));
            changes.push(Change::Delete(Family::State, key.to_vec()));
            if self.is_silent {
                // It goes untold.
                let listed = [&state::untold_bound(self.view_id, end_ms), group].concat();
                changes.push(Change::Delete(Family::State, listed));
            }
            keys.push(key.to_vec());
            if keys.len() == TAKEN_OUT_MAX {
                break;
            }
        }
        let is_all = keys.len() < TAKEN_OUT_MAX;
        let mut outbox = Outbox::to(broker, &self.plan.name)?;
        self.push_gone(&mut outbox, &keys, broker)?;
        changes.extend(outbox.finish());
        Ok(Gone { changes, is_all })
    }
}

fn pick(rows: &RecordBatch, which: &[usize]) -> Result<RecordBatch> {
    if which.len() == rows.num_rows() {
        return Ok(rows.clone());
    }
    Ok(take_record_batch(rows, &UInt64Array::from_iter_values(which.iter().map(|row| *row as u64)))?)
}

/// The rows that count, under the starts of their sessions.
fn counted(input: &RecordBatch, labels: &[Option<i64>]) -> Result<RecordBatch> {
    let rows: Vec<usize> = (0..labels.len()).filter(|row| labels[*row].is_some()).collect();
    let starts: Vec<i64> = labels.iter().flatten().copied().collect();
    let counted = pick(input, &rows)?;
    let mut arrays = counted.columns().to_vec();
    let last = arrays.len() - 1;
    arrays[last] = Arc::new(TimestampMillisecondArray::from(starts).with_timezone("UTC"));
    Ok(RecordBatch::try_new(counted.schema(), arrays)?)
}
