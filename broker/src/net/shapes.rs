//! Checks the shape of a request before the kafka-protocol crate decodes it.
//!
//! That crate reserves memory for a list by the count it reads from the wire: eight bytes can ask it for gigabytes,
//! and a failed allocation ends the process. So each request is walked first, by a table of our own
//! (`shapes_table.rs`): every length and count must fit in the bytes that are left, known tagged fields must be as
//! long as they claim (the crate does not look), and the number of list elements, which decoding turns into structs
//! larger than their bytes, has a bound. Bytes after the request are passed over, as Kafka does.

use super::shapes_table;

/// Most list elements and tagged fields in one request; 262,144 of them decode to less than 64 MiB.
pub(crate) const ELEMENTS_MAX: usize = 1 << 18;

/// The shape of one request, in all its versions.
pub(crate) struct Shape {
    /// First version with compact lengths and tagged fields.
    pub(super) flexible_from: i16,
    /// The fields in the order of the wire.
    pub(super) fields: &'static [Field],
}

/// One field of a request or of a list's element.
pub(crate) struct Field {
    kind: Kind,
    since: i16,
    until: i16,
    tag: Option<u32>,
}

enum Kind {
    /// A number, boolean or uuid of this many bytes.
    Fixed(usize),
    /// A string, null or not.
    Text,
    /// Bytes or records, null or not.
    Blob,
    /// A list of values of this many bytes each.
    FixedList(usize),
    /// A list of strings.
    TextList,
    /// A list of structs.
    List(&'static [Field]),
    /// One struct.
    Struct(&'static [Field]),
    /// A byte that says whether there is one, and one struct.
    Nullable(&'static [Field]),
}

impl Field {
    const fn new(kind: Kind) -> Field {
        Field { kind, since: 0, until: i16::MAX, tag: None }
    }

    /// A number, boolean or uuid of `size` bytes.
    pub(super) const fn fixed(size: usize) -> Field {
        Field::new(Kind::Fixed(size))
    }

    /// A string, null or not.
    pub(super) const fn text() -> Field {
        Field::new(Kind::Text)
    }

    /// Bytes or records, null or not.
    pub(super) const fn blob() -> Field {
        Field::new(Kind::Blob)
    }

    /// A list of values of `size` bytes each.
    pub(super) const fn fixed_list(size: usize) -> Field {
        Field::new(Kind::FixedList(size))
    }

    /// A list of strings.
    pub(super) const fn text_list() -> Field {
        Field::new(Kind::TextList)
    }

    /// A list of structs.
    pub(super) const fn list(fields: &'static [Field]) -> Field {
        Field::new(Kind::List(fields))
    }

    /// One struct in place.
    pub(super) const fn structure(fields: &'static [Field]) -> Field {
        Field::new(Kind::Struct(fields))
    }

    /// One struct in place, or null.
    pub(super) const fn nullable(fields: &'static [Field]) -> Field {
        Field::new(Kind::Nullable(fields))
    }

    /// The same field, present from `version` on.
    pub(super) const fn since(self, version: i16) -> Field {
        Field { since: version, ..self }
    }

    /// The same field, present up to and including `version`.
    pub(super) const fn until(self, version: i16) -> Field {
        Field { until: version, ..self }
    }

    /// The same field, but tagged with `tag`.
    pub(super) const fn tagged(self, tag: u32) -> Field {
        Field { tag: Some(tag), ..self }
    }

    fn is_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }
}

/// Walks the body of a request of `key` in `version` and returns the number of list elements in it.
///
/// The error says what is wrong, for the one line in the log before the connection is closed.
pub(crate) fn check(key: i16, version: i16, body: &[u8]) -> Result<usize, String> {
    let shape = shapes_table::shape(key).ok_or_else(|| format!("no shape is known for api key {key}"))?;
    let mut walk = Walk { left: body, version, flexible: version >= shape.flexible_from, elements: 0 };
    walk.structure(shape.fields)?;
    Ok(walk.elements)
}

/// Skips the tagged fields at the start of `bytes` (of a request header, where none is known) and returns the rest.
pub(crate) fn skip_tags(bytes: &[u8]) -> Result<&[u8], String> {
    let mut walk = Walk { left: bytes, version: 0, flexible: true, elements: 0 };
    walk.tags(&[])?;
    Ok(walk.left)
}

struct Walk<'a> {
    left: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &'static [Field]) -> Result<(), String> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.value(&field.kind)?;
            }
        }
        if self.flexible { self.tags(fields) } else { Ok(()) }
    }

    fn value(&mut self, kind: &'static Kind) -> Result<(), String> {
        match kind {
            Kind::Fixed(size) => self.skip(*size),
            Kind::Text => {
                let length = self.text_length()?;
                self.skip(length)
            }
            Kind::Blob => {
                let length = self.length()?;
                self.skip(length)
            }
            Kind::FixedList(size) => {
                let count = self.count()?;
                self.skip(count.saturating_mul(*size))
            }
            Kind::TextList => {
                for _ in 0..self.count()? {
                    let length = self.text_length()?;
                    self.skip(length)?;
                }
                Ok(())
            }
            Kind::List(fields) => {
                for _ in 0..self.count()? {
                    self.structure(fields)?;
                }
                Ok(())
            }
            Kind::Struct(fields) => self.structure(fields),
            Kind::Nullable(fields) => match i8::from_be_bytes(self.array()?) {
                -1 => Ok(()),
                1 => self.structure(fields),
                other => Err(format!("{other} says neither that a structure is there nor that it is not")),
            },
        }
    }

    /// The tagged fields at the end of a struct. Each counts as an element: decoding keeps it in a map.
    fn tags(&mut self, fields: &'static [Field]) -> Result<(), String> {
        let count = self.varint()? as usize;
        self.add_elements(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let known = fields.iter().find(|f| f.tag == Some(tag) && f.is_in(self.version));
            let after = self.left.len().checked_sub(size).ok_or_else(|| self.beyond(size))?;
            match known {
                None => self.skip(size)?,
                Some(field) => self.value(&field.kind)?,
            }
            if self.left.len() != after {
                return Err(format!("tagged field {tag} is not as long as the {size} bytes it claims"));
            }
        }
        Ok(())
    }

    /// The count of a list; null is 0. It fits in the bytes left, as each element has at least one.
    fn count(&mut self) -> Result<usize, String> {
        let count = self.length()?;
        if count > self.left.len() {
            return Err(format!("a list claims {count} elements, {} bytes are left", self.left.len()));
        }
        self.add_elements(count)?;
        Ok(count)
    }

    fn add_elements(&mut self, count: usize) -> Result<(), String> {
        self.elements = self.elements.saturating_add(count);
        if self.elements > ELEMENTS_MAX {
            return Err(format!("more than {ELEMENTS_MAX} list elements in one request; ask for less at once"));
        }
        Ok(())
    }

    /// A length of bytes or of a list; null is 0.
    fn length(&mut self) -> Result<usize, String> {
        if self.flexible {
            return Ok((self.varint()?).saturating_sub(1) as usize);
        }
        let length = i32::from_be_bytes(self.array()?);
        non_negative(i64::from(length))
    }

    fn text_length(&mut self) -> Result<usize, String> {
        if self.flexible {
            return self.length();
        }
        let length = i16::from_be_bytes(self.array()?);
        non_negative(i64::from(length))
    }

    /// An unsigned varint that fits in 32 bits.
    fn varint(&mut self) -> Result<u32, String> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && (bits > 0x0f || byte >= 0x80) {
                return Err("a variable-length number is larger than 32 bits".to_owned());
            }
            value |= bits << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.left.split_first_chunk::<N>().ok_or_else(|| self.beyond(N))?;
        let head = *head;
        self.left = rest;
        Ok(head)
    }

    fn skip(&mut self, size: usize) -> Result<(), String> {
        self.left = self.left.get(size..).ok_or_else(|| self.beyond(size))?;
        Ok(())
    }

    fn beyond(&self, size: usize) -> String {
        format!("a field claims {size} bytes, {} are left", self.left.len())
    }
}

/// A length on the wire: -1 is null and takes no bytes.
fn non_negative(length: i64) -> Result<usize, String> {
    match length {
        -1 => Ok(0),
        n => usize::try_from(n).map_err(|_| format!("a length is negative: {n}")),
    }
}
