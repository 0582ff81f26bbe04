//! A view's states → what readers see of its groups: the aggregates' results, then HAVING and the SELECT over them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMillisecondArray, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use datafusion::common::{DataFusionError, Result as DfResult, exec_err};

use crate::keyed::{Groups, full_group, full_rows, list_limits};
use crate::sql;
use crate::view::ViewPlan;
use crate::windows::Windows;

/// What readers see of groups, in their order. A group whose results cannot be computed (a division by an empty count,
/// say) stands there with its keys alone and is not shown.
pub(crate) struct Finished {
    pub(crate) rows: RecordBatch,
    /// Which of the rows are shown.
    pub(crate) shown: BooleanArray,
    /// The rows that could not be computed, ascending, and why.
    pub(crate) failed: Vec<(usize, String)>,
}

impl Finished {
    /// The rows that are shown.
    pub(crate) fn into_shown(self) -> DfResult<RecordBatch> {
        match self.shown.true_count() == self.rows.num_rows() {
            true => Ok(self.rows),
            false => Ok(filter_record_batch(&self.rows, &self.shown)?),
        }
    }
}

/// Finished groups under construction.
#[derive(Default)]
struct Parts {
    rows: Vec<RecordBatch>,
    shown: Vec<bool>,
    failed: Vec<(usize, String)>,
}

impl Parts {
    fn add(&mut self, rows: RecordBatch, having: Option<&BooleanArray>) {
        let is_shown = |row| having.is_none_or(|having| having.is_valid(row) && having.value(row));
        self.shown.extend((0..rows.num_rows()).map(is_shown));
        self.rows.push(rows);
    }

    fn fail(&mut self, keys: RecordBatch, error: &DataFusionError) {
        for _ in 0..keys.num_rows() {
            self.failed.push((self.shown.len(), error.strip_backtrace()));
            self.shown.push(false);
        }
        self.rows.push(keys);
    }

    fn whole(self, schema: &SchemaRef) -> DfResult<Finished> {
        let rows = match self.rows.as_slice() {
            [rows] => rows.clone(),
            parts => concat_batches(schema, parts)?,
        };
        Ok(Finished { rows, shown: BooleanArray::from(self.shown), failed: self.failed })
    }
}

impl ViewPlan {
    /// States, one per group → what readers see. What fails is halved until the groups at fault stand alone.
    pub(crate) fn finish(&self, groups: Groups) -> DfResult<Finished> {
        let mut finished = Parts::default();
        let mut open = vec![groups];
        while let Some(groups) = open.pop() {
            match self.results(&groups.states) {
                Ok(results) => self.show_each(groups, results, &mut finished)?,
                Err(error) if groups.states.num_rows() <= 1 => finished.fail(self.keys_alone(&groups.states)?, &error),
                Err(_) => open.extend(group_halves(&groups)),
            }
        }
        finished.whole(&self.schema)
    }

    fn results(&self, states: &RecordBatch) -> DfResult<RecordBatch> {
        // Each pane of a window may hold what the window may not.
        if let Some(Windows::Hop(_)) = self.windows
            && full_rows(states, &list_limits(&self.aggregation)?).contains(&true)
        {
            return exec_err!("{}", full_group());
        }
        self.aggregation.finish(states)
    }

    fn show_each(&self, groups: Groups, results: RecordBatch, finished: &mut Parts) -> DfResult<()> {
        let mut open = vec![(groups, results)];
        while let Some((groups, results)) = open.pop() {
            match self.show(&results, groups.ends.as_ref()) {
                Ok((rows, having)) => finished.add(rows, having.as_ref()),
                Err(error) if results.num_rows() <= 1 => finished.fail(self.keys_alone(&groups.states)?, &error),
                Err(_) => open.extend(group_halves(&groups).into_iter().zip(halves(&results))),
            }
        }
        Ok(())
    }

    /// The columns of results, and which of them meet HAVING (None = all).
    fn show(
        &self,
        results: &RecordBatch,
        ends: Option<&TimestampMillisecondArray>,
    ) -> DfResult<(RecordBatch, Option<BooleanArray>)> {
        let mut shown: Option<BooleanArray> = None;
        for condition in &self.having {
            let met = sql::mask(sql::condition(condition, results)?);
            shown = Some(match shown {
                Some(before) => arrow::compute::and(&before, &met)?,
                None => met,
            });
        }
        let mut arrays = self.window_columns(results, ends);
        for expr in &self.output {
            arrays.push(expr.evaluate(results)?.into_array(results.num_rows())?);
        }
        Ok((RecordBatch::try_new(self.schema.clone(), arrays)?, shown))
    }

    /// window_start and window_end of groups, whose first column is window_start; nothing without a window.
    fn window_columns(&self, groups: &RecordBatch, ends: Option<&TimestampMillisecondArray>) -> Vec<ArrayRef> {
        let starts = || groups.column(0).as_primitive::<TimestampMillisecondType>();
        let ends = match (self.windows, ends) {
            (None, _) => return Vec::new(),
            (Some(Windows::Tumble(window)), _) => starts().unary(|start| window.end_of(start)),
            (Some(Windows::Hop(hop)), _) => starts().unary(|start| hop.end_of(hop.starting(start))),
            (Some(Windows::Session(_)), Some(ends)) => ends.clone(),
            // Where a session is only named, its start does that.
            (Some(Windows::Session(_)), None) => starts().clone(),
        };
        vec![groups.column(0).clone(), Arc::new(ends.with_timezone("UTC"))]
    }

    /// Groups, whose columns are the first ones of states, as rows without values.
    pub(crate) fn keys_alone(&self, groups: &RecordBatch) -> DfResult<RecordBatch> {
        let mut arrays = self.window_columns(groups, None);
        arrays.extend_from_slice(&groups.columns()[1..=self.keys.len()]);
        for field in &self.schema.fields()[arrays.len()..] {
            arrays.push(new_null_array(field.data_type(), groups.num_rows()));
        }
        Ok(RecordBatch::try_new(self.schema.clone(), arrays)?)
    }
}

fn group_halves(groups: &Groups) -> [Groups; 2] {
    let (count, half) = (groups.states.num_rows(), groups.states.num_rows() / 2);
    [groups.slice(half, count - half), groups.slice(0, half)]
}

/// The second half, then the first: what is taken from the end comes in order.
fn halves(rows: &RecordBatch) -> [RecordBatch; 2] {
    let half = rows.num_rows() / 2;
    [rows.slice(half, rows.num_rows() - half), rows.slice(0, half)]
}
