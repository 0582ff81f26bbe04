//! Decoded values → what columns take, and nested ones as JSON text with the fields' names as the schema has them.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::NaiveDate;
use protox::prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use super::cursor::Broken;
use crate::base64::base64;
use crate::columns::{ColumnBuffer, Scalar};
use crate::json::JsonValue;
use crate::nested::{integer, separate, write_scalar, write_text};

/// Most bytes of a value's JSON: it names fields that take no bytes in the record.
const JSON_BYTES_MAX: usize = 16 << 20;

/// A value that a column takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Given<'a> {
    Scalar(Scalar<'a>),
    /// Text that was made from the value.
    Owned(String),
    /// A symbol of an enum, and its number.
    Symbol(Cow<'a, str>, i32),
    /// A list, a map or a message.
    Json(String),
}

impl Given<'_> {
    /// Adds it to a column; Err says what it is when it is not of the column's type.
    pub(super) fn push(&self, column: &mut ColumnBuffer) -> Result<(), String> {
        let pushed = match self {
            Given::Scalar(scalar) => column.push_scalar(scalar),
            Given::Owned(text) => column.push_scalar(&Scalar::Text(text)),
            Given::Symbol(name, number) => {
                column.push_scalar(&Scalar::Text(name)) || column.push_scalar(&Scalar::Int(i64::from(*number)))
            }
            Given::Json(json) if column.is_text() => column.push_scalar(&Scalar::Text(json)),
            Given::Json(json) => column.push(&JsonValue::Array(json)),
        };
        if pushed { Ok(()) } else { Err(self.shown()) }
    }

    fn shown(&self) -> String {
        match self {
            Given::Scalar(scalar) => scalar.shown(),
            Given::Owned(text) => Scalar::Text(text).shown(),
            Given::Symbol(name, _) => format!("the symbol {name}"),
            Given::Json(_) => "a list, a map or a message".into(),
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Given::Scalar(scalar) => write_scalar(*scalar, out),
            Given::Owned(text) => write_text(text, out),
            Given::Symbol(name, _) => write_text(name, out),
            Given::Json(json) => out.push_str(json),
        }
    }
}

/// A value of a field of this kind.
pub(super) fn given(value: &Value, kind: &Kind) -> Result<Given<'static>, Broken> {
    Ok(match value {
        Value::Bool(flag) => Given::Scalar(Scalar::Bool(*flag)),
        Value::I32(number) => Given::Scalar(Scalar::Int(i64::from(*number))),
        Value::I64(number) => Given::Scalar(Scalar::Int(*number)),
        Value::U32(number) => Given::Scalar(Scalar::Int(i64::from(*number))),
        Value::U64(number) => Given::Scalar(unsigned(*number)),
        Value::F32(number) => Given::Scalar(Scalar::Float(f64::from(*number))),
        Value::F64(number) => Given::Scalar(Scalar::Float(*number)),
        Value::String(text) => Given::Owned(text.clone()),
        Value::Bytes(bytes) => Given::Owned(base64(bytes)),
        Value::EnumNumber(number) => Given::Symbol(Cow::Owned(symbol(kind.as_enum(), *number)), *number),
        Value::Message(message) => match well_known(message)? {
            Some(given) => given,
            None => Given::Json(json(value, kind)?),
        },
        Value::List(_) | Value::Map(_) => Given::Json(json(value, kind)?),
    })
}

/// A number without sign: a decimal where it is too large for one with.
pub(super) fn unsigned(number: u64) -> Scalar<'static> {
    i64::try_from(number).map_or(Scalar::Decimal { unscaled: i128::from(number), scale: 0 }, Scalar::Int)
}

/// The time of a Timestamp, in milliseconds.
pub(super) fn instant(seconds: i64, nanos: i64) -> Scalar<'static> {
    Scalar::Instant(seconds.saturating_mul(1_000).saturating_add(nanos.div_euclid(1_000_000)))
}

/// Whether a field that does not stand in a message has a value all the same: what proto3 does not tell from its default,
/// and what proto2 declares a default for.
pub(super) fn has_default(field: &FieldDescriptor) -> bool {
    !field.supports_presence() || field.field_descriptor_proto().default_value.is_some()
}

/// The name of an enum's number, the first one declared; a number that is not declared is its own.
fn symbol(list: Option<&EnumDescriptor>, number: i32) -> String {
    let named = list.and_then(|list| {
        let values = &list.enum_descriptor_proto().value;
        values.iter().find(|value| value.number() == number).map(|value| value.name().to_owned())
    });
    named.unwrap_or_else(|| number.to_string())
}

/// What a message of a type that everybody knows stands for.
fn well_known(message: &DynamicMessage) -> Result<Option<Given<'static>>, Broken> {
    let descriptor = message.descriptor();
    let int = |number| message.get_field_by_number(number).and_then(|value| whole(&value)).unwrap_or(0);
    let only = || descriptor.get_field(1).map(|field| given(&message.get_field(&field), &field.kind())).transpose();
    Ok(Some(match descriptor.full_name() {
        "google.protobuf.Timestamp" => Given::Scalar(instant(int(1), int(2))),
        "google.protobuf.Duration" => Given::Owned(duration(int(1), int(2))),
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue"
        | "google.protobuf.Struct"
        | "google.protobuf.ListValue" => return only(),
        "google.protobuf.Value" => {
            let set = descriptor.fields().find(|field| message.has_field(field));
            match set.filter(|field| field.name() != "null_value") {
                Some(field) => given(&message.get_field(&field), &field.kind())?,
                None => Given::Scalar(Scalar::Null),
            }
        }
        "google.type.Date" => date(int(1), int(2), int(3)),
        "confluent.type.Decimal" => Given::Scalar(decimal(message, int(3))?),
        _ => return Ok(None),
    }))
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::I32(number) => Some(i64::from(*number)),
        Value::I64(number) => Some(*number),
        Value::U32(number) => Some(i64::from(*number)),
        _ => None,
    }
}

/// A day; where year, month or day are left open, as text.
fn date(year: i64, month: i64, day: i64) -> Given<'static> {
    let parts = (i32::try_from(year), u32::try_from(month), u32::try_from(day));
    let found = match parts {
        (Ok(year), Ok(month), Ok(day)) if year > 0 => NaiveDate::from_ymd_opt(year, month, day),
        _ => None,
    };
    found.map_or_else(
        || Given::Owned(format!("{year:04}-{month:02}-{day:02}")),
        |date| Given::Scalar(Scalar::Date(i64::from(date.to_epoch_days()))),
    )
}

fn decimal(message: &DynamicMessage, scale: i64) -> Result<Scalar<'static>, Broken> {
    let value = message.get_field_by_number(1);
    let bytes = value.as_ref().and_then(|value| value.as_bytes());
    let unscaled =
        integer(bytes.map(|bytes| &bytes[..]).unwrap_or_default()).ok_or("a decimal has more than 128 bits")?;
    let scale = u32::try_from(scale).map_err(|_| format!("a decimal has {scale} places"))?;
    Ok(Scalar::Decimal { unscaled, scale })
}

/// Seconds as Protobuf's JSON has them: `-1.5s`.
fn duration(seconds: i64, nanos: i64) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let fraction = format!(".{:09}", nanos.unsigned_abs());
    format!("{sign}{}{}s", seconds.unsigned_abs(), fraction.trim_end_matches('0').trim_end_matches('.'))
}

/// The JSON of a list, a map or a message. What is absent in a message and has no default is null.
fn json(value: &Value, kind: &Kind) -> Result<String, Broken> {
    let mut out = String::new();
    write(value, kind, &mut out)?;
    Ok(out)
}

fn write(value: &Value, kind: &Kind, out: &mut String) -> Result<(), Broken> {
    if out.len() > JSON_BYTES_MAX {
        return Err(format!("a nested value is larger than {JSON_BYTES_MAX} bytes as JSON"));
    }
    match value {
        Value::List(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                separate(out, at == 0);
                write(value, kind, out)?;
            }
            out.push(']');
        }
        Value::Map(entries) => write_map(entries, kind, out)?,
        Value::Message(message) => match well_known(message)? {
            Some(given) => given.write(out),
            None => write_message(message, out)?,
        },
        one => given(one, kind)?.write(out),
    }
    Ok(())
}

/// In the order of the keys: a map has none of its own.
fn write_map(entries: &HashMap<MapKey, Value>, kind: &Kind, out: &mut String) -> Result<(), Broken> {
    let entry = kind.as_message().filter(|entry| entry.is_map_entry()).ok_or("a map's entries are no message")?;
    let kind = entry.map_entry_value_field().kind();
    let mut sorted: Vec<(&MapKey, &Value)> = entries.iter().collect();
    sorted.sort_by_key(|(one, _)| *one);
    out.push('{');
    for (at, (key, value)) in sorted.into_iter().enumerate() {
        separate(out, at == 0);
        write_text(&key_text(key), out);
        out.push(':');
        write(value, &kind, out)?;
    }
    out.push('}');
    Ok(())
}

fn key_text(key: &MapKey) -> Cow<'_, str> {
    match key {
        MapKey::String(text) => Cow::Borrowed(text),
        MapKey::Bool(flag) => Cow::Owned(flag.to_string()),
        MapKey::I32(number) => Cow::Owned(number.to_string()),
        MapKey::I64(number) => Cow::Owned(number.to_string()),
        MapKey::U32(number) => Cow::Owned(number.to_string()),
        MapKey::U64(number) => Cow::Owned(number.to_string()),
    }
}

fn write_message(message: &DynamicMessage, out: &mut String) -> Result<(), Broken> {
    let descriptor = message.descriptor();
    out.push('{');
    for (at, field) in descriptor.fields().enumerate() {
        separate(out, at == 0);
        write_text(field.name(), out);
        out.push(':');
        if message.has_field(&field) || has_default(&field) {
            write(&message.get_field(&field), &field.kind(), out)?;
        } else {
            out.push_str("null");
        }
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_dates() {
        for (seconds, nanos, wanted) in [
            (0, 0, "0s"),
            (1, 500_000_000, "1.5s"),
            (-1, -1, "-1.000000001s"),
            (0, -20_000_000, "-0.02s"),
            (90, 0, "90s"),
        ] {
            assert_eq!(duration(seconds, nanos), wanted);
        }
        assert_eq!(date(2026, 11, 20), Given::Scalar(Scalar::Date(20_777)));
        assert_eq!(date(2026, 11, 0), Given::Owned("2026-11-00".into()));
        assert_eq!(date(2026, 2, 30), Given::Owned("2026-02-30".into()));
        assert_eq!(date(0, 12, 24), Given::Owned("0000-12-24".into()));
    }

    #[test]
    fn numbers_without_sign() {
        assert_eq!(unsigned(7), Scalar::Int(7));
        assert_eq!(unsigned(u64::MAX), Scalar::Decimal { unscaled: 18_446_744_073_709_551_615, scale: 0 });
        assert_eq!(instant(-1, 999_999_999), Scalar::Instant(-1));
        assert_eq!(instant(i64::MAX, 0), Scalar::Instant(i64::MAX));
    }
}
