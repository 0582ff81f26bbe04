//! Reads one TOML file against the rows of its schema. Everything wrong is noted with its line and key path; nothing stops the reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistakes, Origin, suggestion};
use super::schema::{Absent, Field, Kind, Section};
use super::settings_kafka::why_not;
use super::value::{Entry, Value, parse_text};
use super::variables::{Variables, expand};

/// A configuration file: its name in messages, and its text.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name that messages carry.
    pub name: Arc<str>,
    /// The TOML text.
    pub text: String,
}

impl Source {
    /// A text that is part of the binary or of a test.
    pub fn text(name: &str, text: &str) -> Source {
        Source { name: name.into(), text: text.into() }
    }
}

/// The section whose keys are Kafka's names.
pub const KAFKA_SECTION: &str = "kafka";

/// The tables of one file by section name, without defaults at the level of sections.
pub type Document = BTreeMap<&'static str, Entry>;

/// Reads a whole file; references in its texts get their values from `variables`.
pub fn read_document(
    source: &Source,
    sections: &'static [Section],
    variables: &Variables,
    mistakes: &mut Mistakes,
) -> Document {
    let (mut root, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader { source, mistakes, expanded: BTreeSet::new() };
    for (_, value) in root.get_mut().iter_mut() {
        reader.expand(value, variables);
    }
    for error in &errors {
        let origin = reader.origin(error.span().map_or(0, |span| span.start));
        reader.mistakes.add(&origin, "", format!("not TOML: {}", error.message()));
    }
    if errors.is_empty() { reader.document(root.get_ref(), sections) } else { Document::new() }
}

/// Reads a file that stands alone: defaults and required keys hold at once.
pub fn read_alone(
    source: &Source,
    sections: &'static [Section],
    variables: &Variables,
    mistakes: &mut Mistakes,
) -> Document {
    let mut document = read_document(source, sections, variables, mistakes);
    for section in sections {
        let entry = document
            .entry(section.name)
            .or_insert_with(|| Entry::new(Origin::Line(source.name.clone(), 0), section.name.into()));
        complete(entry, section.fields, mistakes);
    }
    document
}

/// Gives every absent key its default, and notes the required ones that are not there.
pub fn complete(entry: &mut Entry, fields: &'static [Field], mistakes: &mut Mistakes) {
    for field in fields {
        if entry.values.contains_key(field.name) {
            continue;
        }
        match field.absent {
            Absent::Required => {
                let message = format!(
                    "missing; it must be {}, for example {} = {}",
                    field.kind.words(),
                    field.name,
                    field.example
                );
                mistakes.add(&entry.origin, entry.path_of(field.name), message);
            }
            Absent::Unset => {}
            Absent::Default(text) => {
                let value =
                    parse_text(&field.kind, text).expect("defaults are within their range: a test reads every one");
                entry.values.insert(field.name, (value, Origin::Default));
            }
        }
    }
}

struct Reader<'a> {
    source: &'a Source,
    mistakes: &'a mut Mistakes,
    /// Where texts stand that had references.
    expanded: BTreeSet<usize>,
}

impl Reader<'_> {
    fn origin(&self, byte: usize) -> Origin {
        let before = &self.source.text.as_bytes()[..byte.min(self.source.text.len())];
        Origin::Line(self.source.name.clone(), 1 + before.iter().filter(|byte| **byte == b'\n').count())
    }

    /// Puts values in the places of the references of a text, or of the texts in a list or table.
    fn expand(&mut self, value: &mut Spanned<DeValue<'_>>, variables: &Variables) {
        let at = value.span().start;
        match value.get_mut() {
            DeValue::String(text) => match expand(text, variables) {
                None => {}
                Some(Ok(written)) => {
                    *text = written.into();
                    self.expanded.insert(at);
                }
                Some(Err(message)) => {
                    let origin = self.origin(at);
                    self.mistakes.add(&origin, "", message);
                }
            },
            DeValue::Array(items) => items.iter_mut().for_each(|item| self.expand(item, variables)),
            DeValue::Table(table) => table.iter_mut().for_each(|(_, item)| self.expand(item, variables)),
            _ => {}
        }
    }

    fn document(&mut self, root: &DeTable<'_>, sections: &'static [Section]) -> Document {
        let mut document = Document::new();
        let top: &'static [Field] =
            sections.iter().find(|section| section.name.is_empty()).map_or(&[], |section| section.fields);
        let known = || {
            top.iter()
                .map(|field| field.name)
                .chain(sections.iter().map(|section| section.name))
                .filter(|name| !name.is_empty())
        };
        let mut plain = Entry::new(Origin::Line(self.source.name.clone(), 0), String::new());
        for (key, value) in root.iter() {
            let (name, origin) = (key.get_ref().as_ref(), self.origin(key.span().start));
            if let Some(section) = sections.iter().find(|section| !name.is_empty() && section.name == name) {
                match value.get_ref() {
                    DeValue::Table(table) => {
                        let entry = self.section(table, section, Entry::new(origin, name.into()));
                        document.insert(section.name, entry);
                    }
                    other => self.mistakes.add(
                        &origin,
                        name,
                        format!("must be a table: write [{name}] and its keys below, not {}", article(other)),
                    ),
                }
            } else if let Some(field) = top.iter().find(|field| field.name == name) {
                self.field(field, value, origin, &mut plain);
            } else {
                self.mistakes.add(&origin, name, format!("unknown key{}", suggestion(name, known())));
            }
        }
        document.insert("", plain);
        document
    }

    /// Reads the keys of a table that are there; unknown ones are mistakes.
    fn table(&mut self, table: &DeTable<'_>, fields: &'static [Field], mut entry: Entry) -> Entry {
        for (key, value) in table.iter() {
            let (name, origin) = (key.get_ref().as_ref(), self.origin(key.span().start));
            match fields.iter().find(|field| field.name == name) {
                Some(field) => self.field(field, value, origin, &mut entry),
                None => {
                    let message = format!("unknown key{}", suggestion(name, fields.iter().map(|field| field.name)));
                    self.mistakes.add(&origin, entry.path_of(name), message);
                }
            }
        }
        entry
    }

    fn section(&mut self, table: &DeTable<'_>, section: &Section, entry: Entry) -> Entry {
        if section.name == KAFKA_SECTION {
            return self.dotted((table, ""), section.fields, entry);
        }
        self.table(table, section.fields, entry)
    }

    /// Reads keys with dots in their names, which TOML takes for tables in tables where they are not quoted.
    fn dotted(&mut self, (table, before): (&DeTable<'_>, &str), fields: &'static [Field], mut entry: Entry) -> Entry {
        for (key, value) in table.iter() {
            let name = format!("{before}{}", key.get_ref());
            let origin = self.origin(key.span().start);
            match (fields.iter().find(|field| field.name == name), value.get_ref()) {
                (None, DeValue::Table(inner)) => entry = self.dotted((inner, &format!("{name}.")), fields, entry),
                (None, _) => self.mistakes.add(&origin, entry.path_of(&name), why_not(&name)),
                (Some(field), _) => self.field(field, value, origin, &mut entry),
            }
        }
        entry
    }

    fn field(&mut self, field: &'static Field, value: &Spanned<DeValue<'_>>, origin: Origin, entry: &mut Entry) {
        let path = entry.path_of(field.name);
        let read = match field.kind {
            Kind::Table(fields) => Ok(self.one_table(fields, value, &path)),
            Kind::Tables(fields) => Ok(self.tables(fields, value, &path)),
            kind => match value.get_ref() {
                // What a reference stands for is written as a variable would write it.
                DeValue::String(text) if self.expanded.contains(&value.span().start) => parse_text(&kind, text),
                value => read_value(&kind, value),
            },
        };
        match read {
            Ok(value) => {
                entry.values.insert(field.name, (value, origin));
            }
            Err(message) => {
                self.mistakes.add(&origin, path, message);
                // a stand-in, so that the key is not called missing as well
                entry.values.insert(field.name, (stand_in(&field.kind), origin));
            }
        }
    }

    /// A table of its own is kept as a list of one.
    fn one_table(&mut self, fields: &'static [Field], value: &Spanned<DeValue<'_>>, path: &str) -> Value {
        let origin = self.origin(value.span().start);
        let DeValue::Table(table) = value.get_ref() else {
            let keys: Vec<&str> = fields.iter().map(|field| field.name).collect();
            let message =
                format!("must be a table with the keys {}, not {}", keys.join(", "), article(value.get_ref()));
            self.mistakes.add(&origin, path, message);
            return Value::Tables(Vec::new());
        };
        let mut entry = self.table(table, fields, Entry::new(origin, path.to_owned()));
        complete(&mut entry, fields, self.mistakes);
        Value::Tables(vec![entry])
    }

    fn tables(&mut self, fields: &'static [Field], value: &Spanned<DeValue<'_>>, path: &str) -> Value {
        let origin = self.origin(value.span().start);
        let DeValue::Array(items) = value.get_ref() else {
            let message =
                format!("must be a list of tables: write [[{path}]] before each, not {}", article(value.get_ref()));
            self.mistakes.add(&origin, path, message);
            return Value::Tables(Vec::new());
        };
        let mut entries = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let (origin, path) = (self.origin(item.span().start), format!("{path}[{index}]"));
            match item.get_ref() {
                DeValue::Table(table) => {
                    let mut entry = self.table(table, fields, Entry::new(origin, path));
                    complete(&mut entry, fields, self.mistakes);
                    entries.push(entry);
                }
                other => self.mistakes.add(&origin, path, format!("must be a table, not {}", article(other))),
            }
        }
        Value::Tables(entries)
    }
}

/// A value of the kind, for a key that is already a mistake.
fn stand_in(kind: &Kind) -> Value {
    match kind {
        Kind::Text | Kind::OneOf(_) | Kind::Address | Kind::Any | Kind::Kafka(_) => Value::Text(String::new()),
        Kind::Bool => Value::Bool(false),
        Kind::Integer(min, _) | Kind::Duration(min, _) | Kind::Size(min, _) => Value::Integer(*min),
        Kind::Number(min, _) => Value::Number(*min),
        Kind::Texts => Value::Texts(Vec::new()),
        Kind::Numbers => Value::Numbers(Vec::new()),
        Kind::Grid => Value::Grid(Vec::new()),
        Kind::Map => Value::Map(BTreeMap::new()),
        Kind::Table(_) | Kind::Tables(_) => Value::Tables(Vec::new()),
    }
}

fn read_value(kind: &Kind, value: &DeValue<'_>) -> Result<Value, String> {
    let wrong = || format!("must be {}, not {}", kind.words(), article(value));
    match (kind, value) {
        (Kind::Text | Kind::OneOf(_) | Kind::Address | Kind::Duration(..) | Kind::Size(..), DeValue::String(text)) => {
            parse_text(kind, text)
        }
        (Kind::Duration(..), DeValue::Integer(number)) => Err(format!("give the unit, for example \"{number}s\"")),
        (Kind::Integer(..) | Kind::Size(..) | Kind::Number(..), DeValue::Integer(number)) => {
            parse_text(kind, &decimal(number).ok_or_else(wrong)?)
        }
        (Kind::Number(..), DeValue::Float(number)) => parse_text(kind, &number.as_str().replace('_', "")),
        (Kind::Bool, DeValue::Boolean(flag)) => Ok(Value::Bool(*flag)),
        (Kind::Texts, DeValue::Array(_)) => texts(value).map(Value::Texts).ok_or_else(wrong),
        (Kind::Numbers, DeValue::Array(items)) => {
            items.iter().map(|item| number(item.get_ref())).collect::<Option<_>>().map(Value::Numbers).ok_or_else(wrong)
        }
        (Kind::Grid, DeValue::Array(items)) => {
            items.iter().map(|item| texts(item.get_ref())).collect::<Option<_>>().map(Value::Grid).ok_or_else(wrong)
        }
        (Kind::Map, DeValue::Table(table)) => {
            let pairs = table.iter().map(|(key, item)| Some((key.get_ref().to_string(), scalar(item.get_ref())?)));
            pairs
                .collect::<Option<_>>()
                .map(Value::Map)
                .ok_or_else(|| "each value must be a text, a number, true or false".into())
        }
        (Kind::Kafka(_), value) => {
            let text = scalar(value).or_else(|| texts(value).map(|items| items.join(",")));
            parse_text(kind, &text.ok_or_else(wrong)?)
        }
        (Kind::Any, value) => Ok(Value::Text(json(value).to_string())),
        _ => Err(wrong()),
    }
}

fn article(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "a text".into(),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(flag) => format!("{flag}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn decimal(number: &toml::de::DeInteger<'_>) -> Option<String> {
    i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok().map(|number| number.to_string())
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(number) => decimal(number)?.parse().ok(),
        DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
        _ => None,
    }
}

fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| scalar(item.get_ref())).collect()
}

/// A scalar as text.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => decimal(number),
        DeValue::Float(number) => Some(number.as_str().into()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Datetime(date) => Some(date.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            table.iter().map(|(key, item)| (key.get_ref().to_string(), json(item.get_ref()))).collect()
        }
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Integer(number) => decimal(number).and_then(|text| text.parse::<i64>().ok()).into(),
        DeValue::Float(_) => number(value).into(),
        DeValue::String(_) | DeValue::Datetime(_) => scalar(value).into(),
    }
}
