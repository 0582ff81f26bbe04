//! Schemas by their ids, and lists over all subjects.

use broker::{Schema, SchemaId, SchemaState, SchemaType};
use serde_json::{Value, json};

use super::call::Call;
use super::fault::Fault;
use super::meaning::{self, Meaning};
use super::{protobuf, subjects};

/// `GET /schemas/types`.
pub fn types() -> Value {
    json!(SchemaType::ALL.map(SchemaType::name))
}

/// `GET /schemas`.
pub fn list(call: &Call) -> Result<Value, Fault> {
    let (deleted, latest_only) = (call.flag("deleted"), call.flag("latestOnly"));
    let all = call.app.broker.schemas().read(|state| {
        let mut all = Vec::new();
        for (subject, _) in state.subjects().filter(|(subject, _)| subject.starts_with(call.prefix())) {
            let versions = state.versions(subject, deleted);
            let from = if latest_only { versions.len().saturating_sub(1) } else { 0 };
            for version in &versions[from..] {
                all.push((subject.to_owned(), *version));
            }
        }
        let page = call.page(all);
        page.iter().map(|(subject, version)| subjects::shown(state, subject, *version)).collect::<Result<Vec<_>, _>>()
    });
    Ok(json!(all?))
}

/// `GET /schemas/ids/{id}`.
pub fn by_id(call: &Call, id: &str) -> Result<Value, Fault> {
    call.app.broker.schemas().read(|state| {
        let schema = find(state, id)?;
        let mut value = json!({});
        describe(schema, &mut value);
        if let Some(text) = formatted(call, state, schema.id)? {
            value["schema"] = json!(text);
        }
        if call.flag("fetchMaxId") {
            value["maxId"] = json!(state.max_id());
        }
        Ok(value)
    })
}

/// `GET /schemas/ids/{id}/schema`: the schema itself.
pub fn text(call: &Call, id: &str) -> Result<Value, Fault> {
    call.app.broker.schemas().read(|state| bare(find(state, id)?))
}

/// `GET /schemas/ids/{id}/subjects`.
pub fn subjects(call: &Call, id: &str) -> Result<Value, Fault> {
    let mut names: Vec<String> = places(call, id)?.into_iter().map(|(subject, _)| subject).collect();
    names.dedup();
    Ok(json!(call.page(names)))
}

/// `GET /schemas/ids/{id}/versions`.
pub fn versions(call: &Call, id: &str) -> Result<Value, Fault> {
    let places =
        places(call, id)?.into_iter().map(|(subject, version)| json!({"subject": subject, "version": version}));
    Ok(json!(call.page(places.collect())))
}

/// Where a schema is registered: subjects and versions, deleted ones when the call asks for them.
fn places(call: &Call, id: &str) -> Result<Vec<(String, u32)>, Fault> {
    call.app.broker.schemas().read(|state| Ok(state.places(find(state, id)?.id, call.flag("deleted"))))
}

/// The schema of an id that is in some subject, deleted or not.
fn find<'s>(state: &'s SchemaState, id: &str) -> Result<&'s Schema, Fault> {
    let found = id.parse::<SchemaId>().ok().and_then(|id| state.schema(id));
    let found = found.filter(|schema| !state.places(schema.id, true).is_empty());
    found.map(AsRef::as_ref).ok_or_else(|| Fault::id_not_found(id))
}

/// Adds text, type and references; the type is left out for Avro, and no references are not told, as older clients
/// expect.
pub fn describe(schema: &Schema, value: &mut Value) {
    if schema.kind != SchemaType::Avro {
        value["schemaType"] = json!(schema.kind.name());
    }
    if !schema.references.is_empty() {
        value["references"] = json!(schema.references);
    }
    value["schema"] = json!(schema.text);
}

/// The schema as JSON where it is JSON, as a text else.
pub fn bare(schema: &Schema) -> Result<Value, Fault> {
    Ok(match schema.kind {
        SchemaType::Protobuf => json!(schema.text),
        _ => serde_json::from_str(&schema.text).unwrap_or_else(|_| json!(schema.text)),
    })
}

/// The text in the format that is asked for, when it is not the one kept: `serialized` is Protobuf's compiled form.
pub fn formatted(call: &Call, state: &SchemaState, id: SchemaId) -> Result<Option<String>, Fault> {
    let schema = state.schema(id).ok_or_else(Fault::schema_not_found)?;
    if call.parameter("format") != Some("serialized") || schema.kind != SchemaType::Protobuf {
        return Ok(None);
    }
    match meaning::parse(state, schema.kind, &schema.text, &schema.references)? {
        Meaning::Protobuf(parsed) => Ok(Some(protobuf::serialized(&parsed, &format!("schema-{id}.proto")))),
        _ => Ok(None),
    }
}
