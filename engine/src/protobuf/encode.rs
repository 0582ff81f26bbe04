//! JSON → Protobuf, for records that come over HTTP: objects are messages by the names of their fields, null is as not
//! there, times and dates may be text as in a JSON stream, symbols are names or numbers, bytes are base 64.

use std::collections::HashMap;

use chrono::{DateTime, Datelike};
use protox::prost::Message;
use protox::prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use serde_json::Value as Json;

use crate::base64::unbase64;
use crate::misfit::misfit;
use crate::nested::integer_bytes;
use crate::scalar::{parse_date_days, parse_decimal, parse_timestamp_ms};

/// Deepest nesting of values: types may be recursive.
const DEPTH_MAX: usize = 64;
/// Most places of a decimal that are written.
const PLACES_MAX: usize = 38;

/// The bytes of a value.
///
/// # Errors
/// The path of what does not fit, and what was wanted.
pub(crate) fn encode(message: &MessageDescriptor, value: &Json) -> Result<Vec<u8>, String> {
    Ok(Encoder { path: Vec::new() }.message(message, value)?.encode_to_vec())
}

struct Encoder {
    path: Vec<String>,
}

impl Encoder {
    fn wrong(&self, value: &Json, wanted: &str) -> String {
        misfit(&self.path, value, wanted)
    }

    fn message(&mut self, descriptor: &MessageDescriptor, value: &Json) -> Result<DynamicMessage, String> {
        if self.path.len() > DEPTH_MAX {
            return Err(format!("values are nested deeper than {DEPTH_MAX}"));
        }
        if let Some(known) = self.well_known(descriptor, value)? {
            return Ok(known);
        }
        let Json::Object(map) = value else { return Err(self.wrong(value, "an object")) };
        let mut made = DynamicMessage::new(descriptor.clone());
        for (name, value) in map {
            let field = descriptor
                .get_field_by_name(name)
                .ok_or_else(|| format!("field '{name}' is not in the schema: take it away, or add it to the schema"))?;
            if !value.is_null() {
                self.path.push(name.clone());
                let value = self.field(&field, value)?;
                self.path.pop();
                made.try_set_field(&field, value).map_err(|error| error.to_string())?;
            }
        }
        let mut fields = descriptor.fields();
        match fields.find(|field| field.cardinality() == Cardinality::Required && !made.has_field(field)) {
            Some(field) => Err(format!("field '{}' is missing, the schema requires it", field.name())),
            None => Ok(made),
        }
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Json) -> Result<Value, String> {
        let kind = field.kind();
        match (value, kind.as_message().filter(|_| field.is_map())) {
            (Json::Object(map), Some(entry)) => {
                let (key_kind, kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
                let mut entries = HashMap::new();
                for (key, value) in map {
                    self.path.push(key.clone());
                    let wrong = || self.wrong(&Json::from(key.as_str()), &format!("a key of {key_kind:?}"));
                    let key = map_key(&key_kind, key).ok_or_else(wrong)?;
                    entries.insert(key, self.one(&kind, value)?);
                    self.path.pop();
                }
                Ok(Value::Map(entries))
            }
            (_, Some(_)) => Err(self.wrong(value, "an object")),
            (Json::Array(values), None) if field.is_list() => {
                let mut items = Vec::new();
                for (at, value) in values.iter().enumerate() {
                    self.path.push(at.to_string());
                    items.push(self.one(&kind, value)?);
                    self.path.pop();
                }
                Ok(Value::List(items))
            }
            _ if field.is_list() => Err(self.wrong(value, "an array")),
            _ => self.one(&kind, value),
        }
    }

    fn one(&mut self, kind: &Kind, value: &Json) -> Result<Value, String> {
        let whole = || whole(value);
        let found = match kind {
            Kind::Message(descriptor) => return self.message(descriptor, value).map(Value::Message),
            Kind::Bool => value.as_bool().map(Value::Bool),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => whole().and_then(|n| i32::try_from(n).ok()).map(Value::I32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => whole().and_then(|n| i64::try_from(n).ok()).map(Value::I64),
            Kind::Uint32 | Kind::Fixed32 => whole().and_then(|n| u32::try_from(n).ok()).map(Value::U32),
            Kind::Uint64 | Kind::Fixed64 => whole().and_then(|n| u64::try_from(n).ok()).map(Value::U64),
            Kind::Float => value.as_f64().map(|number| Value::F32(number as f32)),
            Kind::Double => value.as_f64().map(Value::F64),
            Kind::String => value.as_str().map(|text| Value::String(text.to_owned())),
            Kind::Bytes => value.as_str().and_then(unbase64).map(|bytes| Value::Bytes(bytes.into())),
            Kind::Enum(list) => match value.as_str() {
                Some(name) => list.get_value_by_name(name).map(|symbol| Value::EnumNumber(symbol.number())),
                None => whole().and_then(|n| i32::try_from(n).ok()).map(Value::EnumNumber),
            },
        };
        found.ok_or_else(|| match kind {
            Kind::Enum(list) => {
                let symbols: Vec<String> = list.values().map(|symbol| symbol.name().to_owned()).collect();
                self.wrong(value, &format!("one of {}", symbols.join(", ")))
            }
            Kind::Bytes => self.wrong(value, "bytes in base 64"),
            kind => self.wrong(value, &format!("{kind:?}")),
        })
    }

    /// A message of a type that is written as a plain value.
    fn well_known(&mut self, descriptor: &MessageDescriptor, value: &Json) -> Result<Option<DynamicMessage>, String> {
        let mut made = DynamicMessage::new(descriptor.clone());
        let set = match (descriptor.full_name(), value) {
            ("google.protobuf.Timestamp", Json::String(_) | Json::Number(_)) => {
                let ms = value.as_i64().or_else(|| value.as_str().and_then(parse_timestamp_ms));
                let time = ms.and_then(DateTime::from_timestamp_millis);
                time.map(|time| {
                    let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default();
                    vec![(1, Value::I64(time.timestamp())), (2, Value::I32(nanos))]
                })
            }
            ("google.type.Date", Json::String(text)) => parse_date_days(text).and_then(day_parts),
            ("confluent.type.Decimal", Json::String(_) | Json::Number(_)) => decimal_parts(value),
            ("google.protobuf.Value", Json::Null) => Some(vec![(1, Value::EnumNumber(0))]),
            (name, _) => match place_of(name, value).and_then(|number| descriptor.get_field(number)) {
                Some(field) => Some(vec![(field.number(), self.field(&field, value)?)]),
                None => return Ok(None),
            },
        };
        let set = set.ok_or_else(|| self.wrong(value, "an ISO 8601 time, a date or a decimal"))?;
        for (number, value) in set {
            made.try_set_field_by_number(number, value).map_err(|error| error.to_string())?;
        }
        Ok(Some(made))
    }
}

/// The field of a message that stands for this one value.
fn place_of(name: &str, value: &Json) -> Option<u32> {
    match (name.strip_prefix("google.protobuf.")?, value) {
        ("Struct" | "ListValue", _) => Some(1),
        ("Value", Json::Number(_)) => Some(2),
        ("Value", Json::String(_)) => Some(3),
        ("Value", Json::Bool(_)) => Some(4),
        ("Value", Json::Object(_)) => Some(5),
        ("Value", Json::Array(_)) => Some(6),
        (name, _) => match name.strip_suffix("Value")? {
            "Double" | "Float" | "Int64" | "UInt64" | "Int32" | "UInt32" | "Bool" | "String" | "Bytes" => Some(1),
            _ => None,
        },
    }
}

/// A whole number, also as text: numbers of 64 bits often are.
fn whole(value: &Json) -> Option<i128> {
    let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    number.or_else(|| value.as_str()?.parse().ok())
}

fn map_key(kind: &Kind, text: &str) -> Option<MapKey> {
    match kind {
        Kind::String => Some(MapKey::String(text.to_owned())),
        Kind::Bool => text.parse().ok().map(MapKey::Bool),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => text.parse().ok().map(MapKey::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => text.parse().ok().map(MapKey::I64),
        Kind::Uint32 | Kind::Fixed32 => text.parse().ok().map(MapKey::U32),
        Kind::Uint64 | Kind::Fixed64 => text.parse().ok().map(MapKey::U64),
        _ => None,
    }
}

fn day_parts(days: i32) -> Option<Vec<(u32, Value)>> {
    let date = DateTime::from_timestamp_millis(i64::from(days) * 86_400_000)?;
    let part = |number: u32| i32::try_from(number).ok().map(Value::I32);
    Some(vec![(1, Value::I32(date.year())), (2, part(date.month())?), (3, part(date.day())?)])
}

/// Value, precision and scale of a decimal with as many places as its text has.
fn decimal_parts(value: &Json) -> Option<Vec<(u32, Value)>> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let places = text.split_once('.').map_or(0, |(_, places)| places.bytes().take_while(u8::is_ascii_digit).count());
    let scale = u8::try_from(places.min(PLACES_MAX)).ok()?;
    let unscaled = parse_decimal(&text, 38, scale)?;
    let precision = u32::try_from(unscaled.unsigned_abs().to_string().len()).ok()?;
    Some(vec![
        (1, Value::Bytes(integer_bytes(unscaled).into())),
        (2, Value::U32(precision)),
        (3, Value::I32(i32::from(scale))),
    ])
}
