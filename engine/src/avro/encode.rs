//! JSON → Avro, for records that come over HTTP: objects are records by field name, a union takes the first branch that
//! fits, times and dates may be text as in a JSON stream.

use serde_json::Value;

use super::program::DEPTH_MAX;
use super::schema::{AvroSchema, Meaning, Node, NodeId, Octets};
use crate::misfit::misfit;
use crate::nested::integer_bytes;
use crate::scalar::{parse_date_days, parse_decimal, parse_timestamp_ms};

/// The bytes of a value.
///
/// # Errors
/// The path of what does not fit, and what was wanted.
pub(crate) fn encode(schema: &AvroSchema, value: &Value) -> Result<Vec<u8>, String> {
    let mut encoder = Encoder { schema, out: Vec::new(), path: Vec::new() };
    encoder.value(schema.root, value)?;
    Ok(encoder.out)
}

struct Encoder<'s> {
    schema: &'s AvroSchema,
    out: Vec<u8>,
    path: Vec<String>,
}

impl Encoder<'_> {
    fn wrong(&self, value: &Value, wanted: &str) -> String {
        misfit(&self.path, value, wanted)
    }

    fn value(&mut self, node: NodeId, value: &Value) -> Result<(), String> {
        if self.path.len() > DEPTH_MAX {
            return Err(format!("values are nested deeper than {DEPTH_MAX}"));
        }
        match self.schema.node(node) {
            Node::Null if value.is_null() => Ok(()),
            Node::Null => Err(self.wrong(value, "null")),
            Node::Boolean => {
                let flag = value.as_bool().ok_or_else(|| self.wrong(value, "true or false"))?;
                self.out.push(u8::from(flag));
                Ok(())
            }
            Node::Int(meaning) => self.number(value, *meaning, i32::try_from),
            Node::Long(meaning) => self.number(value, *meaning, Ok::<i64, i64>),
            Node::Float => {
                let number = value.as_f64().ok_or_else(|| self.wrong(value, "a number"))? as f32;
                self.out.extend(number.to_bits().to_le_bytes());
                Ok(())
            }
            Node::Double => {
                let number = value.as_f64().ok_or_else(|| self.wrong(value, "a number"))?;
                self.out.extend(number.to_bits().to_le_bytes());
                Ok(())
            }
            Node::Text => {
                let text = value.as_str().ok_or_else(|| self.wrong(value, "a string"))?;
                self.bytes(text.as_bytes());
                Ok(())
            }
            Node::Enum(symbols) => {
                let at = value.as_str().and_then(|text| symbols.iter().position(|symbol| symbol == text));
                let at = at.ok_or_else(|| self.wrong(value, &format!("one of {}", symbols.join(", "))))?;
                self.long(i64::try_from(at).unwrap_or(i64::MAX));
                Ok(())
            }
            Node::Bytes(octets) => {
                let bytes = self.octets(value, *octets)?;
                self.bytes(&bytes);
                Ok(())
            }
            Node::Fixed(size, octets) => self.fixed(value, *size, *octets),
            Node::Union(branches) => self.union(branches, value),
            Node::Array(_) | Node::Map(_) | Node::Record(_) => self.nested(node, value),
        }
    }

    fn nested(&mut self, node: NodeId, value: &Value) -> Result<(), String> {
        match (self.schema.node(node), value) {
            (Node::Array(items), Value::Array(values)) => {
                if !values.is_empty() {
                    self.long(i64::try_from(values.len()).unwrap_or(i64::MAX));
                }
                for (at, value) in values.iter().enumerate() {
                    self.within(&at.to_string(), *items, value)?;
                }
                self.long(0);
                Ok(())
            }
            (Node::Map(values), Value::Object(map)) => {
                if !map.is_empty() {
                    self.long(i64::try_from(map.len()).unwrap_or(i64::MAX));
                }
                for (key, value) in map {
                    self.bytes(key.as_bytes());
                    self.within(key, *values, value)?;
                }
                self.long(0);
                Ok(())
            }
            (Node::Record(fields), Value::Object(map)) => {
                if let Some(name) = map.keys().find(|name| !fields.iter().any(|field| field.name == **name)) {
                    return Err(format!("field '{name}' is not in the schema: take it away, or add it to the schema"));
                }
                for field in fields {
                    let given = map.get(&field.name).or(field.default.as_ref());
                    self.within(&field.name, field.node, given.unwrap_or(&Value::Null))?;
                }
                Ok(())
            }
            (Node::Array(_), _) => Err(self.wrong(value, "an array")),
            _ => Err(self.wrong(value, "an object")),
        }
    }

    fn within(&mut self, name: &str, node: NodeId, value: &Value) -> Result<(), String> {
        self.path.push(name.into());
        self.value(node, value)?;
        self.path.pop();
        Ok(())
    }

    fn union(&mut self, branches: &[NodeId], value: &Value) -> Result<(), String> {
        let (start, depth) = (self.out.len(), self.path.len());
        let mut last = None;
        for (at, branch) in (0..).zip(branches) {
            self.long(at);
            match self.value(*branch, value) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.out.truncate(start);
                    self.path.truncate(depth);
                    // What the last branch wants says more than that null does not fit.
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.wrong(value, "nothing: the union is empty")))
    }

    fn number<T: Into<i64>, E>(
        &mut self,
        value: &Value,
        meaning: Meaning,
        narrow: impl Fn(i64) -> Result<T, E>,
    ) -> Result<(), String> {
        let (number, wanted) = match (meaning, value) {
            (Meaning::Date, Value::String(text)) => (parse_date_days(text).map(i64::from), "a date, YYYY-MM-DD"),
            (Meaning::Instant { per_ms }, Value::String(text)) => {
                (parse_timestamp_ms(text).and_then(|ms| ms.checked_mul(per_ms)), "an ISO 8601 time")
            }
            _ => (value.as_i64(), "an integer"),
        };
        let number = number.and_then(|number| narrow(number).ok()).ok_or_else(|| self.wrong(value, wanted))?;
        self.long(number.into());
        Ok(())
    }

    fn octets(&self, value: &Value, octets: Octets) -> Result<Vec<u8>, String> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if matches!(octets, Octets::Decimal { .. }) => number.to_string(),
            _ => return Err(self.wrong(value, "a string")),
        };
        match octets {
            Octets::Decimal { scale } => {
                let scale = u8::try_from(scale).unwrap_or(u8::MAX);
                let unscaled = parse_decimal(&text, 38, scale)
                    .ok_or_else(|| self.wrong(value, &format!("a decimal with {scale} places")))?;
                Ok(integer_bytes(unscaled))
            }
            Octets::Uuid => {
                let hex: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
                let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                hex.chunks(2).map(pair).collect::<Option<Vec<u8>>>().ok_or_else(|| self.wrong(value, "a UUID"))
            }
            // Avro's own JSON form: one character per byte.
            Octets::Plain => {
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                bytes.ok_or_else(|| self.wrong(value, "bytes as characters U+0000 to U+00FF"))
            }
        }
    }

    fn fixed(&mut self, value: &Value, size: usize, octets: Octets) -> Result<(), String> {
        let mut bytes = self.octets(value, octets)?;
        if matches!(octets, Octets::Decimal { .. }) && bytes.len() < size {
            let fill = if bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xff } else { 0 };
            bytes.splice(0..0, std::iter::repeat_n(fill, size - bytes.len()));
        }
        if bytes.len() != size {
            return Err(self.wrong(value, &format!("{size} bytes")));
        }
        self.out.extend(bytes);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.long(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        self.out.extend_from_slice(bytes);
    }

    fn long(&mut self, number: i64) {
        let mut bits = (number << 1 ^ number >> 63) as u64;
        while bits > 0x7f {
            self.out.push((bits & 0x7f) as u8 | 0x80);
            bits >>= 7;
        }
        self.out.push(bits as u8);
    }
}
