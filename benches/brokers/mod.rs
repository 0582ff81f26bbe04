//! The two brokers as child processes, and how long each takes to its first acknowledged record.

mod command;
mod fleet;

use std::fmt::Display;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ports::free_port;
use crate::{Outcome, load, machine};

pub use command::clients;
pub use fleet::Fleet;

/// How long a start may take on a busy machine, with a large store.
const START_MAX: Duration = Duration::from_secs(180);
/// A broker that has written almost nothing for so long is idle: what it puts off (flush, merges) has been done.
pub const IDLE: Duration = Duration::from_secs(5);
/// Almost nothing: Kafka adds a few records a second to its metadata log whatever happens.
const IDLE_BYTES: u64 = 1 << 20;
/// The longest wait for that, with a large store.
const SETTLE_MAX: Duration = Duration::from_secs(600);
/// How long a stop in order may take.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// The binary of this workspace.
    Millpond,
    /// Apache Kafka from Maven's jars.
    Kafka,
}

impl Product {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Millpond => "Millpond",
            Self::Kafka => "Apache Kafka",
        }
    }
}

/// Where a broker keeps its data and listens, so that it can be started again.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which broker.
    pub product: Product,
    folder: PathBuf,
    fsync: bool,
    port: u16,
    controller: u16,
    variables: Vec<(&'static str, &'static str)>,
}

impl Place {
    /// A folder of its own below `scratch`. Kafka syncs by topic, so `fsync` matters to Millpond only.
    pub fn new(product: Product, scratch: &Path, name: &str, fsync: bool) -> Self {
        let folder = scratch.join(format!("{product:?}-{name}"));
        Self { product, folder, fsync, port: free_port(), controller: free_port(), variables: Vec::new() }
    }

    /// With this variable in Millpond's environment, and the property that it stands for in Kafka's image: `KAFKA_LOG_DIRS` is `log.dirs`.
    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// What the broker stores.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Blocks of what is stored, in bytes, once all of it is on the device: a file gets them when its pages are written.
    ///
    /// # Errors
    /// What the file system says.
    pub fn on_disk(&self) -> Outcome<u64> {
        machine::flush_disks()?;
        Ok(machine::stored(&self.data())?.bytes)
    }

    /// Removes what is stored; nothing may run there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self) -> Outcome<()> {
        Ok(fs::remove_dir_all(&self.folder)?)
    }

    /// Starts the broker and waits for its first acknowledged record.
    ///
    /// # Errors
    /// It did not start; the end of what it said is in the message.
    pub fn start(&self) -> Outcome<Running> {
        fs::create_dir_all(&self.folder)?;
        let mut command = match self.product {
            Product::Millpond => command::millpond(self),
            Product::Kafka => command::kafka(self)?,
        };
        let said = self.folder.join("said");
        let log = File::create(&said)?;
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.map_err(|e| format!("{} cannot be started: {e}", self.product.name()))?;
        let bootstrap = format!("127.0.0.1:{}", self.port);
        let mut running = Running { child, said, product: self.product, bootstrap, start_up: Duration::ZERO };
        load::first_record(&running.bootstrap, started + START_MAX).map_err(|e| running.explain(e))?;
        running.start_up = started.elapsed();
        Ok(running)
    }
}

/// A running broker: killed when dropped.
pub struct Running {
    child: Child,
    said: PathBuf,
    /// Which it is.
    pub product: Product,
    /// `HOST:PORT` for clients.
    pub bootstrap: String,
    /// From the start of the process to its first acknowledged record.
    pub start_up: Duration,
}

impl Running {
    /// Resident memory two seconds from now, in bytes.
    ///
    /// # Errors
    /// The broker is gone.
    pub fn idle_bytes(&self) -> Outcome<u64> {
        std::thread::sleep(Duration::from_secs(2));
        machine::memory_bytes(self.pid(), "VmRSS")
    }

    /// Waits until the broker is idle; gives the bytes that it has caused to be written since its start.
    ///
    /// # Errors
    /// It does not become idle, or it is gone.
    pub fn settle(&self) -> Outcome<u64> {
        let deadline = Instant::now() + SETTLE_MAX;
        let mut before = machine::io(self.pid())?.written;
        loop {
            std::thread::sleep(IDLE);
            let now = machine::io(self.pid())?.written;
            if now.saturating_sub(before) < IDLE_BYTES {
                return Ok(now);
            }
            if Instant::now() > deadline {
                return Err(format!("{} still writes after {SETTLE_MAX:?}", self.product.name()).into());
            }
            before = now;
        }
    }

    /// Asks the broker to stop in order and waits until it has.
    ///
    /// # Errors
    /// It has not in time, or not in order.
    pub fn stop(mut self) -> Outcome<()> {
        Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        let deadline = Instant::now() + STOP_MAX;
        loop {
            match self.child.try_wait()? {
                // 143 is what the JVM makes of SIGTERM after its shutdown hooks
                Some(status) if status.success() || status.code() == Some(128 + 15) => return Ok(()),
                Some(_) => return Err(self.explain("it was to stop").into()),
                None if Instant::now() > deadline => {
                    return Err(format!("{} does not stop", self.product.name()).into());
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// `kill -9`: what a drop does, by its name.
    pub fn kill(self) {}

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of what the broker said.
    pub fn explain(&mut self, error: impl Display) -> String {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("it ended, {status}"),
            _ => "it still runs".to_owned(),
        };
        let said = String::from_utf8_lossy(&fs::read(&self.said).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("{}: {error} ({state})\n{tail}", self.product.name())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
