//! Answers as trees: read from the crate's debug form, freed of what differs between any two brokers, compared.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Arrays of structures whose order clients know: what a quota's entity is made of, and its limits.
const ORDERED: &[&str] = &["entity", "values"];

/// Fields that two correct brokers fill differently.
const VOLATILE: &[&str] = &[
    "throttle_time_ms",
    "topic_id",
    "cluster_id",
    "host",
    "port",
    "node_id",
    "leader_id",
    "replica_nodes",
    "isr_nodes",
    "controller_id",
    "leader",
    "leader_epoch",
    "producer_id",
    "batch_index_error_message",
    "session_id",
    "unknown_tagged_fields",
    "log_append_time_ms",
    "topic_authorized_operations",
    "cluster_authorized_operations",
    "authorized_operations",
    "client_host",
    "client_id",
    "documentation",
];

/// Kafka often says nothing where Millpond says why. Of a success it is compared: null is not the empty text.
const ERROR_WORDS: &str = "error_message";

/// The tree of a value's `{:?}`.
pub fn tree(debug: &str) -> Value {
    let mut reader = Reader { rest: debug };
    let value = reader.value();
    assert!(reader.rest.is_empty(), "not read to its end: {}", reader.rest);
    value
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn value(&mut self) -> Value {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('"') {
            return Value::String(self.quoted());
        }
        if self.rest.starts_with("b\"") {
            self.rest = &self.rest[1..];
            return Value::String(self.quoted());
        }
        if self.take("[") {
            return Value::Array(self.list("]"));
        }
        if self.take("{") {
            self.skip_to_close();
            return Value::Null;
        }
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "_-+.:".contains(c))).unwrap_or(self.rest.len());
        let word = self.rest[..end].to_owned();
        self.rest = &self.rest[end..];
        if self.take("(") {
            let mut items = self.list(")");
            return if items.len() == 1 { items.remove(0) } else { Value::Array(items) };
        }
        if self.take(" {") {
            return Value::Object(self.fields());
        }
        match word.as_str() {
            "None" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => word.parse::<i64>().map_or(Value::String(word), Value::from),
        }
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn list(&mut self, close: &str) -> Vec<Value> {
        let mut items = Vec::new();
        loop {
            self.rest = self.rest.trim_start_matches([' ', ',']);
            if self.take(close) {
                return items;
            }
            items.push(self.value());
        }
    }

    fn fields(&mut self) -> Map<String, Value> {
        let mut fields = Map::new();
        loop {
            self.rest = self.rest.trim_start_matches([' ', ',']);
            if self.take("}") {
                return fields;
            }
            let (name, rest) = self.rest.split_once(':').expect("a field has a name");
            let name = name.to_owned();
            self.rest = rest;
            let value = self.value();
            fields.insert(name, value);
        }
    }

    /// A map (tagged fields): nothing in it is compared.
    fn skip_to_close(&mut self) {
        let end = self.rest.find('}').expect("a map ends");
        self.rest = &self.rest[end + 1..];
    }

    fn quoted(&mut self) -> String {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return text;
                }
                '\\' => {
                    let (_, escaped) = chars.next().expect("an escape has a second character");
                    text.push('\\');
                    text.push(escaped);
                }
                other => text.push(other),
            }
        }
        panic!("a string has no end: {text}")
    }
}

/// The first field of this name, at any depth.
pub fn find<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(field).or_else(|| fields.values().find_map(|value| find(value, field))),
        Value::Array(items) => items.iter().find_map(|item| find(item, field)),
        _ => None,
    }
}

/// Without volatile fields and the words of errors; saved values under their names; arrays of structures in a fixed order
/// where the answer's own is not compared.
pub fn normalise(value: Value, ignore: &[String], saved: &BTreeMap<String, Value>) -> Value {
    match value {
        Value::Object(fields) => {
            let failed = fields.get("error_code").is_some_and(|code| code != 0);
            let left_out = |name: &String| {
                VOLATILE.contains(&name.as_str()) || ignore.contains(name) || (failed && name == ERROR_WORDS)
            };
            let compared = fields.into_iter().filter(|(name, _)| !left_out(name));
            let normal = |(name, value): (String, Value)| match value {
                Value::Array(items) if ORDERED.contains(&name.as_str()) => {
                    let items = items.into_iter().map(|item| normalise(item, ignore, saved)).collect();
                    (name, Value::Array(items))
                }
                value => (name, normalise(value, ignore, saved)),
            };
            Value::Object(compared.map(normal).collect())
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(|item| normalise(item, ignore, saved)).collect();
            if items.iter().all(Value::is_object) {
                items.sort_by_key(Value::to_string);
            }
            Value::Array(items)
        }
        Value::String(text) => {
            match saved.iter().find(|(_, value)| value.as_str() == Some(&text) && !text.is_empty()) {
                Some((name, _)) => Value::String(format!("${name}")),
                None => Value::String(text),
            }
        }
        other => other,
    }
}

/// Adds one line per differing leaf.
pub fn compare(at: &str, theirs: &Value, ours: &Value, differences: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                compare(
                    &format!("{at}.{name}"),
                    a.get(name).unwrap_or(&Value::Null),
                    b.get(name).unwrap_or(&Value::Null),
                    differences,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{at}[{i}]"), a, b, differences);
            }
        }
        (a, b) if a != b => differences.push(format!("{at}: {a} | {b}")),
        _ => {}
    }
}

#[test]
fn debug_forms_are_read_whole() {
    let text = r#"A { x: 1, name: TopicName("a\"b"), list: [B { y: Some(-2), z: None }], bytes: b"\0x", id: 00000000-0000-0000-0000-000000000000, unknown_tagged_fields: {} }"#;
    let value = tree(text);
    assert_eq!(value["x"], 1);
    assert_eq!(value["name"], "a\\\"b");
    assert_eq!(value["list"][0]["y"], -2);
    assert_eq!(value["list"][0]["z"], Value::Null);
    assert_eq!(find(&value, "y"), Some(&Value::from(-2)));
    let mut differences = Vec::new();
    compare("t", &value, &tree(&text.replace("-2", "3")), &mut differences);
    assert_eq!(differences, ["t.list[0].y: -2 | 3"]);
}
