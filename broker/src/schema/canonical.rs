//! When two texts are the same schema: white space, the order of keys in a JSON object and `{"type": "string"}` for
//! `"string"` make no difference; documentation and the order of fields do.

use serde_json::Value;

use super::state::{Reference, SchemaType};

/// A text that is equal for equal schemas.
pub(super) fn identity(kind: SchemaType, text: &str, references: &[Reference]) -> String {
    let mut out = format!("{}\n", kind.name());
    for reference in references {
        out.push_str(&format!("{:?} {:?} {}\n", reference.name, reference.subject, reference.version));
    }
    match (kind, serde_json::from_str::<Value>(text)) {
        (SchemaType::Protobuf, _) | (_, Err(_)) => out.push_str(&without_layout(text)),
        (_, Ok(value)) => write(&value, kind == SchemaType::Avro, &mut out),
    }
    out
}

fn write(value: &Value, is_avro: bool, out: &mut String) {
    match value {
        Value::Object(map) => {
            if is_avro
                && map.len() == 1
                && let Some(alone) = map.get("type")
            {
                return write(alone, is_avro, out);
            }
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (at, key) in keys.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                // A default is data: an object with the one key "type" in it is not a schema.
                write(&map[key], is_avro && key != "default", out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, is_avro, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// Lines without the space around them and without empty ones.
fn without_layout(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}
