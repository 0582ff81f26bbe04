//! Topics as they lie in the store.
//!
//! ```text
//! meta  "topic" ++ name          → JSON {"v":1,"id":uuid,"logs":[log id of partition 0, …],"config":{overrides}}
//! meta  "next-log-id"            → u32 BE, the log id that the next partition gets
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::lane::Change;
use crate::log::keys;
use crate::store::Family;
use crate::types::{TopicId, TopicName};

/// What the keys of topics begin with.
pub(crate) const TOPIC_PREFIX: &[u8] = b"topic";
/// The end of their range.
pub(crate) const TOPIC_PREFIX_END: &[u8] = b"topid";
pub(crate) const NEXT_LOG_ID_KEY: &[u8] = b"next-log-id";
const RECORD_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct TopicRecord {
    v: u32,
    id: String,
    logs: Vec<u32>,
    config: BTreeMap<String, String>,
}

/// The change that stores a topic.
///
/// # Errors
/// `Bug`.
pub(super) fn topic_change(
    (name, id): (&str, TopicId),
    config: &BTreeMap<String, String>,
    logs: Vec<u32>,
) -> Result<Change> {
    let record = TopicRecord { v: RECORD_VERSION, id: id.to_string(), logs, config: config.clone() };
    let value = serde_json::to_vec(&record).map_err(|e| Error::new(Kind::Bug, format!("topic record: {e}")))?;
    Ok(Change::Put(Family::Meta, topic_key(name), value))
}

pub(super) fn topic_key(name: &str) -> Vec<u8> {
    [TOPIC_PREFIX, name.as_bytes()].concat()
}

pub(super) fn next_log_id_change(next: u32) -> Change {
    Change::Put(Family::Meta, NEXT_LOG_ID_KEY.to_vec(), next.to_be_bytes().to_vec())
}

/// The log id that the next partition gets, by what is stored of it.
///
/// # Errors
/// `Storage` when it is damaged.
pub(crate) fn decode_next_log_id(stored: Option<&[u8]>) -> Result<u32> {
    let Some(stored) = stored else { return Ok(1) };
    stored.try_into().map(u32::from_be_bytes).map_err(|_| keys::damaged("log id", stored))
}

/// A topic as it is stored.
pub(crate) struct StoredTopic {
    /// Its name.
    pub(crate) name: TopicName,
    /// Its identity.
    pub(crate) id: TopicId,
    /// Log ids by partition.
    pub(crate) logs: Vec<u32>,
    /// Settings that differ from the defaults.
    pub(crate) config: BTreeMap<String, String>,
}

/// A topic from its key and value.
///
/// # Errors
/// `Storage` when they are damaged.
pub(crate) fn decode_topic(key: &[u8], value: &[u8]) -> Result<StoredTopic> {
    let name = std::str::from_utf8(&key[TOPIC_PREFIX.len()..]).map_err(|_| keys::damaged("topic name", key))?;
    let TopicRecord { v, id, logs, config } =
        serde_json::from_slice(value).map_err(|_| keys::damaged("topic record", value))?;
    if v != RECORD_VERSION {
        return Err(keys::damaged("topic record", value));
    }
    let id = uuid::Uuid::parse_str(&id).map_err(|_| keys::damaged("topic id", id.as_bytes()))?;
    Ok(StoredTopic { name: name.into(), id, logs, config })
}
