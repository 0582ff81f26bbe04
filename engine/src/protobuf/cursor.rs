//! Protobuf's wire format, read with every length checked.

use crate::varint;

/// Why bytes cannot be read on.
pub(super) type Broken = String;

/// Deepest nesting of groups.
const GROUPS_MAX: usize = 64;
/// The largest number of a field.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// A value as it stands in the bytes; what it means, the schema says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// What stands between the two ends of a group.
    Group(&'a [u8]),
}

impl Raw<'_> {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Raw::Varint(_) => "a varint",
            Raw::Fixed32(_) => "four bytes",
            Raw::Fixed64(_) => "eight bytes",
            Raw::Bytes(_) => "bytes with a length",
            Raw::Group(_) => "a group",
        }
    }
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) number: u32,
    pub(super) raw: Raw<'a>,
    /// The field's number and its value, as they stand in the message.
    pub(super) whole: &'a [u8],
}

/// A place in the bytes of a message.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    /// What was not read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field; None at the end.
    pub(super) fn entry(&mut self) -> Result<Option<Entry<'a>>, Broken> {
        let start = self.rest;
        if start.is_empty() {
            return Ok(None);
        }
        let (number, kind) = self.tag()?;
        let raw = match kind {
            3 => Raw::Group(self.group(number)?),
            kind => self.value(kind)?,
        };
        Ok(Some(Entry { number, raw, whole: &start[..start.len() - self.rest.len()] }))
    }

    /// A number of at most 64 bits in at most ten bytes.
    pub(super) fn varint(&mut self) -> Result<u64, Broken> {
        varint::take(&mut self.rest).map_err(|broken| match broken {
            varint::Broken::Cut => "the bytes end within a number".into(),
            varint::Broken::TooLarge => "a number has more than 64 bits".into(),
        })
    }

    fn tag(&mut self) -> Result<(u32, u64), Broken> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..=NUMBER_MAX).contains(&u64::from(*number)));
        Ok((number.ok_or_else(|| format!("a field has the number {}", tag >> 3))?, tag & 7))
    }

    fn value(&mut self, kind: u64) -> Result<Raw<'a>, Broken> {
        match kind {
            0 => self.varint().map(Raw::Varint),
            1 => self.array().map(|bytes| Raw::Fixed64(u64::from_le_bytes(bytes))),
            2 => {
                let length = self.varint()?;
                self.take(length).map(Raw::Bytes)
            }
            4 => Err("a group ends that did not begin".into()),
            5 => self.array().map(|bytes| Raw::Fixed32(u32::from_le_bytes(bytes))),
            other => Err(format!("there is no wire type {other}")),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Broken> {
        let found = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = found.ok_or_else(|| {
            let missing = length.saturating_sub(self.rest.len() as u64);
            format!("the bytes end {missing} too early")
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let found = self.rest.split_first_chunk::<N>();
        let (taken, rest) = found.ok_or("the bytes end within a number")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn group(&mut self, number: u32) -> Result<&'a [u8], Broken> {
        let start = self.rest;
        let mut open = vec![number];
        loop {
            let read = start.len() - self.rest.len();
            match self.tag()? {
                (_, 3) if open.len() >= GROUPS_MAX => {
                    return Err(format!("groups are nested deeper than {GROUPS_MAX}"));
                }
                (number, 3) => open.push(number),
                (number, 4) if open.pop() != Some(number) => return Err(format!("no group {number} was begun")),
                (_, 4) if open.is_empty() => return Ok(&start[..read]),
                (_, 4) => {}
                (_, kind) => {
                    self.value(kind)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Raw<'_>)>, Broken> {
        let mut cursor = Cursor::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = cursor.entry()? {
            found.push((entry.number, entry.raw));
        }
        Ok(found)
    }

    /// The first is the example of Protobuf's own documentation.
    #[test]
    fn fields_come_out_as_they_stand() {
        assert_eq!(all(&[0x08, 0x96, 0x01]), Ok(vec![(1, Raw::Varint(150))]));
        assert_eq!(
            all(&[0x12, 2, b'h', b'i', 0x1d, 1, 0, 0, 0]),
            Ok(vec![(2, Raw::Bytes(b"hi")), (3, Raw::Fixed32(1))])
        );
        assert_eq!(all(&[0x21, 2, 0, 0, 0, 0, 0, 0, 0]), Ok(vec![(4, Raw::Fixed64(2))]));
        let group = [0x2b, 0x08, 0x01, 0x33, 0x34, 0x2c, 0x08, 0x07];
        assert_eq!(all(&group), Ok(vec![(5, Raw::Group(&group[1..5])), (1, Raw::Varint(7))]));
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(all(&[&[0x08][..], &largest].concat()), Ok(vec![(1, Raw::Varint(u64::MAX))]));
        let mut cursor = Cursor::new(&group);
        assert_eq!(cursor.entry().map(|entry| entry.map(|entry| entry.whole)), Ok(Some(&group[..6])));
    }

    #[test]
    fn what_is_broken_says_how() {
        let deep = [0x0b; 1_000];
        let cases: [(&[u8], &str); 11] = [
            (&[0x08], "within a number"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], "more than 64 bits"),
            (&[0x00, 0x01], "the number 0"),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x01], "a field has the number"),
            (&[0x12, 5, b'h', b'i'], "3 too early"),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "too early"),
            (&[0x0d, 1, 2, 3], "within a number"),
            (&[0x0c], "did not begin"),
            (&[0x0e], "no wire type 6"),
            (&[0x0b, 0x14], "no group 2"),
            (&deep, "deeper than"),
        ];
        for (bytes, part) in cases {
            let error = all(bytes).expect_err("it is broken");
            assert!(error.contains(part), "{bytes:?}: {error}");
        }
    }
}
