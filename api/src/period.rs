//! Lengths of time that people choose on a page: `15m`, `24h`, `7d` up to now; whole calendar months, a year, today.

use broker::TimestampMs;
use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};

const MINUTE: i64 = 60_000;

/// A length of time that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// So many milliseconds.
    Rolling(i64),
    /// The current calendar month and those before it, so many altogether.
    Months(u32),
    /// Since midnight, UTC.
    Today,
    /// Since the first of January, UTC.
    YearToDate,
    /// Without a beginning.
    All,
}

impl Period {
    /// Reads a word; none if it is not one.
    pub fn parse(word: &str) -> Option<Period> {
        match word {
            "all" => return Some(Period::All),
            "today" => return Some(Period::Today),
            "month" => return Some(Period::Months(1)),
            "ytd" => return Some(Period::YearToDate),
            _ => {}
        }
        let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let count: u32 = digits.parse().ok().filter(|count| (1..=10_000).contains(count))?;
        let rolling = |unit: i64| Some(Period::Rolling(i64::from(count) * unit));
        match &word[digits.len()..] {
            "s" => rolling(1_000),
            "m" | "min" => rolling(MINUTE),
            "h" => rolling(60 * MINUTE),
            "d" => rolling(24 * 60 * MINUTE),
            "w" => rolling(7 * 24 * 60 * MINUTE),
            "mo" => Some(Period::Months(count)),
            "y" => Some(Period::Months(count.checked_mul(12)?)),
            _ => None,
        }
    }

    /// Where it begins when it ends at `now`; none for all of history.
    pub fn start(self, now: TimestampMs) -> Option<TimestampMs> {
        let today = DateTime::<Utc>::from_timestamp_millis(now)?.date_naive();
        let day = match self {
            Period::All => return None,
            Period::Rolling(ms) => return Some(now.saturating_sub(ms)),
            Period::Today => today,
            Period::YearToDate => NaiveDate::from_ymd_opt(today.year(), 1, 1)?,
            Period::Months(count) => today.with_day(1)?.checked_sub_months(Months::new(count - 1))?,
        };
        Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::time_text;

    #[test]
    fn periods_begin_where_people_expect() {
        let now = 1_795_176_754_321; // 2026-11-20T12:12:34.321Z
        for (word, start) in [
            ("15m", "2026-11-20T11:57:34.321Z"),
            ("7d", "2026-11-13T12:12:34.321Z"),
            ("today", "2026-11-20T00:00:00Z"),
            ("month", "2026-11-01T00:00:00Z"),
            ("3mo", "2026-09-01T00:00:00Z"),
            ("12mo", "2025-12-01T00:00:00Z"),
            ("1y", "2025-12-01T00:00:00Z"),
            ("ytd", "2026-01-01T00:00:00Z"),
        ] {
            let period = Period::parse(word).unwrap();
            assert_eq!(period.start(now).map(time_text).as_deref(), Some(start), "{word}");
        }
        assert_eq!(Period::All.start(now), None);
        for word in ["", "mo", "0d", "-1d", "1x", "99999d", "1.5h"] {
            assert_eq!(Period::parse(word), None, "{word}");
        }
    }
}
