//! Whom rows that come could meet: looks for the rows of the other side that wait, equal and near enough, then asks the rest of ON.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::error::ArrowError;
use broker::{Family, Scan, Store};

use super::interval::{Side, is_late};
use super::stored::{JoinKeys, place_bound};
use super::stream_join::StreamJoin;
use crate::conditions::Fault;
use crate::error::Result;

/// Rows that one row may meet: a mistyped key, such as 0 for none, must not multiply all.
pub(crate) const MEETINGS_MAX: usize = if cfg!(test) { 300 } else { 10_000 };
/// Meetings of one part, at most those of one row more.
const PART_MEETINGS: usize = if cfg!(test) { 200 } else { 65_536 };
/// Bytes of stored rows that one part reads.
const PART_BYTES: usize = 32 << 20;

/// A search for the rows of one side.
pub(super) struct Search<'a> {
    pub(super) join: &'a StreamJoin,
    pub(super) stored: &'a JoinKeys,
    /// Where the rows that come are.
    pub(super) side: Side,
    pub(super) closed_until: Option<i64>,
}

/// Rows that are equal and near enough.
#[derive(Default)]
pub(super) struct Sought {
    /// Rows that were looked at.
    pub(super) taken: usize,
    /// Of them those that came too late.
    pub(super) late: Vec<usize>,
    /// For each of `found` the row that found it, ascending.
    pub(super) rows: Vec<u32>,
    /// Stored keys and values.
    pub(super) found: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Search<'_> {
    /// Row by row, until there are enough for a part. A row that would meet too many is at fault.
    pub(super) fn run(
        &self,
        (rows, keys): (&RecordBatch, &[Option<Vec<u8>>]),
        store: &Store,
        faults: &mut Vec<Fault>,
    ) -> Result<Sought> {
        let mut sought = Sought::default();
        let (from, to) = self.stored.waiting(self.side.other());
        let mut scan = store.scan(Family::State, &from, &to);
        for (row, time) in self.join.stream(self.side).event_times(rows).values().iter().enumerate() {
            if sought.found.len() >= PART_MEETINGS || sought.bytes >= PART_BYTES {
                break;
            }
            sought.taken += 1;
            if is_late(*time, self.closed_until) {
                sought.late.push(row);
                continue;
            }
            let Some(key) = &keys[row] else { continue };
            let before = sought.found.len();
            if self.find(key, self.join.interval.reach(self.side, *time), &mut scan, &mut sought)? {
                let number = u32::try_from(row).expect("a part has a few thousand rows");
                sought.rows.resize(sought.found.len(), number);
            } else {
                sought.found.truncate(before);
                let reason = format!(
                    "more than {MEETINGS_MAX} rows of stream {} have its key within the time of the join",
                    self.join.stream(self.side.other()).name()
                );
                faults.push((row, "too_many".into(), reason));
            }
        }
        Ok(sought)
    }

    /// Adds the rows that wait with a key and event times, both ends count. Whether they are not too many.
    fn find(&self, key: &[u8], (from, to): (i64, i64), scan: &mut Scan<'_>, sought: &mut Sought) -> Result<bool> {
        let interval = self.join.interval;
        let before = sought.found.len();
        for bucket in interval.bucket(from)..=interval.bucket(to) {
            let rows = [&self.stored.bucket(self.side.other(), bucket), key].concat();
            let first = [&rows[..], &place_bound(from)].concat();
            let end = [&rows[..], &place_bound(to.saturating_add(1))].concat();
            scan.seek(&first);
            while let Some(entry) = scan.next_ref() {
                let (key, value) = entry?;
                if key >= end.as_slice() {
                    break;
                }
                if sought.found.len() - before >= MEETINGS_MAX {
                    return Ok(false);
                }
                sought.bytes += value.len();
                sought.found.push((key.to_vec(), value.to_vec()));
            }
        }
        Ok(true)
    }

    /// What was found, each beside the row that found it.
    pub(super) fn beside(&self, rows: &RecordBatch, sought: &Sought) -> Result<RecordBatch> {
        if sought.rows.is_empty() {
            return Ok(self.join.none_met());
        }
        let places = UInt32Array::from(sought.rows.clone());
        let columns = rows.columns().iter().map(|column| take(column, &places, None));
        let own: Vec<ArrayRef> = columns.collect::<std::result::Result<_, ArrowError>>()?;
        let found = sought.found.iter().map(|(_, value)| value.as_slice());
        let other = self.join.decode(self.side.other(), found)?;
        match self.side {
            Side::Left => self.join.meet(own, other),
            Side::Right => self.join.meet(other, own),
        }
    }

    /// Which of the pairs meet by all that ON says; `rows` are those that came. A row with a pair that cannot be judged is at
    /// fault, and meets none.
    pub(super) fn judge(&self, near: &RecordBatch, rows: &[u32], faults: &mut Vec<Fault>) -> Result<BooleanArray> {
        if let Ok(holds) = self.join.holds(near) {
            return Ok(holds);
        }
        let (mut holds, mut from) = (Vec::with_capacity(rows.len()), 0);
        for of_row in rows.chunk_by(|one, other| one == other) {
            match self.join.holds(&near.slice(from, of_row.len())) {
                Ok(part) => holds.extend(part.iter().map(|holds| holds == Some(true))),
                Err(error) => {
                    faults.push((of_row[0] as usize, "expression".into(), error.strip_backtrace()));
                    holds.resize(from + of_row.len(), false);
                }
            }
            from += of_row.len();
        }
        Ok(BooleanArray::from(holds))
    }
}
