//! What sources remember, in the store's `State` family. Keys are drawn byte by byte, values are JSON with a version.
//!
//! ```text
//! key                                              value
//! 20 ++ source ++ 00 ++ content id (16 bytes)      how far a content was loaded: FileRecord
//! 21 ++ source ++ 00 ++ path (UTF-8)               what a path held when it was last read: PathRecord
//! 22 ++ source ++ 00 ++ hash of a key (16 bytes)   empty: a record with this key was published
//! 23 ++ source ++ 00 ++ run number u64 BE          a run: RunReport
//! 24 ++ source                                     totals: SourceRecord
//! 25 ++ source                                     empty: it is paused
//! ```
//! The content id is the first half of BLAKE3 over a file's bytes. All of it is written in the commit that publishes the
//! rows it speaks of.

use std::collections::BTreeMap;

use broker::{Change, Family, Store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::status::RunReport;
use crate::error::{EngineError, ErrorKind, Result};

const FILE: u8 = 0x20;
const PATH: u8 = 0x21;
const SEEN: u8 = 0x22;
const RUN: u8 = 0x23;
const SOURCE: u8 = 0x24;
const PAUSED: u8 = 0x25;
/// Version of every value.
pub(crate) const VERSION: u32 = 1;
/// Runs that are kept per source.
pub(crate) const RUNS_MAX: u64 = 100;

/// Sixteen bytes that stand for a content or a key.
pub(crate) type Id = [u8; 16];

/// How far one content was loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub(crate) v: u32,
    /// Where it was found first.
    pub(crate) path: String,
    /// Bytes of the content.
    pub(crate) bytes: u64,
    /// Bytes that are loaded: the next row begins here.
    pub(crate) offset: u64,
    /// Lines that are loaded.
    pub(crate) lines: u64,
    /// Whether all of it is loaded.
    pub(crate) done: bool,
    /// Whether the last row was loaded without its line end, so that more of the line may follow.
    pub(crate) open_line: bool,
    /// The broker's clock at the last commit.
    pub(crate) updated_ms: i64,
}

/// What a path held, so that a file that did not change needs no reading.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PathRecord {
    pub(crate) v: u32,
    pub(crate) bytes: u64,
    pub(crate) modified_ns: i64,
    /// The content id in hexadecimal.
    pub(crate) content: String,
}

/// Totals of a source over all runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceRecord {
    pub(crate) v: u32,
    pub(crate) rows: u64,
    pub(crate) published: u64,
    pub(crate) skipped: u64,
    pub(crate) rejected: BTreeMap<String, u64>,
}

fn key(tag: u8, source: &str, rest: &[u8]) -> Vec<u8> {
    [&[tag], source.as_bytes(), &[0], rest].concat()
}

pub(crate) fn file_key(source: &str, content: &Id) -> Vec<u8> {
    key(FILE, source, content)
}

pub(crate) fn path_key(source: &str, path: &str) -> Vec<u8> {
    key(PATH, source, path.as_bytes())
}

pub(crate) fn seen_key(source: &str, hash: &Id) -> Vec<u8> {
    key(SEEN, source, hash)
}

pub(crate) fn run_key(source: &str, number: u64) -> Vec<u8> {
    key(RUN, source, &number.to_be_bytes())
}

pub(crate) fn source_key(source: &str) -> Vec<u8> {
    [&[SOURCE], source.as_bytes()].concat()
}

pub(crate) fn paused_key(source: &str) -> Vec<u8> {
    [&[PAUSED], source.as_bytes()].concat()
}

/// Reads a value; None when there is none.
pub(crate) fn get<T: DeserializeOwned>(store: &Store, key: &[u8]) -> Result<Option<T>> {
    let Some(bytes) = store.get(Family::State, key)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(&error))
}

/// The change that writes a value.
pub(crate) fn put(key: Vec<u8>, value: &impl Serialize) -> Result<Change> {
    let bytes = serde_json::to_vec(value).map_err(|error| EngineError::bug(format!("a source's record: {error}")))?;
    Ok(Change::Put(Family::State, key, bytes))
}

/// The runs that are kept, oldest first.
pub(crate) fn runs(store: &Store, source: &str) -> Result<Vec<RunReport>> {
    let mut runs = Vec::new();
    for entry in store.scan(Family::State, &run_key(source, 0), &run_key(source, u64::MAX)) {
        let (_, value) = entry?;
        runs.push(serde_json::from_slice(&value).map_err(|error| damaged(&error))?);
    }
    Ok(runs)
}

/// Forgets runs that are too old to be kept once `number` is there.
pub(crate) fn forget_runs(source: &str, number: u64) -> Option<Change> {
    let first = number.checked_sub(RUNS_MAX)?;
    Some(Change::DeleteRange(Family::State, run_key(source, 0), run_key(source, first + 1)))
}

/// BLAKE3, cut to sixteen bytes.
pub(crate) fn id_of(hasher: &blake3::Hasher) -> Id {
    let mut id = Id::default();
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    id
}

/// An id as 32 hexadecimal digits.
pub(crate) fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id that 32 hexadecimal digits write.
pub(crate) fn unhex(text: &str) -> Option<Id> {
    let mut id = Id::default();
    if text.len() != 32 {
        return None;
    }
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(id)
}

fn damaged(error: &serde_json::Error) -> EngineError {
    let message = format!("what is stored of a source is not what this version writes ({error}): restore a backup");
    EngineError::new(ErrorKind::Storage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let hexed = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let id = [7; 16];
        assert_eq!(hexed(file_key("s", &id)), format!("207300{}", "07".repeat(16)));
        assert_eq!(hexed(path_key("s", "a")), "21730061");
        assert_eq!(hexed(seen_key("s", &id)), format!("227300{}", "07".repeat(16)));
        assert_eq!(hexed(run_key("s", 258)), "2373000000000000000102");
        assert_eq!(hexed(source_key("s")), "2473");
        assert_eq!(hexed(paused_key("s")), "2573");
        assert_eq!(unhex(&hex(&id)), Some(id));
        assert_eq!(unhex("xx"), None);
        let record = FileRecord { v: 1, path: "a.csv".into(), bytes: 9, offset: 4, lines: 2, ..FileRecord::default() };
        let text =
            r#"{"v":1,"path":"a.csv","bytes":9,"offset":4,"lines":2,"done":false,"open_line":false,"updated_ms":0}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<FileRecord>(text).unwrap(), record);
        assert_eq!(hex(&id_of(&blake3::Hasher::new())), "af1349b9f5f9a1a6a0404dea36dcc949");
    }

    #[test]
    fn only_the_last_hundred_runs_are_kept() {
        assert!(forget_runs("s", 99).is_none());
        let Some(Change::DeleteRange(_, from, to)) = forget_runs("s", 100) else { panic!("nothing is forgotten") };
        assert_eq!((from, to), (run_key("s", 0), run_key("s", 1)));
    }
}
