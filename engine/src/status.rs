//! What the engine tells about its views and streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker::{Broker, TimestampMs};

use crate::Offsets;
use crate::read::{high_watermarks_of, offsets_of};
use crate::shared::{Published, RunningView};
use crate::stream::Stream;

/// How a view stands, as of its last commit.
#[derive(Debug, Clone)]
pub struct ViewStatus {
    /// The view.
    pub view: String,
    /// The stream it reads.
    pub stream: String,
    /// The next offset to be applied.
    pub positions: Offsets,
    /// Where the log ends now.
    pub high_watermarks: Offsets,
    /// Offsets between the two.
    pub lag_records: i64,
    /// Zero when nothing is left to apply, else the time since the last commit.
    pub lag_ms: i64,
    /// How far event time has come, epoch milliseconds.
    pub event_watermark: Option<TimestampMs>,
    /// Windows that end at or before this are closed, epoch milliseconds.
    pub closed_until: Option<TimestampMs>,
    /// Rows counted in the view.
    pub rows_applied: u64,
    /// Rows left out by WHERE.
    pub rows_filtered: u64,
    /// Rows whose window was closed; they are in `<view>.late`.
    pub late: u64,
    /// Rows that the view's expressions could not evaluate; they are in `<stream>.rejected` under the rule `view:<name>`.
    pub failed: u64,
    /// Offsets that were deleted from the log before the view read them.
    pub lost: u64,
    /// Groups held in memory.
    pub hot_groups: u64,
    /// Bytes of groups held in memory.
    pub hot_bytes: u64,
    /// CPU time of the view's pipeline (shared with other views of the stream) since the start, in milliseconds.
    pub engine_cpu_ms: u64,
    /// Why the view does not advance, when it does not.
    pub error: Option<String>,
}

/// How a stream's refused records stand.
#[derive(Debug, Clone)]
pub struct StreamStatus {
    /// The stream.
    pub stream: String,
    /// The topic it reads.
    pub topic: String,
    /// Refused records in `<stream>.rejected`.
    pub rejected: u64,
    /// The same per rule.
    pub rejected_by_rule: BTreeMap<String, u64>,
    /// How far event time has come, epoch milliseconds.
    pub event_watermark: Option<TimestampMs>,
    /// Offsets that were deleted from the log before they were read.
    pub lost: u64,
}

pub(crate) fn view_status(broker: &Arc<Broker>, view: &RunningView) -> ViewStatus {
    let progress = view.published.progress.lock().clone();
    let positions = offsets_of(broker, view, &progress);
    let high_watermarks = high_watermarks_of(broker, view);
    let lag_records = lag(&positions, &high_watermarks);
    let since = broker.clock().now_ms().saturating_sub(progress.updated_at).max(0);
    ViewStatus {
        view: view.plan.name.to_string(),
        stream: view.plan.stream.name().to_string(),
        lag_records,
        lag_ms: if lag_records == 0 { 0 } else { since },
        positions,
        high_watermarks,
        event_watermark: progress.event_watermark,
        closed_until: progress.closed_until,
        rows_applied: progress.applied,
        rows_filtered: progress.filtered,
        late: progress.late,
        failed: progress.failed,
        lost: progress.lost,
        hot_groups: view.published.hot_groups.load(Ordering::Relaxed),
        hot_bytes: view.published.hot_bytes.load(Ordering::Relaxed),
        engine_cpu_ms: view.pipeline.busy_ns.load(Ordering::Relaxed) / 1_000_000,
        error: view.pipeline.failure.lock().clone(),
    }
}

fn lag(positions: &Offsets, high_watermarks: &Offsets) -> i64 {
    let mut behind = 0;
    for (topic, ends) in high_watermarks {
        for (partition, end) in ends {
            let next = positions.get(topic).and_then(|next| next.get(partition)).copied().unwrap_or(0);
            behind += end.saturating_sub(next).max(0);
        }
    }
    behind
}

pub(crate) fn stream_status(stream: &Stream, published: &Published) -> StreamStatus {
    let progress = published.progress.lock();
    StreamStatus {
        stream: stream.name().to_string(),
        topic: stream.topic().to_string(),
        rejected: progress.rejected.values().sum(),
        rejected_by_rule: progress.rejected.clone(),
        event_watermark: progress.event_watermark,
        lost: progress.lost,
    }
}
