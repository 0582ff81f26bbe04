//! Recorded changes of the registry, and their bytes.
//!
//! ```text
//! meta  "schema-text" ++ id u32 BE                        → JSON {"v":1,"type","schema","references":[{"name","subject","version"}]}
//! meta  "schema-version" ++ subject ++ 00 ++ version u32 BE → id u32 BE ++ deleted u8 (0 or 1)
//! meta  "schema-settings" ++ subject (none: for all)      → JSON {"v":1,"compatibility","mode"}, each left out when unset
//! ```
//!
//! A subject has no character below U+0020, so 00 ends it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::{Compatibility, Reference, RegistryMode, Schema, SchemaType, SchemaVersion, Settings};
use crate::error::{Error, Kind, Result};
use crate::lane::Change;
use crate::log::keys::damaged;
use crate::store::{Family, Store};

const TEXT_PREFIX: &[u8] = b"schema-text";
const VERSION_PREFIX: &[u8] = b"schema-version";
const SETTINGS_PREFIX: &[u8] = b"schema-settings";
const FORMAT: u32 = 1;

/// One change of the registry.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaRecord {
    /// A schema got its id. It is never taken back.
    Schema(Arc<Schema>),
    /// A subject has this version, or its mark of deletion changed.
    Version(String, SchemaVersion),
    /// A version was deleted permanently.
    VersionGone(String, u32),
    /// What is set for a subject (for all, when the name is empty); nothing set takes the entry away.
    Settings(String, Settings),
}

#[derive(Serialize, Deserialize)]
struct SchemaValue {
    v: u32,
    #[serde(rename = "type")]
    kind: SchemaType,
    schema: String,
    references: Vec<Reference>,
}

#[derive(Serialize, Deserialize)]
struct SettingsValue {
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    compatibility: Option<Compatibility>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mode: Option<RegistryMode>,
}

impl SchemaRecord {
    /// What the commit lane writes.
    pub(super) fn change(&self) -> Result<Change> {
        Ok(match self {
            Self::Schema(schema) => {
                let value = SchemaValue {
                    v: FORMAT,
                    kind: schema.kind,
                    schema: schema.text.clone(),
                    references: schema.references.clone(),
                };
                Change::Put(Family::Meta, [TEXT_PREFIX, &schema.id.to_be_bytes()].concat(), json(&value)?)
            }
            Self::Version(subject, version) => {
                let value = [&version.id.to_be_bytes()[..], &[u8::from(version.deleted)]].concat();
                Change::Put(Family::Meta, version_key(subject, version.version), value)
            }
            Self::VersionGone(subject, version) => Change::Delete(Family::Meta, version_key(subject, *version)),
            Self::Settings(subject, settings) if *settings == Settings::default() => {
                Change::Delete(Family::Meta, [SETTINGS_PREFIX, subject.as_bytes()].concat())
            }
            Self::Settings(subject, settings) => {
                let value = SettingsValue { v: FORMAT, compatibility: settings.compatibility, mode: settings.mode };
                Change::Put(Family::Meta, [SETTINGS_PREFIX, subject.as_bytes()].concat(), json(&value)?)
            }
        })
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::new(Kind::Bug, format!("schema record: {e}")))
}

fn version_key(subject: &str, version: u32) -> Vec<u8> {
    [VERSION_PREFIX, subject.as_bytes(), &[0], &version.to_be_bytes()].concat()
}

/// Everything stored, schemas first.
pub(super) fn stored(store: &Store) -> impl Iterator<Item = Result<SchemaRecord>> + '_ {
    let read = [
        (TEXT_PREFIX, read_schema as fn(&[u8], &[u8]) -> Option<SchemaRecord>),
        (VERSION_PREFIX, read_version),
        (SETTINGS_PREFIX, read_settings),
    ];
    read.into_iter().flat_map(move |(prefix, read)| {
        let end = [&prefix[..prefix.len() - 1], &[prefix[prefix.len() - 1] + 1]].concat();
        store.scan(Family::Meta, prefix, &end).map(move |entry| {
            let (key, value) = entry?;
            read(&key[prefix.len()..], &value).ok_or_else(|| damaged("schema record", &value))
        })
    })
}

fn read_schema(key: &[u8], value: &[u8]) -> Option<SchemaRecord> {
    let id = u32::from_be_bytes(key.try_into().ok()?);
    let value: SchemaValue = serde_json::from_slice(value).ok().filter(|value: &SchemaValue| value.v == FORMAT)?;
    let schema = Schema { id, kind: value.kind, text: value.schema, references: value.references };
    Some(SchemaRecord::Schema(Arc::new(schema)))
}

fn read_version(key: &[u8], value: &[u8]) -> Option<SchemaRecord> {
    let (subject, version) = key.split_at_checked(key.len().checked_sub(5)?)?;
    let subject = std::str::from_utf8(subject).ok()?.to_owned();
    let version = u32::from_be_bytes(version.strip_prefix(&[0])?.try_into().ok()?);
    let (id, deleted) = value.split_at_checked(4)?;
    let deleted = match deleted {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    let version = SchemaVersion { version, id: u32::from_be_bytes(id.try_into().ok()?), deleted };
    Some(SchemaRecord::Version(subject, version))
}

fn read_settings(key: &[u8], value: &[u8]) -> Option<SchemaRecord> {
    let subject = std::str::from_utf8(key).ok()?.to_owned();
    let value: SettingsValue = serde_json::from_slice(value).ok().filter(|value: &SettingsValue| value.v == FORMAT)?;
    Some(SchemaRecord::Settings(subject, Settings { compatibility: value.compatibility, mode: value.mode }))
}
