//! How good a model is: what it says compared with what was true.
//!
//! Both are answers of SQL. A forecast is `value` per time (and group): joined on all columns that both have, apart from
//! `value`. A matching is `need`, `item`, `score`; true are the pairs `need`, `item`. Anomalies are `id` and a BOOLEAN
//! `anomaly` for every row judged; true are the `id`s of the real ones.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arrow::array::{Array, AsArray, BooleanArray, Float64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::columns::timestamp_type;

/// What kind of model is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluationKind {
    /// Values ahead: mean absolute percentage error.
    Forecast,
    /// Items for needs: precision among the first so many.
    Matching(usize),
    /// Rows that do not belong: false positives, and how many real ones are found.
    Anomaly,
}

/// An answer of SQL.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub rows: Vec<RecordBatch>,
}

/// One figure, in percent.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is, such as `MAPE`.
    pub name: String,
    /// Its value in percent.
    pub percent: f64,
}

/// What an evaluation gave: the figure that has a target first, then others that explain it.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// The figures.
    pub figures: Vec<Figure>,
    /// Rows of truth that were compared.
    pub compared: usize,
}

/// Compares.
///
/// # Errors
/// When a column is missing or of another type, when there is no truth, or when a prediction is there twice: what to do.
pub fn evaluate(kind: EvaluationKind, predicted: &Answered, truth: &Answered) -> Result<Figures, String> {
    let predicted = Side::new("predict", predicted)?;
    let truth = Side::new("truth", truth)?;
    if truth.rows.num_rows() == 0 {
        return Err("the truth SQL gave no rows: are the data loaded, and is its period right?".into());
    }
    match kind {
        EvaluationKind::Forecast => forecast(&predicted, &truth),
        EvaluationKind::Matching(first) => matching(&predicted, &truth, first),
        EvaluationKind::Anomaly => anomaly(&predicted, &truth),
    }
}

/// One side of the comparison, and its name in messages.
struct Side {
    name: &'static str,
    rows: RecordBatch,
}

impl Side {
    fn new(name: &'static str, answered: &Answered) -> Result<Side, String> {
        let rows = concat_batches(&answered.schema, &answered.rows).map_err(|error| format!("{name}: {error}"))?;
        Ok(Side { name, rows })
    }

    fn names(&self) -> Vec<String> {
        self.rows.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    fn column(&self, name: &str) -> Result<&dyn Array, String> {
        self.rows.column_by_name(name).map(|column| &**column).ok_or_else(|| {
            format!("the {} SQL must give a column {name}: it gives {}", self.name, self.names().join(", "))
        })
    }

    fn numbers(&self, name: &str) -> Result<Float64Array, String> {
        let column = self.column(name)?;
        let numbers = cast(column, &DataType::Float64)
            .map_err(|_| format!("{name} of the {} SQL must be a number, not {}", self.name, column.data_type()))?;
        Ok(numbers.as_primitive::<Float64Type>().clone())
    }

    /// The columns' values as one text per row; times are told the same way whatever their type.
    fn keys(&self, names: &[String]) -> Result<Vec<String>, String> {
        let options = FormatOptions::default().with_null("null");
        let mut keys = vec![String::new(); self.rows.num_rows()];
        for name in names {
            let column = self.column(name)?;
            let wanted = if column.data_type().is_temporal() { timestamp_type() } else { DataType::Utf8 };
            let column = cast(column, &wanted).map_err(|error| format!("{name} of the {} SQL: {error}", self.name))?;
            let text = ArrayFormatter::try_new(&column, &options).map_err(|error| error.to_string())?;
            for (row, key) in keys.iter_mut().enumerate() {
                key.push_str(&text.value(row).to_string());
                key.push('\u{1f}');
            }
        }
        Ok(keys)
    }
}

fn figure(name: impl Into<String>, share: f64) -> Figure {
    Figure { name: name.into(), percent: 100.0 * share }
}

/// `part` of `whole`; nothing of nothing is all right.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn forecast(predicted: &Side, truth: &Side) -> Result<Figures, String> {
    let theirs = predicted.names();
    let keys: Vec<String> = truth.names().into_iter().filter(|name| name != "value" && theirs.contains(name)).collect();
    if keys.is_empty() {
        return Err("predict and truth must both have a column besides value that says when, such as month".into());
    }
    let values = predicted.numbers("value")?;
    let bounds = match (predicted.column("lower"), predicted.column("upper")) {
        (Ok(_), Ok(_)) => Some((predicted.numbers("lower")?, predicted.numbers("upper")?)),
        _ => None,
    };
    let mut rows: HashMap<String, usize> = HashMap::new();
    for (row, key) in predicted.keys(&keys)?.into_iter().enumerate() {
        if let Some(twice) = rows.insert(key, row) {
            return Err(format!("the predict SQL gives {} twice for one {}", values.value(twice), keys.join(", ")));
        }
    }
    let actual = truth.numbers("value")?;
    let (mut errors, mut within) = (Vec::new(), 0);
    for (key, actual) in truth.keys(&keys)?.into_iter().zip(actual.iter()) {
        let Some(actual) = actual.filter(|actual| *actual != 0.0 && actual.is_finite()) else { continue };
        let row = rows.get(&key).filter(|row| values.is_valid(**row));
        // what was not forecast is as wrong as a forecast of nothing
        errors.push(row.map_or(1.0, |row| ((values.value(*row) - actual) / actual).abs()));
        if let (Some(row), Some((lower, upper))) = (row, &bounds) {
            within += usize::from(lower.value(*row) <= actual && actual <= upper.value(*row));
        }
    }
    if errors.is_empty() {
        return Err("every true value is null or 0: a percentage of it cannot be told".into());
    }
    let mut figures = vec![figure("MAPE", errors.iter().sum::<f64>() / errors.len() as f64)];
    if bounds.is_some() {
        figures.push(figure("within the interval", share(within, errors.len())));
    }
    Ok(Figures { figures, compared: errors.len() })
}

fn matching(predicted: &Side, truth: &Side, first: usize) -> Result<Figures, String> {
    let pairs = |side: &Side| -> Result<Vec<(String, String)>, String> {
        Ok(side.keys(&["need".into()])?.into_iter().zip(side.keys(&["item".into()])?).collect())
    };
    let relevant: HashSet<(String, String)> = pairs(truth)?.into_iter().collect();
    let needs: BTreeSet<&String> = relevant.iter().map(|(need, _)| need).collect();
    let scores = predicted.numbers("score")?;
    let mut ranked: BTreeMap<String, Vec<(f64, String)>> = BTreeMap::new();
    for ((need, item), score) in pairs(predicted)?.into_iter().zip(scores.iter()) {
        ranked.entry(need).or_default().push((score.unwrap_or(f64::NEG_INFINITY), item));
    }
    let mut found = 0;
    for need in &needs {
        let Some(items) = ranked.get_mut(*need) else { continue };
        items.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        items.dedup_by(|a, b| a.1 == b.1);
        let best = items.iter().take(first);
        found += best.filter(|(_, item)| relevant.contains(&((*need).clone(), item.clone()))).count();
    }
    let figures = vec![
        figure(format!("precision@{first}"), share(found, needs.len() * first)),
        figure(format!("recall@{first}"), share(found, relevant.len())),
    ];
    Ok(Figures { figures, compared: needs.len() })
}

fn anomaly(predicted: &Side, truth: &Side) -> Result<Figures, String> {
    let real: HashSet<String> = truth.keys(&["id".into()])?.into_iter().collect();
    let flags = predicted.column("anomaly")?;
    let flags: &BooleanArray = flags.as_boolean_opt().ok_or("anomaly of the predict SQL must be a BOOLEAN")?;
    let judged: HashMap<String, bool> = predicted
        .keys(&["id".into()])?
        .into_iter()
        .zip(flags.iter())
        .map(|(id, flag)| (id, flag.unwrap_or(false)))
        .collect();
    let count = |wanted: bool, is_real: bool| {
        judged.iter().filter(|(id, flag)| **flag == wanted && real.contains(*id) == is_real).count()
    };
    let (hits, false_alarms) = (count(true, true), count(true, false));
    let figures = vec![
        figure("false positives", share(false_alarms, false_alarms + count(false, false))),
        figure("recall", share(hits, real.len())),
        figure("precision", share(hits, hits + false_alarms)),
    ];
    Ok(Figures { figures, compared: judged.len() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Date32Array, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    fn answered(columns: Vec<(&str, ArrayRef)>) -> Answered {
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        Answered { schema: rows.schema(), rows: vec![rows] }
    }

    fn floats(values: &[f64]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn percents(figures: &Figures) -> Vec<f64> {
        figures.figures.iter().map(|figure| (figure.percent * 10.0).round() / 10.0).collect()
    }

    #[test]
    fn a_forecast_is_compared_by_time() {
        let truth = answered(vec![
            ("day", Arc::new(Date32Array::from(vec![0, 1, 2, 3]))),
            ("value", Arc::new(Int64Array::from(vec![100, 200, 0, 50]))),
        ]);
        let times = TimestampMillisecondArray::from(vec![86_400_000, 0]).with_timezone("UTC");
        let predicted = answered(vec![
            ("day", Arc::new(times)),
            ("value", floats(&[220.0, 95.0])),
            ("lower", floats(&[210.0, 90.0])),
            ("upper", floats(&[230.0, 100.0])),
        ]);
        let figures = evaluate(EvaluationKind::Forecast, &predicted, &truth).unwrap();
        // 5 %, 10 % and one that is missing; the true 0 has no percentage
        assert_eq!(percents(&figures), [38.3, 33.3]);
        assert_eq!((figures.compared, figures.figures[0].name.as_str()), (3, "MAPE"));
        let twice = answered(vec![("day", Arc::new(Date32Array::from(vec![1, 1]))), ("value", floats(&[1.0, 2.0]))]);
        assert!(evaluate(EvaluationKind::Forecast, &twice, &truth).unwrap_err().contains("twice"));
    }

    #[test]
    fn precision_counts_the_first_ones() {
        let truth = answered(vec![("need", texts(&["a", "a", "b"])), ("item", texts(&["x", "y", "z"]))]);
        let predicted = answered(vec![
            ("need", texts(&["a", "a", "a", "b", "c"])),
            ("item", texts(&["x", "w", "y", "x", "x"])),
            ("score", floats(&[0.9, 0.8, 0.1, 0.7, 1.0])),
        ]);
        let figures = evaluate(EvaluationKind::Matching(2), &predicted, &truth).unwrap();
        assert_eq!(percents(&figures), [25.0, 33.3]);
        assert_eq!(figures.compared, 2);
    }

    #[test]
    fn anomalies_are_counted_both_ways() {
        let predicted = answered(vec![
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])) as ArrayRef),
            ("anomaly", Arc::new(BooleanArray::from(vec![Some(true), Some(true), Some(false), None, Some(false)]))),
        ]);
        let truth = answered(vec![("id", Arc::new(Int64Array::from(vec![1, 4])) as ArrayRef)]);
        let figures = evaluate(EvaluationKind::Anomaly, &predicted, &truth).unwrap();
        assert_eq!(percents(&figures), [33.3, 50.0, 50.0]);
    }

    #[test]
    fn mistakes_say_what_is_missing() {
        let truth = answered(vec![("need", texts(&["a"])), ("item", texts(&["x"]))]);
        let wrong = answered(vec![("need", texts(&["a"])), ("item", texts(&["x"])), ("points", floats(&[1.0]))]);
        let error = evaluate(EvaluationKind::Matching(5), &wrong, &truth).unwrap_err();
        assert_eq!(error, "the predict SQL must give a column score: it gives need, item, points");
        let none = answered(vec![("need", texts(&[])), ("item", texts(&[]))]);
        assert!(evaluate(EvaluationKind::Matching(5), &wrong, &none).unwrap_err().contains("no rows"));
    }
}
