//! Panes → windows. A state that counts in many windows that follow each other is not copied to each of them: windows are the
//! leaves of a binary tree, the state goes to the few nodes that cover its windows just so, and nodes are handed down to
//! their halves and merged, level by level. So the work grows with the windows and panes, not with their product.

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use broker::{Family, Snapshot};
use futures::executor::block_on;

use crate::error::Result;
use crate::keyed::{StateCodec, group_of, labels_of, with_labels};
use crate::state;
use crate::view::ViewPlan;
use crate::windows::{Hop, Place};

/// States of panes that are decoded at once.
const PANES_AT_ONCE: usize = if cfg!(test) { 100 } else { 32_768 };
/// States of windows that are held at once, unless one window alone has more.
const WINDOWS_AT_ONCE: usize = if cfg!(test) { 5_000 } else { 65_536 };
/// Bytes of them, with the same exception.
const WINDOW_BYTES_AT_ONCE: usize = 128 << 20;
/// Windows that are put together at once, at least at first.
const SPAN_MIN: i64 = 16;

/// Puts the windows of a view together from its panes, some at a time, in their order. Holds: where it is.
pub(crate) struct WindowScan<'p> {
    plan: &'p ViewPlan,
    codec: &'p StateCodec,
    hop: Hop,
    /// The next window.
    pub(crate) at: i64,
    to: i64,
    span: i64,
}

impl<'p> WindowScan<'p> {
    /// Of the windows `from..to`, by their numbers.
    pub(crate) fn new((plan, codec): (&'p ViewPlan, &'p StateCodec), hop: Hop, (from, to): (i64, i64)) -> Self {
        WindowScan { plan, codec, hop, at: from, to, span: hop.overlap().max(SPAN_MIN) }
    }

    /// The states of some windows, by window and key, labelled with the windows' starts; None when there are no more.
    /// Blocks.
    pub(crate) fn next(&mut self, snapshot: &Snapshot<'_>) -> Result<Option<RecordBatch>> {
        while self.at < self.to {
            let Some(first) = self.first_with_panes(snapshot)? else { break };
            self.at = self.at.max(first);
            if self.at >= self.to {
                break;
            }
            let to = self.to.min(self.at.saturating_add(self.span));
            match self.put_together(snapshot, (self.at, to))? {
                None => self.span /= 2,
                Some(windows) => {
                    self.at = to;
                    if windows.num_rows() > 0 {
                        return Ok(Some(windows));
                    }
                }
            }
        }
        self.at = self.to;
        Ok(None)
    }

    /// The first window from here on that has a pane with rows.
    fn first_with_panes(&self, snapshot: &Snapshot<'_>) -> Result<Option<i64>> {
        let (mut from, to) = state::state_range(self.codec.view_id());
        if self.at > i64::MIN {
            from = self.bound(self.hop.panes(self.at).0);
        }
        let mut scan = snapshot.scan(Family::State, &from, &to);
        match scan.next_ref() {
            None => Ok(None),
            Some(entry) => {
                let place = self.hop.place(self.codec.label_of(entry?.0)?);
                // Rows that missed windows stand behind others in this order, but may count in earlier windows than these.
                Ok(Some(self.hop.windows(Place { missed: 0, ..place }).0))
            }
        }
    }

    /// The first key of a pane.
    fn bound(&self, pane: i64) -> Vec<u8> {
        state::state_bound(self.codec.view_id(), self.hop.pane_end(pane))
    }

    /// None when there are too many states for so many windows.
    fn put_together(&self, snapshot: &Snapshot<'_>, (from, to): (i64, i64)) -> Result<Option<RecordBatch>> {
        let (first, last) = (self.bound(self.hop.panes(from).0), self.bound(self.hop.panes(to - 1).1 + 1));
        let mut scan = snapshot.scan(Family::State, &first, &last);
        let mut windows = RecordBatch::new_empty(self.codec.schema().clone());
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            let entry = scan.next_ref().transpose()?;
            let is_last = entry.is_none();
            entries.extend(entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
            if entries.len() >= PANES_AT_ONCE || is_last && !entries.is_empty() {
                windows = self.add(windows, &entries, (from, to))?;
                entries.clear();
                let is_much =
                    windows.num_rows() > WINDOWS_AT_ONCE || windows.get_array_memory_size() > WINDOW_BYTES_AT_ONCE;
                if is_much && to - from > 1 {
                    return Ok(None);
                }
            }
            if is_last {
                return Ok(Some(self.in_order(&windows, from)?));
            }
        }
    }

    /// Adds states of panes to those of windows, which are labelled by their number from `from` on.
    fn add(&self, windows: RecordBatch, entries: &[(Vec<u8>, Vec<u8>)], (from, to): (i64, i64)) -> Result<RecordBatch> {
        let panes = self.codec.decode(entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))?.states;
        let mut nodes = Nodes::default();
        for (row, label) in labels_of(&panes)?.values().iter().enumerate() {
            let (first, last) = self.hop.windows(self.hop.place(*label));
            nodes.cover(row, (first.max(from) - from, last.min(to - 1) - from));
        }
        let mut above: Option<RecordBatch> = None;
        for level in nodes.levels.iter().rev() {
            let mut parts: Vec<RecordBatch> = Vec::new();
            if let Some(above) = &above {
                let halves =
                    |half: i64| labels_of(above).map(|nodes| nodes.values().iter().map(|n| 2 * n + half).collect());
                parts.push(with_labels(above, halves(0)?)?);
                parts.push(with_labels(above, halves(1)?)?);
            }
            let rows = UInt64Array::from_iter_values(level.iter().map(|(row, _)| *row as u64));
            let own = take_record_batch(&panes, &rows)?;
            parts.push(with_labels(&own, level.iter().map(|(_, node)| *node).collect())?);
            above = Some(self.reduce(&parts)?);
        }
        match above {
            None => Ok(windows),
            Some(above) if windows.num_rows() == 0 => Ok(above),
            Some(above) => self.reduce(&[windows, above]),
        }
    }

    fn reduce(&self, parts: &[RecordBatch]) -> Result<RecordBatch> {
        // Nothing in a plan over memory waits, so this drives it to its end.
        Ok(block_on(self.plan.aggregation.reduce(concat_batches(self.codec.schema(), parts)?))?)
    }

    /// Windows by number and key, under their starts.
    fn in_order(&self, windows: &RecordBatch, from: i64) -> Result<RecordBatch> {
        let numbers = labels_of(windows)?.values().clone();
        let groups = self.codec.groups(windows)?;
        let mut order: Vec<usize> = (0..windows.num_rows()).collect();
        order.sort_unstable_by_key(|row| (numbers[*row], group_of(&groups, *row)));
        let rows = UInt64Array::from_iter_values(order.iter().map(|row| *row as u64));
        let starts: Vec<i64> = order.iter().map(|row| self.hop.start_of(from + numbers[*row])).collect();
        with_labels(&take_record_batch(windows, &rows)?, starts)
    }
}

/// Which states lie in which nodes, level by level: level 0 are the windows, a node above stands for two below.
#[derive(Default)]
struct Nodes {
    levels: Vec<Vec<(usize, i64)>>,
}

impl Nodes {
    /// Puts a row into the fewest nodes that together are the windows from `first` to `last`; none when there are none.
    fn cover(&mut self, row: usize, (mut first, mut last): (i64, i64)) {
        let mut level = 0;
        while first <= last {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            if first % 2 == 1 {
                self.levels[level].push((row, first));
                first += 1;
            }
            if last % 2 == 0 && first <= last {
                self.levels[level].push((row, last));
                last -= 1;
            }
            (first, last) = (first.div_euclid(2), last.div_euclid(2));
            level += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_handed_down_to_each_of_its_windows_once() {
        for first in 0..40 {
            for last in 0..40 {
                let mut nodes = Nodes::default();
                nodes.cover(0, (first, last));
                let leaves = |(level, row): (usize, &Vec<(usize, i64)>)| {
                    let below = 1_i64 << level;
                    row.iter().flat_map(move |(_, node)| node * below..(node + 1) * below).collect::<Vec<_>>()
                };
                let mut found: Vec<i64> = nodes.levels.iter().enumerate().flat_map(leaves).collect();
                found.sort_unstable();
                assert_eq!(found, (first..=last).collect::<Vec<_>>());
                assert!(nodes.levels.iter().all(|level| level.len() <= 2));
            }
        }
    }
}
