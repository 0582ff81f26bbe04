//! placeholder
use crate::error::Result;
use std::collections::BTreeMap;
/// x
#[derive(Debug, Clone, Default)]
pub struct TopicConfig {
    overrides: BTreeMap<String, String>,
}
impl TopicConfig {
    /// x
    /// # Errors
    pub fn parse(o: &BTreeMap<String, String>) -> Result<Self> {
        Ok(Self { overrides: o.clone() })
    }
    /// x
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }
    /// x
    pub fn is_log_append_time(&self) -> bool {
        self.overrides.get("message.timestamp.type").is_some_and(|v| v == "LogAppendTime")
    }
    /// x
    pub fn deletes(&self) -> bool {
        true
    }
    /// x
    pub fn retention_ms(&self) -> i64 {
        self.overrides.get("retention.ms").and_then(|v| v.parse().ok()).unwrap_or(604800000)
    }
    /// x
    pub fn retention_bytes(&self) -> i64 {
        self.overrides.get("retention.bytes").and_then(|v| v.parse().ok()).unwrap_or(-1)
    }
    /// x
    pub fn max_message_bytes(&self) -> usize {
        self.overrides.get("max.message.bytes").and_then(|v| v.parse().ok()).unwrap_or(1_048_588)
    }
    /// x
    pub fn compacts(&self) -> bool {
        self.overrides.get("cleanup.policy").is_some_and(|v| v.contains("compact"))
    }
    /// x
    pub fn timestamp_before_max_ms(&self) -> i64 {
        i64::MAX
    }
    /// x
    pub fn timestamp_after_max_ms(&self) -> i64 {
        3_600_000
    }
}
