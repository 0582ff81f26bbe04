//! Times of jobs: cron expressions in a time zone, the day that a run is about, deadlines.

use std::str::FromStr;

use broker::TimestampMs;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::{Cron, JobType};

/// A cron expression in a zone. Never changes.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    cron: Cron,
    zone: Tz,
}

impl Schedule {
    /// Reads a cron expression of five fields (or six, with seconds first).
    ///
    /// # Errors
    /// What is wrong with it, for the person who wrote it.
    pub fn parse(text: &str, zone: Tz) -> Result<Schedule, String> {
        let cron = Cron::from_str(text).map_err(|error| {
            format!(
                "{text:?} is not a cron expression ({error}): write minute, hour, day, month and weekday, as in \"0 2 * * *\""
            )
        })?;
        Ok(Schedule { text: text.to_owned(), cron, zone })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first time after a moment; none when there is none within the calendar.
    pub fn next_after(&self, after: TimestampMs) -> Option<TimestampMs> {
        let from = local(after, self.zone)?;
        // In autumn an hour is there twice. What has a fixed time runs in the first; from within the second the search
        // begins after it.
        let starts = (0..4).map(|hours| from + TimeDelta::hours(hours));
        let mut found = starts.filter_map(|start| self.cron.find_next_occurrence(&start, false).ok());
        let next = found.find(|next| next.timestamp_millis() > after)?;
        let mut times = vec![next.timestamp_millis()];
        // What runs every so often runs in both.
        if self.cron.determine_job_type() == JobType::IntervalWildcard {
            for offset in [from.offset().fix(), next.offset().fix()] {
                let time = self.cron.find_next_occurrence(&from.with_timezone(&offset), false).ok()?;
                let is_real = time.with_timezone(&self.zone).offset().fix() == offset;
                times.extend(Some(time.timestamp_millis()).filter(|_| is_real));
            }
        }
        times.into_iter().filter(|time| *time > after).min()
    }
}

/// Reads the name of a time zone.
///
/// # Errors
/// That there is none of this name, with an example.
pub fn zone(name: &str) -> Result<Tz, String> {
    Tz::from_str(name).map_err(|_| format!("{name:?} is not a time zone: write UTC, or one such as Europe/Paris"))
}

/// The day that a moment is in.
pub fn day_of(at: TimestampMs, zone: Tz) -> NaiveDate {
    local(at, zone).map_or(NaiveDate::MIN, |time| time.date_naive())
}

/// The day before the one that a moment is in.
pub fn day_before(at: TimestampMs, zone: Tz) -> NaiveDate {
    let today = day_of(at, zone);
    today.checked_sub_days(Days::new(1)).unwrap_or(today)
}

/// The first moment from `from` on at which clocks in the zone show `time`.
pub fn deadline(from: TimestampMs, time: NaiveTime, zone: Tz) -> Option<TimestampMs> {
    let day = local(from, zone)?.date_naive();
    (0..3).find_map(|days| {
        let wanted = day.checked_add_days(Days::new(days))?.and_time(time);
        // A time that spring leaves out is the first one after it.
        let found =
            (0..4).find_map(|hours| zone.from_local_datetime(&(wanted + TimeDelta::minutes(30 * hours))).earliest())?;
        Some(found.timestamp_millis()).filter(|ms| *ms >= from)
    })
}

fn local(at: TimestampMs, zone: Tz) -> Option<DateTime<Tz>> {
    DateTime::<Utc>::from_timestamp_millis(at).map(|time| time.with_timezone(&zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> TimestampMs {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    fn times(cron: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(cron, zone("Europe/Paris").unwrap()).unwrap();
        let mut at = ms(from);
        let mut next = || {
            at = schedule.next_after(at).unwrap();
            crate::output::time_text(at)
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn two_in_the_morning_stays_two_in_the_morning() {
        // Clocks go back at 01:00 UTC on 25 October 2026, forward at 01:00 UTC on 29 March 2026.
        let autumn = times("0 2 * * *", "2026-10-23T12:00:00Z", 4);
        assert_eq!(
            autumn,
            ["2026-10-24T00:00:00Z", "2026-10-25T00:00:00Z", "2026-10-26T01:00:00Z", "2026-10-27T01:00:00Z"]
        );
        let spring = times("0 4 * * *", "2026-03-27T12:00:00Z", 3);
        assert_eq!(spring, ["2026-03-28T03:00:00Z", "2026-03-29T02:00:00Z", "2026-03-30T02:00:00Z"]);
    }

    #[test]
    fn a_time_that_spring_leaves_out_runs_once_and_one_that_is_there_twice_runs_once() {
        let spring = times("30 2 * * *", "2026-03-28T12:00:00Z", 2);
        assert!(spring[0].starts_with("2026-03-29T01:"), "right after the gap: {spring:?}");
        assert_eq!(spring[1], "2026-03-30T00:30:00Z");
        let autumn = times("30 2 * * *", "2026-10-24T12:00:00Z", 3);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z", "2026-10-27T01:30:00Z"]);
    }

    #[test]
    fn every_quarter_of_an_hour_never_stops_and_never_goes_back() {
        for from in ["2026-10-24T23:00:00Z", "2026-03-28T23:00:00Z"] {
            let schedule = Schedule::parse("*/15 * * * *", zone("Europe/Paris").unwrap()).unwrap();
            let mut at = ms(from);
            for _ in 0..40 {
                let next = schedule.next_after(at).unwrap();
                assert!(next > at && next - at <= 15 * 60_000, "{} after {}", next, at);
                at = next;
            }
        }
    }

    #[test]
    fn a_run_is_about_the_day_before_in_its_zone() {
        let paris = zone("Europe/Paris").unwrap();
        assert_eq!(day_before(ms("2026-11-20T00:00:00+01:00"), paris).to_string(), "2026-11-19");
        assert_eq!(day_before(ms("2026-11-19T23:59:59+01:00"), paris).to_string(), "2026-11-18");
        assert_eq!(day_before(ms("2026-03-01T02:00:00+01:00"), paris).to_string(), "2026-02-28");
    }

    #[test]
    fn a_deadline_is_the_next_such_time() {
        let paris = zone("Europe/Paris").unwrap();
        let three = NaiveTime::from_hms_opt(3, 0, 0).unwrap();
        assert_eq!(deadline(ms("2026-11-20T02:00:00+01:00"), three, paris), Some(ms("2026-11-20T03:00:00+01:00")));
        assert_eq!(deadline(ms("2026-11-20T04:00:00+01:00"), three, paris), Some(ms("2026-11-21T03:00:00+01:00")));
        let gap = NaiveTime::from_hms_opt(2, 30, 0).unwrap();
        assert_eq!(deadline(ms("2026-03-29T00:30:00+01:00"), gap, paris), Some(ms("2026-03-29T03:00:00+02:00")));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        assert!(Schedule::parse("every day", Tz::UTC).unwrap_err().contains("0 2 * * *"));
        assert!(zone("Paris").unwrap_err().contains("Europe/Paris"));
    }
}
