//! Text of a JSON value → the value of a declared column type, exactly or not at all.

use chrono::NaiveDate;

/// The first millisecond of year 1: earlier event times are mistakes, and Arrow cannot print them.
const TIMESTAMP_MS_MIN: i64 = -62_135_596_800_000;
/// The last millisecond of year 9999.
const TIMESTAMP_MS_MAX: i64 = 253_402_300_799_999;
const DAY_MS: i64 = 86_400_000;

/// Epoch milliseconds within years 1 to 9999.
pub(crate) fn timestamp_in_range(ms: i64) -> Option<i64> {
    (TIMESTAMP_MS_MIN..=TIMESTAMP_MS_MAX).contains(&ms).then_some(ms)
}

/// RFC 3339 and the ISO 8601 forms around it: `YYYY-MM-DD`, then `T` or a space, `HH:MM`, `:SS`, a fraction (cut to
/// milliseconds), `Z` or an offset `±HH:MM`, `±HHMM`, `±HH`. Without an offset the time is UTC.
pub(crate) fn parse_timestamp_ms(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let days = i64::from(parse_date_days(text.get(..10)?)?);
    if bytes.len() == 10 {
        return timestamp_in_range(days * DAY_MS);
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let hour = two_digits(bytes, 11)?;
    let minute = two_digits(bytes, 14)?;
    if bytes[13] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    let mut ms = days * DAY_MS + hour * 3_600_000 + minute * 60_000;
    let mut at = 16;
    if bytes.get(at) == Some(&b':') {
        let second = two_digits(bytes, 17)?;
        if second > 59 {
            return None;
        }
        ms += second * 1_000;
        at = 19;
        if matches!(bytes.get(at), Some(b'.' | b',')) {
            let (fraction_ms, end) = fraction(bytes, at + 1)?;
            ms += fraction_ms;
            at = end;
        }
    }
    timestamp_in_range(ms - zone_offset_ms(&bytes[at..])?)
}

fn fraction(bytes: &[u8], from: usize) -> Option<(i64, usize)> {
    let mut ms = 0;
    let mut at = from;
    while let Some(digit) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
        let place = [100, 10, 1].get(at - from).copied().unwrap_or(0);
        ms += i64::from(digit - b'0') * place;
        at += 1;
    }
    (at > from).then_some((ms, at))
}

fn zone_offset_ms(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let hour = two_digits(zone, 1)?;
    let minute = match zone.len() {
        3 => 0,
        5 => two_digits(zone, 3)?,
        6 if zone[3] == b':' => two_digits(zone, 4)?,
        _ => return None,
    };
    (hour <= 23 && minute <= 59).then_some(sign * (hour * 3_600_000 + minute * 60_000))
}

fn two_digits(bytes: &[u8], at: usize) -> Option<i64> {
    match bytes.get(at..at + 2)? {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(i64::from((tens - b'0') * 10 + (ones - b'0'))),
        _ => None,
    }
}

/// `YYYY-MM-DD` → days since 1970-01-01.
pub(crate) fn parse_date_days(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = two_digits(bytes, 0)? * 100 + two_digits(bytes, 2)?;
    let month = two_digits(bytes, 5)?;
    let day = two_digits(bytes, 8)?;
    if year == 0 {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(year as i32, month as u32, day as u32)?;
    Some(date.to_epoch_days())
}

/// A JSON number or the text of a string → an unscaled decimal; None when it does not fit `precision` and `scale` exactly.
pub(crate) fn parse_decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && decimals.is_empty() {
        return None;
    }
    let mut unscaled: i128 = 0;
    for byte in whole.bytes().chain(decimals.bytes()) {
        if !byte.is_ascii_digit() {
            return None;
        }
        unscaled = unscaled.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
    }
    if unscaled != 0 {
        let shift = i32::from(scale).checked_add(exponent)?.checked_sub(i32::try_from(decimals.len()).ok()?)?;
        let factor = 10_i128.checked_pow(shift.unsigned_abs())?;
        unscaled = match shift {
            0.. => unscaled.checked_mul(factor)?,
            _ if unscaled % factor == 0 => unscaled / factor,
            _ => return None,
        };
    }
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    (unscaled < limit).then_some(if negative { -unscaled } else { unscaled })
}

/// An unscaled decimal and its scale → the unscaled value at another scale, if it fits exactly.
pub(crate) fn rescale((unscaled, from): (i128, u32), (precision, scale): (u8, u8)) -> Option<i128> {
    let wanted = u32::from(scale);
    let factor = 10_i128.checked_pow(wanted.abs_diff(from));
    let moved = match factor {
        _ if unscaled == 0 => 0,
        Some(factor) if wanted >= from => unscaled.checked_mul(factor)?,
        Some(factor) if unscaled % factor == 0 => unscaled / factor,
        _ => return None,
    };
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    (moved > -limit && moved < limit).then_some(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01", Some(0)),
            ("2026-11-20T10:00:00Z", Some(1_795_168_800_000)),
            ("2026-11-20 10:00:00.5", Some(1_795_168_800_500)),
            ("2026-11-20T12:00:00.123456789+02:00", Some(1_795_168_800_123)),
            ("2026-11-20T05:30:00-0430", Some(1_795_168_800_000)),
            ("2026-11-20T12:00+02", Some(1_795_168_800_000)),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("9999-12-31T23:59:59.999Z", Some(TIMESTAMP_MS_MAX)),
            ("9999-12-31T23:59:59.999-01:00", None),
            ("0001-01-01T00:00:00Z", Some(TIMESTAMP_MS_MIN)),
            ("2026-02-29", None),
            ("2024-02-29", Some(1_709_164_800_000)),
            ("2026-11-20T24:00:00Z", None),
            ("2026-11-20T10:60:00Z", None),
            ("2026-11-20T10:00:60Z", None),
            ("2026-11-20T10:00:00.Z", None),
            ("2026-11-20T10:00:00Q", None),
            ("2026-11-20T10", None),
            ("2026-11-20T10-00", None),
            ("20261120T100000Z", None),
            ("", None),
            ("ééééé", None),
            ("2026-11-2é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_timestamp_ms(text), expected, "{text}");
        }
        assert_eq!(timestamp_in_range(TIMESTAMP_MS_MAX + 1), None);
    }

    #[test]
    fn decimals() {
        let cases = [
            ("1", 10, 2, Some(100)),
            ("-1.25", 10, 2, Some(-125)),
            ("1.250", 10, 2, Some(125)),
            ("1.255", 10, 2, None),
            ("12.5e1", 10, 2, Some(12_500)),
            ("1e-2", 10, 2, Some(1)),
            ("1e-3", 10, 2, None),
            ("0e99999", 10, 2, Some(0)),
            ("99999999.99", 10, 2, Some(9_999_999_999)),
            ("100000000", 10, 2, None),
            (
                "0.1000000000000000000000000000000000001",
                38,
                37,
                Some(1_000_000_000_000_000_000_000_000_000_000_000_001),
            ),
            ("1e400", 38, 0, None),
            ("", 10, 2, None),
            ("-", 10, 2, None),
            ("1.2.3", 10, 2, None),
            ("abc", 10, 2, None),
        ];
        for (text, precision, scale, expected) in cases {
            assert_eq!(parse_decimal(text, precision, scale), expected, "{text}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(parse_date_days("1970-01-02"), Some(1));
        assert_eq!(parse_date_days("1969-12-31"), Some(-1));
        assert_eq!(parse_date_days("2026-13-01"), None);
        assert_eq!(parse_date_days("2026-1-01"), None);
    }
}
