//! What holds for members of the consumer protocol in one group.

/// Times of a group: its own settings, or the broker's where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timings {
    /// How long a member may be silent (`consumer.session.timeout.ms`).
    pub(crate) session_timeout_ms: i32,
    /// How often it sends heartbeats (`consumer.heartbeat.interval.ms`).
    pub(crate) heartbeat_interval_ms: i32,
    /// Least time between two assignments of the group (`consumer.assignment.interval.ms`): many that join at once make one.
    pub(crate) assignment_interval_ms: i32,
}
