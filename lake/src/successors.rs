//! Files that took the places of known ones after a backup. A store that was restored from it names files that were merged or
//! archived since, and does not know what has their rows. Such a file takes their place in the manifest, in one commit, if it
//! has just their range and as many rows; so SQL and consumers find them again, each once.

use std::collections::HashSet;
use std::sync::Arc;

use broker::{Offset, Partition};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;

use crate::archive::archive_dir;
use crate::error::{LakeError, Result};
use crate::manifest::Manifest;
use crate::manifest_bytes::FileEntry;
use crate::objects::Objects;
use crate::raw::{RAW_DIR, RawFile};
use crate::tables::Table;
use crate::writer::published_range;

/// A file that the manifest does not know.
struct Unknown<'a> {
    at: &'a str,
    partition: &'a Arc<Partition>,
    first: Offset,
    last: Offset,
}

/// Puts the successors among the files that were `found` in a table's directories into the manifest.
///
/// # Errors
/// `Destination` or `Broker`; it can be done again.
pub async fn adopt(
    objects: &Objects,
    manifest: &Manifest,
    (table, partitions): (&Table, &[Arc<Partition>]),
    found: &[String],
) -> Result<()> {
    let there: HashSet<&str> = found.iter().map(String::as_str).collect();
    let settled: Vec<_> = partitions.iter().map(|partition| manifest.settled(partition.id())).collect();
    let known: HashSet<&str> = settled
        .iter()
        .flat_map(|settled| {
            let raw = settled.raw.iter().map(|file| file.path.as_str());
            settled.files.iter().map(|file| file.path.as_str()).chain(raw)
        })
        .collect();
    if known.is_subset(&there) {
        return Ok(());
    }
    for at in found.iter().filter(|at| !known.contains(at.as_str())) {
        let name = at.rsplit('/').next().unwrap_or(at);
        let Some((index, first, last)) = published_range(&table.topic, name) else { continue };
        let Some(partition) = partitions.iter().find(|partition| partition.index() == index) else { continue };
        let unknown = Unknown { at, partition, first, last };
        if at.starts_with(&format!("{RAW_DIR}/")) {
            adopt_raw(objects, manifest, &unknown).await?;
        } else if !adopt_moved(objects, manifest, (table, &unknown)).await? {
            adopt_merged(objects, manifest, &unknown).await?;
        }
    }
    Ok(())
}

/// A known file in another directory of the table; whether it is that.
async fn adopt_moved(objects: &Objects, manifest: &Manifest, (table, unknown): (&Table, &Unknown<'_>)) -> Result<bool> {
    let log = unknown.partition.id();
    let files = manifest.settled(log).files;
    let Some(place) = place_in(table, unknown.at) else { return Ok(false) };
    let is_it = |file: &&Arc<FileEntry>| place_in(table, &file.path) == Some(place);
    let Some(file) = files.iter().find(is_it) else { return Ok(false) };
    if objects.size(&file.path).await?.is_none() && objects.size(unknown.at).await? == Some(file.bytes) {
        let moved = FileEntry { path: unknown.at.to_owned(), ..(**file).clone() };
        manifest.rearrange(vec![(log, file.clone(), Some(moved))]).await?;
        tracing::info!(file = unknown.at, instead_of = %file.path, "a file that was moved after the backup is known again");
    }
    Ok(true)
}

async fn adopt_merged(objects: &Objects, manifest: &Manifest, unknown: &Unknown<'_>) -> Result<()> {
    let Unknown { at, first, last, .. } = *unknown;
    let log = unknown.partition.id();
    let files = manifest.settled(log).files;
    let inputs: Vec<Arc<FileEntry>> = files
        .iter()
        .filter(|file| file.first <= last && first <= file.last && slice_of(&file.path) == slice_of(at))
        .cloned()
        .collect();
    let (Some(begin), Some(end)) = (inputs.first(), inputs.last()) else { return Ok(()) };
    let in_slice = |file: &&Arc<FileEntry>| file.first <= last && first <= file.last && file.levels == begin.levels;
    let is_whole = inputs.len() > 1
        && (begin.first, end.last) == (first, last)
        && inputs.iter().all(|input| input.levels == begin.levels)
        && files.iter().filter(in_slice).count() == inputs.len();
    let rows = inputs.iter().map(|input| input.rows).sum::<u64>();
    let paths: Vec<&str> = inputs.iter().map(|input| input.path.as_str()).collect();
    if !is_whole || !is_any_gone(objects, &paths).await? {
        return Ok(());
    }
    let Some(bytes) = size_with(objects, at, rows).await? else { return Ok(()) };
    let times = inputs.iter().filter_map(|input| input.event_ms);
    let event_ms = times.reduce(|(least, largest), (low, high)| (least.min(low), largest.max(high)));
    let published_ms = inputs.iter().map(|input| input.published_ms).max().unwrap_or(0);
    let (ordinal, levels, path) = (begin.ordinal, begin.levels.clone(), at.to_owned());
    let merged = FileEntry { first, last, ordinal, rows, bytes, event_ms, published_ms, path, levels };
    manifest.merge(log, &inputs, merged).await?;
    tracing::info!(file = at, instead_of = inputs.len(), "a file that was merged after the backup is known again");
    Ok(())
}

async fn adopt_raw(objects: &Objects, manifest: &Manifest, unknown: &Unknown<'_>) -> Result<()> {
    let Unknown { at, first, last, .. } = *unknown;
    let log = unknown.partition.id();
    let files = manifest.settled(log).raw;
    let inputs: Vec<Arc<RawFile>> =
        files.iter().filter(|file| file.first <= last && first <= file.last).cloned().collect();
    let ends = inputs.first().zip(inputs.last()).map(|(begin, end)| (begin.first, end.last));
    let follow = inputs.windows(2).all(|pair| pair[0].last + 1 == pair[1].first);
    let records = inputs.iter().map(|input| input.records).sum::<u64>();
    let is_whole =
        inputs.len() > 1 && ends == Some((first, last)) && follow && slice_of(&inputs[0].path) == slice_of(at);
    let paths: Vec<&str> = inputs.iter().map(|input| input.path.as_str()).collect();
    if !is_whole || !is_any_gone(objects, &paths).await? {
        return Ok(());
    }
    let Some(bytes) = size_with(objects, at, records).await? else { return Ok(()) };
    let merged = RawFile {
        first,
        last,
        records,
        bytes,
        max_timestamp: inputs.iter().map(|input| input.max_timestamp).max().unwrap_or(-1),
        published_ms: inputs.iter().map(|input| input.published_ms).max().unwrap_or(0),
        path: at.to_owned(),
        sum: inputs.iter().try_fold(0_u64, |all, input| input.sum.map(|sum| all.wrapping_add(sum))),
    };
    manifest.merge_raw(log, &inputs, merged).await?;
    tracing::info!(
        file = at,
        instead_of = inputs.len(),
        "whole records that were merged after the backup are known again"
    );
    Ok(())
}

async fn is_any_gone(objects: &Objects, paths: &[&str]) -> Result<bool> {
    for path in paths.iter().copied() {
        if objects.size(path).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The size of a file that has so many rows; none when it has others, or is no Parquet file.
async fn size_with(objects: &Objects, at: &str, rows: u64) -> Result<Option<u64>> {
    let Some(bytes) = objects.size(at).await? else { return Ok(None) };
    let mut reader = objects.reader(at, bytes)?;
    match ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::default()).await {
        Ok(footer) => {
            let found = u64::try_from(footer.metadata().file_metadata().num_rows());
            Ok(found.is_ok_and(|found| found == rows).then_some(bytes))
        }
        // what the destination says; it is asked again
        Err(ParquetError::External(error)) => Err(LakeError::destination(format!("{at} cannot be read: {error}"))),
        Err(_) => Ok(None),
    }
}

/// The path below the table's directory, or below that of its archive.
fn place_in<'a>(table: &Table, at: &'a str) -> Option<&'a str> {
    let below = |dir: &str| at.strip_prefix(dir)?.strip_prefix('/');
    below(&table.dir).or_else(|| below(&archive_dir(table)))
}

/// What tells a slice by the paths of its files: the directory, and which of its texts are empty and not null.
fn slice_of(at: &str) -> (&str, &str) {
    let (dir, name) = at.rsplit_once('/').unwrap_or(("", at));
    let stem = name.strip_suffix(".parquet").unwrap_or(name);
    let empty = stem.rsplit_once('-').map_or("", |(_, end)| end);
    (dir, if empty.starts_with('e') { empty } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_told_by_directory_and_empty_texts() {
        assert_eq!(slice_of("t/a=1/t-0-5-9.parquet"), ("t/a=1", ""));
        assert_eq!(slice_of("t/a=1/t-0-5-9-e2.parquet"), ("t/a=1", "e2"));
        assert_eq!(slice_of("t-0-5-9.parquet"), ("", ""));
    }
}
