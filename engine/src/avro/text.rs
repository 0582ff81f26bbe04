//! Nested values as JSON text.

use super::cursor::{Broken, Cursor};
use super::program::{DEPTH_MAX, Read, scalar};
use super::schema::{AvroSchema, Node, NodeId};
use crate::nested::{separate, write_scalar, write_text};

/// The JSON of a value.
pub(super) fn json(schema: &AvroSchema, node: NodeId, cursor: &mut Cursor<'_>) -> Result<String, Broken> {
    let mut out = String::new();
    write(schema, node, cursor, (&mut out, 0))?;
    Ok(out)
}

fn write(
    schema: &AvroSchema,
    node: NodeId,
    cursor: &mut Cursor<'_>,
    (out, depth): (&mut String, usize),
) -> Result<(), Broken> {
    cursor.count()?;
    if depth > DEPTH_MAX {
        return Err(format!("values are nested deeper than {DEPTH_MAX}"));
    }
    match schema.node(node) {
        Node::Union(branches) => {
            let branch = branches[cursor.index(branches.len())?];
            write(schema, branch, cursor, (out, depth + 1))
        }
        Node::Record(fields) => {
            out.push('{');
            for (at, field) in fields.iter().enumerate() {
                separate(out, at == 0);
                write_text(&field.name, out);
                out.push(':');
                write(schema, field.node, cursor, (out, depth + 1))?;
            }
            out.push('}');
            Ok(())
        }
        Node::Array(items) => {
            out.push('[');
            each(cursor, |cursor, first| {
                separate(out, first);
                write(schema, *items, cursor, (out, depth + 1))
            })?;
            out.push(']');
            Ok(())
        }
        Node::Map(values) => {
            out.push('{');
            each(cursor, |cursor, first| {
                separate(out, first);
                write_text(cursor.text()?, out);
                out.push(':');
                write(schema, *values, cursor, (out, depth + 1))
            })?;
            out.push('}');
            Ok(())
        }
        simple => {
            simple_json(scalar(simple, cursor)?, out);
            Ok(())
        }
    }
}

fn each(
    cursor: &mut Cursor<'_>,
    mut item: impl FnMut(&mut Cursor<'_>, bool) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let mut first = true;
    loop {
        let (count, _) = cursor.block()?;
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            item(cursor, first)?;
            first = false;
        }
    }
}

fn simple_json(read: Read<'_>, out: &mut String) {
    match read {
        Read::Owned(text) => write_text(&text, out),
        Read::Scalar(scalar) => write_scalar(scalar, out),
    }
}

/// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
pub(super) fn uuid(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}
