//! The windows of a view, as pure rules: which of them a row counts in, where they start and end, and which it missed.
//!
//! Windows that overlap are kept by panes. A pane is as wide as the greatest common divisor of slide and size, so each
//! window is a whole number of panes, and a row is aggregated once, into its pane; windows are put together when they are
//! read or closed (`spread`). A row that comes when some of its pane's windows are closed must not change these: it goes to a
//! state of its own beside the pane's, with the number of windows it missed, and counts from the first one on that it did not.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};

use crate::window::{Finder, Window, is_late};

/// Most panes of a window of HOP: a day by the minute.
const PANES_MAX: i64 = 1_440;
/// Times beyond it are as good as never.
const TIME_MS_MAX: i64 = i64::MAX / 4;

/// How event time is cut into the windows of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// One after the other: each time lies in one.
    Tumble(Window),
    /// One at every slide, each longer than that: a time lies in several.
    Hop(Hop),
    /// Rows of one key that follow each other within so many milliseconds; from the first to the last, and that long after it.
    Session(i64),
}

/// Windows that overlap: window `n` is the panes from `n * slide` on, `size` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    pane: Window,
    slide: i64,
    size: i64,
}

/// Where a row is kept: its pane, and how many of the pane's windows were closed when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pane: i64,
    pub(crate) missed: i64,
}

/// Whether a row came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lateness {
    OnTime,
    /// All its windows are closed; the first of them starts then.
    Late {
        window_start: i64,
    },
    /// Some of its windows are closed; it counts in those that start at or after `counted_from`.
    Partly {
        window_start: i64,
        counted_from: i64,
    },
}

impl Windows {
    /// The function's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Windows::Tumble(_) => "TUMBLE",
            Windows::Hop(_) => "HOP",
            Windows::Session(_) => "SESSION",
        }
    }

    /// How long a window is, of a session the gap, in milliseconds: calendar windows of 24-hour days and 30-day months.
    pub fn nominal_ms(self) -> i64 {
        match self {
            Windows::Tumble(window) => window.nominal_ms(),
            Windows::Hop(hop) => hop.pane.nominal_ms() * hop.size,
            Windows::Session(gap_ms) => gap_ms,
        }
    }

    /// From the start of a window to that of the next one; None for sessions, which start when they will.
    pub fn step_ms(self) -> Option<i64> {
        match self {
            Windows::Tumble(window) => Some(window.nominal_ms()),
            Windows::Hop(hop) => Some(hop.pane.nominal_ms() * hop.slide),
            Windows::Session(_) => None,
        }
    }

    /// Whether a row may count in several windows, so that adding up windows counts it several times.
    pub fn overlap(self) -> bool {
        matches!(self, Windows::Hop(hop) if hop.size > hop.slide)
    }
}

impl Hop {
    /// Windows of this size, one at each slide.
    ///
    /// # Errors
    /// What to write instead.
    pub fn new(slide: Window, size: Window) -> Result<Hop, String> {
        let (of, slide, size) = match (slide, size) {
            (Window::Fixed(slide), Window::Fixed(size)) => (Window::Fixed(1), slide, size),
            (Window::Days(slide, zone), Window::Days(size, other)) if zone == other => {
                (Window::Days(1, zone), i64::from(slide), i64::from(size))
            }
            (Window::Months(slide, zone), Window::Months(size, other)) if zone == other => {
                (Window::Months(1, zone), i64::from(slide), i64::from(size))
            }
            _ => return Err("give slide and size of HOP both as months, or neither".into()),
        };
        if size < slide {
            return Err("the size of HOP must be at least its slide, else rows between windows would be in none; \
                 the slide comes first: HOP(ts, INTERVAL '1' MINUTE, INTERVAL '1' HOUR)"
                .into());
        }
        let pane = greatest_common_divisor(slide, size);
        if size / pane > PANES_MAX {
            return Err(format!(
                "a window of this HOP would be {} panes of the greatest common divisor of slide and size, at most \
                 {PANES_MAX} are possible: choose a longer slide, of which the size is a multiple",
                size / pane
            ));
        }
        let width = |units: i64| u32::try_from(units).unwrap_or(1);
        let window = match of {
            Window::Fixed(_) => Window::Fixed(pane),
            Window::Days(_, zone) => Window::Days(width(pane), zone),
            Window::Months(_, zone) => Window::Months(width(pane), zone),
        };
        Ok(Hop { pane: window, slide: slide / pane, size: size / pane })
    }

    /// The interval from a window's start to its end, where it is always the same.
    pub(crate) fn size(self) -> Window {
        match self.pane {
            Window::Fixed(pane_ms) => Window::Fixed(pane_ms * self.size),
            Window::Days(days, zone) => Window::Days(days * u32::try_from(self.size).unwrap_or(1), zone),
            Window::Months(months, zone) => Window::Months(months * u32::try_from(self.size).unwrap_or(1), zone),
        }
    }

    /// The interval from a window's start to that of the next one.
    pub(crate) fn slide(self) -> Window {
        Hop { size: self.slide, ..self }.size()
    }

    /// Most windows that a time lies in.
    pub(crate) fn overlap(self) -> i64 {
        (self.size + self.slide - 1) / self.slide
    }

    /// The first and the last window of a place.
    pub(crate) fn windows(self, place: Place) -> (i64, i64) {
        ((place.pane - self.size).div_euclid(self.slide) + 1 + place.missed, place.pane.div_euclid(self.slide))
    }

    /// The first and the last pane of a window.
    pub(crate) fn panes(self, window: i64) -> (i64, i64) {
        let first = window.saturating_mul(self.slide);
        (first, first.saturating_add(self.size - 1))
    }

    pub(crate) fn start_of(self, window: i64) -> i64 {
        self.pane.start_at(self.panes(window).0)
    }

    pub(crate) fn end_of(self, window: i64) -> i64 {
        self.pane.start_at(self.panes(window).1 + 1)
    }

    /// The window that starts then.
    pub(crate) fn starting(self, start_ms: i64) -> i64 {
        self.pane.index_of(start_ms).div_euclid(self.slide)
    }

    /// The first window that starts at or after the time.
    pub(crate) fn first_from(self, time_ms: i64) -> i64 {
        let time_ms = time_ms.clamp(-TIME_MS_MAX, TIME_MS_MAX);
        let pane = self.pane.index_of(time_ms);
        let pane = if self.pane.start_at(pane) < time_ms { pane + 1 } else { pane };
        -(-pane).div_euclid(self.slide)
    }

    /// The first window that ends after the time.
    pub(crate) fn first_open(self, closed_until: i64) -> i64 {
        // It ends at the end of the time's own pane at the earliest.
        let pane = self.pane.index_of(closed_until.clamp(-TIME_MS_MAX, TIME_MS_MAX));
        -(self.size - 1 - pane).div_euclid(self.slide)
    }

    pub(crate) fn pane_end(self, pane: i64) -> i64 {
        self.pane.start_at(pane + 1)
    }

    /// The pane that ends then.
    pub(crate) fn pane_ending(self, end_ms: i64) -> i64 {
        self.pane.index_of(end_ms.saturating_sub(1))
    }

    /// A place as one number, which states are grouped by.
    pub(crate) fn label(self, place: Place) -> i64 {
        place.pane * (self.overlap() + 1) + place.missed
    }

    pub(crate) fn place(self, label: i64) -> Place {
        let places = self.overlap() + 1;
        Place { pane: label.div_euclid(places), missed: label.rem_euclid(places) }
    }

    /// Where a row of this pane is kept that comes now. One that missed all windows has no window left.
    fn place_at(self, pane: i64, first_open: Option<i64>) -> Place {
        let (first, last) = self.windows(Place { pane, missed: 0 });
        let missed = first_open.map_or(0, |open| open.saturating_sub(first).clamp(0, last - first + 1));
        Place { pane, missed }
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// What each event time is grouped by: the start of its window, the label of its place, for sessions the time itself, which is
/// all that is known of its window yet; without windows the constant 0.
pub(crate) fn labels(
    windows: Option<Windows>,
    event_times: &TimestampMillisecondArray,
    closed_until: Option<i64>,
) -> ArrayRef {
    let times = event_times.values().iter();
    let labels: Vec<i64> = match windows {
        None => vec![0; event_times.len()],
        Some(Windows::Session(_)) => times.copied().collect(),
        Some(Windows::Tumble(window)) => {
            let mut finder = Finder::new(window);
            times.map(|time_ms| finder.bounds(*time_ms).0).collect()
        }
        Some(Windows::Hop(hop)) => {
            let mut finder = Finder::new(hop.pane);
            let first_open = closed_until.map(|closed_until| hop.first_open(closed_until));
            let mut found: Option<(i64, i64)> = None;
            let mut label = |time_ms: &i64| {
                let (start, _) = finder.bounds(*time_ms);
                match found {
                    Some((of, label)) if of == start => label,
                    _ => {
                        let label = hop.label(hop.place_at(hop.pane.index_of(start), first_open));
                        found = Some((start, label));
                        label
                    }
                }
            };
            times.map(&mut label).collect()
        }
    };
    Arc::new(TimestampMillisecondArray::from(labels).with_timezone("UTC"))
}

/// Tells of labels whether their rows came in time.
pub(crate) struct Judge {
    kind: JudgeKind,
    closed_until: Option<i64>,
}

enum JudgeKind {
    Tumble(Finder),
    Hop(Hop),
    /// Sessions are judged when they are known, see `session`.
    Later,
}

impl Judge {
    pub(crate) fn new(windows: Windows, closed_until: Option<i64>) -> Judge {
        let kind = match windows {
            Windows::Tumble(window) => JudgeKind::Tumble(Finder::new(window)),
            Windows::Hop(hop) => JudgeKind::Hop(hop),
            Windows::Session(_) => JudgeKind::Later,
        };
        Judge { kind, closed_until }
    }

    pub(crate) fn lateness(&mut self, label: i64) -> Lateness {
        match &mut self.kind {
            JudgeKind::Tumble(finder) => match is_late(finder.bounds(label).1, self.closed_until) {
                true => Lateness::Late { window_start: label },
                false => Lateness::OnTime,
            },
            JudgeKind::Hop(hop) => {
                let place = hop.place(label);
                let (counted, last) = hop.windows(place);
                let window_start = || hop.start_of(counted - place.missed);
                match place.missed {
                    0 => Lateness::OnTime,
                    _ if counted > last => Lateness::Late { window_start: window_start() },
                    _ => Lateness::Partly { window_start: window_start(), counted_from: hop.start_of(counted) },
                }
            }
            JudgeKind::Later => Lateness::OnTime,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::{Europe::Paris, Tz};

    use super::*;

    fn minutes(slide: i64, size: i64) -> Hop {
        Hop::new(Window::Fixed(slide * 60_000), Window::Fixed(size * 60_000)).unwrap()
    }

    #[test]
    fn slide_and_size_must_fit() {
        assert_eq!(minutes(1, 60), Hop { pane: Window::Fixed(60_000), slide: 1, size: 60 });
        assert_eq!(minutes(10, 25), Hop { pane: Window::Fixed(300_000), slide: 2, size: 5 });
        assert_eq!(minutes(5, 5).overlap(), 1);
        assert_eq!(minutes(10, 25).overlap(), 3);
        let day = Hop::new(Window::Days(1, Paris), Window::Days(7, Paris)).unwrap();
        assert_eq!((day.pane, day.size()), (Window::Days(1, Paris), Window::Days(7, Paris)));
        let cases = [
            (Window::Fixed(2), Window::Fixed(1), "at least its slide"),
            (Window::Fixed(1), Window::Fixed(1_441), "1441 panes"),
            (Window::Fixed(61_000), Window::Fixed(3_600_000), "3600 panes"),
            (Window::Fixed(86_400_000), Window::Months(1, Tz::UTC), "both as months"),
        ];
        for (slide, size, expected) in cases {
            let mistake = Hop::new(slide, size).unwrap_err();
            assert!(mistake.contains(expected), "{mistake}");
        }
    }

    /// Against the definition: a window is every multiple of the slide, and as long as the size.
    #[test]
    fn a_place_is_in_just_the_windows_that_hold_its_times() {
        for (slide, size) in [(1, 1), (1, 4), (2, 6), (4, 6), (10, 25), (7, 9)] {
            let hop = minutes(slide, size);
            let (slide_ms, size_ms) = (slide * 60_000, size * 60_000);
            for time_ms in (-200..200).map(|step| step * 30_000) {
                let pane = hop.pane.index_of(time_ms);
                let holds = |window: &i64| (window * slide_ms..window * slide_ms + size_ms).contains(&time_ms);
                let wanted: Vec<i64> = (-300..300).filter(holds).collect();
                let (first, last) = hop.windows(Place { pane, missed: 0 });
                assert_eq!((first..=last).collect::<Vec<_>>(), wanted, "{slide} {size} {time_ms}");
                assert_eq!((hop.start_of(first), hop.end_of(first)), (first * slide_ms, first * slide_ms + size_ms));
                assert_eq!(hop.starting(first * slide_ms), first);
                let from = (-300..300).find(|window| window * slide_ms >= time_ms);
                assert_eq!(Some(hop.first_from(time_ms)), from, "{slide} {size} {time_ms}");
                let open = (-300..300).find(|window| window * slide_ms + size_ms > time_ms);
                assert_eq!(Some(hop.first_open(time_ms)), open, "{slide} {size} {time_ms}");
                assert_eq!(hop.pane_ending(hop.pane_end(pane)), pane);
                for missed in 0..=hop.overlap() {
                    assert_eq!(hop.place(hop.label(Place { pane, missed })), Place { pane, missed });
                }
            }
        }
    }

    #[test]
    fn a_row_misses_the_windows_that_are_closed() {
        let windows = Windows::Hop(minutes(1, 3));
        let minute = |count: i64| count * 60_000;
        let cases = [
            (None, Lateness::OnTime),
            (Some(minute(11) - 1), Lateness::OnTime),
            (Some(minute(11)), Lateness::Partly { window_start: minute(8), counted_from: minute(9) }),
            (Some(minute(12)), Lateness::Partly { window_start: minute(8), counted_from: minute(10) }),
            (Some(minute(13)), Lateness::Late { window_start: minute(8) }),
            (Some(minute(99)), Lateness::Late { window_start: minute(8) }),
        ];
        for (closed_until, expected) in cases {
            let labels = labels(Some(windows), &TimestampMillisecondArray::from(vec![minute(10) + 5]), closed_until);
            let label = labels.as_any().downcast_ref::<TimestampMillisecondArray>().unwrap().value(0);
            assert_eq!(Judge::new(windows, closed_until).lateness(label), expected, "{closed_until:?}");
        }
    }

    #[test]
    fn calendar_windows_overlap_by_days_of_the_zone() {
        let hop = Hop::new(Window::Days(1, Paris), Window::Days(2, Paris)).unwrap();
        // 2026-03-29 is 23 hours long in Paris.
        let noon = 1_774_778_400_000;
        let (first, last) = hop.windows(Place { pane: hop.pane.index_of(noon), missed: 0 });
        assert_eq!(last - first, 1);
        assert_eq!(hop.end_of(first) - hop.start_of(first), 47 * 3_600_000);
        assert_eq!(hop.end_of(last) - hop.start_of(last), 47 * 3_600_000);
        assert_eq!(hop.end_of(first), hop.start_of(last + 1));
    }
}
