//! Whether a partition is due for compaction, by Kafka's rules, from the index alone.
//!
//! The dirty part begins where the last pass ended. It ends where the active segment begins, below every hold (what a view
//! or the lake has not read yet is not compacted away from it), below open transactions, and before the first batch that is younger than
//! `min.compaction.lag.ms`. Kafka measures the last by segments; here each batch counts by its own timestamp.

use crate::error::Result;
use crate::log::Partition;
use crate::types::{Offset, TimestampMs};

/// A partition that is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Due {
    /// First offset of the dirty part.
    pub(crate) from: Offset,
    /// End of the dirty part.
    pub(crate) to: Offset,
    /// Bytes of the dirty part per byte of the log up to its end, from 0 to 1.
    pub(crate) ratio: f64,
}

/// What is due in a partition, if it is. `floor` is the lowest hold.
///
/// # Errors
/// `Storage` when the index cannot be read.
pub(crate) fn survey(partition: &Partition, floor: Option<Offset>, now: TimestampMs) -> Result<Option<Due>> {
    let config = partition.config();
    if !config.compacts() || partition.is_deleted() {
        return Ok(None);
    }
    let from = partition.compaction().clean_to.max(partition.log_start());
    let sealed = partition.active_segment_base().min(partition.high_watermark());
    let mut to = sealed.min(floor.unwrap_or(Offset::MAX)).min(partition.last_stable_offset());
    if to > from && config.min_compaction_lag_ms() > 0 {
        let youngest = now.saturating_sub(config.min_compaction_lag_ms());
        to = first_where(partition, from, to, |timestamp| timestamp > youngest)?.unwrap_or(to);
    }
    if to <= from {
        return Ok(None);
    }
    let (before_dirty, before_rest) = (partition.bytes_before(from)?, partition.bytes_before(to)?);
    let dirty = before_rest - before_dirty;
    let all = before_rest - partition.bytes_deleted();
    let ratio = if all <= 0 { 0.0 } else { dirty as f64 / all as f64 };
    let lag_max = config.max_compaction_lag_ms();
    // without a bound nothing is overdue, and nothing has to be walked over at each look
    let overdue = || match lag_max {
        i64::MAX => Ok(None),
        _ => first_where(partition, from, to, |timestamp| timestamp < now.saturating_sub(lag_max)),
    };
    let is_due = dirty > 0 && (ratio > config.min_cleanable_dirty_ratio() || overdue()?.is_some());
    Ok(is_due.then_some(Due { from, to, ratio }))
}

/// The first batch of `[from, to)` whose time is so.
fn first_where(
    partition: &Partition,
    from: Offset,
    to: Offset,
    is_so: impl Fn(TimestampMs) -> bool,
) -> Result<Option<Offset>> {
    for entry in partition.entries(from) {
        let (base, entry) = entry?;
        if base >= to {
            return Ok(None);
        }
        if is_so(entry.aged_from()) {
            return Ok(Some(base.max(from)));
        }
    }
    Ok(None)
}
