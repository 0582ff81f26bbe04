//! Manifests and manifest lists as bytes. The writers of the crate write to its own in-memory files, one at a time; where the
//! bytes go is ours to say.

use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, Manifest, ManifestEntry, ManifestFile, ManifestList, ManifestListWriter, ManifestStatus,
    ManifestWriterBuilder, PartitionSpec, SchemaRef,
};

use super::told;
use crate::error::{LakeError, Result};

/// The name of the one file in memory.
const IN_MEMORY: &str = "memory://one";

/// A data file in a manifest, with what it takes over from the manifest list.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What became of it in the snapshot that wrote the manifest.
    pub status: ManifestStatus,
    /// The snapshot that added it, or removed it.
    pub snapshot: i64,
    /// The sequence number of the snapshot that added it.
    pub sequence: i64,
    /// The file.
    pub file: DataFile,
}

/// The snapshot that writes.
#[derive(Clone, Copy, Debug)]
pub struct Writing {
    /// Its id.
    pub id: i64,
    /// The one before it.
    pub parent: Option<i64>,
    /// Its sequence number.
    pub sequence: i64,
}

/// Writes a manifest that gets the URL `url`.
///
/// # Errors
/// `Bug`.
pub async fn manifest(
    url: &str,
    writing: Writing,
    (schema, spec): (SchemaRef, PartitionSpec),
    entries: Vec<Entry>,
) -> Result<(ManifestFile, Bytes)> {
    let failed = || told("a manifest");
    let memory = FileIO::new_with_memory();
    let output = memory.new_output(IN_MEMORY).map_err(failed())?;
    let builder = ManifestWriterBuilder::new(output, Some(writing.id), schema, spec);
    let mut writer = builder.build_v2_data();
    for Entry { status, snapshot, sequence, file } in entries {
        match status {
            // its sequence number is taken over from the list
            ManifestStatus::Added => writer.add_file(file, -1),
            ManifestStatus::Existing => writer.add_existing_file(file, snapshot, sequence, Some(sequence)),
            ManifestStatus::Deleted => writer.add_delete_file(file, sequence, Some(sequence)),
        }
        .map_err(failed())?;
    }
    let mut written = writer.write_manifest_file().await.map_err(failed())?;
    written.manifest_path = url.to_owned();
    written.sequence_number = writing.sequence;
    if written.min_sequence_number < 0 {
        written.min_sequence_number = writing.sequence;
    }
    Ok((written, whole(&memory).await?))
}

/// Writes a manifest list.
///
/// # Errors
/// `Bug`.
pub async fn manifest_list(writing: Writing, manifests: Vec<ManifestFile>) -> Result<Bytes> {
    let failed = || told("a manifest list");
    let memory = FileIO::new_with_memory();
    let output = memory.new_output(IN_MEMORY).map_err(failed())?;
    let output = output.writer().await.map_err(failed())?;
    let mut list = ManifestListWriter::v2(output, writing.id, writing.parent, writing.sequence);
    list.add_manifests(manifests.into_iter()).map_err(failed())?;
    list.close().await.map_err(failed())?;
    whole(&memory).await
}

async fn whole(memory: &FileIO) -> Result<Bytes> {
    let input = memory.new_input(IN_MEMORY).map_err(told("memory"))?;
    input.read().await.map_err(told("memory"))
}

/// Reads a manifest list.
///
/// # Errors
/// `Bug` when it is damaged.
pub fn read_list(bytes: &[u8]) -> Result<Vec<ManifestFile>> {
    let list = ManifestList::parse_with_version(bytes, FormatVersion::V2).map_err(told("a manifest list"))?;
    Ok(list.consume_entries().into_iter().collect())
}

/// Reads a manifest of which the list says `of`.
///
/// # Errors
/// `Bug` when it is damaged.
pub fn read_manifest(bytes: &[u8], of: &ManifestFile) -> Result<Vec<Entry>> {
    let (entries, _) = Manifest::parse_avro(bytes).map_err(told("a manifest"))?.into_parts();
    let entry = |entry: Arc<ManifestEntry>| Entry {
        status: entry.status,
        snapshot: entry.snapshot_id.unwrap_or(of.added_snapshot_id),
        sequence: entry.sequence_number.unwrap_or(of.sequence_number),
        file: entry.data_file.clone(),
    };
    let entries: Vec<Entry> = entries.into_iter().map(entry).collect();
    let counted = [of.added_files_count, of.existing_files_count, of.deleted_files_count];
    let counted: u32 = counted.into_iter().flatten().sum();
    if entries.len() as u64 != u64::from(counted) {
        let message = format!("a manifest has {} entries, its list says {counted}", entries.len());
        return Err(LakeError::bug(message));
    }
    Ok(entries)
}

impl Entry {
    /// Whether the snapshot has the file.
    pub fn is_alive(&self) -> bool {
        self.status != ManifestStatus::Deleted
    }
}
