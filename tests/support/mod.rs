//! What the tests stand on: processes that always end, the server, Apache Kafka, raw protocol, HTTP and scripts.

pub mod clicks;
pub mod faults;
pub mod files;
pub mod hdfs;
pub mod http;
pub mod kafka;
pub mod kerberos;
pub mod ledger;
pub mod name_proxy;
pub mod name_service;
pub mod nexmark;
pub mod objects;
pub mod plan;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod reader;
pub mod scripts;
pub mod server;
pub mod writer;

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Where `tests/support/setup` put the pinned clients.
pub fn cache() -> PathBuf {
    let root = env::var_os("MILLPOND_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(&env::var_os("HOME").expect("HOME is set")).join(".cache/millpond"));
    let tests = root.join("tests");
    assert!(
        tests.join("kafka/.stamp").exists(),
        "the clients are not installed; run tests/support/setup (make test does)"
    );
    tests
}

/// A file of this test tree, such as `clients/kafkajs.js`.
pub fn source(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(relative)
}

/// Places that big cases share out among themselves, and the queue for them: who waits for all is not passed by who wants one. They
/// are more than cores, as most cases wait for their clients a third of their time.
static FREE: Mutex<usize> = Mutex::new(PLACES);
static FREED: Condvar = Condvar::new();
static QUEUE: Mutex<()> = Mutex::new(());
const PLACES: usize = 3;

/// Places that a case holds.
pub struct Places(usize);

/// For a case that needs both cores, as it measures or has limits of time: no other big one runs meanwhile.
pub fn alone() -> Places {
    places(PLACES)
}

/// For a big case that often waits for its clients or for time to pass: others run beside it.
pub fn beside_others() -> Places {
    places(1)
}

fn places(wanted: usize) -> Places {
    let _first = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    while *free < wanted {
        free = FREED.wait(free).unwrap_or_else(PoisonError::into_inner);
    }
    *free -= wanted;
    Places(wanted)
}

impl Drop for Places {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        FREED.notify_all();
    }
}

/// What a case may take, on a busy machine too.
pub const CASE_MAX: Duration = Duration::from_secs(15 * 60);

/// A folder of one test: gone when it passes, kept and named when it fails. A case that does not end ends the suite, which would
/// otherwise wait for it until somebody loses patience.
pub struct Scratch {
    dir: PathBuf,
    _ends: mpsc::Sender<()>,
}

impl Scratch {
    pub fn new(test: &str) -> Scratch {
        Scratch::lasting(test, CASE_MAX)
    }

    /// For a case with so many kills.
    pub fn for_kills(test: &str, kills: u32) -> Scratch {
        Scratch::lasting(test, CASE_MAX.max(Duration::from_secs(10) * kills))
    }

    /// For a case that may take so long.
    pub fn lasting(test: &str, longest: Duration) -> Scratch {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let (ends, ended) = mpsc::channel::<()>();
        let test = test.to_owned();
        thread::spawn(move || {
            if ended.recv_timeout(longest) == Err(mpsc::RecvTimeoutError::Timeout) {
                // past the capture of a test's output
                let _ = writeln!(std::io::stderr(), "{test} does not end ({longest:?}): the suite gives up");
                std::process::exit(1);
            }
        });
        Scratch { dir, _ends: ends }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking() || env::var_os("MILLPOND_KEEP").is_some() {
            eprintln!("kept for you to look at: {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Waits until `probe` gives something; `what` and the last refusal are in the message when it never does.
pub fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        let refusal = match probe() {
            Ok(value) => return value,
            Err(refusal) => refusal,
        };
        assert!(started.elapsed() < within, "{what}: not within {within:?}: {refusal}");
        thread::sleep(Duration::from_millis(25));
    }
}

/// How many times a case kills its server: `MILLPOND_KILLS` (`make kills`), or as usual.
pub fn kills(usual: u32) -> u32 {
    env::var("MILLPOND_KILLS").map_or(usual, |text| text.parse().expect("MILLPOND_KILLS is a whole number"))
}

/// The seed of a random test: from `MILLPOND_SEED`, or the clock; always printed.
pub fn seed(test: &str) -> u64 {
    let seed = match env::var("MILLPOND_SEED") {
        Ok(text) => text.parse().expect("MILLPOND_SEED is a whole number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000_007,
    };
    eprintln!("{test}: seed {seed} (repeat with MILLPOND_SEED={seed})");
    seed
}
