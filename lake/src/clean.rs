//! Removing what a crash left behind, and putting aside what deleted topics left.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use broker::{Broker, LogId, Offset, Partition, PartitionIndex, TimestampMs};

use crate::archive::archive_dir;
use crate::error::Result;
use crate::floors::Floors;
use crate::manifest::{Manifest, Settled};
use crate::manifest_bytes::FileEntry;
use crate::objects::{DELETED_DIR, Objects, TMP_DIR};
use crate::put_aside::{AsideRanges, PutAside};
use crate::raw::RAW_DIR;
use crate::successors;
use crate::tables::Table;
use crate::transform::{WrittenTable, is_table_file};
use crate::writer::published_range;

/// What lies in a table's directories.
pub struct Found<'a> {
    table: &'a Table,
    partitions: Vec<Arc<Partition>>,
    files: Vec<String>,
}

/// Lists the directories of tables. What files there have of known ones that are gone is known again.
///
/// # Errors
/// `Destination` or `Broker`; it can be done again.
pub async fn look<'a>(
    objects: &Arc<Objects>,
    manifest: &Manifest,
    broker: &Broker,
    tables: &[&'a Table],
) -> Result<Vec<Found<'a>>> {
    let mut found = Vec::with_capacity(tables.len());
    for table in tables.iter().copied() {
        let partitions = broker.catalog().topic(&table.topic).map(|topic| topic.partitions());
        let partitions: Vec<_> = partitions.iter().flat_map(|all| all.iter().cloned()).collect();
        let mut files = Vec::new();
        for dir in dirs(table).into_iter().chain([format!("{RAW_DIR}/{}", table.topic)]) {
            files.extend(objects.list(&dir).await?);
        }
        let now = broker.clock().now_ms();
        let adopted = successors::adopt(objects, manifest, (table, &partitions), &files, now).await?;
        files.extend(adopted);
        found.push(Found { table, partitions, files });
    }
    Ok(found)
}

/// Whether a known file is gone, and nothing took its place.
///
/// # Errors
/// `Destination`.
pub async fn is_any_gone(objects: &Objects, manifest: &Manifest, found: &[Found<'_>]) -> Result<bool> {
    for Found { partitions, files, .. } in found {
        let there: HashSet<&str> = files.iter().map(String::as_str).collect();
        for partition in partitions {
            let known = manifest.settled(partition.id()).files;
            for file in known.iter().filter(|file| !there.contains(file.path.as_str())) {
                if objects.size(&file.path).await?.is_none() {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Removes hidden files, and what a crash left in the tables' directories. Other files with our names that the manifest
/// does not know may hold the only copy of records, when the store is one of before. Those that took the places of known ones are
/// known again; others are put aside, where no reader looks and no later file takes their name. `ends` is where logs ended when
/// the lake was started. Nothing else is touched.
///
/// # Errors
/// `Destination`; it can be done again.
pub async fn remove_orphans(
    objects: &Arc<Objects>,
    manifest: &Manifest,
    broker: &Broker,
    (tables, ends): (&[&Table], &HashMap<LogId, Offset>),
) -> Result<()> {
    objects.clear_hidden().await?;
    let found = look(objects, manifest, broker, tables).await?;
    let published = manifest.snapshot(&manifest.logs());
    let known: HashSet<&str> = published.iter().flat_map(Settled::paths).collect();
    for Found { table, partitions, files } in &found {
        let (mut removed, mut aside) = (0_u64, Vec::new());
        let there: HashSet<&str> = files.iter().map(String::as_str).collect();
        for at in files.iter().filter(|at| !known.contains(at.as_str())) {
            let name = at.rsplit('/').next().unwrap_or(at);
            let Some((index, first, last)) = published_range(&table.topic, name) else { continue };
            let partition = partitions.iter().find(|partition| partition.index() == index);
            let settled = partition.map(|partition| manifest.settled(partition.id())).unwrap_or_default();
            let others = overlapping(at, (first, last), &settled);
            if is_left((first, last), &settled, others.iter().all(|(path, _)| there.contains(path.as_str()))) {
                objects.delete(at).await?;
                removed += 1;
            } else {
                aside.push(Unknown { at: at.clone(), index, range: (first, last), others });
            }
        }
        if removed > 0 {
            tracing::info!(topic = %table.topic, files = removed, "removed files of an attempt that did not end");
        }
        let end = |partition: &Arc<Partition>| {
            let end = ends.get(&partition.id()).copied();
            (partition.index(), end.unwrap_or_else(|| partition.high_watermark()))
        };
        let ends: BTreeMap<PartitionIndex, Offset> = partitions.iter().map(end).collect();
        put_aside(objects, (&*table.topic, broker.clock().now_ms()), &ends, aside).await?;
    }
    Ok(())
}

/// A file that the manifest does not know, and whose records may be nowhere else.
struct Unknown {
    at: String,
    index: PartitionIndex,
    range: (Offset, Offset),
    /// The known files of these offsets.
    others: Vec<(String, (Offset, Offset))>,
}

/// The known files that have offsets of a range: of whole records for such a file, else of the table.
fn overlapping(at: &str, (first, last): (Offset, Offset), settled: &Settled) -> Vec<(String, (Offset, Offset))> {
    let fits = |(_, (low, high)): &(String, (Offset, Offset))| *low <= last && first <= *high;
    match at.starts_with(&format!("{RAW_DIR}/")) {
        true => settled.raw.iter().map(|file| (file.path.clone(), (file.first, file.last))).filter(fits).collect(),
        false => settled.files.iter().map(|file| (file.path.clone(), (file.first, file.last))).filter(fits).collect(),
    }
}

/// The directories in which files of a table are made, and in which the start removes what the manifest does not know.
pub fn dirs(table: &Table) -> Vec<String> {
    let archives = table.settles.as_ref().is_some_and(|settles| settles.archive_after_ms.is_some());
    [Some(table.dir.clone()), archives.then(|| archive_dir(table))].into_iter().flatten().collect()
}

/// Whether a file of this range, which the manifest does not know, is what a crash left: an attempt at the range that is
/// fixed, or another copy of records that settled before, whose known files are all there.
fn is_left((first, last): (Offset, Offset), settled: &Settled, others_are_there: bool) -> bool {
    let planned = settled.plan.is_some_and(|plan| first == plan.first && last <= plan.last);
    planned || (others_are_there && settled.mark.is_some_and(|mark| last < mark.offset))
}

/// Puts files aside, each time in a directory of its own: a name may come again with other records.
async fn put_aside(
    objects: &Objects,
    (topic, now_ms): (&str, TimestampMs),
    ends: &BTreeMap<PartitionIndex, Offset>,
    files: Vec<Unknown>,
) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let mut has: BTreeMap<PartitionIndex, [Vec<(Offset, Offset)>; 2]> = BTreeMap::new();
    for file in &files {
        let [ranges, unread] = has.entry(file.index).or_default();
        ranges.push(file.range);
        for (path, range) in &file.others {
            if objects.size(path).await?.is_none() {
                unread.push(*range);
            }
        }
    }
    let of = |(index, [ranges, unread]): (PartitionIndex, [Vec<(Offset, Offset)>; 2])| {
        (index, AsideRanges::new(ends.get(&index).copied().unwrap_or(0), ranges, unread))
    };
    let aside = PutAside::new(topic, now_ms, files.len() as u64, has.into_iter().map(of).collect());
    aside.take(objects, &files.into_iter().map(|file| file.at).collect::<Vec<_>>()).await
}

/// Removes the hidden files of all attempts at what `of` names, when none is at work: `<of>.<attempt>.<number>.tmp`.
pub async fn remove_hidden(objects: &Objects, of: &str) {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let is_hidden = |name: &str| {
        let rest = name.strip_prefix(of).and_then(|rest| rest.strip_prefix('.'));
        let parts: Vec<&str> = rest.unwrap_or("").split('.').collect();
        matches!(parts[..], [attempt, at, "tmp"] if number(attempt) && number(at))
    };
    let found = objects.list(TMP_DIR).await.unwrap_or_default();
    for at in found.iter().filter(|at| is_hidden(at.rsplit('/').next().unwrap_or(at))) {
        if let Err(error) = objects.delete(at).await {
            tracing::debug!(%error, "a hidden file stays until the next attempt or start");
        }
    }
}

/// Removes files of runs that did not end, and of runs before, that the manifest does not know (any more).
///
/// # Errors
/// `Destination`; it can be done again.
pub async fn remove_table_orphans(objects: &Objects, tables: &[Arc<WrittenTable>]) -> Result<()> {
    for table in tables {
        let files = table.files();
        let known: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let mut removed = 0_u64;
        for at in objects.list(&table.dir()).await? {
            let name = at.rsplit('/').next().unwrap_or(&at);
            if is_table_file(&table.config.name, name) && !known.contains(at.as_str()) {
                objects.delete(&at).await?;
                removed += 1;
            }
        }
        if removed > 0 {
            tracing::info!(table = %table.config.name, files = removed, "removed files of a run that did not end");
        }
    }
    Ok(())
}

/// The partitions in the manifest whose topics were deleted.
pub fn deleted(manifest: &Manifest, broker: &Broker) -> Vec<LogId> {
    let topics = broker.catalog().topics();
    let ids = |topic: &std::sync::Arc<broker::Topic>| {
        topic.partitions().iter().map(|partition| partition.id()).collect::<Vec<_>>()
    };
    let alive: BTreeSet<LogId> = topics.iter().flat_map(ids).collect();
    manifest.logs().into_iter().filter(|log| !alive.contains(log)).collect()
}

/// Moves the files of topics that were deleted to [`DELETED_DIR`], where no reader looks and a successor of the same name
/// does not meet them, and forgets them. May be interrupted and done again.
///
/// # Errors
/// `Destination` or `Broker`.
pub async fn retire_deleted(objects: &Objects, manifest: &Manifest, floors: &Floors, deleted: &[LogId]) -> Result<()> {
    for log in deleted.iter().copied() {
        let files = manifest.settled(log).files;
        let mut moves = Vec::with_capacity(files.len());
        for file in files.iter() {
            if objects.size(&file.path).await?.is_some() {
                moves.push((file.path.clone(), retired_path(file, log)));
            }
        }
        objects.publish(&moves).await?;
        // as in Kafka, nothing is left to consumers of a topic that was deleted
        let raw = manifest.settled(log).raw;
        for file in raw.iter() {
            objects.delete(&file.path).await?;
        }
        if !raw.is_empty() {
            objects.remove_empty_dirs(RAW_DIR).await;
        }
        manifest.forget(log).await?;
        floors.clear(log);
        if let Some((dir, topic, _)) = files.first().map(|file| table_dir(file)) {
            objects.remove_empty_dirs(&dir).await;
            tracing::info!(topic, %log, files = files.len(), to = DELETED_DIR, "the topic was deleted, its files are put aside");
        }
    }
    Ok(())
}

/// `[<zone>/]<topic>/rest` → `_deleted/<topic>-<log id>/rest`.
fn retired_path(file: &FileEntry, log: LogId) -> String {
    let (_, topic, rest) = table_dir(file);
    format!("{DELETED_DIR}/{topic}-{}/{rest}", log.0)
}

/// The table's directory, the topic, and the path below the directory.
fn table_dir(file: &FileEntry) -> (String, String, String) {
    let parts: Vec<&str> = file.path.split('/').collect();
    // the file's name and one directory per level come last
    let (dir, rest) = parts.split_at(parts.len().saturating_sub(file.levels.len() + 1));
    (dir.join("/"), dir.last().unwrap_or(&"").to_string(), rest.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest_bytes::{Mark, Plan};

    #[test]
    fn only_what_a_crash_left_goes() {
        let settled = Settled {
            mark: Some(Mark { offset: 10, moved_ms: 1 }),
            plan: Some(Plan { first: 10, last: 14, epoch: 1 }),
            ..Settled::default()
        };
        for (range, others_are_there, goes) in [
            ((10, 14), false, true),
            ((10, 12), false, true),
            ((10, 15), true, false),
            ((11, 14), true, false),
            ((5, 9), true, true),
            ((5, 9), false, false),
            ((5, 10), true, false),
        ] {
            assert_eq!(is_left(range, &settled, others_are_there), goes, "{range:?} {others_are_there}");
        }
        assert!(!is_left((0, 0), &Settled::default(), true), "nothing settled yet");
    }
}
