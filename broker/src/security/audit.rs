//! The audit log: logins and requests that were refused, and changes of who may do what.
//!
//! Lines go to the process' log under the target `audit`, and as JSON into a file of their own where one is configured. A
//! peer cannot fill either: at most [`REFUSALS_PER_SECOND_MAX`] refusals and [`CHANGES_PER_SECOND_MAX`] changes leave in a
//! second, each counted apart so that refusals hide no change, and the next one says how many did not; a line of the file
//! says how many before it the file had no room for. The file is turned over at [`FILE_BYTES_MAX`], and one older file is
//! kept. Passwords and proofs never come here.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use parking_lot::Mutex;
use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::types::TimestampMs;

/// Refusals in one second: anybody can bring them about.
const REFUSALS_PER_SECOND_MAX: u32 = 50;
/// Changes in one second: only who may make them brings them about.
const CHANGES_PER_SECOND_MAX: u32 = 1_000;
/// Lines that wait for the file.
const QUEUE_LINES_MAX: usize = 2_000;
/// Size at which the file is turned over.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Characters of a name that a peer gave.
const NAME_CHARS_MAX: usize = 256;

/// Where somebody came in.
#[derive(Clone, Copy)]
pub(crate) struct Peer<'a> {
    /// Address.
    pub(crate) host: IpAddr,
    /// Name of the listener.
    pub(crate) listener: &'a str,
}

/// The audit log. Holds: how much was said in this second. A crash loses what has not reached the file.
pub(crate) struct Audit {
    refusals: Mutex<Window>,
    changes: Mutex<Window>,
    file: Option<mpsc::SyncSender<String>>,
    /// Lines that the file had no room for, since the last one that it had.
    dropped: AtomicU64,
}

struct Window {
    most: u32,
    second: i64,
    lines: u32,
    suppressed: u64,
}

impl Window {
    fn new(most: u32) -> Mutex<Window> {
        Mutex::new(Window { most, second: 0, lines: 0, suppressed: 0 })
    }

    /// Whether a line may leave; then how many before it could not.
    fn admit(&mut self, now: TimestampMs) -> Option<u64> {
        if self.second != now / 1_000 {
            self.second = now / 1_000;
            self.lines = 0;
        }
        if self.lines >= self.most {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Audit {
    /// An audit log that also writes to a file, if one is given.
    ///
    /// # Errors
    /// `Config`, when the file cannot be opened.
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let audit = |file| Self {
            refusals: Window::new(REFUSALS_PER_SECOND_MAX),
            changes: Window::new(CHANGES_PER_SECOND_MAX),
            file,
            dropped: AtomicU64::new(0),
        };
        let Some(path) = path else { return Ok(audit(None)) };
        let mut file = LogFile::open(path).map_err(|error| {
            let message = format!("the audit log {} cannot be opened: {error}; give another path", path.display());
            Error::new(Kind::Config, message)
        })?;
        let (lines, waiting) = mpsc::sync_channel::<String>(QUEUE_LINES_MAX);
        let write = move || {
            while let Ok(line) = waiting.recv() {
                if let Err(error) = file.write(&line) {
                    tracing::error!(%error, "the audit log cannot be written");
                }
            }
        };
        std::thread::Builder::new()
            .name("audit-log".into())
            .spawn(write)
            .map_err(|e| Error::storage(format!("the audit log's thread cannot start: {e}")))?;
        Ok(audit(Some(lines)))
    }

    /// Somebody could not log in.
    pub(crate) fn login_refused(&self, now: TimestampMs, peer: Peer<'_>, how: &str, reason: &str) {
        let Some(suppressed) = self.refusals.lock().admit(now) else { return };
        let reason = shortened(reason);
        tracing::warn!(target: "audit", host = %peer.host, listener = peer.listener, how, reason, suppressed, "login refused");
        self.write(json!({ "time_ms": now, "event": "login refused", "host": peer.host, "listener": peer.listener,
            "how": how, "reason": reason, "suppressed": suppressed }));
    }

    /// A request was refused.
    pub(crate) fn denied(
        &self,
        now: TimestampMs,
        peer: Peer<'_>,
        principal: &str,
        (operation, resource): (&str, &str),
    ) {
        let Some(suppressed) = self.refusals.lock().admit(now) else { return };
        let (principal, resource) = (shortened(principal), shortened(resource));
        tracing::warn!(target: "audit", host = %peer.host, listener = peer.listener, principal, operation, resource, suppressed, "denied");
        self.write(json!({ "time_ms": now, "event": "denied", "host": peer.host, "listener": peer.listener,
            "principal": principal, "operation": operation, "resource": resource, "suppressed": suppressed }));
    }

    /// ACLs, users or quotas were changed.
    pub(crate) fn changed(&self, now: TimestampMs, peer: Peer<'_>, principal: &str, what: &str) {
        let Some(suppressed) = self.changes.lock().admit(now) else { return };
        let (principal, what) = (shortened(principal), shortened(what));
        tracing::info!(target: "audit", host = %peer.host, listener = peer.listener, principal, what, suppressed, "changed");
        self.write(json!({ "time_ms": now, "event": "changed", "host": peer.host, "listener": peer.listener,
            "principal": principal, "what": what, "suppressed": suppressed }));
    }

    /// Never waits: a line that the file has no room for is missing from it, not from the process' log.
    fn write(&self, mut line: serde_json::Value) {
        let Some(file) = &self.file else { return };
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            line["dropped"] = dropped.into();
        }
        if file.try_send(line.to_string()).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).flat_map(char::escape_debug).collect()
}

struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LogFile {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        if self.bytes > FILE_BYTES_MAX {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, older)?;
            *self = Self::open(&self.path)?;
        }
        self.bytes += line.len() as u64 + 1;
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_counted() {
        let window = Window::new(50);
        let admitted = (0..100).filter(|_| window.lock().admit(5_000).is_some()).count();
        assert_eq!(admitted, 50);
        assert_eq!(window.lock().admit(6_000), Some(50));
        assert_eq!(window.lock().admit(6_001), Some(0));
        let (file, lines) = mpsc::sync_channel(1);
        let audit = Audit { file: Some(file), ..Audit::open(None).unwrap() };
        (0..4).for_each(|number| audit.write(json!({ "number": number })));
        assert_eq!(lines.recv().unwrap(), r#"{"number":0}"#);
        audit.write(json!({ "number": 4 }));
        assert_eq!(lines.recv().unwrap(), r#"{"number":4,"dropped":3}"#, "what the file had no room for is counted");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the file is written by a thread of its own")]
    fn refusals_do_not_hide_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::open(Some(&path)).unwrap();
        let peer = Peer { host: [127, 0, 0, 1].into(), listener: "test" };
        for _ in 0..REFUSALS_PER_SECOND_MAX {
            audit.denied(5_000, peer, "User:eve", ("Read", "Topic:t"));
        }
        audit.changed(5_001, peer, "User:root", "added: a rule");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !std::fs::read_to_string(&path).unwrap().contains("added: a rule") {
            assert!(std::time::Instant::now() < until, "the change is not in the log");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    #[test]
    fn the_file_is_turned_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = LogFile::open(&path).unwrap();
        file.write("one").unwrap();
        file.bytes = FILE_BYTES_MAX + 1;
        file.write("two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("audit.log.1")).unwrap(), "one\n");
        assert!(Audit::open(Some(Path::new("/nowhere/at/all"))).is_err());
        assert_eq!(shortened("a\nb"), "a\\nb", "one line stays one line");
    }
}
