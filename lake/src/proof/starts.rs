//! Where windows start and end, as expressions of SQL: by DataFusion's own functions of time, not by the engine's.

use chrono::{LocalResult, NaiveDate, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use engine::{DeclaredWindows, Window};

/// Months from the year 0 to 1970.
const MONTHS_TO_1970: u32 = 1_970 * 12;
const DAYS_ORIGIN: &str = "1970-01-01T00:00:00";
/// Days from 1970 in which midnights are looked at: until 2100.
const DAYS_LOOKED_AT: usize = 130 * 366;
/// Longest time that clocks have skipped: a day, and an hour.
const SKIPPED_MINUTES_MAX: i64 = 25 * 60;

/// A moment, from ms since 1970.
pub fn moment(ms: i64) -> String {
    in_zone(&ms.to_string(), "UTC")
}

/// The interval from a window's start to its end.
pub fn interval(window: Window) -> String {
    times(window, 1)
}

/// So many widths of a window.
fn times(window: Window, count: u32) -> String {
    let count = i64::from(count);
    match window {
        Window::Fixed(width_ms) => milliseconds(width_ms * count),
        Window::Days(days, _) => format!("INTERVAL '{} days'", i64::from(days) * count),
        Window::Months(months, _) => format!("INTERVAL '{} months'", i64::from(months) * count),
    }
}

/// An interval of a fixed length.
pub fn milliseconds(ms: i64) -> String {
    format!("INTERVAL '{ms} milliseconds'")
}

/// The start of the window that holds `time`, or of one that starts earlier by the interval `back`.
pub fn start(window: Window, time: &str, back: Option<&str>) -> String {
    let stride = interval(window);
    let earlier = |start: String| back.map_or(start.clone(), |back| format!("{start} - {back}"));
    let (zone, origin) = match window {
        Window::Fixed(_) => return format!("({})", earlier(format!("date_bin({stride}, {time})"))),
        Window::Days(_, zone) => (zone, DAYS_ORIGIN.to_owned()),
        Window::Months(months, zone) => (zone, months_origin(months)),
    };
    let origin = format!("arrow_cast('{origin}', 'Timestamp(Nanosecond, None)')");
    let local = format!("to_local_time({})", in_zone(time, zone.name()));
    of_local(&earlier(format!("date_bin({stride}, {local}, {origin})")), zone)
}

/// The end of the window that starts at `start`.
pub fn end(window: Window, start: &str) -> String {
    let width = interval(window);
    match window {
        Window::Fixed(_) => format!("({start} + {width})"),
        Window::Days(_, zone) | Window::Months(_, zone) => {
            // where midnight is skipped a day starts later
            let day = format!("date_trunc('day', to_local_time({}))", in_zone(start, zone.name()));
            of_local(&format!("{day} + {width}"), zone)
        }
    }
}

/// By what intervals the windows that hold a time start before the last of them.
pub fn backs(slide: Window, size: Window) -> Vec<String> {
    (0..overlap(slide, size)).map(|count| times(slide, count)).collect()
}

/// Most windows that a time lies in.
fn overlap(slide: Window, size: Window) -> u32 {
    let units = |window: Window| match window {
        Window::Fixed(ms) => ms,
        Window::Days(count, _) | Window::Months(count, _) => i64::from(count),
    };
    let (slide, size) = (units(slide).max(1), units(size));
    u32::try_from((size + slide - 1) / slide).unwrap_or(u32::MAX)
}

/// How long a window can be, in ms: the days of the widest month, and an hour for clocks that go back.
pub fn longest_ms(windows: DeclaredWindows) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    let of = |window: Window| match window {
        Window::Fixed(ms) => ms,
        Window::Days(days, _) => (i64::from(days) + 1) * DAY_MS,
        Window::Months(months, _) => (i64::from(months) * 31 + 1) * DAY_MS,
    };
    match windows {
        DeclaredWindows::Tumble(window) => of(window),
        DeclaredWindows::Hop { size, .. } => of(size),
        DeclaredWindows::Session(gap_ms) => gap_ms,
    }
}

/// The first start of a window at or after 1970: windows of months are counted from January of the year 0.
fn months_origin(months: u32) -> String {
    let at = MONTHS_TO_1970.div_ceil(months.max(1)) * months.max(1);
    format!("{:04}-{:02}-01T00:00:00", at / 12, at % 12 + 1)
}

fn in_zone(time: &str, zone: &str) -> String {
    format!("arrow_cast({time}, 'Timestamp(Millisecond, Some(\"{zone}\"))')")
}

/// The moment at which a local day begins.
fn of_local(day: &str, zone: Tz) -> String {
    let regular = in_zone(&in_zone(day, zone.name()), "UTC");
    let odd = odd_midnights(zone);
    if odd.is_empty() {
        return regular;
    }
    let cases: String =
        odd.iter().map(|(local_ms, at_ms)| format!(" WHEN {local_ms} THEN {}", moment(*at_ms))).collect();
    format!("CASE arrow_cast({day}, 'Int64'){cases} ELSE {regular} END")
}

/// The midnights that a zone's clocks skip or show twice, which DataFusion knows no moment for, and when those days begin: both in
/// ms, as if the local time were UTC, and since 1970.
fn odd_midnights(zone: Tz) -> Vec<(i64, i64)> {
    let odd = |day: NaiveDate| {
        let midnight = day.and_time(NaiveTime::MIN);
        let begins = match zone.from_local_datetime(&midnight) {
            LocalResult::Single(_) => return None,
            LocalResult::Ambiguous(one, other) => one.min(other),
            LocalResult::None => {
                let mut after = (1..=SKIPPED_MINUTES_MAX).map(|minutes| midnight + TimeDelta::minutes(minutes));
                after.find_map(|local| zone.from_local_datetime(&local).earliest())?
            }
        };
        Some((midnight.and_utc().timestamp_millis(), begins.timestamp_millis()))
    };
    NaiveDate::default().iter_days().take(DAYS_LOOKED_AT).filter_map(odd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_months_are_counted_from_the_year_0() {
        // 1970 years are 394 times 60 months, 197 times 120; 23,640 months are no multiple of 7, of 11 and of 18.
        let cases = [
            (1, "1970-01-01"),
            (12, "1970-01-01"),
            (60, "1970-01-01"),
            (7, "1970-07-01"),
            (11, "1970-11-01"),
            (18, "1971-01-01"),
        ];
        for (months, origin) in cases {
            assert_eq!(months_origin(months), format!("{origin}T00:00:00"), "{months}");
        }
    }

    #[test]
    fn days_begin_where_clocks_skip_midnight_or_show_it_twice() {
        let at = |zone: Tz, day: &str| {
            let day = format!("{day}T00:00:00Z").parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_millis();
            let found = odd_midnights(zone).into_iter().find(|(local_ms, _)| *local_ms == day);
            found.map(|(_, at_ms)| chrono::DateTime::from_timestamp_millis(at_ms).unwrap().to_rfc3339())
        };
        assert_eq!(at(chrono_tz::Europe::Paris, "2026-03-29"), None);
        assert_eq!(at(chrono_tz::America::Santiago, "2024-09-08").as_deref(), Some("2024-09-08T04:00:00+00:00"));
        // in Havana clocks go back from 01:00 to 00:00
        assert_eq!(at(chrono_tz::America::Havana, "2024-11-03").as_deref(), Some("2024-11-03T04:00:00+00:00"));
        assert!(odd_midnights(Tz::UTC).is_empty());
    }

    #[test]
    fn a_time_lies_in_each_window_once() {
        let minutes = |minutes: i64| Window::Fixed(minutes * 60_000);
        assert_eq!(backs(minutes(1), minutes(1)), [milliseconds(0)]);
        assert_eq!(backs(minutes(10), minutes(25)), [0, 600_000, 1_200_000].map(milliseconds));
    }
}
