//! Data quality, counted: how many records each rule let through, refused or warned about, per day of the records' own
//! timestamps. The counters are written in the commit of the step that they speak of, so each record counts once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, TimestampMillisecondArray};
use broker::{Broker, Change, Family, Store, TimestampMs};

use crate::error::{EngineError, ErrorKind, Result};
use crate::member::LateRow;
use crate::state;
use crate::stream::{META_COLUMNS, Rejected};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// Counters that a writer keeps in memory.
const KNOWN_MAX: usize = 4_096;
/// Most counters that one look at them gives.
const COUNTERS_MAX: usize = 1_000_000;
/// The rule of records that nothing was wrong with.
pub(crate) const ACCEPTED: &str = "accepted";
/// The rule of rows that a source has published before.
pub(crate) const DUPLICATE: &str = "duplicate";
/// The rule of a view's or joined stream's late rows.
pub(crate) const LATE: &str = "late";
/// The rule of rows, and groups, that a view could not evaluate.
pub(crate) const FAILED: &str = "failed";

/// What became of the records that a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QualityAction {
    /// They are rows.
    Accept,
    /// They are in `<stream>.rejected`.
    Reject,
    /// They are rows, but a check with `action = "warn"` was not met.
    Warn,
    /// They are rows, but too late for a view or a join: they are in `<view>.late` or `<joined stream>.late`.
    Late,
    /// They are rows, but a view could not evaluate them: they are in `<stream>.rejected`.
    Failed,
    /// They were there before: a source did not publish them again.
    Skip,
}

/// How many records of a day a rule applied to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QualityCount {
    /// The stream, table or source.
    pub stream: String,
    /// Days since 1970-01-01 (UTC) of the records' timestamps; a record without one, or with one in the future, counts
    /// for the day it was read.
    pub day: i32,
    /// What became of the records.
    pub action: QualityAction,
    /// `accepted`, a built-in rule, a check, `late:<view>` or `failed:<view>`.
    pub rule: String,
    /// The records.
    pub records: u64,
}

/// Where the bytes of a derived stream's further SELECTs begin.
const BRANCH_WRITERS: u8 = 0x10;

/// Who counts: each writes keys of its own, so that no two pipelines write the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The reading of a stream's topic.
    Stream = 0,
    /// The computing of a derived stream.
    Derived = 1,
    /// A view.
    View = 2,
    /// The reading of a table's topic.
    Table = 3,
    /// The reading of a source's files.
    Source = 4,
    /// A version of a view that is filled beside the one that is served: nobody is told of its counts yet.
    Successor = 5,
}

/// The counts of one step.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: BTreeMap<(i32, QualityAction, Arc<str>), u64>,
}

/// One writer's counters. Holds: those counted lately, as stored. Its pipeline alone changes it, and stops when a commit
/// fails; after a crash counts are read from the store again.
pub(crate) struct Counters {
    prefix: Vec<u8>,
    known: HashMap<Vec<u8>, u64>,
}

impl QualityAction {
    const ALL: [QualityAction; 6] = [
        QualityAction::Accept,
        QualityAction::Reject,
        QualityAction::Warn,
        QualityAction::Late,
        QualityAction::Failed,
        QualityAction::Skip,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            QualityAction::Accept => "accept",
            QualityAction::Reject => "reject",
            QualityAction::Warn => "warn",
            QualityAction::Late => "late",
            QualityAction::Failed => "failed",
            QualityAction::Skip => "skip",
        }
    }
}

/// The day a record counts for.
pub(crate) fn day_of(timestamp: Option<TimestampMs>, now_ms: TimestampMs) -> i32 {
    let ms = timestamp.filter(|ms| (0..=now_ms).contains(ms)).unwrap_or(now_ms);
    i32::try_from(ms.div_euclid(DAY_MS)).unwrap_or(0)
}

/// The timestamps of a stream's rows.
pub(crate) fn timestamps(rows: &RecordBatch) -> Option<&TimestampMillisecondArray> {
    rows.column_by_name(META_COLUMNS[1])?.as_any().downcast_ref()
}

/// The day of each row of a stream.
pub(crate) fn days(rows: &RecordBatch, now_ms: TimestampMs) -> Vec<i32> {
    match timestamps(rows) {
        Some(times) => times.iter().map(|timestamp| day_of(timestamp, now_ms)).collect(),
        None => vec![day_of(None, now_ms); rows.num_rows()],
    }
}

impl Tally {
    /// Adds records.
    pub(crate) fn add(&mut self, day: i32, action: QualityAction, rule: &Arc<str>, records: u64) {
        if records > 0 {
            *self.counts.entry((day, action, rule.clone())).or_default() += records;
        }
    }

    /// Adds a record for each of these days.
    pub(crate) fn add_days(&mut self, days: impl Iterator<Item = i32>, action: QualityAction, rule: &Arc<str>) {
        // Days come in runs: one look at the map per run.
        let mut run: Option<(i32, u64)> = None;
        for day in days {
            match &mut run {
                Some((of, count)) if *of == day => *count += 1,
                _ => {
                    let before = run.replace((day, 1));
                    before.into_iter().for_each(|(of, count)| self.add(of, action, rule, count));
                }
            }
        }
        run.into_iter().for_each(|(of, count)| self.add(of, action, rule, count));
    }

    /// Adds refused records.
    pub(crate) fn add_rejected(&mut self, rejected: &[Rejected], now_ms: TimestampMs) {
        for record in rejected {
            let day = day_of(Some(record.timestamp), now_ms);
            self.add(day, QualityAction::Reject, &record.rule, record.records.unsigned_abs());
        }
    }

    /// Adds rows that came too late for a view, or that it could not evaluate.
    pub(crate) fn add_view(&mut self, days: &[i32], late: &[LateRow], failed: &[(usize, String)]) {
        self.add_days(late.iter().map(|late| days[late.row]), QualityAction::Late, &LATE.into());
        self.add_days(failed.iter().map(|(row, _)| days[*row]), QualityAction::Failed, &FAILED.into());
    }
}

impl Counters {
    pub(crate) fn new(writer: Writer, name: &str) -> Counters {
        Counters { prefix: state::quality_prefix(writer as u8, name), known: HashMap::new() }
    }

    /// Those of one SELECT of a derived stream. Each has its own, as they may be in different pipelines.
    pub(crate) fn of_branch(stream: &str, branch: u8) -> Counters {
        Counters { prefix: state::quality_prefix(branch_writer(branch), stream), known: HashMap::new() }
    }

    /// The changes that add a step's counts to what is stored.
    pub(crate) fn changes(&mut self, tally: Tally, store: &Store) -> Result<Vec<Change>> {
        let mut changes = Vec::with_capacity(tally.counts.len());
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        for ((day, action, rule), records) in tally.counts {
            let key = state::quality_key(&self.prefix, day, action as u8, &rule);
            let before = match self.known.get(&key) {
                Some(known) => *known,
                None => store.get(Family::State, &key)?.as_deref().map_or(Ok(0), state::decode_count)?,
            };
            let after = before.saturating_add(records);
            self.known.insert(key.clone(), after);
            changes.push(Change::Put(Family::State, key, after.to_be_bytes().to_vec()));
        }
        Ok(changes)
    }
}

/// What makes the counts of a view's successor those of the view.
pub(crate) fn succeed(view: &str, store: &Store) -> Result<Vec<Change>> {
    let [from, to] = [Writer::Successor, Writer::View].map(|writer| state::quality_prefix(writer as u8, view));
    let mut changes = vec![forget(Writer::View, view)];
    for entry in store.scan(Family::State, &from, &state::after(&from)) {
        let (key, count) = entry?;
        changes.push(Change::Put(Family::State, [&to, &key[from.len()..]].concat(), count.to_vec()));
    }
    changes.push(forget(Writer::Successor, view));
    Ok(changes)
}

/// The byte of a further SELECT is beyond those of all writers.
fn branch_writer(branch: u8) -> u8 {
    match branch {
        0 => Writer::Derived as u8,
        branch => BRANCH_WRITERS + branch,
    }
}

/// What forgets all counts of a derived stream's SELECT.
pub(crate) fn forget_branch(stream: &str, branch: u8) -> Change {
    state::delete_below(state::quality_prefix(branch_writer(branch), stream))
}

/// What forgets all counts of a writer.
pub(crate) fn forget(writer: Writer, name: &str) -> Change {
    state::delete_below(state::quality_prefix(writer as u8, name))
}

/// All counters, by stream, day, action and rule. `stream_of` gives the stream of a view. Blocks.
pub(crate) fn read(broker: &Broker, stream_of: impl Fn(&str) -> Option<String>) -> Result<Vec<QualityCount>> {
    let (from, to) = state::quality_range();
    let mut counts: BTreeMap<(String, i32, QualityAction, String), u64> = BTreeMap::new();
    let snapshot = broker.store().snapshot();
    let mut scan = snapshot.scan(Family::State, &from, &to);
    while let Some(entry) = scan.next_ref() {
        let (key, value) = entry?;
        let (writer, name, day, action, rule) = state::split_quality_key(key)?;
        if writer == Writer::Successor as u8 {
            continue;
        }
        let Some(action) = QualityAction::ALL.get(usize::from(action)).copied() else { continue };
        let is_view = writer == Writer::View as u8;
        let stream = if is_view { stream_of(name).unwrap_or_else(|| name.to_string()) } else { name.to_string() };
        let rule = if is_view { format!("{rule}:{name}") } else { rule.to_string() };
        *counts.entry((stream, day, action, rule)).or_default() += state::decode_count(value)?;
        if counts.len() > COUNTERS_MAX {
            return Err(EngineError::new(ErrorKind::TooLarge, "more than a million counters of data quality"));
        }
    }
    let count = |((stream, day, action, rule), records)| QualityCount { stream, day, action, rule, records };
    Ok(counts.into_iter().map(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_for_its_own_day_unless_that_is_still_to_come() {
        let now_ms = 10 * DAY_MS + 5;
        let cases = [
            (Some(0), 0),
            (Some(DAY_MS - 1), 0),
            (Some(DAY_MS), 1),
            (Some(now_ms + 1), 10),
            (Some(-1), 10),
            (None, 10),
        ];
        for (timestamp, day) in cases {
            assert_eq!(day_of(timestamp, now_ms), day, "{timestamp:?}");
        }
    }

    #[test]
    fn runs_of_days_add_up() {
        let mut tally = Tally::default();
        tally.add_days([1, 1, 2, 1, 1].into_iter(), QualityAction::Accept, &ACCEPTED.into());
        tally.add_days([2].into_iter(), QualityAction::Accept, &ACCEPTED.into());
        let counts: Vec<_> = tally.counts.into_iter().map(|((day, ..), count)| (day, count)).collect();
        assert_eq!(counts, [(1, 4), (2, 2)]);
    }
}
