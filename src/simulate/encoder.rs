//! Events with a schema, as Confluent's serializers write them: a zero byte, the schema's id in the registry (big endian), then an Avro
//! datum, or the JSON itself.

use apache_avro::Schema;
use apache_avro::types::Value;
use serde_json::json;

use super::description::{Description, Encoding};
use crate::client::Server;
use crate::failure::Failure;

/// The first byte of a value that names its schema.
const MAGIC: u8 = 0;

/// Writes JSON events with their schema. What does not fit stays as it is, as from a producer that has no serializer.
pub enum Encoder {
    /// The Avro schemas by age, and events until the next is used.
    Avro(Vec<(u32, Schema)>, u64),
    /// The JSON Schema.
    JsonSchema(u32),
}

impl Encoder {
    /// Registers the description's schemas under `<topic>-value`; None when events are plain JSON.
    pub fn register(
        description: &Description,
        encoding: Encoding,
        topic: &str,
        registry: Option<&str>,
    ) -> Result<Option<Encoder>, Failure> {
        if encoding == Encoding::Json {
            return Ok(None);
        }
        let registry = registry.ok_or_else(|| {
            Failure::Usage(format!(
                "{topic} is written with a schema: name the schema registry, --registry http://127.0.0.1:8081"
            ))
        })?;
        if encoding == Encoding::JsonSchema {
            let schema = description.json_schema.as_deref().unwrap_or("{}");
            let body = json!({ "schema": schema, "schemaType": "JSON" });
            return Ok(Some(Encoder::JsonSchema(id_of(registry, topic, &body)?)));
        }
        let mut schemas = Vec::new();
        for schema in &description.avro {
            let text = serde_json::to_string(schema).map_err(|error| Failure::Failed(error.to_string()))?;
            schemas.push((id_of(registry, topic, &json!({ "schema": text }))?, schema.clone()));
        }
        Ok(Some(Encoder::Avro(schemas, description.evolve_after.max(1))))
    }

    /// Replaces an event's JSON by its form with a schema: in Avro, the one in use at the index-th event.
    pub fn encode(&self, index: u64, value: &mut Vec<u8>) {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(value) else { return };
        let (id, datum) = match self {
            Encoder::JsonSchema(id) if json.is_object() => (*id, std::mem::take(value)),
            Encoder::JsonSchema(_) => return,
            Encoder::Avro(schemas, evolve_after) => {
                let version = usize::try_from(index / evolve_after).unwrap_or(usize::MAX).min(schemas.len() - 1);
                let (id, schema) = &schemas[version];
                let Ok(avro) = Value::from(json).resolve(schema) else { return };
                let Ok(datum) = apache_avro::to_avro_datum(schema, avro) else { return };
                (*id, datum)
            }
        };
        value.clear();
        value.push(MAGIC);
        value.extend_from_slice(&id.to_be_bytes());
        value.extend_from_slice(&datum);
    }
}

/// Registers a schema; its id.
fn id_of(registry: &str, topic: &str, body: &serde_json::Value) -> Result<u32, Failure> {
    let answer = Server::at(registry).post(&format!("/subjects/{topic}-value/versions"), body)?;
    let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| Failure::Failed(format!("the registry at {registry} gave no id: {answer}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_follow_each_other_and_misfits_stay() {
        let first = r#"{"type": "record", "name": "e", "fields": [{"name": "n", "type": "long"}, {"name": "t", "type": ["null", "string"]}]}"#;
        let second = r#"{"type": "record", "name": "e", "fields": [{"name": "n", "type": "long"}, {"name": "t", "type": ["null", "string"]},
            {"name": "m", "type": ["null", "long"], "default": null}]}"#;
        let schema = |text: &str| Schema::parse_str(text).unwrap();
        let encoder = Encoder::Avro(vec![(7, schema(first)), (9, schema(second))], 2);
        let encode = |index, json: &str| {
            let mut value = json.as_bytes().to_vec();
            encoder.encode(index, &mut value);
            value
        };
        assert_eq!(encode(1, r#"{"n": 3, "t": "ab", "m": 5}"#), [0, 0, 0, 0, 7, 6, 2, 4, b'a', b'b']);
        assert_eq!(encode(2, r#"{"n": 3, "t": null, "m": 5}"#), [0, 0, 0, 0, 9, 6, 0, 2, 10]);
        assert_eq!(encode(5, r#"{"n": 3, "t": null}"#), [0, 0, 0, 0, 9, 6, 0, 0]);
        for misfit in ["{", r#"{"n": "x", "t": null}"#, "[1]"] {
            assert_eq!(encode(0, misfit), misfit.as_bytes());
        }
    }

    #[test]
    fn json_keeps_its_text_behind_the_id() {
        let encode = |json: &str| {
            let mut value = json.as_bytes().to_vec();
            Encoder::JsonSchema(258).encode(0, &mut value);
            value
        };
        assert_eq!(encode(r#"{"n": 3}"#), [&[0, 0, 0, 1, 2], r#"{"n": 3}"#.as_bytes()].concat());
        for misfit in ["{", "[1]", " "] {
            assert_eq!(encode(misfit), misfit.as_bytes());
        }
    }
}
