//! The manifest's keys and values, byte by byte. All integers are big-endian, so that keys sort by number.
//!
//! ```text
//! family lake
//! "e"                                          → u64, the fencing epoch: one more at each start
//! "f" ++ log u32 ++ first u64 ++ ordinal u32   → one published file
//! "m" ++ log u32                               → the mark of a partition
//! "p" ++ log u32                               → the range that is being written
//! "r" ++ log u32 ++ first u64                  → one file of whole records, drawn in raw/bytes.rs
//! "t", "w"                                     → tables that SQL writes, drawn in transform/bytes.rs
//!
//! file                          mark                      plan
//!  0  1 version, 1              0  1 version, 1           0  1 version, 1
//!  1  8 last offset             1  8 mark                 1  8 first offset
//!  9  8 rows                    9  8 when it moved        9  8 last offset
//! 17  8 bytes                  17                        17  8 fencing epoch
//! 25  8 least event time                                 25
//! 33  8 largest event time
//! 41  8 when it was published
//! 49  2 bytes of the path, then the path
//!     2 number of levels, outermost first; each:
//!         2 bytes of the column's name, then the name
//!         1 1: a part of the event time, 0: a declared column
//!         1 kind: 0 null · 1 text: 4 bytes of text, text · 2 whole number: 8 · 3 boolean: 1 · 4 days since 1970: 4
//! ```
//! Times are ms since 1970; an event time of -2^63 means that all rows have none.

use std::sync::Arc;

use broker::{LogId, Offset, TimestampMs};

use crate::error::{LakeError, LakeErrorKind, Result};
use crate::slice::{Level, Value};

/// Version of every value here, and the least of those drawn elsewhere. A newer one is refused.
pub const VERSION: u8 = 1;
/// Key of the fencing epoch.
pub const EPOCH_KEY: &[u8] = b"e";
const FILE_TAG: u8 = b'f';
const MARK_TAG: u8 = b'm';
const PLAN_TAG: u8 = b'p';
const NO_TIME: i64 = i64::MIN;

/// A published file. Holds: the rows of one slice of offsets `first..=last` of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// First offset of the range that was settled, with or without a row in this slice.
    pub first: Offset,
    /// Last offset of that range.
    pub last: Offset,
    /// Number of the slice within the range.
    pub ordinal: u32,
    /// Rows in the file, at least one.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Least and largest event time in ms since 1970; none when all are null.
    pub event_ms: Option<(TimestampMs, TimestampMs)>,
    /// When it was published, in ms since 1970.
    pub published_ms: TimestampMs,
    /// Where it lies below the lake's root.
    pub path: String,
    /// The slice: values of the columns that are not in the file.
    pub levels: Vec<Level>,
}

/// How far a partition is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The first offset that is not settled.
    pub offset: Offset,
    /// When it moved last, in ms since 1970.
    pub moved_ms: TimestampMs,
}

/// The range that a partition's next files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its first offset: the mark.
    pub first: Offset,
    /// Its last offset.
    pub last: Offset,
    /// Fencing epoch under which it was made.
    pub epoch: u64,
}

/// Key of a file.
pub fn file_key(log: LogId, first: Offset, ordinal: u32) -> Vec<u8> {
    [&[FILE_TAG][..], &log.0.to_be_bytes(), &first.to_be_bytes(), &ordinal.to_be_bytes()].concat()
}

/// Key of a partition's mark.
pub fn mark_key(log: LogId) -> Vec<u8> {
    [&[MARK_TAG][..], &log.0.to_be_bytes()].concat()
}

/// Key of a partition's plan.
pub fn plan_key(log: LogId) -> Vec<u8> {
    [&[PLAN_TAG][..], &log.0.to_be_bytes()].concat()
}

/// The range of all keys of a kind: files, marks, plans.
pub fn ranges() -> [([u8; 1], [u8; 1]); 3] {
    [FILE_TAG, MARK_TAG, PLAN_TAG].map(|tag| ([tag], [tag + 1]))
}

/// The range of one partition's files.
pub fn files_of(log: LogId) -> (Vec<u8>, Vec<u8>) {
    let key = |log: u32| [&[FILE_TAG][..], &log.to_be_bytes()].concat();
    (key(log.0), key(log.0.saturating_add(1)))
}

/// The partition in any key but the epoch's.
///
/// # Errors
/// `Broker` when it is no such key.
pub fn log_of(key: &[u8]) -> Result<LogId> {
    Ok(LogId(Reader { left: key.get(1..).unwrap_or(&[]), what: "key" }.u32()?))
}

impl FileEntry {
    /// Least and largest event time of several; none when all are null.
    pub fn times_of(files: &[Arc<FileEntry>]) -> Option<(TimestampMs, TimestampMs)> {
        let times = files.iter().filter_map(|file| file.event_ms);
        times.reduce(|(least, largest), (low, high)| (least.min(low), largest.max(high)))
    }

    /// The value of a file.
    ///
    /// # Errors
    /// `Bug` when a part is too long for its length field.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (least, largest) = self.event_ms.unwrap_or((NO_TIME, NO_TIME));
        let mut out = vec![VERSION];
        for number in [self.last, signed(self.rows)?, signed(self.bytes)?, least, largest, self.published_ms] {
            out.extend(number.to_be_bytes());
        }
        put_short(&mut out, &self.path)?;
        put_levels(&mut out, &self.levels)?;
        Ok(out)
    }

    /// Reads a file's key and value.
    ///
    /// # Errors
    /// `Broker` when they are damaged or of a newer version.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        let mut key = Reader { left: key.get(5..).unwrap_or(&[]), what: "file key" };
        let (first, ordinal) = (key.i64()?, key.u32()?);
        let mut value = Reader::new(value, "file")?;
        let (last, rows, bytes) = (value.i64()?, value.unsigned()?, value.unsigned()?);
        let (least, largest, published_ms) = (value.i64()?, value.i64()?, value.i64()?);
        let path = value.short()?;
        let levels = value.levels()?;
        value.end()?;
        let event_ms = (least != NO_TIME).then_some((least, largest));
        Ok(Self { first, last, ordinal, rows, bytes, event_ms, published_ms, path, levels })
    }
}

impl Mark {
    /// The value of a mark.
    pub fn encode(&self) -> Vec<u8> {
        [&[VERSION][..], &self.offset.to_be_bytes(), &self.moved_ms.to_be_bytes()].concat()
    }

    /// Reads a mark's value.
    ///
    /// # Errors
    /// `Broker` when it is damaged or of a newer version.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut value = Reader::new(value, "mark")?;
        let mark = Self { offset: value.i64()?, moved_ms: value.i64()? };
        value.end()?;
        Ok(mark)
    }
}

impl Plan {
    /// The value of a plan.
    pub fn encode(&self) -> Vec<u8> {
        [&[VERSION][..], &self.first.to_be_bytes(), &self.last.to_be_bytes(), &self.epoch.to_be_bytes()].concat()
    }

    /// Reads a plan's value.
    ///
    /// # Errors
    /// `Broker` when it is damaged or of a newer version.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut value = Reader::new(value, "plan")?;
        let plan = Self { first: value.i64()?, last: value.i64()?, epoch: value.u64()? };
        value.end()?;
        Ok(plan)
    }
}

/// Reads a fencing epoch.
///
/// # Errors
/// `Broker` when it is damaged.
pub fn epoch_of(value: &[u8]) -> Result<u64> {
    let mut value = Reader { left: value, what: "fencing epoch" };
    let epoch = value.u64()?;
    value.end()?;
    Ok(epoch)
}

/// Appends a slice.
pub(crate) fn put_levels(out: &mut Vec<u8>, levels: &[Level]) -> Result<()> {
    let count = u16::try_from(levels.len()).map_err(|_| too_long("slice"))?;
    out.extend(count.to_be_bytes());
    for level in levels {
        put_short(out, &level.column)?;
        out.push(level.derived.into());
        put_value(out, &level.value)?;
    }
    Ok(())
}

/// Appends a text with its length in two bytes.
pub(crate) fn put_short(out: &mut Vec<u8>, text: &str) -> Result<()> {
    out.extend(u16::try_from(text.len()).map_err(|_| too_long("name"))?.to_be_bytes());
    out.extend(text.as_bytes());
    Ok(())
}

fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    match value {
        Value::Null => out.push(0),
        Value::Text(text) => {
            out.push(1);
            out.extend(u32::try_from(text.len()).map_err(|_| too_long("slice value"))?.to_be_bytes());
            out.extend(text.as_bytes());
        }
        Value::Int(whole) => {
            out.push(2);
            out.extend(whole.to_be_bytes());
        }
        Value::Bool(flag) => out.extend([3, u8::from(*flag)]),
        Value::Date(days) => {
            out.push(4);
            out.extend(days.to_be_bytes());
        }
    }
    Ok(())
}

/// Reads a value from its front.
pub(crate) struct Reader<'a> {
    left: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(value: &'a [u8], what: &'static str) -> Result<Self> {
        Self::up_to(VERSION, value, what).map(|(_, reader)| reader)
    }

    /// Reads a value of any version up to `newest`; says of which it is.
    pub(crate) fn up_to(newest: u8, value: &'a [u8], what: &'static str) -> Result<(u8, Self)> {
        let mut reader = Self { left: value, what };
        match reader.u8()? {
            version if (VERSION..=newest).contains(&version) => Ok((version, reader)),
            newer => {
                let message = format!(
                    "the lake's manifest has a {what} of version {newer}, this millpond reads {newest}: start the \
                     newer version that wrote it"
                );
                Err(LakeError::new(LakeErrorKind::Broker, message))
            }
        }
    }

    /// Reads a key, or a part of one; keys have no version.
    pub(crate) fn of_key(key: &'a [u8], what: &'static str) -> Self {
        Self { left: key, what }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.left.split_at_checked(count).ok_or_else(|| damaged(self.what))?;
        self.left = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(*self.take(N)?.first_chunk().expect("take gave that many"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64> {
        u64::try_from(self.i64()?).map_err(|_| damaged(self.what))
    }

    fn text(&mut self, bytes: usize) -> Result<String> {
        String::from_utf8(self.take(bytes)?.to_vec()).map_err(|_| damaged(self.what))
    }

    pub(crate) fn short(&mut self) -> Result<String> {
        let bytes = self.u16()?;
        self.text(bytes.into())
    }

    pub(crate) fn levels(&mut self) -> Result<Vec<Level>> {
        let mut levels = Vec::new();
        for _ in 0..self.u16()? {
            let (column, derived) = (self.short()?, self.u8()? == 1);
            levels.push(Level { column, derived, value: self.value()? });
        }
        Ok(levels)
    }

    fn value(&mut self) -> Result<Value> {
        Ok(match self.u8()? {
            0 => Value::Null,
            1 => {
                let bytes = usize::try_from(self.u32()?).map_err(|_| damaged(self.what))?;
                Value::Text(self.text(bytes)?)
            }
            2 => Value::Int(self.i64()?),
            3 => Value::Bool(self.u8()? == 1),
            4 => Value::Date(i32::from_be_bytes(self.array()?)),
            _ => return Err(damaged(self.what)),
        })
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.left.is_empty() { Ok(()) } else { Err(damaged(self.what)) }
    }
}

pub(crate) fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| too_long("count"))
}

fn too_long(what: &str) -> LakeError {
    LakeError::bug(format!("a {what} does not fit its field in the manifest"))
}

pub(crate) fn damaged(what: &str) -> LakeError {
    let message = format!("the lake's manifest has a damaged {what}: restore the data directory from a copy");
    LakeError::new(LakeErrorKind::Broker, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn entry() -> FileEntry {
        let level = |column: &str, derived, value| Level { column: column.into(), derived, value };
        FileEntry {
            first: 7,
            last: 9,
            ordinal: 1,
            rows: 3,
            bytes: 258,
            event_ms: Some((-1, 2)),
            published_ms: 5,
            path: "t/a".into(),
            levels: vec![
                level("d", true, Value::Date(-2)),
                level("g", false, Value::Text("ö".into())),
                level("n", false, Value::Null),
                level("i", false, Value::Int(-3)),
                level("b", false, Value::Bool(true)),
            ],
        }
    }

    #[test]
    fn stored_bytes_are_as_drawn() {
        let golden = "01\
                      0000000000000009\
                      0000000000000003\
                      0000000000000102\
                      ffffffffffffffff\
                      0000000000000002\
                      0000000000000005\
                      0003742f61\
                      0005\
                      00016401\
                      04fffffffe\
                      00016700\
                      0100000002c3b6\
                      00016e00\
                      00\
                      00016900\
                      02fffffffffffffffd\
                      00016200\
                      0301";
        let key = file_key(LogId(3), 7, 1);
        assert_eq!(hex(&key), "6600000003000000000000000700000001");
        assert_eq!(hex(&entry().encode().unwrap()), golden);
        assert_eq!(FileEntry::decode(&key, &entry().encode().unwrap()).unwrap(), entry());
        assert_eq!(log_of(&key).unwrap(), LogId(3));

        let mark = Mark { offset: 258, moved_ms: 1 };
        assert_eq!(hex(&mark.encode()), "0100000000000001020000000000000001");
        assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
        assert_eq!(hex(&mark_key(LogId(3))), "6d00000003");

        let plan = Plan { first: 1, last: 2, epoch: 3 };
        assert_eq!(hex(&plan.encode()), "01000000000000000100000000000000020000000000000003");
        assert_eq!(Plan::decode(&plan.encode()).unwrap(), plan);
        assert_eq!(hex(&plan_key(LogId(3))), "7000000003");
        assert_eq!(epoch_of(&5_u64.to_be_bytes()).unwrap(), 5);
    }

    #[test]
    fn damaged_and_newer_bytes_are_refused() {
        let (key, whole) = (file_key(LogId(3), 7, 1), entry().encode().unwrap());
        for cut in 0..whole.len() {
            assert!(FileEntry::decode(&key, &whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(FileEntry::decode(&key, &longer).is_err());
        let mut newer = whole;
        newer[0] = 2;
        assert!(FileEntry::decode(&key, &newer).unwrap_err().message.contains("newer version"));
        assert!(Mark::decode(&[1, 0]).is_err());
        assert!(Plan::decode(&[]).is_err());
        let none = FileEntry { event_ms: None, ..entry() };
        assert_eq!(FileEntry::decode(&key, &none.encode().unwrap()).unwrap(), none);
    }
}
