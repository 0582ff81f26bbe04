//! Avro's binary encodings, read with every length checked. What each value takes is inlined: a call costs as much as the value.

use crate::varint;

/// Why bytes cannot be read on.
pub(super) type Broken = String;

/// Values of one record that may take no bytes, so that arrays of nothing do not keep a reader for ever.
const EMPTY_VALUES_MAX: usize = 20_000;
/// A byte may be that many values: records nested around it.
const VALUES_PER_BYTE: usize = 64;

/// A place in the bytes of one record.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes, values_left: EMPTY_VALUES_MAX + VALUES_PER_BYTE * bytes.len() }
    }

    /// The same place once more.
    pub(super) fn fork(&self) -> Cursor<'a> {
        Cursor { rest: self.rest, values_left: self.values_left }
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Counts a value.
    pub(super) fn count(&mut self) -> Result<(), Broken> {
        let left = self.values_left.checked_sub(1);
        self.values_left = left.ok_or("the record holds more values than its bytes can be")?;
        Ok(())
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| {
            format!("the bytes end {} too early: they were written with another schema", length - self.rest.len())
        })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Broken> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(format!("a boolean is {}, not 0 or 1", other[0])),
        }
    }

    /// A zigzag number of at most ten bytes.
    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Broken> {
        match varint::take(&mut self.rest) {
            Ok(bits) => Ok(varint::zigzag(bits)),
            Err(varint::Broken::Cut) => {
                Err("the bytes end within a number: they were written with another schema".into())
            }
            Err(varint::Broken::TooLarge) => Err("a number has more than 64 bits".into()),
        }
    }

    pub(super) fn float(&mut self) -> Result<f32, Broken> {
        let bytes = self.take(4)?.try_into().map_err(|_| "a float of other than four bytes")?;
        Ok(f32::from_bits(u32::from_le_bytes(bytes)))
    }

    pub(super) fn double(&mut self) -> Result<f64, Broken> {
        let bytes = self.take(8)?.try_into().map_err(|_| "a double of other than eight bytes")?;
        Ok(f64::from_bits(u64::from_le_bytes(bytes)))
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| format!("a length is {length}"))?)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Broken> {
        std::str::from_utf8(self.bytes()?).map_err(|error| format!("a string is not UTF-8: {error}"))
    }

    /// An index below `count`: of a union's branch, of an enum's symbol.
    #[inline]
    pub(super) fn index(&mut self, count: usize) -> Result<usize, Broken> {
        let index = self.long()?;
        let found = usize::try_from(index).ok().filter(|index| *index < count);
        found.ok_or_else(|| format!("index {index} of {count} branches or symbols"))
    }

    /// The head of a block of array items or map entries: how many, and the bytes they take when the writer said so.
    pub(super) fn block(&mut self) -> Result<(u64, Option<usize>), Broken> {
        let count = self.long()?;
        if count >= 0 {
            return Ok((count.unsigned_abs(), None));
        }
        let size = self.long()?;
        let size = usize::try_from(size).map_err(|_| format!("a block has {size} bytes"))?;
        Ok((count.unsigned_abs(), Some(size)))
    }
}
