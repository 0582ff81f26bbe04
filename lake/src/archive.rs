//! The life of a topic's files: old slices move to the zone `archive`, and go from there.
//!
//! A slice moves whole: its files are copied under hidden names and renamed, one commit of the manifest names the new
//! places, and the old files go when no query reads them any more. Whatever a crash leaves is a file that the manifest
//! does not know, which the start removes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker::{LogId, TimestampMs};

use crate::config::{ARCHIVE_ZONE, TableConfig};
use crate::error::Result;
use crate::manifest_bytes::FileEntry;
use crate::objects::{Copying, Objects, TMP_DIR};
use crate::retired::{Gone, Retired};
use crate::sealer::Sealer;
use crate::settle::Step;
use crate::slice::Level;
use crate::tables::Table;

/// What archiving did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveReport {
    /// Slices that moved.
    pub slices: u64,
    /// Files of them.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that were deleted from the archive.
    pub expired_files: u64,
    /// Rows in them.
    pub expired_rows: u64,
}

/// Moves and deletes old slices. Holds: the way to what settled, and to what becomes of the old files.
pub struct Archiver {
    sealer: Arc<Sealer>,
    retired: Arc<Retired>,
    attempts: AtomicU64,
}

/// A file of a partition.
type Owned = (LogId, Arc<FileEntry>);

impl Archiver {
    /// An archiver of what the sealer settles.
    pub fn new(sealer: Arc<Sealer>, retired: Arc<Retired>) -> Self {
        Self { sealer, retired, attempts: AtomicU64::new(0) }
    }

    /// Moves and deletes what is old enough at `now`.
    ///
    /// # Errors
    /// `Destination` or `Broker`; what was done before stays done.
    pub async fn archive(&self, now: TimestampMs) -> Result<ArchiveReport> {
        self.sealer.clean().await?;
        let objects = self.sealer.settler().destination.get().await?;
        let mut report = ArchiveReport::default();
        for table in &self.sealer.tables() {
            let Some(config) = &table.settles else { continue };
            if let Some(after) = config.archive_after_ms {
                while self.move_old(table, &objects, now - after, &mut report).await? {}
                self.expire((table, config), &objects, now, &mut report).await?;
            }
        }
        Ok(report)
    }

    /// Moves the slices that are old now; says whether some changed meanwhile and have to be looked at again.
    async fn move_old(
        &self,
        table: &Table,
        objects: &Arc<Objects>,
        before: TimestampMs,
        report: &mut ArchiveReport,
    ) -> Result<bool> {
        let manifest = &self.sealer.settler().manifest;
        let mut changed = false;
        for slice in self.old_slices(table, before) {
            let _one = self.sealer.alone().await;
            if !slice.iter().all(|(log, file)| manifest.is_published(*log, file)) {
                changed = true;
                continue;
            }
            objects.check_present().await?;
            report.slices += 1;
            report.files += slice.len() as u64;
            report.bytes += slice.iter().map(|(_, file)| file.bytes).sum::<u64>();
            self.move_slice(table, objects, slice).await?;
        }
        Ok(changed)
    }

    /// The slices outside the archive whose youngest event is older than `before`.
    fn old_slices(&self, table: &Table, before: TimestampMs) -> Vec<Vec<Owned>> {
        let archived = format!("{}/", archive_dir(table));
        let mut slices: HashMap<Vec<Level>, (bool, Vec<Owned>)> = HashMap::new();
        for (log, file) in self.files(table).into_iter().filter(|(_, file)| !file.path.starts_with(&archived)) {
            let (old, files) = slices.entry(file.levels.clone()).or_insert((true, Vec::new()));
            // rows without event time have no age
            *old &= file.event_ms.is_some_and(|(_, youngest)| youngest < before);
            files.push((log, file));
        }
        slices.into_values().filter_map(|(old, files)| old.then_some(files)).collect()
    }

    fn files(&self, table: &Table) -> Vec<Owned> {
        let settler = self.sealer.settler();
        let Some(topic) = settler.broker.catalog().topic(&table.topic) else { return Vec::new() };
        let of = |log: LogId| settler.manifest.settled(log).files.iter().map(|file| (log, file.clone())).collect();
        topic.partitions().iter().flat_map(|partition| -> Vec<Owned> { of(partition.id()) }).collect()
    }

    async fn move_slice(&self, table: &Table, objects: &Arc<Objects>, slice: Vec<Owned>) -> Result<()> {
        let settler = self.sealer.settler();
        let attempt = format!("{}-{}", settler.manifest.epoch(), self.attempts.fetch_add(1, Ordering::Relaxed));
        let (mut copies, mut moved) = (Vec::new(), Vec::new());
        for (at, (log, file)) in slice.iter().enumerate() {
            let hidden = format!("{TMP_DIR}/{}.archive.{attempt}.{at}.tmp", table.topic);
            let path = format!("{}/{}", archive_dir(table), below_table(file));
            let copy = Copying { from: file.path.clone(), hidden, to: path.clone() };
            objects.begin_copy(&copy).await?;
            copies.push(copy);
            moved.push((*log, file.clone(), Some(FileEntry { path, ..(**file).clone() })));
        }
        settler.step(Step::Written)?;
        objects.publish_copies(&copies).await?;
        settler.step(Step::Renamed)?;
        settler.manifest.rearrange(moved).await?;
        settler.step(Step::Published)?;
        self.retired.retire(objects, slice.into_iter().map(|(_, file)| Gone { file, last: true })).await;
        Ok(())
    }

    /// Forgets and deletes archived files that are old enough, where the log does not have their records any more.
    async fn expire(
        &self,
        (table, config): (&Table, &TableConfig),
        objects: &Arc<Objects>,
        now: TimestampMs,
        report: &mut ArchiveReport,
    ) -> Result<()> {
        let Some(after) = config.expire_after_ms else { return Ok(()) };
        let settler = self.sealer.settler();
        let Some(topic) = settler.broker.catalog().topic(&table.topic) else { return Ok(()) };
        let archived = format!("{}/", archive_dir(table));
        let start = |log: LogId| {
            topic
                .partitions()
                .iter()
                .find(|partition| partition.id() == log)
                .map_or(0, |partition| partition.log_start())
        };
        let old = |(log, file): &Owned| {
            let youngest = file.event_ms.is_some_and(|(_, youngest)| youngest < now - after);
            file.path.starts_with(&archived) && youngest && file.last < start(*log)
        };
        let _one = self.sealer.alone().await;
        let gone: Vec<Owned> = self.files(table).into_iter().filter(old).collect();
        if gone.is_empty() {
            return Ok(());
        }
        settler.manifest.rearrange(gone.iter().map(|(log, file)| (*log, file.clone(), None)).collect()).await?;
        report.expired_files += gone.len() as u64;
        report.expired_rows += gone.iter().map(|(_, file)| file.rows).sum::<u64>();
        self.retired.retire(objects, gone.into_iter().map(|(_, file)| Gone { file, last: true })).await;
        Ok(())
    }
}

/// The directory of a topic's archived files.
pub fn archive_dir(table: &Table) -> String {
    format!("{ARCHIVE_ZONE}/{}", table.topic)
}

/// A file's slice and name.
fn below_table(file: &FileEntry) -> String {
    let parts: Vec<&str> = file.path.split('/').collect();
    parts[parts.len().saturating_sub(file.levels.len() + 1)..].join("/")
}
