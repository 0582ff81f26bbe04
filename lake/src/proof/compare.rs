//! Served rows beside recomputed ones, group by group. The served rows are in memory, the recomputed ones come in batches in
//! any order.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::report::{Difference, DifferenceKind, ViewReport};
use super::statement::Agreement;
use crate::error::{LakeError, LakeErrorKind, Result};

/// Slack of numbers near zero, where a relative difference says nothing.
const ABSOLUTE_SLACK: f64 = 1e-9;

/// Which windows are held against the view.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    /// Windows that end by then may be gone from the view: its retention is over.
    pub expired_until: Option<i64>,
    /// Windows that start before it may have had rows that are gone from log and lake; all may, without windows.
    pub from: Option<i64>,
}

/// A comparison under way. Holds: the served rows by group, and which of them were recomputed.
pub struct Comparison {
    served: RecordBatch,
    places: HashMap<Box<[u8]>, u32>,
    seen: Vec<bool>,
    identity: Identity,
    agreements: Vec<Agreement>,
    judged: Judged,
    starts: BTreeSet<i64>,
    report: ViewReport,
}

/// Which columns name a group.
struct Identity {
    converter: Option<RowConverter>,
    columns: Vec<usize>,
    is_windowed: bool,
}

impl Identity {
    fn new(schema: &SchemaRef, keys: usize, is_windowed: bool) -> Result<Self, ArrowError> {
        let columns: Vec<usize> = match is_windowed {
            true => [0].into_iter().chain(2..2 + keys).collect(),
            false => (0..keys).collect(),
        };
        let fields = columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
        // without columns there is one group
        let converter = if columns.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { converter, columns, is_windowed })
    }

    fn of(&self, rows: &RecordBatch) -> Result<Vec<Box<[u8]>>, ArrowError> {
        let Some(converter) = &self.converter else { return Ok(vec![Box::default(); rows.num_rows()]) };
        let columns: Vec<ArrayRef> = self.columns.iter().map(|at| rows.column(*at).clone()).collect();
        Ok(converter.convert_columns(&columns)?.iter().map(|row| row.as_ref().into()).collect())
    }

    /// Start and end of a row's window.
    fn window(&self, rows: &RecordBatch, row: usize) -> Option<(i64, i64)> {
        let time =
            |at: usize| rows.column(at).as_primitive_opt::<TimestampMillisecondType>().map(|times| times.value(row));
        if self.is_windowed { time(0).zip(time(1)) } else { None }
    }
}

impl Comparison {
    /// Begins one.
    ///
    /// # Errors
    /// `Bug` when the served rows are not of the schema.
    pub fn new(
        (schema, served): (&SchemaRef, &[RecordBatch]),
        (keys, is_windowed): (usize, bool),
        agreements: Vec<Agreement>,
        judged: Judged,
    ) -> Result<Self> {
        let served = concat_batches(schema, served).map_err(|e| uneven(&e))?;
        let identity = Identity::new(schema, keys, is_windowed).map_err(|e| uneven(&e))?;
        let mut places = HashMap::with_capacity(served.num_rows());
        for (row, group) in (0_u32..).zip(identity.of(&served).map_err(|e| uneven(&e))?) {
            places.insert(group, row);
        }
        let seen = vec![false; served.num_rows()];
        let (starts, report) = (BTreeSet::new(), ViewReport::default());
        Ok(Self { served, places, seen, identity, agreements, judged, starts, report })
    }

    /// Compares some recomputed rows.
    ///
    /// # Errors
    /// `Refused` when the recomputation has other columns than the view.
    pub fn add(&mut self, recomputed: &RecordBatch) -> Result<()> {
        let (rows, more) = self.typed(recomputed)?;
        let groups = self.identity.of(&rows).map_err(|e| uneven(&e))?;
        let mut places: Vec<(u32, u32)> = Vec::with_capacity(groups.len());
        for (row, group) in (0_u32..).zip(groups) {
            let window = self.identity.window(&rows, row as usize);
            self.starts.extend(window.map(|(start, _)| start));
            match self.places.get(&group).copied() {
                Some(place) => {
                    self.seen[place as usize] = true;
                    match self.is_judged(window) {
                        true => places.push((row, place)),
                        false => self.report.unjudged += 1,
                    }
                }
                None => self.missing(&rows, row as usize, window),
            }
        }
        self.compare(&rows, &more, &places).map_err(|e| uneven(&e))
    }

    /// What was found.
    pub fn finish(mut self) -> ViewReport {
        for row in 0..self.seen.len() {
            if self.seen[row] {
                continue;
            }
            let window = self.identity.window(&self.served, row);
            self.starts.extend(window.map(|(start, _)| start));
            if self.is_judged(window) {
                self.report.extra += 1;
                let group = self.group(&self.served, row);
                self.report.name(|| of_group(DifferenceKind::Extra, group));
            } else {
                self.report.unjudged += 1;
            }
        }
        self.report.windows = self.starts.len() as u64;
        self.report
    }

    fn is_judged(&self, window: Option<(i64, i64)>) -> bool {
        match (self.judged.from, window) {
            (None, _) => true,
            (Some(from), Some((start, _))) => start >= from,
            (Some(_), None) => false,
        }
    }

    fn missing(&mut self, rows: &RecordBatch, row: usize, window: Option<(i64, i64)>) {
        let is_expired = |(_, end): (i64, i64)| self.judged.expired_until.is_some_and(|until| end <= until);
        if window.is_some_and(is_expired) {
            self.report.expired += 1;
        } else if self.is_judged(window) {
            self.report.missing += 1;
            let group = self.group(rows, row);
            self.report.name(|| of_group(DifferenceKind::Missing, group));
        } else {
            self.report.unjudged += 1;
        }
    }

    /// The recomputed rows as the view's columns, and the columns that it has not.
    fn typed(&self, recomputed: &RecordBatch) -> Result<(RecordBatch, HashMap<String, ArrayRef>)> {
        let schema = self.served.schema();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let column = recomputed.column_by_name(field.name()).ok_or_else(|| {
                LakeError::bug(format!("a recomputation has no column {}: report this view", field.name()))
            })?;
            columns.push(cast(column, field.data_type()).map_err(|e| uneven(&e))?);
        }
        let found = recomputed.schema();
        let more = found.fields().iter().zip(recomputed.columns());
        let more = more.filter(|(field, _)| schema.column_with_name(field.name()).is_none());
        let more = more.map(|(field, column)| (field.name().clone(), column.clone())).collect();
        // what may be null in a recomputation may not in the view, but then it is a difference and no error
        let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let nullable = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(nullable, columns).map_err(|e| uneven(&e))?;
        Ok((rows, more))
    }

    fn compare(
        &mut self,
        rows: &RecordBatch,
        more: &HashMap<String, ArrayRef>,
        places: &[(u32, u32)],
    ) -> Result<(), ArrowError> {
        let of_rows = UInt32Array::from_iter_values(places.iter().map(|(row, _)| *row));
        let of_served = UInt32Array::from_iter_values(places.iter().map(|(_, place)| *place));
        let mut differs = vec![false; places.len()];
        for at in 0..self.served.num_columns() {
            let served = take(self.served.column(at), &of_served, None)?;
            let recomputed = take(rows.column(at), &of_rows, None)?;
            let agree = match &self.agreements[at] {
                Agreement::Exact if served.data_type().is_nested() => same(&served, &recomputed)?,
                Agreement::Exact => not_distinct(&served, &recomputed)?,
                Agreement::Close(part) => close(&served, (&recomputed, &recomputed), *part)?,
                Agreement::Between(low, high) => {
                    let bound = |name: &String| match more.get(name) {
                        Some(column) => take(column, &of_rows, None),
                        None => Err(ArrowError::SchemaError(format!("no column {name}"))),
                    };
                    close(&served, (&bound(low)?, &bound(high)?), ABSOLUTE_SLACK)?
                }
            };
            for (index, _) in agree.iter().enumerate().filter(|(_, agrees)| *agrees != Some(true)) {
                differs[index] = true;
                let group = of_group(DifferenceKind::Different, self.group(rows, places[index].0 as usize));
                let column = Some(self.served.schema().field(at).name().clone());
                let (served, recomputed) = (shown(&served, index), shown(&recomputed, index));
                self.report.name(|| Difference { column, served, recomputed, ..group });
            }
        }
        let different = differs.iter().filter(|differs| **differs).count() as u64;
        self.report.groups += places.len() as u64;
        self.report.different += different;
        self.report.equal += places.len() as u64 - different;
        Ok(())
    }

    /// The names and values of the columns that a group is told by.
    fn group(&self, rows: &RecordBatch, row: usize) -> Vec<(String, Option<String>)> {
        let schema = self.served.schema();
        let named = |at: &usize| (schema.field(*at).name().clone(), shown(rows.column(*at), row));
        self.identity.columns.iter().map(named).collect()
    }
}

fn of_group(kind: DifferenceKind, group: Vec<(String, Option<String>)>) -> Difference {
    Difference { kind, group, column: None, served: None, recomputed: None }
}

/// Which lists and the like are the same.
fn same(served: &ArrayRef, recomputed: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    let converter = RowConverter::new(vec![SortField::new(served.data_type().clone())])?;
    let served = converter.convert_columns(std::slice::from_ref(served))?;
    let recomputed = converter.convert_columns(std::slice::from_ref(recomputed))?;
    Ok(served.iter().zip(recomputed.iter()).map(|(served, recomputed)| Some(served == recomputed)).collect())
}

/// Which numbers lie between two others, or beside them by no more than a part of the larger one.
fn close(served: &ArrayRef, (low, high): (&ArrayRef, &ArrayRef), part: f64) -> Result<BooleanArray, ArrowError> {
    let numbers = |column: &ArrayRef| -> Result<Float64Array, ArrowError> {
        Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
    };
    let (served, low, high) = (numbers(served)?, numbers(low)?, numbers(high)?);
    let agree = served.iter().zip(low.iter().zip(high.iter())).map(|(served, bounds)| match (served, bounds) {
        (None, (None, None)) => true,
        (Some(served), (Some(low), Some(high))) => is_close(served, (low, high), part),
        _ => false,
    });
    Ok(agree.map(Some).collect())
}

fn is_close(served: f64, (low, high): (f64, f64), part: f64) -> bool {
    let slack = |bound: f64| ABSOLUTE_SLACK.max(part * bound.abs().max(served.abs()));
    let is_same = |bound: f64| served == bound || served.is_nan() && bound.is_nan();
    if is_same(low) || is_same(high) {
        return true;
    }
    served.is_finite()
        && low.is_finite()
        && high.is_finite()
        && served >= low - slack(low)
        && served <= high + slack(high)
}

fn shown(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).ok()?;
    Some(formatter.value(row).to_string())
}

fn uneven(error: &ArrowError) -> LakeError {
    LakeError::new(LakeErrorKind::Bug, format!("served and recomputed rows cannot be laid side by side: {error}"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::{Field, TimeUnit};

    use super::*;

    fn schema() -> SchemaRef {
        let ms = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            Field::new("window_start", ms(), false),
            Field::new("window_end", ms(), false),
            Field::new("genre", DataType::Utf8, true),
            Field::new("plays", DataType::Int64, true),
            Field::new("score", DataType::Float64, true),
        ]))
    }

    /// Window, genre, plays and score of each row.
    fn rows(of: &[(i64, Option<&str>, i64, f64)]) -> RecordBatch {
        let times = |add: i64| {
            let times = of.iter().map(|(start, ..)| start + add);
            Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC"))
        };
        let genres: StringArray = of.iter().map(|(_, genre, ..)| *genre).collect();
        let plays = Int64Array::from_iter_values(of.iter().map(|(_, _, plays, _)| *plays));
        let scores = Float64Array::from_iter_values(of.iter().map(|(.., score)| *score));
        RecordBatch::try_new(schema(), vec![times(0), times(60), Arc::new(genres), Arc::new(plays), Arc::new(scores)])
            .unwrap()
    }

    fn compared(served: &RecordBatch, recomputed: &[RecordBatch], judged: Judged) -> ViewReport {
        let agreements =
            vec![Agreement::Exact, Agreement::Exact, Agreement::Exact, Agreement::Exact, Agreement::Close(1e-9)];
        let mut comparison =
            Comparison::new((&schema(), std::slice::from_ref(served)), (1, true), agreements, judged).unwrap();
        recomputed.iter().for_each(|rows| comparison.add(rows).unwrap());
        comparison.finish()
    }

    #[test]
    fn groups_are_told_by_window_and_key() {
        let served = rows(&[(0, Some("jazz"), 3, 0.1), (60, None, 1, 2.0), (60, Some("pop"), 4, 1.0)]);
        let same = rows(&[(60, Some("pop"), 4, 1.0 + 1e-12), (0, Some("jazz"), 3, 0.1)]);
        let report = compared(&served, &[same.clone(), rows(&[(60, None, 1, 2.0)])], Judged::default());
        assert!(report.is_sound());
        assert_eq!((report.windows, report.groups, report.equal), (2, 3, 3));

        let report =
            compared(&served, &[same, rows(&[(60, None, 2, 2.1), (120, Some("pop"), 1, 1.0)])], Judged::default());
        assert_eq!((report.equal, report.different, report.missing, report.extra), (2, 1, 1, 0));
        let named: Vec<_> = report.named.iter().map(|one| (one.kind.word(), one.column.as_deref())).collect();
        assert_eq!(named, [("missing", None), ("different", Some("plays")), ("different", Some("score"))]);
        let plays = &report.named[1];
        assert_eq!((plays.served.as_deref(), plays.recomputed.as_deref()), (Some("1"), Some("2")));
        assert_eq!(plays.group[1], ("genre".to_owned(), None));

        let report = compared(&served, &[], Judged::default());
        assert_eq!((report.extra, report.windows, report.is_sound()), (3, 2, false));
    }

    #[test]
    fn what_cannot_be_known_is_not_held_against_the_view() {
        let (served, recomputed) =
            (rows(&[(60, None, 5, 0.0), (180, None, 1, 0.0)]), rows(&[(0, None, 2, 0.0), (60, None, 4, 0.0)]));
        let judged = Judged { expired_until: Some(60), from: Some(120) };
        let report = compared(&served, &[recomputed, rows(&[(180, None, 1, 0.0)])], judged);
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.expired, report.unjudged, report.equal), (1, 1, 1));
    }

    #[test]
    fn floats_agree_within_their_tolerance() {
        let cases = [
            (1.0, (1.0 + 5e-10, 1.0 + 5e-10), true),
            (1.0, (1.0 + 5e-9, 1.0 + 5e-9), false),
            (1e-12, (0.0, 0.0), true),
            (f64::NAN, (f64::NAN, f64::NAN), true),
            (f64::NAN, (1.0, 1.0), false),
            (f64::INFINITY, (f64::INFINITY, f64::INFINITY), true),
            (f64::INFINITY, (1.0, 1.0), false),
            (5.0, (4.0, 6.0), true),
            (7.0, (4.0, 6.0), false),
            (3.9, (4.0, 6.0), false),
        ];
        for (served, bounds, expected) in cases {
            assert_eq!(is_close(served, bounds, 1e-9), expected, "{served} {bounds:?}");
        }
    }
}
