//! The two brokers as child processes, and how long each takes to its first acknowledged record.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ports::free_port;
use crate::{Outcome, load, machine};

/// How long a start may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(90);

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

/// A running broker: killed when dropped.
pub struct Running {
    child: Child,
    said: PathBuf,
    /// Which it is.
    pub product: Product,
    /// `HOST:PORT` for clients.
    pub bootstrap: String,
    /// From the start of the process to its first acknowledged record, on an empty data directory.
    pub start_up: Duration,
    /// Resident memory two seconds after that record, in bytes.
    pub idle_bytes: u64,
}

impl Running {
    /// Starts a broker on an empty folder and waits for its first acknowledged record. Kafka syncs by topic, so
    /// `fsync` matters to Millpond only.
    ///
    /// # Errors
    /// It did not start; the end of what it said is in the message.
    pub fn start(product: Product, folder: &Path, fsync: bool) -> Outcome<Self> {
        fs::create_dir_all(folder)?;
        let port = free_port();
        let mut command = match product {
            Product::Millpond => millpond(folder, port, fsync),
            Product::Kafka => kafka(folder, port)?,
        };
        let said = folder.join("said");
        let log = File::create(&said)?;
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.map_err(|e| format!("{} cannot be started: {e}", product.name()))?;
        let bootstrap = format!("127.0.0.1:{port}");
        let mut running = Self { child, said, product, bootstrap, start_up: Duration::ZERO, idle_bytes: 0 };
        load::first_record(&running.bootstrap, started + START_MAX).map_err(|e| running.explain(&*e))?;
        running.start_up = started.elapsed();
        std::thread::sleep(Duration::from_secs(2));
        running.idle_bytes = machine::memory_bytes(running.pid(), "VmRSS")?;
        Ok(running)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of what the broker said.
    pub fn explain(&mut self, error: &dyn std::error::Error) -> String {
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

fn millpond(folder: &Path, port: u16, fsync: bool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLPOND_")) {
        command.env_remove(name);
    }
    command.arg("serve").arg("--data-dir").arg(folder.join("data"));
    command.args(["--kafka", &format!("127.0.0.1:{port}"), "--http", "127.0.0.1:0"]);
    command.args(["--durability", if fsync { "fsync" } else { "os" }]);
    command
}

/// Kafka with the flags of its own `kafka-server-start.sh`, on a directory that its own tool formatted.
fn kafka(folder: &Path, port: u16) -> Outcome<Command> {
    let jars = jars()?;
    let properties = folder.join("server.properties");
    fs::write(&properties, kafka_properties(folder, port, free_port()))?;
    let tool = |args: &[&str]| -> Outcome<String> {
        let output = java(&jars, &["-Xmx256m"]).arg("kafka.tools.StorageTool").args(args).output()?;
        if !output.status.success() {
            return Err(format!("formatting Kafka's storage: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let id = tool(&["random-uuid"])?;
    tool(&["format", "--standalone", "-t", &id, "-c", &properties.to_string_lossy()])?;
    let flags = [
        "-Xms1g",
        "-Xmx1g",
        "-server",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent",
    ];
    let mut command = java(&jars, &flags);
    command.arg("kafka.Kafka").arg(&properties).current_dir(folder);
    Ok(command)
}

fn java(jars: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(flags).arg("-Djava.awt.headless=true").arg("-cp").arg(jars.join("*"));
    command
}

/// Where `tests/support/setup` puts what the tests and benches run beside Millpond.
///
/// # Errors
/// The environment names no home.
pub fn clients() -> Outcome<PathBuf> {
    let cache = match std::env::var_os("MILLPOND_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").ok_or("HOME is not set")?).join(".cache/millpond"),
    };
    Ok(cache.join("tests"))
}

/// Where `tests/support/setup` put Kafka's jars.
fn jars() -> Outcome<PathBuf> {
    let jars = clients()?.join("kafka/jars");
    if !jars.is_dir() {
        return Err(format!("no jars of Apache Kafka in {}, run tests/support/setup", jars.display()).into());
    }
    Ok(jars)
}

fn kafka_properties(folder: &Path, port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\nlog.dirs={}\n",
        folder.join("data").display()
    )
}
