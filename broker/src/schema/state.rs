//! What is known about schemas; `apply` is the only mutator.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::canonical::identity;
use super::records::SchemaRecord;

/// A schema's number, from 1; never given to another schema.
pub type SchemaId = u32;

/// The language that a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SchemaType {
    /// Apache Avro.
    Avro,
    /// JSON Schema.
    Json,
    /// Protocol Buffers.
    Protobuf,
}

impl SchemaType {
    /// Every type, in the order in which they are told.
    pub const ALL: [SchemaType; 3] = [SchemaType::Json, SchemaType::Protobuf, SchemaType::Avro];

    /// Its name in the registry's API.
    pub fn name(self) -> &'static str {
        match self {
            SchemaType::Avro => "AVRO",
            SchemaType::Json => "JSON",
            SchemaType::Protobuf => "PROTOBUF",
        }
    }

    /// The type of a name.
    pub fn parse(name: &str) -> Option<SchemaType> {
        SchemaType::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Another schema that a schema uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// The name it is used under: a full name in Avro, a URL in JSON Schema, a file in Protobuf.
    pub name: String,
    /// The subject it is registered under.
    pub subject: String,
    /// The version there.
    pub version: u32,
}

/// A registered schema. Never changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Its number.
    pub id: SchemaId,
    /// Its language.
    pub kind: SchemaType,
    /// Its text as it was first registered.
    pub text: String,
    /// What it uses.
    pub references: Vec<Reference>,
}

/// A place of a schema in a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// From 1 in each subject.
    pub version: u32,
    /// The schema.
    pub id: SchemaId,
    /// Whether it was deleted, but not permanently.
    pub deleted: bool,
}

/// How a new version must fit earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Compatibility {
    /// Anything goes.
    None,
    /// The new schema reads what the latest wrote.
    #[default]
    Backward,
    /// The new schema reads what any earlier one wrote.
    BackwardTransitive,
    /// The latest schema reads what the new one writes.
    Forward,
    /// Every earlier schema reads what the new one writes.
    ForwardTransitive,
    /// Both ways with the latest.
    Full,
    /// Both ways with all earlier ones.
    FullTransitive,
}

impl Compatibility {
    /// Every level with its name in the registry's API.
    pub const ALL: [(Compatibility, &'static str); 7] = [
        (Compatibility::None, "NONE"),
        (Compatibility::Backward, "BACKWARD"),
        (Compatibility::BackwardTransitive, "BACKWARD_TRANSITIVE"),
        (Compatibility::Forward, "FORWARD"),
        (Compatibility::ForwardTransitive, "FORWARD_TRANSITIVE"),
        (Compatibility::Full, "FULL"),
        (Compatibility::FullTransitive, "FULL_TRANSITIVE"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(level, _)| *level == self).map_or("NONE", |(_, name)| name)
    }

    /// The level of a name, in any case.
    pub fn parse(name: &str) -> Option<Compatibility> {
        Self::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(level, _)| *level)
    }

    /// Whether all earlier versions count, not only the latest.
    pub fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    /// Whether the new schema must read what earlier ones wrote.
    pub fn is_backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }

    /// Whether earlier schemas must read what the new one writes.
    pub fn is_forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }
}

/// What may be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RegistryMode {
    /// Everything.
    #[default]
    Readwrite,
    /// Nothing.
    Readonly,
    /// Nothing, whatever a subject's own mode says.
    ReadonlyOverride,
    /// Schemas come with the ids they have elsewhere.
    Import,
    /// Taken for what it means elsewhere: requests go to another registry. Here it is as read-only.
    Forward,
}

impl RegistryMode {
    /// Every mode with its name in the registry's API.
    pub const ALL: [(RegistryMode, &'static str); 5] = [
        (RegistryMode::Readwrite, "READWRITE"),
        (RegistryMode::Readonly, "READONLY"),
        (RegistryMode::ReadonlyOverride, "READONLY_OVERRIDE"),
        (RegistryMode::Import, "IMPORT"),
        (RegistryMode::Forward, "FORWARD"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(mode, _)| *mode == self).map_or("READWRITE", |(_, name)| name)
    }

    /// The mode of a name, in any case.
    pub fn parse(name: &str) -> Option<RegistryMode> {
        Self::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(mode, _)| *mode)
    }
}

/// What is set for one subject, or for all that set nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How versions must fit.
    pub compatibility: Option<Compatibility>,
    /// What may be changed.
    pub mode: Option<RegistryMode>,
}

/// All schemas. Holds: what the records applied so far say. `apply` alone changes it.
#[derive(Clone, Default)]
pub struct SchemaState {
    schemas: BTreeMap<SchemaId, Arc<Schema>>,
    /// Canonical form → id, so that one schema has one id in all subjects.
    identities: HashMap<Arc<str>, SchemaId>,
    subjects: BTreeMap<String, BTreeMap<u32, SchemaVersion>>,
    /// By subject; the empty name is for all.
    settings: BTreeMap<String, Settings>,
}

impl SchemaState {
    /// Makes a recorded change.
    pub(super) fn apply(&mut self, record: &SchemaRecord) {
        match record {
            SchemaRecord::Schema(schema) => {
                let key = identity(schema.kind, &schema.text, &schema.references);
                self.identities.entry(key.into()).or_insert(schema.id);
                self.schemas.insert(schema.id, schema.clone());
            }
            SchemaRecord::Version(subject, version) => {
                self.subjects.entry(subject.clone()).or_default().insert(version.version, *version);
            }
            SchemaRecord::VersionGone(subject, version) => {
                if let Some(versions) = self.subjects.get_mut(subject) {
                    versions.remove(version);
                    if versions.is_empty() {
                        self.subjects.remove(subject);
                    }
                }
            }
            SchemaRecord::Settings(subject, settings) if *settings == Settings::default() => {
                self.settings.remove(subject);
            }
            SchemaRecord::Settings(subject, settings) => {
                self.settings.insert(subject.clone(), *settings);
            }
        }
    }

    /// The schema of an id, also of one that is in no subject any more.
    pub fn schema(&self, id: SchemaId) -> Option<&Arc<Schema>> {
        self.schemas.get(&id)
    }

    /// All schemas by id.
    pub fn schemas(&self) -> impl Iterator<Item = &Arc<Schema>> {
        self.schemas.values()
    }

    /// The largest id given, 0 when there is none.
    pub fn max_id(&self) -> SchemaId {
        self.schemas.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// The id of a schema that is known under the same canonical form.
    pub fn id_of(&self, kind: SchemaType, text: &str, references: &[Reference]) -> Option<SchemaId> {
        self.identities.get(&*identity(kind, text, references)).copied()
    }

    /// Subjects by name, with their versions in order, deleted ones among them.
    pub fn subjects(&self) -> impl Iterator<Item = (&str, Vec<SchemaVersion>)> {
        self.subjects.iter().map(|(name, versions)| (name.as_str(), versions.values().copied().collect()))
    }

    /// Versions of all subjects together.
    pub(super) fn version_count(&self) -> usize {
        self.subjects.values().map(BTreeMap::len).sum()
    }

    /// Subjects with settings of their own.
    pub(super) fn settings_count(&self) -> usize {
        self.settings.len()
    }

    /// A subject's versions in order; deleted ones only when asked for.
    pub fn versions(&self, subject: &str, deleted: bool) -> Vec<SchemaVersion> {
        let all = self.subjects.get(subject).into_iter().flat_map(BTreeMap::values);
        all.filter(|version| deleted || !version.deleted).copied().collect()
    }

    /// Where a schema is registered: subject and version, deleted ones only when asked for.
    pub fn places(&self, id: SchemaId, deleted: bool) -> Vec<(String, u32)> {
        let places = self.subjects.iter().flat_map(|(subject, versions)| {
            let here = versions.values().filter(move |v| v.id == id && (deleted || !v.deleted));
            here.map(move |version| (subject.clone(), version.version))
        });
        places.collect()
    }

    /// The ids of schemas in use that refer to a version of a subject.
    pub fn referencing(&self, subject: &str, version: u32) -> Vec<SchemaId> {
        let all = self.ever_referencing(subject, version);
        all.filter(|id| !self.places(*id, false).is_empty()).collect()
    }

    /// As [`Self::referencing`], with schemas that are in no subject any more: records may still carry their ids.
    pub(super) fn ever_referencing(&self, subject: &str, version: u32) -> impl Iterator<Item = SchemaId> {
        let refers = move |schema: &&Arc<Schema>| {
            schema.references.iter().any(|reference| reference.subject == subject && reference.version == version)
        };
        self.schemas.values().filter(refers).map(|schema| schema.id)
    }

    /// See [`super::Schemas::referred`].
    pub fn referred(&self, references: &[Reference]) -> Vec<(String, Arc<Schema>)> {
        let mut found: Vec<(String, Arc<Schema>)> = Vec::new();
        self.collect_referred(references, &mut found, 0);
        found
    }

    fn collect_referred(&self, references: &[Reference], found: &mut Vec<(String, Arc<Schema>)>, depth: usize) {
        // Versions are immutable and refer to earlier ones, so there are no circles; the bound is for imported ones.
        const DEPTH_MAX: usize = 64;
        for reference in references {
            let version = self.subjects.get(&reference.subject).and_then(|versions| versions.get(&reference.version));
            let Some(schema) = version.and_then(|version| self.schemas.get(&version.id)) else { continue };
            if depth < DEPTH_MAX && !found.iter().any(|(name, _)| *name == reference.name) {
                self.collect_referred(&schema.references, found, depth + 1);
                found.push((reference.name.clone(), schema.clone()));
            }
        }
    }

    /// What is set for a subject itself; for the empty name, what is set for all.
    pub fn settings(&self, subject: &str) -> Settings {
        self.settings.get(subject).copied().unwrap_or_default()
    }

    /// The level that holds for a subject.
    pub fn compatibility(&self, subject: &str) -> Compatibility {
        self.settings(subject).compatibility.or(self.settings("").compatibility).unwrap_or_default()
    }

    /// The mode that holds for a subject.
    pub fn mode(&self, subject: &str) -> RegistryMode {
        let global = self.settings("").mode;
        if global == Some(RegistryMode::ReadonlyOverride) {
            return RegistryMode::ReadonlyOverride;
        }
        self.settings(subject).mode.or(global).unwrap_or_default()
    }
}
