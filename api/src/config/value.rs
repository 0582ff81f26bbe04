//! Values of keys: checked against their kind, and read from the text of a variable or a flag.

use std::collections::BTreeMap;

use super::mistake::Origin;
use super::schema::Kind;

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text, one of a list of words, or an address.
    Text(String),
    /// true or false.
    Bool(bool),
    /// A whole number; milliseconds for a duration, bytes for a size.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of numbers.
    Numbers(Vec<f64>),
    /// A list of lists of texts.
    Grid(Vec<Vec<String>>),
    /// Names and values.
    Map(BTreeMap<String, String>),
    /// A list of tables.
    Tables(Vec<Entry>),
}

/// One table, read and checked: every required key is there, every key with a default has a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where the table begins.
    pub origin: Origin,
    /// Its path, such as `topics[2]`.
    pub path: String,
    /// Its keys.
    pub values: BTreeMap<&'static str, (Value, Origin)>,
}

impl Entry {
    /// An empty table.
    pub fn new(origin: Origin, path: String) -> Entry {
        Entry { origin, path, values: BTreeMap::new() }
    }

    /// Where the key stands, or the table when the key is not there.
    pub fn place(&self, key: &str) -> Origin {
        self.values.get(key).map_or_else(|| self.origin.clone(), |(_, origin)| origin.clone())
    }

    /// The key's path below the table's.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|(value, _)| value)
    }

    /// The text of a key, none when it is unset.
    pub fn text_or_none(&self, key: &str) -> Option<String> {
        match self.value(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// The text of a key that is required or has a default.
    pub fn text(&self, key: &str) -> String {
        self.text_or_none(key).expect("a required text was checked to be there")
    }

    /// The whole number of a key, none when it is unset.
    pub fn integer_or_none(&self, key: &str) -> Option<i64> {
        match self.value(key) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// The whole number of a key that is required or has a default.
    pub fn integer(&self, key: &str) -> i64 {
        self.integer_or_none(key).expect("a required number was checked to be there")
    }

    /// A whole number whose range does not reach below 0.
    pub fn unsigned(&self, key: &str) -> u64 {
        u64::try_from(self.integer(key)).expect("the kind's range begins at 0 or above")
    }

    /// A whole number whose range does not reach below 0, as a count or size of something in memory.
    pub fn count(&self, key: &str) -> usize {
        usize::try_from(self.integer(key)).expect("the kind's range begins at 0 or above")
    }

    /// The number of a key, none when it is unset.
    pub fn number_or_none(&self, key: &str) -> Option<f64> {
        match self.value(key) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// true or false of a key that is required or has a default.
    pub fn bool(&self, key: &str) -> bool {
        matches!(self.value(key), Some(Value::Bool(true)))
    }

    /// A list of texts, empty when it is unset.
    pub fn texts(&self, key: &str) -> Vec<String> {
        match self.value(key) {
            Some(Value::Texts(texts)) => texts.clone(),
            _ => Vec::new(),
        }
    }

    /// A list of numbers, empty when it is unset.
    pub fn numbers(&self, key: &str) -> Vec<f64> {
        match self.value(key) {
            Some(Value::Numbers(numbers)) => numbers.clone(),
            _ => Vec::new(),
        }
    }

    /// A list of lists, empty when it is unset.
    pub fn grid(&self, key: &str) -> Vec<Vec<String>> {
        match self.value(key) {
            Some(Value::Grid(rows)) => rows.clone(),
            _ => Vec::new(),
        }
    }

    /// Names and values, empty when unset.
    pub fn map(&self, key: &str) -> BTreeMap<String, String> {
        match self.value(key) {
            Some(Value::Map(map)) => map.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// A table of keys of its own, none when it is unset.
    pub fn table(&self, key: &str) -> Option<&Entry> {
        self.tables(key).first()
    }

    /// A list of tables, empty when it is unset.
    pub fn tables(&self, key: &str) -> &[Entry] {
        match self.value(key) {
            Some(Value::Tables(entries)) => entries,
            _ => &[],
        }
    }
}

/// Reads the text of a variable, a flag or a default as a scalar of `kind`; the error says what is wrong.
pub fn parse_text(kind: &Kind, text: &str) -> Result<Value, String> {
    let wrong = || format!("{text:?} is not {}", kind.words());
    match kind {
        Kind::Text if text.is_empty() => Err("must not be empty".into()),
        Kind::Text => Ok(Value::Text(text.into())),
        Kind::Bool => text.parse().map(Value::Bool).map_err(|_| wrong()),
        Kind::Integer(min, max) => {
            text.parse().ok().filter(|number| min <= number && number <= max).map(Value::Integer).ok_or_else(wrong)
        }
        Kind::Number(min, max) => {
            text.parse().ok().filter(|number| min <= number && number <= max).map(Value::Number).ok_or_else(wrong)
        }
        Kind::Duration(min, max) => {
            parse_duration(text).filter(|ms| min <= ms && ms <= max).map(Value::Integer).ok_or_else(wrong)
        }
        Kind::Size(min, max) => {
            parse_size(text).filter(|bytes| min <= bytes && bytes <= max).map(Value::Integer).ok_or_else(wrong)
        }
        Kind::OneOf(words) if words.contains(&text) => Ok(Value::Text(text.into())),
        Kind::OneOf(words) => {
            Err(format!("{text:?} is not known here{}", super::mistake::suggestion(text, words.iter().copied())))
        }
        Kind::Address => check_address(text).map(|()| Value::Text(text.into())),
        Kind::Texts => Ok(Value::Texts(
            text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
        )),
        Kind::Kafka(row) => row.check(text).map(|()| Value::Text(text.trim().into())).map_err(|error| error.message),
        Kind::Numbers | Kind::Grid | Kind::Map | Kind::Any | Kind::Table(_) | Kind::Tables(_) => Err(wrong()),
    }
}

/// A setting's text as TOML: numbers, true and false as they are.
pub fn literal_of(text: &str) -> String {
    let plain = text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok();
    if plain { text.to_owned() } else { format!("{text:?}") }
}

/// `HOST:PORT`, with an IPv6 host in brackets.
fn check_address(text: &str) -> Result<(), String> {
    let wrong = |why: &str| format!("{text:?} is not HOST:PORT ({why}); write for example 127.0.0.1:9092");
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("no port"))?;
    if host.is_empty() {
        return Err(wrong("no host; 0.0.0.0 listens on every address"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(wrong("put an IPv6 host in brackets"));
    }
    if host.contains(char::is_whitespace) || host.contains('/') {
        return Err(wrong("the host is not a name or an address"));
    }
    port.parse::<u16>().map_err(|_| wrong("the port is not a number from 0 to 65535"))?;
    Ok(())
}

const DURATIONS: [(&str, i64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
const SIZES: [(&str, i64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// `10s`, `1h 30m`, `250ms`, `7d` in milliseconds; `0` needs no unit.
pub fn parse_duration(text: &str) -> Option<i64> {
    if text.trim() == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit_and_rest = &rest[digits..];
        let unit_len = unit_and_rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit_and_rest.len());
        let unit = DURATIONS.iter().find(|(unit, _)| *unit == &unit_and_rest[..unit_len])?;
        total = total.checked_add(number.checked_mul(unit.1)?)?;
        rest = unit_and_rest[unit_len..].trim_start();
    }
    Some(total)
}

/// `64MiB`, `1GiB`, `500kB`, `1024` in bytes.
pub fn parse_size(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: i64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim();
    if unit.is_empty() {
        return Some(number);
    }
    let scale = SIZES.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(scale)
}

/// The duration in the largest unit that divides it.
pub fn duration_text(ms: i64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let (unit, scale) = DURATIONS[..5].iter().rev().find(|(_, scale)| ms % scale == 0).unwrap_or(&DURATIONS[0]);
    format!("{}{unit}", ms / scale)
}

/// The size in the largest binary unit that divides it.
pub fn size_text(bytes: i64) -> String {
    if bytes == 0 {
        return "0B".into();
    }
    let (unit, scale) = SIZES[..5].iter().rev().find(|(_, scale)| bytes % scale == 0).unwrap_or(&SIZES[0]);
    format!("{}{unit}", bytes / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_and_write() {
        for (text, ms) in [
            ("0", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Some(ms), "{text}");
        }
        for text in ["", "10", "s", "-5s", "10 s", "1.5h", "99999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for (text, bytes) in [("0", 0), ("1024", 1024), ("64MiB", 64 << 20), ("1 GiB", 1 << 30), ("500kB", 500_000)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "64MB!", "99999999999GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        for ms in [0, 1, 999, 1_000, 61_000, 3_600_000, 86_400_000 * 3] {
            assert_eq!(parse_duration(&duration_text(ms)), Some(ms));
        }
        for bytes in [0, 1, 1000, 1024, 3 << 20, 1 << 40] {
            assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        }
    }

    #[test]
    fn addresses_are_checked() {
        for text in ["127.0.0.1:0", "localhost:9092", "[::1]:80", "broker-1.example.org:19092"] {
            assert_eq!(check_address(text), Ok(()), "{text}");
        }
        for text in
            ["", "localhost", ":9092", "localhost:", "localhost:65536", "::1:80", "http://localhost:80", "a b:1"]
        {
            assert!(check_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_hold() {
        assert_eq!(parse_text(&Kind::Integer(1, 3), "3"), Ok(Value::Integer(3)));
        assert!(parse_text(&Kind::Integer(1, 3), "4").is_err());
        assert!(parse_text(&Kind::Duration(0, 1_000), "2s").is_err());
        assert!(parse_text(&Kind::Number(0.0, 1.0), "NaN").is_err());
        let message = parse_text(&Kind::OneOf(&["fsync", "os"]), "fsnyc").unwrap_err();
        assert!(message.ends_with("did you mean fsync?"), "{message}");
    }
}
