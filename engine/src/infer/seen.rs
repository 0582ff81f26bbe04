//! What the values of each field were in the records of a sample, and the type that takes all of them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::columns::{ColumnType, parse_int};
use crate::fields::{Refusal, json_refusal, refusal, short, text_of};
use crate::json::{JsonScanner, JsonValue};
use crate::scalar::{parse_date_days, parse_decimal, parse_timestamp_ms, timestamp_in_range};

/// Most parts of a column's path: objects that are deeper are looked at no further.
const DEPTH_MAX: usize = 5;
/// Most fields that are told apart, those of objects among them.
const FIELDS_MAX: usize = 4_096;
/// Digits of the widest DECIMAL.
const DIGITS_MAX: u8 = 38;
/// 1973-03-03 in milliseconds. Seconds are below it until the year 5138.
const MILLISECONDS_MIN: i64 = 100_000_000_000;

type Object<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// A value of a record.
enum Value<'a> {
    Plain(JsonValue<'a>),
    Object(Object<'a>),
}

/// All fields of the records that were read.
#[derive(Default)]
pub(crate) struct Records {
    fields: Fields,
    count: usize,
    room: Room,
}

/// How many fields may still be told apart.
struct Room {
    left: usize,
    was_short: bool,
}

impl Default for Room {
    fn default() -> Room {
        Room { left: FIELDS_MAX, was_short: false }
    }
}

impl Records {
    /// Adds a record. One that is refused leaves no trace.
    pub(super) fn add(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let object = object(text_of(value)?, 1)?;
        self.fields.add(object, &mut self.room);
        self.count += 1;
        Ok(())
    }

    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// How many records were added.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether there were fields beyond those that are told apart.
    pub(super) fn has_more_fields(&self) -> bool {
        self.room.was_short
    }
}

/// The fields of an object; each name stands once.
fn object(text: &str, depth: usize) -> Result<Object<'_>, Refusal> {
    let mut scanner = JsonScanner::new(text);
    scanner.enter_object().map_err(json_refusal)?;
    let (mut fields, mut names) = (Object::new(), HashSet::new());
    while let Some((name, value)) = scanner.next_field(fields.is_empty()).map_err(json_refusal)? {
        if !names.insert(name.clone()) {
            return Err(refusal("duplicate_field", format!("field '{}' stands twice", short(&name))));
        }
        let value = match value {
            JsonValue::Object(text) if depth < DEPTH_MAX => Value::Object(object(text, depth + 1)?),
            value => Value::Plain(value),
        };
        fields.push((name, value));
    }
    Ok(fields)
}

/// The fields of objects, in the order in which they came first.
#[derive(Default)]
pub(super) struct Fields {
    list: Vec<(String, Seen)>,
    places: HashMap<String, usize>,
}

impl Fields {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Seen)> {
        self.list.iter().map(|(name, seen)| (name.as_str(), seen))
    }

    fn add(&mut self, object: Object<'_>, room: &mut Room) {
        for (name, value) in object {
            let at = match self.places.get(&*name).copied() {
                Some(at) => at,
                None if room.left == 0 => {
                    room.was_short = true;
                    continue;
                }
                None => {
                    room.left -= 1;
                    self.places.insert(name.to_string(), self.list.len());
                    self.list.push((name.into_owned(), Seen::default()));
                    self.list.len() - 1
                }
            };
            self.list[at].1.add(value, room);
        }
    }
}

/// How many values of a field were of which kind.
#[derive(Default)]
pub(super) struct Seen {
    /// All but nulls.
    values: usize,
    booleans: usize,
    /// Whole numbers of 64 bits.
    whole: usize,
    /// Other whole numbers that a DECIMAL takes.
    long: usize,
    /// Other numbers that a DOUBLE takes.
    fractions: usize,
    /// Numbers beyond all types.
    beyond: usize,
    texts: usize,
    /// Texts that are a day, as a DATE takes it.
    days: usize,
    /// Texts that are a time or a day, as a TIMESTAMP takes it.
    times: usize,
    /// Whole numbers that a TIMESTAMP takes as milliseconds since 1970.
    instants: usize,
    largest: Option<i64>,
    /// Lists of texts, at least one text in each.
    text_lists: usize,
    /// Lists without a value.
    empty_lists: usize,
    other_lists: usize,
    objects: usize,
    /// Objects that are too deep to be looked at.
    deep: usize,
    inner: Fields,
}

impl Seen {
    /// How many values there were, without nulls.
    pub(super) fn values(&self) -> usize {
        self.values
    }

    /// The fields of the objects that all values are.
    pub(super) fn as_object(&self) -> Option<&Fields> {
        (self.objects > 0 && self.objects == self.values && !self.inner.list.is_empty()).then_some(&self.inner)
    }

    /// The type that takes all values; Err says why there is none.
    pub(super) fn column_type(&self) -> Result<ColumnType, String> {
        let all = |count: usize| count == self.values;
        match self.values {
            0 => Err("it is null wherever it stands in the sample".into()),
            _ if all(self.booleans) => Ok(ColumnType::Boolean),
            _ if all(self.whole) => Ok(ColumnType::Bigint),
            _ if all(self.whole + self.long) => Ok(ColumnType::Decimal { precision: DIGITS_MAX, scale: 0 }),
            _ if all(self.whole + self.long + self.fractions) => Ok(ColumnType::Double),
            _ if all(self.days) => Ok(ColumnType::Date),
            _ if all(self.times) => Ok(ColumnType::Timestamp),
            _ if all(self.texts) => Ok(ColumnType::Varchar),
            _ if all(self.empty_lists) => Err("its lists are empty, so nothing tells what is in them".into()),
            _ if all(self.text_lists + self.empty_lists) => Ok(ColumnType::Texts),
            _ => Err(self.without_type()),
        }
    }

    /// TIMESTAMP, when that takes all values as the times that they are.
    pub(super) fn event_time(&self) -> Result<ColumnType, String> {
        let others = self.values - self.times - self.instants;
        if self.values == 0 || others > 0 {
            return Err(format!(
                "{others} of its {} values are neither an ISO 8601 time nor a whole number of milliseconds since 1970",
                self.values
            ));
        }
        if self.times == 0 && self.largest.is_some_and(|largest| (1..MILLISECONDS_MIN).contains(&largest)) {
            return Err(
                "its numbers look like seconds since 1970, and TIMESTAMP takes milliseconds: have them written \
                        so, or write the columns out if they are milliseconds"
                    .into(),
            );
        }
        Ok(ColumnType::Timestamp)
    }

    /// Why no type takes all values.
    fn without_type(&self) -> String {
        let numbers = self.whole + self.long + self.fractions + self.beyond;
        let lists = self.text_lists + self.empty_lists + self.other_lists;
        let kinds = [
            (self.booleans, "booleans"),
            (numbers, "numbers"),
            (self.texts, "texts"),
            (lists, "lists"),
            (self.objects + self.deep, "objects"),
        ];
        let there: Vec<String> =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
        match there.len() {
            1 if numbers > 0 => "it has numbers beyond those of 64 bits".into(),
            1 if lists > 0 => "its lists are not of texts alone, and VARCHAR[] is the only type of lists".into(),
            1 if self.deep > 0 => format!("objects are looked into {DEPTH_MAX} levels deep, and it is deeper"),
            1 => "it is an object without fields".into(),
            _ => format!("its values are of several types: {}", there.join(", ")),
        }
    }

    fn add(&mut self, value: Value<'_>, room: &mut Room) {
        let value = match value {
            Value::Plain(JsonValue::Null) => return,
            Value::Plain(value) => value,
            Value::Object(object) => {
                self.values += 1;
                self.objects += 1;
                return self.inner.add(object, room);
            }
        };
        self.values += 1;
        match value {
            JsonValue::Null => {}
            JsonValue::Bool(_) => self.booleans += 1,
            JsonValue::Number(text) => self.add_number(text),
            JsonValue::String(text) => {
                self.texts += 1;
                self.days += usize::from(parse_date_days(&text).is_some());
                self.times += usize::from(parse_timestamp_ms(&text).is_some());
            }
            JsonValue::Array(array) => self.add_list(array),
            JsonValue::Object(_) => self.deep += 1,
        }
    }

    fn add_number(&mut self, text: &str) {
        let is_whole = !text.contains(['.', 'e', 'E']);
        if let Some(number) = parse_int(text) {
            self.whole += 1;
            self.instants += usize::from(timestamp_in_range(number).is_some());
            self.largest = self.largest.max(Some(number));
        } else if is_whole && parse_decimal(text, DIGITS_MAX, 0).is_some() {
            self.long += 1;
        } else if text.parse::<f64>().is_ok_and(f64::is_finite) {
            self.fractions += 1;
        } else {
            self.beyond += 1;
        }
    }

    fn add_list(&mut self, array: &str) {
        let mut has_text = false;
        let of_texts = JsonScanner::all_items(array, |item| {
            has_text |= matches!(item, JsonValue::String(_));
            matches!(item, JsonValue::String(_) | JsonValue::Null)
        });
        match (of_texts, has_text) {
            (Ok(true), true) => self.text_lists += 1,
            (Ok(true), false) => self.empty_lists += 1,
            _ => self.other_lists += 1,
        }
    }
}
