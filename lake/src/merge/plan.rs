//! Which files are worth a merge, from what the manifest says of them: nothing is read and nothing is done here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use broker::TimestampMs;

use crate::config::MergeConfig;
use crate::manifest_bytes::FileEntry;
use crate::slice::Level;

/// Files of one merge at most.
const FILES_MAX: usize = 1_000;

/// What decides about a partition's files.
pub struct Rule<'a> {
    /// The sizes of the table.
    pub config: MergeConfig,
    /// A slice whose last file was published before this gets nothing more: its files are merged, however few.
    pub quiet_before: TimestampMs,
    /// The directories in which the start removes what a crash leaves; what lies elsewhere is left alone.
    pub dirs: &'a [String],
    /// Files that have other columns than the one before them, by path.
    pub apart: &'a HashSet<String>,
}

/// The next files of a partition that become one, in the order of their offsets; none when no merge is worth it.
pub fn next_merge(files: &[Arc<FileEntry>], rule: &Rule<'_>) -> Option<Vec<Arc<FileEntry>>> {
    slices(files).into_iter().find_map(|slice| {
        let quiet = slice.iter().all(|file| file.published_ms < rule.quiet_before);
        let found = runs(&slice, rule).into_iter().find_map(|run| window(run, rule, quiet))?;
        Some(found.iter().map(|file| (*file).clone()).collect())
    })
}

/// Whether a file is small enough to be merged with others.
pub fn is_small(file: &FileEntry, config: &MergeConfig) -> bool {
    file.bytes < config.below_bytes
}

/// The files of each slice, in the order of their offsets.
fn slices(files: &[Arc<FileEntry>]) -> Vec<Vec<&Arc<FileEntry>>> {
    let mut known: HashMap<&[Level], usize> = HashMap::new();
    let mut slices: Vec<Vec<&Arc<FileEntry>>> = Vec::new();
    for file in files {
        let at = *known.entry(&file.levels).or_insert(slices.len());
        match slices.get_mut(at) {
            Some(slice) => slice.push(file),
            None => slices.push(vec![file]),
        }
    }
    slices
}

/// Neighbours of a slice that may become one file: small, in one directory, with the same columns.
fn runs<'a, 'f>(slice: &'a [&'f Arc<FileEntry>], rule: &Rule<'_>) -> Vec<&'a [&'f Arc<FileEntry>]> {
    let ours = |file: &FileEntry| rule.dirs.iter().any(|dir| file.path.strip_prefix(dir.as_str()).is_some_and(below));
    let fits = |file: &FileEntry| is_small(file, &rule.config) && ours(file);
    let dir = |file: &'f Arc<FileEntry>| file.path.rsplit_once('/').map(|(dir, _)| dir);
    let together = |before: &&'f Arc<FileEntry>, after: &&'f Arc<FileEntry>| {
        fits(before) && fits(after) && dir(before) == dir(after) && !rule.apart.contains(&after.path)
    };
    slice.chunk_by(together).collect()
}

fn below(rest: &str) -> bool {
    rest.starts_with('/')
}

/// The first files of a run that are worth a merge. A file is written again only with others that are as large together, so
/// that a row is written a number of times that grows with the logarithm of what its slice holds.
fn window<'a, 'f>(run: &'a [&'f Arc<FileEntry>], rule: &Rule<'_>, quiet: bool) -> Option<&'a [&'f Arc<FileEntry>]> {
    let MergeConfig { to_bytes, files_min, .. } = rule.config;
    (0..run.len()).find_map(|start| {
        let (mut count, mut bytes, mut largest) = (0, 0_u64, 0_u64);
        for file in run[start..].iter().take(FILES_MAX) {
            if bytes + file.bytes > to_bytes {
                break;
            }
            count += 1;
            bytes += file.bytes;
            largest = largest.max(file.bytes);
        }
        // nothing can be added to it any more
        let full = start + count < run.len();
        let worth = count >= files_min && largest * 2 <= bytes;
        (count > 1 && (quiet || full || worth)).then(|| &run[start..start + count])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::Value;

    const CONFIG: MergeConfig = MergeConfig { below_bytes: 100, to_bytes: 400, files_min: 3 };

    fn file(first: i64, bytes: u64, slice: i64, dir: &str) -> Arc<FileEntry> {
        Arc::new(FileEntry {
            first,
            last: first + 9,
            ordinal: 0,
            rows: 1,
            bytes,
            event_ms: None,
            published_ms: 1_000,
            path: format!("{dir}/n={slice}/t-0-{first}-{}.parquet", first + 9),
            levels: vec![Level { column: "n".into(), derived: false, value: Value::Int(slice) }],
        })
    }

    /// The first offsets of what is merged next.
    fn next(files: &[Arc<FileEntry>], quiet_before: i64, apart: &[&str]) -> Vec<i64> {
        let dirs = ["raw/t".to_owned(), "archive/t".to_owned()];
        let apart = apart.iter().map(|path| (*path).to_owned()).collect();
        let rule = Rule { config: CONFIG, quiet_before, dirs: &dirs, apart: &apart };
        next_merge(files, &rule).unwrap_or_default().iter().map(|file| file.first).collect()
    }

    fn of(sizes: &[u64]) -> Vec<Arc<FileEntry>> {
        (0..).zip(sizes).map(|(at, bytes)| file(at * 10, *bytes, 1, "raw/t")).collect()
    }

    #[test]
    fn small_neighbours_are_merged_when_they_are_enough() {
        assert_eq!(next(&of(&[10, 10]), 0, &[]), [0; 0], "two are not enough");
        assert_eq!(next(&of(&[10, 10, 10]), 0, &[]), [0, 10, 20]);
        assert_eq!(next(&of(&[10, 10, 100, 10]), 0, &[]), [0; 0], "a large file parts them");
        assert_eq!(next(&of(&[100, 10, 10, 10, 100]), 0, &[]), [10, 20, 30]);
        assert_eq!(next(&of(&[]), i64::MAX, &[]), [0; 0]);
    }

    #[test]
    fn a_large_part_waits_until_the_others_are_as_large() {
        assert_eq!(next(&of(&[60, 10, 10]), 0, &[]), [0; 0], "60 bytes are not written again for 20");
        assert_eq!(next(&of(&[60, 10, 10, 10]), 0, &[]), [10, 20, 30]);
        assert_eq!(next(&of(&[60, 30, 30]), 0, &[]), [0, 10, 20]);
    }

    #[test]
    fn rows_are_written_few_times() {
        // a file of 1 byte after the other: each merge replaces its inputs by their sum
        let (mut sizes, mut written) = (Vec::new(), 0);
        for _ in 0..90 {
            sizes.extend([1]);
            while let [first, .., last] = next(&of(&sizes), 0, &[])[..] {
                let sum: u64 = sizes.drain(first as usize / 10..=last as usize / 10).sum();
                sizes.insert(first as usize / 10, sum);
                written += sum;
            }
        }
        assert!(written < 90 * 7, "{written} bytes written for 90");
        assert!(sizes.len() < 12, "{sizes:?}");
    }

    #[test]
    fn no_merge_is_larger_than_its_bound() {
        let files = of(&[90, 90, 90, 90, 90, 90]);
        assert_eq!(next(&files, 0, &[]), [0, 10, 20, 30], "360 of 400 bytes");
        assert_eq!(next(&files[..5], i64::MAX, &[]), [0, 10, 20, 30]);
        assert_eq!(next(&of(&[1; 1_500]), 0, &[]).len(), 400, "bytes");
        assert_eq!(next(&of(&[0; 1_500]), 0, &[]).len(), FILES_MAX);
    }

    #[test]
    fn a_quiet_slice_is_merged_whole() {
        assert_eq!(next(&of(&[60, 10]), 1_001, &[]), [0, 10]);
        assert_eq!(next(&of(&[60, 10]), 1_000, &[]), [0; 0], "its last file is not old enough");
        assert_eq!(next(&of(&[60]), 1_001, &[]), [0; 0], "one file stays");
    }

    #[test]
    fn slices_directories_and_columns_stay_apart() {
        let mut files = of(&[10, 10, 10, 10]);
        files[1] = file(10, 10, 2, "raw/t");
        assert_eq!(next(&files, 0, &[]), [0, 20, 30], "the other slice's file is not between them");
        files[1] = file(10, 10, 1, "archive/t");
        assert_eq!(next(&files, i64::MAX, &[]), [20, 30], "one lies in the archive");
        files[1] = file(10, 10, 1, "elsewhere/t");
        assert_eq!(next(&files, i64::MAX, &[]), [20, 30], "one lies where the table was once");
        files[1] = file(10, 10, 1, "raw/t2");
        assert_eq!(next(&files, i64::MAX, &[]), [20, 30], "one lies in another table's directory");
        let files = of(&[10, 10, 10, 10]);
        assert_eq!(next(&files, i64::MAX, &["raw/t/n=1/t-0-20-29.parquet"]), [0, 10]);
        assert_eq!(next(&files[2..], i64::MAX, &["raw/t/n=1/t-0-20-29.parquet"]), [20, 30], "it begins a run");
    }
}
