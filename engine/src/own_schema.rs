//! Records that name no schema: all of a stream are written with the one that its declaration gives.

use std::sync::Arc;

use protox::prost_reflect::{FileDescriptor, MessageDescriptor};

use crate::avro::{self, AvroSchema};
use crate::config::{OwnSchema, StreamConfig, StreamFormat};
use crate::misfit::parsed;
use crate::names::closest;
use crate::protobuf::{self, proto_file};

/// A stream's own schema, compiled against its columns. Never changes.
pub(crate) enum Own {
    Avro(Arc<avro::Program>),
    Protobuf(MessageDescriptor, Arc<protobuf::Program>),
}

impl Own {
    /// Compiles the schema of a declaration. None without one, and with one that cannot be used, which is noted.
    pub(crate) fn compile(config: &StreamConfig, mistakes: &mut Vec<String>) -> Option<Own> {
        let schema = config.schema.as_ref()?;
        match Own::of(schema, config) {
            Ok(own) => {
                own.check_columns(config, mistakes);
                Some(own)
            }
            Err(reason) => {
                mistakes.push(format!("the schema cannot be used: {reason}"));
                None
            }
        }
    }

    fn of(schema: &OwnSchema, config: &StreamConfig) -> Result<Own, String> {
        match config.format {
            StreamFormat::Avro => {
                let parsed = AvroSchema::parse(&schema.text, std::iter::empty())?;
                Ok(Own::Avro(Arc::new(avro::Program::compile(parsed, &config.fields())?)))
            }
            StreamFormat::Protobuf => {
                let imports: Vec<(&str, &str)> =
                    schema.imports.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
                let message = message_of(&proto_file(&schema.text, &imports)?, schema.message.as_deref())?;
                let program = protobuf::Program::compile(&message, &config.fields())?;
                Ok(Own::Protobuf(message, Arc::new(program)))
            }
            StreamFormat::Json | StreamFormat::JsonSchema | StreamFormat::Csv => {
                Err("it goes with the formats avro and protobuf, take it away".into())
            }
        }
    }

    /// A field that the schema does not have would be null for ever: records of other schemas cannot come.
    fn check_columns(&self, config: &StreamConfig, mistakes: &mut Vec<String>) {
        for (index, (column, field)) in config.columns.iter().zip(config.fields()).enumerate() {
            let (is_bound, names) = match self {
                Own::Avro(program) => (program.binds(index), program.schema().field_names()),
                Own::Protobuf(message, program) => {
                    (program.binds(index), message.fields().map(|field| field.name().to_owned()).collect())
                }
            };
            if !is_bound {
                let hint = closest(field, names.iter().map(String::as_str));
                mistakes.push(format!("column '{}': the schema has no field '{field}'{hint}", column.name));
            }
        }
    }

    /// Writes a JSON value as a record.
    ///
    /// # Errors
    /// What does not fit the schema.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u8>, String> {
        let value = parsed(text)?;
        match self {
            Own::Avro(program) => avro::encode(program.schema(), &value),
            Own::Protobuf(message, _) => protobuf::encode(message, &value),
        }
    }
}

/// The message of this name, with or without the file's package; without a name the only one at the top of the file.
fn message_of(file: &FileDescriptor, name: Option<&str>) -> Result<MessageDescriptor, String> {
    let mut top: Vec<MessageDescriptor> = file.messages().collect();
    let Some(name) = name else {
        return match (top.pop(), top.len()) {
            (None, _) => Err("it declares no message".into()),
            (Some(only), 0) => Ok(only),
            (Some(last), _) => {
                top.push(last);
                let names: Vec<&str> = top.iter().map(MessageDescriptor::name).collect();
                Err(format!("it declares several messages, name one in message: {}", names.join(", ")))
            }
        };
    };
    let pool = file.parent_pool();
    let within = || pool.get_message_by_name(&format!("{}.{name}", file.package_name()));
    pool.get_message_by_name(name).or_else(within).ok_or_else(|| {
        let hint = closest(name, top.iter().map(MessageDescriptor::full_name));
        format!("it declares no message '{name}'{hint}")
    })
}
