//! Avro schemas: which are valid, and which read what another wrote, by the rules of the specification's schema resolution.
//!
//! Names are compared without their namespace and logical types are taken as the types below them, as in Confluent's
//! registry; apache-avro's own check differs in both, so the rules stand here.

use std::collections::{BTreeMap, BTreeSet};

use apache_avro::Schema;
use apache_avro::schema::{Namespace, RecordField};
use serde_json::Value;

/// Reads a schema; `referred` are the texts that it refers to, deepest first.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str, referred: &[&str]) -> Result<Avro, String> {
    if let Some(word) = serde_json::from_str(text).ok().as_ref().and_then(bare_word) {
        let message = format!(
            "\"{word}\" is not a defined name; a field's {word} stands in an object: {{\"type\": {{\"type\": \"{word}\", …}}}}"
        );
        return Err(message);
    }
    let parsed = match referred {
        [] => Schema::parse_str(text).map(|schema| (schema, Vec::new())),
        referred => Schema::parse_str_with_list(text, referred),
    };
    let (schema, others) = parsed.map_err(|error| error.to_string())?;
    let mut names = BTreeMap::new();
    for schema in others.iter().chain([&schema]) {
        name_types(schema, &None, &mut names);
    }
    Ok(Avro { schema, names })
}

/// A field whose type is the bare word of a type that needs more than a word: apache-avro takes the rest from the field,
/// which no other reader does.
fn bare_word(schema: &Value) -> Option<&str> {
    match schema {
        Value::Array(branches) => branches.iter().find_map(bare_word),
        Value::Object(parts) => {
            let fields = parts.get("fields").and_then(Value::as_array).into_iter().flatten();
            let mut kinds = fields.filter_map(|field| field.get("type"));
            let found = kinds.find_map(|kind| match kind.as_str() {
                Some(word) => ["record", "error", "enum", "array", "map", "fixed"].into_iter().find(|own| *own == word),
                None => bare_word(kind),
            });
            found.or_else(|| {
                ["type", "items", "values"].into_iter().filter_map(|part| parts.get(part)).find_map(bare_word)
            })
        }
        _ => None,
    }
}

/// A schema with the types that it names.
pub struct Avro {
    schema: Schema,
    names: BTreeMap<String, Schema>,
}

fn name_types(schema: &Schema, namespace: &Namespace, names: &mut BTreeMap<String, Schema>) {
    let inner = |name: &apache_avro::schema::Name| name.namespace.clone().or_else(|| namespace.clone());
    match schema {
        Schema::Record(record) => {
            names.insert(record.name.fullname(namespace.clone()), schema.clone());
            record.fields.iter().for_each(|field| name_types(&field.schema, &inner(&record.name), names));
        }
        Schema::Enum(named) => {
            names.insert(named.name.fullname(namespace.clone()), schema.clone());
        }
        Schema::Fixed(named) => {
            names.insert(named.name.fullname(namespace.clone()), schema.clone());
        }
        Schema::Array(array) => name_types(&array.items, namespace, names),
        Schema::Map(map) => name_types(&map.types, namespace, names),
        Schema::Union(union) => union.variants().iter().for_each(|branch| name_types(branch, namespace, names)),
        Schema::Decimal(decimal) => name_types(&decimal.inner, namespace, names),
        _ => {}
    }
}

/// Most pairs of types that are compared: named types can make a small text mean very much.
const STEPS_MAX: u32 = 100_000;
/// Deepest nesting of named types that is compared.
const DEPTH_MAX: usize = 128;

/// Why `reader` cannot read what `writer` wrote; empty when it can.
pub fn cannot_read(reader: &Avro, writer: &Avro) -> Vec<String> {
    let mut check = Check { reader, writer, underway: BTreeSet::new(), found: Vec::new(), steps_left: STEPS_MAX };
    check.pair(&reader.schema, &writer.schema, "");
    check.found
}

struct Check<'a> {
    reader: &'a Avro,
    writer: &'a Avro,
    /// Pairs of named types that are being compared: a recursive type fits if the rest does.
    underway: BTreeSet<(String, String)>,
    found: Vec<String>,
    steps_left: u32,
}

/// What the rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Array,
    Map,
    Union,
    Record,
    Enum,
    Fixed,
}

fn base(schema: &Schema) -> Base {
    match schema {
        Schema::Null | Schema::Ref { .. } => Base::Null,
        Schema::Boolean => Base::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Base::Int,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Base::Long,
        Schema::Float => Base::Float,
        Schema::Double => Base::Double,
        Schema::Bytes | Schema::BigDecimal => Base::Bytes,
        Schema::String | Schema::Uuid => Base::Text,
        Schema::Array(_) => Base::Array,
        Schema::Map(_) => Base::Map,
        Schema::Union(_) => Base::Union,
        Schema::Record(_) => Base::Record,
        Schema::Enum(_) => Base::Enum,
        Schema::Fixed(_) | Schema::Duration => Base::Fixed,
        Schema::Decimal(decimal) => base(&decimal.inner),
    }
}

impl Base {
    fn name(self) -> &'static str {
        match self {
            Base::Null => "null",
            Base::Boolean => "boolean",
            Base::Int => "int",
            Base::Long => "long",
            Base::Float => "float",
            Base::Double => "double",
            Base::Bytes => "bytes",
            Base::Text => "string",
            Base::Array => "array",
            Base::Map => "map",
            Base::Union => "union",
            Base::Record => "record",
            Base::Enum => "enum",
            Base::Fixed => "fixed",
        }
    }

    /// Whether a reader takes values of another base type.
    fn takes(self, writer: Base) -> bool {
        match self {
            Base::Long => writer == Base::Int,
            Base::Float => matches!(writer, Base::Int | Base::Long),
            Base::Double => matches!(writer, Base::Int | Base::Long | Base::Float),
            Base::Bytes => writer == Base::Text,
            Base::Text => writer == Base::Bytes,
            _ => false,
        }
    }
}

/// The schema itself, or the one that it names.
fn resolve<'s>(schema: &'s Schema, of: &'s Avro) -> &'s Schema {
    match schema {
        Schema::Ref { name } => of.names.get(&name.fullname(None)).unwrap_or(schema),
        Schema::Decimal(decimal) => resolve(&decimal.inner, of),
        _ => schema,
    }
}

impl<'a> Check<'a> {
    fn fault(&mut self, kind: &str, path: &str, message: String) {
        let place = if path.is_empty() { "/" } else { path };
        self.found.push(format!("{{errorType:'{kind}', description:'{message}', path:'{place}'}}"));
    }

    fn fits(&mut self, reader: &'a Schema, writer: &'a Schema) -> bool {
        let before = self.found.len();
        self.pair(reader, writer, "");
        let fits = self.found.len() == before;
        self.found.truncate(before);
        fits
    }

    fn pair(&mut self, reader: &'a Schema, writer: &'a Schema, path: &str) {
        if self.steps_left == 0 || self.underway.len() > DEPTH_MAX {
            return self.fault("TOO_LARGE_TO_COMPARE", path, "the schemas are too large to compare".into());
        }
        self.steps_left -= 1;
        let (reader, writer) = (resolve(reader, self.reader), resolve(writer, self.writer));
        match (reader, writer) {
            (_, Schema::Union(branches)) => {
                for branch in branches.variants() {
                    self.pair(reader, branch, path);
                }
            }
            (Schema::Union(branches), _) => {
                if !branches.variants().iter().any(|branch| self.fits(branch, writer)) {
                    let message = format!("the reader's union lacks the writer's type {}", base(writer).name());
                    self.fault("MISSING_UNION_BRANCH", path, message);
                }
            }
            (Schema::Array(reader), Schema::Array(writer)) => {
                self.pair(&reader.items, &writer.items, &format!("{path}/items"));
            }
            (Schema::Map(reader), Schema::Map(writer)) => {
                self.pair(&reader.types, &writer.types, &format!("{path}/values"));
            }
            (Schema::Record(_), Schema::Record(_)) => self.records(reader, writer, path),
            (Schema::Enum(_), Schema::Enum(_)) => self.enums(reader, writer, path),
            (Schema::Fixed(r), Schema::Fixed(w)) => {
                self.names((&r.name.name, &r.aliases), (&w.name.name, &w.name.fullname(None)), path);
                if r.size != w.size {
                    self.fault("FIXED_SIZE_MISMATCH", path, format!("expected {}, found {}", w.size, r.size));
                }
            }
            _ => {
                let (reader, writer) = (base(reader), base(writer));
                if reader != writer && !reader.takes(writer) {
                    let message = format!("type {} cannot read type {}", reader.name(), writer.name());
                    self.fault("TYPE_MISMATCH", path, message);
                }
            }
        }
    }

    fn names(&mut self, reader: (&str, &apache_avro::schema::Aliases), writer: (&str, &str), path: &str) {
        let alias = |alias: &apache_avro::schema::Alias| alias.fullname(None) == writer.1 || alias.name() == writer.0;
        let aliased = reader.1.as_ref().is_some_and(|aliases| aliases.iter().any(alias));
        if reader.0 != writer.0 && !aliased {
            self.fault("NAME_MISMATCH", path, format!("expected {}, found {}", writer.0, reader.0));
        }
    }

    fn enums(&mut self, reader: &Schema, writer: &Schema, path: &str) {
        let (Schema::Enum(r), Schema::Enum(w)) = (reader, writer) else { return };
        self.names((&r.name.name, &r.aliases), (&w.name.name, &w.name.fullname(None)), path);
        let missing: Vec<&str> =
            w.symbols.iter().filter(|symbol| !r.symbols.contains(symbol)).map(String::as_str).collect();
        if !missing.is_empty() && r.default.is_none() {
            let message = format!("the reader lacks the symbols {} and has no default", missing.join(", "));
            self.fault("MISSING_ENUM_SYMBOLS", path, message);
        }
    }

    fn records(&mut self, reader: &'a Schema, writer: &'a Schema, path: &str) {
        let (Schema::Record(r), Schema::Record(w)) = (reader, writer) else { return };
        let pair = (r.name.fullname(None), w.name.fullname(None));
        if !self.underway.insert(pair.clone()) {
            return;
        }
        self.names((&r.name.name, &r.aliases), (&w.name.name, &pair.1), path);
        for field in &r.fields {
            let place = format!("{path}/fields/{}", field.name);
            match w.fields.iter().find(|written| same_field(field, written)) {
                Some(written) => self.pair(&field.schema, &written.schema, &place),
                None if field.default.is_some() => {}
                None => {
                    let message =
                        format!("the field {} has no default value and is missing in the old schema", field.name);
                    self.fault("READER_FIELD_MISSING_DEFAULT_VALUE", &place, message);
                }
            }
        }
        self.underway.remove(&pair);
    }
}

fn same_field(reader: &RecordField, writer: &RecordField) -> bool {
    reader.name == writer.name || reader.aliases.as_ref().is_some_and(|aliases| aliases.contains(&writer.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","namespace":"n","fields":[{fields}]}}"#)
    }

    /// reader, writer, whether the reader can read
    #[test]
    fn who_reads_what() {
        let a = r#"{"name":"a","type":"string"}"#;
        let b = r#"{"name":"b","type":["null","string"],"default":null}"#;
        let b_required = r#"{"name":"b","type":"string"}"#;
        let cases: &[(&str, &str, bool)] = &[
            (r#""int""#, r#""int""#, true),
            (r#""long""#, r#""int""#, true),
            (r#""int""#, r#""long""#, false),
            (r#""double""#, r#""float""#, true),
            (r#""float""#, r#""long""#, true),
            (r#""float""#, r#""double""#, false),
            (r#""string""#, r#""bytes""#, true),
            (r#""bytes""#, r#""string""#, true),
            (r#""string""#, r#""int""#, false),
            (r#"{"type":"long","logicalType":"timestamp-millis"}"#, r#""long""#, true),
            (r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#, r#""bytes""#, true),
            (r#"["null","string"]"#, r#""string""#, true),
            (r#""string""#, r#"["null","string"]"#, false),
            (r#"["null","string","int"]"#, r#"["null","string"]"#, true),
            (r#"["null","string"]"#, r#"["null","string","int"]"#, false),
            (r#"["null","long"]"#, r#""int""#, true),
            (r#"{"type":"array","items":"long"}"#, r#"{"type":"array","items":"int"}"#, true),
            (r#"{"type":"map","values":"int"}"#, r#"{"type":"map","values":"string"}"#, false),
            (&record(&format!("{a},{b}")), &record(a), true),
            (&record(&format!("{a},{b_required}")), &record(a), false),
            (&record(a), &record(&format!("{a},{b_required}")), true),
            (&record(a), &record(r#"{"name":"a","type":"int"}"#), false),
            (&record(r#"{"name":"x","aliases":["a"],"type":"string"}"#), &record(a), true),
            (&record(r#"{"name":"x","type":"string"}"#), &record(a), false),
            (&record(a).replace(r#""n""#, r#""other""#), &record(a), true),
            (&record(a).replace(r#""R""#, r#""S""#), &record(a), false),
            (&record(a).replace(r#""R""#, r#""S","aliases":["n.R"]"#), &record(a), true),
            (
                r#"{"type":"enum","name":"E","symbols":["A","B"]}"#,
                r#"{"type":"enum","name":"E","symbols":["A"]}"#,
                true,
            ),
            (
                r#"{"type":"enum","name":"E","symbols":["A"]}"#,
                r#"{"type":"enum","name":"E","symbols":["A","B"]}"#,
                false,
            ),
            (
                r#"{"type":"enum","name":"E","symbols":["A"],"default":"A"}"#,
                r#"{"type":"enum","name":"E","symbols":["A","B"]}"#,
                true,
            ),
            (r#"{"type":"fixed","name":"F","size":4}"#, r#"{"type":"fixed","name":"F","size":4}"#, true),
            (r#"{"type":"fixed","name":"F","size":4}"#, r#"{"type":"fixed","name":"F","size":5}"#, false),
            (
                &record(r#"{"name":"next","type":["null","R"]},{"name":"v","type":"long"}"#),
                &record(r#"{"name":"next","type":["null","R"]},{"name":"v","type":"int"}"#),
                true,
            ),
            (
                &record(r#"{"name":"next","type":["null","R"]},{"name":"v","type":"int"}"#),
                &record(r#"{"name":"next","type":["null","R"]},{"name":"v","type":"long"}"#),
                false,
            ),
        ];
        for (reader, writer, fits) in cases {
            let found = cannot_read(&parse(reader, &[]).unwrap(), &parse(writer, &[]).unwrap());
            assert_eq!(found.is_empty(), *fits, "{reader} reads {writer}: {found:?}");
        }
    }

    #[test]
    fn references_are_types_like_others() {
        let user = r#"{"type":"record","name":"User","namespace":"n","fields":[{"name":"id","type":"long"}]}"#;
        let older = user.replace("long", "int");
        let event = r#"{"type":"record","name":"Event","namespace":"n","fields":[{"name":"user","type":"n.User"}]}"#;
        let (new, old) = (parse(event, &[user]).unwrap(), parse(event, &[&older]).unwrap());
        assert!(cannot_read(&new, &old).is_empty());
        assert_eq!(cannot_read(&old, &new).len(), 1);
        assert!(parse(event, &[]).is_err());
        assert!(parse(r#"{"type":"record","name":"R"}"#, &[]).is_err());
        assert!(parse("{", &[]).is_err());
        let bare = r#"{"name":"a","type":"array","items":"int"}"#;
        let within = record(&format!(r#"{{"name":"a","type":["null",{}]}}"#, record(bare)));
        for wrong in [record(bare), within, r#"{"type":"map","values":{}}"#.replace("{}", &record(bare))] {
            assert!(parse(&wrong, &[]).err().unwrap().contains("not a defined name"), "{wrong}");
        }
        assert!(parse(&record(r#"{"name":"a","type":{"type":"array","items":"int"},"default":[]}"#), &[]).is_ok());
    }

    /// Records that name each other in a long chain, or twice each, end in an answer.
    #[test]
    fn schemas_that_mean_very_much_are_given_up() {
        let chain = |twice: bool, length: usize| {
            let mut records = Vec::new();
            for i in (0..length).rev() {
                let next = |name: &str| match i + 1 == length {
                    true => format!(r#"{{"name":"{name}","type":"int"}}"#),
                    false => format!(r#"{{"name":"{name}","type":"R{}"}}"#, i + 1),
                };
                let fields = if twice { format!("{},{}", next("a"), next("b")) } else { next("a") };
                records.push(format!(r#"{{"type":"record","name":"R{i}","fields":[{fields}]}}"#));
            }
            let fields: Vec<String> =
                (0..).zip(records).map(|(i, record)| format!(r#"{{"name":"f{i}","type":{record}}}"#)).collect();
            parse(&record(&fields.join(",")), &[]).unwrap()
        };
        for (twice, length) in [(false, 5_000), (true, 60)] {
            let schema = chain(twice, length);
            assert!(!cannot_read(&schema, &schema).is_empty());
        }
        let schema = chain(true, 8);
        assert!(cannot_read(&schema, &schema).is_empty());
    }
}
