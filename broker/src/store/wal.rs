//! Looking for damage in the files of RocksDB's write-ahead log. A start reads them up to the first record that is not whole, as
//! a crash may have cut the last one off, and takes what lies behind for unwritten: so damage in the middle loses commits without a word.
//!
//! ```text
//! blocks of 32 KiB, in each of them records that do not leave it, and zeros where none has room: less than 7 bytes, or less than 11
//! 0 4 CRC-32C of all from 6, rotated · 4 2 length of the data · 6 1 type · 7 . data (where a file may be written again, a number of 4
//! bytes before it: the file's own, in its name, or in what it was before)
//! data of a write, in one record or several: 0 8 number of its first change · 8 4 count of its changes · 12 . the changes
//! ```
//! Numbers are little endian. The CRC is rotated right by 15 bits, and then 0xa282ead8 is added.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const NUMBER_BYTES: usize = 4;
const NUMBERED_HEADER_BYTES: usize = HEADER_BYTES + NUMBER_BYTES;
const TYPE_AT: usize = 6;
const CRC_ADDED: u32 = 0xa282_ead8;
/// Types of records that a write begins with: all of it, or its first part.
const BEGINS: [u8; 4] = [1, 2, 5, 6];
/// Types of records that a write does not end with: its first part, or one in the middle.
const GOES_ON: [u8; 4] = [2, 3, 6, 7];
/// Types of records of a write in a file that was never another one.
const WITHOUT_NUMBER: [u8; 4] = [1, 2, 3, 4];
/// The last type of a record that belongs to a write; higher ones tell of the file.
const WRITE_MAX: u8 = 8;
/// Bytes of a write that say which changes it has.
const WRITE_HEAD_BYTES: usize = 12;
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

/// Looks at every file of the write-ahead log in `dir`. What is behind `acknowledged`, the number of the last change that was, nobody was told of: a
/// power cut may have torn it anywhere, and a start goes without. Where the number is not known, all counts.
///
/// # Errors
/// `Storage` when one cannot be read.
pub(super) fn damaged_logs(dir: &Path, acknowledged: Option<u64>) -> Result<Vec<DamagedLog>> {
    let (mut damaged, mut reached) = (Vec::new(), None);
    for (number, path) in files(dir)? {
        let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        reached = written(&mut &bytes[..], number).map_err(|error| unreadable(&path, &error))?.last.or(reached);
        let is_told = acknowledged.zip(reached).is_none_or(|(acknowledged, reached)| acknowledged > reached);
        if let Some(at) = damage(&bytes, number).filter(|_| is_told) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            damaged.push(DamagedLog { name, at: at as u64, lost_bytes: (bytes.len() - at) as u64 });
        }
    }
    Ok(damaged)
}

/// The files of the write-ahead log in `dir`, by their numbers.
///
/// # Errors
/// `Storage` when the directory cannot be read.
pub(super) fn files(dir: &Path) -> Result<BTreeMap<u64, PathBuf>> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let paths = entries.map_err(|error| unreadable(dir, &error))?.into_iter().map(|entry| entry.path());
    let logs = paths.filter(|path| path.extension().is_some_and(|end| end == "log"));
    Ok(logs.filter_map(|path| Some((number(&path)?, path))).collect())
}

pub(super) fn number(file: &Path) -> Option<u64> {
    file.file_stem()?.to_str()?.parse().ok()
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::storage(format!("{} cannot be read: {error}", path.display()))
}

/// The whole writes that a file begins with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Where the last one ends.
    pub(super) end: u64,
    /// The number of the first one's first change; none where there is no write.
    pub(super) first: Option<u64>,
    /// The number of the last one's last change.
    pub(super) last: Option<u64>,
    /// Whether a whole record begins a later block, where a reader that passes over the rest of a block goes on.
    pub(super) goes_on: bool,
}

/// Reads them, block by block.
///
/// # Errors
/// The file system's.
pub(super) fn written(file: &mut impl Read, number: u64) -> io::Result<Written> {
    let (mut written, mut head, mut block) = (Written::default(), Vec::new(), Vec::with_capacity(BLOCK_BYTES));
    let mut read = |block: &mut Vec<u8>| {
        block.clear();
        file.take(BLOCK_BYTES as u64).read_to_end(block)
    };
    for start in (0..).step_by(BLOCK_BYTES) {
        read(&mut block)?;
        let mut at = 0;
        while let Some(Record { kind, data, next }) = look(&block, number, at) {
            if BEGINS.contains(&kind) {
                head.clear();
            }
            if kind <= WRITE_MAX {
                head.extend(data.iter().take(WRITE_HEAD_BYTES - head.len()));
            }
            if !GOES_ON.contains(&kind) {
                written.end = start + next as u64;
                if let Some((first, last)) = changes(&head) {
                    written.first.get_or_insert(first);
                    written.last = Some(last);
                }
            }
            at = next;
        }
        if begin(&block, at) < BLOCK_BYTES {
            break;
        }
    }
    while !written.goes_on && read(&mut block)? > 0 {
        written.goes_on = look(&block, number, 0).is_some();
    }
    Ok(written)
}

/// The numbers of a write's first and last change. One without any, as a start leaves behind a log that ended early, has the number that comes next.
fn changes(head: &[u8]) -> Option<(u64, u64)> {
    let (first, count) = head.split_first_chunk::<8>()?;
    let (first, count) = (u64::from_le_bytes(*first), u32::from_le_bytes(*count.first_chunk()?));
    Some((first, first.checked_add(u64::from(count))?.saturating_sub(1)))
}

/// Whether something of the file's own is at `at`, whole or not, or a whole record of its own begins anywhere behind. A file that RocksDB was done
/// with is on the device and has neither behind its last write.
pub(super) fn is_followed(bytes: &[u8], number: u64, at: usize) -> bool {
    let is_own = |at| bears(bytes, number, at);
    let may_be_own =
        |at: &usize| is_own(*at) || bytes.get(at + TYPE_AT).is_some_and(|kind| WITHOUT_NUMBER.contains(kind));
    let mut behind = (at + 1..bytes.len()).filter(may_be_own);
    is_own(begin(bytes, at)) || behind.any(|at| look(bytes, number, at).is_some())
}

/// A whole record.
struct Record<'a> {
    kind: u8,
    data: &'a [u8],
    /// Where the next one is.
    next: usize,
}

/// Where a record is damaged behind which another write begins. The writes of one group are synced together, so a power cut may tear any of the last
/// group's, and without syncs of more. The file has a `number`.
fn damage(bytes: &[u8], number: u64) -> Option<usize> {
    let look = |at| look(bytes, number, at);
    let mut at = 0;
    while let Some(record) = look(at) {
        at = record.next;
    }
    let begins_again = |from: usize| {
        let (end, mut at) = ((from / BLOCK_BYTES + 1) * BLOCK_BYTES, from);
        while at < end
            && let Some(record) = look(at)
        {
            if BEGINS.contains(&record.kind) {
                return true;
            }
            at = record.next;
        }
        false
    };
    let behind = at + HEADER_BYTES + length(bytes, at).unwrap_or(0);
    let mut blocks = (at / BLOCK_BYTES + 1..).map(|block| block * BLOCK_BYTES).take_while(|start| *start < bytes.len());
    (begins_again(behind) || begins_again(behind + NUMBER_BYTES) || blocks.any(begins_again)).then_some(at)
}

/// Where the record at `at` begins: in the next block, where what is left of this one is too small for one. Whoever writes a number into
/// each leaves more.
fn begin(bytes: &[u8], at: usize) -> usize {
    let next = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
    let is_padding = || bytes.get(at..next).is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
    match next - at {
        0..HEADER_BYTES => next,
        HEADER_BYTES..NUMBERED_HEADER_BYTES if is_padding() => next,
        _ => at,
    }
}

/// The record at `at`. None where there is nothing, one that was cut off or is not what was written, or one of what the file was before.
fn look(bytes: &[u8], number: u64, at: usize) -> Option<Record<'_>> {
    let at = begin(bytes, at);
    let (length, kind) = (length(bytes, at)?, *bytes.get(at + TYPE_AT)?);
    let is_numbered = NUMBERED.contains(&kind);
    let data = at + if is_numbered { NUMBERED_HEADER_BYTES } else { HEADER_BYTES };
    let next = data + length;
    if kind == 0 && length == 0 || next > (at / BLOCK_BYTES + 1) * BLOCK_BYTES {
        return None;
    }
    let covered = bytes.get(at + TYPE_AT..next)?;
    let stored = u32::from_le_bytes(*bytes[at..].first_chunk()?);
    if stored.wrapping_sub(CRC_ADDED).rotate_left(15) != crc32c::crc32c(covered) {
        return None;
    }
    (!is_numbered || bears(bytes, number, at)).then(|| Record { kind, data: &bytes[data..next], next })
}

/// Whether the file's own number stands where a record at `at` has one.
fn bears(bytes: &[u8], number: u64, at: usize) -> bool {
    bytes.get(at + HEADER_BYTES..at + NUMBERED_HEADER_BYTES) == Some(&(number as u32).to_le_bytes()[..])
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at + 4..at + TYPE_AT)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*length)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Records as RocksDB writes them: each of these lengths in one piece.
    fn written(lengths: &[usize]) -> Vec<u8> {
        records(&lengths.iter().map(|length| (1, *length)).collect::<Vec<_>>())
    }

    fn records(all: &[(u8, usize)]) -> Vec<u8> {
        let all = all.iter().map(|(kind, length)| (*kind, vec![7; *length]));
        all.flat_map(|(kind, data)| record(kind, &[], &data)).collect()
    }

    /// Writes of one change each, with its number and so many bytes of data, as RocksDB writes them into a file that may have been another one.
    pub(crate) fn numbered(number: u32, writes: &[(u64, usize)]) -> Vec<u8> {
        let mut file = Vec::new();
        for (change, length) in writes {
            let mut data = [&change.to_le_bytes()[..], &1_u32.to_le_bytes()].concat();
            data.resize(WRITE_HEAD_BYTES.max(*length), 7);
            let mut rest = &data[..];
            let mut is_first = true;
            loop {
                let left = BLOCK_BYTES - file.len() % BLOCK_BYTES;
                if left < NUMBERED_HEADER_BYTES {
                    file.resize(file.len() + left, 0);
                    continue;
                }
                let (part, behind) = rest.split_at(rest.len().min(left - NUMBERED_HEADER_BYTES));
                let kind = match (is_first, behind.is_empty()) {
                    (true, true) => 5,
                    (true, false) => 6,
                    (false, false) => 7,
                    (false, true) => 8,
                };
                file.extend(record(kind, &number.to_le_bytes(), part));
                (rest, is_first) = (behind, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        file
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

    fn writes_of(mut bytes: &[u8]) -> Written {
        super::written(&mut bytes, 9).unwrap()
    }

    fn upto(end: usize, last: u64) -> Written {
        Written { end: end as u64, first: Some(1), last: Some(last), goes_on: false }
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
    fn what_a_file_was_before_is_its_end() {
        let before = numbered(4, &[(1, 20), (2, 300), (3, 7), (4, 400), (5, 60)]);
        for length in [20, 21, 150, 500] {
            let mut file = numbered(9, &[(1, length)]);
            let end = file.len();
            file.extend(before.get(end..).unwrap_or_default());
            assert_eq!(damage(&file), None, "{length}");
            assert_eq!(writes_of(&file), upto(end, 1));
            file[9] ^= 1;
            assert_eq!(damage(&file), None, "{length}: the last one, torn");
            let mut two = numbered(9, &[(1, length), (2, 12)]);
            two.extend(before.get(two.len()..).unwrap_or_default());
            two[9] ^= 1;
            assert_eq!(damage(&two), Some(0), "{length}: one of its own follows");
            assert!(super::is_followed(&two, 9, 0));
        }
    }

    /// RocksDB leaves up to ten bytes of a block where each record has a number, and up to six where none has.
    #[test]
    fn what_is_left_of_a_block_ends_nothing() {
        for left in 0..=12 {
            let first = BLOCK_BYTES - NUMBERED_HEADER_BYTES - left;
            let file = numbered(9, &[(1, first), (2, 70_000), (3, 40), (4, 40)]);
            assert_eq!(writes_of(&file), upto(file.len(), 4), "{left} bytes are left");
            let torn = upto(file.len() - NUMBERED_HEADER_BYTES - 40, 3);
            assert_eq!(writes_of(&file[..file.len() - 1]), torn);
            let mut damaged = file.clone();
            damaged[BLOCK_BYTES + 500] ^= 1;
            assert!(damage(&damaged).is_some(), "{left} bytes are left");
            assert!(super::is_followed(&damaged, 9, first));
            let torn = writes_of(&damaged);
            assert_eq!((torn.end, torn.last, torn.goes_on), (BLOCK_BYTES as u64 - left as u64, Some(1), true));
            // a page that reads as zeros, or as what was there before
            for was in [[0; 4096], [7; 4096]] {
                let mut lost = file.clone();
                lost[BLOCK_BYTES..][..4096].copy_from_slice(&was);
                assert!(damage(&lost).is_some(), "{left} bytes are left");
            }
        }
    }
}
