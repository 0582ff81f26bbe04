//! Writing one snapshot: the manifests that say what is new and what is gone, and their list.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use iceberg::spec::{ManifestFile, ManifestStatus, TableMetadata};

use super::avro::{self, Entry, Writing};
use super::change::{self, Amount, MANIFEST_FILES_MAX};
use super::data_file::describe;
use super::place::Place;
use super::reach::Kept;
use super::table::{Difference, Wanted, levels_of, spec_of};
use crate::error::{LakeError, Result};
use crate::objects::Objects;
use crate::slice::Level;

/// Writes one snapshot. Holds: what is written, and entries that wait for a manifest, at most [`MANIFEST_FILES_MAX`] of each
/// kind and partitioning.
pub struct SnapshotWriter<'a> {
    objects: &'a Objects,
    place: &'a Place,
    metadata: &'a TableMetadata,
    writing: Writing,
    attempt: &'a str,
    manifests: Vec<Arc<Kept>>,
    files: Vec<String>,
    /// By whether they are new, and by partitioning.
    waiting: BTreeMap<(bool, i32), Vec<Entry>>,
}

/// What a snapshot changed.
#[derive(Debug, Default)]
pub struct Told {
    /// What is new.
    pub added: Amount,
    /// What is gone.
    pub removed: Amount,
    /// Slices of it.
    pub slices: usize,
}

impl<'a> SnapshotWriter<'a> {
    /// A writer of the snapshot `writing` of a table with this metadata.
    pub fn new(
        (objects, place): (&'a Objects, &'a Place),
        metadata: &'a TableMetadata,
        writing: Writing,
        attempt: &'a str,
    ) -> Self {
        let (manifests, files, waiting) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { objects, place, metadata, writing, attempt, manifests, files, waiting }
    }

    /// Says what became of the files of the snapshot before, and which are new.
    ///
    /// # Errors
    /// `Destination` or `Bug`.
    pub async fn tell(&mut self, before: &[Arc<Kept>], wanted: &Wanted, difference: &Difference) -> Result<Told> {
        let mut told = Told::default();
        let change::Manifests { kept, rewritten } = change::manifests(before, &difference.removed);
        self.manifests = kept;
        let mut gone_slices = HashSet::new();
        for manifest in rewritten {
            for mut entry in self.read(&manifest.file).await? {
                entry.status = ManifestStatus::Existing;
                if difference.removed.contains(entry.file.file_path()) {
                    entry.status = ManifestStatus::Deleted;
                    told.removed.add(entry.file.record_count(), entry.file.file_size_in_bytes());
                    gone_slices.insert(entry.file.partition().clone());
                }
                self.push(manifest.file.partition_spec_id, entry).await?;
            }
        }
        let mut slices: HashSet<&[Level]> = HashSet::new();
        for (index, at, url) in &difference.added {
            let file = &wanted.files[*index];
            let spec = spec_of(self.metadata, &levels_of(file));
            let spec = spec.ok_or_else(|| LakeError::bug(format!("{} has no partitioning", file.path)))?;
            let described = describe(self.objects, (file, at, url), (self.metadata.current_schema(), &spec)).await?;
            told.added.add(file.rows, file.bytes);
            slices.insert(&file.levels);
            let Writing { id, sequence, .. } = self.writing;
            let entry = Entry { status: ManifestStatus::Added, snapshot: id, sequence, file: described };
            self.push(spec.spec_id(), entry).await?;
        }
        told.slices = slices.len().max(gone_slices.len());
        Ok(told)
    }

    async fn read(&self, of: &ManifestFile) -> Result<Vec<Entry>> {
        let gone = || LakeError::bug(format!("the manifest {} is gone", of.manifest_path));
        let at = self.place.below_root(&of.manifest_path).ok_or_else(gone)?;
        let bytes = self.objects.read_small(at).await?.ok_or_else(gone)?;
        let entries = avro::read_manifest(&bytes, of)?;
        Ok(entries.into_iter().filter(Entry::is_alive).collect())
    }

    async fn push(&mut self, spec: i32, entry: Entry) -> Result<()> {
        let key = (entry.status == ManifestStatus::Added, spec);
        let waiting = self.waiting.entry(key).or_default();
        waiting.push(entry);
        if waiting.len() < MANIFEST_FILES_MAX {
            return Ok(());
        }
        let entries = std::mem::take(waiting);
        self.write(spec, entries).await
    }

    async fn write(&mut self, spec: i32, entries: Vec<Entry>) -> Result<()> {
        let live = entries.iter().filter(|entry| entry.is_alive()).map(|entry| Arc::from(entry.file.file_path()));
        let live: Vec<Arc<str>> = live.collect();
        let no_spec = || LakeError::bug(format!("no partitioning {spec}"));
        let spec = self.metadata.partition_spec_by_id(spec).ok_or_else(no_spec)?.as_ref().clone();
        let name = format!("files-{}-{}-{}.avro", self.writing.sequence, self.attempt, self.files.len());
        let at = self.place.metadata(&name);
        let columns = (self.metadata.current_schema().clone(), spec);
        let (file, bytes) = avro::manifest(&self.place.url(&at), self.writing, columns, entries).await?;
        self.put(at, bytes).await?;
        self.manifests.push(Arc::new(Kept { file, live }));
        Ok(())
    }

    async fn put(&mut self, at: String, bytes: Bytes) -> Result<()> {
        self.objects.put_whole(&at, bytes).await?;
        self.files.push(at);
        Ok(())
    }

    /// Writes what waits, and the list; gives the list's URL, the manifests, and what was written.
    ///
    /// # Errors
    /// `Destination` or `Bug`.
    pub async fn finish(mut self) -> Result<(String, Vec<Arc<Kept>>, Vec<String>)> {
        for ((_, spec), entries) in std::mem::take(&mut self.waiting) {
            if !entries.is_empty() {
                self.write(spec, entries).await?;
            }
        }
        let manifests = self.manifests.iter().map(|kept| kept.file.clone()).collect();
        let list = avro::manifest_list(self.writing, manifests).await?;
        let Writing { id, sequence, .. } = self.writing;
        let at = self.place.metadata(&format!("snap-{id}-{sequence}-{}.avro", self.attempt));
        let url = self.place.url(&at);
        self.put(at, list).await?;
        Ok((url, self.manifests, self.files))
    }
}
