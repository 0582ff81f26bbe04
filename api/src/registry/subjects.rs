//! Subjects and their versions: register, look up, list, delete, compare.

use std::sync::Arc;

use broker::{Compatibility, Deletion, Registration, Schema, SchemaState, SchemaVersion};
use serde_json::{Value, json};

use super::call::{Call, Given, plain_subject};
use super::fault::Fault;
use super::{meaning, schemas};

/// `GET /subjects`.
pub fn list(call: &Call) -> Result<Value, Fault> {
    let (deleted, only) = (call.flag("deleted"), call.flag("deletedOnly"));
    let names = call.app.broker.schemas().read(|state| {
        let shown = |versions: &[SchemaVersion]| {
            let left = versions.iter().any(|version| !version.deleted);
            if only { !left } else { left || deleted }
        };
        let found = state.subjects().filter(|(name, versions)| name.starts_with(call.prefix()) && shown(versions));
        found.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    });
    Ok(json!(call.page(names)))
}

/// `GET /subjects/{s}/versions`.
pub fn versions(call: &Call, subject: &str) -> Result<Value, Fault> {
    let (deleted, only) = (call.flag("deleted"), call.flag("deletedOnly"));
    let all = call.app.broker.schemas().read(|state| state.versions(plain_subject(subject), deleted || only));
    let numbers: Vec<u32> = all.iter().filter(|version| !only || version.deleted).map(|v| v.version).collect();
    if numbers.is_empty() { Err(Fault::subject_not_found(subject)) } else { Ok(json!(call.page(numbers))) }
}

/// `POST /subjects/{s}`: whether the schema is registered, and where.
pub fn lookup(call: &Call, subject: &str) -> Result<Value, Fault> {
    let subject = plain_subject(subject);
    let deleted = call.flag("deleted");
    call.app.broker.schemas().read(|state| {
        if state.versions(subject, deleted).is_empty() {
            return Err(Fault::subject_not_found(subject));
        }
        let given = call.given(state)?;
        meaning::parse(state, given.schema.kind, &given.schema.text, &given.schema.references)?;
        let found = state.find(subject, &given.schema, deleted).ok_or_else(Fault::schema_not_found)?;
        shown(state, subject, found)
    })
}

/// `POST /subjects/{s}/versions`.
pub async fn register(call: &Call, subject: &str) -> Result<Value, Fault> {
    let subject = plain_subject(subject);
    let schemas = call.app.broker.schemas();
    let answer = schemas.change(|state| {
        let Given { schema, id, version } = call.given(state)?;
        let registration = Registration { subject: subject.into(), id, version };
        // What is there already is found first: it is registered again and again by serializers that start.
        let known = state.find(subject, &schema, false).is_some();
        if !known {
            state.admits(&registration)?;
            let new = meaning::parse(state, schema.kind, &schema.text, &schema.references)?;
            // An imported schema was found to fit where it comes from.
            let level = if id.is_some() { Compatibility::None } else { state.compatibility(subject) };
            let misfits = meaning::misfits(state, level, &new, &texts(state, subject))?;
            if !misfits.is_empty() {
                return Err(Fault::incompatible(subject, &misfits));
            }
        }
        let (records, version) = state.register(&registration, schema)?;
        Ok((records, version.id))
    });
    Ok(json!({"id": answer.await?}))
}

/// `GET /subjects/{s}/versions/{v}`.
pub fn version(call: &Call, subject: &str, version: &str) -> Result<Value, Fault> {
    let subject = plain_subject(subject);
    call.app.broker.schemas().read(|state| {
        let found = named(state, subject, version, call.flag("deleted"))?;
        let mut value = shown(state, subject, found)?;
        if let Some(text) = schemas::formatted(call, state, found.id)? {
            value["schema"] = json!(text);
        }
        Ok(value)
    })
}

/// `GET /subjects/{s}/versions/{v}/schema`: the schema itself.
pub fn text(call: &Call, subject: &str, version: &str) -> Result<Value, Fault> {
    call.app.broker.schemas().read(|state| {
        let found = named(state, plain_subject(subject), version, call.flag("deleted"))?;
        schemas::bare(state.schema(found.id).ok_or_else(Fault::schema_not_found)?)
    })
}

/// `GET /subjects/{s}/versions/{v}/referencedby`.
pub fn referenced_by(call: &Call, subject: &str, version: &str) -> Result<Value, Fault> {
    let subject = plain_subject(subject);
    call.app.broker.schemas().read(|state| {
        let found = named(state, subject, version, true)?;
        Ok(json!(call.page(state.referencing(subject, found.version))))
    })
}

/// `DELETE /subjects/{s}`.
pub async fn delete(call: &Call, subject: &str) -> Result<Value, Fault> {
    let deletion = Deletion { version: None, permanent: call.flag("permanent") };
    let subject = plain_subject(subject);
    let deleted = call.app.broker.schemas().change(|state| Ok::<_, Fault>(state.delete(subject, deletion)?));
    Ok(json!(deleted.await?))
}

/// `DELETE /subjects/{s}/versions/{v}`.
pub async fn delete_version(call: &Call, subject: &str, version: &str) -> Result<Value, Fault> {
    let (subject, permanent) = (plain_subject(subject), call.flag("permanent"));
    let deleted = call.app.broker.schemas().change(|state| {
        let number = match wanted(version)? {
            // "latest" is the latest that is left, also when what was deleted is to go for good.
            None => named(state, subject, version, false)?.version,
            Some(number) => number,
        };
        Ok::<_, Fault>(state.delete(subject, Deletion { version: Some(number), permanent })?)
    });
    Ok(json!(deleted.await?.first().copied()))
}

/// `POST /compatibility/subjects/{s}/versions[/{v}]`: whether the schema would fit one version, or all that the level of
/// the subject counts.
pub async fn compatibility(call: &Call, subject: &str, version: Option<&str>) -> Result<Value, Fault> {
    let subject = plain_subject(subject);
    let misfits = call.app.broker.schemas().read(|state| {
        let given = call.given(state)?;
        let new = meaning::parse(state, given.schema.kind, &given.schema.text, &given.schema.references)?;
        let earlier = match version {
            None => texts(state, subject),
            Some(version) => match named(state, subject, version, false) {
                Ok(found) => state.schema(found.id).cloned().into_iter().collect(),
                // With nothing registered, everything fits what is latest.
                Err(_) if wanted(version)?.is_none() => Vec::new(),
                Err(fault) => return Err(fault),
            },
        };
        meaning::misfits(state, state.compatibility(subject), &new, &earlier)
    })?;
    let mut answer = json!({"is_compatible": misfits.is_empty()});
    if call.flag("verbose") {
        answer["messages"] = json!(misfits);
    }
    Ok(answer)
}

/// The schemas of a subject in the order of their versions.
pub fn texts(state: &SchemaState, subject: &str) -> Vec<Arc<Schema>> {
    state.versions(subject, false).iter().filter_map(|version| state.schema(version.id).cloned()).collect()
}

/// A version number; none for the latest.
fn wanted(version: &str) -> Result<Option<u32>, Fault> {
    match version {
        "latest" | "-1" => Ok(None),
        number => {
            let number = number.parse::<i32>().ok().filter(|number| *number > 0);
            number.map(|number| Some(number.unsigned_abs())).ok_or_else(|| Fault::invalid_version(version))
        }
    }
}

fn named(state: &SchemaState, subject: &str, version: &str, deleted: bool) -> Result<SchemaVersion, Fault> {
    let number = wanted(version)?;
    let versions = state.versions(subject, deleted);
    if versions.is_empty() {
        return Err(Fault::subject_not_found(subject));
    }
    let found = match number {
        None => versions.last(),
        Some(number) => versions.iter().find(|version| version.version == number),
    };
    found.copied().ok_or_else(|| Fault::version_not_found(version))
}

/// A version as it is told.
pub fn shown(state: &SchemaState, subject: &str, version: SchemaVersion) -> Result<Value, Fault> {
    let schema = state.schema(version.id).ok_or_else(Fault::schema_not_found)?;
    let mut value = json!({"subject": subject, "version": version.version, "id": version.id});
    schemas::describe(schema, &mut value);
    Ok(value)
}
