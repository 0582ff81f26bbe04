//! Small files of whole records that follow one another → larger ones, as the tables' files are merged: a record is written again
//! only with as many bytes of others, so the number of times grows with the logarithm of the history.

use std::ops::Range;
use std::sync::Arc;

use broker::{Offset, TimestampMs};
use futures::TryStreamExt;

use super::bytes::RawFile;
use super::reader::{RawReader, open, unreadable};
use super::writer::{RawWriter, WrittenRaw};
use crate::config::MergeConfig;
use crate::error::Result;
use crate::tables::offsets;
use crate::writer::Source;

/// The first files that are worth a merge.
pub fn next_merge(files: &[Arc<RawFile>], config: &MergeConfig) -> Option<Range<usize>> {
    (0..files.len()).map(|start| start..end_of(files, start, config)).find(|range| {
        let files = &files[range.clone()];
        let largest = files.iter().map(|file| file.bytes).max().unwrap_or(0);
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        files.len() >= config.files_min && largest <= bytes - largest
    })
}

/// Where the small files end that follow one another from `start` on and fit into one.
fn end_of(files: &[Arc<RawFile>], start: usize, config: &MergeConfig) -> usize {
    let (mut bytes, mut next) = (0, files[start].first);
    let fits = |file: &&Arc<RawFile>| {
        bytes += file.bytes;
        let follows = file.first == next;
        next = file.last + 1;
        follows && file.bytes < config.below_bytes && bytes <= config.to_bytes
    };
    start + files[start..].iter().take_while(fits).count()
}

/// Writes the records of these files, which follow one another, into one under its hidden name.
///
/// # Errors
/// `Destination` when it cannot be written, or one of them is not as it was published.
pub async fn merge(
    reader: &RawReader,
    files: &[Arc<RawFile>],
    source: &Source,
    now: TimestampMs,
) -> Result<WrittenRaw> {
    let mut writer = RawWriter::new(&reader.objects, source);
    for file in files {
        let (mut left, before) = (file.records, writer.sum());
        let mut stream = open(reader, file, |_| true, &[]).await?;
        while let Some(rows) = stream.try_next().await.map_err(|e| unreadable(file, &e))? {
            left =
                left.checked_sub(rows.num_rows() as u64).ok_or_else(|| unreadable(file, &"it has too many records"))?;
            writer.copy(&rows, file.max_timestamp).await?;
        }
        if left > 0 {
            return Err(unreadable(file, &format!("{left} of {} records are not there", file.records)));
        }
        if file.sum.is_some_and(|sum| sum != writer.sum().wrapping_sub(before)) {
            return Err(unreadable(file, &"it has other records than when it was published"));
        }
    }
    let last = files.last().map_or(source.first, |file| file.last);
    writer.finish((&source.dir, last), now).await
}

/// Writes the records of a file up to `last` under a hidden name, as a file of its own.
///
/// # Errors
/// `Destination` when one of them cannot be read or written.
pub async fn cut(
    reader: &RawReader,
    file: &RawFile,
    (source, last): (&Source, Offset),
    now: TimestampMs,
) -> Result<WrittenRaw> {
    let mut writer = RawWriter::new(&reader.objects, source);
    let mut stream = open(reader, file, |_| true, &[]).await?;
    while let Some(rows) = stream.try_next().await.map_err(|e| unreadable(file, &e))? {
        let offsets = offsets(&rows)?;
        let wanted = offsets.partition_point(|offset| *offset <= last);
        writer.copy(&rows.slice(0, wanted), file.max_timestamp).await?;
        if wanted < offsets.len() {
            break;
        }
    }
    writer.finish((&source.dir, last), now).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(sizes: &[u64]) -> Vec<Arc<RawFile>> {
        let file = |(at, bytes): (i64, &u64)| RawFile {
            first: at * 10,
            last: at * 10 + 9,
            records: 1,
            bytes: *bytes,
            max_timestamp: 0,
            published_ms: 0,
            path: String::new(),
            sum: None,
        };
        (0..).zip(sizes).map(file).map(Arc::new).collect()
    }

    const CONFIG: MergeConfig = MergeConfig { below_bytes: 100, to_bytes: 150, files_min: 3 };

    #[test]
    fn small_neighbours_are_merged_and_large_ones_left() {
        assert_eq!(next_merge(&files(&[]), &CONFIG), None);
        assert_eq!(next_merge(&files(&[9, 9]), &CONFIG), None, "too few");
        assert_eq!(next_merge(&files(&[100, 9, 9, 9]), &CONFIG), Some(1..4), "one is large");
        assert_eq!(next_merge(&files(&[90, 9, 9, 9]), &CONFIG), Some(1..4), "it would be written again for little");
        assert_eq!(next_merge(&files(&[60, 50, 30, 20, 9]), &CONFIG), Some(0..3), "as much as one may have");
        let mut gap = files(&[9, 9, 9, 9, 9]);
        gap.remove(2);
        assert_eq!(next_merge(&gap, &CONFIG), None, "they do not follow one another");
    }
}
