//! Apache Flink in a JVM of its own that runs one job after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Cost;
use super::queries::{Query, sink, source};
use super::windows::Windows;
use crate::server::process::Process;
use crate::{Outcome, brokers};

/// What is set of Flink; everything else is its default.
pub const SETTINGS: [&str; 4] = [
    "state.backend.type=rocksdb",
    "execution.checkpointing.interval=1s",
    "parallelism.default=2",
    "table.local-time-zone=UTC",
];
/// What Flink needs of a JDK 17, and a heap.
const FLAGS: [&str; 4] = [
    "-Xmx2g",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.time=ALL-UNNAMED",
];
/// The table of results that nobody reads.
const NOWHERE: &str = "nowhere";
/// Most time of a statement.
const STATEMENT_MAX: Duration = Duration::from_secs(900);

/// The JVM, ended when dropped.
pub struct Flink {
    process: Process,
    folder: PathBuf,
    said: usize,
}

impl Flink {
    /// Starts it, and declares the topic of this Kafka.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(folder: PathBuf, kafka: &str) -> Outcome<Self> {
        let jars = brokers::clients()?.join("flink/jars");
        if !jars.is_dir() {
            return Err(
                format!("no jars of Apache Flink in {}, run tests/support/setup benches", jars.display()).into()
            );
        }
        fs::create_dir_all(folder.join("tmp"))?;
        let mut command = Command::new("java");
        command.args(FLAGS).arg(format!("-Djava.io.tmpdir={}", folder.join("tmp").display()));
        command.arg("-cp").arg(jars.join("*"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/flink/Statements.java"));
        command.args(SETTINGS);
        command.arg(format!("execution.checkpointing.dir=file://{}", folder.join("checkpoints").display()));
        let process = Process::start(command, &folder.join("flink"));
        let mut flink = Self { process, folder, said: 0 };
        flink.say(&source(kafka))?;
        flink.say(&sink(NOWHERE, "'connector' = 'blackhole'"))?;
        Ok(flink)
    }

    /// One statement; what it says of it when it is done.
    fn say(&mut self, statement: &str) -> Outcome<Vec<f64>> {
        self.process.tell(statement);
        let done = format!("done {}", self.said);
        self.said += 1;
        let is_it = |line: &str| line == done || line.starts_with(&format!("{done} "));
        let line = self.process.wait_for_line(is_it, STATEMENT_MAX)?;
        Ok(line[done.len()..].split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    }

    /// What it counts, by way of files.
    ///
    /// # Errors
    /// It failed, or wrote what is not counted windows.
    pub fn count(&mut self, query: &Query) -> Outcome<Windows> {
        let (table, folder) = (format!("{}_rows", query.name), self.folder.join(query.name));
        let options = format!("'connector' = 'filesystem', 'format' = 'json', 'path' = 'file://{}'", folder.display());
        self.say(&sink(&table, &options))?;
        self.say(&query.insert(&table))?;
        let mut windows = Windows::default();
        for entry in fs::read_dir(&folder)? {
            windows.read(&fs::read_to_string(entry?.path())?)?;
        }
        Ok(windows)
    }

    /// What it costs to count, with results that go nowhere.
    ///
    /// # Errors
    /// It failed.
    pub fn measure(&mut self, query: &Query) -> Outcome<Cost> {
        let said = self.say(&query.insert(NOWHERE))?;
        let [cpu, clock] = said[..] else { return Err(format!("Flink says {said:?} of its job").into()) };
        Ok(Cost { cpu: cpu / 1e9, seconds: clock / 1e9 })
    }
}
