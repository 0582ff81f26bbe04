//! Tumbling windows and lateness, as pure rules over milliseconds.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;

/// The end that stands for "no window" in state keys: it sorts after every real window.
pub(crate) const NO_WINDOW_END: i64 = i64::MAX;

/// How event time is cut into windows. Each time lies in exactly one window, `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// All of one width in milliseconds, aligned to 1970-01-01 UTC.
    Fixed(i64),
    /// So many calendar days of a time zone, aligned to 1970-01-01 there; a day is 23 to 25 hours long where clocks change.
    Days(u32, Tz),
    /// So many calendar months of a time zone, aligned to January of year 0.
    Months(u32, Tz),
}

impl Window {
    /// The start of the window that holds the time.
    pub fn start_of(self, time_ms: i64) -> i64 {
        match self {
            Window::Fixed(width_ms) => time_ms - time_ms.rem_euclid(width_ms),
            Window::Days(days, zone) => {
                let date = date_of(time_ms, zone);
                let past = u64::from(days_past(date, days));
                midnight_ms(date.checked_sub_days(Days::new(past)).unwrap_or(date), zone)
            }
            Window::Months(months, zone) => {
                let date = date_of(time_ms, zone);
                let first = date.with_day(1).unwrap_or(date);
                let month = i64::from(first.year()) * 12 + i64::from(first.month0());
                let past = u32::try_from(month.rem_euclid(i64::from(months))).unwrap_or(0);
                midnight_ms(first.checked_sub_months(Months::new(past)).unwrap_or(first), zone)
            }
        }
    }

    /// The end of the window that starts then.
    pub fn end_of(self, start_ms: i64) -> i64 {
        match self {
            Window::Fixed(width_ms) => start_ms.saturating_add(width_ms),
            Window::Days(days, zone) => {
                let date = date_of(start_ms, zone);
                midnight_ms(date.checked_add_days(Days::new(u64::from(days))).unwrap_or(date), zone)
            }
            Window::Months(months, zone) => {
                let date = date_of(start_ms, zone);
                midnight_ms(date.checked_add_months(Months::new(months)).unwrap_or(date), zone)
            }
        }
    }

    /// The start of the window that ends then.
    pub fn start_before(self, end_ms: i64) -> i64 {
        match self {
            Window::Fixed(width_ms) => end_ms.saturating_sub(width_ms),
            Window::Days(..) | Window::Months(..) => self.start_of(end_ms.saturating_sub(1)),
        }
    }

    /// The end of the first window that starts at or after the time.
    pub(crate) fn end_from(self, time_ms: i64) -> i64 {
        match self {
            Window::Fixed(width_ms) => time_ms.saturating_add(width_ms),
            Window::Days(..) | Window::Months(..) => {
                let start = self.start_of(time_ms);
                let first = if start == time_ms { start } else { self.end_of(start) };
                self.end_of(first)
            }
        }
    }

    /// The number of the window that holds the time: they are numbered in their order.
    pub(crate) fn index_of(self, time_ms: i64) -> i64 {
        match self {
            Window::Fixed(width_ms) => time_ms.div_euclid(width_ms),
            Window::Days(days, zone) => days_since_epoch(date_of(time_ms, zone)).div_euclid(i64::from(days)),
            Window::Months(months, zone) => {
                let date = date_of(time_ms, zone);
                (i64::from(date.year()) * 12 + i64::from(date.month0())).div_euclid(i64::from(months))
            }
        }
    }

    /// The start of the window of this number.
    pub(crate) fn start_at(self, index: i64) -> i64 {
        match self {
            Window::Fixed(width_ms) => index.saturating_mul(width_ms),
            Window::Days(days, zone) => {
                let past = TimeDelta::try_days(index.saturating_mul(i64::from(days)));
                let date = past.and_then(|past| NaiveDate::default().checked_add_signed(past));
                midnight_ms(date.unwrap_or_default(), zone)
            }
            Window::Months(months, zone) => {
                let month = index.saturating_mul(i64::from(months));
                let year = i32::try_from(month.div_euclid(12)).unwrap_or(i32::MAX);
                let month = u32::try_from(month.rem_euclid(12)).unwrap_or(0) + 1;
                midnight_ms(NaiveDate::from_ymd_opt(year, month, 1).unwrap_or_default(), zone)
            }
        }
    }

    /// Its width in milliseconds: exact where all have the same, else of 24-hour days and 30-day months.
    pub fn nominal_ms(self) -> i64 {
        match self {
            Window::Fixed(width_ms) => width_ms,
            Window::Days(days, _) => i64::from(days) * DAY_MS,
            Window::Months(months, _) => i64::from(months) * 30 * DAY_MS,
        }
    }
}

const DAY_MS: i64 = 86_400_000;

/// The date in the zone; times that no calendar can show count as the epoch.
fn date_of(time_ms: i64, zone: Tz) -> NaiveDate {
    DateTime::from_timestamp_millis(time_ms).unwrap_or_default().with_timezone(&zone).date_naive()
}

fn days_since_epoch(date: NaiveDate) -> i64 {
    i64::from(date.num_days_from_ce()) - i64::from(NaiveDate::default().num_days_from_ce())
}

/// Days since the last multiple of `days`, counted from 1970-01-01.
fn days_past(date: NaiveDate, days: u32) -> u32 {
    u32::try_from(days_since_epoch(date).rem_euclid(i64::from(days.max(1)))).unwrap_or(0)
}

/// When a day begins: its midnight, the first one where clocks go back over it, and the end of the gap where they skip it.
fn midnight_ms(date: NaiveDate, zone: Tz) -> i64 {
    let midnight = date.and_time(NaiveTime::MIN);
    let quarter_hours = (0..=96).map(|quarter| midnight + TimeDelta::minutes(15 * quarter));
    let mut starts = quarter_hours.filter_map(|local| zone.from_local_datetime(&local).earliest());
    starts.next().map_or_else(|| midnight.and_utc().timestamp_millis(), |start| start.timestamp_millis())
}

/// A row is late for a view when its window has been closed: when its end is not after `closed_until`.
pub(crate) fn is_late(window_end_ms: i64, closed_until: Option<i64>) -> bool {
    closed_until.is_some_and(|closed_until| window_end_ms <= closed_until)
}

/// Up to where windows are closed: those that end at or before the event watermark less the lateness. Never goes back.
pub(crate) fn closed_until(before: Option<i64>, event_watermark: Option<i64>, lateness_ms: i64) -> Option<i64> {
    before.max(event_watermark.map(|watermark| watermark.saturating_sub(lateness_ms)))
}

/// Finds windows of many times that mostly lie in the same one, so that the calendar is asked once per window.
pub(crate) struct Finder {
    window: Window,
    start_ms: i64,
    end_ms: i64,
}

impl Finder {
    pub(crate) fn new(window: Window) -> Finder {
        Finder { window, start_ms: 0, end_ms: 0 }
    }

    /// Start and end of the window that holds the time.
    pub(crate) fn bounds(&mut self, time_ms: i64) -> (i64, i64) {
        if !(self.start_ms..self.end_ms).contains(&time_ms) {
            self.start_ms = self.window.start_of(time_ms);
            self.end_ms = self.window.end_of(self.start_ms);
        }
        (self.start_ms, self.end_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_aligned_to_the_epoch() {
        let cases = [(0, 0), (59_999, 0), (60_000, 60_000), (-1, -60_000), (-60_000, -60_000), (-60_001, -120_000)];
        for (time_ms, start) in cases {
            assert_eq!(Window::Fixed(60_000).start_of(time_ms), start, "{time_ms}");
        }
    }

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[test]
    fn calendar_windows_follow_months_and_clock_changes() {
        let (paris, utc) = (chrono_tz::Europe::Paris, Tz::UTC);
        let cases = [
            (Window::Months(1, utc), "2026-02-28T23:59:59.999Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
            (Window::Months(3, utc), "2026-11-21T07:00:00Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (Window::Months(12, utc), "2024-02-29T07:00:00Z", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            (
                Window::Months(1, paris),
                "2026-03-31T22:00:00Z",
                "2026-04-01T00:00:00+02:00",
                "2026-05-01T00:00:00+02:00",
            ),
            (
                Window::Months(1, paris),
                "2026-03-31T21:59:59Z",
                "2026-03-01T00:00:00+01:00",
                "2026-04-01T00:00:00+02:00",
            ),
            (Window::Days(1, paris), "2026-03-29T12:00:00Z", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
            (Window::Days(1, paris), "2026-10-25T12:00:00Z", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
            (Window::Days(7, utc), "1970-01-08T00:00:00Z", "1970-01-08T00:00:00Z", "1970-01-15T00:00:00Z"),
            // no midnight on that day: clocks went from 23:59 to 01:00
            (
                Window::Days(1, chrono_tz::America::Santiago),
                "2024-09-08T12:00:00Z",
                "2024-09-08T04:00:00Z",
                "2024-09-09T03:00:00Z",
            ),
        ];
        for (window, time, start, end) in cases {
            assert_eq!(window.start_of(ms(time)), ms(start), "{window:?} {time}");
            assert_eq!(window.end_of(ms(start)), ms(end), "{window:?} {time}");
            assert_eq!(window.start_before(ms(end)), ms(start), "{window:?} {time}");
            assert_eq!(window.end_from(ms(start)), ms(end), "{window:?} {time}");
            assert_eq!(window.end_from(ms(start) + 1), window.end_of(ms(end)), "{window:?} {time}");
            assert_eq!(window.start_at(window.index_of(ms(time))), ms(start), "{window:?} {time}");
            assert_eq!(window.start_at(window.index_of(ms(time)) + 1), ms(end), "{window:?} {time}");
        }
    }

    /// Windows of a zone's years follow each other without gap or overlap.
    #[test]
    fn calendar_windows_tile_time() {
        for zone in [Tz::UTC, chrono_tz::Europe::Paris, chrono_tz::America::Santiago, chrono_tz::Asia::Kolkata] {
            for window in
                [Window::Days(1, zone), Window::Days(10, zone), Window::Months(1, zone), Window::Months(5, zone)]
            {
                let mut start = window.start_of(ms("2019-12-31T00:00:00Z"));
                while start < ms("2026-01-01T00:00:00Z") {
                    let end = window.end_of(start);
                    assert!(end > start, "{window:?} {start}");
                    assert_eq!(window.start_of(end), end, "{window:?} {start}");
                    assert_eq!(window.start_of(end - 1), start, "{window:?} {start}");
                    start = end;
                }
            }
        }
    }

    #[test]
    fn a_window_closes_when_the_watermark_passes_its_end_plus_lateness() {
        let closed = closed_until(None, Some(70_000), 10_000);
        assert_eq!(closed, Some(60_000));
        assert!(is_late(60_000, closed));
        assert!(!is_late(60_001, closed));
        assert!(!is_late(60_000, None));
        assert_eq!(closed_until(closed, Some(65_000), 10_000), Some(60_000), "it never opens again");
        assert_eq!(closed_until(closed, None, 0), Some(60_000));
    }
}
