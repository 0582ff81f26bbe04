//! Settings that were changed while the broker ran, in the store.
//!
//! ```text
//! meta  "set-" ++ u8 kind ++ name  → JSON {"v":1,"set":{name: value, …}}
//!       kind 4: the broker, by an empty name all brokers, by "this" this one
//!       kind 16: client metrics, by subscription; kind 32: groups, by group id
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Resource, Values};
use crate::error::{Error, Kind, Result};
use crate::lane::Change;
use crate::log::keys;
use crate::store::{Family, Store};

const PREFIX: &[u8] = b"set-";
const PREFIX_END: &[u8] = b"set.";
const VERSION: u32 = 1;
/// Kafka's numbers of resource types.
const BROKER: u8 = 4;
const CLIENT_METRICS: u8 = 16;
const GROUP: u8 = 32;
/// Stands for this broker whatever its number is.
const THIS: &str = "this";

#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    set: Values,
}

/// All that was changed.
pub(super) fn read(store: &Store) -> Result<BTreeMap<Resource, Arc<Values>>> {
    let mut all = BTreeMap::new();
    for entry in store.scan(Family::Meta, PREFIX, PREFIX_END) {
        let (key, value) = entry?;
        let resource = resource(&key[PREFIX.len()..]).ok_or_else(|| keys::damaged("settings key", &key))?;
        let record: Record = serde_json::from_slice(&value).map_err(|_| keys::damaged("settings", &value))?;
        if record.v != VERSION {
            return Err(keys::damaged("settings", &value));
        }
        all.insert(resource, Arc::new(record.set));
    }
    Ok(all)
}

/// The commit that sets all values of a resource; none of them removes it.
pub(super) fn change(resource: &Resource, values: &Values) -> Result<Change> {
    if values.is_empty() {
        return Ok(Change::Delete(Family::Meta, key(resource)));
    }
    let record = Record { v: VERSION, set: values.clone() };
    let value = serde_json::to_vec(&record).map_err(|e| Error::new(Kind::Bug, format!("settings record: {e}")))?;
    Ok(Change::Put(Family::Meta, key(resource), value))
}

fn key(resource: &Resource) -> Vec<u8> {
    let (kind, name) = match resource {
        Resource::Broker => (BROKER, THIS),
        Resource::AllBrokers => (BROKER, ""),
        Resource::ClientMetrics(name) => (CLIENT_METRICS, name.as_str()),
        Resource::Group(name) => (GROUP, name.as_str()),
    };
    [PREFIX, &[kind], name.as_bytes()].concat()
}

fn resource(key: &[u8]) -> Option<Resource> {
    let (kind, name) = key.split_first()?;
    let name = std::str::from_utf8(name).ok()?;
    match (*kind, name) {
        (BROKER, THIS) => Some(Resource::Broker),
        (BROKER, "") => Some(Resource::AllBrokers),
        (CLIENT_METRICS, name) => Some(Resource::ClientMetrics(name.to_owned())),
        (GROUP, name) => Some(Resource::Group(name.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_drawn_byte_by_byte_and_read_back() {
        let of_group = Resource::Group("g".into());
        assert_eq!(key(&of_group), b"set-\x20g");
        assert_eq!(key(&Resource::Broker), b"set-\x04this");
        assert_eq!(key(&Resource::AllBrokers), b"set-\x04");
        assert_eq!(key(&Resource::ClientMetrics("m".into())), b"set-\x10m");
        for one in [of_group, Resource::Broker, Resource::AllBrokers, Resource::ClientMetrics(String::new())] {
            assert_eq!(resource(&key(&one)[PREFIX.len()..]), Some(one));
        }
        assert_eq!(resource(b"\x05x"), None);
        let Ok(Change::Put(_, _, value)) = change(&Resource::Broker, &Values::from([("a".into(), "b".into())])) else {
            panic!("values are put");
        };
        assert_eq!(value, br#"{"v":1,"set":{"a":"b"}}"#);
    }
}
