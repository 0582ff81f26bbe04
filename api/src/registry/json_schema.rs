//! JSON Schemas: which are valid, and which take every document that another takes, by the rules of Confluent's registry.
//!
//! What matters most there is the content model of an object. Open (additional properties are allowed, the default): a
//! property cannot be added, because documents may have it already with any value, and may be removed. Closed
//! (`additionalProperties: false`): an optional property can be added and none removed. Partly open (additional or pattern
//! properties have a schema): what is added or removed must agree with that schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Deepest nesting that is compared; below it all is taken as equal.
const DEPTH_MAX: usize = 64;
/// Most pairs of places that are compared: references can make a small text mean very much.
const STEPS_MAX: u32 = 100_000;

/// A schema and the documents that it refers to by name.
pub struct JsonSchema {
    root: Value,
    referred: BTreeMap<String, Value>,
}

/// Reads a schema; `referred` are names and texts that it refers to.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str, referred: &[(&str, &str)]) -> Result<JsonSchema, String> {
    let root: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    if !root.is_object() && !root.is_boolean() {
        return Err("a JSON Schema is an object, true or false".into());
    }
    if let Err(error) = jsonschema::meta::validate(&of_a_known_draft(&root)) {
        return Err(format!("not a JSON Schema: {error}"));
    }
    let mut documents = BTreeMap::new();
    for (name, text) in referred {
        documents.insert((*name).to_owned(), serde_json::from_str(text).map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(JsonSchema { root, referred: documents })
}

/// The schema without a `$schema` that names no draft: what it means is then taken from the latest one.
fn of_a_known_draft(root: &Value) -> Value {
    let mut root = root.clone();
    let named = root.get("$schema").and_then(Value::as_str);
    if named.is_some_and(|uri| !uri.contains("json-schema.org/draft"))
        && let Some(map) = root.as_object_mut()
    {
        map.remove("$schema");
    }
    root
}

/// Why documents that `writer` takes may be refused by `reader`; empty when none is.
pub fn cannot_read(reader: &JsonSchema, writer: &JsonSchema) -> Vec<String> {
    let mut diff = Diff { reader, writer, found: Vec::new(), steps_left: STEPS_MAX };
    diff.pair(At::root(&writer.root), At::root(&reader.root), "#", 0);
    diff.found
}

/// A place in a schema: the value, and the document that its local references mean.
#[derive(Clone, Copy)]
struct At<'a> {
    value: &'a Value,
    document: &'a Value,
}

impl<'a> At<'a> {
    fn root(value: &'a Value) -> At<'a> {
        At { value, document: value }
    }

    fn to(self, value: &'a Value) -> At<'a> {
        At { value, ..self }
    }

    fn get(self, key: &str) -> Option<At<'a>> {
        self.value.get(key).map(|value| self.to(value))
    }

    fn object(self, key: &str) -> impl Iterator<Item = (&'a str, At<'a>)> {
        let map = self.value.get(key).and_then(Value::as_object);
        map.into_iter().flatten().map(move |(name, value)| (name.as_str(), self.to(value)))
    }

    fn list(self, key: &str) -> Option<Vec<At<'a>>> {
        Some(self.value.get(key)?.as_array()?.iter().map(|value| self.to(value)).collect())
    }

    fn texts(self, key: &str) -> BTreeSet<&'a str> {
        let list = self.value.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Takes everything: `true`, or an object that says nothing about values.
    fn is_empty(self) -> bool {
        const REMARKS: [&str; 9] =
            ["title", "description", "default", "examples", "$id", "$schema", "$comment", "definitions", "$defs"];
        match self.value {
            Value::Bool(all) => *all,
            Value::Object(map) => map.keys().all(|key| REMARKS.contains(&key.as_str())),
            _ => false,
        }
    }

    fn is_false(self) -> bool {
        *self.value == Value::Bool(false)
    }

    fn has_default(self) -> bool {
        self.value.get("default").is_some()
    }

    fn types(self) -> BTreeSet<&'a str> {
        match self.value.get("type") {
            Some(Value::String(one)) => BTreeSet::from([one.as_str()]),
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => BTreeSet::new(),
        }
    }

    /// The content model of an object.
    fn is_open(self) -> bool {
        let additional = self.get("additionalProperties");
        self.object("patternProperties").next().is_none() && additional.is_none_or(At::is_empty)
    }

    /// The schema that a partly open object has for a property it does not name.
    fn partial(self, property: &str) -> Option<At<'a>> {
        let matches = |pattern: &str| regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(property));
        let by_pattern = self.object("patternProperties").find(|(pattern, _)| matches(pattern)).map(|(_, at)| at);
        by_pattern.or_else(|| self.get("additionalProperties").filter(|at| !at.is_false() && !at.is_empty()))
    }
}

struct Diff<'a> {
    reader: &'a JsonSchema,
    writer: &'a JsonSchema,
    found: Vec<String>,
    steps_left: u32,
}

/// Keys whose number may only grow (or go), and those that may only shrink.
const UPPER: [&str; 6] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "multipleOf"];
const LOWER: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];

impl<'a> Diff<'a> {
    fn fault(&mut self, kind: &str, path: &str) {
        self.found.push(format!("{{errorType:\"{kind}\", path:\"{path}\"}}"));
    }

    fn fits(&mut self, old: At<'a>, new: At<'a>, depth: usize) -> bool {
        let before = self.found.len();
        self.pair(old, new, "", depth);
        let fits = self.found.len() == before;
        self.found.truncate(before);
        fits
    }

    /// `old` is the writer's, `new` the reader's.
    fn pair(&mut self, old: At<'a>, new: At<'a>, path: &str, depth: usize) {
        if self.steps_left == 0 {
            return self.fault("TOO_LARGE_TO_COMPARE", path);
        }
        self.steps_left -= 1;
        let (old, new) = (resolve(old, self.writer), resolve(new, self.reader));
        let same = old.value == new.value && old.document == new.document;
        let alike = same && self.reader.referred == self.writer.referred;
        if depth > DEPTH_MAX || old.is_false() || new.is_empty() || alike {
            return;
        }
        if new.is_false() {
            return self.fault("TYPE_CHANGED", path);
        }
        if self.combined(old, new, path, depth) {
            return;
        }
        if !self.types(old, new, path) {
            return;
        }
        self.limits(old, new, path);
        self.choices(old, new, path);
        self.object(old, new, path, depth);
        self.array(old, new, path, depth);
        match (old.get("not"), new.get("not")) {
            // What the reader excludes must be excluded by the writer.
            (Some(old), Some(new)) if !self.fits_swapped(old, new, depth) => self.fault("NOT_TYPE_EXTENDED", path),
            (None, Some(_)) => self.fault("NOT_TYPE_ADDED", path),
            _ => {}
        }
    }

    fn fits_swapped(&mut self, old: At<'a>, new: At<'a>, depth: usize) -> bool {
        let (reader, writer) = (self.writer, self.reader);
        let mut swapped = Diff { reader, writer, found: Vec::new(), steps_left: self.steps_left };
        swapped.pair(new, old, "", depth + 1);
        self.steps_left = swapped.steps_left;
        swapped.found.is_empty()
    }

    /// anyOf, oneOf and allOf; true when the rest needs no look.
    fn combined(&mut self, old: At<'a>, new: At<'a>, path: &str, depth: usize) -> bool {
        let sum = |at: At<'a>| ["oneOf", "anyOf"].into_iter().find_map(|key| Some((key, at.list(key)?)));
        match (sum(old), sum(new)) {
            (Some((_, old)), Some((key, new))) => {
                let lost = old.iter().filter(|old| !new.iter().any(|new| self.fits(**old, *new, depth + 1))).count();
                if lost > 0 {
                    self.fault("SUM_TYPE_NARROWED", &format!("{path}/{key}"));
                }
                false
            }
            (Some((key, old)), None) => {
                if old.iter().any(|old| !self.fits(*old, new, depth + 1)) {
                    self.fault("SUM_TYPE_NARROWED", &format!("{path}/{key}"));
                }
                true
            }
            (None, Some((key, branches))) => {
                if !branches.iter().any(|new| self.fits(old, *new, depth + 1)) {
                    self.fault("TYPE_CHANGED", &format!("{path}/{key}"));
                }
                true
            }
            (None, None) => self.product(old, new, path, depth),
        }
    }

    fn product(&mut self, old: At<'a>, new: At<'a>, path: &str, depth: usize) -> bool {
        let Some(wanted) = new.list("allOf") else { return false };
        let given = old.list("allOf").unwrap_or_else(|| vec![old]);
        if wanted.iter().any(|new| !given.iter().any(|old| self.fits(*old, *new, depth + 1))) {
            self.fault("PRODUCT_TYPE_EXTENDED", &format!("{path}/allOf"));
        }
        false
    }

    /// Whether the types agree, so that the rest can be compared.
    fn types(&mut self, old: At<'a>, new: At<'a>, path: &str) -> bool {
        let (had, has) = (old.types(), new.types());
        let taken = |kind: &&str| has.contains(*kind) || *kind == "integer" && has.contains("number");
        let fits = has.is_empty() || !had.is_empty() && had.iter().all(taken);
        // A list of values says the type, too.
        let listed = had.is_empty() && (old.get("enum").is_some() || old.get("const").is_some());
        if !fits && !listed {
            self.fault(if had.iter().any(taken) { "TYPE_NARROWED" } else { "TYPE_CHANGED" }, path);
        }
        fits || listed
    }

    fn limits(&mut self, old: At<'a>, new: At<'a>, path: &str) {
        for key in UPPER {
            self.limit(old, new, (key, -1.0, "DECREASED"), path);
        }
        for key in LOWER {
            self.limit(old, new, (key, 1.0, "INCREASED"), path);
        }
        let (had, has) = (old.value.get("pattern"), new.value.get("pattern"));
        if has.is_some() && had != has {
            let word = if had.is_none() { "ADDED" } else { "CHANGED" };
            self.fault(&format!("PATTERN_{word}"), &format!("{path}/pattern"));
        }
        let unique = |at: At<'a>| at.value.get("uniqueItems") == Some(&Value::Bool(true));
        if unique(new) && !unique(old) {
            self.fault("UNIQUE_ITEMS_ADDED", &format!("{path}/uniqueItems"));
        }
    }

    fn limit(&mut self, old: At<'a>, new: At<'a>, (key, narrower, word): (&str, f64, &str), path: &str) {
        let number = |at: At<'a>| at.value.get(key).and_then(Value::as_f64);
        let place = format!("{path}/{key}");
        match (number(old), number(new)) {
            (None, Some(_)) => self.fault(&format!("{}_ADDED", upper(key)), &place),
            // Every multiple of the old one must be a multiple of the new one.
            (Some(old), Some(new)) if key == "multipleOf" => {
                let fits = new != 0.0 && (old / new).fract() == 0.0;
                if !fits {
                    self.fault("MULTIPLE_OF_CHANGED", &place);
                }
            }
            (Some(old), Some(new)) if (new - old) * narrower > 0.0 => {
                self.fault(&format!("{}_{word}", upper(key)), &place);
            }
            _ => {}
        }
    }

    fn choices(&mut self, old: At<'a>, new: At<'a>, path: &str) {
        let values = |at: At<'a>| match (at.value.get("const"), at.value.get("enum")) {
            (Some(one), _) => Some(vec![one]),
            (None, Some(Value::Array(many))) => Some(many.iter().collect()),
            _ => None,
        };
        match (values(old), values(new)) {
            (None, Some(_)) => self.fault("ENUM_ARRAY_ADDED", &format!("{path}/enum")),
            (Some(old), Some(new)) if old.iter().any(|value| !new.contains(value)) => {
                self.fault("ENUM_ARRAY_NARROWED", &format!("{path}/enum"));
            }
            _ => {}
        }
    }

    fn object(&mut self, old: At<'a>, new: At<'a>, path: &str, depth: usize) {
        let (had, has): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (old.object("properties").collect(), new.object("properties").collect());
        for name in had.keys().chain(has.keys()).collect::<BTreeSet<_>>() {
            let place = format!("{path}/properties/{name}");
            match (had.get(name), has.get(name)) {
                (Some(old), Some(new)) => self.pair(*old, *new, &place, depth + 1),
                (Some(removed), None) => self.removed((name, *removed), new, &place, depth),
                (None, Some(added)) => self.added((name, *added), (old, new), &place, depth),
                (None, None) => {}
            }
        }
        let (needed, needs) = (old.texts("required"), new.texts("required"));
        for name in needs.difference(&needed) {
            // What is required of a property that is new was looked at where it was added.
            let known = had.contains_key(name) || !has.contains_key(name);
            if known && !has.get(name).is_some_and(|property| property.has_default()) {
                self.fault("REQUIRED_ATTRIBUTE_ADDED", &format!("{path}/required/{name}"));
            }
        }
        self.additional(old, new, path, depth);
        for (pattern, new) in new.object("patternProperties") {
            if let Some((_, old)) = old.object("patternProperties").find(|(known, _)| *known == pattern) {
                self.pair(old, new, &format!("{path}/patternProperties/{pattern}"), depth + 1);
            }
        }
        self.dependencies(old, new, path);
    }

    fn removed(&mut self, (name, removed): (&str, At<'a>), new: At<'a>, place: &str, depth: usize) {
        if new.is_open() || removed.is_false() {
            return;
        }
        match new.partial(name) {
            Some(covering) if self.fits(removed, covering, depth + 1) => {}
            Some(_) => self.fault("PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", place),
            None => self.fault("PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL", place),
        }
    }

    fn added(&mut self, (name, added): (&str, At<'a>), (old, new): (At<'a>, At<'a>), place: &str, depth: usize) {
        if old.is_open() {
            if !added.is_empty() {
                self.fault("PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL", place);
            }
        } else if let Some(covering) = old.partial(name)
            && !self.fits(covering, added, depth + 1)
        {
            self.fault("PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", place);
        }
        if new.texts("required").contains(name) && !added.has_default() {
            self.fault("REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL", place);
        }
    }

    fn additional(&mut self, old: At<'a>, new: At<'a>, path: &str, depth: usize) {
        let place = format!("{path}/additionalProperties");
        let (had, has) = (old.get("additionalProperties"), new.get("additionalProperties"));
        match (had, has) {
            (_, None) => {}
            (_, Some(new)) if new.is_empty() => {}
            (Some(old), Some(_)) if old.is_false() => {}
            (_, Some(new)) if new.is_false() => self.fault("ADDITIONAL_PROPERTIES_REMOVED", &place),
            (None, Some(_)) => self.fault("ADDITIONAL_PROPERTIES_NARROWED", &place),
            (Some(old), Some(new)) => self.pair(old, new, &place, depth + 1),
        }
    }

    /// A property that needs others: the reader may need fewer, never more.
    fn dependencies(&mut self, old: At<'a>, new: At<'a>, path: &str) {
        for key in ["dependencies", "dependentRequired"] {
            let had: BTreeMap<_, _> = old.object(key).collect();
            for (name, new) in new.object(key) {
                let texts = |at: &At<'a>| -> Option<Vec<&'a Value>> { Some(at.value.as_array()?.iter().collect()) };
                let fits = match (had.get(name).and_then(texts), texts(&new)) {
                    (Some(old), Some(new)) => new.iter().all(|name| old.contains(name)),
                    _ => had.get(name).is_some_and(|old| old.value == new.value),
                };
                if !fits {
                    self.fault("DEPENDENCY_ADDED", &format!("{path}/{key}/{name}"));
                }
            }
        }
    }

    fn array(&mut self, old: At<'a>, new: At<'a>, path: &str, depth: usize) {
        let tuple = |at: At<'a>| at.list("prefixItems").or_else(|| at.list("items")).unwrap_or_default();
        let rest = |at: At<'a>| match at.get("items") {
            Some(items) if !items.value.is_array() => Some(items),
            _ => at.get("additionalItems"),
        };
        let (had, has) = (tuple(old), tuple(new));
        for at in 0..had.len().max(has.len()) {
            let place = format!("{path}/items/{at}");
            match (had.get(at), has.get(at)) {
                (Some(old), Some(new)) => self.pair(*old, *new, &place, depth + 1),
                (Some(old), None) => match rest(new) {
                    None => {}
                    Some(rest) if self.fits(*old, rest, depth + 1) => {}
                    Some(_) => self.fault("ITEM_REMOVED_FROM_CLOSED_CONTENT_MODEL", &place),
                },
                (None, Some(new)) => match rest(old) {
                    Some(rest) if self.fits(rest, *new, depth + 1) => {}
                    None if new.is_empty() => {}
                    _ => self.fault("ITEM_ADDED_TO_OPEN_CONTENT_MODEL", &place),
                },
                (None, None) => {}
            }
        }
        match (rest(old), rest(new)) {
            (Some(old), Some(new)) => self.pair(old, new, &format!("{path}/items"), depth + 1),
            (None, Some(new)) if !new.is_empty() => self.fault("ADDITIONAL_ITEMS_NARROWED", &format!("{path}/items")),
            _ => {}
        }
    }
}

/// `exclusiveMaximum` → `EXCLUSIVE_MAXIMUM`.
fn upper(key: &str) -> String {
    let mut out = String::new();
    for letter in key.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

/// What a `$ref` stands for: a place in the same document, or a document that is referred to by name.
fn resolve<'a>(at: At<'a>, schema: &'a JsonSchema) -> At<'a> {
    const HOPS_MAX: usize = 32;
    let mut at = at;
    for _ in 0..HOPS_MAX {
        let Some(target) = at.value.get("$ref").and_then(Value::as_str) else { return at };
        let (name, pointer) = target.split_once('#').unwrap_or((target, ""));
        let document = match name {
            "" => Some(at.document),
            name => schema.referred.get(name).or_else(|| own(&schema.root, name)),
        };
        let found = document.and_then(|document| Some(At { value: document.pointer(pointer)?, document }));
        match found {
            Some(found) => at = found,
            None => return at,
        }
    }
    at
}

/// The root, when it is called this.
fn own<'a>(root: &'a Value, name: &str) -> Option<&'a Value> {
    let id = root.as_object().map(|map: &Map<String, Value>| map.get("$id").or_else(|| map.get("id")));
    (id.flatten().and_then(Value::as_str) == Some(name)).then_some(root)
}
