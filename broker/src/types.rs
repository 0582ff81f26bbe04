//! The words everybody uses: Kafka's, with one meaning each.

use std::fmt;
use std::sync::Arc;

/// Name of a topic, shared because every partition and every reply carries it.
pub type TopicName = Arc<str>;
/// Identity of a topic (KIP-516): never zero, stable, new when a topic is created again under an old name.
pub type TopicId = uuid::Uuid;
/// Number of a partition inside its topic, from 0.
pub type PartitionIndex = i32;
/// Position of a record in its partition, from 0.
pub type Offset = i64;
/// Milliseconds since 1970-01-01T00:00:00Z.
pub type TimestampMs = i64;
/// Leader epoch of a partition: from 0, bumped at each unclean start, never goes back.
pub type LeaderEpoch = i32;
/// Identity that an idempotent producer writes under (KIP-98).
pub type ProducerId = i64;

/// Identity of one partition that was ever created. It is never reused, so that the records of a deleted topic
/// can never be read as those of its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub u32);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log-{}", self.0)
    }
}
