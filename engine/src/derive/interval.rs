//! How near in event time two rows must be to meet, as a pure rule over milliseconds: which rows one can still meet, when it
//! can meet none any more, and where the conditions of ON say all this.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

/// Rows that wait lie in buckets of event time that are at least as wide as this, so that few ranges are deleted.
const BUCKET_MS_MIN: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
const MS_NANOS: i64 = 1_000_000;

/// A side of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The stream after FROM.
    Left = 0,
    /// The stream after JOIN.
    Right = 1,
}

/// How far the event time of a row on the right may lie from that of one on the left; both ends count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(super) least_ms: i64,
    pub(super) most_ms: i64,
}

/// The event-time columns of both sides, as conditions name them.
pub(super) struct Times<'a> {
    pub(super) left: (&'a DFSchema, &'a str),
    pub(super) right: (&'a DFSchema, &'a str),
}

impl Side {
    pub(crate) const BOTH: [Side; 2] = [Side::Left, Side::Right];

    pub(crate) fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

impl Interval {
    /// The event times of the rows on the other side that a row can meet: from, to, both ends count.
    pub(super) fn reach(self, side: Side, time_ms: i64) -> (i64, i64) {
        let Interval { least_ms, most_ms } = self;
        match side {
            Side::Left => (time_ms.saturating_add(least_ms), time_ms.saturating_add(most_ms)),
            Side::Right => (time_ms.saturating_sub(most_ms), time_ms.saturating_sub(least_ms)),
        }
    }

    /// The event time before which rows of a side meet nobody any more, when all that is before `closed_until` is late.
    pub(super) fn done_before(self, side: Side, closed_until: i64) -> i64 {
        match side {
            Side::Left => closed_until.saturating_sub(self.most_ms),
            Side::Right => closed_until.saturating_add(self.least_ms),
        }
    }

    /// How far a row that comes out can be behind the newest, beside what the rows that go in were.
    pub(super) fn delay_ms(self) -> i64 {
        self.most_ms.max(0).saturating_sub(self.least_ms.min(0))
    }

    /// The bucket that holds a time: what one row can meet lies in two of them at most.
    pub(super) fn bucket(self, time_ms: i64) -> i64 {
        let width_ms = self.most_ms.saturating_sub(self.least_ms).saturating_add(1).max(BUCKET_MS_MIN);
        time_ms.div_euclid(width_ms)
    }
}

/// A row is late for a join when rows that it could meet may be gone.
pub(super) fn is_late(time_ms: i64, closed_until: Option<i64>) -> bool {
    closed_until.is_some_and(|closed_until| time_ms < closed_until)
}

/// What is known of an interval, from one condition after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bounds {
    pub(super) least_ms: Option<i64>,
    pub(super) most_ms: Option<i64>,
}

impl Bounds {
    /// As `WITHIN` says: as far before as after.
    pub(super) fn within(ms: i64) -> Bounds {
        Bounds { least_ms: Some(ms.saturating_neg()), most_ms: Some(ms) }
    }

    fn at_least(&mut self, ms: i64) {
        self.least_ms = Some(self.least_ms.map_or(ms, |known| known.max(ms)));
    }

    fn at_most(&mut self, ms: i64) {
        self.most_ms = Some(self.most_ms.map_or(ms, |known| known.min(ms)));
    }

    /// Takes in a condition on event times. Whether it was one: all that it says is known then.
    pub(super) fn take(&mut self, condition: &Expr, times: &Times<'_>) -> bool {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.compare((left, *op, right), times),
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let mut bounds = *self;
                let is_taken = bounds.compare((expr, Operator::GtEq, low), times)
                    && bounds.compare((expr, Operator::LtEq, high), times);
                if is_taken {
                    *self = bounds;
                }
                is_taken
            }
            _ => false,
        }
    }

    fn compare(&mut self, (one, op, other): (&Expr, Operator, &Expr), times: &Times<'_>) -> bool {
        let (Some(one), Some(other)) = (times.place(one), times.place(other)) else { return false };
        // How far the right is from the left: `right + a op left + b` is `right - left op b - a`.
        let (op, ms) = match (one, other) {
            ((Side::Right, a), (Side::Left, b)) => (op, b.saturating_sub(a)),
            ((Side::Left, a), (Side::Right, b)) => match op.swap() {
                Some(op) => (op, a.saturating_sub(b)),
                None => return false,
            },
            _ => return false,
        };
        match op {
            Operator::GtEq => self.at_least(ms),
            Operator::Gt => self.at_least(ms.saturating_add(1)),
            Operator::LtEq => self.at_most(ms),
            Operator::Lt => self.at_most(ms.saturating_sub(1)),
            Operator::Eq => {
                self.at_least(ms);
                self.at_most(ms);
            }
            _ => return false,
        }
        true
    }

    /// The interval; Err says what is missing.
    pub(super) fn interval(self, (left, right): (&str, &str)) -> Result<Interval, String> {
        let (Some(least_ms), Some(most_ms)) = (self.least_ms, self.most_ms) else {
            return Err(format!(
                "streams are joined within a time, or every row would be kept for ever: write JOIN … WITHIN 1 HOUR ON …, or \
                 ON … AND {right} BETWEEN {left} - INTERVAL '10' MINUTE AND {left} + INTERVAL '1' HOUR"
            ));
        };
        if least_ms > most_ms {
            return Err(format!(
                "no two rows are near enough: {right} would have to be at least {least_ms} ms and at most {most_ms} ms \
                 after {left}"
            ));
        }
        Ok(Interval { least_ms, most_ms })
    }
}

impl Times<'_> {
    /// The side whose event time an expression is, and how many milliseconds it adds.
    fn place(&self, expr: &Expr) -> Option<(Side, i64)> {
        match expr {
            Expr::Column(column) => self.side(column).map(|side| (side, 0)),
            Expr::Alias(alias) => self.place(&alias.expr),
            // A cast that keeps milliseconds changes no comparison.
            Expr::Cast(cast) if is_exact(&cast.data_type) => self.place(&cast.expr),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
                let (place, more) = match (self.place(left), self.place(right)) {
                    (Some(place), None) => (place, millis(right)?),
                    (None, Some(place)) => (place, millis(left)?),
                    _ => return None,
                };
                Some((place.0, place.1.checked_add(more)?))
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
                let (side, ms) = self.place(left)?;
                Some((side, ms.checked_sub(millis(right)?)?))
            }
            _ => None,
        }
    }

    fn side(&self, column: &Column) -> Option<Side> {
        let is = |(schema, name): (&DFSchema, &str)| column.name == name && schema.has_column(column);
        match (is(self.left), is(self.right)) {
            (true, false) => Some(Side::Left),
            (false, true) => Some(Side::Right),
            _ => None,
        }
    }
}

fn is_exact(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _))
}

/// A length of time that is written out; None for months, which are not equally long.
fn millis(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) if value.months == 0 => {
            let of_day = (value.nanoseconds % MS_NANOS == 0).then_some(value.nanoseconds / MS_NANOS)?;
            i64::from(value.days).checked_mul(DAY_MS)?.checked_add(of_day)
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(value)), _) => {
            i64::from(value.days).checked_mul(DAY_MS)?.checked_add(i64::from(value.milliseconds))
        }
        Expr::Literal(ScalarValue::DurationMillisecond(Some(ms)), _) => Some(*ms),
        Expr::Negative(inner) => millis(inner)?.checked_neg(),
        Expr::Cast(cast) => millis(&cast.expr),
        Expr::Alias(alias) => millis(&alias.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom a row reaches, reaches it: whatever comes first.
    #[test]
    fn both_sides_agree_who_meets() {
        for (least_ms, most_ms) in [(-5, 5), (0, 0), (2, 7), (-7, -2), (0, 100_000)] {
            let interval = Interval { least_ms, most_ms };
            for left in -20_i64..20 {
                for right in -20_i64..20 {
                    let meets = (least_ms..=most_ms).contains(&(right - left));
                    let (from, to) = interval.reach(Side::Left, left);
                    assert_eq!((from..=to).contains(&right), meets, "{interval:?} {left} {right}");
                    let (from, to) = interval.reach(Side::Right, right);
                    assert_eq!((from..=to).contains(&left), meets, "{interval:?} {left} {right}");
                    let buckets = [interval.bucket(from), interval.bucket(to)];
                    assert!(buckets[1] - buckets[0] <= 1, "{buckets:?}");
                }
            }
        }
    }

    /// A row is done exactly when all that it could meet would be late.
    #[test]
    fn a_row_waits_as_long_as_somebody_can_come() {
        for (least_ms, most_ms) in [(-5, 5), (0, 0), (2, 7), (-7, -2)] {
            let interval = Interval { least_ms, most_ms };
            for side in Side::BOTH {
                for (time, closed) in (-20_i64..20).flat_map(|time| (-20_i64..20).map(move |closed| (time, closed))) {
                    let (from, to) = interval.reach(side, time);
                    let all_late = (from..=to).all(|other| is_late(other, Some(closed)));
                    assert_eq!(
                        time < interval.done_before(side, closed),
                        all_late,
                        "{interval:?} {side:?} {time} {closed}"
                    );
                }
            }
            assert!(!is_late(i64::MIN, None));
        }
    }

    #[test]
    fn what_comes_out_is_behind_by_the_interval() {
        let delay = |least_ms, most_ms| Interval { least_ms, most_ms }.delay_ms();
        assert_eq!([delay(-5, 5), delay(0, 9), delay(2, 7), delay(-7, -2), delay(0, 0)], [10, 9, 7, 7, 0]);
    }

    #[test]
    fn bounds_are_met_by_all_conditions() {
        let mut bounds = Bounds::within(10);
        bounds.at_least(-3);
        bounds.at_most(20);
        assert_eq!(bounds.interval(("a.ts", "b.ts")), Ok(Interval { least_ms: -3, most_ms: 10 }));
        bounds.at_most(-4);
        assert!(bounds.interval(("a.ts", "b.ts")).unwrap_err().contains("no two rows"));
        let missing = Bounds { least_ms: Some(0), most_ms: None }.interval(("a.ts", "b.ts"));
        assert!(missing.unwrap_err().contains("b.ts BETWEEN a.ts"));
    }
}
