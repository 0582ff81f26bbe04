//! The real `millpond serve` as a child process.

use super::Scratch;
use super::http::Http;
use super::process::Process;
use super::raw::Client;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// How long a start may take on a busy machine.
const READY: Duration = Duration::from_secs(60);

pub struct Server {
    process: Process,
    folder: PathBuf,
    options: Options,
    starts: u32,
    pub kafka: String,
    pub http: Http,
}

/// What differs from `serve --data-dir <folder>/data --kafka 127.0.0.1:0 --http 127.0.0.1:0`.
#[derive(Clone, Default)]
pub struct Options {
    pub configs: Vec<PathBuf>,
    pub durability: Option<&'static str>,
    pub args: Vec<String>,
    /// Variables of the environment.
    pub env: Vec<(&'static str, String)>,
}

impl Server {
    pub fn start(scratch: &Scratch) -> Server {
        Server::start_with(scratch, Options::default())
    }

    /// A server that runs this configuration.
    pub fn with_config(scratch: &Scratch, toml: &str) -> Server {
        let path = scratch.write("test.toml", toml);
        Server::start_with(scratch, Options { configs: vec![path], ..Options::default() })
    }

    pub fn start_with(scratch: &Scratch, options: Options) -> Server {
        let folder = scratch.path("server");
        std::fs::create_dir_all(&folder).unwrap();
        let mut process = spawn(&folder, &options, "127.0.0.1:0", "127.0.0.1:0", 1);
        let (kafka, http) = ready(&mut process);
        Server { process, folder, options, starts: 1, kafka, http: Http::new(&http) }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Default place of the lake's directories.
    pub fn lake_dir(&self) -> PathBuf {
        self.data_dir().join("lake")
    }

    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    pub fn peak_bytes(&self) -> u64 {
        self.process.peak_bytes()
    }

    /// A raw protocol connection.
    pub fn connect(&self) -> Client {
        Client::connect(&self.kafka)
    }

    /// And has `millpond check` look at what is left: no crash may break a rule of the store.
    pub fn kill9(&mut self) {
        self.process.kill9();
        self.check();
    }

    /// SIGTERM; a clean stop is quick and successful.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.terminate(Duration::from_secs(30))
    }

    /// Starts the stopped server again on the same data and the same ports.
    pub fn start_again(&mut self) {
        assert!(self.process.exited().is_some(), "the server still runs");
        self.starts += 1;
        let address = self.http.address().to_owned();
        self.process = spawn(&self.folder, &self.options, &self.kafka, &address, self.starts);
        let (kafka, http) = ready(&mut self.process);
        assert_eq!(
            (kafka.as_str(), http.as_str()),
            (self.kafka.as_str(), self.http.address()),
            "same ports after a restart"
        );
        self.http = Http::new(&http);
    }

    /// `millpond check` finds nothing wrong in the data of the stopped server. Gives its report.
    pub fn check(&self) -> String {
        let mut command = millpond();
        command.args(["check", "--json", "--data-dir"]).arg(self.data_dir());
        let output = command.output().unwrap();
        let (report, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{report}\n{error}");
        report.into_owned()
    }

    /// Fails if the server has ended; for tests that try to break it.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.process.exited() {
            panic!("the server ended: {status}\n{}", self.process.tail());
        }
    }
}

/// The command, ready to be given more arguments.
pub fn millpond() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MILLPOND_")) {
        command.env_remove(name);
    }
    command
}

/// `millpond serve` on these addresses.
pub fn serve(data_dir: &Path, kafka: &str, http: &str) -> Command {
    let mut command = millpond();
    command.arg("serve").arg("--data-dir").arg(data_dir).args(["--kafka", kafka, "--http", http]);
    command
}

fn spawn(folder: &Path, options: &Options, kafka: &str, http: &str, start: u32) -> Process {
    let mut command = serve(&folder.join("data"), kafka, http);
    for config in &options.configs {
        command.arg("--config").arg(config);
    }
    if let Some(durability) = options.durability {
        command.args(["--durability", durability]);
    }
    command.args(&options.args);
    command.envs(options.env.iter().map(|(name, value)| (name, value)));
    Process::start(command, &folder.join(format!("serve-{start}")))
}

fn ready(process: &mut Process) -> (String, String) {
    let Address { kafka, http } = announced(process).unwrap_or_else(|e| panic!("{e}"));
    (kafka, http)
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Address {
    pub kafka: String,
    pub http: String,
}

/// What a server says once it is ready; an error when it ends before, or takes too long.
pub fn announced(process: &mut Process) -> Result<Address, String> {
    let line = process.wait_for_line(|line| line.starts_with("millpond ready "), READY)?;
    let fields: HashMap<&str, &str> = line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    Ok(Address { kafka: fields["kafka"].to_owned(), http: fields["http"].to_owned() })
}
