//! The event watermark of a stream: how far event time has come, as a pure rule.
//!
//! Per partition it is the largest event time seen; over partitions the minimum. A partition that has been read to its
//! end and got nothing for the idle timeout no longer counts, so that a quiet partition does not hold windows open for
//! ever. When all are idle the largest event time of any counts: what came is then closed as far as it goes, and the
//! newest window stays open until something newer arrives. Time of day never moves the watermark, so a replay of old
//! data that pauses is not closed under its reader.

/// What the rule looks at for one partition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PartitionTime {
    /// The largest event time accepted so far.
    pub(crate) max_event_ms: Option<i64>,
    /// When the last records were read, or reading began, by the broker's clock.
    pub(crate) last_read_ms: i64,
    /// Whether it has been read to its end.
    pub(crate) caught_up: bool,
}

/// The event watermark now; never before `before`. An idle timeout of 0 means a partition is never idle.
pub(crate) fn event_watermark(
    before: Option<i64>,
    partitions: &[PartitionTime],
    now_ms: i64,
    idle_timeout_ms: i64,
) -> Option<i64> {
    let is_idle = |partition: &PartitionTime| {
        idle_timeout_ms > 0 && partition.caught_up && now_ms.saturating_sub(partition.last_read_ms) >= idle_timeout_ms
    };
    let mut active = partitions.iter().filter(|partition| !is_idle(partition)).peekable();
    let computed = if active.peek().is_none() {
        partitions.iter().filter_map(|partition| partition.max_event_ms).max()
    } else {
        active.map(|partition| partition.max_event_ms).min().flatten()
    };
    before.max(computed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(max_event_ms: Option<i64>, last_read_ms: i64, caught_up: bool) -> PartitionTime {
        PartitionTime { max_event_ms, last_read_ms, caught_up }
    }

    #[test]
    fn minimum_of_the_partitions_that_are_not_idle() {
        let fast = partition(Some(100), 1_000, true);
        let slow = partition(Some(40), 1_000, true);
        let empty = partition(None, 0, true);
        let behind = partition(None, 0, false);
        let cases: [(&[PartitionTime], i64, Option<i64>); 8] = [
            (&[fast, slow], 1_000, Some(40)),
            (&[fast, partition(Some(40), 0, true)], 1_005, Some(100)),
            (&[fast, empty], 5, None),
            (&[fast, empty], 1_005, Some(100)),
            (&[fast, behind], 1_005, None),
            (&[fast, slow], 9_000, Some(100)),
            (&[fast, behind], 9_000, None),
            (&[], 0, None),
        ];
        for (index, (partitions, now_ms, expected)) in cases.into_iter().enumerate() {
            assert_eq!(event_watermark(None, partitions, now_ms, 1_000), expected, "case {index}");
        }
    }

    #[test]
    fn it_never_goes_back_and_zero_means_never_idle() {
        let partitions = [partition(Some(100), 0, true), partition(Some(40), 0, true)];
        assert_eq!(event_watermark(Some(70), &partitions, 0, 1_000), Some(70));
        assert_eq!(event_watermark(None, &partitions, i64::MAX, 0), Some(40));
    }
}
