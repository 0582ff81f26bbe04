//! Apache Flink in a JVM of its own that runs one job after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Cost;
use super::dialogue::Dialogue;
use super::queries::{Query, sink, source};
use super::windows::Windows;
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

/// The JVM, ended when dropped.
pub struct Flink {
    dialogue: Dialogue,
    folder: PathBuf,
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
        let mut dialogue = Dialogue::start(command, &folder.join("flink"));
        dialogue.tell(&source(kafka))?;
        dialogue.tell(&sink(NOWHERE, "'connector' = 'blackhole'"))?;
        Ok(Self { dialogue, folder })
    }

    /// What it counts, by way of files.
    ///
    /// # Errors
    /// It failed, or wrote what is not counted windows.
    pub fn count(&mut self, query: &Query) -> Outcome<Windows> {
        let (table, folder) = (format!("{}_rows", query.name), self.folder.join(query.name));
        let options = format!("'connector' = 'filesystem', 'format' = 'json', 'path' = 'file://{}'", folder.display());
        self.dialogue.tell(&sink(&table, &options))?;
        self.dialogue.tell(&query.insert(&table))?;
        Windows::in_files(&folder)
    }

    /// What it costs to count, with results that go nowhere.
    ///
    /// # Errors
    /// It failed.
    pub fn measure(&mut self, query: &Query) -> Outcome<Cost> {
        self.dialogue.tell(&query.insert(NOWHERE))?.ok_or_else(|| "Flink does not say what a job took".into())
    }
}
