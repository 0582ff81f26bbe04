//! A table as its directory has it: after a start, and after anything went wrong.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{SnapshotRef, TableMetadata};

use super::avro::{self, Entry};
use super::place::Place;
use super::reach::{Held, Kept, Reach};
use super::table::{IcebergTable, Wanted};
use crate::error::Result;
use crate::objects::Objects;

/// Versions that are looked at, the newest first: a crash can damage the last one.
const LOOK_BACK: usize = 5;

/// Loads a table, or begins a new one where there is none, or none that can be read whole: what it is made of is in the
/// manifest.
///
/// # Errors
/// `Destination`; `Bug` when the columns make no table.
pub async fn load(objects: &Objects, place: Place, wanted: &Wanted) -> Result<IcebergTable> {
    let found = objects.list(place.dir()).await?;
    let mut versions: Vec<u64> = found.iter().filter_map(|at| place.version_of(at)).collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    let mut loaded = None;
    for version in versions.iter().take(LOOK_BACK) {
        match read(objects, &place, *version).await? {
            Some((metadata, reach)) => {
                loaded = Some(IcebergTable::loaded(place.clone(), metadata, *version, reach));
                break;
            }
            None => tracing::warn!(
                table = place.dir(),
                version,
                "a version of the Iceberg metadata cannot be used, an older one is"
            ),
        }
    }
    let hint = objects.read_small(&place.metadata("version-hint.text")).await?;
    let mut table = match loaded {
        Some(table) => table,
        None => IcebergTable::new(place, wanted)?,
    };
    table.found(found, hint.as_deref());
    Ok(table)
}

/// One version with all that it reaches; none when something of it is missing, damaged, or says that the lake lies elsewhere.
async fn read(objects: &Objects, place: &Place, version: u64) -> Result<Option<(TableMetadata, Reach)>> {
    let Some(bytes) = objects.read_small(&place.version(version)).await? else { return Ok(None) };
    let Ok(metadata) = serde_json::from_slice::<TableMetadata>(&bytes) else { return Ok(None) };
    if metadata.location() != place.url(place.dir()) {
        return Ok(None);
    }
    let mut snapshots: Vec<&SnapshotRef> = metadata.snapshots().collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    let mut reading = Reading { objects, place, known: HashMap::new() };
    let mut reach = Reach::default();
    for snapshot in snapshots {
        let Some(manifests) = reading.manifests(snapshot.manifest_list()).await? else { return Ok(None) };
        reach.push(Held { id: snapshot.snapshot_id(), list: snapshot.manifest_list().to_owned(), manifests });
    }
    Ok(Some((metadata, reach)))
}

/// Manifests by their URLs: snapshots share most of them.
struct Reading<'a> {
    objects: &'a Objects,
    place: &'a Place,
    known: HashMap<String, Arc<Kept>>,
}

impl Reading<'_> {
    async fn bytes(&self, url: &str) -> Result<Option<bytes::Bytes>> {
        match self.place.below_root(url) {
            Some(at) => self.objects.read_small(at).await,
            None => Ok(None),
        }
    }

    async fn manifests(&mut self, list: &str) -> Result<Option<Vec<Arc<Kept>>>> {
        let Some(bytes) = self.bytes(list).await? else { return Ok(None) };
        let Ok(files) = avro::read_list(&bytes) else { return Ok(None) };
        let mut manifests = Vec::with_capacity(files.len());
        for file in files {
            if let Some(kept) = self.known.get(&file.manifest_path) {
                manifests.push(kept.clone());
                continue;
            }
            let Some(bytes) = self.bytes(&file.manifest_path).await? else { return Ok(None) };
            let Ok(entries) = avro::read_manifest(&bytes, &file) else { return Ok(None) };
            let alive = entries.iter().filter(|entry| Entry::is_alive(entry));
            let live = alive.map(|entry| Arc::from(entry.file.file_path())).collect();
            let kept = Arc::new(Kept { file, live });
            self.known.insert(kept.file.manifest_path.clone(), kept.clone());
            manifests.push(kept);
        }
        Ok(Some(manifests))
    }
}
