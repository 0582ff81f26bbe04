//! Values inside others as JSON text, for a VARCHAR column: times as RFC 3339, dates as ISO, decimals and bytes (base 64) as strings.

use chrono::{DateTime, Days, NaiveDate, SecondsFormat};

use crate::columns::Scalar;

/// Writes a simple value.
pub(crate) fn write_scalar(scalar: Scalar<'_>, out: &mut String) {
    match scalar {
        Scalar::Null => out.push_str("null"),
        Scalar::Bool(flag) => out.push_str(if flag { "true" } else { "false" }),
        Scalar::Int(number) => out.push_str(&number.to_string()),
        Scalar::Float(number) => out.push_str(&serde_json::Value::from(number).to_string()),
        Scalar::Text(text) => write_text(text, out),
        Scalar::Date(days) => write_text(&date(days), out),
        Scalar::Instant(ms) => write_text(&instant(ms), out),
        Scalar::Decimal { unscaled, scale } => write_text(&decimal(unscaled, scale), out),
    }
}

/// Writes a string in quotes.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// Writes the comma before each but the first of several.
pub(crate) fn separate(out: &mut String, first: bool) {
    if !first {
        out.push(',');
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

/// A big-endian two's complement of any length; None when it has more than 128 bits.
pub(crate) fn integer(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let (head, tail) = bytes.split_at(bytes.len().saturating_sub(16));
    let fits = head.iter().all(|byte| *byte == fill) && (head.is_empty() || (tail[0] & 0x80 != 0) == negative);
    let start: i128 = if negative { -1 } else { 0 };
    fits.then(|| tail.iter().fold(start, |number, byte| number << 8 | i128::from(*byte)))
}

/// The shortest big-endian two's complement of a number.
pub(crate) fn integer_bytes(number: i128) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let fill = if number < 0 { 0xff } else { 0 };
    let spare = (0..15).take_while(|at| bytes[*at] == fill && (bytes[at + 1] ^ fill) & 0x80 == 0).count();
    bytes[spare..].to_vec()
}
