//! A writer's schema bound to the columns of a stream, and the walk over a record.

use super::cursor::{Broken, Cursor};
use super::schema::{AvroSchema, Field, Meaning, Node, NodeId, Octets};
use super::text;
use crate::base64::base64;
use crate::columns::{ColumnBuffer, Scalar};
use crate::fields::Fault;
use crate::json::JsonValue;
use crate::nested::integer;

/// Deepest nesting of values: types may be recursive.
pub(super) const DEPTH_MAX: usize = 64;

/// A compiled schema. Never changes.
pub(crate) struct Program {
    schema: AvroSchema,
    fields: Vec<Bound>,
}

/// One field of a record in the order of the bytes.
struct Bound {
    node: NodeId,
    /// The column it fills.
    column: Option<usize>,
    /// Columns below it, such as `user.id` below `user`; empty when there are none.
    inside: Vec<Bound>,
}

impl Program {
    /// Binds fields to the columns of the same name; a column `user.id` is the field `id` of the record `user`.
    pub(crate) fn compile(schema: AvroSchema, columns: &[&str]) -> Result<Program, String> {
        let Node::Record(fields) = schema.node(schema.root) else {
            return Err("the schema is not a record".into());
        };
        let fields = bind(&schema, fields, "", columns);
        Ok(Program { schema, fields })
    }

    /// What was compiled.
    pub(crate) fn schema(&self) -> &AvroSchema {
        &self.schema
    }

    /// Whether the schema has a field for a column.
    pub(crate) fn binds(&self, column: usize) -> bool {
        fn is_in(bound: &[Bound], column: usize) -> bool {
            bound.iter().any(|field| field.column == Some(column) || is_in(&field.inside, column))
        }
        is_in(&self.fields, column)
    }

    /// Reads one record into the columns; those without a field are left alone.
    pub(crate) fn read(&self, bytes: &[u8], columns: &mut [ColumnBuffer]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(bytes);
        self.fields(&self.fields, &mut cursor, columns)?;
        match cursor.left() {
            0 => Ok(()),
            left => Err(Fault::Broken(format!("{left} bytes are left over: they were written with another schema"))),
        }
    }

    fn fields(&self, bound: &[Bound], cursor: &mut Cursor<'_>, columns: &mut [ColumnBuffer]) -> Result<(), Fault> {
        for field in bound {
            if !field.inside.is_empty() {
                self.inside(field, &mut cursor.fork(), columns)?;
            }
            match field.column {
                Some(index) => {
                    self.column(field.node, cursor, &mut columns[index]).map_err(|fault| match fault {
                        Fault::Type(_, shown) => Fault::Type(index, shown),
                        broken => broken,
                    })?;
                }
                None => skip(&self.schema, field.node, cursor, 0)?,
            }
        }
        Ok(())
    }

    /// Fills the columns below a field; a null leaves them absent.
    fn inside(&self, field: &Bound, cursor: &mut Cursor<'_>, columns: &mut [ColumnBuffer]) -> Result<(), Fault> {
        if let Node::Union(branches) = self.schema.node(field.node) {
            let branch = branches[cursor.index(branches.len())?];
            if !matches!(self.schema.node(branch), Node::Record(_)) {
                return Ok(());
            }
        }
        self.fields(&field.inside, cursor, columns)
    }

    fn column(&self, node: NodeId, cursor: &mut Cursor<'_>, column: &mut ColumnBuffer) -> Result<(), Fault> {
        let mut node = node;
        while let Node::Union(branches) = self.schema.node(node) {
            node = branches[cursor.index(branches.len())?];
        }
        let nested;
        let scalar = match self.schema.node(node) {
            Node::Array(_) | Node::Map(_) | Node::Record(_) => {
                nested = text::json(&self.schema, node, cursor)?;
                if column.push(&JsonValue::Array(&nested)) {
                    return Ok(());
                }
                if !column.is_text() {
                    return Err(Fault::Type(0, "an array, a map or a record".into()));
                }
                Scalar::Text(&nested)
            }
            simple => match scalar(simple, cursor)? {
                Read::Scalar(scalar) => scalar,
                Read::Owned(text) => {
                    nested = text;
                    Scalar::Text(&nested)
                }
            },
        };
        if column.push_scalar(&scalar) { Ok(()) } else { Err(Fault::Type(0, scalar.shown())) }
    }
}

/// A simple value: borrowed from the record, or text made from it.
pub(super) enum Read<'a> {
    Scalar(Scalar<'a>),
    Owned(String),
}

/// Reads a value that holds no other.
#[inline]
pub(super) fn scalar<'a, 's: 'a, 'b: 'a>(node: &'s Node, cursor: &mut Cursor<'b>) -> Result<Read<'a>, Broken> {
    Ok(Read::Scalar(match node {
        Node::Boolean => Scalar::Bool(cursor.boolean()?),
        Node::Int(meaning) | Node::Long(meaning) => {
            let number = cursor.long()?;
            match meaning {
                Meaning::Plain => Scalar::Int(number),
                Meaning::Date => Scalar::Date(number),
                Meaning::Instant { per_ms } => Scalar::Instant(number.div_euclid(*per_ms)),
            }
        }
        Node::Float => Scalar::Float(f64::from(cursor.float()?)),
        Node::Double => Scalar::Float(cursor.double()?),
        Node::Text => Scalar::Text(cursor.text()?),
        Node::Enum(symbols) => Scalar::Text(&symbols[cursor.index(symbols.len())?]),
        Node::Bytes(octets) => return octets_of(*octets, cursor.bytes()?),
        Node::Fixed(size, octets) => return octets_of(*octets, cursor.take(*size)?),
        Node::Null | Node::Array(_) | Node::Map(_) | Node::Union(_) | Node::Record(_) => Scalar::Null,
    }))
}

fn octets_of<'a>(octets: Octets, bytes: &'a [u8]) -> Result<Read<'a>, Broken> {
    Ok(match octets {
        Octets::Plain => Read::Owned(base64(bytes)),
        Octets::Uuid => Read::Owned(text::uuid(bytes)),
        Octets::Decimal { scale } => {
            let unscaled = integer(bytes).ok_or("a decimal has more than 128 bits")?;
            Read::Scalar(Scalar::Decimal { unscaled, scale })
        }
    })
}

/// Goes over a value without looking at it.
fn skip(schema: &AvroSchema, node: NodeId, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), Broken> {
    cursor.count()?;
    if depth > DEPTH_MAX {
        return Err(format!("values are nested deeper than {DEPTH_MAX}"));
    }
    match schema.node(node) {
        Node::Null => {}
        Node::Int(_) | Node::Long(_) | Node::Enum(_) => {
            cursor.long()?;
        }
        Node::Bytes(_) | Node::Text => {
            cursor.bytes()?;
        }
        Node::Boolean => advance(cursor, 1)?,
        Node::Float => advance(cursor, 4)?,
        Node::Double => advance(cursor, 8)?,
        Node::Fixed(size, _) => advance(cursor, *size)?,
        Node::Union(branches) => {
            let branch = branches[cursor.index(branches.len())?];
            skip(schema, branch, cursor, depth + 1)?;
        }
        Node::Record(fields) => {
            for field in fields {
                skip(schema, field.node, cursor, depth + 1)?;
            }
        }
        Node::Array(items) => blocks(cursor, |cursor| skip(schema, *items, cursor, depth + 1))?,
        Node::Map(values) => blocks(cursor, |cursor| {
            cursor.bytes()?;
            skip(schema, *values, cursor, depth + 1)
        })?,
    }
    Ok(())
}

fn advance(cursor: &mut Cursor<'_>, bytes: usize) -> Result<(), Broken> {
    cursor.take(bytes).map(|_| ())
}

fn blocks<'a>(
    cursor: &mut Cursor<'a>,
    mut skip_one: impl FnMut(&mut Cursor<'a>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    loop {
        match cursor.block()? {
            (0, _) => return Ok(()),
            (_, Some(bytes)) => advance(cursor, bytes)?,
            (count, None) => {
                for _ in 0..count {
                    skip_one(cursor)?;
                }
            }
        }
    }
}

fn bind(schema: &AvroSchema, fields: &[Field], prefix: &str, columns: &[&str]) -> Vec<Bound> {
    let mut bound = Vec::new();
    for field in fields {
        let path = format!("{prefix}{}", field.name);
        let column = columns.iter().position(|column| *column == path);
        let below = format!("{path}.");
        let wanted = columns.iter().any(|column| column.starts_with(&below));
        let inside = match schema.record(field.node).filter(|_| wanted) {
            Some(fields) => bind(schema, fields, &below, columns),
            None => Vec::new(),
        };
        bound.push(Bound { node: field.node, column, inside });
    }
    bound
}
