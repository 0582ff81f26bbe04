//! Events in Avro, as Confluent's serializers write them: a zero byte, the schema's id in the registry (big endian), the datum.

use apache_avro::Schema;
use apache_avro::types::Value;

use super::description::Description;
use crate::client::Server;
use crate::failure::Failure;

/// The first byte of a value that names its schema.
const MAGIC: u8 = 0;

/// Writes JSON events as Avro. What does not fit the schema stays as it is, as from a producer that has no serializer.
pub struct Encoder {
    schemas: Vec<(u32, Schema)>,
    evolve_after: u64,
}

impl Encoder {
    /// Registers the description's schemas under `<topic>-value`; None when its events are JSON.
    pub fn register(
        description: &Description,
        topic: &str,
        registry: Option<&str>,
    ) -> Result<Option<Encoder>, Failure> {
        if description.avro.is_empty() {
            return Ok(None);
        }
        let registry = registry.ok_or_else(|| {
            Failure::Usage(format!(
                "{topic} is written in Avro: name the schema registry, --registry http://127.0.0.1:8081"
            ))
        })?;
        let mut schemas = Vec::new();
        for schema in &description.avro {
            let text = serde_json::to_string(schema).map_err(|error| Failure::Failed(error.to_string()))?;
            let body = serde_json::json!({ "schema": text });
            let answer = Server::at(registry).post(&format!("/subjects/{topic}-value/versions"), &body)?;
            let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| Failure::Failed(format!("the registry at {registry} gave no id: {answer}")))?;
            schemas.push((id, schema.clone()));
        }
        Ok(Some(Encoder { schemas, evolve_after: description.evolve_after.max(1) }))
    }

    /// Replaces an event's JSON by its Avro form, with the schema that is in use at the index-th event.
    pub fn encode(&self, index: u64, value: &mut Vec<u8>) {
        let version = usize::try_from(index / self.evolve_after).unwrap_or(usize::MAX).min(self.schemas.len() - 1);
        let (id, schema) = &self.schemas[version];
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(value) else { return };
        let Ok(avro) = Value::from(json).resolve(schema) else { return };
        let Ok(datum) = apache_avro::to_avro_datum(schema, avro) else { return };
        value.clear();
        value.push(MAGIC);
        value.extend_from_slice(&id.to_be_bytes());
        value.extend_from_slice(&datum);
    }
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
        let encoder = Encoder { schemas: vec![(7, schema(first)), (9, schema(second))], evolve_after: 2 };
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
}
