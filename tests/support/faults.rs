//! A disk that fails, preloaded into the server; `faults/faults.c` says what it models. Each test arms one fault at a time.

use super::process::Process;
use super::server::{self, Address};
use super::source;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// What a call does; a plan counts those of a sum of these.
pub const CREATE: u64 = 1;
pub const WRITE: u64 = 2;
pub const SYNC: u64 = 4;
pub const RENAME: u64 = 16;
pub const ALLOCATE: u64 = 64;
pub const READ: u64 = 256;
/// That it came to one of [`POINTS`]; the kinds of those are [`point`].
pub const POINT: u64 = 1024;
/// All that change something.
pub const CHANGES: u64 = 0x2ff;
/// Which file it does it to.
pub const WAL: u64 = 1;
pub const TABLE: u64 = 2;
pub const MANIFEST: u64 = 4;
pub const CURRENT: u64 = 8;
pub const ANY: u64 = 31;
/// Places in the server where a plan may end it by name: `broker/src/crash_point.rs`, in the order of faults.c.
pub const POINTS: [&str; 11] = [
    "opened",
    "taken",
    "written",
    "synced",
    "published",
    "retained",
    "compacted",
    "moved",
    "bucket-added",
    "bucket-leaving",
    "bucket-gone",
];

/// The kind of the point at this place of [`POINTS`].
pub fn point(at: usize) -> u64 {
    32 << at
}

/// What happens at the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The power goes: the process dies, and of what was not synced only some is left.
    Cut = 1,
    /// kill -9: what was written is there.
    Kill = 2,
    /// The call fails with the plan's error; of a write a part may have come down.
    Fail = 3,
    /// Of a write only a part is taken, and the call says so.
    Shorten = 4,
    /// One bit of what is written or read is another.
    Flip = 5,
}

/// Which calls meet a fault, and which.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub action: Action,
    pub classes: u64,
    pub kinds: u64,
    /// The first of them, counted from 1.
    pub at: u64,
    /// How many.
    pub count: u64,
    pub error: i32,
    /// Whether the call is made first; for `Cut` and `Kill`.
    pub after: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { action: Action::Cut, classes: CHANGES, kinds: ANY, at: 1, count: 1, error: libc::EIO, after: false }
    }
}

/// Words of the control file: `enum word` in faults.c.
const HITS: u64 = 1;
const FIRED: u64 = 2;
const CLASSES: u64 = 3;
const KINDS: u64 = 4;
const AT: u64 = 5;
const COUNT: u64 = 6;
const ACTION: u64 = 7;
const ERROR: u64 = 8;
const SEED: u64 = 9;
const AFTER: u64 = 10;
const FULL: u64 = 11;
const WORDS: u64 = 12;

/// The disk of one data directory, and what is to happen to it.
pub struct Faults {
    folder: PathBuf,
    control: File,
    starts: u32,
}

impl Faults {
    pub fn new(folder: &Path, seed: u64) -> Faults {
        fs::create_dir_all(folder).unwrap();
        let control =
            File::options().create(true).truncate(true).read(true).write(true).open(folder.join("control")).unwrap();
        control.set_len(WORDS * 8).unwrap();
        let faults = Faults { folder: folder.to_owned(), control, starts: 0 };
        faults.set(SEED, seed);
        faults
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Has the calls from now on counted for this plan.
    pub fn arm(&self, plan: Plan) {
        self.disarm();
        for (word, value) in [
            (HITS, 0),
            (FIRED, 0),
            (CLASSES, plan.classes),
            (KINDS, plan.kinds),
            (COUNT, plan.count),
            (ACTION, plan.action as u64),
            (ERROR, plan.error as u64),
            (AFTER, u64::from(plan.after)),
            (AT, plan.at),
        ] {
            self.set(word, value);
        }
    }

    pub fn disarm(&self) {
        self.set(AT, 0);
    }

    /// The disk says, to those that ask it, that it has no space left, or has it again.
    pub fn report_full(&self, full: bool) {
        self.set(FULL, u64::from(full));
    }

    /// The disk has no space left for what is written; `disarm` gives it back.
    pub fn refuse_space(&self) {
        let (action, classes) = (Action::Fail, CREATE | WRITE | ALLOCATE);
        self.arm(Plan { action, classes, count: u64::MAX, error: libc::ENOSPC, ..Plan::default() });
    }

    /// Calls that were counted for the plan.
    pub fn hits(&self) -> u64 {
        self.get(HITS)
    }

    /// Calls that met the plan's fault.
    pub fn fired(&self) -> u64 {
        self.get(FIRED)
    }

    fn set(&self, word: u64, value: u64) {
        self.control.write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
    }

    fn get(&self, word: u64) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, word * 8).unwrap();
        u64::from_ne_bytes(bytes)
    }

    /// Starts the server on this disk. None when the plan ended it before it was ready.
    pub fn start(&mut self, config: &Path) -> Option<(Process, Address)> {
        let mut process = self.spawn(config);
        match server::announced(&mut process) {
            Ok(address) => Some((process, address)),
            Err(_) if self.ended(&mut process) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts the server, and does not wait for it.
    pub fn spawn(&mut self, config: &Path) -> Process {
        self.starts += 1;
        let graves = self.folder.join("graves");
        let _ = fs::remove_dir_all(&graves);
        fs::create_dir_all(&graves).unwrap();
        let mut command = server::serve(&self.data_dir(), "127.0.0.1:0", "127.0.0.1:0");
        command.arg("--config").arg(config);
        command.env("LD_PRELOAD", library()).env("FAULTS_ROOT", self.data_dir());
        command.env("MILLPOND_TEST_CRASH_POINTS", self.data_dir().join("crash-points"));
        command.env("FAULTS_CONTROL", self.folder.join("control")).env("FAULTS_GRAVES", graves);
        Process::start(command, &self.folder.join(format!("serve-{}", self.starts)))
    }

    /// Whether the process was ended by the plan; fails when it ended otherwise.
    pub fn ended(&self, process: &mut Process) -> bool {
        if self.fired() == 0 {
            return false;
        }
        let status = process.wait(Duration::from_secs(20));
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}\n{}", process.tail());
        true
    }
}

/// The layer, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (made, place) = (folder.join(format!("faults-{}.so", std::process::id())), folder.join("faults.so"));
        let mut cc = Command::new("cc");
        cc.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&made);
        let done = cc.arg(source("support/faults/faults.c")).output().expect("scripts/setup installs a C compiler");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fs::rename(&made, &place).unwrap();
        place
    })
}

/// A point that is another one here would be another one in what is counted.
#[test]
fn points_have_the_same_names_in_the_same_order_everywhere() {
    let quoted = |text: &'static str, from: &str, to: &str| -> Vec<&'static str> {
        let text = text.split_once(from).unwrap().1.split_once(to).unwrap().0;
        text.split('"').skip(1).step_by(2).collect()
    };
    let layer = include_str!("faults/faults.c");
    assert_eq!(quoted(layer, "*const names[] = {", "}"), POINTS);
    assert_eq!(quoted(include_str!("../../broker/src/crash_point.rs"), "fn name(self)", "\n    }\n"), POINTS);
}
