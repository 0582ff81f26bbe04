//! Removing what a crash left behind, and putting aside what deleted topics left.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use broker::{Broker, LogId};

use crate::archive::archive_dir;
use crate::error::Result;
use crate::floors::Floors;
use crate::manifest::Manifest;
use crate::manifest_bytes::FileEntry;
use crate::objects::{DELETED_DIR, Objects};
use crate::tables::Table;
use crate::transform::{WrittenTable, is_table_file};
use crate::writer::is_published_name;

/// Removes hidden files, and files with our names in the tables' directories that the manifest does not know. Nothing
/// else is touched.
///
/// # Errors
/// `Destination`; it can be done again.
pub async fn remove_orphans(objects: &Objects, manifest: &Manifest, tables: &[&Table]) -> Result<()> {
    objects.clear_hidden().await?;
    let known: HashSet<String> = manifest
        .snapshot(&manifest.logs())
        .iter()
        .flat_map(|settled| settled.files.iter().map(|file| file.path.clone()))
        .collect();
    for table in tables {
        let mut removed = 0_u64;
        let mut found = Vec::new();
        for dir in dirs(table) {
            found.extend(objects.list(&dir).await?);
        }
        for at in found {
            let name = at.rsplit('/').next().unwrap_or(&at);
            if is_published_name(&table.topic, name) && !known.contains(&at) {
                objects.delete(&at).await?;
                removed += 1;
            }
        }
        if removed > 0 {
            tracing::info!(topic = %table.topic, files = removed, "removed files of an attempt that did not end");
        }
    }
    Ok(())
}

/// The directories in which files of a table are made, and in which the start removes what the manifest does not know.
pub fn dirs(table: &Table) -> Vec<String> {
    let archives = table.settles.as_ref().is_some_and(|settles| settles.archive_after_ms.is_some());
    [Some(table.dir.clone()), archives.then(|| archive_dir(table))].into_iter().flatten().collect()
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
