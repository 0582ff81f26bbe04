//! Files on an SFTP server: found by the same patterns as local ones, fetched one by one into the data directory, then read
//! like any other. A server is believed only when its host key is the declared one.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use russh::client::{self, AuthResult};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, decode_secret_key};
use russh_sftp::client::SftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::fs::Metadata;
use russh_sftp::protocol::StatusCode;
use tokio::io::AsyncReadExt;

use super::discover::{FILES_MAX, Found, UNFINISHED, fits};

/// Largest file fetched.
const BYTES_MAX: u64 = 16 << 30;
/// Longest wait for a connection, and for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 256 << 10;
const SCHEME: &str = "sftp://";

/// How a source shows who it is, and by what it knows the server.
#[derive(Clone, Default, PartialEq)]
pub struct SftpLogin {
    /// The password of the user; either this or a key.
    pub password: Option<String>,
    /// The user's private key as OpenSSH or PEM text.
    pub private_key: Option<String>,
    /// What the private key is encrypted with.
    pub private_key_password: Option<String>,
    /// The server's host key: its fingerprint (`SHA256:…`) or the key itself (`ssh-ed25519 AAAA…`).
    pub host_key: Option<String>,
}

/// Secrets are not for logs.
impl fmt::Debug for SftpLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SftpLogin(host_key {:?})", self.host_key)
    }
}

impl SftpLogin {
    /// Whether anything is said.
    pub(crate) fn is_empty(&self) -> bool {
        *self == SftpLogin::default()
    }

    /// What is wrong with it, without asking the server.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        match (&self.password, &self.private_key) {
            (None, None) => mistakes.push("sftp:// needs password or private_key: give one".to_owned()),
            (Some(_), Some(_)) => mistakes.push("password and private_key are both given: give one".to_owned()),
            (None, Some(key)) => mistakes.extend(read_key(key, self.private_key_password.as_deref()).err()),
            (Some(_), None) => {}
        }
        mistakes.extend(self.host_key.as_deref().and_then(|key| HostKey::parse(key).err()));
        mistakes
    }
}

/// What stands in `sftp://user@host:port/path`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Address {
    user: String,
    host: String,
    port: u16,
    /// The path on the server: absolute, or below the user's home when it was written `/~/…`.
    path: String,
}

impl Address {
    /// Reads a URL; None when it is none of SFTP, Err says what to write.
    pub(crate) fn parse(url: &str) -> Option<Result<Address, String>> {
        let rest = url.strip_prefix(SCHEME)?;
        let wrong = |why: &str| Err(format!("path '{url}': {why}; write sftp://user@host:22/folder/*.csv"));
        let Some((place, path)) = rest.split_once('/') else { return Some(wrong("it names no file or folder")) };
        let Some((user, place)) = place.rsplit_once('@') else { return Some(wrong("it names no user")) };
        if user.contains(':') {
            return Some(wrong("a password does not belong there: give it as password"));
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return Some(wrong("the port is not a number")),
            },
            _ => (place, 22),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if user.is_empty() || host.is_empty() {
            return Some(wrong("it names no user or no host"));
        }
        let path = path.strip_prefix("~/").map_or_else(|| format!("/{path}"), |home| format!("./{home}"));
        Some(Ok(Address { user: user.to_owned(), host: host.to_owned(), port, path }))
    }

    /// How a file of this server is remembered: who reads it does not matter.
    fn name_of(&self, path: &str) -> String {
        format!("{SCHEME}{}:{}/{}", self.host, self.port, path.trim_start_matches("./").trim_start_matches('/'))
    }
}

/// Why the server's files cannot be had.
#[derive(Debug)]
pub(crate) enum Fault {
    /// They may be had another time.
    Io(io::Error),
    /// Trying again is of no use before somebody changes the configuration.
    Refused(String),
}

impl From<SftpError> for Fault {
    fn from(error: SftpError) -> Fault {
        Fault::Io(io::Error::other(error.to_string()))
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Fault {
        Fault::Io(io::Error::other(error.to_string()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(error) => error.fmt(f),
            Fault::Refused(message) => f.write_str(message),
        }
    }
}

type Outcome<T> = Result<T, Fault>;

/// By what a server is known.
#[derive(Debug)]
enum HostKey {
    Fingerprint(String),
    Key(Box<PublicKey>),
}

impl HostKey {
    fn parse(text: &str) -> Result<HostKey, String> {
        if text.starts_with("SHA256:") {
            return Ok(HostKey::Fingerprint(text.trim_end_matches('=').to_owned()));
        }
        let key = PublicKey::from_openssh(text);
        key.map(|key| HostKey::Key(Box::new(key)))
            .map_err(|_| "host_key is neither a fingerprint (SHA256:…) nor a public key (ssh-ed25519 AAAA…)".to_owned())
    }

    fn is(&self, key: &PublicKey) -> bool {
        match self {
            HostKey::Fingerprint(text) => *text == key.fingerprint(HashAlg::Sha256).to_string(),
            HostKey::Key(known) => known.key_data() == key.key_data(),
        }
    }
}

/// Looks at the server's key while the connection is made.
struct Visitor {
    known: Option<HostKey>,
    /// What the server showed, when it was not the known key.
    shown: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Visitor {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => PublicKey::from(certificate.public_key().clone()),
        };
        let good = self.known.as_ref().is_some_and(|known| known.is(&key));
        if !good {
            *self.shown.lock() = Some(key.fingerprint(HashAlg::Sha256).to_string());
        }
        Ok(good)
    }
}

/// A connection to a server. Ends when it is dropped.
pub(crate) struct Remote {
    address: Address,
    files: SftpSession,
    _session: client::Handle<Visitor>,
}

impl Remote {
    /// Connects, looks at the host key, and logs in.
    pub(crate) async fn connect(address: &Address, login: &SftpLogin) -> Outcome<Remote> {
        let shown = Arc::new(Mutex::new(None));
        let known = login.host_key.as_deref().map(HostKey::parse).transpose().map_err(Fault::Refused)?;
        let visitor = Visitor { known, shown: shown.clone() };
        let config = client::Config { inactivity_timeout: Some(2 * ANSWER_MAX), nodelay: true, ..Default::default() };
        let place = (address.host.as_str(), address.port);
        let connected = tokio::time::timeout(ANSWER_MAX, client::connect(Arc::new(config), place, visitor)).await;
        let mut session = match connected.map_err(|_| late(address))? {
            Ok(session) => session,
            Err(error) => return Err(unknown_key(address, login, shown.lock().take()).unwrap_or_else(|| error.into())),
        };
        let entered = tokio::time::timeout(ANSWER_MAX, log_in(&mut session, address, login)).await;
        entered.map_err(|_| late(address))??;
        let channel = session.channel_open_session().await?;
        channel.request_subsystem(true, "sftp").await?;
        let files = SftpSession::new(channel.into_stream()).await?;
        files.set_timeout(ANSWER_MAX.as_secs());
        Ok(Remote { address: address.clone(), files, _session: session })
    }

    /// The files of the address, by name; `folder` is where each is to be fetched.
    pub(crate) async fn find(&self, folder: &Path) -> Outcome<Vec<Found>> {
        let path = self.address.path.as_str();
        let mut found = Vec::new();
        if path.contains(['*', '?']) {
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            let fixed = parts.iter().take_while(|part| !part.contains(['*', '?'])).count();
            let root = if path.starts_with('/') { "/" } else { "" };
            let base = format!("{root}{}", parts[..fixed].join("/"));
            self.matching(&base, &parts[fixed..], folder, &mut found).await?;
        } else {
            let data = self.files.metadata(path).await?;
            if data.file_type().is_dir() {
                let base = path.trim_end_matches('/');
                self.matching(if base.is_empty() { "/" } else { base }, &["*"], folder, &mut found).await?;
            } else {
                let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                found.push(self.found((path.to_owned(), name), &data, folder));
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// What fits the patterns below a folder, level by level.
    async fn matching(&self, base: &str, patterns: &[&str], folder: &Path, found: &mut Vec<Found>) -> Outcome<()> {
        let mut folders = vec![(base.to_owned(), String::new())];
        for (depth, pattern) in patterns.iter().enumerate() {
            let last = depth + 1 == patterns.len();
            let mut below = Vec::new();
            for above in &folders {
                let entries = self.entries(above, pattern).await?;
                let (dirs, files): (Vec<_>, Vec<_>) =
                    entries.into_iter().partition(|(_, data)| data.file_type().is_dir());
                if last {
                    let whole = |name: &str| !UNFINISHED.iter().any(|end| name.ends_with(end));
                    let files = files.into_iter().filter(|((path, _), _)| whole(path));
                    found.extend(files.map(|(names, data)| self.found(names, &data, folder)));
                } else {
                    below.extend(dirs.into_iter().map(|(names, _)| names));
                }
                if found.len() + below.len() > FILES_MAX {
                    let message = format!("the path names more than {FILES_MAX} files, move some away");
                    return Err(Fault::Refused(message));
                }
            }
            folders = below;
        }
        Ok(())
    }

    /// What fits a pattern in a folder: the path there, the name below the base, and what is known of it.
    async fn entries(
        &self,
        (at, shown): &(String, String),
        pattern: &str,
    ) -> Outcome<Vec<((String, String), Metadata)>> {
        let mut fitting = Vec::new();
        for entry in self.files.read_dir(at.as_str()).await? {
            let name = entry.file_name();
            let hidden = name.starts_with('.') && !pattern.starts_with('.');
            if hidden || !fits(pattern, &name) {
                continue;
            }
            let path = format!("{}/{name}", at.trim_end_matches('/'));
            let shown = if shown.is_empty() { name } else { format!("{shown}/{name}") };
            let data = match entry.metadata() {
                link if link.file_type().is_symlink() => match self.files.metadata(path.as_str()).await {
                    // A link that leads nowhere is no file.
                    Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => continue,
                    data => data?,
                },
                data => data,
            };
            fitting.push(((path, shown), data));
        }
        Ok(fitting)
    }

    fn found(&self, (path, name): (String, String), data: &Metadata, folder: &Path) -> Found {
        let (bytes, modified_s) = (data.len(), data.mtime.unwrap_or(0));
        let remote = self.address.name_of(&path);
        // one name per state of the file, so that what was fetched before it changed is not taken for it
        let stamp = blake3::hash(format!("{remote}\0{bytes}\0{modified_s}").as_bytes()).to_hex();
        Found {
            path: folder.join(format!("{}.sftp", &stamp[..32])),
            name,
            bytes,
            modified_ns: i64::from(modified_s) * 1_000_000_000,
            remote: Some((remote, path)),
        }
    }

    /// Fetches a file to its place, unless it is there already.
    pub(crate) async fn fetch(&self, found: &Found) -> Outcome<()> {
        let Some((_, remote)) = &found.remote else { return Ok(()) };
        if fs::metadata(&found.path).is_ok_and(|there| there.len() == found.bytes) {
            return Ok(());
        }
        if found.bytes > BYTES_MAX {
            let message = format!("{remote} has {} bytes, at most {BYTES_MAX} are fetched: split it", found.bytes);
            return Err(Fault::Refused(message));
        }
        if let Some(folder) = found.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let half = half_of(&found.path);
        let mut from = self.files.open(remote.as_str()).await?;
        let mut to = fs::File::create(&half)?;
        let (mut buffer, mut fetched) = (vec![0; COPY_BYTES], 0);
        loop {
            let read = tokio::time::timeout(ANSWER_MAX, from.read(&mut buffer)).await;
            let read = read.map_err(|_| late(&self.address))??;
            if read == 0 {
                break;
            }
            // the run has this thread to itself
            to.write_all(&buffer[..read])?;
            fetched += read as u64;
            if fetched > found.bytes {
                break;
            }
        }
        to.sync_all()?;
        if fetched != found.bytes {
            return Err(Fault::Io(io::Error::other(format!("{remote} has changed while it was fetched"))));
        }
        fs::rename(&half, &found.path)?;
        Ok(())
    }
}

/// Where a file lies that is not whole yet.
fn half_of(path: &Path) -> PathBuf {
    path.with_extension("part")
}

fn late(address: &Address) -> Fault {
    let (host, port) = (&address.host, address.port);
    let message = format!("{host}:{port} did not answer within {} s", ANSWER_MAX.as_secs());
    Fault::Io(io::Error::new(io::ErrorKind::TimedOut, message))
}

/// What to do about a key that is not the declared one.
fn unknown_key(address: &Address, login: &SftpLogin, shown: Option<String>) -> Option<Fault> {
    let (shown, host) = (shown?, &address.host);
    Some(Fault::Refused(match &login.host_key {
        None => format!(
            "{host} shows the host key {shown}, and none is declared: ask who runs it whether that is its key, then set host_key = \"{shown}\""
        ),
        Some(_) => format!(
            "{host} shows the host key {shown}, which is not the declared one: somebody may stand between, or the server has a new key; ask who runs it before you change host_key"
        ),
    }))
}

async fn log_in(session: &mut client::Handle<Visitor>, address: &Address, login: &SftpLogin) -> Outcome<()> {
    let user = address.user.as_str();
    let answer = match (&login.private_key, &login.password) {
        (Some(text), _) => {
            let key = read_key(text, login.private_key_password.as_deref()).map_err(Fault::Refused)?;
            let hash = session.best_supported_rsa_hash().await?.flatten();
            session.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::new(key), hash)).await?
        }
        (None, password) => session.authenticate_password(user, password.clone().unwrap_or_default()).await?,
    };
    match answer {
        AuthResult::Success => Ok(()),
        AuthResult::Failure { .. } => {
            let message =
                format!("{} does not let {user} in: look at the user and at password or private_key", address.host);
            Err(Fault::Refused(message))
        }
    }
}

fn read_key(text: &str, password: Option<&str>) -> Result<PrivateKey, String> {
    decode_secret_key(text, password).map_err(|error| {
        format!("private_key cannot be read ({error}): give the text of an OpenSSH or PEM key, and private_key_password if it has one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<Address, String> {
        Address::parse(url).unwrap()
    }

    #[test]
    fn a_url_names_user_host_and_path() {
        let address = parsed("sftp://millpond@files.example.org:2222/out/*.csv").unwrap();
        assert_eq!(
            (address.user.as_str(), address.host.as_str(), address.port),
            ("millpond", "files.example.org", 2222)
        );
        assert_eq!(address.path, "/out/*.csv");
        assert_eq!(parsed("sftp://u@h/~/in/a.csv").unwrap().path, "./in/a.csv");
        let six = parsed("sftp://u@[::1]:22/a").unwrap();
        assert_eq!((six.host.as_str(), six.port), ("::1", 22));
        assert_eq!(parsed("sftp://u@h/a").unwrap().name_of("/a/b.csv"), "sftp://h:22/a/b.csv");
        for wrong in ["sftp://h/a", "sftp://u@h", "sftp://u:secret@h/a", "sftp://u@h:x/a", "sftp://@h/a"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        assert!(Address::parse("/local/a.csv").is_none());
    }

    #[test]
    fn a_login_is_checked_and_not_shown() {
        let login = |password: Option<&str>, key: Option<&str>, host: Option<&str>| SftpLogin {
            password: password.map(str::to_owned),
            private_key: key.map(str::to_owned),
            host_key: host.map(str::to_owned),
            ..SftpLogin::default()
        };
        assert!(login(Some("s3cret"), None, None).mistakes().is_empty());
        assert!(login(None, None, None).mistakes()[0].contains("needs password or private_key"));
        assert!(login(Some("x"), Some("y"), None).mistakes()[0].contains("both"));
        assert!(login(None, Some("no key"), None).mistakes()[0].contains("cannot be read"));
        assert!(login(Some("x"), None, Some("md5:00")).mistakes()[0].contains("host_key"));
        let shown = format!("{:?}", login(Some("s3cret"), None, Some("SHA256:abc")));
        assert!(!shown.contains("s3cret") && shown.contains("SHA256:abc"), "{shown}");
    }
}
