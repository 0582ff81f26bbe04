//! Backups: the whole store of one moment, and the lake's files where the lake lies in the data directory, as plain files
//! at a destination; and the way back.
//!
//! ```text
//! <url>/_millpond.json                whose backups they are
//! <url>/<name>/store/…                RocksDB as it was; <name> is the time, as in 20261128T020000000Z
//! <url>/<name>/lake/…                 Parquet files of the lake, where it lies in the data directory
//! <url>/<name>/_backup.json           written last: a backup without it is none
//! ```
//!
//! A restored copy is a store that ended without warning: it begins as after a crash, with new leader epochs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker::{Broker, TimestampMs, checksum};
use bytes::Bytes;
use parquet::arrow::async_writer::AsyncFileWriter;
use serde::{Deserialize, Serialize};

use crate::config::Access;
use crate::data_dir::{
    Held, LAKE_DIR, STORE_DIR, blocking, lake_root, make_dirs, refuse_damaged, refuse_taken, take_place, unwritable,
};
use crate::error::{LakeError, LakeErrorKind, Result};
use crate::objects::{Address, OWNER_FILE, Objects, RETIRED_DIR};
use crate::query::Source;

/// What makes a backup whole.
const MANIFEST_FILE: &str = "_backup.json";
const MANIFEST_VERSION: u32 = 1;
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// Below the data directory: what a backup copies from, gone when it is done.
const CHECKPOINT_DIR: &str = "backup-checkpoint";
/// Below the data directory: what a restore writes until it is whole.
const RESTORING_DIR: &str = "restoring";
/// Below the data directory: what is known of uploads of a backup that are not ended.
const UPLOADS_DIR: &str = "backup-uploads";

/// Makes backups, one at a time. Holds: what is copied; a crash leaves a backup that is none, which the next one removes.
pub struct Backups {
    broker: Arc<Broker>,
    source: Arc<Source>,
    access: Access,
    running: tokio::sync::Mutex<()>,
}

/// What a backup wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Its name: the time.
    pub name: String,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Older backups that were removed.
    pub removed: u64,
}

/// What a restore wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// The backup.
    pub name: String,
    /// When it was made, in ms since 1970.
    pub at_ms: TimestampMs,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct BackupManifest {
    v: u32,
    cluster_id: String,
    at_ms: TimestampMs,
    files: Vec<BackupFile>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct BackupFile {
    /// Below the backup: `store/…` or `lake/…`.
    path: String,
    bytes: u64,
    /// CRC-32C of its bytes.
    crc32c: u32,
}

/// The checkpoint that is copied, removed with this.
struct Checkpoint(PathBuf);

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // what stays is removed by the next backup
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = self.0.parent().map(std::fs::remove_dir);
    }
}

impl Backups {
    /// What makes backups of a broker and the lake over it.
    pub(crate) fn new(broker: Arc<Broker>, source: Arc<Source>, access: Access) -> Self {
        Self { broker, source, access, running: tokio::sync::Mutex::default() }
    }

    /// Copies the store and the lake's files in the data directory to `url`, and removes what is older than the last
    /// `keep` backups. `{data_dir}` in the URL stands for the data directory.
    ///
    /// # Errors
    /// `Refused` where a file of the store is damaged: it would be in the backup, and in the end in all that are kept. `Config` for a place of
    /// another cluster's backups, `Destination` when it does not answer or is full, `Broker` when the store cannot be read.
    pub async fn run(&self, url: &str, keep: usize) -> Result<BackupReport> {
        let _alone = self.running.lock().await;
        refuse_damaged(&self.broker)?;
        let url = url.replace("{data_dir}", &self.broker.config().data_dir.display().to_string());
        let work_dir = self.broker.config().data_dir.join(UPLOADS_DIR);
        let address = Address { url, access: self.access.clone(), work_dir };
        let runtime = tokio::runtime::Handle::current();
        let objects = Objects::open(&address, self.broker.cluster_id(), (false, &runtime)).await?;
        let at_ms = self.broker.clock().now_ms();
        let name = name_of(at_ms)?;
        let (checkpoint, held) = Held::beside(&self.source, self.checkpoint(&name)).await?;
        // each with the places where it may lie
        let mut wanted: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in files_in(&checkpoint.0)? {
            wanted.insert(format!("{STORE_DIR}/{path}"), vec![checkpoint.0.join(&path)]);
        }
        if let Some(root) = lake_root(&self.source) {
            let owner = std::iter::once(OWNER_FILE).filter(|owner| root.join(owner).exists());
            for path in owner.chain(held.paths()) {
                let places = vec![root.join(path), root.join(RETIRED_DIR).join(path)];
                wanted.insert(format!("{LAKE_DIR}/{path}"), places);
            }
        }
        let mut files = Vec::with_capacity(wanted.len());
        for (path, from) in wanted {
            let (bytes, crc32c) = copy_up(&objects, from, &format!("{name}/{path}")).await?;
            files.push(BackupFile { path, bytes, crc32c });
        }
        objects.sync(&files.iter().map(|file| format!("{name}/{}", file.path)).collect::<Vec<_>>()).await?;
        let (count, bytes) = (files.len() as u64, files.iter().map(|file| file.bytes).sum());
        let manifest =
            BackupManifest { v: MANIFEST_VERSION, cluster_id: self.broker.cluster_id().to_owned(), at_ms, files };
        let manifest = serde_json::to_vec(&manifest).map_err(|e| LakeError::bug(format!("backup: {e}")))?;
        objects.put_small(&format!("{name}/{MANIFEST_FILE}"), manifest.into()).await?;
        let removed = remove_old(&objects, &name, keep.max(1)).await?;
        Ok(BackupReport { name, files: count, bytes, removed })
    }

    async fn checkpoint(&self, name: &str) -> Result<Checkpoint> {
        let above = self.broker.config().data_dir.join(CHECKPOINT_DIR);
        let (broker, dir) = (self.broker.clone(), above.join(name));
        blocking(move || {
            // what a killed backup left
            let _ = std::fs::remove_dir_all(&above);
            std::fs::create_dir_all(&above)
                .map_err(|e| LakeError::destination(format!("{} cannot be made: {e}", above.display())))?;
            let checkpoint = Checkpoint(dir);
            broker.store().checkpoint(&checkpoint.0)?;
            Ok(checkpoint)
        })
        .await
    }
}

/// The names of the backups at `url`, the newest first.
///
/// # Errors
/// `Config` or `Destination` when the place cannot be read.
pub async fn backups(url: &str, access: &Access) -> Result<Vec<String>> {
    whole(&open(url, access).await?).await
}

/// Writes a backup into a data directory that has no store: `name`, or the newest. It appears whole or not at all.
///
/// # Errors
/// `NotFound` for a backup that is not there, `Refused` for a directory that is in use, `Destination` when a file cannot
/// be read, written, or is damaged.
pub async fn restore((url, access): (&str, &Access), name: Option<&str>, data_dir: &Path) -> Result<RestoreReport> {
    refuse_taken(data_dir)?;
    make_dirs(data_dir).map_err(|e| unwritable(data_dir, &e))?;
    let objects = open(url, access).await?;
    let there = whole(&objects).await?;
    let name = match name {
        Some(name) => there.iter().find(|known| *known == name),
        None => there.first(),
    };
    let Some(name) = name else {
        let message = format!("no such backup at {}; there are: {}", objects.url(), there.join(", "));
        return Err(LakeError::new(LakeErrorKind::NotFound, message));
    };
    let manifest = manifest_of(&objects, name).await?;
    let staged = data_dir.join(RESTORING_DIR);
    // what a restore that was killed left
    let _ = std::fs::remove_dir_all(&staged);
    for file in &manifest.files {
        copy_down(&objects, (name, file), staged.join(&file.path)).await?;
    }
    take_place(&staged, data_dir)?;
    let (files, bytes) = (manifest.files.len() as u64, manifest.files.iter().map(|file| file.bytes).sum());
    Ok(RestoreReport { name: name.clone(), at_ms: manifest.at_ms, files, bytes })
}

async fn open(url: &str, access: &Access) -> Result<Objects> {
    // nothing is written there
    let address = Address { url: url.to_owned(), access: access.clone(), work_dir: PathBuf::new() };
    Objects::open_any(&address, &tokio::runtime::Handle::current()).await
}

fn name_of(at_ms: TimestampMs) -> Result<String> {
    let at = chrono::DateTime::from_timestamp_millis(at_ms).ok_or_else(|| LakeError::bug("the clock is off"))?;
    Ok(at.format("%Y%m%dT%H%M%S%3fZ").to_string())
}

/// All backups that are whole, the newest first.
async fn whole(objects: &Objects) -> Result<Vec<String>> {
    let files = objects.list("").await?;
    let names = files.iter().filter_map(|path| path.strip_suffix(MANIFEST_FILE)?.strip_suffix('/'));
    let mut names: Vec<String> = names.filter(|name| !name.contains('/')).map(str::to_owned).collect();
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}

/// Removes what is older than the last `keep` backups, and what was begun before `name` and is none.
async fn remove_old(objects: &Objects, name: &str, keep: usize) -> Result<u64> {
    let kept: Vec<String> = whole(objects).await?.into_iter().take(keep).collect();
    let files = objects.list("").await?;
    let mut old: Vec<&str> = files.iter().filter_map(|path| path.split_once('/')).map(|(first, _)| first).collect();
    old.sort_unstable();
    old.dedup();
    old.retain(|found| *found < name && is_name(found) && !kept.iter().any(|kept| kept == found));
    for found in &old {
        // the mark first: a half removed backup is none
        objects.delete(&format!("{found}/{MANIFEST_FILE}")).await?;
        objects.remove_dir(found).await?;
    }
    Ok(old.len() as u64)
}

fn is_name(text: &str) -> bool {
    text.len() == "20261128T020000000Z".len()
        && text.ends_with('Z')
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'T' || byte == b'Z')
}

async fn manifest_of(objects: &Objects, name: &str) -> Result<BackupManifest> {
    let bytes = objects.read_small(&format!("{name}/{MANIFEST_FILE}")).await?.unwrap_or_default();
    let damaged = |why: String| LakeError::destination(format!("backup {name} cannot be read, take another: {why}"));
    let manifest: BackupManifest = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if manifest.v != MANIFEST_VERSION {
        return Err(damaged(format!("it is of version {}, this millpond reads {MANIFEST_VERSION}", manifest.v)));
    }
    let safe = |path: &str| {
        let parts = Path::new(path).components();
        let below = path.starts_with(&format!("{STORE_DIR}/")) || path.starts_with(&format!("{LAKE_DIR}/"));
        below && parts.into_iter().all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    match manifest.files.iter().find(|file| !safe(&file.path)) {
        Some(file) => Err(damaged(format!("it names {:?}", file.path))),
        None => Ok(manifest),
    }
}

/// The files in a directory, by name.
fn files_in(dir: &Path) -> Result<Vec<String>> {
    let unreadable = |e: std::io::Error| LakeError::destination(format!("{} cannot be read: {e}", dir.display()));
    let entries = std::fs::read_dir(dir).map_err(unreadable)?;
    entries.map(|entry| Ok(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned())).collect()
}

/// Copies a local file to the destination, from the first place where it is; gives its size and checksum.
async fn copy_up(objects: &Objects, from: Vec<PathBuf>, to: &str) -> Result<(u64, u32)> {
    let unwritten = |e: parquet::errors::ParquetError| LakeError::destination(format!("{to} cannot be written: {e}"));
    let mut sink = objects.create(to).await?;
    let (mut size, mut crc, mut file) = (0, 0, None);
    loop {
        let (from, open) = (from.clone(), file.take());
        let read = blocking(move || read_some(&from, open));
        let (bytes, open) = read.await?;
        if bytes.is_empty() {
            break;
        }
        file = Some(open);
        crc = checksum(crc, &bytes);
        size += bytes.len() as u64;
        sink.write(bytes).await.map_err(unwritten)?;
    }
    sink.complete().await.map_err(unwritten)?;
    Ok((size, crc))
}

/// The next bytes of a file, which is opened first where it is not open yet; none at its end.
fn read_some(from: &[PathBuf], open: Option<File>) -> Result<(Bytes, File)> {
    let name = from.first().map(|from| from.display().to_string()).unwrap_or_default();
    let unreadable = |e: std::io::Error| LakeError::destination(format!("{name} cannot be read: {e}"));
    let mut file = open.map_or_else(|| open_first(from), Ok).map_err(unreadable)?;
    let mut buffer = Vec::with_capacity(COPY_BYTES);
    (&mut file).take(COPY_BYTES as u64).read_to_end(&mut buffer).map_err(unreadable)?;
    Ok((Bytes::from(buffer), file))
}

/// Opens a file at the first place where it is: it moves along them only.
fn open_first(from: &[PathBuf]) -> std::io::Result<File> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for at in from {
        match File::open(at) {
            Ok(file) => return Ok(file),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Copies a file of a backup to a local path, and compares it with what was written.
async fn copy_down(objects: &Objects, (name, wanted): (&str, &BackupFile), to: PathBuf) -> Result<()> {
    let path = format!("{name}/{}", wanted.path);
    let damaged = |why: String| LakeError::destination(format!("{path} is damaged, take another backup: {why}"));
    let size = objects.size(&path).await?;
    if size != Some(wanted.bytes) {
        return Err(damaged(format!("it has {size:?} bytes, {} were written", wanted.bytes)));
    }
    let mut file = {
        let to = to.clone();
        blocking(move || create(&to)).await?
    };
    let (mut at, mut crc) = (0, 0);
    while at < wanted.bytes {
        let end = wanted.bytes.min(at + COPY_BYTES as u64);
        let bytes = objects.read_range(&path, at..end).await?;
        crc = checksum(crc, &bytes);
        let to = to.clone();
        file = blocking(move || {
            file.write_all(&bytes).map_err(|e| unwritable(&to, &e))?;
            Ok(file)
        })
        .await?;
        at = end;
    }
    blocking(move || file.sync_all().map_err(|e| unwritable(&to, &e))).await?;
    if crc == wanted.crc32c { Ok(()) } else { Err(damaged("its checksum differs".to_owned())) }
}

/// A new file, and the directories that lead to it.
fn create(at: &Path) -> Result<File> {
    let made = at.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| File::create(at));
    made.map_err(|e| unwritable(at, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time_and_are_known_again() {
        let (one, two) = (name_of(1_795_680_000_000).unwrap(), name_of(1_795_680_000_001).unwrap());
        assert!(one < two && is_name(&one) && is_name(&two), "{one} {two}");
        for other in ["", "store", "_millpond.json", "20261128T0200000000", "20261128T02000000/Z"] {
            assert!(!is_name(other), "{other}");
        }
    }

    #[tokio::test]
    async fn the_last_ones_are_kept_and_halves_removed() {
        let dir = tempfile::tempdir().unwrap();
        let address =
            Address { url: dir.path().display().to_string(), access: Access::default(), work_dir: PathBuf::new() };
        let runtime = tokio::runtime::Handle::current();
        let objects = Objects::open(&address, "cluster", (false, &runtime)).await.unwrap();
        let names: Vec<String> = (0..5).map(|at| name_of(1_795_680_000_000 + at).unwrap()).collect();
        for (at, name) in names.iter().enumerate() {
            objects.put_small(&format!("{name}/store/CURRENT"), "x".into()).await.unwrap();
            if at != 1 {
                objects.put_small(&format!("{name}/{MANIFEST_FILE}"), "{}".into()).await.unwrap();
            }
        }
        objects.put_small("mine/notes.txt", "x".into()).await.unwrap();
        assert_eq!(remove_old(&objects, &names[4], 2).await.unwrap(), 3);
        assert_eq!(whole(&objects).await.unwrap(), [names[4].clone(), names[3].clone()]);
        assert!(dir.path().join("mine/notes.txt").exists() && !dir.path().join(&names[1]).exists());
    }

    #[tokio::test]
    async fn a_damaged_file_and_a_used_directory_are_refused() {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let url = dir.path().display().to_string();
        let access = Access::default();
        let address = Address { url: url.clone(), access: access.clone(), work_dir: PathBuf::new() };
        let runtime = tokio::runtime::Handle::current();
        let objects = Objects::open(&address, "cluster", (false, &runtime)).await.unwrap();
        let name = name_of(1_795_680_000_000).unwrap();
        let write = |path: &str, crc32c: u32| {
            let files = vec![BackupFile { path: path.into(), bytes: 1, crc32c }];
            let manifest = BackupManifest { v: 1, cluster_id: "cluster".into(), at_ms: 1, files };
            serde_json::to_vec(&manifest).unwrap()
        };
        objects.put_small(&format!("{name}/store/CURRENT"), "x".into()).await.unwrap();
        let at = format!("{name}/{MANIFEST_FILE}");
        for (path, why) in [("store/CURRENT", "checksum"), ("store/../../x", "names"), ("etc/passwd", "names")] {
            objects.put_small(&at, write(path, 0).into()).await.unwrap();
            let error = restore((&url, &access), None, data.path()).await.unwrap_err();
            assert!(error.message.contains(why), "{path}: {error}");
            assert!(!data.path().join("store").exists());
        }
        objects.put_small(&at, write("store/CURRENT", checksum(0, b"x")).into()).await.unwrap();
        for noted in ["acknowledged", "unsynced"] {
            std::fs::write(data.path().join(noted), "of a store that was here before").unwrap();
        }
        assert_eq!(restore((&url, &access), Some(&name), data.path()).await.unwrap().files, 1);
        assert_eq!(std::fs::read(data.path().join("store/CURRENT")).unwrap(), b"x");
        assert!(!data.path().join("acknowledged").exists() && !data.path().join("unsynced").exists());
        let again = restore((&url, &access), None, data.path()).await.unwrap_err();
        assert_eq!(again.kind, LakeErrorKind::Refused);
        let absent = restore((&url, &access), Some("x"), &data.path().join("other")).await.unwrap_err();
        assert_eq!(absent.kind, LakeErrorKind::NotFound);
    }
}
