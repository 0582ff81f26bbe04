//! A writer's message type bound to the columns of a stream, and the walk over a message.
//!
//! Single values go from the bytes straight into their columns; the last one that stands for a field counts, as everywhere
//! in Protobuf. Of lists, maps and messages the bytes are put together first, since they may lie apart.

use std::borrow::Cow;

use protox::prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};

use super::cursor::{Broken, Cursor, Raw};
use super::value::{Given, given, has_default, instant, unsigned};
use crate::base64::base64;
use crate::columns::{ColumnBuffer, Scalar};
use crate::fields::Fault;
use crate::varint::zigzag;

/// Most bytes of one list, map or message that becomes JSON: decoded, it takes many times as much.
const NESTED_BYTES_MAX: usize = 4 << 20;

/// A compiled message type. Never changes.
pub(crate) struct Program {
    /// The message itself, then those that have columns below them.
    levels: Vec<Level>,
}

/// A message whose fields are looked at.
struct Level {
    message: MessageDescriptor,
    /// In the order of their numbers.
    fields: Vec<Bound>,
}

/// A field of a message.
struct Bound {
    number: u32,
    descriptor: FieldDescriptor,
    reads: Reads,
    /// The column it fills.
    column: Option<usize>,
    /// The level of the columns below it, such as `user.id` below `user`.
    inside: Option<usize>,
    /// What the column gets when its message is there and the field is not.
    absent: Option<Given<'static>>,
    /// The other fields of its oneof: only the last of them counts.
    rivals: Vec<usize>,
}

/// How a column's value is read.
enum Reads {
    One(Kind),
    Symbol(Vec<(i32, String)>),
    Timestamp,
    Nested,
}

impl Program {
    /// Binds fields to the columns of the same name; a column `user.id` is the field `id` of the message `user`.
    pub(crate) fn compile(message: &MessageDescriptor, columns: &[&str]) -> Result<Program, String> {
        let mut levels = Vec::new();
        bind(&mut levels, message, "", columns)?;
        Ok(Program { levels })
    }

    /// Whether the message has a field for a column.
    pub(crate) fn binds(&self, column: usize) -> bool {
        self.levels.iter().flat_map(|level| &level.fields).any(|field| field.column == Some(column))
    }

    /// Reads one message into the columns, which have `row` entries; those without a value are left alone.
    pub(crate) fn read(&self, bytes: &[u8], columns: &mut [ColumnBuffer], row: usize) -> Result<(), Fault> {
        let mut reading =
            Reading { program: self, columns, row, present: vec![false; self.levels.len()], nested: Vec::new() };
        reading.message(0, bytes)?;
        reading.finish()
    }
}

/// A message on its way into the columns.
struct Reading<'p, 'c> {
    program: &'p Program,
    columns: &'c mut [ColumnBuffer],
    row: usize,
    /// Per level whether its message is there.
    present: Vec<bool>,
    /// What stands of the nested fields so far: level, field, and all that was written of it.
    nested: Vec<(usize, usize, Vec<u8>)>,
}

impl<'p> Reading<'p, '_> {
    fn message(&mut self, level: usize, bytes: &[u8]) -> Result<(), Fault> {
        self.present[level] = true;
        let fields: &'p [Bound] = &self.program.levels[level].fields;
        let mut cursor = Cursor::new(bytes);
        let mut guess = 0;
        while let Some(entry) = cursor.entry()? {
            let is_guess = fields.get(guess).is_some_and(|field| field.number == entry.number);
            let found =
                if is_guess { Ok(guess) } else { fields.binary_search_by_key(&entry.number, |field| field.number) };
            let Ok(at) = found else { continue };
            guess = at + 1;
            let field = &fields[at];
            for rival in &field.rivals {
                self.forget(level, *rival);
            }
            if let Some(inside) = field.inside {
                self.message(inside, message_bytes(entry.raw, field)?)?;
            }
            let Some(column) = field.column else { continue };
            match &field.reads {
                Reads::Nested => self.collect((level, at), entry.whole)?,
                reads => self.put(column, &one(reads, entry.raw, field)?)?,
            }
        }
        Ok(())
    }

    fn put(&mut self, index: usize, given: &Given<'_>) -> Result<(), Fault> {
        let column = &mut self.columns[index];
        if column.len() > self.row {
            column.truncate(self.row);
        }
        given.push(column).map_err(|shown| Fault::Type(index, shown))
    }

    fn collect(&mut self, (level, at): (usize, usize), whole: &[u8]) -> Result<(), Fault> {
        let found = self.nested.iter().position(|(of, field, _)| (*of, *field) == (level, at));
        let place = found.unwrap_or_else(|| {
            self.nested.push((level, at, Vec::new()));
            self.nested.len() - 1
        });
        let collected = &mut self.nested[place].2;
        if collected.len() + whole.len() > NESTED_BYTES_MAX {
            let name = self.program.levels[level].fields[at].descriptor.name();
            return Err(Fault::Broken(format!("'{name}' has more than {NESTED_BYTES_MAX} bytes")));
        }
        collected.extend_from_slice(whole);
        Ok(())
    }

    /// Takes back what was read of a field.
    fn forget(&mut self, level: usize, at: usize) {
        let field = &self.program.levels[level].fields[at];
        if let Some(index) = field.column {
            self.columns[index].truncate(self.row);
        }
        self.nested.retain(|(of, field, _)| (*of, *field) != (level, at));
        if let Some(inside) = field.inside.filter(|inside| self.present[*inside]) {
            self.present[inside] = false;
            for at in 0..self.program.levels[inside].fields.len() {
                self.forget(inside, at);
            }
        }
    }

    /// Fills in the nested values, and what is not there but has a value all the same.
    fn finish(mut self) -> Result<(), Fault> {
        for (level, at, bytes) in std::mem::take(&mut self.nested) {
            let Level { message, fields } = &self.program.levels[level];
            let field = &fields[at];
            let Some(column) = field.column else { continue };
            let decoded = DynamicMessage::decode(message.clone(), bytes.as_slice());
            let decoded = decoded.map_err(|error| Fault::Broken(error.to_string()))?;
            self.put(column, &given(&decoded.get_field(&field.descriptor), &field.descriptor.kind())?)?;
        }
        let present = std::mem::take(&mut self.present);
        for (level, _) in self.program.levels.iter().zip(present).filter(|(_, present)| *present) {
            for field in &level.fields {
                if let (Some(index), Some(absent)) = (field.column, &field.absent) {
                    self.fill(index, absent);
                }
            }
        }
        Ok(())
    }

    /// A default that is not of the column's type, such as no text for a date, is no value.
    fn fill(&mut self, index: usize, absent: &Given<'static>) {
        let column = &mut self.columns[index];
        if column.len() == self.row && absent.push(column).is_err() {
            column.truncate(self.row);
        }
    }
}

fn wrong_wire(raw: Raw<'_>, field: &Bound) -> Broken {
    let (name, kind) = (field.descriptor.name(), field.descriptor.kind());
    format!("'{name}' is {}, the schema has {kind:?}: it was written with another schema", raw.kind())
}

fn message_bytes<'a>(raw: Raw<'a>, field: &Bound) -> Result<&'a [u8], Broken> {
    match (raw, field.descriptor.is_group()) {
        (Raw::Bytes(bytes), false) | (Raw::Group(bytes), true) => Ok(bytes),
        (other, _) => Err(wrong_wire(other, field)),
    }
}

/// A value that holds no other.
fn one<'a, 'f: 'a, 'b: 'a>(reads: &'f Reads, raw: Raw<'b>, field: &Bound) -> Result<Given<'a>, Broken> {
    let found = match (reads, raw) {
        (Reads::Timestamp, _) => timestamp(message_bytes(raw, field)?)?,
        (Reads::Symbol(symbols), Raw::Varint(bits)) => {
            let number = bits as i32;
            let known = symbols.iter().find(|(declared, _)| *declared == number);
            let name = known.map_or_else(|| Cow::Owned(number.to_string()), |(_, name)| Cow::Borrowed(name.as_str()));
            return Ok(Given::Symbol(name, number));
        }
        (Reads::One(Kind::String), Raw::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes);
            Scalar::Text(text.map_err(|error| format!("'{}' is not UTF-8: {error}", field.descriptor.name()))?)
        }
        (Reads::One(Kind::Bytes), Raw::Bytes(bytes)) => return Ok(Given::Owned(base64(bytes))),
        (Reads::One(kind), raw) => number(kind, raw).ok_or_else(|| wrong_wire(raw, field))?,
        (_, raw) => return Err(wrong_wire(raw, field)),
    };
    Ok(Given::Scalar(found))
}

fn number(kind: &Kind, raw: Raw<'_>) -> Option<Scalar<'static>> {
    Some(match (kind, raw) {
        (Kind::Bool, Raw::Varint(bits)) => Scalar::Bool(bits != 0),
        (Kind::Int32, Raw::Varint(bits)) => Scalar::Int(i64::from(bits as i32)),
        (Kind::Int64, Raw::Varint(bits)) => Scalar::Int(bits as i64),
        (Kind::Uint32, Raw::Varint(bits)) => Scalar::Int(i64::from(bits as u32)),
        (Kind::Uint64, Raw::Varint(bits)) => unsigned(bits),
        (Kind::Sint32, Raw::Varint(bits)) => Scalar::Int(zigzag(u64::from(bits as u32))),
        (Kind::Sint64, Raw::Varint(bits)) => Scalar::Int(zigzag(bits)),
        (Kind::Fixed32, Raw::Fixed32(bits)) => Scalar::Int(i64::from(bits)),
        (Kind::Sfixed32, Raw::Fixed32(bits)) => Scalar::Int(i64::from(bits as i32)),
        (Kind::Float, Raw::Fixed32(bits)) => Scalar::Float(f64::from(f32::from_bits(bits))),
        (Kind::Fixed64, Raw::Fixed64(bits)) => unsigned(bits),
        (Kind::Sfixed64, Raw::Fixed64(bits)) => Scalar::Int(bits as i64),
        (Kind::Double, Raw::Fixed64(bits)) => Scalar::Float(f64::from_bits(bits)),
        _ => return None,
    })
}

/// Seconds and nanoseconds. A Timestamp that is written twice is not merged, the last one counts: no serializer writes two.
fn timestamp(bytes: &[u8]) -> Result<Scalar<'static>, Broken> {
    let mut cursor = Cursor::new(bytes);
    let (mut seconds, mut nanos) = (0, 0);
    while let Some(entry) = cursor.entry()? {
        match (entry.number, entry.raw) {
            (1, Raw::Varint(bits)) => seconds = bits as i64,
            (2, Raw::Varint(bits)) => nanos = i64::from(bits as i32),
            _ => {}
        }
    }
    Ok(instant(seconds, nanos))
}

/// Adds the level of a message, and those below it that have columns; gives its index.
fn bind(levels: &mut Vec<Level>, message: &MessageDescriptor, prefix: &str, columns: &[&str]) -> Result<usize, String> {
    let level = levels.len();
    levels.push(Level { message: message.clone(), fields: Vec::new() });
    let mut fields = Vec::new();
    for descriptor in message.fields() {
        let path = format!("{prefix}{}", descriptor.name());
        let below = format!("{path}.");
        let single = !descriptor.is_list() && !descriptor.is_map();
        let inside = match descriptor.kind() {
            Kind::Message(inner) if single && columns.iter().any(|column| column.starts_with(&below)) => {
                Some(bind(levels, &inner, &below, columns)?)
            }
            _ => None,
        };
        fields.push(Bound {
            number: descriptor.number(),
            reads: reads(&descriptor),
            column: columns.iter().position(|column| *column == path),
            inside,
            absent: match has_default(&descriptor) {
                true => Some(given(&descriptor.default_value(), &descriptor.kind())?),
                false => None,
            },
            rivals: rivals(message, &descriptor),
            descriptor,
        });
    }
    levels[level].fields = fields;
    Ok(level)
}

fn reads(field: &FieldDescriptor) -> Reads {
    if field.is_list() || field.is_map() {
        return Reads::Nested;
    }
    match field.kind() {
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => Reads::Timestamp,
        Kind::Message(_) => Reads::Nested,
        Kind::Enum(list) => {
            let values = &list.enum_descriptor_proto().value;
            Reads::Symbol(values.iter().map(|value| (value.number(), value.name().to_owned())).collect())
        }
        kind => Reads::One(kind),
    }
}

/// Where the other fields of the same oneof stand.
fn rivals(message: &MessageDescriptor, field: &FieldDescriptor) -> Vec<usize> {
    let Some(oneof) = field.containing_oneof() else { return Vec::new() };
    let is_rival = |other: &FieldDescriptor| {
        other.number() != field.number() && other.containing_oneof().is_some_and(|theirs| theirs == oneof)
    };
    message.fields().enumerate().filter(|(_, other)| is_rival(other)).map(|(at, _)| at).collect()
}
