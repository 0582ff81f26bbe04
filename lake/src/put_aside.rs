//! Files that the manifest does not know, put aside: after a restore they hold what was published since the backup. Beside them
//! lies what they have, because later it cannot be told any more: the log goes on and gives offsets that they have to other records.
//!
//! ```text
//! <root>/_deleted/<topic>-unknown-<ms>/_aside.json     what is there, as JSON, written before the files come
//! <root>/_deleted/<topic>-unknown-<ms>/<path>          the files, by the paths that they had
//! ```
//! Nothing here is read by queries, overwritten or deleted by Millpond. Who has taken out what is wanted removes the directory.

use std::collections::BTreeMap;

use broker::{Offset, PartitionIndex, TimestampMs};
use serde::{Deserialize, Serialize};

use crate::error::{LakeError, Result};
use crate::objects::{DELETED_DIR, Objects};

const NOTE_FILE: &str = "_aside.json";
const NOTE_VERSION: u32 = 1;
/// Ranges that a sentence names.
const NAMED_MAX: usize = 10;

/// Files of a topic that were put aside together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAside {
    v: u32,
    /// The topic.
    pub topic: String,
    /// When, in ms since 1970.
    pub at_ms: TimestampMs,
    /// Where they are, below the lake's root.
    pub dir: String,
    /// How many.
    pub files: u64,
    /// What they have.
    pub partitions: BTreeMap<PartitionIndex, AsideRanges>,
}

/// What files that were put aside have of a partition. A range is its first and its last offset; ranges ascend and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsideRanges {
    /// Where the log ended when the lake was started.
    pub log_end: Offset,
    /// What they have.
    pub ranges: Vec<(Offset, Offset)>,
    /// Of it, what the manifest has in files that are gone: rows that SQL does not find.
    pub unread: Vec<(Offset, Offset)>,
}

impl AsideRanges {
    /// With ranges in any order, which may overlap.
    pub fn new(log_end: Offset, ranges: Vec<(Offset, Offset)>, unread: Vec<(Offset, Offset)>) -> Self {
        Self { log_end, ranges: joined(ranges), unread: joined(unread) }
    }

    /// What the log had not: nothing else has these records.
    pub fn beyond_log(&self) -> Vec<(Offset, Offset)> {
        let beyond = self.ranges.iter().filter(|(_, last)| *last >= self.log_end);
        beyond.map(|(first, last)| ((*first).max(self.log_end), *last)).collect()
    }
}

impl PutAside {
    /// Where files of a topic that are put aside now go.
    pub fn new(topic: &str, at_ms: TimestampMs, files: u64, partitions: BTreeMap<PartitionIndex, AsideRanges>) -> Self {
        let dir = format!("{DELETED_DIR}/{topic}-unknown-{at_ms}");
        Self { v: NOTE_VERSION, topic: topic.to_owned(), at_ms, dir, files, partitions }
    }

    /// What that means, and what to do, in words.
    pub fn told(&self) -> String {
        let beyond = self.named(AsideRanges::beyond_log);
        let unread = self.named(|ranges| ranges.unread.clone());
        let mut told = format!(
            "the store is older than the lake, as after a restore: {} files that it does not know were put aside in {}",
            self.files, self.dir
        );
        if beyond.is_empty() && unread.is_empty() {
            return told + "; the log has what is in them, and it settles again: the directory may be removed";
        }
        if !beyond.is_empty() {
            told += &format!("; the records at {beyond} are in these files alone, other records get their offsets");
        }
        if !unread.is_empty() {
            told += &format!("; the rows at {unread} are missing from the table, these files took the place of theirs");
        }
        told + ": read them there with any reader of Parquet, write what is wanted to the topic again, then remove the directory"
    }

    /// The ranges of all partitions, in words.
    fn named(&self, of: impl Fn(&AsideRanges) -> Vec<(Offset, Offset)>) -> String {
        let named = |(partition, ranges): (&PartitionIndex, &AsideRanges)| {
            let named = |(first, last)| format!("offsets {first}..={last} of partition {partition}");
            of(ranges).into_iter().map(named).collect::<Vec<_>>()
        };
        let all: Vec<String> = self.partitions.iter().flat_map(named).collect();
        match all.len().checked_sub(NAMED_MAX) {
            None | Some(0) => all.join(", "),
            Some(more) => format!("{} and {more} more ranges", all[..NAMED_MAX].join(", ")),
        }
    }

    /// Writes it down and moves the files: each path below the root keeps its name in the directory. May be interrupted: what is
    /// left is put aside by the next start.
    ///
    /// # Errors
    /// `Destination`; some of the files may be there then.
    pub async fn take(&self, objects: &Objects, files: &[String]) -> Result<()> {
        let note = serde_json::to_vec_pretty(self).map_err(|e| LakeError::bug(format!("a note of files: {e}")))?;
        let at = format!("{}/{NOTE_FILE}", self.dir);
        objects.put_whole(&at, note.into()).await?;
        objects.sync(&[at]).await?;
        let moves: Vec<_> = files.iter().map(|at| (at.clone(), format!("{}/{at}", self.dir))).collect();
        objects.publish(&moves).await
    }
}

/// All that was put aside and that nobody removed, the oldest first.
///
/// # Errors
/// `Destination`.
pub async fn all(objects: &Objects) -> Result<Vec<PutAside>> {
    let mut found = Vec::new();
    let is_note = |at: &String| at.rsplit_once('/').is_some_and(|(_, name)| name == NOTE_FILE);
    for at in objects.list(DELETED_DIR).await?.iter().filter(|at| is_note(at)) {
        let bytes = objects.read_small(at).await?.unwrap_or_default();
        match serde_json::from_slice::<PutAside>(&bytes) {
            Ok(note) if note.v == NOTE_VERSION => found.push(note),
            _ => {
                tracing::warn!(file = %at, "the note of files that were put aside cannot be read, they are there all the same")
            }
        }
    }
    found.sort_by_key(|note| note.at_ms);
    Ok(found)
}

/// The same offsets in ascending ranges that do not touch.
fn joined(mut ranges: Vec<(Offset, Offset)>) -> Vec<(Offset, Offset)> {
    ranges.sort_unstable();
    let mut joined: Vec<(Offset, Offset)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_and_what_the_log_had_not_is_told() {
        let ranges = AsideRanges::new(25, vec![(20, 29), (0, 9), (40, 49), (8, 10), (30, 30)], vec![(5, 9)]);
        assert_eq!(ranges.ranges, [(0, 10), (20, 30), (40, 49)]);
        assert_eq!(ranges.beyond_log(), [(25, 30), (40, 49)]);
        let note = PutAside::new("t", 7, 5, BTreeMap::from([(3, ranges)]));
        assert_eq!(note.dir, "_deleted/t-unknown-7");
        let told = note.told();
        for part in
            ["records at offsets 25..=30 of partition 3, offsets 40..=49 of", "rows at offsets 5..=9 of", "then remove"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        let known = AsideRanges::new(50, vec![(0, 49)], Vec::new());
        let told = PutAside::new("t", 7, 1, BTreeMap::from([(0, known)])).told();
        assert!(told.contains("settles again: the directory may be removed") && !told.contains("alone"), "{told}");
        let many = AsideRanges::new(0, (0..40).map(|at| (at * 10, at * 10)).collect(), Vec::new());
        let told = PutAside::new("t", 7, 1, BTreeMap::from([(0, many)])).told();
        assert!(told.contains("offsets 90..=90 of partition 0 and 30 more ranges"), "{told}");
    }

    #[test]
    fn a_note_is_read_again() {
        let ranges = AsideRanges::new(2, vec![(0, 3)], Vec::new());
        let note = PutAside::new("t", 7, 5, BTreeMap::from([(0, ranges)]));
        let text = r#"{"v":1,"topic":"t","at_ms":7,"dir":"_deleted/t-unknown-7","files":5,
            "partitions":{"0":{"log_end":2,"ranges":[[0,3]],"unread":[]}}}"#;
        assert_eq!(serde_json::from_str::<PutAside>(text).unwrap(), note);
    }
}
