//! What a request changes: pure functions from the state to records. Whether a schema is valid and compatible is known by
//! the caller, who asks in between.

use std::sync::Arc;

use super::records::SchemaRecord;
use super::state::{Reference, RegistryMode, Schema, SchemaId, SchemaState, SchemaType, SchemaVersion, Settings};
use super::{SCHEMAS_MAX, SUBJECT_BYTES_MAX, VERSIONS_MAX};

/// Why a request cannot be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaFault {
    /// The subject has no version.
    SubjectNotFound(String),
    /// The subject is there, the version is not.
    VersionNotFound(u32),
    /// The schema is not registered.
    SchemaNotFound,
    /// The subject was deleted before; only permanent deletion is left.
    SubjectDeleted(String),
    /// Permanent deletion comes after deletion.
    SubjectNotDeleted(String),
    /// The version was deleted before; only permanent deletion is left.
    VersionDeleted(String, u32),
    /// Permanent deletion comes after deletion.
    VersionNotDeleted(String, u32),
    /// The mode does not allow it, with the reason.
    NotPermitted(String),
    /// Another schema refers to it.
    ReferenceExists(String, u32),
    /// A subject that cannot be one, with the rule.
    InvalidSubject(String),
    /// The id belongs to another schema.
    IdTaken(SchemaId),
    /// No more schemas are taken.
    Full,
}

/// A schema to be registered.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSchema {
    /// Its language.
    pub kind: SchemaType,
    /// Its text.
    pub text: String,
    /// What it uses.
    pub references: Vec<Reference>,
}

/// Where a schema is to be registered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registration {
    /// The subject.
    pub subject: String,
    /// The id it has elsewhere; taken in the mode IMPORT only.
    pub id: Option<SchemaId>,
    /// The version it has elsewhere; without an id it is left aside.
    pub version: Option<u32>,
}

/// What shall be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The version; none: the whole subject.
    pub version: Option<u32>,
    /// Whether what was deleted goes for good.
    pub permanent: bool,
}

impl SchemaState {
    /// The version of a subject that has this schema.
    pub fn find(&self, subject: &str, schema: &NewSchema, deleted: bool) -> Option<SchemaVersion> {
        let id = self.id_of(schema.kind, &schema.text, &schema.references)?;
        // The latest, if the same schema was deleted and registered again.
        self.versions(subject, deleted).into_iter().rev().find(|version| version.id == id)
    }

    /// Whether a subject's mode lets a schema in, and with a given id.
    ///
    /// # Errors
    /// `InvalidSubject`, `NotPermitted`.
    pub fn admits(&self, registration: &Registration) -> Result<(), SchemaFault> {
        let subject = &registration.subject;
        check_subject(subject)?;
        self.writable(subject)?;
        let message = match (registration.id, self.mode(subject)) {
            (Some(_), RegistryMode::Import) | (None, RegistryMode::Readwrite) => return Ok(()),
            (Some(_), _) => {
                format!("Subject {subject} is not in import mode: PUT /mode/{subject} first, or send no id")
            }
            (None, _) => format!("Subject {subject} is not in read-write mode: send the id that the schema has"),
        };
        Err(SchemaFault::NotPermitted(message))
    }

    fn writable(&self, subject: &str) -> Result<(), SchemaFault> {
        match self.mode(subject) {
            RegistryMode::Readwrite | RegistryMode::Import => Ok(()),
            mode => Err(SchemaFault::NotPermitted(format!("Subject {subject} is in {} mode", mode.name()))),
        }
    }

    /// Registers a schema that is valid and fits. The same schema in a subject again changes nothing, and so it is
    /// answered in every mode: serializers register what is there each time they start.
    ///
    /// # Errors
    /// As [`SchemaState::admits`], `IdTaken`, `Full`.
    pub fn register(
        &self,
        registration: &Registration,
        schema: NewSchema,
    ) -> Result<(Vec<SchemaRecord>, SchemaVersion), SchemaFault> {
        let subject = &registration.subject;
        if let Some(present) = self.find(subject, &schema, false)
            && registration.id.is_none_or(|id| id == present.id)
        {
            return Ok((Vec::new(), present));
        }
        self.admits(registration)?;
        let known = self.id_of(schema.kind, &schema.text, &schema.references);
        let mut records = Vec::new();
        let id = match (registration.id, known) {
            (Some(id), _) if self.schema(id).is_some() && known != Some(id) => return Err(SchemaFault::IdTaken(id)),
            (Some(id), _) => id,
            (None, Some(id)) => id,
            (None, None) => self.max_id().checked_add(1).ok_or(SchemaFault::Full)?,
        };
        if self.version_count() >= VERSIONS_MAX {
            return Err(SchemaFault::Full);
        }
        if self.schema(id).is_none() {
            if self.schemas().count() >= SCHEMAS_MAX {
                return Err(SchemaFault::Full);
            }
            let NewSchema { kind, text, references } = schema;
            records.push(SchemaRecord::Schema(Arc::new(Schema { id, kind, text, references })));
        }
        let next = self.versions(subject, true).last().map_or(1, |last| last.version.saturating_add(1));
        let number = registration.version.filter(|_| registration.id.is_some()).unwrap_or(next);
        if self.versions(subject, true).iter().any(|other| other.version == number && other.id != id) {
            let message =
                format!("Version {number} of subject {subject} is another schema: import it as another version");
            return Err(SchemaFault::NotPermitted(message));
        }
        let version = SchemaVersion { version: number, id, deleted: false };
        records.push(SchemaRecord::Version(subject.clone(), version));
        Ok((records, version))
    }

    /// Deletes a version or a subject; gives the versions concerned.
    ///
    /// # Errors
    /// What is not there, or not in the state that the deletion needs; `ReferenceExists`; `NotPermitted`.
    pub fn delete(&self, subject: &str, deletion: Deletion) -> Result<(Vec<SchemaRecord>, Vec<u32>), SchemaFault> {
        self.writable(subject)?;
        let all = self.versions(subject, true);
        if all.is_empty() {
            return Err(SchemaFault::SubjectNotFound(subject.into()));
        }
        let concerned = match deletion.version {
            Some(number) => vec![one_version(subject, &all, number, deletion.permanent)?],
            None => whole_subject(subject, all, deletion.permanent)?,
        };
        for version in &concerned {
            let needed = match deletion.permanent {
                true => self.ever_referencing(subject, version.version).next().is_some(),
                false => !self.referencing(subject, version.version).is_empty(),
            };
            if needed {
                return Err(SchemaFault::ReferenceExists(subject.into(), version.version));
            }
        }
        let record = |version: &SchemaVersion| match deletion.permanent {
            true => SchemaRecord::VersionGone(subject.into(), version.version),
            false => SchemaRecord::Version(subject.into(), SchemaVersion { deleted: true, ..*version }),
        };
        let mut records: Vec<SchemaRecord> = concerned.iter().map(record).collect();
        if deletion.version.is_none() && self.settings(subject) != Settings::default() {
            // What was set for it goes with it, so that a subject of this name begins anew.
            records.push(SchemaRecord::Settings(subject.into(), Settings::default()));
        }
        Ok((records, concerned.iter().map(|version| version.version).collect()))
    }

    fn check_settable(&self, subject: &str) -> Result<(), SchemaFault> {
        if self.settings_count() >= VERSIONS_MAX {
            return Err(SchemaFault::Full);
        }
        if subject.is_empty() { Ok(()) } else { check_subject(subject) }
    }

    /// Sets the mode of a subject (of all, when the name is empty); none takes it away.
    ///
    /// # Errors
    /// `NotPermitted` for IMPORT over schemas that are there, unless `force`.
    pub fn set_mode(
        &self,
        subject: &str,
        mode: Option<RegistryMode>,
        force: bool,
    ) -> Result<Vec<SchemaRecord>, SchemaFault> {
        let occupied = match subject {
            "" => self.subjects().next().is_some(),
            subject => !self.versions(subject, false).is_empty(),
        };
        if mode == Some(RegistryMode::Import) && occupied && !force && self.mode(subject) != RegistryMode::Import {
            let message = "Cannot import since found existing subjects: delete them, or send force=true";
            return Err(SchemaFault::NotPermitted(message.into()));
        }
        self.check_settable(subject)?;
        let settings = Settings { mode, ..self.settings(subject) };
        Ok(vec![SchemaRecord::Settings(subject.into(), settings)])
    }

    /// Sets the compatibility level of a subject (of all, when the name is empty); none takes it away.
    ///
    /// # Errors
    /// `InvalidSubject`, `NotPermitted`.
    pub fn set_compatibility(
        &self,
        subject: &str,
        level: Option<super::Compatibility>,
    ) -> Result<Vec<SchemaRecord>, SchemaFault> {
        self.check_settable(subject)?;
        self.writable(subject)?;
        let settings = Settings { compatibility: level, ..self.settings(subject) };
        Ok(vec![SchemaRecord::Settings(subject.into(), settings)])
    }
}

fn one_version(
    subject: &str,
    all: &[SchemaVersion],
    number: u32,
    permanent: bool,
) -> Result<SchemaVersion, SchemaFault> {
    let Some(version) = all.iter().find(|version| version.version == number) else {
        return Err(SchemaFault::VersionNotFound(number));
    };
    match (version.deleted, permanent) {
        (true, false) => Err(SchemaFault::VersionDeleted(subject.into(), number)),
        (false, true) => Err(SchemaFault::VersionNotDeleted(subject.into(), number)),
        _ => Ok(*version),
    }
}

fn whole_subject(subject: &str, all: Vec<SchemaVersion>, permanent: bool) -> Result<Vec<SchemaVersion>, SchemaFault> {
    let left = all.iter().any(|version| !version.deleted);
    match (permanent, left) {
        (true, true) => Err(SchemaFault::SubjectNotDeleted(subject.into())),
        (true, false) => Ok(all),
        (false, false) => Err(SchemaFault::SubjectDeleted(subject.into())),
        (false, true) => Ok(all.into_iter().filter(|version| !version.deleted).collect()),
    }
}

fn check_subject(subject: &str) -> Result<(), SchemaFault> {
    let fault = if subject.is_empty() {
        "is empty"
    } else if subject.len() > SUBJECT_BYTES_MAX {
        "is longer than 1024 bytes"
    } else if subject.chars().any(char::is_control) {
        "has a control character"
    } else if matches!(subject, "__GLOBAL" | "__EMPTY") {
        "is reserved"
    } else {
        return Ok(());
    };
    Err(SchemaFault::InvalidSubject(format!("The subject '{}' {fault}: use another name", subject.escape_debug())))
}
