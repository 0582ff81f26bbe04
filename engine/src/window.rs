//! Tumbling windows and lateness, as pure rules over milliseconds.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};

/// The end that stands for "no window" in state keys: it sorts after every real window.
pub(crate) const NO_WINDOW_END: i64 = i64::MAX;

/// The start of the window of this width that holds the time. Windows are aligned to 1970-01-01 UTC, before it too.
pub(crate) fn window_start(time_ms: i64, width_ms: i64) -> i64 {
    time_ms - time_ms.rem_euclid(width_ms)
}

/// A row is late for a view when its window has been closed: when its end is not after `closed_until`.
pub(crate) fn is_late(window_end_ms: i64, closed_until: Option<i64>) -> bool {
    closed_until.is_some_and(|closed_until| window_end_ms <= closed_until)
}

/// Up to where windows are closed: those that end at or before the event watermark less the lateness. Never goes back.
pub(crate) fn closed_until(before: Option<i64>, event_watermark: Option<i64>, lateness_ms: i64) -> Option<i64> {
    before.max(event_watermark.map(|watermark| watermark.saturating_sub(lateness_ms)))
}

/// The window start of each event time; without a width the constant 0.
pub(crate) fn window_starts(event_times: &TimestampMillisecondArray, width_ms: Option<i64>) -> ArrayRef {
    let starts: Vec<i64> = match width_ms {
        Some(width_ms) => event_times.values().iter().map(|time_ms| window_start(*time_ms, width_ms)).collect(),
        None => vec![0; event_times.len()],
    };
    Arc::new(TimestampMillisecondArray::from(starts).with_timezone("UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_aligned_to_the_epoch() {
        let cases = [(0, 0), (59_999, 0), (60_000, 60_000), (-1, -60_000), (-60_000, -60_000), (-60_001, -120_000)];
        for (time_ms, start) in cases {
            assert_eq!(window_start(time_ms, 60_000), start, "{time_ms}");
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
