//! The real server as a child process, with a configuration file.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{Outcome, machine};
use process::Process;

#[allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the tests' own, of which this needs a part; an end by panic ends a run as any failure does"
)]
#[path = "../tests/support/process.rs"]
pub mod process;

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(120);

/// A running server: killed when dropped.
pub struct Server {
    process: Process,
    /// `HOST:PORT` for Kafka clients.
    pub kafka: String,
    /// `HOST:PORT` for HTTP.
    pub http: String,
}

impl Server {
    /// Starts it on an empty folder, with this configuration and its defaults, once all that was written before is on the disk.
    ///
    /// # Errors
    /// It did not start.
    pub fn start(folder: &Path, toml: &str) -> Outcome<Self> {
        fs::create_dir_all(folder)?;
        let config = folder.join("millpond.toml");
        fs::write(&config, toml)?;
        machine::settle()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLPOND_")) {
            command.env_remove(name);
        }
        command.arg("serve").arg("--data-dir").arg(folder.join("data")).arg("--config").arg(&config);
        command.args(["--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        let mut process = Process::start(command, &folder.join("serve"));
        let line = process.wait_for_line(|line| line.starts_with("millpond ready "), START_MAX)?;
        let place = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        let (kafka, http) = place("kafka=").zip(place("http=")).ok_or("the ready line names no places")?;
        Ok(Self { process, kafka, http })
    }

    /// CPU seconds that it has used.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu_seconds(&self) -> Outcome<f64> {
        machine::cpu_seconds(self.process.pid())
    }
}
