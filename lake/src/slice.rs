//! What a directory's name says: one `column=value` per level.
//!
//! Hive's rules hold for names: special characters as `%XX`, null as `__HIVE_DEFAULT_PARTITION__`. Hive has no name for the
//! empty string and means null by it, so rows with an empty value lie beside those with null, in a file of their own, and
//! the manifest knows the difference. A value whose name would be too long for a directory is cut and made distinct; the
//! manifest has it whole.

use std::fmt::Write;

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;

/// What Hive, Spark, DuckDB and pyarrow read as null.
pub const NULL_NAME: &str = "__HIVE_DEFAULT_PARTITION__";
/// Longest `column=value` that is written whole; file systems allow 255 bytes.
const LEVEL_BYTES_MAX: usize = 240;

/// The value of one level.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// No value.
    Null,
    /// Text, unescaped and whole.
    Text(String),
    /// A whole number.
    Int(i64),
    /// True or false.
    Bool(bool),
    /// Days since 1970-01-01.
    Date(i32),
}

/// One level of a slice: `column=value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Level {
    /// Name of the column.
    pub column: String,
    /// Whether it is a part of the event time and not a declared column.
    pub derived: bool,
    /// The value of all rows in the slice.
    pub value: Value,
}

impl Value {
    /// The value in a column of type `column`, for reading; null where it does not fit.
    pub fn scalar(&self, column: &DataType) -> ScalarValue {
        let plain = match self {
            Self::Null => ScalarValue::Null,
            Self::Text(text) => ScalarValue::Utf8(Some(text.clone())),
            Self::Int(whole) => ScalarValue::Int64(Some(*whole)),
            Self::Bool(flag) => ScalarValue::Boolean(Some(*flag)),
            Self::Date(days) => ScalarValue::Date32(Some(*days)),
        };
        let typed = plain.cast_to(column);
        typed.or_else(|_| ScalarValue::try_from(column)).unwrap_or(ScalarValue::Null)
    }

    /// The value as a directory names it, before escaping; none for what Hive has no name for.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Self::Int(whole) => Some(whole.to_string()),
            Self::Bool(flag) => Some(flag.to_string()),
            Self::Date(days) => {
                let (year, month, day) = civil(*days);
                Some(format!("{year:04}-{month:02}-{day:02}"))
            }
        }
    }
}

/// The directory of a slice below its topic's, such as `date=2026-11-20/genre=jazz`; empty without levels.
pub fn directory(levels: &[Level]) -> String {
    let name = |level: &Level| {
        let column = escape(&level.column);
        match level.value.text() {
            None => format!("{column}={NULL_NAME}"),
            // the one text that would read as null
            Some(text) if text == NULL_NAME => format!("{column}=%5F{}", &NULL_NAME[1..]),
            Some(text) => bounded(format!("{column}={}", escape(&text)), &text),
        }
    };
    levels.iter().map(name).collect::<Vec<_>>().join("/")
}

/// Tells apart files of slices that share a directory: bit n is set when level n is an empty text.
pub fn empty_levels(levels: &[Level]) -> u64 {
    let empty = |level: &Level| matches!(&level.value, Value::Text(text) if text.is_empty());
    levels.iter().enumerate().filter(|(_, level)| empty(level)).map(|(at, _)| 1 << at.min(63)).sum()
}

/// Escapes as Hive's FileUtils.escapePathName does, and also what no file name may hold.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0'..='\x1f'
            | '\x7f'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^' => {
                write!(escaped, "%{:02X}", u32::from(c)).expect("a string takes all that is written");
            }
            other => escaped.push(other),
        }
    }
    escaped
}

fn bounded(name: String, text: &str) -> String {
    if name.len() <= LEVEL_BYTES_MAX {
        return name;
    }
    let mut end = LEVEL_BYTES_MAX - 20;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    // not through the middle of an escape
    let cut = name[..end].rfind('%').filter(|at| end - at < 3).unwrap_or(end);
    format!("{}~{:016x}", &name[..cut], fnv1a(text.as_bytes()))
}

/// Where a hash begins.
pub const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits: the same on every machine and for ever.
fn fnv1a(bytes: &[u8]) -> u64 {
    fnv1a_on(FNV_START, bytes)
}

/// A hash, gone on over more bytes.
pub fn fnv1a_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar.
pub fn civil(days: i32) -> (i32, i32, i32) {
    // eras of 400 years that begin on a 1 March, so that the leap day is the last of its year
    let shifted = i64::from(days) + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let small = |n: i64| i32::try_from(n).expect("2^31 days are 5.9 million years");
    (small(year), small(month), small(day))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(column: &str, value: Value) -> Level {
        Level { column: column.into(), derived: false, value }
    }

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    #[test]
    fn directories_are_named_as_hive_names_them() {
        let dir = |value| directory(&[level("genre", value)]);
        assert_eq!(dir(text("jazz")), "genre=jazz");
        assert_eq!(dir(text("R&B / Soul")), "genre=R&B %2F Soul");
        assert_eq!(dir(text("50%")), "genre=50%25");
        assert_eq!(dir(text("a=b:c#d?e*f\"g'h\\i{j[k]l^m")), "genre=a%3Db%3Ac%23d%3Fe%2Af%22g%27h%5Ci%7Bj%5Bk%5Dl%5Em");
        assert_eq!(dir(text("tab\tnul\0del\x7f")), "genre=tab%09nul%00del%7F");
        assert_eq!(dir(text("日本 ~é")), "genre=日本 ~é");
        assert_eq!(dir(text("..")), "genre=..");
        assert_eq!(dir(Value::Null), "genre=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(dir(text("")), "genre=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(dir(text(NULL_NAME)), "genre=%5F_HIVE_DEFAULT_PARTITION__");
        assert_eq!(dir(Value::Int(-7)), "genre=-7");
        assert_eq!(dir(Value::Bool(true)), "genre=true");
        assert_eq!(dir(Value::Date(0)), "genre=1970-01-01");
        assert_eq!(dir(Value::Date(-719_528)), "genre=0000-01-01");
        assert_eq!(directory(&[level("a/b", text("x")), level("c", Value::Int(1))]), "a%2Fb=x/c=1");
        assert_eq!(directory(&[]), "");
    }

    #[test]
    fn long_values_are_cut_and_stay_distinct() {
        let (one, two) = ("ö/".repeat(200) + "1", "ö/".repeat(200) + "2");
        let (one, two) = (directory(&[level("c", text(&one))]), directory(&[level("c", text(&two))]));
        assert!(one.len() <= LEVEL_BYTES_MAX && two.len() <= LEVEL_BYTES_MAX);
        assert_ne!(one, two);
        let cut = one.rsplit_once('~').unwrap().0;
        assert!(cut.ends_with('ö') || cut.ends_with("%2F"), "{cut}");
    }

    #[test]
    fn an_empty_text_is_told_from_null() {
        assert_eq!(empty_levels(&[level("a", Value::Null), level("b", text(""))]), 2);
        assert_eq!(empty_levels(&[level("a", Value::Null), level("b", Value::Null)]), 0);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for days in (-800_000..3_000_000).step_by(97) {
            let date = chrono::DateTime::from_timestamp(i64::from(days) * 86_400, 0).unwrap().date_naive();
            let (year, month, day) = civil(days);
            assert_eq!(chrono::NaiveDate::from_ymd_opt(year, month as u32, day as u32), Some(date), "{days}");
        }
        civil(i32::MIN);
        civil(i32::MAX);
    }
}
