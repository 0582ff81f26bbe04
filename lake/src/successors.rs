//! Files that took the places of known ones after a backup. A store that was restored from it names files that were merged or
//! archived since, and does not know what has their rows. Where a file that it does not know has just what known ones had,
//! it takes their place in the manifest. Where it has more, because what was published later was merged with them, their part is
//! written anew. So SQL and consumers find them again, each once; what is beyond the store is left to who cleans up.
//!
//! Either is one commit. A crash before it leaves files that the manifest does not know, and all is done again.

use std::collections::HashSet;
use std::sync::Arc;

use broker::{Offset, Partition, TimestampMs};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;

use crate::archive::archive_dir;
use crate::error::{LakeError, Result};
use crate::manifest::{Manifest, Settled};
use crate::manifest_bytes::FileEntry;
use crate::merge::Merging;
use crate::objects::{Objects, TMP_DIR};
use crate::raw::{self, Footers, RAW_DIR, RawFile, RawReader, WrittenRaw};
use crate::tables::Table;
use crate::writer::{Source, Written, published_range};

/// Rows that wait for a row group of a file that is written anew, in bytes.
const GROUP_BYTES: usize = 64 << 20;

/// A file that the manifest does not know.
struct Unknown<'a> {
    at: &'a str,
    partition: &'a Arc<Partition>,
    first: Offset,
    last: Offset,
}

/// Puts what the files that were `found` in a table's directories have of known ones into the manifest; gives the paths of the
/// files that have it.
///
/// # Errors
/// `Destination` or `Broker`; it can be done again.
pub async fn adopt(
    objects: &Arc<Objects>,
    manifest: &Manifest,
    (table, partitions): (&Table, &[Arc<Partition>]),
    found: &[String],
    now: TimestampMs,
) -> Result<Vec<String>> {
    let settled: Vec<_> = partitions.iter().map(|partition| manifest.settled(partition.id())).collect();
    let known: HashSet<&str> = settled.iter().flat_map(Settled::paths).collect();
    let mut adopted = Vec::new();
    for at in found.iter().filter(|at| !known.contains(at.as_str())) {
        let name = at.rsplit('/').next().unwrap_or(at);
        let Some((index, first, last)) = published_range(&table.topic, name) else { continue };
        let Some(partition) = partitions.iter().find(|partition| partition.index() == index) else { continue };
        let (unknown, settled) = (Unknown { at, partition, first, last }, manifest.settled(partition.id()));
        if at.starts_with(&format!("{RAW_DIR}/")) {
            adopted.extend(unknown.adopt_raw(objects, manifest, &settled, now).await?);
        } else if !unknown.adopt_moved(objects, manifest, (table, &settled)).await? {
            adopted.extend(unknown.adopt_merged(objects, manifest, (table, &settled), now).await?);
        }
    }
    Ok(adopted)
}

impl Unknown<'_> {
    /// As a known file that is gone from another directory of the table; whether it is one that is known there.
    async fn adopt_moved(
        &self,
        objects: &Objects,
        manifest: &Manifest,
        (table, settled): (&Table, &Settled),
    ) -> Result<bool> {
        let Some(place) = place_in(table, self.at) else { return Ok(false) };
        let is_it = |file: &&Arc<FileEntry>| place_in(table, &file.path) == Some(place);
        let Some(file) = settled.files.iter().find(is_it) else { return Ok(false) };
        if objects.size(&file.path).await?.is_none() && objects.size(self.at).await? == Some(file.bytes) {
            let moved = FileEntry { path: self.at.to_owned(), ..(**file).clone() };
            manifest.rearrange(vec![(self.partition.id(), file.clone(), Some(moved))]).await?;
            self.told(&[file.path.as_str()]);
        }
        Ok(true)
    }

    /// As known files of its slice that follow one another from its first offset on, some of which are gone; the path of the
    /// file that takes their place.
    async fn adopt_merged(
        &self,
        objects: &Arc<Objects>,
        manifest: &Manifest,
        (table, settled): (&Table, &Settled),
        now: TimestampMs,
    ) -> Result<Option<String>> {
        let overlaps = |file: &&Arc<FileEntry>| file.first <= self.last && self.first <= file.last;
        let is_here =
            |file: &&Arc<FileEntry>| overlaps(file) && slice_in(table, &file.path) == slice_in(table, self.at);
        let inputs: Vec<Arc<FileEntry>> = settled.files.iter().filter(is_here).cloned().collect();
        let (Some(begin), Some(end)) = (inputs.first(), inputs.last()) else { return Ok(None) };
        let in_slice = settled.files.iter().filter(overlaps).filter(|file| file.levels == begin.levels).count();
        let fits = begin.first == self.first
            && end.last <= self.last
            && in_slice == inputs.len()
            && inputs.iter().all(|input| input.levels == begin.levels);
        let parts: Vec<(&str, u64)> = inputs.iter().map(|input| (input.path.as_str(), input.bytes)).collect();
        if !fits || !is_any_gone(objects, &parts).await? {
            return Ok(None);
        }
        let rows = inputs.iter().map(|input| input.rows).sum::<u64>();
        let Some((bytes, found)) = size(objects, self.at).await? else { return Ok(None) };
        let whole = FileEntry {
            first: self.first,
            last: self.last,
            ordinal: begin.ordinal,
            rows: found,
            bytes,
            event_ms: FileEntry::times_of(&inputs),
            published_ms: now,
            path: self.at.to_owned(),
            levels: begin.levels.clone(),
        };
        let is_just_that = (whole.last, whole.rows) == (end.last, rows);
        let entry = if is_just_that { Some(whole) } else { self.cut(objects, manifest, (&whole, &inputs)).await? };
        let Some(entry) = entry else { return Ok(None) };
        let (path, log) = (entry.path.clone(), self.partition.id());
        match self.beside(manifest, &inputs).await?.as_slice() {
            // it was merged with later ones only, and is written again under its name
            [one] => manifest.rearrange(vec![(log, one.clone(), Some(entry))]).await?,
            some => manifest.merge(log, some, entry).await?,
        }
        self.told(&parts.iter().map(|(path, _)| *path).collect::<Vec<_>>());
        Ok(Some(path))
    }

    /// Known files in this one's directory, where they lay before it took their place, if they were archived since.
    async fn beside(&self, manifest: &Manifest, inputs: &[Arc<FileEntry>]) -> Result<Vec<Arc<FileEntry>>> {
        let (log, dir) = (self.partition.id(), slice_of(self.at).0);
        let elsewhere = inputs.iter().filter(|input| slice_of(&input.path).0 != dir);
        let moved = |input: &Arc<FileEntry>| {
            let name = input.path.rsplit('/').next().unwrap_or(&input.path);
            (log, input.clone(), Some(FileEntry { path: format!("{dir}/{name}"), ..(**input).clone() }))
        };
        let moves: Vec<_> = elsewhere.map(moved).collect();
        if moves.is_empty() {
            return Ok(inputs.to_vec());
        }
        manifest.rearrange(moves).await?;
        let is_input = |file: &&Arc<FileEntry>| {
            inputs.iter().any(|input| (input.first, input.ordinal) == (file.first, file.ordinal))
        };
        Ok(manifest.settled(log).files.iter().filter(is_input).cloned().collect())
    }

    /// The rows that known files had, in a file of their own; none when it has not just as many.
    async fn cut(
        &self,
        objects: &Arc<Objects>,
        manifest: &Manifest,
        (whole, inputs): (&FileEntry, &[Arc<FileEntry>]),
    ) -> Result<Option<FileEntry>> {
        let source = self.source(manifest);
        let hidden =
            format!("{TMP_DIR}/{}-{}-{}.{}.cut.tmp", source.topic, source.partition, self.first, source.attempt);
        let mut part = Merging::new(objects.clone(), source, hidden, GROUP_BYTES);
        part.take_to(whole, inputs.last().map_or(self.last, |end| end.last)).await?;
        let Written { hidden, entry } = part.finish(inputs, whole.published_ms).await?;
        if entry.rows != inputs.iter().map(|input| input.rows).sum::<u64>() {
            objects.delete(&hidden).await?;
            return Ok(None);
        }
        objects.sync(std::slice::from_ref(&hidden)).await?;
        objects.publish(&[(hidden, entry.path.clone())]).await?;
        Ok(Some(entry))
    }

    /// As known files of whole records that follow one another from its first offset on, some of which are gone; the path
    /// of the file that takes their place.
    async fn adopt_raw(
        &self,
        objects: &Arc<Objects>,
        manifest: &Manifest,
        settled: &Settled,
        now: TimestampMs,
    ) -> Result<Option<String>> {
        let overlaps = |file: &&Arc<RawFile>| file.first <= self.last && self.first <= file.last;
        let inputs: Vec<Arc<RawFile>> = settled.raw.iter().filter(overlaps).cloned().collect();
        let (Some(begin), Some(end)) = (inputs.first(), inputs.last()) else { return Ok(None) };
        let follow = inputs.windows(2).all(|pair| pair[0].last + 1 == pair[1].first);
        let fits = begin.first == self.first && end.last <= self.last && slice_of(&begin.path) == slice_of(self.at);
        let parts: Vec<(&str, u64)> = inputs.iter().map(|input| (input.path.as_str(), input.bytes)).collect();
        if !follow || !fits || !is_any_gone(objects, &parts).await? {
            return Ok(None);
        }
        let Some((bytes, found)) = size(objects, self.at).await? else { return Ok(None) };
        let whole = RawFile {
            first: self.first,
            last: self.last,
            records: found,
            bytes,
            max_timestamp: inputs.iter().map(|input| input.max_timestamp).max().unwrap_or(-1),
            published_ms: now,
            path: self.at.to_owned(),
            sum: RawFile::sum_of(&inputs),
        };
        let records = inputs.iter().map(|input| input.records).sum::<u64>();
        let is_just_that = (whole.last, whole.records) == (end.last, records);
        let entry = if is_just_that { Some(whole) } else { self.cut_raw(objects, manifest, (&whole, &inputs)).await? };
        let Some(entry) = entry else { return Ok(None) };
        let path = entry.path.clone();
        manifest.merge_raw(self.partition.id(), &inputs, entry).await?;
        self.told(&parts.iter().map(|(path, _)| *path).collect::<Vec<_>>());
        Ok(Some(path))
    }

    /// The records that known files had, in a file of their own; none when it has others.
    async fn cut_raw(
        &self,
        objects: &Arc<Objects>,
        manifest: &Manifest,
        (whole, inputs): (&RawFile, &[Arc<RawFile>]),
    ) -> Result<Option<RawFile>> {
        let reader = RawReader { objects: objects.clone(), footers: Footers::default() };
        let (source, end) = (self.source(manifest), inputs.last().map_or(self.last, |end| end.last));
        let WrittenRaw { hidden, file } = raw::cut(&reader, whole, (&source, end), whole.published_ms).await?;
        let records = inputs.iter().map(|input| input.records).sum::<u64>();
        if file.records != records || (whole.sum.is_some() && whole.sum != file.sum) {
            objects.delete(&hidden).await?;
            return Ok(None);
        }
        objects.sync(std::slice::from_ref(&hidden)).await?;
        objects.publish(&[(hidden, file.path.clone())]).await?;
        Ok(Some(RawFile { max_timestamp: whole.max_timestamp, ..file }))
    }

    /// What a part of it is written as. Nothing else is written meanwhile.
    fn source(&self, manifest: &Manifest) -> Source {
        Source {
            topic: self.partition.topic().clone(),
            dir: slice_of(self.at).0.to_owned(),
            partition: self.partition.index(),
            first: self.first,
            attempt: format!("{}-0", manifest.epoch()),
        }
    }

    fn told(&self, known: &[&str]) {
        tracing::info!(
            file = self.at,
            known = known.len(),
            first = ?known.first(),
            "what files had that are gone since the backup is known again"
        );
    }
}

async fn is_any_gone(objects: &Objects, known: &[(&str, u64)]) -> Result<bool> {
    for (path, bytes) in known.iter().copied() {
        if objects.size(path).await? != Some(bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The size of a file and its rows; none when it is no Parquet file.
async fn size(objects: &Objects, at: &str) -> Result<Option<(u64, u64)>> {
    let Some(bytes) = objects.size(at).await? else { return Ok(None) };
    let mut reader = objects.reader(at, bytes)?;
    match ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::default()).await {
        Ok(footer) => Ok(u64::try_from(footer.metadata().file_metadata().num_rows()).ok().map(|rows| (bytes, rows))),
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

/// What tells a slice in the table and in its archive.
fn slice_in<'a>(table: &Table, at: &'a str) -> Option<(&'a str, &'a str)> {
    place_in(table, at).map(slice_of)
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
