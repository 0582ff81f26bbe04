//! Nested values as JSON text, for a VARCHAR column: times as RFC 3339, dates as ISO, decimals and bytes (base 64) as strings.

use chrono::{DateTime, Days, NaiveDate, SecondsFormat};

use super::cursor::{Broken, Cursor};
use super::program::{DEPTH_MAX, Read, scalar};
use super::schema::{AvroSchema, Node, NodeId};
use crate::columns::Scalar;

/// The JSON of a value.
pub(super) fn json(schema: &AvroSchema, node: NodeId, cursor: &mut Cursor<'_>) -> Result<String, Broken> {
    let mut out = String::new();
    write(schema, node, cursor, (&mut out, 0))?;
    Ok(out)
}

fn write(
    schema: &AvroSchema,
    node: NodeId,
    cursor: &mut Cursor<'_>,
    (out, depth): (&mut String, usize),
) -> Result<(), Broken> {
    cursor.count()?;
    if depth > DEPTH_MAX {
        return Err(format!("values are nested deeper than {DEPTH_MAX}"));
    }
    match schema.node(node) {
        Node::Union(branches) => {
            let branch = branches[cursor.index(branches.len())?];
            write(schema, branch, cursor, (out, depth + 1))
        }
        Node::Record(fields) => {
            out.push('{');
            for (at, field) in fields.iter().enumerate() {
                separate(out, at == 0);
                quote(&field.name, out);
                out.push(':');
                write(schema, field.node, cursor, (out, depth + 1))?;
            }
            out.push('}');
            Ok(())
        }
        Node::Array(items) => {
            out.push('[');
            each(cursor, |cursor, first| {
                separate(out, first);
                write(schema, *items, cursor, (out, depth + 1))
            })?;
            out.push(']');
            Ok(())
        }
        Node::Map(values) => {
            out.push('{');
            each(cursor, |cursor, first| {
                separate(out, first);
                quote(cursor.text()?, out);
                out.push(':');
                write(schema, *values, cursor, (out, depth + 1))
            })?;
            out.push('}');
            Ok(())
        }
        simple => {
            simple_json(scalar(simple, cursor)?, out);
            Ok(())
        }
    }
}

fn each(
    cursor: &mut Cursor<'_>,
    mut item: impl FnMut(&mut Cursor<'_>, bool) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let mut first = true;
    loop {
        let (count, _) = cursor.block()?;
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            item(cursor, first)?;
            first = false;
        }
    }
}

fn separate(out: &mut String, first: bool) {
    if !first {
        out.push(',');
    }
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn simple_json(read: Read<'_>, out: &mut String) {
    match read {
        Read::Owned(text) => quote(&text, out),
        Read::Scalar(Scalar::Null) => out.push_str("null"),
        Read::Scalar(Scalar::Bool(flag)) => out.push_str(if flag { "true" } else { "false" }),
        Read::Scalar(Scalar::Int(number)) => out.push_str(&number.to_string()),
        Read::Scalar(Scalar::Float(number)) => out.push_str(&serde_json::Value::from(number).to_string()),
        Read::Scalar(Scalar::Text(text)) => quote(text, out),
        Read::Scalar(Scalar::Date(days)) => quote(&date(days), out),
        Read::Scalar(Scalar::Instant(ms)) => quote(&instant(ms), out),
        Read::Scalar(Scalar::Decimal { unscaled, scale }) => quote(&decimal(unscaled, scale), out),
    }
}

/// `YYYY-MM-DD`; the number itself when there is no such day.
fn date(days: i64) -> String {
    let epoch = NaiveDate::default();
    let moved = match u64::try_from(days) {
        Ok(days) => epoch.checked_add_days(Days::new(days)),
        Err(_) => epoch.checked_sub_days(Days::new(days.unsigned_abs())),
    };
    moved.map_or_else(|| days.to_string(), |date| date.to_string())
}

fn instant(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| ms.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// A decimal as people write it.
fn decimal(unscaled: i128, scale: u32) -> String {
    let scale = usize::try_from(scale).unwrap_or(usize::MAX).min(1_000);
    let digits = unscaled.unsigned_abs().to_string();
    let digits = format!("{}{digits}", "0".repeat((scale + 1).saturating_sub(digits.len())));
    let (whole, places) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if places.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{places}") }
}

/// RFC 4648, with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
pub(super) fn uuid(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}
