//! Removing what a crash left behind, and putting aside what deleted topics left.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use broker::{Broker, LogId, Offset, PartitionIndex, TimestampMs};

use crate::archive::archive_dir;
use crate::error::Result;
use crate::floors::Floors;
use crate::manifest::{Manifest, Settled};
use crate::manifest_bytes::FileEntry;
use crate::objects::{DELETED_DIR, Objects, TMP_DIR};
use crate::raw::RAW_DIR;
use crate::tables::Table;
use crate::transform::{WrittenTable, is_table_file};
use crate::writer::published_range;

/// Removes hidden files, and what a crash left in the tables' directories. Other files with our names that the manifest
/// does not know may hold the only copy of records, when the store is one of before: they are put aside, where no reader
/// looks and no later file takes their name. Nothing else is touched.
///
/// # Errors
/// `Destination`; it can be done again.
pub async fn remove_orphans(objects: &Objects, manifest: &Manifest, broker: &Broker, tables: &[&Table]) -> Result<()> {
    objects.clear_hidden().await?;
    let known: HashSet<String> = manifest
        .snapshot(&manifest.logs())
        .iter()
        .flat_map(|settled| {
            let raw = settled.raw.iter().map(|file| file.path.clone());
            settled.files.iter().map(|file| file.path.clone()).chain(raw).collect::<Vec<_>>()
        })
        .collect();
    for table in tables {
        let (mut removed, mut aside) = (0_u64, Vec::new());
        let topic = broker.catalog().topic(&table.topic);
        let settled = |partition: PartitionIndex| {
            let partition = topic.as_ref().and_then(|topic| topic.partition(partition));
            partition.map(|partition| manifest.settled(partition.id())).unwrap_or_default()
        };
        let mut found = Vec::new();
        for dir in dirs(table).into_iter().chain([format!("{RAW_DIR}/{}", table.topic)]) {
            found.extend(objects.list(&dir).await?);
        }
        let there: HashSet<&str> = found.iter().map(String::as_str).collect();
        for at in found.iter().filter(|at| !known.contains(*at)) {
            let name = at.rsplit('/').next().unwrap_or(at);
            let Some((partition, first, last)) = published_range(&table.topic, name) else { continue };
            if is_left((first, last), &settled(partition), &there) {
                objects.delete(at).await?;
                removed += 1;
            } else {
                aside.push(at.clone());
            }
        }
        if removed > 0 {
            tracing::info!(topic = %table.topic, files = removed, "removed files of an attempt that did not end");
        }
        put_aside(objects, table, aside, broker.clock().now_ms()).await?;
    }
    Ok(())
}

/// The directories in which files of a table are made, and in which the start removes what the manifest does not know.
pub fn dirs(table: &Table) -> Vec<String> {
    let archives = table.settles.as_ref().is_some_and(|settles| settles.archive_after_ms.is_some());
    [Some(table.dir.clone()), archives.then(|| archive_dir(table))].into_iter().flatten().collect()
}

/// Whether a file of this range, which the manifest does not know, is what a crash left: an attempt at the range that is
/// fixed, or another copy of records that settled before.
fn is_left((first, last): (Offset, Offset), settled: &Settled, there: &HashSet<&str>) -> bool {
    let planned = settled.plan.is_some_and(|plan| first == plan.first && last <= plan.last);
    let below_mark = settled.mark.is_some_and(|mark| last < mark.offset);
    let mut others = settled.files.iter().filter(|file| file.first <= last && first <= file.last);
    planned || (below_mark && others.all(|file| there.contains(file.path.as_str())))
}

/// Moves files below [`DELETED_DIR`], each time to a directory of its own: a name may come again with other records.
async fn put_aside(objects: &Objects, table: &Table, files: Vec<String>, now_ms: TimestampMs) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let to = format!("{DELETED_DIR}/{}-unknown-{now_ms}", table.topic);
    let moves: Vec<_> = files.iter().map(|at| (at.clone(), format!("{to}/{at}"))).collect();
    objects.publish(&moves).await?;
    tracing::warn!(
        topic = %table.topic, files = files.len(), to,
        "put aside files that the manifest does not know: after a restore they hold what was published since the backup"
    );
    Ok(())
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
