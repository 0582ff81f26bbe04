//! A child process that is always ended, by its own id, with what it said kept in files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub struct Process {
    child: Child,
    name: String,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `<stem>.out` and `<stem>.err`.
    pub fn start(mut command: Command, stem: &Path) -> Process {
        let (out, err) = (stem.with_extension("out"), stem.with_extension("err"));
        let child = command
            .stdin(Stdio::piped())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("could not start {command:?}: {e}"));
        Process { child, name: stem.file_name().unwrap().to_string_lossy().into_owned(), out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Writes a line to the child's stdin.
    pub fn tell(&mut self, line: &str) {
        use std::io::Write;
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The first stdout line that `wanted` accepts; fails when the child ends or the time is over first.
    pub fn wait_for_line(&mut self, wanted: impl Fn(&str) -> bool, within: Duration) -> Result<String, String> {
        let started = Instant::now();
        loop {
            let ended = self.exited();
            let text = self.stdout();
            let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
            if let Some(line) = whole.lines().find(|line| wanted(line)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                return Err(format!("{} ended ({status}) before it was ready:\n{}", self.name, self.tail()));
            }
            if started.elapsed() > within {
                return Err(format!("{} was not ready within {within:?}:\n{}", self.name, self.tail()));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            if started.elapsed() > within {
                panic!("{} (pid {}) still runs after {within:?}:\n{}", self.name, self.pid(), self.tail());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL: no chance to write anything more.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(within)
    }

    #[allow(unsafe_code, reason = "std can only send SIGKILL")]
    pub fn signal(&mut self, signal: i32) {
        if self.exited().is_none() {
            // SAFETY: the child has not been waited for, so its id is still its own.
            unsafe { libc::kill(self.pid() as i32, signal) };
        }
    }

    /// Resident memory of the child now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// The most that its resident memory ever was, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    fn memory_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).expect("a live process has it");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The end of what the child said, for messages.
    pub fn tail(&self) -> String {
        let last = |text: String| {
            text.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        format!("--- stdout\n{}\n--- stderr\n{}", last(self.stdout()), last(self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.tail());
        }
    }
}
