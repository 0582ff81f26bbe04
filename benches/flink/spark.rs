//! Spark Structured Streaming in a Python process and its JVM, one query after the other over files of the same events.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::Cost;
use super::dialogue::Dialogue;
use super::queries::Query;
use super::windows::Windows;
use crate::{Outcome, brokers};

/// Both processes, ended when dropped.
pub struct Spark {
    dialogue: Dialogue,
    folder: PathBuf,
}

impl Spark {
    /// Starts it over a folder of events.
    ///
    /// # Errors
    /// It is not installed.
    pub fn start(folder: PathBuf, events: &Path) -> Outcome<Self> {
        let python = brokers::clients()?.join("spark/bin/python");
        if !python.exists() {
            return Err(format!("no Spark at {}, run tests/support/setup", python.display()).into());
        }
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(&python);
        command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/flink/spark_counts.py"));
        command.arg(&folder).arg(events).env("PYSPARK_PYTHON", &python).env("SPARK_LOCAL_IP", "127.0.0.1");
        Ok(Self { dialogue: Dialogue::start(command, &folder.join("spark")), folder })
    }

    /// What it counts, by way of files: the windows that it closes.
    ///
    /// # Errors
    /// It failed, or wrote what is not counted windows.
    pub fn count(&mut self, query: &Query) -> Outcome<Windows> {
        let rows = self.folder.join(query.name);
        self.dialogue.tell(&json!({ "window": query.spark, "rows": rows }).to_string())?;
        Windows::in_files(&rows)
    }

    /// What it costs to count, with results that go nowhere.
    ///
    /// # Errors
    /// It failed.
    pub fn measure(&mut self, query: &Query) -> Outcome<Cost> {
        let asked = json!({ "window": query.spark, "rows": null }).to_string();
        self.dialogue.tell(&asked)?.ok_or_else(|| "Spark does not say what a query took".into())
    }
}
