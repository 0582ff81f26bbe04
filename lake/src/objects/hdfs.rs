//! A lake on HDFS, through `hdfs-native`: no JVM, no Hadoop client.
//!
//! Every call has a time limit of ours, because the library waits for minutes when the name node is gone (`hdfs_nodes`). A failed call
//! says that its outcome is unknown, not that nothing happened; whoever calls does the same again under the same final
//! name, which replaces what is there. The sealer is the one place that tries again, with backoff. Files are synced to
//! the data nodes' disks before they are closed, and only closed files are renamed or read: reading the open last block
//! of a file panics in the library.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use hdfs_native::client::FileStatus;
use hdfs_native::file::{FileReader, FileWriter};
use hdfs_native::{HdfsError, WriteOptions};

use super::hdfs_nodes::{NameNodes, within};
use super::sink::FileSink;
use super::{Address, TMP_DIR};
use crate::error::{LakeError, Result};

/// Longest wait for data nodes to take or give one portion of a few MiB, a change of the pipeline included. Less than half of the
/// time of a request, so that who asked for a flush hears what is the matter.
const DATA_TIME_MAX: Duration = Duration::from_secs(25);
/// Longest wait for them to put what they have on their disks. The library (0.14.8) waits for ever here when a data node ends meanwhile:
/// its task that drains the queue of packets waits for the one that fills it, and that one for a packet. So this is how long
/// a write stands still then.
const SYNC_TIME_MAX: Duration = Duration::from_secs(15);
/// How often a small file is written: its data nodes are chosen anew each time.
const SMALL_ATTEMPTS: usize = 2;
/// What is gathered before it goes to the data nodes.
const WRITE_BUFFER_BYTES: usize = 1 << 20;
/// Bytes of one step of a copy.
const COPY_BYTES: usize = 4 << 20;
/// What to do when it does not answer.
const AWAY: &str = "check that HDFS runs and that lake.url names its name node; it is tried again";
/// What to do when Kerberos gives no ticket.
const TICKET: &str = "check lake.hdfs_principal and lake.hdfs_keytab (or KRB5_CLIENT_KTNAME, or get a ticket by kinit), and that \
                      KRB5_CONFIG names the realm's servers; it is tried again";
/// What the library says when GSSAPI's is not there.
const NO_GSSAPI: &str = "Failed to load libgssapi";
/// What it says when a name node ends the connection, as it does with those it does not take.
const ENDED: &str = "RPC listener disconnected";
const DIR_PERMISSION: u32 = 0o755;

/// A directory on HDFS. Holds: the way to its name nodes.
#[derive(Debug)]
pub struct Hdfs {
    nodes: NameNodes,
    root: String,
    url: String,
    replication: u32,
}

/// A file being written; seen by its hidden name only.
pub struct HdfsFile {
    writer: FileWriter,
    waiting: Vec<u8>,
    name: String,
}

impl Hdfs {
    /// Opens the directory, and makes it unless files are `expected` in it.
    ///
    /// # Errors
    /// `Config` for a URL or a Hadoop configuration that cannot be read, `Destination` when HDFS does not answer.
    pub async fn open(address: &Address, runtime: &tokio::runtime::Handle, expected: bool) -> Result<Self> {
        let (server, root) = split(&address.url)?;
        let nodes = NameNodes::new(&server, &address.access.hdfs, runtime)?;
        let url = format!("{server}{}", root.trim_end_matches('/'));
        let hdfs = Self { nodes, root, url, replication: address.access.hdfs.replication };
        if !expected {
            hdfs.name_node("make", "", hdfs.nodes.client().mkdirs(&hdfs.root, DIR_PERMISSION, true)).await?;
        }
        Ok(hdfs)
    }

    /// As an `hdfs://` URL without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The absolute path of a file of the lake.
    pub fn absolute(&self, at: &str) -> String {
        match at {
            "" => self.root.clone(),
            at => format!("{}/{at}", self.root.trim_end_matches('/')),
        }
    }

    /// A question to the name node, within the time limit.
    fn name_node<T>(
        &self,
        what: &str,
        at: &str,
        call: impl Future<Output = hdfs_native::Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        let answer = self.nodes.ask(call);
        async move { answer.await.map_err(|fault| self.failed(what, at, &fault)) }
    }

    /// What the name node knows of a file, if it is there.
    ///
    /// # Errors
    /// As HDFS says them.
    pub async fn status(&self, at: &str) -> hdfs_native::Result<Option<FileStatus>> {
        match self.nodes.ask(self.nodes.client().get_file_info(&self.absolute(at))).await {
            Ok(status) => Ok(Some(status)),
            Err(HdfsError::FileNotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A closed file, opened for reading.
    ///
    /// # Errors
    /// As HDFS says them.
    pub async fn open_file(&self, at: &str) -> hdfs_native::Result<FileReader> {
        self.nodes.ask(self.nodes.client().read(&self.absolute(at))).await.map_err(not_found)
    }

    /// A range of an open file, which must lie within it.
    ///
    /// # Errors
    /// As HDFS says them.
    pub async fn read_range(&self, file: &FileReader, from: usize, count: usize) -> hdfs_native::Result<Bytes> {
        if from.checked_add(count).is_none_or(|end| end > file.file_length()) {
            let message = format!("{count} bytes at {from} of a file of {} bytes", file.file_length());
            return Err(HdfsError::InvalidArgument(message));
        }
        within(DATA_TIME_MAX, file.read_range(from, count)).await
    }

    /// The bytes of a small file, if it is there.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn read_small(&self, at: &str) -> Result<Option<Bytes>> {
        let file = match self.open_file(at).await {
            Ok(file) => file,
            Err(HdfsError::FileNotFound(_)) => return Ok(None),
            Err(error) => return Err(self.failed("read", at, &error)),
        };
        let bytes = self.read_range(&file, 0, file.file_length()).await;
        bytes.map(Some).map_err(|e| self.failed("read", at, &e))
    }

    /// Writes a small file, or replaces it. Data nodes that ended a moment ago are named by the name node still, so a pipeline that
    /// breaks is followed by another.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn put_small(&self, at: &str, bytes: Bytes) -> Result<()> {
        for _ in 1..SMALL_ATTEMPTS {
            match self.write_small(self.create_file(at).await?, &bytes).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::info!(%error, "a small file is written again"),
            }
        }
        self.write_small(self.create_file(at).await?, &bytes).await
    }

    async fn write_small(&self, mut file: HdfsFile, bytes: &Bytes) -> Result<()> {
        file.write(bytes.clone()).await?;
        file.close().await
    }

    /// Writes a small file, or replaces it, in one piece.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn put_whole(&self, at: &str, bytes: Bytes) -> Result<()> {
        let hidden = format!("{TMP_DIR}/{}.whole.tmp", at.replace('/', "-"));
        self.put_small(&hidden, bytes).await?;
        let dir = at.rsplit_once('/').map_or("", |(dir, _)| dir);
        self.name_node("make", dir, self.nodes.client().mkdirs(&self.absolute(dir), DIR_PERMISSION, true)).await?;
        let (from, to) = (self.absolute(&hidden), self.absolute(at));
        self.name_node("rename", &hidden, self.nodes.client().rename(&from, &to, true)).await
    }

    /// A writer for a new file, which replaces one that an attempt left open.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn create(&self, at: &str) -> Result<FileSink> {
        Ok(FileSink::hdfs(self.create_file(at).await?))
    }

    async fn create_file(&self, at: &str) -> Result<HdfsFile> {
        let options = WriteOptions::default().replication(self.replication).overwrite(true);
        let path = self.absolute(at);
        let writer = self.name_node("create", at, self.nodes.client().create(&path, options)).await?;
        Ok(HdfsFile { writer, waiting: Vec::new(), name: format!("{}/{at}", self.url) })
    }

    /// Renames files; what an earlier attempt left under the new names is replaced.
    ///
    /// # Errors
    /// `Destination`; some of the files may have their names then.
    pub async fn rename_all(&self, renames: &[(String, String)]) -> Result<()> {
        let parent = |to: &String| to.rsplit_once('/').map(|(dir, _)| dir.to_owned());
        let dirs: BTreeSet<String> = renames.iter().filter_map(|(_, to)| parent(to)).collect();
        for dir in dirs {
            self.name_node("make", &dir, self.nodes.client().mkdirs(&self.absolute(&dir), DIR_PERMISSION, true))
                .await?;
        }
        for (from, to) in renames {
            let (source, target) = (self.absolute(from), self.absolute(to));
            match self.nodes.ask(self.nodes.client().rename(&source, &target, false)).await {
                Ok(()) => {}
                Err(HdfsError::AlreadyExists(_)) => {
                    // only an attempt at the same range gives this name, and it was not published
                    tracing::info!(file = %to, "replaces what an attempt that did not end left on HDFS");
                    self.name_node("rename", from, self.nodes.client().rename(&source, &target, true)).await?;
                }
                Err(error) => return Err(self.failed("rename", from, &error)),
            }
        }
        Ok(())
    }

    /// Writes a copy of a file.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let source = self.open_file(from).await.map_err(|e| self.failed("read", from, &e))?;
        let mut target = self.create_file(to).await?;
        let (mut at, end) = (0, source.file_length());
        while at < end {
            let count = COPY_BYTES.min(end - at);
            let bytes = self.read_range(&source, at, count).await.map_err(|e| self.failed("read", from, &e))?;
            target.write(bytes).await?;
            at += count;
        }
        target.close().await
    }

    /// Size of a file in bytes, if it is there.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn size(&self, at: &str) -> Result<Option<u64>> {
        let status = self.status(at).await.map_err(|e| self.failed("find", at, &e))?;
        Ok(status.filter(|status| !status.isdir).map(|status| status.length as u64))
    }

    /// The paths of all files below a directory.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn list_files(&self, dir: &str) -> Result<Vec<String>> {
        let found = self.below(dir).await.map_err(|e| self.failed("list", dir, &e))?;
        Ok(found.into_iter().filter(|status| !status.isdir).map(|status| self.relative(&status.path)).collect())
    }

    async fn below(&self, dir: &str) -> hdfs_native::Result<Vec<FileStatus>> {
        let client = self.nodes.client();
        let iterator = client.list_status_iter(&self.absolute(dir), true);
        let mut found = Vec::new();
        // each step asks the name node for the next thousand names at most
        while let Some(status) = self.nodes.ask(async { Ok(iterator.next().await) }).await? {
            match status {
                Ok(status) => found.push(status),
                // gone while the list was read, or never there
                Err(HdfsError::FileNotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn relative(&self, path: &str) -> String {
        let below = path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(path);
        below.trim_start_matches('/').to_owned()
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn delete(&self, at: &str) -> Result<()> {
        self.name_node("delete", at, self.nodes.client().delete(&self.absolute(at), false)).await.map(|_| ())
    }

    /// Removes a directory with all that is in it, files that a dead writer holds open too.
    ///
    /// # Errors
    /// `Destination`.
    pub async fn remove_dir(&self, dir: &str) -> Result<()> {
        self.name_node("delete", dir, self.nodes.client().delete(&self.absolute(dir), true)).await.map(|_| ())
    }

    /// Removes directories below `dir` that hold nothing, and `dir` itself.
    pub async fn remove_empty_dirs(&self, dir: &str) {
        let Ok(found) = self.below(dir).await else { return };
        let mut dirs: Vec<String> = found.into_iter().filter(|status| status.isdir).map(|status| status.path).collect();
        dirs.push(self.absolute(dir));
        // children before their parents
        dirs.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
        for path in dirs {
            // refused where something is left, which is what is wanted
            let _ = self.nodes.ask(self.nodes.client().delete(&path, false)).await;
        }
    }

    fn failed(&self, what: &str, at: &str, error: &HdfsError) -> LakeError {
        LakeError::destination(format!("cannot {what} {}/{at}: {}", self.url, told(error)))
    }
}

impl HdfsFile {
    /// Takes bytes, in order.
    ///
    /// # Errors
    /// `Destination`; the file is then of no use.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if self.waiting.len() + bytes.len() < WRITE_BUFFER_BYTES {
            self.waiting.extend_from_slice(&bytes);
            return Ok(());
        }
        self.send().await?;
        if bytes.len() < WRITE_BUFFER_BYTES {
            self.waiting.extend_from_slice(&bytes);
            return Ok(());
        }
        self.send_bytes(bytes).await
    }

    async fn send(&mut self) -> Result<()> {
        let waiting = Bytes::from(std::mem::take(&mut self.waiting));
        if waiting.is_empty() { Ok(()) } else { self.send_bytes(waiting).await }
    }

    async fn send_bytes(&mut self, bytes: Bytes) -> Result<()> {
        let sent = within(DATA_TIME_MAX, self.writer.write_bytes(bytes)).await;
        self.checked("write", sent.map(|_| ()))
    }

    /// Makes all that was written durable on every data node of the pipeline, and closes the file.
    ///
    /// # Errors
    /// `Destination`; whether the file is whole is then not known.
    pub async fn close(&mut self) -> Result<()> {
        self.send().await?;
        let synced = within(SYNC_TIME_MAX, self.writer.hsync()).await;
        self.checked("sync", synced)?;
        let closed = within(DATA_TIME_MAX, self.writer.close()).await;
        self.checked("close", closed)
    }

    fn checked(&self, what: &str, outcome: hdfs_native::Result<()>) -> Result<()> {
        outcome.map_err(|error| LakeError::destination(format!("cannot {what} {}: {}", self.name, told(&error))))
    }
}

/// The name node's word for a file that is not there, wherever the library puts it.
fn not_found(error: HdfsError) -> HdfsError {
    match error {
        HdfsError::RPCError(class, text) if class.ends_with("FileNotFoundException") => HdfsError::FileNotFound(text),
        other => other,
    }
}

/// An error in words, with what to do.
fn told(error: &HdfsError) -> String {
    let class = match error {
        HdfsError::RPCError(class, _) | HdfsError::FatalRPCError(class, _) => class.as_str(),
        _ => "",
    };
    // Java's stack trace says nothing to whoever runs Millpond, nor do the numbers of GSSAPI
    let text = match error {
        HdfsError::GSSAPIError(_, _, text) => format!("Kerberos: {text}"),
        _ => error.to_string(),
    };
    let first = text.lines().next().unwrap_or_default();
    let next = match class.rsplit('.').next().unwrap_or_default() {
        _ if matches!(error, HdfsError::GSSAPIError(..)) => TICKET,
        _ if text.contains(NO_GSSAPI) => "install Kerberos' library (Debian: libgssapi-krb5-2); it is tried again",
        _ if text.contains(ENDED) => {
            "check that HDFS runs, whether it wants Kerberos (then set lake.hdfs_principal and lake.hdfs_keytab), and that the \
             principal may act for lake.hdfs_user where that is set; it is tried again"
        }
        "SafeModeException" => "HDFS is in safe mode and takes no changes; it is tried again",
        "AccessControlException" => "give the directory to that user, or set lake.hdfs_user or HADOOP_USER_NAME",
        "StandbyException" => {
            "no name node serves; with one name node in lake.url, name the service there and set lake.hdfs_conf_dir"
        }
        _ => AWAY,
    };
    format!("{first}: {next}")
}

/// `hdfs://host:port/dir` → the server and the directory.
fn split(url: &str) -> Result<(String, String)> {
    let rest = url.strip_prefix("hdfs://").unwrap_or(url);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    if host.is_empty() || path.is_empty() || path.split('/').any(|part| part.is_empty() || part == "." || part == "..")
    {
        let message = format!("lake.url {url}: give the name node and a directory, as in hdfs://namenode:8020/lake");
        return Err(LakeError::config(message));
    }
    Ok((format!("hdfs://{host}"), format!("/{path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_server_and_a_directory() {
        let parts = |url| split(url).map(|(server, root)| format!("{server} {root}")).map_err(|e| e.message);
        assert_eq!(parts("hdfs://nn:8020/lake/"), Ok("hdfs://nn:8020 /lake".to_owned()));
        assert_eq!(parts("hdfs://service/a/b"), Ok("hdfs://service /a/b".to_owned()));
        for wrong in ["hdfs://nn:8020", "hdfs://nn:8020/", "hdfs:///lake", "hdfs://nn/a//b", "hdfs://nn/a/../b"] {
            assert!(parts(wrong).unwrap_err().contains("hdfs://namenode:8020/lake"), "{wrong}");
        }
    }

    #[test]
    fn errors_say_what_to_do_and_no_stack_trace() {
        let safe = HdfsError::RPCError(
            "org.apache.hadoop.hdfs.server.namenode.SafeModeException".into(),
            "Cannot create file\n\tat org.apache".into(),
        );
        let text = told(&safe);
        assert!(text.contains("safe mode") && !text.contains("\tat"), "{text}");
        let refused = HdfsError::IOError(std::io::Error::other("RPC listener disconnected"));
        assert!(told(&refused).contains("lake.hdfs_principal"), "{}", told(&refused));
    }
}
