//! A lake on an object store: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.
//!
//! A store has no rename, and an object appears whole, when its upload ends. So nothing hidden is ever written there:
//!
//! 1. a file is written below the data directory until its name is known ([`Staging`]);
//! 2. publishing uploads it straight to that name: few bytes in one request, others in parts ([`Upload`]);
//! 3. one commit of the manifest makes it a file of the lake, as everywhere.
//!
//! After a crash between 2 and 3 the object is there and the manifest does not know it: the start deletes it, or the same
//! range gives the same name again. A request in one piece says what it expects to find: nothing, and where that is wrong
//! the very object that was found then. So a request of an attempt before, which the store serves late, never takes the
//! place of what a later one published. Where a store does not know such conditions, the last one wins. Uploads in parts
//! that a crash left are aborted by the next start.
//!
//! What has to move (files of deleted topics and of another store, files that queries still read) is copied by the store
//! and then deleted; a crash between leaves both, and the move is done again. What goes to the archive is copied to its
//! place there, published by the manifest, and deleted where it was.
//!
//! The owner's mark is created only where none is, so that of two clusters one has the lake and the other is told.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};

use super::cloud_address::{Found, find};
use super::sink::FileSink;
use super::staged::{Staging, read_some};
use super::upload::{PART_BYTES, Upload, Uploads};
use super::{Address, TMP_DIR, path};
use crate::error::{LakeError, Result};

/// Objects that are uploaded or moved at one time.
const AT_ONCE: usize = 4;
/// Largest object that the store copies by itself: it must be done within the time of one request, and S3 takes 5 GiB.
const COPY_BYTES_MAX: u64 = 1 << 30;
/// What to do when it does not answer.
const AWAY: &str = "check that the store runs and that lake.url and lake.cloud_endpoint name it; it is tried again";
/// What stores say when the bucket is not there.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"];
/// Letters of a store's own words that are shown.
const SAID_MAX: usize = 300;

/// The files of one lake, as their paths name them.
pub type Below = PrefixStore<Arc<dyn ObjectStore>>;

/// A prefix of a bucket. Holds: the client, and where files wait for their upload.
pub struct Cloud {
    store: Arc<Below>,
    parts: Arc<dyn MultipartStore>,
    prefix: Path,
    url: String,
    hadoop_url: String,
    staging: Staging,
    uploads: Uploads,
}

impl Cloud {
    /// The store at an address; it is not asked anything yet.
    ///
    /// # Errors
    /// `Config` for an address that names no store.
    pub fn open(address: &Address) -> Result<Self> {
        Ok(Self::of(find(&address.url, &address.access.cloud)?, address.work_dir.clone()))
    }

    /// A store that was found; files wait in `work_dir`.
    pub fn of(found: Found, work_dir: PathBuf) -> Self {
        let Found { store, parts, prefix, url, hadoop_url } = found;
        Self {
            store: Arc::new(PrefixStore::new(store, prefix.clone())),
            parts,
            prefix,
            url,
            hadoop_url,
            staging: Staging::new(work_dir.clone()),
            uploads: Uploads::new(work_dir),
        }
    }

    /// As a URL without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL that Hive and Spark know.
    pub fn hadoop_url(&self) -> &str {
        &self.hadoop_url
    }

    /// The URL that readers of Iceberg know: they have Azure's schemes from Hadoop, and take every other as it is.
    pub fn iceberg_url(&self) -> &str {
        if self.hadoop_url.starts_with("abfss://") { &self.hadoop_url } else { &self.url }
    }

    /// The files for queries.
    pub fn store(&self) -> Arc<Below> {
        self.store.clone()
    }

    /// What uploads in parts, by full paths.
    pub fn parts(&self) -> &dyn MultipartStore {
        &*self.parts
    }

    /// Where unfinished uploads are written down.
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// A path in the bucket.
    ///
    /// # Errors
    /// `Bug` for a path that no file can have.
    pub fn full_path(&self, at: &str) -> Result<Path> {
        Ok(self.prefix.parts().chain(path(at)?.parts()).collect())
    }

    /// Aborts and removes what a crash left half way, before anything is written.
    pub async fn clear_left(&self) {
        self.uploads.abort_left(&self.url, &*self.parts).await;
    }

    /// The bytes of a small file, if it is there.
    ///
    /// # Errors
    /// `Destination`, also when the bucket is not there.
    pub async fn read_small(&self, at: &str) -> Result<Option<Bytes>> {
        let failed = |e: &Error| self.failed("read", at, e);
        match self.store.get(&path(at)?).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|e| failed(&e)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Writes a small file, or replaces it.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn put_small(&self, at: &str, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&path(at)?, PutPayload::from(bytes)).await;
        put.map(|_| ()).map_err(|e| self.failed("write", at, &e))
    }

    /// Writes a small file where none is; one that is there stays.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn create_small(&self, at: &str, bytes: Bytes) -> Result<()> {
        match self.store.put_opts(&path(at)?, bytes.clone().into(), PutMode::Create.into()).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(Error::NotImplemented { .. }) => self.put_small(at, bytes).await,
            Err(error) => Err(self.failed("write", at, &error)),
        }
    }

    /// Writes an object in one request; what an attempt that did not end left under its name is replaced.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn put_whole(&self, at: &str, bytes: Bytes) -> Result<()> {
        let payload = PutPayload::from(bytes);
        let put = match self.store.put_opts(&path(at)?, payload.clone(), PutMode::Create.into()).await {
            Err(Error::AlreadyExists { .. }) => self.replace(at, payload).await,
            Err(Error::NotImplemented { .. }) => self.store.put(&path(at)?, payload).await.map(|_| ()),
            put => put.map(|_| ()),
        };
        put.map_err(|e| self.failed("write", at, &e))
    }

    /// Replaces the object that is there now, and no other.
    async fn replace(&self, at: &str, payload: PutPayload) -> object_store::Result<()> {
        tracing::info!(file = %at, "replaces what an attempt that did not end left in the bucket");
        let location = Path::parse(at)?;
        let found = self.store.head(&location).await?;
        let version = UpdateVersion { e_tag: found.e_tag, version: found.version };
        match self.store.put_opts(&location, payload.clone(), PutMode::Update(version).into()).await {
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                self.store.put(&location, payload).await.map(|_| ())
            }
            put => put.map(|_| ()),
        }
    }

    /// A writer for a new file: here when its name is a hidden one, else straight to its place.
    ///
    /// # Errors
    /// `Destination` when the disk does not take it.
    pub async fn create(self: &Arc<Self>, at: &str) -> Result<FileSink> {
        match self.staging.place(at) {
            Some(place) => Ok(FileSink::staged(self.staging.create(place).await?)),
            None => Ok(FileSink::upload(Upload::new(self.clone(), at))),
        }
    }

    /// Uploads files that were written under hidden names, and moves others; what has the new names is replaced.
    ///
    /// # Errors
    /// `Destination`; some of the files may have their names then.
    pub async fn publish(self: &Arc<Self>, renames: &[(String, String)]) -> Result<()> {
        for some in renames.chunks(AT_ONCE) {
            let mut under_way = Vec::with_capacity(some.len());
            for (from, to) in some {
                under_way.push(self.place(from, to));
            }
            try_join_all(under_way).await?;
        }
        Ok(())
    }

    async fn place(self: &Arc<Self>, from: &str, to: &str) -> Result<()> {
        let Some(staged) = self.staging.place(from) else {
            self.copy(from, to).await?;
            return self.delete(from).await;
        };
        let (mut upload, mut file) = (Upload::new(self.clone(), to), None);
        loop {
            let (bytes, open) = read_some(&staged, file.take(), PART_BYTES).await?;
            if bytes.is_empty() {
                break;
            }
            file = Some(open);
            upload.write(bytes).await?;
        }
        upload.close().await?;
        self.staging.remove(staged).await
    }

    /// Writes a copy of a file.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn copy(self: &Arc<Self>, from: &str, to: &str) -> Result<()> {
        let failed = |e: &Error| self.failed("copy", from, e);
        let size = self.store.head(&path(from)?).await.map_err(|e| failed(&e))?.size;
        if size <= COPY_BYTES_MAX {
            match self.store.copy(&path(from)?, &path(to)?).await {
                // Google's client (object_store 0.13.2) copies only to where nothing is, and a crash can have left the copy
                Err(Error::AlreadyExists { .. }) => {}
                copied => return copied.map_err(|e| failed(&e)),
            }
        }
        let mut upload = Upload::new(self.clone(), to);
        let mut at = 0;
        while at < size {
            let end = size.min(at + PART_BYTES as u64);
            let bytes = self.store.get_range(&path(from)?, at..end).await.map_err(|e| failed(&e))?;
            upload.write(bytes).await?;
            at = end;
        }
        upload.close().await
    }

    /// Size of a file in bytes, if it is there.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn size(&self, at: &str) -> Result<Option<u64>> {
        match self.store.head(&path(at)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("find", at, &error)),
        }
    }

    /// The paths of all files below a directory.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn list(&self, dir: &str) -> Result<Vec<String>> {
        if dir == TMP_DIR {
            return self.staging.list().await;
        }
        let found = self.store.list(Some(&path(dir)?)).map_ok(|meta| meta.location.to_string());
        found.try_collect().await.map_err(|e| self.failed("list", dir, &e))
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn delete(&self, at: &str) -> Result<()> {
        if let Some(staged) = self.staging.place(at) {
            return self.staging.remove(staged).await;
        }
        match self.store.delete(&path(at)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", at, &error)),
        }
    }

    /// Removes a directory with all that is in it.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn remove_dir(&self, dir: &str) -> Result<()> {
        if dir == TMP_DIR {
            return self.staging.clear().await;
        }
        let found = self.list(dir).await?.into_iter().map(|at| Ok(Path::parse(at)?));
        // in as few requests as the store can do it
        let mut deleted = self.store.delete_stream(stream::iter(found).boxed());
        while let Some(deleted) = deleted.next().await {
            match deleted {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("delete", dir, &error)),
            }
        }
        Ok(())
    }

    /// An error of the store's, in words.
    pub fn failed(&self, what: &str, at: &str, error: &Error) -> LakeError {
        LakeError::destination(format!("cannot {what} {}/{at}: {}", self.url, told(error)))
    }
}

/// Whether the object is not there, though the bucket is.
fn is_absent(error: &Error) -> bool {
    let text = error.to_string();
    matches!(error, Error::NotFound { .. }) && !NO_BUCKET.iter().any(|word| text.contains(word))
}

/// An error in words, with what to do.
pub fn told(error: &Error) -> String {
    let text = error.to_string();
    let next = match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            "check the keys (lake.cloud_access_key and lake.cloud_secret_key, for Google lake.cloud_credentials_file, or the \
             variables of the store) and what they may do; it is tried again"
        }
        Error::NotFound { .. } if !is_absent(error) => {
            "make the bucket or container, or name another in lake.url; it is tried again"
        }
        Error::NotFound { .. } => "it is not there, or the bucket or container is not; it is tried again",
        _ if text.contains("performing token request") => {
            "no keys are given and the machine has no account of its own there: set lake.cloud_credentials_file for Google, the \
             keys in lake.cloud_… for others, or the variables of the store; it is tried again"
        }
        _ if text.contains("URL scheme is not allowed") => "set lake.cloud_allow_http for a store without TLS",
        _ => AWAY,
    };
    format!("{}: {next}", said(&text))
}

/// The store's own words: its code and message where it gave them, for XML says nothing to whoever runs Millpond.
fn said(text: &str) -> String {
    let between = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        rest.split_once('<').map(|(found, _)| found.trim().to_owned())
    };
    let words = match (between("Code"), between("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => text.lines().next().unwrap_or_default().to_owned(),
    };
    words.chars().take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use parquet::arrow::async_writer::AsyncFileWriter;

    use super::*;

    fn bench(memory: &Arc<InMemory>, work_dir: &std::path::Path) -> Arc<Cloud> {
        let found = Found {
            store: memory.clone(),
            parts: memory.clone(),
            prefix: Path::from("some/lake"),
            url: "s3://bucket/some/lake".to_owned(),
            hadoop_url: "s3a://bucket/some/lake".to_owned(),
        };
        Arc::new(Cloud::of(found, work_dir.to_owned()))
    }

    fn bytes(count: usize) -> Bytes {
        (0..count).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
    }

    async fn write(cloud: &Arc<Cloud>, at: &str, pieces: &[Bytes]) {
        let mut sink = cloud.create(at).await.unwrap();
        for piece in pieces {
            sink.write(piece.clone()).await.unwrap();
        }
        sink.complete().await.unwrap();
    }

    fn left(dir: &std::path::Path) -> usize {
        std::fs::read_dir(dir).into_iter().flatten().count()
    }

    #[tokio::test]
    async fn a_file_appears_whole_under_its_name_whatever_its_size() {
        let (memory, dir) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let cloud = bench(&memory, dir.path());
        for size in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 3 * PART_BYTES + 7] {
            let whole = bytes(size);
            let pieces: Vec<Bytes> = whole.chunks(3 << 20).map(Bytes::copy_from_slice).collect();
            let (hidden, to) = (format!("_tmp/x-{size}.1-0.0.tmp"), format!("t/label=a%2Fb/x-{size}.parquet"));
            write(&cloud, &hidden, &pieces).await;
            assert_eq!(cloud.list(TMP_DIR).await.unwrap(), std::slice::from_ref(&hidden));
            assert_eq!(cloud.size(&to).await.unwrap(), None, "nothing is there before it is published");
            cloud.publish(&[(hidden, to.clone())]).await.unwrap();
            assert_eq!(cloud.read_small(&to).await.unwrap().unwrap(), whole, "{size}");
            // straight to its name, as backups are written
            write(&cloud, &format!("b/{size}"), &pieces).await;
            assert_eq!(cloud.read_small(&format!("b/{size}")).await.unwrap().unwrap(), whole, "{size}");
        }
        assert_eq!(left(dir.path()), 0, "nothing waits and no upload is open");
        let keys: Vec<_> = memory.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
        assert!(keys.contains(&"some/lake/t/label=a%2Fb/x-1.parquet".to_owned()), "{keys:?}");
        assert_eq!(cloud.list("t").await.unwrap().len(), 7);
    }

    #[tokio::test]
    async fn what_an_attempt_left_is_replaced_but_not_what_came_since() {
        let (memory, dir) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let cloud = bench(&memory, dir.path());
        cloud.put_whole("t/a", "first".into()).await.unwrap();
        cloud.put_whole("t/a", "second".into()).await.unwrap();
        assert_eq!(cloud.read_small("t/a").await.unwrap().unwrap(), "second");
        // the request of an attempt that found nothing is served after another published the file
        let late = cloud.store.put_opts(&Path::from("t/a"), "late".into(), PutMode::Create.into()).await;
        assert!(matches!(late, Err(Error::AlreadyExists { .. })), "{late:?}");
        let found = cloud.store.head(&Path::from("t/a")).await.unwrap();
        cloud.put_whole("t/a", "third".into()).await.unwrap();
        let version = UpdateVersion { e_tag: found.e_tag, version: found.version };
        let late = cloud.store.put_opts(&Path::from("t/a"), "late".into(), PutMode::Update(version).into()).await;
        assert!(matches!(late, Err(Error::Precondition { .. })), "{late:?}");
        assert_eq!(cloud.read_small("t/a").await.unwrap().unwrap(), "third");
    }

    #[tokio::test]
    async fn uploads_that_a_crash_left_are_aborted_by_the_next_start() {
        let (memory, dir) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let cloud = bench(&memory, dir.path());
        let mut sink = cloud.create("t/a").await.unwrap();
        sink.write(bytes(PART_BYTES + 1)).await.unwrap();
        write(&cloud, "_tmp/b.1-0.0.tmp", &["b".into()]).await;
        let other = dir.path().join("7.upload");
        std::fs::write(&other, "s3://other/lake\na\n1\n").unwrap();
        assert_eq!(left(dir.path()), 3);
        drop(sink);
        let record = std::fs::read_to_string(dir.path().join("0.upload")).unwrap();
        let id = record.lines().nth(2).unwrap().to_owned();
        let again = bench(&memory, dir.path());
        again.clear_left().await;
        assert!(other.exists() && left(dir.path()) == 1, "the upload of another store is not ours to end");
        let path = Path::from("some/lake/t/a");
        let gone = again.parts().put_part(&path, &id, 1, "x".into()).await;
        assert!(gone.is_err(), "the upload is still open");
        // and its record's name is not taken again
        std::fs::write(dir.path().join("0.upload"), "s3://other/lake\na\n2\n").unwrap();
        write(&again, "t/c", &[bytes(PART_BYTES + 1)]).await;
        assert_eq!(left(dir.path()), 2);
    }

    #[tokio::test]
    async fn files_move_by_a_copy_and_directories_go_with_all_that_is_in_them() {
        let (memory, dir) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let cloud = bench(&memory, dir.path());
        for at in 0..9 {
            cloud.put_whole(&format!("t/{at}"), format!("{at}").into()).await.unwrap();
        }
        cloud.put_whole("t2/0", "other".into()).await.unwrap();
        let moves: Vec<_> = (0..9).map(|at| (format!("t/{at}"), format!("_deleted/t/{at}"))).collect();
        cloud.publish(&moves).await.unwrap();
        assert_eq!((cloud.list("t").await.unwrap().len(), cloud.list("_deleted").await.unwrap().len()), (0, 9));
        assert_eq!(cloud.read_small("_deleted/t/8").await.unwrap().unwrap(), "8");
        cloud.remove_dir("_deleted").await.unwrap();
        assert_eq!(cloud.list("").await.unwrap(), ["t2/0"]);
        cloud.delete("t/8").await.unwrap();
    }

    #[test]
    fn readers_of_iceberg_get_schemes_that_they_know() {
        let dir = tempfile::tempdir().unwrap();
        let mut found = bench(&Arc::new(InMemory::new()), dir.path());
        assert_eq!(found.iceberg_url(), "s3://bucket/some/lake");
        let cloud = Arc::get_mut(&mut found).unwrap();
        cloud.url = "az://files/lake".to_owned();
        cloud.hadoop_url = "abfss://files@account.dfs.core.windows.net/lake".to_owned();
        assert_eq!(cloud.iceberg_url(), "abfss://files@account.dfs.core.windows.net/lake");
    }

    #[tokio::test]
    async fn the_owners_mark_is_made_once() {
        let (memory, dir) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        let cloud = bench(&memory, dir.path());
        cloud.create_small("_millpond.json", "one".into()).await.unwrap();
        cloud.create_small("_millpond.json", "two".into()).await.unwrap();
        assert_eq!(cloud.read_small("_millpond.json").await.unwrap().unwrap(), "one");
    }

    #[test]
    fn errors_say_what_to_do() {
        let xml = "status 403: <?xml?><Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>";
        let denied = Error::PermissionDenied { path: "a".into(), source: xml.into() };
        let text = told(&denied);
        assert!(text.starts_with("InvalidAccessKeyId: no such key: check the keys"), "{text}");
        let missing = Error::NotFound { path: "a".into(), source: "<Code>NoSuchBucket</Code>".into() };
        assert!(told(&missing).contains("make the bucket") && !is_absent(&missing));
        let absent = Error::NotFound { path: "a".into(), source: "<Code>NoSuchKey</Code>".into() };
        assert!(is_absent(&absent));
    }
}
