//! Looking for damage in the files of RocksDB's write-ahead log. A start reads them up to the first record that is not whole, as
//! a crash may have cut the last one off, and takes what lies behind for unwritten: so damage in the middle loses commits without a word.
//!
//! ```text
//! blocks of 32 KiB, in each of them records that do not leave it, and less than 7 bytes of zeros:
//! 0 4 CRC-32C of all from 6, rotated · 4 2 length of the data · 6 1 type · 7 . data (where a file may be written again, a number of 4
//! bytes before it: the file's own, in its name, or in what it was before)
//! ```
//! Numbers are little endian. The CRC is rotated right by 15 bits, and then 0xa282ead8 is added.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::error::{Error, Result};

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const NUMBER_BYTES: usize = 4;
const TYPE_AT: usize = 6;
const CRC_ADDED: u32 = 0xa282_ead8;
/// Types of records that a write begins with: all of it, or its first part.
const BEGINS: [u8; 4] = [1, 2, 5, 6];
/// Types of records that a write does not end with: a first part, or one in the middle.
const GOES_ON: [u8; 4] = [2, 3, 6, 7];
/// Types of records with a number before their data.
const NUMBERED: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// A file of the write-ahead log with whole records behind one that is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedLog {
    /// Its name within the store's directory.
    pub name: String,
    /// Where the first record is that is not whole.
    pub at: u64,
    /// Bytes from there on, which a start does not read.
    pub lost_bytes: u64,
}

/// Looks at every file of the write-ahead log in `dir`.
///
/// # Errors
/// `Storage` when one cannot be read.
pub(super) fn damaged_logs(dir: &Path) -> Result<Vec<DamagedLog>> {
    let unreadable = |error: io::Error| Error::storage(format!("{} cannot be read: {error}", dir.display()));
    let mut damaged = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let (Some(name), true) = (path.file_name(), path.extension().is_some_and(|end| end == "log")) else { continue };
        let bytes = fs::read(&path).map_err(unreadable)?;
        if let Some(at) = damage(&bytes, number(&path).unwrap_or(0)) {
            let name = name.to_string_lossy().into_owned();
            damaged.push(DamagedLog { name, at: at as u64, lost_bytes: (bytes.len() - at) as u64 });
        }
    }
    Ok(damaged)
}

/// The end of a file of the write-ahead log that a power cut tore: nothing whole is behind it, in this file or a later one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TornEnd {
    file: PathBuf,
    /// Where the last write ends that is whole.
    at: u64,
}

/// Finds them. A start passes over them, and says so in the manifest for one family after the other. When the power goes amid that, RocksDB
/// takes the families that are done for ones that hold more than the log, and opens the store no more; what they hold is the same log.
///
/// # Errors
/// `Storage` when the log cannot be read.
pub(super) fn torn_ends(dir: &Path) -> Result<Vec<TornEnd>> {
    let unreadable = |error: io::Error| Error::storage(format!("{} cannot be read: {error}", dir.display()));
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if let (Some(number), true) = (number(&path), path.extension().is_some_and(|end| end == "log")) {
            files.insert(number, path);
        }
    }
    let mut torn = Vec::new();
    for (number, file) in files.into_iter().rev() {
        let bytes = fs::read(&file).map_err(unreadable)?;
        if damage(&bytes, number).is_some() {
            return Ok(Vec::new());
        }
        let at = whole(&bytes, number);
        if at < bytes.len() {
            torn.push(TornEnd { file, at: at as u64 });
        }
        if at > 0 {
            break;
        }
    }
    Ok(torn)
}

impl TornEnd {
    /// Cuts it off.
    ///
    /// # Errors
    /// `Storage` when the file cannot be written.
    pub(super) fn cut(&self) -> Result<()> {
        let cut = fs::OpenOptions::new().write(true).open(&self.file).and_then(|file| {
            file.set_len(self.at)?;
            file.sync_all()
        });
        cut.map_err(|error| Error::storage(format!("{} cannot be cut at {}: {error}", self.file.display(), self.at)))
    }
}

fn number(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// Where the last write ends that is whole.
fn whole(bytes: &[u8], number: u64) -> usize {
    let (mut at, mut whole) = (0, 0);
    while let Found::Record(_, next) = look(bytes, number, at) {
        if bytes.get(begin(at) + TYPE_AT).is_some_and(|kind| !GOES_ON.contains(kind)) {
            whole = next;
        }
        at = next;
    }
    whole
}

/// What is at a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A whole record: whether a write begins with it, and where the next one is.
    Record(bool, usize),
    /// Nothing, the beginning of a record that was cut off, or one of what the file was before.
    End,
    /// A record that is not what was written.
    Bad,
}

/// Where a record is damaged behind which another write begins. Each write is synced before the next one is made, so a power cut tears
/// the last one at most, if `durability` is not `os`. The file has a `number`.
fn damage(bytes: &[u8], number: u64) -> Option<usize> {
    let look = |at| look(bytes, number, at);
    let mut at = 0;
    loop {
        match look(at) {
            Found::Record(_, next) => at = next,
            Found::End => return None,
            Found::Bad => break,
        }
    }
    let goes_on = |from: usize| {
        let (end, mut at) = ((from / BLOCK_BYTES + 1) * BLOCK_BYTES, from);
        while at < end
            && let Found::Record(begins, next) = look(at)
        {
            if begins {
                return true;
            }
            at = next;
        }
        false
    };
    let behind = at + HEADER_BYTES + length(bytes, at).unwrap_or(0);
    let mut blocks = (at / BLOCK_BYTES + 1..).map(|block| block * BLOCK_BYTES).take_while(|start| *start < bytes.len());
    (goes_on(behind) || goes_on(behind + NUMBER_BYTES) || blocks.any(goes_on)).then_some(at)
}

/// Where the record at `at` begins: what is left of a block may be too small for one.
fn begin(at: usize) -> usize {
    let left = BLOCK_BYTES - at % BLOCK_BYTES;
    if left < HEADER_BYTES { at + left } else { at }
}

fn look(bytes: &[u8], number: u64, at: usize) -> Found {
    let at = begin(at);
    let (Some(length), Some(kind)) = (length(bytes, at), bytes.get(at + TYPE_AT)) else { return Found::End };
    if *kind == 0 && length == 0 {
        return Found::End;
    }
    let numbered = if NUMBERED.contains(kind) { NUMBER_BYTES } else { 0 };
    let end = at + HEADER_BYTES + numbered + length;
    if end > (at / BLOCK_BYTES + 1) * BLOCK_BYTES {
        return Found::Bad;
    }
    let Some(covered) = bytes.get(at + TYPE_AT..end) else { return Found::End };
    let stored = bytes[at..].first_chunk().map_or(0, |crc| u32::from_le_bytes(*crc));
    if stored.wrapping_sub(CRC_ADDED).rotate_left(15) != crc32c::crc32c(covered) {
        return Found::Bad;
    }
    let own = (number as u32).to_le_bytes();
    if numbered > 0 && bytes[at + HEADER_BYTES..].first_chunk() != Some(&own) {
        return Found::End;
    }
    Found::Record(BEGINS.contains(kind), end)
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at + 4..at + TYPE_AT)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use crate::config::BrokerConfig;
    use crate::store::{Family, ReadOnly, Store, Writes};

    use super::*;

    /// Records as RocksDB writes them: each of these lengths in one piece.
    fn written(lengths: &[usize]) -> Vec<u8> {
        records(&lengths.iter().map(|length| (1, *length)).collect::<Vec<_>>())
    }

    fn records(all: &[(u8, usize)]) -> Vec<u8> {
        let all = all.iter().map(|(kind, length)| (*kind, vec![7; *length]));
        all.flat_map(|(kind, data)| record(kind, &[], &data)).collect()
    }

    /// Records as RocksDB writes them into a file that may have been another one.
    fn numbered(number: u32, lengths: &[usize]) -> Vec<u8> {
        lengths.iter().flat_map(|length| record(5, &number.to_le_bytes(), &vec![7; *length])).collect()
    }

    fn record(kind: u8, number: &[u8], data: &[u8]) -> Vec<u8> {
        let covered = [&[kind][..], number, data].concat();
        let crc = crc32c::crc32c(&covered).rotate_right(15).wrapping_add(CRC_ADDED);
        let length = u16::try_from(data.len()).unwrap();
        [&crc.to_le_bytes()[..], &length.to_le_bytes(), &covered].concat()
    }

    fn damage(bytes: &[u8]) -> Option<usize> {
        super::damage(bytes, 9)
    }
    #[test]
    fn only_damage_with_records_behind_it_counts() {
        let whole = written(&[10, 0, 300, 5]);
        assert_eq!(damage(&whole), None);
        for cut in 0..whole.len() {
            assert_eq!(damage(&whole[..cut]), None, "a crash cuts it at {cut}");
        }
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            damage(&bytes)
        };
        assert_eq!((flipped(12), flipped(0), flipped(6), flipped(30)), (Some(0), Some(0), Some(0), Some(24)));
        assert_eq!(flipped(whole.len() - 1), None, "the last one: as a crash would leave it");
        let zeros = [&whole[..], &[0; 100]].concat();
        assert_eq!(damage(&zeros), None);
        // a length that leads astray: the next block tells
        let block = BLOCK_BYTES - HEADER_BYTES;
        let mut blocks = written(&[block, block, block]);
        blocks[4] ^= 1;
        assert_eq!(damage(&blocks), Some(0));
        blocks.truncate(BLOCK_BYTES);
        assert_eq!(damage(&blocks), None);
        let mut trailer = [written(&[block - 3]), vec![0; 3], written(&[5])].concat();
        assert_eq!(damage(&trailer), None);
        trailer[9] ^= 1;
        assert_eq!(damage(&trailer), Some(0), "what is too small for a record is passed over");
        let mut torn = records(&[(2, block), (3, block), (4, 9)]);
        torn[9] ^= 1;
        assert_eq!(damage(&torn), None, "one write, the last: a power cut tears it anywhere");
        torn.extend(written(&[1]));
        assert_eq!(damage(&torn), Some(0));
    }

    #[test]
    fn torn_ends_are_cut_where_nothing_whole_is_behind_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        let torn = || -> Vec<(String, usize)> {
            let ends = torn_ends(dir.path()).unwrap().into_iter();
            ends.map(|end| (end.file.file_stem().unwrap().to_str().unwrap().to_owned(), end.at as usize)).collect()
        };
        let none = Vec::new();
        let whole = numbered(9, &[20, 300]);
        assert_eq!(torn(), none);
        file("000009.log", &whole);
        file("000010.log", &[]);
        assert_eq!(torn(), none);
        file("000008.log", &numbered(8, &[20])[..9]);
        file("000009.log", &numbered(9, &[20, 300, 40])[..whole.len() + 30]);
        file("000010.log", &numbered(10, &[20])[..9]);
        assert_eq!(torn(), [("000010".into(), 0), ("000009".into(), whole.len())]);
        torn_ends(dir.path()).unwrap().iter().for_each(|end| end.cut().unwrap());
        assert_eq!(torn(), none);
        assert_eq!(fs::read(dir.path().join("000009.log")).unwrap(), whole);
        // a write of several parts that lacks its last one
        let parts = record(6, &9_u32.to_le_bytes(), &vec![7; BLOCK_BYTES - whole.len() - HEADER_BYTES - NUMBER_BYTES]);
        file("000009.log", &[&whole[..], &parts, &record(7, &9_u32.to_le_bytes(), &[7; 9])].concat());
        assert_eq!(torn(), [("000009".into(), whole.len())]);
        // what is behind a damage would be lost by a cut
        let mut damaged = whole.clone();
        damaged[12] ^= 1;
        file("000009.log", &damaged);
        assert_eq!(torn(), none);
        file("000009.log", &whole[..whole.len() - 1]);
        file("000010.log", &numbered(10, &[5]));
        assert_eq!(torn(), none);
    }

    /// What the disk has when the power goes twice: under load, and in the next start, when one family was written out of the log and
    /// the others were not.
    #[test]
    fn a_start_goes_on_where_the_power_cut_one_short() {
        let dir = tempfile::tempdir().unwrap();
        let config = BrokerConfig { data_dir: dir.path().to_path_buf(), ..BrokerConfig::default() };
        let store = Store::open(&config).unwrap();
        let mut writes = Writes::new(&store);
        writes.put(Family::Groups, b"key", b"in the log");
        writes.put(Family::State, b"key", b"in both");
        store.write(writes).unwrap();
        let logs = || {
            let files = fs::read_dir(dir.path().join("store")).unwrap().map(|file| file.unwrap().path());
            files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect::<Vec<_>>()
        };
        let before = logs();
        let written = before.iter().max().unwrap();
        store.db.flush_cf(&store.handle(Family::State).unwrap()).unwrap();
        drop(store);
        assert!(logs().len() > before.len(), "the family's writes go to another file from here on");
        let mut bytes = fs::read(written).unwrap();
        bytes.truncate(whole(&bytes, number(written).unwrap()));
        let torn = [&bytes[..], &bytes[..HEADER_BYTES + 9]].concat();
        fs::write(written, torn).unwrap();
        let sees = |store: &Store| [Family::Groups, Family::State].map(|family| store.get(family, b"key").unwrap());
        let wanted = [Some(b"in the log".to_vec()), Some(b"in both".to_vec())];
        let read_only = ReadOnly::open(dir.path()).unwrap();
        assert_eq!(read_only.refused, None, "a server starts");
        drop(read_only);
        assert_eq!(sees(&Store::open(&config).unwrap()), wanted);
        assert_eq!(fs::read(written).unwrap_or(bytes.clone()), bytes);
    }

    #[test]
    fn what_a_file_was_before_is_its_end() {
        let before = numbered(4, &[20, 300, 7, 400, 60]);
        for length in [20, 21, 150, 500] {
            let mut file = numbered(9, &[length]);
            let end = file.len();
            file.extend(&before[end..]);
            assert_eq!(damage(&file), None, "{length}");
            file[9] ^= 1;
            assert_eq!(damage(&file), None, "{length}: the last one, torn");
            let mut two = numbered(9, &[length, 9]);
            two.extend(before.get(two.len()..).unwrap_or_default());
            two[9] ^= 1;
            assert_eq!(damage(&two), Some(0), "{length}: one of its own follows");
        }
    }
}
