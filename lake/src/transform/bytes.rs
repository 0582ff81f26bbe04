//! What the manifest has of tables that SQL writes, byte by byte. All integers are big-endian.
//!
//! ```text
//! family lake
//! "t" ++ 2 bytes of the table's name ++ the name ++ number u64   → one file of the table
//! "w" ++ 2 bytes of the table's name ++ the name                 → the table's last run
//!
//! file                                     last run
//!  0  1 version, 1                         0  1 version, 1
//!  1  8 rows                               1  8 the number of the next file
//!  9  8 bytes                              9  8 when the run was published, ms since 1970
//! 17  8 when it was published             17
//! 25  2 bytes of the run's key, the key
//!     2 bytes of the path, then the path
//!     the slice, as in a topic's file (manifest_bytes.rs)
//! ```

use broker::TimestampMs;

use crate::error::Result;
use crate::manifest_bytes::{Reader, VERSION, damaged, put_levels, put_short, signed};
use crate::slice::Level;

const FILE_TAG: u8 = b't';
const RUN_TAG: u8 = b'w';
/// The range of all files of all tables.
pub const FILES: ([u8; 1], [u8; 1]) = ([FILE_TAG], [FILE_TAG + 1]);

/// A published file of a table that SQL writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFile {
    /// Its number among the table's files, given once.
    pub number: u64,
    /// Rows in it, at least one.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// When it was published, in ms since 1970.
    pub published_ms: TimestampMs,
    /// The parameters of the run that wrote it, where runs add to the table; else empty.
    pub run: String,
    /// Where it lies below the lake's root.
    pub path: String,
    /// The slice: values of the columns that are not in the file.
    pub levels: Vec<Level>,
}

/// What is kept of a table's last run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastRun {
    /// The number of the next file.
    pub next: u64,
    /// When the run was published, in ms since 1970.
    pub published_ms: TimestampMs,
}

/// Key of a file.
///
/// # Errors
/// `Bug` for a name that is too long.
pub fn file_key(table: &str, number: u64) -> Result<Vec<u8>> {
    let mut key = vec![FILE_TAG];
    put_short(&mut key, table)?;
    key.extend(number.to_be_bytes());
    Ok(key)
}

/// The table in the key of a file.
///
/// # Errors
/// `Broker` when it is no such key.
pub fn table_of(key: &[u8]) -> Result<String> {
    Reader::of_key(key.get(1..).unwrap_or(&[]), "table file key").short()
}

/// The range of all files of a table.
///
/// # Errors
/// `Bug` for a name that is too long.
pub fn files_of(table: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut from = vec![FILE_TAG];
    put_short(&mut from, table)?;
    // no file has the last number
    let to = [&from[..], &u64::MAX.to_be_bytes()].concat();
    Ok((from, to))
}

/// Key of a table's last run.
///
/// # Errors
/// `Bug` for a name that is too long.
pub fn run_key(table: &str) -> Result<Vec<u8>> {
    let mut key = vec![RUN_TAG];
    put_short(&mut key, table)?;
    Ok(key)
}

impl TableFile {
    /// The value of a file.
    ///
    /// # Errors
    /// `Bug` when a part is too long for its length field.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = vec![VERSION];
        for number in [signed(self.rows)?, signed(self.bytes)?, self.published_ms] {
            out.extend(number.to_be_bytes());
        }
        put_short(&mut out, &self.run)?;
        put_short(&mut out, &self.path)?;
        put_levels(&mut out, &self.levels)?;
        Ok(out)
    }

    /// Reads a file's key and value.
    ///
    /// # Errors
    /// `Broker` when they are damaged or of a newer version.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        let number = key.last_chunk::<8>().ok_or_else(|| damaged("table file key"))?;
        let number = u64::from_be_bytes(*number);
        let mut value = Reader::new(value, "table file")?;
        let (rows, bytes, published_ms) = (value.unsigned()?, value.unsigned()?, value.i64()?);
        let (run, path) = (value.short()?, value.short()?);
        let levels = value.levels()?;
        value.end()?;
        Ok(Self { number, rows, bytes, published_ms, run, path, levels })
    }
}

impl LastRun {
    /// The value of a last run.
    pub fn encode(&self) -> Vec<u8> {
        [&[VERSION][..], &self.next.to_be_bytes(), &self.published_ms.to_be_bytes()].concat()
    }

    /// Reads the value of a last run.
    ///
    /// # Errors
    /// `Broker` when it is damaged or of a newer version.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut value = Reader::new(value, "last run")?;
        let run = Self { next: value.u64()?, published_ms: value.i64()? };
        value.end()?;
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::Value;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn stored_bytes_are_as_drawn() {
        let levels = vec![Level { column: "d".into(), derived: false, value: Value::Int(2) }];
        let (run, path) = ("r".to_owned(), "p/a".to_owned());
        let file = TableFile { number: 7, rows: 3, bytes: 258, published_ms: 5, run, path, levels };
        let key = file_key("ab", 7).unwrap();
        assert_eq!(hex(&key), "740002616200000000000000 07".replace(' ', ""));
        let golden = "01000000000000000300000000000001020000000000000005000172000370 2f610001000164000200000000000000\
                      02";
        assert_eq!(hex(&file.encode().unwrap()), golden.replace(' ', ""));
        assert_eq!(TableFile::decode(&key, &file.encode().unwrap()).unwrap(), file);
        let whole = file.encode().unwrap();
        for cut in 0..whole.len() {
            assert!(TableFile::decode(&key, &whole[..cut]).is_err(), "cut at {cut}");
        }
        let run = LastRun { next: 8, published_ms: 1 };
        assert_eq!(hex(&run.encode()), "0100000000000000080000000000000001");
        assert_eq!(LastRun::decode(&run.encode()).unwrap(), run);
        assert_eq!(hex(&run_key("ab").unwrap()), "7700026162");
        let (from, to) = files_of("ab").unwrap();
        assert!(from < key && key < to);
        let other = file_key("abc", 0).unwrap();
        assert!(!(from <= other && other < to), "a longer name is another table");
    }
}
