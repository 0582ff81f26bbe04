//! The JSON of an Avro schema → nodes that name each other by index, so that a recursive type is no special case.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Most nodes of a schema with all that it refers to.
const NODES_MAX: usize = 20_000;
/// Deepest nesting of a schema's text.
const DEPTH_MAX: usize = 64;

/// Index into [`AvroSchema::nodes`].
pub(crate) type NodeId = usize;

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Plain,
    /// Days since 1970.
    Date,
    /// Since 1970, this many units per millisecond (1: milliseconds, 1000: microseconds).
    Instant {
        per_ms: i64,
    },
}

/// What bytes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Octets {
    Plain,
    /// A big-endian two's complement with this many decimal places.
    Decimal {
        scale: u32,
    },
    /// The sixteen bytes of a UUID.
    Uuid,
}

/// One type of a schema.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Null,
    Boolean,
    Int(Meaning),
    Long(Meaning),
    Float,
    Double,
    Bytes(Octets),
    Text,
    Fixed(usize, Octets),
    Enum(Vec<String>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Vec<Field>),
}

/// A field of a record.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) node: NodeId,
    /// What a record that is made from JSON gets when it does not have the field.
    pub(crate) default: Option<Value>,
}

/// A schema that was read. Never changes.
#[derive(Debug)]
pub(crate) struct AvroSchema {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: NodeId,
}

impl AvroSchema {
    /// Reads a schema; `referred` are the texts of those it refers to, deepest first.
    pub(crate) fn parse<'a>(text: &str, referred: impl Iterator<Item = &'a str>) -> Result<AvroSchema, String> {
        let mut reader = Reader { nodes: Vec::new(), names: HashMap::new() };
        for text in referred {
            reader.whole(text)?;
        }
        let root = reader.whole(text)?;
        Ok(AvroSchema { nodes: reader.nodes, root })
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The names of a record's fields.
    pub(crate) fn field_names(&self) -> Vec<String> {
        self.record(self.root).unwrap_or_default().iter().map(|field| field.name.clone()).collect()
    }

    /// The fields of a record, or of the record in a union with null.
    pub(crate) fn record(&self, id: NodeId) -> Option<&[Field]> {
        match self.node(id) {
            Node::Record(fields) => Some(fields),
            Node::Union(branches) => {
                let mut records = branches.iter().filter_map(|branch| match self.node(*branch) {
                    Node::Record(fields) => Some(fields.as_slice()),
                    _ => None,
                });
                records.next().filter(|_| records.next().is_none())
            }
            _ => None,
        }
    }
}

struct Reader {
    nodes: Vec<Node>,
    /// Full name → node.
    names: HashMap<String, NodeId>,
}

impl Reader {
    fn whole(&mut self, text: &str) -> Result<NodeId, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("the schema is not JSON: {error}"))?;
        self.node(&value, "", 0)
    }

    fn add(&mut self, node: Node) -> Result<NodeId, String> {
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("the schema has more than {NODES_MAX} types"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn node(&mut self, value: &Value, namespace: &str, depth: usize) -> Result<NodeId, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the schema is nested deeper than {DEPTH_MAX} types"));
        }
        match value {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => {
                let branches: Result<Vec<NodeId>, String> =
                    branches.iter().map(|branch| self.node(branch, namespace, depth + 1)).collect();
                self.add(Node::Union(branches?))
            }
            Value::Object(map) => self.object(map, namespace, depth),
            _ => Err("a type is neither a name, nor an object, nor a list".into()),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<NodeId, String> {
        if let Some(node) = primitive(name, &Map::new()) {
            return self.add(node);
        }
        let found = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
        found.copied().ok_or_else(|| format!("the type '{name}' is not defined"))
    }

    fn object(&mut self, map: &Map<String, Value>, namespace: &str, depth: usize) -> Result<NodeId, String> {
        let Some(Value::String(kind)) = map.get("type") else {
            let inner = map.get("type").ok_or("a type has no \"type\"")?;
            return self.node(inner, namespace, depth + 1);
        };
        match kind.as_str() {
            "array" => {
                let items = self.node(map.get("items").ok_or("an array has no \"items\"")?, namespace, depth + 1)?;
                self.add(Node::Array(items))
            }
            "map" => {
                let values = self.node(map.get("values").ok_or("a map has no \"values\"")?, namespace, depth + 1)?;
                self.add(Node::Map(values))
            }
            "record" | "error" => self.record(map, namespace, depth),
            "enum" => {
                let symbols = map.get("symbols").and_then(Value::as_array).ok_or("an enum has no \"symbols\"")?;
                let symbols = symbols.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                let node = self.add(Node::Enum(symbols))?;
                self.define(map, namespace, node).map(|_| node)
            }
            "fixed" => {
                let size = map.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or("a fixed has no \"size\"")?;
                let node = self.add(Node::Fixed(size, octets(map, size == 16)))?;
                self.define(map, namespace, node).map(|_| node)
            }
            name => match primitive(name, map) {
                Some(node) => self.add(node),
                None => self.named(name, namespace),
            },
        }
    }

    fn record(&mut self, map: &Map<String, Value>, namespace: &str, depth: usize) -> Result<NodeId, String> {
        // The name is known before the fields are read: a field may be of the record's own type.
        let node = self.add(Node::Null)?;
        let inside = self.define(map, namespace, node)?;
        let mut fields = Vec::new();
        for field in map.get("fields").and_then(Value::as_array).ok_or("a record has no \"fields\"")? {
            let name = field.get("name").and_then(Value::as_str).ok_or("a field has no \"name\"")?;
            let kind = field.get("type").ok_or_else(|| format!("the field '{name}' has no \"type\""))?;
            // `{"name": …, "type": "long", "logicalType": …}` does not make the field logical: only the type can be.
            let kind = self.node(kind, &inside, depth + 1)?;
            fields.push(Field { name: name.into(), node: kind, default: field.get("default").cloned() });
        }
        self.nodes[node] = Node::Record(fields);
        Ok(node)
    }

    /// Gives a node its name; the namespace that holds inside of it.
    fn define(&mut self, map: &Map<String, Value>, namespace: &str, node: NodeId) -> Result<String, String> {
        let name = map.get("name").and_then(Value::as_str).ok_or("a record, enum or fixed has no \"name\"")?;
        let own = map.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, own);
        let inside = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        self.names.insert(full, node);
        Ok(inside)
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.into() } else { format!("{namespace}.{name}") }
}

fn primitive(name: &str, attributes: &Map<String, Value>) -> Option<Node> {
    let logical = attributes.get("logicalType").and_then(Value::as_str).unwrap_or_default();
    Some(match name {
        "null" => Node::Null,
        "boolean" => Node::Boolean,
        "int" => Node::Int(if logical == "date" { Meaning::Date } else { Meaning::Plain }),
        "long" => Node::Long(match logical {
            "timestamp-millis" | "local-timestamp-millis" => Meaning::Instant { per_ms: 1 },
            "timestamp-micros" | "local-timestamp-micros" => Meaning::Instant { per_ms: 1_000 },
            "timestamp-nanos" | "local-timestamp-nanos" => Meaning::Instant { per_ms: 1_000_000 },
            _ => Meaning::Plain,
        }),
        "float" => Node::Float,
        "double" => Node::Double,
        "bytes" => Node::Bytes(octets(attributes, false)),
        "string" => Node::Text,
        _ => return None,
    })
}

fn octets(attributes: &Map<String, Value>, may_be_uuid: bool) -> Octets {
    match attributes.get("logicalType").and_then(Value::as_str) {
        Some("decimal") => {
            let scale = attributes.get("scale").and_then(Value::as_u64).unwrap_or(0);
            Octets::Decimal { scale: u32::try_from(scale).unwrap_or(u32::MAX) }
        }
        Some("uuid") if may_be_uuid => Octets::Uuid,
        _ => Octets::Plain,
    }
}
