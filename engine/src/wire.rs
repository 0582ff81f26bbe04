//! Records with a registry's prefix: byte 0, the id of the writer's schema in four bytes, the payload. Where a stream has a
//! schema of its own, there is no prefix.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use broker::{Schema, SchemaId, SchemaType, Schemas};
use parking_lot::RwLock;
use protox::prost_reflect::FileDescriptor;

use crate::avro::{self, AvroSchema, Program};
use crate::config::{StreamConfig, StreamFormat};
use crate::fields::{Refusal, refusal};
use crate::misfit::parsed;
use crate::own_schema::Own;
use crate::protobuf::{self, Known, LastMessage, message_at, proto_file, split_path};

/// Byte 0 and a schema id, big-endian.
const PREFIX_BYTES: usize = 5;
/// How a stream would be declared whose records have no prefix.
const OTHERWISE: &str = "\"json\" if it is JSON, or give the stream the schema of all its records";
/// Most schemas whose compiled form one stream keeps; beyond, it begins anew.
const PROGRAMS_MAX: usize = 4_096;

/// The registry as one stream uses it. Holds: writers' schemas compiled against the stream's columns, which never change
/// for an id. Nothing of it is stored.
#[derive(Default)]
pub(crate) struct Wire {
    /// The schema of records without a prefix.
    own: Option<Own>,
    schemas: OnceLock<Arc<Schemas>>,
    programs: RwLock<HashMap<SchemaId, Arc<Program>>>,
    messages: Known,
    /// The schema that JSON was last written with.
    writer: RwLock<Option<(SchemaId, Arc<AvroSchema>)>>,
}

/// The schema that the record before had.
pub(crate) type LastProgram = Option<(SchemaId, Arc<Program>)>;

impl Wire {
    /// With a schema of the stream's own the registry is not asked.
    pub(crate) fn new(own: Option<Own>) -> Wire {
        Wire { own, ..Wire::default() }
    }

    /// Says which registry it is; only the first call counts.
    pub(crate) fn bind(&self, schemas: Arc<Schemas>) {
        self.schemas.get_or_init(|| schemas);
    }

    /// The id and the payload of a value, whose schema must be of this type.
    pub(crate) fn json<'a>(&self, value: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let (id, payload) = split(value, "\"json\"")?;
        self.schema(id, SchemaType::Json)?;
        Ok(payload)
    }

    /// The compiled schema of an Avro value, and its payload.
    pub(crate) fn avro<'a>(
        &self,
        value: &'a [u8],
        config: &StreamConfig,
        last: &mut LastProgram,
    ) -> Result<(Arc<Program>, &'a [u8]), Refusal> {
        if let Some(Own::Avro(program)) = &self.own {
            return Ok((program.clone(), value));
        }
        let (id, payload) = split(value, OTHERWISE)?;
        if let Some((_, program)) = last.as_ref().filter(|(known, _)| *known == id) {
            return Ok((program.clone(), payload));
        }
        let known = self.programs.read().get(&id).cloned();
        let program = match known {
            Some(program) => program,
            None => self.compile(id, config)?,
        };
        *last = Some((id, program.clone()));
        Ok((program, payload))
    }

    /// The compiled type of the message in a Protobuf value, and the message.
    pub(crate) fn protobuf<'a>(
        &self,
        value: &'a [u8],
        config: &StreamConfig,
        last: &mut LastMessage,
    ) -> Result<(Arc<protobuf::Program>, &'a [u8]), Refusal> {
        if let Some(Own::Protobuf(_, program)) = &self.own {
            return Ok((program.clone(), value));
        }
        let (id, payload) = split(value, OTHERWISE)?;
        let (path, message) = split_path(payload).map_err(|reason| refusal("protobuf", reason))?;
        if let Some((.., program)) = last.as_ref().filter(|(of, at, _)| *of == id && *at == path) {
            return Ok((program.clone(), message));
        }
        let program = match self.messages.find(id, &path) {
            Some(program) => program,
            None => {
                let schema = self.schema(id, SchemaType::Protobuf)?;
                let compiled = self.messages.compile((id, &path), || self.file(&schema), &config.fields());
                compiled.map_err(|reason| unusable(id, &reason))?
            }
        };
        *last = Some((id, path, program.clone()));
        Ok((program, message))
    }

    /// What else may be wrong with a value that its schema does not read.
    pub(crate) fn hint(&self, value: &[u8]) -> &'static str {
        match value {
            [0, _, _, _, _, ..] if self.own.is_some() => {
                "; it begins with byte 0, as what names a schema's id: if serializers of the registry write this topic, declare the stream without a schema"
            }
            _ => "",
        }
    }

    fn file(&self, schema: &Schema) -> Result<FileDescriptor, String> {
        let referred = self.schemas.get().map(|schemas| schemas.referred(&schema.references)).unwrap_or_default();
        let named: Vec<(&str, &str)> =
            referred.iter().map(|(name, schema)| (name.as_str(), schema.text.as_str())).collect();
        proto_file(&schema.text, &named)
    }

    fn compile(&self, id: SchemaId, config: &StreamConfig) -> Result<Arc<Program>, Refusal> {
        let schema = self.schema(id, SchemaType::Avro)?;
        let compiled = self.parse(&schema).and_then(|schema| Program::compile(schema, &config.fields()));
        let program = Arc::new(compiled.map_err(|reason| unusable(id, &reason))?);
        let mut programs = self.programs.write();
        if programs.len() >= PROGRAMS_MAX {
            programs.clear();
        }
        programs.insert(id, program.clone());
        Ok(program)
    }

    fn parse(&self, schema: &Schema) -> Result<AvroSchema, String> {
        let referred = self.schemas.get().map(|schemas| schemas.referred(&schema.references)).unwrap_or_default();
        AvroSchema::parse(&schema.text, referred.iter().map(|(_, schema)| schema.text.as_str()))
    }

    fn writer(&self, schema: &Schema) -> Result<Arc<AvroSchema>, String> {
        if let Some((_, known)) = self.writer.read().as_ref().filter(|(id, _)| *id == schema.id) {
            return Ok(known.clone());
        }
        let parsed = Arc::new(self.parse(schema)?);
        *self.writer.write() = Some((schema.id, parsed.clone()));
        Ok(parsed)
    }

    fn schema(&self, id: SchemaId, wanted: SchemaType) -> Result<Arc<Schema>, Refusal> {
        let found = self.schemas.get().and_then(|schemas| schemas.schema(id)).ok_or_else(|| {
            let reason = format!(
                "schema id {id} is not in the registry: let the producer's serializer use this registry, or register the schema first"
            );
            refusal("schema_id", reason)
        })?;
        if found.kind == wanted {
            return Ok(found);
        }
        let reason = format!(
            "schema id {id} is {}, the stream reads {}: correct the stream's format or the producer's serializer",
            found.kind.name(),
            wanted.name()
        );
        Err(refusal("schema_id", reason))
    }

    /// Writes a JSON value with the stream's own schema, or else as the latest one of `<topic>-value` has it.
    ///
    /// # Errors
    /// What is missing or does not fit, and what to do.
    pub(crate) fn encode(&self, config: &StreamConfig, text: &str) -> Result<Vec<u8>, String> {
        if let Some(own) = &self.own {
            return own.encode(text);
        }
        let subject = format!("{}-value", config.topic);
        let wanted = match config.format {
            StreamFormat::Avro => SchemaType::Avro,
            StreamFormat::Protobuf => SchemaType::Protobuf,
            _ => SchemaType::Json,
        };
        let schemas = self.schemas.get().ok_or("the engine has not started: send it again")?;
        let latest = schemas.read(|state| {
            let last = state.versions(&subject, false).last().copied()?;
            state.schema(last.id).cloned()
        });
        let latest = latest.ok_or_else(|| {
            format!("subject {subject} has no schema: register one, then send the record again, or send value_base64 with its prefix")
        })?;
        if latest.kind != wanted {
            return Err(format!(
                "the latest schema of subject {subject} is {}, the stream reads {}: register another",
                latest.kind.name(),
                wanted.name()
            ));
        }
        let payload = self.payload(&latest, text)?;
        Ok([&[0][..], &latest.id.to_be_bytes(), &payload].concat())
    }

    fn payload(&self, schema: &Schema, text: &str) -> Result<Vec<u8>, String> {
        match schema.kind {
            SchemaType::Avro => avro::encode(&*self.writer(schema)?, &parsed(text)?),
            SchemaType::Protobuf => {
                let file = self.messages.file(schema.id, || self.file(schema))?;
                let message = message_at(&file, &[]).ok_or_else(|| {
                    format!("the schema of id {} declares no message: register one with a message", schema.id)
                })?;
                // The path to the file's first message is one zero.
                Ok([&[0][..], &protobuf::encode(&message, &parsed(text)?)?].concat())
            }
            SchemaType::Json => Ok(text.as_bytes().to_vec()),
        }
    }
}

fn unusable(id: SchemaId, reason: &str) -> Refusal {
    refusal("schema_id", format!("the schema of id {id} cannot be used: {reason}"))
}

/// The schema's id that a value begins with, and what is behind it.
pub(crate) fn split<'a>(value: &'a [u8], otherwise: &str) -> Result<(SchemaId, &'a [u8]), Refusal> {
    if let Some(([0, id @ ..], payload)) = value.split_first_chunk::<PREFIX_BYTES>() {
        return Ok((SchemaId::from_be_bytes(*id), payload));
    }
    let reason = format!(
        "the value does not begin with byte 0 and the id of a schema: write it with a serializer of the schema registry, or declare the stream's format as {otherwise}"
    );
    Err(refusal("schema_prefix", reason))
}
