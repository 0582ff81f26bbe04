//! From points in time to a forecast: the step between points, gaps, the season, the fit, and what is done when there is
//! too little to fit.
//!
//! Times are even (every so many milliseconds, or every so many calendar months); a missing one is filled by a line between
//! its neighbours. With two whole seasons or more: MSTL takes the season off and AutoETS continues the rest, on logarithms
//! when all values are positive, so that a season grows with the level. With less: AutoETS alone. Where neither fits: the
//! value one season ago plus the mean drift.

use std::collections::BTreeMap;
use std::fmt;

use augurs::ets::AutoETS;
use augurs::ets::trend::AutoETSTrendModel;
use augurs::mstl::MSTLModel;
use augurs::{Fit, Forecast, Predict};
use chrono::{DateTime, Datelike, Months};

/// Most distinct times of one series.
pub(super) const POINTS_MAX: usize = 100_000;
/// Most steps into the future.
pub(super) const HORIZON_MAX: i64 = 1_000;
/// Longest season, in steps.
pub(super) const SEASON_MAX: i64 = 10_000;
/// Newest points that a model is fitted to, as long as they are enough for the season.
const FIT_POINTS_MAX: usize = 1_000;
/// Even times may be so much more than the times given: beyond it the times are not a series.
const FILL_FACTOR_MAX: i64 = 8;
/// Share of future values that lie between lower and upper, when the model is right.
const LEVEL: f64 = 0.95;
/// The normal distribution's quantile for [`LEVEL`].
const LEVEL_Z: f64 = 1.959_963_985;

const DAY_MS: i64 = 86_400_000;

/// One step of a forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ahead {
    /// When, in ms since 1970.
    pub(super) time_ms: i64,
    /// The expected value.
    pub(super) value: f64,
    /// The lower bound of the interval.
    pub(super) lower: f64,
    /// The upper bound of the interval.
    pub(super) upper: f64,
}

/// Why no series can be made of the points; the message says what to do.
#[derive(Debug)]
pub(super) struct Uneven(String);

impl fmt::Display for Uneven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The distance between two points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Months(i64),
    Millis(i64),
}

/// Continues the points by `horizon` steps. Fewer than two points give nothing.
///
/// # Errors
/// When the times are too uneven to have a step.
pub(super) fn forecast(
    points: &BTreeMap<i64, f64>,
    horizon: usize,
    season: Option<usize>,
) -> Result<Vec<Ahead>, Uneven> {
    let ends = points.first_key_value().zip(points.last_key_value()).filter(|_| points.len() >= 2);
    let Some(((&first_ms, _), (&last_ms, _))) = ends else { return Ok(Vec::new()) };
    let step = step_of(points)?;
    let passed = slot(step, first_ms, last_ms);
    let season = season.unwrap_or_else(|| usual_season(step));
    let mut values = even(points, step);
    let keep = FIT_POINTS_MAX.max(season.saturating_mul(3)).min(values.len());
    values.drain(..values.len() - keep);
    let forecast = fit(&values, horizon, season);
    // counted from the first time, so that the 31st stays the last day of its month
    let time = |ahead: usize| later(first_ms, step, passed + ahead as i64 + 1);
    let bounds = forecast.intervals.as_ref();
    Ok(forecast
        .point
        .iter()
        .enumerate()
        .map(|(at, &value)| Ahead {
            time_ms: time(at),
            value,
            lower: bounds.map_or(value, |bounds| bounds.lower[at].min(value)),
            upper: bounds.map_or(value, |bounds| bounds.upper[at].max(value)),
        })
        .collect())
}

/// Months when every point is at the same day and hour of its month, milliseconds otherwise.
fn step_of(points: &BTreeMap<i64, f64>) -> Result<Step, Uneven> {
    let times: Vec<i64> = points.keys().copied().collect();
    let months: Option<Vec<i64>> = times.iter().map(|time| month_of(*time)).collect();
    let same = |months: &Vec<i64>| {
        times.iter().zip(months).all(|(time, month)| later(times[0], Step::Months(1), month - months[0]) == *time)
    };
    let step = match months.filter(same) {
        Some(months) => Step::Months(gap(&months)),
        None => Step::Millis(gap(&times)),
    };
    let slots = slot(step, times[0], times[times.len() - 1]) + 1;
    if slots > FILL_FACTOR_MAX.saturating_mul(times.len() as i64) {
        return Err(Uneven(format!(
            "forecast: {} times over {slots} steps are not a series: round them first, as in \
             date_trunc('month', time) or date_bin(INTERVAL '1 hour', time), and add the values up",
            times.len()
        )));
    }
    Ok(step)
}

/// The greatest common divisor of the distances between neighbours.
fn gap(sorted: &[i64]) -> i64 {
    let divisor = |mut a: i64, mut b: i64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    sorted.windows(2).map(|pair| pair[1] - pair[0]).fold(0, divisor).max(1)
}

/// Months since year 0.
fn month_of(time_ms: i64) -> Option<i64> {
    let time = DateTime::from_timestamp_millis(time_ms)?;
    Some(i64::from(time.year()) * 12 + i64::from(time.month0()))
}

/// `time_ms` moved by so many steps; a time beyond the calendar stays where it is.
fn later(time_ms: i64, step: Step, steps: i64) -> i64 {
    match step {
        Step::Millis(ms) => time_ms.saturating_add(ms.saturating_mul(steps)),
        Step::Months(months) => {
            let ahead = u32::try_from(months.saturating_mul(steps)).unwrap_or(u32::MAX);
            let moved =
                DateTime::from_timestamp_millis(time_ms).and_then(|time| time.checked_add_months(Months::new(ahead)));
            moved.map_or(time_ms, |time| time.timestamp_millis())
        }
    }
}

/// How many steps lie between two times.
fn slot(step: Step, from_ms: i64, to_ms: i64) -> i64 {
    match step {
        Step::Millis(ms) => to_ms.saturating_sub(from_ms) / ms,
        Step::Months(months) => (month_of(to_ms).unwrap_or_default() - month_of(from_ms).unwrap_or_default()) / months,
    }
}

/// The season that people expect of a step: a year of months or quarters, a week of days, a day of hours, an hour of
/// minutes.
fn usual_season(step: Step) -> usize {
    match step {
        Step::Months(months @ (1 | 2 | 3 | 4 | 6)) => usize::try_from(12 / months).unwrap_or(1),
        Step::Millis(DAY_MS) => 7,
        Step::Millis(ms) if ms == 7 * DAY_MS => 52,
        Step::Millis(3_600_000) => 24,
        Step::Millis(60_000) => 60,
        _ => 1,
    }
}

/// The values at every step from the first time to the last.
fn even(points: &BTreeMap<i64, f64>, step: Step) -> Vec<f64> {
    let mut values: Vec<f64> = Vec::with_capacity(points.len());
    let mut before: Option<(i64, f64)> = None;
    for (&time, &value) in points {
        if let Some((earlier, start)) = before {
            let slots = slot(step, earlier, time).max(1);
            values.extend((1..slots).map(|at| start + (value - start) * at as f64 / slots as f64));
        }
        values.push(value);
        before = Some((time, value));
    }
    values
}

/// The best forecast there is for even values.
fn fit(values: &[f64], horizon: usize, season: usize) -> Forecast {
    let flat = values.iter().all(|value| *value == values[0]);
    let seasonal = season >= 2 && values.len() / 2 >= season;
    let fitted = if flat {
        None
    } else if seasonal && values.iter().all(|value| *value > 0.0) {
        let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        seasonal_fit(&logs, horizon, season).map(exponential)
    } else if seasonal {
        seasonal_fit(values, horizon, season)
    } else {
        plain_fit(values, horizon)
    };
    fitted.filter(finite).unwrap_or_else(|| drift(values, horizon, if seasonal { season } else { 1 }))
}

fn seasonal_fit(values: &[f64], horizon: usize, season: usize) -> Option<Forecast> {
    let trend = AutoETSTrendModel::from(ets()?);
    let model = MSTLModel::new(vec![season], trend).fit(values).ok()?;
    model.predict(horizon, LEVEL).ok()
}

fn plain_fit(values: &[f64], horizon: usize) -> Option<Forecast> {
    ets()?.fit(values).ok()?.predict(horizon, LEVEL).ok()
}

/// Additive errors only: the intervals of others are drawn at random, and would differ from run to run.
fn ets() -> Option<AutoETS> {
    AutoETS::new(1, "AZN").ok()
}

fn exponential(mut forecast: Forecast) -> Forecast {
    let raise = |values: &mut Vec<f64>| values.iter_mut().for_each(|value| *value = value.exp());
    raise(&mut forecast.point);
    if let Some(intervals) = &mut forecast.intervals {
        raise(&mut intervals.lower);
        raise(&mut intervals.upper);
    }
    forecast
}

fn finite(forecast: &Forecast) -> bool {
    let bounds = forecast.intervals.iter().flat_map(|bounds| bounds.lower.iter().chain(&bounds.upper));
    forecast.point.iter().chain(bounds).all(|value| value.is_finite())
}

/// The value one season ago, moved by the mean change per step since; the interval widens with the root of the distance.
fn drift(values: &[f64], horizon: usize, season: usize) -> Forecast {
    let count = values.len();
    let season = season.clamp(1, count - 1);
    let changes: Vec<f64> = (season..count).map(|at| values[at] - values[at - season]).collect();
    let mean = changes.iter().sum::<f64>() / changes.len() as f64;
    let spread = changes.iter().map(|change| (change - mean).powi(2)).sum::<f64>() / changes.len() as f64;
    let mut forecast = Forecast::with_capacity_and_level(horizon, LEVEL);
    for ahead in 0..horizon {
        let rounds = (ahead / season + 1) as f64;
        let value = values[count - season + ahead % season] + mean * rounds;
        let width = LEVEL_Z * (spread * rounds).sqrt();
        forecast.point.push(value);
        if let Some(intervals) = &mut forecast.intervals {
            intervals.lower.push(value - width);
            intervals.upper.push(value + width);
        }
    }
    forecast
}

#[cfg(test)]
mod tests {
    use super::*;

    fn months(values: &[f64]) -> BTreeMap<i64, f64> {
        let first = DateTime::parse_from_rfc3339("2023-01-01T00:00:00Z").unwrap().timestamp_millis();
        values.iter().enumerate().map(|(at, value)| (later(first, Step::Months(1), at as i64), *value)).collect()
    }

    fn days(values: &[f64]) -> BTreeMap<i64, f64> {
        values.iter().enumerate().map(|(at, value)| (at as i64 * DAY_MS, *value)).collect()
    }

    #[test]
    fn a_line_goes_on() {
        let ahead = forecast(&days(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]), 3, Some(1)).unwrap();
        for (at, step) in ahead.iter().enumerate() {
            assert!((step.value - (11.0 + at as f64)).abs() < 0.01, "{step:?}");
            assert_eq!(step.time_ms, (10 + at as i64) * DAY_MS);
            assert!(step.lower <= step.value && step.value <= step.upper);
        }
    }

    #[test]
    fn a_season_comes_back() {
        let values: Vec<f64> = (0..48).map(|at| [10.0, 40.0, 20.0, 30.0][at % 4]).collect();
        let ahead = forecast(&days(&values), 6, Some(4)).unwrap();
        for (step, expected) in ahead.iter().zip([10.0, 40.0, 20.0, 30.0, 10.0, 40.0]) {
            assert!((step.value - expected).abs() / expected < 0.02, "{step:?} against {expected}");
        }
    }

    #[test]
    fn a_season_grows_with_the_level() {
        let season = [0.8, 0.9, 1.0, 1.05, 1.1, 1.0, 0.7, 0.5, 1.1, 1.2, 1.3, 1.35];
        let value = |at: usize| 1_000.0 * 1.01f64.powi(at as i32) * season[at % 12];
        let ahead = forecast(&months(&(0..36).map(value).collect::<Vec<_>>()), 12, None).unwrap();
        assert_eq!(ahead.len(), 12);
        let error = ahead.iter().enumerate().map(|(at, step)| (step.value / value(36 + at) - 1.0).abs()).sum::<f64>();
        assert!(error / 12.0 < 0.02, "{ahead:?}");
        assert_eq!(
            DateTime::from_timestamp_millis(ahead[0].time_ms).unwrap().to_rfc3339(),
            "2026-01-01T00:00:00+00:00"
        );
        assert_eq!(
            DateTime::from_timestamp_millis(ahead[11].time_ms).unwrap().to_rfc3339(),
            "2026-12-01T00:00:00+00:00"
        );
    }

    #[test]
    fn short_flat_and_missing_are_answered() {
        assert!(forecast(&BTreeMap::new(), 3, None).unwrap().is_empty());
        assert!(forecast(&days(&[4.0]), 3, None).unwrap().is_empty());
        let two = forecast(&days(&[4.0, 6.0]), 2, None).unwrap();
        assert_eq!(two.iter().map(|step| step.value).collect::<Vec<_>>(), [8.0, 10.0]);
        let flat = forecast(&days(&[5.0; 30]), 2, None).unwrap();
        assert!(flat.iter().all(|step| step.value == 5.0 && step.lower == 5.0 && step.upper == 5.0));
        let mut holes = days(&(0..30).map(|at| 3.0 * at as f64).collect::<Vec<_>>());
        holes.remove(&(7 * DAY_MS));
        holes.remove(&(8 * DAY_MS));
        let ahead = forecast(&holes, 1, Some(1)).unwrap();
        assert!((ahead[0].value - 90.0).abs() < 0.1, "{ahead:?}");
        assert!(forecast(&months(&[0.0; 30]), 2, None).unwrap().iter().all(|step| step.value == 0.0));
    }

    #[test]
    fn uneven_times_are_refused() {
        let points = [(0, 1.0), (1, 2.0), (1_000_000, 3.0)].into_iter().collect();
        let error = forecast(&points, 1, None).unwrap_err().to_string();
        assert!(error.contains("date_trunc('month', time)"), "{error}");
    }

    #[test]
    fn steps_are_found() {
        assert_eq!(step_of(&months(&[1.0, 2.0, 3.0])).unwrap(), Step::Months(1));
        assert_eq!(step_of(&days(&[1.0, 2.0, 3.0])).unwrap(), Step::Millis(DAY_MS));
        let mut quarters = months(&[1.0; 12]);
        quarters.retain(|time, _| month_of(*time).unwrap() % 3 == 0);
        assert_eq!(step_of(&quarters).unwrap(), Step::Months(3));
        assert_eq!(usual_season(Step::Months(3)), 4);
    }

    #[test]
    fn the_same_points_give_the_same_forecast() {
        let values: Vec<f64> = (0..40).map(|at| 100.0 + 10.0 * f64::from(at % 7) + f64::from(at * at % 13)).collect();
        assert_eq!(forecast(&days(&values), 10, None).unwrap(), forecast(&days(&values), 10, None).unwrap());
    }
}
