//! Window functions over whole partitions: `anomaly_score(x1, …)`, `is_anomaly(x1, …, contamination)`, `zscore(x)`.
//!
//! `anomaly_score` is the score of an extended isolation forest (`forest`) grown from the rows of the partition: 0 to 1, an
//! ordinary row is below 0.5. Features are brought to one scale first (median and quartiles), so units do not matter; what
//! is very skewed, such as amounts, is better given as `ln(amount)`. `is_anomaly` is true for at most the share
//! `contamination` of the rows, those with the highest scores, and never for a score of 0.5 or less. `zscore` is how many
//! standard deviations a value is above the mean. A row in which a feature is null or not finite has no score (null). ORDER
//! BY and frames in OVER do not matter: the rows are the partition's.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDFImpl};
use datafusion::physical_expr::PhysicalExpr;

use super::arguments::number;
use super::forest::{self, Points};

/// Most rows of one partition.
const ROWS_MAX: usize = 1_000_000;
/// Most features.
const FEATURES_MAX: usize = 32;
/// What a score must be above to be called an anomaly.
const ORDINARY: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Score,
    IsAnomaly,
    ZScore,
}

/// One of the functions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PartitionFunction {
    kind: Kind,
    signature: Signature,
}

/// All of them.
pub(super) fn functions() -> Vec<PartitionFunction> {
    let function = |kind| PartitionFunction { kind, signature: Signature::user_defined(Volatility::Immutable) };
    [Kind::Score, Kind::IsAnomaly, Kind::ZScore].map(function).into()
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Score => "anomaly_score",
            Kind::IsAnomaly => "is_anomaly",
            Kind::ZScore => "zscore",
        }
    }

    /// How many arguments it takes, and in words.
    fn arguments(self) -> (std::ops::RangeInclusive<usize>, &'static str) {
        match self {
            Kind::Score => (1..=FEATURES_MAX, "(x1, x2, …), 1 to 32 features"),
            Kind::IsAnomaly => (2..=FEATURES_MAX + 1, "(x1, x2, …, contamination), 1 to 32 features and a share"),
            Kind::ZScore => (1..=1, "(x)"),
        }
    }
}

impl WindowUDFImpl for PartitionFunction {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (count, words) = self.kind.arguments();
        if !count.contains(&types.len()) {
            return plan_err!("{} takes {words}, not {} arguments", self.name(), types.len());
        }
        types.iter().enumerate().map(|(at, given)| number(self.name(), at + 1, given)).collect()
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let kind = if self.kind == Kind::IsAnomaly { DataType::Boolean } else { DataType::Float64 };
        Ok(Arc::new(Field::new(args.name(), kind, true)))
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Evaluator(self.kind)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        // every row is needed, however few are asked for
        LimitEffect::Unknown
    }
}

#[derive(Debug)]
struct Evaluator(Kind);

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let name = self.0.name();
        if rows > ROWS_MAX {
            return exec_err!(
                "{name}: {rows} rows are more than the {ROWS_MAX} of one partition: narrow the query, or say PARTITION BY"
            );
        }
        let columns: Vec<&Float64Array> = values.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        match self.0 {
            Kind::Score => Ok(Arc::new(spread(rows, &scored(&columns, rows)))),
            Kind::IsAnomaly => {
                let (features, share) = columns.split_at(columns.len() - 1);
                let flags = flags(&scored(features, rows), contamination(share[0])?);
                let mut answer = vec![None; rows];
                flags.into_iter().for_each(|(row, flag)| answer[row] = Some(flag));
                Ok(Arc::new(BooleanArray::from(answer)))
            }
            Kind::ZScore => Ok(Arc::new(spread(rows, &zscores(columns[0])))),
        }
    }
}

/// The values at their rows, null elsewhere.
fn spread(rows: usize, values: &[(usize, f64)]) -> Float64Array {
    let mut answer = vec![None; rows];
    values.iter().for_each(|(row, value)| answer[*row] = Some(*value));
    Float64Array::from(answer)
}

fn contamination(share: &Float64Array) -> Result<f64> {
    let given = share.iter().flatten().next();
    match given.filter(|share| (0.0..=0.5).contains(share)) {
        Some(given) if share.iter().all(|other| other == Some(given)) => Ok(given),
        _ => exec_err!("is_anomaly: the last argument is the share of anomalies expected, one number from 0 to 0.5"),
    }
}

/// The rows in which every column has a finite number, with their scores.
fn scored(columns: &[&Float64Array], rows: usize) -> Vec<(usize, f64)> {
    let whole = |row: &usize| columns.iter().all(|column| column.is_valid(*row) && column.value(*row).is_finite());
    let kept: Vec<usize> = (0..rows).filter(whole).collect();
    let mut numbers = vec![0.0; kept.len() * columns.len()];
    for (at, column) in columns.iter().enumerate() {
        let values: Vec<f64> = kept.iter().map(|row| column.value(*row)).collect();
        let (middle, width) = scale(&values);
        for (point, value) in values.iter().enumerate() {
            numbers[point * columns.len() + at] = (value - middle) / width;
        }
    }
    let scores = forest::scores(&Points { numbers: &numbers, width: columns.len() });
    kept.into_iter().zip(scores).collect()
}

/// The median, and the distance of the quartiles; where they fall together, the standard deviation, or 1.
fn scale(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 1.0);
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let quartiles = at(0.75) - at(0.25);
    let width = if quartiles > 0.0 { quartiles } else { deviation(values).1 };
    (at(0.5), if width > 0.0 && width.is_finite() { width } else { 1.0 })
}

/// Mean and standard deviation (of a sample; 0 for one value).
fn deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// The highest scores, at most the given share of them; of equal scores all or none.
fn flags(scored: &[(usize, f64)], contamination: f64) -> Vec<(usize, bool)> {
    let mut sorted: Vec<f64> = scored.iter().map(|(_, score)| *score).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let most = (contamination * sorted.len() as f64).floor() as usize;
    let beyond = sorted.get(most).copied().unwrap_or(ORDINARY).max(ORDINARY);
    scored.iter().map(|(row, score)| (*row, *score > beyond)).collect()
}

fn zscores(column: &Float64Array) -> Vec<(usize, f64)> {
    let kept = column.iter().enumerate().filter_map(|(row, value)| Some((row, value.filter(|v| v.is_finite())?)));
    let kept: Vec<(usize, f64)> = kept.collect();
    let values: Vec<f64> = kept.iter().map(|(_, value)| *value).collect();
    let (mean, width) = deviation(&values);
    // values that do not differ are all at the mean
    let width = if width > 0.0 { width } else { 1.0 };
    kept.into_iter().map(|(row, value)| (row, (value - mean) / width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_the_share_is_flagged() {
        let scored: Vec<(usize, f64)> =
            [0.9, 0.4, 0.8, 0.7, 0.45, 0.3, 0.2, 0.1, 0.6, 0.6].into_iter().enumerate().collect();
        let flagged =
            |share| flags(&scored, share).into_iter().filter(|(_, flag)| *flag).map(|(row, _)| row).collect::<Vec<_>>();
        assert_eq!(flagged(0.0), [0usize; 0]);
        assert_eq!(flagged(0.2), [0, 2]);
        assert_eq!(flagged(0.4), [0, 2, 3], "the two of 0.6 do not fit in, so neither is flagged");
        assert_eq!(flagged(0.5), [0, 2, 3, 8, 9], "0.5 and less is ordinary");
    }

    #[test]
    fn scales_bear_values_that_do_not_differ() {
        assert_eq!(scale(&[]), (0.0, 1.0));
        assert_eq!(scale(&[4.0; 9]), (4.0, 1.0));
        assert_eq!(scale(&[0.0, 1.0, 2.0, 3.0, 4.0]), (2.0, 2.0));
        let (middle, width) = scale(&[5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 9.0]);
        assert!(middle == 5.0 && width > 1.0);
    }
}
