//! What a schema means, whatever its language: whether it is valid, and whether it fits earlier ones.

use std::sync::Arc;

use broker::{Compatibility, NewSchema, Reference, Schema, SchemaState, SchemaType};

use super::avro::{self, Avro};
use super::fault::Fault;
use super::json_schema::{self, JsonSchema};
use super::protobuf::{self, Protobuf};

/// Most schemas that one may use, directly and through others.
const REFERRED_MAX: usize = 100;

/// A valid schema.
#[allow(clippy::large_enum_variant, reason = "held while one schema is looked at")]
pub enum Meaning {
    /// Of Avro.
    Avro(Avro),
    /// Of JSON Schema.
    Json(JsonSchema),
    /// Of Protobuf.
    Protobuf(Protobuf),
}

/// The same schema with references to real versions (0 is the latest) and, for Protobuf, as text.
///
/// # Errors
/// 42201 for a reference to what is not there.
pub fn settled(state: &SchemaState, mut schema: NewSchema) -> Result<NewSchema, Fault> {
    for reference in &mut schema.references {
        let versions = state.versions(&reference.subject, false);
        let found = match reference.version {
            0 => versions.last(),
            number => versions.iter().find(|version| version.version == number),
        };
        let found = found.ok_or_else(|| {
            let Reference { subject, version, .. } = &reference;
            let version = if *version == 0 { "latest".to_owned() } else { version.to_string() };
            Fault::invalid_schema(format!(
                "No schema reference found for subject \"{subject}\" and version {version}: register it first"
            ))
        })?;
        reference.version = found.version;
    }
    let referred = state.referred(&schema.references);
    if referred.len() > REFERRED_MAX {
        let message = format!("The schema uses {} others: register it with at most {REFERRED_MAX}", referred.len());
        return Err(Fault::invalid_schema(message));
    }
    if schema.kind == SchemaType::Protobuf {
        schema.text = protobuf::text_of(&schema.text, &named(&referred)).map_err(|e| invalid(schema.kind, &e))?;
    }
    Ok(schema)
}

fn named(referred: &[(String, Arc<Schema>)]) -> Vec<(&str, &str)> {
    referred.iter().map(|(name, schema)| (name.as_str(), schema.text.as_str())).collect()
}

fn invalid(kind: SchemaType, reason: &str) -> Fault {
    Fault::invalid_schema(format!("Invalid schema of type {}, details: {reason}", kind.name()))
}

/// Reads a schema with what it refers to.
///
/// # Errors
/// 42201 with what is wrong.
pub fn parse(state: &SchemaState, kind: SchemaType, text: &str, references: &[Reference]) -> Result<Meaning, Fault> {
    let referred = state.referred(references);
    let named = named(&referred);
    let parsed = match kind {
        SchemaType::Avro => {
            let texts: Vec<&str> = named.iter().map(|(_, text)| *text).collect();
            avro::parse(text, &texts).map(Meaning::Avro)
        }
        SchemaType::Json => json_schema::parse(text, &named).map(Meaning::Json),
        SchemaType::Protobuf => protobuf::parse(text, &named).map(Meaning::Protobuf),
    };
    parsed.map_err(|reason| invalid(kind, &reason))
}

fn cannot_read(reader: &Meaning, writer: &Meaning) -> Vec<String> {
    match (reader, writer) {
        (Meaning::Avro(reader), Meaning::Avro(writer)) => avro::cannot_read(reader, writer),
        (Meaning::Json(reader), Meaning::Json(writer)) => json_schema::cannot_read(reader, writer),
        (Meaning::Protobuf(reader), Meaning::Protobuf(writer)) => protobuf::cannot_read(reader, writer),
        _ => vec!["{errorType:'SCHEMA_TYPE_MISMATCH', description:'the schemas are of different types'}".into()],
    }
}

/// What keeps a valid schema from following earlier ones (the latest last) at a level; empty when it fits.
///
/// # Errors
/// 42201 when an earlier schema cannot be read any more.
pub fn misfits(
    state: &SchemaState,
    level: Compatibility,
    new: &Meaning,
    earlier: &[Arc<Schema>],
) -> Result<Vec<String>, Fault> {
    let looked_at = if level.is_transitive() { earlier.len() } else { 1 };
    let mut found = Vec::new();
    for old in earlier.iter().rev().take(looked_at).filter(|_| level != Compatibility::None) {
        let meaning = parse(state, old.kind, &old.text, &old.references)?;
        let before = found.len();
        if level.is_backward() {
            found.extend(cannot_read(new, &meaning));
        }
        if level.is_forward() {
            found.extend(cannot_read(&meaning, new));
        }
        if found.len() > before {
            found.push(format!("{{oldSchema: '{}'}}", old.text));
            found.push(format!("{{compatibility: '{}'}}", level.name()));
            break;
        }
    }
    Ok(found)
}
