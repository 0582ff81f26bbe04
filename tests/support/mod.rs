//! What the tests stand on: processes that always end, the server, Apache Kafka, raw protocol, HTTP and scripts.

pub mod files;
pub mod hdfs;
pub mod http;
pub mod kafka;
pub mod plan;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod reader;
pub mod scripts;
pub mod server;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
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

static ALONE: Mutex<()> = Mutex::new(());

/// Held by a case that needs both cores; another such case waits for it.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A folder of one test: gone when it passes, kept and named when it fails.
pub struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    pub fn new(test: &str) -> Scratch {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Scratch { dir }
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

/// The seed of a random test: from `MILLPOND_SEED`, or the clock; always printed.
pub fn seed(test: &str) -> u64 {
    let seed = match env::var("MILLPOND_SEED") {
        Ok(text) => text.parse().expect("MILLPOND_SEED is a whole number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000_007,
    };
    eprintln!("{test}: seed {seed} (repeat with MILLPOND_SEED={seed})");
    seed
}
